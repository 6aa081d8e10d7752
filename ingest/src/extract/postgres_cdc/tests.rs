//! What is made of messages, and what is said of servers, without one.

use arrow::array::{Array, AsArray};
use expect_test::{Expect, expect};

use super::changes::Missing;
use super::pgoutput::{Column, Message, Old, Value};
use super::place::{Phase, Place};
use super::server::Server;
use super::*;
use crate::extract::source::Limits;

fn declared() -> Table {
    let input =
        [("WID", "wid"), ("XH", "xh"), ("BZ", "bz")].map(|(name, column)| (name.to_string(), column.to_string()));
    let table = Table { table: "qj".into(), key: vec!["WID".into()], input: input.into(), slot_lost: SlotLost::Stop };
    table.checked().expect("right")
}

const OID: u32 = 16_384;
const STREAM: Place = Place { phase: Phase::Stream, lsn: Lsn(0x100), time_us: 1_000_000, oid: OID };

fn text(text: &str) -> Value<'_> {
    Value::Text(text.as_bytes())
}

fn begin<'m>(second: i64) -> Message<'m> {
    Message::Begin { time_us: second * 1_000_000, xid: 7 }
}

fn commit<'m>(end: u64) -> Message<'m> {
    Message::Commit { end: Lsn(end) }
}

fn relation<'m>(names: &[&str]) -> Message<'m> {
    let column = |name: &&str| Column { name: name.to_string(), is_identity: *name == "wid" };
    Message::Relation { oid: OID, name: "public.qj".into(), columns: names.iter().map(column).collect() }
}

fn insert<'m>(new: [Value<'m>; 3]) -> Message<'m> {
    Message::Insert { oid: OID, new: new.into() }
}

fn update<'m>(old: Option<(bool, [Value<'m>; 3])>, new: [Value<'m>; 3]) -> Message<'m> {
    let old = old.map(|(is_whole, row)| Old { is_whole, row: row.into() });
    Message::Update { oid: OID, old, new: new.into() }
}

/// What becomes of messages of a table of `wid`, `bz` and `xh`; a row that is gone is one whose `wid` begins with `gone`.
fn check(messages: Vec<Message<'_>>, expected: Expect) {
    let declared = declared();
    let mut changes = Changes::new(&declared, STREAM, Limits { rows_max: 9, text_bytes_max: 12 });
    let mut told = String::new();
    let mut fetch = |missing: &Missing<'_>| {
        told.push_str(&format!("asks for {:?} of {:?}, seen by {}\n", missing.columns, missing.identity, missing.xid));
        let values = missing.columns.iter().map(|name| Some(format!("its {name}"))).collect();
        Ok((!missing.identity[0].1.starts_with("gone")).then_some(values))
    };
    let error = std::iter::once(relation(&["wid", "bz", "xh"]))
        .chain(messages)
        .find_map(|message| changes.push("0/1", message, &mut fetch).err());
    let (place, is_due) = (changes.place, changes.is_due());
    let batch = changes.take().expect("a batch");
    let cell = |name: &str, row: usize| {
        let column = batch.column_by_name(name).expect("a column").as_string::<i32>();
        if column.is_valid(row) { column.value(row).to_string() } else { "-".to_string() }
    };
    for row in 0..batch.num_rows() {
        let cells = ["_op", "WID", "XH", "BZ", "_timestamp", "_error"].map(|name| cell(name, row));
        told.push_str(&(cells.join(" | ") + "\n"));
    }
    if let Some(error) = error {
        told.push_str(&format!("{error}\n"));
    }
    expected.assert_eq(&format!("{told}{} due: {is_due}\n", place.cursor().join(" ")));
}

#[test]
fn changes_become_rows_in_their_order_and_times_never_go_back() {
    let other = Message::Insert { oid: 1, new: vec![text("X")] };
    check(
        vec![
            begin(60),
            insert([text("一"), Value::Null, text("a")]),
            update(None, [text("一"), text(""), text("b")]),
            other,
            commit(0x200),
            begin(30),
            update(Some((false, [text("一"), Value::Null, Value::Null])), [text("二"), text("c"), text("b")]),
            Message::Delete { oid: OID, old: Old { is_whole: true, row: vec![text("二"), text("c"), text("b")] } },
            commit(0x300),
            begin(90),
            insert([text("三"), Value::Null, Value::Null]),
        ],
        expect![[r#"
            - | 一 | a | - | 1970-01-01T00:01:00.000000Z | -
            - | 一 | b |  | 1970-01-01T00:01:00.000000Z | -
            D | 一 | - | - | 1970-01-01T00:01:00.000000Z | -
            - | 二 | b | c | 1970-01-01T00:01:00.000000Z | -
            D | 二 | b | c | 1970-01-01T00:01:00.000000Z | -
            - | 三 | - | - | 1970-01-01T00:01:30.000000Z | -
            stream 0/300 60000000 16384 due: true
        "#]],
    );
}

#[test]
fn what_did_not_change_is_taken_from_the_row_before_or_asked_for() {
    let unchanged = Value::Unchanged;
    check(
        vec![
            begin(2),
            update(Some((true, [text("1"), text("old"), text("a")])), [text("1"), unchanged, text("b")]),
            update(None, [text("2"), unchanged, text("b")]),
            update(None, [text("gone"), unchanged, unchanged]),
            update(Some((false, [text("3"), Value::Null, Value::Null])), [text("gone too"), unchanged, text("b")]),
            commit(0x200),
        ],
        expect![[r#"
            asks for ["bz"] of [("wid", "2")], seen by 7
            asks for ["bz", "xh"] of [("wid", "gone")], seen by 7
            asks for ["bz"] of [("wid", "gone too")], seen by 7
            - | 1 | b | old | 1970-01-01T00:00:02.000000Z | -
            - | 2 | b | its bz | 1970-01-01T00:00:02.000000Z | -
            D | 3 | - | - | 1970-01-01T00:00:02.000000Z | -
            stream 0/200 2000000 16384 due: true
        "#]],
    );
}

#[test]
fn what_cannot_be_read_is_told_in_its_row_and_a_truncate_ends_the_stream() {
    check(
        vec![
            begin(2),
            insert([text("1"), text("thirteen byte"), Value::Text(b"\xff\xfe")]),
            insert([text("2"), Value::Text(b"\xff"), text("a")]),
            Message::Truncate { oids: vec![1] },
            insert([text("3"), Value::Null, text("a")]),
            Message::Truncate { oids: vec![1, OID] },
            insert([text("4"), Value::Null, text("a")]),
            commit(0x200),
        ],
        expect![[r#"
            - | 1 | - | - | 1970-01-01T00:00:02.000000Z | `BZ` has 13 bytes, more than extract.text_bytes_max (12)
            - | 2 | a | - | 1970-01-01T00:00:02.000000Z | `BZ` is no UTF-8
            - | 3 | a | - | 1970-01-01T00:00:02.000000Z | -
            snapshot 0/200 2000000 16384 due: true
        "#]],
    );
    check(
        vec![
            begin(2),
            insert([text("1"), Value::Null, text("a")]),
            commit(0x200),
            begin(3),
            relation(&["wid", "xh", "beizhu"]),
        ],
        expect![[r#"
            - | 1 | a | - | 1970-01-01T00:00:02.000000Z | -
            `qj` has no column `bz`: was it renamed or dropped? Mend `[input]` of this table. It has wid, xh, beizhu
            stream 0/200 2000000 16384 due: true
        "#]],
    );
    check(
        vec![begin(2), Message::Insert { oid: OID, new: vec![text("1")] }],
        expect![[r#"
        a row of 1 values came for a table of 3 columns
        stream 0/100 1000000 16384 due: false
    "#]],
    );
}

/// A server as it should be.
const RIGHT: &str = r#"{"wal_level":"logical","user":"quad","may_replicate":true,"is_standby":false,"now_us":5,"flushed":"2/0",
"slot":{"confirmed_flush_lsn":"0/100","restart_lsn":"1/F0000000","wal_status":"reserved","two_phase":false},
"publication":{"pubinsert":true,"pubupdate":true,"pubdelete":true,"pubtruncate":true,"pubviaroot":false},
"table":{"oid":16384,"schema":"public","name":"qj","kind":"r","identity":"d","is_published":true,"columns":[
{"name":"wid","type":"text","is_identity":true},{"name":"xh","type":"text","is_identity":false},{"name":"bz","type":"text","is_identity":false}]}}"#;

/// What is said of servers that differ in one thing.
fn said(edits: &[(&str, &str)], say: impl Fn(&Server) -> String) -> String {
    let say = |(from, to): &(&str, &str)| {
        assert!(RIGHT.contains(from), "{from}");
        let server = Server::read(&RIGHT.replacen(from, to, 1)).expect("an answer");
        format!("{from} -> {to}: {}\n", say(&server))
    };
    edits.iter().map(say).collect()
}

#[test]
fn what_a_person_has_to_run_at_the_server_is_said() {
    let declared = declared();
    let told = said(
        &[
            ("logical", "logical"),
            ("logical", "replica"),
            (r#""may_replicate":true"#, r#""may_replicate":false"#),
            (r#""is_standby":false"#, r#""is_standby":true"#),
            (r#""kind":"r""#, r#""kind":"v""#),
            (r#""kind":"r""#, r#""kind":"p""#),
            (r#""identity":"d""#, r#""identity":"f""#),
            (r#""is_identity":true"#, r#""is_identity":false"#),
            (
                r#""name":"wid","type":"text","is_identity":true},{"name":"xh","type":"text","is_identity":false}"#,
                r#""name":"wid","type":"text","is_identity":false},{"name":"xh","type":"text","is_identity":true}"#,
            ),
            (r#""is_published":true"#, r#""is_published":false"#),
            (r#""pubtruncate":true"#, r#""pubtruncate":false"#),
            (r#""restart_lsn":"1/F0000000""#, r#""restart_lsn":"1/0""#),
        ],
        |server| match server.check(&declared, "quad_oa_qj") {
            Ok(()) => server.held_back("quad_oa_qj").unwrap_or_else(|| "well".to_string()),
            Err(error) => error.to_string(),
        },
    );
    expect![[r#"
        logical -> logical: well
        logical -> replica: wal_level is `replica`: ALTER SYSTEM SET wal_level = 'logical', and restart PostgreSQL
        "may_replicate":true -> "may_replicate":false: the user `quad` may not replicate: ALTER ROLE quad REPLICATION
        "is_standby":false -> "is_standby":true: this server is a standby: name the primary in `connection`
        "kind":"r" -> "kind":"v": it is a view or a foreign table, which has no changes of its own: name a table
        "kind":"r" -> "kind":"p": its publication names partitions: ALTER PUBLICATION quad_oa_qj SET (publish_via_partition_root = true)
        "identity":"d" -> "identity":"f": well
        "is_identity":true -> "is_identity":false: it has no primary key, so that deletes do not tell of what: ALTER TABLE "public"."qj" REPLICA IDENTITY FULL
        "name":"wid","type":"text","is_identity":true},{"name":"xh","type":"text","is_identity":false} -> "name":"wid","type":"text","is_identity":false},{"name":"xh","type":"text","is_identity":true}: `WID` of `key` is not in its primary key, so that deletes and changes of it do not tell: ALTER TABLE "public"."qj" REPLICA IDENTITY FULL
        "is_published":true -> "is_published":false: it is not in its publication: ALTER PUBLICATION quad_oa_qj ADD TABLE "public"."qj"
        "pubtruncate":true -> "pubtruncate":false: its publication leaves changes out: ALTER PUBLICATION quad_oa_qj SET (publish = 'insert, update, delete, truncate')
        "restart_lsn":"1/F0000000" -> "restart_lsn":"1/0": its slot `quad_oa_qj` holds back 4096 MiB of the server's log: is it pulled often enough, and no transaction left open there? A slot that nobody needs: SELECT pg_drop_replication_slot('quad_oa_qj')
    "#]].assert_eq(&told);
    let relation = Server::read(RIGHT).expect("an answer");
    let relation = relation.relation(&declared).expect("a table");
    let row = relation.select_row(&[&"bz".to_string()], &[&"wid".to_string()]);
    expect![[r#"
        SELECT CASE WHEN "bz" IS NOT NULL THEN format('%s', "bz") END AS c0, CASE WHEN "wid" IS NOT NULL THEN format('%s', "wid") END AS c1, CASE WHEN "xh" IS NOT NULL THEN format('%s', "xh") END AS c2 FROM ONLY "public"."qj"
        SELECT CASE WHEN "bz" IS NOT NULL THEN format('%s', "bz") END AS c0 FROM "public"."qj" WHERE "wid" = CAST(? AS text)
    "#]].assert_eq(&format!("{}\n{row}\n", relation.select(&declared)));
}

#[test]
fn lost_changes_are_told_unless_nothing_was_taken_yet() {
    let begun = STREAM.cursor();
    let first = Place::first(OID, 0).cursor();
    let edits = [
        ("logical", "logical"),
        (r#""confirmed_flush_lsn":"0/100""#, r#""confirmed_flush_lsn":"0/101""#),
        (r#""flushed":"2/0""#, r#""flushed":"0/FF""#),
        (r#""wal_status":"reserved""#, r#""wal_status":"lost""#),
        (r#""restart_lsn":"1/F0000000""#, r#""restart_lsn":null"#),
        (r#""slot":{"#, r#""slot":null,"was":{"#),
        ("16384", "16385"),
    ];
    let say = |after: &[String], edits: &[(&str, &str)]| {
        said(edits, |server| match place(&declared(), "SLOT", server, after) {
            Ok(Found::Place(_)) => "goes on".to_string(),
            Ok(Found::Nowhere) => "begins".to_string(),
            Ok(Found::Lost(why)) => format!("is read anew: {why}"),
            Err(error) => error.to_string(),
        })
    };
    expect![[r#"
        logical -> logical: goes on
        "confirmed_flush_lsn":"0/100" -> "confirmed_flush_lsn":"0/101": changes were lost with the slot `SLOT`: somebody has moved it to 0/101, beyond 0/100, the next. Set `slot_lost = "snapshot"` of this table to read it anew, which also deletes what is gone
        "flushed":"2/0" -> "flushed":"0/FF": changes were lost with the slot `SLOT`: the server has gone back to 0/FF, before 0/100, the next. Set `slot_lost = "snapshot"` of this table to read it anew, which also deletes what is gone
        "wal_status":"reserved" -> "wal_status":"lost": changes were lost with the slot `SLOT`: the server has given it up, since it held back more of the log than max_slot_wal_keep_size. Set `slot_lost = "snapshot"` of this table to read it anew, which also deletes what is gone
        "restart_lsn":"1/F0000000" -> "restart_lsn":null: changes were lost with the slot `SLOT`: the server has given it up, since it held back more of the log than max_slot_wal_keep_size. Set `slot_lost = "snapshot"` of this table to read it anew, which also deletes what is gone
        "slot":{ -> "slot":null,"was":{: changes were lost with the slot `SLOT`: it is gone: it was dropped, or this is another server. Set `slot_lost = "snapshot"` of this table to read it anew, which also deletes what is gone
        16384 -> 16385: changes were lost with the slot `SLOT`: the table was dropped and made anew. Set `slot_lost = "snapshot"` of this table to read it anew, which also deletes what is gone
    "#]].assert_eq(&say(&begun, &edits));
    expect![[r#"
        logical -> logical: goes on
        "confirmed_flush_lsn":"0/100" -> "confirmed_flush_lsn":"0/101": goes on
        "flushed":"2/0" -> "flushed":"0/FF": goes on
        "wal_status":"reserved" -> "wal_status":"lost": changes were lost with the slot `SLOT`: the server has given it up, since it held back more of the log than max_slot_wal_keep_size. Set `slot_lost = "snapshot"` of this table to read it anew, which also deletes what is gone
        "restart_lsn":"1/F0000000" -> "restart_lsn":null: changes were lost with the slot `SLOT`: the server has given it up, since it held back more of the log than max_slot_wal_keep_size. Set `slot_lost = "snapshot"` of this table to read it anew, which also deletes what is gone
        "slot":{ -> "slot":null,"was":{: goes on
        16384 -> 16385: changes were lost with the slot `SLOT`: the table was dropped and made anew. Set `slot_lost = "snapshot"` of this table to read it anew, which also deletes what is gone
    "#]].assert_eq(&say(&first, &edits));
    expect![[r#"
        logical -> logical: the slot `SLOT` is there, and this Quad has not made it or has lost its state: does another Quad take these changes? Name the source otherwise here; or, if nobody needs it, SELECT pg_drop_replication_slot('SLOT')
        "slot":{ -> "slot":null,"was":{: begins
    "#]].assert_eq(&say(&[], &[edits[0], edits[5]]));
    let asked = Table { slot_lost: SlotLost::Snapshot, ..declared() };
    let server = Server::read(&RIGHT.replace("16384", "16385")).expect("an answer");
    assert!(matches!(place(&asked, "SLOT", &server, &begun), Ok(Found::Lost(_))));
}

#[test]
fn a_table_says_what_it_lacks() {
    let check = |keys: &str| {
        let table: Result<Table, _> = toml::from_str(keys);
        let told = table.map_err(|error| error.message().to_string()).and_then(Table::checked);
        told.map_or_else(|error| error, |table| table.columns().join(" ")) + "\n"
    };
    let told = [
        check("table = \"qj\"\nkey = [\"A\"]\ninput = { A = \"a\", B = \"b\" }"),
        check("table = \"qj\"\nkey = [\"a\"]\ninput = { A = \"a\" }"),
        check("table = \"qj\"\nkey = []\ninput = { A = \"a\" }"),
        check("table = \"qj\"\nkey = [\"_op\"]\ninput = { _op = \"a\" }"),
        check("table = \"qj\"\nkey = [\"A\"]\ninput = { A = \"a\" }\nslot_lost = \"earliest\""),
    ];
    expect![[r#"
        A B _error _lsn _op _timestamp
        `key` names `a`, which is no column of `[input]`
        needs `table`, `key` (the input columns that the contract's key is made of) and `[input]`: column = column of the table
        the input column `_op` is always there: name yours otherwise
        unknown variant `earliest`, expected `stop` or `snapshot`
    "#]].assert_eq(&told.concat());
    let mapping = |sql: &str| Table::check_mapping(sql).err().unwrap_or_else(|| "right".to_string()) + "\n";
    let told = ["\"_op\" AS op, \"_timestamp\" AS t", "\"_op\" AS op", "\"_timestamp\" AS t"].map(mapping);
    expect![[r#"
        right
        its mapping does not read "_timestamp", so that deletes would be lost: "_op" AS op, "_timestamp" AS src_updated_at
        its mapping does not read "_op", so that deletes would be lost: "_op" AS op, "_timestamp" AS src_updated_at
    "#]].assert_eq(&told.concat());
}
