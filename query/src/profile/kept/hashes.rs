//! Hashes of rows. A batch enters, a hash of each row leaves; their sums say which rows they are of.

use std::sync::Arc;

use datafusion::arrow::array::{Array, RecordBatch};
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::error::Result;

/// A hash of each row. Every column counts by its place, so that a value that moves to another column is another row.
pub fn hashes(rows: &RecordBatch) -> Result<Vec<u64>> {
    const SEED: RandomState = RandomState::with_seed(0);
    const NULL: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut sums = vec![1; rows.num_rows()];
    let mut values = vec![0; rows.num_rows()];
    for column in rows.columns() {
        let encoded;
        let flat = if column.data_type().is_nested() {
            // What is null deep inside counts too.
            let converter = RowConverter::new(vec![SortField::new(column.data_type().clone())])?;
            encoded = converter.convert_columns(std::slice::from_ref(column))?;
            Arc::new(encoded.try_into_binary()?) as _
        } else {
            column.clone()
        };
        values.fill(0);
        create_hashes([&flat], &SEED, &mut values)?;
        for (row, sum) in sums.iter_mut().enumerate() {
            let value = if flat.is_null(row) { NULL } else { values[row] };
            *sum = mixed(u64::rotate_left(*sum, 5) ^ value);
        }
    }
    Ok(sums)
}

/// MurmurHash3's finalizer: sums of mixed values say which values they are of.
fn mixed(value: u64) -> u64 {
    let value = (value ^ (value >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    let value = (value ^ (value >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    value ^ (value >> 33)
}
