//! Retained messages: one per topic (section 3.3.1.3), each at the shard that owns its topic. [`super::pour`] reads them.

use newtmq_base::{ConnId, Instant, planted};
use newtmq_mqtt::QoS;
use newtmq_session::Message;
use newtmq_topic::RetainedValue;

use super::Shard;
use super::fan::Publishing;
use crate::config::RetainedConfig;
use crate::control::RetainedCounts;
use crate::io::Outbox;
use crate::place::{PlaceMessage, Stamp};

/// The retained message of a topic.
#[derive(Debug)]
pub(crate) struct Retained {
    pub(crate) message: Message,
    /// Which one it is.
    pub(crate) stamp: Stamp,
    /// The first segment of the log that it needs; 0 for none.
    pub(crate) segment: u64,
}

impl RetainedValue for Retained {
    fn topic(&self) -> &str {
        self.message.topic_str()
    }
}

/// Most retained messages that one Tick removes because their time has passed.
const EXPIRE_STEP: usize = 4096;

/// Whether the server says it of itself: that counts to no limit.
pub(super) fn is_own(topic: &str) -> bool {
    topic.starts_with("$SYS/")
}

impl Shard {
    /// Sets, replaces or clears the retained message of a topic [MQTT-3.3.1-5], [MQTT-3.3.1-6], here or at the shard that
    /// owns the topic; its publisher waits while that shard has much to do. Returns what tells it apart, if there is more
    /// than one shard.
    pub(crate) fn retain(
        &mut self,
        now: Instant,
        publishing: &Publishing<'_>,
        publisher: Option<ConnId>,
        out: &mut Outbox,
    ) -> Stamp {
        let topic = core::str::from_utf8(publishing.topic).expect("validated by the caller");
        let owner = self.owner_of(topic);
        let lane = &mut self.lanes[usize::from(owner)];
        lane.retained_sent += 1;
        let stamp = Stamp::new(self.own, lane.retained_sent);
        if owner == self.own {
            lane.retained_seen = stamp.number();
            self.keep(now, publishing, stamp, out);
        } else {
            let message = publishing.to_message(&mut self.scratch.block);
            // Nobody is told of QoS 0.
            let promise = match publishing.qos {
                QoS::AtMostOnce => 0,
                QoS::AtLeastOnce | QoS::ExactlyOnce => self.journal.promise_retained(owner),
            };
            self.send_place(owner, PlaceMessage::Retain { message, stamp, promise }, out);
            if let Some(publisher) = publisher {
                self.wait_for_lane(now, owner, publisher, out);
            }
        }
        if self.shards() == 1 { Stamp::NONE } else { stamp }
    }

    /// The same for a topic of this shard that was published at another.
    pub(crate) fn on_retain(&mut self, now: Instant, from: u16, message: &Message, stamp: Stamp, out: &mut Outbox) {
        self.lanes[usize::from(from)].retained_seen = stamp.number();
        self.keep(now, &Publishing::of_message(message, crate::conn::NONE), stamp, out);
        self.answer_parked(now, from, out);
    }

    fn keep(&mut self, now: Instant, publishing: &Publishing<'_>, stamp: Stamp, out: &mut Outbox) {
        let topic = core::str::from_utf8(publishing.topic).expect("validated by the caller");
        if publishing.payload.is_empty() && !planted!(RetainedDeleteKept) {
            self.forget_retained(topic);
            return;
        }
        let RetainedConfig { max_payload_size, expiry_interval, .. } = self.config.retained;
        let too_large = max_payload_size > 0 && publishing.payload.len() > max_payload_size;
        let new = self.retained.get(topic).is_none();
        if too_large || (new && !is_own(topic) && !self.admit_retained(topic, out)) {
            // The old value is no longer the last one, so it must not stay either.
            self.forget_retained(topic);
            tracing::debug!(topic, too_large, "not retained");
            return;
        }
        if planted!(StampOrderAcrossSources, self.retained.get(topic).is_some_and(|old| old.stamp > stamp)) {
            return;
        }
        let mut kept = *publishing;
        if !expiry_interval.is_zero() {
            kept.expires = kept.expires.min(now + expiry_interval);
            // It is another message than that of the subscribers.
            kept.id = self.journal.message_id();
        }
        let message = kept.to_message(&mut self.scratch.block);
        if kept.expires != Instant::NEVER {
            self.retained_expiry.insert((kept.expires, stamp), topic.into());
        }
        self.note_retained(topic, Some(&message));
        let segment = self.journal.segment;
        if let Some(old) = self.retained.set(Retained { message, stamp, segment })
            && !planted!(RetainedExpiryOfTheOld, old.message.expires() != Instant::NEVER)
        {
            self.retained_expiry.remove(&(old.message.expires(), old.stamp));
        }
    }

    pub(crate) fn forget_retained(&mut self, topic: &str) {
        if let Some(old) = self.retained.remove(topic) {
            self.note_retained(topic, None);
            self.retained_expiry.remove(&(old.message.expires(), old.stamp));
            if !is_own(topic) && !planted!(RetainedShareLeak) {
                self.retained_gone();
            }
        }
    }

    /// Removes retained messages whose time has passed, some at a time.
    pub(crate) fn expire_retained(&mut self, now: Instant) {
        for _ in 0..EXPIRE_STEP {
            match self.retained_expiry.first_key_value() {
                Some(((expires, _), _)) if *expires <= now => {}
                _ => return,
            }
            if let Some((_, topic)) = self.retained_expiry.pop_first() {
                self.forget_retained(&topic);
            }
        }
    }

    /// A live message of another shard shows how far the owner of its topic must be before what it says is complete.
    pub(crate) fn saw_live(&mut self, topic: &str, stamp: Stamp) {
        if let Some(index) = stamp.index() {
            self.agreed.need = self.agreed.need.max(index);
            return;
        }
        let owner = usize::from(self.owner_of(topic));
        let known = &mut self.retained_need[owner][usize::from(stamp.source())];
        *known = stamp.number().max(*known);
    }

    /// The same for what was retained before the others knew of a subscription that is made here.
    pub(crate) fn must_have_read(&mut self, counts: &RetainedCounts) {
        for (source, sent) in counts.iter().enumerate() {
            for (owner, count) in sent.iter().enumerate() {
                let known = &mut self.retained_need[owner][source];
                *known = (*count).max(*known);
            }
        }
    }
}
