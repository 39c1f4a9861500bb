//! The HTTP API: the questions of `src/admin`, with the paths and shapes of EMQ X 3; metrics for Prometheus; health. Every
//! connection, body and wait has a limit. It decides nothing about MQTT, and no request holds a shard.

pub mod docs;
pub mod openapi;
mod prometheus;
pub mod routes;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Query, RawPathParams, Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{MethodFilter, get, on};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::admin::{Admin, By, Fault, Question};
use crate::config::Config;
use crate::process::Usage;
use crate::web::{self, Bound, Peer, Service, Who, is_foreign, json_of, plain, refused};
use prometheus::{Figures, Membership};
use routes::{Asked, NOT_YET, ROUTES, Route, envelope};

/// What it is for [`web::bind`].
#[must_use]
pub fn service() -> Service {
    Service { name: "HTTP API", key: "api.bind", default: Config::default().api.bind }
}

/// Serves until it is dropped.
pub async fn serve(bound: Bound, admin: Admin) {
    let config = admin.facts().config.api.clone();
    web::serve(bound, router(&admin), config).await;
}

/// The paths below `/api/v3`. Who may is for others to say.
pub(crate) fn routes() -> Router<Admin> {
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
    api
}

/// What serves requests.
fn router(admin: &Admin) -> Router {
    let api = routes();
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

/// Only applications with the right secret come through.
async fn authorized(State(admin): State<Admin>, mut request: Request, next: Next) -> Response {
    let Some((id, secret)) = credentials(request.headers()) else { return unauthorized() };
    request.extensions_mut().insert(Who(format!("app:{id}")));
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

fn by(request: &Request) -> By {
    let who = request.extensions().get::<Who>().map_or("nobody".to_owned(), |Who(who)| who.clone());
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

pub(crate) async fn body(admin: &Admin, body: Body) -> Result<Value, Box<Response>> {
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
    let why = match admin.answer_here(Question::Ready).await.map(|answer| answer.data) {
        Ok(Value::Bool(true)) => return plain(StatusCode::OK, "ready\n".to_owned()),
        Ok(Value::String(why)) => why,
        Ok(_) => "it is not known".to_owned(),
        Err(fault) => fault.message,
    };
    plain(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n"))
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

/// Secrets that are checked or wait for it at a time.
static GUESSES: Semaphore = Semaphore::const_new(8);
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
}
