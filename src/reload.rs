//! What is read again while the broker runs, when SIGHUP or `newtmq ctl reload` asks for it: the configuration, users, rules
//! and certificates. Everything is read first, and nothing is changed unless all of it is right. What cannot be changed
//! without a restart is named.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use newtmq_node::AdminCommand;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::config::{self, Access, CERTIFICATE_FOLDER, Change, Config, Listener, Loaded, LogLevel, Problems, Sources};
use crate::logging::LevelSwitch;
use crate::rt::ReloadSignals;

/// Something that can be read again.
pub trait Reload: Send + Sync {
    /// For the log: what it is.
    fn name(&self) -> String;

    /// Whether it has files, so that there is something to read again without another configuration.
    fn has_files(&self) -> bool;

    /// Reads it again, with a configuration that may be another one, and changes nothing.
    ///
    /// # Errors
    /// What is there is not right.
    fn prepare(self: Arc<Self>, config: &Config) -> anyhow::Result<Prepared>;
}

/// Puts what was read in the place of what was there. What the shards have to know of it is a command.
pub type Prepared = Box<dyn FnOnce() -> Option<AdminCommand> + Send>;

/// Somebody who waits for what comes of it.
pub type Asked = oneshot::Sender<Report>;

/// What a broker was started with, to be read again.
#[derive(Debug)]
pub struct Reading {
    /// Where from.
    pub sources: Sources,
    /// What they said at the start.
    pub loaded: Loaded,
    /// The data directory.
    pub data: Option<PathBuf>,
    /// Sets the level of the log.
    pub level: LevelSwitch,
}

/// What came of reading again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What was read.
    pub read: Vec<String>,
    /// What is different from here on.
    pub changed: Vec<Change>,
    /// What will be different after a restart.
    pub restart: Vec<Change>,
    /// What is wrong. Nothing was changed then.
    pub errors: Vec<String>,
}

impl Report {
    /// For people.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        if !self.errors.is_empty() {
            let head = "Nothing is changed:".to_owned();
            return std::iter::once(head).chain(self.errors.iter().map(|error| format!("  {error}"))).collect();
        }
        let read = self.read.iter().map(|name| format!("Read again: {name}"));
        let changed = self.changed.iter().map(|change| format!("Changed: {change}"));
        let restart = self.restart.iter().map(|change| format!("Needs a restart: {change}"));
        let none = (self.changed.is_empty() && self.restart.is_empty())
            .then(|| "Nothing of the configuration has changed.".to_owned());
        read.chain(changed).chain(restart).chain(none).collect()
    }

    /// For programs.
    #[must_use]
    pub fn data(&self) -> Value {
        let of = |changes: &[Change]| -> Vec<Value> {
            let one = |change: &Change| json!({ "key": change.key, "from": change.from, "to": change.to });
            changes.iter().map(one).collect()
        };
        json!({
            "read": self.read,
            "changed": of(&self.changed),
            "restart": of(&self.restart),
            "errors": self.errors,
        })
    }
}

/// The configuration that holds and the values that led to it, for those who only look.
pub type Holds = Arc<RwLock<(Config, BTreeMap<String, String>)>>;

/// Reads everything again, each time somebody asks, one after the other.
pub struct Reloader {
    reading: Option<Reading>,
    /// What holds, which is what was read last but for what needs a restart.
    config: Config,
    values: BTreeMap<String, String>,
    /// A level of the log that is still to be set.
    level: Option<LogLevel>,
    all: Vec<Arc<dyn Reload>>,
    commands: mpsc::Sender<AdminCommand>,
    holds: Holds,
}

impl Reloader {
    /// For a broker that runs with `config`.
    #[must_use]
    pub fn new(
        reading: Option<Reading>,
        config: Config,
        all: Vec<Arc<dyn Reload>>,
        commands: mpsc::Sender<AdminCommand>,
    ) -> Reloader {
        let values = reading.as_ref().map(|reading| reading.loaded.values()).unwrap_or_default();
        let holds = Arc::new(RwLock::new((config.clone(), values.clone())));
        Reloader { reading, config, values, level: None, all, commands, holds }
    }

    /// What holds, for those who only look.
    #[must_use]
    pub fn holds(&self) -> Holds {
        Arc::clone(&self.holds)
    }

    /// Whether there is any file to be read again.
    #[must_use]
    pub fn has_files(&self) -> bool {
        let has_file = self.reading.as_ref().is_some_and(|reading| reading.sources.file.is_some());
        has_file || self.all.iter().any(|one| one.has_files())
    }

    /// Reloads at each signal and whenever it is asked to. Without `signals` it is only asked.
    pub async fn run(mut self, mut signals: Option<ReloadSignals>, asked: mpsc::Receiver<Asked>) {
        let mut asked = Some(asked);
        loop {
            let signal = async {
                match &mut signals {
                    Some(signals) => signals.next().await,
                    None => std::future::pending().await,
                }
            };
            let question = async {
                match &mut asked {
                    Some(asked) => asked.recv().await,
                    None => std::future::pending().await,
                }
            };
            let who = tokio::select! {
                biased;
                who = question => {
                    if who.is_none() {
                        // Nobody can ask: there is no socket, or the control plane is gone.
                        asked = None;
                        continue;
                    }
                    who
                }
                () = signal => None,
            };
            let report = self.reload().await;
            if let Some(who) = who {
                // Who asked may be gone.
                let _ = who.send(report);
            }
        }
    }

    async fn reload(&mut self) -> Report {
        let report = match self.look() {
            Ok((report, commit)) => {
                for commit in commit {
                    if let Some(command) = commit() {
                        // The drivers may be gone, and nobody needs it.
                        let _ = self.commands.send(command).await;
                    }
                }
                report
            }
            Err(errors) => Report { errors, ..Report::default() },
        };
        for change in &report.changed {
            tracing::info!("changed: {change}");
        }
        for change in &report.restart {
            tracing::warn!("needs a restart: {change}");
        }
        if report.errors.is_empty() {
            for name in &report.read {
                tracing::info!("read the {name} again");
            }
        }
        self.set_level();
        report
    }

    fn set_level(&mut self) {
        if let (Some(level), Some(reading)) = (self.level.take(), &self.reading) {
            reading.level.set(level);
        }
    }

    /// Reads everything. If it is right, says what is to be done, and takes it for done.
    fn look(&mut self) -> Result<(Report, Vec<Prepared>), Vec<String>> {
        let new = self.read_again().map_err(|Problems(problems)| {
            tracing::error!("the configuration stays as it was: {}", Problems(problems.clone()));
            problems.iter().map(ToString::to_string).collect::<Vec<_>>()
        })?;
        let mut report = Report::default();
        let mut config = self.config.clone();
        let mut values = self.values.clone();
        if let Some(new) = &new {
            // The table is on or off for as long as the process runs, and so is a service that decides.
            let (user_table, http) = (self.config.access.user_table, self.config.access.http.clone());
            let wanted = Access { user_table, http, ..new.config.access.clone() };
            let logins = has_users(&self.config.access) == has_users(&wanted);
            adopt(&mut config, &new.config, logins);
            for change in config::changes(&self.values, &self.config, new) {
                if is_live(&change.key, logins, &self.config.listeners) {
                    let _ = match &change.to {
                        Some(to) => values.insert(change.key.clone(), to.clone()),
                        None => values.remove(&change.key),
                    };
                    report.changed.push(change);
                } else {
                    report.restart.push(change);
                }
            }
        }
        let (mut prepared, mut errors) = (Vec::new(), Vec::new());
        for one in &self.all {
            match Arc::clone(one).prepare(&config) {
                Ok(ready) => {
                    if one.has_files() {
                        report.read.push(one.name());
                    }
                    prepared.push(ready);
                }
                Err(error) => {
                    tracing::error!("the {} stay as they were read before: {error:#}", one.name());
                    errors.push(format!("{}: {error:#}", one.name()));
                }
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        // What is told about it is to be seen: with the old level or with the new one.
        self.level = (config.log.level != self.config.log.level).then_some(config.log.level);
        if config.log.level < self.config.log.level {
            self.set_level();
        }
        (self.config, self.values) = (config, values);
        *self.holds.write().unwrap_or_else(PoisonError::into_inner) = (self.config.clone(), self.values.clone());
        Ok((report, prepared))
    }

    /// None if there is no file.
    fn read_again(&self) -> Result<Option<Loaded>, Problems> {
        let Some(reading) = self.reading.as_ref().filter(|reading| reading.sources.file.is_some()) else {
            return Ok(None);
        };
        let certificates = reading.data.as_ref().map(|data| data.join(CERTIFICATE_FOLDER));
        let loaded = config::load(&reading.sources)?.with_certificates(certificates.as_deref())?;
        loaded.with_storage(reading.data.is_some()).map(Some)
    }
}

impl std::fmt::Debug for Reloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloader").field("reading", &self.reading).finish_non_exhaustive()
    }
}

fn has_users(access: &Access) -> bool {
    let by_others = access.user_table || access.jwt.is_on() || !access.http.auth.urls.is_empty();
    access.password_file.is_some() || !access.users.is_empty() || by_others
}

/// Takes over what can be changed while it runs. Without `logins` nobody's password was looked at before, or nobody's would be
/// from here on.
fn adopt(config: &mut Config, new: &Config, logins: bool) {
    let old = std::mem::replace(&mut config.access, new.access.clone());
    (config.access.user_table, config.access.http) = (old.user_table, old.http);
    if !logins {
        let access = &mut config.access;
        (access.allow_anonymous, access.password_file) = (old.allow_anonymous, old.password_file);
        (access.users, access.jwt) = (old.users, old.jwt);
    }
    config.log.level = new.log.level;
    config.memory.clone_from(&new.memory);
    for listener in &mut config.listeners {
        let same = |other: &&Listener| other.path() == listener.path();
        if let Some(other) = new.listeners.iter().find(same) {
            let handshake_timeout = listener.tls.handshake_timeout;
            listener.access.clone_from(&other.access);
            listener.max_conn_rate = other.max_conn_rate;
            listener.tls = config::Tls { handshake_timeout, ..other.tls.clone() };
        }
    }
}

/// Whether a key can be changed while this broker runs.
fn is_live(key: &str, logins: bool, listeners: &[Listener]) -> bool {
    config::is_live(key)
        && match key.split('.').collect::<Vec<_>>().as_slice() {
            ["allow_anonymous" | "password_file"] | ["auth", "user"] | ["jwt", _] => logins,
            ["listener", transport, name, ..] => {
                listeners.iter().any(|listener| listener.name == *name && listener.transport.word() == *transport)
            }
            _ => true,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(text: &str) -> Loaded {
        config::load_text("a.toml", text, &Sources::default()).unwrap()
    }

    #[test]
    fn what_is_told() {
        let old = reading(
            "log.level = \"info\"\nzone.external.max_inflight = 32\nacl_nomatch = \"allow\"\nnode.cookie = \"a\"",
        );
        let new = reading(
            "log.level = \"warn\"\nzone.external.max_inflight = 64\nacl_cache_ttl = \"60s\"\nnode.cookie = \"b\"",
        );
        let changes = config::changes(&old.values(), &old.config, &new);
        let (changed, restart) =
            changes.into_iter().partition(|change| is_live(&change.key, true, &old.config.listeners));
        let report = Report { read: vec!["users".to_owned()], changed, restart, errors: Vec::new() };
        insta::assert_snapshot!(format!("{}\n{}", report.lines().join("\n"), report.data()));
        let wrong = Report { errors: vec!["a.toml:1: b".to_owned()], ..Report::default() };
        assert_eq!(wrong.lines(), ["Nothing is changed:", "  a.toml:1: b"]);
        assert_eq!(Report::default().lines(), ["Nothing of the configuration has changed."]);
    }

    #[test]
    fn which_keys_are_live() {
        let listeners = reading("listener.ssl.a.bind = 1\nlistener.tcp.b = 2").config.listeners;
        for (key, logins, want) in [
            ("log.level", false, true),
            ("log.format", true, false),
            ("password_file", true, true),
            ("password_file", false, false),
            ("jwt.secret", false, false),
            ("jwt.secret", true, true),
            ("user_table", true, false),
            ("auth_http.timeout", true, false),
            ("listener.ssl.a.certfile", true, true),
            ("listener.ssl.a.sni.1.keyfile", true, true),
            ("listener.ssl.b.certfile", true, false),
            ("listener.ssl.a.bind", true, false),
            ("listener.tcp.b.zone", true, false),
            ("zone.external.max_inflight", true, false),
        ] {
            assert_eq!(is_live(key, logins, &listeners), want, "{key}");
        }
    }
}
