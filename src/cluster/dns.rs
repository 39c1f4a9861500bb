//! SRV records, for which the operating system has no call: one question to the name servers of `/etc/resolv.conf`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::rt;

/// Hosts and ports of a name, in any order.
///
/// # Errors
/// No name server answers, or there is no such record.
pub async fn srv(name: &str) -> io::Result<Vec<(String, u16)>> {
    let configured = tokio::task::spawn_blocking(|| std::fs::read_to_string(RESOLV_CONF).unwrap_or_default());
    let servers = servers(&configured.await.unwrap_or_default());
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no name server");
    for server in servers.iter().cycle().take(servers.len() * ATTEMPTS) {
        match timeout(TIMEOUT, ask(*server, name)).await.unwrap_or_else(|late| Err(late.into())) {
            Ok(found) => return Ok(found),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn ask(server: SocketAddr, name: &str) -> io::Result<Vec<(String, u16)>> {
    // Only who sees the question can answer it.
    let id = u16::from_le_bytes(*rt::seed()?.first_chunk().expect("a seed is longer"));
    let question = question(id, name).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a name"))?;
    let from: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((from, 0)).await?;
    socket.connect(server).await?;
    socket.send(&question).await?;
    let mut buffer = vec![0; ANSWER_MAX];
    loop {
        let count = socket.recv(&mut buffer).await?;
        match answer(&question, &buffer[..count]) {
            Ok(Answer::Whole(found)) => return Ok(found),
            Ok(Answer::CutOff) => return ask_for_all(server, &question).await,
            Ok(Answer::OfAnother) => {}
            Err(why) => return Err(io::Error::new(io::ErrorKind::NotFound, why)),
        }
    }
}

/// What does not fit into a datagram.
async fn ask_for_all(server: SocketAddr, question: &[u8]) -> io::Result<Vec<(String, u16)>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).expect("a question is short");
    stream.write_all(&[&length.to_be_bytes(), question].concat()).await?;
    let mut bytes = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut bytes).await?;
    match answer(question, &bytes) {
        Ok(Answer::Whole(found)) => Ok(found),
        Ok(Answer::CutOff | Answer::OfAnother) => Err(io::Error::new(io::ErrorKind::InvalidData, "not an answer")),
        Err(why) => Err(io::Error::new(io::ErrorKind::NotFound, why)),
    }
}

fn servers(configured: &str) -> Vec<SocketAddr> {
    let servers: Vec<_> = configured
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|address| address.trim().parse::<IpAddr>().ok())
        .map(|ip| SocketAddr::new(ip, DNS_PORT))
        .take(SERVERS_MAX)
        .collect();
    if servers.is_empty() { vec![SocketAddr::from((Ipv4Addr::LOCALHOST, DNS_PORT))] } else { servers }
}

/// The bytes that ask for the SRV records of a name.
fn question(id: u16, name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    // One question, recursion desired.
    for number in [id, 0x0100, 1, 0, 0, 0] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        bytes.push(length);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    for number in [SRV, INTERNET] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    Some(bytes)
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Whole(Vec<(String, u16)>),
    /// There is more than fits.
    CutOff,
    /// It answers something else.
    OfAnother,
}

fn answer(question: &[u8], bytes: &[u8]) -> Result<Answer, &'static str> {
    const SHORT: &str = "an answer that is too short";
    let number = |at: usize| bytes.get(at..at + 2).map(|two| u16::from_be_bytes([two[0], two[1]])).ok_or(SHORT);
    let same = bytes.get(..2) == question.get(..2) && bytes.get(HEAD..question.len()) == question.get(HEAD..);
    let flags = number(2)?;
    if flags & 0x8000 == 0 || !same {
        return Ok(Answer::OfAnother);
    }
    match flags & 0xF {
        0 => {}
        3 => return Err("there is no such name"),
        _ => return Err("the name server cannot answer"),
    }
    if flags & 0x0200 != 0 {
        return Ok(Answer::CutOff);
    }
    let mut found = Vec::new();
    let mut at = question.len();
    for _ in 0..number(6)? {
        (_, at) = read_name(bytes, at).ok_or(SHORT)?;
        let (kind, length) = (number(at)?, usize::from(number(at + 8)?));
        at += 10;
        if kind == SRV {
            let port = number(at + 4)?;
            let (host, _) = read_name(bytes, at + 6).ok_or(SHORT)?;
            // A dot alone says that there is no such service.
            if !host.is_empty() && port > 0 {
                found.push((host, port));
            }
        }
        at += length;
    }
    if found.is_empty() { Err("there are no SRV records") } else { Ok(Answer::Whole(found)) }
}

/// The name at a place, and what follows it there. Its rest may stand somewhere before.
fn read_name(bytes: &[u8], start: usize) -> Option<(String, usize)> {
    let mut labels: Vec<&str> = Vec::new();
    let (mut at, mut end) = (start, None);
    for _ in 0..LABELS_MAX {
        let length = *bytes.get(at)?;
        match length >> 6 {
            0 if length == 0 => return Some((labels.join("."), end.unwrap_or(at + 1))),
            0 => {
                labels.push(str::from_utf8(bytes.get(at + 1..at + 1 + usize::from(length))?).ok()?);
                at += 1 + usize::from(length);
            }
            3 => {
                end = end.or(Some(at + 2));
                at = usize::from(length & 0x3F) << 8 | usize::from(*bytes.get(at + 1)?);
            }
            _ => return None,
        }
    }
    None
}

const RESOLV_CONF: &str = "/etc/resolv.conf";
const DNS_PORT: u16 = 53;
const SRV: u16 = 33;
const INTERNET: u16 = 1;
const HEAD: usize = 12;
const ATTEMPTS: usize = 2;
const SERVERS_MAX: usize = 3;
const ANSWER_MAX: usize = 4096;
/// Pointers may go round in circles.
const LABELS_MAX: usize = 128;
const TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(flags: u16) -> Vec<u8> {
        let mut bytes = question(7, "_mqtt._tcp.a.org").unwrap();
        bytes[2..4].copy_from_slice(&flags.to_be_bytes());
        bytes[7] = 2;
        for (port, host) in [(4370_u16, b"\x02n1\xC0\x17".as_slice()), (4371, b"\x02n2\x01b\0")] {
            // The name as above, type, class, a time to live, the length, priority and weight.
            bytes.extend_from_slice(&[0xC0, 12, 0, 33, 0, 1, 0, 0, 0, 9, 0, 6 + host.len() as u8, 0, 1, 0, 1]);
            bytes.extend_from_slice(&port.to_be_bytes());
            bytes.extend_from_slice(host);
        }
        bytes
    }

    #[test]
    fn records_are_read() {
        let question = question(7, "_mqtt._tcp.a.org.").unwrap();
        let found = vec![("n1.a.org".to_owned(), 4370), ("n2.b".to_owned(), 4371)];
        assert_eq!(answer(&question, &answered(0x8180)), Ok(Answer::Whole(found)));
        assert_eq!(answer(&question, &answered(0x8380)), Ok(Answer::CutOff));
        assert_eq!(answer(&question, &answered(0x8183)), Err("there is no such name"));
        assert_eq!(answer(&question, &answered(0x0180)), Ok(Answer::OfAnother));
        let mut other = answered(0x8180);
        other[1] = 8;
        assert_eq!(answer(&question, &other), Ok(Answer::OfAnother));
    }

    #[test]
    fn anything_may_come() {
        let question = question(7, "_mqtt._tcp.a.org").unwrap();
        let whole = answered(0x8180);
        for end in 0..whole.len() {
            assert!(!matches!(answer(&question, &whole[..end]), Ok(Answer::Whole(found)) if found.len() == 2), "{end}");
        }
        for at in 0..whole.len() {
            for byte in [0, 0x3F, 0xC0, 0xFF] {
                let mut wrong = whole.clone();
                wrong[at] = byte;
                let _ = answer(&question, &wrong);
            }
        }
        let mut circle = whole;
        let at = question.len();
        circle[at..at + 2].copy_from_slice(&[0xC0, u8::try_from(at).unwrap()]);
        assert_eq!(answer(&question, &circle), Err("an answer that is too short"));
    }

    #[test]
    fn name_servers() {
        let shown = |text: &str| servers(text).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(shown("# x\nnameserver 10.0.0.1\nsearch a\nnameserver ::1\n"), "10.0.0.1:53 [::1]:53");
        assert_eq!(shown(""), "127.0.0.1:53");
        assert_eq!((question(1, "a..b"), question(1, &"x".repeat(64))), (None, None));
    }
}
