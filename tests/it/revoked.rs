//! Users who are deleted and bans that are made while a node cannot hear of it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use newtmq::demo::relay::Relays;
use newtmq_mqtt::ReasonCode;
use rustix::process::Signal;

use crate::broker::{Broker, Scratch, wait_until};
use crate::client::Client;
use crate::cluster::{ALL, node_with, wait_for_status, wait_until_among};
use crate::records::{TABLE, ctl, login, reason, sent_away};

const PASSWORD: &str = "s3cr3t-1";
/// How long after a node is among the others again it goes by what they have.
const SOON: Duration = Duration::from_secs(2);

/// Three nodes with ways between them that can be cut.
struct Apart<'a> {
    scratch: &'a Scratch,
    relays: Relays,
    listen: Vec<SocketAddr>,
}

/// Where a node can listen again after a restart. If it may, at an address where no other process gets ports.
fn own_place(number: u8) -> SocketAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    let own = TcpListener::bind((Ipv4Addr::new(127, high, low, number), 0));
    own.or_else(|_| TcpListener::bind("127.0.0.1:0")).unwrap().local_addr().unwrap()
}

impl Apart<'_> {
    fn new(scratch: &Scratch) -> Apart<'_> {
        let listen: Vec<SocketAddr> = (1..=3).map(own_place).collect();
        let names = (1..=3).map(|number| format!("n{number}@test"));
        let relays = Relays::new(&names.zip(listen.iter().copied()).collect::<Vec<_>>()).unwrap();
        Apart { scratch, relays, listen }
    }

    fn start(&self, number: u32) -> Broker {
        let at = number as usize - 1;
        let seeds: Vec<String> = (0..3).map(|node| self.relays.address(node).to_string()).collect();
        let sets = [
            format!("node.listen={}", self.listen[at]),
            format!("node.advertise={}", self.relays.address(at)),
            "cluster.discovery=static".to_owned(),
            format!("cluster.static.seeds={}", seeds.join(",")),
        ];
        let sets: Vec<&str> = sets.iter().map(String::as_str).chain(TABLE).collect();
        node_with(self.scratch, number, &sets)
    }

    /// Cuts the third node off from both others, or heals that.
    fn set_cut(&self, cut: bool) {
        for other in 0..2 {
            self.relays.set_cut(other, 2, cut);
            self.relays.set_cut(2, other, cut);
        }
    }

    /// Does something at a node, once there is a leader that confirms it.
    fn confirmed(&self, number: u32, words: &[&str]) {
        wait_until("a leader", || (ctl(self.scratch, number, words, "") == "ok\n").then_some(()));
    }
}

fn let_in(broker: &Broker, user: &str) -> Client {
    wait_until("a client that is let in", || {
        let (client, reason) = login(broker, user, Some(user), PASSWORD);
        (reason == ReasonCode::Success).then_some(client)
    })
}

/// Waits until a user gets this answer, which is soon after the node has come back.
fn answers_soon(broker: &Broker, back: Instant, user: &str, wanted: ReasonCode) {
    wait_until("another answer", || (reason(broker, "again", Some(user), PASSWORD) == wanted).then_some(()));
    assert!(back.elapsed() < SOON, "{user}: {:?}", back.elapsed());
}

#[test]
fn what_was_revoked_while_a_node_was_away_holds_there_soon_after_it_is_back() {
    let scratch = Scratch::new("revoked");
    let apart = Apart::new(&scratch);
    let mut nodes: Vec<Broker> = (1..=3).map(|number| apart.start(number)).collect();
    wait_until_among(&scratch, &[1, 2, 3]);
    for user in ["alice", "bob", "carol"] {
        apart.confirmed(1, &["users", "add", user, PASSWORD]);
    }
    let [mut alice, mut bob] = ["alice", "bob"].map(|user| let_in(&nodes[2], user));

    apart.set_cut(true);
    wait_for_status(&scratch, 3, "{running_nodes,['n3@test']},{stopped_nodes,['n1@test','n2@test']}");
    wait_for_status(&scratch, 1, "{running_nodes,['n1@test','n2@test']},{stopped_nodes,['n3@test']}");
    apart.confirmed(1, &["users", "del", "alice"]);
    apart.confirmed(2, &["banned", "add", "username", "bob", "1h", "meanwhile"]);
    // It goes by what it had.
    alice.ping();
    assert_eq!(reason(&nodes[2], "meanwhile", Some("alice"), PASSWORD), ReasonCode::Success);
    apart.set_cut(false);
    wait_for_status(&scratch, 3, ALL);
    let back = Instant::now();
    for client in [&mut alice, &mut bob] {
        assert_eq!(sent_away(client), ReasonCode::AdministrativeAction);
    }
    answers_soon(&nodes[2], back, "alice", ReasonCode::BadUserNameOrPassword);
    answers_soon(&nodes[2], back, "bob", ReasonCode::Banned);
    drop(let_in(&nodes[2], "carol"));

    nodes[2].process.signal(Signal::KILL);
    nodes[2].process.wait();
    wait_for_status(&scratch, 1, "{running_nodes,['n1@test','n2@test']},{stopped_nodes,['n3@test']}");
    apart.confirmed(2, &["users", "del", "carol"]);
    nodes[2] = apart.start(3);
    wait_for_status(&scratch, 3, ALL);
    let back = Instant::now();
    answers_soon(&nodes[2], back, "carol", ReasonCode::BadUserNameOrPassword);
    answers_soon(&nodes[2], back, "bob", ReasonCode::Banned);
    nodes.iter().for_each(Broker::assert_log_is_clean);
}
