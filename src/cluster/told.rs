//! What the log is told of a cluster: with names, and with reasons.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};

use newtmq_base::NodeId;
use newtmq_cluster::link::{self, Address, ConnectionId, Path};
use newtmq_cluster::meta::{Lost, RemovedBy};
use newtmq_node::{ClusterEvent, Control};

/// How a node is called: by its name and its id, for two may have one name.
#[must_use]
pub fn name_of(control: &Control, node: NodeId) -> String {
    let name = control.cluster().and_then(|cluster| {
        let member = cluster.meta().view().state.members().get(&node).map(|member| member.name.clone());
        member.or_else(|| cluster.links().peer(node)?.hello().map(|hello| hello.name.clone()))
    });
    match name {
        Some(name) => format!("{name} ({:016x})", node.0),
        None => format!("{:016x}", node.0),
    }
}

/// Tells of an event.
pub fn event(control: &Control, event: &ClusterEvent) {
    let name = |node: NodeId| name_of(control, node);
    match event {
        ClusterEvent::Link(event) => link_event(control, event),
        ClusterEvent::Alive { node, alive: true, .. } => tracing::info!(node = name(*node), "node answers"),
        ClusterEvent::Alive { node, alive: false, .. } => tracing::warn!(node = name(*node), "node does not answer"),
        ClusterEvent::Joined(cluster) => {
            tracing::info!(cluster = format_args!("{:016x}", cluster.0), "member of a cluster")
        }
        ClusterEvent::RetainedRenewed { generation } => {
            tracing::warn!(generation, "the group of retained messages had lost its quorum for good: it begins anew")
        }
        ClusterEvent::Abandoned(lost) => {
            let Lost { cluster, name, config_keys, acl, users, banned } = lost;
            tracing::warn!(
                cluster = format_args!("{:016x}", cluster.0),
                name,
                config_keys,
                acl,
                users,
                banned,
                "gave up a cluster of this node alone; what it had configured is gone, sessions and retained messages stay"
            );
        }
        ClusterEvent::Leader { term, leader: Some(leader), .. } => {
            tracing::info!(term, leader = name(*leader), "leader of the cluster");
        }
        ClusterEvent::Leader { term, leader: None, .. } => tracing::warn!(term, "the cluster has no leader here"),
        ClusterEvent::Removing { node, by } => {
            tracing::warn!(node = name(*node), because = reason(*by), "removing a member");
        }
        ClusterEvent::Removed { node, by } => {
            tracing::warn!(node = name(*node), because = reason(*by), "a member was removed");
        }
        ClusterEvent::Blob { kind, key, value } => {
            tracing::debug!(?kind, key, is_deleted = value.is_none(), "a record of the cluster is another one");
        }
        ClusterEvent::Blobs => tracing::debug!("all records of the cluster are read anew"),
        ClusterEvent::Open { node, open: true } => {
            tracing::info!(node = name(*node), "subscriptions of a node are known");
        }
        ClusterEvent::Open { node, open: false } => {
            tracing::warn!(node = name(*node), "subscriptions of a node are masked: it is out of reach");
        }
        ClusterEvent::Gone(gone) => tracing::warn!(?gone, "this node is in no cluster any more"),
        ClusterEvent::Stopped(stopped) => tracing::error!(?stopped, "the log of the cluster cannot be applied"),
        ClusterEvent::BarrierIncomplete => {
            tracing::debug!("a subscription was confirmed before every node knew of it");
        }
    }
}

fn reason(by: RemovedBy) -> &'static str {
    match by {
        RemovedBy::Leave => "it leaves",
        RemovedBy::Force => "an operator has removed it",
        RemovedBy::Autoclean => "it was down for longer than cluster.autoclean",
    }
}

fn link_event(control: &Control, event: &link::Event) {
    let name = |node: NodeId| name_of(control, node);
    match event {
        link::Event::Up { peer, incarnation } => {
            tracing::info!(node = name(*peer), incarnation = incarnation.0, "link up");
        }
        link::Event::Down { peer, cause, .. } => tracing::warn!(node = name(*peer), ?cause, "link down"),
        link::Event::Reset { peer, incarnation } => {
            tracing::info!(node = name(*peer), incarnation = incarnation.0, "node has started anew");
        }
        link::Event::Broken { peer } => tracing::debug!(node = name(*peer), "what was under way to a node may be lost"),
        link::Event::Path { peer, path } => match path {
            Path::Direct(_) => tracing::debug!(node = name(*peer), "node is reached directly"),
            Path::Via(over) => tracing::warn!(node = name(*peer), over = name(*over), "node is reached over another"),
            Path::None => tracing::debug!(node = name(*peer), "node is not reached"),
        },
        link::Event::Connected { hello, version, .. } => {
            tracing::debug!(node = hello.name, id = format_args!("{:016x}", hello.node.0), version, "node connected");
        }
        // It comes again and again.
        link::Event::Refused { .. } => {}
    }
}

/// What comes again and again: it is told of once, and again when the reason is another one or after it has worked.
#[derive(Debug, Default)]
pub struct Repeated {
    unreachable: BTreeMap<Address, String>,
    not_accepted: BTreeMap<Option<IpAddr>, String>,
    refused: BTreeSet<(Option<NodeId>, Option<Address>, link::Refusal, bool)>,
}

impl Repeated {
    /// A connection cannot be opened.
    pub fn failed(&mut self, address: &Address, error: &io::Error) {
        let why = error.to_string();
        if self.unreachable.get(address) == Some(&why) {
            return;
        }
        if error.kind() == io::ErrorKind::InvalidData {
            // Somebody is there, and one side does not like the other's certificate.
            tracing::warn!(%address, error = why, "link refused");
        } else {
            tracing::info!(%address, error = why, "a node cannot be reached; trying again until it can");
        }
        if self.unreachable.len() >= REPEATED_MAX {
            self.unreachable.clear();
        }
        self.unreachable.insert(address.clone(), why);
    }

    /// A connection has ended before it was open, or one side has refused the other's certificate.
    pub fn not_accepted(&mut self, from: Option<SocketAddr>, error: &io::Error) {
        let (ip, why) = (from.map(|from| from.ip()), error.to_string());
        if self.not_accepted.get(&ip) == Some(&why) {
            return;
        }
        tracing::warn!(from = from.map(tracing::field::display), error = why, "link refused");
        if self.not_accepted.len() >= REPEATED_MAX {
            self.not_accepted.clear();
        }
        self.not_accepted.insert(ip, why);
    }

    /// Something has happened to links.
    pub fn heard(
        &mut self,
        control: &Control,
        event: &ClusterEvent,
        from: impl Fn(ConnectionId) -> Option<SocketAddr>,
    ) {
        match event {
            ClusterEvent::Link(link::Event::Refused { conn, address, claimed, reason, by_peer }) => {
                if let Some(address) = address {
                    self.unreachable.remove(address);
                }
                if self.refused.len() >= REPEATED_MAX {
                    self.refused.clear();
                }
                if self.refused.insert((*claimed, address.clone(), *reason, *by_peer)) {
                    tracing::warn!(
                        address = address.as_ref().map(|address| address.0.as_str()),
                        from = from(*conn).filter(|_| address.is_none()).map(tracing::field::display),
                        node = claimed.map(|node| name_of(control, node)),
                        %reason,
                        by = if *by_peer { "the other node" } else { "this node" },
                        "link refused"
                    );
                }
            }
            // A peer that is up may have been at any address.
            ClusterEvent::Link(link::Event::Up { peer, .. }) => {
                self.unreachable.clear();
                self.not_accepted.clear();
                self.refused.retain(|(node, ..)| node.is_some_and(|node| node != *peer));
            }
            _ => {}
        }
    }
}

/// More of them are told of again.
const REPEATED_MAX: usize = 256;
