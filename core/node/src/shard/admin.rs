//! What an operator asks and wants of this shard ([`crate::admin`]). An answer looks at a bounded number of entries, so that
//! clients do not wait for it.

use newtmq_base::{ConnId, Instant};
use newtmq_mqtt::{OwnedTopicFilter, ProtocolVersion, QoS, ReasonCode, SubscribeOptions, TopicName};
use newtmq_session::{Applied, Message, MessageParts, Op};
use newtmq_topic::RetainedValue as _;

use super::{SessionSlot, Shard, is_open};
use crate::admin::{
    ClientInfo, From, LOOKED_AT_MAX, OperatorCommand, Page, RetainedInfo, SessionInfo, ShardAnswer, ShardQuestion,
    SubscriptionInfo, Walk, Which,
};
use crate::conn::{Conn, Feature, NONE};
use crate::hooks::Hook;
use crate::io::Outbox;
use crate::view::ShardView;

impl ShardView<'_> {
    /// Answers an operator. Of what is many, a page: at most a few thousand entries are looked at, so that a page may have
    /// fewer values than were asked for, and still not be the last.
    #[must_use]
    pub fn answer(&self, now: Instant, question: &ShardQuestion) -> ShardAnswer {
        let shard = self.shard();
        match question {
            ShardQuestion::Clients(which, walk) => ShardAnswer::Clients(shard.clients_page(which, walk)),
            ShardQuestion::Sessions(which, walk) => ShardAnswer::Sessions(shard.sessions_page(which, walk)),
            ShardQuestion::Subscriptions(which, walk) => {
                ShardAnswer::Subscriptions(shard.subscriptions_page(which, walk))
            }
            ShardQuestion::Retained(filter, walk) => ShardAnswer::Retained(shard.retained_page(filter.as_ref(), walk)),
            ShardQuestion::Figures => {
                let used = shard.shares.connections.iter().map(|share| share.used).collect();
                ShardAnswer::Figures(Box::new(shard.report()), used)
            }
            ShardQuestion::Ready => ShardAnswer::Ready(shard.is_ready(now)),
        }
    }
}

impl Shard {
    fn is_ready(&self, now: Instant) -> bool {
        let knows = !self.reluctance.holds(now, QoS::AtLeastOnce);
        knows && !self.recovering && !self.stopping && !self.reluctance.drains()
    }

    /// Sessions that are looked at, with their keys, from a place on; and the place that follows.
    fn looked_at(&self, which: &Which, from: u64) -> (impl Iterator<Item = (u32, &SessionSlot)>, Option<From>) {
        let (keys, next) = match which {
            Which::Client(client) => {
                let key = self.find_session(client).filter(|key| u64::from(*key) >= from);
                (key.map_or(0..0, |key| key..key + 1), None)
            }
            Which::All | Which::Username(_) | Which::Matching(_) => {
                let end = self.sessions.key_end();
                let first = u32::try_from(from).unwrap_or(end).min(end);
                let last = first.saturating_add(LOOKED_AT_MAX as u32).min(end);
                (first..last, (last < end).then_some(From::At(u64::from(last))))
            }
        };
        (keys.filter_map(|key| Some((key, self.sessions.get(key)?))), next)
    }

    fn conn_of(&self, slot: &SessionSlot) -> Option<&Conn> {
        self.conns.get(slot.conn as usize).and_then(Option::as_ref).filter(|_| slot.conn != NONE)
    }

    fn clients_page(&self, which: &Which, walk: &Walk) -> Page<ClientInfo> {
        let mut page = Page::new();
        let (sessions, next) = self.looked_at(which, walk.from.place());
        for (key, slot) in sessions {
            let Some(c) = self.conn_of(slot).filter(|c| is_open(c) && has_username(c, which)) else { continue };
            if !page.take(walk, || self.client_info(slot, c)) {
                page.next = Some(From::At(u64::from(key)));
                return page;
            }
        }
        page.next = next;
        page
    }

    fn client_info(&self, slot: &SessionSlot, c: &Conn) -> ClientInfo {
        let rare = c.rare.as_deref();
        ClientInfo {
            client: slot.session.client().as_str().into(),
            username: rare.and_then(|rare| rare.username.clone()),
            peer: c.peer.address(),
            listener: newtmq_base::ListenerId(c.listener),
            zone: self.config.zones[usize::from(c.zone)].name.clone(),
            version: match c.version {
                ProtocolVersion::V31 => 3,
                ProtocolVersion::V311 => 4,
                ProtocolVersion::V5 => 5,
            },
            clean_start: c.features.has(Feature::CleanStart),
            keep_alive: c.keep_alive,
            connected_at: self.wall.0 / 1000 + u64::from(slot.connected),
            mountpoint: rare.and_then(|rare| rare.mount.clone()),
            output_bytes: c.out.len(),
            held: c.held,
            stalled: c.stalled,
        }
    }

    fn sessions_page(&self, which: &Which, walk: &Walk) -> Page<SessionInfo> {
        let mut page = Page::new();
        let (sessions, next) = self.looked_at(which, walk.from.place());
        for (key, slot) in sessions {
            let c = self.conn_of(slot);
            if matches!(which, Which::Username(_)) && !c.is_some_and(|c| has_username(c, which)) {
                continue;
            }
            if !page.take(walk, || self.session_info(slot, c)) {
                page.next = Some(From::At(u64::from(key)));
                return page;
            }
        }
        page.next = next;
        page
    }

    fn session_info(&self, slot: &SessionSlot, c: Option<&Conn>) -> SessionInfo {
        let session = &slot.session;
        let limits = &self.config.zones[usize::from(slot.zone)].session;
        SessionInfo {
            client: session.client().as_str().into(),
            username: c.and_then(|c| c.rare.as_deref()?.username.clone()),
            connected: c.is_some(),
            clean_start: session.expiry_interval() == 0,
            expiry_interval: session.expiry_interval(),
            subscriptions: session.subscriptions().len(),
            max_inflight: limits.max_inflight,
            inflight: session.inflight_len(),
            queued: session.queue_len(),
            max_queued: limits.max_mqueue_len,
            awaiting_rel: session.awaiting_rel_len(),
            stored: slot.stored.is_some(),
            created_at: self.wall.0 / 1000 + u64::from(slot.created),
        }
    }

    /// A place is a session's key above the number of its subscription.
    fn subscriptions_page(&self, which: &Which, walk: &Walk) -> Page<SubscriptionInfo> {
        let mut page = Page::new();
        let (first, mut within) = ((walk.from.place() >> 32), walk.from.place() as u32 as usize);
        let (sessions, next) = self.looked_at(which, first);
        let topic = if let Which::Matching(topic) = which { TopicName::new(topic).ok() } else { None };
        let mut looked_at = 0;
        for (key, slot) in sessions {
            let begin = if u64::from(key) == first { within } else { 0 };
            within = 0;
            for (at, (filter, entry)) in slot.session.subscriptions().iter().enumerate().skip(begin) {
                let here = || Some(From::At(u64::from(key) << 32 | at as u64));
                if looked_at == LOOKED_AT_MAX {
                    page.next = here();
                    return page;
                }
                looked_at += 1;
                if topic.is_some_and(|topic| !filter.as_filter().matches(topic)) {
                    continue;
                }
                let info = || SubscriptionInfo {
                    client: slot.session.client().as_str().into(),
                    filter: filter.as_str().into(),
                    qos: entry.options.qos,
                    no_local: entry.options.no_local,
                    connected: slot.conn != NONE,
                };
                if !page.take(walk, info) {
                    page.next = here();
                    return page;
                }
            }
        }
        page.next = next.map(|next| From::At(next.place() << 32));
        page
    }

    fn retained_page(&self, filter: Option<&OwnedTopicFilter>, walk: &Walk) -> Page<RetainedInfo> {
        let mut page = Page::new();
        let mut after: Box<str> = if let From::After(topic) = &walk.from { topic.clone() } else { "".into() };
        for _ in 0..LOOKED_AT_MAX {
            let Some(retained) = self.retained.after(&after) else { return page };
            let message = &retained.message;
            let name = TopicName::new(retained.topic()).expect("retained under a valid Topic Name");
            // What the server says of itself nobody asks for by asking for all.
            let is_asked = match filter {
                Some(filter) => filter.as_filter().matches(name),
                None => !name.as_str().starts_with("$SYS/"),
            };
            if is_asked {
                let info = || RetainedInfo {
                    topic: name.as_str().into(),
                    qos: message.qos(),
                    payload_bytes: message.payload().len(),
                };
                if !page.take(walk, info) {
                    page.next = Some(From::After(after));
                    return page;
                }
            }
            after = name.as_str().into();
        }
        page.next = Some(From::After(after));
        page
    }

    pub(crate) fn on_operator(&mut self, now: Instant, command: OperatorCommand, out: &mut Outbox) {
        match command {
            OperatorCommand::Kick(client) => {
                if let Some(conn) = self.connection_of(&client) {
                    self.reject(now, conn, ReasonCode::AdministrativeAction, out);
                }
            }
            OperatorCommand::Publish { topic, payload, qos, retain } => {
                let parts = MessageParts {
                    id: self.journal.message_id(),
                    topic: topic.as_bytes(),
                    forwardable: &[],
                    payload: &payload,
                    qos,
                    retain,
                    expires: Instant::NEVER,
                    stretched: false,
                };
                let message = Message::new(&parts, &mut self.scratch.block);
                self.publish_message(now, &message, NONE, out);
            }
            OperatorCommand::Subscribe { client, filter, qos } => {
                let Some(conn) = self.connection_of(&client) else { return };
                let options = SubscribeOptions::new(qos);
                if let Ok((qos, filter)) = self.check_filter(conn, filter.as_filter(), options) {
                    self.subscribe_one(conn, filter, SubscribeOptions { qos, ..options }, None, out);
                }
            }
            OperatorCommand::Unsubscribe { client, filter } => self.unsubscribe_for(&client, &filter, out),
        }
    }

    fn unsubscribe_for(&mut self, client: &str, filter: &OwnedTopicFilter, out: &mut Outbox) {
        let Some(conn) = self.connection_of(client) else { return };
        let Some(filter) = self.mounted_filter(conn, filter.as_filter()) else { return };
        let key = self.live(conn).session;
        let class = self.class_of_session(key);
        self.remove_subscription(filter.as_filter(), key, class);
        self.stop_pouring(key, filter.as_str());
        if self.apply(conn, Op::Unsubscribe { filter: filter.as_filter() }) == Applied::Done {
            self.tell(Hook::SessionUnsubscribed, key, Some(filter.as_str()), ReasonCode::Success, out);
        }
        self.begin_readings(key, out);
    }

    /// The open connection of a client.
    fn connection_of(&self, client: &str) -> Option<ConnId> {
        let slot = self.sessions.get(self.find_session(client)?)?;
        let c = self.conn_of(slot).filter(|c| is_open(c))?;
        Some(ConnId { slot: slot.conn, generation: c.generation })
    }
}

fn has_username(c: &Conn, which: &Which) -> bool {
    match which {
        Which::Username(wanted) => c.rare.as_deref().and_then(|rare| rare.username.as_deref()) == Some(wanted),
        Which::All | Which::Client(_) | Which::Matching(_) => true,
    }
}
