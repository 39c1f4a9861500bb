//! `newtmq passwd`: sets and deletes users of a password file. The password comes from the terminal or from standard
//! input, never from the command line, which everybody on the machine can read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use newtmq_access::{
    HashParams, InvalidHash, SALT_BYTES, SALT_KEY_BYTES, SCRAM_ITERATIONS, ScramKeys, User, Users, UsersError, Verifier,
};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::files::{self, FileError};
use crate::rt;

/// Longest password in bytes, as MQTT has it (section 3.1.3.6).
const PASSWORD_BYTES_MAX: usize = 65_535;

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Passwd {
    /// The password file; it is made if there is none.
    pub file: PathBuf,
    /// The user.
    pub user: String,
    /// Keep also what SCRAM needs. It is cheaper to guess passwords from than the hash.
    pub scram: bool,
    /// Delete the user instead of setting a password.
    pub delete: bool,
}

/// Why it was not done. The file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum PasswdError {
    /// The file that is there cannot be read, or is no password file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The name is none that a user can have.
    #[error("{0:?}: {1}")]
    Name(String, String),
    /// There is no such user to delete.
    #[error("{}: there is no user {user:?}", file.display())]
    NoUser {
        /// The file.
        file: PathBuf,
        /// The name.
        user: String,
    },
    /// No password came, or not the same twice, or one that is too long.
    #[error("{0}")]
    Password(&'static str),
    /// The file that is written first is there already.
    #[error("{}: it is there already: another `newtmq passwd` is running, or one was stopped; then delete it", .0.display())]
    Busy(PathBuf),
    /// The environment.
    #[error("{}: {error}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// The operating system's error.
        error: io::Error,
    },
    /// Argon2 refuses.
    #[error("the password cannot be hashed: {0}")]
    Hash(#[from] InvalidHash),
}

impl PasswdError {
    /// Whether the arguments or the password are wrong, and not the file or the environment.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, PasswdError::Name(..) | PasswdError::Password(_))
    }
}

/// Does it. Returns what to tell the user: a sentence.
///
/// # Errors
/// See [`PasswdError`].
pub fn passwd(wanted: &Passwd) -> Result<String, PasswdError> {
    let Passwd { file, user, scram, delete } = wanted;
    let failed = |error| PasswdError::Io { file: file.clone(), error };
    // What is replaced is the file, not a link to it.
    let target = if fs::exists(file).map_err(failed)? { fs::canonicalize(file).map_err(failed)? } else { file.clone() };
    let old = if target.exists() { files::text(&target)? } else { String::new() };
    // Before a password is asked for.
    edited(file, &old, user, None)?;
    if *delete {
        let (new, had) = edited(file, &old, user, None)?;
        if !had {
            return Err(PasswdError::NoUser { file: file.clone(), user: user.clone() });
        }
        replace(&target, &new)?;
        return Ok(format!("{}: deleted {user:?}", file.display()));
    }
    let password = ask(user)?;
    let salt = || rt::seed().map(|random| first(&random)).map_err(failed);
    let entry = entry(&password, [salt()?, salt()?], *scram)?;
    let (new, had) = edited(file, &old, user, Some(&entry))?;
    replace(&target, &new)?;
    let what = if had { "changed the password of" } else { "added" };
    Ok(format!("{}: {what} {user:?}", file.display()))
}

/// What is kept of a password.
fn entry(password: &[u8], salts: [[u8; SALT_BYTES]; 2], scram: bool) -> Result<User, PasswdError> {
    let hash = Verifier::default().hash(password, salts[0], HashParams::default())?;
    let mut user = User { password: Some(hash), scram: None };
    if scram {
        let text = std::str::from_utf8(password).ok();
        user.scram = text.and_then(|text| ScramKeys::derive(text, &salts[1], SCRAM_ITERATIONS));
        if user.scram.is_none() {
            return Err(PasswdError::Password("SCRAM needs a password of printable ASCII; nothing is changed"));
        }
    }
    Ok(user)
}

fn first<const N: usize>(random: &[u8]) -> [u8; N] {
    const { assert!(N <= newtmq_base::SEED_BYTES) }
    std::array::from_fn(|at| random[at])
}

fn edited(file: &Path, old: &str, name: &str, user: Option<&User>) -> Result<(String, bool), PasswdError> {
    let salt_key = rt::seed().map_err(|error| PasswdError::Io { file: file.to_owned(), error })?;
    let salt_key: [u8; SALT_KEY_BYTES] = first(&salt_key);
    Users::edited(old, name, user, salt_key).map_err(|error| match error {
        UsersError { line: 0, message } => PasswdError::Name(name.to_owned(), message),
        error => FileError::Users { file: file.to_owned(), error }.into(),
    })
}

/// Puts the text in the place of the file, so that there is the old one or the new one and never half of either. A new
/// file is for its owner only; one that was there keeps its owner and its mode, or the broker might be locked out.
fn replace(file: &Path, text: &str) -> Result<(), PasswdError> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = file.with_file_name(name);
    let mut new = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(PasswdError::Busy(temporary)),
        other => other.map_err(|error| PasswdError::Io { file: temporary.clone(), error })?,
    };
    let written = (|| {
        new.write_all(text.as_bytes())?;
        if let Ok(old) = fs::metadata(file) {
            let made = new.metadata()?;
            if (made.uid(), made.gid()) != (old.uid(), old.gid()) {
                std::os::unix::fs::fchown(&new, Some(old.uid()), Some(old.gid()))?;
            }
            new.set_permissions(fs::Permissions::from_mode(old.mode() & 0o777))?;
        }
        new.sync_all()?;
        fs::rename(&temporary, file)?;
        let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir)?.sync_all()
    })();
    written.map_err(|error| {
        let _ = fs::remove_file(&temporary);
        PasswdError::Io { file: file.to_owned(), error }
    })
}

/// The new password: twice from a terminal, or the first line of standard input.
pub fn ask(user: &str) -> Result<Vec<u8>, PasswdError> {
    let failed = |error| PasswdError::Io { file: "standard input".into(), error };
    let stdin = io::stdin();
    let password = if stdin.is_terminal() {
        let first = hidden(&format!("password of {user:?}: ")).map_err(failed)?;
        let second = hidden("again: ").map_err(failed)?;
        if first != second {
            return Err(PasswdError::Password("the two passwords are not the same; nothing is changed"));
        }
        first
    } else {
        let mut line = Vec::new();
        let most = PASSWORD_BYTES_MAX as u64 + 3;
        stdin.lock().take(most).read_until(b'\n', &mut line).map_err(failed)?;
        if line.ends_with(b"\n") {
            line.pop();
        }
        if line.ends_with(b"\r") {
            line.pop();
        }
        line
    };
    match password.len() {
        0 => Err(PasswdError::Password("no password was given; nothing is changed")),
        1..=PASSWORD_BYTES_MAX => Ok(password),
        _ => Err(PasswdError::Password("a password has at most 65535 bytes; nothing is changed")),
    }
}

/// Reads a line from the terminal without showing it.
fn hidden(prompt: &str) -> io::Result<Vec<u8>> {
    let mut stderr = io::stderr();
    stderr.write_all(prompt.as_bytes())?;
    stderr.flush()?;
    let quiet = Quiet::new()?;
    let mut line = Vec::new();
    let mut stdin = io::stdin().lock();
    let done = loop {
        let mut byte = [0];
        match stdin.read(&mut byte)? {
            0 => break true,
            _ => match byte[0] {
                b'\n' | b'\r' => break true,
                CTRL_C | CTRL_D => break false,
                BACKSPACE | DELETE => {
                    // A whole character: what continues one in UTF-8 goes with what begins it.
                    while line.pop().is_some_and(|byte| byte & 0xC0 == 0x80) {}
                }
                byte if line.len() <= PASSWORD_BYTES_MAX => line.push(byte),
                _ => {}
            },
        }
    };
    drop(quiet);
    stderr.write_all(b"\n")?;
    if done { Ok(line) } else { Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted; nothing is changed")) }
}

const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;
const BACKSPACE: u8 = 8;
const DELETE: u8 = 127;

/// The terminal shows nothing and passes on every key, Ctrl-C too: a process that dies of it would leave the terminal
/// like this.
struct Quiet(rustix::termios::Termios);

impl Quiet {
    fn new() -> io::Result<Quiet> {
        let before = tcgetattr(io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(io::stdin(), OptionalActions::Flush, &quiet)?;
        Ok(Quiet(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // Nothing is left to be done about an error here.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
