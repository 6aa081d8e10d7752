//! Questions that no rule may answer, and what persons have decided. Rows of `identity.match_review` enter as facts; the
//! decisions in force leave.
//!
//! A question is about two uses of student numbers: are they one person's? Or about one: is it one person's at all? So it
//! needs no person, and stays the same question however persons are put together.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::index::Rule;

/// The use of a student number that began then; the first of a number begins since ever.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Use {
    /// In its canonical form.
    pub number: Arc<str>,
    /// Microseconds UTC.
    pub since: i64,
}

/// What a question is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uses {
    pub first: Use,
    /// After the first in order; `None` when the question is about one number.
    pub second: Option<Use>,
}

impl Uses {
    /// In either order.
    pub fn new(one: Use, other: Option<Use>) -> Self {
        match other {
            Some(other) if other < one => Self { first: other, second: Some(one) },
            other => Self { second: other.filter(|other| *other != one), first: one },
        }
    }

    /// The number of the question about these: keyed, so that it says nothing.
    pub fn review_id(&self, key: &[u8]) -> Arc<str> {
        let since = [Some(&self.first), self.second.as_ref()].map(|of| of.map_or(0, |of| of.since).to_string());
        let second = self.second.as_ref().map_or("", |of| &of.number);
        super::build::keyed(key, &["review", &self.first.number, &since[0], second, &since[1]])
    }
}

/// Why a question is asked, what weighs most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Records of one number differ in name and document (R3).
    Number,
    /// Two numbers with one document, whose records disagree (R2, R5).
    Document,
    /// A change of number between records that disagree (R4).
    StatusChange,
    /// Two numbers with one 考生号 and one name (R9).
    ExamNo,
    /// Equal name, birth date and college, and nothing else.
    Namesake,
    /// Nobody asked: someone decided.
    ByHand,
}

impl Kind {
    pub const ALL: [Self; 6] =
        [Self::Number, Self::Document, Self::StatusChange, Self::ExamNo, Self::Namesake, Self::ByHand];

    /// As in `identity.match_review`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Document => "document",
            Self::StatusChange => "status_change",
            Self::ExamNo => "exam_no",
            Self::Namesake => "namesake",
            Self::ByHand => "by_hand",
        }
    }

    pub fn of(name: Option<&str>) -> Self {
        Self::ALL.into_iter().find(|kind| Some(kind.name()) == name).unwrap_or(Self::ByHand)
    }
}

/// What a decision does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// One person.
    Link,
    /// Two persons, whatever the rules say; of one number: it stays disputed.
    Part,
    /// As if the decision with this number had never been.
    Undo(Arc<str>),
}

impl Act {
    /// By the columns `decision` and `revokes`; `None` where nothing is decided.
    pub fn of(decision: Option<&str>, revokes: Option<&str>) -> Option<Self> {
        match (decision, revokes) {
            (_, Some(revoked)) => Some(Self::Undo(revoked.into())),
            (Some("linked"), _) => Some(Self::Link),
            (Some("rejected" | "new_person"), _) => Some(Self::Part),
            _ => None,
        }
    }
}

/// A row of `identity.match_review_history` that decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub id: Arc<str>,
    pub review_id: Arc<str>,
    pub kind: Kind,
    pub act: Act,
    pub uses: Uses,
    /// The name of the access token that decided.
    pub decided_by: String,
    pub note: String,
    /// Microseconds UTC, as the next.
    pub raised_at: i64,
    pub decided_at: i64,
}

/// A question, open or decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Review {
    pub id: Arc<str>,
    pub kind: Kind,
    /// When the newest record that gives rise to it was changed: microseconds UTC.
    pub raised_at: i64,
    pub uses: Uses,
    /// The rule that would link, or links provisionally; none for namesakes.
    pub rule: Option<Rule>,
    /// What speaks for and against, without a value.
    pub reasons: Vec<&'static str>,
    /// The decision in force; open without one.
    pub decision: Option<Decision>,
}

/// Every decision once, the oldest first.
pub fn in_order(decisions: &[Decision]) -> Vec<Decision> {
    let mut sorted = decisions.to_vec();
    sorted.sort_by(|left, right| (left.decided_at, &left.id).cmp(&(right.decided_at, &right.id)));
    let mut seen = HashSet::new();
    sorted.retain(|decision| seen.insert(decision.id.clone()));
    sorted
}

/// Of each review the newest decision that was not undone, the oldest first; `decisions` are in order.
pub fn in_force(decisions: &[Decision]) -> Vec<&Decision> {
    let undone: HashSet<&str> = decisions
        .iter()
        .filter_map(|decision| match &decision.act {
            Act::Undo(id) => Some(&**id),
            _ => None,
        })
        .collect();
    let decides = |decision: &&Decision| !matches!(decision.act, Act::Undo(_)) && !undone.contains(&*decision.id);
    let newest: BTreeMap<&str, usize> =
        decisions.iter().enumerate().filter(|(_, one)| decides(one)).map(|(at, one)| (&*one.review_id, at)).collect();
    let mut places: Vec<usize> = newest.into_values().collect();
    places.sort_unstable();
    places.into_iter().map(|at| &decisions[at]).collect()
}
