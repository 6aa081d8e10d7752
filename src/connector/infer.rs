//! `quad connector infer`: a connector proposed from the first rows of a table, a file or an address.
//!
//! Where the rows are enters; the contracts that fit are ranked, and the files of a connector for the best of them, or for
//! the one that was asked for, are written. They run as they are; what is proposed, how sure it is and why is printed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use ingest::SourceSettings;
use ingest::connector::Kind;
use ingest::extract::source::Worker;
use ingest::kit::infer::sample::{self, Sample};
use ingest::kit::infer::{Profiled, Proposal};
use ingest::kit::scaffold;
use schemas::Contracts;

use crate::report::{print_line, print_table};
use crate::settings::Settings;
use crate::usage;

/// Contracts that are shown.
const RANKED_MAX: usize = 5;
/// With less than this a sample is of no contract.
const FIT_MIN: f64 = 0.3;

#[derive(Args)]
pub struct InferArgs {
    /// The connector's name: lower case, digits and _.
    name: String,
    /// A file (.csv, .xlsx, .jsonl, .parquet), or a URL that answers JSON.
    #[arg(long, value_name = "FILE|URL", required_unless_present = "connection", conflicts_with = "connection")]
    from: Option<String>,
    /// An ODBC connection string, without the password.
    #[arg(long, value_name = "ODBC", requires = "table")]
    connection: Option<String>,
    /// The table of the database.
    #[arg(long, requires = "connection")]
    table: Option<String>,
    /// A file that holds the password of the database, or the bearer token of the URL.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// The row of a CSV or XLSX file that holds the headers.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    header_row: u16,
    /// The table that it fills; without it, the contract that fits best.
    #[arg(long, value_name = "TABLE")]
    contract: Option<String>,
    /// Rows to look at.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(2..=10_000))]
    rows: u16,
}

pub(super) fn run(settings: &Settings, args: &InferArgs) -> Result<ExitCode> {
    let contracts = settings.contracts()?;
    scaffold::check_free(&settings.extract.connectors_path, &args.name)?;
    let sample = read(settings, args, &contracts)?;
    if sample.rows.num_rows() == 0 {
        bail!("there are no rows to learn from");
    }
    let profiled = Profiled::new(&sample, settings.timezone);
    let ranked = profiled.rank(&contracts);
    let proposal = match &args.contract {
        Some(asked) => {
            let found = ranked.iter().find(|proposal| proposal.contract.name() == *asked);
            let near = contracts.near(asked).join(", ");
            found.ok_or_else(|| usage(format!("no table to fill is named {asked}; near it: {near}")))?
        }
        None => {
            print_ranked(&ranked);
            let best = ranked.first().filter(|best| best.fit >= FIT_MIN && !best.matches.is_empty());
            let mend = match sample.kind {
                Kind::Files => {
                    "say with --header-row where a sheet's headers are, or name the contract with --contract"
                }
                _ => "name the contract with --contract; docs/tables.md and `quad tables` list them",
            };
            best.ok_or_else(|| usage(format!("no contract fits these columns: {mend}")))?
        }
    };
    if proposal.matches.is_empty() {
        bail!(usage(format!(
            "no column of the sample is known as a field of {}: begin with `quad connector new`",
            proposal.contract.name()
        )));
    }
    let files = profiled.files(&args.name, proposal, &contracts);
    let written = scaffold::write_files(&settings.extract.connectors_path, &args.name, &files)?;
    print_proposal(&profiled, proposal);
    for file in written {
        print_line(&format!("wrote {}", file.display()));
    }
    let name = &args.name;
    let password = match args.password_file.is_some() {
        true => format!("password_file = \"...\"   # or QUAD_SOURCES__{}__PASSWORD\n", name.to_uppercase()),
        false => String::new(),
    };
    print_line(&format!(
        "\nRead each of them. Then in quad.toml:\n\n[sources.{name}]\nconnector = \"{name}\"\nconnection = {:?}\n{password}\n\
         and see what it makes of the source:\n\nquad connector preview {name}\nquad connector test {name}",
        sample.connection
    ));
    Ok(ExitCode::SUCCESS)
}

fn read(settings: &Settings, args: &InferArgs, contracts: &Contracts) -> Result<Sample> {
    let mut extract = settings.extract.clone();
    extract.batch_rows_max = extract.batch_rows_max.min(args.rows.into());
    let worker = Worker::alone(&extract, tokio::runtime::Handle::current()).in_timezone(settings.timezone);
    let source = SourceSettings {
        connection: args.connection.clone(),
        password_file: args.password_file.clone(),
        ..SourceSettings::of(&args.name)
    };
    let (rows, header_row) = (args.rows.into(), args.header_row.into());
    Ok(match (&args.from, &args.table) {
        (None, Some(table)) => sample::of_table(&source, table, rows, contracts, &worker)?,
        (Some(url), _) if url.starts_with("http://") || url.starts_with("https://") => {
            sample::of_url(&source, url, contracts, &worker)?
        }
        (Some(file), _) => sample::of_file(Path::new(file), header_row, rows, contracts, &worker)?,
        (None, None) => bail!(usage("say where the rows are: --from FILE|URL, or --connection and --table")),
    })
}

fn print_ranked(ranked: &[Proposal<'_>]) {
    let row = |proposal: &Proposal<'_>| {
        let missing: Vec<_> = proposal.missing.iter().map(|field| field.name.clone()).collect();
        let (name, matched) = (proposal.contract.name(), proposal.matches.len().to_string());
        vec![format!("{:.0} %", proposal.fit * 100.0), name, matched, missing.join(", ")]
    };
    let rows: Vec<_> = ranked.iter().take(RANKED_MAX).map(row).collect();
    print_table(&["fit", "contract", "columns", "required fields not found"], &rows);
    print_line("");
}

fn print_proposal(profiled: &Profiled<'_>, proposal: &Proposal<'_>) {
    print_line(&format!("{}: {}", proposal.contract.name(), proposal.contract.title));
    let row = |taken: &ingest::kit::infer::Match| {
        vec![format!("{:.0} %", taken.sure * 100.0), taken.column.clone(), taken.field.clone(), taken.reason.clone()]
    };
    print_table(&["sure", "column", "field", "because"], &proposal.matches.iter().map(row).collect::<Vec<_>>());
    let missing: Vec<_> = proposal.missing.iter().map(|field| format!("{} ({})", field.name, field.title)).collect();
    if !missing.is_empty() {
        print_line(&format!("\nrequired and not found: {}", missing.join(", ")));
    }
    let unmatched = profiled.unmatched(proposal);
    if !unmatched.is_empty() {
        print_line(&format!("\ncolumns that no field takes: {}", unmatched.join(", ")));
    }
    print_line("");
}
