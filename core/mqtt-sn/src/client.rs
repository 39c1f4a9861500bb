//! One client as the gateway sees it: where it is, what it does, what is under way to it and from it.

use core::time::Duration;

use newtmq_base::{Instant, planted};
use newtmq_mqtt::{Decoder, QoS};

use crate::address::Address;
use crate::done::Done;
use crate::io::{ClientState, ClientView, LinkId, Will};
use crate::queue::{Item, Queue};
use crate::registry::{Key, Registry};
use crate::{Ack, TopicRef};

/// A list that is empty most of the time, and then costs a pointer.
#[derive(Debug)]
pub(crate) struct Thin<T>(#[allow(clippy::box_collection)] Option<Box<Vec<T>>>);

impl<T> Default for Thin<T> {
    fn default() -> Thin<T> {
        Thin(None)
    }
}

impl<T> core::ops::Deref for Thin<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.0.as_ref().map_or(&[], |list| list)
    }
}

impl<T> core::ops::DerefMut for Thin<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.0.as_mut().map_or(&mut [], |list| list)
    }
}

impl<T> Thin<T> {
    pub(crate) fn push(&mut self, item: T) {
        self.0.get_or_insert_default().push(item);
    }

    pub(crate) fn remove(&mut self, at: usize) -> Option<T> {
        let list = self.0.as_mut().filter(|list| at < list.len())?;
        let item = list.remove(at);
        if list.is_empty() {
            self.0 = None;
        }
        Some(item)
    }
}

/// What a CONNECT says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectFacts {
    pub(crate) will: bool,
    pub(crate) clean_session: bool,
    pub(crate) duration: u16,
}

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: Box<str>,
    /// None if somebody else has its address now.
    pub(crate) address: Option<Address>,
    pub(crate) link: LinkId,
    pub(crate) state: ClientState,
    pub(crate) facts: ConnectFacts,
    /// Connecting because of a PINGREQ: it has to be a sleeper.
    pub(crate) adopting: bool,
    /// Its session ends with its link.
    pub(crate) is_clean: bool,
    /// Nothing has come from it since its CONNECT was accepted.
    pub(crate) untouched: bool,
    /// The broker does not read its link.
    pub(crate) held: bool,
    /// The broker was asked whether it has more for a client that is awake, and whether its answer will count.
    pub(crate) draining: Option<Draining>,
    /// What is kept with its session has changed.
    pub(crate) dirty: bool,
    pub(crate) sleep: u16,
    /// What the broker permits: the highest QoS, and RETAIN. More would end the link.
    pub(crate) max_qos: QoS,
    pub(crate) may_retain: bool,
    /// Server Keep Alive of the broker in seconds, and when the link has to show life next.
    pub(crate) link_keep_alive: u16,
    pub(crate) link_ping: Instant,
    pub(crate) heard: Instant,
    /// When its CONNECT came or was accepted.
    pub(crate) since: Instant,
    /// When its timer is armed.
    pub(crate) armed: Instant,
    /// Holds what came of a packet that is not whole yet; none if nothing did.
    pub(crate) decoder: Option<Box<Decoder>>,
    pub(crate) registry: Registry,
    pub(crate) will: Option<Box<Will>>,
    /// A change of the will that the broker has not answered.
    pub(crate) will_change: Option<Box<WillChange>>,
    /// Waits for what is under way.
    pub(crate) queue: Queue,
    /// What the client has to answer.
    pub(crate) outgoing: Option<Box<Outgoing>>,
    /// QoS 1 and 2 of the client that are not over.
    pub(crate) inbound: Thin<Inbound>,
    /// Its SUBSCRIBE or UNSUBSCRIBE that the broker has not answered.
    pub(crate) request: Option<Box<Request>>,
    /// Exchanges that are over, to know what repeats them.
    pub(crate) done: Done,
}

/// What the broker's answer says that it has no more for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Draining {
    /// That the client may sleep on.
    Asked,
    /// Nothing: something was acknowledged since, for which the broker sends what it had to keep back.
    Outdated,
}

/// A will on its way to the broker.
#[derive(Debug)]
pub(crate) struct WillChange {
    pub(crate) will: Option<Will>,
    pub(crate) asked_by: WillAsk,
}

/// What is answered when the will is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WillAsk {
    /// Nothing: the will of an earlier connection goes on.
    Nothing,
    Connect,
    TopicUpdate,
    MessageUpdate,
}

/// A message of the broker for the client.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) key: Key,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    /// The broker's Packet Identifier is the MsgId, so that it is the same after a reconnect. 0 for QoS 0.
    pub(crate) msg_id: u16,
    /// How often the client did not know the topic id.
    pub(crate) unknown: u8,
    pub(crate) data: Box<[u8]>,
}

/// What was sent and has to be answered.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) step: Step,
    /// How often it was sent.
    pub(crate) sent: u8,
    /// When it is sent again; never while the client sleeps.
    pub(crate) next: Instant,
}

#[derive(Debug)]
pub(crate) enum Step {
    Register {
        topic_id: u16,
        msg_id: u16,
    },
    Message(Delivery),
    /// The client has it, the broker has not said that it is to be released.
    AwaitRelease(u16),
    Release(u16),
}

/// A QoS 1 or 2 message of the client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inbound {
    pub(crate) msg_id: u16,
    pub(crate) topic: TopicRef,
    pub(crate) qos: QoS,
    pub(crate) step: InboundStep,
    pub(crate) fingerprint: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InboundStep {
    /// The broker has not acknowledged it.
    Sent,
    /// PUBREC was sent to the client.
    Received,
    /// PUBREL was handed to the broker.
    Released,
}

/// A SUBSCRIBE or UNSUBSCRIBE under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) msg_id: u16,
    pub(crate) fingerprint: u64,
    /// What to acknowledge a SUBSCRIBE with; none for UNSUBSCRIBE.
    pub(crate) subscribe: Option<SubscribeAck>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct SubscribeAck {
    /// As for SUBACK.
    pub(crate) ack: Ack,
    /// The TopicId is one of the client's registrations.
    pub(crate) registered: bool,
}

/// Most QoS 1 and 2 messages of a client at a time. The specification has one.
pub(crate) const INBOUND_MAX: usize = 8;

impl Client {
    pub(crate) fn new(id: Box<str>, address: Address, link: LinkId, facts: ConnectFacts, now: Instant) -> Client {
        Client {
            id,
            address: Some(address),
            link,
            state: ClientState::Connecting,
            facts,
            adopting: false,
            is_clean: facts.clean_session,
            untouched: true,
            held: false,
            draining: None,
            dirty: false,
            sleep: 0,
            max_qos: QoS::ExactlyOnce,
            may_retain: true,
            link_keep_alive: 0,
            link_ping: Instant::NEVER,
            heard: now,
            since: now,
            armed: Instant::NEVER,
            decoder: None,
            registry: Registry::default(),
            will: None,
            will_change: None,
            queue: Queue::default(),
            outgoing: None,
            inbound: Thin::default(),
            request: None,
            done: Done::default(),
        }
    }

    /// Whether something may be sent to it unasked.
    pub(crate) fn listens(&self) -> bool {
        self.address.is_some() && matches!(self.state, ClientState::Active | ClientState::Awake)
    }

    /// When it counts as lost if nothing is heard.
    pub(crate) fn expires(&self, idle_timeout: Duration) -> Instant {
        match self.state {
            ClientState::Connecting => self.since + idle_timeout,
            ClientState::Active if self.facts.duration == 0 => Instant::NEVER,
            ClientState::Active => self.heard + tolerated(self.facts.duration),
            ClientState::Asleep | ClientState::Awake if planted!(SnSleepNeverEnds) => Instant::NEVER,
            ClientState::Asleep | ClientState::Awake => self.heard + tolerated(self.sleep),
        }
    }

    /// The next thing that is due.
    pub(crate) fn deadline(&self, idle_timeout: Duration) -> Instant {
        let retry = self.outgoing.as_ref().map_or(Instant::NEVER, |outgoing| outgoing.next);
        self.expires(idle_timeout).min(retry).min(self.link_ping)
    }

    /// Takes back what the client has not answered; when it listens again it is sent again.
    pub(crate) fn take_back(&mut self) {
        let Some(outgoing) = self.outgoing.take() else { return };
        match outgoing.step {
            Step::Register { .. } => {}
            Step::Message(delivery) => self.queue.push_front(Item::Message(Delivery { dup: true, ..delivery })),
            step @ (Step::AwaitRelease(_) | Step::Release(_)) => {
                self.outgoing = Some(Box::new(Outgoing { step, sent: 0, next: Instant::NEVER }));
            }
        }
    }

    /// An answer to what it has asked does not reach it any more, or not surely: the id that is in it counts as not told.
    pub(crate) fn miss_answer(&mut self) {
        if let Some(subscribe) = self.request.as_mut().and_then(|request| request.subscribe.as_mut())
            && !planted!(SnMissedAnswerTold)
        {
            subscribe.registered = false;
        }
    }

    /// An answer has come to a message that was taken back: before the client slept, or connected again, it was sent.
    pub(crate) fn recall(&mut self, msg_id: u16) {
        let is_it = |item: &Item| matches!(item, Item::Message(delivery) if delivery.dup && delivery.msg_id == msg_id);
        if self.outgoing.is_some() || !self.queue.front().is_some_and(is_it) || planted!(SnLateAnswerForgotten) {
            return;
        }
        if let Some(Item::Message(delivery)) = self.queue.pop_front() {
            self.outgoing = Some(Box::new(Outgoing { step: Step::Message(delivery), sent: 1, next: Instant::NEVER }));
        }
    }

    pub(crate) fn view(&self) -> ClientView<'_> {
        let in_flight = self.outgoing.as_ref().is_some_and(|outgoing| matches!(outgoing.step, Step::Message(_)));
        ClientView {
            id: &self.id,
            endpoint: self.address.as_ref().map(|address| address.endpoint),
            state: self.state,
            link: self.link,
            keep_alive: self.facts.duration,
            sleep: self.sleep,
            heard: self.heard,
            waiting: self.queue.len() + usize::from(in_flight),
            topics: self.registry.len(),
        }
    }
}

/// How long a client may be silent that promised to be heard in time: 10 % above it beyond a minute, 50 % otherwise
/// (7.2).
pub(crate) fn tolerated(seconds: u16) -> Duration {
    let percent = if seconds > 60 { 110 } else { 150 };
    Duration::from_millis(u64::from(seconds) * percent * 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerance_of_keep_alive() {
        for (seconds, millis) in [(1, 1_500), (60, 90_000), (61, 67_100), (1000, 1_100_000), (u16::MAX, 72_088_500)] {
            assert_eq!(tolerated(seconds), Duration::from_millis(millis), "{seconds}");
        }
    }

    #[test]
    fn a_client_is_small() {
        // Most are idle or asleep: 1 KiB each, with what the broker has for them (150 bytes a connection, 300 a session).
        assert!(size_of::<Client>() <= 200, "{}", size_of::<Client>());
    }
}
