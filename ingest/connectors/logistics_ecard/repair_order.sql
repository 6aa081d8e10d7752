-- HQ_BXGL_BXDB → logistics.repair_order.
SELECT
    clean_id("BXDH")                    AS order_id,
    clean_id("BXR")                     AS reporter_no,
    clean_text("LDDM") || COALESCE('-' || clean_text("QSH"), '') AS space_id,
    code_map('bxlb', clean_text("BXLB")) AS category,
    cn_timestamp("BXSJ")                AS reported_at,
    cn_timestamp("SLSJ")                AS accepted_at,
    cn_timestamp("WGSJ")                AS finished_at,
    cn_timestamp("SXSJ")                AS due_at,
    "PJ"                                AS rating,
    code_map('bxzt', "ZT")              AS order_status,
    cn_timestamp("XGSJ")                AS src_updated_at
FROM input
