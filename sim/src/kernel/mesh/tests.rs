//! Two or three machines and what goes between them.

use super::*;
use crate::scenario::NodeNetSpec;

struct Net {
    mesh: Mesh,
    queue: Queue,
    log: Vec<String>,
}

impl Net {
    fn new(nodes: NodeNetSpec) -> Net {
        let net = NetSpec { nodes, ..NetSpec::default() };
        let mut mesh = Mesh::new(9, &net, 3);
        (0..3).for_each(|node| {
            mesh.started(node);
        });
        Net { mesh, queue: Queue::default(), log: Vec::new() }
    }

    /// Lets time pass; what nodes have heard is in the log.
    fn pass(&mut self, ms: u64) -> Vec<String> {
        self.queue.push(self.queue.now() + Duration::from_millis(ms), Happening::Nothing);
        loop {
            #[allow(clippy::wildcard_enum_match_arm)]
            match self.queue.pop().expect("the end is in it") {
                Happening::Nothing => return core::mem::take(&mut self.log),
                Happening::Wire { wire, end } => {
                    let (at, end) = (wire, usize::from(end));
                    if !self.mesh.fired(self.queue.now(), at, end) {
                        continue;
                    }
                    let node = self.mesh.node_of(at, end).unwrap();
                    let mut bytes = Vec::new();
                    while let Some(heard) = self.mesh.hear(&mut self.queue, at, end, &mut bytes) {
                        self.log.push(match heard {
                            Heard::Bytes => format!("{node}: {} bytes", bytes.len()),
                            heard => format!("{node}: {heard:?}"),
                        });
                    }
                }
                Happening::WirePump { wire, end } => {
                    let (at, end) = (wire, usize::from(end));
                    if let Some((_, buffer, room)) = self.mesh.writer(at, end) {
                        let len = room.min(1_000);
                        buffer.extend(vec![7; len]);
                        if self.mesh.wrote(&mut self.queue, at, end, len, true) {
                            self.log.push(format!("{at} is closed"));
                        }
                    }
                }
                Happening::DialTimeout(wire) => {
                    if let Some((node, dial)) = self.mesh.give_up(wire) {
                        self.log.push(format!("{node}: no answer to {}", dial.0));
                    }
                }
                Happening::Packet(place) => {
                    if let Some((node, from, bytes)) = self.mesh.take_packet(place) {
                        self.log.push(format!("{node}: {} from {}", bytes[0], from.ip()));
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn dial(&mut self, from: u16, to: u16, dial: u32) {
        let address = Address(self.mesh.address(to).to_string());
        self.mesh.dial(&mut self.queue, from, DialId(dial), &address, Duration::from_secs(3));
    }

    /// Node 0 has dialed node 1.
    fn connected() -> Net {
        let mut net = Net::new(calm());
        net.dial(0, 1, 5);
        assert_eq!(net.pass(100), ["1: Opened(None)", "0: Opened(Some(DialId(5)))"]);
        net
    }

    /// An end writes a thousand bytes.
    fn write(&mut self, end: usize) {
        self.mesh.wants(&mut self.queue, name_of(0, end), false);
    }
}

fn calm() -> NodeNetSpec {
    NodeNetSpec { tail_us: 0, ..NodeNetSpec::default() }
}

#[test]
fn bytes_go_both_ways_until_one_side_closes() {
    let mut net = Net::connected();
    net.write(DIALER);
    net.write(ACCEPTOR);
    let mut log = net.pass(100);
    log.sort_unstable();
    assert_eq!(log, ["0: 1000 bytes", "1: 1000 bytes"]);
    net.mesh.wants(&mut net.queue, name_of(0, ACCEPTOR), true);
    assert_eq!(net.pass(100), ["0 is closed", "0: 1000 bytes", "0: Closed"]);
    assert!(net.mesh.wires.is_empty());
}

#[test]
fn nobody_answers_where_there_is_nobody_and_a_machine_without_a_node_refuses() {
    let mut net = Net::new(calm());
    net.mesh.stopped(&mut net.queue, 1, Some(true));
    net.mesh.stopped(&mut net.queue, 2, Some(false));
    net.dial(0, 1, 5);
    net.dial(0, 2, 6);
    net.mesh.dial(&mut net.queue, 0, DialId(7), &Address("10.9.9.9:4370".into()), Duration::from_secs(3));
    assert_eq!(net.pass(1_000), ["0: Failed(DialId(6))"]);
    assert_eq!(net.pass(5_000), ["0: no answer to 5", "0: no answer to 7"]);
    assert!(net.mesh.wires.is_empty());
}

#[test]
fn a_cut_is_one_way_and_what_was_sent_waits() {
    let mut net = Net::connected();
    assert!(net.mesh.set_cut(&mut net.queue, 0, 1, true));
    assert!(!net.mesh.set_cut(&mut net.queue, 0, 1, true), "it was so");
    assert!(!net.mesh.set_cut(&mut net.queue, 0, 9, true) && !net.mesh.set_cut(&mut net.queue, 1, 1, true));
    net.write(DIALER);
    net.write(ACCEPTOR);
    net.dial(0, 1, 6);
    net.dial(1, 0, 7);
    let mut log = net.pass(1_000);
    log.sort_unstable();
    assert_eq!(log, ["0: 1000 bytes", "0: Opened(None)"], "the answer to 7 is cut, too");
    let mut log = net.pass(9_000);
    log.sort_unstable();
    assert_eq!(log, ["0: no answer to 6", "1: no answer to 7"]);
    assert!(net.mesh.set_cut(&mut net.queue, 0, 1, false));
    // Nobody waits for the late answer any more.
    let mut log = net.pass(1_000);
    log.sort_unstable();
    assert_eq!(log, ["0: Closed", "1: 1000 bytes"]);
}

#[test]
fn who_has_crashed_with_the_power_says_nothing_until_it_is_there_again() {
    let mut net = Net::connected();
    net.mesh.stopped(&mut net.queue, 1, Some(true));
    net.write(DIALER);
    assert!(net.pass(60_000).is_empty());
    net.mesh.started(1);
    assert!(net.pass(60_000).is_empty(), "nothing has come for it since");
    net.write(DIALER);
    assert_eq!(net.pass(1_000), ["0: Closed"]);
    assert!(net.mesh.wires.is_empty());
}

#[test]
fn who_stops_in_order_tells_everybody() {
    let mut net = Net::connected();
    net.mesh.stopped(&mut net.queue, 1, None);
    assert_eq!(net.pass(1_000), ["0: Closed"]);
    net.dial(0, 1, 6);
    assert_eq!(net.pass(1_000), ["0: Failed(DialId(6))"]);
}

#[test]
fn who_has_moved_is_not_where_it_was() {
    let mut net = Net::connected();
    let old = net.mesh.address(1);
    net.mesh.moves(1);
    assert_eq!(net.mesh.address(1), old, "not before its next start");
    net.mesh.stopped(&mut net.queue, 1, Some(true));
    assert!(net.mesh.started(1) && net.mesh.address(1) != old);
    net.write(DIALER);
    net.mesh.dial(&mut net.queue, 0, DialId(6), &Address(old.to_string()), Duration::from_secs(3));
    net.mesh.send_packet(&mut net.queue, 0, old, vec![1]);
    assert_eq!(net.pass(5_000), ["0: no answer to 6"]);
    net.dial(0, 1, 7);
    assert_eq!(net.pass(1_000), ["1: Opened(None)", "0: Opened(Some(DialId(7)))"]);
}

#[test]
fn a_socket_is_full_when_the_other_side_hears_nothing() {
    let mut net = Net::new(NodeNetSpec { socket_bytes: 1_500, ..calm() });
    net.dial(0, 1, 5);
    net.pass(100);
    net.mesh.set_cut(&mut net.queue, 0, 1, true);
    for _ in 0..4 {
        net.write(DIALER);
        net.pass(10);
    }
    assert_eq!(net.mesh.wires[&0].pipes[ACCEPTOR].len(), 1_500);
    net.mesh.set_cut(&mut net.queue, 0, 1, false);
    let total: usize =
        net.pass(5_000).iter().map(|line| line[3..].trim_end_matches(" bytes").parse::<usize>().unwrap()).sum();
    assert_eq!(total, 2_500, "it went on when there was room");
}

#[test]
fn datagrams_are_lost_come_twice_and_overtake_each_other() {
    let mut net = Net::new(NodeNetSpec { loss_ppm: 300_000, dup_ppm: 200_000, ..NodeNetSpec::default() });
    let to = net.mesh.address(1);
    for number in 0..200 {
        net.mesh.send_packet(&mut net.queue, 0, to, vec![number]);
    }
    let came: Vec<u32> =
        net.pass(5_000).iter().map(|line| line[3..].split(' ').next().unwrap().parse().unwrap()).collect();
    let mut unique = came.clone();
    unique.sort_unstable();
    unique.dedup();
    assert!((100..180).contains(&unique.len()) && came.len() > unique.len() + 10, "{came:?}");
    assert!(!came.is_sorted());
    net.mesh.set_cut(&mut net.queue, 0, 1, true);
    net.mesh.send_packet(&mut net.queue, 0, to, vec![1]);
    net.mesh.send_packet(&mut net.queue, 1, net.mesh.address(0), vec![2]);
    assert!(net.pass(5_000).iter().all(|line| line == "0: 2 from 10.0.0.2"));
}

#[test]
fn a_slow_link_is_slow_one_way() {
    let mut net = Net::connected();
    assert!(net.mesh.set_slow(&mut net.queue, 0, 1, 500_000, 1_000));
    net.write(DIALER);
    net.write(ACCEPTOR);
    assert_eq!(net.pass(1_400), ["0: 1000 bytes"]);
    assert_eq!(net.pass(200), ["1: 1000 bytes"]);
    net.write(DIALER);
    net.pass(0);
    assert!(net.mesh.set_slow(&mut net.queue, 0, 1, 0, 0));
    assert_eq!(net.pass(10), ["1: 1000 bytes"]);
}
