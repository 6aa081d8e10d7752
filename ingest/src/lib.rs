//! Ingest: source systems → topic, and topic → lake.
//!
//! Rows of source systems enter; records of the contracts leave to the topic, and from there to the lake.
//! `connector` and `functions` are what a data engineer writes and writes with; `mapping` runs it; `refine`
//! turns mapped rows into records and dead letters, and `kit` shows it beforehand. `extract` pulls and receives, `land` commits; `reconcile` holds the two ends
//! against each other; `landing` and `metrics` say how it goes.
//!
//! A source row is never lost and never stops another: it becomes a record or a dead letter.

pub mod connector;
pub mod error;
pub mod extract;
pub mod functions;
pub mod kit;
pub mod land;
pub mod landing;
pub mod letter;
pub mod mapping;
pub mod metrics;
pub mod reconcile;
pub mod refine;
pub mod settings;
#[cfg(test)]
mod tests;

pub use connector::Connector;
pub use error::{Error, ErrorKind};
pub use settings::{Admins, ExtractSettings, LandSettings, SourceSettings};
