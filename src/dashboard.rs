//! The dashboard: pages for people with a browser, whole in the binary, and a login for them. The pages ask what programs ask of
//! the HTTP API, by the same paths; a cookie stands in for an application. It decides nothing about MQTT.

mod assets;
mod logins;
mod sessions;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, HOST, HeaderName, HeaderValue, REFERRER_POLICY,
    RETRY_AFTER, SET_COOKIE,
};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, put};
use newtmq_access::{Throttle, ThrottleLimits};
use newtmq_base::Instant;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::admin::{Admin, By, Fault};
use crate::api;
use crate::config::Config;
use crate::web::{self, Bound, Peer, Service, Who, is_foreign, json_of, plain, refused};
use logins::{Login, Logins};
use sessions::{Session, Sessions};

/// What it is for [`web::bind`].
#[must_use]
pub fn service() -> Service {
    Service { name: "dashboard", key: "dashboard.bind", default: Config::default().dashboard.bind }
}

/// Who may use the dashboard, and who does.
#[derive(Clone)]
struct Dashboard(Arc<Inner>);

struct Inner {
    admin: Admin,
    logins: Logins,
    sessions: Mutex<Sessions>,
    throttle: Mutex<Throttle>,
    cookie: String,
    has_tls: bool,
    policy: HeaderValue,
}

/// Serves until it is dropped.
///
/// # Errors
/// What is stored of the login cannot be read.
pub async fn serve(bound: Bound, admin: Admin) -> anyhow::Result<()> {
    let facts = admin.facts();
    let logins = Logins::open(&facts.config.dashboard, facts.data.as_deref())?;
    if logins.is_first() && !bound.address().ip().to_canonical().is_loopback() {
        tracing::warn!("the dashboard has its first password: it can be changed from this machine alone");
    }
    let dashboard = Dashboard(Arc::new(Inner {
        logins,
        sessions: Mutex::new(Sessions::new(facts.config.dashboard.session_timeout)),
        throttle: Mutex::new(Throttle::new(THROTTLE)),
        // A cookie goes to every port of a host.
        cookie: format!("newtmq_{}", bound.address().port()),
        has_tls: bound.has_tls(),
        policy: policy(&admin),
        admin: admin.clone(),
    }));
    let config = facts.config.api.clone();
    tokio::spawn(async move { web::serve(bound, router(&dashboard), config).await });
    Ok(())
}

/// Scripts and styles come from here alone, and connections go here or to a listener with WebSocket.
fn policy(admin: &Admin) -> HeaderValue {
    let mut to = String::from("'self'");
    for listener in admin.websockets() {
        to.push_str(&format!(" {}://*:{}", listener.0, listener.1));
    }
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src {to}; frame-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    );
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

fn router(dashboard: &Dashboard) -> Router {
    let api = api::routes().with_state(dashboard.0.admin.clone());
    let closed = Router::new()
        .route("/session/password", put(change_password))
        .route_layer(middleware::from_fn_with_state((dashboard.clone(), false), logged_in))
        .merge(api.route_layer(middleware::from_fn_with_state((dashboard.clone(), true), logged_in)));
    let open = Router::new()
        .route("/session", get(who).post(log_in).delete(log_out))
        .route("/", get(|| async { asset("index.html") }))
        .route("/{file}", get(|Path(file): Path<String>| async move { asset(&file) }))
        .route("/pages/{file}", get(|Path(file): Path<String>| async move { asset(&format!("pages/{file}")) }))
        .route("/replay/{file}", get(|Path(file): Path<String>| async move { asset(&format!("replay/{file}")) }));
    let wrong_method = || async { refused(StatusCode::METHOD_NOT_ALLOWED, Fault::OTHER, "not with this method") };
    closed
        .merge(open)
        .fallback(|| async { missing() })
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(dashboard.clone(), limited))
        .with_state(dashboard.clone())
}

/// One of the files in the binary, by its whole name: there is no other way to a file.
fn asset(name: &str) -> Response {
    let Some((kind, text)) = assets::find(name) else { return missing() };
    let mut response = plain(StatusCode::OK, text.into_owned());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn missing() -> Response {
    refused(StatusCode::NOT_FOUND, Fault::OTHER, "there is nothing here")
}

/// What is the same for all requests: where they may come from, their time, and headers of the answer.
async fn limited(State(dashboard): State<Dashboard>, request: Request, next: Next) -> Response {
    let inner = &dashboard.0;
    let mut response = if is_foreign(request.headers()) || is_forged(request.method(), request.headers()) {
        refused(StatusCode::FORBIDDEN, Fault::OTHER, "only the pages of the dashboard may ask for this")
    } else {
        let late = |_| refused(StatusCode::REQUEST_TIMEOUT, Fault::RPC, "it took too long");
        timeout(inner.admin.facts().config.api.request_timeout, next.run(request)).await.unwrap_or_else(late)
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CONTENT_SECURITY_POLICY, inner.policy.clone());
    response
}

/// What changes something has a header that no page of another origin can send without being asked for it first, which
/// nobody is here. A page at another port of this host would have the cookie.
fn is_forged(method: &Method, headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").and_then(|site| site.to_str().ok());
    let is_other = site.is_some_and(|site| !matches!(site, "same-origin" | "none"));
    let changes = !matches!(*method, Method::GET | Method::HEAD);
    changes && (is_other || headers.get(MARK).is_none())
}

/// Only who has logged in comes through; with the first password only to change it.
async fn logged_in(State((dashboard, wholly)): State<(Dashboard, bool)>, mut request: Request, next: Next) -> Response {
    let Some(session) = dashboard.session(request.headers()) else { return not_logged_in() };
    if wholly && session.must_change {
        return refused(
            StatusCode::FORBIDDEN,
            MUST_CHANGE,
            "the first password has to be changed before anything else",
        );
    }
    request.extensions_mut().insert(session);
    request.extensions_mut().insert(Who(BY.to_owned()));
    next.run(request).await
}

fn not_logged_in() -> Response {
    refused(StatusCode::UNAUTHORIZED, Fault::OTHER, "nobody has logged in")
}

impl Dashboard {
    fn now(&self) -> Instant {
        self.0.admin.facts().clock.now()
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.0.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        self.0.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the audit log.
    fn wrote(&self, peer: SocketAddr, action: &str, outcome: Result<(), &str>) {
        let by = By { who: BY.to_owned(), from: peer.to_string() };
        self.0.admin.wrote(&by, action, "", outcome);
    }

    /// The login that a request belongs to.
    fn session(&self, headers: &HeaderMap) -> Option<Session> {
        self.sessions().find(&self.token(headers)?, self.now())
    }

    /// What the browser says that it was told. If a name is there twice, none of them counts.
    fn token(&self, headers: &HeaderMap) -> Option<String> {
        let texts = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
        let pairs = texts.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let mut own = pairs.filter(|(name, _)| *name == self.0.cookie).map(|(_, value)| value.to_owned());
        let (Some(token), None) = (own.next(), own.next()) else { return None };
        Some(token)
    }

    /// A cookie that scripts cannot read and other sites do not send.
    fn cookie(&self, token: &str, seconds: u64) -> HeaderValue {
        let secure = if self.0.has_tls { "; Secure" } else { "" };
        let text = format!("{}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}", self.0.cookie);
        HeaderValue::from_str(&text).expect("a token is letters and digits")
    }

    /// What the page is told of a login.
    fn told(&self, session: &Session) -> Value {
        let facts = self.0.admin.facts();
        json!({
            "user": logins::USER,
            "must_change": session.must_change,
            "node": facts.node,
            "version": env!("CARGO_PKG_VERSION"),
            "cluster": facts.config.cluster.name,
            "websockets": self.0.admin.websockets().iter().map(|(scheme, port, path)| {
                json!({ "scheme": scheme, "port": port, "path": path })
            }).collect::<Vec<_>>(),
        })
    }
}

/// Who has logged in.
async fn who(State(dashboard): State<Dashboard>, request: Request) -> Response {
    match dashboard.session(request.headers()) {
        Some(session) => json_of(StatusCode::OK, &dashboard.told(&session)),
        None => not_logged_in(),
    }
}

async fn log_in(State(dashboard): State<Dashboard>, request: Request) -> Response {
    let Some(Peer(peer)) = request.extensions().get().copied() else { return not_logged_in() };
    let is_near = is_near(peer, request.headers());
    let (name, password) = match guess(&dashboard, peer, request.into_body(), "username", "password").await {
        Ok(guess) => guess,
        Err(response) => return *response,
    };
    let Ok(_turn) = GUESSES.try_acquire() else { return busy() };
    let of = dashboard.clone();
    let looked = tokio::task::spawn_blocking(move || of.0.logins.look(&name, &password)).await;
    match looked.unwrap_or(Login::Wrong) {
        Login::Wrong => {
            dashboard.throttle().failed(dashboard.now(), peer.ip(), "");
            dashboard.wrote(peer, "dashboard login", Err("wrong user name or password"));
            tracing::info!(%peer, "a login to the dashboard has failed");
            refused(StatusCode::UNAUTHORIZED, Fault::OTHER, "wrong user name or password")
        }
        Login::Known if !is_near => {
            dashboard.throttle().failed(dashboard.now(), peer.ip(), "");
            tracing::warn!(%peer, "a login to the dashboard from another machine with the first password was refused");
            refused(StatusCode::FORBIDDEN, Fault::OTHER, FIRST_FROM_AFAR)
        }
        login @ (Login::Known | Login::First | Login::Right) => {
            let must_change = login != Login::Right;
            dashboard.wrote(peer, "dashboard login", Ok(()));
            tracing::info!(%peer, must_change, "login to the dashboard");
            entered(&dashboard, must_change)
        }
    }
}

/// A new login and its cookie.
fn entered(dashboard: &Dashboard, must_change: bool) -> Response {
    let Ok(token) = dashboard.sessions().begin(must_change, dashboard.now()) else { return busy() };
    let session = Session { must_change };
    let mut response = json_of(StatusCode::OK, &dashboard.told(&session));
    response.headers_mut().insert(SET_COOKIE, dashboard.cookie(&token, sessions::WHOLE_MAX.as_secs()));
    response
}

async fn log_out(State(dashboard): State<Dashboard>, request: Request) -> Response {
    if let Some(token) = dashboard.token(request.headers()) {
        dashboard.sessions().end(&token);
    }
    let mut response = json_of(StatusCode::OK, &json!({ "code": 0 }));
    response.headers_mut().insert(SET_COOKIE, dashboard.cookie("", 0));
    response
}

/// The old password has to be told again: a browser may have been left alone.
async fn change_password(State(dashboard): State<Dashboard>, request: Request) -> Response {
    let Some(Peer(peer)) = request.extensions().get().copied() else { return not_logged_in() };
    let (old, new) = match guess(&dashboard, peer, request.into_body(), "old", "new").await {
        Ok(guess) => guess,
        Err(response) => return *response,
    };
    let Ok(_turn) = GUESSES.try_acquire() else { return busy() };
    let of = dashboard.clone();
    let changed = tokio::task::spawn_blocking(move || of.0.logins.change(&old, &new)).await;
    match changed {
        Ok(Ok(())) => {
            tracing::info!(%peer, "the password of the dashboard is changed");
            dashboard.wrote(peer, "dashboard password", Ok(()));
            // Whoever else is in has got in with the old one.
            dashboard.sessions().end_all();
            entered(&dashboard, false)
        }
        Ok(Err(logins::ChangeError::Wrong)) => {
            dashboard.throttle().failed(dashboard.now(), peer.ip(), "");
            refused(StatusCode::FORBIDDEN, Fault::OTHER, "the old password is wrong")
        }
        Ok(Err(error @ logins::ChangeError::Refused(_))) => {
            refused(StatusCode::BAD_REQUEST, Fault::OTHER, &error.to_string())
        }
        Ok(Err(error @ logins::ChangeError::Io(_))) => {
            tracing::error!(%error, "the password of the dashboard stays as it was");
            refused(StatusCode::SERVICE_UNAVAILABLE, Fault::OTHER, &error.to_string())
        }
        Err(_) => busy(),
    }
}

/// Two texts of a body, one of which may be a guess; not of who has failed too often.
async fn guess(
    dashboard: &Dashboard,
    peer: SocketAddr,
    body: Body,
    one: &str,
    other: &str,
) -> Result<(String, String), Box<Response>> {
    let body = api::body(&dashboard.0.admin, body).await?;
    let text = |name: &str| body[name].as_str().filter(|text| text.len() <= TEXT_MAX).map(str::to_owned);
    let (Some(first), Some(second)) = (text(one), text(other)) else {
        let message = format!("it needs {one} and {other}, of at most {TEXT_MAX} bytes");
        return Err(Box::new(refused(StatusCode::BAD_REQUEST, Fault::MISSING, &message)));
    };
    match waits(dashboard, peer) {
        Some(response) => Err(Box::new(response)),
        None => Ok((first, second)),
    }
}

/// Whoever has failed too often has to wait.
fn waits(dashboard: &Dashboard, peer: SocketAddr) -> Option<Response> {
    let now = dashboard.now();
    let until = dashboard.throttle().waits(now, peer.ip(), "")?;
    let seconds = (until - now).as_secs() + 1;
    let message = format!("too many logins have failed; try again in {seconds} s");
    let mut response = refused(StatusCode::TOO_MANY_REQUESTS, Fault::OTHER, &message);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    Some(response)
}

fn busy() -> Response {
    refused(StatusCode::TOO_MANY_REQUESTS, Fault::OTHER, "too many passwords are being checked; try again")
}

/// From this machine, and by no proxy; and for this machine's own name, or a page could have a name of its own lead here.
fn is_near(peer: SocketAddr, headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let is_own =
        name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
    let proxied = ["forwarded", "x-forwarded-for", "x-real-ip", "via"].iter().any(|name| headers.contains_key(*name));
    peer.ip().to_canonical().is_loopback() && is_own && !proxied
}

/// Who it is to the audit log: there is one user.
const BY: &str = "dashboard:admin";
/// What the pages send with what changes something.
const MARK: &str = "x-newtmq-dashboard";
/// The code of an answer to who has still to change the first password.
const MUST_CHANGE: u16 = 140;
const FIRST_FROM_AFAR: &str = "The first password is known to everybody, so it is only taken on the machine of the broker: open \
    http://127.0.0.1:18083 there (or through ssh -L 18083:127.0.0.1:18083) and change it. Or start the broker with a first \
    password of your own, dashboard.default_user.password.";
/// Longest user name and password.
const TEXT_MAX: usize = 256;
/// Five failures from an address are forgiven; then each wait is twice the one before. There is no such limit for the user, or
/// anybody could keep the operator out.
const THROTTLE: ThrottleLimits = ThrottleLimits {
    user_failures: 0,
    address_failures: 5,
    window: Duration::from_secs(300),
    delay_max: Duration::from_secs(300),
};
/// Passwords that are checked at a time: each costs 19 MiB.
static GUESSES: Semaphore = Semaphore::const_new(4);
/// Of every answer.
const HEADERS: [(&str, &str); 4] = [
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "SAMEORIGIN"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_is_this_machine_by_its_own_name_and_without_a_proxy() {
        for (peer, host, proxy, want) in [
            ("127.0.0.1:5", "127.0.0.1:18083", "", true),
            ("127.0.0.1:5", "localhost:18083", "", true),
            ("[::1]:5", "[::1]:18083", "", true),
            ("[::ffff:127.0.0.1]:5", "127.0.0.1", "", true),
            ("192.0.2.1:5", "127.0.0.1:18083", "", false),
            ("127.0.0.1:5", "192.0.2.1:18083", "", false),
            ("127.0.0.1:5", "evil.example:18083", "", false),
            ("127.0.0.1:5", "localhost.evil.example", "", false),
            ("127.0.0.1:5", "", "", false),
            ("127.0.0.1:5", "127.0.0.1:18083", "x-forwarded-for", false),
            ("127.0.0.1:5", "127.0.0.1:18083", "via", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_str(host).unwrap());
            if !proxy.is_empty() {
                headers.insert(HeaderName::from_static(proxy), HeaderValue::from_static("x"));
            }
            assert_eq!(is_near(peer.parse().unwrap(), &headers), want, "{peer} {host} {proxy}");
        }
    }

    #[test]
    fn what_changes_something_needs_the_mark() {
        let mut headers = HeaderMap::new();
        assert!(!is_forged(&Method::GET, &headers) && is_forged(&Method::POST, &headers));
        headers.insert(MARK, HeaderValue::from_static("1"));
        assert!(!is_forged(&Method::POST, &headers) && !is_forged(&Method::DELETE, &headers));
        headers.insert("sec-fetch-site", HeaderValue::from_static("same-site"));
        assert!(is_forged(&Method::PUT, &headers));
    }
}
