//! Profiles as tables: `profile.student`, a row a person and a column an item, and `profile.item`, a row a person and item.
//! The pinned profiles enter, after policy; the rows that the profile service would give for them leave.
//!
//! These are not the definitions' views, which have the same schema name in a session of their own that no caller reaches.
//! Rows are made as they are read, batch by batch, and only the columns that a question needs. [`rows`] gives them without a
//! question, for the tables in the lake.

mod array;
mod columns;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, Operator, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::stream;

pub use self::array::{sql_name, sql_type, type_without_question};
pub use self::columns::{Column, Of, is_reserved};
use super::definition::Item;
use super::packed::Packed;
use super::store::{Person, Profiles, State};
use super::value::Value;
use crate::access::Principal;
use crate::policy;
use crate::snapshot::{Pinned, Snapshot};

/// The schema of both tables.
pub const SCHEMA: &str = "profile";

/// Profiles as a caller's question may see them.
pub struct Seen {
    profiles: Arc<Profiles>,
    /// Whether an item is withheld, by its place.
    withheld: Vec<bool>,
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seen").field("revision", &self.profiles.revision).finish_non_exhaustive()
    }
}

impl Seen {
    pub fn new(profiles: Arc<Profiles>, principal: &Principal) -> Self {
        Self::without(profiles, |class| policy::is_withheld_from_sql(principal, class))
    }

    /// As files may hold them.
    pub fn for_files(profiles: Arc<Profiles>) -> Self {
        Self::without(profiles, policy::is_withheld_from_files)
    }

    fn without(profiles: Arc<Profiles>, is_withheld: impl Fn(u8) -> bool) -> Self {
        let withheld = profiles.items.iter().map(|item| is_withheld(item.class)).collect();
        Self { profiles, withheld }
    }

    /// All columns of a table.
    pub fn schema(&self, of: Of) -> SchemaRef {
        of.schema(&self.profiles.items, &self.profiles.types)
    }

    /// What the profiles were computed from.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.profiles.snapshot
    }
}

/// One of the two tables.
#[derive(Debug)]
pub struct ProfileTable {
    of: Of,
    schema: SchemaRef,
}

impl ProfileTable {
    /// `types` are those of the items' values.
    pub fn new(of: Of, items: &[Item], types: &[DataType]) -> Self {
        Self { of, schema: of.schema(items, types) }
    }
}

#[async_trait]
impl TableProvider for ProfileTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let seen = Pinned::profiles_of(session.config_options())?;
        let columns: Arc<[usize]> = match projection {
            Some(columns) => columns.as_slice().into(),
            None => (0..self.schema.fields().len()).collect(),
        };
        let schema = Arc::new(self.schema.project(&columns)?);
        let persons = self.persons(&seen.profiles, filters);
        let share = persons.len().div_ceil(session.config().target_partitions()).max(1);
        let part = |persons: &[Arc<Person>]| -> Arc<dyn PartitionStream> {
            Arc::new(Part {
                of: self.of,
                seen: seen.clone(),
                persons: persons.into(),
                columns: columns.clone(),
                schema: schema.clone(),
            })
        };
        let parts = match persons.is_empty() {
            true => vec![part(&[])],
            false => persons.chunks(share).map(part).collect(),
        };
        // The parts have only the columns that are wanted, so that no other is made.
        StreamingTable::try_new(schema, parts)?.scan(session, None, &[], limit).await
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(filters.iter().map(|_| TableProviderFilterPushDown::Inexact).collect())
    }
}

impl ProfileTable {
    /// Those that `filters` may let through: one, where it names one.
    fn persons(&self, profiles: &Profiles, filters: &[Expr]) -> Vec<Arc<Person>> {
        let has =
            |person: &&Arc<Person>, number: &str| person.student_nos.first().is_some_and(|first| **first == *number);
        match (equal_to(filters, "person_id"), equal_to(filters, "student_no")) {
            (Some(id), _) => profiles.by_id(id).into_iter().cloned().collect(),
            (None, Some(number)) => profiles.persons.iter().filter(|person| has(person, number)).cloned().collect(),
            (None, None) => profiles.persons.clone(),
        }
    }
}

/// The text that a filter holds `column` to.
fn equal_to<'a>(filters: &'a [Expr], column: &str) -> Option<&'a str> {
    filters.iter().find_map(|filter| match filter {
        Expr::BinaryExpr(equals) if equals.op == Operator::Eq => match (&*equals.left, &*equals.right) {
            (Expr::Column(name), Expr::Literal(value, _)) | (Expr::Literal(value, _), Expr::Column(name)) => {
                value.try_as_str().flatten().filter(|_| name.name == column)
            }
            _ => None,
        },
        _ => None,
    })
}

/// All rows of a table under all of its columns, about `rows_max` at a time.
pub fn rows(of: Of, seen: Arc<Seen>, rows_max: usize) -> impl Iterator<Item = Result<RecordBatch>> + Send {
    let (persons, schema) = (seen.profiles.persons.as_slice().into(), seen.schema(of));
    let columns = (0..schema.fields().len()).collect();
    Part { of, seen, persons, columns, schema }.batches(rows_max)
}

/// Some persons' rows.
#[derive(Clone)]
struct Part {
    of: Of,
    seen: Arc<Seen>,
    persons: Arc<[Arc<Person>]>,
    /// Of the table, in the order of `schema`.
    columns: Arc<[usize]>,
    schema: SchemaRef,
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part").field("of", &self.of).field("persons", &self.persons.len()).finish_non_exhaustive()
    }
}

impl PartitionStream for Part {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, ctx: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batches = self.clone().batches(ctx.session_config().batch_size());
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), stream::iter(batches)))
    }
}

impl Part {
    /// All of them, about `rows_max` at a time.
    fn batches(self, rows_max: usize) -> impl Iterator<Item = Result<RecordBatch>> + Send {
        let persons_max = match self.of {
            Of::Students => rows_max,
            Of::Items => rows_max / self.seen.profiles.items.len().max(1),
        }
        .max(1);
        (0..self.persons.len()).step_by(persons_max).map(move |first| {
            let last = self.persons.len().min(first + persons_max);
            self.batch(&self.persons[first..last])
        })
    }

    fn batch(&self, persons: &[Arc<Person>]) -> Result<RecordBatch> {
        let rows = match self.of {
            Of::Students => persons.len(),
            Of::Items => persons.len() * self.seen.profiles.items.len(),
        };
        let items: Vec<Vec<Packed<'_>>> = persons.iter().map(|person| person.items.iter().collect()).collect();
        let columns = self.columns.iter().zip(self.schema.fields()).map(|(column, field)| match self.of {
            Of::Students => self.of_students(persons, &items, *column, field),
            Of::Items => self.of_items(persons, &items, *column, field.data_type()),
        });
        let columns = columns.collect::<Result<_>>()?;
        // A question that only counts wants no column.
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }

    /// A column of `profile.student`, in the order of [`Of::columns`].
    fn of_students(
        &self,
        persons: &[Arc<Person>],
        items: &[Vec<Packed<'_>>],
        column: usize,
        field: &Field,
    ) -> Result<ArrayRef> {
        let Seen { profiles, withheld } = &*self.seen;
        match column {
            0 => Ok(array::text(persons.iter().map(|person| Some(&*person.id)))),
            1 => Ok(array::text(persons.iter().map(|person| person.student_nos.first().map(|number| &**number)))),
            2 => Ok(array::text(persons.iter().map(|person| Some(person.version_text())))),
            3 => Ok(array::times(persons.iter().map(|_| Some(profiles.computed_at)))),
            _ => {
                // By name: a question may have been understood before the definitions were changed.
                let place = profiles.items.iter().position(|item| item.name == *field.name());
                let seen = place.filter(|place| !withheld[*place]);
                let given = |items: &Vec<Packed<'_>>| seen.and_then(|place| items[place].unpack().value);
                let values: Vec<Option<Value>> = items.iter().map(given).collect();
                array::values(&values.iter().map(Option::as_ref).collect::<Vec<_>>(), field.data_type())
            }
        }
    }

    /// A column of `profile.item`, in the order of [`Of::columns`].
    fn of_items(
        &self,
        persons: &[Arc<Person>],
        items: &[Vec<Packed<'_>>],
        column: usize,
        data_type: &DataType,
    ) -> Result<ArrayRef> {
        let Seen { profiles, withheld } = &*self.seen;
        let rows =
            || persons.iter().flat_map(|person| profiles.items.iter().enumerate().map(move |item| (person, item)));
        let given = || rows().zip(items.iter().flatten()).map(|((person, (place, _)), given)| (person, place, *given));
        let own = |person: &Arc<Person>, place: usize| profiles.of_itself(person, place);
        let declared = |text: fn(&Item) -> &str| array::text(rows().map(|(_, (_, item))| Some(text(item))));
        Ok(match column {
            0 => array::text(rows().map(|(person, _)| Some(&*person.id))),
            1 => declared(|item| &item.id),
            2 => declared(|item| &item.name),
            3 => declared(|item| &item.section),
            4 => {
                let json = given().map(|(person, place, given)| {
                    let item = own(person, place).or_else(|| (!withheld[place]).then(|| given.unpack()));
                    item.filter(|_| !withheld[place])?.value.map(|value| value.json().to_string())
                });
                array::text(json)
            }
            5 => array::times(given().map(|(person, place, given)| {
                own(person, place).map_or(given.as_of, |item| item.as_of).filter(|_| !withheld[place])
            })),
            6 => array::text(given().map(|(person, place, given)| {
                Some(state(own(person, place).map_or(given.state, |item| item.state), withheld[place]))
            })),
            7 => array::texts(rows().map(|(_, (_, item))| item.sources.as_slice()), data_type)?,
            _ => array::numbers(rows().map(|(_, (_, item))| i32::from(item.class))),
        })
    }
}

/// As the profile service names it, in small letters.
fn state(state: State, withheld: bool) -> &'static str {
    match (withheld, state) {
        (true, _) => "withheld",
        (false, State::Ok) => "ok",
        (false, State::Stale) => "stale",
        (false, State::Missing) => "missing",
        (false, State::Conflict) => "conflict",
    }
}

#[cfg(test)]
mod tests;
