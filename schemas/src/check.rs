//! Which rows break which rule of a contract.
//!
//! A batch of typed records enters, violations leave: at most one a row, the first in the order of the fields,
//! then of the row rules. The batch itself is never changed. Rules are tried on whole columns first, so that a
//! clean batch costs a few passes over its buffers; only a column that fails is looked at row by row.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringArray};
use arrow::compute::{CastOptions, cast_with_options, max, min};
use arrow::datatypes::{DataType, Float64Type, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::common::{DFSchema, Result as DataFusionResult};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::prelude::SessionContext;
use regex::Regex;

use crate::contract::{Contract, Field};
use crate::error::Error;

/// One row that breaks one rule. The message never holds the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub row: usize,
    /// The field, or empty when the rule is about the whole row.
    pub field: String,
    /// `type`, `required`, `range`, `length`, `pattern`, `values`, a code set's name, or a row rule's name.
    pub rule: String,
    pub message: String,
}

/// The rules of one contract, ready to run.
#[derive(Debug)]
pub struct Checker {
    fields: Vec<FieldRules>,
    rows: Vec<(String, Arc<dyn PhysicalExpr>)>,
}

#[derive(Debug)]
struct FieldRules {
    field: Field,
    is_key: bool,
    pattern: Option<Regex>,
    values: Option<BTreeSet<String>>,
}

impl Checker {
    /// Compiles the rules of `contract`.
    ///
    /// # Errors
    /// A pattern that is no regular expression, or a row rule that is no predicate over the record.
    pub fn new(contract: &Contract) -> Result<Self, Error> {
        let name = contract.name();
        let mut fields = Vec::new();
        for field in &contract.fields {
            let pattern = field.pattern.as_deref().map(Regex::new).transpose();
            let pattern = pattern.map_err(|error| Error::shape(format!("{name}.{}: pattern: {error}", field.name)))?;
            let values = field.values.as_ref().map(|(_, values)| values.iter().cloned().collect());
            let is_key = contract.key.contains(&field.name);
            fields.push(FieldRules { field: field.clone(), is_key, pattern, values });
        }
        let mut rows = Vec::new();
        let context = SessionContext::new();
        for rule in &contract.row_rules {
            let wrong = |error| Error::shape(format!("{name}: row rule `{}`: {error}", rule.name));
            rows.push((rule.name.clone(), compile(&context, &rule.predicate, contract).map_err(wrong)?));
        }
        Ok(Self { fields, rows })
    }

    /// Checks a batch of records (the contract's fields and the envelope), at most one violation a row.
    ///
    /// # Errors
    /// `Shape` when the batch lacks a column or a row rule cannot be evaluated.
    pub fn check(&self, batch: &RecordBatch) -> Result<Vec<Violation>, Error> {
        let column = |name: &str| batch.column_by_name(name).ok_or_else(|| Error::shape(format!("no column `{name}`")));
        let op = column("op")?.as_string::<i32>();
        let mut violations = Violations::default();
        for rules in &self.fields {
            rules.check(column(&rules.field.name)?, op, &mut violations);
        }
        for (name, predicate) in &self.rows {
            violations
                .rows(&passes(predicate.as_ref(), batch), op, || ("", name, "the row contradicts itself".to_string()));
        }
        Ok(violations.finish())
    }
}

/// A predicate over the record, tried on no rows, so that whatever it lacks shows when the contract is loaded.
fn compile(context: &SessionContext, predicate: &str, contract: &Contract) -> DataFusionResult<Arc<dyn PhysicalExpr>> {
    // Rules see rows before anything is known to be present.
    let record = contract.record_schema();
    let fields = record.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let arrow = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let schema = DFSchema::try_from(arrow.as_ref().clone())?;
    let expression = context.parse_sql_expr(predicate, &schema)?;
    let simplifier = ExprSimplifier::new(SimplifyContext::builder().with_schema(Arc::new(schema.clone())).build());
    let expression = simplifier.simplify(simplifier.coerce(expression, &schema)?)?;
    let physical = context.create_physical_expr(expression, &schema)?;
    physical.evaluate(&RecordBatch::new_empty(arrow))?;
    Ok(physical)
}

/// Row by row whether `predicate` holds. A row on which it cannot be computed, an overflow say, does not pass.
fn passes(predicate: &dyn PhysicalExpr, batch: &RecordBatch) -> BooleanArray {
    let evaluated = predicate.evaluate(batch).and_then(|value| value.into_array(batch.num_rows()));
    match evaluated {
        Ok(passes) => passes.as_boolean().clone(),
        Err(_) if batch.num_rows() == 1 => BooleanArray::from(vec![false]),
        Err(_) => {
            let row = |at| passes(predicate, &batch.slice(at, 1)).iter().next().flatten();
            (0..batch.num_rows()).map(row).collect()
        }
    }
}

impl FieldRules {
    fn check(&self, column: &ArrayRef, op: &StringArray, violations: &mut Violations) {
        let field = &self.field;
        if field.required && column.null_count() > 0 {
            let is_needed = |row: usize| self.is_key || op.value(row) != "D";
            let missing = (0..column.len()).filter(|&row| column.is_null(row) && is_needed(row));
            violations.each(missing, || (&field.name, "required", "no value".to_string()));
        }
        if field.minimum.is_some() || field.maximum.is_some() {
            self.check_range(column, violations);
        }
        if column.data_type() != &DataType::Utf8 {
            return;
        }
        let text = column.as_string::<i32>();
        let fails = |bad: &dyn Fn(&str) -> bool| -> Vec<usize> {
            (0..text.len()).filter(|&row| text.is_valid(row) && bad(text.value(row))).collect()
        };
        if field.length_min.is_some() || field.length_max.is_some() {
            let (least, most) = (field.length_min.unwrap_or(0), field.length_max.unwrap_or(usize::MAX));
            // Bytes bound characters from above: only a value outside the byte bounds needs counting.
            let wrong = fails(&|value| {
                (value.len() > most || value.len() < least * 4) && !(least..=most).contains(&value.chars().count())
            });
            violations.each(wrong, || (&field.name, "length", format!("not {least} to {most} characters")));
        }
        if let Some(pattern) = &self.pattern {
            let wrong = fails(&|value| !pattern.is_match(value));
            violations.each(wrong, || (&field.name, "pattern", format!("does not match {pattern}")));
        }
        if let (Some(values), Some((set, _))) = (&self.values, &field.values) {
            let wrong = fails(&|value| !values.contains(value));
            violations.each(wrong, || (&field.name, set, "not one of the known values".to_string()));
        }
    }

    fn check_range(&self, column: &ArrayRef, violations: &mut Violations) {
        let options = CastOptions { safe: true, ..CastOptions::default() };
        let Ok(numbers) = cast_with_options(column, &DataType::Float64, &options) else {
            return;
        };
        let numbers = numbers.as_primitive::<Float64Type>();
        let least = self.field.minimum.unwrap_or(f64::NEG_INFINITY);
        let most = self.field.maximum.unwrap_or(f64::INFINITY);
        if min(numbers).is_none_or(|low| low >= least) && max(numbers).is_none_or(|high| high <= most) {
            return;
        }
        let wrong =
            (0..numbers.len()).filter(|&row| numbers.is_valid(row) && !(least..=most).contains(&numbers.value(row)));
        violations.each(wrong, || (&self.field.name, "range", format!("not between {least} and {most}")));
    }
}

/// Collects the first violation of each row.
#[derive(Default)]
struct Violations {
    seen: BTreeSet<usize>,
    found: Vec<Violation>,
}

impl Violations {
    fn each<'a>(&mut self, rows: impl IntoIterator<Item = usize>, say: impl Fn() -> (&'a str, &'a str, String)) {
        for row in rows {
            if self.seen.insert(row) {
                let (field, rule, message) = say();
                self.found.push(Violation { row, field: field.to_string(), rule: rule.to_string(), message });
            }
        }
    }

    /// A delete has only its key: it contradicts nothing.
    fn rows<'a>(&mut self, passes: &BooleanArray, op: &StringArray, say: impl Fn() -> (&'a str, &'a str, String)) {
        if passes.false_count() > 0 {
            let fails = |row: &usize| passes.is_valid(*row) && !passes.value(*row) && op.value(*row) != "D";
            self.each((0..passes.len()).filter(fails), say);
        }
    }

    fn finish(mut self) -> Vec<Violation> {
        self.found.sort_by_key(|violation| violation.row);
        self.found
    }
}
