//! What a listener with TLS shows and asks for: certificates by name, read from files again when told to.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context as _;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{Ticketer, cipher_suite, default_provider, sign};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};

use crate::config::{CIPHERS, CertificateFiles, Config, Listener, Tls, TlsVersion, Verify};
use crate::reload::{Prepared, Reload};

/// Why a listener has no TLS. The environment's fault or that of who wrote the configuration; what was in use stays.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file that cannot be read.
    #[error("{path} cannot be read", path = .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A file that is not what it should be.
    #[error("{path}: {what}", path = .path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong with it; never a part of it.
        what: String,
    },
    /// Versions and cipher suites that do not go together.
    #[error("{0}")]
    Configuration(String),
}

/// The TLS configuration of one listener, which can be replaced while connections use the one before.
#[derive(Debug)]
pub struct Context {
    listener: String,
    current: RwLock<Arc<ServerConfig>>,
}

impl Context {
    /// Reads the files of a listener.
    ///
    /// # Errors
    /// One of them is not there or not right.
    pub fn new(listener: &Listener) -> Result<Context, CertificateError> {
        let config = read(&listener.tls)?;
        Ok(Context { listener: listener.path(), current: RwLock::new(Arc::new(config)) })
    }

    /// For the next handshake.
    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The listener's full name.
    #[must_use]
    pub fn listener(&self) -> &str {
        &self.listener
    }

    /// Reads the files that these keys name. What is in use stays until [`Context::replace`].
    ///
    /// # Errors
    /// One of them is not right.
    pub fn read(tls: &Tls) -> Result<Arc<ServerConfig>, CertificateError> {
        read(tls).map(Arc::new)
    }

    /// For handshakes from here on. Connections that are open stay as they are.
    pub fn replace(&self, config: Arc<ServerConfig>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
    }
}

impl Reload for Context {
    fn name(&self) -> String {
        format!("certificates of {}", self.listener)
    }

    fn has_files(&self) -> bool {
        true
    }

    fn prepare(self: Arc<Self>, config: &Config) -> anyhow::Result<Prepared> {
        let listener = config.listeners.iter().find(|listener| listener.path() == self.listener);
        let listener = listener.context("no such listener")?;
        let read = Context::read(&listener.tls)?;
        Ok(Box::new(move || {
            self.replace(read);
            None
        }))
    }
}

fn read(tls: &Tls) -> Result<ServerConfig, CertificateError> {
    let provider = Arc::new(CryptoProvider { cipher_suites: suites(tls), ..default_provider() });
    let versions: Vec<_> = tls.versions.iter().map(|version| supported(*version)).collect();
    let certificates = Arc::new(Certificates::read(tls)?);
    let wrong = |error: rustls::Error| CertificateError::Configuration(error.to_string());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&versions);
    let builder = builder.map_err(wrong)?;
    let builder = match (tls.verify, &tls.cacertfile) {
        (Verify::Peer, Some(path)) => {
            let roots = Arc::new(roots(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            let verifier = if tls.fail_if_no_peer_cert { verifier } else { verifier.allow_unauthenticated() };
            let at = |error: rustls::server::VerifierBuilderError| wrong_file(path, error);
            builder.with_client_cert_verifier(verifier.build().map_err(at)?)
        }
        _ => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(certificates);
    // A client that comes back spares both sides most of the handshake, and the broker keeps nothing for it. The keys
    // are new with each configuration, so that none outlives the certificates it was made with.
    config.ticketer = Ticketer::new().map_err(wrong)?;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(config)
}

fn suites(tls: &Tls) -> Vec<SupportedCipherSuite> {
    tls.ciphers.iter().map(|at| SUITES[*at]).collect()
}

/// In the order of [`CIPHERS`].
const SUITES: [SupportedCipherSuite; CIPHERS.len()] = [
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

fn supported(version: TlsVersion) -> &'static SupportedProtocolVersion {
    match version {
        TlsVersion::V13 => &rustls::version::TLS13,
        TlsVersion::V12 => &rustls::version::TLS12,
    }
}

/// Certificates by the name that a client asks for (SNI).
#[derive(Debug)]
struct Certificates {
    /// Lower-case names, and `*.` names for those directly below.
    by_name: BTreeMap<String, Arc<CertifiedKey>>,
    default: Arc<CertifiedKey>,
}

impl Certificates {
    fn read(tls: &Tls) -> Result<Certificates, CertificateError> {
        let default = Arc::new(certified(&tls.certificate)?);
        let mut by_name = BTreeMap::new();
        for sni in tls.sni.values() {
            by_name.insert(sni.hostname.to_ascii_lowercase(), Arc::new(certified(&sni.certificate)?));
        }
        Ok(Certificates { by_name, default })
    }

    fn find(&self, name: &str) -> &Arc<CertifiedKey> {
        let name = name.to_ascii_lowercase();
        let above = || name.split_once('.').and_then(|(_, above)| self.by_name.get(&format!("*.{above}")));
        self.by_name.get(&name).or_else(above).unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(hello.server_name().map_or(&self.default, |name| self.find(name))))
    }
}

pub(crate) fn certified(files: &CertificateFiles) -> Result<CertifiedKey, CertificateError> {
    let (Some(certfile), Some(keyfile)) = (&files.certfile, &files.keyfile) else {
        return Err(CertificateError::Configuration("a certificate and its key are needed".to_owned()));
    };
    let chain = certificates(certfile)?;
    let bytes = bytes(keyfile)?;
    let key =
        PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| wrong_file(keyfile, told(&error, "private key")))?;
    let key = sign::any_supported_type(&key).map_err(|_| wrong_file(keyfile, "a kind of key that cannot be used"))?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(wrong_file(keyfile, format!("not the key of {}", certfile.display())))
        }
        Err(error) => Err(wrong_file(certfile, error)),
    }
}

pub(crate) fn roots(path: &Path) -> Result<RootCertStore, CertificateError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| wrong_file(path, error))?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let bytes = bytes(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if found.is_empty() => Err(wrong_file(path, "no certificate in it (PEM)")),
        Ok(found) => Ok(found),
        Err(error) => Err(wrong_file(path, told(&error, "certificate"))),
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, CertificateError> {
    std::fs::read(path).map_err(|source| CertificateError::Unreadable { path: path.to_owned(), source })
}

/// What is wrong with a PEM file, without any of what is in it.
fn told(error: &pem::Error, wanted: &str) -> String {
    match error {
        pem::Error::NoItemsFound => format!("no {wanted} in it (PEM)"),
        _ => "not PEM".to_owned(),
    }
}

fn wrong_file(path: &Path, what: impl ToString) -> CertificateError {
    CertificateError::Wrong { path: path.to_owned(), what: what.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_there_is_told_once() {
        let error = anyhow::Error::from(bytes(Path::new("no/such.pem")).unwrap_err());
        assert_eq!(format!("{error:#}"), "no/such.pem cannot be read: No such file or directory (os error 2)");
    }
}
