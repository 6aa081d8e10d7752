//! What a running process says of itself over HTTP: `/metrics` for Prometheus, `/health/live` and `/health/ready`.
//!
//! Requests enter; counts, ages and states leave, and never a row, a name or a secret: the page asks for no token. Its port is
//! bound when all settings are known to be right, before any part runs. The page only looks: it neither starts, slows nor stops a part.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use chrono::Utc;
use ingest::extract::run::Extract;
use ingest::landing::Landing;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use query::serve::Watched;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::metrics;
use crate::settings::SettingsError;

/// Upper bounds of the histograms' buckets: a look-up in a millisecond, a first pull in minutes.
const BUCKETS_S: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0];

/// How often recorded durations are put into their buckets when nobody asks for the page; until then they take memory.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// The parts of this process, as far as they can be looked at.
#[derive(Clone, Default)]
pub struct Parts {
    pub extract: Option<Arc<Extract>>,
    pub landing: Option<Arc<Landing>>,
    pub query: Option<Watched>,
}

/// Collects what the parts measure, from before the first of them is prepared.
pub struct Recorder {
    handle: PrometheusHandle,
    started: Instant,
}

/// The page: a recorder and a bound port.
pub struct Page {
    listener: TcpListener,
    recorder: Recorder,
}

struct Served {
    recorder: Recorder,
    parts: Parts,
}

impl Recorder {
    /// Installs it, which a process can do once.
    ///
    /// # Errors
    /// Another is installed.
    pub fn install() -> Result<Self> {
        let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &BUCKETS_S);
        let handle = builder.and_then(PrometheusBuilder::install_recorder).context("could not record metrics")?;
        metrics::describe();
        ingest::metrics::describe();
        query::metrics::describe();
        Ok(Self { handle, started: Instant::now() })
    }

    /// Binds the page's address.
    ///
    /// # Errors
    /// It is taken or not allowed.
    pub async fn bind(self, address: SocketAddr) -> Result<Page, SettingsError> {
        let listener = TcpListener::bind(address).await.map_err(|error| {
            SettingsError(format!(
                "observe.http_listen: could not listen on {address}: {error}; choose another port, or \"\" for none"
            ))
        })?;
        Ok(Page { listener, recorder: self })
    }
}

impl Page {
    /// Serves until dropped. A failure is said and leaves the parts alone.
    pub async fn serve(self, parts: Parts) {
        if let Ok(address) = self.listener.local_addr() {
            tracing::info!(%address, "metrics and health");
        }
        let upkeep = self.recorder.handle.clone();
        let served = Served { recorder: self.recorder, parts };
        let router = Router::new()
            .route("/metrics", get(metrics_page))
            .route("/health/live", get(|| async { Json(json!({ "live": true })) }))
            .route("/health/ready", get(ready))
            .with_state(Arc::new(served));
        let mut ticks = tokio::time::interval(UPKEEP_EVERY);
        let mut serving = std::pin::pin!(async { axum::serve(self.listener, router).await });
        loop {
            tokio::select! {
                _ = ticks.tick() => upkeep.run_upkeep(),
                ended = &mut serving => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "the metrics page broke");
                    }
                    return;
                }
            }
        }
    }
}

async fn metrics_page(State(served): State<Arc<Served>>) -> Response {
    metrics::observe(served.recorder.started);
    if let Some(extract) = &served.parts.extract {
        extract.board.observe(Utc::now());
    }
    if let Some(landing) = &served.parts.landing {
        landing.observe();
    }
    if let Some(query) = &served.parts.query {
        query.observe();
    }
    // https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], served.recorder.handle.render())
        .into_response()
}

async fn ready(State(served): State<Arc<Served>>) -> Response {
    let mut parts = serde_json::Map::new();
    if let Some(extract) = &served.parts.extract {
        let report = extract.board.report();
        let failing = report.values().filter(|status| status.failures > 0).count();
        let health = json!({ "ready": extract.is_listening(), "tables": report.len(), "tables_failing": failing });
        parts.insert("extract".into(), health);
    }
    if let Some(landing) = &served.parts.landing {
        parts.insert("land".into(), serde_json::to_value(landing.health()).unwrap_or_default());
    }
    if let Some(query) = &served.parts.query {
        parts.insert("query".into(), serde_json::to_value(query.health()).unwrap_or_default());
    }
    let is_ready = parts.values().all(|part| part["ready"] == Value::Bool(true));
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": is_ready, "parts": parts }))).into_response()
}
