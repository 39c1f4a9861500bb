//! Discovery by multicast: each node announces itself to a group and listens there. Announcements are authenticated with a
//! key made from the cookie; one that is repeated by somebody else only tells an address once more.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use newtmq_base::{NodeId, Put, Take};
use sha2::Sha256;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::discovery::{AGAIN, Found, Seeker, Told};
use crate::config::Mcast;

/// What a node announces.
#[derive(Debug, Clone)]
pub struct Announced {
    /// Secret of the cluster.
    pub key: Vec<u8>,
    /// Its name.
    pub cluster: String,
    /// The node.
    pub node: NodeId,
}

impl Seeker {
    /// Announces this node, and tells who else does, until the driver is gone.
    pub async fn of_mcast(self, mcast: Mcast, announced: Announced) {
        let mut told = self.told();
        loop {
            match open(&mcast) {
                Ok(socket) => self.listen(&socket, &mcast, &announced, &mut told).await,
                Err(error) => told.fails(GROUP, &error.to_string()),
            }
            if self.events.is_closed() {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Until the driver is gone, or the socket fails.
    async fn listen(&self, socket: &UdpSocket, mcast: &Mcast, announced: &Announced, told: &mut Told) {
        let own = announced.seal(self.address);
        let mut heard = Heard::default();
        let began = Instant::now();
        let mut next = began;
        let mut buffer = [0; 1500];
        loop {
            if Instant::now() >= next {
                match announce(socket, mcast, &own).await {
                    Ok(()) => told.works(GROUP),
                    Err(error) => told.fails(GROUP, &error.to_string()),
                }
                next = Instant::now() + if began.elapsed() < LISTEN_FIRST { EAGER } else { AGAIN };
                // Others that start at this moment are to be heard before anything is founded.
                let addresses = heard.addresses(Instant::now());
                let enough = addresses.len() + 1 >= self.expected_size;
                let found = Found { here: enough && began.elapsed() >= LISTEN_FIRST, addresses };
                if !self.tell(told, found).await {
                    return;
                }
            }
            let Ok(received) = tokio::time::timeout_at(next, socket.recv_from(&mut buffer)).await else { continue };
            let count = match received {
                Ok((count, _)) => count,
                Err(error) => return told.fails(GROUP, &error.to_string()),
            };
            let Some((node, address)) = announced.open(&buffer[..count]) else { continue };
            if node != announced.node {
                heard.hear(node, address, Instant::now());
            }
        }
    }
}

/// Whom this node has heard: where it is, and when that was.
#[derive(Debug, Default)]
struct Heard(BTreeMap<NodeId, (SocketAddr, Instant)>);

impl Heard {
    fn hear(&mut self, node: NodeId, address: SocketAddr, now: Instant) {
        if self.0.len() < HEARD_MAX || self.0.contains_key(&node) {
            self.0.insert(node, (address, now));
        }
    }

    /// Who is silent for long is forgotten: it would count for `expected_size`, and stand in the way of others.
    fn addresses(&mut self, now: Instant) -> BTreeSet<SocketAddr> {
        self.0.retain(|_, (_, heard)| now.duration_since(*heard) < SILENT_MAX);
        self.0.values().map(|(address, _)| *address).collect()
    }
}

/// Tells all ports of the group; the last error, if there is one.
async fn announce(socket: &UdpSocket, mcast: &Mcast, own: &[u8]) -> io::Result<()> {
    let mut told = Ok(());
    for port in &mcast.ports {
        let sent = socket.send_to(own, SocketAddrV4::new(mcast.addr, *port)).await;
        told = sent.map(drop).and(told);
    }
    told
}

impl Announced {
    fn seal(&self, address: SocketAddr) -> Vec<u8> {
        let mut body = Vec::new();
        Put(&mut body).text(&self.cluster).number(self.node.0).text(&address.to_string());
        let mut bytes = self.mac(&body).finalize().into_bytes().to_vec();
        bytes.extend_from_slice(&body);
        bytes
    }

    fn open(&self, bytes: &[u8]) -> Option<(NodeId, SocketAddr)> {
        let (tag, body) = bytes.split_at_checked(TAG_BYTES)?;
        self.mac(body).verify_slice(tag).ok()?;
        let mut take = Take(body);
        let cluster = take.text().ok()?.to_owned();
        let node = NodeId(take.number().ok()?);
        let address = take.text().ok()?.parse().ok()?;
        (cluster == self.cluster).then_some((node, address))
    }

    fn mac(&self, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(DOMAIN);
        mac.update(body);
        mac
    }
}

/// A socket in the group, at the first port that is free. Several nodes of a machine share it.
fn open(mcast: &Mcast) -> io::Result<UdpSocket> {
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, "no ports");
    for port in &mcast.ports {
        match open_at(mcast, *port) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn open_at(mcast: &Mcast, port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // At the group's address only what is sent to the group comes. Not everywhere can a socket have that.
    let of_group = if cfg!(target_os = "linux") { mcast.addr } else { Ipv4Addr::UNSPECIFIED };
    socket.bind(&SocketAddr::from((of_group, port)).into())?;
    socket.join_multicast_v4(&mcast.addr, &mcast.iface)?;
    if !mcast.iface.is_unspecified() {
        socket.set_multicast_if_v4(&mcast.iface)?;
    }
    socket.set_multicast_ttl_v4(u32::from(mcast.ttl))?;
    socket.set_multicast_loop_v4(mcast.is_looped)?;
    UdpSocket::from_std(socket.into())
}

const GROUP: &str = "cluster.mcast";
const DOMAIN: &[u8] = b"newtmq mcast 1";
const TAG_BYTES: usize = 32;
/// More are left out.
const HEARD_MAX: usize = 255;
/// Who is not heard for this long is gone; a node announces itself every [`AGAIN`].
const SILENT_MAX: Duration = Duration::from_secs(60);
/// No cluster is founded before others had this long to be heard.
const LISTEN_FIRST: Duration = Duration::from_secs(5);
/// How often a node announces itself in that time.
const EAGER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_silent_is_forgotten_and_makes_room() {
        let mut heard = Heard::default();
        let at = |node: usize| SocketAddr::from(([10, 0, 0, 1], u16::try_from(node).unwrap()));
        let began = Instant::now();
        for node in 1..=HEARD_MAX {
            heard.hear(NodeId(node as u64), at(node), began);
        }
        let later = began + SILENT_MAX / 2;
        heard.hear(NodeId(1), at(1), later);
        heard.hear(NodeId(1000), at(1000), later);
        assert_eq!(heard.addresses(later).len(), HEARD_MAX, "there is no room for another one");
        assert_eq!(heard.addresses(began + SILENT_MAX), BTreeSet::from([at(1)]));
        heard.hear(NodeId(1000), at(1000), began + SILENT_MAX);
        assert_eq!(heard.addresses(began + SILENT_MAX), BTreeSet::from([at(1), at(1000)]));
    }

    #[test]
    fn only_who_has_the_key_is_heard() {
        let of = |key: &str, cluster: &str| Announced {
            key: key.into(),
            cluster: cluster.to_owned(),
            node: NodeId(u64::MAX),
        };
        let address = "[2001:db8::1]:4370".parse().unwrap();
        let bytes = of("k", "c").seal(address);
        assert_eq!(of("k", "c").open(&bytes), Some((NodeId(u64::MAX), address)));
        assert_eq!((of("l", "c").open(&bytes), of("k", "d").open(&bytes)), (None, None));
        for at in 0..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[at] ^= 1;
            assert_eq!((of("k", "c").open(&wrong), of("k", "c").open(&bytes[..at])), (None, None));
        }
    }
}
