//! What is held and what is cut off: by hand, and for any order of landing and reading.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::array::{Int32Array, Int64Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::record_batch::RecordBatch;
use proptest::prelude::*;
use topic::Extent;

use super::Positions;
use super::held::{Held, Start};
use crate::source::TableVersion;

fn rows(places: &[(i32, i64)]) -> RecordBatch {
    let fields = [("kafka_partition", DataType::Int32), ("kafka_offset", DataType::Int64)];
    let schema = Schema::new(fields.map(|(name, data_type)| Field::new(name, data_type, false)).to_vec());
    let partitions = Int32Array::from_iter_values(places.iter().map(|(partition, _)| *partition));
    let offsets = Int64Array::from_iter_values(places.iter().map(|(_, offset)| *offset));
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(partitions), Arc::new(offsets)]).expect("two columns")
}

fn places(batches: &[RecordBatch]) -> Vec<(i32, i64)> {
    batches.iter().flat_map(|batch| super::held::places(batch).collect::<Vec<_>>()).collect()
}

#[test]
fn what_has_landed_is_cut_off_partition_by_partition() {
    let mut held = Held::default();
    held.meet(2);
    assert_eq!(held.start(&Extent { partition: 0, low: 0, high: 9 }), Start::Unknown);
    held.cut(&Positions::from([(0, 4), (1, 0)]));
    let start = |held: &Held, partition, low, high| held.start(&Extent { partition, low, high });
    assert_eq!(start(&held, 0, 0, 9), Start::At(4));
    assert_eq!(start(&held, 0, 5, 9), Start::Gap, "its next record is gone");
    assert_eq!(start(&held, 0, 0, 3), Start::Gap, "another log");
    assert_eq!(start(&held, 1, 2, 9), Start::At(2), "nothing has landed: the oldest is the next");

    // Offset 6 is a letter: read, and no row.
    held.add(Some(rows(&[(0, 4), (1, 2), (0, 5), (1, 3)])), &Positions::from([(0, 7), (1, 4)]));
    assert_eq!(held.next(), Positions::from([(0, 7), (1, 4)]));
    assert_eq!(places(&held.cut(&Positions::from([(0, 5), (1, 0)]))), [(1, 2), (0, 5), (1, 3)]);
    // Landing is ahead of the tail in one partition; what the log still gives of it has landed.
    assert_eq!(places(&held.cut(&Positions::from([(0, 9), (1, 3)]))), [(1, 3)]);
    assert_eq!(held.next(), Positions::from([(0, 9), (1, 4)]));
    held.add(Some(rows(&[(0, 8), (0, 9)])), &Positions::from([(0, 10)]));
    assert_eq!(places(&held.cut(&Positions::from([(0, 9), (1, 3)]))), [(1, 3), (0, 9)]);
}

#[test]
fn what_has_landed_stays_for_a_while() {
    let (mut held, now) = (Held::default(), Instant::now());
    held.meet(1);
    let recent = |held: &mut Held, landed, after| {
        let version = TableVersion { landed: Arc::new([(0, landed)].into()), ..TableVersion::held(Arc::default()) };
        held.cut(&version.landed);
        let recent = held.recent(&version, now + Duration::from_secs(after))?;
        Some((recent.from[&0], places(&recent.rows)))
    };
    assert_eq!(recent(&mut held, 4, 0), None, "nothing is read yet");
    held.begin(0, 4);
    held.add(Some(rows(&[(0, 4), (0, 5), (0, 6)])), &Positions::from([(0, 7)]));
    assert_eq!(recent(&mut held, 4, 0), Some((4, vec![])));
    assert_eq!(recent(&mut held, 6, 9), Some((4, vec![(0, 4), (0, 5)])));
    assert_eq!(recent(&mut held, 7, 10), Some((4, vec![(0, 4), (0, 5), (0, 6)])));
    assert_eq!(recent(&mut held, 7, 20), Some((7, vec![])));
    assert_eq!(recent(&mut held, 8, 20), None, "landing is ahead");
    held.begin(0, 8);
    assert_eq!(recent(&mut held, 8, 20), Some((8, vec![])), "7 was never read");
}

/// What may happen to a partition.
#[derive(Debug, Clone, Copy)]
enum Step {
    Read(i32, i64),
    Land(i32, i64),
    /// Reading begins anew, where lake and tail reach.
    Reopen,
    Seconds(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..2_i32, 1..40_i64).prop_map(|(partition, count)| Step::Read(partition, count)),
        3 => (0..2_i32, 1..40_i64).prop_map(|(partition, count)| Step::Land(partition, count)),
        1 => Just(Step::Reopen),
        1 => (1..12_u64).prop_map(Step::Seconds),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    /// Whatever order landing and reading come in, lake and tail hold each record once, up to the watermark; and what is recent
    /// holds with the tail each record since it began.
    #[test]
    fn lake_and_tail_hold_each_record_once(steps in steps()) {
        let (mut held, mut now) = (Held::default(), Instant::now());
        held.meet(2);
        let mut landed = Positions::from([(0, 0), (1, 0)]);
        let mut read = landed.clone();
        held.cut(&landed);
        (0..2).for_each(|partition| held.begin(partition, 0));
        for step in steps {
            match step {
                Step::Read(partition, count) => {
                    let first = read[&partition];
                    let places: Vec<_> = (first..first + count).map(|offset| (partition, offset)).collect();
                    read.insert(partition, first + count);
                    held.add(Some(rows(&places)), &Positions::from([(partition, first + count)]));
                }
                Step::Land(partition, count) => *landed.get_mut(&partition).expect("both are there") += count,
                Step::Reopen => {
                    for partition in 0..2 {
                        let offset = held.position(partition).expect("both are there");
                        held.begin(partition, offset);
                        read.insert(partition, offset);
                    }
                }
                Step::Seconds(seconds) => now += Duration::from_secs(seconds),
            }
            let tail = places(&held.cut(&landed));
            let next = held.next();
            let mut seen: BTreeMap<i32, BTreeSet<i64>> = BTreeMap::new();
            for (partition, offset) in &tail {
                prop_assert!(seen.entry(*partition).or_default().insert(*offset), "{partition}/{offset} twice");
            }
            for partition in 0..2 {
                let expected: BTreeSet<i64> = (landed[&partition]..next[&partition]).collect();
                prop_assert_eq!(seen.remove(&partition).unwrap_or_default(), expected);
                prop_assert_eq!(next[&partition], landed[&partition].max(read[&partition]));
            }
            let version = TableVersion { landed: Arc::new(landed.clone()), ..TableVersion::held(Arc::default()) };
            let recent = held.recent(&version, now);
            prop_assert_eq!(recent.is_some(), (0..2).all(|partition| read[&partition] >= landed[&partition]));
            if let Some(recent) = recent {
                let is_since = |(partition, offset): &(i32, i64)| *offset >= recent.from[partition];
                let mut since: Vec<_> = places(&recent.rows).into_iter().chain(tail).filter(is_since).collect();
                since.sort_unstable();
                let expected = (0..2).flat_map(|partition| (recent.from[&partition]..next[&partition]).map(move |offset| (partition, offset)));
                prop_assert_eq!(since, expected.collect::<Vec<_>>());
            }
        }
    }
}
