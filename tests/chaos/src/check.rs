//! The verdict: the whole log, read by itself, against the lake.
//!
//! A log and a lake enter; what is missing, stands twice or differs leaves, in words. It asks neither landing nor the
//! query service: positions, rows and letters are counted from the topics and the tables' files.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use chrono::{DateTime, Utc};
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use lake::Lake;
use schemas::{Contract, Contracts, Decoder};
use topic::{Log, Position, Subscription};

use crate::writer;

/// The longest that reading a topic may take.
const READ_MAX: Duration = Duration::from_secs(120);

/// Examples of each kind of finding.
const EXAMPLES_MAX: usize = 3;

/// What was counted, and what is wrong.
#[derive(Debug, Default)]
pub struct Account {
    pub records: u64,
    pub rows: u64,
    pub letters: u64,
    /// Records that are neither row nor letter; and those that are there more than once.
    pub lost: u64,
    pub repeated: u64,
    /// Versions that came after a newer one of their key: no table may show them.
    pub late: u64,
    /// Commits whose time lies before or after the run: their process's clock was wrong.
    pub odd_times: u64,
    /// What is wrong, in words, with examples.
    pub findings: Vec<String>,
}

/// Where in the log the rows are that a table shows, partition and offset, by table.
pub type Shown = BTreeMap<String, BTreeSet<(i64, i64)>>;

/// Where each record of a partition went: counts by offset.
type Places = BTreeMap<(String, i32), Vec<u32>>;

/// Holds the log against the lake, and what tables show against what was received, after a run that took `time`.
///
/// # Errors
/// One of them cannot be read.
pub async fn check(
    log: &Arc<dyn Log>,
    lake: &Lake,
    contracts: &Contracts,
    shown: &Shown,
    time: Range<DateTime<Utc>>,
) -> Result<Account> {
    let mut account = Account::default();
    let mut places = Places::new();
    for contract in contracts.iter() {
        let topic = contract.topic();
        for extent in log.extents(&topic).with_context(|| format!("could not ask for {topic}"))? {
            account.records += extent.high as u64;
            places.insert((topic.clone(), extent.partition), vec![0; extent.high as usize]);
        }
    }
    for contract in contracts.iter() {
        let sql = "SELECT kafka_partition, kafka_offset FROM t WHERE src <> 'land'";
        for (partition, offset) in numbers(lake, contract, sql).await? {
            account.rows += 1;
            put(&mut places, &contract.topic(), partition, offset, &mut account.findings);
        }
    }
    let letters = in_memory(lake, contracts.get("platform.dead_letter").context("no contract of letters")?).await?;
    for contract in contracts.iter() {
        let topic = contract.topic();
        let sql = format!("SELECT letter_partition, letter_offset FROM t WHERE stage = 'land' AND topic = '{topic}'");
        for (partition, offset) in pairs(&letters.sql(&sql).await?.collect().await?)? {
            account.letters += 1;
            put(&mut places, &topic, partition, offset, &mut account.findings);
        }
    }
    for ((topic, partition), counts) in &places {
        tell(&mut account, topic, *partition, counts);
    }
    account.findings.extend(contents(log, lake, contracts).await?);
    account.findings.extend(ledger(lake, contracts, &places).await?);
    for (table, shown) in shown {
        let contract = contracts.get(table).context("no such table")?;
        let (latest, late) = latest(lake, contract).await?;
        account.late += late;
        account.findings.extend(differs(table, &latest, shown));
    }
    account.odd_times = odd_times(lake, contracts, time).await?;
    Ok(account)
}

fn put(places: &mut Places, topic: &str, partition: i64, offset: i64, findings: &mut Vec<String>) {
    let place = places.get_mut(&(topic.to_string(), partition as i32));
    match place.and_then(|counts| counts.get_mut(offset as usize)) {
        Some(count) => *count += 1,
        None => findings.push(format!("{topic}/{partition}@{offset} is in the lake and not in the log")),
    }
}

fn tell(account: &mut Account, topic: &str, partition: i32, counts: &[u32]) {
    let which = |is: fn(u32) -> bool| -> Vec<usize> {
        counts.iter().enumerate().filter(|(_, count)| is(**count)).map(|(offset, _)| offset).collect()
    };
    let (lost, repeated) = (which(|count| count == 0), which(|count| count > 1));
    for (what, offsets) in [("lost", &lost), ("there more than once", &repeated)] {
        if !offsets.is_empty() {
            let examples = &offsets[..offsets.len().min(EXAMPLES_MAX)];
            account.findings.push(format!("{topic}/{partition}: {} records {what}, e.g. {examples:?}", offsets.len()));
        }
    }
    account.lost += lost.len() as u64;
    account.repeated += repeated.len() as u64;
}

/// Rows of a question over one table of the lake, none when nothing has landed.
async fn rows(lake: &Lake, contract: &Contract, sql: &str) -> Result<Vec<RecordBatch>> {
    let Some(snapshot) = lake.snapshot(contract).await? else { return Ok(Vec::new()) };
    let context = SessionContext::new();
    context.register_table("t", snapshot.provider)?;
    Ok(context.sql(sql).await?.collect().await?)
}

/// The same, of two numbers.
async fn numbers(lake: &Lake, contract: &Contract, sql: &str) -> Result<Vec<(i64, i64)>> {
    pairs(&rows(lake, contract, sql).await?)
}

fn pairs(batches: &[RecordBatch]) -> Result<Vec<(i64, i64)>> {
    let mut pairs = Vec::new();
    for batch in batches {
        pairs.extend(column(batch, 0)?.into_iter().zip(column(batch, 1)?));
    }
    Ok(pairs)
}

/// A table that is asked much, read once: `t` in the session.
async fn in_memory(lake: &Lake, contract: &Contract) -> Result<SessionContext> {
    let context = SessionContext::new();
    let batches = rows(lake, contract, "SELECT * FROM t").await?;
    let schema = batches.first().map_or_else(|| contract.lake_schema(), RecordBatch::schema);
    context.register_table("t", Arc::new(MemTable::try_new(schema, vec![batches])?))?;
    Ok(context)
}

fn column(batch: &RecordBatch, at: usize) -> Result<Vec<i64>> {
    let column = cast(batch.column(at), &DataType::Int64)?;
    Ok(column.as_primitive::<Int64Type>().values().to_vec())
}

/// That each record of the writer has, at its offset, the content that the log has there.
async fn contents(log: &Arc<dyn Log>, lake: &Lake, contracts: &Contracts) -> Result<Vec<String>> {
    let contract = contracts.get(writer::TABLE).context("no such table")?;
    let sql =
        format!("SELECT kafka_partition, kafka_offset, balance_after_fen FROM t WHERE src = '{}'", writer::SOURCE);
    let mut landed: BTreeMap<(i64, i64), i64> = BTreeMap::new();
    for batch in rows(lake, contract, &sql).await? {
        let [partitions, offsets, numbers] = [column(&batch, 0)?, column(&batch, 1)?, column(&batch, 2)?];
        for at in 0..batch.num_rows() {
            landed.insert((partitions[at], offsets[at]), numbers[at]);
        }
    }
    let mut findings = Vec::new();
    for (place, number) in written(log, contract)? {
        match landed.get(&place) {
            Some(found) if *found != number => {
                findings.push(format!("{}/{}@{}: another record than in the log", contract.topic(), place.0, place.1));
            }
            _ => {}
        }
    }
    findings.truncate(EXAMPLES_MAX);
    Ok(findings)
}

/// The decodable records of the writer, by place.
fn written(log: &Arc<dyn Log>, contract: &Contract) -> Result<BTreeMap<(i64, i64), i64>> {
    let topic = contract.topic();
    let extents = log.extents(&topic)?;
    let total: i64 = extents.iter().map(|extent| extent.high - extent.low).sum();
    let position =
        |extent: &topic::Extent| Position { topic: topic.clone(), partition: extent.partition, offset: extent.low };
    let mut consumer = log.consumer(Subscription::Assign(extents.iter().map(position).collect()))?;
    let mut decoder = Decoder::new(contract)?;
    let (mut seen, deadline) = (0, Instant::now() + READ_MAX);
    let mut records = BTreeMap::new();
    while seen < total {
        ensure!(Instant::now() < deadline, "{topic} could not be read in time");
        let mut failure = None;
        seen += consumer.poll(8192, Duration::from_secs(1), &mut |record| {
            failure = decoder.push(record.partition, record.offset, record.value).err().or(failure.take());
        })? as i64;
        if let Some(error) = failure {
            return Err(error.into());
        }
        let (decoded, _) = decoder.finish()?;
        for part in decoded {
            let sources = part.batch.column_by_name("src").context("no source")?.as_string::<i32>().clone();
            let numbers = part.batch.column_by_name("balance_after_fen").context("no number")?;
            let numbers = numbers.as_primitive::<Int64Type>();
            for at in (0..part.batch.num_rows()).filter(|&at| sources.value(at) == writer::SOURCE) {
                let place = (i64::from(part.partitions.value(at)), part.offsets.value(at));
                records.insert(place, numbers.value(at));
            }
        }
    }
    Ok(records)
}

/// One version of a key: its change time, its place, and whether it deletes.
type Version = (Option<i64>, (i64, i64), bool);

/// The newest version of each key by the contract's ordering, then by place, without deletes; and how many versions came
/// after a newer one.
async fn latest(lake: &Lake, contract: &Contract) -> Result<(BTreeSet<(i64, i64)>, u64)> {
    let Some(snapshot) = lake.snapshot(contract).await? else { return Ok(Default::default()) };
    let context = SessionContext::new();
    context.register_table("t", snapshot.provider)?;
    let key: Vec<String> = contract.key.iter().map(|column| format!("CAST(\"{column}\" AS VARCHAR)")).collect();
    let sql = format!(
        "SELECT concat_ws('|', {}), CAST(src_updated_at AS BIGINT), kafka_partition, kafka_offset, op FROM t \
         ORDER BY kafka_partition, kafka_offset",
        key.join(", ")
    );
    let mut newest: BTreeMap<String, Version> = BTreeMap::new();
    let mut late = 0;
    for batch in context.sql(&sql).await?.collect().await? {
        let keys = cast(batch.column(0), &DataType::Utf8)?;
        let operations = cast(batch.column(4), &DataType::Utf8)?;
        let (keys, operations) = (keys.as_string::<i32>(), operations.as_string::<i32>());
        let updated = batch.column(1).as_primitive::<Int64Type>();
        let places = column(&batch, 2)?.into_iter().zip(column(&batch, 3)?);
        for (at, place) in places.enumerate() {
            let updated = (!updated.is_null(at)).then(|| updated.value(at));
            let version = (updated, place, operations.value(at) == "D");
            match newest.get(keys.value(at)) {
                Some((newer, ..)) if *newer > updated => late += 1,
                _ => drop(newest.insert(keys.value(at).to_string(), version)),
            }
        }
    }
    let is_there = |(_, place, is_deleted): Version| (!is_deleted).then_some(place);
    Ok((newest.into_values().filter_map(is_there).collect(), late))
}

/// That a table shows the newest versions, and nothing else.
fn differs(table: &str, latest: &BTreeSet<(i64, i64)>, shown: &BTreeSet<(i64, i64)>) -> Option<String> {
    let missing: Vec<_> = latest.difference(shown).collect();
    let wrong: Vec<_> = shown.difference(latest).collect();
    (missing.len() + wrong.len() > 0).then(|| {
        format!(
            "{table}: {} newest versions are not shown, e.g. {:?}; {} others are, e.g. {:?}",
            missing.len(),
            &missing[..missing.len().min(EXAMPLES_MAX)],
            wrong.len(),
            &wrong[..wrong.len().min(EXAMPLES_MAX)]
        )
    })
}

/// Commits whose time, by the clock of the process that made them, is none of the run.
async fn odd_times(lake: &Lake, contracts: &Contracts, time: Range<DateTime<Utc>>) -> Result<u64> {
    let contract = contracts.get("platform.ledger").context("no contract of the ledger")?;
    let times = numbers(lake, contract, "SELECT CAST(committed_at AS BIGINT), 0 FROM t").await?;
    let (from, to) = (time.start.timestamp_micros(), time.end.timestamp_micros());
    Ok(times.iter().filter(|(at, _)| !(from..to).contains(at)).count() as u64)
}

/// That the ledger's ranges of each partition follow each other from the first offset to the last, without gap or overlap.
async fn ledger(lake: &Lake, contracts: &Contracts, places: &Places) -> Result<Vec<String>> {
    let contract = contracts.get("platform.ledger").context("no contract of the ledger")?;
    let ledger = in_memory(lake, contract).await?;
    let mut findings = Vec::new();
    for ((topic, partition), counts) in places.iter().filter(|(_, counts)| !counts.is_empty()) {
        let sql = format!(
            "SELECT first_offset, next_offset FROM t WHERE topic = '{topic}' AND topic_partition = {partition} \
             ORDER BY first_offset"
        );
        let mut at = 0;
        for (first, next) in pairs(&ledger.sql(&sql).await?.collect().await?)? {
            if first != at {
                findings.push(format!("{topic}/{partition}: the ledger goes from {at} to {first}"));
            }
            at = next;
        }
        if at != counts.len() as i64 {
            findings.push(format!("{topic}/{partition}: the ledger ends at {at}, the log at {}", counts.len()));
        }
        let sql = format!(
            "SELECT next_offset - first_offset, row_count + letter_count FROM t WHERE topic = '{topic}' AND \
             topic_partition = {partition} AND row_count + letter_count <> next_offset - first_offset"
        );
        for (records, told) in pairs(&ledger.sql(&sql).await?.collect().await?)? {
            findings
                .push(format!("{topic}/{partition}: the ledger tells of {told} rows and letters of {records} records"));
        }
    }
    Ok(findings)
}
