-- Passes → access_control.access_event. Direction: 1 in, 2 out, 0 where nobody told the gateway. Card numbers are hexadecimal;
-- person '0' or '' is nobody. The first letter of a building says what it is.
SELECT
    clean_text("SB")                    AS device_id,
    COALESCE("MH", '0')                 AS door_no,
    "LSH"                               AS event_serial,
    cn_timestamp("SJ")                  AS event_time,
    cn_timestamp("JSSJ")                AS receive_time,
    CASE WHEN clean_id("RYBH") <> '0' THEN clean_id("RYBH") END AS access_person_no,
    card_hex('0X' || clean_id("KH"))    AS card_physical_no,
    code_map('by', "FS")                AS verify_mode,
    COALESCE(code_map('dir', "FX"), 'unknown') AS direction,
    CASE WHEN code_map('dir', "FX") <> 'unknown' THEN 'device' END AS direction_source,
    CASE "TG" WHEN 'true' THEN 'granted' WHEN 'false' THEN 'denied' ELSE 'abnormal' END AS result,
    code_map('why', "YY")               AS deny_reason,
    code_map('place_kind', substr("LD", 1, 1)) AS place_kind,
    clean_text("LD")                    AS building_id,
    cn_timestamp("JSSJ")                AS src_updated_at
FROM input
