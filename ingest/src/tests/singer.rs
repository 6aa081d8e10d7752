//! Taps on their way to the log: two from PyPI that nobody here wrote, where `target/taps-venv` has them (skipped aloud
//! otherwise), and small ones that do wrong whatever a tap can.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use arrow_odbc::odbc_api::{ConnectionOptions, environment};
use campus::platform::Platform;
use expect_test::{Expect, expect};
use schemas::Sensitive;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::{Shop, poll_until, settings};
use crate::connector::Connector;
use crate::extract::source::{self, Worker};

const TABLE: &str = r#"
title = "leave requests by a tap"
kind = "singer"
[singer]
TAP
[tables.leave_request]
contract = "student_affairs.leave_request"
KEYS
[tables.leave_request.input]
WID = "id"
XH = "no"
QJJSSJ = "/to"
GX = "changed"
"#;

const MAPPING: &str = r#"
SELECT clean_id("WID") AS leave_id, clean_id("XH") AS student_no, cn_timestamp('2026-11-01 08:00') AS applied_at,
       cn_timestamp('2026-11-02') AS start_at, cn_timestamp_end("QJJSSJ") AS end_at, 'approved' AS approval_status,
       cn_timestamp("GX") AS src_updated_at, "_op" AS op
FROM input
"#;

const CURSOR: &str = "stream = \"leaves\"\npull = \"cursor\"";

fn shop(tap: &str, keys: &str) -> Shop {
    let shop = Shop::of(&TABLE.replace("TAP", tap).replace("KEYS", keys));
    std::fs::write(shop.path("connectors/leaves/leave_request.sql"), MAPPING).expect("writes");
    shop
}

/// The program of a tap from PyPI.
fn tap(name: &str) -> Option<PathBuf> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/taps-venv/bin").join(name);
    let program = program.canonicalize().ok();
    if program.is_none() {
        println!("skipped: {name} is not in target/taps-venv; ./dev taps installs it");
    }
    program
}

/// A part of an ODBC connection string.
fn part<'c>(connection: &'c str, name: &str) -> &'c str {
    let mut parts = connection.split(';').filter_map(|part| part.split_once('='));
    parts.find(|(key, _)| *key == name).map(|(_, value)| value).expect("a part of QUAD_TEST_POSTGRES")
}

/// Runs a statement in the real PostgreSQL.
fn sql(connection: &str, statement: &str) {
    let environment = environment().expect("ODBC starts");
    let connected = environment.connect_with_connection_string(connection, ConnectionOptions::default());
    connected.expect("PostgreSQL answers").execute(statement, (), None).expect("runs");
}

const LEAVES: &str = "SELECT leave_id, student_no, end_at, op FROM leave ORDER BY leave_id, kafka_offset";

#[tokio::test(flavor = "multi_thread")]
async fn tap_postgres_brings_what_is_new_and_as_a_snapshot_what_is_gone() {
    let Some(program) = tap("tap-postgres") else { return };
    let Ok(postgres) = std::env::var("QUAD_TEST_POSTGRES") else {
        println!("skipped: QUAD_TEST_POSTGRES is not set");
        return;
    };
    let name = format!("singer_{}", std::process::id());
    let [host, port, user, database] = ["Server", "Port", "Uid", "Database"].map(|name| part(&postgres, name));
    let config = format!(
        "command = \"{}\"\nconfig = {{ host = \"{host}\", port = {port}, user = \"{{user}}\", password = \"{{password}}\", \
         database = \"{database}\", filter_schemas = [\"{name}\"] }}",
        program.display()
    );
    sql(&postgres, &format!("CREATE SCHEMA {name}"));
    sql(
        &postgres,
        &format!(
            "CREATE TABLE {name}.qj (id TEXT PRIMARY KEY, no TEXT, \"to\" DATE, changed TIMESTAMP NOT NULL, secret TEXT)"
        ),
    );
    let leave = |id: &str, day: u32| {
        format!("INSERT INTO {name}.qj VALUES ('{id}', '0026', '2026-11-0{day}', '2026-11-01 08:0{day}:00', 'x')")
    };
    for (id, day) in [("L1", 3), ("L2", 4), ("L3", 5)] {
        sql(&postgres, &leave(id, day));
    }
    let cursor = format!("stream = \"{name}-qj\"\npull = \"cursor\"\nreplication_key = \"changed\"");
    let mut shop = shop(&config, &cursor);
    (shop.source.user, shop.source.password) = (Some(user.to_string()), Some(Sensitive::new("s3cret".to_string())));
    assert_eq!(shop.pull().await, (3, 0, 0, None));
    sql(&postgres, &leave("L4", 6));
    // A tap that goes on from a time shows its last row again.
    assert_eq!(shop.pull().await, (1, 0, 1, None), "it goes on from its state");

    let snapshot = format!("stream = \"{name}-qj\"\npull = \"snapshot\"");
    let connector = TABLE.replace("TAP", &config).replace("KEYS", &snapshot);
    std::fs::write(shop.path("connectors/leaves/connector.toml"), connector).expect("writes");
    assert_eq!(shop.pull().await, (2, 0, 2, None), "all rows, of which two are remembered");
    sql(&postgres, &format!("DELETE FROM {name}.qj WHERE id = 'L2'"));
    assert_eq!(shop.pull().await, (1, 0, 3, None), "one has vanished");
    sql(&postgres, &format!("ALTER TABLE {name}.qj RENAME COLUMN \"to\" TO until"));
    let (records, _, _, error) = shop.pull().await;
    assert_eq!(
        (records, error),
        (
            0,
            Some(format!(
                "stream `{name}-qj` has no property `to`: was it renamed? Mend `[input]` of this table. It has changed, id, no, secret, until"
            ))
        )
    );
    sql(&postgres, &format!("DROP SCHEMA {name} CASCADE"));
    shop.land().await;
    shop.check(
        LEAVES,
        expect![[r#"
        L1 0026 2026-11-03T15:59:59Z I
        L1 0026 2026-11-03T15:59:59Z I
        L2 0026 2026-11-04T15:59:59Z I
        L2 0026 2026-11-04T15:59:59Z I
        L2   D
        L3 0026 2026-11-05T15:59:59Z I
        L4 0026 2026-11-06T15:59:59Z I
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tap_rest_api_walks_the_pages_of_a_platform() {
    let Some(program) = tap("tap-rest-api-msdk") else { return };
    let platform = Platform::start(2, None).await.expect("serves");
    let put = |id: u64| {
        platform.put("leaves", json!({ "id": id, "no": "0026", "to": "2026-11-03", "changed": "2026-11-01 08:00:00" }));
    };
    (1..=5).for_each(put);
    let config = format!(
        "command = \"{}\"\n[singer.config]\napi_url = \"{{connection}}\"\n\
         pagination_request_style = \"page_number_paginator\"\nnext_page_token_path = \"$.data.more\"\n\
         [[singer.config.streams]]\nname = \"leaves\"\n\
         path = \"/v1/leaves\"\nrecords_path = \"$.data.list[*]\"\nprimary_keys = [\"id\"]\nnum_inference_records = 5",
        program.display()
    );
    let mut shop = shop(&config, "stream = \"leaves\"\npull = \"snapshot\"");
    shop.source.connection = Some(platform.url());
    assert_eq!(shop.pull().await, (5, 0, 0, None));
    platform.delete("leaves", 2);
    put(6);
    assert_eq!(shop.pull().await, (2, 0, 4, None), "one is new and one has vanished");
    shop.land().await;
    shop.check(
        LEAVES,
        expect![[r#"
        1 0026 2026-11-03T15:59:59Z I
        2 0026 2026-11-03T15:59:59Z I
        2   D
        3 0026 2026-11-03T15:59:59Z I
        4 0026 2026-11-03T15:59:59Z I
        5 0026 2026-11-03T15:59:59Z I
        6 0026 2026-11-03T15:59:59Z I
    "#]],
    )
    .await;
}

/// A tap of our own: a shell script. It discovers one stream and then does `body`.
fn own(body: &str) -> Shop {
    let mut shop = shop("command = \"TAP\"\ntimeout_s = 1\nconfig = { password = \"{password}\" }", CURSOR);
    shop.source.password = Some(Sensitive::new("s3cret".to_string()));
    rewrite(&shop, body);
    shop
}

fn rewrite(shop: &Shop, body: &str) {
    let script = shop.path("tap-own");
    let discover = r#"{"streams":[{"tap_stream_id":"leaves","stream":"leaves","schema":{"properties":{"id":{},"no":{},"to":{},"changed":{}}}}]}"#;
    let functions = r#"
schema() { echo '{"type":"SCHEMA","stream":"leaves","schema":{"properties":{"id":{},"no":{},"to":{},"changed":{}}}}'; }
record() { echo "{\"type\":\"RECORD\",\"stream\":\"leaves\",\"record\":{\"id\":\"$1\",\"no\":\"0026\",\"to\":\"2026-11-03\"$2}}"; }
state() { echo "{\"type\":\"STATE\",\"value\":{\"at\":$1}}"; }
"#;
    let text = format!(
        "#!/bin/sh\ncase \"$*\" in *--discover*) echo '{discover}'; exit 0;; esac\n{functions}\nkept={}\n{body}\n",
        shop.path("").display()
    );
    std::fs::write(&script, text).expect("writes");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("is ours");
    let file = shop.path("connectors/leaves/connector.toml");
    let connector = std::fs::read_to_string(&file).expect("is there");
    std::fs::write(file, connector.replace("\"TAP\"", &format!("\"{}\"", script.display()))).expect("writes");
}

/// What a pull by a tap that does `body` brought into the log, records and letters, and what it says.
async fn check(bodies: &[&str], expected: Expect) {
    let mut told = String::new();
    for body in bodies {
        let shop = own(body);
        let error = shop.pull().await.3.unwrap_or_default();
        let [records, letters] = ["student_affairs.leave_request", crate::letter::CONTRACT].map(|table| {
            let extents = shop.log.extents(&shop.contracts.get(table).expect("a contract").topic()).expect("answers");
            extents.iter().map(|extent| extent.high - extent.low).sum::<i64>()
        });
        told += &format!("{records} {letters} {error}\n");
    }
    expected.assert_eq(&told);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tap_does_wrong_is_told_and_what_came_whole_before_is_taken() {
    check(
        &[
            "schema; record L1; echo 'KeyError: 0026' >&2; exit 3",
            "schema; record L1; echo loading...; record L2",
            "schema; record L1; printf '{\"type\":\"RECORD\",\"stream\":\"lea'",
            "schema; record L1; sleep 60",
            "schema; record L1; head -c 20000000 /dev/zero | tr '\\0' x; sleep 60",
            "schema; echo '{\"type\":\"BATCH\",\"stream\":\"leaves\"}'",
            "schema; echo '{\"type\":\"RENAME\",\"stream\":\"leaves\"}'",
            "record L1",
            "echo '{\"type\":\"SCHEMA\",\"stream\":\"leaves\",\"schema\":{\"properties\":{\"id\":{},\"no\":{}}}}'",
            "exit 0",
            "schema; exec >&-; sleep 60",
            "schema; record L1 \",\\\"changed\\\":\\\"$(head -c 300 /dev/zero | tr '\\0' x)\\\"\"; record L2",
        ],
        expect![[r#"
            1 0 tap-own ended with exit status: 3 after KeyError; what it said is in the log with "ingest::extract::singer=debug" in log.filter
            1 0 line 3 of tap-own is no whole JSON object: only Singer messages belong on the standard output
            1 0 line 3 of tap-own is no whole JSON object: only Singer messages belong on the standard output
            1 0 line 3 of tap-own did not come within 1 s: the tap hangs, or `timeout_s` of `[singer]` is too short
            1 0 line 3 of tap-own is longer than 16777216 bytes
            0 0 line 2 of tap-own is a BATCH, records in files, which are not read: take `batch_config` out of the tap's config
            0 0 line 2 of tap-own is no RECORD, SCHEMA, STATE or ACTIVATE_VERSION of a stream
            0 0 line 1 of tap-own is a RECORD before the SCHEMA of its stream
            0 0 line 1 of tap-own stream `leaves` has no property `changed`: was it renamed? Mend `[input]` of this table. It has id, no
            0 0 the tap ended without a word of stream `leaves`: does it honour the catalog's selection?
            0 0 tap-own does not end within 1 s of its last line
            1 1 
        "#]],
    )
    .await;
    let absent = shop("command = \"tap-nowhere\"", CURSOR).pull().await;
    expect!["could not run the tap `tap-nowhere`: No such file or directory (os error 2); is it installed, and `command` right?"].assert_eq(&absent.3.unwrap_or_default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_counts_once_the_records_before_it_are_in_the_log() {
    let shop = own("schema; record L1; record L2; state 2; record L3; exit 1");
    assert!(shop.pull().await.3.is_some());
    let cursor = || shop_cursor(&shop);
    assert_eq!(cursor(), ["{\"at\":2}"]);
    // It is handed back as it came; a record that is gone is a delete.
    rewrite(
        &shop,
        "cp \"$6\" $kept/given; schema; record L3; record L1 ',\"_sdc_deleted_at\":\"2026-11-05\"'; state 4",
    );
    assert_eq!(shop.pull().await, (1, 0, 1, None), "the record behind the state came before, and comes again");
    assert_eq!(cursor(), ["{\"at\":4}"]);
    assert_eq!(std::fs::read_to_string(shop.path("given")).expect("was given"), "{\"at\":2}");
    shop.land().await;
    shop.check(
        LEAVES,
        expect![[r#"
        L1 0026 2026-11-03T15:59:59Z I
        L1 0026 2026-11-03T15:59:59Z D
        L2 0026 2026-11-03T15:59:59Z I
        L3 0026 2026-11-03T15:59:59Z I
    "#]],
    )
    .await;
}

fn shop_cursor(shop: &Shop) -> Vec<String> {
    let state = crate::extract::state::State::open(&settings(shop.folder.path()).state_path).expect("opens");
    state.table("oa", "leave_request").cursor().expect("reads").values
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_whose_records_did_not_come_deletes_nothing() {
    let version =
        |version: u32| format!("echo '{{\"type\":\"ACTIVATE_VERSION\",\"stream\":\"leaves\",\"version\":{version}}}'");
    let record = |id: &str| {
        format!(
            "echo '{{\"type\":\"RECORD\",\"stream\":\"leaves\",\"version\":1,\"record\":{{\"id\":\"{id}\",\"no\":\"0026\",\"to\":\"2026-11-03\"}}}}'"
        )
    };
    let shop = shop("command = \"TAP\"\nconfig = {}", "stream = \"leaves\"\npull = \"snapshot\"");
    rewrite(&shop, &format!("schema; {}; {}; {}", record("L1"), record("L2"), version(1)));
    assert_eq!(shop.pull().await, (2, 0, 0, None));
    rewrite(&shop, &format!("schema; {}; {}", record("L1"), version(2)));
    let (records, _, _, error) = shop.pull().await;
    assert_eq!(records, 0);
    expect!["line 3 of tap-own activates a version whose records did not come: nothing is taken for deleted"]
        .assert_eq(&error.expect("refuses"));
    rewrite(&shop, &format!("schema; {}; {}", record("L1"), version(1)));
    assert_eq!(shop.pull().await, (1, 0, 1, None), "the other one has vanished");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_in_private_files_that_go_and_nothing_is_left_running() {
    let shop = own(
        "ls -ld \"$(dirname \"$2\")\" \"$2\" | cut -c1-10 > $kept/modes; cat \"$2\" > $kept/config; echo \"$2\" > $kept/path\n\
         env | grep -c QUAD_ > $kept/variables; trap 'echo asked > $kept/asked; exit 0' TERM\n\
         sleep 300 & echo $! > $kept/child; schema; while :; do sleep 0.05; done",
    );
    let extract = shop.extract().await;
    let (stop, shutdown) = watch::channel(false);
    let running = tokio::spawn(async move { extract.run(shutdown).await });
    let child = poll_until("the tap has started", || {
        std::fs::read_to_string(shop.path("child")).ok().filter(|child| child.ends_with('\n'))
    })
    .await;
    let began = Instant::now();
    stop.send_replace(true);
    running.await.expect("runs").expect("stops well");
    assert!(began.elapsed() < Duration::from_secs(4), "it was asked to end and did");
    let kept = |name: &str| std::fs::read_to_string(shop.path(name)).expect("the tap has written it");
    let is_gone = |path: &str| !Path::new(path).exists();
    expect![[r#"
        drwx------
        -rw-------
        {"password":"s3cret"}0
        asked
    "#]]
    .assert_eq(&["modes", "config", "variables", "asked"].map(kept).concat());
    assert!(is_gone(kept("path").trim()), "the files are gone");
    // A process whose parent has gone is reaped by init, which may take a moment.
    poll_until("the tap's own child is gone", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.trim()));
        stat.map_or(true, |stat| stat.contains(") Z ")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_names_the_streams_that_there_are() {
    let shop = own("exit 0");
    let probe = |stream: &'static str| {
        let file = shop.path("connectors/leaves/connector.toml");
        let text = std::fs::read_to_string(&file).expect("is there");
        std::fs::write(&file, text.replace("stream = \"leaves\"", &format!("stream = \"{stream}\""))).expect("writes");
        let connector =
            Connector::load(&shop.path("connectors"), "leaves", &shop.contracts).expect("a right connector");
        let worker = Worker::alone(&settings(shop.folder.path()), Handle::current());
        tokio::task::block_in_place(|| source::connect(&connector, &shop.source, &worker)?.probe(&connector.tables[0]))
    };
    assert!(probe("leaves").is_ok());
    expect!["the tap has no stream `leave`, but leaves"]
        .assert_eq(&probe("leave").expect_err("no such stream").to_string());
}
