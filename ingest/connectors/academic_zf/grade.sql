-- CJ_BKS → academic.grade. Terms are 3 and 12 here. SFYX = 0 is a withdrawn result: the row stays, not valid.
-- An examination nature nobody knows is passed on and becomes a dead letter, because it is part of the key.
SELECT
    clean_id("XH")                      AS student_no,
    clean_id("KCH")                     AS course_no,
    clean_text("XN")                    AS academic_year,
    COALESCE(code_map('xqm', "XQM"), "XQM") AS term_no,
    COALESCE(code_map('ksxz', clean_text("KSXZ")), "KSXZ") AS exam_nature,
    "DJC"                               AS attempt_no,
    "FSLKSCJ"                           AS score,
    clean_text("DJLKSCJ")               AS score_text,
    code_map('yes_no', "SFJG")          AS passed,
    "XF"                                AS credits,
    "XF_HD"                             AS credits_earned,
    "JD"                                AS grade_point,
    cn_date("KSRQ")                     AS exam_on,
    cn_timestamp("FBSJ")                AS posted_at,
    code_map('yes_no', "SFYX")          AS is_valid,
    code_map('czlx', "CZLX")            AS op,
    cn_timestamp("TSTAMP")              AS src_updated_at
FROM input
