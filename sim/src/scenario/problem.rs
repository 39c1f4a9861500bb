//! What is wrong with a scenario file. All problems are collected; each names file, line and key, and what would be
//! right. Whose fault: always the person who wrote it; nothing has been run.

use std::fmt;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The file is not TOML.
    #[error("not valid TOML: {message}")]
    Syntax {
        /// What is wrong with it.
        message: String,
    },
    /// No such key.
    #[error("{key}: unknown key{}", did_you_mean(.suggestion.as_deref()))]
    UnknownKey {
        /// As written, with its section.
        key: String,
        /// The key that was probably meant.
        suggestion: Option<String>,
    },
    /// A value that the key does not take.
    #[error("{key}: {found} is not valid; it must be {expected}{}", did_you_mean(.suggestion.as_deref()))]
    BadValue {
        /// The key with its section.
        key: String,
        /// The value in backquotes, or what it is.
        found: String,
        /// What the key takes.
        expected: String,
        /// The word that was probably meant.
        suggestion: Option<String>,
    },
    /// A key that must be there.
    #[error("{key}: missing; it must be {expected}")]
    Missing {
        /// The key with its section.
        key: String,
        /// What the key takes.
        expected: String,
    },
    /// A key that is of no use without another.
    #[error("{key}: of no use without {other}")]
    Needs {
        /// The key with its section.
        key: String,
        /// The key that is missing.
        other: &'static str,
    },
    /// Two keys that say the same.
    #[error("{key}: {other} says the same; only one of them may be there")]
    Both {
        /// The key with its section.
        key: String,
        /// The other key.
        other: &'static str,
    },
    /// Something that nodes cannot do in the tier that the file is for.
    #[error("driver = \"madsim\" cannot do this with several nodes: {what}")]
    BeyondTier {
        /// What.
        what: String,
    },
    /// Two clients of one name.
    #[error("{key}: `{name}` is the name of the client on line {first}, too; only `id` may be the same")]
    Twice {
        /// The key with its section.
        key: String,
        /// The name.
        name: String,
        /// Line of the client that was there first.
        first: usize,
    },
}

/// A fault and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// Its line, from 1.
    pub line: usize,
    /// What.
    pub fault: Fault,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.fault)
    }
}

/// Everything that is wrong, at least one problem, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => write!(f, "1 error in the scenario")?,
            n => write!(f, "{n} errors in the scenario")?,
        }
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

/// The one of `words` that `word` is probably meant to be.
pub(super) fn nearest<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let distance = |known: &str| strsim::damerau_levenshtein(&word.to_lowercase(), &known.to_lowercase());
    let (distance, known) = words.into_iter().map(|known| (distance(known), known)).min()?;
    (known.len() > 1 && distance <= (known.len() / 3).max(1)).then(|| known.to_owned())
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
}
