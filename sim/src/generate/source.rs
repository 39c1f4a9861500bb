//! Where the choices of the generator come from: a seed, or bytes of somebody who looks for trouble himself, such as a
//! fuzzer. One stream, one after the other.

use newtmq_base::Rng;

/// A stream of choices.
#[derive(Debug, Clone)]
pub enum Source {
    /// By chance.
    Seed(Box<Rng>),
    /// From these bytes, of which each choice takes a few. When there are none left, every choice is the first one.
    Bytes {
        /// What is left, in reverse order.
        rest: Vec<u8>,
    },
}

impl Source {
    /// Choices that a number decides.
    #[must_use]
    pub fn seed(seed: u64) -> Source {
        Source::Seed(Box::new(Rng::from_number(seed)))
    }

    /// Choices that bytes decide.
    #[must_use]
    pub fn bytes(bytes: &[u8]) -> Source {
        Source::Bytes { rest: bytes.iter().rev().copied().collect() }
    }

    /// A number in `0..bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound <= 1 {
            return 0;
        }
        match self {
            Source::Seed(rng) => rng.below(bound),
            Source::Bytes { rest } => {
                let mut value = 0;
                let mut reach = 1_u64;
                while reach < bound {
                    value = value << 8 | u64::from(rest.pop().unwrap_or(0));
                    reach = reach.saturating_mul(256);
                }
                value % bound
            }
        }
    }

    /// A number in `low..=high`; `low` if they are in the wrong order.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below((high.saturating_sub(low)).saturating_add(1))
    }

    /// A number in `low..=high`, as often between 1 and 2 as between 1,000 and 2,000. `low` counts as 1 if it is 0.
    pub fn log(&mut self, low: u64, high: u64) -> u64 {
        let base = low.max(1);
        let doublings = (high / base).checked_ilog2().unwrap_or(0);
        let from = base << self.between(0, u64::from(doublings));
        self.between(from, (2 * from - 1).min(high.max(from)))
    }

    /// Whether something happens that does so `percent` times in a hundred.
    pub fn percent(&mut self, percent: u64) -> bool {
        // The first choice is "no", so that a source that has run dry adds nothing.
        self.below(100) >= 100 - percent.min(100)
    }

    /// Heads or tails.
    pub fn coin(&mut self) -> bool {
        self.below(2) == 1
    }

    /// One of them.
    ///
    /// # Panics
    /// If there is none.
    pub fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.below(among.len() as u64) as usize]
    }

    /// The index of one of them, each as often as its weight says; `None` if all weigh nothing.
    pub fn weighted(&mut self, weights: impl Iterator<Item = u32> + Clone) -> Option<usize> {
        let sum: u64 = weights.clone().map(u64::from).sum();
        if sum == 0 {
            return None;
        }
        let mut at = self.below(sum);
        for (index, weight) in weights.enumerate() {
            match at.checked_sub(u64::from(weight)) {
                None => return Some(index),
                Some(rest) => at = rest,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::Source;

    #[test]
    fn ranges_are_kept_and_reached() {
        for mut source in [Source::seed(3), Source::bytes(&(0..=255).collect::<Vec<u8>>().repeat(100))] {
            let draws: Vec<u64> = (0..2_000).map(|_| source.log(3, 1_000)).collect();
            assert!(draws.iter().all(|draw| (3..=1_000).contains(draw)));
            assert!(draws.iter().filter(|draw| **draw < 24).count() > 300, "small ones are as frequent as large ones");
            assert!(draws.iter().any(|draw| *draw > 768));
        }
        let mut source = Source::seed(1);
        assert!((0..100).all(|_| source.weighted([0, 5, 0, 1].into_iter()).is_some_and(|index| index % 2 == 1)));
        assert_eq!(source.weighted([0, 0].into_iter()), None);
    }

    #[test]
    fn bytes_that_have_run_out_choose_the_first() {
        let mut source = Source::bytes(&[7]);
        assert_eq!([source.below(10), source.below(10), source.between(4, 70_000)], [7, 0, 4]);
        assert!(!source.percent(99) && !source.coin());
    }
}
