//! The table of paths.

#[allow(clippy::wildcard_imports, reason = "the table is a part of it")]
use super::*;

/// Paths of EMQ X that are not in this version.
pub const NOT_YET: &[(&str, &str)] = &[
    ("nodes/{node}/plugins/{plugin}", "load, unload and reload plugins: what is there is built in"),
    ("rules", "rules"),
    ("actions", "rules"),
    ("resources", "rules"),
];

/// Every path below `/api/v3`, in the order of the page.
pub const ROUTES: &[Route] = &[
    get("/brokers", "brokers", "Who the nodes are.", "[]Broker", |_| of_all("broker", Question::Broker), told_by_each)
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
        |_| of_all("plugins", Question::Plugins),
        as_it_is,
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
        |_| of_all("listeners", Question::Listeners),
        as_it_is,
    ),
    get(
        "/nodes/{node}/listeners",
        "nodeListeners",
        "Listeners of a node.",
        "[]Listener",
        |_| Ok(Question::Listeners),
        as_it_is,
    ),
    get("/metrics", "metrics", "Counters.", "[]MetricsOfNode", |_| of_all("metrics", Question::Metrics), as_it_is),
    get("/nodes/{node}/metrics", "nodeMetrics", "Counters of a node.", "Counts", |_| Ok(Question::Metrics), as_it_is),
    get(
        "/stats",
        "stats",
        "How many there are of what.",
        "[]StatsOfNode",
        |_| of_all("stats", Question::Stats),
        as_it_is,
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
    get("/alarms", "alarms", "What is wrong.", "[]AlarmsOfNode", |_| of_all("alarms", Question::Alarms), as_it_is),
    get(
        "/alarms/history",
        "alarmsThatWere",
        "What was wrong: the last 100 of each node since its start.",
        "[]AlarmsOfNode",
        |_| of_all("alarms", Question::PastAlarms),
        as_it_is,
    )
    .differs("not in EMQ X 3.1"),
    get("/alarms/{node}", "alarmsOf", "What is wrong with a node.", "[]Alarm", |_| Ok(Question::Alarms), as_it_is),
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
        |_| of_all("configs", Question::Configs),
        as_it_is,
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
        |_| of_all("cluster", Question::Cluster),
        as_it_is,
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
