//! What the machine can do at most, measured: the yardstick of the benchmark.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::Result;
use crate::memory::Block;
use crate::simd::{Isa, Kernel, Simd};
use crate::threads::Pool;

/// Fused multiply-adds in registers only; returns floating-point operations.
#[derive(Debug)]
pub struct FmaBurst {
    /// Rounds of [`FmaBurst::CHAINS`] vectors.
    pub rounds: usize,
}

impl FmaBurst {
    /// Independent sums: enough to hide a latency of 4 to 5 cycles at two vectors a cycle.
    const CHAINS: usize = 12;
}

impl Kernel for FmaBurst {
    const F32_ONLY: bool = true;
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        let (x, y) = (s.splat(black_box(0.999_999)), s.splat(black_box(1e-7)));
        let mut sums: [S::F32; Self::CHAINS] = std::array::from_fn(|i| s.splat(i as f32));
        for _ in 0..self.rounds {
            for sum in &mut sums {
                *sum = s.mul_add(*sum, x, y);
            }
        }
        let mut total = s.splat(0.0);
        for sum in sums {
            total = s.add(total, sum);
        }
        black_box(s.reduce_add(total));
        (self.rounds * Self::CHAINS * S::LANES * 2) as f64
    }
}

/// The best rate of `work` (units done per call) over at least `duration`, in units a second.
///
/// The best and not the mean: on a shared machine the limit is what was possible while nobody interfered.
pub fn best_rate(duration: Duration, mut work: impl FnMut() -> f64) -> f64 {
    let start = Instant::now();
    let mut best = 0f64;
    while start.elapsed() < duration {
        let round = Instant::now();
        let done = work();
        best = best.max(done / round.elapsed().as_secs_f64());
    }
    best
}

/// The sum of the values: every byte is read once.
#[derive(Debug)]
pub struct ReadAll<'a>(pub &'a [f32]);

impl Kernel for ReadAll<'_> {
    const F32_ONLY: bool = true;
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut sums = [s.splat(0.0); 8];
        let chunks = self.0.chunks_exact(8 * S::LANES);
        for chunk in chunks {
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = s.add(*sum, s.load(&chunk[i * S::LANES..]));
            }
        }
        let mut total = sums[0];
        for sum in &sums[1..] {
            total = s.add(total, *sum);
        }
        s.reduce_add(total)
    }
}

/// Floating-point operations a second on up to `threads` threads of the pool.
pub fn fma_peak(isa: Isa, duration: Duration, threads: usize) -> f64 {
    const ROUNDS: usize = 1_000_000;
    let pool = Pool::global();
    best_rate(duration, || {
        let done = AtomicU64::new(0);
        pool.run(threads, |_| {
            let flops = isa.run(FmaBurst { rounds: ROUNDS });
            done.fetch_add(flops as u64, Ordering::Relaxed);
        });
        done.into_inner() as f64
    })
}

/// Bytes a second read from memory on up to `threads` threads of the pool: 256 MiB, far more than any cache.
///
/// # Errors
/// If there is not that much memory.
pub fn read_bandwidth(isa: Isa, duration: Duration, threads: usize) -> Result<f64> {
    let mut block = Block::zeroed(64 << 20)?;
    block.as_mut_slice().fill(1.0);
    let values = block.as_slice();
    let pool = Pool::global();
    Ok(best_rate(duration, || {
        pool.run(threads, |member| {
            black_box(isa.run(ReadAll(&values[member.share(values.len())])));
        });
        size_of_val(values) as f64
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_it_does() {
        for isa in Isa::available() {
            let per_round = isa.run(FmaBurst { rounds: 1 });
            assert_eq!(isa.run(FmaBurst { rounds: 1000 }), 1000.0 * per_round);
            assert_eq!(isa.run(ReadAll(&[0.5; 512])), 256.0);
        }
    }
}
