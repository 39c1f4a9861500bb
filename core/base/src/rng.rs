//! The one random number generator of the core.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// Length of a seed in bytes.
pub const SEED_BYTES: usize = 32;

/// ChaCha8, seeded by the owner: 32 bytes from the operating system in production, derived from the scenario's
/// seed in simulation.
#[derive(Debug, Clone)]
pub struct Rng(ChaCha8Rng);

impl Rng {
    /// A generator whose whole sequence is decided by `seed`.
    #[must_use]
    pub fn from_seed(seed: [u8; SEED_BYTES]) -> Rng {
        Rng(ChaCha8Rng::from_seed(seed))
    }

    /// A generator for tests and simulation, from a small number.
    #[must_use]
    pub fn from_number(seed: u64) -> Rng {
        let mut bytes = [0; SEED_BYTES];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Rng::from_seed(bytes)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number in `0..bound`.
    ///
    /// # Panics
    /// If `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "below() of an empty range");
        // Multiply-shift: biased by less than bound / 2^64.
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Fills `bytes` with random bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}
