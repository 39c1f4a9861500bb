//! The ways between nodes that are processes: network namespaces with a bridge between them, where that is permitted, or
//! relays on loopback. Both cut each way from one node to another without a word to either.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use newtmq::demo::relay::{Free, Relays};

/// Where a node is.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// It listens there for others.
    pub listen: SocketAddr,
    /// Others reach it there.
    pub advertise: SocketAddr,
    /// It listens there for clients.
    pub mqtt: SocketAddr,
}

/// The ways between some nodes.
pub enum Ways {
    Relays { relays: Relays, mqtt: Vec<SocketAddr>, listen: Vec<SocketAddr> },
    Namespaces(Namespaces),
}

impl Ways {
    pub fn new(names: &[String], namespaces: bool) -> Ways {
        if namespaces {
            return Ways::Namespaces(Namespaces::new(names.len()));
        }
        let free = Free::new(2 * names.len()).expect("free ports");
        let mut listen = free.addresses();
        let mqtt = listen.split_off(names.len());
        let nodes: Vec<_> = names.iter().cloned().zip(listen.iter().copied()).collect();
        Ways::Relays { relays: Relays::new(&nodes).expect("relays"), mqtt, listen }
    }

    pub fn place(&self, node: usize) -> Place {
        match self {
            Ways::Relays { relays, mqtt, listen } => {
                Place { listen: listen[node], advertise: relays.address(node), mqtt: mqtt[node] }
            }
            Ways::Namespaces(of) => {
                let at = |port| SocketAddr::from((of.address(node), port));
                Place { listen: at(4370), advertise: at(4370), mqtt: at(1883) }
            }
        }
    }

    /// What starts a program there.
    pub fn before(&self, node: usize) -> Vec<String> {
        match self {
            Ways::Relays { .. } => Vec::new(),
            Ways::Namespaces(of) => ["ip", "netns", "exec", &of.name(node)].map(str::to_owned).to_vec(),
        }
    }

    pub fn set_cut(&mut self, from: usize, to: usize, cut: bool) {
        match self {
            Ways::Relays { relays, .. } => relays.set_cut(from, to, cut),
            Ways::Namespaces(of) => of.set_cut(from, to, cut),
        }
    }

    /// A node that does not run is somewhere else from now on.
    pub fn move_node(&mut self, node: usize) {
        match self {
            Ways::Relays { relays, listen, .. } => {
                listen[node] = Free::new(1).expect("a free port").addresses()[0];
                relays.move_to(node, listen[node]).expect("a relay");
            }
            Ways::Namespaces(of) => of.move_node(node),
        }
    }
}

/// A namespace for each node, and a bridge to which all are connected, this process among them.
pub struct Namespaces {
    /// Begins all names; short, for interfaces have short ones.
    prefix: String,
    network: [u8; 2],
    /// By node: the last part of its address.
    hosts: Vec<u8>,
    moved: u8,
}

impl Namespaces {
    fn new(count: usize) -> Namespaces {
        let id = own_number();
        let network = [128 + (id >> 8 & 127) as u8, (id & 255) as u8];
        let this = Namespaces { prefix: format!("nmq{id}"), network, hosts: (1..=count as u8).collect(), moved: 100 };
        let bridge = this.bridge();
        ip(&format!("link add {bridge} type bridge"));
        ip(&format!("addr add {}/24 dev {bridge}", this.host(254)));
        ip(&format!("link set {bridge} up"));
        for node in 0..count {
            let (name, veth) = (this.name(node), format!("{}v{node}", this.prefix));
            ip(&format!("netns add {name}"));
            ip(&format!("link add {veth} type veth peer name eth0 netns {name}"));
            ip(&format!("link set {veth} master {bridge} up"));
            ip(&format!("-n {name} link set lo up"));
            this.set_address(node);
            // So that a rule can be before the one for what has arrived.
            ip(&format!("-n {name} rule add pref 100 lookup local"));
            ip(&format!("-n {name} rule del pref 0"));
            ip(&format!("netns exec {name} sysctl -qw net.ipv4.ip_early_demux=0"));
        }
        this
    }

    fn bridge(&self) -> String {
        format!("{}b", self.prefix)
    }

    fn name(&self, node: usize) -> String {
        format!("{}n{node}", self.prefix)
    }

    fn host(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.network[0], self.network[1], host)
    }

    fn address(&self, node: usize) -> Ipv4Addr {
        self.host(self.hosts[node])
    }

    fn set_address(&self, node: usize) {
        let name = self.name(node);
        ip(&format!("-n {name} addr flush dev eth0"));
        ip(&format!("-n {name} addr add {}/24 dev eth0", self.address(node)));
        ip(&format!("-n {name} link set eth0 up"));
    }

    fn set_cut(&self, from: usize, to: usize, cut: bool) {
        let what = if cut { "add" } else { "del" };
        let rule = format!("-n {} rule {what} pref 10 from {} blackhole", self.name(to), self.address(from));
        ip(&rule);
    }

    fn move_node(&mut self, node: usize) {
        self.moved += 1;
        self.hosts[node] = self.moved;
        self.set_address(node);
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for node in 0..self.hosts.len() {
            let _ = run(&format!("netns del {}", self.name(node)));
            let _ = run(&format!("link del {}v{node}", self.prefix));
        }
        let _ = run(&format!("link del {}", self.bridge()));
    }
}

/// Another one for each call, and mostly for each process.
fn own_number() -> u32 {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    (std::process::id() * 16 + CALLS.fetch_add(1, Ordering::SeqCst)) % 1_000_000
}

fn run(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn ip(arguments: &str) {
    run(arguments).unwrap_or_else(|why| panic!("ip {arguments}: {why}"));
}

/// Whether network namespaces can be made here, and rules in them.
pub fn may_use_namespaces() -> bool {
    let name = format!("nmq{}try", own_number());
    let done = ["netns add NAME", "-n NAME rule add pref 10 from 192.0.2.1 blackhole"];
    let works = done.iter().all(|arguments| run(&arguments.replace("NAME", &name)).is_ok());
    let _ = run(&format!("netns del {name}"));
    works
}
