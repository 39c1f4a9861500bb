//! Answers as JSON, with the names of EMQ X 3.

use std::net::SocketAddr;

use newtmq_mqtt::{OwnedTopicFilter, QoS, TopicFilter, TopicName};
use newtmq_node::OperatorCommand;
use newtmq_node::{
    ClientInfo, DropReason, Report, RetainedInfo, SessionInfo, SubscriptionInfo, Traced, Which, datetime, uptime,
};
use serde_json::{Map, Value, json};

use super::question::{Answer, Fault, Part, Publication, Question};
use super::{Admin, App};
use crate::config;
use crate::net::intake::Intake;
use crate::rt;
use crate::traces;

impl Admin {
    /// Answers for this node.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn answer_here(&self, question: Question) -> Result<Answer, Fault> {
        let node = &self.0.facts.node;
        told_to_the_log(&question);
        match question {
            Question::Broker => Ok(Answer::of(self.broker())),
            // Who asks for the whole cluster asks `answer`.
            Question::Node | Question::Nodes => self.node().await,
            Question::Each(_, question) => Box::pin(self.answer_here(*question)).await,
            Question::Clients(which, part) => {
                let found = self.clients(&which, &part).await?;
                let values: Vec<Value> = found.values.iter().map(|info| self.client(info)).collect();
                let all = self.counted(&which, values.len(), &part, |report| report.connections).await?;
                Ok(Answer { data: values.into(), count: Some(all), next: found.next, missing: Vec::new() })
            }
            Question::Sessions(which, part) => {
                let found = self.sessions(&which, &part).await?;
                let values: Vec<Value> = found.values.iter().map(|info| session(info, node)).collect();
                let all = self.counted(&which, values.len(), &part, |report| report.sessions).await?;
                Ok(Answer { data: values.into(), count: Some(all), next: found.next, missing: Vec::new() })
            }
            Question::Subscriptions(which, part) => {
                let found = self.subscriptions(&which, &part).await?;
                let values: Vec<Value> = found.values.iter().map(|info| subscription(info, node)).collect();
                let all = self.counted(&which, values.len(), &part, |report| report.subscriptions).await?;
                Ok(Answer { data: values.into(), count: Some(all), next: found.next, missing: Vec::new() })
            }
            Question::Routes(topic, part) => self.shown_routes(topic.as_deref(), &part).await,
            Question::Retained(filter, part) => {
                let found = self.retained(filter.as_ref(), &part).await?;
                let values: Vec<Value> = found.values.iter().map(|info| retained(info, node)).collect();
                let all = if filter.is_some() { values.len() as u64 } else { self.figures().await?.0.retained };
                Ok(Answer { data: values.into(), count: Some(all), next: found.next, missing: Vec::new() })
            }
            Question::Devices(part) => self.devices(&part).await,
            Question::Gateways => Ok(Answer::of(self.gateways())),
            Question::Listeners => self.listeners().await,
            Question::StopListener(transport, at) => self.stop_listener(&transport, &at),
            Question::Plugins => Ok(Answer::of(plugins())),
            Question::Stats => self.stats().await.map(|stats| Answer::of(object(stats))),
            Question::Metrics => {
                let (report, _) = self.figures().await?;
                Ok(Answer::of(object(report.metrics())))
            }
            Question::Ledger => self.ledger().await,
            Question::Where(what) => self.whereabouts(&what).await,
            Question::Ready => Ok(Answer::of(self.unready().await?.map_or(true.into(), Value::from))),
            Question::Kick(client) => {
                let shard = self.shard_of(&client).await?.ok_or_else(offline)?;
                self.command(shard, OperatorCommand::Kick(client.into()));
                Ok(Answer::of(Value::Null))
            }
            Question::Publish(messages) => self.publish(messages).await,
            Question::Subscribe { client, filters, qos } => self.subscribe(&client, filters, qos).await,
            Question::Unsubscribe { client, filter } => {
                let shard = self.shard_of(&client).await?.ok_or_else(offline)?;
                self.command(shard, OperatorCommand::Unsubscribe { client: client.into(), filter });
                Ok(Answer::of(Value::Null))
            }
            Question::Reload => {
                let report = self.reload().await?;
                if report.errors.is_empty() {
                    Ok(Answer::of(json!({ "lines": report.lines(), "report": report.data() })))
                } else {
                    Err(Fault::new(Fault::OTHER, report.lines().join("\n")))
                }
            }
            Question::Cluster => self.cluster_status().await,
            Question::Doctor => self.doctor().await,
            Question::Configs => Ok(Answer::of(self.configs())),
            Question::Access => self.access_beside().await,
            Question::Alarms => Ok(Answer::of(self.alarms().raised().iter().map(crate::alarms::Alarm::json).collect())),
            Question::PastAlarms => {
                Ok(Answer::of(self.alarms().over().iter().map(crate::alarms::Alarm::json).collect()))
            }
            Question::LogLevel(level) => {
                if let Some(switch) = self.0.level.get() {
                    switch.set(level);
                }
                Ok(Answer::of(json!({ "level": level.word() })))
            }
            Question::TraceStart(traced) => self.trace_start(traced),
            Question::TraceStop(traced) => {
                let was_there = self.0.office.traces().stop(&traced, None);
                self.0.office.trace();
                Ok(Answer::of(was_there.into()))
            }
            Question::Traces => Ok(Answer::of(self.0.office.traces().list())),
            Question::TraceShow(traced) => {
                self.0.office.traces().show(&traced, node).map(Answer::of).ok_or_else(not_traced)
            }
            question @ (Question::Apps
            | Question::App(_)
            | Question::AddApp(..)
            | Question::EnableApp(..)
            | Question::DeleteApp(_)) => self.app_beside(question).await,
            question @ (Question::Accounts(..)
            | Question::Account(..)
            | Question::AddAccount(..)
            | Question::UpdateAccount(..)
            | Question::DeleteAccount(..)) => self.account(question).await,
            question @ (Question::Bans(_) | Question::Ban { .. } | Question::Unban(_)) => self.banned(question).await,
            Question::Audit(part) => Ok(self.audited(&part)),
        }
    }

    /// It ends by itself: somebody may forget it.
    fn trace_start(&self, traced: Traced) -> Result<Answer, Fault> {
        let office = self.0.office.clone();
        let started =
            office.traces().start(traced.clone()).map_err(|error| Fault::new(Fault::OTHER, error.to_string()))?;
        office.trace();
        tokio::spawn(async move {
            tokio::time::sleep(TRACE_LASTS).await;
            if office.traces().stop(&traced, Some(started)) {
                office.trace();
                let (kind, what) = traces::words(&traced);
                tracing::info!(kind, what, "a trace has ended by itself");
            }
        });
        Ok(Answer::of(Value::Null))
    }

    /// Hashes and files take their time.
    #[cfg(not(madsim))]
    async fn app_beside(&self, question: Question) -> Result<Answer, Fault> {
        let own = self.clone();
        let done = tokio::task::spawn_blocking(move || own.app(question)).await;
        done.unwrap_or_else(|_| Err(Fault::stopping()))
    }

    /// Simulated nodes are asked by nobody.
    #[cfg(madsim)]
    async fn app_beside(&self, question: Question) -> Result<Answer, Fault> {
        self.app(question)
    }

    fn app(&self, question: Question) -> Result<Answer, Fault> {
        let apps = &self.0.apps;
        match question {
            Question::App(id) => apps.get(&id).map(|of| Answer::of(app(&of))).ok_or_else(no_app),
            Question::AddApp(id, name) => {
                let secret = apps.add(&id, &name).map_err(failed)?;
                Ok(Answer::of(json!({ "app_id": id, "name": name, "secret": secret })))
            }
            Question::EnableApp(id, status) => {
                let of = apps.enable(&id, status).map_err(failed)?.ok_or_else(no_app)?;
                Ok(Answer::of(app(&of)))
            }
            Question::DeleteApp(id) => match apps.delete(&id).map_err(failed)? {
                true => Ok(Answer::of(Value::Null)),
                false => Err(no_app()),
            },
            _ => Ok(Answer::of(apps.list().iter().map(app).collect())),
        }
    }

    async fn counted(
        &self,
        which: &Which,
        found: usize,
        part: &Part,
        of: impl Fn(&Report) -> u64,
    ) -> Result<u64, Fault> {
        if *which == Which::All {
            return Ok(of(&self.figures().await?.0));
        }
        // What follows is not known.
        Ok(if found == 0 { 0 } else { (part.skip + found) as u64 })
    }

    fn broker(&self) -> Value {
        let facts = &self.0.facts;
        let seconds = (facts.clock.now() - facts.started).as_secs();
        json!({
            "node": facts.node,
            "node_status": "Running",
            "version": env!("CARGO_PKG_VERSION"),
            "sysdescr": "NewtMQ MQTT broker",
            "uptime": uptime(seconds),
            "uptime_seconds": seconds,
            "datetime": datetime(rt::wall_time().0),
            "otp_release": null,
        })
    }

    async fn node(&self) -> Result<Answer, Fault> {
        let (report, _) = self.figures().await?;
        let mut own = self.broker();
        own["name"] = own["node"].clone();
        own["connections"] = report.connections.into();
        own["shards"] = self.0.office.shards().into();
        Ok(Answer::of(own))
    }

    fn client(&self, info: &ClientInfo) -> Value {
        let facts = &self.0.facts;
        let listener = facts.config.listeners.get(usize::from(info.listener.0)).map(config::Listener::path);
        json!({
            "client_id": info.client,
            "username": info.username,
            "node": facts.node,
            "ipaddress": info.peer.ip().to_string(),
            "port": info.peer.port(),
            "listener": listener,
            "zone": info.zone,
            "proto_name": if info.version == 3 { "MQIsdp" } else { "MQTT" },
            "proto_ver": info.version,
            "clean_start": info.clean_start,
            "keepalive": info.keep_alive,
            "connected_at": datetime(info.connected_at * 1000),
            "connected_unix": info.connected_at,
            "mountpoint": info.mountpoint,
            "output_bytes": info.output_bytes,
            "held": info.held,
            "stalled": info.stalled,
        })
    }

    async fn shown_routes(&self, topic: Option<&str>, part: &Part) -> Result<Answer, Fault> {
        let routes = self.routes().await?;
        let wanted = routes.iter().filter(|(filter, _)| topic.is_none_or(|topic| topic == filter));
        let count = wanted.clone().count() as u64;
        let shown = wanted.skip(part.skip).take(part.limit);
        let data = shown.map(|(filter, node)| json!({ "topic": filter, "node": node })).collect();
        Ok(Answer { data, count: Some(count), next: None, missing: Vec::new() })
    }

    fn stop_listener(&self, transport: &str, at: &str) -> Result<Answer, Fault> {
        let transport = transport.strip_prefix("mqtt:").unwrap_or(transport);
        let listening = self.0.listening.get().map(Vec::as_slice).unwrap_or_default();
        let is_it = |address: &SocketAddr, intake: &Intake| {
            intake.listener().transport.word() == transport
                && (address.to_string() == at || address.port().to_string() == at)
        };
        let mut found = listening.iter().filter(|(address, intake)| is_it(address, intake));
        match (found.next(), found.next()) {
            (Some((_, intake)), None) if intake.end() => Ok(Answer::of(Value::Null)),
            (Some(_), None) => Err(Fault::new(Fault::OTHER, "it is stopped already")),
            (Some(_), Some(_)) => {
                Err(Fault::new(Fault::OTHER, "several listeners have this port: give the address, too"))
            }
            (None, _) => Err(Fault::new(Fault::OTHER, "there is no such listener; see `listeners`").with_status(404)),
        }
    }

    async fn listeners(&self) -> Result<Answer, Fault> {
        let (_, open) = self.figures().await?;
        let listening = self.0.listening.get().map(Vec::as_slice).unwrap_or_default();
        let shown = listening.iter().enumerate().map(|(at, (address, intake))| {
            let listener = intake.listener();
            json!({
                "protocol": format!("mqtt:{}", listener.transport.word()),
                "name": listener.name,
                "listen_on": address.to_string(),
                "acceptors": 1,
                "max_conns": listener.max_connections,
                "current_conns": open.get(at),
                "accepts": intake.accepts(),
                "shutdown_count": [],
            })
        });
        Ok(Answer::of(shown.collect()))
    }

    /// By the names of EMQ X below `stats`.
    pub(crate) async fn stats(&self) -> Result<Vec<(String, u64)>, Fault> {
        let (report, _) = self.figures().await?;
        let most = self.known(0, 0).await?.most;
        let pairs = report.stats().into_iter().zip(most);
        let both = |((name, count), most): ((&str, u64), u64)| {
            [(format!("{name}/count"), count), (format!("{name}/max"), count.max(most))]
        };
        Ok(pairs.flat_map(both).collect())
    }

    async fn ledger(&self) -> Result<Answer, Fault> {
        let (Report { ledger, .. }, _) = self.figures().await?;
        let dropped = DropReason::ALL.map(|reason| (reason.name(), ledger.dropped(reason)));
        let waiting = ledger.matched - ledger.delivered - ledger.dropped_total();
        Ok(Answer::of(json!({
            "accepted": ledger.accepted,
            "unmatched": ledger.unmatched,
            "matched": ledger.matched,
            "delivered": ledger.delivered,
            "waiting": waiting,
            "dropped": object(dropped),
            "denied": ledger.denied,
            "retained_sent": ledger.retained_sent,
            "sent_to_nodes": ledger.sent_to_nodes,
            "received_from_nodes": ledger.received_from_nodes,
            "hinted": ledger.hinted,
            "hints_sent": ledger.hints_sent,
            "hints_ended": ledger.hints_ended,
            "not_hinted": ledger.not_hinted,
            "wills_not_kept": ledger.wills_not_kept,
            "wills_for_others": ledger.wills_for_others,
            "wills_elsewhere": ledger.wills_elsewhere,
        })))
    }

    async fn whereabouts(&self, what: &str) -> Result<Answer, Fault> {
        let part = Part::page(1, WHERE_MAX);
        let node = &self.0.facts.node;
        let of_client = Which::Client(what.into());
        let clients = self.clients(&of_client, &part).await?.values;
        let sessions = self.sessions(&of_client, &part).await?.values;
        let own = self.subscriptions(&of_client, &part).await?.values;
        let topic = TopicName::new(what).ok();
        let matching = match topic {
            Some(_) => self.subscriptions(&Which::Matching(what.into()), &part).await?.values,
            None => Vec::new(),
        };
        let filter = TopicFilter::new(what).ok().map(OwnedTopicFilter::from);
        let kept = match &filter {
            Some(filter) => self.retained(Some(filter), &part).await?.values,
            None => Vec::new(),
        };
        let routes: Vec<Value> = match topic {
            Some(topic) => {
                let matches = |filter: &str| TopicFilter::new(filter).is_ok_and(|of| of.matches(topic));
                let routes = self.routes().await?;
                let mine = routes.iter().filter(|(filter, _)| matches(filter)).take(WHERE_MAX);
                mine.map(|(filter, node)| json!({ "topic": filter, "node": node })).collect()
            }
            None => Vec::new(),
        };
        Ok(Answer::of(json!({
            "client": {
                "connection": clients.first().map(|info| self.client(info)),
                "session": sessions.first().map(|info| session(info, node)),
                "subscriptions": own.iter().map(|info| subscription(info, node)).collect::<Vec<_>>(),
            },
            "topic": {
                "subscribers": matching.iter().map(|info| subscription(info, node)).collect::<Vec<_>>(),
                "routes": routes,
                "retained": kept.iter().map(|info| retained(info, node)).collect::<Vec<_>>(),
            },
            "traced": self.0.office.traces().about(what, node, TOLD_MAX),
        })))
    }

    async fn publish(&self, messages: Vec<Publication>) -> Result<Answer, Fault> {
        if !self.is_ready().await? {
            return Err(Fault::new(Fault::RPC, "the node does not know yet for whom messages are; try again"));
        }
        for Publication { topic, payload, qos, retain } in messages {
            let shard = self.publishing_shard(&topic);
            self.command(shard, OperatorCommand::Publish { topic: topic.into(), payload, qos, retain });
        }
        Ok(Answer::of(Value::Null))
    }

    async fn subscribe(&self, client: &str, filters: Vec<OwnedTopicFilter>, qos: QoS) -> Result<Answer, Fault> {
        let shard = self.shard_of(client).await?.ok_or_else(offline)?;
        let texts: Vec<String> = filters.iter().map(|filter| filter.as_str().to_owned()).collect();
        for filter in filters {
            self.command(shard, OperatorCommand::Subscribe { client: client.into(), filter, qos });
        }
        let has = self.is_subscribed(client).await?;
        // With a mountpoint it is the end of what it has.
        let filter = |text: &str| TopicFilter::new(text).map_or_else(|_| text.to_owned(), |of| of.filter().to_owned());
        let is_there = |text: &str| has.iter().any(|has| filter(has).ends_with(&filter(text)));
        match texts.iter().find(|text| !is_there(text)) {
            Some(text) => {
                Err(Fault::new(Fault::TOPIC, format!("{text}: a limit or a feature of the broker forbids it")))
            }
            None => Ok(Answer::of(Value::Null)),
        }
    }
}

fn session(info: &SessionInfo, node: &str) -> Value {
    json!({
        "client_id": info.client,
        "username": info.username,
        "node": node,
        "connected": info.connected,
        "clean_start": info.clean_start,
        "expiry_interval": info.expiry_interval,
        "created_at": datetime(info.created_at * 1000),
        "created_unix": info.created_at,
        "subscriptions_count": info.subscriptions,
        "max_inflight": info.max_inflight,
        "inflight_len": info.inflight,
        "max_mqueue": info.max_queued,
        "mqueue_len": info.queued,
        "awaiting_rel_len": info.awaiting_rel,
        "durable": info.stored,
    })
}

fn subscription(info: &SubscriptionInfo, node: &str) -> Value {
    json!({
        "node": node,
        "client_id": info.client,
        "topic": info.filter,
        "qos": info.qos as u8,
        "no_local": info.no_local,
        "connected": info.connected,
    })
}

fn retained(info: &RetainedInfo, node: &str) -> Value {
    json!({ "node": node, "topic": info.topic, "qos": info.qos as u8, "payload_bytes": info.payload_bytes })
}

fn plugins() -> Value {
    let shown = config::plugins().map(|(name, is_there, what)| {
        json!({
            "name": name,
            "version": env!("CARGO_PKG_VERSION"),
            "description": unlinked(what),
            "active": is_there,
            "type": "feature",
        })
    });
    shown.collect()
}

/// Without the links of a page.
fn unlinked(text: &str) -> String {
    match text.split_once('[').and_then(|(before, rest)| Some((before, rest.split_once("](")?))) {
        Some((before, (name, rest))) => format!("{before}{name}{}", rest.split_once(')').map_or("", |(_, rest)| rest)),
        None => text.to_owned(),
    }
}

fn app(of: &App) -> Value {
    json!({ "app_id": of.id, "name": of.name, "desc": "", "status": of.enabled, "expired": null })
}

fn object<N: Into<String>>(pairs: impl IntoIterator<Item = (N, u64)>) -> Value {
    Value::Object(pairs.into_iter().map(|(name, count)| (name.into(), count.into())).collect::<Map<_, _>>())
}

fn offline() -> Fault {
    Fault::new(Fault::OFFLINE, "the client is not connected")
}

fn not_traced() -> Fault {
    Fault::new(Fault::OTHER, "this is not traced").with_status(404)
}

fn no_app() -> Fault {
    Fault::new(Fault::OTHER, "there is no such application").with_status(404)
}

fn failed(error: super::AppsError) -> Fault {
    let status = match error {
        super::AppsError::Refused(_) => 400,
        super::AppsError::Taken | super::AppsError::Configured => 409,
        super::AppsError::Io(_) => 503,
    };
    Fault::new(Fault::OTHER, error.to_string()).with_status(status)
}

/// What is changed, and never a payload or a secret.
fn told_to_the_log(question: &Question) {
    match question {
        Question::Kick(client) => tracing::info!(client, "an operator ends a client's connection"),
        Question::Subscribe { client, filters, .. } => {
            tracing::info!(client, filters = filters.len(), "an operator subscribes a client");
        }
        Question::Unsubscribe { client, filter } => {
            tracing::info!(client, filter = filter.as_str(), "an operator takes a client's subscription");
        }
        Question::Publish(messages) => tracing::debug!(topics = messages.len(), "an operator publishes"),
        Question::StopListener(transport, at) => tracing::info!(transport, at, "an operator stops a listener"),
        Question::TraceStart(traced) => {
            let (kind, what) = traces::words(traced);
            tracing::info!(kind, what, "an operator traces");
        }
        Question::TraceStop(traced) => {
            let (kind, what) = traces::words(traced);
            tracing::info!(kind, what, "an operator ends a trace");
        }
        Question::LogLevel(level) => tracing::info!(level = level.word(), "an operator sets the level of the log"),
        Question::AddApp(app, _) => tracing::info!(app, "an operator adds an application"),
        Question::EnableApp(app, status) => tracing::info!(app, status, "an operator changes an application"),
        Question::DeleteApp(app) => tracing::info!(app, "an operator removes an application"),
        _ => {}
    }
}

/// Most that is told of where something is.
const WHERE_MAX: usize = 1000;
/// Most records of traces that are told of it.
const TOLD_MAX: usize = 100;
/// A trace that nobody has stopped by then ends by itself.
const TRACE_LASTS: std::time::Duration = std::time::Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_for_pages() {
        assert_eq!(unlinked("a; see [HTTP API](http-api.md), b"), "a; see HTTP API, b");
        assert_eq!(unlinked("a [b"), "a [b");
    }
}
