//! Which attention weights are dropped: a function of a key, so that the gradient finds the same ones again.

use crate::ops::PANEL;

/// Drops weights with a probability that is a multiple of 2^-16, and scales the others so that their mean stays.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dropout {
    /// Of 16 random bits those below it drop.
    threshold: u32,
    /// What weights that stay are multiplied by.
    factor: f32,
    seed: u64,
}

impl Dropout {
    /// `None` for a probability of 0. It is at most 1.
    pub fn new(probability: f32, seed: u64) -> Option<Self> {
        let threshold = (f64::from(probability) * 65536.0).round() as u32;
        let factor = if threshold < 65536 { 65536.0 / (65536 - threshold) as f32 } else { 0.0 };
        (threshold > 0).then_some(Self { threshold, factor, seed })
    }

    /// The key of a query: which sequence, head and row it is.
    #[inline(always)]
    pub fn row(self, sequence: usize, head: usize, row: usize) -> DroppedRow {
        let mut key = self.seed;
        for part in [sequence, head, row] {
            key = scramble(key.wrapping_add(part as u64).wrapping_add(0x9E37_79B9_7F4A_7C15));
        }
        DroppedRow { threshold: self.threshold, factor: self.factor, key: [key as u32, (key >> 32) as u32] }
    }
}

/// What becomes of the weights of one query.
#[derive(Clone, Copy, Debug)]
pub(super) struct DroppedRow {
    threshold: u32,
    factor: f32,
    key: [u32; 2],
}

impl DroppedRow {
    /// Factors for the keys of a panel: 0 for those that are dropped.
    #[inline(always)]
    pub fn factors(self, panel: usize, out: &mut [f32; PANEL]) {
        let (low, high) = out.split_at_mut(PANEL / 2);
        let first = (panel * PANEL / 2) as u32;
        for (i, (low, high)) in low.iter_mut().zip(high).enumerate() {
            let bits = mix(mix(first.wrapping_add(i as u32) ^ self.key[0]) ^ self.key[1]);
            *low = if bits & 0xffff < self.threshold { 0.0 } else { self.factor };
            *high = if bits >> 16 < self.threshold { 0.0 } else { self.factor };
        }
    }
}

/// A bijection of 64 bits that leaves no pattern: the output of SplitMix64.
///
/// Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
fn scramble(mut x: u64) -> u64 {
    x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ x >> 31
}

/// The same for 32 bits.
///
/// Source: Wellons, "Prospecting for hash functions", 2018.
#[inline(always)]
fn mix(mut x: u32) -> u32 {
    x = (x ^ x >> 16).wrapping_mul(0x7FEB_352D);
    x = (x ^ x >> 15).wrapping_mul(0x846C_A68B);
    x ^ x >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_dropped_with_their_probability_and_keep_their_mean() {
        for probability in [0.1f32, 0.5, 0.97] {
            let dropout = Dropout::new(probability, 7).unwrap();
            let (mut dropped, mut sum, mut count, mut pairs) = (0, 0.0, 0, 0);
            for row in 0..4000 {
                let mut last = false;
                for panel in 0..4 {
                    let mut factors = [0.0; PANEL];
                    dropout.row(3, row % 5, row).factors(panel, &mut factors);
                    for x in factors {
                        count += 1;
                        sum += f64::from(x);
                        dropped += usize::from(x == 0.0);
                        pairs += usize::from(x == 0.0 && last);
                        last = x == 0.0;
                    }
                }
            }
            let p = f64::from(probability);
            let (count, sigma) = (f64::from(count), |p: f64| (p * (1.0 - p) / f64::from(count)).sqrt());
            assert!((dropped as f64 / count - p).abs() < 4.0 * sigma(p) + 1e-5, "{probability}");
            assert!((sum / count - 1.0).abs() < 4.0 * sigma(p) / (1.0 - p) + 1e-4, "{probability}");
            // Neighbours have nothing to do with each other (the first of a row has none).
            assert!(
                (pairs as f64 / count - p * p * 127.0 / 128.0).abs() < 5.0 * sigma(p * p),
                "{probability}"
            );
        }
    }

    #[test]
    fn every_part_of_the_key_counts() {
        let factors = |seed, sequence, head, row, panel| {
            let mut out = [0.0; PANEL];
            Dropout::new(0.5, seed).unwrap().row(sequence, head, row).factors(panel, &mut out);
            out
        };
        let one = factors(1, 2, 3, 4, 0);
        assert_eq!(one, factors(1, 2, 3, 4, 0));
        for other in [factors(2, 2, 3, 4, 0), factors(1, 3, 3, 4, 0), factors(1, 2, 4, 4, 0)] {
            assert_ne!(one, other);
        }
        assert_ne!(one, factors(1, 2, 3, 5, 0));
        assert_ne!(one, factors(1, 2, 3, 4, 1));
        assert_ne!(one, factors(1, 3, 2, 4, 0));
    }

    #[test]
    fn nothing_and_everything() {
        assert!(Dropout::new(0.0, 1).is_none());
        let mut out = [1.0; PANEL];
        Dropout::new(1.0, 1).unwrap().row(0, 0, 0).factors(0, &mut out);
        assert_eq!(out, [0.0; PANEL]);
    }
}
