//! Rows by person, and rows as they came. Rows become a part once, all together; after that some of them go.

use std::ops::Range;

use datafusion::arrow::array::{Array, BooleanArray, RecordBatch, UInt32Array};
use datafusion::arrow::compute::{concat_batches, filter_record_batch, max, min};
use datafusion::common::cast::{as_date32_array, as_string_array, as_timestamp_microsecond_array};
use datafusion::error::Result;
use fixedbitset::FixedBitSet;

use super::compact::{compact, person_ids, plain, take, with, without};
use super::hashes::hashes;
use super::{DAY, Digests, NOBODY, PART_ROWS_MAX, PERSON, Persons};
use crate::identity::{Index, PersonNo};
use crate::profile::times::Times;

/// Rows, and whose each of them is.
pub struct Rows {
    /// Without [`PERSON`].
    batch: RecordBatch,
    /// Where it was, if there was one.
    person_at: Option<usize>,
    persons: Vec<PersonNo>,
    /// Of all rows; of a person in one or several pieces.
    digests: Vec<(PersonNo, u64)>,
}

/// Rows that came with one answer, ordered by person.
#[derive(Debug, Clone)]
pub struct Part {
    /// As [`Rows::batch`].
    pub batch: RecordBatch,
    person_at: Option<usize>,
    groups: Vec<Group>,
    /// The first and the last day of the rows, where they have days.
    days: Option<(i32, i32)>,
    /// The others have been replaced by a later answer.
    is_valid: FixedBitSet,
    pub valid_count: usize,
}

/// The rows of one person, up to those of the next.
#[derive(Debug, Clone)]
struct Group {
    person: PersonNo,
    first: u32,
    /// Of the valid ones.
    digest: u64,
}

pub fn add(to: &mut Digests, others: impl Iterator<Item = (PersonNo, u64)>) {
    for (person, digest) in others {
        let sum = to.entry(person).or_default();
        *sum = sum.wrapping_add(digest);
    }
}

/// Sums of the hashes of rows, a piece for each run of rows of one person.
fn pieces(persons: impl Iterator<Item = PersonNo>, hashes: Vec<u64>) -> Vec<(PersonNo, u64)> {
    let mut pieces: Vec<(PersonNo, u64)> = Vec::new();
    for (person, hash) in persons.zip(hashes) {
        match pieces.last_mut() {
            Some((last, sum)) if *last == person => *sum = sum.wrapping_add(hash),
            _ => pieces.push((person, hash)),
        }
    }
    pieces
}

/// Whose each row is.
pub fn numbers(rows: &RecordBatch, index: &Index) -> Result<Vec<PersonNo>> {
    let Some(persons) = rows.column_by_name(PERSON) else { return Ok(vec![NOBODY; rows.num_rows()]) };
    let number = |person: Option<&str>| person.and_then(|person| index.number(person)).unwrap_or(NOBODY);
    Ok(as_string_array(persons)?.iter().map(number).collect())
}

impl Rows {
    pub fn new(batch: RecordBatch, persons: Vec<PersonNo>) -> Result<Self> {
        let digests = pieces(persons.iter().copied(), hashes(&batch)?);
        let (batch, person_at) = without(batch, PERSON);
        Ok(Self { batch, person_at, persons, digests })
    }

    pub fn all(batches: Vec<RecordBatch>, index: &Index) -> Result<Vec<Self>> {
        let rows = |batch: RecordBatch| {
            let persons = numbers(&batch, index)?;
            Self::new(batch, persons)
        };
        batches.into_iter().map(rows).collect()
    }
}

impl Part {
    /// The rows of `all`, in as many parts as they need.
    pub fn several(all: Vec<Rows>) -> Result<Vec<Self>> {
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
        let mut batch = concat_batches(batches[0].schema_ref(), &batches)?;
        drop(batches);
        let mut persons: Vec<PersonNo> = all.iter().flat_map(|rows| &rows.persons).copied().collect();
        if !persons.is_sorted() {
            // Parts that become one are in order already, each.
            let mut order: Vec<(PersonNo, u32)> = persons.into_iter().zip(0..).collect();
            order.sort_by_key(|(person, _)| *person);
            let rows: UInt32Array = order.iter().map(|(_, row)| *row).collect();
            batch = take(&batch, &rows)?;
            persons = order.into_iter().map(|(person, _)| person).collect();
        }
        let batch = compact(batch)?;
        let mut digests: Vec<_> = all.iter().flat_map(|rows| &rows.digests).copied().collect();
        digests.sort_by_key(|(person, _)| *person);
        let mut sums = digests.chunk_by(|one, other| one.0 == other.0).peekable();
        let sum =
            |pieces: &[(PersonNo, u64)]| pieces.iter().fold(0, |sum, (_, digest)| u64::wrapping_add(sum, *digest));
        let mut firsts: Vec<(PersonNo, u32)> = persons.iter().copied().zip(0..).collect();
        firsts.dedup_by_key(|(person, _)| *person);
        let group = |(person, first)| {
            let digest = sums.next_if(|pieces| pieces[0].0 == person).map_or(0, sum);
            Group { person, first, digest }
        };
        let groups = firsts.into_iter().map(group).collect();
        let days = batch.column_by_name(DAY).map(|days| as_date32_array(days)).transpose()?;
        let days = days.and_then(|days| min(days).zip(max(days)));
        let valid_count = persons.len();
        let mut is_valid = FixedBitSet::with_capacity(valid_count);
        is_valid.insert_range(..);
        Ok(Self { batch, person_at: all[0].person_at, groups, days, is_valid, valid_count })
    }

    pub fn renumber(&mut self, numbers: &[Option<PersonNo>]) {
        let mut groups = Vec::with_capacity(self.groups.len());
        for place in 0..self.groups.len() {
            let group = &self.groups[place];
            match numbers.get(group.person as usize) {
                // Nobody stays nobody.
                None => groups.push(group.clone()),
                Some(Some(person)) => groups.push(Group { person: *person, ..group.clone() }),
                Some(None) => self.group(place).for_each(|row| self.invalidate(row)),
            }
        }
        self.groups = groups;
    }

    pub fn size(&self) -> (usize, usize) {
        let beside = size_of_val(&*self.groups) + self.is_valid.len() / 8;
        (self.valid_count, self.batch.get_array_memory_size() + beside)
    }

    fn invalidate(&mut self, row: usize) {
        self.valid_count -= usize::from(self.is_valid.contains(row));
        self.is_valid.remove(row);
    }

    /// Some rows go; `digests` are theirs.
    pub fn remove(&mut self, rows: &[u32], digests: &Digests) {
        rows.iter().for_each(|row| self.invalidate(*row as usize));
        for (person, digest) in digests {
            if let Ok(place) = self.groups.binary_search_by_key(person, |group| group.person) {
                self.groups[place].digest = self.groups[place].digest.wrapping_sub(*digest);
            }
        }
    }

    /// The valid rows, as they were given.
    pub fn rows(&self) -> Result<Rows> {
        let persons = self.runs().flat_map(|(person, count)| std::iter::repeat_n(person, count)).collect();
        let (batch, digests) = (self.valid_rows()?, self.all_digests().collect());
        Ok(Rows { batch, person_at: self.person_at, persons, digests })
    }

    pub fn all_digests(&self) -> impl Iterator<Item = (PersonNo, u64)> {
        self.groups.iter().map(|group| (group.person, group.digest)).filter(|(_, digest)| *digest != 0)
    }

    /// Those of some rows.
    pub fn digests(&self, rows: &[u32], index: &Index) -> Result<Digests> {
        let mut digests = Digests::default();
        if !rows.is_empty() {
            let hashes = hashes(&plain(&self.take(rows, index)?)?)?;
            let persons = self.runs_of(rows).flat_map(|(person, count)| std::iter::repeat_n(person, count));
            add(&mut digests, pieces(persons, hashes).into_iter());
        }
        Ok(digests)
    }

    pub fn valid_rows(&self) -> Result<RecordBatch> {
        if self.valid_count == self.is_valid.len() {
            return Ok(self.batch.clone());
        }
        let is_valid: BooleanArray = (0..self.is_valid.len()).map(|row| Some(self.is_valid.contains(row))).collect();
        Ok(filter_record_batch(&self.batch, &is_valid)?)
    }

    /// Some rows, ascending, as they are asked.
    pub fn take(&self, rows: &[u32], index: &Index) -> Result<RecordBatch> {
        let batch = take(&self.batch, &UInt32Array::from(rows.to_vec()))?;
        self.with_ids(&batch, self.runs_of(rows), index)
    }

    /// The rows of `batch` with whose they are.
    pub fn with_ids(
        &self,
        batch: &RecordBatch,
        runs: impl Iterator<Item = (PersonNo, usize)>,
        index: &Index,
    ) -> Result<RecordBatch> {
        let Some(at) = self.person_at else { return Ok(batch.clone()) };
        let id = |person: PersonNo| (person != NOBODY).then(|| &*index.person(person).id);
        with(batch, at, PERSON, person_ids(runs.map(|(person, count)| (id(person), count)))?)
    }

    /// How many valid rows each person has, one after the other.
    pub fn runs(&self) -> impl Iterator<Item = (PersonNo, usize)> {
        let run = |place: usize| (self.groups[place].person, self.is_valid.count_ones(self.group(place)));
        (0..self.groups.len()).map(run).filter(|(_, count)| *count > 0)
    }

    /// The same of some rows, ascending.
    fn runs_of(&self, rows: &[u32]) -> impl Iterator<Item = (PersonNo, usize)> {
        let (mut rest, mut place) = (rows, 0);
        std::iter::from_fn(move || {
            let first = *rest.first()?;
            place += self.groups[place..].partition_point(|group| group.first <= first) - 1;
            let end = self.group(place).end;
            let count = rest.partition_point(|row| (*row as usize) < end);
            rest = &rest[count..];
            Some((self.groups[place].person, count))
        })
    }

    /// Where the rows of the group at `place` are.
    fn group(&self, place: usize) -> Range<usize> {
        let end = self.groups.get(place + 1).map_or(self.is_valid.len(), |next| next.first as usize);
        self.groups[place].first as usize..end
    }

    pub fn of_only(&self, persons: &Persons) -> Vec<u32> {
        let (mut rows, mut place) = (Vec::new(), 0);
        for person in persons.ones() {
            place += self.groups[place..].partition_point(|group| (group.person as usize) < person);
            match self.groups.get(place) {
                Some(group) if group.person as usize == person => rows.extend(self.valid(self.group(place))),
                Some(_) => {}
                None => break,
            }
        }
        rows
    }

    pub fn of(&self, persons: &Persons) -> Vec<u32> {
        let mut rows = self.of_only(persons);
        if self.groups.last().is_some_and(|last| last.person == NOBODY) {
            rows.extend(self.valid(self.group(self.groups.len() - 1)));
        }
        rows
    }

    fn valid(&self, rows: Range<usize>) -> impl Iterator<Item = u32> {
        rows.filter(|row| self.is_valid.contains(*row)).map(|row| row as u32)
    }

    pub fn of_times(&self, times: &Times, column: &str) -> Result<Vec<u32>> {
        let (days, ats) = (self.batch.column_by_name(DAY), self.batch.column_by_name(column));
        let is_outside = |(first, last): (i32, i32)| !times.days().iter().any(|day| (first..=last).contains(day));
        let (Some(days), Some(ats), false) = (days, ats, self.days.is_none_or(is_outside)) else {
            return Ok(Vec::new());
        };
        let (days, ats) = (as_date32_array(days)?, as_timestamp_microsecond_array(ats)?);
        let is_of = |row: &u32| {
            let row = *row as usize;
            days.is_valid(row) && ats.is_valid(row) && times.has(days.value(row), ats.value(row))
        };
        Ok(self.valid(0..self.is_valid.len()).filter(is_of).collect())
    }
}
