-- JW_XJGL_XSJBXXB → academic.enrollment. XJZTDM counts states in the vendor's way; the map leads to XSDQZTM.
SELECT
    clean_id("XH")                      AS student_no,
    code_map('xdlx', clean_text("XDLX")) AS study_kind,
    clean_text("PYCCDM")                AS level_code,
    clean_text("PYFSDM")                AS training_mode,
    clean_text("JG_ID")                 AS college_id,
    clean_text("ZYH_ID")                AS major_code,
    clean_text("BH_ID")                 AS class_id,
    "NJDM_ID"                           AS grade_year,
    "XZ"                                AS schooling_years,
    clean_text("RXNY")                  AS enrol_month,
    code_map('xjztdm', "XJZTDM")        AS status_code,
    cn_date("YJBYRQ")                   AS expected_grad_on,
    cn_date("QSRQ")                     AS valid_from,
    cn_date("ZZRQ")                     AS valid_to,
    code_map('czlx', "CZLX")            AS op,
    cn_timestamp("TSTAMP")              AS src_updated_at
FROM input
