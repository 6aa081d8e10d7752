//! The identity service. gRPC calls of admins enter; questions and decisions leave from the newest index, and new decisions
//! go out to the log. Nothing is decided here but whether a decision can take effect.
//!
//! Wire contract: `proto/quad/identity/v1/identity.proto`.

mod convert;

use std::sync::Arc;

use proto::identity::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use proto::identity::v1::{
    ConfirmRequest, ConfirmResponse, Decision as WireDecision, HistoryRequest, HistoryResponse, ListReviewsRequest,
    ListReviewsResponse, MergeRequest, MergeResponse, NumberAt, RejectRequest, RejectResponse, RevokeRequest,
    RevokeResponse, SplitRequest, SplitResponse,
};
use schemas::Sensitive;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::flight::authenticate;
use super::profiles::{WATERMARK_WAIT_MAX, convert::micros, watched};
use crate::access::{Access, Principal};
use crate::decide::{Decide, Ruling, RulingCandidate};
use crate::engine::{Engine, Pin};
use crate::error::{Error, ErrorKind};
use crate::identity::review::{self, Act, Decision, Kind, Review, Use, Uses};
use crate::identity::{Index, normal};
use crate::policy::{self, Door};

const REQUEST_BYTES_MAX: usize = 1 << 20;
const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: usize = 500;
const NUMBER_CHARS_MAX: usize = 64;
const NOTE_CHARS_MAX: usize = 500;

/// Serves from the engine's newest snapshot.
pub struct IdentityApi {
    engine: Arc<Engine>,
    access: Arc<Access>,
    decide: Arc<dyn Decide>,
    /// Keys the numbers of questions that nobody has asked yet.
    key: Sensitive<Vec<u8>>,
}

/// Who calls; the token goes on with a decision.
struct Caller {
    principal: Principal,
    token: Option<String>,
}

/// What is to be decided.
struct Matter<'a> {
    uses: &'a Uses,
    /// The question, when there is one.
    review: Option<&'a Review>,
    /// What is to hold from now on, as the table names it.
    decision: &'static str,
    revokes: Option<&'a Decision>,
    note: &'a str,
}

impl IdentityApi {
    pub fn new(engine: Arc<Engine>, access: Arc<Access>, decide: Arc<dyn Decide>, key: Sensitive<Vec<u8>>) -> Self {
        Self { engine, access, decide, key }
    }

    /// Ready to be added to a server.
    pub fn into_server(self) -> IdentityServiceServer<Self> {
        IdentityServiceServer::new(self).max_decoding_message_size(REQUEST_BYTES_MAX)
    }

    fn enter<T>(&self, request: Request<T>, door: Door) -> Result<(Caller, T), Error> {
        let principal = authenticate(&self.access, request.metadata())?;
        policy::enter(&principal, door)?;
        let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| value.split_once(' ')).map(|(_, token)| token.to_string());
        Ok((Caller { principal, token }, request.into_inner()))
    }

    /// The newest snapshot, once it reaches to the watermark of a request.
    async fn pin(&self, min_watermark: &str) -> Result<Arc<Pin>, Error> {
        let watermark = if min_watermark.is_empty() { None } else { Some(min_watermark.parse()?) };
        self.engine.pin_after(watermark.as_ref(), Instant::now() + WATERMARK_WAIT_MAX).await
    }

    async fn list(&self, request: Request<ListReviewsRequest>) -> Result<Response<ListReviewsResponse>, Error> {
        let (caller, request) = self.enter(request, Door::ListReviews)?;
        let is_wanted = convert::wanted(&request)?;
        let size = page_size(request.page_size)?;
        let pin = self.pin(&request.min_watermark).await?;
        let index = &pin.snapshot.identity;
        let matching: Vec<&Review> = index.reviews.iter().filter(|review| is_wanted(review)).collect();
        let token = |review: &Review| format!("{}.{}", review.kind.name(), review.id);
        let start = match request.page_token.split_once('.') {
            None if request.page_token.is_empty() => 0,
            Some((kind, id)) if Kind::ALL.iter().any(|known| known.name() == kind) => {
                let last = (Kind::of(Some(kind)), id);
                matching.partition_point(|review| (review.kind, &*review.id) <= last)
            }
            _ => return Err(wrong_token()),
        };
        let page = &matching[start..matching.len().min(start + size)];
        let next = page.last().filter(|_| start + size < matching.len()).map(|last| token(last));
        tracing::info!(target: "quad::audit", door = ?Door::ListReviews, principal = %caller.principal.name,
            reviews = page.len(), "identity");
        Ok(Response::new(ListReviewsResponse {
            reviews: page.iter().map(|review| convert::review(index, review)).collect(),
            next_page_token: next.unwrap_or_default(),
            total_size: i32::try_from(matching.len()).unwrap_or(i32::MAX),
            watermark: pin.snapshot.watermark.to_string(),
        }))
    }

    async fn history(&self, request: Request<HistoryRequest>) -> Result<Response<HistoryResponse>, Error> {
        let (caller, request) = self.enter(request, Door::IdentityHistory)?;
        let size = page_size(request.page_size)?;
        let number = Some(&*request.student_no).filter(|number| !number.is_empty());
        let number = number.map(|number| normal::identifier(number).ok_or_else(no_number)).transpose()?;
        let pin = self.pin(&request.min_watermark).await?;
        let decisions = &pin.snapshot.identity.decisions;
        let is_about = |decision: &&Decision| {
            let uses = [Some(&decision.uses.first), decision.uses.second.as_ref()];
            (request.review_id.is_empty() || *decision.review_id == *request.review_id)
                && number.as_ref().is_none_or(|number| uses.into_iter().flatten().any(|of| *of.number == **number))
        };
        let last: Option<(i64, &str)> = match request.page_token.split_once('.') {
            None if request.page_token.is_empty() => None,
            Some((at, id)) => Some((at.parse().map_err(|_| wrong_token())?, id)),
            None => return Err(wrong_token()),
        };
        let is_later = |decision: &&Decision| last.is_none_or(|last| (decision.decided_at, &*decision.id) < last);
        let mut page: Vec<&Decision> =
            decisions.iter().rev().filter(is_about).filter(is_later).take(size + 1).collect();
        let has_more = page.len() > size;
        page.truncate(size);
        let next = page.last().filter(|_| has_more).map(|last| format!("{}.{}", last.decided_at, last.id));
        tracing::info!(target: "quad::audit", door = ?Door::IdentityHistory, principal = %caller.principal.name,
            decisions = page.len(), "identity");
        Ok(Response::new(HistoryResponse {
            decisions: page.into_iter().map(|decision| convert::decision(decisions, decision)).collect(),
            next_page_token: next.unwrap_or_default(),
            watermark: pin.snapshot.watermark.to_string(),
        }))
    }

    /// Decides a question that is known: open, or decided before.
    async fn answer(
        &self,
        caller: &Caller,
        review_id: &str,
        decision: &'static str,
        note: &str,
        min_watermark: &str,
    ) -> Result<(WireDecision, String), Error> {
        let pin = self.pin(min_watermark).await?;
        let index = &pin.snapshot.identity;
        let review = index.review(review_id).ok_or_else(no_review)?;
        self.rule(caller, index, Matter { uses: &review.uses, review: Some(review), decision, revokes: None, note })
            .await
    }

    /// Decides about two numbers, whoever has asked.
    async fn decide_pair(
        &self,
        caller: &Caller,
        numbers: [Option<NumberAt>; 2],
        decision: &'static str,
        note: &str,
        min_watermark: &str,
    ) -> Result<(WireDecision, String), Error> {
        let pin = self.pin(min_watermark).await?;
        let index = &pin.snapshot.identity;
        let [first, second] = numbers.map(|number| use_of(index, number));
        let uses = Uses::new(first?, Some(second?));
        if uses.second.is_none() {
            let error = Error::new(ErrorKind::InvalidArgument, "first and second are the same use of one number");
            return Err(error.with_hint("name two numbers, or two times at which different persons had it"));
        }
        let id = uses.review_id(self.key.expose());
        let review = index.review(&id);
        self.rule(caller, index, Matter { uses: &uses, review, decision, revokes: None, note }).await
    }

    async fn undo(&self, caller: &Caller, request: &RevokeRequest) -> Result<(WireDecision, String), Error> {
        let pin = self.pin(&request.min_watermark).await?;
        let index = &pin.snapshot.identity;
        let of_review = || index.decisions.iter().filter(|decision| *decision.review_id == *request.review_id);
        let in_force = |but: Option<&Decision>| {
            let decisions: Vec<Decision> =
                of_review().filter(|one| but.is_none_or(|but| one.id != but.id)).cloned().collect();
            review::in_force(&decisions).first().map(|found| (*found).clone())
        };
        let undone = in_force(None).ok_or_else(|| {
            let error = Error::new(ErrorKind::NotFound, "no decision of this question is in force");
            error.with_hint("`quad identity history` lists all; one that was just taken shows with its watermark")
        })?;
        let decision = match in_force(Some(&undone)).map(|before| before.act) {
            Some(Act::Link) => "linked",
            Some(_) => "rejected",
            None => "open",
        };
        let (uses, review) = (&undone.uses, index.review(&request.review_id));
        let matter = Matter { uses, review, decision, revokes: Some(&undone), note: &request.note };
        self.rule(caller, index, matter).await
    }

    /// Sends a decision out, once nothing stands against it.
    async fn rule(&self, caller: &Caller, index: &Index, matter: Matter<'_>) -> Result<(WireDecision, String), Error> {
        let Matter { uses, review, decision, revokes, note } = matter;
        if note.chars().count() > NOTE_CHARS_MAX {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("note has more than {NOTE_CHARS_MAX} characters"),
            ));
        }
        if decision == "linked" && revokes.is_none() {
            check_effect(index, uses)?;
        }
        let ruling = ruling(index, &matter, &uses.review_id(self.key.expose()));
        let ruled = self.decide.decide(&ruling, caller.token.as_deref()).await?;
        tracing::info!(target: "quad::audit", door = ?Door::DecideIdentity, principal = %caller.principal.name,
            review = ruling.review_id, decision, id = ruled.decision_id, "identity");
        let decision = Decision {
            id: ruled.decision_id.into(),
            review_id: ruling.review_id.into(),
            kind: review.map_or(Kind::ByHand, |review| review.kind),
            act: Act::of(Some(decision), revokes.map(|revoked| &*revoked.id)).expect("it decides or undoes"),
            uses: uses.clone(),
            decided_by: ruled.decided_by,
            note: note.to_string(),
            raised_at: 0,
            decided_at: ruled.decided_at,
        };
        Ok((convert::decision(&[], &decision), ruled.watermark))
    }
}

/// A link that another decision would keep from taking effect is not taken: it would say what does not hold.
fn check_effect(index: &Index, uses: &Uses) -> Result<(), Error> {
    let person = |of: &Use| index.holder(of).map(|span| span.person);
    let between = |uses: &Uses| uses.second.as_ref().map(|second| [person(&uses.first), person(second)]);
    let mine = between(uses).map(|mut persons| {
        persons.sort_unstable();
        persons
    });
    let parts = |review: &&Review| {
        review.uses != *uses
            && review.decision.as_ref().is_some_and(|decision| decision.act == Act::Part)
            && between(&review.uses).is_some_and(|mut persons| {
                persons.sort_unstable();
                Some(persons) == mine
            })
    };
    match index.reviews.iter().find(parts) {
        Some(review) => {
            let message = "a decision keeps other numbers of these two persons apart";
            let hint = format!("undo it first: `quad identity undo {}`", review.id);
            Err(Error::new(ErrorKind::InvalidArgument, message).with_hint(hint))
        }
        None => Ok(()),
    }
}

fn ruling(index: &Index, matter: &Matter, review_id: &str) -> Ruling {
    let Matter { uses, review, decision, revokes, note } = matter;
    let holder = |of: &Use| index.holder(of).map(|span| (index.person(span.person).id.to_string(), span.rule.name()));
    let reasons = review.map(|review| review.reasons.clone()).unwrap_or_default();
    let candidates = [Some(&uses.first), uses.second.as_ref()].into_iter().flatten().filter_map(holder);
    let candidates =
        candidates.map(|(person_id, rule_id)| RulingCandidate { person_id, rule_id, reasons: reasons.clone() });
    let now = chrono::Utc::now().timestamp_micros();
    let raised_at = review.map(|review| review.raised_at).or(revokes.map(|revoked| revoked.raised_at)).unwrap_or(now);
    Ruling {
        review_id: revokes
            .map_or_else(|| review.map_or(review_id, |review| &review.id), |of| &of.review_id)
            .to_string(),
        raised_at: convert::rfc3339(raised_at),
        kind: review.map(|review| review.kind).or(revokes.map(|of| of.kind)).unwrap_or(Kind::ByHand).name(),
        id_value: uses.first.number.to_string(),
        id_since: convert::since(&uses.first),
        other_value: uses.second.as_ref().map(|second| second.number.to_string()),
        other_since: uses.second.as_ref().and_then(convert::since),
        candidates: candidates.collect(),
        decision,
        revokes: revokes.map(|revoked| revoked.id.to_string()),
        note: Some(note.trim().to_string()).filter(|note| !note.is_empty()),
    }
}

/// The use of a number that a request means. Errors never repeat the number.
fn use_of(index: &Index, number: Option<NumberAt>) -> Result<Use, Error> {
    let number = number.ok_or_else(|| Error::new(ErrorKind::InvalidArgument, "first and second are both required"))?;
    let length = number.student_no.chars().count();
    if length == 0 || length > NUMBER_CHARS_MAX {
        let message = format!("student_no has {length} characters, not 1 to {NUMBER_CHARS_MAX}");
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    let at = number.at.as_ref().map(micros).transpose()?;
    index.use_of(&number.student_no, at).ok_or_else(no_number)
}

fn no_number() -> Error {
    Error::new(ErrorKind::NotFound, "no student has one of these numbers")
        .with_hint("check them; a new student shows once the record has landed")
}

fn no_review() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such question")
        .with_hint("`quad identity reviews --state all` lists them")
}

fn wrong_token() -> Error {
    Error::new(ErrorKind::InvalidArgument, "page_token is not of such a page").with_hint("begin again without a token")
}

fn page_size(asked: i32) -> Result<usize, Error> {
    match usize::try_from(asked) {
        Ok(0) => Ok(PAGE_DEFAULT),
        Ok(size) if size <= PAGE_MAX => Ok(size),
        _ => Err(Error::new(ErrorKind::InvalidArgument, format!("page_size is {asked}, not 1 to {PAGE_MAX}"))),
    }
}

#[tonic::async_trait]
impl IdentityService for IdentityApi {
    async fn list_reviews(
        &self,
        request: Request<ListReviewsRequest>,
    ) -> Result<Response<ListReviewsResponse>, Status> {
        watched(Door::ListReviews, self.list(request)).await
    }

    async fn confirm(&self, request: Request<ConfirmRequest>) -> Result<Response<ConfirmResponse>, Status> {
        let decided = async {
            let (caller, of) = self.enter(request, Door::DecideIdentity)?;
            self.answer(&caller, &of.review_id, "linked", &of.note, &of.min_watermark).await
        };
        let (decision, watermark) = watched(Door::DecideIdentity, decided).await?;
        Ok(Response::new(ConfirmResponse { decision: Some(decision), watermark }))
    }

    async fn reject(&self, request: Request<RejectRequest>) -> Result<Response<RejectResponse>, Status> {
        let decided = async {
            let (caller, of) = self.enter(request, Door::DecideIdentity)?;
            self.answer(&caller, &of.review_id, "rejected", &of.note, &of.min_watermark).await
        };
        let (decision, watermark) = watched(Door::DecideIdentity, decided).await?;
        Ok(Response::new(RejectResponse { decision: Some(decision), watermark }))
    }

    async fn merge(&self, request: Request<MergeRequest>) -> Result<Response<MergeResponse>, Status> {
        let decided = async {
            let (caller, of) = self.enter(request, Door::DecideIdentity)?;
            self.decide_pair(&caller, [of.first, of.second], "linked", &of.note, &of.min_watermark).await
        };
        let (decision, watermark) = watched(Door::DecideIdentity, decided).await?;
        Ok(Response::new(MergeResponse { decision: Some(decision), watermark }))
    }

    async fn split(&self, request: Request<SplitRequest>) -> Result<Response<SplitResponse>, Status> {
        let decided = async {
            let (caller, of) = self.enter(request, Door::DecideIdentity)?;
            self.decide_pair(&caller, [of.first, of.second], "new_person", &of.note, &of.min_watermark).await
        };
        let (decision, watermark) = watched(Door::DecideIdentity, decided).await?;
        Ok(Response::new(SplitResponse { decision: Some(decision), watermark }))
    }

    async fn revoke(&self, request: Request<RevokeRequest>) -> Result<Response<RevokeResponse>, Status> {
        let decided = async {
            let (caller, of) = self.enter(request, Door::DecideIdentity)?;
            self.undo(&caller, &of).await
        };
        let (decision, watermark) = watched(Door::DecideIdentity, decided).await?;
        Ok(Response::new(RevokeResponse { decision: Some(decision), watermark }))
    }

    async fn history(&self, request: Request<HistoryRequest>) -> Result<Response<HistoryResponse>, Status> {
        watched(Door::IdentityHistory, self.history(request)).await
    }
}
