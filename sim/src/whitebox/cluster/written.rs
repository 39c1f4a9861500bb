//! W15: what was written for the whole cluster, as the operator was told, is there at rest, unless a later one is (P14).

use std::collections::BTreeMap;

use newtmq_base::{Instant, RequestId};
use newtmq_cluster::meta::{BlobKind, ClusterId};
use newtmq_node::{ClusterAnswer, ClusterCommand};

use super::{Core, Found, Member};
use crate::report::{Check, Obligations};

#[derive(Debug)]
struct Write {
    value: Option<Vec<u8>>,
    asked: Instant,
    /// When it was said to be done, and in which cluster.
    done: Option<(Instant, Option<ClusterId>)>,
}

/// By key, what operators wanted; each wants something else.
#[derive(Debug, Default)]
pub(super) struct Written {
    all: BTreeMap<(BlobKind, String), BTreeMap<RequestId, Write>>,
}

impl Written {
    pub(super) fn asked(&mut self, now: Instant, request: RequestId, command: &ClusterCommand) {
        if let ClusterCommand::PutBlob { kind, key, value, .. } = command {
            let write = Write { value: value.clone(), asked: now, done: None };
            self.all.entry((*kind, key.clone())).or_default().insert(request, write);
        }
    }

    pub(super) fn answered(&mut self, now: Instant, member: &Member<'_>, request: RequestId, answer: &ClusterAnswer) {
        if *answer != ClusterAnswer::Done {
            return;
        }
        for writes in self.all.values_mut() {
            if let Some(write) = writes.get_mut(&request) {
                write.done = Some((now, member.belongs()));
            }
        }
    }

    /// At rest.
    pub(super) fn look(&self, core: &Core<'_>, obligations: &mut Obligations) -> Vec<Found> {
        let mut found = Vec::new();
        for ((kind, key), writes) in &self.all {
            for member in &core.nodes {
                let Some(cluster) = member.cluster() else { continue };
                let blobs = cluster.meta().view().state.blobs();
                let value = blobs.get(&(*kind, key.clone())).map(|blob| &blob.value);
                let is = writes.values().find(|write| write.value.as_ref() == value);
                let is_of = |write: &&Write| write.done.is_some_and(|(_, of)| of.is_some() && of == member.belongs());
                let done_before = is.and_then(|write| write.done).map(|(at, _)| at);
                for write in writes.values().filter(is_of) {
                    obligations.count(Check::Written, 1);
                    let is_earlier = done_before.is_some_and(|at| at < write.asked);
                    if is.is_none() || is_earlier {
                        let what = format!("what was written to {key} is lost, or an earlier one has replaced it");
                        found.push((Check::Written, member.ix, what));
                        break;
                    }
                }
            }
        }
        found
    }
}

/// Has a node write something that all are to have; `number` tells it from all others. Nobody reads it.
pub(crate) fn write(key: u8, number: u64) -> ClusterCommand {
    let (key, value) = (format!("k{key}"), Some(number.to_string().into_bytes()));
    ClusterCommand::PutBlob { kind: BlobKind::Acl, key, value, expected: None }
}
