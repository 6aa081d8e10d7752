//! A paged interface on its way to the log: every style of paging, and everything that such interfaces do wrong.

use std::time::Duration;

use arrow::array::AsArray;
use campus::platform::{Fault, Platform};
use chrono::Utc;
use chrono_tz::Tz;
use expect_test::{Expect, expect};
use schemas::Sensitive;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::{Shop, poll_until, settings};
use crate::connector::Connector;
use crate::extract::source::{self, Span, Worker};

const API: &str = r#"
title = "leave requests of an open platform"
kind = "http"
[http]
requests_per_s_max = 1000
timeout_s = 1
tries_max = 3
body_bytes_max = 100_000
AUTH
[tables.leave_request]
contract = "student_affairs.leave_request"
records = "/data/list"
ok = { "/code" = "0" }
KEYS
[tables.leave_request.input]
WID = "/id"
XH = "/who/no"
SQSJ = "/changed"
QJKSSJ = "/from"
QJJSSJ = "/to"
ZHXGSJ = "/changed"
"#;

const BY_NUMBER: &str = "pull = \"snapshot\"\npath = \"/v1/leaves\"\npages = \"number\"\nmore = \"/data/more\"\n\
    query = { page = \"{page}\" }\ndeletes_share_max = 1.0";
const BY_TOKEN: &str =
    "pull = \"cursor\"\npath = \"/v1/leaves\"\npages = \"token\"\nnext = \"/next\"\nquery = { cursor = \"{next}\" }";
const BY_ID: &str = "pull = \"cursor\"\npath = \"/v1/leaves\"\npages = \"id\"\nid = \"/id\"\nid_first = \"0\"\nquery = { after = \"{id}\", size = \"2\" }";
const BY_TIME: &str = "pull = \"cursor\"\npath = \"/v1/leaves\"\npages = \"number\"\nsince = \"/changed\"\n\
    since_first = \"2000-01-01 00:00:00\"\noverlap_s = 600\nbody = { page = \"{page}\", since = \"{since}\" }";

const BY_WINDOW: &str = "pull = \"cursor\"\npath = \"/v1/leaves\"\npages = \"number\"\nmore = \"/data/more\"\nsince = \"/changed\"\n\
    since_first = \"2000-01-01 00:00:00\"\noverlap_s = 600\nwindow_s = 400_000_000\n\
    query = { page = \"{page}\", since = \"{since}\", until = \"{until}\" }";

fn put(platform: &Platform, id: u64, to: &str, changed: &str) {
    platform.put(
        "leaves",
        json!({ "id": id, "who": { "no": "0026" }, "from": "2026-11-02", "to": to, "changed": changed }),
    );
}

/// A workshop with such a table, and a platform of five records in pages of two.
async fn shop(keys: &str, auth: &str, client: Option<(&str, &str)>) -> (Shop, Platform) {
    let mut shop = Shop::of(&API.replace("KEYS", keys).replace("AUTH", auth));
    let platform = Platform::start(2, client).await.expect("serves");
    for id in 1..=5 {
        put(&platform, id, "2026-11-03", &format!("2026-11-01 08:0{id}:00"));
    }
    shop.source.connection = Some(platform.url());
    (shop, platform)
}

/// Pulls twice, with a change between; what was asked, and what came.
async fn check(keys: &str, expected: Expect) {
    let (shop, platform) = shop(keys, "", None).await;
    let mut told = format!("{:?}\n{}\n", shop.pull().await, platform.asked().join("\n"));
    put(&platform, 6, "2026-11-03", "2026-11-01 08:06:00");
    put(&platform, 7, "2026-11-03", "2026-11-01 08:07:00");
    told += &format!("{:?}\n{}\n", shop.pull().await, platform.asked().join("\n"));
    expected.assert_eq(&told);
    shop.land().await;
    assert_eq!(shop.rows("SELECT COUNT(DISTINCT leave_id) FROM leave").await, "7\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_by_number_are_a_snapshot() {
    check(
        BY_NUMBER,
        expect![[r#"
        (5, 0, 0, None)
        leaves?page=1
        leaves?page=2
        leaves?page=3
        (2, 0, 5, None)
        leaves?page=1
        leaves?page=2
        leaves?page=3
        leaves?page=4
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_by_token_go_on_from_the_last_one() {
    check(
        BY_TOKEN,
        expect![[r#"
        (5, 0, 0, None)
        leaves?
        leaves?cursor=at-2
        leaves?cursor=at-4
        leaves?cursor=at-5
        (2, 0, 0, None)
        leaves?cursor=at-5
        leaves?cursor=at-7
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_by_id_go_on_after_the_last_one() {
    check(
        BY_ID,
        expect![[r#"
        (5, 0, 0, None)
        leaves?after=0&size=2
        leaves?after=2&size=2
        leaves?after=4&size=2
        leaves?after=5&size=2
        (2, 0, 0, None)
        leaves?after=5&size=2
        leaves?after=7&size=2
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_of_change_stays_the_same_through_one_pull() {
    check(
        BY_TIME,
        expect![[r#"
        (5, 0, 0, None)
        leaves?page=1&since=2000-01-01 00:00:00
        leaves?page=2&since=2000-01-01 00:00:00
        leaves?page=3&since=2000-01-01 00:00:00
        leaves?page=4&since=2000-01-01 00:00:00
        (2, 0, 5, None)
        leaves?page=1&since=2026-11-01 07:55:00
        leaves?page=2&since=2026-11-01 07:55:00
        leaves?page=3&since=2026-11-01 07:55:00
        leaves?page=4&since=2026-11-01 07:55:00
        leaves?page=5&since=2026-11-01 07:55:00
    "#]],
    )
    .await;
}

/// Campus time as the platform writes it.
fn now() -> String {
    Utc::now().with_timezone(&Tz::Asia__Shanghai).format("%Y-%m-%d %H:%M:%S").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_follow_each_other_up_to_the_moment_at_which_the_pull_began() {
    let (shop, platform) = shop(BY_WINDOW, "", None).await;
    put(&platform, 6, "2026-11-03", "2012-09-03 14:57:40");
    put(&platform, 7, "2026-11-03", "2999-01-01 00:00:00");
    let began = now();
    assert_eq!(shop.pull().await, (6, 0, 1, None), "what is within two windows is there once, what is to come is not");
    let asked = platform.asked();
    let untils: Vec<&str> = asked.iter().map(|asked| asked.rsplit_once("until=").expect("an end").1).collect();
    let last = untils.last().expect("it was asked");
    assert!((began.as_str()..=now().as_str()).contains(last), "{last} is when the pull began, {began}");
    let ends = untils.iter().filter(|until| until == &last).count();
    assert_eq!(ends, 3, "the end stays the same through the pages of one window");
    expect![[r#"
        leaves?page=1&since=2000-01-01 00:00:00&until=2012-09-03 15:06:40
        leaves?page=1&since=2012-09-03 14:56:40&until=2025-05-08 06:03:20
        leaves?page=1&since=2025-05-08 05:53:20&until=NOW
        leaves?page=2&since=2025-05-08 05:53:20&until=NOW
        leaves?page=3&since=2025-05-08 05:53:20&until=NOW
    "#]]
    .assert_eq(&(asked.join("\n").replace(last, "NOW") + "\n"));
    assert_eq!(shop.pull().await, (0, 0, 5, None));
    let asked = platform.asked();
    assert!(asked.len() == 3 && asked.iter().all(|asked| asked.contains("since=2026-11-01 07:55:00")), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_of_the_past_comes_once_more() {
    let mut told = String::new();
    for keys in [BY_TIME, BY_WINDOW, BY_ID] {
        let (shop, platform) = shop(keys, "", None).await;
        let connector = Connector::load(&shop.path("connectors"), "leaves", &shop.contracts).expect("loads");
        let worker = Worker::alone(&settings(shop.folder.path()), Handle::current());
        let of_source = shop.source.clone();
        let pulled = tokio::task::spawn_blocking(move || {
            let mut ids = Vec::new();
            let span = Span { from: "2026-11-01 08:02:00", to: "2026-11-01 08:04:00", after: &[] };
            let mut source = source::connect(&connector, &of_source, &worker).expect("connects");
            let outcome = source.pull_span(&connector.tables[0], &span, &mut |batch, _| {
                let column = batch.column_by_name("WID").expect("a column").as_string::<i32>().clone();
                ids.extend(column.iter().flatten().map(str::to_string));
                Ok(())
            });
            format!("{} {:?}", ids.join(" "), outcome.err().map(|error| error.to_string()))
        });
        told += &format!("{}\n{}\n", pulled.await.expect("runs"), platform.asked().join("\n"));
    }
    expect![[r#"
        2 3 None
        leaves?page=1&since=2026-11-01 08:02:00
        leaves?page=2&since=2026-11-01 08:02:00
        leaves?page=3&since=2026-11-01 08:02:00
        2 3 None
        leaves?page=1&since=2026-11-01 08:02:00&until=2026-11-01 08:04:00
        leaves?page=2&since=2026-11-01 08:02:00&until=2026-11-01 08:04:00
         Some("/v1/leaves: only a table with `since` can be asked for a span")

    "#]]
    .assert_eq(&told);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_over_http_finds_deletes() {
    let (shop, platform) = shop(BY_NUMBER, "", None).await;
    assert_eq!(shop.pull().await, (5, 0, 0, None));
    platform.delete("leaves", 3);
    assert_eq!(shop.pull().await, (1, 0, 4, None));
    shop.land().await;
    shop.check(
        "SELECT leave_id, op FROM leave WHERE op = 'D'",
        expect![[r#"
        3 D
    "#]],
    )
    .await;
}

/// Pulls with faults before, and tells what came of it.
async fn with_faults(keys: &str, faults: &[Fault]) -> String {
    let (shop, platform) = shop(keys, "", None).await;
    platform.fail(faults);
    let (_, _, _, error) = shop.pull().await;
    let asked = platform.asked().len();
    if error.is_some() {
        shop.pull().await;
    }
    shop.land().await;
    assert_eq!(shop.rows("SELECT COUNT(DISTINCT leave_id) FROM leave").await, "5\n", "{faults:?}: nothing is lost");
    format!("{faults:?} after {asked} requests: {}\n", error.unwrap_or("well".into()))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_is_tried_again_and_what_does_not_is_told() {
    use Fault::{Endless, FirstPage, HalfAnswer, HalfJson, Hangs, LoginPage, OtherShape, Refusal, SameToken, Status};
    let mut told = String::new();
    for (keys, faults) in [
        (BY_ID, &[Status(503, None)][..]),
        (BY_ID, &[Status(429, Some(1))]),
        (BY_ID, &[HalfAnswer]),
        (BY_ID, &[HalfJson]),
        (BY_ID, &[Hangs(1500)]),
        (BY_ID, &[Status(500, Some(0)), Status(500, Some(0)), Status(500, Some(0))]),
        (BY_ID, &[Status(403, None)]),
        (BY_ID, &[LoginPage]),
        (BY_ID, &[Refusal]),
        (BY_ID, &[OtherShape]),
        (BY_ID, &[Endless]),
        (BY_NUMBER, &[FirstPage, FirstPage]),
        (BY_TOKEN, &[Hangs(0), SameToken]),
    ] {
        told += &with_faults(keys, faults).await;
    }
    expect![[r#"
        [Status(503, None)] after 5 requests: well
        [Status(429, Some(1))] after 5 requests: well
        [HalfAnswer] after 5 requests: well
        [HalfJson] after 5 requests: well
        [Hangs(1500)] after 5 requests: well
        [Status(500, Some(0)), Status(500, Some(0)), Status(500, Some(0))] after 3 requests: /v1/leaves: status 500
        [Status(403, None)] after 1 requests: /v1/leaves: status 403
        [LoginPage] after 1 requests: /v1/leaves: status 302
        [Refusal] after 1 requests: /v1/leaves: the answer has 40001 at `/code`, not 0: it is a refusal
        [OtherShape] after 1 requests: /v1/leaves: nothing at `/data/list` in the answer: has the interface changed?
        [Endless] after 1 requests: /v1/leaves: an answer of more than 100000 bytes: ask for smaller pages
        [FirstPage, FirstPage] after 2 requests: /v1/leaves: the same page comes again: the interface does not understand how it is asked
        [Hangs(0), SameToken] after 2 requests: /v1/leaves: the token of the next page does not move
    "#]].assert_eq(&told);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_got_once_and_again_when_it_is_refused() {
    for place in ["token_in = \"header\"", "token_in = \"query\"", "token_in = \"body\"\ncredentials_in_body = true"] {
        let auth = format!("auth = \"oauth2\"\ntoken_path = \"/oauth/token\"\n{place}");
        let (mut shop, platform) = shop(BY_ID, &auth, Some(("quad", "s3 cret"))).await;
        shop.source.user = Some("quad".into());
        shop.source.password = Some(Sensitive::new("s3 cret".into()));
        assert_eq!(shop.pull().await, (5, 0, 0, None), "{place}");
        assert_eq!(platform.tokens_given(), 1);
        platform.fail(&[Fault::ForgetsTokens]);
        put(&platform, 6, "2026-11-03", "2026-11-01 08:06:00");
        assert_eq!(shop.pull().await, (1, 0, 0, None), "{place}");
        assert!(platform.asked().iter().all(|asked| !asked.contains("token")));
        shop.source.password = Some(Sensitive::new("wrong".into()));
        let (_, _, _, error) = shop.pull().await;
        assert_eq!(error.as_deref(), Some("/oauth/token: status 401: check `user` and `password`"));
        shop.source.password = None;
        let (_, _, _, error) = shop.pull().await;
        assert_eq!(error.as_deref(), Some("its interface asks who calls: set `password`, see docs/connectors.md"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_is_stopped_half_way_goes_on_from_there() {
    let (shop, platform) = shop(BY_ID, "", None).await;
    let answers = [Fault::Status(503, Some(0)), Fault::Hangs(60_000)];
    platform.fail(&answers);
    let extract = shop.extract().await;
    let (stop, shutdown) = watch::channel(false);
    let running = tokio::spawn({
        let extract = extract.clone();
        async move { extract.run(shutdown).await }
    });
    let mut asked = 0;
    poll_until("it waits for an answer", || {
        asked += platform.asked().len();
        (asked >= answers.len()).then_some(())
    })
    .await;
    let asked_at = std::time::Instant::now();
    stop.send_replace(true);
    running.await.expect("runs").expect("stops well");
    assert!(asked_at.elapsed() < Duration::from_secs(10), "a source that waits hears of the shutdown");
    drop(extract);
    let mut all = 0;
    while all < 5 {
        let (records, _, _, _) = shop.pull().await;
        all += records;
    }
    shop.land().await;
    let counts = "SELECT COUNT(*), COUNT(DISTINCT leave_id) FROM leave";
    shop.check(
        counts,
        expect![[r#"
        5 5
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pace_is_kept() {
    let (shop, platform) = shop(BY_ID, "", None).await;
    let folder = shop.path("connectors/leaves/connector.toml");
    let slower = std::fs::read_to_string(&folder).expect("reads").replace("s_max = 1000", "s_max = 20");
    std::fs::write(&folder, slower).expect("writes");
    let began = std::time::Instant::now();
    assert_eq!(shop.pull().await, (5, 0, 0, None));
    let least = Duration::from_millis(50) * (platform.asked().len() as u32 - 1);
    assert!(began.elapsed() >= least, "{:?} for what takes {least:?}", began.elapsed());
    platform.fail(&[Fault::Status(429, Some(1))]);
    let began = std::time::Instant::now();
    assert_eq!(shop.pull().await, (0, 0, 0, None));
    assert!(began.elapsed() >= Duration::from_secs(1), "the server said how long to wait");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_asks_for_one_page() {
    let (shop, platform) = shop(BY_TIME, "", None).await;
    let connector = Connector::load(&shop.path("connectors"), "leaves", &shop.contracts).expect("loads");
    let worker = Worker::alone(&settings(shop.folder.path()), Handle::current());
    let of_source = shop.source.clone();
    let probed = tokio::task::spawn_blocking(move || {
        source::connect(&connector, &of_source, &worker)?.probe(&connector.tables[0])
    });
    probed.await.expect("runs").expect("answers");
    assert_eq!(platform.asked(), ["leaves?page=1&since=2000-01-01 00:00:00"]);
}

#[tokio::test]
async fn pages_that_do_not_fit_together_are_refused() {
    let mut told = String::new();
    for keys in [
        BY_ID.replace("id = \"/id\"\n", ""),
        BY_ID.replace("\"id\"", "\"number\""),
        BY_NUMBER.replace("{page}", "1"),
        BY_NUMBER.replace("\"snapshot\"", "\"cursor\"").replace("deletes_share_max = 1.0", ""),
        BY_TIME.replace("since = \"/changed\"\n", ""),
        BY_TIME.replace("\"cursor\"", "\"snapshot\""),
        BY_WINDOW.replace("2000-01-01 00:00:00", "0"),
        BY_WINDOW.replace("400_000_000", "600"),
        BY_TIME.to_string() + "\nwindow_s = 700",
        BY_TOKEN.replace("next = ", "nxt = "),
        BY_ID.to_string() + "\nnext_page = 1",
    ] {
        let shop = Shop::of(&API.replace("KEYS", &keys).replace("AUTH", ""));
        let error = Connector::load(&shop.path("connectors"), "leaves", &shop.contracts).expect_err("a mistake");
        told += &format!("{}\n", error.to_string().rsplit_once("leaves/").map_or("", |(_, rest)| rest));
    }
    expect![[r#"
        connector.toml: table `leave_request`: these `pages` need `id`, a JSON pointer
        connector.toml: table `leave_request`: no parameter in `query` or `body` holds `{page}`
        connector.toml: table `leave_request`: no parameter in `query` or `body` holds `{page}`
        connector.toml: table `leave_request`: `pull = "cursor"` needs `since`, or `pages` by "token" or "id"
        connector.toml: table `leave_request`: `since`, a JSON pointer, and a parameter with `{since}` belong together
        connector.toml: table `leave_request`: `since` is for `pull = "cursor"`: a snapshot brings all records
        connector.toml: table `leave_request`: `{until}` is written as `since_first` is: say a time there in the interface's own format, such as 2020-01-01 00:00:00, or 1577836800, in milliseconds 1577836800000
        connector.toml: table `leave_request`: `window_s` is more than `overlap_s`
        connector.toml: table `leave_request`: `window_s` is for a parameter with `{until}`
        connector.toml: table `leave_request`: unknown field `nxt`
        connector.toml: table `leave_request`: unknown field `next_page`
    "#]]
    .assert_eq(&told);
}
