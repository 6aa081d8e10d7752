-- TYRZ_ACCOUNT → identity.account. The time of the last login (ZHDLSJ) is not taken.
SELECT
    clean_text("USERID")                AS cas_uid,
    clean_id("XGH")                     AS person_no,
    COALESCE(code_map('inetuserstatus', clean_id("INETUSERSTATUS")), "INETUSERSTATUS") AS account_status,
    code_map('container', "CONTAINER")  AS user_type,
    cn_timestamp("KTSJ")                AS opened_at,
    cn_timestamp("ZXSJ")                AS closed_at,
    cn_timestamp("MODIFYTIME")          AS src_updated_at
FROM input
