//! Anything may come from a peer or a disk.

use bytes::Bytes;
use newtmq_base::{Incarnation, NodeId};
use proptest::prelude::*;

use super::super::entry::{Entry, Origin, Write};
use super::super::message::{Ask, Message};
use super::super::state::State;
use super::super::topics::{Chunk, End, Item};
use super::super::{Input, Persist};
use super::net::{Net, small};
use crate::meta::ClusterId;

fn message() -> impl Strategy<Value = Option<Bytes>> {
    proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from))
}

fn write() -> impl Strategy<Value = Write> {
    let origin = (any::<u64>(), any::<u64>(), 1..u64::MAX, any::<u64>()).prop_map(|(node, inc, number, open)| Origin {
        node: NodeId(node),
        inc: Incarnation(inc),
        number,
        settled: open % number,
    });
    let seen = proptest::option::of(any::<u64>());
    (origin, ".{0,9}", message(), seen).prop_map(|(origin, topic, message, seen)| Write {
        origin,
        topic: topic.into(),
        message,
        seen,
    })
}

fn chunk() -> impl Strategy<Value = Chunk> {
    let items = proptest::collection::btree_map("[b-y]{1,4}", (1u64..100, message()), 0..6);
    (items, any::<bool>(), any::<bool>(), 100u64.., any::<u64>()).prop_map(|(items, from, to, as_of, since)| Chunk {
        as_of,
        since,
        from: from.then(|| "a".into()),
        to: if to { End::At("z".into()) } else { End::Last },
        items: items.into_iter().map(|(topic, (index, message))| (topic.into(), Item { index, message })).collect(),
    })
}

proptest! {
    #[test]
    fn what_is_written_comes_back(
        writes in proptest::collection::vec(write(), 0..5),
        chunk in chunk(),
        numbers in (any::<u64>(), any::<u64>(), any::<u32>()),
        after in proptest::option::of(".{0,9}"),
    ) {
        let ask = Ask { since: numbers.0, least: numbers.1, chunks: numbers.2, after: after.map(Into::into) };
        let messages =
            [Message::Forward(writes.clone()), Message::Passed(numbers.0), Message::Ask(ask), Message::Chunk(chunk.clone())];
        for message in messages {
            let mut bytes = Vec::new();
            message.encode(ClusterId(numbers.1), &mut bytes);
            prop_assert_eq!(Message::decode(&bytes), Ok((ClusterId(numbers.1), message)));
        }
        let mut state = State::default();
        let others = [Entry::Horizon(numbers.0), Entry::Members(numbers.1)];
        for (index, entry) in writes.into_iter().map(Entry::Write).chain(others).enumerate() {
            let mut bytes = Vec::new();
            entry.encode(&mut bytes);
            let data = Bytes::from(bytes);
            prop_assert_eq!(Entry::decode(&data), Ok(entry.clone()));
            let _ = state.step(&raft::eraftpb::Entry { index: index as u64 + 1, term: 1, data, ..Default::default() });
        }
        let mut header = Vec::new();
        state.encode_header(&mut header);
        let read = State::decode_header(&header);
        state.topics = Default::default();
        prop_assert_eq!(read, Ok(state));
        let persist = Persist { chunk: Some(chunk), ends: numbers.2 % 2 == 0, ..Persist::default() };
        let mut bytes = Vec::new();
        persist.encode(&mut bytes);
        prop_assert_eq!(Persist::decode(&bytes), Ok(persist));
    }

    #[test]
    fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Message::decode(&bytes);
        let _ = Persist::decode(&bytes);
        let _ = State::decode_header(&bytes);
        let _ = Entry::decode(&Bytes::from(bytes));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    // What is there with some bytes of it changed: nothing panics.
    #[test]
    fn broken_messages_do_no_harm(changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..20)) {
        let mut net = Net::new(3, 1, small());
        let leader = net.leader().unwrap_or(0);
        for (place, byte) in changes {
            let ask = Ask { since: u64::from(byte), least: 0, chunks: 9, after: Some("t".into()) };
            let chunk = Chunk { as_of: 9, since: 0, from: None, to: End::Last, items: Vec::new() };
            for message in [Message::Ask(ask), Message::Chunk(chunk), Message::Passed(place as u64)] {
                let mut bytes = Vec::new();
                message.encode(ClusterId(7), &mut bytes);
                let place = place % bytes.len();
                bytes[place] ^= byte;
                for to in 0..3 {
                    let now = net.now;
                    let retained = net.nodes[to].retained.as_mut().expect("it runs");
                    let from = NodeId(leader as u64 + 1);
                    retained.handle(now, Input::Message { from, bytes: &bytes }, &mut Vec::new());
                }
            }
        }
    }
}
