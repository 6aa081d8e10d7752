-- XG_RCSW_QJGL_QJSQB → student_affairs.leave_request. XJZT is 销假状态 here, not 学籍状态 as in 教务.
-- A state nobody knows is passed on, so that the row becomes a dead letter: guessed approval would be worse than none.
SELECT
    clean_id("WID")                     AS leave_id,
    clean_id("XH")                      AS student_no,
    code_map('qjlx', "QJLX")            AS leave_type,
    cn_timestamp("SQSJ")                AS applied_at,
    cn_timestamp("QJKSSJ")              AS start_at,
    cn_timestamp_end("QJJSSJ")          AS end_at,
    code_map('yes_no', "SFLX")          AS off_campus,
    COALESCE(code_map('shzt', "SHZT"), "SHZT") AS approval_status,
    cn_timestamp("SHSJ")                AS approved_at,
    COALESCE(code_map('xjzt', "XJZT"), "XJZT") AS cancel_status,
    cn_timestamp("XJSJ")                AS cancelled_at,
    cn_timestamp("SJJSSJ")              AS actual_end_at,
    cn_timestamp("ZHXGSJ")              AS src_updated_at
FROM input
