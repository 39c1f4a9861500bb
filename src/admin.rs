//! What an operator asks of this node while it runs. `newtmq ctl` and the HTTP API ask the same questions and get the same
//! values; they only show them differently. Shards answer a bounded page at a time and never wait for anybody; nothing here
//! is locked by them.

mod access;
mod apps;
mod audit;
#[cfg(not(madsim))]
mod clustered;
mod commands;
mod configured;
mod devices;
mod gather;
mod lines;
mod others;
mod question;
mod show;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};

use newtmq_node::{ClusterAnswer, ClusterCommand, ClusterStatus};
use tokio::sync::{mpsc, oneshot};

#[cfg(not(madsim))]
pub(crate) use apps::write_whole;
pub use apps::{App, Apps, AppsError};
pub use audit::By;
pub use commands::{Does, Given, ROWS, Row, ban_who, check_ban_text, check_password, find};
pub use question::{Answer, Cursor, Fault, Part, Publication, Question};

use audit::Audit;

use crate::access::Records;
use crate::alarms::Board;
use crate::cluster::driver::Event;
use crate::config::Config;
use crate::driver::Office;
use crate::logging::LevelSwitch;
use crate::net::intake::Intake;
use crate::reload::{self, Asked, Holds};
use crate::rt::{Clock, Stream};
use crate::sn;

/// Who answers operators. Clones are the same one.
#[derive(Clone)]
pub struct Admin(Arc<Inner>);

struct Inner {
    office: Office<Stream>,
    events: mpsc::Sender<Event>,
    reloads: mpsc::Sender<Asked>,
    facts: Facts,
    apps: Apps,
    records: Records,
    audit: Audit,
    listening: OnceLock<Vec<(SocketAddr, Arc<Intake>)>>,
    gateways: OnceLock<Vec<(String, sn::Board)>>,
    level: OnceLock<LevelSwitch>,
    holds: OnceLock<Holds>,
    alarms: Board,
    /// Questions to other nodes, by number.
    waiting: Mutex<BTreeMap<u64, oneshot::Sender<serde_json::Value>>>,
    last_asked: AtomicU64,
    /// Where answers are made, so that the control plane does not wait for them.
    #[cfg(not(madsim))]
    aside: tokio::runtime::Handle,
}

/// What does not change while the node runs.
#[derive(Debug)]
pub struct Facts {
    /// The node's name.
    pub node: String,
    /// What it was started with.
    pub config: Config,
    /// Its clock.
    pub clock: Clock,
    /// What that showed at the start.
    pub started: newtmq_base::Instant,
    /// The data directory.
    pub data: Option<PathBuf>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("node", &self.0.facts.node).finish_non_exhaustive()
    }
}

impl Admin {
    /// For a node whose shards are reached by `office`, and whose control plane hears of `events`. Inside the runtime where
    /// answers are to be made.
    ///
    /// # Errors
    /// What is stored of applications cannot be read.
    pub fn new(
        office: Office<Stream>,
        events: mpsc::Sender<Event>,
        reloads: mpsc::Sender<Asked>,
        facts: Facts,
        records: Records,
    ) -> anyhow::Result<Admin> {
        let apps = Apps::open(&facts.config.api, facts.data.as_deref())?;
        let audit = Audit::open(facts.data.as_deref());
        Ok(Admin(Arc::new(Inner {
            office,
            events,
            reloads,
            facts,
            apps,
            records,
            audit,
            listening: OnceLock::new(),
            gateways: OnceLock::new(),
            level: OnceLock::new(),
            holds: OnceLock::new(),
            alarms: Board::default(),
            waiting: Mutex::default(),
            last_asked: AtomicU64::new(1),
            #[cfg(not(madsim))]
            aside: tokio::runtime::Handle::current(),
        })))
    }

    /// The listeners are open.
    pub fn listens(&self, listening: Vec<(SocketAddr, Arc<Intake>)>) {
        let _ = self.0.listening.set(listening);
    }

    /// The gateways for MQTT-SN run.
    pub fn has_gateways(&self, gateways: Vec<(String, sn::Board)>) {
        let _ = self.0.gateways.set(gateways);
    }

    /// The level of the log can be set.
    pub fn sets_level(&self, level: LevelSwitch) {
        let _ = self.0.level.set(level);
    }

    /// What is configured can be told.
    pub fn configured(&self, holds: Holds) {
        let _ = self.0.holds.set(holds);
    }

    /// Listeners with WebSocket: scheme, port and path.
    #[must_use]
    pub fn websockets(&self) -> Vec<(&'static str, u16, String)> {
        let all = self.0.listening.get().map(Vec::as_slice).unwrap_or_default();
        let of = all.iter().filter(|(_, intake)| intake.listener().transport.has_websocket());
        of.map(|(at, of)| (of.listener().transport.scheme(), at.port(), of.listener().mqtt_path.clone())).collect()
    }

    /// What is wrong with this node.
    #[must_use]
    pub fn alarms(&self) -> &Board {
        &self.0.alarms
    }

    /// Does something where answers are made; none while that stops.
    #[cfg(not(madsim))]
    pub async fn aside<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
        self.0.aside.spawn(work).await.ok()
    }

    /// Does what somebody asks for, and writes down who has changed what.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn answer_for(&self, by: &By, question: Question) -> Result<Answer, Fault> {
        let Some((action, what)) = audit::of(&question) else { return self.answer(question).await };
        let question = question.said_by(by);
        let answered = self.answer(question).await;
        self.wrote(by, action, &what, answered.as_ref().map(drop).map_err(|fault| fault.message.as_str()));
        answered
    }

    /// The same of something that is done elsewhere.
    pub fn wrote(&self, by: &By, action: &str, what: &str, outcome: Result<(), &str>) {
        self.0.audit.write(by, action, what, outcome);
    }

    /// Who may use the HTTP API.
    #[must_use]
    pub fn apps(&self) -> &Apps {
        &self.0.apps
    }

    /// What does not change.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.0.facts
    }

    /// How the cluster is, as this node sees it; none of a node alone.
    pub(crate) async fn cluster(&self) -> Option<ClusterStatus> {
        let (answer, answered) = oneshot::channel();
        self.0.events.send(Event::Command { command: ClusterCommand::Status, answer }).await.ok()?;
        match answered.await.ok()? {
            ClusterAnswer::Status(status) => Some(*status),
            ClusterAnswer::Done | ClusterAnswer::Refused(_) | ClusterAnswer::Examined(_) => None,
        }
    }

    async fn reload(&self) -> Result<reload::Report, Fault> {
        let (asked, answered) = oneshot::channel();
        self.0.reloads.send(asked).await.map_err(|_| Fault::stopping())?;
        answered.await.map_err(|_| Fault::stopping())
    }
}
