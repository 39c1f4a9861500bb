//! A connection between two nodes, as TCP makes it: two directions and the states of both ends. It knows what an end hears
//! when something arrives; when that is, and who is there at all, is in `mesh`.

use newtmq_cluster::link::{ConnectionId, DialId};

use super::pipe::{Pipe, What};

/// Who asked for the connection.
pub(super) const DIALER: usize = 0;
/// Who was asked.
pub(super) const ACCEPTOR: usize = 1;

/// An end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It has asked for the connection.
    Asking(DialId),
    /// It was not asked yet.
    Waiting,
    Open,
    /// The node that had it is gone and has told nobody.
    Lost,
    Closed,
}

/// Whether somebody is at a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Machine {
    /// It is off, or somewhere else: nothing comes of what arrives.
    Off,
    /// It is on, and the node does not run: connections are refused.
    Idle,
    /// The node runs.
    On,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Wire {
    /// The node at each end; [`NOBODY`] where there is no such address.
    pub(super) nodes: [u16; 2],
    /// How often each had moved: what comes for an earlier address finds nobody.
    pub(super) moves: [u8; 2],
    pub(super) ends: [End; 2],
    /// What comes to each end.
    pub(super) pipes: [Pipe; 2],
    /// The control plane has said that it has something to write.
    pub(super) ready: [bool; 2],
    /// The socket is full: it is looked at again when the other end has read.
    pub(super) blocked: [bool; 2],
    /// The control plane wants it closed when all is written.
    pub(super) closing: [bool; 2],
}

/// A node that does not exist.
pub(super) const NOBODY: u16 = u16::MAX;

/// What an end of a connection hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// It is open; the dial that it answers, or none.
    Opened(Option<DialId>),
    /// It cannot be opened.
    Failed(DialId),
    /// Bytes, which are in the caller's buffer.
    Bytes,
    /// It is closed by the other end, or broken.
    Closed,
    /// Nothing that concerns the node; the other end is to be told that nobody is here.
    Refuse,
    /// It is granted: the other end is to be told.
    Accept,
}

impl Wire {
    /// What an end makes of the next thing that arrives, or `None` if there is nothing for now.
    pub(super) fn hear(
        &mut self,
        now: newtmq_base::Instant,
        end: usize,
        machine: Machine,
        bytes: &mut Vec<u8>,
    ) -> Option<Heard> {
        bytes.clear();
        loop {
            let Some((what, data, _)) = self.pipes[end].arrived(now) else {
                return (!bytes.is_empty()).then_some(Heard::Bytes);
            };
            if self.ends[end] == End::Open && matches!(what, What::Data(_)) {
                bytes.extend_from_slice(data);
                self.pipes[end].read();
                continue;
            }
            if !bytes.is_empty() {
                // What follows is another thing.
                return Some(Heard::Bytes);
            }
            self.pipes[end].read();
            match (self.ends[end], what) {
                (End::Waiting, What::Syn) if machine == Machine::On => {
                    self.ends[end] = End::Open;
                    return Some(Heard::Accept);
                }
                (End::Waiting, What::Syn) => {
                    self.ends[end] = End::Closed;
                    if machine == Machine::Idle {
                        return Some(Heard::Refuse);
                    }
                }
                (End::Asking(dial), What::Syn) => {
                    self.ends[end] = End::Open;
                    return Some(Heard::Opened(Some(dial)));
                }
                (End::Asking(dial), What::Rst | What::Fin) => {
                    self.ends[end] = End::Closed;
                    return Some(Heard::Failed(dial));
                }
                (End::Open, What::Fin | What::Rst) => {
                    self.ends[end] = End::Closed;
                    return Some(Heard::Closed);
                }
                (End::Lost, What::Data(_) | What::Syn) if machine == Machine::On => {
                    // Whoever is there now knows nothing of it.
                    self.ends[end] = End::Closed;
                    return Some(Heard::Refuse);
                }
                (End::Closed, What::Data(_) | What::Syn) => return Some(Heard::Refuse),
                (End::Lost | End::Closed, What::Fin | What::Rst) => self.ends[end] = End::Closed,
                (_, What::Note)
                | (End::Lost, What::Data(_) | What::Syn)
                | (End::Waiting | End::Asking(_), What::Data(_) | What::Fin | What::Rst)
                | (End::Open, What::Data(_) | What::Syn) => {}
            }
        }
    }

    /// Whether nobody has an end of it.
    pub(super) fn is_over(&self) -> bool {
        self.ends.iter().all(|end| matches!(end, End::Lost | End::Closed))
            || (self.ends[DIALER] == End::Closed && self.ends[ACCEPTOR] == End::Waiting)
    }
}

/// What a node calls an end of a connection.
pub(super) fn name_of(wire: u32, end: usize) -> ConnectionId {
    ConnectionId(u64::from(wire) * 2 + end as u64 + 1)
}

/// The end of a connection that a node names.
pub(super) fn end_of(conn: ConnectionId) -> (u32, usize) {
    let number = conn.0 - 1;
    (u32::try_from(number / 2).expect("a run has fewer than 2^32 connections"), (number % 2) as usize)
}
