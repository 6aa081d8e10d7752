//! Sources that are no databases: files and pages, pulled by the program itself, which is killed while it pulls.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant, SystemTime};

use campus::platform::Platform;
use serde_json::json;

use crate::school::{School, wait_until_later};

const TRANSACTIONS: u64 = 800;
const DAYS: u64 = 9_000;

/// A platform with transactions, a calendar in a folder, and both in the settings of a school.
async fn school_with_sources() -> (School, Platform) {
    let school = School::new(11, 50, None);
    let platform = Platform::start(20, Some(("quad", "s3 cret"))).await.expect("serves");
    for id in 1..=TRANSACTIONS {
        let time = format!("2026-11-01 {:02}:{:02}:00", 7 + id / 60, id % 60);
        let record = json!({
            "id": id, "cardNo": format!("{:06}", id % 20), "cardSeq": "1", "amount": "-12.50", "balance": 88.5,
            "useCount": id, "time": time, "terminal": "T01", "changed": time,
        });
        platform.put("card-transactions", record);
    }
    let inbox = school.folder.path().join("inbox");
    std::fs::create_dir_all(inbox.join("校历")).expect("creates");
    let mut file = File::create(inbox.join("校历/全部.csv")).expect("creates");
    writeln!(file, "日期,学年,学期,教学周,是否上课日,熄灯时间").expect("writes");
    let first: chrono::NaiveDate = "2000-09-01".parse().expect("a date");
    for day in first.iter_days().take(DAYS as usize) {
        writeln!(file, "{day},2026-2027,第一学期,12,是,23:00").expect("writes");
    }
    file.set_modified(SystemTime::now() - Duration::from_secs(60)).expect("touches");
    let (inbox, secret) = (inbox.display(), school.folder.path().join("secret"));
    std::fs::write(&secret, "s3 cret\n").expect("writes");
    let sources = format!(
        "[sources.office]\nconnector = \"office_sheets\"\nconnection = '{inbox}'\npoll_s = 1\n\
         [sources.platform]\nconnector = \"open_platform\"\nconnection = \"{}\"\nuser = \"quad\"\n\
         password_file = '{}'\npoll_s = 1\n",
        platform.url(),
        secret.display()
    );
    let mut settings = File::options().append(true).open(school.settings()).expect("opens");
    settings.write_all(sources.as_bytes()).expect("writes");
    (school, platform)
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_pages_lose_nothing_to_kills() {
    let (mut school, platform) = school_with_sources().await;
    let doctor = school.output(&["doctor"]);
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(doctor.status.success() && said.contains("answers for 3 tables"), "{said}");
    let mut asked = 0;
    for _ in 0..3 {
        school.start("up");
        platform.asked();
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut since_start = 0;
        while since_start < 8 {
            since_start += platform.asked().len();
            assert!(Instant::now() < deadline, "the platform is not asked: {}", school.log("up"));
            wait_until_later().await;
        }
        school.kill("up");
        asked += since_start;
    }
    assert!(asked < TRANSACTIONS as usize / 20, "it was killed before it had everything");
    school.start("up");
    let client = school.client().await;
    let sql = "SELECT (SELECT COUNT(DISTINCT txn_serial) FROM logistics.card_txn_history WHERE src = 'platform'), \
               (SELECT COUNT(DISTINCT biz_date) FROM extension.calendar_day_history WHERE src = 'office')";
    let expected = format!("{TRANSACTIONS}|{DAYS}");
    school.eventually(&client, sql, expected).await;
    assert_eq!(school.stop("up"), Some(0));
    assert!(!school.log("up").contains("s3 cret"), "no secret in a log");
    let compared = school.output(&["reconcile", "office", "platform"]);
    let said = String::from_utf8_lossy(&compared.stdout).into_owned();
    assert!(compared.status.success(), "{said}{}", String::from_utf8_lossy(&compared.stderr));
}

#[test]
fn a_missing_secret_is_told_before_anything_runs() {
    let school = School::new(1, 50, None);
    let said = |line: &str, variables: &[(&str, &str)]| {
        let source =
            "\n[sources.platform]\nconnector = \"open_platform\"\nconnection = \"http://127.0.0.1:9\"\nuser = \"q\"\n";
        let settings = std::fs::read_to_string(school.settings()).expect("reads") + source + line;
        let file = school.folder.path().join("other.toml");
        std::fs::write(&file, settings).expect("writes");
        let mut doctor = school.quad(&["doctor"]);
        let output = doctor.env("QUAD_CONFIG", &file).envs(variables.iter().copied()).output().expect("starts");
        (
            output.status.code(),
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        )
    };
    let (code, text) = said("", &[]);
    assert!(code == Some(1) && text.contains("set `password`"), "{text}");
    let (code, text) = said("password_file = \"nowhere\"", &[]);
    assert!(code == Some(1) && text.contains("could not read password_file nowhere"), "{text}");
    let (code, text) = said("password = \"hush\"", &[]);
    assert!(code == Some(64) && text.contains("QUAD_SOURCES__PLATFORM__PASSWORD") && !text.contains("hush"), "{text}");
    let (code, text) = said("", &[("QUAD_SOURCES__PLATFORM__PASSWORD", "hush")]);
    assert!(code == Some(1) && text.contains("/oauth/token: could not ask") && !text.contains("hush"), "{text}");
}
