//! Records → topic bytes: Avro single-object encoding, the message key, and the content hash.
//!
//! A batch in the record's schema enters; for each row its key, its value and a hash leave. Avro's
//! single-object encoding is `C3 01`, the schema's CRC-64-AVRO fingerprint, then the body.

use std::fmt::Write;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Schema, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow_avro::schema::{FingerprintAlgorithm, FingerprintStrategy};
use arrow_avro::writer::format::{AvroBinaryFormat, AvroSoeFormat};
use arrow_avro::writer::{EncodedRows, WriterBuilder};
use chrono::DateTime;
use sha2::{Digest, Sha256};

use crate::contract::Contract;
use crate::error::Error;
use crate::record::timestamp_type;
use crate::rfc3339;

/// Encodes the records of one contract.
#[derive(Debug)]
pub struct Encoder {
    contract: std::sync::Arc<Contract>,
}

impl Encoder {
    pub fn new(contract: std::sync::Arc<Contract>) -> Self {
        Self { contract }
    }

    /// One Avro single object a row.
    ///
    /// # Errors
    /// `Avro` when the batch is not in the record's schema, e.g. a null in a key field.
    pub fn values(&self, batch: &RecordBatch) -> Result<EncodedRows, Error> {
        let schema = self.contract.record_schema();
        let batch = RecordBatch::try_new(schema.clone(), batch.columns().to_vec())
            .map_err(|error| Error::avro(&format!("encode {}", self.contract.name()), error))?;
        let failed = |error| Error::avro(&format!("encode {}", self.contract.name()), error);
        let builder = WriterBuilder::new(schema.as_ref().clone())
            .with_row_capacity(batch.num_rows())
            .with_fingerprint_strategy(FingerprintStrategy::Rabin);
        let mut encoder = builder.build_encoder::<AvroSoeFormat>().map_err(failed)?;
        encoder.encode(&batch).map_err(failed)?;
        Ok(encoder.flush())
    }

    /// The message key of each row: the key fields as text, joined by `|`.
    ///
    /// # Errors
    /// `Shape` when a key column is missing.
    pub fn keys(&self, batch: &RecordBatch) -> Result<Vec<String>, Error> {
        let mut columns = Vec::new();
        for name in &self.contract.key {
            let column = batch.column_by_name(name).ok_or_else(|| Error::shape(format!("no key column `{name}`")))?;
            columns.push(KeyColumn::of(column).map_err(|error| Error::shape(format!("key column `{name}`: {error}")))?);
        }
        let key = |row| {
            let mut key = String::new();
            for (at, column) in columns.iter().enumerate() {
                key.push_str(if at == 0 { "" } else { "|" });
                column.push(&mut key, row);
            }
            key
        };
        Ok((0..batch.num_rows()).map(key).collect())
    }

    /// The first 128 bits of SHA-256 over each row's Avro body, in hex. `columns` are the contract's fields in
    /// order, then `op`: the same content has the same hash, whenever and from wherever it comes.
    ///
    /// # Errors
    /// `Avro` when a column cannot be encoded.
    pub fn hashes(&self, columns: &[(String, ArrayRef)]) -> Result<StringArray, Error> {
        let failed = |error| Error::avro(&format!("hash {}", self.contract.name()), error);
        let fields =
            columns.iter().map(|(name, column)| arrow::datatypes::Field::new(name, column.data_type().clone(), true));
        let schema = Schema::new(fields.collect::<Vec<_>>());
        let arrays = columns.iter().map(|(_, column)| column.clone()).collect();
        let batch = RecordBatch::try_new(schema.clone().into(), arrays)
            .map_err(|error| Error::shape(format!("{}: {error}", self.contract.name())))?;
        let mut encoder = WriterBuilder::new(schema).build_encoder::<AvroBinaryFormat>().map_err(failed)?;
        encoder.encode(&batch).map_err(failed)?;
        let hash = |row: bytes::Bytes| Some(hex(&Sha256::digest(&row)[..16]));
        Ok(encoder.flush().iter().map(hash).collect())
    }
}

/// A column of a key, as text: as Arrow displays it, most without its formatter.
enum KeyColumn<'a> {
    Text(&'a StringArray),
    Time(&'a TimestampMicrosecondArray, ArrayFormatter<'a>),
    Other(ArrayFormatter<'a>),
}

impl<'a> KeyColumn<'a> {
    fn of(column: &'a ArrayRef) -> Result<Self, ArrowError> {
        const OPTIONS: &FormatOptions<'static> = &FormatOptions::new();
        if let Some(text) = column.as_string_opt() {
            return Ok(Self::Text(text));
        }
        let formatter = ArrayFormatter::try_new(column.as_ref(), OPTIONS)?;
        Ok(match column.as_primitive_opt::<TimestampMicrosecondType>() {
            Some(times) if *times.data_type() == timestamp_type() => Self::Time(times, formatter),
            _ => Self::Other(formatter),
        })
    }

    fn push(&self, key: &mut String, row: usize) {
        let formatter = match self {
            Self::Text(text) if text.is_valid(row) => return key.push_str(text.value(row)),
            Self::Text(_) => return,
            Self::Time(times, formatter) => match DateTime::from_timestamp_micros(times.value(row)) {
                Some(time) if times.is_valid(row) => return rfc3339::push(key, time),
                _ => formatter,
            },
            Self::Other(formatter) => formatter,
        };
        write!(key, "{}", formatter.value(row)).expect("a string takes all that is written");
    }
}

/// Bytes in lower hex.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// The fingerprint that leads every record of `contract`, little-endian as on the wire.
///
/// # Errors
/// `Avro` when the schema has no canonical form.
pub fn fingerprint(avro_json: &str) -> Result<[u8; 8], Error> {
    let schema = arrow_avro::schema::AvroSchema::new(avro_json.to_string());
    let failed = |error| Error::avro("fingerprint a schema", error);
    match schema.fingerprint(FingerprintAlgorithm::Rabin).map_err(failed)? {
        arrow_avro::schema::Fingerprint::Rabin(fingerprint) => Ok(fingerprint.to_le_bytes()),
        _ => Err(Error::shape("a Rabin fingerprint was asked for and another given")),
    }
}
