//! The PostgreSQL wire. Connections enter; each is authenticated, asks, and is answered row by row.
//!
//! `startup` asks for the token, `question` parses and runs what comes, `interrupt` stops it when the client cancels or
//! goes away. `SET` and `SHOW` of what clients expect are answered, transactions are accepted and mean nothing.

mod interrupt;
mod question;
mod startup;
mod tls;

use std::sync::Arc;

use datafusion_postgres::pgwire::api::auth::StartupHandler;
use datafusion_postgres::pgwire::api::cancel::{CancelHandler, DefaultCancelHandler};
use datafusion_postgres::pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use datafusion_postgres::pgwire::api::{ConnectionManager, PgWireServerHandlers};
use datafusion_postgres::pgwire::tokio::{TlsAcceptor, process_socket};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use self::interrupt::Gone;
use self::question::Questions;
use self::startup::Startup;
pub use self::tls::choose_crypto;
use crate::access::Access;
use crate::engine::Engine;
use crate::error::Error;
use crate::settings::{Settings, TlsSettings};

/// The door, before it opens.
pub struct Postgres {
    engine: Arc<Engine>,
    access: Arc<Access>,
    connections_max: usize,
    tls: Option<TlsAcceptor>,
}

impl Postgres {
    /// # Errors
    /// TLS files that cannot be used.
    pub fn new(settings: &Settings, engine: Arc<Engine>, access: Arc<Access>) -> Result<Self, Error> {
        let tls = settings.tls.as_ref().map(|files: &TlsSettings| tls::acceptor(files)).transpose()?;
        Ok(Self { engine, access, connections_max: settings.connections_max, tls })
    }

    /// Serves until `shutdown` is true; then no connection is accepted any more, and those that are idle are closed.
    pub async fn serve(self, listener: TcpListener, mut shutdown: watch::Receiver<bool>) {
        let places = Arc::new(Semaphore::new(self.connections_max));
        let manager = Arc::new(ConnectionManager::new());
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = shutdown.wait_for(|shutdown| *shutdown) => break,
                Some(_) = connections.join_next() => continue,
            };
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file handles, most likely: others must close before another try makes sense.
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                tracing::warn!(%peer, connections_max = self.connections_max, "refused a connection: all places are taken");
                continue;
            };
            let connection = self.connection(socket, manager.clone());
            let mut shutdown = shutdown.clone();
            connections.spawn(async move {
                let _place = place;
                tokio::select! {
                    () = connection => {}
                    _ = shutdown.wait_for(|shutdown| *shutdown) => {}
                }
            });
        }
        while connections.join_next().await.is_some() {}
    }

    fn connection(&self, socket: TcpStream, manager: Arc<ConnectionManager>) -> impl Future<Output = ()> + use<> {
        let gone = Gone::watch(&socket);
        let handlers = Handlers {
            startup: Arc::new(Startup::new(self.access.clone(), manager.clone())),
            questions: Arc::new(Questions::new(self.engine.clone(), gone)),
            cancel: Arc::new(DefaultCancelHandler::new(manager)),
        };
        let tls = self.tls.clone();
        async move {
            if let Err(error) = process_socket(socket, tls, Arc::new(handlers)).await {
                tracing::debug!(%error, "a connection broke");
            }
        }
    }
}

/// What one connection is served by.
struct Handlers {
    startup: Arc<Startup>,
    questions: Arc<Questions>,
    cancel: Arc<DefaultCancelHandler>,
}

impl PgWireServerHandlers for Handlers {
    fn simple_query_handler(&self) -> Arc<impl SimpleQueryHandler> {
        self.questions.clone()
    }

    fn extended_query_handler(&self) -> Arc<impl ExtendedQueryHandler> {
        self.questions.clone()
    }

    fn startup_handler(&self) -> Arc<impl StartupHandler> {
        self.startup.clone()
    }

    fn cancel_handler(&self) -> Arc<impl CancelHandler> {
        self.cancel.clone()
    }
}
