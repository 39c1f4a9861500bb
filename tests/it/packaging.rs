//! What comes with the program: units, images, charts and dashboards say what is true of it.

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use newtmq_mqtt::QoS;
use rustix::process::Signal;

use crate::api::request;
use crate::broker::{Broker, DEADLINE, Process, Scratch, clean, newtmq};
use crate::client::Client;

fn repository(file: &str) -> String {
    let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The words of a text that begin so.
fn words(text: &str, starts: &[&str], has: fn(char) -> bool) -> BTreeSet<String> {
    let all = text.split(|letter: char| !has(letter)).filter(|word| starts.iter().any(|start| word.starts_with(start)));
    all.map(str::to_owned).collect()
}

/// As systemd does with `Type=notify` and `WatchdogSec`.
#[test]
fn a_service_manager_is_told() {
    let scratch = Scratch::new("notify");
    let socket = UnixDatagram::bind(scratch.path().join("notify")).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut command = newtmq();
    command.env("NOTIFY_SOCKET", scratch.file("notify")).env("WATCHDOG_USEC", "100000");
    let mut broker = Broker::of(command, &[], &[]);
    let hears = |wanted: &str| {
        let mut bytes = [0; 1024];
        loop {
            let count = socket.recv(&mut bytes).unwrap();
            let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
            if text.lines().any(|line| line == wanted) {
                return text;
            }
        }
    };
    assert!(hears("READY=1").contains("STATUS="));
    hears("WATCHDOG=1");
    hears("WATCHDOG=1");
    broker.process.signal(Signal::TERM);
    hears("STOPPING=1");
    assert_eq!(broker.process.wait().code(), Some(0));
}

/// The entry point of the image, in a plain directory instead of one.
#[test]
fn the_entry_point_of_the_image() {
    let scratch = Scratch::new("entrypoint");
    let config =
        "listener.tcp.external.bind = \"127.0.0.1:0\"\nnode.listen = \"127.0.0.1:0\"\napi.bind = \"127.0.0.1:0\"\n";
    let (config, data) = (scratch.write("newtmq.toml", config), scratch.file("data"));
    let folder = std::path::Path::new(env!("CARGO_BIN_EXE_newtmq")).parent().unwrap();
    let entry = |arguments: &[&str]| {
        let mut command = clean(Command::new(format!("{}/etc/docker/entrypoint", env!("CARGO_MANIFEST_DIR"))));
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
        command.args(arguments).env("PATH", path).env("NEWTMQ_CONFIG", &config).env("NEWTMQ_DATA", &data);
        command
    };
    let mut start = entry(&[]);
    start.env("NEWTMQ_MQTT__MAX_PACKET_SIZE", "64KB").args(["run", "--json"]);
    let broker = Broker::from(Process::start(start));
    let mut client = Client::connect(&broker, "a");
    client.subscribe("t", QoS::AtMostOnce);
    let status = entry(&["ctl", "status"]).output().unwrap();
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.status.success() && text.contains("is running"), "{text}");
    let name = text.split('\'').nth(1).unwrap().to_owned();
    assert!(name.starts_with("newtmq@") && name.len() > "newtmq@".len(), "{text}");
    let version = entry(&["--version"]).output().unwrap();
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("newtmq "));
    // A wrong key is told, and ends it with the code of wrong configurations.
    let wrong = entry(&["run", "--set", "no.such=1"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2), "{}", String::from_utf8_lossy(&wrong.stderr));
    broker.stays_well();
}

/// The configurations that come with images and charts are right, and the variables that they set are keys.
#[test]
fn configurations_of_images_and_charts() {
    let scratch = Scratch::new("packaged-config");
    let values = repository("etc/helm/newtmq/values.yaml");
    let block = values.split("config: |\n").nth(1).unwrap();
    let chart: String =
        block.lines().take_while(|line| line.starts_with("  ")).map(|line| format!("{}\n", line.trim())).collect();
    assert!(chart.contains("listener.tcp.external.bind"));
    for (name, text) in [("image.toml", repository("etc/docker/newtmq.toml")), ("chart.toml", chart)] {
        let mut command = newtmq();
        let output = command.args(["check-config", &scratch.write(name, &text)]).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let keys = repository("docs/configuration.md");
    for file in ["etc/docker/compose.yaml", "etc/helm/newtmq/templates/statefulset.yaml", "etc/docker/entrypoint"] {
        let set = words(&repository(file), &["NEWTMQ_"], |letter| letter.is_ascii_alphanumeric() || letter == '_');
        let set: Vec<_> = set.iter().filter(|name| name.contains("__")).collect();
        assert!(!set.is_empty(), "{file}");
        for name in set {
            let key = name.trim_start_matches("NEWTMQ_").replace("__", ".").to_lowercase();
            assert!(keys.contains(&format!("### `{key}`\n")), "{file} sets {name}, and there is no key {key}");
        }
    }
}

/// What dashboards and alerts ask for is what the broker tells.
#[test]
fn dashboards_and_alerts_name_metrics_that_are_there() {
    let scratch = Scratch::new("metrics");
    let broker = Broker::of(newtmq(), &[], &["--data", &scratch.file("data")]);
    let told = request(&broker, "GET", "/metrics", "", "").text;
    let letters = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    let there = words(&told, &["newtmq_", "process_"], letters);
    serde_json::from_str::<serde_json::Value>(&repository("etc/grafana/newtmq.json")).unwrap();
    for file in ["etc/grafana/newtmq.json", "etc/prometheus/alerts.yaml"] {
        let asked = words(&repository(file), &["newtmq_", "process_"], letters);
        assert!(asked.len() > 5, "{asked:?}");
        let missing: Vec<_> = asked.difference(&there).collect();
        assert!(missing.is_empty(), "{file} asks for {missing:?}, and there are {there:?}");
    }
    broker.stays_well();
}

#[test]
fn manual_pages() {
    let scratch = Scratch::new("man");
    let output = newtmq().arg("man").arg(scratch.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page = std::fs::read_to_string(scratch.path().join("newtmq.1")).unwrap();
    assert!(page.starts_with(".ie") || page.contains(".TH newtmq 1"), "{page}");
    assert!(page.contains("Exit codes") && page.contains("check\\-config"), "{page}");
    assert!(scratch.path().join("newtmq-ctl.1").exists());
    let nowhere = newtmq().args(["man", &scratch.file("nowhere")]).output().unwrap();
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("nowhere"));
}
