//! Why the lake could not do as asked.

use deltalake::DeltaTableError;
use deltalake::kernel::transaction::{CommitConflictError, TransactionError};

/// What the caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Another writer with the same landing id has committed: this one is a zombie and must stop.
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
        Self { kind, message: format!("could not {what} {table}"), source: Some(Box::new(source)) }
    }

    pub(crate) fn scan(table: &str, source: datafusion::error::DataFusionError) -> Self {
        Self { kind: ErrorKind::Store, message: format!("could not scan {table}"), source: Some(Box::new(source)) }
    }
}
