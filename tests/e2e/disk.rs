//! Disks that fill up: what is said, what waits, and that it goes on by itself.

use std::time::{Duration, Instant};

use campus::database::Database;
use campus::source::System;
use campus::truth::Stage;
use chaos::disk::Disk;

use crate::school::{School, wait_until_later};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_below_the_state_of_extract_is_told_and_waited_for() {
    let mut school = School::new(17, 60, None);
    let state = school.folder.path().join("extract");
    std::fs::create_dir(&state).expect("a folder");
    let Some(disk) = Disk::mount(&state, 256 << 20) else {
        println!("skipped: only root may mount a disk");
        return;
    };
    school.start("up");
    let client = school.client().await;
    let mut truth = school.campus.truth(Stage::Filled);
    truth.tables.retain(|table, _| !table.starts_with("access_control."));
    school.eventually_agrees(&client, &truth).await;

    disk.fill().expect("it can be filled");
    let academic = Database::open(&school.databases.academic, System::Academic).expect("opens");
    academic.tamper("UPDATE JW_JH_KCDMB SET ZXS = 33, TSTAMP = '2099-01-01 00:00:00'").expect("updates");
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let output = school.output(&["sources", "--json"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if said.contains("are free on the volume of extract.state_path") && said.contains("make room") {
            break;
        }
        assert!(Instant::now() < deadline, "nothing is said: {said}\n{}", school.log("up"));
        wait_until_later().await;
    }
    let changed = "SELECT COUNT(*) FROM academic.course_history WHERE hours_total = 33";
    assert_eq!(school.lines(&client, changed).await.expect("answers"), ["0"], "what cannot be remembered is not sent");

    disk.free().expect("it has room again");
    let all = truth.tables["academic.course"].current.to_string();
    let deadline = Instant::now() + Duration::from_secs(120);
    while school.lines(&client, changed).await.expect("answers") != [all.as_str()] {
        assert!(Instant::now() < deadline, "it does not go on\n{}", school.log("up"));
        wait_until_later().await;
    }
    assert_eq!(school.stop("up"), Some(0), "{}", school.log("up"));
}
