//! A client of MQTT-SN: a device that speaks datagrams with the gateway of a node, sleeps, and moves to other addresses. It
//! is one more kind of client: its scenario tells it the same, it makes messages of the same kind, and it writes the same
//! history. A connection there is what the specification calls active or awake; while the device sleeps it has none, and
//! its session goes on.
//!
//! It does what a careful device has to. One exchange goes on at a time, and is repeated three times. With CONNECT it
//! waits until every datagram from before has come or is lost: nothing in the protocol could tell it from a new one. Of what is
//! not a copy it remembers QoS 2 exchanges that are over, for the same reason. What the network doubles is answered again
//! and not written down: it is not the broker's doing.

mod acts;
mod receiving;
mod sending;
#[cfg(test)]
mod tests;

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use newtmq_base::Instant;
use newtmq_mqtt::QoS;

use super::session::{Outgoing, Stage};
use super::topics::Topics;
use super::{ClientOutput, Context, Retry, Row};
use crate::draw::of_name;
use crate::history::{ClientIx, Closer, ConnIx, Event, PublishFacts, Uid};
use crate::scenario::{Action, ClientSpec, FilterSpec, Scenario, Step, WillSpec, WorldAction};

/// T_retry: less than what the specification says, so that all copies of a message come within the time for which a gateway
/// remembers what it has answered.
const RETRY: Duration = Duration::from_secs(2);
/// N_retry: how often a request is repeated before the device takes its gateway for lost.
const RETRIES_MAX: u32 = 3;
/// A gateway takes the same CONNECT for a copy for so long.
const SAME_CONNECT: Duration = Duration::from_millis(2_100);
/// T_wait: after a gateway was busy.
const BUSY: Duration = Duration::from_secs(5);
/// A QoS 2 exchange that is over is remembered for so long, should a copy of its PUBLISH come.
const OVER: Duration = Duration::from_secs(10);
/// Datagrams that are known again.
const SEEN_MAX: usize = 512;
/// Of a hundred parts of its time of sleep a client sleeps so many before it wakes by itself.
const WAKES_PERCENT: u32 = 80;

/// A datagram of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnDatagram {
    /// The node whose gateway it is for.
    pub node: u16,
    /// The address that it comes from.
    pub from: SocketAddr,
    /// The connection that it belongs to.
    pub conn: Option<ConnIx>,
    /// What comes of it at the gateway.
    pub meaning: Meaning,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What the history says when a datagram has come to its gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Nothing.
    Other,
    /// A PUBLISH was sent.
    Publish(PublishFacts),
    /// The client has disconnected.
    Disconnect,
}

/// A datagram to a client.
#[derive(Debug, Clone, Copy)]
pub struct SnArrival<'a> {
    /// Names it: two copies have the same.
    pub number: u64,
    /// When the gateway sent it.
    pub sent_at: Instant,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// What a client knows of the scenario beside its own part.
#[derive(Debug, Clone)]
struct Around {
    predefined: Vec<String>,
    /// The network neither loses, doubles nor delays.
    reliable: bool,
    /// No datagram comes later than that.
    lifetime: Duration,
    /// Gateways tell topic ids again after CONNECT.
    told_again: bool,
    /// Sessions are not lost with nodes. Otherwise nobody tells a client whether its ids are those of this session.
    steady: bool,
}

/// One client.
#[derive(Debug)]
pub struct SnClient {
    ix: ClientIx,
    spec: ClientSpec,
    seed: u64,
    name: u64,
    around: Around,
    state: State,
    /// Active or awake, or about to be.
    conn: Option<ConnIx>,
    /// CONNACK, or what stands for it, is in the history.
    accepted: bool,
    /// CONNECT or PINGREQ of this connection was sent then. What was sent before concerns another one.
    begun: Instant,
    /// The gateway said then that it is connected, asleep or not connected. What was sent before says nothing.
    since: Instant,
    /// The gateway knows that it hears nothing: it sleeps, or has disconnected.
    away: bool,
    /// The last connection, to which late sins are ascribed.
    last_conn: Option<ConnIx>,
    /// What stands for publishing with QoS -1.
    unconnected: Option<ConnIx>,
    /// Whose address it has, and how often that has changed.
    host: u32,
    moves: u16,
    jobs: VecDeque<Job>,
    asked: Option<Asked>,
    /// Waits until the gateway knows the new address.
    suspended: Option<Asked>,
    /// QoS 1 or 2 of the client that is not done.
    unacked: Option<Unacked>,
    /// No exchange begins before.
    pause_until: Instant,
    connect_at: Instant,
    wake_at: Instant,
    sleep: Option<(u16, bool)>,
    search_at: Instant,
    last_sent: Instant,
    /// When CONNECT was sent or accepted last.
    last_connect: Option<Instant>,
    /// It asked for a clean session then.
    was_clean: bool,
    retry: Retry,
    rows: Vec<Row>,
    /// Names that it publishes to, with their ids.
    ids: BTreeMap<String, u16>,
    /// Ids that it was told, with their names.
    names: BTreeMap<u16, String>,
    /// It has forgotten ids that a gateway may think it knows.
    forgetful: bool,
    /// An answer of the connection before may tell an id after all.
    vague: bool,
    /// QoS 2 messages that came and were not released.
    received: BTreeMap<u16, (Option<Uid>, Instant)>,
    /// Those that were, and when.
    over: BTreeMap<u16, (Option<Uid>, Instant)>,
    seen: VecDeque<u64>,
    /// A gateway may have a will of this session.
    will_known: bool,
    frozen: bool,
    last_msg_id: u16,
    messages: u32,
    topics: Topics,
    payload: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not connected.
    Off,
    /// CONNECT was sent.
    Connecting,
    Active,
    Asleep,
    /// PINGREQ was sent, and PINGRESP has not come.
    Awake,
}

/// What a step asked for, when its turn comes.
#[derive(Debug, Clone)]
enum Job {
    Subscribe(FilterSpec),
    Unsubscribe(String),
    Publish(Outgoing),
    Ping,
    Sleep(u16, bool),
    Disconnect,
    Will(Option<WillSpec>),
}

/// What has to be answered.
#[derive(Debug, Clone)]
enum Ask {
    Connect {
        will: Option<(WillSpec, Uid)>,
    },
    Wake,
    Register {
        topic: Outgoing,
    },
    Publish,
    Release,
    Subscribe(FilterSpec),
    Unsubscribe(String),
    Ping,
    /// PINGREQ with its ClientId, from a new address.
    Rebind,
    Will(Option<Uid>),
    Disconnect(Option<(u16, bool)>),
}

#[derive(Debug)]
struct Asked {
    ask: Ask,
    msg_id: u16,
    first_at: Instant,
    again_at: Instant,
    tries: u32,
}

#[derive(Debug, Clone, Copy)]
struct Unacked {
    msg_id: u16,
    message: Outgoing,
    stage: Stage,
    /// It was sent before.
    again: bool,
}

impl SnClient {
    /// A client that has not done anything yet.
    #[must_use]
    pub fn new(ix: ClientIx, spec: &ClientSpec, scenario: &Scenario) -> SnClient {
        let sn = &scenario.sn;
        SnClient {
            ix,
            name: of_name(&spec.name),
            spec: spec.clone(),
            seed: scenario.seed,
            around: Around {
                predefined: sn.predefined.clone(),
                reliable: sn.is_reliable(),
                lifetime: Duration::from_micros(sn.lifetime_us()),
                told_again: sn.subs_resume.unwrap_or(true),
                steady: scenario.broker.session_expiry_interval_s.is_none()
                    && !scenario.steps.iter().any(may_lose_sessions),
            },
            state: State::Off,
            conn: None,
            accepted: false,
            begun: Instant::START,
            since: Instant::START,
            away: false,
            last_conn: None,
            unconnected: None,
            host: ix.0,
            moves: 0,
            jobs: VecDeque::new(),
            asked: None,
            suspended: None,
            unacked: None,
            pause_until: Instant::START,
            connect_at: Instant::NEVER,
            wake_at: Instant::NEVER,
            sleep: None,
            search_at: Instant::NEVER,
            last_sent: Instant::START,
            last_connect: None,
            was_clean: false,
            retry: Retry::new(),
            rows: Vec::new(),
            ids: BTreeMap::new(),
            names: BTreeMap::new(),
            forgetful: false,
            vague: false,
            received: BTreeMap::new(),
            over: BTreeMap::new(),
            seen: VecDeque::new(),
            will_known: false,
            frozen: false,
            last_msg_id: (ix.0.wrapping_mul(1_009) % 60_000) as u16,
            messages: 0,
            topics: Topics::default(),
            payload: Vec::new(),
        }
    }

    /// When it wants [`SnClient::on_tick`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.frozen {
            return None;
        }
        let mut next = self.connect_at.min(self.wake_at).min(self.search_at).min(self.retry.at).min(self.ping_at());
        match &self.asked {
            Some(asked) => next = next.min(asked.again_at),
            None if self.has_work() => next = next.min(self.pause_until),
            None => {}
        }
        for row in &self.rows {
            next = next.min(row.at);
        }
        (next < Instant::NEVER).then_some(next)
    }

    /// Time has passed.
    pub fn on_tick(&mut self, cx: &mut Context<'_>) {
        if self.frozen {
            return;
        }
        if self.asked.as_ref().is_some_and(|asked| asked.again_at <= cx.now) {
            self.ask_again(cx);
        }
        if self.retry.at <= cx.now {
            self.retry.at = Instant::NEVER;
            self.want_connect(cx);
        }
        if self.connect_at <= cx.now {
            self.send_connect(cx);
        }
        if self.wake_at <= cx.now {
            self.wake(cx);
        }
        if self.search_at <= cx.now {
            self.search(cx);
        }
        self.publish_due_rows(cx);
        if self.ping_at() <= cx.now {
            self.jobs.push_back(Job::Ping);
        }
        self.go_on(cx);
    }

    /// The node whose gateway it speaks with.
    #[must_use]
    pub fn node(&self) -> u16 {
        self.spec.node
    }

    /// The connection that it has, or had last.
    #[must_use]
    pub fn last_conn(&self) -> Option<ConnIx> {
        self.last_conn
    }

    /// The address that its datagrams come from.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        let (host, port) = match &self.spec.forwarder {
            Some(forwarder) => (of_name(forwarder) as u32 | 1 << 23, PORT),
            None => (self.host, PORT + self.moves),
        };
        let [_, a, b, c] = host.to_be_bytes();
        SocketAddr::from(([10, a, b, c], port))
    }

    /// Its ClientId.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.spec.id
    }

    /// Whether it is asleep, and nobody would wake it.
    #[must_use]
    pub fn sleeps(&self) -> bool {
        matches!(self.state, State::Asleep | State::Awake)
            || matches!(&self.asked, Some(Asked { ask: Ask::Disconnect(Some(_)), .. }))
            || self.jobs.iter().any(|job| matches!(job, Job::Sleep(..)))
    }

    /// Whether its exchange with this MsgId goes on.
    #[must_use]
    pub fn waits_for(&self, msg_id: u16) -> bool {
        self.unacked.is_some_and(|unacked| unacked.msg_id == msg_id && unacked.stage == Stage::Published)
    }

    /// The connection that it has.
    #[must_use]
    pub fn conn(&self) -> Option<ConnIx> {
        self.conn
    }

    /// Whether it asks for a clean session with a will, and has no answer yet: that is never the link that it had.
    pub(crate) fn connects_anew(&self) -> bool {
        self.state == State::Connecting && self.was_clean && self.spec.will.is_some()
    }

    /// When its Keep Alive wants a PINGREQ.
    fn ping_at(&self) -> Instant {
        let busy = self.asked.is_some() || self.jobs.iter().any(|job| matches!(job, Job::Ping));
        if self.state != State::Active || self.spec.keep_alive_s == 0 || busy {
            return Instant::NEVER;
        }
        self.last_sent + Duration::from_secs(u64::from(self.spec.keep_alive_s))
    }

    fn has_work(&self) -> bool {
        self.state == State::Active && (self.unacked.is_some() || !self.jobs.is_empty())
    }

    /// The connection is over for the client.
    fn end(&mut self, by: Closer, cx: &mut Context<'_>) {
        if let Some(conn) = self.conn.take() {
            cx.events.push(Event::Close { conn, by });
        }
        self.accepted = false;
        let asked = self.asked.take();
        self.vague = asked.is_some_and(|asked| matches!(asked.ask, Ask::Subscribe(_) | Ask::Register { .. }));
        // Where nothing is told again it will not learn them.
        self.forgetful |= self.vague && !self.around.told_again;
        self.suspended = None;
        if let Some(unacked) = &mut self.unacked {
            unacked.again = true;
        }
    }

    /// The gateway does not answer any more, or says that the client is not connected.
    fn lost(&mut self, by: Closer, cx: &mut Context<'_>) {
        if self.state == State::Connecting {
            self.retry.failures += 1;
        }
        self.end(by, cx);
        self.state = State::Off;
        self.away = false;
        self.sleep = None;
        self.wake_at = Instant::NEVER;
        // Answers that nobody waits for any more. What it publishes stays.
        self.jobs.retain(|job| matches!(job, Job::Publish(_)));
        if let Some(policy) = self.spec.reconnect {
            self.retry.later(policy, (self.seed, self.name), cx.now);
        }
    }

    fn uid(&self, number: u32) -> Option<Uid> {
        (number > 0).then_some(Uid { publisher: self.ix, number })
    }

    fn unexpected(&self, what: &str, cx: &mut Context<'_>) {
        if let Some(conn) = self.conn.or(self.last_conn) {
            cx.events.push(Event::Unexpected { conn, what: what.into() });
        }
    }

    fn next_msg_id(&mut self) -> u16 {
        self.last_msg_id = self.last_msg_id % 65_000 + 1;
        self.last_msg_id
    }

    /// The place of a topic in the list that both sides have, or `None`.
    fn predefined(&self, topic: &str) -> Option<u16> {
        let at = self.around.predefined.iter().position(|known| known == topic)?;
        u16::try_from(at + 1).ok()
    }

    fn send(&mut self, bytes: Vec<u8>, meaning: Meaning, cx: &mut Context<'_>) {
        self.last_sent = cx.now;
        let (node, from, conn) = (self.spec.node, self.address(), self.conn);
        cx.out.push(ClientOutput::Datagram(Box::new(SnDatagram { node, from, conn, meaning, bytes })));
    }
}

/// Whether a node goes, or is cut off from others.
fn may_lose_sessions(step: &Step) -> bool {
    matches!(
        step.action,
        Action::World(
            WorldAction::Crash { .. }
                | WorldAction::Shutdown { .. }
                | WorldAction::Wipe { .. }
                | WorldAction::CutLink { .. }
                | WorldAction::Partition { .. }
                | WorldAction::Isolate { .. }
                | WorldAction::Flap { .. }
                | WorldAction::Leave { .. }
                | WorldAction::ForceLeave { .. }
        )
    )
}

/// QoS 0 needs no answer.
fn is_answered(qos: QoS) -> bool {
    qos > QoS::AtMostOnce
}

/// Where clients send from at first.
const PORT: u16 = 1_884;
