//! What the remaining offices keep in the three databases: organisation and staff, registration and aid, classes and
//! attendance, inspections and repairs.
//!
//! People, homes and the calendar enter; rows leave as the vendor writes them, since nothing else at the campus asks for
//! their values. What nobody may take in (reasons, positions, heights, descriptions) is written here too.

pub mod affairs;
pub mod housing;
pub mod organisation;
pub mod teaching;

use chrono::NaiveDateTime;

use crate::campus::Campus;
use crate::plan::Plan;
use crate::record::{Defect, Record};
use crate::source::{Row, System, Table};

/// A row in the vendor's words, and the key by which the truth knows it.
#[derive(Clone, Debug)]
pub struct Entry {
    pub key: String,
    pub row: Row,
}

/// One table of an office, and everything that is ever written to it.
pub struct Office {
    /// The contract table that its rows belong to; two offices may share one.
    pub contract: &'static str,
    pub system: System,
    pub table: &'static Table,
    pub records: Vec<Record<Entry>>,
}

/// Everything the offices write.
pub fn offices(campus: &Campus) -> Vec<Office> {
    let mut offices = organisation::offices(campus);
    offices.extend(affairs::offices(campus));
    offices.extend(teaching::offices(campus));
    offices.extend(housing::offices(campus));
    offices
}

impl Office {
    fn new(contract: &'static str, system: System, table: &'static Table) -> Office {
        Office { contract, system, table, records: Vec::new() }
    }

    /// A row that is there when the day begins or comes during it; "" is NULL.
    fn insert(&mut self, at: NaiveDateTime, key: impl Into<String>, values: &[&str]) {
        self.records.push(Record::insert(at, Entry { key: key.into(), row: row(values) }));
    }

    /// A row over an earlier one of the same key.
    fn update(&mut self, at: NaiveDateTime, key: impl Into<String>, values: &[&str]) {
        self.records.push(Record::update(at, Entry { key: key.into(), row: row(values) }));
    }

    /// Copies of the first row with a number of their own in the first column, and one column broken.
    fn broken(&mut self, plan: &Plan, defect: Defect, column: &str, value: &str) {
        let place = self.table.columns.iter().position(|(name, _)| *name == column).expect("a column of the table");
        for index in 0..plan.dead_of_each_kind() {
            let mut record = self.records[0].clone();
            record.value.key = format!("2099{index:06}");
            record.value.row[0] = Some(record.value.key.clone());
            record.value.row[place] = Some(value.to_string());
            self.records.push(Record::dead(record.at, defect, record.value));
        }
    }
}

fn row(values: &[&str]) -> Row {
    values.iter().map(|value| (!value.is_empty()).then(|| value.to_string())).collect()
}
