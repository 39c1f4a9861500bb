//! The commands of `newtmq ctl`, each once: what it is called, what it asks, and how the answer is told. The command line, the
//! socket, `docs/ctl.md` and shell completions come from here.

use newtmq_access::AccountKind::{ClientId, Username};
use newtmq_access::{AccountKind, BAN_TEXT_BYTES_MAX, BanKind, BanWho};
use newtmq_mqtt::{OwnedTopicFilter, QoS, TopicFilter};
use newtmq_node::{Traced, Which};
use serde_json::Value;

use super::lines;
use super::question::{Cursor, Fault, Part, Question};
use crate::config::{self, LogLevel, Secret};
use crate::{rt, traces};

/// A command.
pub struct Row {
    /// One or two words.
    pub path: &'static str,
    /// Its arguments, in order: their names.
    pub arguments: &'static [&'static str],
    /// One line for people.
    pub about: &'static str,
    /// What comes of it.
    pub does: Does,
    /// What is different from EMQ X; empty if nothing is.
    pub differs: &'static str,
}

/// What comes of a command.
pub enum Does {
    /// It asks this, which is told so.
    Asks(fn(&Given<'_>) -> Result<Question, Fault>, fn(&Value) -> Vec<String>),
    /// The control plane is asked, in `src/cluster/admin.rs`.
    Cluster,
    /// The figures are asked for again and again, in `src/cli/top.rs`.
    Watches,
    /// It is not in this version.
    NotYet,
}

/// The arguments of a command, by name.
pub struct Given<'a>(pub &'a Value);

impl Given<'_> {
    fn text(&self, name: &str) -> Result<&str, Fault> {
        let text = self.0[name].as_str().filter(|text| !text.is_empty());
        text.ok_or_else(|| Fault::new(Fault::MISSING, format!("it needs {name}")))
    }

    fn filter(&self) -> Result<OwnedTopicFilter, Fault> {
        let text = self.text("topic")?;
        let wrong = |_| Fault::new(Fault::TOPIC, format!("{text:?} is no topic filter"));
        TopicFilter::new(text).map(OwnedTopicFilter::from).map_err(wrong)
    }

    fn qos(&self) -> Result<QoS, Fault> {
        let number = self.text("qos")?.parse().ok().and_then(QoS::from_bits);
        number.ok_or_else(|| Fault::new(Fault::TYPE, "qos must be 0, 1 or 2"))
    }

    /// A step of a list that may be long.
    fn part(&self) -> Result<Part, Fault> {
        let cursor = match self.0["cursor"].as_str() {
            None => Cursor::default(),
            Some(text) => Cursor::parse(text).ok_or_else(|| Fault::new(Fault::TYPE, "no such place in the list"))?,
        };
        Ok(Part { cursor, skip: 0, limit: STEP })
    }

    fn accounts(&self, kind: AccountKind) -> Result<Question, Fault> {
        Ok(Question::Accounts(kind, self.part()?))
    }

    fn add_account(
        &self,
        kind: AccountKind,
        question: fn(AccountKind, String, Secret) -> Question,
    ) -> Result<Question, Fault> {
        let password = self.text("password")?;
        check_password(password)?;
        Ok(question(kind, self.text("name")?.into(), Secret::new(password)))
    }

    fn who(&self) -> Result<BanWho, Fault> {
        ban_who(self.text("as")?, self.text("who")?)
    }

    fn traced(&self) -> Result<Traced, Fault> {
        let (kind, what) = (self.text("kind")?, self.text("what")?);
        traces::traced(kind, what).ok_or_else(|| {
            Fault::new(Fault::TYPE, format!("{kind} {what:?} is neither `client CLIENTID` nor `topic FILTER`"))
        })
    }

    fn which(&self) -> Result<Which, Fault> {
        Ok(Which::Client(self.text("client")?.into()))
    }
}

/// Whom a ban is about.
///
/// # Errors
/// It is nobody.
pub fn ban_who(kind: &str, text: &str) -> Result<BanWho, Fault> {
    let words = || BanKind::ALL.map(BanKind::name).join(", ");
    let kind =
        BanKind::of_name(kind).ok_or_else(|| Fault::new(Fault::TYPE, format!("as must be one of {}", words())))?;
    BanWho::new(kind, text).map_err(|why| Fault::new(Fault::TYPE, format!("who: {why}")))
}

/// Whether something can be the reason of a ban, or the name of who bans.
///
/// # Errors
/// It is too long.
pub fn check_ban_text(text: &str) -> Result<(), Fault> {
    if text.len() > BAN_TEXT_BYTES_MAX {
        return Err(Fault::new(Fault::TYPE, format!("a reason has at most {BAN_TEXT_BYTES_MAX} bytes")));
    }
    Ok(())
}

/// Whether something can be a password.
///
/// # Errors
/// It is empty or too long.
pub fn check_password(password: &str) -> Result<(), Fault> {
    if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
        return Err(Fault::new(Fault::TYPE, format!("a password has 1 to {PASSWORD_BYTES_MAX} bytes")));
    }
    Ok(())
}

/// When a ban of this time ends, in seconds since 1970.
fn ban_end(time: &str) -> Option<Option<u64>> {
    if time == "none" {
        return Some(None);
    }
    let time = config::duration(time).filter(|time| (1..=BAN_SECONDS_MAX).contains(&time.as_secs()))?;
    Some(Some(rt::wall_time().0 / 1000 + time.as_secs()))
}

/// The command of these words.
#[must_use]
pub fn find(path: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.path == path)
}

impl Row {
    /// What it is called on the socket.
    #[must_use]
    pub fn name(&self) -> String {
        self.path.replace(' ', ".")
    }
}

const fn row(
    path: &'static str,
    arguments: &'static [&'static str],
    about: &'static str,
    ask: fn(&Given<'_>) -> Result<Question, Fault>,
    told: fn(&Value) -> Vec<String>,
) -> Row {
    Row { path, arguments, about, does: Does::Asks(ask, told), differs: "" }
}

const fn cluster(path: &'static str, arguments: &'static [&'static str], about: &'static str) -> Row {
    Row { path, arguments, about, does: Does::Cluster, differs: "" }
}

const fn not_yet(path: &'static str, about: &'static str) -> Row {
    Row { path, arguments: &[], about, does: Does::NotYet, differs: "" }
}

impl Row {
    const fn differs(mut self, why: &'static str) -> Row {
        self.differs = why;
        self
    }
}

/// Every command, in the order of the page.
pub const ROWS: &[Row] = &[
    row("status", &[], "Tell that the node runs.", |_| Ok(Question::Broker), lines::status)
        .differs("the second line names NewtMQ"),
    cluster("cluster join", &["node"], "Join the cluster of NODE: `NAME@HOST`, `HOST` or `HOST:PORT`."),
    cluster("cluster leave", &[], "Leave the cluster. Clients are sent to other nodes."),
    cluster(
        "cluster force-leave",
        &["node"],
        "Remove NODE, which is down, from the cluster. It may not come back before it is readmitted.",
    ),
    cluster("cluster readmit", &["node"], "Let NODE, which was removed by force, come back. NODE is its id."),
    cluster(
        "cluster finalize",
        &[],
        "After an upgrade of all members: use what only the new version can. An older one can join no more.",
    ),
    cluster("cluster status", &[], "Tell who is a member, and who of them runs."),
    cluster(
        "cluster doctor",
        &[],
        "Ask all members how they are, compare, and say what is wrong and what to do. Fails if anything is.",
    ),
    row(
        "clients list",
        &[],
        "List connected clients.",
        |a| Ok(Question::Clients(Which::All, a.part()?)),
        lines::connections,
    ),
    row(
        "clients show",
        &["client"],
        "Show a connected CLIENT.",
        |a| Ok(Question::Clients(a.which()?, a.part()?)),
        lines::connections,
    ),
    row(
        "clients kick",
        &["client"],
        "End the connection of CLIENT.",
        |a| Ok(Question::Kick(a.text("client")?.into())),
        lines::ok,
    ),
    row("sessions list", &[], "List sessions.", |a| Ok(Question::Sessions(Which::All, a.part()?)), lines::sessions)
        .differs(NOT_COUNTED),
    row(
        "sessions show",
        &["client"],
        "Show the session of CLIENT.",
        |a| Ok(Question::Sessions(a.which()?, a.part()?)),
        lines::sessions,
    )
    .differs(NOT_COUNTED),
    row(
        "routes list",
        &[],
        "List topic filters and the nodes with subscribers of them.",
        |a| Ok(Question::Routes(None, a.all())),
        lines::routes,
    ),
    row(
        "routes show",
        &["topic"],
        "Show the nodes with subscribers of the filter TOPIC.",
        |a| Ok(Question::Routes(Some(a.text("topic")?.into()), a.all())),
        lines::routes,
    ),
    row("topics list", &[], "The same as `routes list`.", |a| Ok(Question::Routes(None, a.all())), lines::routes),
    row(
        "topics show",
        &["topic"],
        "The same as `routes show`.",
        |a| Ok(Question::Routes(Some(a.text("topic")?.into()), a.all())),
        lines::routes,
    ),
    row(
        "subscriptions list",
        &[],
        "List subscriptions.",
        |a| Ok(Question::Subscriptions(Which::All, a.part()?)),
        lines::subscriptions,
    ),
    row(
        "subscriptions show",
        &["client"],
        "Show the subscriptions of CLIENT.",
        |a| Ok(Question::Subscriptions(a.which()?, a.part()?)),
        lines::subscriptions,
    ),
    row(
        "subscriptions add",
        &["client", "topic", "qos"],
        "Subscribe a connected CLIENT to TOPIC with QOS.",
        |a| Ok(Question::Subscribe { client: a.text("client")?.into(), filters: vec![a.filter()?], qos: a.qos()? }),
        lines::ok,
    )
    .differs("retained messages are not sent"),
    row(
        "subscriptions del",
        &["client", "topic"],
        "Take the subscription of TOPIC from a connected CLIENT.",
        |a| Ok(Question::Unsubscribe { client: a.text("client")?.into(), filter: a.filter()? }),
        lines::ok,
    ),
    row(
        "retained list",
        &[],
        "List retained messages, without their payloads.",
        |a| Ok(Question::Retained(None, a.part()?)),
        lines::retained,
    )
    .differs("not in EMQ X; of this node"),
    row(
        "retained show",
        &["topic"],
        "List those that the filter TOPIC matches.",
        |a| Ok(Question::Retained(Some(a.filter()?), a.part()?)),
        lines::retained,
    )
    .differs("not in EMQ X; of this node"),
    row(
        "sn list",
        &[],
        "List the devices of MQTT-SN: where they are, and whether they sleep.",
        |a| Ok(Question::Devices(a.part()?)),
        lines::devices,
    )
    .differs("not in EMQ X"),
    row(
        "plugins list",
        &[],
        "List what are plugins in EMQ X, and whether they are a part of this broker.",
        |_| Ok(Question::Plugins),
        lines::plugins,
    )
    .differs("what is there is always active"),
    not_yet("plugins load", "Load a plugin: what is there is built in."),
    not_yet("plugins unload", "Unload a plugin: what is there is built in."),
    not_yet("plugins reload", "Reload a plugin: what is there is built in."),
    row("listeners", &[], "List listeners.", |_| Ok(Question::Listeners), lines::listeners),
    row(
        "listeners stop",
        &["proto", "port"],
        "Have the listener of PROTO, as in mqtt:tcp, at PORT or ADDRESS:PORT accept no connection any more, until the next start.",
        |a| Ok(Question::StopListener(a.text("proto")?.into(), a.text("port")?.into())),
        lines::ok,
    )
    .differs("connections that are open stay"),
    row("broker", &[], "Tell who the node is.", |_| Ok(Question::Broker), lines::broker),
    row("broker stats", &[], "Tell how many there are of what.", |_| Ok(Question::Stats), lines::figures),
    row("broker metrics", &[], "Tell the counters.", |_| Ok(Question::Metrics), lines::figures),
    row(
        "ledger",
        &[],
        "Tell the account of messages: what was matched is delivered, waits or is dropped.",
        |_| Ok(Question::Ledger),
        lines::ledger,
    )
    .differs("not in EMQ X; of this node"),
    row("alarms", &[], "Tell what is wrong.", |_| Ok(of_all(Question::Alarms)), lines::alarms)
        .differs("not in EMQ X"),
    row(
        "alarms history",
        &[],
        "Tell what was wrong: the last 100 of each node since its start.",
        |_| Ok(of_all(Question::PastAlarms)),
        lines::alarms,
    )
    .differs("not in EMQ X"),
    Row {
        path: "top",
        arguments: &[],
        about: "Tell rates as they are, a line each second, until Ctrl-C or `--lines N`.",
        does: Does::Watches,
        differs: "not in EMQ X; of this node",
    },
    row(
        "where",
        &["what"],
        "Tell what is known of WHAT, a client or a topic: who has subscribed it, where it is, and what became of its messages if they are traced.",
        |a| Ok(Question::Where(a.text("what")?.into())),
        lines::whereabouts,
    )
    .differs("not in EMQ X; of this node, but for routes"),
    row(
        "acl reload",
        &[],
        "Read the rules again, and all else that `reload` reads.",
        |_| Ok(Question::Reload),
        lines::reloaded,
    )
    .differs("users, certificates and the configuration are read again, too"),
    cluster(
        "reload",
        &[],
        "Read the configuration, users, rules and certificates again, as at SIGHUP. Tells what is changed, and what needs a restart; if anything is wrong, nothing is changed.",
    ),
    row("mgmt list", &[], "List who may use the HTTP API.", |_| Ok(Question::Apps), lines::apps),
    row(
        "mgmt insert",
        &["app_id", "name"],
        "Let APP_ID use the HTTP API. Its secret is told once.",
        |a| Ok(Question::AddApp(a.text("app_id")?.into(), a.text("name")?.into())),
        lines::secret,
    ),
    row(
        "mgmt update",
        &["app_id", "status"],
        "Permit or refuse APP_ID: STATUS is true or false.",
        |a| {
            let status =
                a.text("status")?.parse().map_err(|_| Fault::new(Fault::TYPE, "status must be true or false"))?;
            Ok(Question::EnableApp(a.text("app_id")?.into(), status))
        },
        lines::updated,
    ),
    row("mgmt lookup", &["app_id"], "Show APP_ID.", |a| Ok(Question::App(a.text("app_id")?.into())), lines::apps)
        .differs("the secret is not shown: nobody knows it"),
    row(
        "mgmt delete",
        &["app_id"],
        "Let APP_ID use the HTTP API no more.",
        |a| Ok(Question::DeleteApp(a.text("app_id")?.into())),
        lines::ok,
    ),
    row(
        "log set-level",
        &["level"],
        "Set LEVEL until the next start: trace, debug, info, warn or error.",
        |a| {
            let word = a.text("level")?;
            let at = LogLevel::WORDS.iter().position(|known| *known == word);
            at.map(|at| Question::LogLevel(LogLevel::ALL[at]))
                .ok_or_else(|| Fault::new(Fault::TYPE, format!("a level is one of {}", LogLevel::WORDS.join(", "))))
        },
        lines::level,
    )
    .differs("with other levels"),
    not_yet("log handlers", "Handlers of the log."),
    not_yet("bridges list", "Bridges."),
    not_yet("bridges start", "Bridges."),
    not_yet("bridges stop", "Bridges."),
    not_yet("bridges forwards", "Bridges."),
    not_yet("bridges add-forward", "Bridges."),
    not_yet("bridges del-forward", "Bridges."),
    not_yet("bridges subscriptions", "Bridges."),
    not_yet("bridges add-subscription", "Bridges."),
    not_yet("bridges del-subscription", "Bridges."),
    row("trace list", &[], "List what is traced.", |_| Ok(Question::Traces), lines::traces),
    row(
        "trace start",
        &["kind", "what"],
        "Trace what happens to `client CLIENTID` or to messages of `topic FILTER` for an hour, at every node.",
        |a| Ok(Question::TraceStart(a.traced()?)),
        lines::trace_started,
    )
    .differs("without a file: the last 1,000 records are kept, see `trace show`"),
    row(
        "trace stop",
        &["kind", "what"],
        "End the trace of `client CLIENTID` or of `topic FILTER`, and forget its records.",
        |a| Ok(Question::TraceStop(a.traced()?)),
        lines::trace_stopped,
    ),
    row(
        "trace show",
        &["kind", "what"],
        "Tell what has happened, at every node, the oldest first: what was received, delivered, queued or dropped and why.",
        |a| Ok(Question::TraceShow(a.traced()?)),
        lines::records,
    )
    .differs("not in EMQ X"),
    not_yet("rules list", "Rules."),
    not_yet("rules show", "Rules."),
    not_yet("rules create", "Rules."),
    not_yet("rules delete", "Rules."),
    row("users list", &[], "List users that were added while it runs.", |a| a.accounts(Username), lines::accounts),
    row(
        "users add",
        &["name", "password"],
        "Add a user. PASSWORD `-` is read from the terminal or standard input, where nobody else sees it.",
        |a| a.add_account(Username, Question::AddAccount),
        lines::ok,
    ),
    row(
        "users update",
        &["name", "password"],
        "Give a user another password.",
        |a| a.add_account(Username, Question::UpdateAccount),
        lines::ok,
    ),
    row(
        "users del",
        &["name"],
        "Delete a user, and end its connections.",
        |a| Ok(Question::DeleteAccount(Username, a.text("name")?.into())),
        lines::ok,
    )
    .differs("its connections end"),
    row(
        "clientid list",
        &[],
        "List client identifiers with passwords that were added while it runs.",
        |a| a.accounts(ClientId),
        lines::accounts,
    ),
    row(
        "clientid add",
        &["name", "password"],
        "Add a client identifier with its password; `-` as for users.",
        |a| a.add_account(ClientId, Question::AddAccount),
        lines::ok,
    ),
    row(
        "clientid update",
        &["name", "password"],
        "Give a client identifier another password.",
        |a| a.add_account(ClientId, Question::UpdateAccount),
        lines::ok,
    ),
    row(
        "clientid del",
        &["name"],
        "Delete the password of a client identifier, and end its connection.",
        |a| Ok(Question::DeleteAccount(ClientId, a.text("name")?.into())),
        lines::ok,
    )
    .differs("its connection ends"),
    row("banned list", &[], "List who is banned.", |a| Ok(Question::Bans(a.part()?)), lines::bans)
        .differs("not in EMQ X, but in its HTTP API"),
    row(
        "banned add",
        &["as", "who", "time", "reason"],
        "Ban WHO. AS is client_id, username or ip_address (or a network); TIME is as in `30m`, or `none` for ever.",
        |a| {
            let reason = a.text("reason")?;
            check_ban_text(reason)?;
            let time = a.text("time")?;
            let until = ban_end(time)
                .ok_or_else(|| Fault::new(Fault::TYPE, "time must be none, or as in 30m, at most 3650d"))?;
            Ok(Question::Ban { who: a.who()?, reason: reason.into(), by: None, until })
        },
        lines::ok,
    )
    .differs("not in EMQ X, but in its HTTP API"),
    row("banned del", &["as", "who"], "Ban WHO no more.", |a| Ok(Question::Unban(a.who()?)), lines::ok)
        .differs("not in EMQ X, but in its HTTP API"),
    row(
        "audit",
        &[],
        "Tell what operators have changed at this node, the latest first.",
        |_| Ok(Question::Audit(Part::page(1, AUDIT_LINES))),
        lines::audit,
    )
    .differs("not in EMQ X; of this node"),
    not_yet("vm", "The Erlang virtual machine: there is none."),
    not_yet("mnesia", "The database of EMQ X: there is none."),
];

/// The alarms of every node.
fn of_all(alarms: Question) -> Question {
    Question::Each("alarms", Box::new(alarms))
}

const NOT_COUNTED: &str = "without mqueue_dropped, deliver_msg and enqueue_msg, which are counted for the node";

impl Given<'_> {
    fn all(&self) -> Part {
        Part::page(1, usize::MAX)
    }
}

/// Longest password of a user that is added while it runs, in bytes.
const PASSWORD_BYTES_MAX: usize = 4096;
/// Longest ban that has an end.
const BAN_SECONDS_MAX: u64 = 3650 * 86_400;
/// How much is told of what operators have done.
const AUDIT_LINES: usize = 100;
/// How many are told at a time.
const STEP: usize = 1000;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_command_is_there_once_and_asks_with_its_arguments() {
        for (at, row) in ROWS.iter().enumerate() {
            assert!(!ROWS[..at].iter().any(|other| other.path == row.path), "{} is there twice", row.path);
            assert!(row.about.ends_with('.') && row.path.split(' ').count() <= 2, "{}", row.path);
            let Does::Asks(ask, _) = &row.does else { continue };
            let arguments = json!({ "client": "c", "topic": "t/+", "qos": "1", "app_id": "a", "name": "n", "status": "true", "what": "w", "kind": "client", "proto": "tcp", "port": "1883", "level": "info",
                "password": "p", "as": "client_id", "who": "c", "time": "1h", "reason": "r" });
            assert!(ask(&Given(&arguments)).is_ok(), "{}", row.path);
            assert_eq!(ask(&Given(&json!({}))).is_err(), !row.arguments.is_empty(), "{}", row.path);
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_code() {
        for (path, arguments, code) in [
            ("subscriptions add", json!({ "client": "c", "topic": "a/#/b", "qos": "1" }), Fault::TOPIC),
            ("subscriptions add", json!({ "client": "c", "topic": "a", "qos": "3" }), Fault::TYPE),
            ("clients list", json!({ "cursor": "x" }), Fault::TYPE),
            ("log set-level", json!({ "level": "loud" }), Fault::TYPE),
            ("clients kick", json!({ "client": "" }), Fault::MISSING),
            ("trace start", json!({ "kind": "user", "what": "a" }), Fault::TYPE),
            ("trace start", json!({ "kind": "topic", "what": "a/#/b" }), Fault::TYPE),
        ] {
            let Does::Asks(ask, _) = find(path).unwrap().does else { panic!() };
            assert_eq!(ask(&Given(&arguments)).unwrap_err().code, code, "{path}");
        }
    }
}
