//! The HTTP API: its keys, and what they are.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::cluster::Secret;
use super::table::{Field, Key, MB, fit, key};
use super::types::Config;

/// `api.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Api {
    /// Where it listens; none for nowhere.
    pub bind: Option<SocketAddr>,
    /// The id of an application that may use it.
    pub app_id: Option<String>,
    /// Its secret.
    pub app_secret: Option<Secret>,
    /// Connections at a time.
    pub max_connections: u32,
    /// Bytes of the body of a request.
    pub max_body_size: u32,
    /// From the beginning of a request to its answer.
    pub request_timeout: Duration,
    /// `/metrics` needs no application.
    pub open_metrics: bool,
    /// With it and `keyfile` it is HTTPS.
    pub certfile: Option<PathBuf>,
    /// The key of the certificate.
    pub keyfile: Option<PathBuf>,
}

impl Api {
    pub(super) const BLANK: Api = Api {
        bind: None,
        app_id: None,
        app_secret: None,
        max_connections: 0,
        max_body_size: 0,
        request_timeout: Duration::ZERO,
        open_metrics: false,
        certfile: None,
        keyfile: None,
    };
}

pub(super) const API: &[Key<Config>] = &[
    key(
        API_BIND,
        Field::AddressOrNone(|c, v| c.api.bind = v),
        "127.0.0.1:8080",
        "Where the HTTP API listens. If another process has the default address, the broker starts without it. EMQ X: every \
         interface.",
    ),
    key(
        API_ID,
        Field::TextOrNone(|c, v| c.api.app_id = v),
        "none",
        "The id of an application that may use the API; more are added with `newtmq ctl mgmt insert`. Without any nobody may. EMQ \
         X: admin.",
    ),
    key(API_SECRET, Field::Secret(|c, v| c.api.app_secret = v), "none", "Its secret. EMQ X: public."),
    key(
        "api.max_connections",
        Field::Count(1, 65_535, |c, v| c.api.max_connections = fit(v)),
        "512",
        "Connections at a time; more are closed at once.",
    ),
    key(
        "api.max_body_size",
        Field::Size(1024, 64 * MB, |c, v| c.api.max_body_size = fit(v)),
        "1MB",
        "The largest body of a request.",
    ),
    key(
        "api.request_timeout",
        Field::Time(100, 600_000, |c, v| c.api.request_timeout = v),
        "15s",
        "How long a request may take to come, and how long to be answered.",
    ),
    key(
        "api.open_metrics",
        Field::Flag(|c, v| c.api.open_metrics = v),
        "true",
        "`/metrics` needs no application: it has counters, and no names of clients or topics.",
    ),
    key(
        API_CERTFILE,
        Field::File(|c, v| c.api.certfile = v),
        "none",
        "The certificate, as PEM; with it and `api.keyfile` the API is HTTPS.",
    ),
    key(API_KEYFILE, Field::File(|c, v| c.api.keyfile = v), "none", "The private key of the certificate."),
];

pub(super) const API_BIND: &str = "api.bind";
pub(super) const API_ID: &str = "api.app_id";
pub(super) const API_SECRET: &str = "api.app_secret";
pub(super) const API_CERTFILE: &str = "api.certfile";
pub(super) const API_KEYFILE: &str = "api.keyfile";
