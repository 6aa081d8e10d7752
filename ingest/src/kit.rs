//! The connector kit: what a data engineer uses before a source is taken in.
//!
//! `scaffold` writes a new connector for a contract, `infer` proposes one from a sample; `rehearsal` takes a table's rows as extract would, up to the log;
//! `preview` shows the first of them, `conformance` holds a source to what extract relies on, `recording` is a source made of
//! what another one said. None of them touches log, lake or state.

pub mod conformance;
pub mod infer;
pub mod preview;
pub mod pseudonym;
pub mod recording;
pub mod rehearsal;
pub mod scaffold;
#[cfg(test)]
mod tests;
