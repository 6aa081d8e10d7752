//! The lake: one Delta table a contract, rows and the offsets they came from in one commit.
//!
//! Batches of records and their positions enter through [`Appender`]; [`Snapshot`]s leave, which DataFusion
//! scans. `settings` says where the lake is, `table` opens and creates, `append` commits, `snapshot` reads; `schemas` keeps
//! what the records of the topics were written with.
//!
//! A position is committed with its rows or not at all, and never twice: the fence is the Delta log itself.

pub mod append;
pub mod error;
mod schemas;
pub mod settings;
pub mod snapshot;
pub mod table;
#[cfg(test)]
mod tests;

pub use append::{Appender, Commit, Progress};
pub use error::{Error, ErrorKind};
pub use settings::Settings;
pub use snapshot::Snapshot;
pub use table::{Lake, Table};
