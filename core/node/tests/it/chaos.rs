//! Everything at once: features switched on by chance, clients that do anything. What must hold whatever happens: the
//! account of messages is balanced, nothing leaks, nobody is sent away who did nothing wrong, and what a publisher sends
//! to a topic with one QoS arrives in its order.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use newtmq_access::{Acl, AclCacheLimits};
use newtmq_base::Rng;
use newtmq_mqtt::{ProtocolVersion, QoS, ReasonCode};
use newtmq_node::{
    AccessConfig, DenyAction, Hook, HookSet, ListenerConfig, MemoryPressure, Rate, ShardConfig, Verdict,
};
use newtmq_topic::PickStrategy;

use crate::harness::{Client, Connect, Got, Net, Publish, Subscribe, Will, check_shards};

/// Numbers to try; each gives a configuration and what clients do.
const NUMBERS: u64 = 60;
const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
const TOPICS: [&str; 7] = ["t/1", "t/2", "no/1", "s/1", "s/2", "u", "t/1/x"];
const FILTERS: [&str; 12] = [
    "t/+",
    "#",
    "t/1",
    "no/#",
    "$share/g/s/#",
    "$share/h/s/1",
    "$SYS/#",
    "u",
    "t/#",
    "+/1",
    "$share/g/s/+",
    "$SYS/brokers/+/clients/#",
];
/// `no/…` is forbidden to everybody, or to some.
const RULES: [&str; 3] = [
    r##"{deny, all, pubsub, ["no/#"]}. {allow, all}."##,
    r##"{deny, {user, "a"}, publish, ["no/#", "t/2"]}. {deny, {client, "b"}, subscribe, ["#"]}. {allow, all}."##,
    r##"{allow, all}."##,
];

fn access(rng: &mut Rng) -> AccessConfig {
    let cache = (rng.below(2) == 0).then_some(AclCacheLimits { max_size: 3, ttl: Duration::from_secs(2) });
    let acl = (rng.below(3) > 0).then(|| Arc::new(Acl::parse(RULES[rng.below(3) as usize]).unwrap()));
    let deny_action = if rng.below(4) == 0 { DenyAction::Disconnect } else { DenyAction::Ignore };
    AccessConfig { acl, cache, deny_action, ..AccessConfig::default() }
}

/// By a number.
fn configure(config: &mut ShardConfig, rng: &mut Rng, large: bool) {
    let mut one_in = |count: u64| rng.below(count) == 0;
    let mut hooks = HookSet::default();
    for hook in Hook::ALL {
        let decides = matches!(
            hook,
            Hook::ClientAuthenticate | Hook::ClientCheckAcl | Hook::ClientSubscribe | Hook::MessagePublish
        );
        if one_in(if decides { 4 } else { 2 }) {
            hooks = hooks.with(hook);
        }
    }
    config.hooks = hooks;
    config.hook_timeout = Duration::from_millis(if one_in(2) { 1 } else { 3000 });
    let zone = &mut config.zones[0];
    if one_in(3) {
        zone.publish_limit = Some(Rate { amount: 50, per: Duration::from_secs(1), burst: 5 });
    }
    if one_in(3) {
        zone.retry_interval = Duration::from_secs(3);
    }
    zone.await_rel_timeout = Duration::from_secs(if one_in(2) { 2 } else { 0 });
    zone.session.max_mqueue_len = if one_in(2) { 3 } else { 1000 };
    zone.session.max_mqueue_bytes = if one_in(2) { 300 } else { 0 };
    zone.session.max_inflight = if one_in(3) { 1 } else { 20 };
    zone.max_awaiting_rel = 2000;
    zone.max_session_expiry_interval = if one_in(3) { 20 } else { u32::MAX };
    zone.mqueue_store_qos0 = one_in(2);
    zone.upgrade_qos = one_in(4);
    if one_in(2) {
        zone.mqueue_priorities = vec![("t/1".into(), 3), ("u".into(), 1)];
        zone.mqueue_default_priority = 2;
    }
    zone.max_subscriptions = if one_in(4) { 3 } else { 0 };
    config.mqtt.ignore_loop_deliver = one_in(4);
    config.retained.max_retained_messages = if one_in(2) { 4 } else { 0 };
    config.retained.expiry_interval = Duration::from_secs(if one_in(3) { 5 } else { 0 });
    config.sys_interval = Duration::from_secs(if one_in(5) { 7 } else { 0 });
    config.shared_strategy = [PickStrategy::Random, PickStrategy::RoundRobin, PickStrategy::Hash]
        [usize::from(one_in(2)) + usize::from(one_in(2))];
    // Half of the clients come in by the other listener.
    let mut other = zone.clone();
    other.mountpoint = if one_in(2) { "m/%u/".into() } else { String::new() };
    other.bypass_acl = one_in(2);
    other.bypass_authentication = one_in(2);
    other.use_username_as_clientid = one_in(2);
    let limit =
        if one_in(3) && !large { Some(Rate { amount: 3000, per: Duration::from_secs(1), burst: 200 }) } else { None };
    let max_connections = if one_in(3) { 3 } else { 1000 };
    config.zones.push(other);
    config.listeners[0].rate_limit = limit;
    config.listeners.push(ListenerConfig { zone: 1, max_connections, rate_limit: limit });
    config.access = access(rng);
}

/// What the test knows of a connection.
struct Known {
    client: Client,
    name: usize,
    version: ProtocolVersion,
    aliases: BTreeMap<u16, &'static str>,
    /// By publisher's connection (of two that are opened at once the later one may come first), topic, and both QoS: the last that came.
    last: BTreeMap<(String, String, String, u8), u64>,
    paused: bool,
}

struct Chaos {
    conns: Vec<Known>,
    /// By name: how many messages were sent.
    sent: [u64; NAMES.len()],
    large: bool,
}

impl Chaos {
    fn connect(&mut self, net: &mut Net) {
        let name = net.below(NAMES.len());
        let mut connect = if net.below(3) == 0 { Connect::v311(NAMES[name]) } else { Connect::v5(NAMES[name]) };
        let v5 = connect.version == ProtocolVersion::V5;
        if v5 {
            connect = connect.expiry([0, 5, 100, u32::MAX][net.below(4)]);
            connect.alias_maximum = [0, 2][net.below(2)];
            connect.receive_maximum = [1, 3, u16::MAX][net.below(3)];
            connect.max_packet_size = [None, None, Some(60)][net.below(3)];
        }
        connect = connect.clean_start(net.below(3) == 0).keep_alive([0, 1, 30][net.below(3)]);
        connect.auto_ack = net.below(4) > 0;
        connect.username = Some(NAMES[name].into());
        if net.below(3) == 0 {
            connect.username = [None, Some("liar".into())][net.below(2)].clone();
            net.certified = Some(NAMES[name].into());
        }
        if net.below(3) == 0 {
            let message = Publish::new(TOPICS[net.below(TOPICS.len())], "will");
            let message = message.qos(qos(net));
            let message = if net.below(3) == 0 { message.retain() } else { message };
            connect = connect.will(Will::new(message).delay(if v5 { [0, 3][net.below(2)] } else { 0 }));
        }
        net.listener = (name % 2) as u16;
        let version = connect.version;
        let client = net.start(connect);
        net.listener = 0;
        let (aliases, last) = (BTreeMap::new(), BTreeMap::new());
        self.conns.push(Known { client, name, version, aliases, last, paused: false });
    }

    fn publish(&mut self, net: &mut Net, at: usize) {
        let known = &mut self.conns[at];
        let v5 = known.version == ProtocolVersion::V5;
        let (topic, qos) = (TOPICS[net.below(TOPICS.len())], qos(net));
        self.sent[known.name] += 1;
        let mut payload =
            format!("{}-{at} {} {} {topic} ", NAMES[known.name], self.sent[known.name], qos as u8).into_bytes();
        match net.below(20) {
            0 if self.large => payload.resize(200_000 + net.below(400_000), b'.'),
            1 | 2 => payload.resize(400, b'.'),
            _ => {}
        }
        let mut publish = Publish::new(topic, payload).qos(qos);
        if net.below(4) == 0 {
            publish = publish.retain();
        }
        if v5 && net.below(5) == 0 {
            publish = publish.expiry(1 + net.below(4) as u32);
        }
        if v5 && net.below(3) == 0 {
            let alias = 1 + net.below(3) as u16;
            match known.aliases.get(&alias) {
                Some(known) if *known == topic => {
                    publish.topic = String::new();
                }
                _ => drop(known.aliases.insert(alias, topic)),
            }
            publish = publish.alias(alias);
        }
        if v5 && net.below(8) == 0 {
            publish = publish.utf8();
            if net.below(2) == 0 {
                publish.payload.push(0xFF);
            }
        }
        net.publish(known.client, publish);
    }

    fn act(&mut self, net: &mut Net) {
        if self.conns.is_empty() || net.below(8) == 0 {
            return self.connect(net);
        }
        let recent = net.below(self.conns.len().min(8));
        let at = self.conns.len() - 1 - recent;
        let client = self.conns[at].client;
        if net.is_over(client) {
            return;
        }
        match net.below(24) {
            0..3 => {
                let mut subscribe = Subscribe::new(FILTERS[net.below(FILTERS.len())], qos(net));
                if net.below(2) == 0 {
                    subscribe = subscribe.and(FILTERS[net.below(FILTERS.len())], qos(net));
                }
                net.send_subscribe(client, &subscribe);
            }
            3 => {
                let filter = FILTERS[net.below(FILTERS.len())];
                net.send_unsubscribe(client, &[filter]);
            }
            4 => {
                self.conns[at].paused = !self.conns[at].paused;
                if self.conns[at].paused { net.pause(client) } else { net.unpause(client) }
            }
            5 => net.cut_later(client),
            6 => net.hang_up_later(client),
            7 => net.ping(client),
            8 => net.auto_ack(client, true),
            9 => {
                let mut rng = Rng::from_number(net.below(1000) as u64);
                net.set_access(access(&mut rng));
            }
            10 => {
                let level = [MemoryPressure::None, MemoryPressure::Shed, MemoryPressure::Hold][net.below(3)];
                net.pressure(level);
            }
            11 => net.hooks_hang = net.below(4) == 0,
            12 => {
                let millis = net.below(2500) as u64;
                net.advance(Duration::from_millis(millis));
            }
            13 if net.below(3) == 0 => {
                let expiry = (self.conns[at].version == ProtocolVersion::V5 && net.below(2) == 0).then_some(0);
                net.disconnect_with(client, ReasonCode::NORMAL_DISCONNECTION, expiry);
            }
            _ => {
                for _ in 0..1 + net.below(6) {
                    self.publish(net, at);
                }
            }
        }
    }

    /// What came by now.
    fn look(&mut self, net: &mut Net) {
        for known in &mut self.conns {
            for got in net.take_now(known.client) {
                match got {
                    Got::Publish(message) => known.note(&message.publish),
                    Got::Disconnect(reason) => assert!(
                        matches!(
                            reason,
                            ReasonCode::SessionTakenOver
                                | ReasonCode::NotAuthorized
                                | ReasonCode::KeepAliveTimeout
                                | ReasonCode::ServerShuttingDown
                                | ReasonCode::QuotaExceeded
                        ),
                        "{reason}"
                    ),
                    _ => {}
                }
            }
        }
    }
}

impl Known {
    fn note(&mut self, publish: &Publish) {
        let text = String::from_utf8_lossy(&publish.payload).into_owned();
        let mut words = text.split(' ');
        let (Some(from), Some(number), Some(qos), Some(topic)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return;
        };
        if publish.retain || publish.dup || topic.starts_with("s/") || !from.contains('-') {
            return;
        }
        let key = (from.to_owned(), topic.to_owned(), qos.to_owned(), publish.qos as u8);
        let number: u64 = number.parse().unwrap();
        let last = self.last.insert(key, number);
        assert!(last.is_none_or(|last| last < number), "{text} after {last:?}");
    }
}

fn qos(net: &mut Net) -> QoS {
    [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][net.below(3)]
}

fn scenario(net: &mut Net, large: bool) {
    net.decide(|_| Verdict::Allow { data: None });
    let mut chaos = Chaos { conns: Vec::new(), sent: [0; NAMES.len()], large };
    for _ in 0..150 {
        chaos.act(net);
        if net.below(2) == 0 {
            net.wait_below(1500);
        }
        chaos.look(net);
    }
    match net.below(4) {
        0 => net.shutdown_slowly(),
        1 => net.shutdown(),
        _ => {}
    }
    net.hooks_hang = false;
    net.pressure(MemoryPressure::None);
    net.settle();
    chaos.look(net);
}

#[test]
fn whatever_happens() {
    for number in 0..NUMBERS {
        let large = number % 5 == 0;
        let configure = |config: &mut ShardConfig| configure(config, &mut Rng::from_number(number), large);
        let shards = [1, 2, 4][number as usize % 3];
        let run = |net: &mut Net| {
            // Another sequence for each number.
            for _ in 0..number {
                net.below(2);
            }
            scenario(net, large);
        };
        let result =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check_shards(&[shards], 1, configure, run)));
        assert!(result.is_ok(), "number {number}");
    }
}
