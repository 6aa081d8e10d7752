//! The guarantee at its root: rows and positions move together, once, whoever else writes, on every kind of store.

mod replace;
mod s3_faults;

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Date32Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    new_null_array,
};
use datafusion::prelude::SessionContext;
use schemas::{Contract, Contracts};

use crate::{Appender, ErrorKind, Lake, Progress, Settings, Span};

const NOW: i64 = 1_795_500_000_000_000;

pub(crate) fn contracts() -> Contracts {
    Contracts::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas")).expect("contracts load")
}

pub(crate) fn contract(name: &str) -> Arc<Contract> {
    contracts().get(name).expect("a table of the model").clone()
}

/// A new lake, and what it lives in.
pub(crate) struct Place {
    pub lake: Lake,
    pub server: Option<s3::Server>,
    _folder: tempfile::TempDir,
}

impl Place {
    pub fn local() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let lake = Lake::open(&Settings::at(folder.path().to_string_lossy())).expect("a folder is a lake");
        Self { lake, server: None, _folder: folder }
    }

    pub async fn s3() -> Self {
        Self::s3_with(Settings::at("s3://lake/some/where")).await
    }

    pub async fn s3_with(settings: Settings) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let server = s3::Server::start(folder.path(), s3::Faults::default()).await.expect("a free port");
        server.create_bucket("lake").expect("a bucket");
        let lake = Lake::open_with(&settings, &server.environment()).expect("a bucket is a lake");
        Self { lake, server: Some(server), _folder: folder }
    }

    pub async fn each() -> [Self; 2] {
        [Self::local(), Self::s3().await]
    }
}

/// Rows in the lake's schema: text columns say `x`, numbers count up from `offset`, and other fields are null.
pub(crate) fn rows(contract: &Contract, offset: i64, count: usize) -> RecordBatch {
    let schema = contract.lake_schema();
    let offsets: Vec<i64> = (offset..offset + count as i64).collect();
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        match field.name().as_str() {
            "kafka_offset" => Arc::new(Int64Array::from(offsets.clone())),
            "kafka_partition" | "schema_version" => Arc::new(Int32Array::from(vec![1; count])),
            "biz_date" => {
                Arc::new(offsets.iter().map(|offset| Some(20_000 + (*offset % 2) as i32)).collect::<Date32Array>())
            }
            "ingested_at" => Arc::new(TimestampMicrosecondArray::from(vec![NOW; count]).with_timezone("UTC")),
            _ if field.is_nullable() => new_null_array(field.data_type(), count),
            _ => match field.data_type() {
                arrow::datatypes::DataType::Utf8 => Arc::new(StringArray::from(vec!["x"; count])),
                arrow::datatypes::DataType::Int32 => Arc::new(Int32Array::from(vec![1; count])),
                arrow::datatypes::DataType::Int64 => Arc::new(Int64Array::from(offsets.clone())),
                _ => Arc::new(TimestampMicrosecondArray::from(vec![NOW; count]).with_timezone("UTC")),
            },
        }
    });
    RecordBatch::try_new(schema.clone(), columns.collect()).expect("the lake's schema")
}

pub(crate) fn progress(partition: i32, next_offset: i64) -> Vec<Progress> {
    vec![Progress { topic: "topic".into(), partition, next_offset, rows: 0, letters: 0 }]
}

/// A writer under the landing id `quad` that has taken `partitions` over.
pub(crate) async fn appender(lake: &Lake, contract: &Contract, partitions: &[i32]) -> Appender {
    let table = lake.table(contract).await.expect("opens");
    let mut appender = Appender::new(table, contract.lake_schema(), "quad");
    take(&mut appender, partitions).await.expect("nobody else writes");
    appender
}

async fn take(appender: &mut Appender, partitions: &[i32]) -> Result<Vec<i64>, crate::Error> {
    let oldest = partitions.iter().map(|&partition| (partition, 0)).collect();
    Ok(appender.take("topic", &oldest).await?.into_values().collect())
}

pub(crate) async fn count(lake: &Lake, contract: &Contract) -> i64 {
    let snapshot = lake.snapshot(contract).await.expect("reads").expect("has landed");
    let context = SessionContext::new();
    context.register_table("t", snapshot.provider).expect("registers");
    let batches =
        context.sql("SELECT COUNT(*), COUNT(DISTINCT kafka_offset) FROM t").await.expect("plans").collect().await;
    let batches = batches.expect("scans");
    let number =
        |column: usize| batches[0].column(column).as_any().downcast_ref::<Int64Array>().expect("a count").value(0);
    assert_eq!(number(0), number(1), "an offset stands twice");
    number(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guarantee_holds_on_each_store() {
    for place in Place::each().await {
        rows_and_positions_are_one_commit(&place.lake).await;
    }
    for place in Place::each().await {
        a_zombie_cannot_commit(&place.lake).await;
    }
    for place in Place::each().await {
        a_zombie_cannot_commit_behind_its_own_commit_for_another_partition(&place.lake).await;
    }
    for place in Place::each().await {
        writers_of_different_partitions_do_not_disturb_each_other(&place.lake).await;
    }
    for place in Place::each().await {
        a_new_field_becomes_a_column_with_its_first_row(&place.lake).await;
    }
    for place in Place::each().await {
        a_renamed_column_asks_for_a_rebuild(&place.lake).await;
    }
    for place in Place::each().await {
        a_table_of_another_shape_is_refused(&place.lake).await;
    }
    for place in Place::each().await {
        a_rebuild_switches_over_and_keeps_what_came_meanwhile(&place.lake).await;
    }
}

async fn rows_and_positions_are_one_commit(lake: &Lake) {
    for name in ["academic.course", "access_control.access_event"] {
        let contract = contract(name);
        assert!(lake.find(&contract).await.expect("looks").is_none());
        let mut appender = appender(lake, &contract, &[1, 2]).await;
        appender.write(rows(&contract, 0, 10)).await.expect("writes");
        assert_eq!(count(lake, &contract).await, 0, "nothing shows before the commit");
        assert_eq!(appender.commit(&progress(1, 10)).await.expect("commits").rows, 10);
        appender.commit(&progress(2, 7)).await.expect("an empty commit moves a position");

        let table = lake.table(&contract).await.expect("opens");
        assert_eq!(table.next_offset("quad", "topic", 1).await.expect("reads"), Some(10));
        assert_eq!(table.next_offset("quad", "topic", 2).await.expect("reads"), Some(7));
        assert_eq!(table.next_offset("quad", "topic", 3).await.expect("reads"), None);
        assert_eq!(table.next_offset("other", "topic", 1).await.expect("reads"), None);
        assert_eq!(count(lake, &contract).await, 10);
    }
}

async fn a_zombie_cannot_commit(lake: &Lake) {
    let contract = contract("academic.course");
    let mut zombie = appender(lake, &contract, &[0]).await;
    let mut heir = appender(lake, &contract, &[0]).await;
    zombie.write(rows(&contract, 0, 5)).await.expect("writes");
    heir.write(rows(&contract, 0, 8)).await.expect("writes");
    heir.commit(&progress(0, 8)).await.expect("the first commit wins");
    let error = zombie.commit(&progress(0, 5)).await.expect_err("the second is fenced");
    assert_eq!(error.kind, ErrorKind::Fenced);
    assert_eq!(count(lake, &contract).await, 8);
    assert_eq!(take(&mut appender(lake, &contract, &[0]).await, &[0]).await.expect("reads"), [8]);
}

/// A commit for one partition moves a writer's snapshot past what others did to its other partitions: it must notice.
async fn a_zombie_cannot_commit_behind_its_own_commit_for_another_partition(lake: &Lake) {
    let contract = contract("academic.course");
    let mut zombie = appender(lake, &contract, &[0, 1]).await;
    let mut heir = appender(lake, &contract, &[0]).await;
    heir.write(rows(&contract, 0, 8)).await.expect("writes");
    heir.commit(&progress(0, 8)).await.expect("commits");
    zombie.write(rows(&contract, 100, 5)).await.expect("writes");
    let error = zombie.commit(&progress(1, 5)).await.expect_err("partition 0 is not where it was");
    assert_eq!(error.kind, ErrorKind::Fenced);
    assert_eq!(count(lake, &contract).await, 13, "what it held it has committed");

    let mut zombie = appender(lake, &contract, &[0, 1]).await;
    heir.commit(&progress(0, 9)).await.expect("commits");
    assert_eq!(take(&mut zombie, &[2]).await.expect_err("noticed").kind, ErrorKind::Fenced);
}

async fn writers_of_different_partitions_do_not_disturb_each_other(lake: &Lake) {
    let contract = contract("academic.course");
    let mut left = appender(lake, &contract, &[0]).await;
    let mut right = appender(lake, &contract, &[1]).await;
    for round in 0..5 {
        left.write(rows(&contract, round * 10, 5)).await.expect("writes");
        right.write(rows(&contract, round * 10 + 5, 5)).await.expect("writes");
        left.commit(&progress(0, round)).await.expect("commits");
        right.commit(&progress(1, round)).await.expect("commits");
    }
    assert_eq!(count(lake, &contract).await, 50);
    assert_eq!(left.commit(&progress(0, 3)).await.expect_err("never back").kind, ErrorKind::Fenced);
    right.give_up("topic", &[1]);
    assert_eq!(right.commit(&progress(1, 9)).await.expect_err("given up").kind, ErrorKind::Fenced);
}

async fn a_new_field_becomes_a_column_with_its_first_row(lake: &Lake) {
    for name in ["academic.course", "access_control.access_event"] {
        let new = contract(name);
        let mut old = (*new).clone();
        let at = old.fields.iter().rposition(|field| !field.required).expect("an optional field");
        let field = old.fields.remove(at).name;
        let mut appender_of_old = appender(lake, &old, &[0]).await;
        appender_of_old.write(rows(&old, 0, 3)).await.expect("writes");
        appender_of_old.commit(&progress(0, 3)).await.expect("commits");

        let mut appender_of_new = appender(lake, &new, &[0]).await;
        appender_of_new.commit(&progress(0, 4)).await.expect("an empty commit changes no column");
        let columns = |table: &crate::Table| table.schema().fields().len();
        let before = columns(appender_of_new.table());
        appender_of_new.write(rows(&new, 4, 2)).await.expect("writes");
        assert_eq!(columns(&lake.table(&new).await.expect("opens")), before, "not before the commit");
        appender_of_new.commit(&progress(0, 6)).await.expect("commits");
        appender_of_new.write(rows(&new, 6, 1)).await.expect("writes on");
        appender_of_new.commit(&progress(0, 7)).await.expect("commits on");
        let table = lake.table(&new).await.expect("opens");
        assert_eq!((columns(&table), table.schema().field_with_name(&field).is_ok()), (before + 1, true));
        assert_eq!(count(lake, &new).await, 6);

        let error = lake.table(&old).await.expect_err("an older process would lose the field");
        assert!(error.to_string().contains(&field), "{error}");
    }
}

async fn a_renamed_column_asks_for_a_rebuild(lake: &Lake) {
    let mut course = (*contract("academic.course")).clone();
    lake.table(&course).await.expect("creates");
    let field = course.fields.last_mut().expect("a field");
    field.aliases = vec![std::mem::replace(&mut field.name, "renamed".into())];
    let error = lake.table(&course).await.expect_err("refuses");
    assert_eq!(error.kind, ErrorKind::Schema);
    assert!(error.to_string().contains("has a new name") && error.to_string().contains("--rebuild"), "{error}");
}

async fn a_table_of_another_shape_is_refused(lake: &Lake) {
    let mut course = (*contract("academic.course")).clone();
    lake.table(&course).await.expect("creates");
    course.fields[1].field_type = schemas::FieldType::Double;
    let error = lake.table(&course).await.expect_err("refuses");
    assert_eq!(error.kind, ErrorKind::Schema);
    assert!(error.to_string().contains(&course.fields[1].name), "{error}");
}

async fn a_rebuild_switches_over_and_keeps_what_came_meanwhile(lake: &Lake) {
    for name in ["academic.course", "access_control.access_event"] {
        let old = contract(name);
        let mut appender = appender(lake, &old, &[0]).await;
        appender.write(rows(&old, 0, 6)).await.expect("writes");
        appender.commit(&progress(0, 6)).await.expect("commits");

        let mut wider = (*old).clone();
        wider.fields.iter_mut().for_each(|field| {
            if field.field_type == schemas::FieldType::Int {
                field.field_type = schemas::FieldType::BigInt;
            }
        });
        let table = lake.find(&wider).await.expect("looks").expect("is there");
        let mut rebuild = crate::Rebuild::new(table, wider.lake_schema()).expect("begins");
        rebuild.write(rows(&wider, 0, 4)).await.expect("writes");
        appender.write(rows(&old, 10, 2)).await.expect("landing goes on");
        appender.commit(&progress(0, 12)).await.expect("commits");
        assert_eq!(count(lake, &old).await, 8, "nothing shows before the switch");
        let (_, written) = rebuild.finish().await.expect("switches over");
        assert_eq!((written, count(lake, &wider).await), (4, 6));
        let table = lake.table(&wider).await.expect("has the new columns");
        assert_eq!(table.next_offset("quad", "topic", 0).await.expect("reads"), Some(12));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_go_to_the_files_of_their_days_in_stretches_or_mixed() {
    let (place, contract) = (Place::local(), contract("logistics.card_txn"));
    let mut appender = appender(&place.lake, &contract, &[1]).await;
    let stretches = rows(&contract, 0, 1_000);
    let day = |offset: i64| if offset < 1_000 { 20_000 + (offset / 500) as i32 } else { 20_000 + (offset % 2) as i32 };
    let days: Date32Array = (0..1_000).map(|offset| Some(day(offset))).collect();
    let mut columns = stretches.columns().to_vec();
    *columns.last_mut().expect("the day is the last column") = Arc::new(days);
    appender.write(RecordBatch::try_new(stretches.schema(), columns).expect("a batch")).await.expect("writes");
    appender.write(rows(&contract, 1_000, 1_000)).await.expect("writes");
    appender.commit(&progress(1, 2_000)).await.expect("commits");
    let snapshot = place.lake.snapshot(&contract).await.expect("reads").expect("has landed");
    let context = SessionContext::new();
    context.register_table("t", snapshot.provider).expect("registers");
    let sql = "SELECT kafka_offset, biz_date FROM t ORDER BY kafka_offset";
    let found = context.sql(sql).await.expect("plans").collect().await.expect("scans");
    let pairs: Vec<(i64, i32)> = found
        .iter()
        .flat_map(|batch| {
            let offsets = batch.column(0).as_primitive::<arrow::datatypes::Int64Type>();
            let days = batch.column(1).as_primitive::<arrow::datatypes::Date32Type>();
            offsets.values().iter().copied().zip(days.values().iter().copied()).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(pairs, (0..2_000).map(|offset| (offset, day(offset))).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_log_says_what_each_file_holds() {
    let (place, contract) = (Place::local(), contract("access_control.access_event"));
    let mut appender = appender(&place.lake, &contract, &[1]).await;
    appender.write(rows(&contract, 0, 4)).await.expect("writes");
    appender.commit(&progress(1, 4)).await.expect("commits");
    let table = place.lake.find(&contract).await.expect("reads").expect("has landed");
    let mut spans = table.spans(&contract.event_time).expect("reads").expect("the log has them all");
    spans.sort_by_key(|span| span.day);
    let span = |day| Span { day, times: NOW..=NOW + 999 };
    assert_eq!(spans, [span(20_000), span(20_001)]);
    assert_eq!(table.spans("direction").expect("reads"), None, "nothing is known of what is no time");
}

#[tokio::test]
async fn a_file_beside_the_tables_is_read_as_it_was_written() {
    for place in Place::each().await {
        let lake = &place.lake;
        assert_eq!(lake.read_file("_profile", "checkpoint").await.expect("answers"), None);
        for text in ["first", "and then another"] {
            lake.write_file("_profile", "checkpoint", text.into()).await.expect("answers");
            assert_eq!(lake.read_file("_profile", "checkpoint").await.expect("answers"), Some(text.into()));
        }
        assert_eq!(lake.read_file("_other", "checkpoint").await.expect("answers"), None);
    }
}
