//! The topic ids of one client (6.5, 7.3): given by the gateway from 1 on, never taken back, the same for both directions.

use crate::config::Config;

/// 0 and 0xFFFF are reserved (5.3.11).
const TOPIC_ID_MAX: u16 = 0xFFFE;
/// So many names at most are looked through.
const FEW: usize = 8;

/// Topic ids and names. Most clients have few, many none: those cost a pointer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Registry(Option<Box<Topics>>);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Topics {
    /// Index is id - 1.
    entries: Vec<Entry>,
    /// Indexes, in the order of their names. Few are looked through without.
    order: Vec<u16>,
    /// Predefined ids that the client has used: it knows them.
    predefined: Vec<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    name: Box<str>,
    /// The client knows the id.
    told: bool,
    /// The client does not want it.
    refused: bool,
}

/// How a topic is named to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Short([u8; 2]),
    Predefined(u16),
    Normal(u16),
}

/// Why there is no name for a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoKey {
    Refused,
    Exhausted,
}

impl Registry {
    pub(crate) fn len(&self) -> usize {
        self.entries().len()
    }

    fn entries(&self) -> &[Entry] {
        self.0.as_ref().map_or(&[], |topics| &topics.entries)
    }

    /// The id of a name.
    #[cfg(test)]
    pub(crate) fn find(&self, name: &str) -> Option<u16> {
        self.0.as_ref().and_then(|topics| topics.find(name).ok().map(|index| index + 1))
    }

    /// The name of an id.
    pub(crate) fn name(&self, id: u16) -> Option<&str> {
        self.entry(id).map(|entry| &*entry.name)
    }

    fn entry(&self, id: u16) -> Option<&Entry> {
        self.entries().get(usize::from(id).checked_sub(1)?)
    }

    fn entry_mut(&mut self, id: u16) -> Option<&mut Entry> {
        self.0.as_mut()?.entries.get_mut(usize::from(id).checked_sub(1)?)
    }

    /// The id of a name, a new one if need be; `None` if there are `max` already.
    pub(crate) fn assign(&mut self, name: &str, max: u16) -> Option<u16> {
        let topics = self.0.get_or_insert_default();
        match topics.find(name) {
            Ok(index) => Some(index + 1),
            Err(at) => {
                let index = u16::try_from(topics.entries.len()).ok().filter(|index| *index < max.min(TOPIC_ID_MAX))?;
                topics.add(at, index, name);
                Some(index + 1)
            }
        }
    }

    pub(crate) fn is_told(&self, id: u16) -> bool {
        self.entry(id).is_some_and(|entry| entry.told)
    }

    /// The client knows the id, or does not; says whether that is new. A client that knows it takes it.
    pub(crate) fn set_told(&mut self, id: u16, told: bool) -> bool {
        let Some(entry) = self.entry_mut(id) else { return false };
        let new = entry.told != told || (told && entry.refused);
        entry.told = told;
        entry.refused &= !told;
        new
    }

    pub(crate) fn refuse(&mut self, id: u16) {
        if let Some(entry) = self.entry_mut(id) {
            entry.refused = true;
            entry.told = false;
        }
    }

    /// The client may have forgotten all of them.
    pub(crate) fn forget_told(&mut self) {
        for entry in self.0.iter_mut().flat_map(|topics| &mut topics.entries) {
            entry.told = false;
        }
    }

    /// The client has used a predefined id; says whether that is new.
    pub(crate) fn use_predefined(&mut self, id: u16) -> bool {
        let predefined = &mut self.0.get_or_insert_default().predefined;
        let at = predefined.binary_search(&id);
        if let Err(at) = at {
            predefined.insert(at, id);
        }
        at.is_err()
    }

    /// How to name a topic to the client.
    pub(crate) fn key(&mut self, topic: &str, config: &Config) -> Result<Key, NoKey> {
        if let Ok(short) = <[u8; 2]>::try_from(topic.as_bytes()) {
            return Ok(Key::Short(short));
        }
        let named = |id: &&u16| config.predefined_name(**id) == Some(topic);
        if let Some(id) = self.predefined().iter().find(named) {
            return Ok(Key::Predefined(*id));
        }
        let id = self.assign(topic, config.max_topic_ids).ok_or(NoKey::Exhausted)?;
        if self.entry(id).is_some_and(|entry| entry.refused) {
            return Err(NoKey::Refused);
        }
        Ok(Key::Normal(id))
    }

    /// Names in the order of their ids, and whether the client knows them and takes them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, bool, bool)> {
        self.entries().iter().map(|entry| (&*entry.name, entry.told, entry.refused))
    }

    pub(crate) fn predefined(&self) -> &[u16] {
        self.0.as_ref().map_or(&[], |topics| &topics.predefined)
    }
}

impl Topics {
    /// The index of a name; or where it belongs in the order.
    fn find(&self, name: &str) -> Result<u16, usize> {
        if self.order.is_empty() {
            let at = self.entries.iter().position(|entry| *entry.name == *name);
            return at.map(|at| at as u16).ok_or(0);
        }
        let found = self.order.binary_search_by(|index| (*self.entries[usize::from(*index)].name).cmp(name));
        found.map(|at| self.order[at])
    }

    /// Adds a name that is not there; `at` is its place in the order.
    fn add(&mut self, at: usize, index: u16, name: &str) {
        // The first one alone: most clients have one topic, and a Vec begins with place for four.
        if self.entries.capacity() == 0 {
            self.entries.reserve_exact(1);
        }
        self.entries.push(Entry { name: name.into(), told: false, refused: false });
        if !self.order.is_empty() {
            self.order.insert(at, index);
        } else if self.entries.len() > FEW {
            self.order = (0..=index).collect();
            self.order.sort_unstable_by_key(|index| &self.entries[usize::from(*index)].name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_given_once() {
        let mut registry = Registry::default();
        for (name, id) in [("b", Some(1)), ("a", Some(2)), ("b", Some(1)), ("c", Some(3)), ("d", None), ("a", Some(2))]
        {
            assert_eq!(registry.assign(name, 3), id, "{name}");
        }
        assert_eq!((registry.find("c"), registry.find("d")), (Some(3), None));
        assert_eq!(
            (registry.name(2), registry.name(0), registry.name(4), registry.name(0xFFFF)),
            (Some("a"), None, None, None)
        );
    }

    #[test]
    fn reserved_ids_are_not_given() {
        let mut registry = Registry::default();
        let given = (0..70_000u32).filter_map(|n| registry.assign(&format!("{n:05}"), u16::MAX)).count();
        assert_eq!(given, 0xFFFE);
        assert_eq!(registry.find("65533"), Some(0xFFFE));
    }

    #[test]
    fn topics_have_their_shortest_name() {
        let config =
            Config { predefined: vec![(7, "pre".into()), (8, "other".into())], max_topic_ids: 1, ..Config::default() };
        let mut registry = Registry::default();
        assert!(registry.use_predefined(7) && !registry.use_predefined(7));
        assert_eq!(registry.key("ab", &config), Ok(Key::Short(*b"ab")));
        assert_eq!(registry.key("pre", &config), Ok(Key::Predefined(7)));
        assert_eq!(registry.key("other", &config), Ok(Key::Normal(1)), "the client has not shown that it knows 8");
        assert_eq!(registry.key("more", &config), Err(NoKey::Exhausted));
        registry.refuse(1);
        assert_eq!(registry.key("other", &config), Err(NoKey::Refused));
        assert!(registry.set_told(1, true));
        assert_eq!(registry.key("other", &config), Ok(Key::Normal(1)));
    }
}
