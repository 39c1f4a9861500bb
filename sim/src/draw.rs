//! Chance as a function: every draw of a running scenario is keyed by (seed, stream, counter), so that removing a step
//! does not shift the draws of the others. Generating a scenario uses [`newtmq_base::Rng`] instead.

/// A stream of draws for one purpose of one part of a run, such as the delays of one direction of a client's first
/// connection. Equal keys give equal draws, whatever else happens.
#[derive(Debug, Clone)]
pub struct Stream {
    key: u64,
    counter: u64,
}

impl Stream {
    /// A stream for `purpose` (a constant of the caller) of the part that `name` says (an index, a hash of a name).
    #[must_use]
    pub fn new(seed: u64, purpose: u64, name: u64) -> Stream {
        Stream {
            key: mix(mix(seed ^ 0x9E37_79B9_7F4A_7C15).wrapping_add(mix(purpose)) ^ mix(name.rotate_left(32))),
            counter: 0,
        }
    }

    /// The next 64 bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.counter += 1;
        mix(self.key.wrapping_add(self.counter.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }

    /// A number in `low..=high`; `low` if they are in the wrong order.
    #[inline]
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        if high <= low {
            return low;
        }
        let span = u128::from(high - low) + 1;
        low + ((u128::from(self.next_u64()) * span) >> 64) as u64
    }

    /// Whether something happens that does so `ppm` times in a million.
    #[inline]
    pub fn chance_ppm(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.between(0, 999_999) < u64::from(ppm)
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): a bijection in which each input bit changes half of the output.
#[inline]
#[must_use]
pub const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// A number for a name, the same in every build.
#[must_use]
pub fn of_name(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| mix(hash ^ u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::{Stream, of_name};

    #[test]
    fn a_stream_depends_on_all_of_its_key() {
        let first = |seed, purpose, name| Stream::new(seed, purpose, name).next_u64();
        let all = [first(1, 2, 3), first(2, 1, 3), first(1, 3, 2), first(3, 2, 1), first(1, 2, 4)];
        let mut unique = all.to_vec();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), all.len());
        assert_eq!(all[0], first(1, 2, 3));
        assert_ne!(of_name("a"), of_name("b"));
    }

    #[test]
    fn draws_stay_in_their_range_and_reach_its_ends() {
        let mut stream = Stream::new(7, 0, 0);
        let draws: Vec<u64> = (0..200).map(|_| stream.between(3, 6)).collect();
        assert!((3..=6).all(|value| draws.contains(&value)));
        assert!(draws.iter().all(|draw| (3..=6).contains(draw)));
        assert_eq!(stream.between(5, 5), 5);
        assert_eq!((0..1000).filter(|_| stream.chance_ppm(1_000_000)).count(), 1000);
    }
}
