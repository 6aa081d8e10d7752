//! Measurements: what Quad reaches here, as ratios within one run, since machines differ and are noisy.
//!
//! `bench extract` holds a source's rows on their way to the log against what the driver alone gives; `bench land` holds
//! landing against a loop that only polls the same topic; `bench lookup` holds a profile over gRPC against the cheapest
//! call of the same server; `bench profile` makes a university of any size and tells what its profiles cost: to compute, to
//! follow, to ask; `bench webhook` holds pushes against an endpoint that only parses them; `bench identity` says how long it
//! takes to know who is who. Every figure is a median; the spread stands beside it.

mod extract;
mod identity;
mod land;
mod lookup;
mod profile;
mod records;
mod stats;
mod university;
mod webhook;
mod wire;

use clap::{Parser, Subcommand};

/// As that of `quad`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Parser)]
#[command(name = "bench", about = "Quad's measurements")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Rows a second from a database into the log, and each step's processor time.
    Extract(extract::Args),
    /// Links a second from tables, and how long until a new row is linked.
    Identity(identity::Args),
    /// Records a second from a topic into the lake.
    Land(land::Args),
    /// GetProfile over gRPC, against a running Quad.
    Lookup(lookup::Args),
    /// A whole university: profiles from nothing, freshness under load, look-ups, memory.
    Profile(profile::Args),
    /// Events a second through the webhook into the log.
    Webhook(webhook::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Extract(args) => extract::run(&args),
        Command::Identity(args) => identity::run(&args),
        Command::Land(args) => land::run(&args),
        Command::Lookup(args) => lookup::run(&args),
        Command::Profile(args) => profile::run(&args),
        Command::Webhook(args) => webhook::run(&args),
    }
}
