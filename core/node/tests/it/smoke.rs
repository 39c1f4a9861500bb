//! The harness itself.

use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use newtmq_node::ShardConfig;

use crate::harness::{Connect, Net, Options, Publish, check};

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

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut net = Net::new(seed, 4, &ShardConfig::default(), Options::default());
        let clients = ["", "b"].map(|name| net.connect(Connect::v5(name).receive_maximum(2)));
        for client in clients {
            net.subscribe(client, "$share/g/#", ExactlyOnce);
            net.subscribe(client, "#", AtLeastOnce);
        }
        for index in 0..20 {
            net.publish(clients[index % 2], Publish::new("t", index.to_string()).qos2());
        }
        let logs = clients.map(|client| net.take(client));
        (net.now(), format!("{logs:?}"))
    };
    for seed in 0..8 {
        assert_eq!(run(seed), run(seed));
    }
    assert_ne!(run(0), run(1));
}
