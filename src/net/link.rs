//! A connection of any transport.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::tls::Tls;
use super::ws::Ws;
use crate::driver::{DriverStream, Note, Told};
use crate::sn::PipeEnd;

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
    /// The gateway for MQTT-SN, for one of its devices.
    Sn(PipeEnd),
}

impl<S> Link<S> {
    /// The socket below, if there is one.
    pub fn socket(&self) -> Option<&S> {
        match self {
            Link::Tcp(socket) => Some(socket),
            Link::Tls(tls) => Some(tls.inner()),
            Link::Ws(ws) => Some(ws.inner()),
            Link::Wss(wss) => Some(wss.inner().inner()),
            Link::Sn(_) => None,
        }
    }

    /// The socket below, if there is one.
    pub fn socket_mut(&mut self) -> Option<&mut S> {
        match self {
            Link::Tcp(socket) => Some(socket),
            Link::Tls(tls) => Some(tls.inner_mut()),
            Link::Ws(ws) => Some(ws.inner_mut()),
            Link::Wss(wss) => Some(wss.inner_mut().inner_mut()),
            Link::Sn(_) => None,
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
            Link::Sn($stream) => $call,
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

impl<S: AsyncRead + AsyncWrite + Unpin> DriverStream for Link<S> {
    fn wakes(&self) -> bool {
        matches!(self, Link::Sn(_))
    }

    fn take_note(&mut self) -> Option<Note> {
        if let Link::Sn(pipe) = self { pipe.take_note() } else { None }
    }

    fn tell(&mut self, told: Told) {
        if let Link::Sn(pipe) = self {
            pipe.tell(told);
        }
    }
}
