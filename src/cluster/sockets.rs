//! The sockets between nodes: what accepts, what dials, and the datagrams. Each is a task that tells the driver what has
//! happened; none knows what the bytes mean.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use newtmq_cluster::link::{Address, DialId};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;

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
            let this = self.clone();
            let open = async move {
                let (events, address) = (this.events.clone(), socket.peer_addr().ok());
                match timeout(HANDSHAKE_TIMEOUT, this.accepted(socket)).await.unwrap_or_else(|late| Err(late.into())) {
                    Ok((stream, tls)) => {
                        drop(events.send(Event::Opened { dial: None, stream, tls, from: address }).await)
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
            Ok((stream, tls)) => Event::Opened { dial: Some(dial), stream, tls, from: None },
            Err(error) => Event::DialFailed { dial, address, error },
        };
        // Without a driver nobody waits for it.
        let _ = self.events.send(event).await;
    }

    async fn open(&self, address: &Address) -> io::Result<(Box<dyn PeerStream>, bool)> {
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
                        Some(tls) => Ok((tls.connect(socket).await?, true)),
                        None => Ok((Box::new(socket), false)),
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

const BACK_OFF: Duration = Duration::from_millis(200);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// Larger ones are cut off, and refused as such.
const DATAGRAM_MAX: usize = 2048;
