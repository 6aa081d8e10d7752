//! Files of every format on their way to the log, and what becomes of broken ones.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampSecondArray};
use expect_test::{Expect, expect};
use parquet::arrow::ArrowWriter;
use schemas::Sensitive;

use super::{Shop, settings};
use crate::connector::Connector;
use crate::extract::source::{self, Worker};

const TABLE: &str = r#"
title = "leave requests in spreadsheets"
kind = "files"
[tables.leave_request]
contract = "student_affairs.leave_request"
pull = "PULL"
settle_s = 0
KEYS
[tables.leave_request.input]
WID = "编号"
XH = "学号"
SQSJ = "申请时间"
QJKSSJ = "开始"
QJJSSJ = "结束"
ZHXGSJ = "修改时间"
"#;

fn table(pull: &str, keys: &str) -> String {
    TABLE.replace("PULL", pull).replace("KEYS", keys)
}

/// A workshop whose source is its folder `inbox`.
fn shop(connector: &str) -> Shop {
    let mut shop = Shop::of(connector);
    std::fs::create_dir_all(shop.path("inbox/2026")).expect("creates");
    shop.source.connection = Some(shop.path("inbox").to_string_lossy().into_owned());
    shop
}

fn put(shop: &Shop, name: &str, bytes: impl AsRef<[u8]>) {
    std::fs::write(shop.path("inbox").join(name), bytes).expect("writes");
}

/// What one pull reads: its rows, the cursor at its end, its error.
async fn read(shop: &Shop) -> String {
    let connector = Connector::load(&shop.path("connectors"), "leaves", &shop.contracts).expect("a right connector");
    let worker = Worker::alone(&settings(shop.folder.path()), tokio::runtime::Handle::current());
    let of_source = shop.source.clone();
    let told = tokio::task::spawn_blocking(move || {
        let mut told = String::new();
        let mut source = source::connect(&connector, &of_source, &worker).expect("the folder is there");
        let outcome = source.pull(&connector.tables[0], &[], &mut |batch, _| {
            for row in 0..batch.num_rows() {
                let cell = |column: &ArrayRef| {
                    column.as_string_opt::<i32>().map(|text| text.is_valid(row).then(|| text.value(row).to_string()))
                };
                let cells: Vec<_> =
                    batch.columns().iter().filter_map(cell).map(|cell| cell.unwrap_or("-".into())).collect();
                told += &format!("{}\n", cells.join(" | "));
            }
            Ok(())
        });
        told + &outcome.err().map(|error| format!("{error}\n")).unwrap_or_default()
    });
    told.await.expect("reads")
}

async fn check(connector: &str, files: &[(&str, &[u8])], expected: Expect) {
    let shop = shop(connector);
    for (name, bytes) in files {
        put(&shop, name, bytes);
    }
    expected.assert_eq(&read(&shop).await);
}

const HEADER: &str = "编号,学号,申请时间,开始,结束,修改时间\n";

fn line(id: &str, end: &str) -> String {
    format!("{id},0026,2026-11-01 08:00,2026-11-02,{end},2026-11-01 09:00\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_is_read_in_every_encoding() {
    let text = "学号,备注,编号,申请时间,开始,结束,修改时间\n\
                0026,\"第一行\n第二行, \"\"引号\"\"\",X1,2026/11/1 8:00,2026-11-02,\"2026-11-03\",2026-11-01\n\
                ,,,,,,\n\
                0027,,X2,,\"2026-11-02\n(周一)\",2026-11-04,\n";
    let (gb18030, _, _) = encoding_rs::GB18030.encode(text);
    let utf_16: Vec<u8> = std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let shop = shop(&table("changed", "files = \"**/*.csv\""));
    let mut told = Vec::new();
    for bytes in [text.as_bytes(), format!("\u{feff}{text}").as_bytes(), &gb18030, &utf_16] {
        put(&shop, "2026/a.csv", bytes);
        told.push(read(&shop).await);
    }
    assert!(told.iter().all(|other| *other == told[0]), "{told:#?}");
    expect![[r#"
        2026-11-03 | 2026-11-02 | 2026/11/1 8:00 | X1 | 0026 | 2026-11-01
        2026-11-04 | 2026-11-02
        (周一) | - | X2 | 0027 | -
    "#]]
    .assert_eq(&told[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delimiter_and_titles_above_the_header_are_declared() {
    let keys = "files = \"*.txt\"\ndelimiter = \"|\"\nheader_row = 3\nencoding = \"gb18030\"";
    let text = format!("请假汇总\n制表人|张\n{HEADER}{}", line("X1", "2026-11-03")).replace(',', "|");
    let (bytes, _, _) = encoding_rs::GB18030.encode(&text);
    check(
        &table("changed", keys),
        &[("a.txt", &bytes)],
        expect![[r#"
        2026-11-03 | 2026-11-02 | 2026-11-01 08:00 | X1 | 0026 | 2026-11-01 09:00
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workbook_keeps_text_as_text_and_dates_as_dates() {
    let book = include_bytes!("leave.xlsx");
    let keys = "files = \"*.xlsx\"\nheader_row = 2\nsheet = \"请假\"";
    let as_there = |table: String| {
        let table = table.replace("开始", "开始时间").replace("结束", "结束时间").replace("修改时间", "审批状态");
        table + "SFLX = \"是否离校\"\nBZ = \"备注\"\nWJ = \"{file}\"\n"
    };
    let connector = as_there(table("changed", keys));
    check(
        &connector,
        &[("a.xlsx", book), ("~$a.xlsx", b"a lock")],
        expect![[r#"
        1.5 | 2026-11-03 | 2026-11-02 | 是 | 2026-11-01 08:00:00 | 01 | a.xlsx | 0026 | 已批准
        1.10105194912310E17 | 20261104 | 2026-11-02 | TRUE | 2026/11/01 08:00 | 2 | a.xlsx | 0027 | 同意
        0.3 | #N/A | 2026-11-02 18:30:00 | 否 | 2026-11-01 08:00:00.500 | 3 | a.xlsx | 28 | 审批中
        07:05:00 | 2026-11-03 | 2026-11-02 | 否 | 2026-11-01 08:00:00 | 4 | a.xlsx | 0029 | 院里说行
    "#]],
    )
    .await;
    let broken = table("changed", "files = \"*.xlsx\"\nheader_row = 2");
    check(
        &broken,
        &[("half.xlsx", &book[..book.len() / 2])],
        expect![[r#"
        half.xlsx: no whole workbook: Zip error: invalid Zip archive: Could not find EOCD
    "#]],
    )
    .await;
    check(
        &table("changed", "files = \"*.xlsx\"\nsheet = \"成绩\""),
        &[("a.xlsx", book)],
        expect![[r#"
        a.xlsx: no such sheet; it has 请假, 其他
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_lines_are_read_by_pointer() {
    let connector = table("changed", "files = \"*.jsonl\"").replace("= \"", "= \"/").replace("\"/", "\"");
    let connector = connector.replace("\"编号\"", "\"/id\"").replace("\"学号\"", "\"/who/no\"");
    let connector = ["申请时间", "开始", "结束", "修改时间"]
        .iter()
        .fold(connector, |text, name| text.replace(&format!("\"{name}\""), "\"/who/no\""));
    let lines = "{\"id\": \"X1\", \"who\": {\"no\": \"0026\"}}\n\n{\"id\": 17, \"who\": null}\n";
    check(
        &connector,
        &[("a.jsonl", lines.as_bytes())],
        expect![[r#"
        0026 | 0026 | 0026 | X1 | 0026 | 0026
        - | - | - | 17 | - | -
    "#]],
    )
    .await;
    let half = "{\"id\": \"X1\", \"who\": {\"no\": \"0026\"}}\n{\"id\": \"X2\", \"who\": {\"n";
    check(
        &connector,
        &[("half.jsonl", half.as_bytes())],
        expect![[r#"
        half.jsonl: line 2: not JSON, at column 23: is the file whole?
    "#]],
    )
    .await;
    check(
        &connector,
        &[("drift.jsonl", b"{\"nr\": 1, \"who\": {\"no\": 2}}\n")],
        expect![[r#"
        drift.jsonl: nothing at `/id` in any record: was it renamed? Mend the file, or `[input]`
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parquet_is_read_as_text() {
    let text = |texts: [&str; 2]| Arc::new(StringArray::from(texts.to_vec())) as ArrayRef;
    let batch = RecordBatch::try_from_iter([
        ("编号", text(["X1", "X2"])),
        ("学号", text(["0026", "0027"])),
        ("申请时间", Arc::new(TimestampSecondArray::from(vec![Some(1_793_491_200), None])) as ArrayRef),
        ("开始", Arc::new(Int64Array::from(vec![20_261_102, 20_261_103]))),
        ("结束", text(["2026-11-03", "2026-11-04"])),
        ("修改时间", text(["2026-11-01", "2026-11-01"])),
        ("多余", text(["1", "2"])),
    ])
    .expect("a batch");
    let shop = shop(&table("changed", "files = \"*.parquet\""));
    let file = shop.path("inbox/a.parquet");
    let mut writer = ArrowWriter::try_new(File::create(&file).expect("creates"), batch.schema(), None).expect("begins");
    writer.write(&batch).expect("writes");
    writer.close().expect("ends");
    expect![[r#"
        2026-11-03 | 20261102 | 2026-11-01T00:00:00 | X1 | 0026 | 2026-11-01
        2026-11-04 | 20261103 | - | X2 | 0027 | 2026-11-01
    "#]]
    .assert_eq(&read(&shop).await);
    let whole = std::fs::read(&file).expect("reads");
    put(&shop, "a.parquet", &whole[..whole.len() - 9]);
    expect![[r#"
        a.parquet: no whole Parquet file: Parquet error: Invalid Parquet file. Corrupt footer
    "#]]
    .assert_eq(&read(&shop).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_whole_gives_none_of_its_rows() {
    let connector = table("changed", "files = \"*.csv\"");
    let good = format!("{HEADER}{}{}", line("X1", "2026-11-03"), line("X2", "2026-11-03"));
    let cut = &good[..good.len() - 20];
    let renamed = good.replace("学号", "学生学号");
    let twice = good.replace("修改时间", "学号");
    let long = format!("{HEADER}{}", line("X1", &"9".repeat(300)));
    let bytes = [good.as_bytes(), b"X3,\xff\xfe,,,,\n"].concat();
    let quote = format!("{good}X3,\"0026,,,,\n{}", line("X4", "2026-11-03"));
    let files: [(&str, &[u8]); 7] = [
        ("cut.csv", cut.as_bytes()),
        ("renamed.csv", renamed.as_bytes()),
        ("twice.csv", twice.as_bytes()),
        ("long.csv", long.as_bytes()),
        ("bytes.csv", &bytes),
        ("quote.csv", quote.as_bytes()),
        ("empty.csv", b""),
    ];
    let mut told = String::new();
    for (name, bytes) in files {
        let shop = shop(&connector);
        put(&shop, name, bytes);
        told += &read(&shop).await;
    }
    expect![[r#"
        cut.csv: line 3: 5 cells, and the header has 6: is the file whole?
        renamed.csv: column `学号` is not in the header: was it renamed? Mend the file, or `[input]` of this table
        twice.csv: column `学号` stands twice in the header
        long.csv: line 2: `QJJSSJ` holds 300 bytes; the longest is extract.text_bytes_max
        bytes.csv: line 4: cell 2 holds bytes that are not UTF-8; set `encoding`
        quote.csv: line 4: 2 cells, and the header has 6: is the file whole?
        empty.csv: line 1: there is no header: is the file whole?
    "#]]
    .assert_eq(&told);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_read_again_and_its_repeats_are_recognised() {
    let shop = shop(&table("changed", "files = \"*.csv\""));
    let rows =
        |end: &str| format!("{HEADER}{}{}{}", line("X1", "2026-11-03"), line("X2", end), line("X3", "2026-11-03"));
    put(&shop, "a.csv", rows("2026-11-03"));
    assert_eq!(shop.pull().await, (3, 0, 0, None));
    assert_eq!(shop.pull().await, (0, 0, 0, None), "nothing has changed");
    put(&shop, "a.csv", rows("2026-11-0912").replace("2026-11-0912", "2026-11-09"));
    touch(&shop.path("inbox/a.csv"), 5);
    assert_eq!(shop.pull().await, (1, 0, 2, None), "only the row that changed");
    put(&shop, "b.csv", format!("{HEADER}{}", line("X4", "never")));
    assert_eq!(shop.pull().await, (0, 1, 0, None), "a bad row is a letter, not an error");
    touch(&shop.path("inbox/b.csv"), 9);
    assert_eq!(shop.pull().await, (0, 0, 1, None), "and the same letter when it comes again");
}

/// As if it had been written so many seconds from now.
pub(super) fn touch(path: &Path, seconds: i64) {
    let file = File::options().write(true).open(path).expect("opens");
    let moved = Duration::from_secs(seconds.unsigned_abs());
    let now = SystemTime::now();
    file.set_modified(if seconds < 0 { now - moved } else { now + moved }).expect("touches");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_does_not_hold_up_the_others() {
    let shop = shop(&table("changed", "files = \"*.csv\""));
    put(&shop, "a.csv", "编号\nX9\n");
    put(&shop, "b.csv", format!("{HEADER}{}", line("X1", "2026-11-03")));
    let (records, _, _, error) = shop.pull().await;
    assert_eq!(records, 0, "what was sent is told by the pull that goes well");
    expect!["a.csv: column `结束` is not in the header: was it renamed? Mend the file, or `[input]` of this table"]
        .assert_eq(&error.expect("a.csv is broken"));
    put(&shop, "a.csv", format!("{HEADER}{}", line("X9", "2026-11-03")));
    assert_eq!(shop.pull().await, (1, 0, 0, None), "b.csv is not read again");
    shop.land().await;
    shop.check(
        "SELECT leave_id FROM leave ORDER BY 1",
        expect![[r#"
        X1
        X9
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_left_alone_until_it_settles() {
    let shop = shop(&table("changed", "files = \"*.csv\"").replace("settle_s = 0", "settle_s = 60"));
    put(&shop, "a.csv", format!("{HEADER}{}", line("X1", "2026-11-03")));
    assert_eq!(shop.pull().await, (0, 0, 0, None));
    touch(&shop.path("inbox/a.csv"), -61);
    assert_eq!(shop.pull().await, (1, 0, 0, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_files_finds_what_vanished() {
    let shop = shop(&table("snapshot", "files = \"*.csv\""));
    put(
        &shop,
        "a.csv",
        format!("{HEADER}{}{}{}", line("X1", "2026-11-03"), line("X2", "2026-11-03"), line("X3", "2026-11-03")),
    );
    put(&shop, "b.csv", format!("{HEADER}{}", line("X4", "2026-11-03")));
    assert_eq!(shop.pull().await, (4, 0, 0, None));
    assert_eq!(shop.pull().await, (0, 0, 0, None), "nothing has changed");
    put(&shop, "a.csv", format!("{HEADER}{}{}", line("X1", "2026-11-03"), line("X3", "2026-11-05")));
    assert_eq!(shop.pull().await, (2, 0, 2, None), "one changed, one deleted");
    std::fs::remove_file(shop.path("inbox/a.csv")).expect("removes");
    for _ in 0..2 {
        let (_, _, _, error) = shop.pull().await;
        let error = error.expect("too many vanished, again and again");
        assert!(error.starts_with("2 of 3 rows vanished"), "{error}");
    }
    std::fs::remove_file(shop.path("inbox/b.csv")).expect("removes");
    let (_, _, _, error) = shop.pull().await;
    let error = error.expect("no file").replace(&*shop.path("inbox").to_string_lossy(), "inbox");
    expect!["no file matches `*.csv` below inbox; nothing was deleted"].assert_eq(&error);
    shop.land().await;
    shop.check(
        "SELECT leave_id FROM leave WHERE op = 'D'",
        expect![[r#"
        X2
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_log_and_cursor_loses_nothing() {
    let shop = shop(&table("changed", "files = \"*.csv\""));
    put(&shop, "a.csv", format!("{HEADER}{}", line("X1", "2026-11-03")));
    assert_eq!(shop.pull().await, (1, 0, 0, None));
    let (state, before) = (shop.path("extract"), shop.path("before"));
    copy(&state, &before);
    let more: String = (2..9).map(|id| line(&format!("X{id}"), "2026-11-03")).collect();
    put(&shop, "b.csv", format!("{HEADER}{more}"));
    assert_eq!(shop.pull().await, (7, 0, 0, None));
    // As if the process had died when the log had everything and the cursor was not saved.
    std::fs::remove_dir_all(&state).expect("removes");
    copy(&before, &state);
    assert_eq!(shop.pull().await, (7, 0, 0, None));
    shop.land().await;
    let counts = "SELECT COUNT(*), COUNT(DISTINCT leave_id), COUNT(DISTINCT leave_id || raw_hash) FROM leave";
    shop.check(
        counts,
        expect![[r#"
        15 8 8
    "#]],
    )
    .await;
}

/// Copies a folder with all below it.
pub(super) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("creates");
    for entry in std::fs::read_dir(from).expect("lists") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).expect("copies")),
        }
    }
}

#[tokio::test]
async fn a_mistake_in_a_connector_names_file_table_and_key() {
    let right = table("changed", "files = \"*.csv\"");
    let mut told = String::new();
    for wrong in [
        right.replace("settle_s", "settle"),
        right.replace("\"changed\"", "\"cursor\""),
        right.replace("files = \"*.csv\"", "files = \"***.csv\""),
        right.replace("settle_s = 0", "delimiter = \"，\""),
        right.replace("settle_s = 0", "encoding = \"gb\""),
        right.replace("settle_s = 0", "deletes_share_max = 0.1"),
        right.replace("[tables.leave_request]", "[http]\n[tables.leave_request]"),
    ] {
        let shop = Shop::of(&wrong);
        let error = Connector::load(&shop.path("connectors"), "leaves", &shop.contracts).expect_err("a mistake");
        told += &format!("{}\n", error.to_string().rsplit_once("leaves/").map_or("", |(_, rest)| rest));
    }
    expect![[r#"
        connector.toml: table `leave_request`: unknown field `settle`, expected one of `files`, `format`, `input`, `settle_s`, `encoding`, `delimiter`, `sheet`, `header_row`
        connector.toml: table `leave_request`: `pull` is one of "changed", "snapshot"
        connector.toml: table `leave_request`: `files = "***.csv"`: Pattern syntax error near position 2: wildcards are either regular `*` or recursive `**`
        connector.toml: table `leave_request`: `delimiter = "，"` is not one ASCII character
        connector.toml: table `leave_request`: `encoding = "gb"` is unknown; it is "utf-8" or "gb18030"
        connector.toml: table `leave_request`: `deletes_share_max` is for `pull = "snapshot"`
        connector.toml: `[http]` is for `kind = "http"`
    "#]].assert_eq(&told);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_a_bucket_are_files() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let server = s3::Server::start(root.path(), s3::Faults::default()).await.expect("serves");
    server.create_bucket("inbox").expect("makes a bucket");
    let folder = root.path().join("inbox/office/2026");
    std::fs::create_dir_all(&folder).expect("creates");
    let header = "编号,学号,申请时间,开始,结束,修改时间\n";
    let row = |id: &str| format!("{id},0026,2026-11-01 08:00,2026-11-02,2026-11-03,2026-11-01 08:00\n");
    let put = |name: &str, text: String| std::fs::write(folder.join(name), text).expect("writes");
    put("a.csv", format!("{header}{}{}", row("L1"), row("L2")));
    put("b.txt", "no table".into());

    let mut shop = Shop::of(&table("changed", "files = \"**/*.csv\""));
    let variables = server.environment();
    let variable = |name: &str| variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let property = |name: &str, value: Option<String>| (name.to_string(), Sensitive::new(value.expect("is set")));
    shop.source.connection = Some("s3://inbox/office".into());
    shop.source.user = variable("AWS_ACCESS_KEY_ID");
    shop.source.password = variable("AWS_SECRET_ACCESS_KEY").map(Sensitive::new);
    shop.source.properties = [
        property("endpoint", variable("AWS_ENDPOINT_URL")),
        property("region", variable("AWS_REGION")),
        property("allow_http", Some("true".into())),
    ]
    .into();
    assert_eq!(shop.pull().await, (2, 0, 0, None));
    assert_eq!(shop.pull().await, (0, 0, 0, None), "an object is taken once");
    put("a.csv", format!("{header}{}{}{}", row("L1"), row("L2"), row("L3")));
    put("c.csv", format!("{header}{}\"", row("L4")));
    let error = shop.pull().await.3.expect("one is broken");
    assert!(error.starts_with("2026/c.csv: line 3: "), "{error}");
    drop(server);
    let error = shop.pull().await.3.expect("nobody is there");
    assert!(error.starts_with("could not list the objects: "), "{error}");
    shop.land().await;
    shop.check(
        "SELECT leave_id FROM leave ORDER BY 1",
        expect![[r#"
        L1
        L2
        L3
    "#]],
    )
    .await;
}
