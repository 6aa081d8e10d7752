//! A session at a broker: connected, subscribed, and read until it ends.
//!
//! Settings enter; messages leave in the order they came, and acknowledgements go back. A task of its own keeps the
//! connection alive between pulls; unacknowledged messages are bounded by a window that the broker keeps to. The first error
//! ends a session, and the next one goes on where the log is: the broker gives again what was not acknowledged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use rumqttc::tokio_rustls::rustls::ClientConfig;
use rumqttc::tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectReturnCode, DisconnectReasonCode, Filter, Packet, RetainForwardRule, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError};
use rumqttc::{Outgoing, TlsConfiguration, Transport};
use rustls_platform_verifier::BuilderVerifierExt;
use schemas::Sensitive;
use tokio::sync::mpsc;
use url::Url;

use super::Table;
use super::messages::{Message, Messages};
use crate::connector::TableMapping;
use crate::error::Error;
use crate::extract::source::Worker;
use crate::settings::SourceSettings;

/// The most messages that a session holds unacknowledged: MQTT's receive maximum.
pub(super) const WINDOW: u16 = 256;
/// The largest message: with the window, 256 MiB a table at the very most. A broker does not send larger ones.
const MESSAGE_BYTES_MAX: u32 = 1 << 20;
/// How long a broker keeps a session whose client is away.
const SESSION_EXPIRY_S: u32 = 7 * 24 * 3600;
/// Messages do not wait longer for others to share their batch.
const BATCH_AGE_MAX: Duration = Duration::from_secs(1);
/// The longest that connecting and subscribing may take.
const OPEN_MAX: Duration = Duration::from_secs(15);
/// Room for the acknowledgements that are on their way: packets are numbered in 16 bits.
const ACKNOWLEDGEMENTS_MAX: usize = 1 << 16;

/// What comes from a broker.
enum Given {
    Message(Message),
    /// The answer to the subscription: why each topic filter was refused, or `None` for one that was not.
    Answer(Vec<Option<String>>),
    /// Nothing more comes.
    End(ConnectionError),
}

/// Where the broker is, and who asks.
pub(super) struct Broker {
    host: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
    user: Option<String>,
    password: Option<Sensitive<String>>,
}

impl Broker {
    pub(super) fn new(settings: &SourceSettings) -> Result<Self, Error> {
        let url = Url::parse(settings.connection.as_deref().unwrap_or_default()).ok();
        let scheme = |url: &Url| match url.scheme() {
            "mqtt" => Some((1883, false)),
            "mqtts" => Some((8883, true)),
            _ => None,
        };
        let known = url.as_ref().and_then(|url| Some((url, url.host_str()?, scheme(url)?)));
        let Some((url, host, (port, is_tls))) = known else {
            return Err(Error::settings("`connection` is no address such as mqtts://mqtt.example.edu.cn:8883"));
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::settings("`connection` holds a user or a password: set `user` and `password` instead"));
        }
        if settings.password.is_some() && settings.user.is_none() {
            return Err(Error::settings("a password without a user: set `user`"));
        }
        let (host, port) = (host.to_string(), url.port().unwrap_or(port));
        let tls = if is_tls { Some(Arc::new(tls()?)) } else { None };
        Ok(Self { host, port, tls, user: settings.user.clone(), password: settings.password.clone() })
    }

    /// How to connect for `table`: to its lasting session, or without a source to one that ends with the connection.
    fn options(&self, source: Option<&str>, table: &str) -> MqttOptions {
        let id = source.map(|source| format!("quad-{source}-{table}"));
        let mut options = MqttOptions::new(id.unwrap_or_default(), &self.host, self.port);
        options.set_clean_start(source.is_none());
        options.set_session_expiry_interval(source.map(|_| SESSION_EXPIRY_S));
        options.set_receive_maximum(Some(WINDOW));
        options.set_max_packet_size(Some(MESSAGE_BYTES_MAX));
        options.set_manual_acks(true);
        // Nothing is published; the client sets aside memory for what may be.
        options.set_outgoing_inflight_upper_limit(1);
        if let Some(user) = &self.user {
            let password = self.password.as_ref().map(|password| password.expose().clone());
            options.set_credentials(user, password.unwrap_or_default());
        }
        if let Some(tls) = &self.tls {
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls.clone())));
        }
        options
    }

    fn silent(&self) -> Error {
        Error::source(format!("the broker {}:{} does not answer", self.host, self.port))
    }

    /// What went wrong, and what to do about it.
    fn error(&self, error: ConnectionError) -> Error {
        let what = match &error {
            ConnectionError::ConnectionRefused(
                ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized,
            ) => "refuses user and password: check `user` and the password of the source".to_string(),
            ConnectionError::ConnectionRefused(
                ConnectReturnCode::UnsupportedProtocolVersion | ConnectReturnCode::RefusedProtocolVersion,
            ) => "does not speak MQTT 5: switch it on there".to_string(),
            ConnectionError::ConnectionRefused(code) => format!("refuses the connection: {code:?}"),
            ConnectionError::Timeout(_) => "does not answer in time".to_string(),
            ConnectionError::MqttState(StateError::ServerDisconnect {
                reason_code: DisconnectReasonCode::SessionTakenOver,
                ..
            }) => "gave the session to another client of the same name: is there another Quad with this source?"
                .to_string(),
            other => format!("is not there or has ended the connection: {other}"),
        };
        Error::source(format!("the broker {}:{} {what}", self.host, self.port))
    }
}

/// TLS that trusts what the machine trusts, as every other client here.
fn tls() -> Result<ClientConfig, Error> {
    let provider = CryptoProvider::get_default().cloned();
    let provider = provider.unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider()));
    let made = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_platform_verifier());
    let made = made.map_err(|error| Error::settings(format!("could not read the machine's certificates: {error}")))?;
    Ok(made.with_no_client_auth())
}

/// One table's session.
pub(super) struct Session {
    client: AsyncClient,
    given: mpsc::Receiver<Given>,
    is_subscribed: bool,
    topics: Vec<String>,
    broker: Arc<Broker>,
}

impl Session {
    /// Begins to connect and to subscribe. Whoever pulls comes to the session that the broker keeps for it.
    ///
    /// # Errors
    /// `Settings` when the table is none of this kind.
    pub(super) fn open(broker: &Arc<Broker>, table: &TableMapping, worker: &Worker) -> Result<Self, Error> {
        let topics = Table::of(table)?.topics.clone();
        let options = broker.options(worker.source.as_deref(), &table.name);
        let (client, events) = AsyncClient::new(options, ACKNOWLEDGEMENTS_MAX);
        let filter = |path: &String| Filter {
            // What a broker has retained is given once, when it is first asked.
            retain_forward_rule: RetainForwardRule::OnNewSubscribe,
            ..Filter::new(path, QoS::AtLeastOnce)
        };
        client
            .try_subscribe_many(topics.iter().map(filter))
            .map_err(|error| Error::internal("ask for a subscription", error))?;
        let (give, given) = mpsc::channel(usize::from(WINDOW));
        // Inside the runtime, which `spawn` needs.
        worker.block_on(async {
            tokio::spawn(run(events, give));
        })?;
        Ok(Self { client, given, is_subscribed: false, topics, broker: broker.clone() })
    }

    /// Adds what comes until `messages` are full or old enough; whether nothing more came for `quiet`.
    ///
    /// # Errors
    /// `Source` when the broker refuses or the session has ended; what came before was added.
    pub(super) async fn gather(&mut self, messages: &mut Messages<'_>, quiet: Duration) -> Result<bool, Error> {
        let until = Instant::now() + BATCH_AGE_MAX;
        while !messages.is_full() && (messages.is_empty() || Instant::now() < until) {
            // What was given before is given again before the answer to the subscription.
            let wait = if self.is_subscribed { quiet } else { OPEN_MAX };
            match tokio::time::timeout(wait, self.given.recv()).await {
                Ok(Some(Given::Message(message))) => messages.push(message),
                Ok(Some(Given::Answer(refused))) => self.check(&refused)?,
                Ok(Some(Given::End(error))) => return Err(self.broker.error(error)),
                Err(_) if self.is_subscribed => return Ok(true),
                Ok(None) | Err(_) => return Err(self.broker.silent()),
            }
        }
        Ok(false)
    }

    /// Whether every topic filter may be read.
    fn check(&mut self, refused: &[Option<String>]) -> Result<(), Error> {
        let refused = refused.iter().zip(&self.topics).find_map(|(why, topic)| Some((why.as_ref()?, topic)));
        let (host, port) = (&self.broker.host, self.broker.port);
        self.is_subscribed = refused.is_none();
        match refused {
            None => Ok(()),
            Some((why, topic)) => Err(Error::source(format!(
                "the broker {host}:{port} refuses the topics `{topic}`: {why}; let this user read them there"
            ))),
        }
    }

    /// Tells the broker that the log has them.
    ///
    /// # Errors
    /// `Source` when that cannot be told: they come again.
    pub(super) fn acknowledge(&self, messages: &Messages<'_>) -> Result<(), Error> {
        let tell = |publish| self.client.try_ack(publish).map_err(|_| self.broker.silent());
        messages.unacknowledged.iter().try_for_each(tell)
    }
}

impl Drop for Session {
    /// Says goodbye behind the acknowledgements; if that does not get through, the broker notices by itself.
    fn drop(&mut self) {
        let _ = self.client.try_disconnect();
    }
}

/// Reads until the connection ends. What comes waits here for room, and with it the connection: a broker that does not
/// keep to the window, or messages of QoS 0, which no window bounds, are bounded by that.
async fn run(mut events: EventLoop, given: mpsc::Sender<Given>) {
    loop {
        let came = match events.poll().await {
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                Given::Message(Message { publish, received_at: Utc::now() })
            }
            Ok(Event::Incoming(Packet::SubAck(answer))) => {
                let refused = |code: &SubscribeReasonCode| match code {
                    SubscribeReasonCode::Success(_) => None,
                    code => Some(format!("{code:?}")),
                };
                Given::Answer(answer.return_codes.iter().map(refused).collect())
            }
            Ok(Event::Outgoing(Outgoing::Disconnect)) => return,
            Ok(_) => continue,
            Err(error) => {
                let _ = given.send(Given::End(error)).await;
                return;
            }
        };
        // Once nobody listens any more, the goodbye is on its way.
        let _ = given.send(came).await;
    }
}
