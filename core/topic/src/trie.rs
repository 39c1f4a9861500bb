//! Filters with wildcards: a trie by topic level (section 4.7.1).
//!
//! Levels are interned, and the children of all nodes are in one table by (parent, level). So a node with 100,000
//! children costs no more a child than a node with one, and nothing is stored twice. Matching keeps the nodes reached
//! at a level and goes on level by level; nothing recurses, however many levels a topic has.

use newtmq_base::{HashSeed, LookupTable, Slab, planted};

use crate::crowd::Subscribers;

/// No node, no filter.
const NONE: u32 = u32::MAX;
/// The level of a `+` node, which is in no table.
const PLUS: u32 = u32::MAX - 1;

/// One level of filters. All numbers are slots or [`NONE`].
#[derive(Debug)]
struct Node {
    parent: u32,
    /// Slot in the interned levels, or [`PLUS`].
    level: u32,
    plus: u32,
    children: u32,
    /// The filter that ends at this level.
    here: u32,
    /// The filter that has `#` below this level; it matches this level too (section 4.7.1.2).
    below: u32,
}

#[derive(Debug)]
struct Level {
    text: Box<str>,
    nodes: u32,
}

#[derive(Debug)]
struct Filter {
    node: u32,
    subscribers: Subscribers,
}

/// The nodes reached at one level and at the next; kept between matches to spare their allocation.
#[derive(Debug, Default)]
pub(crate) struct Frontier {
    reached: Vec<u32>,
    next: Vec<u32>,
}

#[derive(Debug)]
pub(crate) struct Trie {
    root: u32,
    nodes: Slab<Node>,
    /// Nodes by (parent, level).
    children: LookupTable,
    levels: Slab<Level>,
    /// Levels by text.
    level_index: LookupTable,
    filters: Slab<Filter>,
}

impl Trie {
    pub(crate) fn new(seed: HashSeed) -> Trie {
        let mut nodes = Slab::default();
        let root = nodes.insert(Node { parent: NONE, level: NONE, plus: NONE, children: 0, here: NONE, below: NONE });
        Trie {
            root,
            nodes,
            children: LookupTable::new(seed),
            levels: Slab::default(),
            level_index: LookupTable::new(seed),
            filters: Slab::default(),
        }
    }

    /// The slot of a filter.
    pub(crate) fn find(&self, filter: &str) -> Option<u32> {
        let mut node = self.root;
        for level in filter.split('/') {
            node = match level {
                "#" => return some(self.node(node).below),
                "+" => some(self.node(node).plus)?,
                _ => self.child(node, self.find_level(level)?)?,
            };
        }
        some(self.node(node).here)
    }

    /// The slot of a filter; made if there is none.
    pub(crate) fn find_or_insert(&mut self, filter: &str) -> u32 {
        let mut node = self.root;
        for level in filter.split('/') {
            node = match level {
                "#" => {
                    if self.node(node).below == NONE {
                        self.node_mut(node).below =
                            self.filters.insert(Filter { node, subscribers: Subscribers::default() });
                    }
                    return self.node(node).below;
                }
                "+" => match some(self.node(node).plus) {
                    Some(plus) => plus,
                    None => {
                        let plus = self.add_node(node, PLUS);
                        self.node_mut(node).plus = plus;
                        plus
                    }
                },
                _ => self.literal_child(node, level),
            };
        }
        if self.node(node).here == NONE {
            self.node_mut(node).here = self.filters.insert(Filter { node, subscribers: Subscribers::default() });
        }
        self.node(node).here
    }

    pub(crate) fn subscribers(&self, slot: u32) -> &Subscribers {
        &self.filters.get(slot).expect("the caller found the slot").subscribers
    }

    pub(crate) fn subscribers_mut(&mut self, slot: u32) -> &mut Subscribers {
        &mut self.filters.get_mut(slot).expect("the caller found the slot").subscribers
    }

    /// Every filter with its text, worked out from its way to the root.
    pub(crate) fn filters(&self) -> impl Iterator<Item = (String, &Subscribers)> {
        self.filters.iter().map(|(slot, filter)| {
            let mut levels = Vec::new();
            if self.node(filter.node).below == slot {
                levels.push("#");
            }
            let mut at = filter.node;
            while at != self.root {
                let node = self.node(at);
                levels.push(if node.level == PLUS { "+" } else { level_text(&self.levels, node.level) });
                at = node.parent;
            }
            levels.reverse();
            (levels.join("/"), &filter.subscribers)
        })
    }

    /// Removes a filter that has no subscribers left, and the nodes that led to it alone.
    pub(crate) fn remove(&mut self, slot: u32) {
        let filter = self.filters.remove(slot).expect("the caller found the slot");
        assert!(filter.subscribers.is_empty());
        let node = self.node_mut(filter.node);
        if node.here == slot {
            node.here = NONE;
        } else {
            assert!(node.below == slot, "a filter's node leads to it");
            node.below = NONE;
        }
        let mut at = filter.node;
        while at != self.root {
            let node = self.node(at);
            if node.children != 0 || node.here != NONE || node.below != NONE {
                return;
            }
            let parent = node.parent;
            self.remove_node(at);
            at = parent;
        }
    }

    /// Calls `visit` with each filter that matches `topic`.
    pub(crate) fn matches<'t>(&'t self, topic: &str, frontier: &mut Frontier, mut visit: impl FnMut(&'t Subscribers)) {
        let Frontier { reached, next } = frontier;
        reached.clear();
        reached.push(self.root);
        // [MQTT-4.7.2-1]: no wildcard at the first level matches a topic that begins with $.
        let mut wildcards = !topic.starts_with('$');
        let mut visit = |filter: u32| {
            if filter != NONE {
                visit(self.subscribers(filter));
            }
        };
        for level in topic.split('/') {
            let level = self.find_level(level);
            next.clear();
            for &at in reached.iter() {
                let node = self.node(at);
                if wildcards {
                    visit(node.below);
                    next.extend(some(node.plus));
                }
                if node.children > u32::from(node.plus != NONE) {
                    next.extend(level.and_then(|level| self.child(at, level)));
                }
            }
            core::mem::swap(reached, next);
            if reached.is_empty() {
                return;
            }
            wildcards = true;
        }
        for &at in reached.iter() {
            let node = self.node(at);
            visit(node.here);
            if !planted!(HashMissesParent, node.below != NONE) {
                visit(node.below);
            }
        }
    }

    fn node(&self, slot: u32) -> &Node {
        self.nodes.get(slot).expect("nodes are linked while they exist")
    }

    fn node_mut(&mut self, slot: u32) -> &mut Node {
        self.nodes.get_mut(slot).expect("nodes are linked while they exist")
    }

    fn find_level(&self, level: &str) -> Option<u32> {
        self.level_index.find(level, |slot| level_text(&self.levels, slot))
    }

    fn child(&self, parent: u32, level: u32) -> Option<u32> {
        self.children.find_by((parent, level), |slot| edge(&self.nodes, slot))
    }

    fn literal_child(&mut self, parent: u32, text: &str) -> u32 {
        let level = match self.find_level(text) {
            Some(level) => match self.child(parent, level) {
                Some(child) => return child,
                None => level,
            },
            None => {
                let level = self.levels.insert(Level { text: text.into(), nodes: 0 });
                let levels = &self.levels;
                self.level_index.insert_unique(text, level, |slot| level_text(levels, slot));
                level
            }
        };
        self.levels.get_mut(level).expect("found or made above").nodes += 1;
        let child = self.add_node(parent, level);
        let nodes = &self.nodes;
        self.children.insert_unique_by((parent, level), child, |slot| edge(nodes, slot));
        child
    }

    fn add_node(&mut self, parent: u32, level: u32) -> u32 {
        self.node_mut(parent).children += 1;
        let slot = self.nodes.insert(Node { parent, level, plus: NONE, children: 0, here: NONE, below: NONE });
        assert!(slot < PLUS, "limits keep the trie below 2^32 - 2 nodes");
        slot
    }

    /// Removes a node that leads nowhere.
    fn remove_node(&mut self, slot: u32) {
        let node = self.nodes.remove(slot).expect("nodes are linked while they exist");
        let parent = self.node_mut(node.parent);
        parent.children -= 1;
        if node.level == PLUS {
            parent.plus = NONE;
            return;
        }
        assert!(self.children.remove(&(node.parent, node.level), slot), "a literal node is in the table of children");
        let level = self.levels.get_mut(node.level).expect("a level lives as long as its nodes");
        level.nodes -= 1;
        if level.nodes == 0 {
            let removed = self.level_index.remove(level_text(&self.levels, node.level), node.level);
            assert!(removed && self.levels.remove(node.level).is_some());
        }
    }
}

fn some(slot: u32) -> Option<u32> {
    (slot != NONE).then_some(slot)
}

fn level_text(levels: &Slab<Level>, slot: u32) -> &str {
    &levels.get(slot).expect("the index holds slots that are taken").text
}

fn edge(nodes: &Slab<Node>, slot: u32) -> (u32, u32) {
    let node = nodes.get(slot).expect("the table holds slots that are taken");
    (node.parent, node.level)
}

#[cfg(test)]
impl Trie {
    /// Nodes (without the root), levels and filters.
    pub(crate) fn sizes(&self) -> (usize, usize, usize) {
        (self.nodes.len() - 1, self.levels.len(), self.filters.len())
    }
}

#[cfg(test)]
mod tests {
    use super::{Frontier, Trie};
    use newtmq_base::HashSeed;

    #[test]
    fn removing_prunes_what_led_to_the_filter_alone() {
        let mut trie = Trie::new(HashSeed::new(1));
        let kept = trie.find_or_insert("a/+");
        let gone: Vec<u32> = ["a/+/b/#", "a/b/+", "+/b", "#", "a/#"].map(|f| trie.find_or_insert(f)).into();
        assert_eq!(trie.find("a/+"), Some(kept));
        assert_eq!(trie.sizes(), (7, 2, 6));
        for slot in gone {
            trie.remove(slot);
        }
        assert_eq!(trie.sizes(), (2, 1, 1));
        trie.remove(kept);
        assert_eq!(trie.sizes(), (0, 0, 0));
        assert_eq!(trie.children.len() + trie.level_index.len(), 0);
    }

    #[test]
    fn sixty_five_thousand_levels_do_not_overflow_the_stack() {
        let mut trie = Trie::new(HashSeed::new(1));
        let deep = format!("{}#", "+/".repeat(32_767));
        let slot = trie.find_or_insert(&deep);
        trie.find_or_insert("#");
        let topic = "/".repeat(65_535);
        let mut found = 0;
        trie.matches(&topic, &mut Frontier::default(), |_| found += 1);
        assert_eq!(found, 2);
        trie.remove(slot);
        assert_eq!(trie.sizes(), (0, 0, 1));
    }
}
