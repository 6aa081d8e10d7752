-- Card transactions → logistics.card_txn. Amounts are 元, spending negative; here 分, spending positive.
SELECT
    clean_id("ID")                      AS txn_serial,
    clean_id("KH")                      AS card_no,
    clean_id("KXL")                     AS card_seq,
    CASE WHEN "JE" LIKE '-%' THEN 'purchase' ELSE 'topup' END AS txn_type,
    yuan_to_fen(CASE WHEN "JE" LIKE '-%' THEN substr("JE", 2) ELSE "JE" END) AS amount_fen,
    yuan_to_fen("YE")                   AS balance_after_fen,
    "CS"                                AS card_use_count,
    cn_timestamp("SJ")                  AS txn_at,
    clean_id("ZD")                      AS terminal_no,
    cn_timestamp("GX")                  AS booked_at,
    cn_timestamp("GX")                  AS src_updated_at
FROM input
