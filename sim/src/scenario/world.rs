//! What steps do to the world: to the network, to nodes, to clocks and disks; and the keys of each.

use super::cluster::LATER_MAX;
use super::fields::{BYTES_MAX, MS_MAX, US_MAX, Visitor};
use super::kind::{Bool, Client, Groups, Int, Node, Shard, Words};
use crate::history::ClientIx;

/// What is done to the world.
#[derive(Debug, Clone, PartialEq)]
pub enum WorldAction {
    /// Bytes between a client and its node no longer arrive; they do after [`WorldAction::Heal`].
    Cut {
        /// The client.
        client: ClientIx,
        /// Toward the broker.
        to_server: bool,
        /// Toward the client.
        to_client: bool,
    },
    /// The end of a cut.
    Heal {
        /// The client.
        client: ClientIx,
    },
    /// So many bytes a second each way; 0 for no limit.
    Bandwidth {
        /// The client.
        client: ClientIx,
        /// Bytes a second.
        bytes_per_s: u64,
    },
    /// A node does nothing for so many milliseconds.
    Pause {
        /// The node.
        node: u16,
        /// Milliseconds.
        ms: u64,
    },
    /// A node's wall clock jumps.
    ClockJump {
        /// The node.
        node: u16,
        /// Milliseconds; negative for back.
        by_ms: i64,
    },
    /// A node's monotonic clock runs faster or slower.
    Drift {
        /// The node.
        node: u16,
        /// Parts in a million, from -500000 to 500000.
        ppm: i32,
    },
    /// What is said to a shard takes longer; 0 ends it.
    Lag {
        /// The node.
        node: u16,
        /// The shard.
        shard: u16,
        /// Microseconds more.
        by_us: u64,
    },
    /// The node is gone, with everything in its memory.
    Crash {
        /// The node.
        node: u16,
        /// The machine's power fails: of what was written and not synced a part is lost, too.
        power_loss: bool,
    },
    /// No space is left on a node's disk, or there is some again.
    DiskFull {
        /// The node.
        node: u16,
        /// Whether it is full.
        on: bool,
    },
    /// Syncs take so much longer; 0 ends it.
    DiskSlow {
        /// The node.
        node: u16,
        /// Microseconds more.
        by_us: u64,
    },
    /// Syncs fail from here on.
    DiskFails {
        /// The node.
        node: u16,
    },
    /// A bit turns of what a node's disk holds.
    DiskRot {
        /// The node.
        node: u16,
        /// Where, in parts in a million of all bytes.
        at_ppm: u64,
    },
    /// A node that crashed or was stopped starts again.
    Restart {
        /// The node.
        node: u16,
    },
    /// The node stops in order.
    Shutdown {
        /// The node.
        node: u16,
    },
    /// `memory.high_watermark`: 0 none, 1 shed, 2 hold.
    MemoryPressure {
        /// The node.
        node: u16,
        /// The level.
        level: u8,
    },
    /// A node that is down loses its disk; one that runs crashes first. It starts as another node.
    Wipe {
        /// The node.
        node: u16,
    },
    /// From its next start on a node has another address.
    NewAddress {
        /// The node.
        node: u16,
    },
    /// Nothing that one node sends to another arrives any more.
    CutLink {
        /// Who sends.
        from: u16,
        /// Who hears nothing.
        to: u16,
    },
    /// What one node sends to another arrives again.
    HealLink {
        /// Who sends.
        from: u16,
        /// Who hears.
        to: u16,
    },
    /// Two nodes in different groups, and in none together, do not reach each other. Nodes in no group are not concerned.
    Partition {
        /// The groups.
        groups: Vec<Vec<u16>>,
    },
    /// A node and all others do not reach each other.
    Isolate {
        /// The node.
        node: u16,
    },
    /// All links between nodes work again; flapping ones stay up.
    HealLinks,
    /// The links between two nodes are cut and heal again, over and over.
    Flap {
        /// One node.
        from: u16,
        /// The other one.
        to: u16,
        /// Milliseconds that they are cut.
        down_ms: u64,
        /// Milliseconds that they are not.
        up_ms: u64,
        /// How often they are cut.
        count: u32,
    },
    /// What one node sends to another takes longer; 0 and 0 end it.
    SlowLink {
        /// Who sends.
        from: u16,
        /// Who hears it late.
        to: u16,
        /// Microseconds more.
        by_us: u64,
        /// Bytes a second, each connection; 0 for what `[net]` says.
        bytes_per_s: u64,
    },
    /// An operator tells a node to join the cluster of another one.
    Join {
        /// The node.
        node: u16,
        /// The other one.
        to: u16,
    },
    /// An operator tells a node to leave its cluster.
    Leave {
        /// The node.
        node: u16,
    },
    /// An operator tells a node to remove another one from the cluster: the node that it was before its disk was lost, if
    /// it runs again since then.
    ForceLeave {
        /// Who is told.
        node: u16,
        /// Who is removed.
        target: u16,
    },
    /// An operator asks a node how its cluster is.
    Status {
        /// The node.
        node: u16,
    },
    /// From its next start on a node has another program.
    Upgrade {
        /// The node.
        node: u16,
        /// So many releases later than this one.
        later: u8,
    },
    /// An operator has the cluster use what all its members understand.
    Finalize {
        /// The node that is told.
        node: u16,
    },
    /// An operator has a node write something that all nodes are to have, as a user or a ban: each step something else.
    Write {
        /// The node.
        node: u16,
        /// What is written replaces what was written with the same key.
        key: u8,
    },
}

impl WorldAction {
    #[rustfmt::skip]
    pub(super) fn fields(&mut self, v: &mut impl Visitor) {
        match self {
            WorldAction::Cut { client, to_server, to_client } => {
                v.required("client", "Whose connections.", Client, client);
                v.optional("to_server", "Toward the broker.", Bool, to_server, &true);
                v.optional("to_client", "Toward the client.", Bool, to_client, &true);
            }
            WorldAction::Heal { client } => {
                v.required("client", "Whose connections.", Client, client);
            }
            WorldAction::Bandwidth { client, bytes_per_s } => {
                v.required("client", "Whose connections.", Client, client);
                v.required("bytes_per_s", "Bytes a second each way; 0 for no limit.", Int(0..=BYTES_MAX), bytes_per_s);
            }
            WorldAction::Pause { node, ms } => {
                node_key(node, v);
                v.required("ms", "Milliseconds.", Int(0..=MS_MAX), ms);
            }
            WorldAction::ClockJump { node, by_ms } => {
                node_key(node, v);
                v.required("by_ms", "Milliseconds; negative for back.", Int(-JUMP_MAX_MS..=JUMP_MAX_MS), by_ms);
            }
            WorldAction::Drift { node, ppm } => {
                node_key(node, v);
                v.required("ppm", "Parts in a million; negative for slower.", Int(-500_000..=500_000), ppm);
            }
            WorldAction::Lag { node, shard, by_us } => {
                node_key(node, v);
                v.optional("shard", "The shard that hears late.", Shard, shard, &0);
                v.micros(["by_ms", "by_us"], "How much later; 0 ends it.", Int(0..=US_MAX), by_us, &0);
            }
            WorldAction::MemoryPressure { node, level } => {
                node_key(node, v);
                v.required("level", "0 none, 1 shed, 2 hold.", Int(0..=2), level);
            }
            WorldAction::Crash { node, power_loss } => {
                node_key(node, v);
                let kinds = Words(&[("process", false), ("power-loss", true)]);
                v.optional("kind", "`process`: what was written survives; `power-loss`: what was synced does, and a part of the rest.", kinds, power_loss, &false);
            }
            WorldAction::DiskFull { node, on } => {
                node_key(node, v);
                v.optional("on", "Whether it is full.", Bool, on, &true);
            }
            WorldAction::DiskSlow { node, by_us } => {
                node_key(node, v);
                v.micros(["by_ms", "by_us"], "How much longer; 0 ends it.", Int(0..=US_MAX), by_us, &0);
            }
            WorldAction::DiskRot { node, at_ppm } => {
                node_key(node, v);
                v.required("at_ppm", "Where, in parts in a million of all that is on the disk.", Int(0..=999_999), at_ppm);
            }
            WorldAction::CutLink { from, to } | WorldAction::HealLink { from, to } => {
                v.required("from", "Who sends.", Node, from);
                v.required("to", "Who hears.", Node, to);
            }
            WorldAction::Partition { groups } => {
                v.required("groups", "Groups of nodes: two in different groups, and in none together, do not reach each other. Nodes in no group are not concerned.", Groups, groups);
            }
            WorldAction::Flap { from, to, down_ms, up_ms, count } => {
                v.required("from", "One node.", Node, from);
                v.required("to", "The other one.", Node, to);
                v.optional("down_ms", "Milliseconds that nothing arrives, both ways.", Int(1..=MS_MAX), down_ms, &1_000);
                v.optional("up_ms", "Milliseconds from then on that it does.", Int(1..=MS_MAX), up_ms, &1_000);
                v.required("count", "How often.", Int(1..=FLAPS_MAX), count);
            }
            WorldAction::SlowLink { from, to, by_us, bytes_per_s } => {
                v.required("from", "Who sends.", Node, from);
                v.required("to", "Who hears it late.", Node, to);
                v.micros(["by_ms", "by_us"], "How much longer it takes.", Int(0..=US_MAX), by_us, &0);
                v.optional("bytes_per_s", "Bytes a second, each connection; 0 for what `[net]` says.", Int(0..=BYTES_MAX), bytes_per_s, &0);
            }
            WorldAction::Join { node, to } => {
                v.required("node", "The node.", Node, node);
                v.required("to", "A node of the cluster.", Node, to);
            }
            WorldAction::ForceLeave { node, target } => {
                v.required("node", "Who is told.", Node, node);
                v.required("target", "Who is removed: the node that it was before its disk was lost, if it runs again since then.", Node, target);
            }
            WorldAction::Upgrade { node, later } => {
                node_key(node, v);
                v.optional("later", "So many releases later than this one.", Int(0..=LATER_MAX), later, &1);
            }
            WorldAction::Write { node, key } => {
                node_key(node, v);
                v.optional("key", "What is written replaces what was written with the same key.", Int(0..=255), key, &0);
            }
            WorldAction::HealLinks => {}
            WorldAction::DiskFails { node }
            | WorldAction::Restart { node }
            | WorldAction::Shutdown { node }
            | WorldAction::Wipe { node }
            | WorldAction::NewAddress { node }
            | WorldAction::Isolate { node }
            | WorldAction::Leave { node }
            | WorldAction::Finalize { node }
            | WorldAction::Status { node } => node_key(node, v),
        }
    }
}

fn node_key(node: &mut u16, v: &mut impl Visitor) {
    v.optional("node", "The node.", Node, node, &0);
}

/// How often links flap at most: one step is not to be a whole run.
const FLAPS_MAX: u32 = 10_000;
/// 100 years.
const JUMP_MAX_MS: i64 = 100 * 366 * 86_400_000;
