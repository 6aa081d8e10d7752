//! Asking the process that holds the log: JSON goes to its HTTP listener with the caller's token, JSON comes back.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// The longest that an answer may take, as to a batch of letters.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Posts `body` to `path` of `address` (HOST:PORT), with `token`.
///
/// # Errors
/// As [`ask`].
pub async fn json(address: &str, path: &str, token: Option<&str>, body: &Value) -> Result<Value> {
    ask(address, path, token, Some(body)).await
}

/// Posts `body` to `path` of `address` (HOST:PORT), with `token`; without a body, gets what is there.
///
/// # Errors
/// Nobody answers there, or the answer is a refusal: its own words.
pub async fn ask(address: &str, path: &str, token: Option<&str>, body: Option<&Value>) -> Result<Value> {
    let exchange = async {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("could not reach {address}; is `quad up` or `quad extract` running there?"))?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(header::HOST, address).header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let response = sender
            .send_request(request.body(Full::new(Bytes::from(body.map(Value::to_string).unwrap_or_default())))?)
            .await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        connection.abort();
        anyhow::Ok((status, body))
    };
    let (status, body) = tokio::time::timeout(TIMEOUT, exchange)
        .await
        .with_context(|| format!("{address} gave no answer within {} s", TIMEOUT.as_secs()))??;
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    if status != StatusCode::OK {
        bail!("{address} refused ({status}): {}", answer["error"].as_str().unwrap_or("no reason given"));
    }
    Ok(answer)
}
