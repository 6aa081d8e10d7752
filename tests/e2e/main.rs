//! The program as a whole: the real `quad` binary, real source databases, a real Kafka, clients from elsewhere.
//!
//! The simulated campus gives sources with known truth; every flow ends by holding what SQL, profiles and files say
//! against that truth. `QUAD_TEST_POSTGRES` and `QUAD_TEST_MARIADB` (ODBC connection strings) and `QUAD_KAFKA` (HOST:PORT)
//! name the servers that `./dev test` starts; what is not there is skipped, and said so.

mod backfill;
mod chaos;
mod commands;
mod connector;
mod day;
mod disk;
mod doors;
mod identity;
mod lake;
mod land;
mod letters;
mod mqtt;
#[path = "../tidy/promql.rs"]
mod promql;
mod reconcile;
mod school;
mod sources;
mod traces;
mod union;
mod watch;
