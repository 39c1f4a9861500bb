//! What nodes tell of their cluster, from their logs: the checks take their word for who reached whom.
//!
//! A log and what a client sees are not in one order, so that what begins something bad is taken to be a little earlier, and
//! what ends it a little later.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use newtmq_base::{Incarnation, Instant, NodeId};
use newtmq_cluster::link::{DownCause, Event as LinkEvent};
use newtmq_node::ClusterEvent;
use newtmq_sim::history::{Event, NodeIx};
use serde_json::Value;

/// When a run has begun, on the clock that logs have.
#[derive(Debug, Clone, Copy)]
pub struct Begin(Duration);

impl Begin {
    /// Now.
    pub fn now() -> Begin {
        Begin(SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970"))
    }

    /// When a line of a log was written, in the time of the run. A run takes less than a day.
    fn at(self, line: &Value) -> Option<Instant> {
        let (_, time) = line["timestamp"].as_str()?.trim_end_matches('Z').split_once('T')?;
        let mut parts = time.split(':').map(str::parse::<f64>);
        let seconds = parts.next()?.ok()? * 3600.0 + parts.next()?.ok()? * 60.0 + parts.next()?.ok()?;
        let since = (seconds - self.0.as_secs_f64() % DAY).rem_euclid(DAY);
        // What is before the begin by the width of a rounding is at the begin.
        Some(Instant::START + if since > DAY / 2.0 { Duration::ZERO } else { Duration::from_secs_f64(since) })
    }
}

/// What a node's log tells, with the time.
pub fn events(node: NodeIx, log: &str, begin: Begin) -> Vec<(Instant, Event)> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter_map(|line| {
            let (event, ends) = event(&line)?;
            let at = begin.at(&line)?;
            let at = if ends { at + NEAR } else { earlier(at) };
            Some((at, Event::Cluster { node, event: Box::new(event) }))
        })
        .collect()
}

fn earlier(at: Instant) -> Instant {
    Instant::START + at.saturating_since(Instant::START).saturating_sub(NEAR)
}

/// The event of a line, and whether it ends something.
fn event(line: &Value) -> Option<(ClusterEvent, bool)> {
    let peer = node_of(&line["node"]);
    let incarnation = Incarnation(line["incarnation"].as_u64().unwrap_or(0));
    let link = |event| Some((ClusterEvent::Link(event), false));
    match line["message"].as_str()? {
        "link up" => Some((ClusterEvent::Link(LinkEvent::Up { peer: peer?, incarnation }), true)),
        "link down" => {
            let cause = match line["cause"].as_str()? {
                "Silent" => DownCause::Silent,
                "Unheard" => DownCause::Unheard,
                "Restarted" => DownCause::Restarted,
                _ => DownCause::Removed,
            };
            link(LinkEvent::Down { peer: peer?, incarnation, cause })
        }
        "node has started anew" => link(LinkEvent::Reset { peer: peer?, incarnation }),
        "what was under way to a node may be lost" => link(LinkEvent::Broken { peer: peer? }),
        "subscriptions of a node are known" => Some((ClusterEvent::Open { node: peer?, open: true }, true)),
        "subscriptions of a node are masked: it is out of reach" => {
            Some((ClusterEvent::Open { node: peer?, open: false }, false))
        }
        "leader of the cluster" => {
            let term = line["term"].as_u64()?;
            Some((ClusterEvent::Leader { cluster: None, term, leader: Some(node_of(&line["leader"])?) }, true))
        }
        "the cluster has no leader here" => {
            Some((ClusterEvent::Leader { cluster: None, term: line["term"].as_u64()?, leader: None }, false))
        }
        "a subscription was confirmed before every node knew of it" => Some((ClusterEvent::BarrierIncomplete, false)),
        _ => None,
    }
}

/// `NAME (ID)`, or the id.
fn node_of(name: &Value) -> Option<NodeId> {
    let text = name.as_str()?;
    let id = text.rsplit_once('(').map_or(text, |(_, id)| id).trim_end_matches(')');
    u64::from_str_radix(id, 16).ok().map(NodeId)
}

/// Of how many lines of a log the checks make something: a log whose words have changed would excuse nothing, or everything.
pub fn is_known(log: &str) -> bool {
    ["\"link up\"", "\"subscriptions of a node are known\"", "\"leader of the cluster\""]
        .iter()
        .all(|words| log.contains(words))
}

const DAY: f64 = 86_400.0;
const NEAR: Duration = Duration::from_millis(50);
