//! Sockets of the gateways for MQTT-SN: many datagrams with one system call on Linux, one by one elsewhere.

#[cfg(not(madsim))]
mod imp {
    use std::io;
    use std::net::SocketAddr;
    use std::task::{Context, Poll, ready};

    use socket2::{Domain, Protocol, Socket, Type};
    use tokio::io::Interest;
    use tokio::net::UdpSocket;

    use crate::config::Listener as Facts;

    /// Room for datagrams in the operating system, if the configuration does not say.
    const RECEIVE_BYTES: usize = 4 << 20;
    const SEND_BYTES: usize = 1 << 20;
    /// No datagram is longer.
    const DATAGRAM_BYTES: usize = 1 << 16;

    /// A socket before there is a runtime for it.
    #[derive(Debug)]
    pub struct BoundDatagrams(std::net::UdpSocket);

    impl BoundDatagrams {
        /// Binds a listener's address. Port 0 picks a free one.
        ///
        /// # Errors
        /// The operating system's, for example that the address is in use.
        #[allow(clippy::unused_async)] // asynchronous in the simulator
        pub async fn bind(facts: &Facts) -> io::Result<BoundDatagrams> {
            let address = facts.bind;
            let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
            if address.is_ipv6() {
                socket.set_only_v6(true)?;
            } else {
                // For ADVERTISE.
                socket.set_broadcast(true)?;
            }
            let wanted = if facts.recbuf > 0 { facts.recbuf as usize } else { RECEIVE_BYTES };
            // The operating system may give less.
            let _ = socket.set_recv_buffer_size(wanted);
            let wanted = if facts.sndbuf > 0 { facts.sndbuf as usize } else { SEND_BYTES };
            let _ = socket.set_send_buffer_size(wanted);
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            Ok(BoundDatagrams(socket.into()))
        }

        /// Where it is.
        ///
        /// # Errors
        /// The operating system's.
        pub fn local_addr(&self) -> io::Result<SocketAddr> {
            self.0.local_addr()
        }

        /// Inside the runtime that watches it.
        ///
        /// # Errors
        /// The operating system's.
        pub fn open(self) -> io::Result<Datagrams> {
            Ok(Datagrams { socket: UdpSocket::from_std(self.0)?, batch: batch::Batch::new() })
        }
    }

    /// A socket that is open.
    #[derive(Debug)]
    pub struct Datagrams {
        socket: UdpSocket,
        batch: batch::Batch,
    }

    impl Datagrams {
        /// Takes some datagrams, if there are any; says how many.
        ///
        /// # Errors
        /// The operating system's.
        pub fn poll_recv(
            &mut self,
            context: &mut Context<'_>,
            mut take: impl FnMut(SocketAddr, &[u8]),
        ) -> Poll<io::Result<usize>> {
            loop {
                ready!(self.socket.poll_recv_ready(context))?;
                let received = self.socket.try_io(Interest::READABLE, || self.batch.receive(&self.socket, &mut take));
                match received {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    received => return Poll::Ready(received),
                }
            }
        }

        /// Sends as many as the socket takes, and leaves the others. Says how many are lost: nobody can be reached there.
        pub fn send(&mut self, datagrams: &mut Vec<(SocketAddr, Vec<u8>)>) -> u64 {
            let (mut done, mut lost) = (0, 0);
            while done < datagrams.len() {
                match self.socket.try_io(Interest::WRITABLE, || batch::send(&self.socket, &datagrams[done..])) {
                    Ok(count) => done += count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => (done, lost) = (done + 1, lost + 1),
                }
            }
            datagrams.drain(..done);
            lost
        }

        /// Whether the socket takes more.
        pub fn poll_writable(&self, context: &mut Context<'_>) -> Poll<()> {
            self.socket.poll_send_ready(context).map(drop)
        }
    }

    #[cfg(target_os = "linux")]
    mod batch {
        use std::fmt;
        use std::io::{self, IoSlice, IoSliceMut};
        use std::net::{SocketAddr, SocketAddrV6};
        use std::os::fd::AsRawFd as _;

        use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn6, SockaddrStorage, recvmmsg};
        use rustix::net::addr::SocketAddrArg as _;
        use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};
        use tokio::net::UdpSocket;

        use super::DATAGRAM_BYTES;

        /// Datagrams with one system call.
        const BATCH: usize = 32;

        /// Room for a batch; memory that no datagram has touched costs nothing.
        pub(super) struct Batch {
            headers: MultiHeaders<SockaddrStorage>,
            buffer: Vec<u8>,
        }

        impl fmt::Debug for Batch {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("Batch")
            }
        }

        impl Batch {
            pub(super) fn new() -> Batch {
                Batch { headers: MultiHeaders::preallocate(BATCH, None), buffer: vec![0; BATCH * DATAGRAM_BYTES] }
            }

            pub(super) fn receive(
                &mut self,
                socket: &UdpSocket,
                take: &mut impl FnMut(SocketAddr, &[u8]),
            ) -> io::Result<usize> {
                let rooms = self.buffer.chunks_exact_mut(DATAGRAM_BYTES);
                let mut rooms: Vec<_> = rooms.map(|room| [IoSliceMut::new(room)]).collect();
                let flags = MsgFlags::MSG_DONTWAIT;
                let received = recvmmsg(socket.as_raw_fd(), &mut self.headers, rooms.iter_mut(), flags, None)?;
                let mut count = 0;
                for message in received {
                    count += 1;
                    let Some(from) = message.address.as_ref().and_then(address) else { continue };
                    take(from, message.iovs().next().unwrap_or_default());
                }
                Ok(count)
            }
        }

        fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
            let v4 = storage.as_sockaddr_in().map(|v4| SocketAddr::from((v4.ip(), v4.port())));
            // The scope is the interface of a link-local address.
            let v6 = |v6: &SockaddrIn6| SocketAddrV6::new(v6.ip(), v6.port(), 0, v6.scope_id()).into();
            v4.or_else(|| storage.as_sockaddr_in6().map(v6))
        }

        /// Sends the first of them, and says how many. An error is about the first one.
        pub(super) fn send(socket: &UdpSocket, datagrams: &[(SocketAddr, Vec<u8>)]) -> io::Result<usize> {
            let batch = &datagrams[..datagrams.len().min(BATCH)];
            let addresses: Vec<_> = batch.iter().map(|(to, _)| to.as_any()).collect();
            let slices: Vec<_> = batch.iter().map(|(_, data)| [IoSlice::new(data)]).collect();
            let mut nothing: Vec<_> = batch.iter().map(|_| SendAncillaryBuffer::default()).collect();
            let each = addresses.iter().zip(&slices).zip(&mut nothing);
            let mut headers: Vec<_> =
                each.map(|((to, slice), nothing)| MMsgHdr::new_with_addr(to, slice, nothing)).collect();
            Ok(sendmmsg(socket, &mut headers, SendFlags::DONTWAIT)?)
        }
    }

    #[cfg(not(target_os = "linux"))]
    mod batch {
        use std::io;
        use std::net::SocketAddr;

        use tokio::net::UdpSocket;

        use super::DATAGRAM_BYTES;

        /// Room for a datagram.
        #[derive(Debug)]
        pub(super) struct Batch(Vec<u8>);

        impl Batch {
            pub(super) fn new() -> Batch {
                Batch(vec![0; DATAGRAM_BYTES])
            }

            pub(super) fn receive(
                &mut self,
                socket: &UdpSocket,
                take: &mut impl FnMut(SocketAddr, &[u8]),
            ) -> io::Result<usize> {
                let (count, from) = socket.try_recv_from(&mut self.0)?;
                take(from, &self.0[..count]);
                Ok(1)
            }
        }

        /// Sends the first of them, and says how many. An error is about the first one.
        pub(super) fn send(socket: &UdpSocket, datagrams: &[(SocketAddr, Vec<u8>)]) -> io::Result<usize> {
            let Some((to, data)) = datagrams.first() else { return Ok(0) };
            socket2::SockRef::from(socket).send_to(data, &(*to).into()).map(|_| 1)
        }
    }
}

#[cfg(madsim)]
mod imp {
    use std::io;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::task::{Context, Poll, ready};

    use newtmq_simnet::SimUdp;
    use tokio::sync::mpsc;

    use crate::config::Listener as Facts;

    /// Datagrams on their way between the gateway and the simulator.
    const WAITING_MAX: usize = 1024;
    /// No datagram is longer.
    const DATAGRAM_BYTES: usize = 1 << 16;

    type Datagram = (SocketAddr, Vec<u8>);

    /// A socket of the simulated node.
    #[derive(Debug)]
    pub struct BoundDatagrams(SimUdp);

    impl BoundDatagrams {
        /// Binds a listener's address.
        ///
        /// # Errors
        /// The simulator's.
        pub async fn bind(facts: &Facts) -> io::Result<BoundDatagrams> {
            SimUdp::bind(facts.bind).await.map(BoundDatagrams)
        }

        /// Where it is.
        ///
        /// # Errors
        /// The simulator's.
        pub fn local_addr(&self) -> io::Result<SocketAddr> {
            self.0.local_addr()
        }

        /// Its datagrams come and go by tasks of their own.
        ///
        /// # Errors
        /// None.
        pub fn open(self) -> io::Result<Datagrams> {
            let socket = Arc::new(self.0);
            let (to_received, received) = mpsc::channel(WAITING_MAX);
            let (sent, mut to_send) = mpsc::channel::<Datagram>(WAITING_MAX);
            let receiver = Arc::clone(&socket);
            tokio::spawn(async move {
                let mut buffer = vec![0; DATAGRAM_BYTES];
                while let Ok((count, from)) = receiver.recv_from(&mut buffer).await {
                    if to_received.send((from, buffer[..count].to_vec())).await.is_err() {
                        return;
                    }
                }
            });
            tokio::spawn(async move {
                while let Some((to, data)) = to_send.recv().await {
                    // The simulator has no errors.
                    let _ = socket.send_to(&data, to).await;
                }
            });
            Ok(Datagrams { received, sent })
        }
    }

    /// A socket that is open.
    #[derive(Debug)]
    pub struct Datagrams {
        received: mpsc::Receiver<Datagram>,
        sent: mpsc::Sender<Datagram>,
    }

    impl Datagrams {
        /// Takes a datagram, if there is one.
        ///
        /// # Errors
        /// None.
        pub fn poll_recv(
            &mut self,
            context: &mut Context<'_>,
            mut take: impl FnMut(SocketAddr, &[u8]),
        ) -> Poll<io::Result<usize>> {
            match ready!(self.received.poll_recv(context)) {
                Some((from, data)) => {
                    take(from, &data);
                    Poll::Ready(Ok(1))
                }
                None => Poll::Pending,
            }
        }

        /// Always.
        pub fn poll_writable(&self, _: &mut Context<'_>) -> Poll<()> {
            Poll::Ready(())
        }

        /// Sends all of them, and says how many were not taken.
        pub fn send(&mut self, datagrams: &mut Vec<Datagram>) -> u64 {
            datagrams.drain(..).filter_map(|datagram| self.sent.try_send(datagram).err()).count() as u64
        }
    }
}

pub use imp::*;
