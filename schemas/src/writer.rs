//! A schema that records were written with: Avro JSON, known by its fingerprint.
//!
//! Avro JSON enters, from a contract or from the store of schemas; a [`WriterSchema`] leaves, with the columns it gives a
//! record. `_schemas/<domain>.<table>/<fingerprint>.avsc` below the lake is where it is kept; whoever appends to a topic
//! registers there first, so that its records can be read for as long as they exist, whatever becomes of the contract.

use serde_json::Value;

use crate::contract::{Contract, FieldType};
use crate::encode::fingerprint;
use crate::error::{Error, ErrorKind};
use crate::evolution::version_of;

/// Avro JSON and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterSchema {
    pub avsc: String,
    /// As it leads every record: CRC-64-AVRO of the canonical form, little-endian.
    pub fingerprint: [u8; 8],
    /// The version of the contract that it came from; empty when it does not tell.
    pub version: String,
    /// In the order in which a record holds them.
    pub columns: Vec<WriterColumn>,
}

/// One column of a [`WriterSchema`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterColumn {
    pub name: String,
    pub field_type: FieldType,
    pub is_nullable: bool,
}

impl WriterSchema {
    /// The schema that records of `contract` are written with today.
    ///
    /// # Errors
    /// As [`WriterSchema::parse`].
    pub fn of(contract: &Contract) -> Result<Self, Error> {
        Self::parse(&contract.avro_json())
    }

    /// Reads Avro JSON.
    ///
    /// # Errors
    /// `Avro` when it is no schema, or has a type that Quad does not write.
    pub fn parse(avsc: &str) -> Result<Self, Error> {
        let wrong = |what: &str| Error { kind: ErrorKind::Avro, message: what.to_string(), source: None };
        let schema: Value = serde_json::from_str(avsc).map_err(|error| Error::avro("read an Avro schema", error))?;
        let fields = schema.get("fields").and_then(Value::as_array);
        let fields = fields.ok_or_else(|| wrong("an Avro schema is not a record with `fields`"))?;
        let column = |field: &Value| {
            let (is_nullable, avro) = match field.get("type")?.as_array().map(Vec::as_slice) {
                Some([null, avro]) if null == "null" => (true, avro),
                Some(_) => return None,
                None => (false, field.get("type")?),
            };
            let name = field.get("name")?.as_str()?.to_string();
            Some(WriterColumn { name, field_type: FieldType::from_avro(avro)?, is_nullable })
        };
        let columns: Option<Vec<_>> = fields.iter().map(column).collect();
        let columns = columns.ok_or_else(|| wrong("an Avro schema has a field of a type that Quad does not write"))?;
        let version = schema.get("version").and_then(Value::as_str).unwrap_or_default().to_string();
        Ok(Self { avsc: avsc.to_string(), fingerprint: fingerprint(avsc)?, version, columns })
    }

    /// Reads the file `name` of the store.
    ///
    /// # Errors
    /// As [`WriterSchema::parse`], and when the content has another fingerprint than the name says.
    pub fn read(name: &str, avsc: &str) -> Result<Self, Error> {
        let schema = Self::parse(avsc).map_err(|error| Error {
            kind: error.kind,
            message: format!("schema {name}: {}", error.message),
            source: error.source,
        })?;
        let expected = file_name(schema.fingerprint);
        if expected != name {
            let message = format!("schema {name} has the content of {expected}; restore it, or remove the file");
            return Err(Error { kind: ErrorKind::Avro, message, source: None });
        }
        Ok(schema)
    }

    /// Whether it came from a later version of the contract than `other`.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        version_of(&self.version) > version_of(&other.version)
    }

    /// The fingerprint as people write it: the number in hex.
    pub fn id(&self) -> String {
        id(self.fingerprint)
    }

    /// The file that keeps it.
    pub fn file_name(&self) -> String {
        file_name(self.fingerprint)
    }
}

/// A fingerprint as people write it.
pub fn id(fingerprint: [u8; 8]) -> String {
    format!("{:016x}", u64::from_le_bytes(fingerprint))
}

/// The file of a fingerprint's schema, in [`folder`].
pub fn file_name(fingerprint: [u8; 8]) -> String {
    format!("{}.avsc", id(fingerprint))
}

/// The folder of a table's schemas, below the lake's root.
pub fn folder(contract: &Contract) -> String {
    format!("_schemas/{}/", contract.name())
}
