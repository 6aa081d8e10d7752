-- XG_JSGL_LXGXB → identity.staff_role. Role and kind of scope are part of the key: what nobody knows is passed on.
SELECT
    clean_id("GH")                      AS staff_no,
    COALESCE(code_map('jsdm', "JSDM"), "JSDM") AS role_code,
    COALESCE(code_map('dxlx', "DXLX"), "DXLX") AS scope_type,
    clean_id("DXDM")                    AS scope_id,
    cn_date("QSRQ")                     AS valid_from,
    cn_date("JZRQ")                     AS valid_to,
    cn_timestamp("ZHXGSJ")              AS src_updated_at
FROM input
