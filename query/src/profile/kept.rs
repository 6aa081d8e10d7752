//! The rows of a view, by person. Answers enter; the rows of all or of some persons leave, and with every answer that is taken
//! in, who has other rows than before.
//!
//! Persons go by their numbers in the index of the identity: whatever is kept was answered by the same index. What is kept is
//! small: whose a row is is its number, and text that repeats is in a dictionary.

mod compact;
mod hashes;
mod part;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use datafusion::arrow::array::{BooleanArray, RecordBatch};
use datafusion::arrow::compute::{filter_record_batch, not};
use datafusion::common::HashMap;
use datafusion::common::cast::as_date32_array;
use datafusion::error::Result;
use fixedbitset::FixedBitSet;

use self::part::{Part, Rows, add, numbers};
use super::times::Times;
use crate::identity::{Index, PersonNo};

/// Columns that say whose and of which day a row is.
const PERSON: &str = "person_id";
const DAY: &str = "biz_date";

/// Who rows without a person are of; behind everybody.
const NOBODY: PersonNo = PersonNo::MAX;

/// Rows of one part at most: columns have 32-bit offsets.
const PART_ROWS_MAX: usize = 8_000_000;

/// Rows that are handed out in one batch: they are shared, not copied.
const BATCH_ROWS: usize = 32_768;

/// Some persons of an index, by their numbers.
pub type Persons = FixedBitSet;

/// What an answer has otherwise than the one before.
#[derive(Debug, Clone)]
pub enum Change {
    Nothing,
    /// Rows of these persons alone.
    Persons(Arc<Persons>),
    Everything,
}

impl Change {
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Everything, _) | (_, Self::Everything) => Self::Everything,
            (Self::Nothing, change) | (change, Self::Nothing) => change,
            (Self::Persons(one), Self::Persons(other)) if Arc::ptr_eq(&one, &other) => Self::Persons(one),
            (Self::Persons(one), Self::Persons(other)) => Self::Persons(Arc::new(&*one | &*other)),
        }
    }

    /// Persons go by other numbers now, ascending as before; none of who is no longer there.
    pub fn renumber(&mut self, numbers: &[Option<PersonNo>]) {
        if let Self::Persons(persons) = self {
            let known = persons.ones().filter_map(|person| numbers.get(person).copied().flatten());
            *persons = Arc::new(known.map(|person| person as usize).collect());
        }
    }

    /// From what rows went and came, by person.
    fn between(went: &Digests, came: &Digests) -> Self {
        let others =
            went.iter().filter(|(person, digest)| came.get(*person) != Some(*digest)).map(|(person, _)| *person);
        let new = came.keys().filter(|person| !went.contains_key(*person)).copied();
        let persons: Vec<usize> = others.chain(new).map(|person| person as usize).collect();
        match persons.iter().max() {
            None => Self::Nothing,
            Some(last) if *last == NOBODY as usize => Self::Everything,
            Some(_) => Self::Persons(Arc::new(persons.into_iter().collect())),
        }
    }
}

/// Sums of the hashes of rows, by person: equal for the same rows in any order.
type Digests = HashMap<PersonNo, u64>;

/// The rows of one view.
#[derive(Debug, Default)]
pub struct Kept {
    parts: Vec<Part>,
}

impl Kept {
    /// All rows; `index` says who goes by which number.
    pub fn all(&self, index: &Index) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        for part in &self.parts {
            let rows = part.with_ids(&part.valid_rows()?, part.runs(), index)?;
            let starts = (0..rows.num_rows()).step_by(BATCH_ROWS);
            batches.extend(starts.map(|start| rows.slice(start, BATCH_ROWS.min(rows.num_rows() - start))));
        }
        Ok(batches)
    }

    /// The rows of `persons`, and those of nobody.
    pub fn of(&self, persons: &Persons, index: &Index) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        for part in &self.parts {
            let rows = part.of(persons);
            if !rows.is_empty() {
                batches.push(part.take(&rows, index)?);
            }
        }
        Ok(batches)
    }

    /// Rows, and the memory they take.
    pub fn size(&self) -> (usize, usize) {
        let sizes = self.parts.iter().map(Part::size);
        sizes.fold((0, 0), |(rows, bytes), size| (rows + size.0, bytes + size.1))
    }

    /// As [`Change::renumber`]. True when rows went with persons who are no longer there.
    pub fn renumber(&mut self, numbers: &[Option<PersonNo>]) -> bool {
        let count = |parts: &[Part]| parts.iter().map(|part| part.valid_count).sum::<usize>();
        let before = count(&self.parts);
        self.parts.iter_mut().for_each(|part| part.renumber(numbers));
        self.parts.retain(|part| part.valid_count > 0);
        count(&self.parts) < before
    }

    /// `batches` are all rows from now on. Days from `cut` on are those that will be asked again most: they get parts of their own.
    pub fn take_all(&mut self, batches: Vec<RecordBatch>, cut: Option<i32>, index: &Index) -> Result<Change> {
        let new = match cut {
            Some(cut) => {
                let (before, after) = cut_at(batches, cut)?;
                [Part::several(Rows::all(before, index)?)?, Part::several(Rows::all(after, index)?)?].concat()
            }
            None => Part::several(Rows::all(batches, index)?)?,
        };
        let change = Change::between(&digests(&self.parts), &digests(&new));
        self.parts = new;
        Ok(change)
    }

    /// `batches` are all rows of `times` from now on; `column` says when a row's event was.
    pub fn take_times(
        &mut self,
        times: &Times,
        column: &str,
        batches: Vec<RecordBatch>,
        index: &Index,
    ) -> Result<Change> {
        self.join()?;
        let went = self.parts.iter().map(|part| part.of_times(times, column)).collect::<Result<Vec<_>>>()?;
        self.replace(went, Rows::all(batches, index)?, index)
    }

    /// `batches` are all rows of `persons` from now on; what they have of others is left out.
    pub fn take_persons(&mut self, persons: &Persons, batches: Vec<RecordBatch>, index: &Index) -> Result<Change> {
        self.join()?;
        let mut own = Vec::new();
        for batch in batches {
            let of = numbers(&batch, index)?;
            let is_own: Vec<bool> = of.iter().map(|person| persons.contains(*person as usize)).collect();
            let rows =
                if is_own.contains(&false) { filter_record_batch(&batch, &is_own.clone().into())? } else { batch };
            own.push(Rows::new(rows, kept(&of, &is_own))?);
        }
        let went = self.parts.iter().map(|part| part.of_only(persons)).collect();
        self.replace(went, own, index)
    }

    /// Rows of each part go, and others come.
    fn replace(&mut self, went: Vec<Vec<u32>>, came: Vec<Rows>, index: &Index) -> Result<Change> {
        let new = Part::several(came)?;
        let left = self.parts.iter().zip(&went).map(|(part, rows)| part.digests(rows, index));
        let left = left.collect::<Result<Vec<_>>>()?;
        let mut before = Digests::default();
        left.iter().for_each(|digests| add(&mut before, digests.iter().map(|(person, digest)| (*person, *digest))));
        let change = Change::between(&before, &digests(&new));
        if !matches!(change, Change::Nothing) {
            for (part, (rows, digests)) in self.parts.iter_mut().zip(went.iter().zip(&left)) {
                part.remove(rows, digests);
            }
            self.parts.retain(|part| part.valid_count > 0);
            self.parts.extend(new);
        }
        Ok(change)
    }

    /// Makes the last parts one while they are of like size: so parts stay few, and a row is moved seldom.
    fn join(&mut self) -> Result<()> {
        while let [.., one, other] = &self.parts[..]
            && one.valid_count <= 2 * other.valid_count
            && one.valid_count + other.valid_count <= PART_ROWS_MAX
        {
            let joined = Part::several(vec![one.rows()?, other.rows()?])?;
            self.parts.truncate(self.parts.len() - 2);
            self.parts.extend(joined);
        }
        Ok(())
    }
}

/// Rows of the days before `cut`, and the others.
fn cut_at(batches: Vec<RecordBatch>, cut: i32) -> Result<(Vec<RecordBatch>, Vec<RecordBatch>)> {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for batch in batches {
        let Some(days) = batch.column_by_name(DAY) else {
            before.push(batch);
            continue;
        };
        let is_after: BooleanArray =
            as_date32_array(days)?.iter().map(|day| Some(day.is_some_and(|day| day >= cut))).collect();
        after.push(filter_record_batch(&batch, &is_after)?);
        before.push(filter_record_batch(&batch, &not(&is_after)?)?);
    }
    Ok((before, after))
}

/// Those of all rows.
fn digests(parts: &[Part]) -> Digests {
    let mut all = Digests::default();
    parts.iter().for_each(|part| add(&mut all, part.all_digests()));
    all
}

/// The values that are to be kept.
fn kept<T: Copy>(values: &[T], is_kept: &[bool]) -> Vec<T> {
    values.iter().zip(is_kept).filter(|(_, is_kept)| **is_kept).map(|(value, _)| *value).collect()
}
