//! Who is let in as a node, by a certificate or by the cookie, and that both sides say why somebody is not.

use serde_json::Value;

use crate::broker::{Broker, Scratch, wait_until};
use crate::cluster::{address, carries, ctl, join, members, node, node_with};

const REFUSED: &str = "\"message\":\"link refused\"";

/// The line in which a node tells that a link is refused for this reason.
fn refusal(broker: &Broker, why: &str) -> Value {
    let is = |line: &str| line.contains(REFUSED) && line.contains(why);
    serde_json::from_str(&broker.process.stderr.wait_for(why, is)).unwrap()
}

/// How often it tells that.
fn refusals(broker: &Broker, why: &str) -> usize {
    broker.process.stderr.text().lines().filter(|line| line.contains(REFUSED) && line.contains(why)).count()
}

/// Links with the certificate of one folder, to nodes that have one of the authority in another.
fn tls(scratch: &Scratch, certificate: &str, authority: &str) -> Vec<String> {
    let keys = [("certfile", certificate, "cert"), ("keyfile", certificate, "key"), ("cacertfile", authority, "ca")];
    let set = |(key, folder, file)| format!("cluster.tls.{key}={}", scratch.file(&format!("{folder}/{file}.pem")));
    keys.map(set).to_vec()
}

fn start(scratch: &Scratch, number: u32, sets: &[String]) -> Broker {
    node_with(scratch, number, &sets.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Whether a node is a member of any cluster.
fn is_member(scratch: &Scratch, number: u32) -> bool {
    let told: Value = serde_json::from_str(&ctl(scratch, number, &["status", "--json"]).0).unwrap();
    told["data"]["member"].as_bool().unwrap()
}

#[test]
fn nodes_with_certificates_of_one_authority_are_a_cluster_and_others_are_refused() {
    let scratch = Scratch::new("link-tls");
    scratch.certificates("own", &[]);
    scratch.certificates("others", &[]);
    let own = tls(&scratch, "own", "own");
    let nodes: Vec<Broker> = (1..=2).map(|number| start(&scratch, number, &own)).collect();
    let first = join(&scratch, &[1, 2]);
    carries(&nodes[1], &nodes[0], "by/tls");
    carries(&nodes[0], &nodes[1], "by/tls/back");
    for (sets, told_there, told_here) in [
        (tls(&scratch, "others", "others"), "invalid peer certificate", "received fatal alert"),
        // It trusts the nodes, and they do not trust it. They say so where they call it; datagrams have told them where
        // it is.
        (tls(&scratch, "others", "own"), "received fatal alert", "invalid peer certificate"),
        (Vec::new(), "what came is not of this protocol", "received corrupt message"),
    ] {
        let seeds = ["cluster.discovery=static".to_owned(), format!("cluster.static.seeds={first}")];
        let third = start(&scratch, 3, &[&sets[..], &seeds].concat());
        assert_eq!(refusal(&nodes[0], told_here)["level"], "WARN");
        assert_eq!(refusal(&third, told_there)["level"], "WARN");
        assert!(!is_member(&scratch, 3));
        assert_eq!(members(&scratch, 1).len(), 2);
        third.stays_well();
    }
    carries(&nodes[1], &nodes[0], "by/tls");
    nodes.iter().for_each(Broker::assert_log_is_clean);
}

#[test]
fn who_has_another_cookie_or_cluster_is_refused_and_both_sides_say_so_once() {
    let scratch = Scratch::new("refused");
    let one = node(&scratch, 1);
    wait_until("a cluster of one", || (!members(&scratch, 1).is_empty()).then_some(()));
    let first = address(&scratch, 1);
    for (number, set, why) in [
        (2, "node.cookie=an0ther", "the cookies differ"),
        (3, "cluster.name=another", "the other node belongs to another cluster"),
    ] {
        let other = node_with(&scratch, number, &[set]);
        for _ in 0..2 {
            let (told, code) = ctl(&scratch, number, &["join", &first]);
            assert_eq!((told, code), (format!("Failed to join the cluster: {why}"), Some(1)));
        }
        let (here, there) = (refusal(&one, why), refusal(&other, why));
        assert_eq!((&here["level"], &there["level"]), (&"WARN".into(), &"WARN".into()));
        assert_eq!((&here["reason"], &there["reason"]), (&why.into(), &why.into()));
        assert_eq!((&here["by"], &there["by"]), (&"this node".into(), &"the other node".into()));
        assert!(here["from"].as_str().unwrap().starts_with("127.0.0.1:"), "{here}");
        assert_eq!(there["address"], *first);
        assert_eq!((refusals(&one, why), refusals(&other, why)), (1, 1));
        assert_eq!((members(&scratch, 1).len(), members(&scratch, number).len()), (1, 1));
        assert!(!other.process.stderr.text().contains("an0ther"));
        other.stays_well();
    }
    assert!(!one.process.stderr.text().contains("s3cr3t"));
    one.stays_well();
}
