//! Connections between nodes: bytes in order, late, held where a direction is cut.

use core::net::SocketAddr;
use std::collections::VecDeque;

use newtmq_base::Instant;
use newtmq_cluster::link::{self, ConnectionId, DialId, Fill};

use super::World;
use crate::ClusterInput;

/// One direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// What is on its way; nothing is the end.
    pub(super) bytes: VecDeque<(Instant, Option<Vec<u8>>)>,
    pub(super) last: Instant,
}

#[derive(Debug)]
pub(super) struct Pipe {
    /// The node, its start, and its name for the connection; none once it has closed it.
    pub(super) ends: [(usize, u64, Option<ConnectionId>); 2],
    pub(super) ways: [Way; 2],
}

impl World {
    /// Connections between two nodes break, with what is on its way.
    pub(in super::super) fn reset(&mut self, one: usize, other: usize) {
        for pipe in self.pipes.values_mut() {
            let ends = [pipe.ends[0].0, pipe.ends[1].0];
            if ends == [one, other] || ends == [other, one] {
                for way in &mut pipe.ways {
                    way.bytes.clear();
                    way.bytes.push_back((self.now, None));
                }
            }
        }
    }

    pub(super) fn end_of(&self, at: usize, conn: ConnectionId) -> Option<(u64, usize)> {
        let inc = self.nodes[at].inc;
        let is =
            |(node, of, other): &(usize, u64, Option<ConnectionId>)| *node == at && *of == inc && *other == Some(conn);
        self.pipes.iter().find_map(|(number, pipe)| Some((*number, pipe.ends.iter().position(is)?)))
    }

    pub(super) fn write(&mut self, at: usize, conn: ConnectionId) {
        let Some((pipe, end)) = self.end_of(at, conn) else { return };
        loop {
            let mut bytes = Vec::new();
            let control = self.nodes[at].control.as_mut().unwrap();
            let fill = control.fill_link(self.now, conn, &mut bytes, 16 << 10);
            if !bytes.is_empty() {
                self.nodes[at].sent.writes += 1;
                self.nodes[at].sent.stream_bytes += bytes.len() as u64;
                self.nodes[at].sent.frames += frames_of(&bytes);
                self.send(pipe, end, Some(bytes));
            }
            if fill == Fill::Drained {
                return;
            }
        }
    }

    pub(super) fn send(&mut self, pipe: u64, from: usize, bytes: Option<Vec<u8>>) {
        let when = self.now + self.some(self.delay);
        let way = &mut self.pipes.get_mut(&pipe).unwrap().ways[from];
        way.last = way.last.max(when);
        way.bytes.push_back((way.last, bytes));
    }

    pub(super) fn close(&mut self, pipe: u64, end: usize) {
        self.pipes.get_mut(&pipe).unwrap().ends[end].2 = None;
        self.send(pipe, end, None);
    }

    pub(super) fn at_address(&self, address: SocketAddr) -> Option<usize> {
        self.nodes.iter().position(|node| node.address == address)
    }

    /// The next thing that happens on a connection whose direction is not cut.
    pub(super) fn next_way(&self) -> Option<(Instant, u64, usize)> {
        let ways = self.pipes.iter().flat_map(|(number, pipe)| {
            [0, 1].into_iter().filter_map(move |from| {
                let way = (pipe.ends[from].0, pipe.ends[1 - from].0);
                let (at, _) = pipe.ways[from].bytes.front().filter(|_| !self.cuts.contains(&way))?;
                Some((*at, *number, from))
            })
        });
        ways.min()
    }

    pub(super) fn arrive(&mut self, pipe: u64, from: usize) {
        let Some((_, bytes)) = self.pipes.get_mut(&pipe).unwrap().ways[from].bytes.pop_front() else { return };
        let (node, inc, conn) = self.pipes[&pipe].ends[1 - from];
        let conn = conn.filter(|_| self.nodes[node].inc == inc);
        match (bytes, conn) {
            (Some(bytes), Some(conn)) => {
                self.cluster(node, ClusterInput::Link(link::Input::Bytes { conn, data: &bytes }));
            }
            (None, Some(conn)) => {
                self.pipes.get_mut(&pipe).unwrap().ends[1 - from].2 = None;
                self.cluster(node, ClusterInput::Link(link::Input::Closed(conn)));
            }
            (_, None) => {}
        }
        let is_over = |pipe: &Pipe| {
            pipe.ends.iter().all(|end| end.2.is_none()) && pipe.ways.iter().all(|way| way.bytes.is_empty())
        };
        if self.pipes.get(&pipe).is_some_and(is_over) {
            self.pipes.remove(&pipe);
        }
    }

    pub(super) fn connect(&mut self, node: usize, to: usize, dial: DialId) {
        let end = |world: &mut World, at: usize| {
            world.connections += 1;
            (at, world.nodes[at].inc, Some(ConnectionId(world.connections)))
        };
        let ends = [end(self, node), end(self, to)];
        self.numbers += 1;
        self.pipes.insert(self.numbers, Pipe { ends, ways: Default::default() });
        for (end, dial) in ends.into_iter().zip([Some(dial), None]) {
            let (at, _, conn) = end;
            let input = link::Input::Opened { conn: conn.unwrap(), dial, tls: false };
            self.cluster(at, ClusterInput::Link(input));
        }
    }
}

fn frames_of(mut bytes: &[u8]) -> u64 {
    let mut frames = 0;
    while let Some(length) = bytes.first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        bytes = bytes.get(4 + length..).unwrap_or(&[]);
        frames += 1;
    }
    frames
}
