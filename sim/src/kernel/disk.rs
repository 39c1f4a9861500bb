//! A node's disk: files that know how much of them was synced. A crash of the process leaves everything, a power loss leaves
//! a beginning of what was not synced, the end of it perhaps torn. It can be full, slow, fail to sync, and rot.

use core::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use newtmq_store::{Disk, DiskError};

use crate::draw::Stream;

/// Files in a directory.
#[derive(Debug, Default)]
pub(super) struct SimDisk {
    files: BTreeMap<String, File>,
    /// Files that were removed or renamed since the names were synced, as they would come back.
    forgotten: BTreeMap<String, File>,
    /// Nothing more fits.
    pub(super) full: bool,
    /// The next syncs fail.
    pub(super) sync_fails: bool,
    /// How many bits have turned, and more if it could not be told what was promised.
    rotten: u32,
    /// More was cut off than what the last sync added.
    pub(super) cut_short: bool,
    /// How long a sync takes longer, in microseconds.
    pub(super) slow_us: u64,
}

#[derive(Debug, Default, Clone)]
struct File {
    bytes: Vec<u8>,
    synced: usize,
    /// How much was synced, also before the power failed, and where what the last sync added begins.
    promised: usize,
    last: usize,
    /// Its name survives a power loss.
    named: bool,
}

impl SimDisk {
    /// The power fails: of what was not synced, chance decides how much is there, to the byte, and whether its end is torn.
    pub(super) fn lose_power(&mut self, chance: &mut Stream) {
        self.files.retain(|_, file| file.named || chance.chance_ppm(500_000));
        for (name, file) in core::mem::take(&mut self.forgotten) {
            if chance.chance_ppm(500_000) {
                self.files.entry(name).or_insert(file);
            }
        }
        for file in self.files.values_mut() {
            file.promised = file.synced;
            let unsynced = file.bytes.len() - file.synced;
            let kept = match chance.between(0, 3) {
                0 => 0,
                1 => unsynced,
                _ => chance.between(0, unsynced as u64) as usize,
            };
            file.bytes.truncate(file.synced + kept);
            // A sector that was not written whole.
            if kept > 0 && chance.chance_ppm(300_000) {
                let torn = 1 + chance.between(0, kept.min(512) as u64 - 1) as usize;
                let start = file.bytes.len() - torn;
                for byte in &mut file.bytes[start..] {
                    *byte = chance.next_u64() as u8;
                }
            }
            file.synced = file.bytes.len();
            file.named = true;
        }
    }

    /// A bit turns of what is there, at so many millionths of it.
    pub(super) fn rot(&mut self, at_ppm: u64) {
        self.rotten += 1;
        let total: usize = self.files.values().map(|file| file.bytes.len()).sum();
        let mut at = (total as u64).saturating_mul(at_ppm.min(999_999)) / 1_000_000;
        for file in self.files.values_mut() {
            if at < file.bytes.len() as u64 {
                file.bytes[at as usize] ^= 0x04;
                return;
            }
            at -= file.bytes.len() as u64;
        }
    }

    /// Whether everything on it survives a power loss.
    pub(super) fn is_synced(&self) -> bool {
        self.files.values().all(|file| file.named && file.synced == file.bytes.len())
    }

    fn file(&mut self, name: &str) -> Result<&mut File, DiskError> {
        self.files.get_mut(name).ok_or_else(|| DiskError::Failed { file: name.into(), why: "no such file".into() })
    }
}

/// A disk that survives the process that works on it.
pub(super) type SharedDisk = Rc<RefCell<SimDisk>>;

/// What a process has of the disk.
#[derive(Debug, Clone)]
pub(super) struct Mounted(pub(super) SharedDisk);

impl Disk for Mounted {
    fn list(&mut self) -> Result<Vec<String>, DiskError> {
        Ok(self.0.borrow().files.keys().cloned().collect())
    }

    fn read(&mut self, file: &str, offset: u64, len: usize) -> Result<Vec<u8>, DiskError> {
        let mut disk = self.0.borrow_mut();
        let bytes = &disk.file(file)?.bytes;
        let start = bytes.len().min(offset as usize);
        Ok(bytes[start..bytes.len().min(start.saturating_add(len))].to_vec())
    }

    fn create(&mut self, file: &str) -> Result<(), DiskError> {
        let mut disk = self.0.borrow_mut();
        if disk.full {
            return Err(DiskError::Full { file: file.into() });
        }
        disk.files.insert(file.into(), File::default());
        Ok(())
    }

    fn append(&mut self, file: &str, bytes: &[u8]) -> Result<(), DiskError> {
        let mut disk = self.0.borrow_mut();
        let full = disk.full;
        if full {
            // It cannot be told what is promised.
            disk.rotten += 2;
        }
        // Some of it may have fitted.
        let fits = if full { bytes.len() / 3 } else { bytes.len() };
        let of = disk.file(file)?;
        of.bytes.extend_from_slice(&bytes[..fits]);
        if full { Err(DiskError::Full { file: file.into() }) } else { Ok(()) }
    }

    fn truncate(&mut self, file: &str, len: u64) -> Result<(), DiskError> {
        let mut disk = self.0.borrow_mut();
        let of = disk.file(file)?;
        of.bytes.truncate(len as usize);
        of.synced = of.synced.min(of.bytes.len());
        // Of what the last sync added nothing may tell whether it was promised.
        let short = of.bytes.len() < of.last;
        of.promised = of.promised.min(of.bytes.len());
        of.last = of.last.min(of.promised);
        // Two bits may hit what was promised and what tells that it was.
        disk.cut_short |= short && disk.rotten <= 1;
        Ok(())
    }

    fn sync(&mut self, file: &str) -> Result<(), DiskError> {
        let mut disk = self.0.borrow_mut();
        if disk.sync_fails {
            return Err(DiskError::Failed { file: file.into(), why: "input/output error".into() });
        }
        let of = disk.file(file)?;
        of.synced = of.bytes.len();
        if of.synced > of.promised {
            of.last = of.promised;
        }
        of.promised = of.synced;
        Ok(())
    }

    fn sync_names(&mut self) -> Result<(), DiskError> {
        let mut disk = self.0.borrow_mut();
        disk.forgotten.clear();
        for file in disk.files.values_mut() {
            file.named = true;
        }
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        let mut disk = self.0.borrow_mut();
        let file = disk.file(from)?.clone();
        disk.files.remove(from);
        if let Some(old) = disk.files.insert(to.into(), file).filter(|old| old.named) {
            disk.forgotten.insert(to.into(), old);
        }
        Ok(())
    }

    fn remove(&mut self, file: &str) -> Result<(), DiskError> {
        let mut disk = self.0.borrow_mut();
        if let Some(old) = disk.files.remove(file).filter(|old| old.named) {
            disk.forgotten.insert(file.into(), old);
        }
        Ok(())
    }
}
