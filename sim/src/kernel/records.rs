//! What a node has stored of its cluster: records in order, of which a beginning is synced. A crash of the process leaves
//! what was written, a power loss what was synced and perhaps a part of the rest.

use newtmq_base::Instant;

use crate::draw::Stream;

/// A node's log of its cluster, on its disk.
#[derive(Debug, Default)]
pub(super) struct Records {
    kept: Vec<Record>,
    /// How many of them survive a power loss.
    synced: usize,
    /// How many of them the operating system has: the disk may be full.
    written: usize,
    /// A sync is over then, and how many records it is for.
    pub(super) due: Option<Instant>,
    syncing: usize,
    /// Somebody waits for a record that is not synced.
    wanted: bool,
}

#[derive(Debug, Clone)]
struct Record {
    /// Its number in the start of the node that made it.
    number: u64,
    bytes: Box<[u8]>,
    replaces: bool,
}

/// When something is to be synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// A sync goes on, or nothing is to be done.
    None,
    /// As soon as the disk can.
    Now,
    /// Some time: nobody waits.
    Later,
}

impl Records {
    /// Appends one.
    pub(super) fn add(&mut self, number: u64, bytes: Vec<u8>, sync: bool, replaces: bool, full: bool) {
        self.kept.push(Record { number, bytes: bytes.into(), replaces });
        if !full {
            self.written = self.kept.len();
        }
        self.wanted |= sync;
    }

    /// Whether a sync should begin.
    pub(super) fn wish(&self) -> Wish {
        match (self.due.is_some(), self.wanted, self.synced < self.kept.len()) {
            (false, true, true) => Wish::Now,
            (false, false, true) => Wish::Later,
            (true, ..) | (false, _, false) => Wish::None,
        }
    }

    /// A sync begins, of everything that is there; or it begins earlier than it was to.
    pub(super) fn begin(&mut self, over: Instant) {
        self.due = Some(over);
        self.syncing = self.kept.len();
        self.wanted = false;
    }

    /// The sync is over: up to which record everything is durable. None on a full disk: it is to be tried again.
    pub(super) fn end(&mut self, full: bool) -> Option<u64> {
        self.due = None;
        if full {
            self.wanted = true;
            return None;
        }
        let upto = self.kept[..self.syncing].last()?.number;
        self.written = self.written.max(self.syncing);
        self.synced = self.syncing;
        if let Some(first) = self.kept[..self.synced].iter().rposition(|record| record.replaces) {
            self.kept.drain(..first);
            self.synced -= first;
            self.written -= first;
        }
        Some(upto)
    }

    /// Whether somebody waits for what only a later sync is for, while an earlier one is waited for at leisure.
    pub(super) fn hurries(&self) -> bool {
        self.wanted
    }

    /// The node is gone. With the power, chance decides how much is there of what was not synced.
    pub(super) fn stop(&mut self, power: Option<&mut Stream>) {
        if let Some(chance) = power {
            self.written = chance.between(self.synced as u64, self.written as u64) as usize;
        }
        self.kept.truncate(self.written);
        (self.synced, self.due, self.wanted) = (self.kept.len(), None, false);
    }

    /// What a start finds, from the last record that replaces those before it.
    pub(super) fn load(&self) -> Vec<Box<[u8]>> {
        let first = self.kept.iter().rposition(|record| record.replaces).unwrap_or(0);
        self.kept[first..].iter().map(|record| record.bytes.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(records: &mut Records, number: u64, replaces: bool) {
        records.add(number, vec![number as u8], true, replaces, false);
    }

    fn loaded(records: &Records) -> Vec<u8> {
        records.load().iter().map(|record| record[0]).collect()
    }

    #[test]
    fn what_is_told_to_be_durable_is_there_after_a_power_loss() {
        for seed in 0..50 {
            let mut records = Records::default();
            assert_eq!(records.wish(), Wish::None);
            (1..=3).for_each(|number| add(&mut records, number, false));
            assert_eq!(records.wish(), Wish::Now);
            records.begin(Instant::from_millis(5));
            add(&mut records, 4, true);
            assert_eq!(records.wish(), Wish::None, "one after the other");
            assert_eq!(records.end(false), Some(3));
            assert_eq!(records.wish(), Wish::Now);
            records.stop(Some(&mut Stream::new(seed, 0, 0)));
            let found = loaded(&records);
            assert!(found == [1, 2, 3] || found == [4], "{found:?}");
        }
    }

    #[test]
    fn a_record_that_replaces_others_does_so_when_it_is_durable() {
        let mut records = Records::default();
        add(&mut records, 1, false);
        add(&mut records, 2, true);
        records.add(3, vec![3], false, false, false);
        assert_eq!(loaded(&records), [2, 3]);
        records.begin(Instant::from_millis(1));
        assert_eq!((records.end(false), records.kept.len()), (Some(3), 2));
        records.add(4, vec![4], false, false, false);
        assert_eq!(records.wish(), Wish::Later);
        records.stop(None);
        assert_eq!(loaded(&records), [2, 3, 4], "the operating system has it");
    }

    #[test]
    fn a_full_disk_has_nothing_and_tries_again() {
        let mut records = Records::default();
        records.add(1, vec![1], true, false, true);
        records.begin(Instant::from_millis(1));
        assert_eq!((records.end(true), records.wish()), (None, Wish::Now));
        records.stop(None);
        assert!(loaded(&records).is_empty());
    }
}
