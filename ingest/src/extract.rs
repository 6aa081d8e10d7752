//! Extract: source systems → topic.
//!
//! `pipeline` carries a batch of source rows to the log. `source` is the boundary of what is pulled, `sql` does it over
//! ODBC, `files` from a folder, `http` page by page, `kafka` from topics that others fill, `mqtt` from a broker, `singer` by
//! running a tap, `postgres_cdc` change by change, when `schedule` says and with what `secret` finds; `webhook` receives what
//! is pushed. `records`, `rows` and `overlap` are what several of them need. `pull` is one pull of one table, `run` all of
//! them; `state` remembers cursors and what has been seen; `status` tells how each source is. Every source runs by itself:
//! one that fails is tried again with backoff and does not disturb the others. `replay` takes dead letters once more and
//! `backfill` rows of the past, and `decisions` takes what was decided about identity, as `admin` is asked to.

pub mod admin;
pub mod backfill;
pub mod decisions;
pub mod files;
pub mod http;
pub mod kafka;
pub mod mqtt;
pub mod overlap;
pub mod pipeline;
pub mod postgres_cdc;
pub(crate) mod pull;
pub mod records;
pub mod replay;
pub mod rows;
pub mod run;
pub mod schedule;
pub mod secret;
pub mod singer;
pub mod source;
pub mod sql;
pub mod state;
pub mod status;
pub mod webhook;
