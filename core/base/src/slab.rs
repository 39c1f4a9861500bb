//! A vector with holes that are used again: stable `u32` keys, iteration in key order.

/// Values under stable `u32` keys. A removed key is given out again, last removed first.
#[derive(Debug, Clone)]
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    next_free: u32,
    len: u32,
}

#[derive(Debug, Clone)]
enum Slot<T> {
    Taken(T),
    Free { next: u32 },
}

/// The end of the list of free slots.
const NO_SLOT: u32 = u32::MAX;

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { slots: Vec::new(), next_free: NO_SLOT, len: 0 }
    }
}

impl<T> Slab<T> {
    /// Number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a value and returns its key.
    ///
    /// # Panics
    /// At 2^32 - 1 values, which no limit of the broker allows.
    pub fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        if self.next_free == NO_SLOT {
            let key = u32::try_from(self.slots.len()).expect("limits keep slabs below 2^32 values");
            assert!(key != NO_SLOT, "slab is full");
            self.slots.push(Slot::Taken(value));
            return key;
        }
        let key = self.next_free;
        let slot = &mut self.slots[key as usize];
        match core::mem::replace(slot, Slot::Taken(value)) {
            Slot::Free { next } => self.next_free = next,
            Slot::Taken(_) => unreachable!("the free list holds free slots only"),
        }
        key
    }

    /// The value under `key`.
    #[must_use]
    #[inline]
    pub fn get(&self, key: u32) -> Option<&T> {
        match self.slots.get(key as usize) {
            Some(Slot::Taken(value)) => Some(value),
            Some(Slot::Free { .. }) | None => None,
        }
    }

    /// The value under `key`, to change.
    #[inline]
    pub fn get_mut(&mut self, key: u32) -> Option<&mut T> {
        match self.slots.get_mut(key as usize) {
            Some(Slot::Taken(value)) => Some(value),
            Some(Slot::Free { .. }) | None => None,
        }
    }

    /// Removes the value under `key`.
    pub fn remove(&mut self, key: u32) -> Option<T> {
        let slot = self.slots.get_mut(key as usize)?;
        if matches!(slot, Slot::Free { .. }) {
            return None;
        }
        let freed = core::mem::replace(slot, Slot::Free { next: self.next_free });
        self.next_free = key;
        self.len -= 1;
        match freed {
            Slot::Taken(value) => Some(value),
            Slot::Free { .. } => unreachable!("looked at above"),
        }
    }

    /// Every key is below this one.
    #[must_use]
    pub fn key_end(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Keys and values in key order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.slots.iter().enumerate().filter_map(|(key, slot)| match slot {
            Slot::Taken(value) => Some((key as u32, value)),
            Slot::Free { .. } => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Slab;

    #[test]
    fn keys_are_stable_and_used_again() {
        let mut slab = Slab::default();
        let (a, b) = (slab.insert('a'), slab.insert('b'));
        assert_eq!(slab.remove(a), Some('a'));
        assert_eq!(slab.remove(a), None);
        assert_eq!((slab.get(a), slab.get(b)), (None, Some(&'b')));
        let c = slab.insert('c');
        assert_eq!(c, a);
        assert_eq!(slab.iter().collect::<Vec<_>>(), [(c, &'c'), (b, &'b')]);
        assert_eq!(slab.len(), 2);
    }
}
