//! Plugins of EMQ X: which of them are loaded, what each is here, and the files in `etc/plugins`.

use std::path::Path;

use super::lex::Entry;
use super::{Difference, Effect, Flat, read_text};
use crate::config::problem::{Fault, Origin};

/// What a plugin of EMQ X is here.
pub(super) struct Plugin {
    pub(super) name: &'static str,
    pub(super) is: Is,
    /// What is different, or what is missing.
    pub(super) why: &'static str,
}

/// Whether a plugin is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Is {
    /// It is a part of the broker, and its file is read.
    BuiltIn,
    /// Nothing is missed without it.
    Needless,
    /// It is not in this version.
    Missing,
    /// It is not in this version, and without it everybody could connect: an error.
    Guard,
}

/// Every plugin of EMQ X 3.1, and the most of 4.
pub(super) const PLUGINS: &[Plugin] = &[
    plugin("emqx_retainer", Is::BuiltIn, "retained messages"),
    plugin("emqx_auth_username", Is::BuiltIn, "users with their passwords"),
    plugin(
        "emqx_auth_mnesia",
        Is::BuiltIn,
        "users and Client Identifiers with their passwords, with `user_table = on`",
    ),
    plugin("emqx_sn", Is::BuiltIn, "the MQTT-SN gateway"),
    plugin("emqx_recon", Is::Needless, "it looks into the Erlang virtual machine"),
    plugin("emqx_reloader", Is::Needless, "it loads Erlang code again"),
    plugin("emqx_telemetry", Is::Needless, "nothing is sent home"),
    plugin("emqx_plugin_template", Is::Needless, "it is an example"),
    plugin("emqx_management", Is::BuiltIn, "the HTTP API; see [HTTP API](http-api.md)"),
    plugin("emqx_dashboard", Is::BuiltIn, "the dashboard; see [Dashboard](dashboard.md)"),
    plugin("emqx_rule_engine", Is::Missing, "rules"),
    plugin("emqx_bridge_mqtt", Is::Missing, "bridges to other brokers"),
    plugin("emqx_delayed_publish", Is::Missing, "`$delayed/SECONDS/TOPIC`"),
    plugin("emqx_coap", Is::Missing, "the CoAP gateway"),
    plugin("emqx_lwm2m", Is::Missing, "the LwM2M gateway"),
    plugin("emqx_stomp", Is::Missing, "the STOMP gateway"),
    plugin("emqx_exproto", Is::Missing, "gateways of other protocols"),
    plugin("emqx_web_hook", Is::Missing, "web hooks"),
    plugin("emqx_exhook", Is::Missing, "hooks in other processes"),
    plugin("emqx_lua_hook", Is::Missing, "hooks in Lua"),
    plugin("emqx_psk_file", Is::Missing, "TLS with pre-shared keys"),
    plugin("emqx_statsd", Is::Missing, "metrics for StatsD"),
    plugin("emqx_prometheus", Is::BuiltIn, "metrics for Prometheus, at `/metrics` of the HTTP API"),
    plugin("emqx_auth_clientid", Is::BuiltIn, "passwords of Client Identifiers; the table is on (`user_table`)"),
    plugin("emqx_auth_http", Is::BuiltIn, "logins and rules by HTTP"),
    plugin("emqx_auth_jwt", Is::BuiltIn, "logins with JSON Web Tokens"),
    plugin("emqx_auth_ldap", Is::Guard, "logins by LDAP"),
    plugin("emqx_auth_mongo", Is::Guard, "logins and rules in MongoDB"),
    plugin("emqx_auth_mysql", Is::Guard, "logins and rules in MySQL"),
    plugin("emqx_auth_pgsql", Is::Guard, "logins and rules in PostgreSQL"),
    plugin("emqx_auth_redis", Is::Guard, "logins and rules in Redis"),
    plugin("emqx_sasl", Is::Guard, "SCRAM of this plugin; the broker has its own, see [Access](access.md#scram)"),
];

const fn plugin(name: &'static str, is: Is, why: &'static str) -> Plugin {
    Plugin { name, is, why }
}

/// Those whose clients are in a table.
const TABLES: [&str; 2] = ["emqx_auth_clientid", "emqx_auth_mnesia"];

/// Those that EMQ X loads where nothing says which.
pub(super) const STANDARD: &[&str] =
    &["emqx_management", "emqx_recon", "emqx_retainer", "emqx_dashboard", "emqx_rule_engine"];

/// Reads the files of the plugins that are loaded, and tells what is missing.
pub(super) fn read(flat: &mut Flat) {
    let folder = flat.path(given(flat, "plugins.etc_dir").unwrap_or("etc/plugins"));
    let file = flat.path(given(flat, "plugins.loaded_file").unwrap_or("data/loaded_plugins"));
    let (names, origin) = match (&flat.loaded, read_text(Path::new(&file))) {
        (Some((text, origin)), _) => (names(text), origin.clone()),
        (None, Ok(text)) => (names(&text), Origin::File(file)),
        (None, Err(_)) => (STANDARD.iter().map(|name| (*name).to_owned()).collect(), Origin::Absent(flat.name.clone())),
    };
    for name in names {
        let known = PLUGINS.iter().find(|plugin| plugin.name == name);
        match known.map_or(if name.contains("auth") { Is::Guard } else { Is::Missing }, |plugin| plugin.is) {
            // Who is let in is in its table, and not in its file.
            Is::BuiltIn if TABLES.contains(&name.as_str()) && given(flat, "user_table").is_none() => {
                let (key, value) = ("user_table".to_owned(), "on".to_owned());
                flat.entry(Entry { key, value, origin: origin.clone() });
            }
            Is::BuiltIn => {}
            Is::Needless => continue,
            Is::Missing => {
                let why = known.map_or("a plugin that is not one of EMQ X", |plugin| plugin.why).to_owned();
                // What is loaded without being asked for is told with its file, if there is one.
                if !matches!(origin, Origin::Absent(_)) {
                    let (key, value) = (name.clone(), String::new());
                    let origin = origin.clone();
                    flat.differences.push(Difference { key, value, origin, kind: Effect::NotYet, why });
                }
            }
            Is::Guard => {
                flat.problem(origin.clone(), Fault::Plugin { name });
                continue;
            }
        }
        file_of(flat, &Path::new(&folder).join(format!("{name}.conf")));
    }
}

/// The file of a plugin, which need not be there.
fn file_of(flat: &mut Flat, path: &Path) {
    let name = path.display().to_string();
    match read_text(path) {
        Ok(text) => flat.text(&name, &text, 0),
        Err(_) if !path.exists() => {}
        Err(fault) => flat.problem(Origin::File(name), fault),
    }
}

fn given<'a>(flat: &'a Flat, key: &str) -> Option<&'a str> {
    flat.entries.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str())
}

/// `emqx_retainer.` lines of EMQ X 3, `{emqx_retainer, true}.` lines of EMQ X 4, or a list with commas.
fn names(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('%') && !line.contains("false")) {
        let word = |text: &str| text.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned();
        let words = line.split(',').map(word).filter(|word| !word.is_empty() && word != "true");
        names.extend(words);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_plugins_are_loaded() {
        let want = ["emqx_management", "emqx_retainer"];
        for text in [
            "emqx_management.\nemqx_retainer.\n",
            "{emqx_management, true}.\n{emqx_dashboard,false}.\n{emqx_retainer, true}.",
            "emqx_management,emqx_retainer",
            "%% a comment\nemqx_management, emqx_retainer.",
        ] {
            assert_eq!(names(text), want, "{text}");
        }
        assert!(names("").is_empty());
    }
}
