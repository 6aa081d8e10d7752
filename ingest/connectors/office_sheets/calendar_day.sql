-- 校历 → extension.calendar_day. The hour of lights-out becomes the minute of the day.
SELECT
    cn_date("RQ")                       AS biz_date,
    clean_text("XN")                    AS academic_year,
    COALESCE(code_map('xq', "XQM"), "XQM") AS term_no,
    "ZC"                                AS teaching_week,
    code_map('yes_no', "SFSKR")         AS is_teaching_day,
    minute_of_day("XDSJ")               AS curfew_minute
FROM input
