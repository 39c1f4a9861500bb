//! What clients may do with topics: the rules of `acl.conf`, after the hooks and before anything happens.
//!
//! The rules are a value in the configuration, so that asking them holds nobody. A connection remembers the last topic
//! that it was let publish to, and in its cache some more answers; both are good only for the rules that gave them.

use std::borrow::Cow;

use newtmq_access::{AclCacheLimits, Action, Permission, Who};
use newtmq_base::{ConnId, Instant};
use newtmq_mqtt::{Connect, RawPublish, ReasonCode, Subscribe, TopicName};

use super::{Next, Shard, TimerKind};
use crate::config::{AccessConfig, DenyAction};
use crate::conn::{Phase, Stage};
use crate::hooks::{AclAction, Grant, Hook, Question};
use crate::io::{Outbox, Output};

impl Shard {
    /// Other rules hold from here on; what connections remember of the old ones is worth nothing any more.
    pub(crate) fn on_set_access(&mut self, access: AccessConfig) {
        self.config.access = access;
        // 0 is what connections remember that have not asked yet.
        self.access_generation = self.access_generation.wrapping_add(1).max(1);
    }

    /// A client may connect, with rules of its own maybe, and for some time.
    pub(super) fn granted(&mut self, conn: ConnId, grant: Box<Grant>) {
        self.has_own_rules |= grant.rules.is_some();
        let until = grant.until;
        self.live(conn).rare().grant = Some(grant);
        if let Some(until) = until {
            self.timers.arm(until, TimerKind::Grant(conn.slot));
        }
    }

    /// The time of a connection is over, whatever it does at that moment.
    pub(super) fn on_grant_timer(&mut self, now: Instant, slot: u32, out: &mut Outbox) {
        let Some(Some(c)) = self.conns.get(slot as usize) else { return };
        let conn = ConnId { slot, generation: c.generation };
        let grant = c.rare.as_deref().and_then(|rare| rare.grant.as_deref());
        let is_over = grant.and_then(|grant| grant.until).is_some_and(|until| until <= now);
        if !is_over || c.phase == Phase::Closing {
            return;
        }
        if c.phase == Phase::Open {
            self.reject(now, conn, ReasonCode::MaximumConnectTime, out);
        } else {
            self.reject_connect(now, conn, ReasonCode::NotAuthorized, out);
        }
    }

    fn grant(&self, conn: ConnId) -> Option<&Grant> {
        self.conn(conn)?.rare.as_deref()?.grant.as_deref()
    }

    /// Whether a hook wants to say what this client may do: not of one for whom no rule counts.
    pub(super) fn asks_acl(&self, conn: ConnId) -> bool {
        let counts = |zone: u16| !self.config.zones[usize::from(zone)].bypass_acl;
        self.config.hooks.has(Hook::ClientCheckAcl)
            && self.conn(conn).is_some_and(|c| counts(c.zone))
            && !self.grant(conn).is_some_and(|grant| grant.superuser || grant.rules.is_some())
    }

    pub(super) fn acl_question(
        &mut self,
        conn: ConnId,
        client: Box<str>,
        action: AclAction,
        topics: Vec<Box<str>>,
    ) -> Question {
        let c = self.live(conn);
        let username = c.rare.as_ref().and_then(|rare| rare.username.clone());
        Question::CheckAcl { peer: c.peer.address(), client, username, action, topics }
    }

    /// Whether anything could be denied to anybody.
    #[inline]
    pub(super) fn has_rules(&self) -> bool {
        self.config.access.is_on() || self.has_own_rules
    }

    /// What the rules of a connection say, or else those of all.
    pub(super) fn check_rules(&self, conn: ConnId, who: &Who<'_>, action: Action, topic: &str) -> Permission {
        let grant = self.grant(conn);
        if grant.is_some_and(|grant| grant.superuser) {
            return Permission::Allow;
        }
        let own = grant.and_then(|grant| grant.rules.as_deref()).and_then(|rules| rules.check(who, action, topic));
        own.unwrap_or_else(|| self.config.access.check(who, action, topic))
    }

    /// Whether a client that wants to connect is banned.
    pub(super) fn is_banned(&mut self, now: Instant, conn: ConnId, client: &str, username: Option<&str>) -> bool {
        let c = self.live(conn);
        let (zone, ip) = (usize::from(c.zone), c.peer.address().ip());
        !self.config.zones[zone].bypass_bans && self.bans.has(now, client, username, ip)
    }

    /// A client has connected, maybe once too often.
    pub(super) fn count_connections(&mut self, now: Instant, key: u32, zone: u16, out: &mut Outbox) {
        let Some(limits) = &self.config.zones[usize::from(zone)].flapping else { return };
        let Some(slot) = self.sessions.get(key) else { return };
        let client = slot.session.client().as_str();
        if self.flapping.connected(now, client, limits) {
            out.push(Output::Flaps { client: client.into(), zone });
        }
    }

    /// Whether a publish to this topic may go on without another look: there are no rules, or the connection's last
    /// publish was to this very topic and the rules are the same.
    #[inline]
    pub(crate) fn is_permitted(&self, conn: ConnId, topic: &[u8]) -> bool {
        if !self.has_rules() {
            return true;
        }
        let Some(c) = self.conn(conn) else { return false };
        let remembered = c
            .rare
            .as_deref()
            .is_some_and(|rare| rare.permitted_generation == self.access_generation && *rare.permitted == *topic);
        remembered || self.config.zones[usize::from(c.zone)].bypass_acl
    }

    /// The last question about a publish that needs no answer any more. What the cache knows, no hook is asked again.
    pub(crate) fn answered(
        &mut self,
        now: Instant,
        conn: ConnId,
        topic: TopicName<'_>,
        asked: Option<Stage>,
    ) -> Option<Stage> {
        let asks = asked.is_none() && self.asks_acl(conn);
        if asks
            && self.config.access.cache.is_some()
            && self.recall(now, conn, Action::Publish, topic.as_str()).is_some()
        {
            return Some(Stage::CheckAcl);
        }
        asked
    }

    /// Looks a publish up in the rules, unless a hook has to say something before them or they were asked already.
    /// `Some` if it is refused.
    pub(crate) fn refuse_by_rules(
        &mut self,
        now: Instant,
        conn: ConnId,
        publish: &RawPublish<'_>,
        topic: TopicName<'_>,
        asked: Option<Stage>,
        out: &mut Outbox,
    ) -> Option<Next> {
        let hook_first = asked.is_none() && self.asks_acl(conn);
        if hook_first || asked == Some(Stage::Publish) || !self.remembers(asked) {
            return None;
        }
        if self.is_permitted(conn, topic.as_str().as_bytes()) && asked.is_none() {
            return None;
        }
        if self.decide(now, conn, Action::Publish, topic.as_str()) == Permission::Deny {
            return Some(self.deny_publish(now, conn, publish, ReasonCode::NotAuthorized, out));
        }
        let generation = self.access_generation;
        let rare = self.live(conn).rare();
        rare.permitted_generation = generation;
        if *rare.permitted != *topic.as_str().as_bytes() {
            rare.permitted = topic.as_str().as_bytes().into();
        }
        None
    }

    /// Whether an answer is to be had or kept at all: from rules, or from a hook with a cache behind it.
    fn remembers(&self, asked: Option<Stage>) -> bool {
        self.has_rules() || (asked == Some(Stage::CheckAcl) && self.config.access.cache.is_some())
    }

    /// What a client gets that may not publish: `acl_deny_action`.
    pub(crate) fn deny_publish(
        &mut self,
        now: Instant,
        conn: ConnId,
        publish: &RawPublish<'_>,
        reason: ReasonCode,
        out: &mut Outbox,
    ) -> Next {
        self.ledger.denied += 1;
        match self.config.access.deny_action {
            DenyAction::Ignore => self.refuse_publish(now, conn, publish, reason, out),
            // A hook's reason may be none that a DISCONNECT has (section 3.14.2.1).
            DenyAction::Disconnect => self.reject(now, conn, ReasonCode::NotAuthorized, out),
        }
    }

    /// What the rules refuse of a SUBSCRIBE, together with what the hooks have refused; a reason for each filter, or
    /// nothing at all. `None` if the client is to be disconnected for it.
    pub(crate) fn refused_by_rules<'a>(
        &mut self,
        now: Instant,
        conn: ConnId,
        subscribe: &Subscribe<'_>,
        by_hooks: &'a [ReasonCode],
    ) -> Option<Cow<'a, [ReasonCode]>> {
        if !self.has_rules() {
            return Some(by_hooks.into());
        }
        let mut refused: Vec<ReasonCode> = Vec::new();
        for (at, (filter, _)) in subscribe.filters().enumerate() {
            let by_hook = by_hooks.get(at).copied().unwrap_or(ReasonCode::Success);
            let denied = match filter {
                // A shared subscription gets what its filter matches (section 4.8.2).
                Ok(filter) if !by_hook.is_error() => {
                    self.decide(now, conn, Action::Subscribe, filter.filter()) == Permission::Deny
                }
                Ok(_) | Err(_) => false,
            };
            if denied {
                self.ledger.denied += 1;
                if self.config.access.deny_action == DenyAction::Disconnect {
                    return None;
                }
            }
            refused.push(if denied { ReasonCode::NotAuthorized } else { by_hook });
        }
        Some(refused.into())
    }

    /// Whether the client may publish its will. Asked at CONNECT, where the client can be told; rules that change later
    /// change nothing about it.
    pub(crate) fn permits_will(&mut self, conn: ConnId, client: &str, connect: &Connect<'_>) -> bool {
        let Some(will) = connect.will.as_ref() else { return true };
        let c = self.live(conn);
        let (zone, ip) = (usize::from(c.zone), c.peer.address().ip());
        if !self.has_rules() || self.config.zones[zone].bypass_acl {
            return true;
        }
        let who = Who { client, username: connect.username, ip };
        let permitted = self.check_rules(conn, &who, Action::Publish, will.topic.as_str()) == Permission::Allow;
        self.ledger.denied += u64::from(!permitted);
        permitted
    }

    /// The answer of the cache, or of the rules.
    fn decide(&mut self, now: Instant, conn: ConnId, action: Action, topic: &str) -> Permission {
        if let Some(known) = self.recall(now, conn, action, topic) {
            return known;
        }
        let Some(c) = self.conn(conn) else { return Permission::Deny };
        if self.config.zones[usize::from(c.zone)].bypass_acl {
            return Permission::Allow;
        }
        let who = Who {
            client: self.sessions.get(c.session).map_or("", |slot| slot.session.client().as_str()),
            username: c.rare.as_deref().and_then(|rare| rare.username.as_deref()),
            ip: c.peer.address().ip(),
        };
        let permission = self.check_rules(conn, &who, action, topic);
        if let Some(limits) = self.config.access.cache {
            self.remember(now, conn, &limits, (action, topic, permission));
        }
        permission
    }

    fn recall(&mut self, now: Instant, conn: ConnId, action: Action, topic: &str) -> Option<Permission> {
        self.config.access.cache?;
        let generation = self.access_generation;
        self.live(conn).rare.as_deref_mut()?.acl_cache.get(now, generation, action, topic)
    }

    fn remember(&mut self, now: Instant, conn: ConnId, limits: &AclCacheLimits, answer: (Action, &str, Permission)) {
        let generation = self.access_generation;
        self.live(conn).rare().acl_cache.put(now, generation, limits, answer);
    }
}
