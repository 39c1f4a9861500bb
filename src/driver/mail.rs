//! How the drivers of a node's shards, and its control plane, hear from each other.
//!
//! The letters are not counted here: what shards say to each other is limited by the credit of their lanes, a connection
//! moves once, and each connection waits for the control plane with at most one packet.

use std::sync::Arc;

use newtmq_base::ShardId;
use newtmq_node::{AdminCommand, FromControl, Moved, PlaceMessage, ShardAnswer, ShardQuestion, ToControl};
use tokio::sync::{mpsc, oneshot};

use super::Accepted;
use crate::store::News;
use crate::traces::TraceBook;

/// Connections that wait between accept and driver. At the limit accepting pauses; the operating system's backlog
/// holds the rest.
const ACCEPTED_MAX: usize = 1024;

/// Something for a driver.
#[derive(Debug)]
pub enum Letter<S> {
    /// What another shard said in one round, in order.
    Place {
        /// Which.
        from: ShardId,
        /// What.
        messages: Vec<PlaceMessage>,
    },
    /// What the control plane said in one round, in order.
    Control(Vec<FromControl>),
    /// A connection of a client of this shard.
    Moved {
        /// Its stream.
        stream: S,
        /// What the other shard knew of it.
        moved: Box<Moved>,
        /// What came after its CONNECT.
        kept: Vec<u8>,
    },
    /// A command.
    Admin(AdminCommand),
    /// A question of an operator.
    Ask {
        /// What.
        question: ShardQuestion,
        /// For the answer.
        answer: oneshot::Sender<ShardAnswer>,
    },
    /// The store.
    Store(News),
}

/// What a driver gets and sends.
#[derive(Debug)]
pub struct Mailbox<S> {
    pub(super) own: ShardId,
    pub(super) accepted: mpsc::Receiver<Accepted<S>>,
    pub(super) letters: mpsc::UnboundedReceiver<Letter<S>>,
    pub(super) shards: Vec<mpsc::UnboundedSender<Letter<S>>>,
    pub(super) control: mpsc::UnboundedSender<(ShardId, Vec<ToControl>)>,
    pub(super) traces: Arc<TraceBook>,
}

/// The way to all shards of a node.
#[derive(Debug)]
pub struct Office<S> {
    accepted: Vec<mpsc::Sender<Accepted<S>>>,
    letters: Vec<mpsc::UnboundedSender<Letter<S>>>,
    /// The control plane ends when the shards have, whoever else is left.
    control: mpsc::WeakUnboundedSender<(ShardId, Vec<ToControl>)>,
    traces: Arc<TraceBook>,
}

impl<S> Clone for Office<S> {
    fn clone(&self) -> Self {
        let Office { accepted, letters, control, traces } = self;
        let traces = Arc::clone(traces);
        Office { accepted: accepted.clone(), letters: letters.clone(), control: control.clone(), traces }
    }
}

impl<S> Office<S> {
    /// Gives every shard a command. Who has ended already needs none.
    pub fn command(&self, command: &AdminCommand) {
        for letters in &self.letters {
            let _ = letters.send(Letter::Admin(command.clone()));
        }
    }

    /// What operators trace. Who changes it tells the shards with [`Office::trace`].
    #[must_use]
    pub fn traces(&self) -> &TraceBook {
        &self.traces
    }

    /// Has every shard tell of what is traced now.
    pub fn trace(&self) {
        self.command(&AdminCommand::SetTraces(Arc::new(self.traces.traces())));
    }

    /// Gives one shard a command.
    pub fn command_to(&self, shard: usize, command: AdminCommand) {
        let _ = self.letters[shard].send(Letter::Admin(command));
    }

    /// Asks one shard; no answer comes from one that has ended.
    #[must_use]
    pub fn ask(&self, shard: usize, question: ShardQuestion) -> oneshot::Receiver<ShardAnswer> {
        let (answer, answered) = oneshot::channel();
        let _ = self.letters[shard].send(Letter::Ask { question, answer });
        answered
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.letters.len()
    }

    /// Tells a shard what the control plane says. One that has ended has nobody left who could wait.
    pub fn control(&self, shard: usize, messages: Vec<FromControl>) {
        let _ = self.letters[shard].send(Letter::Control(messages));
    }

    /// Tells a shard what the store says. Who has ended already has told everybody what there was to tell.
    pub fn store(&self, shard: ShardId, news: News) {
        let _ = self.letters[usize::from(shard.0)].send(Letter::Store(news));
    }

    /// The same, to every shard.
    pub fn store_to_all(&self, news: impl Fn() -> News) {
        for letters in &self.letters {
            let _ = letters.send(Letter::Store(news()));
        }
    }

    /// Tells the control plane the figures of a gateway. Without it nobody wants them.
    pub fn figures(&self, name: &str, figures: Vec<(&'static str, u64)>) {
        if let Some(control) = self.control.upgrade() {
            let message = ToControl::Gateway { name: name.into(), figures };
            let _ = control.send((ShardId(0), vec![message]));
        }
    }

    /// Deals connections out.
    #[must_use]
    pub fn dealer(&self) -> Dealer<S> {
        Dealer { accepted: self.accepted.clone(), next: 0 }
    }
}

/// Deals new connections out to the shards, one after the other: whose they are only their CONNECT says.
#[derive(Debug)]
pub struct Dealer<S> {
    accepted: Vec<mpsc::Sender<Accepted<S>>>,
    next: usize,
}

impl<S> Dealer<S> {
    /// Gives a connection to the next shard. Waits while that one has too many to open; says whether it is still there.
    pub async fn deal(&mut self, accepted: Accepted<S>) -> bool {
        self.next = (self.next + 1) % self.accepted.len();
        self.accepted[self.next].send(accepted).await.is_ok()
    }

    /// The way to the next shard, for one connection that is not ready yet.
    pub fn next_shard(&mut self) -> mpsc::Sender<Accepted<S>> {
        self.next = (self.next + 1) % self.accepted.len();
        self.accepted[self.next].clone()
    }
}

/// What the control plane hears: what a shard said in one round, in order.
pub type Reports = mpsc::UnboundedReceiver<(ShardId, Vec<ToControl>)>;

/// A mailbox for each shard, the way to them, and what they tell the control plane.
#[must_use]
pub fn office<S>(shards: u16) -> (Vec<Mailbox<S>>, Office<S>, Reports) {
    let (control, reports) = mpsc::unbounded_channel();
    let traces: Arc<TraceBook> = Arc::default();
    let (to_letters, letters): (Vec<_>, Vec<_>) = (0..shards).map(|_| mpsc::unbounded_channel()).unzip();
    let (to_accepted, accepted): (Vec<_>, Vec<_>) = (0..shards).map(|_| mpsc::channel(ACCEPTED_MAX)).unzip();
    let mailboxes = (0..shards).zip(letters.into_iter().zip(accepted)).map(|(own, (letters, accepted))| Mailbox {
        own: ShardId(own),
        accepted,
        letters,
        shards: to_letters.clone(),
        control: control.clone(),
        traces: Arc::clone(&traces),
    });
    let weak = control.downgrade();
    let mailboxes = mailboxes.collect();
    (mailboxes, Office { accepted: to_accepted, letters: to_letters.clone(), control: weak, traces }, reports)
}
