//! The doors. Bytes of three protocols enter; each becomes a principal and a question for the engine or the profiles, and
//! answers leave in the protocol's own form. Nothing is decided here but form: policy and limits are behind the doors.
//!
//! `status` maps kinds of errors to every protocol's codes; `flight` is Flight SQL, `profiles` the profile service and
//! `identity` the identity service, all behind the port of `grpc`; `postgres` is the PostgreSQL wire; `client` is the other side, for the command line.

pub mod client;
pub mod flight;
pub mod grpc;
pub mod identity;
pub mod postgres;
pub mod profiles;
pub mod status;
#[cfg(test)]
pub(crate) mod tests;
