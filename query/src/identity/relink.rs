//! What an index says otherwise than the one before. Two indexes enter; whether a row is somebody else's now leaves, as a
//! function that a plan can ask of every row, and which tables can have such rows at all.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::arrow::array::BooleanArray;
use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, ident,
};

use super::columns::PersonBy;
use super::functions::{By, Identifiers};
use super::index::{IdType, Index, PersonNo, Resolution, Span};

/// The numbers of persons in `after` by those in `before`; ascending, as both are ordered by id. None of who is no longer there.
pub fn numbers(before: &Index, after: &Index) -> Vec<Option<PersonNo>> {
    before.persons.iter().map(|person| after.number(&person.id)).collect()
}

/// An index and the one that follows it.
#[derive(Debug)]
pub struct Relinking {
    before: Arc<Index>,
    after: Arc<Index>,
    numbers: Vec<Option<PersonNo>>,
    /// Kinds of identifiers of which any is another's at any time.
    kinds: HashSet<IdType>,
    /// Those identifiers, and the accounts of cards' media.
    values: HashSet<String>,
}

impl Relinking {
    pub fn new(before: &Arc<Index>, after: &Arc<Index>) -> Self {
        let numbers = numbers(before, after);
        let (mut kinds, mut values) = (HashSet::new(), HashSet::new());
        let is_same = |then: &Span, now: &Span| {
            let renumbered = numbers[then.person as usize].map(|person| Span { person, ..*then });
            renumbered == Some(*now)
        };
        let are_same = |then: &[Span], now: Option<&Vec<Span>>| {
            now.is_some_and(|now| then.len() == now.len() && then.iter().zip(now).all(|(then, now)| is_same(then, now)))
        };
        let other = before.links.iter().filter(|(key, spans)| !are_same(spans, after.links.get(*key)));
        let new = after.links.iter().filter(|(key, _)| !before.links.contains_key(*key));
        for ((kind, value), _) in other.chain(new) {
            kinds.insert(*kind);
            values.insert(value.to_string());
            // An account may have the sign in its number.
            values.extend(value.match_indices('|').map(|(end, _)| value[..end].to_string()));
        }
        Self { before: before.clone(), after: after.clone(), numbers, kinds, values }
    }

    pub fn is_from(&self, before: &Arc<Index>) -> bool {
        Arc::ptr_eq(&self.before, before)
    }

    /// Whether any row that is resolved `by` can be somebody else's.
    fn concerns(&self, by: By) -> bool {
        let kinds: &[IdType] = match by {
            By::Number => &[IdType::StudentNo, IdType::StaffNo],
            By::Card => &[IdType::CardNo, IdType::CardSeq],
            By::Access => &[IdType::StudentNo, IdType::StaffNo, IdType::CardPhysicalNo],
        };
        kinds.iter().any(|kind| self.kinds.contains(kind))
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
                if !identifiers.has_any(&self.relinking.values, row) {
                    return Some(false);
                }
                let [then, now] = [before, after].map(|index| identifiers.resolve(self.by, index, row));
                Some(!self.relinking.is_same(then, now))
            })
            .collect();
        Ok(ColumnarValue::Array(Arc::new(is_other)))
    }
}

/// Since when an index has said the same of the rows that are resolved in each way, as numbers that are equal only then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Links([u64; 3]);

impl Links {
    const WAYS: [By; 3] = [By::Number, By::Card, By::Access];

    /// Those of the index after `relinking`, when these are those of the index before.
    pub fn after(self, relinking: &Relinking) -> Self {
        let mut links = self;
        for (since, by) in links.0.iter_mut().zip(Self::WAYS) {
            if relinking.concerns(by) {
                *since = unused();
            }
        }
        links
    }

    pub fn of(self, by: PersonBy) -> u64 {
        let by = By::of(by);
        self.0.into_iter().zip(Self::WAYS).find(|(_, way)| Some(*way) == by).map_or(0, |(since, _)| since)
    }
}

impl Default for Links {
    /// Of an index of which nothing is known: no other's are equal.
    fn default() -> Self {
        Self([(); 3].map(|()| unused()))
    }
}

fn unused() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
