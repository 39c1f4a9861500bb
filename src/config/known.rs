//! Finding a key by its written path, and saying something useful about a path that is no key: a near name, another
//! name, or that EMQ X has it and this version does not.

use super::emqx;
use super::listener::{Listener, Transport};
use super::listener_table::{self, LISTENER_SECTION};
use super::table::{self, Key};
use super::types::{Config, DEFAULT_NAME, Zone};
use super::value;

/// What a path leads to.
pub(super) enum Found<'a> {
    /// A key of a listener, with the listener's transport and name, and the key's number; 0 if it has none.
    Listener(Transport, &'a str, u16, &'static Key<Listener>),
    /// A key of a zone, with the zone's name.
    Zone(&'a str, &'static Key<Zone>),
    /// A key that exists once, with its number; 0 if it has none.
    Root(u16, &'static Key<Config>),
}

/// Finds the key of a path such as `zone.external.max_inflight`.
pub(super) fn find(path: &str) -> Option<Found<'_>> {
    let parts: Vec<&str> = path.split('.').collect();
    match parts[..] {
        [LISTENER_SECTION, transport, name] => listener(transport, name, &["bind"]),
        [LISTENER_SECTION, transport, name, ref leaf @ ..] => listener(transport, name, leaf),
        ["zone", name, leaf] => {
            let key = table::ZONE.iter().find(|key| key.name == leaf)?;
            Some(Found::Zone(value::name(name)?, key))
        }
        _ => root(path),
    }
}

fn root(path: &str) -> Option<Found<'static>> {
    if let Some(key) = table::once().find(|key| key.name == path) {
        return Some(Found::Root(0, key));
    }
    let (section, number) = path.rsplit_once('.')?;
    let number = numbered(number)?;
    table::once().find(|key| key.name.strip_suffix(".N") == Some(section)).map(|key| Found::Root(number, key))
}

/// The `N` of a numbered key.
fn numbered(text: &str) -> Option<u16> {
    value::count(text).and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0)
}

fn listener<'a>(transport: &str, name: &'a str, leaf: &[&str]) -> Option<Found<'a>> {
    let transport = transport_of(transport)?;
    // `access.3` is the key `access.N` with a number.
    let (number, leaf) = match *leaf {
        [first, number, ref rest @ ..] => {
            let number = numbered(number)?;
            (number, [&[first, "N"], rest].concat().join("."))
        }
        _ => (0, leaf.join(".")),
    };
    let key = listener_table::of(transport).find(|key| key.name == leaf)?;
    Some(Found::Listener(transport, value::name(name)?, number, key))
}

/// The transport of this name.
pub(super) fn transport_of(word: &str) -> Option<Transport> {
    Transport::WORDS.iter().position(|known| *known == word).map(|at| Transport::ALL[at])
}

/// The full path of a key: the short form of a listener's address is written out.
pub(super) fn canonical(path: &str) -> String {
    let parts: Vec<&str> = path.split('.').collect();
    match parts[..] {
        [LISTENER_SECTION, _, _] if find(path).is_some() => format!("{path}.bind"),
        _ => path.to_owned(),
    }
}

/// Whether keys lie below this path, so that it is a section and not a misspelt key.
pub(super) fn is_section(path: &str) -> bool {
    let parts: Vec<&str> = path.split('.').collect();
    match parts[..] {
        [LISTENER_SECTION] | ["zone"] => true,
        [LISTENER_SECTION, transport] => transport_of(transport).is_some(),
        [LISTENER_SECTION, transport, name] => transport_of(transport).is_some() && value::name(name).is_some(),
        [LISTENER_SECTION, _, _, "access" | "sni"] | [LISTENER_SECTION, _, _, "sni", _] => {
            listener_table::numbered(path).is_some()
        }
        ["zone", name] => value::name(name).is_some(),
        _ => table::once().any(|key| key.name.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'))),
    }
}

/// The key that somebody who wrote `path` most likely meant.
pub(super) fn suggest(path: &str) -> Option<String> {
    let candidates = candidates(path);
    if let Some(near) = nearest(path, candidates.iter().map(String::as_str)) {
        return Some(near.to_owned());
    }
    // The right name in the wrong section.
    let leaf = leaf_of(path);
    candidates.iter().find(|candidate| leaf_of(candidate) == leaf).cloned()
}

/// The candidate with the smallest edit distance, if it is small for its length.
pub(super) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::osa_distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 4).clamp(1, DISTANCE_MAX))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Every key, with the transports and names of listeners and zones as in `path` where it has them: first the transport
/// of `path`, so that of equally near keys its own are found.
fn candidates(path: &str) -> Vec<String> {
    let parts: Vec<&str> = path.split('.').collect();
    let name_at = |at: usize, lengths: std::ops::RangeInclusive<usize>| match parts.get(at) {
        Some(name) if lengths.contains(&parts.len()) && value::name(name).is_some() => name,
        _ => DEFAULT_NAME,
    };
    let (listener, zone) = (name_at(2, 4..=6), name_at(1, 3..=3));
    let mut transports = Transport::ALL.to_vec();
    let own = parts.get(1).and_then(|word| transport_of(word));
    transports.sort_by_key(|transport| Some(*transport) != own);
    let listener_key = |transport: Transport, key: &Key<Listener>| {
        format!("{LISTENER_SECTION}.{}.{listener}.{}", transport.word(), key.name.replace(".N", ".1"))
    };
    let listeners = transports
        .into_iter()
        .flat_map(|transport| listener_table::of(transport).map(move |key| listener_key(transport, key)));
    let zones = table::ZONE.iter().map(|key| format!("{}.{zone}.{}", table::ZONE_SECTION, key.name));
    listeners.chain(zones).chain(table::once().map(|key| key.name.replace(".N", ".1"))).collect()
}

fn leaf_of(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// The name here of a key that EMQ X has under another one.
pub(super) fn renamed(path: &str) -> Option<String> {
    let moved = match *path.split('.').collect::<Vec<_>>().as_slice() {
        ["retainer", leaf] => format!("retained.{leaf}"),
        // What EMQ X has for the node and for each zone is here for the node alone.
        ["zone", _, leaf] => format!("mqtt.{leaf}"),
        _ => return None,
    };
    find(&moved).is_some().then_some(moved)
}

/// Whether two values of a key that exists once are the same. An empty one is the default.
pub(super) fn is_same(name: &str, one: &str, other: &str) -> bool {
    let Some(Found::Root(_, key)) = find(name) else { return false };
    let with = |text: &str| {
        let mut config = Config::default();
        let text = if text.is_empty() { key.default } else { text };
        key.field.set(&mut config, 0, text).map(|()| config)
    };
    matches!((with(one), with(other)), (Some(one), Some(other)) if one == other)
}

/// Whether EMQ X has this key and this version does not.
pub(super) fn of_emqx(path: &str) -> bool {
    path == "loaded_plugins" || path.starts_with("listener.api.") || emqx::has_alone(path)
}

const DISTANCE_MAX: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_suggested_and_far_ones_are_not() {
        for (path, want) in [
            ("zone.external.max_infligth", Some("zone.external.max_inflight")),
            ("zone.internal.max_inflght", Some("zone.internal.max_inflight")),
            ("zones.external.max_inflight", Some("zone.external.max_inflight")),
            ("listener.tcp.lan.nodeley", Some("listener.tcp.lan.nodelay")),
            ("listener.tpc.lan.bind", Some("listener.tcp.lan.bind")),
            ("listener.tcp.lan.certfile", Some("listener.ssl.lan.certfile")),
            ("listener.ws.lan.mqtt_pat", Some("listener.ws.lan.mqtt_path")),
            ("listener.tcp.lan.acess.1", Some("listener.tcp.lan.access.1")),
            ("listener.wss.lan.sni.1.certfil", Some("listener.wss.lan.sni.1.certfile")),
            ("mqtt.max_packetsize", Some("mqtt.max_packet_size")),
            ("mqtt.max_inflight", Some("zone.external.max_inflight")),
            ("max_inflight", Some("zone.external.max_inflight")),
            ("alow_anonymous", Some("allow_anonymous")),
            ("log.lvl", Some("log.level")),
            ("mqtt.sn.predefind.topic.1", Some("mqtt.sn.predefined.topic.1")),
            ("listener.sn.external.nodelay", Some("listener.ssl.external.nodelay")),
            ("colour", None),
            ("mqtt.colour", None),
            ("", None),
        ] {
            assert_eq!(suggest(path).as_deref(), want, "{path}");
        }
    }

    #[test]
    fn keys_of_another_place() {
        for (path, want) in [
            ("retainer.max_payload_size", Some("retained.max_payload_size")),
            ("retainer.storage_type", None),
            ("zone.external.max_packet_size", Some("mqtt.max_packet_size")),
            ("zone.internal.ignore_loop_deliver", Some("mqtt.ignore_loop_deliver")),
            ("zone.external.strict_mode", None),
        ] {
            assert_eq!(renamed(path).as_deref(), want, "{path}");
        }
    }

    #[test]
    fn no_key_of_the_table_counts_as_unsupported() {
        for path in candidates("") {
            assert!(find(&path).is_some(), "{path}");
            assert!(!of_emqx(&path), "{path}");
            assert!(!is_section(&path), "{path}");
        }
    }
}
