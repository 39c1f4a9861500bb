//! What happens because time has passed.

use newtmq_base::Instant;

use super::{Shard, TimerKind};
use crate::io::Outbox;

impl Shard {
    pub(crate) fn on_tick(&mut self, now: Instant, out: &mut Outbox) {
        self.work(now, out);
        self.work_lanes(now, out);
        if self.peers.is_some() {
            self.work_inward(now, out);
            self.tick_peers(now);
            self.expire_aside(now, out);
        }
        self.expire_retained(now);
        self.expire_questions(now, out);
        self.renew_step(out);
        self.store_time(now);
        while let Some(kind) = self.timers.pop_due(now) {
            match kind {
                // Never armed: they are looked up where they are.
                TimerKind::Work | TimerKind::Retained | TimerKind::Question | TimerKind::Time | TimerKind::Peers => {}
                TimerKind::Conn(slot) => self.on_conn_timer(now, slot, out),
                TimerKind::Stall(slot) => self.on_stall_timer(now, slot, out),
                TimerKind::Hold(slot) => self.on_hold_timer(now, slot, out),
                TimerKind::Retry(slot) => self.on_retry_timer(now, slot, out),
                TimerKind::AwaitRel(slot) => self.on_await_rel_timer(now, slot),
                TimerKind::Gate(slot) => self.on_gate_timer(now, slot, out),
                TimerKind::Grant(slot) => self.on_grant_timer(now, slot, out),
                TimerKind::Pace(slot) => self.on_pace_timer(now, slot, out),
                TimerKind::Session(key) => self.on_session_timer(now, key, out),
            }
        }
    }
}
