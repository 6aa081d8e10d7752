//! What the lake needs of a store, held against the server with a client that is not ours.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, WriteMultipart};
use s3::{Faults, Server};

async fn server() -> (tempfile::TempDir, Server, Arc<AmazonS3>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = Server::start(folder.path(), Faults::default()).await.expect("a free port");
    server.create_bucket("bucket").expect("a bucket");
    let mut builder =
        AmazonS3Builder::new().with_bucket_name("bucket").with_conditional_put(S3ConditionalPut::ETagMatch);
    for (name, value) in server.environment() {
        builder = builder.with_config(name.to_ascii_lowercase().parse().expect("a name of S3"), value);
    }
    let store = builder.build().expect("a client");
    (folder, server, Arc::new(store))
}

#[tokio::test]
async fn of_many_conditional_writes_one_succeeds() {
    let (_folder, _server, store) = server().await;
    for round in 0..20 {
        let writes = (0..8).map(|writer| {
            let (store, path) = (store.clone(), Path::from(format!("log/{round}.json")));
            tokio::spawn(async move {
                let body = format!("{writer}").repeat(10_000);
                store.put_opts(&path, body.into(), PutOptions::from(PutMode::Create)).await.map(|_| writer)
            })
        });
        let outcomes = futures::future::join_all(writes).await;
        let mut winners = Vec::new();
        for outcome in outcomes {
            match outcome.expect("no panic") {
                Ok(writer) => winners.push(writer),
                Err(error) => assert!(matches!(error, Error::AlreadyExists { .. }), "{error:?}"),
            }
        }
        assert_eq!(winners.len(), 1, "in round {round}");
        let found =
            store.get(&Path::from(format!("log/{round}.json"))).await.expect("is there").bytes().await.expect("reads");
        assert_eq!(found, format!("{}", winners[0]).repeat(10_000));
    }
}

#[tokio::test]
async fn large_objects_ranges_lists_and_removals_work() {
    let (_folder, _server, store) = server().await;
    let path = Path::from("table/part.parquet");
    let mut upload = WriteMultipart::new(store.put_multipart(&path).await.expect("begins"));
    let bytes: Vec<u8> = (0..12_000_000_u32).map(|at| (at % 251) as u8).collect();
    upload.write(&bytes);
    upload.finish().await.expect("ends");
    let range = store.get_range(&path, 11_000_000..11_000_100).await.expect("reads");
    assert_eq!(&range[..], &bytes[11_000_000..11_000_100]);
    for version in 0..5 {
        store.put(&Path::from(format!("table/log/{version}.json")), "{}".into()).await.expect("writes");
    }
    let after = store.list_with_offset(Some(&Path::from("table/log")), &Path::from("table/log/2.json"));
    let names: Vec<String> = after.map_ok(|meta| meta.location.to_string()).try_collect().await.expect("lists");
    assert_eq!(names, ["table/log/3.json", "table/log/4.json"]);
    let all = store.list(Some(&Path::from("table"))).map_ok(|meta| meta.location).boxed();
    let gone: Vec<Path> = store.delete_stream(all).try_collect().await.expect("removes");
    assert_eq!(gone.len(), 6);
    assert!(store.list(None).next().await.is_none());
}

#[tokio::test]
async fn a_fault_after_a_write_hides_that_it_was_done() {
    let (_folder, server, store) = server().await;
    for (faults, path) in [
        (Faults { error_after: 1.0, ..Faults::default() }, Path::from("error")),
        (Faults { cut_after: 1.0, ..Faults::default() }, Path::from("cut")),
    ] {
        server.set_faults(faults);
        let outcome = store.put_opts(&path, "ours".into(), PutOptions::from(PutMode::Create)).await;
        assert!(outcome.is_err());
        server.set_faults(Faults::default());
        assert_eq!(store.get(&path).await.expect("is there").bytes().await.expect("reads"), "ours");
    }
    let counts = server.counts();
    assert_eq!((counts.error_after, counts.cut_after, counts.faults()), (1, 1, 2));
}

#[tokio::test]
async fn a_torn_write_leaves_nothing() {
    let (_folder, server, store) = server().await;
    let path = Path::from("torn");
    store.put(&path, "before".into()).await.expect("writes");
    server.set_faults(Faults { torn: 1.0, ..Faults::default() });
    let attempt = store.put_opts(&path, vec![7_u8; 3_000_000].into(), PutOptions::from(PutMode::Overwrite));
    let outcome = tokio::time::timeout(Duration::from_secs(2), attempt).await;
    assert!(!matches!(outcome, Ok(Ok(_))), "{outcome:?}");
    server.set_faults(Faults::default());
    assert_eq!(store.get(&path).await.expect("is there").bytes().await.expect("reads"), "before");
    assert!(server.counts().torn > 0, "{:?}", server.counts());
}

#[tokio::test]
async fn a_slow_write_is_done_late_and_answered_later() {
    let (_folder, server, store) = server().await;
    server.set_faults(Faults { slow: 1.0, delay_ms: 400, ..Faults::default() });
    let began = std::time::Instant::now();
    store.put(&Path::from("slow"), "ours".into()).await.expect("writes");
    assert!(began.elapsed() >= Duration::from_millis(400));
    assert_eq!(server.counts().slow, 1);
}

#[tokio::test]
async fn an_error_before_a_write_leaves_nothing() {
    let (_folder, server, store) = server().await;
    server.set_faults(Faults { error_before: 1.0, only: "lost".into(), ..Faults::default() });
    let other = store.put(&Path::from("kept"), "ours".into()).await;
    assert!(other.is_ok(), "only some paths fail: {other:?}");
    let path = Path::from("lost");
    let attempt = tokio::time::timeout(Duration::from_millis(500), store.put(&path, "x".into()));
    assert!(attempt.await.is_err(), "it is tried again and again");
    server.set_faults(Faults::default());
    assert!(matches!(store.head(&path).await, Err(Error::NotFound { .. })));
    assert!(server.counts().error_before > 0);
}
