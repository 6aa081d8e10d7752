//! Why ingest could not go on. Bad data is never an error here: it becomes a dead letter.

/// What the caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// A connector, mapping or setting is wrong: mend it and start again.
    Settings,
    /// A source did not answer: try again later; the others go on.
    Source,
    /// The log did not take or give records: try again.
    Log,
    /// The lake did not take a commit: try again.
    Lake,
    /// Another process has taken over: stop.
    Fenced,
    /// Something that no input can cause.
    Internal,
}

impl ErrorKind {
    /// As metrics and traces name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Source => "source",
            Self::Log => "log",
            Self::Lake => "lake",
            Self::Fenced => "fenced",
            Self::Internal => "internal",
        }
    }
}

/// An error with its kind, a message that says what, where and what to do, and its cause.
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

    pub(crate) fn settings(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Settings, message)
    }

    pub(crate) fn source(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Source, message)
    }

    pub(crate) fn internal(
        what: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { kind: ErrorKind::Internal, message: format!("could not {}", what.into()), source: Some(source.into()) }
    }

    /// The message and all its causes, on one line.
    pub fn chain(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = self.source.as_deref().map(|source| source as &dyn std::error::Error);
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        text
    }
}

impl From<topic::Error> for Error {
    fn from(error: topic::Error) -> Self {
        Self { kind: ErrorKind::Log, message: error.to_string(), source: Some(Box::new(error)) }
    }
}

impl From<lake::Error> for Error {
    fn from(error: lake::Error) -> Self {
        let kind = match error.kind {
            lake::ErrorKind::Fenced => ErrorKind::Fenced,
            lake::ErrorKind::Store => ErrorKind::Lake,
            lake::ErrorKind::Schema | lake::ErrorKind::Settings => ErrorKind::Settings,
        };
        Self { kind, message: error.to_string(), source: Some(Box::new(error)) }
    }
}

impl From<schemas::Error> for Error {
    fn from(error: schemas::Error) -> Self {
        let kind = match error.kind {
            schemas::ErrorKind::Store => ErrorKind::Lake,
            _ => ErrorKind::Settings,
        };
        Self { kind, message: error.to_string(), source: Some(Box::new(error)) }
    }
}
