//! The tables that landing itself writes: the dead letters and the ledger.
//!
//! Text columns of such a table's contract enter; rows of the lake leave, or are committed under the positions of the
//! topics they tell of.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Int32Array, Int64Array, RecordBatch};
use chrono::Utc;
use chrono_tz::Tz;
use lake::{Appender, Progress};
use schemas::{Contract, rows};

use super::Land;
use crate::error::Error;
use crate::landing::{Landed, Landing};
use crate::mapping::Mapped;
use crate::refine::Refiner;

/// What such rows name as their source.
const SOURCE: &str = "land";

/// One table of landing's own.
pub struct OwnTable {
    contract: Arc<Contract>,
    refiner: Refiner,
    timezone: Tz,
    pub appender: Appender,
    landing: Arc<Landing>,
}

impl OwnTable {
    /// # Errors
    /// `Settings` when the contract is missing or the table has other columns; `Lake` when it cannot be opened.
    pub async fn open(land: &Land, name: &str) -> Result<Self, Error> {
        let contract = land.contracts.get(name).cloned();
        let contract = contract.ok_or_else(|| Error::settings(format!("the contract `{name}` is missing")))?;
        let table = land.lake.table(&contract).await?;
        Ok(Self {
            appender: Appender::new(table, contract.lake_schema(), &land.settings.id),
            refiner: Refiner::new(contract.clone())?,
            timezone: land.timezone,
            landing: land.landing.clone(),
            contract,
        })
    }

    /// Commits what was written, and says so.
    ///
    /// # Errors
    /// As [`lake::Appender::commit`].
    pub async fn commit(&mut self, progress: &[Progress]) -> Result<(), Error> {
        let began = Instant::now();
        let commit = self.appender.commit(progress).await?;
        let bytes = usize::try_from(commit.landing.bytes).unwrap_or(usize::MAX);
        let landed = Landed { rows: commit.rows, bytes, took: began.elapsed() };
        self.landing.committed(&self.contract.name(), landed, &[]);
        Ok(())
    }

    /// Rows of the lake, each with the place it tells of as its own.
    ///
    /// # Errors
    /// `Internal` when a row breaks the contract, which is for landing to keep.
    pub fn rows(&self, batch: RecordBatch, partitions: Int32Array, offsets: Int64Array) -> Result<RecordBatch, Error> {
        let mapped = Mapped { rows: (0..batch.num_rows()).collect(), batch, failed: Vec::new() };
        let (records, violations) = self.refiner.records(SOURCE, &mapped, Utc::now())?;
        if let Some(violation) = violations.first() {
            let what = format!("write a row of {}: {} {}", self.contract.name(), violation.field, violation.rule);
            return Err(Error::internal(what, violation.message.clone()));
        }
        Ok(rows::rows(&self.contract, &records.batch, partitions, offsets, self.timezone)?)
    }
}
