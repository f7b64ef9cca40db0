//! Random numbers that are functions of a key and a counter: Philox4x32-10.
//!
//! A [`Stream`] is named by (seed, purpose, epoch, index). Two names give independent numbers, the same name the same
//! ones, and none needs the others to have been drawn: row 10,000,000 is as near as row 0.
//!
//! Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

use crate::simd::{Isa, Kernel, Scalar, Simd};
use std::fmt;

/// Epochs are counted in 28 bits.
pub const MAX_EPOCH: u32 = (1 << 28) - 1;

const ROUNDS: usize = 10;
const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Counters that are encrypted together: their rounds overlap in the CPU, or share its vectors.
const BLOCKS: usize = 8;

/// What numbers are drawn for: streams of one index and epoch that have nothing to do with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Which tokens of a row are masked, and with what. Index: the row.
    Mask = 0,
    /// Which ends of a pair lose tokens. Index: the sample.
    Truncate = 1,
    /// What is drawn once for a document. Index: the document.
    Document = 2,
    /// What decides which sentences a sample takes. Index: the document and the number of the draw in it.
    Draw = 3,
    /// The order of samples.
    Shuffle = 4,
    /// The order of batches. Index: the window that they are of.
    Batches = 5,
    /// Which side of a split a document is on. Index: of its contents.
    Split = 6,
}

/// Encrypts counters under a key.
#[inline(always)]
fn philox<const N: usize>(key: [u32; 2], counters: [[u32; N]; 4]) -> [[u32; N]; 4] {
    let ([k0, k1], [mut x0, mut x1, mut x2, mut x3]) = (key, counters);
    for round in 0..ROUNDS as u32 {
        let keys =
            [k0.wrapping_add(round.wrapping_mul(WEYL[0])), k1.wrapping_add(round.wrapping_mul(WEYL[1]))];
        for lane in 0..N {
            let first = u64::from(MULTIPLIERS[0]) * u64::from(x0[lane]);
            let second = u64::from(MULTIPLIERS[1]) * u64::from(x2[lane]);
            x0[lane] = (second >> 32) as u32 ^ x1[lane] ^ keys[0];
            x1[lane] = second as u32;
            x2[lane] = (first >> 32) as u32 ^ x3[lane] ^ keys[1];
            x3[lane] = first as u32;
        }
    }
    [x0, x1, x2, x3]
}

/// The numbers of one name, one after the other.
#[derive(Clone)]
pub struct Stream {
    key: [u32; 2],
    /// The counter but for its first word, which counts blocks.
    name: [u32; 3],
    block: u32,
    words: [u32; 4 * BLOCKS],
    used: usize,
    isa: Isa,
}

impl fmt::Debug for Stream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, name, block, used, .. } = self;
        write!(formatter, "Stream {{ key: {key:?}, name: {name:?}, block: {block}, used: {used} }}")
    }
}

/// The words of some blocks, one block after the other.
struct Refill {
    key: [u32; 2],
    name: [u32; 3],
    block: u32,
}

impl Kernel for Refill {
    type Output = [u32; 4 * BLOCKS];
    const F32_ONLY: bool = true;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Self::Output {
        // No operation of `S`: the compiler knows what to do with integers in lanes.
        let first: [u32; BLOCKS] = std::array::from_fn(|lane| self.block.wrapping_add(lane as u32));
        let [a, b, c] = self.name.map(|word| [word; BLOCKS]);
        let blocks = philox(self.key, [first, a, b, c]);
        let mut words = [0; 4 * BLOCKS];
        for (lane, words) in words.chunks_exact_mut(4).enumerate() {
            words.copy_from_slice(&[0, 1, 2, 3].map(|word| blocks[word][lane]));
        }
        words
    }
}

impl Stream {
    /// The stream of a name.
    ///
    /// Panics if `epoch` is above [`MAX_EPOCH`].
    #[inline]
    pub fn new(seed: u64, purpose: Purpose, epoch: u32, index: u64) -> Self {
        assert!(epoch <= MAX_EPOCH, "an epoch above 2^28 - 1");
        Self {
            key: [seed as u32, (seed >> 32) as u32],
            name: [index as u32, (index >> 32) as u32, epoch | (purpose as u32) << 28],
            block: 0,
            words: [0; 4 * BLOCKS],
            used: 4 * BLOCKS,
            isa: Isa::Scalar(Scalar),
        }
    }

    /// The same numbers, faster: for streams that many are drawn from.
    #[inline]
    pub fn with_isa(self, isa: Isa) -> Self {
        Self { isa, ..self }
    }

    /// 32 bits.
    #[inline(always)]
    pub fn next_u32(&mut self) -> u32 {
        if self.used == self.words.len() {
            self.refill();
        }
        let word = self.words[self.used];
        self.used += 1;
        word
    }

    #[inline(never)]
    fn refill(&mut self) {
        self.words = self.isa.run(Refill { key: self.key, name: self.name, block: self.block });
        self.block = self.block.wrapping_add(BLOCKS as u32);
        self.used = 0;
    }

    /// 64 bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        u64::from(self.next_u32()) | u64::from(self.next_u32()) << 32
    }

    /// Uniform in `0..n`, exactly.
    ///
    /// Source: Lemire, "Fast random integer generation in an interval", 2019.
    #[inline(always)]
    pub fn below(&mut self, n: u32) -> u32 {
        debug_assert!(n > 0);
        let mut product = u64::from(self.next_u32()) * u64::from(n);
        if (product as u32) < n {
            let rejected = n.wrapping_neg() % n;
            while (product as u32) < rejected {
                product = u64::from(self.next_u32()) * u64::from(n);
            }
        }
        (product >> 32) as u32
    }

    /// Uniform in `0..n`, exactly.
    #[inline]
    pub fn below_u64(&mut self, n: u64) -> u64 {
        if let Ok(n) = u32::try_from(n) {
            return u64::from(self.below(n));
        }
        let rejected = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            if product as u64 >= rejected {
                return (product >> 64) as u64;
            }
        }
    }

    /// Uniform in [0, 1), a multiple of 2^-53.
    #[inline]
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (-53f64).exp2()
    }

    /// True with probability `p`, to 2^-53.
    #[inline]
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }
}

/// An order of `0..len` as a function: no memory, whatever `len` is.
///
/// A network of six rounds, whose round function is Philox, permutes the numbers of `2 * half` bits; what lands at
/// `len` or above is sent through again, until it lands below.
///
/// Source: Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, method 2 and 3.
#[derive(Debug, Clone, Copy)]
pub struct Permutation {
    len: u64,
    half: u32,
    key: [u32; 2],
    name: u32,
}

impl Permutation {
    const ROUNDS: u32 = 6;

    /// The order of an epoch.
    ///
    /// Panics if `epoch` is above [`MAX_EPOCH`].
    pub fn new(len: u64, seed: u64, epoch: u32) -> Self {
        assert!(epoch <= MAX_EPOCH, "an epoch above 2^28 - 1");
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        Self {
            len,
            half: bits.div_ceil(2).max(1),
            key: [seed as u32, (seed >> 32) as u32],
            name: epoch | (Purpose::Shuffle as u32) << 28,
        }
    }

    /// Where number `index` goes.
    ///
    /// Panics if `index` is not below the length.
    pub fn at(&self, index: u64) -> u64 {
        assert!(index < self.len, "an index outside of the permutation");
        let mut value = index;
        loop {
            [value] = self.network([value]);
            if value < self.len {
                return value;
            }
        }
    }

    /// Where the numbers from `start` on go, as many as `out` has: what [`Self::at`] says of each, many at a time.
    ///
    /// Panics if they are not all below the length.
    pub fn fill(&self, start: u64, out: &mut [i64], isa: Isa) {
        let end = start.checked_add(out.len() as u64);
        assert!(end.is_some_and(|end| end <= self.len), "an index outside of the permutation");
        let mut start = start;
        for part in out.chunks_mut(PART) {
            isa.run(Walk { order: self, start, out: &mut *part });
            start += part.len() as u64;
        }
    }

    /// A permutation of the numbers of `2 * half` bits, of several of them.
    #[inline(always)]
    fn network<const N: usize>(&self, values: [u64; N]) -> [u64; N] {
        let mask = (1u64 << self.half) - 1;
        let (mut left, mut right) =
            (values.map(|value| value >> self.half), values.map(|value| value & mask));
        for round in 0..Self::ROUNDS {
            let counter = [right.map(|right| right as u32), [round; N], [0; N], [self.name; N]];
            let mixed = philox(self.key, counter)[0];
            let next = std::array::from_fn(|lane| left[lane] ^ (u64::from(mixed[lane]) & mask));
            (left, right) = (right, next);
        }
        std::array::from_fn(|lane| left[lane] << self.half | right[lane])
    }
}

/// Numbers that [`Walk`] walks with, and how many of them at a time.
const PART: usize = 256;
const LANES: usize = 16;

/// Walks with many numbers until each is below the length. Those that are there leave the row, the others close up.
struct Walk<'a> {
    order: &'a Permutation,
    start: u64,
    out: &'a mut [i64],
}

impl Kernel for Walk<'_> {
    type Output = ();
    const F32_ONLY: bool = true;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { order, start, out } = self;
        let mut values: [u64; PART] = std::array::from_fn(|place| start + place as u64);
        let mut places: [u16; PART] = std::array::from_fn(|place| place as u16);
        let mut count = out.len();
        while count > 0 {
            let mut left = 0;
            // What is behind the last one is walked with, too, and not looked at.
            for first in (0..count).step_by(LANES) {
                let lanes: [u64; LANES] = std::array::from_fn(|lane| values[first + lane]);
                let lanes = order.network(lanes);
                for (value, place) in lanes.into_iter().zip(first..count) {
                    let place = places[place];
                    out[usize::from(place)] = value as i64;
                    // Without a branch: which of them are there is nothing that a CPU could guess.
                    (values[left], places[left]) = (value, place);
                    left += usize::from(value >= order.len);
                }
            }
            count = left;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of the paper's own library (Random123, `kat_vectors`).
    #[test]
    fn known_answers() {
        for (key, counter, expected) in [
            ([0; 2], [0; 4], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([!0; 2], [!0; 4], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0xa409_3822, 0x299f_31d0],
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ] {
            assert_eq!(philox(key, counter.map(|word| [word])).map(|[word]| word), expected);
        }
    }

    #[test]
    fn names_are_streams_of_their_own() {
        let first = |seed, purpose, epoch, index| Stream::new(seed, purpose, epoch, index).next_u64();
        let one = first(1, Purpose::Mask, 2, 3);
        assert_eq!(one, first(1, Purpose::Mask, 2, 3));
        for other in [
            first(1 << 32 | 1, Purpose::Mask, 2, 3),
            first(2, Purpose::Mask, 2, 3),
            first(1, Purpose::Truncate, 2, 3),
            first(1, Purpose::Mask, 3, 3),
            first(1, Purpose::Mask, 2, 4),
            first(1, Purpose::Mask, 2, 3 | 1 << 40),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn a_stream_is_its_blocks_in_order() {
        for isa in Isa::available() {
            let mut stream = Stream::new(1 << 40 | 7, Purpose::Draw, 9, 1 << 50 | 2).with_isa(isa);
            for block in 0..3 * BLOCKS as u32 {
                let expected =
                    philox([7, 1 << 8], [[block], [2], [1 << 18], [9 | 3 << 28]]).map(|[word]| word);
                assert_eq!(std::array::from_fn(|_| stream.next_u32()), expected, "{}", isa.name());
            }
        }
    }

    #[test]
    fn below_is_uniform_and_below() {
        let mut stream = Stream::new(7, Purpose::Mask, 0, 0);
        let mut counts = [0u32; 7];
        (0..70_000).for_each(|_| counts[stream.below(7) as usize] += 1);
        let chi_square: f64 = counts.iter().map(|&n| (f64::from(n) - 1e4).powi(2) / 1e4).sum();
        assert!(chi_square < 35.0, "{counts:?}"); // 6 degrees of freedom: less likely than 1e-5
        assert!((0..1000).all(|_| stream.below_u64(1 << 40 | 1) <= 1 << 40));
        assert_eq!(stream.below(1), 0);
        let mean = (0..10_000).map(|_| stream.unit()).sum::<f64>() / 1e4;
        assert!((mean - 0.5).abs() < 0.015, "{mean}");
    }

    #[test]
    fn a_permutation_reaches_each_once() {
        for len in [1, 2, 3, 5, 64, 65, 1000] {
            let order = Permutation::new(len, 3, 1);
            let mut seen: Vec<_> = (0..len).map(|index| order.at(index)).collect();
            if len == 1000 {
                assert_ne!(seen, (0..len).map(|i| Permutation::new(len, 3, 2).at(i)).collect::<Vec<_>>());
                assert!(seen.iter().zip(0..).filter(|&(&a, b)| a == b).count() < 10);
            }
            for isa in Isa::available() {
                for start in [0, len / 3] {
                    let mut filled = vec![-1; (len - start) as usize];
                    order.fill(start, &mut filled, isa);
                    assert!(filled.iter().zip(&seen[start as usize..]).all(|(&a, &b)| a as u64 == b));
                }
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..len).collect::<Vec<_>>());
        }
        for len in [1 << 40, (1 << 62) + 1] {
            let order = Permutation::new(len, 0, 0);
            assert!(order.at(len - 1) < len);
            let mut last = [0; 3];
            order.fill(len - 3, &mut last, Isa::choose(None).unwrap());
            assert_eq!(last, [3, 2, 1].map(|back| order.at(len - back) as i64));
        }
    }
}
