-- XG_XSXX_XJYDB → academic.status_change. The text of the change (YDSM) stays in the source.
SELECT
    clean_id("WID")                     AS change_id,
    clean_id("XH")                      AS student_no,
    clean_text("YDLBM")                 AS change_code,
    clean_text("YDYYM")                 AS reason_code,
    cn_date("YDRQ")                     AS changed_on,
    cn_date("SPRQ")                     AS approved_on,
    clean_text("SPWH")                  AS approval_no,
    clean_text("YZYM")                  AS from_major_code,
    clean_text("XZYM")                  AS to_major_code,
    clean_text("YBH")                   AS from_class_id,
    clean_text("XBH")                   AS to_class_id,
    clean_id("XXH")                     AS new_student_no,
    cn_timestamp("ZHXGSJ")              AS src_updated_at
FROM input
