//! What nodes say comes back from its bytes, and garbage is refused.

use core::time::Duration;

use newtmq_base::{ConnId, NodeId, ShardId};
use proptest::prelude::*;

use super::super::*;

fn client() -> impl Strategy<Value = Client> {
    prop::sample::select(vec!["", "a", "device/é", "x".repeat(300).leak()]).prop_map(Client::from)
}

fn conn() -> impl Strategy<Value = Conn> {
    (any::<u16>(), any::<u32>(), any::<u32>())
        .prop_map(|(shard, slot, generation)| Conn { shard: ShardId(shard), id: ConnId { slot, generation } })
}

fn epoch() -> impl Strategy<Value = Epoch> {
    (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(term, seq, provisional, issuer)| Epoch {
        term,
        seq,
        provisional,
        issuer: NodeId(issuer),
    })
}

fn link() -> impl Strategy<Value = Link> {
    let granted = prop::option::of((epoch(), any::<u64>().prop_map(NodeId)));
    (conn(), any::<u64>(), any::<bool>(), any::<bool>(), granted).prop_map(|(conn, age, clean, durable, granted)| {
        Link { conn, age: Duration::from_millis(age), clean, durable, granted }
    })
}

fn item() -> impl Strategy<Value = Item> {
    let session =
        prop::option::of((epoch(), epoch(), any::<bool>(), any::<u64>(), any::<Option<u64>>())).prop_map(|session| {
            session.map(|(epoch, clean, durable, age, serves)| Session {
                epoch,
                clean,
                durable,
                age: Duration::from_millis(age),
                serves: serves.map(NodeId),
            })
        });
    let supersedes = prop::collection::vec((any::<u64>().prop_map(NodeId), epoch()), 0..3);
    (client(), epoch(), prop::collection::vec(link(), 0..3), session, supersedes)
        .prop_map(|(client, known, links, session, supersedes)| Item { client, known, links, session, supersedes })
}

fn message() -> impl Strategy<Value = Message> {
    let nodes = prop::collection::vec(any::<u64>().prop_map(NodeId), 0..4);
    let base = (0u8..21, any::<(u64, u64, bool, bool)>(), client(), conn(), epoch(), epoch());
    let more = (link(), prop::collection::vec(item(), 0..3), nodes, prop::collection::vec(any::<u8>(), 0..9));
    (base, more).prop_map(
        |((kind, (round, number, flag, other), client, conn, epoch, known), (link, items, nodes, bytes))| {
            let node = NodeId(number);
            let after = flag.then(|| client.clone());
            let blob = bytes.into_boxed_slice();
            match kind {
                0 => Message::Summon { round, term: number, view: nodes, after },
                1 => Message::Announce { round, after, items, end: other },
                2 => Message::Again { round },
                3 => Message::Claim { round, number, client, link, known },
                4 => Message::ClaimOk { round, client, conn, epoch, home: node, supersedes: nodes },
                5 => {
                    let why = [Refused::Superseded, Refused::Unavailable, Refused::Full][(number % 3) as usize];
                    Message::ClaimRejected { round, client, conn, why }
                }
                6 => {
                    Message::Fence { round, client, conn, epoch, why: if flag { Why::Takeover } else { Why::Conflict } }
                }
                7 => Message::FenceAck { round, client, conn },
                8 => Message::End { round, client, epoch, to: node, discard: flag },
                9 => Message::EndAck { round, client },
                10 => Message::Acted { round, client, home: node, epoch },
                11 => Message::Report { round, number, client, report: Report::Closed(conn, flag) },
                12 => Message::Report { round, number, client, report: Report::Ended(epoch) },
                13 => Message::Report { round, number, client, report: Report::Acted(node, epoch) },
                19 => Message::Report { round, number, client, report: Report::Began(epoch) },
                20 => Message::Report { round, number, client, report: Report::Moved(epoch, known, flag) },
                14 => Message::Reported { round, number },
                15 => Message::Took { round, client, conn, epoch },
                16 => Message::Attach { client, conn, epoch, clean: flag, durable: other, limits: blob },
                17 => Message::Attached { client, conn, epoch, present: flag, answer: blob },
                _ => Message::Outdated { client, conn, epoch, known },
            }
        },
    )
}

proptest! {
    #[test]
    fn messages_come_back(message in message(), cut in any::<prop::sample::Index>(), flip in any::<(prop::sample::Index, u8)>()) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        prop_assert_eq!(Message::decode(&bytes), Ok(message));
        prop_assert!(Message::decode(&bytes[..cut.index(bytes.len())]).is_err());
        let at = flip.0.index(bytes.len());
        bytes[at] ^= flip.1;
        let _ = Message::decode(&bytes);
    }

    #[test]
    fn garbage_is_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = Message::decode(&bytes);
    }
}
