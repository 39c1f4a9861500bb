//! The HTTP request with which a WebSocket connection begins (RFC 6455, section 4), and its answer.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tungstenite::handshake::derive_accept_key;

/// Most bytes of a request. A longer one is answered with 431.
const HEAD_MAX: usize = 8 << 10;
/// Most header fields of a request. More are answered with 431.
const FIELDS_MAX: usize = 64;
/// Largest read. A whole record of TLS has to fit.
const READ: usize = 20 << 10;
/// Subprotocols that are MQTT: the registered one, and that of clients from before [MQTT-6.0.0-3].
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// Why a request does not lead to a WebSocket connection.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The network's, or the client has gone.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The client's; it was answered.
    #[error("{0}")]
    Refused(Refusal),
}

/// What a client is answered instead of 101.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not HTTP, or a part that is needed is missing or wrong.
    #[error("400 Bad Request")]
    BadRequest,
    /// Another path.
    #[error("404 Not Found")]
    NotFound,
    /// Another method than GET.
    #[error("405 Method Not Allowed")]
    MethodNotAllowed,
    /// HTTP, but no request for WebSocket version 13.
    #[error("426 Upgrade Required")]
    UpgradeRequired,
    /// More than is taken.
    #[error("431 Request Header Fields Too Large")]
    TooLarge,
}

/// A request that is granted.
#[derive(Debug, PartialEq, Eq)]
struct Granted {
    accept: String,
    subprotocol: &'static str,
}

/// Reads the request and answers it. Returns what the client sent behind it.
///
/// # Errors
/// It was refused, or the client has gone.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, path: &str) -> Result<Vec<u8>, UpgradeError> {
    let mut head = Vec::new();
    let mut chunk = vec![0; READ];
    let answer = loop {
        match stream.read(&mut chunk).await? {
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            count => head.extend_from_slice(&chunk[..count]),
        }
        match judge(&head, path) {
            Ok(Some((length, granted))) => break Ok((length, granted)),
            Ok(None) if head.len() > HEAD_MAX => break Err(Refusal::TooLarge),
            Ok(None) => {}
            Err(refusal) => break Err(refusal),
        }
    };
    match answer {
        Ok((length, Granted { accept, subprotocol })) => {
            let text = format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
            );
            stream.write_all(text.as_bytes()).await?;
            stream.flush().await?;
            Ok(head.split_off(length))
        }
        Err(refusal) => {
            stream.write_all(response(refusal).as_bytes()).await?;
            stream.shutdown().await?;
            Err(UpgradeError::Refused(refusal))
        }
    }
}

fn response(refusal: Refusal) -> String {
    let fields = match refusal {
        Refusal::UpgradeRequired => "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
        Refusal::MethodNotAllowed => "Allow: GET\r\n",
        Refusal::BadRequest | Refusal::NotFound | Refusal::TooLarge => "",
    };
    format!("HTTP/1.1 {refusal}\r\n{fields}Connection: close\r\nContent-Length: 0\r\n\r\n")
}

/// Judges what has come of a request. With a whole one: its length, and what is granted.
fn judge(bytes: &[u8], path: &str) -> Result<Option<(usize, Granted)>, Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= HEAD_MAX => length,
        Ok(httparse::Status::Complete(_)) | Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLarge),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Refusal::BadRequest),
    };
    if request.method != Some("GET") {
        return Err(Refusal::MethodNotAllowed);
    }
    let target = request.path.unwrap_or_default();
    // A query says nothing about which resource it is here.
    if target.split('?').next() != Some(path) {
        return Err(Refusal::NotFound);
    }
    if request.version != Some(1) {
        return Err(Refusal::BadRequest);
    }
    let asks = tokens(request.headers, "Connection").any(|token| token.eq_ignore_ascii_case("upgrade"))
        && tokens(request.headers, "Upgrade").any(|token| token.eq_ignore_ascii_case("websocket"));
    if !asks || tokens(request.headers, "Sec-WebSocket-Version").next() != Some("13") {
        return Err(Refusal::UpgradeRequired);
    }
    // 16 bytes in base64.
    let is_key = |key: &&str| key.len() == 24 && key.ends_with("==");
    let key = tokens(request.headers, "Sec-WebSocket-Key").next().filter(is_key).ok_or(Refusal::BadRequest)?;
    // The client's first that is one of ours; without one it does not mean MQTT [MQTT-6.0.0-3].
    let ours = |token: &str| SUBPROTOCOLS.into_iter().find(|known| *known == token);
    let mut asked = tokens(request.headers, "Sec-WebSocket-Protocol");
    let subprotocol = asked.find_map(ours).ok_or(Refusal::BadRequest)?;
    Ok(Some((length, Granted { accept: derive_accept_key(key.as_bytes()), subprotocol })))
}

/// The parts between commas of all fields of a name.
fn tokens<'a>(fields: &'a [httparse::Header<'a>], name: &'a str) -> impl Iterator<Item = &'a str> {
    let mine = fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
    let text = mine.filter_map(|field| std::str::from_utf8(field.value).ok());
    text.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn request(first: &str, fields: &[&str]) -> String {
        format!("{first}\r\nHost: localhost\r\n{}\r\n", fields.iter().map(|f| format!("{f}\r\n")).collect::<String>())
    }

    /// A request with these fields in place of those of the same name.
    fn asking(changed: &[&str]) -> String {
        let key = format!("Sec-WebSocket-Key: {KEY}");
        let usual = [
            "Connection: keep-alive, Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            &key,
            "Sec-WebSocket-Protocol: mqtt",
        ];
        let name = |field: &str| field.split(':').next().unwrap_or_default().to_owned();
        let kept = usual.into_iter().filter(|field| !changed.iter().any(|other| name(other) == name(field)));
        let fields: Vec<&str> = kept.chain(changed.iter().copied().filter(|field| !field.ends_with(": "))).collect();
        request("GET /mqtt HTTP/1.1", &fields)
    }

    fn subprotocol(text: &str) -> Result<&'static str, Refusal> {
        judge(text.as_bytes(), "/mqtt").map(|granted| granted.expect("the request is whole").1.subprotocol)
    }

    #[test]
    fn requests_that_are_granted() {
        let text = asking(&[]);
        let (length, granted) = judge(format!("{text}and more").as_bytes(), "/mqtt").unwrap().unwrap();
        assert_eq!((length, granted.accept.as_str()), (text.len(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        for (fields, want) in [
            (&["Sec-WebSocket-Protocol: mqttv3.1"][..], "mqttv3.1"),
            (&["Sec-WebSocket-Protocol: foo, mqtt"], "mqtt"),
            (&["Sec-WebSocket-Protocol: mqttv3.1,mqtt"], "mqttv3.1"),
            (&["Sec-WebSocket-Protocol: foo", "Sec-WebSocket-Protocol: bar , mqtt"], "mqtt"),
            (&["connection: UPGRADE", "Connection: ", "upgrade: WebSocket", "Upgrade: "], "mqtt"),
        ] {
            assert_eq!(subprotocol(&asking(fields)), Ok(want), "{fields:?}");
        }
        let query = asking(&[]).replace("/mqtt ", "/mqtt?token=x ");
        assert_eq!(subprotocol(&query), Ok("mqtt"));
    }

    #[test]
    fn requests_that_are_refused() {
        for (text, want) in [
            (asking(&["Sec-WebSocket-Protocol: "]), Refusal::BadRequest),
            (asking(&["Sec-WebSocket-Protocol: foo"]), Refusal::BadRequest),
            (asking(&["Sec-WebSocket-Protocol: MQTT"]), Refusal::BadRequest),
            (asking(&["Sec-WebSocket-Key: "]), Refusal::BadRequest),
            (asking(&["Sec-WebSocket-Key: short"]), Refusal::BadRequest),
            (asking(&["Sec-WebSocket-Version: 8"]), Refusal::UpgradeRequired),
            (asking(&["Upgrade: h2c"]), Refusal::UpgradeRequired),
            (request("GET /mqtt HTTP/1.1", &[]), Refusal::UpgradeRequired),
            (asking(&[]).replace("/mqtt ", "/ "), Refusal::NotFound),
            (asking(&[]).replace("/mqtt ", "/mqtt/x "), Refusal::NotFound),
            (asking(&[]).replace("GET", "POST"), Refusal::MethodNotAllowed),
            (asking(&[]).replace("HTTP/1.1", "HTTP/1.0"), Refusal::BadRequest),
            ("\x10\x0c\0\x04MQTT".to_owned(), Refusal::BadRequest),
            (request("GET /mqtt HTTP/1.1", &["X: y"; FIELDS_MAX]), Refusal::TooLarge),
            (asking(&[&format!("X: {}", "y".repeat(HEAD_MAX))]), Refusal::TooLarge),
        ] {
            assert_eq!(subprotocol(&text), Err(want), "{text}");
        }
        assert_eq!(judge(b"GET /mqtt HTTP/1.1\r\nHost", "/mqtt"), Ok(None), "more may come");
    }
}
