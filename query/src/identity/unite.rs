//! Which tenures are one person's. Pairs of the rules and decisions enter; each tenure's person, its link and the questions
//! that remain leave. Decisions go before rules, and what a decision keeps apart no rule brings together, by no detour.

use std::collections::{BTreeMap, HashMap};

use super::Facts;
use super::index::{LinkStatus, OPEN, Rule};
use super::pairs::{self, Pair};
use super::review::{self, Act, Decision, Kind, Review, Uses};
use super::tenure::{Tenure, place};

/// Tenures, put together.
pub struct United {
    /// Of each tenure, the place of the earliest of its person's.
    pub first: Vec<usize>,
    pub links: Vec<(Rule, LinkStatus)>,
    /// Open and decided, ordered by kind and id.
    pub reviews: Vec<Review>,
    /// Places of tenures about whose documents or changes of number there is a question.
    pub disputed: Vec<usize>,
    /// Shared values that are made up.
    pub made_up: usize,
}

type Places = (usize, usize);

/// Puts the tenures of one person together; `decisions` are in order.
pub fn unite(tenures: &[Tenure], facts: &Facts, decisions: &[Decision], key: &[u8]) -> United {
    let decided = decided(tenures, decisions);
    let is_one = |place: usize| decided.get(&(place, place)).is_some_and(|decision| decision.act == Act::Link);
    let is_disputed: Vec<bool> =
        tenures.iter().enumerate().map(|(place, tenure)| tenure.is_contradictory && !is_one(place)).collect();
    let (pairs, made_up) = pairs::all(tenures, &facts.renumberings, &is_disputed);
    let mut sets = Sets::new(tenures.len());
    for act in [Act::Part, Act::Link] {
        for ((left, right), _) in decided.iter().filter(|((left, right), by)| left != right && by.act == act) {
            match act {
                Act::Part => sets.part(*left, *right),
                _ => {
                    sets.join(*left, *right, Rule::Manual);
                }
            }
        }
    }
    let mut asked: BTreeMap<Places, Pair> = BTreeMap::new();
    for mut pair in pairs {
        let (left, right) = pair.places;
        let is_asked = match pair.rule.filter(|_| pair.doubts.is_empty() && !decided.contains_key(&pair.places)) {
            None => true,
            Some(rule) => match sets.join(left, right, rule) {
                Joined::Already => false,
                Joined::Now => rule == Rule::R9,
                Joined::Kept => {
                    pair.doubts.push("a decision about others keeps them apart");
                    true
                }
            },
        };
        if is_asked {
            asked.entry(pair.places).or_insert(pair);
        }
    }
    // Whom another way has brought together, nobody needs to ask about.
    asked.retain(|places, pair| {
        let is_open = places.0 == places.1 || pair.doubts.is_empty() || sets.root(places.0) != sets.root(places.1);
        is_open || decided.contains_key(places)
    });
    let is_dispute = |(places, pair): &(&Places, &Pair)| {
        matches!(pair.kind, Kind::Document | Kind::StatusChange) && !decided.contains_key(places)
    };
    let disputed = asked.iter().filter(is_dispute).flat_map(|(places, _)| [places.0, places.1]).collect();
    let first = first(tenures, &mut sets);
    let alone = |place: usize| match (is_one(place), is_disputed[place]) {
        (true, _) => (Rule::Manual, LinkStatus::Confirmed),
        (_, true) => (Rule::R3, LinkStatus::Disputed),
        _ => (Rule::R3, LinkStatus::Confirmed),
    };
    let mut links: Vec<_> = (0..tenures.len()).map(alone).collect();
    label(&first, &sets.joined, &mut links);
    United { first, links, reviews: reviews(tenures, asked, &decided, key), disputed, made_up }
}

/// The decisions in force, by what they are about today. One about numbers that nobody has any more sleeps.
fn decided<'d>(tenures: &[Tenure], decisions: &'d [Decision]) -> BTreeMap<Places, &'d Decision> {
    let mut decided = BTreeMap::new();
    for decision in review::in_force(decisions) {
        let Uses { first, second } = &decision.uses;
        let Some(left) = place(tenures, &first.number, first.since) else { continue };
        let places = match second {
            None => (left, left),
            Some(second) => match place(tenures, &second.number, second.since) {
                Some(right) if right != left => (left.min(right), left.max(right)),
                _ => continue,
            },
        };
        decided.insert(places, decision);
    }
    decided
}

/// Of each tenure the earliest of its set: by when it began, then by number.
fn first(tenures: &[Tenure], sets: &mut Sets) -> Vec<usize> {
    let began = |place: usize| (tenures[place].began.unwrap_or(OPEN), place);
    let roots: Vec<usize> = (0..tenures.len()).map(|place| sets.root(place)).collect();
    let mut first = roots.clone();
    for (place, &root) in roots.iter().enumerate() {
        if began(place) < began(first[root]) {
            first[root] = place;
        }
    }
    roots.into_iter().map(|root| first[root]).collect()
}

/// A tenure is its person's by the weakest rule on the way to the person's first.
fn label(first: &[usize], joined: &[(usize, usize, Rule)], links: &mut [(Rule, LinkStatus)]) {
    let mut ways: HashMap<usize, Vec<(usize, Rule)>> = HashMap::new();
    for &(left, right, rule) in joined {
        ways.entry(left).or_default().push((right, rule));
        ways.entry(right).or_default().push((left, rule));
    }
    let mut stack: Vec<(usize, usize, Option<Rule>)> =
        ways.keys().filter(|&&place| first[place] == place).map(|&place| (place, place, None)).collect();
    while let Some((place, from, by)) = stack.pop() {
        if let Some(rule) = by.filter(|_| links[place].1 != LinkStatus::Disputed) {
            links[place] = (rule, if rule == Rule::R9 { LinkStatus::Provisional } else { LinkStatus::Confirmed });
        }
        let onward = ways[&place].iter().filter(|(next, _)| *next != from);
        stack.extend(onward.map(|&(next, rule)| (next, place, Some(by.map_or(rule, |by| weakest(by, rule))))));
    }
}

fn weakest(before: Rule, last: Rule) -> Rule {
    [Rule::R9, Rule::Manual].into_iter().find(|weak| [before, last].contains(weak)).unwrap_or(last)
}

fn reviews(
    tenures: &[Tenure],
    mut asked: BTreeMap<Places, Pair>,
    decided: &BTreeMap<Places, &Decision>,
    key: &[u8],
) -> Vec<Review> {
    let mut reviews = Vec::new();
    for (places, decision) in decided {
        let pair = asked.remove(places);
        reviews.push(Review {
            id: decision.review_id.clone(),
            kind: pair.as_ref().map_or(decision.kind, |pair| pair.kind),
            raised_at: decision.raised_at,
            uses: decision.uses.clone(),
            rule: pair.as_ref().and_then(|pair| pair.rule),
            reasons: pair.map(Pair::words).unwrap_or_default(),
            decision: Some((*decision).clone()),
        });
    }
    for ((left, right), pair) in asked {
        let uses = Uses::new(tenures[left].as_use(), Some(tenures[right].as_use()));
        reviews.push(Review {
            id: uses.review_id(key),
            kind: pair.kind,
            raised_at: tenures[left].known.changed_at.max(tenures[right].known.changed_at),
            uses,
            rule: pair.rule,
            reasons: pair.words(),
            decision: None,
        });
    }
    reviews.sort_by(|left, right| (left.kind, &left.id).cmp(&(right.kind, &right.id)));
    reviews
}

impl Pair {
    /// What speaks for it, then what speaks against.
    fn words(self) -> Vec<&'static str> {
        self.reasons.into_iter().chain(self.doubts).collect()
    }
}

enum Joined {
    Now,
    Already,
    /// They may not be one.
    Kept,
}

/// Sets of tenures that only grow, and which of them may never be one.
struct Sets {
    parents: Vec<usize>,
    apart: HashMap<usize, Vec<usize>>,
    /// What has made the sets: one entry less than each has members.
    joined: Vec<(usize, usize, Rule)>,
}

impl Sets {
    fn new(count: usize) -> Self {
        Self { parents: (0..count).collect(), apart: HashMap::new(), joined: Vec::new() }
    }

    fn root(&mut self, mut place: usize) -> usize {
        while self.parents[place] != place {
            self.parents[place] = self.parents[self.parents[place]];
            place = self.parents[place];
        }
        place
    }

    /// Before anything is joined.
    fn part(&mut self, left: usize, right: usize) {
        self.apart.entry(left).or_default().push(right);
        self.apart.entry(right).or_default().push(left);
    }

    fn join(&mut self, left: usize, right: usize, rule: Rule) -> Joined {
        let roots = (self.root(left), self.root(right));
        if roots.0 == roots.1 {
            return Joined::Already;
        }
        let others = self.apart.get(&roots.0).cloned().unwrap_or_default();
        if others.into_iter().any(|other| self.root(other) == roots.1) {
            return Joined::Kept;
        }
        self.parents[roots.1] = roots.0;
        if let Some(others) = self.apart.remove(&roots.1) {
            self.apart.entry(roots.0).or_default().extend(others);
        }
        self.joined.push((left, right, rule));
        Joined::Now
    }
}
