//! The log between Quad's sources and its lake: one small boundary, two implementations.
//!
//! Enters: keyed messages for a topic. Leaves: the same messages as records, each at its own (topic, partition,
//! offset), in order within a partition, as often as anyone cares to read them. What never happens: an acknowledged
//! message is lost, an offset is used twice, or a reader is moved to another offset without being told.
//!
//! Read in this order. [`log`] is the boundary: append, extents, consumers. [`partition`] decides where a key lives,
//! the same for both implementations. [`watermark`] says how far a log is. [`settings`] and [`error`] are what a caller configures and what it
//! can be told.
//! `kafka` speaks to Apache Kafka; `embedded` keeps a log on this machine's disk, inside this process.
//! `conformance` (tests only) is the one suite that both must pass.

pub mod error;
pub mod log;
pub mod partition;
pub mod settings;
pub mod watermark;

mod embedded;
mod kafka;

#[cfg(test)]
mod conformance;

pub use error::{Error, ErrorKind};
pub use log::{Consumer, Extent, Log, Message, Position, Record, Start, Subscription, open};
pub use settings::Settings;
pub use watermark::Watermark;
