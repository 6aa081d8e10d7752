//! Profiles of past moments: what was told then is told again, whatever came since.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};
use expect_test::expect;
use futures::future::join_all;
use proto::profile::server::profile_service_server::ProfileService as _;
use proto::profile::v1::{
    BatchGetProfilesRequest, BatchGetProfilesResponse, GetProfileRequest, GetProfileResponse, Item, Profile, Purpose,
    profile_result,
};
use schemas::Sensitive;
use tonic::{Code, Status};

use super::{access, key, mask, received, with};
use crate::api::profiles::{ProfilesApi, convert};
use crate::engine::Engine;
use crate::fixture::{KEY, contracts, table};
use crate::profile::{Live, Moments, Store};
use crate::settings::Settings;
use crate::source::Source;

/// Tables, and the columns that their rows give beside the time they were received at.
const TABLES: [(&str, &str); 6] = [
    ("student_affairs.student_base", "student_no, name, college_id, in_school, src_updated_at, op"),
    ("academic.enrollment", "student_no, study_kind, college_id, enrol_month, status_code, valid_from"),
    (
        "academic.grade",
        "student_no, course_no, academic_year, term_no, exam_nature, attempt_no, score, passed, credits, credits_earned, \
         grade_point, posted_at, is_valid, src_updated_at, op",
    ),
    (
        "access_control.access_event",
        "device_id, door_no, event_serial, event_time, access_person_no, card_physical_no, direction, direction_source, \
         result, place_kind, building_id",
    ),
    (
        "identity.card",
        "card_no, card_seq, card_physical_no, person_no, card_kind, card_status, opened_at, src_updated_at",
    ),
    (
        "identity.match_review",
        "review_id, raised_at, kind, id_type, id_value, other_value, decision, revokes, decision_id, decided_by, decided_at",
    ),
];

/// What is received, step by step: when, and which rows of which tables.
const STEPS: [(&str, &[(&str, &str)]); 6] = [
    (
        "2025-03-03T01:00:00Z",
        &[
            ("student_affairs.student_base", "'20240001', '张三', 'C01', true, '2025-03-01T00:00:00Z', 'I'"),
            ("student_affairs.student_base", "'20240002', '李四', 'C02', true, '2025-03-01T00:00:00Z', 'I'"),
            ("academic.enrollment", "'20240001', 'major', 'C01', '202409', '01', '2024-09-01'"),
            ("academic.enrollment", "'20240002', 'major', 'C02', '202409', '01', '2024-09-01'"),
            (
                "academic.grade",
                "'20240001', 'MA1', '2024-2025', 1, '01', 1, 55, false, 5, 0, 0, '2025-01-20T01:00:00Z', true, '2025-01-20T01:00:00Z', 'I'",
            ),
            // A card that nobody knows yet.
            (
                "access_control.access_event",
                "'D1', 1, 1, '2025-03-02T12:00:00Z', '0', '0A0B0C01', 'in', 'device', 'granted', 'dorm_gate', 'B1'",
            ),
        ],
    ),
    // A correction, and something new.
    (
        "2025-03-04T01:00:00Z",
        &[
            (
                "academic.grade",
                "'20240001', 'MA1', '2024-2025', 1, '01', 1, 60, true, 5, 5, 1, '2025-01-20T01:00:00Z', true, '2025-03-03T02:00:00Z', 'U'",
            ),
            (
                "academic.grade",
                "'20240001', 'PE1', '2024-2025', 1, '01', 1, 90, true, 1, 1, 4, '2025-01-20T01:00:00Z', true, '2025-03-03T02:00:00Z', 'I'",
            ),
        ],
    ),
    // A delete, and the card of the first step.
    (
        "2025-03-05T01:00:00Z",
        &[
            (
                "academic.grade",
                "'20240001', 'PE1', '2024-2025', 1, '01', 1, 90, true, 1, 1, 4, '2025-01-20T01:00:00Z', true, '2025-03-04T02:00:00Z', 'D'",
            ),
            (
                "identity.card",
                "'900001', '1', '0A0B0C01', '20240001', 'formal', 'normal', '2024-09-01T00:00:00Z', '2024-09-01T00:00:00Z'",
            ),
        ],
    ),
    // Somebody decides that the two are one, and thinks better of it.
    (
        "2025-03-06T01:00:00Z",
        &[(
            "identity.match_review",
            "'r1', '2025-03-06T00:30:00Z', 'by_hand', 'student_no', '20240001', '20240002', 'linked', NULL, 'd1', 'root', '2025-03-06T00:30:00Z'",
        )],
    ),
    (
        "2025-03-07T01:00:00Z",
        &[
            (
                "identity.match_review",
                "'r1', '2025-03-06T00:30:00Z', 'by_hand', 'student_no', '20240001', '20240002', 'open', 'd1', 'd2', 'root', '2025-03-07T00:30:00Z'",
            ),
            ("student_affairs.student_base", "'20240003', '王五', 'C02', true, '2025-03-06T00:00:00Z', 'I'"),
        ],
    ),
    (
        "2025-03-08T01:00:00Z",
        &[("student_affairs.student_base", "'20240003', NULL, NULL, NULL, '2025-03-07T00:00:00Z', 'D'")],
    ),
];

const NUMBERS: [&str; 3] = ["20240001", "20240002", "20240003"];

fn micros(text: &str) -> i64 {
    DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
}

/// A service, and the rows received so far: table, row, and when.
struct School {
    engine: Arc<Engine>,
    live: Arc<Live>,
    api: ProfilesApi,
    rows: Vec<(&'static str, String, String)>,
}

impl School {
    async fn new() -> Self {
        let profile_dir = concat!(env!("CARGO_MANIFEST_DIR"), "/profile").into();
        let settings = Settings { profile_dir, ..Settings::default() };
        let store = Arc::new(Store::default());
        let engine = Engine::new(&settings, contracts()).await.unwrap().with_profiles(store.clone());
        let engine = Arc::new(engine);
        let live = Arc::new(Live::new(&settings, &engine, &store).await.unwrap());
        let moments = Arc::new(Moments::new(engine.clone(), live.clone(), Sensitive::new(KEY.to_vec())));
        let api = ProfilesApi::new(engine.clone(), Arc::new(access()), store, live.clone(), moments);
        Self { engine, live, api, rows: Vec::new() }
    }

    /// With all steps, and profiles computed at the last.
    async fn after_all() -> Self {
        let mut school = Self::new().await;
        for (at, rows) in STEPS {
            rows.iter().for_each(|&(table, row)| school.rows.push((table, row.to_string(), at.to_string())));
        }
        school.arrive().await;
        school.live.follow(school.engine.pin().snapshot.clone(), micros(STEPS[5].0)).await.unwrap();
        school
    }

    /// Makes known to the engine what has been received; a table reaches as far as it has rows.
    async fn arrive(&self) {
        let mut versions = Vec::new();
        for (name, columns) in TABLES {
            let of = |(table, row, at): &(&str, String, String)| (*table == name).then(|| format!("({row}, '{at}')"));
            let rows: Vec<String> = self.rows.iter().filter_map(of).collect();
            if rows.is_empty() {
                continue;
            }
            let contract = contracts().get(name).unwrap().clone();
            let mut version = table(&contract, &format!("{columns}, ingested_at"), &rows.join(", ")).await;
            version.version = Some(rows.len() as u64);
            version.topic = contract.topic().into();
            version.next = Arc::new(BTreeMap::from([(0, rows.len() as i64)]));
            versions.push((name.to_string(), version));
        }
        self.engine.refresh(&Source::memory(versions), KEY).await.unwrap();
    }

    async fn get(&self, student_no: &str, at: Option<i64>, min_watermark: &str) -> Result<GetProfileResponse, Status> {
        let mut request = GetProfileRequest {
            person: Some(key(student_no)),
            min_watermark: min_watermark.to_string(),
            at: at.map(convert::timestamp),
            ..GetProfileRequest::default()
        };
        request.set_purpose(Purpose::Safety);
        Ok(received(&self.api.get_profile(with("carl", request)).await?.into_inner()))
    }

    async fn at(&self, at: i64) -> GetProfileResponse {
        self.get("20240001", Some(at), "").await.unwrap()
    }
}

/// What a profile tells of the person, and nothing of the answer.
fn told(answer: Result<GetProfileResponse, Status>) -> Result<Profile, Code> {
    let mut profile = answer.map_err(|status| status.code())?.profile.unwrap();
    (profile.computed_at, profile.snapshot) = (None, 0);
    profile.items.retain(|item| item.id != "L06");
    profile.items.iter_mut().filter(|item| item.id == "L05").for_each(|item| item.as_of = None);
    Ok(profile)
}

fn item<'a>(profile: &'a Profile, id: &str) -> &'a Item {
    profile.items.iter().find(|item| item.id == id).unwrap()
}

fn line(told: &Result<Profile, Code>) -> String {
    let Ok(profile) = told else { return format!("{told:?}") };
    let value = |id: &str| {
        let item = item(profile, id);
        let value = item.value.as_ref().and_then(|value| value.kind.as_ref());
        format!("{id} {}", value.map_or(format!("{:?}", item.state()), |value| format!("{value:?}")))
    };
    format!("{} {}", profile.student_nos.join(" "), ["B06", "B08", "D05"].map(value).join(" "))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_then_is_told_again() {
    let mut school = School::new().await;
    let (mut then, mut out) = (Vec::new(), String::new());
    for (at, rows) in STEPS {
        rows.iter().for_each(|&(table, row)| school.rows.push((table, row.to_string(), at.to_string())));
        school.arrive().await;
        school.live.follow(school.engine.pin().snapshot.clone(), micros(at)).await.unwrap();
        for number in NUMBERS {
            let told = told(school.get(number, None, "").await);
            out += &format!("{at} {number}: {}\n", line(&told));
            then.push((micros(at), number, told));
        }
    }
    expect![[r#"
        2025-03-03T01:00:00Z 20240001: 20240001 B06 DoubleValue(0.0) B08 DoubleValue(55.0) D05 Missing
        2025-03-03T01:00:00Z 20240002: 20240002 B06 Missing B08 Missing D05 Missing
        2025-03-03T01:00:00Z 20240003: Err(NotFound)
        2025-03-04T01:00:00Z 20240001: 20240001 B06 DoubleValue(6.0) B08 DoubleValue(65.0) D05 Missing
        2025-03-04T01:00:00Z 20240002: 20240002 B06 Missing B08 Missing D05 Missing
        2025-03-04T01:00:00Z 20240003: Err(NotFound)
        2025-03-05T01:00:00Z 20240001: 20240001 B06 DoubleValue(5.0) B08 DoubleValue(60.0) D05 StringValue("2025-03-02")
        2025-03-05T01:00:00Z 20240002: 20240002 B06 Missing B08 Missing D05 Missing
        2025-03-05T01:00:00Z 20240003: Err(NotFound)
        2025-03-06T01:00:00Z 20240001: 20240001 20240002 B06 Missing B08 Missing D05 StringValue("2025-03-02")
        2025-03-06T01:00:00Z 20240002: 20240001 20240002 B06 Missing B08 Missing D05 StringValue("2025-03-02")
        2025-03-06T01:00:00Z 20240003: Err(NotFound)
        2025-03-07T01:00:00Z 20240001: 20240001 B06 DoubleValue(5.0) B08 DoubleValue(60.0) D05 StringValue("2025-03-02")
        2025-03-07T01:00:00Z 20240002: 20240002 B06 Missing B08 Missing D05 Missing
        2025-03-07T01:00:00Z 20240003: 20240003 B06 Missing B08 Missing D05 Missing
        2025-03-08T01:00:00Z 20240001: 20240001 B06 DoubleValue(5.0) B08 DoubleValue(60.0) D05 StringValue("2025-03-02")
        2025-03-08T01:00:00Z 20240002: 20240002 B06 Missing B08 Missing D05 Missing
        2025-03-08T01:00:00Z 20240003: Err(NotFound)
    "#]]
    .assert_eq(&out);
    for (at, number, expected) in &then {
        assert_eq!(&told(school.get(number, Some(*at), "").await), expected, "{number} at {at}");
        // The step before, by the clock of this one: only what rests on the clock may differ.
        if let Some((.., before)) = then.iter().find(|(other, of, _)| of == number && *other == at - 86_400_000_000) {
            let just_before = told(school.get(number, Some(at - 1), "").await);
            assert_eq!(line(&just_before), line(before), "{number} just before {at}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_says_what_it_was_read_from() {
    let school = School::after_all().await;
    let began = Utc::now().timestamp_micros();
    let at = micros(STEPS[1].0);
    let (now, then) = (school.get("20240001", None, "").await.unwrap(), school.at(at).await);
    assert_eq!(then.watermark, now.watermark);
    let (now, then) = (now.profile.unwrap(), then.profile.unwrap());
    assert_eq!(then.snapshot, now.snapshot);
    assert!(convert::micros(&then.computed_at.unwrap()).unwrap() >= began);
    assert_ne!(then.profile_version, now.profile_version);

    // The past is kept from whom the present is kept from.
    let request = GetProfileRequest {
        person: Some(key("20240001")),
        item_mask: mask(&["d05", "b06"]),
        at: Some(convert::timestamp(micros(STEPS[2].0))),
        ..GetProfileRequest::default()
    };
    let answer = school.api.get_profile(with("carl", request.clone())).await.unwrap().into_inner();
    let profile = received::<GetProfileResponse>(&answer).profile.unwrap();
    let states: Vec<_> = profile.items.iter().map(|item| (&*item.id, item.state().as_str_name())).collect();
    assert_eq!(states, [("B06", "ITEM_STATE_OK"), ("D05", "ITEM_STATE_WITHHELD")]);
    assert_eq!(school.api.get_profile(with("ann", request)).await.unwrap_err().code(), Code::PermissionDenied);

    let batch = BatchGetProfilesRequest {
        persons: NUMBERS.map(key).to_vec(),
        item_mask: mask(&["a02"]),
        at: Some(convert::timestamp(micros(STEPS[3].0))),
        ..BatchGetProfilesRequest::default()
    };
    let answer = school.api.batch_get_profiles(with("carl", batch)).await.unwrap().into_inner();
    let results = received::<BatchGetProfilesResponse>(&answer).results;
    let results = results.into_iter().map(|result| match result.result.unwrap() {
        profile_result::Result::Profile(profile) => profile.student_nos.join(" "),
        profile_result::Result::Error(error) => format!("{} {}", error.code, error.message),
    });
    expect![[r#"
        20240001 20240002
        20240001 20240002
        5 no student has this student_no; check the number; nobody was known by it at that moment"#]]
    .assert_eq(&results.collect::<Vec<_>>().join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn moments_that_cannot_be_told_are_refused() {
    let school = School::after_all().await;
    let mut out = String::new();
    for (what, at, min_watermark) in [
        ("future", Utc::now().timestamp_micros() + 60_000_000, ""),
        ("before the first record", micros("2025-03-03T00:59:59.999999Z"), ""),
        ("before all", -1, ""),
        ("no watermark", micros(STEPS[0].0), "x"),
    ] {
        let status = school.get("20240001", Some(at), min_watermark).await.unwrap_err();
        out += &format!("{what}: {:?}: {}\n", status.code(), status.message());
    }
    let request = GetProfileRequest {
        person: Some(key("20240001")),
        at: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }),
        ..GetProfileRequest::default()
    };
    let status = school.api.get_profile(with("carl", request)).await.unwrap_err();
    out += &format!("out of range: {:?}: {}\n", status.code(), status.message());
    expect![[r#"
        future: InvalidArgument: at is in the future; leave it out for the newest profile
        before the first record: InvalidArgument: at is before the first record was received; ask for a later moment
        before all: InvalidArgument: at is before the first record was received; ask for a later moment
        no watermark: InvalidArgument: not a watermark: pass on the token that Quad gave, unchanged
        out of range: InvalidArgument: a moment is out of range
    "#]]
    .assert_eq(&out);
}

fn computed_at(answer: &GetProfileResponse) -> prost_types::Timestamp {
    answer.profile.as_ref().unwrap().computed_at.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moment_is_computed_once_and_the_last_two_are_kept() {
    let school = School::after_all().await;
    let [first, second, third] = [0, 1, 2].map(|step| micros(STEPS[step].0));
    // Whoever asks meanwhile waits for the same computation, and not everybody may wait.
    let together = join_all((0..18).map(|_| school.get("20240001", Some(first), ""))).await;
    let (told, refused): (Vec<_>, Vec<_>) = together.into_iter().partition(Result::is_ok);
    let mut computed: Vec<_> = told.into_iter().map(|answer| computed_at(&answer.unwrap())).collect();
    computed.dedup();
    assert_eq!((computed.len(), refused.len()), (1, 2));
    assert!(refused.into_iter().all(|answer| answer.unwrap_err().code() == Code::ResourceExhausted));
    assert_eq!(computed_at(&school.at(first).await), computed[0], "kept");
    school.at(second).await;
    assert_eq!(computed_at(&school.at(first).await), computed[0], "two are kept");
    school.at(third).await;
    let again = school.at(first).await;
    assert_ne!(computed_at(&again), computed[0], "the third has taken its place");
    school.live.switch().await.unwrap();
    assert_ne!(computed_at(&school.at(first).await), computed_at(&again), "by the definitions in use");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_late_is_told_when_it_has_come() {
    let mut school = School::after_all().await;
    let credits = |answer: &GetProfileResponse| line(&Ok(answer.profile.clone().unwrap()));
    let grade = "'20240001', 'CH1', '2024-2025', 1, '01', 1, 80, true, 3, 3, 3, '2025-01-20T01:00:00Z', true, '2025-01-20T01:00:00Z', 'I'";
    let settled = micros(STEPS[0].0);
    let before = school.at(settled).await;
    school.rows.push(("academic.grade", grade.to_string(), STEPS[0].0.to_string()));
    school.arrive().await;
    let kept = school.at(settled).await;
    assert_eq!((computed_at(&kept), &kept.watermark), (computed_at(&before), &before.watermark));
    let reached = school.engine.pin().snapshot.watermark.to_string();
    assert_ne!(kept.watermark, reached, "the answer says that it was read before");
    let after = school.get("20240001", Some(settled), &reached).await.unwrap();
    assert_eq!(after.watermark, reached);
    expect![[r#"
        20240001 B06 DoubleValue(0.0) B08 DoubleValue(55.0) D05 Missing
        20240001 B06 DoubleValue(3.0) B08 DoubleValue(64.375) D05 Missing"#]]
    .assert_eq(&format!("{}\n{}", credits(&before), credits(&after)));

    // A moment ago: as long as nothing comes, nothing is computed again.
    let young = Utc::now();
    let before = school.at(young.timestamp_micros()).await;
    assert_eq!(computed_at(&school.at(young.timestamp_micros()).await), computed_at(&before));
    let received = young.to_rfc3339_opts(SecondsFormat::Micros, true);
    school.rows.push(("academic.grade", grade.replace("CH1", "CH2"), received));
    school.arrive().await;
    let after = school.at(young.timestamp_micros()).await;
    expect![[r#"
        20240001 B06 DoubleValue(8.0) B08 DoubleValue(67.5) D05 Missing
        20240001 B06 DoubleValue(11.0) B08 DoubleValue(70.909090909) D05 Missing"#]]
    .assert_eq(&format!("{}\n{}", credits(&before), credits(&after)));
}
