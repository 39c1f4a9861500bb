//! What must hold inside the broker: the account of messages, limits of queues, Packet Identifiers, routes, and that
//! nothing is left when nothing goes on. Looks into shards by their views alone, and changes nothing.

pub(crate) mod cluster;

use std::collections::{BTreeMap, BTreeSet};

use newtmq_base::{NodeId, ShardId};
use newtmq_cluster::lane::LanesIn;
use newtmq_node::{
    Control, Inconsistency, LANE_HIGH_BYTES, OUTPUT_MAX_BYTES, QuotaKind, Rule, SHARDS_MAX, ShardConfig, ShardView,
};
use newtmq_topic::{Holder, SubscriberId};

use crate::report::{Check, Obligations};
use crate::scenario::{Act, Action, Scenario};

/// A look into a shard is due after so many calls of it for each thing that the last look had to look at.
const CALLS_PER_COST: u64 = 4;
/// And after so many at least.
const CALLS_MIN: u64 = 64;
/// Bytes of a message beside topic and payload, at most.
const MESSAGE_EXTRA_BYTES: usize = 1024;
/// Acknowledgements that may be added to a full output: as many as one read of the driver asks for.
const OUTPUT_EXTRA_BYTES: usize = 4 << 20;

/// When a shard is looked into.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    calls: u64,
    due: u64,
}

impl Watch {
    /// Counts a call.
    #[inline]
    pub(crate) fn is_due(&mut self) -> bool {
        self.calls += 1;
        self.calls >= self.due
    }

    /// It was looked into, which took so much.
    pub(crate) fn looked(&mut self, cost: u64) {
        self.due = self.calls + cost * CALLS_PER_COST + CALLS_MIN;
    }
}

/// Limits of what waits in a shard beside sessions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// The largest message of the scenario, in bytes.
    message: usize,
    /// Bytes to another shard.
    lane: usize,
    /// Messages, and bytes of them, that are held of a lane from another node.
    window: (u32, u32),
    /// There are shared subscriptions.
    shared: bool,
    /// Messages that a publisher may send before it has to wait for acknowledgements, which a full lane withholds.
    unacknowledged: usize,
}

impl Bounds {
    pub(crate) fn of(scenario: &Scenario, config: &ShardConfig) -> Bounds {
        let of_step = |step: &crate::scenario::Step| match &step.action {
            Action::Client { act: Act::Publish(publish), .. } => publish.size as usize + publish.topic.len(),
            Action::Client { act: Act::PublishTorn { publish, .. }, .. } => publish.size as usize + publish.topic.len(),
            Action::Client { act: Act::Raw(bytes), .. } => bytes.len(),
            Action::Client { .. } | Action::World(_) => 0,
        };
        let wills = scenario.clients.iter().filter_map(|client| client.will.as_ref()).map(|will| will.topic.len());
        let largest = scenario.steps.iter().map(of_step).chain(wills).max().unwrap_or(0);
        let message = largest.min(config.mqtt.max_packet_size as usize) + MESSAGE_EXTRA_BYTES;
        let shared = |filter: &crate::scenario::FilterSpec| filter.filter.starts_with('$');
        let subscribes = |step: &crate::scenario::Step| match &step.action {
            Action::Client { act: Act::Subscribe { filters, .. }, .. } => filters.iter().any(shared),
            Action::Client { act: Act::Raw(_), .. } => true,
            Action::Client { .. } | Action::World(_) => false,
        };
        let unacknowledged = config.zones.iter().map(|zone| usize::from(zone.max_awaiting_rel)).max().unwrap_or(0);
        let shared = scenario.steps.iter().any(subscribes);
        let window = (config.lanes.window_messages, config.lanes.window_bytes);
        Bounds { message, lane: LANE_HIGH_BYTES, window, shared, unacknowledged }
    }

    /// A lane that is full takes the messages of each connection that it need not have acknowledged, and some more,
    /// published and retained, its will among them. What a
    /// shared subscription passes on from shard to shard holds its publisher by a message to a third one, so then there is
    /// no limit but time.
    pub(crate) fn with_connections(self, connections: u64) -> Bounds {
        if self.shared {
            return Bounds { lane: usize::MAX, ..self };
        }
        let messages = usize::try_from(connections).unwrap_or(usize::MAX).saturating_mul(2 * (self.unacknowledged + 2));
        let more = self.message.saturating_mul(messages);
        Bounds { lane: LANE_HIGH_BYTES.saturating_add(more), ..self }
    }
}

/// What a look found.
pub(crate) struct Looked {
    pub(crate) found: Vec<(Check, String)>,
    /// How many things it looked at.
    pub(crate) cost: u64,
}

/// What must always hold in a shard.
pub(crate) fn look(shard: ShardView<'_>, bounds: Bounds, obligations: &mut Obligations) -> Looked {
    let checked = shard.check();
    let mut cost = checked.sessions + checked.packet_ids;
    let mut found: Vec<(Check, String)> = checked.found.into_iter().map(violation).collect();
    for (to, bytes) in shard.lane_bytes().enumerate() {
        cost += 1;
        if bytes > bounds.lane {
            found.push((Check::Queues, format!("{bytes} bytes are on their way to shard {to}")));
        }
    }
    for lane in shard.lanes_in().into_iter().flat_map(LanesIn::view) {
        cost += 1;
        let bytes = lane.held_messages > 1 && lane.held_bytes > u64::from(bounds.window.1);
        if lane.held_messages > bounds.window.0 as usize || bytes {
            let what = format!("{} messages of {} bytes", lane.held_messages, lane.held_bytes);
            found.push((
                Check::Queues,
                format!("it holds {what} of a lane of node {:x}, more than its window", lane.node.0),
            ));
        }
    }
    let output_max = OUTPUT_MAX_BYTES + bounds.message + OUTPUT_EXTRA_BYTES;
    for conn in shard.connections() {
        cost += 1;
        if conn.output_bytes > output_max {
            let client = conn.client.unwrap_or("nobody yet");
            found.push((Check::Queues, format!("{} bytes of output wait for {client}", conn.output_bytes)));
        }
    }
    obligations.count(Check::Ledger, 1);
    obligations.count(Check::Queues, cost - checked.packet_ids);
    obligations.count(Check::Ids, checked.sessions + checked.packet_ids);
    Looked { found, cost }
}

/// What a node's limits are divided into: nothing is lost, nothing is given twice. Only while no share is under way.
pub(crate) fn shares(shards: &[ShardView<'_>], control: &Control, config: &ShardConfig) -> Vec<(Check, String)> {
    let connections = config.listeners.iter().enumerate();
    let connections = connections.map(|(at, listener)| (QuotaKind::Connections(at as u16), listener.max_connections));
    let retained = match u32::try_from(config.retained.max_retained_messages).unwrap_or(u32::MAX) {
        0 => u32::MAX,
        limit => limit,
    };
    let mut found = Vec::new();
    for (kind, limit) in connections.chain([(QuotaKind::Retained, retained)]) {
        let of_shard = |shard: &ShardView<'_>| shard.shares().find(|share| share.kind == kind);
        let granted: u64 = shards.iter().filter_map(of_shard).map(|share| u64::from(share.granted)).sum();
        let free = u64::from(control.free(kind));
        if granted + free != u64::from(limit) {
            found
                .push((Check::Leak, format!("{kind:?}: {granted} are granted, {free} are free, the limit is {limit}")));
        }
    }
    found
}

/// Nodes of a cluster whose subscriptions are not known.
#[derive(Debug, Default)]
pub(crate) struct Others {
    /// They do not run: what they have stored counts as yet.
    pub(crate) gone: BTreeSet<NodeId>,
    /// They have left, and the rest of the cluster may never hear of it.
    pub(crate) between: BTreeSet<NodeId>,
}

impl Others {
    /// Whether a subscription of that node may be known elsewhere; `stored` are those that a restart keeps.
    fn may_have(&self, node: NodeId, stored: bool) -> bool {
        self.between.contains(&node) || stored && self.gone.contains(&node)
    }
}

/// A node that runs, and its shards.
pub(crate) struct NodeShards<'a> {
    pub(crate) ix: u16,
    pub(crate) id: NodeId,
    pub(crate) shards: Vec<ShardView<'a>>,
}

/// Where subscribers are, as a table of subscriptions should name it: the node, the shard there.
type Held<'a> = (&'a str, NodeId, u16);

/// The tables of all shards of these nodes against the subscriptions of all their sessions. Only while they have told each
/// other all. `gone` are members that do not run: what their stored sessions subscribe to stays. `clustered`: nodes tell each
/// other.
pub(crate) fn routes(nodes: &[NodeShards<'_>], others: &Others, clustered: bool) -> Vec<(Check, u16, String)> {
    let shared = |filter: &str| filter.starts_with("$share/") || filter.starts_with("$queue/");
    // What each shard has subscribers of: for a shared subscription all members count, for others the first.
    let mut members: BTreeMap<Held<'_>, u32> = BTreeMap::new();
    for node in nodes {
        for (at, shard) in node.shards.iter().enumerate() {
            for (_, filter) in shard.subscriptions() {
                let count = members.entry((filter.as_str(), node.id, at as u16)).or_insert(0);
                *count = if shared(filter.as_str()) { *count + 1 } else { 1 };
            }
        }
    }
    let mut found = Vec::new();
    for node in nodes {
        let told = clustered || node.shards.len() > 1;
        for (own, shard) in node.shards.iter().enumerate() {
            let is_own = |held: &Held<'_>| held.1 == node.id && usize::from(held.2) == own;
            let expected = members.iter().filter(|(held, _)| told && (!is_own(held) || shared(held.0)));
            let expected: BTreeMap<Held<'_>, u32> = expected.map(|(held, count)| (*held, *count)).collect();
            let mut wrong = |what: String| {
                found.push((Check::Routes, node.ix, format!("the table of {:?} {what}", ShardId(own as u16))));
            };
            compare(*shard, node.id, &expected, others, &mut wrong);
        }
    }
    found
}

/// A shard's table against what it should have of others, and its own sessions.
fn compare(
    shard: ShardView<'_>,
    own: NodeId,
    expected: &BTreeMap<Held<'_>, u32>,
    others: &Others,
    wrong: &mut dyn FnMut(String),
) {
    let table = shard.table();
    let mut places: BTreeMap<Held<'_>, u32> = BTreeMap::new();
    let mut sessions = BTreeSet::new();
    let nodes = shard.lanes_out().map(|out| out.node());
    let slots: BTreeMap<u8, NodeId> = nodes.filter_map(|node| Some((shard.slot_of(node)?, node))).collect();
    for entry in &table {
        let filter = entry.filter.as_str();
        match entry.holder {
            Holder::Session(key) => {
                if !sessions.insert((filter, key)) {
                    wrong(format!("has {filter} of {key:?} twice"));
                }
            }
            Holder::Place(place, count) => {
                let slot = (place.0 >> 8) as u8;
                let node = if slot == 0 { Some(own) } else { slots.get(&slot).copied() };
                let Some(node) = node else {
                    wrong(format!("has {filter} of slot {slot}, which is nobody's"));
                    continue;
                };
                if others.may_have(node, place.0 & 1 == 1) {
                    continue;
                }
                // Sessions that are stored and others are apart there.
                let held = places.entry((filter, node, place.0 >> 1 & (SHARDS_MAX - 1))).or_insert(0);
                let shared = filter.starts_with("$share/") || filter.starts_with("$queue/");
                *held = if shared { *held + count } else { 1 };
            }
        }
    }
    let own_sessions: BTreeSet<_> = shard.subscriptions().map(|(key, f)| (f.as_str(), SubscriberId(key))).collect();
    for (filter, key) in own_sessions.symmetric_difference(&sessions) {
        wrong(format!("and the sessions differ in {filter} of {key:?}"));
    }
    for (held, count) in expected {
        match places.get(held) {
            None => wrong(format!("lacks {} of {:?} of node {:x}", held.0, ShardId(held.2), held.1.0)),
            Some(other) if other != count => {
                wrong(format!(
                    "has {other} members of {} of {:?} of node {:x}, there are {count}",
                    held.0,
                    ShardId(held.2),
                    held.1.0
                ));
            }
            Some(_) => {}
        }
    }
    for held in places.keys().filter(|held| !expected.contains_key(*held)) {
        wrong(format!("should not have {} of {:?} of node {:x}", held.0, ShardId(held.2), held.1.0));
    }
}

/// What is left of connections when all have gone.
pub(crate) fn leaks(shard: ShardView<'_>) -> Vec<String> {
    let mut found = Vec::new();
    let (connections, timers, sessions) = (shard.connection_count(), shard.timer_count(), shard.session_count());
    if connections > 0 {
        found.push(format!("{connections} connections are left when all have gone"));
    }
    if timers > sessions {
        found.push(format!("{timers} timers are left, and only {sessions} sessions wait"));
    }
    let (waiting, known) = shard.waits();
    if waiting + known > 0 {
        found.push(format!("{waiting} waits of publishers are left, {known} are known to what they wait for"));
    }
    found
}

/// What is left when all sessions have expired that ever do.
pub(crate) fn forever(shard: ShardView<'_>) -> Vec<String> {
    let mut found: Vec<String> = shard.leftovers().into_iter().map(|left| left.what).collect();
    let (sessions, queued, subscriptions) = (shard.session_count(), shard.queued(), shard.subscription_count());
    if sessions == 0 && queued + subscriptions as u64 > 0 {
        found.push(format!("{queued} messages and {subscriptions} subscriptions are left without a session"));
    }
    found
}

fn violation(found: Inconsistency) -> (Check, String) {
    let check = match found.rule {
        Rule::Ledger => Check::Ledger,
        Rule::Queues => Check::Queues,
        Rule::Window => Check::Ids,
        Rule::Subscriptions => Check::Routes,
        Rule::Shares | Rule::Leftover => Check::Leak,
    };
    (check, found.what)
}
