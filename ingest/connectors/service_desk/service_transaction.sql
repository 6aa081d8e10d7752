-- Applications → extension.service_transaction. A marked row was deleted.
SELECT
    clean_id("BH")                      AS txn_id,
    clean_id("SX")                      AS service_code,
    clean_id("SQR")                     AS person_no,
    code_map('way', clean_text("QD"))   AS channel,
    cn_timestamp("TJSJ")                AS submitted_at,
    cn_timestamp("BJSJ")                AS finished_at,
    cn_timestamp_end("SXSJ")            AS due_at,
    "PJ"                                AS rating,
    CASE WHEN "SC" = '1' THEN 'D' END   AS op,
    epoch_timestamp("GX")               AS src_updated_at
FROM input
