//! Passwords as Argon2id hashes, in the PHC string format: `$argon2id$v=19$m=KIB,t=PASSES,p=LANES$SALT$HASH`.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use subtle::ConstantTimeEq as _;

/// Bytes of a salt that is made here.
pub const SALT_BYTES: usize = 16;
/// Bytes of a hash that is made here.
const HASH_BYTES: usize = 32;
/// Most that a hash in a file may ask for, so that no file can take the machine's memory or time.
const MEMORY_KIB_MAX: u32 = 256 << 10;
const PASSES_MAX: u32 = 32;
const LANES_MAX: u32 = 16;
const SALT_BYTES_MAX: usize = 64;
const HASH_BYTES_MIN: usize = 16;
const HASH_BYTES_MAX: usize = 64;

/// What a hash costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashParams {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes; more than one costs no less here, for they are computed one after the other.
    pub lanes: u32,
}

impl Default for HashParams {
    /// 19 MiB and two passes, which OWASP recommends as a minimum for Argon2id.
    fn default() -> Self {
        HashParams { memory_kib: 19 << 10, passes: 2, lanes: 1 }
    }
}

impl HashParams {
    fn checked(self, hash_bytes: usize) -> Result<Params, InvalidHash> {
        if self.memory_kib > MEMORY_KIB_MAX || self.passes > PASSES_MAX || self.lanes > LANES_MAX {
            return Err(InvalidHash::TooCostly);
        }
        Params::new(self.memory_kib, self.passes, self.lanes, Some(hash_bytes)).map_err(|_| InvalidHash::Parameters)
    }
}

/// Why a text is no hash that is read here. Does not show the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHash {
    /// Another algorithm or version.
    #[error("it is not an Argon2id hash of version 19, which begins with $argon2id$v=19$")]
    Algorithm,
    /// Parameters that cannot be read, or that Argon2 does not have.
    #[error("its parameters are not m=KIB,t=PASSES,p=LANES with values that Argon2 takes")]
    Parameters,
    /// Parameters above the limits.
    #[error("it asks for more than {MEMORY_KIB_MAX} KiB, {PASSES_MAX} passes or {LANES_MAX} lanes")]
    TooCostly,
    /// Salt or hash.
    #[error("its salt or hash is not Base64 without padding, of 8 to 64 and 16 to 64 bytes")]
    Bytes,
}

/// The hash of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    params: HashParams,
    salt: Box<[u8]>,
    hash: Box<[u8]>,
}

impl core::fmt::Debug for PasswordHash {
    /// Without salt and hash.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "PasswordHash({:?})", self.params)
    }
}

impl core::fmt::Display for PasswordHash {
    /// The PHC string, for the password file. A secret: never for a log.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let HashParams { memory_kib, passes, lanes } = self.params;
        let (salt, hash) = (STANDARD_NO_PAD.encode(&self.salt), STANDARD_NO_PAD.encode(&self.hash));
        write!(f, "$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${salt}${hash}")
    }
}

impl PasswordHash {
    /// Reads a PHC string.
    ///
    /// # Errors
    /// It is none, or asks for too much. Whoever wrote it made the mistake.
    pub fn parse(text: &str) -> Result<PasswordHash, InvalidHash> {
        let rest = text.strip_prefix("$argon2id$v=19$").ok_or(InvalidHash::Algorithm)?;
        let mut parts = rest.split('$');
        let (Some(params), Some(salt), Some(hash), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidHash::Bytes);
        };
        let params = read_params(params).ok_or(InvalidHash::Parameters)?;
        let decode = |text: &str, min: usize, max: usize| {
            let bytes = STANDARD_NO_PAD.decode(text).ok().filter(|bytes| (min..=max).contains(&bytes.len()));
            bytes.map(Vec::into_boxed_slice).ok_or(InvalidHash::Bytes)
        };
        let salt = decode(salt, argon2::MIN_SALT_LEN, SALT_BYTES_MAX)?;
        let hash = decode(hash, HASH_BYTES_MIN, HASH_BYTES_MAX)?;
        params.checked(hash.len())?;
        Ok(PasswordHash { params, salt, hash })
    }

    /// What it costs.
    #[must_use]
    pub fn params(&self) -> HashParams {
        self.params
    }
}

/// `m=…,t=…,p=…`, in this order, as everybody writes it.
fn read_params(text: &str) -> Option<HashParams> {
    let mut parts = text.split(',');
    let mut next = |name: &str| parts.next()?.strip_prefix(name)?.parse().ok();
    let params = HashParams { memory_kib: next("m=")?, passes: next("t=")?, lanes: next("p=")? };
    parts.next().is_none().then_some(params)
}

/// Computes hashes. It keeps the memory that a hash needs for the next one, so one belongs to one thread.
#[derive(Default)]
pub struct Verifier {
    memory: Vec<Block>,
    work: u64,
}

impl core::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Verifier({} KiB)", self.memory.len())
    }
}

impl Verifier {
    /// The hash of a new password. `salt` is random.
    ///
    /// # Errors
    /// The parameters.
    pub fn hash(
        &mut self,
        password: &[u8],
        salt: [u8; SALT_BYTES],
        params: HashParams,
    ) -> Result<PasswordHash, InvalidHash> {
        let mut hash = [0; HASH_BYTES];
        self.compute(password, &salt, params, &mut hash)?;
        Ok(PasswordHash { params, salt: Box::new(salt), hash: Box::new(hash) })
    }

    /// Whether `password` is the one. The comparison takes the same time wherever the first difference is.
    #[must_use]
    pub fn verify(&mut self, password: &[u8], hash: &PasswordHash) -> bool {
        let mut computed = [0; HASH_BYTES_MAX];
        let computed = &mut computed[..hash.hash.len()];
        self.compute(password, &hash.salt, hash.params, computed).is_ok() && bool::from(computed.ct_eq(&hash.hash))
    }

    /// What it has computed so far, in KiB times passes. Whoever asks about a name gets the same done, whatever comes of it:
    /// or the time would tell which names there are.
    #[must_use]
    pub fn work(&self) -> u64 {
        self.work
    }

    /// Takes the time of a [`Verifier::verify`], for a name that nobody has.
    pub fn pretend(&mut self, password: &[u8], params: HashParams) {
        let mut hash = [0; HASH_BYTES];
        let done = self.compute(password, &[0; SALT_BYTES], params, &mut hash);
        core::hint::black_box((done.is_ok(), hash));
    }

    fn compute(
        &mut self,
        password: &[u8],
        salt: &[u8],
        params: HashParams,
        hash: &mut [u8],
    ) -> Result<(), InvalidHash> {
        self.work += u64::from(params.memory_kib) * u64::from(params.passes);
        let params = params.checked(hash.len())?;
        let blocks = params.block_count();
        if self.memory.len() < blocks {
            self.memory.resize(blocks, Block::default());
        }
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon2
            .hash_password_into_with_memory(password, salt, hash, &mut self.memory[..blocks])
            .map_err(|_| InvalidHash::Parameters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cheap, for tests.
    const CHEAP: HashParams = HashParams { memory_kib: 64, passes: 1, lanes: 1 };

    #[test]
    fn a_password_is_told_from_others() {
        let mut verifier = Verifier::default();
        let hash = verifier.hash(b"correct horse", [7; SALT_BYTES], CHEAP).unwrap();
        for (password, right) in [("correct horse", true), ("correct horsf", false), ("", false), ("correct", false)] {
            assert_eq!(verifier.verify(password.as_bytes(), &hash), right, "{password}");
        }
        assert_eq!(PasswordHash::parse(&hash.to_string()).unwrap(), hash);
        assert_eq!(format!("{hash:?}"), "PasswordHash(HashParams { memory_kib: 64, passes: 1, lanes: 1 })");
    }

    /// A vector of the reference implementation's test program: `password`, `somesalt`, 256 KiB, two passes.
    #[test]
    fn a_hash_of_the_reference_implementation() {
        let text = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        let hash = PasswordHash::parse(text).unwrap();
        assert_eq!(hash.to_string(), text);
        assert!(Verifier::default().verify(b"password", &hash));
        assert!(!Verifier::default().verify(b"passwore", &hash));
    }

    #[test]
    fn what_is_no_hash() {
        use InvalidHash::*;
        let salt_and_hash = "c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        for (text, error) in [
            ("", Algorithm),
            ("secret", Algorithm),
            ("$argon2i$v=19$m=256,t=2,p=1$", Algorithm),
            ("$argon2id$v=16$m=256,t=2,p=1$", Algorithm),
            ("$argon2id$v=19$m=256,t=2,p=1", Bytes),
            ("$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ", Bytes),
            ("$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65", Bytes),
            ("$argon2id$v=19$m=256,t=2,p=1$c29$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", Bytes),
            ("$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$!!!!EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", Bytes),
        ] {
            assert_eq!(PasswordHash::parse(text), Err(error), "{text}");
        }
        for (params, error) in [
            ("t=2,m=256,p=1", Parameters),
            ("m=256,t=2", Parameters),
            ("m=256,t=2,p=1,x=1", Parameters),
            ("m=256,t=0,p=1", Parameters),
            ("m=1,t=1,p=1", Parameters),
            ("m=4294967295,t=1,p=1", TooCostly),
            ("m=256,t=33,p=1", TooCostly),
            ("m=256,t=1,p=17", TooCostly),
        ] {
            assert_eq!(
                PasswordHash::parse(&format!("$argon2id$v=19${params}${salt_and_hash}")),
                Err(error),
                "{params}"
            );
        }
    }

    #[test]
    fn the_memory_is_used_again() {
        let mut verifier = Verifier::default();
        let large = verifier.hash(b"a", [1; SALT_BYTES], HashParams { memory_kib: 256, ..CHEAP }).unwrap();
        let small = verifier.hash(b"b", [2; SALT_BYTES], CHEAP).unwrap();
        assert!(verifier.verify(b"a", &large) && verifier.verify(b"b", &small));
        assert_eq!(format!("{verifier:?}"), "Verifier(256 KiB)");
    }

    #[test]
    fn to_pretend_is_as_much_work_as_to_look() {
        let dear = HashParams { passes: 3, ..CHEAP };
        let mut verifier = Verifier::default();
        let hash = verifier.hash(b"a", [1; SALT_BYTES], dear).unwrap();
        let mut work = |look: &dyn Fn(&mut Verifier)| {
            let before = verifier.work();
            look(&mut verifier);
            verifier.work() - before
        };
        assert_eq!(work(&|verifier| assert!(verifier.verify(b"a", &hash))), 64 * 3);
        assert_eq!(work(&|verifier| assert!(!verifier.verify(b"", &hash))), 64 * 3);
        assert_eq!(work(&|verifier| verifier.pretend(b"a", dear)), 64 * 3);
    }
}
