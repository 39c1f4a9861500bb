//! What happens on a connection before MQTT: PROXY header, access rules, TLS handshake, WebSocket request, in this order.
//! Each step has its time; a connection that fails is closed, counted and told at debug level.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use newtmq_base::ListenerId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;

use super::access;
use super::certs::Context;
use super::identity::{self, Nameless};
use super::proxy::{self, ProxyError};
use super::tls;
use super::upgrade::{self, UpgradeError};
use super::ws::Ws;
use super::{Link, tls::Tls};
use crate::config::{AccessRule, Config, Listener, PeerName};
use crate::driver::Accepted;
use crate::reload::{Prepared, Reload};
use crate::rt::{self, Socket};

type Rules = BTreeMap<u16, AccessRule>;

/// How long the HTTP request of a WebSocket client may take.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(15);

/// What a listener does with its connections.
#[derive(Debug)]
pub struct Intake {
    listener: Listener,
    /// Who may connect, which can be changed while it accepts.
    rules: RwLock<Rules>,
    /// The same of connections accepted a second.
    max_conn_rate: AtomicU32,
    id: ListenerId,
    context: Option<Arc<Context>>,
    /// It accepts no more.
    ends: watch::Sender<bool>,
    /// What became of connections.
    pub counters: Counters,
}

/// Why a connection did not come to MQTT.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// An access rule.
    #[error("a rule of access denies {0}")]
    Denied(IpAddr),
    /// No or a wrong PROXY header.
    #[error("PROXY header: {0}")]
    Proxy(ProxyError),
    /// The handshake failed.
    #[error("TLS: {0}")]
    Tls(io::Error),
    /// The certificate gives no User Name.
    #[error(transparent)]
    Nameless(#[from] Nameless),
    /// No WebSocket request.
    #[error("WebSocket: {0}")]
    Upgrade(UpgradeError),
    /// A step took too long.
    #[error("{0} took too long")]
    TimedOut(&'static str),
    /// The operating system's.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Intake {
    /// For a listener; `context` if it has TLS.
    #[must_use]
    pub fn new(listener: Listener, id: ListenerId, context: Option<Arc<Context>>) -> Intake {
        assert_eq!(listener.transport.has_tls(), context.is_some(), "a listener with TLS has certificates");
        let rules = RwLock::new(listener.access.clone());
        let max_conn_rate = AtomicU32::new(listener.max_conn_rate);
        let ends = watch::Sender::new(false);
        Intake { listener, rules, max_conn_rate, id, context, ends, counters: Counters::default() }
    }

    /// Accepts no connection any more; those that are open stay. Says if it did until now.
    pub fn end(&self) -> bool {
        !self.ends.send_replace(true)
    }

    /// Whether it accepts connections.
    #[must_use]
    pub fn accepts(&self) -> bool {
        !*self.ends.borrow()
    }

    /// Waits for [`Intake::end`].
    pub async fn ended(&self) {
        // The sender is its own: it is not gone before.
        let _ = self.ends.subscribe().wait_for(|ends| *ends).await;
    }

    /// Its listener.
    #[must_use]
    pub fn listener(&self) -> &Listener {
        &self.listener
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> ListenerId {
        self.id
    }

    /// Whether somebody at this address may connect.
    #[must_use]
    pub fn admits(&self, ip: IpAddr) -> bool {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        access::allows(&rules, ip)
    }

    /// Connections accepted a second; 0 is no limit.
    #[must_use]
    pub fn max_conn_rate(&self) -> u32 {
        self.max_conn_rate.load(Ordering::Relaxed)
    }

    /// Whether a connection can go to a shard as it is.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        !self.listener.proxy_protocol && !self.listener.transport.has_tls() && !self.listener.transport.has_websocket()
    }

    /// The direct way, which takes no time.
    ///
    /// # Errors
    /// An access rule.
    pub fn direct(&self, socket: Socket, address: SocketAddr) -> Result<Accepted<rt::Stream>, Refused> {
        self.check(address)?;
        Ok(Accepted { stream: Link::Tcp(socket), address, listener: self.id, username: None })
    }

    /// Takes all steps.
    ///
    /// # Errors
    /// One of them.
    pub async fn prepare(&self, socket: Socket, mut address: SocketAddr) -> Result<Accepted<rt::Stream>, Refused> {
        let mut stream = rt::into_async(socket)?;
        let mut username = None;
        if self.listener.proxy_protocol {
            let read = timeout(self.listener.proxy_protocol_timeout, proxy::read(&mut stream)).await;
            let header = read.map_err(|_| Refused::TimedOut("the PROXY header"))?.map_err(Refused::Proxy)?;
            if let Some(id) = &header.unique_id {
                tracing::debug!(listener = self.listener.path(), %address, id = %id.escape_ascii(), "PROXY header");
            }
            address = header.client.unwrap_or(address);
            if let (Some(name), PeerName::Cn) = (header.common_name, self.listener.peer_cert_as_username) {
                username = Some(name).filter(|name| identity::usable(name, false)).ok_or(Nameless).map(Some)?;
            }
        }
        self.check(address)?;
        let stream = match &self.context {
            None if self.listener.transport.has_websocket() => {
                let rest = self.upgrade(&mut stream).await?;
                Link::Ws(Box::new(Ws::new(rt::from_async(stream)?, &rest)))
            }
            None => Link::Tcp(rt::from_async(stream)?),
            Some(context) => {
                let mut tls = self.handshake(stream, context).await?;
                if let Some(certificate) = tls.peer_certificates().first()
                    && let Some(name) = identity::username(certificate, self.listener.peer_cert_as_username)?
                {
                    username = Some(name);
                }
                if self.listener.transport.has_websocket() {
                    let rest = self.upgrade(&mut tls).await?;
                    Link::Wss(Box::new(Ws::new(tls.try_map(rt::from_async)?, &rest)))
                } else {
                    Link::Tls(Box::new(tls.try_map(rt::from_async)?))
                }
            }
        };
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        Ok(Accepted { stream, address, listener: self.id, username })
    }

    fn check(&self, address: SocketAddr) -> Result<(), Refused> {
        if self.admits(address.ip()) { Ok(()) } else { Err(Refused::Denied(address.ip())) }
    }

    async fn handshake<S>(&self, stream: S, context: &Context) -> Result<Tls<S>, Refused>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let handshake = tls::accept(stream, context.current());
        let done = timeout(self.listener.tls.handshake_timeout, handshake).await;
        done.map_err(|_| Refused::TimedOut("the TLS handshake"))?.map_err(Refused::Tls)
    }

    async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: &mut S) -> Result<Vec<u8>, Refused> {
        let done = timeout(UPGRADE_TIMEOUT, upgrade::accept(stream, &self.listener.mqtt_path)).await;
        done.map_err(|_| Refused::TimedOut("the WebSocket request"))?.map_err(Refused::Upgrade)
    }

    /// Counts and tells why a connection was refused.
    pub fn refused(&self, address: SocketAddr, why: &Refused) {
        tracing::debug!(listener = self.listener.path(), %address, %why, "connection refused");
        let counter = match why {
            Refused::Denied(_) => &self.counters.denied,
            Refused::Proxy(_) => &self.counters.proxy,
            Refused::Tls(_) => &self.counters.tls,
            Refused::Nameless(_) => &self.counters.nameless,
            Refused::Upgrade(_) => &self.counters.upgrade,
            Refused::TimedOut(_) => &self.counters.timed_out,
            Refused::Io(_) => &self.counters.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Reload for Intake {
    fn name(&self) -> String {
        format!("limits of {}", self.listener.path())
    }

    fn has_files(&self) -> bool {
        false
    }

    fn prepare(self: Arc<Self>, config: &Config) -> anyhow::Result<Prepared> {
        let listener = config.listeners.iter().find(|listener| listener.path() == self.listener.path());
        let listener = listener.context("no such listener")?;
        let (rules, max_conn_rate) = (listener.access.clone(), listener.max_conn_rate);
        Ok(Box::new(move || {
            self.max_conn_rate.store(max_conn_rate, Ordering::Relaxed);
            *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
            None
        }))
    }
}

/// What became of a listener's connections, since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Accepted by the operating system and taken over.
    pub accepted: AtomicU64,
    /// Times that accepting paused for `max_conn_rate`.
    pub rate_pauses: AtomicU64,
    /// Times that accepting paused because too many connections were in preparation.
    pub intake_pauses: AtomicU64,
    /// Refused by an access rule.
    pub denied: AtomicU64,
    /// Without a right PROXY header.
    pub proxy: AtomicU64,
    /// Whose TLS handshake failed.
    pub tls: AtomicU64,
    /// Whose certificate gives no User Name.
    pub nameless: AtomicU64,
    /// Whose request was not one for MQTT over WebSocket.
    pub upgrade: AtomicU64,
    /// That were too slow.
    pub timed_out: AtomicU64,
    /// That failed for a reason of the operating system.
    pub failed: AtomicU64,
}
