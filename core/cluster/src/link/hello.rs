//! Who a node says that it is, how it proves that it belongs to the cluster, and why it may be refused.

use core::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use newtmq_base::{Incarnation, InvalidField, NodeId, Put, Take};
use sha2::Sha256;

/// Bytes of a nonce and of a proof.
pub const NONCE_BYTES: usize = 32;

/// The secret that all nodes of a cluster share. It is never sent, and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Cookie(Vec<u8>);

impl Cookie {
    /// None if it is empty: an empty cookie would let everybody in.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Option<Cookie> {
        let bytes = bytes.into();
        if bytes.is_empty() { None } else { Some(Cookie(bytes)) }
    }

    /// Another secret that who has the cookie has too, and that does not tell the cookie.
    #[must_use]
    pub fn derived(&self, purpose: &str) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(purpose.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookie(..)")
    }
}

/// Which side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It opened the connection.
    Dialer,
    /// It accepted the connection.
    Acceptor,
}

impl Role {
    /// The other side's.
    #[must_use]
    pub fn other(self) -> Role {
        match self {
            Role::Dialer => Role::Acceptor,
            Role::Acceptor => Role::Dialer,
        }
    }
}

/// The first frame of a connection, of each side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The cluster's name.
    pub cluster: String,
    /// The node.
    pub node: NodeId,
    /// Its start.
    pub incarnation: Incarnation,
    /// Its name for people, as `newtmq@host`. Nothing is decided by it.
    pub name: String,
    /// The lowest version of the protocol between nodes that it speaks.
    pub proto_min: u16,
    /// The highest one.
    pub proto_max: u16,
    /// What it can do beyond its version, one bit each.
    pub features: u64,
    /// Its number of shards.
    pub shards: u16,
    /// The term of the meta group that it has seen.
    pub meta_term: u64,
    /// The index in the meta log that it has applied.
    pub meta_index: u64,
    /// It has authenticated the other side by mutual TLS, and no cookie is asked for.
    pub tls: bool,
    /// Fresh random bytes.
    pub nonce: [u8; NONCE_BYTES],
}

impl Hello {
    /// Appends its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Put(out)
            .bytes(MAGIC)
            .text(&self.cluster)
            .number(self.node.0)
            .number(self.incarnation.0)
            .text(&self.name)
            .number(u64::from(self.proto_min))
            .number(u64::from(self.proto_max))
            .number(self.features)
            .number(u64::from(self.shards))
            .number(self.meta_term)
            .number(self.meta_index)
            .flag(self.tls);
        out.extend_from_slice(&self.nonce);
    }

    /// What [`Hello::encode`] wrote. Bytes behind it are those of a later version, and are ignored; the proof covers them.
    ///
    /// # Errors
    /// The bytes are not a Hello.
    pub fn decode(bytes: &[u8]) -> Result<Hello, InvalidField> {
        let mut take = Take(bytes);
        if take.bytes()? != MAGIC {
            return Err(InvalidField("not a node of this kind"));
        }
        Ok(Hello {
            cluster: short(take.text()?)?,
            node: NodeId(take.number()?),
            incarnation: Incarnation(take.number()?),
            name: short(take.text()?)?,
            proto_min: take.number16()?,
            proto_max: take.number16()?,
            features: take.number()?,
            shards: take.number16()?,
            meta_term: take.number()?,
            meta_index: take.number()?,
            tls: take.flag()?,
            nonce: *take.0.first_chunk().ok_or(InvalidField("its end is missing"))?,
        })
    }

    /// The highest version that both speak.
    #[must_use]
    pub fn common_version(&self, other: &Hello) -> Option<u16> {
        let version = self.proto_max.min(other.proto_max);
        (version >= self.proto_min.max(other.proto_min)).then_some(version)
    }
}

/// Why a connection is refused. It is sent, so that both sides can log it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// The names of the clusters differ.
    #[error("the other node belongs to another cluster")]
    WrongCluster,
    /// The proof is not one of the same cookie.
    #[error("the cookies differ")]
    WrongCookie,
    /// The node was removed from the cluster.
    #[error("the node was removed from the cluster")]
    Evicted,
    /// A later start of the same node is known.
    #[error("a later start of the same node is known")]
    LowerIncarnation,
    /// The other side has the own node id: it is the node itself, or a copy of its data directory.
    #[error("both sides are the same node")]
    OwnNode,
    /// No version of the protocol is spoken by both.
    #[error("no version of the protocol is spoken by both")]
    NoCommonVersion,
    /// What came is not of this protocol.
    #[error("what came is not of this protocol")]
    Malformed,
    /// One side relies on mutual TLS, and the other one does not.
    #[error("one side relies on mutual TLS, the other one on the cookie")]
    AuthenticationDiffers,
    /// The handshake took too long.
    #[error("the handshake took too long")]
    Timeout,
    /// There are too many peers, or too many connections without proof.
    #[error("too many connections or peers")]
    Busy,
    /// A reason of a later version.
    #[error("a reason that this version does not know")]
    Unknown,
}

impl Refusal {
    pub(crate) fn code(self) -> u8 {
        match self {
            Refusal::Unknown => 0,
            Refusal::WrongCluster => 1,
            Refusal::WrongCookie => 2,
            Refusal::Evicted => 3,
            Refusal::LowerIncarnation => 4,
            Refusal::OwnNode => 5,
            Refusal::NoCommonVersion => 6,
            Refusal::Malformed => 7,
            Refusal::AuthenticationDiffers => 8,
            Refusal::Timeout => 9,
            Refusal::Busy => 10,
        }
    }

    pub(crate) fn of_code(code: u8) -> Refusal {
        match code {
            1 => Refusal::WrongCluster,
            2 => Refusal::WrongCookie,
            3 => Refusal::Evicted,
            4 => Refusal::LowerIncarnation,
            5 => Refusal::OwnNode,
            6 => Refusal::NoCommonVersion,
            7 => Refusal::Malformed,
            8 => Refusal::AuthenticationDiffers,
            9 => Refusal::Timeout,
            10 => Refusal::Busy,
            _ => Refusal::Unknown,
        }
    }
}

/// The code by which a side proves that it has the cookie: over its role, the generation of its link, its own Hello and the
/// other one's. With the role and the order in it, a proof that is sent back to its maker proves nothing.
pub(crate) fn prove(cookie: &Cookie, prover: Role, generation: u64, own: &[u8], other: &[u8]) -> [u8; NONCE_BYTES] {
    code_of(cookie, prover, generation, own, other).finalize().into_bytes().into()
}

/// Whether `proof` is what [`prove`] gives, in constant time.
pub(crate) fn is_proof(
    cookie: &Cookie,
    proof: &[u8],
    prover: Role,
    generation: u64,
    (provers, verifiers): (&[u8], &[u8]),
) -> bool {
    if newtmq_base::planted!(ReflectedProof)
        && code_of(cookie, prover.other(), generation, verifiers, provers).verify_slice(proof).is_ok()
    {
        return true;
    }
    code_of(cookie, prover, generation, provers, verifiers).verify_slice(proof).is_ok()
}

fn code_of(cookie: &Cookie, prover: Role, generation: u64, own: &[u8], other: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(&cookie.0).expect("HMAC takes keys of any length");
    mac.update(PROOF_DOMAIN);
    mac.update(&[match prover {
        Role::Dialer => 1,
        Role::Acceptor => 2,
    }]);
    mac.update(&generation.to_be_bytes());
    mac.update(&(own.len() as u64).to_be_bytes());
    mac.update(own);
    mac.update(other);
    mac
}

fn short(text: &str) -> Result<String, InvalidField> {
    if text.len() > NAME_BYTES_MAX { Err(InvalidField("a name that is too long")) } else { Ok(text.to_owned()) }
}

const MAGIC: &[u8] = b"newtmq-link";
const PROOF_DOMAIN: &[u8] = b"newtmq link proof 1";
const NAME_BYTES_MAX: usize = 255;
