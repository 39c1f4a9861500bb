//! ADVERTISE, SEARCHGW and GWINFO (6.1): this gateway, and the others of the cluster.

use super::{Gateway, Round, Timer};
use crate::Message;
use crate::address::Source;
use crate::io::Output;

/// Most other gateways that a search is told of: the answer is not to be much larger than the question.
const NEIGHBOURS_TOLD_MAX: usize = 3;

impl Gateway {
    /// The gateway makes itself known.
    pub(super) fn advertise(&mut self, round: &mut Round<'_>) {
        let interval = self.config.advertise_interval;
        let duration = u16::try_from(interval.as_secs()).unwrap_or(u16::MAX);
        let mut data = Vec::new();
        let message = Message::Advertise { gateway: self.config.gateway_id, duration };
        message.encode(&mut data).expect("it is short");
        self.counters.sent += 1;
        round.out.push(Output::Broadcast { data });
        self.advertise_at = round.now + interval;
        self.timers.arm(self.advertise_at, Timer::Advertise);
    }

    /// A client looks for a gateway. The other gateways are told as a client would tell them: with their address.
    pub(super) fn on_search(&mut self, round: &mut Round<'_>, from: Source<'_>, _radius: u8) {
        let own = Message::GwInfo { gateway: self.config.gateway_id, address: &[] };
        self.answer_stranger(round, from, &own);
        let neighbours = core::mem::take(&mut self.neighbours);
        for (gateway, address) in neighbours.iter().take(NEIGHBOURS_TOLD_MAX) {
            self.answer_stranger(round, from, &Message::GwInfo { gateway: *gateway, address });
        }
        self.neighbours = neighbours;
    }
}
