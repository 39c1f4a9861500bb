//! The behaviours of clients and gateway, each under its name.

pub(crate) mod connecting;
pub(crate) mod messages;
pub(crate) mod sleeping;

use newtmq_mqtt::QoS;
use newtmq_mqtt_sn::{Ack, Message, Publish, ReturnCode, SnQoS, TopicRef, TopicSpec};

use crate::world::{Device, World};

pub(crate) const ACCEPTED: Message<'static> = Message::Connack(ReturnCode::Accepted);

pub(crate) fn connect(id: &str) -> Message<'_> {
    Message::Connect { will: false, clean_session: true, duration: 60, client_id: id }
}

pub(crate) fn resume(id: &str) -> Message<'_> {
    Message::Connect { will: false, clean_session: false, duration: 60, client_id: id }
}

pub(crate) fn ack(topic_id: u16, msg_id: u16) -> Ack {
    Ack { topic_id, msg_id, code: ReturnCode::Accepted }
}

pub(crate) fn nack(topic_id: u16, msg_id: u16, code: ReturnCode) -> Ack {
    Ack { topic_id, msg_id, code }
}

pub(crate) fn publish(topic: TopicRef, qos: QoS, msg_id: u16, data: &[u8]) -> Message<'_> {
    Message::Publish(Publish { dup: false, qos: SnQoS::Mqtt(qos), retain: false, topic, msg_id, data })
}

pub(crate) fn again(message: Message<'_>) -> Message<'_> {
    match message {
        Message::Publish(publish) => Message::Publish(Publish { dup: true, ..publish }),
        other => other,
    }
}

pub(crate) fn subscribe(topic: &str, qos: QoS, msg_id: u16) -> Message<'_> {
    Message::Subscribe { dup: false, qos, msg_id, topic: TopicSpec::Name(topic) }
}

/// Connects a device.
#[track_caller]
pub(crate) fn join(world: &mut World, device: &Device, message: Message<'_>) {
    world.exchange(device, message, &[ACCEPTED]);
}

/// A device subscribes; returns the topic id.
#[track_caller]
pub(crate) fn subscribed(world: &mut World, device: &Device, topic: &str, qos: QoS, msg_id: u16) -> u16 {
    world.send(device, subscribe(topic, qos, msg_id));
    let got = world.take(device);
    assert_eq!(got.len(), 1);
    match newtmq_mqtt_sn::Datagram::decode(&got[0]).unwrap().message {
        Message::Suback { ack, .. } if ack.code == ReturnCode::Accepted && ack.msg_id == msg_id => ack.topic_id,
        other => panic!("{other:?}"),
    }
}
