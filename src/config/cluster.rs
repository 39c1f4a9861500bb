//! `node.*` and `cluster.*`: who the node is to others, how they are found, and what lets them in.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::discovery::{Etcd, K8s};

/// `node.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Name for people, as in `newtmq@127.0.0.1`.
    pub name: String,
    /// What lets other nodes in; none is a random one.
    pub cookie: Option<Secret>,
    /// Where other nodes are accepted, by TCP and UDP; none for a node that is alone.
    pub listen: Option<SocketAddr>,
    /// Where other nodes reach it, if that is another address.
    pub advertise: Option<SocketAddr>,
}

impl Node {
    /// Where other nodes reach it when it listens at `listen`; none if nothing says so.
    #[must_use]
    pub fn advertised(&self, listen: SocketAddr) -> Option<SocketAddr> {
        if let Some(address) = self.advertise {
            return Some(address);
        }
        if !listen.ip().is_unspecified() {
            return Some(listen);
        }
        let host = self.name.split_once('@').map_or("", |(_, host)| host);
        let ip: IpAddr = host.trim_matches(['[', ']']).parse().ok()?;
        (!ip.is_loopback() && !ip.is_unspecified()).then(|| SocketAddr::new(ip, listen.port()))
    }
}

/// `cluster.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// All nodes of a cluster have the same.
    pub name: String,
    /// How other nodes are found.
    pub discovery: Discovery,
    /// A node found by discovery founds a cluster only together with so many, itself among them; 0 is with any number.
    pub expected_size: u16,
    /// Other nodes, of which this one may be one.
    pub seeds: Vec<Seed>,
    /// `cluster.mcast.*`
    pub mcast: Mcast,
    /// `cluster.dns.*`
    pub dns: Dns,
    /// `cluster.etcd.*`
    pub etcd: Etcd,
    /// `cluster.k8s.*`
    pub k8s: K8s,
    /// A member that is down for so long is removed; none is never.
    pub autoclean: Option<Duration>,
    /// What a SUBACK waits for.
    pub barrier: Barrier,
    /// What becomes of clients whose stored sessions are at a node that is down.
    pub owner_down: OwnerDown,
    /// What becomes of QoS 0 messages for a node that takes no more.
    pub forward_qos0: ForwardQos0,
    /// Bytes of messages that are kept for the stored sessions of a node that is away, for each node.
    pub hints_bytes: u64,
    /// The node votes, and has no clients.
    pub witness: bool,
    /// `cluster.tls.*`
    pub tls: ClusterTls,
}

/// `cluster.mcast.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mcast {
    /// The group.
    pub addr: Ipv4Addr,
    /// Where it is announced; the first one that is free is where this node listens.
    pub ports: Vec<u16>,
    /// The interface, by its address.
    pub iface: Ipv4Addr,
    /// How many routers may pass an announcement on.
    pub ttl: u8,
    /// Nodes on the same machine hear it, too.
    pub is_looped: bool,
}

/// `cluster.dns.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// The name that is asked for.
    pub name: Option<String>,
    /// The part before `@` in the names of nodes.
    pub app: String,
    /// Which records.
    pub kind: DnsKind,
}

/// `cluster.tls.*`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterTls {
    /// The node's certificate.
    pub certfile: Option<PathBuf>,
    /// Its key.
    pub keyfile: Option<PathBuf>,
    /// Whose certificates are let in.
    pub cacertfile: Option<PathBuf>,
}

impl ClusterTls {
    /// Links are encrypted, and authenticated by certificates.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.certfile.is_some()
    }
}

words! {
    /// How other nodes are found.
    Discovery {
        /// By `newtmq ctl cluster join`.
        Manual = "manual",
        /// By a list.
        Static = "static",
        /// By multicast.
        Mcast = "mcast",
        /// By a name with an address for each node.
        Dns = "dns",
        /// By keys in etcd.
        Etcd = "etcd",
        /// By the endpoints of a service of Kubernetes.
        K8s = "k8s",
    }
}

words! {
    /// Which records of a name are asked for.
    DnsKind {
        /// A and AAAA: addresses.
        A = "a",
        /// SRV: hosts and ports.
        Srv = "srv",
    }
}

words! {
    /// What a SUBACK waits for.
    Barrier {
        /// For every node that can be reached, half a second at most.
        Fast = "fast",
        /// Until no node can acknowledge a publish that misses the subscription.
        Strict = "strict",
    }
}

words! {
    /// What becomes of a client whose stored session is at a node that is down.
    OwnerDown {
        /// It waits for that node, and is refused until it is back.
        Wait = "wait",
        /// It begins a session; the other one counts no more.
        Fresh = "fresh",
    }
}

words! {
    /// What becomes of QoS 0 messages for a node that takes no more.
    ForwardQos0 {
        /// They are dropped and counted.
        Drop = "drop",
        /// They wait, and their publisher is held.
        Wait = "wait",
    }
}

/// Another node, as somebody wrote it: `name@host:port`, of which only the host is needed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seed {
    /// What stands before `@`.
    pub name: Option<String>,
    /// A host name or an IP address, an IPv6 address without brackets.
    pub host: String,
    /// 4370 if it is not said.
    pub port: u16,
}

impl Seed {
    /// Reads one; an IPv6 address with a port has brackets.
    #[must_use]
    pub fn parse(text: &str) -> Option<Seed> {
        let (name, rest) = match text.split_once('@') {
            Some((name, rest)) => (Some(name), rest),
            None => (None, text),
        };
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if name.is_some_and(|name| name.is_empty() || !name.bytes().all(plain)) {
            return None;
        }
        let (host, port) = if let Some(rest) = rest.strip_prefix('[') {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        } else if rest.parse::<std::net::Ipv6Addr>().is_ok() {
            (rest, None)
        } else {
            let (host, port) = rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port)));
            if !(1..=255).contains(&host.len()) || !host.bytes().all(plain) {
                return None;
            }
            (host, port)
        };
        let port = match port {
            Some(port) => super::value::count(port).and_then(|n| u16::try_from(n).ok()).filter(|port| *port > 0)?,
            None => CLUSTER_PORT,
        };
        Some(Seed { name: name.map(str::to_owned), host: host.to_owned(), port })
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name}@")?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A value that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Of this text.
    #[must_use]
    pub fn new(text: &str) -> Secret {
        Secret(text.to_owned())
    }

    /// For whoever needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Where nodes are found if nothing else is said.
pub const CLUSTER_PORT: u16 = 4370;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds() {
        for (text, want) in [
            ("a", Some("a:4370")),
            ("emqx@a.example.org", Some("emqx@a.example.org:4370")),
            ("newtmq@127.0.0.2:5", Some("newtmq@127.0.0.2:5")),
            ("::1", Some("[::1]:4370")),
            ("n@[::1]:4371", Some("n@[::1]:4371")),
            ("[::1]", Some("[::1]:4370")),
            ("[a]:1", None),
            ("@a", None),
            ("a@", None),
            ("a:0", None),
            ("a:", None),
            ("a:65536", None),
            ("a b", None),
            ("a@b@c", None),
            ("", None),
        ] {
            assert_eq!(Seed::parse(text).map(|seed| seed.to_string()).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn where_others_reach_it() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        for (name, advertise, listen, want) in [
            ("newtmq@127.0.0.1", None, "127.0.0.1:4370", Some("127.0.0.1:4370")),
            ("newtmq@127.0.0.1", None, "0.0.0.0:4370", None),
            ("newtmq@192.0.2.1", None, "0.0.0.0:4370", Some("192.0.2.1:4370")),
            ("newtmq@[2001:db8::1]", None, "[::]:1", Some("[2001:db8::1]:1")),
            ("newtmq@example.org", None, "0.0.0.0:4370", None),
            ("newtmq@192.0.2.1", Some("192.0.2.9:1"), "0.0.0.0:4370", Some("192.0.2.9:1")),
        ] {
            let node = Node { name: name.to_owned(), cookie: None, listen: None, advertise: advertise.map(at) };
            assert_eq!(node.advertised(at(listen)), want.map(at), "{name} {listen}");
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Some(Secret::new("s3cr3t"))), "Some(Secret(..))");
    }
}
