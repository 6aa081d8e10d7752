//! What is measured with: card transactions, a table of 12 fields and the envelope, as Quad itself writes them.

use std::sync::Arc;

use anyhow::Result;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use schemas::{Contract, Encoder};
use topic::Message;

/// 2026-11-01T00:00:00Z.
const START_MICROS: i64 = 1_793_491_200_000_000;

/// `count` messages from number `first` on; every `bad_every`th is cut short, if that is not 0.
///
/// # Errors
/// The contract has other fields than this table.
pub fn messages(contract: &Arc<Contract>, first: usize, count: usize, bad_every: usize) -> Result<Vec<Message>> {
    let batch = batch(contract, first, count)?;
    let encoder = Encoder::new(contract.clone());
    let (values, keys) = (encoder.values(&batch)?, encoder.keys(&batch)?);
    // Kafka's retention goes by it.
    let timestamp_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as i64;
    let message = |(at, (key, mut value)): (usize, (&str, bytes::Bytes))| {
        if bad_every > 0 && (first + at) % bad_every == bad_every - 1 {
            value.truncate(value.len() / 2);
        }
        Message { key: key.to_string().into(), value, timestamp_ms }
    };
    Ok(keys.iter().flatten().zip(values.iter()).enumerate().map(message).collect())
}

fn batch(contract: &Contract, first: usize, count: usize) -> Result<RecordBatch> {
    let rows = first..first + count;
    let text = |value: &dyn Fn(usize) -> String| -> ArrayRef {
        Arc::new(rows.clone().map(|row| Some(value(row))).collect::<StringArray>())
    };
    let number = |value: &dyn Fn(usize) -> i64| -> ArrayRef {
        Arc::new(rows.clone().map(|row| Some(value(row))).collect::<Int64Array>())
    };
    let time = |value: &dyn Fn(usize) -> i64| -> ArrayRef {
        let micros = rows.clone().map(|row| Some(START_MICROS + value(row)));
        Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
    };
    // A student's card is used every few hours, at the terminals of ten canteens.
    let moment = |row: usize| (row as i64 * 1_000) % 86_400_000_000;
    let kinds = ["purchase", "purchase", "purchase", "topup"];
    let schema = contract.record_schema();
    let columns = schema.fields().iter().map(|field| match field.name().as_str() {
        "txn_serial" => text(&|row| format!("{row:010}")),
        "card_no" => text(&|row| format!("{:08}", row * 7919 % 20_000)),
        "card_seq" => text(&|row| format!("{:010}", row * 7919 % 20_000 * 3)),
        "txn_type" => text(&|row| kinds[row % 4].to_string()),
        "amount_fen" => number(&|row| (row * 37 % 2_000) as i64 + 100),
        "balance_after_fen" => number(&|row| (row * 101 % 50_000) as i64),
        "card_use_count" => number(&|row| (row / 20_000) as i64),
        "merchant_id" => text(&|row| format!("M{:03}", row % 120)),
        "merchant_kind" => text(&|row| if row.is_multiple_of(5) { "shop" } else { "canteen" }.to_string()),
        "terminal_no" => text(&|row| format!("T{:04}", row % 600)),
        "src" => text(&|_| "ecard".to_string()),
        "src_key" => text(&|row| format!("T{:04}|{row:010}", row % 600)),
        "op" => text(&|_| "I".to_string()),
        "raw_hash" => {
            text(&|row| format!("{:032x}", (row as u128 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C834)))
        }
        _ => time(&moment),
    });
    let columns = columns.collect();
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}
