//! The way into a cluster and out of it, as the node that goes it sees it.

use newtmq_base::{Instant, NodeId, RequestId, planted};

use super::command::{BlobKind, Member, Rejected, RemovedBy};
use super::group::Group;
use super::lead::Joining;
use super::log::{Persist, Stored};
use super::message::{JoinAnswer, JoinRefusal, Message, Refusal, Standing};
use super::state::{ClusterId, MetaState};
use super::{Gone, Lost, Meta, Output};

/// What a node wants, until it has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// To be a member. `via` is whose cluster it is to be, if not anybody's, `ask` whom to ask next instead; `told` is whether
    /// a leader has said that it is one.
    Join { request: Option<RequestId>, via: Option<NodeId>, ask: Option<NodeId>, told: bool },
    /// To be none.
    Leave { request: RequestId },
}

impl Wish {
    /// Of the operator who wants it, if one does.
    fn request(self) -> Option<RequestId> {
        match self {
            Wish::Join { request, .. } => request,
            Wish::Leave { request } => Some(request),
        }
    }
}

impl Meta {
    /// Joins, by an operator's word.
    pub(super) fn join(&mut self, now: Instant, request: RequestId, via: Option<NodeId>, out: &mut Vec<Output>) {
        if self.begun.is_some() {
            out.push(Output::Answer { request, outcome: Err(Refusal::InCluster) });
            return;
        }
        if let Some(group) = &self.group {
            let is_alone = group.state.members.len() == 1 && group.state.members.contains_key(&self.me.node);
            if self.gone.is_none() && !is_alone && !planted!(AnyoneAbandons) {
                out.push(Output::Answer { request, outcome: Err(Refusal::NotAlone) });
                return;
            }
        }
        if self.wish.is_some_and(|wish| wish.request().is_some()) {
            out.push(Output::Answer { request, outcome: Err(Refusal::Busy) });
            return;
        }
        // Who has been promised a place here does not come into a cluster that is given up.
        if let (Some(lead), false) = (&mut self.lead, planted!(JoinedWhileJoining)) {
            lead.turn_away();
            if self.group.as_ref().is_some_and(|group| !group.can_change()) {
                out.push(Output::Answer { request, outcome: Err(Refusal::Busy) });
                return;
            }
        }
        self.requests.insert(request, Instant::NEVER);
        self.freed = self.gone.take().or(self.freed);
        self.founding = None;
        let via = via.filter(|_| !planted!(AnybodyIsJoined));
        self.wish = Some(Wish::Join { request: Some(request), via, ask: None, told: false });
        self.next_ask = now;
    }

    /// Leaves, by an operator's word.
    pub(super) fn leave(&mut self, now: Instant, request: RequestId, out: &mut Vec<Output>) {
        let refusal = match &self.group {
            None => Some(Refusal::NoCluster),
            Some(_) if self.gone.is_some() => Some(Refusal::NoCluster),
            Some(group) if group.state.members.len() <= 1 => Some(Refusal::SoleMember),
            Some(_) => None,
        };
        if let Some(refusal) = refusal {
            out.push(Output::Answer { request, outcome: Err(refusal) });
            return;
        }
        if self.wish.is_some_and(|wish| wish.request().is_some()) {
            out.push(Output::Answer { request, outcome: Err(Refusal::Busy) });
            return;
        }
        self.requests.insert(request, Instant::NEVER);
        self.wish = Some(Wish::Leave { request });
        self.next_ask = now;
    }

    /// Nobody waits for a node to join or to leave any more. What others have done of it stays done.
    pub(super) fn give_up_wish(&mut self, request: RequestId, out: &mut Vec<Output>) {
        let Some(wish) = self.wish.filter(|wish| wish.request() == Some(request)) else { return };
        let is_in_new = self.group.as_ref().is_some_and(|group| self.cluster != Some(group.state.cluster));
        self.wish = match wish {
            // It has given up what it had, so that it goes on.
            Wish::Join { ask, told, .. } if is_in_new => Some(Wish::Join { request: None, via: None, ask, told }),
            Wish::Join { .. } | Wish::Leave { .. } => None,
        };
        if self.wish.is_none() {
            self.gone = self.gone.or(self.freed.take());
        }
        if let (Wish::Leave { .. }, Some(lead)) = (wish, &mut self.lead) {
            lead.stays(self.me.node);
        }
        self.answer(request, Err(Refusal::Timeout), out);
    }

    /// Asks for what is wanted; or whether one still is a member, if no leader says so.
    pub(super) fn wish(&mut self, now: Instant, out: &mut Vec<Output>) {
        let leader = self.view().leader;
        match self.wish {
            Some(Wish::Leave { .. }) => match leader {
                Some(leader) if leader == self.me.node => self.leave_asked(now, leader, out),
                Some(leader) => self.send(leader, &Message::Leave, out),
                None => self.ask_to_join(None, false, out),
            },
            Some(Wish::Join { request, via, ask, told }) => {
                self.ask_to_join(ask.or(via), request.is_some(), out);
                // Whom we were sent to may be gone.
                self.wish = Some(Wish::Join { request, via, ask: None, told });
            }
            None => {
                let Some(group) = &self.group else { return };
                let is_lost = self.doubts || now.saturating_since(self.leader_heard) >= self.config.lost_after;
                let known = group.state.members.get(&self.me.node);
                let is_news = known.is_none_or(|known| !known.says_the_same(&self.me));
                match leader {
                    Some(leader) if leader == self.me.node => {}
                    Some(leader) if is_news && !is_lost => self.ask_to_join(Some(leader), false, out),
                    _ if is_lost => self.ask_to_join(None, false, out),
                    _ => {}
                }
            }
        }
    }

    fn ask_to_join(&self, ask: Option<NodeId>, explicit: bool, out: &mut Vec<Output>) {
        let message = Message::Join { member: self.me.clone(), cluster: self.cluster, explicit };
        match ask {
            Some(node) => self.send(node, &message, out),
            None => self.up.iter().for_each(|node| self.send(*node, &message, out)),
        }
    }

    /// A node wants to be a member here.
    pub(super) fn join_asked(
        &mut self,
        from: NodeId,
        member: Member,
        cluster: Option<ClusterId>,
        explicit: bool,
        out: &mut Vec<Output>,
    ) {
        let Some(group) = self.group.as_ref().filter(|_| self.gone.is_none() && member.node == from) else { return };
        let state = &group.state;
        let inc = member.inc;
        // Its cluster is about to be given up: who comes into it would be left behind.
        let goes = matches!(self.wish, Some(Wish::Join { .. })) && !planted!(JoinedWhileJoining);
        let answer = if goes || group.is_leader() && !group.knows_all() {
            JoinAnswer::Wait
        } else if !group.is_leader() {
            match group.leader() {
                Some(leader) if leader != from => JoinAnswer::Redirect(leader),
                _ => JoinAnswer::Wait,
            }
        } else if state.members.get(&from).is_some_and(|known| known.says_the_same(&member)) {
            JoinAnswer::Joined(state.cluster)
        } else {
            let joining = Joining { member, cluster, explicit };
            match Meta::lets_in(state, &joining) {
                Ok(()) => {
                    self.let_in(joining);
                    JoinAnswer::Wait
                }
                // It may vote as yet on that it goes.
                Err(JoinRefusal::Left) if !group.lets_go() => JoinAnswer::Wait,
                Err(refusal) => JoinAnswer::Refused(refusal),
            }
        };
        self.send(from, &Message::JoinAnswer { inc, answer }, out);
    }

    /// Whether the leader lets a node in, or takes what it says about itself. Who was only down for too long comes back by
    /// itself; who has never been here is new.
    pub(super) fn lets_in(state: &MetaState, joining: &Joining) -> Result<(), JoinRefusal> {
        let Joining { member, cluster, explicit } = joining;
        if !explicit && cluster.is_some_and(|cluster| cluster != state.cluster) {
            return Err(JoinRefusal::OtherCluster);
        }
        state.admits(member).map_err(JoinRefusal::Rejected)?;
        let comes_back = match state.removed.get(&member.node) {
            Some(removed) => removed.by == RemovedBy::Autoclean || planted!(ForcedOutComesBack),
            None => cluster.is_none(),
        };
        if !(state.members.contains_key(&member.node) || *explicit || comes_back) {
            Err(JoinRefusal::Left)
        } else if planted!(RefusedWhenApplied) {
            Ok(())
        } else {
            state.takes(member).map_err(JoinRefusal::Rejected)
        }
    }

    /// What a node that was asked says.
    pub(super) fn join_answered(&mut self, now: Instant, from: NodeId, answer: JoinAnswer, out: &mut Vec<Output>) {
        match answer {
            JoinAnswer::Wait => {}
            JoinAnswer::Redirect(leader) => {
                if let Some(Wish::Join { request, via, told, .. }) = self.wish {
                    let ask = Some(leader).filter(|leader| self.up.contains(leader) && *leader != from);
                    self.wish = Some(Wish::Join { request, via, ask, told });
                } else if self.up.contains(&leader) && self.group.is_some() {
                    self.ask_to_join(Some(leader), false, out);
                }
            }
            JoinAnswer::Joined(cluster) => self.let_in_by(now, cluster, out),
            JoinAnswer::Refused(JoinRefusal::Left) if self.is_let_in_elsewhere(from) => {}
            JoinAnswer::Refused(refusal) => self.not_let_in(refusal, out),
        }
    }

    fn let_in_by(&mut self, now: Instant, cluster: ClusterId, out: &mut Vec<Output>) {
        self.doubts = false;
        // A late answer: nobody wants to join any more.
        let Some(Wish::Join { told, .. }) = &mut self.wish else { return };
        let before = core::mem::replace(told, true);
        if self.cluster == Some(cluster) {
            self.look_for_oneself(out);
            return;
        }
        if let Some(group) = self.group.take() {
            let state = &group.state;
            if state.members.len() > 1 && self.freed.is_none() && !planted!(AnyoneAbandons) {
                self.group = Some(group);
                if let Some(Wish::Join { told, .. }) = &mut self.wish {
                    *told = before;
                }
                return;
            }
            let count = |kind| state.blobs.keys().filter(|(of, _)| *of == kind).count();
            let lost = Lost {
                cluster: state.cluster,
                name: state.name.clone(),
                config_keys: state.config.len(),
                acl: count(BlobKind::Acl),
                users: count(BlobKind::User),
                banned: count(BlobKind::Banned),
            };
            out.push(Output::Abandoned { lost });
        }
        let stored = Stored { cluster: Some(cluster), ..Stored::default() };
        let group = Group::new(&self.config, &self.me, &stored);
        self.group = Some(group.expect("an empty log can be"));
        self.cluster = Some(cluster);
        self.grant = None;
        self.founding = None;
        self.lead = None;
        self.freed = None;
        self.leader_heard = now;
        self.persist(Persist { reset: true, cluster: Some(cluster), ..Persist::default() }, out);
    }

    // Whoever led before, and does not know yet that another one does, does not know whom that one has let in.
    fn is_let_in_elsewhere(&self, from: NodeId) -> bool {
        let is_led = self.is_member() && self.view().leader.is_some_and(|leader| leader != from);
        let is_told = matches!(self.wish, Some(Wish::Join { request: None, told: true, .. }));
        (is_led || is_told) && !planted!(EarlierLeaderRefuses)
    }

    fn not_let_in(&mut self, refusal: JoinRefusal, out: &mut Vec<Output>) {
        if let Some(Wish::Join { request: Some(request), .. }) = self.wish {
            self.wish = None;
            self.answer(request, Err(Refusal::Join(refusal)), out);
            if self.group.is_none() || self.is_member() {
                return;
            }
        }
        match (self.wish, refusal) {
            (Some(Wish::Leave { .. }), _) => self.leave_done(out),
            // It was asked as a member, and is none.
            (_, JoinRefusal::Left) if self.group.is_some() => self.is_gone(Gone::Left, out),
            (_, JoinRefusal::OtherCluster) if self.group.is_some() => {}
            // It is again what it was before it was told to join.
            (_, JoinRefusal::Rejected(Rejected::TooMuch | Rejected::FeatureLevel)) => {
                self.gone = self.gone.or(self.freed.take());
            }
            (_, JoinRefusal::Rejected(_) | JoinRefusal::Left | JoinRefusal::OtherCluster) => {
                self.is_gone(Gone::Refused(refusal), out);
            }
        }
    }

    /// The leader has let this node go.
    pub(super) fn leave_done(&mut self, out: &mut Vec<Output>) {
        let Some(Wish::Leave { request }) = self.wish else { return };
        self.wish = None;
        self.answer(request, Ok(0), out);
        self.is_gone(Gone::Left, out);
    }

    /// A member was removed, as the log says here. If it is this one the leader is asked, for the log may go on with that it
    /// was let in again.
    pub(super) fn removed(&mut self, node: NodeId) {
        if node == self.me.node {
            self.doubts = true;
            // In the next tick: the leader says when it is not needed any more to make that so.
            self.next_ask = Instant::START;
        }
    }

    fn is_gone(&mut self, gone: Gone, out: &mut Vec<Output>) {
        if self.gone.is_none() {
            self.gone = Some(gone);
            self.lead = None;
            // They may have been done, and nobody here will know.
            let requests: Vec<RequestId> = self.requests.keys().copied().collect();
            for request in requests {
                self.answer(request, Err(Refusal::Timeout), out);
            }
            out.push(Output::Gone(gone));
        }
    }

    /// Whether the wish has come true.
    pub(super) fn look_for_oneself(&mut self, out: &mut Vec<Output>) {
        let Some(Wish::Join { request, told: true, .. }) = self.wish else { return };
        let Some(group) = &self.group else { return };
        if self.cluster != Some(group.state.cluster) || !group.state.members.contains_key(&self.me.node) {
            return;
        }
        let cluster = group.state.cluster;
        self.wish = None;
        self.freed = None;
        if let Some(request) = request {
            self.answer(request, Ok(0), out);
        }
        out.push(Output::Joined { cluster });
    }

    /// What are you?
    pub(super) fn probed(&mut self, from: NodeId, out: &mut Vec<Output>) {
        let standing = match self.cluster.filter(|_| self.gone.is_none()) {
            Some(cluster) => Standing::Member { cluster, leader: self.view().leader },
            None => Standing::Blank,
        };
        self.send(from, &Message::ProbeAnswer(standing), out);
    }
}
