//! The server: a listener on a loopback port, and each request's way through faults and store.
//!
//! Requests enter; answers leave, or a cut connection. A conditional write is atomic: no other write runs beside it.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::header::{IF_MATCH, IF_NONE_MATCH};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use s3s::Body;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio::sync::RwLock;
use tokio::task::{JoinHandle, JoinSet};

use crate::faults::{Counts, Dice, Fault, Faults};

/// The one account of the server. It guards nothing, so it may be known.
const ACCESS_KEY: &str = "quad-tests";
const SECRET_KEY: &str = "quad-tests-secret";

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// A running server. It ends when dropped, connections and all, like one that is killed.
pub struct Server {
    address: SocketAddr,
    root: PathBuf,
    dice: Arc<Dice>,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Serves the folder `root`, which exists, on a free loopback port.
    ///
    /// # Errors
    /// The folder cannot be used, or no port is free.
    pub async fn start(root: &Path, faults: Faults) -> io::Result<Self> {
        Self::listen(root, faults, 0).await
    }

    /// As [`Server::start`], on this port; 0 is any.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn listen(root: &Path, faults: Faults, port: u16) -> io::Result<Self> {
        let store = FileSystem::new(root).map_err(|error| io::Error::other(format!("{error:?}")))?;
        let mut builder = S3ServiceBuilder::new(store);
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let (address, dice) = (listener.local_addr()?, Arc::new(Dice::new(faults)));
        let state = Arc::new(Front { service: builder.build(), dice: dice.clone(), turn: RwLock::new(()) });
        let accepting = tokio::spawn(accept(listener, state));
        Ok(Self { address, root: root.to_path_buf(), dice, accepting })
    }

    /// `http://127.0.0.1:<port>`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The variables with which a client finds this server and may use it.
    pub fn environment(&self) -> Vec<(String, String)> {
        let endpoint = self.endpoint();
        let pairs = [
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ENDPOINT_URL", &endpoint),
            ("AWS_ALLOW_HTTP", "true"),
        ];
        pairs.map(|(name, value)| (name.to_string(), value.to_string())).to_vec()
    }

    /// Makes a bucket.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn create_bucket(&self, name: &str) -> io::Result<()> {
        std::fs::create_dir_all(self.root.join(name))
    }

    /// From now on these faults, from their seed.
    pub fn set_faults(&self, faults: Faults) {
        self.dice.set(faults);
    }

    /// Faults so far, since the start.
    pub fn counts(&self) -> Counts {
        self.dice.counts()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What all connections share.
struct Front {
    service: S3Service,
    dice: Arc<Dice>,
    turn: RwLock<()>,
}

async fn accept(listener: TcpListener, front: Arc<Front>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((socket, _)) = accepted else { continue };
                let front = front.clone();
                connections.spawn(async move {
                    let answer = service_fn(|request| answer(front.clone(), request));
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), answer).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// An error instead of an answer ends the connection.
async fn answer(front: Arc<Front>, request: Request<Incoming>) -> Result<Response<Body>, AnyError> {
    let is_write = matches!(*request.method(), Method::PUT | Method::POST | Method::DELETE);
    let (fault, delay) = front.dice.draw(request.uri().path(), is_write);
    if fault == Some(Fault::Torn) {
        read_half(request.into_body()).await?;
        front.dice.count(Fault::Torn);
        return Err("torn on purpose".into());
    }
    tokio::time::sleep(delay / 2).await;
    let response = match fault {
        Some(Fault::ErrorBefore) => refusal(503, "SlowDown")?,
        _ => serve(&front, is_write, request).await?,
    };
    // A client that stops waiting here cannot know that its write was done.
    tokio::time::sleep(delay / 2).await;
    match fault {
        Some(Fault::ErrorBefore) => {
            front.dice.count(Fault::ErrorBefore);
            Ok(response)
        }
        // A write that was refused anyway is answered truly.
        Some(fault) if response.status().is_success() => {
            front.dice.count(fault);
            match fault {
                Fault::CutAfter => Err("cut on purpose".into()),
                _ => refusal(500, "InternalError"),
            }
        }
        _ => Ok(response),
    }
}

/// Takes half of a body, and leaves the rest where it is.
async fn read_half(mut body: Incoming) -> Result<(), AnyError> {
    let half = body.size_hint().lower() / 2;
    let mut taken = 0;
    while taken < half
        && let Some(frame) = body.frame().await
    {
        taken += frame?.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(())
}

async fn serve(front: &Front, is_write: bool, request: Request<Incoming>) -> Result<Response<Body>, AnyError> {
    let request = request.map(Body::from);
    let headers = request.headers();
    if headers.contains_key(IF_NONE_MATCH) || headers.contains_key(IF_MATCH) {
        let _alone = front.turn.write().await;
        return Ok(front.service.call(request).await?);
    }
    let _beside = if is_write { Some(front.turn.read().await) } else { None };
    Ok(front.service.call(request).await?)
}

fn refusal(status: u16, code: &str) -> Result<Response<Body>, AnyError> {
    let text = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>on purpose</Message></Error>");
    Ok(Response::builder().status(status).header("content-type", "application/xml").body(Body::from(text))?)
}
