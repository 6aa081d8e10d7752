//! The hash table and the window agree with each other and with a plain map.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::catalog::MemTable;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{collect, displayable};
use datafusion::prelude::SessionContext;
use proptest::prelude::*;

use super::{Latest, Order, Planner};

/// A version: key, op, when it was changed; its place is its offset.
type Version = (u8, bool, Option<i64>);

fn batches(versions: &[Version], rows: usize) -> Vec<RecordBatch> {
    let offset = |index: usize| i64::try_from(index).unwrap();
    let chunks = versions.chunks(rows.max(1)).enumerate();
    chunks
        .map(|(chunk, versions)| {
            let keys: StringArray = versions.iter().map(|(key, ..)| Some(format!("k{key}"))).collect();
            let ops: StringArray =
                versions.iter().map(|(_, delete, _)| Some(if *delete { "D" } else { "U" })).collect();
            let at: TimestampMicrosecondArray = versions.iter().map(|(.., at)| *at).collect();
            let offsets: Int64Array = (0..versions.len()).map(|row| offset(chunk * rows.max(1) + row)).collect();
            RecordBatch::try_from_iter_with_nullable([
                ("key", Arc::new(keys) as _, false),
                ("op", Arc::new(ops) as _, false),
                ("changed_at", Arc::new(at) as _, true),
                ("kafka_offset", Arc::new(offsets) as _, false),
            ])
            .unwrap()
        })
        .collect()
}

async fn latest(versions: &[Version], rows: usize) -> (SessionContext, Latest) {
    let state = SessionStateBuilder::new().with_default_features().with_query_planner(Arc::new(Planner)).build();
    let ctx = SessionContext::new_with_state(state);
    let batches = batches(versions, rows);
    // Two partitions, so that versions of a key come from both.
    let middle = batches.len() / 2;
    let schema = batches[0].schema();
    let table = MemTable::try_new(schema, vec![batches[..middle].to_vec(), batches[middle..].to_vec()]).unwrap();
    ctx.register_table("versions", Arc::new(table)).unwrap();
    let input = ctx.table("versions").await.unwrap().into_unoptimized_plan();
    let order = Order { key: vec!["key".into()], by: vec!["changed_at".into(), "kafka_offset".into()] };
    (ctx, Latest { input, order })
}

async fn offsets(ctx: &SessionContext, plan: &LogicalPlan) -> Vec<i64> {
    let plan = ctx.state().create_physical_plan(plan).await.unwrap();
    let batches = collect(plan, ctx.task_ctx()).await.unwrap();
    let column = |batch: &RecordBatch| {
        batch.column_by_name("kafka_offset").unwrap().as_primitive::<Int64Type>().values().to_vec()
    };
    let mut offsets: Vec<i64> = batches.iter().flat_map(column).collect();
    offsets.sort_unstable();
    offsets
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn both_ways_keep_the_latest(
        versions in prop::collection::vec((0..6u8, any::<bool>(), prop::option::of(0..4i64)), 1..60),
        rows in 1..20usize,
    ) {
        let mut expected: BTreeMap<u8, ((Option<i64>, usize), bool)> = BTreeMap::new();
        for (offset, (key, delete, at)) in versions.iter().enumerate() {
            let version = ((*at, offset), *delete);
            let known = expected.entry(*key).or_insert(version);
            *known = (*known).max(version);
        }
        let mut expected: Vec<i64> =
            expected.values().filter(|(_, delete)| !delete).map(|((_, offset), _)| i64::try_from(*offset).unwrap()).collect();
        expected.sort_unstable();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (ctx, latest) = latest(&versions, rows).await;
            let window = latest.as_window().unwrap();
            let hashed = Latest::plan(latest.input.clone(), latest.order.clone());
            prop_assert_eq!(offsets(&ctx, &hashed).await, expected.clone(), "hash table");
            prop_assert_eq!(offsets(&ctx, &window).await, expected, "window");
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn few_rows_are_hashed() {
    let (ctx, latest) = latest(&[(1, false, None)], 1).await;
    let plan = ctx.state().create_physical_plan(&Latest::plan(latest.input, latest.order)).await.unwrap();
    let shown = displayable(plan.as_ref()).indent(false).to_string();
    assert!(shown.contains("LatestExec: key=[key], by=[changed_at, kafka_offset]"), "{shown}");
}
