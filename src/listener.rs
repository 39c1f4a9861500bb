//! Listeners: they accept connections and hand them to the drivers.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use newtmq_base::ListenerId;

use crate::driver::{Accepted, Dealer};
use crate::rt::{Listener, Stream};

/// Pause after the process ran out of file descriptors or memory.
const BACK_OFF: Duration = Duration::from_millis(200);

/// Accepts until the drivers are gone. An error never ends it: out of file descriptors it waits until some are closed.
pub async fn accept(listener: Listener, id: ListenerId, name: String, mut dealer: Dealer<Stream>) {
    let mut refused = 0_u64;
    loop {
        let (stream, address) = match listener.accept().await {
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
        if !dealer.deal(Accepted { stream, address: canonical(address), listener: id }).await {
            return;
        }
    }
}

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
