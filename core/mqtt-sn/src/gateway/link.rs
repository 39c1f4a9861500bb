//! What the broker says on a client's link.

use newtmq_base::planted;
use newtmq_mqtt::{Connack, Decoder, Packet, PacketType, ProtocolVersion, QoS, ReasonCode, Sender};

use super::connect::{code_of, packet_bytes_max};
use super::{Gateway, Round};
use crate::client::WillAsk;
use crate::io::{ClientState, LinkId};
use crate::record;
use crate::registry::Registry;

impl Gateway {
    pub(super) fn on_bytes(&mut self, round: &mut Round<'_>, link: LinkId, mut data: &[u8]) {
        if self.is_anonymous(link) {
            return self.on_anonymous_bytes(round, data);
        }
        let Some(slot) = self.of_link(link) else { return };
        let Some(client) = self.clients.get_mut(slot) else { return };
        let mut decoder = client.decoder.take().map_or_else(Decoder::new, |decoder| *decoder);
        let max = packet_bytes_max(self.config.max_datagram);
        while let Ok(Some(frame)) = decoder.next(&mut data, max) {
            match frame.decode(ProtocolVersion::V5, Sender::Server) {
                Ok(packet) => self.on_packet(round, slot, &packet),
                // The broker is our own: it sends none.
                Err(error) => debug_assert!(false, "{error}"),
            }
            if self.of_link(link).is_none() {
                return;
            }
        }
        if let Some(client) = self.clients.get_mut(slot) {
            client.decoder = (decoder.buffered() > 0).then(|| Box::new(decoder));
        }
    }

    fn on_packet(&mut self, round: &mut Round<'_>, slot: u32, packet: &Packet<'_>) {
        match packet {
            Packet::Connack(connack) => self.on_connack(round, slot, connack),
            Packet::Publish(publish) => self.on_delivery(round, slot, publish),
            Packet::Puback(ack) => self.on_acknowledged(round, slot, PacketType::Puback, ack),
            Packet::Pubrec(ack) => self.on_acknowledged(round, slot, PacketType::Pubrec, ack),
            Packet::Pubcomp(ack) => self.on_acknowledged(round, slot, PacketType::Pubcomp, ack),
            Packet::Pubrel(ack) => self.on_release(round, slot, ack.packet_id.get()),
            Packet::Suback(suback) => self.on_suback(round, slot, suback),
            Packet::Unsuback(unsuback) => self.on_unsuback(round, slot, unsuback.packet_id),
            Packet::Pingresp => self.on_drained(round, slot),
            // Closed follows.
            Packet::Disconnect(_) => {}
            Packet::Connect(_) | Packet::Subscribe(_) | Packet::Unsubscribe(_) | Packet::Pingreq | Packet::Auth(_) => {}
        }
    }

    /// What was kept with the session.
    pub(super) fn on_record(&mut self, link: LinkId, bytes: &[u8]) {
        let Some(slot) = self.of_link(link) else { return };
        let Some(client) = self.clients.get_mut(slot) else { return };
        let clean = client.is_clean && !planted!(SnWillSurvivesClean);
        if client.state != ClientState::Connecting || clean {
            return;
        }
        // A record that cannot be read is as none: topics are registered anew.
        let Ok(record) = record::decode(bytes) else { return };
        if !planted!(SnIdsStartOver) {
            client.registry = record.registry;
        }
        client.sleep = record.sleep;
        if !client.facts.will {
            client.will = record.will.map(Box::new);
        }
        if client.adopting {
            client.facts.duration = record.keep_alive;
        }
    }

    fn on_connack(&mut self, round: &mut Round<'_>, slot: u32, connack: &Connack<'_>) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        if client.state != ClientState::Connecting {
            return;
        }
        if connack.reason_code != ReasonCode::Success {
            return self.refuse_connecting(round, slot, code_of(connack.reason_code));
        }
        if let Some(seconds) = connack.properties.server_keep_alive
            && seconds > 0
        {
            client.link_keep_alive = seconds;
            client.link_ping = round.now + core::time::Duration::from_secs(u64::from(seconds));
        }
        client.max_qos = connack.properties.maximum_qos.unwrap_or(QoS::ExactlyOnce);
        client.may_retain = connack.properties.retain_available.unwrap_or(true);
        if !connack.session_present {
            client.registry = Registry::default();
            client.sleep = 0;
            if !client.facts.will {
                client.will = None;
            }
        }
        let (adopting, sleep) = (client.adopting, client.sleep);
        if adopting && sleep == 0 {
            return self.give_up_adoption(round, slot, !connack.session_present);
        }
        self.connecting -= 1;
        self.counters.connected += 1;
        client.adopting = false;
        client.state = ClientState::Asleep;
        let restored = if client.facts.will { None } else { client.will.as_deref().cloned() };
        if restored.is_some() {
            self.change_will(round, slot, restored, WillAsk::Nothing);
        }
        if adopting {
            self.counters.adopted += 1;
            self.wake(round, slot);
        } else {
            self.welcome(round, slot);
        }
    }
}
