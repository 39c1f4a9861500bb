//! A stand-in for the control planes of nodes: it copies what each node's shards change to the shards of all nodes that reach
//! it, and answers when they have installed it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use newtmq_base::ShardId;
use newtmq_cluster::owned::{Batch, Change, Class, Count, RouteChange};
use newtmq_node::{FromControl, ToControl};

use super::world::{Retain, Say, World, at, id};

/// What a node tells about its subscriptions: filter, class and shard, and how many.
pub(super) type Routes = BTreeMap<(String, Class, u16), u32>;

/// A SUBACK that waits: of a node's shard, for what batches of which shards.
pub(super) struct Barrier {
    pub(super) owner: (usize, usize),
    seq: u64,
    pub(super) waits: BTreeSet<(usize, u64, usize)>,
    complete: bool,
}

impl World {
    /// The stand-in for a node's control plane.
    pub(super) fn control(&mut self, node: usize, shard: usize, message: ToControl) {
        match message {
            ToControl::Routes { seq, changes } => self.on_routes(node, shard, seq, &changes),
            ToControl::Installed { seq, .. } => {
                for barrier in &mut self.barriers {
                    barrier.waits.retain(|(at, batch, of)| (*at, *of) != (node, shard) || *batch > seq);
                }
                self.end_barriers();
            }
            ToControl::Recovered => {
                self.nodes[node].recovered += 1;
                if self.nodes[node].recovered == self.nodes[node].shards.len() {
                    self.tell_all(node, &FromControl::Recovered);
                    self.open_directory(node);
                }
            }
            ToControl::Want(kind) => self.say(node, shard, Say::Control(FromControl::Granted(kind, 1000))),
            ToControl::Directory(input) => self.directory(node, *input),
            ToControl::Handover { to, message } => self.say_far(node, at(to), true, message.to_vec()),
            ToControl::Will(note) => self.wills.push((node, *note)),
            ToControl::Retain { number, topic, message } => {
                self.retains.push(Retain { by: (node, shard), number, topic, message });
            }
            ToControl::Drained => self.nodes[node].drained += 1,
            ToControl::Returned(..)
            | ToControl::Report(_)
            | ToControl::Lanes(_)
            | ToControl::Bring { .. }
            | ToControl::Gateway { .. } => {}
        }
    }

    fn on_routes(&mut self, node: usize, shard: usize, seq: u64, told: &[Change]) {
        self.nodes[node].told += 1;
        let mut routes = Vec::new();
        for change in told {
            let key = (change.filter.as_str().to_owned(), change.class, shard as u16);
            let count = self.nodes[node].routes.entry(key.clone()).or_default();
            match change.count {
                Count::Plus => *count += 1,
                Count::Minus => *count -= 1,
                Count::Is(new) => *count = new,
            }
            let one = BTreeMap::from([(key.clone(), *count)]);
            if *count == 0 {
                self.nodes[node].routes.remove(&key);
            }
            routes.extend(changes(&one, |_| true));
        }
        let mut barrier = Barrier { owner: (node, shard), seq, waits: BTreeSet::new(), complete: !self.barriers_fail };
        for observer in 0..self.nodes.len() {
            let sees = observer == node || self.links.get(&(node, observer)).is_some_and(|link| link.up);
            if !sees || self.down.contains(&(observer, node)) || !self.nodes[observer].alive {
                continue;
            }
            if !self.barriers_fail || observer == node {
                self.tell_routes(observer, node, routes.clone(), Some(&mut barrier));
            }
        }
        self.barriers.push(barrier);
        self.end_barriers();
    }

    /// The changes of an owner's routes reach the shards of an observer.
    pub(super) fn tell_routes(
        &mut self,
        observer: usize,
        owner: usize,
        routes: Vec<RouteChange>,
        barrier: Option<&mut Barrier>,
    ) {
        if !self.nodes[observer].alive {
            return;
        }
        self.nodes[observer].next_batch += 1;
        let seq = self.nodes[observer].next_batch;
        let batch = Arc::new(Batch { seq, node: id(owner), routes, records: Vec::new() });
        if let Some(barrier) = barrier {
            barrier.waits.extend((0..self.nodes[observer].shards.len()).map(|shard| (observer, seq, shard)));
        }
        self.tell_all(observer, &FromControl::Routes(batch));
    }

    pub(super) fn end_barriers(&mut self) {
        let mut at = 0;
        while at < self.barriers.len() {
            let owner = self.barriers[at].owner;
            // In order for each shard.
            let first = self.barriers[..at].iter().all(|earlier| earlier.owner != owner);
            if !first || !self.barriers[at].waits.is_empty() {
                at += 1;
                continue;
            }
            let Barrier { owner: (node, shard), seq, complete, .. } = self.barriers.remove(at);
            let none = vec![0; usize::from(self.shards)].into_boxed_slice();
            let retained = vec![none; usize::from(self.shards)].into();
            let index = self.acknowledged;
            self.say(node, shard, Say::Control(FromControl::Committed { seq, complete, retained, index }));
        }
    }
}

pub(super) fn changes(routes: &Routes, of: impl Fn(Class) -> bool) -> Vec<RouteChange> {
    let of_class = routes.iter().filter(|((_, class, _), _)| of(*class));
    of_class
        .map(|((filter, class, shard), count)| {
            let filter = newtmq_mqtt::TopicFilter::new(filter).unwrap();
            let shared = filter.share_group().is_some();
            let members = if shared { *count } else { (*count).min(1) };
            RouteChange { filter: filter.into(), class: *class, shard: ShardId(*shard), members }
        })
        .collect()
}
