//! The parts of a node's cluster, joined: what comes out of one goes into the others. Swim says who answers and where, links
//! say who is reached, the meta group says who is a member; the logs of routes and the shards hear of members that are
//! reached. It decides nothing that a part decides, and knows no route and no session.

use std::collections::{BTreeMap, BTreeSet};

use newtmq_base::{HashSeed, Incarnation, Instant, InvalidField, NodeId, RequestId, Rng, SEED_BYTES, ShardId, planted};
use newtmq_cluster::directory::{self, Directory};
use newtmq_cluster::link::{self, Address, ConnectionId, DownCause, Fill, Links, Own};
use newtmq_cluster::meta::{self, Meta};
use newtmq_cluster::owned::{self, Batch, DigestKey, Mode, Op, Owned};
use newtmq_cluster::retained;
use newtmq_cluster::swim::{self, Swim};

use super::claims::Told;
use super::desk::Desk;
use super::disk::Disk;
use super::doctor::Doctor;
use super::peers::Peer;
use super::readiness::Readiness;
use super::shelf::Shelf;
use super::streams::{self, BulkIn, BulkOut};
use super::wills::Wills;
use super::{ClusterBoot, ClusterConfig, ClusterEvent, ClusterInput, ClusterOutput, Found};
use crate::control::{ControlOutput, FromControl};

/// Durable entries of other nodes, as operations in order.
type Tables = BTreeMap<NodeId, Vec<Op>>;

/// What was dropped between the parts, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClusterCounts {
    /// Messages and frames of nodes that are no members, for which they have to be.
    pub foreign: u64,
    /// Messages and frames that are none.
    pub malformed: u64,
    /// Messages that a link did not take. Their parts say them again.
    pub unsent: u64,
    /// Parcels of lanes that a link did not take. Lanes find out.
    pub lanes_unsent: u64,
    /// Large messages for which there was no place.
    pub bulk_unsent: u64,
}

/// A node's part in its cluster.
#[derive(Debug)]
pub struct Cluster {
    pub(super) config: ClusterConfig,
    pub(super) node: NodeId,
    pub(super) incarnation: Incarnation,
    pub(super) name: String,
    /// Where others reach this node.
    pub(super) address: core::net::SocketAddr,
    pub(super) shards: u16,
    pub(super) rng: Rng,
    pub(super) links: Links,
    pub(super) swim: Swim,
    pub(super) meta: Meta,
    pub(super) directory: Directory,
    pub(super) shelf: Shelf,
    pub(super) told: Told,
    pub(super) wills: Wills,
    /// Divides clients among the shards.
    pub(super) node_seed: HashSeed,
    pub(super) link_out: Vec<link::Output>,
    pub(super) swim_out: Vec<swim::Output>,
    pub(super) meta_out: Vec<meta::Output>,
    pub(super) directory_out: Vec<directory::Output>,
    /// Other members.
    pub(super) members: BTreeMap<NodeId, Peer>,
    /// Were members; their routes are on their way out of the shards.
    pub(super) leaving: BTreeSet<NodeId>,
    /// Whose links are Up, members or not.
    pub(super) reached: BTreeMap<NodeId, Incarnation>,
    pub(super) evicted: BTreeSet<NodeId>,
    /// In no cluster, and does not come back by itself.
    pub(super) gone: bool,
    pub(super) readiness: Readiness,
    pub(super) found: Option<Found>,
    /// What the meta group was told of the seeds.
    pub(super) seeds: Option<(usize, bool, BTreeSet<NodeId>)>,
    /// Something has happened since that may change it.
    pub(super) seeds_stale: bool,
    pub(super) dialed: BTreeSet<Address>,
    pub(super) called: BTreeSet<core::net::SocketAddr>,
    /// It has left, and there is nobody that it looks for.
    pub(super) swim_left: bool,
    pub(super) disk: Disk,
    pub(super) desk: Desk,
    pub(super) doctor: Doctor,
    pub(super) bulk_out: BTreeMap<NodeId, BulkOut>,
    pub(super) bulk_in: BTreeMap<NodeId, BulkIn>,
    pub(super) bulk_numbers: u64,
    pub(super) counts: ClusterCounts,
    begun: bool,
    /// It has said goodbye, and meets nobody any more.
    pub(super) stopped: bool,
}

/// What a step may touch beside the cluster.
pub(crate) struct Cx<'a> {
    pub(crate) now: Instant,
    pub(crate) owned: &'a mut Owned,
    /// What the logs give; the control plane works it off.
    pub(crate) given: &'a mut Vec<owned::Output>,
    pub(crate) out: &'a mut Vec<ControlOutput>,
}

impl Cx<'_> {
    pub(super) fn ask(&mut self, output: ClusterOutput) {
        self.out.push(ControlOutput::Cluster(output));
    }

    pub(super) fn event(&mut self, event: ClusterEvent) {
        self.ask(ClusterOutput::Event(event));
    }

    pub(super) fn tell(&mut self, shards: u16, message: &FromControl) {
        self.out.extend((0..shards).map(|to| ControlOutput::Shard { to: ShardId(to), message: message.clone() }));
    }
}

impl Cluster {
    /// With what was stored; the tables of others are given back, for the logs.
    ///
    /// # Errors
    /// What was stored is not this node's, or cannot be.
    pub(crate) fn new(
        boot: ClusterBoot,
        now: Instant,
        shards: u16,
        node_seed: u64,
    ) -> Result<(Cluster, Tables), InvalidField> {
        let ClusterBoot { config, node, birth, incarnation, name, address, seed, stored } = boot;
        let (disk, tables, shelved) = Disk::read(node, config.owned.stored, &stored)?;
        let mut rng = Rng::from_seed(seed);
        let own = Own {
            cluster: config.name.clone(),
            node,
            incarnation,
            name: name.clone(),
            proto_min: *config.release.protocols.start(),
            proto_max: *config.release.protocols.end(),
            features: 0,
            shards,
        };
        let links = Links::new(config.links.clone(), own, config.cookie.clone(), fork(&mut rng));
        let me = meta::Member {
            node,
            birth,
            inc: incarnation,
            name: name.clone(),
            address: address.to_string(),
            witness: config.witness,
            feature_max: config.release.features,
            joined: 0,
        };
        let meta = Meta::new(config.meta.clone(), me, disk.meta(), fork(&mut rng), now)?;
        let swim = Swim::new(swim_config(&config), node, incarnation, address, fork(&mut rng), now);
        let limits = (&config.meta, config.max_retained);
        let shelf = Shelf::new(limits, (node, incarnation, config.witness), shelved, fork(&mut rng), now)?;
        let cluster = Cluster {
            shelf,
            desk: Desk::new(incarnation),
            doctor: Doctor::default(),
            directory: Directory::new(config.directory.clone(), now, node, incarnation),
            told: Told::default(),
            wills: Wills::default(),
            node_seed: HashSeed::new(node_seed),
            config,
            node,
            incarnation,
            name,
            address,
            shards,
            rng,
            links,
            swim,
            meta,
            link_out: Vec::new(),
            swim_out: Vec::new(),
            meta_out: Vec::new(),
            directory_out: Vec::new(),
            members: BTreeMap::new(),
            leaving: BTreeSet::new(),
            reached: BTreeMap::new(),
            evicted: BTreeSet::new(),
            gone: false,
            readiness: Readiness::default(),
            found: None,
            seeds: None,
            seeds_stale: true,
            dialed: BTreeSet::new(),
            called: BTreeSet::new(),
            swim_left: false,
            disk,
            bulk_out: BTreeMap::new(),
            bulk_in: BTreeMap::new(),
            bulk_numbers: 0,
            counts: ClusterCounts::default(),
            begun: false,
            stopped: false,
        };
        Ok((cluster, tables))
    }

    /// All links.
    #[must_use]
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Who answers.
    #[must_use]
    pub fn swim(&self) -> &Swim {
        &self.swim
    }

    /// Who is a member.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The other members, as far as this node follows them: whose routes are matched.
    pub fn members(&self) -> impl Iterator<Item = NodeId> {
        self.members.keys().copied()
    }

    /// Whose frames come, members or not.
    pub fn reached(&self) -> impl Iterator<Item = (NodeId, Incarnation)> {
        self.reached.iter().map(|(node, inc)| (*node, *inc))
    }

    /// What was dropped.
    #[must_use]
    pub fn counts(&self) -> ClusterCounts {
        self.counts
    }

    pub(crate) fn mode(&self) -> Mode {
        if self.config.strict { Mode::Strict } else { Mode::Fast }
    }

    pub(crate) fn is_strict(&self) -> bool {
        self.config.strict
    }

    pub(crate) fn next_deadline(&self) -> Instant {
        if !self.begun {
            return Instant::START;
        }
        let parts = [self.links.next_deadline(), self.swim.next_deadline(), self.meta.next_deadline()];
        let parts = [parts[0], parts[1], parts[2], self.shelf.part.next_deadline()];
        let own = self.desk.next_deadline().min(self.doctor.next_deadline()).min(self.directory.next_deadline());
        let own = own.min(self.wills_deadline());
        parts.into_iter().flatten().fold(own, Instant::min)
    }

    pub(crate) fn fill(&mut self, now: Instant, conn: ConnectionId, buffer: &mut Vec<u8>, room: usize) -> Fill {
        self.links.fill(now, conn, buffer, room)
    }

    /// What a start has to do before anything else.
    fn begin(&mut self, cx: &mut Cx<'_>) {
        if core::mem::replace(&mut self.begun, true) {
            return;
        }
        if self.config.witness {
            cx.tell(self.shards, &FromControl::Drain(true));
        }
        for node in self.disk.stale() {
            let store = self.disk.forget(node);
            cx.store(store);
        }
        self.begin_retained(cx);
        // The state before the entries that Raft has to say again.
        self.follow_members(cx);
        if self.meta.cluster().is_none() && !self.config.discovers && !self.config.witness {
            self.found_alone(cx.now);
        }
    }

    pub(super) fn found_alone(&mut self, now: Instant) {
        let request = self.desk.request(super::desk::Purpose::Init);
        let name = self.config.name.clone();
        self.meta.handle(now, meta::Input::Init { request, name }, &mut self.meta_out);
    }

    pub(crate) fn tick(&mut self, cx: &mut Cx<'_>) {
        self.begin(cx);
        let now = cx.now;
        let is_due = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        if is_due(self.links.next_deadline()) {
            self.links.handle(now, link::Input::Tick, &mut self.link_out);
            // A leader lets go of nobody by whom it reached before that: all is due at once when it was paused.
            if !planted!(DecidesBeforeItHears) {
                for output in core::mem::take(&mut self.link_out) {
                    self.on_link(cx, output);
                }
            }
        }
        if is_due(self.swim.next_deadline()) {
            self.swim.tick(now, &mut self.swim_out);
        }
        if is_due(self.meta.next_deadline()) {
            self.meta.handle(now, meta::Input::Tick, &mut self.meta_out);
        }
        self.tick_retained(cx);
        self.tick_wills(cx);
        if self.directory.next_deadline() <= now {
            self.directory.handle(now, directory::Input::Tick, &mut self.directory_out);
        }
        if self.desk.next_deadline() <= now {
            self.desk_overdue(cx);
        }
        if self.doctor.next_deadline() <= now {
            self.look_at_exam(cx);
        }
    }

    pub(crate) fn handle(&mut self, cx: &mut Cx<'_>, input: ClusterInput<'_>) {
        self.begin(cx);
        match input {
            ClusterInput::Link(link::Input::Opened { conn, .. }) if self.stopped => cx.ask(ClusterOutput::Close(conn)),
            ClusterInput::Link(input) => self.links.handle(cx.now, input, &mut self.link_out),
            ClusterInput::Packet { from, data } => self.swim.packet(cx.now, from, data, &mut self.swim_out),
            ClusterInput::Discovered { addresses, here } => {
                self.found = Some(Found { addresses, here });
                self.seeds_stale = true;
                self.follow_addresses(cx.now);
            }
            ClusterInput::Stored { upto } => {
                let stored = self.disk.stored(upto);
                if let Some(number) = stored.meta {
                    self.meta.handle(cx.now, meta::Input::Persisted { number }, &mut self.meta_out);
                }
                if let Some((turn, number)) = stored.retained
                    && turn == self.shelf.turn
                {
                    let input = retained::Input::Persisted { number };
                    self.shelf.part.handle(cx.now, input, &mut self.shelf.out);
                }
                if let Some(seq) = stored.batch {
                    cx.owned.stored(cx.now, seq, cx.given);
                }
            }
            ClusterInput::Stop => self.stop(cx.now),
            ClusterInput::Command { request, command } => self.command(cx, request, command),
            ClusterInput::Operator { to, bytes } => self.say_operator(cx.now, to, bytes),
        }
    }

    /// What the parts have to say to each other, until they have said it.
    pub(crate) fn work(&mut self, cx: &mut Cx<'_>) {
        loop {
            for output in core::mem::take(&mut self.link_out) {
                self.on_link(cx, output);
            }
            for output in core::mem::take(&mut self.swim_out) {
                self.on_swim(cx, output);
            }
            for output in core::mem::take(&mut self.meta_out) {
                self.on_meta(cx, output);
            }
            for output in core::mem::take(&mut self.shelf.out) {
                self.on_retained_output(cx, output);
            }
            self.compact(cx);
            self.tell_directory(cx);
            for output in core::mem::take(&mut self.directory_out) {
                self.on_directory(cx, output);
            }
            if self.is_silent() {
                self.settle_wills(cx);
                self.look_at_readiness();
                self.look_at_retained(cx);
                self.tell_seeds(cx.now);
                self.pump(cx.now);
            }
            if self.is_silent() {
                // What the logs give goes to the disk before what it means.
                if cx.given.is_empty() {
                    self.look(cx);
                }
                return;
            }
        }
    }

    fn is_silent(&self) -> bool {
        let parts = self.link_out.is_empty() && self.swim_out.is_empty() && self.meta_out.is_empty();
        parts && self.directory_out.is_empty() && self.shelf.out.is_empty()
    }

    /// The batches up to this one are of tables that were on the disk.
    pub(crate) fn restored(&mut self, upto: u64) {
        self.disk.restored(upto);
    }

    fn on_link(&mut self, cx: &mut Cx<'_>, output: link::Output) {
        self.seeds_stale |= !matches!(output, link::Output::Frame { .. });
        match output {
            link::Output::Dial { .. } if self.stopped => {}
            link::Output::Dial { dial, address } => cx.ask(ClusterOutput::Dial { dial, address }),
            link::Output::Ready(conn) => cx.ask(ClusterOutput::Ready(conn)),
            link::Output::Close(conn, _) => cx.ask(ClusterOutput::Close(conn)),
            link::Output::Frame { peer, stream, payload } => self.on_frame(cx, peer, stream, payload),
            link::Output::Event(event) => {
                cx.event(ClusterEvent::Link(event.clone()));
                self.on_link_event(cx, event);
            }
        }
    }

    fn on_link_event(&mut self, cx: &mut Cx<'_>, event: link::Event) {
        match event {
            link::Event::Up { peer, incarnation } => {
                if planted!(ThreeViewsGiveUp, self.members.len() > 1 && self.reached.is_empty()) {
                    return;
                }
                if planted!(MinorityRestarts, self.members.contains_key(&peer) && self.meta.view().leader.is_none()) {
                    cx.tell(self.shards, &FromControl::Drain(true));
                    cx.tell(self.shards, &FromControl::Drain(false));
                }
                self.reached.insert(peer, incarnation);
                self.link_of_directory(cx, directory::Input::Up { node: peer, inc: incarnation });
                if self.members.contains_key(&peer) {
                    cx.owned.up(cx.now, peer, incarnation, cx.given);
                }
                self.meta.handle(cx.now, meta::Input::Up { node: peer }, &mut self.meta_out);
                self.tell_news(cx, peer);
                self.desk_look(cx);
            }
            link::Event::Down { peer, incarnation, cause } => {
                self.reached.remove(&peer);
                self.link_of_directory(cx, directory::Input::Down { node: peer });
                self.bulk_in.remove(&peer);
                self.bulk_out.remove(&peer);
                cx.owned.down(cx.now, peer, incarnation, cx.given);
                self.meta.handle(cx.now, meta::Input::Down { node: peer }, &mut self.meta_out);
                self.tell_news(cx, peer);
                if matches!(cause, DownCause::Silent | DownCause::Unheard) {
                    self.drop_stranger(cx.now, peer);
                }
            }
            link::Event::Reset { peer, .. } | link::Event::Broken { peer } => {
                self.bulk_out.remove(&peer);
                self.tell_again(cx, peer);
            }
            link::Event::Refused { address: Some(address), reason, .. } => self.desk_refused(cx, &address, reason),
            // Whom it has a link with already may be the one who is to be joined: only now is it known that it is at that address.
            link::Event::Connected { .. } if !planted!(JoinsOnceReached) => self.desk_look(cx),
            link::Event::Path { .. } | link::Event::Connected { .. } | link::Event::Refused { address: None, .. } => {}
        }
    }

    fn on_swim(&mut self, cx: &mut Cx<'_>, output: swim::Output) {
        self.seeds_stale |= !matches!(output, swim::Output::Send { .. });
        match output {
            swim::Output::Send { to, bytes } => cx.ask(ClusterOutput::Packet { to, bytes }),
            swim::Output::Up { node, inc, .. } => {
                cx.event(ClusterEvent::Alive { node, incarnation: inc, alive: true });
                self.links.know(cx.now, node, inc, &mut self.link_out);
                self.follow_addresses(cx.now);
                if !planted!(JoinsOnceReached) {
                    self.desk_look(cx);
                }
            }
            swim::Output::Down { node, inc } => {
                cx.event(ClusterEvent::Alive { node, incarnation: inc, alive: false });
                self.drop_stranger(cx.now, node);
                self.follow_addresses(cx.now);
            }
        }
    }

    fn on_meta(&mut self, cx: &mut Cx<'_>, output: meta::Output) {
        self.seeds_stale |= !matches!(output, meta::Output::Send { .. } | meta::Output::Persist(_));
        match output {
            meta::Output::Send { to, bytes, bulk } => self.say(cx.now, to, streams::tagged_meta(&bytes), bulk),
            meta::Output::Persist(persist) => {
                let store = self.disk.persist(&persist);
                cx.ask(store);
                self.compact(cx);
            }
            meta::Output::Answer { request, outcome } => self.answered(cx, request, outcome),
            meta::Output::Joined { cluster } => {
                self.gone = false;
                self.readiness.joined();
                cx.event(ClusterEvent::Joined(cluster));
                cx.event(ClusterEvent::Blobs);
                self.wills_anew(cx);
                self.follow_members(cx);
            }
            meta::Output::Abandoned { lost } => cx.event(ClusterEvent::Abandoned(lost)),
            meta::Output::Changed { .. } => self.follow_members(cx),
            meta::Output::Blob { kind: meta::BlobKind::Will, key, value } => self.on_will(cx, &key, value.as_deref()),
            meta::Output::Blob { kind, key, value } => cx.event(ClusterEvent::Blob { kind, key, value }),
            meta::Output::Blobs => {
                cx.event(ClusterEvent::Blobs);
                self.wills_anew(cx);
            }
            meta::Output::Removing { node, by } => cx.event(ClusterEvent::Removing { node, by }),
            meta::Output::Removed { node, by } => cx.event(ClusterEvent::Removed { node, by }),
            meta::Output::Leader { cluster, term, leader } => cx.event(ClusterEvent::Leader { cluster, term, leader }),
            meta::Output::Gone(gone) => {
                self.gone = true;
                self.readiness.gone(gone);
                cx.event(ClusterEvent::Gone(gone));
                self.follow_members(cx);
                if gone == meta::Gone::Left {
                    self.part(cx);
                }
            }
            meta::Output::Stopped(stopped) => cx.event(ClusterEvent::Stopped(stopped)),
        }
    }

    /// A batch has gone to the shards: what outlives a restart goes to the disk.
    pub(crate) fn batch(&mut self, cx: &mut Cx<'_>, batch: &Batch) {
        self.records_of(cx, batch);
        if !self.config.owned.stored {
            return;
        }
        let is_member = self.members.contains_key(&batch.node);
        let (store, stored) = self.disk.batch(batch, is_member);
        if store.is_some() {
            cx.store(store);
            self.compact(cx);
        }
        if let Some(seq) = stored {
            cx.owned.stored(cx.now, seq, cx.given);
        }
    }

    pub(super) fn compact(&mut self, cx: &mut Cx<'_>) {
        // What the group has given and is not written yet would come behind what stands for all of it.
        if self.disk.is_long() && self.shelf.out.is_empty() {
            let shelved = match self.shelf.seat {
                Some(seat) => match self.shelf.part.whole() {
                    Some(persist) => Some((seat, persist)),
                    None => return,
                },
                None => None,
            };
            let store = self.disk.whole(cx.owned, shelved);
            cx.ask(store);
        }
    }

    pub(super) fn answer(&mut self, cx: &mut Cx<'_>, request: RequestId, answer: super::ClusterAnswer) {
        cx.ask(ClusterOutput::Answer { request, answer });
    }

    /// Tells the others that this node goes, and knows nobody any more.
    fn part(&mut self, cx: &mut Cx<'_>) {
        self.swim.leave(cx.now, &mut self.swim_out);
        self.swim_left = true;
        self.called.clear();
        let nodes: Vec<NodeId> = self.links.peers().map(|peer| peer.node()).collect();
        for node in nodes {
            self.links.remove(cx.now, node, &mut self.link_out);
        }
        self.follow_addresses(cx.now);
        self.found_alone(cx.now);
    }

    /// Answers again, as one that nobody has met: packets that were on their way to it before it left are over.
    pub(super) fn come_back(&mut self, now: Instant) {
        if core::mem::take(&mut self.swim_left) {
            let (config, rng) = (swim_config(&self.config), fork(&mut self.rng));
            self.swim = Swim::new(config, self.node, self.incarnation, self.address, rng, now);
        }
    }
}

/// What the logs of the node are to be like.
pub(crate) fn owned_config(config: &ClusterConfig) -> owned::Config {
    let key = config.cookie.derived(&format!("newtmq digests {}", config.name));
    let half = |at: usize| u64::from_le_bytes(key[at..at + 8].try_into().expect("8 of 32 bytes"));
    owned::Config { strict: config.strict, digest_key: DigestKey([half(0), half(8)]), ..config.owned }
}

fn swim_config(config: &ClusterConfig) -> swim::Config {
    let key = config.cookie.derived(&format!("newtmq swim {}", config.name));
    swim::Config { key: key.to_vec(), ..config.swim.clone() }
}

/// Each part has chance of its own, so that one that takes more of it does not change another one's.
pub(super) fn fork(rng: &mut Rng) -> Rng {
    let mut seed = [0; SEED_BYTES];
    rng.fill(&mut seed);
    Rng::from_seed(seed)
}
