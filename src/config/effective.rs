//! What a broker runs with, key by key, for operators to look at. Secrets are never shown.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::table::Key;
use super::{Config, HIDDEN, is_live, is_secret, listener_table, table};

/// Every key with its value, and the default where nothing else is set. `values` are what is set, by key.
#[must_use]
pub fn effective(values: &BTreeMap<String, String>, config: &Config) -> Vec<Value> {
    let mut all = Vec::new();
    for key in table::once() {
        tell(&mut all, values, "", key);
    }
    for listener in &config.listeners {
        let prefix = format!("{}.", listener.path());
        for key in listener_table::of(listener.transport) {
            // A standard one has an address that no key sets.
            match key.name {
                "bind" if !values.contains_key(&format!("{prefix}bind")) => {
                    let name = format!("{prefix}bind");
                    all.push(shown(&name, &listener.bind.to_string(), false, key.doc));
                }
                _ => tell(&mut all, values, &prefix, key),
            }
        }
    }
    for name in config.zones.keys() {
        for key in table::ZONE {
            tell(&mut all, values, &format!("{}.{name}.", table::ZONE_SECTION), key);
        }
    }
    all
}

fn tell<T>(all: &mut Vec<Value>, values: &BTreeMap<String, String>, prefix: &str, key: &Key<T>) {
    let path = format!("{prefix}{}", key.name);
    let Some(stem) = path.strip_suffix('N').filter(|stem| stem.ends_with('.')) else {
        // What is in the middle, as in `sni.N.certfile`.
        if let Some((before, after)) = path.split_once(".N.") {
            let is_of = |name: &String| name.starts_with(&format!("{before}.")) && name.ends_with(&format!(".{after}"));
            all.extend(
                values.iter().filter(|(name, _)| is_of(name)).map(|(name, value)| shown(name, value, true, key.doc)),
            );
            return;
        }
        let value = values.get(&path);
        all.push(shown(&path, value.map_or(key.default, String::as_str), value.is_some(), key.doc));
        return;
    };
    let numbered = values.iter().filter(|(name, _)| name.starts_with(stem));
    all.extend(numbered.map(|(name, value)| shown(name, value, true, key.doc)));
}

fn shown(key: &str, value: &str, is_set: bool, about: &str) -> Value {
    let value = if is_secret(key) && value != "none" { HIDDEN } else { value };
    json!({ "key": key, "value": value, "set": is_set, "reloadable": is_live(key), "about": about })
}

#[cfg(test)]
mod tests {
    use super::super::{Sources, load_text};
    use super::*;

    #[test]
    fn values_are_those_that_hold_and_secrets_are_not_shown() {
        let text = "listener.tcp.a.bind = 1\nlistener.tcp.a.access.1 = \"allow all\"\napi.app_id = \"a\"\n\
                    api.app_secret = \"hush\"\nnode.cookie = \"hush\"\ndashboard.default_user.password = \"hush\"\n\
                    zone.external.max_inflight = 7";
        let loaded = load_text("a.toml", text, &Sources::default()).unwrap();
        let all = effective(&loaded.values(), &loaded.config);
        assert!(!Value::from(all.clone()).to_string().contains("hush"));
        let of = |key: &str| all.iter().find(|of| of["key"] == key).unwrap_or_else(|| panic!("no {key}")).clone();
        for (key, value, is_set, live) in [
            ("zone.external.max_inflight", "7", true, false),
            ("mqtt.max_packet_size", "2MB", false, false),
            ("listener.tcp.a.access.1", "allow all", true, true),
            ("log.level", "info", false, true),
            ("dashboard.session_timeout", "1h", false, false),
            ("node.cookie", HIDDEN, true, false),
        ] {
            let told = of(key);
            assert_eq!((&told["value"], &told["set"]), (&json!(value), &json!(is_set)), "{key}");
            assert_eq!(told["reloadable"], live, "{key}");
        }
        let keys: std::collections::BTreeSet<_> = all.iter().map(|of| of["key"].as_str().unwrap()).collect();
        assert_eq!(keys.len(), all.len(), "each once");
    }
}
