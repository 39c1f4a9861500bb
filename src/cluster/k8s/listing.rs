//! What the API of Kubernetes says, read: endpoints, endpoint slices, and what happens to them. It asks nobody.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use crate::config::{AddressType, CLUSTER_PORT, K8s, K8sResource, Seed};

/// Nodes of each object, by its name.
#[derive(Debug, Default)]
pub(super) struct Facts(BTreeMap<String, Vec<Node>>);

/// Where a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    ip: IpAddr,
    port: u16,
    hostname: Option<String>,
}

/// What there is to know of an answer, besides nodes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// What a watch goes on from.
    pub(super) version: String,
    /// What the next page is asked for with; none after the last.
    pub(super) next: Option<String>,
}

/// A line of a watch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    Changed {
        version: String,
    },
    Bookmark {
        version: String,
    },
    /// What the watch goes on from is not kept any more.
    TooOld,
    Error {
        code: u16,
        status: Value,
    },
}

impl Facts {
    /// Takes in an object, or a page of a list.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub(super) fn page(&mut self, bytes: &[u8], k8s: &K8s) -> Result<Page, String> {
        let body = json(bytes)?;
        match k8s.resource {
            K8sResource::Endpoints => self.take(&body, k8s)?,
            K8sResource::EndpointSlices => {
                for (at, item) in array(&body, "items")?.iter().enumerate() {
                    self.take(item, k8s).map_err(|what| format!("items[{at}].{what}"))?;
                }
            }
        }
        let next = body["metadata"]["continue"].as_str().filter(|next| !next.is_empty()).map(str::to_owned);
        Ok(Page { version: version(&body)?, next })
    }

    /// Takes in what has happened.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub(super) fn event(&mut self, line: &[u8], k8s: &K8s) -> Result<Event, String> {
        let event = json(line)?;
        let object = &event["object"];
        match event["type"].as_str().unwrap_or_default() {
            "ADDED" | "MODIFIED" => {
                self.take(object, k8s).map_err(|what| format!("object.{what}"))?;
                Ok(Event::Changed { version: version(object)? })
            }
            "DELETED" => {
                self.0.remove(name(object)?);
                Ok(Event::Changed { version: version(object)? })
            }
            "BOOKMARK" => Ok(Event::Bookmark { version: version(object)? }),
            "ERROR" => match object["code"].as_u64().and_then(|code| u16::try_from(code).ok()) {
                Some(GONE) => Ok(Event::TooOld),
                code => Ok(Event::Error { code: code.unwrap_or_default(), status: object.clone() }),
            },
            other => Err(format!("an event of type `{}`", other.chars().take(TYPE_MAX).collect::<String>())),
        }
    }

    fn take(&mut self, object: &Value, k8s: &K8s) -> Result<(), String> {
        let nodes = match k8s.resource {
            K8sResource::Endpoints => of_endpoints(object, &k8s.port_name)?,
            K8sResource::EndpointSlices => of_slice(object, &k8s.port_name)?,
        };
        self.0.insert(name(object)?.to_owned(), nodes);
        Ok(())
    }

    /// Nodes with addresses of one kind, each once.
    pub(super) fn nodes(&self, k8s: &K8s, of_ipv4: bool) -> Vec<(Seed, Option<SocketAddr>)> {
        let all = self.0.values().flatten().filter(|node| node.ip.is_ipv4() == of_ipv4);
        // While an endpoint moves to another slice it is in both.
        let by_address: BTreeMap<SocketAddr, &Node> =
            all.map(|node| (SocketAddr::new(node.ip, node.port), node)).collect();
        let named = |(address, node): (SocketAddr, &Node)| {
            let seed = Seed { name: Some(k8s.app_name.clone()), host: host(node, k8s), port: address.port() };
            (seed, Some(address))
        };
        by_address.into_iter().map(named).collect()
    }
}

/// What stands after `@` in the node's name.
fn host(node: &Node, k8s: &K8s) -> String {
    let K8s { service_name, namespace, suffix, .. } = k8s;
    let ip = node.ip.to_string();
    match (k8s.address_type, &node.hostname) {
        (AddressType::Ip, _) | (AddressType::Hostname, None) => ip,
        (AddressType::Dns, _) => {
            let suffix = suffix.as_deref().unwrap_or(POD_SUFFIX);
            format!("{}.{namespace}.{suffix}", ip.replace(['.', ':'], "-"))
        }
        (AddressType::Hostname, Some(hostname)) => {
            let suffix = suffix.as_deref().unwrap_or(SERVICE_SUFFIX);
            format!("{hostname}.{service_name}.{namespace}.{suffix}")
        }
    }
}

fn of_endpoints(object: &Value, port_name: &str) -> Result<Vec<Node>, String> {
    let mut nodes = Vec::new();
    for (at, subset) in array(object, "subsets")?.iter().enumerate() {
        let place = |what: String| format!("subsets[{at}].{what}");
        let port = port(subset, port_name).map_err(place)?;
        // A node that is not ready may be waiting for the others.
        for list in ["addresses", "notReadyAddresses"] {
            for (i, address) in array(subset, list).map_err(place)?.iter().enumerate() {
                let ip = ip(&address["ip"]).ok_or_else(|| place(format!("{list}[{i}].ip is no IP address")))?;
                nodes.push(Node { ip, port, hostname: hostname(address) });
            }
        }
    }
    Ok(nodes)
}

fn of_slice(object: &Value, port_name: &str) -> Result<Vec<Node>, String> {
    let kind = object["addressType"].as_str().unwrap_or_default();
    if !["IPv4", "IPv6"].contains(&kind) {
        return Err(format!("addressType is `{}`, which is not read", kind.chars().take(TYPE_MAX).collect::<String>()));
    }
    let port = port(object, port_name)?;
    let mut nodes = Vec::new();
    for (at, endpoint) in array(object, "endpoints")?.iter().enumerate() {
        if endpoint["conditions"]["terminating"].as_bool() == Some(true) {
            continue;
        }
        // All addresses of an endpoint lead to the same place.
        let first = &array(endpoint, "addresses").map_err(|what| format!("endpoints[{at}].{what}"))?;
        let ip = first.first().and_then(ip);
        let ip = ip.ok_or_else(|| format!("endpoints[{at}].addresses[0] is no IP address"))?;
        nodes.push(Node { ip, port, hostname: hostname(endpoint) });
    }
    Ok(nodes)
}

/// The port of this name, or the usual one.
fn port(object: &Value, name: &str) -> Result<u16, String> {
    let ports = array(object, "ports")?;
    let Some(at) = ports.iter().position(|port| port["name"].as_str() == Some(name)) else { return Ok(CLUSTER_PORT) };
    let port = ports[at]["port"].as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    port.ok_or_else(|| format!("ports[{at}].port is no port"))
}

fn hostname(object: &Value) -> Option<String> {
    object["hostname"].as_str().filter(|name| !name.is_empty()).map(str::to_owned)
}

fn ip(value: &Value) -> Option<IpAddr> {
    value.as_str()?.parse().ok()
}

fn name(object: &Value) -> Result<&str, String> {
    object["metadata"]["name"].as_str().ok_or_else(|| "metadata.name is missing".to_owned())
}

fn version(object: &Value) -> Result<String, String> {
    let version = object["metadata"]["resourceVersion"].as_str();
    version.map(str::to_owned).ok_or_else(|| "metadata.resourceVersion is missing".to_owned())
}

/// A list that may be missing or null.
fn array<'a>(object: &'a Value, field: &str) -> Result<&'a [Value], String> {
    match &object[field] {
        Value::Null => Ok(&[]),
        Value::Array(items) => Ok(items),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => Err(format!("{field} is no list")),
    }
}

fn json(bytes: &[u8]) -> Result<Value, String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| format!("no JSON: {error}"))?;
    if value.is_object() { Ok(value) } else { Err("no object of JSON".to_owned()) }
}

const GONE: u16 = 410;
const POD_SUFFIX: &str = "pod.cluster.local";
const SERVICE_SUFFIX: &str = "svc.cluster.local";
/// Characters of an unknown word that are shown.
const TYPE_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::{Sources, load};

    fn k8s(sets: &[&str]) -> K8s {
        let sets = sets.iter().map(|set| format!("cluster.k8s.{set}")).collect();
        load(&Sources { sets, ..Sources::default() }).unwrap().config.cluster.k8s
    }

    /// What is listed, as `NAME=ADDRESS`, or what is wrong.
    fn listed(body: &Value, sets: &[&str]) -> String {
        let k8s = k8s(sets);
        let mut facts = Facts::default();
        match facts.page(body.to_string().as_bytes(), &k8s) {
            Ok(_) => {
                let nodes = facts.nodes(&k8s, true);
                let shown = nodes.iter().map(|(seed, address)| format!("{}={}", seed.host, address.unwrap()));
                shown.collect::<Vec<_>>().join(" ")
            }
            Err(what) => what,
        }
    }

    #[test]
    fn endpoints() {
        let one = |subsets: Value| json!({ "metadata": { "name": "s", "resourceVersion": "1" }, "subsets": subsets });
        let hosts =
            json!([{ "addresses": [{ "ip": "10.0.0.1", "hostname": "n-0" }, { "ip": "10.0.0.2", "hostname": "" }] }]);
        for (subsets, sets, want) in [
            (Value::Null, &[][..], ""),
            (json!([]), &[], ""),
            (
                json!([{ "addresses": null, "notReadyAddresses": [{ "ip": "10.0.0.3" }] }]),
                &[],
                "10.0.0.3=10.0.0.3:4370",
            ),
            (
                json!([{ "addresses": [{ "ip": "10.0.0.1" }], "ports": [{ "port": 1883 }, { "name": "cluster", "port": 5 }] }]),
                &[],
                "10.0.0.1=10.0.0.1:5",
            ),
            (json!([{ "addresses": [{ "ip": "10.0.0.1" }, { "ip": "10.0.0.1" }] }]), &[], "10.0.0.1=10.0.0.1:4370"),
            (json!([{ "addresses": [{ "ip": "::1" }] }]), &[], ""),
            (
                hosts.clone(),
                &["address_type=dns", "namespace=ns"],
                "10-0-0-1.ns.pod.cluster.local=10.0.0.1:4370 10-0-0-2.ns.pod.cluster.local=10.0.0.2:4370",
            ),
            (
                hosts,
                &["address_type=hostname", "service_name=s", "suffix=svc.example"],
                "n-0.s.default.svc.example=10.0.0.1:4370 10.0.0.2=10.0.0.2:4370",
            ),
            (json!({}), &[], "subsets is no list"),
            (json!([{ "addresses": [{}] }]), &[], "subsets[0].addresses[0].ip is no IP address"),
            (json!([{ "ports": [{ "name": "cluster", "port": 70_000 }] }]), &[], "subsets[0].ports[0].port is no port"),
        ] {
            assert_eq!(listed(&one(subsets.clone()), sets), want, "{subsets}");
        }
        assert_eq!(listed(&json!({ "metadata": {} }), &[]), "metadata.name is missing");
        assert_eq!(listed(&json!([]), &[]), "no object of JSON");
    }

    #[test]
    fn slices() {
        let list = |slice: Value| {
            let mut slice = slice;
            slice["metadata"] = json!({ "name": "s-1" });
            json!({ "metadata": { "resourceVersion": "1" }, "items": [slice] })
        };
        for (slice, want) in [
            (json!({ "addressType": "IPv4", "endpoints": null }), ""),
            (
                json!({ "addressType": "IPv4", "endpoints": [
                    { "addresses": ["10.0.0.1", "10.0.0.9"], "conditions": { "ready": false } },
                    { "addresses": ["10.0.0.2"], "conditions": { "ready": false, "terminating": true } },
                ] }),
                "10.0.0.1=10.0.0.1:4370",
            ),
            (
                json!({ "addressType": "IPv4", "endpoints": [{ "addresses": ["10.0.0.1"] }], "ports": [{ "name": "cluster", "port": null }] }),
                "items[0].ports[0].port is no port",
            ),
            (
                json!({ "addressType": "IPv4", "endpoints": [{ "addresses": [] }] }),
                "items[0].endpoints[0].addresses[0] is no IP address",
            ),
            (json!({ "addressType": "FQDN" }), "items[0].addressType is `FQDN`, which is not read"),
        ] {
            assert_eq!(listed(&list(slice.clone()), &["resource=endpointslices"]), want, "{slice}");
        }
    }

    #[test]
    fn events() {
        let k8s = k8s(&[]);
        let mut facts = Facts::default();
        let mut event = |event: Value| facts.event(event.to_string().as_bytes(), &k8s);
        let object = json!({ "metadata": { "name": "s", "resourceVersion": "7" }, "subsets": [{ "addresses": [{ "ip": "10.0.0.1" }] }] });
        for kind in ["ADDED", "MODIFIED", "DELETED"] {
            let changed = event(json!({ "type": kind, "object": object.clone() }));
            assert_eq!(changed, Ok(Event::Changed { version: "7".to_owned() }), "{kind}");
        }
        let bookmark = event(json!({ "type": "BOOKMARK", "object": { "metadata": { "resourceVersion": "9" } } }));
        assert_eq!(bookmark, Ok(Event::Bookmark { version: "9".to_owned() }));
        assert_eq!(event(json!({ "type": "ERROR", "object": { "code": 410 } })), Ok(Event::TooOld));
        let status = json!({ "code": 500, "message": "m" });
        let error = event(json!({ "type": "ERROR", "object": status.clone() }));
        assert_eq!(error, Ok(Event::Error { code: 500, status }));
        assert_eq!(event(json!({ "type": "x" })), Err("an event of type `x`".to_owned()));
        assert_eq!(event(json!({ "type": "DELETED", "object": {} })), Err("metadata.name is missing".to_owned()));
        assert!(facts.nodes(&k8s, true).is_empty());
    }
}
