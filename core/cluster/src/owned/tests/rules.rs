//! Single rules, each with the smallest exchange of messages that shows it.

use core::time::Duration;

use newtmq_base::{Incarnation, Instant, NodeId, ShardId};

use super::super::*;
use super::filter;

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const INC: Incarnation = Incarnation(1);
const NEXT: Incarnation = Incarnation(2);

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn config() -> Config {
    Config { digest_key: DigestKey([1, 2]), ..Config::default() }
}

/// A node of one shard, whose batches are installed at once unless told otherwise.
struct One {
    owned: Owned,
    inc: Incarnation,
    sent: Vec<(NodeId, Message)>,
    batches: Vec<std::sync::Arc<Batch>>,
    done: Vec<(BarrierId, bool)>,
    holds: bool,
}

impl One {
    fn new(node: NodeId, inc: Incarnation, config: Config) -> One {
        let owned = Owned::new(config, at(0), node, inc, 1);
        let (sent, batches, done) = (Vec::new(), Vec::new(), Vec::new());
        let mut one = One { owned, inc, sent, batches, done, holds: false };
        one.act(0, |owned, now, out| owned.recovered(now, out));
        one
    }

    fn act<R>(&mut self, millis: u64, f: impl FnOnce(&mut Owned, Instant, &mut Vec<Output>) -> R) -> R {
        let mut out = Vec::new();
        let result = f(&mut self.owned, at(millis), &mut out);
        while let Some(seq) = self.carry_out(core::mem::take(&mut out)).filter(|_| !self.holds) {
            self.owned.installed(at(millis), ShardId(0), seq, &mut out);
        }
        result
    }

    /// Says which batch was the last.
    fn carry_out(&mut self, out: Vec<Output>) -> Option<u64> {
        let mut newest = None;
        for output in out {
            match output {
                Output::Send { to, message } => self.sent.extend(to.into_iter().map(|to| (to, message.clone()))),
                Output::Batch(batch) => {
                    newest = Some(batch.seq);
                    self.batches.push(batch);
                }
                Output::Done(done) => self.done.push((done.barrier, done.complete)),
            }
        }
        newest
    }

    fn change(&mut self, millis: u64, text: &str, class: Class, count: Count) {
        let change = Change { filter: filter(text), class, count };
        self.act(millis, |owned, now, out| owned.change(now, ShardId(0), &[change], out));
    }

    fn receive(&mut self, millis: u64, from: NodeId, inc: Incarnation, message: Message) {
        self.act(millis, |owned, now, out| owned.receive(now, from, inc, message, out));
    }

    fn matched(&self, owner: NodeId) -> Vec<(String, Class, u32)> {
        let mut table = std::collections::BTreeMap::new();
        for batch in self.batches.iter().filter(|batch| batch.node == owner) {
            for route in &batch.routes {
                let key = (route.filter.as_str().to_owned(), route.class, route.shard);
                if route.members == 0 {
                    table.remove(&key)
                } else {
                    table.insert(key, route.members)
                };
            }
        }
        table.into_iter().map(|((text, class, _), members)| (text, class, members)).collect()
    }
}

/// Two nodes that are up for each other.
struct Pair([One; 2]);

impl Pair {
    fn new(config: Config) -> Pair {
        let mut pair = Pair([ONE, TWO].map(|node| One::new(node, INC, config)));
        pair.link(0);
        pair
    }

    fn link(&mut self, millis: u64) {
        let [a, b] = &mut self.0;
        let (a_inc, b_inc) = (a.inc, b.inc);
        a.act(millis, |owned, now, out| owned.up(now, TWO, b_inc, out));
        b.act(millis, |owned, now, out| owned.up(now, ONE, a_inc, out));
        self.talk(millis);
    }

    /// Brings everything over, until nothing is on its way; tells what it was.
    fn talk(&mut self, millis: u64) -> Vec<Message> {
        let mut all = Vec::new();
        while let Some(from) = self.0.iter().position(|one| !one.sent.is_empty()) {
            let (id, inc) = ([ONE, TWO][from], self.0[from].inc);
            for (_, message) in core::mem::take(&mut self.0[from].sent) {
                all.push(message.clone());
                self.0[1 - from].receive(millis, id, inc, message);
            }
        }
        all
    }

    /// The second node starts again.
    fn restart(&mut self, config: Config) {
        self.0[1] = One::new(TWO, NEXT, config);
    }
}

fn plain(text: &str, class: Class) -> (String, Class, u32) {
    (text.to_owned(), class, 1)
}

use Class::{Durable, Transient};

#[test]
fn an_entry_is_made_at_the_first_and_removed_with_the_last() {
    let mut one = One::new(ONE, INC, config());
    let rows = [
        ("a", Transient, Count::Plus, 1),
        ("a", Transient, Count::Plus, 1),
        ("a", Durable, Count::Plus, 2),
        ("a", Transient, Count::Minus, 2),
        ("a", Transient, Count::Minus, 3),
        ("a", Durable, Count::Is(3), 3),
        ("a", Durable, Count::Is(0), 4),
        ("$share/g/a", Transient, Count::Plus, 5),
        ("$share/g/a", Transient, Count::Plus, 6),
        ("$share/g/a", Transient, Count::Minus, 7),
    ];
    for (at, (text, class, count, version)) in rows.into_iter().enumerate() {
        one.change(0, text, class, count);
        assert_eq!(one.owned.log().version(), version, "row {at}");
    }
    assert_eq!(one.matched(ONE), [("$share/g/a".to_owned(), Transient, 1)]);
}

#[test]
fn a_masked_node_keeps_its_durable_routes() {
    let mut pair = Pair::new(config());
    pair.0[1].change(1, "t", Transient, Count::Plus);
    pair.0[1].change(1, "d", Durable, Count::Plus);
    pair.talk(1);
    let both = [plain("d", Durable), plain("t", Transient)];
    assert_eq!(pair.0[0].matched(TWO), both);
    pair.0[0].act(2, |owned, now, out| owned.down(now, TWO, INC, out));
    assert_eq!((pair.0[0].matched(TWO), pair.0[0].owned.phase(TWO)), (vec![plain("d", Durable)], Phase::Masked));
    // What has changed meanwhile is not there before it is fetched, nor are the others.
    pair.0[1].change(3, "n", Transient, Count::Plus);
    pair.0[1].sent.clear();
    pair.0[0].act(4, |owned, now, out| owned.up(now, TWO, INC, out));
    assert_eq!((pair.0[0].matched(TWO), pair.0[0].owned.phase(TWO)), (vec![plain("d", Durable)], Phase::Syncing));
    pair.talk(4);
    assert_eq!(pair.0[0].matched(TWO), [plain("d", Durable), plain("n", Transient), plain("t", Transient)]);
    assert_eq!(pair.0[0].owned.phase(TWO), Phase::Open);
    let counts = pair.0[0].owned.replica(TWO).unwrap().counts();
    assert_eq!(counts.snapshots, 1, "only at the beginning");
}

#[test]
fn what_was_on_its_way_before_opens_nothing() {
    let mut pair = Pair::new(config());
    pair.0[1].change(1, "t", Transient, Count::Plus);
    pair.talk(1);
    // A heartbeat is slow; meanwhile the link breaks and the owner goes on.
    pair.0[1].act(1001, |owned, now, out| owned.tick(now, out));
    let slow = core::mem::take(&mut pair.0[1].sent);
    pair.0[1].change(1002, "n", Transient, Count::Plus);
    pair.0[1].sent.clear();
    pair.0[0].act(1003, |owned, now, out| owned.down(now, TWO, INC, out));
    pair.0[0].act(1004, |owned, now, out| owned.up(now, TWO, INC, out));
    for (_, message) in slow {
        pair.0[0].receive(1005, TWO, INC, message);
    }
    assert_eq!((pair.0[0].owned.phase(TWO), pair.0[0].matched(TWO)), (Phase::Syncing, vec![]));
}

#[test]
fn a_new_incarnation_begins_with_its_own_routes() {
    let mut pair = Pair::new(config());
    pair.0[1].change(1, "t", Transient, Count::Plus);
    pair.0[1].change(1, "d", Durable, Count::Plus);
    pair.0[1].change(1, "e", Durable, Count::Plus);
    let late = core::mem::take(&mut pair.0[1].sent);
    for (_, message) in &late {
        pair.0[0].receive(1, TWO, INC, message.clone());
    }
    assert_eq!(pair.0[0].matched(TWO).len(), 3);
    pair.restart(config());
    pair.0[1].change(2, "d", Durable, Count::Is(1));
    pair.0[1].change(2, "n", Transient, Count::Plus);
    pair.0[0].act(2, |owned, now, out| owned.up(now, TWO, NEXT, out));
    assert_eq!(
        pair.0[0].matched(TWO),
        [plain("d", Durable), plain("e", Durable)],
        "of the older one only what is durable"
    );
    // Late ones of the older incarnation, before and after it is open.
    for (_, message) in &late {
        pair.0[0].receive(2, TWO, INC, message.clone());
    }
    pair.link(3);
    for (_, message) in late {
        pair.0[0].receive(3, TWO, INC, message);
    }
    assert_eq!(pair.0[0].matched(TWO), [plain("d", Durable), plain("n", Transient)]);
    // late_cleanup_race: the older one is found to be down when the newer one runs.
    pair.0[0].act(4, |owned, now, out| owned.down(now, TWO, INC, out));
    assert_eq!(pair.0[0].matched(TWO), [plain("d", Durable), plain("n", Transient)]);
    assert_eq!(pair.0[0].owned.phase(TWO), Phase::Open);
}

#[test]
fn a_node_gives_out_nothing_before_it_has_its_sessions_back() {
    let mut pair = Pair::new(config());
    pair.0[1].change(1, "d", Durable, Count::Plus);
    pair.talk(1);
    let mut owned = Owned::new(config(), at(0), TWO, NEXT, 1);
    owned.member(ONE);
    core::mem::swap(&mut pair.0[1].owned, &mut owned);
    pair.0[1].inc = NEXT;
    pair.link(2);
    assert_eq!(pair.0[0].matched(TWO), [plain("d", Durable)]);
    pair.0[1].change(3, "d", Durable, Count::Is(1));
    pair.0[1].act(3, |owned, now, out| owned.recovered(now, out));
    pair.talk(3);
    assert_eq!((pair.0[0].matched(TWO), pair.0[0].owned.phase(TWO)), (vec![plain("d", Durable)], Phase::Syncing));
    pair.0[0].act(1100, |owned, now, out| owned.tick(now, out));
    pair.talk(1100);
    assert_eq!((pair.0[0].matched(TWO), pair.0[0].owned.phase(TWO)), (vec![plain("d", Durable)], Phase::Open));
}

#[test]
pub(super) fn an_answer_to_an_earlier_incarnation_is_none() {
    let mut pair = Pair::new(config());
    pair.0[1].change(1, "a", Transient, Count::Plus);
    pair.talk(1);
    // The first node asks, and starts again before the answer has come.
    let mut first = One::new(ONE, INC, config());
    first.act(2, |owned, now, out| owned.up(now, TWO, INC, out));
    let question = first.sent.iter().find(|(_, message)| matches!(message, Message::SnapshotRequest { .. })).unwrap();
    pair.0[1].sent.clear();
    pair.0[1].receive(2, ONE, INC, question.1.clone());
    let late = core::mem::take(&mut pair.0[1].sent);
    assert!(matches!(late[..], [(ONE, Message::SnapshotChunk(_))]));
    pair.0[1].change(3, "b", Transient, Count::Plus);
    pair.0[0] = One::new(ONE, NEXT, config());
    pair.0[0].act(4, |owned, now, out| owned.up(now, TWO, INC, out));
    pair.0[0].receive(4, TWO, INC, late[0].1.clone());
    assert_eq!(pair.0[0].owned.phase(TWO), Phase::Syncing);
}

#[test]
fn a_gap_is_fetched() {
    let mut pair = Pair::new(config());
    pair.0[1].change(1, "a", Transient, Count::Plus);
    pair.0[1].sent.clear();
    pair.0[1].change(1, "b", Transient, Count::Plus);
    let (_, delta) = pair.0[1].sent.pop().unwrap();
    pair.0[0].receive(1, TWO, INC, delta);
    assert_eq!((pair.0[0].matched(TWO), pair.0[0].owned.replica(TWO).unwrap().version()), (vec![], Some(0)));
    assert!(matches!(pair.0[0].sent[..], [(TWO, Message::Fetch { version: 0, .. })]), "{:?}", pair.0[0].sent);
    pair.talk(1);
    assert_eq!(pair.0[0].matched(TWO), [plain("a", Transient), plain("b", Transient)]);
}

#[test]
fn many_changes_go_in_several_messages() {
    let mut pair = Pair::new(Config { message_ops: 4, message_bytes: 30, ..config() });
    let changes: Vec<Change> =
        (0..10).map(|i| Change { filter: filter(&format!("a/{i}")), class: Transient, count: Count::Plus }).collect();
    pair.0[1].act(1, |owned, now, out| owned.change(now, ShardId(0), &changes, out));
    let deltas = pair.0[1].sent.iter().filter(|(_, message)| matches!(message, Message::Delta(_))).count();
    pair.talk(1);
    let replica = pair.0[0].owned.replica(TWO).unwrap();
    assert_eq!((deltas, replica.version(), replica.counts().gaps), (5, Some(10), 0));
}

#[test]
fn a_snapshot_replaces() {
    let mut pair = Pair::new(Config { ring_ops: 2, message_bytes: 20, work: 3, ..config() });
    for i in 0..20 {
        pair.0[1].change(1, &format!("old/{i}"), if i % 2 == 0 { Durable } else { Transient }, Count::Plus);
    }
    pair.talk(1);
    assert_eq!(pair.0[0].matched(TWO).len(), 20);
    for i in 0..20 {
        pair.0[1].change(2, &format!("old/{i}"), if i % 2 == 0 { Durable } else { Transient }, Count::Minus);
        pair.0[1].change(2, &format!("new/{i}"), Transient, Count::Plus);
    }
    pair.0[1].sent.clear();
    pair.0[1].act(1002, |owned, now, out| owned.tick(now, out));
    let messages = pair.talk(1002);
    assert!(messages.iter().filter(|message| matches!(message, Message::SnapshotChunk(_))).count() > 5);
    let replica = pair.0[0].owned.replica(TWO).unwrap();
    assert_eq!((replica.counts().snapshots, replica.digest()), (2, pair.0[1].owned.log().digest()));
    let matched = pair.0[0].matched(TWO);
    assert!(matched.len() == 20 && matched.iter().all(|(text, ..)| text.starts_with("new/")), "{matched:?}");
}

#[test]
fn another_digest_is_repaired() {
    let mut pair = Pair::new(config());
    pair.0[1].change(1, "a", Transient, Count::Plus);
    // Something on the way was not what the owner said.
    let Some((_, Message::Delta(mut delta))) = pair.0[1].sent.pop() else { panic!("a delta") };
    delta.ops = [Op::Route { filter: filter("wrong"), class: Transient, shard: ShardId(0), members: 1 }].into();
    pair.0[0].receive(1, TWO, INC, Message::Delta(delta));
    let repairs = |pair: &Pair| pair.0[0].owned.replica(TWO).unwrap().counts().repairs;
    assert_eq!((pair.0[0].matched(TWO), repairs(&pair)), (vec![plain("wrong", Transient)], 1));
    pair.talk(1);
    assert_eq!(pair.0[1].owned.counts().repairs_heard, 1);
    pair.0[0].act(1002, |owned, now, out| owned.tick(now, out));
    pair.talk(1002);
    assert_eq!((pair.0[0].matched(TWO), repairs(&pair)), (vec![plain("a", Transient)], 1));
}

#[test]
fn only_members_are_listened_to_and_nothing_of_who_has_left_stays() {
    let mut pair = Pair::new(config());
    pair.0[1].change(1, "t", Transient, Count::Plus);
    pair.0[1].change(1, "d", Durable, Count::Plus);
    let late = pair.0[1].sent.clone();
    pair.talk(1);
    pair.0[0].act(2, |owned, now, out| owned.forget(now, TWO, out));
    for (_, message) in late {
        pair.0[0].receive(3, TWO, INC, message);
    }
    assert_eq!((pair.0[0].matched(TWO), pair.0[0].owned.counts().refused), (vec![], 2));
    assert_eq!(pair.0[0].owned.replicas().count(), 0);
}

#[test]
fn suback_waits_for_the_shards_of_both() {
    let mut pair = Pair::new(config());
    pair.talk(0);
    pair.0[0].holds = true;
    pair.0[1].holds = true;
    pair.0[1].change(1, "a", Transient, Count::Plus);
    let first = pair.0[1].act(1, |owned, now, out| owned.require(now, Mode::Fast, out));
    // A second subscriber of the same filter: there is no new entry, and it waits all the same.
    pair.0[1].change(2, "a", Transient, Count::Plus);
    let second = pair.0[1].act(2, |owned, now, out| owned.require(now, Mode::Fast, out));
    pair.talk(2);
    let newest = |one: &One| one.batches.last().unwrap().seq;
    let (own, other) = (newest(&pair.0[1]), newest(&pair.0[0]));
    pair.0[1].act(3, |owned, now, out| owned.installed(now, ShardId(0), own, out));
    assert!(pair.0[1].done.is_empty());
    pair.0[0].act(4, |owned, now, out| owned.installed(now, ShardId(0), other, out));
    pair.talk(4);
    assert_eq!(pair.0[1].done, [(first, true), (second, true)]);
}

#[test]
fn a_fast_barrier_gives_up() {
    let mut pair = Pair::new(config());
    pair.0[1].change(1, "a", Transient, Count::Plus);
    let barrier = pair.0[1].act(1, |owned, now, out| owned.require(now, Mode::Fast, out));
    pair.0[1].sent.clear();
    assert_eq!(pair.0[1].owned.next_deadline(), at(501));
    pair.0[1].act(500, |owned, now, out| owned.tick(now, out));
    assert!(pair.0[1].done.is_empty());
    pair.0[1].act(501, |owned, now, out| owned.tick(now, out));
    assert_eq!(pair.0[1].done, [(barrier, false)]);
    // Nobody waits for who is masked.
    pair.0[1].act(600, |owned, now, out| owned.down(now, ONE, INC, out));
    let barrier = pair.0[1].act(600, |owned, now, out| owned.require(now, Mode::Fast, out));
    assert_eq!(pair.0[1].done[1], (barrier, true));
}

#[test]
fn too_many_do_not_wait() {
    let mut pair = Pair::new(Config { barriers_max: 1, ..config() });
    pair.0[1].change(1, "a", Transient, Count::Plus);
    let _first = pair.0[1].act(1, |owned, now, out| owned.require(now, Mode::Fast, out));
    let second = pair.0[1].act(1, |owned, now, out| owned.require(now, Mode::Fast, out));
    assert_eq!((&pair.0[1].done[..], pair.0[1].owned.counts().incomplete), (&[(second, false)][..], 1));
}

#[test]
fn a_strict_barrier_waits_for_the_end_of_a_lease() {
    let mut pair = Pair::new(Config { strict: true, ..config() });
    for millis in [3000, 4000] {
        pair.0.iter_mut().for_each(|one| one.act(millis, |owned, now, out| owned.tick(now, out)));
        pair.talk(millis);
    }
    assert!(pair.0[0].owned.leases_are_fresh(at(4000)));
    // The holder is cut off: the owner waits for it although it counts as down.
    pair.0[1].act(4100, |owned, now, out| owned.down(now, ONE, INC, out));
    pair.0[1].change(4100, "a", Transient, Count::Plus);
    let barrier = pair.0[1].act(4100, |owned, now, out| owned.require(now, Mode::Strict, out));
    pair.0[1].sent.clear();
    assert!(pair.0[1].done.is_empty());
    assert!(pair.0[0].owned.leases_are_fresh(at(6900)) && !pair.0[0].owned.leases_are_fresh(at(6950)));
    pair.0[1].act(6999, |owned, now, out| owned.tick(now, out));
    assert!(pair.0[1].done.is_empty());
    pair.0[1].act(7000, |owned, now, out| owned.tick(now, out));
    assert_eq!(pair.0[1].done, [(barrier, true)]);
}

#[test]
fn a_start_waits_for_leases_of_before() {
    let mut one = One::new(ONE, NEXT, config());
    one.change(1, "a", Transient, Count::Plus);
    let barrier = one.act(1, |owned, now, out| owned.require(now, Mode::Strict, out));
    one.act(2999, |owned, now, out| owned.tick(now, out));
    assert!(one.done.is_empty());
    one.act(3000, |owned, now, out| owned.tick(now, out));
    assert_eq!(one.done, [(barrier, true)]);
}

#[test]
fn a_member_without_table_is_known() {
    let mut one = One::new(ONE, INC, config());
    one.owned.member(TWO);
    assert_eq!(one.owned.without_table().collect::<Vec<_>>(), [TWO]);
    let entries = [
        Op::Route { filter: filter("d"), class: Durable, shard: ShardId(0), members: 1 },
        Op::Route { filter: filter("t"), class: Transient, shard: ShardId(0), members: 1 },
    ];
    one.act(0, |owned, now, out| owned.restore(now, TWO, &entries, out));
    assert_eq!((one.owned.without_table().count(), one.matched(TWO)), (0, vec![plain("d", Durable)]));
}

#[test]
fn the_table_of_who_is_away_comes_from_a_peer() {
    let mut pair = Pair::new(Config { message_bytes: 20, work: 2, ..config() });
    let three = NodeId(3);
    let entries: Vec<Op> = (0..9)
        .map(|i| Op::Route { filter: filter(&format!("d/{i}")), class: Durable, shard: ShardId(i % 2), members: 1 })
        .collect();
    pair.0[0].act(1, |owned, now, out| owned.restore(now, three, &entries, out));
    pair.0[1].owned.member(three);
    pair.0[1].act(2, |owned, now, out| owned.tick(now, out));
    let messages = pair.talk(2);
    assert!(messages.iter().filter(|message| matches!(message, Message::Table(_))).count() > 6, "in parts");
    assert_eq!((pair.0[1].owned.without_table().count(), pair.0[1].matched(three).len()), (0, 9));
    // Who has a table takes no other.
    let (inc, attempt, from, to) = (NEXT, 1, Cursor::START, Cursor::END);
    let (ops, entries) = (Vec::new(), Vec::new());
    let chunk = Chunk { inc, attempt, base: 0, ops, version: 0, from, entries, to, head: 0, digest: 0 };
    pair.0[1].receive(3, ONE, INC, Message::Table(Table::Part { owner: three, chunk }));
    assert_eq!(pair.0[1].matched(three).len(), 9);
}

#[test]
fn what_has_to_be_stored_is_waited_for() {
    let mut pair = Pair::new(Config { stored: true, ..config() });
    pair.0.iter_mut().for_each(|one| one.act(0, |owned, now, out| owned.stored(now, u64::MAX, out)));
    pair.talk(0);
    pair.0[1].change(1, "d", Durable, Count::Plus);
    pair.0[1].act(1, |owned, now, out| owned.stored(now, u64::MAX, out));
    let barrier = pair.0[1].act(1, |owned, now, out| owned.require(now, Mode::Fast, out));
    pair.talk(1);
    assert!(pair.0[1].done.is_empty());
    pair.0[0].act(2, |owned, now, out| owned.stored(now, u64::MAX, out));
    pair.talk(2);
    assert_eq!(pair.0[1].done, [(barrier, true)]);
}

#[test]
fn records_come_with_the_routes() {
    let mut pair = Pair::new(config());
    for (client, value) in [("c", Some("x")), ("d", Some("y")), ("c", None)] {
        let (key, value) = (client.as_bytes(), value.map(str::as_bytes));
        pair.0[1].act(1, |owned, now, out| owned.record(now, RecordKind::Home, key, value, out));
    }
    pair.talk(1);
    let records: Vec<&Op> = pair.0[0].batches.iter().flat_map(|batch| &batch.records).collect();
    let op = |key: &str, value: Option<&str>| {
        let value = value.map(|value| value.as_bytes().into());
        Op::Record { kind: RecordKind::Home, key: key.as_bytes().into(), value }
    };
    assert_eq!(records, [&op("c", Some("x")), &op("d", Some("y")), &op("c", None)]);
    let replica = pair.0[0].owned.replica(TWO).unwrap();
    assert_eq!(replica.entries().collect::<Vec<_>>(), [op("d", Some("y"))]);
}

#[test]
fn a_flapping_peer_counts_as_down() {
    let mut pair = Pair::new(config());
    let mut phases = Vec::new();
    for flap in 1..=4 {
        let millis = flap * 1000;
        pair.0[0].act(millis, |owned, now, out| owned.down(now, TWO, INC, out));
        pair.0[0].act(millis + 1, |owned, now, out| owned.up(now, TWO, INC, out));
        pair.talk(millis + 1);
        phases.push(pair.0[0].owned.phase(TWO));
    }
    assert_eq!(phases, [Phase::Open, Phase::Masked, Phase::Masked, Phase::Masked]);
    let due = at(4001) + Duration::from_secs(2);
    assert!(pair.0[0].owned.next_deadline() <= due);
    pair.0[0].act(6000, |owned, now, out| owned.tick(now, out));
    assert_eq!(pair.0[0].owned.phase(TWO), Phase::Masked);
    pair.0[0].act(6001, |owned, now, out| owned.tick(now, out));
    pair.talk(6001);
    assert_eq!(pair.0[0].owned.phase(TWO), Phase::Open);
}
