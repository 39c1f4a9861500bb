use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

const BINARY: u8 = 2;
const CONTINUE: u8 = 0;
const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// A frame as a client sends it.
fn frame(is_final: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = Some([0x12, 0x34, 0x56, 0x78]);
    let header = FrameHeader { is_final, opcode: opcode.into(), mask, ..FrameHeader::default() };
    let mut bytes = Vec::new();
    header.format(payload.len() as u64, &mut bytes).unwrap();
    let masked = payload.iter().zip([0x12, 0x34, 0x56, 0x78].into_iter().cycle()).map(|(byte, key)| byte ^ key);
    bytes.extend(masked);
    bytes
}

/// Takes apart what a server sends: opcodes and payloads.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let mut cursor = Cursor::new(bytes);
        let (header, length) = FrameHeader::parse(&mut cursor).unwrap().expect("whole frames");
        assert!(header.mask.is_none() && header.is_final);
        let (start, length) = (cursor.position() as usize, usize::try_from(length).unwrap());
        found.push((u8::from(header.opcode), bytes[start..start + length].to_vec()));
        bytes = &bytes[start + length..];
    }
    found
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await.expect("it ends") })
}

/// A connection whose socket holds so many bytes, and its client.
fn pair(capacity: usize, rest: &[u8]) -> (Ws<DuplexStream>, DuplexStream) {
    let (server, client) = duplex(capacity);
    (Ws::new(server, rest), client)
}

#[test]
fn frames_in_any_cut_are_one_stream() {
    block_on(async {
        let (mut ws, mut client) = pair(1 << 16, &frame(true, BINARY, b"early "));
        client.write_all(&frame(false, BINARY, b"one ")).await.unwrap();
        client.write_all(&frame(true, PING, b"p")).await.unwrap();
        client.write_all(&frame(false, CONTINUE, b"")).await.unwrap();
        client.write_all(&frame(true, CONTINUE, b"two ")).await.unwrap();
        client.write_all(&frame(true, BINARY, &[b'x'; 300])).await.unwrap();
        client.write_all(&frame(true, CLOSE, &[3, 232, b'b', b'y', b'e'])).await.unwrap();
        let mut read = Vec::new();
        ws.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, [&b"early one two "[..], &[b'x'; 300]].concat(), "what is before Close is not lost");
        drop(ws);
        let mut answers = Vec::new();
        client.read_to_end(&mut answers).await.unwrap();
        assert_eq!(frames(&answers), [(PONG, b"p".to_vec()), (CLOSE, vec![3, 232])]);
    });
}

#[test]
fn what_a_client_may_not_send() {
    let unmasked = [0x82, 1, b'x'];
    let reserved_bit = [0xC2, 0x80, 0, 0, 0, 0];
    let endless = [0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for (bytes, code) in [
        (frame(true, TEXT, b"hello"), 1003_u16),
        (unmasked.to_vec(), 1002),
        (reserved_bit.to_vec(), 1002),
        (endless.to_vec(), 1002),
        (frame(true, 3, b""), 1002),
        (frame(true, 11, b""), 1002),
        (frame(true, CONTINUE, b"x"), 1002),
        ([frame(false, BINARY, b"x"), frame(true, BINARY, b"y")].concat(), 1002),
        (frame(false, PING, b""), 1002),
        (frame(true, PING, &[0; 126]), 1002),
        (frame(true, CLOSE, &[3]), 1002),
        (frame(true, PONG, b"").repeat(200_000), 1008),
    ] {
        block_on(async {
            let (mut ws, mut client) = pair(4 << 20, b"");
            client.write_all(&bytes).await.unwrap();
            let error = ws.read_to_end(&mut Vec::with_capacity(1 << 16)).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            drop(ws);
            let mut answers = Vec::new();
            client.read_to_end(&mut answers).await.unwrap();
            assert_eq!(frames(&answers), [(CLOSE, code.to_be_bytes().to_vec())], "{bytes:02x?}");
        });
    }
}

#[test]
fn a_write_is_a_frame_even_if_the_socket_is_small() {
    block_on(async {
        // Room for less than a header at times.
        let (mut ws, mut client) = pair(3, b"");
        let payload: Vec<u8> = (0..70_000_u32).map(|n| n as u8).collect();
        let sent = payload.clone();
        let writer = tokio::spawn(async move {
            ws.write_all(&sent).await.unwrap();
            ws.flush().await.unwrap();
            ws.shutdown().await.unwrap();
        });
        let mut answers = Vec::new();
        client.read_to_end(&mut answers).await.unwrap();
        writer.await.unwrap();
        assert_eq!(frames(&answers), [(BINARY, payload), (CLOSE, vec![3, 232])]);
    });
}

#[test]
fn a_pong_waits_for_the_end_of_a_frame_and_for_the_socket() {
    block_on(async {
        let (mut ws, mut client) = pair(8, b"");
        let waker = std::task::Waker::noop();
        let mut cx = Context::from_waker(waker);
        // The header and six bytes of twenty are written.
        let slices = [IoSlice::new(&[7; 12]), IoSlice::new(&[8; 8])];
        let Poll::Ready(Ok(6)) = Pin::new(&mut ws).poll_write_vectored(&mut cx, &slices) else { panic!("8 bytes fit") };
        client.write_all(&frame(true, PING, b"a")).await.unwrap();
        let mut buffer = [0; 64];
        let mut buffer = ReadBuf::new(&mut buffer);
        assert!(Pin::new(&mut ws).poll_read(&mut cx, &mut buffer).is_pending());
        client.write_all(&frame(true, PING, b"b")).await.unwrap();
        assert!(Pin::new(&mut ws).poll_read(&mut cx, &mut buffer).is_pending());
        let writer = tokio::spawn(async move {
            ws.write_all(&[&[7; 6][..], &[8; 8]].concat()).await.unwrap();
            // Nothing else is written: reading is what sends the Pong.
            let _ = ws.read(&mut [0; 64]).await;
        });
        let mut answers = vec![0; 22 + 3];
        client.read_exact(&mut answers).await.unwrap();
        let data = [&[7; 12][..], &[8; 8]].concat();
        assert_eq!(frames(&answers), [(BINARY, data), (PONG, b"b".to_vec())], "the last Ping is answered");
        drop(client);
        writer.await.unwrap();
    });
}

#[test]
fn an_idle_connection_is_small() {
    assert!(size_of::<Ws<u64>>() <= 128, "{}", size_of::<Ws<u64>>());
}

proptest! {
    #[test]
    fn any_cut_of_frames_and_reads(
        parts in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..300), any::<bool>(), any::<bool>()), 0..20),
        cut in 1..50_usize,
    ) {
        let mut bytes = Vec::new();
        let mut wanted: Vec<u8> = Vec::new();
        let mut first = true;
        for (payload, is_final, ping) in &parts {
            bytes.extend(frame(*is_final, if first { BINARY } else { CONTINUE }, payload));
            first = *is_final;
            wanted.extend(payload);
            if *ping {
                bytes.extend(frame(true, PING, &payload[..payload.len().min(125)]));
            }
        }
        let mut decoder = Decoder::default();
        let (mut data, mut pings) = (Vec::<u8>::new(), 0);
        for chunk in bytes.chunks_mut(cut) {
            let mut at = 0;
            while let Some(piece) = decoder.next(chunk, &mut at).unwrap() {
                match piece {
                    Piece::Data(range) => data.extend(&chunk[range]),
                    Piece::Ping(_) => pings += 1,
                    Piece::Close(_) => panic!("nobody closes"),
                }
            }
            prop_assert_eq!(at, chunk.len());
        }
        prop_assert_eq!(data, wanted);
        prop_assert_eq!(pings, parts.iter().filter(|(.., ping)| *ping).count());
    }

    #[test]
    fn any_bytes_are_answered(mut bytes: Vec<u8>) {
        let (mut decoder, mut at) = (Decoder::default(), 0);
        while let Ok(Some(_)) = decoder.next(&mut bytes, &mut at) {}
    }
}
