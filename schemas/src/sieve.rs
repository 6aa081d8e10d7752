//! Decoded records → rows of the lake, and which of them break the contract.
//!
//! Whoever lands records and whoever reads them before they have landed comes here, so that both see the same rows.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::compute::{concat, concat_batches, filter_record_batch};
use arrow::datatypes::{Int32Type, Int64Type};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use chrono_tz::Tz;

use crate::check::{Checker, Violation};
use crate::contract::Contract;
use crate::decode::Decoded;
use crate::error::Error;
use crate::rows;

/// The sieve of one table.
#[derive(Debug)]
pub struct Sieve {
    contract: Arc<Contract>,
    checker: Checker,
    timezone: Tz,
}

/// Rows of the lake as they came, and what is wrong with some of them.
#[derive(Debug)]
pub struct Sifted {
    pub rows: RecordBatch,
    /// At most one a row, in their order.
    pub violations: Vec<Violation>,
}

impl Sieve {
    /// # Errors
    /// `Shape` when a rule of the contract does not compile.
    pub fn new(contract: Arc<Contract>, timezone: Tz) -> Result<Self, Error> {
        Ok(Self { checker: Checker::new(&contract)?, timezone, contract })
    }

    pub fn contract(&self) -> &Contract {
        &self.contract
    }

    /// Checks records once more, since anyone may write to a topic; `None` when there are none.
    ///
    /// # Errors
    /// `Shape`, which no record can cause.
    pub fn sift(&self, decoded: &[Decoded]) -> Result<Option<Sifted>, Error> {
        let Some(first) = decoded.first() else { return Ok(None) };
        let failed = |error: ArrowError| Error::shape(format!("decoded rows of {}: {error}", self.contract.name()));
        let batch = concat_batches(&first.batch.schema(), decoded.iter().map(|part| &part.batch)).map_err(failed)?;
        let partitions: Vec<&dyn Array> = decoded.iter().map(|part| &part.partitions as &dyn Array).collect();
        let offsets: Vec<&dyn Array> = decoded.iter().map(|part| &part.offsets as &dyn Array).collect();
        let partitions = concat(&partitions).map_err(failed)?.as_primitive::<Int32Type>().clone();
        let offsets = concat(&offsets).map_err(failed)?.as_primitive::<Int64Type>().clone();
        let rows = rows::rows(&self.contract, &batch, partitions, offsets, self.timezone)?;
        let violations = self.checker.check(&rows)?;
        Ok(Some(Sifted { rows, violations }))
    }
}

impl Sifted {
    /// The rows that break no rule.
    ///
    /// # Errors
    /// `Shape`, which no row can cause.
    pub fn good(self) -> Result<RecordBatch, Error> {
        if self.violations.is_empty() {
            return Ok(self.rows);
        }
        let mut is_good = vec![true; self.rows.num_rows()];
        for violation in &self.violations {
            is_good[violation.row] = false;
        }
        filter_record_batch(&self.rows, &BooleanArray::from(is_good)).map_err(|error| Error::shape(error.to_string()))
    }
}
