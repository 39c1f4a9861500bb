//! The disk of the log: files in one folder. The file that grows is kept open.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use newtmq_store::{Disk, DiskError};

/// Files in a folder.
#[derive(Debug)]
pub struct FileDisk {
    folder: PathBuf,
    /// The folder itself, for its names.
    names: File,
    /// Those that grow.
    open: BTreeMap<String, File>,
}

/// More files than that do not grow at a time.
const OPEN_MAX: usize = 3;

impl FileDisk {
    /// Works on a folder that is there.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open(folder: &Path) -> io::Result<FileDisk> {
        Ok(FileDisk { folder: folder.to_owned(), names: File::open(folder)?, open: BTreeMap::new() })
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    fn growing(&mut self, file: &str) -> io::Result<&mut File> {
        if !self.open.contains_key(file) {
            if self.open.len() >= OPEN_MAX {
                self.open.pop_first();
            }
            let opened = OpenOptions::new().append(true).open(self.path(file))?;
            self.open.insert(file.to_owned(), opened);
        }
        Ok(self.open.get_mut(file).expect("opened just before"))
    }
}

/// The error of a file. What makes no room for it may pass.
fn failed(file: &str, error: &io::Error) -> DiskError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            DiskError::Full { file: file.to_owned() }
        }
        _ => {
            tracing::error!(file, %error, "store");
            DiskError::Failed { file: file.to_owned(), why: error.to_string() }
        }
    }
}

impl Disk for FileDisk {
    fn list(&mut self) -> Result<Vec<String>, DiskError> {
        let list = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(&self.folder)? {
                let entry = entry?;
                // Others than ours are nobody's business.
                if entry.file_type()?.is_file() {
                    names.extend(entry.file_name().into_string());
                }
            }
            names.sort_unstable();
            Ok(names)
        };
        list().map_err(|error| failed(&self.folder.display().to_string(), &error))
    }

    fn read(&mut self, file: &str, offset: u64, len: usize) -> Result<Vec<u8>, DiskError> {
        let read = || -> io::Result<Vec<u8>> {
            let mut source = File::open(self.path(file))?;
            let there = source.metadata()?.len().saturating_sub(offset);
            source.seek(SeekFrom::Start(offset))?;
            let mut bytes = Vec::with_capacity(usize::try_from(there).unwrap_or(usize::MAX).min(len));
            source.take(len as u64).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|error| failed(file, &error))
    }

    fn create(&mut self, file: &str) -> Result<(), DiskError> {
        self.open.remove(file);
        File::create(self.path(file)).map(drop).map_err(|error| failed(file, &error))
    }

    fn append(&mut self, file: &str, bytes: &[u8]) -> Result<(), DiskError> {
        self.growing(file).and_then(|open| open.write_all(bytes)).map_err(|error| failed(file, &error))
    }

    fn truncate(&mut self, file: &str, len: u64) -> Result<(), DiskError> {
        self.growing(file).and_then(|open| open.set_len(len)).map_err(|error| failed(file, &error))
    }

    fn sync(&mut self, file: &str) -> Result<(), DiskError> {
        self.growing(file).and_then(|open| open.sync_data()).map_err(|error| failed(file, &error))
    }

    fn sync_names(&mut self) -> Result<(), DiskError> {
        self.names.sync_all().map_err(|error| failed(&self.folder.display().to_string(), &error))
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        self.open.remove(from);
        self.open.remove(to);
        fs::rename(self.path(from), self.path(to)).map_err(|error| failed(from, &error))
    }

    fn remove(&mut self, file: &str) -> Result<(), DiskError> {
        self.open.remove(file);
        fs::remove_file(self.path(file)).map_err(|error| failed(file, &error))
    }
}

/// A disk that is only read: what would change it is passed over.
#[derive(Debug)]
pub struct ReadOnly<D>(pub D);

impl<D: Disk> Disk for ReadOnly<D> {
    fn list(&mut self) -> Result<Vec<String>, DiskError> {
        self.0.list()
    }

    fn read(&mut self, file: &str, offset: u64, len: usize) -> Result<Vec<u8>, DiskError> {
        self.0.read(file, offset, len)
    }

    fn create(&mut self, _: &str) -> Result<(), DiskError> {
        Ok(())
    }

    fn append(&mut self, _: &str, _: &[u8]) -> Result<(), DiskError> {
        Ok(())
    }

    fn truncate(&mut self, _: &str, _: u64) -> Result<(), DiskError> {
        Ok(())
    }

    fn sync(&mut self, _: &str) -> Result<(), DiskError> {
        Ok(())
    }

    fn sync_names(&mut self) -> Result<(), DiskError> {
        Ok(())
    }

    fn rename(&mut self, _: &str, _: &str) -> Result<(), DiskError> {
        Ok(())
    }

    fn remove(&mut self, _: &str) -> Result<(), DiskError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use newtmq_store::segment_name;

    use super::*;
    use crate::data::tests::Scratch;

    #[test]
    fn a_file_grows_is_cut_off_and_gets_another_name() {
        let scratch = Scratch::new("files");
        fs::create_dir_all(&scratch.0).unwrap();
        let mut disk = FileDisk::open(&scratch.0).unwrap();
        let name = segment_name(1);
        disk.create(&name).unwrap();
        disk.append(&name, b"abcdef").unwrap();
        disk.truncate(&name, 3).unwrap();
        disk.append(&name, b"X").unwrap();
        disk.sync(&name).unwrap();
        disk.sync_names().unwrap();
        assert_eq!(disk.read(&name, 1, usize::MAX).unwrap(), b"bcX");
        assert_eq!(disk.read(&name, 9, 1).unwrap(), b"");
        disk.rename(&name, "other").unwrap();
        assert_eq!(disk.list().unwrap(), ["other"]);
        assert!(matches!(disk.append(&name, b""), Err(DiskError::Failed { .. })));
        disk.remove("other").unwrap();
        assert!(disk.list().unwrap().is_empty());
    }

    #[test]
    fn no_space_may_pass() {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge] {
            assert_eq!(failed("f", &kind.into()), DiskError::Full { file: "f".into() });
        }
        // The device that is always full.
        if let Ok(mut full) = OpenOptions::new().write(true).open("/dev/full") {
            assert_eq!(failed("f", &full.write_all(b"x").unwrap_err()), DiskError::Full { file: "f".into() });
        }
    }
}
