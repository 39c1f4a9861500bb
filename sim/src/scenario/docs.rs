//! Writes `docs/scenarios.md` from the definition of the keys.

use core::fmt::Write as _;

use super::fields::{Section, Visitor};
use super::kind::{Context, Kind, Micros};
use super::steps::ACTIONS;
use super::{
    BrokerSpec, ClientSpec, ClusterSpec, DiskSpec, Expect, FilterSpec, NetSpec, NodeSpec, QoS, Scenario, SnSpec,
};
use crate::report::Check;

/// The reference of scenario files, as Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut docs = Docs { out: HEAD.replace("EXAMPLE", EXAMPLE), top: true, context: Context::default() };
    docs.context.clients.push(String::new());
    docs.table();
    Scenario::default().fields(&mut docs);
    docs.top = false;
    docs.part("`[broker]`", BROKER, &mut BrokerSpec::default());
    docs.part("`[cluster]`", CLUSTER, &mut ClusterSpec::default());
    docs.part("`[net]`", NET, &mut NetSpec::default());
    docs.part("`[sn]`", SN, &mut SnSpec::default());
    docs.part("`[disk]`", DISK, &mut DiskSpec::default());
    docs.part("`[[node]]`", NODE, &mut NodeSpec::default());
    docs.part("`[[client]]`", CLIENT, &mut ClientSpec::default());
    docs.out.push_str(STEP);
    for (name, about, prototype) in ACTIONS {
        let _ = write!(docs.out, "\n### `{name}`\n\n{about}\n");
        docs.table();
        prototype().fields(&mut docs);
    }
    docs.part("`[expect]`", "", &mut Expect::default());
    docs.out.push_str("\n## Checks\n\n| name | finds |\n|---|---|\n");
    for check in Check::ALL {
        let _ = writeln!(docs.out, "| `{}` | {} |", check.name(), check.about());
    }
    docs.out
}

struct Docs {
    out: String,
    /// Only keys outside of sections.
    top: bool,
    context: Context,
}

impl Docs {
    fn part(&mut self, title: &str, text: &str, section: &mut impl Section) {
        let _ = write!(self.out, "\n## {title}\n");
        if !text.is_empty() {
            let _ = write!(self.out, "\n{text}\n");
        }
        self.table();
        section.fields(self);
    }

    fn table(&mut self) {
        self.out.push_str("\n| key | value | default | |\n|---|---|---|---|\n");
    }

    fn row(&mut self, key: &str, doc: &str, expected: &str, default: &str) {
        let _ = writeln!(
            self.out,
            "| {key} | {} | {default} | {} |",
            expected.replace('|', "\\|"),
            doc.replace('|', "\\|")
        );
    }
}

impl Visitor for Docs {
    fn optional<K: Kind>(
        &mut self,
        key: &'static str,
        doc: &'static str,
        kind: K,
        _: &mut K::Value,
        default: &K::Value,
    ) {
        let written = kind.write(default, &self.context);
        let written = if written.is_empty() || written == "\"\"" { String::new() } else { format!("`{written}`") };
        self.row(&format!("`{key}`"), doc, &kind.expected(), &written);
    }

    fn required<K: Kind>(&mut self, key: &'static str, doc: &'static str, kind: K, _: &mut K::Value) -> bool {
        self.row(&format!("`{key}`"), doc, &kind.expected(), "must be there");
        true
    }

    fn micros<K: Kind<Value: Micros>>(
        &mut self,
        [ms, us]: [&'static str; 2],
        doc: &'static str,
        kind: K,
        _: &mut K::Value,
        default: &K::Value,
    ) {
        let written = match default.to_ms() {
            Some(whole) => format!("`{ms} = {}`", kind.write(&whole, &self.context)),
            None => format!("`{us} = {}`", kind.write(default, &self.context)),
        };
        self.row(&format!("`{ms}`, `{us}`"), doc, &kind.expected(), &written);
    }

    fn filters(&mut self, _: &mut Vec<FilterSpec>) {
        self.row("`filter`, `filters`", FILTERS, "a Topic Filter or $share/GROUP/FILTER; or an array", "must be there");
        FilterSpec::new("", QoS::AtMostOnce).options(self);
    }

    fn section<T: Section>(&mut self, key: &'static str, _: &mut T) {
        assert!(self.top, "{key} is a section in a section");
    }

    fn sections<T: Section + Default>(&mut self, key: &'static str, _: &mut Vec<T>) {
        assert!(self.top, "{key} is a section in a section");
    }
}

pub(super) const EXAMPLE: &str = "\
format = 1
why = \"a message for a session waits until its client is back\"
seed = 42

[net]
latency_ms = [1, 20]

[[client]]
name = \"sensor\"

[[client]]
name = \"display\"
version = \"3.1.1\"
clean = false

[[step]]
at_ms = 0
do = \"connect\"
client = \"display\"

[[step]]
at_ms = 100
do = \"subscribe\"
client = \"display\"
filter = \"room/#\"
qos = 1

[[step]]
at_ms = 200
do = \"reset\"
client = \"display\"

[[step]]
at_ms = 300
do = \"connect\"
client = \"sensor\"

[[step]]
at_ms = 400
do = \"publish\"
client = \"sensor\"
topic = \"room/1\"
qos = 1

[[step]]
at_ms = 2000
do = \"connect\"
client = \"display\"
";

const HEAD: &str = "\
# Scenario files

<!-- Written by `cargo sim docs docs/scenarios.md` from the definition in sim/src/scenario. Change it there. -->

A scenario says what clients do, what goes wrong, and what must come of it. It is a file in [TOML](https://toml.io) in
`scenarios/`, in a folder for what it is about, and named by what it guards. `cargo sim replay FILE` runs one;
[`cargo sim`](command-line.md#cargo-sim) has the rest.

```toml
EXAMPLE```

- Nothing has to be said about what is expected of the messages: every check looks at every run.
- Steps are carried out in the order of their times. One that is not possible when its time comes, such as a publish without a
  connection, does nothing; so a file stays a scenario when steps are taken out of it.
- The same file gives the same history, byte for byte, with the same code. `seed` decides delays, sizes of pieces and whatever else
  the file leaves open.
- All mistakes of a file are told at once, each with line and key.

## Keys
";

const BROKER: &str = "Limits of the broker by the names that they have in the [configuration](configuration.md). What is left out \
has the broker's default.";

const CLUSTER: &str = "What all nodes have in common. Several nodes are a cluster also without it, and one alone is with it. What is left \
out has the broker's default.";

const NET: &str = "Between clients and nodes, between the shards of a node, and between nodes.";

const SN: &str = "MQTT-SN, if a client speaks it: the gateway of each node, by the names that its keys have in the \
[configuration](configuration.md#mqtt-sn), and the network between clients and gateways. After the last step no datagram is lost, doubled or late.";

const NODE: &str =
    "The first one is node 0, the next node 1, and so on. Nodes without one are as any: there at the beginning.";

const DISK: &str = "The disk of each node. It is used if `broker.durability` says so.";

const CLIENT: &str = "A client as it is when a `connect` step comes. None does anything before a step says so.";

const STEP: &str = "
## `[[step]]`

Each step has `at_ms`, the milliseconds since the start of the world, and `do`, one of the names below. The other keys depend on
that.
";

const FILTERS: &str = "One filter, or an array of them. The options below are those of all; a filter with options of its own is \
written `{ filter = \"t/#\", qos = 1 }`.";
