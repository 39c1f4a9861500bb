//! The keyed hash behind digests and the order of entries: SipHash-1-3. It is part of what nodes say to each other, so it
//! is written down here and not taken from a library that may change its function.

/// The key of all digests of a cluster: every node has the same one, and no client knows it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DigestKey(pub [u64; 2]);

impl core::fmt::Debug for DigestKey {
    /// Does not show the key: whoever knows it can choose filters whose digests cancel out.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("DigestKey(..)")
    }
}

impl DigestKey {
    /// The hash of `bytes` behind a number that tells kinds of them apart.
    pub(crate) fn hash(self, kind: u8, bytes: &[u8]) -> u64 {
        let mut state = State::new(self);
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            state.word(u64::from_le_bytes(chunk.try_into().expect("chunks of 8 bytes")));
        }
        let mut last = [0; 8];
        last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
        state.word(u64::from_le_bytes(last));
        state.finish(bytes.len() as u64 | u64::from(kind) << 56)
    }

    /// The hash of three numbers.
    pub(crate) fn mix(self, words: [u64; 3]) -> u64 {
        let mut state = State::new(self);
        words.iter().for_each(|word| state.word(*word));
        state.finish(u64::MAX)
    }
}

struct State([u64; 4]);

impl State {
    fn new(DigestKey([k0, k1]): DigestKey) -> State {
        State([
            k0 ^ 0x736F_6D65_7073_6575,
            k1 ^ 0x646F_7261_6E64_6F6D,
            k0 ^ 0x6C79_6765_6E65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ])
    }

    fn round(&mut self) {
        let State([a, b, c, d]) = self;
        *a = a.wrapping_add(*b);
        *b = b.rotate_left(13) ^ *a;
        *a = a.rotate_left(32);
        *c = c.wrapping_add(*d);
        *d = d.rotate_left(16) ^ *c;
        *a = a.wrapping_add(*d);
        *d = d.rotate_left(21) ^ *a;
        *c = c.wrapping_add(*b);
        *b = b.rotate_left(17) ^ *c;
        *c = c.rotate_left(32);
    }

    fn word(&mut self, word: u64) {
        self.0[3] ^= word;
        self.round();
        self.0[0] ^= word;
    }

    fn finish(mut self, last: u64) -> u64 {
        self.word(last);
        self.0[2] ^= 0xFF;
        self.round();
        self.round();
        self.round();
        self.0.iter().fold(0, |sum, word| sum ^ word)
    }
}

#[cfg(test)]
mod tests {
    use super::DigestKey;

    #[test]
    fn it_stays_the_same() {
        // Nodes of different versions compare these.
        let key = DigestKey([1, 2]);
        let hashes = [key.hash(0, b""), key.hash(0, b"site/1/state"), key.hash(1, b"site/1/state"), key.mix([1, 2, 3])];
        assert_eq!(hashes, EXPECTED);
        assert_ne!(key.hash(0, b"a\0"), key.hash(0, b"a"));
        assert_ne!(DigestKey([1, 3]).hash(0, b"a"), key.hash(0, b"a"));
    }

    const EXPECTED: [u64; 4] =
        [6_537_689_529_274_034_380, 11_312_784_309_030_808_050, 11_356_700_917_410_057_206, 7_915_617_174_305_077_954];
}
