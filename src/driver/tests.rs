use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use newtmq_base::{Incarnation, ListenerId, NodeId, SEED_BYTES, ShardId, WallTime};
use newtmq_node::{Boot, ShardConfig, TimerKind};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::*;

/// CONNECT of MQTT 5 with a Session Expiry Interval of 60 s.
const CONNECT: &[u8] = &[0x10, 19, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 0, 5, 0x11, 0, 0, 0, 60, 0, 1, b'c'];

/// Has a CONNECT to read once it is ready, and cannot be written to.
struct Broken {
    readable: bool,
}

impl AsyncRead for Broken {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !std::mem::take(&mut self.readable) {
            return Poll::Pending;
        }
        buffer.put_slice(CONNECT);
        Poll::Ready(Ok(()))
    }
}

impl DriverStream for Broken {}

impl AsyncWrite for Broken {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Says what the test wants it to, and remembers what it was asked for.
#[derive(Default)]
struct Script {
    registered: Vec<u64>,
    ready: Vec<u64>,
    wake_at: Option<Instant>,
}

impl Poller for Script {
    type Stream = Broken;

    fn register(&mut self, _: &Broken, token: u64) -> io::Result<()> {
        self.registered.push(token);
        Ok(())
    }

    fn forget(&mut self, _: &Broken) {}

    fn take_ready(&mut self, ready: &mut Vec<(u64, Readiness)>) {
        let readiness = Readiness { readable: true, writable: true, ended: false };
        ready.extend(self.ready.drain(..).map(|token| (token, readiness)));
    }

    fn wake_at(&mut self, _: &mut Context<'_>, deadline: Option<Instant>) {
        self.wake_at = deadline;
    }

    fn set_ready(stream: &mut Broken, readiness: Readiness) {
        stream.readable = readiness.readable;
    }
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_timer_that_is_armed_while_writing_counts() {
    let boot = Boot {
        now: newtmq_base::Instant::START,
        wall: WallTime(1_700_000_000_000),
        seed: [7; SEED_BYTES],
        node: NodeId(1),
        incarnation: Incarnation(1),
        shard: ShardId(0),
        shards: 1,
        node_seed: 7,
        clustered: false,
        claims: false,
    };
    let clock = Clock::start();
    let (mut mailboxes, office, _reports) = office(1);
    let mail = mailboxes.remove(0);
    let shard = Shard::new(ShardConfig::default(), boot);
    let mut driver = pin!(Driver::new(shard, clock, Script::default(), mail));
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut context = Context::from_waker(&waker);

    let address = SocketAddr::from(([192, 0, 2, 1], 50_000));
    let stream = Broken { readable: false };
    let accepted = Accepted { stream, address, listener: ListenerId(0), username: None };
    let mut dealer = office.dealer();
    assert!(pin!(dealer.deal(accepted)).poll(&mut context).is_ready(), "there is room");
    assert!(driver.as_mut().poll(&mut context).is_pending());

    // CONNACK cannot be written: the connection is gone, its session waits for the client.
    let token = driver.poller.registered[0];
    driver.poller.ready.push(token);
    let before = wakes.0.load(Ordering::Relaxed);
    assert!(driver.as_mut().poll(&mut context).is_pending());
    assert!(driver.slots.is_empty());
    assert_eq!(driver.shard.view().session_is_connected("c"), Some(false));
    let (deadline, kind) = driver.shard.next_deadline().expect("the session expires");
    assert!(matches!(kind, TimerKind::Session(_)), "{kind:?}");
    assert_eq!(driver.poller.wake_at, Some(clock.at(deadline)));
    assert_eq!(wakes.0.load(Ordering::Relaxed), before, "nothing else lets the driver look again");
}
