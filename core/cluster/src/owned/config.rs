//! What can be configured of logs.

use core::time::Duration;

use super::damping::DampingConfig;
use super::hash::DigestKey;

/// Limits and times of logs. All nodes of a cluster have the same `digest_key` and `lease`.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// The key of digests.
    pub digest_key: DigestKey,
    /// The newest operations that a log keeps; a peer that lacks an older one gets a snapshot.
    pub ring_ops: usize,
    /// Operations in one message.
    pub message_ops: usize,
    /// Bytes of entries in one message, about; an entry that is larger goes alone.
    pub message_bytes: usize,
    /// Entries that one call matches more or less of a node that is masked, opens or leaves; the rest follows at once.
    pub work: usize,
    /// How often a log's version is told.
    pub heartbeat: Duration,
    /// After how long a question is asked again.
    pub retry: Duration,
    /// How long a SUBACK waits at most with a fast barrier.
    pub barrier: Duration,
    /// SUBACKs that wait, of each mode; more do not wait, and are incomplete.
    pub barriers_max: usize,
    /// Whether this node asks for leases, for zones whose barrier is strict.
    pub strict: bool,
    /// How long a lease lasts at its owner. A strict SUBACK waits so long for a node that is gone.
    pub lease: Duration,
    /// How often leases are asked for.
    pub lease_renew: Duration,
    /// By how much clocks differ in rate, in percent.
    pub drift_percent: u32,
    /// How flapping links are damped.
    pub damping: DampingConfig,
    /// Whether durable entries are stored before they are told to be installed.
    pub stored: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            digest_key: DigestKey([0; 2]),
            ring_ops: 65_536,
            message_ops: 8_192,
            message_bytes: 128 * 1024,
            work: 4_096,
            heartbeat: Duration::from_secs(1),
            retry: Duration::from_secs(1),
            barrier: Duration::from_millis(500),
            barriers_max: 65_536,
            strict: false,
            lease: Duration::from_secs(3),
            lease_renew: Duration::from_secs(1),
            drift_percent: 1,
            damping: DampingConfig {
                first: Duration::from_millis(500),
                longest: Duration::from_secs(8),
                calm: Duration::from_secs(30),
            },
            stored: false,
        }
    }
}
