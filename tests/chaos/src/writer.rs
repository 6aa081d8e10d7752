//! Records written straight to the topic of the card transactions, poisoned ones among them.
//!
//! Numbers enter; Avro records leave, appended until the log has acknowledged them. A poisoned record is cut short, has
//! an unknown schema, no framing, or breaks a rule of the contract.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::DataType;
use campus::random::Random;
use chrono::Utc;
use schemas::{Contract, Encoder};
use topic::{Log, Message};

/// The table that is written to.
pub const TABLE: &str = "logistics.card_txn";
/// The source that such records name.
pub const SOURCE: &str = "chaos";

/// Different keys; each gets many versions, so that their order matters.
const KEYS: u64 = 500;
const RECORDS_OF_BATCH: u64 = 200;
/// How much older than its record a late version is.
const LATE_US: i64 = 3_600_000_000;
/// A batch at this interval.
const PACE: Duration = Duration::from_millis(100);

/// Writes until told to stop.
pub struct Writer {
    pub contract: Arc<Contract>,
    pub log: Arc<dyn Log>,
    pub seed: u64,
    pub poison_per_mille: u64,
    /// Records acknowledged, and poisoned ones among them.
    pub acknowledged: AtomicU64,
    pub poisoned: AtomicU64,
    pub stop: AtomicBool,
}

impl Writer {
    /// Runs on the calling thread.
    ///
    /// # Errors
    /// A record cannot be made, or the log refuses one for good.
    pub fn run(&self) -> Result<()> {
        let mut random = Random::new(self.seed, "poison", 0);
        let mut number = 0;
        while !self.stop.load(Ordering::Acquire) {
            let (messages, poisoned) = self.messages(number, &mut random)?;
            number += RECORDS_OF_BATCH;
            self.append(messages)?;
            self.acknowledged.fetch_add(RECORDS_OF_BATCH, Ordering::Relaxed);
            self.poisoned.fetch_add(poisoned, Ordering::Relaxed);
            std::thread::sleep(PACE);
        }
        Ok(())
    }

    /// Appends until it is acknowledged: a broker that is down comes back.
    fn append(&self, messages: Vec<Message>) -> Result<()> {
        loop {
            match self.log.append(&self.contract.topic(), messages.clone()) {
                Ok(_) => return Ok(()),
                Err(error) if error.is_retryable() => std::thread::sleep(PACE),
                Err(error) => return Err(error).context("the log refuses a record"),
            }
        }
    }

    fn messages(&self, first: u64, random: &mut Random) -> Result<(Vec<Message>, u64)> {
        let poisons: Vec<Option<u64>> =
            (0..RECORDS_OF_BATCH).map(|_| random.chance(self.poison_per_mille).then(|| random.below(4))).collect();
        let batch = self.batch(first, &poisons)?;
        let encoder = Encoder::new(self.contract.clone());
        let (keys, values) = (encoder.keys(&batch)?, encoder.values(&batch)?);
        let timestamp_ms = Utc::now().timestamp_millis();
        let message = |((key, value), poison): ((&str, _), &Option<u64>)| {
            let mut bytes = Vec::from(value);
            match poison {
                Some(0) => bytes.truncate(bytes.len() / 2),
                Some(1) => bytes[4] ^= 0xff,
                Some(2) => bytes = b"{\"not\": \"avro\"}".to_vec(),
                _ => {}
            }
            Message { key: key.to_string().into(), value: bytes.into(), timestamp_ms }
        };
        let messages = keys.iter().flatten().zip(values.iter()).zip(&poisons).map(message).collect();
        Ok((messages, poisons.iter().flatten().count() as u64))
    }

    /// Card transactions; the balance is the record's number, so that every record is known by its content.
    fn batch(&self, first: u64, poisons: &[Option<u64>]) -> Result<RecordBatch> {
        let numbers: Vec<u64> = (first..first + RECORDS_OF_BATCH).collect();
        let text = |value: &dyn Fn(u64) -> String| -> ArrayRef {
            Arc::new(numbers.iter().map(|&number| Some(value(number))).collect::<StringArray>())
        };
        let now = Utc::now().timestamp_micros();
        let rule_broken = |at: usize| poisons[at] == Some(3);
        let schema = self.contract.record_schema();
        let columns = schema.fields().iter().map(|field| -> ArrayRef {
            match field.name().as_str() {
                "txn_serial" => text(&|number| format!("C{:06}", number % KEYS)),
                "txn_type" => Arc::new(
                    (0..numbers.len())
                        .map(|at| Some(if rule_broken(at) { "poison" } else { "purchase" }))
                        .collect::<StringArray>(),
                ),
                "merchant_kind" => text(&|_| "canteen".to_string()),
                "balance_after_fen" => {
                    Arc::new(numbers.iter().map(|&number| Some(number as i64)).collect::<Int64Array>())
                }
                "op" => text(&|_| "U".to_string()),
                "src" => text(&|_| SOURCE.to_string()),
                "raw_hash" => text(&|number| format!("{number:032x}")),
                // Some versions come after newer ones of their key: no table may show them.
                "src_updated_at" => {
                    let updated = |number: &u64| if number % 21 == 7 { now - LATE_US } else { now };
                    let updated: Vec<i64> = numbers.iter().map(updated).collect();
                    Arc::new(TimestampMicrosecondArray::from(updated).with_timezone("UTC"))
                }
                // The key is constant but for the serial: versions of one key share everything else in it.
                "txn_at" => {
                    let day = now - now.rem_euclid(86_400_000_000);
                    Arc::new(TimestampMicrosecondArray::from(vec![day; numbers.len()]).with_timezone("UTC"))
                }
                _ => match field.data_type() {
                    DataType::Int64 => Arc::new(Int64Array::from(vec![1; numbers.len()])),
                    DataType::Utf8 => text(&|_| "10001".to_string()),
                    _ => Arc::new(TimestampMicrosecondArray::from(vec![now; numbers.len()]).with_timezone("UTC")),
                },
            }
        });
        Ok(RecordBatch::try_new(schema.clone(), columns.collect())?)
    }
}
