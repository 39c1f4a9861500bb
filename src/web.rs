//! What serves HTTP to operators and their programs: a socket with TLS or without, so many connections at a time, and the
//! address of each with its requests. What is answered, and to whom, is for [`crate::api`] and [`crate::dashboard`] to say.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::http::header::{CONTENT_TYPE, HOST, HeaderValue, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::config::{Api, CertificateFiles};
use crate::exit::CannotListen;
use crate::net::certs;

/// What is served.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    /// For people.
    pub name: &'static str,
    /// The key of its address.
    pub key: &'static str,
    /// The address that nobody has chosen.
    pub default: Option<SocketAddr>,
}

/// An address where something is to be served.
pub struct Bound {
    service: Service,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    address: SocketAddr,
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bound({}, {})", self.service.key, self.address)
    }
}

impl Bound {
    /// Where it listens in fact: never port 0.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", if self.has_tls() { "https" } else { "http" }, self.address)
    }

    /// Where it listens in fact.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections are encrypted.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.tls.is_some()
    }
}

/// The other end of a connection, which every request has among its extensions.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Who has made a request, for the audit log: an application or a user of the dashboard.
#[derive(Debug, Clone)]
pub(crate) struct Who(pub(crate) String);

/// Listens; none if it is not wanted, or if another process has the address that nobody has chosen.
///
/// # Errors
/// [`CannotListen`]; the certificate cannot be used.
pub async fn bind(service: Service, address: Option<SocketAddr>, config: &Api) -> anyhow::Result<Option<Bound>> {
    let Some(wanted) = address else { return Ok(None) };
    let tls = acceptor(config).context("api.certfile")?;
    match TcpListener::bind(wanted).await {
        Ok(listener) => {
            let address = listener.local_addr()?;
            Ok(Some(Bound { service, listener, tls, address }))
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && address == service.default => {
            let Service { name, key, .. } = service;
            tracing::warn!(address = %wanted, "another process has this address: there is no {name}; set {key}, or to none");
            Ok(None)
        }
        Err(source) => Err(CannotListen { listener: service.key.to_owned(), address: wanted, source }.into()),
    }
}

fn acceptor(config: &Api) -> anyhow::Result<Option<TlsAcceptor>> {
    let Api { certfile, keyfile, .. } = config;
    if certfile.is_none() {
        return Ok(None);
    }
    let files = CertificateFiles { certfile: certfile.clone(), keyfile: keyfile.clone() };
    let shown = rustls::sign::SingleCertAndKey::from(Arc::new(certs::certified(&files)?));
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let mut tls =
        builder.with_safe_default_protocol_versions()?.with_no_client_auth().with_cert_resolver(Arc::new(shown));
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(tls))))
}

/// Serves until it is dropped.
pub async fn serve(bound: Bound, router: Router, config: Api) {
    let Bound { service, listener, tls, address } = bound;
    let name = service.name;
    let places = Arc::new(Semaphore::new(config.max_connections as usize));
    tracing::info!(%address, tls = tls.is_some(), "the {name} listens");
    if tls.is_none() && !address.ip().to_canonical().is_loopback() {
        tracing::warn!(%address, "other machines can reach the {name}, and secrets are not encrypted; see api.certfile");
    }
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept a connection of the {name}");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::debug!(%from, "too many connections of the {name}");
            continue;
        };
        let (router, tls, patience) = (router.clone(), tls.clone(), config.request_timeout);
        tokio::spawn(async move {
            let _place = place;
            let _ = stream.set_nodelay(true);
            let ended = match tls {
                None => converse(stream, from, router, patience).await,
                Some(tls) => match timeout(patience, tls.accept(stream)).await {
                    Ok(Ok(stream)) => converse(stream, from, router, patience).await,
                    Ok(Err(error)) => return tracing::debug!(%from, %error, "TLS of the {name}"),
                    Err(_) => return,
                },
            };
            if let Err(error) = ended {
                tracing::debug!(%from, %error, "a connection of the {name}");
            }
        });
    }
}

async fn converse<S>(stream: S, from: SocketAddr, router: Router, patience: Duration) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let routed = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Peer(from));
        routed.call(request)
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(patience).max_buf_size(HEAD_MAX);
    builder.serve_connection(TokioIo::new(stream), service).await
}

/// A browser says for which page it asks; other programs do not.
#[must_use]
pub fn is_foreign(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    authority.is_none() || authority != host
}

/// Why something is not done.
#[must_use]
pub fn refused(status: StatusCode, code: u16, message: &str) -> Response {
    json_of(status, &json!({ "code": code, "message": message }))
}

/// JSON.
#[must_use]
pub fn json_of(status: StatusCode, value: &Value) -> Response {
    let mut response = plain(status, value.to_string());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Text.
#[must_use]
pub fn plain(status: StatusCode, text: String) -> Response {
    (status, text).into_response()
}

/// The longest head of a request; one that comes in large pieces may be twice as long.
const HEAD_MAX: usize = 32 << 10;
/// After an accept that failed.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_other_origins_are_foreign() {
        for (origin, host, want) in [
            (None, "h:8080", false),
            (Some("http://h:8080"), "h:8080", false),
            (Some("https://h:8080"), "h:8080", false),
            (Some("http://evil"), "h:8080", true),
            (Some("http://h"), "h:8080", true),
            (Some("null"), "h:8080", true),
        ] {
            let mut all = HeaderMap::new();
            all.insert(HOST, HeaderValue::from_str(host).unwrap());
            all.extend(origin.map(|origin| (ORIGIN, HeaderValue::from_str(origin).unwrap())));
            assert_eq!(is_foreign(&all), want, "{origin:?}");
        }
    }
}
