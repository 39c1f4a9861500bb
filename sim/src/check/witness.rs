//! How a violation is told: the sentence, and the moments that matter. It decides nothing.

use std::sync::Arc;

use newtmq_base::Instant;

use crate::history::{ClientIx, ConnIx, NameIx, Names, Uid};
use crate::report::{Check, Findings, Violation, Witness};

/// What the rules get along with each event.
pub(super) struct Cx<'a> {
    /// When it happened.
    pub(super) now: Instant,
    /// Texts of the run.
    pub(super) names: &'a Names,
    /// Where obligations are counted and violations go.
    pub(super) findings: &'a mut Findings,
}

impl Cx<'_> {
    /// Something was looked at.
    #[inline]
    pub(super) fn owe(&mut self, check: Check) {
        self.findings.obligations.count(check, 1);
    }

    /// The text of a name.
    pub(super) fn text(&self, name: NameIx) -> &str {
        self.names.text(name)
    }

    /// Notes a violation.
    #[cold]
    pub(super) fn violated(&mut self, check: Check, message: String, story: Story) {
        let mut witness = story.0;
        witness.moments.sort_by_key(|(at, _)| *at);
        self.findings.violated(Violation { check, at: self.now, message, witness });
    }
}

/// The witness in the making.
#[derive(Debug, Default)]
pub(super) struct Story(Witness);

impl Story {
    /// The message that it is about.
    pub(super) fn uid(mut self, uid: Option<Uid>) -> Story {
        self.0.uid = uid;
        self
    }

    /// The topic.
    pub(super) fn topic(mut self, topic: NameIx) -> Story {
        self.0.topic = Some(topic);
        self
    }

    /// The filter.
    pub(super) fn filter(mut self, filter: Option<NameIx>) -> Story {
        self.0.filter = filter;
        self
    }

    /// A client, the one that was wronged first.
    pub(super) fn client(mut self, client: u32) -> Story {
        if !self.0.clients.contains(&ClientIx(client)) {
            self.0.clients.push(ClientIx(client));
        }
        self
    }

    /// A connection.
    pub(super) fn conn(mut self, conn: u32) -> Story {
        if !self.0.conns.contains(&ConnIx(conn)) {
            self.0.conns.push(ConnIx(conn));
            self.0.conns.sort_unstable();
        }
        self
    }

    /// A time that matters and what it is.
    pub(super) fn when(mut self, at: Instant, what: impl Into<Arc<str>>) -> Story {
        self.0.moments.push((at, what.into()));
        self
    }

    /// The same, if it is known.
    pub(super) fn when_some(self, at: Option<Instant>, what: &str) -> Story {
        match at {
            Some(at) => self.when(at, what),
            None => self,
        }
    }
}
