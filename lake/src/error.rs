//! Why the lake could not do as asked.

use deltalake::DeltaTableError;
use deltalake::kernel::transaction::{CommitConflictError, TransactionError};

/// What the caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Another writer with the same landing id has committed: this one is a zombie and must stop. Another upkeep of this
    /// table has, or another has replaced it: leave it to that one.
    Fenced,
    /// The store did not answer or refused: try again.
    Store,
    /// The table exists with another schema: migrate it or land elsewhere.
    Schema,
    /// The location is not usable: mend the settings.
    Settings,
}

/// An error with its kind, a message that says which table, and its cause.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: ErrorKind,
    pub message: String,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// A Delta error while doing `what` to `table`.
    pub(crate) fn delta(what: &str, table: &str, source: DeltaTableError) -> Self {
        let kind = match &source {
            DeltaTableError::Transaction {
                source: TransactionError::CommitConflict(CommitConflictError::ConcurrentTransaction),
            } => ErrorKind::Fenced,
            DeltaTableError::SchemaMismatch { .. } => ErrorKind::Schema,
            _ => ErrorKind::Store,
        };
        let hint = refusal(&source).map(|(_, hint)| format!("; {hint}")).unwrap_or_default();
        Self { kind, message: format!("could not {what} {table}{hint}"), source: Some(Box::new(source)) }
    }

    /// The store behind `root` refused, or did not answer.
    pub(crate) fn unreachable(root: &url::Url, source: object_store::Error) -> Self {
        let (kind, hint) = refusal(&source).unwrap_or((ErrorKind::Store, "check the store and the network"));
        Self { kind, message: format!("could not reach lake.path `{root}`; {hint}"), source: Some(Box::new(source)) }
    }

    pub(crate) fn scan(table: &str, source: datafusion::error::DataFusionError) -> Self {
        Self { kind: ErrorKind::Store, message: format!("could not scan {table}"), source: Some(Box::new(source)) }
    }
}

/// What an object store's refusal means at a start, and what to do; `None` when it is not one we know.
///
/// While running, even a refusal is worth another try: keys are renewed, buckets come back.
fn refusal(error: &(dyn std::error::Error + 'static)) -> Option<(ErrorKind, &'static str)> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        use object_store::Error::{PermissionDenied, Unauthenticated};
        if let Some(PermissionDenied { .. } | Unauthenticated { .. }) = error.downcast_ref() {
            return Some((ErrorKind::Settings, "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they may do"));
        }
        cause = error.source();
    }
    let text = error.to_string();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["NoSuchBucket"]) {
        return Some((ErrorKind::Settings, "there is no such bucket: create it or mend lake.path"));
    }
    if says(&["InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied"]) {
        return Some((ErrorKind::Settings, "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they may do"));
    }
    if says(&["redirect without LOCATION"]) {
        return Some((ErrorKind::Settings, "the bucket is in another region: set AWS_REGION"));
    }
    if says(&["169.254.169.254"]) {
        return Some((ErrorKind::Settings, "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"));
    }
    says(&["error sending request", "HTTP error"])
        .then_some((ErrorKind::Store, "the store does not answer: check AWS_ENDPOINT_URL and the network"))
}
