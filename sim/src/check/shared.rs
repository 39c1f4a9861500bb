//! S11: a message for a group of shared subscriptions goes to one member.

use newtmq_base::Instant;
use newtmq_mqtt::QoS;

use super::owed::overflows;
use super::state::{State, has_few_ids};
use super::witness::{Cx, Story};
use crate::history::Uid;
use crate::report::Check;

/// What a message and a group have with each other.
#[derive(Debug, Clone)]
pub(super) struct GroupDebt {
    pub(super) group: u32,
    /// One member must get it.
    pub(super) owed: bool,
    /// A member that may have got it for another reason.
    pub(super) maybe: bool,
    /// How many got it.
    pub(super) count: u32,
    /// The first that got it: session, connection, when.
    pub(super) first: (u32, u32, Instant),
    /// Sessions that got it.
    had: Vec<u32>,
}

impl State {
    /// A message was accepted: groups that certainly have members are owed one copy.
    pub(super) fn owe_groups(&mut self, uid: Uid, topic: u32, cx: &mut Cx<'_>) {
        let mut groups: Vec<u32> =
            self.topics[topic as usize].subs.iter().filter_map(|(_, sub)| self.subs[*sub as usize].group).collect();
        groups.sort_unstable();
        groups.dedup();
        for group in groups {
            let Some(message) = self.clients[uid.publisher.0 as usize].message(uid.number) else { return };
            let (sent, qos, expires, size) = (message.sent, message.qos, message.expiry_s.is_some(), message.size);
            let accepted = message.accepted.unwrap_or(cx.now);
            let from = self.node_of_topic(topic);
            let upgrade = self.limits.upgrade_qos;
            let mut sure = false;
            let mut all = true;
            for member in &self.groups[group as usize].members {
                let member = &self.subs[*member as usize];
                let id = &self.ids[member.id as usize];
                let possible = member.grants.iter().any(|grant| grant.overlaps(sent, cx.now));
                if !possible {
                    continue;
                }
                let connected = id.current.is_some_and(|conn| {
                    let c = self.conn(conn);
                    c.is_up() && c.is_plain() && c.rival.is_none() && c.connack.is_some_and(|of| of.at < sent)
                });
                let granted =
                    member.grants.iter().filter(|grant| grant.to == Instant::NEVER).map(|grant| grant.qos).min();
                let effective = granted.map(|granted| if upgrade { granted } else { granted.min(qos) });
                let few_ids = has_few_ids(&self.limits, &self.conns, id);
                let fits = id.packet_max > size.saturating_add(400) && !few_ids;
                // It waits in a session that surely is there.
                let kept = self.limits.durability.is_some()
                    && id.live.is_empty()
                    && self.surely_exists(member.id, u32::MAX, cx.now);
                let good = (connected || kept)
                    && fits
                    && effective > Some(QoS::AtMostOnce)
                    && member
                        .certain
                        .is_some_and(|certain| self.ways.is_certain((id.node, certain), from, (sent, accepted)));
                sure |= good;
                all &= good;
            }
            let owed = sure && all && !expires;
            if owed {
                cx.owe(Check::Shared);
            }
            let debt = self.debt(uid, group);
            if let Some(debt) = debt {
                debt.owed |= owed;
            }
        }
    }

    fn debt(&mut self, uid: Uid, group: u32) -> Option<&mut GroupDebt> {
        let message = self.message(uid)?;
        let at = match message.groups.iter().position(|debt| debt.group == group) {
            Some(at) => at,
            None => {
                message.groups.push(GroupDebt {
                    group,
                    owed: false,
                    maybe: false,
                    count: 0,
                    first: (u32::MAX, u32::MAX, Instant::START),
                    had: Vec::new(),
                });
                message.groups.len() - 1
            }
        };
        Some(&mut message.groups[at])
    }

    /// Somebody got a copy, and it is not clear for what.
    pub(super) fn doubt_groups(&mut self, uid: Uid) {
        let Some(message) = self.message(uid) else { return };
        let topic = message.topic;
        let subs = &self.topics[topic as usize].subs;
        let groups: Vec<u32> = subs.iter().filter_map(|(_, sub)| self.subs[*sub as usize].group).collect();
        for group in groups {
            if let Some(debt) = self.debt(uid, group) {
                debt.maybe = true;
            }
        }
    }

    /// A session got a new copy that may be for a group.
    pub(super) fn received_by_member(&mut self, uid: Uid, dup: bool, (id, conn): (u32, u32), cx: &mut Cx<'_>) {
        let Some(message) = self.message(uid) else { return };
        let (sent, logical, topic) = (message.sent, message.logical + message.forgotten, message.topic);
        let mut groups = Vec::new();
        let mut plain = false;
        for (_, sub) in self.subs_of(topic, id) {
            let sub = &self.subs[*sub as usize];
            if sub.grants.iter().any(|grant| grant.overlaps(sent, cx.now)) {
                match sub.group {
                    Some(group) => groups.push(group),
                    None => plain = true,
                }
            }
        }
        // If it may have come for another reason, it counts for those that wait for it only.
        let sure = groups.len() == 1 && !plain;
        for group in groups {
            let Some(debt) = self.debt(uid, group) else { return };
            // One that is sent again was given to this session before, whatever is known of the session.
            if dup && debt.had.contains(&id) {
                continue;
            }
            debt.had.push(id);
            let first = debt.first;
            if !sure {
                debt.maybe = true;
                continue;
            }
            debt.count += 1;
            if debt.count == 1 {
                debt.first = (id, conn, cx.now);
                continue;
            }
            if debt.count > logical && !self.may_redispatch(uid, first, (id, conn), cx.now) {
                self.too_many(uid, group, first, (id, conn), cx);
            }
        }
    }

    /// Whether the first member may have lost the message before it acknowledged it.
    fn may_redispatch(
        &mut self,
        uid: Uid,
        (id, conn, _): (u32, u32, Instant),
        (other, later): (u32, u32),
        now: Instant,
    ) -> bool {
        if id == other {
            // Its own copies are another rule's.
            return true;
        }
        let Some(message) = self.message(uid) else { return true };
        let (topic, sent) = (message.topic, message.sent);
        let (from, one, two) = (self.node_of_topic(topic), self.ids[id as usize].node, self.ids[other as usize].node);
        if self.ways.exist()
            && (self.ways.were_apart(from, one, sent, now) || self.ways.were_apart(from, two, sent, now))
        {
            // Whether the first one had it was not known.
            return true;
        }
        // It was sent to the second one, whose connection the broker had given up before that one read it.
        if self.conn(later).gone.is_some() {
            return true;
        }
        let epoch = self.ids[id as usize].epoch;
        let c = self.conn(conn);
        // What is on its way to a device when its DISCONNECT comes is not acknowledged.
        let leaves = c.sn.is_some() && c.client_disconnect.is_some();
        let lost = c.closed.is_some() || !c.is_plain() || leaves;
        // An acknowledgement that is a datagram may never come.
        let vague = c.sn.is_some();
        // One that another connection has overtaken is not read any more.
        let rival = c.rival;
        let unread = |acked: Option<Instant>| rival.is_some_and(|rival| acked.is_none_or(|acked| acked >= rival));
        let Some(message) = self.message(uid) else { return true };
        let target = message.targets.iter().find(|target| target.id == id);
        target.is_none_or(|target| {
            target.epoch != epoch || ((target.acked.is_none() || vague) && lost) || unread(target.acked)
        })
    }

    #[cold]
    fn too_many(&mut self, uid: Uid, group: u32, first: (u32, u32, Instant), second: (u32, u32), cx: &mut Cx<'_>) {
        let filter = self.groups[group as usize].filter;
        let Some(message) = self.message(uid) else { return };
        let (sent, topic) = (message.sent, message.topic);
        let topic = self.topics[topic as usize].name;
        let message = format!(
            "{uid} for {} went to {} and to {}, two members of one group",
            cx.text(filter),
            self.who(first.1),
            self.who(second.1)
        );
        let story = Story::default()
            .uid(Some(uid))
            .topic(topic)
            .filter(Some(filter))
            .client(self.conn(second.1).client)
            .client(self.conn(first.1).client)
            .conn(first.1)
            .conn(second.1)
            .when(sent, format!("PUBLISH {uid} was sent"))
            .when(first.2, "the first member received it")
            .when(cx.now, "the second member received it");
        cx.violated(Check::Shared, message, story);
    }

    /// At quiescence: groups that got nothing.
    pub(super) fn judge_groups(&mut self, uid: Uid, cx: &mut Cx<'_>) {
        let Some(message) = self.message(uid) else { return };
        let (sent, topic, accepted) = (message.sent, message.topic, message.accepted);
        let missing: Vec<GroupDebt> =
            message.groups.iter().filter(|debt| debt.owed && !debt.maybe && debt.count == 0).cloned().collect();
        for debt in missing {
            let members = self.groups[debt.group as usize].members.clone();
            let mut story = Story::default().uid(Some(uid)).topic(self.topics[topic as usize].name);
            let mut excused = false;
            for member in members {
                let member = &self.subs[member as usize];
                let (id, certain) = (member.id, member.certain);
                if !member.grants.iter().any(|grant| grant.overlaps(sent, accepted.unwrap_or(sent) + self.lane_slack()))
                {
                    continue;
                }
                let known = &self.ids[id as usize];
                // Wills of others take a place, too.
                let behind = (known.matched + self.wills, known.matched_bytes);
                let overflow = overflows(behind, self.limits.queue_len, self.limits.queue_bytes);
                let until = accepted.unwrap_or(sent) + self.lane_slack();
                excused |= self.ways.exist() && self.ways.was_split(sent, until);
                let healthy = certain.is_some_and(|certain| certain < sent) && self.is_drained(id, cx.now) && !overflow;
                excused |= !healthy;
                if let Some(conn) = known.current {
                    story = story.client(self.conn(conn).client).conn(conn);
                }
                story = story.when_some(certain, "SUBACK of a member was written");
            }
            if excused {
                continue;
            }
            let filter = self.groups[debt.group as usize].filter;
            let message = format!("{uid} for {} went to no member of the group", cx.text(filter));
            let story = story
                .filter(Some(filter))
                .when(sent, format!("PUBLISH {uid} was sent"))
                .when_some(accepted, "its acknowledgement was written")
                .when(cx.now, "quiescence, nobody received it");
            cx.violated(Check::Shared, message, story);
        }
    }
}
