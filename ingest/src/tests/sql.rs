//! Databases that behave as real ones do: no key, rows late and early, soft deletes, locks, another schema overnight, more
//! rows than memory, times with fractions and zones. SQLite always; PostgreSQL and MariaDB when `QUAD_TEST_POSTGRES` and
//! `QUAD_TEST_MARIADB` hold a connection string, skipped aloud otherwise.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow_odbc::odbc_api::{Connection, ConnectionOptions, environment};
use chrono::Utc;
use chrono_tz::Tz;
use expect_test::expect;
use tokio::sync::watch;

use super::{CURSOR, MAPPING, Shop, poll_until, settings};
use crate::connector::Connector;
use crate::error::Error;
use crate::extract::source::{self, Worker};

/// Passes of a middle database without a key, as one was seen: person, time, device.
const PASSES: &str = r#"
title = "passes without a key"
kind = "sql"
[tables.leave_request]
contract = "access_control.access_event"
query = "SELECT GH, SMSJ, SBBH FROM MJ"
pull = "cursor"
cursor = ["SMSJ", "GH", "SBBH"]
overlap_s = OVERLAP
twins = true
"#;

const PASS: &str = r#"
SELECT clean_id("SBBH") AS device_id, 0 AS door_no, stable_number("GH" || '|' || "_TWIN") AS event_serial,
       cn_timestamp("SMSJ") AS event_time, clean_id("GH") AS access_person_no, 'in' AS direction, 'granted' AS result,
       cn_timestamp("SMSJ") AS src_updated_at
FROM input
"#;

fn passes(overlap_s: u64) -> Shop {
    let mut shop = Shop::of(&PASSES.replace("OVERLAP", &overlap_s.to_string()));
    std::fs::write(shop.path("connectors/leaves/leave_request.sql"), PASS).expect("writes");
    shop.source.connection = Some(shop.connection());
    shop.sql("CREATE TABLE MJ (GH TEXT, SMSJ TEXT, SBBH TEXT)");
    shop
}

/// A pass at so many seconds from now, by the clock of the campus.
fn pass(shop: &Shop, person: &str, seconds: i64) {
    let time = (Utc::now() + chrono::Duration::seconds(seconds)).with_timezone(&Tz::Asia__Shanghai);
    let time = time.format("%Y-%m-%d %H:00:%S");
    shop.sql(&format!("INSERT INTO MJ VALUES ('{person}', '{time}', 'G1')"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_a_key_loses_no_twin() {
    // The border of a batch, two rows here, runs through the twins.
    for (overlap_s, repeats) in [(0, 3), (600, 4)] {
        let shop = passes(overlap_s);
        let add = |person: &str| shop.sql(&format!("INSERT INTO MJ VALUES ('{person}', '2026-11-01 08:00:00', 'G1')"));
        ["A", "B", "B", "B"].into_iter().for_each(add);
        assert_eq!(shop.pull().await, (4, 0, 0, None));
        add("B");
        assert_eq!(shop.pull().await, (1, 0, repeats, None), "one more twin, {overlap_s} s");
        shop.land().await;
        let people = "SELECT access_person_no, COUNT(*), COUNT(DISTINCT event_serial) FROM pass GROUP BY 1 ORDER BY 1";
        shop.check(
            people,
            expect![[r#"
            A 1 1
            B 4 4
        "#]],
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_late_or_of_a_clock_ahead_hide_no_others() {
    let (hour, day) = (3600, 86_400);
    let shop = passes(2 * day as u64 + 600);
    pass(&shop, "A", -2 * hour);
    pass(&shop, "FAST", day);
    assert_eq!(shop.pull().await, (1, 1, 0, None), "a day ahead is quarantined");
    pass(&shop, "B", -hour);
    pass(&shop, "LATE", -2 * day);
    assert_eq!(shop.pull().await, (2, 0, 2, None), "the clock ahead has not moved the cursor");
    shop.land().await;
    shop.check(
        "SELECT access_person_no FROM pass ORDER BY event_time",
        expect![[r#"
        LATE
        A
        B
    "#]],
    )
    .await;
    shop.check(
        "SELECT rule, field FROM letter",
        expect![[r#"
        clock_not_ahead
    "#]],
    )
    .await;
}

/// Whoever is stopped while the overlap comes again begins at the same place, not an overlap before it.
#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_goes_back_for_no_overlap() {
    let shop = passes(7200);
    for minute in 0..8 {
        shop.sql(&format!("INSERT INTO MJ VALUES ('P{minute}', '2026-11-01 08:0{minute}:00', 'G1')"));
    }
    let connector = Connector::load(&shop.path("connectors"), "leaves", &shop.contracts).expect("loads");
    let worker = Worker::alone(&settings(shop.folder.path()), tokio::runtime::Handle::current());
    let of_source = shop.source.clone();
    let cursors = tokio::task::spawn_blocking(move || {
        let mut cursors = Vec::new();
        let after = ["2026-11-01 08:05:00", "P5", "G1"].map(str::to_string);
        let mut source = source::connect(&connector, &of_source, &worker).expect("connects");
        let outcome = source.pull(&connector.tables[0], &after, &mut |_, cursor| {
            cursors.push(cursor.map(|cursor| cursor[0].clone()));
            Ok(())
        });
        outcome.map(|_| cursors).expect("pulls")
    });
    // Two rows a batch: 08:01 and 08:03 are behind the cursor.
    let ahead = ["2026-11-01 08:05:00", "2026-11-01 08:07:00"].map(|time| Some(time.to_string()));
    assert_eq!(cursors.await.expect("runs"), [None, None].into_iter().chain(ahead).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_soft_delete_is_a_delete() {
    let shop = Shop::new(CURSOR);
    let mapping = MAPPING.replace("FROM input", ", CASE WHEN \"SFZJH\" = '0' THEN 'D' END AS op FROM input");
    std::fs::write(shop.path("connectors/leaves/leave_request.sql"), mapping).expect("writes");
    shop.leave("L1", "2026-11-03", "2026-11-01 08:00:00");
    shop.leave("L2", "2026-11-03", "2026-11-01 08:00:00");
    assert_eq!(shop.pull().await, (2, 0, 0, None));
    shop.sql("UPDATE QJ SET SFZJH = '0', ZHXGSJ = '2026-11-01 08:01:00' WHERE WID = 'L1'");
    assert_eq!(shop.pull().await, (1, 0, 1, None));
    shop.land().await;
    shop.check(
        "SELECT leave_id, op FROM leave ORDER BY 1, src_updated_at",
        expect![[r#"
        L1 I
        L1 D
        L2 I
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_no_faster_than_they_may() {
    let mut shop = Shop::new(CURSOR);
    shop.source.rows_per_s_max = Some(10);
    for row in 0..6 {
        shop.leave(&format!("L{row}"), "2026-11-03", "2026-11-01 08:00:00");
    }
    let began = Instant::now();
    assert_eq!(shop.pull().await, (6, 0, 0, None));
    assert!(began.elapsed() >= Duration::from_millis(600), "{:?}", began.elapsed());
}

/// A workshop over a table of PostgreSQL with a name of its own, and a connection to it.
fn postgres() -> Option<(Shop, Connection<'static>, String)> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let Ok(string) = std::env::var("QUAD_TEST_POSTGRES") else {
        println!("skipped: QUAD_TEST_POSTGRES is not set");
        return None;
    };
    let table = format!("qj_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let mut shop = Shop::new(CURSOR);
    let file = shop.path("connectors/leaves/connector.toml");
    let connector = std::fs::read_to_string(&file).expect("reads").replace("FROM QJ", &format!("FROM {table}"));
    std::fs::write(&file, connector).expect("writes");
    shop.source.connection = Some(string.clone());
    let environment = environment().expect("ODBC starts");
    let connection = environment.connect_with_connection_string(&string, ConnectionOptions::default());
    let connection = connection.expect("PostgreSQL is there");
    let columns =
        ["WID", "XH", "SQSJ", "QJKSSJ", "QJJSSJ", "SFZJH", "ZHXGSJ"].map(|name| format!("{name} VARCHAR(30)"));
    run(&connection, &format!("CREATE TABLE {table} ({})", columns.join(", ")));
    Some((shop, connection, table))
}

fn run(connection: &Connection<'_>, statement: &str) {
    connection.execute(statement, (), None).expect("runs");
}

fn insert(connection: &Connection<'_>, table: &str, id: &str, changed: &str) {
    let columns = "WID, XH, SQSJ, QJKSSJ, QJJSSJ, ZHXGSJ";
    let values = format!("'{id}', '0026', '2026-11-01 08:00:00', '2026-11-02', '2026-11-03', '{changed}'");
    run(connection, &format!("INSERT INTO {table} ({columns}) VALUES ({values})"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_hangs_is_given_up_and_holds_up_nobody() {
    let Some((mut shop, connection, table)) = postgres() else { return };
    insert(&connection, &table, "L1", "2026-11-01 08:00:00");
    let locked = format!("{table}_locked");
    run(&connection, &format!("CREATE TABLE {locked} AS SELECT * FROM {table}"));
    let file = shop.path("connectors/leaves/connector.toml");
    let connector = std::fs::read_to_string(&file).expect("reads");
    let (head, tables) = connector.split_at(connector.find("[tables").expect("a table"));
    let hanging = tables.replace("[tables.leave_request]", "[tables.hanging]").replace(&table, &locked);
    std::fs::write(&file, format!("{head}{hanging}\n{tables}")).expect("writes");
    std::fs::copy(shop.path("connectors/leaves/leave_request.sql"), shop.path("connectors/leaves/hanging.sql"))
        .expect("copies");
    connection.set_autocommit(false).expect("begins");
    run(&connection, &format!("LOCK TABLE {locked} IN ACCESS EXCLUSIVE MODE"));

    shop.source.connections_max = Some(2);
    let state = |table: &str| format!("oa/{table}");
    // While one waits for the lock, the other is through; and whoever wants to stop is not held up.
    let extract = shop.extract().await;
    let (stop, shutdown) = watch::channel(false);
    let running = tokio::spawn({
        let extract = extract.clone();
        async move { extract.run(shutdown).await }
    });
    let records = |table| extract.board.report().get(&state(table)).map(|status| status.records);
    poll_until("the other table comes", || (records("leave_request") == Some(1)).then_some(())).await;
    assert_eq!(records("hanging"), Some(0));
    let began = Instant::now();
    stop.send_replace(true);
    running.await.expect("runs").expect("stops well");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());

    drop(extract);
    shop.source.timeout_s = 1;
    let extract = shop.extract().await;
    let (stop, shutdown) = watch::channel(false);
    let running = tokio::spawn({
        let extract = extract.clone();
        async move { extract.run(shutdown).await }
    });
    let told = poll_until("it is given up", || extract.board.report().get(&state("hanging"))?.error.clone()).await;
    assert!(told.contains("given nothing for 1 s") || told.contains("statement timeout"), "{told}");
    connection.rollback().expect("lets go");
    poll_until("it goes on", || (extract.board.report().get(&state("hanging"))?.records == 1).then_some(())).await;
    stop.send_replace(true);
    running.await.expect("runs").expect("stops well");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_schema_overnight_is_told_and_waited_for() {
    let Some((shop, connection, table)) = postgres() else { return };
    insert(&connection, &table, "L1", "2026-11-01 08:00:00");
    assert_eq!(shop.pull().await, (1, 0, 0, None));
    let alter = |how: &str| run(&connection, &format!("ALTER TABLE {table} {how}"));
    let told = |pulled: (u64, u64, u64, Option<String>)| {
        let error = pulled.3.unwrap_or_default();
        let error = error.split("; Error").next().unwrap_or_default().replace(&table, "TABLE");
        format!("{} {} {} {error}\n", pulled.0, pulled.1, pulled.2)
    };
    let mut seen = String::new();
    alter("ADD COLUMN BZ TEXT");
    insert(&connection, &table, "L2", "2026-11-01 08:01:00");
    seen += &format!("added: {}", told(shop.pull().await));
    alter("ALTER COLUMN ZHXGSJ TYPE TIMESTAMP USING ZHXGSJ::timestamp");
    insert(&connection, &table, "L3", "2026-11-01 08:02:00");
    seen += &format!("another type: {}", told(shop.pull().await));
    alter("RENAME COLUMN XH TO XUEHAO");
    seen += &format!("renamed: {}", told(shop.pull().await));
    alter("RENAME COLUMN XUEHAO TO XH");
    seen += &format!("named as before: {}", told(shop.pull().await));
    alter("DROP COLUMN SFZJH");
    seen += &format!("dropped: {}", told(shop.pull().await));
    expect![[r#"
        added: 1 0 1 
        another type: 1 0 2 
        renamed: 0 0 0 the source refused the query: ODBC emitted an error calling 'SQLExecDirect': State: 42703, Native error: 1, Message: ERROR: column "xh" does not exist
        named as before: 0 0 3 
        dropped: 0 0 0 the source refused the query: ODBC emitted an error calling 'SQLExecDirect': State: 42703, Native error: 1, Message: ERROR: column "sfzjh" does not exist
    "#]].assert_eq(&seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_rows_than_memory_come_batch_by_batch() {
    let Ok(string) = std::env::var("QUAD_TEST_POSTGRES") else {
        return println!("skipped: QUAD_TEST_POSTGRES is not set");
    };
    let mut shop = Shop::new("pull = \"snapshot\"");
    let file = shop.path("connectors/leaves/connector.toml");
    let connector = std::fs::read_to_string(&file).expect("reads");
    let query = "query = \"SELECT generate_series(1, 1000000000) AS WID\"";
    let lines = connector.lines().map(|line| if line.starts_with("query") { query } else { line });
    std::fs::write(&file, lines.collect::<Vec<_>>().join("\n")).expect("writes");
    // A driver that first takes everything does not give a row in this time.
    (shop.source.connection, shop.source.timeout_s) = (Some(string), 5);
    let connector = Connector::load(&shop.path("connectors"), "leaves", &shop.contracts).expect("loads");
    let worker = Worker::alone(&settings(shop.folder.path()), tokio::runtime::Handle::current());
    let of_source = shop.source.clone();
    let taken = tokio::task::spawn_blocking(move || {
        let mut rows = 0;
        let mut source = source::connect(&connector, &of_source, &worker).expect("connects");
        let outcome = source.pull(&connector.tables[0], &[], &mut |batch, _| {
            rows += batch.num_rows();
            if rows < 10_000 { Ok(()) } else { Err(Error::source("enough")) }
        });
        (rows, outcome.err().map(|error| error.to_string()))
    });
    assert_eq!(taken.await.expect("runs"), (10_000, Some("enough".to_string())));
}

#[tokio::test(flavor = "multi_thread")]
async fn chinese_text_and_times_with_fractions_and_zones_come_whole_and_as_those_of_the_campus() {
    let of_postgres = "TIMESTAMP '2026-11-01 11:18:00.123456' AS A, TIMESTAMPTZ '2026-11-01 03:18:00.5+00' AS B";
    let of_mariadb = "CAST('2026-11-01 11:18:00.123456' AS DATETIME(6)) AS A, FROM_UNIXTIME(1793503080.5) AS B";
    let cases = [
        ("QUAD_TEST_POSTGRES", "PostgreSQL Unicode", of_postgres),
        ("QUAD_TEST_POSTGRES", "PostgreSQL ANSI", of_postgres),
        ("QUAD_TEST_MARIADB", "MariaDB Unicode", of_mariadb),
    ];
    for (variable, driver, columns) in cases {
        let Ok(string) = std::env::var(variable) else {
            println!("skipped: {variable} is not set");
            continue;
        };
        let string = string.replace("PostgreSQL Unicode", driver);
        let mut shop = Shop::new("pull = \"snapshot\"");
        let file = shop.path("connectors/leaves/connector.toml");
        let connector = std::fs::read_to_string(&file).expect("reads");
        let query = format!("query = \"SELECT {columns}, '王小明𠮷' AS C, NULL AS D\"");
        let lines = connector.lines().map(|line| if line.starts_with("query") { &query } else { line });
        std::fs::write(&file, lines.collect::<Vec<_>>().join("\n")).expect("writes");
        shop.source.connection = Some(string);
        let connector = Connector::load(&shop.path("connectors"), "leaves", &shop.contracts).expect("loads");
        let worker = Worker::alone(&settings(shop.folder.path()), tokio::runtime::Handle::current());
        let (worker, of_source) = (worker.in_timezone(Tz::Asia__Shanghai), shop.source.clone());
        let pulled = tokio::task::spawn_blocking(move || {
            let mut seen = Vec::new();
            let mut source = source::connect(&connector, &of_source, &worker).expect("connects");
            let pulled = source.pull(&connector.tables[0], &[], &mut |batch, _| {
                let cell = |column: &arrow::array::ArrayRef| {
                    column.as_string::<i32>().iter().next().flatten().unwrap_or("-").to_string()
                };
                seen.extend(batch.columns().iter().map(cell));
                Ok(())
            });
            pulled.map(|_| seen.join(" | "))
        });
        let seen = pulled.await.expect("runs").expect("pulls");
        assert!(seen.starts_with("2026-11-01 11:18:00.123456 | 2026-11-01 11:18:00.5"), "{driver}: {seen}");
        assert!(seen.ends_with(" | 王小明𠮷 | -"), "{driver}: {seen}");
    }
}
