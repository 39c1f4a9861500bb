//! `mqtt.sn.*`: what all gateways for MQTT-SN have in common. Where they listen is a listener's.

use std::collections::BTreeMap;
use std::time::Duration;

use super::cluster::Secret;

/// `mqtt.sn.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sn {
    /// GwId.
    pub gateway_id: u8,
    /// Time between two ADVERTISE; zero for none.
    pub advertise_duration: Duration,
    /// Where ADVERTISE goes; none for nowhere.
    pub advertise_to: Option<std::net::SocketAddr>,
    /// Who may publish with QoS -1.
    pub enable_qos3: Qos3,
    /// Client Identifier of those who publish so without a connection; none for one of the node.
    pub qos3_clientid: Option<String>,
    /// Most time for the will handshake, and for the broker to answer a CONNECT.
    pub idle_timeout: Duration,
    /// Topics by their predefined ids, which are 1 to 65534.
    pub predefined: BTreeMap<u16, String>,
    /// User Name that all devices connect with.
    pub username: Option<String>,
    /// Password that all devices connect with.
    pub password: Option<Secret>,
    /// Topics are registered again after a CONNECT without CleanSession.
    pub subs_resume: bool,
    /// Time until a message to a device is sent again.
    pub retry_interval: Duration,
    /// How often, before the device counts as lost.
    pub max_retries: u8,
    /// Topic ids of a device.
    pub max_topic_ids: u16,
    /// QoS 0 messages that wait for a sleeping device.
    pub max_buffer_len: u16,
    /// The largest datagram that is sent.
    pub max_datagram: u16,
}

impl Sn {
    // Only gives the table something to fill.
    pub(super) const BLANK: Sn = Sn {
        gateway_id: 0,
        advertise_duration: Duration::ZERO,
        advertise_to: None,
        enable_qos3: Qos3::Off,
        qos3_clientid: None,
        idle_timeout: Duration::ZERO,
        predefined: BTreeMap::new(),
        username: None,
        password: None,
        subs_resume: false,
        retry_interval: Duration::ZERO,
        max_retries: 0,
        max_topic_ids: 0,
        max_buffer_len: 0,
        max_datagram: 0,
    };
}

words! {
    /// Who may publish with QoS -1.
    Qos3 {
        /// Nobody.
        Off = "off",
        /// Everybody.
        On = "on",
        /// Who is connected.
        Connected = "connected",
    }
}
