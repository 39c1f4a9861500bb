//! From the records of the log back to sessions and retained messages, before any shard is there. The log says nothing of
//! shards, so a node may start with another number of them.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use newtmq_base::{Instant, planted};
use newtmq_session::{Message, MessageId, Missing, Record, Restoring, SessionId, SessionLimits};

use crate::store::{RecoveredChunk, RecoveredRetained};

/// Everything that a log holds, as far as it was read.
#[derive(Debug, Default)]
pub struct Replay {
    sessions: BTreeMap<SessionId, Restoring>,
    retained: BTreeMap<String, RecoveredRetained>,
    /// Blocks of the segment that is being read.
    messages: BTreeMap<MessageId, Message>,
    now: Instant,
    lost: Lost,
    /// What the numbers of sessions and messages begin with.
    starts: BTreeSet<u16>,
}

/// What damage has taken: records that could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lost {
    /// Records that are none, or of a later version.
    pub unreadable: u64,
    /// Records of sessions that are not there.
    pub orphans: u64,
    /// Messages whose blocks are not there.
    pub messages: u64,
}

impl Replay {
    /// The block of a message.
    pub fn block(&mut self, id: u64, block: &[u8]) {
        self.starts.insert((id >> 48) as u16);
        match Message::from_block(block) {
            Some(message) => drop(self.messages.insert(MessageId(id), message)),
            None => self.lost.unreadable += 1,
        }
    }

    /// A segment has ended: later records refer to none of its blocks.
    pub fn segment_end(&mut self) {
        self.messages.clear();
    }

    /// A record, in the order of the log, and the segment that holds it.
    pub fn record(&mut self, bytes: &[u8], segment: u64) {
        match Record::decode(bytes) {
            Ok(record) => self.apply(record, segment),
            Err(_) => self.lost.unreadable += 1,
        }
    }

    fn apply(&mut self, record: Record, segment: u64) {
        let Replay { sessions, retained, messages, now, lost, starts } = self;
        let find = |id: MessageId| messages.get(&id).cloned();
        match record {
            Record::Time { now: stored } => *now = stored.max(*now),
            Record::Create { session, client, zone } => {
                starts.insert((session.0 >> 48) as u16);
                match Restoring::create(session, &client, &zone, segment) {
                    Some(restoring) => drop(sessions.insert(session, restoring)),
                    None => lost.unreadable += 1,
                };
            }
            Record::Snapshot(snapshot) => match Restoring::from_snapshot(&snapshot, segment, &find) {
                Some((restoring, missing)) => {
                    starts.insert((snapshot.session.0 >> 48) as u16);
                    lost.messages += missing.len() as u64;
                    sessions.insert(snapshot.session, restoring);
                }
                None => lost.unreadable += 1,
            },
            Record::End { session } => drop(sessions.remove(&session)),
            Record::Retain { topic, message: None } => drop(retained.remove(&topic)),
            Record::Retain { topic, message: Some((id, expires)) } => match find(id) {
                Some(message) => {
                    debug_assert_eq!(message.expires(), expires);
                    retained.insert(topic, RecoveredRetained { message, segment });
                }
                None => {
                    // The old one was replaced, whatever by.
                    retained.remove(&topic);
                    lost.messages += 1;
                }
            },
            record @ (Record::Claim { session, .. }
            | Record::Detach { session, .. }
            | Record::Subscribe { session, .. }
            | Record::Unsubscribe { session, .. }
            | Record::Reading { session, .. }
            | Record::Enqueue { session, .. }
            | Record::Ack { session, .. }
            | Record::Drop { session, .. }
            | Record::PubrecOut { session, .. }
            | Record::Qos2In { session, .. }
            | Record::Qos2Rel { session, .. }
            | Record::Will { session, .. }) => {
                if let Record::Detach { at, .. } = &record {
                    *now = (*at).max(*now);
                }
                match sessions.get_mut(&session).map(|restoring| restoring.apply(record, &find)) {
                    Some(Ok(()) | Err(Missing::Nothing)) => {}
                    Some(Err(Missing::Message(_))) => lost.messages += 1,
                    None => lost.orphans += 1,
                }
            }
        }
    }

    /// What could not be used so far.
    #[must_use]
    pub fn lost(&self) -> Lost {
        self.lost
    }

    /// The node's time when the log ended: where it goes on.
    #[must_use]
    pub fn now(&self) -> Instant {
        if planted!(TimeStartsOver) { Instant::START } else { self.now }
    }

    /// The low 16 bits of the incarnations that gave numbers to what the log has: another one must give those to come.
    #[must_use]
    pub fn starts(&self) -> &BTreeSet<u16> {
        &self.starts
    }

    /// Sessions and retained messages that there are.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.sessions.len(), self.retained.len())
    }

    /// Divides it among shards; `home` says which one a Client Identifier or a Topic Name belongs to, `limits` those of a
    /// zone. Of two sessions of one client the later one is the client's: the earlier one's end was lost.
    #[must_use]
    pub fn divide(
        self,
        shards: u16,
        home: impl Fn(&str) -> u16,
        limits: impl Fn(&str) -> SessionLimits,
    ) -> Vec<RecoveredChunk> {
        let chunk = || RecoveredChunk { sessions: Vec::new(), retained: Vec::new(), last: true };
        let mut chunks: Vec<RecoveredChunk> = (0..shards).map(|_| chunk()).collect();
        let mut clients: BTreeMap<String, SessionId> = BTreeMap::new();
        for (id, restoring) in &self.sessions {
            clients.insert(restoring.client().to_owned(), *id);
        }
        for (id, restoring) in self.sessions {
            if clients.get(restoring.client()) != Some(&id) {
                continue;
            }
            let shard = usize::from(home(restoring.client()));
            let limits = limits(restoring.zone());
            chunks[shard].sessions.push(restoring.finish(&limits));
        }
        for (topic, retained) in self.retained {
            chunks[usize::from(home(&topic))].retained.push(retained);
        }
        chunks
    }
}

/// What the clock may be behind at most when a log is read: how much longer something may live.
pub const TIME_BEHIND_MAX: Duration = Duration::from_secs(10);
