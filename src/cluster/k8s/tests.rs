//! Discovery against a server that answers as that of Kubernetes does, with pauses made short.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::mock::{Api, ENDPOINTS, Refusal, SLICES, endpoints, slice, status};
use crate::cluster::backend::Pace;
use crate::cluster::discovery::{Seeker, Shown, State};
use crate::config::{K8s, Sources, load};
use crate::data::tests::Scratch;

const PACE: Pace = Pace {
    again: Duration::from_millis(30),
    back_off_min: Duration::from_millis(10),
    back_off_max: Duration::from_millis(50),
    listen_first: Duration::ZERO,
};
const OWN: &str = "10.0.0.1:4370";
const TOKEN: &str = "t0ken-0ne";

struct Run {
    api: Api,
    state: State,
    scratch: Scratch,
    /// In this order the node goes before what it asks.
    _runtime: Runtime,
}

/// A server with the certificate of a folder, and the folder.
fn api(name: &str) -> (Api, Scratch) {
    let scratch = Scratch::new(name);
    let request = crate::cert::Request { folder: scratch.0.clone(), hosts: Vec::new(), client: None, force: true };
    crate::cert::dev(&request).unwrap();
    std::fs::write(scratch.0.join("token"), format!("{TOKEN}\n")).unwrap();
    let api = Api::start(Some((&scratch.0.join("cert.pem"), &scratch.0.join("key.pem"))));
    api.set_token(TOKEN);
    (api, scratch)
}

/// As configured, with more keys.
fn k8s(urls: &str, folder: &Path, sets: &[&str]) -> K8s {
    let file = |name: &str| folder.join(name).display().to_string();
    let own = [
        format!("apiserver={urls}"),
        format!("cacertfile={}", file("ca.pem")),
        format!("tokenfile={}", file("token")),
        "service_name=mqtt".to_owned(),
        "namespace=prod".to_owned(),
    ];
    let sets = own.iter().map(String::as_str).chain(sets.iter().copied()).map(|set| format!("cluster.k8s.{set}"));
    load(&Sources { sets: sets.collect(), ..Sources::default() }).unwrap().config.cluster.k8s
}

impl Run {
    /// A node that asks a server.
    fn start(api: Api, scratch: Scratch, sets: &[&str]) -> Run {
        let url = format!("https://localhost:{}", api.address.port());
        let k8s = k8s(&url, &scratch.0, sets);
        Run::of(k8s, api, scratch)
    }

    fn of(k8s: K8s, api: Api, scratch: Scratch) -> Run {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (events, mut told) = mpsc::channel(16);
        let state = State::of("k8s");
        let (address, state_of) = (OWN.parse().unwrap(), state.clone());
        let seeker = Seeker { name: "newtmq@own".to_owned(), address, expected_size: 0, events, state: state_of };
        runtime.spawn(seeker.of_k8s(k8s, PACE));
        runtime.spawn(async move { while told.recv().await.is_some() {} });
        Run { api, state, scratch, _runtime: runtime }
    }

    /// Looks again and again.
    fn wait(&self, what: &str, is_so: impl Fn(&Shown) -> bool) {
        let started = Instant::now();
        while !is_so(&self.state.shown()) {
            assert!(started.elapsed() < Duration::from_secs(30), "still waiting for {what}: {:?}", self.state.shown());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The addresses of others, with spaces between; `own` in front if this node is listed.
    fn wait_for(&self, wanted: &str) {
        self.wait(wanted, |shown| found(shown) == wanted);
    }

    fn wait_for_failure(&self, part: &str) {
        self.wait(part, |shown| shown.failing.iter().any(|(name, why)| format!("{name}: {why}").contains(part)));
    }

    fn wait_until_well(&self) {
        self.wait("no failure", |shown| shown.failing.is_empty());
    }
}

fn found(shown: &Shown) -> String {
    let Some(found) = &shown.found else { return "none".to_owned() };
    let own = found.here.then(|| "own".to_owned());
    own.into_iter().chain(found.addresses.iter().map(ToString::to_string)).collect::<Vec<_>>().join(" ")
}

fn at(texts: &[&str]) -> Vec<std::net::SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn refusal(asked: &'static str, status: u16, body: impl Into<String>, times: usize) -> Refusal {
    Refusal { asked, status, body: body.into(), times }
}

#[test]
fn endpoints_are_listed_and_followed() {
    let (api, scratch) = api("k8s-endpoints");
    api.put(ENDPOINTS, endpoints("mqtt", &at(&[OWN, "10.0.0.2:4370"])));
    let run = Run::start(api, scratch, &[]);
    run.wait_for("own 10.0.0.2:4370");
    run.api.put(ENDPOINTS, endpoints("mqtt", &at(&[OWN, "10.0.0.2:4370", "10.0.0.3:4371"])));
    run.wait_for("own 10.0.0.2:4370 10.0.0.3:4371");
    run.api.delete(ENDPOINTS, "mqtt");
    run.wait_for("");
    run.api.put(ENDPOINTS, endpoints("mqtt", &at(&["10.0.0.3:4371"])));
    run.wait_for("10.0.0.3:4371");
    assert_eq!(run.api.count("endpoints/mqtt"), 1, "a watch needs no further list");
}

#[test]
fn slices_come_in_pages_that_may_be_gone() {
    let (api, scratch) = api("k8s-slices");
    for (name, address) in [("a", OWN), ("b", "10.0.0.2:4370"), ("c", "10.0.0.3:4370"), ("d", "[::1]:4370")] {
        api.put(SLICES, slice("mqtt", name, address.parse().unwrap()));
    }
    api.set_page(1);
    api.refuse(refusal("continue=from%3D2", 410, status(410, "Expired", "the continue token is too old"), 1));
    let run = Run::start(api, scratch, &["resource=endpointslices"]);
    // Addresses of the other kind are those of the same nodes.
    run.wait_for("own 10.0.0.2:4370 10.0.0.3:4370");
    assert_eq!(run.api.count("continue=from%3D2"), 2);
    assert!(run.state.shown().failing.is_empty());
    run.api.delete(SLICES, "b");
    run.wait_for("own 10.0.0.3:4370");
    run.api.put(SLICES, slice("mqtt", "e", "10.0.0.5:4370".parse().unwrap()));
    run.wait_for("own 10.0.0.3:4370 10.0.0.5:4370");
    assert!(run.api.count("labelSelector=kubernetes.io%2Fservice-name%3Dmqtt&watch=true") > 0);
}

#[test]
fn what_is_refused_says_what_and_where() {
    let (api, scratch) = api("k8s-refused");
    let list = "/endpoints/mqtt";
    let forbidden =
        status(403, "Forbidden", "endpoints \"mqtt\" is forbidden: User \"u\" cannot get resource \"endpoints\"");
    let cases = [
        (
            403,
            forbidden,
            "/api/v1/namespaces/prod/endpoints/mqtt: 403: endpoints \"mqtt\" is forbidden: User \"u\" cannot get resource \"endpoints\" (the service account needs get, list and watch for endpoints in the namespace prod)",
        ),
        (
            404,
            status(404, "NotFound", "endpoints \"mqtt\" not found"),
            "404: endpoints \"mqtt\" not found (is there a service mqtt in the namespace prod?)",
        ),
        (401, status(401, "Unauthorized", "Unauthorized"), "401: Unauthorized (the token in "),
        (500, status(500, "InternalError", "etcdserver: leader changed"), "500: etcdserver: leader changed"),
        (503, "<html>\nno upstream</html>".to_owned(), "503: <html> no upstream</html>"),
        (429, status(429, "TooManyRequests", "slow down t0ken-0ne"), "429: slow down (not shown)"),
        (
            200,
            "{\"metadata\":".to_owned(),
            "/api/v1/namespaces/prod/endpoints/mqtt: no JSON: EOF while parsing a value at line 1 column 12",
        ),
        (200, "[]".to_owned(), "no object of JSON"),
        (
            200,
            "{\"metadata\":{\"name\":\"mqtt\"},\"subsets\":[{\"addresses\":[{\"ip\":\"a\"}]}]}".to_owned(),
            "subsets[0].addresses[0].ip is no IP address",
        ),
        (200, "{\"metadata\":{\"name\":\"mqtt\"}}".to_owned(), "metadata.resourceVersion is missing"),
        (200, " ".repeat(5 << 20), "an answer of more than 4 MiB"),
    ];
    api.refuse(refusal(list, cases[0].0, cases[0].1.clone(), usize::MAX));
    let run = Run::start(api, scratch, &[]);
    for (status, body, wanted) in &cases {
        run.api.refuse_no_more();
        run.api.refuse(refusal(list, *status, body.clone(), usize::MAX));
        run.wait_for_failure(wanted);
        assert_eq!(found(&run.state.shown()), "none");
    }
    run.api.put(ENDPOINTS, endpoints("mqtt", &at(&["10.0.0.2:4370"])));
    run.api.refuse_no_more();
    run.wait_for("10.0.0.2:4370");
    run.wait_until_well();
}

#[test]
fn a_token_is_read_again_and_not_shown() {
    let (api, scratch) = api("k8s-token");
    api.put(ENDPOINTS, endpoints("mqtt", &at(&["10.0.0.2:4370"])));
    let run = Run::start(api, scratch, &[]);
    run.wait_for("10.0.0.2:4370");
    run.api.set_token("t0ken-tw0");
    run.api.hang_up();
    run.wait_for_failure("401");
    let file = run.scratch.0.join("token");
    assert!(!format!("{:?}", run.state.shown()).contains("t0ken"));
    std::fs::write(&file, "").unwrap();
    run.wait_for_failure("token has no token in it");
    std::fs::remove_file(&file).unwrap();
    run.wait_for_failure("token cannot be read: No such file");
    run.api.put(ENDPOINTS, endpoints("mqtt", &at(&["10.0.0.3:4370"])));
    // What was found stays all the time.
    assert_eq!(found(&run.state.shown()), "10.0.0.2:4370");
    std::fs::write(&file, "t0ken-tw0").unwrap();
    run.wait_for("10.0.0.3:4370");
    run.wait_until_well();
    assert!(run.api.count("Bearer t0ken-tw0") > 0);
}

#[test]
fn without_tls_no_token_is_sent() {
    let scratch = Scratch::new("k8s-http");
    std::fs::create_dir_all(&scratch.0).unwrap();
    std::fs::write(scratch.0.join("token"), TOKEN).unwrap();
    let api = Api::start(None);
    api.put(ENDPOINTS, endpoints("mqtt", &at(&["10.0.0.2:4370"])));
    let k8s = k8s(&format!("http://{}/", api.address), &scratch.0, &[]);
    let run = Run::of(k8s, api, scratch);
    run.wait_for("10.0.0.2:4370");
    // A watch that is asked for after the connections are cut would go on without being asked who it is.
    run.wait("the watch", |_| run.api.count("watch=true") > 0);
    run.api.set_token(TOKEN);
    run.api.hang_up();
    run.wait_for_failure("403: endpoints is forbidden: User \"system:anonymous\"");
    run.wait_for_failure("(without https no token is sent)");
    assert_eq!(run.api.count(TOKEN), 0);
}

#[test]
fn a_watch_that_is_too_old_begins_anew() {
    let (api, scratch) = api("k8s-old");
    api.put(ENDPOINTS, endpoints("mqtt", &at(&["10.0.0.2:4370"])));
    let run = Run::start(api, scratch, &[]);
    run.wait_for("10.0.0.2:4370");
    // In 200, as an event, and in a status of HTTP.
    for refused in [None, Some(refusal("watch=true", 410, status(410, "Gone", "too old"), 1))] {
        let lists = run.api.count("endpoints/mqtt");
        refused.into_iter().for_each(|refused| run.api.refuse(refused));
        run.api.compact();
        run.wait("another list", |_| run.api.count("endpoints/mqtt") > lists);
    }
    run.api.put(ENDPOINTS, endpoints("mqtt", &at(&["10.0.0.3:4370"])));
    run.wait_for("10.0.0.3:4370");
    assert!(run.state.shown().failing.is_empty());
}

#[test]
fn a_watch_goes_on_from_a_bookmark() {
    let (api, scratch) = api("k8s-bookmark");
    api.put(ENDPOINTS, endpoints("mqtt", &at(&["10.0.0.2:4370"])));
    let run = Run::start(api, scratch, &[]);
    run.wait("a watch", |_| run.api.count("watch=true") > 0);
    let version = run.api.bookmark(ENDPOINTS);
    // The bookmark goes out before the end.
    run.api.hang_up();
    run.wait("the next watch", |_| run.api.count(&format!("resourceVersion={version}")) > 0);
    assert_eq!(run.api.count("endpoints/mqtt"), 1);
}

#[test]
fn who_may_not_watch_asks_again_and_again() {
    let (api, scratch) = api("k8s-poll");
    api.put(ENDPOINTS, endpoints("mqtt", &at(&["10.0.0.2:4370"])));
    api.refuse(refusal("watch=true", 403, status(403, "Forbidden", "cannot watch"), usize::MAX));
    let run = Run::start(api, scratch, &[]);
    run.wait_for("10.0.0.2:4370");
    run.wait_for_failure("watching: /api/v1/namespaces/prod/endpoints: 403: cannot watch");
    run.api.put(ENDPOINTS, endpoints("mqtt", &at(&["10.0.0.3:4370"])));
    run.wait_for("10.0.0.3:4370");
    run.api.refuse_no_more();
    run.api.put(ENDPOINTS, endpoints("mqtt", &at(&["10.0.0.4:4370"])));
    run.wait_for("10.0.0.4:4370");
}

#[test]
fn a_line_of_a_watch_that_cannot_be_read_is_told() {
    let (api, scratch) = api("k8s-line");
    api.put(ENDPOINTS, endpoints("mqtt", &at(&["10.0.0.2:4370"])));
    let wrong = "{\"type\":\"MODIFIED\",\"object\":{\"metadata\":{},\"subsets\":7}}\n";
    api.refuse(refusal("watch=true", 200, wrong, 1));
    let run = Run::start(api, scratch, &[]);
    run.wait_for_failure("watching: /api/v1/namespaces/prod/endpoints: object.subsets is no list");
    run.api.put(ENDPOINTS, endpoints("mqtt", &at(&["10.0.0.3:4370"])));
    run.wait_for("10.0.0.3:4370");
}

#[test]
fn a_server_that_dies_is_asked_again_and_what_was_found_stays() {
    let (api, scratch) = api("k8s-dies");
    api.put(ENDPOINTS, endpoints("mqtt", &at(&["10.0.0.2:4370"])));
    let other = Api::start(Some((&scratch.0.join("cert.pem"), &scratch.0.join("key.pem"))));
    other.put(ENDPOINTS, endpoints("mqtt", &at(&["10.0.0.9:4370"])));
    other.die();
    let mut other = other;
    let urls = format!("https://127.0.0.1:{},https://127.0.0.1:{}", other.address.port(), api.address.port());
    let k8s = k8s(&urls, &scratch.0, &[]);
    let mut run = Run::of(k8s, api, scratch);
    run.wait_for("10.0.0.2:4370");
    run.api.die();
    let first = format!("k8s https://{}: cannot connect: Connection refused", run.api.address);
    run.wait_for_failure(&first);
    assert_eq!(found(&run.state.shown()), "10.0.0.2:4370");
    other.come_back();
    run.wait_for("10.0.0.9:4370");
    other.die();
    run.api.come_back();
    run.wait_for("10.0.0.2:4370");
    run.wait("the first works", |shown| !shown.failing.keys().any(|name| first.starts_with(name.as_str())));
}

#[test]
fn who_is_not_who_it_should_be_gets_no_token() {
    let (api, scratch) = api("k8s-ca");
    api.put(ENDPOINTS, endpoints("mqtt", &at(&["10.0.0.2:4370"])));
    let ca = scratch.0.join("ca.pem");
    let right = std::fs::read(&ca).unwrap();
    std::fs::remove_file(&ca).unwrap();
    let run = Run::start(api, scratch, &[]);
    run.wait_for_failure("ca.pem cannot be read: No such file");
    std::fs::write(&ca, "nothing").unwrap();
    run.wait_for_failure("ca.pem: no certificate in it (PEM)");
    let (_, others) = self::api("k8s-ca-2");
    std::fs::copy(others.0.join("ca.pem"), &ca).unwrap();
    run.wait_for_failure("TLS: invalid peer certificate");
    assert_eq!(run.api.count(""), 0);
    std::fs::write(&ca, right).unwrap();
    run.wait_for("10.0.0.2:4370");
    run.wait_until_well();
}
