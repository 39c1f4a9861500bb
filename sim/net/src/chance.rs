//! Chance as a function of a key and a counter.

/// A stream of draws. Equal keys give equal draws.
#[derive(Debug, Clone)]
pub(crate) struct Chance {
    key: u64,
    counter: u64,
}

impl Chance {
    /// The draws for one purpose of the connection with this number on a link with this seed.
    pub(crate) fn new(seed: u64, number: u64, purpose: u64) -> Chance {
        Chance { key: mix(mix(seed ^ GAMMA) ^ mix(number.wrapping_mul(4).wrapping_add(purpose))), counter: 0 }
    }

    /// A number in `low..=high`; `low` if they are in the wrong order.
    #[inline]
    pub(crate) fn between(&mut self, (low, high): (u64, u64)) -> u64 {
        if high <= low {
            return low;
        }
        self.counter += 1;
        let draw = mix(self.key.wrapping_add(self.counter.wrapping_mul(GAMMA)));
        low + ((u128::from(draw) * (u128::from(high - low) + 1)) >> 64) as u64
    }

    /// Nanoseconds up to `tail_us`: seldom many, mostly few.
    #[inline]
    pub(crate) fn tail_nanos(&mut self, tail_us: u64) -> u64 {
        // Half of them next to nothing, one of a thousand a thousandth of the most.
        if tail_us == 0 { 0 } else { tail_us * 1_000 / self.between((1, 100_000)) }
    }

    /// Whether something happens that does so `ppm` times in a million.
    #[inline]
    pub(crate) fn ppm(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.between((0, 999_999)) < u64::from(ppm)
    }
}

/// 2^64 divided by the golden ratio.
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014).
#[inline]
pub(crate) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}
