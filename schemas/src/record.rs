//! The shapes of a table: as a record on the topic, as a row in the lake, and as Avro JSON.
//!
//! A contract enters, schemas leave. Key fields are never null; every other field may be, because a delete
//! keeps the key and drops the rest.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField, Schema, SchemaRef, TimeUnit};
use arrow_avro::schema::SCHEMA_METADATA_KEY;
use serde_json::{Value, json};

use crate::contract::{Contract, FieldType, Kind};

/// Columns that every record carries beside its fields, in this order after them.
///
/// `src` is the source's id in the settings, `src_key` the row's key there, `op` one of `I`, `U`, `D`,
/// `src_updated_at` the source's own change time, `ingested_at` when Quad received the row, `raw_hash` the
/// first 128 bits of the SHA-256 of the row's Avro body, in hex.
pub const ENVELOPE: [&str; 6] = ["src", "src_key", "op", "src_updated_at", "ingested_at", "raw_hash"];

/// Columns that landing adds: the contract's major version and the position on the topic.
pub const POSITION: [&str; 3] = ["schema_version", "kafka_partition", "kafka_offset"];

/// The day a row belongs to: the partition column of event tables.
pub const BIZ_DATE: &str = "biz_date";

/// Microseconds UTC, the one timestamp type of Quad.
pub fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

impl FieldType {
    /// The Arrow type of a value.
    pub fn arrow(self) -> DataType {
        match self {
            FieldType::String => DataType::Utf8,
            FieldType::Int => DataType::Int32,
            FieldType::BigInt => DataType::Int64,
            FieldType::Bool => DataType::Boolean,
            FieldType::Date => DataType::Date32,
            FieldType::Timestamp => timestamp_type(),
            FieldType::Double => DataType::Float64,
            FieldType::Decimal { precision, scale } => DataType::Decimal128(precision, scale),
        }
    }

    fn avro(self) -> Value {
        match self {
            FieldType::String => json!("string"),
            FieldType::Int => json!("int"),
            FieldType::BigInt => json!("long"),
            FieldType::Bool => json!("boolean"),
            FieldType::Date => json!({"type": "int", "logicalType": "date"}),
            FieldType::Timestamp => json!({"type": "long", "logicalType": "timestamp-micros"}),
            FieldType::Double => json!("double"),
            FieldType::Decimal { precision, scale } => {
                json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale})
            }
        }
    }

    /// The type that Quad writes as this Avro type; none when it writes no such type.
    pub(crate) fn from_avro(avro: &Value) -> Option<Self> {
        let number = |key: &str| avro.get(key)?.as_i64();
        let name = avro.as_str().or_else(|| avro.get("type")?.as_str())?;
        Some(match (name, avro.get("logicalType").and_then(Value::as_str)) {
            ("string", None) => FieldType::String,
            ("int", None) => FieldType::Int,
            ("int", Some("date")) => FieldType::Date,
            ("long", None) => FieldType::BigInt,
            ("long", Some("timestamp-micros")) => FieldType::Timestamp,
            ("boolean", None) => FieldType::Bool,
            ("double", None) => FieldType::Double,
            ("bytes", Some("decimal")) => FieldType::Decimal {
                precision: number("precision")?.try_into().ok()?,
                scale: number("scale").unwrap_or(0).try_into().ok()?,
            },
            _ => return None,
        })
    }
}

/// As contracts write it: `bigint`, `decimal(5,1)`.
impl std::fmt::Display for FieldType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FieldType::String => f.write_str("string"),
            FieldType::Int => f.write_str("int"),
            FieldType::BigInt => f.write_str("bigint"),
            FieldType::Bool => f.write_str("bool"),
            FieldType::Date => f.write_str("date"),
            FieldType::Timestamp => f.write_str("timestamp"),
            FieldType::Double => f.write_str("double"),
            FieldType::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
        }
    }
}

/// The types of [`ENVELOPE`], and whether a value may be absent.
fn envelope() -> [(&'static str, FieldType, bool); 6] {
    let [src, src_key, op, src_updated_at, ingested_at, raw_hash] = ENVELOPE;
    [
        (src, FieldType::String, false),
        (src_key, FieldType::String, false),
        (op, FieldType::String, false),
        (src_updated_at, FieldType::Timestamp, true),
        (ingested_at, FieldType::Timestamp, false),
        (raw_hash, FieldType::String, false),
    ]
}

impl Contract {
    /// Name, type and whether a value may be absent of each column of a record.
    pub(crate) fn columns(&self) -> Vec<(&str, FieldType, bool)> {
        let is_nullable = |name: &String| !self.key.contains(name);
        let fields = self.fields.iter().map(|field| (field.name.as_str(), field.field_type, is_nullable(&field.name)));
        fields.chain(envelope()).collect()
    }

    /// The record on the topic: the contract's fields, then [`ENVELOPE`]. Carries its Avro schema as metadata.
    pub fn record_schema(&self) -> SchemaRef {
        let columns = self.columns();
        let fields: Vec<_> =
            columns.iter().map(|(name, ty, nullable)| ArrowField::new(*name, ty.arrow(), *nullable)).collect();
        let metadata = [(SCHEMA_METADATA_KEY.to_string(), self.avro_json())];
        Arc::new(Schema::new_with_metadata(fields, metadata.into()))
    }

    /// The row in the lake: the record, then [`POSITION`], then [`BIZ_DATE`] where the table is partitioned.
    pub fn lake_schema(&self) -> SchemaRef {
        let mut fields: Vec<_> = self.record_schema().fields().iter().cloned().collect();
        let [version, partition, offset] = POSITION;
        fields.push(Arc::new(ArrowField::new(version, DataType::Int32, false)));
        fields.push(Arc::new(ArrowField::new(partition, DataType::Int32, false)));
        fields.push(Arc::new(ArrowField::new(offset, DataType::Int64, false)));
        if self.is_partitioned() {
            fields.push(Arc::new(ArrowField::new(BIZ_DATE, DataType::Date32, true)));
        }
        Arc::new(Schema::new(fields))
    }

    /// Whether the lake table is partitioned by [`BIZ_DATE`].
    pub fn is_partitioned(&self) -> bool {
        self.kind == Kind::Event
    }

    /// The Avro record, in JSON. Names that a field had before are its aliases, and `version` is the contract's: neither
    /// changes the fingerprint. Specification: <https://avro.apache.org/docs/1.12.0/specification/>
    pub fn avro_json(&self) -> String {
        let column = |(name, ty, nullable): (&str, FieldType, bool)| match nullable {
            true => json!({"name": name, "type": ["null", ty.avro()], "default": null}),
            false => json!({"name": name, "type": ty.avro()}),
        };
        let mut columns: Vec<Value> = self.columns().into_iter().map(column).collect();
        for (column, field) in columns.iter_mut().zip(&self.fields).filter(|(_, field)| !field.aliases.is_empty()) {
            column["aliases"] = json!(field.aliases);
        }
        let namespace = format!("quad.{}", self.domain);
        let (name, version) = (&self.table, &self.version);
        json!({"type": "record", "name": name, "namespace": namespace, "version": version, "fields": columns})
            .to_string()
    }
}
