//! Data contracts: one ODCS file a table, and everything that follows from it.
//!
//! A contract file enters; the topic name, the Avro record, the Arrow and Delta schemas, the row
//! checks and the sensitivity of each field leave. Nothing about a table is declared anywhere else.
//!
//! The way of the data: `odcs` reads a file, `contract` is what it says, `codes` are the closed
//! value sets it refers to. `record` gives the Arrow and Delta schemas, `coerce` turns mapped text
//! into typed columns, `check` finds the rows that break a rule, and `encode` and `decode` carry
//! records over a topic as Avro single objects; `rows` and `sieve` make rows of the lake of them, `rfc3339` writes times. `writer` is a schema that records were written with, and `evolution`
//! says what a change of a contract means for those who write by the old one and read by the new one. `describe` puts
//! contracts in words, and `near` finds the table that a mistaken name meant.
//!
//! This crate does no I/O beyond reading contract folders, and never decides what happens to a bad row.

pub mod check;
pub mod codes;
pub mod coerce;
pub mod contract;
pub mod decode;
pub mod describe;
pub mod encode;
pub mod error;
pub mod evolution;
mod near;
mod odcs;
pub mod record;
pub mod rfc3339;
pub mod rows;
pub mod secret;
pub mod sieve;
#[cfg(test)]
mod tests;
pub mod writer;

pub use check::{Checker, Violation};
pub use contract::{Class, Contract, Contracts, Field, FieldType, Kind};
pub use decode::{BadRecord, Decoded, Decoder, Lookup};
pub use encode::{Encoder, hex};
pub use error::{Error, ErrorKind};
pub use secret::Sensitive;
pub use sieve::{Sieve, Sifted};
pub use writer::WriterSchema;
