//! An open platform: records over HTTP, page by page, as vendors serve them, and as they fail.
//!
//! Records enter, answers leave at `/v1/<collection>`, by GET or POST: pages by number (`page`), after the last id (`after`),
//! or by an opaque token (`cursor`), all or those changed `since` and `until`; behind OAuth 2 client credentials (`/oauth/token`) when it
//! is told so. A fault that was asked for befalls the next request for records, once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use base64::Engine;
use base64::prelude::BASE64_STANDARD as STANDARD;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What can go wrong with one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This status, with `Retry-After` in seconds.
    Status(u16, Option<u64>),
    /// The connection ends in the middle of the body.
    HalfAnswer,
    /// A whole answer whose JSON does not end.
    HalfJson,
    /// No answer for this many milliseconds.
    Hangs(u64),
    /// The first page, whichever was asked for.
    FirstPage,
    /// The token that was asked with comes back as the next one.
    SameToken,
    /// A page of login instead of records.
    LoginPage,
    /// Status 200 and an error inside.
    Refusal,
    /// More bytes than anybody asked for.
    Endless,
    /// The tokens that were given out so far are worth nothing.
    ForgetsTokens,
    /// The records are somewhere else in the answer.
    OtherShape,
}

/// A running platform; it ends with its value.
pub struct Platform {
    state: Arc<Shared>,
    address: String,
    serving: JoinHandle<()>,
}

type Shared = Mutex<Inside>;

#[derive(Default)]
struct Inside {
    /// By collection, in the order of their time of change, then id.
    collections: HashMap<String, Vec<Value>>,
    faults: VecDeque<Fault>,
    /// Every address that was asked for, tokens left out.
    asked: Vec<String>,
    tokens: Vec<String>,
    tokens_given: usize,
    client: Option<(String, String)>,
    page_rows: usize,
}

impl Platform {
    /// Serves on a free port, pages of `page_rows`; with a client, only to its tokens.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(page_rows: usize, client: Option<(&str, &str)>) -> Result<Platform> {
        let client = client.map(|(id, secret)| (id.to_string(), secret.to_string()));
        let state = Arc::new(Mutex::new(Inside { page_rows, client, ..Inside::default() }));
        let listener = TcpListener::bind("127.0.0.1:0").await.context("could not bind a port")?;
        let address = listener.local_addr()?.to_string();
        let router = Router::new()
            .route("/oauth/token", post(token))
            .route("/v1/{collection}", get(records).post(records))
            .with_state(state.clone());
        let serving = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Platform { state, address, serving })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a record with `id` and `changed`, or replaces the one with its id.
    pub fn put(&self, collection: &str, record: Value) {
        let mut inside = self.inside();
        let records = inside.collections.entry(collection.to_string()).or_default();
        records.retain(|known| known["id"] != record["id"]);
        records.push(record);
        let order = |record: &Value| (record["changed"].as_str().map(str::to_string), record["id"].as_u64());
        records.sort_by_key(order);
    }

    /// Takes a record away.
    pub fn delete(&self, collection: &str, id: u64) {
        if let Some(records) = self.inside().collections.get_mut(collection) {
            records.retain(|known| known["id"] != id);
        }
    }

    /// Lets these faults befall the next requests for records, one each.
    pub fn fail(&self, faults: &[Fault]) {
        self.inside().faults.extend(faults);
    }

    /// What was asked since the last call, in order.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.inside().asked)
    }

    /// How many tokens were given out.
    pub fn tokens_given(&self) -> usize {
        self.inside().tokens_given
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn token(
    State(state): State<Arc<Shared>>,
    headers: HeaderMap,
    Form(form): Form<HashMap<String, String>>,
) -> Response {
    let mut inside = state.lock().expect("no holder of this lock panics");
    let Some((id, secret)) = &inside.client else { return StatusCode::NOT_FOUND.into_response() };
    let in_body = form.get("client_id") == Some(id) && form.get("client_secret") == Some(secret);
    let basic = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let in_header = basic.is_some_and(|basic| basic == format!("Basic {}", STANDARD.encode(format!("{id}:{secret}"))));
    if form.get("grant_type").map(String::as_str) != Some("client_credentials") || !(in_body || in_header) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    inside.tokens_given += 1;
    let token = format!("token-{}", inside.tokens_given);
    inside.tokens.push(token.clone());
    Json(json!({ "access_token": token, "token_type": "Bearer", "expires_in": 7200 })).into_response()
}

async fn records(
    State(state): State<Arc<Shared>>,
    Path(collection): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut asked = query;
    if let Ok(Value::Object(fields)) = serde_json::from_slice(&body) {
        let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
        asked.extend(fields.into_iter().map(|(name, value)| (name, text(value))));
    }
    let shown = asked.remove("access_token").or_else(|| {
        let header = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        header.strip_prefix("Bearer ").map(str::to_string)
    });
    let (answer, fault) = {
        let mut inside = state.lock().expect("no holder of this lock panics");
        let mut parameters: Vec<_> = asked.iter().map(|(name, value)| format!("{name}={value}")).collect();
        parameters.sort();
        inside.asked.push(format!("{collection}?{}", parameters.join("&")));
        let fault = inside.faults.pop_front();
        if fault == Some(Fault::ForgetsTokens) {
            inside.tokens.clear();
        }
        if inside.client.is_some() && !shown.is_some_and(|shown| inside.tokens.contains(&shown)) {
            return StatusCode::UNAUTHORIZED.into_response();
        }
        (inside.page(&collection, &asked, fault), fault)
    };
    match fault {
        None | Some(Fault::ForgetsTokens | Fault::FirstPage | Fault::SameToken) => answer.into_response(),
        Some(fault) => failed(fault, answer).await,
    }
}

impl Inside {
    fn page(&self, collection: &str, asked: &HashMap<String, String>, fault: Option<Fault>) -> Json<Value> {
        let number = |name: &str| asked.get(name).and_then(|text| text.parse::<usize>().ok());
        let mut records: Vec<&Value> = self.collections.get(collection).into_iter().flatten().collect();
        if let Some(since) = asked.get("since") {
            records.retain(|record| record["changed"].as_str().is_some_and(|changed| changed >= since.as_str()));
        }
        if let Some(until) = asked.get("until") {
            records.retain(|record| record["changed"].as_str().is_some_and(|changed| changed <= until.as_str()));
        }
        let start = match (number("after"), number("page")) {
            (Some(after), _) => {
                records.sort_by_key(|record| record["id"].as_u64());
                let is_later = |record: &&Value| record["id"].as_u64() > Some(after as u64);
                records.iter().position(is_later).unwrap_or(records.len())
            }
            (None, Some(page)) => page.saturating_sub(1) * self.page_rows,
            (None, None) => asked.get("cursor").and_then(|token| token.strip_prefix("at-")?.parse().ok()).unwrap_or(0),
        };
        let start = if fault == Some(Fault::FirstPage) { 0 } else { start.min(records.len()) };
        let end = (start + self.page_rows).min(records.len());
        let next = match fault {
            Some(Fault::SameToken) => asked.get("cursor").cloned().unwrap_or_default(),
            _ => format!("at-{end}"),
        };
        Json(json!({
            "code": 0, "data": { "list": records[start..end], "more": end < records.len() }, "next": next,
        }))
    }
}

async fn failed(fault: Fault, answer: Json<Value>) -> Response {
    let whole = answer.0.to_string();
    let half = whole[..whole.len() / 2].to_string();
    let as_json = [(header::CONTENT_TYPE, "application/json")];
    match fault {
        Fault::Status(status, after) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let after = after.map(|after| [(header::RETRY_AFTER, after.to_string())]);
            match after {
                Some(after) => (status, after).into_response(),
                None => status.into_response(),
            }
        }
        Fault::HalfAnswer => {
            let broken = std::io::Error::other("the line is cut");
            let parts = [Ok(Bytes::from(half)), Err(broken)];
            (as_json, Body::from_stream(futures::stream::iter(parts))).into_response()
        }
        Fault::HalfJson => (as_json, half).into_response(),
        Fault::Hangs(milliseconds) => {
            let _ = tokio::time::timeout(Duration::from_millis(milliseconds), std::future::pending::<()>()).await;
            answer.into_response()
        }
        Fault::LoginPage => (StatusCode::FOUND, [(header::LOCATION, "/cas/login")]).into_response(),
        Fault::Refusal => Json(json!({ "code": 40001, "data": { "list": [] } })).into_response(),
        Fault::OtherShape => Json(json!({ "code": 0, "result": [] })).into_response(),
        Fault::Endless => {
            let parts = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 1 << 16])));
            (as_json, Body::from_stream(parts)).into_response()
        }
        Fault::FirstPage | Fault::SameToken | Fault::ForgetsTokens => answer.into_response(),
    }
}
