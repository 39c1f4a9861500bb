//! The only place that names what differs between production (tokio) and the simulator's madsim tier: the runtime,
//! listening, signals, random bytes. Everything else uses what both have.

mod datagrams;
mod files;
mod peers;

use std::future::Future;
use std::io;

use newtmq_base::{Instant, SEED_BYTES, WallTime};

use crate::net::Link;

/// What watches the connections of a driver.
pub type Streams = tcp::Streams;
/// A TCP connection.
pub type Socket = tcp::Socket;
/// A connection of any transport.
pub type Stream = Link<Socket>;
/// A listening TCP socket.
pub type Listener = tcp::Listener;
pub use tcp::{drive, from_async, into_async, streams};
/// What wakes the driver of the control plane.
#[cfg(not(madsim))]
pub type Alarm = crate::driver::Wakers<Stream>;
/// What wakes the driver of the control plane.
#[cfg(madsim)]
pub type Alarm = crate::driver::Alarms<Stream>;

/// Connections on an epoll instance of our own.
#[cfg(all(target_os = "linux", not(madsim)))]
mod tcp {
    use std::io;
    use std::thread;

    use newtmq_base::ShardId;
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;

    use crate::driver::Driver;
    pub(super) use crate::epoll::{Epoll as Streams, Listener, Socket};

    /// Runs a driver to its end, on a thread of its own.
    ///
    /// # Errors
    /// The thread cannot be started, it can wait for its sockets no more, or it has panicked.
    pub async fn drive(driver: Driver<Streams>, shard: ShardId) -> io::Result<()> {
        let (ended, end) = oneshot::channel();
        let body = move || {
            // Nobody may be left to hear it.
            let _ = ended.send(crate::epoll::drive(driver));
        };
        thread::Builder::new().name(format!("shard-{}", shard.0)).spawn(body)?;
        end.await.unwrap_or_else(|_| Err(io::Error::other("the shard has panicked")))
    }

    /// Watches no connection yet.
    ///
    /// # Errors
    /// The operating system's.
    pub fn streams() -> io::Result<Streams> {
        Streams::new()
    }

    /// Has tokio watch a connection, for what comes before MQTT.
    ///
    /// # Errors
    /// The operating system's.
    pub fn into_async(socket: Socket) -> io::Result<TcpStream> {
        TcpStream::from_std(socket.into())
    }

    /// Takes it back from tokio.
    ///
    /// # Errors
    /// The operating system's.
    pub fn from_async(stream: TcpStream) -> io::Result<Socket> {
        stream.into_std().map(Socket::from)
    }
}

/// Connections that tokio, or the simulator in its place, watches.
#[cfg(any(not(target_os = "linux"), madsim))]
mod tcp {
    use std::io;

    #[cfg(madsim)]
    pub(super) use newtmq_simnet::{SimListener as Listener, SimStream as Socket};
    #[cfg(not(madsim))]
    pub(super) use tokio::net::{TcpListener as Listener, TcpStream as Socket};

    use newtmq_base::ShardId;

    use crate::driver::Driver;
    use crate::net::Link;

    #[cfg(madsim)]
    pub(super) type Streams = crate::driver::Alarms<Link<Socket>>;
    #[cfg(not(madsim))]
    pub(super) type Streams = crate::driver::Wakers<Link<Socket>>;

    /// Runs a driver to its end.
    ///
    /// # Errors
    /// None.
    pub async fn drive(driver: Driver<Streams>, _: ShardId) -> io::Result<()> {
        driver.await;
        Ok(())
    }

    /// Watches no connection yet.
    ///
    /// # Errors
    /// None.
    pub fn streams() -> io::Result<Streams> {
        Ok(Streams::default())
    }

    /// It is watched already.
    ///
    /// # Errors
    /// None.
    pub fn into_async(socket: Socket) -> io::Result<Socket> {
        Ok(socket)
    }

    /// It stays as it is.
    ///
    /// # Errors
    /// None.
    pub fn from_async(socket: Socket) -> io::Result<Socket> {
        Ok(socket)
    }
}

/// The monotonic clock of a node, as the core's time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: tokio::time::Instant,
    /// What it showed then.
    from: Instant,
}

impl Clock {
    /// A clock that starts at zero.
    #[must_use]
    pub fn start() -> Clock {
        Clock::start_at(Instant::START)
    }

    /// A clock that goes on from a time.
    #[must_use]
    pub fn start_at(from: Instant) -> Clock {
        Clock { start: tokio::time::Instant::now(), from }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.from + self.start.elapsed()
    }

    /// A time of the core as one that can be slept until.
    #[must_use]
    pub fn at(&self, instant: Instant) -> tokio::time::Instant {
        self.start + instant.saturating_since(self.from)
    }
}

/// Wall-clock time, for what is shown to people.
#[must_use]
pub fn wall_time() -> WallTime {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    WallTime(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(not(madsim))]
mod imp {
    use std::sync::{Arc, Mutex, PoisonError};
    use std::thread;
    use std::time::Duration;

    use socket2::{Domain, Protocol, Socket, Type};
    use tokio::sync::{mpsc, oneshot};

    use super::{Future, SEED_BYTES, io};
    use crate::config::Listener as Facts;

    /// Runs a future to its end on this thread; what it spawns runs on as many threads as the machine has cores, so that
    /// TLS handshakes use all of them.
    ///
    /// # Errors
    /// The operating system's, when the runtime is made.
    pub fn block_on<F: Future>(future: F) -> io::Result<F::Output> {
        let runtime = tokio::runtime::Builder::new_multi_thread().thread_name("net").enable_all().build()?;
        let output = runtime.block_on(future);
        // What a name server does not answer waits on in a thread, and would keep the process, and with it the data directory.
        runtime.shutdown_timeout(WORK_END);
        Ok(output)
    }

    /// What is still being done when the runtime ends has this long: an operator's change that is being written.
    const WORK_END: Duration = Duration::from_secs(1);

    /// Opens a listener. Port 0 picks a free one.
    ///
    /// # Errors
    /// The operating system's, for example that the address is in use.
    #[allow(clippy::unused_async)] // asynchronous in the simulator
    pub async fn listen(facts: &Facts) -> io::Result<super::Listener> {
        let address = facts.bind;
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restart must not wait for old connections to leave TIME_WAIT; two listeners are still refused.
        socket.set_reuse_address(facts.reuseaddr)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // Connections take these over from the socket that accepts them.
        socket.set_tcp_nodelay(facts.nodelay)?;
        if facts.recbuf > 0 {
            socket.set_recv_buffer_size(facts.recbuf as usize)?;
        }
        if facts.sndbuf > 0 {
            socket.set_send_buffer_size(facts.sndbuf as usize)?;
        }
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(facts.send_timeout).filter(|timeout| !timeout.is_zero()))?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(i32::try_from(facts.backlog).unwrap_or(i32::MAX))?;
        #[cfg(target_os = "linux")]
        return super::Listener::new(socket.into());
        #[cfg(not(target_os = "linux"))]
        super::Listener::from_std(socket.into())
    }

    /// Runs a future on a thread of its own, with a runtime for nothing else; the outcome comes by the channel.
    ///
    /// # Errors
    /// The operating system's.
    pub fn on_own_thread<F: Future>(
        name: &str,
        make: impl FnOnce() -> F + Send + 'static,
    ) -> io::Result<oneshot::Receiver<F::Output>>
    where
        F::Output: Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (ended, end) = oneshot::channel();
        // Nobody may be left to hear it.
        let body = move || drop(ended.send(runtime.block_on(async { make().await })));
        thread::Builder::new().name(name.to_owned()).spawn(body)?;
        Ok(end)
    }

    /// Random bytes from the operating system.
    ///
    /// # Errors
    /// It has none.
    pub fn seed() -> io::Result<[u8; SEED_BYTES]> {
        let mut seed = [0; SEED_BYTES];
        getrandom::fill(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(seed)
    }

    /// How much the work of [`work`] gives way to everything else; 19 is the most. Linux takes it for the thread alone.
    #[cfg(target_os = "linux")]
    const WORK_NICENESS: i32 = 10;

    /// Does `workers.len()` pieces of work at a time, each on a thread of its own, until nobody can send any more.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn work<T: Send + 'static>(
        name: &str,
        work: mpsc::Receiver<T>,
        workers: Vec<impl FnMut(T) + Send + 'static>,
    ) -> io::Result<()> {
        let work = Arc::new(Mutex::new(work));
        for (at, mut worker) in workers.into_iter().enumerate() {
            let work = Arc::clone(&work);
            // One waits for the next piece, the others for their turn to do so.
            let next = move || work.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
            let body = move || {
                // Where there are fewer processors than work, clients that are connected come first.
                #[cfg(target_os = "linux")]
                if let Err(error) = rustix::process::setpriority_process(None, WORK_NICENESS) {
                    tracing::debug!(%error, "work has the same priority as the shards");
                }
                while let Some(piece) = next() {
                    worker(piece);
                }
            };
            thread::Builder::new().name(format!("{name}-{at}")).spawn(body)?;
        }
        Ok(())
    }

    /// Waits for SIGHUP; repeatable.
    #[derive(Debug)]
    pub struct ReloadSignals(tokio::signal::unix::Signal);

    impl ReloadSignals {
        /// Listens for it from here on.
        ///
        /// # Errors
        /// The operating system's.
        pub fn new() -> io::Result<ReloadSignals> {
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).map(ReloadSignals)
        }

        /// The next one.
        pub async fn next(&mut self) {
            self.0.recv().await;
        }
    }

    /// Waits for SIGTERM or SIGINT; repeatable.
    #[derive(Debug)]
    pub struct StopSignals {
        terminate: tokio::signal::unix::Signal,
        interrupt: tokio::signal::unix::Signal,
    }

    impl StopSignals {
        /// Listens for them from here on.
        ///
        /// # Errors
        /// The operating system's.
        pub fn new() -> io::Result<StopSignals> {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(StopSignals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
        }

        /// The next one's name.
        pub async fn next(&mut self) -> &'static str {
            tokio::select! {
                biased;
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.interrupt.recv() => "SIGINT",
            }
        }
    }
}

#[cfg(madsim)]
mod imp {
    use tokio::sync::{mpsc, oneshot};

    use super::{Future, Listener, SEED_BYTES, io};
    use crate::config::Listener as Facts;

    /// Runs a future to its end in a simulation of its own. A simulation that has more than a broker has its own runtime,
    /// and no use for this.
    ///
    /// # Errors
    /// None.
    pub fn block_on<F: Future>(future: F) -> io::Result<F::Output> {
        let runtime = madsim::runtime::Runtime::new();
        newtmq_simnet::install(&runtime);
        Ok(runtime.block_on(future))
    }

    /// Opens a listener of the simulated node.
    ///
    /// # Errors
    /// The simulator's.
    pub async fn listen(facts: &Facts) -> io::Result<Listener> {
        Listener::bind(facts.bind).await
    }

    /// Runs a future in a task: the simulator has one thread.
    ///
    /// # Errors
    /// None.
    pub fn on_own_thread<F: Future + Send + 'static>(
        _: &str,
        make: impl FnOnce() -> F + Send + 'static,
    ) -> io::Result<oneshot::Receiver<F::Output>>
    where
        F::Output: Send + 'static,
    {
        let (ended, end) = oneshot::channel();
        let running = make();
        tokio::spawn(async move { drop(ended.send(running.await)) });
        Ok(end)
    }

    /// From the simulation's seed.
    ///
    /// # Errors
    /// None.
    pub fn seed() -> io::Result<[u8; SEED_BYTES]> {
        use madsim::rand::Rng as _;
        Ok(madsim::rand::thread_rng().r#gen())
    }

    /// Does the work in one task: the simulator has one thread.
    ///
    /// # Errors
    /// None.
    pub fn work<T: Send + 'static>(
        _name: &str,
        mut work: mpsc::Receiver<T>,
        workers: Vec<impl FnMut(T) + Send + 'static>,
    ) -> io::Result<()> {
        if let Some(mut worker) = workers.into_iter().next() {
            tokio::spawn(async move {
                while let Some(piece) = work.recv().await {
                    worker(piece);
                }
            });
        }
        Ok(())
    }

    /// The simulator has no SIGHUP.
    #[derive(Debug)]
    pub struct ReloadSignals(());

    impl ReloadSignals {
        /// Listens for nothing.
        ///
        /// # Errors
        /// None.
        pub fn new() -> io::Result<ReloadSignals> {
            Ok(ReloadSignals(()))
        }

        /// Never.
        pub async fn next(&mut self) {
            std::future::pending().await
        }
    }

    /// The simulator knows only Ctrl-C.
    #[derive(Debug)]
    pub struct StopSignals(());

    impl StopSignals {
        /// Listens for it from here on.
        ///
        /// # Errors
        /// None.
        pub fn new() -> io::Result<StopSignals> {
            Ok(StopSignals(()))
        }

        /// The next one's name.
        pub async fn next(&mut self) -> &'static str {
            match tokio::signal::ctrl_c().await {
                Ok(()) => "SIGINT",
                Err(_) => std::future::pending().await,
            }
        }
    }
}

pub use datagrams::*;
pub use files::LogFile;
pub use imp::*;
pub use peers::*;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    #[test]
    fn a_name_server_that_hangs_does_not_keep_the_process() {
        let (never, hangs) = std::sync::mpsc::channel::<()>();
        let started = Instant::now();
        let output = super::block_on(async {
            drop(tokio::task::spawn_blocking(move || hangs.recv()));
            7
        });
        assert_eq!(output.unwrap(), 7);
        assert!(started.elapsed() < Duration::from_secs(30));
        drop(never);
    }
}
