//! What outlives the process: the broker is killed, its disk is full, its directory is another version's.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, ExitStatus};

use newtmq_mqtt::QoS;
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

use crate::broker::{Broker, NEWTMQ, Process, Scratch, clean, newtmq, wait_until};
use crate::client::{Client, connect, publish};

#[path = "../kill_loop/world.rs"]
#[allow(dead_code, reason = "the program uses more of it")]
mod world;

/// Restarted with the same arguments it is the same broker.
fn start(scratch: &Scratch, sets: &[&str]) -> Broker {
    Broker::of(newtmq(), sets, &["--data", &scratch.file("data")])
}

/// A client with a session that outlives its connection.
fn durable(broker: &Broker, id: &str) -> (Client, bool) {
    let mut client = Client::open(broker);
    let newtmq_mqtt::Packet::Connect(mut packet) = connect(id, None) else { unreachable!("it is a CONNECT") };
    packet.clean_start = false;
    packet.properties.session_expiry_interval = 3600;
    client.send(&newtmq_mqtt::Packet::Connect(packet));
    let present = client.receive(|packet| match packet {
        newtmq_mqtt::Packet::Connack(connack) => connack.session_present,
        other => panic!("{other:?}"),
    });
    (client, present)
}

fn data(arguments: &[&str]) -> (ExitStatus, String, String) {
    let mut command = newtmq();
    command.arg("data").args(arguments);
    let mut process = Process::start(command);
    let status = process.wait();
    (status, process.stdout.to_end(), process.stderr.to_end())
}

fn whole(directory: &str) -> serde_json::Value {
    let (status, out, error) = data(&["verify", directory, "--json"]);
    assert_eq!(status.code(), Some(0), "{out}{error}");
    serde_json::from_str(&out).unwrap()
}

fn kill_loop(name: &str, rounds: u64, shards: u16, exactly_once: u32) {
    let scratch = Scratch::new(name);
    let data = scratch.path().join("data");
    let newtmq = NEWTMQ.into();
    let outcome = world::Loop { newtmq, data: data.clone(), rounds, seed: 1, shards, exactly_once, told: false }.run();
    assert!(outcome.wrong.is_empty(), "{outcome}");
    assert!(outcome.owed > 100 && outcome.present > rounds, "{outcome}");
    let log = fs::read_to_string(world::log_of(&data)).unwrap();
    assert!(!log.contains("ERROR") && !log.contains("missing") && !log.contains("damaged"), "{log}");
}

#[test]
fn killed_under_load_it_loses_nothing_and_delivers_nothing_twice() {
    kill_loop("kill-one", 4, 1, 2);
}

#[test]
fn killed_under_load_with_several_shards_it_loses_nothing() {
    kill_loop("kill-two", 4, 2, 0);
}

#[test]
fn killed_under_load_with_several_shards_it_loses_nothing_with_qos_2() {
    kill_loop("kill-two-qos-2", 6, 2, 3);
}

#[test]
fn sessions_messages_and_retained_messages_are_there_after_a_kill() {
    let scratch = Scratch::new("after-kill");
    let broker = start(&scratch, &[]);
    assert_eq!(broker.started["storage"]["sessions"], 0);
    let (mut subscriber, present) = durable(&broker, "subscriber");
    assert!(!present);
    subscriber.subscribe("t/#", QoS::AtLeastOnce);
    subscriber.reset();
    let mut publisher = Client::connect(&broker, "publisher");
    publisher.publish("t/1", b"one", QoS::AtLeastOnce);
    publisher.publish("t/2", b"two", QoS::AtLeastOnce);
    drop(broker);

    let broker = start(&scratch, &[]);
    assert_eq!((&broker.started["storage"]["sessions"], &broker.started["incarnation"]), (&1.into(), &2.into()));
    let (mut subscriber, present) = durable(&broker, "subscriber");
    assert!(present);
    assert_eq!([subscriber.message().payload, subscriber.message().payload], [b"one", b"two"]);
    broker.stays_well();
    assert_eq!(whole(&scratch.file("data"))["whole"], true);
}

#[test]
fn a_stop_in_order_writes_and_syncs_everything() {
    let scratch = Scratch::new("stop-stored");
    let mut broker = start(&scratch, &["zone.external.durability=none"]);
    let (mut subscriber, _) = durable(&broker, "subscriber");
    subscriber.subscribe("t", QoS::AtLeastOnce);
    broker.process.signal(Signal::TERM);
    assert_eq!(broker.process.wait().code(), Some(0));
    broker.process.stderr.wait_for("the end of the store", |line| line.contains("the store is closed"));
    let told = whole(&scratch.file("data"));
    assert_eq!((&told["sessions"], &told["torn"]), (&1.into(), &serde_json::Value::Null));
}

#[test]
fn without_a_data_directory_nothing_can_be_stored() {
    let broker = Broker::start(&[]);
    assert_eq!(broker.started["storage"], "memory");
    for durability in ["none", "group", "always"] {
        let mut command = newtmq();
        command.args(["run", "--set", &format!("zone.external.durability={durability}")]);
        let mut process = Process::start(command);
        assert_eq!(process.wait().code(), Some(2));
        let told = process.stderr.to_end();
        assert!(told.contains("zone.external.durability: it needs `--data DIR`"), "{told}");
    }
}

#[test]
fn memory_with_a_data_directory_stores_nothing() {
    let scratch = Scratch::new("memory");
    let sets = ["zone.external.durability=memory", "zone.internal.durability=memory"];
    let broker = start(&scratch, &sets);
    assert_eq!(broker.started["storage"], "memory");
    assert!(!scratch.path().join("data/store").exists());
}

#[test]
fn a_zone_says_what_begins_to_be_stored_and_a_stored_session_stays_so() {
    let scratch = Scratch::new("zones");
    let sets = ["listener.tcp.memory.bind=127.0.0.1:0", "listener.tcp.memory.zone=m", "zone.m.durability=memory"];
    let mut broker = start(&scratch, &sets);
    let (mut stored, _) = durable(&broker, "stored");
    stored.subscribe("t", QoS::AtLeastOnce);
    stored.reset();
    broker.address = broker.address_of("mqtt", "memory");
    let (mut forgotten, _) = durable(&broker, "forgotten");
    forgotten.subscribe("t", QoS::AtLeastOnce);
    forgotten.reset();
    let (mut stored, present) = durable(&broker, "stored");
    assert!(present);
    stored.subscribe("u", QoS::AtLeastOnce);
    stored.reset();
    // From a client of the zone that stores nothing.
    let mut publisher = Client::connect(&broker, "publisher");
    publisher.publish("t", b"one", QoS::AtLeastOnce);
    publisher.publish("u", b"two", QoS::AtLeastOnce);
    drop(broker);
    let broker = start(&scratch, &sets);
    assert_eq!(broker.started["storage"]["sessions"], 1);
    let (mut stored, present) = durable(&broker, "stored");
    assert!(present && !durable(&broker, "forgotten").1);
    assert_eq!([stored.message().payload, stored.message().payload], [b"one", b"two"]);
    broker.stays_well();
}

/// What is in a directory, to see that nothing has changed.
fn content(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(content(&path));
        } else if path.is_file() {
            all.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    all.sort();
    all
}

fn refused(scratch: &Scratch) -> String {
    let mut command = newtmq();
    command.args(["run", "--json", "--set", "listener.tcp.external.bind=127.0.0.1:0", "--data", &scratch.file("data")]);
    let mut process = Process::start(command);
    assert_eq!(process.wait().code(), Some(1));
    assert_eq!(process.stdout.to_end(), "");
    process.stderr.to_end()
}

#[test]
fn what_a_newer_or_a_very_old_version_stored_is_refused_and_not_touched() {
    let newer = "has format 2, and this version reads up to 1";
    for (file, bytes, why) in [
        ("FORMAT", b"format = 2\n".to_vec(), newer),
        ("00000000000000ff.wal", newer_segment(), newer),
        ("FORMAT", b"format = 0\n".to_vec(), "format 0 is too old"),
        ("FORMAT", b"?".to_vec(), "it does not say a format"),
    ] {
        let scratch = Scratch::new("newer");
        drop(start(&scratch, &[]));
        fs::write(scratch.path().join("data/store").join(file), bytes).unwrap();
        let before = content(scratch.path());
        let told = refused(&scratch);
        assert!(told.contains(why) && told.contains("Nothing was changed"), "{told}");
        assert_eq!(content(scratch.path()), before);
        for command in ["info", "repair"] {
            let (status, _, told) = data(&[command, &scratch.file("data")]);
            assert!(status.code() == Some(1) && told.contains(why), "{told}");
        }
        // Nor the lock's file, and everything else.
        assert_eq!(content(scratch.path()), before);
    }
}

/// The head of a segment of format 2.
fn newer_segment() -> Vec<u8> {
    let mut head = b"NEWTWAL\n\x02\0\0\0\xff\0\0\0\0\0\0\0".to_vec();
    let crc = crc32c::crc32c(&head);
    head.extend(crc.to_le_bytes());
    head
}

#[test]
fn two_brokers_on_one_directory_are_one_too_many() {
    let scratch = Scratch::new("two");
    let broker = start(&scratch, &[]);
    assert!(refused(&scratch).contains("another broker is using this data directory"));
    let (status, _, told) = data(&["repair", &scratch.file("data")]);
    assert!(status.code() == Some(1) && told.contains("another broker"), "{told}");
    broker.stays_well();
}

#[test]
fn a_directory_that_cannot_be_written_is_told() {
    let scratch = Scratch::new("unwritable");
    fs::write(scratch.path().join("file"), "").unwrap();
    let mut command = newtmq();
    command.args(["run", "--data", &scratch.file("file/data")]);
    let mut process = Process::start(command);
    assert_eq!(process.wait().code(), Some(1));
    assert!(process.stderr.to_end().contains("cannot create the data directory"));
    // The store's folder has a file in its place: also for root.
    drop(start(&scratch, &[]));
    fs::remove_dir_all(scratch.path().join("data/store")).unwrap();
    fs::write(scratch.path().join("data/store"), "").unwrap();
    assert!(refused(&scratch).contains("cannot create "));
}

fn is_readable(client: &Client) -> bool {
    client.stream.set_nonblocking(true).unwrap();
    let readable = client.stream.peek(&mut [0]).is_ok();
    client.stream.set_nonblocking(false).unwrap();
    readable
}

/// A broker whose files may not grow beyond a limit, which looks like a full disk to it.
fn limited(scratch: &Scratch, kilobytes: u32) -> Broker {
    let mut command = clean(Command::new("sh"));
    // The signal would end it; without it a write fails.
    let script = format!("trap '' XFSZ; ulimit -S -f {}; exec \"$0\" \"$@\"", kilobytes * 2);
    command.args(["-c", &script, NEWTMQ]);
    Broker::of(command, &[], &["--data", &scratch.file("data")])
}

#[test]
fn a_full_disk_refuses_what_has_to_be_stored_until_there_is_space() {
    let scratch = Scratch::new("full");
    let broker = limited(&scratch, 64);
    let (mut subscriber, _) = durable(&broker, "subscriber");
    subscriber.subscribe("t", QoS::AtLeastOnce);
    subscriber.reset();
    let mut publisher = Client::connect(&broker, "publisher");
    let payload = vec![b'x'; 8 << 10];
    let mut acknowledged = 0;
    // One of them waits for space; its connection hears nothing until there is some.
    while !broker.process.stderr.text().contains("the disk is full") {
        assert!(acknowledged < 20);
        publisher.send(&publish("t", &payload, QoS::AtLeastOnce));
        let full = || broker.process.stderr.text().contains("the disk is full").then_some(false);
        let answered = || is_readable(&publisher).then_some(true);
        if wait_until("an answer, or a full disk", || answered().or_else(full)) {
            publisher.receive(|packet| assert!(matches!(packet, newtmq_mqtt::Packet::Puback(_)), "{packet:?}"));
            acknowledged += 1;
        }
    }
    assert!(acknowledged > 2);
    let mut other = Client::connect(&broker, "other");
    other.send(&publish("t", b"more", QoS::AtLeastOnce));
    other.receive(|packet| match packet {
        newtmq_mqtt::Packet::Puback(ack) => assert_eq!(ack.reason_code, newtmq_mqtt::ReasonCode::QuotaExceeded),
        other => panic!("{other:?}"),
    });
    // The rest goes on.
    other.ping();
    // There is space again.
    let pid = Pid::from_raw(broker.process.id().cast_signed());
    prlimit(pid, Resource::Fsize, Rlimit { current: None, maximum: None }).unwrap();
    publisher.receive(|packet| assert!(matches!(packet, newtmq_mqtt::Packet::Puback(_)), "{packet:?}"));
    broker.process.stderr.wait_for("the end of it", |line| line.contains("the disk has space again"));
    other.publish("t", b"more", QoS::AtLeastOnce);
    drop(broker);
    let broker = start(&scratch, &[]);
    let (mut subscriber, present) = durable(&broker, "subscriber");
    assert!(present);
    for _ in 0..=acknowledged {
        assert_eq!(subscriber.message().payload, payload);
    }
    assert_eq!(subscriber.message().payload, b"more");
    broker.stays_well();
}

/// A file system of its own, small, in memory. Gone at the end.
struct Mount(String);

impl Mount {
    /// None, with a word why, where this user may not mount anything.
    fn new(scratch: &Scratch, options: &str) -> Option<Mount> {
        let at = scratch.file("mount");
        fs::create_dir_all(&at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "newtmq-test", &at]).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: nobody may mount a file system here");
            return None;
        }
        Some(Mount(at))
    }

    fn remount(&self, options: &str) {
        let status = Command::new("mount").args(["-o", &format!("remount,{options}"), &self.0]).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", &self.0]).status();
    }
}

/// The next packet that a client gets which speaks MQTT 3.1.1.
fn bytes(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    let mut packet = head.to_vec();
    packet.resize(2 + usize::from(head[1]), 0);
    stream.read_exact(&mut packet[2..]).unwrap();
    packet
}

#[test]
fn a_full_file_system_stops_what_is_stored_and_nothing_else() {
    let scratch = Scratch::new("full-mount");
    let Some(mount) = Mount::new(&scratch, "size=256k") else { return };
    let sets = ["store.segment_size=64KB", "store.log_size_min=128KB", "broker.sys_interval=1s"];
    let directory = format!("{}/data", mount.0);
    let broker = Broker::of(newtmq(), &sets, &["--data", &directory]);
    let (mut subscriber, _) = durable(&broker, "subscriber");
    subscriber.subscribe("t", QoS::AtLeastOnce);
    subscriber.reset();
    let mut publisher = Client::connect(&broker, "publisher");
    let payload = vec![b'x'; 8 << 10];
    publisher.publish("t", &payload, QoS::AtLeastOnce);
    // Others fill it: what is left is not enough for the next one.
    let space = rustix::fs::statvfs(mount.0.as_str()).unwrap();
    let ballast = format!("{}/ballast", mount.0);
    fs::write(&ballast, vec![0; (space.f_bavail * space.f_bsize) as usize]).unwrap();
    publisher.send(&publish("t", &payload, QoS::AtLeastOnce));
    broker.process.stderr.wait_for("the full disk", |line| line.contains("the disk is full"));

    // What came before the shards had heard of it waits for space like the one above.
    let mut system = Client::connect(&broker, "system");
    system.subscribe("$SYS/brokers/+/store", QoS::AtMostOnce);
    while system.message().payload != b"full" {}
    let mut other = Client::connect(&broker, "other");
    let mut refused = |retain: bool, topic| {
        let newtmq_mqtt::Packet::Publish(mut packet) = publish(topic, b"", QoS::AtLeastOnce) else { unreachable!() };
        (packet.retain, packet.payload) = (retain, b"more");
        other.send(&newtmq_mqtt::Packet::Publish(packet));
        other.receive(|packet| match packet {
            newtmq_mqtt::Packet::Puback(ack) => ack.reason_code == newtmq_mqtt::ReasonCode::QuotaExceeded,
            other => panic!("{other:?}"),
        })
    };
    assert!(refused(false, "t") && refused(true, "retained"));
    // Nobody's session has to be stored for this.
    assert!(!refused(false, "live"));
    // Before MQTT 5 there is no way to refuse: it is not acknowledged, nor anything behind it.
    let mut old = TcpStream::connect(broker.address).unwrap();
    old.write_all(b"\x10\x0f\0\x04MQTT\x04\x02\0\0\0\x03old").unwrap();
    assert_eq!(bytes(&mut old), b"\x20\x02\0\0");
    old.write_all(b"\x32\x06\0\x01t\0\x09!\xc0\0").unwrap();
    while system.message().payload != b"full" {}
    old.set_nonblocking(true).unwrap();
    assert!(old.peek(&mut [0]).is_err());
    old.set_nonblocking(false).unwrap();
    // Another store cannot be made now.
    let full = format!("{}/another", mount.0);
    let mut command = newtmq();
    command.args(["run", "--set", "listener.tcp.external.bind=127.0.0.1:0", "--data", &full]);
    assert_eq!(Process::start(command).wait().code(), Some(1));

    fs::remove_file(&ballast).unwrap();
    publisher.receive(|packet| assert!(matches!(packet, newtmq_mqtt::Packet::Puback(_)), "{packet:?}"));
    assert_eq!((bytes(&mut old), bytes(&mut old)), (b"\x40\x02\0\x09".to_vec(), b"\xd0\0".to_vec()));
    broker.process.stderr.wait_for("the end of it", |line| line.contains("the disk has space again"));
    while system.message().payload != b"open" {}
    other.publish("t", b"last", QoS::AtLeastOnce);
    drop(broker);
    let broker = Broker::of(newtmq(), &sets, &["--data", &directory]);
    let (mut subscriber, present) = durable(&broker, "subscriber");
    assert!(present);
    for expected in [&payload[..], &payload, b"!", b"last"] {
        assert_eq!(subscriber.message().payload, expected);
    }
    broker.stays_well();
    drop(mount);
}

#[test]
fn a_file_system_that_may_only_be_read_is_told() {
    let scratch = Scratch::new("read-only");
    let Some(mount) = Mount::new(&scratch, "size=1m") else { return };
    let directory = format!("{}/data", mount.0);
    drop(Broker::of(newtmq(), &[], &["--data", &directory]));
    mount.remount("ro");
    let before = content(scratch.path());
    let mut command = newtmq();
    command.args(["run", "--set", "listener.tcp.external.bind=127.0.0.1:0", "--data", &directory]);
    let mut process = Process::start(command);
    assert_eq!(process.wait().code(), Some(1));
    let told = process.stderr.to_end();
    assert!(told.contains("Read-only file system") && told.contains(&directory), "{told}");
    assert_eq!(content(scratch.path()), before);
    drop(mount);
}

#[test]
fn a_torn_end_is_cut_off_and_damage_is_put_aside() {
    let scratch = Scratch::new("torn");
    let broker = start(&scratch, &[]);
    let (mut subscriber, _) = durable(&broker, "subscriber");
    subscriber.subscribe("t", QoS::AtLeastOnce);
    drop(broker);
    let segment = scratch.path().join("data/store/0000000000000001.wal");
    let sound = fs::read(&segment).unwrap();
    fs::write(&segment, [&sound[..], b"half of a frame"].concat()).unwrap();
    assert_eq!(whole(&scratch.file("data"))["torn"]["bytes"], 15);
    let broker = start(&scratch, &[]);
    broker.process.stderr.wait_for("the torn end", |line| line.contains("the end of the log was torn"));
    let (_, present) = durable(&broker, "subscriber");
    assert!(present);
    drop(broker);
    // In a segment that has a later one every byte was durable.
    let mut rotten = fs::read(&segment).unwrap();
    rotten[40] ^= 1;
    fs::write(&segment, &rotten).unwrap();
    let (status, out, _) = data(&["verify", &scratch.file("data")]);
    assert_eq!(status.code(), Some(4), "{out}");
    assert!(out.contains("damaged"), "{out}");
    let (status, out, _) = data(&["repair", &scratch.file("data"), "--json"]);
    assert_eq!(status.code(), Some(4), "{out}");
    assert_eq!(fs::read(segment.with_extension("wal.damaged")).unwrap(), rotten);
    let (_, out, _) = data(&["info", &scratch.file("data"), "--json"]);
    assert!(out.contains("\"put_aside\":[\"0000000000000001.wal.damaged\"]"), "{out}");
    start(&scratch, &[]).stays_well();
}

#[test]
fn a_backup_of_a_running_broker_and_an_export_start_another_one() {
    let scratch = Scratch::new("backup");
    let broker = start(&scratch, &[]);
    let (mut subscriber, _) = durable(&broker, "subscriber");
    subscriber.subscribe("t", QoS::AtLeastOnce);
    subscriber.reset();
    let mut publisher = Client::connect(&broker, "publisher");
    publisher.publish("t", b"kept", QoS::AtLeastOnce);
    let directory = scratch.file("data");
    assert_eq!(data(&["backup", &directory, &scratch.file("copy")]).0.code(), Some(0));
    assert_eq!(data(&["backup", &directory, &scratch.file("copy")]).0.code(), Some(1), "it is there already");
    assert_eq!(data(&["export", &directory, "--output", &scratch.file("lines")]).0.code(), Some(0));
    let (status, _, told) = data(&["import", &scratch.file("imported"), "--input", &scratch.file("lines")]);
    assert_eq!(status.code(), Some(0), "{told}");
    drop(broker);
    for folder in ["copy", "imported"] {
        let again = Scratch::new(&format!("backup-{folder}"));
        fs::rename(scratch.path().join(folder), again.path().join("data")).unwrap();
        let broker = start(&again, &[]);
        let (mut subscriber, present) = durable(&broker, "subscriber");
        assert!(present, "{folder}");
        assert_eq!(subscriber.message().payload, b"kept");
        broker.stays_well();
    }
}
