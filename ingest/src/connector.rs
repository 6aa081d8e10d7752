//! A connector: what a data engineer writes to bring a system in.
//!
//! The folder `<system>/` enters: `connector.toml`, one `<table>.sql` mapping a table, `codes/<set>.csv`.
//! A checked [`Connector`] leaves. Mistakes are found here, before anything is pulled.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use chrono_tz::Tz;
use schemas::{Contract, Contracts};
use serde::Deserialize;

use crate::error::Error;
use crate::extract::schedule::Schedule;
use crate::extract::{files, http, kafka, mqtt, postgres_cdc, singer, sql, webhook};
use crate::settings::{ExtractSettings, SourceSettings};

/// One system's connector, with its mappings read.
#[derive(Debug, Clone)]
pub struct Connector {
    pub name: String,
    pub title: String,
    pub kind: Kind,
    /// Source columns whose values are masked in dead letters.
    pub sensitive: Vec<String>,
    /// `http`: the interface as a whole.
    pub http: http::Api,
    /// `singer`: the tap.
    pub singer: Option<singer::Tap>,
    pub tables: Vec<TableMapping>,
    /// `codes/<set>.csv`: source value → canonical code.
    pub code_maps: BTreeMap<String, BTreeMap<String, String>>,
}

/// The interface a connector speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Sql,
    Files,
    Http,
    Kafka,
    Singer,
    Mqtt,
    PostgresCdc,
    Webhook,
}

impl Kind {
    /// Whether Quad asks, rather than being told.
    pub fn is_pulled(self) -> bool {
        self != Self::Webhook
    }
}

/// How one source table becomes one contract table.
#[derive(Debug, Clone)]
pub struct TableMapping {
    pub name: String,
    pub contract: Arc<Contract>,
    pub mapping_sql: String,
    pub pull: Pull,
    pub spec: Spec,
}

impl TableMapping {
    /// How many rows at the beginning of a batch no later pull shows again, once `cursor` is saved.
    pub(crate) fn settled(&self, batch: &RecordBatch, cursor: &[String]) -> usize {
        match (&self.spec, self.pull) {
            (Spec::Sql(declared), Pull::Cursor) => declared.settled(batch, cursor),
            _ => 0,
        }
    }
}

/// How rows come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pull {
    /// Those after the cursor. The rows of one pull that the next may show again are remembered until then.
    Cursor,
    /// Files that are new or changed. Every row is remembered, since a file that changed shows all of its rows again.
    Changed,
    /// All of them, each time; what vanished is deleted, unless more than `deletes_share_max` of the table did.
    Snapshot { deletes_share_max: f64 },
    /// Each change, deletes among them. Every row that is there is remembered: what a whole look does not show is deleted.
    Changes,
    /// The source pushes them.
    Push,
}

/// What a source is asked for, in the terms of its kind.
#[derive(Debug, Clone)]
pub enum Spec {
    Sql(sql::Table),
    Files(files::Table),
    Http(Box<http::Table>),
    Kafka(kafka::Table),
    Singer(singer::Table),
    Mqtt(mqtt::Table),
    PostgresCdc(postgres_cdc::Table),
    Webhook(webhook::Table),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    title: String,
    kind: Kind,
    #[serde(default)]
    sensitive: Vec<String>,
    http: Option<http::Api>,
    singer: Option<singer::Tap>,
    tables: BTreeMap<String, TableFile>,
}

/// What every table declares; the rest is its kind's.
#[derive(Deserialize)]
struct TableFile {
    contract: String,
    pull: Option<String>,
    deletes_share_max: Option<f64>,
    #[serde(flatten)]
    rest: toml::Table,
}

impl Connector {
    /// Reads the connector `name` from its folder below `dir`.
    ///
    /// # Errors
    /// `Settings`, naming the file and the mend.
    pub fn load(dir: &Path, name: &str, contracts: &Contracts) -> Result<Self, Error> {
        let folder = dir.join(name);
        let file = folder.join("connector.toml");
        let parsed: File = toml::from_str(&read(&file)?)
            .map_err(|error| Error::settings(format!("{}: {}", file.display(), error.message())))?;
        let wrong = |message: &str| Error::settings(format!("{}: {message}", file.display()));
        if parsed.http.is_some() && parsed.kind != Kind::Http {
            return Err(wrong("`[http]` is for `kind = \"http\"`"));
        }
        let http = parsed.http.unwrap_or_default();
        http.check().map_err(|message| wrong(&message))?;
        match &parsed.singer {
            Some(tap) if parsed.kind == Kind::Singer => tap.check().map_err(|message| wrong(&message))?,
            None if parsed.kind != Kind::Singer => {}
            _ => return Err(wrong("`kind = \"singer\"` and `[singer]` with the tap's `command` go together")),
        }
        let mut tables = Vec::new();
        for (table, declared) in parsed.tables {
            let mapping_file = folder.join(format!("{table}.sql"));
            let wrong = |message: String| Error::settings(format!("{}: table `{table}`: {message}", file.display()));
            let contract = contracts.get(&declared.contract);
            let contract = contract.ok_or_else(|| wrong(format!("no contract `{}`", declared.contract)))?.clone();
            let pull = declared.pull(parsed.kind).map_err(wrong)?;
            let spec = declared.spec(parsed.kind, &pull).map_err(wrong)?;
            let mapping_sql = read(&mapping_file)?;
            if pull == Pull::Changes {
                postgres_cdc::Table::check_mapping(&mapping_sql).map_err(wrong)?;
            }
            tables.push(TableMapping { mapping_sql, name: table, contract, pull, spec });
        }
        Ok(Self {
            name: name.to_string(),
            title: parsed.title,
            kind: parsed.kind,
            sensitive: parsed.sensitive,
            http,
            singer: parsed.singer,
            tables,
            code_maps: code_maps(&folder.join("codes"))?,
        })
    }
}

impl Connector {
    /// Whether the settings of source `id` have what this connector needs; when it is asked.
    ///
    /// # Errors
    /// `Settings`, naming the source and what is missing.
    pub fn check_source(
        &self,
        id: &str,
        source: &SourceSettings,
        extract: &ExtractSettings,
        timezone: Tz,
    ) -> Result<Schedule, Error> {
        let wrong = |message: &str| Error::settings(format!("sources.{id}: {message}"));
        let connection = match self.kind {
            Kind::Sql | Kind::PostgresCdc => Some("an ODBC connection string"),
            Kind::Files => Some("a folder or s3://BUCKET/PREFIX"),
            Kind::Http => Some("a URL such as https://open.example.edu.cn"),
            Kind::Kafka => Some("its brokers as HOST:PORT, separated by commas"),
            // What a tap needs is in its config, which says so.
            Kind::Singer | Kind::Webhook => None,
            Kind::Mqtt => Some("its broker such as mqtts://mqtt.example.edu.cn:8883"),
        };
        if let Some(what) = connection.filter(|_| source.connection.is_none()) {
            return Err(wrong(&format!("needs `connection`, {what}")));
        }
        if self.kind == Kind::Webhook && source.token_sha256.is_none() && source.hmac_secret.is_none() {
            return Err(wrong(
                "needs `token_sha256` (see `quad token`) or `hmac_secret`: pushes are always authenticated",
            ));
        }
        let is_avro =
            |table: &TableMapping| matches!(&table.spec, Spec::Kafka(read) if read.encoding == kafka::Encoding::Avro);
        if source.registry.is_none() && self.tables.iter().any(is_avro) {
            return Err(wrong("needs `registry`, the URL of the schema registry of its topics in Avro"));
        }
        let is_database = matches!(self.kind, Kind::Sql | Kind::PostgresCdc);
        if (!is_database && source.connections_max.is_some())
            || (self.kind != Kind::Sql && source.rows_per_s_max.is_some())
        {
            return Err(wrong("`connections_max` is for databases, and `rows_per_s_max` for `kind = \"sql\"`"));
        }
        if [source.connections_max, source.rows_per_s_max].contains(&Some(0)) || source.timeout_s == 0 {
            return Err(wrong("`connections_max`, `rows_per_s_max` and `timeout_s` are at least 1"));
        }
        self.check_id_key(extract).map_err(wrong)?;
        // A broker queues few messages: a subscription is read all the time.
        let poll_s = if self.kind == Kind::Mqtt { source.poll_s.min(1) } else { source.poll_s };
        Schedule::new(&SourceSettings { poll_s, ..source.clone() }, timezone).map_err(|error| wrong(&error.message))
    }

    /// Whether mappings that hash have a key for it; what is missing.
    pub(crate) fn check_id_key(&self, extract: &ExtractSettings) -> Result<(), &'static str> {
        match extract.id_key.is_none() && self.tables.iter().any(|table| table.mapping_sql.contains("id_hash(")) {
            true => Err("its mapping hashes identity numbers: set QUAD_EXTRACT__ID_KEY to a secret that never changes"),
            false => Ok(()),
        }
    }
}

impl TableFile {
    fn pull(&self, kind: Kind) -> Result<Pull, String> {
        let pull = match (kind, self.pull.as_deref()) {
            (Kind::Webhook, None) => Pull::Push,
            (Kind::Webhook, Some(_)) => return Err("a pushed table has no `pull`".into()),
            (Kind::Mqtt, None) => Pull::Cursor,
            (Kind::Mqtt, Some(_)) => {
                return Err("a subscribed table has no `pull`: the broker keeps what was not taken".into());
            }
            (Kind::PostgresCdc, None) => Pull::Changes,
            (Kind::PostgresCdc, Some(_)) => return Err("a table whose changes are taken has no `pull`".into()),
            (Kind::Files, Some("changed")) => Pull::Changed,
            (Kind::Sql | Kind::Http | Kind::Kafka | Kind::Singer, Some("cursor")) => Pull::Cursor,
            (Kind::Kafka, _) => return Err("`pull` is \"cursor\"".into()),
            (_, Some("snapshot")) => {
                Pull::Snapshot { deletes_share_max: self.deletes_share_max.unwrap_or(DELETES_SHARE_MAX) }
            }
            (Kind::Files, _) => return Err("`pull` is one of \"changed\", \"snapshot\"".into()),
            _ => return Err("`pull` is one of \"cursor\", \"snapshot\"".into()),
        };
        match (pull, self.deletes_share_max) {
            (Pull::Snapshot { .. }, _) | (_, None) => Ok(pull),
            _ => Err("`deletes_share_max` is for `pull = \"snapshot\"`".into()),
        }
    }

    fn spec(self, kind: Kind, pull: &Pull) -> Result<Spec, String> {
        Ok(match kind {
            Kind::Sql => Spec::Sql(of_kind::<sql::Table>(self.rest)?.checked(pull)?),
            Kind::Files => Spec::Files(of_kind::<files::Table>(self.rest)?.checked()?),
            Kind::Http => Spec::Http(Box::new(of_kind::<http::Table>(self.rest)?.checked(pull)?)),
            Kind::Kafka => Spec::Kafka(of_kind::<kafka::Table>(self.rest)?.checked()?),
            Kind::Singer => Spec::Singer(of_kind::<singer::Table>(self.rest)?.checked(pull)?),
            Kind::Mqtt => Spec::Mqtt(of_kind::<mqtt::Table>(self.rest)?.checked()?),
            Kind::PostgresCdc => Spec::PostgresCdc(of_kind::<postgres_cdc::Table>(self.rest)?.checked()?),
            Kind::Webhook => Spec::Webhook(of_kind::<webhook::Table>(self.rest)?.checked()?),
        })
    }
}

/// The keys that only one kind of source knows.
fn of_kind<T: serde::de::DeserializeOwned>(rest: toml::Table) -> Result<T, String> {
    rest.try_into().map_err(|error: toml::de::Error| error.message().to_string())
}

/// A source that suddenly shows less than half of a table is more likely broken than emptied.
const DELETES_SHARE_MAX: f64 = 0.5;

fn read(file: &Path) -> Result<String, Error> {
    std::fs::read_to_string(file)
        .map_err(|error| Error::settings(format!("could not read {}: {error}", file.display())))
}

fn code_maps(folder: &Path) -> Result<BTreeMap<String, BTreeMap<String, String>>, Error> {
    let mut maps = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Ok(maps);
    };
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "csv"))
    {
        let text = read(&path)?;
        let mut lines = text.trim_start_matches('\u{feff}').lines();
        if lines.next().map(str::trim) != Some("source_value,code") {
            return Err(Error::settings(format!("{}: the header is not `source_value,code`", path.display())));
        }
        let pairs = lines.filter(|line| !line.trim().is_empty()).map(|line| line.split_once(','));
        let pairs: Option<BTreeMap<_, _>> =
            pairs.map(|pair| pair.map(|(value, code)| (value.trim().to_string(), code.trim().to_string()))).collect();
        let pairs = pairs.ok_or_else(|| Error::settings(format!("{}: a line without a comma", path.display())))?;
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        maps.insert(name, pairs);
    }
    Ok(maps)
}
