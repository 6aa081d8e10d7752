//! What is held and what is cut off: by hand, and for any order of landing and reading.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::arrow::array::{Int32Array, Int64Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::record_batch::RecordBatch;
use proptest::prelude::*;
use topic::Extent;

use super::Positions;
use super::held::{Held, Start};

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

proptest! {
    /// Whatever order landing and reading come in, lake and tail hold each record once, up to the watermark.
    #[test]
    fn lake_and_tail_hold_each_record_once(steps in prop::collection::vec((0..2_i32, 1..40_i64, any::<bool>()), 1..60)) {
        let mut held = Held::default();
        held.meet(2);
        let mut landed = Positions::from([(0, 0), (1, 0)]);
        let mut read = landed.clone();
        held.cut(&landed);
        for (partition, count, is_read) in steps {
            if is_read {
                let first = read[&partition];
                let places: Vec<_> = (first..first + count).map(|offset| (partition, offset)).collect();
                read.insert(partition, first + count);
                held.add(Some(rows(&places)), &Positions::from([(partition, first + count)]));
            } else {
                *landed.get_mut(&partition).expect("both are there") += count;
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
        }
    }
}
