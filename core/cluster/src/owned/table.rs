//! The state of a log: all its entries, in an order that every node knows, and their digest.
//!
//! Entries are ordered by a keyed hash, so that a part of the state is named by two positions, whoever has it and whatever
//! else changes. A tree of them never has to be copied as a whole, as a hash table would when it grows.

use std::collections::BTreeMap;

use newtmq_base::ShardId;
use newtmq_mqtt::OwnedTopicFilter;

use super::entry::{Class, Op, RecordKind, is_shared};
use super::hash::DigestKey;

/// A position in the order of entries: routes first, then records, each by their hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    pub(crate) part: u8,
    pub(crate) hash: u64,
}

impl Cursor {
    /// Before all entries.
    pub const START: Cursor = Cursor { part: ROUTES, hash: 0 };
    /// Behind all entries.
    pub const END: Cursor = Cursor { part: 2, hash: 0 };
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RouteKey {
    hash: u64,
    text: OwnedTopicFilter,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct RecordKey {
    hash: u64,
    kind: RecordKind,
    key: Box<[u8]>,
}

/// The subscriptions of a filter that one shard has in one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) class: Class,
    pub(crate) shard: ShardId,
    pub(crate) count: u32,
}

/// The subscriptions of a filter. Most have those of one shard only.
#[derive(Debug, Clone)]
enum Slots {
    One(Slot),
    Many(Box<[Slot]>),
}

const _: () = assert!(size_of::<(RouteKey, Slots)>() == 40, "what a route costs beside its text");

impl Slots {
    fn as_slice(&self) -> &[Slot] {
        match self {
            Slots::One(slot) => core::slice::from_ref(slot),
            Slots::Many(slots) => slots,
        }
    }

    fn count(&self, class: Class, shard: ShardId) -> u32 {
        let found = self.as_slice().iter().find(|slot| (slot.class, slot.shard) == (class, shard));
        found.map_or(0, |slot| slot.count)
    }

    /// With this one instead of what it had of the same shard and class; none if nothing is left.
    fn with(&self, new: Slot) -> Option<Slots> {
        let same = |slot: &&Slot| (slot.class, slot.shard) != (new.class, new.shard);
        let mut slots: Vec<Slot> = self.as_slice().iter().filter(same).copied().collect();
        if new.count > 0 {
            slots.push(new);
            slots.sort_unstable_by_key(|slot| (slot.class, slot.shard));
        }
        match slots[..] {
            [] => None,
            [slot] => Some(Slots::One(slot)),
            [..] => Some(Slots::Many(slots.into())),
        }
    }
}

/// All entries of a log.
#[derive(Debug)]
pub(crate) struct Table {
    key: DigestKey,
    routes: BTreeMap<RouteKey, Slots>,
    records: BTreeMap<RecordKey, Box<[u8]>>,
    digest: u64,
}

impl Table {
    pub(crate) fn new(key: DigestKey) -> Table {
        Table { key, routes: BTreeMap::new(), records: BTreeMap::new(), digest: 0 }
    }

    /// The sum of a hash of each entry: the order of changes does not matter.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// Filters and records.
    pub(crate) fn len(&self) -> usize {
        self.routes.len() + self.records.len()
    }

    /// Where the entry is that an operation sets.
    pub(crate) fn position(&self, op: &Op) -> Cursor {
        match op {
            Op::Route { filter, .. } => Cursor { part: ROUTES, hash: self.route_hash(filter) },
            Op::Record { kind, key, .. } => Cursor { part: RECORDS, hash: self.record_hash(*kind, key) },
        }
    }

    fn route_hash(&self, filter: &OwnedTopicFilter) -> u64 {
        self.key.hash(0, filter.as_str().as_bytes())
    }

    fn record_hash(&self, kind: RecordKind, key: &[u8]) -> u64 {
        self.key.hash(1 + u8::from(kind == RecordKind::Supersedes), key)
    }

    /// How many subscriptions of a filter a shard has.
    pub(crate) fn count(&self, filter: &OwnedTopicFilter, class: Class, shard: ShardId) -> u32 {
        let key = RouteKey { hash: self.route_hash(filter), text: filter.clone() };
        self.routes.get(&key).map_or(0, |slots| slots.count(class, shard))
    }

    /// Sets how many subscriptions of a filter a shard has; says how many there were.
    pub(crate) fn set_count(&mut self, filter: &OwnedTopicFilter, new: Slot) -> u32 {
        let key = RouteKey { hash: self.route_hash(filter), text: filter.clone() };
        let hash = key.hash;
        let old = match self.routes.get_mut(&key) {
            None if new.count == 0 => return 0,
            None => {
                self.routes.insert(key, Slots::One(new));
                0
            }
            Some(slots) => {
                let old = slots.count(new.class, new.shard);
                match slots.with(new) {
                    Some(changed) => *slots = changed,
                    None => _ = self.routes.remove(&key),
                }
                old
            }
        };
        let shared = is_shared(filter);
        self.digest = self.digest.wrapping_sub(self.slot_digest(hash, Slot { count: published(shared, old), ..new }));
        let new = Slot { count: published(shared, new.count), ..new };
        self.digest = self.digest.wrapping_add(self.slot_digest(hash, new));
        old
    }

    fn slot_digest(&self, hash: u64, slot: Slot) -> u64 {
        if slot.count == 0 {
            return 0;
        }
        let durable = u64::from(slot.class == Class::Durable);
        self.key.mix([hash, durable << 16 | u64::from(slot.shard.0), u64::from(slot.count)])
    }

    /// Sets or removes a record; says whether that changed anything.
    pub(crate) fn set_record(&mut self, kind: RecordKind, key: &[u8], value: Option<&[u8]>) -> bool {
        let key = RecordKey { hash: self.record_hash(kind, key), kind, key: key.into() };
        if self.records.get(&key).map(|old| &**old) == value {
            return false;
        }
        let (digest_key, hash) = (self.key, key.hash);
        let digest = |value: &[u8]| digest_key.mix([hash, u64::MAX, digest_key.hash(3, value)]);
        let old = match value {
            Some(value) => {
                self.digest = self.digest.wrapping_add(digest(value));
                self.records.insert(key, value.into())
            }
            None => self.records.remove(&key),
        };
        if let Some(old) = old {
            self.digest = self.digest.wrapping_sub(digest(&old));
        }
        true
    }

    /// The entries from a position on, as the operations that set them. Those of one filter follow each other.
    pub(crate) fn walk(&self, from: Cursor) -> impl Iterator<Item = (Cursor, Op)> {
        let first = if from.part > ROUTES { None } else { Some(from.hash) };
        let routes = first.into_iter().flat_map(|hash| self.routes.range(bound(hash)..));
        let routes = routes.flat_map(|(key, slots)| {
            let (shared, position) = (is_shared(&key.text), Cursor { part: ROUTES, hash: key.hash });
            slots.as_slice().iter().map(move |slot| (position, slot_op(&key.text, *slot, shared)))
        });
        let first = match from.part {
            ROUTES => Some(0),
            RECORDS => Some(from.hash),
            _ => None,
        };
        let lowest = |hash| RecordKey { hash, kind: RecordKind::Home, key: Box::default() };
        let records = first.into_iter().flat_map(move |hash| self.records.range(lowest(hash)..));
        let records = records.map(|(key, value)| {
            let op = Op::Record { kind: key.kind, key: key.key.clone(), value: Some(value.clone()) };
            (Cursor { part: RECORDS, hash: key.hash }, op)
        });
        routes.chain(records)
    }

    /// The entries from a position on that fit in `limit` bytes, at least those of one position, and the position behind.
    pub(crate) fn part(&self, from: Cursor, limit: usize, wanted: impl Fn(&Op) -> bool) -> (Vec<Op>, Cursor) {
        let (mut ops, mut bytes, mut last) = (Vec::new(), 0, None);
        for (position, op) in self.walk(from) {
            if bytes >= limit && last.is_some_and(|last| last != position) {
                return (ops, position);
            }
            bytes += super::entry::cost(&op);
            last = Some(position);
            if wanted(&op) {
                ops.push(op);
            }
        }
        (ops, Cursor::END)
    }
}

/// What others are told of a number of subscriptions.
pub(crate) fn published(shared: bool, count: u32) -> u32 {
    if shared { count } else { count.min(1) }
}

fn slot_op(filter: &OwnedTopicFilter, slot: Slot, shared: bool) -> Op {
    let members = published(shared, slot.count);
    Op::Route { filter: filter.clone(), class: slot.class, shard: slot.shard, members }
}

/// No key of this hash is lower: a filter cannot be empty or hold U+0000.
fn bound(hash: u64) -> RouteKey {
    let lowest = newtmq_mqtt::TopicFilter::new("\u{1}").expect("one character is a filter");
    RouteKey { hash, text: lowest.into() }
}

pub(crate) const ROUTES: u8 = 0;
pub(crate) const RECORDS: u8 = 1;

#[cfg(test)]
mod tests {
    use super::{Cursor, Slot, Table};
    use crate::owned::entry::{Class, Op, RecordKind};
    use crate::owned::hash::DigestKey;
    use newtmq_base::{Rng, ShardId};
    use newtmq_mqtt::{OwnedTopicFilter, TopicFilter};

    fn filter(text: &str) -> OwnedTopicFilter {
        TopicFilter::new(text).unwrap().into()
    }

    #[test]
    fn the_digest_is_of_the_state_alone() {
        let mut rng = Rng::from_number(1);
        let mut tables = [Table::new(DigestKey([1, 2])), Table::new(DigestKey([1, 2]))];
        let mut wanted = std::collections::BTreeMap::new();
        for _ in 0..2000 {
            let text = ["a", "b/+", "#", "$share/g/a", "$share/h/a"][rng.below(5) as usize];
            let class = [Class::Transient, Class::Durable][rng.below(2) as usize];
            let shard = ShardId(rng.below(3) as u16);
            let count = rng.below(3) as u32;
            tables[0].set_count(&filter(text), Slot { class, shard, count });
            wanted.insert((text, class, shard), count);
            let (key, value) = ([rng.below(3) as u8], [rng.below(2) as u8]);
            let value = (rng.below(2) > 0).then_some(&value[..]);
            tables[0].set_record(RecordKind::Home, &key, value);
            tables[1].set_record(RecordKind::Home, &key, value);
        }
        for ((text, class, shard), count) in wanted.into_iter().rev() {
            // Others are told whether there is one, and of shared ones how many.
            let count = if text.starts_with("$share") { count } else { count.min(1) };
            tables[1].set_count(&filter(text), Slot { class, shard, count });
        }
        assert_eq!(tables[0].digest(), tables[1].digest());
        let [one, two] = tables.each_ref().map(|table| table.walk(Cursor::START).collect::<Vec<_>>());
        assert_eq!(one, two);
        assert!(one.is_sorted_by_key(|(position, _)| *position));
        for (position, op) in one {
            assert_eq!(tables[0].position(&op), position);
            match op {
                Op::Route { filter, class, shard, .. } => {
                    _ = tables[0].set_count(&filter, Slot { class, shard, count: 0 })
                }
                Op::Record { kind, key, .. } => assert!(tables[0].set_record(kind, &key, None)),
            }
        }
        assert_eq!((tables[0].digest(), tables[0].len()), (0, 0), "nothing has no digest");
    }

    #[test]
    fn parts_make_up_the_whole() {
        let mut table = Table::new(DigestKey([3, 4]));
        for i in 0..100u16 {
            let slot = Slot { class: Class::Durable, shard: ShardId(i % 3), count: 1 };
            table.set_count(&filter(&format!("a/{}", i / 2)), slot);
            table.set_record(RecordKind::Supersedes, &i.to_be_bytes(), Some(b"x"));
        }
        let whole: Vec<Op> = table.walk(Cursor::START).map(|(_, op)| op).collect();
        assert_eq!(whole.len(), 200);
        for limit in [0, 1, 50, 10_000] {
            let (mut ops, mut from) = (Vec::new(), Cursor::START);
            while from != Cursor::END {
                let (part, to) = table.part(from, limit, |_| true);
                assert!(to > from && !part.is_empty());
                ops.extend(part);
                from = to;
            }
            assert_eq!(ops, whole, "{limit}");
        }
    }
}
