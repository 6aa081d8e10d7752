-- Readings and events of meters → logistics.utility_reading. Which meter is whose room is kept by hand in
-- codes/meter_room.csv: a meter that is not there is counted by `quad sources`, and its rows wait as dead letters.
SELECT
    code_map('meter_room', "BH")        AS room_id,
    clean_id("BH")                      AS meter_no,
    cn_timestamp("CBSJ")                AS read_at,
    "DL"                                AS energy_kwh,
    "GL"                                AS power_w,
    yuan_to_fen("YE")                   AS balance_fen,
    CASE WHEN "SJLX" IS NULL THEN 'reading' ELSE code_map('meter_event', "SJLX") END AS event_code,
    cn_timestamp("CBSJ")                AS src_updated_at
FROM input
