//! Decisions on their way out. Nothing here writes to the log, so what an admin decides about identity goes, with the
//! admin's own token, to the process that holds it; as a record of `identity.match_review` it comes back with the others.

use async_trait::async_trait;
use serde::Serialize;

use crate::error::Error;

/// A row of `identity.match_review` that decides; who did and when is added where the token is checked.
#[derive(Clone, Serialize)]
pub struct Ruling {
    pub review_id: String,
    /// Times are RFC 3339.
    pub raised_at: String,
    pub kind: &'static str,
    pub id_value: String,
    pub id_since: Option<String>,
    pub other_value: Option<String>,
    pub other_since: Option<String>,
    pub candidates: Vec<RulingCandidate>,
    /// What holds from now on: `linked`, `rejected`, `new_person`, or `open` again.
    pub decision: &'static str,
    /// The decision that this one undoes.
    pub revokes: Option<String>,
    pub note: Option<String>,
}

/// Whose a number was when it was decided.
#[derive(Clone, Serialize)]
pub struct RulingCandidate {
    pub person_id: String,
    pub rule_id: &'static str,
    pub reasons: Vec<&'static str>,
}

/// A ruling that is in the log.
#[derive(Debug, Clone)]
pub struct Ruled {
    pub decision_id: String,
    pub decided_by: String,
    /// Microseconds UTC.
    pub decided_at: i64,
    /// Whoever has read up to here has seen it.
    pub watermark: String,
}

/// The way to the log.
#[async_trait]
pub trait Decide: Send + Sync {
    /// Appends a ruling in the name of who holds `token`.
    ///
    /// # Errors
    /// `Unavailable` when it may not be in the log; `Denied` when the token is not an admin's there.
    async fn decide(&self, ruling: &Ruling, token: Option<&str>) -> Result<Ruled, Error>;
}
