//! Keys whose meaning depends on other keys: logins of zones, lengths of queues, cipher suites, users, the address of the
//! node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::convert;
use super::lex::Entry;
use super::{Effect, Translation, User, table};
use crate::config::cluster::{CLUSTER_PORT, Secret};
use crate::config::problem::{Fault, Origin};
use crate::config::types::INTERNAL_NAME;
use crate::config::value;

/// Judges all of them but users.
pub(super) fn judge(to: &mut Translation<'_>) {
    let zones: BTreeSet<String> =
        to.scopes().iter().filter_map(|scope| scope.strip_prefix("zone.")).map(str::to_owned).collect();
    let of_given = |key: &String| key.strip_prefix("zone.")?.split('.').next().map(str::to_owned);
    let zones: BTreeSet<String> = to.given.keys().filter_map(of_given).chain(zones).collect();
    for zone in &zones {
        queue(to, zone);
        login(to, zone);
        flapping(to, zone);
    }
    let ciphers: Vec<Entry> = to.given.values().filter(|entry| is_ciphers(&entry.key)).cloned().collect();
    for entry in ciphers {
        let versions = to.given.get(&entry.key.replace(".ciphers", ".tls_versions"));
        let with_tls_1_3 = versions.is_none_or(|versions| versions.value.contains("tlsv1.3"));
        let row = table::find(&entry.key).expect("it is a key of the table");
        to.converted(row, &entry, convert::ciphers(&entry.value, with_tls_1_3));
    }
    address(to);
}

fn is_ciphers(key: &str) -> bool {
    let parts: Vec<&str> = key.split('.').collect();
    matches!(parts.as_slice(), ["listener", "ssl" | "wss", _, "ciphers"])
}

/// `max_inflight` and `max_mqueue_len` of a zone, of which either may be without limit in EMQ X.
fn queue(to: &mut Translation<'_>, zone: &str) {
    let keys = ["max_inflight", "max_mqueue_len"].map(|leaf| format!("zone.{zone}.{leaf}"));
    let given = keys.clone().map(|key| to.given.get(&key).cloned());
    // What EMQ X takes where nothing is said.
    let texts = [0, 1].map(|at| given[at].as_ref().map_or(["0", "1000"][at], |entry| &entry.value).to_owned());
    let absent = Origin::Absent(to.flat.name.clone());
    let origins = given.clone().map(|entry| entry.map_or(absent.clone(), |entry| entry.origin));
    let [Some(inflight), Some(queue)] = [0, 1].map(|at| value::count(&texts[at])) else {
        for at in [0, 1] {
            to.set(&keys[at], &texts[at], &origins[at]);
        }
        return;
    };
    let taken = fitted(inflight, queue);
    for at in [0, 1] {
        let text = taken[at].to_string();
        if let Some(entry) = given[at].as_ref().filter(|entry| entry.value != text) {
            let why = format!("it is {text}: a session has 65535 packet identifiers, for both together");
            to.flat.difference(entry, Effect::Differs, why);
        }
        to.set(&keys[at], &text, &origins[at]);
    }
}

/// Lengths that packet identifiers are enough for; 0 is no limit.
fn fitted(inflight: u64, queue: u64) -> [u64; 2] {
    let half = IDENTIFIERS / 2;
    match (inflight, queue) {
        (0, 0) => [half, half],
        (0, queue) => {
            let queue = queue.min(IDENTIFIERS - INFLIGHT_LEFT);
            [IDENTIFIERS - queue, queue]
        }
        (inflight, 0) => {
            let inflight = inflight.min(half);
            [inflight, IDENTIFIERS - inflight]
        }
        (inflight, queue) if inflight.saturating_add(queue) > IDENTIFIERS => {
            let inflight = inflight.min(half);
            [inflight, queue.min(IDENTIFIERS - inflight)]
        }
        both => [both.0, both.1],
    }
}

/// Who of a zone has to log in.
fn login(to: &mut Translation<'_>, zone: &str) {
    let key = |leaf: &str| format!("zone.{zone}.{leaf}");
    let target = key("enable_auth");
    if let Some(entry) = to.given.get(&key("bypass_auth_plugins")).cloned() {
        match value::flag(&entry.value) {
            Some(true) => return to.set(&target, "off", &entry.origin),
            Some(false) => {}
            None => return bad_flag(to, &entry),
        }
    }
    let Some(entry) = to.given.get(&key("allow_anonymous")).cloned() else { return };
    let of_node = to.given.get("allow_anonymous").and_then(|entry| value::flag(&entry.value)).unwrap_or(false);
    match (value::flag(&entry.value), of_node) {
        (Some(true), false) if zone != INTERNAL_NAME => {
            let why = "everybody gets in, and no password of this zone is looked at (enable_auth = off)";
            to.flat.difference(&entry, Effect::Differs, why.to_owned());
            to.set(&target, "off", &entry.origin);
        }
        (Some(true), _) => {}
        (Some(false), false) => to.set(&target, "on", &entry.origin),
        (Some(false), true) => {
            let why = "the same for every zone that has a login";
            let fault = Fault::NodeWide { key: entry.key, other: "allow_anonymous", why };
            to.flat.problem(entry.origin, fault);
        }
        (None, _) => bad_flag(to, &entry),
    }
}

/// In EMQ X two keys say that it is on and how often is too often.
fn flapping(to: &mut Translation<'_>, zone: &str) {
    let [on, limit] = ["enable_flapping_detect", "flapping_threshold"].map(|leaf| format!("zone.{zone}.{leaf}"));
    let Some(entry) = to.given.get(&on).cloned() else { return };
    match value::flag(&entry.value) {
        Some(true) => {
            let text = to.given.get(&limit).map_or("10, 1m", |entry| &entry.value).to_owned();
            let origin = to.given.get(&limit).map_or(&entry.origin, |entry| &entry.origin).clone();
            to.set(&limit, &text, &origin);
        }
        Some(false) => {}
        None => bad_flag(to, &entry),
    }
}

fn bad_flag(to: &mut Translation<'_>, entry: &Entry) {
    let (key, found) = (entry.key.clone(), format!("`{}`", entry.value));
    let fault = Fault::BadValue { key, found, expected: "true or false".to_owned(), suggestion: None };
    to.flat.problem(entry.origin.clone(), fault);
}

/// EMQ X accepts other nodes at the address in its name.
fn address(to: &mut Translation<'_>) {
    let Some(entry) = to.given.get("node.name").cloned() else { return };
    if to.given.contains_key("node.listen") {
        return;
    }
    let host = entry.value.split_once('@').map_or("", |(_, host)| host);
    if let Ok(ip) = host.trim_matches(['[', ']']).parse::<IpAddr>()
        && !ip.is_loopback()
        && !ip.is_unspecified()
    {
        let listen = std::net::SocketAddr::new(ip, CLUSTER_PORT).to_string();
        to.flat.difference(&entry, Effect::Differs, format!("other nodes are accepted at {listen} (node.listen)"));
        to.set("node.listen", &listen, &entry.origin);
    } else if !host.is_empty() && !["127.0.0.1", "localhost", "[::1]"].contains(&host) {
        let why = "other nodes reach this one only if `node.listen` and `node.advertise` say where";
        to.flat.difference(&entry, Effect::Differs, why.to_owned());
    }
}

/// Users that the file of a plugin names with their passwords.
pub(super) fn users(to: &mut Translation<'_>) -> Vec<User> {
    let mut by_number: BTreeMap<&str, [Option<&Entry>; 2]> = BTreeMap::new();
    for entry in to.given.values() {
        let Some((number, leaf)) = entry.key.strip_prefix("auth.user.").and_then(|rest| rest.split_once('.')) else {
            continue;
        };
        let Some(at) = ["username", "password"].iter().position(|known| *known == leaf) else { continue };
        by_number.entry(number).or_default()[at] = Some(entry);
    }
    let (mut users, mut problems) = (Vec::<User>::new(), Vec::new());
    for both in by_number.into_values() {
        match both {
            [Some(name), Some(password)] => {
                let fault = if users.len() == USERS_MAX {
                    Some("there are more than 200 users; write them into a `password_file`")
                } else if users.iter().any(|(known, _)| *known == name.value) {
                    Some("another number has this user")
                } else {
                    None
                };
                match fault {
                    Some(needs) => problems.push((name.origin.clone(), Fault::Needs { key: name.key.clone(), needs })),
                    None => users.push((name.value.clone(), Secret::new(&password.value))),
                }
            }
            [Some(half), None] | [None, Some(half)] => {
                let needs = "username and password of one number belong together";
                problems.push((half.origin.clone(), Fault::Needs { key: half.key.clone(), needs }));
            }
            [None, None] => {}
        }
    }
    for (origin, fault) in problems {
        to.flat.problem(origin, fault);
    }
    users
}

/// Packet identifiers are 1 to 65535, and a session needs one more than it has messages.
const IDENTIFIERS: u64 = 65_534;
/// A queue that is too long leaves so many.
const INFLIGHT_LEFT: u64 = 256;
/// Each takes some time and 19 MiB at the start.
const USERS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_fit_together() {
        for ((inflight, queue), want) in [
            ((32, 1000), [32, 1000]),
            ((0, 1000), [64_534, 1000]),
            ((0, 0), [32_767, 32_767]),
            ((0, 1_000_000), [256, 65_278]),
            ((32, 0), [32, 65_502]),
            ((32, 100_000), [32, 65_502]),
            ((65_535, 0), [32_767, 32_767]),
            ((65_535, 65_535), [32_767, 32_767]),
            ((u64::MAX, u64::MAX), [32_767, 32_767]),
        ] {
            let got = fitted(inflight, queue);
            assert_eq!(got, want);
            assert!(got[0] + got[1] < 65_535 && got[0] > 0 && got[1] > 0);
        }
    }
}
