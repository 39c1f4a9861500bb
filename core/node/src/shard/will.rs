//! What clients of MQTT-SN have in the middle of a connection: a will that changes, what their gateway keeps with the session,
//! a session that outlives its connection after all.

use newtmq_access::{Action, Permission};
use newtmq_base::{ConnId, planted};
use newtmq_mqtt::{TopicName, Will, WillProperties};
use newtmq_session::Op;

use super::{Shard, is_open};
use crate::io::{NewWill, Outbox, Output};

impl Shard {
    /// The same rules as for the will of a CONNECT.
    pub(crate) fn on_set_will(&mut self, conn: ConnId, new: Option<&NewWill>, out: &mut Outbox) {
        if !self.conn(conn).is_some_and(is_open) {
            return;
        }
        let permitted = match new {
            None => {
                self.apply(conn, Op::Will { will: None });
                true
            }
            Some(new) => self.replace_will(conn, new),
        };
        if permitted {
            let key = self.live(conn).session;
            self.keep_changed_will(key, out);
        }
        out.push(Output::WillSet { conn, permitted });
    }

    fn replace_will(&mut self, conn: ConnId, new: &NewWill) -> bool {
        let Ok(topic) = TopicName::new(&new.topic) else { return false };
        let NewWill { ref payload, qos, retain, delay_interval, .. } = *new;
        let properties = WillProperties { delay_interval, ..WillProperties::default() };
        let will = Will { topic, payload, qos, retain, properties };
        if self.check_will(&will).is_err() || !self.permits_new_will(conn, topic) {
            return false;
        }
        if self.mounted_topic(conn, topic.as_str().as_bytes()).is_err() {
            return false;
        }
        let will = Some(Box::new(self.will_of(conn, &will)));
        self.apply(conn, Op::Will { will });
        true
    }

    fn permits_new_will(&mut self, conn: ConnId, topic: TopicName<'_>) -> bool {
        let Some(c) = self.conn(conn) else { return false };
        if !self.has_rules() || self.config.zones[usize::from(c.zone)].bypass_acl {
            return true;
        }
        let who = newtmq_access::Who {
            client: self.sessions.get(c.session).map_or("", |slot| slot.session.client().as_str()),
            username: c.rare.as_deref().and_then(|rare| rare.username.as_deref()),
            ip: c.peer.address().ip(),
        };
        let permitted = self.check_rules(conn, &who, Action::Publish, topic.as_str()) == Permission::Allow;
        self.ledger.denied += u64::from(!permitted);
        permitted
    }

    /// What a gateway knows of its client.
    pub(crate) fn on_keep(&mut self, conn: ConnId, record: Box<[u8]>) {
        let Some(c) = self.conn(conn).filter(|c| is_open(c)) else { return };
        let kept = self.sessions.get(c.session).and_then(|slot| slot.session.kept());
        let same = kept == Some(&*record) || planted!(SnRecordOfBefore, kept.is_some());
        if !same {
            self.apply(conn, Op::Keep { bytes: record });
        }
    }

    /// The same goes back to the gateway of a client that is connected again.
    pub(crate) fn give_record(&mut self, conn: ConnId, out: &mut Outbox) {
        let key = self.live(conn).session;
        if planted!(SnRecordNotGiven) {
            return;
        }
        if let Some(kept) = self.sessions.get(key).and_then(|slot| slot.session.kept()) {
            out.push(Output::Record { conn, record: kept.into() });
        }
    }

    /// As if CONNECT had asked for it.
    pub(crate) fn on_outlive(&mut self, conn: ConnId, expiry_interval: u32) {
        let Some(c) = self.conn(conn).filter(|c| is_open(c)) else { return };
        let (key, zone) = (c.session, c.zone);
        let expiry_interval = expiry_interval.min(self.config.zones[usize::from(zone)].max_session_expiry_interval);
        let shorter = self.sessions.get(key).is_none_or(|slot| slot.session.expiry_interval() >= expiry_interval);
        if shorter || self.has_lost_store(zone) || planted!(SnOutliveIgnored) {
            return;
        }
        self.begin_to_store(key, expiry_interval);
        self.apply(conn, Op::Outlive { expiry_interval });
    }
}
