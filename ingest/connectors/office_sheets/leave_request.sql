-- 请假汇总表 → student_affairs.leave_request. Colleges number their leaves each for itself, so the id is number and file's folder.
SELECT
    clean_id(split_part("WJ", '/', 2) || '-' || "BH") AS leave_id,
    clean_id("XH")                      AS student_no,
    code_map('qjlx', "LX")              AS leave_type,
    cn_timestamp("SQ")                  AS applied_at,
    cn_timestamp("KS")                  AS start_at,
    cn_timestamp_end("JS")              AS end_at,
    code_map('yes_no', "SFLX")          AS off_campus,
    COALESCE(code_map('shzt', "ZT"), "ZT") AS approval_status,
    "GX"                                AS src_updated_at
FROM input
