//! What each command does, and when it does nothing.

use std::collections::BTreeSet;

use newtmq_base::{Incarnation, NodeId};

use super::super::command::{Command, Member, Rejected, RemovedBy};
use super::{ClusterId, MetaState, REMOVED_MAX, Role};

fn member(node: u64) -> Member {
    Member {
        node: NodeId(node),
        birth: node * 10,
        inc: Incarnation(1),
        name: format!("n{node}"),
        address: "10.0.0.1:4370".to_owned(),
        witness: false,
        feature_max: 1,
        joined: 0,
    }
}

fn nodes(of: &[u64]) -> BTreeSet<NodeId> {
    of.iter().map(|node| NodeId(*node)).collect()
}

fn apply(state: &mut MetaState, command: Command) -> Result<(), Rejected> {
    state.apply(state.index() + 1, b"raw", Some(&command))
}

#[test]
fn members_come_and_go() {
    let mut state = MetaState::founded(ClusterId(1), "c".to_owned(), member(1));
    let remove = |node, by, voters: &[u64]| Command::RemoveMember { node: NodeId(node), by, voters: nodes(voters) };
    let witness = Member { witness: true, ..member(4) };
    let steps = [
        (Command::UpdateMember(member(2)), Err(Rejected::NoSuchNode)),
        (Command::AddMember(member(2)), Ok(())),
        (Command::AddMember(member(2)), Err(Rejected::Member)),
        (Command::UpdateMember(member(2)), Ok(())),
        (Command::UpdateMember(Member { birth: 1, ..member(2) }), Err(Rejected::OtherDisk)),
        (Command::UpdateMember(Member { inc: Incarnation(0), ..member(2) }), Err(Rejected::LowerIncarnation)),
        (Command::StayOut { node: NodeId(2) }, Err(Rejected::NoSuchNode)),
        (Command::AddMember(Member { feature_max: 0, ..member(3) }), Err(Rejected::FeatureLevel)),
        (Command::Voters(nodes(&[1, 2])), Err(Rejected::Voters)),
        (Command::Voters(nodes(&[])), Err(Rejected::Voters)),
        (Command::Voters(nodes(&[3])), Err(Rejected::Voters)),
        (Command::AddMember(member(3)), Ok(())),
        (Command::AddMember(witness.clone()), Ok(())),
        (Command::Voters(nodes(&[4])), Err(Rejected::Voters)),
        (Command::Voters(nodes(&[1, 2, 4])), Ok(())),
        (remove(2, RemovedBy::Force, &[1, 2, 3]), Err(Rejected::Voters)),
        (remove(2, RemovedBy::Force, &[1]), Ok(())),
        (remove(2, RemovedBy::Force, &[1]), Err(Rejected::NoSuchNode)),
        (Command::AddMember(member(2)), Err(Rejected::ForcedOut)),
        (Command::Readmit { node: NodeId(2) }, Ok(())),
        (Command::AddMember(member(2)), Ok(())),
        (remove(3, RemovedBy::Autoclean, &[1]), Ok(())),
        (Command::StayOut { node: NodeId(3) }, Ok(())),
        (Command::StayOut { node: NodeId(3) }, Err(Rejected::NoSuchNode)),
        (Command::AddMember(member(3)), Ok(())),
        (remove(1, RemovedBy::Leave, &[]), Err(Rejected::Voters)),
    ];
    for (place, (command, result)) in steps.into_iter().enumerate() {
        let before = state.clone();
        assert_eq!(apply(&mut state, command.clone()), result, "step {place}: {command:?}");
        assert_ne!(state.hash(), before.hash());
        if result.is_err() {
            assert_eq!((state.members(), state.voters()), (before.members(), before.voters()));
        }
    }
    let roles: Vec<_> = (1..=5).map(|node| state.role(NodeId(node))).collect();
    assert_eq!(roles, [Some(Role::Voter), Some(Role::Learner), Some(Role::Learner), Some(Role::Witness), None]);
}

#[test]
fn removed_nodes_are_remembered_up_to_a_limit() {
    let mut state = MetaState::founded(ClusterId(1), "c".to_owned(), member(1));
    for node in 2..REMOVED_MAX as u64 + 10 {
        apply(&mut state, Command::AddMember(member(node))).unwrap();
        let voters = nodes(&[1]);
        apply(&mut state, Command::RemoveMember { node: NodeId(node), by: RemovedBy::Autoclean, voters }).unwrap();
    }
    assert_eq!(state.removed().len(), REMOVED_MAX);
    assert!(!state.removed().contains_key(&NodeId(2)));
}

#[test]
fn hash_tells_order_and_outcome() {
    let set = |key: &str| Command::SetConfig { key: key.to_owned(), value: Some(vec![1]) };
    let hash = |commands: &[Command]| {
        let mut state = MetaState::founded(ClusterId(1), "c".to_owned(), member(1));
        for command in commands {
            let mut raw = Vec::new();
            command.encode(&mut raw);
            let _ = state.apply(state.index() + 1, &raw, Some(command));
        }
        state.hash()
    };
    assert_eq!(hash(&[set("a"), set("b")]), hash(&[set("a"), set("b")]));
    assert_ne!(hash(&[set("a"), set("b")]), hash(&[set("b"), set("a")]));
    assert_ne!(hash(&[set("a")]), hash(&[set("a"), set("a")]));
}

#[test]
fn the_group_of_retained_messages_begins_anew() {
    let mut state = MetaState::founded(ClusterId(1), "c".to_owned(), Member { joined: 1, ..member(1) });
    apply(&mut state, Command::AddMember(member(2))).unwrap();
    apply(&mut state, Command::AddMember(Member { witness: true, ..member(3) })).unwrap();
    let founds = |state: &MetaState| [1, 2, 3].map(|node| state.founds_retained(NodeId(node)));
    assert_eq!(founds(&state), [true, false, false]);
    let renew = |generation, founder| Command::RenewRetained { generation, founder: NodeId(founder) };
    let steps = [
        (renew(2, 2), Err(Rejected::Generation)),
        (renew(1, 3), Err(Rejected::Generation)),
        (renew(1, 4), Err(Rejected::Generation)),
        (renew(1, 2), Ok(())),
        (renew(1, 1), Err(Rejected::Generation)),
    ];
    for (command, result) in steps {
        assert_eq!(apply(&mut state, command.clone()), result, "{command:?}");
    }
    assert_eq!(founds(&state), [false, true, false]);
    // Who comes back knows nothing of it.
    let remove = Command::RemoveMember { node: NodeId(2), by: RemovedBy::Leave, voters: nodes(&[1]) };
    apply(&mut state, remove).unwrap();
    apply(&mut state, Command::AddMember(member(2))).unwrap();
    assert_eq!(founds(&state), [false, false, false]);
    let mut bytes = Vec::new();
    state.encode(&mut bytes);
    assert_eq!(MetaState::decode(&bytes), Ok(state));
}
