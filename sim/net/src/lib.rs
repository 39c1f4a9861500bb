//! TCP connections in madsim, as a plugin of its runtime: FIN and RST in band, half-open connections, latency, loss and
//! bandwidth of each direction of each link, cuts in one direction, a full socket buffer that holds its writer, pieces
//! of any size, SYN that nobody answers. Beside them datagrams that are lost or come twice, and files of nodes that outlive
//! them. The crate is empty unless it is built with `--cfg madsim`. Nothing here knows
//! MQTT.
//!
//! Every draw is keyed by the link's seed, the number of the connection on that link and the direction, so that one
//! connection more or less shifts no draw of another.
#![cfg(madsim)]

mod alarm;
mod chance;
mod conn;
mod disk;
mod link;
mod listener;
mod net;
mod pipe;
mod stream;
mod udp;

pub use alarm::Alarm;
pub use disk::{Disk, DiskFile};
pub use link::{Link, LinkSpec};
pub use listener::SimListener;
pub use net::{Net, OnKill, install};
pub use stream::SimStream;
pub use udp::SimUdp;
