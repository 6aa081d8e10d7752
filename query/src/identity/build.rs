//! The rules. [`Facts`] enter, an [`Index`] leaves; neither time nor order nor chance has a part in it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::facts::{Account, Card, Enrollment, Facts, Student};
use super::index::{IdType, Index, LinkStatus, OPEN, Person, PersonNo, Rule, SINCE_EVER, Span};
use super::normal;

/// A number not used for longer than this was given to someone else (学号重用), unless the month of enrolment is the same.
const REUSE_GAP_US: i64 = 3 * 366 * 86_400 * 1_000_000;

/// Builds the index; `key` keys the person ids.
pub fn build(facts: &Facts, key: &[u8]) -> Index {
    let mut builder = Builder { key, persons: Vec::new(), links: BTreeMap::new(), placeholders: 0 };
    builder.students(&facts.students, &facts.enrollments);
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
}

impl Builder<'_> {
    /// R3: one person for each tenure of a student number.
    fn students(&mut self, students: &[Student], enrollments: &[Enrollment]) {
        let mut by_number: BTreeMap<String, (Vec<&Student>, Vec<&Enrollment>)> = BTreeMap::new();
        for student in students {
            if let Some(number) = self.identifier(&student.student_no) {
                by_number.entry(number).or_default().0.push(student);
            }
        }
        for enrollment in enrollments {
            if let Some(number) = self.identifier(&enrollment.student_no) {
                by_number.entry(number).or_default().1.push(enrollment);
            }
        }
        for (number, (students, enrollments)) in by_number {
            let tenures = tenures(&enrollments);
            for (ordinal, tenure) in tenures.iter().enumerate() {
                let records = students.iter().filter(|student| tenure.contains(student.changed_at, tenures.len()));
                let status = if is_contradictory(records) { LinkStatus::Disputed } else { LinkStatus::Confirmed };
                let person = self.person(&["student", &number, &ordinal.to_string()], true);
                let Tenure { from, to, .. } = *tenure;
                self.link(IdType::StudentNo, number.clone(), Span { from, to, person, rule: Rule::R3, status });
            }
        }
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
            let by_uid = numbers.resolve_number(&uid, account.opened_at).person();
            let by_number = account
                .person_no
                .as_deref()
                .and_then(|number| numbers.resolve_number(number, account.opened_at).person());
            let (person, status) = match (by_uid, by_number) {
                (Some(uid), Some(number)) if uid != number => (uid.min(number), LinkStatus::Disputed),
                (Some(person), _) | (None, Some(person)) => (person, LinkStatus::Confirmed),
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
            let Some(person) = numbers.resolve_number(&number, card.opened_at).person() else { continue };
            let from = card.opened_at.unwrap_or(SINCE_EVER).max(SINCE_EVER);
            let status = LinkStatus::Confirmed;
            let whole = Span { from, to: OPEN, person, rule: Rule::R7, status };
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
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key).expect("HMAC takes keys of any length");
        for part in seed {
            mac.update(part.as_bytes());
            mac.update(&[0]);
        }
        let id: String = mac.finalize().into_bytes()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        self.persons.push(Person { id: id.into(), is_student, student_nos: Vec::new(), is_disputed: false });
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
        index.describe_persons();
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
        }
    }
}

impl Index {
    fn describe_persons(&mut self) {
        let mut numbers: Vec<Vec<(bool, Arc<str>)>> = vec![Vec::new(); self.persons.len()];
        for ((id_type, value), spans) in &self.links {
            for span in spans {
                let person = &mut self.persons[span.person as usize];
                person.is_disputed |= span.status == LinkStatus::Disputed;
                if *id_type == IdType::StudentNo {
                    numbers[span.person as usize].push((span.to != OPEN, value.clone()));
                }
            }
        }
        for (person, mut numbers) in self.persons.iter_mut().zip(numbers) {
            numbers.sort();
            person.student_nos = numbers.into_iter().map(|(_, number)| number).collect();
        }
    }
}

/// One uninterrupted use of a student number.
#[derive(Debug, Clone)]
struct Tenure {
    from: i64,
    to: i64,
    month: Option<String>,
    /// The end of the latest enrolment in it.
    ends: i64,
}

impl Tenure {
    /// Whether a record changed at this time is of this tenure; with one tenure, every record is.
    fn contains(&self, at: Option<i64>, tenures: usize) -> bool {
        tenures == 1 || at.map_or(self.to == OPEN, |at| self.from <= at && at < self.to)
    }
}

/// The tenures of one number in order of time; one for ever when nothing is known of its enrolments. The first begins
/// since ever: facts of a new student come before the enrolment that explains them.
fn tenures(enrollments: &[&Enrollment]) -> Vec<Tenure> {
    let mut sorted: Vec<_> = enrollments.iter().filter_map(|row| Some((row.valid_from?, row.valid_to, *row))).collect();
    sorted.sort_by_key(|(from, to, row)| (*from, *to, row.enrol_month.clone()));
    let mut tenures: Vec<Tenure> = Vec::new();
    for (from, to, row) in sorted {
        let ends = to.unwrap_or(OPEN);
        match tenures.last_mut() {
            Some(last)
                if from <= last.ends.saturating_add(REUSE_GAP_US)
                    || last.month.is_some() && last.month == row.enrol_month =>
            {
                last.ends = last.ends.max(ends);
            }
            last => {
                if let Some(last) = last {
                    last.to = from;
                }
                let begins = if tenures.is_empty() { SINCE_EVER } else { from };
                tenures.push(Tenure { from: begins, to: OPEN, month: row.enrol_month.clone(), ends });
            }
        }
    }
    if tenures.is_empty() {
        tenures.push(Tenure { from: SINCE_EVER, to: OPEN, month: None, ends: OPEN });
    }
    tenures
}

/// R3's condition: of two records of a number, the document or the name must agree, as far as both are known.
fn is_contradictory<'a>(records: impl Iterator<Item = &'a &'a Student>) -> bool {
    let known: BTreeSet<(String, &str)> = records
        .filter_map(|record| Some((normal::name(record.name.as_deref()?), record.document.as_deref()?)))
        .collect();
    let known: Vec<_> = known.into_iter().collect();
    known.iter().enumerate().any(|(index, (name, document))| {
        known[..index].iter().any(|(other_name, other_document)| other_name != name && other_document != document)
    })
}

/// Spans as rules gave them enter; spans that follow one another without overlap leave. Where a later span begins, the
/// earlier one ends: the number was given to someone else. Two that begin together for two persons are disputed.
fn settle(spans: &[Span]) -> Vec<Span> {
    let mut sorted = spans.to_vec();
    sorted.sort_unstable();
    let mut settled: Vec<Span> = Vec::with_capacity(sorted.len());
    for span in sorted {
        let Some(last) = settled.last_mut() else {
            settled.push(span);
            continue;
        };
        if last.from == span.from {
            if last.person != span.person || span.status == LinkStatus::Disputed {
                last.status = LinkStatus::Disputed;
            }
            last.to = last.to.max(span.to);
        } else if last.person == span.person && span.from <= last.to && last.status == span.status {
            last.to = last.to.max(span.to);
        } else {
            last.to = last.to.min(span.from);
            settled.push(span);
        }
    }
    settled
}
