//! Buildings, rooms and beds, and who moved in and out of them.

use chrono::{NaiveDateTime, TimeDelta};

use crate::cast::Role;
use crate::clock::{at, date, days_before};
use crate::people::Student;
use crate::plan::Plan;
use crate::random::Random;
use crate::record::{Change, Defect, Fate, Record};

/// A row of one of the four tables of places.
#[derive(Clone, Debug)]
pub struct Space {
    pub kind: SpaceKind,
    /// Building code; written with blanks around it now and then (L9).
    pub building: String,
    pub floor: Option<i32>,
    /// Room number, "" for a building.
    pub room: String,
    /// Bed number, may hold Chinese characters (L18); "" for a room.
    pub bed: String,
    /// 1 men, 2 women, 9 anyone.
    pub sex: u8,
    pub capacity: u32,
    /// Vendor's word for the use of a public place.
    pub function: &'static str,
    pub kiosks: u32,
    pub changed_at: NaiveDateTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpaceKind {
    Building,
    Room,
    Bed,
    Public,
}

/// A place to sleep.
#[derive(Clone, Debug)]
pub struct Bed {
    pub building: String,
    pub floor: i32,
    pub room: String,
    pub bed: String,
}

/// One row of the dormitory's change log (异动结果): in, from bed to bed, or out.
#[derive(Clone, Debug)]
pub struct Move {
    pub id: u64,
    pub student_no: String,
    /// SSYDLX: 00 out, 01 moved, 03 in.
    pub kind: &'static str,
    pub at: NaiveDateTime,
    /// Index into the beds; None when out.
    pub to: Option<usize>,
    pub audit: &'static str,
    pub operated_at: NaiveDateTime,
}

/// All places, the beds among them, and the moves.
pub struct Homes {
    pub spaces: Vec<Record<Space>>,
    pub beds: Vec<Bed>,
    pub moves: Vec<Record<Move>>,
    /// Each student's bed before the day, as an index into `beds`.
    pub bed_of: Vec<Option<usize>>,
}

const FLOORS: usize = 6;
const ROOMS_OF_FLOOR: usize = 20;
const BEDS_OF_ROOM: usize = 4;
const BEDS_OF_BUILDING: usize = FLOORS * ROOMS_OF_FLOOR * BEDS_OF_ROOM;
/// Beds kept free in each building, so that there is somewhere to move.
const BEDS_SPARE: usize = 40;

impl Bed {
    /// `D01-0304-2`
    pub fn space_id(&self) -> String {
        format!("{}-{}-{}", self.building, self.room, self.bed)
    }
}

/// Builds dormitories for everybody and lets them move in.
pub fn homes(plan: &Plan, students: &[Student]) -> Homes {
    let mut homes =
        Homes { spaces: Vec::new(), beds: Vec::new(), moves: Vec::new(), bed_of: vec![None; students.len()] };
    for sex in [1, 2] {
        let residents: Vec<usize> =
            (0..students.len()).filter(|index| students[*index].resident && students[*index].sex == sex).collect();
        for group in residents.chunks(BEDS_OF_BUILDING - BEDS_SPARE) {
            let first_bed = homes.build(plan, sex);
            for (place, index) in group.iter().enumerate() {
                homes.move_in(plan, *index, &students[*index], first_bed + place);
            }
        }
    }
    homes.former_numbers(students);
    homes.public_places(plan);
    homes.broken(plan, students);
    homes
}

impl Homes {
    /// Adds a dormitory and returns its first bed.
    fn build(&mut self, plan: &Plan, sex: u8) -> usize {
        let number = self.beds.len() / BEDS_OF_BUILDING + 1;
        let building = format!("D{number:02}");
        let changed_at = at(days_before(plan.day, 400), 8, 0, 0);
        let first_bed = self.beds.len();
        let space = |kind, floor, room: &str, bed: &str, capacity| Space {
            kind,
            building: building.clone(),
            floor,
            room: room.to_string(),
            bed: bed.to_string(),
            sex,
            capacity,
            function: "",
            kiosks: 0,
            changed_at,
        };
        self.spaces.push(Record::insert(changed_at, space(SpaceKind::Building, None, "", "", BEDS_OF_BUILDING as u32)));
        for floor in 1..=FLOORS as i32 {
            for room in 1..=ROOMS_OF_FLOOR {
                let room = format!("{floor:02}{room:02}");
                let capacity = BEDS_OF_ROOM as u32;
                self.spaces.push(Record::insert(changed_at, space(SpaceKind::Room, Some(floor), &room, "", capacity)));
                for bed in 1..=BEDS_OF_ROOM {
                    // The top floor counts its beds in words (L18).
                    let bed = if floor == FLOORS as i32 {
                        ["1上铺", "2下铺", "3上铺", "4下铺"][bed - 1].to_string()
                    } else {
                        bed.to_string()
                    };
                    self.spaces.push(Record::insert(changed_at, space(SpaceKind::Bed, Some(floor), &room, &bed, 1)));
                    self.beds.push(Bed { building: building.clone(), floor, room: room.clone(), bed });
                }
            }
        }
        first_bed
    }

    fn log(&mut self, student_no: &str, kind: &'static str, at: NaiveDateTime, to: Option<usize>, audit: &'static str) {
        let id = self.moves.len() as u64 + 1;
        let operated_at = at + TimeDelta::minutes(20);
        let row = Move { id, student_no: student_no.to_string(), kind, at, to, audit, operated_at };
        self.moves.push(Record::insert(operated_at, row));
    }

    fn move_in(&mut self, plan: &Plan, index: usize, student: &Student, bed: usize) {
        let mut random = Random::new(plan.seed, "home", index as u64);
        let came = at(date(student.study.grade_year, 9, 1), 9, 0, 0) + TimeDelta::minutes(random.between(0, 480));
        let moved = Role::at(index).is_none() && random.chance(60);
        if moved {
            // She lived in the last room of the building first; beds there are shared over the years.
            let before = bed - bed % BEDS_OF_BUILDING + BEDS_OF_BUILDING - 1 - random.index(BEDS_SPARE / 2);
            self.log(&student.student_no, "03", came, Some(before), "1");
            let later = at(days_before(plan.day, random.between(5, 60) as u64), 10, 0, 0);
            self.log(&student.student_no, "01", later, Some(bed), "1");
        } else {
            self.log(
                &student.student_no,
                "03",
                came,
                Some(bed),
                if random.chance(5) && Role::at(index).is_none() { "5" } else { "1" },
            );
        }
        self.bed_of[index] = Some(bed);
        if Role::at(index) == Some(Role::RoomMove) {
            let free = bed - bed % BEDS_OF_BUILDING + BEDS_OF_BUILDING - BEDS_SPARE;
            self.log(&student.student_no, "01", at(plan.day, 10, 40, 0), Some(free), "1");
        }
    }

    /// Whoever was an undergraduate here lived here too, and moved out after the degree.
    fn former_numbers(&mut self, students: &[Student]) {
        for (index, student) in students.iter().enumerate() {
            let (Some((former_no, study)), Some(bed)) = (&student.former, self.bed_of[index]) else { continue };
            let minute = (index % 40) as u32;
            self.log(former_no, "03", at(date(study.grade_year, 9, 1), 14, minute, 0), Some(bed), "1");
            self.log(former_no, "00", at(date(study.grade_year + 4, 6, 28), 10, minute, 0), None, "1");
        }
    }

    fn public_places(&mut self, plan: &Plan) {
        let changed_at = at(days_before(plan.day, 400), 8, 0, 0);
        let dormitories = self.beds.len() / BEDS_OF_BUILDING;
        for number in 1..=dormitories {
            for (place, function) in ["党团活动室", "心理咨询室", "自习室", "健身房"].into_iter().enumerate()
            {
                let space = Space {
                    kind: SpaceKind::Public,
                    building: format!("D{number:02}"),
                    floor: Some(1),
                    room: format!("P{}", place + 1),
                    bed: String::new(),
                    sex: 9,
                    capacity: 40,
                    function,
                    kiosks: u32::from(place == 2),
                    changed_at,
                };
                self.spaces.push(Record::insert(changed_at, space));
            }
        }
        self.changes_of_the_day(plan);
        for index in 0..plan.dead_of_each_kind() {
            let mut broken = self.spaces[1].value.clone();
            broken.room = format!("99{index:03}");
            broken.floor = Some(99);
            self.spaces.push(Record::dead(changed_at, Defect::SpaceFloor, broken));
        }
    }

    /// A study room gets two more terminals; a bed nobody uses is taken out without a trace (L13).
    fn changes_of_the_day(&mut self, plan: &Plan) {
        let study_room = self.spaces.iter().find(|record| record.value.function == "自习室");
        let mut room = study_room.expect("every dormitory has a study room").value.clone();
        room.kiosks = 3;
        room.changed_at = at(plan.day, 13, 0, 0);
        self.spaces.push(Record::update(room.changed_at, room));
        let last_bed = self.spaces.iter().rfind(|record| record.value.kind == SpaceKind::Bed);
        let gone = last_bed.expect("every dormitory has beds").value.clone();
        let at = at(plan.day, 16, 0, 0);
        self.spaces.push(Record { at, change: Change::Delete, fate: Fate::Deletes, value: gone });
    }

    fn broken(&mut self, plan: &Plan, students: &[Student]) {
        for index in 0..plan.dead_of_each_kind() {
            let mut random = Random::new(plan.seed, "home dead", index as u64);
            let student = &students[random.index(students.len())];
            let came = at(days_before(plan.day, random.between(10, 50) as u64), 9, 0, index as u32 % 60);
            self.log(&float_of(&student.student_no), "03", came, Some(random.index(self.beds.len())), "1");
            let last = self.moves.last_mut().expect("the move was just logged");
            last.fate = Fate::Dead(Defect::BedStudentNoFloat);
        }
    }
}

/// What a spreadsheet makes of a number (L9): `2023090123` → `2.023090123E9`.
fn float_of(student_no: &str) -> String {
    let digits: String = student_no.chars().filter(char::is_ascii_digit).collect();
    let digits = digits.trim_start_matches('0');
    format!("{}.{}E{}", &digits[..1], digits[1..].trim_end_matches('0'), digits.len() - 1)
}
