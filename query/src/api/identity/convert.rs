//! Questions and decisions as messages, and times as text. The index's own types enter; what the wire says leaves.

use chrono::{DateTime, SecondsFormat};
use proto::identity::v1::{
    Candidate, Decision as WireDecision, ListReviewsRequest, Review as WireReview, ReviewKind, ReviewState, Verdict,
};

use crate::api::profiles::convert::timestamp;
use crate::error::{Error, ErrorKind};
use crate::identity::Index;
use crate::identity::index::SINCE_EVER;
use crate::identity::review::{Act, Decision, Kind, Review, Use};

/// Which questions a request wants.
pub fn wanted(request: &ListReviewsRequest) -> Result<impl Fn(&Review) -> bool + use<>, Error> {
    let unknown = |what: &str| Error::new(ErrorKind::InvalidArgument, format!("{what} is not one of its values"));
    let state = ReviewState::try_from(request.state).map_err(|_| unknown("state"))?;
    let kind = ReviewKind::try_from(request.kind).map_err(|_| unknown("kind"))?;
    let kind = Some(kind).filter(|kind| *kind != ReviewKind::Unspecified);
    Ok(move |review: &Review| {
        let is_state = match state {
            ReviewState::Unspecified | ReviewState::Open => review.decision.is_none(),
            ReviewState::Decided => review.decision.is_some(),
            ReviewState::All => true,
        };
        is_state && kind.is_none_or(|kind| kind == wire_kind(review.kind))
    })
}

fn wire_kind(kind: Kind) -> ReviewKind {
    match kind {
        Kind::Number => ReviewKind::Number,
        Kind::Document => ReviewKind::Document,
        Kind::StatusChange => ReviewKind::StatusChange,
        Kind::ExamNo => ReviewKind::ExamNo,
        Kind::Namesake => ReviewKind::Namesake,
        Kind::ByHand => ReviewKind::ByHand,
    }
}

pub fn review(index: &Index, review: &Review) -> WireReview {
    let candidate = |of: &Use| {
        let holder = index.holder(of);
        Candidate {
            student_no: of.number.to_string(),
            since: (of.since != SINCE_EVER).then(|| timestamp(of.since)),
            person_id: holder.map(|span| index.person(span.person).id.to_string()).unwrap_or_default(),
            rule: holder.map(|span| span.rule.name().to_string()).unwrap_or_default(),
        }
    };
    let uses = [Some(&review.uses.first), review.uses.second.as_ref()];
    WireReview {
        review_id: review.id.to_string(),
        kind: wire_kind(review.kind).into(),
        raised_at: Some(timestamp(review.raised_at)),
        candidates: uses.into_iter().flatten().map(candidate).collect(),
        rule: review.rule.map(|rule| rule.name().to_string()).unwrap_or_default(),
        reasons: review.reasons.iter().map(ToString::to_string).collect(),
        decision: review.decision.as_ref().map(|of| decision(&index.decisions, of)),
    }
}

/// `all` tell whether it was undone.
pub fn decision(all: &[Decision], decision: &Decision) -> WireDecision {
    let (verdict, revokes) = match &decision.act {
        Act::Link => (Verdict::Linked, String::new()),
        Act::Part => (Verdict::Apart, String::new()),
        Act::Undo(revoked) => (Verdict::Revoked, revoked.to_string()),
    };
    let uses = [Some(&decision.uses.first), decision.uses.second.as_ref()];
    WireDecision {
        decision_id: decision.id.to_string(),
        review_id: decision.review_id.to_string(),
        verdict: verdict.into(),
        decided_by: decision.decided_by.clone(),
        decided_at: Some(timestamp(decision.decided_at)),
        note: decision.note.clone(),
        student_nos: uses.into_iter().flatten().map(|of| of.number.to_string()).collect(),
        revokes,
        is_revoked: all.iter().any(|other| other.act == Act::Undo(decision.id.clone())),
    }
}

/// When a use began, as the table has it; nothing for the first of a number.
pub fn since(of: &Use) -> Option<String> {
    (of.since != SINCE_EVER).then(|| rfc3339(of.since))
}

pub fn rfc3339(at_us: i64) -> String {
    DateTime::from_timestamp_micros(at_us).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Micros, true)
}
