//! Meters over MQTT and TLS, read by the program itself, which is killed while it reads: a real Mosquitto, skipped aloud where
//! none is installed.

use std::fs::File;
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use campus::broker::Broker;

use crate::school::{School, free_port, wait_until_later};

const ROUNDS: usize = 4;
const READINGS: usize = 1_000;

/// An authority and a certificate for `localhost`, made in the folder of the school.
fn certificates(school: &School) {
    let run = |arguments: &str| {
        let mut openssl = Command::new("openssl");
        let output = openssl.args(arguments.split(' ')).current_dir(school.folder.path()).output().expect("openssl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let key = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
    run(&format!("{key} -keyout ca.key -out ca.pem -subj /CN=authority"));
    run(&format!(
        "{key} -CA ca.pem -CAkey ca.key -keyout broker.key -out broker.pem -subj /CN=localhost \
         -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE"
    ));
}

/// A broker that lets in who knows the password, and a source that reads meters there.
fn school_with_meters() -> (School, Broker) {
    let school = School::new(12, 50, None);
    certificates(&school);
    let here = school.folder.path().display();
    let mut passwd = Command::new("mosquitto_passwd");
    let made = passwd.args(["-b", "-c"]).arg(school.folder.path().join("users")).args(["quad", "s3 cret"]).status();
    assert!(made.expect("mosquitto_passwd is there").success());
    let port = free_port();
    let settings = format!(
        "log_type error\nlog_type subscribe\nallow_anonymous false\npassword_file {here}/users\nlistener {port} 127.0.0.1\ncertfile {here}/broker.pem\n\
         keyfile {here}/broker.key"
    );
    let folder = school.folder.path().join("broker");
    std::fs::create_dir(&folder).expect("creates");
    let broker = Broker::start(&folder, &settings).expect("starts");
    std::fs::write(school.folder.path().join("secret"), "s3 cret\n").expect("writes");
    let source = format!(
        "[sources.meters]\nconnector = \"logistics_meters\"\nconnection = \"mqtts://localhost:{port}\"\nuser = \"quad\"\n\
         password_file = '{here}/secret'\n"
    );
    let mut settings = File::options().append(true).open(school.settings()).expect("opens");
    settings.write_all(source.as_bytes()).expect("writes");
    (school, broker)
}

#[tokio::test(flavor = "multi_thread")]
async fn meters_over_mqtt_lose_nothing_to_kills() {
    if !Broker::is_there() {
        println!("skipped: mosquitto is not installed");
        return;
    }
    let (mut school, broker) = school_with_meters();
    let authority = school.folder.path().join("ca.pem").display().to_string();
    let trusted = [("SSL_CERT_FILE", authority.as_str())];
    let said = |command: &str, variables: &[(&str, &str)]| {
        let output = school.quad(&command.split(' ').collect::<Vec<_>>()).envs(variables.iter().copied()).output();
        let output = output.expect("quad starts");
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let told = said("doctor", &trusted);
    let line = told.lines().find(|line| line.contains("source meters connection")).unwrap_or_default().to_string();
    assert!(line.contains("answers for 1 tables"), "{told}");
    let told = said("doctor", &[]);
    let line = told.lines().find(|line| line.contains("source meters connection")).unwrap_or_default().to_string();
    assert!(line.contains("WRONG") && line.contains("certificate"), "{told}");

    let login = ["-u", "quad", "-P", "s3 cret"];
    let reading = |at: usize| {
        let (day, hour, minute) = (1 + at / 1440, at / 60 % 24, at % 60);
        format!(r#"{{"time":"2026-10-{day:02} {hour:02}:{minute:02}:00","kwh":{},"w":310}}"#, 1000.0 + at as f64 / 4.0)
    };
    let retained = [login.as_slice(), &["-r"]].concat();
    broker.publish("meters/g1/000100230102/reading", &[reading(0)], &retained).expect("publishes");
    let told = said("connector preview meters --rows 1", &trusted);
    assert!(told.contains("1 rows read: 1 accepted") && told.contains("A1-102"), "{told}");

    let deadline = Instant::now() + Duration::from_secs(240);
    let subscribed =
        |times: usize| broker.log().matches("quad-meters-utility_reading 1 meters/+/+/event").count() >= times;
    for round in 0..ROUNDS {
        school.start_with("up", &trusted);
        while !subscribed(round + 1) {
            assert!(Instant::now() < deadline, "it does not subscribe: {}", school.log("up"));
            wait_until_later().await;
        }
        let readings: Vec<_> = (round * READINGS..(round + 1) * READINGS).map(reading).collect();
        broker.publish("meters/g1/000100230101/reading", &readings, &login).expect("publishes");
        // At once, or after some more of what came has been taken.
        for _ in 0..round {
            wait_until_later().await;
        }
        school.kill("up");
    }
    school.start_with("up", &trusted);
    let client = school.client().await;
    let sql = "SELECT COUNT(*), COUNT(DISTINCT read_at), SUM(CASE room_id WHEN 'A1-101' THEN 1 ELSE 0 END) \
               FROM logistics.utility_reading";
    let all = ROUNDS * READINGS;
    let expected = format!("{}|{all}|{all}", all + 1);
    school.eventually(&client, sql, expected).await;
    assert_eq!(school.stop("up"), Some(0));
    assert!(!school.log("up").contains("s3 cret"), "no secret in a log");
}
