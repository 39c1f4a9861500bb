//! Wills that outlive their node (docs/adr/0016). The meta group keeps them while their clients are connected, and decides who
//! publishes: whoever writes its name on a will first. The node of the client does when the will is due, the group's leader when
//! that node is down, and the node where the client is back in time writes that nobody does.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use newtmq_base::{Incarnation, Instant, NodeId, RequestId, ShardId, planted};
use newtmq_cluster::directory::{Client, Conn, Input};
use newtmq_cluster::lane::Epoch;
use newtmq_cluster::meta::{self, BlobKind, Command, Refusal, Rejected, RemovedBy};
use newtmq_cluster::owned::Phase;

use super::desk::Purpose;
use super::joint::{Cluster, Cx};
use crate::control::{ControlOutput, FromControl};
use crate::shard::shard_of;
use crate::wills::{KeptWill, WillName, WillNews, WillNote, WillRecord, WillSaid};

/// What this node wants of a will.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    /// The group is to keep it; whether the shard knows that it does.
    Kept(Bytes, bool),
    /// It is to be published, if nobody else has; whether the group has said that it has none.
    Due(bool),
    /// Its shard was told what it has to do, and says so when it is done.
    Told,
    /// The group is to forget it.
    Over,
    /// Nobody is to publish it.
    Cancelled,
}

/// Wills that are kept for this node, or that it has to do with.
#[derive(Debug, Default)]
pub(super) struct Wills {
    wanted: BTreeMap<WillName, Wanted>,
    /// What the group was asked, and of which.
    asked: BTreeMap<RequestId, WillName>,
    busy: BTreeSet<WillName>,
    /// Something about them may have changed.
    stale: BTreeSet<WillName>,
    /// What was asked of them came to nothing: it is asked again.
    again: BTreeSet<WillName>,
    /// Stored sessions of an earlier start that have a will, with the epoch by which their shards name it.
    stored: BTreeMap<Client, Epoch>,
    /// Of an earlier start, and no session has them: when they are due.
    orphans: BTreeMap<WillName, Instant>,
    /// Clients that have come back before all that the group keeps was known here, and by which epoch.
    back: BTreeMap<Client, Epoch>,
    /// Connections that ask for their session: whether with Clean Start.
    claims: BTreeMap<Client, (Conn, bool)>,
    /// Since when a node is away, as this leader sees it.
    away: BTreeMap<NodeId, Instant>,
    /// Those of others that this node has published.
    published: BTreeSet<WillName>,
    next_look: Instant,
    looks: u64,
    /// Since when all that is stored here is known.
    opened: Option<Instant>,
    /// The group has answered since: nothing of before this start is missing here. Until then what is said of sessions that were
    /// stored waits.
    caught_up: bool,
    waiting: Vec<WillNote>,
    /// Since when nobody has led, looked at each second.
    leaderless: Option<Instant>,
}

impl Cluster {
    pub(super) fn wills_deadline(&self) -> Instant {
        let is_idle = self.wills.wanted.is_empty() && self.wills.waiting.is_empty();
        if self.has_wills() || !is_idle { self.wills.next_look } else { Instant::NEVER }
    }

    /// Clients whose wills the cluster keeps for this start of this node, and whether they are to be let go of.
    pub fn kept_wills(&self) -> impl Iterator<Item = (Client, bool)> {
        let own = self.records("").filter(|(_, _, record)| self.is_me(record.owner));
        own.map(|(name, _, record)| (name.client, record.taken.is_some()))
    }

    fn has_wills(&self) -> bool {
        let mut wills = self.meta.view().state.blobs().range((BlobKind::Will, String::new())..);
        wills.next().is_some()
    }

    /// The wills that the group keeps of a client, or of all, in order.
    fn records<'a>(&'a self, of: &'a str) -> impl Iterator<Item = (WillName, u64, WillRecord)> + 'a {
        let blobs = self.meta.view().state.blobs().range((BlobKind::Will, of.to_owned())..);
        let blobs = blobs.take_while(move |((kind, key), _)| *kind == BlobKind::Will && key.starts_with(of));
        blobs.filter_map(|((_, key), blob)| {
            Some((WillName::of_key(key)?, blob.version, WillRecord::decode(&blob.value).ok()?))
        })
    }

    fn record(&self, name: &WillName) -> Option<(u64, WillRecord)> {
        let blob = self.meta.view().state.blobs().get(&(BlobKind::Will, name.key()))?;
        Some((blob.version, WillRecord::decode(&blob.value).ok()?))
    }

    fn is_me(&self, who: (NodeId, Incarnation)) -> bool {
        who == (self.node, self.incarnation)
    }

    /// The name of a will that a shard speaks of. That of a session that was stored may have an earlier epoch.
    fn named(&self, client: &Client, epoch: Epoch) -> WillName {
        let exact = WillName { client: client.clone(), epoch };
        if self.wills.stored.get(client) != Some(&epoch) {
            return exact;
        }
        let of = WillName::all_of(client);
        let own = self.records(&of).filter(|(name, _, record)| {
            let (owner, inc) = record.owner;
            owner == self.node && inc < self.incarnation && name.epoch <= epoch
        });
        own.last().map_or(exact, |(name, ..)| name)
    }

    /// Whether a session that was stored has this will.
    fn is_of_stored(&self, name: &WillName) -> bool {
        let stored = self.wills.stored.get(&name.client);
        stored.is_some_and(|epoch| self.named(&name.client, *epoch) == *name)
    }

    /// A shard says something of a will.
    pub(crate) fn will(&mut self, cx: &mut Cx<'_>, note: WillNote) {
        if !self.wills.caught_up && self.wills.stored.get(&note.client) == Some(&note.epoch) {
            self.wills.waiting.push(note);
            return;
        }
        let WillNote { client, epoch, said } = note;
        let name = self.named(&client, epoch);
        self.wills.stale.insert(name.clone());
        match said {
            WillSaid::Keep(will) => _ = self.wills.wanted.insert(name, Wanted::Kept(will, false)),
            WillSaid::Due if planted!(WillOfBothNodes) => self.tell_yours(cx, &name),
            WillSaid::Due => _ = self.wills.wanted.insert(name, Wanted::Due(false)),
            WillSaid::Over => {
                if self.wills.stored.get(&client) == Some(&epoch) {
                    self.wills.stored.remove(&client);
                }
                if !planted!(KeptWillNeverOver) {
                    self.wills.wanted.insert(name, Wanted::Over);
                }
            }
            WillSaid::Stored => _ = self.wills.stored.insert(client, epoch),
        }
    }

    /// All wills that the group keeps are other ones, or all that was stored here is known: what the group keeps for this node
    /// has a session, or is due.
    pub(super) fn wills_anew(&mut self, cx: &mut Cx<'_>) {
        if !self.told.open {
            return;
        }
        self.wills.opened.get_or_insert(cx.now);
        self.wills.stale.extend(self.wills.wanted.keys().cloned());
        let all: Vec<(WillName, u64, WillRecord)> = self.records("").collect();
        for (name, _, record) in all {
            self.will_changed(cx, &name, Some(record));
        }
    }

    /// The group has something else for a will.
    pub(super) fn on_will(&mut self, cx: &mut Cx<'_>, key: &str, value: Option<&[u8]>) {
        // What came before is read when all that is stored is known.
        if !self.told.open {
            return;
        }
        let Some(name) = WillName::of_key(key) else { return };
        let record = value.and_then(|value| WillRecord::decode(value).ok());
        self.will_changed(cx, &name, record);
    }

    fn will_changed(&mut self, cx: &mut Cx<'_>, name: &WillName, record: Option<WillRecord>) {
        self.wills.stale.insert(name.clone());
        let Some(record) = record else {
            self.wills.published.remove(name);
            self.wills.orphans.remove(name);
            return;
        };
        let is_own = record.owner.0 == self.node;
        match record.taken {
            Some(by) if self.is_me(by) => self.take_will(cx, name, &record),
            // Of a start of this node that published it or did not: what is stored knows, and what is not is gone.
            Some((by, _)) if is_own && by == self.node && self.is_of_stored(name) => {}
            Some((by, _)) if is_own && by == self.node => _ = self.wills.wanted.insert(name.clone(), Wanted::Over),
            Some(_) if is_own => self.will_is_over(cx, name),
            Some(_) => {}
            None if is_own && !self.wills.wanted.contains_key(name) => {
                if self.is_me(record.owner) {
                    self.wills.wanted.insert(name.clone(), Wanted::Over);
                } else if !self.is_of_stored(name) && !planted!(WillOfEarlierStartLost) {
                    self.is_orphan(cx.now, name, &record);
                }
            }
            None => {}
        }
    }

    /// A will of an earlier start of this node that no session has. It is due, unless its client had come back after it.
    fn is_orphan(&mut self, now: Instant, name: &WillName, record: &WillRecord) {
        let delay = KeptWill::decode(&record.will).map_or(0, |will| will.delay_s);
        let of = WillName::all_of(&name.client);
        let has_come = |known: &BTreeMap<Client, Epoch>| known.get(&name.client).is_some_and(|at| *at > name.epoch);
        let is_later = has_come(&self.wills.stored)
            || has_come(&self.wills.back)
            || self.records(&of).any(|(other, ..)| other.epoch > name.epoch);
        if delay > 0 && is_later {
            self.wills.wanted.insert(name.clone(), Wanted::Over);
        } else {
            let due = now + Duration::from_secs(u64::from(delay));
            self.wills.orphans.entry(name.clone()).or_insert(due);
        }
    }

    /// This node is the one that publishes it.
    fn take_will(&mut self, cx: &mut Cx<'_>, name: &WillName, record: &WillRecord) {
        if !self.wills.published.insert(name.clone()) {
            return;
        }
        if matches!(self.wills.wanted.get(name), Some(Wanted::Due(_))) {
            return self.tell_yours(cx, name);
        }
        self.say_will(cx, &name.client, WillNews::Publish { will: record.will.clone() });
        if record.owner.0 == self.node {
            self.wills.wanted.insert(name.clone(), Wanted::Over);
        }
    }

    fn tell_yours(&mut self, cx: &mut Cx<'_>, name: &WillName) {
        self.wills.wanted.insert(name.clone(), Wanted::Told);
        let epoch = self.as_said(name);
        self.say_will(cx, &name.client, WillNews::Yours { client: name.client.clone(), epoch });
    }

    /// Others have seen to it.
    fn will_is_over(&mut self, cx: &mut Cx<'_>, name: &WillName) {
        let is_stored = self.is_of_stored(name);
        match self.wills.wanted.get(name) {
            Some(Wanted::Told | Wanted::Over) => {}
            Some(Wanted::Kept(..) | Wanted::Due(_)) => self.tell_over(cx, name),
            Some(Wanted::Cancelled) | None if is_stored => self.tell_over(cx, name),
            Some(Wanted::Cancelled) | None => _ = self.wills.wanted.insert(name.clone(), Wanted::Over),
        }
    }

    fn tell_over(&mut self, cx: &mut Cx<'_>, name: &WillName) {
        self.wills.wanted.insert(name.clone(), Wanted::Told);
        let epoch = self.as_said(name);
        self.say_will(cx, &name.client, WillNews::Over { client: name.client.clone(), epoch });
    }

    /// The epoch by which a shard names it.
    fn as_said(&self, name: &WillName) -> Epoch {
        if self.is_of_stored(name) { self.wills.stored[&name.client] } else { name.epoch }
    }

    fn say_will(&self, cx: &mut Cx<'_>, client: &str, news: WillNews) {
        let to = ShardId(shard_of(self.node_seed, self.shards, client));
        cx.out.push(ControlOutput::Shard { to, message: FromControl::Will(Box::new(news)) });
    }

    /// A connection asks for its session, or is no more.
    pub(super) fn will_claimed(&mut self, input: &Input) {
        if let Input::Claim { client, conn, clean, .. } = input
            && (self.has_wills() || !self.wills.caught_up && !planted!(BackTooEarly))
        {
            self.wills.claims.insert(client.clone(), (*conn, *clean));
        }
        if let Input::Closed { client, conn } = input
            && self.wills.claims.get(client).is_some_and(|(of, _)| of == conn)
        {
            self.wills.claims.remove(client);
        }
    }

    /// It gets it, or (no epoch) does not: a delayed will of an earlier connection is not published if the session goes on. One
    /// without delay was due when that connection ended.
    pub(super) fn will_resumed(&mut self, now: Instant, client: &Client, epoch: Option<Epoch>) {
        let clean = self.wills.claims.remove(client).map(|(_, clean)| clean);
        let Some(epoch) = epoch.filter(|_| clean == Some(false) && !planted!(KeptWillNotCancelled)) else { return };
        if !self.wills.caught_up && !self.has_no_wills(now) {
            self.wills.back.insert(client.clone(), epoch);
        }
        let of = WillName::all_of(client);
        let is_earlier = |(name, _, record): &(WillName, u64, WillRecord)| {
            let delay = KeptWill::decode(&record.will).map_or(0, |will| will.delay_s);
            let is_here = self.wills.wanted.contains_key(name) || self.is_of_stored(name);
            name.epoch < epoch && record.taken.is_none() && delay > 0 && !is_here
        };
        let earlier: Vec<WillName> = self.records(&of).filter(is_earlier).map(|(name, ..)| name).collect();
        for name in earlier {
            self.wills.orphans.remove(&name);
            self.wills.stale.insert(name.clone());
            self.wills.wanted.insert(name, Wanted::Cancelled);
        }
    }

    /// Who has been open for so long, and follows a leader, knows of every will that the group keeps. Without any there is nothing
    /// to ask about, and none that a client could come back to.
    fn has_no_wills(&mut self, now: Instant) -> bool {
        let is_long = self.wills.opened.is_some_and(|at| at + KNOWN_AFTER <= now) && self.meta.view().leader.is_some();
        let is_idle = self.wills.wanted.is_empty() && self.wills.waiting.is_empty();
        let has_none = is_long && is_idle && !self.has_wills() && !planted!(ComersRemembered);
        if has_none {
            self.wills.caught_up = true;
            self.wills.back.clear();
        }
        has_none
    }

    /// How many clients are remembered that have come before all wills were known.
    #[cfg(test)]
    pub(super) fn comers(&self) -> usize {
        self.wills.back.len()
    }

    pub(super) fn tick_wills(&mut self, cx: &mut Cx<'_>) {
        if self.wills_deadline() > cx.now {
            return;
        }
        let is_late = self.wills.next_look + LOOK * 2 <= cx.now;
        self.wills.next_look = cx.now + LOOK;
        if !self.told.open {
            return;
        }
        let leaderless = self.wills.leaderless.filter(|_| !is_late).unwrap_or(cx.now);
        self.wills.leaderless = self.meta.view().leader.is_none().then_some(leaderless);
        let again = core::mem::take(&mut self.wills.again);
        self.wills.stale.extend(again);
        if !self.wills.caught_up && self.is_alone(cx.now) {
            self.catch_up(cx);
        } else if !self.wills.caught_up && self.wills.asked.is_empty() {
            // Of nobody: that there is none is an answer.
            self.write_will(cx.now, &WillName { client: "".into(), epoch: Epoch::ZERO }, None, 0);
        }
        let is_early = self.is_early(cx) || !self.wills.caught_up;
        let orphans = self.wills.orphans.iter().filter(|(_, due)| **due <= cx.now && !is_early);
        let due: Vec<WillName> = orphans.map(|(name, _)| name.clone()).collect();
        for name in due {
            self.take_for_oneself(cx.now, &name);
        }
        self.wills.looks += 1;
        let all_reached = self.members.keys().all(|node| self.reached.contains_key(node));
        if !self.meta.view().is_leader {
            self.wills.away.clear();
        } else if !is_early
            && !self.config.witness
            && (!all_reached || !self.wills.away.is_empty() || self.wills.looks.is_multiple_of(SELDOM))
        {
            self.look_for_the_dead(cx.now);
        }
    }

    fn catch_up(&mut self, cx: &mut Cx<'_>) {
        if core::mem::replace(&mut self.wills.caught_up, true) {
            return;
        }
        self.wills_anew(cx);
        self.wills.back.clear();
        for note in core::mem::take(&mut self.wills.waiting) {
            self.will(cx, note);
        }
    }

    /// Whose node has been away for long enough, and for the will's delay since: the leader publishes it.
    fn look_for_the_dead(&mut self, now: Instant) {
        if planted!(WillOfDeadNodeLost) {
            return;
        }
        let (mut due, mut over) = (Vec::new(), Vec::new());
        let mut away = BTreeMap::new();
        for (name, _, record) in self.records("") {
            let owner = record.owner.0;
            // Who has left may be reached all the same.
            let is_there = self.members.contains_key(&owner) || planted!(LeaversWillKept);
            if owner == self.node || self.reached.contains_key(&owner) && is_there {
                continue;
            }
            let since = *away.entry(owner).or_insert_with(|| self.wills.away.get(&owner).copied().unwrap_or(now));
            let delay = KeptWill::decode(&record.will).map_or(0, |will| will.delay_s);
            let delay = Duration::from_secs(u64::from(delay)) + self.config.meta.detect;
            match record.taken {
                None if since + delay <= now => due.push(name),
                Some(_) if self.never_returns(owner) || since + FORGET_AFTER <= now => over.push(name),
                Some(_) | None => {}
            }
        }
        self.wills.away = away;
        for name in due {
            self.take_for_oneself(now, &name);
        }
        for name in over {
            self.wills.stale.insert(name.clone());
            self.wills.wanted.insert(name, Wanted::Over);
        }
    }

    /// Nobody of this name comes back that would have to know which of its wills are published: it has left. Who was removed may be
    /// let in again.
    fn never_returns(&self, node: NodeId) -> bool {
        let state = self.meta.view().state;
        let removed = state.removed().get(&node);
        !state.members().contains_key(&node) && removed.is_none_or(|removed| removed.by == RemovedBy::Leave)
    }

    fn take_for_oneself(&mut self, now: Instant, name: &WillName) {
        let Some((version, record)) = self.record(name).filter(|(_, record)| record.taken.is_none()) else {
            self.wills.orphans.remove(name);
            return;
        };
        if !self.wills.busy.contains(name) {
            let taken = Some((self.node, self.incarnation));
            self.write_will(now, name, Some(WillRecord { taken, ..record }), version);
        }
    }

    /// Asks the group for what is wanted, of those wills about which something may have changed.
    pub(super) fn settle_wills(&mut self, cx: &mut Cx<'_>) {
        while self.told.open
            && self.wills.busy.len() < AT_ONCE
            && let Some(name) = self.wills.stale.pop_first()
        {
            if !self.wills.busy.contains(&name) {
                self.settle_will(cx, &name);
            }
        }
    }

    fn settle_will(&mut self, cx: &mut Cx<'_>, name: &WillName) {
        let Some(wanted) = self.wills.wanted.get(name).cloned() else { return };
        let record = self.record(name);
        let me = (self.node, self.incarnation);
        let taken = |record: WillRecord, by| Some(WillRecord { taken: Some(by), ..record });
        match (wanted, record) {
            (Wanted::Kept(will, told), Some((version, record))) => match record.taken {
                Some(_) => self.will_is_over(cx, name),
                None if record.will == will => {
                    if !told {
                        self.wills.wanted.insert(name.clone(), Wanted::Kept(will, true));
                        self.tell_kept(cx, name, true);
                    }
                }
                None => self.write_will(cx.now, name, Some(WillRecord { owner: me, taken: None, will }), version),
            },
            (Wanted::Kept(will, told), None) => {
                if !told && self.meta.view().leader.is_none() {
                    // Its client does not wait; as soon as somebody decides it is kept after all.
                    self.wills.wanted.insert(name.clone(), Wanted::Kept(will.clone(), true));
                    self.tell_kept(cx, name, false);
                }
                self.write_will(cx.now, name, Some(WillRecord { owner: me, taken: None, will }), 0);
            }
            (Wanted::Due(_), _) if self.is_early(cx) => _ = self.wills.again.insert(name.clone()),
            (Wanted::Due(_), _) if self.is_alone(cx.now) => self.tell_yours(cx, name),
            (Wanted::Due(_), Some((version, record))) => match record.taken {
                None => self.write_will(cx.now, name, taken(record, me), version),
                // It went no further before this start.
                Some((by, _)) if by == self.node => self.tell_yours(cx, name),
                Some(_) => self.will_is_over(cx, name),
            },
            (Wanted::Due(true), None) => self.tell_yours(cx, name),
            // It may have one that has not come here.
            (Wanted::Due(false), None) => self.write_will(cx.now, name, None, 0),
            (Wanted::Over, Some((version, _))) => self.write_will(cx.now, name, None, version),
            (Wanted::Over | Wanted::Cancelled, None) => _ = self.wills.wanted.remove(name),
            (Wanted::Cancelled, Some((version, record))) => match record.taken {
                Some(_) => _ = self.wills.wanted.remove(name),
                None if record.owner.0 == self.node => self.write_will(cx.now, name, None, version),
                None => {
                    let nobody = (NodeId(0), Incarnation(0));
                    self.write_will(cx.now, name, taken(record, nobody), version);
                }
            },
            (Wanted::Told, _) => {}
        }
    }

    /// Nobody decides, and not since a moment ago, or a pause of this node: what others do is another component's matter.
    fn is_alone(&self, now: Instant) -> bool {
        self.wills.leaderless.is_some_and(|since| now.saturating_since(since) >= ALONE_AFTER)
            && self.meta.view().leader.is_none()
    }

    /// A node that has just started does not reach those yet who would get a will.
    fn is_early(&self, cx: &Cx<'_>) -> bool {
        let opened = self.wills.opened.unwrap_or(cx.now);
        let is_open = |node: &NodeId| cx.owned.phase(*node) == Phase::Open;
        cx.now < opened + OPEN_WITHIN && !self.members.keys().all(is_open) && !planted!(WillsBeforeRoutes)
    }

    fn tell_kept(&self, cx: &mut Cx<'_>, name: &WillName, kept: bool) {
        let WillName { client, epoch } = name.clone();
        self.say_will(cx, &name.client, WillNews::Kept { client, epoch, kept });
    }

    /// Only if the group has just this version; 0 is none.
    fn write_will(&mut self, now: Instant, name: &WillName, record: Option<WillRecord>, version: u64) {
        let value = record.map(|record| record.encode());
        let command = Command::PutBlob { kind: BlobKind::Will, key: name.key(), value, expected: Some(version) };
        let request = self.desk.request(Purpose::Will);
        self.wills.asked.insert(request, name.clone());
        self.wills.busy.insert(name.clone());
        self.meta.handle(now, meta::Input::Write { request, command }, &mut self.meta_out);
    }

    pub(super) fn will_answered(&mut self, cx: &mut Cx<'_>, request: RequestId, outcome: Result<u64, Refusal>) {
        let Some(name) = self.wills.asked.remove(&request) else { return };
        self.wills.busy.remove(&name);
        if matches!(outcome, Ok(_) | Err(Refusal::Rejected(_))) {
            self.catch_up(cx);
        }
        match (outcome, self.wills.wanted.get_mut(&name)) {
            (Err(Refusal::Rejected(Rejected::NoSuchKey)), Some(Wanted::Due(absent))) => *absent = true,
            (Err(Refusal::Rejected(Rejected::TooMuch)), Some(Wanted::Kept(..))) => {
                self.wills.wanted.remove(&name);
                return self.tell_kept(cx, &name, false);
            }
            (Ok(_) | Err(Refusal::Rejected(_)), _) => {}
            (Err(_), _) => {
                self.wills.again.insert(name);
                return;
            }
        }
        self.wills.stale.insert(name);
    }
}

/// How often it is looked for nodes that are down, and asked again.
const LOOK: Duration = Duration::from_secs(1);
/// Every so many times, if all members are reached: some of them may have gone for good.
const SELDOM: u64 = 16;
/// A node that is away for longer, and that its stored sessions come back with, publishes again what others have published.
const FORGET_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Who has been open for so long has everything that the group had decided before.
const KNOWN_AFTER: Duration = Duration::from_secs(60);
/// Most wills that the group is asked about at a time.
const AT_ONCE: usize = 256;
/// A node that has had no leader for so long publishes its wills without asking.
const ALONE_AFTER: Duration = Duration::from_secs(10);
/// So long after its start at most a node waits for the routes of all others.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
