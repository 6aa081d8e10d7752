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
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use topic::{Log, Settings, settings::Kind};

use crate::check::{self, Account, Shown};
use crate::deliver::{Deliveries, Disorder};
use crate::fault::{Blow, JUMP_S_MAX, Storm};
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
    /// What the gates did to their deliveries.
    pub disorder: Disorder,
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
        self.blows.values().sum::<u64>() + self.poisoned + self.disorder.count() + self.store.faults()
    }

    /// The faults by kind, the counts, and what is wrong.
    pub fn print(&self) {
        for (blow, count) in &self.blows {
            println!("{count:>8}  {blow}");
        }
        let Disorder { repeated, reordered, corrected } = &self.disorder;
        let [repeated, reordered, corrected] =
            [repeated, reordered, corrected].map(|count| count.load(Ordering::Relaxed));
        let s3::Counts { error_before, error_after, cut_after, torn, slow, .. } = self.store;
        for (count, fault) in [
            (self.poisoned, "poisoned records"),
            (repeated, "pushes repeated"),
            (reordered, "pushes after later ones"),
            (corrected, "events corrected, before or after"),
            (error_before, "store: error before the write"),
            (error_after, "store: error after the write"),
            (cut_after, "store: answer cut off after the write"),
            (torn, "store: write torn half-way"),
            (slow, "store: slow"),
        ] {
            if count > 0 {
                println!("{count:>8}  {fault}");
            }
        }
        println!("{:>8}  faults in all", self.faults());
        let Account { records, rows, letters, lost, repeated, late, odd_times, findings } = &self.account;
        println!(
            "{records} records in the log, {rows} rows and {letters} dead letters in the lake: {lost} lost, {repeated} repeated"
        );
        println!("{late} versions came after newer ones; {odd_times} commits bear a time of before or after the run");
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
    let began = chrono::Utc::now();
    // The day is over by every clock: what happens after it is received is no event.
    let today = began + chrono::TimeDelta::hours(8) - chrono::TimeDelta::seconds(JUMP_S_MAX);
    let yesterday = today.date_naive() - chrono::Days::new(1);
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
    let (mut storm, disorder) = (Storm::new(plan.seed, plan.lands), Disorder::default());
    let (databases, address) = (world.databases.clone(), format!("127.0.0.1:{}", world.port("http")));
    std::thread::scope(|scope| -> Result<()> {
        let writing = scope.spawn(|| writer.run());
        let playing = scope.spawn(|| play(plan.seed, &campus, &databases, &address, &disorder));
        world.set_store_fails(true);
        let others = || writer.poisoned.load(Ordering::Relaxed) + disorder.count();
        let stormed = weather(plan, &mut storm, &mut world, others, || playing.is_finished());
        world.set_store_fails(false);
        writer.stop.store(true, Ordering::Release);
        let written = writing.join().map_err(|_| anyhow::anyhow!("the writer panicked"))?;
        let played = playing.join().map_err(|_| anyhow::anyhow!("the campus panicked"))?;
        stormed.and(written).and(played)
    })?;
    let (store, lake) = (world.store_faults(), world.lake()?);
    runtime.block_on(wait_until_calm(plan, &mut world, &log, &lake, &contracts, &campus))?;
    let shown = runtime.block_on(shown(&world, &contracts))?;
    for name in world.names() {
        world.stop(&name)?;
    }
    let account = runtime.block_on(check::check(&log, &lake, &contracts, &shown, began..chrono::Utc::now()))?;
    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
    Ok(Verdict {
        blows: storm.dealt,
        poisoned: load(&writer.poisoned),
        disorder,
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
fn play(seed: u64, campus: &Campus, databases: &database::Databases, address: &str, disorder: &Disorder) -> Result<()> {
    let mut stage = Stage::open(databases, Pusher::new(address, "gates", GATE_TOKEN)?)?;
    let mut deliveries = Deliveries::new(seed, disorder);
    for push in campus.history_pushes() {
        deliveries.push(&mut stage, push)?;
    }
    for step in campus.live() {
        stage.write(&step)?;
        for push in step.pushes {
            deliveries.push(&mut stage, push)?;
        }
    }
    deliveries.finish(&mut stage)
}

/// Blow after blow, until there are enough faults and the campus has played its day.
fn weather(
    plan: &Plan,
    storm: &mut Storm,
    world: &mut World,
    others: impl Fn() -> u64,
    is_played: impl Fn() -> bool,
) -> Result<()> {
    let mut told = Instant::now();
    loop {
        let faults = storm.count() + others() + world.store_faults().faults();
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
            println!("{faults} faults so far, {} of them blows", storm.count());
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
    let client = client(world).await?;
    let mut differences = Vec::new();
    for (table, expected) in &campus.truth(truth::Stage::DayOver).tables {
        let source = writer::SOURCE;
        for (what, expected, sql) in [
            ("rows", expected.current, format!("SELECT COUNT(*), 0 FROM {table} WHERE src <> '{source}'")),
            (
                "dead letters",
                expected.dead_letters,
                format!("SELECT COUNT(*), 0 FROM platform.dead_letter WHERE target = '{table}' AND stage = 'extract'"),
            ),
        ] {
            let found = numbers(&client, &sql).await?;
            if found != [(expected as i64, 0)] {
                differences.push(format!("{table}: {what} {found:?} instead of {expected}"));
            }
        }
    }
    Ok(differences)
}

/// Where in the log the rows are that each table shows.
async fn shown(world: &World, contracts: &Contracts) -> Result<Shown> {
    let client = client(world).await?;
    let mut shown = Shown::new();
    for contract in contracts.iter().filter(|contract| contract.domain != "platform") {
        let name = contract.name();
        let rows = numbers(&client, &format!("SELECT kafka_partition, kafka_offset FROM {name}")).await?;
        shown.insert(name, rows.into_iter().collect());
    }
    Ok(shown)
}

async fn client(world: &World) -> Result<Client> {
    let address = format!("host=127.0.0.1 port={} user=chaos password={TOKEN} dbname=quad", world.port("pg"));
    let (client, connection) = tokio_postgres::connect(&address, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The rows of an answer of two numbers.
async fn numbers(client: &Client, sql: &str) -> Result<Vec<(i64, i64)>> {
    let mut rows = Vec::new();
    for message in client.simple_query(sql).await? {
        if let SimpleQueryMessage::Row(row) = message {
            let number = |at| row.get(at).context("null")?.parse::<i64>().context("no number");
            rows.push((number(0)?, number(1)?));
        }
    }
    Ok(rows)
}
