//! What only a node of several shards can get wrong: clients, topics and share groups at different shards, with messages
//! between them that take their time.

mod clients;
mod groups;
mod holds;
mod pair;
mod quota;
mod retained;
mod routes;
