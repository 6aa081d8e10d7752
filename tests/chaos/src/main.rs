//! `chaos`: the long run. Counts of faults enter; what was injected and the verdict are printed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use chaos::Plan;
use clap::Parser;

/// Try to break the guarantee that every record lands exactly once.
#[derive(Parser)]
struct Args {
    /// Faults to inject: blows to processes, broker and disk, and poisoned records.
    #[arg(long, default_value_t = 1_000)]
    faults: u64,
    /// Blows among them, at least; a blow takes about a second.
    #[arg(long, default_value_t = 60)]
    blows: u64,
    /// Everything that looks random follows from it: a failing run is repeated with its seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Landing processes that share the topics.
    #[arg(long, default_value_t = 3)]
    lands: usize,
    #[arg(long, default_value_t = 150)]
    students: usize,
    /// Poisoned records, of 1000.
    #[arg(long, default_value_t = 20)]
    poison_per_mille: u64,
    /// Two landings that share no fence: the checker must find the duplicates.
    #[arg(long)]
    unfenced: bool,
    /// The lake on object storage that fails on purpose, instead of a small disk that fills up.
    #[arg(long)]
    s3: bool,
    /// Leave the folder, with logs, settings and lake, for a look.
    #[arg(long)]
    keep: bool,
    /// The quad executable; the one beside this when left out.
    #[arg(long)]
    quad: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match chaos(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn chaos(args: Args) -> Result<bool> {
    let own = std::env::current_exe()?;
    let quad = args.quad.unwrap_or_else(|| own.with_file_name("quad"));
    let seed = args.seed.unwrap_or_else(|| u64::from(std::process::id()));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("no project folder")?;
    println!("seed {seed}; the same faults in the same order with --seed {seed}");
    let verdict = chaos::run(&Plan {
        seed,
        faults: args.faults,
        blows: args.blows,
        students: args.students,
        lands: if args.unfenced { 2 } else { args.lands },
        poison_per_mille: args.poison_per_mille,
        is_unfenced: args.unfenced,
        is_on_s3: args.s3,
        is_kept: args.keep,
        quad,
        root: root.to_path_buf(),
    })?;
    verdict.print();
    Ok(verdict.is_kept())
}
