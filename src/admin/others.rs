//! Answers for the whole cluster: this node asks the others over their links, and names those that are down or do not answer.
//! Nothing is changed at another node but what an operator wants of its clients.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use newtmq_base::NodeId;
use newtmq_mqtt::{OwnedTopicFilter, QoS, TopicFilter};
use newtmq_node::{NodeStatus, Traced, Which};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::question::{Answer, Cursor, Fault, Part, Question};
use super::{Admin, Event};
use crate::traces;

impl Admin {
    /// Answers for the whole cluster, as far as the question is about it.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn answer(&self, question: Question) -> Result<Answer, Fault> {
        match &question {
            Question::Clients(..) | Question::Sessions(..) | Question::Subscriptions(..) | Question::Devices(_) => {
                self.list(question).await
            }
            Question::Each(name, inner) => self.each(name, inner).await,
            Question::Nodes => self.nodes().await,
            Question::TraceStart(_) | Question::TraceStop(_) | Question::TraceShow(_) => {
                self.everywhere(question).await
            }
            Question::Kick(_) | Question::Subscribe { .. } | Question::Unsubscribe { .. } => {
                self.where_it_is(question).await
            }
            _ => self.answer_here(question).await,
        }
    }

    /// Answers for one node, by its name.
    ///
    /// # Errors
    /// There is none, it does not answer, or see [`Fault`].
    pub async fn answer_of(&self, node: &str, question: Question) -> Result<Answer, Fault> {
        if node == self.0.facts.node {
            return self.answer_here(question).await;
        }
        let others = self.others().await;
        match others.iter().find(|other| other.name == node) {
            Some(other) => self.ask_node(other, &question).await,
            None => Err(Fault::new(Fault::OTHER, "there is no node of this name").with_status(404)),
        }
    }

    /// The other members, by name.
    pub(super) async fn others(&self) -> Vec<NodeStatus> {
        let nodes = self.cluster().await.map(|cluster| cluster.nodes).unwrap_or_default();
        let mut others: Vec<NodeStatus> = nodes.into_iter().filter(|node| !node.is_self).collect();
        others.sort_by(|one, other| one.name.cmp(&other.name));
        others
    }

    async fn list(&self, question: Question) -> Result<Answer, Fault> {
        let (Question::Clients(_, part)
        | Question::Sessions(_, part)
        | Question::Subscriptions(_, part)
        | Question::Devices(part)) = &question
        else {
            return self.answer_here(question).await;
        };
        let Part { cursor, mut skip, limit } = part.clone();
        let begins = cursor == Cursor::default();
        let mut whole = Answer { count: Some(0), ..Answer::of(Value::Null) };
        let mut rows: Vec<Value> = Vec::new();
        // This node is the first.
        let others = self.others().await;
        let all = std::iter::once(None).chain(others.iter().map(Some));
        let at = cursor.node.clone();
        let mut from = Some(cursor);
        for node in all.skip_while(|node| node.map(|node| &node.name) != at.as_ref()) {
            let left = limit - rows.len();
            if left == 0 && !begins {
                whole.next = Some(Cursor { node: node.map(|node| node.name.clone()), ..Cursor::default() });
                break;
            }
            let cursor = Cursor { node: None, ..from.take().unwrap_or_default() };
            // Of a full page only how many there are is asked.
            let part = Part { cursor, skip, limit: left.max(1) };
            let asked = with_part(&question, part);
            let answered = match node {
                None => self.answer_here(asked).await,
                Some(node) => self.ask_node(node, &asked).await,
            };
            let answer = match (answered, node) {
                (Ok(answer), _) => answer,
                (Err(fault), None) => return Err(fault),
                (Err(_), Some(node)) => {
                    whole.missing.push(node.name.clone());
                    continue;
                }
            };
            let count = answer.count.unwrap_or_default();
            whole.count = whole.count.map(|sum| sum + count);
            if left == 0 {
                whole.next.get_or_insert_with(|| Cursor { node: node.map(|of| of.name.clone()), ..Cursor::default() });
                continue;
            }
            skip = skip.saturating_sub(usize::try_from(count).unwrap_or(usize::MAX));
            rows.extend(answer.data.as_array().into_iter().flatten().cloned());
            if let Some(next) = answer.next {
                whole.next = Some(Cursor { node: node.map(|of| of.name.clone()), ..next });
                if !begins {
                    break;
                }
            }
        }
        whole.data = rows.into();
        Ok(whole)
    }

    async fn each(&self, name: &str, question: &Question) -> Result<Answer, Fault> {
        let own = self.answer_here(question.clone()).await?.data;
        let mut all = vec![json!({ "node": self.0.facts.node, name: own })];
        let mut missing = Vec::new();
        for node in self.others().await {
            match self.ask_node(&node, question).await {
                Ok(answer) => all.push(json!({ "node": node.name, name: answer.data })),
                Err(_) => missing.push(node.name),
            }
        }
        Ok(Answer { missing, ..Answer::of(all.into()) })
    }

    /// Asks every node; lists are put together by time. A node that does not know of it has nothing to say.
    async fn everywhere(&self, question: Question) -> Result<Answer, Fault> {
        let mut answers = vec![self.answer_here(question.clone()).await];
        let mut missing = Vec::new();
        for node in self.others().await {
            match self.ask_node(&node, &question).await {
                Err(fault) if fault.code == Fault::RPC => missing.push(node.name),
                answered => answers.push(answered),
            }
        }
        let (known, faults): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        let known: Vec<Value> = known.into_iter().flatten().map(|answer| answer.data).collect();
        let Some(first) = known.first() else {
            return faults.into_iter().next().unwrap_or_else(|| Err(Fault::stopping()));
        };
        let data = if first.is_array() {
            let mut rows: Vec<Value> = known.iter().filter_map(Value::as_array).flatten().cloned().collect();
            rows.sort_by_key(|row| row["at"].as_u64());
            rows.into()
        } else {
            known.iter().any(|data| data == &Value::Bool(true)).into()
        };
        Ok(Answer { missing, ..Answer::of(data) })
    }

    async fn nodes(&self) -> Result<Answer, Fault> {
        let mut nodes = vec![self.answer_here(Question::Node).await?.data];
        for node in self.others().await {
            let answered = self.ask_node(&node, &Question::Node).await;
            nodes.push(answered.map_or_else(
                |_| json!({ "name": node.name, "node": node.name, "node_status": "Stopped", "address": node.address }),
                |answer| answer.data,
            ));
        }
        Ok(Answer::of(nodes.into()))
    }

    /// Of a client that is not connected here, the others are asked.
    async fn where_it_is(&self, question: Question) -> Result<Answer, Fault> {
        let offline = match self.answer_here(question.clone()).await {
            Err(fault) if fault.code == Fault::OFFLINE => fault,
            other => return other,
        };
        for node in self.others().await {
            match self.ask_node(&node, &question).await {
                Err(fault) if matches!(fault.code, Fault::OFFLINE | Fault::RPC) => {}
                other => return other,
            }
        }
        Err(offline)
    }

    pub(super) async fn ask_node(&self, node: &NodeStatus, question: &Question) -> Result<Answer, Fault> {
        let unheard = || Fault::new(Fault::RPC, format!("{} does not answer", node.name));
        // A dead node is not waited for.
        if !node.is_up {
            return Err(unheard());
        }
        let asked = encoded(question).ok_or_else(|| Fault::new(Fault::OTHER, "this is asked of the node itself"))?;
        let number = self.0.last_asked.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting().insert(number, answer);
        let bytes = json!({ "ask": number, "question": asked }).to_string().into_bytes();
        let sent = self.0.events.send(Event::Operator { to: node.node, bytes }).await;
        let answered = if sent.is_ok() { timeout(PATIENCE, answered).await.ok() } else { None };
        self.waiting().remove(&number);
        let answer = answered.and_then(Result::ok).ok_or_else(unheard)?;
        match answer["code"].as_u64() {
            None => Ok(Answer {
                data: answer["data"].clone(),
                count: answer["count"].as_u64(),
                next: answer["next"].as_str().and_then(Cursor::parse),
                missing: Vec::new(),
            }),
            Some(code) => {
                let message = answer["message"].as_str().unwrap_or_default();
                let status = answer["status"].as_u64().and_then(|status| u16::try_from(status).ok()).unwrap_or(503);
                Err(Fault::new(u16::try_from(code).unwrap_or(Fault::OTHER), message).with_status(status))
            }
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, oneshot::Sender<Value>>> {
        self.0.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Answers other nodes, while this one runs.
    pub async fn hear_others(self) {
        let (heard, mut hearing) = mpsc::channel(HEARD_MAX);
        if self.0.events.send(Event::Hear(heard)).await.is_err() {
            return;
        }
        while let Some((from, bytes)) = hearing.recv().await {
            self.heard(from, &bytes);
        }
    }

    fn heard(&self, from: NodeId, bytes: &Bytes) {
        let Ok(mut message) = serde_json::from_slice::<Value>(bytes) else { return };
        if let Some(number) = message["answer"].as_u64() {
            // Who has asked may wait no longer.
            let waiting = self.waiting().remove(&number);
            drop(waiting.map(|waiting| waiting.send(message["told"].take())));
            return;
        }
        let (Some(number), Some(question)) = (message["ask"].as_u64(), decoded(&message["question"])) else { return };
        let Ok(turn) = TURNS.try_acquire() else { return };
        let own = self.clone();
        tokio::spawn(async move {
            let _turn = turn;
            let told = match own.answer_here(question).await {
                Ok(answer) => json!({
                    "data": answer.data,
                    "count": answer.count,
                    "next": answer.next.map(|next| next.to_string()),
                }),
                Err(Fault { code, message, status }) => json!({ "code": code, "message": message, "status": status }),
            };
            let bytes = json!({ "answer": number, "told": told }).to_string().into_bytes();
            let _ = own.0.events.send(Event::Operator { to: from, bytes }).await;
        });
    }
}

fn with_part(question: &Question, part: Part) -> Question {
    match question.clone() {
        Question::Clients(which, _) => Question::Clients(which, part),
        Question::Sessions(which, _) => Question::Sessions(which, part),
        Question::Subscriptions(which, _) => Question::Subscriptions(which, part),
        Question::Devices(_) => Question::Devices(part),
        other => other,
    }
}

/// A question as another node is asked; none of what only the node itself is asked.
fn encoded(question: &Question) -> Option<Value> {
    let list = |of: &str, which: &Which, part: &Part| {
        let which = match which {
            Which::All => json!({}),
            Which::Client(client) => json!({ "client": client }),
            Which::Username(username) => json!({ "username": username }),
            Which::Matching(topic) => json!({ "topic": topic }),
        };
        let Part { cursor, skip, limit } = part;
        json!({ "of": of, "which": which, "cursor": cursor.to_string(), "skip": skip, "limit": limit })
    };
    Some(match question {
        Question::Clients(which, part) => list("clients", which, part),
        Question::Sessions(which, part) => list("sessions", which, part),
        Question::Subscriptions(which, part) => list("subscriptions", which, part),
        Question::Devices(part) => list("devices", &Which::All, part),
        Question::Kick(client) => json!({ "of": "kick", "client": client }),
        Question::Subscribe { client, filters, qos } => {
            let filters: Vec<&str> = filters.iter().map(OwnedTopicFilter::as_str).collect();
            json!({ "of": "subscribe", "client": client, "filters": filters, "qos": *qos as u8 })
        }
        Question::Unsubscribe { client, filter } => {
            json!({ "of": "unsubscribe", "client": client, "filters": [filter.as_str()] })
        }
        Question::TraceStart(traced) => of_trace("trace_start", traced),
        Question::TraceStop(traced) => of_trace("trace_stop", traced),
        Question::TraceShow(traced) => of_trace("trace_show", traced),
        plain => json!({ "of": PLAIN.iter().find(|(_, of)| of == plain)?.0 }),
    })
}

fn decoded(value: &Value) -> Option<Question> {
    let of = value["of"].as_str()?;
    let client = || value["client"].as_str().map(str::to_owned);
    let filters = || -> Option<Vec<OwnedTopicFilter>> {
        let filter = |text: &Value| Some(OwnedTopicFilter::from(TopicFilter::new(text.as_str()?).ok()?));
        value["filters"].as_array()?.iter().map(filter).collect()
    };
    Some(match of {
        "clients" => Question::Clients(which(value), part(value)?),
        "sessions" => Question::Sessions(which(value), part(value)?),
        "subscriptions" => Question::Subscriptions(which(value), part(value)?),
        "devices" => Question::Devices(part(value)?),
        "kick" => Question::Kick(client()?),
        "subscribe" => {
            let qos = QoS::from_bits(u8::try_from(value["qos"].as_u64()?).ok()?)?;
            Question::Subscribe { client: client()?, filters: filters()?, qos }
        }
        "unsubscribe" => Question::Unsubscribe { client: client()?, filter: filters()?.pop()? },
        "trace_start" => Question::TraceStart(traced(value)?),
        "trace_stop" => Question::TraceStop(traced(value)?),
        "trace_show" => Question::TraceShow(traced(value)?),
        of => PLAIN.iter().find(|(name, _)| *name == of)?.1.clone(),
    })
}

fn of_trace(of: &str, traced: &Traced) -> Value {
    let (kind, what) = traces::words(traced);
    json!({ "of": of, "kind": kind, "what": what })
}

fn traced(value: &Value) -> Option<Traced> {
    traces::traced(value["kind"].as_str()?, value["what"].as_str()?)
}

fn which(value: &Value) -> Which {
    let text = |name: &str| value["which"][name].as_str().map(Into::into);
    let named = text("client").map(Which::Client).or_else(|| text("username").map(Which::Username));
    named.or_else(|| text("topic").map(Which::Matching)).unwrap_or_default()
}

fn part(value: &Value) -> Option<Part> {
    let number = |name: &str| usize::try_from(value[name].as_u64()?).ok();
    let limit = number("limit")?.clamp(1, LIMIT_MAX);
    Some(Part { cursor: Cursor::parse(value["cursor"].as_str()?)?, skip: number("skip")?, limit })
}

/// Questions without anything else to say.
const PLAIN: &[(&str, Question)] = &[
    ("broker", Question::Broker),
    ("node", Question::Node),
    ("gateways", Question::Gateways),
    ("listeners", Question::Listeners),
    ("plugins", Question::Plugins),
    ("stats", Question::Stats),
    ("metrics", Question::Metrics),
    ("ledger", Question::Ledger),
    ("ready", Question::Ready),
    ("cluster", Question::Cluster),
    ("alarms", Question::Alarms),
    ("past_alarms", Question::PastAlarms),
    ("configs", Question::Configs),
    ("access", Question::Access),
];

/// A node that has not answered by then is named.
const PATIENCE: Duration = Duration::from_secs(3);
/// Messages of other nodes that wait; more are lost.
const HEARD_MAX: usize = 256;
/// Most rows that another node is told at a time.
const LIMIT_MAX: usize = 10_000;
/// Questions of other nodes that are answered at a time; more are not.
static TURNS: Semaphore = Semaphore::const_new(32);

#[cfg(test)]
mod tests {
    use newtmq_node::From;

    use super::*;

    #[test]
    fn a_question_is_understood_as_it_was_asked() {
        let filter = || OwnedTopicFilter::from(TopicFilter::new("a/+").expect("a filter"));
        let cursor = Cursor { node: None, shard: 1, from: From::At(7) };
        let part = || Part { cursor: cursor.clone(), skip: 2, limit: 30 };
        let mut all = vec![
            Question::Clients(Which::All, part()),
            Question::Clients(Which::Username("u".into()), part()),
            Question::Sessions(Which::Client("c".into()), part()),
            Question::Subscriptions(Which::Matching("a/b".into()), part()),
            Question::Devices(part()),
            Question::Kick("c".to_owned()),
            Question::Subscribe { client: "c".to_owned(), filters: vec![filter(), filter()], qos: QoS::ExactlyOnce },
            Question::Unsubscribe { client: "c".to_owned(), filter: filter() },
            Question::TraceStart(Traced::Topic(filter())),
            Question::TraceStop(Traced::Client("c".into())),
            Question::TraceShow(Traced::Client("c".into())),
        ];
        all.extend(PLAIN.iter().map(|(_, question)| question.clone()));
        for question in all {
            assert_eq!(decoded(&encoded(&question).unwrap()), Some(question));
        }
        assert_eq!(encoded(&Question::Reload), None);
        for wrong in
            [json!({}), json!({ "of": "reload" }), json!({ "of": "clients" }), json!({ "of": "kick", "client": 1 })]
        {
            assert_eq!(decoded(&wrong), None, "{wrong}");
        }
    }
}
