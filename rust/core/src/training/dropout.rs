//! Which values are dropped: a function of a key, so that the gradient finds the same ones again.

use super::element::Element;
use crate::ops::PANEL;
use crate::simd::{Isa, Kernel, Simd};
use crate::threads::Pool;
use crate::{Error, Result};

/// Values that one key is for, and that a thread takes at a time.
const CHUNK: usize = 128 * PANEL;

/// Values with some of them dropped, and the others scaled so that their mean stays; the same function of the gradient is
/// its gradient.
///
/// Shapes: `x` and `out` as long as each other. `probability` counts in steps of 2^-16. No result depends on `threads`.
///
/// # Errors
/// [`Error::Shape`] for another length, [`Error::Value`] for a probability outside 0 to 1.
pub fn dropout<E: Element>(
    x: &[E],
    probability: f32,
    seed: u64,
    out: &mut [E],
    isa: Isa,
    threads: usize,
) -> Result<()> {
    if x.len() != out.len() {
        return Err(Error::Shape(format!("out: expected {} values, got {}", x.len(), out.len())));
    }
    check_probability(probability)?;
    let dropout = Dropout::new(probability, seed);
    Pool::global().for_each_chunk(threads, out, CHUNK, |number, out| {
        let x = &x[number * CHUNK..][..out.len()];
        match dropout {
            Some(dropout) => isa.run(Drop { x, out, row: dropout.row(number, 0, 0) }),
            None => out.copy_from_slice(x),
        }
    });
    Ok(())
}

pub(super) fn check_probability(probability: f32) -> Result<()> {
    if (0.0..=1.0).contains(&probability) {
        return Ok(());
    }
    Err(Error::Value(format!("dropout: expected a probability, got {probability}")))
}

struct Drop<'a, E> {
    x: &'a [E],
    out: &'a mut [E],
    row: DroppedRow,
}

impl<E: Element> Kernel for Drop<'_, E> {
    type Output = ();
    const F32_ONLY: bool = true;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let panels = self.x.chunks(PANEL).zip(self.out.chunks_mut(PANEL));
        for (panel, (x, out)) in panels.enumerate() {
            let mut factors = [0.0; PANEL];
            self.row.factors(panel, &mut factors);
            for ((out, x), factor) in out.iter_mut().zip(x).zip(factors) {
                *out = E::from_f32(x.to_f32() * factor);
            }
        }
    }
}

/// Drops values with a probability that is a multiple of 2^-16, and scales the others so that their mean stays.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dropout {
    /// Of 16 random bits those below it drop.
    threshold: u32,
    /// What values that stay are multiplied by.
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
    fn values_are_dropped_whatever_the_threads() {
        let x: Vec<f32> = (0..3 * CHUNK + 77).map(|i| i as f32 - 500.5).collect();
        for isa in Isa::available() {
            let run = |seed, threads| {
                let mut out = vec![f32::NAN; x.len()];
                dropout(&x, 0.25, seed, &mut out, isa, threads).unwrap();
                out
            };
            let out = run(5, 1);
            assert_eq!(out, run(5, 3));
            assert_ne!(out, run(6, 1));
            let dropped = out.iter().filter(|x| **x == 0.0).count() as f64 / x.len() as f64;
            assert!((dropped - 0.25).abs() < 0.02, "{dropped}");
            assert!(out.iter().zip(&x).all(|(out, x)| *out == 0.0 || (out / x - 4.0 / 3.0).abs() < 1e-6));
            // Chunks are not alike.
            let kept = |from: usize| (0..CHUNK).map(|i| out[from + i] != 0.0).collect::<Vec<_>>();
            assert_ne!(kept(0), kept(CHUNK));
            let narrow: Vec<u16> = x.iter().map(|x| u16::from_f32(*x)).collect();
            let mut rounded = vec![0; x.len()];
            dropout(&narrow, 0.25, 5, &mut rounded, isa, 2).unwrap();
            assert!(rounded.iter().zip(&out).all(|(a, b)| (a.to_f32() == 0.0) == (*b == 0.0)));
        }
    }

    #[test]
    fn no_probability_no_result() {
        let isa = Isa::choose(None).unwrap();
        let mut out = [1.0f32; 3];
        for probability in [-0.1, 1.1, f32::NAN] {
            assert!(dropout(&[1.0f32; 3], probability, 0, &mut out, isa, 1).is_err());
        }
        assert!(dropout(&[1.0f32; 2], 0.5, 0, &mut out, isa, 1).is_err());
        dropout(&[2.0f32; 3], 0.0, 0, &mut out, isa, 1).unwrap();
        assert_eq!(out, [2.0; 3]);
        dropout::<f32>(&[], 0.5, 0, &mut [], isa, 1).unwrap();
    }

    #[test]
    fn nothing_and_everything() {
        assert!(Dropout::new(0.0, 1).is_none());
        let mut out = [1.0; PANEL];
        Dropout::new(1.0, 1).unwrap().row(0, 0, 0).factors(0, &mut out);
        assert_eq!(out, [0.0; PANEL]);
    }
}
