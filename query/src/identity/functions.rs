//! Identity in SQL: `person_by_number(no, at)` and its siblings. Columns of identifiers and times enter, persons leave.
//!
//! The index is the pinned snapshot's, so that every row of an answer is resolved by the same one.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, PrimitiveArray, StringArray, StringBuilder};
use datafusion::arrow::datatypes::{DataType, TimestampMicrosecondType};
use datafusion::common::cast::{as_string_array, as_timestamp_microsecond_array};
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::scalar::ScalarValue;
use schemas::record::timestamp_type;

use super::columns::PersonBy;
use super::index::{Index, Resolution};
use super::normal;
use crate::snapshot::Pinned;

/// Every function, ready to be registered.
pub fn all() -> Vec<ScalarUDF> {
    let by = [By::Number, By::Card, By::Access];
    let what = [What::Person, What::Link];
    let resolve =
        what.into_iter().flat_map(|what| by.into_iter().map(move |by| ScalarUDF::from(Resolve::new(what, by))));
    let of_snapshot = [OfSnapshot::Id, OfSnapshot::Watermark]
        .map(|what| ScalarUDF::from(SnapshotFunction { what, signature: Signature::nullary(Volatility::Stable) }));
    resolve.chain(of_snapshot).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum What {
    Person,
    Link,
}

/// By what a row is resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum By {
    Number,
    Card,
    Access,
}

impl By {
    pub fn of(by: PersonBy) -> Option<Self> {
        match by {
            PersonBy::Number(_) => Some(Self::Number),
            PersonBy::Card => Some(Self::Card),
            PersonBy::Access => Some(Self::Access),
            PersonBy::Nobody => None,
        }
    }

    /// How many identifiers come before the time.
    fn identifiers(self) -> usize {
        match self {
            Self::Number => 1,
            Self::Card | Self::Access => 2,
        }
    }
}

/// `person_by_*` and `link_by_*`: identifiers and a moment (null: now) to a person id or a link status.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Resolve {
    what: What,
    by: By,
    name: &'static str,
    signature: Signature,
}

impl Resolve {
    fn new(what: What, by: By) -> Self {
        let name = match (what, by) {
            (What::Person, By::Number) => "person_by_number",
            (What::Person, By::Card) => "person_by_card",
            (What::Person, By::Access) => "person_by_access",
            (What::Link, By::Number) => "link_by_number",
            (What::Link, By::Card) => "link_by_card",
            (What::Link, By::Access) => "link_by_access",
        };
        let mut types = vec![DataType::Utf8; by.identifiers()];
        types.push(timestamp_type());
        // Stable: the same within one question, another after the next refresh.
        Self { what, by, name, signature: Signature::exact(types, Volatility::Stable) }
    }
}

/// Columns of identifiers, and when they were seen.
pub struct Identifiers {
    columns: Vec<StringArray>,
    at: PrimitiveArray<TimestampMicrosecondType>,
}

impl Identifiers {
    /// The arguments of a call, the time last.
    ///
    /// # Errors
    /// There are none, or an identifier is not text.
    pub fn of(args: &ScalarFunctionArgs) -> Result<Self> {
        let columns = args.args.iter().map(|arg| arg.to_array(args.number_rows)).collect::<Result<Vec<ArrayRef>>>()?;
        let Some((at, columns)) = columns.split_last() else { return exec_err!("identifiers and a time are needed") };
        let columns = columns.iter().map(|column| as_string_array(column).cloned()).collect::<Result<_>>()?;
        Ok(Self { columns, at: as_timestamp_microsecond_array(at)?.clone() })
    }

    /// Whether any identifier of a row is among `values`.
    pub fn has_any(&self, values: &HashSet<String>, row: usize) -> bool {
        let is_in = |value: &str| normal::identifier(value).is_some_and(|value| values.contains(&*value));
        self.columns.iter().any(|column| column.is_valid(row) && is_in(column.value(row)))
    }

    /// Whose a row is.
    pub fn resolve(&self, by: By, index: &Index, row: usize) -> Resolution {
        let at = self.at.is_valid(row).then(|| self.at.value(row));
        let value = |column: usize| self.columns[column].is_valid(row).then(|| self.columns[column].value(row));
        match by {
            By::Number => value(0).map_or(Resolution::Placeholder, |number| index.resolve_number(number, at)),
            By::Card => value(0).map_or(Resolution::Placeholder, |card| index.resolve_card(card, value(1), at)),
            By::Access => index.resolve_access(value(0), value(1), at),
        }
    }
}

impl ScalarUDFImpl for Resolve {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let snapshot = Pinned::of(&args.config_options)?;
        let index = &snapshot.identity;
        let rows = args.number_rows;
        let identifiers = Identifiers::of(&args)?;
        let mut out = StringBuilder::with_capacity(rows, rows * 32);
        for row in 0..rows {
            let resolution = identifiers.resolve(self.by, index, row);
            match self.what {
                What::Person => out.append_option(resolution.person().map(|person| &*index.person(person).id)),
                What::Link => out.append_option(resolution.status().map(|status| status.name())),
            }
        }
        Ok(ColumnarValue::Array(Arc::new(out.finish())))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum OfSnapshot {
    Id,
    Watermark,
}

/// `quad_snapshot()`: which snapshot answers; `quad_watermark()`: how far it reaches.
#[derive(Debug, PartialEq, Eq, Hash)]
struct SnapshotFunction {
    what: OfSnapshot,
    signature: Signature,
}

impl ScalarUDFImpl for SnapshotFunction {
    fn name(&self) -> &str {
        match self.what {
            OfSnapshot::Id => "quad_snapshot",
            OfSnapshot::Watermark => "quad_watermark",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(match self.what {
            OfSnapshot::Id => DataType::Int64,
            OfSnapshot::Watermark => DataType::Utf8,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let snapshot = Pinned::of(&args.config_options)?;
        Ok(ColumnarValue::Scalar(match self.what {
            OfSnapshot::Id => ScalarValue::from(snapshot.id.cast_signed()),
            OfSnapshot::Watermark => ScalarValue::from(snapshot.watermark.to_string()),
        }))
    }
}
