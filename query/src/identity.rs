//! Whose record is it? Identity by deterministic rules, as of event time.
//!
//! Current facts (students, enrolments, changes of number, accounts, cards) and the decisions of persons enter; an
//! [`Index`] leaves: for each identifier, whose it was and when, and what is in doubt. The index is a pure function of the
//! facts and the installation's key: order never matters, and the same facts give the same persons again. Nothing similar is
//! ever matched; two records that disagree are *disputed*, and nobody is named until a person has decided.
//!
//! Rules: R0 placeholders link nothing · R2 equal documents are one person, unless birth date or sex differ · R3 equal 学号
//! with overlapping validity is one person, unless name and document both differ · R4 a change of number names one person's
//! two · R5 an alumnus' document in a later enrolment is the same person · R6 an account belongs to whom its number names ·
//! R7 cards, account and physical numbers, each from its opening to its successor's · R8 a passage belongs to whom its
//! person number or its card names at that moment · R9 equal 考生号 and name, provisionally. R1 needs a number of the person
//! that a school keeps for life; no contract has one. Decisions go before rules.
//!
//! `tenure` is what is known of each use of a number, `pairs` are those that the rules bring together, `unite` makes persons
//! of them, `review` is what remains to be decided and what was; `build` does it all. `relink` tells what a new index says
//! otherwise than the one before.

pub mod build;
pub mod columns;
pub mod facts;
pub mod functions;
pub mod index;
pub mod normal;
mod pairs;
pub mod relink;
pub mod review;
mod tenure;
#[cfg(test)]
mod tests;
mod unite;

pub use build::build;
pub use facts::Facts;
pub use index::{IdType, Index, LinkStatus, Person, PersonNo, Resolution, Rule};
pub use relink::Relinking;
