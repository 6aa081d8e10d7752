//! Traces for an OpenTelemetry collector: spans of the target `quad::trace` enter, OTLP over HTTP leaves, in its JSON form
//! (<https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>).
//!
//! A span is handed over without waiting; with a collector that is slow or gone, spans are dropped, and nothing else notices.
//! Written here: the SDK would bring eight crates and a thread, and build the query engine anew, for a few kinds of span.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// The target of spans that are sent; all others are for no one.
const TARGET: &str = "quad::trace";
/// Spans that wait to be sent; beyond, they are dropped.
const SPANS_WAITING_MAX: usize = 4096;
/// Spans of one request, and how long the first of them waits for others.
const SPANS_SENT_MAX: usize = 512;
const SEND_EVERY: Duration = Duration::from_secs(2);
/// The longest that the collector may take to answer.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest that a stop waits for the last spans.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

enum Message {
    Span(Span),
    Flush(oneshot::Sender<()>),
}

/// A span on its way.
#[derive(Debug, Clone)]
struct Span {
    trace_id: u128,
    span_id: u64,
    parent_id: Option<u64>,
    is_sampled: bool,
    name: String,
    started: SystemTime,
    ended: SystemTime,
    attributes: Vec<(&'static str, Value)>,
    is_error: bool,
}

/// The layer that collects spans.
pub struct Collect {
    ratio: f64,
    spans: mpsc::Sender<Message>,
    dropped: Arc<AtomicU64>,
}

/// What sends them, on the runtime of the service.
pub struct Exporter {
    endpoint: Uri,
    spans: mpsc::Receiver<Message>,
    flush: Flush,
    dropped: Arc<AtomicU64>,
}

/// Sends at once what has been collected.
#[derive(Clone)]
pub struct Flush(mpsc::Sender<Message>);

/// A layer and its exporter. `endpoint` is the base URL of a collector; `ratio` is the share of traces that is sent, 0 to 1.
pub fn collect(endpoint: Uri, ratio: f64) -> (Collect, Exporter) {
    let (sender, spans) = mpsc::channel(SPANS_WAITING_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    let collect = Collect { ratio, spans: sender.clone(), dropped: dropped.clone() };
    (collect, Exporter { endpoint, spans, flush: Flush(sender), dropped })
}

/// Whether a span is one of ours: nothing else reaches [`Collect`].
pub fn is_traced(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target() == TARGET
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Collect {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id) else { return };
        let parent = span.parent().and_then(|parent| parent.extensions().get::<Span>().cloned());
        let (trace_id, is_sampled) = match &parent {
            Some(parent) => (parent.trace_id, parent.is_sampled),
            None => (fastrand::u128(1..), fastrand::f64() < self.ratio),
        };
        let mut begun = Span {
            trace_id,
            span_id: fastrand::u64(1..),
            parent_id: parent.map(|parent| parent.span_id),
            is_sampled,
            name: attributes.metadata().name().to_string(),
            started: SystemTime::now(),
            ended: UNIX_EPOCH,
            attributes: Vec::new(),
            is_error: false,
        };
        attributes.record(&mut begun);
        span.extensions_mut().insert(begun);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id) else { return };
        if let Some(begun) = span.extensions_mut().get_mut::<Span>() {
            values.record(begun);
        }
    }

    fn on_close(&self, id: Id, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(&id) else { return };
        let Some(mut ended) = span.extensions_mut().remove::<Span>().filter(|span| span.is_sampled) else { return };
        ended.ended = SystemTime::now();
        if self.spans.try_send(Message::Span(ended)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Span {
    fn set(&mut self, field: &Field, text: Option<&str>, value: Value) {
        match (field.name(), text) {
            ("otel.name", Some(name)) => self.name = name.to_string(),
            (name, text) => {
                self.is_error |= name == "outcome" && text != Some("ok");
                self.attributes.push((name, value));
            }
        }
    }

    fn json(&self) -> Value {
        let nanoseconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string();
        let attributes = self.attributes.iter().map(|(key, value)| json!({ "key": key, "value": value }));
        json!({
            "traceId": format!("{:032x}", self.trace_id),
            "spanId": format!("{:016x}", self.span_id),
            "parentSpanId": self.parent_id.map(|id| format!("{id:016x}")).unwrap_or_default(),
            "name": self.name,
            "kind": 1,
            "startTimeUnixNano": nanoseconds(self.started),
            "endTimeUnixNano": nanoseconds(self.ended),
            "attributes": attributes.collect::<Vec<_>>(),
            "status": { "code": if self.is_error { 2 } else { 0 } },
        })
    }
}

impl Visit for Span {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, Some(value), json!({ "stringValue": value }));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, None, json!({ "boolValue": value }));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, None, json!({ "doubleValue": value }));
    }

    // 64 bits are text in this form, for JSON has no integers of that size.
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, None, json!({ "intValue": value.to_string() }));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, None, json!({ "intValue": value.to_string() }));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

impl Flush {
    /// Waits until everything so far was sent or given up.
    pub async fn run(&self) {
        let (done, is_done) = oneshot::channel();
        let flushed = async {
            if self.0.send(Message::Flush(done)).await.is_ok() {
                let _ = is_done.await;
            }
        };
        let _ = timeout(FLUSH_TIMEOUT, flushed).await;
    }
}

impl Exporter {
    pub fn flush(&self) -> Flush {
        self.flush.clone()
    }

    /// Sends batches for ever.
    pub async fn run(mut self) {
        let mut is_failing = false;
        while let Some(first) = self.spans.recv().await {
            let (spans, flushed) = self.batch(first).await;
            if !spans.is_empty() {
                let sent = timeout(SEND_TIMEOUT, post(&self.endpoint, &spans)).await;
                self.note(sent.context("no answer in time").flatten(), spans.len(), &mut is_failing);
            }
            if let Some(flushed) = flushed {
                let _ = flushed.send(());
            }
        }
    }

    /// What comes within a moment of the first, and who waits for it to be sent.
    async fn batch(&mut self, first: Message) -> (Vec<Span>, Option<oneshot::Sender<()>>) {
        let mut spans = Vec::new();
        let mut next = Some(first);
        let due = Instant::now() + SEND_EVERY;
        loop {
            match next {
                Some(Message::Span(span)) => spans.push(span),
                Some(Message::Flush(flushed)) => return (spans, Some(flushed)),
                None => return (spans, None),
            }
            if spans.len() == SPANS_SENT_MAX {
                return (spans, None);
            }
            next = timeout_at(due, self.spans.recv()).await.ok().flatten();
        }
    }

    /// Says when sending begins to fail and when it works again, and is silent in between.
    fn note(&self, sent: Result<()>, spans: usize, is_failing: &mut bool) {
        match sent {
            Ok(()) if *is_failing => {
                *is_failing = false;
                let dropped = self.dropped.swap(0, Ordering::Relaxed);
                tracing::info!(endpoint = %self.endpoint, dropped, "traces are sent again");
            }
            Ok(()) => {}
            Err(error) => {
                self.dropped.fetch_add(spans as u64, Ordering::Relaxed);
                if !std::mem::replace(is_failing, true) {
                    let error = format!("{error:#}");
                    tracing::warn!(endpoint = %self.endpoint, error, "could not send traces, dropping them");
                }
            }
        }
    }
}

/// Posts spans to `<endpoint>/v1/traces`, on a connection of their own.
async fn post(endpoint: &Uri, spans: &[Span]) -> Result<()> {
    let scope = json!({ "name": "quad", "version": env!("CARGO_PKG_VERSION") });
    let resource = json!({ "attributes": [{ "key": "service.name", "value": { "stringValue": "quad" } }] });
    let spans: Vec<Value> = spans.iter().map(Span::json).collect();
    let body = json!({
        "resourceSpans": [{ "resource": resource, "scopeSpans": [{ "scope": scope, "spans": spans }] }],
    });
    let authority = endpoint.authority().context("the endpoint names no host")?;
    let stream = TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::post(format!("{}/v1/traces", endpoint.path().trim_end_matches('/')))
        .header(header::HOST, authority.as_str())
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body.to_string())))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    response.into_body().collect().await?;
    connection.abort();
    if !status.is_success() {
        bail!("the collector answered {status}");
    }
    Ok(())
}
