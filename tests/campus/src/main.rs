//! The command line of the simulated campus: fill databases, push events, play a day, tell the truth.

mod demo;

use std::process::ExitCode;

use anyhow::{Context, Result};
use campus::campus::Campus;
use campus::database::{self, Databases};
use campus::live::Stage;
use campus::plan::{Defects, Plan};
use campus::push::Pusher;
use campus::truth;
use campus::vendors::{PAGE_ROWS_MAX, Vendors};
use chrono::{Days, NaiveDate, NaiveDateTime, Utc};
use clap::{Args, Parser, Subcommand};

/// A simulated campus that fills real source systems.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A small campus and Quad on it; Ctrl-C ends it.
    Demo(demo::DemoArgs),
    /// Create and fill the three databases as they are when the day begins.
    Fill {
        #[command(flatten)]
        plan: PlanArgs,
        #[command(flatten)]
        databases: DatabaseArgs,
    },
    /// Push the doors and the past days' gate events to Quad's webhook.
    Push {
        #[command(flatten)]
        plan: PlanArgs,
        #[command(flatten)]
        webhook: WebhookArgs,
    },
    /// Play the day: changes in the databases and gate events, as they come.
    Play {
        #[command(flatten)]
        plan: PlanArgs,
        #[command(flatten)]
        databases: DatabaseArgs,
        #[command(flatten)]
        webhook: WebhookArgs,
        /// Seconds of the day in one second; 0 plays without waiting.
        #[arg(long, default_value_t = 1440)]
        speed: u64,
    },
    /// Serve over HTTP what platforms list (二课, service desk, 海康, 大华), until Ctrl-C.
    Serve {
        #[command(flatten)]
        plan: PlanArgs,
        /// Before the day is played.
        #[arg(long)]
        filled: bool,
        /// HOST:PORT, or a free port.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: String,
        /// The bearer token that the lists are shown to.
        #[arg(long, env = "CAMPUS_LIST_TOKEN", hide_env_values = true)]
        token: String,
    },
    /// Write what must come out at the other end, as JSON.
    Truth {
        #[command(flatten)]
        plan: PlanArgs,
        /// Before the day is played.
        #[arg(long)]
        filled: bool,
    },
}

#[derive(Args)]
struct PlanArgs {
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value_t = 250)]
    students: usize,
    /// The day that is played; yesterday when left out.
    #[arg(long)]
    day: Option<NaiveDate>,
    #[arg(long, default_value_t = 7)]
    history_days: u32,
    /// How often a source misbehaves in one of the ways that were observed (L1 to L21), as a share of all cases. May be
    /// given several times.
    #[arg(long = "defect", value_name = "L7=0.1")]
    defects: Vec<String>,
}

#[derive(Args)]
struct DatabaseArgs {
    /// ODBC connection string of student affairs.
    #[arg(long, env = "CAMPUS_STUDENT_AFFAIRS")]
    student_affairs: String,
    /// ODBC connection string of academic affairs.
    #[arg(long, env = "CAMPUS_ACADEMIC")]
    academic: String,
    /// ODBC connection string of dormitories and cards.
    #[arg(long, env = "CAMPUS_LOGISTICS")]
    logistics: String,
}

#[derive(Args)]
struct WebhookArgs {
    /// HOST:PORT of Quad's listener.
    #[arg(long, default_value = "127.0.0.1:8081")]
    webhook: String,
    /// The source's name in quad.toml.
    #[arg(long, default_value = "gates")]
    source: String,
    /// The bearer token of the source.
    #[arg(long, env = "CAMPUS_PUSH_TOKEN", hide_env_values = true)]
    token: String,
}

impl PlanArgs {
    fn campus(&self) -> Result<Campus> {
        let mut defects = Defects::default();
        for defect in &self.defects {
            defects.set(defect).map_err(anyhow::Error::msg)?;
        }
        let yesterday = (Utc::now() + chrono::TimeDelta::hours(8)).date_naive() - Days::new(1);
        Ok(Campus::generate(Plan {
            seed: self.seed,
            students: self.students,
            day: self.day.unwrap_or(yesterday),
            history_days: self.history_days,
            defects,
        }))
    }
}

impl DatabaseArgs {
    fn databases(self) -> Databases {
        Databases { student_affairs: self.student_affairs, academic: self.academic, logistics: self.logistics }
    }
}

impl WebhookArgs {
    fn pusher(&self) -> Result<Pusher> {
        Pusher::new(&self.webhook, &self.source, &self.token)
    }
}

fn main() -> ExitCode {
    run(Cli::parse().command).unwrap_or_else(|error| {
        eprintln!("campus: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Demo(args) => return demo::run(&args),
        Command::Fill { plan, databases } => {
            let rows = database::fill(&plan.campus()?, &databases.databases())?;
            println!("{rows} rows");
        }
        Command::Push { plan, webhook } => {
            let mut pusher = webhook.pusher()?;
            let mut records = 0;
            for push in plan.campus()?.history_pushes() {
                pusher.push(&push)?;
                records += push.records;
            }
            println!("{records} records");
        }
        Command::Play { plan, databases, webhook, speed } => {
            play(&plan.campus()?, databases.databases(), webhook.pusher()?, speed)?
        }
        Command::Serve { plan, filled, listen, token } => {
            let campus = plan.campus()?;
            let until = if filled { campus.plan.day_start() } else { NaiveDateTime::MAX };
            let vendors = Vendors::start(&listen, &token, PAGE_ROWS_MAX)?;
            vendors.show(&campus, until);
            println!("{}", vendors.url());
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(tokio::signal::ctrl_c())?;
        }
        Command::Truth { plan, filled } => {
            let stage = if filled { truth::Stage::Filled } else { truth::Stage::DayOver };
            let truth = plan.campus()?.truth(stage);
            serde_json::to_writer_pretty(std::io::stdout().lock(), &truth).context("could not write the truth")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn play(campus: &Campus, databases: Databases, pusher: Pusher, speed: u64) -> Result<()> {
    let mut stage = Stage::open(&databases, pusher)?;
    let mut at = campus.plan.day_start();
    for step in campus.live() {
        let seconds = (step.at - at).num_seconds().max(0) as u64;
        if let Some(millis) = (seconds * 1000).checked_div(speed) {
            std::thread::sleep(std::time::Duration::from_millis(millis));
        }
        at = step.at;
        stage.play(&step)?;
        println!("{}", step.at.format("%H:%M"));
    }
    Ok(())
}
