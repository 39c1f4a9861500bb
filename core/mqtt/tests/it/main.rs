//! Properties of the codec that hold for every packet and every stream of bytes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod codec;
mod packets;
mod stream;
