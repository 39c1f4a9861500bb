//! Hash maps for look-ups only. They cannot be iterated, so the order of a hash never decides anything and a run is
//! the same for the same seed.

use core::borrow::Borrow;
use core::fmt;
use core::hash::{BuildHasher, Hash};

use foldhash::fast::FixedState;
use hashbrown::HashTable;

/// Seeds the hash functions of a shard, so that a client cannot choose keys that collide.
#[derive(Clone, Copy)]
pub struct HashSeed(u64);

impl HashSeed {
    /// A seed drawn by the owner from its [`crate::Rng`].
    #[must_use]
    pub fn new(seed: u64) -> HashSeed {
        HashSeed(seed)
    }

    /// The seeded hash function.
    #[must_use]
    pub fn state(self) -> FixedState {
        FixedState::with_seed(self.0)
    }
}

impl fmt::Debug for HashSeed {
    /// Does not show the seed: whoever knows it can make keys that collide.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashSeed(..)")
    }
}

/// A hash map with get, insert and remove, and without iteration.
#[derive(Clone)]
pub struct LookupMap<K, V> {
    table: HashTable<(K, V)>,
    state: FixedState,
}

impl<K: Eq + Hash, V> LookupMap<K, V> {
    /// An empty map that allocates nothing.
    #[must_use]
    pub fn new(seed: HashSeed) -> Self {
        LookupMap { table: HashTable::new(), state: seed.state() }
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The value of `key`.
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.table.find(self.state.hash_one(key), |(k, _)| k.borrow() == key).map(|(_, v)| v)
    }

    /// The value of `key`, to change.
    pub fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.table.find_mut(self.state.hash_one(key), |(k, _)| k.borrow() == key).map(|(_, v)| v)
    }

    /// Sets the value of `key`; returns the one it had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        if let Some(old) = self.get_mut(&key) {
            return Some(core::mem::replace(old, value));
        }
        let state = self.state.clone();
        self.table.insert_unique(state.hash_one(&key), (key, value), |(k, _)| state.hash_one(k));
        None
    }

    /// Removes `key` and returns its value.
    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let entry = self.table.find_entry(self.state.hash_one(key), |(k, _)| k.borrow() == key).ok()?;
        Some(entry.remove().0.1)
    }
}

impl<K, V> fmt::Debug for LookupMap<K, V> {
    /// Shows the size only: showing entries would show them in hash order.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LookupMap({} entries)", self.table.len())
    }
}

/// An index of `u32` slots by a key that lives in the slots themselves (a slab of sessions by client identifier,
/// say): 5 bytes an entry, and no second copy of the key.
#[derive(Clone)]
pub struct LookupTable {
    table: HashTable<u32>,
    state: FixedState,
}

impl LookupTable {
    /// An empty table that allocates nothing.
    #[must_use]
    pub fn new(seed: HashSeed) -> Self {
        LookupTable { table: HashTable::new(), state: seed.state() }
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The slot whose key equals `key`; `key_of` reads the key of a slot.
    pub fn find<'k, Q: Hash + Eq + ?Sized + 'k>(&self, key: &Q, key_of: impl Fn(u32) -> &'k Q) -> Option<u32> {
        self.table.find(self.state.hash_one(key), |slot| key_of(*slot) == key).copied()
    }

    /// As [`LookupTable::find`], for a key of several parts that `key_of` puts together from a slot.
    pub fn find_by<Q: Hash + Eq>(&self, key: Q, key_of: impl Fn(u32) -> Q) -> Option<u32> {
        self.table.find(self.state.hash_one(&key), |slot| key_of(*slot) == key).copied()
    }

    /// Adds a slot under a key of several parts. The caller knows that no slot with this key is present.
    pub fn insert_unique_by<Q: Hash>(&mut self, key: Q, slot: u32, key_of: impl Fn(u32) -> Q) {
        let state = self.state.clone();
        self.table.insert_unique(state.hash_one(&key), slot, |other| state.hash_one(key_of(*other)));
    }

    /// Adds a slot. The caller knows that no slot with this key is present.
    pub fn insert_unique<'k, Q: Hash + ?Sized + 'k>(&mut self, key: &Q, slot: u32, key_of: impl Fn(u32) -> &'k Q) {
        let state = self.state.clone();
        self.table.insert_unique(state.hash_one(key), slot, |other| state.hash_one(key_of(*other)));
    }

    /// Removes the entry of exactly this slot; `key` is its key. Says whether it was there.
    pub fn remove<Q: Hash + ?Sized>(&mut self, key: &Q, slot: u32) -> bool {
        match self.table.find_entry(self.state.hash_one(key), |other| *other == slot) {
            Ok(entry) => {
                entry.remove();
                true
            }
            Err(_) => false,
        }
    }
}

impl fmt::Debug for LookupTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LookupTable({} entries)", self.table.len())
    }
}
