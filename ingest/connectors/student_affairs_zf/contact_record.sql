-- SZDW_THJL → student_affairs.contact_record. The text of the talk (THNR) stays in the source.
-- Day and clock stand in two columns.
SELECT
    clean_id("WID")                     AS contact_id,
    clean_id("XH")                      AS student_no,
    clean_id("GH")                      AS staff_no,
    code_map('jsdm', "JSDM")            AS role_code,
    COALESCE(code_map('thlx', "THLX"), "THLX") AS contact_type,
    cn_timestamp(cn_date("THRQ") || ' ' || "THSJ") AS occurred_at,
    "THSC"                              AS duration_min,
    clean_text("THDD")                  AS place_id,
    code_map('yes_no', "SFSQ")          AS in_community,
    "CYRS"                              AS group_size,
    cn_date("GJQX")                     AS follow_up_due,
    cn_timestamp("GJWCSJ")              AS follow_up_done_at,
    cn_timestamp("ZHXGSJ")              AS src_updated_at
FROM input
