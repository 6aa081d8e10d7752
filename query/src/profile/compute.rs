//! Computing every profile. A snapshot and a time enter; all items of all students leave. Two computations of one snapshot
//! at one time give the same, whatever was computed before.
//!
//! Only what can have changed is computed: a question whose inputs are those of the profiles before is not asked again, one that
//! is declared `by_person` is asked for the persons whose inputs changed, and a person whose answers are the same is shared.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::DateTime;
use chrono_tz::Tz;
use datafusion::arrow::array::{ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::catalog::{CatalogProvider, MemorySchemaProvider, SchemaProvider};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use schemas::Contracts;
use schemas::record::{BIZ_DATE, timestamp_type};
use tokio::sync::Mutex;

use super::arrivals::Since;
use super::asker::Asker;
use super::assemble::Answers;
use super::checkpoint;
use super::definition::{self, Definition, Definitions, Item, Question, View};
use super::inputs::{Content, Inputs, Reads, Time};
use super::kept::Change;
use super::lineage::Lineage;
use super::store::{Heard, Profiles, Silence};
use super::table::{self, SCHEMA};
use super::times;
use super::value::Value;
use super::views::{Pass, Views};
use crate::catalog::{self, CATALOG, HISTORY};
use crate::error::Error;
use crate::identity::columns::PersonBy;
use crate::identity::{Index, PersonNo};
use crate::settings::Settings;
use crate::snapshot::Snapshot;
use crate::table::rows::Rows;
use crate::table::time;
use crate::table::view;

/// The local hour at which a night begins.
const NIGHT_HOUR: i64 = 5;

/// Computes profiles by the definitions.
pub struct Computer {
    pub(super) asker: Asker,
    pub(super) contracts: Contracts,
    pub(super) definitions: Definitions,
    items: Arc<Vec<Item>>,
    /// The SQL type of each item's value.
    types: Arc<Vec<DataType>>,
    /// Names the definitions.
    name: Arc<str>,
    timezone: Tz,
    /// The column that says when the events of a view were, where it is asked by time.
    pub(super) times_of: Vec<Option<String>>,
    /// What the views and the questions read.
    pub(super) view_reads: Vec<Reads>,
    pub(super) question_reads: Vec<Reads>,
    /// The views of the profiles that follow one another.
    followed: Mutex<Views>,
    /// Tables below what is asked with the moment.
    of_the_moment: BTreeSet<String>,
}

impl std::fmt::Debug for Computer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Computer").field("items", &self.items.len()).finish_non_exhaustive()
    }
}

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
        let (items, name) =
            (Arc::new(definitions.items.clone()), checkpoint::name(&definitions, &settings.timezone).into());
        let followed = Mutex::new(Views::new(definitions.views.len()));
        let of_the_moment = of_the_moment(&definitions)?;
        let (view_reads, question_reads) = (Vec::new(), Vec::new());
        let types = Arc::new(items.iter().map(|item| table::type_without_question(&item.definition)).collect());
        let mut computer = Self {
            asker: Asker::new(ctx.clone()),
            contracts: contracts.clone(),
            definitions,
            items,
            types,
            name,
            timezone,
            times_of: Vec::new(),
            view_reads,
            question_reads,
            followed,
            of_the_moment,
        };
        let wrong =
            |what: &str, error: Error| Error::settings(format!("profile {what}: {}", error.message)).with_source(error);
        let time = computer.time(0);
        for view in &computer.definitions.views {
            let state = ctx.state();
            let sql = computer.text(&view.sql, time);
            let plan = plan_of(&state, &sql).await.map_err(|error| wrong(&view.name, error))?;
            let rows = Rows::new(format!("{SCHEMA}.{}", view.name), Arc::new(plan.schema().as_arrow().clone()));
            schema.register_table(view.name.clone(), Arc::new(rows))?;
            let reads = Reads::of(&view.sql, contracts, &computer.definitions.views)?;
            computer.times_of.push(check_view(view, &reads, plan.schema().as_arrow(), contracts)?);
            computer.view_reads.push(reads);
        }
        for question in &computer.definitions.questions {
            let state = ctx.state();
            let first = question.items.first().map_or("question", |item| &computer.items[*item].id);
            let sql = computer.text(&question.sql, time);
            let plan = plan_of(&state, &sql).await.map_err(|error| wrong(first, error))?;
            computer.check_columns(question, plan.schema().as_arrow())?;
            computer.question_reads.push(Reads::of(&question.sql, contracts, &computer.definitions.views)?);
            for place in &question.items {
                let Item { id, name, .. } = &computer.items[*place];
                let given = plan.schema().field_with_unqualified_name(name)?.data_type();
                Arc::make_mut(&mut computer.types)[*place] =
                    table::sql_type(given).map_err(|error| wrong(id, error))?;
            }
        }
        Ok(computer)
    }

    pub fn items(&self) -> &Arc<Vec<Item>> {
        &self.items
    }

    /// The SQL type of each item's value.
    pub fn types(&self) -> &Arc<Vec<DataType>> {
        &self.types
    }

    /// Names the definitions: others have another name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
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

    pub(super) fn time(&self, now: i64) -> Time {
        const HOUR_US: i64 = 3_600_000_000;
        let local = now + time::offset_us(self.timezone, now);
        let day = |local: i64| local.div_euclid(24 * HOUR_US);
        Time { now, day: day(local), night: day(local - NIGHT_HOUR * HOUR_US) }
    }

    /// `sql` with the time in it.
    fn text(&self, sql: &str, time: Time) -> String {
        let day = |day: i64| {
            let day = DateTime::from_timestamp(day * 86_400, 0).unwrap_or_default();
            Ok(format!("DATE '{}'", day.format("%Y-%m-%d")))
        };
        let sql = definition::replace(sql, |name| match name {
            "now" => Ok(times::literal(time.now)),
            "night" => day(time.night),
            _ => day(time.day),
        });
        sql.expect("all times have a value")
    }

    /// What `sql` gives of `snapshot`; `what` names the question.
    pub(super) async fn ask(
        &self,
        snapshot: &Arc<Snapshot>,
        what: &str,
        sql: &str,
        time: Time,
    ) -> Result<Vec<RecordBatch>, Error> {
        self.asker.ask(snapshot, what, self.text(sql, time)).await
    }

    /// The same, where it is asked of little again and again.
    pub(super) async fn ask_little(
        &self,
        snapshot: &Arc<Snapshot>,
        what: &str,
        sql: &str,
        time: Time,
    ) -> Result<Vec<RecordBatch>, Error> {
        self.asker.ask_little(snapshot, what, self.text(sql, time)).await
    }

    /// All profiles of `snapshot` as of `now` (microseconds UTC), from nothing.
    ///
    /// # Errors
    /// A question that failed; nothing is half computed.
    pub async fn compute(&self, snapshot: Arc<Snapshot>, now: i64) -> Result<Profiles, Error> {
        let mut views = Views::new(self.definitions.views.len());
        self.compute_with(&mut views, snapshot, self.time(now), None).await
    }

    /// The same, following `before`, those of this computer that followed last: what is as it was then is not computed again but
    /// shared.
    ///
    /// # Errors
    /// As [`Computer::compute`].
    pub async fn follow(
        &self,
        snapshot: Arc<Snapshot>,
        now: i64,
        before: Option<&Profiles>,
    ) -> Result<Profiles, Error> {
        let mut views = self.followed.lock().await;
        self.compute_with(&mut views, snapshot, self.time(now), before).await
    }

    /// The moment that profiles of `snapshot` are of: `now`, or that of `before` while nothing whose answer depends on the moment
    /// has changed and `before` is younger than `clock_us`. So most changes are computed without asking what time alone changes.
    pub fn moment(&self, snapshot: &Snapshot, now: i64, before: Option<&Profiles>, clock_us: i64) -> i64 {
        let Some(before) = before.filter(|before| (0..clock_us).contains(&(now - before.computed_at))) else {
            return now;
        };
        let (then, time) = (self.time(before.computed_at), self.time(now));
        let content = |of: &Snapshot, table: &String| of.tables.get(table).map(Content::of);
        let is_other = |table: &String| content(&before.snapshot, table) != content(snapshot, table);
        let goes_on = (then.day, then.night) != (time.day, time.night) || self.of_the_moment.iter().any(is_other);
        if goes_on { now } else { before.computed_at }
    }

    async fn compute_with(
        &self,
        views: &mut Views,
        snapshot: Arc<Snapshot>,
        time: Time,
        before: Option<&Profiles>,
    ) -> Result<Profiles, Error> {
        let mut pass = Pass::new(self, snapshot.clone(), time, views);
        let heard = self.heard(&mut pass, &snapshot, time, before).await?;
        let silences: Vec<Silence> = self.items.iter().map(|item| silence(item, &heard, time.now)).collect();
        pass.update().await?;
        let revisions = pass.views.revisions();
        let (mut inputs, mut asked) = (Vec::new(), Vec::new());
        for (question, reads) in self.definitions.questions.iter().zip(&self.question_reads) {
            let from = Inputs::new(reads, &snapshot, &revisions, time);
            // An item whose first source has never given anything has no value, whatever its question gives: when that changes, it
            // changes for everybody.
            let is_ever = |silences: &[Silence]| {
                question.items.iter().map(|place| silences[*place] == Silence::Ever).collect::<Vec<_>>()
            };
            let change = match before {
                Some(before) if is_ever(&before.silences) == is_ever(&silences) => {
                    pass.views.change(reads, &before.inputs[inputs.len()], &from)
                }
                _ => Change::Everything,
            };
            let persons = match change {
                Change::Nothing => {
                    inputs.push(from);
                    continue;
                }
                Change::Persons(persons) if question.by_person && pass.are_few(&persons) => Some(persons),
                _ => None,
            };
            let own = pass.snapshot_of(reads, persons.as_ref())?;
            let answers = self.answers(question, &own, time, persons.is_some()).await?;
            asked.push((&question.items[..], persons, answers));
            inputs.push(from);
        }
        let persons = self.persons(&snapshot, asked, &silences, before);
        let mut profiles = Profiles::new(snapshot, time.now, self.items.clone(), persons, before);
        (profiles.definitions, profiles.types, profiles.inputs) = (self.name.clone(), self.types.clone(), inputs);
        (profiles.heard, profiles.silences) = (heard, silences);
        Ok(profiles)
    }

    /// What is in each source, and when it last gave anything, if ever.
    async fn heard(
        &self,
        pass: &mut Pass<'_>,
        snapshot: &Arc<Snapshot>,
        time: Time,
        before: Option<&Profiles>,
    ) -> Result<Heard, Error> {
        let mut heard = Heard::new();
        for source in self.items.iter().flat_map(|item| &item.sources) {
            let Some(content) = snapshot.tables.get(source).map(Content::of) else { continue };
            if heard.contains_key(source) {
                continue;
            }
            let known = before.and_then(|before| before.heard.get(source));
            let at = match known.map(|(old, at)| (*old == content, old.grows_into(&content), *at)) {
                Some((true, _, at)) => at,
                Some((false, Some(behind), at)) => {
                    pass.arrivals.of(self, snapshot, source, &Since::Offsets(behind)).await?.heard.max(at)
                }
                _ => self.heard_ever(snapshot, source, time).await?,
            };
            heard.insert(source.clone(), (content, at));
        }
        Ok(heard)
    }

    async fn heard_ever(&self, snapshot: &Arc<Snapshot>, source: &str, time: Time) -> Result<Option<i64>, Error> {
        let sql = format!("SELECT max(ingested_at) AS at FROM {source}{HISTORY}");
        let mut heard = None;
        for batch in self.ask(snapshot, source, &sql, time).await?.iter().filter(|batch| batch.num_rows() > 0) {
            if let Some(Value::Time(at)) = Value::at(batch.column(0), 0)? {
                heard = heard.max(Some(at));
            }
        }
        Ok(heard)
    }

    /// What a question gives each person.
    pub(super) async fn answers(
        &self,
        question: &Question,
        own: &Arc<Snapshot>,
        time: Time,
        is_of_few: bool,
    ) -> Result<Answers, Error> {
        let first = question.items.first().map_or("question", |item| &self.items[*item].id);
        let batches = match is_of_few {
            true => self.ask_little(own, first, &question.sql, time).await?,
            false => self.ask(own, first, &question.sql, time).await?,
        };
        let mut answers = Answers::default();
        for batch in batches {
            self.read(question, &batch, &own.identity, &mut answers)?;
        }
        Ok(answers)
    }

    /// Takes a batch of answers into those of the persons.
    fn read(
        &self,
        question: &Question,
        batch: &RecordBatch,
        index: &Index,
        answers: &mut Answers,
    ) -> Result<(), Error> {
        let persons = batch.column_by_name("person_id").expect("checked when planned");
        let persons = cast(persons, &DataType::Utf8).map_err(DataFusionError::from)?;
        let persons: Vec<Option<PersonNo>> =
            persons.as_string::<i32>().iter().map(|person| person.and_then(|person| index.number(person))).collect();
        for (nth, place) in question.items.iter().enumerate() {
            let name = &self.items[*place].name;
            let values = batch.column_by_name(name).expect("checked when planned");
            let as_of = batch.column_by_name(&format!("{name}_as_of")).or_else(|| batch.column_by_name("as_of"));
            let conflict = batch.column_by_name(&format!("{name}_conflict"));
            for (row, person) in persons.iter().enumerate().filter_map(|(row, person)| Some((row, (*person)?))) {
                let Some(value) = Value::at(values, row)? else { continue };
                let cell = |column: Option<&ArrayRef>| column.map_or(Ok(None), |column| Value::at(column, row));
                let as_of = match cell(as_of)? {
                    Some(Value::Time(at)) => Some(at),
                    _ => None,
                };
                let conflict = matches!(cell(conflict)?, Some(Value::Bool(true)));
                let given = answers.entry(person).or_insert_with(|| vec![None; question.items.len()]);
                given[nth] = Some((value, as_of, conflict));
            }
        }
        Ok(())
    }
}

async fn plan_of(state: &SessionState, sql: &str) -> Result<LogicalPlan, Error> {
    Ok(state.create_logical_plan(sql).await?)
}

/// The tables below everything that is asked with `$now`, views looked through.
fn of_the_moment(definitions: &Definitions) -> Result<BTreeSet<String>, Error> {
    let views = definitions.views.iter().map(|view| view.sql.as_str());
    let questions = definitions.questions.iter().map(|question| &*question.sql);
    let mut tables = BTreeSet::new();
    for sql in views.chain(questions).filter(|sql| sql.contains("$now")) {
        let lineage = Lineage::of(&Definition::Question(sql.into()), &definitions.views)?;
        tables.extend(lineage.tables.iter().map(|table| table.trim_end_matches(HISTORY).to_string()));
    }
    Ok(tables)
}

/// The column that says when a view's events were, where it is to be asked by time.
///
/// # Errors
/// `Settings` when a view cannot be asked as it says.
fn check_view(of: &View, reads: &Reads, schema: &Schema, contracts: &Contracts) -> Result<Option<String>, Error> {
    let name = &of.name;
    let has = |column: &str, data_type: &DataType| {
        schema.field_with_name(column).is_ok_and(|field| field.data_type() == data_type)
    };
    if (of.by_time || of.by_person) && schema.index_of("person_id").is_err() {
        return Err(Error::settings(format!("profile view {name}: by_time and by_person need a column person_id")));
    }
    if !of.by_time {
        return Ok(None);
    }
    // A new identity has those rows asked again whose person_id or link_status is another.
    if !PersonBy::called(&of.sql).is_empty() {
        let what = "by_time needs whose a row is from person_id and link_status, not from functions";
        return Err(Error::settings(format!("profile view {name}: {what}")));
    }
    let contract = match reads.tables() {
        [table] if reads.views().is_empty() => contracts.get(table),
        _ => None,
    };
    let Some(contract) = contract.filter(|contract| view::is_day_of_key(contract)) else {
        let what = "by_time needs one table to read, whose key has the time of the event";
        return Err(Error::settings(format!("profile view {name}: {what}")));
    };
    let column = &contract.event_time;
    if !(has(BIZ_DATE, &DataType::Date32) && has(column, &timestamp_type())) {
        let what = format!("by_time needs the columns biz_date and {column}, as {} has them", contract.name());
        return Err(Error::settings(format!("profile view {name}: {what}")));
    }
    Ok(Some(column.clone()))
}

/// How long the sources of an item have been silent.
fn silence(item: &Item, heard: &Heard, now: i64) -> Silence {
    let fresh_us =
        item.fresh_s.and_then(|fresh_s| i64::try_from(fresh_s.saturating_mul(1_000_000)).ok()).unwrap_or(i64::MAX);
    let last = |source: &String| heard.get(source).and_then(|(_, at)| *at);
    let is_silent = |source: &String| last(source).is_some_and(|at| now.saturating_sub(at) > fresh_us);
    match item.sources.first() {
        Some(lead) if last(lead).is_some() => match item.sources.iter().any(is_silent) {
            true => Silence::TooLong,
            false => Silence::Fresh,
        },
        _ => Silence::Ever,
    }
}
