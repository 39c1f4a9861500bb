//! TLS over a stream, with rustls' unbuffered interface: records are taken apart where they were read, on the stack, so
//! that an idle connection holds no buffer.
//!
//! [`accept`] does the handshake, which costs most, before a connection comes to a shard. Everything that was decrypted
//! is given to the reader at once; nothing waits here for an event that will not come.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

/// The largest record that TLS 1.2 allows, with its header; one of TLS 1.3 is smaller.
const RECORD_MAX: usize = 5 + (16 << 10) + 2048;
/// Largest read during a handshake, so that little can come after it.
const HANDSHAKE_READ: usize = 4 << 10;
/// Most plaintext in a record.
const PLAINTEXT_MAX: usize = 16 << 10;
/// Most that a client may have sent of a handshake message before it is complete. Chains of certificates are the largest;
/// above it the handshake fails.
const HANDSHAKE_MAX: usize = 128 << 10;
/// Reads from the stream below in a row; then who reads has its turn, however little data they brought.
const READS_MAX: usize = 4;
/// Reads in a row that bring no data at all. A client that sends nothing but new keys and empty records that long is closed.
const FRUITLESS_READS_MAX: usize = 16;
/// Most encrypted bytes that wait for the socket: a record of data, and what the protocol itself has to say. Above it
/// the connection is closed.
const OUTPUT_MAX: usize = 64 << 10;

/// A TLS connection, on the server's side, after its handshake.
pub struct Tls<S> {
    inner: S,
    connection: UnbufferedServerConnection,
    /// The beginning of a record whose rest has not come; nearly always empty.
    input: Vec<u8>,
    /// Encrypted, and not yet taken by the socket; empty without an allocation when there is nothing.
    output: Vec<u8>,
    /// The client has said that nothing follows, or the stream has ended.
    ended: bool,
    /// We have said so.
    closed: bool,
    /// Data may have come with the end of the handshake, and wait in `connection` or `input`.
    fresh: bool,
}

impl<S: fmt::Debug> fmt::Debug for Tls<S> {
    /// Without keys or data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("inner", &self.inner).field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl<S> Tls<S> {
    /// The stream below.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// The stream below.
    pub fn inner_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The client's certificates, its own first.
    #[must_use]
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.connection.peer_certificates().unwrap_or_default()
    }

    /// The same connection over the stream that `change` makes of the one below.
    ///
    /// # Errors
    /// Those of `change`.
    pub fn try_map<T>(self, change: impl FnOnce(S) -> io::Result<T>) -> io::Result<Tls<T>> {
        let Tls { inner, connection, input, output, ended, closed, fresh } = self;
        Ok(Tls { inner: change(inner)?, connection, input, output, ended, closed, fresh })
    }
}

/// Does the handshake of a connection that was just accepted.
///
/// # Errors
/// The client's, the network's, or a client without a certificate that is needed.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(mut inner: S, config: Arc<ServerConfig>) -> io::Result<Tls<S>> {
    let mut connection = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
    let mut input = Vec::new();
    let mut output = Vec::new();
    loop {
        let status = connection.process_tls_records(&mut input);
        let discard = status.discard;
        let mut step = Step::Again;
        match status.state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                append(&mut output, |into| data.encode(into).map_err(needed))?
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                step = Step::Write;
            }
            Ok(ConnectionState::BlockedHandshake) => step = Step::Read,
            Ok(ConnectionState::WriteTraffic(_) | ConnectionState::ReadTraffic(_)) => step = Step::Ended,
            Ok(_) => return Err(io::ErrorKind::ConnectionAborted.into()),
            Err(error) => {
                // The alert that tells why; the client may be gone.
                alert(&mut connection, &mut input, &mut output);
                let _ = inner.write_all(&output).await;
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
        input.drain(..discard);
        match step {
            Step::Again => {}
            Step::Write => {
                inner.write_all(&output).await?;
                output.clear();
            }
            Step::Read => {
                if input.len() > HANDSHAKE_MAX {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "a handshake message is too long"));
                }
                let mut chunk = [0; HANDSHAKE_READ];
                match inner.read(&mut chunk).await? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count => input.extend_from_slice(&chunk[..count]),
                }
            }
            Step::Ended => {
                input.shrink_to_fit();
                return Ok(Tls { inner, connection, input, output, ended: false, closed: false, fresh: true });
            }
        }
    }
}

/// What a handshake does next.
enum Step {
    Again,
    Write,
    Read,
    Ended,
}

/// Collects the alert that follows an error.
fn alert(connection: &mut UnbufferedServerConnection, records: &mut [u8], output: &mut Vec<u8>) {
    if let Ok(ConnectionState::EncodeTlsData(mut data)) = connection.process_tls_records(records).state {
        let _ = append(output, |into| data.encode(into).map_err(needed));
    }
}

fn needed(error: EncodeError) -> Option<usize> {
    match error {
        EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => Some(required_size),
        EncodeError::AlreadyEncoded => None,
    }
}

fn room(error: EncryptError) -> Option<usize> {
    match error {
        EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => Some(required_size),
        EncryptError::EncryptExhausted => None,
    }
}

/// Lets `encode` write behind what `output` has; it says how much room it needs if there is too little.
fn append(output: &mut Vec<u8>, mut encode: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>) -> io::Result<()> {
    let before = output.len();
    let wanted = match encode(&mut []) {
        // Nothing to say takes no room.
        Ok(_) => return Ok(()),
        Err(Some(wanted)) => wanted,
        Err(None) => return Err(io::Error::other("nothing to encode")),
    };
    if before + wanted > OUTPUT_MAX {
        return Err(io::Error::other("too much output waits"));
    }
    output.resize(before + wanted, 0);
    let written = encode(&mut output[before..]).map_err(|_| io::Error::other("the room asked for is too little"))?;
    output.truncate(before + written);
    Ok(())
}

/// How far the records at hand were processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Processed {
    /// More has to come.
    All,
    /// The client says that nothing follows.
    Ended,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Tls<S> {
    /// Takes the records in `records` apart and puts their plaintext into `plain`, which has room for it. Returns how many
    /// bytes are done with.
    fn process(&mut self, records: &mut [u8], plain: &mut ReadBuf<'_>) -> io::Result<(usize, Processed)> {
        let mut done = 0;
        loop {
            let status = self.connection.process_tls_records(&mut records[done..]);
            let discard = status.discard;
            let mut stop = None;
            match status.state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(invalid)?;
                        if record.payload.len() > plain.remaining() {
                            return Err(io::Error::other("more plaintext than was encrypted"));
                        }
                        plain.put_slice(record.payload);
                        done += record.discard;
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(&mut self.output, |into| data.encode(into).map_err(needed))?;
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => stop = Some(Processed::Ended),
                Ok(_) => stop = Some(Processed::All),
                Err(error) => {
                    alert(&mut self.connection, &mut records[done..], &mut self.output);
                    return Err(invalid(error));
                }
            }
            done += discard;
            if let Some(processed) = stop {
                return Ok((done, processed));
            }
        }
    }

    /// What came with the end of the handshake.
    fn read_fresh(&mut self, plain: &mut ReadBuf<'_>) -> io::Result<()> {
        self.fresh = false;
        let mut records = std::mem::take(&mut self.input);
        let (done, processed) = self.process(&mut records, plain)?;
        records.drain(..done);
        self.input = if records.is_empty() { Vec::new() } else { records };
        self.ended = processed == Processed::Ended;
        Ok(())
    }

    /// Reads once and decrypts what that completes. False if the stream below has nothing at the moment.
    fn read_records(&mut self, cx: &mut Context<'_>, plain: &mut ReadBuf<'_>) -> io::Result<bool> {
        let mut records = [0; RECORD_MAX];
        let kept = self.input.len();
        if kept >= records.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a record is too long"));
        }
        records[..kept].copy_from_slice(&self.input);
        let mut raw = ReadBuf::new(&mut records[kept..]);
        match Pin::new(&mut self.inner).poll_read(cx, &mut raw)? {
            Poll::Pending => return Ok(false),
            Poll::Ready(()) => {}
        }
        let count = raw.filled().len();
        if count == 0 {
            // Without close_notify; MQTT tells by its own means whether something is missing.
            self.ended = true;
            return Ok(true);
        }
        let filled = kept + count;
        let (done, processed) = self.process(&mut records[..filled], plain)?;
        self.input = if done < filled { records[done..filled].to_vec() } else { Vec::new() };
        self.ended = processed == Processed::Ended;
        Ok(true)
    }
}

impl<S: AsyncWrite + Unpin> Tls<S> {
    /// Writes what is encrypted.
    fn write_output(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut at = 0;
        let result = loop {
            if at == self.output.len() {
                break Poll::Ready(Ok(()));
            }
            match Pin::new(&mut self.inner).poll_write(cx, &self.output[at..]) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => at += count,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        self.output.drain(..at);
        if self.output.is_empty() {
            self.output = Vec::new();
        }
        result
    }

    /// Has `encode` add to the output, which rustls allows in one state only.
    fn encrypt(&mut self, plain: Option<&[u8]>) -> io::Result<()> {
        // What was read of an unfinished message has to be shown again each time.
        let Tls { connection, input, output, .. } = self;
        for _ in 0..STATES_MAX {
            let status = connection.process_tls_records(input);
            let discard = status.discard;
            let mut encrypted = None;
            match status.state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    encrypted = Some(append(output, |into| match plain {
                        Some(plain) => traffic.encrypt(plain, into).map_err(room),
                        None => traffic.queue_close_notify(into).map_err(room),
                    }));
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(output, |into| data.encode(into).map_err(needed))?;
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(_) => return Err(io::ErrorKind::BrokenPipe.into()),
                Err(error) => return Err(invalid(error)),
            }
            input.drain(..discard);
            if let Some(result) = encrypted {
                return result;
            }
        }
        Err(io::Error::other("TLS does not come to a state in which data can be sent"))
    }
}

/// States that are passed before data can be sent: a message of the protocol itself to encode and to send, a few times.
const STATES_MAX: usize = 16;

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Tls<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buffer.remaining() < RECORD_MAX {
            return Poll::Ready(Err(io::Error::other("no room for a record")));
        }
        let before = buffer.filled().len();
        let mut pending = false;
        if this.fresh {
            this.read_fresh(buffer)?;
        }
        let mut reads = 0;
        // A record that is complete is always taken whole, so there must be room for it.
        while !this.ended && buffer.remaining() >= RECORD_MAX {
            let has_data = buffer.filled().len() > before;
            if has_data && reads >= READS_MAX {
                break;
            }
            if reads == FRUITLESS_READS_MAX {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "records without data")));
            }
            reads += 1;
            match this.read_records(cx, buffer) {
                Ok(true) => {}
                Ok(false) => {
                    pending = true;
                    break;
                }
                Err(error) => {
                    // The alert that tells why.
                    let _ = this.write_output(cx);
                    if buffer.filled().len() == before {
                        return Poll::Ready(Err(error));
                    }
                    // What came before counts: a client may send its last packets and reset the connection.
                    this.ended = true;
                }
            }
        }
        if this.ended && !this.closed && buffer.filled().len() == before {
            // Said in return, so that the client can tell an end from a cut, but not before all it sent is read: until
            // then it may be answered. It may be gone.
            this.closed = true;
            let _ = this.encrypt(None);
        }
        // Answers of the protocol itself, such as new keys.
        if !this.output.is_empty()
            && let Poll::Ready(Err(error)) = this.write_output(cx)
            && !this.ended
            && buffer.filled().len() == before
        {
            return Poll::Ready(Err(error));
        }
        if pending && buffer.filled().len() == before { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Tls<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.write_output(cx))?;
        if this.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        // Small slices share a record.
        let mut gathered = [0; PLAINTEXT_MAX];
        let mut count = 0;
        for slice in slices {
            let taken = slice.len().min(gathered.len() - count);
            gathered[count..count + taken].copy_from_slice(&slice[..taken]);
            count += taken;
        }
        if count == 0 {
            return Poll::Ready(Ok(0));
        }
        this.encrypt(Some(&gathered[..count]))?;
        // It is taken; what the socket has no room for goes first the next time.
        match this.write_output(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(count)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.write_output(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closed {
            this.closed = true;
            this.encrypt(None)?;
        }
        ready!(this.write_output(cx))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
