//! Reading the files of users and rules, with errors that say where.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use newtmq_access::{Acl, AclError, HashParams, SALT_BYTES, User, Users, UsersError, Verifier};

use crate::config::Secret;
use crate::rt;

/// Largest file that is read.
pub(super) const FILE_BYTES_MAX: u64 = 256 << 20;

/// A file that is no use. Whoever wrote it, or the environment, is at fault; nothing is changed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{}: {error}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// The operating system's error.
        error: io::Error,
    },
    /// It is not in UTF-8.
    #[error("{}:{line}: not UTF-8", file.display())]
    NotText {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
    },
    /// The rules.
    #[error("{}:{error}", file.display())]
    Acl {
        /// The file.
        file: PathBuf,
        /// Line, column and what is wrong.
        error: AclError,
    },
    /// A key of tokens.
    #[error("{}: {why}", file.display())]
    Key {
        /// The file.
        file: PathBuf,
        /// What is wrong, without what was read.
        why: &'static str,
    },
    /// The users.
    #[error("{}:{error}", file.display())]
    Users {
        /// The file.
        file: PathBuf,
        /// Line and what is wrong.
        error: UsersError,
    },
}

pub(super) fn acl(file: &Path) -> Result<Acl, FileError> {
    let text = text(file)?;
    Acl::parse(&text).map_err(|error| FileError::Acl { file: file.to_owned(), error })
}

pub(super) fn users(file: &Path) -> Result<Users, FileError> {
    let text = text(file)?;
    let salt_key = rt::seed().map_err(|error| FileError::Io { file: file.to_owned(), error })?;
    warn_if_open_to_others(file);
    Users::parse(&text, salt_key).map_err(|error| FileError::Users { file: file.to_owned(), error })
}

/// Users of a file, if there is one, and others with their passwords.
pub(super) fn with_passwords(file: Option<&Path>, users: &[(String, Secret)]) -> Result<Users, FileError> {
    let old = file.map(text).transpose()?.unwrap_or_default();
    let named = file.unwrap_or(Path::new("users")).to_owned();
    let new = hashed(&named, old, users)?;
    let salt_key = rt::seed().map_err(|error| FileError::Io { file: named.clone(), error })?;
    Users::parse(&new, salt_key).map_err(|error| FileError::Users { file: named, error })
}

/// The text of a password file with these users added.
pub(super) fn hashed(file: &Path, mut text: String, users: &[(String, Secret)]) -> Result<String, FileError> {
    let mut verifier = Verifier::default();
    for (name, password) in users {
        let failed = |error| FileError::Io { file: file.to_owned(), error };
        let (salt, salt_key) = (rt::seed().map_err(failed)?, rt::seed().map_err(failed)?);
        let salt: [u8; SALT_BYTES] = std::array::from_fn(|at| salt[at]);
        let hash = verifier.hash(password.reveal().as_bytes(), salt, HashParams::default());
        let hash = hash.map_err(|error| failed(io::Error::other(error)))?;
        let user = User { password: Some(hash), scram: None };
        let edited = Users::edited(&text, name, Some(&user), salt_key);
        text = edited.map_err(|error| FileError::Users { file: file.to_owned(), error })?.0;
    }
    Ok(text)
}

pub(super) fn text(file: &Path) -> Result<String, FileError> {
    let failed = |error| FileError::Io { file: file.to_owned(), error };
    let mut bytes = Vec::new();
    File::open(file).and_then(|open| open.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 256 MiB")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        FileError::NotText { file: file.to_owned(), line: 1 + good.iter().filter(|byte| **byte == b'\n').count() }
    })
}

/// Hashes are no passwords, but whoever reads them can try passwords as fast as his machine can.
fn warn_if_open_to_others(file: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(file).map_or(0, |facts| facts.permissions().mode());
    if mode & 0o007 != 0 {
        tracing::warn!(file = %file.display(), "everybody on this machine can read or write the password file");
    }
}
