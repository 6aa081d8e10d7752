//! The profile's tables in the lake, for engines that know nothing of Quad. Profiles enter; `profile.student` and `profile.item`
//! leave as Delta tables, each replaced in one commit, with the columns and rows that SQL gives an analyst.
//!
//! Both are written from the same profiles and say in their properties of which. They are copies: nothing here reads them, and
//! no answer waits for them. The upkeep of landing knows only tables with contracts, so these are kept in order here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::DateTime;
use lake::{Lake, Replacement, Table, UpkeepSettings, upkeep};

use super::Profiles;
use super::table::{self, Of, SCHEMA, Seen};
use crate::error::{Error, ErrorKind};

/// Rows that are made at a time.
const ROWS_MAX: usize = 8 * 1024;

/// Looking for unneeded files lists a whole table, so it is done less often than the rest.
const VACUUM_EVERY: Duration = Duration::from_secs(6 * 3600);

/// Writes the tables.
pub struct Files {
    lake: Lake,
    upkeep: UpkeepSettings,
    vacuumed: Option<Instant>,
}

impl Files {
    /// `upkeep` says how long what is no longer needed stays.
    pub fn new(lake: Lake, upkeep: UpkeepSettings) -> Self {
        Self { lake, upkeep, vacuumed: None }
    }

    /// Writes both tables. One that another process replaces at the same time is left to that one.
    ///
    /// # Errors
    /// `Unavailable` when the lake cannot be written to. Each table is then what it was, or what it was to be.
    pub async fn write(&mut self, profiles: &Arc<Profiles>) -> Result<(), Error> {
        let seen = Arc::new(Seen::for_files(profiles.clone()));
        let students = self.fill(Of::Students, &seen).await?;
        let items = self.fill(Of::Items, &seen).await?;
        let properties = properties(profiles);
        let mut tables = Vec::new();
        // One right after the other, so that hardly anybody finds them apart.
        for replacement in [students, items] {
            match replacement.finish(&properties).await {
                Ok(table) => tables.push(table),
                Err(error) if error.kind == lake::ErrorKind::Fenced => tracing::debug!("{error}"),
                Err(error) => return Err(failed(error)),
            }
        }
        self.keep(tables).await.map_err(failed)
    }

    /// All rows of a table, not yet seen by anybody.
    async fn fill(&self, of: Of, seen: &Arc<Seen>) -> Result<Replacement, Error> {
        let (name, schema) = (format!("{SCHEMA}.{}", of.table()), seen.schema(of));
        let mut replacement = Replacement::begin(&self.lake, &name, of.title(), &schema).await.map_err(failed)?;
        for batch in table::rows(of, seen.clone(), ROWS_MAX) {
            replacement.write(&batch?).await.map_err(failed)?;
            // Making and encoding rows never waits by itself.
            tokio::task::yield_now().await;
        }
        Ok(replacement)
    }

    /// Keeps logs short and removes files that no version within the retention needs.
    async fn keep(&mut self, tables: Vec<Table>) -> Result<(), lake::Error> {
        let now_ms = upkeep::now_ms();
        let is_due = self.vacuumed.is_none_or(|at| at.elapsed() >= VACUUM_EVERY);
        for mut table in tables {
            table.checkpoint(&self.upkeep, now_ms).await?;
            if is_due {
                table.vacuum(&self.upkeep, now_ms, false).await?;
                self.vacuumed = Some(Instant::now());
            }
        }
        Ok(())
    }
}

/// What the rows are of, for whoever reads the files.
fn properties(profiles: &Profiles) -> [(&'static str, String); 3] {
    let computed_at = DateTime::from_timestamp_micros(profiles.computed_at).unwrap_or_default();
    [
        ("quad.computed_at", computed_at.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()),
        ("quad.snapshot", profiles.snapshot.id.to_string()),
        ("quad.watermark", profiles.watermark.clone()),
    ]
}

fn failed(error: lake::Error) -> Error {
    let hint = "let this process write there, or set query.profile_table_every_s to 0".to_string();
    Error { kind: ErrorKind::Unavailable, message: error.message, hint: Some(hint), source: error.source }
}

#[cfg(test)]
mod tests;
