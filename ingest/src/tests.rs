//! The way from a real source to the lake: SQLite over ODBC, the embedded log, Delta tables.

mod files;
mod flows;
mod http;
mod kafka;
mod kit;
mod letters;
mod mqtt;
mod postgres_cdc;
mod shipped;
mod singer;
mod snapshots;
mod sql;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arrow_odbc::odbc_api::{ConnectionOptions, environment};
use chrono_tz::Tz;
use datafusion::prelude::SessionContext;
use expect_test::{Expect, expect};
use lake::Lake;
use schemas::{Contracts, Sensitive};
use tokio::sync::watch;
use topic::{Log, Message};

use crate::extract::run::Extract;
use crate::extract::status::State;
use crate::functions::Surroundings;
use crate::land::Land;
use crate::land::rebuild::rebuild;
use crate::land::reset::reset;
use crate::landing::Landing;
use crate::settings::{Assignment, ExtractSettings, LandSettings, SourceSettings};

/// A workshop: a folder with a source database, a connector, a log and a lake.
struct Shop {
    folder: tempfile::TempDir,
    contracts: Arc<Contracts>,
    log: Arc<dyn Log>,
    source: SourceSettings,
}

const CONNECTOR: &str = r#"
title = "leave requests of a small campus"
kind = "sql"
sensitive = ["SFZJH"]
[tables.leave_request]
contract = "student_affairs.leave_request"
query = "SELECT WID, XH, SQSJ, QJKSSJ, QJJSSJ, SFZJH, ZHXGSJ FROM QJ"
PULL
"#;

const MAPPING: &str = r#"
SELECT clean_id("WID") AS leave_id, clean_id("XH") AS student_no, cn_timestamp("SQSJ") AS applied_at,
       cn_timestamp("QJKSSJ") AS start_at, cn_timestamp_end("QJJSSJ") AS end_at, 'approved' AS approval_status,
       cn_timestamp("ZHXGSJ") AS src_updated_at
FROM input
"#;

impl Shop {
    fn new(pull: &str) -> Self {
        let mut shop = Self::of(&CONNECTOR.replace("PULL", pull));
        shop.source.connection = Some(shop.connection());
        shop.sql("CREATE TABLE QJ (WID TEXT, XH TEXT, SQSJ TEXT, QJKSSJ TEXT, QJJSSJ TEXT, SFZJH TEXT, ZHXGSJ TEXT)");
        shop
    }

    /// A workshop with this connector, and no source yet.
    fn of(connector_toml: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let connector = folder.path().join("connectors/leaves");
        std::fs::create_dir_all(&connector).expect("creates");
        std::fs::write(connector.join("connector.toml"), connector_toml).expect("writes");
        std::fs::write(connector.join("leave_request.sql"), MAPPING).expect("writes");
        let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas");
        let contracts = Arc::new(Contracts::load(&schemas).expect("contracts load"));
        let mut topic = topic::Settings::default();
        topic.embedded.path = folder.path().join("topic");
        let log = topic::open(&topic).expect("opens");
        let source = SourceSettings { poll_s: 3600, ..SourceSettings::of("leaves") };
        Self { folder, contracts, log, source }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn lake(&self) -> Lake {
        let path = self.path("lake").to_string_lossy().into_owned();
        Lake::open(&lake::Settings::at(path)).expect("opens")
    }

    fn connection(&self) -> String {
        format!("Driver=SQLite3;Database={};Timeout=5000", self.path("source.db").display())
    }

    fn sql(&self, statement: &str) {
        let environment = environment().expect("ODBC starts");
        let connection = environment.connect_with_connection_string(&self.connection(), ConnectionOptions::default());
        connection.expect("libsqliteodbc is installed").execute(statement, (), None).expect("runs");
    }

    /// Rows `wid` changed at `changed`, all on leave from the first to the second.
    fn leave(&self, wid: &str, end: &str, changed: &str) {
        let id = "11010519491231002X";
        self.sql(&format!(
            "INSERT INTO QJ VALUES ('{wid}', '0026', '2026/11/01 08:00:00', '2026-11-02', '{end}', '{id}', '{changed}')"
        ));
    }

    /// An extract that does not run yet.
    async fn extract(&self) -> Arc<Extract> {
        let settings = settings(self.folder.path());
        let zone = Tz::Asia__Shanghai;
        let sources = [("oa".to_string(), self.source.clone())].into();
        let (log, lake) = (self.log.clone(), self.lake());
        let extract = Extract::prepare(settings, sources, &self.contracts, zone, log, 2, &lake).await;
        extract.expect("the connector is right")
    }

    /// One pull of everything: (records, letters, repeats) of its last table since this extract started, and its error.
    async fn pull(&self) -> (u64, u64, u64, Option<String>) {
        let extract = self.extract().await;
        let last = format!("oa/{}", extract.sources()[0].pipelines.last().expect("a table").table.name);
        let (stop, shutdown) = watch::channel(false);
        let running = tokio::spawn({
            let extract = extract.clone();
            async move { extract.run(shutdown).await }
        });
        let status = poll_until("the pull ends", || {
            let status = extract.board.report().get(&last).cloned()?;
            (status.state == State::Ok || status.failures > 0).then_some(status)
        })
        .await;
        stop.send_replace(true);
        running.await.expect("runs").expect("stops well");
        (status.records, status.dead_letters, status.repeats, status.error)
    }

    /// A landing under `contracts`, not running.
    fn landing(&self, contracts: &Arc<Contracts>) -> Arc<Land> {
        let settings = LandSettings {
            id: "quad".into(),
            assignment: Assignment::All,
            instance: None,
            batch_rows_max: 3,
            batch_bytes_max: 1 << 20,
            batch_age_ms_max: 10,
            retry_ms_min: 10,
            retry_ms_max: 10,
        };
        Arc::new(Land {
            settings,
            contracts: contracts.clone(),
            timezone: Tz::Asia__Shanghai,
            lake: self.lake(),
            log: self.log.clone(),
            partitions: 2,
            landing: Arc::new(Landing::new(contracts)),
        })
    }

    /// Lands everything that is in the log.
    async fn land(&self) {
        self.land_in_steps(&[&|| {}]).await;
    }

    /// Lands everything that is in the log after each of `steps`, all in one landing, which never starts over.
    async fn land_in_steps(&self, steps: &[&(dyn Fn() + Sync)]) {
        let land = self.landing(&self.contracts);
        let (stop, shutdown) = watch::channel(false);
        let running = tokio::spawn({
            let land = land.clone();
            async move { land.run(shutdown).await }
        });
        for step in steps {
            step();
            let deadline = Instant::now() + Duration::from_secs(20);
            while !self.is_landed(&land).await && Instant::now() < deadline {
                tokio::task::yield_now().await;
            }
        }
        stop.send_replace(true);
        running.await.expect("runs").expect("stops well");
        assert!(self.is_landed(&land).await, "the log was not landed in time");
        assert_eq!(land.landing.restarts.load(Ordering::Relaxed), 0, "landing has started over");
    }

    async fn is_landed(&self, land: &Land) -> bool {
        for contract in self.contracts.iter() {
            let Ok(extents) = self.log.extents(&contract.topic()) else {
                return false;
            };
            let Some(table) = land.lake.find(contract).await.expect("reads") else {
                return false;
            };
            for extent in extents {
                let next = table.next_offset("quad", &contract.topic(), extent.partition).await.expect("reads");
                if next.unwrap_or(0) < extent.high {
                    return false;
                }
            }
        }
        true
    }

    /// The answer to `query` over the tables `leave` and `letter`, one line a row.
    async fn check(&self, query: &str, expected: Expect) {
        expected.assert_eq(&self.rows(query).await);
    }

    async fn rows(&self, query: &str) -> String {
        let lake = self.lake();
        let context = SessionContext::new();
        let names = ["student_affairs.leave_request", "access_control.access_event", crate::letter::CONTRACT];
        for (name, table) in ["leave", "pass", "letter"].into_iter().zip(names) {
            let contract = self.contracts.get(table).expect("a contract");
            let snapshot = lake.snapshot(contract).await.expect("reads").expect("has landed");
            context.register_table(name, snapshot.provider).expect("registers");
        }
        let batches = context.sql(query).await.expect("plans").collect().await.expect("runs");
        let text = arrow::util::pretty::pretty_format_batches(&batches).expect("prints").to_string();
        let lines = text.lines().filter(|line| !line.starts_with('+')).skip(1);
        let cells = lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(" "));
        cells.map(|line| line.trim().to_string() + "\n").collect()
    }
}

/// Small limits, so that a few rows reach them.
pub(crate) fn settings(folder: &Path) -> ExtractSettings {
    ExtractSettings {
        state_path: folder.join("extract"),
        connectors_path: folder.join("connectors"),
        http_listen: ([127, 0, 0, 1], 0).into(),
        batch_rows_max: 2,
        text_bytes_max: 256,
        retry_ms_min: 10,
        retry_ms_max: 10,
        body_bytes_max: 1024,
        push_records_max: 10,
        push_rate_max: 10,
        replay_rate_max: 1000,
        admins: crate::Admins::default(),
        id_key: Some(Sensitive::new("key".into())),
    }
}

/// Asks until there is an answer, at most for half a minute.
async fn poll_until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

const CURSOR: &str = "pull = \"cursor\"\ncursor = [\"ZHXGSJ\", \"WID\"]\noverlap_s = 600";

#[tokio::test(flavor = "multi_thread")]
async fn rows_become_records_and_bad_rows_become_letters() {
    let shop = Shop::new(CURSOR);
    shop.leave("L1", "2026-11-03", "2026-11-01 08:00:00");
    shop.leave("L2", "2026-13-45", "2026-11-01 08:00:00");
    shop.leave("L3", "2026-11-01", "2026-11-01 08:00:01");
    shop.leave("L4", "20261104", "2026-11-01 08:00:02");
    shop.leave("L5", "2026/11/05 18:00:00", "2026-11-01 08:00:02");
    assert_eq!(shop.pull().await, (3, 2, 0, None));
    shop.land().await;
    shop.check(
        "SELECT leave_id, student_no, end_at, src, src_key, op, schema_version FROM leave ORDER BY leave_id",
        expect![[r#"
            L1 0026 2026-11-03T15:59:59Z oa L1 I 1
            L4 0026 2026-11-04T15:59:59Z oa L4 I 1
            L5 0026 2026-11-05T10:00:00Z oa L5 I 1
        "#]],
    )
    .await;
    shop.check("SELECT source, target, rule, field, stage, bytes FROM letter ORDER BY bytes", expect![[r#"
        oa student_affairs.leave_request ends_after_start  extract {"QJJSSJ":"2026-11-01","QJKSSJ":"2026-11-02","SFZJH":"***","SQSJ":"2026/11/01 08:00:00","WID":"L3","XH":"0026","ZHXGSJ":"2026-11-01 08:00:01"}
        oa student_affairs.leave_request type end_at extract {"QJJSSJ":"2026-13-45","QJKSSJ":"2026-11-02","SFZJH":"***","SQSJ":"2026/11/01 08:00:00","WID":"L2","XH":"0026","ZHXGSJ":"2026-11-01 08:00:00"}
    "#]]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_goes_on_where_it_was_and_recognises_the_overlap() {
    let shop = Shop::new(CURSOR);
    for row in 0..7 {
        shop.leave(&format!("L{row}"), "2026-11-03", "2026-11-01 08:00:00");
    }
    shop.leave("BAD", "never", "2026-11-01 08:00:00");
    assert_eq!(shop.pull().await, (7, 1, 0, None));
    shop.leave("L7", "2026-11-03", "2026-11-01 07:55:00");
    shop.sql("UPDATE QJ SET QJJSSJ = '2026-11-09', ZHXGSJ = '2026-11-01 08:05:00' WHERE WID = 'L3'");
    assert_eq!(shop.pull().await, (2, 0, 7, None), "late and changed rows come, the others are known");
    shop.land().await;
    shop.check(
        "SELECT COUNT(*), COUNT(DISTINCT leave_id) FROM leave",
        expect![[r#"
        9 8
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_of_extract_and_of_landing_share_their_table() {
    let shop = Shop::new(CURSOR);
    shop.leave("L1", "never", "2026-11-01 08:00:00");
    shop.pull().await;
    let topic = shop.contracts.get("student_affairs.leave_request").expect("a contract").topic();
    let append = || {
        let message = Message { key: "x".into(), value: b"not avro".as_slice().into(), timestamp_ms: 0 };
        shop.log.append(&topic, vec![message]).expect("appends");
    };
    shop.land_in_steps(&[&|| {}, &append, &append]).await;
    let count = "SELECT SUM(CASE stage WHEN 'land' THEN 1 ELSE 0 END), COUNT(*) FROM letter";
    assert_eq!(shop.rows(count).await.trim(), "2 3");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_belong_on_a_topic_becomes_a_letter_with_its_place() {
    let shop = Shop::new(CURSOR);
    shop.leave("L1", "2026-11-03", "2026-11-01 08:00:00");
    shop.pull().await;
    let topic = shop.contracts.get("student_affairs.leave_request").expect("a contract").topic();
    let message = |value: &'static [u8]| Message { key: "x".into(), value: value.into(), timestamp_ms: 0 };
    shop.log.append(&topic, vec![message(b"not avro"), message(b"\xC3\x0112345678body")]).expect("appends");
    shop.leave("L2", "2026-11-03", "2026-11-01 08:00:01");
    shop.pull().await;
    shop.land().await;
    shop.land().await;
    shop.check(
        "SELECT COUNT(*) FROM leave",
        expect![[r#"
        2
    "#]],
    )
    .await;
    shop.check(
        "SELECT rule, stage, topic, bytes FROM letter ORDER BY letter_offset",
        expect![[r#"
        framing land quad.student_affairs.leave_request bm90IGF2cm8=
        unknown_schema land quad.student_affairs.leave_request wwExMjM0NTY3OGJvZHk=
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_whose_records_are_gone_stops_alone_until_it_is_reset() {
    const LEAVES: &str = "student_affairs.leave_request";
    let shop = Shop::new(CURSOR);
    shop.leave("L1", "2026-11-03", "2026-11-01 08:00:00");
    shop.pull().await;
    shop.land().await;
    let contract = shop.contracts.get(LEAVES).expect("a contract");
    // As after a retention that was too short: what comes next is not in the log.
    let moved = reset(&shop.lake(), contract, "quad", 0, 1_000).await.expect("moves");
    assert_eq!(moved.to, 1_000);
    let error = reset(&shop.lake(), contract, "quad", 0, 999).await.expect_err("never back");
    assert!(error.message.contains("would land records twice"), "{error}");

    let land = shop.landing(&shop.contracts);
    let (stop, shutdown) = watch::channel(false);
    let running = tokio::spawn({
        let land = land.clone();
        async move { land.run(shutdown).await }
    });
    let waiting = vec![(LEAVES.to_string(), 0)];
    poll_until("the partition stops", || (land.landing.stopped() == waiting).then_some(())).await;
    let message = |key: &str| Message { key: key.to_string().into(), value: b"x".as_slice().into(), timestamp_ms: 0 };
    let keys = (0..20).map(|at| format!("{at}"));
    shop.log.append(&contract.topic(), keys.map(|key| message(&key)).collect()).expect("appends");
    let high = shop.log.extents(&contract.topic()).expect("extents")[1].high;
    let other = (LEAVES.to_string(), 1);
    poll_until("the other goes on", || (land.landing.positions().get(&other) == Some(&high)).then_some(())).await;
    assert_eq!(land.landing.positions().get(&(LEAVES.to_string(), 0)), Some(&1_000), "nothing is skipped");

    reset(&shop.lake(), contract, "quad", 0, 2_000).await.expect("moves beside the landing");
    let first = (LEAVES.to_string(), 0);
    poll_until("it is noticed", || (land.landing.positions().get(&first) == Some(&2_000)).then_some(())).await;
    poll_until("and it stops there", || (land.landing.stopped() == waiting).then_some(())).await;
    stop.send_replace(true);
    running.await.expect("runs").expect("stops well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_reads_the_topic_under_the_present_contract() {
    const LEAVES: &str = "student_affairs.leave_request";
    let shop = Shop::new(CURSOR);
    shop.leave("L1", "2026-11-03", "2026-11-01 08:00:00");
    shop.leave("L22", "2026-11-03", "2026-11-01 08:00:00");
    shop.pull().await;
    let topic = shop.contracts.get(LEAVES).expect("a contract").topic();
    let message = Message { key: "x".into(), value: b"not avro".as_slice().into(), timestamp_ms: 0 };
    shop.log.append(&topic, vec![message]).expect("appends");
    shop.land().await;
    let stricter: Contracts = shop
        .contracts
        .iter()
        .map(|contract| {
            let mut contract = contract.as_ref().clone();
            contract.fields.iter_mut().filter(|field| field.name == "leave_id").for_each(|id| id.length_max = Some(2));
            contract
        })
        .collect();
    let counts = "SELECT (SELECT COUNT(*) FROM leave) AS a, (SELECT COUNT(*) FROM letter) AS b, \
                  (SELECT COUNT(DISTINCT letter_id) FROM letter) AS c";
    for (contracts, told, seen) in [
        (Arc::new(stricter.clone()), (1, 2, 1, 0), "1 2 2\n"),
        (Arc::new(stricter), (1, 2, 0, 0), "1 2 2\n"),
        (shop.contracts.clone(), (2, 1, 0, 1), "2 3 2\n"),
        (shop.contracts.clone(), (2, 1, 0, 0), "2 3 2\n"),
    ] {
        let contract = contracts.get(LEAVES).expect("a contract");
        let rebuilt = rebuild(&shop.landing(&contracts), contract, |_, _| ()).await.expect("rebuilds");
        assert_eq!((rebuilt.rows, rebuilt.bad, rebuilt.letters, rebuilt.resolved), told);
        assert_eq!(rebuilt.carried, 0);
        let rows = shop.rows(counts).await;
        assert_eq!(rows, seen);
    }
    shop.leave("L3", "2026-11-03", "2026-11-01 08:00:01");
    shop.pull().await;
    shop.land().await;
    assert_eq!(shop.rows("SELECT COUNT(*) FROM leave").await, "3\n", "landing goes on from where it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_mapping_cannot_compute_costs_only_itself() {
    let shop = Shop::new(CURSOR);
    let mapping =
        MAPPING.replace("'approved'", "CAST(CAST(\"XH\" AS INT) AS VARCHAR)").replace("approval_status", "leave_type");
    std::fs::write(shop.path("connectors/leaves/leave_request.sql"), mapping.replace("leave_type", "src_key"))
        .expect("writes");
    for row in 0..5 {
        shop.leave(&format!("L{row}"), "2026-11-03", "2026-11-01 08:00:00");
    }
    shop.sql("UPDATE QJ SET XH = 'none' WHERE WID = 'L1' OR WID = 'L4'");
    assert_eq!(shop.pull().await, (3, 2, 0, None));
    shop.land().await;
    shop.check(
        "SELECT leave_id, src_key FROM leave ORDER BY leave_id",
        expect![[r#"
        L0 26
        L2 26
        L3 26
    "#]],
    )
    .await;
    shop.check(
        "SELECT rule, field, message FROM letter",
        expect![[r#"
        mapping  the mapping could not compute this row, see its casts and arithmetic
        mapping  the mapping could not compute this row, see its casts and arithmetic
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_source_is_told_and_tried_again() {
    let shop = Shop::new(CURSOR);
    shop.sql("DROP TABLE QJ");
    let (_, _, _, error) = shop.pull().await;
    let error = error.expect("the table is gone");
    assert!(error.starts_with("the source refused the query: ") && error.contains("no such table"), "{error}");
}

#[tokio::test]
async fn a_mistake_in_a_mapping_is_told_with_its_file() {
    let shop = Shop::new(CURSOR);
    let connector = crate::Connector::load(&shop.path("connectors"), "leaves", &shop.contracts).expect("loads");
    let mut errors = Vec::new();
    for sql in [
        "SELECT 1 AS a FROM input GROUP BY 1",
        "SELECT x",
        "DELETE FROM input",
        "SELECT \"XH\" AS x FROM input LIMIT 1",
    ] {
        let mut table = connector.tables[0].clone();
        table.mapping_sql = sql.to_string();
        let surroundings = Surroundings::of(&connector, &settings(shop.folder.path()), Tz::UTC);
        let error = crate::mapping::Mapping::new("leaves", &table, &surroundings).err().expect("a mistake");
        errors.push(error.to_string());
    }
    expect![[r#"
        leaves/leave_request.sql: a mapping is one plain SELECT over input: no UNION, GROUP BY, DISTINCT, ORDER BY or LIMIT
        leaves/leave_request.sql: a mapping is one plain SELECT over input: no UNION, GROUP BY, DISTINCT, ORDER BY or LIMIT
        leaves/leave_request.sql: a mapping is one plain SELECT over input: no UNION, GROUP BY, DISTINCT, ORDER BY or LIMIT
        leaves/leave_request.sql: a mapping is one plain SELECT over input: no UNION, GROUP BY, DISTINCT, ORDER BY or LIMIT"#]]
    .assert_eq(&errors.join("\n"));
}
