//! What the values of a column look like, told in shares; no value leaves but those of small sets.

use std::collections::{BTreeSet, HashSet};

use arrow::array::{Array, StringArray};
use chrono_tz::Tz;
use schemas::FieldType;

use crate::functions::{identity, time};

/// A column of more different values is no set of codes.
const CODES_MAX: usize = 20;

/// One column of a sample.
#[derive(Debug, Default)]
pub struct Profile {
    /// Rows that have a value.
    pub present: usize,
    pub is_never_empty: bool,
    pub is_unique: bool,
    /// As texts, each is at or after the one before.
    pub never_falls: bool,
    /// Rows whose value is a date or a time, a whole number, a number.
    dates: usize,
    integers: usize,
    numbers: usize,
    pub has_decimals: bool,
    pub has_clock: bool,
    clocks: usize,
    resident_numbers: usize,
    telephones: usize,
    /// All values, when they are few.
    pub few: Option<BTreeSet<String>>,
}

impl Profile {
    pub fn of(column: &StringArray, zone: Tz) -> Self {
        let mut profile = Self { never_falls: true, few: Some(BTreeSet::new()), ..Self::default() };
        let (mut seen, mut last) = (HashSet::new(), "");
        for value in column.iter().flatten().map(str::trim).filter(|value| !value.is_empty()) {
            profile.present += 1;
            seen.insert(value);
            profile.never_falls &= value >= last;
            last = value;
            profile.take(value, zone);
        }
        profile.is_never_empty = profile.present == column.len() && profile.present > 0;
        profile.is_unique = profile.present > 1 && seen.len() == profile.present;
        profile
    }

    fn take(&mut self, value: &str, zone: Tz) {
        let is_time = time::timestamp(value, zone, time::DayPart::Start).is_some();
        self.dates += usize::from(is_time || time::date(value).is_some());
        self.integers += usize::from(value.parse::<i64>().is_ok());
        self.numbers += usize::from(value.parse::<f64>().is_ok_and(f64::is_finite));
        self.has_decimals |= value.contains('.');
        self.has_clock |= value.contains(':');
        self.resident_numbers += usize::from(identity::is_valid_resident_number(value));
        self.clocks += usize::from(is_clock(value));
        let is_telephone =
            value.len() == 11 && value.starts_with('1') && value.bytes().all(|byte| byte.is_ascii_digit());
        self.telephones += usize::from(is_telephone);
        if let Some(few) = &mut self.few {
            few.insert(value.to_string());
            if few.len() > CODES_MAX {
                self.few = None;
            }
        }
    }

    fn share(&self, rows: usize) -> f64 {
        rows as f64 / self.present.max(1) as f64
    }

    pub fn is_resident_number(&self) -> bool {
        self.present > 0 && self.share(self.resident_numbers) > 0.8
    }

    pub fn is_telephone(&self) -> bool {
        self.present > 0 && self.share(self.telephones) > 0.8
    }

    /// A time of day, its day in another column.
    pub fn is_clock(&self) -> bool {
        self.present > 0 && self.share(self.clocks) > 0.8
    }

    pub fn is_day(&self) -> bool {
        self.is_time() && !self.has_clock
    }

    pub fn is_time(&self) -> bool {
        self.present > 0 && self.share(self.dates) > 0.8
    }

    /// The share of values that a field of this type can hold; 1 for text.
    pub fn fits(&self, field_type: FieldType) -> f64 {
        match field_type {
            _ if self.present == 0 => 1.0,
            FieldType::String | FieldType::Bool => 1.0,
            FieldType::Int => self.share(self.integers),
            FieldType::BigInt | FieldType::Double | FieldType::Decimal { .. } => self.share(self.numbers),
            FieldType::Date | FieldType::Timestamp => self.share(self.dates),
        }
    }
}

/// `8:05`, `08:05:00` or `080500`.
fn is_clock(value: &str) -> bool {
    ["%H:%M", "%H:%M:%S", "%H%M%S"].iter().any(|format| chrono::NaiveTime::parse_from_str(value, format).is_ok())
        && value.len() <= 8
}
