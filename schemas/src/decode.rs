//! Topic bytes → records, with every undecodable record set aside.
//!
//! Bytes and their position enter one by one; Arrow batches with their positions leave, in the contract's record schema
//! whatever schema they were written with, and apart from them the records that could not be read. Each writer's schema
//! has a decoder and a run of its own, so that old and new producers in one topic do not disturb each other. One bad
//! record never costs the good ones around it: rows are decoded in small runs whose bytes are kept until the run is
//! complete, so that a run spoilt half-way is decoded again without the offender.

mod reading;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use arrow::array::{Int32Array, Int64Array};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow_avro::schema::SINGLE_OBJECT_MAGIC;

use crate::contract::Contract;
use crate::error::Error;
use crate::evolution;
use crate::writer::WriterSchema;
use reading::Reading;

/// Rows decoded at a time: what a bad record makes us decode again.
const RUN_ROWS_MAX: usize = 512;

/// Magic and fingerprint before the Avro body.
const HEADER_BYTES: usize = 10;

/// Schemas looked up between two calls of [`Decoder::finish`]; records of further unknown ones are set aside unasked.
const LOOKUPS_MAX: usize = 16;

/// Fingerprints remembered as unknown, so that they are not looked up again.
const UNKNOWN_MAX: usize = 1024;

/// A record that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecord {
    pub partition: i32,
    pub offset: i64,
    /// `framing`, `unknown_schema`, `newer_schema`, `incompatible_schema` or `avro`.
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

/// Gives the schema of a fingerprint when somebody has registered it.
pub type Lookup = Box<dyn FnMut([u8; 8]) -> Result<Option<WriterSchema>, Error> + Send>;

/// Decodes the records of one contract.
pub struct Decoder {
    contract: Contract,
    schema: SchemaRef,
    writers: Vec<Writer>,
    /// The writer of the last record: producers come in stretches.
    current: usize,
    lookup: Option<Lookup>,
    unknown: HashSet<[u8; 8]>,
    lookups: usize,
    decoded: Vec<Decoded>,
    bad: Vec<BadRecord>,
}

/// What to do with the records of one writer schema.
struct Writer {
    fingerprint: [u8; 8],
    reader: Reader,
}

enum Reader {
    Decode(Box<Reading>),
    /// Set aside under this rule, with this message.
    Refuse(&'static str, String),
}

impl Decoder {
    /// A decoder for records written with the present schema of `contract`.
    ///
    /// # Errors
    /// `Avro` when the contract has no usable Avro schema.
    pub fn new(contract: &Contract) -> Result<Self, Error> {
        let mut decoder = Self {
            contract: contract.clone(),
            schema: contract.record_schema(),
            writers: Vec::new(),
            current: 0,
            lookup: None,
            unknown: HashSet::new(),
            lookups: 0,
            decoded: Vec::new(),
            bad: Vec::new(),
        };
        decoder.learn(&WriterSchema::of(contract)?)?;
        Ok(decoder)
    }

    /// Asks `lookup` for schemas that have not been learnt, once each.
    pub fn with_lookup(self, lookup: Lookup) -> Self {
        Self { lookup: Some(lookup), ..self }
    }

    /// Reads records of `writer` from now on, or sets them aside with what the contract cannot do with them. What is known
    /// already stays as it is.
    ///
    /// # Errors
    /// `Avro` when the schema has no decoder.
    pub fn learn(&mut self, writer: &WriterSchema) -> Result<(), Error> {
        if self.position(&writer.fingerprint).is_some() {
            return Ok(());
        }
        let fit = evolution::fit(writer, &self.contract);
        let (name, version) = (self.contract.name(), &self.contract.version);
        let reader = if let Some(change) = fit.wrong.first() {
            let message = format!(
                "written under version {}, which {name} {version} cannot read: `{}` {}; {}, then replay this letter",
                writer.version, change.field, change.what, change.forward
            );
            Reader::Refuse("incompatible_schema", message)
        } else if !fit.newer.is_empty() {
            let message = format!(
                "written under version {} with `{}`, which {name} {version} does not know; upgrade landing, then replay \
                 this letter",
                writer.version,
                fit.newer.join("`, `")
            );
            Reader::Refuse("newer_schema", message)
        } else {
            Reader::Decode(Box::new(Reading::new(writer, fit.columns)?))
        };
        self.writers.push(Writer { fingerprint: writer.fingerprint, reader });
        Ok(())
    }

    /// Takes one record. What is wrong with it shows in the next [`Decoder::finish`].
    ///
    /// # Errors
    /// `Avro` only when good records could not be put into a batch, which no record can cause; and what the lookup says
    /// when it fails: the record is then neither taken nor set aside.
    pub fn push(&mut self, partition: i32, offset: i64, value: &[u8]) -> Result<(), Error> {
        if value.len() < HEADER_BYTES || value[..2] != SINGLE_OBJECT_MAGIC {
            self.refuse(partition, offset, value, "framing", "not an Avro single object (C3 01, fingerprint, body)");
            return Ok(());
        }
        if value[2..HEADER_BYTES] != self.writers[self.current].fingerprint && !self.switch(value)? {
            let message = "written with a schema that nobody has registered; register it, then replay this letter";
            self.refuse(partition, offset, value, "unknown_schema", message);
            return Ok(());
        }
        match &mut self.writers[self.current].reader {
            Reader::Decode(reading) => match reading.push(partition, offset, value)? {
                Ok(()) if reading.rows() < RUN_ROWS_MAX => {}
                Ok(()) => self.decoded.extend(reading.flush(&self.schema)?),
                Err(message) => self.refuse(partition, offset, value, "avro", &message),
            },
            Reader::Refuse(rule, message) => {
                let (rule, message) = (*rule, message.clone());
                self.refuse(partition, offset, value, rule, &message);
            }
        }
        Ok(())
    }

    fn refuse(&mut self, partition: i32, offset: i64, value: &[u8], rule: &'static str, message: &str) {
        let (message, bytes) = (message.to_string(), value.to_vec());
        self.bad.push(BadRecord { partition, offset, rule, message, bytes });
    }

    /// Gives all that was decoded since the last call, and all bad records. The records of one writer schema come in the
    /// order of their arrival.
    ///
    /// # Errors
    /// As [`Decoder::push`].
    pub fn finish(&mut self) -> Result<(Vec<Decoded>, Vec<BadRecord>), Error> {
        for writer in &mut self.writers {
            if let Reader::Decode(reading) = &mut writer.reader {
                self.decoded.extend(reading.flush(&self.schema)?);
            }
        }
        self.lookups = 0;
        Ok((std::mem::take(&mut self.decoded), std::mem::take(&mut self.bad)))
    }

    fn position(&self, fingerprint: &[u8]) -> Option<usize> {
        self.writers.iter().position(|writer| writer.fingerprint == fingerprint)
    }

    /// Makes the writer of `value` the current one, looking its schema up when it is new. Whether it is known.
    fn switch(&mut self, value: &[u8]) -> Result<bool, Error> {
        let fingerprint: [u8; 8] = value[2..HEADER_BYTES].try_into().expect("the header holds eight bytes of it");
        if self.position(&fingerprint).is_none() {
            self.look_up(fingerprint)?;
        }
        let found = self.position(&fingerprint);
        self.current = found.unwrap_or(self.current);
        Ok(found.is_some())
    }

    fn look_up(&mut self, fingerprint: [u8; 8]) -> Result<(), Error> {
        let Some(lookup) = &mut self.lookup else {
            return Ok(());
        };
        if self.lookups >= LOOKUPS_MAX || self.unknown.contains(&fingerprint) {
            return Ok(());
        }
        self.lookups += 1;
        match lookup(fingerprint)? {
            Some(writer) => self.learn(&writer),
            None => {
                if self.unknown.len() >= UNKNOWN_MAX {
                    self.unknown.clear();
                }
                self.unknown.insert(fingerprint);
                Ok(())
            }
        }
    }
}
