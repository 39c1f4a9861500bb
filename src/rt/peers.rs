//! Sockets between nodes: TCP for links, UDP for seeing who answers, and names.

#[cfg(not(madsim))]
mod imp {
    use std::io;
    use std::net::{IpAddr, SocketAddr};

    use socket2::{Domain, Protocol, Socket, Type};
    use tokio::net::TcpSocket;
    pub use tokio::net::UdpSocket;

    /// A connection with another node.
    pub type PeerSocket = tokio::net::TcpStream;
    /// Where other nodes connect to.
    pub type PeerListener = tokio::net::TcpListener;

    /// The sockets for other nodes, before there is a runtime for them.
    #[derive(Debug)]
    pub struct PeerSockets {
        listener: std::net::TcpListener,
        datagrams: std::net::UdpSocket,
    }

    impl PeerSockets {
        /// Inside the runtime that watches them.
        ///
        /// # Errors
        /// The operating system's.
        pub fn open(self) -> io::Result<(PeerListener, UdpSocket)> {
            Ok((PeerListener::from_std(self.listener)?, UdpSocket::from_std(self.datagrams)?))
        }
    }

    /// Opens an address for other nodes, by TCP and UDP. Port 0 picks one that is free for both.
    ///
    /// # Errors
    /// The operating system's, for example that the address is in use.
    #[allow(clippy::unused_async)] // asynchronous in the simulator
    pub async fn listen_to_peers(wanted: SocketAddr) -> io::Result<(PeerSockets, SocketAddr)> {
        let mut attempts = if wanted.port() == 0 { 16 } else { 1 };
        loop {
            attempts -= 1;
            let listener = Socket::new(Domain::for_address(wanted), Type::STREAM, Some(Protocol::TCP))?;
            // A restart must not wait for old connections to leave TIME_WAIT; two listeners are still refused.
            listener.set_reuse_address(true)?;
            listener.set_nonblocking(true)?;
            if wanted.is_ipv6() {
                listener.set_only_v6(true)?;
            }
            listener.bind(&wanted.into())?;
            listener.listen(PEER_BACKLOG)?;
            let listener = std::net::TcpListener::from(listener);
            let bound = listener.local_addr()?;
            let datagrams = Socket::new(Domain::for_address(bound), Type::DGRAM, Some(Protocol::UDP))?;
            if bound.is_ipv6() {
                datagrams.set_only_v6(true)?;
            }
            datagrams.set_nonblocking(true)?;
            // Bursts of many nodes wait here while the control plane is busy; the operating system may give less.
            let _ = datagrams.set_recv_buffer_size(PEER_RECEIVE_BYTES);
            match datagrams.bind(&bound.into()) {
                Ok(()) => return Ok((PeerSockets { listener, datagrams: datagrams.into() }, bound)),
                Err(error) if attempts == 0 => return Err(error),
                Err(_) => {}
            }
        }
    }

    /// Opens a connection to another node; from this address, if that can be reached from there.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn dial(from: Option<IpAddr>, to: SocketAddr) -> io::Result<PeerSocket> {
        let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(from) =
            from.filter(|from| from.is_ipv4() == to.is_ipv4() && (!from.is_loopback() || to.ip().is_loopback()))
        {
            socket.bind(SocketAddr::new(from, 0))?;
        }
        socket.connect(to).await
    }

    /// What links want of a connection.
    ///
    /// # Errors
    /// The operating system's.
    pub fn tune(socket: &PeerSocket) -> io::Result<()> {
        socket.set_nodelay(true)
    }

    /// The addresses of a host.
    ///
    /// # Errors
    /// It has none, or nobody can say.
    pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }

    /// Hosts and ports of a service, by its SRV records.
    ///
    /// # Errors
    /// It has none, or nobody can say.
    pub async fn services(name: &str) -> io::Result<Vec<(String, u16)>> {
        crate::cluster::dns::srv(name).await
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn send_to(socket: &UdpSocket, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        socket.send_to(bytes, to).await.map(drop)
    }

    const PEER_BACKLOG: i32 = 128;
    const PEER_RECEIVE_BYTES: usize = 4 << 20;
}

#[cfg(madsim)]
mod imp {
    use std::io;
    use std::net::{IpAddr, SocketAddr};

    pub use newtmq_simnet::SimUdp as UdpSocket;

    /// A connection with another node.
    pub type PeerSocket = newtmq_simnet::SimStream;
    /// Where other nodes connect to.
    pub type PeerListener = newtmq_simnet::SimListener;

    /// The sockets for other nodes.
    #[derive(Debug)]
    pub struct PeerSockets {
        listener: PeerListener,
        datagrams: UdpSocket,
    }

    impl PeerSockets {
        /// They are open already.
        ///
        /// # Errors
        /// None.
        pub fn open(self) -> io::Result<(PeerListener, UdpSocket)> {
            Ok((self.listener, self.datagrams))
        }
    }

    /// Opens an address of the simulated node for others.
    ///
    /// # Errors
    /// The simulator's.
    pub async fn listen_to_peers(wanted: SocketAddr) -> io::Result<(PeerSockets, SocketAddr)> {
        let listener = PeerListener::bind(wanted).await?;
        let bound = listener.local_addr()?;
        Ok((PeerSockets { listener, datagrams: UdpSocket::bind(bound).await? }, bound))
    }

    /// Opens a connection to another node.
    ///
    /// # Errors
    /// The simulator's.
    pub async fn dial(_: Option<IpAddr>, to: SocketAddr) -> io::Result<PeerSocket> {
        PeerSocket::connect(to).await
    }

    /// The simulator sends at once.
    ///
    /// # Errors
    /// None.
    pub fn tune(_: &PeerSocket) -> io::Result<()> {
        Ok(())
    }

    /// Simulated nodes have addresses only.
    ///
    /// # Errors
    /// It is a name.
    #[allow(clippy::unused_async)] // asynchronous in production
    pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        match host.parse() {
            Ok(ip) => Ok(vec![SocketAddr::new(ip, port)]),
            Err(_) => Err(io::Error::new(io::ErrorKind::NotFound, "the simulator has no names")),
        }
    }

    /// Simulated nodes have addresses only.
    ///
    /// # Errors
    /// Always.
    #[allow(clippy::unused_async)] // asynchronous in production
    pub async fn services(_: &str) -> io::Result<Vec<(String, u16)>> {
        Err(io::Error::new(io::ErrorKind::NotFound, "the simulator has no names"))
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// The simulator's.
    pub async fn send_to(socket: &UdpSocket, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        socket.send_to(bytes, to).await.map(drop)
    }
}

pub use imp::*;
