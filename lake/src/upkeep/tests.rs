//! Upkeep changes how a table is stored, and nothing that anyone sees in it; beside landing as well as alone.

use object_store::ObjectStoreExt;

use super::{HOUR_MS, Scope, Upkeep, now_ms};
use crate::settings::UpkeepSettings;
use crate::tests::{Place, contract, count, progress, rows};
use crate::{Appender, ErrorKind, Lake};
use schemas::Contract;

const COURSE: &str = "academic.course";
const EVENT: &str = "access_control.access_event";
const DAY_MS: i64 = 24 * HOUR_MS;

async fn appender(lake: &Lake, contract: &Contract) -> Appender {
    crate::tests::appender(lake, contract, &[0, 7]).await
}

/// Commits of ten rows each, the last offsets first; partition 0 moves with each.
async fn land(lake: &Lake, contract: &Contract, commits: i64) {
    let mut appender = appender(lake, contract).await;
    let at = appender.position("topic", 0).expect("is held");
    for commit in (0..commits).rev() {
        appender.write(rows(contract, commit * 10, 10)).await.expect("writes");
        appender.commit(&progress(0, at + commits - commit)).await.expect("commits");
    }
}

async fn position(lake: &Lake, contract: &Contract, partition: i32) -> Option<i64> {
    let table = lake.table(contract).await.expect("opens");
    table.next_offset("quad", "topic", partition).await.expect("reads")
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_keeps_rows_and_positions() {
    for (place, name) in Place::each().await.into_iter().zip([COURSE, EVENT]) {
        let (lake, contract, settings) = (&place.lake, contract(name), UpkeepSettings::default());
        land(lake, &contract, 9).await;
        let mut table = lake.table(&contract).await.expect("opens");
        let before = table.stats().await.expect("counts");
        let partitions = if name == EVENT { 2 } else { 1 };
        assert_eq!((before.files, before.rows, before.partitions), (9 * partitions, 90, partitions));

        let mut steps = 0;
        let done = table.compact(&contract, &settings, Scope::Due, now_ms(), |_| steps += 1).await.expect("compacts");
        assert_eq!(
            (done.bins, steps, done.files_before, done.files_after),
            (partitions, partitions, before.files, partitions)
        );
        let after = table.stats().await.expect("counts");
        assert_eq!((after.files, after.rows, after.bytes), (partitions, 90, done.bytes_after));
        assert_eq!(after.unreferenced_files, before.files, "kept for readers of older versions");
        assert_eq!((count(lake, &contract).await, position(lake, &contract, 0).await), (90, Some(9)));

        let again = table.compact(&contract, &settings, Scope::Due, now_ms(), |_| ()).await.expect("has nothing to do");
        assert_eq!(again.bins, 0);
        land(lake, &contract, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_file_is_in_the_order_of_the_key() {
    let (place, contract) = (Place::local(), contract(COURSE));
    land(&place.lake, &contract, 8).await;
    let mut table = place.lake.table(&contract).await.expect("opens");
    let offsets = async |table: &crate::Table| {
        let context = datafusion::prelude::SessionContext::new();
        let provider = table.snapshot().await.expect("reads").provider;
        let rows = context.read_table(provider).expect("plans").select_columns(&["kafka_offset"]).expect("plans");
        let batches = rows.collect().await.expect("scans");
        let columns = batches.iter().map(|batch| batch.column(0).as_any().downcast_ref::<arrow::array::Int64Array>());
        columns.flat_map(|column| column.expect("offsets").values().to_vec()).collect::<Vec<i64>>()
    };
    table.compact(&contract, &UpkeepSettings::default(), Scope::All, now_ms(), |_| ()).await.expect("compacts");
    let found = offsets(&table).await;
    assert!(found.len() == 80 && found.is_sorted(), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_compactions_of_the_same_files_do_not_double_rows() {
    for place in Place::each().await {
        let (lake, contract, settings) = (&place.lake, contract(COURSE), UpkeepSettings::default());
        land(lake, &contract, 8).await;
        let (mut left, mut right) =
            (lake.table(&contract).await.expect("opens"), lake.table(&contract).await.expect("opens"));
        let bin = right.bins(&settings, Scope::All).expect("plans").remove(0);
        let added = right.rewrite(&contract, &settings, &bin).await.expect("writes");
        left.compact(&contract, &settings, Scope::All, now_ms(), |_| ()).await.expect("the first commits");
        let error =
            right.replace(bin, added, settings.target_file_bytes, now_ms()).await.expect_err("the second may not");
        assert_eq!(error.kind, ErrorKind::Fenced);
        assert_eq!(count(lake, &contract).await, 80);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn landing_goes_on_while_files_are_compacted() {
    for (place, name) in Place::each().await.into_iter().zip([EVENT, COURSE]) {
        let (lake, contract) = (place.lake.clone(), contract(name));
        let mut appender = appender(&lake, &contract).await;
        let (landing_lake, landing) = (lake.clone(), contract.clone());
        let landing = tokio::spawn(async move {
            for commit in 0..40 {
                appender.write(rows(&landing, commit * 10, 10)).await.expect("writes");
                appender.commit(&progress(0, commit + 1)).await.expect("no append fails beside a compaction");
            }
            position(&landing_lake, &landing, 0).await
        });
        let (mut bins, settings) = (0, UpkeepSettings { compact_files_min: 3, ..UpkeepSettings::default() });
        let mut table = lake.table(&contract).await.expect("opens");
        while !landing.is_finished() {
            bins += table
                .compact(&contract, &settings, Scope::Due, now_ms(), |_| ())
                .await
                .expect("compacts beside appends")
                .bins;
        }
        assert_eq!(landing.await.expect("lands"), Some(40));
        assert!(bins > 1, "nothing was compacted meanwhile");
        assert_eq!((count(&lake, &contract).await, position(&lake, &contract, 0).await), (400, Some(40)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_outlive_the_log_that_held_them() {
    for place in Place::each().await {
        let (lake, contract) = (&place.lake, contract(COURSE));
        // Partition 7 moves once, in the very first commit.
        appender(lake, &contract).await.commit(&progress(7, 77)).await.expect("commits");
        land(lake, &contract, 11).await;
        let settings = UpkeepSettings { checkpoint_commits: 10, ..UpkeepSettings::default() };
        let mut table = lake.table(&contract).await.expect("opens");
        let first = table.checkpoint(&settings, now_ms()).await.expect("writes");
        assert_eq!((first.version, first.log_files_removed), (Some(12), 0), "young entries stay");
        let not_due = table.checkpoint(&settings, now_ms()).await.expect("looks");
        assert_eq!((not_due.version, not_due.log_files_removed), (None, 0));
        let later = table.checkpoint(&settings, now_ms() + 25 * HOUR_MS).await.expect("cleans");
        assert_eq!((later.version, later.log_files_removed), (None, 12), "version 12 is the checkpoint's own");
        assert_eq!(table.stats().await.expect("counts").checkpoint, Some(12));

        assert_eq!((position(lake, &contract, 0).await, position(lake, &contract, 7).await), (Some(11), Some(77)));
        assert_eq!(count(lake, &contract).await, 110);
        land(lake, &contract, 1).await;
        assert_eq!(position(lake, &contract, 7).await, Some(77));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unneeded_files_go_when_they_are_old_and_no_sooner() {
    for (place, name) in Place::each().await.into_iter().zip([EVENT, COURSE]) {
        let (lake, contract, settings) = (&place.lake, contract(name), UpkeepSettings::default());
        land(lake, &contract, 4).await;
        // A commit that is lost leaves its files behind.
        let (mut zombie, mut heir) = (appender(lake, &contract).await, appender(lake, &contract).await);
        zombie.write(rows(&contract, 100, 10)).await.expect("writes");
        heir.commit(&progress(0, 50)).await.expect("commits");
        assert_eq!(zombie.commit(&progress(0, 50)).await.expect_err("is fenced").kind, ErrorKind::Fenced);
        let reader = lake.table(&contract).await.expect("opens");
        let mut table = lake.table(&contract).await.expect("opens");
        let files = table.stats().await.expect("counts");
        table.compact(&contract, &settings, Scope::All, now_ms(), |_| ()).await.expect("compacts");
        let unneeded = table.stats().await.expect("counts").unreferenced_files;
        assert_eq!(unneeded, files.files + files.unreferenced_files);
        assert!(files.unreferenced_files > 0);

        let young = table.vacuum(&settings, now_ms() + 23 * HOUR_MS, false).await.expect("looks");
        assert!(young.files.is_empty(), "{young:?}");
        let old_reader = reader.snapshot().await.expect("reads").provider;
        let context = datafusion::prelude::SessionContext::new();
        assert_eq!(context.read_table(old_reader).expect("plans").count().await.expect("an old reader reads"), 40);

        let in_a_day = now_ms() + 25 * HOUR_MS;
        let found = table.vacuum(&settings, in_a_day, true).await.expect("looks");
        assert_eq!((found.files.len(), table.stats().await.expect("counts").unreferenced_files), (unneeded, unneeded));
        let removed = table.vacuum(&settings, in_a_day, false).await.expect("removes");
        assert_eq!((removed.files.len(), table.stats().await.expect("counts").unreferenced_files), (unneeded, 0));
        assert_eq!((count(lake, &contract).await, position(lake, &contract, 0).await), (40, Some(50)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_in_flight_keeps_its_files() {
    let (place, contract, settings) = (Place::s3().await, contract(COURSE), UpkeepSettings::default());
    land(&place.lake, &contract, 1).await;
    let mut table = place.lake.table(&contract).await.expect("opens");
    let store = table.delta.object_store();
    store.put(&"part-of-a-commit-to-come.parquet".into(), "rows".into()).await.expect("writes");
    assert!(table.vacuum(&settings, now_ms(), false).await.expect("looks").files.is_empty());
    assert_eq!(table.stats().await.expect("counts").unreferenced_files, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn days_past_their_retention_go_whole() {
    for place in Place::each().await {
        let (lake, event, course) = (&place.lake, contract(EVENT), contract(COURSE));
        land(lake, &event, 3).await;
        land(lake, &course, 3).await;
        let mut stale = appender(lake, &event).await;
        let settings = UpkeepSettings::default();
        // Even offsets are of day 20 000, odd ones of the next.
        let now_ms = (20_000 + 1 + i64::from(event.retention_days.expect("180"))) * DAY_MS;
        let mut table = lake.table(&event).await.expect("opens");
        let found = table.expire(&event, &settings, now_ms, true).await.expect("looks");
        assert_eq!((found.before.as_deref(), found.files, found.rows), (Some("2024-10-05"), 3, 15));
        assert_eq!(count(lake, &event).await, 30);
        assert_eq!(table.expire(&event, &settings, now_ms, false).await.expect("expires"), found);
        assert_eq!(table.expire(&event, &settings, now_ms, false).await.expect("has done").files, 0);
        assert_eq!((count(lake, &event).await, position(lake, &event, 0).await), (15, Some(3)));

        let mut table = lake.table(&course).await.expect("opens");
        assert_eq!(table.expire(&course, &settings, i64::MAX / 2, false).await.expect("looks").files, 0);

        // A landing that has loaded the version before either commits, or starts over and then does.
        stale.write(rows(&event, 100, 10)).await.expect("writes");
        if let Err(error) = stale.commit(&progress(0, 4)).await {
            assert_eq!(error.kind, ErrorKind::Store, "{error:?}");
            stale = appender(lake, &event).await;
            stale.write(rows(&event, 100, 10)).await.expect("writes");
            stale.commit(&progress(0, 4)).await.expect("commits");
        }
        assert_eq!((count(lake, &event).await, position(lake, &event, 0).await), (25, Some(4)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_does_what_is_due_and_the_next_finds_nothing() {
    let (place, contracts) = (Place::s3().await, crate::tests::contracts());
    let contract = contract(EVENT);
    land(&place.lake, &contract, 12).await;
    let settings = UpkeepSettings { checkpoint_commits: 12, ..UpkeepSettings::default() };
    let mut upkeep = Upkeep::new(place.lake.clone(), &contracts, settings);
    let now_ms = (20_000 + 1 + 180) * DAY_MS;
    let report = upkeep.run_once(&contract, now_ms).await.expect("a round");
    assert_eq!((report.expired.files, report.compacted.files_before, report.compacted.files_after), (12, 12, 1));
    assert_eq!(report.checkpointed.version, Some(14));
    assert!(report.vacuumed.is_some_and(|vacuumed| vacuumed.files.is_empty()));
    let report = upkeep.run_once(&contract, now_ms).await.expect("a round");
    assert!(report.is_empty() && report.vacuumed.is_none(), "{report:?}");
    assert_eq!((count(&place.lake, &contract).await, position(&place.lake, &contract, 0).await), (60, Some(12)));
    // A table that has never landed is nothing to keep.
    assert!(upkeep.run_once(&crate::tests::contract(COURSE), now_ms).await.expect("a round").is_empty());
}

/// Waits until the table has this many files.
async fn eventually_has_files(lake: &Lake, contract: &Contract, expected: usize) {
    for _ in 0..600 {
        let table = lake.table(contract).await.expect("opens");
        if table.stats().await.expect("counts").files == expected {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("not in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_background_goes_on_through_failures_and_stops_when_told() {
    let (place, contract) = (Place::s3().await, contract(COURSE));
    let server = place.server.as_ref().expect("a server");
    land(&place.lake, &contract, 8).await;
    let settings = UpkeepSettings { interval_s: 1, ..UpkeepSettings::default() };
    let upkeep = Upkeep::new(place.lake.clone(), &crate::tests::contracts(), settings);
    // More than half of what it asks for fails at first.
    server.set_faults(s3::Faults { error_before: 0.3, error_after: 0.3, seed: 5, ..s3::Faults::default() });
    let (stop, shutdown) = tokio::sync::watch::channel(false);
    let running = tokio::spawn(upkeep.run(shutdown));
    while server.counts().faults() < 5 {
        tokio::task::yield_now().await;
    }
    server.set_faults(s3::Faults::default());
    eventually_has_files(&place.lake, &contract, 1).await;
    stop.send_replace(true);
    running.await.expect("ends");
    assert_eq!((count(&place.lake, &contract).await, position(&place.lake, &contract, 0).await), (80, Some(8)));
}
