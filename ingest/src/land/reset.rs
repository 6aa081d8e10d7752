//! Moving a partition's position by hand, past records that are gone from the log.
//!
//! A topic, a partition and an offset enter; one commit without rows leaves, which the ledger tells of. A landing process
//! that runs meanwhile notices, and starts over from there.

use lake::{Appender, Lake, Progress};
use schemas::Contract;

use crate::error::Error;

/// What a reset did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reset {
    /// The position before; `None` when nothing had landed.
    pub from: Option<i64>,
    pub to: i64,
}

/// Moves the position of one partition of the contract's topic forward to `to`.
///
/// # Errors
/// `Settings` when that would land records again; `Lake` when it could not be committed; `Fenced` when a landing process
/// committed at the same moment: try again.
pub async fn reset(lake: &Lake, contract: &Contract, landing: &str, partition: i32, to: i64) -> Result<Reset, Error> {
    let topic = contract.topic();
    let table = lake.table(contract).await?;
    let from = table.next_offset(landing, &topic, partition).await?;
    if from.is_some_and(|from| to < from) {
        return Err(Error::settings(format!(
            "{topic}/{partition} is at offset {}: going back to {to} would land records twice. If the topic was made \
             anew, land under another land.id",
            from.unwrap_or_default()
        )));
    }
    let mut appender = Appender::new(table, contract.lake_schema(), landing);
    let oldest = [(partition, from.unwrap_or(0))].into();
    let at = appender.take(&topic, &oldest).await?.get(&partition).copied().unwrap_or_default();
    let progress = Progress { topic, partition, next_offset: to, rows: 0, letters: 0 };
    appender.commit_with(&[progress], Some(format!("reset by hand from offset {at} to {to}"))).await?;
    Ok(Reset { from, to })
}
