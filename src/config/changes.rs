//! What is different between the configuration that a broker runs with and one that was read later.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::known::{self, Found};
use super::listener::Listener;
use super::source::Given;
use super::table::Key;
use super::types::{Config, Zone};
use super::{HIDDEN, Loaded, is_secret};

/// A key with another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its full path.
    pub key: String,
    /// What it was; nothing for its default. Secrets are not shown.
    pub from: Option<String>,
    /// What it is.
    pub to: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "the default".to_owned());
        write!(f, "{} = {} (was {})", self.key, shown(&self.to), shown(&self.from))
    }
}

impl Loaded {
    /// What is set, by key.
    #[must_use]
    pub fn values(&self) -> BTreeMap<String, String> {
        let text = |value: &Given| match value {
            Given::Text(text) => Some(text.clone()),
            Given::Other(_) | Given::EmptySection => None,
        };
        self.settings.iter().filter_map(|setting| Some((setting.key.clone(), text(&setting.value)?))).collect()
    }
}

/// What is different in `new` from a configuration and the values that led to it. Another way to write a value is no difference.
#[must_use]
pub fn changes(values: &BTreeMap<String, String>, config: &Config, new: &Loaded) -> Vec<Change> {
    let new_values = new.values();
    let keys: BTreeSet<&String> = values.keys().chain(new_values.keys()).collect();
    let mut found: Vec<Change> = keys
        .into_iter()
        .filter(|key| match is_secret(key) {
            true => secret(config, key) != secret(&new.config, key),
            false => differ(key, values.get(*key), new_values.get(*key)),
        })
        .map(|key| Change { key: key.clone(), from: values.get(key).cloned(), to: new_values.get(key).cloned() })
        .collect();
    if config.access.users != new.config.access.users {
        let hidden = Some(HIDDEN.to_owned());
        found.push(Change { key: "auth.user".to_owned(), from: hidden.clone(), to: hidden });
    }
    found
}

fn secret<'a>(config: &'a Config, key: &str) -> Option<&'a str> {
    let secret = match key {
        super::cluster_table::COOKIE => &config.node.cookie,
        super::sn_table::SN_PASSWORD => &config.sn.password,
        super::api::API_SECRET => &config.api.app_secret,
        super::table::JWT_SECRET => &config.access.jwt.secret,
        super::dashboard::FIRST_PASSWORD => &config.dashboard.first_password,
        _ => &config.cluster.etcd.login.password,
    };
    secret.as_ref().map(|secret| secret.reveal())
}

fn differ(path: &str, one: Option<&String>, other: Option<&String>) -> bool {
    if one == other {
        return false;
    }
    match known::find(path) {
        Some(Found::Root(number, key)) => leads_elsewhere(key, number, &Config::default(), one, other),
        Some(Found::Zone(name, key)) => leads_elsewhere(key, 0, &Zone::named(name), one, other),
        Some(Found::Listener(transport, name, number, key)) => {
            leads_elsewhere(key, number, &Listener::named(transport, name), one, other)
        }
        None => true,
    }
}

fn leads_elsewhere<T: Clone + PartialEq>(
    key: &Key<T>,
    number: u16,
    base: &T,
    one: Option<&String>,
    other: Option<&String>,
) -> bool {
    let with = |text: Option<&String>| {
        let mut target = base.clone();
        if let Some(text) = text {
            key.field.set(&mut target, number, text);
        }
        target
    };
    with(one) != with(other)
}

/// Whether a key can be changed while a broker runs.
#[must_use]
pub fn is_live(key: &str) -> bool {
    match key.split('.').collect::<Vec<_>>().as_slice() {
        ["log", "level"] | ["login_throttle" | "jwt", _] | ["auth", "user"] => true,
        ["allow_anonymous" | "password_file" | "acl_file" | "acl_nomatch" | "acl_deny_action"] => true,
        ["enable_acl_cache" | "acl_cache_max_size" | "acl_cache_ttl"] => true,
        ["memory", "high_watermark"] | ["listener", _, _, "max_conn_rate"] => true,
        ["listener", _, _, leaf] => {
            let of_certificates =
                ["certfile", "keyfile", "cacertfile", "verify", "fail_if_no_peer_cert", "tls_versions", "ciphers"];
            of_certificates.contains(leaf)
        }
        ["listener", _, _, "sni" | "access", ..] => true,
        _ => false,
    }
}
