-- 刷卡记录 → access_control.access_event. Direction: 1 in, 2 out; 3 is a door for both, whose name may say it.
-- A channel is 1000001$7$0$0: device, kind, and its number, which begins at 0. Card numbers are hexadecimal.
SELECT
    "ID"                                AS event_id,
    clean_text("DEVICE_CODE")           AS device_id,
    CAST(TRY_CAST(split_part("CHANNEL_CODE", '$', 4) AS INT) + 1 AS VARCHAR) AS door_no,
    "ID"                                AS event_serial,
    cn_timestamp("SWING_TIME")          AS event_time,
    cn_timestamp("CREATE_TIME")         AS receive_time,
    CASE WHEN clean_id("PERSON_CODE") <> '0' THEN clean_id("PERSON_CODE") END AS access_person_no,
    card_hex('0X' || clean_id("CARD_NUMBER")) AS card_physical_no,
    code_map('open_type', "OPEN_TYPE")  AS verify_mode,
    CASE
        WHEN "ENTER_OR_EXIT" IN ('1', '2') THEN code_map('enter_or_exit', "ENTER_OR_EXIT")
        WHEN "CHANNEL_NAME" LIKE '%[进门]%' THEN 'in'
        WHEN "CHANNEL_NAME" LIKE '%[出门]%' THEN 'out'
        ELSE 'unknown'
    END                                 AS direction,
    CASE
        WHEN "ENTER_OR_EXIT" IN ('1', '2') THEN 'device'
        WHEN "CHANNEL_NAME" LIKE '%[进门]%' OR "CHANNEL_NAME" LIKE '%[出门]%' THEN 'label'
    END                                 AS direction_source,
    CASE "OPEN_RESULT" WHEN '1' THEN 'granted' WHEN '0' THEN 'denied' ELSE 'abnormal' END AS result,
    code_map('place_kind', substr("CHANNEL_NAME", 1, 1)) AS place_kind,
    clean_text(split_part("CHANNEL_NAME", '-', 1)) AS building_id,
    cn_timestamp("CREATE_TIME")         AS src_updated_at
FROM input
