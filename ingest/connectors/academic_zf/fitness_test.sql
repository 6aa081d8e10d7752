-- JW_TY_TCCJB → extension.fitness_test.
SELECT
    clean_id("XH")                      AS student_no,
    "CSND"                              AS test_year,
    cn_date("CSRQ")                     AS tested_on,
    "ZF"                                AS total_score,
    clean_text("DJ")                    AS grade_text,
    cn_timestamp("TSTAMP")              AS src_updated_at
FROM input
