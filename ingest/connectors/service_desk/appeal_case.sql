-- Cases → logistics.appeal_case. Who called the psychology hotline is dropped here, before the log.
SELECT
    clean_id("BH")                      AS case_id,
    COALESCE(code_map('channel', clean_text("QD")), "QD") AS channel,
    code_map('subject', clean_text("LB")) AS category,
    CASE WHEN code_map('channel', clean_text("QD")) <> 'psych_hotline' THEN clean_id("SQR") END AS person_no,
    clean_text("LD")                    AS building_id,
    cn_timestamp("JSSJ")                AS received_at,
    cn_timestamp("ZBSJ")                AS assigned_at,
    clean_id("CBDW")                    AS assigned_org_id,
    cn_timestamp_end("QX")              AS due_at,
    cn_timestamp("FKSJ")                AS replied_at,
    cn_timestamp("HFSJ")                AS follow_up_at,
    "MY"                                AS satisfied,
    "CBCS"                              AS reopened_count,
    cn_timestamp("BJSJ")                AS closed_at,
    CASE WHEN "SC" = '1' THEN 'D' END   AS op,
    epoch_timestamp("GX")               AS src_updated_at
FROM input
