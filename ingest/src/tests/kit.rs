//! The kit on a real database and real files: what its checks find, and what is proposed of a sample.

use std::path::Path;

use chrono_tz::Tz;
use expect_test::{Expect, expect};
use schemas::Sensitive;

use super::{CURSOR, Shop, settings};
use crate::connector::Connector;
use crate::extract::source::{self, Source, Worker};
use crate::kit::conformance::{self, Outcome, Trial};
use crate::kit::infer::{Profiled, sample};
use crate::kit::recording::Recording;
use crate::kit::rehearsal::Rehearsal;
use crate::kit::{preview, scaffold};
use crate::settings::SourceSettings;

/// What does not simply hold, of the leaves of `shop` or of a recording of them.
async fn check(shop: &Shop, recording: Option<&Path>, expected: Expect) {
    let connector = Connector::load(&shop.path("connectors"), "leaves", &shop.contracts).expect("a right connector");
    let extract = settings(shop.folder.path());
    let worker = Worker::alone(&extract, tokio::runtime::Handle::current());
    let (of_source, recording) = (shop.source.clone(), recording.map(Path::to_path_buf));
    let told = tokio::task::spawn_blocking(move || {
        let mut source: Box<dyn Source> = match recording {
            Some(folder) => Box::new(Recording::open(&folder, worker.limits).expect("a folder")),
            None => source::connect(&connector, &of_source, &worker).expect("answers"),
        };
        let table = &connector.tables[0];
        let rehearsal = Rehearsal::new(&extract, "oa", &connector, table, Tz::Asia__Shanghai).expect("a right mapping");
        let secrets = [Sensitive::new("s3 cret".to_string())];
        let trial = Trial { worker: &worker, rows_max: 1000, seed: 7, secrets: &secrets };
        let findings = conformance::run(source.as_mut(), &rehearsal, &trial);
        let doubtful = findings.iter().filter(|finding| !matches!(finding.outcome, Outcome::Ok | Outcome::Skipped));
        doubtful
            .map(|finding| format!("{:?} {}: {}\n", finding.outcome, finding.check, finding.text))
            .collect::<String>()
    });
    expected.assert_eq(&told.await.expect("ends"));
}

/// Leaves that were changed at one of `times` different seconds.
fn leaves(shop: &Shop, count: usize, times: usize) {
    for row in 0..count {
        shop.leave(&format!("L{row:02}"), "2026-11-03", &format!("2026-11-01 08:00:{:02}", row * times / count));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_connector_holds_cut_wherever_it_is() {
    let shop = Shop::new(CURSOR);
    leaves(&shop, 21, 5);
    check(&shop, None, expect![[r#"
        Warning columns: asked for and not mapped: SFZJH; do not ask for what nobody keeps
        Warning deletes: no row tells of a delete, and what vanishes from the source is not noticed: map `op`, or use pull = "snapshot"
    "#]]).await;
    let shop = Shop::new("pull = \"snapshot\"");
    leaves(&shop, 21, 5);
    check(
        &shop,
        None,
        expect![[r#"
        Warning columns: asked for and not mapped: SFZJH; do not ask for what nobody keeps
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_is_not_unique_loses_rows() {
    let shop = Shop::new("pull = \"cursor\"\ncursor = [\"ZHXGSJ\"]");
    leaves(&shop, 21, 5);
    check(&shop, None, expect![[r#"
        Warning columns: asked for and not mapped: SFZJH; do not ask for what nobody keeps
        Failed cursor: 16 rows have the cursor of the row before, and a pull that ends between them loses one: add a column that tells them apart to `cursor`
        Failed resume: 3 of 21 rows did not come when the pull was cut 4 times and resumed: are they in the order of the cursor, and is it unique?
        Warning deletes: no row tells of a delete, and what vanishes from the source is not noticed: map `op`, or use pull = "snapshot"
        Warning lateness: overlap_s is 0: a row whose transaction ends after a later one's is lost
    "#]]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_is_empty_in_a_row_never_finds_it_again() {
    let shop = Shop::new(CURSOR);
    leaves(&shop, 5, 5);
    shop.sql("UPDATE QJ SET ZHXGSJ = NULL WHERE WID = 'L03'");
    check(&shop, None, expect![[r#"
        Warning columns: asked for and not mapped: SFZJH; do not ask for what nobody keeps
        Failed cursor: ZHXGSJ is empty in 1 rows, which are never seen after the first pull: COALESCE it in the query
        Warning deletes: no row tells of a delete, and what vanishes from the source is not noticed: map `op`, or use pull = "snapshot"
    "#]]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_change_by_themselves_and_keys_that_are_none_are_found() {
    let shop = Shop::new("pull = \"snapshot\"");
    let file = shop.path("connectors/leaves/connector.toml");
    let text = std::fs::read_to_string(&file).expect("a connector");
    let query = "SELECT WID, XH, abs(random() % 9000000) + 1000000 AS XH2, SQSJ, QJKSSJ, QJJSSJ, SFZJH, ZHXGSJ FROM QJ";
    std::fs::write(&file, text.replace("SELECT WID, XH, SQSJ, QJKSSJ, QJJSSJ, SFZJH, ZHXGSJ FROM QJ", query))
        .expect("writes");
    let mapping = super::MAPPING.replace("clean_id(\"XH\")", "clean_id(\"XH2\")");
    std::fs::write(shop.path("connectors/leaves/leave_request.sql"), mapping).expect("writes");
    leaves(&shop, 5, 5);
    shop.leave("L03", "2026-11-09", "2026-11-01 08:00:03");
    check(&shop, None, expect![[r#"
        Warning columns: asked for and not mapped: XH, SFZJH; do not ask for what nobody keeps
        Failed keys: 1 rows have the key of another row, other content and no later time of change: which one stays is chance. The key lacks a column, or the mapping a src_updated_at
        Failed repeats: 5 rows came with other content and no later time of change: does the query or the mapping hold what changes by itself, such as the time of day?
    "#]]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_come_later_than_the_overlap_are_warned_of() {
    let shop = Shop::new("pull = \"cursor\"\ncursor = [\"SQSJ\", \"WID\"]\noverlap_s = 600");
    shop.leave("L1", "2026-11-03", "2026-11-01 08:09:00");
    shop.leave("L2", "2026-11-03", "2026-11-01 10:00:00");
    check(&shop, None, expect![[r#"
        Warning columns: asked for and not mapped: SFZJH; do not ask for what nobody keeps
        Warning deletes: no row tells of a delete, and what vanishes from the source is not noticed: map `op`, or use pull = "snapshot"
        Warning lateness: rows were written up to 7200 s after the event that the cursor is the time of, and overlap_s is 600: raise it, or use the time of change as cursor
    "#]]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_rows_and_a_secret_among_them_are_found() {
    let shop = Shop::new(CURSOR);
    leaves(&shop, 3, 3);
    shop.leave("L4", "never s3 cret", "2026-11-01 08:00:03");
    check(&shop, None, expect![[r#"
        Warning columns: asked for and not mapped: SFZJH; do not ask for what nobody keeps
        Warning contract: 1 of 4 rows rejected (25.0 %): 1 × end_at type: not a timestamp (RFC 3339)
        Warning deletes: no row tells of a delete, and what vanishes from the source is not noticed: map `op`, or use pull = "snapshot"
        Failed secrets: the password stands in a letter or an error: take it out of the connection string, the query or the path
    "#]]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_does_not_answer_is_told() {
    let shop = Shop::new(CURSOR);
    shop.sql("DROP TABLE QJ");
    check(&shop, None, expect![[r#"
        Failed answers: the first pull: the source refused the query: ODBC emitted an error calling 'SQLExecDirect': State: HY000, Native error: 1, Message: [SQLite]no such table: QJ (1)
    "#]]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_is_a_source_like_any_other() {
    let shop = Shop::new(CURSOR);
    let row = |id: &str, second: usize| {
        format!(
            r#"{{"WID":"{id}","XH":"0026","SQSJ":"2026-11-01 08:00:00","QJKSSJ":"2026-11-02","QJJSSJ":"2026-11-03","SFZJH":null,"ZHXGSJ":"2026-11-01 08:00:0{second}"}}"#
        )
    };
    let rows: Vec<_> = (0..9).map(|at| row(&format!("L{at}"), at)).collect();
    let file = shop.path("leave_request.jsonl");
    std::fs::write(&file, rows.join("\n")).expect("writes");
    check(&shop, Some(shop.folder.path()), expect![[r#"
        Warning columns: asked for and not mapped: SFZJH; do not ask for what nobody keeps
        Warning deletes: no row tells of a delete, and what vanishes from the source is not noticed: map `op`, or use pull = "snapshot"
    "#]]).await;
    let with_cursors: Vec<_> = rows
        .chunks(3)
        .enumerate()
        .map(|(at, rows)| format!("{}\n{{\"_cursor\":[\"{at}\"]}}\n", rows.join("\n")))
        .collect();
    std::fs::write(&file, with_cursors.concat()).expect("writes");
    check(&shop, Some(shop.folder.path()), expect![[r#"
        Warning columns: asked for and not mapped: SFZJH; do not ask for what nobody keeps
        Warning deletes: no row tells of a delete, and what vanishes from the source is not noticed: map `op`, or use pull = "snapshot"
    "#]]).await;
    std::fs::write(&file, "{\"WID\":\n").expect("writes");
    let limits = source::Limits { rows_max: 1, text_bytes_max: 1 };
    let mut half = Recording::open(shop.folder.path(), limits).expect("a folder");
    let connector = Connector::load(&shop.path("connectors"), "leaves", &shop.contracts).expect("a right connector");
    let error = half.probe(&connector.tables[0]).expect_err("half a line").to_string();
    assert!(
        error.ends_with("leave_request.jsonl: line 1: not JSON: EOF while parsing a value at line 1 column 7"),
        "{error}"
    );
}

const SHEET: &str = "学号,姓名,身份证号,请假编号,请假类别,申请时间,开始时间,结束日期,审批状态,联系电话,修改时间
2026010001,王小明,11010519491231002X,Q1,病假,2026-11-01 08:00:00,2026-11-02,2026-11-03,通过,13800000001,2026-11-01 08:00:00
2026010002,李小红,110105194912310038,Q2,事假,2026-11-01 09:00:00,2026-11-02,2026-11-04,待审,13800000002,2026-11-01 09:00:00
";

/// The files that are proposed of a sample for the contract that fits best, once they run.
async fn proposed(shop: &Shop, sample: sample::Sample, connection: Option<String>) -> String {
    let profiled = Profiled::new(&sample, Tz::Asia__Shanghai);
    let ranked = profiled.rank(&shop.contracts);
    let files = profiled.files("inferred", &ranked[0], &shop.contracts);
    let connectors = shop.path("connectors");
    scaffold::write_files(&connectors, "inferred", &files).expect("writes");
    assert!(scaffold::write_files(&connectors, "inferred", &files).is_err(), "nothing is overwritten");
    let connector = Connector::load(&connectors, "inferred", &shop.contracts).expect("it loads");
    let extract = settings(shop.folder.path());
    let password = (!sample.api.is_empty()).then(|| Sensitive::new("a token".to_string()));
    let connection = connection.or(Some(sample.connection));
    let of_source = SourceSettings { connection, password, ..SourceSettings::of("inferred") };
    let (worker, asked) = (Worker::alone(&extract, tokio::runtime::Handle::current()), connector.clone());
    let rows = tokio::task::spawn_blocking(move || {
        let mut source = source::connect(&asked, &of_source, &worker).expect("answers");
        preview::pulled(source.as_mut(), &asked.tables[0], 10).expect("rows")
    });
    let table = &connector.tables[0];
    let rehearsal =
        Rehearsal::new(&extract, "inferred", &connector, table, Tz::Asia__Shanghai).expect("a right mapping");
    let shown = preview::preview(&rehearsal, &connector, &rows.await.expect("reads")).await.expect("a preview");
    let mut told = files[..2].iter().map(|(name, text)| format!("== {name}\n{text}")).collect::<String>();
    told += &format!("== {} accepted\n", shown.records.num_rows());
    let reasons = shown.letters.iter().map(|letter| format!("{} {}\n", letter.field, letter.rule));
    let codes = shown.codes_unknown.iter().map(|(set, value, _)| format!("{set} {value}\n"));
    told + &reasons.chain(codes).collect::<String>()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spreadsheet_with_chinese_headers_becomes_a_connector() {
    let shop = Shop::new(CURSOR);
    let file = shop.path("leaves.csv");
    std::fs::write(&file, SHEET).expect("writes");
    super::files::touch(&file, -60);
    let (contracts, extract) = (shop.contracts.clone(), settings(shop.folder.path()));
    let worker = Worker::alone(&extract, tokio::runtime::Handle::current());
    let read =
        tokio::task::spawn_blocking(move || sample::of_file(&file, 1, 100, &contracts, &worker).expect("a file"));
    let told = proposed(&shop, read.await.expect("reads"), None).await;
    for secret in ["小明", "小红", "1949", "1380000", "2026010001"] {
        assert!(!told.contains(secret), "{secret} is of the sample");
    }
    expect![[r#"
        == connector.toml
        # inferred: which system this is, of which vendor and version, and on what it was tried.

        title = "inferred"
        kind = "files"
        # Columns of the source whose values are masked in dead letters and previews.
        sensitive = []

        # 请假与销假
        [tables.leave_request]
        contract = "student_affairs.leave_request"
        # Below the folder of the source; a pattern such as "**/*.csv" takes further files.
        files = "leaves.csv"
        pull = "changed"
        # Input column = header, or JSON pointer.
        [tables.leave_request.input]
        "请假编号" = "请假编号"
        "学号" = "学号"
        "申请时间" = "申请时间"
        "开始时间" = "开始时间"
        "请假类别" = "请假类别"
        "结束日期" = "结束日期"
        "审批状态" = "审批状态"
        "修改时间" = "修改时间"
        == leave_request.sql
        -- → student_affairs.leave_request, proposed from 2 rows. Read each line; the rules of the fields: quad tables --describe student_affairs.leave_request
        -- Columns that no field takes: 姓名, 联系电话 (telephone numbers: no contract keeps them), 身份证号 (identity numbers: keep them out)
        SELECT
            clean_id("请假编号") AS leave_id, -- 请假编号, 95 %: the field's Chinese name
            clean_id("学号") AS student_no, -- 学号, 95 %: the field's Chinese name
            cn_timestamp("申请时间") AS applied_at, -- 申请时间, 95 %: the field's Chinese name
            cn_timestamp("开始时间") AS start_at, -- 开始时间, 95 %: the field's Chinese name
            code_map('leave_type', "请假类别") AS leave_type, -- 请假类型, 85 %: a known alias of the field
            cn_timestamp_end("结束日期") AS end_at, -- 结束时间, 85 %: a known alias of the field
            code_map('approval_status', "审批状态") AS approval_status, -- 审核状态, 85 %: a known alias of the field; not in codes/approval_status.csv: 待审, 通过
            cn_timestamp("修改时间") AS src_updated_at -- when the row changed, 85 %: a known alias of the field
        FROM input
        == 2 accepted
        approval_status 待审
        approval_status 通过
        leave_type 事假
        leave_type 病假
    "#]]
    .assert_eq(&told.replace(&shop.folder.path().to_string_lossy().into_owned(), "FOLDER"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_a_database_becomes_a_connector_with_its_cursor() {
    let shop = Shop::new(CURSOR);
    leaves(&shop, 9, 9);
    let (contracts, extract) = (shop.contracts.clone(), settings(shop.folder.path()));
    let worker = Worker::alone(&extract, tokio::runtime::Handle::current());
    let of_source = shop.source.clone();
    let read = tokio::task::spawn_blocking(move || {
        sample::of_table(&of_source, "QJ", 100, &contracts, &worker).expect("a table")
    });
    let told = proposed(&shop, read.await.expect("reads"), shop.source.connection.clone()).await;
    expect![[r#"
        == connector.toml
        # inferred: which system this is, of which vendor and version, and on what it was tried.

        title = "inferred"
        kind = "sql"
        # Columns of the source whose values are masked in dead letters and previews.
        sensitive = []

        # 请假与销假
        [tables.leave_request]
        contract = "student_affairs.leave_request"
        query = "SELECT WID, XH, SQSJ, QJKSSJ, QJJSSJ, ZHXGSJ FROM QJ"
        # In the sample unique: WID, ZHXGSJ; times that never fall: SQSJ, QJKSSJ, QJJSSJ, ZHXGSJ.
        pull = "cursor"
        # NOT NULL, unique together, the time of change first.
        cursor = ["ZHXGSJ", "WID"]
        overlap_s = 600
        == leave_request.sql
        -- → student_affairs.leave_request, proposed from 9 rows. Read each line; the rules of the fields: quad tables --describe student_affairs.leave_request
        -- Columns that no field takes: SFZJH (identity numbers: keep them out)
        SELECT
            clean_id("WID") AS leave_id, -- 请假编号, 95 %: the field's code in real systems
            clean_id("XH") AS student_no, -- 学号, 95 %: the field's code in real systems
            cn_timestamp("SQSJ") AS applied_at, -- 申请时间, 95 %: the field's code in real systems
            cn_timestamp("QJKSSJ") AS start_at, -- 开始时间, 95 %: the field's code in real systems
            cn_timestamp_end("QJJSSJ") AS end_at, -- 结束时间, 95 %: the field's code in real systems
            cn_timestamp("ZHXGSJ") AS src_updated_at -- when the row changed, 85 %: a known alias of the field
        FROM input
        == 9 accepted
    "#]].assert_eq(&told);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_no_field_takes_is_asked_for_beside_the_time_of_change() {
    let shop = Shop::new(CURSOR);
    leaves(&shop, 9, 9);
    shop.sql("CREATE TABLE NUMBERED AS SELECT rowid AS NR, XH, QJKSSJ, QJJSSJ, ZHXGSJ FROM QJ");
    let (contracts, extract) = (shop.contracts.clone(), settings(shop.folder.path()));
    let worker = Worker::alone(&extract, tokio::runtime::Handle::current());
    let of_source = shop.source.clone();
    let read = tokio::task::spawn_blocking(move || {
        sample::of_table(&of_source, "NUMBERED", 100, &contracts, &worker).expect("a table")
    });
    let sample = read.await.expect("reads");
    let contract = shop.contracts.get("student_affairs.leave_request").expect("a contract");
    let profiled = Profiled::new(&sample, Tz::Asia__Shanghai);
    let files = profiled.files("inferred", &profiled.propose(contract), &shop.contracts);
    let (connector, mapping) = (&files[0].1, &files[1].1);
    assert!(connector.contains("ZHXGSJ, NR FROM NUMBERED") && connector.contains(r#"["ZHXGSJ", "NR"]"#), "{connector}");
    assert!(mapping.contains("no field takes: NR"), "{mapping}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_becomes_a_connector() {
    let platform = campus::platform::Platform::start(50, None).await.expect("serves");
    for id in 1..=3u64 {
        platform.put("leaves", serde_json::json!({
            "id": id, "leave_id": format!("Q{id}"), "student": { "XH": "0026" }, "LX": "病假", "SQSJ": "2026-11-01 08:00:00",
            "KSSJ": "2026-11-02", "JSSJ": "2026-11-03", "SHZT": "approved", "changed": "2026-11-01 08:00:00",
        }));
    }
    let shop = Shop::new(CURSOR);
    let (contracts, extract) = (shop.contracts.clone(), settings(shop.folder.path()));
    let worker = Worker::alone(&extract, tokio::runtime::Handle::current());
    let url = format!("{}/v1/leaves?page=1", platform.url());
    let of_source =
        SourceSettings { password: Some(Sensitive::new("a token".to_string())), ..SourceSettings::of("inferred") };
    let read =
        tokio::task::spawn_blocking(move || sample::of_url(&of_source, &url, &contracts, &worker).expect("answers"));
    let told = proposed(&shop, read.await.expect("reads"), None).await;
    expect![[r#"
        == connector.toml
        # inferred: which system this is, of which vendor and version, and on what it was tried.

        title = "inferred"
        kind = "http"
        # Columns of the source whose values are masked in dead letters and previews.
        sensitive = []

        [http]
        auth = "bearer"

        # 请假与销假
        [tables.leave_request]
        contract = "student_affairs.leave_request"
        # Is there more than one page? docs/connectors.md tells of `pages`.
        path = "/v1/leaves"
        query = { "page" = "1" }
        pages = "none"
        records = "/data/list"
        pull = "snapshot"
        # Input column = header, or JSON pointer.
        [tables.leave_request.input]
        "LEAVE_ID" = "/leave_id"
        "STUDENT_XH" = "/student/XH"
        "SQSJ" = "/SQSJ"
        "SHZT" = "/SHZT"
        "LX" = "/LX"
        "KSSJ" = "/KSSJ"
        "JSSJ" = "/JSSJ"
        "CHANGED" = "/changed"
        == leave_request.sql
        -- → student_affairs.leave_request, proposed from 3 rows. Read each line; the rules of the fields: quad tables --describe student_affairs.leave_request
        -- Columns that no field takes: ID
        SELECT
            clean_id("LEAVE_ID") AS leave_id, -- 请假编号, 95 %: the field's name
            clean_id("STUDENT_XH") AS student_no, -- 学号, 95 %: the field's code in real systems
            cn_timestamp("SQSJ") AS applied_at, -- 申请时间, 95 %: the field's code in real systems
            code_map('approval_status', "SHZT") AS approval_status, -- 审核状态, 95 %: the field's code in real systems
            code_map('leave_type', "LX") AS leave_type, -- 请假类型, 85 %: a known alias of the field
            cn_timestamp("KSSJ") AS start_at, -- 开始时间, 85 %: a known alias of the field
            cn_timestamp_end("JSSJ") AS end_at, -- 结束时间, 85 %: a known alias of the field
            cn_timestamp("CHANGED") AS src_updated_at -- when the row changed, 85 %: a known alias of the field
        FROM input
        == 3 accepted
        leave_type 病假
    "#]]
    .assert_eq(&told);
}
