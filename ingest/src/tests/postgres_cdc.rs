//! Changes of a real PostgreSQL on their way to the log: `QUAD_TEST_POSTGRES` holds a connection string to one whose wal_level
//! is logical; skipped aloud otherwise.

mod chaos;
mod database;

use expect_test::expect;
use tokio::runtime::Handle;

use self::database::{COLUMNS, Database, Reader, block, shown};
use crate::error::Error;
use crate::extract::source::{self, Coverage, Limits, Worker};

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
async fn what_vanished_while_there_was_no_slot_is_deleted() {
    let Some(database) = Database::new(COLUMNS, "slot_lost = \"snapshot\"") else { return };
    database.change("INSERT INTO {T} SELECT 'L' || n, '0026', DATE '2026-11-03' FROM generate_series(1, 3) n");
    assert_eq!(database.shop.pull().await, (3, 0, 0, None));
    database.change("SELECT pg_drop_replication_slot('quad_oa_{T}')");
    database.change("DELETE FROM {T} WHERE wid = 'L2'; INSERT INTO {T} VALUES ('L4', '0026', '2026-11-03')");
    assert_eq!(database.shop.pull().await, (2, 0, 2, None), "one new, one gone, two as before");
    database.change("DELETE FROM {T} WHERE wid = 'L1'");
    assert_eq!(database.shop.pull().await, (1, 0, 0, None), "and then as before");
    database.shop.land().await;
    let gone = "SELECT leave_id FROM leave WHERE op = 'D' ORDER BY 1";
    assert_eq!(database.shop.rows(gone).await, "L1\nL2\n");
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
        + a L4 w…
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
    expect![[r#"
        |
        read anew
        + null 1 a
        + null 2 a
        |
        + null long null ! `XH` has 65 bytes, more than extract.text_bytes_max (64)
        |
        + null 3 a
        |
        `NAME` has no column `xh`: was it renamed or dropped? Mend `[input]` of this table. It has wid, xuehao, qjjssj, bz
        again: `NAME` has no column `xh`: was it renamed or dropped? Mend `[input]` of this table. It has wid, xuehao, qjjssj, bz
        + null 4 a
        |
    "#]].assert_eq(&told);
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
        its publication names partitions: ALTER PUBLICATION quad_oa_NAME SET (publish_via_partition_root = true)
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
