//! A university of any size: the tables that its profiles are made of, as records that Quad itself would write.

use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use schemas::{Contract, Contracts, Encoder};
use topic::Message;

const DAY_US: i64 = 86_400_000_000;
/// The school's clock is ahead of UTC by that much.
const ZONE_US: i64 = 8 * 3_600_000_000;
/// A term's days that are over, and those to come.
const DAYS: i64 = 100;
const DAYS_TO_COME: i64 = 60;
const COURSES: usize = 500;
const GRADES_PER_STUDENT: usize = 20;
/// Odd, so that neighbours in time are no neighbours by number.
const STRIDE: usize = 7919;

/// A value of a row.
pub enum Cell {
    Text(String),
    /// Also days and microseconds since 1970.
    Int(i64),
    None,
}

use Cell::{Int, None as Null, Text};

/// How large the university is, and what time it is there.
#[derive(Debug, Clone, Copy)]
pub struct University {
    pub students: usize,
    pub events_per_student: usize,
    /// Microseconds UTC.
    pub now: i64,
}

/// One table of it.
pub struct Table {
    pub contract: Arc<Contract>,
    pub rows: usize,
    cell: CellOf,
}

/// The value of a column, by its name, in a row.
type CellOf = fn(&University, &str, usize) -> Cell;

impl University {
    /// Its tables in an order in which their records may come.
    ///
    /// # Errors
    /// There is no such contract.
    pub fn tables(&self, contracts: &Contracts) -> Result<Vec<Table>> {
        let days = (DAYS + DAYS_TO_COME) as usize;
        let half = self.students * self.events_per_student / 2;
        let tables: [(&str, usize, CellOf); 9] = [
            ("extension.calendar_day", days, Self::calendar_day),
            ("student_affairs.student_base", self.students, Self::student),
            ("academic.enrollment", self.students, Self::enrollment),
            ("identity.card", self.students, Self::card),
            ("logistics.bed_assignment", self.students, Self::bed),
            ("academic.course", COURSES, Self::course),
            ("academic.grade", self.students * GRADES_PER_STUDENT, Self::grade),
            ("logistics.card_txn", half, Self::purchase),
            ("access_control.access_event", half, Self::passage),
        ];
        let table = |(name, rows, cell): (&str, usize, CellOf)| {
            Ok(Table { contract: contracts.get(name).context(name.to_string())?.clone(), rows, cell })
        };
        tables.into_iter().map(table).collect()
    }

    /// Records of `table` from row `first` on; rows behind its last are of this moment.
    ///
    /// # Errors
    /// The contract has other fields than this table.
    pub fn messages(&self, table: &Table, first: usize, count: usize) -> Result<Vec<Message>> {
        let schema = table.contract.record_schema();
        let taken_in = chrono::Utc::now();
        let column = |field: &arrow::datatypes::FieldRef| -> Result<ArrayRef> {
            let cells = (first..first + count).map(|row| match field.name().as_str() {
                "src" => Text("bench".to_string()),
                "src_key" => Text(row.to_string()),
                "raw_hash" => Text(format!("{row:032x}")),
                "op" => Text("I".to_string()),
                "ingested_at" => Int(taken_in.timestamp_micros()),
                name => (table.cell)(self, name, row),
            });
            array(cells.collect(), field.data_type())
        };
        let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
        let batch = RecordBatch::try_new(schema.clone(), columns)?;
        let encoder = Encoder::new(table.contract.clone());
        let (keys, values) = (encoder.keys(&batch)?, encoder.values(&batch)?);
        let timestamp_ms = taken_in.timestamp_millis();
        let message = |(key, value): (&str, _)| Message { key: key.to_string().into(), value, timestamp_ms };
        Ok(keys.iter().flatten().zip(values.iter()).map(message).collect())
    }

    pub fn student_no(&self, number: usize) -> String {
        format!("20{:02}{:06}", 22 + number % 4, number)
    }

    /// Whose the event of a row is.
    pub fn student_of(&self, row: usize) -> usize {
        row * STRIDE % self.students
    }

    fn today(&self) -> i64 {
        (self.now + ZONE_US) / DAY_US
    }

    /// Days go by row after row, each from seven in the morning on.
    fn moment(&self, row: usize) -> i64 {
        let per_day = (self.students * self.events_per_student / 2).div_ceil(DAYS as usize).max(1);
        let day = (row / per_day) as i64;
        if day >= DAYS {
            return chrono::Utc::now().timestamp_micros();
        }
        let within = (row % per_day) as i64 * (14 * 3_600_000_000 / per_day as i64);
        (self.today() - DAYS + day) * DAY_US - ZONE_US + 7 * 3_600_000_000 + within
    }

    fn calendar_day(&self, name: &str, row: usize) -> Cell {
        let day = self.today() - DAYS + row as i64;
        match name {
            "biz_date" => Int(day),
            "academic_year" => Text("2026-2027".to_string()),
            "term_no" => Int(1),
            "teaching_week" => Int((row as i64 / 7 + 1).min(25)),
            "is_teaching_day" => Text((day % 7 < 5).to_string()),
            "curfew_minute" => Int(1380),
            _ => Null,
        }
    }

    fn student(&self, name: &str, row: usize) -> Cell {
        match name {
            "student_no" => Text(self.student_no(row)),
            "name" => Text(format!("学生{row}")),
            "sex_code" => Text((row % 2 + 1).to_string()),
            "birth_date" => Int(13_000 + row as i64 % 1_500),
            "college_id" => Text(format!("C{:02}", row % 20)),
            "class_id" => Text(class(row)),
            "grade_year" => Int(2022 + row as i64 % 4),
            "counselor_staff_no" => Text(format!("T{:04}", row / 200)),
            "residence_mode" => Text("2".to_string()),
            "in_school" => Text("true".to_string()),
            "src_updated_at" => Int(self.now - 90 * DAY_US),
            _ => Null,
        }
    }

    fn enrollment(&self, name: &str, row: usize) -> Cell {
        match name {
            "student_no" => Text(self.student_no(row)),
            "study_kind" => Text("major".to_string()),
            "level_code" => Text("3".to_string()),
            "college_id" => Text(format!("C{:02}", row % 20)),
            "class_id" => Text(class(row)),
            "grade_year" => Int(2022 + row as i64 % 4),
            "status_code" => Text("01".to_string()),
            "valid_from" => Int(self.today() - 800),
            "src_updated_at" => Int(self.now - 90 * DAY_US),
            _ => Null,
        }
    }

    /// Rows behind the last are corrections: the card was another student's all the time.
    fn card(&self, name: &str, row: usize) -> Cell {
        let card = row % self.students;
        match name {
            "card_no" => Text(format!("{card:08}")),
            "card_seq" => Text("1".to_string()),
            "card_physical_no" => Text(format!("{card:08X}")),
            "person_no" => Text(self.student_no((card + row / self.students) % self.students)),
            "card_kind" => Text("formal".to_string()),
            "card_status" => Text("normal".to_string()),
            "opened_at" => Int(self.now - 800 * DAY_US),
            "src_updated_at" => Int(self.now - 800 * DAY_US + row as i64),
            _ => Null,
        }
    }

    fn bed(&self, name: &str, row: usize) -> Cell {
        match name {
            "student_no" => Text(self.student_no(row)),
            "space_id" => Text(format!("{}-{}", room(row), row % 4)),
            "building_id" => Text(building(row)),
            "floor_no" => Int(row as i64 / 4 % 6 + 1),
            "room_no" => Text(room(row)),
            "assigned_from" | "src_updated_at" => Int(self.now - 90 * DAY_US),
            "change_type" => Text("03".to_string()),
            "audit_status" => Text("1".to_string()),
            _ => Null,
        }
    }

    fn course(&self, name: &str, row: usize) -> Cell {
        match name {
            "course_no" => Text(format!("K{row:03}")),
            "course_name" => Text(format!("课程{row}")),
            "credits" => Text((row % 4 + 1).to_string()),
            "course_attr" => Text("1".to_string()),
            _ => Null,
        }
    }

    fn grade(&self, name: &str, row: usize) -> Cell {
        let (student, nth) = (row / GRADES_PER_STUDENT, row % GRADES_PER_STUDENT);
        let score = 50 + (row * 31 % 50) as i64;
        match name {
            "student_no" => Text(self.student_no(student)),
            "course_no" => Text(format!("K{:03}", (student * 3 + nth) % COURSES)),
            "academic_year" => Text("2025-2026".to_string()),
            "term_no" => Int(nth as i64 % 2 + 1),
            "exam_nature" => Text("01".to_string()),
            "attempt_no" => Int(1),
            "score" => Int(score),
            "passed" | "is_valid" => Text((name == "is_valid" || score >= 60).to_string()),
            "credits" | "credits_earned" => Int(2),
            "grade_point" => Text("3.00".to_string()),
            "posted_at" | "src_updated_at" => Int(self.now - 150 * DAY_US),
            _ => Null,
        }
    }

    fn purchase(&self, name: &str, row: usize) -> Cell {
        match name {
            "terminal_no" => Text(format!("P{:03}", row % 600)),
            "txn_serial" => Text(row.to_string()),
            "txn_at" | "src_updated_at" => Int(self.moment(row)),
            "card_no" => Text(format!("{:08}", self.student_of(row))),
            "card_seq" => Text("1".to_string()),
            "txn_type" => Text("purchase".to_string()),
            "amount_fen" => Int(300 + (row * 37 % 1_500) as i64),
            "merchant_kind" => Text(if row.is_multiple_of(5) { "shop" } else { "canteen" }.to_string()),
            _ => Null,
        }
    }

    fn passage(&self, name: &str, row: usize) -> Cell {
        let student = self.student_of(row);
        match name {
            "device_id" => Text(format!("D{:03}", student % 200)),
            "door_no" => Int(1),
            "event_serial" => Int(row as i64),
            "event_time" | "src_updated_at" => Int(self.moment(row)),
            "access_person_no" => Text(self.student_no(student)),
            "card_physical_no" => Text(format!("{student:08X}")),
            "direction" => Text(if (row / self.students).is_multiple_of(2) { "in" } else { "out" }.to_string()),
            "direction_source" => Text("device".to_string()),
            "result" => Text("granted".to_string()),
            "place_kind" => Text(if row.is_multiple_of(7) { "library" } else { "dorm_gate" }.to_string()),
            "building_id" => Text(building(student)),
            _ => Null,
        }
    }
}

fn class(row: usize) -> String {
    format!("K{:05}", row / 30)
}

fn building(row: usize) -> String {
    format!("B{:02}", row % 40)
}

fn room(row: usize) -> String {
    format!("R{:05}", row / 4)
}

fn array(cells: Vec<Cell>, to: &DataType) -> Result<ArrayRef> {
    let text = |cell: &Cell| if let Text(text) = cell { Some(text.clone()) } else { None };
    let int = |cell: &Cell| if let Int(int) = cell { Some(*int) } else { None };
    let array: ArrayRef = match cells.iter().find(|cell| !matches!(cell, Null)) {
        None => return Ok(new_null_array(to, cells.len())),
        Some(Text(_)) => Arc::new(cells.iter().map(text).collect::<StringArray>()),
        Some(_) => Arc::new(cells.iter().map(int).collect::<Int64Array>()),
    };
    let array = if *to == DataType::Date32 { cast(&array, &DataType::Int32)? } else { array };
    Ok(cast(&array, to)?)
}
