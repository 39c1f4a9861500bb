//! From the records of the log back to sessions and retained messages, before any shard is there. The log says nothing of
//! shards, so a node may start with another number of them.

use core::cmp::Reverse;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::sync::Arc;

use newtmq_base::{HashSeed, Incarnation, Instant, LookupMap, NodeId, ShardId, planted};
use newtmq_cluster::lane::Mark;
use newtmq_session::{HintRecord, Message, MessageId, Missing, Receivers, Record, Restoring, SessionId, SessionLimits};

use crate::shard::numbered_by;
use crate::store::{RecoveredChunk, RecoveredRetained};

/// Everything that a log holds, as far as it was read.
#[derive(Debug, Default)]
pub struct Replay {
    sessions: Sessions,
    zones: BTreeSet<Arc<str>>,
    retained: BTreeMap<String, RecoveredRetained>,
    /// By shard: what had come from other nodes.
    arrived: BTreeMap<u16, Arrived>,
    /// By number: messages that wait for other nodes, and the segments that have them.
    hints: BTreeMap<u64, (HintRecord, u64)>,
    /// Blocks of the segment that is being read.
    messages: BTreeMap<MessageId, Message>,
    now: Instant,
    lost: Lost,
    /// What the numbers of sessions and messages begin with.
    starts: BTreeSet<u16>,
}

/// What had come to a shard from other nodes.
#[derive(Debug, Default)]
struct Arrived {
    marks: BTreeMap<(NodeId, ShardId), Mark>,
    /// With their places in the order in which they came.
    guids: BTreeMap<[u8; 16], (u64, Vec<Receivers>)>,
    next: u64,
}

impl Arrived {
    fn mark(&mut self, node: NodeId, shard: ShardId, mark: Mark) {
        let known = self.marks.entry((node, shard)).or_insert(mark);
        *known = mark.max(*known);
    }

    fn guid(&mut self, guid: [u8; 16], receivers: Receivers) {
        if receivers == Receivers::Released {
            self.guids.remove(&guid);
            return;
        }
        self.next += 1;
        self.guids.entry(guid).or_insert((self.next, Vec::new())).1.push(receivers);
    }

    fn into_chunk(self) -> RecoveredChunk {
        let marks = self.marks.into_iter().map(|((node, shard), mark)| (node, shard, mark)).collect();
        let mut guids: Vec<_> = self.guids.into_iter().collect();
        guids.sort_unstable_by_key(|(_, (place, _))| *place);
        let each = |(guid, (_, all)): ([u8; 16], (u64, Vec<Receivers>))| all.into_iter().map(move |of| (guid, of));
        RecoveredChunk { marks, guids: guids.into_iter().flat_map(each).collect(), ..RecoveredChunk::default() }
    }
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
        let Replay { sessions, zones, retained, arrived, hints, messages, now, lost, starts } = self;
        let find = |id: MessageId| messages.get(&id).cloned();
        match record {
            Record::Time { now: stored } => *now = stored.max(*now),
            Record::Create { session, client, zone } => {
                starts.insert((session.0 >> 48) as u16);
                match Restoring::create(session, &client, shared(zones, &zone), segment) {
                    Some(restoring) => sessions.insert(restoring),
                    None => lost.unreadable += 1,
                };
            }
            Record::Snapshot(snapshot) => {
                let zone = shared(zones, &snapshot.zone);
                match Restoring::from_snapshot(&snapshot, zone, segment, &find) {
                    Some((restoring, missing)) => {
                        starts.insert((snapshot.session.0 >> 48) as u16);
                        lost.messages += missing.len() as u64;
                        sessions.insert(restoring);
                    }
                    None => lost.unreadable += 1,
                }
            }
            Record::End { session } => sessions.remove(session),
            Record::Mark { own, node, shard, inc, upto } => {
                let mark = Mark { inc: Incarnation(inc), upto };
                arrived.entry(own).or_default().mark(NodeId(node), ShardId(shard), mark);
            }
            Record::Guid { own, guid, receivers } => arrived.entry(own).or_default().guid(guid, receivers),
            Record::Hint(hint) => {
                starts.insert((hint.number >> 48) as u16);
                hints.insert(hint.number, (*hint, segment));
            }
            Record::HintDone { number } => _ = hints.remove(&number),
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
            | Record::Forwarding { session, .. }
            | Record::Forwarded { session, .. }
            | Record::Keep { session, .. }
            | Record::Epoch { session, .. }
            | Record::Given { session, .. }
            | Record::Gone { session, .. }
            | Record::Letter { session, .. }
            | Record::Will { session, .. }) => {
                if let Record::Detach { at, .. } = &record {
                    *now = (*at).max(*now);
                }
                match sessions.get_mut(session).map(|restoring| restoring.apply(record, &find)) {
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
        (self.sessions.list.len(), self.retained.len())
    }

    /// Messages that wait for other nodes.
    #[must_use]
    pub fn hints(&self) -> usize {
        self.hints.len()
    }

    /// Begins to divide it among shards. Of two sessions of one client the later one is the client's: the earlier one's end
    /// was lost.
    #[must_use]
    pub fn divide(self, shards: u16) -> Dividing {
        let mut arrived = self.arrived;
        // What came to shards that the node does not have any more is forgotten.
        let mut ready: Vec<_> =
            (0..shards).map(|shard| arrived.remove(&shard).unwrap_or_default().into_chunk()).collect();
        for (number, hint) in self.hints {
            // The shard that gave the number, if there is one: what is of one publisher stays in order.
            let shard = numbered_by(number) % shards;
            ready[usize::from(shard)].hints.push(hint);
        }
        let mut sessions = self.sessions.list;
        let mut clients: Vec<(&str, SessionId)> = sessions.iter().map(|of| (of.client(), of.id())).collect();
        clients.sort_unstable();
        let earlier = clients.windows(2).filter(|pair| pair[0].0 == pair[1].0).map(|pair| pair[0].1).collect();
        // They are taken from the end, the oldest first.
        sessions.sort_unstable_by_key(|of| Reverse(of.id()));
        Dividing { earlier, sessions, retained: self.retained.into_iter(), ready, ended: 0 }
    }
}

/// What was stored, on its way to the shards. What is handed out is not kept.
#[derive(Debug)]
pub struct Dividing {
    sessions: Vec<Restoring>,
    /// Sessions whose clients have later ones.
    earlier: BTreeSet<SessionId>,
    retained: btree_map::IntoIter<String, RecoveredRetained>,
    /// By shard.
    ready: Vec<RecoveredChunk>,
    /// Shards that have their last one.
    ended: u16,
}

impl Dividing {
    /// The next chunk and its shard: `at_once` sessions and retained messages, or all that are left. Every shard's last one
    /// comes at the end. `home` says which shard a Client Identifier or a Topic Name belongs to, `limits` those of a zone.
    pub fn next_chunk(
        &mut self,
        at_once: usize,
        home: impl Fn(&str) -> u16,
        limits: impl Fn(&str) -> SessionLimits,
    ) -> Option<(ShardId, RecoveredChunk)> {
        loop {
            let shard = if let Some(restoring) = self.sessions.pop() {
                if self.earlier.contains(&restoring.id()) {
                    continue;
                }
                let shard = home(restoring.client());
                let limits = limits(restoring.zone());
                self.ready[usize::from(shard)].sessions.push(restoring.finish(&limits));
                shard
            } else if let Some((topic, retained)) = self.retained.next() {
                let shard = home(&topic);
                self.ready[usize::from(shard)].retained.push(retained);
                shard
            } else {
                let chunk = self.ready.get_mut(usize::from(self.ended)).map(core::mem::take)?;
                self.ended += 1;
                return Some((ShardId(self.ended - 1), RecoveredChunk { last: true, ..chunk }));
            };
            let ready = &mut self.ready[usize::from(shard)];
            if ready.sessions.len() + ready.retained.len() >= at_once {
                let chunk = core::mem::take(ready);
                self.sessions.shrink_to_fit();
                return Some((ShardId(shard), chunk));
            }
        }
    }
}

/// Sessions in one piece of memory, which can be given back from its end: most of what a start needs is theirs.
#[derive(Debug)]
struct Sessions {
    list: Vec<Restoring>,
    /// Where each is.
    places: LookupMap<SessionId, u32>,
}

impl Default for Sessions {
    fn default() -> Self {
        // The node gives the numbers, so nobody can choose them badly.
        Sessions { list: Vec::new(), places: LookupMap::new(HashSeed::new(0)) }
    }
}

impl Sessions {
    fn insert(&mut self, restoring: Restoring) {
        match self.places.get(&restoring.id()) {
            Some(at) => self.list[*at as usize] = restoring,
            None => {
                let at = u32::try_from(self.list.len()).expect("memory holds fewer");
                self.places.insert(restoring.id(), at);
                self.list.push(restoring);
            }
        }
    }

    fn get_mut(&mut self, session: SessionId) -> Option<&mut Restoring> {
        let at = *self.places.get(&session)?;
        self.list.get_mut(at as usize)
    }

    fn remove(&mut self, session: SessionId) {
        let Some(at) = self.places.remove(&session) else { return };
        self.list.swap_remove(at as usize);
        if let Some(moved) = self.list.get(at as usize) {
            self.places.insert(moved.id(), at);
        }
    }
}

/// The one copy of a zone's name.
fn shared(zones: &mut BTreeSet<Arc<str>>, zone: &str) -> Arc<str> {
    if let Some(known) = zones.get(zone) {
        return Arc::clone(known);
    }
    let new: Arc<str> = zone.into();
    zones.insert(Arc::clone(&new));
    new
}

/// What the clock may be behind at most when a log is read: how much longer something may live.
pub const TIME_BEHIND_MAX: Duration = Duration::from_secs(10);
