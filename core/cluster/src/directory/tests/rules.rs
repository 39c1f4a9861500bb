//! Single rules, and the bugs that were planted.

use super::super::{AwayHome, Config};
#[cfg(newtmq_mutants)]
use super::swarm;
use super::world::{Noise, SECOND, World};

fn quiet(nodes: usize, config: Config) -> World {
    let noise = Noise { delay_ms: 5, shard_ms: 5, ..Noise::default() };
    let mut world = World::new(3, nodes, config, noise);
    world.run_until(20 * SECOND);
    world
}

fn wait(world: &mut World, seconds: u64) {
    world.run_until(world.now + seconds * SECOND);
}

/// A leader may hear that it leads before it hears of whom.
#[test]
fn a_leader_that_hears_of_members_later_serves_its_own() {
    use super::super::{Client, Conn, Directory, Input, Output};
    use newtmq_base::{ConnId, Incarnation, Instant, NodeId, ShardId};
    let (now, me) = (Instant::from_millis(5), NodeId(7));
    let mut directory = Directory::new(Config::default(), now, me, Incarnation(2));
    let mut out = Vec::new();
    directory.handle(now, Input::Leader { term: 3, node: Some(me) }, &mut out);
    directory.handle(now, Input::Members([me].into()), &mut out);
    let conn = Conn { shard: ShardId(0), id: ConnId { slot: 0, generation: 0 } };
    let (client, limits) = (Client::from("c"), Box::default());
    directory.handle(now, Input::Claim { client, conn, clean: true, durable: false, limits }, &mut out);
    assert!(matches!(out[..], [Output::Attach { .. }]), "{out:?}");
}

/// A stored session is hidden while its node is down. The client starts clean elsewhere, and leaves nothing there. When the
/// node is back, the old session is not.
fn hidden_session_does_not_come_back() {
    for node_of_record_dies in [false, true] {
        let mut world = quiet(3, Config::default());
        let conn = world.connect(0, "a", false, true).unwrap();
        wait(&mut world, 2);
        assert!(world.nodes[0].kept.contains_key("a"));
        world.close(0, conn);
        wait(&mut world, 2);
        world.crash(0);
        wait(&mut world, 20);
        let conn = world.connect(1, "a", true, true).unwrap();
        wait(&mut world, 2);
        assert!(world.nodes[1].lines[&conn].served.is_some());
        assert_eq!(world.nodes[1].records.len(), 1);
        world.close(1, conn);
        world.expire(1, &"a".into());
        wait(&mut world, 2);
        if node_of_record_dies {
            // Its log is known to the third.
            world.crash(1);
            wait(&mut world, 10);
        }
        world.start(0);
        wait(&mut world, 20);
        let conn = world.connect(2, "a", false, true).unwrap();
        wait(&mut world, 2);
        assert!(world.nodes[2].lines[&conn].served.is_some());
        assert!(!world.nodes[2].lines[&conn].present, "S2: what was before the clean start is back");
        if node_of_record_dies {
            world.start(1);
            wait(&mut world, 20);
        }
        world.check_rest(&[0, 1, 2]);
    }
}

#[test]
fn a_hidden_session_that_was_cleaned_does_not_come_back() {
    hidden_session_does_not_come_back();
}

/// Whose stored session is at a node that is down waits for it, and is refused; or gets one beside it, if that is configured.
#[test]
fn a_stored_session_that_is_away_is_waited_for() {
    for away_home in [AwayHome::Wait, AwayHome::Fresh] {
        let mut world = quiet(3, Config { away_home, ..Config::default() });
        world.connect(0, "a", false, true).unwrap();
        wait(&mut world, 2);
        world.crash(0);
        wait(&mut world, 20);
        let conn = world.connect(1, "a", false, true).unwrap();
        wait(&mut world, 10);
        let served = world.nodes[1].lines[&conn].served.is_some();
        assert_eq!(served, away_home == AwayHome::Fresh);
        if served {
            world.start(0);
            wait(&mut world, 20);
        } else {
            world.start(0);
            wait(&mut world, 10);
            let conn = world.connect(2, "a", false, true).unwrap();
            wait(&mut world, 3);
            assert!(world.nodes[2].lines[&conn].present);
        }
        world.check_rest(&[0, 1, 2]);
    }
}

#[cfg(newtmq_mutants)]
#[test]
fn planted_bugs_are_found() {
    use newtmq_base::Mutant;
    let bugs = [
        Mutant::SeqWithoutTerm,
        Mutant::AgeByClock,
        Mutant::SilenceIsNoSession,
        Mutant::OpenBeforeAnnounced,
        Mutant::TombstoneForgotten,
        Mutant::GrantBeforeFenceAck,
        Mutant::StaleAttachTaken,
        Mutant::NoTolerance,
        Mutant::HigherEpochWins,
        Mutant::FenceSparesClaims,
        Mutant::LoserNotFenced,
        Mutant::OldTermObeyed,
        Mutant::OldClaimTaken,
        Mutant::OldRoundTaken,
        Mutant::OtherViewObeyed,
        Mutant::ActingTooEarly,
        Mutant::ProvisionalStartsOver,
        Mutant::StoredHomeNotAwaited,
        Mutant::AwayIsNone,
        Mutant::LateMoveCounts,
        Mutant::GivenIsHere,
        Mutant::GrantedMeanwhile,
        Mutant::TermNeverRises,
    ];
    let scenes: [fn(); 3] = [
        hidden_session_does_not_come_back,
        a_stored_session_that_is_away_is_waited_for,
        super::super::rank::tests::the_later_one_wins_and_in_doubt_the_higher,
    ];
    Mutant::assert_found(&bugs, |bug| {
        let by_scene = scenes.iter().chain(&super::seats::ALL).any(|scene| Mutant::fails(bug, scene));
        let seed = (0..600).find(|seed| Mutant::fails(bug, || _ = swarm::run(*seed)));
        by_scene || seed.is_some()
    });
}
