//! HTTP/1.1 with services that know where other nodes are: one connection, one request after the other, answers that end
//! and answers that do not. Each wait and each size has a limit. It knows no service.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::{CertificateFiles, ClusterTls, Secret, Url};
use crate::net::certs::{self, CertificateError};

/// Why there is no answer. The environment's or the service's fault; the connection is of no use any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("TLS: {0}")]
    Tls(io::Error),
    #[error("{}", told(.0))]
    Files(#[from] CertificateError),
    #[error("no answer within {:.1} s", .0.as_secs_f64())]
    Late(Duration),
    #[error("the connection failed: {0}")]
    Broken(String),
    #[error("an answer of more than {} MiB, which is the most that is read", .0 >> 20)]
    TooLarge(usize),
    #[error("nothing that can be sent: {0}")]
    Request(hyper::http::Error),
}

/// Without the colon of anyhow, a source would be missing.
fn told(error: &CertificateError) -> String {
    match error {
        CertificateError::Unreadable { path, source } => format!("{} cannot be read: {source}", path.display()),
        CertificateError::Wrong { .. } | CertificateError::Configuration(_) => error.to_string(),
    }
}

impl From<hyper::Error> for HttpError {
    fn from(error: hyper::Error) -> HttpError {
        // What is below says more.
        let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        HttpError::Broken(format!("{error}{source}"))
    }
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    path: String,
    patience: Duration,
    driving: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driving.abort();
    }
}

/// What is asked.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: &'a str,
    /// The value of `Authorization`, which no log shows.
    pub(crate) authorization: Option<&'a Secret>,
    /// What it is made of, and what it is; an empty one is none.
    pub(crate) body: String,
    /// The media type of the body.
    pub(crate) kind: &'static str,
}

impl Connection {
    /// Opens one; certificates are read from their files. `patience` is how long an answer may take.
    ///
    /// # Errors
    /// The service is not reached, or is not who it should be.
    pub(crate) async fn open(url: &Url, tls: &ClusterTls, patience: Duration) -> Result<Connection, HttpError> {
        let late = |_| HttpError::Late(CONNECT_TIMEOUT);
        timeout(CONNECT_TIMEOUT, Connection::connect(url, tls, patience)).await.map_err(late)?
    }

    async fn connect(url: &Url, tls: &ClusterTls, patience: Duration) -> Result<Connection, HttpError> {
        let config = if url.is_tls { Some(client_config(tls)?) } else { None };
        let port = url.port.unwrap_or(if url.is_tls { HTTPS_PORT } else { HTTP_PORT });
        let socket = TcpStream::connect((url.host.as_str(), port)).await.map_err(HttpError::Connect)?;
        // An answer that does not end may be quiet for minutes: a machine that is gone is seen by this.
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
        let _ = SockRef::from(&socket).set_tcp_keepalive(&keepalive);
        let _ = socket.set_nodelay(true);
        let (sender, driving) = match config {
            Some(config) => {
                let name =
                    ServerName::try_from(url.host.clone()).map_err(|error| HttpError::Tls(io::Error::other(error)))?;
                let stream = TlsConnector::from(config).connect(name, socket).await.map_err(HttpError::Tls)?;
                let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
                (sender, tokio::spawn(async move { drop(connection.await) }))
            }
            None => {
                let (sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
                (sender, tokio::spawn(async move { drop(connection.await) }))
            }
        };
        Ok(Connection { sender, host: url.authority(), path: url.path.clone(), patience, driving })
    }

    /// Asks, and reads the answer to its end.
    ///
    /// # Errors
    /// There is none, or it is too large.
    pub(crate) async fn ask(&mut self, ask: &Ask<'_>) -> Result<Answer, HttpError> {
        let patience = self.patience;
        let whole = async {
            let response = self.send(ask).await?;
            let status = response.status();
            let mut incoming = response.into_body();
            let mut body = Vec::new();
            while let Some(frame) = incoming.frame().await {
                let Ok(data) = frame?.into_data() else { continue };
                if body.len() + data.len() > ANSWER_MAX {
                    return Err(HttpError::TooLarge(ANSWER_MAX));
                }
                body.extend_from_slice(&data);
            }
            Ok(Answer { status, body: body.into() })
        };
        timeout(patience, whole).await.map_err(|_| HttpError::Late(patience))?
    }

    /// Asks for an answer that does not end, of a line for each thing that happens. The connection is used up.
    ///
    /// # Errors
    /// There is none.
    pub(crate) async fn watch(mut self, ask: &Ask<'_>) -> Result<Result<Lines, Answer>, HttpError> {
        let patience = self.patience;
        let late = |_| HttpError::Late(patience);
        let response = timeout(patience, self.send(ask)).await.map_err(late)??;
        let status = response.status();
        let mut lines = Lines { incoming: response.into_body(), buffer: Vec::new(), scanned: 0, _connection: self };
        if status == StatusCode::OK {
            return Ok(Ok(lines));
        }
        // A refusal is one line, or a page that need not be read whole.
        let body = timeout(patience, lines.next()).await.map_err(late)??.unwrap_or_default();
        Ok(Err(Answer { status, body: body.into() }))
    }

    async fn send(&mut self, ask: &Ask<'_>) -> Result<Response<Incoming>, HttpError> {
        let mut request = Request::builder()
            .method(&ask.method)
            .uri(format!("{}{}", self.path, ask.target))
            .header(HOST, &self.host)
            .header(USER_AGENT, AGENT)
            .header(ACCEPT, JSON);
        if !ask.body.is_empty() {
            request = request.header(CONTENT_TYPE, ask.kind);
        }
        if let Some(secret) = ask.authorization {
            // The error would not show it either.
            let mut value = HeaderValue::from_str(secret.reveal()).map_err(|error| HttpError::Request(error.into()))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let request = request.body(Full::from(ask.body.clone())).map_err(HttpError::Request)?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }
}

/// Lines as they come.
#[derive(Debug)]
pub(crate) struct Lines {
    incoming: Incoming,
    buffer: Vec<u8>,
    /// So much of it has no end of a line.
    scanned: usize,
    _connection: Connection,
}

impl Lines {
    /// The next one; none after the last. Nothing is lost if it is not waited for to the end.
    ///
    /// # Errors
    /// The connection fails, or a line is too long.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, HttpError> {
        loop {
            if let Some(at) = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(self.scanned + at + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                self.scanned = 0;
                if !line.trim_ascii().is_empty() {
                    return Ok(Some(line));
                }
                continue;
            }
            self.scanned = self.buffer.len();
            match self.incoming.frame().await {
                None => {
                    self.scanned = 0;
                    let line = std::mem::take(&mut self.buffer);
                    return Ok(Some(line).filter(|line| !line.trim_ascii().is_empty()));
                }
                Some(frame) => {
                    let Ok(data) = frame?.into_data() else { continue };
                    if self.buffer.len() + data.len() > ANSWER_MAX {
                        return Err(HttpError::TooLarge(ANSWER_MAX));
                    }
                    self.buffer.extend_from_slice(&data);
                }
            }
        }
    }
}

fn client_config(tls: &ClusterTls) -> Result<Arc<ClientConfig>, CertificateError> {
    let roots = tls.cacertfile.as_deref().map_or_else(|| Ok(RootCertStore::empty()), certs::roots)?;
    let wrong = |error: rustls::Error| CertificateError::Configuration(error.to_string());
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(wrong)?.with_root_certificates(roots);
    let ClusterTls { certfile, keyfile, .. } = tls;
    let mut config = if certfile.is_some() {
        let files = CertificateFiles { certfile: certfile.clone(), keyfile: keyfile.clone() };
        let shown = rustls::sign::SingleCertAndKey::from(Arc::new(certs::certified(&files)?));
        builder.with_client_cert_resolver(Arc::new(shown))
    } else {
        builder.with_no_client_auth()
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// What a service says in an answer that is no good, fit for a line of a log: short, printable, and without the secret.
pub(crate) fn excerpt(text: &str, secret: Option<&Secret>) -> String {
    let hidden = secret.map(|secret| secret.reveal().rsplit(' ').next().unwrap_or_default());
    let text = match hidden {
        Some(hidden) if !hidden.is_empty() => text.replace(hidden, "(not shown)"),
        _ => text.to_owned(),
    };
    let mut shown: String =
        text.trim().chars().take(EXCERPT_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if shown.len() < text.trim().len() {
        shown.push('…');
    }
    shown
}

/// Until a connection is open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Until an answer is there, if nothing wants it sooner.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// When a quiet connection is tried.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Longest answer, and longest line: an object of Kubernetes is at most 1.5 MiB.
const ANSWER_MAX: usize = 4 << 20;
/// Characters of what a service says.
const EXCERPT_MAX: usize = 300;
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;
/// Of most services.
pub(crate) const JSON: &str = "application/json";
const AGENT: &str = concat!("newtmq/", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_service_says_is_short_and_has_no_secret() {
        let secret = Secret::new("Bearer s3cr3t");
        assert_eq!(excerpt(" a\nb s3cr3t c ", Some(&secret)), "a b (not shown) c");
        let long = excerpt(&"x".repeat(EXCERPT_MAX + 1), None);
        assert_eq!((long.chars().count(), long.ends_with('…')), (EXCERPT_MAX + 1, true));
    }
}
