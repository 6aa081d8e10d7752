//! The gates' side of the webhook: a client that does not give up.
//!
//! Bodies enter; they are delivered in order. A refusal that asks for patience (429, 503) or a broken connection is
//! tried again with growing pauses, as gate platforms do; any other refusal is an error.

use std::time::Duration;

use anyhow::{Result, bail};
use hyper::StatusCode;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::http::Http;
use crate::source::gates::Push;

/// How often one delivery is tried, and the longest pause between two tries: five minutes in all, since a first start makes
/// its topics.
const TRIES_MAX: u32 = 300;
const PAUSE_MS_MAX: u64 = 1_000;

/// A connection to `http://<address>/v1/push/<source>/<table>`.
pub struct Pusher {
    source: String,
    token: String,
    runtime: Runtime,
    http: Http,
    answer: Value,
}

impl Pusher {
    /// `address` is HOST:PORT. Nothing is connected yet.
    ///
    /// # Errors
    /// The runtime cannot start.
    pub fn new(address: &str, source: &str, token: &str) -> Result<Pusher> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Pusher {
            source: source.into(),
            token: token.into(),
            runtime,
            http: Http::new(address),
            answer: Value::Null,
        })
    }

    /// What was answered to the last delivery; null before.
    pub fn answer(&self) -> &Value {
        &self.answer
    }

    /// Delivers one body. Blocks; not to be called from async code.
    ///
    /// # Errors
    /// A refusal that patience does not mend, or too many tries.
    pub fn push(&mut self, push: &Push) -> Result<()> {
        let path = format!("/v1/push/{}/{}", self.source, push.table);
        let mut last = String::new();
        for attempt in 0..TRIES_MAX {
            let answer = self.runtime.block_on(self.http.post_json(&path, &self.token, &push.body));
            match answer {
                Ok((status, answer)) if status.is_success() => {
                    self.answer = serde_json::from_str(&answer)?;
                    return Ok(());
                }
                Ok((StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, answer)) => last = answer,
                Ok((status, answer)) => bail!("the webhook refused a push to {}: {status} {answer}", push.table),
                Err(error) => last = format!("{error:#}"),
            }
            let pause_ms = (20 << attempt.min(6)).min(PAUSE_MS_MAX);
            std::thread::sleep(Duration::from_millis(pause_ms));
        }
        bail!("could not deliver a push to {} in {TRIES_MAX} tries: {last}", push.table)
    }
}
