//! What a node keeps of its cluster: what the meta group has promised, and the durable routes and records of the members.
//! Records are appended; one that stands for all before it is written when they have become many times as long.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use newtmq_base::{InvalidField, NodeId, Put, Take, planted};
use newtmq_cluster::directory::Client;
use newtmq_cluster::lane::Epoch;
use newtmq_cluster::meta::{ClusterId, Persist, Stored};
use newtmq_cluster::owned::{Batch, Op, Owned, RecordKind};
use newtmq_cluster::retained;

use super::ClusterOutput;
use super::claims::{take_epoch, take_void};
use super::shelf::Seat;

/// Durable entries of members, as operations in order, and whether they are all that the member had at some time. A part
/// of a table says of nobody whom a message should reach.
type Tables = BTreeMap<NodeId, (bool, Vec<Op>)>;

/// Durable entries of members of whom there is a whole table.
pub(super) type Durables = BTreeMap<NodeId, Vec<Op>>;

/// What is stored of the group of retained messages: which one it is, and as whom this node is in it.
pub(super) type Shelved = (Option<Seat>, retained::Stored);

/// What a record waits to confirm.
#[derive(Debug, Clone, Copy)]
enum Confirms {
    Meta(u64),
    Batch(u64),
    /// Of the part of so many that there were.
    Retained(u64, u64),
    Nothing,
}

/// What has become durable.
#[derive(Debug, Default)]
pub(super) struct Durable {
    pub(super) meta: Option<u64>,
    pub(super) batch: Option<u64>,
    pub(super) retained: Option<(u64, u64)>,
}

#[derive(Debug)]
pub(super) struct Disk {
    node: NodeId,
    /// What this node's log says of sessions that do not count.
    voids: Voids,
    /// Whether tables are kept.
    stores: bool,
    numbers: u64,
    /// What the meta group has on the disk, when all that is on its way is there.
    meta: Stored,
    waiting: VecDeque<(u64, Confirms)>,
    /// The batches up to here came from the disk.
    restored: u64,
    /// Of whom there was a whole table.
    held: BTreeSet<NodeId>,
    /// Of whom there is a part of one.
    stale: Vec<NodeId>,
    /// Bytes of the last record that stands for all, and of those since.
    whole: usize,
    since: usize,
}

impl Disk {
    /// What a start finds.
    pub(super) fn read(
        node: NodeId,
        stores: bool,
        records: &[Box<[u8]>],
    ) -> Result<(Disk, Durables, Shelved), InvalidField> {
        let (mut meta, mut tables, mut shelved) = (Stored::default(), Tables::new(), Shelved::default());
        for record in records {
            read_record(record, &mut meta, &mut tables, &mut shelved)?;
        }
        let since = records.iter().map(|record| record.len()).sum();
        let own = tables.remove(&node).map(|(_, ops)| ops).unwrap_or_default();
        let mut voids = Voids::new();
        own.into_iter().for_each(|op| note_void(&mut voids, &op));
        let stale = tables.iter().filter(|(_, (is_held, _))| !is_held || !stores).map(|(node, _)| *node).collect();
        tables.retain(|_, (is_held, _)| *is_held && stores);
        let held = tables.keys().copied().collect();
        let disk = Disk {
            node,
            voids,
            stores,
            numbers: 0,
            meta,
            waiting: VecDeque::new(),
            restored: 0,
            held,
            stale,
            whole: 0,
            since,
        };
        Ok((disk, tables.into_iter().map(|(node, (_, ops))| (node, ops)).collect(), shelved))
    }

    /// What this node has said of sessions elsewhere that do not count: by whom, whose, where, and up to which epoch.
    pub(super) fn voids(&self) -> Vec<(NodeId, Client, NodeId, Epoch)> {
        let mut voids = Vec::new();
        for (key, value) in &self.voids {
            if let (Ok((client, home)), Ok(epoch)) = (take_void(key), take_epoch(value)) {
                voids.push((self.node, client, home, epoch));
            }
        }
        voids
    }

    /// Of whom there is a part of a table, with which nothing can begin.
    pub(super) fn stale(&mut self) -> Vec<NodeId> {
        core::mem::take(&mut self.stale)
    }

    /// Whether there is a whole table of a member on the disk.
    pub(super) fn has_held(&self, node: NodeId) -> bool {
        self.held.contains(&node)
    }

    pub(super) fn meta(&self) -> &Stored {
        &self.meta
    }

    /// The batches up to here came from the disk.
    pub(super) fn restored(&mut self, upto: u64) {
        self.restored = upto;
    }

    /// Something of the meta group.
    pub(super) fn persist(&mut self, persist: &Persist) -> ClusterOutput {
        self.meta.apply(persist);
        let mut record = vec![META];
        persist.encode(&mut record);
        self.append(record, persist.sync, Confirms::Meta(persist.number))
    }

    /// Something of the group of retained messages.
    pub(super) fn retained(&mut self, seat: Seat, turn: u64, persist: &retained::Persist) -> ClusterOutput {
        let mut record = Vec::new();
        put_retained(seat, persist, &mut record);
        self.append(record, persist.sync, Confirms::Retained(turn, persist.number))
    }

    /// Changes of a node's routes: what is to be stored of them, and the batch up to which nothing is waited for.
    pub(super) fn batch(&mut self, batch: &Batch, is_member: bool) -> (Option<ClusterOutput>, Option<u64>) {
        if batch.node == self.node {
            // The rest of the own log is told again by the shards.
            let is_void = |op: &&Op| matches!(op, Op::Record { kind: RecordKind::Supersedes, .. });
            let ops: Vec<Op> = batch.records.iter().filter(is_void).cloned().collect();
            ops.iter().for_each(|op| note_void(&mut self.voids, op));
            if self.stores && !ops.is_empty() {
                let mut record = Vec::new();
                put_table(batch.node, true, &ops, &mut record);
                return (Some(self.append(record, true, Confirms::Batch(batch.seq))), None);
            }
        }
        let routes = batch.routes.iter().map(|change| Op::Route {
            filter: change.filter.clone(),
            class: change.class,
            shard: change.shard,
            members: change.members,
        });
        let ops: Vec<Op> = routes.chain(batch.records.iter().cloned()).filter(Op::is_durable).collect();
        if is_member && batch.seq > self.restored && !ops.is_empty() {
            let mut record = Vec::new();
            put_table(batch.node, false, &ops, &mut record);
            let at_once = planted!(InstalledBeforeDisk).then_some(batch.seq);
            return (Some(self.append(record, true, Confirms::Batch(batch.seq))), at_once);
        }
        // It follows on those before it.
        let before = self.waiting.iter_mut().rev().find_map(|(_, confirms)| match confirms {
            Confirms::Batch(seq) => Some(seq),
            Confirms::Meta(_) | Confirms::Retained(..) | Confirms::Nothing => None,
        });
        match before {
            Some(seq) => *seq = batch.seq,
            None => return (None, Some(batch.seq)),
        }
        (None, None)
    }

    /// There is a whole table of a member from now on.
    pub(super) fn held(&mut self, node: NodeId) -> Option<ClusterOutput> {
        self.held.insert(node);
        let mut record = Vec::new();
        put_table(node, true, &[], &mut record);
        self.stores.then(|| self.append(record, false, Confirms::Nothing))
    }

    /// A node is no member any more.
    pub(super) fn forget(&mut self, node: NodeId) -> Option<ClusterOutput> {
        self.held.remove(&node);
        let mut record = vec![FORGET];
        Put(&mut record).number(node.0);
        self.stores.then(|| self.append(record, false, Confirms::Nothing))
    }

    /// The records up to this one are durable.
    pub(super) fn stored(&mut self, upto: u64) -> Durable {
        let mut durable = Durable::default();
        while let Some((_, confirms)) = self.waiting.pop_front_if(|(number, _)| *number <= upto) {
            match confirms {
                Confirms::Meta(number) => durable.meta = Some(number),
                Confirms::Nothing => {}
                Confirms::Batch(seq) => durable.batch = Some(seq),
                Confirms::Retained(turn, number) => durable.retained = Some((turn, number)),
            }
        }
        durable
    }

    /// Whether one record is better than those there are.
    pub(super) fn is_long(&self) -> bool {
        self.since > FREE_BYTES + self.whole * GROWS
    }

    /// The record that stands for all.
    pub(super) fn whole(&mut self, owned: &Owned, shelved: Option<(Seat, retained::Persist)>) -> ClusterOutput {
        let mut record = vec![WHOLE];
        let mut meta = Vec::new();
        self.meta.whole().encode(&mut meta);
        Put(&mut record).bytes(&meta);
        if self.stores {
            let own = self.voids.iter().map(|(key, value)| Op::Record {
                kind: RecordKind::Supersedes,
                key: key.clone(),
                value: Some(value.clone()),
            });
            put_table(self.node, true, &own.collect::<Vec<Op>>(), &mut record);
            for replica in owned.replicas() {
                let is_held = self.has_held(replica.owner());
                let ops: Vec<Op> = replica.entries().filter(Op::is_durable).collect();
                put_table(replica.owner(), is_held, &ops, &mut record);
            }
        }
        if let Some((seat, persist)) = shelved {
            put_retained(seat, &persist, &mut record);
        }
        (self.whole, self.since) = (record.len(), 0);
        self.numbers += 1;
        self.waiting.push_back((self.numbers, Confirms::Nothing));
        ClusterOutput::Store { number: self.numbers, record, sync: false, replaces: true }
    }

    fn append(&mut self, record: Vec<u8>, sync: bool, confirms: Confirms) -> ClusterOutput {
        self.numbers += 1;
        self.since += record.len();
        self.waiting.push_back((self.numbers, confirms));
        ClusterOutput::Store { number: self.numbers, record, sync, replaces: false }
    }
}

/// Records of sessions that do not count, as the own log has them.
type Voids = BTreeMap<Box<[u8]>, Box<[u8]>>;

fn note_void(voids: &mut Voids, op: &Op) {
    match op {
        Op::Record { kind: RecordKind::Supersedes, key, value: Some(value) } => {
            voids.insert(key.clone(), value.clone());
        }
        Op::Record { kind: RecordKind::Supersedes, key, value: None } => _ = voids.remove(key),
        Op::Record { kind: RecordKind::Home, .. } | Op::Route { .. } => {}
    }
}

fn put_table(node: NodeId, is_held: bool, ops: &[Op], record: &mut Vec<u8>) {
    Put(record).byte(TABLE).number(node.0).flag(is_held);
    Op::write(ops, record);
}

fn put_retained(seat: Seat, persist: &retained::Persist, record: &mut Vec<u8>) {
    let mut bytes = Vec::new();
    persist.encode(&mut bytes);
    Put(record).byte(RETAINED).number(seat.cluster.0).number(seat.generation).number(seat.joined).bytes(&bytes);
}

fn take_retained(take: &mut Take<'_>, (known, stored): &mut Shelved) -> Result<(), InvalidField> {
    let (cluster, generation, joined) = (ClusterId(take.number()?), take.number()?, take.number()?);
    let seat = Seat { cluster, generation, joined };
    // Of another group, or of the same one as somebody else there.
    if known.replace(seat) != Some(seat) {
        *stored = retained::Stored::default();
    }
    stored.apply(retained::Persist::decode(take.bytes()?)?);
    Ok(())
}

fn read_record(
    record: &[u8],
    meta: &mut Stored,
    tables: &mut Tables,
    shelved: &mut Shelved,
) -> Result<(), InvalidField> {
    let mut take = Take(record);
    match record.first() {
        Some(&META) => {
            meta.apply(&Persist::decode(&record[1..])?);
            return Ok(());
        }
        Some(&WHOLE) => {
            take.byte()?;
            (*meta, *tables, *shelved) = (Stored::default(), Tables::new(), Shelved::default());
            meta.apply(&Persist::decode(take.bytes()?)?);
        }
        Some(_) | None => {}
    }
    while !take.0.is_empty() {
        match take.byte()? {
            TABLE => {
                let (node, is_held) = (NodeId(take.number()?), take.flag()?);
                let (held, ops) = tables.entry(node).or_default();
                *held |= is_held;
                ops.extend(Op::read(&mut take)?);
            }
            RETAINED => take_retained(&mut take, shelved)?,
            FORGET => _ = tables.remove(&NodeId(take.number()?)),
            _ => return Err(InvalidField("no record of the cluster")),
        }
    }
    Ok(())
}

/// So many bytes of records may be there beside the one that stands for all...
const FREE_BYTES: usize = 256 << 10;
/// ...and so many times as many as it has.
const GROWS: usize = 3;

const META: u8 = 0;
const TABLE: u8 = 1;
const FORGET: u8 = 2;
const WHOLE: u8 = 3;
const RETAINED: u8 = 4;
