//! What the system knows of this process, for metrics: names and units are those that Prometheus' client libraries have.

use std::fs;

use crate::memory;

/// What is used; what a system does not tell is missing.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Usage {
    /// Processor time, user and system.
    pub(crate) cpu_seconds: Option<f64>,
    /// Memory that is resident.
    pub(crate) resident_bytes: Option<u64>,
    /// Files and sockets that are open.
    pub(crate) open_files: Option<u64>,
    /// How many may be.
    pub(crate) max_files: Option<u64>,
}

impl Usage {
    /// As it is now.
    pub(crate) fn now() -> Usage {
        let processor = fs::read_to_string("/proc/self/stat").ok().and_then(|text| processor_ticks(&text));
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        Usage {
            cpu_seconds: processor.map(|used| used as f64 / ticks),
            resident_bytes: memory::used(),
            // The one that is read is open, too.
            open_files: fs::read_dir("/proc/self/fd").ok().map(|files| (files.count() as u64).saturating_sub(1)),
            max_files: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
        }
    }
}

/// User and system time of `/proc/self/stat`, see proc(5).
fn processor_ticks(text: &str) -> Option<u64> {
    // The second field is the program's name in brackets, which may have any character.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(number(14)? + number(15)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_stat() {
        let line =
            "4242 (a) b) S 1 1 1 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 4 0 12345 99999999 2048 18446744073709551615 1";
        assert_eq!(processor_ticks(line), Some(300));
        for bad in ["", "1 (a", "1 (a) S 1 2", "1 (a) S 1 1 1 0 -1 4194304 100 0 0 0 x 50 0 0 20 0 4 0 1 9 2048"] {
            assert_eq!(processor_ticks(bad), None, "{bad}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn of_this_process() {
        let usage = Usage::now();
        assert!(usage.resident_bytes.is_some_and(|bytes| bytes > 100_000), "{usage:?}");
        assert!(usage.open_files.is_some_and(|count| count >= 3), "{usage:?}");
        assert!(usage.cpu_seconds.is_some(), "{usage:?}");
    }
}
