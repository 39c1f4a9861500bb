//! Situations that chance seldom makes: each is a short play for the first three clients, with its lengths, sizes and
//! times left to chance. Others may walk in: what happens afterwards is drawn as everywhere.

use newtmq_mqtt::{ProtocolVersion, QoS, RetainHandling};

use super::Steps;
use super::kind::Kind;
use crate::history::ClientIx;
use crate::scenario::{Act, Action, ClientSpec, FilterSpec, NetSpec, PublishSpec, WillSpec, WorldAction};

/// Parts in a play.
const READER: usize = 0;
const WRITER: usize = 1;
const OTHER: usize = 2;

impl Steps<'_> {
    /// One of them.
    pub(super) fn plot(&mut self) {
        // What is found the least often is there twice.
        let plots: &[fn(&mut Self)] = &[
            Self::slow_reader,
            Self::full_lane,
            Self::second_copies,
            Self::second_copies,
            Self::narrow_window,
            Self::late_shard,
            Self::late_value,
            Self::late_value,
            Self::busy_members,
            Self::absent,
            Self::silent,
            Self::only_publishes,
            Self::many_retained,
            Self::retained_for_a_while,
            Self::backlog,
            Self::large_backlog,
            Self::hurried,
            Self::talkative,
        ];
        let plot = *self.source.pick(plots);
        plot(self);
        self.at_ms = self.at_ms.max(self.busy_until_ms);
    }

    /// A subscriber does not read until its publishers have to wait.
    fn slow_reader(&mut self) {
        self.wide_network();
        self.cast(READER, |_| {});
        let old = self.source.coin();
        self.cast(WRITER, |spec| spec.version = if old { ProtocolVersion::V311 } else { ProtocolVersion::V5 });
        self.cast(OTHER, |_| {});
        self.enter(READER, &[("big", QoS::AtMostOnce)]);
        self.enter(WRITER, &[]);
        self.enter(OTHER, &[("small", QoS::AtLeastOnce)]);
        self.wait(100, 200);
        self.does(READER, Act::SetReading(false));
        let total = self.source.between(1_300, 3_500) << 10;
        let size = self.source.between(48 << 10, 200 << 10);
        let qos = self.any_qos();
        self.say(WRITER, PublishSpec { size: size as u32, count: (total / size) as u32, ..message("big", qos) });
        self.wait(1, 3_000);
        let after = self.acked_qos();
        self.say(WRITER, PublishSpec { count: 3, ..message("small", after) });
        if self.source.percent(30) {
            self.wait(1, 100);
            self.does(WRITER, Act::Reset);
        }
        self.wait(1, 8_000);
        self.does(READER, Act::SetReading(true));
        self.wait(1, 500);
        if !self.clients[WRITER].up {
            self.enter(WRITER, &[]);
        }
        let count = self.source.between(1, 5) as u32;
        self.say(WRITER, PublishSpec { count, ..message("small", QoS::AtLeastOnce) });
    }

    /// More than a shard may owe another one.
    fn full_lane(&mut self) {
        self.wide_network();
        self.several_shards();
        for part in [READER, WRITER, OTHER] {
            self.cast(part, |_| {});
        }
        self.enter(READER, &[("big", QoS::AtLeastOnce)]);
        self.enter(OTHER, &[("#", QoS::AtLeastOnce)]);
        self.enter(WRITER, &[]);
        self.wait(100, 200);
        let total = self.source.between(1_200, 3_000) << 10;
        let size = self.source.between(16 << 10, 100 << 10);
        let every_us = if self.source.coin() { self.source.log(500, 20_000) } else { 0 };
        let qos = self.acked_qos();
        let count = (total / size) as u32;
        self.say(WRITER, PublishSpec { size: size as u32, count, every_us, ..message("big", qos) });
        self.wait(1, 2_000);
        self.say(WRITER, PublishSpec { count: 3, ..message("small", QoS::AtLeastOnce) });
    }

    /// A client before MQTT 5.0 that acknowledges so late that it gets messages again, and acknowledges those as well.
    fn second_copies(&mut self) {
        let retry_ms = self.source.between(1_000, 2_000);
        self.scenario.broker.retry_interval_ms = Some(retry_ms);
        self.scenario.broker.max_inflight = Some(self.source.between(1, 8) as u16);
        let late_ms = self.source.between(retry_ms, 3 * retry_ms);
        self.cast(READER, |spec| {
            spec.version = ProtocolVersion::V311;
            spec.clean = false;
            spec.ack_delay_ms = 0..=late_ms;
        });
        self.cast(WRITER, |_| {});
        self.enter(READER, &[("a", QoS::ExactlyOnce)]);
        self.enter(WRITER, &[]);
        self.wait(50, 100);
        for _ in 0..self.source.between(3, 8) {
            let (count, qos) = (self.source.between(1, 4) as u32, self.acked_qos());
            self.say(WRITER, PublishSpec { count, ..message("a", qos) });
            self.wait(1, retry_ms);
        }
        if self.source.coin() {
            self.wait(1, 2 * retry_ms);
            // What it hears no more is acknowledged by nobody, whatever else it still acknowledges.
            if self.source.percent(70) {
                self.does(READER, Act::SetReading(false));
                self.wait(100, 2 * late_ms);
            }
            self.does(READER, Act::Reset);
            self.does(READER, Act::SetReading(true));
            self.wait(1, 500);
            self.enter(READER, &[]);
        }
        self.wait(1, 2 * retry_ms);
    }

    /// A window of a few messages, with exchanges of both kinds in it, and connections that break in their midst.
    fn narrow_window(&mut self) {
        self.scenario.net.latency_us = self.source.log(100, 20_000)..=40_000;
        let receive_maximum = self.source.between(1, 3) as u16;
        let late_ms = if self.source.coin() { self.source.log(1, 100) } else { 0 };
        self.cast(READER, |spec| {
            (spec.clean, spec.session_expiry_s) = (false, 3_600);
            spec.receive_maximum = receive_maximum;
            spec.ack_delay_ms = 0..=late_ms;
        });
        self.cast(WRITER, |_| {});
        self.enter(READER, &[("a", QoS::ExactlyOnce)]);
        self.enter(WRITER, &[]);
        self.wait(150, 250);
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let (count, every_us) = (self.source.between(4, 20) as u32, self.source.log(1_000, 30_000));
            self.say(WRITER, PublishSpec { count, every_us, ..message("a", qos) });
        }
        for _ in 0..self.source.below(5) {
            self.wait(20, 400);
            let how = if self.source.coin() { Act::Reset } else { Act::Vanish };
            self.does(READER, how);
            self.wait(1, 50);
            self.enter(READER, &[]);
        }
        self.wait(1, 1_000);
        self.say(WRITER, PublishSpec { count: 3, ..message("a", QoS::AtLeastOnce) });
    }

    /// A shard hears of everything late while somebody subscribes and others publish.
    fn late_shard(&mut self) {
        self.several_shards();
        for part in [READER, WRITER, OTHER] {
            self.cast(part, |_| {});
        }
        self.enter(WRITER, &[]);
        self.enter(OTHER, &[]);
        self.enter(READER, &[]);
        self.wait(100, 200);
        let shards = u64::from(self.scenario.shards);
        let shard = self.source.below(shards) as u16;
        let by_us = self.source.between(100_000, 1_000_000);
        self.lag_of(shard, by_us);
        self.wait(1, 20);
        let filter = if self.source.coin() { "a" } else { "#" };
        self.subscribes(READER, &[(filter, QoS::AtLeastOnce)]);
        for _ in 0..self.source.between(2, 8) {
            self.wait(1, 200);
            let who = if self.source.coin() { WRITER } else { OTHER };
            let retain = who == WRITER && self.source.coin();
            self.say(who, PublishSpec { retain, ..message("a", QoS::AtLeastOnce) });
        }
        self.wait(1, 1_000);
        self.lag_of(shard, 0);
    }

    /// Retained messages are on their way to the shards that keep them while others subscribe.
    fn late_value(&mut self) {
        self.several_shards();
        self.scenario.net.shard_delay_us = 0..=self.source.log(5_000, 200_000);
        let readers: Vec<usize> = (0..self.clients.len()).filter(|client| *client != WRITER).collect();
        self.cast(WRITER, |_| {});
        self.enter(WRITER, &[]);
        for reader in &readers {
            self.cast(*reader, |_| {});
            self.enter(*reader, &[]);
        }
        self.wait(200, 500);
        for _ in 0..2 {
            self.wait(200, 500);
            for topic in ["a", "b", "c", "d", "e", "f"] {
                self.say(WRITER, PublishSpec { retain: true, ..message(topic, QoS::AtLeastOnce) });
            }
        }
        for reader in readers {
            self.wait(1, 10);
            self.subscribes(reader, &[("#", QoS::AtLeastOnce)]);
        }
        self.wait(1, 500);
    }

    /// Members of a group whose windows are full.
    fn busy_members(&mut self) {
        self.several_shards();
        let filter = "$share/g/a";
        let members: Vec<usize> = (0..self.clients.len()).filter(|client| *client != WRITER).collect();
        for member in members {
            let (window, late_ms) = (self.source.between(1, 3) as u16, self.source.log(1, 1_000));
            self.cast(member, |spec| {
                spec.receive_maximum = window;
                spec.ack_delay_ms = 0..=late_ms;
            });
            self.enter(member, &[(filter, QoS::AtLeastOnce)]);
        }
        self.cast(WRITER, |_| {});
        self.enter(WRITER, &[]);
        self.wait(100, 300);
        for _ in 0..self.source.between(2, 5) {
            let count = self.source.between(3, 20) as u32;
            let qos = self.acked_qos();
            self.say(WRITER, PublishSpec { count, ..message("a", qos) });
            self.wait(1, 500);
        }
        self.wait(1, 1_000);
    }

    /// A client with a will leaves its session alone, and messages for it grow old.
    fn absent(&mut self) {
        let expiry_s = if self.source.coin() { self.source.between(6, 60) as u32 } else { 3_600 };
        let delay_s = if self.source.coin() { self.source.between(1, 3) as u32 } else { 0 };
        let will = WillSpec { topic: "w".into(), qos: QoS::AtLeastOnce, retain: false, delay_s, expiry_s: 0 };
        self.cast(READER, |spec| {
            (spec.clean, spec.session_expiry_s) = (false, expiry_s);
            spec.will = Some(will);
        });
        self.cast(WRITER, |_| {});
        self.cast(OTHER, |_| {});
        self.enter(OTHER, &[("w", QoS::AtLeastOnce)]);
        self.enter(WRITER, &[]);
        self.enter(READER, &[("a", QoS::AtLeastOnce)]);
        self.wait(100, 200);
        let leaves = [Act::HangUp, Act::Reset, Act::Disconnect { with_will: true, session_expiry_s: None }];
        let leave = self.source.pick(&leaves).clone();
        self.does(READER, leave);
        self.wait(1, 200);
        for _ in 0..self.source.between(1, 4) {
            let expiry_s = self.source.below(4) as u32;
            self.say(WRITER, PublishSpec { expiry_s, ..message("a", QoS::AtLeastOnce) });
            self.wait(1, 1_000);
        }
        if self.source.percent(70) {
            self.wait(1_500, 5_500);
            self.enter(READER, &[]);
            self.wait(1, 500);
        }
    }

    /// A client says nothing for longer than its Keep Alive allows.
    fn silent(&mut self) {
        let keep_alive_s = self.source.between(1, 3) as u16;
        let will = WillSpec { topic: "w".into(), qos: QoS::AtLeastOnce, retain: false, delay_s: 0, expiry_s: 0 };
        let expiry_s = if self.source.coin() { 3_600 } else { 0 };
        self.cast(READER, |spec| {
            (spec.clean, spec.session_expiry_s, spec.keep_alive_s) = (expiry_s == 0, expiry_s, keep_alive_s);
            spec.will = Some(will);
        });
        self.cast(OTHER, |_| {});
        self.enter(OTHER, &[("w", QoS::AtLeastOnce)]);
        self.enter(READER, &[("a", QoS::AtLeastOnce)]);
        self.wait(100, 300);
        let cut = self.source.percent(20);
        if cut {
            self.cut(READER);
        } else {
            self.does(READER, Act::Freeze(true));
        }
        self.wait(10_000, 40_000);
        self.say(OTHER, message("a", QoS::AtLeastOnce));
        self.wait(1, 1_000);
        if cut {
            self.heal(READER);
        } else {
            self.does(READER, Act::Freeze(false));
        }
        self.wait(1, 1_000);
    }

    /// Nothing but PUBLISH comes for longer than the Keep Alive.
    fn only_publishes(&mut self) {
        let keep_alive_s = self.source.between(1, 3);
        self.cast(READER, |_| {});
        self.cast(WRITER, |spec| spec.keep_alive_s = keep_alive_s as u16);
        self.enter(READER, &[("a", QoS::AtLeastOnce)]);
        self.enter(WRITER, &[]);
        self.wait(50, 100);
        let every_us = keep_alive_s * self.source.between(100_000, 500_000);
        let count = (keep_alive_s * self.source.between(2_000_000, 5_000_000) / every_us) as u32;
        let qos = self.any_qos();
        self.say(WRITER, PublishSpec { count, every_us, ..message("a", qos) });
    }

    /// More retained messages than fit at once, some of which change while they are sent.
    fn many_retained(&mut self) {
        self.wide_network();
        let large = self.source.coin();
        let window = if large { u16::MAX } else { self.source.between(1, 3) as u16 };
        let late_ms = self.source.log(1, 200);
        let writers = if self.source.coin() { [WRITER, OTHER] } else { [WRITER; 2] };
        self.cast(READER, |spec| {
            spec.receive_maximum = window;
            spec.ack_delay_ms = 0..=late_ms;
        });
        self.cast(WRITER, |_| {});
        self.cast(OTHER, |_| {});
        for part in [WRITER, OTHER, READER] {
            self.enter(part, &[]);
        }
        self.wait(50, 100);
        let topics: Vec<String> = (0..self.source.between(4, 14)).map(|number| format!("r/{number}")).collect();
        for topic in &topics {
            let size = if large { self.source.between(20 << 10, 100 << 10) } else { 32 };
            let spec = PublishSpec { retain: true, size: size as u32, ..message(topic, QoS::AtLeastOnce) };
            self.say(WRITER, spec);
        }
        self.wait(200, 500);
        if large && self.source.coin() {
            self.does(READER, Act::SetReading(false));
        }
        let qos = if large { self.any_qos() } else { self.acked_qos() };
        self.subscribes(READER, &[("r/#", qos)]);
        for _ in 0..self.source.below(8) {
            self.wait(1, 20);
            let (who, topic) = (*self.source.pick(&writers), self.source.pick(&topics).clone());
            self.say(who, PublishSpec { retain: true, ..message(&topic, QoS::AtLeastOnce) });
        }
        self.wait(1, 1_000);
        if !self.clients[READER].reading {
            self.does(READER, Act::SetReading(true));
        }
    }

    /// A retained message that expires gives way to one that does not, or the other way round.
    fn retained_for_a_while(&mut self) {
        for part in [READER, WRITER, OTHER] {
            self.cast(part, |_| {});
        }
        for part in [WRITER, OTHER, READER] {
            self.enter(part, &[]);
        }
        self.wait(50, 100);
        for _ in 0..self.source.between(1, 4) {
            let expiry_s = self.source.below(4) as u32;
            let who = if self.source.coin() { WRITER } else { OTHER };
            self.say(who, PublishSpec { retain: true, expiry_s, ..message("a", QoS::AtLeastOnce) });
            self.wait(1, 500);
        }
        self.say(WRITER, PublishSpec { retain: true, ..message("a", QoS::AtLeastOnce) });
        self.wait(1, 5_000);
        self.subscribes(READER, &[("a", QoS::AtLeastOnce)]);
    }

    /// A queue of an absent client with messages of all kinds goes through a small window while more comes.
    fn backlog(&mut self) {
        self.scenario.broker.mqueue_store_qos0 = Some(true);
        let (window, late_ms) = (self.source.between(1, 3) as u16, self.source.log(5, 500));
        self.cast(READER, |spec| {
            (spec.clean, spec.session_expiry_s) = (false, 3_600);
            (spec.receive_maximum, spec.ack_delay_ms) = (window, 0..=late_ms);
        });
        self.cast(WRITER, |_| {});
        self.enter(READER, &[("a", QoS::ExactlyOnce)]);
        self.enter(WRITER, &[]);
        self.wait(50, 100);
        self.does(READER, Act::HangUp);
        self.wait(50, 100);
        for _ in 0..self.source.between(3, 8) {
            let (count, qos) = (self.source.between(1, 4) as u32, self.any_qos());
            self.say(WRITER, PublishSpec { count, ..message("a", qos) });
            self.wait(1, 20);
        }
        self.enter(READER, &[]);
        for _ in 0..self.source.between(2, 6) {
            self.wait(1, 100);
            let (count, qos) = (self.source.between(1, 4) as u32, self.any_qos());
            self.say(WRITER, PublishSpec { count, ..message("a", qos) });
        }
        self.wait(1, 500);
    }

    /// Megabytes for an absent client flow through a narrow connection while more comes.
    fn large_backlog(&mut self) {
        self.wide_network();
        self.scenario.broker.mqueue_store_qos0 = Some(true);
        self.cast(READER, |spec| (spec.clean, spec.session_expiry_s) = (false, 3_600));
        self.cast(WRITER, |_| {});
        let granted = self.any_qos();
        self.enter(READER, &[("a", granted)]);
        self.enter(WRITER, &[]);
        self.wait(50, 100);
        self.does(READER, Act::HangUp);
        self.wait(50, 100);
        let (size, count) = (self.source.between(40 << 10, 100 << 10) as u32, self.source.between(10, 30) as u32);
        let qos = self.any_qos();
        self.say(WRITER, PublishSpec { size, count, ..message("a", qos) });
        self.wait(50, 500);
        let bytes_per_s = self.source.log(50_000, 2_000_000);
        self.clients[READER].slow = true;
        self.push(Action::World(WorldAction::Bandwidth { client: ClientIx(READER as u32), bytes_per_s }));
        self.enter(READER, &[]);
        for _ in 0..self.source.between(1, 6) {
            self.wait(1, 500);
            let count = self.source.between(1, 5) as u32;
            self.say(WRITER, PublishSpec { count, ..message("a", qos) });
        }
        self.wait(1, 500);
    }

    /// Clients that do not wait for CONNACK.
    fn hurried(&mut self) {
        self.several_shards();
        for _ in 0..self.source.between(2, 5) {
            for client in 0..self.clients.len().min(4) {
                if self.clients[client].up {
                    let leave = if self.source.coin() { Kind::Disconnect } else { Kind::Reset };
                    self.carry_out(leave, client);
                } else {
                    self.carry_out(Kind::Connect, client);
                    self.does(client, Act::Unsubscribe { filters: vec!["none".into()] });
                }
            }
            self.wait(1, 200);
        }
    }

    /// Overlapping subscriptions with identifiers that change their options, and Topic Aliases that change their topics.
    fn talkative(&mut self) {
        let maximum = self.source.between(1, 4) as u16;
        self.cast(READER, |spec| spec.topic_alias_maximum = maximum);
        self.cast(WRITER, |_| {});
        self.enter(READER, &[]);
        self.enter(WRITER, &[]);
        self.wait(50, 100);
        let topics = ["a", "b", "c"];
        for _ in 0..self.source.between(4, 12) {
            if self.source.percent(40) {
                let filter = *self.source.pick(&["a", "b", "#", "+", "a/#"]);
                let handling = [RetainHandling::SendAtSubscribe, RetainHandling::SendIfNew, RetainHandling::DoNotSend];
                let spec = FilterSpec {
                    retain_as_published: self.source.coin(),
                    retain_handling: *self.source.pick(&handling),
                    ..FilterSpec::new(filter, self.any_qos())
                };
                let subscription_id = self.source.below(3) as u32;
                self.clients[READER].filters.push(filter.into());
                self.does(READER, Act::Subscribe { filters: vec![spec], subscription_id });
            } else {
                let topic = *self.source.pick(&topics);
                let spec = PublishSpec {
                    retain: self.source.percent(40),
                    alias: self.source.below(3) as u16,
                    size: self.source.between(16, 250) as u32,
                    ..message(topic, self.any_qos())
                };
                self.say(WRITER, spec);
            }
            self.wait(1, 100);
        }
    }

    /// A client of MQTT 5.0 that does nothing but what `change` says.
    fn cast(&mut self, part: usize, change: impl FnOnce(&mut ClientSpec)) {
        let spec = &mut self.scenario.clients[part];
        let ClientSpec { name, id, node, .. } = spec.clone();
        *spec = ClientSpec { name, id, node, ..ClientSpec::default() };
        change(spec);
        self.clients[part].version = self.scenario.clients[part].version;
    }

    /// A network that carries megabytes in no time.
    fn wide_network(&mut self) {
        let NetSpec { shard_delay_us, work_delay_us, .. } = self.scenario.net.clone();
        self.scenario.net =
            NetSpec { chunk_bytes: 1_400..=16 << 10, shard_delay_us, work_delay_us, ..NetSpec::default() };
    }

    fn several_shards(&mut self) {
        self.scenario.shards = self.source.between(2, 4) as u16;
    }

    /// It connects and subscribes.
    fn enter(&mut self, client: usize, filters: &[(&str, QoS)]) {
        self.clients[client].up = true;
        self.act(client, Act::Connect { clean: None, session_expiry_s: None, node: None });
        if !filters.is_empty() {
            self.subscribes(client, filters);
        }
    }

    fn subscribes(&mut self, client: usize, filters: &[(&str, QoS)]) {
        let specs = filters.iter().map(|(filter, qos)| FilterSpec::new(*filter, *qos)).collect();
        self.clients[client].filters.extend(filters.iter().map(|(filter, _)| String::from(*filter)));
        self.act(client, Act::Subscribe { filters: specs, subscription_id: 0 });
    }

    fn say(&mut self, client: usize, spec: PublishSpec) {
        let end_ms = self.at_ms + u64::from(spec.count) * spec.every_us / 1_000 + 1;
        self.busy_until_ms = self.busy_until_ms.max(end_ms);
        self.act(client, Act::Publish(spec));
    }

    fn does(&mut self, client: usize, act: Act) {
        self.note(client, &act);
        self.act(client, act);
    }

    fn wait(&mut self, low_ms: u64, high_ms: u64) {
        self.at_ms += if low_ms == 1 { self.source.log(1, high_ms) } else { self.source.between(low_ms, high_ms) };
    }

    fn lag_of(&mut self, shard: u16, by_us: u64) {
        self.node_mut().lagging = (by_us > 0).then_some(shard);
        self.push(Action::World(WorldAction::Lag { node: self.at_node, shard, by_us }));
    }

    fn any_qos(&mut self) -> QoS {
        *self.source.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
    }

    fn acked_qos(&mut self) -> QoS {
        *self.source.pick(&[QoS::AtLeastOnce, QoS::ExactlyOnce])
    }
}

fn message(topic: &str, qos: QoS) -> PublishSpec {
    PublishSpec::new(topic, qos)
}
