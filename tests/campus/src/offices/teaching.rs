//! The registrar: classes of the term, who has selected them, who came, and the yearly fitness test.

use std::collections::BTreeMap;

use chrono::{Datelike, Days, TimeDelta};

use crate::academics::courses_of_term;
use crate::calendar::{Term, finished_terms};
use crate::campus::Campus;
use crate::cast::Role;
use crate::clock::{at, compact_date, dashed, dashed_date, days_before};
use crate::offices::Office;
use crate::random::Random;
use crate::record::Defect;
use crate::source::{System, Table};

/// One row a weekly meeting of a class.
pub static JXBXXB: Table = Table {
    name: "JW_JXRW_JXBXXB",
    columns: &[
        ("JXBID", "VARCHAR(60) NOT NULL"),
        ("SDXH", "INTEGER NOT NULL"),
        ("KCH", "VARCHAR(30)"),
        ("XN", "VARCHAR(12)"),
        ("XQM", "VARCHAR(4)"),
        ("GH", "VARCHAR(20)"),
        ("XQJ", "INTEGER"),
        ("JCQ", "INTEGER"),
        ("JCZ", "INTEGER"),
        ("ZCSM", "VARCHAR(60)"),
        ("CDMC", "VARCHAR(60)"),
        ("SKKSRQ", "VARCHAR(30)"),
        ("TSTAMP", "VARCHAR(30) NOT NULL"),
    ],
    key: &["JXBID", "SDXH"],
    indexes: &["TSTAMP, JXBID, SDXH"],
};

pub static XSXKB: Table = Table {
    name: "JW_XK_XSXKB",
    columns: &[
        ("XH", "VARCHAR(30) NOT NULL"),
        ("JXBID", "VARCHAR(60) NOT NULL"),
        ("KCH", "VARCHAR(30)"),
        ("XKSJ", "VARCHAR(30)"),
        ("XKZT", "VARCHAR(4)"),
        ("CXCKDM", "VARCHAR(4)"),
        ("TSTAMP", "VARCHAR(30) NOT NULL"),
    ],
    key: &["XH", "JXBID"],
    indexes: &["TSTAMP, XH, JXBID"],
};

/// 课堂签到; the place of the telephone is in it and is not asked for.
pub static KCQDB: Table = Table {
    name: "JW_KQ_KCQDB",
    columns: &[
        ("XH", "VARCHAR(30) NOT NULL"),
        ("JXBID", "VARCHAR(60) NOT NULL"),
        ("SKRQ", "VARCHAR(30) NOT NULL"),
        ("JCQ", "INTEGER NOT NULL"),
        ("QDZT", "VARCHAR(4)"),
        ("QDFS", "VARCHAR(20)"),
        ("QDSJ", "VARCHAR(30)"),
        ("JWD", "VARCHAR(60)"),
        ("TSTAMP", "VARCHAR(30) NOT NULL"),
    ],
    key: &["XH", "JXBID", "SKRQ", "JCQ"],
    indexes: &["TSTAMP, XH, JXBID, SKRQ, JCQ"],
};

/// 体测成绩, with heights and weights that are not asked for.
pub static TCCJB: Table = Table {
    name: "JW_TY_TCCJB",
    columns: &[
        ("XH", "VARCHAR(30) NOT NULL"),
        ("CSND", "VARCHAR(4) NOT NULL"),
        ("CSRQ", "VARCHAR(30)"),
        ("ZF", "DECIMAL(5,1)"),
        ("DJ", "VARCHAR(20)"),
        ("SG", "DECIMAL(5,1)"),
        ("TZ", "DECIMAL(5,1)"),
        ("TSTAMP", "VARCHAR(30) NOT NULL"),
    ],
    key: &["XH", "CSND"],
    indexes: &["TSTAMP, XH, CSND"],
};

/// A class of the present term: the place of its course in the catalogue and its sign, `(2026-2027-1)-00017-01`.
struct Class {
    course: usize,
    sign: String,
    weekday: usize,
    section: usize,
}

pub fn offices(campus: &Campus) -> Vec<Office> {
    let term = Term::of(campus.plan.day);
    let mut classes: BTreeMap<usize, Class> = BTreeMap::new();
    let mut takes: Vec<(usize, usize)> = Vec::new();
    for (student, person) in campus.students.iter().enumerate() {
        let terms_over = finished_terms(person.study.grade_year, campus.plan.day, usize::MAX).len();
        for course in courses_of_term(&person.study, terms_over % 4).into_iter().take(2) {
            let sign =
                format!("({}-{})-{}-01", term.academic_year(), term.number, campus.courses[course].value.course_no);
            let (weekday, section) = (course % 5 + 1, course % 4 * 2 + 1);
            classes.entry(course).or_insert(Class { course, sign, weekday, section });
            takes.push((student, course));
        }
    }
    vec![
        meetings(campus, term, &classes),
        selections(campus, term, &classes, &takes),
        attendance(campus, &classes, &takes),
        fitness(campus),
    ]
}

fn meetings(campus: &Campus, term: Term, classes: &BTreeMap<usize, Class>) -> Office {
    let mut office = Office::new("academic.teaching_class", System::Academic, &JXBXXB);
    let planned = at(days_before(term.start(), 40), 10, 0, 0);
    let (year, code) = (term.academic_year(), term.vendor_code());
    for class in classes.values() {
        let teacher = &campus.staff[class.course % campus.staff.len()].staff_no;
        let [day, from, to] = [class.weekday, class.section, class.section + 1].map(|number| number.to_string());
        let begins = compact_date(term.start() + Days::new(class.weekday as u64 - 1));
        let (course, place) =
            (&campus.courses[class.course].value.course_no, format!("J1-{}", 101 + class.course % 60));
        let weeks = if class.course % 2 == 0 { "1-16" } else { "1-8,10-17" };
        let values: &mut [&str] = &mut [
            &class.sign,
            "1",
            course,
            &year,
            code,
            teacher,
            &day,
            &from,
            &to,
            weeks,
            &place,
            &begins,
            &dashed(planned),
        ];
        office.insert(planned, format!("{} 1", class.sign), values);
        // The first class is moved to another room on the day.
        if office.records.len() == 1 {
            let moved = at(campus.plan.day, 8, 30, 0);
            let time = dashed(moved);
            (values[10], values[12]) = ("J2-305", &time);
            office.update(moved, format!("{} 1", class.sign), values);
        }
    }
    office.broken(&campus.plan, Defect::ClassWeeks, "ZCSM", "单周");
    office
}

fn selections(campus: &Campus, term: Term, classes: &BTreeMap<usize, Class>, takes: &[(usize, usize)]) -> Office {
    let mut office = Office::new("academic.course_selection", System::Academic, &XSXKB);
    let selected = at(days_before(term.start(), 20), 13, 0, 0);
    let dropped = at(campus.plan.day, 12, 40, 0);
    for (student, course) in takes {
        let (number, class) = (&campus.students[*student].student_no, &classes[course].sign);
        let (no, key) = (&campus.courses[*course].value.course_no, format!("{number} {class}"));
        let time = dashed(selected);
        let again = if student % 50 == 3 { "1" } else { "0" };
        office.insert(selected, &key, &[number, class, no, &time, "1", again, &time]);
        if Role::at(*student).is_none() && student % 40 == 27 && selected < campus.plan.day_start() {
            office.update(dropped, &key, &[number, class, no, &time, "0", again, &dashed(dropped)]);
        }
    }
    office.broken(&campus.plan, Defect::SelectionTime, "XKSJ", "2026-06-31 13:00");
    office
}

/// The last two meetings of each class, the day's among them.
fn attendance(campus: &Campus, classes: &BTreeMap<usize, Class>, takes: &[(usize, usize)]) -> Office {
    let mut office = Office::new("academic.attendance", System::Academic, &KCQDB);
    let weekday = campus.plan.day.weekday().number_from_monday() as usize;
    for (place, (student, course)) in takes.iter().enumerate() {
        let (class, number) = (&classes[course], &campus.students[*student].student_no);
        let mut random = Random::new(campus.plan.seed, "attendance", place as u64);
        let last = ((weekday + 7 - class.weekday) % 7) as u64;
        for back in [last + 7, last] {
            let day = days_before(campus.plan.day, back);
            let begins = at(day, 8 + class.section as u32, 0, 0);
            let signed = dashed(begins + TimeDelta::seconds(random.between(-300, 600)));
            let (state, signed) = match random.below(100) {
                0..=84 => ("1", signed.as_str()),
                85..=90 => ("3", signed.as_str()),
                91..=94 => ("2", ""),
                _ => ("4", ""),
            };
            let (date, section) = (dashed_date(day), class.section.to_string());
            let way = if student % 2 == 0 { "微信" } else { "APP" };
            let ends = begins + TimeDelta::minutes(95);
            let values: &[&str] =
                &[number, &class.sign, &date, &section, state, way, signed, "30.27,120.15", &dashed(ends)];
            office.insert(ends, format!("{number} {} {date}", class.sign), values);
        }
    }
    office.broken(&campus.plan, Defect::AttendanceSection, "JCQ", "15");
    office
}

fn fitness(campus: &Campus) -> Office {
    let mut office = Office::new("extension.fitness_test", System::Academic, &TCCJB);
    let day = days_before(campus.plan.day, 35);
    let (tested, year) = (at(day, 17, 0, 0), day.format("%Y").to_string());
    for (index, student) in campus.students.iter().enumerate().filter(|(_, student)| student.study.level == '3') {
        let mut random = Random::new(campus.plan.seed, "fitness", index as u64);
        let score = random.normal(745, 90).clamp(200, 1100);
        let grade = match score {
            900.. => "优秀",
            800..900 => "良好",
            600..800 => "及格",
            _ => "不及格",
        };
        let (number, score) = (&student.student_no, format!("{}.{}", score / 10, score % 10));
        let values: &[&str] = &[number, &year, &compact_date(day), &score, grade, "172.5", "61.0", &dashed(tested)];
        office.insert(tested, format!("{number} {year}"), values);
    }
    office.broken(&campus.plan, Defect::FitnessScore, "ZF", "185.0");
    office
}
