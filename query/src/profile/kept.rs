//! The rows of a view, by person. Answers enter; the rows of all or of some persons leave, and with every answer that is taken
//! in, who has other rows than before.
//!
//! Persons go by their numbers in the index of the identity: whatever is kept was answered by the same index. What is kept is
//! small: whose a row is is its number, and text that repeats is in a dictionary.

mod compact;
mod hashes;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::{Array, BooleanArray, RecordBatch, UInt32Array};
use datafusion::arrow::compute::{concat_batches, filter_record_batch, max, min, not, take_record_batch};
use datafusion::common::HashMap;
use datafusion::common::cast::{as_date32_array, as_string_array, as_timestamp_microsecond_array};
use datafusion::error::Result;
use fixedbitset::FixedBitSet;

use self::compact::{compact, person_ids, plain, with, without};
use self::hashes::hashes;
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

/// Rows, whose each of them is, and the hash of each.
#[derive(Debug, Clone)]
struct Rows {
    /// Without [`PERSON`].
    batch: RecordBatch,
    persons: Vec<PersonNo>,
    hashes: Vec<u64>,
    /// Where it was, if there was one.
    person_at: Option<usize>,
}

/// Rows that came with one answer, ordered by person.
#[derive(Debug, Clone)]
struct Part {
    rows: Rows,
    /// Where the rows of each person begin.
    groups: Vec<(PersonNo, usize)>,
    /// The first and the last day of the rows, where they have days.
    days: Option<(i32, i32)>,
    /// False for rows that a later answer has replaced.
    is_valid: Vec<bool>,
    valid_count: usize,
}

impl Kept {
    /// All rows; `index` says who goes by which number.
    pub fn all(&self, index: &Index) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        for part in &self.parts {
            let rows = part.valid_rows()?.with_ids(index)?;
            let starts = (0..rows.num_rows()).step_by(BATCH_ROWS);
            batches.extend(starts.map(|start| rows.slice(start, BATCH_ROWS.min(rows.num_rows() - start))));
        }
        Ok(batches)
    }

    /// The rows of `persons`, and those of nobody.
    pub fn of(&self, persons: &Persons, index: &Index) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        for part in &self.parts {
            let rows: Vec<u32> = part.of(persons).into_iter().map(|row| row as u32).collect();
            if !rows.is_empty() {
                batches.push(part.rows.take(rows)?.with_ids(index)?);
            }
        }
        Ok(batches)
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
        let change = Change::between(
            &digests(self.parts.iter().map(|part| (part, part.all_valid()))),
            &digests(new.iter().map(|part| (part, part.all_valid()))),
        );
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
        self.replace(went, Rows::all(batches, index)?)
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
        self.replace(went, own)
    }

    /// Rows of each part go, and others come.
    fn replace(&mut self, went: Vec<Vec<usize>>, came: Vec<Rows>) -> Result<Change> {
        let new = Part::several(came)?;
        let change = Change::between(
            &digests(self.parts.iter().zip(&went).map(|(part, rows)| (part, rows.iter().copied()))),
            &digests(new.iter().map(|part| (part, part.all_valid()))),
        );
        if !matches!(change, Change::Nothing) {
            for (part, rows) in self.parts.iter_mut().zip(went) {
                rows.into_iter().for_each(|row| part.invalidate(row));
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
            let joined = Part::several(vec![one.valid_rows()?.into_owned(), other.valid_rows()?.into_owned()])?;
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

fn digests<'a, R: IntoIterator<Item = usize>>(parts: impl Iterator<Item = (&'a Part, R)>) -> Digests {
    let mut digests = Digests::default();
    let mut add = |person: PersonNo, sum: u64| {
        if sum != 0 {
            let digest = digests.entry(person).or_default();
            *digest = digest.wrapping_add(sum);
        }
    };
    for (part, rows) in parts {
        let mut last = (NOBODY, 0_u64);
        for row in rows {
            let person = part.rows.persons[row];
            // Rows are ordered by person.
            if person != last.0 {
                let (before, sum) = std::mem::replace(&mut last, (person, 0));
                add(before, sum);
            }
            last.1 = last.1.wrapping_add(part.rows.hashes[row]);
        }
        add(last.0, last.1);
    }
    digests
}

/// Where the rows of each person begin.
fn groups(persons: &[PersonNo]) -> Vec<(PersonNo, usize)> {
    let mut groups: Vec<_> = persons.iter().copied().zip(0..).collect();
    groups.dedup_by_key(|(person, _)| *person);
    groups
}

/// Whose each row is.
fn numbers(rows: &RecordBatch, index: &Index) -> Result<Vec<PersonNo>> {
    let Some(persons) = rows.column_by_name(PERSON) else { return Ok(vec![NOBODY; rows.num_rows()]) };
    let number = |person: Option<&str>| person.and_then(|person| index.number(person)).unwrap_or(NOBODY);
    Ok(as_string_array(persons)?.iter().map(number).collect())
}

/// The values that are to be kept.
fn kept<T: Copy>(values: &[T], is_kept: &[bool]) -> Vec<T> {
    values.iter().zip(is_kept).filter(|(_, is_kept)| **is_kept).map(|(value, _)| *value).collect()
}

impl Rows {
    fn new(batch: RecordBatch, persons: Vec<PersonNo>) -> Result<Self> {
        let hashes = hashes(&batch)?;
        let (batch, person_at) = without(batch, PERSON);
        Ok(Self { batch, persons, hashes, person_at })
    }

    /// Those of some places, in their order.
    fn take(&self, rows: Vec<u32>) -> Result<Self> {
        let hashes = rows.iter().map(|row| self.hashes[*row as usize]).collect();
        let persons = rows.iter().map(|row| self.persons[*row as usize]).collect();
        let batch = take_record_batch(&self.batch, &UInt32Array::from(rows))?;
        Ok(Self { batch, persons, hashes, person_at: self.person_at })
    }

    /// The rows as they are asked, by person.
    fn with_ids(&self, index: &Index) -> Result<RecordBatch> {
        let Some(at) = self.person_at else { return Ok(self.batch.clone()) };
        let person = |number: PersonNo| (number != NOBODY).then(|| &*index.person(number).id);
        with(&self.batch, at, PERSON, person_ids(&self.persons, person)?)
    }

    fn all(batches: Vec<RecordBatch>, index: &Index) -> Result<Vec<Self>> {
        let rows = |batch: RecordBatch| {
            let persons = numbers(&batch, index)?;
            Self::new(batch, persons)
        };
        batches.into_iter().map(rows).collect()
    }
}

impl Part {
    /// The rows of `all`, in as many parts as they need.
    fn several(all: Vec<Rows>) -> Result<Vec<Self>> {
        let (mut parts, mut together, mut count) = (Vec::new(), Vec::new(), 0);
        for rows in all.into_iter().filter(|rows| !rows.persons.is_empty()) {
            if count > 0 && count + rows.persons.len() > PART_ROWS_MAX {
                parts.push(Self::new(&std::mem::take(&mut together))?);
                count = 0;
            }
            count += rows.persons.len();
            together.push(rows);
        }
        if count > 0 {
            parts.push(Self::new(&together)?);
        }
        Ok(parts)
    }

    fn new(all: &[Rows]) -> Result<Self> {
        let batches = all.iter().map(|rows| plain(&rows.batch)).collect::<Result<Vec<_>>>()?;
        let batch = concat_batches(batches[0].schema_ref(), &batches)?;
        drop(batches);
        let persons: Vec<PersonNo> = all.iter().flat_map(|rows| &rows.persons).copied().collect();
        let hashes: Vec<u64> = all.iter().flat_map(|rows| &rows.hashes).copied().collect();
        let mut rows = Rows { batch, persons, hashes, person_at: all[0].person_at };
        if !rows.persons.is_sorted() {
            // Parts that become one are in order already, each.
            let mut order: Vec<(PersonNo, u32)> = rows.persons.iter().copied().zip(0..).collect();
            order.sort_by_key(|(person, _)| *person);
            rows = rows.take(order.into_iter().map(|(_, row)| row).collect())?;
        }
        rows.batch = compact(rows.batch)?;
        let groups = groups(&rows.persons);
        let days = rows.batch.column_by_name(DAY).map(|days| as_date32_array(days)).transpose()?;
        let days = days.and_then(|days| min(days).zip(max(days)));
        let valid_count = rows.persons.len();
        Ok(Self { rows, groups, days, is_valid: vec![true; valid_count], valid_count })
    }

    fn renumber(&mut self, numbers: &[Option<PersonNo>]) {
        let mut last = 0;
        for row in 0..self.is_valid.len() {
            let person = self.rows.persons[row];
            match numbers.get(person as usize) {
                // Nobody stays nobody.
                None => continue,
                Some(Some(number)) => last = *number,
                // In order with the others, and never looked at again.
                Some(None) => self.invalidate(row),
            }
            self.rows.persons[row] = last;
        }
        self.groups = groups(&self.rows.persons);
    }

    fn invalidate(&mut self, row: usize) {
        self.valid_count -= usize::from(std::mem::replace(&mut self.is_valid[row], false));
    }

    fn all_valid(&self) -> impl Iterator<Item = usize> {
        (0..self.is_valid.len()).filter(|row| self.is_valid[*row])
    }

    fn valid_rows(&self) -> Result<Cow<'_, Rows>> {
        if self.valid_count == self.is_valid.len() {
            return Ok(Cow::Borrowed(&self.rows));
        }
        let Rows { batch, persons, hashes, person_at } = &self.rows;
        let (persons, hashes) = (kept(persons, &self.is_valid), kept(hashes, &self.is_valid));
        let batch = filter_record_batch(batch, &BooleanArray::from(self.is_valid.clone()))?;
        Ok(Cow::Owned(Rows { batch, persons, hashes, person_at: *person_at }))
    }

    /// Where the rows of the group at `place` are.
    fn group(&self, place: usize) -> Range<usize> {
        let end = self.groups.get(place + 1).map_or(self.is_valid.len(), |(_, start)| *start);
        self.groups[place].1..end
    }

    fn of_only(&self, persons: &Persons) -> Vec<usize> {
        let (mut rows, mut place) = (Vec::new(), 0);
        for person in persons.ones() {
            place += self.groups[place..].partition_point(|(known, _)| (*known as usize) < person);
            match self.groups.get(place) {
                Some((known, _)) if *known as usize == person => {
                    rows.extend(self.group(place).filter(|row| self.is_valid[*row]));
                }
                Some(_) => {}
                None => break,
            }
        }
        rows
    }

    fn of(&self, persons: &Persons) -> Vec<usize> {
        let mut rows = self.of_only(persons);
        if self.groups.last().is_some_and(|(last, _)| *last == NOBODY) {
            rows.extend(self.group(self.groups.len() - 1).filter(|row| self.is_valid[*row]));
        }
        rows
    }

    fn of_times(&self, times: &Times, column: &str) -> Result<Vec<usize>> {
        let batch = &self.rows.batch;
        let (days, ats) = (batch.column_by_name(DAY), batch.column_by_name(column));
        let is_outside = |(first, last): (i32, i32)| !times.days().iter().any(|day| (first..=last).contains(day));
        let (Some(days), Some(ats), false) = (days, ats, self.days.is_none_or(is_outside)) else {
            return Ok(Vec::new());
        };
        let (days, ats) = (as_date32_array(days)?, as_timestamp_microsecond_array(ats)?);
        let is_of = |row: &usize| {
            self.is_valid[*row]
                && days.is_valid(*row)
                && ats.is_valid(*row)
                && times.has(days.value(*row), ats.value(*row))
        };
        Ok((0..self.is_valid.len()).filter(is_of).collect())
    }
}
