//! Users and bans that operators add while the broker runs. Passwords are hashed here, so that nothing else ever sees them:
//! neither the log of the cluster, nor a disk, nor another node.

use newtmq_access::{
    ACCOUNTS_MAX, AccountKind, BANS_MAX, Ban, BanKind, BanWho, HashParams, SALT_BYTES, User, Verifier,
    check_account_name,
};
use newtmq_cluster::meta::{BlobKind, Rejected};
use newtmq_node::{ClusterAnswer, ClusterCommand, From};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::audit::By;
use super::question::{Answer, Cursor, Fault, Part, Question};
use super::{Admin, Event};
use crate::config::Secret;
use crate::rt;

impl Admin {
    pub(super) async fn account(&self, question: Question) -> Result<Answer, Fault> {
        if !self.0.facts.config.access.user_table {
            let why = "no users can be added while it runs; set user_table = on, and start again";
            return Err(Fault::new(Fault::OTHER, why).with_status(409));
        }
        let accounts = || self.0.records.accounts();
        match question {
            Question::Accounts(kind, part) => {
                let accounts = accounts();
                let of = |name: &str| json!({ kind.name(): name });
                Ok(page(accounts.names(kind).map(|name| (name, of(name))), accounts.len(kind), &part))
            }
            Question::Account(kind, name) => match accounts().has(kind, &name) {
                true => Ok(Answer::of(json!({ kind.name(): name }))),
                false => Err(not_there(kind)),
            },
            Question::AddAccount(kind, name, password) => {
                check_account_name(&name).map_err(|why| Fault::new(Fault::TYPE, why))?;
                if accounts().has(kind, &name) {
                    return Err(
                        Fault::new(Fault::OTHER, format!("there is such a {} already", kind.name())).with_status(409)
                    );
                }
                if accounts().len(kind) >= ACCOUNTS_MAX {
                    return Err(Fault::new(Fault::OTHER, format!("there are {ACCOUNTS_MAX} already")).with_status(409));
                }
                self.set_account(kind, &name, &password, Some(0)).await
            }
            Question::UpdateAccount(kind, name, password) => {
                if !accounts().has(kind, &name) {
                    return Err(not_there(kind));
                }
                self.set_account(kind, &name, &password, None).await
            }
            Question::DeleteAccount(kind, name) => {
                if !accounts().has(kind, &name) {
                    return Err(not_there(kind));
                }
                self.write(BlobKind::User, kind.key(&name), None, None).await?;
                Ok(Answer::of(Value::Null))
            }
            _ => Err(Fault::new(Fault::OTHER, "no question about users")),
        }
    }

    async fn set_account(
        &self,
        kind: AccountKind,
        name: &str,
        password: &Secret,
        expected: Option<u64>,
    ) -> Result<Answer, Fault> {
        let value = hashed(password.clone()).await?;
        self.write(BlobKind::User, kind.key(name), Some(value.into_bytes()), expected).await?;
        Ok(Answer::of(json!({ kind.name(): name })))
    }

    pub(super) async fn banned(&self, question: Question) -> Result<Answer, Fault> {
        let seconds = rt::wall_time().0 / 1000;
        match question {
            Question::Bans(part) => {
                let bans = self.0.records.bans();
                let held: Vec<_> = bans.iter().filter(|(_, ban)| !ban.is_over(seconds)).collect();
                let keyed: Vec<_> = held.iter().map(|(who, ban)| (who.key(), shown(who, ban))).collect();
                Ok(page(keyed.iter().map(|(key, ban)| (key.as_str(), ban.clone())), keyed.len(), &part))
            }
            Question::Ban { who, reason, by, until } => {
                if until.is_some_and(|until| until <= seconds) {
                    return Err(Fault::new(Fault::TYPE, "until is in the past"));
                }
                let is_new = !self.0.records.bans().contains_key(&who);
                if is_new && self.0.records.bans().len() >= BANS_MAX {
                    return Err(Fault::new(Fault::OTHER, format!("there are {BANS_MAX} bans already")).with_status(409));
                }
                let ban = Ban { reason, by: by.unwrap_or_default(), at: seconds, until };
                self.write(BlobKind::Banned, who.key(), Some(ban.encode()), None).await?;
                Ok(Answer::of(shown(&who, &ban)))
            }
            Question::Unban(who) => {
                let is_there = self.0.records.bans().get(&who).is_some_and(|ban| !ban.is_over(seconds));
                if !is_there {
                    return Err(Fault::new(Fault::OTHER, "there is no such ban").with_status(404));
                }
                self.write(BlobKind::Banned, who.key(), None, None).await?;
                Ok(Answer::of(Value::Null))
            }
            _ => Err(Fault::new(Fault::OTHER, "no question about bans")),
        }
    }

    /// Lets the cluster have a record. Done means that this node knows it, and a quorum.
    async fn write(
        &self,
        kind: BlobKind,
        key: String,
        value: Option<Vec<u8>>,
        expected: Option<u64>,
    ) -> Result<(), Fault> {
        let (answer, answered) = oneshot::channel();
        let command = ClusterCommand::PutBlob { kind, key, value, expected };
        self.0.events.send(Event::Command { command, answer }).await.map_err(|_| Fault::stopping())?;
        match answered.await.map_err(|_| Fault::stopping())? {
            ClusterAnswer::Done => Ok(()),
            ClusterAnswer::Refused(why) if why == Rejected::Version.to_string() => {
                Err(Fault::new(Fault::OTHER, "somebody else has changed it meanwhile").with_status(409))
            }
            ClusterAnswer::Refused(why) if why == Rejected::NoSuchKey.to_string() => {
                Err(Fault::new(Fault::OTHER, "it was deleted meanwhile").with_status(404))
            }
            ClusterAnswer::Refused(why) => Err(Fault::new(Fault::RPC, why)),
            ClusterAnswer::Status(_) | ClusterAnswer::Examined(_) => Err(Fault::stopping()),
        }
    }

    /// Bans clients that connect too often, and has bans deleted that have ended, for as long as the shards run.
    pub async fn keep_watch(self, mut flaps: mpsc::Receiver<(u16, Box<str>)>) {
        let mut next = tokio::time::Instant::now() + PURGE_EVERY;
        loop {
            tokio::select! {
                biased;
                // First: however many are to be banned, those whose time is over go.
                () = tokio::time::sleep_until(next) => {
                    next = tokio::time::Instant::now() + PURGE_EVERY;
                    let seconds = rt::wall_time().0 / 1000;
                    if self.0.events.send(Event::Purge(seconds)).await.is_err() {
                        return;
                    }
                }
                flap = flaps.recv() => match flap {
                    Some((zone, client)) => self.ban_flapping(usize::from(zone), &client).await,
                    None => return,
                },
            }
        }
    }

    async fn ban_flapping(&self, zone: usize, client: &str) {
        let seconds = rt::wall_time().0 / 1000;
        // Another node may have been faster.
        let who = match BanWho::new(BanKind::ClientId, client) {
            Ok(who) => who,
            Err(why) => return tracing::warn!(client, why, "a client connects too often, and cannot be banned"),
        };
        if self.0.records.bans().get(&who).is_some_and(|ban| !ban.is_over(seconds)) {
            return;
        }
        let Some(zone) = self.0.facts.config.zones.values().nth(zone) else { return };
        let time = zone.flapping_banned_expiry_interval;
        tracing::warn!(client, for = ?time, "a client connects too often; it is banned");
        let question = Question::Ban {
            who,
            reason: "it has connected too often".to_owned(),
            by: Some("flapping".to_owned()),
            until: Some(seconds + time.as_secs().max(1)),
        };
        let by = By { who: "flapping".to_owned(), from: self.0.facts.node.clone() };
        if let Err(fault) = self.answer_for(&by, question).await {
            tracing::warn!(client, why = fault.message, "it could not be banned");
        }
    }
}

/// What a list of names has from a place on.
fn page<'a>(all: impl Iterator<Item = (&'a str, Value)>, count: usize, part: &Part) -> Answer {
    let after = match &part.cursor.from {
        From::After(name) => Some(name.clone()),
        From::Start | From::At(_) => None,
    };
    let mut rest = all.filter(|(name, _)| after.as_ref().is_none_or(|after| **name > **after)).skip(part.skip);
    let mut last = None;
    let mut values = Vec::new();
    for (name, value) in rest.by_ref().take(part.limit) {
        last = Some(name);
        values.push(value);
    }
    let more = rest.next().is_some();
    let next = last.filter(|_| more).map(|name| Cursor { from: From::After(name.into()), ..Cursor::default() });
    Answer { count: Some(count as u64), next, ..Answer::of(values.into()) }
}

fn shown(who: &BanWho, ban: &Ban) -> Value {
    json!({
        "who": who.text(),
        "as": who.kind().name(),
        "reason": ban.reason,
        "by": ban.by,
        "at": ban.at,
        "until": ban.until,
    })
}

fn not_there(kind: AccountKind) -> Fault {
    Fault::new(Fault::OTHER, format!("there is no such {}", kind.name())).with_status(404)
}

/// What is kept of a password. It takes its time, and memory: no more than some at a time.
async fn hashed(password: Secret) -> Result<String, Fault> {
    let failed = |_| Fault::stopping();
    let _turn = HASHES.acquire().await.map_err(failed)?;
    let work = move || -> Option<String> {
        let salt: [u8; SALT_BYTES] = *rt::seed().ok()?.first_chunk()?;
        let hash = Verifier::default().hash(password.reveal().as_bytes(), salt, HashParams::default()).ok()?;
        Some(User { password: Some(hash), scram: None }.to_string())
    };
    #[cfg(not(madsim))]
    let hash = tokio::task::spawn_blocking(work).await.map_err(|_| Fault::stopping())?;
    #[cfg(madsim)]
    let hash = work();
    hash.ok_or_else(|| Fault::new(Fault::OTHER, "the password cannot be hashed").with_status(503))
}

/// Passwords that are hashed at a time; more wait.
static HASHES: Semaphore = Semaphore::const_new(2);
/// How often bans are deleted that have ended.
const PURGE_EVERY: std::time::Duration = std::time::Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages() {
        let names = ["a", "b", "c", "d"];
        let of = |part: &Part| {
            let answer = page(names.iter().map(|name| (*name, Value::from(*name))), 4, part);
            (answer.data, answer.next.map(|next| next.to_string()), answer.count)
        };
        assert_eq!(of(&Part::page(1, 10)), (json!(["a", "b", "c", "d"]), None, Some(4)));
        assert_eq!(of(&Part::page(2, 2)), (json!(["c", "d"]), None, Some(4)));
        let from = |name: &str| Cursor { from: From::After(name.into()), ..Cursor::default() };
        let part = |cursor| Part { cursor, skip: 0, limit: 2 };
        assert_eq!(of(&part(Cursor::default())), (json!(["a", "b"]), Some("0.tb".to_owned()), Some(4)));
        assert_eq!(of(&part(from("b"))), (json!(["c", "d"]), None, Some(4)));
        assert_eq!(of(&part(from("d"))), (json!([]), None, Some(4)));
    }
}
