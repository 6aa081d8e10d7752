//! The client side of the command line: asking a running Quad, and making tokens.
//!
//! A question enters, an answer is printed, for people or, with `--json`, for scripts. The token comes from the
//! environment (`QUAD_TOKEN`), never from the command line, where others could read it.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};
use sha2::{Digest, Sha256};

use crate::settings::Settings;

#[derive(Args)]
pub struct SqlArgs {
    /// The statement.
    query: String,
    /// Print one JSON object a row.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct ProfileArgs {
    /// 学号.
    student_no: String,
}

pub async fn sql(_settings: &Settings, _args: &SqlArgs) -> Result<ExitCode> {
    anyhow::bail!("not yet")
}

pub async fn profile(_settings: &Settings, _args: &ProfileArgs) -> Result<ExitCode> {
    anyhow::bail!("not yet")
}

#[derive(Args)]
pub struct TokenArgs {
    /// What logs and the PostgreSQL user will say.
    name: String,
    #[arg(long, value_enum)]
    role: Role,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Role {
    Admin,
    Analyst,
    Counselor,
    App,
}

/// Prints a new token and the settings that accept it. Only its hash is ever stored.
///
/// # Errors
/// The system gives no random bytes.
pub fn token(args: &TokenArgs) -> Result<ExitCode> {
    let mut bytes = [0u8; 24];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    let token = hex(&bytes);
    let sha256 = hex(&Sha256::digest(token.as_bytes()));
    let role = args.role.to_possible_value().map(|value| value.get_name().to_string()).unwrap_or_default();
    if args.json {
        println!("{}", serde_json::json!({ "name": args.name, "role": role, "token": token, "sha256": sha256 }));
    } else {
        println!("token (shown once): {token}\n\nquad.toml:\n[access.tokens.{}]\nrole = \"{role}\"\nsha256 = \"{sha256}\"", args.name);
    }
    Ok(ExitCode::SUCCESS)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
