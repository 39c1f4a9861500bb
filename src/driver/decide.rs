//! Questions of hooks on their way to those who answer, and the answers on their way back. The driver's thread never
//! waits for either.

use std::fmt;
use std::sync::Arc;

use newtmq_base::{RequestId, ShardId};
use newtmq_node::{Question, Verdict};
use tokio::sync::mpsc;

/// Takes questions. It returns at once; the answer comes whenever there is one.
#[derive(Clone)]
pub struct Decider(Arc<dyn Fn(Asked) + Send + Sync>);

impl Decider {
    /// `ask` is called on the driver's thread, and must not make it wait.
    pub fn new(ask: impl Fn(Asked) + Send + Sync + 'static) -> Decider {
        Decider(Arc::new(ask))
    }

    pub(crate) fn ask(&self, asked: Asked) {
        (self.0)(asked);
    }
}

impl fmt::Debug for Decider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decider")
    }
}

/// A question, and where its answer goes.
#[derive(Debug)]
pub struct Asked {
    /// Whose question it is.
    pub shard: ShardId,
    /// The question.
    pub question: Box<Question>,
    /// Where the answer goes. Without one the connection is closed when its time to connect is over.
    pub answer: Answer,
}

impl Asked {
    pub(super) fn new(shard: ShardId, question: Box<Question>, answer: Answer) -> Asked {
        Asked { shard, question, answer }
    }

    /// A question of a driver that is not there; its answer comes out of the channel.
    #[cfg(test)]
    pub(crate) fn alone(question: Question) -> (Asked, mpsc::UnboundedReceiver<(RequestId, Verdict)>) {
        let (answers, verdicts) = mpsc::unbounded_channel();
        (Asked::new(ShardId(0), Box::new(question), Answer::new(RequestId(0), &answers)), verdicts)
    }
}

/// Where an answer goes.
#[derive(Debug)]
pub struct Answer {
    request: RequestId,
    verdicts: mpsc::UnboundedSender<(RequestId, Verdict)>,
}

impl Answer {
    pub(super) fn new(request: RequestId, verdicts: &mpsc::UnboundedSender<(RequestId, Verdict)>) -> Answer {
        Answer { request, verdicts: verdicts.clone() }
    }

    /// Answers.
    pub fn give(self, verdict: Verdict) {
        // The driver may be gone; then nobody waits for it.
        let _ = self.verdicts.send((self.request, verdict));
    }
}
