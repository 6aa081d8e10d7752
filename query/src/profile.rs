//! What is known of each student. A snapshot and a time enter; the items of every student leave, each with its value, its
//! time, its sources and its state.
//!
//! Items are declared in files (`query/profile/*.toml`): a SQL question a group of items. `definition` reads the files,
//! `describe` tells people of them, `lineage` which tables they read, `compute` asks the questions of one snapshot, `views`
//! and `kept` have what several of them read, `inputs` say which answers still hold, `times` which moments records came to, `assemble` makes persons of answers,
//! `packed` has them small, `store` keeps them for the doors, `checkpoint` keeps them over a restart, `table` shows them to SQL, `files` writes those tables to the lake for others, `live`
//! changes the definitions while everybody reads, and `moments` are the profiles as they once were. The same questions asked over SQL give the same numbers: nothing is
//! computed here that is not in the files.

mod arrivals;
mod asker;
mod assemble;
pub mod checkpoint;
pub mod compute;
pub mod definition;
pub mod describe;
pub mod files;
mod inputs;
mod kept;
pub mod lineage;
pub mod live;
pub mod moments;
pub mod packed;
pub mod store;
pub mod table;
#[cfg(test)]
mod tests;
mod times;
pub mod value;
mod views;

pub use compute::Computer;
pub use definition::{Definitions, Item, Section};
pub use files::Files;
pub use live::Live;
pub use moments::Moments;
pub use store::{Person, Profiles, State, Store};
pub use value::Value;
