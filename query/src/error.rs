//! Why a question could not be answered. The kind tells every door which code to send; the hint tells the user what to do.
//!
//! DataFusion's errors enter, classified ones leave. Messages go to the caller only: they may repeat literals of the
//! question and are never logged.

use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;

/// What kind of failure; each door maps it to its own code in one table (`api/status.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The text is not SQL, or not a statement that makes sense.
    InvalidSql,
    UndefinedTable,
    UndefinedColumn,
    UndefinedFunction,
    /// A parameter or a request field is missing, of the wrong type or out of its limits.
    InvalidArgument,
    /// A value met while running cannot be computed with: a cast, a division by zero, an overflow.
    Data,
    /// The statement would change something.
    ReadOnly,
    Unsupported,
    Unauthenticated,
    Denied,
    NotFound,
    /// The question ran longer than its limit.
    Timeout,
    Canceled,
    /// Too many questions at once.
    Busy,
    /// The question needs more memory than it may have.
    OutOfMemory,
    /// Nothing can be answered yet, or not any more.
    Unavailable,
    /// Settings or files that cannot be used.
    Settings,
    Internal,
}

impl ErrorKind {
    /// As metrics and traces name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidSql => "invalid_sql",
            Self::UndefinedTable => "undefined_table",
            Self::UndefinedColumn => "undefined_column",
            Self::UndefinedFunction => "undefined_function",
            Self::InvalidArgument => "invalid_argument",
            Self::Data => "data",
            Self::ReadOnly => "read_only",
            Self::Unsupported => "unsupported",
            Self::Unauthenticated => "unauthenticated",
            Self::Denied => "denied",
            Self::NotFound => "not_found",
            Self::Timeout => "timeout",
            Self::Canceled => "canceled",
            Self::Busy => "busy",
            Self::OutOfMemory => "out_of_memory",
            Self::Unavailable => "unavailable",
            Self::Settings => "settings",
            Self::Internal => "internal",
        }
    }
}

/// An error with its kind, a message that says what, perhaps a hint, and its cause.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: ErrorKind,
    pub message: String,
    pub hint: Option<String>,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// Settings that cannot be used, found before anything is bound.
    pub fn settings(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Settings, message)
    }

    /// The message and the hint as one text, for doors that have one field only.
    pub fn text(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{}; {hint}", self.message),
            None => self.message.clone(),
        }
    }
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        match error {
            DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => Self::from(*inner),
            DataFusionError::Collection(mut errors) if !errors.is_empty() => Self::from(errors.swap_remove(0)),
            DataFusionError::External(inner) => match inner.downcast::<Self>() {
                Ok(own) => *own,
                Err(other) => Self::new(ErrorKind::Internal, lower(&other.to_string())),
            },
            // A shared error cannot be moved out; its own kind is kept by looking through the reference.
            DataFusionError::Shared(inner) => {
                let (kind, message) = classify(&inner);
                Self::new(kind, message).with_source(DataFusionError::Shared(inner))
            }
            other => {
                let (kind, message) = classify(&other);
                Self::new(kind, message).with_source(other)
            }
        }
    }
}

impl From<topic::Error> for Error {
    /// Of a watermark that is none.
    fn from(error: topic::Error) -> Self {
        Self::new(ErrorKind::InvalidArgument, error.to_string()).with_source(error)
    }
}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        DataFusionError::External(Box::new(error))
    }
}

fn classify(error: &DataFusionError) -> (ErrorKind, String) {
    let kind = match error {
        DataFusionError::SQL(..) => ErrorKind::InvalidSql,
        DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
            SchemaError::FieldNotFound { .. } => ErrorKind::UndefinedColumn,
            _ => ErrorKind::InvalidSql,
        },
        DataFusionError::Plan(message) => plan_kind(message),
        DataFusionError::NotImplemented(_) => ErrorKind::Unsupported,
        DataFusionError::ResourcesExhausted(_) => ErrorKind::OutOfMemory,
        // Spilling ran into its own limit; only the text says so.
        other if other.to_string().contains("max_temp_directory_size") => ErrorKind::OutOfMemory,
        DataFusionError::ArrowError(..) | DataFusionError::Execution(_) => ErrorKind::Data,
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => return classify(inner),
        DataFusionError::Shared(inner) => return classify(inner),
        DataFusionError::External(inner) => match inner.downcast_ref::<Error>() {
            Some(own) => return (own.kind, own.message.clone()),
            None => ErrorKind::Internal,
        },
        _ => ErrorKind::Internal,
    };
    (kind, lower(error.strip_backtrace().trim()))
}

/// DataFusion says what a planning error is about in its text only.
fn plan_kind(message: &str) -> ErrorKind {
    let message = message.to_ascii_lowercase();
    let has = |text: &str| message.contains(text);
    if has("table") && has("not found") || has("schema") && has("not found") || has("failed to resolve schema") {
        ErrorKind::UndefinedTable
    } else if has("invalid function") || has("no function matches") {
        ErrorKind::UndefinedFunction
    } else if has("no field named") || has("column") && has("not found") {
        ErrorKind::UndefinedColumn
    } else if has("placeholder") || has("parameter") {
        ErrorKind::InvalidArgument
    } else {
        ErrorKind::InvalidSql
    }
}

/// DataFusion's message without its prefix and with a small first letter.
fn lower(message: &str) -> String {
    const PREFIXES: [&str; 9] = [
        "Error during planning: ",
        "Schema error: ",
        "SQL error: ",
        "Execution error: ",
        "Arrow error: ",
        "External error: ",
        "Resources exhausted: ",
        "This feature is not implemented: ",
        "Optimizer rule 'simplify_expressions' failed\ncaused by\n",
    ];
    let mut text = message;
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        text = rest;
    }
    let mut letters = text.trim_end_matches('.').chars();
    match letters.next() {
        Some(first) if !text[first.len_utf8()..].starts_with(char::is_uppercase) => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_string(),
    }
}
