//! What the log needs of a disk. Production implements it over files of a directory, the simulator over a model that loses
//! what was not synced.

/// A directory of files that only grow at their end.
///
/// Every method works on the file of that name in one directory. None may panic because of what the disk does.
pub trait Disk {
    /// Names of all files, sorted.
    ///
    /// # Errors
    /// The disk's.
    fn list(&mut self) -> Result<Vec<String>, DiskError>;

    /// Bytes of a file from `offset` on, `len` of them, or fewer at its end.
    ///
    /// # Errors
    /// The disk's.
    fn read(&mut self, file: &str, offset: u64, len: usize) -> Result<Vec<u8>, DiskError>;

    /// Makes an empty file, or empties one that is there.
    ///
    /// # Errors
    /// The disk's.
    fn create(&mut self, file: &str) -> Result<(), DiskError>;

    /// Appends bytes. After an error any part of them may be in the file.
    ///
    /// # Errors
    /// The disk's, [`DiskError::Full`] among them.
    fn append(&mut self, file: &str, bytes: &[u8]) -> Result<(), DiskError>;

    /// Cuts a file off.
    ///
    /// # Errors
    /// The disk's.
    fn truncate(&mut self, file: &str, len: u64) -> Result<(), DiskError>;

    /// Returns when everything that was appended to the file survives a power loss.
    ///
    /// # Errors
    /// The disk's. What was appended since the last success may be lost then, whatever a later call says.
    fn sync(&mut self, file: &str) -> Result<(), DiskError>;

    /// Returns when the names of the files survive a power loss.
    ///
    /// # Errors
    /// The disk's.
    fn sync_names(&mut self) -> Result<(), DiskError>;

    /// Gives a file another name, instead of the file that has it.
    ///
    /// # Errors
    /// The disk's.
    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError>;

    /// Removes a file.
    ///
    /// # Errors
    /// The disk's.
    fn remove(&mut self, file: &str) -> Result<(), DiskError>;
}

/// What a disk may fail with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// No space is left, or a quota is used up. It may pass.
    #[error("{file}: no space is left on the device")]
    Full {
        /// The file that was to grow.
        file: String,
    },
    /// Anything else.
    #[error("{file}: {why}")]
    Failed {
        /// The file.
        file: String,
        /// What the operating system says.
        why: String,
    },
}
