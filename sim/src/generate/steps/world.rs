//! Steps that are done to the network and to the node.

use super::Steps;
use super::kind::Kind;
use crate::history::ClientIx;
use crate::scenario::{Action, WorldAction};

impl Steps<'_> {
    pub(super) fn world(&mut self, action: WorldAction) {
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
        let ms = self.source.log(
            1,
            if self.is_quick() {
                3_000
            } else if self.is_micro() {
                5_000
            } else {
                30_000
            },
        );
        self.busy_until_ms = self.busy_until_ms.max(self.at_ms + ms);
        self.world(WorldAction::Pause { node: self.at_node, ms });
    }

    pub(super) fn jump(&mut self) {
        let by_ms = self.source.log(1, 3_600_000) as i64;
        let by_ms = if self.source.coin() { -by_ms } else { by_ms };
        self.world(WorldAction::ClockJump { node: self.at_node, by_ms });
    }

    pub(super) fn drift(&mut self, on: bool) {
        self.node_mut().drifting = on;
        let ppm = if on { self.source.log(100, 200_000) as i32 } else { 0 };
        let ppm = if on && self.source.coin() { -ppm } else { ppm };
        self.world(WorldAction::Drift { node: self.at_node, ppm });
    }

    pub(super) fn lag(&mut self, on: bool) {
        let another = self.source.below(self.scenario.shards.into()) as u16;
        let shard = self.node_mut().lagging.take().unwrap_or(another);
        self.node_mut().lagging = on.then_some(shard);
        let by_us = if on { self.source.log(100, 2_000_000) } else { 0 };
        self.world(WorldAction::Lag { node: self.at_node, shard, by_us });
    }

    /// What is wrong with its clock and its queues is still wrong when it starts again.
    fn stop(&mut self, action: WorldAction) {
        self.node_mut().down = true;
        for client in &mut self.clients {
            client.up &= client.node != self.at_node;
        }
        self.world(action);
    }

    pub(super) fn crash(&mut self, power_loss: bool) {
        self.stop(WorldAction::Crash { node: self.at_node, power_loss });
    }

    pub(super) fn shut_down(&mut self) {
        self.stop(WorldAction::Shutdown { node: self.at_node });
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
        if self.node().full && self.source.percent(70) {
            self.disk_full(false);
        }
        self.node_mut().down = false;
        self.node_mut().failed = false;
        self.world(WorldAction::Restart { node: self.at_node });
    }

    pub(super) fn disk_full(&mut self, on: bool) {
        self.node_mut().full = on;
        self.world(WorldAction::DiskFull { node: self.at_node, on });
    }

    pub(super) fn disk_slow(&mut self, on: bool) {
        self.node_mut().slow = on;
        let by_us = if on { self.source.log(1_000, if self.is_quick() { 1_500_000 } else { 5_000_000 }) } else { 0 };
        self.world(WorldAction::DiskSlow { node: self.at_node, by_us });
    }

    /// Until it starts again.
    pub(super) fn disk_fails(&mut self) {
        self.node_mut().failed = true;
        self.world(WorldAction::DiskFails { node: self.at_node });
    }

    pub(super) fn disk_rot(&mut self) {
        let at_ppm = self.source.below(1_000_000);
        self.rot_at(at_ppm);
    }

    /// Of the bytes on the disk.
    pub(super) fn rot_at(&mut self, at_ppm: u64) {
        self.world(WorldAction::DiskRot { node: self.at_node, at_ppm });
    }

    pub(super) fn pressure(&mut self, on: bool) {
        self.node_mut().short = on;
        let level = if on { self.source.between(1, 2) as u8 } else { 0 };
        self.world(WorldAction::MemoryPressure { node: self.at_node, level });
    }
}
