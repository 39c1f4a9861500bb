//! Bytes of a datagram into a message. Never panics, whatever they are.

use newtmq_mqtt::QoS;

use super::{Ack, Datagram, Encapsulation, Message, Publish, WillTopic};
use crate::error::ErrorKind;
use crate::types::flag;
use crate::{DecodeError, MessageType, ReturnCode, SnQoS, TopicRef, TopicSpec};

/// A Length of three octets begins with it (5.2.1).
const LONG: u8 = 0x01;
/// Protocol Id (5.3.8).
const PROTOCOL_ID: u8 = 0x01;

pub(super) fn datagram(bytes: &[u8]) -> Result<Datagram<'_>, DecodeError> {
    let mut reader = Reader { whole: bytes, at: 0, end: bytes.len(), message: None };
    let (message_type, end) = reader.header()?;
    if message_type != MessageType::Encapsulated {
        if end < bytes.len() {
            return Err(DecodeError { kind: ErrorKind::Trailing, message: Some(message_type), what: "end", at: end });
        }
        return Ok(Datagram { forwarded: None, message: reader.body(message_type)? });
    }
    reader.end = end;
    let control = reader.u8("Ctrl")?;
    // Reserved bits are not looked at.
    let radius = control & 0x03;
    let node = reader.rest();
    let mut inner = Reader { whole: bytes, at: end, end: bytes.len(), message: None };
    let at = inner.at;
    let (message_type, end) = inner.header()?;
    if message_type == MessageType::Encapsulated {
        return Err(DecodeError { kind: ErrorKind::Nested, message: Some(message_type), what: "MsgType", at });
    }
    if end < bytes.len() {
        return Err(DecodeError { kind: ErrorKind::Trailing, message: Some(message_type), what: "end", at: end });
    }
    let message = inner.body(message_type)?;
    Ok(Datagram { forwarded: Some(Encapsulation { radius, node }), message })
}

/// What is left of a message. Each read names its field, which an error repeats.
struct Reader<'a> {
    whole: &'a [u8],
    at: usize,
    end: usize,
    message: Option<MessageType>,
}

impl<'a> Reader<'a> {
    fn error(&self, kind: ErrorKind, what: &'static str, at: usize) -> DecodeError {
        DecodeError { kind, message: self.message, what, at }
    }

    fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        if self.at >= self.end {
            return Err(self.error(ErrorKind::Truncated, what, self.at));
        }
        self.at += 1;
        Ok(self.whole[self.at - 1])
    }

    fn u16(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        let at = self.at;
        if self.end - self.at < 2 {
            return Err(self.error(ErrorKind::Truncated, what, at));
        }
        self.at += 2;
        Ok(u16::from_be_bytes([self.whole[at], self.whole[at + 1]]))
    }

    fn is_empty(&self) -> bool {
        self.at == self.end
    }

    fn rest(&mut self) -> &'a [u8] {
        let rest = &self.whole[self.at..self.end];
        self.at = self.end;
        rest
    }

    /// What is left, as a text that is not empty.
    fn text(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        let at = self.at;
        let bytes = self.rest();
        if bytes.is_empty() {
            return Err(self.error(ErrorKind::Truncated, what, at));
        }
        match core::str::from_utf8(bytes) {
            Ok(text) if !bytes.contains(&0) => Ok(text),
            Ok(_) | Err(_) => Err(self.error(ErrorKind::Text, what, at)),
        }
    }

    /// Length and MsgType; says where the message ends (5.2).
    fn header(&mut self) -> Result<(MessageType, usize), DecodeError> {
        let start = self.at;
        let short = self.u8("Length")?;
        let len = if short == LONG { usize::from(self.u16("Length")?) } else { usize::from(short) };
        let code_at = self.at;
        let code = self.u8("MsgType")?;
        let Some(message) = MessageType::from_code(code) else {
            return Err(self.error(ErrorKind::UnknownType, "MsgType", code_at));
        };
        self.message = Some(message);
        let end = start + len;
        if end < self.at {
            return Err(self.error(ErrorKind::Length, "Length", start));
        }
        if end > self.end {
            return Err(self.error(ErrorKind::Truncated, "Length", start));
        }
        Ok((message, end))
    }

    /// The fields behind the header, all of them and nothing else.
    fn body(&mut self, message: MessageType) -> Result<Message<'a>, DecodeError> {
        let decoded = self.fields(message)?;
        if self.is_empty() { Ok(decoded) } else { Err(self.error(ErrorKind::Trailing, "end", self.at)) }
    }

    fn fields(&mut self, message: MessageType) -> Result<Message<'a>, DecodeError> {
        Ok(match message {
            MessageType::Advertise => Message::Advertise { gateway: self.u8("GwId")?, duration: self.u16("Duration")? },
            MessageType::SearchGw => Message::SearchGw { radius: self.u8("Radius")? },
            MessageType::GwInfo => Message::GwInfo { gateway: self.u8("GwId")?, address: self.rest() },
            MessageType::Connect => self.connect()?,
            MessageType::Connack => Message::Connack(self.code()?),
            MessageType::WillTopicReq => Message::WillTopicReq,
            MessageType::WillTopic => Message::WillTopic(self.will_topic()?),
            MessageType::WillMsgReq => Message::WillMsgReq,
            MessageType::WillMsg => Message::WillMsg(self.rest()),
            MessageType::Register => {
                // Some clients have 0 for a MsgId there; it only comes back.
                let (topic_id, msg_id) = (self.u16("TopicId")?, self.u16("MsgId")?);
                Message::Register { topic_id, msg_id, topic: self.text("TopicName")? }
            }
            MessageType::Regack => Message::Regack(self.ack()?),
            MessageType::Publish => Message::Publish(self.publish()?),
            MessageType::Puback => Message::Puback(self.ack()?),
            MessageType::Pubrec => Message::Pubrec(self.msg_id()?),
            MessageType::Pubrel => Message::Pubrel(self.msg_id()?),
            MessageType::Pubcomp => Message::Pubcomp(self.msg_id()?),
            MessageType::Subscribe => {
                let at = self.at;
                let flags = self.u8("Flags")?;
                let qos = self.qos(flags, at)?;
                let msg_id = self.msg_id()?;
                Message::Subscribe { dup: flags & flag::DUP != 0, qos, msg_id, topic: self.topic_spec(flags, at)? }
            }
            MessageType::Suback => {
                let at = self.at;
                let flags = self.u8("Flags")?;
                Message::Suback { qos: self.qos(flags, at)?, ack: self.ack()? }
            }
            MessageType::Unsubscribe => {
                let at = self.at;
                let flags = self.u8("Flags")?;
                let msg_id = self.msg_id()?;
                Message::Unsubscribe { msg_id, topic: self.topic_spec(flags, at)? }
            }
            MessageType::Unsuback => Message::Unsuback(self.msg_id()?),
            MessageType::Pingreq if self.is_empty() => Message::Pingreq(None),
            MessageType::Pingreq => Message::Pingreq(Some(self.text("ClientId")?)),
            MessageType::Pingresp => Message::Pingresp,
            MessageType::Disconnect if self.is_empty() => Message::Disconnect(None),
            MessageType::Disconnect => Message::Disconnect(Some(self.u16("Duration")?)),
            MessageType::WillTopicUpd => Message::WillTopicUpd(self.will_topic()?),
            MessageType::WillTopicResp => Message::WillTopicResp(self.code()?),
            MessageType::WillMsgUpd => Message::WillMsgUpd(self.rest()),
            MessageType::WillMsgResp => Message::WillMsgResp(self.code()?),
            MessageType::Encapsulated => return Err(self.error(ErrorKind::Nested, "MsgType", self.at)),
        })
    }

    fn connect(&mut self) -> Result<Message<'a>, DecodeError> {
        let flags = self.u8("Flags")?;
        let at = self.at;
        if self.u8("ProtocolId")? != PROTOCOL_ID {
            return Err(self.error(ErrorKind::ProtocolId, "ProtocolId", at));
        }
        let (will, clean_session) = (flags & flag::WILL != 0, flags & flag::CLEAN_SESSION != 0);
        let duration = self.u16("Duration")?;
        Ok(Message::Connect { will, clean_session, duration, client_id: self.text("ClientId")? })
    }

    fn publish(&mut self) -> Result<Publish<'a>, DecodeError> {
        let at = self.at;
        let flags = self.u8("Flags")?;
        let qos = QoS::from_bits(flags >> flag::QOS_SHIFT & 3).map_or(SnQoS::MinusOne, SnQoS::Mqtt);
        let id = self.u16("TopicId")?;
        let topic = match flags & flag::TOPIC_MASK {
            flag::TOPIC_NORMAL => TopicRef::Normal(id),
            flag::TOPIC_PREDEFINED => TopicRef::Predefined(id),
            flag::TOPIC_SHORT => TopicRef::Short(id.to_be_bytes()),
            _ => return Err(self.error(ErrorKind::Flags, "TopicIdType", at)),
        };
        if qos == SnQoS::MinusOne && matches!(topic, TopicRef::Normal(_)) {
            // 6.8: there is nobody who could have registered it.
            return Err(self.error(ErrorKind::Flags, "QoS -1 with a normal topic id", at));
        }
        let msg_id_at = self.at;
        let mut msg_id = self.u16("MsgId")?;
        match qos {
            // It says nothing there (5.4.12).
            SnQoS::MinusOne | SnQoS::Mqtt(QoS::AtMostOnce) => msg_id = 0,
            SnQoS::Mqtt(QoS::AtLeastOnce | QoS::ExactlyOnce) if msg_id == 0 => {
                return Err(self.error(ErrorKind::MsgId, "MsgId", msg_id_at));
            }
            SnQoS::Mqtt(QoS::AtLeastOnce | QoS::ExactlyOnce) => {}
        }
        let (dup, retain) = (flags & flag::DUP != 0, flags & flag::RETAIN != 0);
        Ok(Publish { dup, qos, retain, topic, msg_id, data: self.rest() })
    }

    fn will_topic(&mut self) -> Result<Option<WillTopic<'a>>, DecodeError> {
        if self.is_empty() {
            return Ok(None);
        }
        let at = self.at;
        let flags = self.u8("Flags")?;
        let qos = self.qos(flags, at)?;
        Ok(Some(WillTopic { qos, retain: flags & flag::RETAIN != 0, topic: self.text("WillTopic")? }))
    }

    fn topic_spec(&mut self, flags: u8, at: usize) -> Result<TopicSpec<'a>, DecodeError> {
        Ok(match flags & flag::TOPIC_MASK {
            flag::TOPIC_NORMAL => TopicSpec::Name(self.text("TopicName")?),
            flag::TOPIC_PREDEFINED => TopicSpec::Predefined(self.u16("TopicId")?),
            flag::TOPIC_SHORT => TopicSpec::Short(self.u16("TopicName")?.to_be_bytes()),
            _ => return Err(self.error(ErrorKind::Flags, "TopicIdType", at)),
        })
    }

    fn qos(&self, flags: u8, at: usize) -> Result<QoS, DecodeError> {
        QoS::from_bits(flags >> flag::QOS_SHIFT & 3).ok_or(self.error(ErrorKind::Flags, "QoS -1", at))
    }

    fn msg_id(&mut self) -> Result<u16, DecodeError> {
        let at = self.at;
        match self.u16("MsgId")? {
            0 => Err(self.error(ErrorKind::MsgId, "MsgId", at)),
            msg_id => Ok(msg_id),
        }
    }

    /// The MsgId of an acknowledgement may be 0: a PUBLISH of QoS 0 can be refused.
    fn ack(&mut self) -> Result<Ack, DecodeError> {
        Ok(Ack { topic_id: self.u16("TopicId")?, msg_id: self.u16("MsgId")?, code: self.code()? })
    }

    fn code(&mut self) -> Result<ReturnCode, DecodeError> {
        self.u8("ReturnCode").map(ReturnCode::from)
    }
}
