//! Computing every profile. A snapshot and a time enter; all items of all students leave. Two computations of one snapshot
//! at one time give the same.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use chrono::DateTime;
use chrono_tz::Tz;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::DataType;
use datafusion::catalog::{CatalogProvider, MemTable, MemorySchemaProvider, SchemaProvider};
use datafusion::common::HashMap as FastMap;
use datafusion::execution::SessionState;
use datafusion::physical_plan::collect;
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;
use schemas::Contracts;
use sha2::{Digest, Sha256};

use super::definition::{self, Definitions, Item, Question};
use super::store::{ItemValue, Person, Profiles, State};
use super::table;
use super::value::Value;
use crate::catalog::{self, CATALOG, HISTORY};
use crate::error::Error;
use crate::settings::Settings;
use crate::snapshot::{Pinned, Snapshot};
use crate::source::TableVersion;
use crate::table::rows::Rows;
use crate::table::time;

/// The schema of the definitions' views, in a catalog of their own.
const SCHEMA: &str = "profile";

/// Computes profiles by the definitions.
pub struct Computer {
    ctx: SessionContext,
    definitions: Definitions,
    items: Arc<Vec<Item>>,
    /// The SQL type of each item's value.
    types: Vec<DataType>,
    timezone: Tz,
}

impl std::fmt::Debug for Computer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Computer").field("items", &self.items.len()).finish_non_exhaustive()
    }
}

/// What the questions gave one person.
type Row = Vec<Option<(Value, Option<i64>, bool)>>;

impl Computer {
    /// Plans every question once, so that a mistake in a definition is found before anything is served.
    ///
    /// # Errors
    /// The definition that cannot be planned, by its item or view.
    pub async fn new(settings: &Settings, contracts: &Contracts, definitions: Definitions) -> Result<Self, Error> {
        let ctx = catalog::session(settings, contracts).await?;
        let schema = Arc::new(MemorySchemaProvider::new());
        let catalog = ctx.catalog(CATALOG).expect("the default catalog exists");
        CatalogProvider::register_schema(catalog.as_ref(), SCHEMA, schema.clone())?;
        let timezone = settings.timezone.parse().unwrap_or(Tz::Asia__Shanghai);
        let items = Arc::new(definitions.items.clone());
        let mut types: Vec<DataType> =
            items.iter().map(|item| table::type_without_question(&item.definition)).collect();
        let mut computer = Self { ctx, definitions, items, types: Vec::new(), timezone };
        let wrong =
            |what: &str, error: Error| Error::settings(format!("profile {what}: {}", error.message)).with_source(error);
        for view in &computer.definitions.views {
            let state = computer.ctx.state();
            let plan = computer.plan(&state, &view.sql, 0).await.map_err(|error| wrong(&view.name, error))?;
            let rows = Rows::new(format!("{SCHEMA}.{}", view.name), Arc::new(plan.schema().as_arrow().clone()));
            schema.register_table(view.name.clone(), Arc::new(rows))?;
        }
        for question in &computer.definitions.questions {
            let state = computer.ctx.state();
            let first = question.items.first().map_or("question", |item| &computer.items[*item].id);
            let plan = computer.plan(&state, &question.sql, 0).await.map_err(|error| wrong(first, error))?;
            computer.check_columns(question, plan.schema().as_arrow())?;
            for place in &question.items {
                let Item { id, name, .. } = &computer.items[*place];
                let given = plan.schema().field_with_unqualified_name(name)?.data_type();
                types[*place] = table::sql_type(given).map_err(|error| wrong(id, error))?;
            }
        }
        computer.types = types;
        Ok(computer)
    }

    pub fn items(&self) -> &Arc<Vec<Item>> {
        &self.items
    }

    /// The SQL type of each item's value.
    pub fn types(&self) -> &[DataType] {
        &self.types
    }

    fn check_columns(&self, question: &Question, schema: &datafusion::arrow::datatypes::Schema) -> Result<(), Error> {
        let names = question.items.iter().map(|item| self.items[*item].name.as_str());
        for name in names.chain(["person_id"]) {
            if schema.index_of(name).is_err() {
                return Err(Error::settings(format!("profile: the question gives no column {name}")));
            }
        }
        Ok(())
    }

    async fn plan(
        &self,
        state: &SessionState,
        sql: &str,
        now: i64,
    ) -> Result<datafusion::logical_expr::LogicalPlan, Error> {
        let at = DateTime::from_timestamp_micros(now).unwrap_or_default();
        let local = DateTime::from_timestamp_micros(now + time::offset_us(self.timezone, now)).unwrap_or_default();
        let sql = definition::replace(sql, |name| match name {
            "now" => Ok(format!(
                "arrow_cast('{}', 'Timestamp(Microsecond, Some(\"UTC\"))')",
                at.format("%Y-%m-%dT%H:%M:%S%.6fZ")
            )),
            _ => Ok(format!("DATE '{}'", local.format("%Y-%m-%d"))),
        });
        Ok(state.create_logical_plan(&sql.expect("both times have a value")).await?)
    }

    /// `what` is for the log: which question costs how much.
    async fn ask(&self, snapshot: &Arc<Snapshot>, what: &str, sql: &str, now: i64) -> Result<Vec<RecordBatch>, Error> {
        let began = Instant::now();
        let mut state = self.ctx.state();
        state.config_mut().options_mut().extensions.insert(Pinned::new(snapshot.clone()));
        state.mark_start_execution();
        let plan = self.plan(&state, sql, now).await?;
        let plan = state.create_physical_plan(&plan).await?;
        let planned = began.elapsed();
        let batches = collect(plan, state.task_ctx()).await?;
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        tracing::trace!(what, rows, ?planned, took = ?began.elapsed(), "asked");
        Ok(batches)
    }

    /// All profiles of `snapshot` as of `now` (microseconds UTC). Persons that are as in `before` are shared with it.
    ///
    /// # Errors
    /// A question that failed; nothing is half computed.
    pub async fn compute(
        &self,
        snapshot: Arc<Snapshot>,
        now: i64,
        before: Option<&Profiles>,
    ) -> Result<Profiles, Error> {
        let silent_since = self.silent_since(&snapshot, now).await?;
        // The views become tables of a snapshot that only this computation sees.
        let mut own = Arc::new(snapshot.with_tables(snapshot.tables.clone()));
        for view in &self.definitions.views {
            let batches = self.ask(&own, &view.name, &view.sql, now).await?;
            let name = format!("{SCHEMA}.{}", view.name);
            let mut tables = own.tables.clone();
            if let Some(schema) = batches.first().map(RecordBatch::schema) {
                let rows = Arc::new(MemTable::try_new(schema, vec![batches])?);
                tables.insert(name, TableVersion::new(None, rows));
            }
            own = Arc::new(own.with_tables(tables));
        }
        let mut rows: FastMap<String, Row> = FastMap::new();
        for question in &self.definitions.questions {
            let first = question.items.first().map_or("question", |item| &self.items[*item].id);
            for batch in self.ask(&own, first, &question.sql, now).await? {
                self.read(question, &batch, &mut rows)?;
            }
        }
        let students = snapshot.identity.persons.iter().filter(|person| person.is_student);
        let persons = students.map(|student| {
            let row = rows.remove(&*student.id).unwrap_or_else(|| vec![None; self.items.len()]);
            let items: Vec<ItemValue> = row
                .into_iter()
                .zip(self.items.iter())
                .map(|(value, item)| settle(value, item, &silent_since, now))
                .collect();
            self.person(student, items, before)
        });
        let persons = persons.collect();
        Ok(Profiles::new(snapshot, now, self.items.clone(), persons, before))
    }

    /// When each source last gave anything; a table without rows is not there.
    async fn silent_since(&self, snapshot: &Arc<Snapshot>, now: i64) -> Result<HashMap<String, i64>, Error> {
        let mut since = HashMap::new();
        let mut sources: Vec<&String> = self.items.iter().flat_map(|item| &item.sources).collect();
        sources.sort_unstable();
        sources.dedup();
        for source in sources {
            if !snapshot.tables.contains_key(source) {
                continue;
            }
            let sql = format!("SELECT max(ingested_at) AS at FROM {source}{HISTORY}");
            let batches = self.ask(snapshot, source, &sql, now).await?;
            for batch in batches.iter().filter(|batch| batch.num_rows() > 0) {
                if let Some(Value::Time(at)) = Value::of(&ScalarValue::try_from_array(batch.column(0), 0)?)? {
                    since.insert(source.clone(), at);
                }
            }
        }
        Ok(since)
    }

    /// Takes a batch of answers into the persons' rows.
    fn read(&self, question: &Question, batch: &RecordBatch, rows: &mut FastMap<String, Row>) -> Result<(), Error> {
        let person = batch.column_by_name("person_id").expect("checked when planned");
        for place in &question.items {
            let name = &self.items[*place].name;
            let values = batch.column_by_name(name).expect("checked when planned");
            let as_of = batch.column_by_name(&format!("{name}_as_of")).or_else(|| batch.column_by_name("as_of"));
            let conflict = batch.column_by_name(&format!("{name}_conflict"));
            for row in 0..batch.num_rows() {
                let cell =
                    |column: &datafusion::arrow::array::ArrayRef| Value::of(&ScalarValue::try_from_array(column, row)?);
                let Some(Value::Text(person)) = cell(person)? else { continue };
                let Some(value) = cell(values)? else { continue };
                let as_of = match as_of.map(&cell).transpose()?.flatten() {
                    Some(Value::Time(at)) => Some(at),
                    _ => None,
                };
                let conflict = matches!(conflict.map(&cell).transpose()?.flatten(), Some(Value::Bool(true)));
                let row = rows.entry(person).or_insert_with(|| vec![None; self.items.len()]);
                row[*place] = Some((value, as_of, conflict));
            }
        }
        Ok(())
    }

    fn person(
        &self,
        student: &crate::identity::index::Person,
        items: Vec<ItemValue>,
        before: Option<&Profiles>,
    ) -> Arc<Person> {
        let of =
            |id: &str| self.items.iter().position(|item| item.id == id).and_then(|place| items[place].value.as_ref());
        let (college, class, bed, contacts) = (of("A08"), of("A09"), of("D01"), of("A11"));
        let text =
            |value: Option<&Value>, part: &str| value.and_then(|value| value.text(part)).map(ToString::to_string);
        let version = version(&self.items, &items);
        let old = before.and_then(|before| before.by_id(&student.id)).filter(|old| old.version == version);
        let person = Person {
            id: student.id.clone(),
            student_nos: student.student_nos.clone(),
            version,
            class_id: text(class, "class_id"),
            college_id: text(college, "college_id"),
            building_id: text(bed, "building_id"),
            counselor_staff_no: text(contacts, "counselor_staff_no"),
            grade_year: class.and_then(|value| value.int("grade_year")),
            changed_in: old.map_or_else(|| Profiles::revision_after(before), |old| old.changed_in),
            items,
        };
        match old {
            Some(old) if **old == person => old.clone(),
            _ => Arc::new(person),
        }
    }
}

/// The state of an item, by what its question gave and how long its sources have been silent.
fn settle(
    given: Option<(Value, Option<i64>, bool)>,
    item: &Item,
    silent_since: &HashMap<String, i64>,
    now: i64,
) -> ItemValue {
    let leads = item.sources.first().is_some_and(|source| silent_since.contains_key(source));
    let Some((value, as_of, conflict)) = given.filter(|_| leads) else {
        return ItemValue { value: None, as_of: None, state: State::Missing };
    };
    let fresh_us =
        item.fresh_s.and_then(|fresh_s| i64::try_from(fresh_s.saturating_mul(1_000_000)).ok()).unwrap_or(i64::MAX);
    let is_silent =
        |source: &String| silent_since.get(source).is_some_and(|since| now.saturating_sub(*since) > fresh_us);
    let state = match (conflict, item.sources.iter().any(is_silent)) {
        (true, _) => State::Conflict,
        (false, true) => State::Stale,
        (false, false) => State::Ok,
    };
    ItemValue { value: Some(value), as_of, state }
}

/// The first 64 bits of the SHA-256 of all items.
fn version(items: &[Item], values: &[ItemValue]) -> String {
    let mut text = String::with_capacity(1024);
    for (item, value) in items.iter().zip(values) {
        text.push_str(&item.id);
        if let Some(value) = &value.value {
            value.canonical(&mut text);
        }
        text.push_str(&format!("|{:?}|{:?}\n", value.as_of, value.state));
    }
    Sha256::digest(text.as_bytes())[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}
