//! Asking the shards, one after the other, until a part of many is full; and asking all of them.

use std::collections::BTreeSet;
use std::time::Duration;

use newtmq_mqtt::OwnedTopicFilter;
use newtmq_node::{
    AdminCommand, ClientInfo, From, OperatorCommand, Page, Report, RetainedInfo, SessionInfo, ShardAnswer,
    ShardQuestion, SubscriptionInfo, Walk, Which,
};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::question::{Cursor, Fault, Part};
use super::{Admin, Event};
use crate::cluster::driver::Known;

/// A shard that has not answered by then has something worse to do.
const PATIENCE: Duration = Duration::from_secs(5);
/// Filters that are looked at for a list of routes.
const ROUTES_MAX: usize = 200_000;
/// How many are asked for at a time, to look at all.
const STEP: usize = 1000;

/// A part of many, over all shards.
pub(super) struct Gathered<T> {
    pub(super) values: Vec<T>,
    pub(super) next: Option<Cursor>,
}

impl Admin {
    async fn ask(&self, shard: usize, question: ShardQuestion) -> Result<ShardAnswer, Fault> {
        let answered = timeout(PATIENCE, self.0.office.ask(shard, question)).await;
        let late = |_| Fault::new(Fault::RPC, format!("shard {shard} has not answered"));
        answered.map_err(late)?.map_err(|_| Fault::stopping())
    }

    async fn walk<T>(
        &self,
        part: &Part,
        ask: impl Fn(Walk) -> ShardQuestion,
        page_of: impl Fn(ShardAnswer) -> Option<Page<T>>,
    ) -> Result<Gathered<T>, Fault> {
        let Part { cursor: Cursor { mut shard, mut from, .. }, mut skip, limit } = part.clone();
        let mut values = Vec::new();
        while shard < self.0.office.shards() {
            let walk = Walk { from, skip, limit: limit - values.len() };
            let page = page_of(self.ask(shard, ask(walk)).await?).expect("each question has its answer");
            skip -= page.skipped;
            values.extend(page.values);
            match page.next {
                Some(next) => from = next,
                None => {
                    shard += 1;
                    from = From::Start;
                }
            }
            if values.len() == limit {
                break;
            }
        }
        let next = (shard < self.0.office.shards()).then_some(Cursor { node: None, shard, from });
        Ok(Gathered { values, next })
    }

    pub(super) async fn clients(&self, which: &Which, part: &Part) -> Result<Gathered<ClientInfo>, Fault> {
        let of = |answer| if let ShardAnswer::Clients(page) = answer { Some(page) } else { None };
        self.walk(part, |walk| ShardQuestion::Clients(which.clone(), walk), of).await
    }

    pub(super) async fn sessions(&self, which: &Which, part: &Part) -> Result<Gathered<SessionInfo>, Fault> {
        let of = |answer| if let ShardAnswer::Sessions(page) = answer { Some(page) } else { None };
        self.walk(part, |walk| ShardQuestion::Sessions(which.clone(), walk), of).await
    }

    pub(super) async fn subscriptions(&self, which: &Which, part: &Part) -> Result<Gathered<SubscriptionInfo>, Fault> {
        let of = |answer| if let ShardAnswer::Subscriptions(page) = answer { Some(page) } else { None };
        self.walk(part, |walk| ShardQuestion::Subscriptions(which.clone(), walk), of).await
    }

    pub(super) async fn retained(
        &self,
        filter: Option<&OwnedTopicFilter>,
        part: &Part,
    ) -> Result<Gathered<RetainedInfo>, Fault> {
        let of = |answer| if let ShardAnswer::Retained(page) = answer { Some(page) } else { None };
        self.walk(part, |walk| ShardQuestion::Retained(filter.cloned(), walk), of).await
    }

    /// The figures of all shards, and open connections by listener.
    pub(super) async fn figures(&self) -> Result<(Report, Vec<u64>), Fault> {
        let mut all = Report::default();
        let mut open = vec![0; self.0.facts.config.listeners.len()];
        for shard in 0..self.0.office.shards() {
            let ShardAnswer::Figures(report, used) = self.ask(shard, ShardQuestion::Figures).await? else {
                unreachable!("each question has its answer")
            };
            all.add(&report);
            for (sum, used) in open.iter_mut().zip(&used) {
                *sum += u64::from(*used);
            }
        }
        Ok((all, open))
    }

    /// Whether every shard serves clients.
    pub(super) async fn is_ready(&self) -> Result<bool, Fault> {
        for shard in 0..self.0.office.shards() {
            if !matches!(self.ask(shard, ShardQuestion::Ready).await?, ShardAnswer::Ready(true)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Why clients should not be sent to this node; none if they may.
    pub(super) async fn unready(&self) -> Result<Option<String>, Fault> {
        // The cluster says more about it.
        if let Some(why) = self.cluster().await.and_then(|status| status.unready) {
            return Ok(Some(why.to_string()));
        }
        let serves = self.is_ready().await?;
        Ok((!serves).then(|| "the node starts, stops, or does not know yet for whom messages are".to_owned()))
    }

    /// What the control plane knows; nothing while it stops.
    pub(super) async fn known(&self, skip: usize, limit: usize) -> Result<Known, Fault> {
        let (answer, answered) = oneshot::channel();
        self.0.events.send(Event::Ask { skip, limit, answer }).await.map_err(|_| Fault::stopping())?;
        timeout(PATIENCE, answered)
            .await
            .map_err(|_| Fault::new(Fault::RPC, "the control plane has not answered"))?
            .map_err(|_| Fault::stopping())
    }

    /// Filters with the node that has subscribers of them, in order.
    pub(super) async fn routes(&self) -> Result<BTreeSet<(String, String)>, Fault> {
        let mut routes = BTreeSet::new();
        let mut part = Part { cursor: Cursor::default(), skip: 0, limit: STEP };
        let own = &self.0.facts.node;
        loop {
            let found = self.subscriptions(&Which::All, &part).await?;
            routes.extend(found.values.into_iter().map(|found| (found.filter.into_string(), own.clone())));
            match found.next {
                Some(next) if routes.len() < ROUTES_MAX => part.cursor = next,
                _ => break,
            }
        }
        let names = self.cluster().await.map(|cluster| cluster.nodes).unwrap_or_default();
        let mut skip = 0;
        while routes.len() < ROUTES_MAX {
            let known = self.known(skip, STEP).await?.routes;
            if known.is_empty() {
                break;
            }
            skip += known.len();
            routes.extend(known.into_iter().map(|(node, filter)| {
                let named = names.iter().find(|of| of.node == node);
                let name = named.map_or_else(|| format!("{:016x}", node.0), |of| of.name.clone());
                (filter.into_string(), name)
            }));
        }
        Ok(routes)
    }

    /// The shard of a connected client.
    pub(super) async fn shard_of(&self, client: &str) -> Result<Option<usize>, Fault> {
        for shard in 0..self.0.office.shards() {
            let walk = Walk { from: From::Start, skip: 0, limit: 1 };
            let question = ShardQuestion::Clients(Which::Client(client.into()), walk);
            if matches!(self.ask(shard, question).await?, ShardAnswer::Clients(page) if !page.values.is_empty()) {
                return Ok(Some(shard));
            }
        }
        Ok(None)
    }

    /// Whether a client has a subscription.
    pub(super) async fn is_subscribed(&self, client: &str) -> Result<BTreeSet<String>, Fault> {
        let part = Part { cursor: Cursor::default(), skip: 0, limit: ROUTES_MAX };
        let found = self.subscriptions(&Which::Client(client.into()), &part).await?;
        Ok(found.values.into_iter().map(|found| found.filter.into_string()).collect())
    }

    pub(super) fn command(&self, shard: usize, command: OperatorCommand) {
        self.0.office.command_to(shard, AdminCommand::OfOperator(Box::new(command)));
    }

    /// The shard that publishes for operators what goes to a topic: always the same, so that they stay in order.
    pub(super) fn publishing_shard(&self, topic: &str) -> usize {
        let sum = topic.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
        sum % self.0.office.shards()
    }
}
