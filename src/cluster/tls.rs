//! TLS between nodes: both sides show a certificate of the cluster's authority. Names in certificates do not count, for
//! nodes are known by their ids; whoever has a certificate of that authority is a node.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError as Invalid, ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::sockets::PeerStream;
use crate::config::{CertificateFiles, ClusterTls};
use crate::net::certs::{self, CertificateError};
use crate::rt::PeerSocket;

/// What a node shows and asks for.
#[derive(Clone)]
pub struct LinkTls {
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
        Ok(Some(LinkTls { acceptor: Arc::new(server).into(), connector: Arc::new(client).into() }))
    }

    /// Does the handshake of a connection that was accepted.
    ///
    /// # Errors
    /// The other side's, or the network's.
    pub async fn accept(&self, socket: PeerSocket) -> io::Result<Box<dyn PeerStream>> {
        Ok(Box::new(self.acceptor.accept(socket).await?))
    }

    /// Does the handshake of a connection that was opened.
    ///
    /// # Errors
    /// The other side's, or the network's.
    pub async fn connect(&self, socket: PeerSocket) -> io::Result<Box<dyn PeerStream>> {
        let name = ServerName::try_from(ANY_NAME).expect("it is a name");
        Ok(Box::new(self.connector.connect(name, socket).await?))
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
