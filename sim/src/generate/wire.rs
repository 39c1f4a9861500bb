//! Bytes that no client may send. None of them is a whole PUBLISH or SUBSCRIBE that a broker could take for a valid one:
//! what others receive stays explicable.

use newtmq_mqtt::ProtocolVersion;

use super::Source;

/// Something malformed or out of place.
pub(super) fn draw(version: ProtocolVersion, source: &mut Source) -> Vec<u8> {
    if source.percent(25) {
        // Control packet type 0 is reserved (2.1.2): whatever follows, this is no packet.
        let len = source.log(1, 40);
        let mut bytes = vec![source.below(16) as u8];
        bytes.extend((0..len).map(|_| source.below(256) as u8));
        return bytes;
    }
    let catalogue = if version == ProtocolVersion::V5 { &[OF_ALL, OF_V5].concat() } else { OF_ALL };
    source.pick(catalogue).to_vec()
}

const OF_ALL: &[&[u8]] = &[
    // A second CONNECT [MQTT-3.1.0-2], and one cut short.
    b"\x10\x10\0\x04MQTT\x04\x02\0\0\0\x04evil",
    b"\x10\x02\0\x04",
    // QoS 3 [MQTT-3.3.1-4].
    b"\x36\x07\0\x01a\0\x01xy",
    // Topic Names with a wildcard [MQTT-3.3.2-2], with bad UTF-8 [MQTT-1.5.4-1], with U+0000 [MQTT-1.5.4-2].
    b"\x30\x06\0\x02a#\0x",
    b"\x30\x06\0\x02\xC3\x28\0x",
    b"\x30\x06\0\x02a\0\0x",
    // A Topic Name longer than its packet.
    b"\x30\x04\0\xFFab",
    // Packet Identifier 0 [MQTT-2.2.1-3].
    b"\x32\x06\0\x01a\0\0\0",
    b"\x82\x06\0\0\0\x01a\0",
    // Remaining Length of five bytes (1.5.5), and a packet that is far too large.
    b"\x30\xFF\xFF\xFF\xFF\x01",
    b"\x30\xFF\xFF\xFF\x7F\0\x01a",
    // Reserved flags of the fixed header [MQTT-2.1.3-1].
    b"\x60\x02\0\x01",
    b"\x80\x06\0\x01\0\x01a\0",
    b"\xC1\0",
    // SUBSCRIBE and UNSUBSCRIBE of nothing [MQTT-3.8.3-2], [MQTT-3.10.3-2].
    b"\x82\x03\0\x01\0",
    b"\xA2\x03\0\x01\0",
    // Filters that are none [MQTT-4.7.1-1].
    b"\x82\x08\0\x01\0\0\x02#a\0",
    // Packets that only servers send (table 2-1).
    b"\x20\x03\0\0\0",
    b"\x90\x04\0\x01\0\0",
    b"\xD0\0",
    // A PINGREQ with something in it.
    b"\xC0\x01\0",
];

const OF_V5: &[&[u8]] = &[
    // Topic Alias 0 [MQTT-3.3.2-8], and no topic at all.
    b"\x30\x08\0\x01a\x03\x23\0\0x",
    b"\x30\x04\0\0\0x",
    // A Subscription Identifier from a client [MQTT-3.3.4-6].
    b"\x30\x07\0\x01a\x02\x0B\x01x",
    // The same property twice, and one that does not belong here.
    b"\x30\x09\0\x01a\x04\x01\x01\x01\x01x",
    b"\x30\x09\0\x01a\x05\x11\0\0\0\x01",
    // A shared subscription with No Local [MQTT-3.8.3-4], and one without a group [MQTT-4.8.2-1].
    b"\x82\x0E\0\x01\0\0\x08$share/g\x05",
    b"\x82\x0F\0\x01\0\0\x09$share//a\0",
    // AUTH without a method [MQTT-4.12.0-1].
    b"\xF0\x02\x18\0",
    // A reason code that no client sends in DISCONNECT.
    b"\xE0\x01\x8D",
];

#[cfg(test)]
mod tests {
    use newtmq_mqtt::{Decoder, Packet, PacketType, ProtocolVersion, Sender};

    /// Alone on a stream each is an error, the beginning of a packet, or a CONNECT too many.
    #[test]
    fn none_is_a_packet_that_a_client_may_send() {
        for version in [ProtocolVersion::V31, ProtocolVersion::V311, ProtocolVersion::V5] {
            let all = if version == ProtocolVersion::V5 {
                [super::OF_ALL, super::OF_V5].concat()
            } else {
                super::OF_ALL.to_vec()
            };
            for bytes in all {
                let (mut decoder, mut input) = (Decoder::new(), bytes);
                if let Ok(Some(frame)) = decoder.next(&mut input, u32::MAX) {
                    let decoded = frame.decode(version, Sender::Client);
                    let wrong = match &decoded {
                        Err(_) => true,
                        Ok(Packet::Subscribe(subscribe)) => subscribe.filters().all(|(filter, _)| filter.is_err()),
                        Ok(packet) => packet.packet_type() == PacketType::Connect,
                    };
                    assert!(wrong, "{version:?} {bytes:02X?}: {decoded:?}");
                }
            }
        }
    }
}
