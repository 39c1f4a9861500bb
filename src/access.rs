//! Who may connect: answers the questions of `client.authenticate` from the password file, away from the threads that
//! serve clients, for a password takes milliseconds to check. Reads that file and `acl_file`, at the start and again
//! whenever it is told to.

mod exchanges;
mod files;
#[cfg(not(madsim))]
mod http;
#[cfg(madsim)]
#[path = "access/no_http.rs"]
mod http;
mod jwt;
mod passwd;
mod records;
mod service;
#[cfg(all(test, not(madsim)))]
mod tests;

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use newtmq_access::{AccountKind, Judged, SCRAM_METHOD, ScramError, ScramServer, Throttle, Users, Verifier};
use newtmq_base::Instant;
use newtmq_mqtt::ReasonCode;
use newtmq_node::{AccessConfig, AdminCommand, Grant, Hook, HookSet, Question, Verdict};
use tokio::sync::mpsc;

use crate::config::{Access as Config, Secret};
use crate::driver::{Asked, Decider};
use crate::reload::{Prepared, Reload};
use crate::rt::{self, Clock};
use crate::settings;
use exchanges::Exchanges;
pub use files::FileError;
use http::Http;
use jwt::{Bearer, Jwt};
pub use passwd::{Passwd, PasswdError, ask as ask_password, passwd};
pub use records::Records;

/// Questions that wait for a thread. At the limit a client is told that the server is busy.
const QUEUE_MAX: usize = 1024;
/// Most threads that check passwords; there are no more than half of the processor's.
const THREADS_MAX: usize = 4;
/// Between two lines of the log about the same trouble.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// The files of a broker and what they lead to.
#[derive(Debug)]
pub struct Access {
    /// As it was read last.
    config: Arc<RwLock<Config>>,
    shared: Arc<Shared>,
    decider: Option<Decider>,
    hooks: HookSet,
    rules: AccessConfig,
}

/// How logins went, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Logins {
    /// The password or proof was right.
    pub accepted: u64,
    /// It was not, or was not given.
    pub failed: u64,
    /// Refused without a look, because too many had failed.
    pub throttled: u64,
    /// Refused because too many were waiting, or the answer would have been too late.
    pub busy: u64,
    /// Addresses and user names whose failures were forgotten to make room.
    pub throttle_evicted: u64,
    /// SCRAM exchanges that were given up to make room.
    pub exchanges_evicted: u64,
}

/// What the threads share.
#[derive(Debug)]
struct Shared {
    allow_anonymous: AtomicBool,
    clock: Clock,
    /// How long a client waits for an answer.
    patience: Duration,
    users: RwLock<Option<Arc<Users>>>,
    /// Keys of tokens; none if no token is looked at.
    jwt: RwLock<Option<Arc<Jwt>>>,
    /// A service that decides.
    http: Option<Arc<Http>>,
    /// Users and Client Identifiers that were added while it runs; none if that is off.
    records: Option<Records>,
    throttle: Mutex<Throttle>,
    exchanges: Mutex<Exchanges>,
    accepted: AtomicU64,
    failed: AtomicU64,
    throttled: AtomicU64,
    busy: AtomicU64,
    /// When the last line about being busy was written, in nanoseconds since the start.
    warned: AtomicU64,
}

impl Access {
    /// Reads the files, and starts the threads if there is anything for them to do. A client waits for an answer as
    /// long as `patience` says, not longer.
    ///
    /// # Errors
    /// A file, or the operating system's.
    pub fn open(config: &Config, clock: Clock, patience: Duration, records: &Records) -> anyhow::Result<Access> {
        let Files { rules, users, jwt } = read(config)?;
        let http = Http::new(&config.http);
        let authenticates = users.is_some();
        let checks_acl = http.as_ref().is_some_and(|http| http.checks_acl());
        let shared = Arc::new(Shared {
            allow_anonymous: AtomicBool::new(config.allow_anonymous),
            clock,
            patience,
            users: RwLock::new(users),
            jwt: RwLock::new(jwt),
            http,
            records: config.user_table.then(|| records.clone()),
            throttle: Mutex::new(Throttle::new(settings::throttle(&config.login_throttle))),
            exchanges: Mutex::default(),
            accepted: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            throttled: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            warned: AtomicU64::new(0),
        });
        let decider = if authenticates || checks_acl { Some(start(&shared)?) } else { None };
        let none = HookSet::default();
        let hooks = if authenticates { none.with(Hook::ClientAuthenticate) } else { none };
        let hooks = if checks_acl { hooks.with(Hook::ClientCheckAcl) } else { hooks };
        Ok(Access { hooks, config: Arc::new(RwLock::new(config.clone())), shared, decider, rules })
    }

    /// The hooks that are answered here: none without a password file, so that a connection costs nothing more.
    #[must_use]
    pub fn hooks(&self) -> HookSet {
        self.hooks
    }

    /// Who answers them.
    #[must_use]
    pub fn decider(&self) -> Option<Decider> {
        self.decider.clone()
    }

    /// Whether there is anything to read again.
    #[must_use]
    pub fn has_files(&self) -> bool {
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner);
        let jwt = &config.jwt;
        let of_jwt = jwt.public_key.is_some() || jwt.jwks_file.is_some();
        config.acl_file.is_some() || config.password_file.is_some() || of_jwt
    }

    /// The rules as they were read at the start.
    #[must_use]
    pub fn rules(&self) -> AccessConfig {
        self.rules.clone()
    }

    /// Reads the files again, with a configuration that may be another one; but there are users if there were some at the start,
    /// and none otherwise. Nothing is changed until [`Ready::commit`].
    ///
    /// # Errors
    /// One of the files.
    pub fn prepare(&self, config: &Config) -> Result<Ready, FileError> {
        // It is on or off for as long as the process runs.
        let config = &Config { user_table: self.shared.records.is_some(), ..config.clone() };
        let same = {
            let holds = self.config.read().unwrap_or_else(PoisonError::into_inner);
            let files = holds.password_file.is_some() || config.password_file.is_some();
            !files && !config.users.is_empty() && holds.users == config.users
        };
        // Passwords that are the same need not be hashed again.
        let mut files =
            read(&Config { users: if same { Vec::new() } else { config.users.clone() }, ..config.clone() })?;
        if same {
            files.users = self.shared.users.read().unwrap_or_else(PoisonError::into_inner).clone();
        }
        let (shared, holds) = (Arc::clone(&self.shared), Arc::clone(&self.config));
        Ok(Ready { files, config: config.clone(), shared, holds })
    }

    /// How logins went.
    #[must_use]
    pub fn logins(&self) -> Logins {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Logins {
            accepted: count(&self.shared.accepted),
            failed: count(&self.shared.failed),
            throttled: count(&self.shared.throttled),
            busy: count(&self.shared.busy),
            throttle_evicted: lock(&self.shared.throttle).evicted(),
            exchanges_evicted: lock(&self.shared.exchanges).evicted(),
        }
    }
}

/// What the files have.
#[derive(Debug)]
struct Files {
    rules: AccessConfig,
    users: Option<Arc<Users>>,
    jwt: Option<Arc<Jwt>>,
}

/// Files that were read and found right.
#[derive(Debug)]
pub struct Ready {
    files: Files,
    config: Config,
    shared: Arc<Shared>,
    holds: Arc<RwLock<Config>>,
}

impl Ready {
    /// New passwords count from here on; the rules are for every shard ([`newtmq_node::AdminCommand::SetAccess`]).
    #[must_use]
    pub fn commit(self) -> AccessConfig {
        let Ready { files: Files { rules, users, jwt }, config, shared, holds } = self;
        *shared.users.write().unwrap_or_else(PoisonError::into_inner) = users;
        *shared.jwt.write().unwrap_or_else(PoisonError::into_inner) = jwt;
        shared.allow_anonymous.store(config.allow_anonymous, Ordering::Relaxed);
        let mut holds = holds.write().unwrap_or_else(PoisonError::into_inner);
        if holds.login_throttle != config.login_throttle {
            // What has failed under other limits is forgotten.
            *lock(&shared.throttle) = Throttle::new(settings::throttle(&config.login_throttle));
        }
        *holds = config;
        rules
    }
}

/// Checks the files without starting anything.
///
/// # Errors
/// One of them.
pub fn check(config: &Config) -> Result<(), FileError> {
    // Hashing passwords takes its time, and nothing can be wrong with them.
    read(&Config { users: Vec::new(), ..config.clone() }).map(drop)
}

/// The text of a password file for users whose passwords are known, as `newtmq passwd` would write it.
///
/// # Errors
/// A name that no user can have, or no random bytes.
pub fn password_file(users: &[(String, Secret)]) -> Result<String, FileError> {
    files::hashed(Path::new("users"), String::new(), users)
}

fn read(config: &Config) -> Result<Files, FileError> {
    let acl = config.acl_file.as_deref().map(files::acl).transpose()?;
    let users = if config.users.is_empty() {
        let of_file = config.password_file.as_deref().map(files::users).transpose()?;
        // Only those of the table, or who has a token, or nobody.
        of_file.or_else(|| {
            (config.user_table || config.jwt.is_on() || !config.http.auth.urls.is_empty()).then(Users::default)
        })
    } else {
        Some(files::with_passwords(config.password_file.as_deref(), &config.users)?)
    };
    let rules = AccessConfig { acl: acl.map(Arc::new), ..settings::access(config) };
    let jwt = Jwt::read(&config.jwt)?.map(Arc::new);
    Ok(Files { rules, users: users.map(Arc::new), jwt })
}

/// Starts the threads; the decider puts questions into their queue.
fn start(shared: &Arc<Shared>) -> io::Result<Decider> {
    let (sender, questions) = mpsc::channel::<(Instant, Asked)>(QUEUE_MAX);
    let worker = || {
        let (shared, mut verifier) = (Arc::clone(shared), Verifier::default());
        move |(since, asked): (Instant, Asked)| {
            // A client that was refused by now would cost as much as one that waits, and if many come at once all of
            // them would be looked at too late.
            let late = shared.clock.now() - since >= shared.patience;
            if late {
                return asked.answer.give(shared.busy());
            }
            match shared.decide(&mut verifier, &asked) {
                Decided::Here(verdict) => shared.give(asked, verdict),
                Decided::Elsewhere => shared.ask_service(asked),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |all| all.get() / 2).clamp(1, THREADS_MAX);
    rt::work("access", questions, (0..threads).map(|_| worker()).collect())?;
    let shared = Arc::clone(shared);
    Ok(Decider::new(move |asked| {
        if matches!(&*asked.question, Question::CheckAcl { .. }) {
            return shared.check_acl(asked);
        }
        if let Some(verdict) = shared.decide_at_once(&asked.question) {
            return shared.give(asked, verdict);
        }
        if let Err(error) = sender.try_send((shared.clock.now(), asked)) {
            let verdict = shared.busy();
            error.into_inner().1.answer.give(verdict);
        }
    }))
}

impl Shared {
    /// What needs no look at a file. On the driver's thread.
    fn asks_service(&self) -> bool {
        self.http.as_ref().is_some_and(|http| http.authenticates())
    }

    /// What needs no look at a file. On the driver's thread.
    fn decide_at_once(&self, question: &Question) -> Option<Verdict> {
        match question {
            Question::Authenticate { method: None, username: None, client, password, .. }
                if self.has_password(client)
                    || self.is_token(password.as_deref())
                    || (self.asks_service() && !self.allow_anonymous.load(Ordering::Relaxed)) =>
            {
                None
            }
            Question::Authenticate { method: None, username: None, .. }
                if self.allow_anonymous.load(Ordering::Relaxed) =>
            {
                Some(Verdict::Allow { data: None })
            }
            Question::Authenticate { method: None, username: None, .. } => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                Some(Verdict::Deny(ReasonCode::NotAuthorized))
            }
            Question::Authenticate { method: Some(method), .. } if &**method != SCRAM_METHOD => {
                Some(Verdict::Deny(ReasonCode::BadAuthenticationMethod))
            }
            Question::Authenticate { .. } => None,
            // Nobody here listens to these hooks.
            Question::CheckAcl { .. } | Question::Subscribe { .. } | Question::Publish { .. } => {
                Some(Verdict::Allow { data: None })
            }
        }
    }

    /// What may take time.
    fn decide(&self, verifier: &mut Verifier, asked: &Asked) -> Decided {
        let Question::Authenticate { conn, peer, client, username, password, method, data, will: _ } = &*asked.question
        else {
            return Decided::Here(Verdict::Deny(ReasonCode::ImplementationSpecificError));
        };
        let users = self.users.read().unwrap_or_else(PoisonError::into_inner).clone();
        let alone = method.is_none()
            && (self.has_password(client) || self.is_token(password.as_deref()) || self.asks_service());
        // What failures are counted by: a Client Identifier may have a password, and no User Name.
        let (Some(users), Some(name)) = (users, username.as_deref().or(alone.then_some(&**client))) else {
            // An exchange without a User Name: the rules would not know whom they are about.
            return Decided::Here(self.refuse(client, None, "no user name", ReasonCode::BadUserNameOrPassword));
        };
        let (now, ip) = (self.clock.now(), peer.ip());
        let key = (asked.shard, *conn);
        let exchange = lock(&self.exchanges).take(now, key);
        // At each step: many exchanges may have begun before the first one failed.
        if let Some(verdict) = self.throttled(now, ip, client, name) {
            return Decided::Here(verdict);
        }
        if method.is_none() {
            let password = password.as_deref().unwrap_or_default();
            if let Some(grant) = self.token(client, username.as_deref(), password) {
                lock(&self.throttle).succeeded(name);
                self.accepted.fetch_add(1, Ordering::Relaxed);
                return Decided::Here(Verdict::Grant(Box::new(grant)));
            }
            if self.asks_service() && !self.knows(&users, client, username.as_deref()) {
                if !users.is_empty() || self.records.is_some() {
                    // It takes as long as for a name that is known here.
                    let _ = users.verify_by(verifier, None, password);
                }
                return Decided::Elsewhere;
            }
            let right = self.is_right(verifier, &users, client, username.as_deref(), password);
            let login = if right { Ok(None) } else { Err("wrong user name or password") };
            return Decided::Here(self.outcome(ip, client, name, login));
        }
        let username = name;
        if self.records.as_ref().is_some_and(|records| !records.accounts().admits(client, Some(username))) {
            let why = "the client identifier has a password of its own";
            return Decided::Here(self.outcome(ip, client, username, Err(why)));
        }
        let data = data.as_deref().unwrap_or_default();
        Decided::Here(match exchange {
            Some(exchange) => {
                let answer = exchange.finish(data);
                self.outcome(ip, client, username, answer.map(Some).map_err(why))
            }
            None => match self.first_step(&users, username, data) {
                Ok((exchange, challenge)) => {
                    lock(&self.exchanges).put(now, key, exchange);
                    Verdict::Continue(challenge.into_bytes().into())
                }
                Err(why) => self.outcome(ip, client, username, Err(why)),
            },
        })
    }

    fn is_token(&self, password: Option<&[u8]>) -> bool {
        let looked_at = self.jwt.read().unwrap_or_else(PoisonError::into_inner).is_some();
        looked_at && password.and_then(jwt::looks_like_one).is_some()
    }

    /// Whether this Client Identifier needs a password, whoever says that it is his.
    fn has_password(&self, client: &str) -> bool {
        self.records.as_ref().is_some_and(|records| records.accounts().has(AccountKind::ClientId, client))
    }

    /// Whether a login is judged by something here, and by no service.
    fn knows(&self, users: &Users, client: &str, username: Option<&str>) -> bool {
        let Some(records) = &self.records else { return username.is_some_and(|name| users.get(name).is_some()) };
        let accounts = records.accounts();
        let of_file = username.is_some_and(|name| users.get(name).is_some());
        let of_name = username.is_some_and(|name| accounts.has(AccountKind::Username, name));
        of_file || of_name || accounts.has(AccountKind::ClientId, client)
    }

    /// What a password grants that is a token. If it grants nothing it may still be a password, and costs as much as one.
    fn token(&self, client: &str, username: Option<&str>, password: &[u8]) -> Option<Grant> {
        let jwt = self.jwt.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        let token = jwt::looks_like_one(password)?;
        let is_others = |records: &Records| !records.accounts().admits(client, username);
        if self.records.as_ref().is_some_and(is_others) {
            return None;
        }
        let seconds = rt::wall_time().0 / 1000;
        match jwt.check(token, Bearer { client, username }, seconds, self.clock.now()) {
            Ok(grant) => Some(grant),
            Err(why) => {
                tracing::debug!(client, username, why, "a token is refused");
                None
            }
        }
    }

    /// Whether a password is right. It takes one hash in any case: who is known is not told by the time.
    fn is_right(
        &self,
        verifier: &mut Verifier,
        users: &Users,
        client: &str,
        username: Option<&str>,
        password: &[u8],
    ) -> bool {
        let Some(records) = &self.records else {
            return users.verify(verifier, username.unwrap_or_default(), password);
        };
        let judge = || match records.accounts().judge(users, client, username) {
            Judged::By(hash) => Some(hash.clone()),
            Judged::Never => None,
        };
        let hash = judge();
        // Whoever was deleted meanwhile, or has another password, is not let in with the old one.
        users.verify_by(verifier, hash.as_ref(), password) && judge() == hash
    }

    /// The first step of a SCRAM exchange.
    fn first_step(&self, users: &Users, username: &str, message: &[u8]) -> Result<(ScramServer, String), &'static str> {
        let random = rt::seed().map_err(|_| "no random bytes")?;
        let nonce = std::array::from_fn(|at| random[at]);
        let (exchange, challenge) = ScramServer::start(message, nonce, |name| users.scram_keys(name)).map_err(why)?;
        // The rules of who may do what go by the User Name, so it must be the one that is proved.
        if exchange.username() != username {
            return Err("the exchange is about another user name");
        }
        Ok((exchange, challenge))
    }

    fn throttled(&self, now: Instant, ip: IpAddr, client: &str, username: &str) -> Option<Verdict> {
        let until = lock(&self.throttle).waits(now, ip, username)?;
        self.throttled.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(client, username, %ip, wait = ?(until - now), "login refused: too many have failed");
        Some(Verdict::Deny(ReasonCode::ConnectionRateExceeded))
    }

    fn outcome(
        &self,
        ip: IpAddr,
        client: &str,
        username: &str,
        login: Result<Option<String>, &'static str>,
    ) -> Verdict {
        match login {
            Ok(data) => {
                lock(&self.throttle).succeeded(username);
                self.accepted.fetch_add(1, Ordering::Relaxed);
                Verdict::Allow { data: data.map(|data| data.into_bytes().into()) }
            }
            Err(why) => {
                // From when it failed: a wait must not begin while the password is still looked at.
                lock(&self.throttle).failed(self.clock.now(), ip, username);
                self.refuse(client, Some(username), why, ReasonCode::BadUserNameOrPassword)
            }
        }
    }

    fn refuse(&self, client: &str, username: Option<&str>, why: &str, reason: ReasonCode) -> Verdict {
        self.failed.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(client, username, why, "login refused");
        Verdict::Deny(reason)
    }

    /// Counts, and writes a line once in a while.
    fn busy(&self) -> Verdict {
        let busy = self.busy.fetch_add(1, Ordering::Relaxed) + 1;
        let (now, last) = (self.clock.now(), self.warned.load(Ordering::Relaxed));
        let due = last == 0 || now - Instant::from_nanos(last) >= WARN_EVERY;
        let mark = now.as_nanos().max(1);
        if due && self.warned.compare_exchange(last, mark, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            tracing::warn!(busy, "more logins than passwords can be checked; clients are told that the server is busy");
        }
        Verdict::Deny(ReasonCode::ServerBusy)
    }
}

/// Who answers a question.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Decided {
    /// With this.
    Here(Verdict),
    /// A service does.
    Elsewhere,
}

fn why(error: ScramError) -> &'static str {
    match error {
        ScramError::Malformed => "SCRAM: a message is malformed",
        ScramError::ChannelBinding => "SCRAM: channel binding is not supported",
        ScramError::AuthorizationIdentity => "SCRAM: an authorization identity is not supported",
        ScramError::Extension => "SCRAM: an extension is not supported",
        ScramError::Mismatch => "SCRAM: the messages do not belong together",
        ScramError::Proof => "SCRAM: wrong user name or password",
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reload for Access {
    fn name(&self) -> String {
        "files of users and rules".to_owned()
    }

    fn has_files(&self) -> bool {
        Access::has_files(self)
    }

    fn prepare(self: Arc<Self>, config: &crate::config::Config) -> anyhow::Result<Prepared> {
        let ready = Access::prepare(&self, &config.access)?;
        Ok(Box::new(move || Some(AdminCommand::SetAccess(Box::new(ready.commit())))))
    }
}
