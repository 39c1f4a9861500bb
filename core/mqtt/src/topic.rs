//! Topic Names and Topic Filters (4.7) and shared subscriptions (4.8.2).
//!
//! A value of these types exists only if its text is valid. Matching here is the plain definition; the broker's index
//! of subscriptions is checked against it.

use std::sync::Arc;

use crate::{DecodeError, ErrorKind};

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

/// A valid Topic Name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName<'a>(&'a str);

impl<'a> TopicName<'a> {
    /// `text` as a Topic Name.
    #[inline]
    pub fn new(text: &'a str) -> Result<TopicName<'a>, InvalidTopic> {
        let bytes = text.as_bytes();
        if bytes.iter().any(|&b| matches!(b, 0 | b'+' | b'#')) || bytes.is_empty() || bytes.len() > LEN_MAX {
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

const LEN_MAX: usize = u16::MAX as usize;
