//! How soon a cluster is whole again after the last fault: somebody leads, the members know each other, and all have the routes
//! of all.

use core::time::Duration;

use newtmq_base::Instant;

use super::{CONVERGED, ClusterWatch, Core, ELECTED, Found, HEALED, Member, is_leader};
use crate::report::{Check, Obligations};
use crate::scenario::Scenario;

/// There is a leader so long after the last fault: who lets others stand first waits for 3.5 s, and stores its vote.
const LED: Duration = Duration::from_secs(4);
/// The longest that a node waits until it stands for election again.
const ROUND: Duration = Duration::from_secs(2);
/// They have each other's routes.
const ROUTED: Duration = Duration::from_secs(17);

impl ClusterWatch {
    /// How soon all is well after the last fault. `routes` says what is wrong with routes.
    pub(crate) fn look_for_progress(
        &mut self,
        now: Instant,
        members: &[Member<'_>],
        scenario: &Scenario,
        obligations: &mut Obligations,
        routes: impl FnOnce() -> Option<String>,
    ) -> Vec<Found> {
        let Some(calm) = self.calm.filter(|_| self.judged < 3) else { return Vec::new() };
        let bound = |span| scenario.cluster.bound(ELECTED, span);
        let mut found = Vec::new();
        let core = Core::of(members);
        let held = core.held_until(&self.began);
        self.held = (self.held.0.max(held.0), self.held.1.max(held.1));
        // What flapped is damped twice, its link and then its routes.
        let held = self.held.0.max(self.held.1).min(calm + bound(HEALED));
        let after = now.saturating_since(calm.max(self.joined()).max(self.founded()).max(held));
        self.linked = if core.reaches_quorum() { self.linked.or(Some(now)) } else { None };
        // A link that flaps counts as down for a while, and who has moved is found after a while.
        let led = self.linked.map(|linked| calm.max(self.held.0).max(self.stopped).max(linked) + LED);
        let led = led.unwrap_or(Instant::NEVER).min(calm + bound(HEALED).max(LED));
        // Two that stood in the same moment may have shared the votes: once, and they stand again.
        let terms = core.nodes.iter().filter_map(|member| Some(member.cluster()?.meta().view().term));
        let term = terms.max().unwrap_or(0);
        let led = if term > *self.calm_term.get_or_insert(term) { led + ROUND } else { led };
        if now >= led && self.judged < 1 {
            self.judged = 1;
            if self.can_heal(&core, members, scenario) {
                obligations.count(Check::Led, 1);
                if !core.nodes.iter().any(|member| is_leader(member)) {
                    found.push((Check::Led, core.nodes[0].ix, "nobody leads".into()));
                }
            }
        }
        if after >= bound(HEALED) && self.judged < 2 {
            let can_heal = self.can_heal(&core, members, scenario);
            let wrong = if can_heal { self.members_differ(&core, members, scenario) } else { None };
            // Somebody may have been removed just now.
            let since = *self.wrong_members.get_or_insert(now);
            if wrong.is_none() || now >= since + CONVERGED {
                self.judged = 2;
                obligations.count(Check::Healed, u64::from(can_heal));
                found.extend(wrong.map(|(at, what)| (Check::Healed, at, what)));
            }
        }
        if after >= bound(ROUTED) && self.judged == 2 {
            let can_heal = self.can_heal(&core, members, scenario);
            let wrong = if can_heal { routes() } else { None };
            // A session may have ended just now.
            let since = *self.wrong_routes.get_or_insert(now);
            if wrong.is_none() || now >= since + CONVERGED {
                self.judged = 3;
                obligations.count(Check::RoutesHealed, u64::from(can_heal));
                found.extend(wrong.map(|what| (Check::RoutesHealed, core.nodes[0].ix, what)));
            }
        }
        found
    }
}
