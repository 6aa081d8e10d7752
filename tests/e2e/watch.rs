//! What a running Quad says of itself: metrics that are true, that the documents explain, and that dashboards can use.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use campus::live::Stage;
use campus::truth;

use crate::promql;
use crate::school::{School, TOKEN, free_port, wait_until_later};

/// One metric as the page shows it.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
    /// Labels as `name=value`, and the value; of a histogram, its counts.
    samples: Vec<(BTreeMap<String, String>, f64)>,
}

impl Family {
    /// The sum over the samples whose labels hold all of `wanted`.
    fn sum(&self, wanted: &[(&str, &str)]) -> f64 {
        let fits = |labels: &BTreeMap<String, String>| {
            wanted.iter().all(|(name, value)| labels.get(*name).is_some_and(|found| found == value))
        };
        self.samples.iter().filter(|(labels, _)| fits(labels)).map(|(_, value)| value).sum()
    }

    fn has(&self, wanted: &[(&str, &str)]) -> bool {
        !self.samples.is_empty()
            && wanted.iter().all(|(name, value)| {
                self.samples.iter().any(|(labels, _)| labels.get(*name).is_some_and(|found| found == value))
            })
    }
}

/// The metrics of a page of Prometheus's text format.
fn families(page: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for line in page.lines().filter(|line| !line.is_empty()) {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            families.entry(name.to_string()).or_default().help = help.to_string();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            families.entry(name.to_string()).or_default().kind = kind.to_string();
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels: BTreeMap<String, String> = labels
                .trim_end_matches('}')
                .split_terminator(',')
                .filter_map(|pair| pair.split_once('='))
                .map(|(label, value)| (label.to_string(), value.trim_matches('"').to_string()))
                .filter(|(label, _)| label != "le")
                .collect();
            let part = ["_bucket", "_sum", "_count"]
                .iter()
                .find(|part| name.ends_with(**part) && !families.contains_key(name));
            let family =
                families.get_mut(part.map_or(name, |part| name.trim_end_matches(*part))).expect("a declared metric");
            family.labels.extend(labels.keys().cloned());
            if part.is_none_or(|part| *part == "_count") {
                family.samples.push((labels, value.parse().expect("a number")));
            }
        }
    }
    families
}

/// A school whose history has arrived, and which was asked by every door, rightly and wrongly.
async fn asked() -> (School, BTreeMap<String, Family>) {
    let mut school = School::new(5, 60, None);
    school.start("up");
    let client = school.client().await;
    // Off the async runtime, since the gates' client blocks.
    let push_all = || {
        let mut stage = Stage::open(&school.databases, school.pusher()).expect("the sources answer");
        school.campus.history_pushes().for_each(|push| stage.push(&push).expect("the push is taken"));
    };
    std::thread::scope(|scope| scope.spawn(push_all).join().expect("the history is pushed"));
    let truth = school.campus.truth(truth::Stage::Filled);
    school.eventually_agrees(&client, &truth).await;
    eventually_has_profile(&school, &truth.students[0].student_no).await;
    assert_eq!(school.output(&["sql", "SELECT * FROM academic.course LIMIT 3"]).status.code(), Some(0));
    assert_eq!(school.output(&["sql", "SELECT * FROM academic.corse"]).status.code(), Some(1));
    assert!(school.lines(&client, "SELECT nothing FROM academic.grade").await.is_err());
    assert!(
        school.quad(&["profile", "1"]).env("QUAD_TOKEN", "wrong").output().expect("quad runs").status.code() == Some(1)
    );
    let mut http = campus::http::Http::new(&format!("127.0.0.1:{}", school.http));
    let (status, _) = http.post_json("/v1/push/nobody/nothing", TOKEN, "{}").await.expect("an answer");
    assert_eq!(status.as_u16(), 401);
    eventually_caught_up(&school).await;
    let (status, page) = school.page("up", "/metrics").await;
    assert_eq!(status, 200);
    (school, families(&page))
}

async fn eventually_has_profile(school: &School, student_no: &str) {
    let deadline = Instant::now() + Duration::from_secs(240);
    while school.output(&["profile", student_no]).status.code() != Some(0) {
        assert!(Instant::now() < deadline, "no profile\n{}", school.log("up"));
        wait_until_later().await;
    }
}

/// Waits until the process calls itself ready, with nothing left in the log that the lake has not.
async fn eventually_caught_up(school: &School) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let (status, text) = school.page("up", "/health/ready").await;
        let health: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let (_, page) = school.page("up", "/metrics").await;
        let lag = families(&page).remove("quad_lag_records").map(|lag| lag.sum(&[]));
        if (status, lag) == (200, Some(0.0)) {
            let land = &health["parts"]["land"];
            assert_eq!((&health["ready"], &land["ready"]), (&true.into(), &true.into()), "{text}");
            assert!(land["last_commit_age_s"].is_number(), "{text}");
            assert!(health["parts"]["query"]["snapshot"].as_u64() > Some(0), "{text}");
            assert_eq!(health["parts"]["extract"]["tables"], 28, "{text}");
            return;
        }
        assert!(Instant::now() < deadline, "not ready: {text}, lag {lag:?}");
        wait_until_later().await;
    }
}

/// Rule 37: every source reports lag, dead letters and freshness.
fn every_source_table_reports(school: &School, page: &BTreeMap<String, Family>) {
    let output = school.output(&["sources", "--json"]);
    let sources: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let sources = sources.as_object().expect("a map");
    assert_eq!(sources.len(), 28);
    for (name, status) in sources {
        let (source, table) = name.split_once('/').expect("source/table");
        let labels = [("source", source), ("table", table)];
        for (metric, key) in
            [("quad_extracted_records_total", "records"), ("quad_extracted_letters_total", "dead_letters")]
        {
            assert!(page[metric].has(&labels), "{name} does not report {metric}");
            assert_eq!(page[metric].sum(&labels), status[key].as_f64().expect("a count"), "{metric} of {name}");
        }
        for metric in ["quad_cursor_age_seconds", "quad_freshness_seconds", "quad_freshness_limit_seconds"] {
            assert!(page[metric].has(&labels), "{name} does not report {metric}");
        }
        assert!(page["quad_cursor_age_seconds"].sum(&labels) < 300.0, "{name} was pulled or pushed just now");
        let lag = [("table", status["contract"].as_str().expect("a contract"))];
        assert!(
            page["quad_lag_records"].has(&lag) && page["quad_commit_age_seconds"].has(&lag),
            "{name} reports no lag"
        );
    }
    // Yesterday's campus: its newest pass is hours old, never days.
    let gate = [("source", "gates"), ("table", "access_event")];
    let freshness = page["quad_freshness_seconds"].sum(&gate);
    assert!((0.0..9.0 * 86_400.0).contains(&freshness), "freshness of the gates is {freshness} s");
    assert!(page["quad_push_requests_total"].sum(&[("source", "gates"), ("status", "200")]) > 0.0);
    assert_eq!(page["quad_push_requests_total"].sum(&[("source", ""), ("status", "401")]), 1.0);
}

/// The lake's own counts are the metrics'.
async fn landing_adds_up(school: &School, page: &BTreeMap<String, Family>) {
    let client = school.client().await;
    let mut letters = 0.0;
    for (table, truth) in &school.campus.truth(truth::Stage::Filled).tables {
        let rows =
            school.lines(&client, &format!("SELECT COUNT(*) FROM {table}_history")).await.expect("the lake answers");
        let landed = page["quad_landed_rows_total"].sum(&[("table", table)]);
        assert_eq!(vec![landed.to_string()], rows, "rows of {table}");
        assert!(landed == 0.0 || page["quad_landed_bytes_total"].sum(&[("table", table)]) > 0.0, "bytes of {table}");
        assert_eq!(
            page["quad_dead_letters_total"].sum(&[("table", table)]),
            truth.dead_letters as f64,
            "letters of {table}"
        );
        letters += truth.dead_letters as f64;
    }
    assert_eq!(page["quad_landed_rows_total"].sum(&[("table", "platform.dead_letter")]), letters);
    let commits = page["quad_landed_commits_total"].sum(&[]);
    assert!(commits > 0.0 && commits == page["quad_commit_seconds"].sum(&[]), "each of {commits} commits was timed");
}

fn requests_are_counted(page: &BTreeMap<String, Family>) {
    let requests =
        |door: &str, outcome: &str| page["quad_query_requests_total"].sum(&[("door", door), ("outcome", outcome)]);
    assert_eq!((requests("flight_sql", "ok"), requests("flight_sql", "undefined_table")), (1.0, 1.0));
    assert_eq!((requests("get_profile", "ok"), requests("get_profile", "unauthenticated")), (1.0, 1.0));
    assert_eq!(requests("postgres", "undefined_column"), 1.0);
    assert!(requests("postgres", "ok") > 0.0);
    assert_eq!(page["quad_query_rows_total"].sum(&[("door", "flight_sql")]), 3.0);
    assert!(page["quad_computed_profiles"].sum(&[]) >= 60.0);
    assert!(page["quad_memory_resident_bytes"].sum(&[]) > 10e6);
}

/// Rule 25, and the dashboard's: what is written of metrics is what a running Quad tells.
fn what_is_written_exists(page: &BTreeMap<String, Family>) {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).expect("the file is there");
    let document = read("docs/observability.md");
    let rows = document.lines().filter(|line| line.starts_with("| `quad_") && line.matches('|').count() == 5);
    let written: BTreeSet<String> = rows.map(ToString::to_string).collect();
    let told = page.iter().filter(|(name, _)| name.starts_with("quad_")).map(|(name, family)| {
        let labels: Vec<_> = label_order(&family.labels);
        format!("| `{name}` | {} | {} | {} |", family.kind, labels.join(", "), family.help)
    });
    let told: BTreeSet<String> = told.collect();
    let differences: Vec<_> = written.symmetric_difference(&told).collect();
    assert!(differences.is_empty(), "docs/observability.md and the page differ in:\n{differences:#?}");

    let mut labels: BTreeSet<&str> = page.values().flat_map(|family| &family.labels).map(String::as_str).collect();
    labels.extend(["le", "job", "instance"]);
    for path in promql::FILES {
        for expression in promql::expressions(&read(path)) {
            let names = promql::names(&expression);
            for metric in &names.metrics {
                let is_part = |part: &str| {
                    let family = metric.strip_suffix(part).and_then(|name| page.get(name));
                    family.is_some_and(|family| family.kind == "histogram")
                };
                let is_told = page.get(metric).is_some_and(|family| family.kind != "histogram");
                let is_known = is_told || metric == "up" || ["_bucket", "_sum", "_count"].into_iter().any(is_part);
                assert!(is_known, "{path}: {metric} is not told: {expression}");
            }
            let unknown: Vec<_> = names.labels.iter().filter(|label| !labels.contains(label.as_str())).collect();
            assert!(unknown.is_empty(), "{path}: no metric has the labels {unknown:?}: {expression}");
        }
    }
}

/// The order in which documents write labels.
fn label_order(labels: &BTreeSet<String>) -> Vec<&str> {
    const ORDER: [&str; 10] =
        ["door", "outcome", "stage", "source", "table", "partition", "rule", "status", "kind", "version"];
    let known: Vec<_> = ORDER.into_iter().filter(|label| labels.contains(*label)).collect();
    assert_eq!(known.len(), labels.len(), "a new label: {labels:?}");
    known
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_quad_tells_what_is_true_and_what_is_written() {
    let (mut school, page) = asked().await;
    every_source_table_reports(&school, &page);
    landing_adds_up(&school, &page).await;
    requests_are_counted(&page);
    what_is_written_exists(&page);
    assert_eq!(school.page("up", "/health/live").await.0, 200);
    assert_eq!(school.stop("up"), Some(0), "a stop is graceful");
}

#[test]
fn a_page_whose_port_is_taken_exits_64_and_names_the_key() {
    let school = School::new(1, 50, None);
    let port = free_port();
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port)).expect("a free port");
    let mut command = school.quad(&["up"]);
    let output = command.env("QUAD_OBSERVE__HTTP_LISTEN", format!("127.0.0.1:{port}")).output().expect("quad starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("observe.http_listen"), "{said}");
}
