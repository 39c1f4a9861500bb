//! The `newtmq` command.

fn main() {}
