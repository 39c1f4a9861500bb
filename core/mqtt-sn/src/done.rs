//! Exchanges of a client that are over, for as long as a datagram may come late or twice.
//!
//! The protocol alone cannot tell a late copy of a message from the next message under the same MsgId: on a network that
//! repeats and reorders, QoS 2 would deliver twice, and a late SUBSCRIBE would undo an UNSUBSCRIBE. So what was done last is
//! remembered with a fingerprint of its content.

use core::time::Duration;
use std::collections::VecDeque;

use newtmq_base::{Instant, planted};
use newtmq_mqtt::QoS;

use crate::Ack;

/// Most exchanges that are remembered.
const DONE_MAX: usize = 8;

/// The last exchanges.
#[derive(Debug, Default)]
pub(crate) struct Done {
    #[allow(clippy::box_collection)] // most clients have none
    entries: Option<Box<VecDeque<Entry>>>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    msg_id: u16,
    fingerprint: u64,
    at: Instant,
    answer: Answer,
}

/// How an exchange was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Puback(Ack),
    /// QoS 2.
    Pubrec,
    Suback(QoS, Ack),
    Unsuback,
}

impl Done {
    /// An exchange is over. An earlier one with its MsgId is forgotten: the client uses it again.
    pub(crate) fn push(&mut self, now: Instant, window: Duration, msg_id: u16, fingerprint: u64, answer: Answer) {
        if window.is_zero() {
            return;
        }
        let entries = self.entries.get_or_insert_default();
        entries.retain(|entry| entry.msg_id != msg_id && entry.at + window >= now);
        if entries.len() == DONE_MAX {
            entries.pop_front();
        }
        entries.push_back(Entry { msg_id, fingerprint, at: now, answer });
    }

    /// The answer of the exchange that a message repeats. Of QoS 1, which may be delivered twice, only what says so itself
    /// is taken for a repetition.
    pub(crate) fn find(
        &self,
        now: Instant,
        window: Duration,
        msg_id: u16,
        fingerprint: u64,
        dup: bool,
    ) -> Option<Answer> {
        let fits = |entry: &&Entry| entry.msg_id == msg_id && entry.fingerprint == fingerprint;
        let entry = self.entries.as_ref()?.iter().find(fits)?;
        if entry.at + window < now || planted!(SnLateCopyTaken) {
            return None;
        }
        let told = dup || !matches!(entry.answer, Answer::Puback(_));
        told.then_some(entry.answer)
    }

    /// A client that sleeps needs no memory for it.
    pub(crate) fn clear(&mut self) {
        self.entries = None;
    }
}

/// A number for the content of a message: FNV-1a, which is enough to tell a late copy from another message of the same
/// client.
pub(crate) fn fingerprint(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        for byte in part.iter().chain(&(part.len() as u64).to_be_bytes()) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}
