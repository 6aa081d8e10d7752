//! The profile service, health and shutdown, over gRPC.

use expect_test::expect;
use proto::profile::v1::{
    BatchGetProfilesRequest, DescribeProfileRequest, GetProfileRequest, IdType, ItemState, LinkStatus,
    ListProfilesRequest, PersonKey, Purpose, ResolveIdentityRequest, WatchProfilesRequest, WatchProfilesResponse,
    person_key, profile_result, watch_profiles_response::Event,
};
use tonic::Code;
use tonic::transport::Channel;

use super::{Client, ErrorKind, key, mask, of, serve, with};

#[tokio::test(flavor = "multi_thread")]
async fn profiles_are_given_by_role_and_purpose() {
    let served = serve().await;
    let mut client = served.profiles().await;
    let profile = client.get_profile(with("carl", of("20240001"))).await.unwrap().into_inner().profile.unwrap();
    assert_eq!(profile.student_nos, ["20240001"]);
    assert_eq!((profile.person_id.len(), profile.profile_version.len()), (32, 16));
    let withheld = |profile: &proto::profile::v1::Profile| {
        let items = profile.items.iter().filter(|item| item.state() == ItemState::Withheld);
        items.map(|item| item.id.clone()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(withheld(&profile), "D05 D06 D09 E12");
    assert!(
        profile
            .items
            .iter()
            .all(|item| item.state() != ItemState::Withheld || item.value.is_none() && item.as_of.is_none())
    );
    let mut safety = of("20240001");
    safety.set_purpose(Purpose::Safety);
    let for_safety = client.get_profile(with("carl", safety.clone())).await.unwrap().into_inner().profile.unwrap();
    assert_eq!(withheld(&for_safety), "");
    let for_app = client.get_profile(with("portal", safety)).await.unwrap().into_inner().profile.unwrap();
    assert_eq!(withheld(&for_app), "D05 D06 D09 E12");
    let of_itself = profile.items.iter().find(|item| item.id == "L05").unwrap();
    let version = of_itself.value.clone().unwrap().kind.unwrap();
    assert_eq!(version, proto::profile::v1::value::Kind::StringValue(profile.profile_version.clone()));

    let mut masked = of(" ２０２４０００１");
    masked.item_mask = mask(&["a", "B09", "e.card_status"]);
    let masked = client.get_profile(with("carl", masked)).await.unwrap().into_inner().profile.unwrap();
    let ids: Vec<_> = masked.items.iter().map(|item| item.id.as_str()).collect();
    expect!["A01 A02 A03 A04 A05 A06 A07 A08 A09 A10 A11 A12 B09 E01"].assert_eq(&ids.join(" "));
    let by_id = PersonKey { key: Some(person_key::Key::PersonId(profile.person_id.to_uppercase())) };
    let by_id = GetProfileRequest { person: Some(by_id), ..GetProfileRequest::default() };
    let by_id = client.get_profile(with("carl", by_id)).await.unwrap().into_inner().profile.unwrap();
    assert_eq!(by_id.profile_version, profile.profile_version);
}

#[tokio::test(flavor = "multi_thread")]
async fn profile_calls_refuse_with_the_right_code() {
    let served = serve().await;
    let mut client = served.profiles().await;
    let mut out = String::new();
    let mut note = |what: &str, result: Result<(), tonic::Status>| {
        let status =
            result.err().map_or("ok".to_string(), |status| format!("{:?}: {}", status.code(), status.message()));
        out += &format!("{what}: {status}\n");
    };
    note("no token", client.get_profile(of("20240001")).await.map(|_| ()));
    note("wrong token", client.get_profile(with("nobody", of("20240001"))).await.map(|_| ()));
    note("analyst", client.get_profile(with("ann", of("20240001"))).await.map(|_| ()));
    note("unknown", client.get_profile(with("carl", of("20249999"))).await.map(|_| ()));
    note("no person", client.get_profile(with("carl", GetProfileRequest::default())).await.map(|_| ()));
    note("too long", client.get_profile(with("carl", of(&"9".repeat(65)))).await.map(|_| ()));
    let mut request = of("20240001");
    request.item_mask = mask(&["zz"]);
    note("mask", client.get_profile(with("carl", request)).await.map(|_| ()));
    let mut request = of("20240001");
    request.item_mask = mask(&["j"]);
    note("section off", client.get_profile(with("carl", request)).await.map(|_| ()));
    let batch = BatchGetProfilesRequest { persons: vec![key("1"); 201], ..BatchGetProfilesRequest::default() };
    note("batch", client.batch_get_profiles(with("carl", batch)).await.map(|_| ()));
    let list = ListProfilesRequest { page_size: 501, ..ListProfilesRequest::default() };
    note("page", client.list_profiles(with("carl", list)).await.map(|_| ()));
    let list = ListProfilesRequest { page_token: "abc".into(), ..ListProfilesRequest::default() };
    note("token", client.list_profiles(with("carl", list)).await.map(|_| ()));
    note("app lists", client.list_profiles(with("portal", ListProfilesRequest::default())).await.map(|_| ()));
    note("describe", client.describe_profile(DescribeProfileRequest {}).await.map(|_| ()));
    note("resolve", client.resolve_identity(with("portal", ResolveIdentityRequest::default())).await.map(|_| ()));
    expect![[r#"
        no token: Unauthenticated: no token given; send `authorization: Bearer TOKEN`
        wrong token: Unauthenticated: wrong token; send `authorization: Bearer TOKEN`
        analyst: PermissionDenied: role analyst may not use GetProfile; use a token of role admin or counselor or app
        unknown: NotFound: no student has this student_no; check the number; a new student shows once the record has landed
        no person: InvalidArgument: person is not set; set student_no or person_id
        too long: InvalidArgument: student_no has 65 characters, not 1 to 64
        mask: InvalidArgument: item_mask path `zz` names no item; use a section (`a`), an id (`b09`) or a name (`gpa`)
        section off: InvalidArgument: item_mask path `j` names no item; use a section (`a`), an id (`b09`) or a name (`gpa`)
        batch: InvalidArgument: persons has 201 keys, not 1 to 200; split the batch
        page: InvalidArgument: page_size is 501, not 1 to 500
        token: InvalidArgument: page_token is not of a page with these filters; begin again without a token
        app lists: PermissionDenied: role app may not use ListProfiles; use a token of role admin or counselor
        describe: Unauthenticated: no token given; send `authorization: Bearer TOKEN`
        resolve: InvalidArgument: id_value has 0 characters, not 1 to 64
    "#]].assert_eq(&out);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_is_described_to_every_role() {
    let served = serve().await;
    let mut client = served.profiles().await;
    let catalogue = client.describe_profile(with("ann", DescribeProfileRequest {})).await.unwrap().into_inner();
    for user in ["root", "carl", "portal"] {
        let same = client.describe_profile(with(user, DescribeProfileRequest {})).await.unwrap().into_inner();
        assert_eq!(same, catalogue);
    }
    let sections = catalogue.sections.iter().map(|section| {
        let off = if section.is_on { "" } else { ", off" };
        format!("{} {} {}: {}{off}", section.id, section.title, section.title_en, section.items.len())
    });
    expect![[r#"
        A 身份与归属 Identity and belonging: 12
        B 学籍与学业 Enrolment and study: 18
        C 课堂出勤 Class attendance: 5
        D 住宿与通行 Residence and movement: 12
        E 消费与资助 Spending and aid: 12
        F 活动与第二课堂 Activities: 11
        G 育人过程 Contacts: 8
        H 诉求与服务 Appeals and services: 6
        I 奖惩 Awards and sanctions: 5
        J 健康与心理 Health: 2, off
        K 预警 Warnings: 5
        L 数据质量 Data quality: 6"#]]
    .assert_eq(&sections.collect::<Vec<_>>().join("\n"));
    let item =
        |id: &str| catalogue.sections.iter().flat_map(|section| &section.items).find(|item| item.id == id).unwrap();
    expect![[r#"
        ItemDescription {
            id: "D02",
            name: "residence_mode",
            title: "住宿方式",
            definition: "SELECT person_id, src_updated_at AS as_of, residence_mode FROM profile.student",
            window: "now",
            freshness_s: 86400,
            sensitivity_class: 1,
            owner: "学生工作部 student affairs office",
            sources: [
                "student_affairs.student_base",
            ],
            no_source: "",
        }"#]]
    .assert_eq(&format!("{:#?}", item("D02")));
    expect![[r#"
        ItemDescription {
            id: "K01",
            name: "open_warnings",
            title: "未关闭预警",
            definition: "",
            window: "now",
            freshness_s: 60,
            sensitivity_class: 2,
            owner: "学生工作部 student affairs office",
            sources: [],
            no_source: "no contract holds warnings",
        }"#]]
    .assert_eq(&format!("{:#?}", item("K01")));
    // Whoever is asked for an item gets what is described.
    let profile = client.get_profile(with("carl", of("20240001"))).await.unwrap().into_inner().profile.unwrap();
    for given in &profile.items {
        let described = item(&given.id);
        assert_eq!((&given.name, given.sensitivity_class), (&described.name, described.sensitivity_class));
        assert_eq!(given.sources, described.sources);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_and_pages() {
    let served = serve().await;
    let mut client = served.profiles().await;
    let persons = vec![key("20240001"), key("20249999"), PersonKey::default(), key("20240002")];
    let batch = BatchGetProfilesRequest { persons, item_mask: mask(&["name"]), ..BatchGetProfilesRequest::default() };
    let results = client.batch_get_profiles(with("portal", batch)).await.unwrap().into_inner().results;
    let results: Vec<_> = results
        .into_iter()
        .map(|result| match result.result.unwrap() {
            profile_result::Result::Profile(profile) => profile.student_nos.join(" "),
            profile_result::Result::Error(error) => format!("{} {}", error.code, error.message),
        })
        .collect();
    expect![[r#"
        20240001
        5 no student has this student_no; check the number; a new student shows once the record has landed
        3 person is not set; set student_no or person_id
        20240002"#]]
    .assert_eq(&results.join("\n"));

    let mut seen = Vec::new();
    let mut page_token = String::new();
    loop {
        let list = ListProfilesRequest {
            page_size: 1,
            page_token,
            item_mask: mask(&["a01"]),
            ..ListProfilesRequest::default()
        };
        let page = client.list_profiles(with("carl", list)).await.unwrap().into_inner();
        assert_eq!(page.total_size, 2);
        seen.extend(page.profiles.into_iter().flat_map(|profile| profile.student_nos));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    seen.sort();
    assert_eq!(seen, ["20240001", "20240002"]);
    let filtered = ListProfilesRequest { class_id: "K2402".into(), grade_year: 2024, ..ListProfilesRequest::default() };
    let filtered = client.list_profiles(with("carl", filtered)).await.unwrap().into_inner();
    assert_eq!((filtered.total_size, &*filtered.profiles[0].student_nos[0]), (1, "20240002"));
}

#[tokio::test(flavor = "multi_thread")]
async fn identity_is_resolved_at_a_time() {
    let served = serve().await;
    let mut client = served.profiles().await;
    let mut out = String::new();
    let march_first = prost_types::Timestamp { seconds: 1_772_323_200, nanos: 0 };
    for (id_type, value, at) in [
        (IdType::StudentNo, "20240001", None),
        (IdType::CardPhysicalNo, "0a0b0c01", None),
        (IdType::CardPhysicalNo, "0a0b0c01", Some(march_first)),
        (IdType::CardNo, "900002", None),
        (IdType::CasUid, "T001", None),
        (IdType::AccessPersonNo, "20240002", None),
        (IdType::AccessPersonNo, "0", None),
        (IdType::StudentNo, "20249999", None),
    ] {
        let request = ResolveIdentityRequest { id_type: id_type.into(), id_value: value.into(), at };
        let response = client.resolve_identity(with("portal", request)).await.unwrap().into_inner();
        let status = LinkStatus::try_from(response.status).unwrap();
        out += &format!("{id_type:?} {value}: {:?} {} {status:?}\n", response.student_nos, response.rule);
    }
    expect![[r#"
        StudentNo 20240001: ["20240001"] R3 Confirmed
        CardPhysicalNo 0a0b0c01: []  Unlinked
        CardPhysicalNo 0a0b0c01: ["20240001"] R7 Confirmed
        CardNo 900002: ["20240002"] R7 Confirmed
        CasUid T001: [] R6 Confirmed
        AccessPersonNo 20240002: ["20240002"] R8 Confirmed
        AccessPersonNo 0: [] R0 Unlinked
        StudentNo 20249999: []  Unlinked
    "#]]
    .assert_eq(&out);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_shutdown() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;

    let mut served = serve().await;
    let channel = Channel::from_shared(served.grpc.clone()).unwrap().connect().await.unwrap();
    let mut health = HealthClient::new(channel);
    for service in ["", "quad.profile.v1.ProfileService", "arrow.flight.protocol.FlightService"] {
        let request = HealthCheckRequest { service: service.into() };
        assert_eq!(health.check(request).await.unwrap().into_inner().status, 1, "{service}");
    }
    served.stop.take().unwrap().send(()).unwrap();
    served.ended.await.unwrap().unwrap();
    let error = Client::connect(&served.grpc, None).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
}

/// The events of a round, and its token.
pub async fn round(events: &mut tonic::Streaming<WatchProfilesResponse>) -> (Vec<String>, String) {
    let mut told = Vec::new();
    loop {
        let event = events.message().await.unwrap().expect("a watch goes on");
        match event.event {
            Some(Event::Changed(profile)) => told.push(format!("changed {}", profile.student_nos.join(" "))),
            Some(Event::LeftPersonId(_)) => told.push("left".to_string()),
            Some(Event::Reset(_)) => told.push("reset".to_string()),
            None => {}
        }
        if !event.resume_token.is_empty() {
            return (told, event.resume_token);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_who_is_in_scope_and_goes_on_from_its_token() {
    let served = serve().await;
    let mut client = served.profiles().await;
    let watch = |class_id: &str, resume_token: &str| WatchProfilesRequest {
        class_id: class_id.into(),
        resume_token: resume_token.into(),
        item_mask: mask(&["a02"]),
        ..WatchProfilesRequest::default()
    };
    let mut all = client.watch_profiles(with("carl", watch("", ""))).await.unwrap().into_inner();
    let (mut told, token) = round(&mut all).await;
    assert_eq!(told.remove(0), "reset");
    told.sort();
    assert_eq!(told, ["changed 20240001", "changed 20240002"]);
    let mut class = client.watch_profiles(with("carl", watch("K2402", ""))).await.unwrap().into_inner();
    assert_eq!(round(&mut class).await.0, ["reset", "changed 20240002"]);
    let mut none = client.watch_profiles(with("carl", watch("nobody's", ""))).await.unwrap().into_inner();
    assert_eq!(round(&mut none).await.0, ["reset"], "an empty round is told as well");
    let mut again = client.watch_profiles(with("carl", watch("", &token))).await.unwrap().into_inner();
    let (told, _) = round(&mut again).await;
    assert!(!told.contains(&"reset".to_string()), "{told:?}");
    let mut another = client.watch_profiles(with("carl", watch("", "1.1"))).await.unwrap().into_inner();
    assert_eq!(round(&mut another).await.0[0], "reset", "a token of another process");
    for (who, token) in [("portal", ""), ("ann", ""), ("carl", "nonsense")] {
        let refused = client.watch_profiles(with(who, watch("", token))).await.unwrap_err();
        let expected = if token.is_empty() { Code::PermissionDenied } else { Code::InvalidArgument };
        assert_eq!(refused.code(), expected, "{who}");
    }
    drop(served);
    let ended = again.message().await.unwrap_err();
    assert!(ended.message().contains("resume_token"), "{ended}");
}
