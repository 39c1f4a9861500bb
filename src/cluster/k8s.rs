//! Discovery by Kubernetes: the endpoints of a service, or its endpoint slices, listed and watched at the API server.

mod listing;
#[cfg(test)]
mod mock;
#[cfg(test)]
mod tests;

use hyper::{Method, StatusCode};
use serde_json::Value;
use tokio::time::{Duration, Instant, sleep, sleep_until, timeout_at};

use self::listing::{Event, Facts, Page};
use super::backend::{Fault, Pace, Rotation, chance};
use super::discovery::{Listed, Seeker, Told};
use super::http::{ANSWER_TIMEOUT, Ask, Connection, JSON, excerpt};
use crate::config::{K8s, K8sResource, Secret, Url};

impl Seeker {
    /// Tells who is listed until the driver is gone.
    pub(super) async fn of_k8s(self, k8s: K8s, pace: Pace) {
        let mut rotation = Rotation::new(k8s.apiservers.len(), pace, chance());
        let mut desk = Desk { told: self.told(), seeker: self, k8s: &k8s, pace, has_answered: false };
        loop {
            let server = &k8s.apiservers[rotation.at()];
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
                Err(fault) if !fault.is_end() => {
                    desk.told.fails(&watch_of(server), &fault.to_string());
                    rotation.answered(chance())
                }
                Ok(()) | Err(_) => rotation.answered(chance()),
            };
            sleep(wait).await;
        }
    }
}

fn name_of(server: &Url) -> String {
    format!("k8s {server}")
}

fn watch_of(server: &Url) -> String {
    format!("k8s {server}, watching")
}

/// The node at the API.
struct Desk<'a> {
    seeker: Seeker,
    k8s: &'a K8s,
    pace: Pace,
    told: Told,
    /// This server has listed the nodes.
    has_answered: bool,
}

/// What there is, and which version of it.
struct Read {
    facts: Facts,
    version: String,
}

/// How a watch has ended.
enum Watched {
    /// By its time: it goes on from where it was.
    Over,
    /// What it goes on from is not kept any more: all is listed again.
    TooOld,
    /// The server does not let this node watch.
    Refused,
}

impl Desk<'_> {
    /// Until the connection ends, or the driver is gone.
    async fn ask(&mut self, server: &Url) -> Result<(), Fault> {
        let mut connection = Connection::open(server, &self.k8s.tls, ANSWER_TIMEOUT).await?;
        loop {
            let mut read = self.list(&mut connection, server).await?;
            self.has_answered = true;
            self.told.answers(&name_of(server));
            let others = self.k8s.apiservers.iter().filter(|other| *other != server);
            self.told.forget(others.flat_map(|other| [name_of(other), watch_of(other)]));
            self.tell(&read.facts).await;
            loop {
                match self.watch(server, &mut read).await? {
                    Watched::Over => sleep(self.pace.back_off_min).await,
                    Watched::TooOld => break sleep(self.pace.back_off_min).await,
                    Watched::Refused => break sleep(self.pace.again).await,
                }
                if self.seeker.events.is_closed() {
                    return Ok(());
                }
            }
            if self.seeker.events.is_closed() {
                return Ok(());
            }
        }
    }

    async fn tell(&mut self, facts: &Facts) {
        let mut nodes = facts.nodes(self.k8s, self.seeker.address.is_ipv4());
        let many = format!("k8s service {}", self.k8s.service_name);
        if nodes.len() > NODES_MAX {
            self.told.fails(&many, &format!("there are more than {NODES_MAX} nodes; the others are not seen"));
            nodes.truncate(NODES_MAX);
        } else {
            self.told.works(&many);
        }
        let found = self.seeker.found(&Listed { nodes });
        // Nobody is there to hear it is seen by who asks next.
        let _ = self.seeker.tell(&mut self.told, found).await;
    }

    /// All of it, page by page.
    async fn list(&self, connection: &mut Connection, server: &Url) -> Result<Read, Fault> {
        let mut read = Read { facts: Facts::default(), version: String::new() };
        let mut from = None;
        for _ in 0..PAGES_MAX {
            let target = self.list_target(from.as_deref());
            let token = self.token(server).await?;
            let ask = Ask {
                method: Method::GET,
                target: &target,
                authorization: token.as_ref(),
                body: String::new(),
                kind: JSON,
            };
            let answer = connection.ask(&ask).await?;
            if answer.status == StatusCode::GONE && from.is_some() {
                // The pages that follow are not kept any more: from the beginning.
                (from, read.facts) = (None, Facts::default());
                continue;
            }
            if answer.status != StatusCode::OK {
                return Err(self.refused(&target, answer.status, &answer.body, token.as_ref()));
            }
            let Page { version, next } = read.facts.page(&answer.body, self.k8s).map_err(at(&target))?;
            read.version = version;
            match next {
                None => return Ok(read),
                next => from = next,
            }
        }
        Err(Fault::Malformed(format!("more than {PAGES_MAX} pages of {PAGE} endpoint slices")))
    }

    /// Follows changes.
    async fn watch(&mut self, server: &Url, read: &mut Read) -> Result<Watched, Fault> {
        let seconds = WATCH_SECONDS - chance() % (WATCH_SECONDS / 4);
        let until = Instant::now() + Duration::from_secs(u64::from(seconds)) + WATCH_GRACE;
        let target = self.watch_target(&read.version, seconds);
        let token = self.token(server).await?;
        let connection = Connection::open(server, &self.k8s.tls, ANSWER_TIMEOUT).await?;
        let ask = Ask {
            method: Method::GET,
            target: &target,
            authorization: token.as_ref(),
            body: String::new(),
            kind: JSON,
        };
        let mut lines = match connection.watch(&ask).await? {
            Ok(lines) => lines,
            Err(answer) if answer.status == StatusCode::GONE => return Ok(Watched::TooOld),
            Err(answer) => {
                let fault = self.refused(&target, answer.status, &answer.body, token.as_ref());
                let error = format!("{fault}; asking every {} s instead", self.pace.again.as_secs());
                self.told.fails(&watch_of(server), &error);
                return Ok(Watched::Refused);
            }
        };
        // A watch that is refused only after it was let in is not told of as one that works, again and again.
        let calm = Instant::now() + self.pace.again;
        loop {
            let line = tokio::select! {
                biased;
                line = timeout_at(until, lines.next()) => line.unwrap_or(Ok(None))?,
                () = sleep_until(calm), if self.told.is_failing(&watch_of(server)) => {
                    self.told.works(&watch_of(server));
                    continue;
                }
                () = self.seeker.events.closed() => None,
            };
            let Some(line) = line else { return Ok(Watched::Over) };
            match read.facts.event(&line, self.k8s).map_err(at(&target))? {
                Event::Changed { version } => {
                    read.version = version;
                    self.tell(&read.facts).await;
                }
                Event::Bookmark { version } => read.version = version,
                Event::TooOld => return Ok(Watched::TooOld),
                Event::Error { code, status } => {
                    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                    return Err(self.refused(&target, code, status.to_string().as_bytes(), token.as_ref()));
                }
            }
        }
    }

    /// What stands in `Authorization`. Tokens change: each is read when it is needed.
    async fn token(&self, server: &Url) -> Result<Option<Secret>, Fault> {
        // Who can read along could use it.
        let Some(path) = self.k8s.tokenfile.clone().filter(|_| server.is_tls) else { return Ok(None) };
        let told = path.display().to_string();
        let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
        let text = read.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let text = text.map_err(|error| Fault::Malformed(format!("the token in {told} cannot be read: {error}")))?;
        let token = text.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Fault::Malformed(format!("{told} has no token in it")));
        }
        Ok(Some(Secret::new(&format!("Bearer {token}"))))
    }

    /// Why a server says no, and what could be done.
    fn refused(&self, target: &str, status: StatusCode, body: &[u8], token: Option<&Secret>) -> Fault {
        let K8s { service_name, namespace, resource, tokenfile, .. } = self.k8s;
        let resource = resource.word();
        let said = match serde_json::from_slice::<Value>(body).ok().as_ref().and_then(|body| body["message"].as_str()) {
            Some(message) => excerpt(message, token),
            None => excerpt(&String::from_utf8_lossy(body), token),
        };
        let file = tokenfile.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
        let hint = match status {
            StatusCode::UNAUTHORIZED if token.is_some() => format!(" (the token in {file} is not valid there)"),
            StatusCode::UNAUTHORIZED => " (no token is sent)".to_owned(),
            StatusCode::FORBIDDEN if token.is_none() => " (without https no token is sent)".to_owned(),
            StatusCode::FORBIDDEN => {
                format!(" (the service account needs get, list and watch for {resource} in the namespace {namespace})")
            }
            StatusCode::NOT_FOUND => format!(" (is there a service {service_name} in the namespace {namespace}?)"),
            _ => String::new(),
        };
        let path = target.split('?').next().unwrap_or_default();
        Fault::Refused { status, message: format!("{path}: {}: {said}{hint}", status.as_u16()) }
    }

    fn list_target(&self, from: Option<&str>) -> String {
        let K8s { service_name, namespace, resource, .. } = self.k8s;
        match resource {
            K8sResource::Endpoints => format!("/api/v1/namespaces/{namespace}/endpoints/{service_name}"),
            K8sResource::EndpointSlices => {
                let from = from.map(|from| format!("&continue={}", escaped(from))).unwrap_or_default();
                format!("{}?{}&limit={PAGE}{from}", slices(namespace), of_service(service_name))
            }
        }
    }

    fn watch_target(&self, version: &str, seconds: u32) -> String {
        let K8s { service_name, namespace, resource, .. } = self.k8s;
        let what = match resource {
            K8sResource::Endpoints => {
                format!("/api/v1/namespaces/{namespace}/endpoints?fieldSelector=metadata.name%3D{service_name}")
            }
            K8sResource::EndpointSlices => format!("{}?{}", slices(namespace), of_service(service_name)),
        };
        let version = escaped(version);
        format!("{what}&watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={version}")
    }
}

fn slices(namespace: &str) -> String {
    format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices")
}

fn of_service(name: &str) -> String {
    format!("labelSelector=kubernetes.io%2Fservice-name%3D{name}")
}

/// As a part of a query.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn at(target: &str) -> impl Fn(String) -> Fault {
    let path = target.split('?').next().unwrap_or_default().to_owned();
    move |what| Fault::Malformed(format!("{path}: {what}"))
}

/// Endpoint slices in an answer; one has at most 1000 endpoints, and usually 100.
const PAGE: usize = 100;
/// Most pages.
const PAGES_MAX: usize = 20;
/// Most nodes.
const NODES_MAX: usize = 255;
/// How long a watch lasts, at most.
const WATCH_SECONDS: u32 = 300;
/// What a server that does not end it in time is given.
const WATCH_GRACE: Duration = Duration::from_secs(30);
