//! The history checker: what clients saw against what was promised (S1 to S15, L5 to L13). Streaming, in the order of
//! events; unknown outcomes only widen what is allowed, so there are no false alarms. This file owns the dispatch of
//! events; the rules are in the modules, by subject.

mod answers;
mod content;
mod copies;
mod crashes;
mod deliveries;
mod flight;
mod hops;
mod kept;
mod limits;
mod order;
mod owed;
mod publishes;
mod retained;
mod sessions;
mod shared;
mod state;
mod subscriptions;
#[cfg(test)]
mod tests;
mod ways;
mod will;
mod witness;
mod written;

use newtmq_base::Instant;

use crate::history::{Closer, Event, Names};
use crate::report::{Check, Findings, Invariant};
use crate::scenario::Scenario;
use state::State;
use witness::Cx;

/// All black-box checks of one run.
#[derive(Debug)]
pub struct HistoryChecker {
    state: State,
    /// The final checks are done: what comes later is not looked at.
    finished: bool,
}

impl HistoryChecker {
    /// For a run of this scenario: its limits of the broker say which losses are allowed.
    #[must_use]
    pub fn new(scenario: &Scenario) -> HistoryChecker {
        HistoryChecker { state: State::new(scenario), finished: false }
    }
}

impl Invariant for HistoryChecker {
    fn event(&mut self, at: Instant, event: &Event, names: &Names, findings: &mut Findings) {
        if self.finished {
            return;
        }
        let cx = &mut Cx { now: at, names, findings };
        self.state.begin(cx);
        self.state.judge_writes(cx);
        if is_from_broker(event) {
            cx.owe(Check::Protocol);
        }
        match event {
            Event::Publish { conn, facts } => self.state.publish(*conn, facts, cx),
            Event::Acked { conn, kind, pid, code, sent_at } => {
                self.state.acked(*conn, *kind, *pid, *code, *sent_at, cx);
            }
            Event::Receive { conn, facts } => self.state.receive(*conn, facts, cx),
            Event::Ack { conn, kind, pid, code } => self.state.ack(*conn, *kind, *pid, *code, cx),
            Event::Handed { conn, uid, qos } => self.state.handed(*conn, *uid, *qos, cx),
            Event::Release { conn, pid } => self.state.release(*conn, *pid, cx),
            Event::Released { conn, .. } => self.state.conn_mut(*conn).heard = at,
            Event::Connect { conn, client, facts } => self.state.connect(*conn, *client, facts, cx),
            Event::Connack { conn, present, code, expiry_s, sent_at } => {
                self.state.connack(*conn, *present, *code, *expiry_s, *sent_at, cx);
            }
            Event::Subscribe { conn, pid, subscription_id, filters } => {
                self.state.subscribe(*conn, *pid, *subscription_id, filters, cx);
            }
            Event::Suback { conn, pid, codes, sent_at } => self.state.suback(*conn, *pid, codes, *sent_at, cx),
            Event::Unsubscribe { conn, pid, filters } => self.state.unsubscribe(*conn, *pid, filters, cx),
            Event::Unsuback { conn, pid, .. } => self.state.unsuback(*conn, *pid, cx),
            Event::Pingreq { conn } => self.state.ping(*conn, cx),
            Event::Pingresp { conn } => self.state.pinged(*conn, cx),
            Event::Disconnect { conn, by, code, expiry_s } => self.state.disconnect(*conn, *by, *code, *expiry_s, cx),
            Event::AskWill { conn, will } => self.state.will_asked(*conn, *will, cx),
            Event::WillSet { conn } => self.state.will_set(*conn, cx),
            Event::Close { conn, by } => self.state.close(*conn, *by, cx),
            Event::Gone { conn } => self.state.gone(*conn, cx),
            Event::Wild { conn, .. } => self.state.wild(*conn),
            Event::Unexpected { conn, what } => self.state.unexpected(*conn, what, cx),
            Event::Fault(fault) => self.state.fault(fault, cx),
            Event::NodeUp { node, id, .. } => self.state.node_up(*node, *id, cx),
            Event::NodeDown { node } => self.state.node_gone(*node, cx),
            Event::Cluster { node, event } => self.state.said_of_cluster(*node, event, cx),
            Event::Command { node, request, command } => self.state.commanded(*node, *request, command, cx),
            Event::Answer { request, answer, .. } => self.state.answered(*request, answer, cx),
            Event::Calm => {}
            Event::Quiesce => {
                self.state.quiesce(cx);
                self.finished = true;
            }
        }
    }

    fn end(&mut self, _at: Instant, _names: &Names, _findings: &mut Findings) {
        // A run that does not come to its quiescence owes nothing at its end.
    }
}

/// Whether it is a packet of the broker, which the client has looked at as a whole.
const fn is_from_broker(event: &Event) -> bool {
    matches!(
        event,
        Event::Connack { .. }
            | Event::Suback { .. }
            | Event::Unsuback { .. }
            | Event::Acked { .. }
            | Event::Receive { .. }
            | Event::Released { .. }
            | Event::Pingresp { .. }
            | Event::Disconnect { by: Closer::Server, .. }
    )
}
