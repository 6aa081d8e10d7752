//! Running a connector's mapping: one SELECT over `input`, on each batch.
//!
//! A batch of text columns enters; the mapped columns leave, and for each mapped row the number of the input row
//! it came from, so that a row that fails later can be told by what its source said.
//!
//! The SELECT is checked once: it is a plain projection and filter, so that rows keep their origin.

mod lineage;

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use datafusion::sql::sqlparser::ast::{Expr, GroupByExpr, Ident, SelectItem, SetExpr, Statement};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use tokio::sync::Mutex;

use crate::connector::TableMapping;
use crate::error::{Error, ErrorKind};
use crate::functions::{self, Surroundings};

/// The hidden column that carries a row's number through the mapping.
const ROW: &str = "_quad_row";

/// A mapping, checked and ready.
pub struct Mapping {
    name: String,
    sql: String,
    context: SessionContext,
    /// The plan for the columns that came last.
    planned: Mutex<Option<Planned>>,
}

/// A plan over the [`Rows`] of whoever runs it. Planning anew would take longer than the rows do.
#[derive(Clone)]
struct Planned {
    input: SchemaRef,
    plan: Arc<dyn ExecutionPlan>,
}

/// The table `input`: the rows that the task brings along, if it does.
#[derive(Debug)]
struct Input(SchemaRef);

/// Numbered rows, an extension of the task's settings.
struct Rows(RecordBatch);

impl PartitionStream for Input {
    fn schema(&self) -> &SchemaRef {
        &self.0
    }

    fn execute(&self, task: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = task.session_config().get_extension::<Rows>().map(|rows| Ok(rows.0.clone()));
        Box::pin(RecordBatchStreamAdapter::new(self.0.clone(), futures::stream::iter(rows)))
    }
}

/// Mapped rows and the input row of each.
#[derive(Debug)]
pub struct Mapped {
    pub batch: RecordBatch,
    pub rows: Vec<usize>,
    /// Input rows that the mapping could not compute.
    pub failed: Vec<usize>,
}

impl Mapping {
    /// Checks the mapping of `table`; `connector` is for messages.
    ///
    /// # Errors
    /// `Settings` when it is no single plain SELECT.
    pub fn new(connector: &str, table: &TableMapping, surroundings: &Surroundings) -> Result<Self, Error> {
        let name = format!("{connector}/{}.sql", table.name);
        let sql =
            with_row_number(&table.mapping_sql).map_err(|message| Error::settings(format!("{name}: {message}")))?;
        // One partition keeps the rows in order and the plan small.
        let config = SessionConfig::new().with_target_partitions(1).with_information_schema(false);
        let context = SessionContext::new_with_config(config);
        functions::register(&context, surroundings);
        Ok(Self { name, sql, context, planned: Mutex::default() })
    }

    /// Maps one batch of text columns. A row that the mapping cannot compute costs only itself.
    ///
    /// # Errors
    /// `Settings` when the mapping names a column or function that is not there.
    pub async fn run(&self, input: &RecordBatch) -> Result<Mapped, Error> {
        let mut parts = Vec::new();
        let mut failed = Vec::new();
        let mut waiting = vec![numbered(input)?];
        while let Some(part) = waiting.pop() {
            match self.select(&part).await {
                Ok(mapped) => parts.push(mapped),
                Err(error) if error.kind == ErrorKind::Settings => return Err(error),
                Err(_) if part.num_rows() == 1 => failed.extend(row_numbers(&part)?),
                Err(_) => {
                    // Halves, the first one next: rows stay in order.
                    let half = part.num_rows() / 2;
                    waiting.push(part.slice(half, part.num_rows() - half));
                    waiting.push(part.slice(0, half));
                }
            }
        }
        let schema = match parts.first() {
            Some(part) => part.schema(),
            None => self.select(&numbered(&input.slice(0, 0))?).await?.schema(),
        };
        let batch = concat_batches(&schema, &parts).map_err(|error| Error::internal("join mapped rows", error))?;
        let rows = row_numbers(&batch)?;
        let mut batch = batch;
        let at = batch.schema().index_of(ROW).map_err(|error| Error::internal("find the row numbers", error))?;
        batch.remove_column(at);
        Ok(Mapped { batch, rows, failed })
    }

    /// The SELECT over some numbered rows. What is wrong with the statement is `Settings`, with a row `Internal`.
    async fn select(&self, numbered: &RecordBatch) -> Result<RecordBatch, Error> {
        let plan = self.plan(&numbered.schema()).await?;
        // What a run measures would stay with the plan.
        let plan = reset_plan_states(plan).map_err(|error| self.wrong(error))?;
        let schema = plan.schema();
        let task = TaskContext::from(&self.context);
        let config = task.session_config().clone().with_extension(Arc::new(Rows(numbered.clone())));
        let batches = collect(plan, Arc::new(task.with_session_config(config))).await;
        let batches = batches.map_err(|error| match numbered.num_rows() {
            0 => self.wrong(error),
            _ => Error::internal("map a row", error.strip_backtrace()),
        })?;
        concat_batches(&schema, &batches).map_err(|error| Error::internal("join mapped rows", error))
    }

    async fn plan(&self, input: &SchemaRef) -> Result<Arc<dyn ExecutionPlan>, Error> {
        let mut planned = self.planned.lock().await;
        if let Some(planned) = planned.as_ref().filter(|planned| planned.input == *input) {
            return Ok(planned.plan.clone());
        }
        let frame = self.frame(input).await?;
        if !is_by_row(frame.logical_plan()) {
            let message = "a mapping takes each row by itself: no join, subquery, window or aggregate";
            return Err(Error::settings(format!("{}: {message}", self.name)));
        }
        let plan = frame.create_physical_plan().await.map_err(|error| self.wrong(error))?;
        *planned = Some(Planned { input: input.clone(), plan: plan.clone() });
        Ok(plan)
    }

    /// The SELECT over numbered rows of a schema. `planned` is held while it is made.
    async fn frame(&self, input: &SchemaRef) -> Result<DataFrame, Error> {
        let rows = StreamingTable::try_new(input.clone(), vec![Arc::new(Input(input.clone()))]);
        let rows = rows.map_err(|error| self.wrong(error))?;
        self.context.deregister_table("input").map_err(|error| self.wrong(error))?;
        self.context.register_table("input", Arc::new(rows)).map_err(|error| self.wrong(error))?;
        self.context.sql(&self.sql).await.map_err(|error| self.wrong(error))
    }

    fn wrong(&self, error: DataFusionError) -> Error {
        Error::settings(format!("{}: {}", self.name, error.strip_backtrace()))
    }

    /// Whether the mapping reads the input column `name`. It may say yes for one that it does not need.
    pub fn reads(&self, name: &str) -> bool {
        let tokens = Tokenizer::new(&GenericDialect {}, &self.sql).tokenize().unwrap_or_default();
        let mut before = Token::EOF;
        for token in tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))) {
            let is_named = matches!(&token, Token::Word(word) if word.value.eq_ignore_ascii_case(name));
            let begins = match &before {
                Token::Word(word) => word.value.eq_ignore_ascii_case("SELECT"),
                Token::Comma | Token::Period => true,
                _ => false,
            };
            // What stands behind AS is an output, or a type.
            let is_made = matches!(&before, Token::Word(word) if word.value.eq_ignore_ascii_case("AS"));
            if (is_named && !is_made) || (begins && token == Token::Mul) {
                return true;
            }
            before = token;
        }
        false
    }

    /// The output columns that are made of any of the input columns `names`, whatever they are called on the way.
    ///
    /// # Errors
    /// As [`Mapping::run`].
    pub async fn made_of(&self, names: &[String], input: &RecordBatch) -> Result<Vec<String>, Error> {
        let frame = {
            let _planned = self.planned.lock().await;
            self.frame(&numbered(&input.slice(0, 0))?.schema()).await?
        };
        let is_one = |origin: &String| names.iter().any(|name| name.eq_ignore_ascii_case(origin));
        let lineage = lineage::of(frame.logical_plan());
        let outputs = frame.schema().fields().iter().zip(&lineage);
        let made = outputs.filter(|(_, origins)| origins.iter().any(is_one));
        Ok(made.map(|(field, _)| field.name().clone()).collect())
    }

    /// The names of the mapped columns, for an input with `columns`.
    ///
    /// # Errors
    /// As [`Mapping::run`].
    pub async fn output(&self, columns: &[String]) -> Result<SchemaRef, Error> {
        let fields: Vec<_> = columns.iter().map(|name| Field::new(name, DataType::Utf8, true)).collect();
        Ok(self.run(&RecordBatch::new_empty(Arc::new(Schema::new(fields)))).await?.batch.schema())
    }
}

/// Whether each row of the plan is made of one row of `input`, and of nothing else: only then the plan can be kept.
fn is_by_row(plan: &LogicalPlan) -> bool {
    use LogicalPlan::{Filter, Projection, SubqueryAlias, TableScan, Unnest};
    let mut is_by_row = true;
    let walked = plan.apply_with_subqueries(|node| {
        is_by_row &= matches!(node, Projection(_) | Filter(_) | SubqueryAlias(_) | TableScan(_) | Unnest(_));
        Ok(TreeNodeRecursion::Continue)
    });
    walked.is_ok() && is_by_row
}

fn numbered(input: &RecordBatch) -> Result<RecordBatch, Error> {
    let count =
        u32::try_from(input.num_rows()).map_err(|error| Error::internal("number the rows of a batch", error))?;
    let mut fields: Vec<_> = input.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(ROW, DataType::UInt32, false)));
    let mut columns = input.columns().to_vec();
    columns.push(Arc::new(UInt32Array::from_iter_values(0..count)) as ArrayRef);
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        .map_err(|error| Error::internal("number the rows of a batch", error))
}

fn row_numbers(batch: &RecordBatch) -> Result<Vec<usize>, Error> {
    let numbers = batch.column_by_name(ROW).ok_or_else(|| Error::internal("find the row numbers", ROW))?;
    Ok(numbers.as_primitive::<UInt32Type>().values().iter().map(|&row| row as usize).collect())
}

/// The same SELECT, with the row number as one more output.
fn with_row_number(sql: &str) -> Result<String, String> {
    let mut statements = Parser::parse_sql(&GenericDialect {}, sql).map_err(|error| error.to_string())?;
    let plain = "a mapping is one plain SELECT over input: no UNION, GROUP BY, DISTINCT, ORDER BY or LIMIT";
    let [Statement::Query(query)] = statements.as_mut_slice() else {
        return Err(plain.into());
    };
    if query.order_by.is_some() || query.limit_clause.is_some() || query.with.is_some() {
        return Err(plain.into());
    }
    let SetExpr::Select(select) = query.body.as_mut() else {
        return Err(plain.into());
    };
    let is_grouped = !matches!(&select.group_by, GroupByExpr::Expressions(expressions, _) if expressions.is_empty());
    if is_grouped || select.distinct.is_some() || select.having.is_some() || select.from.len() != 1 {
        return Err(plain.into());
    }
    select.projection.push(SelectItem::UnnamedExpr(Expr::Identifier(Ident::new(ROW))));
    Ok(statements[0].to_string())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{Connector, ExtractSettings};

    fn mapping(sql: &str) -> Mapping {
        let contracts = schemas::Contracts::load(Path::new("../schemas")).expect("contracts");
        let connector = Connector::load(Path::new("connectors"), "logistics_ecard", &contracts).expect("loads");
        let mut table = connector.tables[0].clone();
        table.mapping_sql = sql.to_string();
        let extract: ExtractSettings = crate::tests::settings(Path::new("."));
        Mapping::new("test", &table, &Surroundings::of(&connector, &extract, chrono_tz::Tz::UTC)).expect("a mapping")
    }

    fn rows(values: &[&str]) -> RecordBatch {
        let column: ArrayRef = Arc::new(arrow::array::StringArray::from(values.to_vec()));
        RecordBatch::try_from_iter_with_nullable([("A", column, true)]).expect("a batch")
    }

    #[tokio::test]
    async fn a_kept_plan_maps_each_batch_by_itself_and_remembers_none() {
        let mapping = mapping("SELECT yuan_to_fen(\"A\") AS a FROM input WHERE \"A\" <> '0'");
        mapping.output(&["A".to_string()]).await.expect("it fits");
        for _ in 0..3 {
            let (one, other) = (rows(&["1", "0", "x"]), rows(&["2", " "]));
            let (one, other) = tokio::join!(mapping.run(&one), mapping.run(&other));
            let told = [one, other].map(|mapped| mapped.map(|mapped| (mapped.batch, mapped.rows)).expect("maps"));
            let values =
                told.each_ref().map(|(batch, _)| batch.column(0).as_string::<i32>().iter().collect::<Vec<_>>());
            assert_eq!(values, [vec![Some("100"), Some("x")], vec![Some("200"), None]]);
            assert_eq!([&told[0].1, &told[1].1], [&vec![0, 2], &vec![0, 1]]);
        }
        let planned = mapping.planned.lock().await;
        let metrics = planned.as_ref().and_then(|planned| planned.plan.metrics()).map(|metrics| metrics.iter().count());
        assert_eq!(metrics.unwrap_or_default(), 0, "the kept plan was never run itself");
    }

    #[tokio::test]
    async fn what_fails_without_a_row_is_refused() {
        let mapping = mapping("SELECT 1/0 AS a FROM input");
        for error in [mapping.output(&["A".to_string()]).await.err(), mapping.run(&rows(&["1", "2"])).await.err()] {
            let error = error.expect("no row can be computed");
            assert_eq!(error.kind, ErrorKind::Settings, "{error}");
            assert!(error.to_string().contains("test/") && error.to_string().contains("Divide by zero"), "{error}");
        }
    }

    #[tokio::test]
    async fn what_is_made_of_other_rows_is_refused() {
        for sql in [
            "SELECT (SELECT MAX(\"A\") FROM input) AS a FROM input",
            "SELECT \"A\" AS a FROM input WHERE \"A\" IN (SELECT \"A\" FROM input)",
            "SELECT q.\"A\" AS a FROM input JOIN (SELECT \"A\" FROM input) q ON q.\"A\" = input.\"A\"",
            "SELECT row_number() OVER () AS a FROM input",
        ] {
            let error = mapping(sql).run(&rows(&["1"])).await.expect_err("it looks at other rows");
            assert_eq!(error.kind, ErrorKind::Settings, "{sql}: {error}");
            assert!(error.to_string().contains("takes each row by itself"), "{sql}: {error}");
        }
    }
}
