//! The verdict: the whole log, read by itself, against the lake.
//!
//! A log and a lake enter; what is missing, stands twice or differs leaves, in words. It asks neither landing nor the
//! query service: positions, rows and letters are counted from the topics and the tables' files.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
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
    /// What is wrong, in words, with examples.
    pub findings: Vec<String>,
}

/// Where each record of a partition went: counts by offset.
type Places = BTreeMap<(String, i32), Vec<u32>>;

/// Holds the log against the lake.
///
/// # Errors
/// One of them cannot be read.
pub async fn check(log: &Arc<dyn Log>, lake: &Lake, contracts: &Contracts) -> Result<Account> {
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
    let letters = contracts.get("platform.dead_letter").context("no contract of letters")?;
    for contract in contracts.iter() {
        let topic = contract.topic();
        let sql = format!("SELECT letter_partition, letter_offset FROM t WHERE stage = 'land' AND topic = '{topic}'");
        for (partition, offset) in numbers(lake, letters, &sql).await? {
            account.letters += 1;
            put(&mut places, &topic, partition, offset, &mut account.findings);
        }
    }
    for ((topic, partition), counts) in &places {
        tell(&mut account, topic, *partition, counts);
    }
    account.findings.extend(contents(log, lake, contracts).await?);
    account.findings.extend(ledger(lake, contracts, &places).await?);
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
    let mut pairs = Vec::new();
    for batch in rows(lake, contract, sql).await? {
        let columns = [column(&batch, 0)?, column(&batch, 1)?];
        pairs.extend(columns[0].iter().copied().zip(columns[1].iter().copied()));
    }
    Ok(pairs)
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

/// That the ledger's ranges of each partition follow each other from the first offset to the last, without gap or overlap.
async fn ledger(lake: &Lake, contracts: &Contracts, places: &Places) -> Result<Vec<String>> {
    let contract = contracts.get("platform.ledger").context("no contract of the ledger")?;
    let mut findings = Vec::new();
    for ((topic, partition), counts) in places.iter().filter(|(_, counts)| !counts.is_empty()) {
        let sql = format!(
            "SELECT first_offset, next_offset FROM t WHERE topic = '{topic}' AND topic_partition = {partition} \
             ORDER BY first_offset"
        );
        let mut at = 0;
        for (first, next) in numbers(lake, contract, &sql).await? {
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
        for (records, told) in numbers(lake, contract, &sql).await? {
            findings
                .push(format!("{topic}/{partition}: the ledger tells of {told} rows and letters of {records} records"));
        }
    }
    Ok(findings)
}
