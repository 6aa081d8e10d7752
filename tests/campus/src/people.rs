//! Students and staff: who they are, and the numbers by which systems know them.

use std::collections::{HashMap, HashSet};

use chrono::{Datelike, NaiveDate};

use crate::calendar::Term;
use crate::cast::Role;
use crate::clock::date;
use crate::names::{COLLEGES, DOTTED, FOREIGN, GIVEN, NATIONS, REGIONS, SURNAMES};
use crate::plan::Plan;
use crate::random::Random;

/// One current student. The place in the list is the person.
#[derive(Clone, Debug)]
pub struct Student {
    pub student_no: String,
    pub name: String,
    /// 1 male, 2 female.
    pub sex: u8,
    pub birth: NaiveDate,
    /// '1' resident identity card, 'A' passport.
    pub id_doc_type: char,
    pub id_doc_no: String,
    /// Index into `names::NATIONS`.
    pub nation: usize,
    pub region: &'static str,
    pub exam_no: String,
    pub study: Study,
    /// The undergraduate number of a master's student who was one here.
    pub former: Option<(String, Study)>,
    pub resident: bool,
    pub party_member: bool,
    /// "", "1", "2" or "3".
    pub hardship: &'static str,
    /// Mean of the marks, 40 to 95.
    pub ability: i64,
}

/// Determinations of hardship; most have none.
const HARDSHIPS: &[&str] = &["", "", "", "", "3", "3", "2", "1"];

/// What a student number studies.
#[derive(Clone, Debug)]
pub struct Study {
    /// Index into `names::COLLEGES`.
    pub college: usize,
    /// Index into the college's majors.
    pub major: usize,
    pub grade_year: i32,
    /// '1' doctor, '2' master, '3' bachelor.
    pub level: char,
    pub class_no: usize,
    /// Index into the staff.
    pub counselor: usize,
}

/// A counselor.
#[derive(Clone, Debug)]
pub struct Staff {
    pub staff_no: String,
    pub name: String,
    pub college: usize,
}

impl Study {
    pub fn college_code(&self) -> &'static str {
        COLLEGES[self.college].code
    }

    pub fn major_code(&self) -> &'static str {
        COLLEGES[self.college].majors[self.major].0
    }

    pub fn class_id(&self) -> String {
        format!("{}{:02}{:02}", self.major_code(), self.grade_year % 100, self.class_no)
    }

    pub fn years(&self) -> i32 {
        if self.level == '3' { 4 } else { 3 }
    }
}

impl Student {
    /// How systems that mix codes and words write the sex (L10).
    pub fn sex_text(&self, style: usize) -> &'static str {
        match (self.sex, style % 3) {
            (1, 0) => "1",
            (_, 0) => "2",
            (1, _) => "男",
            _ => "女",
        }
    }

    /// Nation as code or as word (L10).
    pub fn nation_text(&self, style: usize) -> &'static str {
        let (code, word) = NATIONS[self.nation];
        if style.is_multiple_of(2) { code } else { word }
    }
}

/// Makes the counselors: one for about 150 students, at least two a college.
pub fn staff(plan: &Plan) -> Vec<Staff> {
    let count = (plan.students / 150).max(2 * COLLEGES.len());
    (0..count)
        .map(|index| {
            let mut random = Random::new(plan.seed, "staff", index as u64);
            Staff {
                // Leading zeros: a number column would lose them.
                staff_no: format!("{:05}", 201 + index),
                name: person_name(&mut random),
                college: index % COLLEGES.len(),
            }
        })
        .collect()
}

/// Makes the students; the cast has the first places and is in its third year, except who became a master.
pub fn students(plan: &Plan, staff: &[Staff]) -> Vec<Student> {
    let present_year = Term::of(plan.day).year;
    let mut numbering = Numbering::default();
    let mut documents = HashSet::new();
    (0..plan.students).map(|index| student(plan, index, present_year, staff, &mut numbering, &mut documents)).collect()
}

fn student(
    plan: &Plan,
    index: usize,
    present_year: i32,
    staff: &[Staff],
    numbering: &mut Numbering,
    documents: &mut HashSet<String>,
) -> Student {
    let mut random = Random::new(plan.seed, "person", index as u64);
    let role = Role::at(index);
    let (level, years_in) = match role {
        Some(Role::BachelorToMaster) => ('2', 1),
        Some(_) => ('3', 2),
        None => match random.below(100) {
            0..=79 => ('3', random.between(0, 3) as i32),
            80..=96 => ('2', random.between(0, 2) as i32),
            _ => ('1', random.between(0, 2) as i32),
        },
    };
    let grade_year = present_year - years_in;
    let (student_no, study) = numbering.study(&mut random, grade_year, level, staff);
    let was_here = role == Some(Role::BachelorToMaster) || (level == '2' && random.chance(300));
    let former = was_here.then(|| numbering.study(&mut random, grade_year - 4, '3', staff));
    let foreign = role.is_none() && random.chance(10);
    let sex = random.between(1, 2) as u8;
    let age = if level == '3' { 18 } else { 22 };
    let birth = date(
        grade_year - age - random.between(0, 1) as i32,
        random.between(1, 12) as u32,
        random.between(1, 28) as u32,
    );
    let region = *random.pick(REGIONS);
    let nation = if random.chance(80) { random.index(NATIONS.len()) } else { 0 };
    let id_doc_no = loop {
        let number = if foreign { passport(&mut random) } else { identity_number(&mut random, region, birth, sex) };
        if documents.insert(number.clone()) {
            break number;
        }
    };
    let name = match (foreign, nation) {
        (true, _) => (*random.pick(FOREIGN)).to_string(),
        (_, 3 | 4) => (*random.pick(DOTTED)).to_string(),
        _ => person_name(&mut random),
    };
    Student {
        student_no,
        name,
        sex,
        birth,
        id_doc_type: if foreign { 'A' } else { '1' },
        id_doc_no,
        nation,
        region,
        exam_no: format!("{:02}{}{:010}", grade_year % 100, &region[..2], index + 1_000_000),
        study,
        former,
        resident: role.is_some() || random.chance(920),
        party_member: level != '3' && random.chance(350),
        hardship: random.word(HARDSHIPS),
        ability: random.normal(76, 8).clamp(45, 95),
    }
}

/// Running numbers of each college, year and level.
#[derive(Default)]
struct Numbering(HashMap<(usize, i32, char), usize>);

const CLASS_SIZE: usize = 30;

impl Numbering {
    fn study(&mut self, random: &mut Random, grade_year: i32, level: char, staff: &[Staff]) -> (String, Study) {
        let college = random.index(COLLEGES.len());
        let major = random.index(3);
        let next = self.0.entry((college, grade_year, level)).or_insert(0);
        *next += 1;
        let code = COLLEGES[college].code;
        let student_no = match level {
            '3' => format!("{grade_year}{code}{next:04}"),
            // Postgraduate numbers begin with a zero or a letter: text, never a number (L9).
            '2' => format!("0{:02}{code}{next:04}", grade_year % 100),
            _ => format!("B{:02}{code}{next:04}", grade_year % 100),
        };
        let of_college: Vec<usize> = (0..staff.len()).filter(|index| staff[*index].college == college).collect();
        let study = Study {
            college,
            major,
            grade_year,
            level,
            class_no: 1 + *next / CLASS_SIZE,
            counselor: of_college[grade_year as usize % of_college.len()],
        };
        (student_no, study)
    }
}

fn person_name(random: &mut Random) -> String {
    format!("{}{}", random.pick(SURNAMES), random.pick(GIVEN))
}

fn passport(random: &mut Random) -> String {
    format!("E{:08}", random.below(100_000_000))
}

/// A resident identity number with its GB 11643 check character.
fn identity_number(random: &mut Random, region: &str, birth: NaiveDate, sex: u8) -> String {
    let order = random.below(500) * 2 + u64::from(sex % 2);
    let body = format!("{region}{:04}{:02}{:02}{order:03}", birth.year(), birth.month(), birth.day());
    let check = check_character(&body);
    format!("{body}{check}")
}

/// The last character of an identity number whose first 17 digits are `body` (GB 11643-1999).
pub fn check_character(body: &str) -> char {
    const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    let sum: u32 = body.bytes().zip(WEIGHTS).map(|(digit, weight)| u32::from(digit - b'0') * weight).sum();
    char::from(b"10X98765432"[(sum % 11) as usize])
}
