//! Where the events of a run are written, in order of simulated time, by whoever makes them.

use core::time::Duration;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use madsim::time::TimeHandle;
use newtmq_base::Instant;

use crate::client::{ClientOutput, Context};
use crate::history::{Event, NameIx, Names};

/// Events of a batch.
const BATCH_EVENTS: usize = 512;

/// Events, and the texts that they are the first to name.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) texts: Vec<String>,
    pub(super) events: Vec<(Instant, Event)>,
}

/// The journal of a run. Clones are the same one.
#[derive(Clone)]
pub(super) struct Journal {
    shared: Arc<Mutex<Shared>>,
    time: TimeHandle,
    /// The start of the world, in the time of the runtime.
    start: Duration,
}

pub(super) struct Shared {
    names: Names,
    named: usize,
    next_conn: u32,
    /// Of the call that is made.
    events: Vec<Event>,
    batch: Vec<(Instant, Event)>,
    /// Until it is closed.
    send: Option<SyncSender<Batch>>,
}

impl Journal {
    /// A journal whose time starts here.
    pub(super) fn new(send: SyncSender<Batch>) -> Journal {
        let time = TimeHandle::current();
        let shared = Shared {
            names: Names::default(),
            named: 0,
            next_conn: 0,
            events: Vec::new(),
            batch: Vec::new(),
            send: Some(send),
        };
        Journal { shared: Arc::new(Mutex::new(shared)), start: time.elapsed(), time }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True time.
    #[inline]
    pub(super) fn now(&self) -> Instant {
        self.instant(self.time.elapsed())
    }

    /// A time of the runtime as true time.
    #[inline]
    pub(super) fn instant(&self, elapsed: Duration) -> Instant {
        Instant::START + elapsed.saturating_sub(self.start)
    }

    /// A true time as one of the runtime.
    pub(super) fn at(&self, at: Instant) -> std::time::Instant {
        self.time.now_instant() + at.saturating_since(self.now())
    }

    /// Writes down what the world does.
    pub(super) fn note(&self, event: Event) {
        let now = self.now();
        let mut shared = self.lock();
        shared.batch.push((now, event));
        shared.send_if_full();
    }

    /// A call of a client, with what it asks for.
    #[inline]
    pub(super) fn call(&self, out: &mut Vec<ClientOutput>, call: impl FnOnce(&mut Context<'_>)) {
        let now = self.now();
        let mut shared = self.lock();
        let Shared { names, next_conn, events, .. } = &mut *shared;
        call(&mut Context { now, names, events, out, next_conn });
        let Shared { events, batch, .. } = &mut *shared;
        batch.extend(events.drain(..).map(|event| (now, event)));
        shared.send_if_full();
    }

    /// Sends what is left; what comes later is not written down.
    pub(super) fn close(&self) {
        let mut shared = self.lock();
        shared.send();
        shared.send = None;
    }
}

impl Shared {
    #[inline]
    fn send_if_full(&mut self) {
        if self.batch.len() >= BATCH_EVENTS {
            self.send();
        }
    }

    fn send(&mut self) {
        let number = |at: usize| NameIx(u32::try_from(at).expect("a run has few names"));
        let texts = (self.named..self.names.len()).map(|at| self.names.text(number(at)).to_owned()).collect();
        self.named = self.names.len();
        let events = core::mem::take(&mut self.batch);
        if let Some(send) = &self.send {
            // The checks end only with the run, or with a panic that says more than one here would.
            let _ = send.send(Batch { texts, events });
        }
    }
}
