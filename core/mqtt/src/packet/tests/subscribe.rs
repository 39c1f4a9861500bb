//! SUBSCRIBE (3.8) and UNSUBSCRIBE (3.10).

use super::*;
use crate::{InvalidTopic, QoS, RetainHandling, SubscribeOptions};

#[test]
fn subscribes() {
    let (m, p) = (MALFORMED, PROTOCOL_ERROR);
    check(
        Sender::Client,
        &[
            ("3.1", V31, 0x82, b"\0\x01\0\x01t\x02", Ok(())),
            ("3.1.1, two filters", V311, 0x82, b"\0\x01\0\x01t\x01\0\x01u\0", Ok(())),
            ("5.0", V5, 0x82, b"\0\x01\0\0\x01t\x2E", Ok(())),
            ("5.0, all properties", V5, 0x82, b"\0\x01\x07\x26\0\0\0\0\x0B\x01\0\x01t\0", Ok(())),
            ("[MQTT-2.2.1-3]", V5, 0x82, b"\0\0\0\0\x01t\0", p),
            ("[MQTT-3.8.3-1] not UTF-8", V5, 0x82, b"\0\x01\0\0\x01\xFF\0", m),
            ("[MQTT-4.7.3-2]", V5, 0x82, b"\0\x01\0\0\x01\0\0", m),
            ("[MQTT-3.8.3-2] no filter", V5, 0x82, b"\0\x01\0", p),
            ("[MQTT-3.8.3-2] no filter", V311, 0x82, b"\0\x01", p),
            ("[MQTT-3.8.3-4] No Local", V5, 0x82, b"\0\x01\0\0\x0A$share/g/t\x04", p),
            ("[MQTT-3.8.3-4] No Local, $queue", V5, 0x82, b"\0\x01\0\0\x08$queue/t\x04", p),
            ("[MQTT-3.8.3-5] bit 6", V5, 0x82, b"\0\x01\0\0\x01t\x40", m),
            ("[MQTT-3.8.3-5] bit 7", V5, 0x82, b"\0\x01\0\0\x01t\x80", m),
            ("[MQTT-3-8.3-4] of 3.1.1", V311, 0x82, b"\0\x01\0\x01t\x04", m),
            ("[MQTT-3-8.3-4] of 3.1.1, QoS 3", V311, 0x82, b"\0\x01\0\x01t\x03", m),
            ("3.8.3.1 QoS 3", V5, 0x82, b"\0\x01\0\0\x01t\x03", p),
            ("3.8.3.1 Retain Handling 3", V5, 0x82, b"\0\x01\0\0\x01t\x30", p),
            ("3.8.2.1.2 identifier 0", V5, 0x82, b"\0\x01\x02\x0B\0\0\x01t\0", p),
            ("3.8.2.1.2 twice", V5, 0x82, b"\0\x01\x04\x0B\x01\x0B\x01\0\x01t\0", p),
            ("3.8.2.1.2 too large", V5, 0x82, b"\0\x01\x06\x0B\x80\x80\x80\x80\x01\0\x01t\0", m),
            ("2.2.2.2", V5, 0x82, b"\0\x01\x04\x1F\0\x01r\0\x01t\0", m),
            ("options cut off", V5, 0x82, b"\0\x01\0\0\x01t", m),
            ("filter cut off", V311, 0x82, b"\0\x01\0\x02t", m),
            ("[MQTT-4.7.3-1]", V5, 0x82, b"\0\x01\0\0\x01t\0\0\0\0", m),
            ("[MQTT-4.7.1-1] of 3.1.1", V311, 0x82, b"\0\x01\0\x02t#\0", m),
            ("[MQTT-4.7.1-1] is answered", V5, 0x82, b"\0\x01\0\0\x02t#\0", Ok(())),
            ("[MQTT-4.8.2-2] is answered", V5, 0x82, b"\0\x01\0\0\x0A$share/+/t\0", Ok(())),
            ("3.1.1 has no shared subscriptions", V311, 0x82, b"\0\x01\0\x0A$share/+/t\0", Ok(())),
        ],
    );
}

#[test]
fn filters_and_options() {
    let body = b"\0\x09\x03\x0B\xAC\x02\0\x01a\x00\0\x02b#\x1E\0\x03c/+\x21";
    let Packet::Subscribe(subscribe) = client(0x82, body, V5) else { panic!("a SUBSCRIBE") };
    assert_eq!(subscribe.packet_id.get(), 9);
    assert_eq!(subscribe.subscription_identifier.unwrap().get(), 300);
    let filters: Vec<_> = subscribe.filters().map(|(f, options)| (f.map(|f| f.as_str()), options)).collect();
    let plain = SubscribeOptions::new(QoS::AtMostOnce);
    let full = SubscribeOptions {
        qos: QoS::ExactlyOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::SendIfNew,
    };
    let last =
        SubscribeOptions { retain_handling: RetainHandling::DoNotSend, ..SubscribeOptions::new(QoS::AtLeastOnce) };
    assert_eq!(filters, [(Ok("a"), plain), (Err(InvalidTopic::WildcardNotAlone), full), (Ok("c/+"), last)]);
}

#[test]
fn unsubscribes() {
    let (m, p) = (MALFORMED, PROTOCOL_ERROR);
    check(
        Sender::Client,
        &[
            ("3.1", V31, 0xA2, b"\0\x01\0\x01t", Ok(())),
            ("3.1.1, two filters", V311, 0xA2, b"\0\x01\0\x01t\0\x01u", Ok(())),
            ("5.0", V5, 0xA2, b"\0\x01\x05\x26\0\0\0\0\0\x01t", Ok(())),
            ("[MQTT-2.2.1-3]", V311, 0xA2, b"\0\0\0\x01t", p),
            ("[MQTT-3.10.3-1]", V311, 0xA2, b"\0\x01\0\x01\xFF", m),
            ("[MQTT-3.10.3-2]", V5, 0xA2, b"\0\x01\0", p),
            ("[MQTT-4.7.3-1]", V5, 0xA2, b"\0\x01\0\0\0", m),
            ("2.2.2.2", V5, 0xA2, b"\0\x01\x02\x0B\x01\0\x01t", m),
            ("filter cut off", V311, 0xA2, b"\0\x01\0\x01t\0", m),
            ("[MQTT-4.7.1-2] of 3.1.1", V311, 0xA2, b"\0\x01\0\x02t+", m),
            ("[MQTT-4.7.1-2] is answered", V5, 0xA2, b"\0\x01\0\0\x02t+", Ok(())),
        ],
    );
    let Packet::Unsubscribe(unsubscribe) = client(0xA2, b"\0\x01\0\0\x01a\0\x02b+", V5) else {
        panic!("an UNSUBSCRIBE")
    };
    let filters: Vec<_> = unsubscribe.filters().map(|f| f.map(|f| f.as_str())).collect();
    assert_eq!(filters, [Ok("a"), Err(InvalidTopic::WildcardNotAlone)]);
}
