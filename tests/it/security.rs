//! What somebody tries who means harm, against the real program. Rules, codecs and limits have tests of their own in `core/`;
//! the HTTP API and the dashboard in `api.rs` and `dashboard.rs`, transports in `transports.rs`.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use newtmq_mqtt::{Connect, ConnectProperties, Packet, Publish, QoS, ReasonCode, TopicName, Will, WillProperties};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd};
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::access;
use crate::broker::{Broker, Scratch, newtmq};
use crate::client::{Client, connect, encoded, publish, subscribe_bytes};
use crate::transports::{is_closed, tcp};

// --- logins

#[test]
fn what_comes_with_a_login_that_is_refused_is_not_done() {
    let scratch = Scratch::new("refused-login");
    let file = format!("password_file={}", access::users(&scratch));
    let broker = Broker::start(&[&file, "allow_anonymous=false", "login_throttle.user_failures=0"]);
    let mut watcher = Client::open(&broker);
    watcher.send(&Packet::Connect(access::connect(Some("bob"), Some(b"BOB"))));
    watcher.accepted();
    watcher.subscribe("#", QoS::AtMostOnce);
    let Packet::Publish(retained) = publish("retained", b"x", QoS::AtMostOnce) else { panic!("it is a PUBLISH") };
    let retained = encoded(&Packet::Publish(Publish { retain: true, ..retained }));
    let behind = [encoded(&publish("bypass", b"x", QoS::AtLeastOnce)), subscribe_bytes("#", QoS::AtMostOnce), retained];
    let (topic, properties) = (TopicName::new("bypass/will").unwrap(), WillProperties::default());
    let will = Some(Will { topic, payload: b"x", qos: QoS::AtLeastOnce, retain: true, properties });
    let names = [Some("alice"), Some("Alice"), Some("alice "), Some("eve"), Some("BOB"), Some(""), None];
    for (at, username) in names.into_iter().enumerate() {
        // Also with the identifier of somebody who has logged in.
        for client_id in [format!("evil-{at}"), "c".to_owned()] {
            let hello = Connect { client_id: &client_id, will, ..access::connect(username, Some(b"BOB")) };
            let mut evil = Client::open(&broker);
            evil.send_bytes(&[vec![encoded(&Packet::Connect(hello))], behind.to_vec()].concat().concat());
            let refused = evil.receive(|packet| match packet {
                Packet::Connack(connack) => connack.reason_code.is_error(),
                other => panic!("{other:?}"),
            });
            assert!(refused, "{username:?}");
            evil.closed();
        }
    }
    // Nor without a CONNECT.
    for packet in behind {
        let mut evil = Client::open(&broker);
        evil.send_bytes(&packet);
        evil.closed();
    }
    // Nor does a second CONNECT make somebody else of a client.
    let mut twice = Client::open(&broker);
    twice.send(&Packet::Connect(Connect { client_id: "twice", ..access::connect(Some("alice"), Some(b"ALICE")) }));
    twice.accepted();
    twice.send(&Packet::Connect(Connect { client_id: "twice", ..access::connect(Some("bob"), Some(b"BOB")) }));
    assert!(twice.disconnected().is_error());
    watcher.publish("last", b"x", QoS::AtMostOnce);
    assert_eq!(watcher.message().topic, "last", "nothing of the others came, and it was not taken over");
    let mut after = Client::open(&broker);
    after.send(&Packet::Connect(Connect { client_id: "after", ..access::connect(Some("bob"), Some(b"BOB")) }));
    after.accepted();
    after.subscribe("#", QoS::AtMostOnce);
    after.publish("last", b"x", QoS::AtMostOnce);
    assert_eq!(after.message().topic, "last", "nothing of the others is retained");
    broker.stays_well();
}

// --- names

#[test]
fn names_of_clients_are_no_wildcards_and_no_levels() {
    let scratch = Scratch::new("names");
    let users = access::users(&scratch);
    let names = ["+", "#", "alice/x", "%c", "alice/#"];
    for name in names {
        assert!(access::passwd(&[&users, name], "PW").status.success(), "{name}");
    }
    let acl = scratch.write("acl.conf", "{allow, all, pubsub, [\"user/%u/#\", \"client/%c/#\"]}.\n");
    let sets = [&*format!("password_file={users}"), &format!("acl_file={acl}"), "acl_nomatch=deny"];
    let broker = Broker::start(&sets);
    let mut alice = Client::open(&broker);
    alice.send(&Packet::Connect(Connect { client_id: "alice", ..access::connect(Some("alice"), Some(b"ALICE")) }));
    alice.accepted();
    assert_eq!(access::subscribe(&mut alice, "user/alice/#"), ReasonCode::GrantedQoS1);
    for name in names {
        let mut evil = Client::open(&broker);
        evil.send(&Packet::Connect(Connect { client_id: name, ..access::connect(Some(name), Some(b"PW")) }));
        evil.accepted();
        for filter in
            ["user/alice/#", "user/+/#", "user/#", "user/alice/x/#", "client/alice/x", "client/+/#", "client/#", "#"]
        {
            assert_eq!(access::subscribe(&mut evil, filter), ReasonCode::NotAuthorized, "{name} {filter}");
        }
        for topic in ["user/alice/x", "user/alice/x/y", "client/alice/y", "user/bob/x"] {
            assert_eq!(access::published(&mut evil, topic), ReasonCode::NotAuthorized, "{name} {topic}");
        }
    }
    alice.publish("user/alice/own", b"x", QoS::AtMostOnce);
    assert_eq!(alice.message().topic, "user/alice/own", "nothing of the others came");
    broker.stays_well();
}

#[test]
fn names_that_would_leave_their_mountpoint_or_their_topic() {
    let broker = Broker::start(&[
        "zone.external.mountpoint=%c/",
        "listener.tcp.inner.bind=127.0.0.1:0",
        "listener.tcp.inner.zone=internal",
        "node.name=n@h",
    ]);
    for client_id in ["+", "#", "a/#", "a/+/b", "$share/g", "$SYS/brokers"] {
        let mut evil = Client::open(&broker);
        evil.send(&Packet::Connect(Connect { client_id, ..access::connect(None, None) }));
        let reason = evil.receive(|packet| match packet {
            Packet::Connack(connack) => connack.reason_code,
            other => panic!("{other:?}"),
        });
        assert_eq!(reason, ReasonCode::ClientIdentifierNotValid, "{client_id}");
    }
    // Where a name has a place in a topic of the broker's own.
    let mut watcher = Client::on(tcp(broker.address_of("mqtt", "inner"))).connected("watcher", None);
    watcher.subscribe("$SYS/brokers/n@h/clients/#", QoS::AtMostOnce);
    let _evil = Client::on(tcp(broker.address_of("mqtt", "inner"))).connected("a/+/#", None);
    let seen = watcher.message();
    assert_eq!(seen.topic, "$SYS/brokers/n@h/clients/a____/connected");
    broker.stays_well();
}

#[test]
fn names_are_no_names_of_files() {
    let scratch = Scratch::new("names-of-files");
    let data = scratch.file("data");
    let mut broker =
        Broker::of(newtmq(), &["user_table=on", "allow_anonymous=true"], &["--shards", "1", "--data", &data]);
    for name in ["../../escaped", "/tmp/escaped", "..", ".", "escaped\\..\\x", "a/../../escaped"] {
        let hello = access::connect(None, None);
        let properties = ConnectProperties { session_expiry_interval: 60, ..hello.properties };
        let mut evil = Client::open(&broker);
        evil.send(&Packet::Connect(Connect { client_id: name, properties, ..hello }));
        evil.accepted();
        evil.subscribe(name, QoS::AtLeastOnce);
        let Packet::Publish(retained) = publish(name, b"x", QoS::AtLeastOnce) else { panic!("it is a PUBLISH") };
        evil.send(&Packet::Publish(Publish { retain: true, ..retained }));
        for words in [
            ["banned", "add", "username", name, "1h", "x"].as_slice(),
            &["trace", "start", "client", name],
            &["users", "add", name, "PW"],
        ] {
            let output = newtmq().args(["ctl", "--data", &data]).args(words).output().unwrap();
            assert!(output.status.success(), "{words:?}: {output:?}");
        }
    }
    broker.process.signal(Signal::TERM);
    assert!(broker.process.wait().success());
    let mut folders = vec![scratch.path().to_owned()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            assert!(!path.display().to_string().contains("escaped"), "{}", path.display());
            seen += 1;
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    assert!(seen > 3 && std::fs::read_dir(scratch.path()).unwrap().count() == 1);
    assert!(!std::path::Path::new("/tmp/escaped").exists());
}

// --- WebSocket

/// What is answered to this request, up to its end or the first bytes of a WebSocket.
fn upgrade(at: SocketAddr, path: &str, fields: &str) -> String {
    let mut stream = tcp(at);
    let _ = write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
    );
    let mut answer = Vec::new();
    let mut some = [0; 1024];
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut some) {
            Ok(count @ 1..) => answer.extend(&some[..count]),
            Ok(0) | Err(_) => break,
        }
    }
    String::from_utf8_lossy(&answer).to_lowercase()
}

#[test]
fn a_request_for_a_websocket_brings_nothing_into_the_answer() {
    let broker = Broker::start(&["listener.ws.w.bind=127.0.0.1:0"]);
    let at = broker.address_of("ws", "w");
    let mqtt = "Sec-WebSocket-Protocol: mqtt\r\n";
    assert!(upgrade(at, "/mqtt", mqtt).starts_with("http/1.1 101 "));
    for path in [
        "/../mqtt",
        "/mqtt/../etc/passwd",
        "//mqtt",
        "/mqtt/",
        "/MQTT",
        "/%6dqtt",
        "/mqtt%00",
        "/mqtt%0d%0aX-Evil:%201",
        "mqtt",
        "*",
    ] {
        let answer = upgrade(at, path, mqtt);
        assert!(!answer.starts_with("http/1.1 101 ") && !answer.contains("evil"), "{path}: {answer}");
    }
    for fields in [
        "Sec-WebSocket-Protocol: evil\r\n",
        "Sec-WebSocket-Protocol: mqtt\rX-Evil: 1\r\n",
        "Sec-WebSocket-Protocol: mqtt\0\r\n",
        "Sec-WebSocket-Protocol : mqtt\r\n",
        "Sec-WebSocket-Protocol: mqtt\r\n folded: evil\r\n",
    ] {
        let answer = upgrade(at, "/mqtt", fields);
        assert!(!answer.contains("evil") && !answer.contains("folded"), "{fields:?}: {answer}");
    }
    // What is asked for beside mqtt is not answered.
    let answer = upgrade(
        at,
        "/mqtt?x=%0d%0aX-Evil:1",
        "Sec-WebSocket-Protocol: evil, mqtt\r\nSec-WebSocket-Extensions: evil\r\n",
    );
    assert!(!answer.contains("evil"), "{answer}");
    // Too large, and too slow.
    let large = upgrade(at, "/mqtt", &format!("X: {}\r\n{mqtt}", "x".repeat(20_000)));
    assert!(!large.starts_with("http/1.1 101 "), "{large}");
    let mut slow = tcp(at);
    slow.write_all(b"GET /mqtt HTTP/1.1\r\nHost: ").unwrap();
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest);
    assert!(!String::from_utf8_lossy(&rest).contains(" 101 "));
    broker.stays_well();
}

// --- TLS

/// The first message of a TLS client that knows these suites and no version above this one.
fn client_hello(version: u16, suites: &[u16]) -> Vec<u8> {
    let groups_and_signatures: &[u8] =
        &[0, 10, 0, 4, 0, 2, 0, 29, 0, 11, 0, 2, 1, 0, 0, 13, 0, 8, 0, 6, 4, 3, 8, 4, 4, 1, 0, 23, 0, 0];
    let mut body = version.to_be_bytes().to_vec();
    body.extend([7; 32]);
    body.push(0);
    body.extend((suites.len() as u16 * 2).to_be_bytes());
    body.extend(suites.iter().flat_map(|suite| suite.to_be_bytes()));
    body.extend([1, 0]);
    body.extend((groups_and_signatures.len() as u16).to_be_bytes());
    body.extend(groups_and_signatures);
    let length = (body.len() as u32).to_be_bytes();
    let hello = [&[1, length[1], length[2], length[3]], &body[..]].concat();
    [&[0x16, 3, 1][..], &(hello.len() as u16).to_be_bytes(), &hello].concat()
}

/// The kind of the first record that is answered: 22 goes on, 21 is an alert.
fn answered(mut stream: TcpStream, bytes: &[u8]) -> Option<u8> {
    let _ = stream.write_all(bytes);
    let mut first = [0];
    stream.read_exact(&mut first).ok().map(|()| first[0])
}

#[test]
fn tls_that_is_broken_or_misused_ends() {
    let scratch = Scratch::new("tls-misuse");
    scratch.certificates("certs", &[]);
    let broker = Broker::with_tls(&scratch, &["listener.ssl.t.handshake_timeout=500ms"]);
    let at = broker.address_of("mqtts", "t");
    let good = [0xC02B, 0xC02F, 0xC02C, 0xC030, 0xCCA9, 0xCCA8];
    assert_eq!(answered(tcp(at), &client_hello(0x0303, &good)), Some(22), "TLS 1.2 with good suites goes on");
    for (version, suites, what) in [
        (0x0300, &good[..], "SSL 3"),
        (0x0301, &good, "TLS 1.0"),
        (0x0302, &good, "TLS 1.1"),
        (0x0303, &[0x002F, 0x0035, 0x009C, 0x003C], "RSA for the exchange of keys"),
        (0x0303, &[0xC009, 0xC013, 0xC023, 0xC027], "CBC"),
        (0x0303, &[0x0005, 0x0004, 0xC007, 0xC011], "RC4"),
        (0x0303, &[0x0001, 0x0002, 0x003B, 0xC006, 0xC010], "no encryption"),
        (0x0303, &[0x0018, 0x0034, 0xC018, 0x006C], "no authentication"),
        (0x0303, &[0x0003, 0x0008, 0x0014], "for export"),
        (0x0303, &[], "nothing"),
    ] {
        assert_ne!(answered(tcp(at), &client_hello(version, suites)), Some(22), "{what}");
    }
    // A record that is longer than any, one that is none, and MQTT.
    for bytes in [vec![0x16, 3, 1, 0xFF, 0xFF], b"GET / HTTP/1.1\r\n\r\n".to_vec(), encoded(&connect("a", None))] {
        assert_ne!(answered(tcp(at), &bytes), Some(22), "{bytes:?}");
    }
    // Half a message has its time, and a TLS client is nobody for a listener without TLS.
    let mut half = tcp(at);
    half.write_all(&client_hello(0x0303, &good)[..40]).unwrap();
    assert!(is_closed(half));
    let mut plain = tcp(broker.address);
    plain.write_all(&client_hello(0x0303, &good)).unwrap();
    assert!(is_closed(plain));
    broker.stays_well();
}

/// The right authority is not enough: a certificate is for a purpose and a time.
#[test]
fn certificates_of_clients_are_for_clients_and_for_their_time() {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let scratch = Scratch::new("tls-purpose");
    scratch.certificates("certs", &[]);
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let ca = scratch.write("clients.pem", &authority.self_signed(&authority_key).unwrap().pem());
    let issuer = Issuer::from_params(&authority, &authority_key);
    let ca = format!("listener.ssl.t.cacertfile={ca}");
    let sets = ["listener.ssl.t.verify=verify_peer", "listener.ssl.t.fail_if_no_peer_cert=true", &ca];
    let broker = Broker::with_tls(&scratch, &sets);
    for (purpose, from, to, want) in [
        (ClientAuth, 2020, 4000, true),
        (ServerAuth, 2020, 4000, false),
        (ClientAuth, 2020, 2021, false),
        (ClientAuth, 3999, 4000, false),
    ] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.extended_key_usages = vec![purpose.clone()];
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
        let chain = vec![params.signed_by(&key, &issuer).unwrap().der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(scratch.file("certs/ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = StreamOwned::new(connection, tcp(broker.address_of("mqtts", "t")));
        let is_sent = stream.write_all(&encoded(&connect("a", None))).is_ok();
        let is_in = is_sent && stream.read(&mut [0; 16]).is_ok_and(|count| count > 0);
        assert_eq!(is_in, want, "{purpose:?} {from} {to}");
    }
    broker.stays_well();
}
