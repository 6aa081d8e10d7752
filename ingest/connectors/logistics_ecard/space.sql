-- 楼栋, 寝室, 床位, 公共空间 → logistics.space. Codes are text, padded by some tables: trimmed, never numbers.
SELECT
    clean_text("LDDM")
        || COALESCE('-' || clean_text("QSH"), '')
        || COALESCE('-' || clean_text("CWH"), '') AS space_id,
    code_map('lb', "LB")                AS space_type,
    CASE "LB"
        WHEN 'LD' THEN NULL
        WHEN 'CW' THEN clean_text("LDDM") || '-' || clean_text("QSH")
        ELSE clean_text("LDDM")
    END                                 AS parent_space_id,
    clean_text("XQDM")                  AS campus_code,
    clean_text("LDDM")                  AS building_id,
    "CH"                                AS floor_no,
    COALESCE(code_map('qsxb', clean_text("QSXB")), '9') AS sex_limit,
    "RL"                                AS capacity,
    "MJ"                                AS area_m2,
    code_map('kjgn', clean_text("KJGN")) AS function_code,
    "ZDS"                               AS kiosk_count,
    cn_timestamp("XGSJ")                AS src_updated_at
FROM input
