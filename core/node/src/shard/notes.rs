//! Records of what a shard changes, for its journal.

use newtmq_base::{Instant, planted};
use newtmq_mqtt::PacketId;
use newtmq_session::{AckKind, Message, Op, Record, SessionId, WillRecord};

use super::journal::Journal;
use super::luggage::parts_of;
use super::{SessionSlot, Shard};
use crate::config::ZoneConfig;
use crate::store::Durability;

impl Shard {
    /// Whether a session outlives the process, and how far what it is told of must have come.
    pub(crate) fn durability_of(&self, slot: &SessionSlot) -> Durability {
        self.config.zones[usize::from(slot.zone)].durability
    }

    /// Records a change of a session, if it is a durable one.
    pub(crate) fn note(&mut self, key: u32, record: impl FnOnce(SessionId) -> Record) {
        let Some(slot) = self.sessions.get(key) else { return };
        if let Some(id) = slot.stored {
            let durability = self.durability_of(slot);
            self.journal.record(&record(id), durability);
        }
    }

    /// The same for an operation, before it is applied. What it does not change is recorded, too: that does no harm.
    pub(crate) fn note_op(&mut self, key: u32, op: &Op<'_>) {
        let Shard { sessions, journal, config, .. } = self;
        let Some(slot) = sessions.get(key) else { return };
        let Some(session) = slot.stored else { return };
        let durability = config.zones[usize::from(slot.zone)].durability;
        let record = match op {
            Op::Claim { expiry_interval } | Op::Outlive { expiry_interval } => {
                Record::Claim { session, expiry_interval: *expiry_interval }
            }
            Op::Keep { bytes } => Record::Keep { session, bytes: bytes.to_vec() },
            Op::Subscribe { filter, options, identifier } => {
                Record::Subscribe { session, filter: filter.clone(), options: *options, identifier: *identifier }
            }
            Op::Unsubscribe { .. } if planted!(UnsubscribeNotStored) => return,
            Op::Will { will: Some(_) } if planted!(WillNotStored) => return,
            Op::Will { will: None } if planted!(WillEndNotStored, slot.session.will().is_some()) => return,
            Op::Unsubscribe { filter } => Record::Unsubscribe { session, filter: (*filter).into() },
            Op::Qos2In { packet_id } => Record::Qos2In { session, packet_id: *packet_id },
            Op::Qos2Rel { packet_id } if slot.session.is_awaiting_rel(*packet_id) => {
                Record::Qos2Rel { session, packet_id: *packet_id }
            }
            Op::Will { will: Some(will) } => {
                let of = WillRecord {
                    message: will.message.id(),
                    message_expiry_interval: will.message_expiry_interval,
                    delay_interval: will.delay_interval,
                };
                let record = Record::Will { session, will: Some(of) };
                return journal.record_with(&record, &will.message, durability);
            }
            Op::Will { will: None } if slot.session.will().is_some() => Record::Will { session, will: None },
            // Detach is recorded with its time, Enqueue and acknowledgements with what became of them.
            Op::Will { .. }
            | Op::Ack { .. }
            | Op::PubrecOut { .. }
            | Op::Qos2Rel { .. }
            | Op::Detach { .. }
            | Op::Enqueue { .. }
            | Op::Discard { .. }
            | Op::Expire { .. } => return,
        };
        journal.record(&record, durability);
    }

    /// The same for an acknowledgement that was applied. When that of a delivery's end is lost, the message comes again, as
    /// after any lost acknowledgement, so nobody waits for it.
    pub(crate) fn note_ack(&mut self, key: u32, packet_id: PacketId, kind: Option<AckKind>) {
        let Shard { sessions, journal, config, .. } = self;
        let Some(slot) = sessions.get(key) else { return };
        let Some(session) = slot.stored else { return };
        match kind {
            Some(_) if planted!(AckNotStored) => {}
            None if planted!(PubrecNotStored) => {}
            Some(kind) => journal.record_later(&Record::Ack { session, packet_id, kind }),
            None => {
                let durability = config.zones[usize::from(slot.zone)].durability;
                journal.record(&Record::PubrecOut { session, packet_id }, durability);
            }
        }
    }

    /// A session that outlives its connection from here on is recorded, if its zone wants that: a new one from its
    /// beginning, one that was not recorded before as it is.
    pub(crate) fn begin_to_store(&mut self, key: u32, expiry_interval: u32) {
        if self.begin_to_store_silently(key, expiry_interval) {
            self.change_class(key);
        }
    }

    /// The same for a session whose subscriptions nobody knows yet. Says whether it is stored from now on.
    pub(super) fn begin_to_store_silently(&mut self, key: u32, expiry_interval: u32) -> bool {
        let Shard { sessions, journal, config, .. } = self;
        let Some(slot) = sessions.get_mut(key) else { return false };
        let zone = &config.zones[usize::from(slot.zone)];
        if expiry_interval == 0 || slot.stored.is_some() || zone.durability == Durability::Memory {
            return false;
        }
        let session = journal.session_id();
        slot.stored = Some(session);
        slot.segment = journal.segment;
        journal.record_whole(slot, session, zone, None);
        true
    }

    /// A retained message is another one, or gone. What the server says of itself is not stored.
    pub(crate) fn note_retained(&mut self, topic: &str, message: Option<&Message>) {
        if !self.journal.is_on() || topic.starts_with("$SYS/") || planted!(RetainedDeleteNotStored, message.is_none()) {
            return;
        }
        let durability = self.journal.durability();
        let record = Record::Retain { topic: topic.into(), message: message.map(|of| (of.id(), of.expires())) };
        match message {
            Some(message) => self.journal.record_with(&record, message, durability),
            None => self.journal.record(&record, durability),
        }
    }
}

impl Journal {
    /// Everything about a session; what came before counts no more. `detached` is when its client went, if it did.
    pub(super) fn record_whole(
        &mut self,
        slot: &SessionSlot,
        session: SessionId,
        zone: &ZoneConfig,
        detached: Option<Instant>,
    ) {
        for message in slot.session.messages() {
            self.name(message);
        }
        let snapshot = slot.session.snapshot(session, &zone.name, detached);
        self.record(&Record::Snapshot(Box::new(snapshot)), zone.durability);
        for filter in slot.pouring.iter().flat_map(|pourings| pourings.filters()) {
            self.record(&Record::Reading { session, filter: filter.clone(), done: false }, zone.durability);
        }
        if let Some(claimed) = &slot.claimed {
            let (epoch, clean) = (parts_of(claimed.epoch), parts_of(claimed.clean));
            self.record(&Record::Epoch { session, epoch, clean }, zone.durability);
            for ((node, epoch), number) in &claimed.letters {
                let (node, epoch, number) = (node.0, parts_of(*epoch), *number);
                self.record(&Record::Letter { session, node, epoch, number }, zone.durability);
            }
            if let Some((_, upto)) = claimed.given {
                self.record(&Record::Given { session, upto: Some(upto) }, zone.durability);
            }
            if let Some(stub) = &claimed.stub {
                self.record(&Record::Gone { session, to: stub.to.0 }, zone.durability);
            }
        }
        for record in slot.forwards.iter().flat_map(|forwards| forwards.records(session)) {
            self.record(&record, zone.durability);
        }
    }
}
