//! Two devices that do what the specification asks of a client, and a network that loses, repeats, delays and reorders their
//! datagrams: what comes of QoS 1 and 2 keeps its promises, both ways.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use newtmq_base::{Instant, Rng};
use newtmq_mqtt::QoS::{self, AtLeastOnce, ExactlyOnce};
use newtmq_mqtt_sn::{Config, Datagram, Message, Publish, ReturnCode, SnQoS, TopicRef, TopicSpec};
use proptest::prelude::*;

use crate::behaviour::{ack, nack};
use crate::world::{Device, World, device};

/// What the network does, in percent, until it is healed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Faults {
    lost: u64,
    repeated: u64,
    delay_ms: u64,
    /// Devices come back from another address, or to another gateway, so often.
    moves: u64,
}

/// Gateways that have nothing in common but what is kept with sessions.
const GATEWAYS: usize = 2;
/// No datagram takes longer.
const DELAY_MS_MAX: u64 = 3_000;
const RETRY: Duration = Duration::from_secs(10);
const HEALED_AT: Instant = Instant::from_millis(300_000);
const END: Instant = Instant::from_millis(1_500_000);

/// One exchange that a device has begun: what it sent last, and when it sends it again.
struct Asked {
    bytes: Vec<u8>,
    at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Subscribing,
    Active,
    FallingAsleep,
    Asleep,
    Waking,
}

/// A device. The first one publishes, the second one has subscribed and sleeps at times.
struct Model {
    id: &'static str,
    device: Device,
    phase: Phase,
    asked: Option<Asked>,
    next_msg_id: u16,
    /// When it says something else: a sign of life, the end of its sleep.
    next: Instant,
    sleeps: bool,
    moves: u64,
    // The publisher.
    to_publish: Vec<QoS>,
    published: usize,
    releasing: bool,
    topic_id: u16,
    // The subscriber.
    topics: BTreeSet<u16>,
    held: BTreeSet<u16>,
    over: BTreeMap<u16, Vec<u8>>,
    got: Vec<Vec<u8>>,
}

impl Model {
    fn new(id: &'static str, port: u16) -> Model {
        Model {
            id,
            device: device(port),
            phase: Phase::Connecting,
            asked: None,
            next_msg_id: 1,
            next: Instant::NEVER,
            sleeps: false,
            moves: 0,
            to_publish: Vec::new(),
            published: 0,
            releasing: false,
            topic_id: 0,
            topics: BTreeSet::new(),
            held: BTreeSet::new(),
            over: BTreeMap::new(),
            got: Vec::new(),
        }
    }

    fn ask(&mut self, now: Instant, message: Message<'_>, out: &mut Vec<Vec<u8>>) {
        let bytes = bytes_of(message);
        out.push(bytes.clone());
        self.asked = Some(Asked { bytes, at: now + RETRY });
    }

    /// It goes on from somewhere else, at times.
    fn roam(&mut self, rng: &mut Rng) {
        if rng.below(100) < self.moves {
            let gateway = rng.below(GATEWAYS as u64) as usize;
            // Two devices never have one address.
            let port = 1000 + 2 * rng.below(25_000) as u16 + (self.device.at.address().port() & 1);
            self.device = Device { gateway, ..device(port) };
        }
    }

    fn connect(&mut self, now: Instant, rng: &mut Rng, out: &mut Vec<Vec<u8>>) {
        self.roam(rng);
        self.phase = Phase::Connecting;
        // What it registered stays, by 7.3; a careful device asks again.
        self.topics.clear();
        self.topic_id = 0;
        let id = self.id;
        self.ask(now, Message::Connect { will: false, clean_session: false, duration: 60, client_id: id }, out);
    }

    /// Goes on with what is to be done.
    fn go_on(&mut self, now: Instant, out: &mut Vec<Vec<u8>>) {
        self.asked = None;
        if self.published == self.to_publish.len() {
            return;
        }
        let msg_id = self.next_msg_id;
        if self.topic_id == 0 {
            self.ask(now, Message::Register { topic_id: 0, msg_id, topic: "topic" }, out);
        } else if self.releasing {
            self.ask(now, Message::Pubrel(msg_id), out);
        } else {
            self.publish(now, false, out);
        }
    }

    fn publish(&mut self, now: Instant, dup: bool, out: &mut Vec<Vec<u8>>) {
        let qos = self.to_publish[self.published];
        let data = self.published.to_string();
        let (topic, msg_id) = (TopicRef::Normal(self.topic_id), self.next_msg_id);
        let publish = Publish { dup, qos: SnQoS::Mqtt(qos), retain: false, topic, msg_id, data: data.as_bytes() };
        self.ask(now, Message::Publish(publish), out);
        // Sent again it says so.
        let again = bytes_of(Message::Publish(Publish { dup: true, ..publish }));
        self.asked = Some(Asked { bytes: again, at: now + RETRY });
    }

    fn is_over(&mut self, now: Instant, out: &mut Vec<Vec<u8>>) {
        self.published += 1;
        self.next_msg_id += 1;
        self.releasing = false;
        self.go_on(now, out);
    }

    fn on_time(&mut self, now: Instant, rng: &mut Rng, out: &mut Vec<Vec<u8>>) {
        if let Some(asked) = &mut self.asked
            && asked.at <= now
        {
            asked.at = now + RETRY;
            out.push(asked.bytes.clone());
        }
        if self.next > now {
            return;
        }
        self.next = now + Duration::from_secs(15 + rng.below(10));
        match self.phase {
            Phase::Active if self.sleeps && rng.below(3) == 0 => {
                self.phase = Phase::FallingAsleep;
                self.ask(now, Message::Disconnect(Some(100)), out);
            }
            Phase::Active => out.push(bytes_of(Message::Pingreq(None))),
            Phase::Asleep if rng.below(4) == 0 => self.connect(now, rng, out),
            Phase::Asleep => {
                self.roam(rng);
                self.phase = Phase::Waking;
                let id = self.id;
                self.ask(now, Message::Pingreq(Some(id)), out);
            }
            Phase::Connecting | Phase::Subscribing | Phase::FallingAsleep | Phase::Waking => {}
        }
    }

    fn on_message(&mut self, now: Instant, message: Message<'_>, rng: &mut Rng, out: &mut Vec<Vec<u8>>) {
        match message {
            Message::Connack(ReturnCode::Accepted) if self.phase == Phase::Connecting => {
                self.next = now + Duration::from_secs(15);
                if self.to_publish.is_empty() && self.got.is_empty() {
                    self.phase = Phase::Subscribing;
                    let subscribe =
                        Message::Subscribe { dup: false, qos: ExactlyOnce, msg_id: 9, topic: TopicSpec::Name("+") };
                    self.ask(now, subscribe, out);
                } else {
                    self.phase = Phase::Active;
                    self.go_on(now, out);
                }
            }
            Message::Suback { ack, .. } if self.phase == Phase::Subscribing => {
                if ack.code == ReturnCode::Accepted {
                    self.phase = Phase::Active;
                    self.asked = None;
                }
            }
            Message::Disconnect(_) => match self.phase {
                Phase::FallingAsleep => {
                    self.phase = Phase::Asleep;
                    self.asked = None;
                }
                // It was not connected, or is not any more.
                Phase::Active | Phase::Waking | Phase::Subscribing => self.connect(now, rng, out),
                Phase::Asleep | Phase::Connecting => {}
            },
            Message::Pingresp if self.phase == Phase::Waking => {
                self.phase = Phase::Asleep;
                self.asked = None;
            }
            Message::Regack(ack) if self.topic_id == 0 && ack.msg_id == self.next_msg_id => {
                if ack.code == ReturnCode::Accepted && self.phase == Phase::Active {
                    self.topic_id = ack.topic_id;
                    self.go_on(now, out);
                }
            }
            // What comes late of the connection before is not what CONNECT waits for.
            _ if self.phase == Phase::Connecting => {}
            _ => self.on_exchange(now, message, out),
        }
    }

    fn on_exchange(&mut self, now: Instant, message: Message<'_>, out: &mut Vec<Vec<u8>>) {
        let qos = self.to_publish.get(self.published);
        let current = self.next_msg_id;
        match message {
            Message::Puback(ack) if ack.msg_id == current && qos.is_some() && !self.releasing => match ack.code {
                ReturnCode::Accepted if qos == Some(&AtLeastOnce) => self.is_over(now, out),
                ReturnCode::InvalidTopicId => {
                    self.topic_id = 0;
                    self.go_on(now, out);
                }
                _ => {}
            },
            Message::Pubrec(msg_id) if msg_id == current && qos == Some(&ExactlyOnce) && !self.releasing => {
                self.releasing = true;
                self.go_on(now, out);
            }
            Message::Pubcomp(msg_id) if msg_id == current && self.releasing => self.is_over(now, out),
            Message::Register { topic_id, msg_id, .. } => {
                self.topics.insert(topic_id);
                out.push(bytes_of(Message::Regack(ack(topic_id, msg_id))));
            }
            Message::Publish(publish) => self.on_publish(&publish, out),
            Message::Pubrel(msg_id) => {
                self.held.remove(&msg_id);
                out.push(bytes_of(Message::Pubcomp(msg_id)));
            }
            _ => {}
        }
    }

    fn on_publish(&mut self, publish: &Publish<'_>, out: &mut Vec<Vec<u8>>) {
        let Publish { topic, msg_id, data, qos, .. } = *publish;
        if !self.topics.contains(&topic.id()) {
            let refused = nack(topic.id(), msg_id, ReturnCode::InvalidTopicId);
            out.push(bytes_of(Message::Puback(refused)));
            return;
        }
        if qos == SnQoS::Mqtt(AtLeastOnce) {
            self.got.push(data.into());
            out.push(bytes_of(Message::Puback(ack(topic.id(), msg_id))));
        } else {
            // A late copy of what is over is known by what it says.
            let late = self.over.get(&msg_id).is_some_and(|over| *over == data);
            if !late && self.held.insert(msg_id) {
                self.got.push(data.into());
                self.over.insert(msg_id, data.into());
            }
            out.push(bytes_of(Message::Pubrec(msg_id)));
        }
    }
}

fn bytes_of(message: Message<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes).unwrap();
    bytes
}

/// To the gateway, which device, where that was, what.
type Flying = (bool, usize, Device, Vec<u8>);

struct Net {
    rng: Rng,
    faults: Faults,
    /// By when it arrives, in order.
    under_way: BTreeMap<(Instant, u64), Flying>,
    sent: u64,
}

impl Net {
    fn send(&mut self, now: Instant, to_gateway: bool, who: usize, device: &Device, bytes: Vec<u8>) {
        let healed = now >= HEALED_AT;
        if !healed && self.rng.below(100) < self.faults.lost {
            return;
        }
        let copies = if !healed && self.rng.below(100) < self.faults.repeated { 2 } else { 1 };
        for _ in 0..copies {
            let delay = 1 + self.rng.below(if healed { 10 } else { self.faults.delay_ms });
            self.sent += 1;
            let at = now + Duration::from_millis(delay);
            self.under_way.insert((at, self.sent), (to_gateway, who, device.clone(), bytes.clone()));
        }
    }
}

pub(crate) fn run(
    seed: u64,
    faults: Faults,
    sleeps: bool,
    deaths: &[u64],
    messages: &[QoS],
) -> Result<(), TestCaseError> {
    let mut world = World::with(&Config::default(), newtmq_node::ShardConfig::default(), GATEWAYS);
    let watcher = world.mqtt("watcher");
    world.mqtt_subscribe(watcher, "#");
    let mut net = Net { rng: Rng::from_number(seed), faults, under_way: BTreeMap::new(), sent: 0 };
    let mut models = [Model::new("subscriber", 1), Model::new("publisher", 2)];
    models[0].sleeps = sleeps;
    for model in &mut models {
        model.moves = faults.moves;
    }
    let mut outs = Vec::new();
    models[0].connect(world.now, &mut net.rng, &mut outs);
    let mut second = Instant::START;
    loop {
        let now = world.now;
        for bytes in outs.drain(..) {
            net.send(now, true, 0, &models[0].device, bytes);
        }
        for (who, model) in models.iter().enumerate() {
            for bytes in world.take(&model.device) {
                net.send(now, false, who, &model.device, bytes);
            }
        }
        let arrival = net.under_way.first_key_value().map_or(Instant::NEVER, |((at, _), _)| *at);
        if arrival.min(second) > END {
            break;
        }
        let next = arrival.min(second);
        world.advance(next.saturating_since(now));
        let mut replies: Vec<(usize, Vec<u8>)> = Vec::new();
        if arrival > second {
            if deaths.contains(&(second.as_nanos() / 1_000_000_000)) {
                let dies = second.as_nanos() as usize / 1_000_000_000 % GATEWAYS;
                world.replace_gateway(dies, &Config::default());
                // The next one has another address.
                net.under_way.retain(|_, (to_gateway, _, device, _)| !*to_gateway || device.gateway != dies);
            }
            second = second + Duration::from_secs(1);
            if models[0].phase == Phase::Active && models[1].to_publish.is_empty() {
                models[1].to_publish = messages.to_vec();
                let mut out = Vec::new();
                models[1].connect(world.now, &mut net.rng, &mut out);
                replies.extend(out.into_iter().map(|bytes| (1, bytes)));
            }
            for (who, model) in models.iter_mut().enumerate() {
                let mut out = Vec::new();
                model.on_time(world.now, &mut net.rng, &mut out);
                replies.extend(out.into_iter().map(|bytes| (who, bytes)));
            }
        } else if let Some((_, (to_gateway, who, device, bytes))) = net.under_way.pop_first() {
            if to_gateway {
                world.send_bytes(&device, &bytes);
            } else if device == models[who].device {
                let message = Datagram::decode(&bytes).unwrap().message;
                let mut out = Vec::new();
                models[who].on_message(world.now, message, &mut net.rng, &mut out);
                replies.extend(out.into_iter().map(|bytes| (who, bytes)));
            }
        }
        for (who, bytes) in replies {
            let device = models[who].device.clone();
            net.send(world.now, true, who, &device, bytes);
        }
    }
    prop_assert_eq!(models[1].published, messages.len(), "the publisher is through: {:?}", models[1].phase);
    let at_watcher: Vec<String> =
        world.received(watcher).iter().filter_map(|got| got.strip_prefix("topic ").map(Into::into)).collect();
    let at_device: Vec<String> = models[0].got.iter().map(|data| String::from_utf8_lossy(data).into_owned()).collect();
    for (name, got) in [("watcher", at_watcher), ("device", at_device)] {
        let mut firsts = Vec::new();
        for (index, qos) in messages.iter().enumerate() {
            let text = index.to_string();
            let count = got.iter().filter(|got| **got == text).count();
            prop_assert!(count >= 1, "{}: {} {:?} is lost: {:?}", name, index, qos, got);
            prop_assert!(count == 1 || *qos != ExactlyOnce, "{}: {} came {} times", name, index, count);
            firsts.extend(got.iter().position(|got| *got == text));
        }
        prop_assert!(firsts.is_sorted(), "{}: {:?}", name, got);
    }
    Ok(())
}

pub(crate) fn cases() -> impl Strategy<Value = (u64, Faults, bool, Vec<u64>, Vec<QoS>)> {
    let moves = prop_oneof![Just(0), 0..60u64];
    let faults = (0..40u64, 0..40u64, 1..DELAY_MS_MAX, moves).prop_map(|(lost, repeated, delay_ms, moves)| Faults {
        lost,
        repeated,
        delay_ms,
        moves,
    });
    let messages = prop::collection::vec(prop_oneof![Just(AtLeastOnce), Just(ExactlyOnce)], 1..12);
    let deaths = prop::collection::vec(5..300u64, 0..3);
    (any::<u64>(), faults, any::<bool>(), deaths, messages)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.div_ceil(4), ..ProptestConfig::default() })]
    #[test]
    fn promises_are_kept((seed, faults, sleeps, deaths, messages) in cases()) {
        run(seed, faults, sleeps, &deaths, &messages)?;
    }
}

/// One case that follows from a number.
#[cfg(newtmq_mutants)]
pub(crate) fn run_seed(seed: u64) {
    let faults = Faults { lost: 20, repeated: 30, delay_ms: DELAY_MS_MAX, moves: 20 };
    run(seed, faults, seed % 2 == 0, &[], &[AtLeastOnce, ExactlyOnce, ExactlyOnce, AtLeastOnce, ExactlyOnce]).unwrap();
}
