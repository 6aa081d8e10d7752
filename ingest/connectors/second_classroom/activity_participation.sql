-- Growth records → student_affairs.activity_participation. What is taken back (退回) stays, as returned.
SELECT
    clean_id("HD")                      AS activity_id,
    clean_id("XH")                      AS student_no,
    COALESCE(code_map('js', clean_text("JS")), "JS") AS part_role,
    cn_timestamp("KSSJ")                AS checked_in_at,
    cn_timestamp_end("JSSJ")            AS checked_out_at,
    "SC"                                AS hours,
    "XF"                                AS credits,
    code_map('trade_status', clean_text("ZT")) AS part_status,
    cn_timestamp(split_part("GX", '_', 1)) AS src_updated_at
FROM input
