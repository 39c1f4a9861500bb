//! The memory that the process has in use, against `memory.high_watermark`. It measures, tells the shard, and says so in
//! the log when the level changes; what the level means is decided in the shard.

use std::fs;
use std::time::Duration;

use newtmq_node::{AdminCommand, MemoryPressure};
use tokio::sync::mpsc;

use crate::config::Watermark;

/// Between two measurements.
const MEASURE_EVERY: Duration = Duration::from_millis(500);

/// The amounts of memory at which the level changes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// The level falls to none below it.
    pub calm: u64,
    /// Above it QoS 0 is shed.
    pub shed: u64,
    /// Above it publishers are held, too.
    pub hold: u64,
}

impl Marks {
    /// A watermark, with a sixteenth of it above and below, for a machine with so much memory.
    #[must_use]
    pub fn new(watermark: Watermark, total: u64) -> Marks {
        let shed = match watermark {
            Watermark::Percent(percent) => total / 100 * u64::from(percent),
            Watermark::Bytes(bytes) => bytes,
        };
        Marks { calm: shed - shed / 16, shed, hold: shed.saturating_add(shed / 16) }
    }

    /// The level for so much memory in use. It falls later than it rises, so that it does not change all the time.
    #[must_use]
    pub fn level(&self, before: MemoryPressure, used: u64) -> MemoryPressure {
        let rising = if used >= self.hold {
            MemoryPressure::Hold
        } else if used >= self.shed {
            MemoryPressure::Shed
        } else {
            MemoryPressure::None
        };
        let falling = if used < self.calm {
            MemoryPressure::None
        } else if used < self.shed {
            MemoryPressure::Shed
        } else {
            MemoryPressure::Hold
        };
        before.clamp(rising, falling)
    }
}

/// Measures from here on, if there is a watermark and this system tells how much memory is used.
pub fn watch(watermark: Option<Watermark>, commands: mpsc::Sender<AdminCommand>) {
    let Some(watermark) = watermark else { return };
    let (Some(total), Some(_)) = (total(), used()) else {
        tracing::debug!("this system does not tell how much memory is used: memory.high_watermark has no effect");
        return;
    };
    tokio::spawn(measure(Marks::new(watermark, total), commands));
}

/// Ends with the shard.
async fn measure(marks: Marks, commands: mpsc::Sender<AdminCommand>) {
    let mut level = MemoryPressure::None;
    loop {
        if let Some(used) = used() {
            let before = level;
            level = marks.level(before, used);
            if before != level {
                tell(level, used, marks);
                if commands.send(AdminCommand::MemoryPressure(level)).await.is_err() {
                    return;
                }
            }
        }
        tokio::time::sleep(MEASURE_EVERY).await;
    }
}

fn tell(level: MemoryPressure, used: u64, marks: Marks) {
    let high_watermark = marks.shed;
    match level {
        MemoryPressure::None => tracing::info!(used, high_watermark, "enough memory again: every message is taken"),
        MemoryPressure::Shed => {
            tracing::warn!(used, high_watermark, "little memory: QoS 0 messages that would have to wait are dropped");
        }
        MemoryPressure::Hold => {
            tracing::warn!(used, high_watermark, "too little memory: clients that publish are read slowly, too");
        }
    }
}

/// What the process has in memory, in bytes.
fn used() -> Option<u64> {
    kilobytes(&read("/proc/self/status")?, "VmRSS:")
}

/// What the process may have, in bytes: the machine's memory, or less in a container.
fn total() -> Option<u64> {
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
    fn the_level_rises_at_the_watermark_and_falls_below_it() {
        use MemoryPressure::{Hold, None, Shed};
        let marks = Marks::new(Watermark::Bytes(1600), 0);
        assert_eq!(marks, Marks { calm: 1500, shed: 1600, hold: 1700 });
        let rows = [
            (1599, None),
            (1600, Shed),
            (1550, Shed),
            (1700, Hold),
            (1650, Hold),
            (1599, Shed),
            (1500, Shed),
            (1499, None),
            (9999, Hold),
            (0, None),
        ];
        let mut level = None;
        for (used, expected) in rows {
            level = marks.level(level, used);
            assert_eq!(level, expected, "{used}");
        }
        assert_eq!(Marks::new(Watermark::Percent(80), 100_000).shed, 80_000);
    }

    #[test]
    fn what_the_system_tells() {
        assert_eq!(kilobytes("VmHWM:\t 9 kB\nVmRSS:\t    12 kB\n", "VmRSS:"), Some(12 << 10));
        assert_eq!(kilobytes("VmRSS:\t many\n", "VmRSS:"), None);
        #[cfg(all(target_os = "linux", not(madsim)))]
        assert!(used().unwrap() > 1 << 16 && total().unwrap() > used().unwrap());
    }
}
