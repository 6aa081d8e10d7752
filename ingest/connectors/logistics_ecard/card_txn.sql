-- YKT_JY_LOG → logistics.card_txn. Amounts are 元 with a sign, spending negative; terminals that do not write the kind
-- leave it to the sign. Here: 分, spending positive, and the kind says the direction; a correction takes spending back.
SELECT
    clean_id("JYLSH")                   AS txn_serial,
    clean_id("KH")                      AS card_no,
    clean_id("KXL")                     AS card_seq,
    COALESCE(code_map('jylx', "JYLX"), "JYLX", CASE WHEN "JYJE" LIKE '-%' THEN 'purchase' ELSE 'topup' END) AS txn_type,
    yuan_to_fen(CASE
        WHEN "JYJE" LIKE '-%' THEN substr("JYJE", 2)
        WHEN "JYLX" = '90' THEN '-' || "JYJE"
        ELSE "JYJE"
    END)                                AS amount_fen,
    yuan_to_fen("JYYE")                 AS balance_after_fen,
    "LJYKCS"                            AS card_use_count,
    cn_timestamp("JYRQ" || "JYSJ")      AS txn_at,
    clean_text("SHDM")                  AS merchant_id,
    code_map('shlb', "SHLB")            AS merchant_kind,
    clean_id("ZDJH")                    AS terminal_no,
    cn_timestamp("RZSJ")                AS booked_at,
    cn_timestamp("RZSJ")                AS src_updated_at
FROM input
