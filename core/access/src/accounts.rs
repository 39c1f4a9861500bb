//! Users and Client Identifiers with passwords that are added while the broker runs. The cluster keeps them as opaque records;
//! this module says how a record is written and read, and by which of them, or of the password file, a login is judged.
//!
//! It owns no password and makes no hash; what it cannot read lets nobody in.

use std::collections::BTreeMap;

use crate::{PasswordHash, User, Users};

/// Most of each kind.
pub const ACCOUNTS_MAX: usize = 100_000;
/// Longest name in bytes.
pub const ACCOUNT_NAME_BYTES_MAX: usize = 500;

/// What an account is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AccountKind {
    /// A User Name.
    Username,
    /// A Client Identifier.
    ClientId,
}

impl AccountKind {
    /// Both, in order.
    pub const ALL: [AccountKind; 2] = [AccountKind::Username, AccountKind::ClientId];

    /// Its name in records and texts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            AccountKind::Username => "username",
            AccountKind::ClientId => "clientid",
        }
    }

    /// The key of a record.
    #[must_use]
    pub fn key(self, name: &str) -> String {
        format!("{}:{name}", self.name())
    }

    /// Reads [`AccountKind::key`]; none of what is none.
    #[must_use]
    pub fn of_key(key: &str) -> Option<(AccountKind, &str)> {
        let (kind, name) = key.split_once(':')?;
        Some((AccountKind::ALL.into_iter().find(|known| known.name() == kind)?, name))
    }
}

/// All of them.
#[derive(Clone, Default)]
pub struct Accounts {
    usernames: BTreeMap<Box<str>, User>,
    clients: BTreeMap<Box<str>, User>,
}

impl core::fmt::Debug for Accounts {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Accounts({}, {})", self.usernames.len(), self.clients.len())
    }
}

/// By what a login is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged<'a> {
    /// The password must be this one's.
    By(&'a PasswordHash),
    /// No password is right.
    Never,
}

impl Accounts {
    /// Takes a record: `None` is one that was deleted. What cannot be read, of a later version maybe, is a name without a
    /// password, so that it cannot be taken for one that is free. Says whose it is; none of what is no record of this kind.
    pub fn put<'k>(&mut self, key: &'k str, value: Option<&[u8]>) -> Option<(AccountKind, &'k str)> {
        let (kind, name) = AccountKind::of_key(key)?;
        let all = self.of_mut(kind);
        match value {
            Some(value) => {
                let text = core::str::from_utf8(value).ok();
                all.insert(name.into(), text.and_then(|text| User::parse(text).ok()).unwrap_or_default());
            }
            None => drop(all.remove(name)),
        }
        Some((kind, name))
    }

    fn of(&self, kind: AccountKind) -> &BTreeMap<Box<str>, User> {
        match kind {
            AccountKind::Username => &self.usernames,
            AccountKind::ClientId => &self.clients,
        }
    }

    fn of_mut(&mut self, kind: AccountKind) -> &mut BTreeMap<Box<str>, User> {
        match kind {
            AccountKind::Username => &mut self.usernames,
            AccountKind::ClientId => &mut self.clients,
        }
    }

    /// Whether there is one.
    #[must_use]
    pub fn has(&self, kind: AccountKind, name: &str) -> bool {
        self.of(kind).contains_key(name)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self, kind: AccountKind) -> usize {
        self.of(kind).len()
    }

    /// Their names, in order.
    pub fn names(&self, kind: AccountKind) -> impl Iterator<Item = &str> {
        self.of(kind).keys().map(|name| &**name)
    }

    /// Whether this client may prove who it is under this User Name: who has a Client Identifier with a password has it for
    /// itself, and no other name, or rules would believe a name that nothing has proved.
    #[must_use]
    pub fn admits(&self, client: &str, username: Option<&str>) -> bool {
        let other = username.is_some_and(|name| !name.is_empty() && name != client);
        !(other && self.clients.contains_key(client))
    }

    /// By what a password is judged. The file comes first, then the users of here, then the Client Identifier.
    #[must_use]
    pub fn judge<'a>(&'a self, file: &'a Users, client: &str, username: Option<&str>) -> Judged<'a> {
        if !self.admits(client, username) {
            return Judged::Never;
        }
        let name = username.filter(|name| !name.is_empty());
        let of_file = name.and_then(|name| file.get(name));
        let of_name = of_file.or_else(|| self.usernames.get(name?));
        let user = of_name.or_else(|| self.clients.get(client));
        user.and_then(|user| user.password.as_ref()).map_or(Judged::Never, Judged::By)
    }
}

/// Whether it can be the name of an account.
///
/// # Errors
/// Why not.
pub fn check_account_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > ACCOUNT_NAME_BYTES_MAX {
        return Err("a name has 1 to 500 bytes");
    }
    if name.contains('\0') {
        return Err("a name has no null character");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HashParams, Verifier};

    const CHEAP: HashParams = HashParams { memory_kib: 64, passes: 1, lanes: 1 };

    fn user(password: &str) -> User {
        User { password: Some(Verifier::default().hash(password.as_bytes(), [7; 16], CHEAP).unwrap()), scram: None }
    }

    fn accounts(all: &[(AccountKind, &str, &str)]) -> Accounts {
        let mut accounts = Accounts::default();
        for (kind, name, password) in all {
            let key = kind.key(name);
            let value = user(password).to_string();
            assert_eq!(accounts.put(&key, Some(value.as_bytes())), Some((*kind, *name)));
        }
        accounts
    }

    #[test]
    fn who_is_judged_by_what() {
        use AccountKind::{ClientId, Username};
        let (text, _) = Users::edited("", "alice", Some(&user("FILE")), [1; 32]).unwrap();
        let file = Users::parse(&text, [1; 32]).unwrap();
        let accounts = accounts(&[
            (Username, "alice", "TABLE"),
            (Username, "bob", "BOB"),
            (Username, "#", "SHARP"),
            (Username, "both", "NAME"),
            (ClientId, "both", "CLIENT"),
            (ClientId, "meter", "METER"),
            (ClientId, "a/+", "PLUS"),
        ]);
        let mut verifier = Verifier::default();
        for (client, username, right) in [
            ("c", Some("alice"), Some("FILE")),
            ("c", Some("bob"), Some("BOB")),
            ("c", Some("eve"), None),
            ("c", Some(""), None),
            ("c", None, None),
            // Names of topics' wildcards are names like others.
            ("c", Some("#"), Some("SHARP")),
            ("c", Some("+"), None),
            ("a/+", None, Some("PLUS")),
            ("a/x", None, None),
            // A Client Identifier for itself, and for nobody else.
            ("meter", None, Some("METER")),
            ("meter", Some(""), Some("METER")),
            ("meter", Some("meter"), Some("METER")),
            ("meter", Some("bob"), None),
            ("meter", Some("alice"), None),
            ("meter", Some("admin"), None),
            // Two kinds of names are not mixed up.
            ("both", Some("both"), Some("NAME")),
            ("both", None, Some("CLIENT")),
            ("bob", None, None),
            ("c", Some("meter"), None),
            ("username:bob", None, None),
        ] {
            let judged = accounts.judge(&file, client, username);
            let got = ["FILE", "TABLE", "BOB", "SHARP", "NAME", "CLIENT", "METER", "PLUS", ""]
                .into_iter()
                .find(|password| matches!(judged, Judged::By(hash) if verifier.verify(password.as_bytes(), hash)));
            assert_eq!(got, right, "{client} {username:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_lets_nobody_in_and_is_no_free_name() {
        let mut accounts = Accounts::default();
        for bad in [&b""[..], b"\xff", b"plain", b"2:later"] {
            accounts.put("clientid:c", Some(bad));
            assert!(accounts.has(AccountKind::ClientId, "c"));
            let none = Users::parse("", [1; 32]).unwrap();
            assert_eq!(accounts.judge(&none, "c", None), Judged::Never);
        }
        for key in ["", "c", "user:c", "client:c"] {
            assert_eq!(accounts.put(key, Some(b"x")), None, "{key}");
        }
        assert_eq!(accounts.put("clientid:c", None), Some((AccountKind::ClientId, "c")));
        assert_eq!(accounts.len(AccountKind::ClientId), 0);
        assert_eq!(AccountKind::of_key("username:a:b"), Some((AccountKind::Username, "a:b")));
    }

    #[test]
    fn names() {
        for (name, good) in [("a", true), ("a/+\n", true), ("", false), ("a\0", false)] {
            assert_eq!(check_account_name(name).is_ok(), good, "{name:?}");
        }
        assert!(check_account_name(&"a".repeat(ACCOUNT_NAME_BYTES_MAX)).is_ok());
        assert!(check_account_name(&"a".repeat(ACCOUNT_NAME_BYTES_MAX + 1)).is_err());
    }
}
