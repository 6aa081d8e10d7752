//! Numbers that look random and are not: a seed and a stream name enter, the same sequence leaves on every machine.
//!
//! Own generator (SplitMix64, Steele et al. 2014) because the campus is compared against stored expectations:
//! a library may change its sequence between versions. Never reads a clock or the operating system's entropy.

/// One independent stream of numbers. Adding a stream never shifts another one.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream `name` number `index` of `seed`.
    pub fn new(seed: u64, name: &str, index: u64) -> Self {
        // FNV-1a keeps streams of different names apart.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in name.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        let mut random = Self(seed ^ hash.rotate_left(17) ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        random.next();
        random
    }

    /// The next 64 bits.
    #[allow(clippy::should_implement_trait, reason = "an endless stream has no use for Option")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `0..bound`; `bound` is at least 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// An index into something of `length` items.
    pub fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// A number in `low..=high`.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as u64) as i64
    }

    /// True in `per_mille` of 1000 cases.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// One item of a list that is not empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.index(items.len())]
    }

    /// One word of a list that is not empty.
    pub fn word(&mut self, words: &[&'static str]) -> &'static str {
        words[self.index(words.len())]
    }

    /// About normal, in whole numbers (twelve uniform draws, so that no math library has a say in it).
    pub fn normal(&mut self, mean: i64, deviation: i64) -> i64 {
        let sum: i64 = (0..12).map(|_| self.between(-1000, 1000)).sum();
        mean + sum * deviation / 2000
    }
}
