//! Courses and every sitting of them: first examinations, resits, retakes, deferrals, corrections.

use chrono::{Days, NaiveDate, NaiveDateTime, TimeDelta};

use crate::calendar::{Term, finished_terms};
use crate::cast::Role;
use crate::clock::{at, days_before};
use crate::names::COLLEGES;
use crate::people::{Student, Study};
use crate::plan::Plan;
use crate::random::Random;
use crate::record::{Defect, Record};

/// A course of the catalogue.
#[derive(Clone, Debug)]
pub struct Course {
    pub course_no: String,
    pub name: String,
    pub credits_tenths: i64,
    pub hours: i64,
    /// National codes: nature 1 public, 2 discipline, 3 major; attribute 1 required, 2 limited, 3 free.
    pub nature: &'static str,
    pub attribute: &'static str,
    pub college: &'static str,
    pub changed_at: NaiveDateTime,
}

/// One sitting.
#[derive(Clone, Debug)]
pub struct Grade {
    pub id: u64,
    pub student: u32,
    /// The sitting belongs to the person's former number.
    pub former: bool,
    /// Index into the courses.
    pub course: u32,
    pub term: Term,
    pub nature: Nature,
    /// Sittings of equal number, course, term and nature, by date; the source does not say it (L16).
    pub attempt: u8,
    pub score_tenths: Option<i64>,
    pub level: Option<&'static str>,
    pub passed: Option<bool>,
    pub earned_tenths: i64,
    pub point_hundredths: Option<i64>,
    pub exam_on: NaiveDate,
    pub posted_at: NaiveDateTime,
    pub valid: bool,
    pub changed_at: NaiveDateTime,
}

/// Why a sitting took place, with the national code it must become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    Regular,
    Deferred,
    Missed,
    Resit,
    Retake,
}

impl Nature {
    pub fn code(self) -> &'static str {
        match self {
            Nature::Regular => "01",
            Nature::Deferred => "02",
            Nature::Missed => "03",
            Nature::Resit => "11",
            Nature::Retake => "13",
        }
    }

    /// The vendor writes words.
    pub fn vendor_text(self) -> &'static str {
        match self {
            Nature::Regular => "正常考试",
            Nature::Deferred => "缓考",
            Nature::Missed => "旷考",
            Nature::Resit => "补考",
            Nature::Retake => "重修",
        }
    }
}

/// Results come out this many days after the examination.
const DAYS_TO_POSTING: u64 = 6;
const TERMS_OF_BACHELOR: usize = 8;
const COURSES_OF_BACHELOR_TERM: usize = 4;
const TERMS_OF_MASTER: usize = 4;
const COURSES_OF_MASTER_TERM: usize = 3;
const PUBLIC_COURSES: usize = 2 * TERMS_OF_BACHELOR;
const COLLEGE_COURSES: usize = TERMS_OF_BACHELOR * COURSES_OF_BACHELOR_TERM;
const MASTER_COURSES: usize = TERMS_OF_MASTER * COURSES_OF_MASTER_TERM;
/// A course that nobody takes; broken rows sit on it, so that no attempt is counted wrongly.
const COURSE_OF_NOBODY: usize = PUBLIC_COURSES + COLLEGES.len() * (COLLEGE_COURSES + MASTER_COURSES);
/// A short elective whose results come out on the day.
const COURSE_OF_THE_DAY: usize = COURSE_OF_NOBODY + 1;

/// The catalogue: public courses, then each college's. One course has its hours changed on the day.
pub fn courses(plan: &Plan) -> Vec<Record<Course>> {
    let mut records = Vec::new();
    let changed_at = at(days_before(plan.day, 200), 9, 0, 0);
    let mut add = |course_no: String, name: String, nature, attribute, credits_tenths, college| {
        let hours = credits_tenths * 16 / 10;
        let course = Course { course_no, name, credits_tenths, hours, nature, attribute, college, changed_at };
        records.push(Record::insert(changed_at, course));
    };
    for number in 0..PUBLIC_COURSES {
        let attribute = if number % 2 == 0 { "1" } else { "3" };
        let name = format!("公共课程{}", number + 1);
        add(format!("00{:03}", number + 1), name, "1", attribute, [20, 25][number % 2], "00");
    }
    for college in COLLEGES {
        for number in 0..COLLEGE_COURSES + MASTER_COURSES {
            let nature = if number % 2 == 0 { "2" } else { "3" };
            let attribute = if number % COURSES_OF_BACHELOR_TERM == 3 { "2" } else { "1" };
            let name = format!("{}课程{}", college.name, number + 1);
            let credits = [40, 40, 30, 20][number % COURSES_OF_BACHELOR_TERM];
            add(format!("{}{:03}", college.code, number + 1), name, nature, attribute, credits, college.code);
        }
    }
    add("99001".to_string(), "停开课程".to_string(), "1", "3", 20, "00");
    add("99002".to_string(), "短学期选修".to_string(), "1", "3", 10, "00");
    let changed = Course { hours: 40, changed_at: at(plan.day, 14, 0, 0), ..records[0].value.clone() };
    for index in 0..plan.dead_of_each_kind() {
        let mut broken = records[1].value.clone();
        broken.course_no = format!("98{index:03}");
        broken.credits_tenths = 350;
        records.push(Record::dead(changed_at, Defect::CourseCredits, broken));
    }
    records.push(Record::update(changed.changed_at, changed));
    records
}

/// The courses of a study in its `term_index`-th term: indexes into the catalogue, required ones first.
pub(crate) fn courses_of_term(study: &Study, term_index: usize) -> Vec<usize> {
    let base = PUBLIC_COURSES + study.college * (COLLEGE_COURSES + MASTER_COURSES);
    if study.level == '3' {
        let own = (0..COURSES_OF_BACHELOR_TERM).map(|n| base + term_index * COURSES_OF_BACHELOR_TERM + n);
        own.chain([2 * term_index, 2 * term_index + 1]).collect()
    } else {
        (0..COURSES_OF_MASTER_TERM).map(|n| base + COLLEGE_COURSES + term_index * COURSES_OF_MASTER_TERM + n).collect()
    }
}

/// Every sitting of everybody up to the day, and the results that are posted on it.
pub fn grades(plan: &Plan, students: &[Student], courses: &[Record<Course>]) -> Vec<Record<Grade>> {
    let mut book = Book { plan, courses, records: Vec::new() };
    for (index, student) in students.iter().enumerate() {
        if let Some((_, study)) = &student.former {
            book.study(index, student, study, true);
        }
        book.study(index, student, &student.study, false);
        if Role::at(index).is_none() && index % 23 == 7 {
            book.posted_on_the_day(index, student);
        }
    }
    book.broken(students);
    book.records
}

struct Book<'a> {
    plan: &'a Plan,
    courses: &'a [Record<Course>],
    records: Vec<Record<Grade>>,
}

/// How one examination went.
struct Outcome {
    nature: Nature,
    attempt: u8,
    score_tenths: i64,
    exam_on: NaiveDate,
    term: Term,
}

impl Book<'_> {
    fn study(&mut self, index: usize, student: &Student, study: &Study, former: bool) {
        let mut random = Random::new(self.plan.seed, if former { "former grades" } else { "grades" }, index as u64);
        let role = Role::at(index).filter(|_| !former);
        let limit = if study.level == '3' { TERMS_OF_BACHELOR } else { TERMS_OF_MASTER };
        for (term_index, term) in finished_terms(study.grade_year, self.plan.day, limit).into_iter().enumerate() {
            for (place, course) in courses_of_term(study, term_index).into_iter().enumerate() {
                match planted(role, term_index, place) {
                    Some(scores) => self.planted(index, former, course, term, scores),
                    None => self.course(index, former, course, term, student.ability, &mut random),
                }
            }
        }
    }

    /// First examination and what follows from it.
    fn course(&mut self, index: usize, former: bool, course: usize, term: Term, ability: i64, random: &mut Random) {
        let exam_on = term.end() - Days::new(random.between(3, 12) as u64);
        let mut score_tenths = random.normal(ability * 10, 90).clamp(0, 1000) / 5 * 5;
        if random.chance(5) {
            let outcome = Outcome { nature: Nature::Deferred, attempt: 1, score_tenths: 0, exam_on, term };
            self.sitting(index, former, course, outcome);
        } else if random.chance(3) {
            let outcome = Outcome { nature: Nature::Missed, attempt: 1, score_tenths: 0, exam_on, term };
            self.sitting(index, former, course, outcome);
            score_tenths = 0;
        } else {
            self.sitting(
                index,
                former,
                course,
                Outcome { nature: Nature::Regular, attempt: 1, score_tenths, exam_on, term },
            );
        }
        let mut exam_on = term.next().start() + Days::new(12);
        for attempt in 1..=2 {
            if score_tenths >= 600 || !random.chance(850) {
                break;
            }
            score_tenths = if random.chance(700) { 10 * random.between(60, 78) } else { 10 * random.between(30, 59) };
            self.sitting(
                index,
                former,
                course,
                Outcome { nature: Nature::Resit, attempt, score_tenths, exam_on, term },
            );
            exam_on = exam_on + Days::new(35);
        }
        if score_tenths < 600 && random.chance(600) {
            let term = Term { year: term.year + 1, ..term };
            let score_tenths = 10 * random.between(50, 85);
            let exam_on = term.end() - Days::new(5);
            self.sitting(
                index,
                former,
                course,
                Outcome { nature: Nature::Retake, attempt: 1, score_tenths, exam_on, term },
            );
        }
    }

    fn posted_on_the_day(&mut self, index: usize, student: &Student) {
        let exam_on = days_before(self.plan.day, DAYS_TO_POSTING);
        let (term, score_tenths) = (Term::of(self.plan.day), student.ability * 10);
        let outcome = Outcome { nature: Nature::Regular, attempt: 1, score_tenths, exam_on, term };
        self.sitting(index, false, COURSE_OF_THE_DAY, outcome);
    }

    fn planted(&mut self, index: usize, former: bool, course: usize, term: Term, scores: &[(Nature, i64)]) {
        let mut exam_on = term.end() - Days::new(6);
        for (nature, score_tenths) in scores {
            if *nature == Nature::Missed {
                exam_on = days_before(self.plan.day, 20);
            }
            let outcome = Outcome { nature: *nature, attempt: 1, score_tenths: *score_tenths, exam_on, term };
            self.sitting(index, former, course, outcome);
            exam_on = term.next().start() + Days::new(12);
        }
        if Role::at(index) == Some(Role::CorrectedGrade) && scores == CORRECTED {
            let mut corrected = self.records.last().expect("the planted sitting was just written").clone();
            corrected = Record::update(at(self.plan.day, 10, 30, 0), corrected.value);
            corrected.value.changed_at = corrected.at;
            corrected.value.score_tenths = Some(600);
            corrected.value.passed = Some(true);
            corrected.value.earned_tenths = self.courses[course].value.credits_tenths;
            corrected.value.point_hundredths = Some(100);
            self.records.push(corrected);
        }
    }

    /// Writes one sitting unless its result comes out after the day.
    fn sitting(&mut self, index: usize, former: bool, course: usize, outcome: Outcome) {
        let id = self.records.len() as u64 + 1;
        let posted_at =
            at(outcome.exam_on + Days::new(DAYS_TO_POSTING), 9, 0, 0) + TimeDelta::seconds((id % 30_000) as i64);
        if posted_at >= self.plan.day_start() + TimeDelta::hours(20) {
            return;
        }
        let credits = self.courses[course].value.credits_tenths;
        let passed = outcome.score_tenths >= 600;
        let has_score = outcome.nature != Nature::Deferred && outcome.nature != Nature::Missed;
        // Free electives are graded by level.
        let by_level = self.courses[course].value.attribute == "3";
        let level = match outcome.nature {
            Nature::Deferred => Some("缓考"),
            Nature::Missed => Some("旷考"),
            _ => by_level.then(|| level_of(outcome.score_tenths)),
        };
        let point = if passed { outcome.score_tenths - 500 } else { 0 };
        self.records.push(Record::insert(
            posted_at,
            Grade {
                id,
                student: index as u32,
                former,
                course: course as u32,
                term: outcome.term,
                nature: outcome.nature,
                attempt: outcome.attempt,
                score_tenths: (has_score && !by_level).then_some(outcome.score_tenths),
                level,
                passed: (outcome.nature != Nature::Deferred).then_some(passed && has_score),
                earned_tenths: if passed && has_score { credits } else { 0 },
                point_hundredths: has_score.then_some(point),
                exam_on: outcome.exam_on,
                posted_at,
                // A withdrawn result stays in the table, marked as void (L13).
                valid: Role::at(index).is_some() || !self.plan.befalls(13, id),
                changed_at: posted_at,
            },
        ));
    }

    fn broken(&mut self, students: &[Student]) {
        for index in 0..self.plan.dead_of_each_kind() {
            let mut random = Random::new(self.plan.seed, "grade dead", index as u64);
            for defect in [Defect::GradeScore, Defect::GradeExamDate, Defect::GradeNatureUnknown] {
                let term = Term { year: Term::of(self.plan.day).year - 1, number: 1 };
                let outcome = Outcome {
                    nature: Nature::Regular,
                    attempt: 1,
                    score_tenths: 700,
                    exam_on: term.end() - Days::new(4),
                    term,
                };
                let count = self.records.len();
                self.sitting(random.index(students.len()), false, COURSE_OF_NOBODY, outcome);
                assert!(self.records.len() > count, "a term of the year before is over");
                let mut record = self.records.pop().expect("the sitting was just written");
                if defect == Defect::GradeScore {
                    record.value.score_tenths = Some(1050);
                }
                self.records.push(Record::dead(record.at, defect, record.value));
            }
        }
    }
}

fn level_of(score_tenths: i64) -> &'static str {
    match score_tenths {
        900.. => "优",
        800..900 => "良",
        700..800 => "中",
        600..700 => "及格",
        _ => "不及格",
    }
}

const CORRECTED: &[(Nature, i64)] = &[(Nature::Regular, 550)];
const FAILED: &[(Nature, i64)] = &[(Nature::Regular, 480)];
const PASSED: &[(Nature, i64)] = &[(Nature::Regular, 770)];

/// The marks of the cast where they matter. `place` counts the courses of a term: 4, 4 and 3 credits are required.
fn planted(role: Option<Role>, term_index: usize, place: usize) -> Option<&'static [(Nature, i64)]> {
    let role = role?;
    Some(match (role, term_index, place) {
        (Role::CorrectedGrade, 0 | 1, 0) | (Role::CorrectedGrade, 1, 1) => FAILED,
        (Role::CorrectedGrade, 0, 1) => CORRECTED,
        (Role::FailedCredits, 0 | 1, 0 | 1) | (Role::FailedCredits, 2, 0) => FAILED,
        (Role::ResitPassed, 1, 0) => &[(Nature::Regular, 520), (Nature::Resit, 660)],
        (Role::MissedExamination, 3, 0) => &[(Nature::Missed, 0)],
        _ => PASSED,
    })
}
