//! The `[query]` section of the settings. Text enters through serde, checked settings leave; unknown keys fail.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use schemas::Sensitive;
use serde::Deserialize;

use crate::error::Error;

/// How questions are answered. Every default is meant for one machine.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where Flight SQL, the profile service, health and reflection listen.
    pub grpc_listen: SocketAddr,
    /// Where the PostgreSQL wire listens.
    pub pg_listen: SocketAddr,
    /// How often the lake is asked for new versions, in ms.
    pub refresh_ms: u64,
    /// Memory for records that have not landed yet, in bytes; 0 for answers from the lake alone.
    pub tail_bytes_max: usize,
    /// The shortest time between two computations of all profiles, in ms.
    pub profile_refresh_ms: u64,
    /// The longest rest after a computation, in ms. It is as long as the computation took while that was quick, thrice that otherwise.
    pub profile_rest_ms_max: u64,
    /// The longest time between two computations when nothing changes, in s: states and day counts depend on the time.
    pub profile_idle_refresh_s: u64,
    /// The shortest time between two writings of the profile's tables to the lake, in s; 0 for never.
    pub profile_table_every_s: u64,
    /// The shortest time between two writings of the checkpoint that a start resumes from, in s; 0 for never.
    pub profile_checkpoint_every_s: u64,
    /// The longest a question may take, its answer included, in s. Clients may ask for less, not for more.
    pub query_timeout_s: u64,
    /// Memory all questions together may use, in bytes. What sorts and joins need beyond that goes to disk.
    pub query_memory_bytes_max: usize,
    /// Disk all questions together may use beyond their memory, in bytes; 0 for none.
    pub query_spill_bytes_max: u64,
    /// Questions that run at the same time. Further ones wait, and are refused after `queue_timeout_ms`.
    pub queries_concurrent_max: usize,
    /// How long a question may wait for its turn, in ms.
    pub queue_timeout_ms: u64,
    /// Connections over the PostgreSQL wire; gRPC has as many requests at a time.
    pub connections_max: usize,
    /// Prepared statements and open result handles kept over all Flight SQL clients.
    pub handles_max: usize,
    /// Rows a batch while answering.
    pub batch_rows: usize,
    /// The wall clock of `local_ts` and `biz_date`.
    pub timezone: String,
    /// Folder of the profile's section definitions.
    pub profile_dir: PathBuf,
    /// Letters of sections that are off by themselves and shall be on.
    pub profile_sections_on: Vec<String>,
    /// Key of the person ids, at least 16 characters. The same key gives the same ids again. Without it, the key file.
    pub identity_key: Option<Sensitive<String>>,
    /// Where the key of this installation is kept; made on the first start.
    pub identity_key_file: PathBuf,
    /// HOST:PORT of the process that holds the log, where decisions about identity go; empty for `extract.http_listen`.
    pub decide_at: String,
    /// Encrypt both ports. Without it, put Quad behind something that does.
    pub tls: Option<TlsSettings>,
}

/// PEM files of the server's certificate chain and its key (PKCS #8).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            grpc_listen: SocketAddr::from(([127, 0, 0, 1], 50051)),
            pg_listen: SocketAddr::from(([127, 0, 0, 1], 54320)),
            refresh_ms: 500,
            tail_bytes_max: 256 << 20,
            profile_refresh_ms: 20,
            profile_rest_ms_max: 200,
            profile_idle_refresh_s: 60,
            profile_table_every_s: 900,
            profile_checkpoint_every_s: 300,
            query_timeout_s: 60,
            query_memory_bytes_max: 1 << 30,
            query_spill_bytes_max: 8 << 30,
            queries_concurrent_max: 16,
            queue_timeout_ms: 5000,
            connections_max: 256,
            handles_max: 4096,
            batch_rows: 8192,
            timezone: "Asia/Shanghai".to_string(),
            profile_dir: PathBuf::from("query/profile"),
            profile_sections_on: Vec::new(),
            identity_key: None,
            identity_key_file: PathBuf::from("data/identity.key"),
            decide_at: String::new(),
            tls: None,
        }
    }
}

impl Settings {
    /// Checks what types alone do not.
    ///
    /// # Errors
    /// The first setting that cannot be used, by its key.
    pub fn validate(&self) -> Result<(), Error> {
        let ranges = [
            ("refresh_ms", self.refresh_ms, 10, 600_000),
            ("profile_refresh_ms", self.profile_refresh_ms, 10, 3_600_000),
            ("profile_rest_ms_max", self.profile_rest_ms_max, 0, 3_600_000),
            ("profile_idle_refresh_s", self.profile_idle_refresh_s, 1, 86_400),
            ("profile_table_every_s", self.profile_table_every_s, 0, 86_400),
            ("profile_checkpoint_every_s", self.profile_checkpoint_every_s, 0, 3_600),
            ("query_timeout_s", self.query_timeout_s, 1, 86_400),
            ("query_memory_bytes_max", self.query_memory_bytes_max as u64, 16 << 20, 1 << 44),
            ("queries_concurrent_max", self.queries_concurrent_max as u64, 1, 10_000),
            ("queue_timeout_ms", self.queue_timeout_ms, 1, 600_000),
            ("connections_max", self.connections_max as u64, 1, 100_000),
            ("handles_max", self.handles_max as u64, 1, 1_000_000),
            ("batch_rows", self.batch_rows as u64, 64, 1 << 20),
        ];
        for (key, value, low, high) in ranges {
            if !(low..=high).contains(&value) {
                return Err(Error::settings(format!("query.{key} is {value}, not between {low} and {high}")));
            }
        }
        if self.timezone.parse::<chrono_tz::Tz>().is_err() {
            let message = format!("query.timezone `{}` is not a time zone", self.timezone);
            return Err(Error::settings(message).with_hint("use an IANA name such as Asia/Shanghai"));
        }
        if self.identity_key.as_ref().is_some_and(|key| key.expose().chars().count() < 16) {
            return Err(Error::settings("query.identity_key has less than 16 characters"));
        }
        for (key, path) in self.tls.iter().flat_map(|tls| [("certificate", &tls.certificate), ("key", &tls.key)]) {
            if !path.is_file() {
                return Err(Error::settings(format!("query.tls.{key}: no file {}", path.display())));
            }
        }
        Ok(())
    }

    /// The key of the person ids: the setting, or this installation's own, made when there is none yet.
    ///
    /// # Errors
    /// The key file can be neither read nor made.
    pub fn person_key(&self) -> Result<Sensitive<Vec<u8>>, Error> {
        if let Some(key) = &self.identity_key {
            return Ok(Sensitive::new(key.expose().as_bytes().to_vec()));
        }
        let file = &self.identity_key_file;
        let fail = |error: std::io::Error| {
            Error::settings(format!("could not use the key file {}", file.display()))
                .with_hint("set query.identity_key or make the folder writable")
                .with_source(error)
        };
        if !file.exists() {
            make_key(file).map_err(fail)?;
        }
        let key = std::fs::read(file).map_err(fail)?;
        if key.len() < 16 {
            return Err(Error::settings(format!("the key file {} is too short", file.display())));
        }
        Ok(Sensitive::new(key))
    }
}

/// Writes 64 random hexadecimal digits, readable by the owner only, in one step.
fn make_key(file: &Path) -> std::io::Result<()> {
    use std::io::{Read, Write};
    use std::os::unix::fs::OpenOptionsExt;

    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let draft = file.with_extension(format!("key.{}", std::process::id()));
    let mut out = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    for byte in bytes {
        write!(out, "{byte:02x}")?;
    }
    out.sync_all()?;
    // Whoever comes second keeps the first one's key.
    match std::fs::hard_link(&draft, file) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    std::fs::remove_file(&draft)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        Settings::default().validate().unwrap();
    }

    #[test]
    fn limits_are_checked_by_name() {
        let settings = Settings { refresh_ms: 0, ..Settings::default() };
        assert!(settings.validate().unwrap_err().message.contains("query.refresh_ms"));
        let settings = Settings { profile_table_every_s: 86_401, ..Settings::default() };
        assert!(settings.validate().unwrap_err().message.contains("query.profile_table_every_s"));
        let settings = Settings { timezone: "Mars/Base".into(), ..Settings::default() };
        assert!(settings.validate().unwrap_err().message.contains("query.timezone"));
    }

    #[test]
    fn the_key_file_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { identity_key_file: folder.path().join("a/identity.key"), ..Settings::default() };
        let first = settings.person_key().unwrap();
        assert_eq!(first.expose().len(), 64);
        assert_eq!(&first, &settings.person_key().unwrap());
    }
}
