//! Retained messages when all is well again: whoever subscribes then, at whatever node, gets what was written last at any other.

use newtmq_mqtt::QoS;

use super::Steps;
use crate::generate::STEPS_MAX_CLUSTER;
use crate::scenario::{Act, FilterSpec, PublishSpec};

/// Of a hundred clusters so many are read at last.
const READ_PERCENT: u64 = 25;
/// Nodes have agreed on what is retained by then.
const AGREED_MS: u64 = 40_000;
const AGREED_QUICK_MS: u64 = 9_000;
/// Steps of a reading.
const READING: usize = 4;

impl Steps<'_> {
    pub(super) fn read_at_last(&mut self) {
        if !self.source.percent(READ_PERCENT) {
            return;
        }
        self.at_ms += if self.is_quick() { AGREED_QUICK_MS } else { AGREED_MS };
        let topic = self.source.pick(&self.topics.names).clone();
        for _ in 0..self.source.between(1, 2) {
            if self.is_micro() && self.scenario.steps.len() + READING > STEPS_MAX_CLUSTER {
                return;
            }
            self.write_and_read(&topic);
        }
    }

    /// One client writes, and then one subscribes that may be the same.
    fn write_and_read(&mut self, topic: &str) {
        let size = if self.source.percent(20) { 0 } else { self.source.between(16, 64) as u32 };
        let (writer, is_same) = (self.somebody_at_any_node(), self.source.coin());
        let message = PublishSpec {
            topic: topic.to_owned(),
            qos: QoS::AtLeastOnce,
            retain: true,
            size,
            expiry_s: 0,
            alias: 0,
            count: 1,
            every_us: 0,
        };
        self.act(writer, Act::Publish(message));
        self.at_ms += self.source.log(1, 2_000);
        let reader = if is_same { writer } else { self.somebody_at_any_node() };
        let filters = vec![FilterSpec::new(topic, QoS::AtLeastOnce)];
        self.act(reader, Act::Subscribe { filters, subscription_id: 0 });
        self.at_ms += self.source.log(1, 1_000);
    }

    /// Who connects now, be he somewhere or not.
    fn somebody_at_any_node(&mut self) -> usize {
        let client = self.source.below(self.clients.len() as u64) as usize;
        let node = self.source.below(self.scenario.nodes.into()) as u16;
        self.connect_at(client, Some(node));
        client
    }
}
