//! Nodes, each its own process, that find each other by multicast, over loopback.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

use crate::broker::{Broker, Scratch};
use crate::cluster::{carries, wait_until_open};
use crate::discovery::{discovery, node, wait_until_found};

/// A group and a port that mostly no other process has.
fn group() -> (Ipv4Addr, u16) {
    let [.., high, low] = std::process::id().to_be_bytes();
    let free = UdpSocket::bind("127.0.0.1:0").unwrap();
    (Ipv4Addr::new(239, 195, high, low), free.local_addr().unwrap().port())
}

/// Whether what is sent to a group over loopback comes back here.
fn try_out(group: Ipv4Addr, port: u16) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    socket.join_multicast_v4(&group, &Ipv4Addr::LOCALHOST)?;
    socket.set_multicast_if_v4(&Ipv4Addr::LOCALHOST)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let socket = UdpSocket::from(socket);
    socket.send_to(b"trial", (group, port))?;
    socket.recv_from(&mut [0; 16]).map(drop)
}

#[test]
fn nodes_find_each_other_by_multicast_and_hear_nobody_without_the_cookie() {
    let (group, port) = group();
    if let Err(error) = try_out(group, port) {
        return eprintln!("not tested: no multicast over loopback here: {error}");
    }
    let scratch = Scratch::new("mcast");
    let sets = [
        "cluster.discovery=mcast".to_owned(),
        format!("cluster.mcast.addr={group}"),
        format!("cluster.mcast.ports={port}"),
        "cluster.mcast.iface=127.0.0.1".to_owned(),
        // Not beyond this machine.
        "cluster.mcast.ttl=0".to_owned(),
    ];
    let (stranger, _) = node(&scratch, 4, &[&sets[..], &["node.cookie=an0ther".to_owned()]].concat());
    // It has announced itself, and does so again each second.
    stranger.process.stderr.wait_for("a beginning", |line| line.contains("may_found"));
    let (nodes, addresses): (Vec<Broker>, Vec<SocketAddr>) =
        (1..=3).map(|number| node(&scratch, number, &sets)).unzip();
    wait_until_open(&scratch, 1);
    carries(&nodes[1], &nodes[0], "by/multicast");
    wait_until_found(&scratch, 1, &addresses[1..]);
    wait_until_found(&scratch, 3, &addresses[..2]);
    assert_eq!(discovery(&scratch, 1)["may_found"], true);
    assert_eq!(discovery(&scratch, 4)["addresses"], json!([]));
    for node in nodes.iter().chain([&stranger]) {
        node.assert_log_is_clean();
    }
}
