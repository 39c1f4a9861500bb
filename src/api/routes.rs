//! The paths of the HTTP API, each once: what it asks, and how the answer is shown. The router, the OpenAPI document and
//! `docs/http-api.md` come from here.

use std::collections::BTreeMap;

use bytes::Bytes;
use newtmq_access::AccountKind::{self, ClientId, Username};
use newtmq_mqtt::{OwnedTopicFilter, QoS, TopicFilter, TopicName};
use newtmq_node::{Traced, Which};
use serde_json::{Value, json};

use crate::admin::{Answer, Fault, Part, Publication, Question, ban_who, check_ban_text, check_password};
use crate::config::Secret;

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

/// What each node has told, without its name, which is in it.
fn told_by_each(_: &Asked, data: Value) -> Value {
    each(&data).map(|(_, told)| told.clone()).collect()
}

fn each(data: &Value) -> impl Iterator<Item = (&Value, &Value)> {
    data.as_array().into_iter().flatten().map(|pair| (&pair[0], &pair[1]))
}

fn of_each(name: &str, data: &Value) -> Value {
    each(data).map(|(node, told)| json!({ "node": node, name: told })).collect()
}

fn of_all(question: Question) -> Result<Question, Fault> {
    Ok(Question::Each(Box::new(question)))
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

/// Paths of EMQ X that are not in this version.
pub const NOT_YET: &[(&str, &str)] = &[("rules", "rules"), ("actions", "rules"), ("resources", "rules")];

/// Every path below `/api/v3`, in the order of the page.
pub const ROUTES: &[Route] = &[
    get("/brokers", "brokers", "Who the nodes are.", "[]Broker", |_| of_all(Question::Broker), told_by_each)
        .differs("`otp_release` is null"),
    get("/brokers/{node}", "broker", "Who a node is.", "Broker", |_| Ok(Question::Broker), as_it_is),
    get("/nodes", "nodes", "The nodes of the cluster.", "[]Node", |_| Ok(Question::Nodes), as_it_is)
        .differs("without the load and memory of the machine"),
    get("/nodes/{node}", "node", "A node.", "Node", |_| Ok(Question::Node), as_it_is),
    get(
        "/connections",
        "connections",
        "Connected clients.",
        "[]Connection",
        |a| Ok(Question::Clients(Which::All, a.part()?)),
        as_it_is,
    )
    .paged(),
    get(
        "/connections/{client_id}",
        "connection",
        "A connected client.",
        "[]Connection",
        |a| Ok(Question::Clients(a.client(), a.part()?)),
        as_it_is,
    ),
    get(
        "/connections/{client_id}",
        "kick",
        "End a client's connection.",
        "",
        |a| Ok(Question::Kick(a.parameter("client_id").into())),
        as_it_is,
    )
    .by("DELETE", ""),
    get(
        "/connection/username/{username}",
        "connectionsOfUser",
        "Connected clients with a user name.",
        "[]Connection",
        |a| Ok(Question::Clients(Which::Username(a.parameter("username").into()), a.part()?)),
        as_it_is,
    )
    .paged(),
    get(
        "/nodes/{node}/connections",
        "nodeConnections",
        "Connected clients.",
        "[]Connection",
        |a| Ok(Question::Clients(Which::All, a.part()?)),
        as_it_is,
    )
    .paged(),
    get(
        "/nodes/{node}/connections/{client_id}",
        "nodeConnection",
        "A connected client.",
        "[]Connection",
        |a| Ok(Question::Clients(a.client(), a.part()?)),
        as_it_is,
    ),
    get("/sessions", "sessions", "Sessions.", "[]Session", |a| Ok(Question::Sessions(Which::All, a.part()?)), as_it_is)
        .paged()
        .differs(NOT_COUNTED),
    get(
        "/sessions/{client_id}",
        "session",
        "The session of a client.",
        "[]Session",
        |a| Ok(Question::Sessions(a.client(), a.part()?)),
        as_it_is,
    )
    .differs(NOT_COUNTED),
    get(
        "/nodes/{node}/sessions",
        "nodeSessions",
        "Sessions.",
        "[]Session",
        |a| Ok(Question::Sessions(Which::All, a.part()?)),
        as_it_is,
    )
    .paged(),
    get(
        "/nodes/{node}/sessions/{client_id}",
        "nodeSession",
        "The session of a client.",
        "[]Session",
        |a| Ok(Question::Sessions(a.client(), a.part()?)),
        as_it_is,
    ),
    get(
        "/subscriptions",
        "subscriptions",
        "Subscriptions.",
        "[]Subscription",
        |a| Ok(Question::Subscriptions(Which::All, a.part()?)),
        as_it_is,
    )
    .paged(),
    get(
        "/subscriptions/{client_id}",
        "subscriptionsOf",
        "Subscriptions of a client.",
        "[]Subscription",
        |a| Ok(Question::Subscriptions(a.client(), a.part()?)),
        as_it_is,
    )
    .paged(),
    get(
        "/nodes/{node}/subscriptions",
        "nodeSubscriptions",
        "Subscriptions.",
        "[]Subscription",
        |a| Ok(Question::Subscriptions(Which::All, a.part()?)),
        as_it_is,
    )
    .paged(),
    get(
        "/nodes/{node}/subscriptions/{client_id}",
        "nodeSubscriptionsOf",
        "Subscriptions of a client.",
        "[]Subscription",
        |a| Ok(Question::Subscriptions(a.client(), a.part()?)),
        as_it_is,
    )
    .paged(),
    get(
        "/routes",
        "routes",
        "Topic filters, and the nodes with subscribers of them.",
        "[]Route",
        |a| Ok(Question::Routes(None, a.part()?)),
        as_it_is,
    )
    .paged(),
    get(
        "/routes/{topic}",
        "routesOf",
        "The nodes with subscribers of a filter; `/` in it is written `%2F`.",
        "[]Route",
        |a| Ok(Question::Routes(Some(a.parameter("topic").into()), a.part()?)),
        as_it_is,
    ),
    get(
        "/retained",
        "retained",
        "Retained messages, without their payloads.",
        "[]Retained",
        |a| Ok(Question::Retained(None, a.part()?)),
        as_it_is,
    )
    .paged()
    .differs("not in EMQ X; of this node"),
    get(
        "/plugins",
        "plugins",
        "What are plugins in EMQ X, and whether they are a part of this broker.",
        "[]PluginsOfNode",
        |_| of_all(Question::Plugins),
        |_, data| of_each("plugins", &data),
    ),
    get(
        "/nodes/{node}/plugins",
        "nodePlugins",
        "The same, of a node.",
        "[]Plugin",
        |_| Ok(Question::Plugins),
        as_it_is,
    ),
    get(
        "/listeners",
        "listeners",
        "Listeners.",
        "[]ListenersOfNode",
        |_| of_all(Question::Listeners),
        |_, data| of_each("listeners", &data),
    ),
    get(
        "/nodes/{node}/listeners",
        "nodeListeners",
        "Listeners of a node.",
        "[]Listener",
        |_| Ok(Question::Listeners),
        as_it_is,
    ),
    get(
        "/metrics",
        "metrics",
        "Counters.",
        "[]MetricsOfNode",
        |_| of_all(Question::Metrics),
        |_, data| of_each("metrics", &data),
    ),
    get("/nodes/{node}/metrics", "nodeMetrics", "Counters of a node.", "Counts", |_| Ok(Question::Metrics), as_it_is),
    get(
        "/stats",
        "stats",
        "How many there are of what.",
        "[]StatsOfNode",
        |_| of_all(Question::Stats),
        |_, data| of_each("stats", &data),
    ),
    get(
        "/nodes/{node}/stats",
        "nodeStats",
        "How many there are of what at a node.",
        "Counts",
        |_| Ok(Question::Stats),
        as_it_is,
    ),
    get("/ledger", "ledger", "The account of messages.", "Ledger", |_| Ok(Question::Ledger), as_it_is)
        .differs("not in EMQ X; of this node"),
    get(
        "/where/{what}",
        "where",
        "What is known of a client or a topic.",
        "Where",
        |a| Ok(Question::Where(a.parameter("what").into())),
        as_it_is,
    )
    .differs("not in EMQ X; of this node"),
    get("/mqtt/publish", "publish", "Publish a message.", "", |a| Ok(Question::Publish(a.publications()?)), as_it_is)
        .by("POST", "Publish")
        .differs("`client_id` is not used; a topic below `$SYS/` is refused"),
    get(
        "/mqtt/subscribe",
        "subscribe",
        "Subscribe a connected client.",
        "",
        |a| Ok(Question::Subscribe { client: a.text("client_id")?.into(), filters: a.filters()?, qos: a.qos()? }),
        as_it_is,
    )
    .by("POST", "Subscribe")
    .differs("retained messages are not sent"),
    get(
        "/mqtt/unsubscribe",
        "unsubscribe",
        "Take a subscription from a connected client.",
        "",
        |a| {
            let text = a.text("topic")?;
            let wrong = |_| Fault::new(Fault::TOPIC, format!("{text:?} is no topic filter"));
            let filter = TopicFilter::new(text).map(OwnedTopicFilter::from).map_err(wrong)?;
            Ok(Question::Unsubscribe { client: a.text("client_id")?.into(), filter })
        },
        as_it_is,
    )
    .by("POST", "Unsubscribe"),
    get(
        "/alarms",
        "alarms",
        "What is wrong.",
        "[]AlarmsOfNode",
        |_| of_all(Question::Alarms),
        |_, data| of_each("alarms", &data),
    ),
    get(
        "/alarms/history",
        "alarmsThatWere",
        "What was wrong: the last 100 of each node since its start.",
        "[]AlarmsOfNode",
        |_| of_all(Question::PastAlarms),
        |_, data| of_each("alarms", &data),
    )
    .differs("not in EMQ X 3.1"),
    get(
        "/nodes/{node}/alarms",
        "nodeAlarms",
        "What is wrong with a node.",
        "[]Alarm",
        |_| Ok(Question::Alarms),
        as_it_is,
    ),
    get(
        "/configs",
        "configs",
        "The configuration of each node, key by key, without secrets.",
        "[]ConfigsOfNode",
        |_| of_all(Question::Configs),
        |_, data| of_each("configs", &data),
    )
    .differs("with the keys of this broker"),
    get(
        "/nodes/{node}/configs",
        "nodeConfigs",
        "The configuration of a node.",
        "[]Setting",
        |_| Ok(Question::Configs),
        as_it_is,
    )
    .differs("with the keys of this broker"),
    get(
        "/nodes/{node}/access",
        "nodeAccess",
        "Who may connect to a node and do what, as it is configured: names of users, and rules.",
        "Access",
        |_| Ok(Question::Access),
        as_it_is,
    )
    .differs(NOT_THERE),
    get(
        "/cluster",
        "cluster",
        "Members, links and leader, as this node sees them.",
        "Cluster",
        |_| Ok(Question::Cluster),
        as_it_is,
    )
    .differs(NOT_THERE),
    get(
        "/cluster/views",
        "clusterViews",
        "The same, as each node sees it.",
        "[]ViewOfNode",
        |_| of_all(Question::Cluster),
        |_, data| of_each("cluster", &data),
    )
    .differs(NOT_THERE),
    get(
        "/cluster/doctor",
        "doctor",
        "What is wrong with the cluster, and what to do; all members are asked.",
        "Examination",
        |_| Ok(Question::Doctor),
        as_it_is,
    )
    .differs(NOT_THERE),
    get("/sn/clients", "snClients", "Devices of MQTT-SN.", "[]Device", |a| Ok(Question::Devices(a.part()?)), as_it_is)
        .paged()
        .differs(NOT_THERE),
    get("/traces", "traces", "What is traced.", "[]Trace", |_| Ok(Question::Traces), as_it_is).differs(NOT_THERE),
    get(
        "/traces",
        "startTrace",
        "Trace a client or topics for an hour, at every node.",
        "",
        |a| Ok(Question::TraceStart(traced(a.text("kind")?, a.text("what")?)?)),
        as_it_is,
    )
    .by("POST", "NewTrace")
    .differs(NOT_THERE),
    get(
        "/traces/{kind}/{what}",
        "trace",
        "What has happened to it at every node, the oldest first; `/` in a topic is written `%2F`.",
        "[]TraceRecord",
        |a| Ok(Question::TraceShow(traced(a.parameter("kind"), a.parameter("what"))?)),
        as_it_is,
    )
    .differs(NOT_THERE),
    get(
        "/traces/{kind}/{what}",
        "stopTrace",
        "Trace it no more.",
        "",
        |a| Ok(Question::TraceStop(traced(a.parameter("kind"), a.parameter("what"))?)),
        as_it_is,
    )
    .by("DELETE", "")
    .differs(NOT_THERE),
    get("/apps", "apps", "Who may use the HTTP API.", "[]App", |_| Ok(Question::Apps), as_it_is),
    get(
        "/apps",
        "addApp",
        "Let an application use the HTTP API. Its secret is told once.",
        "AppSecret",
        |a| Ok(Question::AddApp(a.text("app_id")?.into(), a.text("name")?.into())),
        as_it_is,
    )
    .by("POST", "NewApp")
    .differs("the secret is chosen by the broker"),
    get(
        "/apps/{app_id}",
        "app",
        "An application.",
        "App",
        |a| Ok(Question::App(a.parameter("app_id").into())),
        as_it_is,
    )
    .differs("without the secret: nobody knows it"),
    get(
        "/apps/{app_id}",
        "changeApp",
        "Permit or refuse an application.",
        "App",
        |a| Ok(Question::EnableApp(a.parameter("app_id").into(), a.flag("status")?)),
        as_it_is,
    )
    .by("PUT", "AppStatus")
    .differs("only `status` can be changed"),
    get(
        "/apps/{app_id}",
        "deleteApp",
        "Let an application use the API no more.",
        "",
        |a| Ok(Question::DeleteApp(a.parameter("app_id").into())),
        as_it_is,
    )
    .by("DELETE", ""),
    get(
        "/auth_username",
        "usernames",
        "Users that were added while it runs.",
        "[]UsernameAccount",
        |a| Ok(Question::Accounts(Username, a.part()?)),
        as_it_is,
    )
    .paged(),
    get(
        "/auth_username",
        "addUsername",
        "Add one, with its password.",
        "UsernameAccount",
        |a| a.new_account(Username),
        as_it_is,
    )
    .by("POST", "NewUsername"),
    get(
        "/auth_username/{username}",
        "username",
        "One of them.",
        "UsernameAccount",
        |a| Ok(Question::Account(Username, a.account(Username))),
        as_it_is,
    ),
    get(
        "/auth_username/{username}",
        "changeUsername",
        "Give it another password.",
        "UsernameAccount",
        |a| a.changed_account(Username),
        as_it_is,
    )
    .by("PUT", "NewPassword"),
    get(
        "/auth_username/{username}",
        "deleteUsername",
        "Delete it, and end its connections.",
        "",
        |a| Ok(Question::DeleteAccount(Username, a.account(Username))),
        as_it_is,
    )
    .by("DELETE", "")
    .differs("its connections end"),
    get(
        "/auth_clientid",
        "clientids",
        "Client identifiers with passwords that were added while it runs.",
        "[]ClientIdAccount",
        |a| Ok(Question::Accounts(ClientId, a.part()?)),
        as_it_is,
    )
    .paged(),
    get(
        "/auth_clientid",
        "addClientId",
        "Add one, with its password.",
        "ClientIdAccount",
        |a| a.new_account(ClientId),
        as_it_is,
    )
    .by("POST", "NewClientId"),
    get(
        "/auth_clientid/{clientid}",
        "clientid",
        "One of them.",
        "ClientIdAccount",
        |a| Ok(Question::Account(ClientId, a.account(ClientId))),
        as_it_is,
    ),
    get(
        "/auth_clientid/{clientid}",
        "changeClientId",
        "Give it another password.",
        "ClientIdAccount",
        |a| a.changed_account(ClientId),
        as_it_is,
    )
    .by("PUT", "NewPassword"),
    get(
        "/auth_clientid/{clientid}",
        "deleteClientId",
        "Delete it, and end its connections.",
        "",
        |a| Ok(Question::DeleteAccount(ClientId, a.account(ClientId))),
        as_it_is,
    )
    .by("DELETE", "")
    .differs("its connections end"),
    get("/banned", "banned", "Who is banned.", "[]Ban", |a| Ok(Question::Bans(a.part()?)), as_it_is)
        .paged()
        .differs("without `desc`; with `at`, when it began"),
    get("/banned", "ban", "Ban a client, a user, an address or a network.", "Ban", |a| a.ban(), as_it_is)
        .by("POST", "NewBan")
        .differs("without `desc`; who is connected is sent away"),
    get(
        "/banned/{who}",
        "unban",
        "Ban somebody no more; `as` says what `who` is, and `/` in it is written `%2F`.",
        "",
        |a| Ok(Question::Unban(ban_who(a.parameter("as"), a.parameter("who"))?)),
        as_it_is,
    )
    .by("DELETE", "")
    .query(&["as"]),
    get(
        "/audit",
        "audit",
        "What operators have changed, the latest first.",
        "[]Audit",
        |a| Ok(Question::Audit(a.part()?)),
        as_it_is,
    )
    .paged()
    .differs("not in EMQ X; of this node"),
];

const NOT_COUNTED: &str = "without mqueue_dropped, deliver_msg and enqueue_msg, which are counted for the node";

const NOT_THERE: &str = "not in EMQ X";

fn traced(kind: &str, what: &str) -> Result<Traced, Fault> {
    let wrong = || Fault::new(Fault::TYPE, "kind must be client or topic, and what a Client Identifier or a filter");
    crate::traces::traced(kind, what).ok_or_else(wrong)
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
