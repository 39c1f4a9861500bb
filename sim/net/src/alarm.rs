//! Waking a task at a simulated time. madsim's timers cannot be taken back, and its sleeps last a millisecond at least
//! and make a timer at every poll; an alarm makes one only if no earlier one is set.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use madsim::time::TimeHandle;

/// A time that never comes, in nanoseconds since the start of the runtime.
pub(crate) const NEVER: u64 = u64::MAX;

/// Wakes one task, possibly too early, never too late.
#[derive(Debug)]
pub struct Alarm {
    waker: Option<Waker>,
    /// The earliest timer that is set for `waker`.
    at: u64,
    /// The task waits; otherwise there is nobody to wake.
    waiting: bool,
}

impl Default for Alarm {
    fn default() -> Alarm {
        Alarm { waker: None, at: NEVER, waiting: false }
    }
}

impl Alarm {
    /// Has the task polled at `deadline`, or at once if that has passed; with none it is left alone.
    pub fn wake_at(&mut self, context: &mut Context<'_>, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return };
        self.wait(context);
        let time = TimeHandle::current();
        let now = nanos(&time);
        let ahead = deadline.saturating_duration_since(time.now_instant());
        self.set(&time, now, now.saturating_add(u64::try_from(ahead.as_nanos()).unwrap_or(NEVER)));
    }

    /// The task waits until [`Alarm::set`] wakes it.
    #[inline]
    pub(crate) fn wait(&mut self, context: &mut Context<'_>) {
        self.waiting = true;
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            self.waker = Some(context.waker().clone());
            self.at = NEVER;
        }
    }

    /// The task has what it waited for.
    #[inline]
    pub(crate) fn done(&mut self) {
        self.waiting = false;
    }

    /// Wakes the task at this time if it waits.
    #[inline]
    pub(crate) fn set(&mut self, time: &TimeHandle, now: u64, at: u64) {
        let Some(waker) = self.waker.as_ref().filter(|_| self.waiting && at != NEVER) else { return };
        if at <= now {
            waker.wake_by_ref();
        } else if self.at <= now || at < self.at {
            self.at = at;
            let mut sleep = time.sleep(Duration::ZERO);
            let mut sleep = Pin::new(&mut sleep);
            sleep.as_mut().reset(time.now_instant() + Duration::from_nanos(at - now));
            // The timer outlives the sleep.
            let _ = sleep.poll(&mut Context::from_waker(waker));
        }
    }
}

/// Nanoseconds since the start of the runtime.
#[inline]
pub(crate) fn nanos(time: &TimeHandle) -> u64 {
    time.elapsed().as_nanos() as u64
}

/// Waits until this time.
pub(crate) async fn until(time: &TimeHandle, at: u64) {
    let mut alarm = Alarm::default();
    poll_fn(|context| {
        let now = nanos(time);
        if now >= at {
            return Poll::Ready(());
        }
        alarm.wait(context);
        alarm.set(time, now, at);
        Poll::Pending
    })
    .await;
}
