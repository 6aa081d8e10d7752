//! The hard cases: what happens to students, as it comes in, and what their profiles say of it.
//!
//! `tests/flows/profile/*.flow` enter. A line `-- …` does something or asks; what follows it up to an empty line belongs to it:
//!
//! | line | what follows |
//! |---|---|
//! | `-- at TIME`: the clock shows TIME, earlier or later than before | |
//! | `-- rows TABLE (COLUMN, …)`: records come, changed and received now unless they say otherwise | `VALUES` of SQL |
//! | `-- term YEAR NUMBER FIRST LAST`: the days of a term, school from Monday to Friday | |
//! | `-- replay`: everything comes again as it came, behind all that is there | |
//! | `-- profile STUDENT_NO ITEM …`: items, by an id or its beginning | value, `@` its time, state |
//! | `-- changed`: whose profile has another version than at the computation before | a student number a line |
//! | `-- list FILTER VALUE`: ListProfiles of the profile service by class, college, building or counselor | a student number a line |
//! | `-- sql QUESTION`: an analyst asks | the answer |
//!
//! Answers are renewed by `UPDATE_EXPECT=1 cargo test -p quad -p query --lib flows`, to be read before they are committed. Lines that
//! begin with `#` are for people. Profiles are computed when something is asked after time has passed or records have come: on
//! from those before, as a running Quad does, and in the end once more from nothing, which must give the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, FixedOffset, NaiveDate};
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use expect_test::expect_file;
use proto::profile::v1::ListProfilesRequest;
use schemas::Sensitive;

use super::incremental::differences;
use super::sections::calendar_day;
use super::{computer, text};
use crate::api::profiles::ProfilesApi;
use crate::api::tests::{access, listed};
use crate::engine::Engine;
use crate::fixture::{self, Arrival, KEY, ask, contracts};
use crate::profile::moments::Moments;
use crate::profile::packed::Packed;
use crate::profile::{Live, Person, Profiles, Store};
use crate::settings::Settings;
use crate::source::Source;

const HERE: &str = env!("CARGO_MANIFEST_DIR");

#[tokio::test(flavor = "multi_thread")]
async fn every_flow_gives_what_it_says() {
    let folder = Path::new(HERE).join("../tests/flows/profile");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10, "there are ten hard cases: {files:?}");
    let played: Vec<_> = files.into_iter().map(|file| tokio::spawn(async move { (play(&file).await, file) })).collect();
    for flow in played {
        let (text, file) = flow.await.expect("the message above names the flow");
        expect_file![file].assert_eq(&text);
    }
}

/// A flow with the answers that are given.
async fn play(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let mut school = School::new().await;
    let mut out = String::new();
    let mut lines = text.lines().zip(1..).peekable();
    while let Some((line, number)) = lines.next() {
        writeln!(out, "{line}").unwrap();
        let Some(said) = line.strip_prefix("-- ") else { continue };
        let mut body = String::new();
        while let Some((line, _)) = lines.next_if(|(line, _)| !line.is_empty() && !line.starts_with("-- ")) {
            writeln!(body, "{line}").unwrap();
        }
        school.place = format!("{name}, line {number}");
        out += &school.step(said, &body).await.unwrap_or(body);
    }
    school.check().await;
    out
}

/// A Quad without sources, log and lake: records come by hand, and its clock is set.
struct School {
    engine: Arc<Engine>,
    store: Arc<Store>,
    live: Arc<Live>,
    api: ProfilesApi,
    now: DateTime<FixedOffset>,
    /// By table, all that has come, and the version that it makes.
    tables: BTreeMap<String, (u64, Vec<RecordBatch>)>,
    /// Tables that something has come to since profiles were computed.
    new: Vec<String>,
    computed_at: Option<DateTime<FixedOffset>>,
    before: Option<Arc<Profiles>>,
    /// For messages: the flow and the line that is played.
    place: String,
}

impl School {
    async fn new() -> Self {
        let settings = Settings { profile_dir: Path::new(HERE).join("profile"), ..Settings::default() };
        let store = Arc::new(Store::default());
        let engine = Arc::new(Engine::new(&settings, contracts()).await.unwrap().with_profiles(store.clone()));
        let live = Arc::new(Live::new(&settings, &engine, &store).await.unwrap());
        let moments = Arc::new(Moments::new(engine.clone(), live.clone(), Sensitive::new(KEY.to_vec())));
        let api = ProfilesApi::new(engine.clone(), Arc::new(access()), store.clone(), live.clone(), moments);
        let (tables, new, before, computed_at) = (BTreeMap::new(), Vec::new(), None, None);
        let (now, place) = (DateTime::UNIX_EPOCH.fixed_offset(), String::new());
        Self { engine, store, live, api, now, tables, new, computed_at, before, place }
    }

    /// Does what a line says; what it asks is answered.
    async fn step(&mut self, said: &str, body: &str) -> Option<String> {
        let (verb, rest) = said.split_once(' ').unwrap_or((said, ""));
        match verb {
            "at" => {
                self.now = DateTime::parse_from_rfc3339(rest).unwrap_or_else(|error| panic!("{}: {error}", self.place));
                return None;
            }
            "rows" => self.receive(rest, body).await,
            "term" => self.term(rest).await,
            "replay" => self.replay(),
            "profile" => return Some(self.profile(rest).await),
            "changed" => return Some(self.changed().await),
            "list" => return Some(self.list(rest).await),
            "sql" => {
                self.compute().await;
                let answer = ask(&self.engine, rest).await;
                return Some(answer.unwrap_or_else(|error| panic!("{}: {}", self.place, error.text())) + "\n");
            }
            _ => panic!("{}: `-- {verb}` is no line of a flow, see profile/tests/flows.rs", self.place),
        }
        None
    }

    /// Records of `table (columns)`.
    async fn receive(&mut self, what: &str, values: &str) {
        let told = what.trim_end_matches(')').split_once('(');
        let (table, columns) = told.unwrap_or_else(|| panic!("{}: `-- rows TABLE (COLUMN, …)`", self.place));
        let contract = contracts().get(table.trim()).cloned();
        let contract = contract.unwrap_or_else(|| panic!("{}: there is no table {table}", self.place));
        let (version, batches) = self.tables.entry(contract.name()).or_default();
        let now = self.now.to_rfc3339();
        let offset = batches.iter().map(RecordBatch::num_rows).sum();
        let arrival = Arrival { offset, changed_at: &now, received_at: &now };
        batches.extend(fixture::rows(&contract, columns, values, &arrival).await);
        *version += 1;
        self.new.push(contract.name());
    }

    /// The days of `year number first last`.
    async fn term(&mut self, what: &str) {
        let parts: Vec<&str> = what.split(' ').collect();
        let [year, number, first, last] = parts[..] else {
            panic!("{}: `-- term 2026-2027 1 2026-08-31 2027-01-15`", self.place)
        };
        let day =
            |text: &str| text.parse::<NaiveDate>().unwrap_or_else(|error| panic!("{}: {text}: {error}", self.place));
        let (first, last, term) = (day(first), day(last), format!("'{year}', {number}"));
        let days = first.iter_days().take_while(|day| *day <= last);
        let days: Vec<_> = days.map(|day| calendar_day(day, first, &term, false, false)).collect();
        let columns = "biz_date, academic_year, term_no, teaching_week, is_teaching_day, curfew_minute";
        self.receive(&format!("extension.calendar_day ({columns})"), &days.join(",\n")).await;
    }

    fn replay(&mut self) {
        for (table, (version, batches)) in &mut self.tables {
            let behind: usize = batches.iter().map(RecordBatch::num_rows).sum();
            let again: Vec<_> = batches.iter().map(|batch| moved(batch, i64::try_from(behind).unwrap())).collect();
            batches.extend(again);
            *version += 1;
            self.new.push(table.clone());
        }
    }

    /// The profiles of now.
    async fn compute(&mut self) -> Arc<Profiles> {
        if self.new.is_empty() && self.computed_at == Some(self.now) {
            return self.store.newest().unwrap();
        }
        let mut versions = Vec::new();
        for table in std::mem::take(&mut self.new) {
            let (version, batches) = &self.tables[&table];
            let rows = fixture::version(contracts().get(&table).unwrap(), *version, batches.clone());
            versions.push((table, rows));
        }
        self.engine.refresh(&Source::memory(versions), KEY).await.unwrap();
        let (snapshot, now) = (self.engine.pin().snapshot.clone(), self.now.timestamp_micros());
        self.before = self.store.get();
        let profiles = self.live.follow(snapshot, now).await.unwrap();
        self.computed_at = Some(self.now);
        profiles
    }

    /// Whatever they have followed, the profiles are those computed from nothing.
    async fn check(&mut self) {
        let profiles = self.compute().await;
        let anew = computer().await.compute(profiles.snapshot.clone(), profiles.computed_at).await.unwrap();
        assert_eq!(differences(&profiles, &anew), [""; 0], "{}: computed on, and computed from nothing", self.place);
    }

    async fn profile(&mut self, what: &str) -> String {
        let profiles = self.compute().await;
        let (student_no, ids) = what.split_once(' ').unwrap_or((what, ""));
        let Some(person) = profiles.by_student_no(student_no) else { return "no profile\n".to_string() };
        let mut out = String::new();
        for (item, given) in profiles.items.iter().zip(person.items.iter().map(Packed::unpack)) {
            if ids.split(' ').any(|id| item.id.starts_with(id)) {
                let value = given.value.as_ref().map(|value| format!(" = {}", text(value))).unwrap_or_default();
                let at = given.as_of.and_then(DateTime::from_timestamp_micros);
                let at = at.map(|at| at.with_timezone(self.now.offset()).format(" @ %Y-%m-%dT%H:%M%:z").to_string());
                let state = format!("{:?}", given.state).to_lowercase();
                writeln!(out, "{} {}{value}{} {state}", item.id, item.name, at.unwrap_or_default()).unwrap();
            }
        }
        assert!(!out.is_empty(), "{}: there is no item `{ids}`", self.place);
        out
    }

    async fn changed(&mut self) -> String {
        let profiles = self.compute().await;
        let before = |id: &str| self.before.as_ref().and_then(|before| before.by_id(id));
        let is_new = |person: &&Arc<Person>| before(&person.id).is_none_or(|before| before.version != person.version);
        let mut lines: Vec<_> =
            profiles.persons.iter().filter(is_new).map(|person| person.student_nos[0].to_string()).collect();
        let left = self.before.iter().flat_map(|before| &before.persons);
        let left = left.filter(|person| profiles.by_id(&person.id).is_none());
        lines.extend(left.map(|person| format!("{} has left", person.student_nos[0])));
        listing(lines)
    }

    async fn list(&mut self, what: &str) -> String {
        self.compute().await;
        let (filter, value) = what.split_once(' ').unwrap_or((what, ""));
        let mut request = ListProfilesRequest::default();
        let field = match filter {
            "class" => &mut request.class_id,
            "college" => &mut request.college_id,
            "building" => &mut request.building_id,
            "counselor" => &mut request.counselor_staff_no,
            _ => panic!("{}: a list is by class, college, building or counselor", self.place),
        };
        *field = value.to_string();
        listing(listed(&self.api, request).await)
    }
}

/// A line each.
fn listing(mut lines: Vec<String>) -> String {
    lines.sort();
    if lines.is_empty() { "nobody\n".to_string() } else { lines.join("\n") + "\n" }
}

/// The same records at later offsets.
fn moved(batch: &RecordBatch, by: i64) -> RecordBatch {
    let place = batch.schema().index_of("kafka_offset").unwrap();
    let mut columns = batch.columns().to_vec();
    columns[place] = Arc::new(columns[place].as_primitive::<Int64Type>().unary::<_, Int64Type>(|offset| offset + by));
    RecordBatch::try_new(batch.schema(), columns).unwrap()
}
