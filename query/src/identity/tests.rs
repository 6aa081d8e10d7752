//! Whose was it? Every rule, and the promises of the index held against a slow but obvious one.

use expect_test::{Expect, expect};
use proptest::prelude::*;

mod failures;
mod unite;

use super::facts::{Account, Card, Enrollment, Facts, Renumbering, Student};
use super::index::LinkStatus;
use super::review::{Act, Decision, Kind, Use, Uses};
use super::{IdType, Index, Resolution, build};

const KEY: &[u8] = b"the key of every test";

fn student(student_no: &str, name: &str, document: Option<&str>) -> Student {
    Student {
        student_no: student_no.into(),
        name: Some(name.into()),
        document: document.map(Into::into),
        changed_at: Some(1_000),
        ..Student::default()
    }
}

fn enrollment(student_no: &str, month: &str, from: i64, to: Option<i64>) -> Enrollment {
    let (student_no, enrol_month) = (student_no.into(), Some(month.into()));
    Enrollment { student_no, enrol_month, valid_from: Some(from), valid_to: to, is_major: true }
}

fn renumbering(old: &str, new: &str, changed_at: i64) -> Renumbering {
    Renumbering { student_no: old.into(), new_student_no: new.into(), changed_at: Some(changed_at) }
}

/// Decision number `id` about the first uses of two numbers, or of one.
fn decision(id: i64, act: Act, one: &str, other: Option<&str>) -> Decision {
    let first = |number: &str| Use { number: number.into(), since: 0 };
    let uses = Uses::new(first(one), other.map(first));
    Decision {
        id: format!("d{id}").into(),
        review_id: uses.review_id(KEY),
        kind: Kind::ByHand,
        act,
        uses,
        decided_by: "root".into(),
        note: String::new(),
        raised_at: 1,
        decided_at: id,
    }
}

fn card(account: &str, sequence: &str, previous: Option<&str>, physical: &str, person: &str, opened_at: i64) -> Card {
    Card {
        card_no: account.into(),
        card_seq: sequence.into(),
        prev_card_seq: previous.map(Into::into),
        physical_no: Some(physical.into()),
        person_no: Some(person.into()),
        opened_at: Some(opened_at),
    }
}

fn account(uid: &str, person: Option<&str>, kind: &str) -> Account {
    Account { cas_uid: uid.into(), person_no: person.map(Into::into), user_type: Some(kind.into()), opened_at: Some(0) }
}

/// Every link, a line each; persons by their first number.
fn links(index: &Index) -> String {
    let name = |person| {
        let person = index.person(person);
        person.student_nos.first().map_or("staff".to_string(), ToString::to_string)
    };
    let mut out = String::new();
    for (id_type, value, span) in index.links() {
        let to = if span.to == i64::MAX { "…".to_string() } else { span.to.to_string() };
        let (rule, status) = (span.rule.name(), span.status.name());
        out += &format!("{} {value} [{}, {to}) {} {rule} {status}\n", id_type.name(), span.from, name(span.person));
    }
    out
}

fn check(facts: Facts, expected: Expect) -> Index {
    let index = build(&facts, KEY);
    expected.assert_eq(&links(&index));
    index
}

const YEAR: i64 = 366 * 86_400 * 1_000_000;

#[test]
fn r0_placeholders_link_nothing() {
    let facts = Facts {
        students: vec![student("0000", "无", None), student("2024001", "张三", None)],
        cards: vec![card("1", "1", None, "00000000", "2024001", 5), card("2", "1", None, "A1", "0", 5)],
        ..Facts::default()
    };
    let index = check(
        facts,
        expect![[r#"
        student_no 2024001 [0, …) 2024001 R3 confirmed
        card_no 1 [5, …) 2024001 R7 confirmed
        card_seq 1|1 [5, …) 2024001 R7 confirmed
    "#]],
    );
    assert_eq!(index.placeholders, 3);
    assert_eq!(index.resolve_access(Some("0"), Some(""), Some(9)), Resolution::Placeholder);
}

#[test]
fn r3_one_number_is_one_person_until_it_is_given_away() {
    let facts = Facts {
        students: vec![student("2010001", "王五", None)],
        enrollments: vec![
            enrollment("2010001", "201009", YEAR, Some(2 * YEAR)),
            enrollment("2010001", "201009", 2 * YEAR, Some(5 * YEAR)),
            enrollment("2010001", "202409", 15 * YEAR, None),
        ],
        ..Facts::default()
    };
    let index = check(
        facts,
        expect![[r#"
        student_no 2010001 [0, 474336000000000) 2010001 R3 confirmed
        student_no 2010001 [474336000000000, …) 2010001 R3 confirmed
    "#]],
    );
    let person = |at| index.resolve(IdType::StudentNo, "2010001", Some(at)).person();
    assert_eq!(person(YEAR), person(6 * YEAR));
    assert_ne!(person(YEAR), person(15 * YEAR));
    assert_eq!(index.resolve(IdType::StudentNo, "2010001", None).person(), person(16 * YEAR));
}

#[test]
fn r3_name_and_document_both_different_is_disputed() {
    let students = |second: (&str, Option<&str>)| Facts {
        students: vec![student("2024001", "张三", Some("1:aa")), student("2024001", second.0, second.1)],
        ..Facts::default()
    };
    check(
        students(("李四", Some("1:aa"))),
        expect![[r#"
        student_no 2024001 [0, …) 2024001 R3 confirmed
    "#]],
    );
    check(
        students(("张 三", Some("1:bb"))),
        expect![[r#"
        student_no 2024001 [0, …) 2024001 R3 confirmed
    "#]],
    );
    check(
        students(("李四", None)),
        expect![[r#"
        student_no 2024001 [0, …) 2024001 R3 confirmed
    "#]],
    );
    let index = check(
        students(("李四", Some("1:bb"))),
        expect![[r#"
        student_no 2024001 [0, …) 2024001 R3 disputed
    "#]],
    );
    assert!(matches!(index.resolve(IdType::StudentNo, "2024001", None), Resolution::Disputed(_)));
    assert_eq!(index.persons[0].status, LinkStatus::Disputed);
}

#[test]
fn r6_accounts() {
    let facts = Facts {
        students: vec![student("2024001", "张三", None), student("2024002", "李四", None)],
        accounts: vec![
            account("2024001", Some("2024001"), "student_ug"),
            account("zhangsan", Some("２０２４００１"), "student_ug"),
            account("2024002", Some("2024001"), "student_ug"),
            account("t001", Some("T001"), "staff"),
            account("visitor", None, "visitor"),
        ],
        ..Facts::default()
    };
    check(
        facts,
        expect![[r#"
        student_no 2024001 [0, …) 2024001 R3 confirmed
        student_no 2024002 [0, …) 2024002 R3 confirmed
        staff_no T001 [0, …) staff R6 confirmed
        cas_uid 2024001 [0, …) 2024001 R6 confirmed
        cas_uid 2024002 [0, …) 2024002 R6 disputed
        cas_uid T001 [0, …) staff R6 confirmed
        cas_uid ZHANGSAN [0, …) 2024001 R6 confirmed
    "#]],
    );
}

#[test]
fn r7_reissue_and_reuse_of_cards() {
    let facts = Facts {
        students: vec![student("2024001", "张三", None), student("2024002", "李四", None)],
        cards: vec![
            card("900", "1", None, "AA01", "2024001", 10),
            card("900", "2", Some("1"), "AA02", "2024001", 20),
            // The virtual card of the same account ends nothing.
            card("900", "9", None, "VV01", "2024001", 15),
            // The first medium, given to someone else.
            card("901", "1", None, "AA01", "2024002", 50),
        ],
        ..Facts::default()
    };
    let index = check(
        facts,
        expect![[r#"
        student_no 2024001 [0, …) 2024001 R3 confirmed
        student_no 2024002 [0, …) 2024002 R3 confirmed
        card_no 900 [10, …) 2024001 R7 confirmed
        card_no 901 [50, …) 2024002 R7 confirmed
        card_seq 900|1 [10, …) 2024001 R7 confirmed
        card_seq 900|2 [20, …) 2024001 R7 confirmed
        card_seq 900|9 [15, …) 2024001 R7 confirmed
        card_seq 901|1 [50, …) 2024002 R7 confirmed
        card_physical_no AA01 [10, 20) 2024001 R7 confirmed
        card_physical_no AA01 [50, …) 2024002 R7 confirmed
        card_physical_no AA02 [20, …) 2024001 R7 confirmed
        card_physical_no VV01 [15, …) 2024001 R7 confirmed
    "#]],
    );
    let owner = |at| index.resolve(IdType::CardPhysicalNo, "aa01", Some(at)).person();
    assert_eq!(owner(9), None);
    assert_eq!(owner(10), index.resolve_number("2024001", None).person());
    assert_eq!(owner(30), None);
    assert_eq!(owner(50), index.resolve_number("2024002", None).person());
    assert_eq!(index.resolve_card("900", Some("1"), Some(40)).person(), index.resolve_number("2024001", None).person());
    assert_eq!(
        index.resolve_card("900", Some("77"), Some(40)).person(),
        index.resolve_number("2024001", None).person()
    );
}

#[test]
fn r7_two_owners_at_once_are_disputed() {
    let facts = Facts {
        students: vec![student("2024001", "张三", None), student("2024002", "李四", None)],
        cards: vec![card("900", "1", None, "AA01", "2024001", 10), card("901", "1", None, "AA01", "2024002", 10)],
        ..Facts::default()
    };
    let index = build(&facts, KEY);
    assert!(matches!(index.resolve(IdType::CardPhysicalNo, "AA01", Some(11)), Resolution::Disputed(_)));
}

#[test]
fn r8_person_number_and_card_must_agree_at_the_time() {
    let facts = Facts {
        students: vec![student("2024001", "张三", None), student("2024002", "李四", None)],
        cards: vec![card("900", "1", None, "AA01", "2024001", 10), card("901", "1", None, "AA02", "2024002", 10)],
        ..Facts::default()
    };
    let index = build(&facts, KEY);
    let name = |no: Option<&str>, card: Option<&str>, at| match index.resolve_access(no, card, Some(at)) {
        Resolution::Linked(span) => index.person(span.person).student_nos[0].to_string(),
        other => format!("{other:?}"),
    };
    assert_eq!(name(Some("2024001"), Some("AA01"), 11), "2024001");
    assert_eq!(name(Some("2024001"), None, 11), "2024001");
    assert_eq!(name(Some("0"), Some("AA02"), 11), "2024002");
    assert_eq!(name(Some("2024001"), Some("AA02"), 11), "Disputed(None)");
    // Before the card was opened only the number counts.
    assert_eq!(name(Some("2024001"), Some("AA02"), 9), "2024001");
    assert_eq!(name(Some("X9"), Some("BB"), 11), "Unlinked");
}

fn arbitrary_facts() -> impl Strategy<Value = Facts> {
    let number = (0..5u8).prop_map(|number| format!("S{number}"));
    let person = (0..7u8).prop_map(|number| format!("S{number}"));
    let time = 0..30i64;
    let known = (0..3u8, prop::option::of(0..3u8), prop::option::of(0..2u8), prop::option::of(0..3u8));
    let students = prop::collection::vec((number.clone(), known, time.clone()), 0..8);
    let enrollments = prop::collection::vec((number.clone(), 0..3u8, time.clone(), prop::option::of(0..20i64)), 0..6);
    let cards = prop::collection::vec((0..3u8, 0..4u8, prop::option::of(0..4u8), 0..5u8, person, time.clone()), 0..10);
    let renumberings = prop::collection::vec((number.clone(), number, time), 0..3);
    (students, enrollments, cards, renumberings).prop_map(|(students, enrollments, cards, renumberings)| Facts {
        students: students
            .into_iter()
            .map(|(student_no, (name, document, sex, exam_no), at)| Student {
                student_no,
                name: Some(format!("name {name}")),
                document: document.map(|document| format!("1:{document}")),
                changed_at: Some(at * YEAR),
                sex_code: sex.map(|sex| sex.to_string()),
                exam_no: exam_no.map(|exam_no| format!("9{exam_no}")),
                birth_date: Some("2006-02-03".into()),
                college_id: Some("C01".into()),
            })
            .collect(),
        enrollments: enrollments
            .into_iter()
            .map(|(number, month, from, length)| {
                let to = length.map(|length| (from + length) * YEAR);
                enrollment(&number, &format!("20{month:02}09"), from * YEAR, to)
            })
            .collect(),
        cards: cards
            .into_iter()
            .map(|(account, sequence, previous, physical, person, at)| {
                let previous = previous.map(|previous| previous.to_string());
                let (account, sequence) = (format!("A{account}"), sequence.to_string());
                card(
                    &account,
                    &format!("1{sequence}"),
                    previous.map(|p| format!("1{p}")).as_deref(),
                    &format!("C{physical}"),
                    &person,
                    at * YEAR,
                )
            })
            .collect(),
        renumberings: renumberings.into_iter().map(|(old, new, at)| renumbering(&old, &new, at * YEAR)).collect(),
        ..Facts::default()
    })
}

/// R7 for physical numbers, by its words: of the cards with this number that are open at the time and were opened last,
/// all name the same person.
fn owner_by_the_words(facts: &Facts, index: &Index, physical: &str, at: i64) -> Option<u32> {
    let open: Vec<&Card> = facts
        .cards
        .iter()
        .filter(|card| card.physical_no.as_deref() == Some(physical) && card.opened_at <= Some(at))
        .filter(|card| index.resolve_number(card.person_no.as_deref().unwrap(), card.opened_at).person().is_some())
        .filter(|card| card.opened_at < successor(facts, card))
        .collect();
    let last = open.iter().filter_map(|card| card.opened_at).max()?;
    let of_last: Vec<&&Card> = open.iter().filter(|card| card.opened_at == Some(last)).collect();
    let owners: std::collections::BTreeSet<u32> = of_last
        .iter()
        .filter_map(|card| index.resolve_number(card.person_no.as_deref().unwrap(), card.opened_at).person())
        .collect();
    let ends = of_last.iter().filter_map(|card| successor(facts, card)).max()?;
    // A medium of the same owner that is still open covers what a closed one leaves.
    let covered = ends > at
        || open.iter().any(|card| {
            let owner = index.resolve_number(card.person_no.as_deref().unwrap(), card.opened_at).person();
            owner == owners.first().copied()
                && successor(facts, card) > Some(at)
                && is_unbroken(facts, index, &open, card)
        });
    (owners.len() == 1 && covered).then(|| owners.into_iter().next()).flatten()
}

fn is_unbroken(_facts: &Facts, index: &Index, open: &[&Card], from: &Card) -> bool {
    let owner = |card: &Card| index.resolve_number(card.person_no.as_deref().unwrap(), card.opened_at).person();
    open.iter().all(|card| card.opened_at < from.opened_at || owner(card) == owner(from))
}

fn successor(facts: &Facts, card: &Card) -> Option<i64> {
    let next = facts
        .cards
        .iter()
        .filter(|other| other.card_no == card.card_no && other.prev_card_seq.as_deref() == Some(&card.card_seq))
        .filter_map(|other| other.opened_at)
        .min();
    Some(next.unwrap_or(i64::MAX))
}

proptest! {
    #[test]
    fn order_never_matters(facts in arbitrary_facts(), seed in any::<u64>()) {
        let mut shuffled = facts.clone();
        let turn = |length: usize| if length == 0 { 0 } else { usize::try_from(seed % 97).unwrap() % length };
        shuffled.students.reverse();
        let (cards, enrollments) = (turn(shuffled.cards.len()), turn(shuffled.enrollments.len()));
        shuffled.renumberings.reverse();
        shuffled.cards.rotate_left(cards);
        shuffled.enrollments.rotate_left(enrollments);
        let (left, right) = (build(&facts, KEY), build(&shuffled, KEY));
        prop_assert_eq!(links(&left), links(&right));
        prop_assert_eq!(left.persons, right.persons);
        prop_assert_eq!(left.reviews, right.reviews);
    }

    #[test]
    fn spans_never_overlap(facts in arbitrary_facts()) {
        let index = build(&facts, KEY);
        let links = index.links();
        for pair in links.windows(2) {
            let ((left_type, left_value, left), (right_type, right_value, right)) = (pair[0], pair[1]);
            prop_assert!(left.from < left.to);
            if (left_type, left_value) == (right_type, right_value) {
                prop_assert!(left.to <= right.from, "{left:?} {right:?}");
            }
        }
    }

    #[test]
    fn cards_belong_to_whom_the_rule_says(facts in arbitrary_facts(), at in 0..32i64) {
        let index = build(&facts, KEY);
        for physical in 0..5 {
            let physical = format!("C{physical}");
            let resolution = index.resolve(IdType::CardPhysicalNo, &physical, Some(at * YEAR));
            if !matches!(resolution, Resolution::Disputed(_)) {
                prop_assert_eq!(resolution.person(), owner_by_the_words(&facts, &index, &physical, at * YEAR));
            }
        }
    }
}
