//! `bench webhook`: events pushed over HTTP until the log has them, held against an endpoint that only parses their JSON.
//!
//! Batches of gate events, as the access control platform pushes them, go over kept connections to `quad extract` as it runs,
//! with its shipped connector: parsed, mapped, checked, encoded, appended, answered. The endpoint it is held against gets the
//! same requests from the same client in the same run, and answers once it has parsed the body. Every answer is looked at.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use axum::routing::post;
use axum::{Json, Router};
use ingest::extract::run::Extract;
use ingest::{Admins, ExtractSettings, SourceSettings};
use lake::Lake;
use schemas::Contracts;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use topic::Log;
use topic::settings::Kind;

use crate::stats::{Stage, compare};

const TABLE: &str = "access_control.access_event";
const PARTITIONS: i32 = 4;
const TOKEN: &str = "bench";
/// SHA-256 of the token.
const TOKEN_SHA256: &str = "1b32c28cb38c05480eccc1bd60ff97029b57a05c96718b96dad7e9d84894f549";

/// What to measure.
#[derive(clap::Args)]
pub struct Args {
    /// A Kafka broker; without it, the embedded log.
    #[arg(long, env = "QUAD_KAFKA", value_name = "HOST:PORT")]
    kafka: Option<String>,
    #[arg(long, default_value_t = 200_000)]
    events: usize,
    /// Events in one push.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Connections that push at the same time, each waiting for its answer.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// Serves both, pushes, prints.
///
/// # Errors
/// Something failed, or not every event was accepted.
pub fn run(args: &Args) -> Result<()> {
    let (batch, folder) = (usize::from(args.batch), tempfile::tempdir()?);
    let bodies = (0..args.events).step_by(batch).map(|first| body(first..(first + batch).min(args.events)));
    let bodies: Arc<Vec<String>> = Arc::new(bodies.collect());
    let bytes: usize = bodies.iter().map(String::len).sum();
    println!("{} events of {TABLE} of {} bytes, {batch} a push", args.events, bytes / args.events.max(1));
    println!(
        "median rate (lowest to highest), ratio to parsing alone, processor time an event (client's too), peak memory"
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (stop, shutdown) = watch::channel(false);
    let (bare, extract) = (runtime.block_on(parse_only())?, runtime.block_on(prepare(args, folder.path()))?);
    let running = runtime.spawn({
        let extract = extract.clone();
        async move { extract.run(shutdown).await }
    });
    while !extract.is_listening() {
        ensure!(!running.is_finished(), "extract ended before it listened");
        std::thread::sleep(Duration::from_millis(5));
    }
    let push = |to: SocketAddr| runtime.block_on(push_all(to, &bodies, args.connections.into()));
    let mut stages = [
        Stage::new("parse (axum, serde_json)", || push(bare)),
        Stage::new("webhook (parse to acknowledged)", || push(extract.settings().http_listen)),
    ];
    compare(&mut stages, args.rounds, args.events)?;
    stop.send_replace(true);
    runtime.block_on(running)??;
    let taken = extract.board.report().get("bench/access_event").map_or(0, |status| status.records);
    ensure!(taken == (args.events * args.rounds) as u64, "the log has {taken} records of {} rounds", args.rounds);
    Ok(())
}

/// A push of the events `numbers`, in the shape of the platform.
fn body(numbers: std::ops::Range<usize>) -> String {
    let event = |number: usize| {
        let (minute, second) = (number / 60 % 60, number % 60);
        let (door, time) = (number % 40, format!("2024-09-02T08:{minute:02}:{second:02}.000+08:00"));
        json!({
            "eventId": format!("BENCH-{number:010}"), "eventType": 198_914, "happenTime": time,
            "srcIndex": format!("door-{door:04}"), "srcName": format!("D{}-{door} [进门]", door % 9), "srcType": "door", "status": 0,
            "data": {
                "ExtEventCardNo": (1_000_000_000 + number * 7919 % 20_000).to_string(), "ExtEventDoorID": door, "ExtEventInOut": number % 2,
                "ExtEventPersonNo": format!("2024{:06}", number % 20_000), "ExtEventReaderKind": 1, "ExtReceiveTime": time,
                "Seq": number, "UserType": 0,
            },
        })
    };
    json!({ "method": "OnEventNotify", "params": { "events": numbers.map(event).collect::<Vec<_>>() } }).to_string()
}

/// An endpoint that parses a body and says how many events it had.
async fn parse_only() -> Result<SocketAddr> {
    let parse = |Json(body): Json<Value>| async move {
        let events = body.pointer("/params/events").and_then(Value::as_array).map_or(0, Vec::len);
        Json(json!({ "accepted": events, "rejected": 0 }))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        axum::serve(listener, Router::new().route("/v1/push/bench/access_event", post(parse))).await
    });
    Ok(address)
}

/// `quad extract` with one source that pushes.
async fn prepare(args: &Args, folder: &Path) -> Result<Arc<Extract>> {
    let mut settings = topic::Settings { partitions: PARTITIONS, ..topic::Settings::default() };
    settings.embedded.path = folder.join("topic");
    let mut contracts = Contracts::load(Path::new("schemas"))?;
    if let Some(brokers) = &args.kafka {
        settings.kind = Kind::Kafka;
        settings.kafka.brokers.clone_from(brokers);
        // On a broker that others use too, topics of our own.
        contracts = contracts.with_topic_prefix(&format!("bench-{}", std::process::id()));
    }
    let log: Arc<dyn Log> = tokio::task::spawn_blocking(move || topic::open(&settings)).await??;
    let address = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let settings = ExtractSettings {
        state_path: folder.join("extract"),
        connectors_path: "ingest/connectors".into(),
        http_listen: address,
        batch_rows_max: 8192,
        text_bytes_max: 65_536,
        retry_ms_min: 100,
        retry_ms_max: 1_000,
        body_bytes_max: 64 << 20,
        push_records_max: usize::from(u16::MAX),
        push_rate_max: u32::MAX,
        replay_rate_max: 1,
        admins: Admins::default(),
        id_key: None,
    };
    let source = SourceSettings { token_sha256: Some(TOKEN_SHA256.into()), ..SourceSettings::of("access_hikvision") };
    let sources = [("bench".to_string(), source)].into();
    let lake = Lake::open(&lake::Settings::at(folder.join("lake").to_string_lossy()))?;
    let zone = chrono_tz::Tz::Asia__Shanghai;
    Ok(Extract::prepare(settings, sources, &contracts, zone, log, PARTITIONS, &lake).await?)
}

/// Pushes all bodies over so many connections; how long until the last answer.
async fn push_all(to: SocketAddr, bodies: &Arc<Vec<String>>, connections: usize) -> Result<Duration> {
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let pushers: Vec<_> = (0..connections).map(|_| tokio::spawn(pusher(to, bodies.clone(), next.clone()))).collect();
    for pusher in pushers {
        pusher.await??;
    }
    Ok(started.elapsed())
}

/// One connection that takes the next body until there is none. It is as cheap as can be, for it shares the machine.
async fn pusher(to: SocketAddr, bodies: Arc<Vec<String>>, next: Arc<AtomicUsize>) -> Result<()> {
    let mut stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let mut answer = Vec::new();
    while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
        let head = format!(
            "POST /v1/push/bench/access_event HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {TOKEN}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        answer.clear();
        // The whole answer is one small object.
        while !answer.ends_with(b"}") {
            ensure!(stream.read_buf(&mut answer).await? > 0, "the connection was closed");
        }
        let text = std::str::from_utf8(&answer).context("an answer in UTF-8")?;
        ensure!(text.starts_with("HTTP/1.1 200") && text.contains("\"rejected\":0"), "the answer is {text}");
    }
    Ok(())
}
