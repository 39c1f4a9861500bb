//! Owned logs: what only one node may change and every node knows.
