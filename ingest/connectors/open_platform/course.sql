-- Courses → academic.course.
SELECT
    clean_id("KCH")                     AS course_no,
    clean_text("KCMC")                  AS course_name,
    "XF"                                AS credits,
    "ZXS"                               AS hours_total,
    cn_timestamp("GX")                  AS src_updated_at
FROM input
