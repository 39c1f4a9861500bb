//! `[sn]`: what a scenario says of MQTT-SN. Keys of the configuration have the names that they have below `mqtt.sn`.

use core::ops::RangeInclusive;

use super::fields::{MS_MAX, Section, US_MAX, Visitor};
use super::kind::{Bool, Int, Opt, Span, TOPIC, Texts, Words};

/// `[sn]`: the gateway of each node, and the network on which datagrams are lost, doubled and late.
#[derive(Debug, Clone, PartialEq)]
pub struct SnSpec {
    /// `mqtt.sn.predefined.topic.N`, from 1 on.
    pub predefined: Vec<String>,
    /// `mqtt.sn.enable_qos3`
    pub qos3: Qos3,
    /// `mqtt.sn.retry_interval`, in milliseconds
    pub retry_interval_ms: Option<u64>,
    /// `mqtt.sn.max_retries`
    pub max_retries: Option<u8>,
    /// `mqtt.sn.max_topic_ids`
    pub max_topic_ids: Option<u16>,
    /// `mqtt.sn.max_buffer_len`
    pub max_buffer_len: Option<u16>,
    /// `mqtt.sn.subs_resume`
    pub subs_resume: Option<bool>,
    /// Microseconds that a datagram is under way, one way.
    pub latency_us: RangeInclusive<u64>,
    /// Of a million datagrams so many are lost.
    pub loss_ppm: u32,
    /// Of a million datagrams so many come twice.
    pub dup_ppm: u32,
    /// Of a million datagrams so many come late, behind others that were sent after them.
    pub late_ppm: u32,
    /// Up to so many microseconds later.
    pub late_us: u64,
}

/// `mqtt.sn.enable_qos3`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qos3 {
    /// Nobody publishes with QoS -1.
    Off,
    /// Who is connected.
    Connected,
    /// Everybody.
    On,
}

impl Default for SnSpec {
    fn default() -> Self {
        SnSpec {
            predefined: Vec::new(),
            qos3: Qos3::Off,
            retry_interval_ms: None,
            max_retries: None,
            max_topic_ids: None,
            max_buffer_len: None,
            subs_resume: None,
            latency_us: 100..=1_000,
            loss_ppm: 0,
            dup_ppm: 0,
            late_ppm: 0,
            late_us: 0,
        }
    }
}

impl SnSpec {
    /// Microseconds after which a datagram has come, or never comes.
    #[must_use]
    pub fn lifetime_us(&self) -> u64 {
        self.latency_us.end() + if self.late_ppm > 0 { self.late_us } else { 0 }
    }

    /// Whether every datagram comes once and soon.
    #[must_use]
    pub fn is_reliable(&self) -> bool {
        (self.loss_ppm, self.dup_ppm, self.late_ppm) == (0, 0, 0)
    }
}

impl Section for SnSpec {
    #[rustfmt::skip]
    fn fields(&mut self, v: &mut impl Visitor) {
        let d = SnSpec::default();
        v.optional("predefined", "Topics that clients and gateways know by their place in this list, from 1 on: `mqtt.sn.predefined.topic.N`", Texts(TOPIC), &mut self.predefined, &d.predefined);
        let who = Words(&[("off", Qos3::Off), ("connected", Qos3::Connected), ("on", Qos3::On)]);
        v.optional("enable_qos3", "`mqtt.sn.enable_qos3`: who may publish with QoS -1.", who, &mut self.qos3, &d.qos3);
        v.optional("retry_interval_ms", "`mqtt.sn.retry_interval`, in milliseconds", Opt(Int(1..=MS_MAX)), &mut self.retry_interval_ms, &None);
        v.optional("max_retries", "`mqtt.sn.max_retries`", Opt(Int(0..=100)), &mut self.max_retries, &None);
        v.optional("max_topic_ids", "`mqtt.sn.max_topic_ids`", Opt(Int(1..=65_534)), &mut self.max_topic_ids, &None);
        v.optional("max_buffer_len", "`mqtt.sn.max_buffer_len`", Opt(Int(1..=65_535)), &mut self.max_buffer_len, &None);
        v.optional("subs_resume", "`mqtt.sn.subs_resume`", Opt(Bool), &mut self.subs_resume, &None);
        v.micros(["latency_ms", "latency_us"], "How long a datagram is under way, one way.", Span(0..=US_MAX), &mut self.latency_us, &d.latency_us);
        v.optional("loss_ppm", "Of a million datagrams so many are lost.", Int(0..=900_000), &mut self.loss_ppm, &d.loss_ppm);
        v.optional("dup_ppm", "Of a million datagrams so many come twice.", Int(0..=1_000_000), &mut self.dup_ppm, &d.dup_ppm);
        v.optional("late_ppm", "Of a million datagrams so many come late, behind others that were sent after them.", Int(0..=1_000_000), &mut self.late_ppm, &d.late_ppm);
        v.micros(["late_ms", "late_us"], "How much later at most. Less than what a gateway takes for a late copy.", Int(0..=LATE_US_MAX), &mut self.late_us, &d.late_us);
    }
}

/// A gateway knows a repetition again for 10 s; clients of the simulator repeat for 6 s.
const LATE_US_MAX: u64 = 3_000_000;
