//! The work folder: databases, settings, secrets, and the lines that tell how to look.
//!
//! Secrets are made once a folder and stand in one file that only its owner reads; Quad gets hashes, over its environment.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use campus::campus::Campus;
use campus::cast::Role;
use campus::database::{self, Database, Databases};
use campus::plan::Plan;
use campus::settings::{list_passwords, list_sources, sha256};
use campus::source::SYSTEMS;
use campus::truth::Truth;
use chrono::{Days, Utc};
use serde::{Deserialize, Serialize};

use super::DemoArgs;

/// Everything the demo knows of where and with what.
pub struct Work {
    pub folder: PathBuf,
    pub plan: Plan,
    pub quad: PathBuf,
    pub kafka: Option<String>,
    topic_prefix: String,
    pub secrets: Secrets,
    pub http: String,
    /// Where the platforms are that are asked over HTTP.
    pub lists: String,
    pub grpc: String,
    pub pg: String,
    pub observe: String,
}

/// What must not change while a folder is kept.
#[derive(Serialize, Deserialize)]
pub struct Secrets {
    pub token: String,
    pub push_token: String,
    pub list_token: String,
    pub id_key: String,
    seed: u64,
    students: usize,
    /// `YYYY-MM-DD`
    day: String,
}

impl Work {
    /// Makes the folder, or takes it over with `--keep`, and writes the settings.
    ///
    /// # Errors
    /// The folder cannot be written, or holds something else.
    pub fn prepare(args: &DemoArgs) -> Result<Work> {
        let secrets_file = args.work.join("secrets.json");
        let kept = std::fs::read_to_string(&secrets_file).ok();
        stop_earlier(&args.work);
        if !args.keep && args.work.exists() {
            let is_ours = kept.is_some() || std::fs::read_dir(&args.work)?.next().is_none();
            if !is_ours {
                bail!("{} is not a folder of this demo; name another with --work", args.work.display());
            }
            std::fs::remove_dir_all(&args.work)?;
        }
        std::fs::create_dir_all(&args.work).with_context(|| format!("could not create {}", args.work.display()))?;
        let folder = args.work.canonicalize()?;
        let secrets = match kept.filter(|_| args.keep) {
            Some(text) => {
                serde_json::from_str(&text).with_context(|| format!("could not read {}", secrets_file.display()))?
            }
            None => Secrets::new(args)?,
        };
        write_private(&secrets_file, &serde_json::to_string_pretty(&secrets)?)?;
        let executable = match &args.quad {
            Some(file) => file.clone(),
            None => std::env::current_exe()?.with_file_name("quad"),
        };
        let work = Work {
            folder,
            plan: Plan::new(
                secrets.seed,
                secrets.students,
                secrets.day.parse().context("could not read the day of secrets.json")?,
            ),
            quad: executable,
            kafka: args.kafka.clone(),
            topic_prefix: args.topic_prefix.clone(),
            secrets,
            http: address(8081)?,
            lists: address(8090)?,
            grpc: address(50051)?,
            pg: address(54320)?,
            observe: address(9464)?,
        };
        std::fs::write(work.settings_file(), work.settings()?)?;
        Ok(work)
    }

    /// Fills the databases unless an earlier run has; returns the rows written.
    ///
    /// # Errors
    /// As [`database::fill`].
    pub fn fill(&self, campus: &Campus) -> Result<usize> {
        let databases = self.databases();
        let is_filled = |system| anyhow::Ok(Database::open(databases.of(system), system)?.progress().is_some());
        for system in SYSTEMS {
            if !is_filled(system)? {
                return database::fill(campus, &databases);
            }
        }
        Ok(0)
    }

    /// Whether an earlier run has played a part of the day.
    pub fn is_day_begun(&self) -> bool {
        let databases = self.databases();
        SYSTEMS.into_iter().any(|system| {
            let database = Database::open(databases.of(system), system);
            database.is_ok_and(|database| database.progress().is_some_and(|step| !step.is_empty()))
        })
    }

    pub fn databases(&self) -> Databases {
        let file = |name: &str| Databases::sqlite(&self.folder.join(name));
        Databases {
            student_affairs: file("student_affairs.sqlite"),
            academic: file("academic.sqlite"),
            logistics: file("logistics.sqlite"),
        }
    }

    pub fn settings_file(&self) -> PathBuf {
        self.folder.join("quad.toml")
    }

    pub fn pid_file(&self) -> PathBuf {
        self.folder.join("quad.pid")
    }

    /// Quad's settings for this folder; no secret is in them.
    fn settings(&self) -> Result<String> {
        let root = std::env::current_dir()?;
        let (folder, root) = (self.folder.display(), root.display());
        let databases = self.databases();
        let topic = match &self.kafka {
            Some(brokers) => format!("kind = \"kafka\"\n[topic.kafka]\nbrokers = \"{brokers}\""),
            None => format!("kind = \"embedded\"\n[topic.embedded]\npath = \"{folder}/topic\""),
        };
        Ok(format!(
            r#"# Written by `campus demo`: a campus of {students} simulated students. Secrets come from the environment.
schemas_path = "{root}/schemas"
topic_prefix = "{prefix}"

[observe]
http_listen = "{observe}"

[topic]
{topic}

[lake]
path = "{folder}/lake"

[extract]
state_path = "{folder}/extract"
connectors_path = "{root}/ingest/connectors"
http_listen = "{http}"

[sources.student_affairs]
connector = "student_affairs_zf"
connection = "{student_affairs}"
poll_s = 1

[sources.academic]
connector = "academic_zf"
connection = "{academic}"
poll_s = 1

[sources.logistics]
connector = "logistics_ecard"
connection = "{logistics}"
poll_s = 1

[sources.gates]
connector = "access_hikvision"
{lists}
[query]
grpc_listen = "{grpc}"
pg_listen = "{pg}"
profile_dir = "{root}/query/profile"
identity_key_file = "{folder}/identity.key"
profile_table_every_s = 30
profile_rest_ms_max = 5_000
"#,
            students = self.plan.students,
            prefix = self.topic_prefix,
            http = self.http,
            grpc = self.grpc,
            pg = self.pg,
            observe = self.observe,
            lists = list_sources(&format!("http://{}", self.lists)),
            student_affairs = databases.student_affairs,
            academic = databases.academic,
            logistics = databases.logistics,
        ))
    }

    /// What Quad gets over its environment: hashes of the tokens, and the key of document numbers.
    pub fn environment(&self) -> Vec<(String, String)> {
        let pair = |name: &str, value: String| (name.to_string(), value);
        let mut environment = vec![
            pair("QUAD_ACCESS__TOKENS__DEMO__ROLE", "admin".into()),
            pair("QUAD_ACCESS__TOKENS__DEMO__SHA256", sha256(&self.secrets.token)),
            pair("QUAD_SOURCES__GATES__TOKEN_SHA256", sha256(&self.secrets.push_token)),
            pair("QUAD_EXTRACT__ID_KEY", self.secrets.id_key.clone()),
        ];
        environment.extend(list_passwords(&self.secrets.list_token));
        environment
    }

    /// Says how to ask the running Quad.
    pub fn say_how_to_look(&self, campus: &Campus) {
        let student = campus.student_of(Role::CorrectedGrade);
        let quad = self.quad.display();
        let settings = self.settings_file();
        let (settings, token, grpc) = (settings.display(), &self.secrets.token, &self.grpc);
        let (host, port) = self.pg.split_once(':').unwrap_or((&self.pg, "54320"));
        println!(
            r#"
Quad is up. While the campus lives its day, ask it, from another terminal:

  export QUAD_CONFIG={settings} QUAD_TOKEN={token}

  a student       {quad} profile {student}
  SQL             {quad} sql "SELECT merchant_kind, count(*), sum(amount_fen) / 100.0 AS yuan FROM logistics.card_txn GROUP BY 1"
  psql            PGPASSWORD=$QUAD_TOKEN psql -h {host} -p {port} -U demo quad
  gRPC            grpcurl -plaintext -H "authorization: Bearer $QUAD_TOKEN" \
                    -d '{{"person": {{"student_no": "{student}"}}}}' {grpc} quad.profile.v1.ProfileService/GetProfile
  Flight SQL      grpc://{grpc} with the header authorization: Bearer $QUAD_TOKEN
  sources         {quad} sources
  metrics         curl http://{observe}/metrics http://{observe}/health/ready
"#,
            observe = self.observe,
        );
    }

    /// Writes what must be in Quad beside the databases.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_truth(&self, truth: &Truth) -> Result<()> {
        let file = std::io::BufWriter::new(std::fs::File::create(self.folder.join("truth.json"))?);
        serde_json::to_writer_pretty(file, truth).context("could not write truth.json")
    }

    /// Runs a shell command against the running Quad; whether it went well.
    ///
    /// # Errors
    /// No shell.
    pub async fn exec(&self, command: &str, campus: &Campus) -> Result<bool> {
        let mut shell = tokio::process::Command::new("sh");
        shell
            .args(["-c", command])
            .env("QUAD_CONFIG", self.settings_file())
            .env("QUAD_PG", &self.pg)
            .env("QUAD_OBSERVE", &self.observe)
            .env("QUAD_GRPC", &self.grpc)
            .env("QUAD_USER", "demo")
            .env("QUAD_TOKEN", &self.secrets.token)
            .env("QUAD_LAKE", self.folder.join("lake"))
            .env("QUAD_STUDENT", campus.student_of(Role::CorrectedGrade));
        match &self.kafka {
            Some(brokers) => shell.env("QUAD_KAFKA", brokers),
            None => shell.env_remove("QUAD_KAFKA"),
        };
        Ok(shell.status().await.context("could not run a shell")?.success())
    }
}

impl Secrets {
    fn new(args: &DemoArgs) -> Result<Secrets> {
        let yesterday = (Utc::now() + chrono::TimeDelta::hours(8)).date_naive() - Days::new(1);
        Ok(Secrets {
            token: random_hex()?,
            push_token: random_hex()?,
            list_token: random_hex()?,
            id_key: random_hex()?,
            seed: args.seed,
            students: args.students,
            day: args.day.unwrap_or(yesterday).to_string(),
        })
    }
}

/// 24 bytes of the system's randomness.
fn random_hex() -> Result<String> {
    use std::io::Read;
    let mut bytes = [0; 24];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn write_private(file: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::File::options().create(true).truncate(true).write(true).mode(0o600).open(file)?;
    Ok(file.write_all(text.as_bytes())?)
}

/// The usual port on this machine, or a free one when it is taken.
fn address(port: u16) -> Result<String> {
    let listener = TcpListener::bind(("127.0.0.1", port)).or_else(|_| TcpListener::bind(("127.0.0.1", 0)))?;
    Ok(listener.local_addr()?.to_string())
}

/// A demo that was killed leaves its Quad running: it is told to stop, and given a moment.
fn stop_earlier(folder: &Path) {
    let Ok(id) = std::fs::read_to_string(folder.join("quad.pid")) else { return };
    let command_line = || std::fs::read_to_string(format!("/proc/{}/cmdline", id.trim())).unwrap_or_default();
    let settings = folder.join("quad.toml");
    let is_ours = |line: String| settings.canonicalize().is_ok_and(|file| line.contains(&*file.to_string_lossy()));
    if !is_ours(command_line()) {
        return;
    }
    println!("Stopping the Quad of an earlier demo.");
    let _ = std::process::Command::new("sh").arg("-c").arg(format!("kill -TERM {}", id.trim())).status();
    for _ in 0..200 {
        if !is_ours(command_line()) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
