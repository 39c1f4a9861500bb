//! A run that nobody ran: a small plant with sensors, a dashboard, an archive and a phone that comes and goes, and one
//! message that the phone never gets. For tests of what people see, and for the page that the browser test opens.

use std::sync::Arc;
use std::time::Duration;

use newtmq_base::Instant;
use newtmq_mqtt::{ProtocolVersion, QoS, ReasonCode, RetainHandling};
use newtmq_sim::draw::Stream;
use newtmq_sim::history::{
    AckKind, ClientIx, Closer, ConnIx, ConnectFacts, Event, Fault, FilterFacts, History, NameIx, Names, NodeIx,
    PublishFacts, ReceiveFacts, Stamped, Uid,
};
use newtmq_sim::report::{Obligations, Violation, Witness};
use newtmq_sim::scenario::ClientSpec;
use newtmq_sim::{Check, Report, Scenario};

/// How big the run is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Sensors, each with its own topic.
    pub(crate) sensors: u32,
    /// Simulated seconds.
    pub(crate) seconds: u64,
    /// Milliseconds between two messages of a sensor.
    pub(crate) every_ms: u64,
}

/// The run with two sensors and twenty seconds.
pub(crate) const SMALL: Size = Size { sensors: 2, seconds: 20, every_ms: 700 };

struct World {
    names: Names,
    events: Vec<Stamped>,
    chance: Stream,
    conns: u32,
    pids: u16,
}

impl World {
    fn at(&mut self, nanos: u64, event: Event) {
        self.events.push(Stamped { at: Instant::from_nanos(nanos), event });
    }

    fn latency(&mut self) -> u64 {
        self.chance.between(300_000, 4_300_000)
    }

    fn connect(&mut self, at: u64, client: u32, id: &str, clean: bool, present: bool) -> ConnIx {
        let conn = ConnIx(self.conns);
        self.conns += 1;
        let facts = ConnectFacts {
            node: NodeIx(0),
            client_id: self.names.number(id),
            version: ProtocolVersion::V5,
            sn: None,
            clean,
            expiry_s: (!clean).then_some(300),
            keep_alive_s: 30,
            receive_maximum: 20,
            max_packet_size: None,
            will: None,
        };
        self.at(at, Event::Connect { conn, client: ClientIx(client), facts: Box::new(facts) });
        let (up, down) = (self.latency(), self.latency());
        let sent_at = Instant::from_nanos(at + up);
        let code = ReasonCode::Success;
        self.at(at + up + down, Event::Connack { conn, present, code, expiry_s: None, sent_at });
        conn
    }

    fn subscribe(&mut self, at: u64, conn: ConnIx, filter: &str, qos: QoS) {
        self.pids = self.pids % u16::MAX + 1;
        let pid = self.pids;
        let facts = FilterFacts {
            filter: self.names.number(filter),
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::SendAtSubscribe,
        };
        self.at(at, Event::Subscribe { conn, pid, subscription_id: None, filters: vec![facts] });
        let codes = vec![[ReasonCode::Success, ReasonCode::GrantedQoS1, ReasonCode::GrantedQoS2][qos as usize]];
        let (up, down) = (self.latency(), self.latency());
        self.at(at + up + down, Event::Suback { conn, pid, codes, sent_at: Instant::from_nanos(at + up) });
    }

    /// Returns when the broker has it.
    fn publish(&mut self, at: u64, conn: ConnIx, uid: Uid, topic: NameIx, qos: QoS) -> u64 {
        self.pids = self.pids % u16::MAX + 1;
        let pid = (qos != QoS::AtMostOnce).then_some(self.pids);
        let facts =
            PublishFacts { pid, uid: Some(uid), topic, qos, dup: false, retain: false, expiry_s: None, size: 48 };
        self.at(at, Event::Publish { conn, facts });
        let there = at + self.latency();
        let back = there + 50_000 + self.latency();
        let (sent_at, code) = (Instant::from_nanos(there + 50_000), ReasonCode::Success);
        if qos == QoS::AtLeastOnce {
            self.at(back, Event::Acked { conn, kind: AckKind::Puback, pid: self.pids, code, sent_at });
        } else if qos == QoS::ExactlyOnce {
            let pid = self.pids;
            self.at(back, Event::Acked { conn, kind: AckKind::Pubrec, pid, code, sent_at });
            self.at(back, Event::Release { conn, pid });
            let there = back + self.latency();
            let (sent_at, back) = (Instant::from_nanos(there), there + self.latency());
            self.at(back, Event::Acked { conn, kind: AckKind::Pubcomp, pid, code, sent_at });
        }
        there
    }

    fn deliver(&mut self, sent: u64, conn: ConnIx, uid: Uid, topic: NameIx, qos: QoS, dup: bool) {
        self.pids = self.pids % u16::MAX + 1;
        let pid = (qos != QoS::AtMostOnce).then_some(self.pids);
        let at = sent + self.latency();
        let facts = ReceiveFacts {
            pid,
            uid: Some(uid),
            topic,
            qos,
            dup,
            retain: false,
            expiry_s: None,
            subscription_ids: Vec::new(),
            intact: true,
            size: 48,
            packet_size: 64,
            sent_at: Instant::from_nanos(sent),
        };
        self.at(at, Event::Receive { conn, facts });
        self.at(at, Event::Handed { conn, uid, qos });
        let (pid, code) = (self.pids, ReasonCode::Success);
        if qos == QoS::AtLeastOnce {
            self.at(at, Event::Ack { conn, kind: AckKind::Puback, pid, code });
        } else if qos == QoS::ExactlyOnce {
            self.at(at, Event::Ack { conn, kind: AckKind::Pubrec, pid, code });
            let at = at + self.latency() + self.latency();
            self.at(at, Event::Released { conn, pid });
            self.at(at, Event::Ack { conn, kind: AckKind::Pubcomp, pid, code });
        }
    }
}

/// The run of this size; with `clean` without the loss.
pub(crate) fn sample(size: Size, clean: bool) -> (Scenario, Report) {
    let mut world =
        World { names: Names::default(), events: Vec::new(), chance: Stream::new(7, 0, 0), conns: 0, pids: 0 };
    let scenario = scenario(size);
    let (dashboard, archive, phone) = (size.sensors, size.sensors + 1, size.sensors + 2);
    let end = size.seconds * SECOND;
    let (away, back) = (end * 35 / 100, end * 62 / 100);

    let board = world.connect(100 * MS, dashboard, "dashboard", true, false);
    world.subscribe(120 * MS, board, "plant/+/temperature", QoS::AtLeastOnce);
    let store = world.connect(150 * MS, archive, "archive", false, false);
    world.subscribe(170 * MS, store, "plant/#", QoS::ExactlyOnce);
    let first = world.connect(200 * MS, phone, "phone", false, false);
    world.subscribe(230 * MS, first, "plant/+/temperature", QoS::AtLeastOnce);
    world.at(away, Event::Fault(Fault::Cut { client: ClientIx(phone), to_server: true, to_client: true }));
    world.at(away + 900 * MS, Event::Close { conn: first, by: Closer::Network });
    world.at(back - 400 * MS, Event::Fault(Fault::Heal { client: ClientIx(phone) }));
    let second = world.connect(back, phone, "phone", false, true);
    world.at(end * 22 / 100, Event::Fault(Fault::Freeze { client: ClientIx(0), on: true }));
    world.at(end * 28 / 100, Event::Fault(Fault::Freeze { client: ClientIx(0), on: false }));
    world.at(
        end * 45 / 100,
        Event::Fault(Fault::Pause { node: NodeIx(0), until: Instant::from_nanos(end * 45 / 100 + 600 * MS) }),
    );
    world.at(end * 75 / 100, Event::Fault(Fault::Lag { node: NodeIx(0), shard: 1, by_us: 4_000 }));
    world.at(end * 82 / 100, Event::Fault(Fault::Lag { node: NodeIx(0), shard: 1, by_us: 0 }));

    let lost = traffic(&mut world, size, &Readers { board, store, first, second }, clean);
    world.at(end * 9 / 10, Event::Calm);
    world.at(end, Event::Quiesce);
    world.events.sort_by_key(|stamped| stamped.at);
    let report = report(world, size, phone, [first, second], lost.filter(|_| !clean), [away, back]);
    (scenario, report)
}

struct Readers {
    board: ConnIx,
    store: ConnIx,
    first: ConnIx,
    second: ConnIx,
}

/// Messages of the sensors; returns the one that the phone never gets: which, its topic, when, and when it was taken.
fn traffic(world: &mut World, size: Size, readers: &Readers, clean: bool) -> Option<(Uid, NameIx, u64, u64)> {
    let end = size.seconds * SECOND;
    let (away, back) = (end * 35 / 100, end * 62 / 100);
    let mut lost = None;
    let mut waiting = Vec::new();
    for sensor in 0..size.sensors {
        let conn = world.connect(
            300 * MS + u64::from(sensor) * 11 * MS,
            sensor,
            &format!("sensor-{}", sensor + 1),
            true,
            false,
        );
        let topic = world.names.number(&format!("plant/{}/temperature", sensor + 1));
        let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::AtMostOnce][sensor as usize % 3];
        let mut at = SECOND + u64::from(sensor) * 137 * MS % SECOND;
        let mut number = 0;
        while at < end * 88 / 100 {
            if sensor == 0 && (end * 22 / 100..end * 28 / 100).contains(&at) {
                at += size.every_ms * MS;
                continue;
            }
            number += 1;
            let uid = Uid { publisher: ClientIx(sensor), number };
            let there = world.publish(at, conn, uid, topic, qos);
            let lower = qos.min(QoS::AtLeastOnce);
            let sent = there + world.chance.between(0, 400_000);
            world.deliver(sent, readers.board, uid, topic, lower, false);
            world.deliver(sent + 20_000, readers.store, uid, topic, qos, false);
            if at < away {
                world.deliver(sent + 30_000, readers.first, uid, topic, lower, false);
            } else if at > back + 20 * MS {
                world.deliver(sent + 30_000, readers.second, uid, topic, lower, false);
            } else if sensor == 0 && !clean && lost.is_none() && at > away + 2 * SECOND {
                lost = Some((uid, topic, at, there));
            } else if lower != QoS::AtMostOnce {
                waiting.push((uid, topic));
            }
            at += size.every_ms * MS + world.chance.between(0, size.every_ms * MS / 4);
        }
    }
    for (i, (uid, topic)) in waiting.into_iter().enumerate() {
        world.deliver(back + 12 * MS + i as u64 * 200_000, readers.second, uid, topic, QoS::AtLeastOnce, false);
    }
    lost
}

fn report(
    world: World,
    size: Size,
    phone: u32,
    conns: [ConnIx; 2],
    lost: Option<(Uid, NameIx, u64, u64)>,
    [away, back]: [u64; 2],
) -> Report {
    let World { mut names, events, .. } = world;
    let end = Instant::from_nanos(size.seconds * SECOND);
    let moment = |at: u64, what: &str| (Instant::from_nanos(at), Arc::from(what));
    let violations = lost.map(|(uid, topic, at, there)| Violation {
        check: Check::Lost,
        at: end,
        message: format!(
            "sensor-1#{} on plant/1/temperature was accepted and never came to phone, whose session was there throughout",
            uid.number
        ),
        witness: Witness {
            uid: Some(uid),
            topic: Some(topic),
            filter: Some(names.number("plant/+/temperature")),
            clients: vec![ClientIx(phone), uid.publisher],
            conns: conns.to_vec(),
            moments: vec![
                moment(235 * MS, "phone is subscribed to plant/+/temperature with QoS 1"),
                moment(away + 900 * MS, "phone loses its connection; its session stays"),
                moment(at, "sensor-1 publishes to plant/1/temperature with QoS 1"),
                moment(there + 50_000, "the broker takes ownership with PUBACK"),
                moment(back + 5 * MS, "phone is back, with Session Present 1"),
                (end, Arc::from("the message has not come")),
            ],
        },
    });
    let mut obligations = Obligations::default();
    for (i, check) in Check::ALL.iter().enumerate() {
        obligations.count(*check, [0, 41, 1_204, 96_310][i % 4]);
    }
    Report {
        seed: 7,
        violations: violations.into_iter().collect(),
        more: 0,
        obligations,
        trace_hash: 0x0123_4567_89ab_cdef,
        events: events.len() as u64,
        simulated: Duration::from_secs(size.seconds),
        traffic: newtmq_sim::report::NodeTraffic::default(),
        heals: Vec::new(),
        history: Some(Box::new(History { events, names })),
    }
}

fn scenario(size: Size) -> Scenario {
    let named = |name: String| ClientSpec { id: name.clone(), name, ..ClientSpec::default() };
    let mut clients: Vec<_> = (1..=size.sensors).map(|i| named(format!("sensor-{i}"))).collect();
    clients.extend(["dashboard", "archive", "phone"].map(|name| named(name.into())));
    Scenario {
        why: "A subscriber that comes back gets every message that waited for it".into(),
        seed: 7,
        shards: 2,
        clients,
        ..Scenario::default()
    }
}

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
