//! What else users of EMQ X know and look for: rules, hooks, `$SYS`, pages of the dashboard, ways to find other nodes. It is for
//! `docs/migration.md`; tests compare it with the program.

use newtmq_node::Hook;

/// A part of it.
pub(super) struct Surface {
    /// For people.
    pub title: &'static str,
    /// What the first column has.
    pub what: &'static str,
    pub facts: &'static [Fact],
}

/// One thing, and whether it is here.
pub(super) struct Fact {
    pub what: &'static str,
    pub here: &'static str,
    pub why: &'static str,
}

const fn works(what: &'static str, why: &'static str) -> Fact {
    Fact { what, here: "works", why }
}

const fn differs(what: &'static str, why: &'static str) -> Fact {
    Fact { what, here: "differs", why }
}

const fn not_yet(what: &'static str, why: &'static str) -> Fact {
    Fact { what, here: "not yet", why }
}

pub(super) const SURFACES: &[Surface] = &[
    Surface { title: "How nodes find each other", what: "`cluster.discovery`", facts: DISCOVERY },
    Surface { title: "acl.conf", what: "form", facts: ACL },
    Surface { title: "$SYS", what: "topic", facts: SYS },
    Surface { title: "Pages of the dashboard", what: "page", facts: PAGES },
];

/// By the words of the key, but for the last.
const DISCOVERY: &[Fact] = &[
    works("manual", "`newtmq ctl cluster join NODE`"),
    works("static", "`cluster.static.seeds`"),
    works("mcast", "`cluster.mcast.*`"),
    works("dns", "A records, as in EMQ X, or SRV records with a port (`cluster.dns.type`)"),
    differs("etcd", "version 3 of its API, with a lease; EMQ X speaks version 2"),
    differs("k8s", "endpoints of a service, as in EMQ X; they are watched"),
    differs(
        "any of them",
        "it is never over: EMQ X stops looking when a node is in a cluster, and halves that were apart stay so",
    ),
];

/// What begins with `{` is read by the parser, and refused if it says so.
const ACL: &[Fact] = &[
    works("{allow, all}.", ""),
    works("{deny, all}.", ""),
    works("{allow, all, publish, [\"a\", \"b\"]}.", ""),
    works("{deny, all, subscribe, [\"a\"]}.", ""),
    works("{allow, all, pubsub, [\"a\"]}.", ""),
    works("{allow, {user, \"u\"}, pubsub, [\"a\"]}.", ""),
    works("{allow, {user, all}, pubsub, [\"a\"]}.", "whoever it is, as in EMQ X"),
    works("{allow, {client, \"c\"}, pubsub, [\"a\"]}.", ""),
    works("{allow, {client, all}, pubsub, [\"a\"]}.", ""),
    works("{allow, {ipaddr, \"192.0.2.1\"}, pubsub, [\"a\"]}.", "IPv6 as well"),
    works("{allow, {ipaddr, \"10.0.0.0/8\"}, pubsub, [\"a\"]}.", ""),
    works("{allow, {'and', [{user, \"u\"}, {client, \"c\"}]}, pubsub, [\"a\"]}.", ""),
    works("{allow, {'or', [{user, \"u\"}, {client, \"c\"}]}, pubsub, [\"a\"]}.", ""),
    differs(
        "{allow, all, pubsub, [\"+/b/#\"]}.",
        "in an `allow` rule a wildcard at the beginning is not for topics with `$`, and `+` not for the `#` of a subscription",
    ),
    works("{deny, all, subscribe, [{eq, \"#\"}]}.", "only the filter `#` itself"),
    differs(
        "{allow, all, pubsub, [\"user/%u/#\", \"client/%c\"]}.",
        "a name with a `/` gives no further levels, and `+` and `#` in it are no wildcards",
    ),
    differs("{allow, all, pubsub, [\"user-%u\"]}.", "an error: in EMQ X it would fit nothing"),
    works("{allow, all} {deny, all}", "the dot after a rule may be missing, as it is in some guides"),
    works("%% a comment", ""),
    works("the first rule that fits decides, then `acl_nomatch`", ""),
    differs("`acl reload`", "what connections remember is forgotten for all of them, not for the one that asks"),
];

/// `NODE` and `NAME` stand for levels; `ID` is a client.
const SYS: &[Fact] = &[
    works("$SYS/brokers", "the nodes that run, retained"),
    works("$SYS/brokers/NODE/version", "retained"),
    works("$SYS/brokers/NODE/sysdescr", "retained"),
    works("$SYS/brokers/NODE/uptime", "retained"),
    works("$SYS/brokers/NODE/datetime", "retained"),
    works("$SYS/brokers/NODE/stats/NAME/count", "and `max`; retained"),
    works("$SYS/brokers/NODE/metrics/NAME/NAME", "retained"),
    differs(
        "$SYS/brokers/NODE/clients/ID/connected",
        "JSON, as in EMQ X; `/`, `+` and `#` of an identifier are `_` in the topic",
    ),
    differs("$SYS/brokers/NODE/clients/ID/disconnected", "likewise"),
    works("$SYS/brokers/NODE/alarms/alert", "and `clear`; JSON"),
    differs("$SYS/brokers/NODE/store", "not in EMQ X: whether what is stored is safe"),
];

/// What works is a page with this title, or with the one that is named first.
const PAGES: &[Fact] = &[
    works("Overview", ""),
    works("Connections", ""),
    works("Sessions", ""),
    works("Topics", ""),
    works("Subscriptions", ""),
    not_yet("Rules", "the rule engine"),
    not_yet("Resources", "the rule engine"),
    differs("Plugins", "there is nothing to load, see `newtmq ctl plugins list`; their keys are in `Settings`"),
    works("Listeners", ""),
    differs("Websocket", "`Test client`"),
    differs("HTTP API", "the document for programs is `/api/openapi.json`; see [HTTP API](http-api.md)"),
    works("Applications", ""),
    differs(
        "Users",
        "the dashboard has the user `admin` alone; its password is in `Settings`. Clients' users are `Accounts`",
    ),
    works("Settings", "keys and values; the file changes them"),
    works("Log in", "the first password has to be changed before anything else"),
];

/// Whether a point is as in EMQ X, and what happens at it: parts of the broker are asked or told.
pub(super) fn hook(hook: Hook) -> (&'static str, &'static str) {
    match hook {
        Hook::ClientAuthenticate | Hook::ClientCheckAcl => ("works", "is asked"),
        Hook::ClientSubscribe | Hook::MessagePublish => {
            ("differs", "is asked, and may refuse; in EMQ X it may change what it is about, too")
        }
        Hook::MessageReceived => ("differs", "not in EMQ X: is told what was accepted from a publisher"),
        Hook::ClientConnected
        | Hook::ClientDisconnected
        | Hook::ClientUnsubscribe
        | Hook::SessionCreated
        | Hook::SessionResumed
        | Hook::SessionSubscribed
        | Hook::SessionUnsubscribed
        | Hook::SessionTerminated
        | Hook::MessageDeliver
        | Hook::MessageAcked
        | Hook::MessageDropped => ("works", "is told"),
    }
}

#[cfg(test)]
mod tests {
    use newtmq_access::Acl;

    use super::*;
    use crate::config::cluster::Discovery;

    #[test]
    fn every_way_to_find_nodes_is_told() {
        let told: Vec<&str> = DISCOVERY.iter().map(|fact| fact.what).filter(|what| !what.contains(' ')).collect();
        assert_eq!(told, Discovery::WORDS);
    }

    #[test]
    fn rules_are_read_or_refused_as_it_is_told() {
        for fact in ACL.iter().filter(|fact| fact.what.starts_with(['{', '%'])) {
            let is_refused = fact.why.starts_with("an error");
            assert_eq!(Acl::parse(fact.what).is_err(), is_refused, "{}: {:?}", fact.what, Acl::parse(fact.what));
        }
    }

    #[test]
    fn hooks_that_decide_are_said_to_be_asked() {
        for one in Hook::ALL {
            assert_eq!(hook(one).1.starts_with("is asked"), one.decides(), "{}", one.name());
        }
    }

    #[test]
    fn pages_that_work_are_there() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/dashboard/assets");
        let files = std::fs::read_dir(format!("{folder}/pages")).unwrap().map(|entry| entry.unwrap().path());
        let mut all = std::fs::read_to_string(format!("{folder}/login.js")).unwrap();
        files.for_each(|file| all += &std::fs::read_to_string(file).unwrap());
        for fact in PAGES {
            let title = match fact.here {
                "works" => fact.what,
                "differs" => {
                    fact.why.split('`').rfind(|word| word.starts_with(char::is_uppercase)).unwrap_or("Settings")
                }
                _ => continue,
            };
            let is_there =
                ["title = '", "title: '", "= page('"].iter().any(|before| all.contains(&format!("{before}{title}'")));
            assert!(is_there, "{}: {title}", fact.what);
        }
        assert!(!all.contains("title = 'Rules'") && !all.contains("title = 'Resources'"));
    }
}
