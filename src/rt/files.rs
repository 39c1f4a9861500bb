//! The file of a log: of the operating system, or of the simulated disk.

#[cfg(madsim)]
pub use newtmq_simnet::DiskFile as LogFile;

/// A file that is written at its end.
#[cfg(not(madsim))]
#[derive(Debug)]
pub struct LogFile(std::fs::File);

#[cfg(not(madsim))]
mod imp {
    use std::fs::{self, File, OpenOptions};
    use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
    use std::path::Path;

    use super::LogFile;

    impl LogFile {
        /// Opens a file and reads it; none if it is not there.
        ///
        /// # Errors
        /// The operating system's.
        pub fn open(path: &Path) -> io::Result<Option<(LogFile, Vec<u8>)>> {
            let mut file = match OpenOptions::new().read(true).write(true).open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(Some((LogFile(file), bytes)))
        }

        /// A new file with these bytes in place of another, synced; a crash leaves one of the two. The folder is made if it is
        /// not there.
        ///
        /// # Errors
        /// The operating system's.
        pub fn replace(path: &Path, temporary: &Path, bytes: &[u8]) -> io::Result<LogFile> {
            let folder = path.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(folder)?;
            let mut file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(temporary, path)?;
            File::open(folder)?.sync_all()?;
            Ok(LogFile(file))
        }

        /// Gives a file another name.
        ///
        /// # Errors
        /// The operating system's.
        pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
            fs::rename(from, to)
        }

        /// Writes at the end.
        ///
        /// # Errors
        /// The operating system's; a part of it may be written.
        pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.0.write_all(bytes)
        }

        /// Cuts everything off from there on.
        ///
        /// # Errors
        /// The operating system's.
        pub fn cut(&mut self, end: u64) -> io::Result<()> {
            self.0.set_len(end)?;
            self.0.seek(SeekFrom::Start(end)).map(drop)
        }

        /// Makes everything in it durable.
        ///
        /// # Errors
        /// The operating system's.
        pub fn sync(&mut self) -> io::Result<()> {
            self.0.sync_data()
        }
    }
}
