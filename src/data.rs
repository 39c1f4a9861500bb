//! The data directory: who this node is, kept across restarts.
//!
//! It holds a lock, so that two brokers never share a directory, and `node.toml` with the node's id and incarnation.
//! The incarnation has risen on disk before anything else happens, so no two starts ever have the same one. What
//! sessions need is in its folder `store` ([`crate::store`]).

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use newtmq_base::{Incarnation, NodeId};
use toml::de::{DeTable, DeValue};

use crate::store::{self, StoreError};

/// What identifies a node to others, and this start of it to earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Minted once for a data directory; random without one.
    pub node_id: NodeId,
    /// Rises with each start; 1 without a data directory.
    pub incarnation: Incarnation,
}

impl NodeIdentity {
    /// The identity of a node without a data directory.
    ///
    /// # Errors
    /// The operating system gives no random bytes.
    pub fn ephemeral() -> Result<NodeIdentity, DataError> {
        Ok(NodeIdentity { node_id: mint()?, incarnation: Incarnation(1) })
    }
}

/// A data directory that this process holds until the value is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// The lock goes with the open file, so the operating system frees it however the process ends.
    _lock: File,
}

impl DataDir {
    /// Creates the directory if need be, takes its lock and raises the incarnation.
    ///
    /// # Errors
    /// Another broker holds it, it is damaged, or it cannot be read or written.
    pub fn open(path: &Path) -> Result<(DataDir, NodeIdentity), DataError> {
        let at = |step| move |source| DataError::Io { step, path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(at("create"))?;
        let held = DataDir::lock(path)?;
        // Before anything is written: what a newer version left stays as it is.
        store::check(path)?;
        let file = path.join(NODE_FILE);
        let before = match fs::read_to_string(&file) {
            Ok(text) => Some(parse(&file, &text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(DataError::Damaged { file, line: 1, what: "not text".to_owned() });
            }
            Err(source) => return Err(DataError::Io { step: "read", path: file, source }),
        };
        let identity = match before {
            Some(NodeIdentity { node_id, incarnation }) => {
                NodeIdentity { node_id, incarnation: Incarnation(incarnation.0 + 1) }
            }
            None => NodeIdentity::ephemeral()?,
        };
        replace(path, NODE_FILE, &render(identity)).map_err(at("write"))?;
        // What is on the disk is what counts: a broken disk shows here and not after the next start.
        let stored = fs::read_to_string(&file).map_err(at("read back"))?;
        assert_eq!(parse(&file, &stored)?, identity, "node.toml reads back as written");
        Ok((held, identity))
    }

    /// Takes the lock of a directory that is there, and nothing else.
    ///
    /// # Errors
    /// A broker holds it, or it cannot be opened.
    pub fn lock(path: &Path) -> Result<DataDir, DataError> {
        let lock_path = path.join(LOCK_FILE);
        let at = |step| move |source| DataError::Io { step, path: path.to_owned(), source };
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path).map_err(at("open"))?;
        match lock.try_lock() {
            Ok(()) => Ok(DataDir { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(at("lock")(source)),
        }
    }

    /// Counts so many starts at once, because the numbers of an earlier one are still in use.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn skip_to(path: &Path, identity: NodeIdentity) -> Result<(), DataError> {
        let at = |source| DataError::Io { step: "write", path: path.to_owned(), source };
        replace(path, NODE_FILE, &render(identity)).map_err(at)
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The store in it cannot be used. Nothing was changed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The user's: a second broker on one directory. Nothing was changed.
    #[error("{path}: another broker is using this data directory", path = .path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The environment's: the file is not as this program writes it. Nothing was changed.
    #[error(
        "{file}:{line}: {what}; move the file away to start as a new node",
        file = .file.display()
    )]
    Damaged {
        /// `node.toml`.
        file: PathBuf,
        /// The line.
        line: usize,
        /// What is wrong there.
        what: String,
    },
    /// The environment's.
    #[error("cannot {step} the data directory {path}", path = .path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// The directory or file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The environment's.
    #[error("the operating system gives no random bytes: {0}")]
    NoRandom(String),
}

fn mint() -> Result<NodeId, DataError> {
    getrandom::u64().map(NodeId).map_err(|error| DataError::NoRandom(error.to_string()))
}

fn render(identity: NodeIdentity) -> String {
    let NodeIdentity { node_id: NodeId(id), incarnation: Incarnation(incarnation) } = identity;
    format!(
        "# Who this node is. Written at each start; never edit or copy it.\n\
         format = {FORMAT}\nnode_id = \"{id:016x}\"\nincarnation = {incarnation}\n"
    )
}

fn parse(file: &Path, text: &str) -> Result<NodeIdentity, DataError> {
    let line_at = |at: usize| 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
    let damaged = |line: usize, what: String| DataError::Damaged { file: file.to_owned(), line, what };
    let table = DeTable::parse(text).map_err(|error| {
        damaged(line_at(error.span().map_or(0, |span| span.start)), format!("not valid TOML: {}", error.message()))
    })?;
    let known = ["format", "node_id", "incarnation"];
    if let Some(key) = table.get_ref().keys().find(|key| !known.contains(&key.get_ref().as_ref())) {
        return Err(damaged(line_at(key.span().start), format!("unknown key `{}`", key.get_ref())));
    }
    let read = |name: &'static str, valid: &dyn Fn(&DeValue<'_>) -> Option<u64>, expected: &str| {
        let Some(value) = table.get_ref().get(name) else {
            return Err(damaged(text.lines().count().max(1), format!("the key `{name}` is missing")));
        };
        valid(value.get_ref())
            .ok_or_else(|| damaged(line_at(value.span().start), format!("`{name}` must be {expected}")))
    };
    let decimal = |value: &DeValue<'_>| value.as_integer().filter(|n| n.radix() == 10)?.as_str().parse::<u64>().ok();
    let hexadecimal = |value: &DeValue<'_>| {
        let digits = value.as_str().filter(|s| s.len() == 16 && s.bytes().all(|b| b.is_ascii_hexdigit()))?;
        u64::from_str_radix(digits, 16).ok()
    };
    read("format", &|v| decimal(v).filter(|n| *n == FORMAT), "1, the only format that this version reads")?;
    let node_id = read("node_id", &hexadecimal, "16 hexadecimal digits in quotes")?;
    let countable = 1..INCARNATION_MAX;
    let incarnation = read("incarnation", &|v| decimal(v).filter(|n| countable.contains(n)), "a number from 1")?;
    Ok(NodeIdentity { node_id: NodeId(node_id), incarnation: Incarnation(incarnation) })
}

/// Replaces a file so that after a crash there is the old text or the new one, and never half of either.
pub(crate) fn replace(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(name))?;
    // The rename itself is in the directory.
    File::open(dir)?.sync_all()
}

const LOCK_FILE: &str = "lock";
/// Who the node is.
const NODE_FILE: &str = "node.toml";
const FORMAT: u64 = 1;
/// TOML's numbers have 63 bits.
const INCARNATION_MAX: u64 = i64::MAX as u64;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A directory of its own for a test, gone afterwards.
    pub(crate) struct Scratch(pub(crate) PathBuf);

    impl Scratch {
        pub(crate) fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("newtmq-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Scratch(path)
        }

        fn start(&self) -> NodeIdentity {
            DataDir::open(&self.0).unwrap().1
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_id_stays_and_the_incarnation_rises() {
        let scratch = Scratch::new("identity");
        let first = scratch.start();
        let second = scratch.start();
        assert_eq!((first.incarnation, second.incarnation), (Incarnation(1), Incarnation(2)));
        assert_eq!(first.node_id, second.node_id);
        assert_ne!(first.node_id, NodeIdentity::ephemeral().unwrap().node_id);
        let mut files: Vec<_> = fs::read_dir(&scratch.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        files.sort();
        assert_eq!(files, [LOCK_FILE, NODE_FILE]);
    }

    #[test]
    fn a_second_broker_on_the_directory_is_refused() {
        let scratch = Scratch::new("lock");
        let (held, identity) = DataDir::open(&scratch.0).unwrap();
        let error = DataDir::open(held.path()).unwrap_err();
        assert!(matches!(&error, DataError::InUse { path } if *path == scratch.0));
        assert!(error.to_string().ends_with(": another broker is using this data directory"), "{error}");
        drop(held);
        assert_eq!(scratch.start().incarnation.0, identity.incarnation.0 + 1, "the refused start does not count");
    }

    #[test]
    fn a_crash_before_the_rename_leaves_the_old_file() {
        let scratch = Scratch::new("crash");
        let first = scratch.start();
        fs::write(scratch.0.join("node.toml.new"), "format = 1\nnode_").unwrap();
        let second = scratch.start();
        assert_eq!((second.node_id, second.incarnation), (first.node_id, Incarnation(2)));
    }

    #[test]
    fn a_file_where_the_directory_should_be() {
        let scratch = Scratch::new("file");
        fs::write(&scratch.0, "").unwrap();
        assert!(matches!(DataDir::open(&scratch.0), Err(DataError::Io { step: "create", .. })));
        fs::remove_file(&scratch.0).unwrap();
    }

    #[test]
    fn what_is_written_is_read() {
        for (node_id, incarnation) in [(0, 1), (u64::MAX, INCARNATION_MAX - 1), (0xfeed, 7)] {
            let identity = NodeIdentity { node_id: NodeId(node_id), incarnation: Incarnation(incarnation) };
            assert_eq!(parse(Path::new(NODE_FILE), &render(identity)).unwrap(), identity);
        }
    }

    #[test]
    fn damage_is_told_with_its_line() {
        let sound = "format = 1\nnode_id = \"000000000000feed\"\nincarnation = 7\n";
        let mut told = Vec::new();
        for (from, to) in [
            ("format = 1", "format = 2"),
            ("000000000000feed", "feed"),
            ("000000000000feed", "000000000000feeg"),
            ("\"000000000000feed\"", "65261"),
            ("incarnation = 7", "incarnation = 0"),
            ("incarnation = 7", "incarnation = -7"),
            ("incarnation = 7", "incarnation = 9223372036854775807"),
            ("incarnation = 7\n", ""),
            ("incarnation", "incarnatiom"),
            ("incarnation = 7", "incarnat"),
            (sound, ""),
            (sound, "\0\0\0\0"),
        ] {
            let text = sound.replace(from, to);
            assert_ne!(text, sound);
            told.push(parse(Path::new(NODE_FILE), &text).unwrap_err().to_string());
        }
        insta::assert_snapshot!(told.join("\n"), @r"
        node.toml:1: `format` must be 1, the only format that this version reads; move the file away to start as a new node
        node.toml:2: `node_id` must be 16 hexadecimal digits in quotes; move the file away to start as a new node
        node.toml:2: `node_id` must be 16 hexadecimal digits in quotes; move the file away to start as a new node
        node.toml:2: `node_id` must be 16 hexadecimal digits in quotes; move the file away to start as a new node
        node.toml:3: `incarnation` must be a number from 1; move the file away to start as a new node
        node.toml:3: `incarnation` must be a number from 1; move the file away to start as a new node
        node.toml:3: `incarnation` must be a number from 1; move the file away to start as a new node
        node.toml:2: the key `incarnation` is missing; move the file away to start as a new node
        node.toml:3: unknown key `incarnatiom`; move the file away to start as a new node
        node.toml:3: not valid TOML: key with no value, expected `=`; move the file away to start as a new node
        node.toml:1: the key `format` is missing; move the file away to start as a new node
        node.toml:1: not valid TOML: key with no value, expected `=`; move the file away to start as a new node
        ");
    }

    #[test]
    fn damage_stops_the_start_and_changes_nothing() {
        let scratch = Scratch::new("damage");
        scratch.start();
        let file = scratch.0.join(NODE_FILE);
        for damage in [&b"format = 1\n"[..], &[0xff, 0xfe, 0x00]] {
            fs::write(&file, damage).unwrap();
            assert!(matches!(DataDir::open(&scratch.0), Err(DataError::Damaged { .. })));
            assert_eq!(fs::read(&file).unwrap(), damage);
        }
    }
}
