//! The node among others: what it is from the configuration and its data directory, its sockets, discovery, its log of the
//! cluster, and the driver of the control plane. The rules are in `core/`; none is decided here.

#[cfg(not(madsim))]
pub mod admin;
#[cfg(not(madsim))]
mod backend;
pub mod discovery;
#[cfg(not(madsim))]
pub(crate) mod dns;
#[cfg(not(madsim))]
pub(crate) mod doctor;
pub mod driver;
#[cfg(not(madsim))]
mod etcd;
#[cfg(not(madsim))]
pub(crate) mod http;
#[cfg(not(madsim))]
mod k8s;
pub mod log;
#[cfg(not(madsim))]
mod mcast;
pub mod sockets;
pub mod tls;
pub mod told;
pub mod watched;

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
#[cfg(not(madsim))]
use newtmq_base::NodeId;
use newtmq_base::SEED_BYTES;
use newtmq_cluster::link::{self, Cookie};
use newtmq_cluster::{directory, meta, owned, swim};
use newtmq_node::{ClusterBoot, ClusterConfig, Release};
use sha2::Sha256;
use tokio::sync::mpsc;

use crate::config::{self, Barrier, Config, Discovery, OwnerDown};
use crate::data::NodeIdentity;
use crate::exit::CannotListen;
use crate::reload::Reload;
use crate::rt::{self, PeerSockets};
use discovery::{Seeker, State};
use driver::{Event, Ways};
use log::Log;
use sockets::Sockets;
use tls::LinkTls;

/// A node that is ready to meet others.
#[derive(Debug)]
pub struct Prepared {
    /// What the control plane starts from.
    pub boot: ClusterBoot,
    sockets: PeerSockets,
    log: Option<Log>,
    tls: Option<Arc<LinkTls>>,
    facts: config::Cluster,
    key: Vec<u8>,
    /// How discovery goes.
    pub state: State,
    /// Where services are asked: what they answer takes nothing of the control plane's time.
    #[cfg(not(madsim))]
    aside: tokio::runtime::Handle,
}

/// Opens what a node needs to meet others; none if it stays alone. A node without a data directory meets others only if
/// something is configured for it, for nobody knows its cookie.
///
/// # Errors
/// [`CannotListen`]; the cookie, the log of the cluster or a certificate cannot be used.
pub async fn prepare(config: &Config, node: NodeIdentity, data: Option<&Path>) -> anyhow::Result<Option<Prepared>> {
    let is_configured = is_configured(config);
    let Some(listen) = config.node.listen.filter(|_| is_configured || data.is_some()) else { return Ok(None) };
    let tls = LinkTls::new(&config.cluster.tls).context("cluster.tls")?.map(Arc::new);
    let (sockets, bound) = match rt::listen_to_peers(listen).await {
        Ok(open) => open,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && !is_configured => {
            tracing::warn!(
                address = %listen,
                "another process has this address: this node stays alone; set node.listen, or to none for a node alone"
            );
            return Ok(None);
        }
        Err(source) => return Err(CannotListen { listener: "node.listen".to_owned(), address: listen, source }.into()),
    };
    let address = config.node.advertised(bound).context("node.advertise is needed")?;
    let cookie = match (&config.node.cookie, data) {
        (Some(cookie), _) => cookie.reveal().as_bytes().to_vec(),
        // Links ask for certificates instead; what is sent without them is only kept apart from other clusters.
        (None, _) if tls.is_some() => config.cluster.name.as_bytes().to_vec(),
        (None, Some(data)) => own_cookie(data)?,
        (None, None) => rt::seed()?.to_vec(),
    };
    let key = key(config, &cookie);
    let birth = random()?;
    let (log, read) = match data {
        Some(data) => {
            let (log, read) = Log::open(&data.join(CLUSTER_FOLDER), node.node_id, birth)?;
            (Some(log), read)
        }
        None => (None, log::Read { birth, ..log::Read::default() }),
    };
    if read.torn > 0 {
        tracing::info!(bytes = read.torn, "cut off the torn end of the log of the cluster");
    }
    let boot = ClusterBoot {
        config: cluster_config(config, &cookie, log.is_some())?,
        node: node.node_id,
        birth: read.birth,
        incarnation: node.incarnation,
        name: name(config, address),
        address,
        seed: seed()?,
        stored: read.records,
    };
    boot.verify().map_err(|error| anyhow::anyhow!("the log of the cluster is not one of this node: {error}"))?;
    tracing::info!(listen = %bound, %address, name = boot.name, cluster = config.cluster.name, "other nodes are accepted");
    Ok(Some(Prepared {
        boot,
        sockets,
        log,
        tls,
        facts: config.cluster.clone(),
        key,
        state: State::of(config.cluster.discovery.word()),
        #[cfg(not(madsim))]
        aside: tokio::runtime::Handle::current(),
    }))
}

/// Whether a key says that the node is to meet others.
fn is_configured(config: &Config) -> bool {
    let Config { node, cluster, .. } = config;
    node.cookie.is_some()
        || node.listen != Config::default().node.listen
        || node.advertise.is_some()
        || cluster.discovery != Discovery::Manual
        || cluster.tls.is_on()
}

/// The name of a node that has none of its own says where it is, so that two are told apart.
#[must_use]
pub fn name(config: &Config, address: SocketAddr) -> String {
    let given = &config.node.name;
    if *given != Config::default().node.name {
        return given.clone();
    }
    let ip = if address.is_ipv6() { format!("[{}]", address.ip()) } else { address.ip().to_string() };
    match address.port() {
        config::CLUSTER_PORT => format!("newtmq@{ip}"),
        port => format!("newtmq@{ip}:{port}"),
    }
}

fn cluster_config(config: &Config, cookie: &[u8], stored: bool) -> anyhow::Result<ClusterConfig> {
    let facts = &config.cluster;
    Ok(ClusterConfig {
        name: facts.name.clone(),
        cookie: Cookie::new(cookie).context("the cookie is empty")?,
        discovers: facts.discovery != Discovery::Manual,
        witness: facts.witness,
        strict: facts.barrier == Barrier::Strict,
        links: link::Config::default(),
        swim: swim::Config::default(),
        meta: meta::Config { autoclean: facts.autoclean, ..meta::Config::default() },
        owned: owned::Config { stored, ..owned::Config::default() },
        directory: directory::Config {
            away_home: match facts.owner_down {
                OwnerDown::Wait => directory::AwayHome::Wait,
                OwnerDown::Fresh => directory::AwayHome::Fresh,
            },
            ..directory::Config::default()
        },
        max_retained: usize::try_from(config.retained.max_retained_messages).unwrap_or(usize::MAX),
        release: Release::default(),
    })
}

/// The key of announcements.
fn key(config: &Config, cookie: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(cookie).expect("HMAC takes keys of any length");
    mac.update(KEY_DOMAIN);
    mac.update(config.cluster.name.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// The cookie of a data directory, made if there is none.
fn own_cookie(data: &Path) -> anyhow::Result<Vec<u8>> {
    let path = data.join(COOKIE_FILE);
    let at = || format!("the cookie in {}", path.display());
    match fs::read_to_string(&path) {
        Ok(text) => {
            let text = text.trim();
            anyhow::ensure!(!text.is_empty(), "{} is empty; delete it, or set node.cookie", at());
            return Ok(text.as_bytes().to_vec());
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(at),
    }
    let cookie: String = rt::seed()?.iter().map(|byte| format!("{byte:02x}")).collect();
    write_secret(data, &path, &cookie).with_context(at)?;
    Ok(cookie.into_bytes())
}

/// A file that only its owner can read, from its first moment, and whole or not there.
fn write_secret(data: &Path, path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let _ = fs::remove_file(&temporary);
    let mut options = OpenOptions::new();
    options.create_new(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    fs::File::open(data)?.sync_all()
}

fn seed() -> anyhow::Result<[u8; SEED_BYTES]> {
    rt::seed().context("random bytes from the operating system")
}

fn random() -> anyhow::Result<u64> {
    Ok(u64::from_le_bytes(*seed()?.first_chunk().expect("a seed is longer")))
}

impl Prepared {
    /// What can be read again while it runs.
    #[must_use]
    pub fn reloadable(&self) -> Option<Arc<dyn Reload>> {
        self.tls.clone().map(|tls| tls as Arc<dyn Reload>)
    }

    /// Opens the ways to other nodes: tasks that tell `events` what happens, until it is closed. Inside the runtime of the
    /// control plane.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open(self, events: &mpsc::Sender<Event>) -> io::Result<Ways> {
        let (boot, tls) = (&self.boot, self.tls.clone());
        let (listener, datagrams) = self.sockets.open()?;
        let datagrams = Arc::new(datagrams);
        let from = listener.local_addr()?.ip();
        let sockets = Sockets {
            events: events.clone(),
            from: (!from.is_unspecified()).then_some(from),
            tls,
            dial_timeout: boot.config.links.dial_timeout,
        };
        tokio::spawn(sockets.clone().accept(listener));
        tokio::spawn(sockets.clone().receive(Arc::clone(&datagrams)));
        let (packets, to_send) = mpsc::channel(PACKETS_MAX);
        let sending = tokio::spawn(sockets::send(datagrams, to_send));
        let log = self.log.map(|log| log.start(events.clone())).transpose()?;
        let seeker = Seeker {
            name: boot.name.clone(),
            address: boot.address,
            expected_size: usize::from(self.facts.expected_size),
            events: events.clone(),
            state: self.state,
        };
        #[cfg(not(madsim))]
        discover(seeker, boot.node, self.facts, self.key, &self.aside);
        #[cfg(madsim)]
        discover(seeker, self.facts, self.key);
        Ok(Ways { sockets, packets, sending, log })
    }
}

#[cfg(not(madsim))]
fn discover(seeker: Seeker, node: NodeId, facts: config::Cluster, key: Vec<u8>, aside: &tokio::runtime::Handle) {
    match facts.discovery {
        Discovery::Manual => {}
        Discovery::Static => drop(tokio::spawn(seeker.of_list(facts.seeds))),
        Discovery::Mcast => {
            let announced = mcast::Announced { key, cluster: facts.name, node };
            drop(tokio::spawn(seeker.of_mcast(facts.mcast, announced)));
        }
        Discovery::Dns => {
            let config::Dns { name, app, kind } = facts.dns;
            if let Some(name) = name {
                drop(tokio::spawn(seeker.of_dns(name, app, kind)));
            }
        }
        Discovery::Etcd => {
            let own = etcd::Registered { cluster: facts.name, node };
            drop(aside.spawn(seeker.of_etcd(facts.etcd, own, backend::Pace::USUAL)));
        }
        Discovery::K8s => drop(aside.spawn(seeker.of_k8s(facts.k8s, backend::Pace::USUAL))),
    }
}

/// The simulator has neither groups nor services.
#[cfg(madsim)]
fn discover(seeker: Seeker, facts: config::Cluster, key: Vec<u8>) {
    match facts.discovery {
        Discovery::Manual | Discovery::Etcd | Discovery::K8s => {}
        Discovery::Mcast => drop(key),
        Discovery::Static => drop(tokio::spawn(seeker.of_list(facts.seeds))),
        Discovery::Dns => {
            let config::Dns { name, app, kind } = facts.dns;
            if let Some(name) = name {
                drop(tokio::spawn(seeker.of_dns(name, app, kind)));
            }
        }
    }
}

/// Where `newtmq ctl` finds the broker.
#[must_use]
pub fn socket_path(socket: Option<&Path>, data: Option<&Path>) -> Option<PathBuf> {
    socket.map(Path::to_owned).or_else(|| data.map(|data| data.join(SOCKET_FILE)))
}

/// The version of what `newtmq ctl` and a broker say to each other.
pub const CTL_VERSION: u64 = 1;
/// The socket in a data directory.
pub const SOCKET_FILE: &str = "newtmq.sock";
/// In the data directory: what the node has promised to its cluster.
const CLUSTER_FOLDER: &str = "cluster";
/// In the data directory: what lets nodes in, if the configuration does not say it.
const COOKIE_FILE: &str = "cookie";
const KEY_DOMAIN: &[u8] = b"newtmq cluster key 1";
/// Datagrams that wait to be sent; more are lost.
const PACKETS_MAX: usize = 1024;
/// Events that wait for the driver; who has more waits.
pub const EVENTS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};
    use crate::data::tests::Scratch;

    fn configured(sets: &[&str]) -> Config {
        load(&Sources { sets: sets.iter().map(|set| (*set).to_owned()).collect(), ..Sources::default() })
            .unwrap()
            .config
    }

    #[test]
    fn a_cookie_is_made_once_and_only_its_owner_reads_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let scratch = Scratch::new("cookie");
        fs::create_dir_all(&scratch.0).unwrap();
        let cookie = own_cookie(&scratch.0).unwrap();
        assert_eq!((cookie.len(), own_cookie(&scratch.0).unwrap()), (2 * SEED_BYTES, cookie));
        let file = scratch.0.join(COOKIE_FILE);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&file, "\n").unwrap();
        assert!(own_cookie(&scratch.0).unwrap_err().to_string().contains("is empty"));
    }

    #[test]
    fn the_cookie_is_not_shown() {
        let config = configured(&["node.cookie=s3cr3t"]);
        let told = cluster_config(&config, b"s3cr3t", true).unwrap();
        assert!(!format!("{config:?}{told:?}").contains("s3cr3t"));
    }

    #[test]
    fn keys_differ_by_cookie_and_cluster() {
        let keys = [("a", "c"), ("b", "c"), ("a", "d")].map(|(cookie, name)| {
            let config = configured(&[&format!("node.cookie={cookie}"), &format!("cluster.name={name}")]);
            key(&config, cookie.as_bytes())
        });
        assert!(keys[0] != keys[1] && keys[0] != keys[2] && keys[1] != keys[2]);
    }

    #[test]
    fn names() {
        for (sets, address, want) in [
            (&[][..], "127.0.0.2:4370", "newtmq@127.0.0.2"),
            (&[], "127.0.0.1:4371", "newtmq@127.0.0.1:4371"),
            (&[], "[::1]:4370", "newtmq@[::1]"),
            (&["node.name=emqx@a"], "127.0.0.2:4370", "emqx@a"),
        ] {
            assert_eq!(name(&configured(sets), address.parse().unwrap()), want);
        }
    }
}
