//! What may be configured about links, with units and defaults, and the limits of every queue.

use core::time::Duration;

/// Times and limits of the links of a node. All nodes of a cluster should have the same `heartbeat` and `detect`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Time between two heartbeats to a peer, on its connection and over a neighbour.
    pub heartbeat: Duration,
    /// A peer that was not heard, or did not hear, for this long is Down.
    pub detect: Duration,
    /// A direct link that is silent in either direction for this long is replaced by a relay, if there is one.
    pub relay_after: Duration,
    /// The first repeated failure of a link costs this much time as Down, the next one twice that.
    pub damp_step: Duration,
    /// A flapping link is held Down for this long at most after it is alive again.
    pub damp_max: Duration,
    /// Failures are forgotten when a link has not failed for this long.
    pub damp_window: Duration,
    /// A handshake that is not done after this time is refused.
    pub handshake_timeout: Duration,
    /// How long the driver should try to open a connection; it is tried again a little later.
    pub dial_timeout: Duration,
    /// The pause before a second attempt to dial; it doubles with each further one.
    pub dial_backoff_min: Duration,
    /// The longest pause between attempts to dial.
    pub dial_backoff_max: Duration,
    /// The pause after a refusal, which repeats itself until somebody does something.
    pub refused_backoff: Duration,
    /// What was sent over a neighbour and is not acknowledged for this long is sent again.
    pub relay_resend_after: Duration,
    /// Bytes of the largest frame of a peer that has proved who it is. A connection with a larger one is closed. The largest packet
    /// that MQTT has, of 256 MiB, fits with all that goes with it: a lane has no other way for it.
    pub max_frame: usize,
    /// Bytes of the largest frame before that.
    pub max_handshake_frame: usize,
    /// Bytes of control frames that wait or are not acknowledged, per peer; more are refused as full.
    pub control_limit: usize,
    /// Bytes of data frames that wait, per peer; more are refused as full.
    pub data_limit: usize,
    /// Bytes of bulk chunks that wait, per peer; more are refused as full.
    pub bulk_limit: usize,
    /// Bytes of the largest bulk chunk.
    pub bulk_chunk: usize,
    /// Bytes of bulk chunks that one fill gives at most; a fill with room gives one chunk at least.
    pub bulk_per_fill: usize,
    /// Bytes that may be on their way to a peer over a neighbour without acknowledgement.
    pub relay_window: usize,
    /// Bytes that wait at a neighbour to be passed on to one peer; more are dropped, and sent again by their source.
    pub relay_limit: usize,
    /// Bytes that may be on their way on a connection, at least: the window shrinks while round trips are long.
    pub window_min: usize,
    /// The window of a new connection.
    pub window_start: usize,
    /// Bytes that may be on their way on a connection, at most.
    pub window_max: usize,
    /// A round trip that is longer than this halves the window; below a half of it the window may grow.
    pub window_round_trip: Duration,
    /// Connections that have not proved who they are; further ones are refused as busy.
    pub unproved_limit: usize,
    /// Peers; further ones are refused as busy.
    pub peer_limit: usize,
    /// Addresses that are dialed; further ones are ignored.
    pub address_limit: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            heartbeat: Duration::from_millis(500),
            detect: Duration::from_secs(8),
            relay_after: Duration::from_secs(2),
            damp_step: Duration::from_secs(1),
            damp_max: Duration::from_secs(8),
            damp_window: Duration::from_secs(60),
            handshake_timeout: Duration::from_secs(5),
            dial_timeout: Duration::from_secs(3),
            dial_backoff_min: Duration::from_millis(200),
            dial_backoff_max: Duration::from_secs(3),
            refused_backoff: Duration::from_secs(5),
            relay_resend_after: Duration::from_secs(1),
            max_frame: 272 << 20,
            max_handshake_frame: 4 << 10,
            control_limit: 8 << 20,
            data_limit: 4 << 20,
            bulk_limit: 1 << 20,
            bulk_chunk: 64 << 10,
            bulk_per_fill: 64 << 10,
            relay_window: 256 << 10,
            relay_limit: 1 << 20,
            window_min: 64 << 10,
            window_start: 256 << 10,
            window_max: 16 << 20,
            window_round_trip: Duration::from_secs(1),
            unproved_limit: 64,
            peer_limit: 256,
            address_limit: 256,
        }
    }
}
