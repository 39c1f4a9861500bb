//! The configuration: TOML with the key names of EMQ X, or an `emqx.conf`, overridden by the environment and by `--set`.
//!
//! This module turns text into a [`Config`] that is checked as a whole, or into [`Problems`] that name every mistake at
//! once. It never starts anything, and it never ignores a key: what is neither a key nor known from EMQ X is an error.

#[macro_use]
mod words;

mod api;
mod changes;
mod cluster;
mod cluster_table;
mod dashboard;
mod discovery;
mod discovery_table;
mod docs;
mod effective;
mod emqx;
mod import;
mod known;
mod listener;
mod listener_table;
mod mosquitto;
mod problem;
mod sn;
mod sn_table;
mod source;
mod table;
mod types;
mod value;
mod zone_table;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use api::Api;
pub use changes::{Change, changes, is_live};
pub use cluster::{
    Barrier, CLUSTER_PORT, Cluster, ClusterTls, Discovery, Dns, DnsKind, ForwardQos0, Mcast, Node, OwnerDown, Secret,
    Seed,
};
pub use dashboard::{AlarmLimits, Dashboard};
pub use discovery::{AddressType, Etcd, EtcdLogin, K8s, K8sResource, Url};
pub use docs::{markdown, migration, sample};
pub use effective::effective;
pub use emqx::{Difference, Effect, plugins};
pub use import::{Import, import};
pub use listener::{
    AccessRule, CERTIFICATE_FILE, CERTIFICATE_FOLDER, CIPHERS, CertificateFiles, KEY_FILE, Listener, PeerName, Sni,
    Tls, TlsVersion, Transport, Verify,
};
pub use problem::{Fault, Origin, Problem, Problems};
pub use sn::{Qos3, Sn};
pub use source::{Given, Setting};
pub use types::{
    Access, AclDenyAction, AclNomatch, AuthHttp, Bandwidth, Broker, Config, DefaultPriority, Durability, HttpRequest,
    Jwt, Log, LogFormat, LogLevel, LoginThrottle, Memory, Mqtt, PerTime, Retained, SharedStrategy, Store, Watermark,
    Zone,
};
pub(crate) use value::duration;

use cluster_table::{
    ADVERTISE, COOKIE, DISCOVERY, DNS_NAME, LISTEN, MCAST_ADDR, NODE_NAME, SEEDS, TLS_CACERTFILE, TLS_CERTFILE,
    TLS_KEYFILE,
};
use known::Found;
use listener_table::LISTENER_SECTION;
use source::Read;
use table::Key;
use types::STANDARD_ZONES;

/// Everything that can set a key, the weakest first.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file, if any.
    pub file: Option<PathBuf>,
    /// Environment variables; others than ours are passed over.
    pub environment: Vec<(String, String)>,
    /// `KEY=VALUE` of each `--set`, in order.
    pub sets: Vec<String>,
}

/// A configuration that holds, and what led to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What the sources set, in their order; the last of a key counts.
    pub settings: Vec<Setting>,
    /// What is allowed but probably not meant, a sentence each.
    pub notes: Vec<String>,
    /// What keys of an `emqx.conf` do not do here, or not as in EMQ X.
    pub differences: Vec<Difference>,
    /// No source names a listener.
    standard_listeners: bool,
}

impl Loaded {
    /// Gives each listener with TLS that names no certificate the one in this folder. If the listeners are the standard
    /// ones, those with TLS join them as soon as the folder has a certificate.
    ///
    /// # Errors
    /// A listener names no certificate and there is no folder.
    pub fn with_certificates(mut self, folder: Option<&Path>) -> Result<Loaded, Problems> {
        if self.standard_listeners
            && let Some(folder) = folder
            && [CERTIFICATE_FILE, KEY_FILE].iter().all(|file| folder.join(file).is_file())
        {
            self.config.listeners.extend(Listener::standard_with_tls());
        }
        let mut problems = Vec::new();
        for listener in self.config.listeners.iter_mut().filter(|listener| listener.transport.has_tls()) {
            match folder {
                Some(folder) => listener.default_certificate(folder),
                None if listener.tls.certificate.certfile.is_none() => {
                    let fault = Fault::NoCertificate { listener: listener.path() };
                    problems.push(Problem { origin: None, fault });
                }
                None => {}
            }
        }
        if problems.is_empty() { Ok(self) } else { Err(Problems(problems)) }
    }

    /// Says what `durability = "auto"` is, with a data directory or without.
    ///
    /// # Errors
    /// Something is to be stored, and there is no data directory.
    pub fn with_storage(mut self, has_data: bool) -> Result<Loaded, Problems> {
        let mut problems = Vec::new();
        for (name, zone) in &mut self.config.zones {
            match zone.durability {
                Durability::Auto if has_data => zone.durability = Durability::Group,
                Durability::Auto => zone.durability = Durability::Memory,
                Durability::Memory => {}
                Durability::None | Durability::Group | Durability::Always if has_data => {}
                Durability::None | Durability::Group | Durability::Always => {
                    let key = format!("{}.{name}.{}", table::ZONE_SECTION, table::DURABILITY);
                    let origin = self.settings.iter().rev().find(|set| set.key == key).map(|set| set.origin.clone());
                    let fault = Fault::Needs { key, needs: "it needs `--data DIR`, where sessions are stored" };
                    problems.push(Problem { origin, fault });
                }
            }
        }
        if problems.is_empty() { Ok(self) } else { Err(Problems(problems)) }
    }
}

/// Reads the sources and checks what they say.
///
/// # Errors
/// Every problem of every source.
pub fn load(sources: &Sources) -> Result<Loaded, Problems> {
    let mut read = Read::default();
    if let Some(file) = &sources.file {
        read.file(file);
    }
    finish(read, sources)
}

/// Like [`load`], with the text of the file; `name` stands for it in errors.
///
/// # Errors
/// Every problem of every source.
pub fn load_text(name: &str, text: &str, sources: &Sources) -> Result<Loaded, Problems> {
    let mut read = Read::default();
    read.text(name, text, false);
    finish(read, sources)
}

fn finish(read: Read, sources: &Sources) -> Result<Loaded, Problems> {
    let mut loaded = judged(read, sources)?;
    for setting in loaded.settings.iter_mut().filter(|setting| is_secret(&setting.key)) {
        setting.value = Given::Text(HIDDEN.to_owned());
    }
    Ok(loaded)
}

/// With secrets as they are.
fn judged(mut read: Read, sources: &Sources) -> Result<Loaded, Problems> {
    read.environment(&sources.environment);
    for set in &sources.sets {
        read.set(set);
    }
    let mut build = Build::new(std::mem::take(&mut read.problems));
    build.config.access.users = std::mem::take(&mut read.users);
    for setting in &read.settings {
        build.apply(setting);
    }
    let config = if read.partial { None } else { build.check() };
    match config {
        Some(config) if build.problems.is_empty() => {
            let notes = notes(&config, &read.ignored);
            let standard_listeners = build.standard_listeners;
            let differences = read.differences;
            Ok(Loaded { config, settings: read.settings, notes, differences, standard_listeners })
        }
        _ => Err(Problems(build.problems)),
    }
}

fn notes(config: &Config, ignored: &[String]) -> Vec<String> {
    let used: BTreeSet<&str> = config.listeners.iter().map(|listener| listener.zone.as_str()).collect();
    let unused = config.zones.keys().filter(|zone| !used.contains(zone.as_str()));
    let named = config.listeners.iter().filter(|l| l.peer_cert_as_username != PeerName::None);
    let unasked = named.filter(|l| l.transport.has_tls() && l.tls.verify == Verify::None && !l.proxy_protocol);
    let mut notes: Vec<String> = unused.map(|zone| format!("no listener has the zone {zone}")).collect();
    let users = match config.access.password_file {
        Some(_) => Some("password_file is set"),
        None => (!config.access.users.is_empty()).then_some("there are users"),
    };
    if let Some(users) = users.filter(|_| config.access.allow_anonymous) {
        notes.push(format!("{users}, and allow_anonymous lets in clients without a user name"));
    }
    notes.extend(
        unasked.map(|l| format!("{}: no client is asked for a certificate without verify = verify_peer", l.path())),
    );
    let open = |l: &&Listener| config.zones.get(&l.zone).is_some_and(|zone| !zone.enable_auth);
    let reachable = |l: &&Listener| !l.bind.ip().to_canonical().is_loopback();
    let exposed = config.listeners.iter().filter(|_| !config.access.allow_anonymous).filter(open).filter(reachable);
    notes.extend(exposed.map(|l| {
        format!("{} can be reached from other machines, and the zone {} asks nobody for a login", l.path(), l.zone)
    }));
    let mute = |l: &&Listener| l.transport == Transport::Sn && config.zones.get(&l.zone).is_some_and(|z| z.enable_auth);
    let nameless = !config.access.allow_anonymous && config.sn.username.is_none();
    let devices = config.listeners.iter().filter(|_| nameless).filter(mute);
    notes.extend(devices.map(|l| format!("{}: no device can log in without mqtt.sn.username", l.path())));
    let is_known = config.node.cookie.as_ref().is_some_and(|cookie| cookie.reveal() == EMQX_COOKIE);
    if is_known && config.node.listen.is_some_and(|listen| !listen.ip().to_canonical().is_loopback()) {
        notes.push(format!("node.cookie is {EMQX_COOKIE}, which everybody knows: any machine could join the cluster"));
    }
    if !ignored.is_empty() {
        notes.push(format!("these environment variables name no key and are ignored: {}", ignored.join(", ")));
    }
    notes
}

/// The configuration while settings are applied to it.
struct Build {
    config: Config,
    /// The last origin of each key, for problems between keys.
    origins: BTreeMap<String, Origin>,
    /// Keys whose value was refused: what holds between them and others cannot be judged.
    refused: BTreeSet<String>,
    problems: Vec<Problem>,
    /// No source names a listener.
    standard_listeners: bool,
}

impl Build {
    fn new(problems: Vec<Problem>) -> Build {
        let config = Config { listeners: Vec::new(), zones: BTreeMap::new(), ..Config::default() };
        let (origins, refused) = (BTreeMap::new(), BTreeSet::new());
        Build { config, origins, refused, problems, standard_listeners: false }
    }

    fn apply(&mut self, setting: &Setting) {
        let Setting { key, value, origin } = setting;
        if *value == Given::EmptySection {
            return self.empty_section(key, origin);
        }
        let fault = match known::find(key) {
            Some(Found::Listener(transport, name, number, known)) => {
                set(known, self.listener(transport, name), number, key, value)
            }
            Some(Found::Zone(name, known)) => set(known, self.zone(name), 0, key, value),
            Some(Found::Root(number, known)) => set(known, &mut self.config, number, key, value),
            None => Some(unknown(key)),
        };
        match fault {
            Some(fault) => {
                self.refused.insert(key.clone());
                self.problem(Some(origin.clone()), fault);
            }
            None => drop(self.origins.insert(key.clone(), origin.clone())),
        }
    }

    /// `[zone.internal]` with nothing below it is a zone with defaults.
    fn empty_section(&mut self, key: &str, origin: &Origin) {
        match key.split('.').collect::<Vec<_>>()[..] {
            ["zone", name] if known::is_section(key) => drop(self.zone(name)),
            // `listener.tcp.NAME` reads as the short form of its address.
            [LISTENER_SECTION, transport, name, "bind"] => {
                if let Some(transport) = known::transport_of(transport) {
                    self.listener(transport, name);
                }
            }
            _ if known::is_section(key) => {}
            _ => self.problem(Some(origin.clone()), unknown(key)),
        }
    }

    fn listener(&mut self, transport: Transport, name: &str) -> &mut Listener {
        let listeners = &mut self.config.listeners;
        let this = |listener: &Listener| listener.transport == transport && listener.name == name;
        let at = listeners.iter().position(this).unwrap_or_else(|| {
            listeners.push(Listener::named(transport, name));
            listeners.len() - 1
        });
        &mut listeners[at]
    }

    fn zone(&mut self, name: &str) -> &mut Zone {
        self.config.zones.entry(name.to_owned()).or_insert_with(|| Zone::named(name))
    }

    fn problem(&mut self, origin: Option<Origin>, fault: Fault) {
        self.problems.push(Problem { origin, fault });
    }

    fn origin(&self, keys: &[String]) -> Option<Origin> {
        keys.iter().find_map(|key| self.origins.get(key)).cloned()
    }

    /// What the keys of the cluster need of each other.
    fn check_cluster(&mut self, config: &Config) {
        let Config { node, cluster, .. } = config;
        let tls = &cluster.tls;
        let secured = node.cookie.is_some() || tls.is_on();
        let of = cluster.discovery;
        let mut needs = |key: &str, others: &[&str], wrong: bool, needs: &'static str| {
            let judged = !self.refused.contains(key) && !others.iter().any(|other| self.refused.contains(*other));
            if wrong && judged {
                let key = key.to_owned();
                let origin = self.origin(std::slice::from_ref(&key));
                self.problem(origin, Fault::Needs { key, needs });
            }
        };
        let reachable = node.listen.filter(|listen| !listen.ip().to_canonical().is_loopback());
        let who = [COOKIE, TLS_CERTFILE];
        needs(
            LISTEN,
            &who,
            reachable.is_some() && !secured,
            "other machines can reach this address, which needs `node.cookie` or `cluster.tls.certfile`",
        );
        needs(
            LISTEN,
            &[ADVERTISE, NODE_NAME],
            reachable.is_some_and(|listen| node.advertised(listen).is_none()),
            "every interface needs `node.advertise`, or an IP address in `node.name`, to say where others reach it",
        );
        let unusable = |address: SocketAddr| address.ip().is_unspecified() || address.port() == 0;
        needs(ADVERTISE, &[], node.advertise.is_some_and(unusable), "other nodes can reach no such address");
        needs(ADVERTISE, &[LISTEN], node.advertise.is_some() && node.listen.is_none(), "it needs `node.listen`");
        let finds = of != Discovery::Manual;
        needs(DISCOVERY, &who, finds && !secured, "it needs `node.cookie` or `cluster.tls.certfile`");
        needs(DISCOVERY, &[LISTEN], finds && node.listen.is_none(), "it needs `node.listen`");
        needs(
            DISCOVERY,
            &[SEEDS],
            of == Discovery::Static && cluster.seeds.is_empty(),
            "static needs `cluster.static.seeds`",
        );
        needs(
            DISCOVERY,
            &[DNS_NAME],
            of == Discovery::Dns && cluster.dns.name.is_none(),
            "dns needs `cluster.dns.name`",
        );
        needs(MCAST_ADDR, &[], !cluster.mcast.addr.is_multicast(), "it must be from 224.0.0.0 to 239.255.255.255");
        let files = [(TLS_CERTFILE, &tls.certfile), (TLS_KEYFILE, &tls.keyfile), (TLS_CACERTFILE, &tls.cacertfile)];
        let whole = files.iter().all(|(_, file)| file.is_some());
        for (key, file) in files {
            needs(
                key,
                &files.map(|(key, _)| key),
                file.is_some() && !whole,
                "certfile, keyfile and cacertfile belong together",
            );
        }
    }

    /// Checks what holds between keys, and fills in what exists without being named.
    fn check(&mut self) -> Option<Config> {
        if self.config.listeners.iter().all(|listener| listener.transport == Transport::Sn) {
            self.standard_listeners = true;
            self.config.listeners.splice(0..0, Listener::standard());
        }
        for name in STANDARD_ZONES {
            if self.config.listeners.iter().any(|listener| listener.zone == name) {
                self.zone(name);
            }
        }
        let config = self.config.clone();
        self.check_listeners(&config);
        self.check_cluster(&config);
        self.check_discovery(&config.cluster);
        self.check_sn(&config);
        self.check_api(&config.api);
        for (name, zone) in &config.zones {
            let keys = ["max_mqueue_len", "max_inflight"].map(|leaf| format!("{}.{name}.{leaf}", table::ZONE_SECTION));
            let readable = keys.iter().all(|key| !self.refused.contains(key));
            let (queue, inflight) = (zone.max_mqueue_len, zone.max_inflight);
            if readable && u32::from(queue) + u32::from(inflight) >= PACKET_IDENTIFIERS {
                let origin = self.origin(&keys);
                self.problem(origin, Fault::TooManyIdentifiers { zone: name.clone(), queue, inflight });
            }
        }
        let password_file = table::PASSWORD_FILE.to_owned();
        if !config.access.allow_anonymous
            && config.access.password_file.is_none()
            && config.access.users.is_empty()
            && !config.access.user_table
            && !config.access.jwt.is_on()
            && config.access.http.auth.urls.is_empty()
            && !self.refused.contains(&password_file)
        {
            self.problem(self.origin(&[table::ALLOW_ANONYMOUS.to_owned()]), Fault::NoAuthenticator);
        }
        Some(config)
    }

    fn check_sn(&mut self, config: &Config) {
        let key = sn_table::SN_PASSWORD.to_owned();
        if config.sn.password.is_some() && config.sn.username.is_none() && !self.refused.contains(sn_table::SN_USERNAME)
        {
            let origin = self.origin(std::slice::from_ref(&key));
            self.problem(origin, Fault::Needs { key, needs: "it needs `mqtt.sn.username`" });
        }
    }

    /// What belongs together.
    fn check_api(&mut self, api: &Api) {
        let pairs = [
            ((api::API_ID, api.app_id.is_some()), (api::API_SECRET, api.app_secret.is_some())),
            ((api::API_CERTFILE, api.certfile.is_some()), (api::API_KEYFILE, api.keyfile.is_some())),
        ];
        for ((one, has_one), (other, has_other)) in pairs {
            if has_one != has_other && !self.refused.contains(one) && !self.refused.contains(other) {
                let key = if has_one { one } else { other }.to_owned();
                let needs = if has_one { other } else { one };
                let needs = match needs {
                    api::API_ID => "it needs `api.app_id`",
                    api::API_SECRET => "it needs `api.app_secret`",
                    api::API_CERTFILE => "it needs `api.certfile`",
                    _ => "it needs `api.keyfile`",
                };
                self.problem(self.origin(std::slice::from_ref(&key)), Fault::Needs { key, needs });
            }
        }
    }

    fn check_listeners(&mut self, config: &Config) {
        let mut addressed = Vec::new();
        for listener in &config.listeners {
            self.check_address(listener, &mut addressed);
            if !config.zones.contains_key(&listener.zone) {
                let zone = listener.zone.clone();
                let suggestion = known::nearest(&zone, config.zones.keys().map(String::as_str)).map(str::to_owned);
                let origin = self.origin(&[listener_key(listener, "zone")]);
                self.problem(origin, Fault::NoZone { listener: listener.path(), zone, suggestion });
            }
            self.check_transport(listener);
        }
    }

    /// What the keys of a listener need of each other.
    fn check_transport(&mut self, listener: &Listener) {
        let tls = &listener.tls;
        let asks = tls.verify == Verify::Peer;
        let named = listener.peer_cert_as_username != PeerName::None;
        let has_tls = listener.transport.has_tls();
        let file = |files: &CertificateFiles| (files.certfile.is_some(), files.keyfile.is_some());
        let mut needs = |leaf: &str, wrong: bool, needs: &'static str| {
            if wrong {
                let key = listener_key(listener, leaf);
                let origin = self.origin(std::slice::from_ref(&key));
                self.problem(origin, Fault::Needs { key, needs });
            }
        };
        needs("verify", asks && tls.cacertfile.is_none(), "verify_peer needs `cacertfile`");
        needs("fail_if_no_peer_cert", tls.fail_if_no_peer_cert && !asks, "it needs `verify = verify_peer`");
        needs("certfile", file(&tls.certificate) == (true, false), "it needs `keyfile`");
        needs("keyfile", file(&tls.certificate) == (false, true), "it needs `certfile`");
        let by_proxy = listener.proxy_protocol && listener.peer_cert_as_username == PeerName::Cn;
        let from_nowhere = named && !has_tls && !by_proxy;
        needs(
            "peer_cert_as_username",
            from_nowhere,
            "without TLS it can only be cn, and needs `proxy_protocol = true`",
        );
        let usable = |at: &usize| tls.versions.contains(&TlsVersion::of_cipher(*at));
        needs(
            "ciphers",
            has_tls && !tls.ciphers.iter().any(usable),
            "none of them belongs to a version in `tls_versions`",
        );
        let mut names = BTreeSet::new();
        for (number, sni) in &tls.sni {
            let leaf = format!("sni.{number}.hostname");
            let again = !sni.hostname.is_empty() && !names.insert(sni.hostname.to_ascii_lowercase());
            needs(&leaf, again, "each name has one certificate; another number has this name");
            let whole = !sni.hostname.is_empty() && file(&sni.certificate) == (true, true);
            needs(&leaf, !whole, "hostname, certfile and keyfile of one number belong together");
        }
    }

    fn check_address<'a>(&mut self, listener: &'a Listener, addressed: &mut Vec<&'a Listener>) {
        let key = listener_key(listener, "bind");
        if self.refused.contains(&key) {
            return;
        }
        let origin = self.origin(&[key]);
        if origin.is_none() && !listener.is_standard() {
            return self.problem(None, Fault::NoAddress { listener: listener.path() });
        }
        let is_udp = |listener: &Listener| listener.transport == Transport::Sn;
        let same = |other: &&&Listener| {
            other.bind == listener.bind && listener.bind.port() != 0 && is_udp(other) == is_udp(listener)
        };
        if let Some(first) = addressed.iter().find(same) {
            let (first, second) = (first.path(), listener.path());
            self.problem(origin, Fault::SameAddress { first, second, address: listener.bind.to_string() });
        }
        addressed.push(listener);
    }
}

fn listener_key(listener: &Listener, leaf: &str) -> String {
    format!("{}.{leaf}", listener.path())
}

fn set<T>(known: &Key<T>, target: &mut T, number: u16, key: &str, value: &Given) -> Option<Fault> {
    let (found, suggestion) = match value {
        Given::Text(text) => {
            if known.field.set(target, number, text).is_some() {
                return None;
            }
            let near = known::nearest(&text.to_ascii_lowercase(), known.field.words().iter().copied());
            if known.field.hides(text) {
                ("what is given".to_owned(), None)
            } else {
                (format!("`{text}`"), near.map(str::to_owned))
            }
        }
        Given::Other(what) => ((*what).to_owned(), None),
        Given::EmptySection => ("a section".to_owned(), None),
    };
    Some(Fault::BadValue { key: key.to_owned(), found, expected: known.field.expected(), suggestion })
}

fn is_secret(key: &str) -> bool {
    matches!(known::find(key), Some(Found::Root(_, known)) if known.field.is_secret())
}

fn unknown(key: &str) -> Fault {
    let key = key.to_owned();
    if let Some(name) = known::renamed(&key) {
        Fault::Renamed { key, name }
    } else if known::of_emqx(&key) {
        Fault::Unsupported { key }
    } else if known::is_section(&key) {
        Fault::Section { key }
    } else {
        let suggestion = known::suggest(&key);
        Fault::UnknownKey { key, suggestion }
    }
}

/// What `emqx.conf` has for a cookie if nobody changes it.
const EMQX_COOKIE: &str = "emqxsecretcookie";

/// What is shown of a secret.
const HIDDEN: &str = "(not shown)";

/// Packet identifiers are 1 to 65535; a session needs one for each message that waits or is in flight.
const PACKET_IDENTIFIERS: u32 = 65_535;
