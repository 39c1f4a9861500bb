//! Nodes as a cluster: what operators want of them, and looking into all of them at one time.

use core::time::Duration;
use std::sync::PoisonError;

use newtmq::cluster::driver::Event as DriverEvent;
use newtmq_base::RequestId;
use newtmq_node::{ClusterAnswer, ClusterCommand, ShardView};
use tokio::sync::oneshot;

use super::nodes::{Nodes, id_of};
use super::settings;
use crate::history::{Event, NodeIx};
use crate::report::Obligations;
use crate::scenario::WorldAction;
use crate::whitebox::cluster::Member;

/// How often is looked into nodes.
const EVERY: Duration = Duration::from_millis(200);
/// How often is looked whether a cluster is at rest, and how long after another.
const RESTS: usize = 100;
const REST: Duration = Duration::from_millis(100);

/// Gives the shards of a node.
type Views<'v, 'a> = dyn Fn(u16) -> Vec<ShardView<'a>> + 'v;

impl Nodes {
    /// What a step does to members; false if it is about something else.
    pub(super) fn carry_out(&self, action: &WorldAction, number: u64) -> bool {
        #[allow(clippy::wildcard_enum_match_arm)] // the others are not about members
        let (node, command) = match *action {
            WorldAction::Join { node, to } => (node, ClusterCommand::Join(settings::peer_address(to))),
            WorldAction::Leave { node } => (node, ClusterCommand::Leave),
            WorldAction::ForceLeave { node, target } => {
                let all = self.all.borrow();
                let Some(of) = all.get(usize::from(target)) else { return true };
                // One that runs again after it has lost its disk is meant as the one that it was.
                let is_new = !of.is_down() && of.wiped > 0;
                let id = if is_new { id_of(target, of.wiped - 1) } else { of.last };
                (node, ClusterCommand::ForceLeave(format!("{:x}", id.0)))
            }
            WorldAction::Status { node } => (node, ClusterCommand::Status),
            WorldAction::Finalize { node } => (node, ClusterCommand::Finalize),
            WorldAction::Write { node, key } => (node, crate::whitebox::cluster::write(key, number)),
            _ => return false,
        };
        self.command(node, command, RequestId(number));
        true
    }

    fn command(&self, ix: u16, command: ClusterCommand, request: RequestId) {
        let events = {
            let all = self.all.borrow();
            let Some(node) = all.get(usize::from(ix)).filter(|node| node.is_up()) else { return };
            node.watched.lock().events()
        };
        let Some(events) = events else { return };
        self.expect(ix, &command);
        self.journal.note(Event::Command { node: NodeIx(ix), request, command: command.clone() });
        let nodes = self.clone();
        let joins = matches!(command, ClusterCommand::Join(_));
        let leaves = matches!(command, ClusterCommand::Leave);
        madsim::task::spawn_local(async move {
            let (answer, answered) = oneshot::channel();
            // A node that has gone answers nothing.
            let _ = events.send(DriverEvent::Command { command, answer }).await;
            let answer = answered.await;
            if joins {
                let now = nodes.journal.now();
                nodes.watch.expect(|watch| watch.has_answered(ix, now));
            }
            let Ok(answer) = answer else { return };
            if leaves && answer != ClusterAnswer::Done {
                let now = nodes.journal.now();
                nodes.watch.expect(|watch| watch.did_not_leave(now));
            }
            if joins && matches!(answer, ClusterAnswer::Done) {
                nodes.watch.expect(|watch| watch.called_back(ix));
            }
            nodes.journal.note(Event::Answer { node: NodeIx(ix), request, answer: Box::new(answer) });
        });
    }

    fn expect(&self, ix: u16, command: &ClusterCommand) {
        match command {
            ClusterCommand::Leave => self.watch.expect(|watch| watch.sent_away(ix)),
            ClusterCommand::ForceLeave(id) => {
                let all = self.all.borrow();
                let target = all.iter().position(|node| format!("{:x}", node.last.0) == *id);
                if let Some(target) = target.and_then(|target| u16::try_from(target).ok()) {
                    self.watch.expect(|watch| watch.sent_away(target));
                }
            }
            // It is back only when it says so.
            ClusterCommand::Join(_) => {
                let now = self.journal.now();
                self.watch.expect(|watch| watch.joins(ix, now));
            }
            ClusterCommand::Readmit(_)
            | ClusterCommand::Finalize
            | ClusterCommand::Status
            | ClusterCommand::Examine
            | ClusterCommand::PutBlob { .. } => {}
        }
    }

    /// Looks into the nodes until nobody is left to tell.
    pub(super) async fn look_on(self) {
        if !self.watch.is_on() {
            return;
        }
        loop {
            madsim::time::sleep(EVERY).await;
            self.look_into(|members, views| self.watch.look(members, views));
        }
    }

    /// What has to hold when nothing goes on does so at some time.
    pub(super) async fn rest(&self) {
        if !self.watch.is_on() {
            return;
        }
        let (mut found, mut obligations) = (Vec::new(), Obligations::default());
        for _ in 0..RESTS {
            obligations = Obligations::default();
            found = self.look_into(|members, views| self.watch.at_rest(members, views, &mut obligations));
            if found.is_empty() {
                break;
            }
            madsim::time::sleep(REST).await;
        }
        self.watch.rested(found, &obligations);
    }

    /// Looks into all nodes that run, at their control planes and their shards.
    fn look_into<T>(&self, look: impl for<'a> FnOnce(&[Member<'a>], &Views<'_, 'a>) -> T) -> T {
        let all = self.all.borrow();
        let planes: Vec<_> = all.iter().map(|node| (!node.is_down()).then(|| node.watched.lock())).collect();
        let shards: Vec<Vec<_>> = all
            .iter()
            .map(|node| {
                let lock = |driver| std::sync::Mutex::lock(driver).unwrap_or_else(PoisonError::into_inner);
                node.drivers.iter().map(|driver| lock(&**driver)).collect()
            })
            .collect();
        let mut members = Vec::new();
        for ((ix, node), plane) in (0_u16..).zip(all.iter()).zip(&planes) {
            // Who starts has no shards yet.
            if let Some(control) = plane.as_ref().and_then(|plane| plane.control())
                && !node.drivers.is_empty()
            {
                members.push(Member { ix, id: node.last, control });
            }
        }
        let views = |ix: u16| {
            shards[usize::from(ix)]
                .iter()
                .flat_map(|driver| &**driver)
                .map(|driver| driver.shard().view())
                .collect::<Vec<ShardView<'_>>>()
        };
        look(&members, &views)
    }
}
