//! Who has logged in: tokens that browsers keep, of which only a hash is kept here, and how long each is good.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use newtmq_base::Instant;
use sha2::{Digest as _, Sha256};

use crate::rt;

/// A login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Session {
    /// The first password has still to be changed.
    pub(super) must_change: bool,
}

#[derive(Debug)]
struct Entry {
    session: Session,
    since: Instant,
    seen: Instant,
}

/// All of them, by the hash of their token: how far a guess is right cannot be told from the time of a comparison.
#[derive(Debug)]
pub(super) struct Sessions {
    all: BTreeMap<[u8; 32], Entry>,
    idle_max: Duration,
}

impl Sessions {
    pub(super) fn new(idle_max: Duration) -> Sessions {
        Sessions { all: BTreeMap::new(), idle_max }
    }

    /// Begins one; returns its token. If there are too many, the one that was seen longest ago ends.
    pub(super) fn begin(&mut self, must_change: bool, now: Instant) -> io::Result<String> {
        let token = URL_SAFE_NO_PAD.encode(rt::seed()?);
        self.forget(now);
        if self.all.len() >= SESSIONS_MAX
            && let Some(oldest) = self.all.iter().min_by_key(|(_, entry)| entry.seen).map(|(hash, _)| *hash)
        {
            self.all.remove(&oldest);
        }
        self.all.insert(hash(&token), Entry { session: Session { must_change }, since: now, seen: now });
        Ok(token)
    }

    /// The one with this token, if it is still good; it is good for a while longer then.
    pub(super) fn find(&mut self, token: &str, now: Instant) -> Option<Session> {
        self.forget(now);
        let entry = self.all.get_mut(&hash(token))?;
        entry.seen = now;
        Some(entry.session)
    }

    pub(super) fn end(&mut self, token: &str) {
        self.all.remove(&hash(token));
    }

    pub(super) fn end_all(&mut self) {
        self.all.clear();
    }

    fn forget(&mut self, now: Instant) {
        let idle_max = self.idle_max;
        self.all.retain(|_, entry| now - entry.seen < idle_max && now - entry.since < WHOLE_MAX);
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// However much it is used, a login is over a day after it began.
pub(super) const WHOLE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Logins at a time.
const SESSIONS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::START + Duration::from_secs(seconds)
    }

    #[test]
    fn a_login_is_good_while_it_is_used_and_for_a_day() {
        let mut sessions = Sessions::new(Duration::from_secs(3600));
        let one = sessions.begin(true, at(0)).unwrap();
        assert_eq!(sessions.find(&one, at(3599)), Some(Session { must_change: true }));
        assert!(sessions.find(&one, at(7198)).is_some(), "it was used meanwhile");
        assert!(sessions.find(&one, at(10_798)).is_none());
        let two = sessions.begin(false, at(0)).unwrap();
        for hour in 0..24 {
            assert!(sessions.find(&two, at(hour * 3599)).is_some(), "{hour}");
        }
        assert!(sessions.find(&two, at(24 * 3600)).is_none());
        assert!(sessions.find("", at(0)).is_none());
    }

    #[test]
    fn one_ends_all_end_and_too_many_end_the_oldest() {
        let mut sessions = Sessions::new(Duration::from_secs(3600));
        let (one, two) = (sessions.begin(false, at(0)).unwrap(), sessions.begin(false, at(1)).unwrap());
        assert_ne!(one, two);
        sessions.end(&one);
        assert!(sessions.find(&one, at(2)).is_none() && sessions.find(&two, at(2)).is_some());
        for n in 0..SESSIONS_MAX as u64 {
            sessions.begin(false, at(3 + n)).unwrap();
        }
        assert_eq!(sessions.all.len(), SESSIONS_MAX);
        assert!(sessions.find(&two, at(100)).is_none());
        sessions.end_all();
        assert!(sessions.all.is_empty());
    }
}
