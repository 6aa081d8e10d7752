//! Where what came is looked for: in memory, and in the lake only where a file may have it.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use lake::Span;

use super::computer;
use crate::fixture::{Arrival, contracts, engine, rows, version};
use crate::identity::Relinking;
use crate::identity::columns::PersonBy;
use crate::profile::arrivals::{Arrivals, Since};
use crate::snapshot::Snapshot;
use crate::source::{Recent, TableVersion};
use crate::tail::places;

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
    let (mut arrivals, since) = (Arrivals::default(), Since::Offsets(Arc::new([(0, 1)].into())));
    let arrived = arrivals.of(computer().await, &snapshot, TABLE, &since).await.unwrap();
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

#[tokio::test]
async fn events_come_with_a_new_identity_to_whom_they_are_of_by_it() {
    let students = (
        "student_affairs.student_base",
        "student_no, name, in_school, src_updated_at",
        "('20240001', '张三', true, '2026-09-01T00:00:00Z'), ('20240002', '李四', true, '2026-09-01T00:00:00Z')",
    );
    let passages = (
        TABLE,
        "device_id, door_no, event_serial, event_time, access_person_no, card_physical_no, direction, result",
        "('D1', 1, 1, '2026-09-03T00:01:00Z', NULL, '0A0B0C01', 'in', 'granted'),
         ('D1', 1, 2, '2026-09-03T00:02:00Z', NULL, '0A0B0C02', 'in', 'granted'),
         ('D1', 1, 3, '2026-09-03T00:03:00Z', '20240001', '0A0B0C02', 'in', 'granted'),
         ('D1', 1, 4, '2026-09-03T00:04:00Z', '20240001', NULL, 'in', 'granted'),
         ('D1', 1, 5, '2026-08-31T00:05:00Z', NULL, '0A0B0C02', 'in', 'granted')",
    );
    let cards = |rows: &'static str| {
        (
            "identity.card",
            "card_no, card_seq, card_physical_no, person_no, card_status, opened_at, src_updated_at",
            rows,
        )
    };
    let first = "('900001', '1', '0A0B0C01', '20240001', 'normal', '2026-09-01T00:00:00Z', '2026-09-01T00:00:00Z')";
    let both = "('900001', '1', '0A0B0C01', '20240001', 'normal', '2026-09-01T00:00:00Z', '2026-09-01T00:00:00Z'),
        ('900002', '1', '0A0B0C02', '20240002', 'normal', '2026-09-01T00:00:00Z', '2026-09-01T00:00:00Z')";
    let before = engine(&[students, passages, cards(first)]).await.pin().snapshot.clone();
    let after = engine(&[students, passages, cards(both)]).await.pin().snapshot.clone();
    let relinking = Arc::new(Relinking::new(&before.identity, &after.identity));
    let (links, numbers) = (before.links.after(&relinking), PersonBy::Number("student_no"));
    assert_eq!(links.of(numbers), before.links.of(numbers), "a card says nothing of numbers");
    assert!([PersonBy::Card, PersonBy::Access].iter().all(|by| links.of(*by) != before.links.of(*by)));
    let since = Since::Index(relinking);
    let mut arrivals = Arrivals::default();
    let arrived = arrivals.of(computer().await, &after, TABLE, &since).await.unwrap();
    let mut minutes: Vec<_> = arrived.moments.iter().map(|(day, at)| (*day, (at - EIGHT) / 60_000_000)).collect();
    minutes.sort_unstable();
    assert_eq!(
        minutes,
        [(DAY, 2), (DAY, 3)],
        "a second card's, and one whose number names another; not before it was opened"
    );
}
