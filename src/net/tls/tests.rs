use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use tokio::io::{DuplexStream, duplex};

use super::*;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await.expect("it ends") })
}

/// Both sides' configurations for one version.
fn configs(version: &'static SupportedProtocolVersion) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&[version]).unwrap();
    let server = server.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
    let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    (Arc::new(server), Arc::new(client.with_root_certificates(roots).with_no_client_auth()))
}

/// rustls' buffered client on an asynchronous stream, a step at a time.
struct Client {
    stream: DuplexStream,
    tls: ClientConnection,
}

impl Client {
    fn new(stream: DuplexStream, config: Arc<ClientConfig>) -> Client {
        let name = ServerName::try_from("localhost").unwrap();
        Client { stream, tls: ClientConnection::new(config, name).unwrap() }
    }

    async fn send(&mut self, plain: &[u8]) {
        use std::io::Write as _;
        self.tls.writer().write_all(plain).unwrap();
        self.write().await;
    }

    async fn write(&mut self) {
        let mut bytes = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut bytes).unwrap();
        }
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// Reads once; false at the end.
    async fn read(&mut self, plain: &mut Vec<u8>) -> bool {
        let mut bytes = [0; 4096];
        let count = self.stream.read(&mut bytes).await.unwrap();
        let mut left = &bytes[..count];
        while !left.is_empty() {
            self.tls.read_tls(&mut left).unwrap();
            let state = self.tls.process_new_packets().unwrap();
            let mut some = vec![0; state.plaintext_bytes_to_read()];
            std::io::Read::read_exact(&mut self.tls.reader(), &mut some).unwrap();
            plain.extend(some);
        }
        count > 0
    }

    /// Until the handshake is done on this side; the last flight may go with data.
    async fn handshake(&mut self) {
        self.write().await;
        while self.tls.is_handshaking() {
            assert!(self.read(&mut Vec::new()).await);
            if self.tls.is_handshaking() {
                self.write().await;
            }
        }
    }
}

/// A handshake after which the client sends this at once, with its last flight.
async fn connected(
    version: &'static SupportedProtocolVersion,
    capacity: usize,
    early: &[u8],
) -> (Tls<DuplexStream>, Client) {
    let (server, client) = configs(version);
    let (here, there) = duplex(capacity);
    let mut client = Client::new(there, client);
    let early = early.to_vec();
    let client = tokio::spawn(async move {
        client.handshake().await;
        client.send(&early).await;
        client
    });
    let tls = accept(here, server).await.unwrap();
    (tls, client.await.unwrap())
}

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

#[test]
fn data_that_comes_with_the_handshake_is_read() {
    for version in VERSIONS {
        block_on(async {
            // So much that it fits into the read that ends the handshake.
            let (mut tls, client) = connected(version, 1 << 20, b"CONNECT").await;
            let mut buffer = vec![0; 64 << 10];
            assert_eq!(tls.read(&mut buffer).await.unwrap(), 7);
            assert_eq!(&buffer[..7], b"CONNECT");
            drop(client);
            assert_eq!(tls.read(&mut buffer).await.unwrap(), 0, "without close_notify");
        });
    }
}

#[test]
fn large_data_both_ways_through_a_small_socket() {
    for version in VERSIONS {
        block_on(async {
            let (mut tls, mut client) = connected(version, 3000, b"").await;
            let data: Vec<u8> = (0..300_000_u32).map(|n| (n / 7) as u8).collect();
            let expected = data.clone();
            let server = tokio::spawn(async move {
                let (mut read, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
                while read.len() < expected.len() {
                    let count = tls.read(&mut buffer).await.unwrap();
                    assert!(count > 0);
                    read.extend_from_slice(&buffer[..count]);
                }
                assert!(read == expected);
                tls.write_all(&expected).await.unwrap();
                tls.flush().await.unwrap();
                tls.shutdown().await.unwrap();
                tls
            });
            for part in data.chunks(10_000) {
                client.send(part).await;
            }
            let mut read = Vec::new();
            while client.read(&mut read).await {}
            assert!(read == data);
            let tls = server.await.unwrap();
            assert!(tls.output.capacity() == 0 && tls.input.capacity() == 0, "nothing is kept when idle");
        });
    }
}

#[test]
fn new_keys_are_answered_and_a_close_is_an_end() {
    block_on(async {
        let (mut tls, mut client) = connected(&rustls::version::TLS13, 1 << 20, b"").await;
        client.tls.refresh_traffic_keys().unwrap();
        client.send(b"a").await;
        let mut buffer = vec![0; 64 << 10];
        assert_eq!(tls.read(&mut buffer).await.unwrap(), 1);
        tls.write_all(b"b").await.unwrap();
        tls.flush().await.unwrap();
        let mut read = Vec::new();
        while read.is_empty() {
            assert!(client.read(&mut read).await);
        }
        client.tls.send_close_notify();
        client.send(b"").await;
        assert_eq!(tls.read(&mut buffer).await.unwrap(), 0);
    });
}

#[test]
fn what_is_no_tls_is_an_error_with_an_alert() {
    block_on(async {
        let (server, _) = configs(&rustls::version::TLS13);
        for bytes in [
            &b"\x10\x0c\0\x04MQTT\x05\x02\0\0\0\0"[..],
            b"GET / HTTP/1.1\r\n\r\n",
            &[0x16, 3, 1, 0, 4, 99, 0, 0, 0],
            &[0xff; 64],
        ] {
            let (here, mut there) = duplex(1 << 20);
            there.write_all(bytes).await.unwrap();
            let error = accept(here, Arc::clone(&server)).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bytes:02x?}");
            let mut answer = Vec::new();
            there.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer[0], 0x15, "an alert");
        }
        let (here, there) = duplex(64);
        drop(there);
        assert_eq!(accept(here, server).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    });
}

#[test]
fn damaged_records_end_the_connection() {
    for version in VERSIONS {
        block_on(async {
            let (mut tls, mut client) = connected(version, 1 << 20, b"").await;
            // A record that nobody encrypted, after the first half of one in an earlier read.
            client.stream.write_all(&[23, 3, 3, 0, 40, 1, 2, 3]).await.unwrap();
            let mut buffer = vec![0; 64 << 10];
            let waker = std::task::Waker::noop();
            let mut read = ReadBuf::new(&mut buffer);
            assert!(Pin::new(&mut tls).poll_read(&mut Context::from_waker(waker), &mut read).is_pending());
            // Writing in between shows the half record to rustls again.
            tls.write_all(b"x").await.unwrap();
            client.stream.write_all(&[9; 37]).await.unwrap();
            assert_eq!(tls.read(&mut buffer).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        });
    }
}

/// A stream that has all of its bytes at once and is then reset. It counts how often it was asked.
struct Plenty {
    bytes: Vec<u8>,
    at: usize,
    reads: usize,
}

impl AsyncRead for Plenty {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.reads += 1;
        if self.at == self.bytes.len() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let count = buffer.remaining().min(self.bytes.len() - self.at);
        buffer.put_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Plenty {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn many_tiny_records_do_not_keep_the_reader() {
    for version in VERSIONS {
        block_on(async {
            let (tls, mut client) = connected(version, 1 << 20, b"").await;
            let mut bytes = Vec::new();
            for _ in 0..20_000 {
                std::io::Write::write_all(&mut client.tls.writer(), b"y").unwrap();
                client.tls.write_tls(&mut bytes).unwrap();
            }
            let mut tls = tls.try_map(|_| Ok(Plenty { bytes, at: 0, reads: 0 })).unwrap();
            let mut buffer = vec![0; 64 << 10];
            assert!(tls.read(&mut buffer).await.unwrap() > 0);
            assert!(tls.inner().reads <= READS_MAX, "{} reads in a row", tls.inner().reads);
        });
    }
}

#[test]
fn data_before_a_reset_is_read() {
    for version in VERSIONS {
        block_on(async {
            let (tls, mut client) = connected(version, 1 << 20, b"").await;
            let mut bytes = Vec::new();
            std::io::Write::write_all(&mut client.tls.writer(), b"DISCONNECT").unwrap();
            client.tls.write_tls(&mut bytes).unwrap();
            let mut tls = tls.try_map(|_| Ok(Plenty { bytes, at: 0, reads: 0 })).unwrap();
            let mut buffer = vec![0; 64 << 10];
            assert_eq!(tls.read(&mut buffer).await.unwrap(), 10);
            assert_eq!(tls.read(&mut buffer).await.unwrap(), 0);
        });
    }
}

#[test]
fn an_end_is_answered_with_one() {
    for version in VERSIONS {
        block_on(async {
            let (mut tls, mut client) = connected(version, 1 << 20, b"").await;
            std::io::Write::write_all(&mut client.tls.writer(), b"x").unwrap();
            client.tls.send_close_notify();
            client.write().await;
            let mut buffer = vec![0; 64 << 10];
            assert_eq!(tls.read(&mut buffer).await.unwrap(), 1);
            tls.write_all(b"y").await.unwrap();
            assert_eq!(tls.read(&mut buffer).await.unwrap(), 0);
            drop(tls);
            let mut read = Vec::new();
            while client.read(&mut read).await {}
            assert_eq!(read, b"y");
            // An end without it would be an error.
            assert_eq!(std::io::Read::read(&mut client.tls.reader(), &mut buffer).unwrap(), 0);
        });
    }
}
