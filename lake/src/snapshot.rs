//! Reading: a table at one version, ready for DataFusion to scan.

use std::ops::RangeInclusive;
use std::sync::Arc;

use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::catalog::TableProvider;
use datafusion::common::cast::{as_date32_array, as_timestamp_microsecond_array};
use schemas::Contract;
use schemas::record::{BIZ_DATE, timestamp_type};

use crate::error::Error;
use crate::table::{Lake, Table};

/// One table at one version. Later commits do not change it.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub version: u64,
    pub provider: Arc<dyn TableProvider>,
}

/// What a file holds: a local day, counted from 1970, and of that day nothing outside of these times, microseconds UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub day: i32,
    pub times: RangeInclusive<i64>,
}

/// Times in the log are cut to milliseconds.
const CUT_US: i64 = 999;

impl Table {
    /// What the files of a table that is partitioned by day hold, by the log's own minima and maxima of the time `column`; `None`
    /// when the log does not have them all.
    ///
    /// # Errors
    /// `Store` when the log cannot be read.
    pub fn spans(&self, column: &str) -> Result<Option<Vec<Span>>, Error> {
        let failed = |error| Error::delta("read the files of", &self.name, error);
        let files = self.delta.snapshot().and_then(|state| state.add_actions_batches(true)).map_err(failed)?;
        let mut spans = Vec::new();
        for batch in files {
            let typed = |name: String, data_type: &DataType| cast(batch.column_by_name(&name)?, data_type).ok();
            let days = typed(format!("partition.{BIZ_DATE}"), &DataType::Date32);
            let [firsts, lasts] = ["min", "max"].map(|end| typed(format!("{end}.{column}"), &timestamp_type()));
            let (Some(days), Some(firsts), Some(lasts)) = (days, firsts, lasts) else { return Ok(None) };
            let (Ok(days), Ok(firsts), Ok(lasts)) = (
                as_date32_array(&days),
                as_timestamp_microsecond_array(&firsts),
                as_timestamp_microsecond_array(&lasts),
            ) else {
                return Ok(None);
            };
            for ((day, first), last) in days.iter().zip(firsts).zip(lasts) {
                let (Some(day), Some(first), Some(last)) = (day, first, last) else { return Ok(None) };
                spans.push(Span { day, times: first..=last.saturating_add(CUT_US) });
            }
        }
        Ok(Some(spans))
    }

    /// This version of the table.
    ///
    /// # Errors
    /// `Store` when the files cannot be listed from the log.
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        let provider = self.delta.table_provider().await;
        let provider = provider.map_err(|error| Error::scan(&self.name, error))?;
        Ok(Snapshot { version: self.version(), provider })
    }
}

impl Lake {
    /// The newest version of the table of `contract`; `None` before anything has landed.
    ///
    /// # Errors
    /// `Store` when the location cannot be read.
    pub async fn snapshot(&self, contract: &Contract) -> Result<Option<Snapshot>, Error> {
        match self.find(contract).await? {
            Some(table) => Ok(Some(table.snapshot().await?)),
            None => Ok(None),
        }
    }
}
