//! Writes `docs/migration.md` from the tables.

use std::fmt::Write as _;

use newtmq_node::Hook;

use super::plugins::{Is, PLUGINS, STANDARD};
use super::surface::{self, SURFACES};
use super::table::{Does, Row, SECTIONS};
use crate::config::mosquitto;

/// How to come from another broker, as Markdown.
pub(in crate::config) fn markdown() -> String {
    let mut out = HEAD.to_owned();
    for section in SECTIONS {
        let _ = write!(out, "\n### {}\n\n| key | here | |\n|---|---|---|\n", section.title);
        for row in section.rows {
            let _ = writeln!(out, "| {} | {} | {} |", keys(row.key), status(row), about(row));
        }
    }
    let _ = write!(out, "{PLUGIN_HEAD}\n| plugin | here | |\n|---|---|---|\n");
    for plugin in PLUGINS {
        let status = match plugin.is {
            Is::BuiltIn => "works, built in",
            Is::Needless => "no effect",
            Is::Missing => "not yet",
            Is::Guard => "not yet: an error if it is loaded",
        };
        let standard = if STANDARD.contains(&plugin.name) { ", loaded by default" } else { "" };
        let _ = writeln!(out, "| `{}` | {status} | {}{standard} |", plugin.name, plugin.why);
    }
    for surface in SURFACES {
        let _ = write!(out, "\n### {}\n\n| {} | here | |\n|---|---|---|\n", surface.title, surface.what);
        for fact in surface.facts {
            let quote = if fact.what.starts_with(['{', '%', '$']) { "`" } else { "" };
            let _ = writeln!(out, "| {quote}{}{quote} | {} | {} |", fact.what, fact.here, fact.why);
        }
    }
    let _ = write!(out, "{HOOKS_HEAD}\n| hook | here | what is there |\n|---|---|---|\n");
    for hook in Hook::ALL {
        let (here, what) = surface::hook(hook);
        let _ = writeln!(out, "| `{}` | {here} | {what} |", hook.name());
    }
    out.push_str(SERVED);
    let _ = write!(out, "{MOSQUITTO}\n| mosquitto.conf | here | |\n|---|---|---|\n");
    for row in mosquitto::ROWS {
        let here = if row.here.is_empty() { "none" } else { row.here };
        let _ = writeln!(out, "| `{}` | {here} | {} |", row.key, row.why);
    }
    out.push_str(FOOT);
    out
}

/// What comes of a row, in the words of the page.
fn status(row: &Row) -> String {
    match row.does {
        Does::Same if row.why.is_empty() => "works".to_owned(),
        Does::As(other) => format!("works, as `{}`", named(other)),
        Does::Same | Does::By(_) | Does::Together => "differs".to_owned(),
        Does::NodeWide(other) => format!("differs: `{other}`"),
        Does::NoEffect => "no effect".to_owned(),
        Does::NotYet => "not yet".to_owned(),
        Does::Refused => "not yet: an error".to_owned(),
    }
}

fn about(row: &Row) -> String {
    let absent = match row.absent {
        "" => String::new(),
        absent => format!("if it is not set: `{absent}`, as in EMQ X"),
    };
    [row.why.to_owned(), absent].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

fn named(key: &str) -> String {
    key.replace("$name", "NAME").replace("$number", "N").replace("$level", "LEVEL")
}

/// `a.$name.b|c` is `a.NAME.b`, `c`.
fn keys(pattern: &str) -> String {
    let pattern = named(pattern);
    let (before, leaves) = pattern.rsplit_once('.').unwrap_or(("", &pattern));
    let before = before.replace("tcp|ssl|ws|wss", "TRANSPORT").replace('|', ",");
    let dot = if before.is_empty() { "" } else { "." };
    let mut leaves = leaves.split('|');
    let first = leaves.next().unwrap_or_default();
    let mut out = format!("`{before}{dot}{first}`");
    for leaf in leaves {
        let _ = write!(out, ", `{leaf}`");
    }
    out
}

const HEAD: &str = "\
# Migration

<!-- Written by `newtmq config-docs --migration docs/migration.md` from the tables in src/config/emqx and
src/config/mosquitto.rs, which read such files. Change it there. -->

## From EMQ X 3 and 4

`newtmq` reads the `emqx.conf` that you have, and the files beside it:

```sh
newtmq check-config etc/emqx.conf      # what is different here?
newtmq run --config etc/emqx.conf
```

`check-config` prints what the file sets, and each key that has no effect here or not quite the same, with its line and why. What
would let in more than the file says is an error, and so is a key that neither EMQ X nor this broker has; nothing is passed over.
When you are content, write a file of this broker, which says the same in TOML:

```sh
newtmq config import etc/emqx.conf -o etc/newtmq.toml
newtmq run --config etc/newtmq.toml
```

What else is different:

- There is no Erlang node and no cookie file; a cluster is described in [Cluster](cluster.md). Nodes of EMQ X and of NewtMQ form no
  cluster with each other.
- Sessions, retained messages and the database of EMQ X are not taken over. Clients connect again and subscribe again; retained
  messages can be subscribed to at one broker and published to the other.
- `acl.conf` is read as it is, see [Access](access.md#rules-aclconf).
- `emqx_ctl` is `newtmq ctl`, see [Command line](command-line.md#newtmq-ctl).
- Nothing is stored without `--data DIR`; EMQ X keeps sessions in memory only.

### How the file is read

- A name that ends in `.conf` is the format of EMQ X, `key = value`, unless the file has a line `[section]`; one that ends in
  `.toml` is TOML. With any other name it is that of EMQ X if a value has no quotes and is not a number, `true` or `false`.
- A line that begins with `#` is a comment; a `#` behind a value belongs to the value, as in EMQ X. Quotes around a whole value are
  taken off. The last line of a key counts. `include FILE` is a file as seen from the one that names it.
- Sizes are bytes or have `B`, `KB`, `MB`, `GB`; durations have `ms`, `s`, `m`, `h`, `d` or `w`; flags are `on`, `off`, `true` or
  `false`; a percentage has its `%`.
- Relative paths are as seen from the folder above `etc`, if the file is in a folder of that name, and from the directory that the
  broker was started in otherwise. `{{ platform_etc_dir }}` and the like are the folders `etc`, `data` and `log`.
- `EMQX_A__B__C` is a line `a.b.c` that comes last; `EMQX_LOADED_PLUGINS=emqx_retainer,emqx_auth_username` names plugins. Then come
  `NEWTMQ_A__B__C` and `--set` with [keys of this broker](configuration.md). These may be in the file, too.
- A key that is not set has the default that EMQ X has where it is not set, if the tables say so, and the one of this broker otherwise.
- Files of plugins are those in `plugins.etc_dir` (`etc/plugins`), of plugins that `plugins.loaded_file` (`data/loaded_plugins`)
  names.

In the tables *works* means: the same key with the same values. *No effect* means that nothing is missed. `TRANSPORT` is `tcp`, `ssl`,
`ws` or `wss`.
";

const PLUGIN_HEAD: &str = "
### Plugins
";

const HOOKS_HEAD: &str = "
### Hooks

They are points where parts of the broker are asked or told, and what a trace tells of (`newtmq ctl trace`). Programs of others cannot be
hooked in yet.
";

const SERVED: &str = "
### Commands and paths

`emqx_ctl` is in [newtmq ctl](ctl.md#commands), and the HTTP API in [HTTP API](http-api.md#paths), row by row.
";

const MOSQUITTO: &str = "
## From Mosquitto

A `mosquitto.conf` is not read; these are the keys that are used most, and what they are in [this broker's file](configuration.md).
";

const FOOT: &str = "
Rules of an `acl_file` of Mosquitto, and what they are in [acl.conf](access.md#rules-aclconf). A `topic` above the first `user` is there
for clients without a user name; no rule here is for those alone.

| Mosquitto | here |
|---|---|
| `topic read a/#` | `{allow, all, subscribe, [\"a/#\"]}.` |
| `topic write a/#` | `{allow, all, publish, [\"a/#\"]}.` |
| `topic readwrite a/#` | `{allow, all, pubsub, [\"a/#\"]}.` |
| `topic deny a/#` | `{deny, all, pubsub, [\"a/#\"]}.` above the others: here the first rule that fits decides |
| `user alice` and rules below | `{allow, {user, \"alice\"}, pubsub, [...]}.` |
| `pattern read a/%u/#` | `{allow, all, subscribe, [\"a/%u/#\"]}.` |
| nothing fits: refused | `acl_nomatch = \"deny\"` |
";
