//! Looks again and again whether anything is wrong.

use std::collections::BTreeSet;
use std::time::Duration;

use newtmq_base::Instant;
use serde_json::json;

use super::measure::{self, Measure};
use super::{Change, Severity};
use crate::admin::Admin;
use crate::config::AlarmLimits;
use crate::rt;

/// Looks again and again, for as long as the broker runs.
pub async fn watch(admin: Admin) {
    let mut watch = Watch::new(&admin);
    for round in 0_u64.. {
        watch.look(&admin, round.is_multiple_of(SLOWER)).await;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

struct Watch {
    limits: AlarmLimits,
    dropped: Option<u64>,
    /// When messages of slow consumers were dropped last.
    dropped_at: Option<Instant>,
    /// What the machine's clock showed beyond ours.
    offset: i128,
    jumped_at: Option<Instant>,
    /// Nodes that were down in the last look.
    down: BTreeSet<String>,
    /// Nodes that an alarm is raised about.
    told: BTreeSet<String>,
}

impl Watch {
    fn new(admin: &Admin) -> Watch {
        let limits = admin.facts().config.alarm.clone();
        let offset = offset(admin);
        Watch {
            limits,
            dropped: None,
            dropped_at: None,
            offset,
            jumped_at: None,
            down: BTreeSet::new(),
            told: BTreeSet::new(),
        }
    }

    async fn look(&mut self, admin: &Admin, all: bool) {
        if all {
            self.measure(admin);
        }
        self.clock(admin);
        self.consumers(admin).await;
        self.nodes(admin).await;
    }

    /// What can run short.
    fn measure(&self, admin: &Admin) {
        let data = admin.facts().data.as_deref();
        let disk = data.and_then(|data| measure::disk(data).map(|measured| (measured, data.display().to_string())));
        let limits = &self.limits;
        judge(admin, "open_files", limits.open_files, measure::open_files(), |at| {
            format!("{} of {} files and connections are open", at.used, at.total)
        });
        judge(admin, "memory", limits.memory, measure::memory(), |at| {
            format!("{} of {} MiB of memory are in use", at.used >> 20, at.total >> 20)
        });
        if let Some((measured, path)) = disk {
            judge(admin, "disk", limits.disk, Some(measured), |at| {
                format!("{} of {} MiB of the file system with {path} are used", at.used >> 20, at.total >> 20)
            });
        }
    }

    /// The machine's clock against one that is never set.
    fn clock(&mut self, admin: &Admin) {
        let Some(most) = self.limits.clock_jump else { return };
        let (now, seen) = (admin.facts().clock.now(), offset(admin));
        let step = seen - std::mem::replace(&mut self.offset, seen);
        if step.unsigned_abs() > most.as_millis() {
            self.jumped_at = Some(now);
            let way = if step > 0 { "ahead" } else { "back" };
            let seconds = step.unsigned_abs() as f64 / 1000.0;
            let told = format!("the machine's clock was set {way} by {seconds:.1} s");
            // Another one while it is raised is another alarm.
            set(admin, "clock_jump", None);
            set(admin, "clock_jump", Some((Severity::Warning, told)));
        } else if self.jumped_at.is_some_and(|at| now - at >= CLOCK_CALM) {
            self.jumped_at = None;
            set(admin, "clock_jump", None);
        }
    }

    /// Queues that drop what they have no room for.
    async fn consumers(&mut self, admin: &Admin) {
        let Some(dropped) = admin.dropped_for_slow_consumers().await else { return };
        let now = admin.facts().clock.now();
        let before = self.dropped.replace(dropped).unwrap_or(dropped);
        if dropped > before {
            self.dropped_at = Some(now);
            let told =
                format!("{} messages were dropped within {LOOK_EVERY:?}: clients do not keep up", dropped - before);
            set(admin, "slow_consumers", Some((Severity::Warning, told)));
        } else if self.dropped_at.is_some_and(|at| now - at >= CONSUMERS_CALM) {
            self.dropped_at = None;
            set(admin, "slow_consumers", None);
        }
    }

    /// Other members that nothing is heard of, in two looks: after a start it takes a moment to reach them.
    async fn nodes(&mut self, admin: &Admin) {
        let down: BTreeSet<String> = admin.nodes_that_are_down().await.into_iter().take(NODES_MAX).collect();
        for node in down.intersection(&self.down).filter(|node| !self.told.contains(*node)) {
            set(admin, &id_of(node), Some((Severity::Critical, format!("node {node} is not reached"))));
        }
        for node in self.told.difference(&down) {
            set(admin, &id_of(node), None);
        }
        self.told.retain(|node| down.contains(node));
        self.told.extend(down.intersection(&self.down).cloned());
        self.down = down;
    }
}

fn id_of(node: &str) -> String {
    format!("node_down/{node}")
}

/// What the machine's clock shows beyond ours, in milliseconds.
fn offset(admin: &Admin) -> i128 {
    let ours = (admin.facts().clock.now() - Instant::START).as_millis();
    i128::from(rt::wall_time().0) - i128::try_from(ours).unwrap_or(i128::MAX)
}

fn judge(
    admin: &Admin,
    id: &str,
    mark: Option<crate::config::Watermark>,
    measured: Option<Measure>,
    told: impl Fn(&Measure) -> String,
) {
    let (Some(mark), Some(measured)) = (mark, measured) else { return };
    let is_over = measured.is_over(mark, admin.alarms().is_raised(id));
    set(admin, id, is_over.then(|| (Severity::Warning, told(&measured))));
}

/// Raises or clears it, and tells if that is something else than before.
fn set(admin: &Admin, id: &str, state: Option<(Severity, String)>) {
    let Some(change) = admin.alarms().set(id, rt::wall_time().0, state) else { return };
    let (way, payload) = match &change {
        Change::Raised(alarm) => {
            tracing::warn!(alarm = id, severity = alarm.severity.name(), "alarm: {}", alarm.message);
            let desc = json!({
                "severity": alarm.severity.name(), "title": alarm.title(), "summary": alarm.message,
                "ts": alarm.raised_at / 1000,
            });
            ("alert", json!({ "id": id, "desc": desc }))
        }
        Change::Cleared(alarm) => {
            let cleared_at = alarm.cleared_at.unwrap_or(alarm.raised_at);
            let seconds = cleared_at.saturating_sub(alarm.raised_at) / 1000;
            tracing::info!(alarm = id, seconds, "the alarm is over: {}", alarm.message);
            ("clear", json!({ "id": id, "ts": cleared_at / 1000 }))
        }
    };
    admin.publish_of_server(&format!("alarms/{way}"), payload.to_string());
}

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// What costs more is looked at in one round of so many.
const SLOWER: u64 = 5;
/// So long without a dropped message, and consumers keep up.
const CONSUMERS_CALM: Duration = Duration::from_secs(30);
/// So long an operator sees that the clock was set.
const CLOCK_CALM: Duration = Duration::from_secs(300);
/// Most nodes that an alarm is raised about.
const NODES_MAX: usize = 256;
