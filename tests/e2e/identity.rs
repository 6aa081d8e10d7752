//! Whose a number is: what the rules make of a whole campus, and what an administrator decides by hand and takes back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::process::Output;
use std::time::{Duration, Instant};

use campus::truth::person::StudentTruth;
use campus::truth::{Stage, Truth};
use serde_json::{Value, json};

use crate::school::{ANALYST_TOKEN, School, wait_until_later};

/// `quad` with `line`, its exit code and what it printed.
fn quad(school: &School, token: Option<&str>, line: &str) -> (Option<i32>, String) {
    let mut command = school.quad(&[]);
    command.args(line.split_whitespace());
    if let Some(token) = token {
        command.env("QUAD_TOKEN", token);
    }
    let Output { status, stdout, stderr } = command.output().expect("quad runs");
    (status.code(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

/// The document that a command prints.
fn document(school: &School, line: &str) -> Value {
    let (code, said) = quad(school, None, line);
    assert_eq!(code, Some(0), "{line}: {said}");
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{line}: {error}: {said}"))
}

/// Asks for the profile of `student_no`.
fn profile_line(student_no: &str, more: &str) -> String {
    format!("profile {student_no} --items a01,a02,a08,a12 --json {more}")
}

/// Who a profile says that someone is.
fn who(profile: &Value) -> Value {
    let items = profile["items"].as_array().expect("items").iter();
    let values: BTreeMap<&str, &Value> =
        items.map(|item| (item["name"].as_str().unwrap_or_default(), &item["value"])).collect();
    json!({ "person_id": profile["person_id"], "student_nos": profile["student_nos"], "values": values })
}

/// The same, once the profile reaches to `watermark`.
async fn eventually_profile(school: &School, student_no: &str, watermark: &str) -> Value {
    let line = profile_line(student_no, &format!("--watermark {watermark}"));
    let deadline = Instant::now() + Duration::from_secs(300);
    loop {
        let (code, said) = quad(school, None, &line);
        if code == Some(0) {
            return who(&serde_json::from_str(&said).expect("JSON"));
        }
        // Computing profiles may take longer than a call waits.
        assert!(Instant::now() < deadline, "{said}\n{}", school.log("up"));
        wait_until_later().await;
    }
}

/// The profiles by either number.
async fn profiles(school: &School, numbers: [&str; 2], watermark: &str) -> [Value; 2] {
    let first = eventually_profile(school, numbers[0], watermark).await;
    [first, eventually_profile(school, numbers[1], watermark).await]
}

fn text<'v>(document: &'v Value, name: &str) -> &'v str {
    document[name].as_str().unwrap_or_else(|| panic!("no {name} in {document}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_merged_and_split_and_it_is_undone() {
    let mut school = School::new(3, 60, None);
    school.start("up");
    let client = school.client().await;
    let truth = school.campus.truth(Stage::Filled);
    for table in ["student_affairs.student_base", "academic.enrollment", "identity.account", "identity.card"] {
        let count = format!("SELECT COUNT(*) FROM {table}");
        school.eventually(&client, &count, truth.tables[table].current).await;
    }
    every_student_is_one_person(&school, &client, &truth).await;
    links_hold_against_the_truth(&client, &truth).await;

    let is_alone = |student: &&StudentTruth| student.former_student_no.is_none();
    let mut alone = truth.students.iter().filter(is_alone).map(|student| &*student.student_no);
    let numbers = [(); 2].map(|()| alone.next().expect("two students"));
    merged_and_undone(&school, &client, numbers).await;

    // What a rule links is parted, and linked again when that is undone.
    let later = truth.students.iter().find(|student| student.former_student_no.is_some()).expect("an alumnus");
    let (former, later) = (later.former_student_no.as_deref().expect("an alumnus"), &*later.student_no);
    let persons = format!(
        "SELECT COUNT(DISTINCT person_id) FROM identity.identifier_link WHERE id_value IN ('{former}', '{later}')"
    );
    let split = document(&school, &format!("identity split {former} {later} --json"));
    school.eventually(&client, &persons, 2).await;
    let (review, watermark) = (text(&split, "review_id"), text(&split, "watermark"));
    document(&school, &format!("identity undo {review} --json --watermark {watermark}"));
    school.eventually(&client, &persons, 1).await;

    let log = school.log("up");
    assert!(log.contains("DecideIdentity"), "decisions are audited: {log}");
    let named = numbers.into_iter().chain([former, later]).find(|number| log.contains(*number));
    assert_eq!(named, None, "no number is in the log");
}

/// By whatever numbers: whoever studied here before is one person with the former number too (R5), and nobody else is.
async fn every_student_is_one_person(school: &School, client: &tokio_postgres::Client, truth: &Truth) {
    let numbers = |student: &StudentTruth| -> BTreeSet<String> {
        student.former_student_no.iter().chain([&student.student_no]).cloned().collect()
    };
    let students: BTreeSet<BTreeSet<String>> = truth.students.iter().map(numbers).collect();
    assert!(students.iter().any(|numbers| numbers.len() == 2), "some have studied here before");
    let links = "FROM identity.identifier_link WHERE id_type = 'student_no'";
    let sql = format!("SELECT string_agg(id_value, ' ') {links} GROUP BY person_id");
    let found = school.lines(client, &sql).await.expect("the links answer");
    let found: BTreeSet<BTreeSet<String>> =
        found.iter().map(|line| line.split(' ').map(str::to_string).collect()).collect();
    assert_eq!(found, students);
    let former = students.iter().filter(|numbers| numbers.len() == 2).count();
    let rules = format!("SELECT rule_id, link_status, COUNT(*) {links} GROUP BY 1, 2 ORDER BY 1");
    let rules = school.lines(client, &rules).await.expect("the links answer");
    assert_eq!(rules, [format!("R3|confirmed|{}", students.len()), format!("R5|confirmed|{former}")]);
}

/// Whose an identifier is, and from when to when, as texts in one order with time.
struct Link {
    person: Option<String>,
    from: String,
    to: Option<String>,
}

/// By whom an identifier is linked to, and whose it is.
type Cell<'a> = (Option<&'a str>, &'a str);

/// All identifiers of everybody, cards and accounts and those of staff too, by pairs: two that are linked to one person are one's
/// (precision), and two that are one's are linked to one person (recall).
async fn links_hold_against_the_truth(client: &tokio_postgres::Client, truth: &Truth) {
    let sql = "SELECT id_type, id_value, person_id, to_char(local_time(valid_from), '%Y-%m-%d %H:%M:%S'), \
        to_char(local_time(valid_to), '%Y-%m-%d %H:%M:%S') FROM identity.identifier_link";
    let rows = client.query(sql, &[]).await.expect("the links answer");
    let mut links: HashMap<(String, String), Vec<Link>> = HashMap::new();
    for row in &rows {
        let link = Link { person: row.get(2), from: row.get(3), to: row.get(4) };
        links.entry((row.get(0), row.get(1))).or_default().push(link);
    }
    let students = truth.students.iter().map(|student| (&student.person, &student.identifiers));
    // How many of each cell, and how many links were met.
    let (mut cells, mut met) = (HashMap::<Cell<'_>, u64>::new(), 0);
    for (person, identifiers) in students.chain(&truth.staff) {
        for of in identifiers {
            let spans = links.get(&(of.id_type.clone(), of.value.to_uppercase())).map_or(&[][..], Vec::as_slice);
            let covers =
                |link: &&Link| link.from <= of.valid_from && link.to.as_ref().is_none_or(|to| of.valid_from < *to);
            let link = spans.iter().find(covers);
            met += usize::from(link.is_some());
            *cells.entry((link.and_then(|link| link.person.as_deref()), person.as_str())).or_default() += 1;
        }
    }
    assert_eq!(met, rows.len(), "a link is of no identifier that anybody has");
    let pairs_by = |of: &dyn Fn(&Cell<'_>) -> Option<String>| {
        let mut sizes: HashMap<String, u64> = HashMap::new();
        for (cell, count) in &cells {
            of(cell).into_iter().for_each(|group| *sizes.entry(group).or_default() += count);
        }
        sizes.values().map(|size| size * (size - 1) / 2).sum::<u64>() as f64
    };
    let linked = pairs_by(&|(linked, _)| linked.map(str::to_string));
    let right = pairs_by(&|(linked, person)| linked.map(|linked| format!("{linked} {person}")));
    let (precision, recall) = (right / linked, right / pairs_by(&|(_, person)| Some(person.to_string())));
    println!("{} identifiers: pairwise precision {precision:.3}, recall {recall:.3}", cells.values().sum::<u64>());
    assert!((precision - 1.0).abs() < f64::EPSILON && recall >= 0.99, "precision {precision}, recall {recall}");
}

async fn merged_and_undone(school: &School, client: &tokio_postgres::Client, numbers: [&str; 2]) {
    let [first, second] = numbers;
    let links = "SELECT id_type, id_value, person_id, valid_from, rule_id, link_status FROM identity.identifier_link ORDER BY 1, 2, 4";
    let before = school.lines(client, links).await.expect("the links answer");

    let merged = document(school, &format!("identity merge {first} {second} --note by-hand --json"));
    assert_eq!((text(&merged, "verdict"), text(&merged, "decided_by")), ("linked", "e2e"));
    let [one, other] = profiles(school, numbers, text(&merged, "watermark")).await;
    assert_eq!(one, other, "one profile by either number");
    let (then, told_then) = (chrono::Utc::now().to_rfc3339(), one.clone());
    let found = one["student_nos"].as_array().expect("numbers").iter().filter_map(Value::as_str);
    assert_eq!(found.collect::<BTreeSet<_>>(), BTreeSet::from(numbers));
    let persons = format!(
        "SELECT COUNT(DISTINCT person_id) FROM academic.enrollment WHERE student_no IN ('{first}', '{second}')"
    );
    assert_eq!(school.lines(client, &persons).await.expect("answers"), ["1"]);
    let decided = document(school, "identity reviews --state decided --json");
    assert_eq!((text(&decided, "kind"), text(&decided["decision"], "note")), ("by_hand", "by-hand"));

    let review = text(&merged, "review_id");
    let undone = document(school, &format!("identity undo {review} --json"));
    let [one, other] = profiles(school, numbers, text(&undone, "watermark")).await;
    assert_ne!(one["person_id"], other["person_id"]);
    assert_eq!((&one["student_nos"], &other["student_nos"]), (&json!([first]), &json!([second])));
    let after = school.lines(client, links).await.expect("the links answer");
    assert_eq!(after, before, "as if it had never been");
    let then = profile_line(second, &format!("--at {then}"));
    assert_eq!(who(&document(school, &then)), told_then, "but for whoever asks what was told meanwhile");
    refusals(school, review, (first, second));
}

/// Nobody but an administrator asks or decides, and what cannot be is said.
fn refusals(school: &School, review: &str, (first, second): (&str, &str)) {
    for line in
        ["reviews".to_string(), "history".to_string(), format!("merge {first} {second}"), format!("undo {review}")]
    {
        let (code, said) = quad(school, Some(ANALYST_TOKEN), &format!("identity {line}"));
        assert!(code == Some(1) && said.contains("role analyst may not"), "{line}: {said}");
    }
    for (line, words) in [
        (format!("merge {first} 19990001"), "no student has one of these numbers"),
        (format!("merge {first} {first}"), "the same use of one number"),
        (format!("undo {review}"), "no decision of this question is in force"),
        ("confirm nothing".to_string(), "there is no such question"),
    ] {
        let (code, said) = quad(school, None, &format!("identity {line}"));
        assert!(code == Some(1) && said.contains(words), "{line}: {said}");
    }
    let (code, said) = quad(school, None, &format!("identity history --number {first} --json"));
    let verdicts: Vec<Value> = said
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .map(|decision| json!([decision["verdict"], decision["is_revoked"]]))
        .collect();
    assert_eq!((code, verdicts), (Some(0), vec![json!(["revoked", false]), json!(["linked", true])]), "{said}");
    let body = "{\"review_id\":\"x\"}";
    for token in [ANALYST_TOKEN, "wrong"] {
        let url = format!("http://127.0.0.1:{}/v1/identity/decisions", school.http);
        let header = format!("Authorization: Bearer {token}");
        let arguments = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", &header, "-d", body, &url];
        let output = std::process::Command::new("curl").args(arguments).output().expect("curl runs");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "401");
    }
}
