//! A plain HTTP/1.1 client on one kept connection. A request enters, status and body leave; nothing is tried again here.

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A connection to one address, made with the first request and again after it broke.
pub struct Http {
    address: String,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Http {
    /// `address` is HOST:PORT.
    pub fn new(address: &str) -> Http {
        Http { address: address.to_string(), sender: None }
    }

    /// Gets `path`.
    ///
    /// # Errors
    /// The connection cannot be made or breaks.
    pub async fn get(&mut self, path: &str) -> Result<(StatusCode, String)> {
        self.send(Request::get(path), "").await
    }

    /// Posts JSON with a bearer token.
    ///
    /// # Errors
    /// As [`Http::get`].
    pub async fn post_json(&mut self, path: &str, token: &str, body: &str) -> Result<(StatusCode, String)> {
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {token}"));
        self.send(request, body).await
    }

    async fn send(&mut self, request: hyper::http::request::Builder, body: &str) -> Result<(StatusCode, String)> {
        let request = request.header(header::HOST, &self.address).body(Full::new(Bytes::from(body.to_string())))?;
        let answer = self.exchange(request).await;
        if answer.is_err() {
            self.sender = None;
        }
        answer
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<(StatusCode, String)> {
        if self.sender.as_ref().is_none_or(SendRequest::is_closed) {
            let stream = TcpStream::connect(&self.address).await;
            let stream = stream.with_context(|| format!("could not connect to {}", self.address))?;
            let (fresh, connection) = handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            self.sender = Some(fresh);
        }
        let sender = self.sender.as_mut().expect("a sender was just made");
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}
