//! Scenario files: what is read is what was written, mistakes are told all at once, the reference is up to date.

use newtmq_mqtt::{ProtocolVersion, RetainHandling};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::history::AckKind;

fn parsed(text: &str) -> Scenario {
    Scenario::parse("test.toml", text).unwrap_or_else(|problems| panic!("{problems}\n{text}"))
}

fn problems(text: &str) -> String {
    Scenario::parse("test.toml", text).unwrap_err().to_string()
}

#[test]
fn the_example_of_the_reference_is_a_scenario_and_written_as_it_stands() {
    assert_eq!(parsed(docs::EXAMPLE).to_toml(), docs::EXAMPLE);
}

#[test]
fn the_reference_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/scenarios.md");
    #[expect(clippy::disallowed_methods, reason = "a test of a file")]
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == markdown(), "run `cargo sim docs docs/scenarios.md` and review the difference");
}

#[test]
fn every_mistake_of_a_file_is_told_at_once() {
    let text = r#"
why = 3
seed = -1
nodes = 32
shards = 17
settel_ms = 3

[net]
latency_ms = [20, 1]
latency_us = 4

[[client]]
name = "a"
version = "4"
will_qos = 1
reconnect_max_ms = 5

[[client]]
name = "a"
receive_maximum = 0

[[client]]
clean = "yes"

[[step]]
at_ms = 1
do = "conect"
client = "a"

[[step]]
do = "subscribe"
client = "A"
filter = "a/#/b"
qos = 3

[[step]]
at_ms = 2
do = "publish"
client = "a"
topic = "t/#"
qoss = 1
size = 1.5

[[step]]
at_ms = 5
do = "lag"
shard = 1

[[step]]
at_ms = 9
do = "raw"
client = "a"
bytes = "abc"

[[step]]
at_ms = 9
do = "subscribe"
client = "a"
filters = ["x", { filter = "y", noLocal = true }, 3]

[expect]
verdict = "s1"
trace_hash = "abc"
"#;
    insta::assert_snapshot!(problems(text));
}

#[test]
fn what_is_not_toml_is_told_with_its_line() {
    insta::assert_snapshot!(problems("format = 1\nseed = = 3\n[[client]]\nname = \"a\nid = \"b\"\n"));
}

#[test]
fn sections_of_the_wrong_shape() {
    insta::assert_snapshot!(problems("format = 2\nnet = 3\n[client]\nname = \"a\"\n[[expect]]\nverdict = \"ok\"\n"));
}

#[test]
fn short_forms() {
    let scenario = parsed(
        r#"
format = 1
seed = "0xffffffffffffffff"
net = { latency_ms = 3, work_delay_ms = 1 }
[[client]]
id = "x"
version = 3.1
[[client]]
name = "y"
id = ""
[[step]]
at_ms = 9
do = "subscribe"
client = "y"
qos = 1
filters = ["a", { filter = "b", qos = 2 }, { filter = "$share/g/c", no_local = true }]
[[step]]
at_ms = 1
do = "raw"
client = "x"
bytes = "C0 00"
"#,
    );
    assert_eq!(scenario.seed, u64::MAX);
    assert_eq!((scenario.net.latency_us.clone(), scenario.net.work_delay_us), (3_000..=3_000, 1_000));
    let [x, y] = &scenario.clients[..] else { panic!("two clients") };
    assert_eq!((&x.name[..], &x.id[..], x.version), ("x", "x", ProtocolVersion::V31));
    assert_eq!((&y.name[..], &y.id[..]), ("y", ""));
    assert_eq!(scenario.steps[0].action, Action::Client { client: ClientIx(0), act: Act::Raw(vec![0xC0, 0]) });
    let filters = vec![
        FilterSpec::new("a", QoS::AtLeastOnce),
        FilterSpec::new("b", QoS::ExactlyOnce),
        FilterSpec { no_local: true, ..FilterSpec::new("$share/g/c", QoS::AtLeastOnce) },
    ];
    let act = Act::Subscribe { filters, subscription_id: 0 };
    assert_eq!(scenario.steps[1].action, Action::Client { client: ClientIx(1), act });
    assert_eq!(parsed(&scenario.to_toml()), scenario);
}

#[test]
fn every_action_has_the_name_that_makes_it() {
    for (name, _, prototype) in steps::ACTIONS {
        assert_eq!(prototype().name(), *name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_again(scenario in scenario()) {
        let text = scenario.to_toml();
        let again = Scenario::parse("test.toml", &text).map_err(|problems| TestCaseError::fail(format!("{problems}\n{text}")))?;
        prop_assert_eq!(&again, &scenario);
        prop_assert_eq!(again.to_toml(), text);
    }
}

const CLIENTS: u32 = 3;
const NODES: u16 = 3;

fn scenario() -> impl Strategy<Value = Scenario> {
    let head = (".{0,20}", of(1..=NODES), any::<u64>(), 1..=16_u16, 0..100_000_u64);
    let expect = (select(vec!["ok", "S1", "S9b", "crash"]), of("[0-9a-f]{16}"), vec("[a-z0-9-]{1,9}", 0..3));
    let nodes = (cluster(), vec((0..5_000_u64, any::<bool>()), 0..3));
    let steps = vec((0..5_000_u64, action()), 0..12);
    (head, broker(), nodes, (net(), sn()), vec(client(), CLIENTS as usize), steps, expect).prop_map(
        |(head, broker, (cluster, node_specs), (net, sn), mut clients, steps, (verdict, trace_hash, kills))| {
            let (why, nodes, seed, shards, settle_ms) = head;
            for (number, client) in clients.iter_mut().enumerate() {
                client.name.push_str(&number.to_string());
            }
            let mut steps: Vec<Step> = steps.into_iter().map(|(at_ms, action)| Step { at_ms, action }).collect();
            steps.sort_by_key(|step| step.at_ms);
            let nodes = if steps.iter().any(names_a_node) { Some(NODES) } else { nodes };
            // What several nodes cannot do in the madsim tier is refused.
            let sn_client = clients.iter().any(|client| client.sn);
            let alone = nodes.is_none() && cluster == ClusterSpec::default() && !sn_client;
            let driver = if alone { Driver::Madsim } else { Driver::Kernel };
            let node_specs = node_specs
                .into_iter()
                .map(|(start_ms, witness)| NodeSpec { start_ms, witness, ..NodeSpec::default() })
                .collect();
            let expect = Expect { verdict: verdict.into(), trace_hash, kills };
            Scenario {
                why,
                driver,
                seed,
                nodes: nodes.unwrap_or(1),
                shards,
                settle_ms,
                broker,
                cluster,
                net,
                sn,
                disk: DiskSpec { write_us: 0..=shards.into(), ..DiskSpec::default() },
                node_specs,
                clients,
                steps,
                expect,
            }
        },
    )
}

fn broker() -> impl Strategy<Value = BrokerSpec> {
    let zone = (of(1..=u16::MAX), of(0..9_u16), of(0..9_u64), of(any::<bool>()), of(0..9_u32), of(0..99_u64));
    let rest = (of(0..9_u64), of(0..9_u32), of(0..=2_u8), of(0..9_u16), of(any::<bool>()), of(0..9_u64));
    let strategy = of(select(vec![
        SharedStrategy::Random,
        SharedStrategy::RoundRobin,
        SharedStrategy::Sticky,
        SharedStrategy::Hash,
    ]));
    (zone, rest, strategy).prop_map(|((a, b, c, d, e, f), (g, h, i, j, k, l), strategy)| BrokerSpec {
        will_ha: k,
        durability: d.map(|sync| if sync { DurabilitySpec::Group } else { DurabilitySpec::None }),
        max_inflight: a,
        max_mqueue_len: b,
        max_mqueue_bytes: c,
        mqueue_store_qos0: d,
        max_awaiting_rel: b,
        await_rel_timeout_ms: f,
        retry_interval_ms: l,
        session_expiry_interval_s: e,
        max_session_expiry_interval_s: h,
        max_subscriptions: e,
        upgrade_qos: k,
        server_keepalive_s: j,
        idle_timeout_ms: f,
        slow_consumer_timeout_ms: g,
        max_publisher_hold_ms: l,
        publish_limit_per_s: e,
        rate_limit_bytes_per_s: g,
        max_connections: h,
        max_packet_size: e,
        max_qos_allowed: i,
        max_topic_alias: j,
        ignore_loop_deliver: d,
        max_retained_messages: h,
        retained_expiry_interval_ms: c,
        shared_subscription_strategy: strategy,
        sys_interval_ms: f,
    })
}

fn span(most: u64) -> impl Strategy<Value = core::ops::RangeInclusive<u64>> {
    (1..=most, 0..=most).prop_map(|(low, more)| low..=low + more)
}

fn net() -> impl Strategy<Value = NetSpec> {
    let random = (span(4_000), 0..=900_000_u32, 0..999_u64, span(3_000), 1..99_999_u64, span(9), 0..5_000_u64)
        .prop_map(|(latency_us, loss_ppm, retransmit_ms, chunk_bytes, socket_bytes, shard_delay_us, work_delay_us)| {
            let nodes = NodeNetSpec {
                latency_us: shard_delay_us.clone(),
                tail_us: work_delay_us,
                loss_ppm,
                dup_ppm: loss_ppm / 2,
                bytes_per_s: retransmit_ms,
                chunk_bytes: latency_us.clone(),
                socket_bytes,
            };
            NetSpec {
                latency_us,
                loss_ppm,
                retransmit_ms,
                chunk_bytes,
                socket_bytes,
                shard_delay_us,
                work_delay_us,
                nodes,
            }
        });
    prop_oneof![Just(NetSpec::default()), random]
}

fn sn() -> impl Strategy<Value = SnSpec> {
    let who = select(vec![Qos3::Off, Qos3::Connected, Qos3::On]);
    let topics = vec(select(vec!["a", "b/c", "ä"]), 0..3);
    let random =
        (who, topics, (of(1..999_u64), of(0..9_u8), of(1..9_u16), of(any::<bool>())), span(4_000), 0..=900_000_u32)
            .prop_map(|(qos3, topics, (ms, retries, count, resume), latency_us, ppm)| SnSpec {
                predefined: topics.into_iter().map(str::to_owned).collect(),
                qos3,
                retry_interval_ms: ms,
                max_retries: retries,
                max_topic_ids: count,
                max_buffer_len: count,
                subs_resume: resume,
                late_us: *latency_us.end(),
                latency_us,
                loss_ppm: ppm,
                dup_ppm: ppm / 2,
                late_ppm: ppm / 3,
            });
    prop_oneof![Just(SnSpec::default()), random]
}

fn cluster() -> impl Strategy<Value = ClusterSpec> {
    let ways = select(vec![Discovery::Seeds, Discovery::Dns, Discovery::None]);
    let numbers = (of(0..9_u32), of(1..999_u64), of(1..999_u32), of(select(vec![1, 3, 5])));
    (ways, any::<bool>(), numbers, of(any::<bool>())).prop_map(
        |(discovery, strict, (seconds, ms, count, voters), on)| ClusterSpec {
            fresh: on == Some(true),
            discovery,
            barrier: if strict { Barrier::Strict } else { Barrier::Fast },
            autoclean_s: seconds,
            pace_percent: count,
            heartbeat_ms: ms,
            detect_ms: ms,
            relay_after_ms: ms,
            voters_max: voters,
            snapshot_every: ms,
            keep_entries: ms,
            ring_ops: count,
            message_ops: count,
            barrier_ms: ms,
            lease_ms: ms,
            lane_window_messages: count,
            lane_window_bytes: count,
            lane_waiting_messages: count,
            lane_unstored_messages: count,
            lane_pauses_qos0: on,
            ticket_max_ms: ms,
        },
    )
}

fn qos() -> impl Strategy<Value = QoS> {
    select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

fn client() -> impl Strategy<Value = ClientSpec> {
    let versions = select(vec![ProtocolVersion::V5, ProtocolVersion::V311, ProtocolVersion::V31]);
    let who = ("[a-z\"\\\\\n\u{7f}ä]{1,6}", of("[^\u{0}]{0,6}"), versions, any::<bool>(), of(".{0,5}"));
    let numbers = (any::<u32>(), any::<u16>(), 1..=u16::MAX, any::<u32>(), any::<u16>(), any::<bool>(), span(50));
    let will = of(("[a-z/]{1,5}", qos(), any::<bool>(), 0..9_u32, 0..9_u32));
    let reconnect = of((0..9_999_u64, 0..99_999_u64, 0..300_u32, 0..=100_u32));
    (who, numbers, will, reconnect).prop_map(|((name, id, version, clean, username), numbers, will, reconnect)| {
        let (expiry, keep_alive_s, receive_maximum, max_packet_size, topic_alias_maximum, auto, ack_delay_ms) = numbers;
        let sn = keep_alive_s % 3 == 0;
        ClientSpec {
            sn,
            forwarder: (sn && auto).then(|| "hub".to_owned()),
            id: id.unwrap_or_else(|| name.clone()),
            name,
            node: 0,
            version,
            clean,
            session_expiry_s: expiry,
            keep_alive_s,
            receive_maximum,
            max_packet_size,
            topic_alias_maximum,
            username: username.map(|name| name.replace('\0', "")),
            acks: if auto { Acks::Auto } else { Acks::Never },
            ack_delay_ms,
            will: will.map(|(topic, qos, retain, delay_s, expiry_s)| WillSpec {
                topic,
                qos,
                retain,
                delay_s,
                expiry_s,
            }),
            reconnect: reconnect.map(|(first_ms, max_ms, growth_percent, jitter_percent)| ReconnectSpec {
                first_ms,
                max_ms,
                growth_percent,
                jitter_percent,
            }),
        }
    })
}

fn filter() -> impl Strategy<Value = FilterSpec> {
    let handling = select(vec![RetainHandling::SendAtSubscribe, RetainHandling::SendIfNew, RetainHandling::DoNotSend]);
    let texts = select(vec!["#", "a/+/b", "$share/g/a/#", "$SYS/#", "\"quoted\""]);
    let random = (texts.clone(), qos(), any::<bool>(), any::<bool>(), handling).prop_map(
        |(filter, qos, no_local, retain_as_published, retain_handling)| FilterSpec {
            filter: filter.into(),
            qos,
            no_local,
            retain_as_published,
            retain_handling,
        },
    );
    prop_oneof![texts.prop_map(|filter| FilterSpec::new(filter, QoS::AtLeastOnce)), random]
}

fn publish() -> impl Strategy<Value = PublishSpec> {
    let topic = select(vec!["a", "a/b", "/", "with space", "ä\"\\"]);
    (topic, qos(), any::<bool>(), 0..9_999_u32, 0..9_u32, 0..4_u16, 1..9_u32, 0..5_000_u64).prop_map(
        |(topic, qos, retain, size, expiry_s, alias, count, every_us)| PublishSpec {
            topic: topic.into(),
            qos,
            retain,
            size,
            expiry_s,
            alias,
            count,
            every_us,
        },
    )
}

fn act() -> impl Strategy<Value = Act> {
    let kinds = select(vec![AckKind::Puback, AckKind::Pubrec, AckKind::Pubrel, AckKind::Pubcomp]);
    prop_oneof![
        (of(any::<bool>()), of(any::<u32>())).prop_map(|(clean, session_expiry_s)| Act::Connect {
            clean,
            session_expiry_s,
            node: None
        }),
        (any::<bool>(), of(any::<u32>()))
            .prop_map(|(with_will, session_expiry_s)| Act::Disconnect { with_will, session_expiry_s }),
        select(vec![Act::HangUp, Act::Reset, Act::Vanish, Act::PublishAgain, Act::Ping]),
        (vec(filter(), 1..4), 0..99_u32)
            .prop_map(|(filters, subscription_id)| Act::Subscribe { filters, subscription_id }),
        vec(filter().prop_map(|filter| filter.filter), 1..4).prop_map(|filters| Act::Unsubscribe { filters }),
        publish().prop_map(Act::Publish),
        (publish(), 0..99_u32).prop_map(|(publish, keep)| Act::PublishTorn { publish, keep }),
        any::<bool>().prop_map(|auto| Act::SetAcks(if auto { Acks::Auto } else { Acks::Never })),
        any::<bool>().prop_map(Act::SetReading),
        any::<bool>().prop_map(Act::Freeze),
        (kinds, 1..=u16::MAX).prop_map(|(kind, pid)| Act::StrayAck { kind, pid }),
        vec(any::<u8>(), 0..9).prop_map(Act::Raw),
        of_sn(),
    ]
}

fn of_sn() -> impl Strategy<Value = Act> {
    let will = of(("[a-z/]{1,5}", qos(), any::<bool>()))
        .prop_map(|will| will.map(|(topic, qos, retain)| WillSpec { topic, qos, retain, delay_s: 0, expiry_s: 0 }));
    prop_oneof![
        (1..=u16::MAX, any::<bool>()).prop_map(|(duration_s, wakes)| Act::Sleep { duration_s, wakes }),
        Just(Act::Wake { node: None }),
        of((0..CLIENTS).prop_map(ClientIx)).prop_map(|of| Act::Rebind { of }),
        will.prop_map(Act::SetWill),
        publish().prop_map(Act::PublishUnconnected),
        Just(Act::Search),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let client = || (0..CLIENTS).prop_map(ClientIx);
    let node = 0;
    prop_oneof![
        4 => (client(), act()).prop_map(|(client, act)| Action::Client { client, act }),
        1 => (client(), any::<bool>(), any::<bool>())
            .prop_map(|(client, to_server, to_client)| WorldAction::Cut { client, to_server, to_client })
            .prop_map(Action::World),
        1 => (client(), 0..999_u64, any::<bool>()).prop_map(|(client, bytes_per_s, heal)| {
            Action::World(if heal { WorldAction::Heal { client } } else { WorldAction::Bandwidth { client, bytes_per_s } })
        }),
        1 => (0..12, 0..9_000_u64, -500_000..=500_000).prop_map(move |(which, number, ppm)| Action::World(match which {
            0 => WorldAction::Pause { node, ms: number },
            1 => WorldAction::ClockJump { node, by_ms: i64::from(ppm) },
            2 => WorldAction::Drift { node, ppm },
            3 => WorldAction::Lag { node, shard: 0, by_us: number },
            4 => WorldAction::Crash { node, power_loss: number % 2 == 0 },
            5 => WorldAction::Restart { node },
            6 => WorldAction::Shutdown { node },
            7 => WorldAction::DiskFull { node, on: number % 2 == 0 },
            8 => WorldAction::DiskSlow { node, by_us: number },
            9 => WorldAction::DiskFails { node },
            10 => WorldAction::DiskRot { node, at_ppm: number },
            _ => WorldAction::MemoryPressure { node, level: 2 },
        })),
        1 => (0..16, 0..NODES, 0..NODES, 1..9_000_u64).prop_map(|(which, from, to, number)| Action::World(match which {
            0 => WorldAction::Wipe { node: from },
            1 => WorldAction::NewAddress { node: from },
            2 => WorldAction::CutLink { from, to },
            3 => WorldAction::HealLink { from, to },
            4 => WorldAction::Partition { groups: vec![vec![from, 1], vec![], vec![to]] },
            5 => WorldAction::Isolate { node: from },
            6 => WorldAction::HealLinks,
            7 => WorldAction::Flap { from, to, down_ms: number, up_ms: 1_000, count: 3 },
            8 => WorldAction::SlowLink { from, to, by_us: number, bytes_per_s: number / 2 },
            9 => WorldAction::Join { node: from, to },
            10 => WorldAction::Leave { node: from },
            11 => WorldAction::ForceLeave { node: from, target: to },
            12 => WorldAction::Write { node: from, key: to as u8 },
            13 => WorldAction::Upgrade { node: from, later: to as u8 },
            14 => WorldAction::Finalize { node: from },
            _ => WorldAction::Status { node: from },
        })),
    ]
}

/// Whether all nodes have to be there for it.
fn names_a_node(step: &Step) -> bool {
    matches!(step.action, Action::World(_))
}
