//! The PROXY protocol, versions 1 and 2: a header in which a load balancer tells whose connection it passes on.
//!
//! Read exactly, so that nothing of what follows is taken.

use std::io;
use std::net::SocketAddr;

use ppp::{v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What a header tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Header {
    /// The client's address; none for the balancer's own connections (health checks), or if it does not know.
    pub client: Option<SocketAddr>,
    /// The Common Name of the certificate that the client showed to the balancer, if it was verified.
    pub common_name: Option<Box<str>>,
    /// The balancer's name for the connection.
    pub unique_id: Option<Box<[u8]>>,
}

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The network's, or the peer has gone.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer's: this is no header.
    #[error("not a PROXY header: {0}")]
    Malformed(&'static str),
}

/// What both versions begin with differs within this many bytes, and no header is shorter.
const START: usize = 5;
/// Longest header of version 1 with its end of line.
const V1_MAX: usize = 107;
/// Longest header of version 2. The protocol allows 64 KiB, which nobody sends; a longer one is malformed.
const V2_MAX: usize = 16 << 10;
/// Bytes of version 2 before what its length counts.
const V2_FIXED: usize = 16;
const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Reads the header with which a connection begins.
///
/// # Errors
/// There is none, or it cannot be read.
pub async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Header, ProxyError> {
    let mut bytes = vec![0; START];
    stream.read_exact(&mut bytes).await?;
    if bytes == V2_SIGNATURE[..START] {
        bytes.resize(V2_FIXED, 0);
        stream.read_exact(&mut bytes[START..]).await?;
        let length = V2_FIXED + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
        if length > V2_MAX {
            return Err(ProxyError::Malformed("too long"));
        }
        bytes.resize(length, 0);
        stream.read_exact(&mut bytes[V2_FIXED..]).await?;
    } else if bytes == b"PROXY"[..] {
        // Byte by byte, for the next one may be the client's. It is short.
        while bytes.last() != Some(&b'\n') {
            if bytes.len() == V1_MAX {
                return Err(ProxyError::Malformed("no end of line"));
            }
            bytes.push(stream.read_u8().await?);
        }
    } else {
        return Err(ProxyError::Malformed("neither version"));
    }
    parse(&bytes)
}

/// Reads a whole header of either version.
///
/// # Errors
/// It is malformed.
pub fn parse(bytes: &[u8]) -> Result<Header, ProxyError> {
    if bytes.starts_with(&V2_SIGNATURE) { parse_v2(bytes) } else { parse_v1(bytes) }
}

fn parse_v1(bytes: &[u8]) -> Result<Header, ProxyError> {
    let header = v1::Header::try_from(bytes).map_err(|_| ProxyError::Malformed("version 1"))?;
    if header.header.len() != bytes.len() {
        return Err(ProxyError::Malformed("more than a header"));
    }
    let client = match header.addresses {
        v1::Addresses::Tcp4(ip) => Some(SocketAddr::from((ip.source_address, ip.source_port))),
        v1::Addresses::Tcp6(ip) => Some(SocketAddr::from((ip.source_address, ip.source_port))),
        v1::Addresses::Unknown => None,
    };
    Ok(Header { client, ..Header::default() })
}

fn parse_v2(bytes: &[u8]) -> Result<Header, ProxyError> {
    let header = v2::Header::try_from(bytes).map_err(|_| ProxyError::Malformed("version 2"))?;
    if header.len() != bytes.len() {
        return Err(ProxyError::Malformed("more than a header"));
    }
    let mut found = Header::default();
    let mut checksum = None;
    // A header of a kind without addresses has nothing that could be read.
    let has_addresses = !matches!(header.addresses, v2::Addresses::Unspecified);
    for tlv in header.tlvs().take_while(|_| has_addresses) {
        let tlv = tlv.map_err(|_| ProxyError::Malformed("a field's length"))?;
        match tlv.kind {
            KIND_CRC32C => checksum = Some(<[u8; 4]>::try_from(&*tlv.value)),
            KIND_UNIQUE_ID => found.unique_id = Some(tlv.value.as_ref().into()),
            KIND_SSL => found.common_name = common_name(&tlv.value)?,
            _ => {}
        }
    }
    match checksum {
        None => {}
        Some(Ok(told)) if checksum_of(bytes) == Some(u32::from_be_bytes(told)) => {}
        Some(_) => return Err(ProxyError::Malformed("checksum")),
    }
    if header.command == v2::Command::Local {
        // The balancer speaks for itself; whatever it says of addresses is to be passed over.
        return Ok(Header { unique_id: found.unique_id, ..Header::default() });
    }
    found.client = match header.addresses {
        v2::Addresses::IPv4(ip) => Some(SocketAddr::from((ip.source_address, ip.source_port))),
        v2::Addresses::IPv6(ip) => Some(SocketAddr::from((ip.source_address, ip.source_port))),
        v2::Addresses::Unix(_) | v2::Addresses::Unspecified => None,
    };
    Ok(found)
}

/// The Common Name in the field about TLS: a byte of flags, the result of verification (0 is success), and more fields.
fn common_name(value: &[u8]) -> Result<Option<Box<str>>, ProxyError> {
    let Some((head, mut rest)) = value.split_at_checked(5) else {
        return Err(ProxyError::Malformed("the field on TLS"));
    };
    let verified = head[1..] == [0; 4];
    let showed = head[0] & (SSL_CERT_CONNECTION | SSL_CERT_SESSION) != 0;
    let mut name = None;
    while !rest.is_empty() {
        let (kind, value, after) = field(rest).ok_or(ProxyError::Malformed("the field on TLS"))?;
        if kind == KIND_SSL_CN {
            let text =
                std::str::from_utf8(value).map_err(|_| ProxyError::Malformed("a common name that is no text"))?;
            name = Some(text.into());
        }
        rest = after;
    }
    Ok(name.filter(|_| verified && showed))
}

fn field(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(3)?;
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([head[1], head[2]])))?;
    Some((head[0], value, rest))
}

/// CRC-32C of the header with zeros in the place of the checksum.
fn checksum_of(bytes: &[u8]) -> Option<u32> {
    let mut copy = bytes.to_vec();
    let addresses = match bytes.get(13)? >> 4 {
        1 => 12,
        2 => 36,
        3 => 216,
        _ => 0,
    };
    let mut at = V2_FIXED + addresses;
    while let Some((kind, value, _)) = field(bytes.get(at..)?) {
        let value = at + 3..at + 3 + value.len();
        if kind == KIND_CRC32C {
            copy[value.clone()].fill(0);
        }
        at = value.end;
    }
    Some(crc32c::crc32c(&copy))
}

const KIND_CRC32C: u8 = 0x03;
const KIND_UNIQUE_ID: u8 = 0x05;
const KIND_SSL: u8 = 0x20;
const KIND_SSL_CN: u8 = 0x22;
/// The client showed a certificate on this connection.
const SSL_CERT_CONNECTION: u8 = 0x02;
/// Or earlier in its TLS session.
const SSL_CERT_SESSION: u8 = 0x04;

#[cfg(test)]
mod tests;
