//! `campus demo`: a small campus and Quad on it, in one command.
//!
//! A plan enters. A work folder with three SQLite databases and Quad's settings is made, platforms list over HTTP what they know,
//! Quad is started on all that, the day is played, and the terminal says how far everything is and how to look. An interrupt ends all of it in order. With
//! `--once` the day is played to its end and counted: what the sources wrote must be in the lake or be a dead letter.

mod look;
mod player;
mod quad;
mod summary;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use campus::campus::Campus;
use campus::truth::{Stage, Truth};
use campus::vendors::{PAGE_ROWS_MAX, Vendors};
use chrono::NaiveDateTime;
use clap::Args;

use look::{Lake, Look};
use player::{Phase, Player};
use quad::Quad;
use work::Work;

/// A small simulated campus and Quad on it; Ctrl-C ends it.
#[derive(Args)]
pub struct DemoArgs {
    /// Play one day to its end as fast as it goes, print a summary that adds up, and stop.
    #[arg(long)]
    once: bool,
    #[arg(long, default_value_t = 250)]
    students: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The day that is played; yesterday when left out.
    #[arg(long)]
    day: Option<chrono::NaiveDate>,
    /// Seconds of the day in one second.
    #[arg(long, default_value_t = 1440)]
    speed: u64,
    /// HOST:PORT of a Kafka broker to run on, instead of the embedded log.
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// First part of the topics' names. Topics of an earlier demo still hold its records: take another name then.
    #[arg(long, default_value = "quad")]
    topic_prefix: String,
    /// Go on with what the work folder holds instead of starting over.
    #[arg(long)]
    keep: bool,
    /// The quad executable; the one beside this when left out.
    #[arg(long)]
    quad: Option<PathBuf>,
    /// Folder of databases, settings, log and lake. Emptied at the start unless --keep.
    #[arg(long, default_value = "data/demo")]
    work: PathBuf,
    /// A shell command to run when the day is over, with QUAD_PG, QUAD_GRPC, QUAD_OBSERVE, QUAD_USER, QUAD_TOKEN,
    /// QUAD_LAKE and QUAD_STUDENT in its environment; its failure is the demo's.
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,
}

/// Between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(3);
/// The longest that everything may take to arrive after the last of it was written.
const ARRIVAL_MAX: Duration = Duration::from_secs(180);

/// Runs the demo; the exit code is 1 when the day does not add up.
///
/// # Errors
/// Whatever keeps it from running.
pub fn run(args: &DemoArgs) -> Result<ExitCode> {
    let work = Work::prepare(args)?;
    println!(
        "A campus of {} students, {}; everything is in {}",
        work.plan.students,
        work.plan.day,
        work.folder.display()
    );
    let campus = std::sync::Arc::new(Campus::generate(work.plan.clone()));
    let rows = work.fill(&campus)?;
    match rows {
        0 => println!("The three source databases are as the earlier demo left them."),
        rows => println!("Filled three source databases with {rows} rows."),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(demo(args, &work, campus))
}

async fn demo(args: &DemoArgs, work: &Work, campus: std::sync::Arc<Campus>) -> Result<ExitCode> {
    let vendors = Vendors::start(&work.lists, &work.secrets.list_token, PAGE_ROWS_MAX)?;
    vendors.show(&campus, campus.plan.day_start());
    let mut quad = Quad::start(work)?;
    let mut look = Look::new(work, &campus.truth(Stage::Filled).with_lists());
    let outcome = tokio::select! {
        outcome = play(args, work, campus, &vendors, &mut quad, &mut look) => outcome,
        () = interrupt() => {
            println!("\nStopping.");
            Ok(ExitCode::SUCCESS)
        }
    };
    quad.stop().await?;
    if args.once {
        println!("The work folder {} stays: settings, databases, log and lake.", work.folder.display());
    }
    outcome
}

/// Ctrl-C, or a polite kill.
async fn interrupt() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

async fn play(
    args: &DemoArgs,
    work: &Work,
    campus: std::sync::Arc<Campus>,
    vendors: &Vendors,
    quad: &mut Quad<'_>,
    look: &mut Look,
) -> Result<ExitCode> {
    look.wait_until_up(quad).await?;
    work.say_how_to_look(&campus);
    let speed = if args.once { 0 } else { args.speed };
    let player = Player::start(campus.clone(), work, speed)?;
    wait_for_phase(&player, quad, look, Phase::HistoryDone).await?;
    // A change of the day must meet its first version in Quad, or two versions would be seen as one.
    if !work.is_day_begun() {
        let past = campus.truth(Stage::Filled).with_lists();
        let wrong = summary::missing(&past, &await_arrival(&past, &player, quad, look).await?);
        if !wrong.is_empty() {
            println!("Not as it must be before the day:\n  {}", wrong.join("\n  "));
        }
    }
    println!("The past week is in the lake; the day begins.");
    player.begin_day();
    wait_for_phase(&player, quad, look, Phase::DayDone).await?;
    vendors.show(&campus, NaiveDateTime::MAX);
    let truth = campus.truth(Stage::DayOver).with_lists();
    let seen = await_arrival(&truth, &player, quad, look).await?;
    let mut well = summary::print(&truth, &seen);
    if !well && work.kafka.is_some() {
        println!("Do the topics hold records of an earlier demo? Take a fresh broker, or another --topic-prefix.\n");
    }
    work.write_truth(&truth)?;
    if let Some(command) = &args.exec {
        well &= work.exec(command, &campus).await?;
    }
    if !args.once {
        println!("The day is over. Quad keeps answering; Ctrl-C stops it.");
        loop {
            quad.watch()?;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Tells progress until the player has reached `phase`.
async fn wait_for_phase(player: &Player, quad: &mut Quad<'_>, look: &mut Look, phase: Phase) -> Result<()> {
    let mut told = Instant::now();
    while player.phase()? < phase {
        quad.watch()?;
        if told.elapsed() >= PROGRESS_EVERY {
            told = Instant::now();
            println!("{}  {}", player.clock(), look.progress().await);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Waits until all of `truth` can be seen in Quad; gives what was seen at the end, complete or too late.
async fn await_arrival(truth: &Truth, player: &Player, quad: &mut Quad<'_>, look: &mut Look) -> Result<Lake> {
    let deadline = Instant::now() + ARRIVAL_MAX;
    let mut told = Instant::now();
    loop {
        quad.watch()?;
        let is_late = Instant::now() > deadline;
        let observed = match look.is_enough(truth).await {
            Ok(false) if !is_late => Ok(None),
            Ok(_) => look.observe(truth).await.map(Some),
            Err(error) => Err(error),
        };
        match observed.context("could not count what is in the lake") {
            Ok(Some(lake)) if is_late || summary::missing(truth, &lake).is_empty() => return Ok(lake),
            Err(error) if is_late => return Err(error),
            _ => {}
        }
        if told.elapsed() >= PROGRESS_EVERY {
            told = Instant::now();
            println!("{}  {}", player.clock(), look.progress().await);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}
