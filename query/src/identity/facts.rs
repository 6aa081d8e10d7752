//! What is known about identifiers: rows of six tables. Query results enter, [`Facts`] leave.

use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::TimestampMicrosecondType;

use super::index::SINCE_EVER;
use super::normal;
use super::review::{Act, Decision, Kind, Use, Uses};

/// A version of a student's record (`student_affairs.student_base_history`).
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Student {
    pub student_no: String,
    pub name: Option<String>,
    /// Type and keyed hash of the document, joined by `:`; both or nothing.
    pub document: Option<String>,
    /// Microseconds UTC.
    pub changed_at: Option<i64>,
    /// YYYY-MM-DD.
    pub birth_date: Option<String>,
    pub sex_code: Option<String>,
    pub exam_no: Option<String>,
    pub college_id: Option<String>,
}

/// A row of `academic.enrollment`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrollment {
    pub student_no: String,
    pub enrol_month: Option<String>,
    pub valid_from: Option<i64>,
    pub valid_to: Option<i64>,
    /// Not a minor (辅修), a dual degree or an exchange.
    pub is_major: bool,
}

/// A row of `academic.status_change` that issues a new number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renumbering {
    pub student_no: String,
    pub new_student_no: String,
    pub changed_at: Option<i64>,
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
    pub renumberings: Vec<Renumbering>,
    pub decisions: Vec<Decision>,
}

/// The tables identity rests on: when one changes, so may the index.
pub const TABLES: [&str; 6] = [
    "student_affairs.student_base",
    "academic.enrollment",
    "identity.account",
    "identity.card",
    "academic.status_change",
    "identity.match_review",
];

/// Versions of one number count only while the number is in one of the current tables.
pub const STUDENTS_SQL: &str = "\
    SELECT DISTINCT student_no, name, id_doc_type || ':' || id_doc_hash AS document, src_updated_at AS changed_at, \
    birth_date, sex_code, exam_no, college_id FROM student_affairs.student_base_history WHERE op <> 'D' \
    AND student_no IN (SELECT student_no FROM student_affairs.student_base)";

pub const ENROLLMENTS_SQL: &str = "\
    SELECT student_no, enrol_month, local_midnight(valid_from) AS valid_from, local_midnight(valid_to) AS valid_to, \
    study_kind FROM academic.enrollment";

pub const ACCOUNTS_SQL: &str = "SELECT cas_uid, person_no, user_type, opened_at FROM identity.account";

pub const CARDS_SQL: &str = "\
    SELECT card_no, card_seq, prev_card_seq, card_physical_no, person_no, opened_at FROM identity.card";

pub const RENUMBERINGS_SQL: &str = "\
    SELECT student_no, new_student_no, local_midnight(changed_on) AS changed_at FROM academic.status_change \
    WHERE new_student_no IS NOT NULL AND new_student_no <> student_no";

/// Every row that decides: what undoes one needs it.
pub const DECISIONS_SQL: &str = "\
    SELECT DISTINCT decision_id, review_id, kind, decision, revokes, id_value, other_value, decided_by, note, id_since, \
    other_since, raised_at, decided_at FROM identity.match_review_history \
    WHERE decision_id IS NOT NULL AND op <> 'D' AND id_type = 'student_no'";

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
                birth_date: rows.text(4, row),
                sex_code: rows.text(5, row),
                exam_no: rows.text(6, row),
                college_id: rows.text(7, row),
            })
        }));
    }

    pub fn add_enrollments(&mut self, batch: &RecordBatch) {
        let rows = Rows(batch);
        self.enrollments.extend((0..batch.num_rows()).filter_map(|row| {
            let student_no = rows.text(0, row)?;
            let (valid_from, valid_to) = (rows.time(2, row), rows.time(3, row));
            let is_major = rows.text(4, row).is_none_or(|kind| kind == "major");
            Some(Enrollment { student_no, enrol_month: rows.text(1, row), valid_from, valid_to, is_major })
        }));
    }

    pub fn add_renumberings(&mut self, batch: &RecordBatch) {
        let rows = Rows(batch);
        self.renumberings.extend((0..batch.num_rows()).filter_map(|row| {
            let (student_no, new_student_no) = (rows.text(0, row)?, rows.text(1, row)?);
            Some(Renumbering { student_no, new_student_no, changed_at: rows.time(2, row) })
        }));
    }

    pub fn add_decisions(&mut self, batch: &RecordBatch) {
        let rows = Rows(batch);
        self.decisions.extend((0..batch.num_rows()).filter_map(|row| {
            let a_use = |value: usize, since: usize| {
                let number = Arc::from(&*normal::identifier(&rows.text(value, row)?)?);
                Some(Use { number, since: rows.time(since, row).unwrap_or(SINCE_EVER) })
            };
            Some(Decision {
                id: rows.text(0, row)?.into(),
                review_id: rows.text(1, row)?.into(),
                kind: Kind::of(rows.text(2, row).as_deref()),
                act: Act::of(rows.text(3, row).as_deref(), rows.text(4, row).as_deref())?,
                uses: Uses::new(a_use(5, 9)?, a_use(6, 10)),
                decided_by: rows.text(7, row).unwrap_or_default(),
                note: rows.text(8, row).unwrap_or_default(),
                raised_at: rows.time(11, row)?,
                decided_at: rows.time(12, row)?,
            })
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
