//! The rules of `acl.conf`, compiled: the first rule that fits decides.
//!
//! A subscription's filter is compared level by level as if it were a topic, as EMQ X 3 does. Where that would let
//! through more than a rule says, this is on the safe side: in an `allow` rule a wildcard at the beginning does not stand
//! for topics that begin with `$` \[MQTT-4.7.2-1\], and `+` does not stand for the `#` of a subscription, which would reach
//! deeper. In a `deny` rule they do.

mod lex;
mod parse;
#[cfg(test)]
mod tests;

use core::net::IpAddr;

pub use parse::{AclError, RULES_MAX};

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// The client may.
    Allow,
    /// The client may not.
    Deny,
}

/// What a client wants to do with a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// PUBLISH, or the publication of a will. The topic is a Topic Name.
    Publish,
    /// SUBSCRIBE. The topic is a Topic Filter, without the prefix of a shared subscription (section 4.8.2).
    Subscribe,
}

/// Who wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who<'a> {
    /// Client Identifier.
    pub client: &'a str,
    /// User Name, if there is one.
    pub username: Option<&'a str>,
    /// Address that the client connects from.
    pub ip: IpAddr,
}

/// A list of rules. Made by [`Acl::parse`]; the empty one decides nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Acl {
    rules: Box<[Rule]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    permission: Permission,
    publish: bool,
    subscribe: bool,
    who: Subject,
    topics: Topics,
}

/// Whom a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    All,
    User(Box<str>),
    Client(Box<str>),
    Net(Net),
    And(Box<[Subject]>),
    Or(Box<[Subject]>),
}

/// An address or a block of them, of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Net {
    v4: bool,
    /// IPv4 addresses are in the low 32 bits.
    network: u128,
    mask: u128,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Topics {
    Any,
    Listed(Box<[Pattern]>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    /// `{eq, _}`, and filters without anything that stands for something else: compared as they are.
    Exact(Box<str>),
    /// The levels before the first that stands for something, with the `/` behind them, and the others.
    Levels { literal: Box<str>, rest: Box<[Level]> },
}

/// A level of a rule's filter.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    Literal(Box<str>),
    /// `+`
    One,
    /// `#`
    Rest,
    /// `%u`
    Username,
    /// `%c`
    Client,
}

impl Acl {
    /// Reads the text of an `acl.conf`.
    ///
    /// # Errors
    /// The first mistake, with its line and column. Whoever wrote the file made it; nothing is changed.
    pub fn parse(text: &str) -> Result<Acl, AclError> {
        parse::parse(text)
    }

    /// Rules that let a client publish to and subscribe to what is listed, and nothing else. `%u`, `%c` and wildcards stand
    /// for what they stand for in a file.
    ///
    /// # Errors
    /// One of them is no topic, or there are too many. Whoever made the lists is at fault.
    pub fn only(publish: &[&str], subscribe: &[&str]) -> Result<Acl, AclError> {
        parse::only(publish, subscribe)
    }

    /// Number of rules.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What the first rule that fits says; `None` if none does. Allocates nothing.
    #[must_use]
    pub fn check(&self, who: &Who<'_>, action: Action, topic: &str) -> Option<Permission> {
        let ip = Address::from(who.ip);
        let asked = |rule: &&Rule| match action {
            Action::Publish => rule.publish,
            Action::Subscribe => rule.subscribe,
        };
        let fits = |rule: &&Rule| rule.who.is(who, ip) && rule.topics.cover(rule.permission, who, topic);
        self.rules.iter().filter(asked).find(fits).map(|rule| rule.permission)
    }
}

/// An address as rules compare it.
#[derive(Debug, Clone, Copy)]
struct Address {
    v4: bool,
    bits: u128,
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Address {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Address { v4: true, bits: u128::from(ip.to_bits()) },
            IpAddr::V6(ip) => Address { v4: false, bits: ip.to_bits() },
        }
    }
}

impl Subject {
    fn is(&self, who: &Who<'_>, ip: Address) -> bool {
        match self {
            Subject::All => true,
            Subject::User(name) => who.username == Some(name),
            Subject::Client(name) => who.client == &**name,
            Subject::Net(net) => net.v4 == ip.v4 && ip.bits & net.mask == net.network,
            Subject::And(all) => all.iter().all(|subject| subject.is(who, ip)),
            Subject::Or(any) => any.iter().any(|subject| subject.is(who, ip)),
        }
    }
}

impl Topics {
    fn cover(&self, permission: Permission, who: &Who<'_>, topic: &str) -> bool {
        match self {
            Topics::Any => true,
            Topics::Listed(patterns) => patterns.iter().any(|pattern| pattern.covers(permission, who, topic)),
        }
    }
}

impl Pattern {
    fn covers(&self, permission: Permission, who: &Who<'_>, topic: &str) -> bool {
        match self {
            Pattern::Exact(text) => topic == &**text,
            Pattern::Levels { literal, rest } => match topic.strip_prefix(&**literal) {
                Some(left) => covers_levels(rest, permission, who, left, literal.is_empty()),
                // `sport/#` also stands for `sport` (4.7.1.2).
                None => rest[..] == [Level::Rest] && literal.strip_suffix('/') == Some(topic),
            },
        }
    }
}

fn covers_levels(rest: &[Level], permission: Permission, who: &Who<'_>, topic: &str, from_start: bool) -> bool {
    let strict = permission == Permission::Allow;
    if strict && from_start && topic.starts_with('$') && matches!(rest.first(), Some(Level::One | Level::Rest)) {
        return false;
    }
    // Levels are short: a plain loop over bytes finds their ends sooner than a search does.
    let mut levels = topic.as_bytes().split(|byte| *byte == b'/');
    for wanted in rest {
        let Some(level) = levels.next() else { return *wanted == Level::Rest };
        let fits = match wanted {
            Level::Rest => return true,
            Level::One => !(strict && level == b"#"),
            Level::Literal(text) => level == text.as_bytes(),
            Level::Username => stands_for(who.username, "%u", level),
            Level::Client => stands_for(Some(who.client), "%c", level),
        };
        if !fits {
            return false;
        }
    }
    levels.next().is_none()
}

/// What is put in for a placeholder is a word like any other: a name with a `/` stands for no level, and somebody who
/// calls himself `+` or `#` gets no wildcard by it.
fn stands_for(name: Option<&str>, placeholder: &str, level: &[u8]) -> bool {
    !matches!(level, b"+" | b"#") && level == name.unwrap_or(placeholder).as_bytes()
}
