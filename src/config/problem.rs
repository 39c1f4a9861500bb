//! What is wrong with a configuration. All problems of all sources are collected; each names where it is, which key,
//! and what would be right. Whose fault: always the person who wrote it; nothing has been changed or started.

use std::fmt;

/// Where a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A line of the file.
    Line(String, usize),
    /// The file as a whole.
    File(String),
    /// `--set`.
    Set,
    /// An environment variable.
    Environment(String),
    /// This file of EMQ X does not set it, and EMQ X has another default.
    Absent(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Line(file, line) => write!(f, "{file}:{line}"),
            Origin::File(file) => f.write_str(file),
            Origin::Set => f.write_str("--set"),
            Origin::Environment(name) => f.write_str(name),
            Origin::Absent(file) => write!(f, "{file} (not set there, the default of EMQ X)"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// The file is not TOML.
    #[error("not valid TOML: {message}")]
    Syntax {
        /// What is wrong with it.
        message: String,
    },
    /// No such key.
    #[error("{key}: unknown key{}", did_you_mean(.suggestion.as_deref()))]
    UnknownKey {
        /// As written.
        key: String,
        /// The key that was probably meant.
        suggestion: Option<String>,
    },
    /// A key that EMQ X has and this version does not.
    #[error("{key}: known key of EMQ X, not supported by this version")]
    Unsupported {
        /// As written.
        key: String,
    },
    /// A key that has another name here.
    #[error("{key}: this key of EMQ X is called `{name}` here")]
    Renamed {
        /// As written.
        key: String,
        /// The name here.
        name: String,
    },
    /// A value where keys belong.
    #[error("{key}: this is a section; its keys are written `{key}.KEY = VALUE`")]
    Section {
        /// The section.
        key: String,
    },
    /// A value that the key does not take.
    #[error("{key}: {found} is not valid; it must be {expected}{}", did_you_mean(.suggestion.as_deref()))]
    BadValue {
        /// The key.
        key: String,
        /// The value, in backquotes, or what it is.
        found: String,
        /// What the key takes.
        expected: String,
        /// The word that was probably meant.
        suggestion: Option<String>,
    },
    /// The same key twice in one file.
    #[error("{key}: set twice; the first is on line {first}")]
    Twice {
        /// The key.
        key: String,
        /// Its first line.
        first: usize,
    },
    /// A line of a file of EMQ X that is none.
    #[error("{message}")]
    Flat {
        /// What is wrong with it.
        message: String,
    },
    /// A line that has come to the end of the one before.
    #[error("{key}: another line begins within the value: `{next}`")]
    Glued {
        /// As written.
        key: String,
        /// The other line.
        next: String,
    },
    /// A key of a zone of EMQ X that exists once here.
    #[error("{key}: {why}; set `{other}`, or give both the same value")]
    NodeWide {
        /// As written.
        key: String,
        /// The key that exists once.
        other: &'static str,
        /// Why.
        why: &'static str,
    },
    /// A plugin that decides who may connect, and is not there.
    #[error(
        "{name}: this plugin decides who may connect, and is not in this version; without it everybody could: do not load it, \
         and use a `password_file`"
    )]
    Plugin {
        /// Its name.
        name: String,
    },
    /// `--set` without an equals sign.
    #[error("`{text}` must be KEY=VALUE")]
    NoEquals {
        /// As written.
        text: String,
    },
    /// A listener without an address.
    #[error("{listener}.bind: not set, and only the standard listeners have a default")]
    NoAddress {
        /// Its full name.
        listener: String,
    },
    /// Two listeners on one address.
    #[error("{second}.bind: {address} is also the address of {first}")]
    SameAddress {
        /// The listener that was there first.
        first: String,
        /// The listener that comes second.
        second: String,
        /// The address.
        address: String,
    },
    /// A listener whose zone has no key.
    #[error("{listener}.zone: no key of zone.{zone} is set{}", did_you_mean(.suggestion.as_deref()))]
    NoZone {
        /// The listener.
        listener: String,
        /// The zone.
        zone: String,
        /// The zone that was probably meant.
        suggestion: Option<String>,
    },
    /// A key that is of no use without another.
    #[error("{key}: {needs}")]
    Needs {
        /// The key.
        key: String,
        /// What is missing.
        needs: &'static str,
    },
    /// A listener with TLS and no certificate.
    #[error(
        "{listener}.certfile: not set, and without --data there is no default; `newtmq cert dev` makes a certificate for \
         development"
    )]
    NoCertificate {
        /// Its full name.
        listener: String,
    },
    /// More packet identifiers would be needed than there are.
    #[error(
        "zone.{zone}.max_mqueue_len: {queue} and zone.{zone}.max_inflight, {inflight}, must be less than 65535 \
         together, the number of packet identifiers"
    )]
    TooManyIdentifiers {
        /// The zone.
        zone: String,
        /// `max_mqueue_len`.
        queue: u16,
        /// `max_inflight`.
        inflight: u16,
    },
    /// `allow_anonymous = false` without a password file.
    #[error(
        "allow_anonymous: false needs a password_file, user_table = on, a key of jwt or auth_http.auth_url; without any of them nobody could connect"
    )]
    NoAuthenticator,
}

impl Fault {
    /// The full path of the key that it is about, if it is about one. Every message about a key begins with it.
    #[must_use]
    pub fn key(&self) -> Option<String> {
        match self {
            Fault::Unreadable(_) | Fault::Syntax { .. } | Fault::NoEquals { .. } => None,
            other => other.to_string().split_once(": ").map(|(key, _)| key.to_owned()),
        }
    }
}

/// A fault and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where; nothing for what no source says.
    pub origin: Option<Origin>,
    /// What.
    pub fault: Fault,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "{origin}: {}", self.fault),
            None => self.fault.fmt(f),
        }
    }
}

/// Everything that is wrong, at least one problem, in the order of the sources.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => write!(f, "1 error in the configuration")?,
            n => write!(f, "{n} errors in the configuration")?,
        }
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
}
