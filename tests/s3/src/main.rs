//! `s3`: the server by itself, for tests in other processes.
//!
//! A folder, a port and rates enter; the variables a client needs are printed, and at an interrupt the faults so far.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use s3::{Faults, Server};

/// An S3-speaking server for tests, on this machine only, that fails on purpose.
#[derive(Parser)]
#[command(name = "s3")]
struct Cli {
    /// The folder that holds the buckets; it is made when missing.
    root: PathBuf,
    /// The port; 0 takes any.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// A bucket to make.
    #[arg(long, default_value = "lake")]
    bucket: String,
    /// The seed of the faults.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The share of requests that fail with nothing done, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    error_before: f64,
    /// The share of writes that are done and answered with 500.
    #[arg(long, default_value_t = 0.0)]
    error_after: f64,
    /// The share of writes that are done and not answered.
    #[arg(long, default_value_t = 0.0)]
    cut_after: f64,
    /// The share of writes whose connection ends half-way through the body.
    #[arg(long, default_value_t = 0.0)]
    torn: f64,
    /// The share of requests that take longer.
    #[arg(long, default_value_t = 0.0)]
    slow: f64,
    /// How much longer, in milliseconds.
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// Only requests whose path contains this fail.
    #[arg(long, default_value = "")]
    only: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Cli { root, port, bucket, seed, error_before, error_after, cut_after, torn, slow, delay_ms, only } =
        Cli::parse();
    std::fs::create_dir_all(&root).with_context(|| format!("could not make the folder {}", root.display()))?;
    let faults = Faults { seed, error_before, error_after, cut_after, torn, slow, delay_ms, only };
    let server = Server::listen(&root, faults, port).await.context("could not listen")?;
    server.create_bucket(&bucket).with_context(|| format!("could not make the bucket {bucket}"))?;
    for (name, value) in server.environment() {
        println!("export {name}={value}");
    }
    tokio::signal::ctrl_c().await.context("could not wait for an interrupt")?;
    eprintln!("{:?}", server.counts());
    Ok(())
}
