//! The User Name that a client's certificate gives it.

use rustls::pki_types::CertificateDer;

use crate::config::PeerName;

/// Longest User Name (MQTT, 1.5.4).
const USERNAME_MAX: usize = u16::MAX as usize;

/// The certificate has nothing that could be a User Name: what is asked for is missing, or no text that MQTT allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client's certificate has no usable name")]
pub struct Nameless;

/// The User Name for a client with this certificate; `None` if certificates give no names.
///
/// # Errors
/// The certificate gives none although it should. Such a client is refused: with the name of its CONNECT it could
/// pass for anybody.
pub fn username(certificate: &CertificateDer<'_>, kind: PeerName) -> Result<Option<Box<str>>, Nameless> {
    let name = match kind {
        PeerName::None => return Ok(None),
        PeerName::Crt => pem(certificate),
        PeerName::Cn | PeerName::Dn => {
            let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| Nameless)?;
            let subject = parsed.subject();
            if kind == PeerName::Dn {
                // Every subject that cannot be shown would have the same name, which is put into `<>`; others begin
                // with the kind of their first part.
                Some(subject.to_string()).filter(|name| !name.starts_with('<')).ok_or(Nameless)?
            } else {
                let name = subject.iter_common_name().next().ok_or(Nameless)?;
                name.as_str().map_err(|_| Nameless)?.to_owned()
            }
        }
    };
    usable(&name, kind == PeerName::Crt).then(|| Some(name.into())).ok_or(Nameless)
}

/// Whether a name given by somebody else (a balancer) can be a User Name.
#[must_use]
pub fn usable(name: &str, lines: bool) -> bool {
    let plain = |c: char| !c.is_control() || (lines && c == '\n');
    (1..=USERNAME_MAX).contains(&name.len()) && name.chars().all(plain)
}

fn pem(certificate: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", certificate), config)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn certificate(names: &[(DnType, &str)]) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, name) in names {
            params.distinguished_name.push(kind.clone(), *name);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().into()
    }

    #[test]
    fn names_of_a_certificate() {
        let alice = certificate(&[(DnType::OrganizationName, "Example"), (DnType::CommonName, "alice")]);
        let name = |kind| username(&alice, kind).unwrap();
        assert_eq!(name(PeerName::None), None);
        assert_eq!(name(PeerName::Cn).as_deref(), Some("alice"));
        assert_eq!(name(PeerName::Dn).as_deref(), Some("O=Example, CN=alice"));
        let text = name(PeerName::Crt).unwrap();
        assert!(text.starts_with("-----BEGIN CERTIFICATE-----\n") && !text.contains('\r'), "{text}");
    }

    #[test]
    fn a_certificate_without_a_usable_name() {
        for names in
            [&[(DnType::OrganizationName, "Example")][..], &[(DnType::CommonName, "")], &[(DnType::CommonName, "a\0b")]]
        {
            assert_eq!(username(&certificate(names), PeerName::Cn), Err(Nameless), "{names:?}");
        }
        assert_eq!(username(&CertificateDer::from(vec![0x30, 0x80]), PeerName::Cn), Err(Nameless));
        // A subject that is no UTF-8 although it says so.
        let mut der = certificate(&[(DnType::CommonName, "alice")]).to_vec();
        while let Some(at) = der.windows(5).position(|five| five == b"alice") {
            der[at] = 0xFF;
        }
        let broken = CertificateDer::from(der);
        for kind in [PeerName::Cn, PeerName::Dn] {
            assert_eq!(username(&broken, kind), Err(Nameless), "{kind:?}");
        }
    }
}
