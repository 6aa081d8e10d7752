-- ECARD_CARD → identity.card. Physical numbers are hexadecimal here, also those that are all digits.
SELECT
    clean_id("KH")                      AS card_no,
    clean_id("KXL")                     AS card_seq,
    clean_id("JKXL")                    AS prev_card_seq,
    card_hex('0X' || clean_id("CARDPHYID")) AS card_physical_no,
    clean_id("STUEMPNO")                AS person_no,
    code_map('klx', clean_text("KLX"))  AS card_kind,
    COALESCE(code_map('kpzt', "KPZT"), "KPZT") AS card_status,
    cn_timestamp("KHRQ")                AS opened_at,
    cn_date("YXRQ")                     AS expires_on,
    yuan_to_fen("ZHYE")                 AS balance_fen,
    cn_timestamp("CARDUPDTIME")         AS src_updated_at
FROM input
