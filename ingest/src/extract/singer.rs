//! The `singer` source: any Singer tap, run as a child process.
//!
//! A tap's command, its config and the state it gave last enter; batches of text columns leave. Each pull of a table is one run
//! of the tap with that one stream selected, so that tables fail, wait and go on by themselves. `catalog` chooses what the tap
//! may bring, `tap` runs it and ends it, `rows` puts its records together.
//!
//! The cursor is the text of the last STATE, saved only after the log has every record before it. Messages are those of the
//! Singer specification (<https://hub.meltano.com/singer/spec>); what a tap does wrong fails the pull, and the cursor stays.

mod catalog;
mod rows;
mod tap;

use std::collections::BTreeMap;
use std::path::Path;

use schemas::Sensitive;
use serde::Deserialize;
use serde_json::{Map, Value};

use self::catalog::Catalog;
use self::rows::Rows;
use self::tap::{Files, Run};
use super::records;
use super::source::{Coverage, Each, Source, Worker};
use crate::connector::{Connector, Pull, Spec, TableMapping};
use crate::error::Error;
use crate::settings::SourceSettings;

/// The largest catalog that a tap may discover.
const CATALOG_BYTES_MAX: usize = 64 << 20;

/// `[singer]` of a connector: the tap as a whole.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tap {
    /// A program of the search path, or a path.
    pub command: String,
    #[serde(default)]
    pub args: Vec<String>,
    /// The tap's own settings. Texts may hold `{connection}`, `{user}`, `{password}` and `{properties.NAME}` of the source.
    #[serde(default)]
    pub config: Map<String, Value>,
    /// The longest that it may say nothing.
    #[serde(default = "timeout_s_default")]
    pub timeout_s: u64,
}

fn timeout_s_default() -> u64 {
    600
}

/// Ends of names whose values nobody writes into a file.
const SECRET_NAMES: [&str; 5] = ["password", "passphrase", "secret", "token", "api_key"];

impl Tap {
    /// What does not fit together, or is written where a secret must not be.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.command.is_empty() || self.timeout_s == 0 {
            return Err("`[singer]` needs `command`, and `timeout_s` is above 0".into());
        }
        match self.config.iter().find_map(|(name, value)| secret_in_clear(name, value)) {
            Some(name) => Err(format!(
                "`[singer]` has a secret in clear at config `{name}`: write \"{{password}}\" or \"{{properties.{name}}}\", and \
                 give the source that"
            )),
            None => Ok(()),
        }
    }
}

/// The name of a text that must be a placeholder and is none.
fn secret_in_clear(name: &str, value: &Value) -> Option<String> {
    match value {
        Value::String(text) => {
            let is_secret = SECRET_NAMES.iter().any(|end| name.to_lowercase().ends_with(end));
            (is_secret && !text.is_empty() && !text.contains('{')).then(|| name.to_string())
        }
        Value::Object(inner) => inner.iter().find_map(|(name, value)| secret_in_clear(name, value)),
        Value::Array(items) => items.iter().find_map(|item| secret_in_clear(name, item)),
        _ => None,
    }
}

/// The keys of a table that a tap brings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Its `tap_stream_id` in the catalog, or its name.
    pub stream: String,
    /// With `pull = "cursor"`: the property that the tap goes by, unless its catalog says.
    pub replication_key: Option<String>,
    /// With `pull = "cursor"`: `INCREMENTAL`, or `LOG_BASED` for taps that can.
    pub replication_method: Option<String>,
    /// Each column's property, or its JSON pointer in the record.
    pub input: BTreeMap<String, String>,
}

impl Table {
    /// The table with pointers for names, or what it lacks for its way to pull.
    pub(crate) fn checked(mut self, pull: &Pull) -> Result<Self, String> {
        if self.stream.is_empty() || self.input.is_empty() {
            return Err("needs `stream` and `[input]`: column = property or JSON pointer".into());
        }
        if let Some(name) = self.input.keys().find(|name| rows::META.contains(&name.as_str())) {
            return Err(format!("the input column `{name}` is always there: name yours otherwise"));
        }
        let is_told = self.replication_key.is_some() || self.replication_method.is_some();
        if *pull != Pull::Cursor && is_told {
            return Err("`replication_key` and `replication_method` are for `pull = \"cursor\"`".into());
        }
        for place in self.input.values_mut().filter(|place| !place.is_empty() && !place.starts_with('/')) {
            *place = format!("/{}", place.replace('~', "~0").replace('/', "~1"));
        }
        Ok(self)
    }

    /// The columns of its batches.
    pub(crate) fn columns(&self) -> Vec<String> {
        self.input.keys().cloned().chain(rows::META.map(str::to_string)).collect()
    }

    fn of(table: &TableMapping) -> Result<&Self, Error> {
        match &table.spec {
            Spec::Singer(declared) => Ok(declared),
            _ => Err(Error::settings(format!("table `{}` names no stream", table.name))),
        }
    }

    /// The properties that `[input]` reads; none when it reads whole records.
    fn properties(&self) -> Option<Vec<String>> {
        let first = |pointer: &String| {
            let name = pointer.strip_prefix('/')?.split('/').next()?;
            Some(name.replace("~1", "/").replace("~0", "~"))
        };
        self.input.values().map(first).collect()
    }

    /// That a schema has what `[input]` reads.
    fn check_schema(&self, schema: &Value) -> Result<(), Error> {
        let Some(known) = schema.get("properties").and_then(Value::as_object).filter(|known| !known.is_empty()) else {
            return Ok(());
        };
        let read = self.properties().unwrap_or_default();
        match read.iter().find(|name| !name.starts_with("_sdc_") && !known.contains_key(*name)) {
            Some(missing) => Err(Error::source(format!(
                "stream `{}` has no property `{missing}`: was it renamed? Mend `[input]` of this table. It has {}",
                self.stream,
                catalog::few(known.keys())
            ))),
            None => Ok(()),
        }
    }
}

/// A tap with what it is given.
pub struct SingerSource {
    tap: Tap,
    config: Sensitive<String>,
    /// What no log line may hold.
    secrets: Vec<Sensitive<String>>,
    /// What it can bring; asked for with the first table of each connection.
    catalog: Option<Catalog>,
    worker: Worker,
}

impl Source for SingerSource {
    fn probe(&mut self, table: &TableMapping) -> Result<(), Error> {
        let declared = Table::of(table)?;
        self.catalog()?.selected(declared, table.pull != Pull::Cursor).map(|_| ())
    }

    fn pull(&mut self, table: &TableMapping, after: &[String], each: Each<'_>) -> Result<Coverage, Error> {
        let declared = Table::of(table)?;
        let is_whole = table.pull != Pull::Cursor;
        let catalog = self.catalog()?.selected(declared, is_whole)?;
        // A tap that went on from a state would leave rows out of a snapshot.
        let state = after.first().filter(|_| !is_whole).map(String::as_str);
        let files = Files { config: &self.config, catalog: Some(&catalog), state };
        let mut run = Run::start(&self.tap, &files, &[], &self.secrets, &self.worker)?;
        let mut taken = Taken::new(declared, is_whole, &self.worker);
        let ended = loop {
            let took = match run.line() {
                Ok(Some(line)) => taken.take(line),
                Ok(None) => break run.finish().and_then(|()| taken.check_end()),
                Err(error) => Err(error),
            };
            if let Err(error) = took {
                break Err(run.at_line(error));
            }
            if taken.rows.is_full() {
                taken.give(each)?;
            }
        };
        // Also what came whole before the tap failed: the next run goes on behind it.
        taken.give(each)?;
        ended.map(|()| Coverage::Whole)
    }
}

impl SingerSource {
    /// Puts the config together; the first question starts the tap.
    ///
    /// # Errors
    /// `Settings` when the config names what the source does not have.
    pub fn connect(connector: &Connector, settings: &SourceSettings, worker: &Worker) -> Result<Self, Error> {
        let tap = connector.singer.clone().ok_or_else(|| Error::settings("the connector has no `[singer]`"))?;
        let filled = filled(&Value::Object(tap.config.clone()), settings)?;
        let secrets = settings.password.iter().chain(settings.properties.values()).cloned().collect();
        let config = Sensitive::new(filled.to_string());
        Ok(Self { tap, config, secrets, catalog: None, worker: worker.clone() })
    }

    fn catalog(&mut self) -> Result<&Catalog, Error> {
        if self.catalog.is_none() {
            let files = Files { config: &self.config, catalog: None, state: None };
            let mut run = Run::start(&self.tap, &files, &["--discover"], &self.secrets, &self.worker)?;
            let mut text = Vec::new();
            while let Some(line) =
                run.line().map_err(|error| Error { message: format!("--discover: {}", error.message), ..error })?
            {
                text.extend_from_slice(line);
                if text.len() > CATALOG_BYTES_MAX {
                    return Err(Error::source(format!("the tap's catalog is larger than {CATALOG_BYTES_MAX} bytes")));
                }
            }
            run.finish()?;
            self.catalog = Some(Catalog::read(&text)?);
        }
        Ok(self.catalog.as_ref().expect("it was just asked for"))
    }
}

/// A config with the source's values in its texts.
fn filled(value: &Value, settings: &SourceSettings) -> Result<Value, Error> {
    Ok(match value {
        Value::String(text) => Value::String(filled_text(text, settings)?),
        Value::Array(items) => {
            Value::Array(items.iter().map(|item| filled(item, settings)).collect::<Result<_, Error>>()?)
        }
        Value::Object(inner) => {
            let fill = |(name, value): (&String, &Value)| Ok((name.clone(), filled(value, settings)?));
            Value::Object(inner.iter().map(fill).collect::<Result<_, Error>>()?)
        }
        other => other.clone(),
    })
}

/// A text with its placeholders replaced; braces around anything else stay.
fn filled_text(text: &str, settings: &SourceSettings) -> Result<String, Error> {
    let mut whole = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('{') {
        whole.push_str(before);
        let name = behind.split_once('}').map(|(name, _)| name).unwrap_or_default();
        let value = match name {
            "connection" => settings.connection.as_ref(),
            "user" => settings.user.as_ref(),
            "password" => settings.password.as_ref().map(Sensitive::expose),
            _ => match name.strip_prefix("properties.") {
                Some(property) => settings.properties.get(property).map(Sensitive::expose),
                None => {
                    whole.push('{');
                    rest = behind;
                    continue;
                }
            },
        };
        let missing = || Error::settings(format!("its tap's config asks for {{{name}}}: set `{name}` of the source"));
        whole.push_str(value.ok_or_else(missing)?);
        rest = &behind[name.len() + 1..];
    }
    whole.push_str(rest);
    Ok(whole)
}

/// The name of a tap without its folder.
fn name(command: &str) -> String {
    Path::new(command).file_name().map_or_else(|| command.to_string(), |name| name.to_string_lossy().into_owned())
}

/// What was taken of one run and not yet given on.
struct Taken<'a> {
    declared: &'a Table,
    is_whole: bool,
    rows: Rows<'a>,
    /// The last STATE; it covers no record behind it.
    state: Option<String>,
    has_schema: bool,
    /// The version of the last record, of taps that count the loads of a table.
    version: Option<String>,
}

impl<'a> Taken<'a> {
    fn new(declared: &'a Table, is_whole: bool, worker: &Worker) -> Self {
        let rows = Rows::new(declared, worker.limits);
        Self { declared, is_whole, rows, state: None, has_schema: false, version: None }
    }

    /// Takes one message.
    fn take(&mut self, line: &[u8]) -> Result<(), Error> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let Ok(Value::Object(mut message)) = records::parse(line) else {
            return Err(Error::source("is no whole JSON object: only Singer messages belong on the standard output"));
        };
        let kind = message.get("type").and_then(Value::as_str).unwrap_or_default().to_uppercase();
        let stream = message.get("stream").and_then(Value::as_str);
        let is_ours = stream.is_some_and(|stream| self.is_ours(stream));
        match kind.as_str() {
            "RECORD" if is_ours => self.record(&mut message),
            "SCHEMA" if is_ours => {
                self.has_schema = true;
                self.declared.check_schema(message.get("schema").unwrap_or(&Value::Null))
            }
            "ACTIVATE_VERSION" if is_ours => self.activate(message.get("version").and_then(records::text)),
            "STATE" => {
                // As the tap wrote it: it gets its numbers back as numbers.
                let told: Option<Value> = serde_json::from_slice(line).ok().filter(|_| !self.is_whole);
                self.state = told.and_then(|told| told.get("value").map(Value::to_string));
                Ok(())
            }
            "RECORD" | "SCHEMA" | "ACTIVATE_VERSION" if stream.is_some() => Ok(()),
            "BATCH" => Err(Error::source(
                "is a BATCH, records in files, which are not read: take `batch_config` out of the tap's config",
            )),
            _ => Err(Error::source("is no RECORD, SCHEMA, STATE or ACTIVATE_VERSION of a stream")),
        }
    }

    fn is_ours(&self, stream: &str) -> bool {
        // In messages some taps leave the schema away that their catalog's ids have in front.
        let id = &self.declared.stream;
        stream == id || id.strip_suffix(stream).is_some_and(|front| front.ends_with(['-', '.']))
    }

    fn record(&mut self, message: &mut Map<String, Value>) -> Result<(), Error> {
        if !self.has_schema {
            return Err(Error::source("is a RECORD before the SCHEMA of its stream"));
        }
        let Some(record @ Value::Object(_)) = message.remove("record") else {
            return Err(Error::source("is a RECORD without a record"));
        };
        self.version = message.get("version").and_then(records::text).or(self.version.take());
        self.rows.push(&record, message.get("time_extracted").and_then(Value::as_str));
        Ok(())
    }

    /// What was sent under another version is not the table.
    fn activate(&self, version: Option<String>) -> Result<(), Error> {
        match self.is_whole && self.version.is_some() && self.version != version {
            true => Err(Error::source("activates a version whose records did not come: nothing is taken for deleted")),
            false => Ok(()),
        }
    }

    fn check_end(&self) -> Result<(), Error> {
        match self.has_schema {
            true => Ok(()),
            false => Err(Error::source(format!(
                "the tap ended without a word of stream `{}`: does it honour the catalog's selection?",
                self.declared.stream
            ))),
        }
    }

    /// Gives what was taken, with the state before its last record.
    fn give(&mut self, each: Each<'_>) -> Result<(), Error> {
        let cursor = self.state.take().map(|state| vec![state]);
        match self.rows.is_empty() && cursor.is_none() {
            true => Ok(()),
            false => each(self.rows.take()?, cursor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn a_config_is_filled_from_its_source_and_holds_no_secret_itself() {
        let source = SourceSettings {
            connection: Some("127.0.0.1".into()),
            password: Some(Sensitive::new("p{user}".into())),
            properties: [("key".to_string(), Sensitive::new("k".to_string()))].into(),
            ..SourceSettings::of("x")
        };
        let check = |config: Value| {
            let tap: Tap = serde_json::from_value(json!({ "command": "tap", "config": config })).expect("a tap");
            let told = tap.check().and_then(|()| filled(&config, &source).map_err(|error| error.to_string()));
            told.map_or_else(|error| error, |filled| filled.to_string()) + "\n"
        };
        let told = [
            check(
                json!({ "port": 5432, "url": "pg://u:{password}@{connection}/{x}", "list": [{ "k": "{properties.key}" }] }),
            ),
            check(json!({ "a": "{user}" })),
            check(json!({ "a": "{properties.none}" })),
            check(json!({ "auth": [{ "client_secret": "abc" }] })),
            check(json!({ "unended": "{password" })),
        ];
        expect![[r#"
            {"list":[{"k":"k"}],"port":5432,"url":"pg://u:p{user}@127.0.0.1/{x}"}
            its tap's config asks for {user}: set `user` of the source
            its tap's config asks for {properties.none}: set `properties.none` of the source
            `[singer]` has a secret in clear at config `client_secret`: write "{password}" or "{properties.client_secret}", and give the source that
            {"unended":"{password"}
        "#]].assert_eq(&told.concat());
    }

    #[test]
    fn a_stream_is_known_by_its_id_or_its_name() {
        let table = |stream: &str| Table {
            stream: stream.into(),
            replication_key: None,
            replication_method: None,
            input: [("A".to_string(), "a/b".to_string())].into(),
        };
        let declared = table("public-qj").checked(&Pull::Cursor).expect("right");
        assert_eq!((declared.input["A"].as_str(), declared.properties()), ("/a~1b", Some(vec!["a/b".to_string()])));
        let limits = super::super::source::Limits { rows_max: 1, text_bytes_max: 9 };
        let rows = Rows::new(&declared, limits);
        let taken = Taken { declared: &declared, is_whole: true, rows, state: None, has_schema: false, version: None };
        let known = ["public-qj", "qj", "j", "xs", ""].map(|stream| taken.is_ours(stream));
        assert_eq!(known, [true, true, false, false, false]);
    }
}
