//! What operators want of the cluster, on its way: joining, leaving, forcing out. Each request is answered once.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use newtmq_base::{Incarnation, Instant, NodeId, RequestId, ShardId, planted};
use newtmq_cluster::link::{Address, Path, Refusal};
use newtmq_cluster::meta::{self, RemovedBy, Role};
use newtmq_cluster::owned::Phase;

use super::joint::{Cluster, Cx};
use super::{ClusterAnswer, ClusterCommand, ClusterStatus, NodeStatus};
use crate::control::FromControl;

/// What the meta group was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To found a cluster of this node alone.
    Init,
    /// To begin a new group of retained messages.
    Renew,
    /// About a will.
    Will,
    /// For an operator.
    Join(RequestId),
    Leave(RequestId),
    ForceLeave(RequestId),
    Readmit(RequestId),
    Finalize(RequestId),
    PutBlob(RequestId),
}

#[derive(Debug)]
enum Task {
    /// The node at this address is to be reached first; then the meta group asks it.
    Join { address: SocketAddr, asked: bool },
    /// These shards have clients yet.
    Leave { draining: BTreeSet<ShardId>, asked: bool },
}

/// Joining or leaving: one at a time.
#[derive(Debug)]
struct Work {
    request: RequestId,
    task: Task,
    until: Instant,
    /// What the meta group was asked.
    wish: Option<RequestId>,
    /// It is answered by then.
    last: Instant,
}

#[derive(Debug)]
pub(super) struct Desk {
    numbers: u64,
    asked: BTreeMap<RequestId, Purpose>,
    work: Option<Work>,
}

impl Desk {
    /// Numbers are none of an earlier start's, whose entries the log may still apply.
    pub(super) fn new(incarnation: Incarnation) -> Desk {
        Desk { numbers: incarnation.0 << 32, asked: BTreeMap::new(), work: None }
    }

    pub(super) fn request(&mut self, purpose: Purpose) -> RequestId {
        self.numbers += 1;
        self.asked.insert(RequestId(self.numbers), purpose);
        RequestId(self.numbers)
    }

    /// Where the node is that is to be joined.
    pub(super) fn joins(&self) -> Option<SocketAddr> {
        match self.work.as_ref()?.task {
            Task::Join { address, .. } => Some(address),
            Task::Leave { .. } => None,
        }
    }

    pub(super) fn next_deadline(&self) -> Instant {
        self.work.as_ref().map_or(Instant::NEVER, |work| work.until)
    }
}

impl Cluster {
    pub(super) fn command(&mut self, cx: &mut Cx<'_>, request: RequestId, command: ClusterCommand) {
        let answer = match command {
            ClusterCommand::Join(address) => self.join(cx, request, address),
            ClusterCommand::Leave => self.leave(cx, request),
            ClusterCommand::ForceLeave(text) => self.force_leave(cx, request, &text),
            ClusterCommand::Readmit(text) => self.readmit(cx, request, &text),
            ClusterCommand::Finalize => self.finalize(cx, request),
            ClusterCommand::Examine => self.examine(cx, request),
            ClusterCommand::Status => Some(ClusterAnswer::Status(Box::new(self.status(cx)))),
            ClusterCommand::PutBlob { kind, key, value, expected } => {
                let request = self.desk.request(Purpose::PutBlob(request));
                let command = meta::Command::PutBlob { kind, key, value, expected };
                self.meta.handle(cx.now, meta::Input::Write { request, command }, &mut self.meta_out);
                None
            }
        };
        if let Some(answer) = answer {
            self.answer(cx, request, answer);
        }
    }

    fn join(&mut self, cx: &mut Cx<'_>, request: RequestId, address: SocketAddr) -> Option<ClusterAnswer> {
        if self.desk.work.is_some() {
            return refused("another command is under way");
        }
        if address == self.address {
            return refused("this is the address of the node itself");
        }
        if self.meta.is_member() && self.meta.view().state.members().len() > 1 {
            return refused(meta::Refusal::NotAlone);
        }
        let task = Task::Join { address, asked: false };
        let (until, last) = (cx.now + REACH_WITHIN, cx.now + JOIN_WITHIN);
        self.desk.work = Some(Work { request, task, until, wish: None, last });
        self.follow_addresses(cx.now);
        self.desk_look(cx);
        None
    }

    fn leave(&mut self, cx: &mut Cx<'_>, request: RequestId) -> Option<ClusterAnswer> {
        if self.desk.work.is_some() {
            return refused("another command is under way");
        }
        if !self.meta.is_member() {
            return refused(meta::Refusal::NoCluster);
        }
        if self.meta.view().state.members().len() <= 1 {
            return refused(meta::Refusal::SoleMember);
        }
        let draining = (0..self.shards).map(ShardId).collect();
        let task = Task::Leave { draining, asked: false };
        let (until, last) = (cx.now + DRAIN_WITHIN, cx.now + LEAVE_WITHIN);
        self.desk.work = Some(Work { request, task, until, wish: None, last });
        cx.tell(self.shards, &FromControl::Drain(true));
        None
    }

    fn force_leave(&mut self, cx: &mut Cx<'_>, request: RequestId, text: &str) -> Option<ClusterAnswer> {
        let members = self.meta.view().state.members();
        let named = members.values().filter(|member| member.name == text).map(|member| member.node);
        let named: Vec<NodeId> = named.collect();
        let node = match named[..] {
            [node] => node,
            [] => match id(text) {
                Some(node) => node,
                None => return refused(meta::Rejected::NoSuchNode),
            },
            _ => return refused("several members have this name; give the id of one"),
        };
        if node == self.node {
            return refused("a node cannot force itself to leave");
        }
        let request = self.desk.request(Purpose::ForceLeave(request));
        self.meta.handle(cx.now, meta::Input::ForceLeave { request, node }, &mut self.meta_out);
        None
    }

    fn readmit(&mut self, cx: &mut Cx<'_>, request: RequestId, text: &str) -> Option<ClusterAnswer> {
        let removed = self.meta.view().state.removed();
        let is_forced = |node: &NodeId| removed.get(node).is_some_and(|removed| removed.by == RemovedBy::Force);
        let Some(node) = id(text).filter(is_forced) else {
            let ids = removed.keys().filter(|node| is_forced(node)).map(|node| format!("{:016x}", node.0));
            let ids: Vec<String> = ids.collect();
            return refused(match ids[..] {
                [] => "no node was removed by force".to_owned(),
                _ => format!("no node with this id was removed by force, but {}", ids.join(", ")),
            });
        };
        let request = self.desk.request(Purpose::Readmit(request));
        let command = meta::Command::Readmit { node };
        self.meta.handle(cx.now, meta::Input::Write { request, command }, &mut self.meta_out);
        None
    }

    fn finalize(&mut self, cx: &mut Cx<'_>, request: RequestId) -> Option<ClusterAnswer> {
        let (level, most) = self.features();
        if most <= level {
            return refused(format!(
                "the cluster uses feature level {level}, and not every member understands a higher one"
            ));
        }
        let request = self.desk.request(Purpose::Finalize(request));
        let command = meta::Command::FinalizeFeatureLevel { level: most };
        self.meta.handle(cx.now, meta::Input::Write { request, command }, &mut self.meta_out);
        None
    }

    /// The feature level that is used, and the highest that every member understands.
    fn features(&self) -> (u32, u32) {
        let state = self.meta.view().state;
        let most = state.members().values().map(|member| member.feature_max).min();
        (state.feature_level(), most.unwrap_or(0))
    }

    /// Whether an operator has this node leave.
    pub(super) fn leaves(&self) -> bool {
        matches!(self.desk.work, Some(Work { task: Task::Leave { .. }, .. }))
    }

    /// Whether the node that is to be joined is reached.
    pub(super) fn desk_look(&mut self, cx: &mut Cx<'_>) {
        let Some(Work { request, task: Task::Join { address, asked: false }, last, .. }) = self.desk.work else {
            return;
        };
        let text = address.to_string();
        let dialed = self.links.reached().filter(|(other, _)| other.0 == text).map(|(_, node)| node);
        let answering = self.swim.alive().filter(|(_, _, other)| *other == address).map(|(node, _, _)| node);
        let via = dialed.chain(answering).find(|node| self.reached.contains_key(node));
        if via.is_some() {
            let wish = self.desk.request(Purpose::Join(request));
            let task = Task::Join { address, asked: true };
            self.desk.work = Some(Work { request, task, until: last, wish: Some(wish), last });
            let request = wish;
            self.meta.handle(cx.now, meta::Input::Join { request, via }, &mut self.meta_out);
        }
    }

    /// Where the node should be that is to be joined, it is not let in.
    pub(super) fn desk_refused(&mut self, cx: &mut Cx<'_>, address: &Address, reason: Refusal) {
        let Some(work) = &self.desk.work else { return };
        if matches!(&work.task, Task::Join { address: joins, asked: false } if joins.to_string() == address.0) {
            let request = work.request;
            self.done(cx, request, ClusterAnswer::Refused(reason.to_string()));
        }
    }

    /// A shard has no clients any more.
    pub(crate) fn drained(&mut self, cx: &mut Cx<'_>, shard: ShardId) {
        if let Some(Work { task: Task::Leave { draining, asked: false }, .. }) = &mut self.desk.work {
            draining.remove(&shard);
            if draining.is_empty() {
                self.really_leave(cx);
            }
        }
    }

    fn really_leave(&mut self, cx: &mut Cx<'_>) {
        let Some(Work { request, last, .. }) = self.desk.work else { return };
        let wish = self.desk.request(Purpose::Leave(request));
        let task = Task::Leave { draining: BTreeSet::new(), asked: true };
        self.desk.work = Some(Work { request, task, until: last, wish: Some(wish), last });
        let request = wish;
        self.meta.handle(cx.now, meta::Input::Leave { request }, &mut self.meta_out);
    }

    pub(super) fn desk_overdue(&mut self, cx: &mut Cx<'_>) {
        let Some(Work { request, task, wish, .. }) = &mut self.desk.work else { return };
        let request = *request;
        match task {
            Task::Join { address, asked: false } => {
                let why = format!("no node is reached at {address}");
                self.done(cx, request, ClusterAnswer::Refused(why));
            }
            Task::Leave { asked: false, .. } => self.really_leave(cx),
            // The answer comes from there, at once: the others may be too few, and it is not known whether it is done.
            Task::Join { asked: true, .. } | Task::Leave { asked: true, .. } => {
                let Some(wish) = wish.take() else { return };
                if let Some(work) = &mut self.desk.work {
                    work.until = Instant::NEVER;
                }
                if !planted!(NeverAnswered) {
                    let input = meta::Input::GiveUp { request: wish };
                    self.meta.handle(cx.now, input, &mut self.meta_out);
                }
            }
        }
    }

    /// The meta group has answered.
    pub(super) fn answered(&mut self, cx: &mut Cx<'_>, request: RequestId, outcome: Result<u64, meta::Refusal>) {
        let Some(purpose) = self.desk.asked.remove(&request) else { return };
        if purpose == Purpose::Will {
            return self.will_answered(cx, request, outcome);
        }
        let answer = match outcome {
            Ok(_) => ClusterAnswer::Done,
            Err(refusal) => ClusterAnswer::Refused(refusal.to_string()),
        };
        match purpose {
            Purpose::Init | Purpose::Renew | Purpose::Will => {}
            Purpose::ForceLeave(request)
            | Purpose::Readmit(request)
            | Purpose::Finalize(request)
            | Purpose::PutBlob(request) => self.answer(cx, request, answer),
            Purpose::Join(request) | Purpose::Leave(request) => self.done(cx, request, answer),
        }
    }

    /// Joining or leaving has an end.
    fn done(&mut self, cx: &mut Cx<'_>, request: RequestId, answer: ClusterAnswer) {
        let Some(work) = self.desk.work.take_if(|work| work.request == request) else { return };
        if matches!(work.task, Task::Leave { .. }) && !self.config.witness {
            cx.tell(self.shards, &FromControl::Drain(false));
        }
        self.answer(cx, request, answer);
        self.follow_addresses(cx.now);
    }

    /// Frames of a node come over another one.
    pub(super) fn is_relayed(&self, node: NodeId) -> bool {
        self.links.peer(node).is_some_and(|link| link.is_up() && matches!(link.path(), Path::Via(_)))
    }

    /// SWIM says that a node answers.
    pub(super) fn is_alive(&self, node: NodeId) -> bool {
        self.swim.alive().any(|(alive, ..)| alive == node)
    }

    pub(super) fn status(&self, cx: &Cx<'_>) -> ClusterStatus {
        let view = self.meta.view();
        let nodes = view.state.members().values().map(|member| {
            let node = member.node;
            let is_self = node == self.node;
            let incarnation = if is_self { self.incarnation } else { member.inc };
            NodeStatus {
                node,
                incarnation: self.reached.get(&node).copied().unwrap_or(incarnation),
                name: member.name.clone(),
                address: member.address.clone(),
                is_self,
                role: match view.state.role(node) {
                    Some(Role::Voter) => "voter",
                    Some(Role::Witness) => "witness",
                    Some(Role::Learner) | None => "learner",
                },
                is_up: is_self || self.reached.contains_key(&node),
                is_relayed: self.is_relayed(node),
                is_alive: is_self || self.is_alive(node),
                routes: match cx.owned.phase(node) {
                    _ if is_self => "open",
                    Phase::Masked => "masked",
                    Phase::Syncing => "syncing",
                    Phase::Open => "open",
                },
                entries: if is_self {
                    cx.owned.log().len() as u64
                } else {
                    cx.owned.replica(node).map_or(0, |replica| replica.len() as u64)
                },
            }
        });
        ClusterStatus {
            name: view.state.name().to_owned(),
            is_member: self.meta.is_member(),
            leader: view.leader,
            term: view.term,
            applied: view.state.index(),
            features: self.features(),
            unready: self.unready(),
            nodes: nodes.collect(),
        }
    }
}

/// A node's id, as it is shown.
fn id(text: &str) -> Option<NodeId> {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).ok().map(NodeId)
}

fn refused(why: impl ToString) -> Option<ClusterAnswer> {
    Some(ClusterAnswer::Refused(why.to_string()))
}

/// So long a node may need to be reached that is to be joined.
const REACH_WITHIN: Duration = Duration::from_secs(9);
/// After so long a join is answered...
const JOIN_WITHIN: Duration = Duration::from_millis(14_500);
/// ...and a leave, done or not.
const LEAVE_WITHIN: Duration = Duration::from_millis(9_500);
/// So long clients have to go before the node leaves without asking.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);
