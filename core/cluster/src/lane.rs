//! Lanes: messages from a shard of one node to a shard of another, in order, each once.
