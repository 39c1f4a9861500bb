//! Topic Names and Topic Filters (4.7) and shared subscriptions (4.8.2).
//!
//! A value of these types exists only if its text is valid. Matching here is the plain definition; the broker's index
//! of subscriptions is checked against it.

use std::sync::Arc;

use crate::{DecodeError, ErrorKind, ProtocolVersion};

/// Why a text is no Topic Name or no Topic Filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum InvalidTopic {
    /// It has no character \[MQTT-4.7.3-1\].
    #[error("empty")]
    Empty,
    /// It is longer than 65,535 bytes \[MQTT-4.7.3-3\].
    #[error("longer than 65535 bytes")]
    TooLong,
    /// It is ill-formed UTF-8 \[MQTT-1.5.4-1\].
    #[error("not UTF-8")]
    NotUtf8,
    /// It holds U+0000 \[MQTT-4.7.3-2\].
    #[error("holds U+0000")]
    NulCharacter,
    /// A Topic Name holds a wildcard character \[MQTT-3.3.2-2\].
    #[error("a wildcard in a Topic Name")]
    WildcardInName,
    /// A wildcard shares its level with other characters \[MQTT-4.7.1-1\], \[MQTT-4.7.1-2\].
    #[error("a wildcard does not stand alone in its level")]
    WildcardNotAlone,
    /// `#` is not the last character \[MQTT-4.7.1-1\].
    #[error("# is not the last level")]
    MultiLevelNotLast,
    /// A filter begins as a shared subscription, but has no valid group or no filter \[MQTT-4.8.2-1\],
    /// \[MQTT-4.8.2-2\].
    #[error("not a valid shared subscription")]
    BadShare,
}

impl InvalidTopic {
    /// The error of a packet with such a Topic Name: ill-formed strings are malformed packets (1.5.4), the rest is
    /// Topic Name invalid.
    #[cold]
    #[must_use]
    pub const fn in_topic_name(self, what: &'static str) -> DecodeError {
        match self {
            InvalidTopic::NotUtf8 | InvalidTopic::NulCharacter => DecodeError::malformed(what),
            InvalidTopic::Empty
            | InvalidTopic::TooLong
            | InvalidTopic::WildcardInName
            | InvalidTopic::WildcardNotAlone
            | InvalidTopic::MultiLevelNotLast
            | InvalidTopic::BadShare => DecodeError::new(ErrorKind::TopicNameInvalid, what),
        }
    }
}

/// Whether a packet may hold the text as a Topic Filter. An empty one is malformed \[MQTT-4.7.3-1\]. Of the others that
/// are no filter MQTT 5.0 refuses just the one, with Topic Filter invalid; before, they are malformed too, but for those
/// that only a shared subscription forbids, which is no part of MQTT 3.1.1.
pub(crate) fn check_filter_text(text: &str, version: ProtocolVersion) -> Result<(), DecodeError> {
    match TopicFilter::new(text) {
        Err(InvalidTopic::Empty) => Err(DecodeError::malformed("empty Topic Filter")),
        Ok(_) | Err(InvalidTopic::BadShare) => Ok(()),
        Err(_) if version == ProtocolVersion::V5 => Ok(()),
        Err(_) => Err(DecodeError::malformed("Topic Filter")),
    }
}

/// A valid Topic Name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName<'a>(&'a str);

impl<'a> TopicName<'a> {
    /// `text` as a Topic Name.
    #[inline]
    pub fn new(text: &'a str) -> Result<TopicName<'a>, InvalidTopic> {
        let bytes = text.as_bytes();
        if holds_forbidden(bytes) || bytes.is_empty() || bytes.len() > LEN_MAX {
            return Err(TopicName::why_not(bytes));
        }
        Ok(TopicName(text))
    }

    /// `bytes`, as they stand in a PUBLISH, as a Topic Name.
    #[inline]
    pub fn from_bytes(bytes: &'a [u8]) -> Result<TopicName<'a>, InvalidTopic> {
        match core::str::from_utf8(bytes) {
            Ok(text) => TopicName::new(text),
            Err(_) => Err(InvalidTopic::NotUtf8),
        }
    }

    /// The text.
    #[inline]
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// Its levels: what stands between the `/`. There is at least one, and a level may be empty (4.7.1.1).
    #[inline]
    pub fn levels(self) -> impl Iterator<Item = &'a str> + Clone {
        self.0.split('/')
    }

    #[cold]
    fn why_not(bytes: &[u8]) -> InvalidTopic {
        if bytes.is_empty() {
            InvalidTopic::Empty
        } else if bytes.len() > LEN_MAX {
            InvalidTopic::TooLong
        } else if bytes.contains(&0) {
            InvalidTopic::NulCharacter
        } else {
            InvalidTopic::WildcardInName
        }
    }
}

/// A valid Topic Filter, perhaps that of a shared subscription: `$share/{group}/{filter}` (4.8.2), or
/// `$queue/{filter}`, whose group is `$queue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicFilter<'a>(&'a str);

impl<'a> TopicFilter<'a> {
    /// `text` as a Topic Filter.
    pub fn new(text: &'a str) -> Result<TopicFilter<'a>, InvalidTopic> {
        if text.is_empty() {
            return Err(InvalidTopic::Empty);
        }
        if text.len() > LEN_MAX {
            return Err(InvalidTopic::TooLong);
        }
        if text.as_bytes().contains(&0) {
            return Err(InvalidTopic::NulCharacter);
        }
        let (group, filter) = split_share(text);
        // [MQTT-4.8.2-1], [MQTT-4.8.2-2]
        if group.is_some_and(|group| group.is_empty() || group.contains(['+', '#']) || filter.is_empty()) {
            return Err(InvalidTopic::BadShare);
        }
        let mut multi_level = false;
        for level in filter.split('/') {
            if multi_level {
                return Err(InvalidTopic::MultiLevelNotLast);
            }
            if level.len() > 1 && level.contains(['+', '#']) {
                return Err(InvalidTopic::WildcardNotAlone);
            }
            multi_level = level == "#";
        }
        Ok(TopicFilter(text))
    }

    /// The whole text, with the prefix of a shared subscription.
    #[inline]
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// The group of a shared subscription; `None` if the subscription is not shared.
    #[inline]
    #[must_use]
    pub fn share_group(self) -> Option<&'a str> {
        split_share(self.0).0
    }

    /// What topics are matched against: the text without the prefix of a shared subscription.
    #[inline]
    #[must_use]
    pub fn filter(self) -> &'a str {
        split_share(self.0).1
    }

    /// Whether the filter has a `+` or `#`.
    #[inline]
    #[must_use]
    pub fn has_wildcards(self) -> bool {
        self.filter().contains(['+', '#'])
    }

    /// Whether `topic` matches, by the definition of 4.7. A filter that begins with a wildcard does not match a topic
    /// that begins with `$` \[MQTT-4.7.2-1\].
    #[must_use]
    pub fn matches(self, topic: TopicName<'_>) -> bool {
        let filter = self.filter();
        if topic.as_str().starts_with('$') && filter.starts_with(['+', '#']) {
            return false;
        }
        let mut levels = topic.levels();
        for wanted in filter.split('/') {
            if wanted == "#" {
                // It also stands for no level at all: `sport/#` matches `sport` (4.7.1.2).
                return true;
            }
            match levels.next() {
                Some(level) if wanted == "+" || wanted == level => {}
                Some(_) | None => return false,
            }
        }
        levels.next().is_none()
    }
}

/// A [`TopicFilter`] that owns its text and is cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnedTopicFilter(Arc<str>);

impl OwnedTopicFilter {
    /// The filter, not validated again.
    #[inline]
    #[must_use]
    pub fn as_filter(&self) -> TopicFilter<'_> {
        TopicFilter(&self.0)
    }

    /// The whole text.
    #[inline]
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl core::borrow::Borrow<str> for OwnedTopicFilter {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<TopicFilter<'_>> for OwnedTopicFilter {
    fn from(filter: TopicFilter<'_>) -> OwnedTopicFilter {
        OwnedTopicFilter(filter.0.into())
    }
}

/// Group and filter. Of a shared subscription that lacks one of them that one is empty.
#[inline]
fn split_share(text: &str) -> (Option<&str>, &str) {
    if !text.starts_with('$') {
        return (None, text);
    }
    if let Some(rest) = text.strip_prefix("$share/") {
        let (group, filter) = rest.split_once('/').unwrap_or((rest, ""));
        (Some(group), filter)
    } else if let Some(filter) = text.strip_prefix("$queue/") {
        (Some("$queue"), filter)
    } else {
        (None, text)
    }
}

/// Whether a Topic Name may not hold one of the bytes. Looks at all of them, which the compiler turns into vector
/// instructions, unlike a search that stops at the first.
#[inline]
fn holds_forbidden(bytes: &[u8]) -> bool {
    bytes.iter().fold(false, |found, &byte| found | (byte == 0) | (byte == b'+') | (byte == b'#'))
}

const LEN_MAX: usize = u16::MAX as usize;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names() {
        let long = "a".repeat(LEN_MAX + 1);
        let rows: &[(&str, &[u8], Result<(), InvalidTopic>)] = &[
            ("plain", b"sport/tennis", Ok(())),
            ("[MQTT-4.7.3-1]", b"", Err(InvalidTopic::Empty)),
            ("[MQTT-4.7.3-2]", b"a\0b", Err(InvalidTopic::NulCharacter)),
            ("[MQTT-4.7.3-3]", long.as_bytes(), Err(InvalidTopic::TooLong)),
            ("[MQTT-4.7.3-3] the longest", &long.as_bytes()[1..], Ok(())),
            ("[MQTT-3.3.2-2] +", b"a/+", Err(InvalidTopic::WildcardInName)),
            ("[MQTT-3.3.2-2] #", b"#", Err(InvalidTopic::WildcardInName)),
            ("[MQTT-1.5.4-1] surrogate", b"a\xED\xA0\x80", Err(InvalidTopic::NotUtf8)),
            ("[MQTT-1.5.4-1] overlong", b"\xC0\xAF", Err(InvalidTopic::NotUtf8)),
            ("[MQTT-1.5.4-3] U+FEFF is kept", "\u{FEFF}a".as_bytes(), Ok(())),
            ("4.7.3 control characters are taken", b"\x01\x7F\xC2\x9F", Ok(())),
            ("4.7.3 only a /", b"/", Ok(())),
        ];
        for (name, bytes, expected) in rows {
            assert_eq!(TopicName::from_bytes(bytes).map(|_| ()), *expected, "{name}");
        }
        assert_eq!(TopicName::new("/a//b").unwrap().levels().collect::<Vec<_>>(), ["", "a", "", "b"]);
        assert_eq!(TopicName::new("\u{FEFF}").unwrap().as_str(), "\u{FEFF}", "[MQTT-1.5.4-3]");
    }

    #[test]
    fn topic_filters() {
        use InvalidTopic::{BadShare, Empty, MultiLevelNotLast, NulCharacter, TooLong, WildcardNotAlone};
        let long = "a".repeat(LEN_MAX + 1);
        // Group, filter without the prefix, whether it has wildcards.
        type Parts<'a> = (Option<&'a str>, &'a str, bool);
        let rows: &[(&str, &str, Result<Parts<'_>, InvalidTopic>)] = &[
            ("plain", "a/b", Ok((None, "a/b", false))),
            ("[MQTT-4.7.1-1] alone", "#", Ok((None, "#", true))),
            ("[MQTT-4.7.1-1] after /", "a/#", Ok((None, "a/#", true))),
            ("[MQTT-4.7.1-1] not alone", "a#", Err(WildcardNotAlone)),
            ("[MQTT-4.7.1-1] not last", "a/#/b", Err(MultiLevelNotLast)),
            ("[MQTT-4.7.1-1] trailing /", "#/", Err(MultiLevelNotLast)),
            ("[MQTT-4.7.1-1] twice", "##", Err(WildcardNotAlone)),
            ("[MQTT-4.7.1-2] any level", "+/a/+/+", Ok((None, "+/a/+/+", true))),
            ("[MQTT-4.7.1-2] not alone", "a/b+", Err(WildcardNotAlone)),
            ("[MQTT-4.7.1-2] with #", "+#", Err(WildcardNotAlone)),
            ("[MQTT-4.7.3-1]", "", Err(Empty)),
            ("[MQTT-4.7.3-2]", "\0", Err(NulCharacter)),
            ("[MQTT-4.7.3-3]", &long, Err(TooLong)),
            ("[MQTT-4.8.2-1]", "$share/g/a/+", Ok((Some("g"), "a/+", true))),
            ("[MQTT-4.8.2-1] no group", "$share//a", Err(BadShare)),
            ("[MQTT-4.8.2-2] + in the group", "$share/g+/a", Err(BadShare)),
            ("[MQTT-4.8.2-2] # as the group", "$share/#/a", Err(BadShare)),
            ("[MQTT-4.8.2-2] no filter", "$share/g", Err(BadShare)),
            ("[MQTT-4.8.2-2] empty filter", "$share/g/", Err(BadShare)),
            ("4.8.2 only a / as filter", "$share/g//", Ok((Some("g"), "/", false))),
            ("4.8.2 the filter is validated", "$share/g/a#", Err(WildcardNotAlone)),
            ("4.8.2 the prefix is exact", "$shared/g/a", Ok((None, "$shared/g/a", false))),
            ("4.8.2 without a /", "$share", Ok((None, "$share", false))),
            ("$queue", "$queue/a/#", Ok((Some("$queue"), "a/#", true))),
            ("$queue without filter", "$queue/", Err(BadShare)),
        ];
        for (name, text, expected) in rows {
            let parts = TopicFilter::new(text).map(|f| (f.share_group(), f.filter(), f.has_wildcards()));
            assert_eq!(parts, *expected, "{name}: {text}");
        }
    }

    #[test]
    fn matching() {
        let rows: &[(&str, &str, &str, bool)] = &[
            ("4.7.1.2", "sport/tennis/player1/#", "sport/tennis/player1", true),
            ("4.7.1.2", "sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("4.7.1.2", "sport/#", "sport", true),
            ("4.7.1.2", "sport/#", "sports", false),
            ("4.7.1.2", "#", "/a", true),
            ("4.7.1.3", "sport/tennis/+", "sport/tennis/player1", true),
            ("4.7.1.3", "sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("4.7.1.3", "sport/+", "sport", false),
            ("4.7.1.3", "sport/+", "sport/", true),
            ("4.7.1.3", "+/+", "/finance", true),
            ("4.7.1.3", "/+", "/finance", true),
            ("4.7.1.3", "+", "/finance", false),
            ("[MQTT-4.7.2-1]", "#", "$SYS/a", false),
            ("[MQTT-4.7.2-1]", "+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("[MQTT-4.7.2-1]", "$SYS/#", "$SYS/a", true),
            ("[MQTT-4.7.2-1]", "$SYS/monitor/+", "$SYS/monitor/Clients", true),
            ("[MQTT-4.7.2-1] in a share", "$share/g/#", "$SYS/a", false),
            ("4.7.3 case", "ACCOUNTS", "Accounts", false),
            ("4.7.3 leading /", "/finance", "finance", false),
            ("[MQTT-4.7.3-4] no normalization", "\u{E9}", "e\u{301}", false),
            ("4.8.2", "$share/consumer/sport/+", "sport/a", true),
        ];
        for (name, filter, topic, expected) in rows {
            let filter = TopicFilter::new(filter).unwrap();
            assert_eq!(filter.matches(TopicName::new(topic).unwrap()), *expected, "{name}: {filter:?} {topic}");
        }
    }

    #[test]
    fn an_owned_filter_is_the_filter() {
        let filter = TopicFilter::new("$share/g/a/+").unwrap();
        let owned = OwnedTopicFilter::from(filter);
        assert_eq!((owned.as_filter(), owned.as_str(), owned.clone()), (filter, "$share/g/a/+", owned.clone()));
    }
}
