//! What an index says otherwise than the one before. Two indexes enter; whether a row is somebody else's now leaves, as a
//! function that a plan can ask of every row.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::BooleanArray;
use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, ident,
};

use super::columns::PersonBy;
use super::functions::{By, Identifiers};
use super::index::{Index, PersonNo, Resolution};

/// An index and the one that follows it.
#[derive(Debug)]
pub struct Relinking {
    before: Arc<Index>,
    after: Arc<Index>,
    numbers: Vec<Option<PersonNo>>,
}

impl Relinking {
    pub fn new(before: &Arc<Index>, after: &Arc<Index>) -> Self {
        let numbers = before.persons.iter().map(|person| after.number(&person.id)).collect();
        Self { before: before.clone(), after: after.clone(), numbers }
    }

    /// The numbers of persons by those before; ascending, as both are ordered by id. None of who is no longer there.
    pub fn numbers(&self) -> &[Option<PersonNo>] {
        &self.numbers
    }

    pub fn is_from(&self, before: &Arc<Index>) -> bool {
        Arc::ptr_eq(&self.before, before)
    }

    /// Whether a row of a table that is resolved `by`, with the time of its event in `at`, is somebody else's; never of a
    /// table that is about no one.
    pub fn is_other(self: &Arc<Self>, by: PersonBy, at: &str) -> Option<Expr> {
        let function = ScalarUDF::from(IsOther {
            by: By::of(by)?,
            relinking: self.clone(),
            signature: Signature::variadic_any(Volatility::Immutable),
        });
        Some(function.call(by.identifiers().iter().copied().chain([at]).map(ident).collect()))
    }

    fn is_same(&self, then: Resolution, now: Resolution) -> bool {
        let person = then.person().map(|person| self.numbers[person as usize]);
        then.status() == now.status() && person == now.person().map(Some)
    }
}

/// `is_other(identifiers…, at)`.
#[derive(Debug)]
struct IsOther {
    by: By,
    relinking: Arc<Relinking>,
    signature: Signature,
}

impl PartialEq for IsOther {
    fn eq(&self, other: &Self) -> bool {
        self.by == other.by && Arc::ptr_eq(&self.relinking, &other.relinking)
    }
}

impl Eq for IsOther {}

impl Hash for IsOther {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.by, Arc::as_ptr(&self.relinking)).hash(state);
    }
}

impl ScalarUDFImpl for IsOther {
    fn name(&self) -> &'static str {
        "is_other"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Relinking { before, after, .. } = &*self.relinking;
        let identifiers = Identifiers::of(&args)?;
        let is_other: BooleanArray = (0..args.number_rows)
            .map(|row| {
                let [then, now] = [before, after].map(|index| identifiers.resolve(self.by, index, row));
                Some(!self.relinking.is_same(then, now))
            })
            .collect();
        Ok(ColumnarValue::Array(Arc::new(is_other)))
    }
}
