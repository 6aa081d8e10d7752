//! Profiles of a small campus: every item, its state, and that SQL gives the same numbers.

use std::path::Path;
use std::sync::Arc;

use expect_test::{Expect, expect, expect_file};
use tokio::sync::OnceCell;

mod arrivals;
mod flows;
mod incremental;
mod sections;

use super::describe::document;
use super::packed::Packed;
use super::{Computer, Definitions, Profiles, State, Value};
use crate::engine::Engine;
use crate::fixture::{ask, campus, contracts, engine};
use crate::settings::Settings;

/// 2026-09-03 09:00 in Shanghai.
const NOW: i64 = 1_788_397_200_000_000;

fn definitions(sections_on: &[&str]) -> Definitions {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("profile");
    let sections_on: Vec<_> = sections_on.iter().map(ToString::to_string).collect();
    Definitions::load(&folder, &contracts(), &sections_on).unwrap()
}

/// One for all tests: what it is asked without profiles before, it computes from nothing.
async fn computer() -> &'static Computer {
    static COMPUTER: OnceCell<Computer> = OnceCell::const_new();
    COMPUTER.get_or_init(|| new_computer(&[])).await
}

async fn new_computer(sections_on: &[&str]) -> Computer {
    Computer::new(&Settings::default(), &contracts(), definitions(sections_on)).await.unwrap()
}

async fn compute(engine: &Engine, now: i64) -> Profiles {
    computer().await.compute(engine.pin().snapshot.clone(), now).await.unwrap()
}

/// The items that have a value, a line each; then the others.
fn show(profiles: &Profiles, student_no: &str) -> String {
    let person = profiles.by_student_no(student_no).unwrap();
    let mut out = String::new();
    let mut missing = "missing:".to_string();
    for (item, given) in profiles.items.iter().zip(person.items.iter().map(Packed::unpack)) {
        let Some(value) = &given.value else {
            assert_eq!(given.state, State::Missing);
            missing += &format!(" {}", item.id);
            continue;
        };
        let as_of = given
            .as_of
            .and_then(chrono::DateTime::from_timestamp_micros)
            .map(|at| at.format(" @ %Y-%m-%d %H:%M").to_string());
        out += &format!("{} {} = {}{} {:?}\n", item.id, item.name, text(value), as_of.unwrap_or_default(), given.state);
    }
    out + &missing + "\n"
}

fn text(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Int(number) => number.to_string(),
        Value::Double(number) => format!("{number:?}"),
        Value::Bool(truth) => truth.to_string(),
        Value::Time(at) => chrono::DateTime::from_timestamp_micros(*at).unwrap().format("%Y-%m-%dT%H:%MZ").to_string(),
        Value::List(values) => format!("[{}]", values.iter().map(text).collect::<Vec<_>>().join(", ")),
        Value::Object(parts) => {
            let parts: Vec<_> = parts.iter().map(|(name, value)| format!("{name}: {}", text(value))).collect();
            format!("{{{}}}", parts.join(", "))
        }
    }
}

async fn check(student_no: &str, expected: Expect) {
    let engine = engine(&campus()).await;
    expected.assert_eq(&show(&compute(&engine, NOW).await, student_no));
}

#[tokio::test]
async fn a_student_with_everything() {
    check(
        "20240001",
        expect![[r#"
            A01 student_nos = [20240001] Ok
            A02 name = 张三 @ 2026-09-01 00:00 Ok
            A03 sex_code = 1 @ 2026-09-01 00:00 Ok
            A04 birth_month = 2006-02 @ 2026-09-01 00:00 Ok
            A06 political_code = 03 @ 2026-09-01 00:00 Ok
            A07 origin_region = 330000 @ 2026-09-01 00:00 Ok
            A08 college_academy = {college_id: C01, academy_id: Y1} @ 2026-09-01 00:00 Ok
            A09 major_class_grade = {major_code: M01, class_id: K2401, grade_year: 2024} @ 2026-09-01 00:00 Ok
            A10 level_mode = {level_code: 2, training_mode: 10} @ 2026-09-01 00:00 Ok
            A11 contacts = {counselor_staff_no: T001} @ 2026-09-01 00:00 Ok
            A12 identity_confidence = confirmed Ok
            B01 status_code = 01 @ 2026-09-01 00:00 Ok
            B02 enrol_month = 202409 @ 2026-09-01 00:00 Ok
            B06 credits_earned = 6.0 @ 2026-06-20 01:00 Ok
            B07 credits_last_term = 1.0 @ 2026-06-20 01:00 Ok
            B08 weighted_mean = 65.0 @ 2026-06-20 01:00 Ok
            B09 gpa = 1.5 @ 2026-06-20 01:00 Ok
            B10 gpa_delta = 3.0 @ 2026-06-20 01:00 Ok
            B12 failed_courses = 0 @ 2026-06-20 01:00 Ok
            B13 failed_credits = 0.0 @ 2026-06-20 01:00 Ok
            B14 resits_retakes = {resits: 0, retakes: 0} @ 2026-06-20 01:00 Ok
            B15 deferred_missed = {deferred: 0, missed: 0} @ 2026-06-20 01:00 Ok
            B16 minor = false @ 2026-09-01 00:00 Ok
            B17 academic_level = 3 @ 2026-06-20 01:00 Ok
            B18 expected_grad_on = 2028-06-30 @ 2026-09-01 00:00 Ok
            D01 bed = {building_id: B1, floor_no: 3, room_no: 301, space_id: B1-301-1} @ 2026-09-01 00:00 Ok
            D02 residence_mode = 2 @ 2026-09-01 00:00 Ok
            D03 roommates = 2 @ 2026-09-01 00:00 Ok
            D04 room_moves = 0 @ 2024-09-01 00:00 Ok
            D05 last_pass_day = 2026-09-01 @ 2026-08-31 16:00 Stale
            D06 presence = {direction: in, building_id: B1, since: 2026-09-01T12:00Z} @ 2026-09-01 12:00 Stale
            D07 late_30d = 0 Ok
            D08 away_30d = 0 Ok
            D09 silent_days = 1 @ 2026-09-01 12:00 Ok
            D10 library_30d = 0 Ok
            E01 card_status = normal @ 2026-03-02 00:00 Stale
            E04 spend_per_meal = 1000.0 @ 2026-09-01 10:00 Ok
            E05 breakfast_rate = 0.0 @ 2026-09-01 10:00 Ok
            E08 hardship_level = 2 @ 2026-09-01 00:00 Ok
            L01 domain_as_of = {academic: {own_day: 2026-06-20, source_day: 2026-06-20}, access_control: {source_day: 2026-09-02}, identity: {own_day: 2026-09-01, source_day: 2026-09-01}, logistics: {own_day: 2024-09-01, source_day: 2026-09-02}, student_affairs: {own_day: 2026-09-01, source_day: 2026-09-01}} Stale
            L02 missing_domains = {count: 1, domains: [extension]} Ok
            L03 conflicts = {count: 0} Ok
            missing: A05 B03 B04 B05 B11 C01 C02 C03 C04 C05 D11 D12 E02 E03 E06 E07 E09 E10 E11 E12 F01 F02 F03 F04 F05 F06 F07 F08 F09 F10 F11 G01 G02 G03 G04 G05 G06 G07 G08 H01 H02 H03 H04 H05 H06 I01 I02 I03 I04 I05 K01 K02 K03 K04 K05 L04 L05 L06
        "#]],
    )
    .await;
}

#[tokio::test]
async fn a_student_with_little() {
    check(
        "20240002",
        expect![[r#"
            A01 student_nos = [20240002] Ok
            A02 name = 李四 @ 2026-09-01 00:00 Ok
            A03 sex_code = 2 @ 2026-09-01 00:00 Ok
            A04 birth_month = 2006-05 @ 2026-09-01 00:00 Ok
            A06 political_code = 13 @ 2026-09-01 00:00 Ok
            A07 origin_region = 110000 @ 2026-09-01 00:00 Ok
            A08 college_academy = {college_id: C02, academy_id: Y1} @ 2026-09-01 00:00 Ok
            A09 major_class_grade = {major_code: M02, class_id: K2402, grade_year: 2024} @ 2026-09-01 00:00 Ok
            A10 level_mode = {level_code: 2, training_mode: 10} @ 2026-09-01 00:00 Ok
            A11 contacts = {counselor_staff_no: T002} @ 2026-09-01 00:00 Ok
            A12 identity_confidence = confirmed Ok
            B01 status_code = 01 @ 2026-09-01 00:00 Ok
            B02 enrol_month = 202409 @ 2026-09-01 00:00 Ok
            B06 credits_earned = 0.0 @ 2026-01-20 01:00 Ok
            B08 weighted_mean = 40.0 @ 2026-01-20 01:00 Ok
            B09 gpa = 0.0 @ 2026-01-20 01:00 Ok
            B12 failed_courses = 1 @ 2026-01-20 01:00 Ok
            B13 failed_credits = 5.0 @ 2026-01-20 01:00 Ok
            B14 resits_retakes = {resits: 0, retakes: 0} @ 2026-01-20 01:00 Ok
            B15 deferred_missed = {deferred: 0, missed: 0} @ 2026-01-20 01:00 Ok
            B16 minor = false @ 2026-09-01 00:00 Ok
            B17 academic_level = 3 @ 2026-01-20 01:00 Ok
            B18 expected_grad_on = 2028-06-30 @ 2026-09-01 00:00 Ok
            D01 bed = {building_id: B1, floor_no: 3, room_no: 301, space_id: B1-301-2} @ 2026-09-01 00:00 Ok
            D02 residence_mode = 2 @ 2026-09-01 00:00 Ok
            D03 roommates = 2 @ 2026-09-01 00:00 Ok
            D04 room_moves = 0 @ 2024-09-01 00:00 Ok
            D05 last_pass_day = 2026-09-02 @ 2026-09-01 16:00 Stale
            D06 presence = {direction: out, building_id: B1, since: 2026-09-01T13:00Z} @ 2026-09-01 13:00 Stale
            D07 late_30d = 0 Ok
            D08 away_30d = 0 Ok
            D09 silent_days = 0 @ 2026-09-02 02:00 Ok
            D10 library_30d = 1 @ 2026-09-02 02:00 Ok
            E01 card_status = normal @ 2024-09-01 00:00 Stale
            L01 domain_as_of = {academic: {own_day: 2026-01-20, source_day: 2026-06-20}, access_control: {source_day: 2026-09-02}, identity: {own_day: 2024-09-01, source_day: 2026-09-01}, logistics: {own_day: 2024-09-01, source_day: 2026-09-02}, student_affairs: {own_day: 2026-09-01, source_day: 2026-09-01}} Stale
            L02 missing_domains = {count: 1, domains: [extension]} Ok
            L03 conflicts = {count: 0} Ok
            missing: A05 B03 B04 B05 B07 B10 B11 C01 C02 C03 C04 C05 D11 D12 E02 E03 E04 E05 E06 E07 E08 E09 E10 E11 E12 F01 F02 F03 F04 F05 F06 F07 F08 F09 F10 F11 G01 G02 G03 G04 G05 G06 G07 G08 H01 H02 H03 H04 H05 H06 I01 I02 I03 I04 I05 K01 K02 K03 K04 K05 L04 L05 L06
        "#]],
    )
    .await;
}

#[tokio::test]
async fn nothing_known_is_missing_and_not_zero() {
    let mut tables = campus();
    tables.retain(|(name, ..)| name.starts_with("student_affairs"));
    let engine = engine(&tables).await;
    let profiles = compute(&engine, NOW).await;
    let person = profiles.by_student_no("20240001").unwrap();
    let filled: Vec<_> = profiles
        .items
        .iter()
        .zip(person.items.iter())
        .filter(|(_, given)| given.state != State::Missing)
        .map(|(item, _)| &*item.id)
        .collect();
    expect!["A01 A02 A03 A04 A06 A07 A11 A12 D02 E08 L01 L02 L03"].assert_eq(&filled.join(" "));
}

#[tokio::test]
async fn a_silent_source_makes_its_items_stale() {
    let engine = engine(&campus()).await;
    let day = 86_400_000_000;
    let state = |profiles: &Profiles, id: &str| {
        let place = profiles.items.iter().position(|item| item.id == id).unwrap();
        profiles.by_student_no("20240001").unwrap().items.get(place).state
    };
    // Everything was received half an hour before; a passage may be one minute old, a grade one day.
    let now = compute(&engine, NOW).await;
    assert_eq!((state(&now, "D05"), state(&now, "B06")), (State::Stale, State::Ok));
    let late = compute(&engine, NOW + 2 * day).await;
    assert_eq!(state(&late, "B06"), State::Stale);
}

#[tokio::test]
async fn sources_that_disagree_are_a_conflict() {
    let mut tables = campus();
    tables[1].2 =
        "('20240001', 'major', '2', '10', 'C99', 'M01', 'K2401', 2024, '202409', '01', '2028-06-30', '2024-09-01')";
    let engine = engine(&tables).await;
    let profiles = compute(&engine, NOW).await;
    let shown = show(&profiles, "20240001");
    let line = shown.lines().find(|line| line.starts_with("A08")).unwrap();
    expect!["A08 college_academy = {college_id: C99, academy_id: Y1} @ 2026-09-01 00:00 Conflict"].assert_eq(line);
}

#[tokio::test]
async fn the_version_changes_exactly_with_the_items() {
    let computer = computer().await;
    let before = engine(&campus()).await;
    let first = computer.follow(before.pin().snapshot.clone(), NOW, None).await.unwrap();
    let again = computer.follow(before.pin().snapshot.clone(), NOW + 1_000_000, Some(&first)).await.unwrap();
    assert!(Arc::ptr_eq(&first.persons[0], &again.persons[0]), "an unchanged person is shared");
    let mut tables = campus();
    tables[3].2 = "('20240001', 'MA1', '2025-2026', 1, '01', 1, 55, false, 5, 0, 0, '2026-01-20T01:00:00Z', true, '2026-01-20T01:00:00Z'),
        ('20240001', 'PE1', '2025-2026', 2, '01', 1, 90, true, 1, 1, 4, '2026-06-20T01:00:00Z', true, '2026-06-20T01:00:00Z'),
        ('20240002', 'MA1', '2025-2026', 1, '01', 1, 40, false, 5, 0, 0, '2026-01-20T01:00:00Z', true, '2026-01-20T01:00:00Z')";
    let after = engine(&tables).await;
    let corrected = computer.follow(after.pin().snapshot.clone(), NOW, Some(&first)).await.unwrap();
    let version = |profiles: &Profiles, number: &str| profiles.by_student_no(number).unwrap().version;
    assert_ne!(version(&first, "20240001"), version(&corrected, "20240001"));
    assert_eq!(version(&first, "20240002"), version(&corrected, "20240002"));
}

/// The questions of the definitions, asked over SQL by an analyst, give what the profile says.
#[tokio::test]
async fn sql_gives_the_same_numbers() {
    let engine = engine(&campus()).await;
    let profiles = compute(&engine, NOW).await;
    let value = |id: &str| {
        let place = profiles.items.iter().position(|item| item.id == id).unwrap();
        let given = profiles.by_student_no("20240001").unwrap().items.get(place).unpack();
        given.value.as_ref().map_or("–".to_string(), text)
    };
    let mut out = String::new();
    for (id, sql) in [
        (
            "B06",
            "SELECT sum(e) FROM (SELECT max(credits_earned) AS e FROM academic.grade WHERE is_valid AND student_no = '20240001' GROUP BY course_no) AS c",
        ),
        (
            "B09",
            "SELECT sum(grade_point * credits) / sum(credits) FROM academic.grade WHERE is_valid AND exam_nature IN ('01', '03') AND student_no = '20240001'",
        ),
        (
            "D05",
            "SELECT max(biz_date) FROM access_control.access_event WHERE result = 'granted' AND person_id = person_by_number('20240001', NULL)",
        ),
        (
            "E04",
            "SELECT sum(amount_fen) / count(*) FROM logistics.card_txn WHERE merchant_kind = 'canteen' AND person_id = person_by_number('20240001', NULL)",
        ),
    ] {
        let answer = ask(&engine, sql).await.unwrap();
        let cell = answer.lines().nth(3).unwrap().trim_matches(['|', ' ']).to_string();
        out += &format!("{id} profile {} sql {cell}\n", value(id));
    }
    expect![[r#"
        B06 profile 6.0 sql 6.0
        B09 profile 1.5 sql 1.5000000
        D05 profile 2026-09-01 sql 2026-09-01
        E04 profile 1000.0 sql 1000
    "#]]
    .assert_eq(&out);
}

#[test]
fn a_definition_that_contradicts_itself_is_named() {
    let check = |name: &str, text: &str| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), text).unwrap();
        let error = Definitions::load(folder.path(), &contracts(), &[]).unwrap_err();
        error.message.split_once(": ").unwrap().1.to_string()
    };
    let section = |question: &str, items: &str| {
        let head = "section = \"Z\"\ntitle = \"\"\ntitle_en = \"\"\n[[questions]]\nwindow = \"now\"\n";
        format!("{head}{question}\nitems = [{items}]\n")
    };
    let item = |id: &str| format!("{{ id = \"{id}\", name = \"n{id}\", title = \"\", class = 1, fresh_s = 1 }}");
    let sql = "sources = [\"academic.grade\"]\nsql = \"SELECT 1\"";
    expect!["item Y01 is not of section Z"].assert_eq(&check("z.toml", &section(sql, &item("Y01"))));
    expect!["item Z01 stands twice"]
        .assert_eq(&check("z.toml", &section(sql, &format!("{}, {}", item("Z01"), item("Z01")))));
    let asks = |question: &str| check("z.toml", &section(question, &item("Z01")));
    expect!["$limit is no parameter"].assert_eq(&asks("sources = [\"academic.grade\"]\nsql = \"SELECT $limit\""));
    expect!["item Z01: academic.grades is no table with a contract"]
        .assert_eq(&asks("sources = [\"academic.grades\"]\nsql = \"SELECT 1\""));
    expect!["item Z01 needs sources if it has SQL, and none if not"].assert_eq(&asks("sql = \"SELECT 1\""));
    expect!["the question of Z01 needs exactly one of sql, answer and no_source"]
        .assert_eq(&asks("sources = [\"academic.grade\"]"));
    expect!["item Z01 has neither a source nor an owner"].assert_eq(&asks("no_source = \"nobody knows\""));
    let named = item("Z01").replace("nZ01", "student_no");
    expect!["item Z01 is named student_no, as another column of profile.student is"]
        .assert_eq(&check("z.toml", &section(sql, &named)));
}

#[tokio::test]
async fn a_view_that_cannot_be_asked_as_it_says_is_named() {
    let check = async |columns: &str, table: &str| {
        let mut definitions = definitions(&[]);
        let view = definitions.views.iter_mut().find(|view| view.name == "library_visit").unwrap();
        view.sql = format!("SELECT {columns} FROM {table}");
        let error = Computer::new(&Settings::default(), &contracts(), definitions).await.unwrap_err();
        error.text().split_once("library_visit: ").unwrap().1.to_string()
    };
    let passages = "access_control.access_event";
    expect!["by_time and by_person need a column person_id"].assert_eq(&check("event_time, biz_date", passages).await);
    expect!["by_time needs one table to read, whose key has the time of the event"]
        .assert_eq(&check("*", "academic.grade").await);
    expect!["by_time needs the columns biz_date and event_time, as access_control.access_event has them"]
        .assert_eq(&check("person_id, biz_date", passages).await);
    let by_card = "person_by_number(access_person_no, event_time) AS person_id, event_time, biz_date";
    expect!["by_time needs whose a row is from person_id and link_status, not from functions"]
        .assert_eq(&check(by_card, passages).await);
}

#[test]
fn a_section_that_is_turned_on_must_be_there() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("profile");
    let error = Definitions::load(&folder, &contracts(), &["Q".to_string()]).unwrap_err();
    expect!["query.profile_sections_on: there is no section Q; the sections are A B C D E F G H I J K L"]
        .assert_eq(&error.text());
}

/// The catalogue has 102 items in 12 sections, numbered without a gap; health is off.
#[test]
fn the_catalogue_is_whole() {
    let counts = [12, 18, 5, 12, 12, 11, 8, 6, 5, 2, 5, 6];
    let expected: Vec<_> =
        ('A'..='L').zip(counts).flat_map(|(id, count)| (1..=count).map(move |n| format!("{id}{n:02}"))).collect();
    let definitions = definitions(&[]);
    let ids = |items: &mut dyn Iterator<Item = &super::Item>| items.map(|item| item.id.clone()).collect::<Vec<_>>();
    assert_eq!(expected.len(), 102);
    assert_eq!(ids(&mut definitions.sections.iter().flat_map(|section| &section.items)), expected);
    let without_health: Vec<_> = expected.into_iter().filter(|id| !id.starts_with('J')).collect();
    assert_eq!(ids(&mut definitions.items.iter()), without_health);
}

#[test]
fn the_profile_document_is_what_is_declared() {
    expect_file!["../../../docs/profile.md"].assert_eq(&document(&definitions(&[]).sections));
}
