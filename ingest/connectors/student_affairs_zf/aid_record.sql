-- XG_ZZGL_ZZJLB → student_affairs.aid_record. Family circumstances (JTQK) stay in the source.
-- A kind or a state nobody knows is passed on, so that the row becomes a dead letter.
SELECT
    clean_id("WID")                     AS aid_id,
    clean_id("XH")                      AS student_no,
    COALESCE(code_map('zzlx', clean_text("ZZLX")), "ZZLX") AS aid_type,
    clean_text("KNCDDM")                AS hardship_level,
    clean_text("KNYYM")                 AS hardship_cause,
    clean_text("KNPDXN")                AS academic_year,
    yuan_to_fen("JE")                   AS amount_fen,
    cn_timestamp("RDSJ")                AS decided_at,
    cn_timestamp("FFSJ")                AS paid_at,
    COALESCE(code_map('zzzt', "SHZT"), "SHZT") AS aid_status,
    cn_timestamp("ZHXGSJ")              AS src_updated_at
FROM input
