//! Where what came is looked for: in memory, and in the lake only where a file may have it.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use lake::Span;

use super::computer;
use crate::fixture::{Arrival, contracts, rows, version};
use crate::profile::arrivals::Arrivals;
use crate::snapshot::Snapshot;
use crate::source::{Recent, TableVersion};
use crate::tail::{Positions, places};

const TABLE: &str = "access_control.access_event";

/// 2026-09-03 08:00 in Shanghai, and its day.
const EIGHT: i64 = 1_788_393_600_000_000;
const DAY: i32 = 20_699;

/// A passage at a minute past eight.
async fn passage(offset: usize, minute: u32) -> Vec<RecordBatch> {
    let columns = "device_id, door_no, event_time, event_serial, direction, direction_source, result, place_kind";
    let values =
        format!("('D1', 1, '2026-09-03T00:{minute:02}:00Z', {offset}, 'in', 'device', 'granted', 'dorm_gate')");
    let at = "2026-09-03T00:30:00Z";
    let arrival = Arrival { offset, changed_at: at, received_at: at };
    rows(contracts().get(TABLE).unwrap(), columns, &values, &arrival).await
}

/// The offsets that are found of the moments of what came behind offset 1: 1 has landed, 2 has not, and `lake` is what the lake has.
async fn found(lake: Vec<RecordBatch>, recent: Option<Recent>) -> Vec<i64> {
    let contracts = contracts();
    let passages = TableVersion {
        landed: Arc::new([(0, 2)].into()),
        tail: Arc::new(passage(2, 5).await),
        next: Arc::new([(0, 3)].into()),
        recent: recent.map(Arc::new),
        ..version(contracts.get(TABLE).unwrap(), 1, lake)
    };
    let snapshot = Arc::new(Snapshot::new(HashMap::from([(TABLE.to_string(), passages)]), Arc::default()));
    let (mut arrivals, behind) = (Arrivals::default(), Arc::new(Positions::from([(0, 1)])));
    let arrived = arrivals.of(computer().await, &snapshot, TABLE, &behind).await.unwrap();
    assert_eq!(arrived.moments.len(), 2, "those of 1 and 2");
    let (_, own) = arrived.rows(computer().await, &snapshot).await.unwrap().unwrap();
    assert!(own.tables[TABLE].is_held());
    let mut offsets: Vec<_> = own.tables[TABLE].tail.iter().flat_map(places).map(|(_, offset)| offset).collect();
    offsets.sort_unstable();
    offsets
}

/// What has landed lately, when the lake had passages up to `minute` past eight before.
async fn recent(minute: i64) -> Recent {
    let spans = [Span { day: DAY, times: 0..=EIGHT + minute * 60_000_000 }];
    Recent { from: Arc::new([(0, 1)].into()), spans: Some(Arc::from(spans)), rows: Arc::new(passage(1, 4).await) }
}

#[tokio::test]
async fn the_lake_is_looked_into_only_where_a_file_may_have_a_row_of_the_moment() {
    let lake = [passage(0, 4).await, passage(1, 4).await].concat();
    assert_eq!(found(lake.clone(), None).await, [0, 1, 2], "nothing is known: the lake has them");
    assert_eq!(found(lake, Some(recent(4).await)).await, [0, 1, 2], "a file reaches to that moment");
    assert_eq!(found(Vec::new(), Some(recent(3).await)).await, [1, 2], "no file does: the lake is not asked");
}
