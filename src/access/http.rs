//! Logins and rules that a service decides, by HTTP: a request for each login, and for what a client wants to do with a topic.
//! What has no answer is refused. It runs beside the threads that serve clients, and no more of it at a time than a limit says.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hyper::{Method, StatusCode};
use newtmq_mqtt::ReasonCode;
use newtmq_node::{AclAction, Question, Verdict};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::service::{Decision, Said};
use crate::cluster::http::{Ask, Connection, HttpError};
use crate::config::{AuthHttp as Config, ClusterTls, HttpRequest};

/// Who asks the service.
#[derive(Debug)]
pub(super) struct Http {
    config: Config,
    tls: ClusterTls,
    aside: Handle,
    turns: Semaphore,
    places: Arc<Semaphore>,
    /// Connections that wait for another request, by request and URL.
    idle: Mutex<Vec<(Place, Connection)>>,
    is_failing: AtomicBool,
}

type Place = (&'static str, usize);

impl Http {
    /// None if nothing is configured. Inside the runtime where requests are to be made.
    pub(super) fn new(config: &Config) -> Option<Arc<Http>> {
        let is_on = !config.auth.urls.is_empty() || !config.acl.urls.is_empty();
        is_on.then(|| {
            Arc::new(Http {
                config: config.clone(),
                tls: ClusterTls { certfile: None, keyfile: None, cacertfile: config.cacertfile.clone() },
                aside: Handle::current(),
                turns: Semaphore::new(TURNS),
                places: Arc::new(Semaphore::new(WAITING_MAX)),
                idle: Mutex::default(),
                is_failing: AtomicBool::new(false),
            })
        })
    }

    pub(super) fn authenticates(&self) -> bool {
        !self.config.auth.urls.is_empty()
    }

    pub(super) fn checks_acl(&self) -> bool {
        !self.config.acl.urls.is_empty()
    }

    /// A place among those who wait; none if there are too many.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Does something beside.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.aside.spawn(work);
    }

    /// Whether a client may log in.
    pub(super) async fn login(&self, said: &Said<'_>) -> Decision {
        self.ask("auth", &self.config.auth, said).await
    }

    /// Whether no rule counts for a client.
    pub(super) async fn is_superuser(&self, said: &Said<'_>) -> bool {
        !self.config.superuser.urls.is_empty() && self.ask("super", &self.config.superuser, said).await == Decision::Yes
    }

    /// Whether a client may do that with a topic. What the service does not know is left to the rules.
    pub(super) async fn may(&self, said: &Said<'_>, action: AclAction, topic: &str) -> bool {
        let access = match action {
            AclAction::Subscribe => "1",
            AclAction::Publish => "2",
        };
        let said = Said { access, topic, ..*said };
        matches!(self.ask("acl", &self.config.acl, &said).await, Decision::Yes | Decision::Ignore)
    }

    /// Answers a question about topics.
    pub(super) async fn acl(&self, question: &Question) -> Verdict {
        match question {
            Question::CheckAcl { peer, client, username, action, topics } => {
                let username = username.as_deref().unwrap_or_default();
                let said = Said { client, username, password: b"", ip: peer.ip(), access: "", topic: "" };
                let mut each = Vec::new();
                for topic in topics {
                    let may = self.may(&said, *action, topic).await;
                    each.push(if may { ReasonCode::Success } else { ReasonCode::NotAuthorized });
                }
                match (action, each.first()) {
                    (AclAction::Publish, Some(ReasonCode::Success)) => Verdict::Allow { data: None },
                    (AclAction::Publish, _) => Verdict::Deny(ReasonCode::NotAuthorized),
                    (AclAction::Subscribe, _) => Verdict::Each(each),
                }
            }
            _ => Verdict::Deny(ReasonCode::ImplementationSpecificError),
        }
    }

    async fn ask(&self, what: &'static str, request: &HttpRequest, said: &Said<'_>) -> Decision {
        let whole = async {
            let Ok(_turn) = self.turns.acquire().await else { return None };
            let mut last = None;
            // Another one is asked only if this one does not answer.
            for at in 0..request.urls.len() {
                match self.ask_at((what, at), request, said).await {
                    Ok(said) => return Some(Ok(said)),
                    Err(error) => last = Some(Err(error)),
                }
            }
            last
        };
        match timeout(self.config.timeout, whole).await {
            Ok(Some(Ok(said))) => {
                if self.is_failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("the service that decides about logins and topics answers again");
                }
                said
            }
            Ok(Some(Err(error))) => self.failed(what, &error.to_string()),
            Ok(None) | Err(_) => self.failed(what, "it has not answered in time"),
        }
    }

    fn failed(&self, what: &str, why: &str) -> Decision {
        if self.is_failing.swap(true, Ordering::Relaxed) {
            tracing::debug!(what, why, "a service has not decided; clients are refused");
        } else {
            tracing::warn!(what, why, "a service has not decided; clients are refused until it does");
        }
        Decision::Nothing
    }

    async fn ask_at(&self, place: Place, request: &HttpRequest, said: &Said<'_>) -> Result<Decision, HttpError> {
        let url = &request.urls[place.1];
        let form = form(&request.params, said);
        let root = if url.path.is_empty() { "/" } else { "" };
        let (method, target, body) = match request.is_get {
            true => (Method::GET, format!("{root}?{form}"), String::new()),
            false => (Method::POST, root.to_owned(), form),
        };
        let ask = Ask { method, target: &target, authorization: None, body, kind: FORM };
        let kept = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let at = idle.iter().position(|(of, _)| *of == place);
            at.map(|at| idle.swap_remove(at).1)
        };
        // One that was kept may have been closed by the service meanwhile.
        if let Some(mut connection) = kept
            && let Ok(answer) = connection.ask(&ask).await
        {
            self.keep(place, connection);
            return Ok(read(answer.status, &answer.body));
        }
        let mut connection = Connection::open(url, &self.tls, self.config.timeout).await?;
        let answer = connection.ask(&ask).await?;
        self.keep(place, connection);
        Ok(read(answer.status, &answer.body))
    }

    fn keep(&self, place: Place, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push((place, connection));
        }
    }
}

/// As EMQ X reads it: 200 is yes, unless the body says that it does not know.
fn read(status: StatusCode, body: &[u8]) -> Decision {
    match status {
        StatusCode::OK if body.trim_ascii() == b"ignore" => Decision::Ignore,
        StatusCode::OK => Decision::Yes,
        status if status.is_server_error() => Decision::Nothing,
        _ => Decision::No,
    }
}

/// `application/x-www-form-urlencoded`. Placeholders stand in values only, and nothing that a client says ends one.
fn form(params: &[(String, String)], said: &Said<'_>) -> String {
    let mut out = String::new();
    for (name, text) in params {
        if !out.is_empty() {
            out.push('&');
        }
        encode(name.as_bytes(), &mut out);
        out.push('=');
        let mut rest = text.as_str();
        while let Some(at) = rest.find('%') {
            let (before, from) = rest.split_at(at);
            encode(before.as_bytes(), &mut out);
            let ip = said.ip.to_canonical().to_string();
            let value: Option<&[u8]> = match from.as_bytes().get(1) {
                Some(b'u') => Some(said.username.as_bytes()),
                Some(b'c') => Some(said.client.as_bytes()),
                Some(b'P') => Some(said.password),
                Some(b'a') => Some(ip.as_bytes()),
                Some(b'A') => Some(said.access.as_bytes()),
                Some(b't') => Some(said.topic.as_bytes()),
                _ => None,
            };
            match value {
                Some(value) => {
                    encode(value, &mut out);
                    rest = &from[2..];
                }
                None => {
                    encode(b"%", &mut out);
                    rest = &from[1..];
                }
            }
        }
        encode(rest.as_bytes(), &mut out);
    }
    out
}

fn encode(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            out.push(char::from(*byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// Requests at a time; more wait.
const TURNS: usize = 64;
/// Questions that are under way or wait; at the limit a client is told that the server is busy.
const WAITING_MAX: usize = 4096;
/// Connections that are kept.
const IDLE_MAX: usize = 64;
const FORM: &str = "application/x-www-form-urlencoded";

#[cfg(test)]
mod tests {
    use super::*;

    fn said<'a>(client: &'a str, username: &'a str, password: &'a [u8], topic: &'a str) -> Said<'a> {
        Said { client, username, password, ip: [192, 0, 2, 1].into(), access: "2", topic }
    }

    #[test]
    fn nothing_that_a_client_says_ends_its_value() {
        let params: Vec<(String, String)> =
            [("u", "%u"), ("c", "x-%c"), ("p", "%P"), ("t", "%t"), ("a", "%a%A"), ("n", "100%")]
                .map(|(name, text)| (name.to_owned(), text.to_owned()))
                .to_vec();
        for (client, username, password, topic, want) in [
            ("c", "u", &b"p"[..], "a/b", "u=u&c=x-c&p=p&t=a%2Fb&a=192.0.2.12&n=100%25"),
            (
                "c&u=admin",
                "u\r\nX: y",
                b"\xff=&",
                "+/#",
                "u=u%0D%0AX%3A%20y&c=x-c%26u%3Dadmin&p=%FF%3D%26&t=%2B%2F%23&a=192.0.2.12&n=100%25",
            ),
            ("%u", "%P", b"secret", "%c", "u=%25P&c=x-%25u&p=secret&t=%25c&a=192.0.2.12&n=100%25"),
            ("", "\u{e4}", b"", "", "u=%C3%A4&c=x-&p=&t=&a=192.0.2.12&n=100%25"),
        ] {
            assert_eq!(form(&params, &said(client, username, password, topic)), want);
        }
    }

    #[test]
    fn answers_are_read_as_emq_x_does() {
        for (status, body, want) in [
            (200, "", Decision::Yes),
            (200, "{}", Decision::Yes),
            (200, " ignore\n", Decision::Ignore),
            (201, "", Decision::No),
            (302, "", Decision::No),
            (401, "", Decision::No),
            (404, "ignore", Decision::No),
            (500, "", Decision::Nothing),
        ] {
            assert_eq!(read(StatusCode::from_u16(status).unwrap(), body.as_bytes()), want, "{status} {body}");
        }
    }
}
