//! What the simulated TCP does. Run with `RUSTFLAGS="--cfg madsim" cargo test -p newtmq-simnet --target-dir target/sim`.
#![cfg(madsim)]
// A test says what it expects by failing.
#![allow(clippy::unwrap_used)]

use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use madsim::runtime::{Handle, NodeHandle, Runtime};
use newtmq_simnet::{Link, LinkSpec, Net, OnKill, SimListener, SimStream, install};
use tokio::io::{AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep, timeout};

const SERVER: &str = "10.0.0.1:1883";
const LATENCY: Duration = Duration::from_millis(10);
const LONG: Duration = Duration::from_secs(3600);

/// 10 ms each way, pieces of 1000 bytes, 10,000 bytes of buffers.
const SPEC: LinkSpec = LinkSpec {
    latency_us: [(10_000, 10_000); 2],
    loss_ppm: 0,
    retransmit_ms: 0,
    chunk_bytes: (1_000, 1_000),
    socket_bytes: 10_000,
    syn_timeout_ms: 10_000,
    tail_us: 0,
    dup_ppm: 0,
    bytes_per_s: 0,
};

/// A world with a link, and both ends of a connection on it.
struct World {
    link: Link,
    server: SimStream,
    client: SimStream,
    node: NodeHandle,
}

fn address() -> SocketAddr {
    SERVER.parse().unwrap()
}

/// Runs a test in a thread of its own, as madsim wants.
fn simulate<F: Future<Output = ()>>(seed: u64, body: impl FnOnce(Arc<Net>, NodeHandle) -> F + Send + 'static) {
    let run = move || {
        let runtime = Runtime::with_seed_and_config(seed, madsim::Config::default());
        install(&runtime);
        let node = runtime.create_node().name("server").build();
        runtime.block_on(async { body(Net::current(), node).await });
    };
    std::thread::spawn(run).join().unwrap();
}

fn connected<F: Future<Output = ()>>(spec: LinkSpec, body: impl FnOnce(World) -> F + Send + 'static) {
    simulate(1, move |net, node| async move {
        let accepted = node.spawn(async { SimListener::bind(address()).await.unwrap().accept().await.unwrap().0 });
        let link = Link::new(&net, "10.1.0.1".parse().unwrap(), spec, 7);
        let client = link.connect(address()).await.unwrap();
        let server = accepted.await.unwrap();
        body(World { link, server, client, node }).await;
    });
}

/// Writes what fits at once.
fn write_now(stream: &mut SimStream, bytes: &[u8]) -> usize {
    let written = Pin::new(stream).poll_write(&mut Context::from_waker(Waker::noop()), bytes);
    if let std::task::Poll::Ready(count) = written { count.unwrap() } else { 0 }
}

async fn read(stream: &mut SimStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    timeout(LONG, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
    bytes
}

fn near(took: Duration, wanted: Duration) {
    assert!(took >= wanted && took < wanted + Duration::from_micros(100), "{took:?} instead of {wanted:?}");
}

#[test]
fn what_is_written_arrives_after_the_latency_and_says_when_it_was_written() {
    connected(SPEC, |mut world| async move {
        let written = Instant::now();
        let start = madsim::time::TimeHandle::current().elapsed();
        world.server.write_all(&[7; 2_500]).await.unwrap();
        let mut sizes = Vec::new();
        let mut buffer = Vec::new();
        for _ in 0..3 {
            let sent = poll_fn(|cx| world.client.poll_piece(cx, &mut buffer)).await.unwrap().unwrap();
            near(sent, start);
            sizes.push(buffer.len());
        }
        assert_eq!(sizes, [1_000, 2_000, 2_500]);
        near(written.elapsed(), LATENCY);
    });
}

#[test]
fn fin_comes_after_everything_else_and_the_other_way_stays_open() {
    connected(SPEC, |mut world| async move {
        world.client.write_all(b"last words").await.unwrap();
        world.client.shutdown().await.unwrap();
        assert_eq!(world.client.write(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        let mut all = Vec::new();
        world.server.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"last words");
        world.server.write_all(b"answer").await.unwrap();
        assert_eq!(read(&mut world.client, 6).await, b"answer");
    });
}

#[test]
fn a_reset_loses_what_is_under_way() {
    connected(SPEC, |mut world| async move {
        world.client.write_all(b"early").await.unwrap();
        sleep(LATENCY * 2).await;
        world.client.write_all(b"late").await.unwrap();
        world.server.write_all(b"lost").await.unwrap();
        world.client.reset();
        assert_eq!(read(&mut world.server, 5).await, b"early");
        let since = Instant::now();
        assert_eq!(world.server.read(&mut [0; 9]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        near(since.elapsed(), LATENCY);
        assert_eq!(world.server.write(b"x").await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_drop_with_something_unread_resets_and_one_without_ends() {
    connected(SPEC, |mut world| async move {
        world.server.write_all(b"unread").await.unwrap();
        sleep(LATENCY * 2).await;
        drop(world.client);
        assert_eq!(world.server.read(&mut [0; 9]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
    connected(SPEC, |mut world| async move {
        drop(world.client);
        assert_eq!(world.server.read(&mut [0; 9]).await.unwrap(), 0);
        // Nobody is there to take it.
        world.server.write_all(b"too late").await.unwrap();
        sleep(LATENCY * 3).await;
        assert_eq!(world.server.write(b"x").await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_half_open_connection_gets_no_answer() {
    connected(SPEC, |mut world| async move {
        world.client.write_all(b"last").await.unwrap();
        world.client.abandon();
        assert_eq!(read(&mut world.server, 4).await, b"last");
        assert!(timeout(LONG, world.server.read(&mut [0; 9])).await.is_err());
        assert_eq!(write_now(&mut world.server, &[0; 20_000]), 10_000);
        assert!(timeout(LONG, world.server.write(b"x")).await.is_err());
    });
}

#[test]
fn a_cut_holds_one_direction_until_it_is_healed() {
    connected(SPEC, |mut world| async move {
        world.client.write_all(b"under way").await.unwrap();
        world.link.cut(true, false);
        world.client.write_all(b" and after").await.unwrap();
        world.server.write_all(b"other way").await.unwrap();
        assert_eq!(read(&mut world.client, 9).await, b"other way");
        assert!(timeout(LONG, world.server.read(&mut [0; 1])).await.is_err());
        world.client.shutdown().await.unwrap();
        let healed = Instant::now();
        world.link.heal();
        let mut all = Vec::new();
        world.server.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"under way and after");
        near(healed.elapsed(), LATENCY);
    });
}

/// What was read makes room only when the writer hears of it.
#[test]
fn a_full_socket_holds_its_writer_until_there_is_room() {
    connected(SPEC, |mut world| async move {
        assert_eq!(write_now(&mut world.server, &[1; 12_345]), 10_000);
        assert_eq!(write_now(&mut world.server, &[2; 1]), 0);
        sleep(LATENCY * 2).await;
        let since = Instant::now();
        let writing = async {
            assert_eq!(world.server.write(&[3; 4_000]).await.unwrap(), 1_500);
            near(since.elapsed(), LATENCY);
        };
        let reading = async { assert_eq!(read(&mut world.client, 1_500).await, [1; 1_500]) };
        tokio::join!(writing, reading);
        assert_eq!(read(&mut world.client, 8_501).await[8_500], 3);
    });
    // Nor does it hear of it while that way is cut.
    connected(SPEC, |mut world| async move {
        assert_eq!(write_now(&mut world.server, &[1; 10_000]), 10_000);
        world.link.cut(true, false);
        read(&mut world.client, 10_000).await;
        assert!(timeout(LONG, world.server.write(&[1])).await.is_err());
        world.link.heal();
        timeout(LATENCY * 2, world.server.write_all(&[1])).await.unwrap().unwrap();
    });
}

#[test]
fn a_syn_that_nobody_answers_is_given_up_and_one_to_a_closed_port_refused() {
    simulate(1, |net, node| async move {
        let link = Link::new(&net, "10.1.0.1".parse().unwrap(), SPEC, 7);
        let since = Instant::now();
        assert_eq!(link.connect(address()).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        near(since.elapsed(), LATENCY * 2);
        let listening = node.spawn(async { SimListener::bind(address()).await.unwrap().accept().await.unwrap().0 });
        sleep(LATENCY).await;
        link.cut(false, true);
        let since = Instant::now();
        assert_eq!(link.connect(address()).await.unwrap_err().kind(), ErrorKind::TimedOut);
        near(since.elapsed(), Duration::from_secs(10));
        // The second SYN comes through.
        let since = Instant::now();
        let connecting = link.connect(address());
        let healing = async {
            sleep(Duration::from_millis(500)).await;
            link.heal();
        };
        tokio::join!(async { connecting.await.unwrap() }, healing);
        near(since.elapsed(), Duration::from_secs(1) + LATENCY * 2);
        drop(listening);
    });
}

#[test]
fn bandwidth_and_loss_delay() {
    connected(SPEC, |mut world| async move {
        world.link.set_bandwidth(1_000);
        let since = Instant::now();
        world.client.write_all(&[0; 3_000]).await.unwrap();
        read(&mut world.server, 3_000).await;
        near(since.elapsed(), Duration::from_secs(3) + LATENCY);
    });
    connected(LinkSpec { loss_ppm: 200_000, retransmit_ms: 200, ..SPEC }, |mut world| async move {
        let since = Instant::now();
        for n in 0..20 {
            world.client.write_all(&[n]).await.unwrap();
        }
        assert_eq!(read(&mut world.server, 20).await, (0..20).collect::<Vec<u8>>());
        assert!(since.elapsed() > Duration::from_millis(200));
    });
}

#[test]
fn a_killed_node_resets_its_connections_or_answers_nothing() {
    connected(SPEC, |mut world| async move {
        let since = Instant::now();
        Handle::current().kill(world.node.id());
        assert_eq!(world.client.read(&mut [0; 9]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        near(since.elapsed(), LATENCY);
        assert_eq!(world.link.connect(address()).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        drop(world.server);
    });
    connected(SPEC, |mut world| async move {
        Net::current().set_on_kill(OnKill::Silent);
        Handle::current().kill(world.node.id());
        assert!(timeout(LONG, world.client.read(&mut [0; 9])).await.is_err());
        assert_eq!(world.link.connect(address()).await.unwrap_err().kind(), ErrorKind::TimedOut);
        // The same address again, after a restart.
        Handle::current().restart(world.node.id());
        let node = Handle::current().get_node(world.node.id()).unwrap();
        let accepted = node.spawn(async { SimListener::bind(address()).await.unwrap().accept().await.unwrap().0 });
        sleep(LATENCY).await;
        world.link.connect(address()).await.unwrap();
        accepted.await.unwrap();
        drop(world.server);
    });
}

/// Who was not told that a node is gone hears it in the end; and all connections can be broken at once.
#[test]
fn silence_ends() {
    connected(SPEC, |mut world| async move {
        Net::current().set_on_kill(OnKill::Silent);
        Handle::current().kill(world.node.id());
        assert!(timeout(LONG, world.client.read(&mut [0; 9])).await.is_err());
        Net::current().end_silence();
        assert_eq!(world.client.read(&mut [0; 9]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        drop(world.server);
    });
    connected(SPEC, |mut world| async move {
        world.client.abandon();
        assert!(timeout(LONG, world.server.read(&mut [0; 9])).await.is_err());
        Net::current().reset_from(madsim::plugin::node());
        assert_eq!(world.server.read(&mut [0; 9]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

/// Connections of a paused node are made, and what they get waits.
#[test]
fn a_paused_node_has_a_network() {
    simulate(1, |net, node| async move {
        let got = node.spawn(async {
            let listener = SimListener::bind(address()).await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            (read(&mut stream, 5).await, Instant::now())
        });
        sleep(LATENCY).await;
        Handle::current().pause(node.id());
        let link = Link::new(&net, "10.1.0.1".parse().unwrap(), SPEC, 7);
        let mut client = link.connect(address()).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        sleep(Duration::from_secs(5)).await;
        let resumed = Instant::now();
        Handle::current().resume(node.id());
        let (bytes, at) = got.await.unwrap();
        assert_eq!(bytes, b"hello");
        assert!(at >= resumed && at < resumed + Duration::from_micros(100));
    });
}

/// Pieces of any size keep their order and lose nothing, and the same seed has them arrive at the same times.
#[test]
fn pieces_and_times_come_from_the_seed() {
    fn times(seed: u64) -> Vec<(u128, usize)> {
        let (send, receive) = std::sync::mpsc::channel();
        simulate(1, move |net, node| async move {
            let spec = LinkSpec {
                latency_us: [(0, 20_000); 2],
                chunk_bytes: (1, 50),
                loss_ppm: 20_000,
                retransmit_ms: 200,
                ..SPEC
            };
            let accepted = node.spawn(async { SimListener::bind(address()).await.unwrap().accept().await.unwrap().0 });
            let link = Link::new(&net, "10.1.0.1".parse().unwrap(), spec, seed);
            let mut client = link.connect(address()).await.unwrap();
            let mut server = accepted.await.unwrap();
            let sent: Vec<u8> = (0..20_000_u32).map(|n| (n % 251) as u8).collect();
            let expected = sent.clone();
            let start = Instant::now();
            let writing = async move {
                for part in sent.chunks(777) {
                    client.write_all(part).await.unwrap();
                }
                client
            };
            let reading = async {
                let (mut all, mut seen) = (Vec::new(), Vec::new());
                while all.len() < expected.len() {
                    poll_fn(|cx| server.poll_piece(cx, &mut all)).await.unwrap().unwrap();
                    seen.push((start.elapsed().as_micros(), all.len()));
                }
                assert_eq!(all, expected);
                seen
            };
            let (_client, seen) = tokio::join!(writing, reading);
            send.send(seen).unwrap();
        });
        receive.recv().unwrap()
    }
    let first = times(1);
    assert!(first.len() > 400);
    assert_eq!(first, times(1));
    assert_ne!(first, times(2));
}
