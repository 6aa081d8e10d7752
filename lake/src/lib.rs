//! The lake: one Delta table a contract, rows and the offsets they came from in one commit.
//!
//! Batches of records and their positions enter through [`Appender`]; [`Snapshot`]s leave, which DataFusion
//! scans. `settings` says where the lake is, `storage` reaches it on S3, `table` opens and creates, `append` commits,
//! `history` tells of past commits, `rebuild` makes a table anew, `replace` writes a table that has no contract as a whole,
//! `snapshot` reads, `schemas` keeps what the records of the topics were written with, `file` has other files beside the tables,
//! `upkeep` keeps files large, logs short and old days out.
//!
//! A position is committed with its rows or not at all, and never twice: the fence is the Delta log itself.

pub mod append;
pub mod error;
mod file;
pub mod history;
pub mod rebuild;
pub mod replace;
mod schemas;
pub mod settings;
pub mod snapshot;
mod storage;
pub mod table;
#[cfg(test)]
mod tests;
pub mod upkeep;

pub use append::{Appender, Commit, Progress};
pub use error::{Error, ErrorKind};
pub use history::{Entry, Landing, Move};
pub use rebuild::Rebuild;
pub use replace::Replacement;
pub use settings::{Settings, UpkeepSettings};
pub use snapshot::{Snapshot, Span};
pub use table::{Lake, Table};
pub use upkeep::Upkeep;
