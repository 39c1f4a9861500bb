//! `newtmq cert dev`: a certificate authority of one's own, for trying TLS out. Not for production, where certificates come
//! from an authority that keeps its key elsewhere.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use crate::config::{CERTIFICATE_FILE, KEY_FILE};

/// What to make.
#[derive(Debug, Clone)]
pub struct Request {
    /// Where to.
    pub folder: PathBuf,
    /// Names and addresses of the broker, besides those of this machine.
    pub hosts: Vec<String>,
    /// A client's name: its certificate is made instead of the broker's.
    pub client: Option<String>,
    /// Files that are there are replaced.
    pub force: bool,
}

/// Why nothing was made. The user's or the environment's.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// A file is there already; nothing was changed.
    #[error("{path} exists; --force replaces it", path = .0.display())]
    Exists(PathBuf),
    /// A name that no certificate can have.
    #[error("{0}: neither a host name nor an address")]
    Host(String),
    /// A client's name that would not be a name of a file.
    #[error("{0}: a client's name has 1 to 64 letters, digits, `.`, `_` and `-`, and begins with a letter or digit")]
    Client(String),
    /// The certificate authority's files are not right.
    #[error("{path}: {what}", path = .path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A file cannot be written.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A certificate cannot be made.
    #[error(transparent)]
    Made(#[from] rcgen::Error),
}

/// Makes what is asked for, and tells what was written and what to do next.
///
/// # Errors
/// See [`CertError`].
pub fn dev(request: &Request) -> Result<String, CertError> {
    let folder = &request.folder;
    fs::create_dir_all(folder).map_err(|source| CertError::Io { path: folder.clone(), source })?;
    let has_authority = folder.join(AUTHORITY_FILE).exists() && folder.join(AUTHORITY_KEY_FILE).exists();
    match &request.client {
        Some(client) if has_authority => client_certificate(request, client, &[]),
        Some(client) => {
            check_client(client)?;
            let told = broker_certificate(request)?;
            client_certificate(request, client, &[told])
        }
        None => broker_certificate(request),
    }
}

fn broker_certificate(request: &Request) -> Result<String, CertError> {
    let folder = &request.folder;
    let paths = [AUTHORITY_FILE, AUTHORITY_KEY_FILE, CERTIFICATE_FILE, KEY_FILE].map(|name| folder.join(name));
    missing(&paths, request.force)?;
    let mut hosts: Vec<String> = STANDARD_HOSTS.map(str::to_owned).to_vec();
    for host in &request.hosts {
        let is_address = host.parse::<std::net::IpAddr>().is_ok();
        let plain = host.split('.').all(|label| {
            let label = label.strip_prefix('*').unwrap_or(label);
            label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        });
        if !is_address && (host.is_empty() || !plain) {
            return Err(CertError::Host(host.clone()));
        }
        hosts.push(host.clone());
    }
    let authority_key = KeyPair::generate()?;
    let mut params = params(Vec::new(), "NewtMQ development CA")?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = params.self_signed(&authority_key)?;
    let issuer = Issuer::from_params(&params, &authority_key);

    let key = KeyPair::generate()?;
    let mut params = self::params(hosts.clone(), "localhost")?;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // A node shows it to others in both directions.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, &issuer)?;

    write(&paths[0], &authority.pem(), Secret::No)?;
    write(&paths[1], &authority_key.serialize_pem(), Secret::Yes)?;
    write(&paths[2], &certificate.pem(), Secret::No)?;
    write(&paths[3], &key.serialize_pem(), Secret::Yes)?;
    let (written, names) = (lines(&paths), hosts.join(", "));
    Ok(format!(
        "Written:\n{written}\nThe certificate is for {names}, and for {DAYS} days. It is for development: its CA's key lies \
         beside it.\n\nNext:\n{next}",
        next = next(folder),
    ))
}

fn next(folder: &Path) -> String {
    let run = match (folder.file_name(), folder.parent()) {
        (Some(name), Some(data)) if name == crate::config::CERTIFICATE_FOLDER && !data.as_os_str().is_empty() => {
            format!("newtmq run --data {}", data.display())
        }
        _ => {
            let file = |name| folder.join(name).display().to_string();
            format!(
                "newtmq run --set listener.ssl.external.certfile={} --set listener.ssl.external.keyfile={}",
                file(CERTIFICATE_FILE),
                file(KEY_FILE)
            )
        }
    };
    let authority = folder.join(AUTHORITY_FILE);
    format!("  {run}\n  mosquitto_sub -h localhost -p 8883 --cafile {} -t 'hello/#' -v\n", authority.display())
}

fn check_client(name: &str) -> Result<(), CertError> {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || [b'.', b'_', b'-'].contains(&b));
    let begins = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if plain && begins && name.len() <= 64 { Ok(()) } else { Err(CertError::Client(name.to_owned())) }
}

fn client_certificate(request: &Request, name: &str, told: &[String]) -> Result<String, CertError> {
    check_client(name)?;
    let folder = &request.folder;
    let paths = [format!("client-{name}.pem"), format!("client-{name}-key.pem")].map(|name| folder.join(name));
    missing(&paths, request.force)?;
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).map_err(|source| CertError::Io { path, source })
    };
    let wrong = |name: &str| {
        let path = folder.join(name);
        move |error: rcgen::Error| CertError::Authority { path, what: error.to_string() }
    };
    let authority_key = KeyPair::from_pem(&read(AUTHORITY_KEY_FILE)?).map_err(wrong(AUTHORITY_KEY_FILE))?;
    let issuer = Issuer::from_ca_cert_pem(&read(AUTHORITY_FILE)?, authority_key).map_err(wrong(AUTHORITY_FILE))?;
    let key = KeyPair::generate()?;
    let mut params = params(Vec::new(), name)?;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, &issuer)?;
    write(&paths[0], &certificate.pem(), Secret::No)?;
    write(&paths[1], &key.serialize_pem(), Secret::Yes)?;
    let before = told.iter().map(|told| format!("{told}\n")).collect::<String>();
    let (written, authority) = (lines(&paths), folder.join(AUTHORITY_FILE));
    Ok(format!(
        "{before}Written:\n{written}\nA listener asks for it with verify = \"verify_peer\" and cacertfile = \"{}\".\n",
        authority.display()
    ))
}

fn params(hosts: Vec<String>, common_name: &str) -> Result<CertificateParams, CertError> {
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = SystemTime::now();
    // Clocks of other machines may be a little behind.
    params.not_before = (now - DAY).into();
    params.not_after = (now + DAY * DAYS).into();
    Ok(params)
}

fn missing(paths: &[PathBuf], force: bool) -> Result<(), CertError> {
    match paths.iter().find(|path| !force && path.exists()) {
        Some(path) => Err(CertError::Exists(path.clone())),
        None => Ok(()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Secret {
    Yes,
    No,
}

/// Writes a file; nobody else ever sees a secret one.
fn write(path: &Path, text: &str, secret: Secret) -> Result<(), CertError> {
    let at = |source| CertError::Io { path: path.to_owned(), source };
    // An existing file would keep its permissions.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(error)),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(if secret == Secret::Yes { 0o600 } else { 0o644 });
    }
    options.open(path).and_then(|mut file| file.write_all(text.as_bytes())).map_err(at)
}

fn lines(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| format!("  {}\n", path.display())).collect()
}

/// The certificate of the authority, which clients trust.
const AUTHORITY_FILE: &str = "ca.pem";
const AUTHORITY_KEY_FILE: &str = "ca-key.pem";
/// Names of this machine.
const STANDARD_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long certificates hold: some clients refuse more than 825 days.
const DAYS: u32 = 825;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_made_once_and_keys_are_secret() {
        let folder = std::env::temp_dir().join(format!("newtmq-cert-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let request = |client: Option<&str>, hosts: &[&str], force| Request {
            folder: folder.clone(),
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            client: client.map(str::to_owned),
            force,
        };
        assert!(matches!(dev(&request(None, &["a b"], false)), Err(CertError::Host(_))));
        assert!(matches!(dev(&request(Some("../x"), &[], false)), Err(CertError::Client(_))));
        let told = dev(&request(Some("alice"), &["broker.example.org", "192.0.2.1"], false)).unwrap();
        assert!(told.contains("client-alice.pem") && told.contains("broker.example.org"), "{told}");
        let before = fs::read(folder.join(CERTIFICATE_FILE)).unwrap();
        assert!(matches!(dev(&request(None, &[], false)), Err(CertError::Exists(_))));
        assert!(matches!(dev(&request(Some("alice"), &[], false)), Err(CertError::Exists(_))));
        assert_eq!(fs::read(folder.join(CERTIFICATE_FILE)).unwrap(), before);
        dev(&request(Some("bob"), &[], false)).unwrap();
        dev(&request(None, &[], true)).unwrap();
        assert_ne!(fs::read(folder.join(CERTIFICATE_FILE)).unwrap(), before);
        #[cfg(unix)]
        for name in [KEY_FILE, AUTHORITY_KEY_FILE, "client-bob-key.pem"] {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
