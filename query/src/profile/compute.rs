//! Computing every profile. A snapshot and a time enter; all items of all students leave. Two computations of one snapshot
//! at one time give the same, whatever was computed before.
//!
//! Only what can have changed is computed: a question whose inputs are those of the profiles before is not asked again, and a
//! person whose answers are the same is shared with them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use chrono::DateTime;
use chrono_tz::Tz;
use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::catalog::{CatalogProvider, MemTable, MemorySchemaProvider, SchemaProvider};
use datafusion::common::HashMap as FastMap;
use datafusion::execution::SessionState;
use datafusion::physical_plan::collect;
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;
use schemas::Contracts;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use super::definition::{self, Definitions, Item, Question};
use super::inputs::{Inputs, Reads, Time};
use super::store::{ItemValue, Person, Profiles, Silence, State};
use super::table::{self, SCHEMA};
use super::value::Value;
use crate::catalog::{self, CATALOG, HISTORY};
use crate::engine::plan::Plan;
use crate::error::Error;
use crate::identity::index;
use crate::settings::Settings;
use crate::snapshot::{Pinned, Snapshot};
use crate::source::TableVersion;
use crate::table::rows::Rows;
use crate::table::time;

/// Computes profiles by the definitions.
pub struct Computer {
    ctx: SessionContext,
    definitions: Definitions,
    items: Arc<Vec<Item>>,
    /// The SQL type of each item's value.
    types: Vec<DataType>,
    timezone: Tz,
    /// What the views and the questions read.
    view_reads: Vec<Reads>,
    question_reads: Vec<Reads>,
    /// What was planned last, by what is asked: the text and its plan.
    plans: Mutex<FastMap<String, (String, Plan)>>,
}

/// A view as it was answered.
#[derive(Debug, Clone)]
pub(super) struct View {
    inputs: Inputs,
    batches: Vec<RecordBatch>,
    /// Grows when the answer is another one.
    revision: u64,
}

impl std::fmt::Debug for Computer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Computer").field("items", &self.items.len()).finish_non_exhaustive()
    }
}

/// What a question gave one person for one item: the value, its time, and whether its sources disagree.
type Given = Option<(Value, Option<i64>, bool)>;

/// What a question gave, by person: parallel to its items.
type Answers = FastMap<String, Vec<Given>>;

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
        let (view_reads, question_reads) = (Vec::new(), Vec::new());
        let plans = Mutex::default();
        let types = items.iter().map(|item| table::type_without_question(&item.definition)).collect();
        let mut computer = Self { ctx, definitions, items, types, timezone, view_reads, question_reads, plans };
        let wrong =
            |what: &str, error: Error| Error::settings(format!("profile {what}: {}", error.message)).with_source(error);
        let time = computer.time(0);
        for view in &computer.definitions.views {
            let state = computer.ctx.state();
            let sql = computer.text(&view.sql, time);
            let plan = plan(&state, &sql).await.map_err(|error| wrong(&view.name, error))?;
            let rows = Rows::new(format!("{SCHEMA}.{}", view.name), Arc::new(plan.schema().as_arrow().clone()));
            schema.register_table(view.name.clone(), Arc::new(rows))?;
            computer.view_reads.push(Reads::of(&view.sql, contracts, &computer.definitions.views)?);
        }
        for question in &computer.definitions.questions {
            let state = computer.ctx.state();
            let first = question.items.first().map_or("question", |item| &computer.items[*item].id);
            let sql = computer.text(&question.sql, time);
            let plan = plan(&state, &sql).await.map_err(|error| wrong(first, error))?;
            computer.check_columns(question, plan.schema().as_arrow())?;
            let mut reads = Reads::of(&question.sql, contracts, &computer.definitions.views)?;
            // The first source says whether there is a value at all.
            let sources = question.items.iter().flat_map(|item| &computer.items[*item].sources);
            sources.for_each(|source| reads.read(source.clone()));
            computer.question_reads.push(reads);
            for place in &question.items {
                let Item { id, name, .. } = &computer.items[*place];
                let given = plan.schema().field_with_unqualified_name(name)?.data_type();
                computer.types[*place] = table::sql_type(given).map_err(|error| wrong(id, error))?;
            }
        }
        Ok(computer)
    }

    pub fn items(&self) -> &Arc<Vec<Item>> {
        &self.items
    }

    /// The SQL type of each item's value.
    pub fn types(&self) -> &[DataType] {
        &self.types
    }

    fn check_columns(&self, question: &Question, schema: &Schema) -> Result<(), Error> {
        let names = question.items.iter().map(|item| self.items[*item].name.as_str());
        for name in names.chain(["person_id"]) {
            if schema.index_of(name).is_err() {
                return Err(Error::settings(format!("profile: the question gives no column {name}")));
            }
        }
        Ok(())
    }

    fn time(&self, now: i64) -> Time {
        const DAY_US: i64 = 86_400_000_000;
        Time { now, day: (now + time::offset_us(self.timezone, now)).div_euclid(DAY_US) }
    }

    /// `sql` with the time in it.
    fn text(&self, sql: &str, time: Time) -> String {
        let at = DateTime::from_timestamp_micros(time.now).unwrap_or_default();
        let day = DateTime::from_timestamp(time.day * 86_400, 0).unwrap_or_default();
        let sql = definition::replace(sql, |name| match name {
            "now" => Ok(format!(
                "arrow_cast('{}', 'Timestamp(Microsecond, Some(\"UTC\"))')",
                at.format("%Y-%m-%dT%H:%M:%S%.6fZ")
            )),
            _ => Ok(format!("DATE '{}'", day.format("%Y-%m-%d"))),
        });
        sql.expect("both times have a value")
    }

    /// `what` is for the log: which question costs how much.
    async fn ask(
        &self,
        snapshot: &Arc<Snapshot>,
        what: &str,
        sql: &str,
        time: Time,
    ) -> Result<Vec<RecordBatch>, Error> {
        let began = Instant::now();
        let mut state = self.ctx.state();
        state.config_mut().options_mut().extensions.insert(Pinned::new(snapshot.clone()));
        state.mark_start_execution();
        let plan = self.plan(&state, what, self.text(sql, time)).await?.physical(&state).await?;
        let planned = began.elapsed();
        let batches = collect(plan, state.task_ctx()).await?;
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        tracing::trace!(what, rows, ?planned, took = ?began.elapsed(), "asked");
        Ok(batches)
    }

    /// The plan of `sql`, made once for as long as the text is the same: most name a day at the most.
    async fn plan(&self, state: &SessionState, what: &str, sql: String) -> Result<Plan, Error> {
        let mut plans = self.plans.lock().await;
        if let Some((_, plan)) = plans.get(what).filter(|(text, _)| *text == sql) {
            return Ok(plan.clone());
        }
        let plan = Plan::new(state, plan(state, &sql).await?);
        plans.insert(what.to_string(), (sql, plan.clone()));
        Ok(plan)
    }

    /// All profiles of `snapshot` as of `now` (microseconds UTC). What is as in `before`, profiles of this computer, is not computed
    /// again but shared with it; without it, everything is computed.
    ///
    /// # Errors
    /// A question that failed; nothing is half computed.
    pub async fn compute(
        &self,
        snapshot: Arc<Snapshot>,
        now: i64,
        before: Option<&Profiles>,
    ) -> Result<Profiles, Error> {
        let time = self.time(now);
        let heard = self.heard(&snapshot, time, before).await?;
        let silences: Vec<Silence> = self.items.iter().map(|item| silence(item, &heard, now)).collect();
        let (own, views) = self.views(&snapshot, time, before).await?;
        let revisions: Vec<u64> = views.iter().map(|view| view.revision).collect();
        let (mut inputs, mut answers) = (Vec::new(), Vec::new());
        for (place, question) in self.definitions.questions.iter().enumerate() {
            let from = Inputs::new(&self.question_reads[place], &snapshot, &revisions, time);
            if before.is_none_or(|before| before.inputs[place] != from) {
                answers.push((question, self.answers(question, &own, time).await?));
            }
            inputs.push(from);
        }
        let are_silences_new = before.is_none_or(|before| before.silences != silences);
        let students = snapshot.identity.persons.iter().filter(|person| person.is_student);
        let persons = students.map(|student| {
            let old = before.and_then(|before| before.by_id(&student.id));
            let mut changed = Vec::new();
            for (question, answers) in &mut answers {
                let mut given = answers.remove(&*student.id).into_iter().flatten();
                for place in &question.items {
                    let item = settle(given.next().flatten(), silences[*place]);
                    if old.is_none_or(|old| old.items[*place] != item) {
                        changed.push((*place, item));
                    }
                }
            }
            if let Some(old) = old.filter(|old| old.student_nos == student.student_nos)
                && changed.is_empty()
                && !are_silences_new
            {
                return old.clone();
            }
            let mut items = old.map_or_else(|| vec![ItemValue::MISSING; self.items.len()], |old| old.items.clone());
            items.iter_mut().zip(&silences).for_each(|(item, silence)| item.hear(*silence));
            changed.into_iter().for_each(|(place, item)| items[place] = item);
            self.person(student, items, old, before)
        });
        let persons = persons.collect();
        let mut profiles = Profiles::new(snapshot, now, self.items.clone(), persons, before);
        (profiles.views, profiles.inputs, profiles.heard, profiles.silences) = (views, inputs, heard, silences);
        Ok(profiles)
    }

    /// When each source last gave anything; a table without rows is not there.
    async fn heard(
        &self,
        snapshot: &Arc<Snapshot>,
        time: Time,
        before: Option<&Profiles>,
    ) -> Result<BTreeMap<String, (Inputs, i64)>, Error> {
        let mut heard = BTreeMap::new();
        for source in self.items.iter().flat_map(|item| &item.sources) {
            if heard.contains_key(source) || !snapshot.tables.contains_key(source) {
                continue;
            }
            let mut reads = Reads::default();
            reads.read(source.clone());
            let inputs = Inputs::new(&reads, snapshot, &[], time);
            if let Some(known) =
                before.and_then(|before| before.heard.get(source)).filter(|(known, _)| *known == inputs)
            {
                heard.insert(source.clone(), known.clone());
                continue;
            }
            let sql = format!("SELECT max(ingested_at) AS at FROM {source}{HISTORY}");
            let batches = self.ask(snapshot, source, &sql, time).await?;
            for batch in batches.iter().filter(|batch| batch.num_rows() > 0) {
                if let Some(Value::Time(at)) = Value::of(&ScalarValue::try_from_array(batch.column(0), 0)?)? {
                    heard.insert(source.clone(), (inputs.clone(), at));
                }
            }
        }
        Ok(heard)
    }

    /// The snapshot with the views as tables of it, which only this computation sees, and the views.
    async fn views(
        &self,
        snapshot: &Arc<Snapshot>,
        time: Time,
        before: Option<&Profiles>,
    ) -> Result<(Arc<Snapshot>, Vec<View>), Error> {
        let mut own = Arc::new(snapshot.with_tables(snapshot.tables.clone()));
        let (mut views, mut revisions) = (Vec::new(), Vec::new());
        for (place, declared) in self.definitions.views.iter().enumerate() {
            let inputs = Inputs::new(&self.view_reads[place], snapshot, &revisions, time);
            let old = before.map(|before| &before.views[place]);
            let view = match old.filter(|old| old.inputs == inputs) {
                Some(old) => old.clone(),
                None => {
                    let batches = self.ask(&own, &declared.name, &declared.sql, time).await?;
                    // An answer that is the same as before changes nothing for those who build on it.
                    let revision = old.map_or(1, |old| old.revision + u64::from(old.batches != batches));
                    View { inputs, batches, revision }
                }
            };
            if let Some(schema) = view.batches.first().map(RecordBatch::schema) {
                let mut tables = own.tables.clone();
                let rows = Arc::new(MemTable::try_new(schema, vec![view.batches.clone()])?);
                tables.insert(format!("{SCHEMA}.{}", declared.name), TableVersion::new(None, rows));
                own = Arc::new(own.with_tables(tables));
            }
            revisions.push(view.revision);
            views.push(view);
        }
        Ok((own, views))
    }

    /// What a question gives each person.
    async fn answers(&self, question: &Question, own: &Arc<Snapshot>, time: Time) -> Result<Answers, Error> {
        let first = question.items.first().map_or("question", |item| &self.items[*item].id);
        let mut answers = Answers::default();
        for batch in self.ask(own, first, &question.sql, time).await? {
            self.read(question, &batch, &mut answers)?;
        }
        Ok(answers)
    }

    /// Takes a batch of answers into those of the persons.
    fn read(&self, question: &Question, batch: &RecordBatch, answers: &mut Answers) -> Result<(), Error> {
        let person = batch.column_by_name("person_id").expect("checked when planned");
        for (nth, place) in question.items.iter().enumerate() {
            let name = &self.items[*place].name;
            let values = batch.column_by_name(name).expect("checked when planned");
            let as_of = batch.column_by_name(&format!("{name}_as_of")).or_else(|| batch.column_by_name("as_of"));
            let conflict = batch.column_by_name(&format!("{name}_conflict"));
            for row in 0..batch.num_rows() {
                let cell = |column: &ArrayRef| Value::of(&ScalarValue::try_from_array(column, row)?);
                let Some(Value::Text(person)) = cell(person)? else { continue };
                let Some(value) = cell(values)? else { continue };
                let as_of = match as_of.map(&cell).transpose()?.flatten() {
                    Some(Value::Time(at)) => Some(at),
                    _ => None,
                };
                let conflict = matches!(conflict.map(&cell).transpose()?.flatten(), Some(Value::Bool(true)));
                let given = answers.entry(person).or_insert_with(|| vec![None; question.items.len()]);
                given[nth] = Some((value, as_of, conflict));
            }
        }
        Ok(())
    }

    fn person(
        &self,
        student: &index::Person,
        items: Vec<ItemValue>,
        old: Option<&Arc<Person>>,
        before: Option<&Profiles>,
    ) -> Arc<Person> {
        let of =
            |id: &str| self.items.iter().position(|item| item.id == id).and_then(|place| items[place].value.as_ref());
        let (college, class, bed, contacts) = (of("A08"), of("A09"), of("D01"), of("A11"));
        let text =
            |value: Option<&Value>, part: &str| value.and_then(|value| value.text(part)).map(ToString::to_string);
        let version = version(&self.items, &items);
        let old = old.filter(|old| old.version == version);
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

async fn plan(state: &SessionState, sql: &str) -> Result<datafusion::logical_expr::LogicalPlan, Error> {
    Ok(state.create_logical_plan(sql).await?)
}

/// How long the sources of an item have been silent.
fn silence(item: &Item, heard: &BTreeMap<String, (Inputs, i64)>, now: i64) -> Silence {
    let fresh_us =
        item.fresh_s.and_then(|fresh_s| i64::try_from(fresh_s.saturating_mul(1_000_000)).ok()).unwrap_or(i64::MAX);
    let is_silent = |source: &String| heard.get(source).is_some_and(|(_, at)| now.saturating_sub(*at) > fresh_us);
    match item.sources.first() {
        Some(lead) if heard.contains_key(lead) => match item.sources.iter().any(is_silent) {
            true => Silence::TooLong,
            false => Silence::Fresh,
        },
        _ => Silence::Ever,
    }
}

/// An item, by what its question gave and how long its sources have been silent.
fn settle(given: Given, silence: Silence) -> ItemValue {
    match given {
        Some((value, as_of, conflict)) if silence != Silence::Ever => {
            let mut item =
                ItemValue { value: Some(value), as_of, state: if conflict { State::Conflict } else { State::Ok } };
            item.hear(silence);
            item
        }
        _ => ItemValue::MISSING,
    }
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
