//! All tables at one moment. Table versions and the identity they give enter; an immutable [`Snapshot`] leaves, which a
//! question keeps from its first row to its last.
//!
//! A question's plan names tables, not versions. [`Pinned`] carries the snapshot through the session's configuration to
//! where a plan is bound: table scans and identity functions. So a prepared statement always answers from the newest
//! snapshot, and never from two. A question that reads profiles is pinned to the very snapshot they were computed from.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::config::{ConfigEntry, ConfigExtension, ConfigOptions, ExtensionOptions};
use datafusion::error::{DataFusionError, Result};

use topic::Watermark;

use crate::identity::Index;
use crate::identity::relink::Links;
use crate::profile::table::Seen;
use crate::source::TableVersion;

/// All tables, each at one version, and who is who in them.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Grows whenever any table does: the sum of all table versions, each counted from 1, and of all offsets.
    pub id: u64,
    /// By `<domain>.<table>`; a table that has never been written is not there.
    pub tables: HashMap<String, TableVersion>,
    pub identity: Arc<Index>,
    /// Since when that has said the same of whose rows are.
    pub links: Links,
    /// How far it reaches.
    pub watermark: Arc<Watermark>,
}

impl Snapshot {
    /// The snapshot of `tables`.
    pub fn new(tables: HashMap<String, TableVersion>, identity: Arc<Index>) -> Self {
        let commits: u64 = tables.values().map(TableVersion::commits).sum();
        let mut watermark = Watermark::default();
        for version in tables.values() {
            for (&partition, &offset) in &*version.next {
                watermark.advance(&version.topic, partition, offset);
            }
        }
        let offsets: u64 = watermark.iter().map(|(_, _, offset)| offset.unsigned_abs()).sum();
        Self { id: commits + offsets, tables, identity, links: Links::default(), watermark: Arc::new(watermark) }
    }

    /// Its tables, of which only what had been received by `at` (microseconds UTC) is read.
    pub fn received_by(&self, at: i64) -> HashMap<String, TableVersion> {
        let by = |(name, table): (&String, &TableVersion)| {
            (name.clone(), TableVersion { received_by: Some(at), ..table.clone() })
        };
        self.tables.iter().map(by).collect()
    }

    /// The same with other tables, for a computation of its own.
    pub fn with_tables(&self, tables: HashMap<String, TableVersion>) -> Self {
        let (identity, watermark) = (self.identity.clone(), self.watermark.clone());
        Self { id: self.id, tables, identity, links: self.links, watermark }
    }
}

/// What a session answers from.
#[derive(Debug, Clone, Default)]
pub struct Pinned {
    pub snapshot: Arc<Snapshot>,
    /// Only for a question that reads profiles; then `snapshot` is theirs.
    profiles: Option<Arc<Seen>>,
}

impl Pinned {
    /// A snapshot without profiles.
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        Self { snapshot, profiles: None }
    }

    /// Profiles and the snapshot they were computed from.
    pub fn with_profiles(profiles: Seen) -> Self {
        Self { snapshot: profiles.snapshot().clone(), profiles: Some(Arc::new(profiles)) }
    }

    /// The snapshot of the session whose options these are.
    ///
    /// # Errors
    /// The session has none: a mistake of ours.
    pub fn of(options: &ConfigOptions) -> Result<Arc<Snapshot>> {
        let pinned = options.extensions.get::<Self>();
        pinned
            .map(|pinned| pinned.snapshot.clone())
            .ok_or_else(|| DataFusionError::Internal("no snapshot is pinned".into()))
    }

    /// The profiles of the session whose options these are.
    ///
    /// # Errors
    /// The session has none: a mistake of ours.
    pub fn profiles_of(options: &ConfigOptions) -> Result<Arc<Seen>> {
        let pinned = options.extensions.get::<Self>();
        pinned
            .and_then(|pinned| pinned.profiles.clone())
            .ok_or_else(|| DataFusionError::Internal("no profiles are pinned".into()))
    }
}

impl ConfigExtension for Pinned {
    const PREFIX: &'static str = "quad";
}

impl ExtensionOptions for Pinned {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn std::any::Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, _value: &str) -> Result<()> {
        Err(DataFusionError::Configuration(format!("quad.{key} cannot be set")))
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        Vec::new()
    }
}
