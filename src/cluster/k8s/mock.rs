//! An API server of Kubernetes for tests, over TLS or without, with threads of its own. It answers as the real one does:
//! 401 for a token that it does not know, 403 without one, pages with `continue`, watches with bookmarks, and for a watch
//! from a version that is too old 200 with an event of code 410. Tests of processes have it, too.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

/// A server. It goes when it is dropped.
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// By resource and name.
    objects: BTreeMap<(&'static str, String), Value>,
    version: u64,
    /// A watch from an earlier version is too late.
    oldest: u64,
    history: Vec<(u64, &'static str, &'static str, Value)>,
    token: Option<String>,
    page: usize,
    refusals: Vec<Refusal>,
    requests: Vec<String>,
    /// Which start of the server it is; connections of another one end.
    life: u64,
    is_up: bool,
    open: Vec<TcpStream>,
}

/// What is answered instead of the truth.
#[derive(Clone)]
pub(crate) struct Refusal {
    /// A part of what is asked.
    pub(crate) asked: &'static str,
    pub(crate) status: u16,
    pub(crate) body: String,
    /// How often.
    pub(crate) times: usize,
}

pub(crate) const ENDPOINTS: &str = "endpoints";
pub(crate) const SLICES: &str = "endpointslices";

impl Api {
    /// With the certificate and key of these files; without TLS if there are none.
    pub(crate) fn start(certificate: Option<(&Path, &Path)>) -> Api {
        let tls = certificate.map(|(certificate, key)| {
            let chain: Vec<_> = CertificateDer::pem_file_iter(certificate).unwrap().map(Result::unwrap).collect();
            let key = PrivateKeyDer::from_pem_file(key).unwrap();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
            Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap())
        });
        let state = State { page: usize::MAX, version: 10, oldest: 10, ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let mut api = Api { address: SocketAddr::from(([127, 0, 0, 1], 0)), tls, shared };
        api.come_back();
        api
    }

    /// Ends all connections, and takes none.
    pub(crate) fn die(&self) {
        let mut state = self.state();
        state.is_up = false;
        for open in state.open.drain(..) {
            let _ = open.shutdown(Shutdown::Both);
        }
        drop(state);
        self.shared.changed.notify_all();
        // The one that wakes who accepts.
        let _ = TcpStream::connect(self.address);
        while TcpStream::connect(self.address).is_ok() {}
    }

    /// Takes connections again, at the same address.
    pub(crate) fn come_back(&mut self) {
        let listener = TcpListener::bind(self.address).unwrap();
        self.address = listener.local_addr().unwrap();
        let mut state = self.state();
        state.is_up = true;
        state.life += 1;
        drop(state);
        let (shared, tls) = (Arc::clone(&self.shared), self.tls.clone());
        thread::spawn(move || {
            for socket in listener.incoming() {
                let mut state = shared.state.lock().unwrap();
                if !state.is_up {
                    return;
                }
                let Ok(socket) = socket else { continue };
                state.open.push(socket.try_clone().unwrap());
                drop(state);
                let (shared, tls) = (Arc::clone(&shared), tls.clone());
                thread::spawn(move || {
                    let done = match tls {
                        Some(tls) => {
                            serve(&mut StreamOwned::new(ServerConnection::new(tls).unwrap(), &socket), &shared)
                        }
                        None => serve(&mut &socket, &shared),
                    };
                    drop(done);
                    let _ = socket.shutdown(Shutdown::Both);
                });
            }
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    fn happens(&self, kind: &'static str, resource: &'static str, mut object: Value) {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        match kind {
            "DELETED" => drop(state.objects.remove(&(resource, name))),
            "BOOKMARK" => {}
            _ => drop(state.objects.insert((resource, name), object.clone())),
        }
        state.history.push((version, kind, resource, object));
        drop(state);
        self.shared.changed.notify_all();
    }

    /// An object is as given from here on.
    pub(crate) fn put(&self, resource: &'static str, object: Value) {
        self.happens("MODIFIED", resource, object);
    }

    pub(crate) fn delete(&self, resource: &'static str, name: &str) {
        self.happens("DELETED", resource, json!({ "metadata": { "name": name } }));
    }

    /// Tells watches which version there is; gives it.
    pub(crate) fn bookmark(&self, resource: &'static str) -> u64 {
        self.happens("BOOKMARK", resource, json!({ "metadata": {} }));
        self.state().version
    }

    /// All watches end, and nothing of what has happened is kept.
    pub(crate) fn compact(&self) {
        let mut state = self.state();
        state.oldest = state.version + 1;
        state.version += 1;
        state.life += 1;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// All connections end, as behind a proxy that is tired of them.
    pub(crate) fn hang_up(&self) {
        self.state().life += 1;
        self.shared.changed.notify_all();
    }

    pub(crate) fn set_token(&self, token: &str) {
        self.state().token = Some(token.to_owned());
    }

    pub(crate) fn set_page(&self, page: usize) {
        self.state().page = page;
    }

    pub(crate) fn refuse(&self, refusal: Refusal) {
        self.state().refusals.push(refusal);
    }

    pub(crate) fn refuse_no_more(&self) {
        self.state().refusals.clear();
    }

    /// How many requests have had this.
    pub(crate) fn count(&self, part: &str) -> usize {
        self.state().requests.iter().filter(|request| request.contains(part)).count()
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        if self.state().is_up {
            self.die();
        }
    }
}

/// The object `service` with a subset for each address.
pub(crate) fn endpoints(service: &str, addresses: &[SocketAddr]) -> Value {
    let subset = |address: &SocketAddr| json!({ "addresses": [{ "ip": address.ip().to_string() }], "ports": [{ "name": "cluster", "port": address.port() }] });
    let subsets: Vec<Value> = addresses.iter().map(subset).collect();
    json!({ "kind": "Endpoints", "metadata": { "name": service }, "subsets": subsets })
}

/// A slice with one endpoint.
pub(crate) fn slice(service: &str, name: &str, address: SocketAddr) -> Value {
    json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/service-name": service } },
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{ "addresses": [address.ip().to_string()], "conditions": { "ready": true } }],
        "ports": [{ "name": "cluster", "port": address.port() }],
    })
}

/// What the real one says when it says no.
pub(crate) fn status(code: u16, reason: &str, message: &str) -> String {
    let kind = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure" });
    let mut status = kind;
    (status["code"], status["reason"], status["message"]) = (json!(code), json!(reason), json!(message));
    status.to_string()
}

fn serve(stream: &mut (impl Read + Write), shared: &Shared) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break buffer.drain(..end + 4).collect::<Vec<u8>>();
            }
            let mut bytes = [0; 4096];
            match stream.read(&mut bytes)? {
                0 => return Ok(()),
                count => buffer.extend_from_slice(&bytes[..count]),
            }
        };
        let head = String::from_utf8(head).unwrap();
        let target = head.split(' ').nth(1).unwrap().to_owned();
        let given = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("authorization").then(|| value.to_owned())
        });
        shared.state.lock().unwrap().requests.push(format!("{target} {}", given.as_deref().unwrap_or("-")));
        match answer(&target, given.as_deref(), shared) {
            Some((status, body)) => {
                let length = body.len();
                write!(
                    stream,
                    "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
                )?;
                stream.write_all(body.as_bytes())?;
                stream.flush()?;
            }
            None => return watch(stream, &target, shared),
        }
    }
}

fn parameter<'a>(target: &'a str, name: &str) -> Option<&'a str> {
    let query = target.split_once('?')?.1;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn resource(target: &str) -> &'static str {
    if target.contains(SLICES) { SLICES } else { ENDPOINTS }
}

/// None for a watch that is let in.
fn answer(target: &str, given: Option<&str>, shared: &Shared) -> Option<(u16, String)> {
    let mut state = shared.state.lock().unwrap();
    if let Some(refusal) = state.refusals.iter_mut().find(|one| one.times > 0 && target.contains(one.asked)) {
        refusal.times -= 1;
        return Some((refusal.status, refusal.body.clone()));
    }
    if let Some(token) = &state.token {
        match given {
            None => {
                let message = "endpoints is forbidden: User \"system:anonymous\" cannot list resource";
                return Some((403, status(403, "Forbidden", message)));
            }
            Some(given) if *given != format!("Bearer {token}") => {
                return Some((401, status(401, "Unauthorized", "Unauthorized")));
            }
            Some(_) => {}
        }
    }
    if parameter(target, "watch").is_some() {
        return None;
    }
    let of = resource(target);
    if of == ENDPOINTS {
        let name = target.rsplit('/').next().unwrap();
        return Some(match state.objects.get(&(ENDPOINTS, name.to_owned())) {
            Some(object) => (200, object.to_string()),
            None => (404, status(404, "NotFound", &format!("endpoints \"{name}\" not found"))),
        });
    }
    let from: usize =
        parameter(target, "continue").map_or(0, |from| from.trim_start_matches("from%3D").parse().unwrap());
    let limit = parameter(target, "limit").map_or(usize::MAX, |limit| limit.parse().unwrap()).min(state.page);
    let all: Vec<&Value> = state.objects.iter().filter(|((one, _), _)| *one == of).map(|(_, object)| object).collect();
    let rest = all.len().saturating_sub(from.saturating_add(limit));
    let items: Vec<&Value> = all.into_iter().skip(from).take(limit).collect();
    let mut metadata = json!({ "resourceVersion": state.version.to_string() });
    if rest > 0 {
        metadata["continue"] = json!(format!("from={}", from + limit));
        metadata["remainingItemCount"] = json!(rest);
    }
    Some((200, json!({ "kind": "EndpointSliceList", "metadata": metadata, "items": items }).to_string()))
}

fn watch(stream: &mut impl Write, target: &str, shared: &Shared) -> io::Result<()> {
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    stream.flush()?;
    let mut line = |value: &Value| {
        let line = format!("{value}\n");
        write!(stream, "{:x}\r\n{line}\r\n", line.len())?;
        stream.flush()
    };
    let seconds = parameter(target, "timeoutSeconds").unwrap().parse().unwrap();
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut seen: u64 = parameter(target, "resourceVersion").unwrap().parse().unwrap();
    let mut state = shared.state.lock().unwrap();
    let life = state.life;
    if seen < state.oldest {
        let object: Value = serde_json::from_str(&status(410, "Expired", "too old resource version: 1 (9)")).unwrap();
        line(&json!({ "type": "ERROR", "object": object }))?;
        drop(state);
        return stream.write_all(b"0\r\n\r\n");
    }
    drop(state);
    loop {
        state = shared.state.lock().unwrap();
        let of = resource(target);
        let news: Vec<(u64, &str, Value)> = state
            .history
            .iter()
            .filter(|(version, _, resource, _)| *version > seen && *resource == of)
            .map(|(version, kind, _, object)| (*version, *kind, object.clone()))
            .collect();
        if news.is_empty() {
            if state.life != life || !state.is_up || Instant::now() >= until {
                return stream.write_all(b"0\r\n\r\n");
            }
            drop(shared.changed.wait_timeout(state, Duration::from_millis(100)).unwrap());
            continue;
        }
        drop(state);
        for (version, kind, object) in news {
            line(&json!({ "type": kind, "object": object }))?;
            seen = version;
        }
    }
}
