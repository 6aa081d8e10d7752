//! `quad`: the one binary. The command line enters; services run, or an answer is printed.
//!
//! Composition only: settings are read and checked, parts are opened in the order the data goes, and handed to each
//! other. Exit codes: 0 well, 64 wrong settings or usage, 1 anything else, 130 interrupted twice.

/// As the standard one, but a reader that has gone, as `head` does, ends nothing: every command prints by this one or by
/// `report::print_line`.
macro_rules! println {
    () => { $crate::report::print_line("") };
    ($($text:tt)*) => { $crate::report::print_line(&format!($($text)*)) };
}

mod backfill;
mod client;
mod connector;
mod contracts;
mod dead_letters;
mod doctor;
mod identity;
mod lake;
mod land;
mod metrics;
mod observe;
mod post;
mod profiles;
mod reconcile;
mod report;
mod serve;
mod settings;
mod tables;
mod traces;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use connector::Heard;
use serve::Service;
use settings::{LogFormat, Settings, SettingsError};
use traces::Exporter;

/// Gives back what is free, also while nothing happens, and lets threads allocate beside each other.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The data foundation of a student community: campus systems → log → lake → SQL and profiles.
#[derive(Parser)]
#[command(name = "quad", version, propagate_version = true)]
struct Cli {
    /// The settings file; `quad.toml` in the working directory when there is one.
    #[arg(long, global = true, env = "QUAD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run everything in one process: extract, land and query.
    Up(Service),
    /// Pull from and listen to the sources, and write to the log.
    Extract(Service),
    /// Land the log in the lake.
    Land(land::LandArgs),
    /// Answer SQL and profile requests.
    Query(Service),
    /// Ask a running Quad in SQL and print the answer.
    Sql(client::SqlArgs),
    /// Ask a running Quad for a student's profile.
    Profile(client::ProfileArgs),
    /// Print a token for all that the log holds now; `quad sql` and `quad profile` wait for it with --watermark.
    Watermark(client::WatermarkArgs),
    /// Tell how each source is.
    Sources(report::Format),
    /// Pull rows of a past span of a source once more, beside the live pulls.
    Backfill(backfill::BackfillArgs),
    /// Hold the sources against the log and the lake, by day; exit code 1 when something is missing.
    Reconcile(reconcile::ReconcileArgs),
    /// List the tables, or describe one: its fields, rules and codes.
    Tables(tables::TablesArgs),
    /// Keep the lake in order by hand, and see how its tables are.
    #[command(subcommand)]
    Lake(lake::LakeCommand),
    /// Check settings, contracts, connectors, log, lake and sources, and say what to do.
    Doctor(report::Format),
    /// Make an access token, and the settings that accept it.
    Token(client::TokenArgs),
    /// List, show, replay and discard the rows and records that could not be taken in.
    DeadLetters(dead_letters::DeadLettersArgs),
    /// Ask and decide whose a student number is: questions that no rule may answer, merging and splitting, and undoing it.
    Identity(identity::IdentityArgs),
    /// Make a connector, and see what it makes of a source before anything is taken in.
    #[command(subcommand)]
    Connector(connector::ConnectorCommand),
    /// Compare contracts: what a change means for records, rows and producers.
    Contracts(contracts::ContractsArgs),
}

impl Command {
    fn is_service(&self) -> bool {
        matches!(self, Self::Up(_) | Self::Extract(_) | Self::Land(_) | Self::Query(_))
    }
}

/// The command line or the settings are wrong.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    if let Command::Contracts(args) = &cli.command {
        return contracts::run(args);
    }
    let settings = match Settings::load(cli.config.as_deref(), std::env::vars().collect()) {
        Ok(settings) => settings,
        Err(error) => return fail(&error.context("the settings cannot be used"), USAGE),
    };
    let heard = Heard::default();
    let exporter = start_log(&settings, cli.command.is_service(), &heard);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into(), 1),
    };
    match runtime.block_on(run(cli.command, settings, exporter, &heard)) {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => fail(&error, if is_settings(&error) { USAGE } else { 1 }),
    }
}

async fn run(
    command: Command,
    settings: Settings,
    exporter: Option<Exporter>,
    heard: &Heard,
) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(service) => serve::run(settings, serve::Parts::ALL, service.check, exporter).await,
        Command::Extract(service) => serve::run(settings, serve::Parts::EXTRACT, service.check, exporter).await,
        Command::Land(args) => land::run(settings, args, exporter).await,
        Command::Query(service) => serve::run(settings, serve::Parts::QUERY, service.check, exporter).await,
        Command::Sql(args) => client::sql(&settings, &args).await,
        Command::Profile(args) => client::profile(&settings, &args).await,
        Command::Watermark(args) => client::watermark(&settings, &args).await,
        Command::Sources(format) => report::sources(&settings, format),
        Command::Backfill(args) => backfill::run(&settings, args).await,
        Command::Reconcile(args) => reconcile::run(settings, args).await,
        Command::Tables(args) => tables::run(&settings, &args).await,
        Command::Lake(command) => lake::run(&settings, &command).await,
        Command::Doctor(format) => doctor::run(settings, format).await,
        Command::Token(args) => client::token(&args),
        Command::DeadLetters(args) => dead_letters::run(&settings, args).await,
        Command::Identity(args) => identity::run(&settings, args).await,
        Command::Connector(command) => connector::run(&settings, &command, heard).await,
        Command::Contracts(args) => Ok(contracts::run(&args)),
    }
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("quad: {error:#}");
    ExitCode::from(code)
}

/// What is wrong with the command line or the settings as a whole.
fn usage(message: impl Into<String>) -> SettingsError {
    SettingsError(message.into())
}

/// Whether the reader of what is printed has gone: it has seen enough.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let causes = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    causes.into_iter().any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Whether any cause is one that mending the settings mends.
fn is_settings(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<ingest::Error>().is_some_and(|error| error.kind == ingest::ErrorKind::Settings)
            || cause.downcast_ref::<query::Error>().is_some_and(|error| error.kind == query::ErrorKind::Settings)
            || cause.downcast_ref::<::lake::Error>().is_some_and(|error| error.kind == ::lake::ErrorKind::Settings)
            || cause.downcast_ref::<topic::Error>().is_some_and(|error| error.kind == topic::ErrorKind::Settings)
            || cause.is::<schemas::Error>()
            || cause.is::<SettingsError>()
    })
}

/// Log lines go to the standard error stream; the spans of a service go to what sends them, if the settings name a collector.
fn start_log(settings: &Settings, is_service: bool, heard: &Heard) -> Option<Exporter> {
    use std::io::IsTerminal as _;
    use tracing_subscriber::fmt::writer::BoxMakeWriter;
    use tracing_subscriber::prelude::*;
    use tracing_subscriber::{EnvFilter, filter::FilterFn, fmt};
    let filter = EnvFilter::try_new(&settings.log.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let heard = heard.clone();
    let writer = match is_service {
        true => BoxMakeWriter::new(std::io::stderr),
        false => BoxMakeWriter::new(move || heard.clone()),
    };
    // Colours are for people who want them: files and collectors get none. See <https://no-color.org>.
    let has_colours =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = fmt::layer().with_writer(writer).with_target(false).with_ansi(has_colours);
    let lines = match settings.log.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let endpoint = settings.observe.otlp_endpoint.clone().filter(|_| is_service);
    let (collect, exporter) = endpoint.map(|endpoint| traces::collect(endpoint, settings.observe.trace_ratio)).unzip();
    let only_ours = FilterFn::new(traces::is_traced as fn(&tracing::Metadata<'_>) -> bool);
    let collect = collect.map(|collect| collect.with_filter(only_ours));
    // Not `init`: it would also take what libraries tell the `log` crate. A refusal of such a line makes tracing-subscriber 0.3
    // drop the next line of the thread, whatever that is, where layers have filters of their own.
    let subscriber = tracing_subscriber::registry().with(lines.with_filter(filter)).with(collect);
    tracing::subscriber::set_global_default(subscriber).expect("the log is started once");
    exporter
}
