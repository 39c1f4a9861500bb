//! Logins and rules with real files, threads and signals. What they decide is tested in `core/access` and `core/node`.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Output, Stdio};

use newtmq_access::SCRAM_METHOD;
use newtmq_mqtt::{
    Auth, AuthProperties, Connect, ConnectProperties, Packet, PacketId, ProtocolVersion, QoS, ReasonCode, Subscribe,
    SubscribeFilters, SubscribeOptions, TopicFilter, UserProperties,
};
use rustix::process::Signal;

use crate::broker::{Broker, Scratch, newtmq};
use crate::client::{Client, publish};

/// `newtmq passwd` with this on its standard input.
pub fn passwd(arguments: &[&str], input: &str) -> Output {
    let mut command = newtmq();
    command.arg("passwd").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may not want to read it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// A password file with `alice` and `bob`, whose passwords are their names in capitals.
pub fn users(scratch: &Scratch) -> String {
    let file = scratch.path().join("users").to_str().unwrap().to_owned();
    for (user, password) in [("alice", "ALICE\n"), ("bob", "BOB")] {
        let output = passwd(&["--scram", &file, user], password);
        assert!(output.status.success(), "{output:?}");
    }
    file
}

pub fn connect<'a>(username: Option<&'a str>, password: Option<&'a [u8]>) -> Connect<'a> {
    Connect {
        version: ProtocolVersion::V5,
        clean_start: true,
        keep_alive: 0,
        client_id: "c",
        will: None,
        username,
        password,
        properties: ConnectProperties::default(),
    }
}

/// The answer to a CONNECT.
pub fn login(broker: &Broker, username: Option<&str>, password: Option<&str>) -> ReasonCode {
    let mut client = Client::open(broker);
    client.send(&Packet::Connect(connect(username, password.map(str::as_bytes))));
    connack(&mut client)
}

fn connack(client: &mut Client) -> ReasonCode {
    client.receive(|packet| match packet {
        Packet::Connack(connack) => connack.reason_code,
        other => panic!("{other:?}"),
    })
}

#[test]
fn passwords() {
    let scratch = Scratch::new("passwords");
    let file = users(&scratch);
    // A busy machine may take longer for all of them than for the default time.
    let patient = "broker.hook_timeout=60s";
    let broker = Broker::start(&[&format!("password_file={file}"), "allow_anonymous=false", patient]);
    assert_eq!(broker.started["authentication"], true);
    for (username, password, reason) in [
        (Some("alice"), Some("ALICE"), ReasonCode::Success),
        (Some("bob"), Some("BOB"), ReasonCode::Success),
        (Some("alice"), Some("BOB"), ReasonCode::BadUserNameOrPassword),
        (Some("alice"), None, ReasonCode::BadUserNameOrPassword),
        (Some("eve"), Some("ALICE"), ReasonCode::BadUserNameOrPassword),
        (None, None, ReasonCode::NotAuthorized),
    ] {
        assert_eq!(login(&broker, username, password), reason, "{username:?} {password:?}");
    }
    // Many at a time, more than there are threads.
    let mut clients: Vec<_> = (0..20).map(|_| Client::open(&broker)).collect();
    for (at, client) in clients.iter_mut().enumerate() {
        let id = format!("c{at}");
        client.send(&Packet::Connect(Connect { client_id: &id, ..connect(Some("bob"), Some(b"BOB")) }));
    }
    for client in &mut clients {
        assert_eq!(connack(client), ReasonCode::Success);
    }
    assert!(!broker.process.stderr.text().contains("ALICE"));
    broker.stays_well();
}

#[test]
fn with_a_password_file_anonymous_clients_may_be_let_in() {
    let scratch = Scratch::new("anonymous");
    let broker = Broker::start(&[&format!("password_file={}", users(&scratch))]);
    assert_eq!(login(&broker, None, None), ReasonCode::Success);
    assert_eq!(login(&broker, Some("eve"), Some("x")), ReasonCode::BadUserNameOrPassword);
}

#[test]
fn too_many_failures_make_a_user_wait() {
    let scratch = Scratch::new("throttle");
    let file = format!("password_file={}", users(&scratch));
    let broker = Broker::start(&[&file, "login_throttle.user_failures=3"]);
    for _ in 0..3 {
        assert_eq!(login(&broker, Some("alice"), Some("x")), ReasonCode::BadUserNameOrPassword);
    }
    assert_eq!(login(&broker, Some("alice"), Some("ALICE")), ReasonCode::ConnectionRateExceeded);
    assert_eq!(login(&broker, Some("bob"), Some("BOB")), ReasonCode::Success);
}

const NO_BOB: &str = "{deny, {user, \"bob\"}, pubsub, [\"alice/#\"]}.\n{allow, all}\n";

/// Subscribes to one filter; the answer.
pub fn subscribe(client: &mut Client, filter: &str) -> ReasonCode {
    let filters = [(TopicFilter::new(filter).unwrap(), SubscribeOptions::new(QoS::AtLeastOnce))];
    client.send(&Packet::Subscribe(Subscribe {
        packet_id: PacketId::new(1).unwrap(),
        subscription_identifier: None,
        user_properties: UserProperties::default(),
        filters: SubscribeFilters::new(&filters),
    }));
    client.receive(|packet| match packet {
        Packet::Suback(suback) => suback.reason_codes.iter().next().unwrap(),
        other => panic!("{other:?}"),
    })
}

/// Publishes with QoS 1; the answer.
pub fn published(client: &mut Client, topic: &str) -> ReasonCode {
    client.send(&publish(topic, b"x", QoS::AtLeastOnce));
    client.receive(|packet| match packet {
        Packet::Puback(ack) => ack.reason_code,
        other => panic!("{other:?}"),
    })
}

#[test]
fn rules_and_a_reload() {
    let scratch = Scratch::new("rules");
    let acl = scratch.write("acl.conf", NO_BOB);
    let file = users(&scratch);
    let broker = Broker::start(&[&format!("password_file={file}"), &format!("acl_file={acl}")]);
    let mut bob = Client::open(&broker);
    bob.send(&Packet::Connect(connect(Some("bob"), Some(b"BOB"))));
    bob.accepted();
    let (no, none) = (ReasonCode::NotAuthorized, ReasonCode::NoMatchingSubscribers);
    assert_eq!(subscribe(&mut bob, "alice/#"), no);
    assert_eq!(subscribe(&mut bob, "bob/#"), ReasonCode::GrantedQoS1);
    assert_eq!([published(&mut bob, "alice/1"), published(&mut bob, "other")], [no, none]);

    broker.process.handles(Signal::HUP);
    // A broken file changes nothing.
    scratch.write("acl.conf", "{allow, all}.\n{deny, everybody}.");
    broker.process.signal(Signal::HUP);
    broker.process.stderr.wait_for("the mistake", |line| line.contains("acl.conf:2:8: whom the rule is about"));
    assert_eq!(published(&mut bob, "alice/1"), no);

    scratch.write("acl.conf", "{deny, {user, \"bob\"}, publish, [\"other\"]}.");
    assert!(passwd(&[&file, "bob"], "new").status.success());
    broker.process.signal(Signal::HUP);
    broker.process.stderr.wait_for("the reload", |line| line.contains("read the files of users and rules again"));
    // The rules are on their way to the shard.
    crate::broker::wait_until("the new rules", || (published(&mut bob, "alice/1") == none).then_some(()));
    assert_eq!(published(&mut bob, "other"), no);
    assert_eq!(login(&broker, Some("bob"), Some("BOB")), ReasonCode::BadUserNameOrPassword);
    assert_eq!(login(&broker, Some("bob"), Some("new")), ReasonCode::Success);
}

fn auth(client: &mut Client, reason_code: ReasonCode, data: &str) {
    client.send(&Packet::Auth(Auth {
        reason_code,
        properties: AuthProperties {
            authentication_method: Some(SCRAM_METHOD),
            authentication_data: Some(data.as_bytes()),
            ..AuthProperties::default()
        },
    }));
}

/// The server's message in an AUTH with this reason.
fn challenge(client: &mut Client, reason: ReasonCode) -> String {
    client.receive(|packet| match packet {
        Packet::Auth(auth) => {
            assert_eq!((auth.reason_code, auth.properties.authentication_method), (reason, Some(SCRAM_METHOD)));
            String::from_utf8(auth.properties.authentication_data.unwrap().to_vec()).unwrap()
        }
        other => panic!("{other:?}"),
    })
}

/// The client's side of an exchange: CONNECT with the first message, AUTH with the final one; CONNACK's reason.
fn scram(client: &mut Client, username: &str, password: &str) -> ReasonCode {
    let bare = format!("n={username},r=0123456789abcdef");
    let first = format!("n,,{bare}");
    let properties = ConnectProperties {
        authentication_method: Some(SCRAM_METHOD),
        authentication_data: Some(first.as_bytes()),
        ..ConnectProperties::default()
    };
    client.send(&Packet::Connect(Connect { properties, ..connect(Some(username), None) }));
    let challenge = challenge(client, ReasonCode::ContinueAuthentication);
    let (last, expected) = scram_client::answer(password, &bare, &challenge);
    auth(client, ReasonCode::ContinueAuthentication, &last);
    client.receive(|packet| match packet {
        Packet::Connack(connack) => {
            if !connack.reason_code.is_error() {
                let data = connack.properties.authentication_data.unwrap();
                assert_eq!(data, expected.as_bytes(), "the server knows the password, too");
            }
            connack.reason_code
        }
        other => panic!("{other:?}"),
    })
}

/// RFC 5802 as a client sees it.
mod scram_client {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use hmac::{Hmac, KeyInit as _, Mac as _};
    use sha2::{Digest as _, Sha256};

    fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(text);
        mac.finalize().into_bytes().into()
    }

    /// `Hi` of RFC 5802: PBKDF2 with one block.
    fn salted(password: &[u8], salt: &[u8], iterations: u32) -> [u8; 32] {
        let mut last = hmac(password, &[salt, &1_u32.to_be_bytes()].concat());
        let mut all = last;
        for _ in 1..iterations {
            last = hmac(password, &last);
            all.iter_mut().zip(last).for_each(|(all, last)| *all ^= last);
        }
        all
    }

    /// The final message, and what the server answers if it knows the password.
    pub(super) fn answer(password: &str, bare: &str, challenge: &str) -> (String, String) {
        let part = |name: &str| challenge.split(',').find_map(|part| part.strip_prefix(name)).unwrap();
        let salt = STANDARD.decode(part("s=")).unwrap();
        let salted = salted(password.as_bytes(), &salt, part("i=").parse().unwrap());
        let client_key = hmac(&salted, b"Client Key");
        let stored_key: [u8; 32] = Sha256::digest(client_key).into();
        let unproved = format!("c=biws,r={}", part("r="));
        let proved = format!("{bare},{challenge},{unproved}");
        let signature = hmac(&stored_key, proved.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, signature)| key ^ signature).collect();
        let server = hmac(&hmac(&salted, b"Server Key"), proved.as_bytes());
        (format!("{unproved},p={}", STANDARD.encode(proof)), format!("v={}", STANDARD.encode(server)))
    }
}

#[test]
fn scram_over_auth() {
    let scratch = Scratch::new("scram");
    let broker = Broker::start(&[&format!("password_file={}", users(&scratch)), "allow_anonymous=false"]);
    for (username, password, reason) in [
        ("alice", "ALICE", ReasonCode::Success),
        ("bob", "BOB", ReasonCode::Success),
        ("alice", "BOB", ReasonCode::BadUserNameOrPassword),
        ("nobody", "ALICE", ReasonCode::BadUserNameOrPassword),
    ] {
        let mut client = Client::open(&broker);
        assert_eq!(scram(&mut client, username, password), reason, "{username} {password}");
    }
    // Once more on the open connection, first with the right password and then with a wrong one.
    let mut client = Client::open(&broker);
    assert_eq!(scram(&mut client, "alice", "ALICE"), ReasonCode::Success);
    for right in [true, false] {
        let bare = "n=alice,r=again";
        auth(&mut client, ReasonCode::ReAuthenticate, &format!("n,,{bare}"));
        let first = challenge(&mut client, ReasonCode::ContinueAuthentication);
        let (last, expected) = scram_client::answer(if right { "ALICE" } else { "wrong" }, bare, &first);
        auth(&mut client, ReasonCode::ContinueAuthentication, &last);
        if right {
            assert_eq!(challenge(&mut client, ReasonCode::Success), expected);
        }
    }
    assert_eq!(client.disconnected(), ReasonCode::NotAuthorized);
    broker.stays_well();
}

#[test]
fn files_that_are_wrong_stop_the_start() {
    let scratch = Scratch::new("wrong-files");
    let acl = scratch.write("acl.conf", "{allow, all}.\n  {deny, {usr, \"x\"}, publish, []}.");
    let list = scratch.write("users", "# people\nalice:secret\n");
    let missing = scratch.path().join("missing").to_str().unwrap().to_owned();
    for (set, told) in [
        (format!("acl_file={acl}"), format!("{acl}:2:11: `usr` is none of")),
        (format!("password_file={list}"), format!("{list}:2: the password's hash: it is not an Argon2id hash")),
        (format!("acl_file={missing}"), format!("{missing}: No such file")),
        ("allow_anonymous=false".to_owned(), "allow_anonymous: false needs a password_file".to_owned()),
    ] {
        let output =
            newtmq().args(["run", "--set", "listener.tcp.external=127.0.0.1:0", "--set", &set]).output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{log}");
        assert!(log.contains(&told) && !log.contains("secret"), "{log}");
    }
    let config = scratch.write("newtmq.toml", &format!("acl_file = \"{acl}\""));
    let output = newtmq().args(["check-config", &config]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn the_passwd_command() {
    let scratch = Scratch::new("passwd");
    let file = users(&scratch);
    let mode = || std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    let text = || std::fs::read_to_string(&file).unwrap();
    assert!(text().starts_with("!salt-key:") && text().lines().count() == 3, "{}", text());
    // What was set by hand stays.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    std::fs::write(&file, format!("# people\n{}", text())).unwrap();
    let before = text();
    assert!(before.contains("bob:$argon2id$") && before.matches(":SCRAM-SHA-256$").count() == 2);
    let output = passwd(&["--scram", &file, "bob"], "p\u{e4}ssword\n");
    assert_eq!((output.status.code(), text()), (Some(2), before.clone()), "{output:?}");
    assert!(passwd(&[&file, "bob"], "p\u{e4}ssword\n").status.success());
    assert_eq!(text().matches(":SCRAM-SHA-256$").count(), 1);
    assert!(text().starts_with("# people\n!salt-key:") && text() != before && mode() == 0o640);
    for (arguments, input, code) in [
        (vec!["--delete", &file, "bob"], "", 0),
        (vec!["--delete", &file, "bob"], "", 1),
        (vec![&file, "carol"], "", 2),
        (vec![&file, "carol"], "\n", 2),
        (vec![&file, ""], "x", 2),
        (vec![&file], "", 2),
        (vec!["/nowhere/users", "carol"], "x", 1),
    ] {
        let output = passwd(&arguments, input);
        assert_eq!(output.status.code(), Some(code), "{arguments:?} {output:?}");
        assert!(!text().contains("bob"), "{arguments:?}");
    }
    let after = text();
    std::fs::write(format!("{file}.new"), "").unwrap();
    assert_eq!(passwd(&[&file, "carol"], "x").status.code(), Some(1));
    assert_eq!(text(), after);
    // A link stays a link.
    std::fs::remove_file(format!("{file}.new")).unwrap();
    let link = scratch.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    assert!(passwd(&[link.to_str().unwrap(), "carol"], "x").status.success());
    assert!(text().contains("carol:") && link.is_symlink());
    let broken = scratch.write("broken", "what is this");
    assert_eq!(passwd(&[&broken, "carol"], "x").status.code(), Some(1));
}
