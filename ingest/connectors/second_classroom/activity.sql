-- Activities → student_affairs.activity. The mark of a change begins with its time.
SELECT
    clean_id("ID")                      AS activity_id,
    clean_text("MC")                    AS title,
    code_map('fl', clean_text("FL"))    AS category,
    code_map('xs', clean_text("XS"))    AS form,
    code_map('dwlx', clean_text("DWLX")) AS organiser_type,
    clean_id("DW")                      AS organiser_id,
    clean_text("DD")                    AS place_id,
    cn_timestamp("KS")                  AS start_at,
    cn_timestamp_end("JS")              AS end_at,
    "XF"                                AS credits,
    code_map('hdzt', clean_text("ZT"))  AS activity_status,
    cn_timestamp(split_part("GX", '_', 1)) AS src_updated_at
FROM input
