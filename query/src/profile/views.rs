//! The views between the tables and the questions, kept from one computation to the next. A snapshot enters; afterwards each
//! view has the rows that its SQL gives there, and knows whose rows are others than at a revision before.
//!
//! What is asked again is as little as a view's declaration allows: nothing while its inputs are the same, the times that
//! records came to or whose events are somebody else's by a new identity, the persons whose inputs changed, or everything.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::arrow::array::RecordBatch;

use super::arrivals::{Arrivals, Since};
use super::compute::Computer;
use super::inputs::{Inputs, Reads, Time};
use super::kept::{Change, Kept, Persons};
use super::table::SCHEMA;
use crate::error::Error;
use crate::identity::{Index, PersonNo, Relinking, relink};
use crate::snapshot::Snapshot;
use crate::source::TableVersion;

/// Changes that a view remembers: whoever knows an older revision asks everything.
const CHANGES_MAX: usize = 64;

/// All views as they were answered last, by their place.
#[derive(Debug)]
pub struct Views {
    views: Vec<View>,
    /// By which the persons of what is kept are numbered.
    index: Arc<Index>,
}

#[derive(Debug, Default)]
struct View {
    inputs: Option<Inputs>,
    kept: Kept,
    /// What changed, and the revision it made: of all views and computations, no two have the same.
    changes: VecDeque<(u64, Change)>,
}

impl View {
    fn revision(&self) -> u64 {
        self.changes.back().map_or(0, |(revision, _)| *revision)
    }

    fn changed(&mut self, change: Change) {
        static REVISIONS: AtomicU64 = AtomicU64::new(1);
        if self.changes.is_empty() || !matches!(change, Change::Nothing) {
            self.changes.push_back((REVISIONS.fetch_add(1, Ordering::Relaxed), change));
            self.changes.drain(..self.changes.len().saturating_sub(CHANGES_MAX));
        }
    }

    /// Persons go by other numbers now.
    fn renumber(&mut self, numbers: &[Option<PersonNo>]) {
        for (_, change) in &mut self.changes {
            change.renumber(numbers);
        }
        if self.kept.renumber(numbers) {
            // Whoever reads all rows reads others; of those who are still there nobody's are.
            self.changed(Change::Persons(Arc::default()));
        }
    }

    /// What is otherwise than at `revision`.
    fn since(&self, revision: u64) -> Change {
        match self.changes.iter().position(|(known, _)| *known == revision) {
            Some(place) => {
                let later = self.changes.iter().skip(place + 1).map(|(_, change)| change.clone());
                later.fold(Change::Nothing, Change::and)
            }
            None => Change::Everything,
        }
    }
}

impl Views {
    pub fn new(count: usize) -> Self {
        Self { views: (0..count).map(|_| View::default()).collect(), index: Arc::default() }
    }

    /// Has the persons go by their numbers in `index`.
    fn number_by(&mut self, index: &Arc<Index>) {
        if !Arc::ptr_eq(&self.index, index) {
            let numbers = relink::numbers(&self.index, index);
            self.views.iter_mut().for_each(|view| view.renumber(&numbers));
            self.index = index.clone();
        }
    }

    #[cfg(test)]
    pub fn kept(&self, place: usize) -> &Kept {
        &self.views[place].kept
    }

    pub fn revisions(&self) -> Vec<u64> {
        self.views.iter().map(View::revision).collect()
    }

    /// What whoever reads `reads` has to ask again, who was answered from `old` and would be from `new`.
    pub fn change(&self, reads: &Reads, old: &Inputs, new: &Inputs) -> Change {
        match old == new {
            true => Change::Nothing,
            false if !old.differs_in_views_alone(new) => Change::Everything,
            false => {
                let read = reads.views().iter().zip(old.views());
                read.map(|(view, revision)| self.views[*view].since(*revision)).fold(Change::Nothing, Change::and)
            }
        }
    }
}

/// One computation's way from its snapshot through the views.
#[derive(Debug)]
pub struct Pass<'a> {
    computer: &'a Computer,
    snapshot: Arc<Snapshot>,
    time: Time,
    pub views: &'a mut Views,
    pub arrivals: Arrivals,
    /// From the identities that views were answered by to that of the snapshot.
    relinkings: Vec<Arc<Relinking>>,
    /// Rows of views as questions have read them: of everybody or of some persons.
    handed_out: Vec<HandedOut>,
}

/// A view, whose rows of it, and the rows.
type HandedOut = (usize, Option<Arc<Persons>>, Arc<Vec<RecordBatch>>);

impl<'a> Pass<'a> {
    pub fn new(computer: &'a Computer, snapshot: Arc<Snapshot>, time: Time, views: &'a mut Views) -> Self {
        let (arrivals, relinkings, handed_out) = (Arrivals::default(), Vec::new(), Vec::new());
        Self { computer, snapshot, time, views, arrivals, relinkings, handed_out }
    }

    /// Brings every view to the snapshot.
    pub async fn update(&mut self) -> Result<(), Error> {
        self.views.number_by(&self.snapshot.identity);
        for place in 0..self.computer.definitions.views.len() {
            let (computer, revisions) = (self.computer, self.views.revisions());
            let new = Inputs::new(&computer.view_reads[place], &self.snapshot, &revisions, self.time);
            let old = self.views.views[place].inputs.clone();
            if old.as_ref() != Some(&new) {
                let change = self.ask_again(place, old, &new).await?;
                self.views.views[place].changed(change);
            }
            // Also where they are equal: the old ones have an index that nobody else needs any more.
            self.views.views[place].inputs = Some(new);
        }
        Ok(())
    }

    /// Asks as little of a view as its declaration allows.
    async fn ask_again(&mut self, place: usize, old: Option<Inputs>, new: &Inputs) -> Result<Change, Error> {
        let (computer, identity) = (self.computer, self.snapshot.identity.clone());
        let index = &*identity;
        let (view, reads) = (&computer.definitions.views[place], &computer.view_reads[place]);
        if let Some(old) = &old
            && let Some(column) = &computer.times_of[place]
            && let Some(behind) = old.grows_into(new)
        {
            let table = reads.tables().first().expect("what is asked by time reads a table");
            let relinking = old.relinked(new).map(|before| Since::Index(self.relinking(before)));
            let mut is_all = true;
            for since in [Some(Since::Offsets(behind)), relinking].into_iter().flatten() {
                let arrived = self.arrivals.of(computer, &self.snapshot, table, &since).await?;
                if arrived.moments.is_empty() {
                    continue;
                }
                let Some((times, own)) = arrived.rows(computer, &self.snapshot).await? else {
                    is_all = false;
                    break;
                };
                let what = format!("{} of times", view.name);
                let batches = computer.ask_little(own, &what, &view.sql, self.time).await?;
                // Known from now on, even if what follows fails: the rows are kept, and would not be found to be others again.
                let view = &mut self.views.views[place];
                let change = view.kept.take_times(times, column, batches, index)?;
                view.changed(change);
            }
            if is_all {
                return Ok(Change::Nothing);
            }
        }
        if view.by_person
            && let Some(old) = &old
        {
            match self.views.change(reads, old, new) {
                Change::Nothing => return Ok(Change::Nothing),
                Change::Persons(persons) if self.are_few(&persons) => {
                    let snapshot = self.snapshot_of(reads, Some(&persons))?;
                    let what = format!("{} of persons", view.name);
                    let batches = computer.ask_little(&snapshot, &what, &view.sql, self.time).await?;
                    return Ok(self.views.views[place].kept.take_persons(&persons, batches, index)?);
                }
                _ => {}
            }
        }
        let snapshot = self.snapshot_of(reads, None)?;
        let batches = computer.ask(&snapshot, &view.name, &view.sql, self.time).await?;
        let cut = view.by_time.then(|| i32::try_from(self.time.day).unwrap_or(i32::MAX));
        let kept = &mut self.views.views[place].kept;
        let change = kept.take_all(batches, cut, index)?;
        let (rows, bytes) = kept.size();
        tracing::trace!(view = view.name, rows, bytes, "kept");
        Ok(change)
    }

    /// What the snapshot's identity says otherwise than `before`.
    fn relinking(&mut self, before: &Arc<Index>) -> Arc<Relinking> {
        if let Some(known) = self.relinkings.iter().find(|known| known.is_from(before)) {
            return known.clone();
        }
        let relinking = Arc::new(Relinking::new(before, &self.snapshot.identity));
        self.relinkings.push(relinking.clone());
        relinking
    }

    /// Asking for them alone costs less than asking for everybody.
    pub fn are_few(&self, persons: &Persons) -> bool {
        persons.count_ones(..) <= self.snapshot.identity.persons.len() / 2
    }

    /// The snapshot's tables that are read, and the views that are read as tables beside them: all their rows, or those of `persons`
    /// and of nobody.
    pub fn snapshot_of(&mut self, reads: &Reads, persons: Option<&Arc<Persons>>) -> Result<Arc<Snapshot>, Error> {
        let table = |name: &String| Some((name.clone(), self.snapshot.tables.get(name)?.clone()));
        let mut tables: HashMap<String, TableVersion> = reads.tables().iter().filter_map(table).collect();
        for view in reads.views() {
            let is_it =
                |(known, of, _): &&HandedOut| known == view && of.as_ref().map(Arc::as_ptr) == persons.map(Arc::as_ptr);
            let rows = match self.handed_out.iter().find(is_it) {
                Some((_, _, rows)) => rows.clone(),
                None => {
                    let (kept, index) = (&self.views.views[*view].kept, &self.snapshot.identity);
                    let rows = Arc::new(persons.map_or_else(|| kept.all(index), |persons| kept.of(persons, index))?);
                    self.handed_out.push((*view, persons.cloned(), rows.clone()));
                    rows
                }
            };
            let name = format!("{SCHEMA}.{}", self.computer.definitions.views[*view].name);
            tables.insert(name, TableVersion::held(rows));
        }
        Ok(Arc::new(self.snapshot.with_tables(tables)))
    }
}
