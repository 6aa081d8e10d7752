//! Decisions about identity. What an admin has decided enters as fields of `identity.match_review`; a record of it is in the
//! log when it leaves, with who decided, when, and a number of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use chrono::{DateTime, SecondsFormat, Utc};
use schemas::{Contract, Contracts};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use topic::Watermark;

use super::run::Extract;
use crate::error::Error;
use crate::mapping::Mapped;

/// The contract of questions and decisions.
const CONTRACT: &str = "identity.match_review";

/// A decision as it is asked for; each field as the contract has it.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Ruling {
    review_id: String,
    raised_at: String,
    kind: String,
    id_value: String,
    id_since: Option<String>,
    other_value: Option<String>,
    other_since: Option<String>,
    candidates: Value,
    decision: String,
    revokes: Option<String>,
    note: Option<String>,
}

/// A decision that is in the log.
#[derive(Debug, Clone, Serialize)]
pub struct Ruled {
    pub decision_id: String,
    pub decided_by: String,
    pub decided_at: DateTime<Utc>,
    /// Whoever has read up to here has seen it.
    pub watermark: String,
}

/// The contract among all.
///
/// # Errors
/// `Settings` when the contracts lack it.
pub fn contract(contracts: &Contracts) -> Result<Arc<Contract>, Error> {
    let contract = contracts.get(CONTRACT);
    contract.cloned().ok_or_else(|| Error::settings(format!("the contract `{CONTRACT}` is missing")))
}

impl Extract {
    /// Appends a decision of `by`, taken `now`.
    ///
    /// # Errors
    /// `Settings` for a field that breaks the contract; `Log` when the log does not answer: the decision may be there.
    pub async fn decide(self: &Arc<Self>, ruling: Ruling, by: &str, now: DateTime<Utc>) -> Result<Ruled, Error> {
        let review = ruling.review_id.clone();
        let decided_at = now.to_rfc3339_opts(SecondsFormat::Micros, true);
        let digest = Sha256::digest(format!("{review}\0{decided_at}\0{by}"));
        let decision_id = schemas::hex(&digest[..16]);
        let Ok(Value::Object(fields)) = serde_json::to_value(ruling) else {
            return Err(Error::internal("read a decision", "it is no object"));
        };
        let mut row: BTreeMap<String, Option<String>> =
            fields.into_iter().map(|(name, value)| (name, super::records::text(&value))).collect();
        // The time of change orders the rows of a question.
        for (name, value) in [
            ("id_type", "student_no"),
            ("id_scope", "school"),
            ("decision_id", &decision_id),
            ("decided_by", by),
            ("decided_at", &decided_at),
            ("src_updated_at", &decided_at),
        ] {
            row.insert(name.to_string(), Some(value.to_string()));
        }
        let columns = row.into_iter().map(|(name, value)| {
            let column: ArrayRef = Arc::new(StringArray::from(vec![value]));
            (name, column, true)
        });
        let batch = RecordBatch::try_from_iter_with_nullable(columns)
            .map_err(|error| Error::internal("put a decision together", error))?;
        let mapped = Mapped { batch, rows: vec![0], failed: Vec::new() };
        let (records, violations) = self.decisions.records("quad", &mapped, now)?;
        if let Some(violation) = violations.first() {
            return Err(Error::settings(format!("{}: {}", violation.field, violation.message)));
        }
        let (extract, topic) = (self.clone(), self.decisions.contract().topic());
        let messages = self.decisions.messages(&records, now)?;
        let appended = tokio::task::spawn_blocking(move || extract.log.append(&topic, messages)).await;
        let watermark: Watermark = appended.map_err(|error| Error::internal("append a decision", error))??;
        tracing::info!(target: "quad::audit", by, review, decision = decision_id, "a decision about identity was taken");
        Ok(Ruled { decision_id, decided_by: by.to_string(), decided_at: now, watermark: watermark.to_string() })
    }
}
