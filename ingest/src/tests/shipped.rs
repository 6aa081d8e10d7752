//! The connectors that Quad ships, on what they are made for.

use std::path::Path;

use campus::broker::Broker;
use campus::platform::Platform;
use expect_test::expect;
use schemas::Sensitive;
use serde_json::json;

use super::Shop;

/// A workshop with a connector of the repository.
fn shop(name: &str, connection: String) -> Shop {
    let mut shop = Shop::of("");
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("connectors").join(name);
    super::files::copy(&from, &shop.path("connectors").join(name));
    shop.source.connector = name.to_string();
    shop.source.connection = Some(connection);
    shop
}

#[tokio::test(flavor = "multi_thread")]
async fn spreadsheets_of_offices() {
    let inbox = tempfile::tempdir().expect("a temporary folder");
    let shop = shop("office_sheets", inbox.path().to_string_lossy().into_owned());
    let folders = ["请假/计算机学院", "校历"].map(|name| inbox.path().join(name));
    folders.iter().for_each(|folder| std::fs::create_dir_all(folder).expect("creates"));
    let calendar = "日期,学年,学期,教学周,是否上课日,熄灯时间\n2026/11/24,2026-2027,第一学期,12,是,23:00\n";
    let (calendar, _, _) = encoding_rs::GB18030.encode(calendar);
    let files = [folders[0].join("11月.xlsx"), folders[1].join("2026.csv")];
    for (file, bytes) in files.iter().zip([include_bytes!("leave.xlsx").as_slice(), &calendar]) {
        std::fs::write(file, bytes).expect("writes");
        super::files::touch(file, -60);
    }
    assert_eq!(shop.pull().await, (2, 2, 0, None));
    shop.land().await;
    let query =
        "SELECT leave_id, student_no, leave_type, start_at, end_at, off_campus, approval_status FROM leave ORDER BY 1";
    shop.check(
        query,
        expect![[r#"
        计算机学院-01 0026 sick 2026-11-01T16:00:00Z 2026-11-03T15:59:59Z true approved
        计算机学院-2 0027 personal 2026-11-01T16:00:00Z 2026-11-04T15:59:59Z true approved
    "#]],
    )
    .await;
    shop.check(
        "SELECT rule, field FROM letter ORDER BY 1",
        expect![[r#"
        type end_at
        values approval_status
    "#]],
    )
    .await;
    let topic = shop.contracts.get("extension.calendar_day").expect("a contract").topic();
    let days = shop.log.extents(&topic).expect("extents").iter().map(|extent| extent.high).sum::<i64>();
    assert_eq!(days, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_platform() {
    let platform = Platform::start(2, Some(("quad", "s3 cret"))).await.expect("serves");
    for id in 1..=5u64 {
        let changed = format!("2026-11-01 08:0{id}:00");
        platform.put(
            "card-transactions",
            json!({
                "id": id, "cardNo": "0017", "cardSeq": "1", "amount": "-12.50", "balance": 88.5, "useCount": id,
                "time": changed, "terminal": "T01", "changed": changed,
            }),
        );
        platform.put(
            "courses",
            json!({
                "id": id, "no": format!("C00{id}"), "name": "高等数学", "credits": 4, "hours": 64, "changed": changed,
            }),
        );
        platform.put(
            "leaves",
            json!({
                "id": id, "student": { "no": "0026" }, "kind": "2", "appliedAt": changed, "from": "2026-11-02",
                "to": "2026-11-03", "state": if id == 5 { 7 } else { 1 }, "changed": changed,
            }),
        );
    }
    let mut shop = shop("open_platform", platform.url());
    shop.source.user = Some("quad".into());
    shop.source.password = Some(Sensitive::new("s3 cret".into()));
    assert_eq!(shop.pull().await, (4, 1, 0, None));
    expect![[r#"
        card-transactions?after=0&size=500
        card-transactions?after=2&size=500
        card-transactions?after=4&size=500
        card-transactions?after=5&size=500
        courses?page=1&size=500
        courses?page=2&size=500
        courses?page=3&size=500
        leaves?since=1970-01-01 00:00:00&size=500
        leaves?cursor=at-2&since=1970-01-01 00:00:00&size=500
        leaves?cursor=at-4&since=1970-01-01 00:00:00&size=500
        leaves?cursor=at-5&since=1970-01-01 00:00:00&size=500
    "#]]
    .assert_eq(&(platform.asked().join("\n") + "\n"));
    assert_eq!(shop.pull().await, (0, 0, 5, None), "all of them changed within the overlap");
    assert_eq!(platform.tokens_given(), 2, "one a start");
    for table in ["logistics.card_txn", "academic.course", "student_affairs.leave_request"] {
        let topic = shop.contracts.get(table).expect("a contract").topic();
        let records: i64 = shop.log.extents(&topic).expect("extents").iter().map(|extent| extent.high).sum();
        assert_eq!(records, if table == "student_affairs.leave_request" { 4 } else { 5 }, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn meters_over_mqtt() {
    if !Broker::is_there() {
        println!("skipped: mosquitto is not installed");
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let broker = Broker::start(folder.path(), "allow_anonymous true").expect("starts");
    let shop = shop("logistics_meters", format!("mqtt://127.0.0.1:{}", broker.port()));
    // A session begins with the first pull.
    assert_eq!(shop.pull().await, (0, 0, 0, None));
    let reading = r#"{"time":"2026-11-24 08:15:00","kwh":1523.25,"w":310,"balance":-3.5}"#;
    for (topic, message) in [
        ("meters/g1/000100230101/reading", reading),
        ("meters/g1/000100230102/reading", &format!("[{reading},{}]", reading.replace("08:15", "08:30"))),
        ("meters/g1/000100230101/event", r#"{"time":"2026-11-24 08:15:07","event":"malicious","w":2300}"#),
        ("meters/g1/000100230101/event", r#"{"time":"2026-11-24 08:15:08","event":"exploded"}"#),
        ("meters/g1/999900000000/reading", reading),
        ("meters/g1/000100230101/reading", &reading.replace("310", "-1")),
        ("meters/g1/000100230101/firmware", "v2"),
    ] {
        broker.publish(topic, &[message.to_string()], &[]).expect("publishes");
    }
    assert_eq!(shop.pull().await, (4, 3, 0, None), "no room, no event, no power of less than nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn gates_over_mqtt() {
    if !Broker::is_there() {
        println!("skipped: mosquitto is not installed");
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let broker = Broker::start(folder.path(), "allow_anonymous true").expect("starts");
    let shop = shop("access_mqtt", format!("mqtt://127.0.0.1:{}", broker.port()));
    assert_eq!(shop.pull().await, (0, 0, 0, None));
    let pass = |seq: u32, time: &str| {
        let at = |second: u32| format!("2026-11-24T08:15:{second:02}+08:00");
        json!({ "seq": seq, "time": time, "received": at(8), "no": "2024030001", "by": "card", "dir": 1, "ok": true })
    };
    let (now, ahead) = ("2026-11-24T08:15:07+08:00", "2026-11-25T08:15:07+08:00");
    for (topic, message) in [
        ("gates/D01/r1/pass", pass(1, now)),
        // A gateway that was off sends what it has, and what it was not sure of once more.
        ("gates/S01/r2/pass", json!([pass(1, now), pass(2, now)])),
        ("gates/S01/r2/pass", pass(2, now)),
        ("gates/S01/r3/pass", pass(1, ahead)),
        ("gates/S01//pass", pass(3, now)),
        ("gates/S01/r2/status", json!("up")),
    ] {
        broker.publish(topic, &[message.to_string()], &[]).expect("publishes");
    }
    assert_eq!(shop.pull().await, (3, 2, 1, None), "no reader, no clock a day ahead, no pass twice");
}
