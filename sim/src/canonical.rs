//! The canonical form of events: what the trace hash is made of. Numbers only, and no order of a hash map, so
//! that it is the same wherever the run is the same.

use newtmq_base::Instant;

use crate::history::{AckKind, Closer, ConnectFacts, Event, Fault, Uid, WillFacts};
use crate::observer::TraceHash;

/// Adds an event to the hash.
pub(crate) fn write(at: Instant, event: &Event, hash: &mut TraceHash) {
    hash.add(at.as_nanos());
    match event {
        Event::Connect { conn, client, facts } => {
            put(hash, 1, &[u64::from(conn.0), u64::from(client.0)]);
            connect(hash, facts);
        }
        Event::Connack { conn, present, code, expiry_s, sent_at } => {
            let fields =
                [u64::from(conn.0), u64::from(*present), u64::from(code.code()), option(*expiry_s), sent_at.as_nanos()];
            put(hash, 2, &fields);
        }
        Event::Subscribe { conn, pid, subscription_id, filters } => {
            put(hash, 3, &[u64::from(conn.0), u64::from(*pid), option(*subscription_id), filters.len() as u64]);
            for f in filters {
                let flags = u64::from(f.no_local) | u64::from(f.retain_as_published) << 1;
                put(hash, 0, &[u64::from(f.filter.0), f.qos as u64, flags, f.retain_handling as u64]);
            }
        }
        Event::Suback { conn, pid, codes, sent_at } => {
            put(hash, 4, &[u64::from(conn.0), u64::from(*pid), sent_at.as_nanos()]);
            codes.iter().for_each(|code| hash.add(u64::from(code.code())));
        }
        Event::Unsubscribe { conn, pid, filters } => {
            put(hash, 5, &[u64::from(conn.0), u64::from(*pid)]);
            filters.iter().for_each(|filter| hash.add(u64::from(filter.0)));
        }
        Event::Unsuback { conn, pid, codes } => {
            put(hash, 6, &[u64::from(conn.0), u64::from(*pid)]);
            codes.iter().for_each(|code| hash.add(u64::from(code.code())));
        }
        Event::Publish { conn, facts } => {
            let flags = u64::from(facts.dup) | u64::from(facts.retain) << 1 | (facts.qos as u64) << 2;
            let ids = [u64::from(conn.0), option(facts.pid.map(u32::from)), uid(facts.uid), u64::from(facts.topic.0)];
            put(hash, 7, &ids);
            put(hash, flags, &[option(facts.expiry_s), u64::from(facts.size)]);
        }
        Event::Acked { conn, kind, pid, code, sent_at } => {
            let fields = [u64::from(conn.0), ack(*kind), u64::from(*pid), u64::from(code.code()), sent_at.as_nanos()];
            put(hash, 8, &fields);
        }
        Event::Release { conn, pid } => put(hash, 9, &[u64::from(conn.0), u64::from(*pid)]),
        Event::Receive { conn, facts } => {
            let flags = u64::from(facts.dup) | u64::from(facts.retain) << 1 | (facts.qos as u64) << 2;
            let ids = [u64::from(conn.0), option(facts.pid.map(u32::from)), uid(facts.uid), u64::from(facts.topic.0)];
            put(hash, 10, &ids);
            let more =
                [option(facts.expiry_s), u64::from(facts.size), u64::from(facts.packet_size), facts.sent_at.as_nanos()];
            put(hash, flags | u64::from(facts.intact) << 4, &more);
            facts.subscription_ids.iter().for_each(|id| hash.add(u64::from(*id)));
        }
        Event::Ack { conn, kind, pid, code } => {
            put(hash, 11, &[u64::from(conn.0), ack(*kind), u64::from(*pid), u64::from(code.code())]);
        }
        Event::Released { conn, pid } => put(hash, 12, &[u64::from(conn.0), u64::from(*pid)]),
        Event::Handed { conn, uid: of, qos } => put(hash, 13, &[u64::from(conn.0), uid(Some(*of)), *qos as u64]),
        Event::Pingresp { conn } => put(hash, 14, &[u64::from(conn.0)]),
        Event::Pingreq { conn } => put(hash, 23, &[u64::from(conn.0)]),
        Event::Disconnect { conn, by, code, expiry_s } => {
            put(hash, 15, &[u64::from(conn.0), closer(*by), u64::from(code.code()), option(*expiry_s)]);
        }
        Event::Close { conn, by } => put(hash, 16, &[u64::from(conn.0), closer(*by)]),
        Event::Gone { conn } => put(hash, 17, &[u64::from(conn.0)]),
        Event::Wild { conn, what } => put(hash, 18, &[u64::from(conn.0), crate::draw::of_name(what)]),
        Event::Unexpected { conn, what } => put(hash, 19, &[u64::from(conn.0), crate::draw::of_name(what)]),
        Event::Fault(of) => fault(hash, of),
        Event::NodeUp { node, id, incarnation, address } => {
            put(hash, 24, &[u64::from(node.0), id.0, incarnation.0, text(address)]);
        }
        Event::NodeDown { node } => put(hash, 25, &[u64::from(node.0)]),
        Event::Cluster { node, event } => put(hash, 26, &[u64::from(node.0), text(event)]),
        Event::Command { node, request, command } => put(hash, 27, &[u64::from(node.0), request.0, text(command)]),
        Event::Answer { node, request, answer } => put(hash, 28, &[u64::from(node.0), request.0, text(answer)]),
        Event::AskWill { conn, will } => {
            put(hash, 51, &[u64::from(conn.0)]);
            will.iter().for_each(|will| put_will(hash, will));
        }
        Event::WillSet { conn } => put(hash, 52, &[u64::from(conn.0)]),
        Event::Calm => hash.add(21),
        Event::Quiesce => hash.add(22),
    }
}

fn put(hash: &mut TraceHash, tag: u64, fields: &[u64]) {
    hash.add(tag);
    for field in fields {
        hash.add(*field);
    }
}

/// What has too many forms to name its fields; there are few of these in a run.
fn text(of: &impl core::fmt::Debug) -> u64 {
    crate::draw::of_name(&format!("{of:?}"))
}

fn option(value: Option<u32>) -> u64 {
    value.map_or(u64::MAX, u64::from)
}

fn uid(uid: Option<Uid>) -> u64 {
    uid.map_or(u64::MAX, |uid| u64::from(uid.publisher.0) << 32 | u64::from(uid.number))
}

const fn ack(kind: AckKind) -> u64 {
    kind as u64
}

const fn closer(by: Closer) -> u64 {
    by as u64
}

fn connect(hash: &mut TraceHash, facts: &ConnectFacts) {
    let ConnectFacts {
        node,
        client_id,
        version,
        sn,
        clean,
        expiry_s,
        keep_alive_s,
        receive_maximum,
        max_packet_size,
        will,
    } = facts;
    let who = [u64::from(node.0), u64::from(client_id.0), *version as u64, u64::from(*clean), option(*expiry_s)];
    put(hash, 0, &who);
    put(hash, 0, &[u64::from(*keep_alive_s), u64::from(*receive_maximum), option(*max_packet_size)]);
    if let Some(sn) = sn {
        put(hash, 2, &[*sn as u64]);
    }
    if let Some(will) = will {
        put_will(hash, will);
    }
}

fn put_will(hash: &mut TraceHash, will: &WillFacts) {
    let WillFacts { uid: of, topic, qos, retain, delay_s, expiry_s } = will;
    let fields =
        [uid(Some(*of)), u64::from(topic.0), *qos as u64, u64::from(*retain), u64::from(*delay_s), option(*expiry_s)];
    put(hash, 1, &fields);
}

fn fault(hash: &mut TraceHash, fault: &Fault) {
    let (tag, fields): (u64, [u64; 3]) = match fault {
        Fault::Cut { client, to_server, to_client } => {
            (30, [u64::from(client.0), u64::from(*to_server), u64::from(*to_client)])
        }
        Fault::Heal { client } => (31, [u64::from(client.0), 0, 0]),
        Fault::Bandwidth { client, bytes_per_s } => (32, [u64::from(client.0), *bytes_per_s, 0]),
        Fault::Reading { client, on } => (33, [u64::from(client.0), u64::from(*on), 0]),
        Fault::Freeze { client, on } => (34, [u64::from(client.0), u64::from(*on), 0]),
        Fault::Pause { node, until } => (35, [u64::from(node.0), until.as_nanos(), 0]),
        Fault::ClockJump { node, by_ms } => (36, [u64::from(node.0), *by_ms as u64, 0]),
        Fault::Drift { node, ppm } => (37, [u64::from(node.0), *ppm as u64, 0]),
        Fault::Lag { node, shard, by_us } => (38, [u64::from(node.0), u64::from(*shard), *by_us]),
        Fault::Crash { node, power_loss } => (39, [u64::from(node.0), u64::from(*power_loss), 0]),
        Fault::DiskFull { node, on } => (43, [u64::from(node.0), u64::from(*on), 0]),
        Fault::DiskSlow { node, by_us } => (44, [u64::from(node.0), *by_us, 0]),
        Fault::DiskFails { node } => (45, [u64::from(node.0), 0, 0]),
        Fault::DiskRot { node } => (46, [u64::from(node.0), 0, 0]),
        Fault::Restart { node } => (40, [u64::from(node.0), 0, 0]),
        Fault::Shutdown { node } => (41, [u64::from(node.0), 0, 0]),
        Fault::MemoryPressure { node, level } => (42, [u64::from(node.0), u64::from(*level), 0]),
        Fault::LinkCut { from, to } => (47, [u64::from(from.0), u64::from(to.0), 0]),
        Fault::LinkHealed { from, to } => (48, [u64::from(from.0), u64::from(to.0), 0]),
        Fault::LinkSlow { from, to, by_us, bytes_per_s } => {
            (49, [u64::from(from.0) << 16 | u64::from(to.0), *by_us, *bytes_per_s])
        }
        Fault::Wipe { node } => (50, [u64::from(node.0), 0, 0]),
    };
    put(hash, tag, &fields);
}
