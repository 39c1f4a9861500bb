//! TLS between nodes: both sides show a certificate of the cluster's authority. Names in certificates do not count, for
//! nodes are known by their ids; whoever has a certificate of that authority is a node.

use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context as _;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError as Invalid, ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::sockets::PeerStream;
use crate::config::{CertificateFiles, ClusterTls, Config};
use crate::net::certs::{self, CertificateError};
use crate::reload::{Prepared, Reload};
use crate::rt::PeerSocket;

/// What a node shows and asks for, which can be replaced while links use what was before.
pub struct LinkTls {
    current: RwLock<Arc<Ends>>,
}

/// For connections that are accepted, and for those that are opened.
struct Ends {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl fmt::Debug for LinkTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkTls(..)")
    }
}

impl LinkTls {
    /// Reads the files; none if nothing is configured.
    ///
    /// # Errors
    /// One of them is not there or not right.
    pub fn new(tls: &ClusterTls) -> Result<Option<LinkTls>, CertificateError> {
        Ok(Ends::read(tls)?.map(|ends| LinkTls { current: RwLock::new(Arc::new(ends)) }))
    }

    /// For the next handshake.
    fn current(&self) -> Arc<Ends> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Does the handshake of a connection that was accepted.
    ///
    /// # Errors
    /// The other side's, or the network's.
    pub async fn accept(&self, socket: PeerSocket) -> io::Result<Box<dyn PeerStream>> {
        Ok(Box::new(self.current().acceptor.accept(socket).await?))
    }

    /// Does the handshake of a connection that was opened.
    ///
    /// # Errors
    /// The other side's, or the network's.
    pub async fn connect(&self, socket: PeerSocket) -> io::Result<Box<dyn PeerStream>> {
        let name = ServerName::try_from(ANY_NAME).expect("it is a name");
        Ok(Box::new(self.current().connector.connect(name, socket).await?))
    }
}

impl Reload for LinkTls {
    fn name(&self) -> String {
        "certificates of cluster.tls".to_owned()
    }

    fn has_files(&self) -> bool {
        true
    }

    /// The same files: other ones need a restart.
    fn prepare(self: Arc<Self>, config: &Config) -> anyhow::Result<Prepared> {
        let ends = Arc::new(Ends::read(&config.cluster.tls)?.context("links are not encrypted any more")?);
        Ok(Box::new(move || {
            // Links that are open stay as they are.
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = ends;
            None
        }))
    }
}

impl Ends {
    fn read(tls: &ClusterTls) -> Result<Option<Ends>, CertificateError> {
        let ClusterTls { certfile: Some(certfile), keyfile: Some(keyfile), cacertfile: Some(cacertfile) } = tls else {
            return Ok(None);
        };
        let files = CertificateFiles { certfile: Some(certfile.clone()), keyfile: Some(keyfile.clone()) };
        let certified = Arc::new(certs::certified(&files)?);
        let roots = Arc::new(certs::roots(cacertfile)?);
        let provider: Arc<CryptoProvider> = Arc::new(default_provider());
        let wrong = |error: Error| CertificateError::Configuration(error.to_string());
        let verifier = |error: rustls::client::VerifierBuilderError| CertificateError::Configuration(error.to_string());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let clients = clients.build().map_err(verifier)?;
        let servers = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
        let shown = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
        let only = &[&rustls::version::TLS13];
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(only);
        let server =
            server.map_err(wrong)?.with_client_cert_verifier(clients).with_cert_resolver(Arc::clone(&shown) as _);
        let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(only).map_err(wrong)?;
        let servers = Arc::new(AnyName(servers.map_err(verifier)?));
        let client = client.dangerous().with_custom_certificate_verifier(servers).with_client_cert_resolver(shown);
        Ok(Some(Ends { acceptor: Arc::new(server).into(), connector: Arc::new(client).into() }))
    }
}

/// A certificate of the authority is good whatever name it has.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.0.verify_server_cert(end_entity, intermediates, name, ocsp_response, now) {
            // The name is looked at last: everything else holds.
            Err(Error::InvalidCertificate(Invalid::NotValidForName | Invalid::NotValidForNameContext { .. })) => {
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// What is said to the other side, which has one certificate only.
const ANY_NAME: &str = "node.newtmq.invalid";

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::data::tests::Scratch;

    /// Another authority with another certificate, in the same files.
    fn make(scratch: &Scratch) {
        let _ = std::fs::remove_dir_all(&scratch.0);
        let request = crate::cert::Request { folder: scratch.0.clone(), hosts: Vec::new(), client: None, force: true };
        crate::cert::dev(&request).unwrap();
    }

    fn config(scratch: &Scratch) -> Config {
        let file = |name: &str| Some(scratch.0.join(name));
        let mut config = Config::default();
        config.cluster.tls =
            ClusterTls { certfile: file("cert.pem"), keyfile: file("key.pem"), cacertfile: file("ca.pem") };
        config
    }

    /// Whether the one lets the other in, which the other may not have heard yet.
    fn meet(one: &Arc<LinkTls>, other: &LinkTls) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let one = Arc::clone(one);
            let accepted = tokio::spawn(async move { one.accept(listener.accept().await.unwrap().0).await.is_ok() });
            let connected = other.connect(TcpStream::connect(address).await.unwrap()).await;
            accepted.await.unwrap() && connected.is_ok()
        })
    }

    #[test]
    fn certificates_are_read_again_and_those_that_are_not_right_change_nothing() {
        let scratch = Scratch::new("link-tls");
        make(&scratch);
        let config = config(&scratch);
        let new = || Arc::new(LinkTls::new(&config.cluster.tls).unwrap().unwrap());
        let (one, other) = (new(), new());
        assert!(meet(&one, &other));
        std::fs::write(scratch.0.join("cert.pem"), "nothing").unwrap();
        let error = Arc::clone(&one).prepare(&config).err().unwrap();
        assert!(format!("{error:#}").contains("cert.pem: no certificate in it (PEM)"), "{error:#}");
        assert!(meet(&one, &other));
        make(&scratch);
        let ready = Arc::clone(&one).prepare(&config).unwrap();
        assert!(meet(&one, &other), "nothing is changed before everything is read");
        assert!(ready().is_none());
        assert!(!meet(&one, &other));
        let ready = Arc::clone(&other).prepare(&config).unwrap();
        ready();
        assert!(meet(&one, &other));
    }
}
