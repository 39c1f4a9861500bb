//! Where clients are: the other end of a datagram, and behind a forwarder the node that it names.

use core::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use crate::message::Encapsulation;

/// The other end of a datagram. 24 bytes instead of the 32 of a `SocketAddr`: every client has one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// IPv4 addresses are mapped into IPv6.
    ip: [u8; 16],
    port: u16,
    /// The interface of a link-local address; 0 for others.
    scope: u32,
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Endpoint {
        let (ip, scope) = match address {
            SocketAddr::V4(address) => (address.ip().to_ipv6_mapped().octets(), 0),
            SocketAddr::V6(address) => (address.ip().octets(), address.scope_id()),
        };
        Endpoint { ip, port: address.port(), scope }
    }
}

impl Endpoint {
    /// As an address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        match IpAddr::from(self.ip).to_canonical() {
            IpAddr::V6(ip) => SocketAddrV6::new(ip, self.port, 0, self.scope).into(),
            ip @ IpAddr::V4(_) => SocketAddr::new(ip, self.port),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address().fmt(f)
    }
}

/// Where a client is: two clients behind one forwarder differ in their WirelessNodeId (5.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) endpoint: Endpoint,
    pub(crate) node: Option<Box<[u8]>>,
}

/// The same, to look up.
pub(crate) type AddressKey<'a> = (Endpoint, Option<&'a [u8]>);

impl Address {
    pub(crate) fn key(&self) -> AddressKey<'_> {
        (self.endpoint, self.node.as_deref())
    }
}

/// Where a datagram came from, before anything is kept of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) endpoint: Endpoint,
    pub(crate) forwarded: Option<Encapsulation<'a>>,
}

impl Source<'_> {
    pub(crate) fn key(&self) -> AddressKey<'_> {
        (self.endpoint, self.forwarded.map(|forwarded| forwarded.node))
    }

    pub(crate) fn to_address(self) -> Address {
        Address { endpoint: self.endpoint, node: self.forwarded.map(|forwarded| forwarded.node.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_stays_what_it_is() {
        for (text, shown) in [
            ("192.0.2.1:1884", "192.0.2.1:1884"),
            ("[::ffff:192.0.2.1]:1884", "192.0.2.1:1884"),
            ("[2001:db8::1]:1", "[2001:db8::1]:1"),
            ("[fe80::1%3]:1884", "[fe80::1%3]:1884"),
        ] {
            let address: SocketAddr = text.parse().expect("an address");
            assert_eq!(Endpoint::from(address).address().to_string(), shown);
        }
        let on = |text: &str| Endpoint::from(text.parse::<SocketAddr>().expect("an address"));
        assert_ne!(on("[fe80::1%3]:1884"), on("[fe80::1%4]:1884"), "another device on another network");
    }
}
