-- XG_GYGL_NEW_SSYD_SSYDJG → logistics.bed_assignment.
SELECT
    clean_id("XH")                      AS student_no,
    clean_text("YDHLDDM") || '-' || clean_text("YDHQSH") || '-' || clean_text("YDHCWH") AS space_id,
    clean_text("YDHLDDM")               AS building_id,
    "YDHCH"                             AS floor_no,
    clean_text("YDHQSH")                AS room_no,
    cn_timestamp("RZSJ")                AS assigned_from,
    cn_timestamp_end("QCSJ")            AS assigned_to,
    clean_text("SSYDLX")                AS change_type,
    clean_text("SHZT")                  AS audit_status,
    cn_timestamp("GXSJ")                AS src_updated_at
FROM input
