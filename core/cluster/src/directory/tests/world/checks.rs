//! What must hold, at every step and at rest.

use std::collections::BTreeSet;

use core::time::Duration;

use newtmq_base::NodeId;

use super::super::super::*;
use super::{Event, MS, SECOND, Todo, World};

impl World {
    /// Whoever loses its place has lost it to a later connection, or one that is about as late.
    pub(in super::super) fn justify(&mut self, client: &Client, born: u64) {
        let age = self.now - born;
        let doubt = 2 * SECOND + age / 40 + 4 * self.noise.delay_ms.max(400) * MS + 3 * SECOND;
        let others = self.births.iter().filter(|(other, _)| other == client);
        let later = others.filter(|(_, other)| *other + doubt > born).count();
        // One is itself.
        assert!(later > 1, "{client} has lost its newest connection, of {born} at {}", self.now);
    }

    /// The seat of a node, since when it has heard all of it.
    pub(in super::super) fn seat_of(&self, i: usize) -> Option<(usize, u64)> {
        let seat = self.nodes[i].dir.as_ref()?.obeys()?.0 as usize - 1;
        Some((seat, self.paired.get(&(seat, i))?.2))
    }

    /// S6: nobody else has the client, of those that the same seat knew when the client connected.
    pub(in super::super) fn check_alone(&mut self, i: usize, client: &Client, conn: Conn, born: u64) {
        let Some((seat, since)) = self.seat_of(i) else { return };
        if since > born || self.config.takeover_wait.is_some() {
            return;
        }
        self.seen.checked += 1;
        for (j, node) in self.nodes.iter().enumerate() {
            let known = self.seat_of(j).is_some_and(|(other, since)| other == seat && since < born);
            for (other, line) in
                node.lines.iter().filter(|(other, line)| (j, **other) != (i, conn) && line.client == *client)
            {
                let held = line.served.is_some() && line.served_at < born;
                assert!(!known || !held, "S6: {client} is at {i} and still at {j}, {other:?}");
            }
        }
    }

    /// S7: a session that is known to be somewhere is not taken for none.
    pub(in super::super) fn check_none_elsewhere(&mut self, i: usize, client: &Client, home: NodeId, born: u64) {
        let Some((seat, since)) = self.seat_of(i) else { return };
        if since > born {
            return;
        }
        for (j, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.id != home) {
            let Some(kept) = node.kept.get(client).filter(|kept| kept.durable && kept.began < born) else { continue };
            let known = self.seat_of(j).is_some_and(|(other, since)| other == seat && since < born);
            let ends = node.dir.is_none()
                || self.ending.contains(&(node.id, client.clone()))
                || self.nodes.iter().any(|other| {
                    other.records.iter().any(|(of, at, epoch)| of == client && *at == node.id && kept.epoch < *epoch)
                });
            assert!(!known || ends || self.is_losing(j, client), "S7: the session of {client} is at {j}");
            let recorded = self.nodes[seat].known.get(&(node.id, client.clone())).is_some_and(|at| *at < born);
            let wait = self.config.away_home == AwayHome::Wait;
            let away = self.nodes[seat].dir.is_some() && !self.paired.contains_key(&(seat, j));
            assert!(
                !(recorded && wait && away) || self.was_void(client),
                "S7: the session of {client} is hidden at {j}"
            );
        }
    }

    /// There has been a clean start: what is elsewhere may be void.
    pub(in super::super) fn was_void(&self, client: &Client) -> bool {
        self.nodes.iter().any(|node| node.records.iter().any(|(of, ..)| of == client))
    }

    pub(in super::super) fn is_losing(&self, i: usize, client: &Client) -> bool {
        self.events.values().any(|event| match event {
            Event::Shard { node, input: Todo::Lose { client: of, .. }, .. } => *node == i && of == client,
            Event::Wire { .. }
            | Event::Shard { .. }
            | Event::See { .. }
            | Event::Hear { .. }
            | Event::Elect
            | Event::Sync => false,
        })
    }

    /// Every claim is answered in time, whatever happens.
    pub(in super::super) fn check_answered(&self) {
        let longest = self.config.claim_max + Duration::from_millis(500);
        for node in &self.nodes {
            for line in node.lines.values().filter(|line| line.served.is_none() && line.moving.is_none()) {
                let age = Duration::from_nanos(self.now - line.born);
                assert!(age < longest, "L5: {} waits for {age:?} at {:?}", line.client, node.id);
            }
        }
    }

    /// Whether nodes are in groups of which each reaches all of its own and nobody else.
    pub(in super::super) fn has_sides(&self) -> bool {
        let n = self.nodes.len();
        let cut = |i: usize, j: usize| i != j && self.cuts.contains(&(i, j));
        let like = |i: usize, j: usize| (0..n).all(|k| cut(i, k) == cut(j, k) && cut(k, i) == cut(k, j));
        (0..n).all(|i| (0..n).all(|j| cut(i, j) == cut(j, i) && (cut(i, j) || like(i, j))))
    }

    /// Who can talk with each other.
    pub(in super::super) fn sides(&self) -> Vec<Vec<usize>> {
        let mut sides: Vec<Vec<usize>> = Vec::new();
        for i in (0..self.nodes.len()).filter(|i| self.nodes[*i].dir.is_some()) {
            match sides.iter_mut().find(|side| self.reaches(side[0], i)) {
                Some(side) => side.push(i),
                None => sides.push(vec![i]),
            }
        }
        sides
    }

    /// What must hold on a side where nothing has changed for long: one connection and one session for each client, and
    /// the seat knows them.
    pub(in super::super) fn check_rest(&mut self, side: &[usize]) {
        let seats: BTreeSet<_> = side.iter().map(|i| self.nodes[*i].dir.as_ref().and_then(|dir| dir.obeys())).collect();
        assert!(seats.len() == 1 && !seats.contains(&None), "L4: {side:?} obey {seats:?} at {}", self.now);
        let seat = seats.first().copied().flatten().expect("it is one");
        let seat = &self.nodes[seat.0 as usize - 1];
        let dir = seat.dir.as_ref().expect("it is obeyed");
        let seated = dir.seated().expect("it is obeyed");
        assert!(seated.open);
        self.seen.acting += u64::from(seated.acting);
        let clients: BTreeSet<Client> = self.births.iter().map(|(client, _)| client.clone()).collect();
        for client in clients {
            let lines = side
                .iter()
                .flat_map(|i| self.nodes[*i].lines.iter().map(|(conn, line)| (self.nodes[*i].id, *conn, line)));
            let lines: Vec<_> = lines.filter(|(.., line)| line.client == client).collect();
            let served: Vec<_> = lines.iter().filter(|(.., line)| line.served.is_some()).collect();
            assert!(served.len() <= 1, "L4: {client} has {served:?}");
            let homes = side.iter().filter(|i| self.nodes[**i].kept.contains_key(&client)).map(|i| self.nodes[*i].id);
            let homes: Vec<NodeId> = homes.collect();
            assert!(homes.len() <= 1, "Q3: {client} has sessions at {homes:?}");
            let Place { holder, home } = dir.place(&client).expect("it is the seat");
            assert_eq!(holder, served.first().map(|(node, conn, _)| (*node, *conn)), "Q2: {client}");
            assert_eq!(home, homes.first().copied(), "Q3: {client}");
            if let Some((_, _, line)) = served.first() {
                let (epoch, home) = line.served.expect("it is served");
                let kept = self.nodes[home.0 as usize - 1].kept.get(&client);
                assert_eq!(kept.map(|kept| kept.epoch), Some(epoch), "{client} speaks with its session");
            }
        }
        if side.len() == self.nodes.len() {
            let left: Vec<_> = self.nodes.iter().flat_map(|node| &node.records).collect();
            assert!(left.is_empty(), "Q3: {left:?}");
        }
    }

    /// A client connects, and has its session soon.
    pub(in super::super) fn check_connects(&mut self, i: usize, client: &str) {
        let from = self.now;
        let conn = self.connect(i, client, false, true).expect("it is alive");
        while self.nodes[i].lines.get(&conn).is_some_and(|line| line.served.is_none()) {
            assert!(self.now < from + 3 * SECOND, "L5: {client} waits at {i}");
            self.run_until(self.now + 10 * MS);
        }
        assert!(self.nodes[i].lines.contains_key(&conn), "L5: {client} was refused at {i}");
        self.seen.slowest_ms = self.seen.slowest_ms.max((self.now - from) / MS);
    }
}
