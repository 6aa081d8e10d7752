//! 海康 iSC: the event notification and the door list as the platform pushes them.

use serde_json::{Value, json};

use crate::campus::Campus;
use crate::clock::iso;
use crate::gates::{Device, Direction, Event, EventKind, PersonField, Place};
use crate::record::{Defect, Record};

/// One delivery to the webhook.
#[derive(Clone, Debug)]
pub struct Push {
    /// Table of the connector: `device` or `access_event`.
    pub table: &'static str,
    pub body: String,
    /// How many records the body holds.
    pub records: usize,
}

/// The list of doors, whole.
pub fn device_push(devices: &[&Device]) -> Push {
    let list: Vec<Value> = devices.iter().map(|device| device_json(device)).collect();
    let body = json!({ "code": "0", "msg": "success", "data": { "total": list.len(), "pageNo": 1, "pageSize": 1000, "list": list } });
    Push { table: "device", body: body.to_string(), records: devices.len() }
}

fn device_json(device: &Device) -> Value {
    json!({
        "indexCode": device.index_code,
        "resourceType": "door",
        "name": device.name,
        "doorNo": device.door_no.to_string(),
        "channelType": if device.turnstile { "turnstile" } else { "door" },
        "channelTypeName": "门禁点",
        "regionIndexCode": format!("region-{}", device.building),
        "treatyType": "hiksdk_net",
        "manufacturer": "hikvision",
        "ip": "10.0.0.1",
        "updateTime": iso(device.changed_at),
    })
}

/// A notification of events, as an array, or as a bare object when it is one and `bare` is asked for.
pub fn event_push(campus: &Campus, records: &[&Record<Event>], bare: bool) -> Push {
    let events: Vec<Value> = records.iter().map(|record| event_json(campus, record)).collect();
    let sent = records.iter().map(|record| record.value.received).max().unwrap_or_default();
    let count = events.len();
    let events = match (bare, count) {
        (true, 1) => events.into_iter().next().unwrap_or_default(),
        _ => Value::Array(events),
    };
    let body = json!({
        "method": "OnEventNotify",
        "params": { "ability": "event_acs", "clients": ["acs"], "events": events, "sendTime": iso(sent), "uids": ["admin"] },
    });
    Push { table: "access_event", body: body.to_string(), records: count }
}

fn event_json(campus: &Campus, record: &Record<Event>) -> Value {
    let event = &record.value;
    let device = &campus.gates.devices[event.device as usize].value;
    let person = match event.person {
        PersonField::Student(index) => campus.students[index as usize].student_no.clone(),
        PersonField::Zero => "0".to_string(),
        PersonField::Empty => String::new(),
    };
    // No card at all is written as one of the last numbers of 64 bits, or left empty.
    let card = match event.card {
        Some(number) => format!("{number:010}"),
        None if event.serial.is_multiple_of(2) => "18446744073709551615".to_string(),
        None => String::new(),
    };
    // The library's readers do not know the direction; the label of the door does (L5).
    let in_out = match (device.place, event.direction) {
        (Place::LibraryIn | Place::LibraryOut, _) => -1,
        (_, Direction::In) => 1,
        (_, Direction::Out) => 0,
        (_, Direction::Unknown) => -1,
    };
    let index_code = if record.defect() == Some(Defect::EventDeviceMissing) { "" } else { device.index_code.as_str() };
    json!({
        "eventId": format!("{}-{:08X}-{}", &device.index_code[..8].to_uppercase(), event.serial, event.kind.code()),
        "eventType": event.kind.code(),
        "eventTypeName": if event.kind == EventKind::FacePassed { "acs.acs.eventType.successFace" } else { "acs.acs.eventType.card" },
        "happenTime": iso(event.at),
        "srcIndex": index_code,
        "srcName": device.name,
        "srcParentIndex": format!("region-{}", device.building),
        "srcType": "door",
        "status": 0,
        "timeout": 0,
        "data": {
            "ExtAccessChannel": 0,
            "ExtEventCardNo": card,
            "ExtEventCode": event.kind.code(),
            "ExtEventDoorID": device.door_no,
            "ExtEventIDCardPictureURL": "",
            "ExtEventInOut": in_out,
            "ExtEventPersonNo": person,
            "ExtEventPictureURL": format!("/pic?face={:08x}{:08x}", event.device, event.serial),
            "ExtEventReaderKind": if event.kind == EventKind::CodePassed { 3 } else { 1 },
            "ExtReceiveTime": iso(event.received),
            "Seq": event.serial,
            "UserType": 0,
            "svrIndexCode": "b4238ecc-b86b-4099-b335-287d65cbac29",
        },
    })
}
