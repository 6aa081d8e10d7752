-- XG_JSGL_JZGXXB → identity.staff. A state nobody knows is passed on and becomes a dead letter.
SELECT
    clean_id("GH")                      AS staff_no,
    clean_text("XM")                    AS name,
    clean_id("DWH")                     AS org_id,
    code_map('jzglb', "JZGLBM")         AS staff_type,
    COALESCE(code_map('dqzt', "DQZTM"), "DQZTM") AS employment_status,
    cn_timestamp("ZHXGSJ")              AS src_updated_at
FROM input
