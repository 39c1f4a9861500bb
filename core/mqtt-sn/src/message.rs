//! All messages (5.4), and the datagram that carries one, perhaps through a forwarder (5.5).

mod decode;
mod encode;

use newtmq_mqtt::QoS;

use crate::{DecodeError, EncodeError, MessageType, ReturnCode, SnQoS, TopicRef, TopicSpec};

/// A message, decoded or to be encoded. Fields are those of the specification; what borrows does so from the datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// ADVERTISE.
    Advertise {
        /// GwId.
        gateway: u8,
        /// Seconds until the next one.
        duration: u16,
    },
    /// SEARCHGW.
    SearchGw {
        /// Broadcast radius.
        radius: u8,
    },
    /// GWINFO.
    GwInfo {
        /// GwId.
        gateway: u8,
        /// GwAdd: where that gateway is, if not the gateway itself says it; empty for none.
        address: &'a [u8],
    },
    /// CONNECT. Its Protocol Id is 1.
    Connect {
        /// Will: prompt for Will Topic and Will Message.
        will: bool,
        /// CleanSession, which covers the will.
        clean_session: bool,
        /// Keep Alive, in seconds.
        duration: u16,
        /// ClientId; not empty.
        client_id: &'a str,
    },
    /// CONNACK.
    Connack(ReturnCode),
    /// WILLTOPICREQ.
    WillTopicReq,
    /// WILLTOPIC; `None` deletes the will.
    WillTopic(Option<WillTopic<'a>>),
    /// WILLMSGREQ.
    WillMsgReq,
    /// WILLMSG.
    WillMsg(&'a [u8]),
    /// REGISTER.
    Register {
        /// TopicId; 0 from a client.
        topic_id: u16,
        /// MsgId.
        msg_id: u16,
        /// TopicName.
        topic: &'a str,
    },
    /// REGACK.
    Regack(Ack),
    /// PUBLISH.
    Publish(Publish<'a>),
    /// PUBACK.
    Puback(Ack),
    /// PUBREC, with its MsgId.
    Pubrec(u16),
    /// PUBREL, with its MsgId.
    Pubrel(u16),
    /// PUBCOMP, with its MsgId.
    Pubcomp(u16),
    /// SUBSCRIBE.
    Subscribe {
        /// DUP.
        dup: bool,
        /// Requested QoS.
        qos: QoS,
        /// MsgId.
        msg_id: u16,
        /// What to subscribe to.
        topic: TopicSpec<'a>,
    },
    /// SUBACK.
    Suback {
        /// Granted QoS.
        qos: QoS,
        /// TopicId, MsgId and ReturnCode; the TopicId is 0 for a filter with wildcards.
        ack: Ack,
    },
    /// UNSUBSCRIBE.
    Unsubscribe {
        /// MsgId.
        msg_id: u16,
        /// What to unsubscribe from.
        topic: TopicSpec<'a>,
    },
    /// UNSUBACK, with its MsgId.
    Unsuback(u16),
    /// PINGREQ; with a ClientId that of a sleeping client.
    Pingreq(Option<&'a str>),
    /// PINGRESP.
    Pingresp,
    /// DISCONNECT; with a duration in seconds a client goes to sleep.
    Disconnect(Option<u16>),
    /// WILLTOPICUPD; `None` deletes the will.
    WillTopicUpd(Option<WillTopic<'a>>),
    /// WILLTOPICRESP.
    WillTopicResp(ReturnCode),
    /// WILLMSGUPD.
    WillMsgUpd(&'a [u8]),
    /// WILLMSGRESP.
    WillMsgResp(ReturnCode),
}

/// WILLTOPIC and WILLTOPICUPD that do not delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WillTopic<'a> {
    /// Will QoS.
    pub qos: QoS,
    /// Will Retain.
    pub retain: bool,
    /// Will Topic; not empty.
    pub topic: &'a str,
}

/// PUBLISH (5.4.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// DUP: it is sent again.
    pub dup: bool,
    /// QoS.
    pub qos: SnQoS,
    /// Retain.
    pub retain: bool,
    /// The topic.
    pub topic: TopicRef,
    /// MsgId; 0 for QoS 0 and -1, not 0 otherwise.
    pub msg_id: u16,
    /// Data.
    pub data: &'a [u8],
}

/// What REGACK, PUBACK and SUBACK have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ack {
    /// TopicId.
    pub topic_id: u16,
    /// MsgId.
    pub msg_id: u16,
    /// ReturnCode.
    pub code: ReturnCode,
}

impl Message<'_> {
    /// Its type.
    #[must_use]
    pub const fn message_type(&self) -> MessageType {
        match self {
            Message::Advertise { .. } => MessageType::Advertise,
            Message::SearchGw { .. } => MessageType::SearchGw,
            Message::GwInfo { .. } => MessageType::GwInfo,
            Message::Connect { .. } => MessageType::Connect,
            Message::Connack(_) => MessageType::Connack,
            Message::WillTopicReq => MessageType::WillTopicReq,
            Message::WillTopic(_) => MessageType::WillTopic,
            Message::WillMsgReq => MessageType::WillMsgReq,
            Message::WillMsg(_) => MessageType::WillMsg,
            Message::Register { .. } => MessageType::Register,
            Message::Regack(_) => MessageType::Regack,
            Message::Publish(_) => MessageType::Publish,
            Message::Puback(_) => MessageType::Puback,
            Message::Pubrec(_) => MessageType::Pubrec,
            Message::Pubrel(_) => MessageType::Pubrel,
            Message::Pubcomp(_) => MessageType::Pubcomp,
            Message::Subscribe { .. } => MessageType::Subscribe,
            Message::Suback { .. } => MessageType::Suback,
            Message::Unsubscribe { .. } => MessageType::Unsubscribe,
            Message::Unsuback(_) => MessageType::Unsuback,
            Message::Pingreq(_) => MessageType::Pingreq,
            Message::Pingresp => MessageType::Pingresp,
            Message::Disconnect(_) => MessageType::Disconnect,
            Message::WillTopicUpd(_) => MessageType::WillTopicUpd,
            Message::WillTopicResp(_) => MessageType::WillTopicResp,
            Message::WillMsgUpd(_) => MessageType::WillMsgUpd,
            Message::WillMsgResp(_) => MessageType::WillMsgResp,
        }
    }

    /// Appends the message, with the shorter form of its Length. After an error `out` is as it was.
    ///
    /// # Errors
    /// It exceeds [`MESSAGE_BYTES_MAX`](crate::MESSAGE_BYTES_MAX).
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        encode::message(self, out)
    }
}

/// What a forwarder puts in front of a message (5.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encapsulation<'a> {
    /// Broadcast radius, 0 to 3; only from a gateway to a forwarder.
    pub radius: u8,
    /// WirelessNodeId: the node that sent the message, or is to get it; at most
    /// [`NODE_ID_BYTES_MAX`](crate::NODE_ID_BYTES_MAX) bytes.
    pub node: &'a [u8],
}

/// A whole datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// What a forwarder says, if there is one.
    pub forwarded: Option<Encapsulation<'a>>,
    /// The message.
    pub message: Message<'a>,
}

impl<'a> Datagram<'a> {
    /// Decodes a datagram, which holds exactly one message.
    ///
    /// # Errors
    /// What is wrong, in which message, and where.
    pub fn decode(bytes: &'a [u8]) -> Result<Datagram<'a>, DecodeError> {
        decode::datagram(bytes)
    }

    /// Appends the datagram. After an error `out` is as it was.
    ///
    /// # Errors
    /// The message or the WirelessNodeId is too long.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        encode::datagram(self, out)
    }
}
