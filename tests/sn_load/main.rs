//! Load of devices that speak MQTT-SN on a running broker: `sn_load SN MQTT PID CLIENTS SECONDS`, with the addresses of its gateway and
//! of a listener of MQTT, and its process id. Tells what a connected and a sleeping device cost in memory, messages of QoS 0 and 1 to
//! one subscriber by processor time of the broker, and what a flood of strangers costs.
// It says what it expects by failing.
#![allow(clippy::unwrap_used)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use newtmq_mqtt::{
    Connect, ConnectProperties, Decoder, Packet, PacketId, PacketType, ProtocolVersion, QoS, Subscribe,
    SubscribeFilters, SubscribeOptions, TopicFilter, UserProperties,
};
use newtmq_mqtt_sn::{Datagram, Message, Publish, SnQoS, TopicRef};

/// Devices that wait for an answer at a time.
const AT_ONCE: usize = 200;

struct Broker {
    pid: u32,
}

impl Broker {
    /// Processor time so far.
    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }

    /// Memory, in kilobytes.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

fn send(socket: &UdpSocket, message: Message<'_>) {
    let mut bytes = Vec::new();
    message.encode(&mut bytes).unwrap();
    // A full socket loses it; what waits for an answer is sent again.
    let _ = socket.send(&bytes);
}

/// Sends to each of some devices' gateway, and waits for each one's answer.
fn ask_all(sockets: &[UdpSocket], message: impl Fn(usize) -> Vec<u8>) {
    let mut answer = [0; 2000];
    for (chunk, sockets) in sockets.chunks(AT_ONCE).enumerate() {
        for (at, socket) in sockets.iter().enumerate() {
            socket.send(&message(chunk * AT_ONCE + at)).unwrap();
        }
        for (at, socket) in sockets.iter().enumerate() {
            while let Err(_again) = socket.recv(&mut answer) {
                socket.send(&message(chunk * AT_ONCE + at)).unwrap();
            }
        }
    }
}

fn encoded(message: Message<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes).unwrap();
    bytes
}

/// A subscriber that counts, and acknowledges QoS 1.
fn subscriber(to: SocketAddr, filter: &str, qos: QoS) -> Arc<AtomicU64> {
    let mut stream = TcpStream::connect(to).unwrap();
    let connect = Packet::Connect(Connect {
        version: ProtocolVersion::V5,
        clean_start: true,
        keep_alive: 0,
        client_id: "sn-load",
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
    });
    let filters = [(TopicFilter::new(filter).unwrap(), SubscribeOptions::new(qos))];
    let subscribe = Packet::Subscribe(Subscribe {
        packet_id: PacketId::new(1).unwrap(),
        subscription_identifier: None,
        user_properties: UserProperties::default(),
        filters: SubscribeFilters::new(&filters),
    });
    for packet in [connect, subscribe] {
        let mut bytes = Vec::new();
        packet.encode(ProtocolVersion::V5, &mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
    }
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    thread::spawn(move || {
        let (mut decoder, mut buffer, mut answers) = (Decoder::new(), vec![0; 64 << 10], Vec::new());
        while let Ok(read) = stream.read(&mut buffer)
            && read > 0
        {
            let mut data = &buffer[..read];
            while let Ok(Some(frame)) = decoder.next(&mut data, u32::MAX) {
                if let Ok(Packet::Publish(publish)) = frame.decode(ProtocolVersion::V5, newtmq_mqtt::Sender::Server) {
                    counted.fetch_add(1, Ordering::Relaxed);
                    if let Some(id) = publish.packet_id {
                        let success = newtmq_mqtt::ReasonCode::Success;
                        newtmq_mqtt::encode_ack(PacketType::Puback, id, success, ProtocolVersion::V5, &mut answers);
                    }
                }
            }
            stream.write_all(&answers).unwrap();
            answers.clear();
        }
    });
    count
}

fn publish(qos: QoS, msg_id: u16) -> Message<'static> {
    let qos = SnQoS::Mqtt(qos);
    Message::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic: TopicRef::Normal(1),
        msg_id,
        data: b"0123456789abcdef",
    })
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, sn, mqtt, pid, clients, seconds] = &arguments[..] else { panic!("SN MQTT PID CLIENTS SECONDS") };
    let (sn, mqtt): (SocketAddr, SocketAddr) = (sn.parse().unwrap(), mqtt.parse().unwrap());
    let (broker, clients) = (Broker { pid: pid.parse().unwrap() }, clients.parse::<usize>().unwrap());
    let time = Duration::from_secs(seconds.parse().unwrap());
    let sockets: Vec<UdpSocket> = (0..clients).map(|_| socket(sn)).collect();
    let before = broker.memory();
    let connect = |at: usize| {
        let id = format!("device-{at:06}");
        encoded(Message::Connect { will: false, clean_session: false, duration: 3600, client_id: &id })
    };
    ask_all(&sockets, connect);
    thread::sleep(Duration::from_secs(1));
    let per_device = |now: u64| (now - before) as f64 * 1024.0 / clients as f64;
    println!("connected: {:.0} B of memory a device", per_device(broker.memory()));
    ask_all(&sockets, |_| encoded(Message::Register { topic_id: 0, msg_id: 1, topic: "up/all" }));
    println!("with a topic id: {:.0} B", per_device(broker.memory()));
    ask_all(&sockets, |_| encoded(Message::Disconnect(Some(3600))));
    thread::sleep(Duration::from_secs(1));
    println!("asleep with a topic id: {:.0} B", per_device(broker.memory()));
    ask_all(&sockets, connect);
    let count = subscriber(mqtt, "up/#", QoS::AtLeastOnce);
    thread::sleep(Duration::from_millis(500));
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        count.store(0, Ordering::Relaxed);
        let (cpu, start) = (broker.cpu(), Instant::now());
        let (mut sent, mut msg_id) = (0_u64, 1);
        while start.elapsed() < time {
            msg_id = if msg_id == u16::MAX { 1 } else { msg_id + 1 };
            match qos {
                QoS::AtMostOnce => {
                    for (at, socket) in sockets.iter().enumerate() {
                        send(socket, publish(qos, 0));
                        sent += 1;
                        // Not more than the socket of the gateway holds.
                        while at % 64 == 0
                            && sent - count.load(Ordering::Relaxed).min(sent) > 2000
                            && start.elapsed() < time
                        {
                            thread::sleep(Duration::from_micros(50));
                        }
                    }
                }
                QoS::AtLeastOnce | QoS::ExactlyOnce => {
                    ask_all(&sockets, |_| encoded(publish(qos, msg_id)));
                    sent += clients as u64;
                }
            }
        }
        let (wall, used) = (start.elapsed().as_secs_f64(), (broker.cpu() - cpu).as_secs_f64());
        let got = count.load(Ordering::Relaxed);
        println!(
            "{qos:?}: {sent} sent, {got} received, {:.0} a second, {:.0} a second of the broker's processor time",
            got as f64 / wall,
            got as f64 / used
        );
    }
    ask_all(&sockets, |_| encoded(Message::Disconnect(Some(3600))));
    thread::sleep(Duration::from_secs(1));
    println!("asleep after all that: {:.0} B", per_device(broker.memory()));
    flood(&broker, sn, time, &sockets[0]);
}

fn socket(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket
}

/// Strangers send as fast as they can, while a device asks for a sign of life.
fn flood(broker: &Broker, sn: SocketAddr, time: Duration, known: &UdpSocket) {
    let strangers: Vec<UdpSocket> = (0..1000).map(|_| socket(sn)).collect();
    let (memory, cpu, start) = (broker.memory(), broker.cpu(), Instant::now());
    let (mut sent, mut asked, mut answered) = (0_u64, 0, 0);
    known.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    while start.elapsed() < time {
        for (at, stranger) in strangers.iter().enumerate() {
            send(stranger, publish(QoS::AtLeastOnce, at as u16 + 1));
            sent += 1;
        }
        asked += 1;
        send(known, Message::Pingreq(Some("device-000000")));
        let mut answer = [0; 100];
        let known = known.recv(&mut answer).is_ok_and(|count| {
            Datagram::decode(&answer[..count]).is_ok_and(|datagram| datagram.message == Message::Pingresp)
        });
        answered += u64::from(known);
    }
    println!(
        "flood: {:.0} datagrams of strangers a second, {:.0} a second of the broker's processor time, {} kB more memory; a device \
         was answered {answered} of {asked} times",
        sent as f64 / start.elapsed().as_secs_f64(),
        sent as f64 / (broker.cpu() - cpu).as_secs_f64(),
        broker.memory().saturating_sub(memory)
    );
}
