//! How the cluster is, for operators; and what alarms need to know and to say.

use std::time::Duration;

use bytes::Bytes;
use newtmq_mqtt::QoS;
use newtmq_node::{ClusterAnswer, ClusterCommand, DropReason, OperatorCommand};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::question::{Answer, Fault};
use super::{Admin, Event};

impl Admin {
    /// How the cluster is, as this node sees it.
    pub(super) async fn cluster_status(&self) -> Result<Answer, Fault> {
        let status = self.cluster().await.ok_or_else(|| Fault::new(Fault::OTHER, "this node has no cluster"))?;
        Ok(Answer::of(crate::cluster::admin::status_json(&status)))
    }

    /// What is wrong with it.
    pub(super) async fn doctor(&self) -> Result<Answer, Fault> {
        let (answer, answered) = oneshot::channel();
        let event = Event::Command { command: ClusterCommand::Examine, answer };
        self.0.events.send(event).await.map_err(|_| Fault::stopping())?;
        let late = |_| Fault::new(Fault::RPC, "the examination takes too long");
        match timeout(EXAMINED, answered).await.map_err(late)?.map_err(|_| Fault::stopping())? {
            ClusterAnswer::Examined(said) => {
                let mut told = crate::cluster::doctor::told(&said);
                let mut data = told["data"].take();
                data["ok"] = told["ok"].take();
                data["verdict"] = told["lines"][0].take();
                Ok(Answer::of(data))
            }
            ClusterAnswer::Refused(why) => Err(Fault::new(Fault::OTHER, why)),
            ClusterAnswer::Done | ClusterAnswer::Status(_) => {
                Err(Fault::new(Fault::OTHER, "the broker has answered something else"))
            }
        }
    }

    /// Members that this node does not reach.
    pub(crate) async fn nodes_that_are_down(&self) -> Vec<String> {
        self.others().await.into_iter().filter(|node| !node.is_up).map(|node| node.name).collect()
    }

    /// Messages that were dropped because a client does not keep up.
    pub(crate) async fn dropped_for_slow_consumers(&self) -> Option<u64> {
        let (report, _) = self.figures().await.ok()?;
        let of = [DropReason::QueueFull, DropReason::SlowConsumer, DropReason::MemoryPressure];
        Some(of.into_iter().map(|reason| report.ledger.dropped(reason)).sum())
    }

    /// Publishes below `$SYS/brokers/NODE/`.
    pub(crate) fn publish_of_server(&self, topic: &str, payload: String) {
        let topic = format!("$SYS/brokers/{}/{topic}", self.0.facts.node);
        let shard = self.publishing_shard(&topic);
        let payload = Bytes::from(payload);
        let publish = OperatorCommand::Publish { topic: topic.into(), payload, qos: QoS::AtMostOnce, retain: false };
        self.command(shard, publish);
    }
}

/// An examination asks all members, and waits for those that do not answer.
const EXAMINED: Duration = Duration::from_secs(12);
