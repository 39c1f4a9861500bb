//! All packets (section 3): which decoder and encoder is whose, and what a side or version may not send.

pub(crate) mod ack;
pub(crate) mod auth;
pub(crate) mod connack;
pub(crate) mod connect;
pub(crate) mod disconnect;
pub(crate) mod publish;
pub(crate) mod suback;
pub(crate) mod subscribe;
pub(crate) mod unsubscribe;

#[cfg(test)]
mod tests;

use core::fmt;

use crate::wire::{Reader, put_varint, varint_len, with_length};
use crate::{
    Ack, Auth, Connack, Connect, DecodeError, Disconnect, EncodeError, Frame, PacketType, ProtocolVersion, Publish,
    Sender, Suback, Subscribe, Unsuback, Unsubscribe,
};

/// A decoded packet, everything in it validated, or one to be encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Connection request.
    Connect(Connect<'a>),
    /// Connect acknowledgment.
    Connack(Connack<'a>),
    /// Publish message.
    Publish(Publish<'a>),
    /// Publish acknowledgment, QoS 1.
    Puback(Ack<'a>),
    /// Publish received, QoS 2 part 1.
    Pubrec(Ack<'a>),
    /// Publish release, QoS 2 part 2.
    Pubrel(Ack<'a>),
    /// Publish complete, QoS 2 part 3.
    Pubcomp(Ack<'a>),
    /// Subscribe request.
    Subscribe(Subscribe<'a>),
    /// Subscribe acknowledgment.
    Suback(Suback<'a>),
    /// Unsubscribe request.
    Unsubscribe(Unsubscribe<'a>),
    /// Unsubscribe acknowledgment.
    Unsuback(Unsuback<'a>),
    /// PING request.
    Pingreq,
    /// PING response.
    Pingresp,
    /// Disconnect notification.
    Disconnect(Disconnect<'a>),
    /// Authentication exchange.
    Auth(Auth<'a>),
}

impl<'a> Packet<'a> {
    /// The packet's type.
    #[must_use]
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Packet::Connect(_) => PacketType::Connect,
            Packet::Connack(_) => PacketType::Connack,
            Packet::Publish(_) => PacketType::Publish,
            Packet::Puback(_) => PacketType::Puback,
            Packet::Pubrec(_) => PacketType::Pubrec,
            Packet::Pubrel(_) => PacketType::Pubrel,
            Packet::Pubcomp(_) => PacketType::Pubcomp,
            Packet::Subscribe(_) => PacketType::Subscribe,
            Packet::Suback(_) => PacketType::Suback,
            Packet::Unsubscribe(_) => PacketType::Unsubscribe,
            Packet::Unsuback(_) => PacketType::Unsuback,
            Packet::Pingreq => PacketType::Pingreq,
            Packet::Pingresp => PacketType::Pingresp,
            Packet::Disconnect(_) => PacketType::Disconnect,
            Packet::Auth(_) => PacketType::Auth,
        }
    }

    pub(crate) fn decode(frame: Frame<'a>, version: ProtocolVersion, sender: Sender) -> Result<Self, DecodeError> {
        let Some(packet_type) = PacketType::from_first_byte(frame.first) else {
            return Err(DecodeError::malformed("control packet type 0"));
        };
        if !may_send(sender, packet_type, version) {
            return Err(DecodeError::protocol("a packet type that this side may not send"));
        }
        frame.check_dup(version)?;
        let body = Reader::new(frame.body);
        Ok(match packet_type {
            PacketType::Connect => Packet::Connect(Connect::decode(body)?),
            PacketType::Connack => Packet::Connack(Connack::decode(body, version)?),
            PacketType::Publish => Packet::Publish(Publish::decode(frame.publish(version)?, version, sender)?),
            PacketType::Puback => Packet::Puback(Ack::decode(packet_type, body, version)?),
            PacketType::Pubrec => Packet::Pubrec(Ack::decode(packet_type, body, version)?),
            PacketType::Pubrel => Packet::Pubrel(Ack::decode(packet_type, body, version)?),
            PacketType::Pubcomp => Packet::Pubcomp(Ack::decode(packet_type, body, version)?),
            PacketType::Subscribe => Packet::Subscribe(Subscribe::decode(body, version)?),
            PacketType::Suback => Packet::Suback(Suback::decode(body, version)?),
            PacketType::Unsubscribe => Packet::Unsubscribe(Unsubscribe::decode(body, version)?),
            PacketType::Unsuback => Packet::Unsuback(Unsuback::decode(body, version)?),
            PacketType::Pingreq => body.end().map(|()| Packet::Pingreq)?,
            PacketType::Pingresp => body.end().map(|()| Packet::Pingresp)?,
            PacketType::Disconnect => Packet::Disconnect(Disconnect::decode(body, version, sender)?),
            PacketType::Auth => Packet::Auth(Auth::decode(body, sender)?),
        })
    }

    /// Appends the packet. What `version` does not know, properties and most reason codes before MQTT 5.0, is left
    /// out; a CONNECT goes by its own version. After an error `out` is as it was.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let start = out.len();
        let encoded = self.encode_body(version, out).and_then(|()| {
            let len = out.len() - start;
            if len > crate::MAX_REMAINING_LENGTH { Err(EncodeError::PacketTooLarge) } else { Ok(len) }
        });
        match encoded {
            Ok(len) => {
                out.push(self.first_byte());
                put_varint(out, len);
                out[start..].rotate_right(1 + varint_len(len));
                Ok(())
            }
            Err(error) => {
                out.truncate(start);
                Err(error)
            }
        }
    }

    const fn first_byte(&self) -> u8 {
        match self {
            Packet::Publish(publish) => publish.first_byte(),
            Packet::Connect(_)
            | Packet::Connack(_)
            | Packet::Puback(_)
            | Packet::Pubrec(_)
            | Packet::Pubrel(_)
            | Packet::Pubcomp(_)
            | Packet::Subscribe(_)
            | Packet::Suback(_)
            | Packet::Unsubscribe(_)
            | Packet::Unsuback(_)
            | Packet::Pingreq
            | Packet::Pingresp
            | Packet::Disconnect(_)
            | Packet::Auth(_) => self.packet_type().first_byte(),
        }
    }

    fn encode_body(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Packet::Connect(connect) => connect.encode(out),
            Packet::Connack(connack) => connack.encode(version, out),
            Packet::Publish(publish) => publish.encode(version, out),
            Packet::Puback(ack) | Packet::Pubrec(ack) | Packet::Pubrel(ack) | Packet::Pubcomp(ack) => {
                ack.encode(version, out)
            }
            Packet::Subscribe(subscribe) => subscribe.encode(version, out),
            Packet::Suback(suback) => suback.encode(version, out),
            Packet::Unsubscribe(unsubscribe) => unsubscribe.encode(version, out),
            Packet::Unsuback(unsuback) => unsuback.encode(version, out),
            Packet::Pingreq | Packet::Pingresp => Ok(()),
            Packet::Disconnect(disconnect) => disconnect.encode(version, out),
            Packet::Auth(auth) => auth.encode(version, out),
        }
    }
}

/// Table 2-1, direction of flow. AUTH and a server's DISCONNECT came with MQTT 5.0.
const fn may_send(sender: Sender, packet_type: PacketType, version: ProtocolVersion) -> bool {
    let v5 = matches!(version, ProtocolVersion::V5);
    let client = matches!(sender, Sender::Client);
    match packet_type {
        PacketType::Connect | PacketType::Subscribe | PacketType::Unsubscribe | PacketType::Pingreq => client,
        PacketType::Connack | PacketType::Suback | PacketType::Unsuback | PacketType::Pingresp => !client,
        PacketType::Publish | PacketType::Puback | PacketType::Pubrec | PacketType::Pubrel | PacketType::Pubcomp => {
            true
        }
        PacketType::Disconnect => client || v5,
        PacketType::Auth => v5,
    }
}

/// The end of a packet that consists of a reason code and properties, both of which may be left out from the end if
/// they say nothing (3.4.2.1 and its like).
fn encode_reason(
    code: crate::ReasonCode,
    out: &mut Vec<u8>,
    properties: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.push(code.code());
    with_length(out, properties)?;
    if out.len() == start + 2 {
        let kept = if code == crate::ReasonCode::Success { 0 } else { 1 };
        out.truncate(start + kept);
    }
    Ok(())
}

/// Shows that a secret is there, not what it is.
struct Redacted<'a>(Option<&'a [u8]>);

impl fmt::Debug for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(secret) => write!(f, "Some({} bytes)", secret.len()),
            None => f.write_str("None"),
        }
    }
}
