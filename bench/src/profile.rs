//! `bench profile`: what the profiles of a whole university cost. Its records go through Kafka, `quad land` and `quad query` as
//! in production; what is timed is seen from outside, over gRPC, with policy and audit on.
//!
//! Freshness is read-your-writes: from before a record is appended until a profile that has seen it is in the caller's hand,
//! while others are appended at a steady rate. Timed apart: the first records of a day, which say of everybody that a system
//! is heard of and of a building that its gates are, and corrections of whose a card was. At the end the profiles, followed through all of it, are held against
//! the same computed from nothing.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lake::Lake;
use proto::profile::v1::{GetProfileRequest, Purpose};
use query::api::client::{Client, Manage};
use schemas::Contracts;
use tempfile::TempDir;
use topic::Log;
use topic::settings::Kind;

use crate::lookup::{self, by_number};
use crate::university::{Table, University};

const TOKEN: &str = "a token of the bench";
/// Of the above, hex.
const TOKEN_SHA256: &str = "85f03813ea3ddf8268222646dec636ed85d49a32c6f8134b35d5b77e0c7220c1";

const PARTITIONS: i32 = 4;
const APPEND: usize = 20_000;
/// One append while measuring freshness.
const TICK: Duration = Duration::from_millis(20);
const WAIT_MAX: Duration = Duration::from_secs(900);
/// The first records of a day: of every kind and every building.
const FIRST: usize = 500;
/// Cards that are found to have been another student's.
const CORRECTIONS: usize = 3;

/// What to measure.
#[derive(clap::Args)]
pub struct Args {
    /// A Kafka broker without topics of Quad.
    #[arg(long, env = "QUAD_KAFKA", value_name = "HOST:PORT")]
    kafka: String,
    #[arg(long, default_value_t = 20_000)]
    students: usize,
    /// Purchases and passages, over the 100 days before today.
    #[arg(long, default_value_t = 100)]
    events_per_student: usize,
    /// Records a second while freshness is measured.
    #[arg(long, default_value_t = 10_000)]
    rate: usize,
    /// How long it is measured.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    #[command(flatten)]
    load: lookup::Load,
}

/// Fills, measures, prints.
///
/// # Errors
/// A part does not run, or the profiles in the end are not those of their records.
pub fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let bench = Bench::new(args)?;
    let tables = bench.university.tables(&bench.contracts)?;
    let (started, records) = (Instant::now(), bench.fill(&tables)?);
    let land = bench.start("land")?;
    runtime.block_on(bench.landed(&tables))?;
    println!("{records} records of {} students in the lake after {:.0?}", args.students, started.elapsed());

    for what in ["from nothing", "after a restart"] {
        let started = Instant::now();
        let query = bench.start("query")?;
        let client = runtime.block_on(bench.profiles(&query))?;
        let first = started.elapsed();
        runtime.block_on(bench.computed(&client))?;
        let computed = started.elapsed();
        println!(
            "profiles {what}: first answer {first:.1?} after the start, computed {computed:.1?}, {}",
            query.memory()
        );
        if what == "from nothing" {
            bench.written()?;
            continue;
        }
        let students: Vec<String> = (0..args.students).map(|number| bench.university.student_no(number)).collect();
        lookup::measure(&format!("127.0.0.1:{}", bench.grpc), TOKEN, &students, &args.load)?;
        println!("after the look-ups {}", query.memory());
        runtime.block_on(bench.freshness(args, &tables, &client))?;
        println!("after the freshness {}", query.memory());
        runtime.block_on(bench.relinks(&tables, &client))?;
        println!("after the corrections {}", query.memory());
        let verified = runtime.block_on(client.manage_profiles(Manage::Verify))?;
        println!(
            "{} profiles held against those computed from nothing: {} differ",
            verified.persons, verified.persons_different
        );
        ensure!(verified.persons_different == 0, "profiles are not those of their records: {:?}", verified.items);
    }
    drop(land);
    Ok(())
}

struct Bench {
    folder: TempDir,
    contracts: Arc<Contracts>,
    university: University,
    log: Arc<dyn Log>,
    kafka: String,
    grpc: u16,
}

impl Bench {
    fn new(args: &Args) -> Result<Self> {
        let mut settings = topic::Settings { partitions: PARTITIONS, kind: Kind::Kafka, ..topic::Settings::default() };
        settings.kafka.brokers.clone_from(&args.kafka);
        Ok(Self {
            folder: tempfile::tempdir()?,
            contracts: Arc::new(Contracts::load(Path::new("schemas"))?),
            university: University {
                students: args.students,
                events_per_student: args.events_per_student,
                now: chrono::Utc::now().timestamp_micros(),
            },
            log: topic::open(&settings)?,
            kafka: args.kafka.clone(),
            grpc: free_port()?,
        })
    }

    /// Appends everything; the number of records.
    fn fill(&self, tables: &[Table]) -> Result<usize> {
        let mut records = 0;
        for table in tables {
            let topic = table.contract.topic();
            self.log.ensure_topic(&topic, PARTITIONS)?;
            let is_new = self.log.extents(&topic)?.iter().all(|extent| extent.high == 0);
            ensure!(is_new, "there are records in {topic}: the bench needs a broker of its own");
            for first in (0..table.rows).step_by(APPEND) {
                let count = APPEND.min(table.rows - first);
                self.log.append(&topic, self.university.messages(table, first, count)?)?;
                records += count;
            }
        }
        Ok(records)
    }

    fn lake_path(&self) -> PathBuf {
        self.folder.path().join("lake")
    }

    /// Waits until the lake has every record.
    async fn landed(&self, tables: &[Table]) -> Result<()> {
        let lake = Lake::open(&lake::Settings::at(self.lake_path().to_string_lossy()))?;
        let deadline = Instant::now() + WAIT_MAX;
        for table in tables {
            let topic = table.contract.topic();
            let (log, of) = (self.log.clone(), topic.clone());
            let extents = tokio::task::spawn_blocking(move || log.extents(&of)).await??;
            for extent in extents {
                loop {
                    let found = lake.find(&table.contract).await?;
                    let next = match &found {
                        Some(found) => found.next_offset("quad", &topic, extent.partition).await?,
                        None => None,
                    };
                    if next.unwrap_or(0) >= extent.high {
                        break;
                    }
                    ensure!(Instant::now() < deadline, "{topic} has not landed in {WAIT_MAX:?}");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
        Ok(())
    }

    fn start(&self, service: &'static str) -> Result<Service> {
        let root = std::env::current_dir()?;
        let settings = format!(
            r#"topic.kind = "kafka"
topic.kafka.brokers = "{kafka}"
topic.partitions = {PARTITIONS}
lake.path = "{lake}"
observe.http_listen = ""
query.grpc_listen = "127.0.0.1:{grpc}"
query.pg_listen = "127.0.0.1:{pg}"
query.identity_key_file = "{key}"
query.profile_table_every_s = 0
access.tokens.bench = {{ role = "admin", sha256 = "{TOKEN_SHA256}" }}
"#,
            kafka = self.kafka,
            lake = self.lake_path().display(),
            grpc = self.grpc,
            pg = free_port()?,
            key = self.folder.path().join("identity.key").display(),
        );
        let file = self.folder.path().join(format!("{service}.toml"));
        std::fs::write(&file, settings)?;
        let log = self.folder.path().join(format!("{service}.log"));
        let quad = std::env::current_exe()?.with_file_name("quad");
        let child = Command::new(&quad)
            .args([service, "--config"])
            .arg(&file)
            .current_dir(root)
            .env_remove("QUAD_KAFKA")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log)?)
            .spawn()
            .with_context(|| format!("could not start {}", quad.display()))?;
        Ok(Service { child, log })
    }

    /// A client of `query`, once it gives the profile of the last student.
    async fn profiles(&self, query: &Service) -> Result<Client> {
        let deadline = Instant::now() + WAIT_MAX;
        let last = self.university.student_no(self.university.students - 1);
        let mut asked = String::new();
        while Instant::now() < deadline {
            match Client::connect(&format!("http://127.0.0.1:{}", self.grpc), Some(TOKEN.to_string())).await {
                Ok(client) => match client.profile(request(&last, String::new())).await {
                    Ok(_) => return Ok(client),
                    Err(error) => asked = error.message,
                },
                Err(error) => asked = error.message,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("no profile in {WAIT_MAX:?}: {asked}\n{}", std::fs::read_to_string(&query.log)?)
    }

    /// Waits until profiles are not those of a checkpoint.
    async fn computed(&self, client: &Client) -> Result<()> {
        let deadline = Instant::now() + WAIT_MAX;
        while client.sql("SELECT count(*) FROM profile.student").await.is_err() {
            ensure!(Instant::now() < deadline, "no profiles are computed in {WAIT_MAX:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Waits for the checkpoint.
    fn written(&self) -> Result<()> {
        let (deadline, file) = (Instant::now() + WAIT_MAX, self.lake_path().join("_profile/checkpoint.parquet"));
        while !file.exists() {
            ensure!(Instant::now() < deadline, "no checkpoint is written in {WAIT_MAX:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        println!("a checkpoint of {} MB", file.metadata()?.len() >> 20);
        Ok(())
    }

    /// Appends corrections of whose a card was, one after the other: all its purchases go to another student.
    async fn relinks(&self, tables: &[Table], client: &Client) -> Result<()> {
        let cards = tables.iter().find(|table| table.contract.name() == "identity.card").context("no cards")?;
        for nth in 0..CORRECTIONS {
            let took = self.appended(cards, cards.rows + 2 * nth, 1, client, 2 * nth + 1).await?;
            println!("a card is another student's  in the profile after {took:.2?}");
        }
        Ok(())
    }

    /// Appends rows of `table`; how long it took until they were in the profile of a student.
    async fn appended(
        &self,
        table: &Table,
        first: usize,
        count: usize,
        client: &Client,
        student: usize,
    ) -> Result<Duration> {
        let messages = self.university.messages(table, first, count)?;
        let (log, topic, begun) = (self.log.clone(), table.contract.topic(), Instant::now());
        let watermark = tokio::task::spawn_blocking(move || log.append(&topic, messages)).await??;
        client.profile(request(&self.university.student_no(student), watermark.to_string())).await?;
        Ok(begun.elapsed())
    }

    /// Appends at the rate, and asks for the student of every append's last record.
    async fn freshness(&self, args: &Args, tables: &[Table], client: &Client) -> Result<()> {
        let events = &tables[tables.len() - 2..];
        let ticks = args.seconds * 1000 / TICK.as_millis() as u64;
        let count = args.rate * TICK.as_millis() as usize / 1000;
        println!();
        for table in events {
            let student = self.university.student_of(table.rows);
            let took = self.appended(table, table.rows, FIRST, client, student).await?;
            println!("the first {FIRST} of today in {}  in the profile after {took:.2?}", table.contract.name());
        }
        let (mut asked, mut late) = (tokio::task::JoinSet::new(), Duration::ZERO);
        let begun = Instant::now();
        for tick in 0..ticks {
            let due = begun + TICK * tick as u32;
            late = late.max(due.elapsed());
            tokio::time::sleep_until(due.into()).await;
            // Purchases and passages in turns.
            let table = &events[(tick % 2) as usize];
            let first = table.rows + FIRST + (tick / 2) as usize * count;
            let messages = self.university.messages(table, first, count)?;
            let (log, topic) = (self.log.clone(), table.contract.topic());
            let student = self.university.student_no(self.university.student_of(first + count - 1));
            let client = client.clone();
            asked.spawn(async move {
                let begun = Instant::now();
                let watermark = tokio::task::spawn_blocking(move || log.append(&topic, messages)).await??;
                let appended = begun.elapsed();
                client.profile(request(&student, watermark.to_string())).await?;
                anyhow::Ok((appended, begun.elapsed()))
            });
        }
        let mut times = Vec::new();
        while let Some(time) = asked.join_next().await {
            times.push(time??);
        }
        let quantiles = |mut times: Vec<Duration>| {
            times.sort_unstable();
            let [p50, p99] = [0.5, 0.99].map(|share| times[((times.len() - 1) as f64 * share) as usize]);
            format!("p50 {p50:.0?}  p99 {p99:.0?}  longest {:.0?}", times[times.len() - 1])
        };
        println!(
            "{} records a second for {} s, {} asked after (at most {late:.0?} behind the clock)",
            args.rate,
            args.seconds,
            times.len()
        );
        println!("acknowledged by the log      {}", quantiles(times.iter().map(|(appended, _)| *appended).collect()));
        println!("in the profile over gRPC     {}", quantiles(times.iter().map(|(_, fresh)| *fresh).collect()));
        Ok(())
    }
}

fn request(student_no: &str, min_watermark: String) -> GetProfileRequest {
    GetProfileRequest {
        person: Some(by_number(student_no)),
        purpose: Purpose::DailyWork.into(),
        min_watermark,
        ..GetProfileRequest::default()
    }
}

/// A process of Quad, ended when it is no longer needed.
struct Service {
    child: Child,
    log: PathBuf,
}

impl Service {
    fn memory(&self) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let mb = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
            line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or(0) / 1024
        };
        format!("memory {} MB, at most {} MB", mb("VmRSS:"), mb("VmHWM:"))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
