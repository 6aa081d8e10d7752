//! Which tenures the rules bring together. Tenures enter; pairs leave, each with its rule, what speaks for it and what
//! speaks against. A pair that nothing speaks against is one person's; any other is a question.

use std::collections::HashMap;
use std::hash::Hash;

use super::facts::Renumbering;
use super::index::{OPEN, Rule};
use super::normal;
use super::review::Kind;
use super::tenure::{Known, Tenure, place};

/// A document, an exam number or a name that more numbers than this share is made up, and brings nobody together.
const SHARED_MAX: usize = 8;

const CONTRADICTION: &str = "names and documents both differ";

/// Two tenures, or one twice when its own records disagree.
#[derive(Debug)]
pub struct Pair {
    pub kind: Kind,
    /// `None`: no rule links by this.
    pub rule: Option<Rule>,
    /// The lower place first.
    pub places: (usize, usize),
    pub reasons: Vec<&'static str>,
    pub doubts: Vec<&'static str>,
}

/// Pairs in the order of the rules, then of the tenures; and how many values were made up.
pub fn all(tenures: &[Tenure], renumberings: &[Renumbering], is_disputed: &[bool]) -> (Vec<Pair>, usize) {
    let mut pairs = Pairs { tenures, is_disputed, found: Vec::new(), made_up: 0 };
    pairs.numbers();
    pairs.documents();
    pairs.renumberings(renumberings);
    pairs.exam_numbers();
    pairs.namesakes();
    pairs.found.sort_by_key(|pair| (pair.rule.is_none(), pair.rule, pair.kind, pair.places));
    (pairs.found, pairs.made_up)
}

struct Pairs<'a> {
    tenures: &'a [Tenure<'a>],
    is_disputed: &'a [bool],
    found: Vec<Pair>,
    made_up: usize,
}

impl<'a> Pairs<'a> {
    /// R3.
    fn numbers(&mut self) {
        let contradictory = self.tenures.iter().enumerate().filter(|(_, tenure)| tenure.is_contradictory);
        self.found.extend(contradictory.map(|(place, _)| Pair {
            kind: Kind::Number,
            rule: Some(Rule::R3),
            places: (place, place),
            reasons: Vec::new(),
            doubts: vec![CONTRADICTION],
        }));
    }

    /// R2, and R5 where the one enrolment had ended before the other began.
    fn documents(&mut self) {
        for places in self.sharing(|known| known.document) {
            let (left, right) = self.known(places);
            let doubts = disagreements(left, right);
            let (left, right) = (&self.tenures[places.0], &self.tenures[places.1]);
            let is_sequel = ends_before(left, right) || ends_before(right, left);
            let (rule, reason) = match is_sequel {
                true => (Rule::R5, "equal document, one enrolment after the other"),
                false => (Rule::R2, "equal document"),
            };
            self.add(Kind::Document, Some(rule), places, reason, doubts);
        }
    }

    /// R4.
    fn renumberings(&mut self, renumberings: &[Renumbering]) {
        for row in renumberings {
            let find = |number: &str| place(self.tenures, &normal::identifier(number)?, row.changed_at.unwrap_or(OPEN));
            let (Some(old), Some(new)) = (find(&row.student_no), find(&row.new_student_no)) else { continue };
            if old == new {
                continue;
            }
            let places = (old.min(new), old.max(new));
            let (left, right) = self.known(places);
            let is_other_person =
                differ(left.name.as_deref(), right.name.as_deref()) && differ(left.document, right.document);
            let doubts = if is_other_person { vec![CONTRADICTION] } else { Vec::new() };
            self.add(Kind::StatusChange, Some(Rule::R4), places, "a change of number names both", doubts);
        }
    }

    /// R9.
    fn exam_numbers(&mut self) {
        for places in self.sharing(|known| Some((known.exam_no.as_deref()?, known.name.as_deref()?))) {
            let (left, right) = self.known(places);
            let doubts = disagreements(left, right);
            self.add(Kind::ExamNo, Some(Rule::R9), places, "equal exam number and name", doubts);
        }
    }

    /// Only ever a question. Two resident numbers, each with its check digit, are two persons.
    fn namesakes(&mut self) {
        let is_resident = |document: Option<&str>| document.is_some_and(|document| document.starts_with("1:"));
        for places in self.sharing(|known| Some((known.name.as_deref()?, known.birth_date?, known.college_id?))) {
            let (left, right) = self.known(places);
            if !(is_resident(left.document) && is_resident(right.document)) {
                let doubts = vec!["no number or document links them"];
                self.add(Kind::Namesake, None, places, "equal name, birth date and college", doubts);
            }
        }
    }

    fn add(
        &mut self,
        kind: Kind,
        rule: Option<Rule>,
        places: (usize, usize),
        reason: &'static str,
        mut doubts: Vec<&'static str>,
    ) {
        if self.is_disputed[places.0] || self.is_disputed[places.1] {
            doubts.push("one of the numbers is disputed");
        }
        self.found.push(Pair { kind, rule, places, reasons: vec![reason], doubts });
    }

    fn known(&self, places: (usize, usize)) -> (&Known<'_>, &Known<'_>) {
        (&self.tenures[places.0].known, &self.tenures[places.1].known)
    }

    /// Every two tenures of which `of` says the same.
    fn sharing<K: Hash + Eq>(&mut self, of: impl Fn(&'a Known<'a>) -> Option<K>) -> Vec<(usize, usize)> {
        let tenures = self.tenures;
        let mut groups: HashMap<K, Vec<usize>> = HashMap::new();
        for (place, tenure) in tenures.iter().enumerate() {
            if let Some(value) = of(&tenure.known) {
                groups.entry(value).or_default().push(place);
            }
        }
        let mut pairs = Vec::new();
        for group in groups.into_values() {
            if group.len() > SHARED_MAX {
                self.made_up += 1;
                continue;
            }
            for (index, &right) in group.iter().enumerate() {
                pairs.extend(group[..index].iter().map(|&left| (left, right)));
            }
        }
        pairs
    }
}

fn ends_before(left: &Tenure, right: &Tenure) -> bool {
    left.began.is_some() && left.ends != OPEN && right.began.is_some_and(|began| left.ends <= began)
}

/// Both are known, and not equal.
fn differ(left: Option<&str>, right: Option<&str>) -> bool {
    left.zip(right).is_some_and(|(left, right)| left != right)
}

fn disagreements(left: &Known, right: &Known) -> Vec<&'static str> {
    let birth = differ(left.birth_date, right.birth_date).then_some("birth dates differ");
    let sex = differ(left.sex_code, right.sex_code).then_some("sexes differ");
    birth.into_iter().chain(sex).collect()
}
