//! What an operator watches for a while: what happens to a client, or to messages of some topics. While nothing is watched
//! nobody pays for it.

use newtmq_mqtt::{OwnedTopicFilter, TopicName};

use crate::hooks::{Hook, HookSet};

/// What is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Traced {
    /// The client with this Client Identifier.
    Client(Box<str>),
    /// Messages whose topics match, and subscriptions with this very filter.
    Topic(OwnedTopicFilter),
}

impl Traced {
    /// Whether something that has happened to a client, with a Topic Name or Filter if one is concerned, is watched.
    #[must_use]
    pub fn wants(&self, client: &str, topic: Option<&str>) -> bool {
        match (self, topic) {
            (Traced::Client(traced), _) => **traced == *client,
            (Traced::Topic(_), None) => false,
            (Traced::Topic(filter), Some(topic)) => {
                // A filter with wildcards is no Topic Name.
                filter.as_str() == topic || TopicName::new(topic).is_ok_and(|topic| filter.as_filter().matches(topic))
            }
        }
    }
}

/// All that is watched at a time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Traces {
    list: Vec<Traced>,
    // Those that tell of it; none if nothing is watched.
    hooks: HookSet,
}

impl Traces {
    /// To watch these.
    #[must_use]
    pub fn new(list: Vec<Traced>) -> Traces {
        let tell = Hook::ALL.into_iter().filter(|hook| !list.is_empty() && !hook.decides());
        Traces { hooks: tell.fold(HookSet::default(), HookSet::with), list }
    }

    /// Whether anything of it is what happened.
    #[must_use]
    pub fn wants(&self, client: &str, topic: Option<&str>) -> bool {
        self.list.iter().any(|traced| traced.wants(client, topic))
    }

    /// The hooks that tell of it.
    #[inline]
    pub(crate) fn hooks(&self) -> HookSet {
        self.hooks
    }
}

#[cfg(test)]
mod tests {
    use newtmq_mqtt::TopicFilter;

    use super::*;

    #[test]
    fn what_is_watched() {
        let topic = |text| Traced::Topic(OwnedTopicFilter::from(TopicFilter::new(text).expect("a filter")));
        let client = |text: &str| Traced::Client(text.into());
        for (traced, of, about, wanted) in [
            (client("a"), "a", None, true),
            (client("a"), "a", Some("t"), true),
            (client("a"), "ab", Some("a"), false),
            (topic("a/+"), "x", Some("a/b"), true),
            (topic("a/+"), "x", Some("a/b/c"), false),
            (topic("a/+"), "x", Some("a/+"), true),
            (topic("a/#"), "x", Some("a/+"), false),
            (topic("#"), "x", Some("$SYS/a"), false),
            (topic("#"), "x", None, false),
        ] {
            assert_eq!(traced.wants(of, about), wanted, "{traced:?} {of} {about:?}");
            assert_eq!(Traces::new(vec![client("z"), traced]).wants(of, about), wanted);
        }
        assert_eq!(Traces::new(Vec::new()), Traces::default());
        assert_eq!(Traces::default().hooks(), HookSet::default());
        let hooks = Traces::new(vec![client("a")]).hooks();
        assert!(
            hooks.has(Hook::MessageDeliver) && hooks.has(Hook::MessageReceived) && !hooks.has(Hook::ClientCheckAcl)
        );
    }
}
