//! The dashboard and the alarms: their keys, and what they are.

use std::net::SocketAddr;
use std::time::Duration;

use super::cluster::Secret;
use super::table::{Field, Key, key};
use super::types::{Config, Watermark};

/// `dashboard.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dashboard {
    /// Where it listens; none for nowhere.
    pub bind: Option<SocketAddr>,
    /// What the first login needs in place of the password that everybody knows.
    pub first_password: Option<Secret>,
    /// A login ends when nothing was asked for so long.
    pub session_timeout: Duration,
}

impl Dashboard {
    pub(super) const BLANK: Dashboard = Dashboard { bind: None, first_password: None, session_timeout: Duration::ZERO };
}

/// `alarm.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlarmLimits {
    /// Files that are open, of those that may be.
    pub open_files: Option<Watermark>,
    /// Memory in use, of what there is.
    pub memory: Option<Watermark>,
    /// What is used of the file system with the data directory.
    pub disk: Option<Watermark>,
    /// A step of the machine's clock.
    pub clock_jump: Option<Duration>,
}

impl AlarmLimits {
    pub(super) const BLANK: AlarmLimits = AlarmLimits { open_files: None, memory: None, disk: None, clock_jump: None };
}

pub(super) const DASHBOARD: &[Key<Config>] = &[
    key(
        DASHBOARD_BIND,
        Field::AddressOrNone(|c, v| c.dashboard.bind = v),
        "127.0.0.1:18083",
        "Where the dashboard listens, with the certificate and the limits of `api.*`. If another process has the default \
         address, the broker starts without it. EMQ X: every interface.",
    ),
    key(
        FIRST_PASSWORD,
        Field::Secret(|c, v| c.dashboard.first_password = v),
        "none",
        "The password of the first login as `admin`, which has to be changed then; afterwards this key has no effect. Without \
         it that is `public`, which is refused from other machines, wherever it comes from. EMQ X: public, from everywhere.",
    ),
    key(
        "dashboard.session_timeout",
        Field::Time(60_000, 86_400_000, |c, v| c.dashboard.session_timeout = v),
        "1h",
        "A login ends when nothing was asked for so long, and a day after it began.",
    ),
];

pub(super) const ALARM: &[Key<Config>] = &[
    key(
        "alarm.open_files",
        Field::Watermark(|c, v| c.alarm.open_files = v),
        "80%",
        "The alarm `open_files` is raised above this part of the files and connections that the process may have open. A size \
         is a number of them.",
    ),
    key(
        "alarm.memory",
        Field::Watermark(|c, v| c.alarm.memory = v),
        "80%",
        "The alarm `memory` is raised when the process uses more of the machine's or container's memory. EMQ X: \
         `os_mon.sysmem_high_watermark`, 70%.",
    ),
    key(
        "alarm.disk",
        Field::Watermark(|c, v| c.alarm.disk = v),
        "90%",
        "The alarm `disk` is raised when more is used of the file system with the data directory.",
    ),
    key(
        "alarm.clock_jump",
        Field::TimeOrOff(1000, 86_400_000, |c, v| c.alarm.clock_jump = v),
        "5s",
        "The alarm `clock_jump` is raised when the machine's clock is set by more than this.",
    ),
];

pub(super) const DASHBOARD_BIND: &str = "dashboard.bind";
pub(super) const FIRST_PASSWORD: &str = "dashboard.default_user.password";
