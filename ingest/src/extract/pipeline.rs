//! One table's way from source rows to acknowledged records.
//!
//! A batch of text columns enters; records and dead letters are in the log when [`Pipeline::send`] returns. Rows that
//! `is_known` recognises are left out.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::max;
use arrow::datatypes::TimestampMicrosecondType;
use chrono::{DateTime, Utc};
use schemas::{Contract, Contracts, coerce, record};
use topic::{Log, Message, Watermark};

use crate::connector::{Connector, Spec, TableMapping};
use crate::error::Error;
use crate::extract::records;
use crate::functions::Surroundings;
use crate::letter::{self, Letter};
use crate::mapping::{Mapped, Mapping};
use crate::metrics;
use crate::refine::{self, MAPPED_ENVELOPE, Records, Refiner};

/// The pipeline of one table of one source.
pub struct Pipeline {
    pub source: String,
    pub table: TableMapping,
    sensitive: Vec<String>,
    mapping: Mapping,
    refiner: Refiner,
    letters: Refiner,
    log: Arc<dyn Log>,
}

/// What became of a batch.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    pub records: usize,
    pub letters: usize,
    pub repeats: usize,
    /// The newest time that a row of the source bears, never later than when it was received.
    pub newest: Option<DateTime<Utc>>,
}

/// A batch on its way: checked, not yet in the log.
pub struct Ready {
    pub records: Records,
    pub letters: Vec<Letter>,
    pub now: DateTime<Utc>,
    /// See [`Sent::newest`].
    pub newest: Option<DateTime<Utc>>,
}

impl Ready {
    /// A batch without rows.
    pub fn empty(contract: &Contract, now: DateTime<Utc>) -> Self {
        Self { records: Records::none(contract), letters: Vec::new(), now, newest: None }
    }
}

impl Pipeline {
    /// Checks the table's mapping and makes sure that its topics exist.
    ///
    /// # Errors
    /// `Settings` for a wrong mapping; `Log` when the topics cannot be made.
    pub async fn new(
        source: &str,
        connector: &Connector,
        table: &TableMapping,
        contracts: &Contracts,
        surroundings: &Surroundings,
        log: Arc<dyn Log>,
    ) -> Result<Self, Error> {
        let mapping = Mapping::new(&connector.name, table, surroundings)?;
        let declared = match &table.spec {
            Spec::Sql(_) => None,
            Spec::Files(read) => Some(read.input.keys().cloned().collect()),
            Spec::Http(pulled) => Some(pulled.input.keys().cloned().collect()),
            Spec::Kafka(read) => Some(read.columns()),
            Spec::Singer(read) => Some(read.columns()),
            Spec::Mqtt(subscribed) => Some(subscribed.columns()),
            Spec::PostgresCdc(read) => Some(read.columns()),
            Spec::Webhook(pushed) => Some(pushed.input.keys().cloned().collect::<Vec<_>>()),
        };
        if let Some(columns) = declared {
            check_output(&connector.name, table, &*mapping.output(&columns).await?)?;
        }
        Ok(Self {
            source: source.to_string(),
            table: table.clone(),
            sensitive: connector.sensitive.clone(),
            mapping,
            refiner: Refiner::new(table.contract.clone())?,
            letters: Refiner::new(letter::contract(contracts)?)?,
            log,
        })
    }

    pub fn contract(&self) -> &Arc<Contract> {
        self.refiner.contract()
    }

    /// Columns of a letter's row that are masked there and that the mapping reads.
    pub fn masked(&self, input: &RecordBatch) -> Vec<String> {
        let is_masked = |name: &str| {
            let text = input.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
            text.is_some_and(|text| text.iter().any(|value| value == Some(refine::MASK)))
        };
        let is_sensitive = |name: &str| self.sensitive.iter().any(|sensitive| sensitive.eq_ignore_ascii_case(name));
        let schema = input.schema();
        let names = schema.fields().iter().map(|field| field.name());
        names.filter(|name| is_sensitive(name) && is_masked(name) && self.mapping.reads(name)).cloned().collect()
    }

    /// Maps and refines a batch of source rows, received `now`.
    ///
    /// # Errors
    /// `Settings` when the mapping does not fit the source's columns.
    pub async fn prepare(&self, input: &RecordBatch, now: DateTime<Utc>) -> Result<Ready, Error> {
        let unreadable = refine::unreadable(&self.source, self.contract(), input, &self.sensitive);
        let input = &records::readable(input)?;
        let mapped = self.mapping.run(input).await?;
        check_output(&self.source, &self.table, &mapped.batch.schema())?;
        let (records, violations) = self.refiner.records(&self.source, &mapped, now)?;
        let mut letters = refine::letters(&self.source, self.contract(), input, &mapped, &violations, &self.sensitive);
        letters.extend(unreadable);
        let newest = newest(self.contract(), &records.batch, now);
        Ok(Ready { records, letters, now, newest })
    }

    /// Refines rows that are in the contract's own columns, as text: no mapping.
    ///
    /// # Errors
    /// As [`Pipeline::prepare`].
    pub fn prepare_mapped(&self, batch: RecordBatch, now: DateTime<Utc>) -> Result<Ready, Error> {
        let rows = (0..batch.num_rows()).collect();
        let mapped = Mapped { batch, rows, failed: Vec::new() };
        let (records, violations) = self.refiner.records(&self.source, &mapped, now)?;
        let letters =
            refine::letters(&self.source, self.contract(), &mapped.batch, &mapped, &violations, &self.sensitive);
        Ok(Ready { records, letters, now, newest: None })
    }

    /// Appends records and letters to the log. Blocks until every one is acknowledged; whoever has read up to what it gives
    /// has seen them.
    ///
    /// # Errors
    /// `Log` when some may not be there: send the batch again.
    pub fn send(&self, ready: &Ready) -> Result<Watermark, Error> {
        let mut appended = Watermark::default();
        if !ready.letters.is_empty() {
            let batch = letter::mapped(&ready.letters, ready.now)?;
            let rows = (0..batch.num_rows()).collect();
            let (records, violations) =
                self.letters.records(&self.source, &Mapped { batch, rows, failed: Vec::new() }, ready.now)?;
            if let Some(violation) = violations.first() {
                let what = format!("write a letter: {} {}", violation.field, violation.rule);
                return Err(Error::internal(what, violation.message.clone()));
            }
            appended = self.append(&self.letters, &records, ready.now)?;
        }
        appended.extend(&self.append(&self.refiner, &ready.records, ready.now)?);
        metrics::extracted(&self.source, &self.table.name, ready.records.len(), &ready.letters);
        Ok(appended)
    }

    fn append(&self, refiner: &Refiner, records: &Records, now: DateTime<Utc>) -> Result<Watermark, Error> {
        if records.is_empty() {
            return Ok(Watermark::default());
        }
        Ok(self.log.append(&refiner.contract().topic(), refiner.messages(records, now)?)?)
    }

    /// A record of [`Pipeline::prepare`] as a message.
    ///
    /// # Errors
    /// As [`Refiner::messages`].
    pub fn messages(&self, records: &Records, now: DateTime<Utc>) -> Result<Vec<Message>, Error> {
        self.refiner.messages(records, now)
    }
}

/// The newest time in a batch: when a row changed at its source, or else when what it tells happened. A source's clock may
/// be wrong, so a time that is still to come counts as `now`.
fn newest(contract: &Contract, records: &RecordBatch, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let columns = ["src_updated_at", contract.event_time.as_str()].into_iter();
    let times = columns.filter_map(|name| newest_of(records.column_by_name(name)?));
    times.max().map(|time| time.min(now))
}

/// The newest time of a column; `None` when it holds none that can be read.
fn newest_of(column: &ArrayRef) -> Option<DateTime<Utc>> {
    let times = coerce::values(column, &record::timestamp_type()).ok()?;
    max(times.as_primitive::<TimestampMicrosecondType>()).and_then(DateTime::from_timestamp_micros)
}

/// A mapped column that the contract does not know is a typing mistake that would lose data silently.
pub(crate) fn check_output(
    connector: &str,
    table: &TableMapping,
    schema: &arrow::datatypes::Schema,
) -> Result<(), Error> {
    let unknown = coerce::unknown_columns(&table.contract, schema, &MAPPED_ENVELOPE);
    if unknown.is_empty() {
        return Ok(());
    }
    let contract = table.contract.name();
    Err(Error::settings(format!("{connector}/{}.sql: no field of {contract}: {}", table.name, unknown.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::StringArray;

    #[test]
    fn the_newest_time_is_the_sources_and_never_to_come() {
        let check = |texts: Vec<Option<&str>>| {
            let column: ArrayRef = Arc::new(StringArray::from(texts));
            newest_of(&column).map(|time| time.to_rfc3339())
        };
        let latest = Some("2026-11-24T07:00:00.500+00:00".to_string());
        assert_eq!(
            check(vec![Some("2026-11-23T23:00:00Z"), None, Some("2026-11-24T07:00:00.5Z"), Some("soon")]),
            latest
        );
        assert_eq!(check(vec![None, Some("soon")]), None);
        let contract = schemas::Contracts::load(std::path::Path::new("../schemas")).expect("contracts");
        let contract = contract.get("academic.grade").expect("grades").clone();
        let column: ArrayRef = Arc::new(StringArray::from(vec!["2099-01-01T00:00:00Z"]));
        let batch = RecordBatch::try_from_iter([("src_updated_at", column)]).expect("a batch");
        let now = DateTime::from_timestamp_micros(1_795_500_000_000_000).expect("a time");
        assert_eq!(newest(&contract, &batch, now), Some(now));
    }
}
