//! Wills that the cluster keeps (`will_ha`, docs/adr/0016): a client is let in when its will is kept, and a will that is due is
//! published when the control plane says that nobody else does.

use core::time::Duration;

use newtmq_base::{ConnId, Instant, planted};
use newtmq_cluster::directory::Client;
use newtmq_cluster::lane::Epoch;
use newtmq_mqtt::{Decoder, Packet, ProtocolVersion, Sender};
use newtmq_session::{Message, MessageParts, Op, Will};

use super::claims::Later;
use super::disconnect::due;
use super::{Away, SessionSlot, Shard};
use crate::conn::NONE;
use crate::control::ToControl;
use crate::io::{Outbox, Output};
use crate::wills::{KeptWill, WillNews, WillNote, WillSaid};

/// So long a CONNECT waits until its will is kept.
const KEEP_WITHIN: Duration = Duration::from_secs(2);

/// A will that waits for the cluster's word.
#[derive(Debug)]
pub(crate) struct DueWill {
    message: Message,
    /// The session that has it, or had.
    key: u32,
    born: u64,
}

impl SessionSlot {
    /// By which epoch the cluster keeps its will, or was asked to.
    pub(super) fn kept_will(&self) -> Option<Epoch> {
        self.claimed.as_ref()?.will
    }
}

impl Shard {
    /// Has the will of a connection kept before it is let in; whether it has to wait for that.
    pub(super) fn keep_will_first(&mut self, now: Instant, conn: ConnId, epoch: Epoch, out: &mut Outbox) -> bool {
        let claim = self.conn(conn).and_then(|c| c.rare.as_ref()?.claim.as_deref());
        let Some(claim) = claim.filter(|claim| claim.has_will && claim.keeping != Some((epoch, true))) else {
            return false;
        };
        let (client, before, packet) = (claim.client.clone(), claim.keeping, claim.connect.clone());
        let (mut decoder, mut bytes) = (Decoder::new(), &packet[..]);
        let Ok(Some(frame)) = decoder.next(&mut bytes, u32::MAX) else { return false };
        let Ok(Packet::Connect(connect)) = frame.decode(ProtocolVersion::V5, Sender::Client) else { return false };
        let Some(will) = &connect.will else { return false };
        let will = self.will_of(conn, will);
        let zone = self.live(conn).zone;
        let kept = KeptWill::encode(&will, self.expiry_interval_of(&connect, zone));
        if let Some((before, _)) = before.filter(|(before, _)| *before != epoch) {
            say(&client, before, WillSaid::Over, out);
        }
        say(&client, epoch, WillSaid::Keep(kept), out);
        if let Some(claim) = self.live(conn).rare().claim.as_mut() {
            claim.keeping = Some((epoch, false));
        }
        self.arm_conn(conn, now + KEEP_WITHIN);
        true
    }

    /// A CONNECT waits no longer for its will to be kept; whether it did.
    pub(super) fn let_in_unkept(&mut self, now: Instant, conn: ConnId, out: &mut Outbox) -> bool {
        let claim = self.live(conn).rare.as_mut().and_then(|rare| rare.claim.as_mut());
        let Some((epoch, answered @ false)) = claim.and_then(|claim| claim.keeping.as_mut()) else { return false };
        *answered = true;
        let epoch = *epoch;
        self.ledger.wills_not_kept += 1;
        self.enter(now, conn, epoch, out);
        true
    }

    /// The session has another will, which the cluster was asked to keep by this epoch, or none.
    pub(super) fn change_kept_will(&mut self, key: u32, kept: Option<Epoch>, out: &mut Outbox) {
        let slot = self.slot(key);
        let client: Client = slot.session.client().as_str().into();
        let Some(claimed) = &mut slot.claimed else { return };
        let before = core::mem::replace(&mut claimed.will, kept);
        if let Some(before) = before.filter(|before| Some(*before) != kept)
            && !self.due_wills.contains_key(&(client.clone(), before))
        {
            say(&client, before, WillSaid::Over, out);
        }
    }

    /// A client has changed its will in the middle of its connection.
    pub(super) fn keep_changed_will(&mut self, key: u32, out: &mut Outbox) {
        let zone = usize::from(self.slot(key).zone);
        let is_on = self.config.zones[zone].will_ha;
        let slot = self.slot(key);
        let (expiry, client) = (slot.session.expiry_interval(), Client::from(slot.session.client().as_str()));
        let epoch = slot.claimed.as_ref().map(|claimed| claimed.will.unwrap_or(claimed.epoch));
        let kept = slot.session.will().map(|will| KeptWill::encode(will, expiry));
        match (epoch, kept) {
            (Some(epoch), Some(kept)) if is_on => {
                self.change_kept_will(key, Some(epoch), out);
                say(&client, epoch, WillSaid::Keep(kept), out);
            }
            (Some(_), _) => self.change_kept_will(key, None, out),
            (None, _) => {}
        }
    }

    /// The session is dropped without a word to anybody.
    pub(super) fn drop_kept_will(&mut self, key: u32, out: &mut Outbox) {
        let Some(slot) = self.sessions.get(key) else { return };
        if let Some(epoch) = slot.kept_will().filter(|_| !planted!(DroppedWillKept)) {
            say(&slot.session.client().as_str().into(), epoch, WillSaid::Over, out);
        }
    }

    /// A session that was stored: its will may be kept since before.
    pub(super) fn find_kept_will(&mut self, key: u32, out: &mut Outbox) {
        let slot = self.slot(key);
        let (zone, has_will) = (usize::from(slot.zone), slot.session.will().is_some());
        let client: Client = slot.session.client().as_str().into();
        if !self.config.zones[zone].will_ha || !self.claims || !has_will {
            return;
        }
        if let Some(claimed) = &mut self.slot(key).claimed {
            claimed.will = Some(claimed.epoch);
            say(&client, claimed.epoch, WillSaid::Stored, out);
        }
    }

    /// A will is due that the cluster may keep: it is published when nobody else does.
    pub(super) fn ask_for_will(&mut self, now: Instant, key: u32, epoch: Epoch, out: &mut Outbox) {
        // The others publish it: nobody is there to hear their word.
        if self.stopping {
            return;
        }
        let Shard { sessions, scratch, journal, due_wills, .. } = self;
        let Some(slot) = sessions.get(key) else { return };
        let Some(will) = slot.session.will() else { return };
        let client: Client = slot.session.client().as_str().into();
        let message = due(will, journal.message_id(), now, &mut scratch.block);
        let waits = DueWill { message, key, born: slot.born };
        if due_wills.insert((client.clone(), epoch), waits).is_none() {
            say(&client, epoch, WillSaid::Due, out);
        }
    }

    /// The cluster was asked who publishes its will: the session has none for anybody else.
    pub(super) fn is_will_due(&self, key: u32) -> bool {
        let Some(slot) = self.sessions.get(key) else { return false };
        let due = |epoch| self.due_wills.contains_key(&(slot.session.client().as_str().into(), epoch));
        slot.kept_will().is_some_and(due)
    }

    pub(crate) fn on_will_news(&mut self, now: Instant, news: WillNews, out: &mut Outbox) {
        match news {
            WillNews::Kept { client, epoch, kept } => self.will_kept(now, &client, epoch, kept, out),
            WillNews::Yours { client, epoch } => self.publish_due_will(now, client, epoch, out),
            WillNews::Over { client, epoch } => self.forget_kept_will(client, epoch, out),
            WillNews::Publish { will } => {
                if let Ok(kept) = KeptWill::decode(&will) {
                    let message = self.kept_message(now, &kept);
                    self.ledger.wills_for_others += 1;
                    self.publish_message(now, &message, NONE, out);
                }
            }
        }
    }

    /// With a name of this shard, or deliveries of it to stored sessions would not be stored.
    fn kept_message(&mut self, now: Instant, kept: &KeptWill) -> Message {
        let message = &kept.message;
        let parts = MessageParts {
            id: self.journal.message_id(),
            topic: message.topic(),
            forwardable: message.forwardable(),
            payload: message.payload(),
            qos: message.qos(),
            retain: message.retain(),
            expires: Instant::NEVER,
            stretched: false,
        };
        let message = Message::new(&parts, &mut self.scratch.block);
        let will = Will { message, message_expiry_interval: kept.expiry_s, delay_interval: 0 };
        due(&will, self.journal.message_id(), now, &mut self.scratch.block)
    }

    fn will_kept(&mut self, now: Instant, client: &str, epoch: Epoch, kept: bool, out: &mut Outbox) {
        let waiting = self.claimant(client).filter(|(_, claim)| claim.keeping == Some((epoch, false)));
        let Some(conn) = waiting.map(|(conn, _)| conn) else { return };
        if !kept {
            self.let_in_unkept(now, conn, out);
            return;
        }
        if let Some(claim) = self.live(conn).rare().claim.as_mut() {
            claim.keeping = Some((epoch, true));
        }
        self.enter(now, conn, epoch, out);
    }

    /// The session that has this will yet.
    fn holder(&self, client: &str, epoch: Epoch) -> Option<u32> {
        let key = self.find_session(client)?;
        (self.sessions.get(key)?.kept_will() == Some(epoch)).then_some(key)
    }

    fn publish_due_will(&mut self, now: Instant, client: Client, epoch: Epoch, out: &mut Outbox) {
        if let Some(DueWill { message, key, born }) = self.due_wills.remove(&(client.clone(), epoch)) {
            let holder = self.holder(&client, epoch);
            if let Some(key) = holder {
                self.end_will(key);
            }
            let publisher = self.sessions.get(key).is_some_and(|slot| slot.born == born);
            // Once it is no will any more it is with those who get it.
            self.journal.whole = holder.is_some_and(|key| self.slot(key).stored.is_some());
            self.publish_message(now, &message, if publisher { key } else { NONE }, out);
            self.journal.whole = false;
        }
        self.say_over_later(client, epoch, out);
    }

    fn forget_kept_will(&mut self, client: Client, epoch: Epoch, out: &mut Outbox) {
        self.due_wills.remove(&(client.clone(), epoch));
        if let Some(key) = self.holder(&client, epoch) {
            self.end_will(key);
            if self.slot(key).away.is_some() {
                self.look_again(key, |old| Away { will: Instant::NEVER, ..old });
            }
        }
        self.ledger.wills_elsewhere += 1;
        self.say_over_later(client, epoch, out);
    }

    fn end_will(&mut self, key: u32) {
        self.note_op(key, &Op::Will { will: None });
        let zone = usize::from(self.slot(key).zone);
        let limits = self.config.zones[zone].session;
        let slot = self.slot(key);
        slot.session.apply(Op::Will { will: None }, &limits);
        if let Some(claimed) = &mut slot.claimed {
            claimed.will = None;
        }
    }

    /// When it is stored that the session has it no more: what the cluster has of it keeps it from being published again.
    fn say_over_later(&mut self, client: Client, epoch: Epoch, out: &mut Outbox) {
        let note = Box::new(WillNote { client, epoch, said: WillSaid::Over });
        if planted!(KeptWillOverTooEarly) {
            return out.push(Output::Control(ToControl::Will(note)));
        }
        self.tell_later(Later::Control(ToControl::Will(note)), 0, out);
    }
}

pub(super) fn say(client: &Client, epoch: Epoch, said: WillSaid, out: &mut Outbox) {
    let note = WillNote { client: client.clone(), epoch, said };
    out.push(Output::Control(ToControl::Will(Box::new(note))));
}
