//! Answers: the lake's tables as one truth, who is who in them, and what is known of each student.
//!
//! Table versions enter; SQL answers and profiles leave. `settings` and `access` are what the operator says. `source`
//! gives versions of tables, `tail` what the log has beyond them, `snapshot` pins all of them at one moment, `table` makes two tables of each contract,
//! `identity` resolves whose a record is, `catalog` puts it all in front of SQL. `guard` and `policy` decide what may be
//! asked, `engine` answers, and `decide` is how an admin's decision about identity leaves. `profile` computes the items of every student from its definition files. `api` holds the
//! doors: Flight SQL, the PostgreSQL wire, the profile service; `serve`
//! opens them, `metrics` says how it goes.
//!
//! Nothing here ever writes to the topic, nor to a table of the lake that has a contract: only the profile's own tables are
//! written there, for others to read.

pub mod access;
pub mod settings;

pub mod source;

pub mod snapshot;

pub mod tail;

pub mod table;

pub mod identity;

pub mod catalog;

pub mod guard;
pub mod policy;

pub mod engine;

pub mod decide;

pub mod profile;

pub mod api;

pub mod background;
pub mod error;
pub mod metrics;
pub mod serve;

pub use access::{Access, AccessSettings};
pub use decide::Decide;
pub use engine::Engine;
pub use error::{Error, ErrorKind};
pub use settings::Settings;
pub use source::Source;
pub use tail::Tail;

#[cfg(test)]
mod fixture;
