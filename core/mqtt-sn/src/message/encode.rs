//! A message into bytes of a datagram.

use newtmq_mqtt::QoS;

use super::{Ack, Datagram, Message, Publish, WillTopic};
use crate::types::{MESSAGE_BYTES_MAX, NODE_ID_BYTES_MAX, flag};
use crate::{EncodeError, MessageType, SnQoS, TopicRef, TopicSpec};

/// The longest message whose Length is one octet.
const SHORT_BYTES_MAX: usize = 255;

pub(super) fn datagram(datagram: &Datagram<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let start = out.len();
    if let Some(forwarded) = &datagram.forwarded {
        if forwarded.node.len() > NODE_ID_BYTES_MAX {
            return Err(EncodeError::NodeIdTooLong);
        }
        let len = (3 + forwarded.node.len()) as u8;
        out.extend_from_slice(&[len, MessageType::Encapsulated.code(), forwarded.radius & 0x03]);
        out.extend_from_slice(forwarded.node);
    }
    message(&datagram.message, out).inspect_err(|_| out.truncate(start))
}

pub(super) fn message(message: &Message<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let start = out.len();
    out.extend_from_slice(&[0, message.message_type().code()]);
    fields(message, out);
    let len = out.len() - start;
    if len <= SHORT_BYTES_MAX {
        out[start] = len as u8;
        return Ok(());
    }
    let len = len + 2;
    if len > MESSAGE_BYTES_MAX {
        out.truncate(start);
        return Err(EncodeError::TooLong);
    }
    let [high, low] = (len as u16).to_be_bytes();
    out.splice(start..=start, [0x01, high, low]);
    Ok(())
}

fn fields(message: &Message<'_>, out: &mut Vec<u8>) {
    match message {
        Message::Advertise { gateway, duration } => {
            out.push(*gateway);
            put(out, *duration);
        }
        Message::SearchGw { radius } => out.push(*radius),
        Message::GwInfo { gateway, address } => {
            out.push(*gateway);
            out.extend_from_slice(address);
        }
        Message::Connect { will, clean_session, duration, client_id } => {
            out.extend_from_slice(&[bit(*will, flag::WILL) | bit(*clean_session, flag::CLEAN_SESSION), 0x01]);
            put(out, *duration);
            out.extend_from_slice(client_id.as_bytes());
        }
        Message::Connack(code) | Message::WillTopicResp(code) | Message::WillMsgResp(code) => out.push(code.code()),
        Message::WillTopicReq | Message::WillMsgReq | Message::Pingresp => {}
        Message::WillTopic(will) | Message::WillTopicUpd(will) => {
            if let Some(will) = will {
                will_topic(will, out);
            }
        }
        Message::WillMsg(data) | Message::WillMsgUpd(data) => out.extend_from_slice(data),
        Message::Register { topic_id, msg_id, topic } => {
            put(out, *topic_id);
            put(out, *msg_id);
            out.extend_from_slice(topic.as_bytes());
        }
        Message::Regack(acked) | Message::Puback(acked) => ack(acked, out),
        Message::Publish(published) => publish(published, out),
        Message::Pubrec(msg_id) | Message::Pubrel(msg_id) | Message::Pubcomp(msg_id) | Message::Unsuback(msg_id) => {
            put(out, *msg_id);
        }
        Message::Subscribe { dup, qos, msg_id, topic } => {
            out.push(bit(*dup, flag::DUP) | qos_bits(*qos) | spec_type(topic));
            put(out, *msg_id);
            spec(topic, out);
        }
        Message::Suback { qos, ack: acked } => {
            out.push(qos_bits(*qos));
            ack(acked, out);
        }
        Message::Unsubscribe { msg_id, topic } => {
            out.push(spec_type(topic));
            put(out, *msg_id);
            spec(topic, out);
        }
        Message::Pingreq(client_id) => out.extend_from_slice(client_id.unwrap_or("").as_bytes()),
        Message::Disconnect(duration) => {
            if let Some(duration) = duration {
                put(out, *duration);
            }
        }
    }
}

fn publish(publish: &Publish<'_>, out: &mut Vec<u8>) {
    let qos = match publish.qos {
        SnQoS::MinusOne => 3 << flag::QOS_SHIFT,
        SnQoS::Mqtt(qos) => qos_bits(qos),
    };
    let topic = match publish.topic {
        TopicRef::Normal(_) => flag::TOPIC_NORMAL,
        TopicRef::Predefined(_) => flag::TOPIC_PREDEFINED,
        TopicRef::Short(_) => flag::TOPIC_SHORT,
    };
    out.push(bit(publish.dup, flag::DUP) | qos | bit(publish.retain, flag::RETAIN) | topic);
    put(out, publish.topic.id());
    put(out, publish.msg_id);
    out.extend_from_slice(publish.data);
}

fn will_topic(will: &WillTopic<'_>, out: &mut Vec<u8>) {
    out.push(qos_bits(will.qos) | bit(will.retain, flag::RETAIN));
    out.extend_from_slice(will.topic.as_bytes());
}

fn ack(ack: &Ack, out: &mut Vec<u8>) {
    put(out, ack.topic_id);
    put(out, ack.msg_id);
    out.push(ack.code.code());
}

const fn spec_type(topic: &TopicSpec<'_>) -> u8 {
    match topic {
        TopicSpec::Name(_) => flag::TOPIC_NORMAL,
        TopicSpec::Predefined(_) => flag::TOPIC_PREDEFINED,
        TopicSpec::Short(_) => flag::TOPIC_SHORT,
    }
}

fn spec(topic: &TopicSpec<'_>, out: &mut Vec<u8>) {
    match topic {
        TopicSpec::Name(name) => out.extend_from_slice(name.as_bytes()),
        TopicSpec::Predefined(id) => put(out, *id),
        TopicSpec::Short(name) => out.extend_from_slice(name),
    }
}

const fn qos_bits(qos: QoS) -> u8 {
    (qos as u8) << flag::QOS_SHIFT
}

const fn bit(on: bool, bit: u8) -> u8 {
    if on { bit } else { 0 }
}

fn put(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}
