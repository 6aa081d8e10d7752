//! Rows that take little room. Batches enter; they leave with texts and decimals in dictionaries where these repeat, and the
//! other way round.
//!
//! Whoever reads rows casts what is not of the type it wants: a dictionary of text is read as text.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayBuilder as _, ArrayRef, AsArray, DictionaryArray, PrimitiveBuilder, RecordBatch, RecordBatchOptions,
    StringBuilder, UInt32Array,
};
use datafusion::arrow::compute::{cast, take as arrow_take};
use datafusion::arrow::datatypes::{DataType, Field, Schema, UInt32Type};
use datafusion::error::Result;

/// Less is not worth it: few rows are soon put together with others.
const ROWS_MIN: usize = 32_768;

/// Rows that are looked at before a column is taken for one that repeats.
const SAMPLE: usize = 4_096;

/// The same rows without a column, and where that was, if it was there.
pub fn without(mut batch: RecordBatch, column: &str) -> (RecordBatch, Option<usize>) {
    let at = batch.schema_ref().index_of(column).ok();
    if let Some(at) = at {
        batch.remove_column(at);
    }
    (batch, at)
}

/// The same rows with a column more.
pub fn with(batch: &RecordBatch, at: usize, name: &str, column: ArrayRef) -> Result<RecordBatch> {
    let (mut fields, mut columns) = (batch.schema_ref().fields().to_vec(), batch.columns().to_vec());
    fields.insert(at, Arc::new(Field::new(name, column.data_type().clone(), true)));
    columns.insert(at, column);
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// Whose rows are: ids, each with how many rows follow.
pub fn person_ids<'a>(runs: impl Iterator<Item = (Option<&'a str>, usize)>) -> Result<ArrayRef> {
    let (mut ids, mut keys) = (StringBuilder::new(), PrimitiveBuilder::<UInt32Type>::new());
    for (id, count) in runs {
        match id {
            Some(id) => {
                let key = ids.len() as u32;
                ids.append_value(id);
                keys.append_value_n(key, count);
            }
            None => keys.append_nulls(count),
        }
    }
    Ok(Arc::new(DictionaryArray::try_new(keys.finish(), Arc::new(ids.finish()))?))
}

/// Some of the rows, in the order of their places. There may be no column: arrow's own `take_record_batch` needs one.
pub fn take(batch: &RecordBatch, places: &UInt32Array) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(|column| arrow_take(column, places, None)).collect::<Result<_, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(places.len()));
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns, &options)?)
}

/// The same rows, with what is long and repeats in dictionaries.
pub fn compact(batch: RecordBatch) -> Result<RecordBatch> {
    if batch.num_rows() < ROWS_MIN {
        return Ok(batch);
    }
    changed(&batch, |column| match column.data_type() {
        DataType::Utf8 | DataType::Decimal128(..) => in_dictionary(column),
        _ => Ok(column.clone()),
    })
}

/// The same rows, with everything as it is.
pub fn plain(batch: &RecordBatch) -> Result<RecordBatch> {
    changed(batch, |column| match column.data_type() {
        DataType::Dictionary(_, values) => Ok(cast(column, values)?),
        _ => Ok(column.clone()),
    })
}

fn in_dictionary(column: &ArrayRef) -> Result<ArrayRef> {
    let values = column.data_type();
    let dictionary =
        |of: &ArrayRef, keys: DataType| cast(of, &DataType::Dictionary(keys.into(), values.clone().into()));
    let count = |of: &ArrayRef| of.as_any_dictionary().values().len();
    if count(&dictionary(&column.slice(0, SAMPLE.min(column.len())), DataType::UInt32)?) > SAMPLE / 2 {
        return Ok(column.clone());
    }
    let found = dictionary(column, DataType::UInt32)?;
    // Keys count from nought.
    Ok(match count(&found) {
        0..=0x100 => dictionary(&found, DataType::UInt8)?,
        0x101..=0x1_0000 => dictionary(&found, DataType::UInt16)?,
        few if few <= column.len() / 4 => found,
        _ => column.clone(),
    })
}

fn changed(batch: &RecordBatch, change: impl Fn(&ArrayRef) -> Result<ArrayRef>) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(change).collect::<Result<Vec<_>>>()?;
    let fields = batch.schema_ref().fields().iter().zip(&columns);
    let fields = fields.map(|(field, column)| field.as_ref().clone().with_data_type(column.data_type().clone()));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}
