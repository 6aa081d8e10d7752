//! Messages → a batch of text columns.
//!
//! Messages enter; the columns of `[input]` leave, a row for each record, and the messages are kept to be acknowledged. One
//! that cannot be read leaves as a row that says why in `_error`; an empty one, which clears a retained one, leaves nothing.
//! Such a row does not tell when its message came, so that it is the same when it comes again.

use std::ops::ControlFlow;

use arrow::array::RecordBatch;
use chrono::{DateTime, SecondsFormat, Utc};
use rumqttc::v5::mqttbytes::v5::Publish;
use serde_json::Value;

use super::Table;
use super::session::WINDOW;
use crate::error::Error;
use crate::extract::source::Limits;
use crate::extract::{records, rows};

/// The columns that every row has beside those of `[input]`.
pub(super) const META: [&str; 2] = [records::UNREADABLE, records::UNREADABLE_VALUE];

/// A message and when it came.
pub(super) struct Message {
    pub publish: Publish,
    pub received_at: DateTime<Utc>,
}

/// Whether a column can be made of it.
pub(super) fn is_place(place: &str) -> bool {
    match level(place) {
        Some(level) => level > 0,
        None => place.is_empty() || place.starts_with('/') || ["{topic}", "{received}", "{retained}"].contains(&place),
    }
}

/// The number of the level that `{topic/2}` names.
fn level(place: &str) -> Option<usize> {
    place.strip_prefix("{topic/")?.strip_suffix('}')?.parse().ok()
}

/// Whether a topic is one of those that a filter names.
fn matches(topic: &str, filter: &str) -> bool {
    let mut levels = topic.split('/');
    let seen = filter.split('/').try_for_each(|wanted| match (wanted, levels.next()) {
        ("#", _) => ControlFlow::Break(true),
        ("+", Some(_)) => ControlFlow::Continue(()),
        (wanted, Some(level)) if wanted == level => ControlFlow::Continue(()),
        _ => ControlFlow::Break(false),
    });
    match seen {
        ControlFlow::Break(is_match) => is_match,
        ControlFlow::Continue(()) => levels.next().is_none(),
    }
}

/// What was gathered, to be taken to the log and then acknowledged.
pub(super) struct Messages<'a> {
    declared: &'a Table,
    text_bytes_max: usize,
    rows: rows::Rows,
    pub unacknowledged: Vec<Publish>,
}

impl<'a> Messages<'a> {
    pub(super) fn new(declared: &'a Table, limits: Limits) -> Self {
        let rows = rows::Rows::new(declared.columns(), limits);
        Self { declared, text_bytes_max: limits.text_bytes_max, rows, unacknowledged: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.unacknowledged.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows.is_full() || self.unacknowledged.len() >= usize::from(WINDOW)
    }

    pub(super) fn push(&mut self, message: Message) {
        let topic = String::from_utf8_lossy(&message.publish.topic);
        // A session remembers filters that the connector no longer has.
        let is_wanted = self.declared.topics.iter().any(|filter| matches(&topic, filter));
        if is_wanted && !message.publish.payload.is_empty() {
            match self.records(&message.publish.payload) {
                Ok(records) => records.into_iter().for_each(|record| self.row(&message, &topic, record)),
                Err(error) => self.unreadable(&message, &topic, error, &message.publish.payload),
            }
        }
        self.unacknowledged.push(message.publish);
    }

    /// The records of a message; null is none.
    fn records(&self, payload: &[u8]) -> Result<Vec<Value>, String> {
        let pointer = &self.declared.records;
        match rows::json(payload)?.pointer_mut(pointer).map(Value::take) {
            Some(Value::Array(records)) => Ok(records),
            Some(Value::Null) => Ok(Vec::new()),
            Some(record) => Ok(vec![record]),
            None => Err(format!("nothing at `{pointer}`")),
        }
    }

    fn row(&mut self, message: &Message, topic: &str, record: Value) {
        let read = rows::object(record.clone()).and_then(|_| {
            let input = self.declared.input.iter();
            let cell = |place: &String| match place.starts_with('{') {
                true => known(place, message, topic, true),
                false => record.pointer(place).and_then(records::text),
            };
            rows::checked(input.map(|(name, place)| (name, cell(place))), self.text_bytes_max)
        });
        match read {
            Ok(cells) => self.rows.push(cells.into_iter().chain([None, None])),
            Err(error) => self.unreadable(message, topic, error, record.to_string().as_bytes()),
        }
    }

    fn unreadable(&mut self, message: &Message, topic: &str, error: String, bytes: &[u8]) {
        let begin = rows::begin(bytes, self.text_bytes_max);
        let places = self.declared.input.values();
        self.rows.push(places.map(|place| known(place, message, topic, false)).chain([Some(error), Some(begin)]));
    }

    /// The rows of what was gathered.
    ///
    /// # Errors
    /// `Internal`, which no message can cause.
    pub(super) fn take(&mut self) -> Result<RecordBatch, Error> {
        self.rows.take()
    }
}

/// What is known of a message, whatever is in it.
fn known(place: &str, message: &Message, topic: &str, tells_when: bool) -> Option<String> {
    match place {
        "{topic}" => Some(topic.to_string()),
        "{retained}" => Some(message.publish.retain.to_string()),
        "{received}" if tells_when => Some(message.received_at.to_rfc3339_opts(SecondsFormat::Millis, true)),
        place => topic.split('/').nth(level(place)?.checked_sub(1)?).map(str::to_string),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::util::pretty::pretty_format_batches;
    use expect_test::expect;
    use rumqttc::v5::mqttbytes::QoS;

    #[test]
    fn a_topic_is_matched_level_by_level() {
        for (topic, filter) in
            [("a/b", "a/b"), ("a/b", "a/+"), ("a/b/c", "a/#"), ("a", "a/#"), ("电/1", "+/1"), ("/", "+/+")]
        {
            assert!(matches(topic, filter), "{topic} {filter}");
        }
        for (topic, filter) in [("a/b", "a"), ("a", "a/b"), ("a/b", "+"), ("a/b", "b/#"), ("电", "d")] {
            assert!(!matches(topic, filter), "{topic} {filter}");
        }
    }

    #[test]
    fn records_of_messages_are_rows_and_what_cannot_be_read_says_why() {
        let places =
            [("A", "/value"), ("B", "{topic/2}"), ("C", "{retained}"), ("D", "{received}"), ("E", "{topic/9}")];
        let input = places.map(|(name, place)| (name.to_string(), place.to_string())).into();
        let table = Table { topics: vec!["m/+".into()], records: "/data".into(), input };
        let table = table.checked().expect("right");
        let mut messages = Messages::new(&table, Limits { rows_max: 9, text_bytes_max: 24 });
        let received_at = DateTime::from_timestamp_millis(1_795_000_000_000).expect("a time");
        let bodies = [
            ("m/一号", r#"{"data":[{"value":1.50},{"value":"2"},7,{"value":"a value of more bytes than that"}]}"#),
            ("m/2", r#"{"data":{"value":null}}"#),
            ("m/3", r#"{"data":null}"#),
            ("m/4", r#"{"more":1}"#),
            ("m/5", "21.5 degrees"),
            ("m/6", ""),
            ("n/7", "of a filter that was"),
        ];
        for (topic, body) in bodies {
            let mut publish = Publish::new(topic, QoS::AtLeastOnce, body, None);
            publish.retain = topic == "m/2";
            messages.push(Message { publish, received_at });
        }
        assert_eq!(messages.unacknowledged.len(), bodies.len());
        let batch = messages.take().expect("a batch");
        expect![[r#"
            +-----+------+-------+--------------------------+---+---------------------------------------------------------+--------------------------+
            | A   | B    | C     | D                        | E | _error                                                  | _value                   |
            +-----+------+-------+--------------------------+---+---------------------------------------------------------+--------------------------+
            | 1.5 | 一号 | false | 2026-11-18T11:06:40.000Z |   |                                                         |                          |
            | 2   | 一号 | false | 2026-11-18T11:06:40.000Z |   |                                                         |                          |
            |     | 一号 | false |                          |   | JSON, but no object                                     | 7                        |
            |     | 一号 | false |                          |   | `A` has 31 bytes, more than extract.text_bytes_max (24) | {"value":"a value of mor |
            |     | 2    | true  | 2026-11-18T11:06:40.000Z |   |                                                         |                          |
            |     | 4    | false |                          |   | nothing at `/data`                                      | {"more":1}               |
            |     | 5    | false |                          |   | not JSON, at line 1 column 6                            | 21.5 degrees             |
            +-----+------+-------+--------------------------+---+---------------------------------------------------------+--------------------------+
        "#]].assert_eq(&(pretty_format_batches(&[batch]).expect("prints").to_string() + "\n"));
    }
}
