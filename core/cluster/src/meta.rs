//! The meta group: who is a member, the cluster's configuration, users and rules; Raft decides.
