//! The gateway for MQTT-SN, driven: a UDP socket, time, and a connection of some shard for each device. The rules are in
//! `core/mqtt-sn`; none is decided here.
//!
//! Each listener has one gateway on a thread of its own (docs/adr/0013). A device's datagrams all come to it, whether they
//! name the device or only its address, so that nothing has to be looked up twice.

mod pipe;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use newtmq_base::{HashSeed, Instant, LookupMap, NodeId, Slab};
use newtmq_mqtt_sn as sn;
use newtmq_mqtt_sn::{ClientState, Gateway, Input, LinkId, MinusOne, Output};
use newtmq_node::NewWill;

use tokio::sync::{mpsc, oneshot};

use crate::config::{self, Config, Qos3};
use crate::driver::{Accepted, Dealer, Note, Office, Poller as _, ReadyList, Told};
use crate::net::Link;
use crate::net::intake::Intake;
use crate::rt::{Alarm, BoundDatagrams, Clock, Datagrams, Stream};
pub use pipe::PipeEnd;
use pipe::{FromShard, GatewayEnd};

/// Batches of datagrams before the shards have their turn.
const BATCHES_MAX: usize = 8;
/// So many datagrams are sent before anything else is done, and so many may wait for the socket; what is above is lost.
const SEND_AT: usize = 256;
const UNSENT_MAX: usize = 16_384;
/// How often devices are counted by state, and figures told.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);
/// Questions that wait for a gateway; who asks then waits.
const ASKS_MAX: usize = 8;
/// What the Client Identifier of those without a connection begins with.
const QOS3_PREFIX: &str = "newtmq-sn-";

/// What a gateway has done, and its devices by state.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// The gateway's own.
    pub gateway: sn::Counters,
    /// Datagrams that the operating system did not take.
    pub unsent: u64,
    /// Devices that are connected.
    pub active: u64,
    /// Devices that sleep.
    pub asleep: u64,
    /// Devices that are awake for what waits for them.
    pub awake: u64,
}

/// The newest figures of a gateway, and the way to ask it for more.
#[derive(Debug, Clone)]
pub struct Board {
    figures: Arc<Mutex<Figures>>,
    asks: mpsc::Sender<Ask>,
}

/// What a gateway is asked or told, besides what devices and shards have to say.
#[derive(Debug)]
pub enum Ask {
    /// Its devices.
    Devices(oneshot::Sender<Vec<Device>>),
    /// The gateways of other nodes: GwId, and GwAdd as devices are told it.
    Others(Vec<(u8, Box<[u8]>)>),
}

/// The gateway's end of it.
pub type Asks = mpsc::Receiver<Ask>;

/// A device as its gateway sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// ClientId.
    pub id: Box<str>,
    /// Where it is; none if another one has its address now.
    pub endpoint: Option<sn::Endpoint>,
    /// Its state.
    pub state: ClientState,
    /// Keep Alive in seconds; 0 for none.
    pub keep_alive: u16,
    /// Time of sleep in seconds; 0 if it did not go to sleep.
    pub sleep: u16,
    /// How long ago it was heard.
    pub heard: Duration,
    /// Messages that wait for it at the gateway.
    pub waiting: usize,
    /// Its topic ids.
    pub topics: usize,
}

impl Board {
    /// For a gateway, which is asked by the other half.
    #[must_use]
    pub fn new() -> (Board, Asks) {
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        (Board { figures: Arc::default(), asks }, asked)
    }

    /// As they are.
    #[must_use]
    pub fn figures(&self) -> Figures {
        *self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All devices of the gateway, in no order; none if it has ended.
    pub async fn devices(&self) -> Option<Vec<Device>> {
        let (answer, answered) = oneshot::channel();
        self.asks.send(Ask::Devices(answer)).await.ok()?;
        answered.await.ok()
    }

    /// Tells it of the gateways of other nodes. One that has ended tells nobody of them.
    pub async fn others(&self, others: Vec<(u8, Box<[u8]>)>) {
        let _ = self.asks.send(Ask::Others(others)).await;
    }
}

impl Figures {
    /// By name, as below `$SYS/brokers/NODE/metrics`.
    #[must_use]
    pub fn named(&self) -> Vec<(&'static str, u64)> {
        let of = &self.gateway;
        vec![
            ("mqtt-sn/clients/active", self.active),
            ("mqtt-sn/clients/asleep", self.asleep),
            ("mqtt-sn/clients/awake", self.awake),
            ("mqtt-sn/datagrams/received", of.received),
            ("mqtt-sn/datagrams/sent", of.sent),
            ("mqtt-sn/datagrams/unsent", self.unsent),
            ("mqtt-sn/datagrams/malformed", of.malformed),
            ("mqtt-sn/datagrams/stray", of.stray),
            ("mqtt-sn/datagrams/stray/unanswered", of.stray_unanswered),
            ("mqtt-sn/datagrams/unexpected", of.unexpected),
            ("mqtt-sn/datagrams/duplicates", of.duplicates),
            ("mqtt-sn/datagrams/retransmitted", of.retransmitted),
            ("mqtt-sn/exchanges/given_up", of.given_up),
            ("mqtt-sn/clients/connected", of.connected),
            ("mqtt-sn/clients/refused", of.refused),
            ("mqtt-sn/clients/congested", of.congested),
            ("mqtt-sn/clients/taken_over", of.taken_over),
            ("mqtt-sn/clients/rebound", of.rebound),
            ("mqtt-sn/clients/lost", of.lost),
            ("mqtt-sn/clients/woken", of.woken),
            ("mqtt-sn/clients/adopted", of.adopted),
            ("mqtt-sn/messages/dropped/congested", of.congested_dropped),
            ("mqtt-sn/messages/dropped/full", of.dropped_full),
            ("mqtt-sn/messages/dropped/too_long", of.dropped_too_long),
            ("mqtt-sn/messages/dropped/no_topic_id", of.dropped_no_topic_id),
            ("mqtt-sn/messages/dropped/refused", of.dropped_refused),
            ("mqtt-sn/messages/qos3", of.minus_one),
            ("mqtt-sn/messages/qos3/dropped", of.minus_one_dropped),
        ]
    }
}

/// What the gateway of a listener is told. `first` if no listener before it is for MQTT-SN.
#[must_use]
pub fn gateway_config(config: &Config, listener: &config::Listener, node: NodeId, first: bool) -> sn::Config {
    let of = &config.sn;
    let zone = &config.zones[&listener.zone];
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    let own = || format!("{QOS3_PREFIX}{:016x}", node.0);
    let mut minus_one_client = of.qos3_clientid.clone().unwrap_or_else(own);
    if !first {
        minus_one_client = format!("{minus_one_client}-{}", listener.name);
    }
    sn::Config {
        gateway_id: of.gateway_id,
        advertise_interval: of.advertise_to.map_or(Duration::ZERO, |_| of.advertise_duration),
        minus_one: match of.enable_qos3 {
            Qos3::Off => MinusOne::Off,
            Qos3::Connected => MinusOne::Connected,
            Qos3::On => MinusOne::Anybody,
        },
        minus_one_client: minus_one_client.into(),
        idle_timeout: of.idle_timeout,
        predefined: of.predefined.iter().map(|(id, topic)| (*id, topic.as_str().into())).collect(),
        username: of.username.as_deref().map(Into::into),
        password: of.password.as_ref().map(|password| password.reveal().as_bytes().into()),
        session_expiry_interval: seconds(zone.session_expiry_interval),
        retry_interval: of.retry_interval,
        retries: of.max_retries,
        max_clients: listener.max_connections as usize,
        max_topic_ids: of.max_topic_ids,
        max_buffer_len: usize::from(of.max_buffer_len),
        max_datagram: usize::from(of.max_datagram),
        register_on_resume: of.subs_resume,
        ..sn::Config::default()
    }
}

/// GwAdd of a gateway: the bytes of its IP address, and its port (in network byte order). The standard leaves the form of it to
/// the network (5.4.3).
#[must_use]
pub fn gateway_address(address: std::net::SocketAddr) -> Box<[u8]> {
    let mut bytes = match address.ip().to_canonical() {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    bytes.extend(address.port().to_be_bytes());
    bytes.into()
}

/// What a gateway is started with.
#[derive(Debug)]
pub struct Start {
    /// Its rules.
    pub config: sn::Config,
    /// Where ADVERTISE goes.
    pub advertise_to: Option<std::net::SocketAddr>,
    /// Its socket.
    pub socket: BoundDatagrams,
    /// Who may send to it.
    pub intake: Arc<Intake>,
    /// The way to the shards.
    pub office: Office<Stream>,
    /// The node's time.
    pub clock: Clock,
    /// Keeps strangers from choosing what collides in tables.
    pub seed: u64,
    /// Where its figures go.
    pub board: Board,
    /// Who asks it.
    pub asks: Asks,
}

/// Runs a gateway for as long as the process runs.
///
/// # Errors
/// The socket cannot be watched.
pub async fn serve(start: Start) -> std::io::Result<()> {
    let Start { config, advertise_to, socket, intake, office, clock, seed, board, asks } = start;
    let now = clock.now();
    let mut server = Server {
        gateway: Gateway::new(config, seed, now),
        socket: socket.open()?,
        advertise_to,
        intake,
        dealer: office.dealer(),
        office,
        clock,
        now,
        ready: ReadyList::default(),
        wires: Slab::default(),
        slots: LookupMap::new(HashSeed::new(seed)),
        outputs: Vec::new(),
        to_send: Vec::new(),
        to_open: VecDeque::new(),
        ended: Vec::new(),
        figures: Figures::default(),
        count_at: now,
        board,
        asks,
    };
    let (mut alarm, mut woken) = (Alarm::default(), Vec::new());
    loop {
        poll_fn(|context| server.poll_input(context, &mut alarm, &mut woken)).await;
        for slot in woken.drain(..) {
            server.take(slot);
        }
        server.tick();
        // The shards never wait for a gateway, so that it may wait for them. Nothing is read from the socket meanwhile.
        while let Some(accepted) = server.to_open.pop_front() {
            // A shard that has ended has closed it.
            server.dealer.deal(accepted).await;
        }
    }
}

/// A link of a device.
#[derive(Debug)]
struct Wire {
    link: LinkId,
    end: GatewayEnd,
    /// The gateway was told to hold back.
    held: bool,
}

/// A gateway and what it needs.
#[derive(Debug)]
struct Server {
    gateway: Gateway,
    socket: Datagrams,
    advertise_to: Option<std::net::SocketAddr>,
    intake: Arc<Intake>,
    dealer: Dealer<Stream>,
    office: Office<Stream>,
    clock: Clock,
    now: Instant,
    /// Wires from which something has come.
    ready: ReadyList,
    wires: Slab<Option<Wire>>,
    slots: LookupMap<LinkId, u32>,
    outputs: Vec<Output>,
    to_send: Vec<(std::net::SocketAddr, Vec<u8>)>,
    to_open: VecDeque<Accepted<Stream>>,
    /// Links that are over when everything is sent.
    ended: Vec<GatewayEnd>,
    figures: Figures,
    count_at: Instant,
    board: Board,
    asks: Asks,
}

impl Server {
    /// Takes datagrams; ready if there is anything to do.
    fn poll_input(&mut self, context: &mut Context<'_>, alarm: &mut Alarm, woken: &mut Vec<u32>) -> Poll<()> {
        self.now = self.clock.now();
        self.ready.set_parent(context.waker());
        self.ready.take(woken);
        let mut has_work = !woken.is_empty();
        for _ in 0..BATCHES_MAX {
            let Server { socket, gateway, intake, outputs, now, .. } = self;
            let received = socket.poll_recv(context, |from, data| {
                if intake.admits(from.ip()) {
                    gateway.handle(*now, Input::Datagram { from: from.into(), data }, outputs);
                } else {
                    intake.counters.denied.fetch_add(1, Ordering::Relaxed);
                }
            });
            match received {
                Poll::Ready(Ok(_)) => has_work = true,
                // It is of no datagram that was sent to us.
                Poll::Ready(Err(error)) => tracing::debug!(%error, "receiving datagrams"),
                Poll::Pending => break,
            }
            self.obey();
            if !self.to_open.is_empty() {
                break;
            }
        }
        while let Poll::Ready(Some(ask)) = self.asks.poll_recv(context) {
            match ask {
                // Who has asked may wait no longer.
                Ask::Devices(answer) => drop(answer.send(self.devices())),
                Ask::Others(others) => self.gateway.handle(self.now, Input::Gateways(&others), &mut self.outputs),
            }
        }
        let due = self.deadline();
        has_work |= !self.to_send.is_empty() && self.socket.poll_writable(context).is_ready();
        if has_work || due <= self.now {
            return Poll::Ready(());
        }
        alarm.wake_at(context, (due != Instant::NEVER).then(|| self.clock.at(due)));
        Poll::Pending
    }

    fn deadline(&self) -> Instant {
        self.gateway.next_deadline().unwrap_or(Instant::NEVER).min(self.count_at)
    }

    /// What has come from a shard.
    fn take(&mut self, slot: u32) {
        let Some(Some(wire)) = self.wires.get_mut(slot) else { return };
        let FromShard { told, bytes, resumed, closed } = wire.end.take();
        let link = wire.link;
        if wire.held && resumed {
            wire.held = false;
            self.gateway.handle(self.now, Input::Held { link, held: false }, &mut self.outputs);
        }
        for told in told {
            let input = match &told {
                Told::WillSet(accepted) => Input::WillSet { link, accepted: *accepted },
                Told::Record(record) => Input::Record { link, record },
            };
            self.gateway.handle(self.now, input, &mut self.outputs);
        }
        if !bytes.is_empty() {
            self.gateway.handle(self.now, Input::Bytes { link, data: &bytes }, &mut self.outputs);
        }
        if closed {
            self.gateway.handle(self.now, Input::Closed { link }, &mut self.outputs);
            self.forget(link);
        }
        self.obey();
    }

    /// The link is over, when everything about it is sent.
    fn forget(&mut self, link: LinkId) {
        let wire = self.slots.remove(&link).and_then(|slot| self.wires.remove(slot)).flatten();
        self.ended.extend(wire.map(|wire| wire.end));
    }

    fn tick(&mut self) {
        if self.gateway.next_deadline().is_some_and(|at| at <= self.now) {
            self.gateway.handle(self.now, Input::Tick, &mut self.outputs);
        }
        self.obey();
        self.send();
        // Who sees a link end may count on it that its device was told.
        self.ended.clear();
        self.figures.gateway = *self.gateway.counters();
        if self.count_at <= self.now {
            self.count_at = self.now + COUNT_INTERVAL;
            self.count();
            self.office.figures(&self.intake.listener().path(), self.figures.named());
        }
        *self.board.figures.lock().unwrap_or_else(PoisonError::into_inner) = self.figures;
    }

    /// Sends what the socket takes.
    fn send(&mut self) {
        self.figures.unsent += self.socket.send(&mut self.to_send);
        let above = self.to_send.len().saturating_sub(UNSENT_MAX);
        // The oldest are worth the least: they would come late.
        self.to_send.drain(..above);
        self.figures.unsent += above as u64;
    }

    fn devices(&self) -> Vec<Device> {
        let device = |of: sn::ClientView<'_>| Device {
            id: of.id.into(),
            endpoint: of.endpoint,
            state: of.state,
            keep_alive: of.keep_alive,
            sleep: of.sleep,
            heard: self.now.saturating_since(of.heard),
            waiting: of.waiting,
            topics: of.topics,
        };
        self.gateway.clients().map(device).collect()
    }

    fn count(&mut self) {
        let figures = &mut self.figures;
        (figures.active, figures.asleep, figures.awake) = (0, 0, 0);
        for client in self.gateway.clients() {
            match client.state {
                ClientState::Active => figures.active += 1,
                ClientState::Asleep => figures.asleep += 1,
                ClientState::Awake => figures.awake += 1,
                ClientState::Connecting => {}
            }
        }
    }

    /// Does what the gateway asks for.
    fn obey(&mut self) {
        let mut outputs = std::mem::take(&mut self.outputs);
        for output in outputs.drain(..) {
            match output {
                Output::Datagram { to, data } => self.to_send.push((to.address(), data)),
                Output::Broadcast { data } => self.to_send.extend(self.advertise_to.map(|to| (to, data))),
                Output::Open { link, peer, .. } => self.open(link, peer.address()),
                Output::Bytes { link, data } => self.write(link, &data),
                Output::Close { link } => self.forget(link),
                Output::Will { link, will } => self.note(link, Note::Will(will.map(new_will))),
                Output::Keep { link, record } => self.note(link, Note::Keep(record.into())),
                Output::Outlive { link, expiry_interval } => self.note(link, Note::Outlive(expiry_interval)),
            }
        }
        // Holding back leads to no output.
        self.outputs = outputs;
        if self.to_send.len() >= SEND_AT {
            self.send();
        }
    }

    fn open(&mut self, link: LinkId, address: std::net::SocketAddr) {
        let slot = self.wires.insert(None);
        let (end, shard) = pipe::pipe(slot, &self.ready);
        if let Some(wire) = self.wires.get_mut(slot) {
            *wire = Some(Wire { link, end, held: false });
        }
        self.slots.insert(link, slot);
        let listener = self.intake.id();
        self.to_open.push_back(Accepted { stream: Link::Sn(shard), address, listener, username: None });
    }

    fn wire(&mut self, link: LinkId) -> Option<&mut Wire> {
        let slot = *self.slots.get(&link)?;
        self.wires.get_mut(slot)?.as_mut()
    }

    fn write(&mut self, link: LinkId, data: &[u8]) {
        let Some(wire) = self.wire(link) else { return };
        if wire.end.write(data) {
            wire.held = true;
            self.gateway.handle(self.now, Input::Held { link, held: true }, &mut Vec::new());
        }
    }

    fn note(&mut self, link: LinkId, note: Note) {
        if let Some(wire) = self.wire(link) {
            wire.end.note(note);
        }
    }
}

fn new_will(will: sn::Will) -> Box<NewWill> {
    let sn::Will { topic, payload, qos, retain } = will;
    Box::new(NewWill { topic, payload, qos, retain, delay_interval: sn::WILL_DELAY_SECS })
}
