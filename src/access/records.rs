//! What of access is not in a file: users and Client Identifiers with passwords, and bans. The cluster keeps them, or this
//! process if there is none; here they are as they are known, for logins, operators and shards. Whoever is connected and
//! should not be any more is sent away.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use newtmq_access::{AccountKind, Accounts, Ban, BanWho, Bans};
use newtmq_base::Instant;
use newtmq_cluster::meta::BlobKind;
use newtmq_node::{
    AdminCommand, ClientInfo, ClusterAnswer, From, OperatorCommand, ShardAnswer, ShardQuestion, Walk, Which,
};
use tokio::sync::Notify;

use crate::config::Zone;
use crate::driver::Office;
use crate::rt::{self, Clock, Stream};

/// Records as they are known. Clones are the same ones.
#[derive(Clone)]
pub struct Records(Arc<Inner>);

struct Inner {
    clock: Clock,
    /// Zones whose clients need not log in, and those where bans do not count.
    open: BTreeSet<String>,
    lenient: BTreeSet<String>,
    accounts: RwLock<Accounts>,
    bans: RwLock<BTreeMap<BanWho, Ban>>,
    office: OnceLock<Office<Stream>>,
    /// Who is to be sent away.
    unwelcome: Mutex<Unwelcome>,
    unwelcome_now: Notify,
    /// The log was told that what is written ends with the process.
    is_forgetful: AtomicBool,
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Records({:?}, {} bans)", self.accounts(), self.bans().len())
    }
}

/// Clients whose connections are to end.
#[derive(Debug, Default)]
struct Unwelcome {
    /// Of accounts that were deleted.
    accounts: BTreeSet<(AccountKind, Box<str>)>,
    /// Somebody was banned.
    banned: bool,
}

impl Unwelcome {
    fn is_empty(&self) -> bool {
        self.accounts.is_empty() && !self.banned
    }
}

impl Records {
    /// None so far.
    #[must_use]
    pub fn new(clock: Clock, zones: &BTreeMap<String, Zone>) -> Records {
        let which =
            |is: fn(&Zone) -> bool| zones.iter().filter(move |(_, zone)| is(zone)).map(|(name, _)| name.clone());
        Records(Arc::new(Inner {
            clock,
            open: which(|zone| !zone.enable_auth).collect(),
            lenient: which(|zone| !zone.enable_ban).collect(),
            accounts: RwLock::default(),
            bans: RwLock::default(),
            office: OnceLock::new(),
            unwelcome: Mutex::default(),
            unwelcome_now: Notify::new(),
            is_forgetful: AtomicBool::new(false),
        }))
    }

    /// The shards can be reached.
    pub fn reaches(&self, office: Office<Stream>) {
        let _ = self.0.office.set(office);
        self.tell_bans();
    }

    /// Users and Client Identifiers.
    pub fn accounts(&self) -> RwLockReadGuard<'_, Accounts> {
        self.0.accounts.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bans, those that have ended and are not deleted yet among them.
    pub fn bans(&self) -> RwLockReadGuard<'_, BTreeMap<BanWho, Ban>> {
        self.0.bans.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn accounts_mut(&self) -> RwLockWriteGuard<'_, Accounts> {
        self.0.accounts.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn bans_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<BanWho, Ban>> {
        self.0.bans.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn unwelcome(&self) -> MutexGuard<'_, Unwelcome> {
        self.0.unwelcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A record was written or deleted.
    pub fn changed(&self, kind: BlobKind, key: &str, value: Option<&[u8]>) {
        match kind {
            BlobKind::User => {
                let put = self.accounts_mut().put(key, value);
                if let (Some((kind, name)), None) = (put, value) {
                    self.deleted([(kind, name.into())]);
                }
            }
            BlobKind::Banned => {
                put_ban(&mut self.bans_mut(), key, value);
                self.tell_bans();
            }
            // Rules come from files.
            BlobKind::Acl | BlobKind::Will => {}
        }
    }

    /// These are all records.
    pub fn replaced<'a>(&self, all: impl Iterator<Item = (BlobKind, &'a str, &'a [u8])>) {
        let (mut accounts, mut bans) = (Accounts::default(), BTreeMap::new());
        for (kind, key, value) in all {
            match kind {
                BlobKind::User => drop(accounts.put(key, Some(value))),
                BlobKind::Banned => put_ban(&mut bans, key, Some(value)),
                BlobKind::Acl | BlobKind::Will => {}
            }
        }
        let before = std::mem::replace(&mut *self.accounts_mut(), accounts);
        *self.bans_mut() = bans;
        let mut gone: Vec<(AccountKind, Box<str>)> = Vec::new();
        for kind in AccountKind::ALL {
            let now = self.accounts();
            gone.extend(before.names(kind).filter(|name| !now.has(kind, name)).map(|name| (kind, name.into())));
        }
        self.deleted(gone);
        self.tell_bans();
    }

    /// The same as a cluster does it, for a node that has none.
    pub fn write_alone(&self, kind: BlobKind, key: &str, value: Option<&[u8]>, expected: Option<u64>) -> ClusterAnswer {
        let is_there = match kind {
            BlobKind::User => AccountKind::of_key(key).is_some_and(|(kind, name)| self.accounts().has(kind, name)),
            BlobKind::Banned => BanWho::of_key(key).is_some_and(|who| self.bans().contains_key(&who)),
            BlobKind::Acl | BlobKind::Will => false,
        };
        let refused = |why: &str| ClusterAnswer::Refused(why.to_owned());
        if expected == Some(0) && is_there {
            return refused("the value has another version");
        }
        if value.is_none() && !is_there {
            return refused("there is no such key");
        }
        if !self.0.is_forgetful.swap(true, Ordering::Relaxed) {
            tracing::warn!("this node has no node.listen: users and bans that are added to it end with the process");
        }
        self.changed(kind, key, value);
        ClusterAnswer::Done
    }

    /// Bans that ended before this are deleted, of a node that has no cluster.
    pub fn purge_alone(&self, seconds: u64) {
        self.bans_mut().retain(|_, ban| !ban.is_over(seconds));
    }

    fn deleted(&self, names: impl IntoIterator<Item = (AccountKind, Box<str>)>) {
        let mut unwelcome = self.unwelcome();
        let before = unwelcome.accounts.len();
        for name in names {
            if unwelcome.accounts.len() < UNWELCOME_MAX {
                unwelcome.accounts.insert(name);
            } else {
                tracing::warn!(
                    "more users were deleted at a time than can be looked for; connections of some of them stay"
                );
                break;
            }
        }
        if unwelcome.accounts.len() > before {
            self.0.unwelcome_now.notify_one();
        }
    }

    /// Tells the shards who is banned, and looks for those who are connected.
    fn tell_bans(&self) {
        let Some(office) = self.0.office.get() else { return };
        let bans = Arc::new(self.known_bans());
        self.unwelcome().banned |= !bans.is_empty();
        office.command(&AdminCommand::SetBans(bans));
        self.0.unwelcome_now.notify_one();
    }

    /// Those that have not ended, with their ends as the node's clock will show them.
    fn known_bans(&self) -> Bans {
        let (now, wall) = (self.0.clock.now(), rt::wall_time().0);
        let mut bans = Bans::default();
        for (who, ban) in self.bans().iter() {
            let until = ban.until.map_or(Instant::NEVER, |until| {
                now + Duration::from_millis(until.saturating_mul(1000).saturating_sub(wall).min(FAR_MS))
            });
            if now < until {
                bans.add(who, until);
            }
        }
        bans
    }

    /// Sends away who is connected and was banned or deleted, for as long as the node runs.
    pub async fn send_away(self) {
        // Who was on its way in at that moment is looked for once more.
        let (mut again, mut at) = (Unwelcome::default(), None);
        loop {
            let settled = async {
                match at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let is_due = tokio::select! {
                biased;
                () = self.0.unwelcome_now.notified() => false,
                () = settled => true,
            };
            if is_due {
                self.send_away_once(&std::mem::take(&mut again)).await;
                at = None;
            }
            let new = std::mem::take(&mut *self.unwelcome());
            if !new.is_empty() {
                self.send_away_once(&new).await;
                again.banned |= new.banned;
                again.accounts.extend(new.accounts);
                at = Some(tokio::time::Instant::now() + SETTLE);
            }
        }
    }

    async fn send_away_once(&self, unwelcome: &Unwelcome) {
        let Some(office) = self.0.office.get() else { return };
        let bans = if unwelcome.banned { self.known_bans() } else { Bans::default() };
        for shard in 0..office.shards() {
            let mut from = From::Start;
            loop {
                let walk = Walk { from, skip: 0, limit: STEP };
                let asked = office.ask(shard, ShardQuestion::Clients(Which::All, walk));
                let Ok(ShardAnswer::Clients(page)) = asked.await else { return };
                for info in &page.values {
                    if self.is_unwelcome(unwelcome, &bans, info) {
                        tracing::info!(client = %info.client, "a client that was banned or deleted is sent away");
                        let command = OperatorCommand::Kick(info.client.clone());
                        office.command_to(shard, AdminCommand::OfOperator(Box::new(command)));
                    }
                }
                match page.next {
                    Some(next) => from = next,
                    None => break,
                }
            }
        }
    }

    fn is_unwelcome(&self, unwelcome: &Unwelcome, bans: &Bans, info: &ClientInfo) -> bool {
        let ip: IpAddr = info.peer.ip();
        let zone = &*info.zone;
        if !self.0.lenient.contains(zone) && bans.has(self.0.clock.now(), &info.client, info.username.as_deref(), ip) {
            return true;
        }
        if unwelcome.accounts.is_empty() || self.0.open.contains(zone) {
            return false;
        }
        let gone = |kind, name: &str| {
            // It may have been added again meanwhile, which is for those who log in from then on.
            unwelcome.accounts.contains(&(kind, Box::from(name)))
        };
        info.username.as_deref().is_some_and(|name| gone(AccountKind::Username, name))
            || gone(AccountKind::ClientId, &info.client)
    }
}

fn put_ban(bans: &mut BTreeMap<BanWho, Ban>, key: &str, value: Option<&[u8]>) {
    let Some(who) = BanWho::of_key(key) else { return };
    match value.map(Ban::decode) {
        Some(Ok(ban)) => drop(bans.insert(who, ban)),
        Some(Err(error)) => {
            // A later version's: whoever it is, it was meant to keep somebody out.
            tracing::warn!(key, %error, "a ban that cannot be read counts without an end");
            let ban = Ban { reason: String::new(), by: String::new(), at: 0, until: None };
            bans.insert(who, ban);
        }
        None => drop(bans.remove(&who)),
    }
}

/// Names whose connections are looked for at a time.
const UNWELCOME_MAX: usize = 100_000;
/// Clients that are looked at at a time.
const STEP: usize = 1000;
/// A client that is on its way in is in by then, or was refused.
const SETTLE: Duration = Duration::from_secs(6);
/// Ends later than this are as good as none.
const FAR_MS: u64 = 100 * 365 * 86_400_000;

#[cfg(all(test, not(madsim)))]
mod tests {
    use super::*;

    fn ban(until: Option<u64>) -> Vec<u8> {
        Ban { reason: "r".to_owned(), by: "b".to_owned(), at: 1, until }.encode()
    }

    #[test]
    fn bans_end_and_what_cannot_be_read_does_not() {
        let records = Records::new(Clock::start(), &BTreeMap::new());
        let wall = rt::wall_time().0 / 1000;
        for (key, value) in [
            ("client_id:over", ban(Some(wall - 1))),
            ("client_id:on", ban(Some(wall + 100))),
            ("client_id:ever", ban(None)),
            ("client_id:far", ban(Some(u64::MAX))),
            ("client_id:later", vec![2, 0]),
            ("nobody", ban(None)),
        ] {
            records.changed(BlobKind::Banned, key, Some(&value));
        }
        let (bans, ip) = (records.known_bans(), [192, 0, 2, 1].into());
        let now = records.0.clock.now();
        let held = ["over", "on", "ever", "far", "later", "nobody"].map(|client| bans.has(now, client, None, ip));
        assert_eq!(held, [false, true, true, true, true, false]);
        let end = now + Duration::from_secs(101);
        assert!(!bans.has(end, "on", None, ip) && bans.has(end, "ever", None, ip));
    }

    #[test]
    fn who_is_gone_from_a_whole_table_is_looked_for() {
        let records = Records::new(Clock::start(), &BTreeMap::new());
        let table = |keys: &'static [&str]| keys.iter().map(|key| (BlobKind::User, *key, &b"x"[..]));
        records.replaced(table(&["username:a", "username:b", "clientid:c"]));
        records.changed(BlobKind::User, "username:d", Some(b"x"));
        assert!(records.unwelcome().is_empty());
        records.replaced(table(&["username:b"]));
        let gone: Vec<_> = records.unwelcome().accounts.iter().map(|(_, name)| name.to_string()).collect();
        assert_eq!(gone, ["a", "d", "c"]);
    }

    #[test]
    fn alone_it_is_as_in_a_cluster() {
        let records = Records::new(Clock::start(), &BTreeMap::new());
        let refused = |why: &str| ClusterAnswer::Refused(why.to_owned());
        for (value, expected, answer) in [
            (None, None, refused("there is no such key")),
            (Some(&b"x"[..]), Some(0), ClusterAnswer::Done),
            (Some(b"x"), Some(0), refused("the value has another version")),
            (Some(b"x"), None, ClusterAnswer::Done),
            (None, None, ClusterAnswer::Done),
            (None, None, refused("there is no such key")),
        ] {
            assert_eq!(records.write_alone(BlobKind::User, "username:a", value, expected), answer);
        }
    }
}
