//! Trying to break the guarantee: every record of the log is in the lake exactly once, whatever happens.
//!
//! A [`plan::Plan`] enters: a seed, how many faults, which processes. `world` starts a real Kafka, `quad extract`, several
//! `quad land` in one group, and the simulated campus; `writer` adds records straight to a topic, poisoned ones among
//! them; `deliver` repeats, reorders and corrects what the gates push; `fault` kills, freezes and starves whatever the seed
//! says, with `disk`s that fill up and `clock`s that jump. In the end `check` reads the whole log by itself and finds each
//! record in the lake or among the dead letters, once, with its content; tables show the newest version of each key; and the
//! campus adds up.
//!
//! The same seed injects the same faults in the same order; what they hit depends on the machine's timing.

pub mod check;
pub mod clock;
pub mod deliver;
pub mod disk;
pub mod fault;
pub mod plan;
pub mod run;
pub mod world;
pub mod writer;

pub use plan::Plan;
pub use run::{Verdict, run};
