//! What an answer came from. A question and a snapshot enter; [`Inputs`] leave, and while they are the same, so is the answer.

use std::sync::Arc;

use schemas::{Contracts, Kind};

use super::definition::View;
use super::lineage::{self, Named};
use crate::catalog::HISTORY;
use crate::error::Error;
use crate::identity::Index;
use crate::identity::columns::PersonBy;
use crate::snapshot::Snapshot;
use crate::source::TableVersion;
use crate::tail::Positions;

/// What derived tables are made of beside the identity.
const STUDENTS: &str = "student_affairs.student_base";

/// What a question reads.
#[derive(Debug, Default)]
pub struct Reads {
    /// `<domain>.<table>`, in order.
    tables: Vec<String>,
    /// By what the rows of each are somebody's, and what is asked for by functions besides.
    by: Vec<PersonBy>,
    /// Whether tables are read that are made of the identity itself.
    is_of_identity: bool,
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
    /// Its answer holds until a local day or a night begins.
    Night,
    /// Its answer holds for the moment it was asked at.
    Moment,
}

impl Clock {
    /// How `sql` depends on the time, its times not yet replaced.
    fn of(sql: &str) -> Self {
        let finest = [("$now", Self::Moment), ("$night", Self::Night), ("$today", Self::Day)];
        finest.into_iter().find(|(name, _)| sql.contains(name)).map_or(Self::Never, |(_, clock)| clock)
    }
}

/// The time of a computation.
#[derive(Debug, Clone, Copy)]
pub struct Time {
    /// Microseconds UTC.
    pub now: i64,
    /// The local day, counted from 1970.
    pub day: i64,
    /// The day that the night began which it lies in.
    pub night: i64,
}

impl Reads {
    /// What `sql` reads. Derived tables are made of the identity and of students.
    ///
    /// # Errors
    /// SQL that cannot be parsed.
    pub fn of(sql: &str, contracts: &Contracts, views: &[View]) -> Result<Self, Error> {
        let mut reads = Self { clock: Clock::of(sql), by: PersonBy::called(sql), ..Self::default() };
        for named in lineage::named(sql, views)? {
            match named {
                Named::View(place) => reads.views.push(place),
                Named::Table(table) => {
                    let table = table.trim_end_matches(HISTORY);
                    let has_rows = contracts.get(table).is_some_and(|contract| contract.kind != Kind::Derived);
                    reads.is_of_identity |= !has_rows;
                    reads.add(if has_rows { table } else { STUDENTS }, contracts);
                }
            }
        }
        Ok(reads)
    }

    pub fn tables(&self) -> &[String] {
        &self.tables
    }

    pub fn views(&self) -> &[usize] {
        &self.views
    }

    fn add(&mut self, table: &str, contracts: &Contracts) {
        if let Err(place) = self.tables.binary_search_by(|known| known.as_str().cmp(table)) {
            self.tables.insert(place, table.to_string());
            self.by.extend(contracts.get(table).map(|contract| PersonBy::of(contract)));
        }
    }
}

/// The inputs of one answer.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// By which the rows of tables were somebody's.
    index: Arc<Index>,
    /// Whether that matters by itself, not only by `links`.
    is_of_identity: bool,
    /// What is in each table that is read; none of one that is not there.
    tables: Vec<Option<Content>>,
    /// Since when rows have been the same persons'.
    links: Vec<u64>,
    /// Revisions of the views that are read.
    views: Vec<u64>,
    /// What stands for the day, the night or the moment, where it matters.
    at: Option<i64>,
}

/// What says which rows a table has.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Of a table that is not followed: its version.
    Version(Option<u64>),
    /// All records before these offsets, but for what had been taken away by version `cut`. Where they lie, in the lake or in the
    /// tail, is all the same.
    Records { cut: u64, next: Arc<Positions> },
}

impl Content {
    pub fn of(table: &TableVersion) -> Self {
        match table.next.is_empty() {
            true => Self::Version(table.version),
            false => Self::Records { cut: table.cut, next: table.next.clone() },
        }
    }

    /// The offsets from which on `later` has more, and otherwise the same.
    pub fn grows_into(&self, later: &Self) -> Option<Arc<Positions>> {
        let (Self::Records { cut, next }, Self::Records { cut: later_cut, next: later }) = (self, later) else {
            return None;
        };
        let goes_on = |(partition, offset): (&i32, &i64)| later.get(partition).is_some_and(|later| later >= offset);
        (cut == later_cut && next.len() == later.len() && next.iter().all(goes_on)).then(|| next.clone())
    }
}

impl PartialEq for Inputs {
    fn eq(&self, other: &Self) -> bool {
        self.views == other.views && self.differs_in_views_alone(other)
    }
}

impl Inputs {
    /// What a question that reads `reads` is answered from; `revisions` are those of the views.
    pub fn new(reads: &Reads, snapshot: &Snapshot, revisions: &[u64], time: Time) -> Self {
        let content = |name: &String| snapshot.tables.get(name).map(Content::of);
        Self {
            index: snapshot.identity.clone(),
            is_of_identity: reads.is_of_identity,
            tables: reads.tables.iter().map(content).collect(),
            links: reads.by.iter().map(|by| snapshot.links.of(*by)).collect(),
            views: reads.views.iter().map(|view| revisions[*view]).collect(),
            at: match reads.clock {
                Clock::Never => None,
                Clock::Day => Some(time.day),
                // Neither ever goes back.
                Clock::Night => Some(time.day + time.night),
                Clock::Moment => Some(time.now),
            },
        }
    }

    /// Revisions of the views that are read.
    pub fn views(&self) -> &[u64] {
        &self.views
    }

    /// Nothing but views is otherwise in `new`.
    pub fn differs_in_views_alone(&self, new: &Self) -> bool {
        (&self.tables, &self.links, &self.at) == (&new.tables, &new.links, &new.at)
            && (!self.is_of_identity || Arc::ptr_eq(&self.index, &new.index))
    }

    /// The index before, where rows of the tables may be somebody else's in `new`.
    pub fn relinked(&self, new: &Self) -> Option<&Arc<Index>> {
        (self.links != new.links).then_some(&self.index)
    }

    /// The offsets from which on the one table that is read may have more in `new`, while everything else is the same, but for
    /// whose its rows are.
    pub fn grows_into(&self, new: &Self) -> Option<Arc<Positions>> {
        let ([Some(table)], [Some(later)]) = (&self.tables[..], &new.tables[..]) else { return None };
        let is_the_rest_the_same = (&self.views, &self.at) == (&new.views, &new.at) && !self.is_of_identity;
        table.grows_into(later).filter(|_| is_the_rest_the_same)
    }
}
