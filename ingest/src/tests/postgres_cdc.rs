//! Changes of a real PostgreSQL on their way to the log: `QUAD_TEST_POSTGRES` holds a connection string to one whose wal_level
//! is logical; skipped aloud otherwise.

mod chaos;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow_odbc::odbc_api::{Connection, ConnectionOptions, Cursor, environment};
use expect_test::expect;
use tokio::runtime::Handle;

use super::Shop;
use crate::connector::Connector;
use crate::error::Error;
use crate::extract::source::{self, Coverage, Limits, Source, Worker};

const CONNECTOR: &str = r#"
title = "changes of leave requests"
kind = "postgres_cdc"
[tables.NAME]
contract = "student_affairs.leave_request"
table = "NAME"
key = ["WID"]
MORE
[tables.NAME.input]
WID = "wid"
XH = "xh"
QJJSSJ = "qjjssj"
"#;

const MAPPING: &str = r#"
SELECT clean_id("WID") AS leave_id, clean_id("XH") AS student_no, cn_timestamp('2026-11-01 08:00') AS applied_at,
       cn_timestamp('2026-11-02') AS start_at, cn_timestamp_end("QJJSSJ") AS end_at, 'approved' AS approval_status,
       "_op" AS op, "_timestamp" AS src_updated_at
FROM input
"#;

const COLUMNS: &str = "wid TEXT PRIMARY KEY, xh TEXT, qjjssj DATE";

/// A table of its own in the real PostgreSQL, and a connector to it. What it leaves there goes with it.
struct Database {
    connection: Connection<'static>,
    string: String,
    /// Of the table.
    name: String,
    shop: Shop,
}

impl Drop for Database {
    fn drop(&mut self) {
        let name = &self.name;
        let slots = format!(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'quad_oa_{name}'"
        );
        // A test that fails says enough.
        for statement in
            [slots, format!("DROP PUBLICATION IF EXISTS quad_oa_{name}"), format!("DROP TABLE IF EXISTS {name}")]
        {
            let _ = self.connection.execute(&statement, (), None);
        }
    }
}

impl Database {
    /// A published table of these columns; `more` are keys of the connector's table.
    fn new(columns: &str, more: &str) -> Option<Self> {
        let database = Self::unpublished(columns, more)?;
        database.change("CREATE PUBLICATION quad_oa_{T} FOR TABLE {T} WITH (publish_via_partition_root = true)");
        Some(database)
    }

    fn unpublished(columns: &str, more: &str) -> Option<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let Ok(string) = std::env::var("QUAD_TEST_POSTGRES") else {
            println!("skipped: QUAD_TEST_POSTGRES is not set");
            return None;
        };
        let name = format!("cdc_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut shop = Shop::of(&CONNECTOR.replace("NAME", &name).replace("MORE", more));
        std::fs::write(shop.path(&format!("connectors/leaves/{name}.sql")), MAPPING).expect("writes");
        shop.source.connection = Some(string.clone());
        let database = Self { connection: connect(&string), string, name, shop };
        database.change(&format!("CREATE TABLE {{T}} ({columns})"));
        Some(database)
    }

    /// Runs statements about the table, `{T}`.
    fn change(&self, statements: &str) {
        run(&self.connection, &statements.replace("{T}", &self.name));
    }

    /// The first column of an answer, a line a row.
    fn ask(&self, query: &str) -> String {
        ask(&self.connection, &query.replace("{T}", &self.name))
    }

    fn slots(&self) -> String {
        self.ask("SELECT count(*)::text FROM pg_replication_slots WHERE slot_name = 'quad_oa_{T}'")
    }

    fn connector(&self) -> Connector {
        Connector::load(&self.shop.path("connectors"), "leaves", &self.shop.contracts).expect("a right connector")
    }

    /// Changes the connector's file.
    fn mend(&self, from: &str, to: &str) {
        let file = self.shop.path("connectors/leaves/connector.toml");
        let text = std::fs::read_to_string(&file).expect("reads");
        assert!(text.contains(from), "{from}");
        std::fs::write(&file, text.replace(from, to)).expect("writes");
    }

    fn reader(&self) -> Reader {
        let connector = self.connector();
        let worker = Worker::of(Limits { rows_max: 2, text_bytes_max: 64 }, Handle::current()).pulling("oa");
        let source = source::connect(&connector, &self.shop.source, &worker).expect("connects");
        Reader { source, connector, cursor: Vec::new() }
    }

    /// One that goes on from there.
    fn reader_at(&self, cursor: Vec<String>) -> Reader {
        Reader { cursor, ..self.reader() }
    }
}

/// A source that is pulled as extract would, with its cursor.
struct Reader {
    source: Box<dyn Source>,
    connector: Connector,
    cursor: Vec<String>,
}

impl Reader {
    /// One pull. A row is a line: what was done, the input columns in their order, and why it could not be read. A `|` stands
    /// where the cursor was saved.
    fn pull(&mut self) -> String {
        let (mut told, after) = (String::new(), self.cursor.clone());
        let cursor = &mut self.cursor;
        let outcome = self.source.pull(&self.connector.tables[0], &after, &mut |batch, values| {
            told.push_str(&shown(&batch));
            if let Some(values) = values {
                told.push_str("|\n");
                *cursor = values;
            }
            Ok(())
        });
        match outcome {
            Ok(Coverage::Anew(values)) => {
                *cursor = values;
                told.push_str("read anew\n");
            }
            Ok(_) => {}
            Err(error) => told.push_str(&format!("{error}\n")),
        }
        told
    }
}

/// The rows of a batch, without their times and places.
fn shown(batch: &RecordBatch) -> String {
    let text = |name: &str, row: usize| {
        let column = batch.column_by_name(name).expect("a column").as_string::<i32>();
        column.is_valid(row).then(|| column.value(row).to_string())
    };
    let schema = batch.schema();
    let names: Vec<&String> =
        schema.fields().iter().map(|field| field.name()).filter(|name| !name.starts_with('_')).collect();
    let line = |row: usize| {
        assert!(text("_timestamp", row).is_some(), "each row has a time");
        let cells = names.iter().map(|name| text(name, row).unwrap_or_else(|| "null".to_string()));
        let error = text("_error", row).map(|error| format!(" ! {error}")).unwrap_or_default();
        let op = text("_op", row).unwrap_or_else(|| "+".to_string());
        format!("{op} {}{error}\n", cells.collect::<Vec<_>>().join(" "))
    };
    (0..batch.num_rows()).map(line).collect()
}

fn connect(string: &str) -> Connection<'static> {
    let environment = environment().expect("ODBC starts");
    let connection = environment.connect_with_connection_string(string, ConnectionOptions::default());
    let connection = connection.expect("PostgreSQL is there");
    // What is committed can then be read from the log.
    run(&connection, "SET synchronous_commit TO on");
    connection
}

fn run(connection: &Connection<'_>, statements: &str) {
    connection.execute(statements, (), None).expect(statements);
}

fn ask(connection: &Connection<'_>, query: &str) -> String {
    let mut told = String::new();
    if let Some(mut cursor) = connection.execute(query, (), None).expect(query) {
        while let Some(mut row) = cursor.next_row().expect("reads") {
            let mut text = Vec::new();
            row.get_text(1, &mut text).expect("a text");
            told.push_str(&(String::from_utf8(text).expect("UTF-8") + "\n"));
        }
    }
    told
}

fn block<T>(run: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(run)
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_and_then_changes_reach_the_lake_and_what_is_gone_is_gone() {
    let Some(database) = Database::new(COLUMNS, "") else { return };
    database.change("INSERT INTO {T} SELECT 'L' || n, '0026', DATE '2026-11-03' FROM generate_series(1, 5) n");
    assert_eq!(database.shop.pull().await, (5, 0, 0, None), "the rows that are there");
    database.change("UPDATE {T} SET qjjssj = '2026-11-04' WHERE wid = 'L1'; DELETE FROM {T} WHERE wid = 'L2'");
    database.change("UPDATE {T} SET wid = 'L6' WHERE wid = 'L3'; UPDATE {T} SET xh = xh WHERE wid = 'L4'");
    database.change("BEGIN; INSERT INTO {T} VALUES ('L9', '0026', '2026-11-03'); ROLLBACK");
    database.change("INSERT INTO {T} VALUES ('', '0026', '2026-11-03'), ('L7', '0027', '2026-11-05')");
    assert_eq!(database.shop.pull().await, (5, 1, 1, None), "a bad row is a letter, one that is as before a repeat");
    assert_eq!(database.shop.pull().await, (0, 0, 0, None), "nothing comes twice");
    database.shop.land().await;
    database
        .shop
        .check(
            "SELECT leave_id, student_no, end_at, op FROM leave ORDER BY leave_id, src_updated_at, op",
            expect![[r#"
                L1 0026 2026-11-03T15:59:59Z I
                L1 0026 2026-11-04T15:59:59Z I
                L2 0026 2026-11-03T15:59:59Z I
                L2   D
                L3 0026 2026-11-03T15:59:59Z I
                L3   D
                L4 0026 2026-11-03T15:59:59Z I
                L5 0026 2026-11-03T15:59:59Z I
                L6 0026 2026-11-03T15:59:59Z I
                L7 0027 2026-11-05T15:59:59Z I
            "#]],
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_emptied_is_deleted_unless_it_came_back() {
    let Some(database) = Database::new(COLUMNS, "") else { return };
    database.change("INSERT INTO {T} SELECT 'L' || n, '0026', DATE '2026-11-03' FROM generate_series(1, 5) n");
    assert_eq!(database.shop.pull().await, (5, 0, 0, None));
    // As a nightly load does it: two rows are as before, one is another, one is new.
    database.change(
        "BEGIN; INSERT INTO {T} VALUES ('L8', '0026', '2026-11-03'); TRUNCATE {T}; \
         INSERT INTO {T} VALUES ('L1', '0026', '2026-11-03'), ('L2', '0026', '2026-11-03'), ('L3', '0027', '2026-11-03'), \
         ('L6', '0026', '2026-11-03'); COMMIT",
    );
    assert_eq!(database.shop.pull().await, (1, 0, 0, None), "L8, of before it was emptied");
    assert_eq!(database.shop.pull().await, (5, 0, 2, None), "one other, one new, three gone, and two as before");
    // What was read anew is not read once more from the log.
    database.change("UPDATE {T} SET qjjssj = '2026-11-09' WHERE wid = 'L6'");
    assert_eq!(database.shop.pull().await, (1, 0, 0, None));
    database.shop.land().await;
    let current = "SELECT leave_id, student_no, end_at FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY leave_id ORDER BY \
                   src_updated_at DESC, kafka_offset DESC) AS n FROM leave) WHERE n = 1 AND op <> 'D' ORDER BY 1";
    database
        .shop
        .check(
            current,
            expect![[r#"
        L1 0026 2026-11-03T15:59:59Z
        L2 0026 2026-11-03T15:59:59Z
        L3 0027 2026-11-03T15:59:59Z
        L6 0026 2026-11-09T15:59:59Z
    "#]],
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_as_psql_shows_them_in_rows_and_in_changes() {
    let columns = "wid TEXT PRIMARY KEY, xh CHAR(4), qjjssj TEXT, b BOOLEAN, n NUMERIC(20, 4), t TIMESTAMPTZ, d BYTEA, \
                   a TEXT[], j JSONB, f DOUBLE PRECISION, i INTERVAL";
    let Some(database) = Database::new(columns, "") else { return };
    let input = "B = \"b\"\nN = \"n\"\nT = \"t\"\nD = \"d\"\nA = \"a\"\nJ = \"j\"\nF = \"f\"\nI = \"i\"\nWID = \"wid\"";
    database.mend("WID = \"wid\"", input);
    let row = |id: &str| {
        format!(
            "INSERT INTO {{T}} VALUES ('{id}', '甲 ', '徐霞客 ''?'' {{x}}', true, 1234567890123456.50, \
             '2026-11-01 08:00:00.5+08', '\\xdeadbeef', '{{一,NULL,\"c d\"}}', '{{\"k\": \"值\"}}', 0.1, '1 day 02:00'), \
             ('{id}-null', NULL, '', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"
        )
    };
    database.change(&row("s"));
    let (rows, changes) = block(|| {
        let mut reader = database.reader();
        let rows = reader.pull();
        database.change(&row("c"));
        (rows, reader.pull())
    });
    let of_rows = |told: &str| told.lines().filter(|line| line.starts_with('+')).collect::<Vec<_>>().join("\n");
    assert_eq!(of_rows(&rows).replace(" s", " c"), of_rows(&changes));
    let psql = database.ask("SELECT concat_ws(' ', a, b, d, f, i, j, n, qjjssj, t, wid, xh) FROM {T} WHERE wid = 'c'");
    assert_eq!(changes.lines().next(), Some(format!("+ {}", psql.trim_end_matches('\n')).as_str()));
    expect![[r#"
        + {一,NULL,"c d"} t \xdeadbeef 0.1 1 day 02:00:00 {"k": "值"} 1234567890123456.5000 徐霞客 '?' {x} 2026-11-01 00:00:00.5+00 c 甲   
        + null null null null null null null  null c-null null
        |
    "#]].assert_eq(&changes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_stored_apart_is_never_taken_for_nothing() {
    let Some(database) = Database::new(COLUMNS, "") else { return };
    database.change("ALTER TABLE {T} ALTER xh SET STORAGE EXTERNAL; ALTER TABLE {T} ALTER qjjssj TYPE TEXT");
    // Rows of two kilobytes and more store values apart.
    let big = |letter: char| format!("repeat('{letter}', 4000)");
    let told = block(|| {
        let mut reader = database.reader();
        // A text may be so long here.
        let worker = Worker::of(Limits { rows_max: 9, text_bytes_max: 5000 }, Handle::current()).pulling("oa");
        reader.source = source::connect(&reader.connector, &database.shop.source, &worker).expect("connects");
        let mut told = reader.pull();
        database.change(&format!("INSERT INTO {{T}} VALUES ('L1', {}, 'a'), ('L2', {}, 'a')", big('x'), big('y')));
        told += &reader.pull();
        database.change("UPDATE {T} SET qjjssj = 'b' WHERE wid = 'L1'");
        told += &format!("asked for:\n{}", reader.pull());
        database.change(&format!(
            "BEGIN; UPDATE {{T}} SET xh = {} WHERE wid = 'L1'; UPDATE {{T}} SET qjjssj = 'c' WHERE wid = 'L1'; COMMIT",
            big('z')
        ));
        database.change("UPDATE {T} SET qjjssj = 'd' WHERE wid = 'L2'; DELETE FROM {T} WHERE wid = 'L2'");
        told += &format!("and when it is gone:\n{}", reader.pull());
        database.change("ALTER TABLE {T} REPLICA IDENTITY FULL; UPDATE {T} SET wid = 'L3' WHERE wid = 'L1'");
        told += &format!("from the row before:\n{}", reader.pull());
        // A driver may know long texts only to a limit of its own.
        database.change("TRUNCATE {T}; INSERT INTO {T} VALUES ('L4', repeat('w', 15000), 'a')");
        let worker = Worker::of(Limits { rows_max: 9, text_bytes_max: 20_000 }, Handle::current());
        let mut source = source::connect(&reader.connector, &database.shop.source, &worker).expect("connects");
        let looked = source.pull(&reader.connector.tables[0], &[], &mut |batch, _| {
            told += &shown(&batch).replace(&"w".repeat(15_000), "w…");
            Ok(())
        });
        assert_eq!(looked.map_err(|error| error.chain()), Ok(Coverage::Whole));
        told
    });
    let short = ['x', 'y', 'z']
        .iter()
        .fold(told, |told, letter| told.replace(&letter.to_string().repeat(4000), &format!("{letter}…")));
    expect![[r#"
        |
        read anew
        + a L1 x…
        + a L2 y…
        |
        asked for:
        + b L1 x…
        |
        and when it is gone:
        + b L1 z…
        + c L1 z…
        D null L2 null
        |
        from the row before:
        D c L1 z…
        + c L3 z…
        |
    "#]]
    .assert_eq(&short);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_never_moves_into_a_transaction() {
    let Some(database) = Database::new(COLUMNS, "") else { return };
    let insert = |ids: &str| {
        database.change(&format!("INSERT INTO {{T}} SELECT n::text, 'x', NULL FROM generate_series({ids}) n"))
    };
    let told = block(|| {
        let mut reader = database.reader();
        reader.pull();
        insert("1, 1");
        insert("2, 6");
        insert("7, 7");
        // Killed when the second batch is in the log, which begins in one transaction and ends in the next.
        let (mut batches, mut told, mut cursor) = (0, String::new(), reader.cursor.clone());
        let killed = reader.source.pull(&reader.connector.tables[0], &reader.cursor, &mut |batch, values| {
            told += &shown(&batch);
            batches += 1;
            cursor = values.unwrap_or_else(|| cursor.clone());
            if batches < 2 { Ok(()) } else { Err(Error::source("killed")) }
        });
        assert!(killed.is_err());
        told + "killed\n" + &database.reader_at(cursor).pull()
    });
    expect![[r#"
        + null 1 x
        + null 2 x
        + null 3 x
        + null 4 x
        killed
        + null 2 x
        + null 3 x
        + null 4 x
        + null 5 x
        + null 6 x
        + null 7 x
        |
        |
    "#]]
    .assert_eq(&told);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_schema_overnight_is_told_and_loses_nothing() {
    let Some(database) = Database::new(COLUMNS, "") else { return };
    let told = block(|| {
        let mut reader = database.reader();
        let mut told = reader.pull();
        database.change("INSERT INTO {T} VALUES ('1', 'a', NULL); ALTER TABLE {T} ADD bz TEXT");
        database.change("INSERT INTO {T} VALUES ('2', 'a', NULL, 'b'), ('long', repeat('x', 65), NULL, NULL)");
        told += &reader.pull();
        database.change("INSERT INTO {T} VALUES ('3', 'a', NULL); ALTER TABLE {T} RENAME xh TO xuehao");
        database.change("INSERT INTO {T} VALUES ('4', 'a', NULL)");
        told += &reader.pull();
        told += &format!("again: {}", reader.pull());
        database.mend("\"xh\"", "\"xuehao\"");
        told += &database.reader_at(reader.cursor).pull();
        told.replace(&database.name, "NAME")
    });
    expect![[r#""#]].assert_eq(&told);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_lost_changes_is_told_and_made_anew_only_when_asked_to() {
    let Some(database) = Database::new(COLUMNS, "") else { return };
    let slot = format!("quad_oa_{}", database.name);
    database.change("INSERT INTO {T} VALUES ('1', 'a', NULL), ('2', 'a', NULL)");
    let told = block(|| {
        let mut reader = database.reader();
        let mut told = format!("begins: {}", reader.pull());
        let mut stranger = database.reader();
        told += &format!("a stranger: {}", stranger.pull());
        database.change("INSERT INTO {T} VALUES ('9', 'a', NULL)");
        database.ask("SELECT pg_replication_slot_advance('quad_oa_{T}', pg_current_wal_flush_lsn())::text");
        told += &format!("moved by another: {}", reader.pull());
        let wrong = Reader {
            cursor: vec!["stream".into(), "FF/0".into(), "0".into(), reader.cursor[3].clone()],
            ..database.reader()
        };
        told += &format!("gone back: {}", { wrong }.pull());
        database.change("SELECT pg_drop_replication_slot('quad_oa_{T}')");
        told += &format!("dropped: {}", reader.pull());
        database.change("DROP TABLE {T}; CREATE TABLE {T} (wid TEXT PRIMARY KEY, xh TEXT, qjjssj DATE)");
        told += &format!("made anew: {}", reader.pull());
        database.change("ALTER PUBLICATION quad_oa_{T} ADD TABLE {T}; INSERT INTO {T} VALUES ('3', 'a', NULL)");
        told += &format!("published: {}", reader.pull());
        database.mend("key = ", "slot_lost = \"snapshot\"\nkey = ");
        told += &format!("asked to: {}", database.reader_at(reader.cursor).pull());
        told.replace(&slot, "SLOT").replace(&database.name, "NAME")
    });
    let numbers = |word: &str| {
        word.contains('/')
            && word.split('/').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_hexdigit() || b == b','))
    };
    let told = told.lines().map(|line| {
        line.split(' ').map(|word| if numbers(word) { "X/X" } else { word }).collect::<Vec<_>>().join(" ") + "\n"
    });
    expect![[r#"
        begins: |
        + null 1 a
        + null 2 a
        read anew
        a stranger: the slot `SLOT` is there, and this Quad has not made it or has lost its state: does another Quad take these changes? Name the source otherwise here; or, if nobody needs it, SELECT pg_drop_replication_slot('SLOT')
        moved by another: changes were lost with the slot `SLOT`: somebody has moved it to X/X beyond X/X the next. Set `slot_lost = "snapshot"` of this table to read it anew, which also deletes what is gone
        gone back: changes were lost with the slot `SLOT`: the server has gone back to X/X before X/X the next. Set `slot_lost = "snapshot"` of this table to read it anew, which also deletes what is gone
        dropped: changes were lost with the slot `SLOT`: it is gone: it was dropped, or this is another server. Set `slot_lost = "snapshot"` of this table to read it anew, which also deletes what is gone
        made anew: it is not in its publication: ALTER PUBLICATION SLOT ADD TABLE "public"."NAME"
        published: changes were lost with the slot `SLOT`: the table was dropped and made anew. Set `slot_lost = "snapshot"` of this table to read it anew, which also deletes what is gone
        asked to: |
        + null 3 a
        read anew
    "#]].assert_eq(&told.collect::<String>());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_looks_leaves_no_slot_behind_and_a_probe_says_what_to_run() {
    let Some(database) = Database::unpublished(COLUMNS, "") else { return };
    database.change("INSERT INTO {T} VALUES ('1', 'a', NULL), ('2', 'b', NULL)");
    let told = block(|| {
        let connector = database.connector();
        let table = &connector.tables[0];
        let worker = Worker::of(Limits { rows_max: 9, text_bytes_max: 64 }, Handle::current());
        let open = |worker: &Worker| source::connect(&connector, &database.shop.source, worker).expect("connects");
        let mut told = String::new();
        let looked = open(&worker).pull(table, &[], &mut |batch, cursor| {
            assert_eq!(cursor, None);
            told += &shown(&batch);
            Ok(())
        });
        assert_eq!(looked.expect("reads"), Coverage::Whole);
        let mut probe = |what: &str| {
            let mut source = open(&worker.looking_at("oa"));
            let outcome = source.probe(table).map_or_else(|error| error.to_string(), |()| "well".to_string());
            told += &format!("{what}: {outcome}\n");
        };
        probe("unpublished");
        database.change("CREATE PUBLICATION quad_oa_{T} WITH (publish = 'insert')");
        probe("empty");
        database.change("ALTER PUBLICATION quad_oa_{T} ADD TABLE {T}");
        probe("inserts only");
        database.change("ALTER PUBLICATION quad_oa_{T} SET (publish = 'insert, update, delete, truncate')");
        probe("right");
        database.change("ALTER TABLE {T} DROP CONSTRAINT {T}_pkey");
        probe("no key");
        database.change("ALTER TABLE {T} ADD PRIMARY KEY (xh)");
        probe("another key");
        database.change("ALTER TABLE {T} REPLICA IDENTITY FULL");
        probe("full");
        database.change("ALTER TABLE {T} DROP qjjssj");
        probe("dropped");
        database.change("DROP TABLE {T}");
        probe("none");
        told.replace(&database.name, "NAME")
    });
    assert_eq!(database.slots(), "0\n");
    expect![[r#"
        + null 1 a
        + null 2 b
        unpublished: the table is not published: its owner runs CREATE PUBLICATION quad_oa_NAME FOR TABLE "public"."NAME" WITH (publish_via_partition_root = true)
        empty: it is not in its publication: ALTER PUBLICATION quad_oa_NAME ADD TABLE "public"."NAME"
        inserts only: its publication leaves changes out: ALTER PUBLICATION quad_oa_NAME SET (publish = 'insert, update, delete, truncate')
        right: well
        no key: it has no primary key, so that deletes do not tell of what: ALTER TABLE "public"."NAME" REPLICA IDENTITY FULL
        another key: `WID` of `key` is not in its primary key, so that deletes and changes of it do not tell: ALTER TABLE "public"."NAME" REPLICA IDENTITY FULL
        full: well
        dropped: `NAME` has no column `qjjssj`: was it renamed or dropped? Mend `[input]` of this table. It has wid, xh
        none: there is no table `NAME`, or the user `quad` may not see its schema: GRANT USAGE ON SCHEMA … TO quad
    "#]].assert_eq(&told);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partitioned_table_is_one_table() {
    let name = "wid TEXT, xh TEXT, qjjssj DATE, PRIMARY KEY (wid, xh)) PARTITION BY LIST (xh";
    let Some(database) = Database::unpublished(name, "") else { return };
    database
        .change("CREATE TABLE {T}_a PARTITION OF {T} FOR VALUES IN ('a'); CREATE TABLE {T}_b PARTITION OF {T} DEFAULT");
    database.change("CREATE PUBLICATION quad_oa_{T} FOR TABLE {T}");
    let told = block(|| {
        let mut reader = database.reader();
        let mut told = reader.pull();
        database.change("ALTER PUBLICATION quad_oa_{T} SET (publish_via_partition_root = true)");
        database.change("INSERT INTO {T} VALUES ('1', 'a', NULL), ('2', 'c', NULL)");
        told += &reader.pull();
        database
            .change("UPDATE {T} SET qjjssj = '2026-11-01' WHERE wid = '1'; UPDATE {T} SET xh = 'b' WHERE wid = '1'");
        told += &reader.pull();
        told.replace(&database.name, "NAME")
    });
    expect![[r#"
        it is not in its publication: ALTER PUBLICATION quad_oa_NAME ADD TABLE "public"."NAME"
        |
        + null 1 a
        + null 2 c
        read anew
        + 2026-11-01 1 a
        D null 1 a
        + 2026-11-01 1 b
        |
    "#]]
    .assert_eq(&told);
}

/// The table as a map from its key.
fn table(database: &Database) -> BTreeMap<String, String> {
    let rows = database.ask("SELECT wid || ' ' || xh FROM {T}");
    rows.lines().filter_map(|line| line.split_once(' ')).map(|(id, value)| (id.into(), value.into())).collect()
}
