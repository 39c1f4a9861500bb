//! The memory that the process has in use, against `memory.high_watermark`. It measures, tells the shards, and says so in
//! the log when the level changes; what the levels are and mean is decided in the core.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use newtmq_node::{AdminCommand, MemoryGauge, MemoryMarks, MemoryPressure};
use tokio::sync::{mpsc, watch};

use crate::config::{Config, Watermark};
use crate::reload::{Prepared, Reload};

/// Between two measurements.
const MEASURE_EVERY: Duration = Duration::from_millis(500);

/// The watermark that holds, which can be changed while it is watched.
#[derive(Debug)]
pub struct Mark(watch::Sender<Option<Watermark>>);

impl Reload for Mark {
    fn name(&self) -> String {
        "limit of memory".to_owned()
    }

    fn has_files(&self) -> bool {
        false
    }

    fn prepare(self: Arc<Self>, config: &Config) -> anyhow::Result<Prepared> {
        let watermark = config.memory.high_watermark;
        Ok(Box::new(move || {
            self.0.send_replace(watermark);
            None
        }))
    }
}

/// Measures from here on, while there is a watermark and if this system tells how much memory is used.
pub fn watch(watermark: Option<Watermark>, commands: mpsc::Sender<AdminCommand>) -> Mark {
    let (mark, marked) = watch::channel(watermark);
    match (total(), used()) {
        (Some(total), Some(_)) => drop(tokio::spawn(measure_all(marked, total, commands))),
        _ => tracing::debug!("this system does not tell how much memory is used: memory.high_watermark has no effect"),
    }
    Mark(mark)
}

/// Measures against one watermark after the other. What was held up under one is let go before the next.
async fn measure_all(mut marked: watch::Receiver<Option<Watermark>>, total: u64, commands: mpsc::Sender<AdminCommand>) {
    loop {
        let watermark = *marked.borrow_and_update();
        let measuring = async {
            match watermark {
                Some(watermark) => measure(bytes(watermark, total), commands.clone()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // Nobody changes it any more, and it holds on.
            Ok(()) = marked.changed() => {}
            () = measuring => return,
        }
        if commands.send(AdminCommand::MemoryPressure(MemoryPressure::None)).await.is_err() {
            return;
        }
    }
}

/// On a machine with so much memory.
fn bytes(watermark: Watermark, total: u64) -> u64 {
    match watermark {
        Watermark::Percent(percent) => total / 100 * u64::from(percent),
        Watermark::Bytes(bytes) => bytes,
    }
}

/// Ends with the shards.
async fn measure(high_watermark: u64, commands: mpsc::Sender<AdminCommand>) {
    let mut gauge = MemoryGauge::new(MemoryMarks::new(high_watermark));
    let mut before = MemoryPressure::None;
    loop {
        if let Some(used) = used() {
            let level = gauge.look(used);
            if level != before {
                tell(level, used, high_watermark);
                if commands.send(AdminCommand::MemoryPressure(level)).await.is_err() {
                    return;
                }
                before = level;
            }
        }
        tokio::time::sleep(MEASURE_EVERY).await;
    }
}

fn tell(level: MemoryPressure, used: u64, high_watermark: u64) {
    match level {
        MemoryPressure::None => tracing::info!(used, high_watermark, "enough memory again: every message is taken"),
        MemoryPressure::Shed => {
            tracing::warn!(used, high_watermark, "little memory: QoS 0 messages that would have to wait are dropped");
        }
        MemoryPressure::Hold => {
            tracing::warn!(
                used,
                high_watermark,
                "too little memory: clients that publish with QoS 1 or 2 are read slowly, too"
            );
        }
    }
}

/// What the process has in memory, in bytes.
pub(crate) fn used() -> Option<u64> {
    kilobytes(&read("/proc/self/status")?, "VmRSS:")
}

/// What the process may have, in bytes: the machine's memory, or less in a container.
pub(crate) fn total() -> Option<u64> {
    let machine = kilobytes(&read("/proc/meminfo")?, "MemTotal:")?;
    // As a container sees them: version 2, version 1. Without a limit there is a word or a huge number.
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let container = limits.iter().filter_map(|path| read(path)?.trim().parse::<u64>().ok()).min();
    Some(container.unwrap_or(machine).min(machine))
}

/// Nothing of it is there on other systems, and nothing of it means anything in a simulation.
fn read(path: &str) -> Option<String> {
    if cfg!(any(madsim, not(target_os = "linux"))) {
        return None;
    }
    fs::read_to_string(path).ok()
}

/// The number of a line such as `VmRSS:     1234 kB`, in bytes.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watermark_in_bytes() {
        assert_eq!(bytes(Watermark::Bytes(6400), 0), 6400);
        assert_eq!(bytes(Watermark::Percent(80), 100_000), 80_000);
    }

    #[test]
    fn what_the_system_tells() {
        assert_eq!(kilobytes("VmHWM:\t 9 kB\nVmRSS:\t    12 kB\n", "VmRSS:"), Some(12 << 10));
        assert_eq!(kilobytes("VmRSS:\t many\n", "VmRSS:"), None);
        #[cfg(all(target_os = "linux", not(madsim)))]
        assert!(used().unwrap() > 1 << 16 && total().unwrap() > used().unwrap());
    }
}
