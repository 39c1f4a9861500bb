//! The handshake of one connection. The dialer says Hello, the acceptor answers with its own; then the dialer proves first,
//! so that nobody who has not proved anything gets something to guess the cookie from.
//!
//! ```text
//! dialer    Hello ->        Proof ->        Welcome ->
//! acceptor         <- Hello         <- Proof
//! ```
//!
//! Each side may send Refused instead, and that ends it. Only cluster, versions and node id are judged before the proof;
//! what a node knows of the cluster is told to members only.

use newtmq_base::{Incarnation, Instant, InvalidField, NodeId, Rng};

use super::config::Config;
use super::frame::{End, Frame};
use super::hello::{Cookie, Hello, NONCE_BYTES, Refusal, Role, is_proof, prove};

/// What a handshake asks of the node's knowledge of its peers.
pub trait Gate {
    /// The generation of the own end of the link with `node`.
    fn generation(&self, node: NodeId) -> u64;

    /// Whether a node that has proved itself may come in.
    ///
    /// # Errors
    /// It may not, and this is why.
    fn admit(&self, hello: &Hello, end: End) -> Result<(), Refusal>;
}

/// How far a handshake is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// More has to come.
    Wait,
    /// Both have proved themselves, as far as this side can know.
    Done(Accepted),
    /// It is over; this side says why.
    Refuse(Refusal),
    /// It is over; the other side has said why.
    Refused(Refusal),
}

/// Who is at the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// What it said.
    pub hello: Hello,
    /// Its end of the link.
    pub end: End,
    /// The generation of the own end that it was told.
    pub own_generation: u64,
    /// The version that both speak.
    pub version: u16,
}

/// One handshake, of either role.
#[derive(Debug)]
pub struct Handshake {
    role: Role,
    own: Hello,
    own_bytes: Vec<u8>,
    deadline: Instant,
    claimed: Option<(NodeId, Incarnation)>,
    state: State,
}

#[derive(Debug)]
enum State {
    Hello,
    Proof(Other),
    Welcome(Accepted),
    Over,
}

#[derive(Debug)]
struct Other {
    hello: Hello,
    bytes: Vec<u8>,
    version: u16,
    own_generation: Option<u64>,
}

impl Handshake {
    /// Begins. `own.nonce` is drawn here; `own.tls` says that the transport has authenticated the other side.
    /// What is to be sent is appended to `out`.
    pub fn new(
        now: Instant,
        role: Role,
        mut own: Hello,
        config: &Config,
        rng: &mut Rng,
        out: &mut Vec<u8>,
    ) -> Handshake {
        rng.fill(&mut own.nonce);
        let mut own_bytes = Vec::new();
        own.encode(&mut own_bytes);
        if role == Role::Dialer {
            Frame::Hello(&own_bytes).write(out);
        }
        Handshake { role, own, own_bytes, deadline: now + config.handshake_timeout, claimed: None, state: State::Hello }
    }

    /// When it has taken too long.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Who the other side says that it is, proved or not.
    #[must_use]
    pub fn claimed(&self) -> Option<(NodeId, Incarnation)> {
        self.claimed
    }

    /// Time has passed. What is to be sent is appended to `out`.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<u8>) -> Step {
        if now < self.deadline || matches!(self.state, State::Over) {
            return Step::Wait;
        }
        self.refuse(Refusal::Timeout, out)
    }

    /// Ends it for a reason of this side.
    pub fn refuse(&mut self, reason: Refusal, out: &mut Vec<u8>) -> Step {
        self.state = State::Over;
        Frame::Refused(reason).write(out);
        Step::Refuse(reason)
    }

    /// A frame came (without its length). What is to be sent is appended to `out`.
    pub fn receive(&mut self, frame: &[u8], cookie: &Cookie, gate: &dyn Gate, out: &mut Vec<u8>) -> Step {
        let result = match (Frame::decode(frame), core::mem::replace(&mut self.state, State::Over)) {
            (Ok(Frame::Refused(reason)), _) => return Step::Refused(reason),
            (Ok(Frame::Hello(bytes)), State::Hello) => self.hello(bytes, cookie, gate, out),
            (Ok(Frame::Proof { proof, generation }), State::Proof(other)) => {
                self.proof(proof, generation, other, cookie, gate, out)
            }
            (Ok(Frame::Welcome), State::Welcome(accepted)) => Ok(Step::Done(accepted)),
            (Ok(_) | Err(InvalidField(_)), _) => Err(Refusal::Malformed),
        };
        result.unwrap_or_else(|reason| self.refuse(reason, out))
    }

    fn hello(&mut self, bytes: &[u8], cookie: &Cookie, gate: &dyn Gate, out: &mut Vec<u8>) -> Result<Step, Refusal> {
        let hello = Hello::decode(bytes).map_err(|_| Refusal::Malformed)?;
        self.claimed = Some((hello.node, hello.incarnation));
        let version = self.own.common_version(&hello).ok_or(Refusal::NoCommonVersion)?;
        if hello.cluster != self.own.cluster {
            return Err(Refusal::WrongCluster);
        }
        if hello.node == self.own.node {
            return Err(Refusal::OwnNode);
        }
        if hello.tls != self.own.tls {
            return Err(Refusal::AuthenticationDiffers);
        }
        let mut other = Other { hello, bytes: bytes.to_vec(), version, own_generation: None };
        match self.role {
            Role::Dialer => self.send_proof(&mut other, cookie, gate, out),
            Role::Acceptor => Frame::Hello(&self.own_bytes).write(out),
        }
        self.state = State::Proof(other);
        Ok(Step::Wait)
    }

    fn proof(
        &mut self,
        proof: &[u8],
        generation: u64,
        mut other: Other,
        cookie: &Cookie,
        gate: &dyn Gate,
        out: &mut Vec<u8>,
    ) -> Result<Step, Refusal> {
        // With mutual TLS both sides have said so, and the proof is empty.
        let proved = if self.own.tls {
            proof.is_empty()
        } else {
            is_proof(cookie, proof, self.role.other(), generation, (&other.bytes, &self.own_bytes))
        };
        if !proved {
            return Err(Refusal::WrongCookie);
        }
        let end = End { incarnation: other.hello.incarnation, generation };
        gate.admit(&other.hello, end)?;
        if self.role == Role::Acceptor {
            self.send_proof(&mut other, cookie, gate, out);
        }
        let own_generation = other.own_generation.expect("each side sends its proof before it is done");
        let accepted = Accepted { hello: other.hello, end, own_generation, version: other.version };
        match self.role {
            Role::Dialer => {
                Frame::Welcome.write(out);
                Ok(Step::Done(accepted))
            }
            Role::Acceptor => {
                self.state = State::Welcome(accepted);
                Ok(Step::Wait)
            }
        }
    }

    fn send_proof(&self, other: &mut Other, cookie: &Cookie, gate: &dyn Gate, out: &mut Vec<u8>) {
        let generation = gate.generation(other.hello.node);
        other.own_generation = Some(generation);
        let proof: [u8; NONCE_BYTES];
        let proof: &[u8] = if self.own.tls {
            &[]
        } else {
            proof = prove(cookie, self.role, generation, &self.own_bytes, &other.bytes);
            &proof
        };
        Frame::Proof { proof, generation }.write(out);
    }
}
