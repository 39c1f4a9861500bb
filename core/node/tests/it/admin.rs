//! What an operator asks a shard and wants of it.

use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce};
use newtmq_mqtt::{OwnedTopicFilter, ReasonCode, TopicFilter};
use newtmq_node::{
    ClientInfo, From, OperatorCommand, Page, RetainedInfo, SessionInfo, ShardAnswer, ShardQuestion, SubscriptionInfo,
    Walk, Which,
};

use crate::harness::{Connect, Net, Publish, check, check_with};

fn walk(from: From, skip: usize, limit: usize) -> Walk {
    Walk { from, skip, limit }
}

fn all() -> Walk {
    walk(From::Start, 0, 1000)
}

/// Every page of every shard, in their order.
fn gather<T>(
    net: &Net,
    limit: usize,
    ask: impl Fn(Walk) -> ShardQuestion,
    of: impl Fn(ShardAnswer) -> Page<T>,
) -> Vec<T> {
    let mut values = Vec::new();
    for shard in 0..net.shards() {
        let mut from = From::Start;
        loop {
            let page = of(net.ask(shard, &ask(walk(from, 0, limit))));
            assert!(page.values.len() <= limit);
            values.extend(page.values);
            match page.next {
                Some(next) => from = next,
                None => break,
            }
        }
    }
    values
}

fn clients(net: &Net, which: &Which, limit: usize) -> Vec<ClientInfo> {
    let of = |answer| if let ShardAnswer::Clients(page) = answer { page } else { panic!("{answer:?}") };
    gather(net, limit, |walk| ShardQuestion::Clients(which.clone(), walk), of)
}

fn sessions(net: &Net, which: &Which) -> Vec<SessionInfo> {
    let of = |answer| if let ShardAnswer::Sessions(page) = answer { page } else { panic!("{answer:?}") };
    gather(net, 3, |walk| ShardQuestion::Sessions(which.clone(), walk), of)
}

fn subscriptions(net: &Net, which: &Which) -> Vec<String> {
    let of = |answer| if let ShardAnswer::Subscriptions(page) = answer { page } else { panic!("{answer:?}") };
    let found = gather(net, 2, |walk| ShardQuestion::Subscriptions(which.clone(), walk), of);
    let text = |info: SubscriptionInfo| format!("{} {} {}", info.client, info.filter, info.qos as u8);
    let mut found: Vec<String> = found.into_iter().map(text).collect();
    found.sort();
    found
}

fn retained(net: &Net, filter: Option<&str>) -> Vec<String> {
    let filter = filter.map(|text| OwnedTopicFilter::from(TopicFilter::new(text).unwrap()));
    let of = |answer| if let ShardAnswer::Retained(page) = answer { page } else { panic!("{answer:?}") };
    let found = gather(net, 2, |walk| ShardQuestion::Retained(filter.clone(), walk), of);
    let mut found: Vec<String> =
        found.into_iter().map(|RetainedInfo { topic, payload_bytes, .. }| format!("{topic} {payload_bytes}")).collect();
    found.sort();
    found
}

#[test]
fn pages_have_everybody_once_whatever_their_size() {
    check(|net| {
        for number in 0..20 {
            let client = net.connect(Connect::v5(&format!("c{number}")));
            net.subscribe(client, &format!("t/{number}"), AtLeastOnce);
            net.subscribe(client, "t/+", AtMostOnce);
            net.publish(client, Publish::new(&format!("r/{number}"), "xy").retain());
            net.settle();
        }
        for limit in [1, 3, 7, 1000] {
            let mut found: Vec<String> =
                clients(net, &Which::All, limit).into_iter().map(|info| info.client.into()).collect();
            found.sort();
            found.dedup();
            assert_eq!(found.len(), 20, "{limit}");
        }
        assert_eq!(sessions(net, &Which::All).len(), 20);
        assert_eq!(subscriptions(net, &Which::All).len(), 40);
        assert_eq!(subscriptions(net, &Which::Matching("t/3".into())).len(), 21);
        assert_eq!(retained(net, None).len(), 20);
        assert_eq!(retained(net, Some("r/1")), ["r/1 2"]);
        // What is skipped is counted.
        let ShardAnswer::Clients(page) = net.ask(0, &ShardQuestion::Clients(Which::All, walk(From::Start, 1, 1000)))
        else {
            panic!()
        };
        let ShardAnswer::Clients(whole) = net.ask(0, &ShardQuestion::Clients(Which::All, all())) else { panic!() };
        assert_eq!((page.skipped, page.values), (1, whole.values[1..].to_vec()));
    });
}

#[test]
fn a_client_is_shown_as_it_connected() {
    check_with(
        |config| config.sys_interval = core::time::Duration::ZERO,
        |net| {
            let a = net.connect(Connect::v311("a"));
            let found = clients(net, &Which::Client("a".into()), 10);
            let [info] = &found[..] else { panic!("{found:?}") };
            assert_eq!(
                (&*info.client, info.version, info.clean_start, info.connected_at),
                ("a", 4, true, 1_700_000_000)
            );
            assert_eq!(clients(net, &Which::Client("b".into()), 10), []);
            assert_eq!(clients(net, &Which::Username("u".into()), 10), []);
            net.disconnect(a);
            assert_eq!(clients(net, &Which::All, 10), []);
        },
    );
}

#[test]
fn a_client_that_is_kicked_is_told_and_keeps_its_session() {
    check(|net| {
        let a = net.connect(Connect::v5("a").expiry(100));
        let b = net.connect(Connect::v5("b"));
        net.operate(OperatorCommand::Kick("a".into()));
        net.operate(OperatorCommand::Kick("nobody".into()));
        assert_eq!(net.kicked(a), ReasonCode::AdministrativeAction);
        let found = sessions(net, &Which::Client("a".into()));
        assert_eq!((found.len(), found[0].connected), (1, false));
        net.ping(b);
        net.view().assert_consistent();
    });
}

#[test]
fn an_operator_publishes_and_subscribes_for_a_client() {
    check(|net| {
        let a = net.connect(Connect::v5("a"));
        let filter = OwnedTopicFilter::from(TopicFilter::new("t/#").unwrap());
        net.allow(a, &["t/#".to_owned()]);
        net.operate(OperatorCommand::Subscribe { client: "a".into(), filter: filter.clone(), qos: AtLeastOnce });
        assert_eq!(subscriptions(net, &Which::Client("a".into())), ["a t/# 1"]);
        let publish = |retain| OperatorCommand::Publish {
            topic: "t/1".into(),
            payload: bytes::Bytes::from_static(b"hi"),
            qos: AtLeastOnce,
            retain,
        };
        net.operate_at(0, publish(true));
        assert_eq!(net.received(a), ["t/1 hi"]);
        assert_eq!(retained(net, None), ["t/1 2"]);
        net.operate(OperatorCommand::Unsubscribe { client: "a".into(), filter });
        net.operate_at(0, publish(false));
        assert_eq!(net.received(a), [""; 0]);
        assert_eq!(subscriptions(net, &Which::All), [""; 0]);
        net.view().assert_consistent();
    });
}
