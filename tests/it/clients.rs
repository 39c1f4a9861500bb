//! rumqttc, a client of another project: MQTT 3.1.1 and MQTT 5 with every QoS, retained messages and wills, over each
//! transport.

use std::time::Duration;

use rumqttc::{TlsConfiguration, Transport};

use crate::broker::{Broker, DEADLINE, Scratch};

/// Both versions of the library have the same names, and no type in common.
macro_rules! version {
    ($name:ident, $client:path, $packets:path, $qos:path, $topic:expr, $will:expr) => {
        mod $name {
            use $client::{Client, Connection, Event, MqttOptions};
            use $packets::{LastWill, Packet, Publish};
            use $qos as QoS;

            use super::*;

            /// A client and what drives it.
            struct Peer {
                client: Client,
                connection: Connection,
            }

            impl Peer {
                fn connect(broker: &Broker, client_id: &str, will: Option<LastWill>) -> Peer {
                    let mut options = MqttOptions::new(client_id, "127.0.0.1", broker.address.port());
                    if let Some(will) = will {
                        options.set_last_will(will);
                    }
                    Peer::open(options)
                }

                fn open(mut options: MqttOptions) -> Peer {
                    options.set_keep_alive(Duration::from_secs(60));
                    let (client, connection) = Client::new(options, 32);
                    let mut peer = Peer { client, connection };
                    peer.until("CONNACK", |packet| matches!(packet, Packet::ConnAck(_)).then_some(()));
                    peer
                }

                /// Drives the connection until a packet comes in that is wanted.
                fn until<T>(&mut self, what: &str, mut wanted: impl FnMut(Packet) -> Option<T>) -> T {
                    loop {
                        match self.connection.recv_timeout(DEADLINE) {
                            Ok(Ok(Event::Incoming(packet))) => {
                                if let Some(value) = wanted(packet) {
                                    return value;
                                }
                            }
                            Ok(Ok(Event::Outgoing(_))) => {}
                            other => panic!("waiting for {what}: {other:?}"),
                        }
                    }
                }

                fn subscribe(&mut self, filter: &str) {
                    self.client.subscribe(filter, QoS::ExactlyOnce).unwrap();
                    self.until("SUBACK", |packet| matches!(packet, Packet::SubAck(_)).then_some(()));
                }

                fn publish(&mut self, topic: &str, qos: QoS, retain: bool, payload: &str) {
                    self.client.publish(topic, qos, retain, payload.to_owned()).unwrap();
                    self.until("the acknowledgement", |packet| match (packet, qos) {
                        (Packet::PubAck(_), QoS::AtLeastOnce) | (Packet::PubComp(_), QoS::ExactlyOnce) => Some(()),
                        _ => None,
                    });
                }

                fn message(&mut self) -> (String, QoS, bool, String) {
                    self.until("PUBLISH", |packet| match packet {
                        Packet::Publish(Publish { topic, qos, retain, payload, .. }) => {
                            Some(($topic(topic), qos, retain, String::from_utf8(payload.to_vec()).unwrap()))
                        }
                        _ => None,
                    })
                }
            }

            fn message(topic: &str, qos: QoS, retain: bool, payload: &str) -> (String, QoS, bool, String) {
                (topic.to_owned(), qos, retain, payload.to_owned())
            }

            #[test]
            fn every_qos_and_retained_messages() {
                let broker = Broker::start(&[]);
                let mut subscriber = Peer::connect(&broker, "subscriber", None);
                subscriber.subscribe("c/#");
                let mut publisher = Peer::connect(&broker, "publisher", None);
                publisher.client.publish("c/0", QoS::AtMostOnce, false, "zero").unwrap();
                publisher.publish("c/1", QoS::AtLeastOnce, false, "one");
                publisher.publish("c/2", QoS::ExactlyOnce, false, "two");
                publisher.publish("c/retained", QoS::AtLeastOnce, true, "kept");
                assert_eq!(subscriber.message(), message("c/0", QoS::AtMostOnce, false, "zero"));
                assert_eq!(subscriber.message(), message("c/1", QoS::AtLeastOnce, false, "one"));
                assert_eq!(subscriber.message(), message("c/2", QoS::ExactlyOnce, false, "two"));
                // Who was there already gets it like any other.
                assert_eq!(subscriber.message(), message("c/retained", QoS::AtLeastOnce, false, "kept"));

                let mut late = Peer::connect(&broker, "late", None);
                late.subscribe("c/+");
                assert_eq!(late.message(), message("c/retained", QoS::AtLeastOnce, true, "kept"));

                publisher.publish("c/retained", QoS::ExactlyOnce, true, "");
                assert_eq!(late.message(), message("c/retained", QoS::ExactlyOnce, false, ""));
                let mut latest = Peer::connect(&broker, "latest", None);
                latest.subscribe("c/+");
                publisher.publish("c/end", QoS::AtLeastOnce, false, "end");
                assert_eq!(latest.message(), message("c/end", QoS::AtLeastOnce, false, "end"), "nothing is retained");
                broker.stays_well();
            }

            #[test]
            fn over_tls_and_websocket() {
                let scratch = Scratch::new(concat!("rumqttc-", stringify!($name)));
                scratch.certificates("certs", &[]);
                let broker = Broker::with_tls(&scratch, &["listener.ws.t.bind=127.0.0.1:0"]);
                let ca = std::fs::read(scratch.file("certs/ca.pem")).unwrap();
                let tls = TlsConfiguration::Simple { ca, alpn: None, client_auth: None };
                for (scheme, transport) in [
                    ("mqtts", Transport::tls_with_config(tls.clone())),
                    ("ws", Transport::ws()),
                    ("wss", Transport::wss_with_config(tls)),
                ] {
                    let address = broker.address_of(scheme, "t");
                    // The library wants the whole address of a WebSocket in place of the host.
                    let host =
                        if scheme == "mqtts" { "127.0.0.1".to_owned() } else { format!("{scheme}://{address}/mqtt") };
                    let mut options = MqttOptions::new(scheme, host, address.port());
                    options.set_transport(transport);
                    let mut peer = Peer::open(options);
                    peer.subscribe("t");
                    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                        // The library takes packets of 10 kB.
                        for payload in [String::new(), "x".repeat(9000)] {
                            peer.client.publish("t", qos, false, payload.clone()).unwrap();
                            assert_eq!(peer.message(), message("t", qos, false, &payload), "{scheme}");
                        }
                    }
                }
                broker.stays_well();
            }

            #[test]
            fn a_client_that_is_gone_leaves_its_will() {
                let broker = Broker::start(&[]);
                let mut watcher = Peer::connect(&broker, "watcher", None);
                watcher.subscribe("will/#");
                let with_will = |client_id: &str| {
                    let will = $will(&format!("will/{client_id}"));
                    Peer::connect(&broker, client_id, Some(will))
                };
                let Peer { client, mut connection } = with_will("polite");
                client.disconnect().unwrap();
                // Until the library says that the connection is over.
                while let Ok(Ok(_)) = connection.recv_timeout(DEADLINE) {}
                drop(with_will("rude"));
                let will = message("will/rude", QoS::AtLeastOnce, false, "gone");
                assert_eq!(watcher.message(), will, "and none of the one that left in order");
                broker.stays_well();
            }

            #[test]
            fn a_thousand_messages_keep_their_order() {
                let broker = Broker::start(&[]);
                let mut subscriber = Peer::connect(&broker, "subscriber", None);
                subscriber.subscribe("many");
                let publisher = std::thread::spawn({
                    let mut publisher = Peer::connect(&broker, "publisher", None);
                    move || {
                        for n in 0..1000 {
                            let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce][n % 2];
                            publisher.publish("many", qos, false, &n.to_string());
                        }
                    }
                });
                for n in 0..1000 {
                    assert_eq!(subscriber.message().3, n.to_string());
                }
                publisher.join().unwrap();
                broker.stays_well();
            }
        }
    };
}

version!(v311, rumqttc, rumqttc, rumqttc::QoS, |topic: String| topic, |topic: &str| LastWill::new(
    topic,
    "gone",
    QoS::AtLeastOnce,
    false
));
version!(
    v5,
    rumqttc::v5,
    rumqttc::v5::mqttbytes::v5,
    rumqttc::v5::mqttbytes::QoS,
    |topic: bytes::Bytes| String::from_utf8(topic.to_vec()).unwrap(),
    |topic: &str| LastWill::new(topic, "gone", QoS::AtLeastOnce, false, None)
);
