//! `cluster.etcd.*` and `cluster.k8s.*`: services that know where other nodes are, and what their keys need of each other.

use std::fmt;
use std::time::Duration;

use super::cluster::{Cluster, ClusterTls, Discovery, Secret};
use super::discovery_table as keys;
use super::problem::Fault;
use super::{Build, cluster_table};

/// Where a service is asked by HTTP: `https://10.0.0.1:2379`, perhaps with the beginning of all paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// `https`.
    pub is_tls: bool,
    /// A host name or an IP address, an IPv6 address without brackets.
    pub host: String,
    /// None is that of the scheme, or of the service.
    pub port: Option<u16>,
    /// Empty, or what all paths begin with, without a slash at the end.
    pub path: String,
}

impl Url {
    /// Reads one. It has no user, password, query or fragment.
    #[must_use]
    pub fn parse(text: &str) -> Option<Url> {
        let (is_tls, rest) = match text.split_once("://")? {
            ("http", rest) => (false, rest),
            ("https", rest) => (true, rest),
            _ => return None,
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                host.parse::<std::net::Ipv6Addr>().ok()?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
            }
            None => {
                let (host, port) =
                    authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
                (super::value::host(host).filter(|host| !host.contains('*'))?, port)
            }
        };
        let port = match port {
            None => None,
            Some(port) => Some(super::value::count(port).and_then(|n| u16::try_from(n).ok()).filter(|port| *port > 0)?),
        };
        let path = path.trim_end_matches('/');
        if !path.is_empty() {
            super::value::url_path(path)?;
        }
        Some(Url { is_tls, host: host.to_owned(), port, path: path.to_owned() })
    }

    /// Host and port, as in a URL.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match self.port {
            Some(port) => format!("{host}:{port}"),
            None => host,
        }
    }

    /// The same with a port.
    fn with_port(mut self, port: u16) -> Url {
        self.port.get_or_insert(port);
        self
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http{}://{}{}", if self.is_tls { "s" } else { "" }, self.authority(), self.path)
    }
}

/// `cluster.etcd.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etcd {
    /// The servers of one etcd.
    pub servers: Vec<Url>,
    /// What the keys of nodes begin with.
    pub prefix: String,
    /// A node that says nothing for so long is not listed any more.
    pub node_ttl: Duration,
    /// What is shown to servers, and whose certificates they have.
    pub tls: ClusterTls,
    /// `cluster.etcd.username`, `cluster.etcd.password`
    pub login: EtcdLogin,
}

/// Who the node is to etcd.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EtcdLogin {
    /// None is nobody.
    pub username: Option<String>,
    /// Of that user.
    pub password: Option<Secret>,
}

impl Etcd {
    /// Before its keys have given it anything.
    pub(super) const fn empty() -> Etcd {
        let (tls, login) = (NO_TLS, EtcdLogin { username: None, password: None });
        Etcd { servers: Vec::new(), prefix: String::new(), node_ttl: Duration::ZERO, tls, login }
    }

    pub(super) fn set_servers(&mut self, urls: Vec<Url>) {
        self.servers = urls.into_iter().map(|url| url.with_port(ETCD_PORT)).collect();
    }
}

/// `cluster.k8s.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct K8s {
    /// The servers of the API.
    pub apiservers: Vec<Url>,
    /// The service whose endpoints are nodes.
    pub service_name: String,
    /// Its namespace.
    pub namespace: String,
    /// What is asked for.
    pub resource: K8sResource,
    /// What stands after `@` in the names of nodes.
    pub address_type: AddressType,
    /// What stands before `@` in the names of nodes.
    pub app_name: String,
    /// What the host in a node's name ends in; none is the usual one of its kind.
    pub suffix: Option<String>,
    /// The port of that name is where nodes are; without it they are at 4370.
    pub port_name: String,
    /// The file with the token that is shown.
    pub tokenfile: Option<std::path::PathBuf>,
    /// `cluster.k8s.cacertfile`: whose certificates the servers have.
    pub tls: ClusterTls,
}

impl K8s {
    /// Before its keys have given it anything.
    pub(super) const fn empty() -> K8s {
        K8s {
            apiservers: Vec::new(),
            service_name: String::new(),
            namespace: String::new(),
            resource: K8sResource::Endpoints,
            address_type: AddressType::Ip,
            app_name: String::new(),
            suffix: None,
            port_name: String::new(),
            tokenfile: None,
            tls: NO_TLS,
        }
    }
}

words! {
    /// What the API of Kubernetes is asked for.
    K8sResource {
        /// The object of the name of the service.
        Endpoints = "endpoints",
        /// All slices of the service.
        EndpointSlices = "endpointslices",
    }
}

words! {
    /// The host in the names of nodes of Kubernetes.
    AddressType {
        /// `10.1.2.3`.
        Ip = "ip",
        /// `10-1-2-3.NAMESPACE.SUFFIX`.
        Dns = "dns",
        /// `HOSTNAME.SERVICE.NAMESPACE.SUFFIX`.
        Hostname = "hostname",
    }
}

impl Build {
    /// What the keys of the chosen service need of each other.
    pub(super) fn check_discovery(&mut self, cluster: &Cluster) {
        let Cluster { discovery, etcd, k8s, .. } = cluster;
        let has_tls = |urls: &[Url]| urls.iter().any(|url| url.is_tls);
        match discovery {
            Discovery::Etcd => {
                let ClusterTls { certfile, keyfile, cacertfile } = &etcd.tls;
                self.needs(
                    cluster_table::DISCOVERY,
                    keys::SERVER,
                    etcd.servers.is_empty(),
                    "etcd needs `cluster.etcd.server`",
                );
                let unverified = has_tls(&etcd.servers) && cacertfile.is_none();
                self.needs(
                    keys::SERVER,
                    keys::ETCD_CACERTFILE,
                    unverified,
                    "https needs `cluster.etcd.ssl.cacertfile`",
                );
                let half = certfile.is_some() != keyfile.is_some();
                let key = if certfile.is_some() { keys::ETCD_CERTFILE } else { keys::ETCD_KEYFILE };
                self.needs(key, keys::ETCD_KEYFILE, half, "certfile and keyfile belong together");
                let EtcdLogin { username, password } = &etcd.login;
                let half = username.is_some() != password.is_some();
                let key = if username.is_some() { keys::USERNAME } else { keys::PASSWORD };
                self.needs(key, keys::PASSWORD, half, "username and password belong together");
            }
            Discovery::K8s => {
                let nowhere = k8s.apiservers.is_empty();
                self.needs(cluster_table::DISCOVERY, keys::APISERVER, nowhere, "k8s needs `cluster.k8s.apiserver`");
                let unverified = has_tls(&k8s.apiservers) && k8s.tls.cacertfile.is_none();
                self.needs(keys::APISERVER, keys::K8S_CACERTFILE, unverified, "https needs `cluster.k8s.cacertfile`");
            }
            Discovery::Manual | Discovery::Static | Discovery::Mcast | Discovery::Dns => {}
        }
    }

    /// Something is wrong with a key, which cannot be said if the value of one of both was refused.
    fn needs(&mut self, key: &str, other: &str, is_wrong: bool, needs: &'static str) {
        if is_wrong && !self.refused.contains(key) && !self.refused.contains(other) {
            let key = key.to_owned();
            let origin = self.origin(std::slice::from_ref(&key));
            self.problem(origin, Fault::Needs { key, needs });
        }
    }
}

const NO_TLS: ClusterTls = ClusterTls { certfile: None, keyfile: None, cacertfile: None };
const ETCD_PORT: u16 = 2379;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (text, want) in [
            ("http://a", Some("http://a")),
            ("https://10.0.0.1:2379/", Some("https://10.0.0.1:2379")),
            ("https://[::1]:6443/k8s/clusters/c-1/", Some("https://[::1]:6443/k8s/clusters/c-1")),
            ("https://[::1]", Some("https://[::1]")),
            ("http://", None),
            ("a:1", None),
            ("HTTP://a", None),
            ("unix:///a", None),
            ("http://user:secret@a", None),
            ("http://user@a", None),
            ("http://a:0", None),
            ("http://a:65536", None),
            ("http://a:", None),
            ("http://a?b", None),
            ("http://a/b?c", None),
            ("http://a/b#c", None),
            ("http://*.a", None),
            ("http://[a]", None),
            ("http://a b", None),
        ] {
            assert_eq!(Url::parse(text).map(|url| url.to_string()).as_deref(), want, "{text}");
        }
    }
}
