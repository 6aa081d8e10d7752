-- XG_XSXX_ZCXXB → academic.term_registration. Year and term stand in one column here, 2026-2027-1.
SELECT
    clean_id("XH")                      AS student_no,
    substr("XNXQ", 1, 9)                AS academic_year,
    substr("XNXQ", 11)                  AS term_no,
    clean_text("ZCZKM")                 AS reg_status,
    cn_timestamp("ZCRQ")                AS registered_at,
    yuan_to_fen("QFJE")                 AS fee_owed_fen,
    clean_text("WZCYY")                 AS absence_reason,
    cn_timestamp("ZHXGSJ")              AS src_updated_at
FROM input
