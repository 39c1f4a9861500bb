//! Devices of the gateways for MQTT-SN, for operators.

use newtmq_mqtt_sn::ClientState;
use newtmq_node::From;
use serde_json::{Value, json};

use super::Admin;
use super::question::{Answer, Cursor, Fault, Part};
use crate::sn::Device;

impl Admin {
    /// By their ClientIds.
    pub(super) async fn devices(&self, part: &Part) -> Result<Answer, Fault> {
        let mut all: Vec<(&str, Device)> = Vec::new();
        for (listener, board) in self.0.gateways.get().map(Vec::as_slice).unwrap_or_default() {
            let devices = board.devices().await.ok_or_else(Fault::stopping)?;
            all.extend(devices.into_iter().map(|device| (listener.as_str(), device)));
        }
        all.sort_by(|(_, one), (_, other)| one.id.cmp(&other.id));
        let count = all.len() as u64;
        let after = match &part.cursor.from {
            From::After(id) => all.partition_point(|(_, device)| device.id <= *id),
            From::Start | From::At(_) => 0,
        };
        let from = (after + part.skip).min(all.len());
        let end = from.saturating_add(part.limit).min(all.len());
        let last = all.get(end.wrapping_sub(1)).filter(|_| end > from && end < all.len());
        let next = last.map(|(_, device)| Cursor { from: From::After(device.id.clone()), ..Cursor::default() });
        let data = all[from..end].iter().map(|(listener, device)| self.device(listener, device)).collect();
        Ok(Answer { count: Some(count), next, ..Answer::of(data) })
    }

    fn device(&self, listener: &str, device: &Device) -> Value {
        json!({
            "client_id": device.id,
            "node": self.0.facts.node,
            "listener": listener,
            "address": device.endpoint.map(|endpoint| endpoint.address().to_string()),
            "state": match device.state {
                ClientState::Connecting => "connecting",
                ClientState::Active => "active",
                ClientState::Asleep => "asleep",
                ClientState::Awake => "awake",
            },
            "keepalive": device.keep_alive,
            "sleep": device.sleep,
            "heard_seconds_ago": device.heard.as_secs(),
            "mqueue_len": device.waiting,
            "topic_ids": device.topics,
        })
    }
}
