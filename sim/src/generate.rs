//! Makes scenarios: from a seed or from bytes, one sequential stream of choices. Every feature is on or off at first (a
//! swarm finds what an average never does), then gets a rate. Only what is possible is chosen, so nothing is thrown away.

mod clients;
mod cluster;
mod sn;
mod source;
mod steps;
mod strategy;
#[cfg(test)]
mod tests;
mod topics;
mod wire;
mod world;

pub use source::Source;
pub use strategy::{ArbOptions, StepOptions, arb_scenario, arb_steps};

use crate::scenario::Scenario;

macro_rules! families {
    ($($variant:ident $name:literal $about:literal,)*) => {
        /// A family of workloads.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Family { $(#[doc = $about] $variant,)* }

        impl Family {
            /// Every family, in order.
            pub const ALL: &[Family] = &[$(Family::$variant,)*];

            /// What `--family` calls it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Family::$variant => $name,)* }
            }

            /// What its clients do, in a few words.
            #[must_use]
            pub const fn about(self) -> &'static str {
                match self { $(Family::$variant => $about,)* }
            }
        }
    };
}

families! {
    Mixed "mixed" "Anything.",
    PubSub "pubsub" "A few publishers and subscribers with all kinds of filters.",
    FanIn "fan_in" "Many publishers, one or two subscribers to everything.",
    FanOut "fan_out" "One or two publishers, many subscribers to the same topics.",
    Shared "shared" "Shared subscriptions whose members come and go.",
    Retained "retained" "Retained messages that are set, replaced and deleted while clients subscribe.",
    Wills "wills" "Clients with a Will Message whose connections end in every way.",
    Hoppers "hoppers" "Sessions that lose their connection and come back, again and again.",
    Collisions "collisions" "Several clients with one Client Identifier.",
    Limits "limits" "Limits of broker and clients at or near their minimum.",
    Takeover "takeover" "Half-open connections whose clients come back on another one, with messages under way.",
    Durable "durable" "A node with a store that crashes, and a disk that is full, slow, fails or rots.",
    Misbehaving "misbehaving" "Clients that do wrong within the protocol and outside of it.",
    Corners "corners" "Situations that chance seldom makes: back-pressure, full windows, late shards, silence.",
    ClusterPartition "cluster_partition" "Several nodes whose links are cut in every way, flap and heal.",
    ClusterCrash "cluster_crash" "Several nodes that crash, pause, start again, or lose their disk.",
    ClusterMember "cluster_member" "Nodes that join, leave, are removed and come back, with other addresses.",
    ClusterLoad "cluster_load" "Several nodes with busy publishers, narrow lanes and slow links.",
    ClusterHop "cluster_hop" "Clients that go from node to node, and several with one Client Identifier, while nodes and links break.",
    Sn "sn" "Clients of MQTT-SN that sleep and move, on a network that loses, doubles and delays datagrams, beside clients of MQTT.",
    SnCluster "sn_cluster" "The same at several nodes, between which they move.",
}

impl Family {
    /// Whether its scenarios have several nodes.
    #[must_use]
    pub const fn is_cluster(self) -> bool {
        matches!(
            self,
            Family::ClusterPartition
                | Family::ClusterCrash
                | Family::ClusterMember
                | Family::ClusterLoad
                | Family::ClusterHop
                | Family::SnCluster
        )
    }

    /// Whether its scenarios have clients of MQTT-SN.
    #[must_use]
    pub const fn is_sn(self) -> bool {
        matches!(self, Family::Sn | Family::SnCluster)
    }

    /// The family with this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Family> {
        Family::ALL.iter().copied().find(|family| family.name() == name)
    }
}

/// How large scenarios are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Size {
    /// At most [`STEPS_MAX_MICRO`] steps of 1 to 6 clients in a few seconds.
    Micro,
    /// Up to 100 clients: 10 s to warm up, 60 s to 300 s of faults, then 120 s in which all must come right.
    Full,
}

/// Most steps of a micro scenario.
pub const STEPS_MAX_MICRO: usize = 40;
/// The same of several nodes, in 20 s to 60 s.
pub const STEPS_MAX_CLUSTER: usize = 80;

/// What kind of scenario to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// The workload.
    pub family: Family,
    /// The size.
    pub size: Size,
}

/// The scenario of a seed. A seed means the same scenario at one commit only: what is to be kept is the scenario.
#[must_use]
pub fn scenario(profile: Profile, seed: u64) -> Scenario {
    let mut source = Source::seed(crate::draw::mix(seed ^ (profile.family as u64) << 56 ^ (profile.size as u64) << 48));
    let mut scenario = scenario_from(profile, &mut source);
    scenario.seed = seed;
    scenario
}

/// The scenario of a stream of choices.
#[must_use]
pub fn scenario_from(profile: Profile, source: &mut Source) -> Scenario {
    let mut scenario = Scenario { why: format!("generated, {}", profile.family.name()), ..Scenario::default() };
    scenario.seed = source.below(u64::MAX);
    let features = world::draw(profile, source, &mut scenario);
    let topics = topics::Topics::draw(profile, source);
    clients::draw(profile, &features, &topics, source, &mut scenario);
    sn::draw(profile, &features, &topics, source, &mut scenario);
    steps::draw(profile, &features, &topics, source, &mut scenario);
    scenario
}
