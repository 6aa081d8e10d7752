//! Why a contract could not be used. The kind tells the caller what to do; the hint tells the user.

use std::path::{Path, PathBuf};

/// What the caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The file could not be read: check the folder and its permissions.
    Io,
    /// The contract is not well-formed or contradicts itself: mend the file.
    Contract,
    /// A batch does not have the shape the contract asks for: a mapping or a caller is wrong.
    Shape,
    /// Avro could not be written or read.
    Avro,
    /// The store of schemas did not answer: try again.
    Store,
}

/// An error with its kind, a message that says what and where, and its cause.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: ErrorKind,
    pub message: String,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// A contract mistake in `file`.
    pub fn contract(file: &Path, message: impl std::fmt::Display) -> Self {
        Self { kind: ErrorKind::Contract, message: format!("{}: {message}", file.display()), source: None }
    }

    /// A batch of the wrong shape.
    pub fn shape(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Shape, message: message.into(), source: None }
    }

    /// A question to the store of schemas that was not answered.
    pub fn store(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self {
            kind: ErrorKind::Store,
            message: "could not look a schema up".to_string(),
            source: Some(Box::new(source)),
        }
    }

    pub(crate) fn io(file: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self {
            kind: ErrorKind::Io,
            message: format!("could not read {}", file.into().display()),
            source: Some(Box::new(source)),
        }
    }

    pub(crate) fn avro(what: &str, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self { kind: ErrorKind::Avro, message: format!("could not {what}"), source: Some(Box::new(source)) }
    }
}
