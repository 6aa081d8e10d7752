-- XG_XTGL_DWB → identity.org_unit.
SELECT
    clean_id("DWH")                     AS org_id,
    code_map('dwlb', clean_text("DWLB")) AS org_type,
    clean_text("DWMC")                  AS org_name,
    clean_id("LSDWH")                   AS parent_org_id,
    clean_id("BZDM")                    AS std_code,
    cn_date("QYRQ")                     AS valid_from,
    cn_date("TYRQ")                     AS valid_to
FROM input
