//! Extract: source systems → topic.
//!
//! `pipeline` carries a batch of source rows to the log. `source` is the boundary of what is pulled, `sql` does it over
//! ODBC; `webhook` receives what is pushed. `state` remembers cursors and what has been seen; `status` tells how each source is. Every source runs by
//! itself: one that fails is tried again with backoff and does not disturb the others. `replay` takes dead letters once more
//! and `backfill` rows of the past, as `admin` is asked to.

pub mod admin;
pub mod backfill;
pub mod pipeline;
pub mod replay;
pub mod run;
pub mod source;
pub mod sql;
pub mod state;
pub mod status;
pub mod webhook;
