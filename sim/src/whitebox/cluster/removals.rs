//! W12: who is removed without having left was down for long, and whoever removes it had a majority all that time.

use core::time::Duration;

use newtmq_base::{Instant, NodeId};
use newtmq_cluster::meta::RemovedBy;

use super::{ClusterWatch, EVERY, Found, Member};
use crate::report::Check;
use crate::scenario::Scenario;

/// A member that is down for less is removed by nobody.
const DETECT: Duration = Duration::from_secs(8);
/// A leader looks so often at least whether it has a majority.
const FEW_FOR: Duration = Duration::from_secs(1);

impl ClusterWatch {
    /// A node reaches somebody again, or no longer: when it has had no majority for a while, how long others were down begins to
    /// count when it has one again.
    pub(super) fn watch_majority(&mut self, now: Instant, member: &Member<'_>) {
        let Some(cluster) = member.cluster() else { return };
        let state = cluster.meta().view().state;
        let (up, votes) = reached(member);
        if 2 * up <= state.members().len() || 2 * votes <= state.voters().len() {
            self.few.entry(member.ix).or_insert(now);
        } else if self.few.remove(&member.ix).is_some_and(|since| since + FEW_FOR < now) {
            // Who has become a member or is none any more since the last look may have made it one.
            let before = now.as_nanos().saturating_sub(EVERY.as_nanos() as u64);
            self.most.insert(member.ix, Instant::from_nanos(before));
        }
    }

    /// A leader wants to remove a member.
    pub(super) fn judge_removal(
        &self,
        now: Instant,
        member: &Member<'_>,
        removed: NodeId,
        by: RemovedBy,
        scenario: &Scenario,
    ) -> Option<Found> {
        let cluster = member.cluster()?;
        let view = cluster.meta().view();
        let (members, voters) = (view.state.members(), view.state.voters());
        let (up, votes) = reached(member);
        let found =
            |what: String| Some((Check::Removals, member.ix, format!("{what} when it removes {:x}", removed.0)));
        // It may have handed over in the same moment, for it votes no more.
        if !view.is_leader && !self.leads.contains_key(&member.ix) {
            return found("it is no leader".into());
        }
        if by == RemovedBy::Leave {
            return None;
        }
        // An operator knows what the leader cannot: of two members one may be gone for ever.
        let most = 2 * up > members.len() || by == RemovedBy::Force;
        if 2 * votes <= voters.len() || !most {
            return found(format!("it reaches {up} of {} members, {votes} of {} voters", members.len(), voters.len()));
        }
        let down = self.down.get(&(member.ix, removed)).copied();
        let autoclean = Duration::from_secs(scenario.cluster.autoclean_s.unwrap_or(300).into());
        let set = if by == RemovedBy::Autoclean { autoclean } else { scenario.cluster.paced(DETECT) };
        if members.contains_key(&removed) {
            let most = self.most.get(&member.ix).filter(|_| by == RemovedBy::Autoclean);
            let since = [down, self.leads.get(&member.ix).copied(), most.copied()].into_iter().flatten().max();
            // Clocks may be 1 % wrong.
            let least = set - set / 50;
            if down.is_none() && cluster.links().peer(removed).is_some_and(|peer| peer.is_up()) {
                return found("it reaches that node".into());
            }
            if since.is_some_and(|since| now < since + least) {
                return found(format!("it has been down, as this leader saw it, since {since:?}, less than {set:?}"));
            }
        }
        None
    }
}

/// How many members and how many voters a node reaches, itself included.
fn reached(member: &Member<'_>) -> (usize, usize) {
    let Some(cluster) = member.cluster() else { return (0, 0) };
    let state = cluster.meta().view().state;
    let is_up = |node: &&NodeId| **node == member.id || cluster.links().peer(**node).is_some_and(|peer| peer.is_up());
    (state.members().keys().filter(is_up).count(), state.voters().iter().filter(is_up).count())
}
