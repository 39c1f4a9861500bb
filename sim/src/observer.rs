//! Where events of a run go: into the hash, to the invariants, and into the history if somebody wants to see it.

use newtmq_base::Instant;

use crate::history::{Event, History, Names, Stamped};
use crate::report::{Findings, Heal, Invariant, NodeTraffic, Violation};

/// Takes the events of a run.
pub struct Observer<'a> {
    /// Texts that events name.
    pub names: Names,
    /// What was found so far.
    pub findings: Findings,
    /// What nodes sent to each other.
    pub traffic: NodeTraffic,
    /// Repairs of a cluster, and how long it took until it was whole.
    pub heals: Vec<Heal>,
    invariants: Vec<Box<dyn Invariant + 'a>>,
    history: Option<Vec<Stamped>>,
    hash: TraceHash,
    events: u64,
    last: Instant,
}

impl<'a> Observer<'a> {
    /// With these invariants; `record` keeps every event.
    #[must_use]
    pub fn new(invariants: Vec<Box<dyn Invariant + 'a>>, record: bool) -> Observer<'a> {
        Observer {
            names: Names::default(),
            findings: Findings::default(),
            traffic: NodeTraffic::default(),
            heals: Vec::new(),
            invariants,
            history: record.then(Vec::new),
            hash: TraceHash::default(),
            events: 0,
            last: Instant::START,
        }
    }

    /// The next event; time never goes back.
    pub fn event(&mut self, at: Instant, event: &Event) {
        assert!(at >= self.last, "events come in order of time");
        self.last = at;
        self.events += 1;
        crate::canonical::write(at, event, &mut self.hash);
        for invariant in &mut self.invariants {
            invariant.event(at, event, &self.names, &mut self.findings);
        }
        if let Some(history) = &mut self.history {
            history.push(Stamped { at, event: event.clone() });
        }
    }

    /// Something that the world itself found, such as a panic of the broker.
    pub fn violated(&mut self, violation: Violation) {
        self.findings.violated(violation);
    }

    /// The run is over.
    pub fn end(&mut self, at: Instant) -> Observed {
        for invariant in &mut self.invariants {
            invariant.end(at, &self.names, &mut self.findings);
        }
        let history =
            self.history.take().map(|events| Box::new(History { events, names: core::mem::take(&mut self.names) }));
        Observed { hash: self.hash.finish(), events: self.events, history }
    }
}

/// What an observer has at the end, beside its findings.
#[derive(Debug)]
pub struct Observed {
    /// Hash of all events.
    pub hash: u64,
    /// How many there were.
    pub events: u64,
    /// All of them, if they were to be kept.
    pub history: Option<Box<History>>,
}

/// A hash over numbers: the same on every machine and with every version of Rust.
#[derive(Debug, Clone, Copy)]
pub struct TraceHash(u64);

impl Default for TraceHash {
    fn default() -> Self {
        TraceHash(0x5EED_0F7A_C3D1_F00D)
    }
}

impl TraceHash {
    /// Adds a number.
    #[inline]
    pub fn add(&mut self, value: u64) {
        let product = u128::from(self.0 ^ value) * u128::from(0x9E37_79B9_7F4A_7C15_u64);
        self.0 = (product as u64 ^ (product >> 64) as u64).rotate_left(23) ^ value;
    }

    /// The hash of what was added.
    #[must_use]
    pub fn finish(self) -> u64 {
        crate::draw::mix(self.0)
    }
}
