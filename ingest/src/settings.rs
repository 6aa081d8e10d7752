//! What the settings say about ingest: `[extract]`, `[sources.<id>]` and `[land]`.
//!
//! Every default stands in the one embedded `default.toml`; here are only the types and their units.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use schemas::Sensitive;
use serde::Deserialize;

/// `[extract]`: pulling from and listening to sources.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtractSettings {
    /// Cursors and what has been seen; must outlive the process.
    pub state_path: PathBuf,
    /// Where `<system>/connector.toml` folders are.
    pub connectors_path: PathBuf,
    /// Pushed records come in here.
    pub http_listen: SocketAddr,
    pub batch_rows_max: usize,
    /// The longest text a source column may hold, in bytes; a longer value fails the pull with a clear error.
    pub text_bytes_max: usize,
    pub retry_ms_min: u64,
    pub retry_ms_max: u64,
    /// The largest body of one push.
    pub body_bytes_max: usize,
    /// Records in one push.
    pub push_records_max: usize,
    /// Pushes a second and source, beyond which the answer is 429.
    pub push_rate_max: u32,
    /// Dead letters replayed a second.
    pub replay_rate_max: u32,
    /// Who may replay and discard dead letters. From `[access]`.
    #[serde(skip)]
    pub admins: Admins,
    /// The key of `id_hash`. From the environment; without it, mappings that use `id_hash` are refused.
    #[serde(default)]
    pub id_key: Option<Sensitive<String>>,
}

/// Who may change what was taken in; nobody by default.
#[derive(Debug, Clone, Default)]
pub struct Admins {
    /// Access control is switched off: every caller is one.
    pub everyone: bool,
    /// The SHA-256 of each one's token, in hex, by name.
    pub tokens: BTreeMap<String, String>,
}

/// `[sources.<id>]`: one source system. The id is the `src` of its records.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSettings {
    /// The folder of its connector.
    pub connector: String,
    /// Where the system is. `sql`, `postgres_cdc`: an ODBC connection string, without the password. `files`: a folder, or
    /// `s3://<bucket>/<prefix>`. `http`: the URL that the connector's paths are below. `kafka`: the brokers, `HOST:PORT`
    /// separated by commas. `mqtt`: the broker, such as `mqtts://mqtt.example.edu.cn:8883`.
    #[serde(default)]
    pub connection: Option<String>,
    /// `http`: the id of the client that asks for a token. `kafka`: the name for SASL. `mqtt`: the user. `files` in a bucket:
    /// the access key. `singer`: as its config says.
    #[serde(default)]
    pub user: Option<String>,
    /// `sql`, `postgres_cdc`: appended as `Pwd=…`. `http`: the token, or the secret of the client. `kafka`: for SASL. From the environment, never
    /// from a file.
    #[serde(default)]
    pub password: Option<Sensitive<String>>,
    /// `kafka`: librdkafka's properties by their names, such as `security.protocol`. `files` in a bucket: those of the storage,
    /// such as `endpoint`. `singer`: what its config asks for.
    #[serde(default)]
    pub properties: BTreeMap<String, Sensitive<String>>,
    /// `kafka`: the URL of the schema registry, for topics in Avro.
    #[serde(default)]
    pub registry: Option<String>,
    /// A file that holds the password and nothing else.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// A shell command that prints the password, asked with each connection.
    #[serde(default)]
    pub password_command: Option<String>,
    /// Seconds between pulls, unless there is a `schedule`; at most 1 for `mqtt`.
    #[serde(default = "poll_s_default")]
    pub poll_s: u64,
    /// A cron expression by the campus clock: when it is pulled.
    #[serde(default)]
    pub schedule: Option<String>,
    /// When it may be asked at all, by the campus clock, such as `22:00-06:00`.
    #[serde(default)]
    pub hours: Option<String>,
    /// `sql`, `postgres_cdc`: connections at a time, each for its share of the tables; 1 when left out.
    #[serde(default)]
    pub connections_max: Option<u32>,
    /// `sql`: rows taken a second and connection; as many as come when left out.
    #[serde(default)]
    pub rows_per_s_max: Option<u32>,
    /// `sql`, `postgres_cdc`: seconds without an answer or a row after which a pull is given up. `files` in a bucket: for one object.
    #[serde(default = "timeout_s_default")]
    pub timeout_s: u64,
    /// `webhook`: SHA-256 of the bearer token, in hex.
    #[serde(default)]
    pub token_sha256: Option<String>,
    /// `webhook`: the key of `X-Quad-Signature: sha256=<HMAC-SHA256 of the body, hex>`. From the environment.
    #[serde(default)]
    pub hmac_secret: Option<Sensitive<String>>,
}

impl SourceSettings {
    /// The defaults for a source that `connector` reads.
    pub fn of(connector: &str) -> Self {
        Self {
            connector: connector.to_string(),
            connection: None,
            user: None,
            password: None,
            properties: BTreeMap::new(),
            registry: None,
            password_file: None,
            password_command: None,
            poll_s: poll_s_default(),
            schedule: None,
            hours: None,
            connections_max: None,
            rows_per_s_max: None,
            timeout_s: timeout_s_default(),
            token_sha256: None,
            hmac_secret: None,
        }
    }
}

fn poll_s_default() -> u64 {
    60
}

fn timeout_s_default() -> u64 {
    600
}

/// `[land]`: topic → lake.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LandSettings {
    /// Names this landing in the lake's transactions: two processes with one id fence each other.
    pub id: String,
    /// `all` takes every partition; `group` shares them with other processes of the same id (Kafka only).
    pub assignment: Assignment,
    /// This process's lasting name in the group: a restart within the session timeout moves no partition.
    #[serde(default)]
    pub instance: Option<String>,
    /// A commit happens when any of these is reached.
    pub batch_rows_max: usize,
    pub batch_bytes_max: usize,
    pub batch_age_ms_max: u64,
    pub retry_ms_min: u64,
    pub retry_ms_max: u64,
}

/// How partitions come to a landing process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Assignment {
    All,
    Group,
}
