-- 门禁点事件 → access_control.access_event. Direction, placeholders and places as in the pushed events.
SELECT
    "EVENT_ID"                          AS event_id,
    clean_text("DOOR")                  AS device_id,
    '0'                                 AS door_no,
    stable_number("EVENT_ID")           AS event_serial,
    cn_timestamp("EVENT_TIME")          AS event_time,
    cn_timestamp("RECEIVE_TIME")        AS receive_time,
    CASE WHEN clean_id("JOB_NO") <> '0' THEN clean_id("JOB_NO") END AS access_person_no,
    card_hex("CARD_NO")                 AS card_physical_no,
    code_map('event_verify', "EVENT_TYPE") AS verify_mode,
    CASE
        WHEN "IN_OUT" IN ('0', '1') THEN code_map('in_out', "IN_OUT")
        WHEN "DOOR_NAME" LIKE '%[进门]%' THEN 'in'
        WHEN "DOOR_NAME" LIKE '%[出门]%' THEN 'out'
        ELSE 'unknown'
    END                                 AS direction,
    CASE
        WHEN "IN_OUT" IN ('0', '1') THEN 'device'
        WHEN "DOOR_NAME" LIKE '%[进门]%' OR "DOOR_NAME" LIKE '%[出门]%' THEN 'label'
    END                                 AS direction_source,
    COALESCE(code_map('event_result', "EVENT_TYPE"), 'abnormal') AS result,
    CASE WHEN code_map('event_result', "EVENT_TYPE") = 'denied' THEN code_map('event_deny_reason', "EVENT_TYPE") END AS deny_reason,
    code_map('place_kind', substr("DOOR_NAME", 1, 1)) AS place_kind,
    clean_text(split_part("DOOR_NAME", '-', 1)) AS building_id,
    cn_timestamp("RECEIVE_TIME")        AS src_updated_at
FROM input
