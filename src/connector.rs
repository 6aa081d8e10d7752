//! `quad connector`: making a connector, and seeing what it makes of a source before anything is taken in.
//!
//! A name and a contract enter and a folder of files leaves; or a source or the body of a push enters, and its first
//! rows are printed, mapped and checked, with what is sensitive masked. Log, lake and state are not opened.

mod infer;
mod record;
mod trial;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use arrow::array::RecordBatch;
use chrono::Utc;
use clap::{Args, Subcommand, ValueEnum};
use ingest::connector::{Kind, TableMapping};
use ingest::extract::source::{self, Source, Worker};
use ingest::kit::preview::{self, Preview};
use ingest::kit::rehearsal::Rehearsal;
use ingest::kit::scaffold;
use ingest::{Connector, SourceSettings};
use serde_json::{Value, json};

use crate::client::cells;
use crate::report::{print_document, print_line, print_table};
use crate::settings::Settings;
use crate::usage;

pub use trial::Heard;

#[derive(Subcommand)]
pub enum ConnectorCommand {
    /// Write a new connector for a table, to be filled in.
    New(NewArgs),
    /// Propose a connector from the first rows of a table, a file or an address; it runs, and is to be read.
    Infer(infer::InferArgs),
    /// Show the first rows of a source as they would be taken in, and what would be rejected; nothing is written.
    Preview(PreviewArgs),
    /// Keep the first rows of a source as a recording for `test`, persons under pseudonyms.
    Record(record::RecordArgs),
    /// Try whether a connector does what extract relies on, on its source or a recording; nothing is written.
    Test(trial::TestArgs),
}

#[derive(Args)]
pub struct NewArgs {
    /// The connector's name: lower case, digits and _.
    name: String,
    /// Where the rows come from.
    #[arg(long, value_enum)]
    source: SourceKind,
    /// The table that it fills; `quad tables` lists all.
    #[arg(long, value_name = "TABLE", default_value = "student_affairs.leave_request")]
    contract: String,
}

/// The kinds of source that a connector can be made for.
#[derive(Clone, Copy, ValueEnum)]
enum SourceKind {
    Sql,
    Files,
    Http,
    Kafka,
    Singer,
    Mqtt,
    #[value(name = "postgres_cdc")]
    PostgresCdc,
    Webhook,
}

#[derive(Args)]
pub struct PreviewArgs {
    /// A source of the settings, or a connector that one source uses.
    #[arg(value_name = "SOURCE|CONNECTOR")]
    name: String,
    /// Only this table: the connector's name for it, or its contract such as academic.grade.
    #[arg(long)]
    table: Option<String>,
    /// Rows of each table.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    rows: u16,
    /// The body of a push, for a source that pushes.
    #[arg(long, value_name = "FILE.json")]
    input: Option<PathBuf>,
    /// Print JSON, one document.
    #[arg(long)]
    json: bool,
}

/// Runs a `quad connector` command.
///
/// # Errors
/// What is wrong with the name, the connector or the settings, or why the source does not answer.
pub async fn run(settings: &Settings, command: &ConnectorCommand, heard: &Heard) -> Result<ExitCode> {
    match command {
        ConnectorCommand::New(args) => new(settings, args),
        ConnectorCommand::Preview(args) => show(settings, args).await,
        ConnectorCommand::Record(args) => record::run(settings, args).await,
        ConnectorCommand::Infer(args) => tokio::task::block_in_place(|| infer::run(settings, args)),
        ConnectorCommand::Test(args) => tokio::task::block_in_place(|| trial::run(settings, args, heard)),
    }
}

fn new(settings: &Settings, args: &NewArgs) -> Result<ExitCode> {
    let contracts = settings.contracts()?;
    let Some(contract) = contracts.iter().find(|contract| contract.name() == args.contract) else {
        let near = contracts.near(&args.contract).join(", ");
        bail!(usage(format!("no table to fill is named {}; near it: {near}; `quad tables` lists all", args.contract)));
    };
    let name = &args.name;
    let upper = name.to_uppercase();
    let (kind, lines) = match args.source {
        SourceKind::Sql => (
            Kind::Sql,
            format!(
                "connection = \"Driver=...;Server=...;Uid=...\"   # ODBC; password: QUAD_SOURCES__{upper}__PASSWORD"
            ),
        ),
        SourceKind::PostgresCdc => (
            Kind::PostgresCdc,
            format!(
                "connection = \"Driver=PostgreSQL Unicode;Server=...;Uid=...\"   # password: QUAD_SOURCES__{upper}__PASSWORD\n\
                 poll_s = 1"
            ),
        ),
        SourceKind::Files => (Kind::Files, "connection = \"...\"   # the folder".to_string()),
        SourceKind::Http => (
            Kind::Http,
            format!("connection = \"https://...\"   # with auth, its secret: QUAD_SOURCES__{upper}__PASSWORD"),
        ),
        SourceKind::Kafka => (Kind::Kafka, "connection = \"HOST:PORT,...\"   # the brokers".to_string()),
        SourceKind::Singer => (
            Kind::Singer,
            format!("# what `config` of the tap asks for; for {{password}}: QUAD_SOURCES__{upper}__PASSWORD"),
        ),
        SourceKind::Mqtt => (
            Kind::Mqtt,
            format!(
                "connection = \"mqtts://...\"   # the broker\nuser = \"...\"   # password: QUAD_SOURCES__{upper}__PASSWORD"
            ),
        ),
        SourceKind::Webhook => {
            (Kind::Webhook, "token_sha256 = \"...\"   # of a token that `quad token` makes".to_string())
        }
    };
    for file in scaffold::write(&settings.extract.connectors_path, name, kind, contract)? {
        print_line(&format!("wrote {}", file.display()));
    }
    let input = if kind.is_pulled() { "" } else { " --input BODY.json" };
    print_line(&format!(
        "\nFill in connector.toml, the mapping and the code maps, each with what the source has. Then in quad.toml:\n\n\
         [sources.{name}]\nconnector = \"{name}\"\n{lines}\n\n\
         and see what it makes of the source:\n\nquad connector preview {name}{input}\nquad doctor"
    ));
    Ok(ExitCode::SUCCESS)
}

/// How rows of a table are asked for, at most so many.
type Ask = fn(&mut dyn Source, &TableMapping, usize) -> Result<RecordBatch, ingest::Error>;

/// What is looked at: a source and its connector.
struct Target {
    id: String,
    settings: SourceSettings,
    connector: Connector,
}

impl Target {
    /// The source `name`, or the one that uses the connector `name`, with the tables that were asked for.
    fn find(settings: &Settings, name: &str, table: Option<&str>) -> Result<Self> {
        let mut users = settings.sources.iter().filter(|(id, source)| *id == name || source.connector == name);
        let (id, source) = match (settings.sources.get_key_value(name).or_else(|| users.next()), users.next()) {
            (Some((id, _)), Some((other, _))) if id != name => {
                bail!(usage(format!("the sources {id} and {other} use the connector {name}: name the source")))
            }
            (Some((id, source)), _) => (id.clone(), source.clone()),
            (None, _) => (name.to_string(), SourceSettings::of(name)),
        };
        let mut connector =
            Connector::load(&settings.extract.connectors_path, &source.connector, &settings.contracts()?)?;
        if let Some(asked) = table {
            let names = connector.tables.iter().map(|table| table.name.clone()).collect::<Vec<_>>().join(", ");
            connector.tables.retain(|table| table.name == asked || table.contract.name() == asked);
            if connector.tables.is_empty() {
                bail!(usage(format!("the connector {} has no table {asked}, but {names}", connector.name)));
            }
        }
        Ok(Self { id, settings: source, connector })
    }

    /// Connects to the source, in its hours.
    fn connect(&self, settings: &Settings, worker: &Worker) -> Result<Box<dyn Source>> {
        let schedule = self.connector.check_source(&self.id, &self.settings, &settings.extract, settings.timezone)?;
        if !schedule.is_open(Utc::now()) {
            bail!("source {} may be asked only in its hours, see sources.{}.hours", self.id, self.id);
        }
        Ok(source::connect(&self.connector, &self.settings, worker)?)
    }

    /// Rows of each table, asked of the source by `ask`. Blocks.
    fn pulled(&self, settings: &Settings, worker: &Worker, rows: usize, ask: Ask) -> Result<Vec<Result<RecordBatch>>> {
        let mut source = self.connect(settings, worker)?;
        let tables = self.connector.tables.iter();
        let pull = |table| ask(source.as_mut(), table, rows).map_err(anyhow::Error::from);
        Ok(tables.map(pull).collect())
    }

    /// The first rows of the body of a push, for the one table that it is for.
    fn pushed(&self, args: &PreviewArgs) -> Result<Vec<Result<RecordBatch>>> {
        let [table] = self.connector.tables.as_slice() else {
            let names = self.connector.tables.iter().map(|table| table.name.clone()).collect::<Vec<_>>().join(", ");
            bail!(usage(format!("a push is for one table: say which with --table, of {names}")));
        };
        let Some(file) = &args.input else {
            bail!(usage(format!("{} pushes and cannot be asked: give the body of a push with --input", self.id)));
        };
        let body = std::fs::read(file).map_err(|error| usage(format!("could not read {}: {error}", file.display())))?;
        Ok(vec![Ok(preview::pushed(table, &body, args.rows.into())?)])
    }
}

async fn show(settings: &Settings, args: &PreviewArgs) -> Result<ExitCode> {
    let target = Target::find(settings, &args.name, args.table.as_deref())?;
    if target.connector.kind.is_pulled() && args.input.is_some() {
        bail!(usage(format!("{} is asked for its rows: --input is for sources that push", target.id)));
    }
    let mut extract = settings.extract.clone();
    extract.batch_rows_max = extract.batch_rows_max.min(args.rows.into());
    let worker = Worker::alone(&extract, tokio::runtime::Handle::current()).in_timezone(settings.timezone);
    let inputs = match target.connector.kind.is_pulled() {
        true => tokio::task::block_in_place(|| target.pulled(settings, &worker, args.rows.into(), preview::sampled))?,
        false => target.pushed(args)?,
    };
    let (mut documents, mut all_well) = (Vec::new(), true);
    for (table, input) in target.connector.tables.iter().zip(inputs) {
        let previewed = match input {
            Ok(input) => {
                let connector = &target.connector;
                let previewed = match Rehearsal::new(&extract, &target.id, connector, table, settings.timezone) {
                    Ok(rehearsal) => preview::preview(&rehearsal, connector, &input).await,
                    Err(error) => Err(error),
                };
                previewed.map_err(Into::into)
            }
            Err(error) => Err(error),
        };
        let head = format!("{}  from {}/{}", table.contract.name(), target.id, table.name);
        all_well &= previewed.is_ok();
        let names = json!({ "source": target.id, "table": table.name, "contract": table.contract.name() });
        match (previewed, args.json) {
            (Ok(preview), true) => documents.push(document(names, &preview)?),
            (Ok(preview), false) => print(&head, &preview)?,
            (Err(error), true) => documents.push(with(names, json!({ "error": format!("{error:#}") }))),
            (Err(error), false) => print_line(&format!("{head}\nFAILED: {error:#}\n")),
        }
    }
    if args.json {
        print_document(&documents)?;
    }
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(head: &str, preview: &Preview) -> Result<()> {
    let records = &preview.records;
    print_line(&format!(
        "{head}\n{} rows read: {} accepted, {} rejected, {} left out by the mapping\n",
        preview.rows_read,
        records.num_rows(),
        preview.letters.len(),
        preview.left_out
    ));
    if records.num_rows() > 0 {
        let schema = records.schema();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        print_table(&names, &cells(records)?);
        print_line("");
    }
    if !preview.letters.is_empty() {
        let row = |letter: &ingest::letter::Letter| {
            vec![letter.field.clone(), letter.rule.clone(), letter.message.clone(), letter.bytes.clone()]
        };
        print_table(
            &["field", "rule", "rejected because", "row"],
            &preview.letters.iter().map(row).collect::<Vec<_>>(),
        );
        print_line("");
    }
    if !preview.codes_unknown.is_empty() {
        let row = |(set, value, times): &(String, String, u64)| vec![set.clone(), value.clone(), times.to_string()];
        let rows = preview.codes_unknown.iter().map(row).collect::<Vec<_>>();
        print_table(&["codes", "unknown value", "times"], &rows);
        print_line("");
    }
    Ok(())
}

fn document(names: Value, preview: &Preview) -> Result<Value> {
    let mut writer = arrow_json::ArrayWriter::new(Vec::new());
    writer.write(&preview.records)?;
    writer.finish()?;
    let records: Value = serde_json::from_slice(&writer.into_inner())?;
    let letter = |letter: &ingest::letter::Letter| {
        let row: Value = serde_json::from_str(&letter.bytes).unwrap_or_default();
        json!({ "field": letter.field, "rule": letter.rule, "message": letter.message, "row": row })
    };
    let code = |(set, value, times): &(String, String, u64)| json!({ "codes": set, "value": value, "times": times });
    let seen = json!({
        "read": preview.rows_read,
        "accepted": preview.records.num_rows(),
        "rejected": preview.letters.len(),
        "left_out": preview.left_out,
        "records": records,
        "dead_letters": preview.letters.iter().map(letter).collect::<Vec<_>>(),
        "codes_unknown": preview.codes_unknown.iter().map(code).collect::<Vec<_>>(),
    });
    Ok(with(names, seen))
}

/// One object with the members of both.
fn with(mut names: Value, more: Value) -> Value {
    if let (Value::Object(names), Value::Object(more)) = (&mut names, more) {
        names.extend(more);
    }
    names
}
