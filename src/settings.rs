//! The settings as a whole: defaults, then the file, then the environment.
//!
//! Text enters, checked settings leave. Unknown keys fail, and every message names the key. Nothing is bound, opened or
//! connected here.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};
use config::{Config, Environment, FileFormat};
use hyper::Uri;
use schemas::Contracts;
use serde::Deserialize;

/// Every setting's default, with its description.
pub const DEFAULTS: &str = include_str!("default.toml");

/// The settings without a section, as a variable names them.
const FIRST_LEVEL: [&str; 3] = ["TIMEZONE", "SCHEMAS_PATH", "TOPIC_PREFIX"];

/// All sections.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    #[serde(deserialize_with = "timezone")]
    pub timezone: chrono_tz::Tz,
    pub schemas_path: PathBuf,
    pub topic_prefix: String,
    pub log: LogSettings,
    pub observe: ObserveSettings,
    pub topic: topic::Settings,
    pub lake: lake::Settings,
    pub extract: ingest::ExtractSettings,
    pub sources: BTreeMap<String, ingest::SourceSettings>,
    pub land: ingest::LandSettings,
    pub query: query::Settings,
    pub access: query::AccessSettings,
}

/// `[log]`: what Quad writes about itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    pub filter: String,
    pub format: LogFormat,
}

/// `[observe]`: what Quad tells others about itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObserveSettings {
    /// Metrics and health; `None` for nowhere.
    #[serde(deserialize_with = "unless_empty")]
    pub http_listen: Option<SocketAddr>,
    /// The base URL of a collector of traces; `None` for none.
    #[serde(deserialize_with = "unless_empty")]
    pub otlp_endpoint: Option<Uri>,
    /// From 0 to 1.
    pub trace_ratio: f64,
}

/// Settings that are well formed and cannot be used all the same; the message names the key.
#[derive(Debug)]
pub struct SettingsError(pub String);

impl std::fmt::Display for SettingsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SettingsError {}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

impl Settings {
    /// Reads `file`, which must exist when it was asked for, and the environment.
    ///
    /// # Errors
    /// What is wrong, with its key.
    pub fn load(file: Option<&Path>, environment: HashMap<String, String>) -> Result<Self> {
        let mut builder = Config::builder().add_source(config::File::from_str(DEFAULTS, FileFormat::Toml));
        let found = file.map(Path::to_path_buf).or_else(|| Some(PathBuf::from(FILE)).filter(|file| file.is_file()));
        if let Some(file) = found {
            let text = std::fs::read_to_string(&file)
                .with_context(|| format!("could not read the settings file {}", file.display()))?;
            let file = config::File::from_str(&text, FileFormat::Toml);
            no_secret_in_clear(&Config::builder().add_source(file.clone()).build()?)?;
            builder = builder.add_source(file);
        }
        // A variable is a setting when it has a section or names one of the first level: QUAD_TOKEN and QUAD_CONFIG are none.
        let is_setting = |name: &String| {
            name.strip_prefix("QUAD_").is_some_and(|key| key.contains("__") || FIRST_LEVEL.contains(&key))
        };
        let sections = environment.into_iter().filter(|(name, _)| is_setting(name));
        let environment =
            Environment::with_prefix("QUAD").prefix_separator("_").separator("__").source(Some(sections.collect()));
        let mut settings: Self = builder.add_source(environment.try_parsing(false)).build()?.try_deserialize()?;
        settings.query.timezone = settings.timezone.name().to_string();
        settings.extract.admins = settings.admins();
        settings.check()?;
        Ok(settings)
    }

    /// The contracts, with topics named as the settings say.
    ///
    /// # Errors
    /// A contract that cannot be used.
    pub fn contracts(&self) -> Result<Contracts, schemas::Error> {
        Ok(Contracts::load(&self.schemas_path)?.with_topic_prefix(&self.topic_prefix))
    }

    /// Who may change what was taken in: the admins of `[access]`.
    fn admins(&self) -> ingest::Admins {
        let admins = self.access.tokens.iter().filter(|(_, token)| token.role == query::access::Role::Admin);
        let tokens = admins.map(|(name, token)| (name.clone(), token.sha256.clone())).collect();
        ingest::Admins { everyone: !self.access.enabled, tokens }
    }

    fn check(&self) -> Result<()> {
        self.topic.check()?;
        self.query.validate()?;
        self.lake.check().map_err(anyhow::Error::msg)?;
        let positive = [
            ("extract.batch_rows_max", self.extract.batch_rows_max),
            ("extract.text_bytes_max", self.extract.text_bytes_max),
            ("extract.push_records_max", self.extract.push_records_max),
            ("land.batch_rows_max", self.land.batch_rows_max),
            ("land.batch_bytes_max", self.land.batch_bytes_max),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            anyhow::bail!("{key} must be at least 1");
        }
        if self.extract.replay_rate_max == 0 {
            anyhow::bail!("extract.replay_rate_max must be at least 1");
        }
        if !(0.0..=1.0).contains(&self.observe.trace_ratio) {
            anyhow::bail!("observe.trace_ratio is {}, not between 0 and 1", self.observe.trace_ratio);
        }
        let endpoint = self.observe.otlp_endpoint.as_ref();
        if endpoint.is_some_and(|url| url.scheme_str() != Some("http") || url.host().is_none()) {
            anyhow::bail!(
                "observe.otlp_endpoint must be http://HOST:PORT; where TLS is needed, run a collector beside Quad that forwards"
            );
        }
        if self.land.id.is_empty() || self.land.id.contains('/') {
            anyhow::bail!("land.id must be a name without `/`");
        }
        if !self.schemas_path.join("contracts").is_dir() {
            anyhow::bail!("schemas_path {} has no folder `contracts`", self.schemas_path.display());
        }
        let is_name = |text: &str| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        };
        if !is_name(&self.topic_prefix) {
            anyhow::bail!("topic_prefix `{}`: letters, digits, `_` and `-` only", self.topic_prefix);
        }
        for id in self.sources.keys() {
            if !is_name(id) {
                anyhow::bail!("sources.{id}: an id has letters, digits, `_` and `-` only");
            }
        }
        Ok(())
    }
}

/// A settings file is copied, shown and committed: what is secret of a source has other places.
fn no_secret_in_clear(file: &Config) -> Result<()> {
    for (id, source) in file.get_table("sources").unwrap_or_default() {
        let source = source.into_table().unwrap_or_default();
        let in_connection = source.get("connection").is_some_and(|connection| {
            let text = connection.to_string().to_lowercase().replace(' ', "");
            text.contains("pwd=") || text.contains("password=")
        });
        let properties = source.get("properties").and_then(|properties| properties.clone().into_table().ok());
        let is_secret = |name: &String| {
            let name = name.to_lowercase();
            ["password", "secret", "key.pem"].iter().any(|part| name.contains(part))
                || ["token", "api_key"].iter().any(|end| name.ends_with(end))
        };
        let property =
            properties.unwrap_or_default().into_keys().find(is_secret).map(|name| format!("properties.{name}"));
        let found = ["password", "hmac_secret"].into_iter().find(|key| source.contains_key(*key));
        if let Some(key) = found.or(in_connection.then_some("connection")).or(property.as_deref()) {
            let variable = match key.strip_prefix("properties.") {
                Some(name) => format!("PROPERTIES__{}", name.to_uppercase().replace('.', "_")),
                None if key == "hmac_secret" => "HMAC_SECRET".to_string(),
                None => "PASSWORD".to_string(),
            };
            anyhow::bail!(
                "sources.{id}.{key} holds a secret in the settings file: set QUAD_SOURCES__{}__{variable} in the environment, or \
                 `password_file` or `password_command`",
                id.to_uppercase()
            );
        }
    }
    Ok(())
}

/// A text that is read as `T`, or empty.
fn unless_empty<'de, D: serde::Deserializer<'de>, T: FromStr<Err: Display>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error| serde::de::Error::custom(format!("`{text}`: {error}")))
}

fn timezone<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<chrono_tz::Tz, D::Error> {
    let name = String::deserialize(deserializer)?;
    name.parse()
        .map_err(|_| serde::de::Error::custom(format!("`{name}` is no time zone; use a name such as Asia/Shanghai")))
}

/// Read from the working directory when no file is named.
const FILE: &str = "quad.toml";

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(file: &str, environment: &[(&str, &str)], expected: Expect) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("quad.toml");
        std::fs::write(&path, file).expect("writes");
        let environment = environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let outcome = match Settings::load(Some(&path), environment) {
            Ok(settings) => {
                format!("{} {} {:?}", settings.land.id, settings.land.batch_age_ms_max, settings.sources.keys())
            }
            Err(error) => format!("{error:#}"),
        };
        expected.assert_eq(&outcome);
    }

    #[test]
    fn defaults_are_complete_and_valid() {
        check("", &[], expect!["quad 1000 []"]);
    }

    #[test]
    fn a_lake_has_the_same_defaults_everywhere() {
        let settings = Settings::load(None, HashMap::new()).expect("valid");
        assert_eq!(format!("{:?}", settings.lake), format!("{:?}", lake::Settings::at("data/lake")));
    }

    #[test]
    fn the_environment_overrides_the_file_overrides_the_defaults() {
        let file = "[land]\nid = \"file\"\nbatch_age_ms_max = 7\n[sources.gates]\nconnector = \"access_hikvision\"";
        let environment = [("QUAD_LAND__ID", "env"), ("QUAD_TOKEN", "ignored"), ("HOME", "/")];
        check(file, &environment, expect![[r#"env 7 ["gates"]"#]]);
        let nowhere = [("QUAD_SCHEMAS_PATH", "nowhere")];
        check(file, &nowhere, expect!["schemas_path nowhere has no folder `contracts`"]);
    }

    #[test]
    fn a_secret_in_the_file_is_refused() {
        let source = "[sources.oa]\nconnector = \"x\"\n";
        let refused = expect![[
            r#"sources.oa.password holds a secret in the settings file: set QUAD_SOURCES__OA__PASSWORD in the environment, or `password_file` or `password_command`"#
        ]];
        check(&format!("{source}password = \"hush\""), &[], refused);
        let refused = expect![[
            r#"sources.oa.connection holds a secret in the settings file: set QUAD_SOURCES__OA__PASSWORD in the environment, or `password_file` or `password_command`"#
        ]];
        check(&format!("{source}connection = \"Driver=X;Uid=q;Pwd=hush\""), &[], refused);
        let refused = expect![[
            r#"sources.oa.properties.ssl.key.password holds a secret in the settings file: set QUAD_SOURCES__OA__PROPERTIES__SSL_KEY_PASSWORD in the environment, or `password_file` or `password_command`"#
        ]];
        check(&format!("{source}properties = {{ \"ssl.key.password\" = \"hush\" }}"), &[], refused);
        check(
            &format!("{source}password_file = \"f\""),
            &[("QUAD_SOURCES__OA__USER", "q")],
            expect![[r#"quad 1000 ["oa"]"#]],
        );
    }

    #[test]
    fn an_unknown_key_fails_wherever_it_stands() {
        check(
            "[land]\nidd = \"x\"",
            &[],
            expect![
                "unknown field `idd`, expected one of `id`, `assignment`, `instance`, `batch_rows_max`, `batch_bytes_max`, `batch_age_ms_max`, `retry_ms_min`, `retry_ms_max` for key `land`"
            ],
        );
        check(
            "",
            &[("QUAD_QUERY__NO_SUCH_KEY", "1")],
            expect![
                "unknown field `no_such_key`, expected one of `grpc_listen`, `pg_listen`, `refresh_ms`, `tail_bytes_max`, `profile_refresh_ms`, `profile_rest_ms_max`, `profile_idle_refresh_s`, `profile_table_every_s`, `profile_checkpoint_every_s`, `query_timeout_s`, `query_memory_bytes_max`, `query_spill_bytes_max`, `queries_concurrent_max`, `queue_timeout_ms`, `connections_max`, `handles_max`, `batch_rows`, `timezone`, `profile_dir`, `profile_sections_on`, `identity_key`, `identity_key_file`, `decide_at`, `tls` for key `query`"
            ],
        );
        check(
            "[lnd]\nid = \"x\"",
            &[],
            expect![
                "unknown field `lnd`, expected one of `timezone`, `schemas_path`, `topic_prefix`, `log`, `observe`, `topic`, `lake`, `extract`, `sources`, `land`, `query`, `access`"
            ],
        );
    }

    #[test]
    fn a_wrong_value_names_its_key() {
        check(
            "[land]\nbatch_age_ms_max = \"soon\"",
            &[],
            expect![[r#"invalid type: string "soon", expected an integer for key `land.batch_age_ms_max`"#]],
        );
        check("[land]\nid = \"a/b\"", &[], expect!["land.id must be a name without `/`"]);
        check(
            "[lake.upkeep]\nfile_retention_h = 0",
            &[],
            expect!["lake.upkeep.file_retention_h must be from 1 to 168"],
        );
        check(
            "[observe]\nhttp_listen = \"9464\"",
            &[],
            expect!["`9464`: invalid socket address syntax for key `observe.http_listen`"],
        );
        check("[observe]\nhttp_listen = \"\"", &[], expect!["quad 1000 []"]);
        check(
            "[observe]\notlp_endpoint = \"https://collector\"",
            &[],
            expect![
                "observe.otlp_endpoint must be http://HOST:PORT; where TLS is needed, run a collector beside Quad that forwards"
            ],
        );
        check("", &[("QUAD_OBSERVE__TRACE_RATIO", "1.5")], expect!["observe.trace_ratio is 1.5, not between 0 and 1"]);
        check(
            "timezone = \"Mars/Base\"",
            &[],
            expect!["`Mars/Base` is no time zone; use a name such as Asia/Shanghai for key `timezone`"],
        );
    }

    #[test]
    fn no_secret_can_be_printed() {
        let environment = [("QUAD_EXTRACT__ID_KEY".to_string(), "hush".to_string())].into();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("quad.toml");
        std::fs::write(&path, "[topic.kafka.properties]\n\"sasl.password\" = \"hush\"").expect("writes");
        let settings = Settings::load(Some(&path), environment).expect("valid");
        assert!(!format!("{settings:?}").contains("hush"));
    }
}
