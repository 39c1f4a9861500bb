//! The keys of `[[step]]`: what each action is called and what belongs to it.

use newtmq_mqtt::RetainHandling;

use super::fields::{ACKS, MS_MAX, QOS, Section, US_MAX, Visitor};
use super::kind::{Bool, Client, FILTER, Hex, Int, Node, Opt, TOPIC, Texts, Words};
use super::{Acks, Act, Action, FilterSpec, PublishSpec, QoS, Step, WorldAction};
use crate::history::{AckKind, ClientIx};

impl Default for Step {
    fn default() -> Self {
        Step { at_ms: 0, action: of_client(Act::Ping) }
    }
}

impl Section for Step {
    fn fields(&mut self, v: &mut impl Visitor) {
        v.required("at_ms", "Milliseconds since the start of the world.", Int(0..=MS_MAX), &mut self.at_ms);
        let mut name = self.action.name();
        if !v.required("do", "What happens.", ActionName, &mut name) {
            v.skip_rest();
            return;
        }
        if name != self.action.name() {
            self.action = Action::of_name(name);
        }
        self.action.fields(v);
    }
}

/// `do`: the name of an action.
struct ActionName;

impl super::kind::Kind for ActionName {
    type Value = &'static str;

    fn expected(&self) -> String {
        let names: Vec<&str> = ACTIONS.iter().map(|(name, ..)| *name).collect();
        format!("one of {}", names.join(", "))
    }

    fn read(&self, value: &toml::de::DeValue<'_>, _: &super::kind::Context) -> Option<&'static str> {
        let text = value.as_str()?;
        ACTIONS.iter().find(|(name, ..)| *name == text).map(|(name, ..)| *name)
    }

    fn write(&self, value: &&'static str, _: &super::kind::Context) -> String {
        super::kind::quoted(value)
    }

    fn suggest(&self, text: &str, _: &super::kind::Context) -> Option<String> {
        super::problem::nearest(text, ACTIONS.iter().map(|(name, ..)| *name))
    }
}

impl Action {
    /// Its name in files.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Action::Client { act, .. } => match act {
                Act::Connect { .. } => "connect",
                Act::Disconnect { .. } => "disconnect",
                Act::HangUp => "hang_up",
                Act::Reset => "reset",
                Act::Vanish => "vanish",
                Act::Subscribe { .. } => "subscribe",
                Act::Unsubscribe { .. } => "unsubscribe",
                Act::Publish(_) => "publish",
                Act::PublishAgain => "publish_again",
                Act::PublishTorn { .. } => "publish_torn",
                Act::Ping => "ping",
                Act::SetAcks(_) => "set_acks",
                Act::SetReading(_) => "set_reading",
                Act::Freeze(_) => "freeze",
                Act::StrayAck { .. } => "stray_ack",
                Act::Raw(_) => "raw",
                Act::Sleep { .. } => "sleep",
                Act::Wake { .. } => "wake",
                Act::Rebind { .. } => "rebind",
                Act::SetWill(_) => "set_will",
                Act::PublishUnconnected(_) => "publish_unconnected",
                Act::Search => "search",
            },
            Action::World(action) => match action {
                WorldAction::Cut { .. } => "cut",
                WorldAction::Heal { .. } => "heal",
                WorldAction::Bandwidth { .. } => "bandwidth",
                WorldAction::Pause { .. } => "pause",
                WorldAction::ClockJump { .. } => "clock_jump",
                WorldAction::Drift { .. } => "drift",
                WorldAction::Lag { .. } => "lag",
                WorldAction::Crash { .. } => "crash",
                WorldAction::Restart { .. } => "restart",
                WorldAction::Shutdown { .. } => "shutdown",
                WorldAction::MemoryPressure { .. } => "memory_pressure",
                WorldAction::DiskFull { .. } => "disk_full",
                WorldAction::DiskSlow { .. } => "disk_slow",
                WorldAction::DiskFails { .. } => "disk_fails",
                WorldAction::DiskRot { .. } => "disk_rot",
                WorldAction::Wipe { .. } => "wipe",
                WorldAction::NewAddress { .. } => "new_address",
                WorldAction::CutLink { .. } => "cut_link",
                WorldAction::HealLink { .. } => "heal_link",
                WorldAction::Partition { .. } => "partition",
                WorldAction::Isolate { .. } => "isolate",
                WorldAction::HealLinks => "heal_links",
                WorldAction::Flap { .. } => "flap",
                WorldAction::SlowLink { .. } => "slow_link",
                WorldAction::Join { .. } => "join",
                WorldAction::Leave { .. } => "leave",
                WorldAction::ForceLeave { .. } => "force_leave",
                WorldAction::Status { .. } => "status",
                WorldAction::Upgrade { .. } => "upgrade",
                WorldAction::Finalize { .. } => "finalize",
                WorldAction::Write { .. } => "write",
            },
        }
    }

    fn of_name(name: &str) -> Action {
        ACTIONS.iter().find(|(known, ..)| *known == name).expect("a name of the table").2()
    }

    /// Shows the keys that belong to it.
    pub(super) fn fields(&mut self, v: &mut impl Visitor) {
        match self {
            Action::Client { client, act } => {
                v.required("client", "Who.", Client, client);
                act.fields(v);
            }
            Action::World(action) => action.fields(v),
        }
    }
}

impl Act {
    #[rustfmt::skip]
    fn fields(&mut self, v: &mut impl Visitor) {
        match self {
            Act::Connect { clean, session_expiry_s, node } => {
                v.optional("clean", "Clean Start from here on, if it changes.", Opt(Bool), clean, &None);
                v.optional("session_expiry_s", "Session Expiry Interval from here on, if it changes.", Opt(Int(0..=u32::MAX)), session_expiry_s, &None);
                v.optional("node", "The node that it connects to from here on, if it changes. Only with `driver = \"kernel\"`.", Opt(Node), node, &None);
            }
            Act::Disconnect { with_will, session_expiry_s } => {
                v.optional("with_will", "With reason code 0x04: the Will Message is sent (MQTT 5.0).", Bool, with_will, &false);
                v.optional("session_expiry_s", "Another Session Expiry Interval (MQTT 5.0).", Opt(Int(0..=u32::MAX)), session_expiry_s, &None);
            }
            Act::Subscribe { filters, subscription_id } => {
                v.filters(filters);
                v.optional("subscription_id", "Subscription Identifier (MQTT 5.0); 0 for none.", Int(0..=268_435_455), subscription_id, &0);
            }
            Act::Unsubscribe { filters } => {
                v.required("filters", "The filters.", Texts(FILTER), filters);
            }
            Act::Publish(publish) => publish.fields(v),
            Act::PublishTorn { publish, keep } => {
                publish.fields(v);
                v.required("keep", "Bytes of the packet that are sent.", Int(0..=SIZE_MAX), keep);
            }
            Act::SetAcks(acks) => {
                v.required("acks", "`auto` acknowledges, also what waits; `never` does not.", ACKS, acks);
            }
            Act::SetReading(on) => {
                v.required("on", "Whether it reads.", Bool, on);
            }
            Act::Freeze(on) => v.optional("on", "Whether it sleeps.", Bool, on, &true),
            Act::StrayAck { kind, pid } => {
                let kinds = Words(&[
                    ("puback", AckKind::Puback), ("pubrec", AckKind::Pubrec),
                    ("pubrel", AckKind::Pubrel), ("pubcomp", AckKind::Pubcomp),
                ]);
                v.required("kind", "Which acknowledgement.", kinds, kind);
                v.required("pid", "Packet Identifier.", Int(1..=65_535), pid);
            }
            Act::Raw(bytes) => {
                v.required("bytes", "What is sent.", Hex, bytes);
            }
            Act::Sleep { duration_s, wakes } => {
                v.required("duration_s", "Its time of sleep.", Int(1..=65_535), duration_s);
                v.optional("wakes", "Whether it wakes by itself before that is over, again and again.", Bool, wakes, &true);
            }
            Act::Wake { node } => {
                v.optional("node", "The node that it speaks with from here on, if it changes.", Opt(Node), node, &None);
            }
            Act::Rebind { of } => {
                v.optional("of", "Its new address is that of this client, who has left it; without it nobody had it.", Opt(Client), of, &None);
            }
            Act::SetWill(will) => super::fields::will(will, v),
            Act::PublishUnconnected(publish) => publish.fields(v),
            Act::HangUp | Act::Reset | Act::Vanish | Act::PublishAgain | Act::Ping | Act::Search => {}
        }
    }
}

impl PublishSpec {
    #[rustfmt::skip]
    fn fields(&mut self, v: &mut impl Visitor) {
        let d = PublishSpec::new("", QoS::AtMostOnce);
        v.required("topic", "Topic Name.", TOPIC, &mut self.topic);
        v.optional("qos", "QoS.", QOS, &mut self.qos, &d.qos);
        v.optional("retain", "RETAIN.", Bool, &mut self.retain, &d.retain);
        v.optional("size", "Length of the payload in bytes. 0 is an empty one; others are at least as long as what names the message.", Int(0..=SIZE_MAX), &mut self.size, &d.size);
        v.optional("expiry_s", "Message Expiry Interval in seconds (MQTT 5.0); 0 for none.", Int(0..=u32::MAX), &mut self.expiry_s, &d.expiry_s);
        v.optional("alias", "Topic Alias (MQTT 5.0); 0 for none. The topic is left out of the packet if the client has set the alias to it before.", Int(0..=65_535), &mut self.alias, &d.alias);
        v.optional("count", "How many messages.", Int(1..=COUNT_MAX), &mut self.count, &d.count);
        v.micros(["every_ms", "every_us"], "From one to the next.", Int(0..=US_MAX), &mut self.every_us, &d.every_us);
    }
}

impl FilterSpec {
    /// The options, which stand beside the filter or beside all of them.
    #[rustfmt::skip]
    pub(super) fn options(&mut self, v: &mut impl Visitor) {
        let d = FilterSpec::new("", QoS::AtMostOnce);
        let handling = Words(&[
            ("0", RetainHandling::SendAtSubscribe), ("1", RetainHandling::SendIfNew), ("2", RetainHandling::DoNotSend),
        ]);
        v.optional("qos", "Maximum QoS.", QOS, &mut self.qos, &d.qos);
        v.optional("no_local", "No Local (MQTT 5.0).", Bool, &mut self.no_local, &d.no_local);
        v.optional("retain_as_published", "Retain As Published (MQTT 5.0).", Bool, &mut self.retain_as_published, &d.retain_as_published);
        v.optional("retain_handling", "Retain Handling (MQTT 5.0): 0 retained messages come, 1 only if the subscription is new, 2 they do not.", handling, &mut self.retain_handling, &d.retain_handling);
    }
}

fn of_client(act: Act) -> Action {
    Action::Client { client: ClientIx(0), act }
}

type Prototype = fn() -> Action;

/// Every action: name, meaning, one of its kind with defaults. In the order of the documentation.
#[rustfmt::skip]
pub(super) const ACTIONS: &[(&str, &str, Prototype)] = &[
    ("connect", "Opens a network connection and sends CONNECT.", || of_client(Act::Connect { clean: None, session_expiry_s: None, node: None })),
    ("disconnect", "Sends DISCONNECT and closes.", || of_client(Act::Disconnect { with_will: false, session_expiry_s: None })),
    ("hang_up", "Closes the network connection without DISCONNECT, after what it sent.", || of_client(Act::HangUp)),
    ("reset", "The connection breaks: what is under way is lost both ways, and both sides learn of it.", || of_client(Act::Reset)),
    ("vanish", "The client forgets its connection, as after a power failure; the broker learns nothing.", || of_client(Act::Vanish)),
    ("subscribe", "Sends SUBSCRIBE.", || of_client(Act::Subscribe { filters: Vec::new(), subscription_id: 0 })),
    ("unsubscribe", "Sends UNSUBSCRIBE.", || of_client(Act::Unsubscribe { filters: Vec::new() })),
    ("publish", "Sends PUBLISH, once or in a row. A message with QoS 1 or 2 that finds no free place in the broker's Receive Maximum waits in the client.", || of_client(Act::Publish(PublishSpec::new("", QoS::AtMostOnce)))),
    ("publish_again", "Sends the last PUBLISH that is not acknowledged once more, with DUP and the same Packet Identifier.", || of_client(Act::PublishAgain)),
    ("publish_torn", "Sends a PUBLISH in part, then resets the connection.", || of_client(Act::PublishTorn { publish: PublishSpec::new("", QoS::AtMostOnce), keep: 0 })),
    ("ping", "Sends PINGREQ.", || of_client(Act::Ping)),
    ("set_acks", "Begins or stops to acknowledge.", || of_client(Act::SetAcks(Acks::Auto))),
    ("set_reading", "Reads nothing, or again.", || of_client(Act::SetReading(true))),
    ("freeze", "The client's machine sleeps, or wakes up.", || of_client(Act::Freeze(true))),
    ("stray_ack", "Sends an acknowledgement that nothing asks for.", || of_client(Act::StrayAck { kind: AckKind::Puback, pid: 1 })),
    ("raw", "Sends these bytes, whatever they are. The broker may do as it likes with the connection.", || of_client(Act::Raw(Vec::new()))),
    ("sleep", "MQTT-SN: sends DISCONNECT with a duration. At the end of all steps it connects again.", || of_client(Act::Sleep { duration_s: 1, wakes: true })),
    ("wake", "MQTT-SN: a client that sleeps sends PINGREQ with its ClientId, and sleeps on when it has what waits for it. One that has a will connects instead where it was not before.", || of_client(Act::Wake { node: None })),
    ("rebind", "MQTT-SN: the client has another address from here on. What goes to the old one is lost.", || of_client(Act::Rebind { of: None })),
    ("set_will", "MQTT-SN: changes the payload of the will, or deletes it without `will_topic`. Any other change makes a new connection. Without one it is what the next CONNECT says.", || of_client(Act::SetWill(None))),
    ("publish_unconnected", "MQTT-SN: sends PUBLISH with QoS -1, connected or not, if its topic has two bytes or is predefined. `qos` says nothing.", || of_client(Act::PublishUnconnected(PublishSpec::new("", QoS::AtMostOnce)))),
    ("search", "MQTT-SN: sends SEARCHGW, and again until GWINFO comes.", || of_client(Act::Search)),
    ("cut", "Bytes between a client and its node no longer arrive; they do after `heal`.", || Action::World(WorldAction::Cut { client: ClientIx(0), to_server: true, to_client: true })),
    ("heal", "The end of a cut.", || Action::World(WorldAction::Heal { client: ClientIx(0) })),
    ("bandwidth", "A client's connections get slow.", || Action::World(WorldAction::Bandwidth { client: ClientIx(0), bytes_per_s: 0 })),
    ("pause", "A node does nothing for a while.", || Action::World(WorldAction::Pause { node: 0, ms: 0 })),
    ("clock_jump", "A node's wall clock jumps.", || Action::World(WorldAction::ClockJump { node: 0, by_ms: 0 })),
    ("drift", "A node's monotonic clock runs faster or slower.", || Action::World(WorldAction::Drift { node: 0, ppm: 0 })),
    ("lag", "What is said to a shard takes longer.", || Action::World(WorldAction::Lag { node: 0, shard: 0, by_us: 0 })),
    ("crash", "The node is gone, with everything in its memory.", || Action::World(WorldAction::Crash { node: 0, power_loss: false })),
    ("disk_full", "A node's disk has no space left.", || Action::World(WorldAction::DiskFull { node: 0, on: true })),
    ("disk_slow", "A node's disk syncs slowly.", || Action::World(WorldAction::DiskSlow { node: 0, by_us: 0 })),
    ("disk_fails", "A node's disk fails to sync, for good.", || Action::World(WorldAction::DiskFails { node: 0 })),
    ("disk_rot", "A bit turns of what a node's disk holds.", || Action::World(WorldAction::DiskRot { node: 0, at_ppm: 0 })),
    ("restart", "A node that crashed or was stopped starts again.", || Action::World(WorldAction::Restart { node: 0 })),
    ("shutdown", "The node stops in order.", || Action::World(WorldAction::Shutdown { node: 0 })),
    ("memory_pressure", "The node's memory is short, as `memory.high_watermark` finds it.", || Action::World(WorldAction::MemoryPressure { node: 0, level: 0 })),
    ("wipe", "A node loses its disk; one that runs crashes first. `restart` starts it as another node.", || Action::World(WorldAction::Wipe { node: 0 })),
    ("new_address", "From its next start on a node has another address.", || Action::World(WorldAction::NewAddress { node: 0 })),
    ("cut_link", "Nothing that one node sends to another arrives any more: bytes of connections wait for `heal_link` or `heal_links`, datagrams are lost. The other way still works.", || Action::World(WorldAction::CutLink { from: 0, to: 0 })),
    ("heal_link", "The end of `cut_link`, one way.", || Action::World(WorldAction::HealLink { from: 0, to: 0 })),
    ("partition", "Nodes are cut off from each other, both ways, beside what was cut before.", || Action::World(WorldAction::Partition { groups: Vec::new() })),
    ("isolate", "A node is cut off from all others, both ways.", || Action::World(WorldAction::Isolate { node: 0 })),
    ("heal_links", "All links between nodes work again, and none flaps any more.", || Action::World(WorldAction::HealLinks)),
    ("flap", "The links between two nodes are cut and heal again, over and over.", || Action::World(WorldAction::Flap { from: 0, to: 0, down_ms: 1_000, up_ms: 1_000, count: 1 })),
    ("slow_link", "What one node sends to another takes longer, until another one of these.", || Action::World(WorldAction::SlowLink { from: 0, to: 0, by_us: 0, bytes_per_s: 0 })),
    ("join", "An operator tells a node to join the cluster of another one, as with `newtmq ctl cluster join`. The answer is in the history.", || Action::World(WorldAction::Join { node: 0, to: 0 })),
    ("leave", "An operator tells a node to leave its cluster.", || Action::World(WorldAction::Leave { node: 0 })),
    ("force_leave", "An operator tells a node to remove another one that is down.", || Action::World(WorldAction::ForceLeave { node: 0, target: 0 })),
    ("status", "An operator asks a node how its cluster is.", || Action::World(WorldAction::Status { node: 0 })),
    ("upgrade", "From its next start on a node has another program.", || Action::World(WorldAction::Upgrade { node: 0, later: 1 })),
    ("finalize", "An operator has the cluster use what all its members understand, as with `newtmq ctl cluster finalize`.", || Action::World(WorldAction::Finalize { node: 0 })),
    ("write", "An operator has a node write something that all nodes are to have, as a user or a ban; each of these steps writes something else.", || Action::World(WorldAction::Write { node: 0, key: 0 })),
];

/// Bytes of a payload at most.
pub(super) const SIZE_MAX: u32 = 16 << 20;
/// Messages of one step at most.
pub(super) const COUNT_MAX: u32 = 1_000_000;
