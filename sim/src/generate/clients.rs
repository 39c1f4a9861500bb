//! The clients of a scenario.

use newtmq_mqtt::{ProtocolVersion, QoS};

use super::topics::Topics;
use super::world::Features;
use super::{Family, Profile, Size, Source};
use crate::scenario::{ClientSpec, ReconnectSpec, Scenario, WillSpec};

pub(super) fn draw(
    profile: Profile,
    features: &Features,
    topics: &Topics,
    source: &mut Source,
    scenario: &mut Scenario,
) {
    let count = count(profile, source);
    let ids = ids(profile.family, features, count, source);
    for number in 0..count {
        let mut client = client(features, topics, source);
        if scenario.broker.durability.is_some() {
            client.session_expiry_s = client.session_expiry_s.min(super::world::LONG_SESSION_S);
        }
        client.name = format!("c{number}");
        client.id = format!("c{}", number % ids);
        client.node = source.below(scenario.nodes.into()) as u16;
        if scenario.node_spec(client.node).witness {
            // It takes no clients.
            client.node = 0;
        }
        // Two that both insist on one Client Identifier never come to rest.
        if ids < count {
            client.reconnect = None;
        }
        scenario.clients.push(client);
    }
    leave_out_untold_limits(scenario);
    keep_alives_fit_the_network(scenario);
}

/// A Keep Alive within which no packet comes through the network even on a good day is nobody's fault but its own.
fn keep_alives_fit_the_network(scenario: &mut Scenario) {
    let least_s = (4 * super::world::worst_delay_us(&scenario.net)).div_ceil(1_000_000) as u16;
    let of_clients = scenario.clients.iter_mut().map(|client| &mut client.keep_alive_s);
    for seconds in of_clients.chain(scenario.broker.server_keepalive_s.as_mut()).filter(|seconds| **seconds > 0) {
        *seconds = least_s.max(*seconds);
    }
}

/// Before MQTT 5.0 a client is not told of some limits. It loses its connection for it, which is right; but one that
/// connects again by itself and sends again what was refused would do so for ever.
fn leave_out_untold_limits(scenario: &mut Scenario) {
    let mut old = scenario.clients.iter().filter(|client| client.version != ProtocolVersion::V5);
    if old.clone().next().is_some() {
        scenario.broker.server_keepalive_s = None;
    }
    if old.any(|client| client.reconnect.is_some()) {
        scenario.broker.max_qos_allowed = None;
        scenario.broker.max_packet_size = None;
    }
}

fn count(profile: Profile, source: &mut Source) -> u64 {
    let low = match profile.family {
        Family::FanIn | Family::FanOut | Family::Shared | Family::Corners => 3,
        Family::PubSub
        | Family::Retained
        | Family::Wills
        | Family::Hoppers
        | Family::Collisions
        | Family::Takeover
        | Family::Durable
        | Family::ClusterPartition
        | Family::ClusterCrash
        | Family::ClusterMember
        | Family::ClusterLoad
        | Family::ClusterHop
        | Family::Sn
        | Family::SnCluster => 2,
        Family::Mixed | Family::Limits | Family::Misbehaving => 1,
    };
    match profile.size {
        Size::Micro => source.between(low, 6),
        Size::Full => source.log(low.max(4), 100),
    }
}

/// How many Client Identifiers there are.
fn ids(family: Family, features: &Features, count: u64, source: &mut Source) -> u64 {
    match family {
        Family::Collisions => source.between(1, (count / 2).max(1)),
        Family::Takeover => count.div_ceil(2),
        Family::Mixed => {
            if source.percent(15) {
                source.between(1, count)
            } else {
                count
            }
        }
        Family::PubSub
        | Family::FanIn
        | Family::FanOut
        | Family::Shared
        | Family::Retained
        | Family::Wills
        | Family::Hoppers
        | Family::Limits
        | Family::Durable
        | Family::Misbehaving
        | Family::Corners
        | Family::Sn
        | Family::SnCluster => count,
        Family::ClusterPartition | Family::ClusterCrash | Family::ClusterMember | Family::ClusterLoad => {
            if features.hop_percent > 0 && source.percent(15) { source.between(1, count) } else { count }
        }
        Family::ClusterHop => {
            if source.coin() {
                source.between(1, count)
            } else {
                count
            }
        }
    }
}

fn client(features: &Features, topics: &Topics, source: &mut Source) -> ClientSpec {
    let mut client = ClientSpec::default();
    if source.percent(features.old_percent) {
        client.version = if source.percent(20) { ProtocolVersion::V31 } else { ProtocolVersion::V311 };
    }
    if source.percent(features.session_percent) {
        client.clean = source.percent(10);
        client.session_expiry_s = if source.percent(30) { source.log(1, 60) as u32 } else { 3_600 };
    }
    if features.keep_alive && source.coin() {
        client.keep_alive_s = source.log(1, 60) as u16;
    }
    if features.receive_maximum && source.coin() {
        client.receive_maximum = source.log(1, 64) as u16;
    }
    if features.packet_size && source.coin() {
        client.max_packet_size = source.log(64, 4_096) as u32;
    }
    if features.aliases && source.coin() {
        client.topic_alias_maximum = source.log(1, 16) as u16;
    }
    if features.ack_delay && source.coin() {
        client.ack_delay_ms = 0..=source.log(1, 2_000);
    }
    if source.percent(features.wills_percent) {
        client.will = Some(WillSpec {
            topic: source.pick(&topics.names).clone(),
            qos: qos(features, source),
            retain: features.wills_retain && source.percent(features.retain_percent),
            delay_s: if source.coin() { source.log(1, 20) as u32 } else { 0 },
            expiry_s: if features.expiry && source.coin() { source.log(1, 20) as u32 } else { 0 },
        });
    }
    if features.reconnect && source.coin() {
        let first_ms = source.log(10, 2_000);
        client.reconnect = Some(ReconnectSpec {
            first_ms,
            max_ms: first_ms * source.log(1, 16),
            growth_percent: source.between(0, 100) as u32,
            jitter_percent: source.between(0, 100) as u32,
        });
    }
    client
}

/// By the weights of the scenario.
pub(super) fn qos(features: &Features, source: &mut Source) -> QoS {
    match source.weighted(features.qos.into_iter()) {
        Some(2) => QoS::ExactlyOnce,
        Some(1) => QoS::AtLeastOnce,
        _ => QoS::AtMostOnce,
    }
}
