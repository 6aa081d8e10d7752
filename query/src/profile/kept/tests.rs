//! What is kept holds against plain rows.

use std::collections::BTreeSet;

use datafusion::arrow::array::{
    Array as _, ArrayRef, Date32Array, Decimal128Array, Int64Array, StringArray, TimestampMicrosecondArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::common::cast::as_string_array;
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
        let persons = cast(batch.column(0), &DataType::Utf8).unwrap();
        let persons = as_string_array(&persons).unwrap();
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
        let index = Index::of_persons(&["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
        for (step, mut new, person, day) in steps {
            let before = model.clone();
            let change = match step {
                0 | 1 => {
                    model = new.clone();
                    kept.take_all(vec![batch(&new)], (step == 1).then_some(day), &index)
                }
                2 => {
                    new.iter_mut().for_each(|row| row.1 = day);
                    model.retain(|row| row.1 != day);
                    model.extend(&new);
                    kept.take_times(&Times::of([(day, noon(day))].into_iter()).unwrap(), TIME, vec![batch(&new)], &index)
                }
                _ => {
                    let persons: Persons = (1..=usize::from(person)).collect();
                    let is_asked_for = |row: &Row| (1..=person).contains(&row.0);
                    model.retain(|row| !is_asked_for(row));
                    model.extend(new.iter().filter(|row| is_asked_for(row)));
                    kept.take_persons(&persons, vec![batch(&new)], &index)
                }
            };
            model.sort_unstable();
            prop_assert_eq!(rows(kept.all(&index).unwrap()), model.clone());
            let persons: Persons = [2, 9].into_iter().collect();
            prop_assert_eq!(rows(kept.of(&persons, &index).unwrap()), [of(&model, 0), of(&model, 2)].concat());
            let told = match change.unwrap() {
                Change::Nothing => BTreeSet::new(),
                Change::Persons(persons) => persons.ones().map(|person| person as u8).collect(),
                Change::Everything => [0].into(),
            };
            let expected = changed(&before, &model);
            prop_assert_eq!(told, if expected.contains(&0) { [0].into() } else { expected });
        }
    }
}

#[test]
fn rows_stay_with_their_persons_by_other_numbers_and_go_with_who_is_gone() {
    let index = Index::of_persons(&["1", "2", "3"]);
    let mut kept = Kept::default();
    let all = [(0, 1, 7), (1, 1, 7), (2, 2, 7), (3, 3, 7)];
    kept.take_all(vec![batch(&all)], None, &index).unwrap();
    assert!(!kept.renumber(&[Some(1), Some(3), Some(4)]), "nobody is gone");
    let more = Index::of_persons(&["8", "1", "9", "2", "3"]);
    assert_eq!(rows(kept.of(&[1, 4].into_iter().collect(), &more).unwrap()), [all[0], all[1], all[3]]);
    assert!(kept.renumber(&[None, Some(0), None, None, Some(2)]));
    let fewer = Index::of_persons(&["1", "9", "3"]);
    assert_eq!(rows(kept.all(&fewer).unwrap()), [all[0], all[1], all[3]]);
    assert_eq!(rows(kept.of(&[0, 2].into_iter().collect(), &fewer).unwrap()), [all[0], all[1], all[3]]);

    // What is asked then of everybody says who has others.
    let index = Index::of_persons(&["1", "2", "3"]);
    let change = kept.take_all(vec![batch(&all)], None, &index).unwrap();
    assert!(matches!(change, Change::Persons(persons) if persons.ones().eq([1])));

    let mut change = Change::Persons(Arc::new([0, 1, 3].into_iter().collect()));
    change.renumber(&[Some(5), None, Some(6), Some(7)]);
    assert!(matches!(change, Change::Persons(persons) if persons.ones().eq([5, 7])));
}

#[test]
fn many_rows_are_kept_small_and_given_as_they_were() {
    const COUNT: i32 = 80_000;
    let index = Index::of_persons(&["1", "2", "3"]);
    let few = |row: i32| ["north", "south", "west"].get(row as usize % 4).map(ToString::to_string);
    let scores = (0..COUNT).map(|row| (row % 7 > 0).then_some(i128::from(row % 1001)));
    let columns: [(&str, ArrayRef); 5] = [
        ("score", Arc::new(scores.collect::<Decimal128Array>().with_precision_and_scale(6, 2).unwrap())),
        (PERSON, Arc::new((0..COUNT).map(|row| Some((row % 3 + 1).to_string())).collect::<StringArray>())),
        ("few", Arc::new((0..COUNT).map(few).collect::<StringArray>())),
        ("some", Arc::new((0..COUNT).map(|row| Some(format!("room {}", row / 3 % 1000))).collect::<StringArray>())),
        ("all", Arc::new((0..COUNT).map(|row| Some(format!("serial {row}"))).collect::<StringArray>())),
    ];
    let given = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap();
    let lines = |batches: Vec<RecordBatch>| {
        let text = pretty_format_batches(&batches).unwrap().to_string();
        let mut lines: Vec<_> = text.lines().map(ToString::to_string).collect();
        lines.sort_unstable();
        lines.dedup();
        lines
    };
    let mut kept = Kept::default();
    kept.take_all(vec![given.clone()], None, &index).unwrap();
    let types: Vec<_> = kept.parts[0].batch.columns().iter().map(|column| column.data_type().clone()).collect();
    let by = |keys: DataType, values: DataType| DataType::Dictionary(keys.into(), values.into());
    let (scores, text) = (DataType::Decimal128(6, 2), DataType::Utf8);
    let expected =
        [by(DataType::UInt16, scores), by(DataType::UInt8, text.clone()), by(DataType::UInt16, text.clone()), text];
    assert_eq!(types, expected);
    assert_eq!(lines(kept.all(&index).unwrap()), lines(vec![given.clone()]));
    // Rows that come later are put together with those.
    let persons: Persons = [1].into_iter().collect();
    let hers = BooleanArray::from_iter((0..COUNT).map(|row| Some(row % 3 == 1)));
    let change = kept.take_persons(&persons, vec![filter_record_batch(&given, &hers).unwrap()], &index).unwrap();
    assert!(matches!(change, Change::Nothing));
    kept.take_persons(&persons, vec![], &index).unwrap();
    kept.take_persons(&persons, vec![filter_record_batch(&given, &hers).unwrap()], &index).unwrap();
    kept.join().unwrap();
    assert_eq!(kept.parts.len(), 1);
    assert_eq!(lines(kept.all(&index).unwrap()), lines(vec![given]));
}

#[test]
fn rows_may_say_nothing_but_whose_they_are() {
    let index = Index::of_persons(&["1", "2", "3"]);
    let ids = |ids: &[&str]| {
        let column: ArrayRef = Arc::new(StringArray::from(ids.to_vec()));
        RecordBatch::try_from_iter_with_nullable([(PERSON, column, true)]).unwrap()
    };
    let given = |batches: Vec<RecordBatch>| {
        let mut given = Vec::new();
        for batch in batches {
            let ids = cast(batch.column(0), &DataType::Utf8).unwrap();
            given.extend(as_string_array(&ids).unwrap().iter().flatten().map(ToString::to_string));
        }
        given.sort_unstable();
        given
    };
    let mut kept = Kept::default();
    kept.take_all(vec![ids(&["3", "1"]), ids(&["2"])], None, &index).unwrap();
    assert_eq!(given(kept.all(&index).unwrap()), ["1", "2", "3"]);
    let persons: Persons = [0, 2].into_iter().collect();
    assert_eq!(given(kept.of(&persons, &index).unwrap()), ["1", "3"]);
    let change = kept.take_persons(&persons, vec![ids(&["3"])], &index).unwrap();
    assert!(matches!(change, Change::Persons(persons) if persons.ones().eq([0])));
    kept.join().unwrap();
    assert_eq!(given(kept.all(&index).unwrap()), ["2", "3"]);
}
