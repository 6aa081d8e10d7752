//! Stopping a question: the client sends a cancel request, or is gone. A connection's signals enter, an error leaves.

use std::sync::Arc;

use datafusion_postgres::pgwire::api::{ClientInfo, ConnectionGuard, ConnectionHandle, ConnectionManager};
use futures::channel::oneshot;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::error::{Error, ErrorKind};

/// Tells when the client has closed its side. While a question runs nobody reads the socket, so nobody else would notice.
#[derive(Debug, Clone)]
pub struct Gone(watch::Receiver<bool>);

impl Gone {
    /// Watches a second handle of the socket, until all receivers are dropped.
    pub fn watch(socket: &TcpStream) -> Self {
        let (sender, receiver) = watch::channel(false);
        match second_handle(socket) {
            Ok(socket) => {
                tokio::spawn(async move {
                    tokio::select! {
                        () = closed(&socket) => { sender.send_replace(true); }
                        () = sender.closed() => {}
                    }
                });
            }
            Err(error) => tracing::debug!(%error, "could not watch a connection; a question outlives its client"),
        }
        Self(receiver)
    }

    async fn wait(&mut self) {
        if self.0.wait_for(|gone| *gone).await.is_err() {
            std::future::pending().await
        }
    }
}

fn second_handle(socket: &TcpStream) -> std::io::Result<TcpStream> {
    use std::os::fd::AsFd as _;
    TcpStream::from_std(socket.as_fd().try_clone_to_owned()?.into())
}

async fn closed(socket: &TcpStream) {
    loop {
        match socket.ready(Interest::READABLE).await {
            Ok(ready) if !ready.is_read_closed() => {
                // Bytes are there, but not for us: wait for the next change.
                let _ = socket.try_io(Interest::READABLE, || Err::<(), _>(std::io::ErrorKind::WouldBlock.into()));
            }
            // Closed, or past watching.
            _ => return,
        }
    }
}

/// The cancel key of a connection, kept with its session.
struct Cancel(
    Arc<ConnectionHandle>,
    #[allow(dead_code, reason = "dropped with the connection, and that is its use")] ConnectionGuard,
);

/// Lets cancel requests reach this connection from now on.
pub fn register<C: ClientInfo>(client: &C, manager: &Arc<ConnectionManager>) {
    let (pid, secret) = client.pid_and_secret_key();
    let (handle, guard) = manager.register(pid, secret);
    client.session_extensions().insert(Cancel(handle, guard));
}

/// What can stop one question.
pub struct Interrupt {
    canceled: Option<oneshot::Receiver<()>>,
    gone: Gone,
}

impl Interrupt {
    /// For the question that begins now; cancel requests before it no longer count.
    pub async fn new<C: ClientInfo>(client: &C, gone: &Gone) -> Self {
        let cancel = client.session_extensions().get::<Cancel>();
        let canceled = match cancel {
            Some(cancel) => Some(cancel.0.start_query().await),
            None => None,
        };
        Self { canceled, gone: gone.clone() }
    }

    /// Waits until the question must stop.
    pub async fn wait(&mut self) -> Error {
        let canceled = async {
            match &mut self.canceled {
                Some(canceled) => {
                    if canceled.await.is_err() {
                        // Replaced by the next question's: it will never come.
                        std::future::pending().await
                    }
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = canceled => Error::new(ErrorKind::Canceled, "canceling statement due to user request"),
            () = self.gone.wait() => Error::new(ErrorKind::Canceled, "the client has gone"),
        }
    }
}
