//! The keys of `node.*` and `cluster.*`, which exist once.

use super::cluster::{Barrier, Discovery, DnsKind, ForwardQos0, OwnerDown};
use super::table::{DAY, Field, Key, fit, key};
use super::types::Config;

/// `node.*` and `cluster.*`
pub(super) const CLUSTER: &[Key<Config>] = &[
    key(
        NODE_NAME,
        Field::NodeName(|c, v| v.clone_into(&mut c.node.name)),
        "newtmq@127.0.0.1",
        "The node's name for people, in `$SYS` topics, logs and `newtmq ctl`. Nodes are told apart by an id that is made with \
         the data directory, not by it.",
    ),
    key(
        COOKIE,
        Field::Secret(|c, v| c.node.cookie = v),
        "none",
        "What all nodes of a cluster have in common and nobody else knows; it lets nodes in, is never sent, and is not shown in \
         logs. Without it the file `cookie` in the data directory is used, which is made with a random one. EMQ X: \
         `emqxsecretcookie`.",
    ),
    key(
        LISTEN,
        Field::AddressOrNone(|c, v| c.node.listen = v),
        "127.0.0.1:4370",
        "Where other nodes are accepted, by TCP and by UDP; `none` for a node that stays alone. An address that other machines \
         can reach needs `node.cookie` or `cluster.tls`. Nothing is opened by a node that has neither a data directory nor any \
         other key of `node.cookie` or `cluster`.",
    ),
    key(
        ADVERTISE,
        Field::AddressOrNone(|c, v| c.node.advertise = v),
        "none",
        "Where other nodes reach this one, if that is not `node.listen`. When that is every interface (0.0.0.0), it is needed \
         unless the host in `node.name` is an IP address.",
    ),
    key(
        "cluster.name",
        Field::Name(|c, v| v.clone_into(&mut c.cluster.name)),
        "newtmqcl",
        "Nodes with another one are refused. EMQ X: emqxcl.",
    ),
    key(
        DISCOVERY,
        Field::Word(Discovery::WORDS, |c, v| c.cluster.discovery = Discovery::ALL[v]),
        "manual",
        "How other nodes are found: by `newtmq ctl cluster join`, by a list, by multicast, by a name in DNS, in etcd, or by the \
         API of Kubernetes. A node never stops to look for them.",
    ),
    key(
        "cluster.expected_size",
        Field::Count(0, 255, |c, v| c.cluster.expected_size = fit(v)),
        "0",
        "A cluster is founded only when so many nodes are found, this one among them; a node joins one that there is all the \
         same. For `mcast`, `dns`, `etcd` and `k8s`; with `static` it is the number of seeds. 0 is any number.",
    ),
    key(
        SEEDS,
        Field::Seeds(|c, v| c.cluster.seeds = v),
        "none",
        "For `static`: all nodes, with commas between, such as `newtmq@10.0.0.1,newtmq@10.0.0.2:4371`. Only host and port count; a \
         port that is not said is 4370. Nodes that are not in the list join, and found no cluster.",
    ),
    key(MCAST_ADDR, Field::Ip(|c, v| c.cluster.mcast.addr = v), "239.192.0.1", "For `mcast`: the group."),
    key(
        "cluster.mcast.ports",
        Field::Ports(|c, v| c.cluster.mcast.ports = v),
        "4369,4370",
        "The node announces itself to all of them, and listens at the first one that is free.",
    ),
    key(
        "cluster.mcast.iface",
        Field::Ip(|c, v| c.cluster.mcast.iface = v),
        "0.0.0.0",
        "The address of the interface; 0.0.0.0 leaves it to the operating system.",
    ),
    key(
        "cluster.mcast.ttl",
        Field::Count(0, 255, |c, v| c.cluster.mcast.ttl = fit(v)),
        "255",
        "How many routers may pass an announcement on.",
    ),
    key(
        "cluster.mcast.loop",
        Field::Flag(|c, v| c.cluster.mcast.is_looped = v),
        "on",
        "Nodes on the same machine hear it, too.",
    ),
    key(
        DNS_NAME,
        Field::HostOrNone(|c, v| c.cluster.dns.name = v),
        "none",
        "For `dns`: the name that has a record for each node.",
    ),
    key(
        "cluster.dns.app",
        Field::Name(|c, v| v.clone_into(&mut c.cluster.dns.app)),
        "newtmq",
        "A node finds itself among the records by its address, or because `APP@ADDRESS` is its `node.name`.",
    ),
    key(
        "cluster.dns.type",
        Field::Word(DnsKind::WORDS, |c, v| c.cluster.dns.kind = DnsKind::ALL[v]),
        "a",
        "`a` asks for addresses (A and AAAA), of which each is a node with port 4370; `srv` asks for hosts and ports.",
    ),
    key(
        "cluster.autoclean",
        Field::TimeOrOff(1000, 3650 * DAY, |c, v| c.cluster.autoclean = v),
        "5m",
        "A member that is down for this long is removed; it comes back by itself. Only a majority of all members removes any.",
    ),
    key(
        "cluster.barrier",
        Field::Word(Barrier::WORDS, |c, v| c.cluster.barrier = Barrier::ALL[v]),
        "fast",
        "What a SUBACK waits for. `fast`: that every node that can be reached knows the subscription, half a second at most. \
         `strict`: that no node can acknowledge a publish that misses it, a few seconds when a node is out of reach.",
    ),
    key(
        "cluster.owner_down",
        Field::Word(OwnerDown::WORDS, |c, v| c.cluster.owner_down = OwnerDown::ALL[v]),
        "wait",
        "What becomes of a client whose stored session is at a node that is down. `wait`: it is refused (0x88) until that node is back, \
         or is removed. `fresh`: it begins a new session; when that node is back, what waits in the stored one and was never sent \
         comes to the client, too, and the stored one ends. All nodes should have the same.",
    ),
    key(
        "cluster.forward_qos0",
        Field::Word(ForwardQos0::WORDS, |c, v| c.cluster.forward_qos0 = ForwardQos0::ALL[v]),
        "drop",
        "What becomes of QoS 0 messages for another node that takes no more at the moment, for it is slow or the way there is. \
         `drop`: they are dropped and counted. `wait`: they wait, and their publisher is read no further meanwhile, for \
         `zone.NAME.max_publisher_hold` at most; they are dropped when no more can wait, or after 10 s.",
    ),
    key(
        "cluster.hints_bytes",
        Field::Size(0, 1 << 40, |c, v| c.cluster.hints_bytes = v),
        "256MB",
        "What this node keeps, on its disk and in memory, for the stored sessions of another node that is away, for each such node. \
         It is divided among the shards: each has its part for the publishes of its own clients, and above that part their \
         publishes with QoS 1 and 2 for such sessions are refused.",
    ),
    key(
        "cluster.witness",
        Field::Flag(|c, v| c.cluster.witness = v),
        "off",
        "The node votes, so that two others need no third, and has no clients.",
    ),
    key(
        TLS_CERTFILE,
        Field::File(|c, v| c.cluster.tls.certfile = v),
        "none",
        "Links between nodes are encrypted, and only nodes whose certificate is one of `cluster.tls.cacertfile` are let in: the \
         certificate of this node, for servers and clients alike. Packets by which nodes see who answers (UDP) are not \
         encrypted; `node.cookie` authenticates them. A reload reads the same three files again, for links to come.",
    ),
    key(TLS_KEYFILE, Field::File(|c, v| c.cluster.tls.keyfile = v), "none", "Its private key."),
    key(
        TLS_CACERTFILE,
        Field::File(|c, v| c.cluster.tls.cacertfile = v),
        "none",
        "The certificate authority of the nodes, and of nobody else.",
    ),
];

pub(super) const NODE_NAME: &str = "node.name";
pub(super) const COOKIE: &str = "node.cookie";
pub(super) const LISTEN: &str = "node.listen";
pub(super) const ADVERTISE: &str = "node.advertise";
pub(super) const DISCOVERY: &str = "cluster.discovery";
pub(super) const SEEDS: &str = "cluster.static.seeds";
pub(super) const MCAST_ADDR: &str = "cluster.mcast.addr";
pub(super) const DNS_NAME: &str = "cluster.dns.name";
pub(super) const TLS_CERTFILE: &str = "cluster.tls.certfile";
pub(super) const TLS_KEYFILE: &str = "cluster.tls.keyfile";
pub(super) const TLS_CACERTFILE: &str = "cluster.tls.cacertfile";
