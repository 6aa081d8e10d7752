//! One run: start, storm, calm, verdict.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use campus::campus::Campus;
use campus::database;
use campus::live::Stage;
use campus::plan::Plan as CampusPlan;
use campus::push::Pusher;
use campus::truth;
use lake::Lake;
use schemas::Contracts;
use tokio_postgres::{NoTls, SimpleQueryMessage};
use topic::{Log, Settings, settings::Kind};

use crate::check::{self, Account};
use crate::fault::{Blow, Storm};
use crate::plan::Plan;
use crate::world::{GATE_TOKEN, TOKEN, World};
use crate::writer::{self, Writer};

/// The longest that everything may take to arrive after the storm.
const CALM_MAX: Duration = Duration::from_secs(240);

/// What a run has shown.
#[derive(Debug)]
pub struct Verdict {
    pub blows: BTreeMap<Blow, u64>,
    pub poisoned: u64,
    /// What the object storage did wrong.
    pub store: s3::Counts,
    /// Records that the writer had acknowledged.
    pub acknowledged: u64,
    pub account: Account,
}

impl Verdict {
    /// Whether the guarantee held.
    pub fn is_kept(&self) -> bool {
        self.account.findings.is_empty()
    }

    pub fn faults(&self) -> u64 {
        self.blows.values().sum::<u64>() + self.poisoned + self.store.faults()
    }

    /// The faults by kind, the counts, and what is wrong.
    pub fn print(&self) {
        for (blow, count) in &self.blows {
            println!("{count:>8}  {blow}");
        }
        println!("{:>8}  poisoned records", self.poisoned);
        let s3::Counts { error_before, error_after, cut_after, slow, .. } = self.store;
        for (count, fault) in [
            (error_before, "store: error before the write"),
            (error_after, "store: error after the write"),
            (cut_after, "store: answer cut off after the write"),
            (slow, "store: slow answer"),
        ] {
            if count > 0 {
                println!("{count:>8}  {fault}");
            }
        }
        println!("{:>8}  faults in all", self.faults());
        let Account { records, rows, letters, lost, repeated, findings } = &self.account;
        println!(
            "{records} records in the log, {rows} rows and {letters} dead letters in the lake: {lost} lost, {repeated} repeated"
        );
        findings.iter().for_each(|finding| println!("  {finding}"));
        println!("{}", if self.is_kept() { "The guarantee held." } else { "THE GUARANTEE IS BROKEN." });
    }
}

/// Runs a plan to its verdict.
///
/// # Errors
/// The run itself could not be carried through; says nothing of the guarantee.
pub fn run(plan: &Plan) -> Result<Verdict> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut world = World::new(plan, &runtime)?;
    let contracts = Contracts::load(&plan.root.join("schemas"))?;
    let yesterday = (chrono::Utc::now() + chrono::TimeDelta::hours(8)).date_naive() - chrono::Days::new(1);
    let campus = Campus::generate(CampusPlan::new(plan.seed, plan.students, yesterday));
    database::fill(&campus, &world.databases)?;
    let log = topic::open(&log_settings(&world))?;
    world.start("extract")?;
    for number in 0..plan.lands {
        world.start(&format!("land-{number}"))?;
    }
    let contract = contracts.get(writer::TABLE).context("no such table")?.clone();
    log.ensure_topic(&contract.topic(), Settings::default().partitions)?;
    let writer = Writer {
        contract,
        log: log.clone(),
        seed: plan.seed,
        poison_per_mille: plan.poison_per_mille,
        acknowledged: AtomicU64::new(0),
        poisoned: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    };
    let mut storm = Storm::new(plan.seed, plan.lands);
    let (databases, address) = (world.databases.clone(), format!("127.0.0.1:{}", world.port("http")));
    std::thread::scope(|scope| -> Result<()> {
        let writing = scope.spawn(|| writer.run());
        let playing = scope.spawn(|| play(&campus, &databases, &address));
        world.set_store_fails(true);
        let stormed = weather(plan, &mut storm, &mut world, &writer, || playing.is_finished());
        world.set_store_fails(false);
        writer.stop.store(true, Ordering::Release);
        let written = writing.join().map_err(|_| anyhow::anyhow!("the writer panicked"))?;
        let played = playing.join().map_err(|_| anyhow::anyhow!("the campus panicked"))?;
        stormed.and(written).and(played)
    })?;
    let (store, lake) = (world.store_faults(), world.lake()?);
    runtime.block_on(wait_until_calm(plan, &mut world, &log, &lake, &contracts, &campus))?;
    for name in world.names() {
        world.stop(&name)?;
    }
    let account = runtime.block_on(check::check(&log, &lake, &contracts))?;
    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
    Ok(Verdict {
        blows: storm.dealt,
        poisoned: load(&writer.poisoned),
        store,
        acknowledged: load(&writer.acknowledged),
        account,
    })
}

fn log_settings(world: &World) -> Settings {
    let mut settings = Settings { kind: Kind::Kafka, ..Settings::default() };
    settings.kafka.brokers = world.kafka();
    settings.kafka.append_timeout_ms = 5_000;
    settings
}

/// The campus's own past and day, at the pace that its doors are opened to it.
fn play(campus: &Campus, databases: &database::Databases, address: &str) -> Result<()> {
    let mut stage = Stage::open(databases, Pusher::new(address, "gates", GATE_TOKEN)?)?;
    for push in campus.history_pushes() {
        stage.push(&push)?;
    }
    for step in campus.live() {
        stage.play(&step)?;
    }
    Ok(())
}

/// Blow after blow, until there are enough faults and the campus has played its day.
fn weather(
    plan: &Plan,
    storm: &mut Storm,
    world: &mut World,
    writer: &Writer,
    is_played: impl Fn() -> bool,
) -> Result<()> {
    let mut told = Instant::now();
    loop {
        let faults = storm.count() + writer.poisoned.load(Ordering::Relaxed) + world.store_faults().faults();
        if faults >= plan.faults && storm.count() >= plan.blows && is_played() {
            return Ok(());
        }
        if plan.blows > 0 {
            storm.blow(world)?;
        } else {
            std::thread::sleep(Duration::from_millis(100));
        }
        if told.elapsed() >= Duration::from_secs(10) {
            told = Instant::now();
            let acknowledged = writer.acknowledged.load(Ordering::Relaxed);
            println!("{faults} faults so far, {acknowledged} records written");
        }
    }
}

/// Waits until the lake has the whole log and the campus adds up.
async fn wait_until_calm(
    plan: &Plan,
    world: &mut World,
    log: &Arc<dyn Log>,
    lake: &Lake,
    contracts: &Contracts,
    campus: &Campus,
) -> Result<()> {
    let deadline = Instant::now() + CALM_MAX;
    let landing = if plan.is_unfenced { "land-0" } else { "quad" };
    world.start("query")?;
    loop {
        world.watch()?;
        let behind = behind(log, lake, contracts, landing).await;
        let wrong = match &behind {
            Ok(behind) if behind.is_empty() => differences(world, campus).await,
            _ => Ok(Vec::new()),
        };
        match (&behind, &wrong) {
            (Ok(behind), Ok(wrong)) if behind.is_empty() && wrong.is_empty() => return Ok(()),
            _ if Instant::now() > deadline => {
                let logs = world.names().into_iter().map(|name| {
                    let end = crate::world::tail(&world.log_file(&name));
                    format!("--- {name}\n{end}")
                });
                bail!("not in time: behind {behind:?}, differs {wrong:?}\n{}", logs.collect::<Vec<_>>().join("\n"));
            }
            _ => tokio::time::sleep(Duration::from_millis(300)).await,
        }
    }
}

/// Partitions whose end the lake has not reached.
async fn behind(log: &Arc<dyn Log>, lake: &Lake, contracts: &Contracts, landing: &str) -> Result<Vec<String>> {
    let mut behind = Vec::new();
    for contract in contracts.iter() {
        let (log, topic) = (log.clone(), contract.topic());
        let extents = tokio::task::spawn_blocking(move || log.extents(&topic)).await??;
        let table = lake.find(contract).await?;
        for extent in extents.iter().filter(|extent| extent.high > 0) {
            let next = match &table {
                Some(table) => table.next_offset(landing, &contract.topic(), extent.partition).await?,
                None => None,
            };
            if next.unwrap_or(0) < extent.high {
                behind.push(format!("{}/{} {next:?} of {}", contract.topic(), extent.partition, extent.high));
            }
        }
    }
    Ok(behind)
}

/// Counts of the campus that the query service sees otherwise than the campus does.
async fn differences(world: &World, campus: &Campus) -> Result<Vec<String>> {
    let address = format!("host=127.0.0.1 port={} user=chaos password={TOKEN} dbname=quad", world.port("pg"));
    let (client, connection) = tokio_postgres::connect(&address, NoTls).await?;
    tokio::spawn(connection);
    let mut differences = Vec::new();
    for (table, expected) in &campus.truth(truth::Stage::DayOver).tables {
        let source = writer::SOURCE;
        for (what, expected, sql) in [
            ("rows", expected.current, format!("SELECT COUNT(*) FROM {table} WHERE src <> '{source}'")),
            (
                "dead letters",
                expected.dead_letters,
                format!("SELECT COUNT(*) FROM platform.dead_letter WHERE target = '{table}' AND stage = 'extract'"),
            ),
        ] {
            let messages = client.simple_query(&sql).await?;
            let found = messages.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0),
                _ => None,
            });
            if found != Some(&expected.to_string()) {
                differences.push(format!("{table}: {what} {found:?} instead of {expected}"));
            }
        }
    }
    Ok(differences)
}
