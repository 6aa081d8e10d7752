//! What is known about identifiers: rows of four tables. Query results enter, [`Facts`] leave.

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::TimestampMicrosecondType;

/// A version of a student's record (`student_affairs.student_base_history`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Student {
    pub student_no: String,
    pub name: Option<String>,
    /// Type and keyed hash of the document; both or nothing.
    pub document: Option<String>,
    /// Microseconds UTC.
    pub changed_at: Option<i64>,
}

/// A row of `academic.enrollment`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrollment {
    pub student_no: String,
    pub enrol_month: Option<String>,
    pub valid_from: Option<i64>,
    pub valid_to: Option<i64>,
}

/// A row of `identity.account`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub cas_uid: String,
    pub person_no: Option<String>,
    pub user_type: Option<String>,
    pub opened_at: Option<i64>,
}

/// A row of `identity.card`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    pub card_no: String,
    pub card_seq: String,
    pub prev_card_seq: Option<String>,
    pub physical_no: Option<String>,
    pub person_no: Option<String>,
    pub opened_at: Option<i64>,
}

/// Everything identity rests on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    pub students: Vec<Student>,
    pub enrollments: Vec<Enrollment>,
    pub accounts: Vec<Account>,
    pub cards: Vec<Card>,
}

/// The tables identity rests on: when one changes, so may the index.
pub const TABLES: [&str; 4] =
    ["student_affairs.student_base", "academic.enrollment", "identity.account", "identity.card"];

/// Versions of one number count only while the number is in one of the current tables.
pub const STUDENTS_SQL: &str = "\
    SELECT DISTINCT student_no, name, id_doc_type || ':' || id_doc_hash AS document, src_updated_at AS changed_at \
    FROM student_affairs.student_base_history WHERE op <> 'D' \
    AND student_no IN (SELECT student_no FROM student_affairs.student_base)";

pub const ENROLLMENTS_SQL: &str = "\
    SELECT student_no, enrol_month, local_midnight(valid_from) AS valid_from, local_midnight(valid_to) AS valid_to \
    FROM academic.enrollment";

pub const ACCOUNTS_SQL: &str = "SELECT cas_uid, person_no, user_type, opened_at FROM identity.account";

pub const CARDS_SQL: &str = "\
    SELECT card_no, card_seq, prev_card_seq, card_physical_no, person_no, opened_at FROM identity.card";

impl Facts {
    pub fn add_students(&mut self, batch: &RecordBatch) {
        let rows = Rows(batch);
        self.students.extend((0..batch.num_rows()).filter_map(|row| {
            let student_no = rows.text(0, row)?;
            Some(Student {
                student_no,
                name: rows.text(1, row),
                document: rows.text(2, row),
                changed_at: rows.time(3, row),
            })
        }));
    }

    pub fn add_enrollments(&mut self, batch: &RecordBatch) {
        let rows = Rows(batch);
        self.enrollments.extend((0..batch.num_rows()).filter_map(|row| {
            let student_no = rows.text(0, row)?;
            let (valid_from, valid_to) = (rows.time(2, row), rows.time(3, row));
            Some(Enrollment { student_no, enrol_month: rows.text(1, row), valid_from, valid_to })
        }));
    }

    pub fn add_accounts(&mut self, batch: &RecordBatch) {
        let rows = Rows(batch);
        self.accounts.extend((0..batch.num_rows()).filter_map(|row| {
            let (cas_uid, person_no) = (rows.text(0, row)?, rows.text(1, row));
            Some(Account { cas_uid, person_no, user_type: rows.text(2, row), opened_at: rows.time(3, row) })
        }));
    }

    pub fn add_cards(&mut self, batch: &RecordBatch) {
        let rows = Rows(batch);
        self.cards.extend((0..batch.num_rows()).filter_map(|row| {
            Some(Card {
                card_no: rows.text(0, row)?,
                card_seq: rows.text(1, row)?,
                prev_card_seq: rows.text(2, row),
                physical_no: rows.text(3, row),
                person_no: rows.text(4, row),
                opened_at: rows.time(5, row),
            })
        }));
    }
}

/// Cells of a batch whose columns are texts and timestamps in microseconds.
struct Rows<'a>(&'a RecordBatch);

impl Rows<'_> {
    fn text(&self, column: usize, row: usize) -> Option<String> {
        let column = self.0.column(column).as_string::<i32>();
        column.is_valid(row).then(|| column.value(row).to_string())
    }

    fn time(&self, column: usize, row: usize) -> Option<i64> {
        let column = self.0.column(column).as_primitive::<TimestampMicrosecondType>();
        column.is_valid(row).then(|| column.value(row))
    }
}
