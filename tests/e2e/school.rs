//! A school to test with: a work folder, source databases, settings, and `quad` processes on them.
//!
//! Ports are free ones, folders temporary, and every process ends with the school.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use campus::campus::Campus;
use campus::database::{self, Databases};
use campus::http::Http;
use campus::plan::Plan;
use campus::push::Pusher;
use campus::settings::{Settings, list_passwords, list_sources};
use campus::truth::{Stage, Truth};
use campus::vendors::Vendors;
use chrono::NaiveDateTime;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// Good for every door.
pub const TOKEN: &str = "e2e-token";
/// Role analyst: SQL, no profiles.
pub const ANALYST_TOKEN: &str = "e2e-analyst-token";
const GATE_TOKEN: &str = "e2e-gate-token";
const LIST_TOKEN: &str = "e2e-list-token";

/// How long anything may take to come true.
const DEADLINE: Duration = Duration::from_secs(420);

/// One school and its Quad.
pub struct School {
    pub folder: tempfile::TempDir,
    pub campus: Campus,
    pub databases: Databases,
    kafka: Option<String>,
    vendors: Option<Vendors>,
    pub grpc: u16,
    pub pg: u16,
    pub http: u16,
    /// Where each service that was started tells of itself.
    pages: BTreeMap<&'static str, u16>,
    running: BTreeMap<&'static str, Child>,
}

impl School {
    /// A campus of `students`, its SQLite sources filled, and settings written; nothing runs yet.
    pub fn new(seed: u64, students: usize, kafka: Option<String>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let sqlite = |name: &str| Databases::sqlite(&folder.path().join(name));
        let databases = Databases {
            student_affairs: sqlite("affairs.db"),
            academic: sqlite("academic.db"),
            logistics: sqlite("logistics.db"),
        };
        Self::with_databases(folder, databases, seed, students, kafka)
    }

    pub fn with_databases(
        folder: tempfile::TempDir,
        databases: Databases,
        seed: u64,
        students: usize,
        kafka: Option<String>,
    ) -> Self {
        let yesterday = (chrono::Utc::now() + chrono::TimeDelta::hours(8)).date_naive() - chrono::Days::new(1);
        let campus = Campus::generate(Plan::new(seed, students, yesterday));
        database::fill(&campus, &databases).expect("the sources can be filled");
        let [grpc, pg, http] = [0; 3].map(|_| free_port());
        let (pages, running) = (BTreeMap::new(), BTreeMap::new());
        let school = Self { folder, campus, databases, kafka, vendors: None, grpc, pg, http, pages, running };
        std::fs::write(school.settings(), school.toml()).expect("the settings can be written");
        school
    }

    /// Lets platforms list over HTTP what they know before the day, as further sources.
    pub fn pull_lists(&mut self) {
        let vendors = Vendors::start("127.0.0.1:0", LIST_TOKEN, 100).expect("a free port");
        vendors.show(&self.campus, self.campus.plan.day_start());
        let settings = std::fs::read_to_string(self.settings()).expect("the settings can be read");
        std::fs::write(self.settings(), settings + &list_sources(&vendors.url())).expect("the settings can be written");
        self.vendors = Some(vendors);
    }

    /// Lets them list what they know when the day is over.
    pub fn end_day_of_lists(&self) {
        self.vendors.iter().for_each(|vendors| vendors.show(&self.campus, NaiveDateTime::MAX));
    }

    /// What must come out of all that is pulled.
    pub fn truth(&self, stage: Stage) -> Truth {
        let truth = self.campus.truth(stage);
        if self.vendors.is_some() { truth.with_lists() } else { truth }
    }

    pub fn settings(&self) -> PathBuf {
        self.folder.path().join("quad.toml")
    }

    fn toml(&self) -> String {
        let here = self.folder.path();
        let topic = match &self.kafka {
            Some(brokers) => format!("topic.kind = \"kafka\"\ntopic.kafka.brokers = \"{brokers}\""),
            None => "topic.kind = \"embedded\"".to_string(),
        };
        // On a broker that others use too, the ports keep runs apart.
        let (prefix, shown) = (self.topic_prefix(), here.display());
        let more = format!(
            "topic_prefix = \"{prefix}\"\n{topic}\ntopic.embedded.path = \"{shown}/topic\"\n\
             land.batch_age_ms_max = 200\nquery.refresh_ms = 100"
        );
        Settings {
            root: Path::new(env!("CARGO_MANIFEST_DIR")),
            state: &here.join("extract"),
            lake: &format!("{shown}/lake"),
            databases: &self.databases,
            http: self.http,
            grpc: self.grpc,
            pg: self.pg,
            gate_token: GATE_TOKEN,
            tokens: &[("e2e", "admin", TOKEN), ("ann", "analyst", ANALYST_TOKEN)],
            more: &more,
        }
        .toml()
    }

    pub fn topic_prefix(&self) -> String {
        format!("e2e-{}-{}-{}", self.grpc, self.pg, self.http)
    }

    /// `quad` with these settings and `arguments`.
    pub fn quad(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quad"));
        command.args(arguments).env("QUAD_CONFIG", self.settings()).env("QUAD_TOKEN", TOKEN);
        command
            .env("QUAD_EXTRACT__ID_KEY", "a key of the tests")
            .env("QUAD_QUERY__IDENTITY_KEY", "another key of the tests");
        command.envs(self.vendors.iter().flat_map(|_| list_passwords(LIST_TOKEN)));
        command.env_remove("QUAD_KAFKA").stdin(Stdio::null());
        command
    }

    /// Runs `quad` to its end.
    pub fn output(&self, arguments: &[&str]) -> Output {
        self.quad(arguments).output().expect("quad starts")
    }

    /// Starts a service; its log goes to a file in the folder.
    pub fn start(&mut self, service: &'static str) {
        self.start_with(service, &[]);
    }

    /// Starts a service with further settings in its environment.
    pub fn start_with(&mut self, service: &'static str, environment: &[(&str, &str)]) {
        let page = *self.pages.entry(service).or_insert_with(free_port);
        let log = std::fs::File::options().create(true).append(true).open(self.log_file(service)).expect("a log file");
        let mut command = self.quad(&[service]);
        command.env("QUAD_OBSERVE__HTTP_LISTEN", format!("127.0.0.1:{page}")).envs(environment.iter().copied());
        let child = command.stderr(log).stdout(Stdio::null()).spawn().expect("quad starts");
        self.running.insert(service, child);
    }

    /// SIGKILL: as a power cut would.
    pub fn kill(&mut self, service: &'static str) {
        let mut child = self.running.remove(service).expect("it runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
    }

    /// SIGTERM, and the exit code.
    pub fn stop(&mut self, service: &'static str) -> Option<i32> {
        let mut child = self.running.remove(service).expect("it runs");
        let pid = child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs");
        child.wait().expect("it ends").code()
    }

    /// Status and text of a page of a running service.
    pub async fn page(&self, service: &str, path: &str) -> (u16, String) {
        let (status, text) = Http::new(&format!("127.0.0.1:{}", self.pages[service])).get(path).await.expect("a page");
        (status.as_u16(), text)
    }

    pub fn log(&self, service: &str) -> String {
        std::fs::read_to_string(self.log_file(service)).unwrap_or_default()
    }

    fn log_file(&self, service: &str) -> PathBuf {
        self.folder.path().join(format!("{service}.log"))
    }

    pub fn pusher(&self) -> Pusher {
        Pusher::new(&format!("127.0.0.1:{}", self.http), "gates", GATE_TOKEN).expect("a pusher")
    }

    /// The PostgreSQL wire, and who asks.
    pub fn address(&self) -> String {
        format!("host=127.0.0.1 port={} user=e2e password={TOKEN} dbname=quad", self.pg)
    }

    /// Connects to the PostgreSQL wire, once it listens.
    pub async fn client(&self) -> Client {
        let address = self.address();
        let deadline = Instant::now() + DEADLINE;
        loop {
            match tokio_postgres::connect(&address, NoTls).await {
                Ok((client, connection)) => {
                    tokio::spawn(connection);
                    return client;
                }
                Err(error) => assert!(Instant::now() < deadline, "{error}\n{}{}", self.log("up"), self.log("query")),
            }
            wait_until_later().await;
        }
    }

    /// Rows of an answer, one line each, cells separated by `|`.
    pub async fn lines(&self, client: &Client, sql: &str) -> Result<Vec<String>, tokio_postgres::Error> {
        let messages = client.simple_query(sql).await?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let line = |row: &tokio_postgres::SimpleQueryRow| {
            (0..row.len()).map(|at| row.get(at).unwrap_or("∅").to_string()).collect::<Vec<_>>().join("|")
        };
        Ok(rows.map(line).collect())
    }

    /// Counts per table that differ from `truth`: current rows, and dead letters.
    pub async fn differences(&self, client: &Client, truth: &Truth) -> Vec<String> {
        let mut differences = Vec::new();
        for (table, expected) in &truth.tables {
            let current = self.lines(client, &format!("SELECT COUNT(*) FROM {table}")).await;
            let sql = format!("SELECT COUNT(*) FROM platform.dead_letter WHERE target = '{table}'");
            let letters = self.lines(client, &sql).await;
            for (what, expected, found) in
                [("rows", expected.current, current), ("dead letters", expected.dead_letters, letters)]
            {
                match found {
                    Ok(found) if found == [expected.to_string()] => {}
                    Ok(found) => differences.push(format!("{table}: {what} {found:?}, expected {expected}")),
                    Err(error) => differences.push(format!("{table}: {error}")),
                }
            }
        }
        differences
    }

    /// Waits until counts are those of `truth`.
    pub async fn eventually_agrees(&self, client: &Client, truth: &Truth) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let differences = self.differences(client, truth).await;
            if differences.is_empty() {
                return;
            }
            let logs = ["up", "extract", "land"].map(|service| self.log(service)).join("");
            let sources = self.output(&["sources"]);
            let sources = String::from_utf8_lossy(&sources.stdout).into_owned();
            assert!(Instant::now() < deadline, "not in time:\n{}\n{sources}\n{logs}", differences.join("\n"));
            wait_until_later().await;
        }
    }

    /// Waits until the one line that answers `sql` is `expected`.
    pub async fn eventually(&self, client: &Client, sql: &str, expected: impl ToString) {
        let (deadline, expected) = (Instant::now() + DEADLINE, expected.to_string());
        loop {
            let found = self.lines(client, sql).await;
            if found.as_ref().is_ok_and(|found| *found == [expected.as_str()]) {
                return;
            }
            let logs = ["up", "extract", "land", "query"].map(|service| self.log(service)).concat();
            assert!(Instant::now() < deadline, "{sql}: {found:?} instead of {expected}\n{logs}");
            wait_until_later().await;
        }
    }

    /// Everything a table says but when and where it was received, sorted.
    pub async fn content(&self, client: &Client, table: &str) -> Vec<String> {
        let volatile = "'ingested_at', 'kafka_partition', 'kafka_offset', 'event_time', 'local_ts', 'biz_date'";
        let names = format!(
            "SELECT column_name FROM information_schema.columns WHERE table_schema || '.' || table_name = '{table}' \
             AND column_name NOT IN ({volatile}) ORDER BY column_name"
        );
        let columns = self.lines(client, &names).await.expect("the catalog answers");
        assert!(columns.len() > 5, "{table} has columns: {columns:?}");
        let columns = columns.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        let mut rows = self.lines(client, &format!("SELECT {columns} FROM {table}")).await.expect("the table answers");
        rows.sort();
        rows
    }
}

impl Drop for School {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Below the ports that connections get (Linux: from 32768 on), so that a service that is killed and started again finds its
/// own still free.
pub fn free_port() -> u16 {
    static COUNT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + (std::process::id() % 10_000) as u16;
    let mut ports = std::iter::repeat_with(|| first + COUNT.fetch_add(1, Ordering::Relaxed) % 10_000).take(10_000);
    ports.find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

/// Between two looks at a state that is on its way.
pub async fn wait_until_later() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}
