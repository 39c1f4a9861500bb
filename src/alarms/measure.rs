//! What the system tells about this process. Where it tells nothing, there is no alarm.

use std::path::Path;

use crate::config::Watermark;
use crate::memory;
use crate::process::Usage;

/// How much is used, of how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Measure {
    pub(super) used: u64,
    pub(super) total: u64,
}

impl Measure {
    /// What is raised is over only some way below the mark, so that it does not come and go.
    pub(super) fn is_over(self, mark: Watermark, is_raised: bool) -> bool {
        let mark = match mark {
            Watermark::Percent(percent) => {
                self.total / 100 * u64::from(percent) + self.total % 100 * u64::from(percent) / 100
            }
            Watermark::Bytes(bytes) => bytes,
        };
        self.used > if is_raised { mark - mark / 20 } else { mark }
    }
}

/// Open files, of those that the process may have.
pub(super) fn open_files() -> Option<Measure> {
    let Usage { open_files, max_files, .. } = Usage::now();
    Some(Measure { used: open_files?, total: max_files? })
}

pub(super) fn memory() -> Option<Measure> {
    Some(Measure { used: memory::used()?, total: memory::total()? })
}

/// The file system that a folder is in. What only root may use counts as used.
pub(super) fn disk(folder: &Path) -> Option<Measure> {
    let of = rustix::fs::statvfs(folder).ok()?;
    let total = of.f_blocks.checked_mul(of.f_frsize)?;
    Some(Measure { used: total.saturating_sub(of.f_bavail.checked_mul(of.f_frsize)?), total })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_does_not_come_and_go_around_its_mark() {
        for (used, mark, is_raised, want) in [
            (80, Watermark::Percent(80), false, false),
            (81, Watermark::Percent(80), false, true),
            (80, Watermark::Percent(80), true, true),
            (77, Watermark::Percent(80), true, true),
            (76, Watermark::Percent(80), true, false),
            (51, Watermark::Bytes(50), false, true),
            (50, Watermark::Bytes(50), false, false),
        ] {
            assert_eq!(Measure { used, total: 100 }.is_over(mark, is_raised), want, "{used} {mark:?} {is_raised}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_the_system_tells() {
        assert!(open_files().unwrap().used >= 3);
        assert!(disk(Path::new("/")).unwrap().total > 0);
        assert_eq!(disk(Path::new("/no/such/folder")), None);
    }
}
