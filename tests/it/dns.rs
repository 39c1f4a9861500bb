//! Nodes, each its own process, that find each other by a name server of the test.
//!
//! The program asks the name servers of `/etc/resolv.conf`, always at port 53, and takes port 4370 where a record has
//! none. So a test runs once more, as another process with a network and a `resolv.conf` of its own, where that is
//! permitted.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::Signal;

use crate::broker::{Broker, Scratch, wait_until};
use crate::cluster::{carries, wait_until_open};
use crate::discovery::{NO_ANSWER, discovery, node, wait_until_found};

/// Set where a test has a network of its own.
const INSIDE: &str = "NEWTMQ_TEST_INSIDE";

/// Whether this process has a network of its own. If not, it runs this test in one that has, or says why it cannot.
fn is_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let scratch = Scratch::new(&test.replace("::", "-"));
    let resolver = scratch.write("resolv.conf", "nameserver 127.0.0.1\n");
    let switch = scratch.write("nsswitch.conf", "hosts: files dns\n");
    let prepared = format!(
        "ip link set lo up && mount --bind '{resolver}' /etc/resolv.conf \
         && {{ [ ! -e /etc/nsswitch.conf ] || mount --bind '{switch}' /etc/nsswitch.conf; }}"
    );
    match unshared(&prepared, &[]) {
        Ok(tried) if tried.status.success() => {}
        Ok(tried) => {
            eprintln!("not tested: no network of its own: {}", String::from_utf8_lossy(&tried.stderr));
            return false;
        }
        Err(error) => {
            eprintln!("not tested: unshare: {error}");
            return false;
        }
    }
    let own = std::env::current_exe().unwrap();
    let done = unshared(
        &format!("{prepared} && exec \"$0\" \"$@\""),
        &[own.to_str().unwrap(), test, "--exact", "--nocapture"],
    );
    let done = done.unwrap();
    let told = [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(done.status.success() && told.contains("1 passed"), "{told}");
    false
}

/// What a script does that has a network and mounts of its own.
fn unshared(script: &str, arguments: &[&str]) -> io::Result<Output> {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "--mount", "sh", "-c", script]).args(arguments);
    command.env(INSIDE, "1").stdin(Stdio::null()).output()
}

/// What a name server knows.
#[derive(Default)]
struct Zone {
    addresses: BTreeMap<String, Vec<Ipv4Addr>>,
    services: BTreeMap<String, Vec<(String, u16)>>,
    /// It says that it cannot answer.
    fails: bool,
    /// Services are more than a datagram takes.
    cuts_off: bool,
}

const A: u16 = 1;
const SRV: u16 = 33;
const INTERNET: u16 = 1;
const CUT_OFF: u16 = 0x0200;

fn put(bytes: &mut Vec<u8>, numbers: &[u16]) {
    bytes.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
}

fn put_name(bytes: &mut Vec<u8>, name: &str) {
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
}

/// The name that is asked for, and where it ends.
fn asked(question: &[u8]) -> (String, usize) {
    let (mut at, mut labels) = (12, Vec::new());
    while question[at] > 0 {
        let end = at + 1 + usize::from(question[at]);
        labels.push(String::from_utf8_lossy(&question[at + 1..end]).to_lowercase());
        at = end;
    }
    (labels.join("."), at + 1)
}

impl Zone {
    fn answer(&self, question: &[u8], by_datagram: bool) -> Vec<u8> {
        let (name, end) = asked(question);
        let kind = u16::from_be_bytes([question[end], question[end + 1]]);
        let is_known = self.addresses.contains_key(&name) || self.services.contains_key(&name);
        let cut_off = if self.cuts_off && by_datagram && kind == SRV { CUT_OFF } else { 0 };
        let code = if self.fails { 2 } else { u16::from(!is_known) * 3 };
        let records = if code + cut_off == 0 { self.records(&name, kind) } else { Vec::new() };
        let mut bytes = question[..2].to_vec();
        put(&mut bytes, &[0x8180 | code | cut_off, 1, u16::try_from(records.len()).unwrap(), 0, 0]);
        bytes.extend_from_slice(&question[12..end + 4]);
        for data in records {
            // The name that was asked for, to be kept for no time.
            put(&mut bytes, &[0xC00C, kind, INTERNET, 0, 0, u16::try_from(data.len()).unwrap()]);
            bytes.extend(data);
        }
        bytes
    }

    fn records(&self, name: &str, kind: u16) -> Vec<Vec<u8>> {
        let service = |(host, port): &(String, u16)| {
            let mut bytes = Vec::new();
            put(&mut bytes, &[0, 0, *port]);
            put_name(&mut bytes, host);
            bytes
        };
        match kind {
            A => self.addresses.get(name).into_iter().flatten().map(|ip| ip.octets().to_vec()).collect(),
            SRV => self.services.get(name).into_iter().flatten().map(service).collect(),
            _ => Vec::new(),
        }
    }
}

/// A name server on the port of all name servers, until the process ends.
struct NameServer(Arc<Mutex<Zone>>);

impl NameServer {
    fn start() -> NameServer {
        let zone = Arc::new(Mutex::new(Zone::default()));
        let place = (Ipv4Addr::LOCALHOST, 53);
        let (datagrams, connections) = (UdpSocket::bind(place).unwrap(), TcpListener::bind(place).unwrap());
        let of_datagrams = Arc::clone(&zone);
        thread::spawn(move || {
            let mut buffer = [0; 1024];
            loop {
                // What an earlier answer met is told here, too.
                let Ok((count, from)) = datagrams.recv_from(&mut buffer) else { continue };
                let answer = of_datagrams.lock().unwrap().answer(&buffer[..count], true);
                let _ = datagrams.send_to(&answer, from);
            }
        });
        let of_connections = Arc::clone(&zone);
        thread::spawn(move || {
            for stream in connections.incoming() {
                let _ = converse(stream.unwrap(), &of_connections);
            }
        });
        NameServer(zone)
    }

    fn change(&self, change: impl FnOnce(&mut Zone)) {
        change(&mut self.0.lock().unwrap());
    }
}

/// One question, with its length before it.
fn converse(mut stream: TcpStream, zone: &Mutex<Zone>) -> io::Result<()> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut question)?;
    let answer = zone.lock().unwrap().answer(&question, false);
    stream.write_all(&[&u16::try_from(answer.len()).unwrap().to_be_bytes(), &answer[..]].concat())
}

#[test]
fn nodes_are_the_addresses_of_a_name_and_go_on_without_a_name_server() {
    if !is_inside("dns::nodes_are_the_addresses_of_a_name_and_go_on_without_a_name_server") {
        return;
    }
    let scratch = Scratch::new("dns-a");
    let names = NameServer::start();
    let start = |number: u32| {
        let place = format!("node.listen=127.0.0.{}:4370", number + 1);
        node(&scratch, number, &["cluster.discovery=dns".to_owned(), "cluster.dns.name=Nodes.test".to_owned(), place])
    };
    let (nodes, addresses): (Vec<Broker>, Vec<SocketAddr>) = (1..=3).map(start).unzip();
    let log = &nodes[0].process.stderr;
    log.wait_for("what is missing", |line| line.contains(NO_ANSWER) && line.contains("Nodes.test"));
    let all = [2, 3, 4].map(|last| Ipv4Addr::new(127, 0, 0, last));
    names.change(|zone| drop(zone.addresses.insert("nodes.test".to_owned(), all.to_vec())));
    wait_until_open(&scratch, 1);
    wait_until_found(&scratch, 1, &addresses[1..]);
    wait_until_found(&scratch, 3, &addresses[..2]);
    assert_eq!(discovery(&scratch, 2)["may_found"], true);
    carries(&nodes[1], &nodes[0], "by/addresses");

    let (before, again) = (log.count(NO_ANSWER), log.count("discovery works again"));
    names.change(|zone| zone.fails = true);
    wait_until("an outage", || (log.count(NO_ANSWER) > before).then_some(()));
    assert_eq!(discovery(&scratch, 1)["addresses"].as_array().unwrap().len(), 2, "what was found stays");
    carries(&nodes[2], &nodes[0], "without/names");
    names.change(|zone| zone.fails = false);
    wait_until("its end", || (log.count("discovery works again") > again).then_some(()));
    nodes.iter().for_each(Broker::assert_log_is_clean);
}

const SERVICE: &str = "_newtmq._tcp.nodes.test";

fn host(number: usize) -> String {
    format!("n{number}.nodes.test")
}

/// What a name server tells of nodes at these addresses.
fn services(addresses: &[SocketAddr]) -> Vec<(String, u16)> {
    addresses.iter().enumerate().map(|(at, address)| (host(at + 1), address.port())).collect()
}

#[test]
fn nodes_are_the_hosts_and_ports_of_a_service() {
    if !is_inside("dns::nodes_are_the_hosts_and_ports_of_a_service") {
        return;
    }
    let scratch = Scratch::new("dns-srv");
    let names = NameServer::start();
    let sets =
        ["cluster.discovery=dns", "cluster.dns.type=srv", &format!("cluster.dns.name={SERVICE}")].map(str::to_owned);
    let (mut nodes, mut addresses): (Vec<Broker>, Vec<SocketAddr>) =
        (1..=3).map(|number| node(&scratch, number, &sets)).unzip();
    let is_told = |name: &str, why: &str| {
        let is = |line: &str| line.contains(NO_ANSWER) && line.contains(name) && line.contains(why);
        nodes[0].process.stderr.wait_for(name, is);
    };
    is_told(SERVICE, "there is no such name");
    let set_services =
        |zone: &mut Zone, of: &[SocketAddr]| drop(zone.services.insert(SERVICE.to_owned(), services(of)));
    let set_host = |zone: &mut Zone, number| drop(zone.addresses.insert(host(number), vec![Ipv4Addr::LOCALHOST]));
    names.change(|zone| {
        set_services(zone, &addresses);
        set_host(zone, 1);
        set_host(zone, 2);
    });
    // One of the hosts leads nowhere: nobody founds anything.
    is_told(&host(3), "");
    assert_eq!(discovery(&scratch, 1)["may_found"], false);
    names.change(|zone| set_host(zone, 3));
    wait_until_open(&scratch, 1);
    carries(&nodes[1], &nodes[0], "by/services");

    // One has moved, and there is more than fits into a datagram.
    nodes[2].process.signal(Signal::KILL);
    nodes[2].process.wait();
    (nodes[2], addresses[2]) = node(&scratch, 3, &sets);
    names.change(|zone| {
        zone.cuts_off = true;
        set_services(zone, &addresses);
    });
    wait_until_found(&scratch, 1, &addresses[1..]);
    wait_until_found(&scratch, 3, &addresses[..2]);
    wait_until_open(&scratch, 2);
    carries(&nodes[2], &nodes[0], "to/third");
    nodes.iter().for_each(Broker::assert_log_is_clean);
}
