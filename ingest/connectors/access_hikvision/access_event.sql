-- event_acs → access_control.access_event.
-- Direction: 1 in, 0 out; readers that do not know (-1) hang at doors whose name says it. Person '0' or '' is nobody.
-- The school calls its doors <building>-<door>, and the first letter of a building says what it is.
SELECT
    event_id,
    clean_text(src_index)               AS device_id,
    door_id                             AS door_no,
    seq                                 AS event_serial,
    cn_timestamp(happen_time)           AS event_time,
    cn_timestamp(receive_time)          AS receive_time,
    CASE WHEN clean_id(person_no) <> '0' THEN clean_id(person_no) END AS access_person_no,
    card_hex(card_no)                   AS card_physical_no,
    CASE
        WHEN code_map('event_verify', event_type) = 'card' THEN code_map('reader_kind', reader_kind)
        ELSE code_map('event_verify', event_type)
    END                                 AS verify_mode,
    CASE
        WHEN in_out IN ('0', '1') THEN code_map('in_out', in_out)
        WHEN src_name LIKE '%[进门]%' THEN 'in'
        WHEN src_name LIKE '%[出门]%' THEN 'out'
        ELSE 'unknown'
    END                                 AS direction,
    CASE
        WHEN in_out IN ('0', '1') THEN 'device'
        WHEN src_name LIKE '%[进门]%' OR src_name LIKE '%[出门]%' THEN 'label'
    END                                 AS direction_source,
    COALESCE(code_map('event_result', event_type), 'abnormal') AS result,
    CASE WHEN code_map('event_result', event_type) = 'denied' THEN code_map('event_deny_reason', event_type) END AS deny_reason,
    code_map('place_kind', substr(src_name, 1, 1)) AS place_kind,
    clean_text(split_part(src_name, '-', 1)) AS building_id,
    cn_timestamp(receive_time)          AS src_updated_at
FROM input
