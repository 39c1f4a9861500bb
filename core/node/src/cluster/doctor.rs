//! An examination of the cluster: every member is asked what it has and what it sees, and the answers are compared. It changes
//! nothing, waits for nobody longer than [`EXAMINED_WITHIN`], and what it says is in [`finding`].

mod finding;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use newtmq_base::{Incarnation, Instant, InvalidField, NodeId, Put, RequestId, Take};
use newtmq_cluster::directory::Summary;
use newtmq_cluster::meta::ClusterId;
use newtmq_cluster::owned::Phase;

pub use finding::{Finding, Severity};

use super::joint::{Cluster, Cx};
use super::streams;
use super::{ClusterAnswer, ClusterStatus};

/// What a node says of itself and of what it sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chart {
    /// Its start.
    pub incarnation: Incarnation,
    /// The cluster that it belongs to.
    pub cluster: ClusterId,
    /// Of the meta group.
    pub term: u64,
    /// Who leads the meta group there.
    pub leader: Option<NodeId>,
    /// Index of the last entry of the meta group that is applied there.
    pub applied: u64,
    /// Hash of what is agreed on up to that entry.
    pub agreed: u64,
    /// Its version of the program cannot apply the meta group's log any further.
    pub stopped: bool,
    /// Whom it asks for sessions.
    pub seat: Option<NodeId>,
    /// Version of its own routes.
    pub version: u64,
    /// Digest of them.
    pub digest: u64,
    /// Of retained messages.
    pub retained: RetainedChart,
    /// Of sessions and connections.
    pub sessions: SessionsChart,
    /// The other members.
    pub sees: Vec<Sight>,
}

/// What a node says of retained messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetainedChart {
    /// Which group it belongs to: how often that has begun anew.
    pub generation: u64,
    /// Index of the last entry that is applied there; 0 if it is only catching up.
    pub applied: u64,
    /// Digest of what is retained up to that entry.
    pub digest: u64,
    /// It knows who leads the group.
    pub is_led: bool,
    /// Topics for which it keeps a message that the others do not know.
    pub kept: u64,
}

/// What a node says of its clients' sessions and connections.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionsChart {
    /// Nobody waits there for what is decided about one.
    pub is_at_rest: bool,
    /// What it has.
    pub own: Summary,
    /// If it decides where they are: what it knows of each node.
    pub known: Option<BTreeMap<NodeId, Summary>>,
}

/// A member as another one sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// The member.
    pub node: NodeId,
    /// Frames go to it and come from it.
    pub is_up: bool,
    /// They go over another node.
    pub is_relayed: bool,
    /// SWIM says that it answers.
    pub is_alive: bool,
    /// Its routes are matched.
    pub is_open: bool,
    /// The start that its routes are of.
    pub incarnation: Incarnation,
    /// Version of the copy of its routes; none if there is no copy.
    pub version: Option<u64>,
    /// Digest of the copy.
    pub digest: u64,
}

/// What an examination has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examination {
    /// The cluster as the node sees it that was asked.
    pub status: ClusterStatus,
    /// What each member has said that has answered, the node that was asked among them.
    pub charts: BTreeMap<NodeId, Chart>,
    /// What is wrong or could be better, the worst first.
    pub findings: Vec<Finding>,
}

/// One that goes on.
#[derive(Debug)]
pub(super) struct Exam {
    request: RequestId,
    number: u64,
    missing: BTreeSet<NodeId>,
    charts: BTreeMap<NodeId, Chart>,
    until: Instant,
}

/// The examinations of a node: one at a time.
#[derive(Debug, Default)]
pub(super) struct Doctor {
    exam: Option<Exam>,
    numbers: u64,
}

impl Doctor {
    pub(super) fn next_deadline(&self) -> Instant {
        self.exam.as_ref().map_or(Instant::NEVER, |exam| exam.until)
    }
}

/// What nodes say to each other about it.
#[derive(Debug, PartialEq, Eq)]
enum Message {
    Ask { number: u64 },
    Told { number: u64, chart: Box<Chart> },
}

impl Cluster {
    /// Begins one; it is answered when all have said something, or when the time is over.
    pub(super) fn examine(&mut self, cx: &mut Cx<'_>, request: RequestId) -> Option<ClusterAnswer> {
        if self.doctor.exam.is_some() {
            return Some(ClusterAnswer::Refused("another examination is under way".into()));
        }
        self.doctor.numbers += 1;
        let number = self.doctor.numbers;
        let charts = BTreeMap::from([(self.node, self.chart(cx))]);
        let others = self.meta.view().state.members().keys().filter(|node| **node != self.node);
        let missing: BTreeSet<NodeId> = others.copied().collect();
        for node in &missing {
            self.say_about_health(cx.now, *node, &Message::Ask { number });
        }
        self.doctor.exam = Some(Exam { request, number, missing, charts, until: cx.now + EXAMINED_WITHIN });
        self.look_at_exam(cx);
        None
    }

    /// Answers it if nobody is waited for any more.
    pub(super) fn look_at_exam(&mut self, cx: &mut Cx<'_>) {
        let is_over = |exam: &mut Exam| exam.missing.is_empty() || exam.until <= cx.now;
        let Some(Exam { request, charts, .. }) = self.doctor.exam.take_if(is_over) else { return };
        let status = self.status(cx);
        let voters = self.meta.view().state.voters().clone();
        let findings = finding::findings(self.node, &status, &voters, &charts);
        let answer = ClusterAnswer::Examined(Box::new(Examination { status, charts, findings }));
        self.answer(cx, request, answer);
    }

    pub(super) fn on_health(&mut self, cx: &mut Cx<'_>, from: NodeId, bytes: &[u8]) {
        match Message::decode(bytes) {
            Ok(Message::Ask { number }) => {
                let chart = Box::new(self.chart(cx));
                self.say_about_health(cx.now, from, &Message::Told { number, chart });
            }
            Ok(Message::Told { number, chart }) => {
                // A late answer is to an examination that is over.
                if let Some(exam) = self.doctor.exam.as_mut().filter(|exam| exam.number == number)
                    && exam.missing.remove(&from)
                {
                    exam.charts.insert(from, *chart);
                    self.look_at_exam(cx);
                }
            }
            Err(_) => self.counts.malformed += 1,
        }
    }

    fn say_about_health(&mut self, now: Instant, to: NodeId, message: &Message) {
        let bytes = streams::tagged_health(self.meta.cluster().unwrap_or_default(), &message.encode());
        self.say(now, to, bytes, false);
    }

    fn chart(&self, cx: &Cx<'_>) -> Chart {
        let view = self.meta.view();
        let sees = view.state.members().keys().filter(|node| **node != self.node).map(|node| {
            let copy = cx.owned.replica(*node);
            Sight {
                node: *node,
                is_up: self.reached.contains_key(node),
                is_relayed: self.is_relayed(*node),
                is_alive: self.is_alive(*node),
                is_open: cx.owned.phase(*node) == Phase::Open,
                incarnation: copy.map_or(Incarnation(0), |copy| copy.incarnation()),
                version: copy.and_then(|copy| copy.version()),
                digest: copy.map_or(0, |copy| copy.digest()),
            }
        });
        Chart {
            incarnation: self.incarnation,
            cluster: self.meta.cluster().unwrap_or_default(),
            term: view.term,
            leader: view.leader,
            applied: view.state.index(),
            agreed: view.state.hash(),
            stopped: view.stopped.is_some(),
            seat: self.directory.obeys(),
            version: cx.owned.log().version(),
            digest: cx.owned.log().digest(),
            retained: self.retained_chart(),
            sessions: self.sessions_chart(),
            sees: sees.collect(),
        }
    }
}

impl Cluster {
    /// Looks at every client, so only where that takes no time in which others would wait.
    fn sessions_chart(&self) -> SessionsChart {
        let seated = self.directory.seated().map_or(0, |seated| seated.clients);
        if self.directory.sessions().count().max(seated) > COMPARED_MAX {
            return SessionsChart::default();
        }
        SessionsChart {
            is_at_rest: self.directory.is_at_rest(),
            own: self.directory.summary(),
            known: self.directory.known(),
        }
    }

    fn retained_chart(&self) -> RetainedChart {
        let view = self.retained().view();
        RetainedChart {
            generation: self.retained_generation().unwrap_or(0),
            applied: if view.is_exact { view.applied } else { 0 },
            digest: view.digest,
            is_led: view.leader.is_some(),
            kept: view.pending as u64,
        }
    }
}

impl Message {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Message::Ask { number } => {
                Put(&mut bytes).number(ASK).number(*number);
            }
            Message::Told { number, chart } => {
                Put(&mut bytes).number(TOLD).number(*number);
                chart.encode(&mut bytes);
            }
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Message, InvalidField> {
        let mut take = Take(bytes);
        match take.number()? {
            ASK => Ok(Message::Ask { number: take.number()? }),
            TOLD => Ok(Message::Told { number: take.number()?, chart: Box::new(Chart::take(&mut take)?) }),
            _ => Err(InvalidField("a question about health")),
        }
    }
}

impl Chart {
    fn encode(&self, out: &mut Vec<u8>) {
        let mut put = Put(out);
        put.number(self.incarnation.0).number(self.cluster.0).number(self.term).number(node_or_none(self.leader));
        put.number(self.applied).number(self.agreed).flag(self.stopped).number(node_or_none(self.seat));
        put.number(self.version).number(self.digest);
        let RetainedChart { generation, applied, digest, is_led, kept } = self.retained;
        put.number(generation).number(applied).number(digest).flag(is_led).number(kept);
        put.number(self.sees.len() as u64);
        for of in &self.sees {
            put.number(of.node.0).flag(of.is_up).flag(of.is_relayed).flag(of.is_alive).flag(of.is_open);
            put.number(of.incarnation.0).flag(of.version.is_some()).number(of.version.unwrap_or(0)).number(of.digest);
        }
        self.sessions.encode(out);
    }

    fn take(take: &mut Take<'_>) -> Result<Chart, InvalidField> {
        let mut chart = Chart {
            incarnation: Incarnation(take.number()?),
            cluster: ClusterId(take.number()?),
            term: take.number()?,
            leader: some_node(take.number()?),
            applied: take.number()?,
            agreed: take.number()?,
            stopped: take.flag()?,
            seat: some_node(take.number()?),
            version: take.number()?,
            digest: take.number()?,
            retained: RetainedChart {
                generation: take.number()?,
                applied: take.number()?,
                digest: take.number()?,
                is_led: take.flag()?,
                kept: take.number()?,
            },
            sessions: SessionsChart::default(),
            sees: Vec::new(),
        };
        for _ in 0..take.count()? {
            chart.sees.push(Sight {
                node: NodeId(take.number()?),
                is_up: take.flag()?,
                is_relayed: take.flag()?,
                is_alive: take.flag()?,
                is_open: take.flag()?,
                incarnation: Incarnation(take.number()?),
                version: take.flag()?.then_some(0),
                digest: 0,
            });
            let of = chart.sees.last_mut().expect("it was just pushed");
            let version = take.number()?;
            of.version = of.version.map(|_| version);
            of.digest = take.number()?;
        }
        // A program that is older says nothing of it.
        if !take.0.is_empty() {
            chart.sessions = SessionsChart::take(take)?;
        }
        Ok(chart)
    }
}

impl SessionsChart {
    fn encode(&self, out: &mut Vec<u8>) {
        put_summary(&self.own, Put(out).flag(self.is_at_rest));
        let mut put = Put(out);
        put.flag(self.known.is_some()).number(self.known.as_ref().map_or(0, BTreeMap::len) as u64);
        for (node, summary) in self.known.iter().flatten() {
            put_summary(summary, put.number(node.0));
        }
    }

    fn take(take: &mut Take<'_>) -> Result<SessionsChart, InvalidField> {
        let (is_at_rest, own, decides) = (take.flag()?, take_summary(take)?, take.flag()?);
        let mut known = BTreeMap::new();
        for _ in 0..take.count()? {
            known.insert(NodeId(take.number()?), take_summary(take)?);
        }
        Ok(SessionsChart { is_at_rest, own, known: decides.then_some(known) })
    }
}

fn put_summary(summary: &Summary, put: &mut Put<'_>) {
    put.number(summary.sessions).number(summary.connections).number(summary.digest);
}

fn take_summary(take: &mut Take<'_>) -> Result<Summary, InvalidField> {
    Ok(Summary { sessions: take.number()?, connections: take.number()?, digest: take.number()? })
}

// No node is number 0.
fn node_or_none(node: Option<NodeId>) -> u64 {
    node.map_or(0, |node| node.0)
}

fn some_node(number: u64) -> Option<NodeId> {
    Some(NodeId(number)).filter(|node| node.0 != 0)
}

const ASK: u64 = 0;
const TOLD: u64 = 1;
/// Where more sessions are, at a node or for the one that decides, they are not compared.
const COMPARED_MAX: usize = 100_000;
/// Who has said nothing by then is named as silent.
const EXAMINED_WITHIN: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_as_they_went_and_cut_ones_are_errors() {
        let sees = vec![
            Sight {
                node: NodeId(2),
                is_up: true,
                is_relayed: false,
                is_alive: true,
                is_open: true,
                incarnation: Incarnation(3),
                version: Some(7),
                digest: u64::MAX,
            },
            Sight {
                node: NodeId(3),
                is_up: false,
                is_relayed: true,
                is_alive: false,
                is_open: false,
                incarnation: Incarnation(0),
                version: None,
                digest: 0,
            },
        ];
        let chart = Chart {
            incarnation: Incarnation(1),
            cluster: ClusterId(9),
            term: 4,
            leader: None,
            applied: 300,
            agreed: 1,
            stopped: false,
            seat: Some(NodeId(2)),
            version: 5,
            digest: 6,
            retained: RetainedChart { generation: 2, applied: 1 << 41, digest: 8, is_led: true, kept: 3 },
            sessions: SessionsChart {
                is_at_rest: true,
                own: Summary { sessions: 3, connections: 2, digest: 1 << 63 },
                known: Some(BTreeMap::from([(NodeId(2), Summary::default()), (NodeId(3), Summary::default())])),
            },
            sees,
        };
        for message in [Message::Ask { number: 8 }, Message::Told { number: 8, chart: Box::new(chart) }] {
            let bytes = message.encode();
            let cut: Vec<Message> = (0..bytes.len()).filter_map(|at| Message::decode(&bytes[..at]).ok()).collect();
            // One that is cut in front of what an older program does not say is one of that.
            let older = match &message {
                Message::Ask { .. } => Vec::new(),
                Message::Told { number, chart } => {
                    let chart = Box::new(Chart { sessions: SessionsChart::default(), ..(**chart).clone() });
                    vec![Message::Told { number: *number, chart }]
                }
            };
            assert_eq!(cut, older);
            assert_eq!(Message::decode(&bytes), Ok(message));
        }
    }
}
