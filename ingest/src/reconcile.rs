//! Holding a source against the lake: what it has now, and what the lake says it has.
//!
//! A source's table enters, asked for all its rows, and the same table in the lake; counts and checksums by day leave, for
//! both. A checksum is the sum of the rows' content hashes, so that it tells a changed row from an equal one and does not
//! depend on any order. Nothing is written.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Int64Type};
use chrono::{NaiveDate, Utc};
use chrono_tz::Tz;
use datafusion::prelude::{SessionContext, col, lit};
use futures::StreamExt;
use lake::Lake;
use schemas::rows::local_day;
use schemas::{Contract, Encoder};

use crate::connector::{Connector, TableMapping};
use crate::error::{Error, ErrorKind};
use crate::extract::records;
use crate::extract::source::{self, Worker};
use crate::functions::Surroundings;
use crate::mapping::Mapping;
use crate::refine::Refiner;
use crate::settings::{ExtractSettings, SourceSettings};

/// Rows of one day, and the sum of their content hashes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    pub rows: u64,
    pub checksum: u64,
}

/// Sums by local day of the event time; `None` holds the rows that have none.
pub type Days = BTreeMap<Option<NaiveDate>, Sum>;

/// What a source has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AtSource {
    pub days: Days,
    /// Rows that break the contract: they are dead letters, not rows of the table.
    pub rejected: u64,
}

/// The current version of each key: about 48 bytes a key.
struct Current {
    encoder: Encoder,
    contract: Arc<Contract>,
    timezone: Tz,
    keys: HashMap<u64, Version>,
    received: i64,
}

struct Version {
    /// What decides between versions: the ordering column, then the order of arrival.
    order: (i64, i64),
    is_delete: bool,
    hash: u64,
    day: Option<i32>,
}

impl Current {
    fn new(contract: &Arc<Contract>, timezone: Tz) -> Self {
        let (encoder, contract) = (Encoder::new(contract.clone()), contract.clone());
        Self { encoder, contract, timezone, keys: HashMap::new(), received: 0 }
    }

    /// Takes records, or rows of the lake with their offsets.
    fn add(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        let column = |name: &str| {
            let column = batch.column_by_name(name);
            column.ok_or_else(|| Error::internal("reconcile", format!("no column {name}")))
        };
        let number = |name: &str| {
            let array = cast(column(name)?, &DataType::Int64);
            array
                .map(|array| array.as_primitive::<Int64Type>().clone())
                .map_err(|error| Error::internal("reconcile", error))
        };
        let ordering = number(&self.contract.ordering[0])?;
        let offsets = batch.column_by_name("kafka_offset").map(|_| number("kafka_offset")).transpose()?;
        let days = local_day(column(&self.contract.event_time)?, self.timezone);
        let (operations, hashes) = (column("op")?.as_string::<i32>(), column("raw_hash")?.as_string::<i32>());
        for (row, key) in self.encoder.keys(batch)?.iter().enumerate() {
            self.received += 1;
            let arrived = offsets.as_ref().map_or(self.received, |offsets| offsets.value(row));
            let order = (if ordering.is_valid(row) { ordering.value(row) } else { i64::MIN }, arrived);
            let mut hasher = DefaultHasher::new();
            key.hash(&mut hasher);
            let version = Version {
                order,
                is_delete: operations.value(row) == "D",
                // The hash is hexadecimal; its first 64 bits are as good as all.
                hash: u64::from_str_radix(hashes.value(row).get(..16).unwrap_or_default(), 16).unwrap_or_default(),
                day: days.is_valid(row).then(|| days.value(row)),
            };
            match self.keys.entry(hasher.finish()) {
                Entry::Occupied(known) if version.order < known.get().order => {}
                entry => {
                    entry.insert_entry(version);
                }
            }
        }
        Ok(())
    }

    fn days(&self) -> Days {
        let mut days = Days::new();
        for version in self.keys.values().filter(|version| !version.is_delete) {
            let sum = days.entry(version.day.and_then(Date32Type::to_naive_date_opt)).or_default();
            sum.rows += 1;
            sum.checksum = sum.checksum.wrapping_add(version.hash);
        }
        days
    }
}

/// Asks a source for all rows of one of its tables. Blocks, but for the mapping, which runs on `handle`.
///
/// # Errors
/// `Source` when it does not answer, `Settings` when its mapping does not fit.
pub fn at_source(
    extract: &ExtractSettings,
    id: &str,
    settings: &SourceSettings,
    connector: &Connector,
    table: &TableMapping,
    timezone: Tz,
    handle: &tokio::runtime::Handle,
) -> Result<AtSource, Error> {
    let surroundings = Surroundings::of(connector, extract, timezone);
    let mapping = Mapping::new(&connector.name, table, &surroundings)?;
    let refiner = Refiner::new(table.contract.clone())?;
    let mut current = Current::new(&table.contract, timezone);
    let mut rejected = 0;
    let worker = Worker::alone(extract, handle.clone()).in_timezone(timezone);
    source::connect(connector, settings, &worker)?.pull(table, &[], &mut |input, _| {
        if input.num_rows() == 0 {
            return Ok(());
        }
        let readable = records::readable(&input)?;
        rejected += (input.num_rows() - readable.num_rows()) as u64;
        let mapped = worker.block_on(mapping.run(&readable))??;
        let (records, violations) = refiner.records(id, &mapped, Utc::now())?;
        rejected += (violations.len() + mapped.failed.len()) as u64;
        current.add(&records.batch)
    })?;
    Ok(AtSource { days: current.days(), rejected })
}

/// What the lake has of a source's rows in one table.
///
/// # Errors
/// `Lake` when it cannot be read.
pub async fn in_lake(lake: &Lake, contract: &Arc<Contract>, source: &str, timezone: Tz) -> Result<Days, Error> {
    let failed = |error: datafusion::error::DataFusionError| Error {
        kind: ErrorKind::Lake,
        message: format!("could not read {}", contract.name()),
        source: Some(Box::new(error)),
    };
    let Some(snapshot) = lake.snapshot(contract).await? else { return Ok(Days::new()) };
    let mut names: Vec<&str> = contract.key.iter().map(String::as_str).collect();
    for name in [contract.event_time.as_str(), &contract.ordering[0], "kafka_offset", "op", "raw_hash"] {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let columns: Vec<_> = names.into_iter().map(col).collect();
    let frame = SessionContext::new().read_table(snapshot.provider);
    let frame = frame.and_then(|frame| frame.filter(col("src").eq(lit(source)))?.select(columns)).map_err(failed)?;
    let mut stream = frame.execute_stream().await.map_err(failed)?;
    let mut current = Current::new(contract, timezone);
    while let Some(batch) = stream.next().await {
        current.add(&plain(&batch.map_err(failed)?)?)?;
    }
    Ok(current.days())
}

/// Text columns as plain text, however the scan gave them.
fn plain(batch: &RecordBatch) -> Result<RecordBatch, Error> {
    let column = |column: &Arc<dyn Array>| match column.data_type() {
        DataType::Utf8View | DataType::LargeUtf8 => cast(column, &DataType::Utf8),
        _ => Ok(column.clone()),
    };
    let columns: Result<Vec<_>, _> = batch.columns().iter().map(column).collect();
    let named = batch.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    let batch = columns.and_then(|columns| RecordBatch::try_from_iter(named.into_iter().zip(columns)));
    batch.map_err(|error| Error::internal("reconcile", error))
}
