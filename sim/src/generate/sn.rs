//! What scenarios with clients of MQTT-SN have beside others: who of the clients is one, their gateways and their network.

use super::topics::Topics;
use super::world::Features;
use super::{Profile, Source};
use crate::scenario::{BrokerSpec, ClientSpec, Qos3, ReconnectSpec, Scenario, SnSpec};

/// Of a hundred clients so many speak MQTT-SN.
const SN_PERCENT: u64 = 60;
/// Simulated milliseconds at the end: exchanges are repeated, and gateways look after who is lost.
const SETTLE_MS: u64 = 90_000;

/// Makes clients of MQTT-SN of some, and chooses their surroundings.
pub(super) fn draw(
    profile: Profile,
    features: &Features,
    topics: &Topics,
    source: &mut Source,
    scenario: &mut Scenario,
) {
    if !profile.family.is_sn() {
        return;
    }
    scenario.settle_ms = scenario.settle_ms.max(SETTLE_MS);
    // What a device cannot be told of a limit, it cannot keep to.
    let BrokerSpec {
        shared_subscription_strategy,
        durability,
        session_expiry_interval_s,
        max_publisher_hold_ms,
        max_mqueue_len,
        max_inflight,
        ..
    } = scenario.broker.clone();
    scenario.broker = BrokerSpec {
        shared_subscription_strategy,
        durability,
        session_expiry_interval_s,
        max_publisher_hold_ms,
        max_mqueue_len,
        max_inflight,
        ..BrokerSpec::default()
    };
    scenario.sn = spec(topics, source);
    for client in &mut scenario.clients {
        if source.percent(SN_PERCENT) {
            become_one(client, features, source);
        }
    }
    if !scenario.has_sn()
        && let Some(first) = scenario.clients.first_mut()
    {
        become_one(first, features, source);
    }
}

fn become_one(client: &mut ClientSpec, features: &Features, source: &mut Source) {
    let will = client.will.take().map(|will| crate::scenario::WillSpec { delay_s: 0, expiry_s: 0, ..will });
    let keep_alive_s = if features.keep_alive && source.coin() { source.log(5, 60) as u16 } else { 0 };
    let ClientSpec { name, id, node, .. } = core::mem::take(client);
    let first_ms = source.log(100, 4_000);
    *client = ClientSpec {
        name,
        id,
        node,
        sn: true,
        forwarder: source.percent(15).then(|| "hub".to_owned()),
        clean: source.percent(30),
        keep_alive_s,
        will,
        reconnect: source.percent(80).then_some(ReconnectSpec {
            first_ms,
            max_ms: 4 * first_ms,
            growth_percent: 50,
            jitter_percent: 50,
        }),
        ..ClientSpec::default()
    };
}

fn spec(topics: &Topics, source: &mut Source) -> SnSpec {
    let mut spec = SnSpec::default();
    if source.coin() {
        let count = source.between(1, topics.names.len() as u64) as usize;
        spec.predefined = topics.names[..count].to_vec();
    }
    spec.qos3 = *source.pick(&[Qos3::Off, Qos3::Connected, Qos3::On]);
    spec.retry_interval_ms = Some(source.log(1_000, 8_000));
    if source.percent(10) {
        spec.max_topic_ids = Some(source.log(1, 8) as u16);
    }
    if source.percent(20) {
        spec.max_buffer_len = Some(source.log(1, 10) as u16);
    }
    if source.percent(20) {
        spec.subs_resume = Some(false);
    }
    if source.coin() {
        let low = source.log(100, 50_000);
        spec.latency_us = low..=low + source.log(100, 50_000);
    }
    let rate = |source: &mut Source| if source.percent(60) { source.log(5_000, 300_000) as u32 } else { 0 };
    (spec.loss_ppm, spec.dup_ppm, spec.late_ppm) = (rate(source), rate(source), rate(source));
    if spec.late_ppm > 0 {
        spec.late_us = source.log(1_000, 2_000_000);
    }
    spec
}
