//! What the rules said to a connection lately. One for each connection that has asked; nothing is allocated before.

use core::time::Duration;

use newtmq_base::Instant;

use crate::{Action, Permission};

/// `acl_cache_max_size` and `acl_cache_ttl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AclCacheLimits {
    /// Most answers of a connection; at the limit the oldest goes.
    pub max_size: usize,
    /// An answer is good for this long.
    pub ttl: Duration,
}

impl Default for AclCacheLimits {
    fn default() -> Self {
        AclCacheLimits { max_size: 32, ttl: Duration::from_secs(60) }
    }
}

/// Answers by action and topic. A look-up compares lengths first and then texts, so the limit is meant to be small.
#[derive(Debug, Clone, Default)]
pub struct AclCache {
    entries: Vec<Entry>,
    /// Where the oldest is, once the cache is full.
    oldest: usize,
    /// Of the rules that gave the answers.
    generation: u32,
}

#[derive(Debug, Clone)]
struct Entry {
    topic: Box<str>,
    expires: Instant,
    action: Action,
    permission: Permission,
}

impl AclCache {
    /// The answer, if it was given by the rules of this `generation` and is still good. Answers of other rules are
    /// forgotten.
    #[must_use]
    pub fn get(&mut self, now: Instant, generation: u32, action: Action, topic: &str) -> Option<Permission> {
        self.belong_to(generation);
        let is_it = |entry: &&Entry| entry.action == action && *entry.topic == *topic;
        self.entries.iter().find(is_it).filter(|entry| entry.expires > now).map(|entry| entry.permission)
    }

    /// Remembers an answer of the rules of this `generation`.
    pub fn put(
        &mut self,
        now: Instant,
        generation: u32,
        limits: &AclCacheLimits,
        (action, topic, permission): (Action, &str, Permission),
    ) {
        self.belong_to(generation);
        if limits.max_size == 0 {
            return;
        }
        let expires = now + limits.ttl;
        let is_it = |entry: &&mut Entry| entry.action == action && *entry.topic == *topic;
        if let Some(entry) = self.entries.iter_mut().find(is_it) {
            entry.permission = permission;
            entry.expires = expires;
            return;
        }
        let entry = Entry { topic: topic.into(), expires, action, permission };
        if self.entries.len() < limits.max_size {
            // Exactly as many as there are: most connections have one or two.
            self.entries.reserve_exact(1);
            self.entries.push(entry);
        } else {
            self.oldest %= self.entries.len();
            self.entries[self.oldest] = entry;
            self.oldest += 1;
        }
    }

    /// Number of answers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn belong_to(&mut self, generation: u32) {
        if self.generation != generation {
            *self = AclCache { generation, ..AclCache::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: AclCacheLimits = AclCacheLimits { max_size: 3, ttl: Duration::from_secs(60) };
    const NOW: Instant = Instant::START;

    fn put(cache: &mut AclCache, topic: &str, permission: Permission) {
        cache.put(NOW, 1, &LIMITS, (Action::Publish, topic, permission));
    }

    fn get(cache: &mut AclCache, topic: &str) -> Option<Permission> {
        cache.get(NOW, 1, Action::Publish, topic)
    }

    #[test]
    fn an_answer_is_for_its_action_and_topic() {
        let mut cache = AclCache::default();
        put(&mut cache, "t", Permission::Allow);
        assert_eq!(get(&mut cache, "t"), Some(Permission::Allow));
        assert_eq!(get(&mut cache, "u"), None);
        assert_eq!(cache.get(NOW, 1, Action::Subscribe, "t"), None);
    }

    #[test]
    fn the_oldest_goes() {
        let mut cache = AclCache::default();
        for topic in ["1", "2", "3", "4", "5", "5", "6", "7"] {
            put(&mut cache, topic, Permission::Deny);
            assert!(cache.len() <= LIMITS.max_size);
        }
        let known = ["1", "2", "3", "4", "5", "6", "7"].map(|topic| get(&mut cache, topic).is_some());
        assert_eq!(known, [false, false, false, false, true, true, true]);
    }

    #[test]
    fn an_answer_expires() {
        let mut cache = AclCache::default();
        put(&mut cache, "t", Permission::Allow);
        let at = |seconds| NOW + Duration::from_secs(seconds);
        assert_eq!(cache.get(at(59), 1, Action::Publish, "t"), Some(Permission::Allow));
        assert_eq!(cache.get(at(60), 1, Action::Publish, "t"), None);
        cache.put(at(60), 1, &LIMITS, (Action::Publish, "t", Permission::Deny));
        assert_eq!(cache.get(at(61), 1, Action::Publish, "t"), Some(Permission::Deny));
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn other_rules_drop_it() {
        let mut cache = AclCache::default();
        put(&mut cache, "t", Permission::Allow);
        assert_eq!(cache.get(NOW, 2, Action::Publish, "t"), None);
        assert!(cache.is_empty());
        assert_eq!(get(&mut cache, "t"), None, "nor do they come back with the first ones");
    }

    #[test]
    fn without_room_nothing_is_kept() {
        let mut cache = AclCache::default();
        let none = AclCacheLimits { max_size: 0, ..LIMITS };
        cache.put(NOW, 1, &none, (Action::Publish, "t", Permission::Allow));
        assert!(cache.is_empty());
    }
}
