//! Sessions of a node: connections attach to them, they begin and end, and they come from other nodes.

use newtmq_base::{Instant, NodeId, planted};

use super::super::io::{Grant, Output};
use super::super::message::{Client, Conn, Message, Report};
use super::super::node::Sink;
use super::{Home, Line, Member};
use crate::lane::Epoch;

impl Member {
    /// At the home: a connection attaches.
    pub(in super::super) fn on_attach(&mut self, now: Instant, from: NodeId, message: Message, sink: &mut Sink<'_>) {
        let Message::Attach { client, conn, epoch, clean, durable, limits } = message else { return };
        let local = self.locals.entry(client.clone()).or_default();
        if let Some(home) = &local.home
            && (home.epoch, home.serves) == (epoch, Some((from, conn)))
        {
            if let Some((present, answer)) = home.answer.clone() {
                sink.send(from, Message::Attached { client, conn, epoch, present, answer });
            }
            return;
        }
        if local.home.as_ref().is_some_and(|home| home.lost) {
            // It ends first; this comes again.
            return;
        }
        let known = local.home.as_ref().map_or(local.known, |home| home.epoch.max(local.known));
        let taken = local.home.as_ref().is_some_and(|home| home.epoch == epoch);
        if (epoch < known || taken) && !planted!(StaleAttachTaken) {
            sink.send(from, Message::Outdated { client, conn, epoch, known });
            return;
        }
        local.known = epoch.max(known);
        local.until = Some(now + self.config.claim_max * 2);
        let is_new = local.home.is_none();
        let old = if clean { None } else { local.home.take() };
        let fork = !clean && old.is_none() && !local.supersedes.is_empty();
        let began = if clean { epoch } else { old.as_ref().map_or(Epoch::ZERO, |home| home.clean) };
        // One in memory that ends as it is taken over begins anew as a stored one.
        let durable = durable || old.as_ref().is_some_and(|home| home.durable);
        let serves = Some((from, conn));
        local.home = Some(Home { epoch, clean: began, durable, since: Some(now), serves, answer: None, lost: false });
        if is_new {
            self.report(now, &client, Report::Began(epoch), sink);
        }
        sink.out.push(Output::Attach { client, node: from, conn, epoch, clean, durable, fork, limits });
    }

    /// One that comes from outside of those who help each other asks again when they do.
    pub(in super::super) fn on_foreign_attach(&self, from: NodeId, message: Message, sink: &mut Sink<'_>) {
        let Message::Attach { client, conn, epoch, .. } = message else { return };
        let known = self.locals.get(&client).map_or(Epoch::ZERO, |local| local.known);
        sink.send(from, Message::Outdated { client, conn, epoch, known });
    }

    /// The shard has attached it.
    pub(in super::super) fn answered(
        &mut self,
        client: &Client,
        epoch: Epoch,
        present: bool,
        answer: Box<[u8]>,
        sink: &mut Sink<'_>,
    ) {
        let Some(home) = self.locals.get_mut(client).and_then(|local| local.home.as_mut()) else { return };
        let Some((node, conn)) = home.serves.filter(|_| home.epoch == epoch) else { return };
        home.answer = Some((present, answer.clone()));
        sink.send(node, Message::Attached { client: client.clone(), conn, epoch, present, answer });
    }

    pub(in super::super) fn on_attached(&mut self, message: Message, sink: &mut Sink<'_>) {
        let Message::Attached { client, conn, epoch, present, answer } = message else { return };
        let Some(line) = self.locals.get_mut(&client).and_then(|local| local.line(conn)) else { return };
        let Some((_, home)) = line.granted.filter(|granted| granted.0 == epoch && !line.attached) else { return };
        if !line.fenced {
            self.waiting -= usize::from(!line.served);
            (line.attached, line.served, line.next) = (true, true, None);
            self.plan(&client);
            sink.out.push(Output::Granted(Grant { client, conn, epoch, home, present, answer }));
        }
    }

    pub(in super::super) fn on_outdated(&mut self, now: Instant, message: Message, sink: &mut Sink<'_>) {
        let Message::Outdated { client, conn, epoch, known } = message else { return };
        let Some(local) = self.locals.get_mut(&client) else { return };
        local.known = local.known.max(known);
        if let Some(line) = local.line(conn)
            && !line.attached
            && !line.fenced
            && line.granted.is_some_and(|granted| granted.0 == epoch)
        {
            line.granted = None;
            self.ask(now, &client, conn, sink);
        }
    }

    pub(in super::super) fn recovered(&mut self, client: &Client, epoch: Epoch, clean: Epoch) {
        let local = self.locals.entry(client.clone()).or_default();
        local.known = local.known.max(epoch);
        local.home = Some(Home { epoch, clean, durable: true, since: None, serves: None, answer: None, lost: false });
    }

    pub(in super::super) fn ended(&mut self, now: Instant, client: &Client, epoch: Epoch, sink: &mut Sink<'_>) {
        let Some(local) = self.locals.get_mut(client) else { return };
        // Of one that has to end it may be known already that it is no more.
        let is_it = |home: &Home| home.epoch == epoch || home.lost && home.epoch < epoch && !planted!(MovedOverLater);
        if local.home.as_ref().is_some_and(is_it) {
            local.home = None;
            let began = |(of, report, _): &(Client, Report, Instant)| {
                of == client && matches!(report, Report::Began(_) | Report::Moved(..))
            };
            self.reports.retain(|_, report| !began(report));
            self.report(now, client, Report::Ended(epoch), sink);
            self.tidy(now, client, sink);
        }
    }

    /// The shard has the session of another node that a connection was attached to: it is here, if the seat agrees.
    pub(in super::super) fn moved(
        &mut self,
        now: Instant,
        (client, conn): (&Client, Conn),
        (epoch, clean, durable): (Epoch, Epoch, bool),
        sink: &mut Sink<'_>,
    ) {
        let local = self.locals.entry(client.clone()).or_default();
        local.known = local.known.max(epoch);
        let serves = Some((self.me, conn));
        // Its connection may have attached again since.
        let is_later = |home: &Home| home.epoch > epoch && !planted!(MovedOverLater);
        if !local.home.as_ref().is_some_and(is_later) {
            local.home = Some(Home { epoch, clean, durable, since: Some(now), serves, answer: None, lost: false });
        }
        if let Some(line) = local.line(conn).filter(|line| line.granted.is_some_and(|granted| granted.0 == epoch)) {
            line.granted = Some((epoch, self.me));
        }
        // Also without a seat: whoever is next hears of it.
        self.number += 1;
        let report = Report::Moved(epoch, clean, durable);
        self.reports.insert(self.number, (client.clone(), report, now + self.config.retry));
        if let Some((seat, round)) = self.obeys {
            sink.send(seat, Message::Report { round, number: self.number, client: client.clone(), report });
        }
    }

    /// A node is down: what was to be attached there asks again.
    pub(in super::super) fn home_down(&mut self, now: Instant, node: NodeId, sink: &mut Sink<'_>) {
        for (_, client) in self.due.iter().cloned().collect::<Vec<_>>() {
            let Some(local) = self.locals.get_mut(&client) else { continue };
            let lost = |line: &&mut Line| !line.attached && line.granted.is_some_and(|(_, home)| home == node);
            if let Some(line) = local.lines.iter_mut().find(lost) {
                line.granted = None;
                let conn = line.conn;
                self.ask(now, &client, conn, sink);
            }
        }
    }
}
