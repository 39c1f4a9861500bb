//! Who may use the HTTP API: applications with an id and a secret. Of a secret only its hash is kept, in memory and in the
//! data directory; it is told once, when the application is added, and never logged.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use newtmq_access::{HashParams, PasswordHash, SALT_BYTES, Verifier};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::config::Api;
use crate::rt;

/// An application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    /// Its id.
    pub id: String,
    /// Its name, for people.
    pub name: String,
    /// It may use the API.
    pub enabled: bool,
    hash: PasswordHash,
    /// It is in the configuration, and not in the file.
    configured: bool,
    /// What its secret was told by last: a keyed digest, so that most requests cost no password hash.
    known: Option<[u8; 32]>,
}

/// Why applications stay as they were.
#[derive(Debug, thiserror::Error)]
pub enum AppsError {
    /// The operator's.
    #[error("{0}")]
    Refused(&'static str),
    /// The operator's.
    #[error("there is an application with this id")]
    Taken,
    /// The operator's.
    #[error("this application is in the configuration; change it there")]
    Configured,
    /// The environment's.
    #[error("the file of applications: {0}")]
    Io(#[from] io::Error),
}

/// All applications.
pub struct Apps {
    file: Option<PathBuf>,
    key: [u8; 32],
    all: Mutex<BTreeMap<String, App>>,
    /// One at a time: a guess costs 19 MiB.
    verifier: Mutex<Verifier>,
}

impl std::fmt::Debug for Apps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Apps({})", self.all().len())
    }
}

impl Apps {
    /// Those of the configuration, and those that the data directory has.
    ///
    /// # Errors
    /// The file is not as it is written here.
    pub(super) fn open(config: &Api, data: Option<&Path>) -> anyhow::Result<Apps> {
        let file = data.map(|data| data.join(FILE));
        let mut all = BTreeMap::new();
        if let Some(path) = &file {
            match fs::read_to_string(path) {
                Ok(text) => all = read(&text).with_context(|| format!("{} is damaged", path.display()))?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| path.display().to_string()),
            }
        }
        let mut verifier = Verifier::default();
        if let (Some(id), Some(secret)) = (&config.app_id, &config.app_secret) {
            let hash = hash(&mut verifier, secret.reveal())?;
            let (id, name) = (id.clone(), "configured".to_owned());
            all.insert(id.clone(), App { id, name, enabled: true, hash, configured: true, known: None });
        }
        Ok(Apps { file, key: rt::seed()?, all: Mutex::new(all), verifier: Mutex::new(verifier) })
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, App>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them, by id.
    #[must_use]
    pub fn list(&self) -> Vec<App> {
        self.all().values().cloned().collect()
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<App> {
        self.all().get(id).cloned()
    }

    /// Adds one; returns its secret, which nobody is told again.
    ///
    /// # Errors
    /// The id is taken or no id; the file cannot be written.
    pub fn add(&self, id: &str, name: &str) -> Result<String, AppsError> {
        let is_id = (1..=64).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !is_id {
            return Err(AppsError::Refused("an id is 1 to 64 letters, digits, -, _ and ."));
        }
        if name.chars().count() > 255 || name.chars().any(char::is_control) {
            return Err(AppsError::Refused("a name is at most 255 characters without control characters"));
        }
        let secret = URL_SAFE_NO_PAD.encode(rt::seed()?);
        let hash = hash(&mut Verifier::default(), &secret).map_err(io::Error::other)?;
        let mut all = self.all();
        if all.contains_key(id) {
            return Err(AppsError::Taken);
        }
        if all.len() >= APPS_MAX {
            return Err(AppsError::Refused("there are too many applications"));
        }
        let app = App { id: id.to_owned(), name: name.to_owned(), enabled: true, hash, configured: false, known: None };
        all.insert(id.to_owned(), app);
        self.changed(&all).inspect_err(|_| drop(all.remove(id)))?;
        Ok(secret)
    }

    /// Permits or refuses one; none if there is none.
    ///
    /// # Errors
    /// It is in the configuration; the file cannot be written.
    pub fn enable(&self, id: &str, enabled: bool) -> Result<Option<App>, AppsError> {
        let mut all = self.all();
        let Some(app) = all.get_mut(id) else { return Ok(None) };
        if app.configured {
            return Err(AppsError::Configured);
        }
        app.enabled = enabled;
        let app = app.clone();
        self.changed(&all)?;
        Ok(Some(app))
    }

    /// Removes one; says whether there was one.
    ///
    /// # Errors
    /// It is in the configuration; the file cannot be written.
    pub fn delete(&self, id: &str) -> Result<bool, AppsError> {
        let mut all = self.all();
        if all.get(id).is_some_and(|app| app.configured) {
            return Err(AppsError::Configured);
        }
        let had = all.remove(id).is_some();
        self.changed(&all)?;
        Ok(had)
    }

    /// Whether an application may use the API with this secret. What is wrong takes a password hash, whatever it is; what is
    /// right does only the first time. Not for a thread that others wait for.
    #[must_use]
    pub fn permits(&self, id: &str, secret: &[u8]) -> bool {
        let digest = self.digest(id, secret);
        let app = self.get(id);
        if app.as_ref().is_some_and(|app| app.enabled && app.known == Some(digest)) {
            return true;
        }
        let mut verifier = self.verifier.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(app) = app else {
            verifier.pretend(secret, HashParams::default());
            return false;
        };
        let right = verifier.verify(secret, &app.hash) && app.enabled;
        if right && let Some(of) = self.all().get_mut(id).filter(|of| of.hash == app.hash) {
            of.known = Some(digest);
        }
        right
    }

    /// Whether what is right is known to be so, and takes no time.
    #[must_use]
    pub fn knows(&self, id: &str, secret: &[u8]) -> bool {
        let digest = self.digest(id, secret);
        self.get(id).is_some_and(|app| app.enabled && app.known == Some(digest))
    }

    /// With a key that nobody else has, so that how far a guess is right cannot be told from the time of a comparison.
    fn digest(&self, id: &str, secret: &[u8]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(id.as_bytes());
        mac.update(&[0]);
        mac.update(secret);
        mac.finalize().into_bytes().into()
    }

    fn changed(&self, all: &BTreeMap<String, App>) -> Result<(), AppsError> {
        let Some(file) = &self.file else { return Ok(()) };
        let kept = all.values().filter(|app| !app.configured);
        let apps: Vec<Value> = kept
            .map(|app| json!({ "id": app.id, "name": app.name, "enabled": app.enabled, "hash": app.hash.to_string() }))
            .collect();
        let text = format!("{:#}\n", json!({ "version": 1, "apps": apps }));
        write_whole(file, &text)?;
        Ok(())
    }
}

fn hash(verifier: &mut Verifier, secret: &str) -> anyhow::Result<PasswordHash> {
    let salt: [u8; SALT_BYTES] = *rt::seed()?.first_chunk().expect("a seed is longer");
    Ok(verifier.hash(secret.as_bytes(), salt, HashParams::default())?)
}

fn read(text: &str) -> anyhow::Result<BTreeMap<String, App>> {
    let value: Value = serde_json::from_str(text)?;
    anyhow::ensure!(value["version"] == 1, "it is of another version");
    let mut all = BTreeMap::new();
    for app in value["apps"].as_array().context("it has no apps")? {
        let text = |name: &str| app[name].as_str().map(str::to_owned).with_context(|| format!("an app without {name}"));
        let (id, name, hash) = (text("id")?, text("name")?, PasswordHash::parse(&text("hash")?)?);
        let enabled = app["enabled"].as_bool().unwrap_or(false);
        all.insert(id.clone(), App { id, name, enabled, hash, configured: false, known: None });
    }
    Ok(all)
}

/// A file that only its owner can read, from its first moment, and whole or as it was.
pub(crate) fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let temporary = path.with_extension("new");
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

/// In the data directory.
const FILE: &str = "applications.json";
/// Most applications.
const APPS_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::data::tests::Scratch;

    #[test]
    fn applications_are_kept_without_their_secrets() {
        let scratch = Scratch::new("apps");
        fs::create_dir_all(&scratch.0).unwrap();
        let config = Config::default().api;
        let apps = Apps::open(&config, Some(&scratch.0)).unwrap();
        let secret = apps.add("a", "An app").unwrap();
        assert!(matches!(apps.add("a", ""), Err(AppsError::Taken)));
        assert!(matches!(apps.add("a b", ""), Err(AppsError::Refused(_))));
        assert!(!apps.knows("a", secret.as_bytes()));
        assert!(apps.permits("a", secret.as_bytes()) && apps.knows("a", secret.as_bytes()));
        assert!(!apps.permits("a", b"wrong") && !apps.permits("b", secret.as_bytes()) && !apps.permits("a", b""));
        let path = scratch.0.join(FILE);
        assert!(!fs::read_to_string(&path).unwrap().contains(&secret) && !format!("{apps:?}").contains(&secret));
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = Apps::open(&config, Some(&scratch.0)).unwrap();
        assert!(again.permits("a", secret.as_bytes()));
        assert!(!again.enable("a", false).unwrap().unwrap().enabled);
        assert!(!again.permits("a", secret.as_bytes()) && !again.knows("a", secret.as_bytes()));
        assert!(again.delete("a").unwrap() && !again.delete("a").unwrap());
    }

    #[test]
    fn every_guess_is_the_same_work() {
        let apps = Apps::open(&Config::default().api, None).unwrap();
        let (on, off) = (apps.add("on", "").unwrap(), apps.add("off", "").unwrap());
        apps.enable("off", false).unwrap();
        let params = HashParams::default();
        for (id, secret) in [("on", "wrong"), ("on", ""), ("off", off.as_str()), ("nobody", &on), ("", ""), ("on", &on)]
        {
            let before = apps.verifier.lock().unwrap().work();
            let _ = apps.permits(id, secret.as_bytes());
            let work = apps.verifier.lock().unwrap().work() - before;
            assert_eq!(work, u64::from(params.memory_kib) * u64::from(params.passes), "{id}");
        }
    }

    #[test]
    fn a_configured_one_stays() {
        let config = Api {
            app_id: Some("admin".into()),
            app_secret: Some(crate::config::Secret::new("public")),
            ..Config::default().api
        };
        let apps = Apps::open(&config, None).unwrap();
        assert!(apps.permits("admin", b"public") && !apps.permits("admin", b"publi"));
        assert!(apps.delete("admin").is_err() && apps.enable("admin", false).is_err());
        assert!(apps.permits("admin", b"public"));
    }
}
