//! MQTT over TLS, WebSocket and behind a proxy, with real sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use newtmq_mqtt::{Packet, QoS};
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, StreamOwned};
use tungstenite::client::IntoClientRequest as _;
use tungstenite::{Message, WebSocket};

use crate::broker::{Broker, DEADLINE, Process, Scratch, newtmq, wait_until};
use crate::client::{connect, encoded, publish};

pub fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Connects over any stream, and is answered.
fn mqtt<S: Read + Write>(mut stream: S, client: &str) -> S {
    stream.write_all(&encoded(&connect(client, None))).unwrap();
    assert_eq!(packet(&mut stream)[0], 0x20, "CONNACK");
    stream
}

/// The next packet, if its length is one byte.
pub fn packet<S: Read>(stream: &mut S) -> Vec<u8> {
    let mut bytes = vec![0; 2];
    stream.read_exact(&mut bytes).unwrap();
    assert!(bytes[1] < 128);
    bytes.resize(2 + usize::from(bytes[1]), 0);
    stream.read_exact(&mut bytes[2..]).unwrap();
    bytes
}

fn ping<S: Read + Write>(stream: &mut S) {
    stream.write_all(&encoded(&Packet::Pingreq)).unwrap();
    assert_eq!(packet(stream), [0xD0, 0]);
}

/// Whether the broker closes the connection without a word.
pub fn is_closed(mut stream: impl Read) -> bool {
    match stream.read(&mut [0; 64]) {
        Ok(count) => count == 0,
        Err(error) => {
            matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe)
        }
    }
}

// --- certificates

/// A TLS client that trusts the authority of a folder, perhaps with a certificate of its own from there.
fn tls(
    scratch: &Scratch,
    folder: &str,
    versions: &[&'static rustls::SupportedProtocolVersion],
    certificate: Option<&str>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(scratch.file(&format!("{folder}/ca.pem"))).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let config = config.with_root_certificates(roots);
    Arc::new(match certificate {
        None => config.with_no_client_auth(),
        Some(name) => {
            let file = |end: &str| scratch.file(&format!("{folder}/client-{name}{end}"));
            let chain = vec![CertificateDer::from_pem_file(file(".pem")).unwrap()];
            let key = PrivateKeyDer::from_pem_file(file("-key.pem")).unwrap();
            config.with_client_auth_cert(chain, key).unwrap()
        }
    })
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

fn tls_stream(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> Tls {
    let connection = ClientConnection::new(Arc::clone(config), ServerName::try_from(name.to_owned()).unwrap()).unwrap();
    StreamOwned::new(connection, tcp(address))
}

const BOTH: &[&rustls::SupportedProtocolVersion] = rustls::ALL_VERSIONS;

#[test]
fn tls_1_2_and_1_3() {
    let scratch = Scratch::new("tls");
    scratch.certificates("certs", &[]);
    let broker = Broker::with_tls(&scratch, &[]);
    let address = broker.address_of("mqtts", "t");
    for (version, want) in
        [(&rustls::version::TLS12, ProtocolVersion::TLSv1_2), (&rustls::version::TLS13, ProtocolVersion::TLSv1_3)]
    {
        let mut stream = mqtt(tls_stream(address, &tls(&scratch, "certs", &[version], None), "localhost"), "a");
        assert_eq!(stream.conn.protocol_version(), Some(want));
        ping(&mut stream);
        // Larger than a record, and more than a socket holds.
        let large = encoded(&publish("t", &vec![7; 900 << 10], QoS::AtMostOnce));
        stream.write_all(&large).unwrap();
        ping(&mut stream);
    }
    // Who does not speak TLS gets an alert at most.
    let mut plain = tcp(address);
    plain.write_all(&encoded(&connect("b", None))).unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer[0] == 0x15);
    broker.stays_well();
}

#[test]
fn a_large_message_comes_back_over_tls_and_wss() {
    let scratch = Scratch::new("large");
    scratch.certificates("certs", &[]);
    let broker = Broker::with_tls(&scratch, &["mqtt.max_packet_size=4MB"]);
    let config = tls(&scratch, "certs", BOTH, None);
    let payload: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 3) as u8).collect();
    let tls = tls_stream(broker.address_of("mqtts", "t"), &config, "localhost");
    let wss = Ws::over(tls_stream(broker.address_of("wss", "t"), &config, "localhost"), "wss");
    echo(mqtt(tls, "tls"), &payload);
    echo(mqtt(wss, "wss"), &payload);
    broker.stays_well();
}

/// Publishes to itself.
fn echo<S: Read + Write>(mut stream: S, payload: &[u8]) {
    stream.write_all(&crate::client::subscribe_bytes("echo", QoS::AtMostOnce)).unwrap();
    assert_eq!(packet(&mut stream)[0], 0x90, "SUBACK");
    let sent = encoded(&publish("echo", payload, QoS::AtMostOnce));
    stream.write_all(&sent).unwrap();
    let mut back = vec![0; sent.len()];
    stream.read_exact(&mut back).unwrap();
    assert!(back == sent);
    ping(&mut stream);
}

#[test]
fn certificates_of_clients() {
    let scratch = Scratch::new("mutual");
    scratch.certificates("certs", &["--client", "alice"]);
    scratch.certificates("other", &["--client", "mallory"]);
    let ca = format!("listener.ssl.t.cacertfile={}", scratch.file("certs/ca.pem"));
    let broker = Broker::with_tls(
        &scratch,
        &[
            "listener.ssl.t.verify=verify_peer",
            "listener.ssl.t.fail_if_no_peer_cert=true",
            "listener.ssl.t.peer_cert_as_username=cn",
            &ca,
        ],
    );
    let address = broker.address_of("mqtts", "t");
    mqtt(tls_stream(address, &tls(&scratch, "certs", BOTH, Some("alice")), "localhost"), "a");
    let told = |line: &str| line.contains("\"message\":\"opened\"") && line.contains("\"username\":\"alice\"");
    broker.process.stderr.wait_for("the user name", told);
    let mut nobody = tls_stream(address, &tls(&scratch, "certs", BOTH, None), "localhost");
    let refused = nobody.write_all(&encoded(&connect("b", None))).is_err() || nobody.read(&mut [0; 16]).is_err();
    assert!(refused, "without a certificate");
    // One from another authority; the broker's own is trusted.
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(scratch.file("certs/ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let chain = vec![CertificateDer::from_pem_file(scratch.file("other/client-mallory.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(scratch.file("other/client-mallory-key.pem")).unwrap();
    let config = Arc::new(config.with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap());
    let mut mallory = tls_stream(address, &config, "localhost");
    let refused = mallory.write_all(&encoded(&connect("c", None))).is_err() || mallory.read(&mut [0; 16]).is_err();
    assert!(refused, "from another authority");
    broker.stays_well();
}

fn shown(stream: &Tls) -> Vec<u8> {
    stream.conn.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn certificates_by_name_and_new_ones_at_sighup() {
    let scratch = Scratch::new("reload");
    scratch.certificates("certs", &[]);
    scratch.certificates("org", &["--host", "mqtt.example.org"]);
    let files = [("certfile", "org/cert.pem"), ("keyfile", "org/key.pem")];
    let files = files.map(|(key, file)| format!("listener.ssl.t.sni.1.{key}={}", scratch.file(file)));
    let broker = Broker::with_tls(&scratch, &["listener.ssl.t.sni.1.hostname=*.example.org", &files[0], &files[1]]);
    let address = broker.address_of("mqtts", "t");
    let config = tls(&scratch, "certs", BOTH, None);
    let mut before = mqtt(tls_stream(address, &config, "localhost"), "before");
    mqtt(tls_stream(address, &tls(&scratch, "org", BOTH, None), "mqtt.example.org"), "org");

    // A bad file changes nothing.
    let good = std::fs::read(scratch.path().join("certs/cert.pem")).unwrap();
    scratch.write("certs/cert.pem", "nothing");
    broker.process.signal(Signal::HUP);
    broker.process.stderr.wait_for("the failure", |line| {
        line.contains("stay as they were read before") && line.contains("certs/cert.pem")
    });
    let same = mqtt(tls_stream(address, &tls(&scratch, "certs", BOTH, None), "localhost"), "same");
    assert_eq!(shown(&same), shown(&before));
    std::fs::write(scratch.path().join("certs/cert.pem"), good).unwrap();

    scratch.certificates("certs", &["--force"]);
    broker.process.signal(Signal::HUP);
    let config = wait_until("the new certificate", || {
        let config = tls(&scratch, "certs", BOTH, None);
        let mut stream = tls_stream(address, &config, "localhost");
        stream.write_all(&encoded(&connect("probe", None))).is_ok().then_some(config)
    });
    let after = mqtt(tls_stream(address, &config, "localhost"), "after");
    assert_ne!(shown(&after), shown(&before));
    ping(&mut before);
    assert!(!broker.process.stderr.text().contains("panicked"));
}

// --- WebSocket

/// A WebSocket client as a byte stream; each write is a message.
struct Ws<S: Read + Write> {
    socket: WebSocket<S>,
    read: Vec<u8>,
}

impl<S: Read + Write> Ws<S> {
    fn over(stream: S, scheme: &str) -> Ws<S> {
        let mut request = format!("{scheme}://localhost/mqtt").into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", "foo, mqtt".parse().unwrap());
        let (socket, response) = tungstenite::client(request, stream).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "mqtt");
        Ws { socket, read: Vec::new() }
    }
}

impl<S: Read + Write> Read for Ws<S> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.read.is_empty() {
            match self.socket.read() {
                Ok(Message::Binary(bytes)) => self.read = bytes.to_vec(),
                Ok(Message::Close(_)) => return Ok(0),
                Ok(_) => {}
                Err(error) => return Err(std::io::Error::other(error)),
            }
        }
        let count = buffer.len().min(self.read.len());
        buffer[..count].copy_from_slice(&self.read[..count]);
        self.read.drain(..count);
        Ok(count)
    }
}

impl<S: Read + Write> Write for Ws<S> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.socket.send(Message::Binary(buffer.to_vec().into())).map_err(std::io::Error::other)?;
        Ok(buffer.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn websocket_frames_in_any_cut() {
    let broker = Broker::start(&["listener.ws.w.bind=127.0.0.1:0"]);
    let address = broker.address_of("ws", "w");
    let mut ws = Ws::over(tcp(address), "ws");
    for byte in encoded(&connect("bytes", None)) {
        ws.write_all(&[byte]).unwrap();
    }
    assert_eq!(packet(&mut ws)[0], 0x20);
    ws.write_all(&[0xC0, 0, 0xC0, 0, 0xC0]).unwrap();
    ws.write_all(&[0]).unwrap();
    for _ in 0..3 {
        assert_eq!(packet(&mut ws), [0xD0, 0]);
    }
    ws.socket.send(Message::Ping(b"hello".to_vec().into())).unwrap();
    assert!(matches!(ws.socket.read().unwrap(), Message::Pong(bytes) if *bytes == b"hello"[..]));
    // [MQTT-6.0.0-1]
    ws.socket.send(Message::Text("text".into())).unwrap();
    match ws.socket.read().unwrap() {
        Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), 1003),
        other => panic!("{other:?}"),
    }
    // Nobody else is disturbed, and Close is answered.
    let mut other = mqtt(Ws::over(tcp(address), "ws"), "other");
    other.socket.close(None).unwrap();
    assert!(matches!(other.socket.read().unwrap(), Message::Close(_)));
    broker.stays_well();
}

#[test]
fn websocket_requests_that_are_refused() {
    let broker = Broker::start(&["listener.ws.w.bind=127.0.0.1:0", "listener.ws.w.mqtt_path=/broker"]);
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (path, fields, want) in [
        ("/mqtt", format!("{upgrade}Sec-WebSocket-Protocol: mqtt\r\n"), "404"),
        ("/broker", upgrade.to_owned(), "400"),
        ("/broker", String::new(), "426"),
        ("/broker", format!("{upgrade}Sec-WebSocket-Protocol: mqtt\r\n"), "101"),
    ] {
        let mut stream = tcp(broker.address_of("ws", "w"));
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n").unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(std::str::from_utf8(&answer).unwrap(), format!("HTTP/1.1 {want}"));
    }
    broker.stays_well();
}

// --- PROXY, access, rates, addresses

#[test]
fn the_proxy_header_tells_who_it_is() {
    let sets = [
        "listener.tcp.p.bind=127.0.0.1:0",
        "listener.tcp.p.proxy_protocol=true",
        "listener.tcp.p.proxy_protocol_timeout=300ms",
        "listener.tcp.p.access.1=deny 192.0.2.66",
        "listener.tcp.p.access.2=allow all",
    ];
    let broker = Broker::of(newtmq(), &sets, &["--log", "debug"]);
    let address = broker.address_of("mqtt", "p");
    let v2 = |client: [u8; 4]| {
        let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        header.extend(client);
        header.extend([127, 0, 0, 1, 0xC3, 0x50, 7, 0x5B]);
        header
    };
    let v1 = |client: &str| format!("PROXY TCP4 {client} 127.0.0.1 50000 1883\r\n").into_bytes();
    let with = |header: &[u8]| {
        let mut stream = tcp(address);
        // One segment, so that what follows the header is there at once.
        stream.write_all(&[header, &encoded(&connect("a", None))].concat()).unwrap();
        stream
    };
    for header in [v1("192.0.2.1"), v2([192, 0, 2, 1]), b"PROXY UNKNOWN\r\n".to_vec()] {
        let mut stream = with(&header);
        assert_eq!(packet(&mut stream)[0], 0x20);
        ping(&mut stream);
    }
    for header in [v1("192.0.2.66"), v2([192, 0, 2, 66]), Vec::new(), b"PROXY TCP4 x\r\n".to_vec()] {
        assert!(is_closed(with(&header)), "{header:?}");
    }
    let since = Instant::now();
    assert!(is_closed(tcp(address)), "it says nothing");
    assert!(since.elapsed() >= Duration::from_millis(250));
    broker.process.stderr.wait_for("who is denied", |line| line.contains("denies 192.0.2.66"));
    broker.stays_well();
}

#[test]
fn connections_above_the_rate_wait() {
    let broker = Broker::start(&["listener.tcp.external.max_conn_rate=5"]);
    let since = Instant::now();
    let mut streams: Vec<_> = (0..11).map(|_| tcp(broker.address)).collect();
    for (at, stream) in streams.iter_mut().enumerate() {
        stream.write_all(&encoded(&connect(&at.to_string(), None))).unwrap();
    }
    for stream in &mut streams {
        assert_eq!(packet(stream)[0], 0x20);
    }
    assert!(since.elapsed() >= Duration::from_millis(1900), "{:?}", since.elapsed());
    broker.stays_well();
}

#[test]
fn several_listeners_on_ipv4_and_ipv6() {
    let sets = ["listener.tcp.six.bind=[::1]:0", "listener.tcp.lan.bind=127.0.0.1:0", "listener.ws.six.bind=[::1]:0"];
    let broker = Broker::start(&sets);
    mqtt(tcp(broker.address_of("mqtt", "six")), "six");
    mqtt(tcp(broker.address_of("mqtt", "lan")), "lan");
    mqtt(Ws::over(tcp(broker.address_of("ws", "six")), "ws"), "ws");
    broker.stays_well();
}

#[test]
fn a_denied_address_is_closed() {
    let broker = Broker::start(&["listener.tcp.d.bind=127.0.0.1:0", "listener.tcp.d.access.1=deny 127.0.0.0/8"]);
    assert!(is_closed(tcp(broker.address_of("mqtt", "d"))));
    mqtt(tcp(broker.address), "a");
    broker.stays_well();
}

#[test]
fn an_address_in_use_is_noticed_for_each_kind() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let set = format!("listener.ws.external.bind={}", taken.local_addr().unwrap());
    let mut command = newtmq();
    command.args(["run", "--set", "listener.tcp.external.bind=127.0.0.1:0", "--set", &set]);
    let mut process = Process::start(command);
    assert_eq!(process.wait().code(), Some(3));
    assert!(process.stderr.to_end().contains("listener.ws.external cannot listen on"));
    // Another broker, which has the same option for quick restarts.
    let broker = Broker::start(&[]);
    let mut command = newtmq();
    command.args(["run", "--set", &format!("listener.tcp.external.bind={}", broker.address)]);
    assert_eq!(Process::start(command).wait().code(), Some(3));
}

#[test]
fn a_wrong_certificate_stops_the_start() {
    let scratch = Scratch::new("wrong-certificate");
    scratch.certificates("a", &[]);
    scratch.certificates("b", &[]);
    let mut command = newtmq();
    let set = |key: &str, file: &str| format!("listener.ssl.external.{key}={}", scratch.file(file));
    command.args(["run", "--set", &set("certfile", "a/cert.pem"), "--set", &set("keyfile", "b/key.pem")]);
    let mut process = Process::start(command);
    assert_eq!(process.wait().code(), Some(1));
    let log = process.stderr.to_end();
    assert!(log.contains("listener.ssl.external") && log.contains("b/key.pem: not the key of"), "{log}");
}

#[test]
#[ignore = "needs haproxy"]
fn haproxy_ends_tls_and_tells_who_it_is() {
    let scratch = Scratch::new("haproxy");
    scratch.certificates("certs", &["--client", "alice"]);
    let sets = [
        "listener.tcp.p.bind=127.0.0.1:0",
        "listener.tcp.p.proxy_protocol=true",
        "listener.tcp.p.peer_cert_as_username=cn",
    ];
    let broker = Broker::of(newtmq(), &sets, &["--log", "debug"]);
    let read = |file: &str| std::fs::read_to_string(scratch.path().join(file)).unwrap();
    scratch.write("broker.pem", &format!("{}{}", read("certs/cert.pem"), read("certs/key.pem")));
    // HAProxy cannot say which free port it took.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         frontend mqtts\n  bind 127.0.0.1:{port} ssl crt {} ca-file {} verify optional\n  default_backend newtmq\n\
         backend newtmq\n  server one {} send-proxy-v2 proxy-v2-options ssl,cert-cn,crc32c,unique-id check\n",
        scratch.file("broker.pem"),
        scratch.file("certs/ca.pem"),
        broker.address_of("mqtt", "p"),
    );
    let file = scratch.write("haproxy.cfg", &config);
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f", &file]);
    let mut haproxy = Process::start(command);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    wait_until("HAProxy", || {
        assert!(haproxy.is_running(), "{}", haproxy.stderr.text());
        TcpStream::connect(address).ok()
    });
    let config = tls(&scratch, "certs", BOTH, Some("alice"));
    let mut stream = mqtt(tls_stream(address, &config, "localhost"), "a");
    ping(&mut stream);
    broker.process.stderr.wait_for("the user name", |line| line.contains("\"username\":\"alice\""));
    broker.stays_well();
}
