//! What services that know where other nodes are have in common: which of several servers is asked, how long is waited
//! before it is asked again, and why an answer is no good.

use std::time::Duration;

use hyper::StatusCode;

use super::discovery::AGAIN;
use super::http::HttpError;
use crate::rt;

/// Why a service does not help.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// There is no answer.
    #[error("{0}")]
    Http(#[from] HttpError),
    /// It says no; the text says to what and why.
    #[error("{message}")]
    Refused { status: StatusCode, message: String },
    /// The answer is not what it should be.
    #[error("{0}")]
    Malformed(String),
}

impl Fault {
    /// What a server that has answered before is left for.
    pub(super) fn is_outage(&self) -> bool {
        match self {
            Fault::Http(error) => !matches!(error, HttpError::Broken(_) | HttpError::TooLarge(_)),
            Fault::Refused { .. } | Fault::Malformed(_) => false,
        }
    }

    /// A connection that has ended: only if the next one fails there is something to tell.
    pub(super) fn is_end(&self) -> bool {
        matches!(self, Fault::Http(HttpError::Broken(_)))
    }
}

/// How often is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// After an answer, when nothing tells of changes.
    pub(super) again: Duration,
    /// After a connection that has ended.
    pub(super) back_off_min: Duration,
    /// After every server has failed again and again.
    pub(super) back_off_max: Duration,
    /// Others that start at this moment are to be listed before anything is founded.
    pub(super) listen_first: Duration,
}

impl Pace {
    pub(super) const USUAL: Pace = Pace {
        again: AGAIN,
        back_off_min: Duration::from_secs(1),
        back_off_max: Duration::from_secs(10),
        listen_first: Duration::from_secs(5),
    };
}

/// Which of some servers is asked next, and when.
#[derive(Debug)]
pub(super) struct Rotation {
    servers: usize,
    at: usize,
    /// Attempts in a row that have failed.
    failed: u32,
    pace: Pace,
}

impl Rotation {
    /// Nodes begin with different servers.
    pub(super) fn new(servers: usize, pace: Pace, chance: u32) -> Rotation {
        assert!(servers > 0, "the configuration has no kind of discovery without its servers");
        Rotation { servers, at: chance as usize % servers, failed: 0, pace }
    }

    /// The server to ask.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// It has answered, until the connection ended: it is asked again, after this time.
    pub(super) fn answered(&mut self, chance: u32) -> Duration {
        self.failed = 0;
        spread(self.pace.back_off_min, chance)
    }

    /// It has not answered: another one is asked at once, and all of them again after a time that doubles.
    pub(super) fn failed(&mut self, chance: u32) -> Duration {
        self.failed = self.failed.saturating_add(1);
        self.at = (self.at + 1) % self.servers;
        let servers = u32::try_from(self.servers).unwrap_or(u32::MAX);
        if !self.failed.is_multiple_of(servers) {
            return spread(self.pace.back_off_min / 10, chance);
        }
        let rounds = (self.failed / servers - 1).min(DOUBLINGS_MAX);
        spread((self.pace.back_off_min * (1 << rounds)).min(self.pace.back_off_max), chance)
    }
}

/// From half of it to one and a half: nodes that lost a server at one moment do not come back at one.
fn spread(time: Duration, chance: u32) -> Duration {
    time / 2 + time.mul_f64(f64::from(chance) / f64::from(u32::MAX))
}

/// A random number; the middle if the operating system has none.
pub(super) fn chance() -> u32 {
    rt::seed().map_or(u32::MAX / 2, |seed| u32::from_le_bytes(*seed.first_chunk().expect("a seed is longer")))
}

const DOUBLINGS_MAX: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_take_turns_and_waits_double() {
        const MIDDLE: u32 = u32::MAX / 2;
        let mut rotation = Rotation::new(3, Pace::USUAL, 4);
        let seen: Vec<(usize, u64)> = (0..12)
            .map(|_| (rotation.at(), u64::try_from(rotation.failed(MIDDLE).as_millis()).unwrap().next_multiple_of(100)))
            .collect();
        let want = [1, 2, 0].into_iter().cycle();
        assert!(seen.iter().map(|(at, _)| *at).eq(want.take(12)), "{seen:?}");
        let waits: Vec<u64> = seen.iter().map(|(_, wait)| *wait).collect();
        assert_eq!(waits, [100, 100, 1000, 100, 100, 2000, 100, 100, 4000, 100, 100, 8000]);
        for _ in 0..100 {
            assert!(rotation.failed(u32::MAX) <= Pace::USUAL.back_off_max * 3 / 2);
        }
        let at = rotation.at();
        assert!(rotation.answered(0) >= Pace::USUAL.back_off_min / 2);
        assert_eq!(rotation.at(), at);
    }
}
