//! Tables that are written as a whole: what shows when and under which columns, who wins, and what is left to remove.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, ListArray, RecordBatch};
use arrow::datatypes::Int64Type;
use datafusion::prelude::SessionContext;

use super::Place;
use crate::{ErrorKind, Lake, Replacement, Snapshot, UpkeepSettings, upkeep};

const TABLE: &str = "some.table";

/// Rows of numbers in `columns`, and of lists of numbers.
fn batch(columns: &[&'static str], rows: i64) -> RecordBatch {
    let numbers = |name: &&'static str| (*name, Arc::new(Int64Array::from_iter_values(0..rows)) as ArrayRef);
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>((0..rows).map(|number| Some([Some(number)])));
    let columns = columns.iter().map(numbers).chain([("list", Arc::new(lists) as ArrayRef)]);
    RecordBatch::try_from_iter(columns).expect("columns of one length")
}

async fn begin(lake: &Lake, rows: &RecordBatch) -> Replacement {
    let mut replacement = Replacement::begin(lake, TABLE, "a table", &rows.schema()).await.expect("begins");
    replacement.write(rows).await.expect("writes");
    replacement
}

fn of(what: &str) -> [(&'static str, String); 1] {
    [("quad.of", what.to_string())]
}

async fn snapshot(lake: &Lake) -> Snapshot {
    lake.find_named(TABLE).await.expect("looks").expect("is there").snapshot().await.expect("reads")
}

async fn count(snapshot: Snapshot) -> usize {
    SessionContext::new().read_table(snapshot.provider).expect("plans").count().await.expect("scans")
}

/// Version, rows, columns, and what the rows are of.
async fn seen(lake: &Lake) -> (u64, usize, Vec<String>, Option<String>) {
    let table = lake.find_named(TABLE).await.expect("looks").expect("is there");
    let columns = table.schema().fields().iter().map(|field| field.name().clone()).collect();
    let property = table.delta.snapshot().expect("is loaded").metadata().configuration().get("quad.of").cloned();
    (table.version(), count(snapshot(lake).await).await, columns, property)
}

fn columns(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_replaced_as_a_whole() {
    for place in Place::each().await {
        let lake = &place.lake;
        let first = begin(lake, &batch(&["a", "b"], 5)).await;
        assert_eq!(seen(lake).await, (0, 0, columns(&["a", "b", "list"]), None), "nothing shows before the commit");
        first.finish(&of("the first")).await.expect("commits");
        let expected = (1, 5, columns(&["a", "b", "list"]), Some("the first".to_string()));
        assert_eq!(seen(lake).await, expected);

        let old_reader = snapshot(lake).await;
        begin(lake, &batch(&["b", "c"], 3)).await.finish(&of("the second")).await.expect("commits");
        let expected = (2, 3, columns(&["b", "c", "list"]), Some("the second".to_string()));
        assert_eq!(seen(lake).await, expected);
        assert_eq!(count(old_reader).await, 5, "who reads an older version goes on");

        let mut other = begin(lake, &batch(&["b", "c"], 3)).await;
        let error = other.write(&batch(&["b"], 3)).await.expect_err("has other columns");
        assert_eq!(error.kind, ErrorKind::Schema);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_the_first_wins_and_upkeep_removes_the_rest() {
    const DAY_MS: i64 = 86_400_000;
    for place in Place::each().await {
        let (lake, settings) = (&place.lake, UpkeepSettings::default());
        let (left, right) = (begin(lake, &batch(&["a"], 5)).await, begin(lake, &batch(&["a"], 4)).await);
        left.finish(&of("left")).await.expect("commits");
        let error = right.finish(&of("right")).await.expect_err("comes too late");
        assert_eq!(error.kind, ErrorKind::Fenced);
        assert_eq!(seen(lake).await, (1, 5, columns(&["a", "list"]), Some("left".to_string())));

        let mut table = begin(lake, &batch(&["a"], 2)).await.finish(&of("left")).await.expect("commits");
        let young = table.vacuum(&settings, upkeep::now_ms(), false).await.expect("looks");
        assert!(young.files.is_empty(), "{young:?}");
        let old = table.vacuum(&settings, upkeep::now_ms() + 2 * DAY_MS, false).await.expect("removes");
        assert_eq!(old.files.len(), 2, "those of the version before, and of the one that came too late");
        assert_eq!(count(snapshot(lake).await).await, 2);
    }
}
