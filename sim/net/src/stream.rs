//! One end of a connection.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::conn::{self, Conn};
use crate::net::Net;

/// A simulated TCP connection. To drop it closes it as an operating system does: FIN, or RST if something was not read.
#[derive(Debug)]
pub struct SimStream {
    conn: Arc<Conn>,
    end: usize,
}

impl SimStream {
    pub(crate) fn new(conn: Arc<Conn>, end: usize) -> SimStream {
        SimStream { conn, end }
    }

    /// Connects over the link that the current node has to the node of this address.
    ///
    /// # Errors
    /// Nobody listens there, or nobody answers in time.
    pub async fn connect(address: SocketAddr) -> io::Result<SimStream> {
        let link = Net::current().link_to(address.ip());
        link.connect(address).await
    }

    /// The next piece that has arrived, at the end of `buffer`: when its last byte was written, since the start of the
    /// runtime; `None` if the peer has ended its side.
    ///
    /// # Errors
    /// The connection was reset.
    pub fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut Vec<u8>,
    ) -> Poll<io::Result<Option<Duration>>> {
        let give = |bytes: &[u8]| buffer.extend_from_slice(bytes);
        let taken = self.conn.poll_take(self.end, context, usize::MAX, false, give);
        taken.map_ok(|taken| taken.map(|(_, sent)| Duration::from_nanos(sent)))
    }

    /// Breaks the connection: what is under way is lost both ways, and the peer gets RST.
    pub fn reset(self) {
        self.conn.reset(self.end);
    }

    /// Forgets the connection without a word to the peer; what it sends is not answered.
    pub fn abandon(self) {
        self.conn.abandon(self.end);
    }

    /// This end's address.
    ///
    /// # Errors
    /// None.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.conn.addresses[self.end])
    }

    /// The other end's address.
    ///
    /// # Errors
    /// None.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.conn.addresses[1 - self.end])
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.conn.close(self.end);
    }
}

impl AsyncRead for SimStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        conn::poll_read(&self.conn, self.end, context, buffer)
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.conn.poll_write(self.end, context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.conn.poll_write(self.end, context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.conn.poll_shutdown(self.end, context)
    }
}
