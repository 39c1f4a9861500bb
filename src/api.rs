//! The HTTP API: the questions of `src/admin`, with the paths and shapes of EMQ X 3; metrics for Prometheus; health. Every
//! connection, body and wait has a limit. It decides nothing about MQTT, and no request holds a shard.

pub mod docs;
pub mod openapi;
mod prometheus;
pub mod routes;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use axum::body::{Body, to_bytes};
use axum::extract::{Query, RawPathParams, Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderName, HeaderValue, ORIGIN, WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodFilter, get, on};
use axum::{Extension, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::server::conn::http1;
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

use crate::admin::{Admin, By, Fault, Question};
use crate::config::{Api, CertificateFiles, Config};
use crate::exit::CannotListen;
use crate::net::certs;
use crate::process::Usage;
use prometheus::{Figures, Membership};
use routes::{Asked, NOT_YET, ROUTES, Route, envelope};

/// An address where the API is to be served.
pub struct Bound {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    address: SocketAddr,
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bound({})", self.address)
    }
}

impl Bound {
    /// Where it listens in fact: never port 0.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls.is_some() { "https" } else { "http" }, self.address)
    }
}

/// Listens; none if it is not wanted, or if another process has the address that nobody has chosen.
///
/// # Errors
/// [`CannotListen`]; the certificate cannot be used.
pub async fn bind(config: &Api) -> anyhow::Result<Option<Bound>> {
    let Some(address) = config.bind else { return Ok(None) };
    let tls = acceptor(config).context("api.certfile")?;
    match TcpListener::bind(address).await {
        Ok(listener) => {
            let address = listener.local_addr()?;
            Ok(Some(Bound { listener, tls, address }))
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && config.bind == Config::default().api.bind => {
            tracing::warn!(%address, "another process has this address: there is no HTTP API; set api.bind, or to none");
            Ok(None)
        }
        Err(source) => Err(CannotListen { listener: "api.bind".to_owned(), address, source }.into()),
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
pub async fn serve(bound: Bound, admin: Admin) {
    let Bound { listener, tls, address } = bound;
    let config = admin.facts().config.api.clone();
    let places = Arc::new(Semaphore::new(config.max_connections as usize));
    let router = router(&admin);
    tracing::info!(%address, tls = tls.is_some(), "the HTTP API listens");
    if tls.is_none() && !address.ip().to_canonical().is_loopback() {
        tracing::warn!(%address, "other machines can reach the HTTP API, and secrets are not encrypted; see api.certfile");
    }
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept a connection of the HTTP API");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::debug!(%from, "too many connections of the HTTP API");
            continue;
        };
        let router = router.clone().layer(Extension(Peer(from)));
        let (tls, patience) = (tls.clone(), config.request_timeout);
        tokio::spawn(async move {
            let _place = place;
            let _ = stream.set_nodelay(true);
            let ended = match tls {
                None => converse(stream, router, patience).await,
                Some(tls) => match timeout(patience, tls.accept(stream)).await {
                    Ok(Ok(stream)) => converse(stream, router, patience).await,
                    Ok(Err(error)) => return tracing::debug!(%from, %error, "TLS of the HTTP API"),
                    Err(_) => return,
                },
            };
            if let Err(error) = ended {
                tracing::debug!(%from, %error, "a connection of the HTTP API");
            }
        });
    }
}

async fn converse<S>(stream: S, router: Router, patience: std::time::Duration) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(patience).max_buf_size(HEAD_MAX);
    builder.serve_connection(TokioIo::new(stream), service).await
}

/// What serves requests.
fn router(admin: &Admin) -> Router {
    let mut api = Router::new();
    for route in ROUTES {
        let filter = match route.method {
            "POST" => MethodFilter::POST,
            "PUT" => MethodFilter::PUT,
            "DELETE" => MethodFilter::DELETE,
            _ => MethodFilter::GET,
        };
        let handler = move |State(admin): State<Admin>, params: RawPathParams, query, request: Request| {
            answer(route, admin, params, query, request)
        };
        api = api.route(&format!("/api/v3{}", route.path), on(filter, handler));
    }
    for (path, _) in NOT_YET {
        for path in [format!("/api/v3/{path}"), format!("/api/v3/{path}/{{*rest}}")] {
            api = api.route(&path, axum::routing::any(not_yet));
        }
    }
    let closed = if admin.facts().config.api.open_metrics { api } else { api.route("/metrics", get(metrics)) };
    let closed = closed.route_layer(middleware::from_fn_with_state(admin.clone(), authorized));
    let open = Router::new()
        .route("/status", get(status))
        .route("/health/live", get(|| async { "ok\n" }))
        .route("/health/ready", get(ready))
        .route("/api/openapi.json", get(|| async { json_of(StatusCode::OK, &openapi::document()) }));
    let open = if admin.facts().config.api.open_metrics { open.route("/metrics", get(metrics)) } else { open };
    let missing = || async { refused(StatusCode::NOT_FOUND, Fault::OTHER, "there is nothing here") };
    let wrong_method = || async { refused(StatusCode::METHOD_NOT_ALLOWED, Fault::OTHER, "not with this method") };
    closed
        .merge(open)
        .fallback(missing)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(admin.clone(), limited))
        .with_state(admin.clone())
}

/// What is the same for all requests: their time, where they may come from, and headers of the answer.
async fn limited(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let mut response = if is_foreign(request.headers()) {
        refused(StatusCode::FORBIDDEN, Fault::OTHER, "requests of pages of other origins are not answered")
    } else {
        let patience = admin.facts().config.api.request_timeout;
        let late = |_| refused(StatusCode::REQUEST_TIMEOUT, Fault::RPC, "it took too long");
        timeout(patience, next.run(request)).await.unwrap_or_else(late)
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(NOSNIFF, HeaderValue::from_static("nosniff"));
    response
}

/// A browser says for which page it asks; other programs do not.
fn is_foreign(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    authority.is_none() || authority != host
}

/// Only applications with the right secret come through.
async fn authorized(State(admin): State<Admin>, mut request: Request, next: Next) -> Response {
    let Some((id, secret)) = credentials(request.headers()) else { return unauthorized() };
    request.extensions_mut().insert(AppId(id.clone()));
    if !admin.apps().knows(&id, &secret) {
        // What is not known costs a password hash; guesses do not pile up.
        let Ok(_turn) = GUESSES.try_acquire() else {
            return refused(StatusCode::TOO_MANY_REQUESTS, Fault::OTHER, "too many secrets are being checked");
        };
        let apps = admin.clone();
        let permitted = tokio::task::spawn_blocking(move || apps.apps().permits(&id, &secret)).await;
        if !permitted.unwrap_or(false) {
            return unauthorized();
        }
    }
    next.run(request).await
}

/// The application of a request.
#[derive(Debug, Clone)]
struct AppId(String);

/// Where it comes from.
#[derive(Debug, Clone)]
struct Peer(SocketAddr);

fn by(request: &Request) -> By {
    let who = request.extensions().get::<AppId>().map_or("nobody".to_owned(), |AppId(id)| format!("app:{id}"));
    let from = request.extensions().get::<Peer>().map_or("an address".to_owned(), |Peer(from)| from.to_string());
    By { who, from }
}

/// Id and secret of Basic authentication (RFC 7617).
fn credentials(headers: &HeaderMap) -> Option<(String, Vec<u8>)> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(one), None) = (all.next(), all.next()) else { return None };
    let (scheme, encoded) = one.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let mut id = STANDARD.decode(encoded.trim()).ok()?;
    let colon = id.iter().position(|byte| *byte == b':')?;
    let secret = id.split_off(colon + 1);
    id.pop();
    Some((String::from_utf8(id).ok()?, secret))
}

fn unauthorized() -> Response {
    let mut response = refused(StatusCode::UNAUTHORIZED, Fault::OTHER, "it needs the id and secret of an application");
    response
        .headers_mut()
        .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"newtmq\", charset=\"UTF-8\""));
    response
}

/// Asks what the route asks.
async fn answer(
    route: &'static Route,
    admin: Admin,
    params: RawPathParams,
    query: Result<Query<Vec<(String, String)>>, axum::extract::rejection::QueryRejection>,
    request: Request,
) -> Response {
    let Ok(Query(query)) = query else {
        return refused(StatusCode::BAD_REQUEST, Fault::TYPE, "the query cannot be read");
    };
    // One that is not known would be a wish that is passed over.
    let is_known = |name: &str| (route.paged && matches!(name, "_page" | "_limit")) || route.query.contains(&name);
    if let Some((name, _)) = query.iter().find(|(name, _)| !is_known(name)) {
        let message = format!("{name:?} is no parameter of this path");
        return refused(StatusCode::BAD_REQUEST, Fault::TYPE, &message);
    }
    if let Some(name) = route.query.iter().find(|name| !query.iter().any(|(given, _)| given == *name)) {
        return refused(StatusCode::BAD_REQUEST, Fault::MISSING, &format!("{name} is missing"));
    }
    let mut parameters: std::collections::BTreeMap<String, String> = query.into_iter().collect();
    parameters.extend(params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
    let of_node = parameters.get("node").filter(|_| route.path.contains("{node}")).cloned();
    let by = by(&request);
    let mut asked = Asked { parameters, body: Value::Null };
    if !route.body.is_empty() {
        asked.body = match body(&admin, request.into_body()).await {
            Ok(body) => body,
            Err(response) => return *response,
        };
    }
    let question = match (route.ask)(&asked) {
        Ok(question) => question,
        Err(fault) => return faulty(&fault),
    };
    let answered = match of_node {
        Some(node) => admin.answer_of(&node, question).await,
        None => admin.answer_for(&by, question).await,
    };
    match answered {
        Ok(answer) => json_of(StatusCode::OK, &envelope(route, &asked, answer)),
        Err(fault) => faulty(&fault),
    }
}

async fn body(admin: &Admin, body: Body) -> Result<Value, Box<Response>> {
    let most = admin.facts().config.api.max_body_size as usize;
    let too_large =
        |_| Box::new(refused(StatusCode::PAYLOAD_TOO_LARGE, Fault::OTHER, "the body is too large, or has not come"));
    let bytes = to_bytes(body, most).await.map_err(too_large)?;
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|_| Box::new(refused(StatusCode::BAD_REQUEST, Fault::JSON, "the body is not JSON")))?;
    match value {
        Value::Object(_) => Ok(value),
        _ => Err(Box::new(refused(StatusCode::BAD_REQUEST, Fault::TYPE, "the body must be an object"))),
    }
}

/// What EMQ X answers with 200 and a code is answered so; what is wrong with a request has a status, too.
fn faulty(fault: &Fault) -> Response {
    let status = StatusCode::from_u16(fault.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    refused(status, fault.code, &fault.message)
}

async fn not_yet() -> Response {
    refused(StatusCode::NOT_IMPLEMENTED, Fault::OTHER, "this is not in this version")
}

async fn status(State(admin): State<Admin>) -> Response {
    let node = &admin.facts().node;
    plain(StatusCode::OK, format!("Node {node} is started\nnewtmq is running\n"))
}

async fn ready(State(admin): State<Admin>) -> Response {
    let ready = admin.answer_here(Question::Ready).await.is_ok_and(|answer| answer.data == json!(true));
    match ready {
        true => plain(StatusCode::OK, "ready\n".to_owned()),
        false => plain(StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned()),
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    match figures(&admin).await {
        Ok(figures) => {
            let mut response = plain(StatusCode::OK, prometheus::text(&figures));
            let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        Err(fault) => faulty(&fault),
    }
}

async fn figures(admin: &Admin) -> Result<Figures, Fault> {
    let pairs = |value: &Value| -> Vec<(String, u64)> {
        value
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(name, count)| Some((name.clone(), count.as_u64()?)))
            .collect()
    };
    let stats = admin.answer_here(Question::Stats).await?.data;
    let metrics = admin.answer_here(Question::Metrics).await?.data;
    let listeners = admin.answer_here(Question::Listeners).await?.data;
    let listeners = listeners.as_array().into_iter().flatten().filter_map(|of| {
        let transport = of["protocol"].as_str()?.rsplit(':').next()?;
        Some((format!("listener.{transport}.{}", of["name"].as_str()?), of["current_conns"].as_u64()?))
    });
    let broker = admin.answer_here(Question::Broker).await?.data;
    Ok(Figures {
        stats: pairs(&stats),
        metrics: pairs(&metrics),
        listeners: listeners.collect(),
        uptime_seconds: broker["uptime_seconds"].as_u64().unwrap_or_default(),
        cluster: admin.cluster().await.as_ref().map(Membership::of),
        usage: Usage::now(),
    })
}

fn refused(status: StatusCode, code: u16, message: &str) -> Response {
    json_of(status, &json!({ "code": code, "message": message }))
}

fn json_of(status: StatusCode, value: &Value) -> Response {
    let mut response = plain(status, value.to_string());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn plain(status: StatusCode, text: String) -> Response {
    (status, text).into_response()
}

/// The longest head of a request; one that comes in large pieces may be twice as long.
const HEAD_MAX: usize = 32 << 10;
/// Secrets that are checked or wait for it at a time.
static GUESSES: Semaphore = Semaphore::const_new(8);
/// After an accept that failed.
const ACCEPT_AGAIN: std::time::Duration = std::time::Duration::from_millis(100);
const NOSNIFF: HeaderName = HeaderName::from_static("x-content-type-options");

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(HeaderName, &str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn credentials_are_those_of_rfc_7617() {
        let of = |value: &str| credentials(&headers(&[(AUTHORIZATION, value)]));
        assert_eq!(of("Basic YTpi"), Some(("a".to_owned(), b"b".to_vec())));
        assert_eq!(of("bASIC YTpiOmM="), Some(("a".to_owned(), b"b:c".to_vec())));
        assert_eq!(of("Basic YTo="), Some(("a".to_owned(), Vec::new())));
        for wrong in ["", "Basic", "Basic ", "Basic YQ==", "Bearer YTpi", "Basic !", "Basic /zo6", "YTpi"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        let mut twice = headers(&[(AUTHORIZATION, "Basic YTpi")]);
        twice.append(AUTHORIZATION, HeaderValue::from_static("Basic YTpi"));
        assert_eq!(credentials(&twice), None);
    }

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
            let mut all = headers(&[(HOST, host)]);
            all.extend(origin.map(|origin| (ORIGIN, HeaderValue::from_str(origin).unwrap())));
            assert_eq!(is_foreign(&all), want, "{origin:?}");
        }
    }
}
