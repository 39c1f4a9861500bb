//! A link with one peer. It outlives connections: streams with what is not acknowledged, signs of life on either path, the
//! path that frames take. It opens no connection and passes nothing on; [`Links`](super::Links) does.

use std::collections::BTreeSet;

use bytes::Bytes;
use newtmq_base::{Incarnation, Instant, NodeId, planted};

use super::config::Config;
use super::damper::Damper;
use super::event::{DownCause, Unsent};
use super::frame::{Acks, End, Frame, Heartbeat, Stream};
use super::hello::Hello;
use super::links::ConnectionId;
use super::stream::{Arrival, ControlIn, ControlOut, RunIn, RunOut};

/// The way that frames to a peer take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// There is none.
    None,
    /// This connection.
    Direct(ConnectionId),
    /// A neighbour of both.
    Via(NodeId),
}

/// Signs of life on one path, in the own time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Signs {
    /// When something came last.
    pub(crate) heard: Option<Instant>,
    /// The latest time of which is known that something sent then came to the peer.
    pub(crate) is_heard: Option<Instant>,
    /// The latest stamp of the peer, and when it came.
    stamp: Option<(u64, Instant)>,
    received: u64,
}

impl Signs {
    /// The time up to which both directions are known to have worked.
    pub(crate) fn alive_at(&self) -> Option<Instant> {
        if planted!(OneWayUnnoticed) {
            return self.heard;
        }
        Some(self.heard?.min(self.is_heard?))
    }

    fn beat(&mut self, now: Instant, beat: &Heartbeat, since: Instant) -> Option<core::time::Duration> {
        let before = self.stamp.map(|(_, at)| at);
        self.heard = self.heard.max(Some(now));
        // Bytes that have come to the peer between two of its heartbeats say that it hears, when an own heartbeat is stuck
        // behind them on a slow link.
        if beat.received > self.received {
            self.received = beat.received;
            self.is_heard = self.is_heard.max(before);
        }
        if self.stamp.is_none_or(|(stamp, _)| beat.stamp >= stamp) {
            self.stamp = Some((beat.stamp, now));
        }
        let echoed = Instant::from_nanos(beat.echo);
        if beat.echo == 0 || echoed > now || echoed < since {
            return None;
        }
        self.is_heard = self.is_heard.max(Some(echoed));
        Some(now.saturating_since(echoed).saturating_sub(core::time::Duration::from_nanos(beat.held)))
    }
}

/// The connection that is in use.
#[derive(Debug)]
pub(crate) struct Direct {
    pub(crate) conn: ConnectionId,
    pub(crate) signs: Signs,
}

/// What came of a frame of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Took {
    Frame,
    Old,
    Ahead,
    /// The peer is not counted as Up.
    Shut,
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) node: NodeId,
    pub(crate) own: End,
    pub(crate) end: Option<End>,
    /// Starts before this one are refused.
    pub(crate) least: Incarnation,
    pub(crate) hello: Option<Hello>,
    pub(crate) version: u16,
    pub(crate) control_out: ControlOut,
    pub(crate) control_in: ControlIn,
    pub(crate) data_out: RunOut,
    pub(crate) data_in: RunIn,
    pub(crate) bulk_out: RunOut,
    pub(crate) bulk_in: RunIn,
    pub(crate) direct: Option<Direct>,
    /// Signs that came over neighbours.
    pub(crate) relayed: Signs,
    /// When the direct link was last known to work both ways; its begin, if never.
    pub(crate) direct_seen: Instant,
    /// The direct link works, and is not held down: it is used, and others may relay over it.
    pub(crate) direct_ok: bool,
    direct_alive: bool,
    pub(crate) direct_damper: Damper,
    /// Signs of paths that are no more.
    past: Option<Instant>,
    /// When something came on any of them.
    past_heard: Option<Instant>,
    alive: bool,
    pub(crate) up: bool,
    opening: u64,
    pub(crate) damper: Damper,
    /// The peer takes frames of streams since then, as it counts; 0 if it does not.
    peer_opening: u64,
    peer_stamp: u64,
    /// Whom the peer says to reach directly.
    pub(crate) neighbours: BTreeSet<NodeId>,
    pub(crate) path: Path,
    pub(crate) round_trip: Option<core::time::Duration>,
    pub(crate) next_beat: Instant,
    pub(crate) armed: Instant,
    /// When something was acknowledged last, or there was nothing to acknowledge, on a relay.
    pub(crate) progress_at: Instant,
    pub(crate) beat_due: bool,
    pub(crate) ack_due: bool,
    begun: Instant,
}

impl Link {
    pub(crate) fn new(now: Instant, node: NodeId, own: End) -> Link {
        Link {
            node,
            own,
            end: None,
            least: Incarnation(0),
            hello: None,
            version: 0,
            control_out: ControlOut::default(),
            control_in: ControlIn::default(),
            data_out: RunOut::default(),
            data_in: RunIn::default(),
            bulk_out: RunOut::default(),
            bulk_in: RunIn::default(),
            direct: None,
            relayed: Signs::default(),
            direct_seen: now,
            direct_ok: false,
            direct_alive: false,
            direct_damper: Damper::default(),
            past: None,
            past_heard: None,
            alive: false,
            up: false,
            opening: 0,
            damper: Damper::default(),
            peer_opening: 0,
            peer_stamp: 0,
            neighbours: BTreeSet::new(),
            path: Path::None,
            round_trip: None,
            next_beat: now,
            armed: Instant::NEVER,
            progress_at: now,
            beat_due: false,
            ack_due: false,
            begun: now,
        }
    }

    /// The peer's end is this one. Says whether it is another one than before, in which case nothing of the streams is left.
    pub(crate) fn adopt(&mut self, end: End) -> bool {
        if self.end == Some(end) {
            return false;
        }
        let first = self.end.replace(end).is_none();
        (self.peer_opening, self.peer_stamp) = (0, 0);
        // What the caller gave before the peer was known goes to whoever it is.
        if !first && !planted!(StreamsOutliveIncarnation) {
            self.control_out = ControlOut::default();
            self.control_in = ControlIn::default();
            (self.data_out, self.data_in) = Default::default();
            (self.bulk_out, self.bulk_in) = Default::default();
        }
        !first
    }

    /// Signs of life of an earlier end count no more.
    pub(crate) fn forget_signs(&mut self, now: Instant, config: &Config) {
        self.relayed = Signs::default();
        (self.past, self.past_heard) = (None, None);
        if core::mem::take(&mut self.alive) {
            self.damper.fail(now, config);
        }
    }

    /// Takes what the caller wants to send.
    pub(crate) fn push(&mut self, stream: Stream, payload: Bytes, config: &Config) -> Result<(), Unsent> {
        let largest = match stream {
            Stream::Control | Stream::Data => config.max_frame - OVERHEAD,
            Stream::Bulk => config.bulk_chunk,
        };
        if payload.len() > largest {
            return Err(Unsent::TooLarge);
        }
        if stream != Stream::Control && !self.up {
            return Err(Unsent::Down);
        }
        let taken = match stream {
            Stream::Control => self.control_out.push(payload, config.control_limit),
            Stream::Data => self.data_out.push(payload, config.data_limit),
            Stream::Bulk => self.bulk_out.push(payload, config.bulk_limit),
        };
        if taken { Ok(()) } else { Err(Unsent::Full) }
    }

    /// Whether frames of streams may be sent.
    pub(crate) fn flows(&self) -> bool {
        self.up && self.peer_opening != 0
    }

    /// Begins the streams anew where the other side may have lost something: everything unacknowledged of control is sent
    /// again, data and bulk get a new run. Says whether data or bulk was on its way.
    pub(crate) fn restart(&mut self, now: Instant) -> bool {
        self.progress_at = now;
        self.control_out.restart();
        let data = self.data_out.restart();
        self.bulk_out.restart() || data
    }

    /// Bytes on their way over a relay.
    pub(crate) fn flight(&self) -> usize {
        self.control_out.flight() + self.data_out.flight() + self.bulk_out.flight()
    }

    pub(crate) fn acks(&self) -> Acks {
        Acks { control: self.control_in.next, data: self.data_in.mark, bulk: self.bulk_in.mark }
    }

    /// The sign of life for one path.
    pub(crate) fn heartbeat(&self, now: Instant, direct: bool, received: u64) -> Heartbeat {
        let signs = match &self.direct {
            Some(at) if direct => at.signs,
            Some(_) | None => self.relayed,
        };
        let (echo, at) = signs.stamp.unwrap_or((0, now));
        Heartbeat {
            stamp: now.as_nanos(),
            echo,
            held: u64::try_from((now - at).as_nanos()).unwrap_or(u64::MAX),
            opening: if self.up { self.opening } else { 0 },
            received,
            acks: self.acks(),
        }
    }

    /// A sign of life came. Says whether data or bulk that was on its way is lost.
    pub(crate) fn beat(&mut self, now: Instant, beat: &Heartbeat, direct: bool) -> bool {
        let signs = match &mut self.direct {
            Some(at) if direct => &mut at.signs,
            Some(_) | None => &mut self.relayed,
        };
        if let Some(round_trip) = signs.beat(now, beat, self.begun) {
            self.round_trip = Some(round_trip);
        }
        self.acknowledged(now, &beat.acks);
        // Heartbeats of two paths may overtake each other.
        if beat.stamp < self.peer_stamp {
            return false;
        }
        self.peer_stamp = beat.stamp;
        if beat.opening == self.peer_opening {
            return false;
        }
        self.peer_opening = beat.opening;
        self.restart(now)
    }

    /// The peer says what has come. False if it cannot be.
    pub(crate) fn acknowledged(&mut self, now: Instant, acks: &Acks) -> bool {
        let control = self.control_out.acknowledged(acks.control);
        let data = self.data_out.acknowledged(acks.data);
        let bulk = self.bulk_out.acknowledged(acks.bulk);
        if control == Some(true) || data || bulk || self.flight() == 0 {
            self.progress_at = now;
        }
        control.is_some()
    }

    /// Something came.
    pub(crate) fn heard(&mut self, now: Instant, direct: bool) {
        let signs = match &mut self.direct {
            Some(at) if direct => &mut at.signs,
            Some(_) | None => &mut self.relayed,
        };
        signs.heard = signs.heard.max(Some(now));
    }

    /// A frame of a stream came, whatever way.
    pub(crate) fn arrive(&mut self, frame: &Frame<'_>, direct: bool) -> Took {
        if !self.up {
            return Took::Shut;
        }
        let arrival = match frame {
            Frame::Control { seq, .. } => self.control_in.arrive(*seq),
            Frame::Run { bulk: false, mark, .. } => self.data_in.arrive(*mark),
            Frame::Run { bulk: true, mark, .. } => self.bulk_in.arrive(*mark),
            Frame::Hello(_)
            | Frame::Proof { .. }
            | Frame::Welcome
            | Frame::Refused(_)
            | Frame::Use
            | Frame::Heartbeat(_)
            | Frame::Ack { .. }
            | Frame::Neighbours(_)
            | Frame::Relay(_)
            | Frame::Relayed(_) => Arrival::Old,
        };
        // Of data nobody waits for it on a direct link; how many bytes have come is told there.
        self.ack_due |= !direct || !matches!(frame, Frame::Run { bulk: false, .. });
        match arrival {
            Arrival::Next => Took::Frame,
            Arrival::Old => Took::Old,
            Arrival::Ahead => Took::Ahead,
        }
    }

    /// This connection is the one in use.
    pub(crate) fn connect(&mut self, now: Instant, conn: ConnectionId) {
        // The handshake was a round trip.
        let signs = Signs { heard: Some(now), is_heard: Some(now), ..Signs::default() };
        self.disconnect();
        self.direct = Some(Direct { conn, signs });
        self.next_beat = now;
    }

    /// The connection in use is gone.
    pub(crate) fn disconnect(&mut self) {
        if let Some(direct) = self.direct.take() {
            let alive_at = direct.signs.alive_at();
            self.past = self.past.max(alive_at);
            self.past_heard = self.past_heard.max(direct.signs.heard);
            self.direct_seen = self.direct_seen.max(alive_at.unwrap_or_default());
        }
        self.neighbours.clear();
    }

    /// Up to when the peer is known to have heard, and to have been heard.
    pub(crate) fn alive_at(&self) -> Option<Instant> {
        let direct = self.direct.as_ref().map(|direct| direct.signs);
        let heard = direct.and_then(|signs| signs.heard).max(self.relayed.heard);
        let is_heard = direct.and_then(|signs| signs.is_heard).max(self.relayed.is_heard);
        let both = match (heard, is_heard) {
            (Some(heard), Some(_)) if planted!(OneWayUnnoticed) => Some(heard),
            (Some(heard), Some(is_heard)) => Some(heard.min(is_heard)),
            (None, _) | (_, None) => None,
        };
        both.max(self.past)
    }

    /// Judges the direct link. Says whether that has changed.
    pub(crate) fn judge_direct(&mut self, now: Instant, config: &Config) -> bool {
        let alive_at = self.direct.as_ref().and_then(|direct| direct.signs.alive_at());
        self.direct_seen = self.direct_seen.max(alive_at.unwrap_or_default());
        let alive = alive_at.is_some_and(|at| now - at < config.relay_after);
        // It fails while it is held down too, which holds it for longer.
        if core::mem::replace(&mut self.direct_alive, alive) && !alive {
            self.direct_damper.fail(now, config);
        }
        let ok = alive && !self.direct_damper.holds(now);
        core::mem::replace(&mut self.direct_ok, ok) != ok
    }

    /// Whether the direct link is dead for so long, or so unsteady, that a relay is better.
    pub(crate) fn wants_relay(&self, now: Instant, config: &Config) -> bool {
        !self.direct_ok && (self.direct_damper.holds(now) || now - self.direct_seen >= config.relay_after)
    }

    /// Judges the peer: what has changed, if anything.
    pub(crate) fn judge(&mut self, now: Instant, config: &Config) -> Option<Turn> {
        let alive = self.end.is_some() && self.alive_at().is_some_and(|at| now - at < config.detect);
        if core::mem::replace(&mut self.alive, alive) && !alive {
            self.damper.fail(now, config);
        }
        match (self.up, alive) {
            (true, false) => {
                let direct = self.direct.as_ref().and_then(|direct| direct.signs.heard);
                let heard = direct.max(self.relayed.heard).max(self.past_heard);
                // Its last echo is older than its last sign.
                let silent = heard.is_none_or(|at| now - at >= config.detect / 2);
                let cause = if silent { DownCause::Silent } else { DownCause::Unheard };
                Some(Turn::Down { cause, dropped: self.fall() })
            }
            (false, true) if !self.damper.holds(now) => {
                self.up = true;
                self.opening += 1;
                self.beat_due = true;
                Some(Turn::Up)
            }
            (true, true) | (false, _) => None,
        }
    }

    /// The peer is Down: what waits in data and bulk is dropped; says how many frames.
    pub(crate) fn fall(&mut self) -> usize {
        self.up = false;
        self.beat_due = true;
        self.data_out.clear() + self.bulk_out.clear()
    }

    /// When something may change next by time alone.
    pub(crate) fn next_change(&self, now: Instant, config: &Config) -> Instant {
        let direct_alive = self.direct.as_ref().and_then(|direct| direct.signs.alive_at());
        let alive = self.alive_at();
        [
            Some(self.next_beat),
            direct_alive.map(|at| at + config.relay_after),
            Some(self.direct_seen + config.relay_after),
            alive.map(|at| at + config.detect),
            Some(self.damper.held_until()),
            Some(self.direct_damper.held_until()),
        ]
        .into_iter()
        .flatten()
        .filter(|at| *at > now)
        .min()
        .unwrap_or(Instant::NEVER)
    }
}

/// A change of a peer's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Up,
    Down { cause: DownCause, dropped: usize },
}

/// What the fields of a frame and of a relay around it take, at most.
const OVERHEAD: usize = 128;
