-- Steps of cases → logistics.appeal_step.
SELECT
    clean_id("BH")                      AS case_id,
    "BZ"                                AS step_no,
    cn_timestamp("SJ")                  AS step_at,
    code_map('action', clean_text("DZ")) AS action,
    clean_id("BLR")                     AS actor_no,
    clean_id("DW")                      AS org_id,
    epoch_timestamp("GX")               AS src_updated_at
FROM input
