-- XG_SQGL_ZZXXB → student_affairs.community_org: a row a floor that an organisation covers.
SELECT
    clean_id("ZZBH")                    AS org_code,
    code_map('zzjg', clean_text("ZZLX")) AS org_type,
    clean_text("ZZMC")                  AS org_name,
    clean_text("LDDM")                  AS building_id,
    "CH"                                AS floor_no,
    clean_id("FZRH")                    AS leader_no,
    code_map('fzrsf', clean_text("FZRSF")) AS leader_kind,
    cn_date("CLRQ")                     AS valid_from,
    cn_date("CXRQ")                     AS valid_to,
    cn_timestamp("ZHXGSJ")              AS src_updated_at
FROM input
