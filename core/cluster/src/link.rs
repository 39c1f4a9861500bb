//! Links: one to each peer, authenticated, with streams that survive a reconnect.
