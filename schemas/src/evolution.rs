//! What a change of a contract means for those who write by the old one and those who read by the new one.
//!
//! Two contracts enter, or a contract and the schemas that records were written with; changes leave, each with the part of
//! the version it has to raise and, when it is incompatible, the way forward. Nothing is changed or written here.
//!
//! The rule: what is written under any version of a contract's major number can be read under every later one, without
//! loss. A change that breaks this needs a new table.

mod fields;
#[cfg(test)]
pub(crate) mod tests;
mod writers;

use serde::Serialize;

use crate::contract::{Contract, Contracts};

pub use writers::{Fit, check_writers, fit};

/// The part of a version (MAJOR.MINOR.PATCH) that a change has to raise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// No row and no reader notices.
    Patch,
    /// Compatible: old and new producers may run together.
    Minor,
    /// Incompatible.
    Major,
}

/// One difference between two contracts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    pub level: Level,
    /// The field, or empty when it is about the whole table.
    pub field: String,
    pub what: String,
    /// How to reach the same end compatibly; empty when there is nothing to do.
    pub forward: String,
}

impl Change {
    fn new(level: Level, field: &str, what: impl Into<String>, forward: impl Into<String>) -> Self {
        Self { level, field: field.to_string(), what: what.into(), forward: forward.into() }
    }

    pub fn is_compatible(&self) -> bool {
        self.level < Level::Major
    }
}

/// Everything that changed in one table.
#[derive(Debug, Clone, Serialize)]
pub struct TableChanges {
    pub table: String,
    /// Empty where the table was not there.
    pub old_version: String,
    pub new_version: String,
    pub changes: Vec<Change>,
}

impl TableChanges {
    pub fn is_compatible(&self) -> bool {
        self.changes.iter().all(Change::is_compatible)
    }
}

/// The tables that differ, by name.
pub fn compare_all(old: &Contracts, new: &Contracts) -> Vec<TableChanges> {
    let mut tables = Vec::new();
    for before in old.iter() {
        let (changes, new_version) = match new.get(&before.name()) {
            Some(now) => (compare(before, now), now.version.clone()),
            None => {
                let forward = "keep the contract for as long as its records are in the log, and its table is read";
                (vec![Change::new(Level::Major, "", "the table was removed", forward)], String::new())
            }
        };
        tables.push(TableChanges { table: before.name(), old_version: before.version.clone(), new_version, changes });
    }
    for now in new.iter().filter(|now| old.get(&now.name()).is_none()) {
        let changes = vec![Change::new(Level::Minor, "", "a new table", "")];
        let new_version = now.version.clone();
        tables.push(TableChanges { table: now.name(), old_version: String::new(), new_version, changes });
    }
    tables.retain(|table| !table.changes.is_empty());
    tables.sort_by(|left, right| left.table.cmp(&right.table));
    tables
}

/// What changed from `old` to `new`, two versions of one table: the table, its fields, its version.
pub fn compare(old: &Contract, new: &Contract) -> Vec<Change> {
    let mut changes = table(old, new);
    changes.extend(fields::compare(old, new));
    changes.extend(row_rules(old, new));
    changes.extend(version(old, new, &changes));
    changes
}

/// What is said about the table as a whole. Names of fields are compared as they are called today.
fn table(old: &Contract, new: &Contract) -> Vec<Change> {
    let today = |name: &String| new.field_once(name).map_or(name.clone(), |field| field.name.clone());
    let key: Vec<String> = old.key.iter().map(today).collect();
    let ordering: Vec<String> = old.ordering.iter().map(today).collect();
    let mut changes = Vec::new();
    let mut differs = |what: &str, before: String, now: String, reason: &str| {
        if before != now {
            let what = format!("{what}: {before} became {now}; {reason}");
            changes.push(Change::new(Level::Major, "", what, new_table(new)));
        }
    };
    let kind = |contract: &Contract| format!("{:?}", contract.kind).to_lowercase();
    differs("key", key.join(", "), new.key.join(", "), "rows that were one would be two, or two one");
    differs("kind", kind(old), kind(new), "what a later record means would change for rows that are there");
    differs("event time", today(&old.event_time), new.event_time.clone(), "rows would belong to other days");
    differs("ordering", ordering.join(", "), new.ordering.join(", "), "other versions of rows would be the truth");
    if old.retention_days != new.retention_days {
        let days = |days: Option<u32>| days.map_or("for ever".to_string(), |days| format!("{days} days"));
        let what = format!("kept {} instead of {}", days(new.retention_days), days(old.retention_days));
        changes.push(Change::new(Level::Minor, "", what, ""));
    }
    let says = |contract: &Contract| (contract.title.clone(), contract.description.clone(), contract.owner.clone());
    if says(old) != says(new) || old.freshness_s != new.freshness_s {
        changes.push(Change::new(Level::Patch, "", "title, description, owner or latency", ""));
    }
    changes
}

fn row_rules(old: &Contract, new: &Contract) -> Vec<Change> {
    let mut changes = Vec::new();
    for rule in &new.row_rules {
        let before = old.row_rules.iter().find(|before| before.name == rule.name);
        if before.is_some_and(|before| before.predicate == rule.predicate) {
            continue;
        }
        let what = match before {
            Some(_) => format!("row rule `{}` asks for something else; rows that are there may break it", rule.name),
            None => format!("row rule `{}` is new; rows that are there may break it", rule.name),
        };
        changes.push(Change::new(Level::Major, "", what, format!("drop the rule, or {}", new_table(new))));
    }
    for rule in old.row_rules.iter().filter(|rule| !new.row_rules.iter().any(|now| now.name == rule.name)) {
        changes.push(Change::new(Level::Minor, "", format!("row rule `{}` is gone", rule.name), ""));
    }
    changes
}

/// The version tells of its changes: a compatible one raises MINOR, an incompatible one MAJOR.
fn version(old: &Contract, new: &Contract, changes: &[Change]) -> Option<Change> {
    let (before, now) = (version_of(&old.version), version_of(&new.version));
    let needed = match changes.iter().map(|change| change.level).max()? {
        Level::Patch if now >= before => return None,
        Level::Patch => before,
        Level::Minor => [before[0], before[1] + 1, 0],
        Level::Major => [before[0] + 1, 0, 0],
    };
    if now >= needed {
        return None;
    }
    let what = format!("version {} after {} does not tell of these changes", new.version, old.version);
    let [major, minor, patch] = needed;
    Some(Change::new(Level::Major, "", what, format!("make it version {major}.{minor}.{patch}")))
}

/// A version in the order of versions; parts that are no numbers count as 0.
pub(crate) fn version_of(version: &str) -> [u64; 3] {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    [0; 3].map(|_| parts.next().unwrap_or(0))
}

/// The way forward for whatever one table cannot hold together.
fn new_table(contract: &Contract) -> String {
    let next = contract.major_version() + 1;
    format!("leave this table as it was and make a new one, {}_v{next}, at version {next}.0.0", contract.name())
}
