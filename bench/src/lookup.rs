//! `bench lookup`: GetProfile and BatchGetProfiles over gRPC, held against the cheapest call of the same server.
//!
//! It asks a running Quad (QUAD_GRPC, QUAD_TOKEN, QUAD_PG as the demo's `--exec` hands them over), so that policy, audit and
//! the wire are in the figure. The base is a health check over the same connections: what gRPC itself costs here. The client
//! is one thread beside the server's, and leaves answers as the bytes they are.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use prost::Message as _;
use proto::profile::v1::{
    BatchGetProfilesRequest, GetProfileRequest, GetProfileResponse, PersonKey, Purpose, person_key,
};
use query::api::client::Client;

use crate::wire::Wire;

/// Profiles a batch.
const BATCH: usize = 100;
/// What every profile has at the least.
const ITEMS_MIN: usize = 30;
/// Of which an item's names alone are more.
const ITEM_BYTES_MIN: usize = 20;

/// What to measure.
#[derive(clap::Args)]
pub struct Args {
    /// HOST:PORT of the gRPC door.
    #[arg(long, env = "QUAD_GRPC")]
    grpc: String,
    /// A token of role admin.
    #[arg(long, env = "QUAD_TOKEN", hide_env_values = true)]
    token: String,
    #[command(flatten)]
    load: Load,
}

/// How much to ask.
#[derive(clap::Args)]
pub struct Load {
    /// Calls under way at a time when measuring the rate.
    #[arg(long, default_value_t = 32)]
    concurrency: usize,
    /// Calls of each round.
    #[arg(long, default_value_t = 10_000)]
    calls: usize,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// Measures and prints.
///
/// # Errors
/// The server does not answer as it should.
pub fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let students = runtime.block_on(async {
        let client = Client::connect(&format!("http://{}", args.grpc), Some(args.token.clone())).await?;
        students(&client).await
    })?;
    measure(&args.grpc, &args.token, &students, &args.load)
}

/// Measures and prints, by calls for `students`, all of whom have a profile.
///
/// # Errors
/// The server does not answer as it should.
pub fn measure(grpc: &str, token: &str, students: &[String], load: &Load) -> Result<()> {
    println!("{} students, {} calls, {} rounds, medians", students.len(), load.calls, load.rounds);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for concurrency in [1, load.concurrency] {
        let figures = runtime.block_on(async {
            let wire = Wire::connect(grpc, token, concurrency).await?;
            Calls { wire: &wire, students }.rounds(concurrency, load).await
        })?;
        figures.print(concurrency);
    }
    Ok(())
}

/// What is called.
#[derive(Clone, Copy)]
struct Calls<'a> {
    wire: &'a Wire,
    students: &'a [String],
}

impl Calls<'_> {
    async fn rounds(self, concurrency: usize, load: &Load) -> Result<Figures> {
        let mut figures = Figures::default();
        for _ in 0..load.rounds {
            figures.health.push(round(load.calls, concurrency, |call| self.health(call)).await?);
            figures.profile.push(round(load.calls, concurrency, |call| self.profile(call)).await?);
            figures.batch.push(round(load.calls / BATCH, concurrency, |call| self.batch(call)).await?);
        }
        Ok(figures)
    }

    async fn health(self, call: usize) -> Result<()> {
        self.wire.call(call, "grpc.health.v1.Health/Check", &()).await.map(drop)
    }

    /// Another student with every call.
    fn key(self, call: usize) -> PersonKey {
        by_number(&self.students[call * 7919 % self.students.len()])
    }

    async fn profile(self, call: usize) -> Result<()> {
        let (person, purpose) = (Some(self.key(call)), Purpose::DailyWork.into());
        let request = GetProfileRequest { person, purpose, ..GetProfileRequest::default() };
        let answer = self.wire.call(call, "quad.profile.v1.ProfileService/GetProfile", &request).await?;
        if call == 0 {
            let profile = GetProfileResponse::decode(answer)?.profile.context("a profile")?;
            ensure!(profile.items.len() > ITEMS_MIN, "a profile has {} items", profile.items.len());
        } else {
            ensure!(answer.len() > ITEMS_MIN * ITEM_BYTES_MIN, "a profile has {} bytes", answer.len());
        }
        Ok(())
    }

    async fn batch(self, call: usize) -> Result<()> {
        let persons = (call * BATCH..(call + 1) * BATCH).map(|person| self.key(person)).collect();
        let purpose = Purpose::DailyWork.into();
        let request = BatchGetProfilesRequest { persons, purpose, ..BatchGetProfilesRequest::default() };
        let answer = self.wire.call(call, "quad.profile.v1.ProfileService/BatchGetProfiles", &request).await?;
        ensure!(answer.len() > BATCH * ITEMS_MIN * ITEM_BYTES_MIN, "a batch has {} bytes", answer.len());
        Ok(())
    }
}

pub fn by_number(student_no: &str) -> PersonKey {
    PersonKey { key: Some(person_key::Key::StudentNo(student_no.into())) }
}

async fn students(client: &Client) -> Result<Vec<String>> {
    let mut answer = client.sql("SELECT student_no FROM student_affairs.student_base ORDER BY student_no").await?;
    let mut students = Vec::new();
    while let Some(batch) = answer.stream.next().await {
        let batch = batch?;
        let column = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8)?;
        let column = column.as_any().downcast_ref::<arrow::array::StringArray>().context("student numbers are text")?;
        students.extend(column.iter().flatten().map(String::from));
    }
    // Some rows of the sources belong to nobody's profile; those are asked for once and left out.
    let mut known = Vec::new();
    for student in students {
        let person = Some(by_number(&student));
        let request = GetProfileRequest { person, purpose: Purpose::DailyWork.into(), ..GetProfileRequest::default() };
        if client.profile(request).await.is_ok() {
            known.push(student);
        }
    }
    ensure!(!known.is_empty(), "no student has a profile");
    Ok(known)
}

/// The latencies of one round, sorted, and how long it took.
struct Round {
    latencies: Vec<Duration>,
    took: Duration,
}

async fn round<F: Future<Output = Result<()>>>(
    calls: usize,
    concurrency: usize,
    call: impl Fn(usize) -> F,
) -> Result<Round> {
    let started = Instant::now();
    let timed = |number| {
        let future = call(number);
        async move {
            let started = Instant::now();
            future.await.map(|()| started.elapsed())
        }
    };
    let answers: Vec<Result<Duration>> =
        futures::stream::iter(0..calls).map(timed).buffer_unordered(concurrency).collect().await;
    let took = started.elapsed();
    let mut latencies = answers.into_iter().collect::<Result<Vec<_>>>()?;
    latencies.sort();
    Ok(Round { latencies, took })
}

#[derive(Default)]
struct Figures {
    health: Vec<Round>,
    profile: Vec<Round>,
    batch: Vec<Round>,
}

impl Figures {
    fn print(&self, concurrency: usize) {
        let median = |rounds: &[Round], figure: &dyn Fn(&Round) -> f64| {
            let mut figures: Vec<f64> = rounds.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        let quantile = |share: f64| {
            move |round: &Round| {
                round.latencies[((round.latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3
            }
        };
        let rate = |round: &Round| round.latencies.len() as f64 / round.took.as_secs_f64();
        println!("\n{concurrency} at a time");
        for (name, rounds) in [
            ("health check", &self.health),
            ("GetProfile, all items", &self.profile),
            ("BatchGetProfiles of 100", &self.batch),
        ] {
            let (p50, p99) = (median(rounds, &quantile(0.5)), median(rounds, &quantile(0.99)));
            let ratio = p99 / median(&self.health, &quantile(0.99));
            println!(
                "{name:<24} p50 {p50:.2} ms  p99 {p99:.2} ms ({ratio:.1} x)  {:.0} calls/s",
                median(rounds, &rate)
            );
        }
    }
}
