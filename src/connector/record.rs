//! `quad connector record`: the first rows of a source as files that `quad connector test` and flows take.
//!
//! A source enters; one `<table>.jsonl` a table leaves, in which persons have pseudonyms by the key of `id_hash`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use ingest::extract::source::Worker;
use ingest::kit::preview;
use ingest::kit::pseudonym::Pseudonyms;
use ingest::kit::recording;
use ingest::kit::rehearsal::Rehearsal;

use super::Target;
use crate::report::print_line;
use crate::settings::Settings;
use crate::usage;

#[derive(Args)]
pub struct RecordArgs {
    /// A source of the settings, or a connector that one source uses.
    #[arg(value_name = "SOURCE|CONNECTOR")]
    name: String,
    /// The folder of the recording; files that are there are left as they are.
    #[arg(long, value_name = "FOLDER")]
    into: PathBuf,
    /// Only this table: the connector's name for it, or its contract such as academic.grade.
    #[arg(long)]
    table: Option<String>,
    /// Rows of each table.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    rows: u16,
}

pub(super) async fn run(settings: &Settings, args: &RecordArgs) -> Result<ExitCode> {
    let target = Target::find(settings, &args.name, args.table.as_deref())?;
    let Some(key) = &settings.extract.id_key else {
        bail!(usage(
            "pseudonyms need a key: set QUAD_EXTRACT__ID_KEY to a secret, the same for recordings that are to fit together"
        ));
    };
    if !target.connector.kind.is_pulled() {
        bail!(usage(format!("{} pushes and cannot be asked: write its recording by hand", target.id)));
    }
    let mut extract = settings.extract.clone();
    extract.batch_rows_max = extract.batch_rows_max.min(args.rows.into());
    let worker = Worker::alone(&extract, tokio::runtime::Handle::current()).in_timezone(settings.timezone);
    let inputs = tokio::task::block_in_place(|| target.pulled(settings, &worker, args.rows.into(), preview::pulled))?;
    for (table, input) in target.connector.tables.iter().zip(inputs) {
        let (connector, input) = (&target.connector, input?);
        let rehearsal = Rehearsal::new(&extract, &target.id, connector, table, settings.timezone)?;
        let pseudonyms = Pseudonyms { key };
        let masked = recording::write(&args.into, &rehearsal, connector, &pseudonyms, &input).await?;
        let masked = if masked.is_empty() { "no column".to_string() } else { masked.join(", ") };
        let file = args.into.join(format!("{}.jsonl", table.name));
        print_line(&format!("wrote {}: {} rows, pseudonyms in {masked}", file.display(), input.num_rows()));
    }
    print_line("\nRead the files before you keep them: whether other columns tell of a person, only a person can say.");
    Ok(ExitCode::SUCCESS)
}
