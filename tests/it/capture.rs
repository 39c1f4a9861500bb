//! What tshark, which knows MQTT-SN from elsewhere, reads in the datagrams between a device and its gateway.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::process::Command;

use newtmq_mqtt::QoS;
use newtmq_mqtt_sn::{
    Ack, Datagram, Encapsulation, Message, MessageType, Publish, ReturnCode, SnQoS, TopicRef, TopicSpec, WillTopic,
};

use crate::broker::{Broker, DEADLINE, Scratch, clean, newtmq};
use crate::client::Client;

/// All but ADVERTISE, which goes to everybody.
const MESSAGE_TYPES: usize = 26;
/// The gateway's port in the capture, wherever it was.
const GATEWAY: u16 = 1884;
const DEVICE: u16 = 49_152;
/// A predefined topic id. In SUBSCRIBE tshark takes it for text, and has something to say if it is none.
const KNOWN: u16 = u16::from_be_bytes(*b"kn");

/// A device that keeps what goes over its wire: the source port, and the datagram.
struct Wire {
    socket: UdpSocket,
    kept: Vec<(u16, Vec<u8>)>,
}

impl Wire {
    fn send(&mut self, message: Message<'_>) {
        self.send_from(None, message);
    }

    fn send_from(&mut self, forwarded: Option<Encapsulation<'_>>, message: Message<'_>) {
        let mut bytes = Vec::new();
        Datagram { forwarded, message }.encode(&mut bytes).unwrap();
        self.socket.send(&bytes).unwrap();
        self.kept.push((DEVICE, bytes));
    }

    /// The next message has this type; its TopicId and MsgId, if it has one for itself to acknowledge.
    #[track_caller]
    fn hears(&mut self, wanted: MessageType) -> (TopicRef, u16) {
        let mut bytes = [0; 2000];
        let count = self.socket.recv(&mut bytes).unwrap();
        self.kept.push((GATEWAY, bytes[..count].to_vec()));
        let message = Datagram::decode(&bytes[..count]).unwrap().message;
        assert_eq!(message.message_type(), wanted, "{message:?}");
        match message {
            Message::Publish(Publish { topic, msg_id, .. }) => (topic, msg_id),
            Message::Register { topic_id, msg_id, .. } => (TopicRef::Normal(topic_id), msg_id),
            Message::Regack(ack) => (TopicRef::Normal(ack.topic_id), ack.msg_id),
            Message::Pubrel(msg_id) => (TopicRef::Normal(0), msg_id),
            _ => (TopicRef::Normal(0), 0),
        }
    }

    fn asks(&mut self, message: Message<'_>, answer: MessageType) -> TopicRef {
        self.send(message);
        self.hears(answer).0
    }

    fn publishes(&mut self, qos: QoS, topic: TopicRef, msg_id: u16, data: &[u8]) {
        self.send(Message::Publish(Publish { dup: false, qos: SnQoS::Mqtt(qos), retain: false, topic, msg_id, data }));
    }

    /// As a capture of IPv4 packets (LINKTYPE_RAW of libpcap).
    fn capture(&self) -> Vec<u8> {
        let mut file = Vec::new();
        for word in [0xA1B2_C3D4_u32, 0x0004_0002, 0, 0, 65_535, 101] {
            file.extend(word.to_le_bytes());
        }
        for (at, (from, bytes)) in (0_u32..).zip(&self.kept) {
            let to = if *from == GATEWAY { DEVICE } else { GATEWAY };
            let (udp, ip) = (8 + bytes.len() as u16, 28 + bytes.len() as u16);
            for word in [at, 0, u32::from(ip), u32::from(ip)] {
                file.extend(word.to_le_bytes());
            }
            // Version and length, then Total Length; TTL, UDP, and no checksum; addresses.
            file.extend([0x45, 0]);
            file.extend(ip.to_be_bytes());
            file.extend([0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1]);
            for half in [*from, to, udp, 0] {
                file.extend(half.to_be_bytes());
            }
            file.extend(bytes);
        }
        file
    }
}

/// Each kind of message at least once that a device and a gateway say to each other.
fn says_everything(wire: &mut Wire, mqtt: &mut Client) {
    let will = WillTopic { qos: QoS::AtLeastOnce, retain: false, topic: "gone" };
    wire.asks(Message::SearchGw { radius: 0 }, MessageType::GwInfo);
    let connect = Message::Connect { will: true, clean_session: true, duration: 60, client_id: "device" };
    wire.asks(connect, MessageType::WillTopicReq);
    wire.asks(Message::WillTopic(Some(will)), MessageType::WillMsgReq);
    wire.asks(Message::WillMsg(b"it has gone"), MessageType::Connack);
    wire.asks(Message::WillTopicUpd(Some(WillTopic { topic: "away", ..will })), MessageType::WillTopicResp);
    wire.asks(Message::WillMsgUpd(b"it is away"), MessageType::WillMsgResp);

    let up = wire.asks(Message::Register { topic_id: 0, msg_id: 1, topic: "up/topic" }, MessageType::Regack);
    wire.publishes(QoS::AtMostOnce, TopicRef::Short(*b"up"), 0, b"x");
    wire.publishes(QoS::AtLeastOnce, up, 2, &[b'x'; 300]);
    wire.hears(MessageType::Puback);
    wire.publishes(QoS::ExactlyOnce, up, 3, b"");
    wire.hears(MessageType::Pubrec);
    wire.asks(Message::Pubrel(3), MessageType::Pubcomp);

    for (msg_id, topic) in
        [(4, TopicSpec::Name("down/+")), (5, TopicSpec::Short(*b"dn")), (6, TopicSpec::Predefined(KNOWN))]
    {
        wire.asks(Message::Subscribe { dup: false, qos: QoS::ExactlyOnce, msg_id, topic }, MessageType::Suback);
    }
    mqtt.publish("down/1", b"wild", QoS::AtMostOnce);
    let (topic, msg_id) = wire.hears(MessageType::Register);
    let TopicRef::Normal(topic_id) = topic else { panic!("{topic:?}") };
    wire.send(Message::Regack(Ack { topic_id, msg_id, code: ReturnCode::Accepted }));
    wire.hears(MessageType::Publish);
    mqtt.publish("dn", &[b'y'; 300], QoS::AtLeastOnce);
    let (_, msg_id) = wire.hears(MessageType::Publish);
    wire.send(Message::Puback(Ack { topic_id: u16::from_be_bytes(*b"dn"), msg_id, code: ReturnCode::Accepted }));
    mqtt.publish("known", b"", QoS::ExactlyOnce);
    let (_, msg_id) = wire.hears(MessageType::Publish);
    wire.send(Message::Pubrec(msg_id));
    wire.hears(MessageType::Pubrel);
    wire.send(Message::Pubcomp(msg_id));

    wire.asks(Message::Unsubscribe { msg_id: 7, topic: TopicSpec::Name("down/+") }, MessageType::Unsuback);
    wire.asks(Message::Pingreq(None), MessageType::Pingresp);
    wire.asks(Message::Disconnect(Some(60)), MessageType::Disconnect);
    wire.asks(Message::Pingreq(Some("device")), MessageType::Pingresp);
    wire.asks(Message::Disconnect(None), MessageType::Disconnect);
    wire.send_from(
        Some(Encapsulation { radius: 0, node: b"node" }),
        Message::Connect { will: false, clean_session: true, duration: 0, client_id: "behind a forwarder" },
    );
    wire.hears(MessageType::Connack);
}

#[test]
#[ignore = "needs tshark"]
fn tshark_reads_every_datagram() {
    let known = format!("mqtt.sn.predefined.topic.{KNOWN}=known");
    let sets = ["listener.sn.external.bind=127.0.0.1:0", &known];
    let broker = Broker::of(newtmq(), &sets, &[]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(broker.address_of("mqtt-sn", "external")).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut wire = Wire { socket, kept: Vec::new() };
    says_everything(&mut wire, &mut Client::connect(&broker, "mqtt"));

    let scratch = Scratch::new("sn-capture");
    let file = scratch.file("sn.pcap");
    std::fs::write(&file, wire.capture()).unwrap();
    let mut tshark = clean(Command::new("tshark"));
    tshark.args(["-r", &file, "-d", &format!("udp.port=={GATEWAY},mqttsn"), "-T", "fields"]);
    tshark.args(["-e", "mqttsn.msg.type", "-e", "_ws.malformed", "-e", "_ws.expert.message"]);
    let output = tshark.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.lines().count(), wire.kept.len());
    let mut types = BTreeSet::new();
    for (line, (_, bytes)) in said.lines().zip(&wire.kept) {
        let datagram = Datagram::decode(bytes).unwrap();
        let kind = datagram.message.message_type() as u8;
        types.insert(kind);
        // What a forwarder puts in front has a type of its own.
        let kinds = if datagram.forwarded.is_some() { format!("0xfe,{kind:#04x}") } else { format!("{kind:#04x}") };
        assert_eq!(line, format!("{kinds}\t\t"), "{datagram:?}");
    }
    assert_eq!(types.len(), MESSAGE_TYPES);
    broker.stays_well();
}
