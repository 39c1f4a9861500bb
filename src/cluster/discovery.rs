//! Discovery: where other nodes may be. It only feeds addresses, and never stops looking: two halves that were apart for an
//! hour still find each other. What cannot be found is told of once, and again when that changes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::driver::Event;
use crate::config::{CLUSTER_PORT, DnsKind, Seed};
use crate::rt;

/// What discovery has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where other nodes may be, without this one.
    pub addresses: BTreeSet<SocketAddr>,
    /// Whether this node is among what is listed, and all of that was found: then it may found a cluster with the others.
    pub here: bool,
}

/// Who looks, and whom it tells.
#[derive(Debug, Clone)]
pub struct Seeker {
    /// The node's name.
    pub name: String,
    /// Where others reach the node.
    pub address: SocketAddr,
    /// A cluster is founded only by so many.
    pub expected_size: usize,
    /// What is found is told here.
    pub events: mpsc::Sender<Event>,
    /// How it goes, for people.
    pub state: State,
}

/// How discovery goes, for who asks.
#[derive(Debug, Clone, Default)]
pub struct State(Arc<Mutex<Shown>>);

/// How discovery goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    /// The value of `cluster.discovery`; empty if nothing has begun.
    pub kind: &'static str,
    /// What was found last; none if nothing was found yet.
    pub found: Option<Found>,
    /// What gives no answer, and why not.
    pub failing: BTreeMap<String, String>,
}

impl State {
    /// Of this kind.
    #[must_use]
    pub fn of(kind: &'static str) -> State {
        State(Arc::new(Mutex::new(Shown { kind, ..Shown::default() })))
    }

    /// How it goes at this moment.
    #[must_use]
    pub fn shown(&self) -> Shown {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Shown)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Nodes as they were listed, with what was found of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Listed {
    /// By what is written: the address that it leads to, if any.
    pub(super) nodes: Vec<(Seed, Option<SocketAddr>)>,
}

impl Listed {
    /// Of these, of which those that are addresses are known.
    fn of(seeds: impl IntoIterator<Item = Seed>) -> Listed {
        let known = |seed: Seed| {
            let address = numeric(&seed);
            (seed, address)
        };
        Listed { nodes: seeds.into_iter().map(known).collect() }
    }

    /// These are listed from here on. Where they were is still known; gives the hosts that are listed no more.
    fn replace(&mut self, app: &str, hosts: Vec<(String, u16)>) -> BTreeSet<String> {
        let seed = |(host, port)| Seed { name: Some(app.to_owned()), host, port };
        let before = std::mem::replace(self, Listed::of(hosts.into_iter().map(seed)));
        for (seed, address) in &mut self.nodes {
            let was = before.nodes.iter().find(|(before, _)| before == seed);
            *address = address.or(was.and_then(|(_, address)| *address));
        }
        let mut gone: BTreeSet<String> = before.nodes.into_iter().map(|(seed, _)| seed.host).collect();
        gone.retain(|host| self.nodes.iter().all(|(seed, _)| seed.host != *host));
        gone
    }
}

impl Seeker {
    /// Looks for the nodes of a list until the driver is gone.
    pub async fn of_list(self, seeds: Vec<Seed>) {
        let mut told = self.told();
        let mut listed = Listed::of(seeds);
        while self.look_up(&mut listed, &mut told).await {
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Looks the names of a list up, one after the other, and tells what is found; says whether there is still a driver. The
    /// next name may take long, so addresses that are known are told before it is asked for.
    async fn look_up(&self, listed: &mut Listed, told: &mut Told) -> bool {
        for at in 0..listed.nodes.len() {
            let (seed, _) = &listed.nodes[at];
            if numeric(seed).is_some() {
                continue;
            }
            let found = self.found(listed);
            if !found.addresses.is_empty() && !self.tell(told, found).await {
                return false;
            }
            let (seed, address) = &mut listed.nodes[at];
            match resolve(&seed.host, seed.port).await {
                Ok(found) => {
                    told.works(&seed.host);
                    // Where it was is better than nothing.
                    *address = nearest(self.address, &found).or(*address);
                }
                Err(error) => told.fails(&seed.host, &error.to_string()),
            }
        }
        let found = self.found(listed);
        self.tell(told, found).await
    }

    /// Asks for the records of a name until the driver is gone.
    pub async fn of_dns(self, name: String, app: String, kind: DnsKind) {
        let mut told = self.told();
        let mut listed = Listed::default();
        loop {
            let asked = match kind {
                DnsKind::A => resolve(&name, CLUSTER_PORT).await.map(|found| {
                    let of_kind = found.into_iter().filter(|address| address.is_ipv4() == self.address.is_ipv4());
                    of_kind.map(|address| (address.ip().to_string(), address.port())).collect()
                }),
                DnsKind::Srv => rt::services(&name).await,
            };
            // When nothing is found, what was found before still holds.
            match asked {
                Ok(hosts) => {
                    told.works(&name);
                    told.forget(listed.replace(&app, hosts).into_iter().filter(|gone| *gone != name));
                    if !self.look_up(&mut listed, &mut told).await {
                        return;
                    }
                }
                Err(error) => told.fails(&name, &error.to_string()),
            }
            if self.events.is_closed() {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Nothing was told yet.
    pub(super) fn told(&self) -> Told {
        Told {
            found: None,
            failing: BTreeMap::new(),
            #[cfg(not(madsim))]
            answered: None,
            state: self.state.clone(),
        }
    }

    /// What a list means for this node.
    pub(super) fn found(&self, listed: &Listed) -> Found {
        let is_own = |seed: &Seed, address: Option<SocketAddr>| {
            let named = seed.name.as_ref().is_some_and(|name| {
                let host = if seed.host.contains(':') { format!("[{}]", seed.host) } else { seed.host.clone() };
                self.name == format!("{name}@{host}") && seed.port == self.address.port()
            });
            named || address == Some(self.address)
        };
        let here = listed.nodes.iter().any(|(seed, address)| is_own(seed, *address));
        let others = listed.nodes.iter().filter(|(seed, address)| !is_own(seed, *address));
        let addresses: BTreeSet<SocketAddr> = others.clone().filter_map(|(_, address)| *address).collect();
        // With an unknown number of others missing, a majority of those that were found is none.
        let whole = others.clone().all(|(_, address)| address.is_some());
        let enough = addresses.len() + 1 >= self.expected_size;
        Found { here: here && whole && enough, addresses }
    }

    /// Tells the driver if it is new; says whether there is still one.
    pub(super) async fn tell(&self, told: &mut Told, found: Found) -> bool {
        if told.found.as_ref() == Some(&found) {
            return !self.events.is_closed();
        }
        tracing::info!(addresses = ?found.addresses, may_found = found.here, "discovery");
        told.found = Some(found.clone());
        told.state.change(|shown| shown.found = Some(found.clone()));
        self.events.send(Event::Discovered(found)).await.is_ok()
    }
}

/// What was told already.
#[derive(Debug)]
pub(super) struct Told {
    found: Option<Found>,
    /// For each that has no answer, all reasons since it had one.
    failing: BTreeMap<String, BTreeSet<String>>,
    /// Which of several has answered last.
    #[cfg(not(madsim))]
    answered: Option<String>,
    state: State,
}

impl Told {
    /// Something has no answer. It is told of once for each reason.
    pub(super) fn fails(&mut self, what: &str, error: &str) {
        self.state.change(|shown| drop(shown.failing.insert(what.to_owned(), error.to_owned())));
        let reasons = self.failing.entry(what.to_owned()).or_default();
        if reasons.len() < REASONS_MAX && reasons.insert(error.to_owned()) {
            tracing::warn!(name = what, error, "discovery has no answer; what was found stays, and it is asked again");
        }
    }

    /// Whether that was told of it last.
    #[cfg(not(madsim))]
    pub(super) fn is_failing(&self, what: &str) -> bool {
        self.failing.contains_key(what)
    }

    /// One of several that know the same has an answer.
    #[cfg(not(madsim))]
    pub(super) fn answers(&mut self, what: &str) {
        let another = self.answered.as_deref() != Some(what);
        if another && !self.is_failing(what) {
            tracing::info!(name = what, "discovery has an answer");
        }
        self.works(what);
        if another {
            self.answered = Some(what.to_owned());
        }
    }

    /// These are asked no more, so nothing is told of them.
    pub(super) fn forget(&mut self, gone: impl IntoIterator<Item = String>) {
        for what in gone {
            if self.failing.remove(&what).is_some() {
                self.state.change(|shown| drop(shown.failing.remove(&what)));
            }
        }
    }

    /// Something has an answer.
    pub(super) fn works(&mut self, what: &str) {
        if self.failing.remove(what).is_some() {
            self.state.change(|shown| drop(shown.failing.remove(what)));
            tracing::info!(name = what, "discovery works again");
        }
    }
}

/// The address of a node whose host is written as one.
fn numeric(seed: &Seed) -> Option<SocketAddr> {
    Some(SocketAddr::new(seed.host.parse().ok()?, seed.port))
}

/// The addresses of a host, or that no name server has answered within [`LOOK_UP_MAX`].
async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "no name server has answered in time"));
    timeout(LOOK_UP_MAX, rt::resolve(host, port)).await.unwrap_or_else(late)
}

/// One address for each node: of the own kind if there is one.
fn nearest(own: SocketAddr, found: &[SocketAddr]) -> Option<SocketAddr> {
    let of_kind = found.iter().filter(|address| address.is_ipv4() == own.is_ipv4()).min();
    of_kind.or_else(|| found.iter().min()).copied()
}

/// How often is looked.
pub(super) const AGAIN: Duration = Duration::from_secs(5);
/// How long one lookup may take: three name servers that do not answer are asked twice each, for 5 s.
const LOOK_UP_MAX: Duration = Duration::from_secs(40);
/// Most reasons that are told of while something has no answer.
const REASONS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn seeker(expected_size: usize) -> Seeker {
        let (events, _) = mpsc::channel(1);
        Seeker {
            name: "n@a".to_owned(),
            address: "10.0.0.1:4370".parse().unwrap(),
            expected_size,
            events,
            state: State::default(),
        }
    }

    #[test]
    fn what_a_list_means() {
        for (seeds, expected_size, others, here) in [
            ("10.0.0.1=10.0.0.1,10.0.0.2=10.0.0.2", 0, "10.0.0.2", true),
            // It is named, whatever the name leads to.
            ("n@a=127.0.1.1,b=10.0.0.2", 0, "10.0.0.2", true),
            ("n@a=,b=10.0.0.2", 0, "10.0.0.2", true),
            ("m@a=10.0.0.9,b=10.0.0.2", 0, "10.0.0.2 10.0.0.9", false),
            // Who is not in the list founds nothing, and neither does who does not know all of it.
            ("10.0.0.3=10.0.0.3,10.0.0.2=10.0.0.2", 0, "10.0.0.2 10.0.0.3", false),
            ("10.0.0.1=10.0.0.1,10.0.0.2=10.0.0.2,c=", 0, "10.0.0.2", false),
            ("10.0.0.1=10.0.0.1", 0, "", true),
            ("10.0.0.1=10.0.0.1", 2, "", false),
        ] {
            let node = |text: &str| {
                let (seed, address) = text.split_once('=').unwrap();
                let address = address.parse().ok().map(|ip| SocketAddr::new(ip, CLUSTER_PORT));
                (Seed::parse(seed).unwrap(), address)
            };
            let listed = Listed { nodes: seeds.split(',').map(node).collect() };
            let Found { addresses, here: found_here } = seeker(expected_size).found(&listed);
            let shown: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
            assert_eq!((shown.join(" ").as_str(), found_here), (others, here), "{seeds}");
        }
    }

    #[test]
    fn what_is_listed_again_stays_where_it_was() {
        let host = |host: &str| (host.to_owned(), 4370);
        let mut listed = Listed::default();
        assert!(listed.replace("n", vec![host("a"), host("b"), host("::1")]).is_empty());
        let at = |listed: &Listed| listed.nodes.iter().map(|(_, address)| *address).collect::<Vec<_>>();
        let [a, one] = ["10.0.0.1:4370", "[::1]:4370"].map(|text| text.parse::<SocketAddr>().unwrap());
        assert_eq!(at(&listed), [None, None, Some(one)], "an address needs no name server");
        listed.nodes[0].1 = Some(a);
        assert_eq!(listed.replace("n", vec![host("a"), host("c")]), BTreeSet::from(["b".to_owned(), "::1".to_owned()]));
        assert_eq!(at(&listed), [Some(a), None]);
    }

    #[test]
    fn who_is_asked_no_more_is_not_told_of() {
        let mut told = seeker(0).told();
        told.fails("a", "there is no such name");
        told.fails("b", "there is no such name");
        told.forget(["a".to_owned(), "c".to_owned()]);
        assert_eq!(told.state.shown().failing.into_keys().collect::<Vec<_>>(), ["b"]);
        assert!(!told.failing.contains_key("a"), "it is told of again when it fails again");
    }

    #[test]
    fn one_address_of_a_node_is_enough() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let both = [at("[::1]:1"), at("127.0.0.2:1"), at("127.0.0.1:1")];
        assert_eq!(nearest(at("10.0.0.1:1"), &both), Some(at("127.0.0.1:1")));
        assert_eq!(nearest(at("[2001:db8::1]:1"), &both), Some(at("[::1]:1")));
        assert_eq!(nearest(at("[2001:db8::1]:1"), &both[1..]), Some(at("127.0.0.1:1")));
        assert_eq!(nearest(at("10.0.0.1:1"), &[]), None);
    }
}
