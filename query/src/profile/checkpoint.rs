//! The newest profiles in one file of the lake, for the time after a start: until new ones are computed, the old ones are answered
//! with. Profiles enter and leave as rows of a Parquet file, items packed, with what they are of beside them.
//!
//! It has what the lake's tables have, class 3 included, and is for Quad alone: others read `profile.student`. It is never truth:
//! a file of other definitions or of another format, and one that is too old, is as good as none.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::error::Result;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::metadata::KeyValue;
use datafusion::parquet::file::properties::WriterProperties;
use lake::Lake;
use prost::bytes::Bytes;
use sha2::{Digest, Sha256};
use topic::Watermark;

use super::compute::Computer;
use super::definition::Definitions;
use super::packed::ItemValues;
use super::store::{Person, Profiles};
use crate::error::{Error, ErrorKind};
use crate::snapshot::Snapshot;

/// Where it is, below the lake's root.
const FOLDER: &str = "_profile";
const FILE: &str = "checkpoint.parquet";

/// Changes with what a file holds and how items are packed.
const FORMAT: &str = "1";

/// Rows that are made at a time.
const ROWS_MAX: usize = 8 * 1024;

/// Who has several numbers has them in one text.
const BETWEEN_NUMBERS: &str = "\n";

/// What a file is of.
mod key {
    pub const DEFINITIONS: &str = "quad.definitions";
    pub const COMPUTED_AT: &str = "quad.computed_at_us";
    pub const SNAPSHOT: &str = "quad.snapshot";
    pub const WATERMARK: &str = "quad.watermark";
}

/// Names definitions and the zone of their days: others have another name.
pub fn name(definitions: &Definitions, timezone: &str) -> String {
    let digest = Sha256::digest(format!("{FORMAT}{timezone}{definitions:?}"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Profiles that were read from a file.
pub struct Checkpoint {
    pub persons: Vec<Arc<Person>>,
    /// Microseconds UTC.
    pub computed_at: i64,
    /// What they were computed from.
    pub snapshot: u64,
    pub watermark: Watermark,
}

/// Writes profiles.
///
/// # Errors
/// `Unavailable` when the lake cannot be written to; the file is then what it was.
pub async fn write(lake: &Lake, profiles: &Arc<Profiles>) -> Result<(), Error> {
    let of = profiles.clone();
    let bytes = tokio::task::spawn_blocking(move || encode(&of)).await;
    let bytes = bytes.expect("encoding does not panic")?;
    lake.write_file(FOLDER, FILE, bytes.into()).await.map_err(|error| {
        let hint = "let this process write there, or set query.profile_checkpoint_every_s to 0".to_string();
        Error { kind: ErrorKind::Unavailable, message: error.message, hint: Some(hint), source: error.source }
    })
}

/// The profiles of the definitions that `computer` computes by, if they are there and were computed after `since` (microseconds UTC).
///
/// # Errors
/// `Unavailable` when the lake does not answer, `Internal` for a file that is damaged.
pub async fn read(lake: &Lake, computer: &Computer, since: i64) -> Result<Option<Checkpoint>, Error> {
    let bytes = lake.read_file(FOLDER, FILE).await.map_err(|error| Error {
        kind: ErrorKind::Unavailable,
        message: error.message,
        hint: None,
        source: error.source,
    })?;
    let Some(bytes) = bytes else { return Ok(None) };
    let (items, definitions) = (computer.items().len(), computer.name().clone());
    let decoded = tokio::task::spawn_blocking(move || decode(bytes, items, &definitions, since)).await;
    // Bytes that a library stumbles over are damaged too.
    decoded.unwrap_or_else(|error| Err(damaged().with_source(error)))
}

fn encode(profiles: &Profiles) -> Result<Vec<u8>> {
    let value = |key: &str, value: String| KeyValue { key: key.to_string(), value: Some(value) };
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_dictionary_enabled(false)
        .set_key_value_metadata(Some(vec![
            value(key::DEFINITIONS, profiles.definitions.to_string()),
            value(key::COMPUTED_AT, profiles.computed_at.to_string()),
            value(key::SNAPSHOT, profiles.snapshot.id.to_string()),
            value(key::WATERMARK, profiles.watermark.clone()),
        ]))
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch(&[])?.schema(), Some(properties))?;
    for persons in profiles.persons.chunks(ROWS_MAX) {
        writer.write(&batch(persons)?)?;
    }
    Ok(writer.into_inner()?)
}

/// The columns of some persons.
fn batch(persons: &[Arc<Person>]) -> Result<RecordBatch> {
    let text = |of: fn(&Person) -> Option<&str>| -> ArrayRef {
        Arc::new(persons.iter().map(|person| of(person)).collect::<StringArray>())
    };
    let numbers = persons.iter().map(|person| Some(person.student_nos.join(BETWEEN_NUMBERS)));
    let items = persons.iter().map(|person| Some(person.items.as_bytes()));
    let versions = persons.iter().map(|person| Some(person.version.cast_signed()));
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("person_id", text(|person| Some(&person.id)), false),
        ("student_nos", Arc::new(numbers.collect::<StringArray>()), false),
        ("version", Arc::new(versions.collect::<Int64Array>()), false),
        ("items", Arc::new(items.collect::<BinaryArray>()), false),
        ("class_id", text(|person| person.class_id.as_deref()), true),
        ("college_id", text(|person| person.college_id.as_deref()), true),
        ("building_id", text(|person| person.building_id.as_deref()), true),
        ("counselor_staff_no", text(|person| person.counselor_staff_no.as_deref()), true),
        ("grade_year", Arc::new(persons.iter().map(|person| person.grade_year).collect::<Int64Array>()), true),
    ])?)
}

fn decode(file: Bytes, items: usize, definitions: &str, since: i64) -> Result<Option<Checkpoint>, Error> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| damaged().with_source(error))?;
    let of = builder.metadata().file_metadata().key_value_metadata();
    let value = |key: &str| of.into_iter().flatten().find(|of| of.key == key).and_then(|of| of.value.as_deref());
    if value(key::DEFINITIONS) != Some(definitions) {
        return Ok(None);
    }
    let computed_at: i64 = value(key::COMPUTED_AT).and_then(|at| at.parse().ok()).ok_or_else(damaged)?;
    if computed_at < since {
        return Ok(None);
    }
    let snapshot = value(key::SNAPSHOT).and_then(|id| id.parse().ok()).ok_or_else(damaged)?;
    let watermark = value(key::WATERMARK).and_then(|token| token.parse().ok()).ok_or_else(damaged)?;
    let is_ours = builder.schema().fields() == batch(&[])?.schema().fields();
    let mut persons = Vec::new();
    for batch in builder.with_batch_size(ROWS_MAX).build().map_err(|error| damaged().with_source(error))? {
        let batch = batch.map_err(|error| damaged().with_source(error))?;
        persons.extend(self::persons(&batch, items).filter(|_| is_ours).ok_or_else(damaged)?);
    }
    Ok(Some(Checkpoint { persons, computed_at, snapshot, watermark }))
}

/// The persons of a batch of [`batch`]; none of other bytes.
fn persons(batch: &RecordBatch, items: usize) -> Option<Vec<Arc<Person>>> {
    let [ids, numbers, versions, packed, classes, colleges, buildings, counselors, years] = batch.columns() else {
        return None;
    };
    let texts = [ids, numbers, classes, colleges, buildings, counselors].map(|column| column.as_string_opt::<i32>());
    let [Some(ids), Some(numbers), Some(classes), Some(colleges), Some(buildings), Some(counselors)] = texts else {
        return None;
    };
    let (versions, years) = (versions.as_primitive_opt::<Int64Type>()?, years.as_primitive_opt::<Int64Type>()?);
    let packed = packed.as_binary_opt::<i32>()?;
    let text = |of: &StringArray, row: usize| of.is_valid(row).then(|| of.value(row).to_string());
    let person = |row: usize| {
        let numbers = numbers.value(row).split(BETWEEN_NUMBERS).filter(|number| !number.is_empty());
        Some(Arc::new(Person {
            id: ids.value(row).into(),
            student_nos: numbers.map(Arc::from).collect(),
            version: versions.value(row).cast_unsigned(),
            items: ItemValues::of_bytes(packed.value(row), items)?,
            class_id: text(classes, row),
            college_id: text(colleges, row),
            building_id: text(buildings, row),
            counselor_staff_no: text(counselors, row),
            grade_year: years.is_valid(row).then(|| years.value(row)),
            changed_in: 1,
        }))
    };
    (0..batch.num_rows()).map(person).collect()
}

fn damaged() -> Error {
    Error::new(ErrorKind::Internal, format!("{FOLDER}/{FILE} in the lake is damaged"))
        .with_hint("it is written again; profiles are computed from the tables")
}

impl Checkpoint {
    /// The profiles, beside whoever is who in `newest`; none where that knows most of them by other ids, as under another key. No row
    /// is read beside them: the tables are further. `now` is in microseconds UTC.
    pub fn profiles(self, computer: &Computer, newest: &Snapshot, now: i64) -> Option<Profiles> {
        let known = self.persons.iter().filter(|person| newest.identity.number(&person.id).is_some());
        if 2 * known.count() < self.persons.len() {
            return None;
        }
        let snapshot = Snapshot {
            id: self.snapshot,
            watermark: Arc::new(self.watermark),
            identity: newest.identity.clone(),
            ..Snapshot::default()
        };
        let items = computer.items().clone();
        Some(Profiles::new(Arc::new(snapshot), self.computed_at, items, self.persons, None).of_checkpoint(now))
    }
}

#[cfg(test)]
mod tests;
