//! Planted bugs ("mutants"), by which the testbed shows that its checks find something.
//!
//! A planted bug is a few lines in place, behind [`planted!`](crate::planted). With `--cfg newtmq_mutants` one of them
//! can be made active by name; without it the macro is `false`, and neither the list of bugs nor anything else of this
//! module but the macro exists. It is a cfg and never a feature, for features of a dependency unify into release builds.
//! Such a build has its own target directory:
//!
//! ```text
//! RUSTFLAGS="--cfg newtmq_mutants" cargo build --target-dir target/mutants
//! ```
//!
//! Which bug is active is the core's only state that no value owns: a thread-local, so that a bug can be anywhere without
//! being handed through every call, and several threads can run several of them. A simulation runs in one thread.

#[cfg(newtmq_mutants)]
mod list;

#[cfg(newtmq_mutants)]
use core::cell::Cell;

#[cfg(newtmq_mutants)]
pub use list::Mutant;

/// Whether this planted bug is active: `planted!(Name)`, where `Name` is a variant of `Mutant`, or `planted!(Name, when)`
/// with a condition that only the bug needs, and that is not looked at otherwise. Asked last, so that being asked means
/// that the bug makes a difference.
#[cfg(newtmq_mutants)]
#[macro_export]
macro_rules! planted {
    ($name:ident) => {
        $crate::Mutant::$name.is_active()
    };
    ($name:ident, $when:expr) => {
        ($when && $crate::Mutant::$name.is_active())
    };
}

/// Whether this planted bug is active: never, in a build without `--cfg newtmq_mutants`.
#[cfg(not(newtmq_mutants))]
#[macro_export]
macro_rules! planted {
    ($name:ident) => {
        false
    };
    ($name:ident, $when:expr) => {
        false
    };
}

#[cfg(newtmq_mutants)]
thread_local! {
    static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
    static REACHED: Cell<u64> = const { Cell::new(0) };
}

#[cfg(newtmq_mutants)]
impl Mutant {
    /// Makes one bug active in the calling thread, or none, instead of the one that was. [`Mutant::times_reached`] is 0
    /// afterwards.
    pub fn activate(mutant: Option<Mutant>) {
        ACTIVE.set(mutant);
        REACHED.set(0);
    }

    /// The bug that is active in the calling thread.
    #[must_use]
    pub fn active() -> Option<Mutant> {
        ACTIVE.get()
    }

    /// How often the active bug has made a difference since it was activated in the calling thread; if 0, no check can
    /// find it.
    #[must_use]
    pub fn times_reached() -> u64 {
        REACHED.get()
    }

    /// Whether this one is active in the calling thread.
    #[must_use]
    pub fn is_active(self) -> bool {
        let active = ACTIVE.get() == Some(self);
        if active {
            REACHED.set(REACHED.get() + 1);
        }
        active
    }

    /// Whether a test fails with this bug. Other threads have their own bugs, and are heard when they fail without one.
    pub fn fails(self, test: impl FnOnce()) -> bool {
        use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
        static QUIET: std::sync::Once = std::sync::Once::new();
        QUIET.call_once(|| {
            let hook = take_hook();
            set_hook(Box::new(move |info| {
                if Mutant::active().is_none() {
                    hook(info);
                }
            }));
        });
        Mutant::activate(Some(self));
        let failed = catch_unwind(AssertUnwindSafe(test)).is_err();
        Mutant::activate(None);
        failed
    }

    /// Asserts that `finds` finds each of these bugs.
    ///
    /// # Panics
    /// With the names of those that it does not find.
    pub fn assert_found(bugs: &[Mutant], finds: impl Fn(Mutant) -> bool) {
        let missed: Vec<&str> = bugs.iter().filter(|bug| !finds(**bug)).map(|bug| bug.name()).collect();
        assert!(missed.is_empty(), "{missed:?}");
    }

    /// The bug of this [name](Mutant::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Mutant> {
        Mutant::ALL.iter().copied().find(|mutant| mutant.name() == name)
    }
}

#[cfg(all(test, newtmq_mutants))]
mod tests {
    use super::Mutant;

    #[test]
    fn names_are_unique_and_found() {
        for mutant in Mutant::ALL {
            assert_eq!(Mutant::from_name(mutant.name()), Some(*mutant), "{}", mutant.name());
            assert!(
                mutant.name().bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            );
            assert!(!mutant.expected().is_empty() && !mutant.about().is_empty());
        }
        assert_eq!(Mutant::from_name("none-such"), None);
    }

    #[test]
    fn numbers_are_unique() {
        let mut numbers: Vec<u8> = Mutant::ALL.iter().filter_map(|mutant| mutant.number()).collect();
        let count = numbers.len();
        numbers.dedup();
        assert_eq!(numbers.len(), count);
        assert!(numbers.is_sorted());
    }

    #[test]
    fn one_is_active_at_a_time() {
        let [one, other] = [Mutant::ALL[0], Mutant::ALL[1]];
        Mutant::activate(Some(one));
        assert!(one.is_active() && !other.is_active());
        assert_eq!((Mutant::active(), Mutant::times_reached()), (Some(one), 1));
        Mutant::activate(None);
        assert!(!one.is_active());
        assert_eq!((Mutant::active(), Mutant::times_reached()), (None, 0));
    }
}
