//! The functions of a mapping: what real sources make necessary, as SQL.
//!
//! Text enters and text leaves, row by row; NULL in is NULL out. A function that cannot read a value passes it on
//! unchanged, so that the contract's check names the field and keeps the row as a dead letter.
//!
//! | function | gives |
//! |---|---|
//! | `clean_text(x)` | NFKC, trimmed; empty becomes NULL |
//! | `clean_id(x)` | as `clean_text`, upper-case; leading zeros stay |
//! | `code_map(set, x)` | the canonical code by `codes/<set>.csv`; an unknown value becomes NULL and is counted |
//! | `cn_timestamp(x)` | local time in any format seen → RFC 3339 UTC |
//! | `cn_timestamp_end(x)` | the same; a bare date is the end of that day |
//! | `cn_date(x)` | `YYYY-MM-DD` |
//! | `epoch_timestamp(x)` | Unix seconds or milliseconds → RFC 3339 UTC |
//! | `minute_of_day(x)` | `23:30` → `1410` |
//! | `yuan_to_fen(x)` | 元 with up to two decimals → 分 |
//! | `stable_number(x)` | a number from 0 to 2⁶³−1 that is always the same for a text: for sources without serial numbers |
//! | `card_hex(x)` | a physical card number, decimal or hex → upper hex; a vendor's "no card" becomes NULL |
//! | `id_valid(x)` | whether an 18-character resident number has its check digit (GB 11643) |
//! | `id_hash(type, x)` | HMAC-SHA256 of the normalised document number, hex |

pub mod identity;
pub mod text;
pub mod time;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, AsArray, BooleanArray, StringArray};
use arrow::datatypes::DataType;
use chrono_tz::Tz;
use datafusion::common::Result as DataFusionResult;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use datafusion::prelude::SessionContext;
use schemas::Sensitive;

use crate::connector::Connector;
use crate::settings::ExtractSettings;

/// What the functions of one connector need to know.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The zone of times that do not name theirs.
    pub timezone: Tz,
    pub code_maps: BTreeMap<String, BTreeMap<String, String>>,
    /// The key of `id_hash`; without it the function does not exist.
    pub id_key: Option<Sensitive<String>>,
    /// Values that no code map knew.
    pub codes_unknown: Arc<UnknownCodes>,
}

impl Surroundings {
    /// Those of the mappings of `connector`, with a count of unknown codes of their own.
    pub fn of(connector: &Connector, extract: &ExtractSettings, timezone: Tz) -> Self {
        let (code_maps, id_key) = (connector.code_maps.clone(), extract.id_key.clone());
        Self { timezone, code_maps, id_key, codes_unknown: Arc::default() }
    }
}

/// Values that no code map knew: how many, and the first of them.
#[derive(Debug, Default)]
pub struct UnknownCodes {
    count: AtomicU64,
    /// By set and value, at most [`UNKNOWN_VALUES_MAX`].
    values: Mutex<BTreeMap<(String, String), u64>>,
}

/// Beyond so many different values only the count goes on.
const UNKNOWN_VALUES_MAX: usize = 100;

impl UnknownCodes {
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The first different values, each with its set and how often it came.
    pub fn values(&self) -> Vec<(String, String, u64)> {
        let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        values.iter().map(|((set, value), times)| (set.clone(), value.clone(), *times)).collect()
    }

    fn add(&self, set: &str, value: &str) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (set.to_string(), value.to_string());
        if values.len() < UNKNOWN_VALUES_MAX || values.contains_key(&key) {
            *values.entry(key).or_default() += 1;
        }
    }
}

/// Makes all functions known to `context`.
pub fn register(context: &SessionContext, surroundings: &Surroundings) {
    let zone = surroundings.timezone;
    let keep = |f: fn(&str) -> Option<String>| move |x: &str| Some(f(x).unwrap_or_else(|| x.to_string()));
    context.register_udf(unary("clean_text", text::clean));
    context.register_udf(unary("clean_id", text::clean_id));
    context.register_udf(unary("cn_timestamp", move |x| time::timestamp(x, zone, time::DayPart::Start)));
    context.register_udf(unary("cn_timestamp_end", move |x| time::timestamp(x, zone, time::DayPart::End)));
    context.register_udf(unary("cn_date", keep(time::date)));
    context.register_udf(unary("epoch_timestamp", keep(time::epoch)));
    context.register_udf(unary("minute_of_day", keep(time::minute_of_day)));
    context.register_udf(unary("yuan_to_fen", keep(text::yuan_to_fen)));
    context.register_udf(unary("stable_number", text::stable_number));
    context.register_udf(unary("card_hex", identity::card_hex));
    context.register_udf(predicate("id_valid", identity::is_valid_resident_number));
    let maps = surroundings.code_maps.clone();
    let unknown = surroundings.codes_unknown.clone();
    context.register_udf(binary("code_map", move |set, x| {
        let code = maps.get(set).and_then(|map| map.get(x.trim())).cloned();
        if code.is_none() && !x.trim().is_empty() {
            unknown.add(set, x.trim());
        }
        code
    }));
    if let Some(key) = surroundings.id_key.clone() {
        context.register_udf(binary("id_hash", move |kind, x| identity::document_hash(kind, x, &key)));
    }
}

fn unary(name: &str, f: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> ScalarUDF {
    let run = move |arguments: &[ArrayRef]| -> ArrayRef {
        let values = arguments[0].as_string::<i32>().iter().map(|value| value.and_then(&f));
        Arc::new(values.collect::<StringArray>())
    };
    function(name, 1, DataType::Utf8, run)
}

fn binary(name: &str, f: impl Fn(&str, &str) -> Option<String> + Send + Sync + 'static) -> ScalarUDF {
    let run = move |arguments: &[ArrayRef]| -> ArrayRef {
        let pairs = arguments[0].as_string::<i32>().iter().zip(arguments[1].as_string::<i32>());
        Arc::new(pairs.map(|(left, right)| f(left?, right?)).collect::<StringArray>())
    };
    function(name, 2, DataType::Utf8, run)
}

fn predicate(name: &str, f: fn(&str) -> bool) -> ScalarUDF {
    let run = move |arguments: &[ArrayRef]| -> ArrayRef {
        Arc::new(arguments[0].as_string::<i32>().iter().map(|value| value.map(f)).collect::<BooleanArray>())
    };
    function(name, 1, DataType::Boolean, run)
}

fn function(
    name: &str,
    arity: usize,
    returns: DataType,
    run: impl Fn(&[ArrayRef]) -> ArrayRef + Send + Sync + 'static,
) -> ScalarUDF {
    let call = move |arguments: &[ColumnarValue]| -> DataFusionResult<ColumnarValue> {
        Ok(ColumnarValue::Array(run(&ColumnarValue::values_to_arrays(arguments)?)))
    };
    create_udf(name, vec![DataType::Utf8; arity], returns, Volatility::Immutable, Arc::new(call))
}
