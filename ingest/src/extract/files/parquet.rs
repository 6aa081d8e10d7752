//! Parquet: columns by name, each cast to text.
//!
//! The footer comes last in a file, so that half of one is refused at once. A column of lists or structs has no text.

use std::fs::File;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::compute::{can_cast_types, cast};
use arrow::datatypes::DataType;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::rows::{Place, Rows};
use super::{Found, Table};
use crate::error::Error;

pub(super) fn read(file: &Found, declared: &Table, rows: &mut Rows<'_>) -> Result<(), Error> {
    let wrong = |what: String| Error::source(format!("{}: {what}", file.name));
    let opened = File::open(&file.path).map_err(|error| wrong(format!("could not read it: {error}")))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(opened)
        .map_err(|error| wrong(format!("no whole Parquet file: {error}")))?;
    let header: Vec<String> = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    let places = rows.places(&header, declared)?;
    for place in &places {
        let Place::Cell(at) = place else { continue };
        let kind = builder.schema().field(*at).data_type().clone();
        if kind.is_nested() || !can_cast_types(&kind, &DataType::Utf8) {
            return Err(wrong(format!("column `{}` is {kind}, which has no text", header[*at])));
        }
    }
    let reader = builder.with_batch_size(rows.rows_max()).build();
    for batch in reader.map_err(|error| wrong(format!("could not read it: {error}")))? {
        let batch = batch.map_err(|error| wrong(format!("could not read rows: {error}")))?;
        let column = |place: &Place| -> Result<ArrayRef, Error> {
            match place {
                Place::Cell(at) => cast(batch.column(*at), &DataType::Utf8)
                    .map_err(|error| wrong(format!("column `{}`: {error}", header[*at]))),
                Place::File(about) => Ok(Arc::new(StringArray::from(vec![about.as_str(); batch.num_rows()]))),
            }
        };
        rows.push_columns(places.iter().map(column).collect::<Result<_, _>>()?)?;
    }
    Ok(())
}
