//! Devices of the gateways for MQTT-SN, for operators.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use newtmq_mqtt_sn::ClientState;
use newtmq_node::From;
use serde_json::{Value, json};

use super::Admin;
use super::question::{Answer, Cursor, Fault, Part, Question};
use crate::config::Transport;
use crate::sn::{self, Device};

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

    /// The gateways of this node. Where it listens on every interface it does not say where.
    pub(super) fn gateways(&self) -> Value {
        let listening = self.0.listening.get().map(Vec::as_slice).unwrap_or_default();
        let own = listening.iter().filter(|(_, intake)| intake.listener().transport == Transport::Sn);
        let shown = |address: &SocketAddr| {
            let ip = Some(address.ip()).filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string());
            json!({ "id": self.0.facts.config.sn.gateway_id, "ip": ip, "port": address.port() })
        };
        own.map(|(address, _)| shown(address)).collect()
    }

    /// Tells the gateways of this node of those of the others, again and again: devices that look for one are told of them.
    pub async fn tell_gateways(self) {
        let Some(own) = self.0.gateways.get().filter(|own| !own.is_empty()).cloned() else { return };
        let mut ticks = tokio::time::interval(TELL_GATEWAYS);
        loop {
            ticks.tick().await;
            let mut others = Vec::new();
            for node in self.others().await {
                // Who does not answer now is told of later.
                let Ok(answer) = self.ask_node(&node, &Question::Gateways).await else { continue };
                let reached = node.address.parse::<SocketAddr>().ok().map(|address| address.ip());
                others.extend(answer.data.as_array().into_iter().flatten().filter_map(|of| gateway(of, reached)));
            }
            for (_, board) in &own {
                board.others(others.clone()).await;
            }
        }
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

/// GwId and GwAdd, as another node says it, which is reached at this address.
fn gateway(of: &Value, reached: Option<IpAddr>) -> Option<(u8, Box<[u8]>)> {
    let ip = of["ip"].as_str().and_then(|ip| ip.parse().ok()).or(reached)?;
    let port = u16::try_from(of["port"].as_u64()?).ok()?;
    Some((u8::try_from(of["id"].as_u64()?).ok()?, sn::gateway_address(SocketAddr::new(ip, port))))
}

/// How often.
const TELL_GATEWAYS: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_other_gateways_are() {
        let node = Some(IpAddr::from([10, 0, 0, 2]));
        let at = |value: Value| gateway(&value, node).map(|(id, address)| (id, address.to_vec()));
        let own = json!({ "id": 7, "ip": "192.0.2.1", "port": 1884 });
        assert_eq!(at(own), Some((7, vec![192, 0, 2, 1, 7, 92])));
        assert_eq!(at(json!({ "id": 7, "ip": null, "port": 1884 })), Some((7, vec![10, 0, 0, 2, 7, 92])));
        let long = at(json!({ "id": 1, "ip": "2001:db8::1", "port": 1 })).unwrap();
        assert_eq!((long.1.len(), &long.1[..4]), (18, &[0x20, 1, 0x0d, 0xb8][..]));
        for wrong in
            [json!({ "id": 300, "port": 1 }), json!({ "id": 1, "port": 70_000 }), json!([]), json!({ "id": 1 })]
        {
            assert_eq!(at(wrong.clone()), None, "{wrong}");
        }
    }
}
