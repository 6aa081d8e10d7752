-- XG_JCGL_JLHDB and XG_JCGL_CFXXB → student_affairs.award_punishment. What was done (CFYY) stays in the source.
SELECT
    clean_id("WID")                     AS record_id,
    clean_id("XH")                      AS student_no,
    COALESCE(code_map('jllx', clean_text("JLLX")), "JLLX") AS record_kind,
    clean_text("JLMC")                  AS item_name,
    clean_text("JLJBM")                 AS level_code,
    clean_text("JLDJM")                 AS grade_code,
    clean_text("CFMCM")                 AS punishment_code,
    cn_date("JDRQ")                     AS decided_on,
    cn_date("CFCXRQ")                   AS revoked_on,
    clean_text("WH")                    AS document_no,
    yuan_to_fen("JE")                   AS amount_fen,
    cn_timestamp("ZHXGSJ")              AS src_updated_at
FROM input
