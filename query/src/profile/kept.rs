//! The rows of a view, by person. Answers enter; the rows of all or of some persons leave, and with every answer that is taken
//! in, who has other rows than before.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::{Array, BooleanArray, RecordBatch, StringArray, UInt32Array};
use datafusion::arrow::compute::{concat_batches, filter_record_batch, max, min, not, take_record_batch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::common::HashMap as FastMap;
use datafusion::common::cast::{as_date32_array, as_string_array, as_timestamp_microsecond_array};
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::error::Result;

use super::times::Times;

/// Columns that say whose and of which day a row is.
const PERSON: &str = "person_id";
const DAY: &str = "biz_date";

/// Who rows without a person are of.
const NOBODY: &str = "";

/// Rows of one part at most: columns have 32-bit offsets.
const PART_ROWS_MAX: usize = 8_000_000;

/// Rows that are handed out in one batch: they are shared, not copied.
const BATCH_ROWS: usize = 32_768;

pub type Persons = HashSet<Arc<str>>;

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

    /// From what rows went and came, by person.
    fn between(went: &Digests<'_>, came: &Digests<'_>) -> Self {
        let others =
            went.iter().filter(|(person, digest)| came.get(*person) != Some(digest)).map(|(person, _)| *person);
        let new = came.keys().filter(|person| !went.contains_key(*person)).copied();
        let persons: Persons = others.chain(new).map(Arc::from).collect();
        match persons.is_empty() {
            true => Self::Nothing,
            false if persons.contains(NOBODY) => Self::Everything,
            false => Self::Persons(Arc::new(persons)),
        }
    }
}

/// Sums of the hashes of rows, by person: equal for the same rows in any order.
type Digests<'a> = FastMap<&'a str, u64>;

/// The rows of one view.
#[derive(Debug, Default)]
pub struct Kept {
    parts: Vec<Part>,
}

/// Rows that came with one answer, ordered by person.
#[derive(Debug, Clone)]
struct Part {
    rows: RecordBatch,
    hashes: Vec<u64>,
    groups: FastMap<Box<str>, Range<usize>>,
    /// The first and the last day of the rows, where they have days.
    days: Option<(i32, i32)>,
    /// False for rows that a later answer has replaced.
    is_valid: Vec<bool>,
    valid_count: usize,
}

impl Kept {
    /// All rows.
    pub fn all(&self) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        for part in &self.parts {
            let rows = part.valid_rows()?;
            let starts = (0..rows.num_rows()).step_by(BATCH_ROWS);
            batches.extend(starts.map(|start| rows.slice(start, BATCH_ROWS.min(rows.num_rows() - start))));
        }
        Ok(batches)
    }

    /// The rows of `persons`, and those of nobody.
    pub fn of(&self, persons: &Persons) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        for part in &self.parts {
            let rows: Vec<u32> = part.of(persons).map(|row| row as u32).collect();
            if !rows.is_empty() {
                batches.push(take_record_batch(&part.rows, &UInt32Array::from(rows))?);
            }
        }
        Ok(batches)
    }

    /// `batches` are all rows from now on. Days from `cut` on are those that will be asked again most: they get parts of their own.
    pub fn take_all(&mut self, batches: Vec<RecordBatch>, cut: Option<i32>) -> Result<Change> {
        let new = match cut {
            Some(cut) => {
                let (before, after) = cut_at(batches, cut)?;
                [Part::several(before)?, Part::several(after)?].concat()
            }
            None => Part::several(batches)?,
        };
        let change = Change::between(
            &digests(self.parts.iter().map(|part| (part, part.all_valid()))),
            &digests(new.iter().map(|part| (part, part.all_valid()))),
        );
        self.parts = new;
        Ok(change)
    }

    /// `batches` are all rows of `times` from now on; `column` says when a row's event was.
    pub fn take_times(&mut self, times: &Times, column: &str, batches: Vec<RecordBatch>) -> Result<Change> {
        self.join()?;
        let went = self.parts.iter().map(|part| part.of_times(times, column)).collect::<Result<Vec<_>>>()?;
        self.replace(went, batches)
    }

    /// `batches` are all rows of `persons` from now on; what they have of others is left out.
    pub fn take_persons(&mut self, persons: &Persons, batches: Vec<RecordBatch>) -> Result<Change> {
        self.join()?;
        let is_asked_for = |person: Option<&str>| Some(person.is_some_and(|person| persons.contains(person)));
        let mut own = Vec::new();
        for batch in batches {
            let Some(column) = batch.column_by_name(PERSON) else { continue };
            let is_own: BooleanArray = as_string_array(column)?.iter().map(is_asked_for).collect();
            own.push(filter_record_batch(&batch, &is_own)?);
        }
        let went = self.parts.iter().map(|part| part.of_only(persons).collect()).collect();
        self.replace(went, own)
    }

    /// Rows of each part go, and `batches` come.
    fn replace(&mut self, went: Vec<Vec<usize>>, batches: Vec<RecordBatch>) -> Result<Change> {
        let new = Part::several(batches)?;
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
            let joined = Part::several(vec![one.valid_rows()?, other.valid_rows()?])?;
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

fn digests<'a, R: IntoIterator<Item = usize>>(parts: impl Iterator<Item = (&'a Part, R)>) -> Digests<'a> {
    let mut digests = Digests::default();
    for (part, rows) in parts {
        let persons = part.persons();
        let mut last: (&str, u64) = (NOBODY, 0);
        for row in rows {
            let person =
                persons.map_or(NOBODY, |persons| if persons.is_null(row) { NOBODY } else { persons.value(row) });
            // Rows are ordered by person.
            if person != last.0 {
                let (before, sum) = std::mem::replace(&mut last, (person, 0));
                add(&mut digests, before, sum);
            }
            last.1 = last.1.wrapping_add(part.hashes[row]);
        }
        add(&mut digests, last.0, last.1);
    }
    digests
}

fn add<'a>(digests: &mut Digests<'a>, person: &'a str, sum: u64) {
    if sum != 0 {
        let digest = digests.entry(person).or_default();
        *digest = digest.wrapping_add(sum);
    }
}

impl Part {
    /// The rows of `batches`, in as many parts as they need.
    fn several(batches: Vec<RecordBatch>) -> Result<Vec<Self>> {
        let Some(schema) = batches.first().map(RecordBatch::schema) else { return Ok(Vec::new()) };
        let (mut parts, mut together, mut count) = (Vec::new(), Vec::new(), 0);
        for batch in batches.into_iter().filter(|batch| batch.num_rows() > 0) {
            if count + batch.num_rows() > PART_ROWS_MAX {
                parts.push(Self::new(&schema, &std::mem::take(&mut together))?);
                count = 0;
            }
            count += batch.num_rows();
            together.push(batch);
        }
        if count > 0 || parts.is_empty() {
            parts.push(Self::new(&schema, &together)?);
        }
        Ok(parts)
    }

    fn new(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Self> {
        let rows = concat_batches(schema, batches)?;
        let (order, groups) = match rows.column_by_name(PERSON) {
            Some(persons) => by_person(as_string_array(persons)?),
            None => (None, FastMap::from_iter([(NOBODY.into(), 0..rows.num_rows())])),
        };
        let rows = order.map_or(Ok(rows.clone()), |order| take_record_batch(&rows, &order))?;
        let days = rows.column_by_name(DAY).map(|days| as_date32_array(days)).transpose()?;
        let days = days.and_then(|days| min(days).zip(max(days)));
        let (hashes, valid_count) = (hashes(&rows)?, rows.num_rows());
        Ok(Self { rows, hashes, groups, days, is_valid: vec![true; valid_count], valid_count })
    }

    fn persons(&self) -> Option<&StringArray> {
        self.rows.column_by_name(PERSON).and_then(|persons| persons.as_any().downcast_ref())
    }

    fn invalidate(&mut self, row: usize) {
        self.valid_count -= usize::from(std::mem::replace(&mut self.is_valid[row], false));
    }

    fn all_valid(&self) -> impl Iterator<Item = usize> {
        (0..self.rows.num_rows()).filter(|row| self.is_valid[*row])
    }

    fn valid_rows(&self) -> Result<RecordBatch> {
        match self.valid_count == self.rows.num_rows() {
            true => Ok(self.rows.clone()),
            false => Ok(filter_record_batch(&self.rows, &BooleanArray::from(self.is_valid.clone()))?),
        }
    }

    fn of_only(&self, persons: &Persons) -> impl Iterator<Item = usize> {
        let groups = persons.iter().filter_map(|person| self.groups.get(&**person).cloned());
        groups.flatten().filter(|row| self.is_valid[*row])
    }

    fn of(&self, persons: &Persons) -> impl Iterator<Item = usize> {
        let nobody = self.groups.get(NOBODY).cloned().into_iter().flatten().filter(|row| self.is_valid[*row]);
        nobody.chain(self.of_only(persons))
    }

    fn of_times(&self, times: &Times, column: &str) -> Result<Vec<usize>> {
        let (days, ats) = (self.rows.column_by_name(DAY), self.rows.column_by_name(column));
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
        Ok((0..self.rows.num_rows()).filter(is_of).collect())
    }
}

/// The order that puts the rows of a person together, and where they are then.
fn by_person(persons: &StringArray) -> (Option<UInt32Array>, FastMap<Box<str>, Range<usize>>) {
    let mut numbers: FastMap<&str, usize> = FastMap::default();
    let (mut number_of, mut counts) = (Vec::with_capacity(persons.len()), Vec::new());
    for person in persons {
        let next = numbers.len();
        let number = *numbers.entry(person.unwrap_or(NOBODY)).or_insert(next);
        if number == next {
            counts.push(0);
        }
        counts[number] += 1;
        number_of.push(number);
    }
    let ends = counts.iter().scan(0, |end, count| {
        *end += count;
        Some(*end)
    });
    let mut next: Vec<usize> = ends.zip(&counts).map(|(end, count)| end - count).collect();
    let groups =
        numbers.into_iter().map(|(person, number)| (person.into(), next[number]..next[number] + counts[number]));
    let groups = groups.collect();
    let mut order = vec![0; persons.len()];
    for (row, number) in number_of.into_iter().enumerate() {
        order[next[number]] = row as u32;
        next[number] += 1;
    }
    (Some(UInt32Array::from(order)), groups)
}

/// A hash of each row. Every column counts by its place, so that a value that moves to another column is another row.
fn hashes(rows: &RecordBatch) -> Result<Vec<u64>> {
    const SEED: RandomState = RandomState::with_seed(0);
    const NULL: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut sums = vec![1; rows.num_rows()];
    let mut values = vec![0; rows.num_rows()];
    for column in rows.columns() {
        let encoded;
        let flat = if column.data_type().is_nested() {
            // What is null deep inside counts too.
            let converter = RowConverter::new(vec![SortField::new(column.data_type().clone())])?;
            encoded = converter.convert_columns(std::slice::from_ref(column))?;
            Arc::new(encoded.try_into_binary()?) as _
        } else {
            column.clone()
        };
        values.fill(0);
        create_hashes([&flat], &SEED, &mut values)?;
        for (row, sum) in sums.iter_mut().enumerate() {
            let value = if flat.is_null(row) { NULL } else { values[row] };
            *sum = mixed(u64::rotate_left(*sum, 5) ^ value);
        }
    }
    Ok(sums)
}

/// MurmurHash3's finalizer: sums of mixed values say which values they are of.
fn mixed(value: u64) -> u64 {
    let value = (value ^ (value >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    let value = (value ^ (value >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    value ^ (value >> 33)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use datafusion::arrow::array::{ArrayRef, Date32Array, Int64Array, TimestampMicrosecondArray};
    use proptest::prelude::*;

    use super::*;

    /// Person (0 for nobody), day, value. Each day has one event, at noon.
    type Row = (u8, i32, i64);

    const TIME: &str = "event_time";

    fn noon(day: i32) -> i64 {
        (i64::from(day) * 24 + 12) * 3_600_000_000
    }

    fn batch(rows: &[Row]) -> RecordBatch {
        let person = |(person, ..): &Row| (*person > 0).then(|| person.to_string());
        let columns: [(&str, ArrayRef); 4] = [
            (PERSON, Arc::new(rows.iter().map(person).collect::<StringArray>())),
            (DAY, Arc::new(Date32Array::from_iter_values(rows.iter().map(|row| row.1)))),
            ("value", Arc::new(rows.iter().map(|row| row.2).collect::<Int64Array>())),
            (TIME, Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| noon(row.1))))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
    }

    fn rows(batches: Vec<RecordBatch>) -> Vec<Row> {
        let mut rows = Vec::new();
        for batch in batches {
            let persons = as_string_array(batch.column(0)).unwrap();
            let days = as_date32_array(batch.column(1)).unwrap();
            let values: &Int64Array = batch.column(2).as_any().downcast_ref().unwrap();
            let person = |row| if persons.is_null(row) { 0 } else { persons.value(row).parse().unwrap() };
            rows.extend((0..batch.num_rows()).map(|row| (person(row), days.value(row), values.value(row))));
        }
        rows.sort_unstable();
        rows
    }

    fn of(rows: &[Row], person: u8) -> Vec<Row> {
        rows.iter().filter(|row| row.0 == person).copied().collect()
    }

    /// Everybody whose rows are others.
    fn changed(before: &[Row], after: &[Row]) -> BTreeSet<u8> {
        (0..6).filter(|person| of(before, *person) != of(after, *person)).collect()
    }

    fn some_rows() -> impl Strategy<Value = Vec<Row>> {
        proptest::collection::vec((0..6_u8, 0..4_i32, 0..3_i64), 0..30)
    }

    proptest! {
        #[test]
        fn rows_are_those_of_the_last_answers(steps in proptest::collection::vec((0..4_u8, some_rows(), 0..6_u8, 0..4_i32), 1..8)) {
            let (mut kept, mut model): (Kept, Vec<Row>) = Default::default();
            for (step, mut new, person, day) in steps {
                let before = model.clone();
                let change = match step {
                    0 | 1 => {
                        model = new.clone();
                        kept.take_all(vec![batch(&new)], (step == 1).then_some(day))
                    }
                    2 => {
                        new.iter_mut().for_each(|row| row.1 = day);
                        model.retain(|row| row.1 != day);
                        model.extend(&new);
                        kept.take_times(&Times::of([(day, noon(day))].into_iter()).unwrap(), TIME, vec![batch(&new)])
                    }
                    _ => {
                        let persons: Persons = (1..=person).map(|person| person.to_string().into()).collect();
                        let is_asked_for = |row: &Row| (1..=person).contains(&row.0);
                        model.retain(|row| !is_asked_for(row));
                        model.extend(new.iter().filter(|row| is_asked_for(row)));
                        kept.take_persons(&persons, vec![batch(&new)])
                    }
                };
                model.sort_unstable();
                prop_assert_eq!(rows(kept.all().unwrap()), model.clone());
                let persons: Persons = [Arc::from("2"), Arc::from("9")].into();
                prop_assert_eq!(rows(kept.of(&persons).unwrap()), [of(&model, 0), of(&model, 2)].concat());
                let told = match change.unwrap() {
                    Change::Nothing => BTreeSet::new(),
                    Change::Persons(persons) => persons.iter().map(|person| person.parse().unwrap()).collect(),
                    Change::Everything => [0].into(),
                };
                let expected = changed(&before, &model);
                prop_assert_eq!(told, if expected.contains(&0) { [0].into() } else { expected });
            }
        }
    }
}
