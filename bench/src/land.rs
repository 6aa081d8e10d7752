//! `bench land`: a topic into the lake, held against only polling it.
//!
//! A log (Kafka on this machine, or embedded) is filled once; then each stage runs over the whole of it, in turns:
//! polling alone, polling and decoding, and landing as `quad land` does it, with checks, Parquet and commits. Landing runs
//! once more over a topic some of whose records are bad, and the Python loop that a team would write over the good one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ingest::LandSettings;
use ingest::land::Land;
use ingest::landing::Landing;
use ingest::settings::Assignment;
use lake::Lake;
use schemas::{Contract, Contracts, Decoder};
use tokio::sync::watch;
use topic::settings::Kind;
use topic::{Log, Position, Subscription};

use crate::records;
use crate::stats::{Stage, compare};

const TABLE: &str = "logistics.card_txn";
const PARTITIONS: i32 = 4;

/// The loop is slow, and its rate hardly moves.
const PEER_ROUNDS_MAX: usize = 2;

/// What to measure.
#[derive(clap::Args)]
pub struct Args {
    /// A Kafka broker; without it, the embedded log.
    #[arg(long, env = "QUAD_KAFKA", value_name = "HOST:PORT")]
    kafka: Option<String>,
    #[arg(long, default_value_t = 2_000_000)]
    records: usize,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Also run the Python loop of bench/peers, by this interpreter, on the same topic in the same run. Kafka only.
    #[arg(long, value_name = "PYTHON", requires = "kafka")]
    peer: Option<PathBuf>,
    /// Every how many-th record is bad; 0 for none.
    #[arg(long, default_value_t = 1000)]
    bad_every: usize,
    /// Leave out what landing is held against, for a profile or a long backlog.
    #[arg(long)]
    only_land: bool,
}

/// Fills, measures, prints.
///
/// # Errors
/// The log or the lake failed, or not everything landed.
pub fn run(args: &Args) -> Result<()> {
    let all = Contracts::load(Path::new("schemas"))?;
    let wanted = [TABLE, ingest::letter::CONTRACT, ingest::land::ledger::CONTRACT]
        .map(|name| all.get(name).map(|contract| contract.as_ref().clone()));
    let contracts: Arc<Contracts> = Arc::new(wanted.into_iter().flatten().collect());
    let folder = tempfile::tempdir()?;
    println!("{} records of {TABLE}, {} rounds in turns", args.records, args.rounds);
    println!("median rate (lowest to highest), ratio to poll, processor time a record, peak memory");
    let kinds = if args.bad_every == 0 { vec![0] } else { vec![0, args.bad_every] };
    let benches = kinds.iter().map(|&bad_every| Bench::new(args, &contracts, folder.path(), bad_every));
    let benches = benches.collect::<Result<Vec<_>>>()?;
    let good = &benches[0];
    let lands = |bench: &Bench| {
        bench.land(&contracts, &folder.path().join("lake")).with_context(|| format!("land {}", bench.contract.topic()))
    };
    let mut stages = Vec::new();
    if !args.only_land {
        stages.push(Stage::new("poll", || good.poll(None)));
        stages.push(Stage::new("poll + decode", || good.poll(Some(Decoder::new(&good.contract)?))));
    }
    stages.push(Stage::new("land (decode, check, Parquet, commit)", || lands(good)));
    if let Some(bad) = benches.get(1) {
        stages.push(Stage::new("land, some records bad", || lands(bad)));
    }
    if let Some(python) = &args.peer {
        let peer = || good.peer(python, args.kafka.as_deref().unwrap_or_default(), &folder.path().join("peer"));
        stages.push(Stage::new("the Python loop (rows only)", peer).at_most(PEER_ROUNDS_MAX));
    }
    compare(&mut stages, args.rounds, args.records)
}

struct Bench {
    contract: Arc<Contract>,
    log: Arc<dyn Log>,
    records: usize,
}

impl Bench {
    /// Opens a log with a fresh topic of `args.records` records.
    fn new(args: &Args, contracts: &Contracts, folder: &Path, bad_every: usize) -> Result<Self> {
        let mut contract = contracts.get(TABLE).context("no such table")?.as_ref().clone();
        // The topic follows from the names: another domain is another topic.
        let stamp = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        contract.domain = if args.kafka.is_some() { format!("bench{stamp}_{bad_every}") } else { "bench".to_string() };
        let contract = Arc::new(contract);
        let mut settings = topic::Settings { partitions: PARTITIONS, ..topic::Settings::default() };
        settings.embedded.path = folder.join(format!("topic-{bad_every}"));
        if let Some(brokers) = &args.kafka {
            settings.kind = Kind::Kafka;
            settings.kafka.brokers.clone_from(brokers);
        }
        let log = topic::open(&settings)?;
        log.ensure_topic(&contract.topic(), PARTITIONS)?;
        let started = Instant::now();
        for first in (0..args.records).step_by(50_000) {
            let count = (args.records - first).min(50_000);
            log.append(&contract.topic(), records::messages(&contract, first, count, bad_every)?)?;
        }
        let rate = args.records as f64 / started.elapsed().as_secs_f64() / 1000.0;
        println!("(filled the topic at {rate:.0} k/s)");
        Ok(Self { contract, log, records: args.records })
    }

    /// Polls everything, decoding it if there is a decoder.
    fn poll(&self, mut decoder: Option<Decoder>) -> Result<Duration> {
        let topic = self.contract.topic();
        let positions = (0..PARTITIONS).map(|partition| Position { topic: topic.clone(), partition, offset: 0 });
        let mut consumer = self.log.consumer(Subscription::Assign(positions.collect()))?;
        let (mut seen, mut bytes, mut rows) = (0, 0, 0);
        let started = Instant::now();
        while seen < self.records {
            let mut failure = None;
            seen += consumer.poll(8192, Duration::from_secs(1), &mut |record| {
                bytes += record.value.len();
                if let Some(decoder) = &mut decoder {
                    failure = decoder.push(record.partition, record.offset, record.value).err().or(failure.take());
                }
            })?;
            if let Some(error) = failure {
                return Err(error.into());
            }
            if let Some(decoder) = &mut decoder {
                let (decoded, bad) = decoder.finish()?;
                rows += decoded.iter().map(|part| part.batch.num_rows()).sum::<usize>() + bad.len();
            }
        }
        ensure!(decoder.is_none() || rows == self.records, "decoded {rows} of {} records", self.records);
        std::hint::black_box(bytes);
        Ok(started.elapsed())
    }

    /// Lands everything into a fresh lake, with the settings of `quad land`.
    fn land(&self, contracts: &Contracts, path: &Path) -> Result<Duration> {
        let own =
            contracts.iter().filter(|contract| contract.name() != TABLE).map(|contract| contract.as_ref().clone());
        let land = Arc::new(Land {
            settings: LandSettings {
                id: "bench".into(),
                assignment: Assignment::All,
                instance: None,
                batch_rows_max: 1_000_000,
                batch_bytes_max: 192 << 20,
                batch_age_ms_max: 1_000,
                retry_ms_min: 100,
                retry_ms_max: 1_000,
            },
            contracts: Arc::new(own.chain([self.contract.as_ref().clone()]).collect()),
            timezone: chrono_tz::Tz::Asia__Shanghai,
            lake: Lake::open(&lake::Settings::at(path.to_string_lossy()))?,
            log: self.log.clone(),
            partitions: PARTITIONS,
            landing: Arc::new(Landing::new(contracts)),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let (stop, shutdown) = watch::channel(false);
        let started = Instant::now();
        let took = runtime.block_on(async {
            let running = tokio::spawn({
                let land = land.clone();
                async move { land.run(shutdown).await }
            });
            let landed = || land.landing.rows.load(Ordering::Relaxed) + land.landing.letters.load(Ordering::Relaxed);
            while landed() < self.records as u64 && !running.is_finished() {
                ensure!(land.landing.stopped().is_empty(), "the log has lost records that were not landed yet");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let took = started.elapsed();
            stop.send_replace(true);
            running.await??;
            anyhow::Ok(took)
        })?;
        std::fs::remove_dir_all(path)?;
        Ok(took)
    }
}

impl Bench {
    /// Lands the topic by the Python loop.
    fn peer(&self, python: &Path, brokers: &str, folder: &Path) -> Result<Duration> {
        std::fs::create_dir_all(folder)?;
        let (schema, table) = (folder.join("schema.avsc"), folder.join("table"));
        std::fs::write(&schema, self.contract.avro_json())?;
        let output = Command::new(python)
            .args(["bench/peers/land.py", brokers, &self.contract.topic(), &self.records.to_string()])
            .args([&schema, &table])
            .output()
            .with_context(|| format!("could not run {}", python.display()))?;
        ensure!(output.status.success(), "the peer failed: {}", String::from_utf8_lossy(&output.stderr));
        std::fs::remove_dir_all(folder)?;
        Ok(Duration::from_secs_f64(String::from_utf8_lossy(&output.stdout).trim().parse()?))
    }
}
