//! CONNECT: checks, authentication, the claim of a session, CONNACK (sections 3.1 and 3.2).

use core::time::Duration;

use newtmq_base::{ConnId, Instant, planted};
use newtmq_cluster::lane::Epoch;
use newtmq_mqtt::{
    ClientId, Connack, ConnackProperties, Connect, Frame, Packet, ProtocolVersion, QoS, ReasonCode, Sender,
};
use newtmq_session::{MessageParts, Op, Session, Will};

use super::{Next, Shard, TimerKind};
use crate::conn::{Feature, NONE, Pending, Phase, Stage};
use crate::hooks::{Hook, Question};
use crate::io::Outbox;

/// Random part of a Client Identifier that the server assigns: 16 hexadecimal digits.
const ASSIGNED_PREFIX: &str = "newtmq-";

/// The largest packet that there is: fixed header and Remaining Length (2.1.4).
const PACKET_SIZE_MAX: u32 = 5 + newtmq_mqtt::MAX_REMAINING_LENGTH as u32;

impl Shard {
    pub(crate) fn on_connect(&mut self, now: Instant, conn: ConnId, frame: Frame<'_>, out: &mut Outbox) -> Next {
        // The version argument does not matter: CONNECT carries its own.
        let certified = self.certified(conn);
        let connect = match frame.decode(ProtocolVersion::V5, Sender::Client) {
            Ok(Packet::Connect(connect)) => with_name(connect, certified.as_deref()),
            Ok(_) => return self.reject_connect(now, conn, ReasonCode::ProtocolError, out),
            Err(error) => return self.on_decode_error(now, conn, &error, out),
        };
        let c = self.live(conn);
        c.version = connect.version;
        // Counts for a refusal and for AUTH, too [MQTT-3.1.2-24].
        c.max_packet_size = connect.properties.maximum_packet_size.unwrap_or(PACKET_SIZE_MAX).min(PACKET_SIZE_MAX);
        if let Err(reason) = self.check_connect(conn, &connect) {
            return self.reject_connect(now, conn, reason, out);
        }
        let client_id = self.client_id_of(conn, &connect);
        let home = self.home_of(client_id);
        if home != self.own && !client_id.is_empty() && !planted!(SessionWhereItCame) {
            return self.move_to(conn, home, frame.bytes, out);
        }
        if self.is_banned(now, conn, client_id, connect.username) {
            return self.reject_connect(now, conn, ReasonCode::Banned, out);
        }
        let zone = usize::from(self.live(conn).zone);
        if self.config.hooks.has(Hook::ClientAuthenticate) && !self.config.zones[zone].bypass_authentication {
            return self.ask_about_connect(conn, &connect, frame, out);
        }
        if connect.properties.authentication_method.is_some() {
            // Nobody here knows any method (section 4.12).
            return self.reject_connect(now, conn, ReasonCode::BadAuthenticationMethod, out);
        }
        self.open(now, conn, &connect, frame, None, out)
    }

    /// The User Name that the connection's certificate gives. Only before CONNECT was taken over.
    pub(crate) fn certified(&self, conn: ConnId) -> Option<Box<str>> {
        let rare = self.conn(conn)?.rare.as_ref()?;
        rare.username.clone()
    }

    /// What the configuration does not allow.
    fn check_connect(&self, conn: ConnId, connect: &Connect<'_>) -> Result<(), ReasonCode> {
        let client_id = self.client_id_of(conn, connect);
        if client_id.len() > self.config.mqtt.max_clientid_len {
            return Err(ReasonCode::ClientIdentifierNotValid);
        }
        // Before MQTT 5 an empty identifier needs Clean Session [MQTT-3.1.3-8 of 3.1.1]; MQTT 3.1 allows none.
        let may_be_empty = match connect.version {
            ProtocolVersion::V31 => false,
            ProtocolVersion::V311 => connect.clean_start,
            ProtocolVersion::V5 => true,
        };
        if client_id.is_empty() && !may_be_empty {
            return Err(ReasonCode::ClientIdentifierNotValid);
        }
        connect.will.as_ref().map_or(Ok(()), |will| self.check_will(will))
    }

    /// The same of a will.
    pub(super) fn check_will(&self, will: &newtmq_mqtt::Will<'_>) -> Result<(), ReasonCode> {
        if will.qos > self.config.mqtt.max_qos_allowed {
            return Err(ReasonCode::QoSNotSupported);
        }
        if will.retain && !self.config.mqtt.retain_available {
            return Err(ReasonCode::RetainNotSupported);
        }
        if will.topic.as_str().starts_with("$SYS/") {
            // Only the server speaks there (4.7.2).
            return Err(ReasonCode::NotAuthorized);
        }
        let max_topic_levels = self.config.mqtt.max_topic_levels;
        if max_topic_levels > 0 && will.topic.levels().count() > max_topic_levels {
            return Err(ReasonCode::TopicNameInvalid);
        }
        let is_text = will.properties.payload_format_indicator != Some(true);
        if !is_text && core::str::from_utf8(will.payload).is_err() {
            return Err(ReasonCode::PayloadFormatInvalid);
        }
        Ok(())
    }

    fn ask_about_connect(&mut self, conn: ConnId, connect: &Connect<'_>, frame: Frame<'_>, out: &mut Outbox) -> Next {
        let question = Question::Authenticate {
            conn,
            peer: self.live(conn).peer.address(),
            client: self.client_id_of(conn, connect).into(),
            username: connect.username.map(Into::into),
            password: connect.password.map(Into::into),
            method: connect.properties.authentication_method.map(Into::into),
            data: connect.properties.authentication_data.map(Into::into),
            will: connect.will.as_ref().map(|will| will.topic.as_str().into()),
        };
        let request = self.ask(conn, question, out);
        let c = self.live(conn);
        c.phase = Phase::Authenticating;
        let rare = c.rare();
        rare.method = connect.properties.authentication_method.map(Into::into);
        rare.pending = Some(Pending { request, stage: Stage::Authenticate, packet: frame.bytes.into() });
        Next::Hold
    }

    /// The client may connect: its session is claimed, CONNACK goes out.
    pub(crate) fn open(
        &mut self,
        now: Instant,
        conn: ConnId,
        connect: &Connect<'_>,
        frame: Frame<'_>,
        authentication_data: Option<&[u8]>,
        out: &mut Outbox,
    ) -> Next {
        if self.reluctance.drains() {
            return self.reject_connect(now, conn, ReasonCode::UseAnotherServer, out);
        }
        let client_id = self.client_id_of(conn, connect);
        // Once more: whoever had to prove its name may have been banned meanwhile.
        if self.is_banned(now, conn, client_id, connect.username) {
            return self.reject_connect(now, conn, ReasonCode::Banned, out);
        }
        let assigned = match client_id {
            "" => Some(self.assign_client_id()),
            // Whatever it is, a client that brought none is told [MQTT-3.2.2-16].
            _ if connect.client_id.is_empty() => Some(client_id.to_owned()),
            _ => None,
        };
        let text = assigned.as_deref().unwrap_or(client_id);
        if ClientId::new(text).is_err() {
            return self.reject_connect(now, conn, ReasonCode::ClientIdentifierNotValid, out);
        }
        if !self.permits_will(conn, text, connect) {
            return self.reject_connect(now, conn, ReasonCode::NotAuthorized, out);
        }
        if let Err(reason) = self.mount(conn, text, connect) {
            return self.reject_connect(now, conn, reason, out);
        }
        self.set_up(now, conn, connect);
        let zone = self.live(conn).zone;
        let expiry_interval = self.expiry_interval_of(connect, zone);
        // Nor can it be stored that a session has ended or gone on.
        let stored = |key: u32| self.sessions.get(key).is_some_and(|slot| slot.stored.is_some());
        let durable = expiry_interval > 0 || self.find_session(text).is_some_and(stored);
        if durable && self.has_lost_store(zone) {
            return self.reject_connect(now, conn, ReasonCode::ServerUnavailable, out);
        }
        let said = (assigned.as_deref(), authentication_data);
        if self.claims {
            return self.claim_session(now, conn, connect, frame, text, said, expiry_interval, out);
        }
        self.let_in(now, conn, connect, said, None, out)
    }

    /// The client may have its session, which is here or nowhere: CONNACK goes out. `epoch` is what the directory says of it.
    pub(super) fn let_in(
        &mut self,
        now: Instant,
        conn: ConnId,
        connect: &Connect<'_>,
        (assigned, authentication_data): (Option<&str>, Option<&[u8]>),
        epoch: Option<Epoch>,
        out: &mut Outbox,
    ) -> Next {
        let client = ClientId::new(assigned.unwrap_or_else(|| self.client_id_of(conn, connect)));
        let client = client.expect("it was looked at before");
        let zone = self.live(conn).zone;
        let expiry_interval = self.expiry_interval_of(connect, zone);
        let (key, present) = self.claim(now, client, zone, connect.clean_start, expiry_interval, out);
        self.live(conn).session = key;
        let seconds = u32::try_from((now - self.started).as_secs()).unwrap_or(u32::MAX);
        let slot = self.slot(key);
        slot.conn = conn.slot;
        slot.connected = seconds;
        if !present {
            slot.created = seconds;
        }
        let will = connect.will.as_ref().map(|will| Box::new(self.will_of(conn, will)));
        self.begin_to_store(key, expiry_interval);
        if let Some(epoch) = epoch {
            // It is on its way no longer.
            self.keep_until(key, Instant::START);
            let kept = will.is_some() && self.config.zones[usize::from(zone)].will_ha;
            self.change_kept_will(key, Some(epoch).filter(|_| kept), out);
            self.set_epoch(key, epoch, (!present).then_some(if connect.clean_start { epoch } else { Epoch::ZERO }));
        }
        self.apply(conn, Op::Claim { expiry_interval });
        self.apply(conn, Op::Will { will });
        self.live(conn).phase = Phase::Open;
        if self.send_connack(now, conn, connect, present, assigned, authentication_data, out) == Next::Stop {
            return Next::Stop;
        }
        let hook = if present { Hook::SessionResumed } else { Hook::SessionCreated };
        self.tell(hook, key, None, ReasonCode::Success, out);
        self.tell(Hook::ClientConnected, key, None, ReasonCode::Success, out);
        self.count_connections(now, key, zone, out);
        self.tell_connected(now, key, connect.clean_start, out);
        if self.slot(key).session.awaiting_rel_len() > 0 {
            self.watch_rels(now, conn);
        }
        self.pump(now, conn, out);
        Next::Go
    }

    fn assign_client_id(&mut self) -> String {
        loop {
            let id = format!("{ASSIGNED_PREFIX}{:016x}", self.rng.next_u64());
            if self.home_of(&id) == self.own {
                return id;
            }
        }
    }

    /// Takes over what CONNECT says of the connection.
    fn set_up(&mut self, now: Instant, conn: ConnId, connect: &Connect<'_>) {
        let zone = &self.config.zones[usize::from(self.conn(conn).map_or(0, |c| c.zone))];
        let keep_alive = match zone.server_keepalive {
            // Before MQTT 5 a client could not be told.
            Some(server) if connect.version == ProtocolVersion::V5 => server,
            Some(_) | None => connect.keep_alive,
        };
        let max_inflight = u16::try_from(zone.session.max_inflight).unwrap_or(u16::MAX);
        // MQTT 5 forbids it [MQTT-4.4.0-1].
        let retries = connect.version != ProtocolVersion::V5 && !zone.retry_interval.is_zero();
        let max_topic_alias = self.config.mqtt.max_topic_alias;
        let c = self.live(conn);
        if connect.clean_start {
            c.features.add(Feature::CleanStart);
        }
        c.keep_alive = keep_alive;
        if retries {
            c.features.add(Feature::Retries);
        }
        c.receive_maximum = connect.properties.receive_maximum.get().min(max_inflight);
        // Each side's aliases cost the broker memory, so one limit is good for both.
        let alias_maximum = connect.properties.topic_alias_maximum.min(max_topic_alias);
        if alias_maximum > 0 {
            c.rare().alias_maximum = alias_maximum;
        }
        if let Some(username) = connect.username {
            c.rare().username = Some(username.into());
        }
        self.arm_keep_alive(now, conn);
    }

    /// A client has to be heard within its Keep Alive from now on.
    pub(super) fn arm_keep_alive(&mut self, now: Instant, conn: ConnId) {
        let c = self.live(conn);
        let (keep_alive, zone) = (c.keep_alive, usize::from(c.zone));
        let percent = self.config.zones[zone].keepalive_backoff_percent;
        let deadline = if keep_alive == 0 { Instant::NEVER } else { now + keep_alive_limit(keep_alive, percent) };
        self.arm_conn(conn, deadline);
    }

    /// Session Expiry Interval in seconds: MQTT 5 says it, within the zone's limit; before it is 0 or the zone's.
    pub(super) fn expiry_interval_of(&self, connect: &Connect<'_>, zone: u16) -> u32 {
        let zone = &self.config.zones[usize::from(zone)];
        match (connect.version, connect.clean_start) {
            (ProtocolVersion::V5, _) => {
                connect.properties.session_expiry_interval.min(zone.max_session_expiry_interval)
            }
            (_, true) => 0,
            (_, false) => zone.session_expiry_interval,
        }
    }

    pub(super) fn will_of(&mut self, conn: ConnId, will: &newtmq_mqtt::Will<'_>) -> Will {
        let mut forwardable = core::mem::take(&mut self.scratch.forwardable);
        forwardable.clear();
        will.properties.write_forwardable(&mut forwardable);
        let topic = will.topic.as_str().as_bytes();
        let mounted = self.mounted_topic(conn, topic).expect("its length was checked with the mountpoint");
        let parts = MessageParts {
            id: self.journal.message_id(),
            topic: mounted.as_deref().unwrap_or(topic),
            forwardable: &forwardable,
            payload: will.payload,
            qos: will.qos,
            retain: will.retain,
            expires: Instant::NEVER,
            stretched: false,
        };
        let message = newtmq_session::Message::new(&parts, &mut self.scratch.block);
        self.scratch.forwardable = forwardable;
        Will {
            message,
            message_expiry_interval: will.properties.message_expiry_interval,
            delay_interval: will.properties.delay_interval,
        }
    }

    /// Gives the session of a client to its new connection. It is here or nowhere (docs/adr/0005), so an old connection is
    /// fenced in the same step [MQTT-3.1.4-3]. Returns the session and whether it was there (Session Present).
    fn claim(
        &mut self,
        now: Instant,
        client: ClientId,
        zone: u16,
        clean_start: bool,
        expiry_interval: u32,
        out: &mut Outbox,
    ) -> (u32, bool) {
        if let Some(key) = self.find_session(client.as_str()) {
            let old = self.slot(key).conn;
            if old != NONE && !planted!(TakeoverWithoutFence) {
                self.fence(now, old, out);
            }
        }
        // The session may have ended with its connection.
        match self.find_session(client.as_str()) {
            Some(key) if !clean_start || planted!(CleanStartKeepsSession) => {
                self.stop_waiting(key);
                if planted!(WillSurvivesTakeover, self.slot(key).session.will().is_some()) {
                    self.fire_will(now, key, out);
                }
                // The delayed will of a resumed session is not published: the new CONNECT's takes its place [MQTT-3.1.3-9].
                self.slot(key).zone = zone;
                (key, !clean_start)
            }
            found => {
                if let Some(key) = found {
                    self.end_session(now, key, out);
                }
                let present = planted!(FalseSessionPresent, !clean_start);
                (self.add_session(Session::new(client, expiry_interval), zone), present)
            }
        }
    }

    pub(super) fn fence(&mut self, now: Instant, slot: u32, out: &mut Outbox) {
        let Some(Some(c)) = self.conns.get(slot as usize) else { return };
        let old = ConnId { slot, generation: c.generation };
        self.hear_farewell(old);
        self.reject(now, old, ReasonCode::SessionTakenOver, out);
    }

    /// Cancels the deadlines of a session whose client is back.
    pub(crate) fn stop_waiting(&mut self, key: u32) {
        if let Some(away) = self.slot(key).away.take()
            && !planted!(SessionTimerLeak)
        {
            self.timers.cancel(away.deadline(), TimerKind::Session(key));
        }
    }

    #[allow(clippy::too_many_arguments)] // everything that CONNACK tells
    fn send_connack(
        &mut self,
        now: Instant,
        conn: ConnId,
        connect: &Connect<'_>,
        session_present: bool,
        assigned: Option<&str>,
        authentication_data: Option<&[u8]>,
        out: &mut Outbox,
    ) -> Next {
        self.give_record(conn, out);
        // Its session, and that it is there, are promised.
        if !planted!(ConnackBeforeStored) {
            self.bar_session(conn);
        }
        let kept = self.journal.kept();
        if let Some(c) = self.conn_mut(conn).filter(|c| c.out.is_barred(kept)) {
            c.features.add(Feature::Greeting);
        }
        let mqtt = &self.config.mqtt;
        let zone = &self.config.zones[usize::from(self.conn(conn).map_or(0, |c| c.zone))];
        let mut properties = ConnackProperties::default();
        if connect.version == ProtocolVersion::V5 {
            properties.receive_maximum = core::num::NonZeroU16::new(zone.max_awaiting_rel);
            properties.maximum_qos = (mqtt.max_qos_allowed < QoS::ExactlyOnce).then_some(mqtt.max_qos_allowed);
            properties.retain_available = (!mqtt.retain_available).then_some(false);
            properties.maximum_packet_size = Some(mqtt.max_packet_size);
            properties.assigned_client_identifier = assigned;
            properties.topic_alias_maximum = (mqtt.max_topic_alias > 0).then_some(mqtt.max_topic_alias);
            properties.wildcard_subscription_available = (!mqtt.wildcard_subscription).then_some(false);
            properties.shared_subscription_available = (!mqtt.shared_subscription).then_some(false);
            properties.server_keep_alive = zone.server_keepalive;
            // Said only where it is not what the client asked for (section 3.2.2.3.2).
            let capped = connect.properties.session_expiry_interval > zone.max_session_expiry_interval;
            properties.session_expiry_interval = capped.then_some(zone.max_session_expiry_interval);
            properties.authentication_method = connect.properties.authentication_method;
            properties.authentication_data = authentication_data;
        }
        let connack = Connack { session_present, reason_code: ReasonCode::Success, properties };
        self.must_send(now, conn, &Packet::Connack(connack), out)
    }
}

/// What a certificate says is not for CONNECT to change.
pub(crate) fn with_name<'a>(connect: Connect<'a>, certified: Option<&'a str>) -> Connect<'a> {
    Connect { username: certified.or(connect.username), ..connect }
}

/// Keep Alive × backoff × 2: with the usual 75 % the one and a half times of [MQTT-3.1.2-22].
pub(crate) fn keep_alive_limit(keep_alive: u16, backoff_percent: u32) -> Duration {
    Duration::from_millis(u64::from(keep_alive) * u64::from(backoff_percent) * 20)
}
