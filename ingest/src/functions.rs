//! The functions of a mapping: what real sources make necessary, as SQL.
//!
//! Text enters and text leaves, row by row; NULL in is NULL out. A time, date, clock or amount that cannot be read is passed on
//! unchanged, so that the contract's check names the field and keeps the row as a dead letter; a blank one is NULL.
//!
//! | function | gives |
//! |---|---|
//! | `clean_text(x)` | NFKC, trimmed; empty becomes NULL |
//! | `clean_id(x)` | as `clean_text`, upper-case; leading zeros stay |
//! | `code_map('set', x)` | the canonical code by `codes/<set>.csv`; an unknown value becomes NULL and is counted |
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

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringArray, StringBuilder};
use arrow::datatypes::DataType;
use chrono_tz::Tz;
use datafusion::common::Result as DataFusionResult;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use datafusion::prelude::SessionContext;
use schemas::{Sensitive, rfc3339};

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

    /// Takes what one batch had.
    fn add(&self, found: BTreeMap<(&str, &str), u64>) {
        if found.is_empty() {
            return;
        }
        self.count.fetch_add(found.values().sum(), Ordering::Relaxed);
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        for ((set, value), times) in found {
            let key = (set.to_string(), value.to_string());
            if values.len() < UNKNOWN_VALUES_MAX || values.contains_key(&key) {
                *values.entry(key).or_default() += times;
            }
        }
    }
}

/// Makes all functions known to `context`.
pub fn register(context: &SessionContext, surroundings: &Surroundings) {
    let zone = surroundings.timezone;
    context.register_udf(unary("clean_text", text::clean));
    context.register_udf(unary("clean_id", text::clean_id));
    let timestamp = move |day_part| move |x: &str| time::timestamp(x, zone, day_part);
    context.register_udf(reading("cn_timestamp", timestamp(time::DayPart::Start), rfc3339::push));
    context.register_udf(reading("cn_timestamp_end", timestamp(time::DayPart::End), rfc3339::push));
    context.register_udf(reading("cn_date", time::date, rfc3339::push_day));
    context.register_udf(reading("epoch_timestamp", time::epoch, rfc3339::push));
    context.register_udf(reading("minute_of_day", |x| time::minute_of_day(x).map(i64::from), push_number));
    context.register_udf(reading("yuan_to_fen", text::yuan_to_fen, push_number));
    context.register_udf(unary("card_hex", |x| identity::card_hex(x).map(Cow::Owned)));
    context.register_udf(unary("stable_number", |x| identity::stable_number(x).map(Cow::Owned)));
    context.register_udf(predicate("id_valid", identity::is_valid_resident_number));
    let (maps, unknown) = (surroundings.code_maps.clone(), surroundings.codes_unknown.clone());
    context.register_udf(udf("code_map", 2, DataType::Utf8, move |arguments| {
        // A text between quotes stays one set for all rows.
        let sets = arguments[0].to_array(1)?;
        let values = arguments[1].to_array(sets.len())?;
        Ok(code_map(&maps, &unknown, sets.as_string(), values.as_string()))
    }));
    if let Some(hasher) = surroundings.id_key.as_ref().map(identity::hasher) {
        context.register_udf(function("id_hash", 2, DataType::Utf8, move |arguments| {
            let pairs = arguments[0].as_string::<i32>().iter().zip(arguments[1].as_string::<i32>());
            let hash = |(kind, number): (Option<&str>, Option<&str>)| identity::document_hash(kind?, number?, &hasher);
            Arc::new(pairs.map(hash).collect::<StringArray>())
        }));
    }
}

type CodeMaps = BTreeMap<String, BTreeMap<String, String>>;

/// The codes of `values`, each by the set of its row, or all by the one that is there.
fn code_map(maps: &CodeMaps, unknown: &UnknownCodes, sets: &StringArray, values: &StringArray) -> ArrayRef {
    let mut strange = BTreeMap::new();
    let mut last: Option<(&str, Option<&BTreeMap<String, String>>)> = None;
    let codes = sets.iter().cycle().zip(values).map(|(set, value)| {
        let (set, value) = (set?, value?.trim());
        let map = match last {
            Some((name, map)) if name == set => map,
            _ => last.insert((set, maps.get(set))).1,
        };
        let code = map.and_then(|map| map.get(value));
        if code.is_none() && !value.is_empty() {
            *strange.entry((set, value)).or_default() += 1;
        }
        code
    });
    let codes = codes.collect::<StringArray>();
    unknown.add(strange);
    Arc::new(codes)
}

fn unary(name: &str, f: impl for<'a> Fn(&'a str) -> Option<Cow<'a, str>> + Send + Sync + 'static) -> ScalarUDF {
    function(name, 1, DataType::Utf8, move |arguments| {
        let values = arguments[0].as_string::<i32>();
        let mut made = StringBuilder::with_capacity(values.len(), values.values().len());
        for value in values {
            made.append_option(value.and_then(&f));
        }
        Arc::new(made.finish())
    })
}

/// A function that reads a value and writes it anew. One that it cannot read stays as it is, and a blank is NULL.
fn reading<T: 'static>(
    name: &str,
    read: impl Fn(&str) -> Option<T> + Send + Sync + 'static,
    write: fn(&mut String, T),
) -> ScalarUDF {
    function(name, 1, DataType::Utf8, move |arguments| {
        let values = arguments[0].as_string::<i32>();
        let mut made = StringBuilder::with_capacity(values.len(), values.values().len());
        let mut written = String::new();
        for value in values {
            made.append_option(value.filter(|value| !value.trim().is_empty()).map(|value| match read(value) {
                Some(read) => {
                    written.clear();
                    write(&mut written, read);
                    &written
                }
                None => value,
            }));
        }
        Arc::new(made.finish())
    })
}

fn push_number(text: &mut String, number: i64) {
    text.push_str(itoa::Buffer::new().format(number));
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
    udf(name, arity, returns, move |arguments| Ok(run(&ColumnarValue::values_to_arrays(arguments)?)))
}

/// A function whose arguments are texts, columns of them or one for all rows.
fn udf(
    name: &str,
    arity: usize,
    returns: DataType,
    run: impl Fn(&[ColumnarValue]) -> DataFusionResult<ArrayRef> + Send + Sync + 'static,
) -> ScalarUDF {
    let call = move |arguments: &[ColumnarValue]| run(arguments).map(ColumnarValue::Array);
    create_udf(name, vec![DataType::Utf8; arity], returns, Volatility::Immutable, Arc::new(call))
}
