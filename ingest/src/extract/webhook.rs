//! The `webhook` source: devices and platforms push JSON over HTTP.
//!
//! `POST /v1/push/<source>/<table>` takes one record or a batch; the answer comes only after the log has every one of
//! them, as a record or a dead letter. Each push is authenticated by bearer token or HMAC; body, batch and rate are
//! bounded. A push that is refused as a whole (401, 404, 400, 413, 429, 503) has left nothing in the log.
//!
//! Dead letters are replayed and discarded and decisions about identity taken on the same listener, see `admin`. `GET /health` says that the listener is up; `GET /v1/sources` how each source is,
//! `GET /v1/watermark` how far the log is.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use arrow::array::RecordBatch;
use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use chrono::Utc;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::watch;
use topic::Watermark;
use tracing::Instrument;

use super::admin;
use super::pipeline::{Pipeline, Sent};
use super::records;
use super::run::Extract;
use crate::connector::{Kind, Spec, TableMapping};
use crate::error::{Error, ErrorKind};
use crate::metrics;
use crate::settings::SourceSettings;

/// The keys of a table that is pushed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// A JSON pointer to the records of a body; "" is the whole body.
    pub records: String,
    /// Each column's pointer inside a record.
    pub input: BTreeMap<String, String>,
}

impl Table {
    /// The table, or what it lacks.
    pub(crate) fn checked(self) -> Result<Self, String> {
        match self.input.is_empty() {
            true => Err("a pushed table needs `[input]`: column = JSON pointer".into()),
            false => Ok(self),
        }
    }
}

/// What the handlers share.
pub(super) struct Receiver {
    pub(super) extract: Arc<Extract>,
    rates: DefaultKeyedRateLimiter<String>,
}

/// A refusal: its status, and what to do about it.
pub(crate) struct Refusal(pub(super) StatusCode, pub(crate) String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

/// Binds the address of the settings.
///
/// # Errors
/// `Settings` when it is taken or not allowed.
pub async fn bind(extract: &Extract) -> Result<TcpListener, Error> {
    let address = extract.settings().http_listen;
    TcpListener::bind(address)
        .await
        .map_err(|error| Error::settings(format!("could not listen on extract.http_listen {address}: {error}")))
}

/// Serves until `shutdown` says so; pushes under way are finished.
///
/// # Errors
/// `Internal` when the listener breaks.
pub async fn serve(
    extract: Arc<Extract>,
    listener: TcpListener,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), Error> {
    let rate = NonZeroU32::new(extract.settings().push_rate_max).unwrap_or(NonZeroU32::MIN);
    let body_bytes_max = extract.settings().body_bytes_max;
    let receiver = Arc::new(Receiver { extract, rates: RateLimiter::keyed(Quota::per_second(rate)) });
    let letters = Router::new()
        .route("/v1/dead-letters/replay", post(admin::replay))
        .route("/v1/dead-letters/discard", post(admin::discard))
        .route("/v1/identity/decisions", post(admin::decide))
        .route("/v1/backfills", post(admin::begin_backfill).get(admin::backfills))
        .route("/v1/backfills/{id}/{verb}", post(admin::set_backfill))
        .layer(DefaultBodyLimit::max(admin::BODY_BYTES_MAX));
    let router = Router::new()
        .route("/v1/push/{source}/{table}", post(push))
        .route("/v1/sources", get(sources))
        .route("/v1/watermark", get(watermark))
        .route("/health", get(|| async { "ok" }))
        .layer(DefaultBodyLimit::max(body_bytes_max))
        .merge(letters)
        .with_state(receiver);
    let stopped = async move {
        let _ = shutdown.wait_for(|stop| *stop).await;
    };
    axum::serve(listener, router)
        .with_graceful_shutdown(stopped)
        .await
        .map_err(|error| Error::internal("serve pushes", error))
}

async fn sources(State(receiver): State<Arc<Receiver>>) -> Json<Value> {
    Json(serde_json::to_value(receiver.extract.board.report()).unwrap_or_default())
}

/// How far the log is.
async fn watermark(State(receiver): State<Arc<Receiver>>) -> Result<Json<Value>, Refusal> {
    let extract = receiver.extract.clone();
    let asked = tokio::task::spawn_blocking(move || extract.watermark()).await;
    let asked = asked.map_err(|error| internal(Error::internal("ask the log", error)))?;
    let watermark = asked.map_err(|error| {
        tracing::warn!(error = %error.chain(), "the log did not say how far it is");
        Refusal(StatusCode::SERVICE_UNAVAILABLE, "the log does not answer; ask again".into())
    })?;
    Ok(Json(json!({ "watermark": watermark.to_string() })))
}

async fn push(
    State(receiver): State<Arc<Receiver>>,
    Path((source, table)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    // Only names that the settings hold may label a metric or a span.
    let known = receiver.extract.sources().iter().find(|known| known.id == source);
    let is_known = known.is_some_and(|known| known.pipelines.iter().any(|pipeline| pipeline.table.name == table));
    let names = is_known.then_some((source.as_str(), table.as_str()));
    let (span_source, span_table) = names.unwrap_or_default();
    let span = metrics::span("push", span_source, span_table);
    let kept = keep(&receiver, (&source, &table), &headers, &body).instrument(span.clone()).await;
    let (response, sent, failed) = match kept {
        Ok((sent, watermark)) => {
            let watermark = watermark.to_string();
            let answer = json!({ "accepted": sent.records, "rejected": sent.letters, "watermark": watermark });
            (Json(answer).into_response(), sent, None)
        }
        Err(refusal) => {
            let failed = if refusal.0.is_server_error() { ErrorKind::Log } else { ErrorKind::Source };
            (refusal.into_response(), Sent::default(), Some(failed))
        }
    };
    metrics::end_span(&span, sent.records, sent.letters, failed);
    metrics::pushed(names, response.status().as_u16());
    response
}

/// Brings a push to the log: what became of it and where it is, or why nothing was kept.
async fn keep(
    receiver: &Arc<Receiver>,
    (source, table): (&str, &str),
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<(Sent, Watermark), Refusal> {
    let place = find(&receiver.extract, source, table, headers, body)?;
    if receiver.rates.check_key(&source.to_string()).is_err() {
        return Err(Refusal(StatusCode::TOO_MANY_REQUESTS, "too many pushes a second; wait and send again".into()));
    }
    let prepared = &receiver.extract.sources()[place.0];
    let pipeline = &prepared.pipelines[place.1];
    let input = input(&pipeline.table, body, receiver.extract.settings().push_records_max)?;
    let ready = pipeline.prepare(&input, Utc::now()).await.map_err(internal)?;
    let (records, letters, newest) = (ready.records.len(), ready.letters.len(), ready.newest);
    let sent = Sent { records, letters, repeats: 0, newest };
    let extract = receiver.extract.clone();
    let appended = tokio::task::spawn_blocking(move || extract.sources()[place.0].pipelines[place.1].send(&ready));
    let watermark = match appended.await {
        Ok(Ok(watermark)) => watermark,
        Ok(Err(error)) => {
            receiver.extract.board.failed(source, table, &error.chain());
            tracing::warn!(source, table, error = %error.chain(), "a push could not be kept");
            return Err(not_kept(&error));
        }
        Err(error) => return Err(internal(Error::internal("append a push", error))),
    };
    let unknown = prepared.codes_unknown.count();
    receiver.extract.board.succeeded(source, table, sent, unknown, Utc::now());
    Ok((sent, watermark))
}

/// The place of the source and of its table that a push is for, if it may push there. A wrong name and a wrong token look
/// alike.
fn find(
    extract: &Extract,
    source: &str,
    table: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(usize, usize), Refusal> {
    let refused = || Refusal(StatusCode::UNAUTHORIZED, "no such source, or its token or signature is wrong".into());
    let source_at = extract.sources().iter().position(|known| known.id == source).ok_or_else(refused)?;
    let prepared = &extract.sources()[source_at];
    if !is_authentic(&prepared.settings, headers, body) {
        return Err(refused());
    }
    let is_table = |pipeline: &Pipeline| pipeline.table.name == table && prepared.connector.kind == Kind::Webhook;
    let table_at = prepared.pipelines.iter().position(is_table);
    let missing = || Refusal(StatusCode::NOT_FOUND, format!("source `{source}` takes no pushes for `{table}`"));
    Ok((source_at, table_at.ok_or_else(missing)?))
}

fn is_authentic(settings: &SourceSettings, headers: &HeaderMap, body: &[u8]) -> bool {
    let header = |name| headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
    if let Some(secret) = &settings.hmac_secret
        && let Some(signature) = header("x-quad-signature").and_then(|text| text.strip_prefix("sha256="))
    {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).expect("HMAC takes any key");
        mac.update(body);
        return unhex(signature).is_some_and(|bytes| mac.verify_slice(&bytes).is_ok());
    }
    let (Some(token), Some(expected)) = (bearer(headers), &settings.token_sha256) else {
        return false;
    };
    // Both sides are digests: comparing them tells nothing of the token.
    unhex(expected).is_some_and(|expected| expected == Sha256::digest(token.as_bytes()).as_slice())
}

/// The bearer token of a request.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get("authorization")?.to_str().ok()?.strip_prefix("Bearer ")
}

pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.trim().as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// The records of a body, as text columns.
pub(crate) fn input(table: &TableMapping, body: &[u8], records_max: usize) -> Result<RecordBatch, Refusal> {
    let bad = |message: String| Refusal(StatusCode::BAD_REQUEST, message);
    let Spec::Webhook(Table { records: pointer, input }) = &table.spec else {
        return Err(bad("this table is not pushed".into()));
    };
    let body = records::parse(body).map_err(|error| bad(format!("the body is not JSON: {error}")))?;
    let found = body.pointer(pointer).ok_or_else(|| bad(format!("nothing at `{pointer}` in the body")))?;
    let records: &[Value] = match found {
        Value::Array(many) => many,
        one => std::slice::from_ref(one),
    };
    if records.len() > records_max {
        let message = format!("{} records in one push, the most is {records_max}: split it", records.len());
        return Err(Refusal(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    records::batch(records, input).map_err(internal)
}

fn not_kept(error: &Error) -> Refusal {
    let topic = error.source.as_deref().and_then(|source| source.downcast_ref::<topic::Error>());
    match (topic.map(|error| &error.kind), error.kind) {
        (Some(topic::ErrorKind::TooLarge), _) => {
            Refusal(StatusCode::PAYLOAD_TOO_LARGE, "a record is larger than the log takes".into())
        }
        (_, ErrorKind::Log) => Refusal(StatusCode::SERVICE_UNAVAILABLE, "the log does not answer; send again".into()),
        _ => Refusal(StatusCode::INTERNAL_SERVER_ERROR, "the push could not be kept; send again".into()),
    }
}

fn internal(error: Error) -> Refusal {
    tracing::error!(error = %error.chain(), "a push could not be read");
    Refusal(StatusCode::INTERNAL_SERVER_ERROR, "the push could not be read; the log of Quad says why".into())
}
