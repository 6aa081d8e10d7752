-- JW_XK_XSXKB → academic.course_selection.
SELECT
    clean_id("XH")                      AS student_no,
    clean_text("JXBID")                 AS class_no,
    clean_id("KCH")                     AS course_no,
    cn_timestamp("XKSJ")                AS selected_at,
    code_map('xkzt', "XKZT")            AS select_status,
    code_map('yes_no', "CXCKDM")        AS is_retake,
    cn_timestamp("TSTAMP")              AS src_updated_at
FROM input
