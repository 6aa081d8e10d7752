//! Tables as questions see them. Contracts enter; for each, two tables leave: `<table>`, the truth now, and
//! `<table>_history`, every version received. Both bind to the pinned snapshot only when a question runs.
//!
//! `rows` are the lake's rows, `held` those in memory, `latest` keeps the last version of each key, `view` is the SQL that makes
//! the two tables of them, `identity` are the tables of who is who, `time` is the wall clock.

pub mod held;
pub mod identity;
pub mod latest;
pub mod rows;
#[cfg(test)]
mod tests;
pub mod time;
pub mod view;
