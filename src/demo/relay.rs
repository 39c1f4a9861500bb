//! The ways between the nodes of a demo: each node is reached through a relay, for connections and for datagrams, and each
//! way from one node to another can be cut, which needs no privilege. As in a network that is cut, bytes of connections wait
//! and datagrams are lost.
//!
//! A connection tells by its first bytes who opens it: the name of a node is there in clear. A datagram comes from where the
//! node listens.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The relays of all nodes. Its threads end with it, and those of connections with the connections.
#[derive(Debug)]
pub struct Relays(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    names: Vec<String>,
    places: Mutex<Vec<Place>>,
    /// From a node to another one, by both.
    cut: Vec<AtomicBool>,
    bytes: AtomicU64,
    lost: AtomicU64,
    ended: AtomicBool,
    changes: Mutex<()>,
    changed: Condvar,
}

/// Where a node is.
#[derive(Debug)]
struct Place {
    /// Where it listens itself.
    listen: SocketAddr,
    /// Where others think that it does.
    relay: SocketAddr,
    /// From there datagrams come.
    datagrams: Arc<UdpSocket>,
}

impl Relays {
    /// For nodes with these names that listen at these addresses. No name is a part of another one.
    ///
    /// # Errors
    /// The operating system's.
    pub fn new(nodes: &[(String, SocketAddr)]) -> io::Result<Relays> {
        let names: Vec<String> = nodes.iter().map(|(name, _)| name.clone()).collect();
        let mut doors = Vec::new();
        let mut places = Vec::new();
        for (_, listen) in nodes {
            let door = Door::open()?;
            places.push(door.place(*listen));
            doors.push(door);
        }
        let shared = Arc::new(Shared {
            cut: (0..names.len() * names.len()).map(|_| AtomicBool::new(false)).collect(),
            names,
            places: Mutex::new(places),
            bytes: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            changes: Mutex::new(()),
            changed: Condvar::new(),
        });
        for (node, door) in doors.into_iter().enumerate() {
            door.attend(&shared, node);
        }
        Ok(Relays(shared))
    }

    /// Where other nodes reach this one.
    pub fn address(&self, node: usize) -> SocketAddr {
        self.0.places()[node].relay
    }

    /// The node listens somewhere else, and is reached somewhere else.
    ///
    /// # Errors
    /// The operating system's.
    pub fn move_to(&self, node: usize, listen: SocketAddr) -> io::Result<()> {
        let door = Door::open()?;
        self.0.places()[node] = door.place(listen);
        door.attend(&self.0, node);
        Ok(())
    }

    /// Cuts or heals the way from one node to another.
    pub fn set_cut(&self, from: usize, to: usize, cut: bool) {
        let _held = self.0.changes.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.cut[self.0.way(from, to)].store(cut, Ordering::SeqCst);
        self.0.changed.notify_all();
    }

    /// Whether the way from one node to another is cut.
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.0.is_cut(from, to)
    }

    /// Bytes that have passed so far, between all nodes.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Datagrams that were lost so far because a way was cut.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::SeqCst);
        let _held = self.0.changes.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn places(&self) -> std::sync::MutexGuard<'_, Vec<Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn way(&self, from: usize, to: usize) -> usize {
        from * self.names.len() + to
    }

    fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut[self.way(from, to)].load(Ordering::SeqCst)
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Waits until something can pass; false if it never will.
    fn passes(&self, from: usize, to: usize) -> bool {
        if self.is_cut(from, to) {
            let mut held = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
            while self.is_cut(from, to) && !self.has_ended() {
                held = self.changed.wait(held).unwrap_or_else(PoisonError::into_inner);
            }
        }
        !self.has_ended()
    }
}

/// Where a node is reached, until it is reached somewhere else.
struct Door {
    connections: TcpListener,
    datagrams: Arc<UdpSocket>,
    address: SocketAddr,
}

impl Door {
    /// On one port for both.
    fn open() -> io::Result<Door> {
        for _ in 0..TRIES {
            let connections = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let address = connections.local_addr()?;
            match UdpSocket::bind(address) {
                Ok(datagrams) => {
                    connections.set_nonblocking(true)?;
                    datagrams.set_read_timeout(Some(LOOK))?;
                    return Ok(Door { connections, datagrams: Arc::new(datagrams), address });
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }

    fn place(&self, listen: SocketAddr) -> Place {
        Place { listen, relay: self.address, datagrams: Arc::clone(&self.datagrams) }
    }

    fn attend(self, shared: &Arc<Shared>, node: usize) {
        let Door { connections, datagrams, address } = self;
        let of_datagrams = Arc::clone(shared);
        thread::spawn(move || pass_datagrams(&of_datagrams, node, &datagrams, address));
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            while is_there(&shared, node, address) {
                match connections.accept() {
                    Ok((stream, _)) => {
                        let shared = Arc::clone(&shared);
                        thread::spawn(move || connect(&shared, node, stream));
                    }
                    Err(_) => thread::sleep(ACCEPT_PAUSE),
                }
            }
        });
    }
}

/// Whether a node is still reached there.
fn is_there(shared: &Shared, node: usize, address: SocketAddr) -> bool {
    !shared.has_ended() && shared.places()[node].relay == address
}

fn pass_datagrams(shared: &Shared, to: usize, socket: &UdpSocket, address: SocketAddr) {
    let mut buffer = [0; 2048];
    while is_there(shared, to, address) {
        let Ok((count, sender)) = socket.recv_from(&mut buffer) else { continue };
        let (from, way_back, target) = {
            let places = shared.places();
            let Some(from) = places.iter().position(|place| place.listen == sender) else { continue };
            (from, Arc::clone(&places[from].datagrams), places[to].listen)
        };
        if shared.is_cut(from, to) {
            shared.lost.fetch_add(1, Ordering::Relaxed);
        } else {
            shared.bytes.fetch_add(count as u64, Ordering::Relaxed);
            // Whoever is there answers to the sender's relay. A datagram may be lost.
            let _ = way_back.send_to(&buffer[..count], target);
        }
    }
}

/// A node has opened a connection to another one.
fn connect(shared: &Arc<Shared>, to: usize, inward: TcpStream) -> Option<()> {
    // On some systems it has this of the socket that listens.
    inward.set_nonblocking(false).ok()?;
    inward.set_nodelay(true).ok()?;
    let from = who(shared, &inward)?;
    if !shared.passes(from, to) {
        return None;
    }
    let listen = shared.places()[to].listen;
    let outward = TcpStream::connect_timeout(&listen, Duration::from_secs(1)).ok()?;
    outward.set_nodelay(true).ok()?;
    inward.set_read_timeout(None).ok()?;
    let back = (outward.try_clone().ok()?, inward.try_clone().ok()?);
    let of_back = Arc::clone(shared);
    thread::spawn(move || pump(&of_back, (to, from), back.0, back.1));
    pump(shared, (from, to), inward, outward);
    Some(())
}

/// The node that opens a connection.
fn who(shared: &Shared, stream: &TcpStream) -> Option<usize> {
    let until = Instant::now() + HELLO_WAIT;
    stream.set_read_timeout(Some(HELLO_WAIT)).ok()?;
    let mut buffer = [0; 1024];
    while Instant::now() < until {
        let count = stream.peek(&mut buffer).ok().filter(|count| *count > 0)?;
        let has = |name: &String| buffer[..count].windows(name.len()).any(|part| part == name.as_bytes());
        if let Some(node) = shared.names.iter().position(has) {
            return Some(node);
        }
        thread::sleep(Duration::from_millis(1));
    }
    None
}

/// Passes bytes on until their end, and then the end.
fn pump(shared: &Shared, (from, to): (usize, usize), mut input: TcpStream, mut output: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = match input.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => 0,
        };
        if !shared.passes(from, to) || count == 0 || output.write_all(&buffer[..count]).is_err() {
            break;
        }
        shared.bytes.fetch_add(count as u64, Ordering::Relaxed);
    }
    let _ = output.shutdown(Shutdown::Write);
    let _ = input.shutdown(Shutdown::Read);
}

/// Addresses on this machine that nobody uses, for connections and datagrams, and nobody gets before this is dropped.
pub struct Free(Vec<Door>);

impl Free {
    /// So many.
    ///
    /// # Errors
    /// The operating system's.
    pub fn new(count: usize) -> io::Result<Free> {
        (0..count).map(|_| Door::open()).collect::<io::Result<_>>().map(Free)
    }

    /// The addresses.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.iter().map(|door| door.address).collect()
    }
}

const TRIES: usize = 64;
/// How often a thread looks whether it is still needed.
const LOOK: Duration = Duration::from_millis(200);
const ACCEPT_PAUSE: Duration = Duration::from_millis(5);
const HELLO_WAIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Relays, TcpListener, [SocketAddr; 2]) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addresses = [Free::new(1).unwrap().addresses()[0], listener.local_addr().unwrap()];
        let named = |at: usize| (format!("n{at}@demo"), addresses[at]);
        (Relays::new(&[named(0), named(1)]).unwrap(), listener, addresses)
    }

    #[test]
    fn bytes_wait_while_the_way_is_cut() {
        let (relays, listener, _) = pair();
        let mut one = TcpStream::connect(relays.address(1)).unwrap();
        one.write_all(b"n0@demo").unwrap();
        let (mut other, _) = listener.accept().unwrap();
        let mut buffer = [0; 7];
        other.read_exact(&mut buffer).unwrap();
        relays.set_cut(0, 1, true);
        one.write_all(b"x").unwrap();
        other.write_all(b"y").unwrap();
        one.read_exact(&mut buffer[..1]).unwrap();
        assert_eq!(buffer[0], b'y', "the other way is not cut");
        other.set_nonblocking(true).unwrap();
        assert!(other.read(&mut buffer).is_err());
        other.set_nonblocking(false).unwrap();
        relays.set_cut(0, 1, false);
        other.read_exact(&mut buffer[..1]).unwrap();
        drop(one);
        assert_eq!((buffer[0], other.read(&mut buffer).unwrap()), (b'x', 0));
    }

    #[test]
    fn datagrams_come_from_the_relay_of_the_sender_and_are_lost_while_cut() {
        let (relays, _listener, addresses) = pair();
        let sockets = addresses.map(|address| UdpSocket::bind(address).unwrap());
        let mut buffer = [0; 9];
        relays.set_cut(0, 1, true);
        sockets[0].send_to(b"lost", relays.address(1)).unwrap();
        sockets[1].send_to(b"back", relays.address(0)).unwrap();
        assert_eq!(sockets[0].recv_from(&mut buffer).unwrap(), (4, relays.address(1)));
        while relays.lost() == 0 {
            thread::yield_now();
        }
        relays.set_cut(0, 1, false);
        sockets[0].send_to(b"come", relays.address(1)).unwrap();
        assert_eq!(sockets[1].recv_from(&mut buffer).unwrap(), (4, relays.address(0)));
        assert_eq!(&buffer[..4], b"come");
    }

    #[test]
    fn a_node_that_has_moved_is_reached_where_it_is() {
        let (relays, _listener, _) = pair();
        let (before, listener) = (relays.address(1), TcpListener::bind("127.0.0.1:0").unwrap());
        relays.move_to(1, listener.local_addr().unwrap()).unwrap();
        assert_ne!(relays.address(1), before);
        let mut one = TcpStream::connect(relays.address(1)).unwrap();
        one.write_all(b"n0@demo").unwrap();
        let mut buffer = [0; 7];
        listener.accept().unwrap().0.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"n0@demo");
    }
}
