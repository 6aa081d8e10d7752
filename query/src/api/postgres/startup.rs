//! Who connects. The user is a token's name, the password the token; a principal leaves, kept with the session.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion_postgres::pgwire::api::auth::{
    DefaultServerParameterProvider, StartupHandler, finish_authentication, protocol_negotiation,
    save_startup_parameters_to_metadata,
};
use datafusion_postgres::pgwire::api::{
    ClientInfo, ConnectionManager, METADATA_USER, PgWireConnectionState, PidSecretKeyGenerator,
    RandomPidSecretKeyGenerator,
};
use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::startup::Authentication;
use datafusion_postgres::pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use futures::{Sink, SinkExt as _};

use super::interrupt;
use crate::access::{Access, Principal};
use crate::error::ErrorKind;
use crate::metrics;
use crate::policy::{self, Door};

/// Authenticates one connection.
pub struct Startup {
    access: Arc<Access>,
    manager: Arc<ConnectionManager>,
    keys: RandomPidSecretKeyGenerator,
}

impl Startup {
    pub fn new(access: Arc<Access>, manager: Arc<ConnectionManager>) -> Self {
        Self { access, manager, keys: RandomPidSecretKeyGenerator::default() }
    }

    async fn admit<C>(&self, client: &mut C, principal: Option<Principal>) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let user = client.metadata().get(METADATA_USER).cloned().unwrap_or_default();
        let Some(principal) = principal else {
            metrics::refused(Door::Postgres, ErrorKind::Unauthenticated);
            tracing::warn!(target: "quad::audit", door = "postgres", peer = %client.socket_addr(), "refused a wrong token");
            let mut info = ErrorInfo::new(
                "FATAL".to_string(),
                "28P01".to_string(),
                format!("password authentication failed for user \"{user}\""),
            );
            info.hint = Some("the user is the name of a token, the password the token; see `quad token`".to_string());
            return Err(PgWireError::UserError(Box::new(info)));
        };
        if let Err(error) = policy::enter(&principal, Door::Postgres) {
            metrics::refused(Door::Postgres, error.kind);
            let mut info = ErrorInfo::new("FATAL".to_string(), "42501".to_string(), error.message);
            info.hint = error.hint;
            return Err(PgWireError::UserError(Box::new(info)));
        }
        client.session_extensions().insert(principal);
        let (pid, secret) = self.keys.generate(client);
        client.set_pid_and_secret_key(pid, secret);
        interrupt::register(client, &self.manager);
        finish_authentication(client, &parameters()).await
    }
}

#[async_trait]
impl StartupHandler for Startup {
    async fn on_startup<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        match message {
            PgWireFrontendMessage::Startup(startup) => {
                protocol_negotiation(client, &startup).await?;
                save_startup_parameters_to_metadata(client, &startup);
                client.set_state(PgWireConnectionState::AuthenticationInProgress);
                if !self.access.is_enabled() {
                    let principal = self.access.authenticate(None);
                    return self.admit(client, principal).await;
                }
                client.send(PgWireBackendMessage::Authentication(Authentication::CleartextPassword)).await?;
                Ok(())
            }
            PgWireFrontendMessage::PasswordMessageFamily(password) => {
                let password = password.into_password()?;
                let user = client.metadata().get(METADATA_USER).cloned().unwrap_or_default();
                let principal = self.access.authenticate_named(&user, &password.password);
                self.admit(client, principal).await
            }
            _ => Ok(()),
        }
    }
}

/// What clients are told at the start.
fn parameters() -> DefaultServerParameterProvider {
    let mut parameters = DefaultServerParameterProvider::default();
    parameters.server_version = format!("16.6 (quad {})", env!("CARGO_PKG_VERSION"));
    parameters.default_transaction_read_only = true;
    parameters.is_superuser = false;
    parameters
}
