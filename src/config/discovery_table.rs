//! The keys of `cluster.etcd.*` and `cluster.k8s.*`.

use super::discovery::{AddressType, K8sResource};
use super::table::{DAY, Field, Key, key};
use super::types::Config;

/// `cluster.etcd.*` and `cluster.k8s.*`
pub(super) const DISCOVERY: &[Key<Config>] = &[
    key(
        SERVER,
        Field::Urls(|c, v| c.cluster.etcd.set_servers(v)),
        "none",
        "For `etcd`: the servers of one etcd (3.4 or later), of which one at a time is asked, such as \
         `https://10.0.0.1:2379,https://10.0.0.2:2379`. A port that is not said is 2379.",
    ),
    key(
        "cluster.etcd.prefix",
        Field::Text(|c, v| v.clone_into(&mut c.cluster.etcd.prefix)),
        "newtmqcl",
        "Each node has a key `PREFIX/CLUSTER/nodes/ID`, with `cluster.name` and the id of the node. EMQ X: emqxcl.",
    ),
    key(
        "cluster.etcd.node_ttl",
        Field::Seconds(5, DAY / 1000, |c, v| c.cluster.etcd.node_ttl = v),
        "1m",
        "The key of a node that is gone goes after this long: it is the node's lease.",
    ),
    key(
        USERNAME,
        Field::TextOrNone(|c, v| c.cluster.etcd.login.username = v),
        "none",
        "The user of etcd, if it asks for one. It reads and writes what begins with the prefix. EMQ X has no such key.",
    ),
    key(
        PASSWORD,
        Field::Secret(|c, v| c.cluster.etcd.login.password = v),
        "none",
        "That user's password. It is not shown in logs. EMQ X has no such key.",
    ),
    key(
        ETCD_CERTFILE,
        Field::File(|c, v| c.cluster.etcd.tls.certfile = v),
        "none",
        "The certificate that is shown to servers, if they ask for one.",
    ),
    key(ETCD_KEYFILE, Field::File(|c, v| c.cluster.etcd.tls.keyfile = v), "none", "Its private key."),
    key(
        ETCD_CACERTFILE,
        Field::File(|c, v| c.cluster.etcd.tls.cacertfile = v),
        "none",
        "The certificate authority of the servers; `https` needs it. These files are read again with each connection.",
    ),
    key(
        APISERVER,
        Field::Urls(|c, v| c.cluster.k8s.apiservers = v),
        "https://kubernetes.default.svc",
        "For `k8s`: the API server, as it is reached from within a pod; several are asked one at a time. To one with `http` no \
         token is sent.",
    ),
    key(
        "cluster.k8s.service_name",
        Field::Name(|c, v| v.clone_into(&mut c.cluster.k8s.service_name)),
        "newtmq",
        "The service whose endpoints are the nodes. EMQ X: emqx.",
    ),
    key(
        "cluster.k8s.namespace",
        Field::Name(|c, v| v.clone_into(&mut c.cluster.k8s.namespace)),
        "default",
        "The namespace of the service.",
    ),
    key(
        "cluster.k8s.resource",
        Field::Word(K8sResource::WORDS, |c, v| c.cluster.k8s.resource = K8sResource::ALL[v]),
        "endpoints",
        "What is read: the `endpoints` of the service, or its `endpointslices`, which Kubernetes prefers from 1.33 on. The \
         service account needs the verbs get, list and watch for it. EMQ X has endpoints only.",
    ),
    key(
        "cluster.k8s.address_type",
        Field::Word(AddressType::WORDS, |c, v| c.cluster.k8s.address_type = AddressType::ALL[v]),
        "ip",
        "The names of nodes: `APP@10-1-2-3.NAMESPACE.SUFFIX` for `dns`, `APP@HOSTNAME.SERVICE.NAMESPACE.SUFFIX` for `hostname`, \
         `APP@10.1.2.3` for `ip`. A node finds itself by its `node.name` or its address; others are always reached by their \
         address.",
    ),
    key(
        "cluster.k8s.app_name",
        Field::Name(|c, v| v.clone_into(&mut c.cluster.k8s.app_name)),
        "newtmq",
        "The part before `@` in the names of nodes. EMQ X: emqx.",
    ),
    key(
        "cluster.k8s.suffix",
        Field::HostOrNone(|c, v| c.cluster.k8s.suffix = v),
        "none",
        "The end of names; `none` is `pod.cluster.local` for `dns` and `svc.cluster.local` for `hostname`.",
    ),
    key(
        "cluster.k8s.port_name",
        Field::Name(|c, v| v.clone_into(&mut c.cluster.k8s.port_name)),
        "cluster",
        "If the service has a port of this name, nodes are reached at it; otherwise at 4370. EMQ X has no such key.",
    ),
    key(
        "cluster.k8s.tokenfile",
        Field::File(|c, v| c.cluster.k8s.tokenfile = v),
        "/var/run/secrets/kubernetes.io/serviceaccount/token",
        "The token of the service account, read for each request, for it changes; `none` sends none.",
    ),
    key(
        K8S_CACERTFILE,
        Field::File(|c, v| c.cluster.k8s.tls.cacertfile = v),
        "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
        "The certificate authority of the API server, read with each connection.",
    ),
];

pub(super) const SERVER: &str = "cluster.etcd.server";
pub(super) const USERNAME: &str = "cluster.etcd.username";
pub(super) const PASSWORD: &str = "cluster.etcd.password";
pub(super) const ETCD_CERTFILE: &str = "cluster.etcd.ssl.certfile";
pub(super) const ETCD_KEYFILE: &str = "cluster.etcd.ssl.keyfile";
pub(super) const ETCD_CACERTFILE: &str = "cluster.etcd.ssl.cacertfile";
pub(super) const APISERVER: &str = "cluster.k8s.apiserver";
pub(super) const K8S_CACERTFILE: &str = "cluster.k8s.cacertfile";
