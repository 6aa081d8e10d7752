//! The queue and decisions, by the service itself: what goes out is what comes back as a record.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use expect_test::{Expect, expect};
use proto::identity::v1::identity_service_server::IdentityService as _;
use proto::identity::v1::{
    ConfirmRequest, HistoryRequest, ListReviewsRequest, MergeRequest, NumberAt, RejectRequest, Review, ReviewKind,
    ReviewState, RevokeRequest, SplitRequest, Verdict,
};
use schemas::Sensitive;
use tonic::{Code, Status};

use super::{access, with};
use crate::api::identity::IdentityApi;
use crate::decide::{Decide, Ruled, Ruling};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind};
use crate::fixture::{KEY, engine};
use crate::identity::IdType;

const STUDENTS: &str = "student_no, name, sex_code, birth_date, id_doc_type, id_doc_hash, college_id";
const REVIEWS: &str = "review_id, raised_at, kind, id_type, id_value, id_since, other_value, other_since, decision, revokes, \
                       note, decision_id, decided_by, decided_at";

/// A log that keeps what is decided, and when it is away does not.
#[derive(Default)]
struct Kept {
    rulings: Mutex<Vec<Ruling>>,
    is_away: bool,
}

#[async_trait]
impl Decide for Kept {
    async fn decide(&self, ruling: &Ruling, token: Option<&str>) -> Result<Ruled, Error> {
        if self.is_away {
            return Err(Error::new(ErrorKind::Unavailable, "the log is away"));
        }
        assert_eq!(token, Some("token of root"), "the caller's own token goes on");
        let mut rulings = self.rulings.lock().unwrap();
        rulings.push(ruling.clone());
        let decided_at = i64::try_from(rulings.len()).unwrap() * 1_000_000;
        let decision_id = format!("d{}", rulings.len());
        Ok(Ruled {
            decision_id,
            decided_by: "root".into(),
            decided_at,
            watermark: "quad.identity.match_review:0.1".into(),
        })
    }
}

/// A service over four students, and over what was decided so far as the table has it.
async fn api(kept: &Arc<Kept>) -> (IdentityApi, Arc<Engine>) {
    let students = "('20240001', '张三', '1', '2006-02-03', '1', 'aa', 'C01'), ('20240002', '张三', '2', '2006-02-03', '1', 'aa', 'C01'),
        ('20240003', '李四', '1', '2005-01-01', 'A', 'bb', 'C01'), ('20240004', '李四', '1', '2005-01-01', 'A', 'cc', 'C01')";
    let text = |value: &Option<String>| value.as_ref().map_or("NULL".to_string(), |value| format!("'{value}'"));
    let rows: Vec<String> = (1..)
        .zip(kept.rulings.lock().unwrap().iter())
        .map(|(number, of)| {
            format!(
                "('{}', '{}', '{}', 'student_no', '{}', {}, {}, {}, '{}', {}, {}, 'd{number}', 'root', '1970-01-01T00:00:{number:02}Z')",
                of.review_id, of.raised_at, of.kind, of.id_value, text(&of.id_since), text(&of.other_value),
                text(&of.other_since), of.decision, text(&of.revokes), text(&of.note),
            )
        })
        .collect();
    let rows = rows.join(", ");
    let mut tables = vec![("student_affairs.student_base", STUDENTS, students)];
    if !rows.is_empty() {
        tables.push(("identity.match_review", REVIEWS, &rows));
    }
    let engine = engine(&tables).await;
    let api = IdentityApi::new(engine.clone(), Arc::new(access()), kept.clone(), Sensitive::new(KEY.to_vec()));
    (api, engine)
}

fn number(student_no: &str) -> Option<NumberAt> {
    Some(NumberAt { student_no: student_no.into(), at: None })
}

async fn reviews(api: &IdentityApi, state: ReviewState) -> Vec<Review> {
    let request = ListReviewsRequest { state: state.into(), ..ListReviewsRequest::default() };
    api.list_reviews(with("root", request)).await.unwrap().into_inner().reviews
}

/// All questions, then all decisions, the newest first.
async fn check(kept: &Arc<Kept>, expected: Expect) {
    let (api, engine) = api(kept).await;
    let mut out = String::new();
    for review in reviews(&api, ReviewState::All).await {
        let numbers: Vec<&str> = review.candidates.iter().map(|of| &*of.student_no).collect();
        let persons = review.candidates.iter().map(|of| &of.person_id).collect::<std::collections::BTreeSet<_>>().len();
        let decision = review.decision.as_ref().map(|of| format!("{:?} by {}", of.verdict(), of.decided_by));
        let (kind, reasons) = (review.kind(), review.reasons.join(", "));
        out += &format!("{kind:?} {} of {persons}: {} [{reasons}] {decision:?}\n", numbers.join(" "), review.rule);
    }
    let history = api.history(with("root", HistoryRequest::default())).await.unwrap().into_inner();
    for of in history.decisions {
        let undone = if of.is_revoked { ", undone" } else { "" };
        out += &format!("{} {:?} {}{undone} {:?}\n", of.decision_id, of.verdict(), of.student_nos.join(" "), of.note);
    }
    expected.assert_eq(&out);
    let index = &engine.pin().snapshot.identity;
    assert!(index.resolve(IdType::StudentNo, "20240001", None).person().is_some());
}

#[tokio::test]
async fn a_decision_goes_out_and_comes_back_and_is_undone() {
    let kept = Arc::new(Kept::default());
    check(
        &kept,
        expect![[r#"
        Document 20240001 20240002 of 2: R2 [equal document, sexes differ] None
        Namesake 20240003 20240004 of 2:  [equal name, birth date and college, no number or document links them] None
    "#]],
    )
    .await;
    let of_kind = |reviews: Vec<Review>, kind: ReviewKind| {
        reviews.into_iter().find(|review| review.kind() == kind).unwrap().review_id
    };
    let (service, _) = api(&kept).await;
    let open = reviews(&service, ReviewState::Open).await;
    let request = ConfirmRequest {
        review_id: of_kind(open.clone(), ReviewKind::Namesake),
        note: "passport renewed".into(),
        ..Default::default()
    };
    let answer = service.confirm(with("root", request)).await.unwrap().into_inner();
    assert_eq!(
        (answer.decision.unwrap().verdict(), &*answer.watermark),
        (Verdict::Linked, "quad.identity.match_review:0.1")
    );
    let document = of_kind(open, ReviewKind::Document);
    let request = RejectRequest { review_id: document.clone(), ..Default::default() };
    service.reject(with("root", request)).await.unwrap();
    check(&kept, expect![[r#"
        Document 20240001 20240002 of 2: R2 [equal document, sexes differ] Some("Apart by root")
        Namesake 20240003 20240004 of 1:  [equal name, birth date and college, no number or document links them] Some("Linked by root")
        d2 Apart 20240001 20240002 ""
        d1 Linked 20240003 20240004 "passport renewed"
    "#]]).await;

    // Decided anew, the newest counts; undone, the one before does again.
    let (service, _) = api(&kept).await;
    let request =
        MergeRequest { first: number("20240002"), second: number("２０２４０００１"), ..Default::default() };
    service.merge(with("root", request)).await.unwrap();
    let (service, _) = api(&kept).await;
    let revoke = || RevokeRequest { review_id: document.clone(), ..Default::default() };
    let answer = service.revoke(with("root", revoke())).await.unwrap().into_inner();
    assert_eq!(answer.decision.unwrap().revokes, "d3");
    check(&kept, expect![[r#"
        Document 20240001 20240002 of 2: R2 [equal document, sexes differ] Some("Apart by root")
        Namesake 20240003 20240004 of 1:  [equal name, birth date and college, no number or document links them] Some("Linked by root")
        d4 Revoked 20240001 20240002 ""
        d3 Linked 20240001 20240002, undone ""
        d2 Apart 20240001 20240002 ""
        d1 Linked 20240003 20240004 "passport renewed"
    "#]]).await;
    let (service, _) = api(&kept).await;
    service.revoke(with("root", revoke())).await.unwrap();
    let decided: Vec<String> =
        kept.rulings.lock().unwrap().iter().map(|of| format!("{} {}", of.kind, of.decision)).collect();
    assert_eq!(
        decided,
        ["namesake linked", "document rejected", "document linked", "document rejected", "document open"]
    );
    let (service, _) = api(&kept).await;
    let refused = service.revoke(with("root", revoke())).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "{refused}");
}

#[tokio::test]
async fn what_cannot_be_decided_says_why() {
    let kept = Arc::new(Kept::default());
    let (service, _) = api(&kept).await;
    let request = SplitRequest { first: number("20240001"), second: number("20240003"), ..Default::default() };
    service.split(with("root", request)).await.unwrap();
    let request = MergeRequest { first: number("20240002"), second: number("20240001"), ..Default::default() };
    service.merge(with("root", request)).await.unwrap();
    let (service, _) = api(&kept).await;
    let merge =
        |first: &str, second: &str| MergeRequest { first: number(first), second: number(second), ..Default::default() };
    let refused = |answer: Result<_, Status>| {
        answer.map(|_: tonic::Response<proto::identity::v1::MergeResponse>| ()).unwrap_err()
    };
    let mut out = String::new();
    for (user, request) in [
        ("ann", merge("20240001", "20240003")),
        ("root", merge("20240002", "20240003")),
        ("root", merge("20240001", "20249999")),
        ("root", merge("20240001", "20240001")),
        ("root", merge("", "20240001")),
        ("root", MergeRequest { second: None, ..merge("20240001", "") }),
        ("root", MergeRequest { note: "x".repeat(501), ..merge("20240001", "20240004") }),
    ] {
        let status = refused(service.merge(with(user, request)).await);
        let message = status.message().split(": `quad identity undo").next().unwrap_or_default().to_string();
        assert!(!message.contains("2024"), "a number is never repeated: {message}");
        out += &format!("{:?}: {message}\n", status.code());
    }
    for request in [
        ListReviewsRequest { page_token: "x".into(), ..Default::default() },
        ListReviewsRequest { page_size: 501, ..Default::default() },
        ListReviewsRequest { kind: 99, ..Default::default() },
    ] {
        let status = service.list_reviews(with("root", request)).await.unwrap_err();
        out += &format!("{:?}: {}\n", status.code(), status.message());
    }
    expect![[r#"
        PermissionDenied: role analyst may not use DecideIdentity; use a token of role admin
        InvalidArgument: a decision keeps other numbers of these two persons apart; undo it first
        NotFound: no student has one of these numbers; check them; a new student shows once the record has landed
        InvalidArgument: first and second are the same use of one number; name two numbers, or two times at which different persons had it
        InvalidArgument: student_no has 0 characters, not 1 to 64
        InvalidArgument: first and second are both required
        InvalidArgument: note has more than 500 characters
        InvalidArgument: page_token is not of such a page; begin again without a token
        InvalidArgument: page_size is 501, not 1 to 500
        InvalidArgument: kind is not one of its values
    "#]].assert_eq(&out);
    let away = Arc::new(Kept { is_away: true, ..Kept::default() });
    let (service, _) = api(&away).await;
    assert_eq!(refused(service.merge(with("root", merge("20240001", "20240003"))).await).code(), Code::Unavailable);
}

#[tokio::test]
async fn the_queue_and_the_history_have_pages() {
    let kept = Arc::new(Kept::default());
    for _ in 0..3 {
        let (service, _) = api(&kept).await;
        let request = SplitRequest { first: number("20240001"), second: number("20240003"), ..Default::default() };
        service.split(with("root", request)).await.unwrap();
    }
    let (service, _) = api(&kept).await;
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let request =
            ListReviewsRequest { page_size: 1, page_token, state: ReviewState::All.into(), ..Default::default() };
        let page = service.list_reviews(with("root", request)).await.unwrap().into_inner();
        assert_eq!(page.total_size, 3);
        seen.extend(page.reviews.iter().map(Review::kind));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, [ReviewKind::Document, ReviewKind::Namesake, ReviewKind::ByHand]);
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = HistoryRequest { page_size: 2, page_token, student_no: "20240003".into(), ..Default::default() };
        let page = service.history(with("root", request)).await.unwrap().into_inner();
        seen.extend(page.decisions.into_iter().map(|decision| decision.decision_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ["d3", "d2", "d1"]);
    let request = HistoryRequest { student_no: "20240004".into(), ..Default::default() };
    assert!(service.history(with("root", request)).await.unwrap().into_inner().decisions.is_empty());
}
