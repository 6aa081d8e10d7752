//! A simulated campus: a seeded generator that fills real source systems, and the truth beside it.
//!
//! A [`plan::Plan`] (seed, students, day) becomes a [`campus::Campus`]: people with their numbers and cards, a week of
//! meals and passes, terms of results, and a cast to whom special things happen. `source` writes all that down as each
//! vendor would, with the vendor's mistakes; `database` and `push` bring it into real databases and to Quad's webhook;
//! `live` plays the day; `vendors` serves lists over HTTP as vendors do, `published` is what devices publish over MQTT; `platform`
//! serves records and fails as it is told; `broker` is a Mosquitto of one's own; `truth` says what must come out at the other end.
//!
//! ```no_run
//! use campus::{campus::Campus, database, live, plan::Plan, push::Pusher, truth};
//! # fn main() -> anyhow::Result<()> {
//! # let databases = database::Databases { student_affairs: "".into(), academic: "".into(), logistics: "".into() };
//! let campus = Campus::generate(Plan::new(1, 250, "2026-11-23".parse()?));
//! database::fill(&campus, &databases)?;
//! let mut stage = live::Stage::open(&databases, Pusher::new("127.0.0.1:8081", "gates", "token")?)?;
//! for push in campus.history_pushes() {
//!     stage.push(&push)?;
//! }
//! for step in campus.live() {
//!     stage.play(&step)?;
//! }
//! let expected = campus.truth(truth::Stage::DayOver);
//! # Ok(()) }
//! ```

pub mod academics;
pub mod affairs;
pub mod broker;
pub mod calendar;
pub mod campus;
pub mod cards;
pub mod cast;
pub mod clock;
pub mod database;
pub mod gates;
pub mod homes;
pub mod http;
pub mod live;
pub mod meters;
pub mod names;
pub mod offices;
pub mod people;
pub mod plan;
pub mod platform;
pub mod published;
pub mod push;
pub mod random;
pub mod record;
pub mod registry;
pub mod served;
pub mod settings;
pub mod source;
pub mod spending;
pub mod truth;
pub mod vendors;
pub mod walks;
