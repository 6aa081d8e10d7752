-- XG_GYGL_NEW_WSJCB → logistics.dorm_inspection. Without a student number the result is the whole room's.
SELECT
    clean_id("JCID")                    AS inspection_id,
    clean_text("LDDM") || '-' || clean_text("QSH") AS room_id,
    COALESCE(clean_id("XH"), '*')       AS student_no,
    COALESCE(code_map('jclx', clean_text("JCLX")), "JCLX") AS inspect_kind,
    cn_timestamp("JCSJ")                AS inspected_at,
    code_map('jcjg', clean_text("JG"))  AS result_code,
    "DF"                                AS score,
    code_map('wgx', clean_text("WGX"))  AS item_code,
    clean_id("JCRGH")                   AS inspector_no,
    cn_timestamp("XGSJ")                AS src_updated_at
FROM input
