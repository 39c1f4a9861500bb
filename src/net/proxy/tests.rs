use proptest::prelude::*;

use super::*;

/// A header of version 2 with these fields, and the right checksum for those that are one.
fn v2(command: u8, family: u8, addresses: &[u8], fields: &[(u8, &[u8])]) -> Vec<u8> {
    let mut body = addresses.to_vec();
    for (kind, value) in fields {
        body.push(*kind);
        body.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        body.extend(*value);
    }
    let mut bytes = V2_SIGNATURE.to_vec();
    bytes.extend([0x20 | command, family]);
    bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    bytes.extend(body);
    bytes
}

fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = checksum_of(&bytes).unwrap();
    let at = bytes.windows(7).position(|window| window == [KIND_CRC32C, 0, 4, 0, 0, 0, 0]).unwrap() + 3;
    bytes[at..at + 4].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// 192.0.2.1:50000 to 192.0.2.2:1883.
const V4: &[u8] = &[192, 0, 2, 1, 192, 0, 2, 2, 0xC3, 0x50, 0x07, 0x5B];

fn client(bytes: &[u8]) -> Option<Option<SocketAddr>> {
    parse(bytes).ok().map(|header| header.client)
}

#[test]
fn version_1() {
    let address = |text: &str| Some(Some(text.parse().unwrap()));
    for (text, want) in [
        ("PROXY TCP4 192.0.2.1 192.0.2.2 50000 1883\r\n", address("192.0.2.1:50000")),
        ("PROXY TCP6 2001:db8::1 2001:db8::2 50000 1883\r\n", address("[2001:db8::1]:50000")),
        ("PROXY UNKNOWN\r\n", Some(None)),
        ("PROXY UNKNOWN what ever 1 2\r\n", Some(None)),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 50000 1883\n", None),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 50000 1883\r\nx", None),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 65536 1883\r\n", None),
        ("PROXY TCP4 2001:db8::1 2001:db8::2 50000 1883\r\n", None),
        ("PROXY UDP4 192.0.2.1 192.0.2.2 50000 1883\r\n", None),
        ("PROXY\r\n", None),
        ("", None),
    ] {
        assert_eq!(client(text.as_bytes()), want, "{text}");
    }
}

#[test]
fn version_2() {
    let v6: Vec<u8> = [[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]; 2].concat();
    let v6 = [v6, vec![0xC3, 0x50, 0x07, 0x5B]].concat();
    assert_eq!(client(&v2(1, 0x11, V4, &[])), Some("192.0.2.1:50000".parse().ok()));
    assert_eq!(client(&v2(1, 0x21, &v6, &[])), Some("[2001:db8::1]:50000".parse().ok()));
    assert_eq!(client(&v2(1, 0x31, &[7; 216], &[])), Some(None), "a Unix socket");
    assert_eq!(client(&v2(0, 0x00, &[], &[])), Some(None), "the balancer itself");
    assert_eq!(client(&v2(0, 0x11, V4, &[])), Some(None), "whatever it says of addresses");
    assert_eq!(client(&v2(1, 0x00, &[], &[])), Some(None), "not known");
    assert_eq!(client(&v2(2, 0x11, V4, &[])), None, "an unknown command");
    assert_eq!(client(&v2(1, 0x11, &V4[..11], &[])), None, "too short for its family");
    let mut version_3 = v2(1, 0x11, V4, &[]);
    version_3[12] = 0x31;
    assert_eq!(client(&version_3), None);
}

#[test]
fn fields() {
    // Flags, verification succeeded, then version and name.
    let ssl =
        |flags: u8, verified: u8| [&[flags, 0, 0, 0, verified, 0x21, 0, 1, b'x', 0x22, 0, 5][..], b"alice"].concat();
    let header = parse(&v2(1, 0x11, V4, &[(0x20, &ssl(7, 0)), (0x05, b"id-1"), (0xEE, b"?")])).unwrap();
    assert_eq!(header.common_name.as_deref(), Some("alice"));
    assert_eq!(header.unique_id.as_deref(), Some(&b"id-1"[..]));
    for (flags, verified) in [(7, 1), (1, 0)] {
        let header = parse(&v2(1, 0x11, V4, &[(0x20, &ssl(flags, verified))])).unwrap();
        assert_eq!(header.common_name, None, "not verified, or not shown");
    }
    let local = parse(&v2(0, 0x11, V4, &[(0x20, &ssl(7, 0))])).unwrap();
    assert_eq!(local.common_name, None);
    assert!(parse(&v2(1, 0x11, V4, &[(0x20, &[7, 0, 0])])).is_err());
    assert!(parse(&v2(1, 0x11, V4, &[(0x20, &[7, 0, 0, 0, 0, 0x22, 0, 9, b'a'])])).is_err());
    let cut = [V4, &[0x05, 0, 9, 1]].concat();
    assert!(parse(&v2(1, 0x11, &cut, &[])).is_err(), "a field longer than the header");
}

#[test]
fn a_checksum_is_checked() {
    let right = with_checksum(v2(1, 0x11, V4, &[(0x05, b"id"), (KIND_CRC32C, &[0; 4])]));
    assert!(parse(&right).is_ok());
    let mut wrong = right.clone();
    wrong[20] ^= 1;
    assert!(matches!(parse(&wrong), Err(ProxyError::Malformed("checksum"))));
    assert!(parse(&v2(1, 0x11, V4, &[(KIND_CRC32C, &[0; 3])])).is_err());
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn what_follows_is_left() {
    for header in [v2(1, 0x11, V4, &[(4, &[0; 20])]), b"PROXY TCP4 192.0.2.1 192.0.2.2 50000 1883\r\n".to_vec()] {
        let bytes = [&header[..], b"\x10\x00"].concat();
        let mut stream = &bytes[..];
        let read = block_on(read(&mut stream)).unwrap();
        assert_eq!(read.client, "192.0.2.1:50000".parse().ok());
        assert_eq!(stream, b"\x10\x00");
    }
    let endless = [&b"PROXY "[..], &[b'x'; 200]].concat();
    assert!(matches!(block_on(read(&mut &endless[..])), Err(ProxyError::Malformed("no end of line"))));
    let mqtt = b"\x10\x13\x00\x04MQTT\x05\x02\x00\x00\x05\x11\x00\x00\x00<\x00\x01c";
    assert!(matches!(block_on(read(&mut &mqtt[..])), Err(ProxyError::Malformed("neither version"))));
    assert!(matches!(block_on(read(&mut &V2_SIGNATURE[..])), Err(ProxyError::Io(_))));
}

proptest! {
    #[test]
    fn anything_is_answered(bytes: Vec<u8>, command: u8, family: u8) {
        let _ = block_on(read(&mut &bytes[..]));
        let _ = parse(&bytes);
        let _ = parse(&[&b"PROXY "[..], &bytes].concat());
        let _ = parse(&v2(command & 0xF, family, &bytes, &[]));
        let _ = parse(&v2(1, 0x11, V4, &[(0x20, &bytes), (0x03, &bytes)]));
        let _ = parse(&v2(1, 0x11, &[V4, &bytes].concat(), &[]));
    }
}
