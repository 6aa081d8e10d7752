//! What devices publish over MQTT: meters their readings, and gateways the passes at their gates.
//!
//! A campus enters; for each table the messages leave, with what must become of each. Topics and names are those of
//! `logistics_meters` and `access_mqtt`.

use chrono::NaiveDateTime;
use serde_json::{Value, json};

use crate::campus::Campus;
use crate::clock::{dashed, iso};
use crate::gates::{Direction, Event, EventKind};
use crate::meters::Reading;
use crate::record::{Defect, Record};

/// One message, and the key by which the truth knows its record.
#[derive(Clone, Debug)]
pub struct Message {
    pub key: (usize, u32, NaiveDateTime),
    pub topic: String,
    pub body: Value,
}

/// All messages of one table.
pub struct Stream {
    /// `connector/table`
    pub name: &'static str,
    pub records: Vec<Record<Message>>,
}

impl Campus {
    /// Every stream, in the order in which its messages are published.
    pub fn streams(&self) -> [Stream; 2] {
        let passes = self.gates.events.iter().map(|record| record.with(self.pass(record))).collect();
        let readings = self.meters.readings.iter().map(|record| record.with(self.reading(&record.value))).collect();
        [
            Stream { name: "access_mqtt/access_event", records: passes },
            Stream { name: "logistics_meters/utility_reading", records: readings },
        ]
    }

    fn reading(&self, reading: &Reading) -> Message {
        let meter = &self.meters.meters[reading.meter];
        let (kind, body) = match reading.is_overload {
            true => ("event", json!({ "time": dashed(reading.at), "event": "overload", "w": reading.power_w })),
            false => {
                let (kwh, balance) = (reading.watt_hours as f64 / 1000.0, reading.balance_fen as f64 / 100.0);
                ("reading", json!({ "time": dashed(reading.at), "kwh": kwh, "w": reading.power_w, "balance": balance }))
            }
        };
        let topic = format!("meters/{}/{}/{kind}", meter.gateway, meter.no);
        Message { key: (reading.meter, reading.is_overload.into(), reading.at), topic, body }
    }

    /// A gateway knows on which side of a gate each of its readers hangs, unless nobody told it (L5).
    fn pass(&self, record: &Record<Event>) -> Message {
        let event = &record.value;
        let device = &self.gates.devices[event.device as usize].value;
        let code = match record.defect() {
            Some(Defect::EventDeviceMissing) => "",
            _ => &device.index_code[..12],
        };
        let (by, refusal) = match event.kind {
            EventKind::CardPassed => ("card", None),
            EventKind::FacePassed => ("face", None),
            EventKind::CodePassed => ("qr", None),
            EventKind::NoPermission => ("card", Some("no_right")),
            EventKind::UnknownCard => ("card", Some("unknown")),
        };
        let direction = match self.told(event) {
            Direction::In => 1,
            Direction::Out => 2,
            Direction::Unknown => 0,
        };
        let body = json!({
            "seq": event.serial, "time": iso(event.at), "received": iso(event.received), "door": device.door_no,
            "no": self.number_in(event), "card": event.card.map(|card| format!("{card:08X}")), "by": by, "dir": direction,
            "ok": refusal.is_none(), "why": refusal,
        });
        let topic = format!("gates/{}/{code}/pass", device.building);
        Message { key: (event.device.into(), event.serial, event.at), topic, body }
    }
}
