//! Who holds several numbers, what is in doubt, and what decisions do.

use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::{KEY, YEAR, arbitrary_facts, decision, enrollment, links, renumbering, student};
use crate::identity::facts::{Card, Facts, Student};
use crate::identity::index::Index;
use crate::identity::review::{Act, Decision, Use};
use crate::identity::{IdType, build};

/// Links, then questions: why, about which numbers, by which rule, with what reasons, and what was decided.
fn told(index: &Index) -> String {
    let mut out = links(index);
    for review in &index.reviews {
        let second = review.uses.second.as_ref().map(|second| format!(" {}", second.number)).unwrap_or_default();
        let rule = review.rule.map_or("-", |rule| rule.name());
        let decision = review.decision.as_ref().map(|decision| format!(": {:?}", decision.act)).unwrap_or_default();
        let (kind, first, reasons) = (review.kind.name(), &review.uses.first.number, review.reasons.join(", "));
        out += &format!("{kind}? {first}{second} {rule} [{reasons}]{decision}\n");
    }
    out
}

fn check(facts: Facts, expected: Expect) -> Index {
    let index = build(&facts, KEY);
    expected.assert_eq(&told(&index));
    index
}

/// 张三 with document 1:aa, born 2000-01-02, male.
fn zhang(student_no: &str) -> Student {
    Student {
        birth_date: Some("2000-01-02".into()),
        sex_code: Some("1".into()),
        ..student(student_no, "张三", Some("1:aa"))
    }
}

fn of(students: Vec<Student>) -> Facts {
    Facts { students, ..Facts::default() }
}

#[test]
fn r2_equal_documents_are_one_person() {
    // 辅修: two numbers at once. A name may change, unknown is not unlike.
    let minor =
        Student { name: Some("张三丰".into()), sex_code: Some("0".into()), birth_date: None, ..zhang("F2024001") };
    let index = check(
        of(vec![zhang("2024001"), minor]),
        expect![[r#"
        student_no 2024001 [0, …) 2024001 R3 confirmed
        student_no F2024001 [0, …) 2024001 R2 confirmed
    "#]],
    );
    assert_eq!(index.persons.len(), 1);
}

#[test]
fn r2_records_that_disagree_are_asked_about() {
    let other = Student { sex_code: Some("2".into()), ..zhang("2024002") };
    let index = check(
        of(vec![zhang("2024001"), other]),
        expect![[r#"
        student_no 2024001 [0, …) 2024001 R3 confirmed
        student_no 2024002 [0, …) 2024002 R3 confirmed
        document? 2024001 2024002 R2 [equal document, sexes differ]
    "#]],
    );
    assert!(index.persons.iter().all(|person| person.status.name() == "disputed"));
    let other = Student { birth_date: Some("2001-01-02".into()), ..zhang("2024002") };
    check(
        of(vec![zhang("2024001"), other]),
        expect![[r#"
        student_no 2024001 [0, …) 2024001 R3 confirmed
        student_no 2024002 [0, …) 2024002 R3 confirmed
        document? 2024001 2024002 R2 [equal document, birth dates differ]
    "#]],
    );
}

#[test]
fn r2_a_document_is_that_of_the_newest_record() {
    // A clerk had typed another's number, and has mended it.
    let wrong = Student { changed_at: Some(1), ..student("2024002", "李四", Some("1:aa")) };
    let right = Student { changed_at: Some(2), ..student("2024002", "李四", Some("1:bb")) };
    check(
        of(vec![zhang("2024001"), wrong, right]),
        expect![[r#"
        student_no 2024001 [0, …) 2024001 R3 confirmed
        student_no 2024002 [0, …) 2024002 R3 confirmed
    "#]],
    );
}

#[test]
fn r2_a_document_that_many_share_is_made_up() {
    let many = (0..9).map(|number| student(&format!("202400{number}"), "甲", Some("A:00"))).collect();
    let index = build(&of(many), KEY);
    assert_eq!((index.persons.len(), index.placeholders), (9, 1));
}

#[test]
fn nobody_is_one_by_name() {
    let twin = |number: &str, name: &str, document: Option<&str>| {
        let base = student(number, name, document);
        Student { birth_date: Some("2000-01-02".into()), college_id: Some("C01".into()), ..base }
    };
    // Twins have names of their own; equal names with two resident numbers are two persons.
    let facts = of(vec![
        twin("2024001", "张大", Some("1:aa")),
        twin("2024002", "张二", Some("1:ab")),
        twin("2024003", "李四", Some("1:ac")),
        twin("2024004", "李四", Some("1:ad")),
    ]);
    check(
        facts,
        expect![[r#"
        student_no 2024001 [0, …) 2024001 R3 confirmed
        student_no 2024002 [0, …) 2024002 R3 confirmed
        student_no 2024003 [0, …) 2024003 R3 confirmed
        student_no 2024004 [0, …) 2024004 R3 confirmed
    "#]],
    );
    // A passport renewed, or a record without a document: someone has to look.
    let facts = of(vec![
        twin("2024005", "阿卜杜·热合曼", Some("A:p1")),
        twin("2024006", "阿卜杜•热合曼", Some("A:p2")),
        twin("2024007", "王五", None),
        twin("2024008", "王 五", Some("1:ae")),
    ]);
    check(
        facts,
        expect![[r#"
        student_no 2024005 [0, …) 2024005 R3 confirmed
        student_no 2024006 [0, …) 2024006 R3 confirmed
        student_no 2024007 [0, …) 2024007 R3 confirmed
        student_no 2024008 [0, …) 2024008 R3 confirmed
        namesake? 2024005 2024006 - [equal name, birth date and college, no number or document links them]
        namesake? 2024007 2024008 - [equal name, birth date and college, no number or document links them]
    "#]],
    );
}

#[test]
fn r4_a_change_of_number_links_both() {
    let facts = Facts {
        students: vec![student("2024009", "张三", None)],
        // The old number is in no other table any more.
        renumberings: vec![renumbering("2023001", "2024009", 5 * YEAR)],
        ..Facts::default()
    };
    check(
        facts,
        expect![[r#"
        student_no 2023001 [0, …) 2023001 R3 confirmed
        student_no 2024009 [0, …) 2023001 R4 confirmed
    "#]],
    );
    // The old number was given to someone else years before, and the new one in turn.
    let facts = Facts {
        enrollments: vec![
            enrollment("2010001", "201009", YEAR, Some(4 * YEAR)),
            enrollment("2010001", "202409", 15 * YEAR, None),
        ],
        renumberings: vec![renumbering("2010001", "2010002", 16 * YEAR)],
        ..Facts::default()
    };
    check(
        facts,
        expect![[r#"
        student_no 2010001 [0, 474336000000000) 2010001 R3 confirmed
        student_no 2010001 [474336000000000, …) 2010001 R3 confirmed
        student_no 2010002 [0, …) 2010001 R4 confirmed
    "#]],
    );
    let facts = Facts {
        students: vec![student("2023001", "张三", Some("1:aa")), student("2023002", "李四", Some("1:bb"))],
        renumberings: vec![renumbering("2023001", "2023002", 5)],
        ..Facts::default()
    };
    check(
        facts,
        expect![[r#"
        student_no 2023001 [0, …) 2023001 R3 confirmed
        student_no 2023002 [0, …) 2023002 R3 confirmed
        status_change? 2023001 2023002 R4 [a change of number names both, names and documents both differ]
    "#]],
    );
}

#[test]
fn r5_an_alumnus_comes_back() {
    let facts = Facts {
        students: vec![zhang("2020001"), zhang("0240001"), zhang("B270001")],
        enrollments: vec![
            enrollment("2020001", "202009", YEAR, Some(5 * YEAR)),
            enrollment("0240001", "202409", 5 * YEAR, Some(8 * YEAR)),
            enrollment("B270001", "202709", 8 * YEAR, None),
        ],
        ..Facts::default()
    };
    let alone = build(&Facts { students: vec![zhang("2020001")], ..Facts::default() }, KEY);
    let index = check(
        facts,
        expect![[r#"
        student_no 0240001 [142300800000000, …) B270001 R5 confirmed
        student_no 2020001 [0, …) B270001 R3 confirmed
        student_no B270001 [237168000000000, …) B270001 R5 confirmed
    "#]],
    );
    assert_eq!(index.persons[0].id, alone.persons[0].id, "a person keeps the id of the first number");
    assert_eq!(&*index.persons[0].student_nos[0], "B270001");
    let numbers: Vec<&str> = index.persons[0].student_nos.iter().map(|number| &**number).collect();
    assert_eq!(numbers, ["B270001", "0240001", "2020001"]);
    // In use from admission on, and not before.
    assert!(index.resolve(IdType::StudentNo, "0240001", Some(5 * YEAR - YEAR / 4)).person().is_some());
    assert!(index.resolve(IdType::StudentNo, "0240001", Some(4 * YEAR)).person().is_none());
}

#[test]
fn r9_exam_number_and_name_are_provisional() {
    let exam = |base: Student| Student { exam_no: Some("24330106150001".into()), ..base };
    let card = Card {
        card_no: "900".into(),
        card_seq: "1".into(),
        prev_card_seq: None,
        physical_no: None,
        person_no: Some("2024002".into()),
        opened_at: Some(7),
    };
    let facts = Facts {
        students: vec![exam(student("2024001", "张三", None)), exam(student("2024002", "张 三", None))],
        cards: vec![card],
        ..Facts::default()
    };
    let index = check(
        facts,
        expect![[r#"
        student_no 2024001 [0, …) 2024001 R3 confirmed
        student_no 2024002 [0, …) 2024001 R9 provisional
        card_no 900 [7, …) 2024001 R7 provisional
        card_seq 900|1 [7, …) 2024001 R7 provisional
        exam_no? 2024001 2024002 R9 [equal exam number and name]
    "#]],
    );
    assert_eq!(index.persons[0].status.name(), "provisional");
    // R2 makes it certain; another name, and it is nothing.
    check(
        of(vec![exam(zhang("2024001")), exam(zhang("2024002"))]),
        expect![[r#"
        student_no 2024001 [0, …) 2024001 R3 confirmed
        student_no 2024002 [0, …) 2024001 R2 confirmed
    "#]],
    );
    check(
        of(vec![exam(student("2024001", "张三", None)), exam(student("2024002", "李四", None))]),
        expect![[r#"
        student_no 2024001 [0, …) 2024001 R3 confirmed
        student_no 2024002 [0, …) 2024002 R3 confirmed
    "#]],
    );
}

#[test]
fn decisions_go_before_rules() {
    let students = vec![zhang("2024001"), zhang("2024002"), student("2024003", "李四", Some("1:bb"))];
    let with = |decisions: Vec<Decision>| Facts { students: students.clone(), decisions, ..Facts::default() };
    let split = decision(1, Act::Part, "2024002", Some("2024001"));
    let merge = decision(2, Act::Link, "2024002", Some("2024003"));
    check(
        with(vec![split.clone(), merge.clone()]),
        expect![[r#"
        student_no 2024001 [0, …) 2024001 R3 confirmed
        student_no 2024002 [0, …) 2024002 R3 confirmed
        student_no 2024003 [0, …) 2024002 manual confirmed
        document? 2024001 2024002 R2 [equal document]: Part
        by_hand? 2024002 2024003 - []: Link
    "#]],
    );
    // The newest of one question counts; undone, the one before does again.
    let back = decision(3, Act::Link, "2024001", Some("2024002"));
    let undo = decision(4, Act::Undo("d3".into()), "2024001", Some("2024002"));
    check(
        with(vec![undo.clone(), split.clone(), back.clone()]),
        expect![[r#"
        student_no 2024001 [0, …) 2024001 R3 confirmed
        student_no 2024002 [0, …) 2024002 R3 confirmed
        student_no 2024003 [0, …) 2024003 R3 confirmed
        document? 2024001 2024002 R2 [equal document]: Part
    "#]],
    );
    check(
        with(vec![back, split]),
        expect![[r#"
        student_no 2024001 [0, …) 2024001 R3 confirmed
        student_no 2024002 [0, …) 2024001 manual confirmed
        student_no 2024003 [0, …) 2024003 R3 confirmed
        document? 2024001 2024002 R2 [equal document]: Link
    "#]],
    );
}

#[test]
fn a_disputed_number_is_decided() {
    let students =
        vec![student("2024001", "张三", Some("1:aa")), student("2024001", "李四", Some("1:bb")), zhang("2024002")];
    let with = |decisions: Vec<Decision>| Facts { students: students.clone(), decisions, ..Facts::default() };
    check(
        with(vec![]),
        expect![[r#"
        student_no 2024001 [0, …) 2024001 R3 disputed
        student_no 2024002 [0, …) 2024002 R3 confirmed
        number? 2024001 R3 [names and documents both differ]
    "#]],
    );
    check(
        with(vec![decision(1, Act::Part, "2024001", None)]),
        expect![[r#"
        student_no 2024001 [0, …) 2024001 R3 disputed
        student_no 2024002 [0, …) 2024002 R3 confirmed
        number? 2024001 R3 [names and documents both differ]: Part
    "#]],
    );
    check(
        with(vec![decision(1, Act::Link, "2024001", None)]),
        expect![[r#"
        student_no 2024001 [0, …) 2024001 manual confirmed
        student_no 2024002 [0, …) 2024002 R3 confirmed
        number? 2024001 R3 [names and documents both differ]: Link
    "#]],
    );
}

/// Decisions about any two of the numbers, and what undoes any of them.
fn arbitrary_decisions() -> impl Strategy<Value = Vec<Decision>> {
    let one = (0..5u8, prop::option::of(0..5u8), 0..3u8, 0..8i64);
    prop::collection::vec(one, 0..8).prop_map(|rows| {
        let number = |number: u8| format!("S{number}");
        let decide = |(id, (one, other, act, undone)): (i64, (u8, Option<u8>, u8, i64))| {
            let act = match act {
                0 => Act::Link,
                1 => Act::Part,
                _ => Act::Undo(format!("d{undone}").into()),
            };
            decision(id, act, &number(one), other.map(number).as_deref())
        };
        (0..).zip(rows).map(decide).collect()
    })
}

/// All that an index says, but the list of what was ever decided.
fn all(index: &Index) -> (String, String) {
    (links(index), format!("{:?} {:?} {}", index.persons, index.reviews, index.placeholders))
}

proptest! {
    #[test]
    fn undoing_a_decision_is_as_if_it_had_never_been(
        facts in arbitrary_facts(),
        decisions in arbitrary_decisions(),
        undone in 0..8usize,
    ) {
        prop_assume!(undone < decisions.len());
        let mut never = decisions.clone();
        let of = never.remove(undone);
        prop_assume!(!matches!(of.act, Act::Undo(_)));
        let mut undo = decisions;
        undo.push(Decision { id: "last".into(), decided_at: 99, act: Act::Undo(of.id.clone()), ..of });
        let with = |decisions| build(&Facts { decisions, ..facts.clone() }, KEY);
        prop_assert_eq!(all(&with(undo)), all(&with(never)));
    }

    #[test]
    fn the_order_of_decisions_as_rows_never_matters(facts in arbitrary_facts(), decisions in arbitrary_decisions()) {
        let mut twice: Vec<Decision> = decisions.iter().rev().cloned().collect();
        twice.extend(decisions.clone());
        let with = |decisions| build(&Facts { decisions, ..facts.clone() }, KEY);
        prop_assert_eq!(all(&with(decisions)), all(&with(twice)));
    }

    #[test]
    fn what_was_decided_holds(facts in arbitrary_facts(), decisions in arbitrary_decisions()) {
        let index = build(&Facts { decisions, ..facts }, KEY);
        let person = |of: &Use| index.holder(of).map(|span| span.person);
        let decided = index.reviews.iter().filter_map(|review| Some((&review.uses, &review.decision.as_ref()?.act)));
        for (uses, act) in decided {
            let Some(second) = &uses.second else { continue };
            let is_one = person(&uses.first) == person(second);
            // What two decisions say of each other's persons may keep a third from taking effect, never one that parts.
            prop_assert!(!is_one || *act == Act::Link, "{uses:?} {act:?}");
        }
        for review in index.reviews.iter().filter(|review| review.decision.is_none() && review.rule.is_none()) {
            let second = review.uses.second.as_ref().expect("namesakes are two");
            prop_assert_ne!(person(&review.uses.first), person(second), "nobody asks what is answered");
        }
    }

    #[test]
    fn a_person_lists_the_numbers_that_are_linked(facts in arbitrary_facts()) {
        let index = build(&facts, KEY);
        let mut numbers: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
        for (id_type, value, span) in index.links() {
            if id_type == IdType::StudentNo {
                numbers.entry(span.person).or_default().push(value);
            }
        }
        for (person, found) in numbers {
            let mut found = found;
            found.dedup();
            let mut listed: Vec<&str> = index.person(person).student_nos.iter().map(|number| &**number).collect();
            listed.sort_unstable();
            prop_assert_eq!(found, listed);
        }
    }
}
