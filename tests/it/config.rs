//! A broker with the files of another one, and with other files while it runs.

use newtmq_mqtt::{QoS, ReasonCode};
use rustix::process::Signal;
use serde_json::Value;

use crate::access::{login, subscribe};
use crate::broker::{Broker, Process, Scratch, newtmq};
use crate::client::Client;

/// The sample of the repository with rules, a plugin and its users.
fn installed(scratch: &Scratch) -> String {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("etc");
    for folder in ["etc/plugins", "data"] {
        std::fs::create_dir_all(scratch.path().join(folder)).unwrap();
    }
    for file in ["emqx.conf", "acl.conf", "plugins/emqx_retainer.conf"] {
        std::fs::copy(root.join(file), scratch.path().join("etc").join(file)).unwrap();
    }
    scratch
        .write("etc/plugins/emqx_auth_username.conf", "auth.user.1.username = alice\nauth.user.1.password = pa#ss\n");
    scratch.write("data/loaded_plugins", "emqx_retainer.\nemqx_auth_username.\nemqx_stomp.\n");
    scratch.file("etc/emqx.conf")
}

/// On free ports, asked over a socket of its own.
fn start(scratch: &Scratch, file: &str) -> Broker {
    let sets = ["listener.tcp.internal.bind=127.0.0.1:0", "listener.ws.external.bind=127.0.0.1:0"];
    let socket = socket(scratch);
    Broker::of(newtmq(), &sets, &["--config", file, "--socket", &socket, "--shards", "2"])
}

/// Short, for a path of a socket has 100 bytes.
fn socket(scratch: &Scratch) -> String {
    let name = scratch.path().file_name().unwrap().to_str().unwrap().to_owned();
    std::env::temp_dir().join(format!("newtmq-{name}.sock")).to_str().unwrap().to_owned()
}

/// What `newtmq` prints on both streams, and its exit code.
fn told(arguments: &[&str]) -> (String, String, Option<i32>) {
    let mut command = newtmq();
    command.args(arguments);
    let mut process = Process::start(command);
    let code = process.wait().code();
    (process.stdout.to_end(), process.stderr.to_end(), code)
}

#[test]
fn an_emqx_conf_runs_as_it_is() {
    let scratch = Scratch::new("emqx");
    let file = installed(&scratch);
    let (checked, _, code) = told(&["check-config", &file]);
    assert_eq!(code, Some(0), "{checked}");
    assert!(checked.contains("not in this version: emqx_stomp"), "{checked}");

    let broker = start(&scratch, &file);
    broker.process.stderr.wait_for("what is missing", |line| line.contains("not in this version: the STOMP gateway"));
    assert_eq!(login(&broker, Some("alice"), Some("pa#ss")), ReasonCode::Success);
    assert_eq!(login(&broker, Some("alice"), Some("other")), ReasonCode::BadUserNameOrPassword);
    let mut client = Client::connect(&broker, "a");
    client.subscribe("t/#", QoS::AtLeastOnce);
    client.publish("t/1", b"hi", QoS::AtMostOnce);
    assert_eq!(client.message().payload, b"hi");
    broker.stays_well();

    // What is imported is a file of this broker, with the users beside it.
    let output = scratch.file("etc/newtmq.toml");
    let (listed, errors, code) = told(&["config", "import", &file, "-o", &output]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(listed.contains("wrote ") && listed.contains("newtmq.users"), "{listed}");
    assert_eq!(told(&["config", "import", &file, "-o", &output]).2, Some(1), "it is there");
    let (_, errors, code) = told(&["check-config", &output]);
    assert_eq!(code, Some(0), "{errors}");
    let broker = start(&scratch, &output);
    assert_eq!(login(&broker, Some("alice"), Some("pa#ss")), ReasonCode::Success);
    assert_eq!(login(&broker, Some("alice"), Some("other")), ReasonCode::BadUserNameOrPassword);
    broker.stays_well();
}

#[test]
fn a_plugin_that_guards_is_missed() {
    let scratch = Scratch::new("guard");
    let file = installed(&scratch);
    scratch.write("data/loaded_plugins", "emqx_retainer.\nemqx_auth_mysql.\n");
    let (_, errors, code) = told(&["run", "--config", &file]);
    assert_eq!(code, Some(2));
    assert!(errors.contains("emqx_auth_mysql: this plugin decides who may connect"), "{errors}");
    let (line, _, code) = told(&["config", "import", &file, "--json"]);
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((code, &line["ok"], line["errors"].as_array().unwrap().len()), (Some(2), &Value::Bool(false), 1));
}

#[test]
fn a_reload_tells_what_it_changes() {
    let scratch = Scratch::new("conf");
    let text = "allow_anonymous = true\nacl_nomatch = \"allow\"\nzone.external.max_inflight = 32\n";
    let file = scratch.write("newtmq.toml", text);
    let broker = start(&scratch, &file);
    let reload = |json: bool| {
        let socket = socket(&scratch);
        let arguments = ["ctl", "--socket", &socket, "reload", "--json"];
        told(&arguments[..if json { 5 } else { 4 }])
    };
    assert_eq!(reload(false), ("Nothing of the configuration has changed.".to_owned(), String::new(), Some(0)));

    let mut before = Client::connect(&broker, "a");
    let other = "acl_nomatch = \"deny\"\nzone.external.max_inflight = 64\nlistener.tcp.external.access.1 = \"deny all\"\n\
                 memory.high_watermark = \"none\"\nlistener.tcp.external.max_conn_rate = 7\n";
    scratch.write("newtmq.toml", other);
    let (line, _, code) = reload(true);
    let data = serde_json::from_str::<Value>(&line).unwrap()["data"].clone();
    assert_eq!(code, Some(0));
    let keys = |of: &str| data[of].as_array().unwrap().iter().map(|of| of["key"].clone()).collect::<Vec<_>>();
    assert_eq!(
        keys("changed"),
        [
            "acl_nomatch",
            "listener.tcp.external.access.1",
            "listener.tcp.external.max_conn_rate",
            "memory.high_watermark"
        ]
    );
    assert_eq!(keys("restart"), ["zone.external.max_inflight"]);
    // The rules are on their way to the shards; who is connected stays.
    crate::broker::wait_until("the new rules", || {
        (subscribe(&mut before, "t") == ReasonCode::NotAuthorized).then_some(())
    });
    // The new rule of the listener refuses whoever comes.
    Client::open(&broker).closed();

    // A mistake changes nothing.
    scratch.write("newtmq.toml", "acl_nomatch = \"allow\"\ncolour = \"red\"\n");
    let (lines, _, code) = reload(false);
    assert!(lines.contains("Nothing is changed:") && lines.contains("newtmq.toml:2: colour: unknown key"), "{lines}");
    assert_eq!(code, Some(1));
    assert_eq!(subscribe(&mut before, "t"), ReasonCode::NotAuthorized);

    // SIGHUP does the same, and tells the log.
    scratch.write("newtmq.toml", "acl_nomatch = \"allow\"\nzone.external.max_inflight = 32\n");
    broker.process.signal(Signal::HUP);
    broker.process.stderr.wait_for("the change", |line| line.contains("changed: acl_nomatch = allow (was deny)"));
    let log = broker.process.stderr.text();
    assert!(log.contains("needs a restart: zone.external.max_inflight = 64 (was 32)"), "{log}");
    Client::connect(&broker, "b").ping();
}
