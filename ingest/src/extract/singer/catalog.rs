//! The catalog of a tap: what it can bring, and what it is told to.
//!
//! A discovered catalog enters; the same with one stream selected leaves, of that only the properties that `[input]` reads.
//! What is not selected does not leave its source.

use serde_json::{Map, Value, json};

use super::Table;
use crate::error::Error;

/// Names told in an error.
const NAMES_MAX: usize = 20;

/// What a tap can bring.
pub(super) struct Catalog(Value);

impl Catalog {
    /// # Errors
    /// `Source` when it is none.
    pub(super) fn read(text: &[u8]) -> Result<Self, Error> {
        let catalog: Option<Value> = serde_json::from_slice(text).ok();
        let catalog = catalog.filter(|catalog| catalog.get("streams").is_some_and(Value::is_array));
        catalog.map(Self).ok_or_else(|| Error::source("the tap's --discover gives no catalog: JSON with `streams`"))
    }

    /// The text of the catalog that selects a table's stream, all of it each time or by the tap's own bookmark.
    ///
    /// # Errors
    /// `Settings` when there is no such stream, `Source` when it lacks a property.
    pub(super) fn selected(&self, declared: &Table, is_whole: bool) -> Result<String, Error> {
        let mut catalog = self.0.clone();
        let streams = catalog["streams"].as_array_mut().expect("it was read so");
        let names: Vec<String> = streams.iter().filter_map(id).map(str::to_string).collect();
        let wanted = |stream: &Value| id(stream) == Some(&declared.stream);
        let named = |stream: &Value| stream.get("stream").and_then(Value::as_str) == Some(&declared.stream);
        let at = streams.iter().position(wanted).or_else(|| streams.iter().position(named));
        let at = at.ok_or_else(|| {
            Error::settings(format!("the tap has no stream `{}`, but {}", declared.stream, few(names.iter())))
        })?;
        for (other, stream) in streams.iter_mut().enumerate() {
            let Some(stream) = stream.as_object_mut() else { continue };
            set(stream, &[], &[("selected", json!(other == at))]);
            if other == at {
                declared.check_schema(stream.get("schema").unwrap_or(&Value::Null))?;
                select(stream, declared, is_whole);
            }
        }
        Ok(catalog.to_string())
    }
}

fn id(stream: &Value) -> Option<&str> {
    stream.get("tap_stream_id").or_else(|| stream.get("stream")).and_then(Value::as_str)
}

/// How the stream is brought, and which of its properties. Old taps read the stream's own members, newer ones its metadata.
fn select(stream: &mut Map<String, Value>, declared: &Table, is_whole: bool) {
    let method = if is_whole { "FULL_TABLE" } else { declared.replication_method.as_deref().unwrap_or("INCREMENTAL") };
    stream.insert("selected".to_string(), json!(true));
    stream.insert("replication_method".to_string(), json!(method));
    set(stream, &[], &[("replication-method", json!(method))]);
    if let Some(key) = &declared.replication_key {
        stream.insert("replication_key".to_string(), json!(key));
        set(stream, &[], &[("replication-key", json!(key))]);
    }
    let key = stream.get("replication_key").and_then(Value::as_str).map(str::to_string);
    let known = stream.get("schema").and_then(|schema| schema.get("properties")).and_then(Value::as_object);
    let known: Vec<String> = known.map(|known| known.keys().cloned().collect()).unwrap_or_default();
    let read = declared.properties();
    for name in known {
        let is_read = read.as_ref().is_none_or(|read| read.contains(&name)) || key.as_ref() == Some(&name);
        set(stream, &["properties", &name], &[("selected", json!(is_read))]);
    }
}

/// Sets metadata of a stream at a breadcrumb, which is made if need be.
fn set(stream: &mut Map<String, Value>, breadcrumb: &[&str], values: &[(&str, Value)]) {
    let metadata = stream.entry("metadata").or_insert_with(|| json!([]));
    let Some(entries) = metadata.as_array_mut() else { return };
    let found = entries.iter().position(|entry| entry["breadcrumb"] == json!(breadcrumb));
    let at = found.unwrap_or_else(|| {
        entries.push(json!({ "breadcrumb": breadcrumb, "metadata": {} }));
        entries.len() - 1
    });
    for (name, value) in values {
        entries[at]["metadata"][*name] = value.clone();
    }
}

/// The first names of many.
pub(super) fn few<'n>(names: impl ExactSizeIterator<Item = &'n String>) -> String {
    let rest = names.len().saturating_sub(NAMES_MAX);
    let names: Vec<&str> = names.take(NAMES_MAX).map(String::as_str).collect();
    match (names.is_empty(), rest) {
        (true, _) => "none".to_string(),
        (false, 0) => names.join(", "),
        (false, rest) => format!("{} and {rest} more", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn one_stream_and_the_properties_that_are_read_are_selected() {
        let catalog = json!({ "streams": [
            { "tap_stream_id": "public-qj", "stream": "qj", "schema": { "properties": { "wid": {}, "xh": {}, "gx": {}, "sfz": {} } },
              "metadata": [{ "breadcrumb": ["properties", "wid"], "metadata": { "inclusion": "automatic" } }] },
            { "stream": "other" },
        ] });
        let catalog = Catalog::read(catalog.to_string().as_bytes()).expect("a catalog");
        let check = |stream: &str, place: &str, is_whole: bool| {
            let declared = Table {
                stream: stream.into(),
                replication_key: (!is_whole).then(|| "gx".into()),
                replication_method: None,
                input: [("WID".to_string(), format!("/{place}"))].into(),
            };
            catalog.selected(&declared, is_whole).unwrap_or_else(|error| error.to_string()) + "\n"
        };
        let told = [
            check("public-qj", "wid", false),
            check("qj", "xh/no", true),
            check("xs", "wid", true),
            check("qj", "none", true),
            Catalog::read(b"{}").err().expect("none").to_string(),
        ];
        expect![[r#"
            {"streams":[{"metadata":[{"breadcrumb":["properties","wid"],"metadata":{"inclusion":"automatic","selected":true}},{"breadcrumb":[],"metadata":{"replication-key":"gx","replication-method":"INCREMENTAL","selected":true}},{"breadcrumb":["properties","gx"],"metadata":{"selected":true}},{"breadcrumb":["properties","sfz"],"metadata":{"selected":false}},{"breadcrumb":["properties","xh"],"metadata":{"selected":false}}],"replication_key":"gx","replication_method":"INCREMENTAL","schema":{"properties":{"gx":{},"sfz":{},"wid":{},"xh":{}}},"selected":true,"stream":"qj","tap_stream_id":"public-qj"},{"metadata":[{"breadcrumb":[],"metadata":{"selected":false}}],"stream":"other"}]}
            {"streams":[{"metadata":[{"breadcrumb":["properties","wid"],"metadata":{"inclusion":"automatic","selected":false}},{"breadcrumb":[],"metadata":{"replication-method":"FULL_TABLE","selected":true}},{"breadcrumb":["properties","gx"],"metadata":{"selected":false}},{"breadcrumb":["properties","sfz"],"metadata":{"selected":false}},{"breadcrumb":["properties","xh"],"metadata":{"selected":true}}],"replication_method":"FULL_TABLE","schema":{"properties":{"gx":{},"sfz":{},"wid":{},"xh":{}}},"selected":true,"stream":"qj","tap_stream_id":"public-qj"},{"metadata":[{"breadcrumb":[],"metadata":{"selected":false}}],"stream":"other"}]}
            the tap has no stream `xs`, but public-qj, other
            stream `qj` has no property `none`: was it renamed? Mend `[input]` of this table. It has gx, sfz, wid, xh
            the tap's --discover gives no catalog: JSON with `streams`"#]].assert_eq(&told.concat());
    }
}
