//! The guarantee at its root: rows and positions move together, once, whoever else writes, on every kind of store.

mod s3_faults;

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Date32Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use datafusion::prelude::SessionContext;
use schemas::{Contract, Contracts};

use crate::{Appender, ErrorKind, Lake, Progress, Settings};

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
    vec![Progress { topic: "topic".into(), partition, next_offset }]
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
        writers_of_different_partitions_do_not_disturb_each_other(&place.lake).await;
    }
    for place in Place::each().await {
        a_table_of_another_shape_is_refused(&place.lake).await;
    }
}

async fn rows_and_positions_are_one_commit(lake: &Lake) {
    for name in ["academic.course", "access_control.access_event"] {
        let contract = contract(name);
        assert!(lake.find(&contract).await.expect("looks").is_none());
        let mut appender = Appender::new(lake.table(&contract).await.expect("creates"), "quad");
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
    let mut zombie = Appender::new(lake.table(&contract).await.expect("creates"), "quad");
    let mut heir = Appender::new(lake.table(&contract).await.expect("opens"), "quad");
    zombie.write(rows(&contract, 0, 5)).await.expect("writes");
    heir.write(rows(&contract, 0, 8)).await.expect("writes");
    heir.commit(&progress(0, 8)).await.expect("the first commit wins");
    let error = zombie.commit(&progress(0, 5)).await.expect_err("the second is fenced");
    assert_eq!(error.kind, ErrorKind::Fenced);
    assert_eq!(count(lake, &contract).await, 8);

    zombie.reset().await.expect("loads the newest version");
    assert_eq!(zombie.table().next_offset("quad", "topic", 0).await.expect("reads"), Some(8));
}

async fn writers_of_different_partitions_do_not_disturb_each_other(lake: &Lake) {
    let contract = contract("academic.course");
    let mut left = Appender::new(lake.table(&contract).await.expect("creates"), "quad");
    let mut right = Appender::new(lake.table(&contract).await.expect("opens"), "quad");
    for round in 0..5 {
        left.write(rows(&contract, round * 10, 5)).await.expect("writes");
        right.write(rows(&contract, round * 10 + 5, 5)).await.expect("writes");
        left.commit(&progress(0, round)).await.expect("commits");
        right.commit(&progress(1, round)).await.expect("commits");
    }
    assert_eq!(count(lake, &contract).await, 50);
}

async fn a_table_of_another_shape_is_refused(lake: &Lake) {
    let mut course = (*contract("academic.course")).clone();
    lake.table(&course).await.expect("creates");
    course.fields.remove(3);
    assert_eq!(lake.table(&course).await.expect_err("refuses").kind, ErrorKind::Schema);
}
