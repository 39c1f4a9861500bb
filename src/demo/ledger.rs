//! What the clients of a demo have sent and got, and what was owed to them.
//!
//! A message is owed to a subscriber if it was confirmed to its publisher, the subscription was confirmed at least 2 s before
//! and its connection has lasted, and the publisher's node had the routes of the subscriber's node open: when it was asked
//! before the message was sent, when it was asked after it was confirmed, and always in between.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::sight::Look;

/// Numbers since the begin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages sent.
    pub sent: u64,
    /// Confirmed with success.
    pub confirmed: u64,
    /// Confirmed with an error.
    pub refused: u64,
    /// Messages that have come to a subscriber, the first time.
    pub delivered: u64,
    /// Of these, over two nodes.
    pub across: u64,
    /// Messages that have come again, which QoS 1 allows after a fault.
    pub again: u64,
    /// Messages that were owed to a subscriber and did not come.
    pub lost: u64,
    /// Messages that came after later ones of the same publisher.
    pub disordered: u64,
    /// Not owed, and not delivered: a client or a node was out of reach.
    pub excused: u64,
}

/// A message that was owed to a subscriber and did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// The publisher, and its node.
    pub publisher: (usize, usize),
    /// The subscriber, and its node.
    pub subscriber: (usize, usize),
    /// Counts the publisher's messages from 0.
    pub number: u64,
    /// How long ago it was sent.
    pub sent: Duration,
    /// How long ago it was confirmed.
    pub confirmed: Duration,
}

/// Messages that are not settled yet, and all counts.
#[derive(Debug)]
pub struct Ledger {
    nodes: usize,
    /// By publisher: its node.
    publishers: Vec<usize>,
    subscribers: Vec<Subscriber>,
    /// From node to node: since when its routes are open, and until when that is known.
    rows: Vec<Option<(Instant, Instant)>>,
    /// By publisher.
    sent: Vec<VecDeque<Sent>>,
    /// By publisher: how many were settled, and which connection is its present one.
    settled: Vec<u64>,
    runs: Vec<u64>,
    /// By node: since when it runs.
    running: Vec<Option<Instant>>,
    /// The counts.
    pub counts: Counts,
    /// By node: messages confirmed and delivered there.
    pub by_node: Vec<(u64, u64)>,
    latencies: VecDeque<(Instant, Duration)>,
    lost: Vec<Lost>,
}

#[derive(Debug)]
struct Subscriber {
    node: usize,
    since: Option<Instant>,
    session: u64,
    /// By publisher and its connection: the last message that has come.
    last: BTreeMap<usize, (u64, u64)>,
}

#[derive(Debug)]
struct Sent {
    at: Instant,
    run: u64,
    fate: Fate,
    /// By subscriber.
    to: Vec<Dest>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    UnderWay,
    Confirmed(Instant),
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dest {
    /// It is not known yet whether it is owed to this session.
    Waits(u64),
    Owed(u64),
    Done,
}

impl Ledger {
    /// For publishers and subscribers at these nodes.
    pub fn new(nodes: usize, publishers: Vec<usize>, subscribers: &[usize]) -> Ledger {
        let subscriber = |node: &usize| Subscriber { node: *node, since: None, session: 0, last: BTreeMap::new() };
        let count = publishers.len();
        Ledger {
            nodes,
            publishers,
            subscribers: subscribers.iter().map(subscriber).collect(),
            rows: vec![None; nodes * nodes],
            sent: (0..count).map(|_| VecDeque::new()).collect(),
            settled: vec![0; count],
            runs: vec![0; count],
            running: vec![None; nodes],
            counts: Counts::default(),
            by_node: vec![(0, 0); nodes],
            latencies: VecDeque::new(),
            lost: Vec::new(),
        }
    }

    /// A node was asked.
    pub fn looked(&mut self, look: &Look) {
        for other in 0..self.nodes {
            let open = look.sight.as_ref().is_some_and(|sight| sight.peers[other].is_open());
            let row = &mut self.rows[look.node * self.nodes + other];
            *row = match *row {
                _ if !open => None,
                Some((from, _)) => Some((from, look.begun)),
                None => Some((look.at, look.begun)),
            };
        }
    }

    /// A node's process does something else from now on.
    pub fn runs(&mut self, node: usize, running: bool, now: Instant) {
        self.running[node] = running.then(|| self.running[node].unwrap_or(now));
    }

    /// A node is gone: what it says when it is there again is of another start.
    pub fn gone(&mut self, node: usize) {
        self.rows[node * self.nodes..][..self.nodes].fill(None);
    }

    /// A subscription was confirmed.
    pub fn subscribed(&mut self, subscriber: usize, now: Instant) {
        let subscriber = &mut self.subscribers[subscriber];
        subscriber.since = Some(now);
        subscriber.session += 1;
    }

    /// A subscriber's connection is over.
    pub fn unsubscribed(&mut self, subscriber: usize) {
        self.subscribers[subscriber].since = None;
    }

    /// A publisher's connection is over: what became of its messages is not known.
    pub fn unknown(&mut self, publisher: usize) {
        self.runs[publisher] += 1;
        for sent in self.sent[publisher].iter_mut().filter(|sent| sent.fate == Fate::UnderWay) {
            sent.fate = Fate::Unknown;
        }
    }

    /// A publisher sends its next message, whose number this gives.
    pub fn sends(&mut self, publisher: usize, now: Instant) -> u64 {
        self.counts.sent += 1;
        let dest = |subscriber: &Subscriber| match subscriber.since {
            Some(since) if since + CONVERGENCE <= now => Dest::Waits(subscriber.session),
            _ => Dest::Done,
        };
        let to = self.subscribers.iter().map(dest).collect();
        self.sent[publisher].push_back(Sent { at: now, run: self.runs[publisher], fate: Fate::UnderWay, to });
        self.settled[publisher] + self.sent[publisher].len() as u64 - 1
    }

    fn find(&mut self, publisher: usize, number: u64) -> Option<&mut Sent> {
        let at = number.checked_sub(*self.settled.get(publisher)?)?;
        self.sent[publisher].get_mut(usize::try_from(at).ok()?)
    }

    /// A message was confirmed.
    pub fn confirmed(&mut self, publisher: usize, number: u64, success: bool, now: Instant) {
        if success {
            self.counts.confirmed += 1;
            self.by_node[self.publishers[publisher]].0 += 1;
        } else {
            self.counts.refused += 1;
        }
        if let Some(sent) = self.find(publisher, number) {
            sent.fate = if success { Fate::Confirmed(now) } else { Fate::Unknown };
        }
    }

    /// A message has come to a subscriber. Says when it was sent, if it is the first time.
    pub fn delivered(&mut self, subscriber: usize, publisher: usize, number: u64, now: Instant) -> Option<Instant> {
        let run = self.find(publisher, number).map(|sent| sent.run);
        let last = self.subscribers[subscriber].last.get(&publisher).copied();
        let known = last.filter(|(_, before)| *before >= number);
        if let Some((of, _)) = known {
            let sent = self.find(publisher, number);
            if sent.is_none_or(|sent| sent.to[subscriber] == Dest::Done) {
                self.counts.again += 1;
                return None;
            }
            if run == Some(of) {
                self.counts.disordered += 1;
            }
        }
        if known.is_none() {
            self.subscribers[subscriber].last.insert(publisher, (run.unwrap_or(u64::MAX), number));
        }
        self.counts.delivered += 1;
        let node = self.subscribers[subscriber].node;
        self.by_node[node].1 += 1;
        let across = self.publishers[publisher] != node;
        self.counts.across += u64::from(across);
        let sent = self.find(publisher, number)?;
        sent.to[subscriber] = Dest::Done;
        let at = sent.at;
        if across {
            self.latencies.push_back((now, now.saturating_duration_since(at)));
        }
        Some(at)
    }

    /// Decides what can be decided.
    pub fn settle(&mut self, now: Instant) {
        for publisher in 0..self.sent.len() {
            let from = self.publishers[publisher];
            let mut queue = std::mem::take(&mut self.sent[publisher]);
            for (number, sent) in (self.settled[publisher]..).zip(&mut queue) {
                for (at, (dest, subscriber)) in sent.to.iter_mut().zip(&self.subscribers).enumerate() {
                    let row = self.rows[from * self.nodes + subscriber.node];
                    let row = if from == subscriber.node { Some((sent.at, now)) } else { row };
                    let running = self.running[subscriber.node];
                    let (next, lost) = decide(*dest, (sent.at, sent.fate), subscriber, row, running, now);
                    self.counts.excused += u64::from(*dest != Dest::Done && next == Dest::Done && !lost);
                    self.counts.lost += u64::from(lost);
                    if let (true, Fate::Confirmed(confirmed)) = (lost, sent.fate) {
                        let ago = |at: Instant| now.saturating_duration_since(at);
                        let (publisher, subscriber) = ((publisher, from), (at, subscriber.node));
                        let (sent, confirmed) = (ago(sent.at), ago(confirmed));
                        self.lost.push(Lost { publisher, subscriber, number, sent, confirmed });
                    }
                    *dest = next;
                }
            }
            while queue.front().is_some_and(|sent| {
                sent.fate != Fate::UnderWay && sent.to.iter().all(|dest| *dest == Dest::Done) && sent.at + KEPT < now
            }) {
                queue.pop_front();
                self.settled[publisher] += 1;
            }
            self.sent[publisher] = queue;
        }
        while self.latencies.front().is_some_and(|(at, _)| *at + Duration::from_secs(1) < now) {
            self.latencies.pop_front();
        }
    }

    /// What was found to be lost since the last call.
    pub fn take_lost(&mut self) -> Vec<Lost> {
        std::mem::take(&mut self.lost)
    }

    /// Deliveries that are not decided yet.
    pub fn undecided(&self) -> usize {
        let all = self.sent.iter().flatten();
        all.map(|sent| sent.to.iter().filter(|dest| **dest != Dest::Done).count()).sum()
    }

    /// How long the slowest message of the last second was under way from one node to another.
    pub fn slowest(&self) -> Option<Duration> {
        self.latencies.iter().map(|(_, took)| *took).max()
    }
}

/// What becomes of a message to a subscriber, and whether it is lost.
fn decide(
    dest: Dest,
    (at, fate): (Instant, Fate),
    subscriber: &Subscriber,
    row: Option<(Instant, Instant)>,
    running: Option<Instant>,
    now: Instant,
) -> (Dest, bool) {
    let (Dest::Waits(session) | Dest::Owed(session)) = dest else { return (dest, false) };
    if subscriber.since.is_none() || subscriber.session != session {
        return (Dest::Done, false);
    }
    let confirmed = match fate {
        Fate::UnderWay => return (dest, false),
        Fate::Unknown => return (Dest::Done, false),
        Fate::Confirmed(confirmed) => confirmed,
    };
    let owed = matches!(dest, Dest::Owed(_));
    match row {
        _ if owed => {}
        Some((from, to)) if from <= at && confirmed <= to => {}
        // The next look decides.
        Some((from, _)) if from <= at => return (dest, false),
        Some(_) | None => return (Dest::Done, false),
    }
    let late = running.is_some_and(|since| confirmed.max(since) + LATE < now);
    if late { (Dest::Done, true) } else { (Dest::Owed(session), false) }
}

/// Every node knows a subscription so long after it was confirmed.
const CONVERGENCE: Duration = Duration::from_secs(2);
/// What has not come so long after it was confirmed is lost.
const LATE: Duration = Duration::from_secs(10);
/// So long a message is known, so that it is known when it comes again.
const KEPT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::super::sight::{Peer, Sight};
    use super::*;

    struct World {
        ledger: Ledger,
        now: Instant,
    }

    /// A publisher at node 0 and a subscriber at node 1, for a while already.
    fn world() -> World {
        let mut world = World { ledger: Ledger::new(2, vec![0], &[1]), now: Instant::now() };
        world.ledger.subscribed(0, world.now);
        world.ledger.runs(1, true, world.now);
        world.look(true);
        world.pass(3000);
        world
    }

    impl World {
        fn pass(&mut self, ms: u64) {
            self.now += Duration::from_millis(ms);
        }

        fn look(&mut self, open: bool) {
            let routes = if open { "open" } else { "masked" };
            let peer = Peer { routes: routes.to_owned(), ..Peer::default() };
            let sight = Sight { peers: vec![peer.clone(), peer], ..Sight::default() };
            self.ledger.looked(&Look { node: 0, begun: self.now, at: self.now, sight: Some(sight) });
        }

        fn counts(&mut self) -> Counts {
            self.ledger.settle(self.now);
            self.ledger.counts
        }
    }

    #[test]
    fn what_was_confirmed_while_all_was_well_is_owed() {
        let mut world = world();
        let number = world.ledger.sends(0, world.now);
        world.pass(10);
        world.ledger.confirmed(0, number, true, world.now);
        assert_eq!((world.counts().excused, world.ledger.undecided()), (0, 1));
        world.look(true);
        world.counts();
        // Nothing that happens later excuses it.
        world.look(false);
        world.pass(11_000);
        assert_eq!(world.counts().lost, 1);
        assert_eq!(world.ledger.undecided(), 0);
    }

    #[test]
    fn what_comes_is_not_lost_and_may_come_again() {
        let mut world = world();
        let number = world.ledger.sends(0, world.now);
        assert!(world.ledger.delivered(0, 0, number, world.now).is_some());
        assert!(world.ledger.delivered(0, 0, number, world.now).is_none());
        world.ledger.confirmed(0, number, true, world.now);
        world.pass(60_000);
        let counts = world.counts();
        assert_eq!((counts.delivered, counts.across, counts.again, counts.lost, counts.excused), (1, 1, 1, 0, 0));
        assert_eq!(world.ledger.delivered(0, 0, number, world.now), None, "even when it is forgotten");
        assert_eq!(world.counts().again, 2);
    }

    #[test]
    fn masked_routes_a_lost_connection_an_error_and_the_end_of_a_node_excuse() {
        for case in 0..5 {
            let mut world = world();
            if case == 0 {
                world.look(false);
            }
            let number = world.ledger.sends(0, world.now);
            match case {
                1 => world.ledger.unsubscribed(0),
                2 => world.ledger.confirmed(0, number, false, world.now),
                3 => world.ledger.unknown(0),
                _ => {}
            }
            if case < 2 || case == 4 {
                world.ledger.confirmed(0, number, true, world.now);
            }
            if case == 4 {
                world.ledger.gone(0);
            }
            world.pass(1);
            world.look(true);
            world.pass(20_000);
            let counts = world.counts();
            assert_eq!((counts.lost, counts.excused, world.ledger.undecided()), (0, 1, 0), "{case}");
        }
    }

    #[test]
    fn the_order_of_a_publisher_is_kept() {
        let mut world = world();
        let numbers = [(); 2].map(|()| world.ledger.sends(0, world.now));
        world.ledger.delivered(0, 0, numbers[1], world.now);
        world.ledger.delivered(0, 0, numbers[0], world.now);
        assert_eq!((world.counts().disordered, world.ledger.counts.delivered), (1, 2));
    }

    #[test]
    fn nothing_is_late_while_the_node_is_paused() {
        let mut world = world();
        let number = world.ledger.sends(0, world.now);
        world.ledger.confirmed(0, number, true, world.now);
        world.look(true);
        world.counts();
        world.ledger.runs(1, false, world.now);
        world.pass(20_000);
        assert_eq!(world.counts().lost, 0);
        world.ledger.runs(1, true, world.now);
        world.pass(9_000);
        assert_eq!(world.counts().lost, 0);
        world.pass(2_000);
        assert_eq!(world.counts().lost, 1);
    }
}
