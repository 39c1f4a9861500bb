//! The queue of events and the clock. One event at a time: (time, sequence).

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use newtmq_base::{Incarnation, Instant, NodeId, RequestId, Rng, SEED_BYTES, ShardId, WallTime};
use newtmq_node::{
    Boot, CloseCause, Control, ControlBoot, ControlInput, ControlOutput, Event, FromControl, Moved, Outbox,
    PlaceMessage, Question, Shard, ShardConfig, ShardInput, TimerKind, ToControl, Verdict,
};

use super::client::{Filters, Script};
use super::driver::{CONTROL, Link};
use super::view::NodeView;

/// Sizes of the pieces that bytes travel in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) chunk_min: usize,
    /// 0: by chance, for each connection.
    pub(crate) chunk_max: usize,
    /// All clients belong to one shard: for what is only exact there.
    pub(crate) together: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { chunk_min: 1, chunk_max: 0, together: false }
    }
}

/// Something that happens at a time. Numbers are those of connections.
#[derive(Debug)]
pub(super) enum Happening {
    /// Bytes reach the server's machine.
    ToServer(usize, Vec<u8>),
    /// The client's end of its stream, or its reset, reaches the server's machine.
    ServerFin(usize, CloseCause),
    /// Bytes reach the client's machine.
    ToClient(usize, Vec<u8>),
    /// The server's end of its stream reaches the client.
    ClientFin(usize),
    /// The driver looks after output.
    Pump(usize),
    /// The driver passes on what it kept.
    Feed(usize),
    /// A hook answers a shard.
    Decided(usize, RequestId, Verdict),
    /// A connection reaches the shard of its client.
    Moved(usize, ShardId, Box<Moved>),
    /// A shard hears from another.
    Place(usize, ShardId, PlaceMessage),
    /// The control plane hears from a shard.
    ToControl(ShardId, ToControl),
    /// A shard hears from the control plane.
    FromControl(usize, FromControl),
}

type Decider = Box<dyn FnMut(&Question) -> Verdict>;

/// A node, its drivers and its clients.
pub(crate) struct Net {
    pub(super) seed: u64,
    pub(super) now: Instant,
    pub(super) shards: Vec<Shard>,
    control: Control,
    /// When the last of what one says to another arrives.
    pub(super) channels: BTreeMap<(usize, usize), Instant>,
    pub(super) outbox: Outbox,
    pub(super) rng: Rng,
    pub(super) options: Options,
    queue: BTreeMap<(Instant, u64), Happening>,
    next_sequence: u64,
    steps: u64,
    /// By shard: work that is left goes on then.
    work_at: Vec<Instant>,
    had_work: Vec<bool>,
    /// How late the Tick for work that is left comes; by chance without it.
    pub(crate) work_delay: Option<Duration>,
    /// Hash of everything that the shards asked for, if wanted.
    pub(crate) trace: Option<u64>,
    /// What is said to this shard takes longer than what is said to others.
    pub(crate) far_shard: Option<usize>,
    /// The only shard that is late; none for all.
    pub(crate) slow_shard: Option<usize>,
    pub(super) links: Vec<Link>,
    pub(super) scripts: Vec<Script>,
    /// By Client Identifier.
    pub(super) filters: BTreeMap<String, Filters>,
    /// By shard: slot → connection number and generation of its last user.
    pub(super) slots: Vec<Vec<(Option<usize>, u32)>>,
    pub(super) decider: Option<Decider>,
    /// User Name that the certificate of the next connection gives.
    pub(crate) certified: Option<Box<str>>,
    /// Questions asked, in order.
    pub(crate) questions: Vec<Question>,
    /// Who has connected too often.
    pub(crate) flaps: Vec<Box<str>>,
    /// Events told, in order.
    pub(crate) events: Vec<Event>,
    /// Where the next connection comes in.
    pub(crate) listener: u16,
    pub(super) unanswered: BTreeSet<(usize, RequestId)>,
    /// Questions are never answered.
    pub(crate) hooks_hang: bool,
}

/// No test needs more.
const STEPS_MAX: u64 = 30_000_000;

impl Net {
    pub(crate) fn new(seed: u64, shards: u16, config: &ShardConfig, options: Options) -> Net {
        let shard = |shard| {
            let mut bytes = [7; SEED_BYTES];
            bytes[..8].copy_from_slice(&seed.to_le_bytes());
            bytes[8] = shard as u8;
            let boot = Boot {
                now: Instant::START,
                wall: WallTime(1_700_000_000_000),
                seed: bytes,
                node: NodeId(1),
                incarnation: Incarnation(1),
                shard: ShardId(shard),
                shards,
                node_seed: seed,
                clustered: false,
                claims: false,
            };
            Shard::new(config.clone(), boot)
        };
        let count = usize::from(shards);
        Net {
            seed,
            now: Instant::from_millis(1),
            shards: (0..shards).map(shard).collect(),
            control: Control::new(
                config,
                ControlBoot {
                    now: Instant::START,
                    wall: WallTime(1_700_000_000_000),
                    shards,
                    version: "1.2.3",
                    node: NodeId(1),
                    incarnation: Incarnation(1),
                    node_seed: seed,
                    cluster: None,
                },
            ),
            channels: BTreeMap::new(),
            outbox: Outbox::default(),
            rng: Rng::from_number(seed),
            options,
            queue: BTreeMap::new(),
            next_sequence: 0,
            steps: 0,
            work_at: vec![Instant::START; count],
            had_work: vec![false; count],
            work_delay: None,
            trace: None,
            far_shard: None,
            slow_shard: None,
            links: Vec::new(),
            scripts: Vec::new(),
            filters: BTreeMap::new(),
            slots: vec![Vec::new(); count],
            decider: None,
            certified: None,
            questions: Vec::new(),
            flaps: Vec::new(),
            events: Vec::new(),
            unanswered: BTreeSet::new(),
            hooks_hang: false,
            listener: 0,
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    pub(super) fn at(&mut self, time: Instant, happening: Happening) {
        self.queue.insert((time.max(self.now), self.next_sequence), happening);
        self.next_sequence += 1;
    }

    pub(super) fn forget(&mut self, unwanted: impl Fn(&Happening) -> bool) {
        self.queue.retain(|_, happening| !unwanted(happening));
    }

    /// Runs until nothing happens but by the passing of time.
    pub(crate) fn settle(&mut self) {
        let before = self.steps;
        while !self.queue.is_empty() || self.has_work() {
            self.step();
        }
        if self.steps != before {
            self.view().assert_consistent();
        }
        assert!(self.control.is_quiet(), "somebody waits for the control plane");
    }

    /// Lets time pass, with everything that happens in it.
    pub(crate) fn advance(&mut self, time: Duration) {
        let until = self.now + time;
        while self.next_time().is_some_and(|next| next <= until) {
            self.step();
        }
        self.now = until;
        self.view().assert_consistent();
    }

    pub(crate) fn advance_secs(&mut self, seconds: u64) {
        self.advance(Duration::from_secs(seconds));
    }

    /// When a shard gets the Tick that it wants, if it wants one. One for work that is left comes a bit late at times, so
    /// that other things happen in between.
    fn deadline_of(&self, shard: usize) -> Option<Instant> {
        let (deadline, kind) = self.shards[shard].next_deadline()?;
        let late = if kind == TimerKind::Work { self.work_at[shard] } else { Instant::START };
        Some(deadline.max(self.now).max(late))
    }

    /// The next Tick, and whose.
    fn deadline(&self) -> Option<(Instant, usize)> {
        let control = self.control.next_deadline().map(|deadline| (deadline.max(self.now), CONTROL));
        (0..self.shards.len()).filter_map(|shard| Some((self.deadline_of(shard)?, shard))).chain(control).min()
    }

    fn has_work(&self) -> bool {
        let next = self.shards.iter().filter_map(Shard::next_deadline);
        next.into_iter().any(|(deadline, kind)| deadline <= self.now || kind == TimerKind::Work)
    }

    fn next_time(&self) -> Option<Instant> {
        let event = self.queue.first_key_value().map(|((time, _), _)| *time);
        event.into_iter().chain(self.deadline().map(|(time, _)| time)).min()
    }

    /// The next event or Tick.
    fn step(&mut self) {
        self.steps += 1;
        assert!(self.steps < STEPS_MAX, "this never ends");
        let event = self.queue.first_key_value().map(|((time, _), _)| *time);
        let tick = match (event, self.deadline()) {
            (None, deadline) => deadline,
            (Some(event), Some(deadline)) if deadline.0 < event => Some(deadline),
            (Some(event), Some(deadline)) if deadline.0 == event && self.rng.below(2) == 0 => Some(deadline),
            (Some(_), _) => None,
        };
        if let Some((deadline, shard)) = tick {
            self.now = deadline;
            if shard == CONTROL {
                self.control_input(ControlInput::Tick);
            } else {
                self.input(shard, ShardInput::Tick);
                self.had_work[shard] = false;
            }
        } else if let Some(((time, _), happening)) = self.queue.pop_first() {
            self.now = time;
            if !self.had_work.contains(&true) && self.rng.below(64) == 0 {
                // One Tick too many does no harm.
                let shard = self.rng.below(self.shards.len() as u64) as usize;
                self.input(shard, ShardInput::Tick);
            }
            self.on(happening);
        }
        for shard in 0..self.shards.len() {
            let has_work = self.shards[shard].next_deadline().is_some_and(|(_, kind)| kind == TimerKind::Work);
            if has_work && !self.had_work[shard] {
                let random = if self.rng.below(2) == 0 { 0 } else { self.rng.below(500) };
                let slow = self.slow_shard.is_none_or(|slow| slow == shard);
                let delay = self.work_delay.filter(|_| slow).unwrap_or(Duration::from_micros(random));
                self.work_at[shard] = self.now + delay;
            }
            self.had_work[shard] = has_work;
        }
        // Looking at every session after every step would be most of the work of a large test.
        let every = 1 + self.view().session_count() as u64 / 4;
        if self.steps.is_multiple_of(every) {
            self.view().assert_consistent();
        }
    }

    fn on(&mut self, happening: Happening) {
        match happening {
            Happening::ToServer(link, data) => self.on_arrival(link, &data),
            Happening::ServerFin(link, cause) => self.on_fin(link, cause),
            Happening::Feed(link) => self.feed(link),
            Happening::Pump(link) => self.pump(link),
            Happening::ToClient(link, data) => self.on_client_arrival(link, &data),
            Happening::ClientFin(link) => self.scripts[link].on_close(true),
            Happening::Decided(shard, request, verdict) => {
                assert!(self.unanswered.remove(&(shard, request)));
                self.input(shard, ShardInput::Decided { request, verdict });
            }
            Happening::Moved(link, to, moved) => self.on_moved(link, to, moved),
            Happening::Place(to, from, message) => {
                self.input(to, ShardInput::Place { from, message });
            }
            Happening::ToControl(from, message) => {
                self.control_input(ControlInput::Shard { from, message });
            }
            Happening::FromControl(to, message) => {
                self.input(to, ShardInput::Control(message));
            }
        }
    }

    fn control_input(&mut self, input: ControlInput) {
        let mut outputs = Vec::new();
        self.control.handle(self.now, input, &mut outputs);
        for output in outputs {
            let ControlOutput::Shard { to, message } = output else { continue };
            let to = usize::from(to.0);
            self.say(CONTROL, to, Happening::FromControl(to, message));
        }
    }

    /// A look into the node.
    pub(crate) fn view(&self) -> NodeView<'_> {
        NodeView(&self.shards)
    }

    /// The end of a test: everybody leaves, all time passes, nothing may be left.
    pub(super) fn finish(&mut self) {
        self.settle();
        self.assert_quiet();
        for link in 0..self.links.len() {
            self.break_link(link);
        }
        // Longer than any hold, stall or close takes.
        self.advance_secs(60);
        let view = self.view();
        assert_eq!(view.connection_count(), 0);
        assert!(view.timer_count() <= view.session_count(), "only sessions that wait have timers");
        if self.control.next_deadline().is_some() {
            // It would tell about itself for ever.
            return;
        }
        // Longer than any Session Expiry Interval but "never".
        self.advance_secs(u64::from(u32::MAX));
        let view = self.view();
        assert_eq!((view.timer_count(), self.deadline()), (0, None), "a timer has leaked");
        if view.session_count() == 0 {
            assert_eq!((view.queued(), view.subscription_count()), (0, 0));
        }
        for shard in &self.shards {
            shard.view().assert_idle();
        }
        assert!(self.unanswered.is_empty());
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (shards, conns) = (self.shards.len(), self.links.len());
            eprintln!("seed {}, {shards} shards, at {}, {conns} connections", self.seed, self.now);
        }
    }
}
