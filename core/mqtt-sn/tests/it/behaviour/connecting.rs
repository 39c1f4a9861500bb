//! CONNECT and its repetitions, discovery, the will, the end of connections.

use newtmq_mqtt_sn::{Config, Message, ReturnCode};

use super::{ACCEPTED, connect, join};
use crate::world::{World, device};

#[test]
fn connect_and_disconnect() {
    let mut world = World::new(&Config::default());
    let a = device(1);
    join(&mut world, &a, connect("a"));
    world.exchange(&a, Message::Pingreq(None), &[Message::Pingresp]);
    world.exchange(&a, Message::Disconnect(None), &[Message::Disconnect(None)]);
    assert!(world.gateway().client("a").is_none());
    // The answer was lost.
    world.exchange(&a, Message::Disconnect(None), &[Message::Disconnect(None)]);
    world.exchange(&a, Message::Pingreq(None), &[Message::Disconnect(None)]);
    let _ = (ACCEPTED, ReturnCode::Accepted);
}
