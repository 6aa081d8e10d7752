//! Mapped rows → records ready for the log, and dead letters.
//!
//! Enters: mapped columns, the source rows they came from, and who sends them when. Leaves: each good row as a record,
//! and as an Avro message with its key once it is to be sent; for each bad one a letter with the field and the rule it
//! broke. Every row that enters leaves as exactly one of the two.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::{filter, filter_record_batch};
use arrow::datatypes::{DataType, Schema, TimestampMicrosecondType};
use bytes::Bytes;
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

/// What tells one version of a row from another.
#[derive(Debug, Clone, Copy)]
pub struct Version<'a> {
    pub key: &'a str,
    /// The content hash: equal rows are equal, whenever they come.
    pub hash: &'a str,
    /// When the row changed at its source, in microseconds since 1970.
    pub updated_us: Option<i64>,
    pub is_delete: bool,
}

impl Records {
    /// None, of `contract`.
    pub fn none(contract: &Contract) -> Self {
        let batch = RecordBatch::new_empty(contract.record_schema());
        Self { batch, keys: StringArray::new_null(0), rows: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The version that each is.
    pub fn versions(&self) -> impl ExactSizeIterator<Item = Version<'_>> {
        let column = |name| self.batch.column_by_name(name).expect("a record has its envelope");
        let (hashes, operations) = (column("raw_hash").as_string::<i32>(), column("op").as_string::<i32>());
        let updated = column("src_updated_at").as_primitive::<TimestampMicrosecondType>();
        (0..self.len()).map(move |at| Version {
            key: self.keys.value(at),
            hash: hashes.value(at),
            updated_us: updated.is_valid(at).then(|| updated.value(at)),
            is_delete: operations.value(at) == "D",
        })
    }

    /// Those that are wanted.
    ///
    /// # Errors
    /// `Internal`, which no record can cause.
    pub fn select(&self, is_wanted: &BooleanArray) -> Result<Self, Error> {
        let aside = |error| Error::internal("set rows aside", error);
        let batch = filter_record_batch(&self.batch, is_wanted).map_err(aside)?;
        let keys = filter(&self.keys, is_wanted).map_err(aside)?.as_string().clone();
        let rows = self.rows.iter().zip(is_wanted.values()).filter(|(_, is_wanted)| *is_wanted);
        Ok(Self { batch, keys, rows: rows.map(|(row, _)| *row).collect() })
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
        let keys = self.keys(&fields)?;
        let (envelope, operations) = self.envelope(source, mapped, &fields, &keys, now)?;
        let batch = self.record(fields, envelope)?;
        let mut violations: BTreeMap<usize, Violation> = BTreeMap::new();
        for violation in coerced.into_iter().chain(operations).chain(self.checker.check(&batch)?) {
            violations.entry(violation.row).or_insert(violation);
        }
        let mut good = Records { batch, keys, rows: mapped.rows.clone() };
        if !violations.is_empty() {
            let is_good = (0..good.len()).map(|row| Some(!violations.contains_key(&row)));
            good = good.select(&is_good.collect())?;
        }
        let Records { batch, keys, rows } = good;
        let batch = RecordBatch::try_new(self.encoder.schema().clone(), batch.columns().to_vec())
            .map_err(|error| Error::internal("put good rows together", error))?;
        Ok((Records { batch, keys, rows }, violations.into_values().collect()))
    }

    /// Records as messages of their topic.
    ///
    /// # Errors
    /// `Internal`, which no record can cause.
    pub fn messages(&self, records: &Records, now: DateTime<Utc>) -> Result<Vec<Message>, Error> {
        let timestamp_ms = now.timestamp_millis();
        let values = self.encoder.values(&records.batch)?;
        let keys = Bytes::copy_from_slice(records.keys.values());
        let places = records.keys.value_offsets().windows(2).map(|ends| ends[0] as usize..ends[1] as usize);
        let message = |(place, value)| Message { key: keys.slice(place), value, timestamp_ms };
        Ok(places.zip(values.iter()).map(message).collect())
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
        let hashes = self.encoder.hashes(fields, &op)?;
        let ingested = TimestampMicrosecondArray::from(vec![now.timestamp_micros(); rows]).with_timezone("UTC");
        Ok((vec![text(source), key, op, updated, Arc::new(ingested), Arc::new(hashes)], violations))
    }

    fn keys(&self, fields: &[ArrayRef]) -> Result<StringArray, Error> {
        Ok(self.encoder.keys(&self.nullable(fields.to_vec())?)?)
    }

    /// Fields and envelope as one batch.
    fn record(&self, fields: Vec<ArrayRef>, envelope: Vec<ArrayRef>) -> Result<RecordBatch, Error> {
        self.nullable(fields.into_iter().chain(envelope).collect())
    }

    /// The first columns of a record, in which everything may still be null.
    fn nullable(&self, columns: Vec<ArrayRef>) -> Result<RecordBatch, Error> {
        let fields = self.encoder.schema().fields().iter().take(columns.len());
        let nullable = fields.map(|field| field.as_ref().clone().with_nullable(true));
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
    coerce::values(column, to).map_err(|error| Error::internal("read an envelope column", error))
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
