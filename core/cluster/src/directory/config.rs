//! What can be configured of the directory.

use core::time::Duration;

/// Limits and times of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// After how long without an answer something is sent again. Looked at each [`Config::pace`].
    pub retry: Duration,
    /// How often what waits is looked at.
    pub pace: Duration,
    /// How long a claim waits before it is refused.
    pub claim_max: Duration,
    /// How long a node that is up may take to answer a Fence before its connection is taken over without its answer, and
    /// with it a session that was only in its memory. `None`: until it answers or is down.
    pub takeover_wait: Option<Duration>,
    /// How long a new leader waits for nodes that are up to say what they have.
    pub announce_max: Duration,
    /// For how long there has to be no leader before nodes help themselves.
    pub acting_after: Duration,
    /// What happens with a client whose stored session is at a node that is down.
    pub away_home: AwayHome,
    /// Times of two connections that differ by no more than this, and 2 % of the age, say nothing.
    pub tolerance: Duration,
    /// Clients in one message about what a node has; at least 1.
    pub page: usize,
    /// Connections of this node that wait for an answer; more are refused.
    pub claims: usize,
    /// What this node has reported and the seat not confirmed; with more it begins anew with the seat.
    pub reports: usize,
    /// Clients that the seat knows; the claim of another one is refused. What nodes have already is always known.
    pub clients: usize,
    /// Stored sessions of other nodes that are known by owned logs. Of an owner with more any client may have one: while it is
    /// away, those of whom no session is known wait for it.
    pub homes: usize,
    /// Records of this node that sessions elsewhere do not count; a claim that needs one more is refused.
    pub voids: usize,
    /// Clients of whom nothing is left here but an epoch; of more, the oldest are forgotten before their time.
    pub graves: usize,
}

/// What happens with a client whose stored session is at a node that is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AwayHome {
    /// It waits for it, and is refused.
    Wait,
    /// It gets a session beside that one. They become one when the node is back.
    Fresh,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            retry: Duration::from_millis(500),
            pace: Duration::from_millis(100),
            claim_max: Duration::from_secs(12),
            takeover_wait: Some(Duration::from_secs(1)),
            announce_max: Duration::from_secs(3),
            acting_after: Duration::from_secs(8),
            away_home: AwayHome::Wait,
            tolerance: Duration::from_secs(2),
            page: 512,
            claims: 100_000,
            reports: 200_000,
            clients: 10_000_000,
            homes: 10_000_000,
            voids: 100_000,
            graves: 200_000,
        }
    }
}
