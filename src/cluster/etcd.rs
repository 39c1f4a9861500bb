//! Discovery by etcd: each node has a key with a lease, and watches the keys of the others. It speaks the v3 API as JSON,
//! which every server of etcd offers beside gRPC: that needs HTTP/1.1 alone, as Kubernetes does, where a gRPC client takes
//! a minute to build. What JSON cannot do is to be a user of etcd by the Common Name of a certificate.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::{Method, StatusCode};
use newtmq_base::NodeId;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep_until};

use super::backend::{Fault, Pace, Rotation, chance};
use super::discovery::{Found, Listed, Seeker, Told};
use super::http::{ANSWER_TIMEOUT, Ask, Connection, JSON, Lines, excerpt};
use crate::config::{Etcd, EtcdLogin, Secret, Seed, Url};

/// What a node says of itself.
#[derive(Debug, Clone)]
pub(super) struct Registered {
    /// `cluster.name`
    pub(super) cluster: String,
    /// Its id.
    pub(super) node: NodeId,
}

impl Seeker {
    /// Registers this node, and tells who else is, until the driver is gone.
    pub(super) async fn of_etcd(self, etcd: Etcd, own: Registered, pace: Pace) {
        let mut rotation = Rotation::new(etcd.servers.len(), pace, chance());
        let folder = format!("{}/{}/nodes/", etcd.prefix, own.cluster);
        let value = json!({ "version": 1, "name": self.name, "address": self.address.to_string() });
        let mut desk = Desk {
            key: format!("{folder}{:016x}", own.node.0),
            folder,
            value: value.to_string(),
            told: self.told(),
            seeker: self,
            etcd: &etcd,
            pace,
            began: Instant::now(),
            lease: None,
            has_answered: false,
        };
        loop {
            let server = &etcd.servers[rotation.at()];
            desk.has_answered = false;
            let fault = desk.ask(server).await;
            if desk.seeker.events.is_closed() {
                return;
            }
            let wait = match fault {
                Err(fault) if !desk.has_answered || fault.is_outage() => {
                    desk.told.fails(&name_of(server), &fault.to_string());
                    rotation.failed(chance())
                }
                Err(fault) if !fault.is_end() && !is_expired(&fault) => {
                    desk.told.fails(&watch_of(server), &fault.to_string());
                    rotation.answered(chance())
                }
                Ok(()) | Err(_) => rotation.answered(chance()),
            };
            tokio::time::sleep(wait).await;
        }
    }
}

fn name_of(server: &Url) -> String {
    format!("etcd {server}")
}

fn watch_of(server: &Url) -> String {
    format!("etcd {server}, watching")
}

/// A server that does not answer is left in time to keep the lease at another one.
fn patience(etcd: &Etcd) -> Duration {
    (etcd.node_ttl / 4).min(ANSWER_TIMEOUT)
}

/// The node at etcd.
struct Desk<'a> {
    seeker: Seeker,
    etcd: &'a Etcd,
    pace: Pace,
    /// What the keys of all nodes begin with.
    folder: String,
    key: String,
    value: String,
    told: Told,
    began: Instant,
    /// It outlives connections, and the server that gave it.
    lease: Option<String>,
    /// This server has listed the nodes.
    has_answered: bool,
}

/// A connection with a server, and who the node is there.
struct Link {
    connection: Connection,
    token: Option<Secret>,
}

impl Desk<'_> {
    /// Until the connection ends, or the driver is gone.
    async fn ask(&mut self, server: &Url) -> Result<(), Fault> {
        let mut link = Link::open(server, self.etcd).await?;
        self.renew(&mut link).await?;
        let revision = self.list(&mut link, true).await?;
        self.has_answered = true;
        self.told.answers(&name_of(server));
        let others = self.etcd.servers.iter().filter(|other| *other != server);
        self.told.forget(others.flat_map(|other| [name_of(other), watch_of(other)]));
        let mut watching = self.watch(server, &link, revision + 1).await?;
        let renewal = (self.etcd.node_ttl / 4).min(RENEWAL_MAX);
        let mut next_renewal = Instant::now() + renewal;
        let mut next_list = Instant::now() + self.pace.listen_first;
        loop {
            tokio::select! {
                biased;
                line = next(&mut watching) => match line? {
                    // The server has ended it.
                    None => return Ok(()),
                    Some(line) => {
                        match happened(&line)? {
                            Happened::Nothing => {}
                            Happened::Changes => drop(self.list(&mut link, false).await?),
                            Happened::End => return Ok(()),
                        }
                    }
                },
                () = sleep_until(next_renewal) => {
                    self.renew(&mut link).await?;
                    next_renewal = Instant::now() + renewal;
                }
                () = sleep_until(next_list) => {
                    if watching.is_some() {
                        self.told.works(&watch_of(server));
                    }
                    self.list(&mut link, true).await?;
                    next_list = Instant::now() + if watching.is_some() { LIST_AGAIN } else { self.pace.again };
                }
            }
            if self.seeker.events.is_closed() {
                return Ok(());
            }
        }
    }

    /// Keeps the lease, or takes another one.
    async fn renew(&mut self, link: &mut Link) -> Result<(), Fault> {
        if let Some(lease) = &self.lease {
            let kept = link.call("/v3/lease/keepalive", &json!({ "ID": lease })).await?;
            if let Some(message) = kept["error"]["message"].as_str() {
                return Err(malformed(&format!("/v3/lease/keepalive: {}", excerpt(message, None))));
            }
            if number(&kept["result"]["TTL"]).is_some_and(|ttl| ttl > 0) {
                return Ok(());
            }
            tracing::info!("etcd has given up the lease of this node; taking another one");
            self.lease = None;
        }
        let ttl = self.etcd.node_ttl.as_secs().to_string();
        let granted = link.call("/v3/lease/grant", &json!({ "TTL": ttl })).await?;
        let lease = granted["ID"].as_str().ok_or_else(|| malformed("a lease without `ID`"))?;
        self.lease = Some(lease.to_owned());
        self.put(link).await
    }

    async fn put(&mut self, link: &mut Link) -> Result<(), Fault> {
        let put = json!({ "key": BASE64.encode(&self.key), "value": BASE64.encode(&self.value), "lease": self.lease });
        let done = link.call("/v3/kv/put", &put).await;
        if let Err(Fault::Refused { message, .. }) = &done
            && message.contains(NO_LEASE)
        {
            self.lease = None;
        }
        done.map(drop)
    }

    /// Tells who is registered, and registers this node if it is not. Another value of its key is replaced if `replaces`.
    /// Gives the revision that was read.
    async fn list(&mut self, link: &mut Link, replaces: bool) -> Result<u64, Fault> {
        let mut read = self.range(link).await?;
        let own = read.own.take();
        let is_right =
            own.as_ref().is_some_and(|own| own.value == self.value && Some(&own.lease) == self.lease.as_ref());
        if !is_right && (own.is_none() || replaces) {
            self.put(link).await?;
            read = self.range(link).await?;
        } else if !is_right && let Some(own) = own {
            // Two that answer each other's change at once would never end.
            let error = format!("another process writes it, too: {}", excerpt(&own.value, None));
            self.told.fails(&format!("etcd key {}", self.key), &error);
        }
        if is_right {
            self.told.works(&format!("etcd key {}", self.key));
        }
        let found = self.found(&read.listed);
        // Nobody is there to hear it is seen by who asks next.
        let _ = self.seeker.tell(&mut self.told, found).await;
        Ok(read.revision)
    }

    fn found(&self, listed: &Listed) -> Found {
        let Found { addresses, here } = self.seeker.found(listed);
        let is_settled = self.seeker.expected_size > 0 || self.began.elapsed() >= self.pace.listen_first;
        Found { here: here && is_settled, addresses }
    }

    async fn range(&mut self, link: &mut Link) -> Result<Read, Fault> {
        let range = json!({
            "key": BASE64.encode(&self.folder),
            "range_end": BASE64.encode(after(&self.folder)),
            "limit": NODES_MAX.to_string(),
        });
        let answer = link.call("/v3/kv/range", &range).await?;
        let revision = number(&answer["header"]["revision"]).ok_or_else(|| malformed("no `header.revision`"))?;
        let mut read = Read { revision, ..Read::default() };
        let is_cut = answer["more"].as_bool() == Some(true);
        let mut wrong = is_cut.then(|| format!("there are more than {NODES_MAX} nodes; the others are not seen"));
        for kv in answer["kvs"].as_array().into_iter().flatten() {
            let entry =
                Entry::read(kv).ok_or_else(|| malformed("an entry of `kvs` without a key or value of base64"))?;
            match node(&entry.value) {
                Some(node) => read.listed.nodes.push(node),
                None => {
                    let key = excerpt(&entry.key, None);
                    wrong =
                        Some(format!("{key} has no value of a node: JSON with `address`, an IP address and a port"));
                }
            }
            if entry.key == self.key {
                read.own = Some(entry);
            }
        }
        let keys = format!("etcd keys {}", self.folder);
        match wrong {
            Some(wrong) => self.told.fails(&keys, &wrong),
            None => self.told.works(&keys),
        }
        if is_cut && read.own.is_none() {
            self.add_own(link, &mut read).await?;
        }
        Ok(read)
    }

    /// The node's own key may be behind the cut. Taken for missing it would be put, which is a change that is told, whereupon
    /// all are listed: without an end.
    async fn add_own(&mut self, link: &mut Link, read: &mut Read) -> Result<(), Fault> {
        let answer = link.call("/v3/kv/range", &json!({ "key": BASE64.encode(&self.key) })).await?;
        let Some(kv) = answer["kvs"].as_array().and_then(|kvs| kvs.first()) else { return Ok(()) };
        let own = Entry::read(kv).ok_or_else(|| malformed("an entry of `kvs` without a key or value of base64"))?;
        read.listed.nodes.extend(node(&own.value));
        read.own = Some(own);
        Ok(())
    }

    /// Has changes after a revision told; none if the server refuses to do so.
    async fn watch(&mut self, server: &Url, link: &Link, from: u64) -> Result<Option<Lines>, Fault> {
        let request = json!({ "create_request": {
            "key": BASE64.encode(&self.folder),
            "range_end": BASE64.encode(after(&self.folder)),
            "start_revision": from.to_string(),
        } });
        let connection = Connection::open(server, &self.etcd.tls, patience(self.etcd)).await?;
        let ask = Ask {
            method: Method::POST,
            target: "/v3/watch",
            authorization: link.token.as_ref(),
            body: request.to_string(),
            kind: JSON,
        };
        match connection.watch(&ask).await? {
            Ok(lines) => Ok(Some(lines)),
            Err(answer) => {
                let fault = refused("/v3/watch", answer.status, &answer.body, link.token.as_ref());
                self.told.fails(
                    &watch_of(server),
                    &format!("{fault}; asking every {} s instead", self.pace.again.as_secs()),
                );
                Ok(None)
            }
        }
    }
}

impl Link {
    async fn open(server: &Url, etcd: &Etcd) -> Result<Link, Fault> {
        let mut link = Link { connection: Connection::open(server, &etcd.tls, patience(etcd)).await?, token: None };
        if let EtcdLogin { username: Some(name), password: Some(password) } = &etcd.login {
            let login = json!({ "name": name, "password": password.reveal() });
            let answer = link.call_hiding("/v3/auth/authenticate", &login, Some(password)).await?;
            let token = answer["token"].as_str().ok_or_else(|| malformed("no `token` for a login"))?;
            link.token = Some(Secret::new(token));
        }
        Ok(link)
    }

    async fn call(&mut self, target: &str, body: &Value) -> Result<Value, Fault> {
        self.call_hiding(target, body, None).await
    }

    async fn call_hiding(&mut self, target: &str, body: &Value, hidden: Option<&Secret>) -> Result<Value, Fault> {
        let authorization = self.token.as_ref();
        let ask = Ask { method: Method::POST, target, authorization, body: body.to_string(), kind: JSON };
        let answer = self.connection.ask(&ask).await?;
        if answer.status != StatusCode::OK {
            return Err(refused(target, answer.status, &answer.body, hidden.or(authorization)));
        }
        serde_json::from_slice(&answer.body).map_err(|error| malformed(&format!("{target}: no JSON: {error}")))
    }
}

/// What is registered.
#[derive(Default)]
struct Read {
    revision: u64,
    listed: Listed,
    own: Option<Entry>,
}

struct Entry {
    key: String,
    value: String,
    lease: String,
}

impl Entry {
    fn read(kv: &Value) -> Option<Entry> {
        let text = |field: &Value| {
            // An empty value is left out.
            let bytes = BASE64.decode(field.as_str().unwrap_or_default()).ok()?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        };
        let lease = kv["lease"].as_str().unwrap_or_default().to_owned();
        Some(Entry { key: text(&kv["key"])?, value: text(&kv["value"])?, lease })
    }
}

/// What a node has said of itself.
fn node(value: &str) -> Option<(Seed, Option<std::net::SocketAddr>)> {
    let value: Value = serde_json::from_str(value).ok()?;
    let address: std::net::SocketAddr = value["address"].as_str()?.parse().ok()?;
    Some((Seed { name: None, host: address.ip().to_string(), port: address.port() }, Some(address)))
}

/// A line of a watch.
#[derive(Debug, PartialEq, Eq)]
enum Happened {
    Nothing,
    Changes,
    /// No more will come: what it goes on from is not kept any more, or the server stops.
    End,
}

fn happened(line: &[u8]) -> Result<Happened, Fault> {
    let line: Value =
        serde_json::from_slice(line).map_err(|error| malformed(&format!("/v3/watch: no JSON: {error}")))?;
    if !line["error"].is_null() {
        let message = line["error"]["message"].as_str().unwrap_or("an error without a message");
        return Err(malformed(&format!("/v3/watch: {}", excerpt(message, None))));
    }
    let result = &line["result"];
    if result["canceled"].as_bool() == Some(true) {
        return match result["cancel_reason"].as_str().unwrap_or_default() {
            reason if reason.is_empty() || !result["compact_revision"].is_null() => Ok(Happened::End),
            reason => Err(malformed(&format!("/v3/watch: {}", excerpt(reason, None)))),
        };
    }
    let changes = result["events"].as_array().is_some_and(|events| !events.is_empty());
    Ok(if changes { Happened::Changes } else { Happened::Nothing })
}

async fn next(watching: &mut Option<Lines>) -> Result<Option<Vec<u8>>, Fault> {
    match watching {
        Some(lines) => Ok(lines.next().await?),
        None => std::future::pending().await,
    }
}

fn malformed(what: &str) -> Fault {
    Fault::Malformed(what.to_owned())
}

/// Why a server says no.
fn refused(target: &str, status: StatusCode, body: &[u8], hidden: Option<&Secret>) -> Fault {
    let said = String::from_utf8_lossy(body);
    let told = serde_json::from_slice::<Value>(body).ok().and_then(|body| {
        // Versions, and answers that could go on, differ in where they have it.
        let error = &body["error"];
        let message = body["message"].as_str().or_else(|| error.as_str()).or_else(|| error["message"].as_str())?;
        Some(message.to_owned())
    });
    let hint = match status {
        StatusCode::NOT_FOUND if told.is_none() => " (not etcd 3.4 or later, or one with --enable-grpc-gateway=false)",
        StatusCode::BAD_REQUEST if said.contains("CommonName") => {
            " (an etcd that asks for certificates and has users takes JSON only with a certificate without a Common Name)"
        }
        _ => "",
    };
    let said = excerpt(&told.unwrap_or_else(|| said.into_owned()), hidden);
    Fault::Refused { status, message: format!("{target}: {}: {said}{hint}", status.as_u16()) }
}

/// The server has forgotten the login, which is done again with the next connection.
fn is_expired(fault: &Fault) -> bool {
    matches!(fault, Fault::Refused { message, .. } if message.contains(NO_LOGIN))
}

/// Numbers of 64 bits come as texts.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// The first key behind all that begin with this.
fn after(folder: &str) -> Vec<u8> {
    let mut key = folder.as_bytes().to_vec();
    *key.last_mut().expect("a folder ends in a slash") += 1;
    key
}

/// Longest time between two renewals of the lease, which also find out that a server hangs.
const RENEWAL_MAX: Duration = Duration::from_secs(10);
/// When all are listed again although a watch tells of changes.
const LIST_AGAIN: Duration = Duration::from_secs(60);
/// Most nodes.
const NODES_MAX: usize = 255;
/// What a server says when a lease is gone.
const NO_LEASE: &str = "requested lease not found";
/// What it says when a login has expired.
const NO_LOGIN: &str = "invalid auth token";

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};
    use std::thread;

    use tokio::sync::mpsc;

    use super::*;
    use crate::cluster::discovery::State;
    use crate::config::{Sources, load};

    /// An etcd with more keys than are listed: that of the node is behind the cut. It takes no watches.
    #[derive(Default)]
    struct Full {
        own: Mutex<Option<Value>>,
        puts: AtomicUsize,
        lists: AtomicUsize,
    }

    impl Full {
        fn answer(&self, target: &str, body: &Value) -> Option<Value> {
            let mut own = self.own.lock().unwrap();
            let header = json!({ "revision": "7" });
            let other = json!({ "key": "YQ==", "value": BASE64.encode(r#"{"address":"10.0.0.2:4370"}"#) });
            Some(match target {
                "/v3/lease/grant" => json!({ "ID": "5", "TTL": "60" }),
                "/v3/kv/put" => {
                    self.puts.fetch_add(1, Ordering::SeqCst);
                    *own = Some(body.clone());
                    json!({ "header": header })
                }
                "/v3/kv/range" if body["range_end"].is_null() => json!({ "header": header, "kvs": [own.clone()?] }),
                "/v3/kv/range" => {
                    self.lists.fetch_add(1, Ordering::SeqCst);
                    json!({ "header": header, "more": true, "kvs": [other] })
                }
                _ => return None,
            })
        }

        /// One request after the other.
        fn serve(&self, socket: TcpStream) -> Option<()> {
            let (mut lines, mut socket) = (BufReader::new(socket.try_clone().ok()?), socket);
            loop {
                let (mut head, mut length) = (String::new(), 0);
                while !head.ends_with("\r\n\r\n") {
                    let from = head.len();
                    lines.read_line(&mut head).ok().filter(|count| *count > 0)?;
                    let line = head[from..].to_ascii_lowercase();
                    length = line.strip_prefix("content-length:").map_or(length, |text| text.trim().parse().unwrap());
                }
                let mut body = vec![0; length];
                lines.read_exact(&mut body).ok()?;
                let answer = self.answer(head.split(' ').nth(1)?, &serde_json::from_slice(&body).ok()?);
                let (status, text) = answer.map_or((404, "{}".to_owned()), |answer| (200, answer.to_string()));
                write!(socket, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{text}", text.len()).ok()?;
            }
        }
    }

    #[test]
    fn a_key_that_is_behind_the_cut_is_not_put_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("cluster.etcd.server=http://{}", listener.local_addr().unwrap());
        let full = Arc::new(Full::default());
        let serving = Arc::clone(&full);
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let serving = Arc::clone(&serving);
                thread::spawn(move || serving.serve(socket));
            }
        });
        let etcd = load(&Sources { sets: vec![url], ..Sources::default() }).unwrap().config.cluster.etcd;
        let (events, mut told) = mpsc::channel(16);
        let (name, address, state) = ("newtmq@own".to_owned(), "10.0.0.1:4370".parse().unwrap(), State::of("etcd"));
        let seeker = Seeker { name, address, expected_size: 1, events, state: state.clone() };
        let short = Duration::from_millis(10);
        let pace = Pace { again: short, back_off_min: short, back_off_max: short, listen_first: short };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(seeker.of_etcd(etcd, Registered { cluster: "c".to_owned(), node: NodeId(1) }, pace));
        runtime.spawn(async move { while told.recv().await.is_some() {} });
        let started = std::time::Instant::now();
        while full.lists.load(Ordering::SeqCst) < 5 || state.shown().found.is_none() {
            assert!(started.elapsed() < Duration::from_secs(30), "{:?}", state.shown());
            thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(full.puts.load(Ordering::SeqCst), 1);
        let found = state.shown().found.unwrap();
        assert!(found.here, "the node sees itself");
        assert_eq!(found.addresses, ["10.0.0.2:4370".parse().unwrap()].into());
    }

    #[test]
    fn what_nodes_say_of_themselves() {
        for (value, want) in [
            (r#"{"version":1,"name":"a@b","address":"10.0.0.1:4370"}"#, Some("10.0.0.1:4370")),
            (r#"{"address":"[::1]:1","more":[]}"#, Some("[::1]:1")),
            (r#"{"address":"a:1"}"#, None),
            (r#"{"address":5}"#, None),
            ("[]", None),
            ("10.0.0.1:4370", None),
            ("", None),
        ] {
            let found = node(value).and_then(|(_, address)| address);
            assert_eq!(found.map(|address| address.to_string()).as_deref(), want, "{value}");
        }
    }

    #[test]
    fn lines_of_a_watch() {
        for (line, want) in [
            (r#"{"result":{"header":{"revision":"2"},"created":true}}"#, Ok(Happened::Nothing)),
            (r#"{"result":{"header":{},"events":[]}}"#, Ok(Happened::Nothing)),
            (r#"{"result":{"events":[{"kv":{"key":"YQ=="}}]}}"#, Ok(Happened::Changes)),
            (r#"{"result":{"events":[{"type":"DELETE","kv":{}}]}}"#, Ok(Happened::Changes)),
            (r#"{"result":{"canceled":true,"compact_revision":"7"}}"#, Ok(Happened::End)),
            (r#"{"result":{"canceled":true,"compact_revision":"7","cancel_reason":"compacted"}}"#, Ok(Happened::End)),
            (
                r#"{"result":{"canceled":true,"cancel_reason":"permission denied"}}"#,
                Err("/v3/watch: permission denied"),
            ),
            (r#"{"error":{"grpc_code":14,"message":"transport is closing"}}"#, Err("/v3/watch: transport is closing")),
            ("{", Err("/v3/watch: no JSON: EOF while parsing an object at line 1 column 1")),
        ] {
            let found = happened(line.as_bytes()).map_err(|fault| fault.to_string());
            assert_eq!(found.as_ref().map_err(String::as_str), want.as_ref().map_err(|text| *text), "{line}");
        }
    }

    #[test]
    fn why_a_server_says_no() {
        let secret = Secret::new("s3cr3t");
        for (status, body, want) in [
            (
                404,
                r#"{"error":"etcdserver: requested lease not found","code":5}"#,
                "/x: 404: etcdserver: requested lease not found",
            ),
            (401, r#"{"message":"invalid auth token s3cr3t"}"#, "/x: 401: invalid auth token (not shown)"),
            (
                404,
                "404 page not found\n",
                "/x: 404: 404 page not found (not etcd 3.4 or later, or one with --enable-grpc-gateway=false)",
            ),
            (503, r#"{"error":{"grpc_code":14,"message":"etcdserver: no leader"}}"#, "/x: 503: etcdserver: no leader"),
            (503, "", "/x: 503: "),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(refused("/x", status, body.as_bytes(), Some(&secret)).to_string(), want);
        }
    }

    #[test]
    fn all_keys_of_a_folder_and_no_others() {
        let (folder, after) = ("a/b/nodes/", after("a/b/nodes/"));
        for (key, inside) in
            [("a/b/nodes/0", true), ("a/b/nodes/\u{ff}", true), ("a/b/nodes0", false), ("a/b/nodes", false)]
        {
            assert_eq!(key.as_bytes() >= folder.as_bytes() && key.as_bytes() < after.as_slice(), inside, "{key}");
        }
    }
}
