//! A listening socket. The network completes connections by itself, whatever the node does; they wait here until it
//! accepts them.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use madsim::task::NodeId;
use madsim::time::TimeHandle;

use crate::alarm::{Alarm, nanos};
use crate::net::Net;
use crate::stream::SimStream;

/// Connections that wait to be accepted; a further SYN is not answered.
pub(crate) const BACKLOG_MAX: usize = 1024;

/// A simulated listening TCP socket.
#[derive(Debug)]
pub struct SimListener {
    shared: Arc<Listening>,
    net: Arc<Net>,
}

impl SimListener {
    /// Listens at an address of the current node. Port 0 picks a free one.
    ///
    /// # Errors
    /// Somebody listens there already.
    #[allow(clippy::unused_async)] // as that of tokio is
    pub async fn bind(address: SocketAddr) -> io::Result<SimListener> {
        let net = Net::current();
        Ok(SimListener { shared: net.listen(address, madsim::plugin::node())?, net })
    }

    /// The next connection and where it comes from.
    ///
    /// # Errors
    /// None.
    pub async fn accept(&self) -> io::Result<(SimStream, SocketAddr)> {
        poll_fn(|context| {
            let (mut queue, now) = (self.shared.lock(), nanos(self.net.time()));
            match queue.waiting.front().map(|(arrives, _)| *arrives) {
                Some(arrives) if arrives <= now => {
                    queue.alarm.done();
                    let (_, stream) = queue.waiting.pop_front().expect("there is a first one");
                    let peer = stream.peer_addr();
                    Poll::Ready(peer.map(|peer| (stream, peer)))
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

    /// Where it listens.
    ///
    /// # Errors
    /// None.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.shared.address)
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.net.unlisten(&self.shared);
        let waiting = std::mem::take(&mut self.shared.lock().waiting);
        drop(waiting);
    }
}

/// A listener as the network knows it.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    pub(crate) node: NodeId,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// When each arrives, in order.
    waiting: VecDeque<(u64, SimStream)>,
    alarm: Alarm,
}

impl Listening {
    pub(crate) fn new(address: SocketAddr, node: NodeId) -> Listening {
        Listening { address, node, queue: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.lock().waiting.len() >= BACKLOG_MAX
    }

    /// A connection is complete at this time.
    pub(crate) fn push(&self, time: &TimeHandle, arrives: u64, stream: SimStream) {
        let mut queue = self.lock();
        // Links differ in latency.
        let place = queue.waiting.partition_point(|(at, _)| *at <= arrives);
        queue.waiting.insert(place, (arrives, stream));
        queue.alarm.set(time, nanos(time), arrives);
    }

    /// Everything that waits, when the node is gone.
    pub(crate) fn take(&self) -> VecDeque<(u64, SimStream)> {
        std::mem::take(&mut self.lock().waiting)
    }
}
