//! An S3-speaking server for tests, over a folder, that can fail on purpose.
//!
//! Requests with signatures enter, `s3s` checks and `s3s-fs` answers them; `server` puts faults around them as `faults`
//! draws them. What `s3s-fs` does not give is added here: it looks whether an object exists before it has read the body
//! of a conditional write, so two at once could both succeed; here a conditional write has the store to itself.
//!
//! It never listens beyond this machine.

mod faults;
mod server;

pub use faults::{Counts, Faults};
pub use server::Server;
