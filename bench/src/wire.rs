//! gRPC as bytes over HTTP/2. Encoded messages enter, encoded answers leave: a client that decodes hundreds of items takes more of a
//! small machine than the server that is to be measured.
//!
//! Protocol: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::{Method, Request};
use prost::Message;
use tokio::net::TcpStream;

/// Calls under way on one connection.
const STREAMS: usize = 8;
/// Before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// No answer waits for room.
const WINDOW: u32 = 32 << 20;

/// Connections to one server.
pub struct Wire {
    connections: Vec<SendRequest<Bytes>>,
    authority: String,
    authorization: String,
}

impl Wire {
    /// As many connections as `concurrency` calls take. Within a runtime, which must outlive them.
    ///
    /// # Errors
    /// Nobody listens at `authority`.
    pub async fn connect(authority: &str, token: &str, concurrency: usize) -> Result<Self> {
        let mut connections = Vec::new();
        for _ in 0..concurrency.div_ceil(STREAMS) {
            let stream = TcpStream::connect(authority).await.with_context(|| format!("no server at {authority}"))?;
            stream.set_nodelay(true)?;
            let mut builder = Builder::new();
            builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
            let (sender, connection) = builder.handshake(stream).await?;
            tokio::spawn(connection);
            connections.push(sender);
        }
        Ok(Self { connections, authority: authority.to_string(), authorization: format!("Bearer {token}") })
    }

    /// The answer to call number `nth` of a method.
    ///
    /// # Errors
    /// The server refuses, or the connection is lost.
    pub async fn call(&self, nth: usize, method: &str, message: &impl Message) -> Result<Bytes> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{}/{method}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", &self.authorization)
            .body(())?;
        let mut frame = vec![0; PREFIX];
        message.encode(&mut frame)?;
        let length = u32::try_from(frame.len() - PREFIX)?;
        frame[1..PREFIX].copy_from_slice(&length.to_be_bytes());
        let mut connection = self.connections[nth % self.connections.len()].clone().ready().await?;
        let (response, mut body) = connection.send_request(request, false)?;
        body.send_data(frame.into(), true)?;
        let (head, mut body) = response.await?.into_parts();
        let mut answer = Vec::new();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            answer.extend_from_slice(&data);
        }
        let trailers = body.trailers().await?.unwrap_or(head.headers);
        let status = trailers.get("grpc-status").context("no gRPC status")?;
        ensure!(status == "0", "{method}: status {status:?}, {:?}", trailers.get("grpc-message"));
        Ok(Bytes::from(answer).split_off(PREFIX))
    }
}
