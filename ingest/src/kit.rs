//! The connector kit: what a data engineer uses before a source is taken in.
//!
//! `scaffold` writes a new connector for a contract; `preview` shows the first rows of a source as they would be taken in.
//! Neither touches log, lake or state.

pub mod preview;
pub mod scaffold;
#[cfg(test)]
mod tests;
