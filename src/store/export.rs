//! Sessions and retained messages as lines of JSON, and back. Payloads are in base64, times in milliseconds of the node's
//! own time; a message that waits in several sessions is written once for each, with the same `id`. What waits for another node is
//! written as the record that the log has of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter};
use std::num::NonZeroU32;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use newtmq_base::Instant;
use newtmq_mqtt::{PacketId, QoS, RetainHandling, SubscribeOptions, TopicFilter, TopicName};
use newtmq_node::{Replay, SESSIONS_LOG};
use newtmq_session::{
    DeliveryRecord, Identifiers, Message, MessageId, MessageParts, Record, SessionId, SnapshotRecord, WillRecord,
};
use newtmq_store::{BlobId, Opening, Wal, WalConfig, segment_number};
use serde_json::{Value, json};

use super::tool::ANY;
use super::{FileDisk, HANDED_AT_ONCE, StoreError, UPGRADES, prepare};
use crate::data::DataDir;

/// What was written or read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) sessions: u64,
    pub(super) messages: u64,
    pub(super) retained: u64,
    /// Messages that wait for other nodes.
    pub(super) hints: u64,
}

/// The format of the lines.
const LINES: u64 = 1;
/// A frame is written when it has so many bytes.
const FRAME_BYTES: usize = 1 << 20;

/// Writes all of it, to a file or standard output.
pub(super) fn export(replay: Replay, to: Option<&Path>) -> Result<Counts, StoreError> {
    let name = to.unwrap_or(Path::new("standard output"));
    let write = || -> io::Result<Counts> {
        match to {
            Some(path) => {
                let mut out = BufWriter::new(File::create(path)?);
                let counts = write_lines(replay, &mut out)?;
                out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
                Ok(counts)
            }
            None => write_lines(replay, &mut BufWriter::new(io::stdout().lock())),
        }
    };
    write().map_err(StoreError::io("write", name))
}

fn write_lines(replay: Replay, out: &mut impl io::Write) -> io::Result<Counts> {
    let mut counts = Counts::default();
    writeln!(out, "{}", json!({ "type": "export", "format": LINES, "now_ms": millis(replay.now()) }))?;
    let mut dividing = replay.divide(1);
    while let Some((_, chunk)) = dividing.next_chunk(HANDED_AT_ONCE, |_| 0, |_| ANY) {
        for restored in chunk.sessions {
            let snapshot = restored.session.snapshot(restored.id, &restored.zone, restored.detached);
            let messages: BTreeMap<MessageId, &Message> =
                restored.session.messages().map(|message| (message.id(), message)).collect();
            counts.sessions += 1;
            counts.messages += snapshot.deliveries.len() as u64;
            writeln!(out, "{}", session(&snapshot, &messages))?;
        }
        for retained in chunk.retained {
            counts.retained += 1;
            writeln!(out, "{}", json!({ "type": "retained", "message": message(&retained.message) }))?;
        }
        for (hint, _) in chunk.hints {
            counts.hints += 1;
            let node = format!("{:x}", hint.node);
            let mut record = Vec::new();
            Record::Hint(Box::new(hint)).encode(&mut record);
            writeln!(out, "{}", json!({ "type": "hint", "node": node, "record": STANDARD.encode(record) }))?;
        }
    }
    out.flush()?;
    Ok(counts)
}

fn session(of: &SnapshotRecord, messages: &BTreeMap<MessageId, &Message>) -> Value {
    let body = |id: MessageId| messages.get(&id).map(|found| message(found));
    let subscriptions: Vec<Value> = of
        .subscriptions
        .iter()
        .map(|(filter, options, identifier)| {
            json!({
                "filter": filter.as_str(),
                "qos": options.qos as u8,
                "no_local": options.no_local,
                "retain_as_published": options.retain_as_published,
                "retain_handling": options.retain_handling as u8,
                "identifier": identifier.map(NonZeroU32::get),
            })
        })
        .collect();
    let deliveries: Vec<Value> = of
        .deliveries
        .iter()
        .map(|delivery| {
            json!({
                "dseq": delivery.dseq,
                "qos": delivery.qos as u8,
                "retain": delivery.retain,
                "shared": delivery.shared,
                "identifiers": delivery.identifiers.as_slice(),
                "priority": delivery.priority,
                "sent": delivery.sent,
                "released": delivery.released,
                "message": body(delivery.message),
            })
        })
        .collect();
    let will = of.will.as_ref().map(|will| {
        json!({
            "delay_interval": will.delay_interval,
            "message_expiry_interval": will.message_expiry_interval,
            "message": body(will.message),
        })
    });
    json!({
        "type": "session",
        "client": of.client,
        "zone": of.zone,
        "expiry_interval": of.expiry_interval,
        "detached_ms": of.detached.map(millis),
        "next_dseq": of.next_dseq,
        "subscriptions": subscriptions,
        "deliveries": deliveries,
        "qos2_in": of.qos2_in.iter().map(|id| id.get()).collect::<Vec<u16>>(),
        "will": will,
        "kept": of.kept.as_ref().map(|kept| STANDARD.encode(kept)),
    })
}

fn message(of: &Message) -> Value {
    json!({
        "id": format!("{:016x}", of.id().0),
        "topic": of.topic_str(),
        "qos": of.qos() as u8,
        "retain": of.retain(),
        "expires_ms": (of.expires() != Instant::NEVER).then(|| millis(of.expires())),
        "properties": STANDARD.encode(of.forwardable()),
        "payload": STANDARD.encode(of.payload()),
    })
}

fn millis(at: Instant) -> u64 {
    at.as_nanos() / 1_000_000
}

/// Fills a store that has nothing yet, from a file or standard input.
pub(super) fn import(data: &Path, from: Option<&Path>) -> Result<Counts, StoreError> {
    let name = from.unwrap_or(Path::new("standard input"));
    let source: Box<dyn io::Read> = match from {
        Some(path) => Box::new(File::open(path).map_err(StoreError::io("read", path))?),
        None => Box::new(io::stdin().lock()),
    };
    // The node gets its identity here: the first start is another one than that of the lines.
    let (_lock, _) = DataDir::open(data).map_err(|error| StoreError::Refused(format!("{error}")))?;
    let folder = prepare(data, UPGRADES)?;
    let disk = FileDisk::open(&folder).map_err(StoreError::io("open", &folder))?;
    let entries = std::fs::read_dir(&folder).map_err(StoreError::io("read", &folder))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    if names.into_iter().any(|name| segment_number(&name).is_some()) {
        return Err(StoreError::Refused(format!("{}: something is stored there already", data.display())));
    }
    let failed = |source| StoreError::Disk { path: folder.clone(), source };
    let mut opening =
        Opening::start(disk, WalConfig::default()).map_err(|error| StoreError::of_open(&folder, error))?;
    while opening.next_chunk(1).map_err(failed)?.is_some() {}
    let (wal, _) = opening.finish().map_err(failed)?;
    let mut import = Import { wal, counts: Counts::default(), messages: BTreeMap::new(), next: 0, now: Instant::START };
    for (number, line) in (1..).zip(BufReader::new(source).lines()) {
        let line = line.map_err(StoreError::io("read", name))?;
        let at = |what: &str| StoreError::Refused(format!("{}:{number}: {what}", name.display()));
        let value: Value = serde_json::from_str(&line).map_err(|error| at(&error.to_string()))?;
        import.line(&value, number == 1).ok_or_else(|| at("this is no line of an export"))?;
        import.commit(FRAME_BYTES).map_err(|error| at(&error.to_string()))?;
    }
    let end = import.commit(0).and_then(|()| import.wal.commit(true)).and_then(|()| import.wal.harden());
    end.map_err(|error| StoreError::Refused(error.to_string()))?;
    Ok(import.counts)
}

struct Import {
    wal: Wal<FileDisk>,
    counts: Counts,
    /// By their ids in the lines.
    messages: BTreeMap<String, (MessageId, Message)>,
    /// Numbers of sessions and messages. A start has higher ones, for it has a number itself.
    next: u64,
    now: Instant,
}

impl Import {
    fn line(&mut self, line: &Value, first: bool) -> Option<()> {
        match line["type"].as_str()? {
            "export" if first && line["format"].as_u64()? == LINES => {
                self.now = at(line["now_ms"].as_u64()?);
                self.record(&Record::Time { now: self.now });
            }
            "session" if !first => {
                let snapshot = self.snapshot(line)?;
                self.counts.sessions += 1;
                self.counts.messages += snapshot.deliveries.len() as u64;
                self.record(&Record::Snapshot(Box::new(snapshot)));
            }
            "retained" if !first => {
                let (id, message) = self.message(&line["message"])?;
                let topic = message.topic_str().to_owned();
                self.record(&Record::Retain { topic, message: Some((id, message.expires())) });
                self.counts.retained += 1;
            }
            "hint" if !first => {
                let record = Record::decode(&STANDARD.decode(line["record"].as_str()?).ok()?).ok()?;
                if !matches!(record, Record::Hint(_)) {
                    return None;
                }
                self.record(&record);
                self.counts.hints += 1;
            }
            _ => return None,
        }
        Some(())
    }

    fn record(&mut self, record: &Record) {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        self.wal.record(SESSIONS_LOG, &bytes);
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Makes a message known to the record that follows.
    fn message(&mut self, of: &Value) -> Option<(MessageId, Message)> {
        let name = of["id"].as_str()?;
        let found = match self.messages.get(name) {
            Some(found) => found.clone(),
            None => {
                let id = MessageId(self.number());
                let topic = TopicName::new(of["topic"].as_str()?).ok()?.as_str().as_bytes();
                let decoded = |field: &str| STANDARD.decode(of[field].as_str()?).ok();
                let parts = MessageParts {
                    id,
                    topic,
                    forwardable: &decoded("properties")?,
                    payload: &decoded("payload")?,
                    qos: qos(&of["qos"])?,
                    retain: of["retain"].as_bool()?,
                    expires: of["expires_ms"].as_u64().map_or(Instant::NEVER, at),
                    stretched: false,
                };
                let made = (id, Message::new(&parts, &mut Vec::new()));
                self.messages.insert(name.to_owned(), made.clone());
                made
            }
        };
        self.wal.blob(BlobId(found.0.0), found.1.block());
        Some(found)
    }

    fn snapshot(&mut self, line: &Value) -> Option<SnapshotRecord> {
        let mut deliveries = Vec::new();
        for of in line["deliveries"].as_array()? {
            let identifiers: Vec<u32> = of["identifiers"].as_array()?.iter().map(number).collect::<Option<_>>()?;
            deliveries.push(DeliveryRecord {
                message: self.message(&of["message"])?.0,
                dseq: of["dseq"].as_u64()?,
                qos: qos(&of["qos"])?,
                retain: of["retain"].as_bool()?,
                // Not there in what earlier versions wrote.
                shared: of["shared"].as_bool().unwrap_or(false),
                identifiers: Identifiers::from_slice(&identifiers),
                priority: number(&of["priority"])?,
                sent: of["sent"].as_bool()?,
                released: of["released"].as_bool()?,
            });
        }
        let will = match &line["will"] {
            Value::Null => None,
            will => Some(WillRecord {
                message: self.message(&will["message"])?.0,
                message_expiry_interval: number(&will["message_expiry_interval"]),
                delay_interval: number(&will["delay_interval"])?,
            }),
        };
        let subscriptions = line["subscriptions"].as_array()?.iter().map(|of| {
            let options = SubscribeOptions {
                qos: qos(&of["qos"])?,
                no_local: of["no_local"].as_bool()?,
                retain_as_published: of["retain_as_published"].as_bool()?,
                retain_handling: match of["retain_handling"].as_u64()? {
                    0 => RetainHandling::SendAtSubscribe,
                    1 => RetainHandling::SendIfNew,
                    2 => RetainHandling::DoNotSend,
                    _ => return None,
                },
            };
            let filter = TopicFilter::new(of["filter"].as_str()?).ok()?;
            Some((filter.into(), options, number(&of["identifier"]).and_then(NonZeroU32::new)))
        });
        let subscriptions = subscriptions.collect::<Option<_>>()?;
        let qos2_in = line["qos2_in"].as_array()?.iter().map(|id| PacketId::new(number(id)?));
        Some(SnapshotRecord {
            session: SessionId(self.number()),
            client: line["client"].as_str()?.to_owned(),
            zone: line["zone"].as_str()?.to_owned(),
            expiry_interval: number(&line["expiry_interval"])?,
            detached: line["detached_ms"].as_u64().map(at),
            next_dseq: line["next_dseq"].as_u64()?,
            subscriptions,
            deliveries,
            qos2_in: qos2_in.collect::<Option<_>>()?,
            will,
            // Not there in what earlier versions wrote.
            kept: line["kept"].as_str().and_then(|kept| STANDARD.decode(kept).ok()),
        })
    }

    fn commit(&mut self, above: usize) -> Result<(), newtmq_store::CommitError> {
        if self.wal.pending_bytes() > above { self.wal.commit(false) } else { Ok(()) }
    }
}

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn qos(value: &Value) -> Option<QoS> {
    QoS::from_bits(number(value)?)
}

fn number<N: TryFrom<u64>>(value: &Value) -> Option<N> {
    N::try_from(value.as_u64()?).ok()
}
