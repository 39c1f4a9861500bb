//! A small tree of topics, and filters that match parts of it.

use super::{Family, Profile, Source};

/// Topics and filters of one scenario.
#[derive(Debug)]
pub(super) struct Topics {
    pub(super) names: Vec<String>,
    /// Filters that somebody might subscribe to; the first of them match the most.
    pub(super) filters: Vec<String>,
    /// Groups of shared subscriptions.
    pub(super) groups: Vec<&'static str>,
}

impl Topics {
    pub(super) fn draw(profile: Profile, source: &mut Source) -> Topics {
        let count = match profile.family {
            Family::FanOut | Family::Shared => source.between(1, 3),
            Family::Mixed
            | Family::PubSub
            | Family::FanIn
            | Family::Retained
            | Family::Wills
            | Family::Hoppers
            | Family::Collisions
            | Family::Limits
            | Family::Takeover
            | Family::Durable
            | Family::Misbehaving
            | Family::Corners
            | Family::ClusterPartition
            | Family::ClusterCrash
            | Family::ClusterMember
            | Family::ClusterLoad
            | Family::ClusterHop
            | Family::Sn
            | Family::SnCluster => source.between(1, 6),
        };
        let mut names: Vec<String> = Vec::new();
        for _ in 0..count {
            let depth = source.between(1, 3);
            let levels: Vec<&str> = (0..depth).map(|_| *source.pick(LEVELS)).collect();
            let name = levels.join("/");
            // A Topic Name has at least one character [MQTT-4.7.3-1].
            names.push(if name.is_empty() { "a".into() } else { name });
        }
        names.sort();
        names.dedup();
        let wildcards = source.coin();
        let overlaps = source.coin();
        let mut filters = Vec::new();
        if wildcards {
            filters.push("#".into());
        }
        for name in &names {
            if wildcards {
                filters.push(with_wildcards(name, source));
            }
            if !wildcards || overlaps {
                filters.push(name.clone());
            }
        }
        filters.dedup();
        let groups = GROUPS[..source.between(1, GROUPS.len() as u64) as usize].to_vec();
        Topics { names, filters, groups }
    }

    /// The filter as a shared subscription.
    pub(super) fn shared(&self, filter: &str, source: &mut Source) -> String {
        format!("$share/{}/{filter}", source.pick(&self.groups))
    }
}

/// A filter that matches the topic and some others.
fn with_wildcards(name: &str, source: &mut Source) -> String {
    let mut levels: Vec<&str> = name.split('/').collect();
    let at = source.below(levels.len() as u64) as usize;
    if source.coin() {
        levels[at] = "+";
    } else {
        levels.truncate(at);
        levels.push("#");
    }
    levels.join("/")
}

/// Few, so that filters overlap; one is empty.
const LEVELS: &[&str] = &["a", "b", "c", ""];
const GROUPS: &[&str] = &["g", "h"];
