//! When the memory of the process is under pressure: from measurements to levels. Who measures is outside.

use crate::io::MemoryPressure;

/// Looks without growth after which the level falls to none: 10 s of one every 500 ms.
const QUIET_LOOKS: u32 = 20;

/// The amounts of memory at which the level changes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryMarks {
    /// The level falls to none below it.
    pub calm: u64,
    /// Above it QoS 0 is shed.
    pub shed: u64,
    /// Above it publishers are held, too.
    pub hold: u64,
    /// Above it they are held whether memory grows or not.
    pub full: u64,
}

impl MemoryMarks {
    /// A watermark in bytes, with a sixteenth of it above and below.
    #[must_use]
    pub fn new(shed: u64) -> MemoryMarks {
        let above = |part: u64| shed.saturating_add(part);
        MemoryMarks { calm: shed - shed / 16, shed, hold: above(shed / 16), full: above(shed / 32 * 3) }
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
pub struct MemoryGauge {
    marks: MemoryMarks,
    level: MemoryPressure,
    /// The most in use, as of the last growth.
    peak: u64,
    /// Looks since then.
    quiet: u32,
}

impl MemoryGauge {
    /// Before the first look.
    #[must_use]
    pub fn new(marks: MemoryMarks) -> MemoryGauge {
        MemoryGauge { marks, level: MemoryPressure::None, peak: 0, quiet: 0 }
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
        self.level = if used >= self.marks.full {
            MemoryPressure::Hold
        } else if self.quiet >= QUIET_LOOKS {
            MemoryPressure::None
        } else {
            self.marks.level(self.level, used)
        };
        self.level
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKS: MemoryMarks = MemoryMarks { calm: 6000, shed: 6400, hold: 6800, full: 7000 };

    #[test]
    fn marks_of_a_watermark() {
        assert_eq!(MemoryMarks::new(6400), MARKS);
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
        let mut gauge = MemoryGauge::new(MARKS);
        for (used, expected) in rows {
            assert_eq!(gauge.look(used), expected, "{used}");
        }
    }

    #[test]
    fn memory_that_does_not_grow_is_no_pressure_unless_it_is_nearly_all() {
        use MemoryPressure::{Hold, None, Shed};
        let mut gauge = MemoryGauge::new(MARKS);
        let look = |gauge: &mut MemoryGauge, used: u64| (0..QUIET_LOOKS).map(|_| gauge.look(used)).collect::<Vec<_>>();
        assert!(look(&mut gauge, 6900).iter().all(|level| *level == Hold));
        assert_eq!(gauge.look(6900), None, "freed, and kept to be used again");
        assert_eq!(gauge.look(6950), None, "too little to be growth");
        assert_eq!(gauge.look(6999), None);
        let mut growing = MemoryGauge::new(MARKS);
        let levels: Vec<_> = (0..100).map(|look| growing.look(6400 + look * 5)).collect();
        assert!(levels.iter().all(|level| *level != None), "slow growth is growth: {levels:?}");
        assert!(look(&mut gauge, 7000).iter().chain(&look(&mut gauge, 7000)).all(|level| *level == Hold));
        assert_eq!(gauge.look(5000), None);
        assert_eq!(gauge.look(6500), Shed, "growth again");
    }
}
