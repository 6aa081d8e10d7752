//! Mapped rows → records ready for the log, and dead letters.
//!
//! Enters: mapped columns, the source rows they came from, and who sends them when. Leaves: for each good row an Avro
//! message with its key, and for each bad one a letter with the field and the rule it broke. Every row that enters
//! leaves as exactly one of the two.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::{CastOptions, cast_with_options, filter, filter_record_batch};
use arrow::datatypes::{DataType, Schema, TimestampMicrosecondType};
use chrono::{DateTime, Utc};
use schemas::{Checker, Contract, Encoder, Violation, coerce, record};
use topic::Message;

use crate::error::Error;
use crate::extract::records;
use crate::letter::{Letter, Stage};
use crate::mapping::Mapped;

/// Envelope columns that a mapping may give.
pub const MAPPED_ENVELOPE: [&str; 3] = ["op", "src_updated_at", "src_key"];

/// What stands for a sensitive value in a letter.
pub const MASK: &str = "***";

/// Turns mapped rows of one contract into records.
pub struct Refiner {
    contract: Arc<Contract>,
    checker: Checker,
    encoder: Encoder,
}

/// Good rows in the contract's record schema, and the source row of each.
#[derive(Debug)]
pub struct Records {
    pub batch: RecordBatch,
    /// The contract's key of each, joined by `|`.
    pub keys: StringArray,
    pub rows: Vec<usize>,
}

/// One record for the log.
#[derive(Debug, Clone)]
pub struct Refined {
    /// The contract's key, joined by `|`.
    pub key: String,
    /// The content hash: equal rows are equal, whenever they come.
    pub hash: String,
    /// When the row changed at its source, in microseconds since 1970.
    pub updated_us: Option<i64>,
    pub is_delete: bool,
    pub value: bytes::Bytes,
    /// The source row it came from.
    pub row: usize,
}

impl Refined {
    /// As a message of the log.
    pub fn message(&self, now: DateTime<Utc>) -> Message {
        Message { key: self.key.clone().into(), value: self.value.clone(), timestamp_ms: now.timestamp_millis() }
    }
}

impl Refiner {
    /// # Errors
    /// `Settings` when a rule of the contract does not compile.
    pub fn new(contract: Arc<Contract>) -> Result<Self, Error> {
        Ok(Self { checker: Checker::new(&contract)?, encoder: Encoder::new(contract.clone()), contract })
    }

    pub fn contract(&self) -> &Arc<Contract> {
        &self.contract
    }

    /// Types and checks one batch of `source`, received `now`. The violations name rows of `mapped.batch`.
    ///
    /// # Errors
    /// `Settings` when a mapped column has a type that no field can be made of.
    pub fn records(
        &self,
        source: &str,
        mapped: &Mapped,
        now: DateTime<Utc>,
    ) -> Result<(Records, Vec<Violation>), Error> {
        let (fields, coerced) = coerce::coerce(&self.contract, &mapped.batch)?;
        let keys = self.keys(&fields, mapped.batch.num_rows())?;
        let (envelope, operations) = self.envelope(source, mapped, &fields, &keys, now)?;
        let batch = self.record(fields, envelope)?;
        let mut violations: BTreeMap<usize, Violation> = BTreeMap::new();
        for violation in coerced.into_iter().chain(operations).chain(self.checker.check(&batch)?) {
            violations.entry(violation.row).or_insert(violation);
        }
        let is_good: Vec<bool> = (0..batch.num_rows()).map(|row| !violations.contains_key(&row)).collect();
        let rows = mapped.rows.iter().zip(&is_good).filter(|(_, good)| **good).map(|(row, _)| *row).collect();
        let is_good = BooleanArray::from(is_good);
        let aside = |error| Error::internal("set bad rows aside", error);
        let good = filter_record_batch(&batch, &is_good).map_err(aside)?;
        let keys = filter(&keys, &is_good).map_err(aside)?.as_string().clone();
        let batch = RecordBatch::try_new(self.contract.record_schema(), good.columns().to_vec())
            .map_err(|error| Error::internal("put good rows together", error))?;
        Ok((Records { batch, keys, rows }, violations.into_values().collect()))
    }

    /// As [`Refiner::records`], encoded for the log.
    ///
    /// # Errors
    /// As [`Refiner::records`].
    pub fn refine(
        &self,
        source: &str,
        mapped: &Mapped,
        now: DateTime<Utc>,
    ) -> Result<(Vec<Refined>, Vec<Violation>), Error> {
        let (records, violations) = self.records(source, mapped, now)?;
        let values = self.encoder.values(&records.batch)?;
        let hashes = records.batch.column_by_name("raw_hash").expect("the envelope has a hash").as_string::<i32>();
        let operations = records.batch.column_by_name("op").expect("the envelope has an operation").as_string::<i32>();
        let updated = records.batch.column_by_name("src_updated_at").expect("the envelope has a change time");
        let updated = updated.as_primitive::<TimestampMicrosecondType>();
        let refined = values.iter().enumerate().map(|(at, value)| Refined {
            key: records.keys.value(at).to_string(),
            hash: hashes.value(at).to_string(),
            updated_us: updated.is_valid(at).then(|| updated.value(at)),
            is_delete: operations.value(at) == "D",
            value,
            row: records.rows[at],
        });
        Ok((refined.collect(), violations))
    }

    /// The envelope's columns, and the rows whose operation is none.
    fn envelope(
        &self,
        source: &str,
        mapped: &Mapped,
        fields: &[ArrayRef],
        keys: &StringArray,
        now: DateTime<Utc>,
    ) -> Result<(Vec<ArrayRef>, Vec<Violation>), Error> {
        let batch = &mapped.batch;
        let rows = batch.num_rows();
        let text = |value: &str| Arc::new(StringArray::from(vec![value; rows])) as ArrayRef;
        let (op, violations) = operation(batch)?;
        let updated = match batch.column_by_name("src_updated_at") {
            Some(column) => cast(column, &record::timestamp_type())?,
            None => arrow::array::new_null_array(&record::timestamp_type(), rows),
        };
        let key = match batch.column_by_name("src_key") {
            Some(column) => cast(column, &DataType::Utf8)?,
            None => Arc::new(keys.clone()),
        };
        let named = self.contract.fields.iter().map(|field| field.name.clone()).zip(fields.iter().cloned());
        let hashes = self.encoder.hashes(&named.chain([("op".to_string(), op.clone())]).collect::<Vec<_>>())?;
        let ingested = TimestampMicrosecondArray::from(vec![now.timestamp_micros(); rows]).with_timezone("UTC");
        Ok((vec![text(source), key, op, updated, Arc::new(ingested), Arc::new(hashes)], violations))
    }

    fn keys(&self, fields: &[ArrayRef], rows: usize) -> Result<StringArray, Error> {
        let schema = self.contract.record_schema();
        let nullable =
            schema.fields().iter().take(fields.len()).map(|field| field.as_ref().clone().with_nullable(true));
        let batch = RecordBatch::try_new(Arc::new(Schema::new(nullable.collect::<Vec<_>>())), fields.to_vec())
            .map_err(|error| Error::internal(format!("key {rows} rows"), error))?;
        Ok(StringArray::from(self.encoder.keys(&batch)?))
    }

    /// Fields and envelope as one batch in which everything may still be null.
    fn record(&self, fields: Vec<ArrayRef>, envelope: Vec<ArrayRef>) -> Result<RecordBatch, Error> {
        let schema = self.contract.record_schema();
        let nullable = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let columns = fields.into_iter().chain(envelope).collect();
        RecordBatch::try_new(Arc::new(Schema::new(nullable.collect::<Vec<_>>())), columns)
            .map_err(|error| Error::internal("put a record together", error))
    }
}

/// `op` as mapped, `I` where it says nothing; anything but I, U and D is a violation.
fn operation(batch: &RecordBatch) -> Result<(ArrayRef, Vec<Violation>), Error> {
    let Some(column) = batch.column_by_name("op") else {
        return Ok((Arc::new(StringArray::from(vec!["I"; batch.num_rows()])), Vec::new()));
    };
    let column = cast(column, &DataType::Utf8)?;
    let mut violations = Vec::new();
    let mut operations = Vec::with_capacity(column.len());
    for (row, value) in column.as_string::<i32>().iter().enumerate() {
        let op = value.unwrap_or("I").trim().to_uppercase();
        if !matches!(op.as_str(), "I" | "U" | "D") {
            let message = "an operation is I, U or D".to_string();
            violations.push(Violation { row, field: "op".into(), rule: "values".into(), message });
        }
        operations.push(op);
    }
    Ok((Arc::new(StringArray::from(operations)), violations))
}

fn cast(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, Error> {
    let options = CastOptions { safe: true, ..CastOptions::default() };
    cast_with_options(column, to, &options).map_err(|error| Error::internal("read an envelope column", error))
}

/// The letters of a batch: each violation with its source row, `sensitive` columns masked.
pub fn letters(
    source: &str,
    target: &Contract,
    input: &RecordBatch,
    mapped: &Mapped,
    violations: &[Violation],
    sensitive: &[String],
) -> Vec<Letter> {
    let letter = |violation: &Violation| Letter {
        stage: Stage::Extract,
        source: source.to_string(),
        target: target.name(),
        place: None,
        rule: violation.rule.clone(),
        field: violation.field.clone(),
        message: violation.message.clone(),
        bytes: row_json(input, mapped.rows[violation.row], sensitive),
    };
    // The engine's own words would quote the value.
    let failed = |row: &usize| Letter {
        stage: Stage::Extract,
        source: source.to_string(),
        target: target.name(),
        place: None,
        rule: "mapping".to_string(),
        field: String::new(),
        message: "the mapping could not compute this row, see its casts and arithmetic".to_string(),
        bytes: row_json(input, *row, sensitive),
    };
    violations.iter().map(letter).chain(mapped.failed.iter().map(failed)).collect()
}

/// The letters of the rows that the source could not read, see [`records::UNREADABLE`].
pub fn unreadable(source: &str, target: &Contract, input: &RecordBatch, sensitive: &[String]) -> Vec<Letter> {
    let errors = input.column_by_name(records::UNREADABLE).and_then(|column| column.as_string_opt::<i32>());
    let errors = errors.into_iter().flat_map(|errors| errors.iter().enumerate());
    // Nobody knows where in it the sensitive values are.
    let mut masked = sensitive.to_vec();
    if !masked.is_empty() {
        masked.push(records::UNREADABLE_VALUE.to_string());
    }
    let letter = |(row, error): (usize, Option<&str>)| {
        Some(Letter {
            stage: Stage::Extract,
            source: source.to_string(),
            target: target.name(),
            place: None,
            rule: "format".to_string(),
            field: String::new(),
            message: error?.to_string(),
            bytes: row_json(input, row, &masked),
        })
    };
    errors.filter_map(letter).collect()
}

/// A source row as JSON, with what is sensitive masked.
pub fn row_json(input: &RecordBatch, row: usize, sensitive: &[String]) -> String {
    let mut object = serde_json::Map::new();
    for (field, column) in input.schema().fields().iter().zip(input.columns()) {
        let text = column.as_string_opt::<i32>().filter(|text| text.is_valid(row)).map(|text| text.value(row));
        let is_sensitive = sensitive.iter().any(|name| name.eq_ignore_ascii_case(field.name()));
        let value = match text {
            Some(_) if is_sensitive => MASK.into(),
            Some(text) => text.into(),
            None => serde_json::Value::Null,
        };
        object.insert(field.name().clone(), value);
    }
    serde_json::Value::Object(object).to_string()
}
