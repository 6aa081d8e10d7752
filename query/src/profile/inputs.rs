//! What an answer came from. A question and a snapshot enter; [`Inputs`] leave, and while they are the same, so is the answer.

use std::sync::Arc;

use schemas::{Contracts, Kind};

use super::definition::View;
use super::lineage::{self, Named};
use crate::catalog::HISTORY;
use crate::error::Error;
use crate::identity::Index;
use crate::snapshot::Snapshot;
use crate::tail::Positions;

/// What derived tables are made of beside the identity.
const STUDENTS: &str = "student_affairs.student_base";

/// What a question reads.
#[derive(Debug, Default)]
pub struct Reads {
    /// `<domain>.<table>`, in order.
    tables: Vec<String>,
    /// Places among the views.
    views: Vec<usize>,
    clock: Clock,
}

/// How a question depends on the time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Clock {
    #[default]
    Never,
    /// Its answer holds for a local day.
    Day,
    /// Its answer holds for the moment it was asked at.
    Moment,
}

impl Clock {
    /// How `sql` depends on the time, its `$now` and `$today` not yet replaced.
    fn of(sql: &str) -> Self {
        match (sql.contains("$now"), sql.contains("$today")) {
            (true, _) => Self::Moment,
            (false, true) => Self::Day,
            (false, false) => Self::Never,
        }
    }
}

/// The time of a computation.
#[derive(Debug, Clone, Copy)]
pub struct Time {
    /// Microseconds UTC.
    pub now: i64,
    /// The local day, counted from 1970.
    pub day: i64,
}

impl Reads {
    /// What `sql` reads. Derived tables are made of the identity, which every question depends on, and of students.
    ///
    /// # Errors
    /// SQL that cannot be parsed.
    pub fn of(sql: &str, contracts: &Contracts, views: &[View]) -> Result<Self, Error> {
        let mut reads = Self { clock: Clock::of(sql), ..Self::default() };
        for named in lineage::named(sql, views)? {
            match named {
                Named::View(place) => reads.views.push(place),
                Named::Table(table) => {
                    let table = table.trim_end_matches(HISTORY);
                    let has_rows = contracts.get(table).is_some_and(|contract| contract.kind != Kind::Derived);
                    reads.read(if has_rows { table.to_string() } else { STUDENTS.to_string() });
                }
            }
        }
        Ok(reads)
    }

    /// Adds a table.
    pub fn read(&mut self, table: String) {
        if let Err(place) = self.tables.binary_search(&table) {
            self.tables.insert(place, table);
        }
    }
}

/// The inputs of one answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Inputs {
    identity: Identity,
    /// Version in the lake and offsets of each table that is read; none of one that is not there.
    tables: Vec<Option<(Option<u64>, Arc<Positions>)>>,
    /// Revisions of the views that are read.
    views: Vec<u64>,
    /// The day or the moment, where it matters.
    at: Option<i64>,
}

/// The very same index, not one that is equal.
#[derive(Debug, Clone)]
struct Identity(Arc<Index>);

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Inputs {
    /// What a question that reads `reads` is answered from; `revisions` are those of the views.
    pub fn new(reads: &Reads, snapshot: &Snapshot, revisions: &[u64], time: Time) -> Self {
        let content = |name: &String| snapshot.tables.get(name).map(|table| (table.version, table.next.clone()));
        Self {
            identity: Identity(snapshot.identity.clone()),
            tables: reads.tables.iter().map(content).collect(),
            views: reads.views.iter().map(|view| revisions[*view]).collect(),
            at: match reads.clock {
                Clock::Never => None,
                Clock::Day => Some(time.day),
                Clock::Moment => Some(time.now),
            },
        }
    }
}
