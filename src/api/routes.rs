//! The paths of the HTTP API, each once: what it asks, and how the answer is shown. The router, the OpenAPI document and
//! `docs/http-api.md` come from here.

mod table;

use std::collections::BTreeMap;

use bytes::Bytes;
use newtmq_access::AccountKind::{self, ClientId, Username};
use newtmq_mqtt::{OwnedTopicFilter, QoS, TopicFilter, TopicName};
use newtmq_node::{Traced, Which};
use serde_json::{Value, json};

use crate::admin::{Answer, Fault, Part, Publication, Question, ban_who, check_ban_text, check_password};
use crate::config::Secret;
pub use table::{NOT_YET, ROUTES};

/// A path with its method.
pub struct Route {
    /// `GET`, `POST`, `PUT` or `DELETE`.
    pub method: &'static str,
    /// Below `/api/v3`, with `{parameters}`.
    pub path: &'static str,
    /// Its name in the OpenAPI document.
    pub id: &'static str,
    /// One line for people.
    pub about: &'static str,
    /// What is different from EMQ X; empty if nothing is.
    pub differs: &'static str,
    /// The schema of its body; empty if it has none.
    pub body: &'static str,
    /// The schema of its data; `[]` in front if it is a list; empty if there is none.
    pub data: &'static str,
    /// It is paged.
    pub paged: bool,
    /// Parameters of its query, all needed.
    pub query: &'static [&'static str],
    pub(super) ask: fn(&Asked) -> Result<Question, Fault>,
    pub(super) show: fn(&Asked, Value) -> Value,
}

/// What is asked.
#[derive(Debug, Default)]
pub struct Asked {
    /// Parameters of the path and of the query.
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) body: Value,
}

impl Asked {
    fn parameter(&self, name: &str) -> &str {
        self.parameters.get(name).map(String::as_str).unwrap_or_default()
    }

    fn number(&self, name: &str, default: usize, most: usize) -> Result<usize, Fault> {
        let Some(text) = self.parameters.get(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| (1..=most).contains(number));
        number.ok_or_else(|| Fault::new(Fault::TYPE, format!("{name} must be a whole number from 1 to {most}")))
    }

    pub(super) fn page(&self) -> Result<(usize, usize), Fault> {
        Ok((self.number("_page", 1, PAGE_MAX)?, self.number("_limit", LIMIT_MAX, LIMIT_MAX)?))
    }

    fn part(&self) -> Result<Part, Fault> {
        let (page, limit) = self.page()?;
        Ok(Part::page(page, limit))
    }

    fn client(&self) -> Which {
        Which::Client(self.parameter("client_id").into())
    }

    fn text(&self, name: &str) -> Result<&str, Fault> {
        match self.body.get(name) {
            Some(Value::String(text)) => Ok(text),
            None => Err(Fault::new(Fault::MISSING, format!("{name} is missing"))),
            Some(_) => Err(Fault::new(Fault::TYPE, format!("{name} must be a string"))),
        }
    }

    fn account(&self, kind: AccountKind) -> String {
        self.parameter(kind.name()).to_owned()
    }

    fn password(&self) -> Result<Secret, Fault> {
        let password = self.text("password")?;
        check_password(password)?;
        Ok(Secret::new(password))
    }

    fn new_account(&self, kind: AccountKind) -> Result<Question, Fault> {
        Ok(Question::AddAccount(kind, self.text(kind.name())?.to_owned(), self.password()?))
    }

    fn changed_account(&self, kind: AccountKind) -> Result<Question, Fault> {
        Ok(Question::UpdateAccount(kind, self.account(kind), self.password()?))
    }

    fn ban(&self) -> Result<Question, Fault> {
        let who = ban_who(self.text("as")?, self.text("who")?)?;
        let said = |name: &str| match self.body.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(_) => self.text(name).and_then(|text| check_ban_text(text).map(|()| Some(text.to_owned()))),
        };
        let until = match self.body.get("until") {
            None | Some(Value::Null) => None,
            Some(until) => {
                let wrong = || Fault::new(Fault::TYPE, "until must be a time in seconds since 1970, or null");
                Some(until.as_u64().ok_or_else(wrong)?)
            }
        };
        Ok(Question::Ban { who, reason: said("reason")?.unwrap_or_default(), by: said("by")?, until })
    }

    fn qos(&self) -> Result<QoS, Fault> {
        let wrong = || Fault::new(Fault::TYPE, "qos must be 0, 1 or 2");
        match self.body.get("qos") {
            None => Ok(QoS::AtMostOnce),
            Some(Value::Number(number)) => {
                number.as_u64().and_then(|number| QoS::from_bits(u8::try_from(number).ok()?)).ok_or_else(wrong)
            }
            _ => Err(wrong()),
        }
    }

    fn flag(&self, name: &str) -> Result<bool, Fault> {
        match self.body.get(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            // As EMQ X takes it.
            Some(Value::Number(number)) if number.as_u64() == Some(0) => Ok(false),
            Some(Value::Number(number)) if number.as_u64() == Some(1) => Ok(true),
            _ => Err(Fault::new(Fault::TYPE, format!("{name} must be true or false"))),
        }
    }

    /// `topic`, or `topics` with commas between.
    fn topics(&self) -> Result<Vec<&str>, Fault> {
        let topics: Vec<&str> = match (self.body.get("topic"), self.body.get("topics")) {
            (None, None) => return Err(Fault::new(Fault::MISSING, "topic is missing")),
            (None, Some(_)) => self.text("topics")?.split(',').map(str::trim).collect(),
            (Some(_), None) => vec![self.text("topic")?],
            (Some(_), Some(_)) => return Err(Fault::new(Fault::TYPE, "topic and topics exclude each other")),
        };
        if topics.len() > TOPICS_MAX {
            return Err(Fault::new(Fault::TOPIC, format!("at most {TOPICS_MAX} topics")));
        }
        Ok(topics)
    }

    fn publications(&self) -> Result<Vec<Publication>, Fault> {
        let (qos, retain) = (self.qos()?, self.flag("retain")?);
        if self.body.get("client_id").is_some() {
            // Not used, but it is a name.
            self.text("client_id")?;
        }
        let payload = match &self.body["payload"] {
            Value::Null => Bytes::new(),
            Value::String(text) => Bytes::copy_from_slice(text.as_bytes()),
            other => Bytes::from(other.to_string()),
        };
        let of = |topic: &str| {
            let is_name = TopicName::new(topic).is_ok();
            if !is_name || topic.starts_with("$SYS/") || topic.starts_with("$share/") {
                return Err(Fault::new(Fault::TOPIC, format!("{topic:?} is no topic to publish to")));
            }
            Ok(Publication { topic: topic.to_owned(), payload: payload.clone(), qos, retain })
        };
        self.topics()?.into_iter().map(of).collect()
    }

    fn filters(&self) -> Result<Vec<OwnedTopicFilter>, Fault> {
        let of = |text: &str| {
            let wrong = |_| Fault::new(Fault::TOPIC, format!("{text:?} is no topic filter"));
            TopicFilter::new(text).map(OwnedTopicFilter::from).map_err(wrong)
        };
        self.topics()?.into_iter().map(of).collect()
    }
}

fn as_it_is(_: &Asked, data: Value) -> Value {
    data
}

/// What each node has told of itself, without its name, which is in it.
fn told_by_each(_: &Asked, data: Value) -> Value {
    data.as_array().into_iter().flatten().map(|of| of["broker"].clone()).collect()
}

fn of_all(name: &'static str, question: Question) -> Result<Question, Fault> {
    Ok(Question::Each(name, Box::new(question)))
}

const fn get(
    path: &'static str,
    id: &'static str,
    about: &'static str,
    data: &'static str,
    ask: fn(&Asked) -> Result<Question, Fault>,
    show: fn(&Asked, Value) -> Value,
) -> Route {
    Route { method: "GET", path, id, about, differs: "", body: "", data, paged: false, query: &[], ask, show }
}

impl Route {
    const fn by(mut self, method: &'static str, body: &'static str) -> Route {
        self.method = method;
        self.body = body;
        self
    }

    const fn paged(mut self) -> Route {
        self.paged = true;
        self
    }

    const fn query(mut self, query: &'static [&'static str]) -> Route {
        self.query = query;
        self
    }

    const fn differs(mut self, why: &'static str) -> Route {
        self.differs = why;
        self
    }
}

/// The envelope of EMQ X.
pub(super) fn envelope(route: &Route, asked: &Asked, answer: Answer) -> Value {
    let mut whole = json!({ "code": 0 });
    if !route.data.is_empty() {
        whole["data"] = (route.show)(asked, answer.data);
    }
    if let (true, Ok((page, limit)), Some(count)) = (route.paged, asked.page(), answer.count) {
        whole["meta"] = json!({ "page": page, "limit": limit, "count": count });
        if !answer.missing.is_empty() {
            whole["meta"]["missing"] = answer.missing.into();
        }
    }
    whole
}

/// Most rows of a page, and what a page has if it is not said, as in EMQ X.
pub(super) const LIMIT_MAX: usize = 10_000;
/// Largest number of a page.
pub(super) const PAGE_MAX: usize = 1_000_000;
/// Most topics of a request.
const TOPICS_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(body: Value) -> Asked {
        Asked { body, ..Asked::default() }
    }

    #[test]
    fn what_is_published_is_checked() {
        for (body, code) in [
            (json!({}), Fault::MISSING),
            (json!({ "topic": 1 }), Fault::TYPE),
            (json!({ "topic": "" }), Fault::TOPIC),
            (json!({ "topic": "a/+" }), Fault::TOPIC),
            (json!({ "topic": "a\u{0}" }), Fault::TOPIC),
            (json!({ "topic": "$SYS/brokers" }), Fault::TOPIC),
            (json!({ "topics": "a,b/#" }), Fault::TOPIC),
            (json!({ "topic": "a", "qos": 3 }), Fault::TYPE),
            (json!({ "topic": "a", "qos": "1" }), Fault::TYPE),
            (json!({ "topic": "a", "retain": "yes" }), Fault::TYPE),
        ] {
            assert_eq!(asked(body.clone()).publications().unwrap_err().code, code, "{body}");
        }
        let all =
            asked(json!({ "topics": "a, b", "payload": { "x": 1 }, "qos": 1, "retain": 1 })).publications().unwrap();
        let want = |topic: &str| Publication {
            topic: topic.to_owned(),
            payload: Bytes::from_static(b"{\"x\":1}"),
            qos: QoS::AtLeastOnce,
            retain: true,
        };
        assert_eq!(all, [want("a"), want("b")]);
    }

    #[test]
    fn pages_are_checked() {
        for (page, limit, want) in [
            (None, None, Some((1, LIMIT_MAX))),
            (Some("2"), Some("10"), Some((2, 10))),
            (Some("0"), None, None),
            (Some("-1"), None, None),
            (None, Some("10001"), None),
            (Some("x"), None, None),
        ] {
            let mut asked = Asked::default();
            asked.parameters.extend(page.map(|page| ("_page".to_owned(), page.to_owned())));
            asked.parameters.extend(limit.map(|limit| ("_limit".to_owned(), limit.to_owned())));
            assert_eq!(asked.page().ok(), want);
        }
    }
}
