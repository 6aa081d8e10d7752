//! The rules. [`Facts`] enter, an [`Index`] leaves; neither time nor order nor chance has a part in it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::facts::{Account, Card, Enrollment, Facts, Student};
use super::index::{IdType, Index, LinkStatus, OPEN, Person, PersonNo, Rule, SINCE_EVER, Span};
use super::normal;
use super::review::{Decision, Review, in_order};
use super::tenure::{self, Tenure};
use super::unite::{United, unite};

/// How long before enrolment a new number of an alumnus is in use (R5): from admission on, for a bed, a card and an account.
const ADMISSION_US: i64 = 183 * 86_400 * 1_000_000;

/// Builds the index; `key` keys the person ids.
pub fn build(facts: &Facts, key: &[u8]) -> Index {
    let mut builder = Builder {
        key,
        persons: Vec::new(),
        links: BTreeMap::new(),
        placeholders: 0,
        reviews: Vec::new(),
        decisions: in_order(&facts.decisions),
    };
    builder.students(facts);
    builder.staff(&facts.accounts);
    builder.freeze(|builder, numbers| {
        builder.accounts(&facts.accounts, numbers);
        builder.cards(&facts.cards, numbers);
    })
}

struct Builder<'a> {
    key: &'a [u8],
    persons: Vec<Person>,
    /// Spans as the rules give them; may still overlap.
    links: BTreeMap<(IdType, String), Vec<Span>>,
    placeholders: usize,
    reviews: Vec<Review>,
    decisions: Vec<Decision>,
}

impl Builder<'_> {
    /// R2 to R5 and R9: a person for the tenures of student numbers that are one's.
    fn students(&mut self, facts: &Facts) {
        let tenures = self.tenures(facts);
        let united = unite(&tenures, facts, &self.decisions, self.key);
        let mut persons: Vec<Option<PersonNo>> = vec![None; tenures.len()];
        let mut held: Vec<Vec<&Tenure>> = Vec::new();
        for (place, tenure) in tenures.iter().enumerate() {
            let first = united.first[place];
            let person = *persons[first].get_or_insert_with(|| {
                let Tenure { number, ordinal, .. } = &tenures[first];
                held.push(Vec::new());
                self.person(&["student", number, &ordinal.to_string()], true)
            });
            held[person as usize].push(tenure);
            let (rule, status) = united.links[place];
            let from = match (rule, tenure.began) {
                (Rule::R5, Some(began)) => tenure.from.max(began - ADMISSION_US),
                _ => tenure.from,
            };
            self.link(IdType::StudentNo, tenure.number.to_string(), Span { from, to: tenure.to, person, rule, status });
        }
        for (person, tenures) in self.persons.iter_mut().zip(held) {
            person.student_nos = numbers(tenures);
        }
        let United { first, reviews, disputed, made_up, .. } = united;
        for person in disputed.into_iter().filter_map(|place| persons[first[place]]) {
            self.persons[person as usize].status = LinkStatus::Disputed;
        }
        self.reviews = reviews;
        self.placeholders += made_up;
    }

    /// The tenures of every number that is anybody's, ordered by number and time.
    fn tenures<'f>(&mut self, facts: &'f Facts) -> Vec<Tenure<'f>> {
        let mut by_number: BTreeMap<String, (Vec<&Student>, Vec<&Enrollment>)> = BTreeMap::new();
        for student in &facts.students {
            if let Some(number) = self.identifier(&student.student_no) {
                by_number.entry(number).or_default().0.push(student);
            }
        }
        for enrollment in &facts.enrollments {
            if let Some(number) = self.identifier(&enrollment.student_no) {
                by_number.entry(number).or_default().1.push(enrollment);
            }
        }
        for number in facts.renumberings.iter().flat_map(|row| [&row.student_no, &row.new_student_no]) {
            if let Some(number) = self.identifier(number) {
                by_number.entry(number).or_default();
            }
        }
        by_number
            .iter()
            .flat_map(|(number, (students, enrollments))| tenure::of_number(number, students, enrollments))
            .collect()
    }

    /// Staff are known from their accounts; a number that is a student's is not staff's as well.
    fn staff(&mut self, accounts: &[Account]) {
        let numbers: BTreeSet<String> = accounts
            .iter()
            .filter(|account| account.user_type.as_deref() == Some("staff"))
            .filter_map(|account| normal::identifier(account.person_no.as_deref()?).map(|number| number.into_owned()))
            .collect();
        for number in numbers {
            if !self.links.contains_key(&(IdType::StudentNo, number.clone())) {
                let person = self.person(&["staff", &number], false);
                let status = LinkStatus::Confirmed;
                self.link(IdType::StaffNo, number, Span { from: SINCE_EVER, to: OPEN, person, rule: Rule::R6, status });
            }
        }
    }

    /// R6: an account belongs to whom its own name, or else its person number, names when it is opened.
    fn accounts(&mut self, accounts: &[Account], numbers: &Index) {
        for account in accounts {
            let Some(uid) = self.identifier(&account.cas_uid) else { continue };
            let by = |number: &str| numbers.resolve_number(number, account.opened_at).span();
            let (person, status) = match (by(&uid), account.person_no.as_deref().and_then(by)) {
                (Some(uid), Some(number)) if uid.person != number.person => {
                    (uid.person.min(number.person), LinkStatus::Disputed)
                }
                (Some(span), _) | (None, Some(span)) => (span.person, span.status),
                (None, None) => continue,
            };
            let from = account.opened_at.unwrap_or(SINCE_EVER).max(SINCE_EVER);
            self.link(IdType::CasUid, uid, Span { from, to: OPEN, person, rule: Rule::R6, status });
        }
    }

    /// R7: an account from its opening on; each medium and physical number until its successor is opened.
    fn cards(&mut self, cards: &[Card], numbers: &Index) {
        let mut successors: HashMap<(String, String), i64> = HashMap::new();
        for card in cards {
            let (Some(account), Some(opened_at)) = (normal::identifier(&card.card_no), card.opened_at) else {
                continue;
            };
            if let Some(previous) = card.prev_card_seq.as_deref().and_then(normal::identifier) {
                let successor = successors.entry((account.into_owned(), previous.into_owned())).or_insert(opened_at);
                *successor = opened_at.min(*successor);
            }
        }
        for card in cards {
            let Some(account) = self.identifier(&card.card_no) else { continue };
            let Some(number) = card.person_no.as_deref().and_then(|number| self.identifier(number)) else { continue };
            let Some(holder) = numbers.resolve_number(&number, card.opened_at).span() else { continue };
            let from = card.opened_at.unwrap_or(SINCE_EVER).max(SINCE_EVER);
            let whole = Span { from, to: OPEN, rule: Rule::R7, ..holder };
            let sequence = self.identifier(&card.card_seq);
            let successor = sequence.as_ref().and_then(|sequence| successors.get(&(account.clone(), sequence.clone())));
            let to = successor.copied().unwrap_or(OPEN);
            if let Some(sequence) = sequence {
                // A purchase is booked late and under the old medium: the account still knows whose it was.
                self.link(IdType::CardSeq, format!("{account}|{sequence}"), whole);
            }
            self.link(IdType::CardNo, account, whole);
            if let Some(physical) = card.physical_no.as_deref().and_then(|physical| self.identifier(physical)) {
                self.link(IdType::CardPhysicalNo, physical, Span { to, ..whole });
            }
        }
    }

    fn identifier(&mut self, value: &str) -> Option<String> {
        let normal = normal::identifier(value).map(|value| value.into_owned());
        self.placeholders += usize::from(normal.is_none());
        normal
    }

    /// A new person. The id is keyed and 128 bits long: it says nothing, and nobody without the key can make it.
    fn person(&mut self, seed: &[&str], is_student: bool) -> PersonNo {
        let (id, status) = (keyed(self.key, seed), LinkStatus::Confirmed);
        self.persons.push(Person { id, is_student, student_nos: Vec::new(), status });
        PersonNo::try_from(self.persons.len() - 1).expect("fewer than 2³² persons")
    }

    fn link(&mut self, id_type: IdType, value: String, span: Span) {
        if span.from < span.to {
            self.links.entry((id_type, value)).or_default().push(span);
        }
    }

    /// Numbers the persons by id, then lets `more` link what belongs to them.
    fn freeze(mut self, more: impl FnOnce(&mut Self, &Index)) -> Index {
        let mut order: Vec<usize> = (0..self.persons.len()).collect();
        order.sort_by(|left, right| self.persons[*left].id.cmp(&self.persons[*right].id));
        let mut places = vec![0; order.len()];
        for (place, person) in order.iter().enumerate() {
            places[*person] = PersonNo::try_from(place).expect("fewer than 2³² persons");
        }
        self.persons = order.into_iter().map(|person| self.persons[person].clone()).collect();
        for span in self.links.values_mut().flatten() {
            span.person = places[span.person as usize];
        }
        let numbers = self.index();
        more(&mut self, &numbers);
        let mut index = self.index();
        for span in index.links.values().flatten() {
            let status = &mut index.persons[span.person as usize].status;
            *status = span.status.max(*status);
        }
        (index.reviews, index.decisions) = (self.reviews, self.decisions);
        index
    }

    fn index(&self) -> Index {
        let links =
            self.links.iter().map(|((id_type, value), spans)| ((*id_type, Arc::from(value.as_str())), settle(spans)));
        let by_id = self.persons.iter().zip(0..).map(|(person, place)| (person.id.clone(), place));
        Index {
            links: links.collect(),
            by_id: by_id.collect(),
            persons: self.persons.clone(),
            placeholders: self.placeholders,
            ..Index::default()
        }
    }
}

/// The numbers of one person: those still in use first, a major study before a minor one, the later before the earlier.
fn numbers(mut tenures: Vec<&Tenure>) -> Vec<Arc<str>> {
    tenures.sort_by_key(|tenure| {
        let is_over = (tenure.to != OPEN, tenure.ends != OPEN);
        (is_over, !tenure.is_major, Reverse(tenure.began), tenure.number.clone())
    });
    let mut numbers: Vec<Arc<str>> = Vec::with_capacity(tenures.len());
    for tenure in tenures {
        if !numbers.contains(&tenure.number) {
            numbers.push(tenure.number.clone());
        }
    }
    numbers
}

/// 32 hexadecimal digits that say nothing, and that nobody without the key can make.
pub(super) fn keyed(key: &[u8], parts: &[&str]) -> Arc<str> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part.as_bytes());
        mac.update(&[0]);
    }
    mac.finalize().into_bytes()[..16].iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

/// Spans as rules gave them enter; spans that follow one another without overlap leave. Where a later span begins, the
/// earlier one ends: the number was given to someone else. Two that begin together for two persons are disputed.
fn settle(spans: &[Span]) -> Vec<Span> {
    let mut sorted = spans.to_vec();
    sorted.sort_unstable();
    let mut settled: Vec<Span> = Vec::with_capacity(sorted.len());
    for together in sorted.chunk_by(|left, right| left.from == right.from) {
        let mut span = together[0];
        for other in together {
            let is_same = other.person == span.person;
            span.status = if is_same { span.status.max(other.status) } else { LinkStatus::Disputed };
            span.to = span.to.max(other.to);
        }
        let is_disputed = |of: &Span| of.status == LinkStatus::Disputed;
        match settled.last_mut() {
            Some(last)
                if last.person == span.person && span.from <= last.to && is_disputed(last) == is_disputed(&span) =>
            {
                last.status = last.status.max(span.status);
                last.to = last.to.max(span.to);
            }
            last => {
                if let Some(last) = last {
                    last.to = last.to.min(span.from);
                }
                settled.push(span);
            }
        }
    }
    settled
}
