-- The list of doors → access_control.device.
SELECT
    clean_text(index_code)              AS device_id,
    door_no,
    clean_text(name)                    AS device_name,
    code_map('place_kind', substr(name, 1, 1)) AS place_kind,
    clean_text(split_part(name, '-', 1)) AS building_id,
    CASE WHEN name LIKE '%[进门]%' OR name LIKE '%[出门]%' THEN 'door_label' ELSE 'field' END AS direction_rule,
    CASE WHEN channel_type = 'turnstile' THEN 'true' ELSE 'false' END AS is_turnstile,
    'hikvision'                         AS vendor,
    'true'                              AS offline_capable,
    cn_timestamp(update_time)           AS src_updated_at
FROM input
