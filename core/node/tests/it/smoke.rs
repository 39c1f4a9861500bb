//! The harness itself.

use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};

use crate::harness::{Connect, Publish, check};

#[test]
fn every_qos_and_version_reaches_every_version() {
    check(|net| {
        let readers = [Connect::v31("r3"), Connect::v311("r4"), Connect::v5("r5")].map(|connect| net.connect(connect));
        for reader in readers {
            net.subscribe(reader, "t/+", ExactlyOnce);
        }
        for (index, connect) in [Connect::v31("w3"), Connect::v311("w4"), Connect::v5("w5")].into_iter().enumerate() {
            let writer = net.connect(connect);
            for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
                let topic = format!("t/{index}");
                net.publish(writer, Publish::new(&topic, format!("{qos:?}")).qos(qos));
                for reader in readers {
                    assert_eq!(net.received(reader), [format!("{topic} {qos:?}")]);
                }
            }
        }
    });
}
