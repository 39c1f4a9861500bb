//! L14: what an operator has written for the whole cluster, a user or a ban, is within 2 s at every node that reaches the
//! leader (P14). Judged where nothing was between that node and the leader, nor done to either, since it was asked for.

use core::time::Duration;
use std::collections::BTreeSet;

use newtmq_base::{Instant, RequestId};
use newtmq_node::{ClusterAnswer, ClusterCommand, ClusterEvent};

use super::state::State;
use super::witness::{Cx, Story};
use crate::report::Check;

/// So long it may take from the answer on.
const SPREAD: Duration = Duration::from_secs(2);
/// What was wrong so shortly before counts, too: a leader that is cut off is missed only after an election's time.
const BEFORE: Duration = Duration::from_secs(2);

/// What was asked for.
#[derive(Debug)]
struct Write {
    request: RequestId,
    node: u16,
    key: String,
    value: Option<Vec<u8>>,
    asked: Instant,
    done: Option<Instant>,
    /// Who has it, or all that there is at a later time.
    has: BTreeSet<u16>,
}

/// All that may not be everywhere.
#[derive(Debug, Default)]
pub(super) struct Writes {
    open: Vec<Write>,
}

impl Writes {
    pub(super) fn asked(&mut self, node: u16, request: RequestId, command: &ClusterCommand, now: Instant) {
        if let ClusterCommand::PutBlob { key, value, .. } = command {
            let (key, value) = (key.clone(), value.clone());
            self.open.push(Write { request, node, key, value, asked: now, done: None, has: BTreeSet::new() });
        }
    }

    pub(super) fn answered(&mut self, request: RequestId, answer: &ClusterAnswer, now: Instant) {
        let Some(at) = self.open.iter().position(|write| write.request == request) else { return };
        if *answer == ClusterAnswer::Done {
            self.open[at].done = Some(now);
        } else {
            // It may be written as yet, or never.
            self.open.swap_remove(at);
        }
    }

    pub(super) fn said(&mut self, node: u16, event: &ClusterEvent) {
        let ClusterEvent::Blob { key: of, value: is, .. } = event else {
            if *event == ClusterEvent::Blobs {
                self.open.iter_mut().for_each(|write| _ = write.has.insert(node));
            }
            return;
        };
        for write in self.open.iter_mut().filter(|write| write.key == *of && write.value == *is) {
            write.has.insert(node);
        }
    }
}

impl State {
    /// Judges what has had its time.
    pub(super) fn judge_writes(&mut self, cx: &mut Cx<'_>) {
        let most = SPREAD + self.limits.late + self.limits.links;
        let now = cx.now;
        let is_due = |write: &Write| write.done.is_some_and(|done| done + most < now);
        while let Some(at) = self.writes.open.iter().position(is_due) {
            let write = self.writes.open.swap_remove(at);
            for node in 0..self.ways.count() {
                self.judge_write(&write, node, cx);
            }
        }
    }

    fn judge_write(&self, write: &Write, node: u16, cx: &mut Cx<'_>) {
        let since = write.asked.saturating_since(Instant::START).saturating_sub(BEFORE);
        let since = Instant::START + since;
        let Some(leader) = self.ways.follows(node, since) else { return };
        // It was written in the cluster of the node that was told.
        if self.ways.follows(write.node, since) != Some(leader) {
            return;
        }
        let is_well = |node| self.ways.is_untouched(node, since) && self.had_good_disk(node, since);
        let apart = self.ways.were_apart(node, leader, since, cx.now);
        if !is_well(node) || !is_well(leader) || apart || self.limits.links_late {
            return;
        }
        cx.owe(Check::Spread);
        if write.has.contains(&node) {
            return;
        }
        let message = format!("node {node} does not have what node {} was told to write to {}", write.node, write.key);
        let story = Story::default().when(write.asked, "it was asked").when_some(write.done, "it was done");
        cx.violated(Check::Spread, message, story);
    }
}
