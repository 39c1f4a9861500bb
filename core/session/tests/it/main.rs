//! Properties of the session that hold for every sequence of operations.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod model;
mod operations;
mod restore;
