-- Leaves → student_affairs.leave_request. A state nobody knows is passed on and becomes a dead letter.
SELECT
    clean_id("ID")                      AS leave_id,
    clean_id("XH")                      AS student_no,
    code_map('qjlx', "LX")              AS leave_type,
    cn_timestamp("SQ")                  AS applied_at,
    cn_timestamp("KS")                  AS start_at,
    cn_timestamp_end("JS")              AS end_at,
    COALESCE(code_map('shzt', "ZT"), "ZT") AS approval_status,
    cn_timestamp("GX")                  AS src_updated_at
FROM input
