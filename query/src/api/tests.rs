//! The doors, opened on free ports, with clients that others wrote.

mod identity;
mod manage;
mod moment;
mod profiles;
mod seen;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use expect_test::expect;
use futures::TryStreamExt as _;
use prost::Message;
use proto::profile::server::profile_service_server::ProfileService as _;
use proto::profile::v1::profile_service_client::ProfileServiceClient;
use proto::profile::v1::{GetProfileRequest, ListProfilesRequest, ListProfilesResponse, PersonKey, person_key};
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;
use tokio_postgres::{Config, NoTls};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request};

use super::client::Client;
use super::profiles::ProfilesApi;
use crate::access::{Access, AccessSettings, Role, TokenSettings};
use crate::decide::{Decide, Ruled, Ruling};
use crate::error::{Error, ErrorKind};
use crate::fixture::{campus, contracts, source};
use crate::serve::Bound;
use crate::settings::Settings;

/// A server on free ports; stopped when dropped.
struct Served {
    grpc: String,
    pg_port: u16,
    stop: Option<oneshot::Sender<()>>,
    ended: tokio::task::JoinHandle<Result<(), Error>>,
    _folder: tempfile::TempDir,
}

async fn serve() -> Served {
    serve_with(Settings::default()).await
}

async fn serve_with(settings: Settings) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let profile_dir = match settings.profile_dir == Settings::default().profile_dir {
        true => concat!(env!("CARGO_MANIFEST_DIR"), "/profile").into(),
        false => settings.profile_dir.clone(),
    };
    let settings = Settings {
        grpc_listen: "127.0.0.1:0".parse().unwrap(),
        pg_listen: "127.0.0.1:0".parse().unwrap(),
        profile_dir,
        identity_key_file: folder.path().join("identity.key"),
        refresh_ms: 20,
        profile_refresh_ms: 20,
        ..settings
    };
    let bound = Bound::new(settings, contracts(), source(&campus()).await, access(), Arc::new(NoLog)).await.unwrap();
    let (grpc, pg) = bound.addresses().unwrap();
    let (stop, stopped) = oneshot::channel();
    let ended = tokio::spawn(bound.run(async {
        let _ = stopped.await;
    }));
    let served =
        Served { grpc: format!("http://{grpc}"), pg_port: pg.port(), stop: Some(stop), ended, _folder: folder };
    served.wait_until_computed().await;
    served
}

/// An answer as a client has it.
fn received<T: Message + Default>(answer: &impl Message) -> T {
    T::decode(answer.encode_to_vec().as_slice()).unwrap()
}

/// The students that a counselor is listed, by their present numbers: of one page, asked of the service without a wire.
pub(crate) async fn listed(api: &ProfilesApi, request: ListProfilesRequest) -> Vec<String> {
    let list: ListProfilesResponse = received(&api.list_profiles(with("carl", request)).await.unwrap().into_inner());
    let profiles = list.profiles;
    let mut numbers: Vec<_> = profiles.into_iter().map(|profile| profile.student_nos[0].clone()).collect();
    numbers.sort();
    numbers
}

/// How a student's profile is answered, asked of the service without a wire: `Ok`, or why not.
pub(crate) async fn answered(api: &ProfilesApi, student_no: &str) -> String {
    let answer = api.get_profile(with("root", of(student_no))).await;
    format!("{:?}", answer.map_or_else(|status| status.code(), |_| Code::Ok))
}

/// A token for every role.
pub(crate) fn access() -> Access {
    let roles = [("root", Role::Admin), ("ann", Role::Analyst), ("carl", Role::Counselor), ("portal", Role::App)];
    let tokens = roles.map(|(name, role)| {
        let sha256 = Sha256::digest(format!("token of {name}")).iter().map(|byte| format!("{byte:02x}")).collect();
        (name.to_string(), TokenSettings { role, sha256 })
    });
    Access::new(&AccessSettings { enabled: true, tokens: tokens.into() }).unwrap()
}

/// Nothing is decided here.
struct NoLog;

#[async_trait]
impl Decide for NoLog {
    async fn decide(&self, _ruling: &Ruling, _token: Option<&str>) -> Result<Ruled, Error> {
        Err(Error::new(ErrorKind::Unavailable, "there is no log"))
    }
}

impl Served {
    async fn wait_until_computed(&self) {
        let give_up = std::time::Instant::now() + Duration::from_secs(60);
        let mut profiles = self.profiles().await;
        while let Err(status) = profiles.get_profile(with("carl", of("20240001"))).await {
            assert_eq!(status.code(), Code::Unavailable, "{status}");
            assert!(std::time::Instant::now() < give_up, "profiles were never computed");
            tokio::task::yield_now().await;
        }
    }

    async fn profiles(&self) -> ProfileServiceClient<Channel> {
        ProfileServiceClient::connect(self.grpc.clone()).await.unwrap()
    }

    async fn psql(&self, user: &str) -> tokio_postgres::Client {
        self.connect(user, &format!("token of {user}")).await.unwrap()
    }

    async fn connect(&self, user: &str, password: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let (client, connection) = self.config(user, password).connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    fn config(&self, user: &str, password: &str) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.pg_port).user(user).password(password).dbname("quad");
        config
    }

    async fn sql(&self, user: &str, sql: &str) -> Result<String, Error> {
        let client = Client::connect(&self.grpc, Some(format!("token of {user}"))).await?;
        let batches: Vec<_> = client.sql(sql).await?.stream.try_collect().await?;
        Ok(datafusion::arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string())
    }
}

fn with<T>(user: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let header = MetadataValue::try_from(format!("Bearer token of {user}")).unwrap();
    request.metadata_mut().insert("authorization", header);
    request
}

fn key(student_no: &str) -> PersonKey {
    PersonKey { key: Some(person_key::Key::StudentNo(student_no.into())) }
}

fn of(student_no: &str) -> GetProfileRequest {
    GetProfileRequest { person: Some(key(student_no)), ..GetProfileRequest::default() }
}

fn mask(paths: &[&str]) -> Option<prost_types::FieldMask> {
    Some(prost_types::FieldMask { paths: paths.iter().map(ToString::to_string).collect() })
}

fn code(error: &tokio_postgres::Error) -> String {
    error.code().map_or_else(|| error.to_string(), |code| code.code().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_simple_and_prepared() {
    let served = serve().await;
    let client = served.psql("ann").await;
    let rows =
        client.simple_query("SELECT student_no, name FROM student_affairs.student_base ORDER BY 1").await.unwrap();
    let rows: Vec<_> = rows
        .iter()
        .filter_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(format!("{:?} {:?}", row.get(0), row.get(1))),
            _ => None,
        })
        .collect();
    expect![[r#"
        [
            "Some(\"20240001\") Some(\"张三\")",
            "Some(\"20240002\") Some(\"李四\")",
        ]"#]]
    .assert_eq(&format!("{rows:#?}"));
    let statement = client
        .prepare("SELECT course_no, CAST(score AS DOUBLE) FROM academic.grade WHERE student_no = $1 ORDER BY course_no")
        .await
        .unwrap();
    for (student_no, courses) in [("20240001", 2), ("20240002", 1), ("none", 0)] {
        assert_eq!(client.query(&statement, &[&student_no]).await.unwrap().len(), courses);
    }
    let score: f64 = client.query(&statement, &[&"20240001"]).await.unwrap()[0].get(1);
    assert!((score - 60.0).abs() < f64::EPSILON);
    let tables = client.query("SELECT relname FROM pg_catalog.pg_class WHERE relname = 'grade'", &[]).await.unwrap();
    assert_eq!(tables.len(), 1);
    let setting = client.query_one("SHOW statement_timeout", &[]).await.unwrap();
    assert_eq!(setting.get::<_, String>(0), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_refuses_with_the_right_code() {
    let served = serve().await;
    let refused = served.connect("ann", "wrong").await.unwrap_err();
    assert_eq!(code(&refused), "28P01");
    assert_eq!(code(&served.connect("root", "token of ann").await.unwrap_err()), "28P01");
    assert_eq!(code(&served.connect("carl", "token of carl").await.unwrap_err()), "42501");
    let client = served.psql("ann").await;
    let mut out = String::new();
    for sql in [
        "SELECT * FROM academic.grades",
        "SELECT nothing FROM academic.grade",
        "SELECT nothing(1)",
        "SELEC 1",
        "DROP TABLE academic.grade",
        "SET datafusion.execution.batch_size = 1",
        "SELECT * FROM platform.dead_letter",
        "SELECT 1/0",
        "LISTEN x",
        "SET statement_timeout = '50ms'",
        "SELECT count(*) FROM generate_series(1, 100000000000)",
        "SET statement_timeout = 0",
        "BEGIN",
        "SELECT nothing",
        "SELECT 1",
        "ROLLBACK",
        "SELECT 1",
        "DISCARD ALL",
    ] {
        let code = client.batch_execute(sql).await.err().map_or("ok".to_string(), |error| code(&error));
        out += &format!("{code} {sql}\n");
    }
    expect![[r#"
        42P01 SELECT * FROM academic.grades
        42703 SELECT nothing FROM academic.grade
        42883 SELECT nothing(1)
        42601 SELEC 1
        25006 DROP TABLE academic.grade
        42501 SET datafusion.execution.batch_size = 1
        42501 SELECT * FROM platform.dead_letter
        22000 SELECT 1/0
        0A000 LISTEN x
        ok SET statement_timeout = '50ms'
        57014 SELECT count(*) FROM generate_series(1, 100000000000)
        ok SET statement_timeout = 0
        ok BEGIN
        42703 SELECT nothing
        25P02 SELECT 1
        ok ROLLBACK
        ok SELECT 1
        ok DISCARD ALL
    "#]]
    .assert_eq(&out);
}

const ENDLESS: &str = "SELECT count(*) FROM generate_series(1, 100000000000)";

/// Does `again` until it says that the state is reached.
pub async fn poll_until(what: &str, again: impl AsyncFn() -> bool) {
    let give_up = std::time::Instant::now() + Duration::from_secs(30);
    while !again().await {
        assert!(std::time::Instant::now() < give_up, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_stops_when_asked() {
    let served = serve().await;
    let client = Arc::new(served.psql("ann").await);
    let token = client.cancel_token();
    let asking = tokio::spawn({
        let client = client.clone();
        async move { client.query(ENDLESS, &[]).await }
    });
    // A cancel request that comes before the question is no one's: ask again until it meets it.
    poll_until("the question went on", async || {
        token.cancel_query(NoTls).await.unwrap();
        asking.is_finished()
    })
    .await;
    assert_eq!(code(&asking.await.unwrap().unwrap_err()), "57014");
    // The last cancel request may still be on its way, and then meets this question.
    poll_until("the connection stayed broken", async || client.query("SELECT 1", &[]).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_stops_when_the_client_is_gone() {
    let one_place = Settings { queries_concurrent_max: 1, queue_timeout_ms: 20, ..Settings::default() };
    let served = serve_with(one_place).await;
    let other = served.psql("ann").await;
    let (client, connection) = served.config("ann", "token of ann").connect(NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let _asking = tokio::spawn(async move { client.query(ENDLESS, &[]).await });
    let is_busy = async || other.query("SELECT 1", &[]).await.is_err_and(|error| code(&error) == "53300");
    poll_until("the question never began", is_busy).await;
    // The socket closes while the answer is being computed.
    connection.abort();
    poll_until("the question outlived its client", async || !is_busy().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flight_answers_and_refuses() {
    let served = serve().await;
    let answer =
        served.sql("ann", "SELECT course_no, score FROM academic.grade WHERE student_no = '20240001' ORDER BY 1").await;
    expect![[r#"
        +-----------+-------+
        | course_no | score |
        +-----------+-------+
        | MA1       | 60.0  |
        | PE1       | 90.0  |
        +-----------+-------+"#]]
    .assert_eq(&answer.unwrap());
    let empty = served.sql("ann", "SELECT course_no FROM academic.grade WHERE false").await.unwrap();
    expect![[r#"
        ++
        ++"#]]
    .assert_eq(&empty);
    let mut out = String::new();
    for (user, sql) in [
        ("nobody", "SELECT 1"),
        ("carl", "SELECT 1"),
        ("ann", "SELECT * FROM academic.grades"),
        ("ann", "DELETE FROM academic.grade"),
        ("ann", "SELECT * FROM platform.dead_letter"),
        ("root", "SELECT count(*) FROM platform.dead_letter"),
    ] {
        let answer = served.sql(user, sql).await;
        let answer = answer.map_or_else(|error| format!("{:?}: {}", error.kind, error.message), |_| "ok".to_string());
        out += &format!("{user} {sql}\n  {answer}\n");
    }
    expect![[r#"
        nobody SELECT 1
          Unauthenticated: wrong token; send `authorization: Bearer TOKEN`
        carl SELECT 1
          Denied: role counselor may not use FlightSql; use a token of role admin or analyst
        ann SELECT * FROM academic.grades
          InvalidArgument: table 'quad.academic.grades' not found; did you mean academic.grade? `quad tables` lists all
        ann DELETE FROM academic.grade
          Denied: cannot execute DELETE: quad is read-only here; data enters through connectors; see `quad sources`
        ann SELECT * FROM platform.dead_letter
          Denied: permission denied for table platform.dead_letter; tables of schema platform need role admin
        root SELECT count(*) FROM platform.dead_letter
          ok
    "#]]
    .assert_eq(&out);
}

#[tokio::test(flavor = "multi_thread")]
async fn flight_prepared_statements_take_parameters() {
    use arrow_flight::sql::client::FlightSqlServiceClient;
    use datafusion::arrow::array::{RecordBatch, StringArray};

    let served = serve().await;
    let channel = Channel::from_shared(served.grpc.clone()).unwrap().connect().await.unwrap();
    let mut client = FlightSqlServiceClient::new(channel);
    client.handshake("ann", "token of ann").await.unwrap();
    let mut prepared =
        client.prepare("SELECT course_no FROM academic.grade WHERE student_no = $1".to_string(), None).await.unwrap();
    assert_eq!(prepared.parameter_schema().unwrap().fields().len(), 1);
    for (student_no, courses) in [("20240001", 2), ("20240002", 1)] {
        let parameter =
            RecordBatch::try_from_iter([("$1", Arc::new(StringArray::from(vec![student_no])) as _)]).unwrap();
        prepared.set_parameters(parameter).unwrap();
        let info = prepared.execute().await.unwrap();
        let ticket = info.endpoint[0].ticket.clone().unwrap();
        let batches: Vec<_> = client.do_get(ticket).await.unwrap().try_collect().await.unwrap();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), courses);
    }
    prepared.close().await.unwrap();
}
