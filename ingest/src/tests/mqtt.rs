//! Messages on their way to the log, from a real Mosquitto that each test starts; skipped aloud where none is installed.

use std::collections::HashSet;
use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use arrow::array::AsArray;
use campus::broker::Broker;
use expect_test::expect;
use schemas::Sensitive;
use tokio::sync::watch;

use super::{Shop, poll_until, settings};
use crate::connector::Connector;
use crate::error::Error;
use crate::extract::source::{self, Worker};

const CONNECTOR: &str = r#"
title = "leave requests of a device"
kind = "mqtt"
[tables.leave_request]
contract = "student_affairs.leave_request"
topics = ["leaves/+/new"]
records = "/list"
[tables.leave_request.input]
WID = "/id"
XH = "{topic/2}"
QJJSSJ = "/to"
BL = "{retained}"
"#;

const MAPPING: &str = r#"
SELECT clean_id("WID") AS leave_id, clean_id("XH") AS student_no, cn_timestamp('2026-11-01 08:00') AS applied_at,
       cn_timestamp('2026-11-02') AS start_at, cn_timestamp_end("QJJSSJ") AS end_at, 'approved' AS approval_status,
       CASE "BL" WHEN 'true' THEN 'personal' ELSE 'sick' END AS leave_type
FROM input
"#;

/// A workshop that subscribes at a new broker with further `lines` of settings.
fn shop(lines: &str) -> Option<(Shop, Broker)> {
    if !Broker::is_there() {
        println!("skipped: mosquitto is not installed");
        return None;
    }
    let mut shop = Shop::of(CONNECTOR);
    std::fs::write(shop.path("connectors/leaves/leave_request.sql"), MAPPING).expect("writes");
    let folder = shop.path("broker");
    std::fs::create_dir(&folder).expect("creates");
    let lines = if lines.is_empty() { "allow_anonymous true" } else { lines };
    let broker = Broker::start(&folder, lines).expect("starts");
    shop.source.connection = Some(format!("mqtt://127.0.0.1:{}", broker.port()));
    Some((shop, broker))
}

fn leave(id: usize) -> String {
    format!(r#"{{"list":[{{"id":"L{id}","to":"2026-11-03"}}]}}"#)
}

fn publish(broker: &Broker, messages: &[String]) {
    broker.publish("leaves/0026/new", messages, &[]).expect("publishes");
}

/// The records that are in the log.
fn records(shop: &Shop) -> i64 {
    let topic = shop.contracts.get("student_affairs.leave_request").expect("a contract").topic();
    shop.log.extents(&topic).expect("extents").iter().map(|extent| extent.high).sum()
}

/// One pull as the source `oa`, of the batches that `batches_max` lets through: the ids of its rows, and its error.
async fn read(shop: &Shop, batches_max: usize) -> (Vec<String>, Option<String>) {
    let connector = Connector::load(&shop.path("connectors"), "leaves", &shop.contracts).expect("a right connector");
    let worker = Worker::alone(&settings(shop.folder.path()), tokio::runtime::Handle::current()).pulling("oa");
    let of_source = shop.source.clone();
    let told = tokio::task::spawn_blocking(move || {
        let (mut ids, mut batches) = (Vec::new(), 0);
        let mut source = source::connect(&connector, &of_source, &worker).expect("right settings");
        let outcome = source.pull(&connector.tables[0], &[], &mut |batch, _| {
            batches += 1;
            if batches > batches_max {
                return Err(Error::source("killed"));
            }
            let rows = batch.column_by_name("WID").expect("a column").as_string::<i32>();
            ids.extend(rows.iter().flatten().map(str::to_string));
            Ok(())
        });
        (ids, outcome.err().map(|error| error.to_string()))
    });
    told.await.expect("reads")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_while_nobody_reads_comes_later_and_what_is_unreadable_is_a_letter() {
    let Some((shop, broker)) = shop("") else { return };
    broker.publish("leaves/0027/new", &[leave(0)], &["-r"]).expect("publishes");
    assert_eq!(shop.pull().await, (1, 0, 0, None), "what is retained");
    let many = r#"{"list":[{"id":"L2","to":"2026-11-04"},{"id":"L3","to":"never"},4]}"#.to_string();
    publish(&broker, &[leave(1), many, "{\"list\":".to_string(), "{\"other\":1}".to_string()]);
    broker.publish("elsewhere", &[leave(9)], &[]).expect("publishes");
    assert_eq!(shop.pull().await, (2, 4, 0, None));
    assert_eq!(shop.pull().await, (0, 0, 0, None), "nothing is given twice, what is retained neither");
    shop.land().await;
    shop.check(
        "SELECT leave_id, student_no, leave_type FROM leave ORDER BY leave_id",
        expect![[r#"
        L0 0027 personal
        L1 0026 sick
        L2 0026 sick
    "#]],
    )
    .await;
    shop.check("SELECT rule, field, message, bytes FROM letter ORDER BY message", expect![[r#"
        format  JSON, but no object {"BL":"false","QJJSSJ":null,"WID":null,"XH":"0026","_error":"JSON, but no object","_value":"4"}
        format  not JSON, at line 1 column 8 {"BL":"false","QJJSSJ":null,"WID":null,"XH":"0026","_error":"not JSON, at line 1 column 8","_value":"{\"list\":"}
        type end_at not a timestamp (RFC 3339) {"BL":"false","QJJSSJ":"never","WID":"L3","XH":"0026","_error":null,"_value":null}
        format  nothing at `/list` {"BL":"false","QJJSSJ":null,"WID":null,"XH":"0026","_error":"nothing at `/list`","_value":"{\"other\":1}"}
    "#]]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_acknowledged_comes_again() {
    let Some((shop, broker)) = shop("") else { return };
    assert_eq!(read(&shop, 9).await, (Vec::new(), None));
    publish(&broker, &(0..1000).map(leave).collect::<Vec<_>>());
    let (some, error) = read(&shop, 3).await;
    assert_eq!((some.len(), error.as_deref()), (6, Some("killed")), "two rows a batch");
    let mut seen: HashSet<String> = some.into_iter().collect();
    let mut repeats = 0;
    while seen.len() < 1000 {
        let (more, error) = read(&shop, usize::MAX).await;
        assert!(error.is_none() && !more.is_empty(), "{error:?} after {}", seen.len());
        repeats += more.into_iter().filter(|id| !seen.insert(id.clone())).count();
    }
    assert!(repeats <= 6, "only what was on its way is given again: {repeats}");
    assert_eq!(read(&shop, 9).await, (Vec::new(), None));
}

/// A way to the broker on which every acknowledgement is lost.
fn deaf_way(to: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let broker = TcpStream::connect(("127.0.0.1", to)).expect("the broker runs");
            let (mut from_broker, mut to_client) =
                (broker.try_clone().expect("clones"), client.try_clone().expect("clones"));
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from_broker, &mut to_client);
                let _ = to_client.shutdown(Shutdown::Both);
            });
            std::thread::spawn(move || {
                let _ = forward(client, &broker);
                let _ = broker.shutdown(Shutdown::Both);
            });
        }
    });
    port
}

/// Passes on every packet that is no PUBACK: a byte with the type, the length in groups of seven bits, and the rest.
fn forward(client: TcpStream, mut broker: &TcpStream) -> std::io::Result<()> {
    const PUBACK: u8 = 4;
    let mut client = BufReader::new(client);
    loop {
        let mut packet = vec![0];
        client.read_exact(&mut packet)?;
        let (mut length, mut group, mut byte) = (0usize, 0, [0x80]);
        while byte[0] & 0x80 != 0 {
            client.read_exact(&mut byte)?;
            length |= usize::from(byte[0] & 0x7f) << group;
            group += 7;
            packet.push(byte[0]);
        }
        let head = packet.len();
        packet.resize(head + length, 0);
        client.read_exact(&mut packet[head..])?;
        if packet[0] >> 4 != PUBACK {
            broker.write_all(&packet)?;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_again_is_recognised() {
    let Some((mut shop, broker)) = shop("") else { return };
    assert_eq!(shop.pull().await, (0, 0, 0, None));
    let bad = "no JSON".to_string();
    publish(&broker, &[leave(1), leave(2), bad, leave(3)]);
    let straight = shop.source.connection.take();
    shop.source.connection = Some(format!("mqtt://127.0.0.1:{}", deaf_way(broker.port())));
    assert_eq!(shop.pull().await, (3, 1, 0, None), "the log has them, the broker does not know it");
    shop.source.connection = straight;
    assert_eq!(shop.pull().await, (0, 0, 4, None));
    assert_eq!(shop.pull().await, (0, 0, 0, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_was_away_is_read_again() {
    let Some((shop, mut broker)) = shop("") else { return };
    let extract = shop.extract().await;
    let (stop, shutdown) = watch::channel(false);
    let running = tokio::spawn({
        let extract = extract.clone();
        async move { extract.run(shutdown).await }
    });
    let status = || extract.board.report().get("oa/leave_request").cloned();
    poll_until("it is subscribed", || status()?.succeeded_at).await;
    for round in 0..3 {
        publish(&broker, &(0..100).map(|at| leave(round * 100 + at)).collect::<Vec<_>>());
        broker.stop().expect("stops");
        poll_until("that is noticed", || (status()?.failures > 0).then_some(())).await;
        broker.start_again().expect("starts");
        let all = (round as i64 + 1) * 100;
        poll_until("everything is there", || (records(&shop) == all).then_some(())).await;
    }
    stop.send_replace(true);
    running.await.expect("runs").expect("stops well");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_read_is_told_why() {
    let Some((mut shop, broker)) = shop("") else { return };
    drop(broker);
    std::fs::create_dir(shop.path("guarded")).expect("creates");
    let users = shop.path("guarded/users");
    let mut made = std::process::Command::new("mosquitto_passwd");
    let made = made.args(["-b", "-c"]).arg(&users).args(["quad", "s3 cret"]).status();
    assert!(made.expect("mosquitto_passwd is there").success());
    let lines = format!("allow_anonymous false\npassword_file {}", users.display());
    let broker = Broker::start(&shop.path("guarded"), &lines).expect("starts");
    let at = format!("127.0.0.1:{}", broker.port());
    let mut told = String::new();
    for (connection, user, password) in [
        (format!("mqtt://{at}"), None, None),
        (format!("mqtt://{at}"), Some("quad"), Some("wrong")),
        (format!("mqtt://{at}"), Some("quad"), Some("s3 cret")),
        (format!("mqtt://{at}"), None, Some("s3 cret")),
        (format!("mqtt://quad:hush@{at}"), None, None),
        (format!("tcp://{at}"), None, None),
        ("mqtt://127.0.0.1:1".to_string(), None, None),
    ] {
        shop.source.connection = Some(connection);
        shop.source.user = user.map(str::to_string);
        shop.source.password = password.map(|password: &str| Sensitive::new(password.to_string()));
        let (_, _, _, error) = shop.pull().await;
        told += &(error.unwrap_or_else(|| "subscribed".to_string()).replace(&at, "BROKER") + "\n");
    }
    expect![[r#"
        the broker BROKER refuses user and password: check `user` and the password of the source
        the broker BROKER refuses user and password: check `user` and the password of the source
        subscribed
        a password without a user: set `user`
        `connection` holds a user or a password: set `user` and `password` instead
        `connection` is no address such as mqtts://mqtt.example.edu.cn:8883
        the broker 127.0.0.1:1 is not there or has ended the connection: I/O: Connection refused (os error 111)
    "#]]
    .assert_eq(&told);
}
