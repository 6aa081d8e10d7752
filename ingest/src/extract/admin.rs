//! What an administrator may do with dead letters, backfills and identity over HTTP, on the listener of the pushes.
//!
//! `POST /v1/backfills` begins one, `GET /v1/backfills` lists them, `POST /v1/backfills/<id>/pause|resume` holds or lets go.
//! `POST /v1/dead-letters/replay` and `POST /v1/dead-letters/discard` take letters as `platform.dead_letter` gives them, with
//! the token of an admin; what became of each leaves. `POST /v1/identity/decisions` takes a decision; its number and place leave. The process that holds the log does it, since it alone may append.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use chrono::Utc;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::backfill::{BackfillRequest, BackfillState};
use super::decisions::{Ruled, Ruling};
use super::webhook::{Receiver, Refusal, bearer, unhex};
use crate::error::{Error, ErrorKind};
use crate::letter::Stored;
use crate::settings::Admins;

/// The largest body: the bytes of letters are as large as records.
pub const BODY_BYTES_MAX: usize = 16 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplayRequest {
    letters: Vec<Stored>,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DiscardRequest {
    letters: Vec<Stored>,
    reason: String,
}

pub(super) async fn replay(
    State(receiver): State<Arc<Receiver>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    let by = admin(&receiver.extract.settings().admins, &headers)?;
    let request: ReplayRequest = read(&body)?;
    let outcomes =
        receiver.extract.replay(request.letters, &by, request.dry_run).await.map_err(|error| failed(&error))?;
    Ok(Json(json!({ "outcomes": outcomes })))
}

pub(super) async fn discard(
    State(receiver): State<Arc<Receiver>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    let by = admin(&receiver.extract.settings().admins, &headers)?;
    let request: DiscardRequest = read(&body)?;
    if request.reason.trim().is_empty() {
        return Err(Refusal(StatusCode::BAD_REQUEST, "a letter is discarded for a reason".into()));
    }
    let outcomes = receiver.extract.discard(request.letters, &by, request.reason.trim()).await;
    Ok(Json(json!({ "outcomes": outcomes.map_err(|error| failed(&error))? })))
}

pub(super) async fn decide(
    State(receiver): State<Arc<Receiver>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Ruled>, Refusal> {
    let by = admin(&receiver.extract.settings().admins, &headers)?;
    let ruling: Ruling = read(&body)?;
    let ruled = receiver.extract.decide(ruling, &by, Utc::now()).await;
    ruled.map(Json).map_err(|error| match error.kind {
        ErrorKind::Settings => Refusal(StatusCode::BAD_REQUEST, error.message),
        _ => {
            tracing::warn!(error = %error.chain(), "a decision could not be kept");
            Refusal(
                StatusCode::SERVICE_UNAVAILABLE,
                "the log does not answer; look whether it is there, or decide again".into(),
            )
        }
    })
}

pub(super) async fn begin_backfill(
    State(receiver): State<Arc<Receiver>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    let by = admin(&receiver.extract.settings().admins, &headers)?;
    let request: BackfillRequest = read(&body)?;
    let begun = receiver.extract.begin_backfill(&request, &by).map_err(|error| refused(&error))?;
    Ok(Json(json!({ "backfills": begun })))
}

pub(super) async fn backfills(
    State(receiver): State<Arc<Receiver>>,
    headers: HeaderMap,
) -> Result<Json<Value>, Refusal> {
    admin(&receiver.extract.settings().admins, &headers)?;
    Ok(Json(json!({ "backfills": receiver.extract.backfills().map_err(|error| refused(&error))? })))
}

pub(super) async fn set_backfill(
    State(receiver): State<Arc<Receiver>>,
    Path((id, verb)): Path<(u64, String)>,
    headers: HeaderMap,
) -> Result<Json<Value>, Refusal> {
    admin(&receiver.extract.settings().admins, &headers)?;
    let state = match verb.as_str() {
        "pause" => BackfillState::Paused,
        "resume" => BackfillState::Running,
        _ => return Err(Refusal(StatusCode::NOT_FOUND, "a backfill is paused or resumed".into())),
    };
    let changed = receiver.extract.set_backfill(id, state).map_err(|error| refused(&error))?;
    Ok(Json(json!({ "backfills": [changed] })))
}

/// What was asked for cannot be done, and why.
fn refused(error: &Error) -> Refusal {
    match error.kind {
        ErrorKind::Settings => Refusal(StatusCode::BAD_REQUEST, error.message.clone()),
        _ => {
            tracing::error!(error = %error.chain(), "a backfill could not be kept");
            Refusal(StatusCode::INTERNAL_SERVER_ERROR, "the disk does not answer; the log of Quad says why".into())
        }
    }
}

/// The name of the admin who asks.
fn admin(admins: &Admins, headers: &HeaderMap) -> Result<String, Refusal> {
    if admins.everyone {
        return Ok("anonymous".to_string());
    }
    let digest = bearer(headers).map(|token| Sha256::digest(token.as_bytes()));
    // Every token is compared, and both sides are digests: the time tells nothing of a token.
    let mut found = None;
    for (name, expected) in &admins.tokens {
        if digest.is_some_and(|digest| unhex(expected).as_deref() == Some(digest.as_slice())) {
            found = Some(name.clone());
        }
    }
    let message = "dead letters, backfills and identity are for the token of an admin; see [access]";
    found.ok_or_else(|| Refusal(StatusCode::UNAUTHORIZED, message.into()))
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal(StatusCode::BAD_REQUEST, format!("the body is not what this takes: {error}")))
}

fn failed(error: &Error) -> Refusal {
    tracing::warn!(error = %error.chain(), "dead letters could not be dealt with");
    match error.kind {
        ErrorKind::Log | ErrorKind::Lake => {
            let message = "the log or the lake does not answer; try again: what went through is recognised";
            Refusal(StatusCode::SERVICE_UNAVAILABLE, message.into())
        }
        _ => {
            Refusal(StatusCode::INTERNAL_SERVER_ERROR, "the letters could not be read; the log of Quad says why".into())
        }
    }
}
