//! `quad sources`: how each source is, for people or, with `--json`, for scripts; and how tables are printed everywhere.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use chrono::Utc;
use clap::Args;
use ingest::extract::status;
use serde::Serialize;

use crate::settings::Settings;

/// How to print.
#[derive(Args, Clone, Copy)]
pub struct Format {
    /// Print JSON, one document.
    #[arg(long)]
    pub json: bool,
}

/// Prints how each table of each source is.
///
/// # Errors
/// No extract has run with these settings.
pub fn sources(settings: &Settings, format: Format) -> Result<ExitCode> {
    let report = status::read(&settings.extract.state_path).with_context(|| {
        format!("no extract has run with extract.state_path {}", settings.extract.state_path.display())
    })?;
    if format.json {
        print_document(&report)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = Vec::new();
    for (name, status) in &report {
        let age = status.succeeded_at.map(|at| format!("{} s", (Utc::now() - at).num_seconds()));
        rows.push(vec![
            name.clone(),
            status.contract.clone(),
            format!("{:?}", status.state).to_lowercase(),
            age.unwrap_or_else(|| "never".into()),
            status.records.to_string(),
            status.dead_letters.to_string(),
            status.repeats.to_string(),
            status.codes_unknown.to_string(),
            status.error.clone().unwrap_or_default(),
        ]);
    }
    let head = [
        "source/table",
        "contract",
        "state",
        "last success",
        "records",
        "dead letters",
        "repeats",
        "codes unknown",
        "error",
    ];
    print_table(&head, &rows);
    Ok(ExitCode::SUCCESS)
}

/// Prints a line. A reader that has gone, as `head` does, has seen enough: the rest goes nowhere.
pub fn print_line(line: &str) {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("quad: could not print: {error}");
            std::process::exit(1);
        }
        _ => {}
    }
}

/// Prints one JSON document.
///
/// # Errors
/// It cannot be written as JSON.
pub fn print_document(document: &(impl Serialize + ?Sized)) -> Result<()> {
    print_line(&serde_json::to_string_pretty(document)?);
    Ok(())
}

/// Columns as wide as their widest cell; a Chinese character takes two places. An empty head is not printed.
pub fn print_table(head: &[&str], rows: &[Vec<String>]) {
    let width = |text: &str| text.chars().map(|c| if c as u32 >= 0x1100 { 2 } else { 1 }).sum::<usize>();
    let mut widths: Vec<usize> = head.iter().map(|text| width(text)).collect();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (at, cell) in row.iter().enumerate() {
            widths[at] = widths[at].max(width(cell));
        }
    }
    let print = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).map(|(cell, to)| format!("{cell}{}", " ".repeat(to - width(cell))));
        print_line(padded.collect::<Vec<_>>().join("  ").trim_end());
    };
    if !head.is_empty() {
        print(&head.iter().map(|text| text.to_string()).collect::<Vec<_>>());
    }
    rows.iter().for_each(|row| print(row));
}
