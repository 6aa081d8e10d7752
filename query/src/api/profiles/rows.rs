//! One person's rows of several tables, in one order: by the time of the event, then by table, then by the row's key as text.
//! What is wanted and a page enter; the rows of the page and the token of the next leave. What may be seen is decided before.
//!
//! Each table is asked for no more rows than a page has, from the place where the page before ended. That place is in the
//! token, so that pages stay in step while rows come and go.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use datafusion::scalar::ScalarValue;
use proto::profile::v1::PersonRow;
use schemas::{Contract, hex};

use super::convert::{timestamp, wire_value};
use super::page;
use crate::engine::Engine;
use crate::engine::ask::Question;
use crate::error::Error;
use crate::identity::columns::PersonBy;
use crate::profile::Value;
use crate::snapshot::Snapshot;

const DAY_US: i64 = 86_400_000_000;

/// What a caller wants and may see.
#[derive(Debug)]
pub struct Wanted<'a> {
    pub person_id: &'a str,
    /// Every number the person ever had.
    pub numbers: Vec<&'a str>,
    /// With the columns that are withheld.
    pub tables: Vec<(&'a Contract, Vec<&'a str>)>,
    /// Microseconds UTC, inclusive; `None` is since ever.
    pub from: Option<i64>,
    /// Microseconds UTC, exclusive; `None` is for ever.
    pub to: Option<i64>,
}

/// A row's place in the order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// Microseconds UTC.
    at: i64,
    /// `<domain>.<table>`.
    table: String,
    key: String,
}

/// A page that was asked for.
#[derive(Debug)]
pub struct Page {
    size: usize,
    after: Option<Place>,
    /// Tells requests apart whose pages do not go together.
    filters: String,
}

impl Page {
    /// `filters` is all of the request that must be the same on every page.
    ///
    /// # Errors
    /// A size out of its limits, or a token that is not of these filters.
    pub fn new(page_size: i32, token: &str, filters: &str) -> Result<Self, Error> {
        let (size, filters) = (page::size(page_size)?, page::digest(filters));
        let after = match token.is_empty() {
            true => None,
            false => Some(Place::read(token, &filters).ok_or_else(page::foreign_token)?),
        };
        Ok(Self { size, after, filters })
    }
}

impl Place {
    fn token(&self, filters: &str) -> String {
        format!("{filters}.{:x}.{}.{}", self.at, hex(self.key.as_bytes()), self.table)
    }

    fn read(token: &str, filters: &str) -> Option<Self> {
        let mut parts = token.splitn(4, '.');
        let (of, at, key, table) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let key: Vec<u8> = key.as_bytes().chunks(2).map(byte).collect::<Option<_>>()?;
        // As it was written: a time before 1970 is two's complement.
        let at = u64::from_str_radix(at, 16).ok()?.cast_signed();
        Some(Self { at, table: table.to_string(), key: String::from_utf8(key).ok()? }).filter(|_| of == filters)
    }
}

/// A row that was read, with its place.
struct Found<'a> {
    place: Place,
    contract: &'a Contract,
    withheld: &'a [&'a str],
    batch: &'a RecordBatch,
    row: usize,
}

/// The rows of a page, and the token of the next; it is empty on the last.
///
/// # Errors
/// What the engine says: no place in time, too slow.
pub async fn read(
    engine: &Engine,
    snapshot: Arc<Snapshot>,
    wanted: &Wanted<'_>,
    page: &Page,
) -> Result<(Vec<PersonRow>, String), Error> {
    let questions = wanted.tables.iter().map(|(contract, withheld)| question(wanted, contract, withheld, page));
    let answers = engine.ask_all(Arc::new(engine.bind(snapshot)), questions.collect()).await?;
    let mut found = Vec::new();
    for ((contract, withheld), batches) in wanted.tables.iter().zip(&answers) {
        for batch in batches {
            for row in 0..batch.num_rows() {
                let place = Place { at: at(batch, row), table: contract.name(), key: text(batch, KEY, row) };
                found.push(Found { place, contract, withheld, batch, row });
            }
        }
    }
    found.sort_by(|left, right| left.place.cmp(&right.place));
    let has_more = found.len() > page.size;
    found.truncate(page.size);
    let token = found.last().filter(|_| has_more).map(|last| last.place.token(&page.filters));
    Ok((found.iter().map(Found::message).collect::<Result<_, _>>()?, token.unwrap_or_default()))
}

/// Columns of every answer, behind the table's own.
const KEY: &str = "row_key";
const TIME: &str = "row_time";
const SOURCE: &str = "row_source";
const UPDATED: &str = "row_updated_at";
const INGESTED: &str = "row_ingested_at";
const PARTITION: &str = "row_partition";
const OFFSET: &str = "row_offset";

/// The rows of one table behind the page before.
fn question(wanted: &Wanted, contract: &Contract, withheld: &[&str], page: &Page) -> Question {
    let mut parameters = vec![ScalarValue::from(wanted.person_id)];
    let mut bind = |value: ScalarValue| {
        parameters.push(value);
        format!("${}", parameters.len())
    };
    let moment = |at: i64| ScalarValue::TimestampMicrosecond(Some(at), Some("UTC".into()));
    // A local day is at most one day off the day in UTC.
    let day = |at: i64, off: i32| ScalarValue::Date32(i32::try_from(at.div_euclid(DAY_US)).ok().map(|day| day + off));
    let (time, key) = (time(contract), key(contract));
    let mut conditions = vec!["person_id = $1".to_string()];
    if let Some(column) = number_in_key(contract, &wanted.numbers) {
        let numbers: Vec<_> = wanted.numbers.iter().map(|number| bind(ScalarValue::from(*number))).collect();
        conditions.push(format!("{column} IN ({})", numbers.join(", ")));
    }
    let mut from = wanted.from;
    if let Some(Place { at, table, key: last }) = &page.after {
        let name = contract.name();
        from = from.max(Some(if name < *table { at.saturating_add(1) } else { *at }));
        if name == *table {
            let (at, last) = (bind(moment(*at)), bind(ScalarValue::from(last.as_str())));
            conditions.push(format!("({time} > {at} OR {key} > {last})"));
        }
    }
    if let Some(from) = from {
        conditions.push(format!("{time} >= {}", bind(moment(from))));
    }
    if let Some(to) = wanted.to {
        conditions.push(format!("{time} < {}", bind(moment(to))));
    }
    if contract.is_partitioned() {
        conditions.extend(from.map(|from| format!("biz_date >= {}", bind(day(from, -1)))));
        conditions.extend(wanted.to.map(|to| format!("biz_date <= {}", bind(day(to, 1)))));
    }
    let fields: String = visible(contract, withheld).map(|field| format!("{field}, ")).collect();
    let sql = format!(
        "SELECT {fields}{time} AS {TIME}, {key} AS {KEY}, src AS {SOURCE}, src_updated_at AS {UPDATED}, \
         ingested_at AS {INGESTED}, kafka_partition AS {PARTITION}, kafka_offset AS {OFFSET} \
         FROM {} WHERE {} ORDER BY {TIME}, {KEY} LIMIT {}",
        contract.name(),
        conditions.join(" AND "),
        page.size + 1,
    );
    Question { sql, parameters }
}

/// The column of the key that must be one of `numbers` in a row of theirs: a filter on it reaches the files, where one on
/// `person_id`, which is made of the row, does not. Only for numbers that a source can write in one way.
fn number_in_key(contract: &Contract, numbers: &[&str]) -> Option<&'static str> {
    const PLAIN: &str = "^[0-9A-Za-z]+$";
    let PersonBy::Number(column) = PersonBy::of(contract) else { return None };
    let is_plain = contract.field(column)?.pattern.as_deref() == Some(PLAIN);
    let has_one_spelling = |number: &&str| number.bytes().all(|byte| byte.is_ascii_digit());
    let is_in_key = contract.key.iter().any(|key| key == column);
    (is_plain && is_in_key && !numbers.is_empty() && numbers.iter().all(has_one_spelling)).then_some(column)
}

/// A row's time, never null: where the source may be silent of it, when Quad received the row.
fn time(contract: &Contract) -> &'static str {
    match contract.field(&contract.event_time).is_some_and(|field| field.required) {
        true => "event_time",
        false => "coalesce(event_time, ingested_at)",
    }
}

fn key(contract: &Contract) -> String {
    let parts: Vec<_> = contract.key.iter().map(|column| format!("CAST({column} AS VARCHAR)")).collect();
    format!("concat_ws('|', {})", parts.join(", "))
}

fn visible<'a>(contract: &'a Contract, withheld: &'a [&str]) -> impl Iterator<Item = &'a str> {
    contract.fields.iter().map(|field| field.name.as_str()).filter(move |name| !withheld.contains(name))
}

impl Found<'_> {
    fn message(&self) -> Result<PersonRow, Error> {
        let mut row = PersonRow {
            table: self.place.table.clone(),
            event_time: Some(timestamp(self.place.at)),
            withheld_fields: self.withheld.iter().map(ToString::to_string).collect(),
            source: text(self.batch, SOURCE, self.row),
            source_updated_at: moment(self.batch, UPDATED, self.row).map(timestamp),
            ingested_at: moment(self.batch, INGESTED, self.row).map(timestamp),
            topic: self.contract.topic(),
            partition: column(self.batch, PARTITION).as_primitive::<Int32Type>().value(self.row),
            offset: column(self.batch, OFFSET).as_primitive::<Int64Type>().value(self.row),
            ..PersonRow::default()
        };
        for name in visible(self.contract, self.withheld) {
            let value = Value::at(column(self.batch, name), self.row)?;
            row.fields.extend(value.map(|value| (name.to_string(), wire_value(&value))));
        }
        Ok(row)
    }
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> &'a ArrayRef {
    batch.column_by_name(name).expect("the question names it")
}

fn text(batch: &RecordBatch, name: &str, row: usize) -> String {
    let texts = column(batch, name).as_string::<i32>();
    if texts.is_valid(row) { texts.value(row).to_string() } else { String::new() }
}

fn moment(batch: &RecordBatch, name: &str, row: usize) -> Option<i64> {
    let moments = column(batch, name).as_primitive::<TimestampMicrosecondType>();
    moments.is_valid(row).then(|| moments.value(row))
}

fn at(batch: &RecordBatch, row: usize) -> i64 {
    moment(batch, TIME, row).unwrap_or_default()
}

#[cfg(test)]
mod tests;
