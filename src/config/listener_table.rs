//! The keys of listeners.

use super::listener::{CIPHERS, Listener, PeerName, TlsVersion, Transport, Verify};
use super::table::{DAY, Field, HOUR, Key, MB, fit, key};

/// What a listener's keys begin with, before its transport and name.
pub(super) const LISTENER_SECTION: &str = "listener";

/// The keys that a listener of this transport has, those of every listener first.
pub(super) fn of(transport: Transport) -> impl Iterator<Item = &'static Key<Listener>> {
    let tls = if transport.has_tls() { TLS } else { &[] };
    let websocket = if transport.has_websocket() { WEBSOCKET } else { &[] };
    let general = move |key: &&Key<Listener>| transport != Transport::Sn || SN.contains(&key.name);
    LISTENER.iter().filter(general).chain(tls).chain(websocket)
}

/// Whether numbered keys lie below this path, as below `listener.tcp.external.access`.
pub(super) fn numbered(path: &str) -> Option<()> {
    let mut parts = path.split('.').skip(1);
    let transport = super::known::transport_of(parts.next()?)?;
    let section = parts.nth(1)?;
    of(transport).any(|key| key.name.split_once(".N").is_some_and(|(first, _)| first == section)).then_some(())
}

/// `listener.TRANSPORT.NAME.`
pub(super) const LISTENER: &[Key<Listener>] = &[
    key(
        "bind",
        Field::Address(|l, v| l.bind = v),
        "127.0.0.1:1883",
        "Where it listens. A bare port means every IPv4 interface; port 0 is any free port. `listener.TRANSPORT.NAME = …` \
         is short for this key. The defaults above are those of the listeners named there; any other must say.",
    ),
    key(
        "zone",
        Field::Name(|l, v| v.clone_into(&mut l.zone)),
        "external",
        "The zone of its clients. The default of `listener.tcp.internal` is `internal`.",
    ),
    key(
        "max_connections",
        Field::Count(1, 10_000_000, |l, v| l.max_connections = fit(v)),
        "1024000",
        "Connections at a time; a further one is closed at once. The limit of open files may be reached before.",
    ),
    key(
        "max_conn_rate",
        Field::Count(0, 1_000_000, |l, v| l.max_conn_rate = fit(v)),
        "0",
        "Connections accepted a second; further ones wait in the backlog. 0 is no limit. EMQ X: 1000.",
    ),
    key(
        "access.N",
        Field::Access(|l, n, v| {
            l.access.insert(n, v);
        }),
        "",
        "Who may connect: rules in the order of their numbers, of which the first that fits decides. Whom none fits may \
         connect. With `proxy_protocol` the address is that of the PROXY header.",
    ),
    key(
        "proxy_protocol",
        Field::Flag(|l, v| l.proxy_protocol = v),
        "false",
        "A PROXY header, version 1 or 2, comes first on each connection; a connection without one is closed. Only \
         proxies may reach such a listener: whoever reaches it chooses the address that he is taken for.",
    ),
    key(
        "proxy_protocol_timeout",
        Field::Time(10, HOUR, |l, v| l.proxy_protocol_timeout = v),
        "3s",
        "How long a connection may take to send its PROXY header.",
    ),
    key(
        "peer_cert_as_username",
        Field::Word(PeerName::WORDS, |l, v| l.peer_cert_as_username = PeerName::ALL[v]),
        "none",
        "The User Name is taken from the client's certificate, whatever CONNECT says: its Common Name, its subject or \
         all of it as PEM. On `tcp` and `ws` the Common Name may come with the PROXY header.",
    ),
    key(
        "backlog",
        Field::Count(1, 65_535, |l, v| l.backlog = fit(v)),
        "1024",
        "Connections that wait to be accepted. The operating system may have a lower limit.",
    ),
    key(
        "send_timeout",
        Field::Time(0, DAY, |l, v| l.send_timeout = v),
        "0s",
        "A client that takes nothing of what is sent to it for this long is cut (TCP_USER_TIMEOUT; Linux only). 0s is \
         never. EMQ X: 15s.",
    ),
    key(
        "recbuf",
        Field::Size(0, 64 * MB, |l, v| l.recbuf = fit(v)),
        "0",
        "Receive buffer of a connection in the operating system; 0 leaves its size to the system.",
    ),
    key(
        "sndbuf",
        Field::Size(0, 64 * MB, |l, v| l.sndbuf = fit(v)),
        "0",
        "Send buffer of a connection in the operating system; 0 leaves its size to the system.",
    ),
    key(
        "rate_limit",
        Field::Bandwidth(|l, v| l.rate_limit = v),
        "none",
        "What one connection may send: bytes per second, and at once after a quiet time. Above it the connection is not \
         read for a while; its Keep Alive is suspended meanwhile.",
    ),
    key("nodelay", Field::Flag(|l, v| l.nodelay = v), "true", "Small packets are sent at once (TCP_NODELAY)."),
    key(
        "reuseaddr",
        Field::Flag(|l, v| l.reuseaddr = v),
        "true",
        "A restart does not wait for old connections of the port to end (SO_REUSEADDR). An address that another process \
         listens on is refused in any case.",
    ),
];

/// Those of them that `listener.sn.NAME.` has, where there is a socket for all.
pub(super) const SN: &[&str] = &["bind", "zone", "max_connections", "access.N", "recbuf", "sndbuf", "rate_limit"];

/// `listener.ssl.NAME.` and `listener.wss.NAME.`
pub(super) const TLS: &[Key<Listener>] = &[
    key(
        "certfile",
        Field::Path(|l, _, v| l.tls.certificate.certfile = Some(v)),
        "",
        "The certificate and those that lead to its root, as PEM. Default: `certs/cert.pem` in the data directory. \
         Read again at SIGHUP.",
    ),
    key(
        "keyfile",
        Field::Path(|l, _, v| l.tls.certificate.keyfile = Some(v)),
        "",
        "Its private key, as PEM. Default: `certs/key.pem` in the data directory.",
    ),
    key(
        "cacertfile",
        Field::Path(|l, _, v| l.tls.cacertfile = Some(v)),
        "",
        "The certificates that clients' certificates come from, as PEM.",
    ),
    key(
        "verify",
        Field::Word(Verify::WORDS, |l, v| l.tls.verify = Verify::ALL[v]),
        "verify_none",
        "Whether clients are asked for a certificate. With `verify_peer` one that they send must come from `cacertfile`.",
    ),
    key(
        "fail_if_no_peer_cert",
        Field::Flag(|l, v| l.tls.fail_if_no_peer_cert = v),
        "false",
        "With `verify_peer`: a client without a certificate is refused.",
    ),
    key(
        "tls_versions",
        Field::Words(TlsVersion::WORDS, |l, v| l.tls.versions = v.iter().map(|at| TlsVersion::ALL[*at]).collect()),
        "tlsv1.3,tlsv1.2",
        "Versions that clients may use.",
    ),
    key(
        "ciphers",
        Field::Words(CIPHERS, |l, v| l.tls.ciphers = v.to_vec()),
        "TLS_AES_256_GCM_SHA384,TLS_AES_128_GCM_SHA256,TLS_CHACHA20_POLY1305_SHA256,\
         ECDHE-ECDSA-AES256-GCM-SHA384,ECDHE-ECDSA-AES128-GCM-SHA256,ECDHE-ECDSA-CHACHA20-POLY1305,\
         ECDHE-RSA-AES256-GCM-SHA384,ECDHE-RSA-AES128-GCM-SHA256,ECDHE-RSA-CHACHA20-POLY1305",
        "Cipher suites, the preferred first, as OpenSSL names them.",
    ),
    key(
        "handshake_timeout",
        Field::Time(10, HOUR, |l, v| l.tls.handshake_timeout = v),
        "15s",
        "How long the TLS handshake may take.",
    ),
    key(
        "sni.N.hostname",
        Field::Host(|l, n, v| v.clone_into(&mut l.tls.sni.entry(n).or_default().hostname)),
        "",
        "A name for which there is another certificate than `certfile`. `*.` stands for one label.",
    ),
    key(
        "sni.N.certfile",
        Field::Path(|l, n, v| l.tls.sni.entry(n).or_default().certificate.certfile = Some(v)),
        "",
        "The certificate for that name.",
    ),
    key(
        "sni.N.keyfile",
        Field::Path(|l, n, v| l.tls.sni.entry(n).or_default().certificate.keyfile = Some(v)),
        "",
        "Its private key.",
    ),
];

/// `listener.ws.NAME.` and `listener.wss.NAME.`
pub(super) const WEBSOCKET: &[Key<Listener>] = &[key(
    "mqtt_path",
    Field::UrlPath(|l, v| v.clone_into(&mut l.mqtt_path)),
    "/mqtt",
    "The path of the URL; any other is not found.",
)];
