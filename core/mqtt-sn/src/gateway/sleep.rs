//! The end of connections, sleep and its breaks (6.14), PINGREQ, and clients that come from somewhere else.

use newtmq_base::planted;
use newtmq_mqtt::{ClientId, Packet};

use super::{Gateway, Round, hand_over};
use crate::Message;
use crate::address::Source;
use crate::client::{ConnectFacts, Draining};
use crate::io::{ClientState, Output};

impl Gateway {
    pub(super) fn on_disconnect(&mut self, round: &mut Round<'_>, from: Source<'_>, duration: Option<u16>) {
        self.close_door(from.key());
        let Some(slot) = self.find_address(from.key()) else {
            // It has not heard the answer, or is no client.
            self.counters.stray += 1;
            return self.answer_stranger(round, from, &Message::Disconnect(None));
        };
        self.touched = Some(slot);
        self.tell(round, slot, &Message::Disconnect(None));
        let Some(client) = self.clients.get_mut(slot) else { return };
        if client.state == ClientState::Connecting {
            return self.end(round, slot);
        }
        client.heard = round.now;
        client.untouched = false;
        client.dirty = true;
        match duration {
            Some(sleep) if sleep > 0 => {
                client.state = ClientState::Asleep;
                client.sleep = sleep;
                client.draining = None;
                client.take_back();
                client.miss_answer();
                client.done.clear();
            }
            Some(_) | None => {
                client.state = ClientState::Active;
                self.settle_client(round, slot);
                self.end(round, slot);
            }
        }
    }

    /// PINGREQ of a client that does not say who it is.
    pub(super) fn on_ping(&mut self, round: &mut Round<'_>, slot: u32) {
        let Some(client) = self.clients.get(slot) else { return };
        match client.state {
            ClientState::Active => self.tell(round, slot, &Message::Pingresp),
            ClientState::Asleep | ClientState::Awake => self.wake(round, slot),
            ClientState::Connecting => {}
        }
    }

    /// PINGREQ with a ClientId: a sleeper wakes, perhaps at another address, perhaps at another gateway than the one where it
    /// went to sleep.
    pub(super) fn on_wake(&mut self, round: &mut Round<'_>, from: Source<'_>, id: &str) {
        let Some(slot) = self.find(id) else { return self.adopt(round, from, id) };
        self.touched = Some(slot);
        let Some(client) = self.clients.get_mut(slot) else { return };
        if client.state == ClientState::Connecting {
            self.counters.unexpected += 1;
            return;
        }
        client.heard = round.now;
        client.untouched = false;
        if client.address.as_ref().is_none_or(|address| address.key() != from.key()) && !planted!(SnReboundDeaf) {
            self.counters.rebound += 1;
            self.bind(slot, from.to_address());
        }
        self.on_ping(round, slot);
        // What was under way to its old address was taken back.
        self.pump(round, slot);
    }

    /// Somebody wakes who did not go to sleep here. The broker knows whether there is such a session, and whether it sleeps.
    fn adopt(&mut self, round: &mut Round<'_>, from: Source<'_>, id: &str) {
        self.counters.stray += 1;
        if id.len() > self.config.max_client_id_len
            || ClientId::new(id).is_err()
            || *id == *self.config.minus_one_client
        {
            return;
        }
        if self.clients.len() >= self.config.max_clients || self.connecting >= self.config.max_handshakes {
            self.counters.congested += 1;
            return;
        }
        // Each costs the broker a connection.
        if !self.may_answer_stranger(round.now) {
            return;
        }
        let facts = ConnectFacts { will: false, clean_session: false, duration: 0 };
        self.connect(round, from.to_address(), facts, id, None, true);
    }

    pub(super) fn wake(&mut self, round: &mut Round<'_>, slot: u32) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        client.heard = round.now;
        if client.state == ClientState::Awake {
            self.counters.duplicates += 1;
        } else {
            self.counters.woken += 1;
            client.state = ClientState::Awake;
            client.take_back();
        }
        self.pump(round, slot);
    }

    /// Everything that was here is sent. Before the client may sleep on, the broker is asked whether it has more: what it
    /// sends comes before its answer.
    pub(super) fn drain(&mut self, round: &mut Round<'_>, slot: u32) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        if client.state == ClientState::Awake && client.draining.is_none() {
            client.draining = Some(Draining::Asked);
            let link = client.link;
            hand_over(round, link, &Packet::Pingreq);
            if planted!(SnPingrespEarly) {
                self.on_drained(round, slot);
            }
        }
    }

    /// The broker has no more, unless it has just sent something.
    pub(super) fn on_drained(&mut self, round: &mut Round<'_>, slot: u32) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        let Some(draining) = client.draining.take().filter(|_| client.state == ClientState::Awake) else { return };
        if client.outgoing.is_some() || !client.queue.is_empty() {
            return;
        }
        if draining == Draining::Outdated {
            self.drain(round, slot);
        } else {
            client.state = ClientState::Asleep;
            client.heard = round.now;
            self.tell(round, slot, &Message::Pingresp);
        }
    }

    /// The broker has closed a link.
    pub(super) fn on_closed(&mut self, round: &mut Round<'_>, link: crate::LinkId) {
        if self.is_anonymous(link) {
            return self.on_anonymous_closed(round);
        }
        let Some(slot) = self.of_link(link) else { return self.on_ended(round, link) };
        let Some(client) = self.clients.get(slot) else { return };
        if client.state == ClientState::Connecting {
            // Its CONNACK, if there was one, has been told.
            self.counters.refused += 1;
            let busy = crate::ReturnCode::Congestion;
            let message = if client.adopting { Message::Disconnect(None) } else { Message::Connack(busy) };
            self.tell(round, slot, &message);
        } else if client.listens() {
            self.tell(round, slot, &Message::Disconnect(None));
        }
        self.remove(slot);
    }

    pub(super) fn on_held(&mut self, _round: &mut Round<'_>, link: crate::LinkId, held: bool) {
        if self.is_anonymous(link) {
            return self.on_anonymous_held(held);
        }
        if let Some(slot) = self.of_link(link)
            && let Some(client) = self.clients.get_mut(slot)
        {
            client.held = held;
        }
    }

    /// A link that was opened for nothing is closed, and leaves no session behind that was not there before.
    pub(super) fn give_up_adoption(&mut self, round: &mut Round<'_>, slot: u32, is_new: bool) {
        let Some(client) = self.clients.get(slot) else { return };
        let link = client.link;
        let mut disconnect = newtmq_mqtt::Disconnect::new(newtmq_mqtt::ReasonCode::NORMAL_DISCONNECTION);
        disconnect.properties.session_expiry_interval = is_new.then_some(0);
        hand_over(round, link, &Packet::Disconnect(disconnect));
        self.tell(round, slot, &Message::Disconnect(None));
        round.out.push(Output::Close { link });
        self.remove(slot);
    }
}
