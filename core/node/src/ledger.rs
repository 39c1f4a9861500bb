//! The account of messages: what came in must have gone somewhere.

use newtmq_mqtt::ReasonCode;

use crate::traffic::Traffic;

/// Why a matched message was not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub enum DropReason {
    /// The session's queue was at max_mqueue_len or max_mqueue_bytes; its oldest message went.
    QueueFull,
    /// QoS 0 to a connected client whose output is full and does not move (or is its own publisher).
    SlowConsumer,
    /// Message Expiry Interval passed.
    Expired,
    /// QoS 0 to an absent client with `mqueue_store_qos0 = false`.
    OfflineQos0,
    /// The packet would exceed the client's Maximum Packet Size [MQTT-3.1.2-25].
    PacketTooLarge,
    /// The session ended with the message in its queue or in flight.
    SessionEnded,
    /// The client answered PUBREC with an error.
    Refused,
    /// QoS 0 that would have had to wait, while the process was above `memory.high_watermark`.
    MemoryPressure,
}

/// Number of reasons.
pub(crate) const DROP_REASONS: usize = 8;

impl DropReason {
    /// Every reason, in order.
    pub const ALL: [DropReason; DROP_REASONS] = [
        DropReason::QueueFull,
        DropReason::SlowConsumer,
        DropReason::Expired,
        DropReason::OfflineQos0,
        DropReason::PacketTooLarge,
        DropReason::SessionEnded,
        DropReason::Refused,
        DropReason::MemoryPressure,
    ];

    /// The reason code that comes nearest, for those who are told.
    #[must_use]
    pub fn code(self) -> ReasonCode {
        match self {
            DropReason::QueueFull | DropReason::SlowConsumer | DropReason::MemoryPressure => ReasonCode::QuotaExceeded,
            DropReason::PacketTooLarge => ReasonCode::PacketTooLarge,
            DropReason::Expired | DropReason::OfflineQos0 | DropReason::SessionEnded | DropReason::Refused => {
                ReasonCode::UnspecifiedError
            }
        }
    }

    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            DropReason::QueueFull => "queue_full",
            DropReason::SlowConsumer => "slow_consumer",
            DropReason::Expired => "expired",
            DropReason::OfflineQos0 => "offline_qos0",
            DropReason::PacketTooLarge => "packet_too_large",
            DropReason::SessionEnded => "session_ended",
            DropReason::Refused => "refused",
            DropReason::MemoryPressure => "memory_pressure",
        }
    }
}

/// Counters since the start. At any time `matched = delivered + queued + dropped`, where queued is what sits in
/// sessions' queues and windows (checked in [`crate::ShardView::ledger_balance`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ledger {
    /// PUBLISH packets accepted from clients, and wills.
    pub accepted: u64,
    /// Accepted ones that no subscription matched.
    pub unmatched: u64,
    /// Times that a message was sent to another shard of the node.
    pub forwarded: u64,
    /// Times that a message was given to the lane of another node's shard; not part of the balance, like all that is of nodes.
    pub sent_to_nodes: u64,
    /// Messages that came from other nodes.
    pub received_from_nodes: u64,
    /// Those that nobody here could take, or was there for.
    pub refused_to_nodes: u64,
    /// Frames of other nodes' lanes that are none.
    pub malformed_of_nodes: u64,
    /// QoS 0 that was dropped because another node's shard had no room for it.
    pub dropped_for_credit: u64,
    /// QoS 1 and 2 whose publishers were told so.
    pub refused_for_credit: u64,
    /// What was under way to sessions in another node's memory when it counted as down.
    pub lost_down: u64,
    /// What was not sent because only such sessions would have got it.
    pub missed_down: u64,
    /// Messages that are kept for stored sessions of nodes that are away.
    pub hinted: u64,
    /// Those that have gone there since.
    pub hints_sent: u64,
    /// Those that nobody was there for any more: the session has ended, the message has expired, or the node is no member.
    pub hints_ended: u64,
    /// What would have to be kept and was not: too much is, or it cannot be stored. Its publishers were told so.
    pub not_hinted: u64,
    /// Sessions that went to another node although not everybody had said that nothing more comes for them here.
    pub left_unflushed: u64,
    /// Clients with a will that were let in although the cluster does not keep it (`will_ha`).
    pub wills_not_kept: u64,
    /// Wills that were published here for nodes that are down, or of an earlier start of this node.
    pub wills_for_others: u64,
    /// Wills of this node that were published elsewhere, or whose client came back elsewhere in time.
    pub wills_elsewhere: u64,
    /// Deliveries owed: one per accepted message and matching session or shared group.
    pub matched: u64,
    /// QoS 0: put into the connection's output. QoS 1 and 2: acknowledged by the client.
    pub delivered: u64,
    /// Publishes, wills and filters of subscriptions that a client may not use (`acl_deny_action`); not part of the balance.
    pub denied: u64,
    /// Publishes that were refused because the store takes nothing; not part of the balance.
    pub unstored: u64,
    /// Publishes that were refused because the cluster could not agree on what is retained.
    pub unretained: u64,
    /// Retained messages sent to new subscriptions; not part of the balance.
    pub retained_sent: u64,
    /// PUBLISH and PUBREL packets sent again after `retry_interval`; not part of the balance.
    pub sent_again: u64,
    /// QoS 2 identifiers of clients freed because PUBREL did not come for `await_rel_timeout`.
    pub rel_timeouts: u64,
    /// Questions that no hook answered within `hook_timeout`.
    pub hook_timeouts: u64,
    /// Pauses of a client's input for `publish_limit`, `rate_limit` or memory.
    pub paced: u64,
    dropped: [u64; DROP_REASONS],
    /// What came and went.
    pub traffic: Traffic,
}

impl Ledger {
    /// The counters of two shards together.
    pub fn add(&mut self, other: &Ledger) {
        self.accepted += other.accepted;
        self.unmatched += other.unmatched;
        self.forwarded += other.forwarded;
        self.sent_to_nodes += other.sent_to_nodes;
        self.received_from_nodes += other.received_from_nodes;
        self.refused_to_nodes += other.refused_to_nodes;
        self.malformed_of_nodes += other.malformed_of_nodes;
        self.dropped_for_credit += other.dropped_for_credit;
        self.refused_for_credit += other.refused_for_credit;
        self.lost_down += other.lost_down;
        self.missed_down += other.missed_down;
        self.hinted += other.hinted;
        self.hints_sent += other.hints_sent;
        self.hints_ended += other.hints_ended;
        self.not_hinted += other.not_hinted;
        self.left_unflushed += other.left_unflushed;
        self.wills_not_kept += other.wills_not_kept;
        self.wills_for_others += other.wills_for_others;
        self.wills_elsewhere += other.wills_elsewhere;
        self.matched += other.matched;
        self.delivered += other.delivered;
        self.denied += other.denied;
        self.unstored += other.unstored;
        self.unretained += other.unretained;
        self.retained_sent += other.retained_sent;
        self.sent_again += other.sent_again;
        self.rel_timeouts += other.rel_timeouts;
        self.hook_timeouts += other.hook_timeouts;
        self.paced += other.paced;
        for (sum, count) in self.dropped.iter_mut().zip(other.dropped) {
            *sum += count;
        }
        self.traffic.add(&other.traffic);
    }

    pub(crate) fn drop(&mut self, reason: DropReason, count: u64) {
        self.dropped[reason as usize] += count;
    }

    /// Deliveries given up for this reason.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// Deliveries given up.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::{DropReason, Ledger};

    #[test]
    fn every_counter_is_added() {
        let mut one = Ledger {
            accepted: 1,
            unmatched: 2,
            forwarded: 3,
            matched: 4,
            delivered: 5,
            denied: 6,
            unstored: 14,
            unretained: 15,
            retained_sent: 7,
            sent_again: 8,
            rel_timeouts: 9,
            hook_timeouts: 10,
            paced: 11,
            wills_not_kept: 16,
            wills_for_others: 17,
            wills_elsewhere: 18,
            ..Ledger::default()
        };
        one.drop(DropReason::Refused, 12);
        one.traffic.bytes_sent = 13;
        let mut sum = Ledger::default();
        sum.add(&one);
        assert_eq!(sum, one);
    }
}
