//! Steps that are done to the network and to the node.

use super::Steps;
use super::kind::Kind;
use crate::history::ClientIx;
use crate::scenario::{Action, WorldAction};

impl Steps<'_> {
    fn world(&mut self, action: WorldAction) {
        self.push(Action::World(action));
    }

    /// Both ways as often as either.
    pub(super) fn cut(&mut self, client: usize) {
        self.clients[client].cut = true;
        let way = self.source.below(3);
        let client = ClientIx(client as u32);
        self.world(WorldAction::Cut { client, to_server: way != 1, to_client: way != 2 });
    }

    pub(super) fn heal(&mut self, client: usize) {
        self.clients[client].cut = false;
        self.world(WorldAction::Heal { client: ClientIx(client as u32) });
    }

    pub(super) fn bandwidth(&mut self, client: usize, slow: bool) {
        self.clients[client].slow = slow;
        let bytes_per_s = if slow { self.source.log(500, 100_000) } else { 0 };
        self.world(WorldAction::Bandwidth { client: ClientIx(client as u32), bytes_per_s });
    }

    pub(super) fn pause(&mut self) {
        let ms = self.source.log(1, if self.is_micro() { 5_000 } else { 30_000 });
        self.busy_until_ms = self.busy_until_ms.max(self.at_ms + ms);
        self.world(WorldAction::Pause { node: 0, ms });
    }

    pub(super) fn jump(&mut self) {
        let by_ms = self.source.log(1, 3_600_000) as i64;
        let by_ms = if self.source.coin() { -by_ms } else { by_ms };
        self.world(WorldAction::ClockJump { node: 0, by_ms });
    }

    pub(super) fn drift(&mut self, on: bool) {
        self.node.drifting = on;
        let ppm = if on { self.source.log(100, 200_000) as i32 } else { 0 };
        let ppm = if on && self.source.coin() { -ppm } else { ppm };
        self.world(WorldAction::Drift { node: 0, ppm });
    }

    pub(super) fn lag(&mut self, on: bool) {
        let another = self.source.below(self.scenario.shards.into()) as u16;
        let shard = self.node.lagging.take().unwrap_or(another);
        self.node.lagging = on.then_some(shard);
        let by_us = if on { self.source.log(100, 2_000_000) } else { 0 };
        self.world(WorldAction::Lag { node: 0, shard, by_us });
    }

    /// What is wrong with its clock and its queues is still wrong when it starts again.
    fn stop(&mut self, action: WorldAction) {
        self.node.down = true;
        self.clients.iter_mut().for_each(|client| client.up = false);
        self.world(action);
    }

    pub(super) fn crash(&mut self, power_loss: bool) {
        self.stop(WorldAction::Crash { node: 0, power_loss });
    }

    pub(super) fn shut_down(&mut self) {
        self.stop(WorldAction::Shutdown { node: 0 });
    }

    /// A publish, and the end of the node about when it is acknowledged.
    pub(super) fn probe(&mut self, client: usize) {
        self.carry_out(Kind::Publish, client);
        let longest_ms = (2 * super::super::world::worst_delay_us(&self.scenario.net)).div_ceil(1_000) + 10;
        self.at_ms += self.source.log(1, longest_ms.min(2_000)) - 1;
        let power_loss = self.source.coin();
        self.crash(power_loss);
    }

    /// Most disks have room again by then.
    pub(super) fn restart(&mut self) {
        if self.node.full && self.source.percent(70) {
            self.disk_full(false);
        }
        self.node.down = false;
        self.node.failed = false;
        self.world(WorldAction::Restart { node: 0 });
    }

    pub(super) fn disk_full(&mut self, on: bool) {
        self.node.full = on;
        self.world(WorldAction::DiskFull { node: 0, on });
    }

    pub(super) fn disk_slow(&mut self, on: bool) {
        self.node.slow = on;
        let by_us = if on { self.source.log(1_000, 5_000_000) } else { 0 };
        self.world(WorldAction::DiskSlow { node: 0, by_us });
    }

    /// Until it starts again.
    pub(super) fn disk_fails(&mut self) {
        self.node.failed = true;
        self.world(WorldAction::DiskFails { node: 0 });
    }

    pub(super) fn disk_rot(&mut self) {
        let at_ppm = self.source.below(1_000_000);
        self.rot_at(at_ppm);
    }

    /// Of the bytes on the disk.
    pub(super) fn rot_at(&mut self, at_ppm: u64) {
        self.world(WorldAction::DiskRot { node: 0, at_ppm });
    }

    pub(super) fn pressure(&mut self, on: bool) {
        self.node.short = on;
        let level = if on { self.source.between(1, 2) as u8 } else { 0 };
        self.world(WorldAction::MemoryPressure { node: 0, level });
    }
}
