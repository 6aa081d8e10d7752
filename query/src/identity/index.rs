//! Identifiers with the spans of time they belonged to someone. A [`Resolution`] is read off; nothing is decided here
//! but R8, which joins two identifiers of one event.

use std::sync::Arc;

use datafusion::common::HashMap;
use hashbrown::Equivalent;

use super::normal;
use super::review::{Decision, Review, Use};

/// Kinds of identifiers (标识类型).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IdType {
    StudentNo,
    StaffNo,
    CasUid,
    /// The card account.
    CardNo,
    /// One medium of an account: `card_no` and `card_seq`, joined by `|`.
    CardSeq,
    CardPhysicalNo,
}

impl IdType {
    pub const ALL: [Self; 6] =
        [Self::StudentNo, Self::StaffNo, Self::CasUid, Self::CardNo, Self::CardSeq, Self::CardPhysicalNo];

    /// The name in `identity.identifier_link`.
    pub fn name(self) -> &'static str {
        match self {
            Self::StudentNo => "student_no",
            Self::StaffNo => "staff_no",
            Self::CasUid => "cas_uid",
            Self::CardNo => "card_no",
            Self::CardSeq => "card_seq",
            Self::CardPhysicalNo => "card_physical_no",
        }
    }

    /// Within what a value is unique.
    pub fn scope(self) -> &'static str {
        match self {
            Self::StudentNo | Self::StaffNo | Self::CasUid => "school",
            Self::CardNo | Self::CardSeq | Self::CardPhysicalNo => "card",
        }
    }
}

/// Which rule made a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    R0,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    /// A person has decided.
    Manual,
}

impl Rule {
    pub fn name(self) -> &'static str {
        match self {
            Self::R0 => "R0",
            Self::R2 => "R2",
            Self::R3 => "R3",
            Self::R4 => "R4",
            Self::R5 => "R5",
            Self::R6 => "R6",
            Self::R7 => "R7",
            Self::R8 => "R8",
            Self::R9 => "R9",
            Self::Manual => "manual",
        }
    }
}

/// How sure a link is, the surest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LinkStatus {
    Confirmed,
    /// Linked until a stronger rule or a person says otherwise (R9).
    Provisional,
    /// Records disagree: nobody is named until a person has decided.
    Disputed,
}

impl LinkStatus {
    pub fn name(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Provisional => "provisional",
            Self::Disputed => "disputed",
        }
    }
}

/// A person's place in [`Index::persons`].
pub type PersonNo = u32;

/// A span of time in which an identifier belonged to someone. Spans of one identifier never overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// Microseconds UTC, inclusive. [`SINCE_EVER`] when nothing says when it began.
    pub from: i64,
    /// Microseconds UTC, exclusive; [`OPEN`] when it has not ended.
    pub to: i64,
    /// Whose; for a disputed span the first of those it may belong to.
    pub person: PersonNo,
    pub rule: Rule,
    pub status: LinkStatus,
}

/// The beginning of a span nothing limits: 1970-01-01.
pub const SINCE_EVER: i64 = 0;
/// The end of a span that has not ended.
pub const OPEN: i64 = i64::MAX;

/// One person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// 32 hexadecimal digits.
    pub id: Arc<str>,
    pub is_student: bool,
    /// Student numbers, the present one first. Empty for staff.
    pub student_nos: Vec<Arc<str>>,
    /// That of the least sure of the person's links; disputed as well while two records of the person's documents or changes
    /// of number disagree.
    pub status: LinkStatus,
}

/// What an identifier says at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// A placeholder: R0.
    Placeholder,
    /// No link covers the moment.
    Unlinked,
    Linked(Span),
    Disputed(Option<Span>),
}

impl Resolution {
    /// The person, when exactly one is named.
    pub fn person(self) -> Option<PersonNo> {
        self.span().map(|span| span.person)
    }

    /// The link, when it names exactly one person.
    pub fn span(self) -> Option<Span> {
        match self {
            Self::Linked(span) => Some(span),
            _ => None,
        }
    }

    /// The `link_status` of a row: null when nothing links it.
    pub fn status(self) -> Option<LinkStatus> {
        match self {
            Self::Linked(span) => Some(span.status),
            Self::Disputed(_) => Some(LinkStatus::Disputed),
            Self::Placeholder | Self::Unlinked => None,
        }
    }
}

/// Who is who. Immutable; a new one is built when facts change.
#[derive(Debug, Default, PartialEq)]
pub struct Index {
    /// Ordered by id.
    pub persons: Vec<Person>,
    pub(super) links: HashMap<(IdType, Arc<str>), Vec<Span>>,
    pub(super) by_id: HashMap<Arc<str>, PersonNo>,
    /// Placeholders met while building, by R0.
    pub placeholders: usize,
    /// What is in doubt and what was decided, ordered by kind and id.
    pub reviews: Vec<Review>,
    /// Every decision that was ever taken, the oldest first.
    pub decisions: Vec<Decision>,
}

/// A key of the links, borrowed.
#[derive(Hash)]
struct Key<'a>(IdType, &'a str);

impl Equivalent<(IdType, Arc<str>)> for Key<'_> {
    fn equivalent(&self, (id_type, value): &(IdType, Arc<str>)) -> bool {
        self.0 == *id_type && *self.1 == **value
    }
}

impl Index {
    /// Whose `value` was at `at` (microseconds UTC; `None` means whose it is now, the latest).
    pub fn resolve(&self, id_type: IdType, value: &str, at: Option<i64>) -> Resolution {
        let Some(value) = normal::identifier(value) else { return Resolution::Placeholder };
        self.resolve_normal(id_type, &value, at)
    }

    fn resolve_normal(&self, id_type: IdType, value: &str, at: Option<i64>) -> Resolution {
        let Some(spans) = self.links.get(&Key(id_type, value)) else { return Resolution::Unlinked };
        let at = at.unwrap_or(OPEN - 1);
        // Before the epoch there is nothing: a clock that says so is a clock that was never set.
        let next = spans.partition_point(|span| span.from <= at);
        match next.checked_sub(1).map(|index| spans[index]).filter(|span| at < span.to) {
            None => Resolution::Unlinked,
            Some(span) if span.status == LinkStatus::Disputed => Resolution::Disputed(Some(span)),
            Some(span) => Resolution::Linked(span),
        }
    }

    /// A person by 学号, else by 工号: what cards, leave and other records call `person_no`.
    pub fn resolve_number(&self, value: &str, at: Option<i64>) -> Resolution {
        let Some(value) = normal::identifier(value) else { return Resolution::Placeholder };
        match self.resolve_normal(IdType::StudentNo, &value, at) {
            Resolution::Unlinked => self.resolve_normal(IdType::StaffNo, &value, at),
            found => found,
        }
    }

    /// A person by one medium of a card account, else by the account.
    pub fn resolve_card(&self, card_no: &str, card_seq: Option<&str>, at: Option<i64>) -> Resolution {
        let Some(card_no) = normal::identifier(card_no) else { return Resolution::Placeholder };
        if let Some(card_seq) = card_seq.and_then(normal::identifier) {
            let medium = self.resolve_normal(IdType::CardSeq, &format!("{card_no}|{card_seq}"), at);
            if medium != Resolution::Unlinked {
                return medium;
            }
        }
        self.resolve_normal(IdType::CardNo, &card_no, at)
    }

    /// R8: a person by 门禁人员编号 or by card, at the moment of the event. Two different persons: disputed.
    pub fn resolve_access(&self, access_no: Option<&str>, physical_no: Option<&str>, at: Option<i64>) -> Resolution {
        let by_no = access_no.map_or(Resolution::Placeholder, |value| self.resolve_number(value, at));
        let by_card =
            physical_no.map_or(Resolution::Placeholder, |value| self.resolve(IdType::CardPhysicalNo, value, at));
        match (by_no, by_card) {
            (Resolution::Disputed(span), _) | (_, Resolution::Disputed(span)) => Resolution::Disputed(span),
            (Resolution::Linked(no), Resolution::Linked(card)) if no.person != card.person => {
                Resolution::Disputed(None)
            }
            (Resolution::Linked(span), _) | (_, Resolution::Linked(span)) => {
                Resolution::Linked(Span { rule: Rule::R8, ..span })
            }
            (Resolution::Unlinked, _) | (_, Resolution::Unlinked) => Resolution::Unlinked,
            (Resolution::Placeholder, Resolution::Placeholder) => Resolution::Placeholder,
        }
    }

    pub fn person(&self, person: PersonNo) -> &Person {
        &self.persons[person as usize]
    }

    /// The person with this id; letter case aside.
    pub fn person_by_id(&self, id: &str) -> Option<&Person> {
        let found = self.by_id.get(id).or_else(|| self.by_id.get(id.to_ascii_lowercase().as_str()));
        found.map(|person| self.person(*person))
    }

    /// The number of the person with exactly this id.
    pub fn number(&self, id: &str) -> Option<PersonNo> {
        self.by_id.get(id).copied()
    }

    /// The use of a student number at `at` (`None`: the present one), as decisions name it.
    pub fn use_of(&self, student_no: &str, at: Option<i64>) -> Option<Use> {
        let number: Arc<str> = Arc::from(&*normal::identifier(student_no)?);
        let spans = self.links.get(&Key(IdType::StudentNo, &number))?;
        // The first use begins since ever, whenever its link does.
        let since = match spans.partition_point(|span| span.from <= at.unwrap_or(OPEN)) {
            0 | 1 => SINCE_EVER,
            next => spans[next - 1].from,
        };
        Some(Use { number, since })
    }

    /// Whose a use of a number is, and how sure that is.
    pub fn holder(&self, of: &Use) -> Option<Span> {
        let spans = self.links.get(&Key(IdType::StudentNo, &of.number))?;
        spans.get(spans.partition_point(|span| span.from <= of.since).saturating_sub(1)).copied()
    }

    pub fn review(&self, id: &str) -> Option<&Review> {
        self.reviews.iter().find(|review| &*review.id == id)
    }

    /// Every 学号 and 工号 that was ever the person's, or may have been.
    pub fn numbers(&self, person_id: &str) -> Vec<&str> {
        let Some(person) = self.by_id.get(person_id) else { return Vec::new() };
        let is_number = |id_type: &IdType| matches!(id_type, IdType::StudentNo | IdType::StaffNo);
        let is_hers = |spans: &[Span]| spans.iter().any(|span| span.person == *person);
        let links = self.links.iter().filter(|((id_type, _), spans)| is_number(id_type) && is_hers(spans));
        links.map(|((_, value), _)| &**value).collect()
    }

    #[cfg(test)]
    pub fn of_persons(ids: &[&str]) -> Self {
        let status = super::LinkStatus::Confirmed;
        let person = |id: &&str| Person { id: Arc::from(*id), is_student: true, student_nos: Vec::new(), status };
        let by_id = ids.iter().map(|id| Arc::from(*id)).zip(0..).collect();
        Self { by_id, persons: ids.iter().map(person).collect(), ..Self::default() }
    }

    /// Every link, ordered.
    pub fn links(&self) -> Vec<(IdType, &str, Span)> {
        let mut links: Vec<_> = self
            .links
            .iter()
            .flat_map(|((id_type, value), spans)| spans.iter().map(|span| (*id_type, value.as_ref(), *span)))
            .collect();
        links.sort_unstable();
        links
    }
}
