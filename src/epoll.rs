//! Plain TCP on an epoll instance of a shard's own thread, without tokio in between: an idle connection costs 8 bytes here
//! instead of the 300 to 400 of a registration with tokio, and a round costs one `epoll_wait` (docs/adr/0003).
//!
//! Edge-triggered and registered once. A stream remembers whether reading or writing is worth a try, so that nothing
//! is tried twice.

use std::future::Future;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::net::SocketFlags;
use rustix::time::Timespec;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::driver::{Driver, DriverStream as _, Poller, Readiness};
use crate::net::Link;

/// Most events taken at once; what is left is taken in the next round.
const EVENTS_MAX: usize = 1024;
/// Stands for the wake-up from other threads. No connection has it: slots end before.
const WAKE_TOKEN: u64 = u64::MAX;

/// Watches the sockets of a driver.
#[derive(Debug)]
pub struct Epoll {
    fd: OwnedFd,
    /// What the last wait gave, until the driver takes it.
    ready: Vec<(u64, Readiness)>,
    /// When the driver wants to be polled at the latest.
    deadline: Option<Instant>,
    alarm: Arc<Alarm>,
}

/// Wakes the thread of a driver from its wait.
#[derive(Debug)]
struct Alarm {
    rung: AtomicBool,
    /// The thread waits, or is about to: only then is a system call needed.
    waiting: AtomicBool,
    fd: OwnedFd,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.rung.swap(true, Ordering::SeqCst) && self.waiting.load(Ordering::SeqCst) {
            // It fails only if it was written to 2^64 times; then the thread is awake.
            let _ = rustix::io::write(&self.fd, &1_u64.to_ne_bytes());
        }
    }
}

impl Epoll {
    /// An instance without sockets.
    ///
    /// # Errors
    /// The operating system's.
    pub fn new() -> io::Result<Epoll> {
        let fd = epoll::create(CreateFlags::CLOEXEC)?;
        let alarm = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&fd, &alarm, EventData::new_u64(WAKE_TOKEN), EventFlags::IN | EventFlags::ET)?;
        let alarm = Alarm { rung: AtomicBool::new(false), waiting: AtomicBool::new(false), fd: alarm };
        Ok(Epoll { fd, ready: Vec::new(), deadline: None, alarm: Arc::new(alarm) })
    }

    /// Waits until a socket is ready, the deadline has come or somebody wakes. `events` is a buffer.
    fn wait(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        self.alarm.waiting.store(true, Ordering::SeqCst);
        let rung = self.alarm.rung.load(Ordering::SeqCst);
        let left = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
        let timeout = if rung { Some(Duration::ZERO) } else { self.deadline.map(left) };
        let timeout = timeout.map(|left| Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 }));
        events.clear();
        let waited = epoll::wait(&self.fd, spare_capacity(events), timeout.as_ref());
        self.alarm.waiting.store(false, Ordering::SeqCst);
        self.alarm.rung.store(false, Ordering::SeqCst);
        let sockets = events.iter().filter(|event| event.data.u64() != WAKE_TOKEN);
        self.ready.extend(sockets.map(|event| (event.data.u64(), readiness(event.flags))));
        match waited {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Runs a driver to its end on this thread.
///
/// # Errors
/// The operating system's, when it can wait no more.
pub fn drive(driver: Driver<Epoll>) -> io::Result<()> {
    let mut driver = pin!(driver);
    let waker = Waker::from(Arc::clone(&driver.as_mut().get_mut().poller().alarm));
    let mut context = Context::from_waker(&waker);
    let mut events = Vec::with_capacity(EVENTS_MAX);
    while driver.as_mut().poll(&mut context).is_pending() {
        driver.as_mut().get_mut().poller().wait(&mut events)?;
    }
    Ok(())
}

impl Poller for Epoll {
    type Stream = Link<Socket>;

    fn register(&mut self, stream: &Link<Socket>, token: u64) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        let Some(socket) = stream.socket() else { return Ok(()) };
        Ok(epoll::add(&self.fd, &socket.socket, EventData::new_u64(token), flags)?)
    }

    fn forget(&mut self, stream: &Link<Socket>) {
        if let Some(socket) = stream.socket()
            && let Err(error) = epoll::delete(&self.fd, &socket.socket)
        {
            tracing::debug!(%error, "a connection that moves was not watched");
        }
    }

    fn take_ready(&mut self, ready: &mut Vec<(u64, Readiness)>) {
        ready.append(&mut self.ready);
    }

    fn set_ready(stream: &mut Link<Socket>, readiness: Readiness) {
        let Some(socket) = stream.socket_mut() else { return };
        socket.readable |= readiness.readable;
        socket.writable |= readiness.writable;
        socket.ended |= readiness.ended;
    }

    fn wake_at(&mut self, _: &mut Context<'_>, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    /// Events come through [`Poller::take_ready`]; nobody is woken, but by what is no socket.
    fn waker(stream: &Link<Socket>, wake: impl FnOnce() -> Waker) -> Waker {
        if stream.wakes() { wake() } else { Waker::noop().clone() }
    }
}

/// `AsyncFd::new` is deprecated because it takes types that do not own their file descriptor and could outlive it; its
/// replacement is an unsafe function. Ours own theirs.
#[allow(deprecated)]
fn watched<T: AsRawFd + Into<OwnedFd>>(owner: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::new(owner)
}

fn readiness(flags: EventFlags) -> Readiness {
    let ended = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
    Readiness { readable: flags.contains(EventFlags::IN), writable: flags.contains(EventFlags::OUT), ended }
}

/// A TCP connection watched by an [`Epoll`].
#[derive(Debug)]
pub struct Socket {
    socket: TcpStream,
    /// A read may give something. True at first: what came before the registration is not told.
    readable: bool,
    /// A write may take something.
    writable: bool,
    /// The peer has ended its side or the connection has failed: reading is always worth a try.
    ended: bool,
}

impl From<TcpStream> for Socket {
    /// A connection that does not block.
    fn from(socket: TcpStream) -> Socket {
        Socket { socket, readable: true, writable: true, ended: false }
    }
}

impl From<Socket> for TcpStream {
    fn from(socket: Socket) -> TcpStream {
        socket.socket
    }
}

impl Socket {
    fn wrote(&mut self, written: io::Result<usize>, wanted: usize) -> Poll<io::Result<usize>> {
        match written {
            Ok(count) => {
                // The socket is full: it says when it is not, so there is no need to be told so first.
                self.writable = count == wanted;
                Poll::Ready(Ok(count))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.writable = false;
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.readable && !this.ended {
            return Poll::Pending;
        }
        let wanted = buffer.remaining();
        loop {
            match this.socket.read(buffer.initialize_unfilled()) {
                Ok(count) => {
                    buffer.advance(count);
                    // Less than there was room for: all of it. More will be told.
                    this.readable = count == wanted;
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    this.readable = false;
                    // An end of the connection that reading does not show yet comes as another event.
                    this.ended = false;
                    return Poll::Pending;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.writable && !this.ended {
            return Poll::Pending;
        }
        let written = this.socket.write(bytes);
        this.wrote(written, bytes.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.writable && !this.ended {
            return Poll::Pending;
        }
        let written = this.socket.write_vectored(slices);
        this.wrote(written, slices.iter().map(|slice| slice.len()).sum())
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.shutdown(Shutdown::Write))
    }
}

/// A listening socket whose connections are not known to tokio.
#[derive(Debug)]
pub struct Listener(AsyncFd<TcpListener>);

impl Listener {
    /// From a socket that listens and does not block. Inside a tokio runtime.
    ///
    /// # Errors
    /// The operating system's.
    pub fn new(socket: TcpListener) -> io::Result<Listener> {
        Ok(Listener(watched(socket)?))
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The operating system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().local_addr()
    }

    /// The next connection.
    ///
    /// # Errors
    /// The operating system's, for example that the process has too many open files.
    pub async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        loop {
            let mut guard = self.0.readable().await?;
            let accepted = guard.try_io(|socket| {
                let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
                Ok(rustix::net::acceptfrom_with(socket.get_ref(), flags)?)
            });
            match accepted {
                Ok(Ok((socket, address))) => {
                    let address = address.and_then(|address| SocketAddr::try_from(address).ok());
                    // A TCP connection has an address unless it is gone already.
                    let address = address.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted))?;
                    let socket = TcpStream::from(socket);
                    return Ok((Socket::from(socket), address));
                }
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }
}
