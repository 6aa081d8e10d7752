//! Dead letters from the first listing to the last mark, by the command line, as an administrator would.

use std::path::Path;
use std::process::Output;

use campus::truth::Stage;
use serde_json::Value;

use crate::school::{ANALYST_TOKEN, School};

/// A school with contracts of its own, in which `from` is replaced by `to` for courses.
fn school(from: &str, to: &str) -> School {
    let school = School::new(11, 60, None);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let schemas = school.folder.path().join("schemas");
    let copied = std::process::Command::new("cp").arg("-r").arg(root.join("schemas")).arg(&schemas).status();
    assert!(copied.expect("cp runs").success());
    let text = std::fs::read_to_string(school.settings()).expect("settings");
    let (before, now) = (format!("{}/schemas", root.display()), schemas.display().to_string());
    std::fs::write(school.settings(), text.replace(&before, &now)).expect("writes");
    change(&school, from, to);
    school
}

fn change(school: &School, from: &str, to: &str) {
    let file = school.folder.path().join("schemas/contracts/academic/course.odcs.yaml");
    let text = std::fs::read_to_string(&file).expect("the contract");
    assert!(text.contains(from), "{from} is not in the contract");
    std::fs::write(&file, text.replace(from, to)).expect("writes");
}

/// `quad dead-letters` with `line`, its exit code and what it printed.
fn letters(school: &School, token: Option<&str>, line: &str) -> (Option<i32>, String) {
    let mut command = school.quad(&["dead-letters"]);
    command.args(line.split_whitespace()).env("QUAD_EXTRACT", format!("127.0.0.1:{}", school.http));
    if let Some(token) = token {
        command.env("QUAD_TOKEN", token);
    }
    let Output { status, stdout, stderr } = command.output().expect("quad runs");
    (status.code(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

/// One field of each JSON line.
fn field(said: &str, name: &str) -> Vec<String> {
    let lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.map(|line| line[name].as_str().map_or(line[name].to_string(), str::to_string)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_listed_discarded_mended_and_replayed_once() {
    let mut school = school("maximum: 1000", "maximum: 60");
    school.start("up");
    let client = school.client().await;
    let truth = school.campus.truth(Stage::Filled);
    let courses = &truth.tables["academic.course"];
    let (courses, all_courses) = (courses.current, courses.current + courses.dead_letters);
    let grades = truth.tables["academic.grade"].dead_letters;
    assert!(grades > 0, "the campus has bad grades");
    let all = "(SELECT COUNT(*) FROM academic.course) + \
               (SELECT COUNT(*) FROM platform.dead_letter WHERE target = 'academic.course')";
    school.eventually(&client, &format!("SELECT {all}"), &all_courses.to_string()).await;
    let bad_grades = "SELECT COUNT(*) FROM platform.dead_letter WHERE target = 'academic.grade'";
    school.eventually(&client, bad_grades, &grades.to_string()).await;

    let (code, said) =
        letters(&school, None, "list --rule range --field hours_total --table academic.course --limit 9999 --json");
    assert_eq!(code, Some(0), "{said}");
    let ids = field(&said, "letter_id");
    assert!(ids.len() > 1 && ids.len() < courses as usize, "some courses are long: {said}");
    let (code, said) =
        letters(&school, None, "list --summary --rule range --field hours_total --table academic.course --json");
    assert_eq!((code, field(&said, "letters")), (Some(0), vec![ids.len().to_string()]));
    let (code, said) = letters(&school, None, &format!("show {} --json", ids[0]));
    assert!(code == Some(0) && said.contains("ZXS"), "{said}");

    refusals(&school, &ids[0]);
    let (code, said) = letters(&school, None, "replay --table academic.grade --json");
    assert_eq!(code, Some(1), "{said}");
    assert!(field(&said, "verdict").iter().all(|verdict| verdict == "impossible"), "{said}");
    assert!(said.contains("FSLKSCJ") && said.contains("mend the row at its source"), "{said}");
    let (code, said) = letters(&school, None, "replay --rule range --field hours_total --table academic.course --json");
    assert_eq!(code, Some(1));
    assert_eq!(field(&said, "verdict"), vec!["rejected"; ids.len()], "nothing was mended: {said}");

    let (code, said) = letters(&school, None, &format!("discard {} --reason too-long-ago", ids[0]));
    assert!(code == Some(0) && said.contains("discarded"), "{said}");
    let discarded = format!("SELECT state, resolved_by, note FROM platform.dead_letter WHERE letter_id = '{}'", ids[0]);
    school.eventually(&client, &discarded, "discarded|e2e|too-long-ago").await;

    change(&school, "maximum: 60", "maximum: 1000");
    assert_eq!(school.stop("up"), Some(0));
    // The source is away, so that it is the replay that brings the rows, and no pull.
    let database = school.folder.path().join("academic.db");
    std::fs::rename(&database, database.with_extension("away")).expect("moves");
    school.start("up");
    let client = school.client().await;
    mended(&school, &client, courses as usize, &ids).await;
}

/// Nobody but an administrator sees or changes anything, and nothing is changed by an unclear question.
fn refusals(school: &School, letter_id: &str) {
    for line in ["list".to_string(), format!("show {letter_id}"), format!("replay {letter_id}")] {
        let (code, said) = letters(school, Some(ANALYST_TOKEN), &line);
        assert!(code == Some(1) && said.contains("permission denied") && !said.contains("ZXS"), "{line}: {said}");
    }
    for path in ["replay", "discard"] {
        for token in [ANALYST_TOKEN, "wrong"] {
            let url = format!("http://127.0.0.1:{}/v1/dead-letters/{path}", school.http);
            let header = format!("Authorization: Bearer {token}");
            let arguments =
                ["-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", &header, "-d", "{\"letters\":[]}", &url];
            let output = std::process::Command::new("curl").args(arguments).output().expect("curl runs");
            assert_eq!(String::from_utf8_lossy(&output.stdout), "401", "{path}");
        }
    }
    for line in ["replay", "discard --reason x", "discard --all", "list --since never"] {
        assert_eq!(letters(school, None, line).0, Some(64), "{line}");
    }
}

/// After the contract was mended: what passes is replayed once, whatever is repeated.
async fn mended(school: &School, client: &tokio_postgres::Client, courses: usize, ids: &[String]) {
    let replayed = ids.len() - 1;
    let history = "SELECT COUNT(*) FROM academic.course_history";
    let replay = "replay --rule range --field hours_total --table academic.course --json";
    let open = "SELECT COUNT(*) FROM platform.dead_letter WHERE field = 'hours_total' AND state IS NULL";
    school.eventually(client, open, &replayed.to_string()).await;
    let before = school.lines(client, history).await.expect("answers");
    let (code, said) = letters(school, None, &format!("{replay} --dry-run"));
    assert_eq!((code, field(&said, "note")), (Some(0), vec!["passes now".to_string(); replayed]), "{said}");
    let (code, said) = letters(school, None, replay);
    assert_eq!((code, field(&said, "note")), (Some(0), vec!["replayed".to_string(); replayed]), "{said}");
    school.eventually(client, "SELECT COUNT(*) FROM academic.course", &(courses - 1).to_string()).await;
    school.eventually(client, open, "0").await;
    let mine = "SELECT COUNT(*) FROM platform.dead_letter WHERE state = 'resolved' AND resolved_by = 'e2e'";
    school.eventually(client, mine, &replayed.to_string()).await;

    let (code, said) = letters(school, None, replay);
    assert!(code == Some(0) && said.is_empty(), "nothing is left to replay: {said}");
    // As after a crash between the append and the mark: the letters are replayed although they were.
    let (code, said) = letters(school, None, &format!("{replay} --state resolved"));
    assert_eq!((code, field(&said, "note")), (Some(0), vec!["was in the log already".to_string(); replayed]));
    let marks = "SELECT COUNT(*) FROM platform.dead_letter_history WHERE state = 'resolved'";
    school.eventually(client, marks, &(2 * replayed).to_string()).await;
    let after = school.lines(client, history).await.expect("answers");
    let number = |lines: &[String]| lines[0].parse::<usize>().expect("a count");
    assert_eq!(number(&after), number(&before) + replayed, "each row landed once");
}
