//! Who a node is to SWIM.

use core::net::{IpAddr, SocketAddr};

use newtmq_base::{Incarnation, InvalidField, NodeId};

use super::{Put, Take};

/// A node's start, and how often that start had to come back. Only `bump` changes when foca renews it: whoever looks at
/// routes, lanes or deduplication looks at `inc` alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// Its start.
    pub inc: Incarnation,
    /// How often this start was declared down and came back.
    pub bump: u32,
    /// Where it is reached.
    pub address: SocketAddr,
}

impl Identity {
    /// Appends its fields.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut put = Put(out);
        put.number(self.node.0).number(self.inc.0).number(u64::from(self.bump));
        match self.address.ip() {
            IpAddr::V4(ip) => put.bytes(&ip.octets()),
            IpAddr::V6(ip) => put.bytes(&ip.octets()),
        };
        put.number(u64::from(self.address.port()));
    }

    /// Reads one that is all of `bytes`.
    ///
    /// # Errors
    /// Its fields are wrong.
    pub fn decode(bytes: &[u8]) -> Result<Identity, InvalidField> {
        let mut take = Take(bytes);
        let identity = Identity::take(&mut take)?;
        take.end()?;
        Ok(identity)
    }

    pub(super) fn take(take: &mut Take<'_>) -> Result<Identity, InvalidField> {
        let node = NodeId(take.number()?);
        let inc = Incarnation(take.number()?);
        let bump = take.number32()?;
        let octets = take.bytes()?;
        let ip = if let Ok(v4) = <[u8; 4]>::try_from(octets) {
            IpAddr::from(v4)
        } else if let Ok(v6) = <[u8; 16]>::try_from(octets) {
            IpAddr::from(v6)
        } else {
            return Err(InvalidField("an address of neither 4 nor 16 bytes"));
        };
        Ok(Identity { node, inc, bump, address: SocketAddr::new(ip, take.number16()?) })
    }
}

impl foca::Identity for Identity {
    type Addr = NodeId;

    fn renew(&self) -> Option<Identity> {
        Some(Identity { bump: self.bump.checked_add(1)?, ..*self })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    // The address decides last, so that of two there is always one that wins.
    fn win_addr_conflict(&self, adversary: &Identity) -> bool {
        (self.inc, self.bump, self.address) > (adversary.inc, adversary.bump, adversary.address)
    }
}
