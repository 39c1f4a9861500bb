//! What lies between a TCP connection and MQTT: the PROXY header, TLS, WebSocket.
//!
//! The steps that come first on a connection (a header, a handshake, an HTTP request) are done off the shards' threads by
//! [`intake`]. What remains is a [`Link`]: a stream that a shard's driver reads and writes like plain TCP. Nothing here
//! knows a rule of MQTT.

pub mod access;
pub mod certs;
pub mod identity;
pub mod intake;
mod link;
pub mod proxy;
pub mod tls;
pub mod upgrade;
pub mod ws;

pub use link::Link;
