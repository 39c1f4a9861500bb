//! Tests of logs: nodes over an adversarial network, and single rules.

mod rules;
mod size;
mod swarm;
mod world;

use newtmq_mqtt::{OwnedTopicFilter, TopicFilter};

fn filter(text: &str) -> OwnedTopicFilter {
    TopicFilter::new(text).unwrap().into()
}
