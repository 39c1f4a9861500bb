//! What a driver's streams have beside their bytes. Only a link of the gateway for MQTT-SN has anything.

use newtmq_node::NewWill;
use tokio::io::{AsyncRead, AsyncWrite};

/// The other end says something that is no packet of MQTT.
#[derive(Debug, PartialEq, Eq)]
pub enum Note {
    /// The session gets another will, or none.
    Will(Option<Box<NewWill>>),
    /// This is to be kept with the session.
    Keep(Box<[u8]>),
    /// The session is to outlive its connection by so many seconds.
    Outlive(u32),
}

/// What the other end is told that is no packet of MQTT.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// The answer to [`Note::Will`]: whether it is permitted.
    WillSet(bool),
    /// What was kept with the session; before its CONNACK.
    Record(Box<[u8]>),
}

/// A stream of a driver.
pub trait DriverStream: AsyncRead + AsyncWrite + Unpin {
    /// Whether it wakes by itself where other streams are watched.
    fn wakes(&self) -> bool {
        false
    }

    /// The next note, if all bytes before it are read. Nothing behind it can be read before.
    fn take_note(&mut self) -> Option<Note> {
        None
    }

    /// Tells the other end something, before all bytes that are written from here on.
    fn tell(&mut self, _: Told) {}
}
