//! The driver of the control plane: one future that owns it, the connections with other nodes, and one timer.
//!
//! Each round takes what shards, sockets and tasks have brought, and only then wakes whoever it is for: a shard gets one
//! letter, a connection one write. It decides nothing about clusters.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use newtmq_access::Ban;
use newtmq_base::{Instant, NodeId, RequestId};
use newtmq_cluster::link::{self, Address, ConnectionId, DialId, Fill};
use newtmq_cluster::meta::{Blob, BlobKind};
use newtmq_cluster::owned;
use newtmq_node::{
    ClusterAnswer, ClusterCommand, ClusterEvent, ClusterInput, ClusterOutput, Control, ControlInput, ControlOutput,
    FromControl,
};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::log::{LogError, Store, Stores, Writing};
use super::sockets::{self, PeerStream, Sockets, Unproved};
use super::told;
use super::watched::Hearer;
use crate::access::Records;
use crate::driver::{Office, Poller as _, ReadyList, Reports};
use crate::rt::{Alarm, Clock, Stream};

/// Something for the control plane from outside.
pub enum Event {
    /// A connection is open.
    Opened {
        /// What it answers; none if it was accepted.
        dial: Option<DialId>,
        /// The connection.
        stream: Box<dyn PeerStream>,
        /// Both sides have shown certificates.
        tls: bool,
        /// The other end.
        from: Option<SocketAddr>,
        /// Until it has shown whose it is.
        unproved: Option<Unproved>,
    },
    /// A connection cannot be opened.
    DialFailed {
        /// Which.
        dial: DialId,
        /// Where to.
        address: Address,
        /// Why.
        error: io::Error,
    },
    /// A connection that was accepted has ended before it was open.
    NotAccepted {
        /// The other end.
        from: Option<SocketAddr>,
        /// Why.
        error: io::Error,
    },
    /// A datagram.
    Packet {
        /// From where.
        from: SocketAddr,
        /// Anything.
        data: Box<[u8]>,
    },
    /// What discovery has found.
    Discovered(super::discovery::Found),
    /// Records are durable up to this one, or there will be none any more.
    Stored(Result<u64, LogError>),
    /// An operator wants something.
    Command {
        /// What.
        command: ClusterCommand,
        /// For the answer.
        answer: oneshot::Sender<ClusterAnswer>,
    },
    /// Pass a question or an answer of operators on to another node.
    Operator {
        /// Which.
        to: NodeId,
        /// What.
        bytes: Vec<u8>,
    },
    /// What comes from other nodes for operators goes there; what has no room is lost.
    Hear(mpsc::Sender<(NodeId, Bytes)>),
    /// Bans that ended before this, in seconds since 1970, are to be deleted, if this node leads.
    Purge(u64),
    /// An operator wants to know something.
    Ask {
        /// Filters of other nodes that are left out.
        skip: usize,
        /// Most that are answered.
        limit: usize,
        /// For the answer.
        answer: oneshot::Sender<Known>,
    },
}

/// What the control plane knows that an operator may ask for.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The highest figures that were told under `$SYS`.
    pub most: [u64; 7],
    /// Filters that other nodes have subscribers of, in the order of nodes.
    pub routes: Vec<(NodeId, Box<str>)>,
}

/// What the driver needs of a cluster.
#[derive(Debug)]
pub struct Ways {
    /// How connections are made.
    pub sockets: Sockets,
    /// Datagrams to be sent; what has no room is lost.
    pub packets: mpsc::Sender<(SocketAddr, Vec<u8>)>,
    /// The task that sends them, until nobody can give any.
    pub sending: JoinHandle<()>,
    /// The log and who writes it; none if nothing outlives the process.
    pub log: Option<(Stores, Writing)>,
}

/// Drives the control plane until every shard has ended.
pub struct ControlDriver {
    control: Control,
    clock: Clock,
    now: Instant,
    reports: Reports,
    office: Office<Stream>,
    /// By shard: what it is to be told at the end of the round.
    told: Vec<Vec<FromControl>>,
    events: mpsc::Receiver<Event>,
    ways: Option<Ways>,
    connections: Vec<Option<Connection>>,
    slots: BTreeMap<ConnectionId, u32>,
    last_connection: u64,
    ready: ReadyList,
    woken: Vec<u32>,
    dirty: Vec<u32>,
    buffer: Box<[u8]>,
    outputs: Vec<ControlOutput>,
    answers: BTreeMap<RequestId, oneshot::Sender<ClusterAnswer>>,
    last_request: u64,
    /// What is not stored anywhere is durable at once.
    stored: Option<u64>,
    repeated: told::Repeated,
    hearer: Hearer,
    operators: Option<mpsc::Sender<(NodeId, Bytes)>>,
    /// Who is told of users and bans.
    records: Option<Records>,
    alarm: Alarm,
    ended: bool,
    failed: Option<LogError>,
}

/// A connection with another node.
struct Connection {
    id: ConnectionId,
    stream: Box<dyn PeerStream>,
    /// The other end.
    from: Option<SocketAddr>,
    /// It has not shown yet whose it is.
    unproved: Option<Unproved>,
    waker: Waker,
    /// What the socket has not taken, from `written` on.
    output: Vec<u8>,
    written: usize,
    /// `fill_link` has something.
    has_output: bool,
    /// What was written may wait in a stream that encrypts.
    is_unflushed: bool,
    /// It is on the list of those with output.
    is_dirty: bool,
}

impl ControlDriver {
    /// For a control plane whose shards are reached by `office`. `ways` are those of a node with a cluster; what happens on
    /// them comes by `events`. Inside a runtime with timers.
    #[must_use]
    pub fn new(
        control: Control,
        clock: Clock,
        reports: Reports,
        office: Office<Stream>,
        events: mpsc::Receiver<Event>,
        ways: Option<Ways>,
        hearer: Hearer,
    ) -> ControlDriver {
        ControlDriver {
            control,
            clock,
            now: clock.now(),
            reports,
            told: (0..office.shards()).map(|_| Vec::new()).collect(),
            office,
            events,
            connections: Vec::new(),
            slots: BTreeMap::new(),
            last_connection: 0,
            ready: ReadyList::default(),
            woken: Vec::new(),
            dirty: Vec::new(),
            buffer: if ways.is_some() { vec![0; READ_BYTES].into() } else { Box::default() },
            ways,
            outputs: Vec::new(),
            answers: BTreeMap::new(),
            last_request: 0,
            stored: None,
            repeated: told::Repeated::default(),
            hearer,
            operators: None,
            records: None,
            alarm: Alarm::default(),
            ended: false,
            failed: None,
        }
    }

    /// Tells of what changes in what the cluster has of users and bans.
    #[must_use]
    pub fn telling(mut self, records: Records) -> ControlDriver {
        self.records = Some(records);
        self
    }

    /// Runs until every shard has ended; then the others are told that this node goes.
    ///
    /// # Errors
    /// The log of the cluster cannot be written any more.
    pub async fn run(mut self) -> Result<(), LogError> {
        std::future::poll_fn(|context| self.poll(context)).await;
        self.ended().await
    }

    /// The control plane.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// What follows after the last poll.
    pub(super) async fn ended(mut self) -> Result<(), LogError> {
        match self.failed.take() {
            Some(error) => Err(error),
            None => {
                self.end().await;
                Ok(())
            }
        }
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.ready.set_parent(context.waker());
        self.now = self.clock.now();
        self.take_reports(context);
        self.take_events(context);
        let mut woken = std::mem::take(&mut self.woken);
        self.ready.take(&mut woken);
        for slot in woken.drain(..) {
            self.flush(slot);
            self.read(slot);
        }
        self.woken = woken;
        if self.control.next_deadline().is_some_and(|at| at <= self.now) {
            self.input(ControlInput::Tick);
        }
        self.settle();
        self.send_letters();
        if self.ended || self.failed.is_some() {
            return Poll::Ready(());
        }
        if !self.dirty.is_empty() {
            context.waker().wake_by_ref();
        }
        // Last, for anything above may have armed a timer.
        let deadline = self.control.next_deadline();
        if deadline.is_some_and(|at| at <= self.now) {
            context.waker().wake_by_ref();
        }
        self.alarm.wake_at(context, deadline.map(|at| self.clock.at(at)));
        Poll::Pending
    }

    fn input(&mut self, input: ControlInput<'_>) {
        self.control.handle(self.now, input, &mut self.outputs);
    }

    fn cluster(&mut self, input: ClusterInput<'_>) {
        self.input(ControlInput::Cluster(input));
    }

    fn link(&mut self, input: link::Input<'_>) {
        self.cluster(ClusterInput::Link(input));
    }

    fn take_reports(&mut self, context: &mut Context<'_>) {
        for _ in 0..REPORTS_MAX {
            match self.reports.poll_recv(context) {
                Poll::Ready(Some((from, messages))) => {
                    for message in messages {
                        self.input(ControlInput::Shard { from, message });
                    }
                }
                Poll::Ready(None) => {
                    self.ended = true;
                    return;
                }
                Poll::Pending => return,
            }
        }
        context.waker().wake_by_ref();
    }

    fn take_events(&mut self, context: &mut Context<'_>) {
        for _ in 0..EVENTS_MAX {
            match self.events.poll_recv(context) {
                Poll::Ready(Some(event)) => self.on_event(event),
                Poll::Ready(None) | Poll::Pending => return,
            }
        }
        context.waker().wake_by_ref();
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Opened { dial, stream, tls, from, unproved } => {
                self.opened(dial, stream, tls, (from, unproved));
            }
            Event::DialFailed { dial, address, error } => {
                self.repeated.failed(&address, &error);
                self.link(link::Input::DialFailed(dial));
            }
            Event::NotAccepted { from, error } => self.repeated.not_accepted(from, &error),
            Event::Packet { from, data } => self.cluster(ClusterInput::Packet { from, data: &data }),
            Event::Discovered(found) => {
                let super::discovery::Found { addresses, here } = found;
                self.cluster(ClusterInput::Discovered { addresses, here });
            }
            Event::Stored(Ok(upto)) => self.cluster(ClusterInput::Stored { upto }),
            Event::Stored(Err(error)) => self.failed = Some(error),
            Event::Operator { to, bytes } => self.cluster(ClusterInput::Operator { to, bytes: &bytes }),
            Event::Hear(operators) => self.operators = Some(operators),
            Event::Ask { skip, limit, answer } => drop(answer.send(known(&self.control, skip, limit))),
            Event::Command { command: ClusterCommand::PutBlob { kind, key, value, expected }, answer }
                if self.ways.is_none() =>
            {
                let records = self.records.as_ref();
                let done = records.map(|records| records.write_alone(kind, &key, value.as_deref(), expected));
                drop(done.map(|done| answer.send(done)));
            }
            Event::Purge(seconds) => self.purge(seconds),
            Event::Command { answer, .. } if self.ways.is_none() => {
                let _ = answer.send(ClusterAnswer::Refused("this node stays alone (see node.listen)".to_owned()));
            }
            Event::Command { command, answer } => {
                self.last_request += 1;
                let request = RequestId(self.last_request);
                self.answers.insert(request, answer);
                self.cluster(ClusterInput::Command { request, command });
            }
        }
    }

    fn opened(
        &mut self,
        dial: Option<DialId>,
        stream: Box<dyn PeerStream>,
        tls: bool,
        (from, unproved): (Option<SocketAddr>, Option<Unproved>),
    ) {
        self.last_connection += 1;
        let id = ConnectionId(self.last_connection);
        let at = self.connections.iter().position(Option::is_none).unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        let slot = u32::try_from(at).expect("connections with nodes are few");
        let connection = Connection {
            id,
            stream,
            from,
            unproved,
            waker: self.ready.waker(slot),
            output: Vec::new(),
            written: 0,
            has_output: false,
            is_unflushed: false,
            is_dirty: false,
        };
        self.connections[at] = Some(connection);
        self.slots.insert(id, slot);
        self.link(link::Input::Opened { conn: id, dial, tls });
        // What has come with it is read in this round.
        self.woken.push(slot);
    }

    fn connection(&mut self, slot: u32) -> Option<&mut Connection> {
        self.connections.get_mut(slot as usize)?.as_mut()
    }

    fn remove(&mut self, slot: u32) -> Option<Connection> {
        let connection = self.connections.get_mut(slot as usize)?.take()?;
        self.slots.remove(&connection.id);
        Some(connection)
    }

    /// Reads what a connection has, within a budget.
    fn read(&mut self, slot: u32) {
        for _ in 0..READS_MAX {
            let Some(connection) = self.connections.get_mut(slot as usize).and_then(Option::as_mut) else { return };
            let mut buffer = ReadBuf::new(&mut self.buffer);
            let mut context = Context::from_waker(&connection.waker);
            let id = connection.id;
            match Pin::new(&mut connection.stream).poll_read(&mut context, &mut buffer) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(result) => {
                    match result {
                        // With TLS 1.3 who has dialed may hear only here that its certificate is refused.
                        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                            self.repeated.not_accepted(connection.from, &error);
                        }
                        result => tracing::debug!(connection = id.0, ?result, "a link's connection has ended"),
                    }
                    return self.gone(slot);
                }
            }
            let count = buffer.filled().len();
            let data = &self.buffer[..count];
            let input = ControlInput::Cluster(ClusterInput::Link(link::Input::Bytes { conn: id, data }));
            self.control.handle(self.now, input, &mut self.outputs);
        }
        // There may be more; the others first.
        self.ready.push(slot);
    }

    /// Writes what there is for a connection until the socket is full, within a budget.
    fn flush(&mut self, slot: u32) {
        let now = self.now;
        for _ in 0..FILLS_MAX {
            let Some(connection) = self.connections.get_mut(slot as usize).and_then(Option::as_mut) else { return };
            if connection.written == connection.output.len() {
                connection.output.clear();
                connection.written = 0;
                // A burst does not stay reserved for ever.
                connection.output.shrink_to(KEPT_BYTES);
                if std::mem::take(&mut connection.has_output) {
                    let fill = self.control.fill_link(now, connection.id, &mut connection.output, FILL_BYTES);
                    connection.has_output = fill == Fill::More;
                } else if !connection.is_unflushed {
                    return;
                }
            }
            match write(connection) {
                Poll::Ready(Ok(())) if connection.has_output => {}
                Poll::Ready(Ok(())) | Poll::Pending => return,
                Poll::Ready(Err(error)) => {
                    tracing::debug!(connection = connection.id.0, %error, "a link's connection has failed");
                    return self.gone(slot);
                }
            }
        }
        self.mark_dirty(slot);
    }

    fn mark_dirty(&mut self, slot: u32) {
        if let Some(connection) = self.connection(slot)
            && !std::mem::replace(&mut connection.is_dirty, true)
        {
            self.dirty.push(slot);
        }
    }

    fn gone(&mut self, slot: u32) {
        if let Some(connection) = self.remove(slot) {
            self.link(link::Input::Closed(connection.id));
        }
    }

    /// Does what was asked for until nothing is left, and writes to each connection that has output once more.
    fn settle(&mut self) {
        self.take_outputs();
        let mut dirty = std::mem::take(&mut self.dirty);
        for slot in dirty.drain(..) {
            if let Some(connection) = self.connection(slot) {
                connection.is_dirty = false;
                self.flush(slot);
            }
        }
        self.take_outputs();
        if self.dirty.is_empty() {
            self.dirty = dirty;
        }
    }

    fn take_outputs(&mut self) {
        loop {
            let mut outputs = std::mem::take(&mut self.outputs);
            for output in outputs.drain(..) {
                match output {
                    ControlOutput::Shard { to, message } => self.told[usize::from(to.0)].push(message),
                    ControlOutput::Cluster(output) => self.on_output(output),
                }
            }
            if let Some(upto) = self.stored.take() {
                self.cluster(ClusterInput::Stored { upto });
            }
            if self.outputs.is_empty() {
                self.outputs = outputs;
                return;
            }
        }
    }

    fn on_output(&mut self, output: ClusterOutput) {
        let Some(ways) = &self.ways else { return };
        match output {
            ClusterOutput::Dial { dial, address } => {
                tokio::spawn(ways.sockets.clone().dial(dial, address));
            }
            ClusterOutput::Ready(id) => {
                if let Some(slot) = self.slots.get(&id).copied() {
                    if let Some(connection) = self.connection(slot) {
                        connection.has_output = true;
                    }
                    self.mark_dirty(slot);
                }
            }
            ClusterOutput::Close(id) => self.close(id),
            // Who counts on datagrams does not count on each of them.
            ClusterOutput::Packet { to, bytes } => drop(ways.packets.try_send((to, bytes))),
            ClusterOutput::Store { number, record, sync, replaces } => match &ways.log {
                // A log that has failed has said so.
                Some((log, _)) => drop(log.send(Store { number, record, sync, replaces })),
                None => self.stored = Some(number),
            },
            ClusterOutput::Answer { request, answer } => {
                if let Some(waiting) = self.answers.remove(&request) {
                    // Who has gone needs no answer.
                    let _ = waiting.send(answer);
                }
            }
            ClusterOutput::Operator { from, bytes } => {
                if let Some(operators) = &self.operators {
                    drop(operators.try_send((from, bytes)));
                }
            }
            ClusterOutput::Event(event) => {
                // What this node has left is out of its sight.
                if self.ended {
                    return;
                }
                let (slots, connections) = (&self.slots, &self.connections);
                let from = |id| connections.get(*slots.get(&id)? as usize)?.as_ref()?.from;
                self.repeated.heard(&self.control, &event, from);
                told::event(&self.control, &event);
                self.hearer.heard(&self.control, &event);
                match event {
                    ClusterEvent::Link(link::Event::Connected { conn, .. }) => self.proved(conn),
                    ClusterEvent::Blob { kind, key, value } => {
                        if let Some(records) = &self.records {
                            records.changed(kind, &key, value.as_deref());
                        }
                    }
                    ClusterEvent::Blobs => self.tell_all_records(),
                    _ => {}
                }
            }
        }
    }

    /// It makes room for another one.
    fn proved(&mut self, id: ConnectionId) {
        let slot = self.slots.get(&id).copied();
        if let Some(connection) = slot.and_then(|slot| self.connection(slot)) {
            connection.unproved = None;
        }
    }

    fn tell_all_records(&self) {
        if let Some(records) = &self.records {
            tell_records(&self.control, records);
        }
    }

    /// Some of the bans that have ended, in the version that has: who is banned anew stays so.
    fn purge(&mut self, seconds: u64) {
        let Some(cluster) = self.control.cluster() else {
            if let Some(records) = &self.records {
                records.purge_alone(seconds);
            }
            return;
        };
        let view = cluster.meta().view();
        if !view.is_leader {
            return;
        }
        let is_over = |blob: &Blob| Ban::decode(&blob.value).is_ok_and(|ban| ban.is_over(seconds));
        let over = view.state.blobs().iter().filter(|((kind, _), blob)| *kind == BlobKind::Banned && is_over(blob));
        let over: Vec<_> = over.map(|((_, key), blob)| (key.clone(), blob.version)).take(PURGED_MAX).collect();
        for (key, version) in over {
            self.last_request += 1;
            let (kind, expected) = (BlobKind::Banned, Some(version));
            let command = ClusterCommand::PutBlob { kind, key, value: None, expected };
            self.cluster(ClusterInput::Command { request: RequestId(self.last_request), command });
        }
    }

    fn close(&mut self, id: ConnectionId) {
        let Some(mut connection) = self.slots.get(&id).copied().and_then(|slot| self.remove(slot)) else { return };
        take_rest(&mut self.control, self.now, &mut connection);
        let Connection { stream, output, unproved, .. } = connection;
        tokio::spawn(async move {
            sockets::end(stream, output).await;
            // Who is refused keeps its place as long as its socket.
            drop(unproved);
        });
        self.link(link::Input::Closed(id));
    }

    /// Tells the shards what is for them from this round.
    fn send_letters(&mut self) {
        for (shard, told) in self.told.iter_mut().enumerate() {
            if !told.is_empty() {
                self.office.control(shard, std::mem::take(told));
            }
        }
    }

    /// What shards have said last is sent, and the others are told that this node goes.
    async fn end(mut self) {
        // The goodbye would go in front of it.
        for connection in self.connections.iter_mut().flatten() {
            take_rest(&mut self.control, self.now, connection);
        }
        self.cluster(ClusterInput::Stop);
        self.take_outputs();
        let ControlDriver { mut control, now, events, connections, ways, .. } = self;
        // Nobody waits to be heard.
        drop(events);
        let mut ending = Vec::new();
        for mut connection in connections.into_iter().flatten() {
            take_rest(&mut control, now, &mut connection);
            ending.push(tokio::spawn(sockets::end(connection.stream, connection.output)));
        }
        let Some(Ways { packets, sending, log, .. }) = ways else { return };
        drop(packets);
        ending.push(sending);
        for end in ending {
            let _ = end.await;
        }
        if let Some((log, thread)) = log {
            drop(log);
            // On a full disk it would wait until there is space.
            for _ in 0..LOG_LOOKS {
                if thread.is_finished() {
                    return;
                }
                tokio::time::sleep(LOG_PAUSE).await;
            }
            tracing::warn!("the last of the log of the cluster was not written");
        }
    }
}

/// Tells all that the cluster has of users and bans.
pub fn tell_records(control: &Control, records: &Records) {
    let Some(cluster) = control.cluster() else { return };
    let blobs = cluster.meta().view().state.blobs().iter();
    records.replaced(blobs.map(|((kind, key), blob)| (*kind, key.as_str(), &blob.value[..])));
}

/// Moves all that is still to be written to a connection to its output.
fn take_rest(control: &mut Control, now: Instant, connection: &mut Connection) {
    connection.output.drain(..std::mem::take(&mut connection.written));
    while connection.output.len() < REST_MAX
        && control.fill_link(now, connection.id, &mut connection.output, FILL_BYTES) == Fill::More
    {}
}

fn known(control: &Control, skip: usize, limit: usize) -> Known {
    let routes = control.owned().replicas().flat_map(|replica| {
        let owner = replica.owner();
        replica.entries().filter_map(move |entry| match entry {
            owned::Op::Route { filter, .. } => Some((owner, filter.as_str().into())),
            owned::Op::Record { .. } => None,
        })
    });
    Known { most: control.most(), routes: routes.skip(skip).take(limit).collect() }
}

fn write(connection: &mut Connection) -> Poll<io::Result<()>> {
    let mut context = Context::from_waker(&connection.waker);
    while connection.written < connection.output.len() {
        let stream = Pin::new(&mut connection.stream);
        match stream.poll_write(&mut context, &connection.output[connection.written..]) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(count)) => connection.written += count,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        }
    }
    // A stream that encrypts sends what it has only when it is asked to.
    let flushed = Pin::new(&mut connection.stream).poll_flush(&mut context);
    connection.is_unflushed = flushed.is_pending();
    flushed
}

/// Most bans that are deleted at a time.
const PURGED_MAX: usize = 500;
/// How often is looked whether the log is written at the end, and how long after another.
const LOG_LOOKS: usize = 400;
const LOG_PAUSE: Duration = Duration::from_millis(5);
/// Largest read.
const READ_BYTES: usize = 256 << 10;
/// Most reads of a connection in a row; then the others have their turn.
const READS_MAX: usize = 4;
/// Most that is taken for one write.
const FILL_BYTES: usize = 256 << 10;
/// Most writes of a connection in a row.
const FILLS_MAX: usize = 4;
/// What an empty output buffer may keep.
const KEPT_BYTES: usize = 512 << 10;
/// Most that is written to a connection that is being closed.
const REST_MAX: usize = 4 << 20;
/// Most letters of shards, and events, in a round.
const REPORTS_MAX: usize = 1024;
const EVENTS_MAX: usize = 1024;
