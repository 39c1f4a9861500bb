//! The plugin: who listens where, which connections there are, and what becomes of them when a node is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use madsim::plugin::Simulator;
use madsim::rand::{GlobalRng, RngCore as _};
use madsim::runtime::Runtime;
use madsim::task::NodeId;
use madsim::time::TimeHandle;

use crate::chance::mix;
use crate::conn::{Conn, Time};
use crate::disk::Disk;
use crate::link::{Link, LinkSpec};
use crate::listener::Listening;
use crate::udp::Port;

/// What becomes of the connections of a node that is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnKill {
    /// Its operating system lives on and resets them; who connects is refused.
    #[default]
    Reset,
    /// The machine is gone: nothing is answered.
    Silent,
    /// Of each connection by chance: the peer gets RST or hears nothing, until [`Net::end_silence`]. Who connects is
    /// refused.
    Either,
}

/// The network of a runtime.
#[derive(Debug)]
pub struct Net {
    time: Time,
    seed: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    on_kill: OnKill,
    listeners: BTreeMap<SocketAddr, Arc<Listening>>,
    /// Where datagrams are waited for.
    ports: BTreeMap<SocketAddr, Arc<Port>>,
    /// Where each address was bound last.
    homes: BTreeMap<IpAddr, NodeId>,
    /// Nodes that were killed and answer nothing.
    dark: BTreeSet<NodeId>,
    links: BTreeMap<(NodeId, IpAddr), Link>,
    conns: Vec<Weak<Conn>>,
    /// Connections are looked through when there are more.
    conns_max: usize,
}

/// Adds the network, and the disks of nodes, to a runtime. Once, before anybody listens or connects.
pub fn install(runtime: &Runtime) {
    runtime.add_simulator::<Net>();
    runtime.add_simulator::<Disk>();
}

impl Simulator for Net {
    fn new(rand: &GlobalRng, time: &TimeHandle, _: &madsim::Config) -> Net {
        Net { time: Time(time.clone()), seed: rand.clone().next_u64(), state: Mutex::default() }
    }

    fn reset_node(&self, id: NodeId) {
        let mut gone = Vec::new();
        let (on_kill, conns) = {
            let mut state = self.lock();
            state.listeners.retain(|_, listener| {
                let stays = listener.node != id;
                if !stays {
                    gone.push(Arc::clone(listener));
                }
                stays
            });
            state.ports.retain(|_, port| port.node != id);
            if state.on_kill == OnKill::Silent {
                state.dark.insert(id);
            }
            (state.on_kill, state.conns.iter().filter_map(Weak::upgrade).collect::<Vec<_>>())
        };
        for conn in conns {
            for end in (0..2).filter(|end| conn.nodes[*end] == id) {
                match on_kill {
                    OnKill::Reset => conn.reset(end),
                    OnKill::Silent => conn.kill(end),
                    OnKill::Either if conn.tosses() => conn.reset(end),
                    OnKill::Either => conn.kill(end),
                }
            }
        }
        for listener in gone {
            drop(listener.take());
        }
    }
}

impl Net {
    /// That of the current runtime.
    ///
    /// # Panics
    /// Without a runtime, or without [`install`].
    #[must_use]
    pub fn current() -> Arc<Net> {
        madsim::plugin::simulator::<Net>()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn time(&self) -> &TimeHandle {
        &self.time.0
    }

    /// What becomes of the connections of a node that is killed from here on.
    pub fn set_on_kill(&self, on_kill: OnKill) {
        self.lock().on_kill = on_kill;
    }

    /// Peers of connections that were killed without a word hear of it: their operating systems have asked at last.
    pub fn end_silence(&self) {
        let conns: Vec<_> = self.lock().conns.iter().filter_map(Weak::upgrade).collect();
        for conn in conns {
            conn.end_silence();
        }
    }

    /// The same for those of a node that starts again.
    pub fn end_silence_of(&self, node: NodeId) {
        let conns: Vec<_> = self.lock().conns.iter().filter_map(Weak::upgrade).collect();
        for conn in conns.iter().filter(|conn| conn.nodes.contains(&node)) {
            conn.end_silence();
        }
    }

    /// Every connection breaks that a node has opened: all ends that are left get RST.
    pub fn reset_from(&self, node: NodeId) {
        let conns: Vec<_> = self.lock().conns.iter().filter_map(Weak::upgrade).collect();
        for conn in conns.iter().filter(|conn| conn.nodes[0] == node) {
            conn.break_off();
        }
    }

    /// The link from the current node to an address; it is made with [`LinkSpec::default`] if nobody has set it.
    #[must_use]
    pub fn link_to(self: &Arc<Net>, to: IpAddr) -> Link {
        let from = madsim::plugin::node();
        let number = {
            let state = self.lock();
            if let Some(link) = state.links.get(&(from, to)) {
                return link.clone();
            }
            state.links.len() as u64
        };
        let ip = self.lock().homes.iter().find(|(_, node)| **node == from).map_or(NOWHERE, |(ip, _)| *ip);
        let link = Link::new(self, ip, LinkSpec::default(), mix(self.seed ^ number));
        self.lock().links.insert((from, to), link.clone());
        link
    }

    /// Has a node use this link to an address.
    pub fn set_link(&self, from: NodeId, to: IpAddr, link: Link) {
        self.lock().links.insert((from, to), link);
    }

    pub(crate) fn open_port(&self, mut address: SocketAddr, node: NodeId) -> io::Result<Arc<Port>> {
        let mut state = self.lock();
        if address.port() == 0 {
            let is_free = |port: &u16| !state.ports.contains_key(&SocketAddr::new(address.ip(), *port));
            let free = (FIRST_PORT..u16::MAX).find(is_free);
            address.set_port(free.ok_or(io::ErrorKind::AddrInUse)?);
        }
        if state.ports.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let port = Arc::new(Port::new(address, node));
        state.ports.insert(address, Arc::clone(&port));
        state.homes.insert(address.ip(), node);
        Ok(port)
    }

    pub(crate) fn close_port(&self, port: &Arc<Port>) {
        let mut state = self.lock();
        // After a kill somebody else may wait there.
        if state.ports.get(&port.address).is_some_and(|other| Arc::ptr_eq(other, port)) {
            state.ports.remove(&port.address);
        }
    }

    pub(crate) fn port(&self, address: SocketAddr) -> Option<Arc<Port>> {
        self.lock().ports.get(&address).cloned()
    }

    pub(crate) fn listen(&self, mut address: SocketAddr, node: NodeId) -> io::Result<Arc<Listening>> {
        let mut state = self.lock();
        if address.port() == 0 {
            let free = (FIRST_PORT..u16::MAX).find(|port| {
                let address = SocketAddr::new(address.ip(), *port);
                !state.listeners.contains_key(&address)
            });
            address.set_port(free.ok_or(io::ErrorKind::AddrInUse)?);
        }
        if state.listeners.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let listening = Arc::new(Listening::new(address, node));
        state.listeners.insert(address, Arc::clone(&listening));
        state.homes.insert(address.ip(), node);
        state.dark.remove(&node);
        Ok(listening)
    }

    pub(crate) fn unlisten(&self, listening: &Arc<Listening>) {
        let mut state = self.lock();
        // After a kill somebody else may listen there.
        if state.listeners.get(&listening.address).is_some_and(|other| Arc::ptr_eq(other, listening)) {
            state.listeners.remove(&listening.address);
        }
    }

    pub(crate) fn listener(&self, address: SocketAddr) -> Option<Arc<Listening>> {
        self.lock().listeners.get(&address).cloned()
    }

    /// Whether the machine of this address answers nothing.
    pub(crate) fn is_dark(&self, ip: IpAddr) -> bool {
        let state = self.lock();
        state.homes.get(&ip).is_some_and(|node| state.dark.contains(node))
    }

    pub(crate) fn enter(&self, conn: &Arc<Conn>) {
        let mut state = self.lock();
        if state.conns.len() >= state.conns_max {
            state.conns.retain(|conn| conn.upgrade().is_some_and(|conn| conn.is_alive()));
            state.conns_max = (state.conns.len() * 2).max(64);
        }
        state.conns.push(Arc::downgrade(conn));
    }
}

const FIRST_PORT: u16 = 20_000;
/// The address of a node that has none.
const NOWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
