//! All of a demo together: nodes, the ways between them, clients, and how things are. It does what it is told and says what
//! has changed; how that is shown is not its affair.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::ledger::Lost;
use super::load::Load;
use super::node::{Node, Process, Spec};
use super::relay::{Free, Relays};
use super::script::{Action, Way};
use super::sight::{self, Look, Sight};

/// Something to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Something was done.
    Did(Action),
    /// A process has ended by itself.
    Ended {
        /// Which.
        node: usize,
        /// How.
        how: String,
    },
    /// A node sees another leader, or none.
    Leader {
        /// Which.
        node: usize,
        /// Who leads.
        leader: Option<usize>,
    },
    /// A node sees another one in another way.
    Sees {
        /// Which.
        node: usize,
        /// The other one.
        peer: usize,
        /// In words.
        what: &'static str,
    },
    /// Every node sees every other one, routes are equal, and messages go from everywhere to everywhere.
    Healed {
        /// Since the first fault; none if there was none.
        after_fault: Option<Duration>,
        /// Since the last time that something was done.
        after_repair: Duration,
    },
    /// A message that was owed did not come.
    Lost(Lost),
}

/// A demo that runs. Nothing of it is left when it is dropped.
#[derive(Debug)]
pub struct Stage {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The ways between them.
    pub relays: Relays,
    /// The clients.
    pub load: Load,
    /// By node: how it sees the cluster, as it said last.
    pub sights: Vec<Option<Sight>>,
    /// Since when there has been a fault, until all is well.
    pub fault: Option<Instant>,
    /// When something was done last.
    pub touched: Instant,
    /// All is well.
    pub is_healed: bool,
    /// A process has ended that nobody had told to.
    pub is_broken: bool,
    begun: Vec<Option<Instant>>,
    /// By node: it starts when it has ended, perhaps at another address.
    starting: Vec<Option<bool>>,
    asking: Vec<Arc<AtomicBool>>,
    looks: Receiver<Look>,
    /// Goes after the processes that write there.
    folder: Folder,
}

/// A folder that is gone when it is dropped, unless it is to be kept.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

impl Stage {
    /// Starts so many nodes, with so many publishers and subscribers each, that send so many messages a second. What is
    /// written is in `folder`, and kept, or in a folder for temporary files.
    ///
    /// # Errors
    /// The operating system's.
    pub fn start(nodes: usize, clients: usize, rate: u32, folder: Option<&Path>) -> anyhow::Result<Stage> {
        let keep = folder.is_some();
        let path = folder.map_or_else(own_folder, Path::to_owned);
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        let folder = Folder { path, keep };
        let program = std::env::current_exe().context("find this program")?;
        let cookie = cookie()?;
        let names: Vec<String> = (1..=nodes).map(|node| format!("node{node}@demo")).collect();
        let free = Free::new(2 * nodes).context("free ports")?;
        let mut places = free.addresses();
        let mqtt = places.split_off(nodes);
        let named: Vec<_> = names.iter().cloned().zip(places.iter().copied()).collect();
        let relays = Relays::new(&named).context("open relays")?;
        let seeds: Vec<_> = (0..nodes).map(|node| relays.address(node)).collect();
        let (told, looks) = mpsc::channel();
        let now = Instant::now();
        let mut stage = Stage {
            load: Load::new(&mqtt, clients, rate, now),
            nodes: Vec::new(),
            relays,
            sights: vec![None; nodes],
            fault: None,
            touched: now,
            is_healed: false,
            is_broken: false,
            begun: vec![None; nodes],
            starting: vec![None; nodes],
            asking: Vec::new(),
            looks,
            folder,
        };
        drop(free);
        for (at, name) in names.iter().enumerate() {
            let spec = Spec {
                program: program.clone(),
                name: name.clone(),
                data: stage.folder.path.join(format!("node{}", at + 1)),
                log: stage.folder.path.join(format!("node{}.log", at + 1)),
                listen: places[at],
                advertise: seeds[at],
                mqtt: mqtt[at],
                seeds: seeds.clone(),
                cookie: cookie.clone(),
                shards: 1,
                before: Vec::new(),
                sets: Vec::new(),
                filter: None,
            };
            let node = Node::start(spec).with_context(|| format!("start {}", program.display()))?;
            let on = Arc::new(AtomicBool::new(true));
            sight::watch(at, node.socket(), names.clone(), Arc::clone(&on), told.clone());
            stage.asking.push(on);
            stage.nodes.push(node);
            stage.load.ledger.runs(at, true, now);
        }
        Ok(stage)
    }

    /// Does something.
    ///
    /// # Errors
    /// A node cannot be started again.
    pub fn act(&mut self, action: Action, news: &mut Vec<News>) -> io::Result<()> {
        news.push(News::Did(action));
        match action {
            Action::Cut(way) => self.set_cut(way, true),
            Action::Heal => {
                (0..self.nodes.len()).for_each(|node| self.set_cut(Way::Around(node), false));
                for (node, starting) in self.nodes.iter_mut().zip(&mut self.starting) {
                    node.go_on();
                    if node.process() != Process::Running {
                        *starting = starting.or(Some(false));
                    }
                }
            }
            Action::Pause(node) => self.nodes[node].pause(),
            Action::Continue(node) => self.nodes[node].go_on(),
            Action::Kill(node) => {
                self.nodes[node].kill();
                self.gone(node);
            }
            Action::Stop(node) => self.nodes[node].stop(),
            Action::Restart(node) => {
                self.nodes[node].stop();
                self.starting[node] = Some(false);
            }
            Action::Move(node) => {
                self.nodes[node].stop();
                self.starting[node] = Some(true);
            }
        }
        if let Action::Stop(node) | Action::Kill(node) = action {
            self.starting[node] = None;
        }
        self.start_those_that_have_ended()?;
        self.note_change(Instant::now());
        Ok(())
    }

    fn gone(&mut self, node: usize) {
        self.sights[node] = None;
        self.load.ledger.gone(node);
    }

    /// Something is other than it was.
    fn note_change(&mut self, now: Instant) {
        for (at, node) in self.nodes.iter().enumerate() {
            let runs = node.process() == Process::Running;
            self.asking[at].store(runs, Ordering::SeqCst);
            self.load.ledger.runs(at, runs, now);
        }
        self.touched = now;
        self.fault = self.fault.or(Some(now));
        self.is_healed = false;
    }

    fn start_those_that_have_ended(&mut self) -> io::Result<()> {
        for node in 0..self.nodes.len() {
            if self.nodes[node].process() != Process::Gone {
                continue;
            }
            let Some(elsewhere) = self.starting[node].take() else { continue };
            if elsewhere {
                let free = Free::new(1)?;
                let listen = free.addresses()[0];
                self.relays.move_to(node, listen)?;
                (self.nodes[node].spec.listen, self.nodes[node].spec.advertise) = (listen, self.relays.address(node));
            }
            self.nodes[node].start_again()?;
        }
        Ok(())
    }

    fn set_cut(&self, way: Way, cut: bool) {
        for (from, to) in way.each(self.nodes.len()) {
            self.relays.set_cut(from, to, cut);
        }
    }

    /// Whether a node is cut off from every other one, both ways.
    pub fn is_alone(&self, node: usize) -> bool {
        self.nodes.len() > 1
            && Way::Around(node).each(self.nodes.len()).iter().all(|(from, to)| self.relays.is_cut(*from, *to))
    }

    /// Every process runs and nothing is cut.
    pub fn is_repaired(&self) -> bool {
        let count = self.nodes.len();
        let whole = || {
            (0..count).all(|node| Way::From(node).each(count).iter().all(|(from, to)| !self.relays.is_cut(*from, *to)))
        };
        self.nodes.iter().all(|node| node.process() == Process::Running) && whole()
    }

    /// Does what there is to do, and tells what has changed.
    pub fn turn(&mut self, now: Instant, news: &mut Vec<News>) {
        while let Ok(look) = self.looks.try_recv() {
            self.looked(look, news);
        }
        let nodes = &self.nodes;
        self.load.turn(now, |node| nodes[node].process() == Process::Running);
    }

    /// What need not be done each time.
    ///
    /// # Errors
    /// A node cannot be started again.
    pub fn review(&mut self, now: Instant, news: &mut Vec<News>) -> io::Result<()> {
        for node in 0..self.nodes.len() {
            let told = self.nodes[node].process() == Process::Ending;
            if let Some(status) = self.nodes[node].ended() {
                self.is_broken |= !told;
                news.push(News::Ended { node, how: status.to_string() });
                self.gone(node);
                self.start_those_that_have_ended()?;
                self.note_change(now);
            }
        }
        self.load.ledger.settle(now);
        news.extend(self.load.ledger.take_lost().into_iter().map(News::Lost));
        if !self.is_healed && self.is_well() {
            self.is_healed = true;
            let after_repair = now.saturating_duration_since(self.touched);
            let after_fault = self.fault.take().map(|fault| now.saturating_duration_since(fault));
            news.push(News::Healed { after_fault, after_repair });
        }
        Ok(())
    }

    fn is_well(&self) -> bool {
        let fresh = self.begun.iter().all(|begun| begun.is_some_and(|begun| begun > self.touched));
        let whole = || self.sights.iter().all(|sight| sight.as_ref().is_some_and(Sight::is_whole));
        let same = |what: &dyn Fn(&Sight) -> u64| {
            let mut all = self.sights.iter().flatten().map(what);
            let first = all.next();
            all.all(|other| Some(other) == first)
        };
        let leader = || same(&|sight| sight.leader.map_or(u64::MAX, |leader| leader as u64));
        let entries = || (0..self.nodes.len()).all(|of| same(&|sight| sight.peers[of].entries));
        fresh && self.is_repaired() && whole() && leader() && entries() && self.load.flows_since(self.touched)
    }

    fn looked(&mut self, look: Look, news: &mut Vec<News>) {
        self.load.ledger.looked(&look);
        let Look { node, begun, sight, .. } = look;
        let Some(sight) = sight else {
            self.sights[node] = None;
            return;
        };
        self.begun[node] = Some(begun);
        let before = self.sights[node]
            .take()
            .unwrap_or_else(|| Sight { peers: vec![Default::default(); self.nodes.len()], ..Sight::default() });
        if before.leader != sight.leader {
            news.push(News::Leader { node, leader: sight.leader });
        }
        for (peer, (was, is)) in before.peers.iter().zip(&sight.peers).enumerate() {
            let what = word(is);
            if peer != node && word(was) != what {
                news.push(News::Sees { node, peer, what });
            }
        }
        self.sights[node] = Some(sight);
    }

    /// The last lines of a node's log.
    pub fn log_of(&self, node: usize, lines: usize) -> String {
        let text = fs::read_to_string(&self.nodes[node].spec.log).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Where everything is written.
    pub fn folder(&self) -> &Path {
        &self.folder.path
    }
}

/// How a node sees another one, in a word.
pub fn word(peer: &sight::Peer) -> &'static str {
    match (peer.is_member, peer.is_up, peer.routes.as_str()) {
        (false, ..) => "unknown",
        (true, true, "open") if peer.is_relayed => "relayed",
        (true, true, "open") => "open",
        (true, true, "syncing") => "syncing",
        (true, false, "masked") => "down",
        (true, false, _) => "silent",
        (true, true, _) => "masked",
    }
}

fn own_folder() -> PathBuf {
    std::env::temp_dir().join(format!("newtmq-demo-{}", std::process::id()))
}

fn cookie() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).context("random bytes from the operating system")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
