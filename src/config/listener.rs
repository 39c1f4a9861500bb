//! Listeners as the rest of the broker sees them, and what each is by default.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::listener_table as keys;
use super::table;
use super::types::{Bandwidth, DEFAULT_NAME, INTERNAL_NAME};

words! {
    /// What a listener speaks below MQTT.
    Transport {
        /// TCP.
        Tcp = "tcp",
        /// TLS.
        Ssl = "ssl",
        /// WebSocket.
        Ws = "ws",
        /// WebSocket on TLS.
        Wss = "wss",
        /// MQTT-SN over UDP.
        Sn = "sn",
    }
}

impl Transport {
    /// Whether TLS is part of it.
    #[must_use]
    pub fn has_tls(self) -> bool {
        matches!(self, Transport::Ssl | Transport::Wss)
    }

    /// Whether WebSocket is part of it.
    #[must_use]
    pub fn has_websocket(self) -> bool {
        matches!(self, Transport::Ws | Transport::Wss)
    }

    /// How a URL of it begins.
    #[must_use]
    pub fn scheme(self) -> &'static str {
        match self {
            Transport::Tcp => "mqtt",
            Transport::Ssl => "mqtts",
            Transport::Ws => "ws",
            Transport::Wss => "wss",
            Transport::Sn => "mqtt-sn",
        }
    }
}

words! {
    /// What of a client's certificate becomes its User Name.
    PeerName {
        /// Nothing.
        None = "none",
        /// The Common Name of its subject.
        Cn = "cn",
        /// Its subject.
        Dn = "dn",
        /// The certificate, as PEM.
        Crt = "crt",
    }
}

words! {
    /// Whether clients are asked for a certificate.
    Verify {
        /// They are not.
        None = "verify_none",
        /// They are, and one that they send must come from `cacertfile`.
        Peer = "verify_peer",
    }
}

/// A listener of any transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// `tcp` in `listener.tcp.NAME`.
    pub transport: Transport,
    /// `NAME` in `listener.tcp.NAME`.
    pub name: String,
    /// Where it listens. Port 0 lets the operating system choose.
    pub bind: SocketAddr,
    /// Key of [`super::Config::zones`].
    pub zone: String,
    /// Connections at a time.
    pub max_connections: u32,
    /// Connections accepted a second; 0 is no limit.
    pub max_conn_rate: u32,
    /// Who may connect, by number; the first that fits decides, and everybody may if none does.
    pub access: BTreeMap<u16, AccessRule>,
    /// A PROXY header comes first.
    pub proxy_protocol: bool,
    /// How long it may take.
    pub proxy_protocol_timeout: Duration,
    /// What of a client's certificate becomes its User Name.
    pub peer_cert_as_username: PeerName,
    /// Connections that the operating system completes before they are accepted.
    pub backlog: u32,
    /// A connection whose peer takes nothing for this long is cut by the operating system; zero is never.
    pub send_timeout: Duration,
    /// Receive buffer of the operating system, in bytes; 0 leaves its default.
    pub recbuf: u32,
    /// Send buffer of the operating system, in bytes; 0 leaves its default.
    pub sndbuf: u32,
    /// Bytes that a connection may send.
    pub rate_limit: Option<Bandwidth>,
    /// Small packets are sent at once (TCP_NODELAY).
    pub nodelay: bool,
    /// A restart does not wait for connections of the process before it (SO_REUSEADDR).
    pub reuseaddr: bool,
    /// For [`Transport::Ssl`] and [`Transport::Wss`].
    pub tls: Tls,
    /// Path of the URL, for [`Transport::Ws`] and [`Transport::Wss`].
    pub mqtt_path: String,
}

/// The TLS keys of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Versions that clients may use.
    pub versions: Vec<TlsVersion>,
    /// How long a handshake may take, and the request of a WebSocket client after it.
    pub handshake_timeout: Duration,
    /// The certificate and its key.
    pub certificate: CertificateFiles,
    /// Certificates that clients' certificates come from.
    pub cacertfile: Option<PathBuf>,
    /// Whether clients are asked for a certificate.
    pub verify: Verify,
    /// A client without a certificate is refused.
    pub fail_if_no_peer_cert: bool,
    /// Indices in [`CIPHERS`], the preferred first.
    pub ciphers: Vec<usize>,
    /// Certificates for other names than the default's.
    pub sni: BTreeMap<u16, Sni>,
}

words! {
    /// A version of TLS.
    TlsVersion {
        /// TLS 1.3.
        V13 = "tlsv1.3",
        /// TLS 1.2.
        V12 = "tlsv1.2",
    }
}

/// Files of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CertificateFiles {
    /// The private key, PEM.
    pub keyfile: Option<PathBuf>,
    /// The certificate and those that lead to its root, PEM.
    pub certfile: Option<PathBuf>,
}

/// `sni.N`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sni {
    /// A host name, or `*.` and a host name for the names directly below it.
    pub hostname: String,
    /// What clients that ask for it get.
    pub certificate: CertificateFiles,
}

/// `access.N`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessRule {
    /// Whether those whom it fits may connect.
    pub allow: bool,
    /// Whom it fits; nothing is everybody.
    pub network: Option<IpNet>,
}

/// Cipher suites, as OpenSSL and `emqx.conf` name them.
pub const CIPHERS: &[&str] = &[
    "TLS_AES_256_GCM_SHA384",
    "TLS_AES_128_GCM_SHA256",
    "TLS_CHACHA20_POLY1305_SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-CHACHA20-POLY1305",
];

impl TlsVersion {
    /// The version that a cipher suite of [`CIPHERS`] belongs to.
    pub(super) fn of_cipher(at: usize) -> TlsVersion {
        if CIPHERS[at].starts_with("TLS_") { TlsVersion::V13 } else { TlsVersion::V12 }
    }
}

/// Listeners that have an address without being told one: transport, name, port and zone, all on 127.0.0.1.
const STANDARD: &[(Transport, &str, u16, &str)] = &[
    (Transport::Tcp, DEFAULT_NAME, 1883, DEFAULT_NAME),
    (Transport::Tcp, INTERNAL_NAME, 11_883, INTERNAL_NAME),
    (Transport::Ws, DEFAULT_NAME, 8083, DEFAULT_NAME),
    (Transport::Ssl, DEFAULT_NAME, 8883, DEFAULT_NAME),
    (Transport::Wss, DEFAULT_NAME, 8084, DEFAULT_NAME),
    (Transport::Sn, DEFAULT_NAME, 1884, DEFAULT_NAME),
];

impl Listener {
    /// A listener with the table's defaults.
    #[must_use]
    pub fn named(transport: Transport, name: &str) -> Listener {
        let mut listener = table::with_defaults(keys::LISTENER, Listener::blank(transport, name));
        listener = table::with_defaults(keys::TLS, listener);
        listener = table::with_defaults(keys::WEBSOCKET, listener);
        if let Some((_, _, port, zone)) = standard(transport, name) {
            listener.bind = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
            (*zone).clone_into(&mut listener.zone);
        }
        listener
    }

    /// The full name, as in `listener.tcp.external`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("listener.{}.{}", self.transport.word(), self.name)
    }

    /// Whether it has an address without being told one.
    pub(super) fn is_standard(&self) -> bool {
        standard(self.transport, &self.name).is_some()
    }

    /// Those that exist without a configuration.
    pub(super) fn standard() -> Vec<Listener> {
        STANDARD
            .iter()
            .filter(|(t, ..)| !t.has_tls() && *t != Transport::Sn)
            .map(|(t, name, ..)| Listener::named(*t, name))
            .collect()
    }

    /// Those with TLS that a broker without a configuration opens, if it has a certificate.
    #[must_use]
    pub fn standard_with_tls() -> Vec<Listener> {
        STANDARD.iter().filter(|(t, ..)| t.has_tls()).map(|(t, name, ..)| Listener::named(*t, name)).collect()
    }

    /// The file of a key or certificate; without one in the configuration, the one that `newtmq cert dev` makes.
    pub(super) fn default_certificate(&mut self, folder: &Path) {
        let files = &mut self.tls.certificate;
        if *files == CertificateFiles::default() {
            files.certfile = Some(folder.join(CERTIFICATE_FILE));
            files.keyfile = Some(folder.join(KEY_FILE));
        }
    }

    // Only gives the tables something to fill.
    fn blank(transport: Transport, name: &str) -> Listener {
        Listener {
            transport,
            name: name.to_owned(),
            bind: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            zone: String::new(),
            max_connections: 0,
            max_conn_rate: 0,
            access: BTreeMap::new(),
            proxy_protocol: false,
            proxy_protocol_timeout: Duration::ZERO,
            peer_cert_as_username: PeerName::None,
            backlog: 0,
            send_timeout: Duration::ZERO,
            recbuf: 0,
            sndbuf: 0,
            rate_limit: None,
            nodelay: false,
            reuseaddr: false,
            tls: Tls {
                versions: Vec::new(),
                handshake_timeout: Duration::ZERO,
                certificate: CertificateFiles::default(),
                cacertfile: None,
                verify: Verify::None,
                fail_if_no_peer_cert: false,
                ciphers: Vec::new(),
                sni: BTreeMap::new(),
            },
            mqtt_path: String::new(),
        }
    }
}

fn standard(transport: Transport, name: &str) -> Option<&'static (Transport, &'static str, u16, &'static str)> {
    STANDARD.iter().find(|(t, n, ..)| *t == transport && *n == name)
}

/// Where certificates are in a data directory.
pub const CERTIFICATE_FOLDER: &str = "certs";
/// The broker's certificate there.
pub const CERTIFICATE_FILE: &str = "cert.pem";
/// Its private key.
pub const KEY_FILE: &str = "key.pem";
