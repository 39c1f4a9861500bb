//! Nodes, each its own process, that find each other by a service; and what becomes of them when it dies. What a service can
//! answer is tested in `src/cluster`.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::broker::{Broker, Process, Scratch, clean, newtmq, wait_until};
use crate::cluster::{ALL, carries, ctl, wait_for_status, wait_until_open};

#[path = "../../src/cluster/k8s/mock.rs"]
#[allow(dead_code)]
mod mock;

/// A node on any port, with a data directory of its own; and where others reach it.
pub fn node(scratch: &Scratch, number: u32, sets: &[String]) -> (Broker, SocketAddr) {
    let name = format!("node.name=n{number}@test");
    let own = ["node.cookie=c00kie", "node.listen=127.0.0.1:0", &name, "cluster.expected_size=3"];
    let sets: Vec<&str> = own.into_iter().chain(sets.iter().map(String::as_str)).collect();
    let data = scratch.file(&number.to_string());
    let broker = Broker::of(newtmq(), &sets, &["--data", &data, "--shards", "1"]);
    let line = broker.process.stderr.wait_for("its address", |line| line.contains("other nodes are accepted"));
    let line: Value = serde_json::from_str(&line).unwrap();
    let address = line["address"].as_str().unwrap().parse().unwrap();
    (broker, address)
}

/// What `newtmq ctl cluster status` tells of discovery.
pub fn discovery(scratch: &Scratch, number: u32) -> Value {
    let told: Value = serde_json::from_str(&ctl(scratch, number, &["status", "--json"]).0).unwrap();
    told["data"]["discovery"].clone()
}

/// Waits until a node has found these addresses, and everybody answers.
pub fn wait_until_found(scratch: &Scratch, number: u32, wanted: &[SocketAddr]) {
    let mut wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
    wanted.sort();
    wait_until("what is found", || {
        let told = discovery(scratch, number);
        let mut found: Vec<&str> = told["addresses"].as_array()?.iter().map(|one| one.as_str().unwrap()).collect();
        found.sort_unstable();
        (found == wanted && told["failing"].as_object().unwrap().is_empty()).then_some(())
    });
}

pub const NO_ANSWER: &str = "discovery has no answer";

#[test]
fn nodes_find_each_other_by_kubernetes_and_go_on_without_it() {
    let scratch = Scratch::new("k8s");
    scratch.certificates("api", &[]);
    let token = scratch.write("token", "t0ken");
    let [certificate, key] = ["cert.pem", "key.pem"].map(|file| scratch.path().join("api").join(file));
    let mut api = mock::Api::start(Some((&certificate, &key)));
    api.set_token("t0ken");
    let sets = [
        "cluster.discovery=k8s".to_owned(),
        format!("cluster.k8s.apiserver=https://{}", api.address),
        format!("cluster.k8s.cacertfile={}", scratch.file("api/ca.pem")),
        format!("cluster.k8s.tokenfile={token}"),
    ];
    let (mut nodes, mut addresses): (Vec<Broker>, Vec<SocketAddr>) =
        (1..=3).map(|number| node(&scratch, number, &sets)).unzip();
    let hint = "is there a service newtmq in the namespace default?";
    nodes[0].process.stderr.wait_for("what is missing", |line| line.contains(NO_ANSWER) && line.contains(hint));
    api.put(mock::ENDPOINTS, mock::endpoints("newtmq", &addresses));
    wait_until_open(&scratch, 1);
    carries(&nodes[1], &nodes[0], "with/kubernetes");

    api.die();
    nodes[0]
        .process
        .stderr
        .wait_for("an outage", |line| line.contains(NO_ANSWER) && line.contains("Connection refused"));
    carries(&nodes[1], &nodes[0], "without/kubernetes");
    nodes[2].process.signal(Signal::KILL);
    nodes[2].process.wait();
    carries(&nodes[1], &nodes[0], "without/third");
    (nodes[2], addresses[2]) = node(&scratch, 3, &sets);
    wait_until_open(&scratch, 2);
    carries(&nodes[2], &nodes[0], "to/third");
    let (told, code) = ctl(&scratch, 1, &["status"]);
    assert!(
        told.starts_with(&format!("Cluster status: [{ALL}]\nDiscovery had no answer when last asked: k8s https://"))
    );
    assert_eq!(code, Some(0));

    api.put(mock::ENDPOINTS, mock::endpoints("newtmq", &addresses));
    api.come_back();
    wait_until_found(&scratch, 1, &addresses[1..]);
    wait_until_found(&scratch, 3, &addresses[..2]);
    for node in &nodes {
        let log = &node.process.stderr;
        assert!(!log.text().contains("t0ken"));
        assert!(log.count("Connection refused (os error 111)\"") <= 3, "{}", log.text());
        node.assert_log_is_clean();
    }
}

/// An etcd, and what its programs need to reach it.
struct Etcd {
    process: Process,
    url: String,
    arguments: Vec<String>,
    data: String,
}

/// A port that nobody has.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Etcd {
    /// With TLS if there is a folder of certificates.
    fn start(scratch: &Scratch, certificates: Option<&str>, asks_for_certificates: bool) -> Etcd {
        let scheme = if certificates.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://127.0.0.1:{}", free_port());
        let peers = format!("http://127.0.0.1:{}", free_port());
        let data = scratch.file("etcd");
        let mut arguments: Vec<String> = [
            ("data-dir", data.as_str()),
            ("listen-client-urls", &url),
            ("advertise-client-urls", &url),
            ("listen-peer-urls", &peers),
            ("initial-advertise-peer-urls", &peers),
            ("initial-cluster", &format!("default={peers}")),
        ]
        .map(|(name, value)| format!("--{name}={value}"))
        .to_vec();
        if let Some(folder) = certificates {
            let mut files = vec![("cert-file", "cert.pem"), ("key-file", "key.pem")];
            if asks_for_certificates {
                files.push(("trusted-ca-file", "ca.pem"));
                arguments.push("--client-cert-auth".to_owned());
            }
            let file = |(name, file)| format!("--{name}={}", scratch.file(&format!("{folder}/{file}")));
            arguments.extend(files.into_iter().map(file));
        }
        let process = Etcd::process(&arguments);
        Etcd { process, url, arguments, data }
    }

    fn process(arguments: &[String]) -> Process {
        let mut command = clean(Command::new("etcd"));
        command.args(arguments);
        Process::start(command)
    }

    fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait();
    }

    fn start_again(&mut self) {
        self.process = Etcd::process(&self.arguments);
    }

    /// What `etcdctl` prints, once it has an answer.
    fn ctl(&self, arguments: &[&str]) -> String {
        wait_until("etcdctl", || {
            let mut command = clean(Command::new("etcdctl"));
            command.env("ETCDCTL_API", "3").arg(format!("--endpoints={}", self.url)).args(arguments);
            let mut process = Process::start(command);
            (process.wait().code() == Some(0)).then(|| process.stdout.to_end())
        })
    }

    fn keys(&self, arguments: &[&str]) -> Vec<String> {
        let all = [&["get", "--prefix", "", "--keys-only"], arguments].concat();
        self.ctl(&all).lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }
}

#[test]
#[ignore = "needs etcd and etcdctl"]
fn etcd_lists_the_nodes_that_go_on_without_it() {
    let scratch = Scratch::new("etcd");
    let mut etcd = Etcd::start(&scratch, None, false);
    // The first of both is not there.
    let sets = [
        "cluster.discovery=etcd".to_owned(),
        format!("cluster.etcd.server=http://127.0.0.1:{},{}", free_port(), etcd.url),
        "cluster.etcd.prefix=of/tests".to_owned(),
        "cluster.etcd.node_ttl=5s".to_owned(),
    ];
    let (mut nodes, mut addresses): (Vec<Broker>, Vec<SocketAddr>) =
        (1..=3).map(|number| node(&scratch, number, &sets)).unzip();
    wait_until_open(&scratch, 1);
    let keys = etcd.keys(&[]);
    assert!(keys.len() == 3 && keys.iter().all(|key| key.starts_with("of/tests/newtmqcl/nodes/")), "{keys:?}");

    // Somebody deletes what a node has said: it says it again.
    etcd.ctl(&["del", &keys[0]]);
    wait_until("the key", || (etcd.keys(&[]) == keys).then_some(()));

    // What is no node is told of, and left out.
    etcd.ctl(&["put", "of/tests/newtmqcl/nodes/x", "no node"]);
    wait_until("a word about it", || {
        let failing = discovery(&scratch, 1)["failing"].to_string();
        failing.contains("of/tests/newtmqcl/nodes/x has no value of a node").then_some(())
    });
    etcd.ctl(&["del", "of/tests/newtmqcl/nodes/x"]);
    wait_until("the end of it", || (!discovery(&scratch, 1)["failing"].to_string().contains("nodes/x")).then_some(()));

    // A node that is gone is listed until its lease ends, and no longer.
    nodes[2].process.signal(Signal::KILL);
    nodes[2].process.wait();
    wait_until("the end of a lease", || (etcd.keys(&[]).len() == 2).then_some(()));
    carries(&nodes[1], &nodes[0], "without/third");

    etcd.kill();
    nodes[0].process.stderr.wait_for("an outage", |line| line.contains(NO_ANSWER) && line.contains(&etcd.url));
    carries(&nodes[1], &nodes[0], "without/etcd");
    (nodes[2], addresses[2]) = node(&scratch, 3, &sets);
    wait_until_open(&scratch, 2);
    carries(&nodes[2], &nodes[0], "to/third");

    // It comes back with nothing: no lease, no key.
    std::fs::remove_dir_all(&etcd.data).unwrap();
    etcd.start_again();
    wait_until("all keys", || (etcd.keys(&[]) == keys).then_some(()));
    for number in 1..=3 {
        wait_for_found(&scratch, number, &addresses);
    }
    wait_until_open(&scratch, 2);
    for node in &nodes {
        let log = &node.process.stderr;
        // Once for each outage and server.
        assert!(log.count(NO_ANSWER) <= 8, "{}", log.text());
        node.assert_log_is_clean();
    }
}

/// Like [`wait_until_found`], for a list with a server that is never there.
fn wait_for_found(scratch: &Scratch, number: u32, all: &[SocketAddr]) {
    let others = all.iter().enumerate().filter(|(at, _)| *at + 1 != number as usize);
    let mut wanted: Vec<String> = others.map(|(_, address)| address.to_string()).collect();
    wanted.sort();
    wait_until("what is found", || {
        let told = discovery(scratch, number);
        let mut found: Vec<&str> = told["addresses"].as_array()?.iter().map(|one| one.as_str().unwrap()).collect();
        found.sort_unstable();
        (found == wanted).then_some(())
    });
}

/// An etcd with TLS, how it is configured for a node, and how for `etcdctl`.
fn etcd_with_tls(scratch: &Scratch, asks_for_certificates: bool) -> (Etcd, Vec<String>, [String; 3]) {
    scratch.certificates("certs", &[]);
    scratch.certificates("certs", &["--client", "node"]);
    let etcd = Etcd::start(scratch, Some("certs"), asks_for_certificates);
    let file = |name: &str| scratch.file(&format!("certs/{name}"));
    let shown = [
        format!("--cacert={}", file("ca.pem")),
        format!("--cert={}", file("client-node.pem")),
        format!("--key={}", file("client-node-key.pem")),
    ];
    let sets = vec![
        "cluster.discovery=etcd".to_owned(),
        format!("cluster.etcd.server={}", etcd.url),
        format!("cluster.etcd.ssl.cacertfile={}", file("ca.pem")),
    ];
    (etcd, sets, shown)
}

#[test]
#[ignore = "needs etcd and etcdctl"]
fn etcd_that_asks_for_certificates() {
    let scratch = Scratch::new("etcd-tls");
    let (etcd, mut sets, shown) = etcd_with_tls(&scratch, true);
    etcd.ctl(&[&shown[0], &shown[1], &shown[2], "endpoint", "health"]);
    let (without, _) = node(&scratch, 1, &sets);
    without.process.stderr.wait_for("no certificate", |line| line.contains(NO_ANSWER));
    drop(without);
    sets.push(format!("cluster.etcd.ssl.certfile={}", scratch.file("certs/client-node.pem")));
    sets.push(format!("cluster.etcd.ssl.keyfile={}", scratch.file("certs/client-node-key.pem")));
    let nodes: Vec<Broker> = (1..=3).map(|number| node(&scratch, number, &sets).0).collect();
    for number in 1..=3 {
        wait_for_status(&scratch, number, ALL);
    }
    nodes.iter().for_each(|node| node.assert_log_is_clean());
}

#[test]
#[ignore = "needs etcd and etcdctl"]
fn etcd_that_asks_for_logins() {
    let scratch = Scratch::new("etcd-login");
    let (etcd, mut sets, shown) = etcd_with_tls(&scratch, false);
    let etcdctl = |arguments: &[&str]| etcd.ctl(&[&[shown[0].as_str()], arguments].concat());
    for command in [
        "user add root:r00t",
        "user grant-role root root",
        "user add newtmq:s3cr3t",
        "role add nodes",
        "role grant-permission nodes --prefix=true readwrite newtmqcl/",
        "user grant-role newtmq nodes",
        "auth enable",
    ] {
        etcdctl(&command.split(' ').collect::<Vec<_>>());
    }
    let refused = |sets: &[String], wanted: &str| {
        let (node, _) = node(&scratch, 1, sets);
        node.process.stderr.wait_for(wanted, |line| line.contains(NO_ANSWER) && line.contains(wanted));
        assert!(!node.process.stderr.text().contains("wr0ng"));
    };
    refused(&sets, "etcdserver: user name is empty");
    sets.push("cluster.etcd.username=newtmq".to_owned());
    sets.push("cluster.etcd.password=wr0ng".to_owned());
    refused(&sets, "etcdserver: authentication failed");
    *sets.last_mut().unwrap() = "cluster.etcd.password=s3cr3t".to_owned();
    sets.push("cluster.etcd.prefix=others".to_owned());
    refused(&sets, "etcdserver: permission denied");
    sets.pop();
    let nodes: Vec<Broker> = (1..=3).map(|number| node(&scratch, number, &sets).0).collect();
    for number in 1..=3 {
        wait_for_status(&scratch, number, ALL);
    }
    let keys = etcdctl(&["--user=root:r00t", "get", "--prefix", "newtmqcl/newtmqcl/nodes/", "--keys-only"]);
    assert_eq!(keys.lines().filter(|line| !line.is_empty()).count(), 3);
    for node in &nodes {
        assert!(!node.process.stderr.text().contains("s3cr3t"));
        node.assert_log_is_clean();
    }
}
