//! What there is, for tools: catalogs, schemas, tables with their columns, keys, and what this server can do. Contracts
//! enter, the batches Flight SQL prescribes leave.

use std::sync::Arc;

use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};
use arrow_flight::sql::{CommandGetCatalogs, CommandGetDbSchemas, CommandGetPrimaryKeys, CommandGetTables, SqlInfo};
use datafusion::arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::catalog::TableProvider;
use schemas::Contracts;

use crate::catalog::CATALOG;

/// Everything that never changes while the server runs.
pub struct Metadata {
    /// Schema, table and key columns.
    keys: Vec<(String, String, Vec<String>)>,
    sql_info: SqlInfoData,
}

impl Metadata {
    pub fn new(contracts: &Contracts) -> Self {
        let keys =
            contracts.iter().map(|contract| (contract.domain.clone(), contract.table.clone(), contract.key.clone()));
        Self { keys: keys.collect(), sql_info: sql_info() }
    }

    pub fn sql_info(&self) -> &SqlInfoData {
        &self.sql_info
    }

    pub fn catalogs(&self, query: CommandGetCatalogs) -> Result<RecordBatch, ArrowError> {
        let mut builder = query.into_builder();
        builder.append(CATALOG);
        builder.build().map_err(to_arrow)
    }

    pub fn schemas(&self, query: CommandGetDbSchemas, schemas: &[String]) -> Result<RecordBatch, ArrowError> {
        let mut builder = query.into_builder();
        for schema in schemas {
            builder.append(CATALOG, schema);
        }
        builder.build().map_err(to_arrow)
    }

    pub fn tables(
        &self,
        query: CommandGetTables,
        tables: &[(String, String, Arc<dyn TableProvider>)],
    ) -> Result<RecordBatch, ArrowError> {
        let mut builder = query.into_builder();
        for (schema, table, provider) in tables {
            builder.append(CATALOG, schema, table, TABLE_TYPE, &provider.schema()).map_err(to_arrow)?;
        }
        builder.build().map_err(to_arrow)
    }

    pub fn table_types(&self) -> Result<RecordBatch, ArrowError> {
        let schema = Arc::new(Schema::new(vec![Field::new("table_type", DataType::Utf8, false)]));
        RecordBatch::try_new(schema, vec![Arc::new(StringArray::from(vec![TABLE_TYPE]))])
    }

    /// The key of `<table>`; `<table>_history` has the same columns and no key.
    pub fn primary_keys(&self, query: &CommandGetPrimaryKeys) -> Result<RecordBatch, ArrowError> {
        let wanted_schema = query.db_schema.as_deref();
        let found = self
            .keys
            .iter()
            .filter(|(schema, table, _)| *table == query.table && wanted_schema.is_none_or(|wanted| wanted == schema));
        let rows: Vec<(&str, &str, &str, i32)> = found
            .flat_map(|(schema, table, key)| {
                (1..).zip(key).map(|(place, column)| (schema.as_str(), table.as_str(), column.as_str(), place))
            })
            .collect();
        let text = |value: fn(&(&'_ str, &'_ str, &'_ str, i32)) -> String| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(rows.iter().map(value)))
        };
        let columns: Vec<ArrayRef> = vec![
            text(|_| CATALOG.to_string()),
            text(|row| row.0.to_string()),
            text(|row| row.1.to_string()),
            text(|row| row.2.to_string()),
            Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.3))),
            text(|row| format!("{}_key", row.1)),
        ];
        RecordBatch::try_new(Self::primary_keys_schema(), columns)
    }

    /// As Flight SQL prescribes.
    pub fn primary_keys_schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("catalog_name", DataType::Utf8, true),
            Field::new("db_schema_name", DataType::Utf8, true),
            Field::new("table_name", DataType::Utf8, false),
            Field::new("column_name", DataType::Utf8, false),
            Field::new("key_sequence", DataType::Int32, false),
            Field::new("key_name", DataType::Utf8, true),
        ]))
    }

    /// As Flight SQL prescribes, for the three commands about foreign keys, of which there are none.
    pub fn no_foreign_keys() -> RecordBatch {
        let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
        RecordBatch::new_empty(Arc::new(Schema::new(vec![
            text("pk_catalog_name", true),
            text("pk_db_schema_name", true),
            text("pk_table_name", false),
            text("pk_column_name", false),
            text("fk_catalog_name", true),
            text("fk_db_schema_name", true),
            text("fk_table_name", false),
            text("fk_column_name", false),
            Field::new("key_sequence", DataType::Int32, false),
            text("fk_key_name", true),
            text("pk_key_name", true),
            Field::new("update_rule", DataType::UInt8, false),
            Field::new("delete_rule", DataType::UInt8, false),
        ])))
    }
}

/// Every table, history or not: whoever asks cannot write to any.
const TABLE_TYPE: &str = "TABLE";

fn sql_info() -> SqlInfoData {
    let mut builder = SqlInfoDataBuilder::new();
    builder.append(SqlInfo::FlightSqlServerName, "quad");
    builder.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    builder.append(SqlInfo::FlightSqlServerArrowVersion, "1.3");
    builder.append(SqlInfo::FlightSqlServerReadOnly, true);
    builder.append(SqlInfo::FlightSqlServerSql, true);
    builder.append(SqlInfo::FlightSqlServerSubstrait, false);
    // 0: no transactions.
    builder.append(SqlInfo::FlightSqlServerTransaction, 0_i32);
    builder.append(SqlInfo::FlightSqlServerCancel, false);
    builder.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    builder.append(SqlInfo::SqlDdlCatalog, false);
    builder.append(SqlInfo::SqlDdlSchema, false);
    builder.append(SqlInfo::SqlDdlTable, false);
    builder.build().expect("constants make a batch")
}

fn to_arrow(error: impl std::fmt::Display) -> ArrowError {
    ArrowError::ExternalError(error.to_string().into())
}
