//! What nodes say to each other about clients.

use std::sync::Arc;
use std::time::Duration;

use newtmq_base::{ConnId, InvalidField, NodeId, Put, ShardId, Take};

use super::io::{Refused, Why};
use crate::lane::Epoch;

/// A Client Identifier.
pub type Client = Arc<str>;

/// A connection of one node. In one incarnation no two are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Conn {
    /// At which shard.
    pub shard: ShardId,
    /// Which one there.
    pub id: ConnId,
}

/// A connection, as its node tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The connection.
    pub conn: Conn,
    /// For how long it has been there, when this was sent. In whole milliseconds.
    pub age: Duration,
    /// Whether it starts clean.
    pub clean: bool,
    /// Whether a session that begins with it is stored.
    pub durable: bool,
    /// What it was granted; `None` if it waits for that.
    pub granted: Option<(Epoch, NodeId)>,
}

/// A session, as its home tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// With which epoch it was attached last.
    pub epoch: Epoch,
    /// With which it began by a clean start; [`Epoch::ZERO`] else.
    pub clean: Epoch,
    /// Whether it is stored.
    pub durable: bool,
    /// How long ago it was attached last. In whole milliseconds.
    pub age: Duration,
    /// Where the connection is or was that attached last since the node started.
    pub serves: Option<NodeId>,
}

/// All that a node has of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The client.
    pub client: Client,
    /// The highest epoch that was heard of.
    pub known: Epoch,
    /// Its connections: one that waits, and others that are to end.
    pub links: Vec<Link>,
    /// Its session.
    pub session: Option<Session>,
    /// Sessions elsewhere that do not count if their epoch is lower.
    pub supersedes: Vec<(NodeId, Epoch)>,
}

/// What has changed at a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Report {
    /// A connection, and whether it had heard of a grant, or the client has a session there.
    Closed(Conn, bool),
    /// The session that was last attached with this epoch.
    Ended(Epoch),
    /// That the session at a node does not count, for it is no more.
    Acted(NodeId, Epoch),
    /// A session has begun with this epoch, perhaps granted by an earlier seat after this node had announced.
    Began(Epoch),
    /// The session that a connection was attached to with this epoch is here from now on. It began clean with that one; it is
    /// stored, or not.
    Moved(Epoch, Epoch, bool),
}

/// A message. A round is a pairing of a seat and a node, numbered by the seat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// From the seat: say what you have, and obey me.
    Summon {
        /// The round.
        round: u64,
        /// Its term.
        term: u64,
        /// If there is no quorum: all nodes that the seat can reach, itself included, in order. Empty with a quorum.
        view: Vec<NodeId>,
        /// Up to where it has been told; `None` at the start.
        after: Option<Client>,
    },
    /// To the seat: what this node has of the clients behind `after`.
    Announce {
        /// The round.
        round: u64,
        /// Of the Summon.
        after: Option<Client>,
        /// In order of the clients.
        items: Vec<Item>,
        /// Whether these were the last.
        end: bool,
    },
    /// To whom this node would obey: the highest round that was heard is over.
    Again {
        /// That round; 0 if there was none.
        round: u64,
    },
    /// To the seat: a connection wants its session.
    Claim {
        /// The round.
        round: u64,
        /// Rises with each Claim of the node, also if it is sent again: lower or equal ones are ignored.
        number: u64,
        /// Whose.
        client: Client,
        /// The connection.
        link: Link,
        /// The highest epoch that was heard of.
        known: Epoch,
    },
    /// From the seat: it has it.
    ClaimOk {
        /// The round.
        round: u64,
        /// Whose.
        client: Client,
        /// The connection.
        conn: Conn,
        /// Its epoch.
        epoch: Epoch,
        /// Where the session is, or is to be.
        home: NodeId,
        /// Where there are sessions that do not count any more.
        supersedes: Vec<NodeId>,
    },
    /// From the seat: it does not get it.
    ClaimRejected {
        /// The round.
        round: u64,
        /// Whose.
        client: Client,
        /// The connection.
        conn: Conn,
        /// Why.
        why: Refused,
    },
    /// From the seat: a connection has to end, granted or not. Answered by [`Report::Closed`] or [`Message::FenceAck`].
    Fence {
        /// The round.
        round: u64,
        /// Whose.
        client: Client,
        /// The connection.
        conn: Conn,
        /// The epoch of who gets the session.
        epoch: Epoch,
        /// Why.
        why: Why,
    },
    /// To the seat: there is no such connection.
    FenceAck {
        /// The round.
        round: u64,
        /// Whose.
        client: Client,
        /// The connection.
        conn: Conn,
    },
    /// From the seat: the session with at most this epoch has to end. Answered by [`Report::Ended`] or [`Message::EndAck`].
    End {
        /// The round.
        round: u64,
        /// Whose.
        client: Client,
        /// Up to which epoch.
        epoch: Epoch,
        /// Who has it now.
        to: NodeId,
        /// Whether nothing of it may come back.
        discard: bool,
    },
    /// To the seat: there is no such session.
    EndAck {
        /// The round.
        round: u64,
        /// Whose.
        client: Client,
    },
    /// From the seat: what this session was to make void is no more.
    Acted {
        /// The round.
        round: u64,
        /// Whose.
        client: Client,
        /// Where it was.
        home: NodeId,
        /// Of the one that is void.
        epoch: Epoch,
    },
    /// To the seat: something has changed.
    Report {
        /// The round.
        round: u64,
        /// Comes back.
        number: u64,
        /// Whose.
        client: Client,
        /// What.
        report: Report,
    },
    /// From the seat: the report has come.
    Reported {
        /// The round.
        round: u64,
        /// Of the report.
        number: u64,
    },
    /// To the seat: an epoch that it has raised has come.
    Took {
        /// The round.
        round: u64,
        /// Whose.
        client: Client,
        /// The connection.
        conn: Conn,
        /// The epoch.
        epoch: Epoch,
    },
    /// To the home: a connection attaches to its session.
    Attach {
        /// Whose.
        client: Client,
        /// The connection.
        conn: Conn,
        /// Granted for it.
        epoch: Epoch,
        /// Whether it starts clean.
        clean: bool,
        /// Whether a session that begins now is stored.
        durable: bool,
        /// What the connection can take.
        limits: Box<[u8]>,
    },
    /// From the home: it is attached.
    Attached {
        /// Whose.
        client: Client,
        /// The connection.
        conn: Conn,
        /// Of the Attach.
        epoch: Epoch,
        /// Session Present.
        present: bool,
        /// What the home's shard says.
        answer: Box<[u8]>,
    },
    /// From the home: a higher epoch is known there.
    Outdated {
        /// Whose.
        client: Client,
        /// The connection.
        conn: Conn,
        /// Of the Attach.
        epoch: Epoch,
        /// The one that is known.
        known: Epoch,
    },
}

impl Message {
    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut put = Put(out);
        match self {
            Message::Summon { round, term, view, after } => {
                put.byte(1).number(*round).number(*term).number(view.len() as u64);
                view.iter().for_each(|node| _ = put.number(node.0));
                put_after(&mut put, after.as_ref());
            }
            Message::Announce { round, after, items, end } => {
                put_after(put.byte(2).number(*round), after.as_ref());
                put.flag(*end).number(items.len() as u64);
                items.iter().for_each(|item| put_item(&mut put, item));
            }
            Message::Again { round } => _ = put.byte(3).number(*round),
            Message::Claim { round, number, client, link, known } => {
                put.byte(4).number(*round).number(*number).text(client);
                put_link(&mut put, link);
                put_epoch(&mut put, *known);
            }
            Message::ClaimOk { round, client, conn, epoch, home, supersedes } => {
                put_head(put.byte(5).number(*round), client, *conn, *epoch);
                put.number(home.0).number(supersedes.len() as u64);
                supersedes.iter().for_each(|node| _ = put.number(node.0));
            }
            Message::ClaimRejected { round, client, conn, why } => {
                put_conn(put.byte(6).number(*round).text(client), *conn);
                put.byte(place(&REFUSED, *why));
            }
            Message::Fence { round, client, conn, epoch, why } => {
                put_head(put.byte(7).number(*round), client, *conn, *epoch);
                put.byte(place(&WHY, *why));
            }
            Message::FenceAck { round, client, conn } => put_conn(put.byte(8).number(*round).text(client), *conn),
            Message::End { round, client, epoch, to, discard } => {
                put_epoch(put.byte(9).number(*round).text(client), *epoch);
                put.number(to.0).flag(*discard);
            }
            Message::EndAck { round, client } => _ = put.byte(10).number(*round).text(client),
            Message::Acted { round, client, home, epoch } => {
                put_epoch(put.byte(11).number(*round).text(client).number(home.0), *epoch);
            }
            Message::Report { round, number, client, report } => {
                put.byte(12).number(*round).number(*number).text(client);
                match report {
                    Report::Closed(conn, has) => put_conn(put.byte(0).flag(*has), *conn),
                    Report::Ended(epoch) => put_epoch(put.byte(1), *epoch),
                    Report::Acted(home, epoch) => put_epoch(put.byte(2).number(home.0), *epoch),
                    Report::Began(epoch) => put_epoch(put.byte(3), *epoch),
                    Report::Moved(epoch, clean, durable) => {
                        put_epoch(put.byte(4).flag(*durable), *epoch);
                        put_epoch(&mut put, *clean);
                    }
                }
            }
            Message::Reported { round, number } => _ = put.byte(13).number(*round).number(*number),
            Message::Took { round, client, conn, epoch } => {
                put_head(put.byte(14).number(*round), client, *conn, *epoch);
            }
            Message::Attach { client, conn, epoch, clean, durable, limits } => {
                put_head(put.byte(15), client, *conn, *epoch);
                put.flag(*clean).flag(*durable).bytes(limits);
            }
            Message::Attached { client, conn, epoch, present, answer } => {
                put_head(put.byte(16), client, *conn, *epoch);
                put.flag(*present).bytes(answer);
            }
            Message::Outdated { client, conn, epoch, known } => {
                put_head(put.byte(17), client, *conn, *epoch);
                put_epoch(&mut put, *known);
            }
        }
    }

    /// Reads a message that fills `bytes`.
    ///
    /// # Errors
    /// It is none. That is the peer's fault.
    pub fn decode(bytes: &[u8]) -> Result<Message, InvalidField> {
        let mut take = Take(bytes);
        let t = &mut take;
        let message = match t.byte()? {
            kind @ 1..15 => {
                let round = t.number()?;
                take_numbered(kind, round, t)?
            }
            kind @ 15..18 => {
                let (client, conn, epoch) = (t.text()?.into(), take_conn(t)?, take_epoch(t)?);
                match kind {
                    15 => {
                        let (clean, durable) = (t.flag()?, t.flag()?);
                        Message::Attach { client, conn, epoch, clean, durable, limits: t.bytes()?.into() }
                    }
                    16 => Message::Attached { client, conn, epoch, present: t.flag()?, answer: t.bytes()?.into() },
                    _ => Message::Outdated { client, conn, epoch, known: take_epoch(t)? },
                }
            }
            _ => return Err(InvalidField("an unknown message")),
        };
        take.end()?;
        Ok(message)
    }
}

/// What is between a seat and a node.
fn take_numbered(kind: u8, round: u64, t: &mut Take<'_>) -> Result<Message, InvalidField> {
    Ok(match kind {
        1 => {
            let (term, view) = (t.number()?, take_nodes(t)?);
            Message::Summon { round, term, view, after: take_after(t)? }
        }
        2 => {
            let (after, end) = (take_after(t)?, t.flag()?);
            let mut items = Vec::new();
            for _ in 0..t.count()? {
                items.push(take_item(t)?);
            }
            Message::Announce { round, after, items, end }
        }
        3 => Message::Again { round },
        4 => {
            let (number, client, link) = (t.number()?, t.text()?.into(), take_link(t)?);
            Message::Claim { round, number, client, link, known: take_epoch(t)? }
        }
        5 => {
            let (client, conn, epoch) = (t.text()?.into(), take_conn(t)?, take_epoch(t)?);
            let home = NodeId(t.number()?);
            Message::ClaimOk { round, client, conn, epoch, home, supersedes: take_nodes(t)? }
        }
        6 => {
            let (client, conn) = (t.text()?.into(), take_conn(t)?);
            Message::ClaimRejected { round, client, conn, why: at(&REFUSED, t.byte()?)? }
        }
        7 => {
            let (client, conn, epoch) = (t.text()?.into(), take_conn(t)?, take_epoch(t)?);
            Message::Fence { round, client, conn, epoch, why: at(&WHY, t.byte()?)? }
        }
        8 => Message::FenceAck { round, client: t.text()?.into(), conn: take_conn(t)? },
        9 => {
            let (client, epoch, to) = (t.text()?.into(), take_epoch(t)?, NodeId(t.number()?));
            Message::End { round, client, epoch, to, discard: t.flag()? }
        }
        10 => Message::EndAck { round, client: t.text()?.into() },
        11 => {
            let (client, home) = (t.text()?.into(), NodeId(t.number()?));
            Message::Acted { round, client, home, epoch: take_epoch(t)? }
        }
        12 => {
            let (number, client) = (t.number()?, t.text()?.into());
            let report = match t.byte()? {
                0 => {
                    let has = t.flag()?;
                    Report::Closed(take_conn(t)?, has)
                }
                1 => Report::Ended(take_epoch(t)?),
                2 => Report::Acted(NodeId(t.number()?), take_epoch(t)?),
                3 => Report::Began(take_epoch(t)?),
                4 => {
                    let durable = t.flag()?;
                    Report::Moved(take_epoch(t)?, take_epoch(t)?, durable)
                }
                _ => return Err(InvalidField("an unknown report")),
            };
            Message::Report { round, number, client, report }
        }
        13 => Message::Reported { round, number: t.number()? },
        _ => {
            let (client, conn) = (t.text()?.into(), take_conn(t)?);
            Message::Took { round, client, conn, epoch: take_epoch(t)? }
        }
    })
}

fn put_head(put: &mut Put<'_>, client: &Client, conn: Conn, epoch: Epoch) {
    put_conn(put.text(client), conn);
    put_epoch(put, epoch);
}

fn put_conn(put: &mut Put<'_>, Conn { shard, id }: Conn) {
    put.number(shard.0.into()).number(id.slot.into()).number(id.generation.into());
}

fn take_conn(t: &mut Take<'_>) -> Result<Conn, InvalidField> {
    let shard = ShardId(t.number16()?);
    Ok(Conn { shard, id: ConnId { slot: t.number32()?, generation: t.number32()? } })
}

fn put_epoch(put: &mut Put<'_>, Epoch { term, seq, provisional, issuer }: Epoch) {
    put.number(term).number(seq).number(provisional).number(issuer.0);
}

fn take_epoch(t: &mut Take<'_>) -> Result<Epoch, InvalidField> {
    let (term, seq, provisional) = (t.number()?, t.number()?, t.number()?);
    Ok(Epoch { term, seq, provisional, issuer: NodeId(t.number()?) })
}

fn put_age(put: &mut Put<'_>, age: Duration) {
    put.number(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
}

fn take_age(t: &mut Take<'_>) -> Result<Duration, InvalidField> {
    Ok(Duration::from_millis(t.number()?))
}

fn put_after(put: &mut Put<'_>, after: Option<&Client>) {
    put.flag(after.is_some());
    if let Some(after) = after {
        put.text(after);
    }
}

fn take_after(t: &mut Take<'_>) -> Result<Option<Client>, InvalidField> {
    Ok(if t.flag()? { Some(t.text()?.into()) } else { None })
}

fn take_nodes(t: &mut Take<'_>) -> Result<Vec<NodeId>, InvalidField> {
    (0..t.count()?).map(|_| Ok(NodeId(t.number()?))).collect()
}

fn put_link(put: &mut Put<'_>, Link { conn, age, clean, durable, granted }: &Link) {
    put_conn(put, *conn);
    put_age(put, *age);
    put.flag(*clean).flag(*durable).flag(granted.is_some());
    if let Some((epoch, home)) = granted {
        put_epoch(put, *epoch);
        put.number(home.0);
    }
}

fn take_link(t: &mut Take<'_>) -> Result<Link, InvalidField> {
    let (conn, age, clean, durable) = (take_conn(t)?, take_age(t)?, t.flag()?, t.flag()?);
    let granted = if t.flag()? { Some((take_epoch(t)?, NodeId(t.number()?))) } else { None };
    Ok(Link { conn, age, clean, durable, granted })
}

fn put_item(put: &mut Put<'_>, Item { client, known, links, session, supersedes }: &Item) {
    put_epoch(put.text(client), *known);
    put.number(links.len() as u64);
    links.iter().for_each(|link| put_link(put, link));
    put.flag(session.is_some());
    if let Some(Session { epoch, clean, durable, age, serves }) = session {
        put_epoch(put, *epoch);
        put_epoch(put, *clean);
        put_age(put.flag(*durable), *age);
        put.flag(serves.is_some());
        if let Some(node) = serves {
            put.number(node.0);
        }
    }
    put.number(supersedes.len() as u64);
    supersedes.iter().for_each(|(home, epoch)| put_epoch(put.number(home.0), *epoch));
}

fn take_item(t: &mut Take<'_>) -> Result<Item, InvalidField> {
    let (client, known) = (t.text()?.into(), take_epoch(t)?);
    let links = (0..t.count()?).map(|_| take_link(t)).collect::<Result<_, _>>()?;
    let session = if t.flag()? {
        let (epoch, clean) = (take_epoch(t)?, take_epoch(t)?);
        let (durable, age) = (t.flag()?, take_age(t)?);
        let serves = if t.flag()? { Some(NodeId(t.number()?)) } else { None };
        Some(Session { epoch, clean, durable, age, serves })
    } else {
        None
    };
    let supersedes = (0..t.count()?).map(|_| Ok((NodeId(t.number()?), take_epoch(t)?))).collect::<Result<_, _>>()?;
    Ok(Item { client, known, links, session, supersedes })
}

fn place<T: Copy + PartialEq>(all: &[T], one: T) -> u8 {
    all.iter().position(|other| *other == one).map_or(u8::MAX, |place| place as u8)
}

fn at<T: Copy>(all: &[T], place: u8) -> Result<T, InvalidField> {
    all.get(usize::from(place)).copied().ok_or(InvalidField("an unknown reason"))
}

const REFUSED: [Refused; 3] = [Refused::Superseded, Refused::Unavailable, Refused::Full];
const WHY: [Why; 2] = [Why::Takeover, Why::Conflict];
