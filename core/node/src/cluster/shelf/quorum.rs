//! Whether the group of retained messages can have a leader, and what happens when it never can again: a group that has lost its
//! quorum for good is followed by another one (docs/adr/0014).

use std::collections::{BTreeMap, BTreeSet};

use newtmq_base::{Instant, NodeId, planted};
use newtmq_cluster::meta;

use super::super::desk::Purpose;
use super::super::joint::{Cluster, Cx};
use super::super::streams;
use super::{LOOK, Seat, seated};

/// How a node without a leader sees the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Standing {
    pub(in super::super) applied: u64,
    /// Who decides there, as seats.
    pub(in super::super) quorums: [Vec<NodeId>; 2],
}

impl Cluster {
    /// Whether those can decide about retained messages, as far as this node knows.
    #[must_use]
    pub fn retained_has_quorum(&self, has: impl Fn(NodeId) -> bool) -> bool {
        let quorums = self.shelf.part.quorums();
        if quorums[0].is_empty() {
            // It has heard nothing of the group. Who founded it may be all that there is of it.
            let state = self.meta.view().state;
            return state.members().keys().any(|node| has(*node) && state.founds_retained(*node));
        }
        is_quorum(&quorums, &self.seats(has))
    }

    /// Whether all members together could decide, if they were there.
    #[must_use]
    pub fn retained_may_return(&self) -> bool {
        self.retained_has_quorum(|_| true)
    }

    fn seats(&self, has: impl Fn(NodeId) -> bool) -> BTreeSet<NodeId> {
        let members = self.meta.view().state.members().values();
        members.filter(|member| has(member.node)).map(|member| seated(member.node, member.joined)).collect()
    }

    /// Without a leader for long: the leader of the meta group hears how it looks from here, and finds out whether there can be
    /// one again.
    pub(super) fn look_for_quorum(&mut self, cx: &mut Cx<'_>) {
        let Some(seat) = self.shelf.seat else { return };
        let election = self.shelf.config.tick * u32::try_from(self.shelf.config.election_ticks).unwrap_or(u32::MAX);
        let without = cx.now.saturating_since(self.shelf.led_at);
        if self.shelf.part.leader().is_some() || without < election * 3 {
            self.shelf.standings.clear();
            return;
        }
        let own = Standing { applied: self.shelf.part.applied(), quorums: self.shelf.part.quorums() };
        match self.meta.view().leader {
            Some(leader) if leader == self.node => {
                self.shelf.standings.insert(self.node, (cx.now, own));
                if without >= election * 5 {
                    self.renew_group(cx.now, seat);
                }
            }
            Some(leader) => {
                let bytes = streams::tagged_retained(seat, true, &streams::put_standing(&own));
                self.say(cx.now, leader, bytes, false);
            }
            None => {}
        }
    }

    /// If no majority of those who decide are members any more, a new group begins with who has most of the old one.
    fn renew_group(&mut self, now: Instant, seat: Seat) {
        let state = self.meta.view().state;
        self.shelf.standings.retain(|_, (at, _)| now.saturating_since(*at) < LOOK * 3);
        let reached = state.members().keys().filter(|node| **node == self.node || self.reached.contains_key(node));
        let outlook = Outlook {
            reached: reached.copied().collect(),
            standings: self.shelf.standings.iter().map(|(node, (_, standing))| (*node, standing)).collect(),
            seats: self.seats(|_| true),
            has_founder: state.members().keys().any(|node| state.founds_retained(*node)),
            may_lead: state.members().values().filter(|member| !member.witness).map(|member| member.node).collect(),
        };
        let Some(founder) = outlook.next_founder() else { return };
        let command = meta::Command::RenewRetained { generation: seat.generation + 1, founder };
        let request = self.desk.request(Purpose::Renew);
        self.meta.handle(now, meta::Input::Write { request, command }, &mut self.meta_out);
    }
}

/// What the leader of the meta group knows of a group that has had no leader for long.
struct Outlook<'a> {
    /// Members that this node reaches, itself among them.
    reached: BTreeSet<NodeId>,
    /// What those have said that have no leader.
    standings: BTreeMap<NodeId, &'a Standing>,
    /// All members, as the group knows them.
    seats: BTreeSet<NodeId>,
    /// Who founded the group is a member.
    has_founder: bool,
    /// Members that are no witnesses.
    may_lead: BTreeSet<NodeId>,
}

impl Outlook<'_> {
    /// Who begins the next group; none as long as this one may have a leader, or get one.
    fn next_founder(&self) -> Option<NodeId> {
        // Who does not say that it has no leader may have one.
        let all_say_so = self.reached.iter().all(|node| self.standings.contains_key(node));
        if !all_say_so && !planted!(RenewedUnheard) {
            return None;
        }
        let known = self.standings.values().filter(|standing| !standing.quorums[0].is_empty());
        let is_lost = match known.max_by_key(|standing| standing.applied) {
            Some(standing) => !is_quorum(&standing.quorums, &self.seats),
            None => !self.has_founder,
        };
        let is_due = is_lost || planted!(RenewedWithQuorum);
        if !is_due || planted!(NeverRenewed) {
            return None;
        }
        let may_lead = self.standings.iter().filter(|(node, _)| self.may_lead.contains(node));
        let most = |(node, standing): &(&NodeId, &&Standing)| (standing.applied, core::cmp::Reverse(**node));
        let founder = if planted!(RenewedWithLeast) { may_lead.min_by_key(most) } else { may_lead.max_by_key(most) };
        founder.map(|(node, _)| *node)
    }
}

fn is_quorum(quorums: &[Vec<NodeId>; 2], seats: &BTreeSet<NodeId>) -> bool {
    let has_most =
        |voters: &Vec<NodeId>| voters.iter().filter(|voter| seats.contains(voter)).count() * 2 > voters.len();
    has_most(&quorums[0]) && (quorums[1].is_empty() || has_most(&quorums[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: [NodeId; 4] = [NodeId(1), NodeId(2), NodeId(3), NodeId(4)];

    /// Who of three voters, of whom the first founded the group, and a fourth node is a member; who of them is a witness; what
    /// each says that has applied up to there; and who begins the next group.
    type Row = (&'static [usize], &'static [usize], &'static [(usize, u64)], Option<usize>);

    const ROWS: &[Row] = &[
        // A majority is left, whoever has no leader now.
        (&[0, 1, 3], &[], &[(0, 5), (1, 5), (3, 4)], None),
        (&[0, 1, 2, 3], &[], &[(0, 5), (1, 5), (2, 5), (3, 5)], None),
        // It is not. The first with most of it begins.
        (&[2, 3], &[], &[(2, 5), (3, 4)], Some(2)),
        (&[2, 3], &[], &[(2, 4), (3, 5)], Some(3)),
        (&[2, 3], &[], &[(2, 5), (3, 5)], Some(2)),
        // A witness has no clients.
        (&[2, 3], &[2], &[(2, 5), (3, 4)], Some(3)),
        (&[2, 3], &[2, 3], &[(2, 5), (3, 4)], None),
        // Nor is one any more that has gone since it said so.
        (&[2, 3], &[], &[(1, 6), (2, 5), (3, 4)], Some(2)),
        // One has not said that it has no leader.
        (&[2, 3], &[], &[(3, 4)], None),
        // Nobody knows anything of it: who founded it may.
        (&[0, 3], &[], &[(0, 0), (3, 0)], None),
        (&[2, 3], &[], &[(2, 0), (3, 0)], Some(2)),
    ];

    fn the_next_group_begins_when_this_one_is_lost() {
        for (members, witnesses, said, expected) in ROWS {
            let node = |at: &usize| NODES[*at];
            let voters = NODES[..3].to_vec();
            let standing = |applied: u64| Standing {
                applied,
                quorums: [if applied > 0 { voters.clone() } else { Vec::new() }, Vec::new()],
            };
            let standings: BTreeMap<NodeId, Standing> =
                said.iter().map(|(at, applied)| (node(at), standing(*applied))).collect();
            let outlook = Outlook {
                reached: members.iter().map(node).collect(),
                standings: standings.iter().map(|(node, standing)| (*node, standing)).collect(),
                seats: members.iter().map(node).collect(),
                has_founder: members.contains(&0),
                may_lead: members.iter().filter(|at| !witnesses.contains(at)).map(node).collect(),
            };
            assert_eq!(outlook.next_founder(), expected.map(|at| NODES[at]), "{members:?} {said:?}");
        }
    }

    #[test]
    fn holds() {
        the_next_group_begins_when_this_one_is_lost();
    }

    #[cfg(newtmq_mutants)]
    #[test]
    fn planted_bugs_are_found() {
        use newtmq_base::Mutant;
        let bugs = [Mutant::NeverRenewed, Mutant::RenewedUnheard, Mutant::RenewedWithLeast, Mutant::RenewedWithQuorum];
        Mutant::assert_found(&bugs, |bug| Mutant::fails(bug, the_next_group_begins_when_this_one_is_lost));
    }
}
