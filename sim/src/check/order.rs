//! S5: the messages of one publisher, topic and QoS come in their order.

use newtmq_mqtt::QoS;

use super::deliveries::Facts;
use super::state::{Position, State};
use super::witness::{Cx, Story};
use crate::history::{ReceiveFacts, Uid};
use crate::report::Check;

impl State {
    /// Whether messages to this client, or from it, keep no order: a datagram overtakes another one, and with QoS 0 nothing waits for an answer.
    pub(super) fn may_overtake(&self, conn: u32, qos: QoS) -> bool {
        self.conn(conn).sn.is_some() && qos == QoS::AtMostOnce
    }

    pub(super) fn judge_order(
        &mut self,
        conn: u32,
        facts: &ReceiveFacts,
        message: &Facts,
        epoch: u32,
        cx: &mut Cx<'_>,
    ) {
        cx.owe(Check::Order);
        let id = self.conn(conn).id;
        // A publisher that goes to another node has its order there, too, but for what nobody confirms.
        let topic = &self.topics[message.topic as usize];
        let place = if message.qos > QoS::AtMostOnce { (topic.name.0, u16::MAX) } else { (topic.name.0, topic.node) };
        let key = (id, message.uid.publisher.0, place, message.qos as u8 * 4 + facts.qos as u8);
        let by = (topic.node, message.epoch);
        let new = Position { epoch, first: message.first, uid: message.uid, by };
        match self.order.get(&key).copied() {
            Some(known) if known.epoch == epoch => {
                // A first copy that was lost when a node counted as down comes at the end of its exchange.
                let node = usize::from(self.ids[id as usize].node);
                // What waited for a node and found no space there comes again behind what found some.
                let refused = || self.nodes[node].lives.was_troubled(message.sent);
                let is_late = message.qos == QoS::ExactlyOnce || self.limits.durability.is_some() && refused();
                let late = || is_late && self.were_parted(message, id, cx.now);
                // A first copy that was pushed out of a full queue comes with those that are sent again.
                let pushed_out = || self.may_overflow(id) && self.were_parted(message, id, cx.now);
                let moved = || self.ways.exist() && self.moved_slowly(id, message.sent, cx.now);
                let of_other = || {
                    let lost_way =
                        || self.were_parted(message, id, cx.now) || self.moved_slowly(message.id, message.sent, cx.now);
                    // A shard that is slow to go on sends what it has forwarded behind what it gives away.
                    let slow = self.limits.lane > self.limits.links + core::time::Duration::from_millis(100);
                    // What was sent there first may have come by another node all the same, when its publisher repeated it.
                    let ways_differ = known.by.0 != by.0 || self.moves_since(message.id, message.sent) > 0;
                    ways_differ && (known.by.1 != by.1 || slow || lost_way())
                };
                // To other nodes a message of a stored session goes when its name is stored; the client's next session waits for none.
                let of_session = || {
                    let named = message.qos == QoS::ExactlyOnce && self.limits.durability.is_some();
                    named && self.ways.exist() && usize::from(topic.node) != node && known.by.1 != by.1
                };
                if message.last < known.first && !late() && !pushed_out() && !moved() && !of_other() && !of_session() {
                    self.inverted(conn, facts, message, known.uid, cx);
                } else if message.first > known.first {
                    self.order.insert(key, new);
                }
            }
            Some(_) | None => {
                self.order.insert(key, new);
            }
        }
    }

    #[cold]
    fn inverted(&mut self, conn: u32, facts: &ReceiveFacts, message: &Facts, before: Uid, cx: &mut Cx<'_>) {
        let name = self.topics[message.topic as usize].name;
        let text = format!(
            "{} received {} after {before}, but {} had published it before, both on {} with QoS {}",
            self.who(conn),
            message.uid,
            self.who(message.conn),
            cx.text(name),
            message.qos as u8
        );
        let client = self.conn(conn).client;
        let mut story = Story::default()
            .uid(Some(message.uid))
            .topic(name)
            .client(client)
            .client(message.uid.publisher.0)
            .conn(message.conn)
            .conn(conn)
            .when(message.sent, format!("PUBLISH {} was sent", message.uid))
            .when(facts.sent_at, format!("{} was written to the subscriber", message.uid));
        let id = self.conn(conn).id;
        if let Some(of) = self.message(before) {
            story = story.when(of.sent, format!("PUBLISH {before} was sent"));
            if let Some(target) = of.targets.iter().find(|target| target.id == id) {
                story = story.when(target.received_at, format!("{before} was received"));
            }
        }
        cx.violated(Check::Order, text, story);
    }
}
