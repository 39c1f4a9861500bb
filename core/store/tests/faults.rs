//! The log on a disk that fails: what was synced comes back, what was not comes back as a beginning of it or not at all,
//! and damage is told exactly.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use newtmq_store::{BlobId, CommitError, Disk, DiskError, LogId, Opening, Recovered, Report, Wal, WalConfig};
use proptest::prelude::*;

/// Files in memory; each knows how much of it was synced.
#[derive(Debug, Clone, Default)]
struct MemoryDisk {
    files: BTreeMap<String, (Vec<u8>, usize)>,
    /// Bytes that fit.
    room: Option<usize>,
    sync_fails: bool,
}

impl Disk for MemoryDisk {
    fn list(&mut self) -> Result<Vec<String>, DiskError> {
        Ok(self.files.keys().cloned().collect())
    }

    fn read(&mut self, file: &str, offset: u64, len: usize) -> Result<Vec<u8>, DiskError> {
        Ok(self.files[file].0.iter().skip(offset as usize).take(len).copied().collect())
    }

    fn create(&mut self, file: &str) -> Result<(), DiskError> {
        self.files.insert(file.into(), (Vec::new(), 0));
        Ok(())
    }

    fn append(&mut self, file: &str, bytes: &[u8]) -> Result<(), DiskError> {
        let used: usize = self.files.values().map(|(bytes, _)| bytes.len()).sum();
        let fits = self.room.map_or(bytes.len(), |room| bytes.len().min(room.saturating_sub(used)));
        self.files.get_mut(file).unwrap().0.extend_from_slice(&bytes[..fits]);
        if fits < bytes.len() { Err(DiskError::Full { file: file.into() }) } else { Ok(()) }
    }

    fn truncate(&mut self, file: &str, len: u64) -> Result<(), DiskError> {
        let (bytes, synced) = self.files.get_mut(file).unwrap();
        bytes.truncate(len as usize);
        *synced = (*synced).min(bytes.len());
        Ok(())
    }

    fn sync(&mut self, file: &str) -> Result<(), DiskError> {
        if self.sync_fails {
            return Err(DiskError::Failed { file: file.into(), why: "input/output error".into() });
        }
        let (bytes, synced) = self.files.get_mut(file).unwrap();
        *synced = bytes.len();
        Ok(())
    }

    fn sync_names(&mut self) -> Result<(), DiskError> {
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        let file = self.files.remove(from).unwrap();
        self.files.insert(to.into(), file);
        Ok(())
    }

    fn remove(&mut self, file: &str) -> Result<(), DiskError> {
        self.files.remove(file);
        Ok(())
    }
}

impl MemoryDisk {
    /// Of what was not synced a part is lost, the last byte that is left may be another.
    fn lose_power(&mut self, keep: usize, torn: bool) {
        for (bytes, synced) in self.files.values_mut() {
            let len = (*synced + keep).min(bytes.len());
            bytes.truncate(len);
            if torn && len > *synced {
                *bytes.last_mut().unwrap() ^= 0x55;
            }
            *synced = bytes.len();
        }
    }
}

const SMALL: WalConfig = WalConfig { segment_bytes: 300 };
const LOG: LogId = LogId(5);

fn open(disk: MemoryDisk) -> (Wal<MemoryDisk>, Report, Vec<u8>) {
    let mut opening = Opening::start(disk, SMALL).unwrap();
    let (mut seen, mut blobs) = (Vec::new(), BTreeMap::new());
    while let Some(chunk) = opening.next_chunk(100).unwrap() {
        for item in chunk.items {
            match item {
                Recovered::Blob { id, bytes } => drop(blobs.insert(id, bytes)),
                Recovered::Record { log, bytes, .. } => {
                    assert_eq!(log, LOG);
                    // Damage may have taken the blob.
                    if let Some(blob) = blobs.get(&BlobId(u64::from(bytes[0] / 2))) {
                        assert_eq!(*blob, [bytes[0] / 2; 9]);
                        seen.push(bytes[0]);
                    }
                }
                Recovered::SegmentEnd { .. } => blobs.clear(),
            }
        }
    }
    let (wal, report) = opening.finish().unwrap();
    (wal, report, seen)
}

/// Record `n`, which shares its blob with a neighbour.
fn write(wal: &mut Wal<MemoryDisk>, n: u8) {
    wal.blob(BlobId(u64::from(n / 2)), [n / 2; 9]);
    wal.record(LOG, &[n; 5]);
}

fn upto(n: u8) -> Vec<u8> {
    (0..n).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// However often the power goes, nothing that was synced is missing and nothing comes out of its order.
    #[test]
    fn what_was_synced_comes_back(rounds in prop::collection::vec((0_u8..9, 0_u8..5, 0_usize..90, any::<bool>()), 1..6)) {
        let mut disk = MemoryDisk::default();
        let mut kept: u8 = 0;
        for (synced, unsynced, keep, torn) in rounds {
            let (mut wal, report, seen) = open(disk);
            prop_assert_eq!(&seen, &upto(seen.len() as u8));
            prop_assert!(seen.len() >= usize::from(kept), "{} of {kept}", seen.len());
            prop_assert!(report.damaged.is_empty() && report.gaps.is_empty(), "{report:?}");
            let mut n = seen.len() as u8;
            for _ in 0..synced {
                write(&mut wal, n);
                n += 1;
                wal.commit(true).unwrap();
            }
            kept = n;
            for _ in 0..unsynced {
                write(&mut wal, n);
                n += 1;
                wal.commit(false).unwrap();
            }
            disk = wal.into_disk();
            disk.lose_power(keep, torn);
        }
    }

    /// A byte that turned below the durable end is told, with exactly the records that are missing; the rest is there.
    #[test]
    fn damage_is_told(count in 2_u8..60, at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let (mut wal, ..) = open(MemoryDisk::default());
        for n in 0..count {
            write(&mut wal, n);
            wal.commit(true).unwrap();
        }
        wal.harden().unwrap();
        let mut disk = wal.into_disk();
        let names: Vec<String> = disk.files.keys().cloned().collect();
        let name = at.get(&names);
        let bytes = &mut disk.files.get_mut(name).unwrap().0;
        let byte = at.index(bytes.len());
        bytes[byte] ^= 1_u8 << bit;
        let (wal, report, seen) = open(disk);
        let missing: Vec<u8> = upto(count).into_iter().filter(|n| !seen.contains(n)).collect();
        prop_assert!(missing.len() <= 2, "one frame holds one record, and the blob of another: {missing:?}");
        // The very first records have nothing before them, and the last mark may itself be what turned.
        let told: u64 = report.gaps.iter().map(|gap| gap.count).sum();
        if let Some(missing) = missing.first() {
            prop_assert!(!report.damaged.is_empty(), "{missing} is missing without a word: {report:?}");
            prop_assert!(*missing == 0 || *missing == count - 1 || told == 1, "{report:?}");
        }
        // What was put aside is not told again.
        let (.., again, seen_again) = open(wal.into_disk());
        prop_assert_eq!(seen_again, seen);
        prop_assert!(again.damaged.is_empty() && again.torn.is_none(), "{again:?}");
    }
}

/// What is damaged is put aside when there is space, and until then the log is read as it is.
#[test]
fn damage_on_a_full_disk_stays_until_there_is_space() {
    let (mut wal, ..) = open(MemoryDisk::default());
    for n in 0..40 {
        write(&mut wal, n);
        wal.commit(true).unwrap();
    }
    wal.harden().unwrap();
    let mut disk = wal.into_disk();
    let (name, (bytes, _)) = disk.files.iter_mut().next().unwrap();
    let (name, middle) = (name.clone(), bytes.len() / 2);
    bytes[middle] ^= 1;
    disk.room = Some(disk.files.values().map(|(bytes, _)| bytes.len()).sum());
    let (wal, report, seen) = open(disk);
    assert_eq!(report.damaged.len(), 1);
    assert_eq!(report.damaged[0].file, name, "there is no copy");
    assert!(seen.len() >= 38, "{seen:?}");
    let mut disk = wal.into_disk();
    disk.room = None;
    let (.., report, again) = open(disk);
    assert_eq!(report.damaged[0].file, format!("{name}.damaged"));
    assert_eq!(again, seen);
}

#[test]
fn a_full_disk_loses_nothing() {
    let (mut wal, ..) = open(MemoryDisk::default());
    write(&mut wal, 0);
    wal.commit(true).unwrap();
    let used = wal.bytes() as usize;
    wal.disk().room = Some(used + 10);
    write(&mut wal, 1);
    assert!(matches!(wal.commit(true), Err(CommitError::Full(_))));
    assert!(wal.is_stuck());
    assert!(matches!(wal.commit(true), Err(CommitError::Full(_))));
    assert_eq!(wal.bytes() as usize, used);
    wal.disk().room = None;
    wal.commit(true).unwrap();
    write(&mut wal, 2);
    wal.commit(true).unwrap();
    assert_eq!(open(wal.into_disk()).2, upto(3));
}

#[test]
fn a_failed_sync_is_for_good() {
    let (mut wal, ..) = open(MemoryDisk::default());
    write(&mut wal, 0);
    wal.disk().sync_fails = true;
    assert!(matches!(wal.commit(true), Err(CommitError::Failed(_))));
    wal.disk().sync_fails = false;
    assert!(matches!(wal.commit(true), Err(CommitError::Failed(_))), "what a later sync says counts for nothing");
}

#[test]
fn segments_are_freed_from_the_oldest_on() {
    let (mut wal, ..) = open(MemoryDisk::default());
    for n in 0..60 {
        write(&mut wal, n);
        wal.commit(true).unwrap();
    }
    let numbers: Vec<u64> = wal.segments().map(|(number, _)| number).collect();
    assert!(numbers.len() > 3, "{numbers:?}");
    wal.free_before(numbers[2]).unwrap();
    assert_eq!(wal.segments().next().unwrap().0, numbers[2]);
    wal.free_before(u64::MAX).unwrap();
    assert_eq!(wal.segments().count(), 1, "the last one is written to");
    let (.., report, seen) = open(wal.into_disk());
    assert!(report.gaps.is_empty() && report.damaged.is_empty());
    assert!(seen.len() < 60 && seen.last().is_none_or(|last| *last == 59), "{seen:?}");
}

#[test]
fn a_newer_format_is_left_alone() {
    let (mut wal, ..) = open(MemoryDisk::default());
    write(&mut wal, 0);
    wal.commit(true).unwrap();
    let mut disk = wal.into_disk();
    let head = &mut disk.files.values_mut().next_back().unwrap().0;
    head[8] = 9;
    let crc = crc32c::crc32c(&head[..20]);
    head[20..24].copy_from_slice(&crc.to_le_bytes());
    let before = disk.files.clone();
    let error = Opening::start(disk.clone(), SMALL).unwrap_err().to_string();
    assert!(error.contains("format 9") && error.contains("Nothing was changed"), "{error}");
    assert_eq!(before.len(), disk.files.len());
}
