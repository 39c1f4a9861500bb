//! What the server tells about itself under `$SYS`.

use core::time::Duration;

use newtmq_mqtt::QoS::AtMostOnce;

use crate::harness::{Connect, Publish, check_with};

#[test]
fn figures_are_told_at_intervals_and_retained() {
    check_with(
        |config| {
            config.sys_interval = Duration::from_secs(60);
            config.node_name = "n@h".into();
            // What the server retains itself counts to no limit.
            config.retained.max_retained_messages = 1;
        },
        |net| {
            let a = net.connect(Connect::v5("a"));
            net.subscribe(a, "t/#", AtMostOnce);
            net.subscribe(a, "$share/g/s", AtMostOnce);
            net.publish(a, Publish::new("t/1", "x").retain());
            net.publish(a, Publish::new("t/2", "y"));
            net.advance_secs(61);
            let b = net.connect(Connect::v5("b"));
            net.subscribe(b, "$SYS/#", AtMostOnce);
            let told = net.received(b);
            for expected in [
                "$SYS/brokers n@h",
                "$SYS/brokers/n@h/version 1.2.3",
                "$SYS/brokers/n@h/uptime 1 minutes, 0 seconds",
                "$SYS/brokers/n@h/datetime 2023-11-14 22:14:20",
                "$SYS/brokers/n@h/stats/connections/count 1",
                "$SYS/brokers/n@h/stats/sessions/max 1",
                "$SYS/brokers/n@h/stats/subscriptions/count 2",
                "$SYS/brokers/n@h/stats/subscriptions/shared/count 1",
                "$SYS/brokers/n@h/metrics/packets/connect 1",
                "$SYS/brokers/n@h/metrics/packets/publish/received 2",
                "$SYS/brokers/n@h/metrics/packets/publish/sent 2",
                "$SYS/brokers/n@h/metrics/packets/suback 2",
                "$SYS/brokers/n@h/metrics/messages/qos0/received 2",
                "$SYS/brokers/n@h/metrics/messages/dropped 0",
                "$SYS/brokers/n@h/metrics/messages/retained 1",
            ] {
                assert!(told.iter().any(|line| line == expected), "{expected} is not in {told:#?}");
            }
            let bytes = |way: &str| {
                let start = format!("$SYS/brokers/n@h/metrics/bytes/{way} ");
                told.iter().find_map(|line| line.strip_prefix(&start)).unwrap().parse::<u64>().unwrap()
            };
            // CONNECT, two SUBSCRIBE and two PUBLISH; CONNACK, two SUBACK and two PUBLISH.
            assert!(bytes("received") > 40 && bytes("sent") > 30);
            net.subscribe(b, "#", AtMostOnce);
            assert_eq!(net.received(b), ["t/1 x"], "a client that asks for everything does not get it");
            // Live ones come to who asks.
            net.advance_secs(60);
            assert!(net.received(b).contains(&"$SYS/brokers/n@h/stats/connections/max 2".to_owned()));
        },
    );
}

#[test]
fn clients_that_come_and_go_are_told_to_who_asks() {
    check_with(
        |config| config.node_name = "n@h".into(),
        |net| {
            let watch = net.connect(Connect::v5("watch"));
            let unwatched = net.connect(Connect::v311("early"));
            net.disconnect(unwatched);
            net.subscribe(watch, "$SYS/brokers/+/clients/+/#", AtMostOnce);
            assert_eq!(net.received(watch), [""; 0]);
            let a = net.connect(Connect::v311("a\"/b"));
            net.disconnect(a);
            assert_eq!(
                net.received(watch),
                [
                    "$SYS/brokers/n@h/clients/a\"_b/connected {\"clientid\":\"a\\\"/b\",\"username\":null,\
                     \"ipaddress\":\"192.0.2.1\",\"clean_start\":true,\"proto_ver\":4,\"keepalive\":0,\
                     \"expiry_interval\":0,\"connack\":0,\"ts\":1700000000}",
                    "$SYS/brokers/n@h/clients/a\"_b/disconnected {\"clientid\":\"a\\\"/b\",\"username\":null,\
                     \"reason\":\"Success\",\"ts\":1700000000}",
                ]
            );
            net.unsubscribe(watch, &["$SYS/brokers/+/clients/+/#"]);
            let accepted = net.ledger().accepted;
            net.connect(Connect::v311("late"));
            assert_eq!(net.ledger().accepted, accepted, "nobody listens, so nothing is said");
        },
    );
}
