//! Retention: whole days of an event table go when they are older than its contract allows.
//!
//! The files of a day leave the table in one commit, unread; the bytes stay until `clean` removes them. Entities and
//! references, and rows without a day, never expire.

use deltalake::kernel::Action;
use deltalake::protocol::DeltaOperation;
use schemas::contract::{Class, Kind};
use schemas::{Contract, record};

use crate::error::Error;
use crate::settings::UpkeepSettings;
use crate::table::Table;

/// What expired, or would.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Expired {
    /// Days before this one are gone, `YYYY-MM-DD`; `None` for a table that keeps everything.
    pub before: Option<String>,
    pub files: usize,
    pub rows: u64,
    pub bytes: u64,
}

impl Table {
    /// Drops the days that are past the contract's retention at `now_ms`; with `dry_run`, only counts them.
    ///
    /// # Errors
    /// `Fenced` when another upkeep has changed this table meanwhile, `Store` when the commit cannot be made, also when
    /// late rows of these very days came in between.
    pub async fn expire(
        &mut self,
        contract: &Contract,
        settings: &UpkeepSettings,
        now_ms: i64,
        dry_run: bool,
    ) -> Result<Expired, Error> {
        let failed = |error| Error::delta("list the files of", &self.name, error);
        let Some(before) = first_day(contract, settings, now_ms) else { return Ok(Expired::default()) };
        let (mut expired, mut actions) = (Expired { before: Some(before.clone()), ..Expired::default() }, Vec::new());
        for file in self.delta.snapshot().map_err(failed)?.log_data().iter() {
            let mut values = file.partition_values_map();
            let Some(day) = values.remove(record::BIZ_DATE).flatten() else { continue };
            // Days as text are in the order of time.
            if day < before {
                expired.files += 1;
                expired.rows += file.num_records().unwrap_or_default() as u64;
                expired.bytes += file.size().max(0) as u64;
                actions.push(Action::Remove(file.remove_action(true)));
            }
        }
        if !actions.is_empty() && !dry_run {
            let predicate = Some(format!("{} < '{before}'", record::BIZ_DATE));
            self.commit_upkeep(actions, DeltaOperation::Delete { predicate }, now_ms).await?;
        }
        Ok(expired)
    }
}

/// The oldest day that is kept. UTC is behind the campus's clock, so a day goes at its end, never before.
fn first_day(contract: &Contract, settings: &UpkeepSettings, now_ms: i64) -> Option<String> {
    if contract.kind != Kind::Event {
        return None;
    }
    let by_class = (contract.class() == Class::HighlySensitive).then_some(settings.class3_retention_days);
    let days = contract.retention_days.or(by_class)?;
    let today = chrono::DateTime::from_timestamp_millis(now_ms)?.date_naive();
    Some(today.checked_sub_days(chrono::Days::new(u64::from(days)))?.to_string())
}
