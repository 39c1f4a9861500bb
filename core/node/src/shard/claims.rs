//! Connections and sessions of a client over all nodes, as the directory says (docs/adr/0011): a CONNECT waits until the
//! client's old connection has gone, wherever it was, and until its session is here. A session goes where its connection is.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use newtmq_base::{ConnId, Instant, NodeId, ShardId, planted};
use newtmq_cluster::directory::{self, Client, Conn as Claimant, Grant, Input, Output as Order, Refused};
use newtmq_cluster::lane::{Epoch, Guid};
use newtmq_mqtt::{Connect, Decoder, Frame, OwnedTopicFilter, Packet, ProtocolVersion, ReasonCode, Sender};
use newtmq_session::{Record, Restored, Whereabouts};

use super::late::Origin;
use super::luggage::{epoch_of, parts_of};
use super::stub::Stub;
use super::{Next, Shard};
use crate::conn::{Aside, Feature, NONE, Phase};
use crate::control::ToControl;
use crate::io::{Outbox, Output};
use crate::store::Durability;
use crate::wills::WillSaid;

/// So long a CONNECT waits; the directory mostly answers before.
const CLAIM_WITHIN: Duration = Duration::from_secs(14);
/// So long a client waits for what was left of its session at the other node.
pub(super) const LETTER_WITHIN: Duration = Duration::from_secs(3);
/// So long a session that is on its way does not expire.
pub(super) const ON_ITS_WAY: Duration = Duration::from_secs(30);

/// A CONNECT that waits for its session.
#[derive(Debug)]
pub(crate) struct Claiming {
    pub(super) client: Client,
    pub(super) connect: Aside,
    assigned: Option<Box<str>>,
    authentication_data: Option<Box<[u8]>>,
    /// What begins with it is stored.
    pub(super) durable: bool,
    /// The cluster is to keep its will first.
    pub(super) has_will: bool,
    /// By which epoch it was asked to, and whether it has answered, or is not waited for.
    pub(super) keeping: Option<(Epoch, bool)>,
    /// It has attached to a session here with this epoch; whether one was there.
    pub(super) attached: Option<(Epoch, bool)>,
    /// The session that begins stands beside one at a node that is down.
    fork: bool,
    /// Its session has come here, and does not count yet.
    pub(super) moving: Option<Epoch>,
    /// Subscriptions of it that were getting retained messages.
    pub(super) readings: Vec<OwnedTopicFilter>,
}

/// What the directory says of a session.
#[derive(Debug, Default)]
pub(crate) struct Claimed {
    pub(super) epoch: Epoch,
    /// With which it began by a clean start.
    pub(super) clean: Epoch,
    /// By which epoch the cluster keeps its will, or was asked to.
    pub(super) will: Option<Epoch>,
    /// It does not expire before.
    pub(super) kept_until: Instant,
    /// It is on its way to a node: deliveries from this place in the order on did not go along.
    pub(super) given: Option<(NodeId, u64)>,
    /// It has gone, and hands on what still comes.
    pub(super) stub: Option<Box<Stub>>,
    /// It came from another node not long ago.
    pub(super) origin: Option<Box<Origin>>,
    /// By node, and by which grant it came from there: the last letter that has come.
    pub(super) letters: BTreeMap<(NodeId, Epoch), u64>,
    /// Names of what has come a moment ago: the same may be on its way to other nodes.
    pub(super) recent: VecDeque<(Instant, Guid)>,
    /// Names of what has come since it was given away, by its place in the order.
    pub(super) late: BTreeMap<u64, Guid>,
}

/// What is told later.
#[derive(Debug)]
pub(super) enum Later {
    Directory(Input),
    Control(ToControl),
}

/// What the shard has of claims.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    /// Connections that wait, by client; of two the later one.
    waiting: BTreeMap<Client, ConnId>,
    /// What is told when so much is stored, and everybody knows of so many changes of subscriptions.
    pub(super) untold: VecDeque<(u64, u64, Later)>,
    /// Sessions that have gone and hand on what comes: client and key.
    pub(super) stubs: BTreeSet<(Client, u32)>,
    /// Those of them whose markers are awaited, by which.
    pub(super) flushing: BTreeMap<u64, u32>,
    /// Sessions that are to go on to another node when all of them has come: where to, by which grant, and whether they
    /// end instead.
    pub(super) deferred: BTreeMap<Client, (NodeId, Epoch, bool)>,
    /// Some node is reached again since not long ago, until then.
    pub(super) reunited_until: Instant,
}

impl Claimed {
    /// As the log has it.
    pub(super) fn restored(of: Whereabouts) -> Claimed {
        let letter = |((node, epoch), number)| ((NodeId(node), epoch_of(epoch)), number);
        Claimed {
            epoch: epoch_of(of.epoch),
            clean: epoch_of(of.clean),
            given: of.given.map(|upto| (NodeId(0), upto)),
            letters: of.letters.into_iter().map(letter).collect(),
            ..Claimed::default()
        }
    }
}

impl Shard {
    /// Asks for the session of a connection whose CONNECT was accepted.
    #[allow(clippy::too_many_arguments)] // what has to be there again when the answer comes
    pub(super) fn claim_session(
        &mut self,
        now: Instant,
        conn: ConnId,
        connect: &Connect<'_>,
        frame: Frame<'_>,
        client: &str,
        (assigned, authentication_data): (Option<&str>, Option<&[u8]>),
        expiry_interval: u32,
        out: &mut Outbox,
    ) -> Next {
        let client: Client = client.into();
        let id = Claimant { shard: ShardId(self.own), id: conn };
        let c = self.live(conn);
        c.phase = Phase::Claiming;
        c.features.add(Feature::Claimed);
        let zone = usize::from(c.zone);
        let durable = expiry_interval > 0 && self.config.zones[zone].durability != Durability::Memory;
        let claim = Box::new(Claiming {
            client: client.clone(),
            connect: frame.bytes.into(),
            assigned: assigned.map(Into::into),
            authentication_data: authentication_data.map(Into::into),
            durable,
            has_will: connect.will.is_some() && self.config.zones[zone].will_ha,
            keeping: None,
            attached: None,
            fork: false,
            moving: None,
            readings: Vec::new(),
        });
        self.live(conn).rare().claim = Some(claim);
        self.claims_of.waiting.insert(client.clone(), conn);
        self.arm_conn(conn, now + CLAIM_WITHIN);
        let clean = connect.clean_start;
        tell(Input::Claim { client, conn: id, clean, durable, limits: Box::default() }, out);
        Next::Hold
    }

    pub(crate) fn on_directory(&mut self, now: Instant, order: Order, out: &mut Outbox) {
        match order {
            Order::Attach { client, node, conn, epoch, clean, fork, .. } => {
                if node == self.node {
                    self.attach_here(now, client, conn.id, epoch, (clean, fork), out);
                } else {
                    self.give_away(now, client, node, epoch, clean, out);
                }
            }
            Order::Granted(grant) => self.on_session_granted(now, grant, out),
            Order::Refused { conn, why, .. } => {
                let reason = match why {
                    Refused::Superseded => ReasonCode::SessionTakenOver,
                    Refused::Unavailable => ReasonCode::ServerUnavailable,
                    Refused::Full => ReasonCode::QuotaExceeded,
                };
                self.send_claimant_away(now, conn.id, reason, out);
            }
            Order::Fence { conn, .. } => {
                if !planted!(RemoteTakeoverWithoutFence) {
                    self.send_claimant_away(now, conn.id, ReasonCode::SessionTakenOver, out);
                }
            }
            Order::Moved { client, epoch } => self.on_session_here(now, &client, epoch, out),
            Order::Lost { client, epoch, to, discard } => self.lose_session(now, &client, epoch, (to, discard), out),
            Order::Send { .. } | Order::Raise { .. } | Order::Supersedes { .. } => {
                unreachable!("that is for the control plane")
            }
        }
    }

    /// A connection that has no right to its session, or none any more.
    pub(super) fn send_claimant_away(&mut self, now: Instant, conn: ConnId, reason: ReasonCode, out: &mut Outbox) {
        let Some(c) = self.conn(conn) else { return };
        match c.phase {
            Phase::Open => {
                self.hear_farewell(conn);
                self.reject(now, conn, reason, out);
            }
            Phase::Claiming => {
                // No CONNACK says that another connection has it.
                let taken = reason == ReasonCode::SessionTakenOver;
                self.reject_connect(now, conn, if taken { ReasonCode::ServerUnavailable } else { reason }, out);
            }
            Phase::AwaitGrant | Phase::AwaitConnect | Phase::Authenticating | Phase::Closing => {}
        }
    }

    /// A connection of this node attaches to the client's session here, or to one that begins.
    fn attach_here(
        &mut self,
        now: Instant,
        client: Client,
        conn: ConnId,
        epoch: Epoch,
        (clean, fork): (bool, bool),
        out: &mut Outbox,
    ) {
        if clean && let Some(key) = self.find_session(&client) {
            self.end_session(now, key, out);
        }
        let found = self.find_session(&client);
        let present = found.is_some();
        // Nobody waits at another node any more.
        self.claims_of.deferred.remove(&client);
        if let Some(key) = found {
            let bound = self.slot(key).conn;
            if bound != NONE && bound != conn.slot {
                // Whoever has it has not heard of its end.
                self.fence(now, bound, out);
            }
            self.set_epoch(key, epoch, None);
            self.keep_until(key, now + ON_ITS_WAY);
        }
        tell(Input::Attached { client: client.clone(), epoch, present, answer: Box::default() }, out);
        let waiting = self.conn_mut(conn).and_then(|c| c.rare.as_mut()?.claim.as_mut());
        match waiting {
            Some(claim) => (claim.attached, claim.fork) = (Some((epoch, present)), fork && !present),
            // It has gone, and nothing has begun.
            None if !present => tell(Input::Ended { client, epoch }, out),
            None => {}
        }
    }

    fn on_session_granted(&mut self, now: Instant, grant: Grant, out: &mut Outbox) {
        let conn = grant.conn.id;
        let Some(c) = self.conn(conn) else { return };
        match c.phase {
            // Its epoch has risen.
            Phase::Open if grant.home == self.node && (grant.present || self.has_epoch(&grant.client, grant.epoch)) => {
            }
            // Its session is lost.
            Phase::Open => _ = self.reject(now, conn, ReasonCode::ServerBusy, out),
            Phase::Claiming if grant.home == self.node => self.enter_soon(now, conn, &grant.client, grant.epoch, out),
            Phase::Claiming => self.take_over_session(now, conn, &grant, out),
            Phase::AwaitGrant | Phase::AwaitConnect | Phase::Authenticating | Phase::Closing => {}
        }
    }

    fn has_epoch(&self, client: &str, epoch: Epoch) -> bool {
        let slot = self.find_session(client).and_then(|key| self.sessions.get(key));
        slot.and_then(|slot| slot.claimed.as_ref()).is_some_and(|claimed| claimed.epoch == epoch)
    }

    /// The session of a waiting connection is here, and counts.
    fn on_session_here(&mut self, now: Instant, client: &str, epoch: Epoch, out: &mut Outbox) {
        let waits = self.claimant(client).filter(|(_, claim)| claim.moving == Some(epoch));
        // It may have attached again, and is let in with that.
        let attached = |of: Option<(Epoch, bool)>| of.map_or(epoch, |(of, _)| of.max(epoch));
        let with = |of| if planted!(MovedBeforeGrant) { epoch } else { attached(of) };
        match waits.map(|(conn, claim)| (conn, with(claim.attached))) {
            Some((conn, with)) => self.enter_soon(now, conn, client, with, out),
            None if self.find_session(client).is_none() => tell(Input::Ended { client: client.into(), epoch }, out),
            None => {}
        }
    }

    pub(super) fn claimant(&self, client: &str) -> Option<(ConnId, &Claiming)> {
        let conn = *self.claims_of.waiting.get(client)?;
        Some((conn, self.conn(conn)?.rare.as_ref()?.claim.as_deref()?))
    }

    /// A connection waits no longer.
    fn waits_no_longer(&mut self, client: &Client, conn: ConnId) {
        if self.claims_of.waiting.get(client) == Some(&conn) {
            self.claims_of.waiting.remove(client);
        }
    }

    /// The client is let in when what was still under way to its session's last node is here, which belongs in front.
    fn enter_soon(&mut self, now: Instant, conn: ConnId, client: &str, epoch: Epoch, out: &mut Outbox) {
        let key = self.find_session(client);
        let origin = key.and_then(|key| self.claimed(key).origin.as_mut());
        if let Some(origin) = origin.filter(|origin| !origin.came && !origin.entered) {
            origin.waits = Some(conn);
            return self.arm_conn(conn, now + LETTER_WITHIN);
        }
        self.enter(now, conn, epoch, out);
    }

    /// The session is here and nobody else's: the client is let in.
    pub(super) fn enter(&mut self, now: Instant, conn: ConnId, epoch: Epoch, out: &mut Outbox) {
        if self.conn(conn).is_none() {
            return;
        }
        if self.reluctance.drains() {
            return self.send_claimant_away(now, conn, ReasonCode::UseAnotherServer, out);
        }
        if self.keep_will_first(now, conn, epoch, out) {
            return;
        }
        let Some(claim) = self.live(conn).rare().claim.take() else { return };
        let Claiming { client, connect, assigned, authentication_data, fork, readings, .. } = *claim;
        self.waits_no_longer(&client, conn);
        if let Some(origin) = self.find_session(&client).and_then(|key| self.claimed(key).origin.as_mut()) {
            origin.enters();
        }
        let mut decoder = Decoder::new();
        let mut bytes = &connect[..];
        let Ok(Some(frame)) = decoder.next(&mut bytes, u32::MAX) else { return };
        let certified = self.certified(conn);
        let Ok(Packet::Connect(connect)) = frame.decode(ProtocolVersion::V5, Sender::Client) else { return };
        let connect = super::connect::with_name(connect, certified.as_deref());
        self.live(conn).heard = now;
        self.arm_keep_alive(now, conn);
        let said = (assigned.as_deref(), authentication_data.as_deref());
        if self.let_in(now, conn, &connect, said, Some(epoch), out) == Next::Go {
            let key = self.live(conn).session;
            if fork {
                self.remember_names(key, epoch);
            }
            for filter in readings {
                self.read_again(key, filter, out);
            }
            self.resume(now, conn, out);
        }
    }

    /// A CONNECT has waited for too long: for its session, or for what was left of it elsewhere.
    pub(super) fn claim_overdue(&mut self, now: Instant, conn: ConnId, out: &mut Outbox) {
        if self.let_in_unkept(now, conn, out) {
            return;
        }
        let claim = self.conn(conn).and_then(|c| c.rare.as_ref()?.claim.as_ref());
        let client = claim.map(|claim| claim.client.clone());
        if let Some(key) = client.and_then(|client| self.find_session(&client))
            && let Some(origin) = self.claimed(key).origin.as_mut().filter(|origin| origin.waits == Some(conn))
        {
            origin.waits = Some(conn);
            return self.letter_came(now, key, out);
        }
        self.reject_connect(now, conn, ReasonCode::ServerUnavailable, out);
    }

    /// A node is down: nothing comes of it.
    pub(super) fn letters_end(&mut self, now: Instant, node: NodeId, out: &mut Outbox) {
        let waiting: Vec<ConnId> = self.claims_of.waiting.values().copied().collect();
        for conn in waiting {
            let claim = self.conn(conn).and_then(|c| c.rare.as_ref()?.claim.as_ref());
            let client = claim.map(|claim| claim.client.clone());
            let key = client.and_then(|client| self.find_session(&client));
            let waits = |of: &Origin| of.waits == Some(conn) && (of.is_from(node) || planted!(LettersOfAllEnd));
            if key.is_some_and(|key| self.claimed(key).origin.as_deref().is_some_and(waits)) {
                self.claim_overdue(now, conn, out);
            }
        }
    }

    /// A connection ends: the directory hears of it.
    pub(super) fn end_claim(&mut self, now: Instant, conn: ConnId, client: Option<Client>, out: &mut Outbox) {
        let own = ShardId(self.own);
        let c = self.live(conn);
        if !c.features.has(Feature::Claimed) {
            return;
        }
        c.features.remove(Feature::Claimed);
        let claim = c.rare.as_mut().and_then(|rare| rare.claim.take());
        let Some(client) = claim.as_ref().map(|claim| claim.client.clone()).or(client) else { return };
        self.waits_no_longer(&client, conn);
        if let Some(epoch) = claim.as_ref().and_then(|claim| claim.moving) {
            self.stop_moving(now, &client, epoch, out);
        }
        if let Some((epoch, _)) = claim.as_ref().and_then(|claim| claim.keeping) {
            super::kept::say(&client, epoch, WillSaid::Over, out);
        }
        if let Some((epoch, present)) = claim.and_then(|claim| claim.attached) {
            match self.find_session(&client) {
                Some(key) if present => {
                    self.keep_until(key, Instant::START);
                    self.wait_for_client(now, key);
                }
                Some(_) | None => tell(Input::Ended { client: client.clone(), epoch }, out),
            }
        }
        tell(Input::Closed { client, conn: Claimant { shard: own, id: conn } }, out);
    }

    /// A session has ended.
    pub(super) fn tell_ended(&self, key: u32, out: &mut Outbox) {
        let Some(slot) = self.sessions.get(key) else { return };
        if let Some(claimed) = &slot.claimed {
            tell(Input::Ended { client: slot.session.client().as_str().into(), epoch: claimed.epoch }, out);
        }
    }

    pub(super) fn claimed(&mut self, key: u32) -> &mut Claimed {
        self.slot(key).claimed.get_or_insert_default()
    }

    /// A connection has attached to the session.
    pub(super) fn set_epoch(&mut self, key: u32, epoch: Epoch, clean: Option<Epoch>) {
        let claimed = self.claimed(key);
        (claimed.epoch, claimed.given) = (epoch, None);
        claimed.clean = clean.unwrap_or(claimed.clean);
        let (epoch, clean) = (parts_of(claimed.epoch), parts_of(claimed.clean));
        self.note(key, |session| Record::Epoch { session, epoch, clean });
    }

    pub(super) fn keep_until(&mut self, key: u32, until: Instant) {
        self.claimed(key).kept_until = until;
    }

    /// What the directory hears of a session that was stored.
    pub(super) fn tell_recovered(&self, restored: &Restored, out: &mut Outbox) {
        let Whereabouts { epoch, clean, .. } = &restored.whereabouts;
        let (epoch, clean) = (epoch_of(*epoch), epoch_of(*clean));
        let client = restored.session.client().as_str().into();
        tell(Input::Recovered { client, epoch, clean }, out);
    }

    /// Tells the directory when what this call has recorded is stored, and subscriptions are known up to `seq`.
    pub(super) fn tell_later(&mut self, later: Later, seq: u64, out: &mut Outbox) {
        let batch = self.journal.batch_so_far();
        self.claims_of.untold.push_back((batch, seq, later));
        self.tell_untold(out);
    }

    /// Tells what waited for the store or for the others.
    pub(super) fn tell_untold(&mut self, out: &mut Outbox) {
        let (stored, committed) = (self.journal.stored(), self.routes.committed());
        for (batch, seq, later) in core::mem::take(&mut self.claims_of.untold) {
            if batch <= stored && seq <= committed {
                match later {
                    Later::Directory(input) => tell(input, out),
                    Later::Control(message) => out.push(Output::Control(message)),
                }
            } else {
                self.claims_of.untold.push_back((batch, seq, later));
            }
        }
    }
}

pub(super) fn tell(input: directory::Input, out: &mut Outbox) {
    out.push(Output::Control(ToControl::Directory(Box::new(input))));
}
