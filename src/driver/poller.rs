//! Where a driver's streams say that they are ready.

use std::future::Future as _;
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::DriverStream;

/// What a stream can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readiness {
    /// There is something to read.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
    /// The peer has ended its side, or the connection has failed.
    pub ended: bool,
}

/// Watches streams that do not wake anybody by themselves.
pub trait Poller {
    /// The streams.
    type Stream: DriverStream;

    /// Starts to watch a stream. It is watched until it is dropped.
    ///
    /// # Errors
    /// The operating system's; the stream is of no use then.
    fn register(&mut self, stream: &Self::Stream, token: u64) -> io::Result<()>;

    /// Watches a stream no longer; another poller will.
    fn forget(&mut self, stream: &Self::Stream);

    /// Appends which streams have become ready, by token.
    fn take_ready(&mut self, ready: &mut Vec<(u64, Readiness)>);

    /// Has the driver polled at this time at the latest; none takes back what was asked for.
    fn wake_at(&mut self, context: &mut Context<'_>, deadline: Option<Instant>);

    /// Tells a stream what [`Poller::take_ready`] said of it.
    fn set_ready(stream: &mut Self::Stream, readiness: Readiness);

    /// What a stream is polled with: what `wake` makes, if it wakes by itself.
    fn waker(_stream: &Self::Stream, wake: impl FnOnce() -> Waker) -> Waker {
        wake()
    }
}

/// For streams that wake by themselves, as those of tokio do, and TLS and WebSocket over them.
#[derive(Debug)]
pub struct Wakers<S> {
    sleep: Pin<Box<Sleep>>,
    /// What `sleep` is set to.
    deadline: Option<Instant>,
    streams: PhantomData<S>,
}

impl<S> Default for Wakers<S> {
    /// Inside a runtime with timers.
    fn default() -> Self {
        Wakers { sleep: Box::pin(tokio::time::sleep(Duration::ZERO)), deadline: None, streams: PhantomData }
    }
}

impl<S: DriverStream> Poller for Wakers<S> {
    type Stream = S;

    fn register(&mut self, _: &S, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn forget(&mut self, _: &S) {}

    fn take_ready(&mut self, _: &mut Vec<(u64, Readiness)>) {}

    fn wake_at(&mut self, context: &mut Context<'_>, deadline: Option<Instant>) {
        let Some(wanted) = deadline else {
            self.deadline = None;
            return;
        };
        if self.deadline != deadline {
            self.deadline = deadline;
            self.sleep.as_mut().reset(wanted);
        }
        if self.sleep.as_mut().poll(context).is_ready() {
            self.deadline = None;
            context.waker().wake_by_ref();
        }
    }

    fn set_ready(_: &mut S, _: Readiness) {}
}

/// The same in the simulator, whose sleeps make a timer at every poll.
#[cfg(madsim)]
#[derive(Debug)]
pub struct Alarms<S> {
    alarm: newtmq_simnet::Alarm,
    streams: PhantomData<S>,
}

#[cfg(madsim)]
impl<S> Default for Alarms<S> {
    fn default() -> Self {
        Alarms { alarm: newtmq_simnet::Alarm::default(), streams: PhantomData }
    }
}

#[cfg(madsim)]
impl<S: DriverStream> Poller for Alarms<S> {
    type Stream = S;

    fn register(&mut self, _: &S, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn forget(&mut self, _: &S) {}

    fn take_ready(&mut self, _: &mut Vec<(u64, Readiness)>) {}

    fn wake_at(&mut self, context: &mut Context<'_>, deadline: Option<Instant>) {
        self.alarm.wake_at(context, deadline);
    }

    fn set_ready(_: &mut S, _: Readiness) {}
}
