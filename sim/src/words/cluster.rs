//! What nodes of a cluster say of it, and what operators ask them, in words.

use newtmq_base::NodeId;
use newtmq_cluster::link::{DownCause, Event as LinkEvent, Path};
use newtmq_cluster::meta::{Gone, RemovedBy};
use newtmq_node::{ClusterAnswer, ClusterCommand, ClusterEvent, ClusterStatus};

use super::{Words, node_name, printable};
use crate::history::Event;

impl Words<'_> {
    /// What happens to or in a node of a cluster: its name, and what.
    pub(crate) fn of_node(&self, event: &Event) -> Option<(String, String)> {
        #[allow(clippy::wildcard_enum_match_arm)] // all others are told elsewhere
        let (node, what) = match event {
            Event::NodeUp { node, incarnation, address, .. } => {
                (node, format!("is up at {address}, start {}", incarnation.0))
            }
            Event::NodeDown { node } => (node, "is gone".into()),
            Event::Cluster { node, event } => (node, self.cluster(event)),
            Event::Command { node, command: of, .. } => (node, format!("is told to {}", command(of))),
            Event::Answer { node, answer, .. } => (node, format!("answers: {}", self.answer(answer))),
            _ => return None,
        };
        Some((node_name(*node), what))
    }

    /// What a node says of its cluster.
    pub(crate) fn cluster(&self, event: &ClusterEvent) -> String {
        match event {
            ClusterEvent::Link(event) => self.link(event),
            ClusterEvent::Alive { node, alive: true, .. } => format!("{} answers", self.node(*node)),
            ClusterEvent::Alive { node, alive: false, .. } => format!("{} does not answer", self.node(*node)),
            ClusterEvent::Joined(cluster) => format!("belongs to cluster {:x}", cluster.0),
            ClusterEvent::RetainedRenewed { generation } => {
                format!("begins generation {generation} of the group of retained messages")
            }
            ClusterEvent::Abandoned(lost) => format!("gives up its own cluster {:x}", lost.cluster.0),
            ClusterEvent::Leader { term, leader: Some(leader), .. } => {
                format!("{} leads in term {term}", self.node(*leader))
            }
            ClusterEvent::Leader { term, leader: None, .. } => format!("nobody leads in term {term}"),
            ClusterEvent::Removed { node, by } => format!("{} is no member any more: {}", self.node(*node), why(*by)),
            ClusterEvent::Removing { node, by } => format!("proposes to remove {}: {}", self.node(*node), why(*by)),
            ClusterEvent::Blob { kind, key, value } => {
                let what = if value.is_some() { "has" } else { "has no" };
                format!("{what} {kind:?} {}", printable(key))
            }
            ClusterEvent::Blobs => "has other users and bans".into(),
            ClusterEvent::Open { node, open: true } => format!("the routes of {} are matched", self.node(*node)),
            ClusterEvent::Open { node, open: false } => format!("the routes of {} are masked", self.node(*node)),
            ClusterEvent::Gone(Gone::Left) => "is in no cluster: it has left".into(),
            ClusterEvent::Gone(Gone::Refused(why)) => format!("is in no cluster: {why}"),
            ClusterEvent::Stopped(stopped) => printable(&stopped.to_string()),
            ClusterEvent::BarrierIncomplete => "a SUBACK did not wait for everybody".into(),
        }
    }

    fn link(&self, event: &LinkEvent) -> String {
        match event {
            LinkEvent::Up { peer, incarnation } => format!("{}, start {}, is reached", self.node(*peer), incarnation.0),
            LinkEvent::Down { peer, cause, .. } => format!("{} is not reached: {}", self.node(*peer), down(*cause)),
            LinkEvent::Reset { peer, incarnation } => {
                format!("{} has begun anew, start {}", self.node(*peer), incarnation.0)
            }
            LinkEvent::Broken { peer } => format!("what was on its way to {} may be lost", self.node(*peer)),
            LinkEvent::Path { peer, path } => {
                let way = match path {
                    Path::None => "has no way".into(),
                    Path::Direct(_) => "goes directly".into(),
                    Path::Via(over) => format!("goes over {}", self.node(*over)),
                };
                format!("what is for {} {way}", self.node(*peer))
            }
            LinkEvent::Connected { hello, .. } => format!("has a connection with {}", self.node(hello.node)),
            LinkEvent::Refused { claimed, reason, by_peer, .. } => {
                let other = claimed.map_or_else(|| "somebody".into(), |node| self.node(node));
                let (one, two) = if *by_peer { (&other[..], "it") } else { ("it", &other[..]) };
                format!("{one} refuses {two}: {reason}")
            }
        }
    }

    /// What a node answers to an operator.
    pub(crate) fn answer(&self, answer: &ClusterAnswer) -> String {
        match answer {
            ClusterAnswer::Done => "done".into(),
            ClusterAnswer::Refused(why) => format!("refused: {}", printable(why)),
            ClusterAnswer::Status(status) => self.status(status),
            ClusterAnswer::Examined(said) => {
                let found: Vec<String> = said.findings.iter().map(|finding| printable(&finding.what)).collect();
                format!(
                    "{} answer; {}",
                    said.charts.len(),
                    if found.is_empty() { "all is well".into() } else { found.join("; ") }
                )
            }
        }
    }

    fn status(&self, status: &ClusterStatus) -> String {
        let nodes: Vec<String> = status
            .nodes
            .iter()
            .map(|of| {
                let state = match (of.is_self, of.is_up, of.is_relayed) {
                    (true, ..) => "itself",
                    (_, true, false) => "up",
                    (_, true, true) => "up, relayed",
                    (_, false, _) => "down",
                };
                format!("{} ({}, {state}, routes {})", self.node(of.node), of.role, of.routes)
            })
            .collect();
        let leader = status.leader.map_or_else(|| "no leader".into(), |leader| format!("leader {}", self.node(leader)));
        let member = if status.is_member { "" } else { "no member; " };
        format!("{member}{leader}, term {}; {}", status.term, nodes.join(", "))
    }

    /// A node of the scenario by what it is for others.
    fn node(&self, id: NodeId) -> String {
        self.nodes.get(&id).map_or_else(|| format!("node {:x}", id.0), |node| node_name(*node))
    }
}

/// What an operator wants, as on the command line.
pub(crate) fn command(command: &ClusterCommand) -> String {
    match command {
        ClusterCommand::Join(address) => format!("join {address}"),
        ClusterCommand::Leave => "leave".into(),
        ClusterCommand::ForceLeave(name) => format!("force-leave {}", printable(name)),
        ClusterCommand::Readmit(id) => format!("readmit {}", printable(id)),
        ClusterCommand::Finalize => "use what all members understand".into(),
        ClusterCommand::Status => "say its status".into(),
        ClusterCommand::Examine => "examine the cluster".into(),
        ClusterCommand::PutBlob { kind, key, .. } => format!("write {kind:?} {}", printable(key)),
    }
}

const fn down(cause: DownCause) -> &'static str {
    match cause {
        DownCause::Silent => "nothing comes from it",
        DownCause::Unheard => "it does not hear this node",
        DownCause::Restarted => "it has started anew",
        DownCause::Removed => "it was removed",
    }
}

const fn why(by: RemovedBy) -> &'static str {
    match by {
        RemovedBy::Leave => "it leaves",
        RemovedBy::Force => "an operator wants it",
        RemovedBy::Autoclean => "it was down for too long",
    }
}
