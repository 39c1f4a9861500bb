//! What an examination may find, from what members have said: pure comparison. What may be under way at this moment, such as
//! an entry that has not come everywhere, is a notice and no more.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};

use newtmq_base::NodeId;

use super::Chart;
use crate::cluster::ClusterStatus;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Promises are not kept, or will not be for long.
    Error,
    /// It works, and not as it should.
    Warning,
    /// Good to know.
    Notice,
}

impl Severity {
    /// For programs and people: `error`, `warning`, `notice`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Notice => "notice",
        }
    }
}

/// Something that is not as it should be. Its display says what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A word for programs, such as `no_leader`.
    pub kind: &'static str,
    /// What is wrong, in words.
    pub what: String,
    /// What to do about it, in words.
    pub advice: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// Compares what members have said; `me` is the one that was asked.
pub(super) fn findings(
    me: NodeId,
    status: &ClusterStatus,
    voters: &BTreeSet<NodeId>,
    charts: &BTreeMap<NodeId, Chart>,
) -> Vec<Finding> {
    let names = status.nodes.iter().map(|node| (node.node, node.name.as_str())).collect();
    let mut look = Look { names, charts, found: Vec::new() };
    if status.is_member {
        look.answers(status);
        look.quorum(me, status, voters);
        look.agreement(me);
        look.links();
        look.routes();
        look.retained();
        look.sessions(me);
        look.release(status);
    } else {
        look.error("no_cluster", "this node is in no cluster".into(), "have it join one: newtmq ctl cluster join NODE");
    }
    look.found.sort_by_key(|finding| finding.severity);
    look.found
}

struct Look<'a> {
    names: BTreeMap<NodeId, &'a str>,
    charts: &'a BTreeMap<NodeId, Chart>,
    found: Vec<Finding>,
}

impl<'a> Look<'a> {
    fn error(&mut self, kind: &'static str, what: String, advice: &'static str) {
        self.found.push(Finding { severity: Severity::Error, kind, what, advice });
    }

    fn warning(&mut self, kind: &'static str, what: String, advice: &'static str) {
        self.found.push(Finding { severity: Severity::Warning, kind, what, advice });
    }

    fn notice(&mut self, kind: &'static str, what: String, advice: &'static str) {
        self.found.push(Finding { severity: Severity::Notice, kind, what, advice });
    }

    fn name(&self, node: NodeId) -> String {
        self.names.get(&node).map_or_else(|| format!("{:016x}", node.0), |name| format!("'{name}'"))
    }

    /// Whether an upgrade has come to its end.
    fn release(&mut self, status: &ClusterStatus) {
        let (used, understood) = status.features;
        if used < understood {
            let what = format!("all members understand feature level {understood}, and the cluster uses {used}");
            let advice = "when no node is to go back to an older program: newtmq ctl cluster finalize";
            self.notice("not_finalized", what, advice);
        }
    }

    /// Who has said nothing.
    fn answers(&mut self, status: &ClusterStatus) {
        for node in status.nodes.iter().filter(|node| !self.charts.contains_key(&node.node)) {
            let name = self.name(node.node);
            if node.is_up {
                let what = format!("{name} is reached and has not answered the examination");
                self.warning("silent", what, "it may be overloaded or paused: look at its log and its processor");
            } else {
                let what = format!("{name} at {} is not reached", node.address);
                let advice = "start it, or see whether TCP and UDP pass between the nodes; if it is gone for good: newtmq ctl cluster force-leave NODE";
                self.error("down", what, advice);
            }
        }
    }

    /// Whether those who answer can decide.
    fn quorum(&mut self, me: NodeId, status: &ClusterStatus, voters: &BTreeSet<NodeId>) {
        let (count, needed) = (voters.len(), voters.len() / 2 + 1);
        let there = voters.iter().filter(|node| self.charts.contains_key(node)).count();
        if there < needed {
            let what = format!("{there} of {count} voters answer, {needed} have to");
            let advice =
                "messages still flow; start the missing voters, or nobody can join, leave or change users until then";
            self.error("no_quorum", what, advice);
        } else if self.charts.get(&me).is_some_and(|chart| chart.leader.is_none()) {
            let advice = "an election takes a few seconds; if it lasts, look at the links between voters";
            self.error("no_leader", "no leader is known".into(), advice);
        }
        if count < 3 && status.nodes.len() > 1 {
            let what = format!(
                "{count} of {} members vote: nothing can be decided while one of them is down",
                status.nodes.len()
            );
            self.notice(
                "few_voters",
                what,
                "a third node, or a witness (cluster.witness), keeps the cluster able to decide",
            );
        }
    }

    /// Whether they agree: on the cluster, its leader, what is decided, and who decides about sessions.
    fn agreement(&mut self, me: NodeId) {
        let charts: &'a BTreeMap<NodeId, Chart> = self.charts;
        let Some(own) = charts.get(&me) else { return };
        let newest = charts.values().map(|chart| chart.applied).max().unwrap_or(0);
        let mut at_entry: BTreeMap<u64, (NodeId, u64)> = BTreeMap::new();
        for (node, chart) in charts {
            let name = self.name(*node);
            if chart.cluster != own.cluster {
                let what = format!("{name} belongs to another cluster, {:x}", chart.cluster.0);
                self.error("other_cluster", what, "have it leave that one and join again");
                continue;
            }
            if chart.stopped {
                let what = format!("{name} cannot apply what was decided: its version of the program is too old");
                self.error("stopped", what, "update it");
            }
            if chart.applied < newest {
                let what = format!("{name} is {} entries behind", newest - chart.applied);
                self.notice("behind", what, "it catches up by itself; if it does not, look at its disk and its links");
            }
            let (first, agreed) = *at_entry.entry(chart.applied).or_insert((*node, chart.agreed));
            if agreed != chart.agreed {
                let first = self.name(first);
                let what = format!("{name} and {first} have other members, users or rules at entry {}", chart.applied);
                let advice = "this is a bug: keep both logs and report it; a node with an empty data directory gets all of it anew";
                self.error("differs", what, advice);
            }
            self.who_decides(own, &name, chart);
        }
    }

    fn who_decides(&mut self, own: &Chart, name: &str, chart: &Chart) {
        if let (Some(own_leader), Some(leader)) = (own.leader, chart.leader)
            && own_leader != leader
        {
            let (leader, own_leader) = (self.name(leader), self.name(own_leader));
            let (term, own_term) = (chart.term, own.term);
            let what = format!("{name} follows {leader} in term {term}, this node {own_leader} in term {own_term}");
            self.warning(
                "two_leaders",
                what,
                "it passes with an election; if it lasts, look at the links between the two",
            );
        }
        if let (Some(own_seat), Some(seat)) = (own.seat, chart.seat)
            && own_seat != seat
        {
            let what = format!("{name} asks {} for sessions, this node {}", self.name(seat), self.name(own_seat));
            self.warning("two_seats", what, "it passes with an election; until then clients may have to connect again");
        }
    }

    /// Who reaches whom. Who has not answered is named already.
    fn links(&mut self) {
        let charts: &'a BTreeMap<NodeId, Chart> = self.charts;
        for (by, chart) in charts {
            for of in chart.sees.iter().filter(|of| charts.contains_key(&of.node)) {
                let (one, other) = (self.name(*by), self.name(of.node));
                if !of.is_up {
                    let advice = "see whether TCP passes both ways between their cluster addresses (node.listen)";
                    self.error("cut", format!("{one} does not reach {other}"), advice);
                } else if of.is_relayed {
                    let what = format!("{one} reaches {other} only over another node");
                    self.warning("relayed", what, "see whether TCP passes between the two (node.listen)");
                }
                if !of.is_alive {
                    let what = format!("{one} has no answer of {other} by UDP");
                    self.warning("not_alive", what, "see whether UDP passes between the two (node.listen)");
                }
            }
        }
    }

    /// Whether all have the same retained messages.
    fn retained(&mut self) {
        let charts: &'a BTreeMap<NodeId, Chart> = self.charts;
        let mut at_entry: BTreeMap<(u64, u64), (NodeId, u64)> = BTreeMap::new();
        for (node, Chart { retained, leader, .. }) in charts {
            let name = self.name(*node);
            // Who knows no leader at all is named already.
            if !retained.is_led && leader.is_some() {
                let what = format!("{name} knows no leader of the group of retained messages");
                let advice = "what is retained there stays there; it passes with an election, or when most of the voters are back; members that are gone for good have to be removed: newtmq ctl cluster force-leave NODE";
                self.warning("retained_no_leader", what, advice);
            } else if retained.kept > 0 && retained.is_led {
                let what = format!("{name} has {} retained messages that the others do not know yet", retained.kept);
                self.notice("retained_kept", what, "they go to the others by themselves");
            }
            let at = (retained.generation, retained.applied);
            let (first, digest) = *at_entry.entry(at).or_insert((*node, retained.digest));
            if digest != retained.digest && retained.applied > 0 {
                let first = self.name(first);
                let what = format!("{name} and {first} have other retained messages at entry {}", retained.applied);
                let advice = "this is a bug: keep both logs and report it; a node with an empty data directory gets all of them anew";
                self.error("retained_differ", what, advice);
            }
        }
    }

    /// Whether who decides about sessions knows where they are. While clients come and go that cannot be told, and another one than
    /// who decides hears of both at different times.
    fn sessions(&mut self, me: NodeId) {
        let charts: &'a BTreeMap<NodeId, Chart> = self.charts;
        let decides = |chart: &&Chart| chart.sessions.is_at_rest && chart.sessions.known.is_some();
        let Some((seat_id, chart)) = charts.iter().find(|(_, chart)| decides(chart)) else { return };
        let known = chart.sessions.known.as_ref().expect("it was just looked at");
        for (node, Chart { sessions, .. }) in charts.iter().filter(|(_, of)| of.seat == Some(*seat_id)) {
            let known = known.get(node).copied().unwrap_or_default();
            if sessions.is_at_rest && sessions.own != known {
                let (name, seat, own) = (self.name(*node), self.name(*seat_id), sessions.own);
                let what = format!(
                    "{name} has {} sessions and {} connections, and {seat}, which decides where they are, knows of {} and {}, or of others",
                    own.sessions, own.connections, known.sessions, known.connections
                );
                let advice = "ask again, for clients may just have come or gone; if it lasts, it is a bug: report it";
                if me == *seat_id {
                    self.warning("sessions_differ", what, advice);
                } else {
                    self.notice("sessions_differ", what, advice);
                }
            }
        }
    }

    /// Whether every copy of routes is that of its owner.
    fn routes(&mut self) {
        let charts: &'a BTreeMap<NodeId, Chart> = self.charts;
        for (by, chart) in charts {
            for of in &chart.sees {
                let Some(owner) = charts.get(&of.node) else { continue };
                let (one, other) = (self.name(*by), self.name(of.node));
                let is_same = of.incarnation == owner.incarnation && of.version == Some(owner.version);
                if of.is_up && !of.is_open {
                    let what = format!("{one} does not match by the routes of {other} yet");
                    let advice = "they are being copied, or wait because the link was up and down: some seconds; publishes wait as long";
                    self.warning("routes_closed", what, advice);
                } else if of.is_open && is_same && of.digest != owner.digest {
                    let what = format!("{one} has other routes of {other} than it has, at version {}", owner.version);
                    let advice =
                        "they are compared and copied anew within seconds; if it lasts, it is a bug: report it";
                    self.error("routes_differ", what, advice);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use newtmq_base::Incarnation;
    use newtmq_cluster::meta::ClusterId;

    use newtmq_cluster::directory::Summary;

    use super::super::{RetainedChart, SessionsChart, Sight};
    use super::*;
    use crate::cluster::NodeStatus;

    type Charts = BTreeMap<NodeId, Chart>;
    type Change = fn(&mut ClusterStatus, &mut Charts);

    fn three() -> (ClusterStatus, Charts) {
        let ids = [1, 2, 3].map(NodeId);
        let nodes = ids.map(|node| NodeStatus {
            node,
            incarnation: Incarnation(1),
            name: format!("n{}@h", node.0),
            address: format!("10.0.0.{}:4370", node.0),
            is_self: node.0 == 1,
            role: "voter",
            is_up: true,
            is_relayed: false,
            is_alive: true,
            routes: "open",
            entries: 0,
        });
        let leader = Some(ids[0]);
        let status = ClusterStatus {
            name: "c".into(),
            is_member: true,
            leader,
            term: 2,
            applied: 9,
            features: (1, 1),
            unready: None,
            nodes: nodes.into(),
        };
        let charts = ids.map(|node| {
            let sees = ids.iter().filter(|other| **other != node).map(|other| Sight {
                node: *other,
                is_up: true,
                is_relayed: false,
                is_alive: true,
                is_open: true,
                incarnation: Incarnation(1),
                version: Some(4),
                digest: other.0,
            });
            let chart = Chart {
                incarnation: Incarnation(1),
                cluster: ClusterId(5),
                term: 2,
                leader,
                applied: 9,
                agreed: 77,
                stopped: false,
                seat: leader,
                version: 4,
                digest: node.0,
                retained: RetainedChart { applied: 40, digest: 6, is_led: true, ..RetainedChart::default() },
                sessions: SessionsChart {
                    is_at_rest: true,
                    own: summary(node.0),
                    known: (node.0 == 1).then(|| ids.map(|node| (node, summary(node.0))).into()),
                },
                sees: sees.collect(),
            };
            (node, chart)
        });
        (status, charts.into())
    }

    fn summary(of: u64) -> Summary {
        Summary { sessions: 10 + of, connections: of, digest: of }
    }

    fn told(change: Change) -> Vec<String> {
        let (mut status, mut charts) = three();
        let voters: BTreeSet<NodeId> = status.nodes.iter().map(|node| node.node).collect();
        change(&mut status, &mut charts);
        let found = findings(NodeId(1), &status, &voters, &charts);
        found.iter().map(|finding| format!("{} {}: {finding}", finding.severity.name(), finding.kind)).collect()
    }

    fn chart(charts: &mut Charts, node: u64) -> &mut Chart {
        charts.get_mut(&NodeId(node)).unwrap()
    }

    #[test]
    fn each_is_named() {
        let rows: &[(Change, &[&str])] = &[
            (|_, _| {}, &[]),
            (
                |status, _| status.features = (1, 2),
                &["notice not_finalized: all members understand feature level 2, and the cluster uses 1"],
            ),
            (|status, _| status.is_member = false, &["error no_cluster: this node is in no cluster"]),
            (
                |status, charts| {
                    status.nodes[2].is_up = false;
                    charts.remove(&NodeId(3));
                },
                &["error down: 'n3@h' at 10.0.0.3:4370 is not reached"],
            ),
            (
                |_, charts| charts.retain(|node, _| node.0 == 1),
                &[
                    "error no_quorum: 1 of 3 voters answer, 2 have to",
                    "warning silent: 'n2@h' is reached and has not answered the examination",
                    "warning silent: 'n3@h' is reached and has not answered the examination",
                ],
            ),
            (|_, charts| chart(charts, 1).leader = None, &["error no_leader: no leader is known"]),
            (
                |_, charts| chart(charts, 2).retained.is_led = false,
                &["warning retained_no_leader: 'n2@h' knows no leader of the group of retained messages"],
            ),
            (
                |_, charts| {
                    chart(charts, 2).retained.digest = 7;
                    chart(charts, 3).retained.kept = 2;
                },
                &[
                    "error retained_differ: 'n2@h' and 'n1@h' have other retained messages at entry 40",
                    "notice retained_kept: 'n3@h' has 2 retained messages that the others do not know yet",
                ],
            ),
            (|_, charts| (chart(charts, 2).retained.applied, chart(charts, 2).retained.digest) = (39, 7), &[]),
            (
                |_, charts| chart(charts, 3).sessions.own = summary(4),
                &[
                    "warning sessions_differ: 'n3@h' has 14 sessions and 4 connections, and 'n1@h', which decides where they are, knows of 13 and 3, or of others",
                ],
            ),
            // Another node than who decides hears of both at different times.
            (
                |_, charts| {
                    charts.values_mut().for_each(|chart| chart.seat = Some(NodeId(2)));
                    chart(charts, 2).sessions.known = chart(charts, 1).sessions.known.take();
                    chart(charts, 3).sessions.own = summary(4);
                },
                &[
                    "notice sessions_differ: 'n3@h' has 14 sessions and 4 connections, and 'n2@h', which decides where they are, knows of 13 and 3, or of others",
                ],
            ),
            // Clients come or go, there or where it is decided; or the node is asked by another one that decides.
            (
                |_, charts| {
                    let chart = chart(charts, 3);
                    (chart.sessions.own, chart.sessions.is_at_rest) = (summary(4), false);
                },
                &[],
            ),
            (
                |_, charts| {
                    chart(charts, 3).sessions.own = summary(4);
                    chart(charts, 1).sessions.is_at_rest = false;
                },
                &[],
            ),
            (
                |_, charts| chart(charts, 2).cluster = ClusterId(0xab),
                &["error other_cluster: 'n2@h' belongs to another cluster, ab"],
            ),
            (
                |_, charts| {
                    let other = Some(NodeId(3));
                    (chart(charts, 2).leader, chart(charts, 2).seat, chart(charts, 2).term) = (other, other, 3);
                },
                &[
                    "warning two_leaders: 'n2@h' follows 'n3@h' in term 3, this node 'n1@h' in term 2",
                    "warning two_seats: 'n2@h' asks 'n3@h' for sessions, this node 'n1@h'",
                ],
            ),
            (
                |_, charts| {
                    let chart = chart(charts, 3);
                    (chart.applied, chart.agreed, chart.stopped) = (7, 1, true);
                },
                &[
                    "error stopped: 'n3@h' cannot apply what was decided: its version of the program is too old",
                    "notice behind: 'n3@h' is 2 entries behind",
                ],
            ),
            (
                |_, charts| chart(charts, 3).agreed = 1,
                &["error differs: 'n3@h' and 'n1@h' have other members, users or rules at entry 9"],
            ),
            (
                |_, charts| {
                    let sees = &mut chart(charts, 2).sees;
                    (sees[0].is_up, sees[0].is_open) = (false, false);
                    (sees[1].is_relayed, sees[1].is_alive) = (true, false);
                },
                &[
                    "error cut: 'n2@h' does not reach 'n1@h'",
                    "warning relayed: 'n2@h' reaches 'n3@h' only over another node",
                    "warning not_alive: 'n2@h' has no answer of 'n3@h' by UDP",
                ],
            ),
            (
                |_, charts| {
                    let sees = &mut chart(charts, 2).sees;
                    sees[0].is_open = false;
                    sees[1].digest = 8;
                },
                &[
                    "error routes_differ: 'n2@h' has other routes of 'n3@h' than it has, at version 4",
                    "warning routes_closed: 'n2@h' does not match by the routes of 'n1@h' yet",
                ],
            ),
            // What is under way is none: an older version, or another start.
            (
                |_, charts| {
                    let sees = &mut chart(charts, 2).sees;
                    (sees[0].version, sees[0].digest) = (Some(3), 8);
                    (sees[1].incarnation, sees[1].digest) = (Incarnation(0), 8);
                },
                &[],
            ),
        ];
        for (place, (change, expected)) in rows.iter().enumerate() {
            assert_eq!(told(*change), *expected, "row {place}");
        }
    }

    #[test]
    fn two_voters_are_few() {
        let (mut status, mut charts) = three();
        status.nodes.pop();
        charts.remove(&NodeId(3));
        let found = findings(NodeId(1), &status, &[NodeId(1)].into(), &charts);
        assert_eq!(found.iter().map(|finding| finding.kind).collect::<Vec<_>>(), ["few_voters"]);
    }
}
