//! What came of a run: the verdict, each violation with its smallest witness, and how much was checked at all.

use core::fmt;
use std::sync::Arc;

use newtmq_base::Instant;

use crate::history::{ClientIx, ConnIx, Event, History, NameIx, Uid};

macro_rules! checks {
    ($($(#[doc = $doc:literal])* $variant:ident $name:literal $class:ident $box_:ident $about:literal,)*) => {
        /// Something that must hold. The names are those of the testbed's documentation.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Check { $(#[doc = $about] $variant,)* }

        impl Check {
            /// Every check, in order.
            pub const ALL: &[Check] = &[$(Check::$variant,)*];

            /// Its name in reports and scenario files.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Check::$variant => $name,)* }
            }

            /// What it finds, in a few words.
            #[must_use]
            pub const fn about(self) -> &'static str {
                match self { $(Check::$variant => $about,)* }
            }

            /// What kind of promise is broken.
            #[must_use]
            pub const fn class(self) -> Class {
                match self { $(Check::$variant => Class::$class,)* }
            }

            /// Whether it looks at what clients saw alone.
            #[must_use]
            pub const fn is_black_box(self) -> bool {
                match self { $(Check::$variant => checks!(@ $box_),)* }
            }
        }
    };
    (@ black) => { true };
    (@ white) => { false };
}

checks! {
    Lost "S1" Safety black "a message that a subscriber was owed never came",
    Phantom "S2" Safety black "a delivery that nothing justifies",
    Twice "S3" Safety black "a QoS 2 message was handed onward more than once",
    Duplicate "S4" Safety black "a second copy of a QoS 1 message without a reason",
    Order "S5" Safety black "messages of one publisher, topic and QoS came in another order",
    TwoServed "S6" Safety black "a connection was served after another one had taken its Client Identifier over",
    SessionPresent "S7" Safety black "Session Present says what cannot be",
    PacketIdReused "S8" Safety black "a Packet Identifier in use names another message",
    Retained "S9" Safety black "a retained message is not what was retained last",
    RetainedMissed "S9b" Safety black "a subscriber got neither the retained nor the live copy",
    Will "S10" Safety black "a Will Message came too often, too early or not at all",
    Shared "S11" Safety black "a message for a shared subscription went to no member or to several",
    Content "S12" Safety black "topic, payload, QoS, flags or Subscription Identifier of a delivery are wrong",
    Durable "S13" Safety black "a message was acknowledged before it was safe",
    Protocol "S14" Safety black "the broker sent what no broker may send",
    Window "S15" Safety black "more messages were unacknowledged than the Receive Maximum allows",
    Refused "S16" Safety black "a publish was refused though all its targets were within reach",
    TurnedAway "S17" Safety black "a CONNECT was refused though all nodes were within reach of each other",
    ConnectAnswered "L5" Liveness black "a CONNECT was not answered in time",
    PublishAnswered "L6" Liveness black "a publish with QoS 1 or 2 was neither acknowledged nor refused in time",
    RequestAnswered "L12" Liveness black "a SUBSCRIBE, UNSUBSCRIBE or PINGREQ was not answered in time",
    CommandAnswered "L9" Liveness black "a node did not answer what an operator asked of its cluster",
    Degraded "L11" Liveness black "a node without a quorum did not answer a CONNECT in time",
    KeptOut "L10" Liveness black "connections with one Client Identifier kept each other out",
    Spread "L14" Liveness black "a node did not have in time what an operator had written for the whole cluster",
    WillFired "L8" Liveness black "a Will Message that was due never came",
    Kept "L13" Liveness black "a client that did nothing wrong lost its connection",
    Ledger "Q9" Safety white "messages in the account that were neither delivered, queued nor dropped",
    Queues "W10" Safety white "a queue is above its limit",
    Ids "W13" Safety white "Packet Identifiers or the window of a session are inconsistent",
    Routes "Q1" Safety white "the routes of the shards differ from the subscriptions of the sessions",
    Stored "W8" Safety white "something was reported stored before its sync was over",
    Leak "Q8" Safety white "a timer, connection, share or wait is left when nothing goes on",
    Leaders "W1" Safety white "two leaders in one term, or what was committed has changed",
    Owners "W5" Safety white "a copy of a node's routes has what that node has not written",
    Replicas "W6" Safety white "two copies of a node's routes differ at one version, or a version went back",
    Epochs "W3" Safety white "two connections of a client have one epoch, or its epochs went back",
    Incarnations "W11" Safety white "a start of a node has the number of an earlier one",
    Removals "W12" Safety white "a member was removed without a majority, or before its time",
    Written "W15" Safety white "what an operator had written for the whole cluster is lost, or an earlier one has replaced it",
    DownJustified "W14" Safety white "a node counted another one as down though nothing was wrong",
    LanesEmpty "Q5" Safety white "something is left between nodes when nothing goes on",
    Members "Q7" Safety white "members, who is alive and who is linked are not the same when nothing goes on",
    RetainedApart "Q4" Safety white "the retained messages of a cluster's nodes are not the same when nothing goes on",
    OneSession "Q3" Safety white "a client has two sessions or connections when nothing goes on, or the directory does not know where",
    Led "L1" Liveness white "no leader 4 s after the last fault",
    Healed "L2" Liveness white "members, who is alive and who is linked are not the same 15 s after the last fault",
    RoutesHealed "L3" Liveness white "the nodes' routes are not those of their subscriptions 17 s after the last fault",
    Crash "crash" Crash white "the broker panicked",
}

/// What kind of promise a check is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Something good did not happen in time.
    Liveness,
    /// Something bad happened.
    Safety,
    /// The broker panicked.
    Crash,
}

/// The outcome of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Nothing was violated.
    Ok,
    /// The worst violation is of this class.
    Violated(Class),
}

impl Verdict {
    /// Exit code of a process: 0, 3 crash, 4 liveness, 5 safety. All are below 128, so `git bisect run` understands them.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Verdict::Ok => 0,
            Verdict::Violated(Class::Crash) => 3,
            Verdict::Violated(Class::Liveness) => 4,
            Verdict::Violated(Class::Safety) => 5,
        }
    }
}

/// What a violation is about: the least that shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Witness {
    /// The message.
    pub uid: Option<Uid>,
    /// Its topic.
    pub topic: Option<NameIx>,
    /// The filter whose subscription is concerned.
    pub filter: Option<NameIx>,
    /// The clients concerned, the one that was wronged first.
    pub clients: Vec<ClientIx>,
    /// The connections concerned, in order.
    pub conns: Vec<ConnIx>,
    /// Times that matter, each with what it is, in order of time.
    pub moments: Vec<(Instant, Arc<str>)>,
}

/// Something that must hold and did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What.
    pub check: Check,
    /// When it was certain.
    pub at: Instant,
    /// One sentence with names and numbers.
    pub message: String,
    /// What it is about.
    pub witness: Witness,
}

/// How many times each check had something to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obligations([u64; Check::ALL.len()]);

impl Default for Obligations {
    fn default() -> Self {
        Obligations([0; Check::ALL.len()])
    }
}

impl Obligations {
    /// Counts some.
    #[inline]
    pub fn count(&mut self, check: Check, number: u64) {
        self.0[check as usize] += number;
    }

    /// How many.
    #[must_use]
    pub fn of(&self, check: Check) -> u64 {
        self.0[check as usize]
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Obligations) {
        for (sum, count) in self.0.iter_mut().zip(other.0) {
            *sum += count;
        }
    }
}

/// What invariants found so far.
#[derive(Debug, Default)]
pub struct Findings {
    /// In order of discovery; at most [`Findings::VIOLATIONS_MAX`], the rest is only counted.
    pub violations: Vec<Violation>,
    /// Violations that were not kept.
    pub more: u64,
    /// How much was looked at.
    pub obligations: Obligations,
}

impl Findings {
    /// Most violations that are kept of one run.
    pub const VIOLATIONS_MAX: usize = 64;

    /// Notes a violation.
    pub fn violated(&mut self, violation: Violation) {
        if self.violations.len() < Findings::VIOLATIONS_MAX {
            self.violations.push(violation);
        } else {
            self.more += 1;
        }
    }
}

/// Something that must hold of every history, as a value. The built-in ones are in [`crate::check`]; a test may bring
/// its own.
pub trait Invariant {
    /// Looks at the next event, which happened at `at`; they come in order of time. `names` has every text that events so
    /// far name.
    fn event(&mut self, at: Instant, event: &Event, names: &crate::history::Names, findings: &mut Findings);

    /// The run is over.
    fn end(&mut self, at: Instant, names: &crate::history::Names, findings: &mut Findings);
}

/// What nodes have sent to each other until the run was over, all together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeTraffic {
    /// Bytes of connections.
    pub stream_bytes: u64,
    /// Datagrams.
    pub datagrams: u64,
    /// Bytes of those.
    pub datagram_bytes: u64,
    /// Connections that were asked for.
    pub dials: u64,
}

/// Nodes or the links between them were repaired, and no such fault was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heal {
    /// When.
    pub repaired: Instant,
    /// When the cluster was whole; if it never was, when the next fault came, or the end of the run.
    pub ended: Instant,
    /// Whether it was: all nodes that run know the same members and the same leader, are linked without others between
    /// them, and have the routes that are each other's subscriptions.
    pub is_whole: bool,
    /// More than half of the voters run. Without them nothing is promised.
    pub has_quorum: bool,
    /// It was not, and had no time to: another fault came before.
    pub is_cut_short: bool,
    /// How long it took until each Client Identifier had one session and one connection at most, and who decides about them knew
    /// where; none if that was not seen before the next fault.
    pub one_session: Option<core::time::Duration>,
}

impl Heal {
    /// How long it took, or was waited for in vain.
    #[must_use]
    pub fn took(&self) -> core::time::Duration {
        self.ended - self.repaired
    }

    /// When all of that was over.
    #[must_use]
    pub fn over(&self) -> Instant {
        self.ended.max(self.repaired + self.one_session.unwrap_or_default())
    }
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Report {
    /// The seed that it had.
    pub seed: u64,
    /// The violations, the worst and earliest first.
    pub violations: Vec<Violation>,
    /// Violations beyond those.
    pub more: u64,
    /// How much was looked at.
    pub obligations: Obligations,
    /// Hash of the canonical form of all events, the same for the same scenario, seed, tier, code and toolchain.
    pub trace_hash: u64,
    /// How many events there were.
    pub events: u64,
    /// Simulated time.
    pub simulated: core::time::Duration,
    /// What nodes sent to each other.
    pub traffic: NodeTraffic,
    /// Repairs of a cluster in the kernel tier, in order; none without a look inside.
    pub heals: Vec<Heal>,
    /// All events, if they were asked for.
    pub history: Option<Box<History>>,
}

impl Report {
    /// The worst of the violations.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.violations.iter().map(|v| Verdict::Violated(v.check.class())).max().unwrap_or(Verdict::Ok)
    }

    /// `ok`, or the name of the first violation's check: what a scenario file expects.
    #[must_use]
    pub fn verdict_name(&self) -> &'static str {
        self.violations.first().map_or("ok", |violation| violation.check.name())
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
