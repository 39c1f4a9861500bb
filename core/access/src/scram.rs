//! SCRAM-SHA-256, the server's side (RFC 5802, RFC 7677), without channel binding. The password is never sent, and what
//! the server keeps is not enough to log in elsewhere.

use core::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// The Authentication Method of MQTT (section 4.12).
pub const SCRAM_METHOD: &str = "SCRAM-SHA-256";
/// Iterations of keys that are made here, the least that RFC 7677 allows. The client computes them at every login, and
/// clients may be small.
pub const SCRAM_ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).expect("it is not zero");
/// Random bytes of the server's part of a nonce.
pub const SCRAM_NONCE_BYTES: usize = 18;
/// Longest message of a client, in bytes. What an exchange keeps is a few times that.
const MESSAGE_BYTES_MAX: usize = 2 << 10;
/// Longest nonce of a client, in bytes.
const NONCE_BYTES_MAX: usize = 512;
/// Bytes of a salt in a file, at least and at most.
const SALT_BYTES: core::ops::RangeInclusive<usize> = 8..=64;
/// What a file may ask of clients.
const ITERATIONS_MAX: u32 = 10_000_000;

type Key = [u8; 32];

/// What the server keeps of a password: `SCRAM-SHA-256$ITERATIONS:SALT$STORED_KEY:SERVER_KEY`, in Base64.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    iterations: NonZeroU32,
    salt: Box<[u8]>,
    stored_key: Key,
    server_key: Key,
}

impl core::fmt::Debug for ScramKeys {
    /// Without salt and keys.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "ScramKeys({} iterations)", self.iterations)
    }
}

impl core::fmt::Display for ScramKeys {
    /// For the password file. A secret: never for a log.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [salt, stored, server] =
            [&self.salt[..], &self.stored_key, &self.server_key].map(|key| STANDARD.encode(key));
        write!(f, "{SCRAM_METHOD}${}:{salt}${stored}:{server}", self.iterations)
    }
}

impl ScramKeys {
    /// The keys of a password; `None` if it is not printable ASCII. Of others clients make different bytes, depending on
    /// whether they know SASLprep (RFC 4013), so that nobody could tell why a login fails.
    #[must_use]
    pub fn derive(password: &str, salt: &[u8], iterations: NonZeroU32) -> Option<ScramKeys> {
        if !password.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return None;
        }
        let mut salted: Key = [0; 32];
        pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), salt, iterations.get(), &mut salted);
        let stored_key = Sha256::digest(hmac(&salted, &[b"Client Key"])).into();
        let server_key = hmac(&salted, &[b"Server Key"]);
        Some(ScramKeys { iterations, salt: salt.into(), stored_key, server_key })
    }

    /// What a name is told that nobody has: always the same, so that it looks like one that somebody has, and with keys
    /// that no password leads to. `salt_key` is secret.
    #[must_use]
    pub fn of_nobody(name: &str, salt_key: &[u8; 32]) -> ScramKeys {
        let of = |what: &[u8]| hmac(salt_key, &[what, name.as_bytes()]);
        let salt = of(b"salt")[..crate::hash::SALT_BYTES].into();
        ScramKeys { iterations: SCRAM_ITERATIONS, salt, stored_key: of(b"stored"), server_key: of(b"server") }
    }

    /// Reads what `Display` writes.
    pub(crate) fn parse(text: &str) -> Option<ScramKeys> {
        let rest = text.strip_prefix(SCRAM_METHOD)?.strip_prefix('$')?;
        let (cost, keys) = rest.split_once('$')?;
        let (iterations, salt) = cost.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        let key = |text: &str| Key::try_from(STANDARD.decode(text).ok()?).ok();
        let iterations: NonZeroU32 = iterations.parse().ok()?;
        let salt = STANDARD.decode(salt).ok()?.into_boxed_slice();
        let fits =
            (SCRAM_ITERATIONS.get()..=ITERATIONS_MAX).contains(&iterations.get()) && SALT_BYTES.contains(&salt.len());
        fits.then_some(())?;
        Some(ScramKeys { iterations, salt, stored_key: key(stored)?, server_key: key(server)? })
    }
}

/// Why an exchange has failed: always the client's fault. The client is told only that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// A message that RFC 5802 does not have.
    #[error("a message is malformed")]
    Malformed,
    /// The client insists on channel binding.
    #[error("channel binding is not supported")]
    ChannelBinding,
    /// It wants to act for somebody else.
    #[error("an authorization identity is not supported")]
    AuthorizationIdentity,
    /// It requires an extension.
    #[error("an extension is required that is not supported")]
    Extension,
    /// The second message does not belong to the first.
    #[error("the messages do not belong together")]
    Mismatch,
    /// It does not know the password, or nobody has the name.
    #[error("the proof is wrong")]
    Proof,
}

/// The state of an exchange between the client's first message and its final one.
#[derive(Clone)]
pub struct ScramServer {
    username: Box<str>,
    keys: ScramKeys,
    /// What the client's final message must repeat.
    channel: String,
    nonce: String,
    /// The beginning of the text that is proved.
    proved: String,
}

impl core::fmt::Debug for ScramServer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "ScramServer({:?})", self.username)
    }
}

impl ScramServer {
    /// Takes the client's first message, and gives the answer. `keys` are asked for by name; for one that nobody has they
    /// are [`ScramKeys::of_nobody`]. `nonce` is random.
    ///
    /// # Errors
    /// The message.
    pub fn start(
        message: &[u8],
        nonce: [u8; SCRAM_NONCE_BYTES],
        keys: impl FnOnce(&str) -> ScramKeys,
    ) -> Result<(ScramServer, String), ScramError> {
        let message = text(message)?;
        let mut parts = message.splitn(3, ',');
        let (Some(binding), Some(identity), Some(bare)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(ScramError::Malformed);
        };
        match binding {
            // `y`: the client would, and believes that the server cannot, which is so.
            "n" | "y" => {}
            _ if binding.starts_with("p=") => return Err(ScramError::ChannelBinding),
            _ => return Err(ScramError::Malformed),
        }
        if !identity.is_empty() {
            return Err(ScramError::AuthorizationIdentity);
        }
        if bare.starts_with("m=") {
            return Err(ScramError::Extension);
        }
        let mut attributes = bare.split(',');
        let username = attributes.next().and_then(|part| part.strip_prefix("n=")).ok_or(ScramError::Malformed)?;
        let username = unescaped(username).ok_or(ScramError::Malformed)?;
        let theirs = attributes.next().and_then(|part| part.strip_prefix("r=")).ok_or(ScramError::Malformed)?;
        let printable = theirs.bytes().all(|byte| matches!(byte, b'!'..=b'~'));
        if theirs.is_empty() || theirs.len() > NONCE_BYTES_MAX || !printable {
            return Err(ScramError::Malformed);
        }
        let keys = keys(&username);
        let nonce = format!("{theirs}{}", STANDARD.encode(nonce));
        let answer = format!("r={nonce},s={},i={}", STANDARD.encode(&keys.salt), keys.iterations);
        let channel = STANDARD.encode(format!("{binding},,"));
        let proved = format!("{bare},{answer}");
        Ok((ScramServer { username: username.into(), keys, channel, nonce, proved }, answer))
    }

    /// Who the client says to be.
    #[must_use]
    pub fn username(&self) -> &str {
        &self.username
    }

    /// Takes the client's final message. If it proves that the client knows the password, gives the answer, which proves
    /// to the client that the server does.
    ///
    /// # Errors
    /// It does not, or the message is wrong.
    pub fn finish(self, message: &[u8]) -> Result<String, ScramError> {
        let message = text(message)?;
        let (unproved, proof) = message.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let proof = STANDARD.decode(proof).ok().and_then(|proof| Key::try_from(proof).ok());
        let mut attributes = unproved.split(',');
        let channel = attributes.next().and_then(|part| part.strip_prefix("c=")).ok_or(ScramError::Malformed)?;
        let nonce = attributes.next().and_then(|part| part.strip_prefix("r=")).ok_or(ScramError::Malformed)?;
        let proof = proof.ok_or(ScramError::Malformed)?;
        if channel != self.channel || nonce != self.nonce {
            return Err(ScramError::Mismatch);
        }
        let proved: [&[u8]; 3] = [self.proved.as_bytes(), b",", unproved.as_bytes()];
        let signature = hmac(&self.keys.stored_key, &proved);
        let client_key: Key = core::array::from_fn(|at| proof[at] ^ signature[at]);
        let stored_key: Key = Sha256::digest(client_key).into();
        if !bool::from(stored_key.ct_eq(&self.keys.stored_key)) {
            return Err(ScramError::Proof);
        }
        Ok(format!("v={}", STANDARD.encode(hmac(&self.keys.server_key, &proved))))
    }
}

fn text(message: &[u8]) -> Result<&str, ScramError> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(ScramError::Malformed);
    }
    core::str::from_utf8(message).map_err(|_| ScramError::Malformed)
}

/// A name with its `=2C` and `=3D`; no other `=` may be in it (RFC 5802, section 5.1).
fn unescaped(name: &str) -> Option<String> {
    let mut parts = name.split('=');
    let mut unescaped = parts.next()?.to_owned();
    for part in parts {
        let (rest, character) =
            part.strip_prefix("2C").map(|rest| (rest, ',')).or_else(|| Some((part.strip_prefix("3D")?, '=')))?;
        unescaped.push(character);
        unescaped.push_str(rest);
    }
    (!unescaped.is_empty()).then_some(unescaped)
}

fn hmac(key: &Key, parts: &[&[u8]]) -> Key {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";
    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";

    fn keys() -> ScramKeys {
        ScramKeys::derive("pencil", &STANDARD.decode(SALT).unwrap(), SCRAM_ITERATIONS).unwrap()
    }

    /// The example of RFC 7677, section 3. Its nonce is no Base64, so the state is put together by hand.
    #[test]
    fn the_vector_of_the_rfc() {
        let nonce = format!("{CLIENT_NONCE}{SERVER_NONCE}");
        let server = ScramServer {
            username: "user".into(),
            keys: keys(),
            channel: "biws".to_owned(),
            proved: format!("n=user,r={CLIENT_NONCE},r={nonce},s={SALT},i=4096"),
            nonce: nonce.clone(),
        };
        let last = format!("c=biws,r={nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        assert_eq!(server.finish(last.as_bytes()).as_deref(), Ok("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
    }

    /// The client's side: its final message, and what it expects the server to answer.
    fn client(password: &str, bare: &str, server_first: &str, channel: &str) -> (String, String) {
        let part = |at: usize| &server_first.split(',').nth(at).unwrap()[2..];
        let salt = STANDARD.decode(part(1)).unwrap();
        let mut salted: Key = [0; 32];
        pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), &salt, part(2).parse().unwrap(), &mut salted);
        let client_key = hmac(&salted, &[b"Client Key"]);
        let unproved = format!("c={},r={}", STANDARD.encode(channel), part(0));
        let proved = format!("{bare},{server_first},{unproved}");
        let signature = hmac(&Sha256::digest(client_key).into(), &[proved.as_bytes()]);
        let proof: Key = core::array::from_fn(|at| client_key[at] ^ signature[at]);
        let expected = format!("v={}", STANDARD.encode(hmac(&hmac(&salted, &[b"Server Key"]), &[proved.as_bytes()])));
        (format!("{unproved},p={}", STANDARD.encode(proof)), expected)
    }

    fn start(first: &str) -> Result<(ScramServer, String), ScramError> {
        ScramServer::start(first.as_bytes(), [9; SCRAM_NONCE_BYTES], |name| match name {
            "user" | "a,b=c" => keys(),
            _ => ScramKeys::of_nobody(name, &[3; 32]),
        })
    }

    #[test]
    fn exchanges() {
        for (header, bare, password, right) in [
            ("n,,", "n=user,r=abc", "pencil", true),
            ("y,,", "n=user,r=abc", "pencil", true),
            ("n,,", "n=user,r=abc,x=extension", "pencil", true),
            ("n,,", "n=a=2Cb=3Dc,r=abc", "pencil", true),
            ("n,,", "n=user,r=abc", "pencils", false),
            ("n,,", "n=nobody,r=abc", "pencil", false),
        ] {
            let (server, first) = start(&format!("{header}{bare}")).unwrap();
            assert!(first.starts_with("r=abc") && first.ends_with(",i=4096"), "{first}");
            let (last, expected) = client(password, bare, &first, header);
            let answer = server.finish(last.as_bytes());
            assert_eq!(answer, if right { Ok(expected) } else { Err(ScramError::Proof) }, "{bare} {password}");
        }
    }

    #[test]
    fn first_messages_that_are_refused() {
        use ScramError::*;
        for (first, error) in [
            ("", Malformed),
            ("n", Malformed),
            ("n,,", Malformed),
            ("x,,n=user,r=abc", Malformed),
            ("n,,n=user", Malformed),
            ("n,,n=user,r=", Malformed),
            ("n,,n=,r=abc", Malformed),
            ("n,,n=us=er,r=abc", Malformed),
            ("n,,n=us=2cer,r=abc", Malformed),
            ("n,,r=abc,n=user", Malformed),
            ("n,,n=user,r=a\u{e4}", Malformed),
            ("p=tls-unique,,n=user,r=abc", ChannelBinding),
            ("n,a=other,n=user,r=abc", AuthorizationIdentity),
            ("n,,m=x,n=user,r=abc", Extension),
        ] {
            assert_eq!(start(first).map(drop), Err(error), "{first}");
        }
        assert_eq!(start(&format!("n,,n=user,r={}", "x".repeat(600))).map(drop), Err(Malformed));
        let keys = |_: &str| keys();
        assert_eq!(ScramServer::start(&[0xFF], [0; SCRAM_NONCE_BYTES], keys).map(drop), Err(Malformed));
    }

    #[test]
    fn final_messages_that_are_refused() {
        let bare = "n=user,r=abc";
        let (server, first) = start("n,,n=user,r=abc").unwrap();
        let (last, _) = client("pencil", bare, &first, "n,,");
        let finish = |message: &str| server.clone().finish(message.as_bytes()).map(drop);
        assert_eq!(finish(&last), Ok(()));
        let proof = last.rsplit_once(",p=").unwrap().1;
        for (message, error) in [
            (String::new(), ScramError::Malformed),
            (last.replace(",p=", ",q="), ScramError::Malformed),
            (last.replace(proof, "AAAA"), ScramError::Malformed),
            (last.replace("c=", "d="), ScramError::Malformed),
            (last.replace("c=biws", "c=eSws"), ScramError::Mismatch),
            (last.replace("r=abc", "r=abd"), ScramError::Mismatch),
            (last.replace(",p=", ",x=1,p="), ScramError::Proof),
            (last.replace(proof, &STANDARD.encode([0; 32])), ScramError::Proof),
        ] {
            assert_eq!(finish(&message), Err(error), "{message}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_message_makes_it_panic(
            first in "(n|y|p=x|),(|a=z),(m=|)(n=[a-z=,2CD3]{0,8}|),(r=\\PC{0,6}|)(,\\PC{0,6})?",
            last in "(c=biws|c=\\PC{0,4}|),(r=[a-z]{0,6}|)(,x=\\PC{0,4})?,(p=[A-Za-z+/=]{0,50}|)",
        ) {
            if let Ok((server, answer)) = start(&first) {
                proptest::prop_assert!(server.clone().finish(last.as_bytes()).is_err());
                let nonce = answer.split(',').next().unwrap();
                let last = format!("c=biws,{nonce},{last}");
                proptest::prop_assert!(server.finish(last.as_bytes()).is_err());
            }
        }
    }

    #[test]
    fn nobody_looks_like_somebody() {
        let salt_of = |name: &str| start(&format!("n,,n={name},r=abc")).unwrap().1;
        assert_eq!(salt_of("x"), salt_of("x"));
        assert_ne!(salt_of("x"), salt_of("y"));
        assert_eq!(salt_of("x").len(), salt_of("user").len());
    }

    #[test]
    fn keys_are_written_as_they_are_read_and_not_shown() {
        let text = keys().to_string();
        assert_eq!(
            text,
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
        assert_eq!(ScramKeys::parse(&text), Some(keys()));
        for bad in
            ["", "SCRAM-SHA-256", &text.replace("4096", "4095"), &text.replace("W22", "!!!"), &text[..text.len() - 4]]
        {
            assert_eq!(ScramKeys::parse(bad), None, "{bad}");
        }
        assert_eq!(
            format!("{:?} {:?}", keys(), start("n,,n=user,r=abc").unwrap().0),
            "ScramKeys(4096 iterations) ScramServer(\"user\")"
        );
        for password in ["pass\u{e4}", "tab\t", "\u{a0}"] {
            assert_eq!(ScramKeys::derive(password, b"12345678", SCRAM_ITERATIONS), None, "{password:?}");
        }
    }
}
