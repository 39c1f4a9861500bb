//! WebSocket frames (RFC 6455) as a byte stream: the payloads of a client's binary frames, however they are cut, are what is
//! read, and each write is one binary frame.
//!
//! Nothing is collected: a frame is decoded where it was read, so that neither its size nor that of a message needs a
//! limit, and an idle connection holds no buffer.

use std::io::{self, Cursor, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

/// The longest header of a frame.
const HEADER_MAX: usize = 14;
/// The longest payload of a control frame (RFC 6455, 5.5).
const CONTROL_MAX: usize = 125;
/// Reads in a row, of up to the driver's buffer each, that bring no data at all. A client that sends nothing but control and
/// empty frames that long is closed with 1008.
const FRUITLESS_READS_MAX: usize = 16;
/// Most slices of a write that share a frame and a system call with its header.
const SLICES: usize = 17;

/// The server's side of a WebSocket connection after its handshake.
#[derive(Debug)]
pub struct Ws<S> {
    inner: S,
    /// Bytes that came with the request; gone once they are read.
    rest: Option<Box<[u8]>>,
    decoder: Decoder,
    /// The header of the frame being written, and how much of it is written.
    header: Bytes<10>,
    /// Bytes of that frame's payload not yet written. What was promised with a header has to follow.
    owed: u64,
    /// Control frames that go out between two frames; nearly always none.
    control: Option<Box<Bytes<{ 2 * (CONTROL_MAX + 2) }>>>,
    /// Our Close frame is on its way or written; nothing follows it.
    closed: bool,
    /// The client's Close frame was read.
    ended: bool,
}

impl<S> Ws<S> {
    /// A connection whose handshake is done; `rest` is what came after the client's request.
    pub fn new(inner: S, rest: &[u8]) -> Ws<S> {
        let rest = if rest.is_empty() { None } else { Some(rest.into()) };
        Ws {
            inner,
            rest,
            decoder: Decoder::default(),
            header: Bytes::default(),
            owed: 0,
            control: None,
            closed: false,
            ended: false,
        }
    }

    /// The stream below.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// The stream below.
    pub fn inner_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Puts a control frame in front of the next data frame. Of several Pongs that wait only the last is sent (RFC 6455,
    /// 5.5.3).
    fn queue(&mut self, kind: Control, payload: &[u8]) {
        if self.closed {
            return;
        }
        let control = self.control.get_or_insert_default();
        // What is partly written has to be finished.
        if control.at == 0 {
            control.clear();
        }
        let header = FrameHeader { opcode: OpCode::Control(kind), ..FrameHeader::default() };
        let mut bytes = [0; CONTROL_MAX + 2];
        let mut cursor = Cursor::new(&mut bytes[..]);
        header.format(payload.len() as u64, &mut cursor).expect("a header fits into the buffer");
        let length = cursor.position() as usize;
        bytes[length..length + payload.len()].copy_from_slice(payload);
        let fits = control.push(&bytes[..length + payload.len()]);
        self.closed = fits && kind == Control::Close;
    }

    fn queue_close(&mut self, code: CloseCode) {
        let code: u16 = code.into();
        self.queue(Control::Close, &code.to_be_bytes());
    }
}

impl<S: AsyncWrite + Unpin> Ws<S> {
    /// Writes what has to come before the next frame: control frames, unless a frame is open.
    fn write_control(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.owed > 0 || !self.header.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while let Some(control) = &mut self.control {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, control.left()))?;
            control.advance(nonzero(written)?);
            if control.is_empty() {
                self.control = None;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ends the connection because of what the client sent: it is told, as far as the socket takes it.
    fn fail(&mut self, cx: &mut Context<'_>, broken: Broken) -> io::Error {
        self.queue_close(broken.code);
        let told = matches!(self.write_control(cx), Poll::Ready(Ok(())));
        if told && matches!(Pin::new(&mut self.inner).poll_flush(cx), Poll::Ready(Ok(()))) {
            let _ = Pin::new(&mut self.inner).poll_shutdown(cx);
        }
        io::Error::new(io::ErrorKind::InvalidData, broken.what)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Ws<S> {
    /// Reads raw bytes once. Returns how many; 0 is the end.
    fn read_raw(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if let Some(rest) = self.rest.take() {
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            if count < rest.len() {
                self.rest = Some(rest[count..].into());
            }
            return Poll::Ready(Ok(count));
        }
        let mut raw = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut raw))?;
        Poll::Ready(Ok(raw.filled().len()))
    }

    /// Decodes what was read, in place. Returns how many bytes of payload are in front.
    fn decode(&mut self, cx: &mut Context<'_>, raw: &mut [u8]) -> io::Result<usize> {
        let mut decoder = std::mem::take(&mut self.decoder);
        let mut filled = 0;
        let mut at = 0;
        let result = loop {
            match decoder.next(raw, &mut at) {
                Ok(Some(Piece::Data(range))) => {
                    raw.copy_within(range.clone(), filled);
                    filled += range.len();
                }
                Ok(Some(Piece::Ping(payload))) => self.queue(Control::Pong, payload.left()),
                Ok(Some(Piece::Close(payload))) => {
                    // The code is echoed, the reason is not (RFC 6455, 5.5.1).
                    let code = payload.left();
                    self.queue(Control::Close, &code[..code.len().min(2)]);
                    self.ended = true;
                    break Ok(filled);
                }
                Ok(None) => break Ok(filled),
                Err(broken) => break Err(self.fail(cx, broken)),
            }
        };
        self.decoder = decoder;
        result
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Ws<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // A Pong may wait for the socket; whoever polls has been told that something has changed.
        if let Poll::Ready(Err(error)) = this.write_control(cx) {
            return Poll::Ready(Err(error));
        }
        for _ in 0..FRUITLESS_READS_MAX {
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            let raw = buffer.initialize_unfilled();
            let count = ready!(this.read_raw(cx, raw))?;
            if count == 0 {
                return Poll::Ready(Ok(()));
            }
            let decoded = this.decode(cx, &mut raw[..count])?;
            if let Poll::Ready(Err(error)) = this.write_control(cx) {
                return Poll::Ready(Err(error));
            }
            if this.control.is_none() {
                // A stream below that buffers (TLS) sends it now.
                let _ = Pin::new(&mut this.inner).poll_flush(cx);
            }
            if decoded > 0 {
                buffer.advance(decoded);
                return Poll::Ready(Ok(()));
            }
        }
        let broken = Broken { code: CloseCode::Policy, what: "frames without data, one after the other" };
        Poll::Ready(Err(this.fail(cx, broken)))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Ws<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.write_control(cx))?;
        let slices = &slices[..slices.len().min(SLICES - 1)];
        let given: u64 = slices.iter().map(|slice| slice.len() as u64).sum();
        if given == 0 {
            return Poll::Ready(Ok(0));
        }
        if this.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if this.owed == 0 && this.header.is_empty() {
            this.owed = given;
            let opcode = OpCode::Data(Data::Binary);
            let mut bytes = Cursor::new([0; 10]);
            FrameHeader { opcode, ..FrameHeader::default() }.format(given, &mut bytes).expect("10 bytes are enough");
            this.header.clear();
            this.header.push(&bytes.get_ref()[..bytes.position() as usize]);
        }
        // The caller may have more by now than when the frame began.
        let mut room = this.owed;
        let header = this.header.left().len();
        let mut all = [IoSlice::new(&[]); SLICES];
        all[0] = IoSlice::new(this.header.left());
        for (into, slice) in all[1..].iter_mut().zip(slices) {
            let count = usize::try_from(room).unwrap_or(usize::MAX).min(slice.len());
            *into = IoSlice::new(&slice[..count]);
            room -= count as u64;
        }
        let from = usize::from(header == 0);
        let written = ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, &all[from..=slices.len()]))?;
        let of_header = nonzero(written)?.min(header);
        this.header.advance(of_header);
        let of_payload = written - of_header;
        this.owed -= of_payload as u64;
        if of_payload == 0 {
            // Only a header fitted: `Ok(0)` would say that nothing can be written, ever.
            return Pin::new(this).poll_write_vectored(cx, slices);
        }
        Poll::Ready(Ok(of_payload))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.write_control(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.queue_close(CloseCode::Normal);
        ready!(this.write_control(cx))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

fn nonzero(written: usize) -> io::Result<usize> {
    if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(written) }
}

/// What a client has done wrong.
#[derive(Debug, PartialEq, Eq)]
struct Broken {
    /// What it is told.
    code: CloseCode,
    /// For the log.
    what: &'static str,
}

const fn protocol(what: &'static str) -> Broken {
    Broken { code: CloseCode::Protocol, what }
}

/// A short run of bytes without an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bytes<const N: usize> {
    bytes: [u8; N],
    filled: u8,
    /// How many of them are done with.
    at: u8,
}

impl<const N: usize> Default for Bytes<N> {
    fn default() -> Self {
        Bytes { bytes: [0; N], filled: 0, at: 0 }
    }
}

impl<const N: usize> Bytes<N> {
    fn left(&self) -> &[u8] {
        &self.bytes[usize::from(self.at)..usize::from(self.filled)]
    }

    fn is_empty(&self) -> bool {
        self.at == self.filled
    }

    fn clear(&mut self) {
        (self.filled, self.at) = (0, 0);
    }

    fn advance(&mut self, count: usize) {
        self.at += u8::try_from(count).expect("no more than there is");
    }

    /// Adds all of `bytes`, or nothing if they do not fit.
    fn push(&mut self, bytes: &[u8]) -> bool {
        const { assert!(N <= u8::MAX as usize) };
        let end = usize::from(self.filled) + bytes.len();
        let Some(into) = self.bytes.get_mut(usize::from(self.filled)..end) else { return false };
        into.copy_from_slice(bytes);
        self.filled = u8::try_from(end).expect("N fits");
        true
    }
}

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    /// A part of a binary message: where its unmasked bytes are.
    Data(std::ops::Range<usize>),
    Ping(Box<Bytes<CONTROL_MAX>>),
    Close(Box<Bytes<CONTROL_MAX>>),
}

/// Takes frames apart. It keeps what it needs between two reads, which is at most a header and a control frame.
#[derive(Debug, Default)]
struct Decoder {
    /// A header of which more is to come.
    header: Bytes<HEADER_MAX>,
    frame: Frame,
    /// Payload of the current control frame.
    control: Option<Box<Bytes<CONTROL_MAX>>>,
    /// A message has begun whose last frame has not come.
    in_message: bool,
}

/// The frame whose payload is being read.
#[derive(Debug, Clone, Copy, Default)]
struct Frame {
    kind: Kind,
    left: u64,
    mask: [u8; 4],
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    /// Between two frames.
    #[default]
    Between,
    Data,
    Ping,
    Pong,
    Close,
}

impl Decoder {
    /// The next piece of `raw` from `at` on; `None` when all of it is taken in.
    fn next(&mut self, raw: &mut [u8], at: &mut usize) -> Result<Option<Piece>, Broken> {
        loop {
            if self.frame.kind == Kind::Between && !self.take_header(raw, at)? {
                return Ok(None);
            }
            let left = usize::try_from(self.frame.left).unwrap_or(usize::MAX);
            let range = *at..*at + left.min(raw.len() - *at);
            *at = range.end;
            self.unmask(&mut raw[range.clone()]);
            let kind = self.frame.kind;
            if let (Kind::Ping | Kind::Pong | Kind::Close, false) = (kind, range.is_empty()) {
                let control = self.control.get_or_insert_default();
                assert!(control.push(&raw[range.clone()]), "the header's length was checked");
            }
            let ended = self.frame.left == 0;
            if ended {
                self.frame.kind = Kind::Between;
            }
            match kind {
                Kind::Data if !range.is_empty() => return Ok(Some(Piece::Data(range))),
                Kind::Ping | Kind::Pong | Kind::Close if ended => {
                    let payload = self.control.take().unwrap_or_default();
                    match kind {
                        Kind::Ping => return Ok(Some(Piece::Ping(payload))),
                        Kind::Close => return Ok(Some(Piece::Close(payload))),
                        // Nobody asked for it (RFC 6455, 5.5.3).
                        _ => {}
                    }
                }
                _ if ended => {}
                _ => return Ok(None),
            }
        }
    }

    fn unmask(&mut self, bytes: &mut [u8]) {
        let mask = self.frame.mask;
        let [a, b, c, d] = mask;
        let key = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
        let mut words = bytes.chunks_exact_mut(8);
        for word in &mut words {
            let masked = <[u8; 8]>::try_from(&*word).expect("a chunk of 8");
            word.copy_from_slice(&(u64::from_ne_bytes(masked) ^ key).to_ne_bytes());
        }
        for (byte, key) in words.into_remainder().iter_mut().zip(mask.iter().cycle()) {
            *byte ^= key;
        }
        self.frame.left -= bytes.len() as u64;
        self.frame.mask.rotate_left(bytes.len() % mask.len());
    }

    /// Completes the header from `raw`; false if more is needed.
    fn take_header(&mut self, raw: &[u8], at: &mut usize) -> Result<bool, Broken> {
        let before = self.header.left().len();
        let count = (HEADER_MAX - before).min(raw.len() - *at);
        self.header.push(&raw[*at..*at + count]);
        let mut cursor = Cursor::new(self.header.left());
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| protocol("an unknown opcode"))?;
        let Some((header, length)) = parsed else {
            *at += count;
            return Ok(false);
        };
        let size = cursor.position() as usize;
        *at += size - before;
        self.header.clear();
        self.begin(&header, length)?;
        Ok(true)
    }

    /// Judges a header (RFC 6455, 5.1 to 5.5; [MQTT-6.0.0-1]).
    fn begin(&mut self, header: &FrameHeader, length: u64) -> Result<(), Broken> {
        let Some(mask) = header.mask else { return Err(protocol("a frame without a mask")) };
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(protocol("a reserved bit"));
        }
        if length > i64::MAX as u64 {
            return Err(protocol("a length above 2^63"));
        }
        let control = |kind| {
            let fits = header.is_final && length <= CONTROL_MAX as u64;
            if fits { Ok(kind) } else { Err(protocol("a control frame that is too long or in parts")) }
        };
        let kind = match header.opcode {
            OpCode::Data(Data::Text) => {
                return Err(Broken { code: CloseCode::Unsupported, what: "a text frame" });
            }
            OpCode::Data(Data::Binary) if self.in_message => return Err(protocol("a message within a message")),
            OpCode::Data(Data::Continue) if !self.in_message => return Err(protocol("the rest of no message")),
            OpCode::Data(Data::Binary | Data::Continue) => {
                self.in_message = !header.is_final;
                Kind::Data
            }
            OpCode::Control(Control::Ping) => control(Kind::Ping)?,
            OpCode::Control(Control::Pong) => control(Kind::Pong)?,
            OpCode::Control(Control::Close) if length == 1 => return Err(protocol("half a close code")),
            OpCode::Control(Control::Close) => control(Kind::Close)?,
            OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => {
                return Err(protocol("an unknown opcode"));
            }
        };
        self.frame = Frame { kind, left: length, mask };
        Ok(())
    }
}

#[cfg(test)]
mod tests;
