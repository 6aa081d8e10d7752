//! The profile's other doors: the same over SQL, where an item comes from, and what happened to a student.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat};
use expect_test::expect;
use futures::TryStreamExt as _;
use proto::profile::v1::value::Kind;
use proto::profile::v1::{
    ExplainItemRequest, ExplainItemResponse, GetTimelineRequest, GetTimelineResponse, InputRows, Item, ItemState,
    ListProfilesRequest, PersonRow, Profile, Purpose, Value as WireValue,
};
use serde_json::{Value as Json, json};
use tokio_postgres::SimpleQueryMessage;
use tonic::Code;

use super::{Client, Served, key, serve_with, with};
use crate::profile::Value;
use crate::settings::Settings;

/// A server whose profiles are computed once.
async fn serve() -> Served {
    serve_with(Settings { profile_idle_refresh_s: 86_400, ..Settings::default() }).await
}

async fn profiles(served: &Served) -> Vec<Profile> {
    let list = served.profiles().await.list_profiles(with("carl", ListProfilesRequest::default())).await;
    let list = list.unwrap().into_inner();
    assert_eq!((list.profiles.len(), list.next_page_token.as_str()), (2, ""));
    list.profiles
}

fn time(time: &prost_types::Timestamp) -> String {
    let time = DateTime::from_timestamp(time.seconds, u32::try_from(time.nanos).unwrap()).unwrap();
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

fn plain(value: &WireValue) -> Json {
    match value.kind.as_ref().unwrap() {
        Kind::StringValue(text) => json!(text),
        Kind::Int64Value(number) => json!(number),
        Kind::DoubleValue(number) => json!(number),
        Kind::BoolValue(truth) => json!(truth),
        Kind::TimestampValue(at) => json!(time(at)),
        Kind::ListValue(list) => list.values.iter().map(plain).collect(),
        Kind::ObjectValue(object) => object.fields.iter().map(|(name, value)| (name.clone(), plain(value))).collect(),
    }
}

/// The rows of an answer over Flight SQL, by column.
async fn rows(served: &Served, user: &str, sql: &str) -> Vec<BTreeMap<String, Json>> {
    let client = Client::connect(&served.grpc, Some(format!("token of {user}"))).await.unwrap();
    let batches: Vec<_> = client.sql(sql).await.unwrap().stream.try_collect().await.unwrap();
    let mut rows = Vec::new();
    for batch in &batches {
        for row in 0..batch.num_rows() {
            let cell = |column| Value::at(column, row).unwrap();
            let names = batch.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
            let cells = names.into_iter().zip(batch.columns());
            rows.push(
                cells.map(|(name, column)| (name, cell(column).map_or(Json::Null, |cell| cell.json()))).collect(),
            );
        }
    }
    rows
}

fn state(item: &Item) -> String {
    item.state().as_str_name().trim_start_matches("ITEM_STATE_").to_lowercase()
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_says_of_every_item_what_the_service_says() {
    let served = serve().await;
    let profiles = profiles(&served).await;
    for user in ["ann", "root"] {
        let told =
            rows(&served, user, "SELECT *, quad_snapshot() AS snapshot FROM profile.item ORDER BY person_id, item_id")
                .await;
        let mut given = Vec::new();
        for profile in &profiles {
            given.extend(profile.items.iter().map(|item| (profile, item)));
        }
        assert_eq!((told.len(), given.len()), (200, 200));
        for (row, (profile, item)) in told.iter().zip(given) {
            let value = item.value.as_ref().map(plain);
            let expected = json!({
                "person_id": profile.person_id, "item_id": item.id, "name": item.name, "section": item.section,
                "as_of": item.as_of.as_ref().map(time), "state": state(item),
                "sources": (!item.sources.is_empty()).then_some(&item.sources), "class": item.sensitivity_class,
                "snapshot": profile.snapshot, "value": value,
            });
            let mut row = row.clone();
            let text = row["value"].as_str().map(|text| serde_json::from_str(text).unwrap());
            row.insert("value".to_string(), text.unwrap_or_default());
            assert_eq!(json!(row), expected, "{} of {user}", item.id);
        }
        let told = rows(&served, user, "SELECT * FROM profile.student ORDER BY person_id").await;
        for (row, profile) in told.iter().zip(&profiles) {
            let mut expected = json!({
                "person_id": profile.person_id, "student_no": profile.student_nos[0], "version": profile.profile_version,
                "computed_at": profile.computed_at.as_ref().map(time),
            });
            for item in profile.items.iter().filter(|item| !["L05", "L06"].contains(&item.id.as_str())) {
                expected[&item.name] = item.value.as_ref().map_or(Json::Null, plain);
            }
            assert_eq!(json!(row), expected, "{user}");
        }
        assert_eq!(told.len(), profiles.len());
    }
    let withheld = "SELECT string_agg(item_id, ' ' ORDER BY item_id) AS items FROM profile.item WHERE state = 'withheld' AND value IS NULL GROUP BY person_id";
    assert_eq!(
        rows(&served, "root", withheld).await,
        vec![BTreeMap::from([("items".to_string(), json!("D05 D06 D09 E12"))]); 2]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn types_and_single_persons() {
    let served = serve().await;
    let types = "SELECT arrow_typeof(student_nos) AS a, arrow_typeof(gpa) AS b, arrow_typeof(expected_grad_on) AS c, \
        arrow_typeof(failed_courses) AS d, arrow_typeof(minor) AS e, arrow_typeof(presence) AS f, arrow_typeof(ethnic_code) AS g \
        FROM profile.student LIMIT 1";
    let types = rows(&served, "ann", types).await.remove(0);
    expect![[r#"
        List(Utf8)
        Float64
        Date32
        Int64
        Boolean
        Struct("direction": Utf8, "building_id": Utf8, "since": Timestamp(µs, "UTC"))
        Utf8"#]]
    .assert_eq(&types.values().map(|text| text.as_str().unwrap()).collect::<Vec<_>>().join("\n"));
    let first = &profiles(&served).await[0];
    for (sql, count) in [
        (format!("SELECT count(*) AS n FROM profile.student WHERE person_id = '{}'", first.person_id), 1),
        (format!("SELECT count(*) AS n FROM profile.student WHERE person_id = '{}'", first.person_id.to_uppercase()), 0),
        (format!("SELECT count(*) AS n FROM profile.item WHERE '{}' = person_id AND section = 'A'", first.person_id), 12),
        ("SELECT count(*) AS n FROM profile.item WHERE person_id = 'nobody'".to_string(), 0),
        ("SELECT count(gpa) AS n FROM profile.student WHERE student_no = '20240002'".to_string(), 1),
        ("SELECT count(*) AS n FROM profile.student WHERE bed['building_id'] = 'B1' AND gpa > 1".to_string(), 1),
        ("SELECT count(*) AS n FROM (SELECT * FROM profile.item LIMIT 150) AS i".to_string(), 150),
        ("SELECT count(g.score) AS n FROM profile.student AS s JOIN academic.grade AS g ON g.person_id = s.person_id".to_string(), 3),
    ] {
        assert_eq!(rows(&served, "ann", &sql).await[0]["n"], json!(count), "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn profiles_over_the_postgres_wire() {
    let served = serve().await;
    let client = served.psql("ann").await;
    // All columns, lists and structs too, as text and in binary.
    let all = "SELECT * FROM profile.student ORDER BY student_no";
    let text: Vec<_> = client
        .simple_query(all)
        .await
        .unwrap()
        .into_iter()
        .filter_map(|message| if let SimpleQueryMessage::Row(row) = message { Some(row) } else { None })
        .collect();
    let binary = client.query(all, &[]).await.unwrap();
    assert_eq!((text.len(), binary.len(), binary[0].len()), (2, 2, 102));
    let columns =
        ["student_no", "student_nos", "name", "gpa", "minor", "expected_grad_on", "bed", "conflicts", "presence"];
    let shown = columns.map(|column| format!("{column} {:?}", text[0].get(column)));
    expect![[r#"
        student_no Some("20240001")
        student_nos Some("{20240001}")
        name Some("张三")
        gpa Some("1.5")
        minor Some("f")
        expected_grad_on Some("2028-06-30")
        bed Some("(B1,3,301,B1-301-1)")
        conflicts Some("(0,\"\")")
        presence None"#]]
    .assert_eq(&shown.join("\n"));
    let (gpa, minor): (f64, bool) = (binary[0].get("gpa"), binary[0].get("minor"));
    let numbers: Vec<String> = binary[0].get("student_nos");
    assert_eq!((gpa, minor, numbers), (1.5, false, vec!["20240001".to_string()]));
    let columns = "SELECT count(*) FROM information_schema.columns WHERE table_schema = 'profile' AND table_name = $1";
    for (table, count) in [("student", 102_i64), ("item", 9)] {
        assert_eq!(client.query_one(columns, &[&table]).await.unwrap().get::<_, i64>(0), count);
    }
}

async fn explain(served: &Served, user: &str, item: &str, purpose: Purpose) -> ExplainItemResponse {
    let request = ExplainItemRequest {
        person: Some(key("20240001")),
        item: item.into(),
        purpose: purpose.into(),
        ..ExplainItemRequest::default()
    };
    served.profiles().await.explain_item(with(user, request)).await.unwrap().into_inner()
}

fn inputs(answer: &ExplainItemResponse) -> String {
    let rows = |rows| InputRows::try_from(rows).unwrap().as_str_name().trim_start_matches("INPUT_ROWS_").to_lowercase();
    answer.inputs.iter().map(|input| format!("{} {}\n", input.table, rows(input.rows))).collect()
}

/// A line a row: its place in the order, and some of its fields.
fn lines(rows: &[PersonRow], fields: &[&str]) -> String {
    let line = |row: &PersonRow| {
        let given = fields.iter().filter_map(|name| Some(format!(" {name}={}", plain(row.fields.get(*name)?))));
        let PersonRow { table, source, topic, partition, offset, .. } = row;
        let at = time(row.event_time.as_ref().unwrap());
        format!("{at} {table}{} from {source} at {topic}/{partition}/{offset}\n", given.collect::<String>())
    };
    rows.iter().map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_is_explained_by_its_rows() {
    let served = serve().await;
    let answer = explain(&served, "carl", "gpa", Purpose::StudyHelp).await;
    let item = answer.item.clone().unwrap();
    assert_eq!((item.id.as_str(), plain(item.value.as_ref().unwrap())), ("B09", json!(1.5)));
    let description = answer.description.clone().unwrap();
    assert!(description.definition.contains("grade_point") && description.window == "study", "{description:?}");
    let views: Vec<_> = answer.views.iter().map(|view| view.name.as_str()).collect();
    expect!["term_now enrollment grade term"].assert_eq(&views.join(" "));
    expect![[r#"
        academic.course of_nobody
        academic.enrollment given
        academic.grade given
        extension.calendar_day of_nobody
    "#]]
    .assert_eq(&inputs(&answer));
    expect![[r#"
        2024-08-31T16:00:00Z academic.enrollment from test at quad.academic.enrollment/0/0
        2026-01-20T01:00:00Z academic.grade course_no="MA1" score=60.0 grade_point=1.0 from test at quad.academic.grade/0/1
        2026-06-20T01:00:00Z academic.grade course_no="PE1" score=90.0 grade_point=4.0 from test at quad.academic.grade/0/2
    "#]]
    .assert_eq(&lines(&answer.rows, &["course_no", "score", "grade_point"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_withheld_is_not_explained() {
    let served = serve().await;
    // An item of class 2 that reads trails: without them, unless it is for safety.
    let daily = explain(&served, "carl", "D07", Purpose::DailyWork).await;
    expect![[r#"
        access_control.access_event withheld
        extension.calendar_day of_nobody
        logistics.bed_assignment given
        logistics.space of_nobody
        student_affairs.leave_request given
    "#]]
    .assert_eq(&inputs(&daily));
    assert!(daily.rows.iter().all(|row| row.table == "logistics.bed_assignment"));
    let safety = explain(&served, "carl", "late_30d", Purpose::Safety).await;
    let tables: Vec<_> = safety.rows.iter().map(|row| row.table.as_str()).collect();
    assert_eq!(tables, ["logistics.bed_assignment", "access_control.access_event"]);
    // An item of class 3: nothing at all.
    let daily = explain(&served, "root", "presence", Purpose::DailyWork).await;
    let item = daily.item.as_ref().unwrap();
    assert_eq!((item.state(), &item.value, daily.rows.len()), (ItemState::Withheld, &None, 0));
    expect!["access_control.access_event withheld\n"].assert_eq(&inputs(&daily));
    // One that identity derives.
    let numbers = explain(&served, "carl", "a01", Purpose::DailyWork).await;
    expect![[r#"
        academic.enrollment given
        academic.status_change given
        identity.account given
        identity.card given
        identity.identifier_link derived
        identity.match_review of_nobody
        student_affairs.student_base given
    "#]]
    .assert_eq(&inputs(&numbers));
    let hidden = |table: &str| {
        let row = numbers.rows.iter().find(|row| row.table == table).unwrap();
        assert!(row.withheld_fields.iter().all(|field| !row.fields.contains_key(field)));
        row.withheld_fields.join(" ")
    };
    assert_eq!(
        (hidden("student_affairs.student_base"), hidden("identity.card")),
        ("id_doc_hash".into(), "balance_fen".into())
    );
}

async fn timeline(
    served: &Served,
    user: &str,
    request: GetTimelineRequest,
) -> Result<GetTimelineResponse, tonic::Status> {
    let request = GetTimelineRequest { person: Some(key("20240001")), ..request };
    Ok(served.profiles().await.get_timeline(with(user, request)).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeline_is_in_one_order_and_under_policy() {
    let served = serve().await;
    let daily = timeline(&served, "carl", GetTimelineRequest::default()).await.unwrap();
    expect![[r#"
        2024-09-01T00:00:00Z logistics.bed_assignment from test at quad.logistics.bed_assignment/0/0
        2026-01-20T01:00:00Z academic.grade course_no="MA1" from test at quad.academic.grade/0/1
        2026-06-20T01:00:00Z academic.grade course_no="PE1" from test at quad.academic.grade/0/2
    "#]]
    .assert_eq(&lines(&daily.events, &["course_no"]));
    expect!["access_control.access_event logistics.card_txn"].assert_eq(&daily.withheld_tables.join(" "));
    let safety = || GetTimelineRequest { purpose: Purpose::Safety.into(), ..GetTimelineRequest::default() };
    let all = timeline(&served, "root", safety()).await.unwrap();
    expect![[r#"
        2024-09-01T00:00:00Z logistics.bed_assignment from test at quad.logistics.bed_assignment/0/0
        2026-01-20T01:00:00Z academic.grade from test at quad.academic.grade/0/1
        2026-06-20T01:00:00Z academic.grade from test at quad.academic.grade/0/2
        2026-09-01T04:00:00Z logistics.card_txn amount_fen=1200 from test at quad.logistics.card_txn/0/2
        2026-09-01T10:00:00Z logistics.card_txn amount_fen=800 from test at quad.logistics.card_txn/0/1
        2026-09-01T12:00:00Z access_control.access_event direction="in" from test at quad.access_control.access_event/0/0
    "#]]
    .assert_eq(&lines(&all.events, &["amount_fen", "direction"]));
    assert!(all.withheld_tables.is_empty());
    let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    // From the supper, inclusive, to the passage, exclusive.
    let from = all.events[4].event_time.unwrap().seconds;
    let to = all.events[5].event_time.unwrap().seconds;
    let some = GetTimelineRequest { from: at(from), to: at(to), tables: vec!["logistics".into()], ..safety() };
    assert_eq!(timeline(&served, "carl", some).await.unwrap().events, all.events[4..5]);
    let some = GetTimelineRequest { tables: vec!["access_control".into(), "academic.grade".into()], ..safety() };
    let some = timeline(&served, "carl", some).await.unwrap().events;
    assert_eq!(some, [all.events[1].clone(), all.events[2].clone(), all.events[5].clone()]);
    let mut paged = Vec::new();
    let mut page_token = String::new();
    loop {
        let page = GetTimelineRequest { page_size: 2, page_token, ..safety() };
        let page = timeline(&served, "carl", page).await.unwrap();
        assert!(page.events.len() <= 2);
        paged.extend(page.events);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(paged, all.events);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_refused_with_the_right_code() {
    let served = serve().await;
    let mut out = String::new();
    let mut note = |what: &str, refused: tonic::Status| {
        out += &format!("{what}: {:?}: {}\n", refused.code(), refused.message());
    };
    let with_tables = |table: &str| GetTimelineRequest { tables: vec![table.into()], ..GetTimelineRequest::default() };
    for user in ["ann", "portal"] {
        note(user, timeline(&served, user, GetTimelineRequest::default()).await.unwrap_err());
    }
    let nothing = timeline(&served, "carl", with_tables("academic.course")).await.unwrap_err();
    assert_eq!(nothing.code(), Code::InvalidArgument);
    assert!(
        nothing.message().starts_with("tables: `academic.course` names no table of events about persons; use a domain")
    );
    let page = GetTimelineRequest { page_size: 1, ..GetTimelineRequest::default() };
    let page_token = timeline(&served, "carl", page).await.unwrap().next_page_token;
    let other = GetTimelineRequest { page_token: page_token.clone(), ..with_tables("academic") };
    note("token", timeline(&served, "carl", other).await.unwrap_err());
    let broken = GetTimelineRequest { page_token: page_token.replace('.', ""), ..GetTimelineRequest::default() };
    note("broken token", timeline(&served, "carl", broken).await.unwrap_err());
    let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let backwards = GetTimelineRequest { from: at(2), to: at(1), ..GetTimelineRequest::default() };
    note("span", timeline(&served, "carl", backwards).await.unwrap_err());
    let far = GetTimelineRequest { from: at(i64::MAX), ..GetTimelineRequest::default() };
    note("far", timeline(&served, "carl", far).await.unwrap_err());
    let many = GetTimelineRequest { page_size: 501, ..GetTimelineRequest::default() };
    note("page", timeline(&served, "carl", many).await.unwrap_err());
    for (user, item) in [("portal", "gpa"), ("carl", "a"), ("carl", "")] {
        let request =
            ExplainItemRequest { person: Some(key("20240001")), item: item.into(), ..ExplainItemRequest::default() };
        note(item, served.profiles().await.explain_item(with(user, request)).await.unwrap_err());
    }
    let nobody =
        ExplainItemRequest { person: Some(key("20249999")), item: "gpa".into(), ..ExplainItemRequest::default() };
    note("nobody", served.profiles().await.explain_item(with("carl", nobody)).await.unwrap_err());
    expect![[r#"
        ann: PermissionDenied: role analyst may not use GetTimeline; use a token of role admin or counselor
        portal: PermissionDenied: role app may not use GetTimeline; use a token of role admin or counselor
        token: InvalidArgument: page_token is not of a page with these filters; begin again without a token
        broken token: InvalidArgument: page_token is not of a page with these filters; begin again without a token
        span: InvalidArgument: from is later than to
        far: InvalidArgument: a moment is out of range
        page: InvalidArgument: page_size is 501, not 1 to 500
        gpa: PermissionDenied: role app may not use ExplainItem; use a token of role admin or counselor
        a: InvalidArgument: item `a` is no item; use an id (`b09`) or a name (`gpa`); DescribeProfile lists all that are on
        : InvalidArgument: item `` is no item; use an id (`b09`) or a name (`gpa`); DescribeProfile lists all that are on
        nobody: NotFound: no student has this student_no; check the number; a new student shows once the record has landed
    "#]].assert_eq(&out);
}
