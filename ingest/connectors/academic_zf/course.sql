-- JW_JH_KCDMB → academic.course.
SELECT
    clean_id("KCH")                     AS course_no,
    clean_text("KCMC")                  AS course_name,
    "XF"                                AS credits,
    "ZXS"                               AS hours_total,
    clean_text("KCXZM")                 AS course_nature,
    clean_text("KCSXM")                 AS course_attr,
    clean_text("KCLBM")                 AS course_category,
    clean_text("KKBM_ID")               AS college_id,
    cn_timestamp("TSTAMP")              AS src_updated_at
FROM input
