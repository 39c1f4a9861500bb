//! Anything may come from a peer or a disk.

use newtmq_base::NodeId;
use proptest::prelude::*;

use super::super::message::Message;
use super::super::{BlobKind, Command, Input, MetaState, Persist, RemovedBy};
use super::net::{Net, member};

fn command() -> impl Strategy<Value = Command> {
    let node = any::<u64>().prop_map(NodeId);
    let nodes = proptest::collection::btree_set(node.clone(), 0..6);
    let value = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20));
    let kind = prop_oneof![Just(BlobKind::Acl), Just(BlobKind::User), Just(BlobKind::Banned)];
    let by = prop_oneof![Just(RemovedBy::Leave), Just(RemovedBy::Force), Just(RemovedBy::Autoclean)];
    prop_oneof![
        (0usize..9).prop_map(|index| Command::AddMember(member(index))),
        (0usize..9).prop_map(|index| Command::UpdateMember(member(index))),
        nodes.clone().prop_map(Command::Voters),
        (node.clone(), by, nodes).prop_map(|(node, by, voters)| Command::RemoveMember { node, by, voters }),
        node.clone().prop_map(|node| Command::Readmit { node }),
        node.prop_map(|node| Command::StayOut { node }),
        (".{0,9}", value.clone()).prop_map(|(key, value)| Command::SetConfig { key, value }),
        (kind, ".{0,9}", value, proptest::option::of(any::<u64>()))
            .prop_map(|(kind, key, value, expected)| Command::PutBlob { kind, key, value, expected }),
        any::<u32>().prop_map(|level| Command::FinalizeFeatureLevel { level }),
        any::<[u64; 2]>()
            .prop_map(|[generation, founder]| Command::RenewRetained { generation, founder: NodeId(founder) }),
    ]
}

proptest! {
    #[test]
    fn commands_come_back_and_states_too(commands in proptest::collection::vec(command(), 0..20)) {
        let mut state = MetaState::founded(super::super::ClusterId(7), "c".to_owned(), member(0));
        for command in commands {
            let mut bytes = Vec::new();
            command.encode(&mut bytes);
            prop_assert_eq!(Command::decode(&bytes), Ok(command.clone()));
            let _ = state.apply(state.index() + 1, &bytes, Some(&command));
            let mut bytes = Vec::new();
            state.encode(&mut bytes);
            prop_assert_eq!(MetaState::decode(&bytes), Ok(state.clone()));
            prop_assert!(state.voters().iter().all(|voter| state.members().contains_key(voter)));
        }
    }

    #[test]
    fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Message::decode(&bytes);
        let _ = Persist::decode(&bytes);
        let _ = Command::decode(&bytes);
        let _ = MetaState::decode(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    // Raft's messages with wrong numbers in them: nothing panics.
    #[test]
    fn strange_messages_do_no_harm(
        numbers in proptest::collection::vec((0u64..40, 0u64..9, 0u64..40, 0u64..40, 0u8..10), 1..20),
    ) {
        let mut net = Net::cluster(3, 1);
        let cluster = net.meta(0).cluster().unwrap();
        let leader = net.leader().unwrap();
        for (index, term, commit, log_term, kind) in numbers {
            for to in 0..3 {
                let from = (to + 1) % 3;
                let mut bytes = Vec::new();
                let put = &mut newtmq_base::Put(&mut bytes);
                put.byte(0).number(cluster.0).number(1000 + to as u64).number(1000 + from as u64);
                put.byte(kind).number(to as u64 + 1).number(from as u64 + 1).number(term).number(log_term);
                put.number(index).number(commit).number(0).number(0).flag(index % 2 == 0).number(commit);
                put.bytes(&[]).number(0).flag(false);
                // Votes that nobody gave make a leader that there cannot be: nodes do not lie, they are mistaken.
                let is_vote = kind == 3 || kind == 9;
                if Message::decode(&bytes).is_ok() && to != leader && !is_vote {
                    let now = net.now;
                    let meta = net.nodes[to].meta.as_mut().unwrap();
                    meta.handle(now, Input::Message { from: NodeId(from as u64 + 1), bytes: &bytes }, &mut Vec::new());
                }
            }
        }
    }
}
