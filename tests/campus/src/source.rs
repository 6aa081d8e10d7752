//! The source systems as they are: tables with the vendors' names and codes, and the gates' JSON.
//!
//! Typed records enter; rows of text leave, written as each vendor writes them. What Quad must never take in
//! (photos, addresses of pictures, talk texts, blood types, religion) is here too, because real systems have it.

pub mod academic;
pub mod gates;
pub mod logistics;
pub mod student_affairs;

use std::ops::Range;

use chrono::NaiveDateTime;

use crate::campus::Campus;
use crate::record::Change;

/// One of the three databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum System {
    StudentAffairs,
    Academic,
    Logistics,
}

pub const SYSTEMS: [System; 3] = [System::StudentAffairs, System::Academic, System::Logistics];

/// A table of a vendor.
#[derive(Debug)]
pub struct Table {
    pub name: &'static str,
    /// Name and portable SQL type.
    pub columns: &'static [(&'static str, &'static str)],
    /// Columns that find a row again for UPDATE and DELETE; no key constraint is created (L1).
    pub key: &'static [&'static str],
    /// Columns of each index.
    pub indexes: &'static [&'static str],
}

/// The values of one row, in the order of the columns; None is NULL.
pub type Row = Vec<Option<String>>;

/// One change of one row.
#[derive(Clone, Debug)]
pub struct Write {
    pub at: NaiveDateTime,
    pub table: &'static Table,
    pub change: Change,
    pub row: Row,
}

impl System {
    /// Its tables, in the order of their creation.
    pub fn tables(self) -> &'static [&'static Table] {
        match self {
            System::StudentAffairs => student_affairs::TABLES,
            System::Academic => academic::TABLES,
            System::Logistics => logistics::TABLES,
        }
    }

    /// Views over them: name and query.
    pub fn views(self) -> &'static [(&'static str, &'static str)] {
        match self {
            System::StudentAffairs => student_affairs::VIEWS,
            _ => &[],
        }
    }

    /// The writes of a span of time, table by table.
    pub fn writes(self, campus: &Campus, span: Range<NaiveDateTime>) -> Box<dyn Iterator<Item = Write> + '_> {
        let offices = campus.offices.iter().filter(move |office| office.system == self);
        let during = span.clone();
        let of_offices = offices.flat_map(move |office| {
            let during = during.clone();
            let records = office.records.iter().filter(move |record| during.contains(&record.at));
            records.map(|record| Write {
                at: record.at,
                table: office.table,
                change: record.change,
                row: record.value.row.clone(),
            })
        });
        let own = match self {
            System::StudentAffairs => student_affairs::writes(campus, span),
            System::Academic => academic::writes(campus, span),
            System::Logistics => logistics::writes(campus, span),
        };
        Box::new(own.chain(of_offices))
    }
}

/// Text that is there.
fn some(text: impl Into<String>) -> Option<String> {
    Some(text.into())
}

/// `1250` → `12.50`, `-5` → `-0.05`
fn yuan(fen: i64) -> String {
    let sign = if fen < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", fen.abs() / 100, fen.abs() % 100)
}

/// `855` → `85.5`, `860` → `86`
fn tenths(value: i64) -> String {
    if value % 10 == 0 { (value / 10).to_string() } else { format!("{}.{}", value / 10, value % 10) }
}
