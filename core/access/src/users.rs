//! The password file. A line a user, in UTF-8:
//!
//! ```text
//! # a comment
//! !salt-key:BASE64
//! NAME:$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH:SCRAM-SHA-256$4096:SALT$STORED:SERVER
//! ```
//!
//! In a name `%`, `:`, control characters and a `#` or `!` at its beginning are written `%XX`. Either of the two other
//! parts may be missing: without the first the user cannot log in with a password in CONNECT, without the second not
//! with SCRAM. The line with the salt key makes what SCRAM tells of unknown names the same after each start.

use core::fmt::Write as _;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::{HashParams, PasswordHash, ScramKeys, Verifier};

/// Most users of a file.
pub const USERS_MAX: usize = 1_000_000;
/// Bytes of a salt key.
pub const SALT_KEY_BYTES: usize = 32;
/// Longest name in bytes, as MQTT has it (section 1.5.4).
const NAME_BYTES_MAX: usize = 65_535;
const SALT_KEY: &str = "!salt-key:";

/// What is wrong with a password file. Shows nothing of its lines but names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}: {message}")]
pub struct UsersError {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

/// What is kept of a user.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct User {
    /// For a password in CONNECT.
    pub password: Option<PasswordHash>,
    /// For SCRAM.
    pub scram: Option<ScramKeys>,
}

/// A password file that was read; by default one without users.
#[derive(Clone, Default)]
pub struct Users {
    users: BTreeMap<Box<str>, User>,
    salt_key: [u8; SALT_KEY_BYTES],
    /// What is computed for names that nobody has.
    dummy: HashParams,
}

impl core::fmt::Debug for Users {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Users({})", self.users.len())
    }
}

enum Line<'a> {
    Blank,
    SaltKey([u8; SALT_KEY_BYTES]),
    User(String, &'a str),
}

impl Users {
    /// Reads the text of a password file. `salt_key`, which is random, is used if the file has none.
    ///
    /// # Errors
    /// The first mistake, with its line. Whoever wrote the file made it.
    pub fn parse(text: &str, salt_key: [u8; SALT_KEY_BYTES]) -> Result<Users, UsersError> {
        let mut users = Users { users: BTreeMap::new(), salt_key, dummy: HashParams::default() };
        let mut first = None;
        for (at, line) in text.lines().enumerate() {
            let wrong = |message: String| UsersError { line: at + 1, message };
            let (name, rest) = match read_line(line).map_err(wrong)? {
                Line::Blank => continue,
                Line::SaltKey(key) => {
                    users.salt_key = key;
                    continue;
                }
                Line::User(name, rest) => (name, rest),
            };
            let user = User::parse(rest).map_err(wrong)?;
            first = first.or(user.password.as_ref().map(PasswordHash::params));
            if users.users.len() == USERS_MAX {
                return Err(wrong(format!("there are more than {USERS_MAX} users")));
            }
            if users.users.contains_key(name.as_str()) {
                return Err(wrong(format!("{name:?} has a line already")));
            }
            users.users.insert(name.into(), user);
        }
        users.dummy = first.unwrap_or_default();
        Ok(users)
    }

    /// Number of users.
    #[must_use]
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// What is kept of a user.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    /// Whether this user has this password. A name that nobody has takes as long, with the cost of the file's first hash.
    #[must_use]
    pub fn verify(&self, verifier: &mut Verifier, name: &str, password: &[u8]) -> bool {
        let hash = self.users.get(name).and_then(|user| user.password.as_ref());
        self.verify_by(verifier, hash, password)
    }

    /// The same of a hash that was looked up before; `None`, of a name that nobody has, takes as long.
    #[must_use]
    pub fn verify_by(&self, verifier: &mut Verifier, hash: Option<&PasswordHash>, password: &[u8]) -> bool {
        match hash {
            Some(hash) => verifier.verify(password, hash),
            None => {
                verifier.pretend(password, self.dummy);
                false
            }
        }
    }

    /// A user's keys for SCRAM; for a name without some, keys that no password leads to.
    #[must_use]
    pub fn scram_keys(&self, name: &str) -> ScramKeys {
        // Made in any case: who has keys is not told by the time either.
        let nobody = ScramKeys::of_nobody(name, &self.salt_key);
        self.users.get(name).and_then(|user| user.scram.clone()).unwrap_or(nobody)
    }

    /// The text of a password file with this user's line replaced, added, or with `None` removed; says also whether the
    /// user had a line. Everything else stays as it is, but for the salt key, which is added if there is none.
    ///
    /// # Errors
    /// The text is no password file, or the name is none.
    pub fn edited(
        text: &str,
        name: &str,
        user: Option<&User>,
        salt_key: [u8; SALT_KEY_BYTES],
    ) -> Result<(String, bool), UsersError> {
        Users::parse(text, salt_key)?;
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') {
            return Err(UsersError {
                line: 0,
                message: "a name has 1 to 65535 bytes and no null character".to_owned(),
            });
        }
        let mut out = String::new();
        if !text.lines().any(|line| line.starts_with(SALT_KEY)) {
            let _ = writeln!(out, "{SALT_KEY}{}", STANDARD.encode(salt_key));
        }
        let entry = user.map(|user| write_user(name, user));
        let mut had = false;
        for line in text.lines() {
            let is_it = matches!(read_line(line), Ok(Line::User(other, _)) if other == name);
            let line = if is_it { entry.as_deref() } else { Some(line) };
            if let Some(line) = line {
                out.push_str(line);
                out.push('\n');
            }
            had |= is_it;
        }
        if let (false, Some(entry)) = (had, entry) {
            out.push_str(&entry);
            out.push('\n');
        }
        Ok((out, had))
    }
}

fn read_line(line: &str) -> Result<Line<'_>, String> {
    if line.trim().is_empty() || line.starts_with('#') {
        return Ok(Line::Blank);
    }
    if let Some(key) = line.strip_prefix(SALT_KEY) {
        let key = STANDARD.decode(key.trim_end()).ok().and_then(|key| key.try_into().ok());
        return key.map(Line::SaltKey).ok_or_else(|| format!("the salt key is not {SALT_KEY_BYTES} bytes in Base64"));
    }
    if line.starts_with('!') {
        return Err("a line that begins with ! is the salt key, !salt-key:BASE64".to_owned());
    }
    let (name, rest) = line.split_once(':').ok_or("a line is NAME:HASH or NAME:HASH:SCRAM")?;
    let name = unescaped(name).ok_or("the name has a % that is not followed by two hexadecimal digits")?;
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err("a name has 1 to 65535 bytes".to_owned());
    }
    Ok(Line::User(name, rest.trim_end()))
}

impl User {
    /// Reads what its `Display` writes: `HASH`, `HASH:SCRAM` or `:SCRAM`.
    ///
    /// # Errors
    /// What is wrong, without what was read.
    pub fn parse(rest: &str) -> Result<User, String> {
        let (password, scram) = rest.split_once(':').unwrap_or((rest, ""));
        let parse = |text| PasswordHash::parse(text).map_err(|error| format!("the password's hash: {error}"));
        let password = if password.is_empty() { None } else { Some(parse(password)?) };
        let scram = match scram {
            "" => None,
            _ => Some(
                ScramKeys::parse(scram)
                    .ok_or("the keys for SCRAM are not SCRAM-SHA-256$ITERATIONS:SALT$STORED:SERVER")?,
            ),
        };
        if password.is_none() && scram.is_none() {
            return Err("neither a hash nor keys for SCRAM: the user could not log in".to_owned());
        }
        Ok(User { password, scram })
    }
}

impl core::fmt::Display for User {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if let Some(password) = &self.password {
            write!(f, "{password}")?;
        }
        if let Some(scram) = &self.scram {
            write!(f, ":{scram}")?;
        }
        Ok(())
    }
}

fn write_user(name: &str, user: &User) -> String {
    format!("{}:{user}", escaped(name))
}

fn escaped(name: &str) -> String {
    let mut out = String::new();
    for (at, character) in name.chars().enumerate() {
        let special = character.is_control()
            || matches!(character, '%' | ':')
            || (at == 0 && (matches!(character, '#' | '!') || character.is_whitespace()));
        if special {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                let _ = write!(out, "%{byte:02X}");
            }
        } else {
            out.push(character);
        }
    }
    out
}

fn unescaped(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut parts = name.split('%');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SCRAM_ITERATIONS;

    const CHEAP: HashParams = HashParams { memory_kib: 64, passes: 1, lanes: 1 };
    const KEY: [u8; SALT_KEY_BYTES] = [5; SALT_KEY_BYTES];

    fn user(password: &str) -> User {
        User {
            password: Some(Verifier::default().hash(password.as_bytes(), [7; 16], CHEAP).unwrap()),
            scram: ScramKeys::derive(password, b"0123456789abcdef", SCRAM_ITERATIONS),
        }
    }

    #[test]
    fn a_file_that_is_edited_step_by_step() {
        let mut verifier = Verifier::default();
        let set = |text: &str, name: &str, user: Option<&User>| Users::edited(text, name, user, KEY).unwrap();
        let (text, had) = set("# people\n\n", "alice", Some(&user("a")));
        assert!(!had);
        assert!(text.starts_with("!salt-key:BQUF"), "{text}");
        let odd = "#b:o%b\u{e4}\n";
        let (text, _) = set(&text, odd, Some(&user("b")));
        assert!(text.contains("\n%23b%3Ao%25b\u{e4}%0A:$argon2id$"), "{text}");
        let users = Users::parse(&text, [0; SALT_KEY_BYTES]).unwrap();
        assert_eq!((users.len(), users.is_empty()), (2, false));
        for (name, password, right) in
            [("alice", "a", true), ("alice", "b", false), (odd, "b", true), ("eve", "a", false)]
        {
            assert_eq!(users.verify(&mut verifier, name, password.as_bytes()), right, "{name} {password}");
        }
        let (text, had) = set(&text, "alice", Some(&user("new")));
        assert!(had && text.contains("# people\n\n"), "{text}");
        let users = Users::parse(&text, KEY).unwrap();
        assert!(users.verify(&mut verifier, "alice", b"new") && !users.verify(&mut verifier, "alice", b"a"));
        let (text, had) = set(&text, "alice", None);
        assert!(had && !text.contains("alice"));
        assert_eq!(set(&text, "alice", None), (text.clone(), false));
        assert_eq!(text.matches("!salt-key").count(), 1);
        assert!(Users::edited(&text, "", None, KEY).is_err());
    }

    #[test]
    fn either_part_may_be_missing() {
        let User { password, scram } = user("a");
        let only_scram = write_user("s", &User { password: None, scram: scram.clone() });
        let only_password = write_user("p", &User { password, scram: None });
        let users = Users::parse(&format!("{only_scram}\r\n{only_password}\r\n"), KEY).unwrap();
        let mut verifier = Verifier::default();
        assert!(users.verify(&mut verifier, "p", b"a") && !users.verify(&mut verifier, "s", b"a"));
        assert_eq!(Some(users.scram_keys("s")), scram);
        assert_eq!(users.scram_keys("p"), ScramKeys::of_nobody("p", &KEY));
        assert_eq!(format!("{users:?}"), "Users(2)");
    }

    #[test]
    fn nobody_is_as_much_work_as_somebody() {
        let scram = write_user("s", &User { password: None, scram: user("a").scram });
        let users = Users::parse(&format!("{}\n{scram}", write_user("alice", &user("a"))), KEY).unwrap();
        for (name, password) in [("alice", "a"), ("alice", "b"), ("alice", ""), ("eve", "a"), ("s", "a"), ("", "")] {
            let mut verifier = Verifier::default();
            let _ = users.verify(&mut verifier, name, password.as_bytes());
            assert_eq!(verifier.work(), u64::from(CHEAP.memory_kib * CHEAP.passes), "{name} {password}");
        }
    }

    #[test]
    fn the_salt_key_of_the_file_counts() {
        let text = format!("!salt-key:{}\n", STANDARD.encode([9; 32]));
        assert_eq!(Users::parse(&text, KEY).unwrap().scram_keys("x"), ScramKeys::of_nobody("x", &[9; 32]));
    }

    #[test]
    fn mistakes_are_told_with_their_line_and_without_secrets() {
        for (text, error) in [
            ("alice", "1: a line is NAME:HASH or NAME:HASH:SCRAM"),
            ("\n:x", "2: a name has 1 to 65535 bytes"),
            ("a%2:x", "1: the name has a % that is not followed by two hexadecimal digits"),
            ("alice:", "1: neither a hash nor keys for SCRAM: the user could not log in"),
            (
                "alice:secret",
                "1: the password's hash: it is not an Argon2id hash of version 19, which begins with $argon2id$v=19$",
            ),
            ("alice::secret", "1: the keys for SCRAM are not SCRAM-SHA-256$ITERATIONS:SALT$STORED:SERVER"),
            ("!salt-key:AAAA", "1: the salt key is not 32 bytes in Base64"),
            ("!key", "1: a line that begins with ! is the salt key, !salt-key:BASE64"),
        ] {
            assert_eq!(Users::parse(text, KEY).map(drop).unwrap_err().to_string(), error, "{text}");
        }
        let twice = format!("{0}\n{0}\n", write_user("alice", &user("a")));
        assert_eq!(Users::parse(&twice, KEY).map(drop).unwrap_err().to_string(), "2: \"alice\" has a line already");
    }

    proptest::proptest! {
        #[test]
        fn names_are_written_as_they_are_read(name in "\\PC{1,20}|[%:#! \\x01-\\x1f]{1,5}") {
            let line = write_user(&name, &user("a"));
            proptest::prop_assert_eq!(line.lines().count(), 1);
            let Ok(Line::User(read, _)) = read_line(&line) else { panic!("{line}") };
            proptest::prop_assert_eq!(read, name);
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "(\\PC|\n|:|\\$|%|!){0,60}") {
            let _ = Users::parse(&text, KEY);
            let _ = Users::edited(&text, "x", None, KEY);
        }
    }
}
