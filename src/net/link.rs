//! A connection of any transport.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::tls::Tls;
use super::ws::Ws;

/// A connection whose bytes are MQTT, over a socket `S`. TCP costs no indirection, the others one.
#[derive(Debug)]
pub enum Link<S> {
    /// TCP.
    Tcp(S),
    /// TLS.
    Tls(Box<Tls<S>>),
    /// WebSocket.
    Ws(Box<Ws<S>>),
    /// WebSocket on TLS.
    Wss(Box<Ws<Tls<S>>>),
}

impl<S> Link<S> {
    /// The socket below.
    pub fn socket(&self) -> &S {
        match self {
            Link::Tcp(socket) => socket,
            Link::Tls(tls) => tls.inner(),
            Link::Ws(ws) => ws.inner(),
            Link::Wss(wss) => wss.inner().inner(),
        }
    }

    /// The socket below.
    pub fn socket_mut(&mut self) -> &mut S {
        match self {
            Link::Tcp(socket) => socket,
            Link::Tls(tls) => tls.inner_mut(),
            Link::Ws(ws) => ws.inner_mut(),
            Link::Wss(wss) => wss.inner_mut().inner_mut(),
        }
    }
}

/// Calls the same method of whatever the link is.
macro_rules! each {
    ($link:expr, $stream:ident => $call:expr) => {
        match $link.get_mut() {
            Link::Tcp($stream) => $call,
            Link::Tls($stream) => $call,
            Link::Ws($stream) => $call,
            Link::Wss($stream) => $call,
        }
    };
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Link<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Link<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
