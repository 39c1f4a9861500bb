//! SUBSCRIBE and UNSUBSCRIBE (sections 3.8 to 3.11).

use newtmq_base::{ConnId, Instant, planted};
use newtmq_mqtt::{
    Frame, InvalidTopic, OwnedTopicFilter, Packet, PacketId, QoS, ReasonCode, ReasonCodes, RetainHandling, Suback,
    Subscribe, SubscribeOptions, TopicFilter, Unsuback, Unsubscribe,
};
use newtmq_session::{Applied, Op};
use newtmq_topic::{SubscriberId, Subscription};

use super::{Next, Shard, is_open};
use crate::conn::{Feature, Pending, PendingSuback, Stage};
use crate::hooks::{AclAction, Hook, Question, Verdict};
use crate::io::Outbox;

impl Shard {
    pub(crate) fn on_subscribe(
        &mut self,
        now: Instant,
        conn: ConnId,
        frame: Frame<'_>,
        subscribe: &Subscribe<'_>,
        out: &mut Outbox,
    ) -> Next {
        if let Some(next) = self.ask_about_subscribe(conn, frame, subscribe, None, out) {
            return next;
        }
        self.subscribe_all(now, conn, subscribe, &[], out)
    }

    /// The next question that a hook wants to answer. The packet is put aside meanwhile.
    pub(crate) fn ask_about_subscribe(
        &mut self,
        conn: ConnId,
        frame: Frame<'_>,
        subscribe: &Subscribe<'_>,
        asked: Option<Stage>,
        out: &mut Outbox,
    ) -> Option<Next> {
        let hooks = self.config.hooks;
        let stage = match asked {
            None if self.asks_acl(conn) => Stage::CheckAcl,
            None | Some(Stage::CheckAcl) if hooks.has(Hook::ClientSubscribe) => Stage::Subscribe,
            _ => return None,
        };
        let key = self.live(conn).session;
        let client: Box<str> = self.slot(key).session.client().as_str().into();
        let text = |filter: Result<TopicFilter<'_>, InvalidTopic>| filter.map_or("", |filter| filter.filter()).into();
        let topics = subscribe.filters().map(|(filter, _)| text(filter)).collect();
        let question = if stage == Stage::CheckAcl {
            self.acl_question(conn, client, AclAction::Subscribe, topics)
        } else {
            Question::Subscribe { client, topics }
        };
        let request = self.ask(conn, question, out);
        self.live(conn).rare().pending = Some(Pending { request, stage, packet: frame.bytes.into() });
        Some(Next::Hold)
    }

    /// Makes the subscriptions, answers, then sends retained messages. `refused` has a reason per filter from the hooks;
    /// missing ones are fine.
    pub(crate) fn subscribe_all(
        &mut self,
        now: Instant,
        conn: ConnId,
        subscribe: &Subscribe<'_>,
        refused: &[ReasonCode],
        out: &mut Outbox,
    ) -> Next {
        let Some(refused) = self.refused_by_rules(now, conn, subscribe, refused) else {
            return self.reject(now, conn, ReasonCode::NotAuthorized, out);
        };
        let mut reasons = Vec::new();
        let mut granted = Vec::new();
        for (at, (filter, options)) in subscribe.filters().enumerate() {
            let hook = refused.get(at).copied().filter(|reason| reason.is_error());
            let reason = match (hook, filter) {
                (Some(reason), _) => reason,
                (None, Err(_)) => ReasonCode::TopicFilterInvalid,
                (None, Ok(filter)) => match self.check_filter(conn, filter, options) {
                    Ok((qos, filter)) => {
                        let options = SubscribeOptions { qos, ..options };
                        let new =
                            self.subscribe_one(conn, filter.clone(), options, subscribe.subscription_identifier, out);
                        granted.push((filter, options, new));
                        granted_code(if planted!(SubackSaysLess, qos == QoS::ExactlyOnce) {
                            QoS::AtLeastOnce
                        } else {
                            qos
                        })
                    }
                    // Shared and No Local together are a Protocol Error [MQTT-3.8.3-4].
                    Err(ReasonCode::ProtocolError) => return self.reject(now, conn, ReasonCode::ProtocolError, out),
                    Err(reason) => reason,
                },
            };
            reasons.push(reason);
        }
        let identifier = subscribe.subscription_identifier.map_or(0, core::num::NonZeroU32::get);
        let key = self.live(conn).session;
        let mut readings = Vec::new();
        for (filter, options, new) in granted {
            let wanted = match options.retain_handling {
                RetainHandling::SendAtSubscribe => true,
                RetainHandling::SendIfNew => new || planted!(RetainHandlingIgnored),
                RetainHandling::DoNotSend => false,
            };
            // Never for a shared subscription (section 4.8.2).
            if wanted
                && filter.as_filter().share_group().is_none()
                && self.prepare_pour(key, &filter, options.qos, identifier)
            {
                readings.push(filter);
            }
        }
        let mut suback = PendingSuback { packet_id: subscribe.packet_id, reasons, readings };
        if self.is_committed(out) || planted!(SubackBeforeInstall) {
            return self.answer_subscribe(now, conn, suback, out);
        }
        if planted!(ReadBeforeInstall, !suback.readings.is_empty()) {
            for filter in core::mem::take(&mut suback.readings) {
                self.pour(key, filter, out);
            }
        }
        // What the client publishes next is matched with what it has subscribed.
        self.wait_for_commit(conn, suback);
        Next::Hold
    }

    /// Every shard knows the subscriptions of a connection that waited for it.
    pub(crate) fn finish_subscribe(&mut self, now: Instant, conn: ConnId, suback: PendingSuback, out: &mut Outbox) {
        let Some(c) = self.conn_mut(conn) else { return };
        if !planted!(HoldNeverResumed) {
            c.features.remove(Feature::Subscribing);
        }
        if is_open(c) && self.answer_subscribe(now, conn, suback, out) == Next::Go {
            self.resume(now, conn, out);
        }
    }

    /// SUBACK, then retained messages.
    fn answer_subscribe(&mut self, now: Instant, conn: ConnId, suback: PendingSuback, out: &mut Outbox) -> Next {
        let PendingSuback { packet_id, reasons, readings } = suback;
        if self.send_suback(now, conn, packet_id, &reasons, out) == Next::Stop {
            return Next::Stop;
        }
        let key = self.live(conn).session;
        for filter in readings {
            self.pour(key, filter, out);
        }
        self.pump(now, conn, out);
        Next::Go
    }

    fn send_suback(
        &mut self,
        now: Instant,
        conn: ConnId,
        packet_id: PacketId,
        reasons: &[ReasonCode],
        out: &mut Outbox,
    ) -> Next {
        if !planted!(SubackBeforeStored) {
            self.bar_session(conn);
        }
        let suback = Suback { packet_id, properties: Default::default(), reason_codes: ReasonCodes::new(reasons) };
        self.must_send(now, conn, &Packet::Suback(suback), out)
    }

    /// What the configuration does not allow; else the QoS that is granted, and the filter with its mountpoint.
    pub(super) fn check_filter(
        &mut self,
        conn: ConnId,
        filter: TopicFilter<'_>,
        options: SubscribeOptions,
    ) -> Result<(QoS, OwnedTopicFilter), ReasonCode> {
        let mqtt = &self.config.mqtt;
        let shared = filter.share_group().is_some();
        if shared && options.no_local {
            return Err(ReasonCode::ProtocolError);
        }
        if shared && !mqtt.shared_subscription {
            return Err(ReasonCode::SharedSubscriptionsNotSupported);
        }
        if filter.has_wildcards() && !mqtt.wildcard_subscription {
            return Err(ReasonCode::WildcardSubscriptionsNotSupported);
        }
        if mqtt.max_topic_levels > 0 && filter.filter().split('/').count() > mqtt.max_topic_levels {
            return Err(ReasonCode::TopicFilterInvalid);
        }
        let granted = options.qos.min(mqtt.max_qos_allowed);
        let c = self.live(conn);
        let (key, zone) = (c.session, usize::from(c.zone));
        let limit = self.config.zones[zone].max_subscriptions;
        let filter = self.mounted_filter(conn, filter).ok_or(ReasonCode::TopicFilterInvalid)?;
        let subscriptions = self.slot(key).session.subscriptions();
        if limit > 0 && subscriptions.len() >= limit && subscriptions.get(filter.as_str()).is_none() {
            return Err(ReasonCode::QuotaExceeded);
        }
        Ok((granted, filter))
    }

    /// Says whether the subscription is new.
    pub(super) fn subscribe_one(
        &mut self,
        conn: ConnId,
        filter: OwnedTopicFilter,
        options: SubscribeOptions,
        identifier: Option<core::num::NonZeroU32>,
        out: &mut Outbox,
    ) -> bool {
        let key = self.live(conn).session;
        let SubscribeOptions { qos, no_local, retain_as_published, .. } = options;
        let subscription = Subscription::new(SubscriberId(key), qos, no_local, retain_as_published, identifier);
        self.add_subscription(&filter, subscription);
        self.tell(Hook::SessionSubscribed, key, Some(filter.as_str()), granted_code(qos), out);
        self.apply(conn, Op::Subscribe { filter, options, identifier }) == Applied::Done
    }

    pub(crate) fn on_unsubscribe(
        &mut self,
        now: Instant,
        conn: ConnId,
        unsubscribe: &Unsubscribe<'_>,
        out: &mut Outbox,
    ) -> Next {
        let key = self.live(conn).session;
        let mut reasons = Vec::new();
        for filter in unsubscribe.filters() {
            let Ok(filter) = filter else {
                reasons.push(ReasonCode::TopicFilterInvalid);
                continue;
            };
            self.tell(Hook::ClientUnsubscribe, key, Some(filter.as_str()), ReasonCode::Success, out);
            let Some(filter) = self.mounted_filter(conn, filter) else {
                reasons.push(ReasonCode::NoSubscriptionExisted);
                continue;
            };
            let filter = filter.as_filter();
            let class = self.class_of_session(key);
            self.remove_subscription(filter, key, class);
            self.stop_pouring(key, filter.as_str());
            let known = self.apply(conn, Op::Unsubscribe { filter }) == Applied::Done;
            if known {
                self.tell(Hook::SessionUnsubscribed, key, Some(filter.as_str()), ReasonCode::Success, out);
            }
            reasons.push(if known { ReasonCode::Success } else { ReasonCode::NoSubscriptionExisted });
        }
        self.begin_readings(key, out);
        self.bar_session(conn);
        let unsuback = Unsuback {
            packet_id: unsubscribe.packet_id,
            properties: Default::default(),
            reason_codes: ReasonCodes::new(&reasons),
        };
        self.must_send(now, conn, &Packet::Unsuback(unsuback), out)
    }

    /// A hook has answered about a SUBSCRIBE that was put aside.
    #[allow(clippy::too_many_arguments)] // the packet, the question and its answer
    pub(crate) fn on_subscribe_verdict(
        &mut self,
        now: Instant,
        conn: ConnId,
        frame: Frame<'_>,
        subscribe: &Subscribe<'_>,
        asked: Stage,
        verdict: Verdict,
        out: &mut Outbox,
    ) -> Next {
        let earlier = core::mem::take(&mut self.live(conn).rare().refused);
        let refused = refused_by_both(earlier, verdict, subscribe.filters().count());
        let all_refused = !refused.is_empty() && refused.iter().all(|reason| reason.is_error());
        if !all_refused && let Some(next) = self.ask_about_subscribe(conn, frame, subscribe, Some(asked), out) {
            self.live(conn).rare().refused = refused;
            return next;
        }
        self.subscribe_all(now, conn, subscribe, &refused, out)
    }
}

/// What two hooks say of the filters of a SUBSCRIBE: the first refusal counts. Empty if nothing is refused.
fn refused_by_both(earlier: Vec<ReasonCode>, verdict: Verdict, count: usize) -> Vec<ReasonCode> {
    let mut refused = match verdict {
        Verdict::Allow { .. } | Verdict::Grant(_) | Verdict::Continue(_) => return earlier,
        Verdict::Deny(reason) => vec![reason; count],
        Verdict::Each(reasons) => reasons,
    };
    refused.resize(count, ReasonCode::Success);
    for (reason, earlier) in refused.iter_mut().zip(earlier) {
        if earlier.is_error() {
            *reason = earlier;
        }
    }
    refused
}

/// The reason code of a granted subscription (section 3.9.3).
fn granted_code(qos: QoS) -> ReasonCode {
    match qos {
        QoS::AtMostOnce => ReasonCode::GRANTED_QOS_0,
        QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
        QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
    }
}
