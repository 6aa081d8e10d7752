//! All tables at one moment. Table versions and the identity they give enter; an immutable [`Snapshot`] leaves, which a
//! question keeps from its first row to its last.
//!
//! A question's plan names tables, not versions. [`Pinned`] carries the snapshot through the session's configuration to
//! where a plan is bound: table scans and identity functions. So a prepared statement always answers from the newest
//! snapshot, and never from two.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::config::{ConfigEntry, ConfigExtension, ConfigOptions, ExtensionOptions};
use datafusion::error::{DataFusionError, Result};

use crate::identity::Index;
use crate::source::TableVersion;

/// All tables, each at one version, and who is who in them.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Grows whenever any table does: the sum of all table versions, each counted from 1.
    pub id: u64,
    /// By `<domain>.<table>`; a table that has never been written is not there.
    pub tables: HashMap<String, TableVersion>,
    pub identity: Arc<Index>,
}

impl Snapshot {
    /// The snapshot of `tables`.
    pub fn new(tables: HashMap<String, TableVersion>, identity: Arc<Index>) -> Self {
        let id = tables.values().map(|table| table.version + 1).sum();
        Self { id, tables, identity }
    }
}

/// The snapshot a session answers from.
#[derive(Debug, Clone, Default)]
pub struct Pinned(pub Arc<Snapshot>);

impl Pinned {
    /// The snapshot of the session whose options these are.
    ///
    /// # Errors
    /// The session has none: a mistake of ours.
    pub fn of(options: &ConfigOptions) -> Result<Arc<Snapshot>> {
        let pinned = options.extensions.get::<Self>();
        pinned.map(|pinned| pinned.0.clone()).ok_or_else(|| DataFusionError::Internal("no snapshot is pinned".into()))
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
