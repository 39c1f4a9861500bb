//! Kinds of steps and how often each happens: by family, then by chance.

use super::super::{Family, Source};

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident $weight:literal $swarm:ident,)*) => {
        /// What can happen.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Kind { $($(#[$doc])* $variant,)* }

        impl Kind {
            pub(crate) const ALL: [Kind; [$($weight,)*].len()] = [$(Kind::$variant,)*];

            const fn weight(self) -> u32 {
                match self { $(Kind::$variant => $weight,)* }
            }

            /// Whether a scenario may do without.
            const fn is_optional(self) -> bool {
                match self { $(Kind::$variant => kinds!(@ $swarm),)* }
            }
        }
    };
    (@ always) => { false };
    (@ swarm) => { true };
}

// What ends a fault is heavier than what begins it, so that faults do not pile up.
kinds! {
    Connect 24 always,
    Publish 48 always,
    Subscribe 8 always,
    Unsubscribe 3 swarm,
    Burst 3 swarm,
    Row 4 swarm,
    Disconnect 4 swarm,
    HangUp 3 swarm,
    Reset 3 swarm,
    Vanish 3 swarm,
    Torn 2 swarm,
    Again 3 swarm,
    Ping 1 swarm,
    Stray 1 swarm,
    Raw 1 swarm,
    AcksNever 2 swarm,
    AcksAuto 6 always,
    ReadOff 2 swarm,
    ReadOn 6 always,
    Freeze 2 swarm,
    Thaw 6 always,
    Cut 3 swarm,
    Heal 8 always,
    Bandwidth 1 swarm,
    Faster 3 always,
    Pause 1 swarm,
    Jump 1 swarm,
    Drift 1 swarm,
    Lag 2 swarm,
    LagEnd 6 always,
    Crash 1 swarm,
    Shutdown 1 swarm,
    Restart 20 always,
    Pressure 1 swarm,
    PressureEnd 6 always,
    PowerLoss 2 swarm,
    Probe 3 swarm,
    DiskFull 2 swarm,
    DiskRoom 8 always,
    DiskSlow 2 swarm,
    DiskFast 8 always,
    DiskFails 1 swarm,
    DiskRot 1 swarm,
}

/// How often each kind happens in a scenario of this family.
pub(super) fn weights(family: Family, source: &mut Source) -> [u32; Kind::ALL.len()] {
    let mut weights = [0; Kind::ALL.len()];
    for (weight, kind) in weights.iter_mut().zip(Kind::ALL) {
        let boost = boost(family, kind);
        let rare = matches!(kind, Kind::Crash | Kind::Shutdown | Kind::Pressure | Kind::Raw | Kind::Stray);
        let on = !kind.is_optional() || boost > 1 || if rare { source.percent(12) } else { source.coin() };
        // A part of them is not for clusters: their clocks are 1 % wrong at most, and their disks work.
        let alien = matches!(kind, Kind::Drift | Kind::DiskFails | Kind::DiskRot) && family.is_cluster();
        // From a quarter to four times as often as usual.
        let rate = if kind.is_optional() { source.log(1, 16) as u32 } else { 4 };
        *weight = if on && !alien { kind.weight() * boost * rate } else { 0 };
    }
    weights
}

/// What a family is about happens so many times as often.
const fn boost(family: Family, kind: Kind) -> u32 {
    match (family, kind) {
        (Family::Shared, Kind::Unsubscribe | Kind::Disconnect | Kind::Reset | Kind::AcksNever) => 3,
        (Family::Retained, Kind::Subscribe | Kind::Unsubscribe) => 5,
        (Family::Wills, Kind::HangUp | Kind::Reset | Kind::Vanish | Kind::Disconnect | Kind::Connect) => 3,
        (Family::Hoppers, Kind::HangUp | Kind::Reset | Kind::Vanish | Kind::Cut | Kind::Connect) => 4,
        (Family::Collisions, Kind::Connect) => 4,
        (Family::Takeover, Kind::Vanish | Kind::Cut) => 4,
        (Family::Takeover, Kind::Connect) => 3,
        (Family::Limits, Kind::Burst | Kind::ReadOff | Kind::AcksNever) => 4,
        (Family::Durable, Kind::Crash | Kind::Probe | Kind::PowerLoss) => 5,
        (Family::Durable, Kind::Connect | Kind::Vanish | Kind::HangUp) => 3,
        (Family::FanIn | Family::FanOut, Kind::Row | Kind::Burst) => 3,
        (Family::Misbehaving, Kind::Torn | Kind::Again | Kind::Stray | Kind::Raw) => 6,
        _ => 1,
    }
}
