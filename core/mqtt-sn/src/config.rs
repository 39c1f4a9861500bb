//! What a gateway is told at its start. Names in `mqtt.sn.*` are those of the configuration keys.

use core::time::Duration;

/// Everything configurable about a gateway.
#[derive(Clone)]
pub struct Config {
    /// `mqtt.sn.gateway_id`
    pub gateway_id: u8,
    /// `mqtt.sn.advertise_duration`: time between two ADVERTISE; zero for none.
    pub advertise_interval: Duration,
    /// `mqtt.sn.enable_qos3`: who may publish with QoS -1.
    pub minus_one: MinusOne,
    /// Client Identifier by which the broker knows those who publish so without a connection; its own permissions in the
    /// broker's rules are theirs.
    pub minus_one_client: Box<str>,
    /// `mqtt.sn.idle_timeout`: most time for the will handshake, and for the broker to answer a CONNECT.
    pub idle_timeout: Duration,
    /// `mqtt.sn.predefined.topic.N`: topics that clients know by their ids beforehand; 0 and 0xFFFF are no ids.
    pub predefined: Vec<(u16, Box<str>)>,
    /// `mqtt.sn.username`: the User Name that all clients connect with at the broker.
    pub username: Option<Box<str>>,
    /// `mqtt.sn.password`
    pub password: Option<Box<[u8]>>,
    /// Session Expiry Interval of clients without CleanSession, in seconds.
    pub session_expiry_interval: u32,
    /// T_retry: time until a message to a client is sent again.
    pub retry_interval: Duration,
    /// N_retry: how often, before the client counts as lost.
    pub retries: u8,
    /// Receive Maximum toward the broker: how many QoS 1 and 2 messages are taken over at a time for one client. They go
    /// to the client one after the other in any case.
    pub window: u16,
    /// Most clients. Above, CONNECT is answered with congestion.
    pub max_clients: usize,
    /// Most will handshakes, and as many CONNECTs that the broker has not answered. Above, CONNECT is answered with
    /// congestion.
    pub max_handshakes: usize,
    /// Longest ClientId, in bytes. The specification has 23; many devices do not keep to it.
    pub max_client_id_len: usize,
    /// Most topic ids of a client. Above, REGISTER and SUBSCRIBE are answered with congestion, and messages with other
    /// topics are dropped, counted.
    pub max_topic_ids: u16,
    /// Most messages that wait for a client at the gateway. Above, the oldest of QoS 0 is dropped, counted.
    pub max_buffer_len: usize,
    /// The same, in bytes of payload.
    pub max_buffer_bytes: usize,
    /// Largest datagram that is sent. A message that needs more is dropped, counted.
    pub max_datagram: usize,
    /// For how long a datagram may come late, or twice. What repeats a message that was completed within this time is
    /// answered and not acted on: the same MsgId with the same content. Zero for never.
    pub duplicate_window: Duration,
    /// Whether topics are registered again before the first message after a CONNECT without CleanSession, as the
    /// specification has it (6.10). Otherwise the client is trusted to remember.
    pub register_on_resume: bool,
    /// Most answers a second to addresses that are no client's. Above, they get none.
    pub stray_replies_per_second: u32,
}

/// Who may publish with QoS -1 (6.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinusOne {
    /// Nobody.
    Off,
    /// Who is connected, under its own name and permissions.
    Connected,
    /// Everybody; who is not connected under [`Config::minus_one_client`].
    Anybody,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            gateway_id: 1,
            advertise_interval: Duration::from_secs(15 * 60),
            minus_one: MinusOne::Off,
            minus_one_client: "newtmq-sn-1".into(),
            idle_timeout: Duration::from_secs(30),
            predefined: Vec::new(),
            username: None,
            password: None,
            session_expiry_interval: 2 * 3600,
            retry_interval: Duration::from_secs(10),
            retries: 5,
            window: 1,
            max_clients: 1_000_000,
            max_handshakes: 10_000,
            max_client_id_len: 128,
            max_topic_ids: 1024,
            max_buffer_len: 100,
            max_buffer_bytes: 64 << 10,
            max_datagram: 1472,
            duplicate_window: Duration::from_secs(10),
            register_on_resume: true,
            stray_replies_per_second: 1000,
        }
    }
}

impl core::fmt::Debug for Config {
    /// Without the password.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Config")
            .field("gateway_id", &self.gateway_id)
            .field("minus_one", &self.minus_one)
            .field("predefined", &self.predefined)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// The topic of a predefined id.
    pub(crate) fn predefined_name(&self, id: u16) -> Option<&str> {
        let known = self.predefined.iter().find(|(known, _)| *known == id);
        known.map(|(_, name)| &**name)
    }
}
