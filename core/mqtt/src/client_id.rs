//! The Client Identifier of a session.

use core::borrow::Borrow;
use core::fmt;

/// A Client Identifier that names a session (3.1.3.1). Never empty: a server assigns one to a client that sends none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(Box<str>);

/// Why a text is no Client Identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidClientId {
    /// It is empty.
    #[error("the Client Identifier is empty")]
    Empty,
    /// It is longer than 65,535 bytes (1.5.4).
    #[error("the Client Identifier is longer than 65535 bytes")]
    TooLong,
    /// It holds U+0000 \[MQTT-1.5.4-2\].
    #[error("the Client Identifier holds U+0000")]
    NulCharacter,
}

impl ClientId {
    /// Copies `text` if it is a Client Identifier.
    pub fn new(text: &str) -> Result<ClientId, InvalidClientId> {
        if text.is_empty() {
            Err(InvalidClientId::Empty)
        } else if text.len() > usize::from(u16::MAX) {
            Err(InvalidClientId::TooLong)
        } else if text.as_bytes().contains(&0) {
            Err(InvalidClientId::NulCharacter)
        } else {
            Ok(ClientId(text.into()))
        }
    }

    /// The text.
    #[inline]
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// `Hash` of a `Box<str>` is that of its `str`, as `Borrow` demands.
impl Borrow<str> for ClientId {
    #[inline]
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_identifiers() {
        let long = "a".repeat(65_536);
        let rows: &[(&str, &str, Result<(), InvalidClientId>)] = &[
            ("[MQTT-3.1.3-5]", "abcXYZ0123456789abcXYZ0", Ok(())),
            ("3.1.3.1 more than that is taken", "a b/+#\u{1F600}", Ok(())),
            ("3.1.3.1 the longest", &long[1..], Ok(())),
            ("1.5.4", &long, Err(InvalidClientId::TooLong)),
            ("[MQTT-1.5.4-2]", "a\0", Err(InvalidClientId::NulCharacter)),
            ("[MQTT-3.1.3-6] the server assigns one", "", Err(InvalidClientId::Empty)),
        ];
        for (name, text, expected) in rows {
            assert_eq!(ClientId::new(text).map(|_| ()), *expected, "{name}");
        }
    }
}
