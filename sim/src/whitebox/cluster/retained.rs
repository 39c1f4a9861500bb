//! When nothing goes on all members of a cluster have the same retained messages (Q4), and nothing waits to become one.

use newtmq_node::Cluster;

use super::Core;
use crate::report::{Check, Obligations};
use crate::scenario::{Act, Action, Scenario, Step};

/// What is not so, at the first node that differs from another one. Until it `is_settled` the group may be about to begin anew.
pub(super) fn differs(
    core: &Core<'_>,
    is_settled: bool,
    scenario: &Scenario,
    obligations: &mut Obligations,
) -> Option<(Check, u16, String)> {
    let nodes: Vec<(u16, &Cluster)> = core.nodes.iter().filter_map(|node| Some((node.ix, node.cluster()?))).collect();
    let (first, one) = *nodes.first()?;
    obligations.count(Check::RetainedApart, nodes.len() as u64);
    let latest = nodes.iter().filter_map(|(_, cluster)| cluster.retained_generation()).max();
    // Who decides may have crashed while the meta group lost nobody whom it needs.
    let newest =
        nodes.iter().max_by_key(|(_, cluster)| (cluster.retained_generation(), cluster.retained().applied()))?.1;
    if !newest.retained_has_quorum(|node| core.has(node)) && newest.retained_may_return() {
        return None;
    }
    let is_under_way = |cluster: &Cluster| {
        let view = cluster.retained().view();
        let waits = view.leader.is_none() || view.pending > 0 || !cluster.is_retained_settled();
        waits || cluster.retained_generation() != latest
    };
    if !is_settled && nodes.iter().any(|(_, cluster)| is_under_way(cluster)) {
        return None;
    }
    for (ix, cluster) in &nodes {
        let (view, told) = (cluster.retained().view(), |what: String| Some((Check::RetainedApart, *ix, what)));
        if cluster.retained_generation() != latest {
            return told(format!(
                "it is in generation {:?} of the group of retained messages, others in {latest:?}",
                cluster.retained_generation()
            ));
        }
        if view.leader.is_none() {
            return told("the group of retained messages has no leader".to_owned());
        }
        if view.pending > 0 || !cluster.is_retained_settled() {
            return told(format!("{} retained messages are kept at this node alone", view.pending));
        }
        let (own, other) = (cluster.retained().messages(None), one.retained().messages(None));
        // Each node lets go of what has expired when it comes to it.
        if !own.eq(other) && !expires(scenario) {
            let missing = one
                .retained()
                .messages(None)
                .find(|(topic, index, _)| cluster.retained().item(topic).is_none_or(|(own, _)| own != *index));
            let topic = missing.map_or("another topic", |(topic, ..)| topic);
            return told(format!("its retained messages are not those of node {first}: {topic}"));
        }
    }
    None
}

/// Whether anything that is retained may expire.
fn expires(scenario: &Scenario) -> bool {
    let expires = |step: &Step| match &step.action {
        Action::Client { act: Act::Publish(publish), .. } => publish.expiry_s > 0,
        Action::Client { .. } | Action::World(_) => false,
    };
    let mut wills = scenario.clients.iter().filter_map(|client| client.will.as_ref());
    scenario.steps.iter().any(expires)
        || wills.any(|will| will.expiry_s > 0)
        || scenario.broker.retained_expiry_interval_ms.is_some()
}
