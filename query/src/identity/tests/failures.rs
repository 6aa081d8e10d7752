//! How identifiers go wrong at real schools, where the tests of the rules do not show it already.

use expect_test::expect;

use super::{YEAR, account, card, check, enrollment, student};
use crate::identity::build;
use crate::identity::facts::Facts;

/// Admission put off by a year: a number was issued and never used, and another one is.
#[test]
fn a_number_that_was_never_used_is_the_second_of_its_holder() {
    let facts = Facts {
        students: vec![student("2024001", "张三", Some("1:aa")), student("2025001", "张三", Some("1:aa"))],
        enrollments: vec![enrollment("2025001", "202509", 55 * YEAR, None)],
        ..Facts::default()
    };
    let index = check(
        facts,
        expect![[r#"
        student_no 2024001 [0, …) 2025001 R2 confirmed
        student_no 2025001 [0, …) 2025001 R3 confirmed
    "#]],
    );
    let numbers: Vec<&str> = index.persons[0].student_nos.iter().map(|number| &**number).collect();
    assert_eq!(numbers, ["2025001", "2024001"]);
}

/// A spreadsheet that takes numbers for numbers, a clerk who types O for 0: what is not the same names nobody, and nobody else.
#[test]
fn a_number_that_was_spoilt_names_nobody() {
    let index = build(&Facts { students: vec![student("0240001A", "张三", None)], ..Facts::default() }, super::KEY);
    let is_someone = |number: &str| index.resolve_number(number, None).person().is_some();
    for spoilt in ["240001A", "O240001A", "024OOO1A", "0240001", "2.40001E5", "240001.0", "0240001A0"] {
        assert!(!is_someone(spoilt), "{spoilt}");
    }
    for written in ["0240001A", "0240001a", "０２４０００１Ａ", " 0240001A\u{3000}"] {
        assert!(is_someone(written), "{written}");
    }
}

/// A rare character that one system cannot write, and a name in traditional characters: with one number and one document they
/// are spellings; with two numbers they bring nobody together.
#[test]
fn names_that_systems_write_in_their_own_ways() {
    let numbered = |number: &str, name: &str| super::Student {
        exam_no: Some("24330106150001".into()),
        birth_date: Some("2006-02-03".into()),
        college_id: Some("C01".into()),
        ..student(number, name, None)
    };
    check(
        Facts {
            students: vec![
                student("2024001", "王𬍛", Some("1:aa")),
                student("2024001", "王?", Some("1:aa")),
                student("2024002", "张三", Some("1:bb")),
                student("2024002", "張三", None),
                numbered("2024003", "刘国强"),
                numbered("2024004", "劉國強"),
            ],
            ..Facts::default()
        },
        expect![[r#"
        student_no 2024001 [0, …) 2024001 R3 confirmed
        student_no 2024002 [0, …) 2024002 R3 confirmed
        student_no 2024003 [0, …) 2024003 R3 confirmed
        student_no 2024004 [0, …) 2024004 R3 confirmed
    "#]],
    );
}

/// Staff with a number among the students', a person of the test team with a student's, and their cards.
#[test]
fn staff_and_test_persons_in_the_range_of_students() {
    check(
        Facts {
            students: vec![student("2024001", "张三", None), student("2024999", "测试", Some("1:00"))],
            accounts: vec![
                account("2024500", Some("2024500"), "staff"),
                account("tester", Some("2024999"), "staff"),
                account("2024001", Some("2024001"), "student_ug"),
            ],
            cards: vec![
                card("900", "1", None, "AA01", "2024500", 10),
                card("901", "1", None, "AA02", "2024001", 10),
                card("902", "1", None, "AA03", "2024999", 10),
            ],
            ..Facts::default()
        },
        expect![[r#"
        student_no 2024001 [0, …) 2024001 R3 confirmed
        student_no 2024999 [0, …) 2024999 R3 confirmed
        staff_no 2024500 [0, …) staff R6 confirmed
        cas_uid 2024001 [0, …) 2024001 R6 confirmed
        cas_uid 2024500 [0, …) staff R6 confirmed
        cas_uid TESTER [0, …) 2024999 R6 confirmed
        card_no 900 [10, …) staff R7 confirmed
        card_no 901 [10, …) 2024001 R7 confirmed
        card_no 902 [10, …) 2024999 R7 confirmed
        card_seq 900|1 [10, …) staff R7 confirmed
        card_seq 901|1 [10, …) 2024001 R7 confirmed
        card_seq 902|1 [10, …) 2024999 R7 confirmed
        card_physical_no AA01 [10, …) staff R7 confirmed
        card_physical_no AA02 [10, …) 2024001 R7 confirmed
        card_physical_no AA03 [10, …) 2024999 R7 confirmed
    "#]],
    );
}

/// Two campuses number their cards alike: what both opened on one day is disputed, unless the mapping sets the campus before it.
#[test]
fn two_campuses_with_the_same_range_of_cards() {
    let cards = |north: &str, south: &str| Facts {
        students: vec![student("2024001", "张三", None), student("2024002", "李四", None)],
        cards: vec![
            card(&format!("{north}900"), "1", None, &format!("{north}AA01"), "2024001", 10),
            card(&format!("{south}900"), "1", None, &format!("{south}AA01"), "2024002", 10),
        ],
        ..Facts::default()
    };
    check(
        cards("", ""),
        expect![[r#"
        student_no 2024001 [0, …) 2024001 R3 confirmed
        student_no 2024002 [0, …) 2024002 R3 confirmed
        card_no 900 [10, …) 2024002 R7 disputed
        card_seq 900|1 [10, …) 2024002 R7 disputed
        card_physical_no AA01 [10, …) 2024002 R7 disputed
    "#]],
    );
    check(
        cards("N", "S"),
        expect![[r#"
        student_no 2024001 [0, …) 2024001 R3 confirmed
        student_no 2024002 [0, …) 2024002 R3 confirmed
        card_no N900 [10, …) 2024001 R7 confirmed
        card_no S900 [10, …) 2024002 R7 confirmed
        card_seq N900|1 [10, …) 2024001 R7 confirmed
        card_seq S900|1 [10, …) 2024002 R7 confirmed
        card_physical_no NAA01 [10, …) 2024001 R7 confirmed
        card_physical_no SAA01 [10, …) 2024002 R7 confirmed
    "#]],
    );
}

/// A student who stays as a teacher: the card account goes on under the staff number, and what was done before stays the student's.
#[test]
fn a_student_who_becomes_staff() {
    let index = check(
        Facts {
            students: vec![student("2020001", "张三", Some("1:aa"))],
            enrollments: vec![enrollment("2020001", "202009", 50 * YEAR, Some(54 * YEAR))],
            accounts: vec![account("2020001", Some("2020001"), "alumni"), account("zhangsan", Some("T100"), "staff")],
            cards: vec![
                card("900", "1", None, "AA01", "2020001", 50 * YEAR),
                card("900", "2", Some("1"), "AA02", "T100", 55 * YEAR),
            ],
            ..Facts::default()
        },
        expect![[r#"
        student_no 2020001 [0, …) 2020001 R3 confirmed
        staff_no T100 [0, …) staff R6 confirmed
        cas_uid 2020001 [0, …) 2020001 R6 confirmed
        cas_uid ZHANGSAN [0, …) staff R6 confirmed
        card_no 900 [1581120000000000, 1739232000000000) 2020001 R7 confirmed
        card_no 900 [1739232000000000, …) staff R7 confirmed
        card_seq 900|1 [1581120000000000, …) 2020001 R7 confirmed
        card_seq 900|2 [1739232000000000, …) staff R7 confirmed
        card_physical_no AA01 [1581120000000000, 1739232000000000) 2020001 R7 confirmed
        card_physical_no AA02 [1739232000000000, …) staff R7 confirmed
    "#]],
    );
    let kind = |at| index.resolve_card("900", None, Some(at)).person().map(|person| index.person(person).is_student);
    assert_eq!((kind(51 * YEAR), kind(56 * YEAR)), (Some(true), Some(false)));
}
