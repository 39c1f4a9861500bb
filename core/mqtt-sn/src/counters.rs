//! What a gateway has done and not done, for metrics.

/// Numbers since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Datagrams that came.
    pub received: u64,
    /// Datagrams that were sent.
    pub sent: u64,
    /// Datagrams that were no message.
    pub malformed: u64,
    /// Messages of addresses that are no client's.
    pub stray: u64,
    /// Those of them that were not answered, for there were too many.
    pub stray_unanswered: u64,
    /// Messages that nobody expected: another's, out of turn, or of an exchange that is over.
    pub unexpected: u64,
    /// Messages that repeat one that was acted on before.
    pub duplicates: u64,
    /// Requests that were answered with congestion.
    pub congested: u64,
    /// QoS 0 messages of clients dropped for the same reason.
    pub congested_dropped: u64,
    /// CONNECTs accepted.
    pub connected: u64,
    /// CONNECTs refused.
    pub refused: u64,
    /// Clients that took the ClientId of one at another address, or came with another one at the same address.
    pub taken_over: u64,
    /// Clients that came from another address.
    pub rebound: u64,
    /// Clients that were not heard of in time.
    pub lost: u64,
    /// Messages sent again.
    pub retransmitted: u64,
    /// Exchanges given up after all retries.
    pub given_up: u64,
    /// Sleepers that woke.
    pub woken: u64,
    /// Sleepers of another gateway that woke here.
    pub adopted: u64,
    /// Messages dropped because too many wait.
    pub dropped_full: u64,
    /// Messages dropped because they, or their topic, exceed a datagram.
    pub dropped_too_long: u64,
    /// Messages dropped because all topic ids are in use.
    pub dropped_no_topic_id: u64,
    /// Messages dropped because the client refuses them or their topic.
    pub dropped_refused: u64,
    /// QoS -1 messages published.
    pub minus_one: u64,
    /// QoS -1 messages refused or dropped.
    pub minus_one_dropped: u64,
}
