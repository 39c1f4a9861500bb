//! The user of the dashboard and the password: the first one, which everybody knows, until it is changed; then its hash, in
//! memory and in the data directory. No password is ever logged or stored.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use newtmq_access::{HashParams, PasswordHash, SALT_BYTES, Verifier};
use serde_json::{Value, json};

use crate::admin::write_whole;
use crate::config;
use crate::rt;

/// What came of a look at a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Login {
    /// It is another one, or another user.
    Wrong,
    /// It is the first one, which everybody knows.
    Known,
    /// It is the first one, which the operator has chosen.
    First,
    /// It is right.
    Right,
}

/// Why a password stays as it was.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChangeError {
    /// The operator's.
    #[error("the old password is wrong")]
    Wrong,
    /// The operator's.
    #[error("{0}")]
    Refused(&'static str),
    /// The environment's.
    #[error("the new password cannot be stored: {0}")]
    Io(#[from] io::Error),
}

/// The user and the password.
pub(super) struct Logins {
    file: Option<PathBuf>,
    /// The first password if the operator has chosen one.
    chosen: Option<config::Secret>,
    state: Mutex<State>,
}

struct State {
    /// Of the password; none while it is the first one.
    hash: Option<PasswordHash>,
    /// One at a time: a guess costs 19 MiB.
    verifier: Verifier,
}

impl Logins {
    /// As the data directory has it.
    ///
    /// # Errors
    /// The file is not as it is written here.
    pub(super) fn open(config: &config::Dashboard, data: Option<&Path>) -> anyhow::Result<Logins> {
        let file = data.map(|data| data.join(FILE));
        let mut hash = None;
        if let Some(path) = &file {
            match fs::read_to_string(path) {
                Ok(text) => hash = Some(read(&text).with_context(|| format!("{} is damaged", path.display()))?),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| path.display().to_string()),
            }
        }
        let state = Mutex::new(State { hash, verifier: Verifier::default() });
        // In a file of EMQ X it says what everybody knows.
        let chosen = config.first_password.clone().filter(|chosen| chosen.reveal() != FIRST);
        Ok(Logins { file, chosen, state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the password is still the first one, which everybody knows.
    pub(super) fn is_first(&self) -> bool {
        self.chosen.is_none() && self.state().hash.is_none()
    }

    /// Not for a thread that others wait for: it takes a password hash, whatever is wrong.
    pub(super) fn look(&self, name: &str, password: &str) -> Login {
        self.judge(&mut self.state(), name, password)
    }

    fn judge(&self, state: &mut State, name: &str, password: &str) -> Login {
        let State { hash, verifier } = state;
        let Some(hash) = hash.as_ref() else {
            verifier.pretend(password.as_bytes(), HashParams::default());
            let (first, login) = match &self.chosen {
                Some(chosen) => (chosen.reveal(), Login::First),
                None => (FIRST, Login::Known),
            };
            return if name == USER && same(first, password) { login } else { Login::Wrong };
        };
        let is_right = verifier.verify(password.as_bytes(), hash);
        if is_right && name == USER { Login::Right } else { Login::Wrong }
    }

    /// Takes another password in place of the old one. Not for a thread that others wait for.
    ///
    /// # Errors
    /// The old one is wrong, the new one is no good, or it cannot be stored.
    pub(super) fn change(&self, old: &str, new: &str) -> Result<(), ChangeError> {
        let mut state = self.state();
        if self.judge(&mut state, USER, old) == Login::Wrong {
            return Err(ChangeError::Wrong);
        }
        if new.chars().count() < PASSWORD_MIN {
            return Err(ChangeError::Refused("a password has at least 8 characters"));
        }
        if new == old || new == USER {
            return Err(ChangeError::Refused("it must be another password"));
        }
        let salt: [u8; SALT_BYTES] = *rt::seed()?.first_chunk().expect("a seed is longer");
        let hashed = state.verifier.hash(new.as_bytes(), salt, HashParams::default());
        let hash = hashed.map_err(io::Error::other)?;
        if let Some(file) = &self.file {
            let users = json!([{ "name": USER, "hash": hash.to_string() }]);
            write_whole(file, &format!("{:#}\n", json!({ "version": 1, "users": users })))?;
        }
        state.hash = Some(hash);
        Ok(())
    }
}

/// How far a guess is right cannot be told from the time of a comparison.
fn same(one: &str, other: &str) -> bool {
    use sha2::{Digest as _, Sha256};
    Sha256::digest(one.as_bytes()) == Sha256::digest(other.as_bytes())
}

fn read(text: &str) -> anyhow::Result<PasswordHash> {
    let value: Value = serde_json::from_str(text)?;
    anyhow::ensure!(value["version"] == 1, "it is of another version");
    let users = value["users"].as_array().context("it has no users")?;
    let user = users.iter().find(|user| user["name"] == USER).context("it has no admin")?;
    Ok(PasswordHash::parse(user["hash"].as_str().context("admin has no hash")?)?)
}

/// The user.
pub(super) const USER: &str = "admin";
/// The first password, as in EMQ X.
const FIRST: &str = "public";
/// In the data directory.
const FILE: &str = "dashboard.json";
/// Characters of a password.
const PASSWORD_MIN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::data::tests::Scratch;

    #[test]
    fn the_first_password_is_good_until_it_is_changed_and_a_restart_knows_the_new_one() {
        let scratch = Scratch::new("dashboard-logins");
        fs::create_dir_all(&scratch.0).unwrap();
        let config = Config::default().dashboard;
        let logins = Logins::open(&config, Some(&scratch.0)).unwrap();
        assert!(logins.is_first());
        assert_eq!(logins.look("admin", "public"), Login::Known);
        for (name, password) in [("admin", "Public"), ("root", "public"), ("", ""), ("admin", "")] {
            assert_eq!(logins.look(name, password), Login::Wrong, "{name} {password}");
        }
        assert!(matches!(logins.change("wrong", "a good password"), Err(ChangeError::Wrong)));
        assert!(matches!(logins.change("public", "short"), Err(ChangeError::Refused(_))));
        assert!(matches!(logins.change("public", "public"), Err(ChangeError::Refused(_))));
        logins.change("public", "a good password").unwrap();
        assert!(matches!(logins.change("a good password", "a good password"), Err(ChangeError::Refused(_))));
        let again = Logins::open(&config, Some(&scratch.0)).unwrap();
        for logins in [logins, again] {
            assert!(!logins.is_first());
            assert_eq!(logins.look("admin", "a good password"), Login::Right);
            assert_eq!(logins.look("admin", "public"), Login::Wrong);
            assert_eq!(logins.look("Admin", "a good password"), Login::Wrong);
        }
        let path = scratch.0.join(FILE);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("$argon2id$") && !text.contains("good password"), "{text}");
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "{\"version\":1,\"users\":[]}").unwrap();
        let error = Logins::open(&config, Some(&scratch.0)).err().unwrap();
        assert!(format!("{error:#}").contains("dashboard.json is damaged: it has no admin"), "{error:#}");
    }

    #[test]
    fn every_guess_is_the_same_work() {
        let chosen = config::load_text("a", "dashboard.default_user.password = \"mine\"", &Default::default()).unwrap();
        let work = |logins: &Logins, name: &str, password: &str| {
            let before = logins.state().verifier.work();
            let _ = logins.look(name, password);
            logins.state().verifier.work() - before
        };
        let params = HashParams::default();
        let one = u64::from(params.memory_kib) * u64::from(params.passes);
        for config in [Config::default().dashboard, chosen.config.dashboard] {
            let logins = Logins::open(&config, None).unwrap();
            for (name, password) in
                [("admin", "public"), ("admin", "mine"), ("admin", "x"), ("root", "public"), ("", "")]
            {
                assert_eq!(work(&logins, name, password), one, "{name} {password}");
            }
            let first = if logins.is_first() { "public" } else { "mine" };
            logins.change(first, "a good password").unwrap();
            for (name, password) in [("admin", "a good password"), ("admin", "public"), ("root", "a good password")] {
                assert_eq!(work(&logins, name, password), one, "{name} {password}");
            }
        }
    }

    #[test]
    fn a_first_password_that_is_chosen_is_the_only_one() {
        let loaded = config::load_text("a", "dashboard.default_user.password = \"mine\"", &Default::default()).unwrap();
        let logins = Logins::open(&loaded.config.dashboard, None).unwrap();
        assert!(!logins.is_first());
        assert_eq!(logins.look("admin", "public"), Login::Wrong);
        assert_eq!(logins.look("admin", "mine"), Login::First);
        logins.change("mine", "another one").unwrap();
        assert_eq!(logins.look("admin", "mine"), Login::Wrong);
        let known = "dashboard.default_user.password = \"public\"";
        let known = config::load_text("a", known, &Default::default()).unwrap().config.dashboard;
        assert_eq!(Logins::open(&known, None).unwrap().look("admin", "public"), Login::Known);
    }
}
