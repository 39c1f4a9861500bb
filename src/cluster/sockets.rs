//! The sockets between nodes: what accepts, what dials, and the datagrams. Each is a task that tells the driver what has
//! happened; none knows what the bytes mean.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use newtmq_cluster::link::{Address, DialId};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout};

use super::driver::Event;
use super::tls::LinkTls;
use crate::config::Seed;
use crate::rt::{self, PeerListener, PeerSocket, UdpSocket};

/// A connection with another node.
pub trait PeerStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> PeerStream for S {}

/// How connections are made.
#[derive(Debug, Clone)]
pub struct Sockets {
    /// What happens is told here.
    pub events: mpsc::Sender<Event>,
    /// The address that connections come from.
    pub from: Option<IpAddr>,
    /// Connections are encrypted, and authenticated by certificates.
    pub tls: Option<Arc<LinkTls>>,
    /// How long it may take to open a connection.
    pub dial_timeout: Duration,
}

impl Sockets {
    /// Accepts until the driver is gone. An error never ends it.
    pub async fn accept(self, listener: PeerListener) {
        let mut failing = false;
        let mut door = Door::new(UNPROVED_MAX);
        loop {
            let socket = match listener.accept().await {
                Ok((socket, _)) => socket,
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "cannot accept other nodes; trying again until it works");
                    }
                    tokio::time::sleep(BACK_OFF).await;
                    continue;
                }
            };
            failing = false;
            if self.events.is_closed() {
                return;
            }
            // Dropped with its socket: who is a node comes again.
            let Some(unproved) = door.let_in(Instant::now()) else { continue };
            let this = self.clone();
            let open = async move {
                let (events, address) = (this.events.clone(), socket.peer_addr().ok());
                match timeout(HANDSHAKE_TIMEOUT, this.accepted(socket)).await.unwrap_or_else(|late| Err(late.into())) {
                    Ok((stream, tls)) => {
                        let unproved = Some(unproved);
                        drop(events.send(Event::Opened { dial: None, stream, tls, from: address, unproved }).await)
                    }
                    Err(error) => drop(events.send(Event::NotAccepted { from: address, error }).await),
                }
            };
            tokio::spawn(open);
        }
    }

    async fn accepted(self, socket: PeerSocket) -> io::Result<(Box<dyn PeerStream>, bool)> {
        rt::tune(&socket)?;
        match &self.tls {
            Some(tls) => Ok((tls.accept(socket).await?, true)),
            None => Ok((Box::new(socket), false)),
        }
    }

    /// Opens a connection; the driver is told how it ended.
    pub async fn dial(self, dial: DialId, address: Address) {
        let opened = timeout(self.dial_timeout, self.open(&address)).await.unwrap_or_else(|late| Err(late.into()));
        let event = match opened {
            Ok((stream, tls, to)) => Event::Opened { dial: Some(dial), stream, tls, from: Some(to), unproved: None },
            Err(error) => Event::DialFailed { dial, address, error },
        };
        // Without a driver nobody waits for it.
        let _ = self.events.send(event).await;
    }

    async fn open(&self, address: &Address) -> io::Result<(Box<dyn PeerStream>, bool, SocketAddr)> {
        let seed =
            Seed::parse(&address.0).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not an address"))?;
        // A name may lead somewhere else than last time.
        let found = rt::resolve(&seed.host, seed.port).await?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for to in found {
            match rt::dial(self.from, to).await {
                Ok(socket) => {
                    rt::tune(&socket)?;
                    return match &self.tls {
                        Some(tls) => Ok((tls.connect(socket).await?, true, to)),
                        None => Ok((Box::new(socket), false, to)),
                    };
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Passes datagrams on until the driver is gone. What comes while it is busy waits in the socket, or is lost there.
    pub async fn receive(self, socket: Arc<UdpSocket>) {
        let mut buffer = vec![0; DATAGRAM_MAX];
        loop {
            match socket.recv_from(&mut buffer).await {
                Ok((count, from)) => {
                    let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                    let data = buffer[..count].into();
                    if self.events.send(Event::Packet { from, data }).await.is_err() {
                        return;
                    }
                }
                // What an earlier datagram met is told here, too: nobody listens there, or there is no way.
                Err(error) => {
                    tracing::debug!(%error, "receive a datagram");
                    if self.events.is_closed() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }
}

/// Held by a connection that was accepted until it has shown whose it is, or has ended.
pub type Unproved = OwnedSemaphorePermit;

/// How many of those there may be. Whoever reaches the address can be one, and each costs a file and perhaps a handshake.
#[derive(Debug)]
struct Door {
    room: Arc<Semaphore>,
    most: usize,
    /// Since it was last told of.
    dropped: u64,
    told: Option<Instant>,
}

impl Door {
    fn new(most: usize) -> Door {
        Door { room: Arc::new(Semaphore::new(most)), most, dropped: 0, told: None }
    }

    /// None if there are too many, which the log tells once in a while.
    fn let_in(&mut self, now: Instant) -> Option<Unproved> {
        if let Ok(unproved) = Arc::clone(&self.room).try_acquire_owned() {
            return Some(unproved);
        }
        self.dropped += 1;
        if self.told.is_none_or(|told| now.duration_since(told) >= TELL_AGAIN) {
            let dropped = std::mem::take(&mut self.dropped);
            tracing::warn!(
                dropped,
                limit = self.most,
                "too many connections at node.listen have not shown that they are of nodes; further ones are dropped"
            );
            self.told = Some(now);
        }
        None
    }
}

/// Sends datagrams until nobody can give any. One that cannot be sent is lost, as others are on the way.
pub async fn send(socket: Arc<UdpSocket>, mut packets: mpsc::Receiver<(SocketAddr, Vec<u8>)>) {
    while let Some((to, bytes)) = packets.recv().await {
        if let Err(error) = rt::send_to(&socket, &bytes, to).await {
            tracing::debug!(%to, %error, "send a datagram");
        }
    }
}

/// Writes what is left, says that nothing follows, and waits for the other side's end, so that the last bytes are not lost to
/// a reset. All within a time limit: the other side may be gone.
pub async fn end(mut stream: Box<dyn PeerStream>, rest: Vec<u8>) {
    let ended = async {
        stream.write_all(&rest).await?;
        stream.shutdown().await?;
        let mut buffer = [0; 4096];
        while stream.read(&mut buffer).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = timeout(END_TIMEOUT, ended).await;
}

/// Connections that were accepted and have not shown yet whose they are, and those that were refused and still hear why. All
/// nodes of the largest cluster may come at once.
const UNPROVED_MAX: usize = 256;
/// How often is told that there are more.
const TELL_AGAIN: Duration = Duration::from_secs(60);
const BACK_OFF: Duration = Duration::from_millis(200);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// Larger ones are cut off, and refused as such.
const DATAGRAM_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_proved_nothing_has_limited_room() {
        let mut door = Door::new(2);
        let now = Instant::now();
        let first = door.let_in(now).unwrap();
        let second = door.let_in(now).unwrap();
        assert!(door.let_in(now).is_none());
        assert_eq!((door.dropped, door.told), (0, Some(now)), "the first is told of at once");
        assert!(door.let_in(now + TELL_AGAIN / 2).is_none());
        assert_eq!((door.dropped, door.told), (1, Some(now)), "another is counted");
        assert!(door.let_in(now + TELL_AGAIN).is_none());
        assert_eq!((door.dropped, door.told), (0, Some(now + TELL_AGAIN)));
        drop(first);
        assert!(door.let_in(now).is_some());
        drop(second);
    }
}
