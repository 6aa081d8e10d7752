//! Whose record is it? Identity by deterministic rules, as of event time.
//!
//! Current facts (students, enrolments, accounts, cards) enter; an [`Index`] leaves: for each identifier, whose it was
//! and when. The index is a pure function of the facts and the installation's key: order never matters, and the same
//! facts give the same persons again. Nothing similar is ever matched; two records that disagree are *disputed*, and
//! nobody is named until a person has decided.
//!
//! Rules: R0 placeholders link nothing · R3 equal 学号 with overlapping validity is one person, unless name and document
//! both differ · R6 an account belongs to whom its number names · R7 cards, account and physical numbers, each from its
//! opening to its successor's · R8 a passage belongs to whom its person number or its card names at that moment.

pub mod build;
pub mod columns;
pub mod facts;
pub mod functions;
pub mod index;
pub mod normal;
#[cfg(test)]
mod tests;

pub use build::build;
pub use facts::Facts;
pub use index::{IdType, Index, LinkStatus, Resolution, Rule};
