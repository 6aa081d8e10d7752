//! Records → topic bytes: Avro single-object encoding, the message key, and the content hash.
//!
//! A batch in the record's schema enters; for each row its key, its value and a hash leave. Avro's
//! single-object encoding is `C3 01`, the schema's CRC-64-AVRO fingerprint, then the body.

use std::fmt::Write;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field as ArrowField, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow_avro::errors::AvroError;
use arrow_avro::schema::{FingerprintAlgorithm, FingerprintStrategy};
use arrow_avro::writer::format::{AvroBinaryFormat, AvroFormat, AvroSoeFormat};
use arrow_avro::writer::{EncodedRows, Encoder as Writer, WriterBuilder};
use chrono::DateTime;
use sha2::{Digest, Sha256};

use crate::contract::{Contract, Field};
use crate::error::Error;
use crate::record::timestamp_type;
use crate::rfc3339;

/// Encodes the records of one contract.
#[derive(Debug)]
pub struct Encoder {
    contract: Arc<Contract>,
    records: Writers<AvroSoeFormat>,
    contents: Writers<AvroBinaryFormat>,
}

impl Encoder {
    pub fn new(contract: Arc<Contract>) -> Self {
        let field = |field: &Field| ArrowField::new(&field.name, field.field_type.arrow(), true);
        let op = ArrowField::new("op", DataType::Utf8, true);
        let contents = Schema::new(contract.fields.iter().map(field).chain([op]).collect::<Vec<_>>());
        let (records, contents) = (Writers::new(contract.record_schema()), Writers::new(Arc::new(contents)));
        Self { contract, records, contents }
    }

    /// The contract's [`Contract::record_schema`].
    pub fn schema(&self) -> &SchemaRef {
        &self.records.schema
    }

    /// One Avro single object a row.
    ///
    /// # Errors
    /// `Avro` when the batch is not in the record's schema, e.g. a null in a key field.
    pub fn values(&self, batch: &RecordBatch) -> Result<EncodedRows, Error> {
        let encoded = self.records.encode(batch.columns().to_vec());
        encoded.map_err(|error| Error::avro(&format!("encode {}", self.contract.name()), error))
    }

    /// The message key of each row: the key fields as text, joined by `|`.
    ///
    /// # Errors
    /// `Shape` when a key column is missing.
    pub fn keys(&self, batch: &RecordBatch) -> Result<StringArray, Error> {
        let mut columns = Vec::new();
        for name in &self.contract.key {
            let column = batch.column_by_name(name).ok_or_else(|| Error::shape(format!("no key column `{name}`")))?;
            columns.push(KeyColumn::of(column).map_err(|error| Error::shape(format!("key column `{name}`: {error}")))?);
        }
        let (mut keys, mut key) = (StringBuilder::new(), String::new());
        for row in 0..batch.num_rows() {
            key.clear();
            for (at, column) in columns.iter().enumerate() {
                key.push_str(if at == 0 { "" } else { "|" });
                column.push(&mut key, row);
            }
            keys.append_value(&key);
        }
        Ok(keys.finish())
    }

    /// The first 128 bits of SHA-256 over each row's Avro body, in hex. `fields` are the contract's in order, any of which
    /// may be null: the same content has the same hash, whenever and from wherever it comes.
    ///
    /// # Errors
    /// `Avro` when a column cannot be encoded.
    pub fn hashes(&self, fields: &[ArrayRef], op: &ArrayRef) -> Result<StringArray, Error> {
        let encoded = self.contents.encode(fields.iter().chain([op]).cloned().collect());
        let encoded = encoded.map_err(|error| Error::avro(&format!("hash {}", self.contract.name()), error))?;
        let mut hashes = StringBuilder::with_capacity(encoded.len(), encoded.len() * 32);
        for ends in encoded.offsets().windows(2) {
            let digest = Sha256::digest(&encoded.bytes()[ends[0]..ends[1]]);
            let mut digits = [0; 32];
            write_hex(&mut digits, &digest[..16]);
            hashes.append_value(str::from_utf8(&digits).expect("digits are ASCII"));
        }
        Ok(hashes.finish())
    }
}

/// Writers of one schema that wait for their next batch: whoever makes one parses the schema. Each is of one thread at a time.
#[derive(Debug)]
struct Writers<F> {
    schema: SchemaRef,
    waiting: Mutex<Vec<Writer>>,
    format: PhantomData<F>,
}

/// Bytes that a row is expected to take.
const ROW_BYTES: usize = 256;
/// Bytes of the last batch of a writer that waits.
const WAITING_BYTES_MAX: usize = 1 << 20;

impl<F: AvroFormat> Writers<F> {
    fn new(schema: SchemaRef) -> Self {
        Self { schema, waiting: Mutex::default(), format: PhantomData }
    }

    fn encode(&self, columns: Vec<ArrayRef>) -> Result<EncodedRows, AvroError> {
        let batch = RecordBatch::try_new(self.schema.clone(), columns)?;
        let waiting = || self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = waiting().pop();
        let mut writer = writer.map_or_else(|| self.make(), Ok)?;
        // One that fails is not used again.
        writer.encode(&batch)?;
        let rows = writer.flush();
        // Its room stays with it.
        if rows.bytes().len() <= WAITING_BYTES_MAX {
            waiting().push(writer);
        }
        Ok(rows)
    }

    fn make(&self) -> Result<Writer, AvroError> {
        let builder = WriterBuilder::new(self.schema.as_ref().clone()).with_row_capacity(ROW_BYTES);
        builder.with_fingerprint_strategy(FingerprintStrategy::Rabin).build_encoder::<F>()
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
    let mut digits = vec![0; 2 * bytes.len()];
    write_hex(&mut digits, bytes);
    String::from_utf8(digits).expect("digits are ASCII")
}

fn write_hex(digits: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (digits, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        digits[0] = DIGITS[usize::from(byte >> 4)];
        digits[1] = DIGITS[usize::from(byte & 15)];
    }
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
