-- JW_KQ_KCQDB → academic.attendance. Who sits in without having selected the class (QDZT 5) is none of it.
SELECT
    clean_id("XH")                      AS student_no,
    clean_text("JXBID")                 AS class_no,
    cn_date("SKRQ")                     AS session_on,
    "JCQ"                               AS section_from,
    clean_text("QDZT")                  AS attend_status,
    code_map('qdfs', clean_text("QDFS")) AS method,
    cn_timestamp("QDSJ")                AS signed_at,
    cn_timestamp("TSTAMP")              AS src_updated_at
FROM input
WHERE "QDZT" IS NULL OR clean_text("QDZT") <> '5'
