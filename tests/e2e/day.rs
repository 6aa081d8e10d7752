//! A campus day, whole: what was generated is in the lake, once, whatever the log is and whatever is killed.

use std::collections::BTreeMap;

use campus::database::{Database, Databases};
use campus::gates::PersonField;
use campus::live::Stage;
use campus::record::Fate;
use campus::source::System;
use campus::truth;

use crate::school::School;

const SEED: u64 = 7;
const STUDENTS: usize = 200;

/// Pushes the history, plays the day without waiting; `between` is called after every part with its number.
fn play(school: &mut School, mut between: impl FnMut(&mut School, usize)) {
    let mut stage = Stage::open(&school.databases, school.pusher()).expect("the sources answer");
    let pushes: Vec<_> = school.campus.history_pushes().collect();
    let steps: Vec<_> = school.campus.live().collect();
    let mut part = 0;
    for push in &pushes {
        stage.push(push).expect("the push is taken");
        part += 1;
        between(school, part);
    }
    for step in &steps {
        stage.play(step).expect("the step is taken");
        part += 1;
        between(school, part);
    }
    school.end_day_of_lists();
}

/// Plays off the async runtime, since the gates' client blocks.
fn play_on_its_own(school: &mut School, between: impl FnMut(&mut School, usize) + Send) {
    std::thread::scope(|scope| scope.spawn(|| play(school, between)).join().expect("the day is played"));
}

async fn contents(school: &School) -> BTreeMap<String, Vec<String>> {
    let client = school.client().await;
    let truth = school.truth(truth::Stage::DayOver);
    school.eventually_agrees(&client, &truth).await;
    let mut contents = BTreeMap::new();
    for table in truth.tables.keys() {
        contents.insert(table.clone(), school.content(&client, table).await);
        let twice =
            format!("SELECT kafka_partition, kafka_offset FROM {table}_history GROUP BY 1, 2 HAVING COUNT(*) > 1");
        assert_eq!(school.lines(&client, &twice).await.expect("history answers"), [""; 0], "{table}: landed twice");
    }
    // The bytes of a letter are the source's own, and databases write a value in different ways: its cause is what counts.
    let causes = "SELECT source, target, rule, field, message, stage, COUNT(*) FROM platform.dead_letter GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6";
    contents.insert("platform.dead_letter".into(), school.lines(&client, causes).await.expect("letters answer"));
    contents
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_nothing_comes_twice_when_quad_is_killed_and_started_again() {
    let mut calm = School::new(SEED, STUDENTS, None);
    calm.pull_lists();
    calm.start("up");
    play_on_its_own(&mut calm, |_, _| {});
    let expected = contents(&calm).await;
    assert_eq!(calm.stop("up"), Some(0), "a stop is graceful");

    let mut stormy = School::new(SEED, STUDENTS, None);
    stormy.pull_lists();
    stormy.start("up");
    let mut kills = 0;
    play_on_its_own(&mut stormy, |school, part| {
        if part % 40 == 17 {
            school.kill("up");
            school.start("up");
            kills += 1;
        }
    });
    assert!(kills >= 3, "the day has enough parts to be killed in: {kills}");
    assert_same(&expected, &contents(&stormy).await);

    stormy.kill("up");
    stormy.start("up");
    let client = stormy.client().await;
    let first = stormy.lines(&client, "SELECT COUNT(*) FROM academic.grade").await.expect("answers");
    let grades = stormy.campus.truth(truth::Stage::DayOver).tables["academic.grade"].current;
    assert_eq!(first, [grades.to_string()], "the first answer after a start is whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_day_on_kafka_and_from_other_databases_gives_the_same_tables() {
    let servers = ["QUAD_KAFKA", "QUAD_TEST_POSTGRES", "QUAD_TEST_MARIADB"].map(|name| std::env::var(name).ok());
    let [Some(kafka), Some(postgres), Some(mariadb)] = servers else {
        println!("skipped: QUAD_KAFKA, QUAD_TEST_POSTGRES and QUAD_TEST_MARIADB are not all set");
        return;
    };
    let mut embedded = School::new(SEED, STUDENTS, None);
    embedded.pull_lists();
    embedded.start("up");
    play_on_its_own(&mut embedded, |_, _| {});
    let expected = contents(&embedded).await;

    let databases = Databases { student_affairs: postgres.clone(), academic: postgres, logistics: mariadb };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut spread = School::with_databases(folder, databases, SEED, STUDENTS, Some(kafka));
    spread.pull_lists();
    for service in ["extract", "land", "query"] {
        spread.start(service);
    }
    play_on_its_own(&mut spread, |_, _| {});
    assert_same(&expected, &contents(&spread).await);
    for service in ["extract", "land", "query"] {
        assert_eq!(spread.stop(service), Some(0), "{service} stops gracefully\n{}", spread.log(service));
    }
}

/// L7: most passes name a card and no number. They are nobody's until the list of cards is there, then of who carried it.
#[tokio::test(flavor = "multi_thread")]
async fn passes_told_before_the_list_of_cards_find_their_person_when_it_comes() {
    let mut school = School::new(SEED, 60, None);
    let cards = Database::open(&school.databases.logistics, System::Logistics).expect("the source opens");
    cards.tamper("ALTER TABLE ECARD_CARD RENAME TO ECARD_CARD_LATER").expect("the list is hidden");
    school.start("up");
    let push_all = || {
        let mut pusher = school.pusher();
        school.campus.history_pushes().for_each(|push| pusher.push(&push).expect("the push is taken"));
    };
    std::thread::scope(|scope| scope.spawn(push_all).join().expect("the past is pushed"));
    let truth = school.campus.truth(truth::Stage::Filled);
    let day_start = school.campus.plan.day_start();
    let landed = school.campus.gates.events.iter().filter(|record| record.fate == Fate::Lands && record.at < day_start);
    let named = landed.filter(|record| matches!(record.value.person, PersonField::Student(_))).count() as u64;
    let events = &truth.tables["access_control.access_event"];
    let linked = events.linked.expect("events are linked");
    assert!(named * 2 < linked + truth.planted[&4], "more than half wait for the list: {named} of {linked} do not");

    let client = school.client().await;
    let count_when = |condition: &str| format!("SELECT COUNT(*) FROM access_control.access_event WHERE {condition}");
    school.eventually(&client, &count_when("true"), events.current).await;
    school.eventually(&client, &count_when("person_id IS NOT NULL"), named).await;
    cards.tamper("ALTER TABLE ECARD_CARD_LATER RENAME TO ECARD_CARD").expect("the list comes");
    school.eventually(&client, &count_when("person_id IS NOT NULL"), linked).await;
}

fn assert_same(expected: &BTreeMap<String, Vec<String>>, found: &BTreeMap<String, Vec<String>>) {
    for (table, rows) in expected {
        let found = &found[table];
        let missing = rows.iter().find(|row| !found.contains(row));
        let surplus = found.iter().find(|row| !rows.contains(row));
        assert!(rows == found, "{table} differs: missing {missing:?}, surplus {surplus:?}");
    }
}
