-- JW_JXRW_JXBXXB → academic.teaching_class. Terms are 3 and 12 here.
SELECT
    clean_text("JXBID")                 AS class_no,
    "SDXH"                              AS meeting_no,
    clean_id("KCH")                     AS course_no,
    clean_text("XN")                    AS academic_year,
    COALESCE(code_map('xqm', "XQM"), "XQM") AS term_no,
    clean_id("GH")                      AS teacher_no,
    "XQJ"                               AS weekday,
    "JCQ"                               AS section_from,
    "JCZ"                               AS section_to,
    clean_text("ZCSM")                  AS weeks,
    clean_text("CDMC")                  AS place_id,
    cn_date("SKKSRQ")                   AS start_on,
    cn_timestamp("TSTAMP")              AS src_updated_at
FROM input
