//! Where clients are: the other end of a datagram, and behind a forwarder the node that it names.

use core::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::message::Encapsulation;

/// The other end of a datagram. 18 bytes instead of the 32 of a `SocketAddr`: every client has one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// IPv4 addresses are mapped into IPv6.
    ip: [u8; 16],
    port: u16,
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Endpoint {
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        Endpoint { ip, port: address.port() }
    }
}

impl Endpoint {
    /// As an address; without the scope of a link-local one.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::from(self.ip).to_canonical(), self.port)
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
