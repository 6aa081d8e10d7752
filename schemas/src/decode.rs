//! Topic bytes → records, with every undecodable record set aside.
//!
//! Bytes and their position enter one by one; Arrow batches with their positions leave, and apart from them
//! the records that could not be read. One bad record never costs the good ones around it: rows are decoded in
//! small runs whose bytes are kept until the run is complete, so that a run spoilt half-way is decoded again
//! without the offender.

use std::sync::Arc;

use arrow::array::{Int32Array, Int64Array};
use arrow::record_batch::RecordBatch;
use arrow_avro::codec::Tz;
use arrow_avro::reader::{Decoder as AvroDecoder, ReaderBuilder};
use arrow_avro::schema::{AvroSchema, Fingerprint, SINGLE_OBJECT_MAGIC, SchemaStore};

use crate::contract::Contract;
use crate::encode::fingerprint;
use crate::error::Error;

/// Rows decoded at a time: what a bad record makes us decode again.
const RUN_ROWS_MAX: usize = 512;

/// Magic and fingerprint before the Avro body.
const HEADER_BYTES: usize = 10;

/// A record that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecord {
    pub partition: i32,
    pub offset: i64,
    /// `framing`, `unknown_schema` or `avro`.
    pub rule: &'static str,
    pub message: String,
    pub bytes: Vec<u8>,
}

/// What came out: `batch` in the contract's record schema, and the position of each of its rows.
#[derive(Debug)]
pub struct Decoded {
    pub batch: RecordBatch,
    pub partitions: Int32Array,
    pub offsets: Int64Array,
}

/// Decodes the records of one contract.
pub struct Decoder {
    store: SchemaStore,
    fingerprint: [u8; 8],
    reader: AvroSchema,
    schema: arrow::datatypes::SchemaRef,
    avro: AvroDecoder,
    run: Run,
    decoded: Vec<Decoded>,
    bad: Vec<BadRecord>,
}

/// The rows of the current run: their bytes end to end, and where they came from.
#[derive(Default)]
struct Run {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    partitions: Vec<i32>,
    offsets: Vec<i64>,
}

impl Run {
    fn push(&mut self, partition: i32, offset: i64, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.ends.push(self.bytes.len());
        self.partitions.push(partition);
        self.offsets.push(offset);
    }

    fn rows(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.bytes[start..end])
    }
}

impl Decoder {
    /// A decoder for records written with the present schema of `contract`.
    ///
    /// # Errors
    /// `Avro` when the contract has no usable Avro schema.
    pub fn new(contract: &Contract) -> Result<Self, Error> {
        let reader = AvroSchema::new(contract.avro_json());
        let mut store = SchemaStore::new();
        store.register(reader.clone()).map_err(|error| Error::avro("register a schema", error))?;
        let fingerprint = fingerprint(&contract.avro_json())?;
        let avro = build(&store, &reader, fingerprint)?;
        let run = Run::default();
        let schema = contract.record_schema();
        Ok(Self { store, fingerprint, reader, schema, avro, run, decoded: Vec::new(), bad: Vec::new() })
    }

    /// Takes one record. What is wrong with it shows in the next [`Decoder::finish`].
    ///
    /// # Errors
    /// `Avro` only when good records could not be put into a batch, which no record can cause.
    pub fn push(&mut self, partition: i32, offset: i64, value: &[u8]) -> Result<(), Error> {
        let refuse = |rule, message: &str| BadRecord {
            partition,
            offset,
            rule,
            message: message.to_string(),
            bytes: value.to_vec(),
        };
        if value.len() < HEADER_BYTES || value[..2] != SINGLE_OBJECT_MAGIC {
            self.bad.push(refuse("framing", "not an Avro single object (C3 01, fingerprint, body)"));
            return Ok(());
        }
        if value[2..HEADER_BYTES] != self.fingerprint {
            self.bad.push(refuse("unknown_schema", "written with a schema this contract does not know"));
            return Ok(());
        }
        match self.avro.decode(value) {
            Ok(consumed) if consumed == value.len() => {
                self.run.push(partition, offset, value);
                if self.run.ends.len() >= RUN_ROWS_MAX {
                    self.flush()?;
                }
            }
            outcome => {
                let message = match outcome {
                    Ok(0..) => "the body does not have the length its schema asks for".to_string(),
                    Err(error) => error.to_string(),
                };
                self.bad.push(refuse("avro", &message));
                self.replay()?;
            }
        }
        Ok(())
    }

    /// Gives all that was decoded since the last call, in order of arrival, and all bad records.
    ///
    /// # Errors
    /// As [`Decoder::push`].
    pub fn finish(&mut self) -> Result<(Vec<Decoded>, Vec<BadRecord>), Error> {
        self.flush()?;
        Ok((std::mem::take(&mut self.decoded), std::mem::take(&mut self.bad)))
    }

    fn flush(&mut self) -> Result<(), Error> {
        let Some(batch) = self.avro.flush().map_err(|error| Error::avro("decode a run", error))? else {
            return Ok(());
        };
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), batch.columns().to_vec())
            .map_err(|error| Error::avro("decode a run", error))?;
        self.decoded.push(Decoded {
            batch,
            partitions: std::mem::take(&mut self.run.partitions).into(),
            offsets: std::mem::take(&mut self.run.offsets).into(),
        });
        self.run.bytes.clear();
        self.run.ends.clear();
        Ok(())
    }

    /// A failed row leaves the columns uneven: start over with the rows that were good.
    fn replay(&mut self) -> Result<(), Error> {
        self.avro = build(&self.store, &self.reader, self.fingerprint)?;
        for row in self.run.rows() {
            self.avro.decode(row).map_err(|error| Error::avro("decode a row again", error))?;
        }
        Ok(())
    }
}

fn build(store: &SchemaStore, reader: &AvroSchema, fingerprint: [u8; 8]) -> Result<AvroDecoder, Error> {
    ReaderBuilder::new()
        .with_writer_schema_store(store.clone())
        .with_reader_schema(reader.clone())
        .with_active_fingerprint(Fingerprint::Rabin(u64::from_le_bytes(fingerprint)))
        .with_tz(Tz::Utc)
        .with_batch_size(RUN_ROWS_MAX)
        .build_decoder()
        .map_err(|error| Error::avro("build a decoder", error))
}
