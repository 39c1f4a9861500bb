//! A UDP socket. Datagrams go over the link that the sender has to the receiver's address: each takes its time, is lost, or
//! comes twice, and overtakes others.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use madsim::task::NodeId;

use crate::alarm::{Alarm, nanos};
use crate::net::Net;

/// Datagrams that wait to be received; more are lost.
const WAITING_MAX: usize = 4096;

/// A simulated UDP socket.
#[derive(Debug)]
pub struct SimUdp {
    port: Arc<Port>,
    net: Arc<Net>,
}

impl SimUdp {
    /// Waits for datagrams at an address of the current node. Port 0 picks a free one.
    ///
    /// # Errors
    /// Somebody does already.
    #[allow(clippy::unused_async)] // as that of tokio is
    pub async fn bind(address: SocketAddr) -> io::Result<SimUdp> {
        let net = Net::current();
        Ok(SimUdp { port: net.open_port(address, madsim::plugin::node())?, net })
    }

    /// Sends a datagram. Whether anybody is there is not told.
    ///
    /// # Errors
    /// None.
    #[allow(clippy::unused_async)] // as that of tokio is
    pub async fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
        let time = self.net.time();
        for arrives in self.net.link_to(to.ip()).datagram(nanos(time)) {
            if let Some(port) = self.net.port(to) {
                let mut queue = port.lock();
                // Who waits when it arrives may be another one; then it would be lost.
                if queue.waiting.len() < WAITING_MAX {
                    let place = queue.waiting.partition_point(|datagram| datagram.arrives <= arrives);
                    let datagram = Datagram { arrives, from: self.port.address, bytes: bytes.into() };
                    queue.waiting.insert(place, datagram);
                    queue.alarm.set(time, nanos(time), arrives);
                }
            }
        }
        Ok(bytes.len())
    }

    /// The next datagram, cut off if it does not fit, and where it comes from.
    ///
    /// # Errors
    /// None.
    pub async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        poll_fn(|context| {
            let (mut queue, now) = (self.port.lock(), nanos(self.net.time()));
            match queue.waiting.front().map(|datagram| datagram.arrives) {
                Some(arrives) if arrives <= now => {
                    queue.alarm.done();
                    let Datagram { from, bytes, .. } = queue.waiting.pop_front().expect("there is a first one");
                    let count = bytes.len().min(buffer.len());
                    buffer[..count].copy_from_slice(&bytes[..count]);
                    Poll::Ready(Ok((count, from)))
                }
                next => {
                    queue.alarm.wait(context);
                    if let Some(next) = next {
                        queue.alarm.set(self.net.time(), now, next);
                    }
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Where it waits.
    ///
    /// # Errors
    /// None.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.port.address)
    }
}

impl Drop for SimUdp {
    fn drop(&mut self) {
        self.net.close_port(&self.port);
    }
}

/// A socket as the network knows it.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) address: SocketAddr,
    pub(crate) node: NodeId,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// In the order in which they arrive.
    waiting: VecDeque<Datagram>,
    alarm: Alarm,
}

#[derive(Debug)]
struct Datagram {
    arrives: u64,
    from: SocketAddr,
    bytes: Box<[u8]>,
}

impl Port {
    pub(crate) fn new(address: SocketAddr, node: NodeId) -> Port {
        Port { address, node, queue: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
