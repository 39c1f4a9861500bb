//! S12: topic, payload, QoS, flags, expiry and Subscription Identifiers of a delivery; and deliveries without a name.

use core::time::Duration;

use newtmq_mqtt::QoS;

use super::deliveries::{Explained, Facts, Kind};
use super::state::State;
use super::witness::{Cx, Story};
use crate::history::ReceiveFacts;
use crate::report::Check;

impl State {
    /// An empty payload, or one that is not what its publisher made.
    pub(super) fn unnamed(&mut self, conn: u32, facts: &ReceiveFacts, cx: &mut Cx<'_>) {
        if self.any_wild {
            // It may be of a client that sent whatever it liked.
            return;
        }
        let c = self.conn(conn);
        let (id, node, client) = (c.id, c.node, c.client);
        if !facts.intact {
            let message = format!(
                "{} received a damaged payload, or other properties than were published, on {}",
                self.who(conn),
                cx.text(facts.topic)
            );
            let story = Story::default().uid(facts.uid).topic(facts.topic).client(client).conn(conn);
            cx.violated(Check::Content, message, story.when(cx.now, "it was received"));
            return;
        }
        if facts.size > 0 {
            return;
        }
        let topic = self.topic_of(node, facts.topic, cx);
        let mut matches = false;
        let mut as_published = false;
        for (_, sub) in self.subs_of(topic, id) {
            for grant in &self.subs[*sub as usize].grants {
                matches |= grant.from <= cx.now;
                as_published |= grant.retain_as_published;
            }
        }
        if !matches {
            self.phantom(conn, facts, None, "but never had a subscription for it", cx);
        } else if facts.retain && !as_published {
            let message = format!(
                "{} got an empty retained message on {}: a deletion is no retained message",
                self.who(conn),
                cx.text(facts.topic)
            );
            let story = Story::default().topic(facts.topic).client(client).conn(conn);
            cx.violated(Check::Retained, message, story.when(cx.now, "it was received with RETAIN"));
        }
    }

    pub(super) fn judge_content(
        &mut self,
        conn: u32,
        facts: &ReceiveFacts,
        message: &Facts,
        explained: &Explained,
        kind: Kind,
        cx: &mut Cx<'_>,
    ) {
        let c = self.conn(conn);
        let v5 = c.v5;
        let qos = facts.qos as u8;
        let mask = match kind {
            Kind::Live => explained.live_qos,
            Kind::Retained => explained.retained_qos,
            Kind::Either => explained.live_qos | explained.retained_qos,
        };
        let (id, now) = (c.id, cx.now);
        // What has lost its name on the way is as the node that its session had left knew it.
        let nameless = || self.ways.exist() && self.moved_badly(id, message.sent, now);
        if explained.own && self.ways.exist() && self.moved_over_a_start(id, message.sent, now) {
            // It may have come by the subscription with No Local, as it does by the only one.
            return;
        }
        let too_low = kind == Kind::Live && explained.shared == 0 && qos < explained.least && !nameless();
        let is_old = kind == Kind::Live && qos > 0 && !explained.own && nameless();
        if mask >> qos & 1 == 0 && !is_old || too_low {
            let text = format!(
                "its QoS is {qos}, it was published with {} and the subscriptions do not grant that",
                message.qos as u8
            );
            self.wrong(conn, facts, message, &text, cx);
        }
        if !facts.retain && message.retain && v5 && explained.plain && explained.all_as_published {
            self.wrong(conn, facts, message, "RETAIN is not set although Retain As Published asks for it", cx);
        }
        if facts.dup && facts.qos == QoS::AtMostOnce {
            self.wrong(conn, facts, message, "DUP is set with QoS 0", cx);
        }
        if v5 {
            self.judge_expiry(conn, facts, message, cx);
            self.judge_identifiers(conn, facts, message, explained, kind, cx);
        }
        let limit = self.conn(conn).max_packet_size;
        if let Some(limit) = limit.filter(|limit| facts.packet_size > *limit) {
            let text = format!("its packet has {} bytes, Maximum Packet Size is {limit}", facts.packet_size);
            self.wrong(conn, facts, message, &text, cx);
        }
    }

    fn judge_expiry(&mut self, conn: u32, facts: &ReceiveFacts, message: &Facts, cx: &mut Cx<'_>) {
        let text = match (message.expiry_s, facts.expiry_s) {
            (None, None) => return,
            (None, Some(_)) if self.limits.retained_expires => return,
            (None, Some(_)) => "it has a Message Expiry Interval, but was published without".to_owned(),
            (Some(_), None) => "its Message Expiry Interval is missing".to_owned(),
            (Some(sent), Some(left)) if left > sent => {
                format!("its Message Expiry Interval is {left} s, it was published with {sent} s")
            }
            (Some(sent), Some(_)) => {
                let node = self.conn(conn).node;
                let Some(accepted) = message.accepted.filter(|_| message.logical == 1 && !facts.dup) else { return };
                // What was stored where the session was before counts by the clock there, which stands still while that is down.
                let id = self.conn(conn).id;
                let slow = !self.conn(conn).is_plain()
                    || self.ways.exist() && self.moved_over_a_start(id, accepted, facts.sent_at);
                // The time of what is retained counts anew at a node that starts.
                let stopped = || (0..self.ways.count()).any(|node| !self.ways.is_untouched(node, accepted));
                let anew = || message.retain && stopped();
                let slow = slow || self.ways.exist() && anew();
                // It is taken out of its queue in time, and may then stand behind others at the socket.
                let queued = self.limits.queueing(self.ids[self.conn(conn).id as usize].matched_bytes);
                let deadline = self.latest(node, accepted, sent) + Duration::from_secs(1) + self.lane_slack() + queued;
                if slow || facts.sent_at <= deadline || self.limits.late > Duration::from_secs(1) {
                    return;
                }
                format!("it was delivered long after its Message Expiry Interval of {sent} s")
            }
        };
        self.wrong(conn, facts, message, &text, cx);
    }

    fn judge_identifiers(
        &mut self,
        conn: u32,
        facts: &ReceiveFacts,
        message: &Facts,
        explained: &Explained,
        kind: Kind,
        cx: &mut Cx<'_>,
    ) {
        let id = self.conn(conn).id;
        let mut known = 0;
        let mut missing = None;
        for (_, sub) in self.subs_of(message.topic, id) {
            let sub = &self.subs[*sub as usize];
            let from = |kind| if kind == Kind::Live { message.sent } else { newtmq_base::Instant::START };
            let grants = sub.grants.iter().filter(|grant| grant.overlaps(from(kind), cx.now));
            let mut all = grants.clone().map(|grant| grant.identifier);
            known +=
                facts.subscription_ids.iter().filter(|of| grants.clone().any(|grant| grant.identifier == **of)).count();
            let Some(identifier) = all.next().filter(|identifier| *identifier > 0) else { continue };
            let own = message.id == id
                && !self.is_of_cluster(message)
                && (self.limits.ignore_loop || grants.clone().any(|grant| grant.no_local));
            let sure = kind == Kind::Live
                && explained.shared == 0
                && !own
                && sub.certain.is_some_and(|certain| certain < message.sent)
                && all.all(|other| other == identifier);
            if sure && !facts.subscription_ids.contains(&identifier) {
                missing = Some((identifier, sub.filter));
            }
        }
        let nameless = || self.ways.exist() && self.moved_badly(id, message.sent, cx.now);
        if let Some((identifier, filter)) = missing.filter(|_| !nameless()) {
            let text = format!("Subscription Identifier {identifier} of {} is missing", cx.text(filter));
            self.wrong(conn, facts, message, &text, cx);
        } else if known < facts.subscription_ids.len() {
            let text =
                format!("Subscription Identifiers {:?} are not all of matching subscriptions", facts.subscription_ids);
            self.wrong(conn, facts, message, &text, cx);
        }
    }

    #[cold]
    pub(super) fn wrong(&mut self, conn: u32, facts: &ReceiveFacts, message: &Facts, text: &str, cx: &mut Cx<'_>) {
        let name = self.topics[message.topic as usize].name;
        let what = format!("{} received {} on {}: {text}", self.who(conn), message.uid, cx.text(name));
        let id = self.conn(conn).id;
        let sub = self.subs_of(message.topic, id).first().map(|(_, sub)| &self.subs[*sub as usize]);
        let story = Story::default()
            .uid(Some(message.uid))
            .topic(name)
            .filter(sub.map(|sub| sub.filter))
            .client(self.conn(conn).client)
            .client(message.uid.publisher.0)
            .conn(message.conn)
            .conn(conn)
            .when_some(sub.and_then(|sub| sub.certain), "SUBACK was written")
            .when(message.sent, format!("PUBLISH {} was sent", message.uid))
            .when(facts.sent_at, "the delivery was written")
            .when(cx.now, "it was received");
        cx.violated(Check::Content, what, story);
    }

    #[cold]
    pub(super) fn phantom(
        &mut self,
        conn: u32,
        facts: &ReceiveFacts,
        message: Option<&Facts>,
        text: &str,
        cx: &mut Cx<'_>,
    ) {
        let name = facts.uid.map_or_else(|| "an empty message".to_owned(), |uid| uid.to_string());
        let what = format!("{} received {name} on {}, {text}", self.who(conn), cx.text(facts.topic));
        let mut story = Story::default().uid(facts.uid).topic(facts.topic).client(self.conn(conn).client).conn(conn);
        if let Some(message) = message {
            story = story.client(message.uid.publisher.0).conn(message.conn);
            story = story.when(message.sent, format!("PUBLISH {} was sent", message.uid));
            let id = self.conn(conn).id;
            let last =
                self.subs_of(message.topic, id).iter().flat_map(|(_, sub)| &self.subs[*sub as usize].grants).last();
            if let Some(grant) = last {
                story = story.when(grant.from, "SUBSCRIBE was sent");
                if grant.to != newtmq_base::Instant::NEVER {
                    story = story.when(grant.to, "that subscription had ended");
                }
            }
        }
        let story = story.when(facts.sent_at, "the delivery was written").when(cx.now, "it was received");
        cx.violated(Check::Phantom, what, story);
    }
}
