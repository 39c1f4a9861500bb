//! The memory that the process has in use, against `memory.high_watermark`. It measures, tells the shard, and says so in
//! the log when the level changes; what the level means is decided in the shard.

use std::fs;
use std::time::Duration;

use newtmq_node::{AdminCommand, MemoryPressure};
use tokio::sync::mpsc;

use crate::config::Watermark;

/// Between two measurements.
const MEASURE_EVERY: Duration = Duration::from_millis(500);

/// Looks without growth after which the level falls to none: 10 s.
const QUIET_LOOKS: u32 = 20;

/// The amounts of memory at which the level changes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// The level falls to none below it.
    pub calm: u64,
    /// Above it QoS 0 is shed.
    pub shed: u64,
    /// Above it publishers are held, too.
    pub hold: u64,
    /// Above it they are held whether memory grows or not.
    pub full: u64,
}

impl Marks {
    /// A watermark, with a sixteenth of it above and below, for a machine with so much memory.
    #[must_use]
    pub fn new(watermark: Watermark, total: u64) -> Marks {
        let shed = match watermark {
            Watermark::Percent(percent) => total / 100 * u64::from(percent),
            Watermark::Bytes(bytes) => bytes,
        };
        let above = |part: u64| shed.saturating_add(part);
        Marks { calm: shed - shed / 16, shed, hold: above(shed / 16), full: above(shed / 32 * 3) }
    }

    /// The level for so much memory in use. It falls later than it rises, so that it does not change all the time.
    fn level(&self, before: MemoryPressure, used: u64) -> MemoryPressure {
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

    /// What counts as growth.
    fn step(&self) -> u64 {
        self.shed / 64
    }
}

/// Turns measurements into levels. Memory that was freed mostly stays with the process, to be used again: what it has is
/// the most that it needed. So it is growth that counts, but for the last piece below the limit.
#[derive(Debug)]
pub struct Gauge {
    marks: Marks,
    level: MemoryPressure,
    /// The most in use, as of the last growth.
    peak: u64,
    /// Looks since then.
    quiet: u32,
}

impl Gauge {
    /// Before the first look.
    #[must_use]
    pub fn new(marks: Marks) -> Gauge {
        Gauge { marks, level: MemoryPressure::None, peak: 0, quiet: 0 }
    }

    /// The level after a look that found so much memory in use.
    pub fn look(&mut self, used: u64) -> MemoryPressure {
        if used >= self.peak + self.marks.step() {
            (self.peak, self.quiet) = (used, 0);
        } else {
            self.quiet = self.quiet.saturating_add(1);
        }
        if used < self.marks.calm {
            self.peak = used;
        }
        self.level = match self.marks.level(self.level, used) {
            _ if used >= self.marks.full => MemoryPressure::Hold,
            _ if self.quiet >= QUIET_LOOKS => MemoryPressure::None,
            level => level,
        };
        self.level
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

/// Ends with the shards.
async fn measure(marks: Marks, commands: mpsc::Sender<AdminCommand>) {
    let mut gauge = Gauge::new(marks);
    let mut before = MemoryPressure::None;
    loop {
        if let Some(used) = used() {
            let level = gauge.look(used);
            if level != before {
                tell(level, used, marks);
                if commands.send(AdminCommand::MemoryPressure(level)).await.is_err() {
                    return;
                }
                before = level;
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
            tracing::warn!(
                used,
                high_watermark,
                "too little memory: clients that publish with QoS 1 or 2 are read slowly, too"
            );
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

    const MARKS: Marks = Marks { calm: 6000, shed: 6400, hold: 6800, full: 7000 };

    #[test]
    fn marks_of_a_watermark() {
        assert_eq!(Marks::new(Watermark::Bytes(6400), 0), MARKS);
        assert_eq!(Marks::new(Watermark::Percent(80), 100_000).shed, 80_000);
    }

    #[test]
    fn the_level_rises_at_the_watermark_and_falls_below_it() {
        use MemoryPressure::{Hold, None, Shed};
        let rows = [
            (6399, None),
            (6400, Shed),
            (6200, Shed),
            (6800, Hold),
            (6500, Hold),
            (6399, Shed),
            (6000, Shed),
            (5999, None),
            (9999, Hold),
            (0, None),
        ];
        let mut gauge = Gauge::new(MARKS);
        for (used, expected) in rows {
            assert_eq!(gauge.look(used), expected, "{used}");
        }
    }

    #[test]
    fn memory_that_does_not_grow_is_no_pressure_unless_it_is_nearly_all() {
        use MemoryPressure::{Hold, None, Shed};
        let mut gauge = Gauge::new(MARKS);
        let look = |gauge: &mut Gauge, used: u64| (0..QUIET_LOOKS).map(|_| gauge.look(used)).collect::<Vec<_>>();
        assert!(look(&mut gauge, 6900).iter().all(|level| *level == Hold));
        assert_eq!(gauge.look(6900), None, "freed, and kept to be used again");
        assert_eq!(gauge.look(6950), None, "too little to be growth");
        assert_eq!(gauge.look(6999), None);
        let mut growing = Gauge::new(MARKS);
        let levels: Vec<_> = (0..100).map(|look| growing.look(6400 + look * 5)).collect();
        assert!(levels.iter().all(|level| *level != None), "slow growth is growth: {levels:?}");
        assert!(look(&mut gauge, 7000).iter().chain(&look(&mut gauge, 7000)).all(|level| *level == Hold));
        assert_eq!(gauge.look(5000), None);
        assert_eq!(gauge.look(6500), Shed, "growth again");
    }

    #[test]
    fn what_the_system_tells() {
        assert_eq!(kilobytes("VmHWM:\t 9 kB\nVmRSS:\t    12 kB\n", "VmRSS:"), Some(12 << 10));
        assert_eq!(kilobytes("VmRSS:\t many\n", "VmRSS:"), None);
        #[cfg(all(target_os = "linux", not(madsim)))]
        assert!(used().unwrap() > 1 << 16 && total().unwrap() > used().unwrap());
    }
}
