//! Limits of the whole node, whose parts are granted to shards.

use core::time::Duration;

use newtmq_mqtt::QoS::AtMostOnce;

use crate::harness::{Client, Connect, Got, Net, Publish, check_shards};

const SHARDS: [u16; 4] = [2, 3, 4, 7];
const LIMIT: usize = 10;

fn is_open(net: &mut Net, client: Client) -> bool {
    net.take_now(client).iter().any(|got| matches!(got, Got::Connack(_)))
}

#[test]
fn max_connections_is_exact_while_clients_come_and_go() {
    check_shards(
        &SHARDS,
        40,
        |config| config.listeners[0].max_connections = LIMIT as u32,
        |net| {
            let (mut open, mut asked) = (Vec::new(), Vec::<Client>::new());
            for number in 0..150 {
                match net.below(5) {
                    0 if !open.is_empty() => {
                        let gone = open.swap_remove(net.below(open.len()));
                        net.hang_up_later(gone);
                    }
                    1 => net.wait_below(4000),
                    2 => net.wait_below(300),
                    _ => {
                        let client = net.start(Connect::v5(&format!("c{number}")));
                        asked.push(client);
                    }
                }
                let (accepted, rest): (Vec<Client>, Vec<Client>) =
                    asked.iter().partition(|client| is_open(net, **client));
                open.extend(accepted);
                asked = rest.into_iter().filter(|client| !net.is_over(*client)).collect();
                let connected = net.view().connections().filter(|conn| conn.client.is_some()).count();
                assert!(connected <= LIMIT, "{connected}");
            }
            net.settle();
            open.extend(asked.into_iter().filter(|client| is_open(net, *client)));
            // Quiet: as many as are allowed, and no more.
            for number in 0..LIMIT - open.len() {
                net.connect(Connect::v5(&format!("more{number}")));
            }
            for number in 0..5 {
                let late = net.start(Connect::v5(&format!("late{number}")));
                assert_eq!(net.take(late), [Got::Closed]);
            }
            net.hang_up(open[0]);
            net.connect(Connect::v5("after"));
        },
    );
}

#[test]
fn who_comes_after_a_place_got_free_is_not_refused_with_those_before() {
    check_shards(
        &SHARDS,
        60,
        |config| config.listeners[0].max_connections = LIMIT as u32,
        |net| {
            let mut open: Vec<Client> = (0..LIMIT).map(|n| net.connect(Connect::v5(&format!("c{n}")))).collect();
            let early = net.start(Connect::v5("early"));
            net.wait_below(4000);
            let at = net.below(LIMIT);
            net.hang_up_later(open.swap_remove(at));
            net.advance(Duration::from_millis(1));
            let late = net.start(Connect::v5("late"));
            net.settle();
            let accepted = [early, late].into_iter().filter(|client| is_open(net, *client)).count();
            assert_eq!(accepted, 1);
        },
    );
}

#[test]
fn max_retained_messages_is_exact() {
    check_shards(
        &SHARDS,
        40,
        |config| config.retained.max_retained_messages = LIMIT,
        |net| {
            let shards = net.shards();
            let writers: Vec<Client> = (0..3).map(|n| net.connect(Connect::v5(&format!("w{n}")))).collect();
            for _ in 0..150 {
                let (writer, topic) = (writers[net.below(3)], format!("r/{}", net.below(25)));
                match net.below(4) {
                    0 => net.wait_below(3000),
                    1 => drop(net.publish(writer, Publish::new(&topic, "").retain())),
                    _ => drop(net.publish(writer, Publish::new(&topic, "x").retain())),
                }
            }
            net.settle();
            assert!(net.view().retained_count() <= LIMIT, "{} at {shards} shards", net.view().retained_count());
            for topic in 0..40 {
                net.publish(writers[0], Publish::new(&format!("more/{topic}"), "x").retain());
                net.settle();
            }
            assert_eq!(net.view().retained_count(), LIMIT);
            let r = net.connect(Connect::v5("r"));
            net.subscribe(r, "#", AtMostOnce);
            let topics: Vec<String> = net.messages(r).into_iter().map(|message| message.publish.topic).collect();
            assert_eq!(topics.len(), LIMIT);
            // Each that goes makes room for another.
            for topic in topics {
                net.publish(writers[1], Publish::new(&topic, "").retain());
                net.settle();
                net.publish(writers[2], Publish::new(&format!("again/{topic}"), "x").retain());
                net.settle();
                assert_eq!(net.view().retained_count(), LIMIT);
            }
        },
    );
}
