//! Listeners: they accept connections and hand them to the drivers, at once or after what comes before MQTT.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::driver::Dealer;
use crate::net::intake::Intake;
use crate::rt::{Listener, Stream};

/// Connections of a listener that are being prepared: TLS handshakes and the like. At the limit accepting pauses, which is
/// counted; the steps' time limits end it.
pub const INTAKE_MAX: usize = 2048;
/// Pause after the process ran out of file descriptors or memory.
const BACK_OFF: Duration = Duration::from_millis(200);

/// Accepts until the drivers are gone. An error never ends it: out of file descriptors it waits until some are closed.
pub async fn accept(listener: Listener, intake: Arc<Intake>, mut dealer: Dealer<Stream>) {
    let name = intake.listener().path();
    let slots = Arc::new(Semaphore::new(INTAKE_MAX));
    let mut rate = Rate::new(intake.max_conn_rate());
    let mut refused = 0_u64;
    loop {
        let accepted = tokio::select! {
            biased;
            () = intake.ended() => {
                tracing::info!(listener = name, "accepts no connection any more");
                return;
            }
            accepted = listener.accept() => accepted,
        };
        let (socket, address) = match accepted {
            Ok(connection) => connection,
            Err(error) if is_of_the_connection(&error) => continue,
            Err(error) => {
                if refused == 0 {
                    tracing::warn!(listener = name, %error, "cannot accept connections; trying again until it works");
                }
                refused += 1;
                tokio::time::sleep(BACK_OFF).await;
                continue;
            }
        };
        if refused > 0 {
            tracing::info!(listener = name, attempts = refused, "accepting connections again");
            refused = 0;
        }
        intake.counters.accepted.fetch_add(1, Ordering::Relaxed);
        let address = canonical(address);
        if intake.is_direct() {
            match intake.direct(socket, address) {
                Ok(connection) => {
                    if !dealer.deal(connection).await {
                        return;
                    }
                }
                Err(why) => intake.refused(address, &why),
            }
        } else {
            if slots.available_permits() == 0 {
                intake.counters.intake_pauses.fetch_add(1, Ordering::Relaxed);
            }
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            let (intake, shard) = (Arc::clone(&intake), dealer.next_shard());
            tokio::spawn(async move {
                match intake.prepare(socket, address).await {
                    // Without a driver there is nobody to serve it.
                    Ok(connection) => drop(shard.send(connection).await),
                    Err(why) => intake.refused(address, &why),
                }
                drop(slot);
            });
        }
        rate.max = intake.max_conn_rate();
        if let Some(pause) = rate.count(Instant::now()) {
            intake.counters.rate_pauses.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep_until(pause).await;
        }
    }
}

/// Counts connections against `max_conn_rate`.
#[derive(Debug)]
struct Rate {
    /// A second; 0 for no limit.
    max: u32,
    since: Option<Instant>,
    count: u32,
}

impl Rate {
    fn new(max: u32) -> Rate {
        Rate { max, since: None, count: 0 }
    }

    /// Counts one connection; says until when to pause if that was the last one of this second.
    fn count(&mut self, now: Instant) -> Option<Instant> {
        if self.max == 0 {
            return None;
        }
        let end = match self.since {
            Some(since) if now < since + SECOND => since + SECOND,
            _ => {
                self.since = Some(now);
                self.count = 0;
                now + SECOND
            }
        };
        self.count += 1;
        (self.count >= self.max).then_some(end)
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// Errors of one connection that went away before it was accepted.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// An IPv4 address that came in through an IPv6 socket is shown as what it is.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_lets_so_many_pass_each_second() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut rate = Rate::new(2);
        assert_eq!(rate.count(at(0)), None);
        assert_eq!(rate.count(at(300)), Some(at(1000)), "until the second is over");
        assert_eq!(rate.count(at(1000)), None);
        assert_eq!(rate.count(at(2500)), None, "a second in which few came does not count for the next");
        assert_eq!(rate.count(at(2600)), Some(at(3500)));
        let mut unlimited = Rate::new(0);
        assert!((0..10_000).all(|_| unlimited.count(start).is_none()));
    }
}
