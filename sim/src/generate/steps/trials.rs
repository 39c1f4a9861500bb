//! Trials of what is stored: something is promised, the node goes at about that time, comes back, and everybody looks. What
//! chance alone makes of it is seldom sharp enough.

use newtmq_mqtt::QoS;

use super::{Kind, Steps};
use crate::scenario::{Act, FilterSpec, PublishSpec, WillSpec};

/// Everything that was under way has arrived, and a store has synced what nobody waits for.
const STORED_MS: u64 = 6_000;

/// With more steps than that a micro scenario has no room for another trial.
const TRIALS_STEPS_MAX: usize = 12;

impl Steps<'_> {
    /// A few trials, one after the other.
    pub(super) fn trials(&mut self) {
        if self.source.coin() {
            self.scenario.net.shard_delay_us = 0..=self.source.log(10, 5_000);
        }
        for client in 0..self.clients.len() {
            if self.source.percent(85) {
                let spec = &mut self.scenario.clients[client];
                (spec.clean, spec.session_expiry_s) = (false, super::super::world::LONG_SESSION_S);
            }
        }
        for _ in 0..self.source.between(1, 2) {
            if self.is_micro() && self.scenario.steps.len() > TRIALS_STEPS_MAX {
                return;
            }
            let subscriber = self.source.below(self.clients.len() as u64) as usize;
            let others = self.clients.len() as u64 - 1;
            let publisher = (subscriber + 1 + self.source.below(others) as usize) % self.clients.len();
            self.trial(subscriber, publisher);
        }
    }

    fn trial(&mut self, subscriber: usize, publisher: usize) {
        let topic = self.source.pick(&self.topics.names).clone();
        match self.source.below(15) {
            0 | 1 => self.try_publish(subscriber, publisher, &topic),
            2 => self.try_subscribe(subscriber, publisher, &topic),
            3 => self.try_retained(subscriber, publisher, &topic),
            4 => self.try_expiry(subscriber, publisher),
            5 => self.try_ends(subscriber, publisher, &topic),
            6 => self.try_will(subscriber, publisher, &topic),
            7 => self.try_long_log(subscriber, publisher, &topic),
            8 => self.try_expired(subscriber, publisher, &topic),
            9 => self.try_acknowledged(subscriber, publisher, &topic),
            10 => self.try_full(subscriber, publisher, &topic),
            11 => self.try_batch(subscriber, publisher, &topic),
            12 => self.try_rot(subscriber, publisher, &topic),
            13 => self.try_gaps(subscriber, publisher, &topic),
            _ => self.try_shared(subscriber, publisher, &topic),
        }
    }

    /// Longer than anything is under way.
    fn settle(&mut self) {
        let disk_ms = (self.scenario.disk.write_us.end() + self.scenario.disk.sync_us.end()).div_ceil(1_000);
        self.at_ms += 4 * self.worst_ms() + 4 * disk_ms + 20;
    }

    fn worst_ms(&self) -> u64 {
        super::super::world::worst_delay_us(&self.scenario.net).div_ceil(1_000).min(2_000)
    }

    /// Back to its session, or to a first one.
    fn here(&mut self, client: usize) {
        if !self.clients[client].up {
            self.clients[client].up = true;
            self.act(client, Act::Connect { clean: Some(false), session_expiry_s: None, node: None });
            self.settle();
        }
    }

    fn away(&mut self, client: usize) {
        self.carry_out(Kind::HangUp, client);
        self.settle();
    }

    fn ask(&mut self, client: usize, filter: &str) {
        let qos = if self.source.coin() { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
        let known = &mut self.clients[client].filters;
        if !known.iter().any(|other| other == filter) {
            known.push(filter.to_owned());
        }
        self.act(client, Act::Subscribe { filters: vec![FilterSpec::new(filter, qos)], subscription_id: 0 });
    }

    fn tell(&mut self, client: usize, topic: &str, count: u32, size: u32, retain: bool) {
        let qos = if self.source.percent(60) { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
        self.act(client, Act::Publish(PublishSpec { count, size, retain, ..PublishSpec::new(topic, qos) }));
    }

    /// The node goes while answers are on their way, or just after.
    fn goes_soon(&mut self) {
        let longest_ms = 2 * self.worst_ms() + 12;
        self.at_ms += self.source.between(0, longest_ms);
        self.goes();
    }

    fn goes(&mut self) {
        let power_loss = self.source.percent(70);
        self.crash(power_loss);
        self.at_ms += self.source.log(1, 200) - 1;
        self.restart();
        self.settle();
    }

    fn try_publish(&mut self, subscriber: usize, publisher: usize, topic: &str) {
        self.here(subscriber);
        self.ask(subscriber, topic);
        self.settle();
        if self.source.coin() {
            self.away(subscriber);
        }
        for _ in 0..self.source.between(1, 3) {
            self.here(publisher);
            let count = self.source.between(1, 3) as u32;
            if self.source.coin() {
                self.tell(publisher, topic, count, 32, false);
            } else {
                let many = PublishSpec { count: 4 * count, ..PublishSpec::new(topic, QoS::AtLeastOnce) };
                self.act(publisher, Act::Publish(many));
            }
            self.goes_soon();
        }
        self.here(publisher);
        self.here(subscriber);
    }

    fn try_subscribe(&mut self, subscriber: usize, publisher: usize, topic: &str) {
        self.here(subscriber);
        self.ask(subscriber, topic);
        self.goes_soon();
        self.here(publisher);
        self.tell(publisher, topic, 1, 32, false);
        self.settle();
        self.here(subscriber);
    }

    /// Set, perhaps deleted or set again; who asks after that gets the last one.
    fn try_retained(&mut self, subscriber: usize, publisher: usize, topic: &str) {
        self.here(publisher);
        if self.source.percent(30) {
            return self.try_reading(subscriber, publisher, topic);
        }
        self.tell(publisher, topic, 1, 32, true);
        self.settle();
        if self.source.percent(75) {
            let size = if self.source.percent(75) { 0 } else { 40 };
            self.tell(publisher, topic, 1, size, true);
        }
        self.settle();
        self.goes();
        self.here(subscriber);
        self.ask(subscriber, topic);
        self.settle();
    }

    /// The node goes while retained messages are on their way to a new subscription.
    fn try_reading(&mut self, subscriber: usize, publisher: usize, topic: &str) {
        let hop_us = self.source.log(1_000, 25_000);
        self.scenario.net.shard_delay_us = hop_us / 2..=hop_us;
        self.tell(publisher, topic, 1, 32, true);
        self.settle();
        self.here(subscriber);
        self.ask(subscriber, topic);
        let hop_ms = self.scenario.net.shard_delay_us.end().div_ceil(1_000);
        self.at_ms += self.source.between(2 * hop_ms, 5 * hop_ms);
        self.goes();
        self.here(subscriber);
        self.settle();
    }

    /// Messages that come to a shard at once are stored at different times.
    fn try_batch(&mut self, subscriber: usize, publisher: usize, topic: &str) {
        let sync_us = self.source.log(500, 10_000);
        self.scenario.disk.sync_us = sync_us..=2 * sync_us;
        self.here(subscriber);
        self.ask(subscriber, topic);
        self.settle();
        self.away(subscriber);
        self.here(publisher);
        self.settle();
        let count = self.source.between(2, 6) as u32;
        self.act(publisher, Act::Publish(PublishSpec { count, ..PublishSpec::new(topic, QoS::AtLeastOnce) }));
        self.goes_soon();
        self.here(subscriber);
        self.here(publisher);
    }

    /// A bit turns in what was stored last, also in what was written when all was at rest.
    fn try_rot(&mut self, subscriber: usize, publisher: usize, topic: &str) {
        self.here(subscriber);
        self.ask(subscriber, topic);
        self.here(publisher);
        self.tell(publisher, topic, 1, 32, false);
        if self.source.coin() {
            self.away(subscriber);
        }
        self.at_ms += STORED_MS;
        self.act(publisher, Act::Publish(PublishSpec::new(topic, QoS::AtLeastOnce)));
        let longest_ms = 2 * self.worst_ms() + 50;
        self.at_ms += self.source.between(5, longest_ms);
        let power_loss = self.source.coin();
        self.crash(power_loss);
        let at_ppm = self.source.between(600_000, 999_999);
        self.rot_at(at_ppm);
        self.restart();
        self.settle();
        self.here(publisher);
        self.here(subscriber);
    }

    /// A log that has lost what a full queue gave up, and another start after that.
    fn try_gaps(&mut self, subscriber: usize, publisher: usize, topic: &str) {
        let len = self.source.between(1, 4);
        self.scenario.broker.max_mqueue_len = Some(len as u16);
        self.here(subscriber);
        self.ask(subscriber, topic);
        self.settle();
        self.away(subscriber);
        self.here(publisher);
        let count = self.source.between(len, 4 * len) as u32 + 2;
        let every_us = self.source.log(100, 5_000);
        let publish = PublishSpec { count, every_us, ..PublishSpec::new(topic, QoS::AtLeastOnce) };
        self.act(publisher, Act::Publish(publish));
        self.at_ms += u64::from(count) * every_us / 1_000;
        self.settle();
        self.crash(true);
        let at_ppm = self.source.between(200_000, 999_999);
        self.rot_at(at_ppm);
        self.restart();
        self.settle();
        self.here(subscriber);
        self.settle();
        self.goes();
        self.here(publisher);
        self.here(subscriber);
    }

    /// Its node goes when a session has lived nearly as long as it may, and it ends soon after that is back.
    fn try_expiry(&mut self, subscriber: usize, publisher: usize) {
        self.here(publisher);
        if self.clients[subscriber].up {
            self.away(subscriber);
        }
        let seconds = self.source.between(60, 90);
        self.clients[subscriber].up = true;
        self.act(subscriber, Act::Connect { clean: None, session_expiry_s: Some(seconds as u32), node: None });
        self.settle();
        self.away(subscriber);
        let before = self.source.between(seconds * 2 / 3, seconds - 5);
        self.at_ms += before * 1_000;
        self.goes();
        // Its time may be ten seconds behind; after that it is over.
        let after = if self.source.percent(70) { self.source.between(seconds - before + 16, seconds - 2) } else { 1 };
        self.at_ms += after * 1_000;
        self.here(subscriber);
    }

    /// What has ended stays at its end.
    fn try_ends(&mut self, subscriber: usize, publisher: usize, topic: &str) {
        self.here(subscriber);
        self.ask(subscriber, topic);
        self.settle();
        match self.source.below(3) {
            0 => {
                self.act(subscriber, Act::Unsubscribe { filters: vec![topic.to_owned()] });
                self.clients[subscriber].filters.retain(|other| other != topic);
            }
            1 => {
                self.act(subscriber, Act::Disconnect { with_will: false, session_expiry_s: Some(0) });
                self.clients[subscriber].up = false;
            }
            _ => {
                self.away(subscriber);
                self.act(subscriber, Act::Connect { clean: Some(true), session_expiry_s: Some(0), node: None });
                self.settle();
                self.act(subscriber, Act::HangUp);
                self.clients[subscriber].up = false;
                // As it was.
                let expiry = self.scenario.clients[subscriber].session_expiry_s;
                self.at_ms += STORED_MS;
                self.goes();
                self.clients[subscriber].up = true;
                self.act(subscriber, Act::Connect { clean: Some(false), session_expiry_s: Some(expiry), node: None });
                return self.settle();
            }
        }
        self.at_ms += STORED_MS;
        self.goes();
        self.here(publisher);
        self.tell(publisher, topic, 1, 32, false);
        self.settle();
        self.here(subscriber);
    }

    /// A client that is connected when its node goes has lost its connection.
    fn try_will(&mut self, subscriber: usize, publisher: usize, topic: &str) {
        let delay_s = self.source.below(4) as u32;
        self.scenario.clients[publisher].will =
            Some(WillSpec { topic: topic.to_owned(), qos: QoS::AtLeastOnce, retain: false, delay_s, expiry_s: 0 });
        if self.clients[publisher].up {
            self.away(publisher);
        }
        self.here(subscriber);
        self.ask(subscriber, topic);
        self.settle();
        self.here(publisher);
        if self.source.coin() {
            self.away(subscriber);
        }
        self.goes();
        self.at_ms += 20_000;
        self.here(subscriber);
    }

    /// So much that the log is made shorter while a session waits.
    fn try_long_log(&mut self, subscriber: usize, publisher: usize, topic: &str) {
        self.here(subscriber);
        self.ask(subscriber, topic);
        self.settle();
        if self.source.coin() {
            self.away(subscriber);
        }
        // One that has ended is in old segments alone.
        let ends = (0..self.clients.len()).find(|other| *other != subscriber && *other != publisher);
        if let Some(ends) = ends {
            self.here(ends);
            self.ask(ends, topic);
            self.settle();
        }
        self.here(publisher);
        for round in 0..self.source.between(2, 5) {
            if let Some(ends) = ends.filter(|_| round == 1) {
                self.act(ends, Act::Disconnect { with_will: false, session_expiry_s: Some(0) });
                self.clients[ends].up = false;
            }
            let (count, size) = (self.source.between(10, 40) as u32, self.source.between(200, 900) as u32);
            self.tell(publisher, topic, count, size, false);
            if self.source.percent(80) {
                self.settle();
            }
        }
        if self.source.coin() {
            self.goes_soon();
        } else {
            self.goes();
        }
        self.here(publisher);
        self.tell(publisher, topic, 1, 32, false);
        self.settle();
        self.here(subscriber);
        if let Some(ends) = ends {
            self.here(ends);
        }
    }

    /// What had expired when later messages came does not come after them.
    fn try_expired(&mut self, subscriber: usize, publisher: usize, topic: &str) {
        self.here(subscriber);
        self.ask(subscriber, topic);
        self.settle();
        self.away(subscriber);
        self.here(publisher);
        let first = PublishSpec { expiry_s: 1, ..PublishSpec::new(topic, QoS::AtLeastOnce) };
        self.act(publisher, Act::Publish(first.clone()));
        let late_ms = self.source.between(200, 900);
        self.at_ms += late_ms;
        // With it the time is stored once more.
        self.act(publisher, Act::Publish(PublishSpec { expiry_s: 100, ..first }));
        self.at_ms += 1_010 - late_ms;
        self.clients[subscriber].up = true;
        self.act(subscriber, Act::Connect { clean: Some(false), session_expiry_s: None, node: None });
        self.act(publisher, Act::Publish(PublishSpec::new(topic, QoS::AtLeastOnce)));
        self.settle();
        self.goes();
        self.here(subscriber);
    }

    /// What was acknowledged long ago does not come again.
    fn try_acknowledged(&mut self, subscriber: usize, publisher: usize, topic: &str) {
        self.here(subscriber);
        self.ask(subscriber, topic);
        self.here(publisher);
        self.settle();
        self.tell(publisher, topic, 2, 32, false);
        self.settle();
        self.at_ms += 2 * STORED_MS;
        self.away(subscriber);
        self.at_ms += STORED_MS;
        self.goes();
        self.here(subscriber);
        self.settle();
    }

    /// What there is no space for is refused, or waits; then all goes on.
    fn try_full(&mut self, subscriber: usize, publisher: usize, topic: &str) {
        self.here(subscriber);
        self.ask(subscriber, topic);
        self.here(publisher);
        self.settle();
        if self.source.coin() {
            self.away(subscriber);
        }
        self.disk_full(true);
        // The first one shows that it is full.
        for _ in 0..self.source.between(2, 4) {
            self.tell(publisher, topic, 1, 32, false);
            self.settle();
        }
        if self.source.percent(30) {
            self.goes();
            self.here(publisher);
            self.tell(publisher, topic, 1, 32, false);
            self.settle();
        }
        if self.node().full {
            self.disk_full(false);
        }
        self.at_ms += self.source.between(0, 2_000);
        self.tell(publisher, topic, 1, 32, false);
        self.settle();
        self.here(subscriber);
    }

    fn try_shared(&mut self, subscriber: usize, publisher: usize, topic: &str) {
        let filter = self.topics.shared(topic, self.source);
        for member in 0..self.clients.len() {
            if member == subscriber || (member != publisher && self.source.coin()) {
                self.here(member);
                self.ask(member, &filter);
            }
        }
        self.here(publisher);
        self.settle();
        if self.source.coin() {
            for member in (0..self.clients.len()).filter(|member| *member != publisher) {
                if self.clients[member].up {
                    self.away(member);
                }
            }
        }
        if self.scenario.shards > 1 && self.node().lagging.is_none() && self.source.coin() {
            self.lag(true);
        }
        let count = self.source.between(1, 8) as u32;
        self.tell(publisher, topic, count, 32, false);
        self.goes_soon();
        for client in 0..self.clients.len() {
            self.here(client);
        }
    }
}
