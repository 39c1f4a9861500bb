//! The keys of `mqtt.sn.*`, which exist once.

use super::sn::Qos3;
use super::table::{Field, HOUR, Key, fit, key};
use super::types::Config;

/// What these keys begin with.
pub(super) const SN_SECTION: &str = "mqtt.sn.";
/// Where ADVERTISE goes.
pub(super) const SN_ADVERTISE_TO: &str = "mqtt.sn.advertise_to";
/// The password of all devices, which is not shown.
pub(super) const SN_PASSWORD: &str = "mqtt.sn.password";
/// The User Name that it belongs to.
pub(super) const SN_USERNAME: &str = "mqtt.sn.username";

/// `mqtt.sn.*`
pub(super) const SN: &[Key<Config>] = &[
    key(
        "mqtt.sn.gateway_id",
        Field::Count(0, 255, |c, v| c.sn.gateway_id = fit(v)),
        "1",
        "GwId, by which devices know the gateway. Each node of a cluster should have its own.",
    ),
    key(
        "mqtt.sn.advertise_duration",
        Field::Seconds(0, 65_535, |c, v| c.sn.advertise_duration = v),
        "15m",
        "Time between two ADVERTISE, if `mqtt.sn.advertise_to` says where to; 0s is never. SEARCHGW is answered in any case.",
    ),
    key(
        SN_ADVERTISE_TO,
        Field::AddressOrNone(|c, v| c.sn.advertise_to = v),
        "none",
        "Where ADVERTISE goes: a broadcast or multicast address of the devices' network and their port.",
    ),
    key(
        "mqtt.sn.enable_qos3",
        Field::Word(Qos3::WORDS, |c, v| c.sn.enable_qos3 = Qos3::ALL[v]),
        "off",
        "Who may publish with QoS -1: nobody, everybody, or who is connected. Those without a connection all have the Client \
         Identifier `mqtt.sn.qos3_clientid`, with the permissions that the rules give it.",
    ),
    key(
        "mqtt.sn.qos3_clientid",
        Field::TextOrNone(|c, v| c.sn.qos3_clientid = v),
        "none",
        "Client Identifier of those who publish with QoS -1 without a connection. Each node of a cluster needs its own. `none` is \
         `newtmq-sn-` and the node's id.",
    ),
    key(
        "mqtt.sn.idle_timeout",
        Field::Time(1000, HOUR, |c, v| c.sn.idle_timeout = v),
        "30s",
        "How long a device may take to send its will.",
    ),
    key(
        "mqtt.sn.predefined.topic.N",
        Field::Topic(|c, n, v| {
            c.sn.predefined.insert(n, v.to_owned());
        }),
        "",
        "The topic of a predefined id from 1 to 65534, which devices know beforehand.",
    ),
    key(
        SN_USERNAME,
        Field::TextOrNone(|c, v| c.sn.username = v),
        "none",
        "User Name that all devices connect with, as MQTT-SN has none.",
    ),
    key(SN_PASSWORD, Field::Secret(|c, v| c.sn.password = v), "none", "Password that all devices connect with."),
    key(
        "mqtt.sn.subs_resume",
        Field::Flag(|c, v| c.sn.subs_resume = v),
        "true",
        "Topics are registered again before the first message after a CONNECT without CleanSession, as the specification has \
         it; otherwise a device is trusted to remember their ids. EMQ X: false.",
    ),
    key(
        "mqtt.sn.retry_interval",
        Field::Time(100, HOUR, |c, v| c.sn.retry_interval = v),
        "10s",
        "Time until a message to a device is sent again (T_retry).",
    ),
    key(
        "mqtt.sn.max_retries",
        Field::Count(0, 100, |c, v| c.sn.max_retries = fit(v)),
        "5",
        "How often a message is sent again before the device counts as lost (N_retry).",
    ),
    key(
        "mqtt.sn.max_topic_ids",
        Field::Count(1, 65_534, |c, v| c.sn.max_topic_ids = fit(v)),
        "1024",
        "Topic ids of a device. At the limit it is told of congestion, and messages with other topics are dropped, counted.",
    ),
    key(
        "mqtt.sn.max_buffer_len",
        Field::Count(1, 65_535, |c, v| c.sn.max_buffer_len = fit(v)),
        "100",
        "QoS 0 messages that wait for a sleeping device; the oldest is dropped above it, counted. Those with QoS 1 and 2 wait in \
         its session.",
    ),
    key(
        "mqtt.sn.max_datagram",
        Field::Count(64, 65_507, |c, v| c.sn.max_datagram = fit(v)),
        "1472",
        "Bytes of the largest datagram that is sent to a device. A message that needs more is dropped, counted.",
    ),
];
