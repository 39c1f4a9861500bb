//! Which connections have something to do.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

/// A list of woken slots. Wakers of connections push to it; the driver takes it once a round.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReadyList {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    list: Mutex<List>,
}

#[derive(Debug, Default)]
struct List {
    slots: Vec<u32>,
    parent: Option<Waker>,
}

/// 32 bytes for each connection, with the counts of `Arc`. A slot may be on the list twice: the second look finds
/// nothing to read, without a system call.
#[derive(Debug)]
struct ConnWaker {
    shared: Arc<Shared>,
    slot: u32,
}

impl Wake for ConnWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.shared.push(self.slot);
    }
}

impl Shared {
    fn push(&self, slot: u32) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let first = list.slots.is_empty();
        list.slots.push(slot);
        if first && let Some(parent) = &list.parent {
            parent.wake_by_ref();
        }
    }
}

impl ReadyList {
    /// A waker that puts this slot on the list.
    pub(crate) fn waker(&self, slot: u32) -> Waker {
        Waker::from(Arc::new(ConnWaker { shared: Arc::clone(&self.shared), slot }))
    }

    /// Puts a slot on the list.
    pub(crate) fn push(&self, slot: u32) {
        self.shared.push(slot);
    }

    /// Wakes the driver without a slot.
    pub(crate) fn wake(&self) {
        let list = self.shared.list.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(parent) = &list.parent {
            parent.wake_by_ref();
        }
    }

    /// Who is woken when the list is no longer empty.
    pub(crate) fn set_parent(&self, waker: &Waker) {
        let mut list = self.shared.list.lock().unwrap_or_else(PoisonError::into_inner);
        if !list.parent.as_ref().is_some_and(|parent| parent.will_wake(waker)) {
            list.parent = Some(waker.clone());
        }
    }

    /// Moves the list to the end of `slots`.
    pub(crate) fn take(&self, slots: &mut Vec<u32>) {
        let mut list = self.shared.list.lock().unwrap_or_else(PoisonError::into_inner);
        slots.append(&mut list.slots);
    }
}
