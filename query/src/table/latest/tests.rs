//! The hash table, the window and the parts agree with each other and with a plain map.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{AsArray, Date32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::catalog::MemTable;
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, col, lit};
use datafusion::physical_plan::{collect, displayable};
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use proptest::prelude::*;

use super::{Latest, Order, Planner};

/// A version: key, which is its day as well unless it is 0, op, when it was changed; its place is its offset.
type Version = (u8, bool, Option<i64>);

fn batches(versions: &[Version], rows: usize) -> Vec<RecordBatch> {
    let offset = |index: usize| i64::try_from(index).unwrap();
    let chunks = versions.chunks(rows.max(1)).enumerate();
    chunks
        .map(|(chunk, versions)| {
            let keys: StringArray = versions.iter().map(|(key, ..)| Some(format!("k{key}"))).collect();
            let days: Date32Array = versions.iter().map(|(key, ..)| (*key > 0).then_some(i32::from(*key))).collect();
            let ops: StringArray =
                versions.iter().map(|(_, delete, _)| Some(if *delete { "D" } else { "U" })).collect();
            let at: TimestampMicrosecondArray = versions.iter().map(|(.., at)| *at).collect();
            let offsets: Int64Array = (0..versions.len()).map(|row| offset(chunk * rows.max(1) + row)).collect();
            RecordBatch::try_from_iter_with_nullable([
                ("key", Arc::new(keys) as _, false),
                ("biz_date", Arc::new(days) as _, true),
                ("op", Arc::new(ops) as _, false),
                ("changed_at", Arc::new(at) as _, true),
                ("kafka_offset", Arc::new(offsets) as _, false),
            ])
            .unwrap()
        })
        .collect()
}

fn session(memory_bytes: usize) -> SessionContext {
    let planner = Arc::new(Planner { memory_bytes });
    let state = SessionStateBuilder::new().with_default_features().with_query_planner(planner).build();
    SessionContext::new_with_state(state)
}

async fn latest(versions: &[Version], rows: usize) -> (SessionContext, Latest) {
    let ctx = session(usize::MAX);
    let batches = batches(versions, rows);
    // Two partitions, so that versions of a key come from both.
    let middle = batches.len() / 2;
    let schema = batches[0].schema();
    let table = MemTable::try_new(schema, vec![batches[..middle].to_vec(), batches[middle..].to_vec()]).unwrap();
    ctx.register_table("versions", Arc::new(table)).unwrap();
    let latest = latest_of(&ctx).await;
    (ctx, latest)
}

async fn latest_of(ctx: &SessionContext) -> Latest {
    let input = ctx.table("versions").await.unwrap().into_unoptimized_plan();
    let key = vec!["key".into(), "biz_date".into()];
    let order = Order { key, by: vec!["changed_at".into(), "kafka_offset".into()] };
    Latest { input, order, is_part: false }
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
    fn all_ways_keep_the_latest(
        versions in prop::collection::vec((0..6u8, any::<bool>(), prop::option::of(0..4i64)), 1..60),
        rows in 1..20usize,
        days in (0..6i32, 0..6i32),
        count in 1..9usize,
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
            prop_assert_eq!(offsets(&ctx, &window).await, expected.clone(), "window");
            let days = (days.0.min(days.1), days.0.max(days.1));
            let mut in_parts = Vec::new();
            for part in latest.in_parts(days, count).unwrap() {
                in_parts.extend(offsets(&ctx, &part).await);
            }
            in_parts.sort_unstable();
            prop_assert_eq!(in_parts, expected, "parts");
            Ok(())
        })?;
    }
}

async fn shown(ctx: &SessionContext, plan: &LogicalPlan) -> String {
    let plan = ctx.state().create_physical_plan(plan).await.unwrap();
    displayable(plan.as_ref()).indent(false).to_string()
}

#[tokio::test]
async fn few_rows_are_hashed() {
    let (ctx, latest) = latest(&[(1, false, None)], 1).await;
    let shown = shown(&ctx, &Latest::plan(latest.input, latest.order)).await;
    assert!(shown.contains("LatestExec: key=[key, biz_date], by=[changed_at, kafka_offset]"), "{shown}");
    assert!(!shown.contains("Turns"), "{shown}");
}

/// Files say how many rows they have and of which days.
#[tokio::test]
async fn many_rows_are_taken_some_days_after_others() {
    let versions: Vec<Version> = (0..1000).map(|n| (n as u8 % 100, n % 7 == 0, Some(i64::from(n)))).collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("versions.parquet");
    let (few, _) = latest(&versions, 100).await;
    let rows = few.table("versions").await.unwrap();
    rows.write_parquet(path.to_str().unwrap(), DataFrameWriteOptions::new(), None).await.unwrap();

    let of_one = session(400_000);
    of_one.register_parquet("versions", path.to_str().unwrap(), ParquetReadOptions::default()).await.unwrap();
    let latest = latest_of(&of_one).await;
    let input = LogicalPlanBuilder::from(latest.input).filter(col("key").eq(lit("k7"))).unwrap().build().unwrap();
    let looked_up = shown(&of_one, &Latest::plan(input, latest.order)).await;
    assert!(!looked_up.contains("TurnsExec"), "one key needs no turns: {looked_up}");

    let path = &path;
    let over = |memory_bytes: usize| async move {
        let ctx = session(memory_bytes);
        ctx.register_parquet("versions", path.to_str().unwrap(), ParquetReadOptions::default()).await.unwrap();
        let latest = latest_of(&ctx).await;
        let plan = Latest::plan(latest.input, latest.order);
        (shown(&ctx, &plan).await, offsets(&ctx, &plan).await)
    };
    let (in_memory, all) = over(usize::MAX).await;
    let (in_parts, found) = over(400_000).await;
    assert!(!in_memory.contains("TurnsExec") && !in_memory.contains("Window"), "{in_memory}");
    assert!(in_parts.contains("TurnsExec: inputs=4") && !in_parts.contains("Window"), "{in_parts}");
    assert_eq!(found, all);
}
