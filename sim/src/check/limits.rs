//! What the scenario's configuration allows the broker to do: numbers only.

use core::time::Duration;

use crate::scenario::{Act, Action, Barrier, DurabilitySpec, Scenario, Step};

/// A piece is lost six times at most, each time for twice as long.
const LOSSES_WORTH: u64 = (1 << 6) - 1;
/// How long the broker lets a connection that it closes take what is left.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Limits of the broker, its defaults filled in.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// `max_mqueue_len`
    pub(super) queue_len: u64,
    /// `max_mqueue_bytes`; `u64::MAX` for none.
    pub(super) queue_bytes: u64,
    /// `max_inflight`
    pub(super) inflight: u32,
    /// Whether clients before MQTT 5 get unacknowledged messages again in a connection.
    pub(super) retries: bool,
    /// `await_rel_timeout`; none for never.
    pub(super) await_rel: Option<Duration>,
    /// `session_expiry_interval`, in seconds.
    pub(super) session_expiry_s: u32,
    /// `max_session_expiry_interval`, in seconds.
    pub(super) max_session_expiry_s: u32,
    /// `upgrade_qos`
    pub(super) upgrade_qos: bool,
    /// `ignore_loop_deliver`
    pub(super) ignore_loop: bool,
    /// `max_retained_messages` is set, so a retained message may not be kept.
    pub(super) retained_limited: bool,
    /// `retained.expiry_interval` is set.
    pub(super) retained_expires: bool,
    /// `max_qos_allowed`
    pub(super) max_qos: u8,
    /// `max_packet_size`
    pub(super) max_packet_size: u32,
    /// `max_connections` is set, so a connection may be closed before CONNACK.
    pub(super) connections_limited: bool,
    /// `publish_limit`: messages a second.
    publish_limit: Option<u64>,
    /// `rate_limit`: bytes a second.
    rate_limit: Option<u64>,
    /// How long a message may be under way between shards after its PUBACK; lags are added.
    pub(super) lane: Duration,
    /// How long what one node says to another is on its way, there and back and a few times.
    pub(super) links: Duration,
    /// So long that a node may count as down for it.
    pub(super) links_late: bool,
    /// Everything is answered by then.
    pub(super) answer: Duration,
    /// Of several sessions of one client there is one so long after nothing stands between nodes any more, and what was left at
    /// others has come.
    pub(super) one_session: Duration,
    /// A fault may be why a node counts as down for so long after it.
    pub(super) reason: Duration,
    /// A claim is given up no later than what a session is waited for at another node.
    pub(super) hurried_claims: bool,
    /// So long after they were apart nodes may not agree yet about retained messages.
    pub(super) agreed: Duration,
    /// So long a live or a retained copy is on its way at most.
    pub(super) copied: Duration,
    /// Windows between nodes are so small that a publish may be refused for them.
    pub(super) lanes_narrow: bool,
    /// `cluster.owner_down = fresh`
    pub(super) fresh: bool,
    /// The strict barrier: without a lease of every member nothing is acknowledged.
    pub(super) strict: bool,
    /// How long what is written may wait for a socket that is small. The broker closes then.
    pub(super) drain: Duration,
    /// `idle_timeout` is so short that a CONNECT may come too late.
    pub(super) hurried: bool,
    /// `server_keepalive`
    pub(super) server_keep_alive_s: Option<u16>,
    /// `max_publisher_hold`
    pub(super) hold: Duration,
    /// Bytes of a connection's socket at the broker, and the longest that they are under way.
    socket_bytes: u64,
    trip: Duration,
    /// A network in which packets may come very late.
    pub(super) late: Duration,
    /// Clients of MQTT-SN may be lost for datagrams that are, or because another one has their address.
    pub(super) sn_unreliable: bool,
    /// `mqtt.sn.max_topic_ids` is set: a client of MQTT-SN whose ids are used up gets nothing on other topics.
    pub(super) sn_few_ids: bool,
    /// `durability`; none if everything is in memory alone.
    pub(super) durability: Option<DurabilitySpec>,
}

impl Limits {
    /// Whether what was acknowledged for a stored session outlives every crash.
    pub(super) fn keeps_hints(&self) -> bool {
        matches!(self.durability, Some(DurabilitySpec::Group | DurabilitySpec::Always))
    }

    pub(super) fn new(scenario: &Scenario) -> Limits {
        let broker = &scenario.broker;
        let net = &scenario.net;
        let losses = if net.loss_ppm > 0 { 20 } else { 0 };
        let late_us = net.latency_us.end() * 2 + net.retransmit_ms * 1000 * losses;
        let hop_us = net.shard_delay_us.end() + net.work_delay_us;
        let links = if scenario.is_cluster() { links(scenario) } else { Duration::ZERO };
        let lane = if scenario.shards > 1 || scenario.is_cluster() {
            Duration::from_millis(50) + Duration::from_micros(hop_us * 8) + links
        } else {
            Duration::ZERO
        };
        Limits {
            queue_len: u64::from(broker.max_mqueue_len.unwrap_or(1000)).max(1),
            queue_bytes: match broker.max_mqueue_bytes.unwrap_or(64 << 20) {
                0 => u64::MAX,
                bytes => bytes,
            },
            inflight: u32::from(broker.max_inflight.unwrap_or(256)),
            retries: broker.retry_interval_ms.is_some_and(|ms| ms > 0),
            await_rel: match broker.await_rel_timeout_ms.unwrap_or(300_000) {
                0 => None,
                ms => Some(Duration::from_millis(ms)),
            },
            session_expiry_s: broker.session_expiry_interval_s.unwrap_or(2 * 3600),
            max_session_expiry_s: match broker.max_session_expiry_interval_s.unwrap_or(u32::MAX) {
                0 => u32::MAX,
                seconds => seconds,
            },
            upgrade_qos: broker.upgrade_qos.unwrap_or(false),
            ignore_loop: broker.ignore_loop_deliver.unwrap_or(false),
            retained_limited: broker.max_retained_messages.is_some_and(|limit| limit > 0),
            retained_expires: broker.retained_expiry_interval_ms.is_some_and(|ms| ms > 0),
            max_qos: broker.max_qos_allowed.unwrap_or(2),
            max_packet_size: broker.max_packet_size.unwrap_or(1 << 20),
            connections_limited: broker.max_connections.is_some(),
            publish_limit: broker.publish_limit_per_s.map(u64::from).filter(|limit| *limit > 0),
            rate_limit: broker.rate_limit_bytes_per_s.filter(|limit| *limit > 0),
            lane,
            links,
            links_late: links > scenario.cluster.paced(LINKS_LATE),
            answer: scenario.cluster.bound(ANSWER_FIXED, ANSWER),
            one_session: scenario.cluster.bound(ONE_SESSION_FIXED, ONE_SESSION) + links,
            reason: scenario.cluster.bound(REASON_FIXED, REASON),
            hurried_claims: scenario.cluster.paced(CLAIM) <= LETTER,
            agreed: scenario.cluster.bound(AGREED_FIXED, AGREED),
            copied: scenario.cluster.bound(COPIED_FIXED, COPIED),
            lanes_narrow: lanes_narrow(scenario),
            fresh: scenario.cluster.fresh,
            strict: scenario.cluster.barrier == Barrier::Strict,
            socket_bytes: net.socket_bytes.max(1),
            trip: Duration::from_micros(net.latency_us.end() + net.retransmit_ms * 1000 * losses.min(1) * LOSSES_WORTH),
            drain: if net.socket_bytes < 64 << 10 { CLOSE_TIMEOUT } else { Duration::ZERO },
            hurried: broker.idle_timeout_ms.is_some_and(|ms| ms * 1000 < late_us * 4),
            server_keep_alive_s: broker.server_keepalive_s,
            hold: Duration::from_millis(broker.max_publisher_hold_ms.unwrap_or(10_000)),
            late: Duration::from_micros(late_us),
            sn_unreliable: !scenario.sn.is_reliable() || scenario.steps.iter().any(takes_an_address),
            sn_few_ids: scenario.sn.max_topic_ids.is_some(),
            durability: broker.durability.filter(|durability| *durability != DurabilitySpec::Memory),
        }
    }

    /// How long an answer may have to wait for the socket behind so many bytes of messages.
    pub(super) fn queueing(&self, bytes: u64) -> Duration {
        self.trip.saturating_mul(u32::try_from(bytes / self.socket_bytes).unwrap_or(u32::MAX))
    }

    /// How long the broker may take to read so many packets and bytes of a client that sends them at once.
    pub(super) fn pace(&self, publishes: u64, bytes: u64) -> Duration {
        // What is due may come a little later, and not every byte is known: twice as long is enough.
        let wait = |amount: u64, limit: Option<u64>| match limit {
            Some(limit) => Duration::from_millis((amount * 2_000).div_ceil(limit)),
            None => Duration::ZERO,
        };
        wait(publishes, self.publish_limit).max(wait(bytes, self.rate_limit))
    }
}

/// Whether a client takes the address that another one has, or had.
fn takes_an_address(step: &Step) -> bool {
    matches!(step.action, Action::Client { act: Act::Rebind { of: Some(_) }, .. })
}

/// How long what nodes say to each other is on its way, a few times there and back.
fn links(scenario: &Scenario) -> Duration {
    let net = &scenario.net.nodes;
    let lost_us = if net.loss_ppm > 0 { scenario.net.retransmit_ms * 1_000 * LOSSES_WORTH } else { 0 };
    Duration::from_micros((net.latency_us.end() + net.tail_us + lost_us) * 4)
}

/// Whether lanes are so narrow that a publish may be refused for that.
fn lanes_narrow(scenario: &Scenario) -> bool {
    let cluster = &scenario.cluster;
    let few = |limit: Option<u32>| limit.is_some();
    few(cluster.lane_window_messages)
        || few(cluster.lane_window_bytes)
        || few(cluster.lane_waiting_messages)
        || few(cluster.lane_unstored_messages)
        || cluster.ticket_max_ms.is_some()
        || scenario.net.nodes.bytes_per_s > 0
}

/// Links so slow may count as down.
const LINKS_LATE: Duration = Duration::from_secs(2);

/// Everything is answered by then; of that an election takes as long at any pace.
const ANSWER: Duration = Duration::from_secs(15);
const ANSWER_FIXED: Duration = Duration::from_secs(3);

/// Nodes meet, agree on who decides, and hand on what is left of sessions.
const ONE_SESSION: Duration = Duration::from_secs(33);
const ONE_SESSION_FIXED: Duration = Duration::from_secs(16);

/// A peer that is silent counts as down after 8 s, and is held down for as long after failures in a row; and what was on its
/// way when a fault ended takes its time.
const REASON: Duration = Duration::from_secs(20);
const REASON_FIXED: Duration = Duration::from_secs(4);

/// A claim waits so long at most, and that what a session still gets elsewhere has come.
const CLAIM: Duration = Duration::from_secs(12);
const LETTER: Duration = Duration::from_secs(3);

/// Nodes meet, agree on who leads, and tell what they have kept for themselves.
const AGREED: Duration = Duration::from_secs(20);
const AGREED_FIXED: Duration = Duration::from_secs(2);

/// A lane opens, and carries a message with all that is before it.
const COPIED: Duration = Duration::from_secs(5);
const COPIED_FIXED: Duration = Duration::from_secs(1);

/// Bytes of a packet beside topic, filters and payload, roughly.
pub(super) const CONTROL_BYTES: u64 = 64;
