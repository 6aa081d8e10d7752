//! Reading the records of one writer schema.
//!
//! Avro single objects of one fingerprint enter; batches in the contract's record schema leave. Records are decoded by the
//! schema they were written with; what the contract has more is null, what it has widened is cast, and what it has renamed
//! is found where it was.

use arrow::array::{ArrayRef, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow_avro::codec::Tz;
use arrow_avro::reader::{Decoder as AvroDecoder, ReaderBuilder};
use arrow_avro::schema::{AvroSchema, Fingerprint, SchemaStore};

use super::{Decoded, RUN_ROWS_MAX};
use crate::error::Error;
use crate::writer::WriterSchema;

pub(super) struct Reading {
    store: SchemaStore,
    fingerprint: Fingerprint,
    avro: AvroDecoder,
    /// For each column of the record schema, the writer's column that gives it.
    columns: Vec<Option<usize>>,
    run: Run,
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

impl Reading {
    pub(super) fn new(writer: &WriterSchema, columns: Vec<Option<usize>>) -> Result<Self, Error> {
        let fingerprint = Fingerprint::Rabin(u64::from_le_bytes(writer.fingerprint));
        let mut store = SchemaStore::new();
        let registered = store.register(AvroSchema::new(writer.avsc.clone()));
        registered.map_err(|error| Error::avro("register a schema", error))?;
        let avro = build(&store, fingerprint)?;
        Ok(Self { store, fingerprint, avro, columns, run: Run::default() })
    }

    /// Takes one record; the inner error says why it cannot be read, and leaves the others as they were.
    pub(super) fn push(&mut self, partition: i32, offset: i64, value: &[u8]) -> Result<Result<(), String>, Error> {
        let message = match self.avro.decode(value) {
            Ok(consumed) if consumed == value.len() => {
                self.run.push(partition, offset, value);
                return Ok(Ok(()));
            }
            Ok(_) => "the body does not have the length its schema asks for".to_string(),
            Err(error) => error.to_string(),
        };
        // A failed row leaves the columns uneven: start over with the rows that were good.
        self.avro = build(&self.store, self.fingerprint)?;
        for row in self.run.rows() {
            self.avro.decode(row).map_err(|error| Error::avro("decode a row again", error))?;
        }
        Ok(Err(message))
    }

    pub(super) fn rows(&self) -> usize {
        self.run.ends.len()
    }

    /// The run so far, as a batch of `schema`.
    pub(super) fn flush(&mut self, schema: &SchemaRef) -> Result<Option<Decoded>, Error> {
        let Some(batch) = self.avro.flush().map_err(|error| Error::avro("decode a run", error))? else {
            return Ok(None);
        };
        let decoded = Decoded {
            batch: self.project(&batch, schema)?,
            partitions: std::mem::take(&mut self.run.partitions).into(),
            offsets: std::mem::take(&mut self.run.offsets).into(),
        };
        self.run.bytes.clear();
        self.run.ends.clear();
        Ok(Some(decoded))
    }

    fn project(&self, batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, Error> {
        let failed = |error| Error::avro("decode a run", error);
        // A widening cast loses nothing; if one did, a null must not hide it.
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let column = |(field, from): (&arrow::datatypes::FieldRef, &Option<usize>)| -> Result<ArrayRef, Error> {
            match from.map(|at| batch.column(at)) {
                None => Ok(new_null_array(field.data_type(), batch.num_rows())),
                Some(column) if column.data_type() == field.data_type() => Ok(column.clone()),
                Some(column) => cast_with_options(column, field.data_type(), &options).map_err(failed),
            }
        };
        let columns: Result<Vec<_>, Error> = schema.fields().iter().zip(&self.columns).map(column).collect();
        RecordBatch::try_new(schema.clone(), columns?).map_err(failed)
    }
}

fn build(store: &SchemaStore, fingerprint: Fingerprint) -> Result<AvroDecoder, Error> {
    ReaderBuilder::new()
        .with_writer_schema_store(store.clone())
        .with_active_fingerprint(fingerprint)
        .with_tz(Tz::Utc)
        .with_batch_size(RUN_ROWS_MAX)
        .build_decoder()
        .map_err(|error| Error::avro("build a decoder", error))
}
