//! What the machine can do at most, measured: the yardstick of the benchmark.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::formats::Dtype;
use crate::memory::Block;
use crate::simd::{Isa, Kernel, Simd};
use crate::threads::Pool;
use crate::{Error, Result};

/// Independent sums: enough to hide a latency of 4 to 6 cycles at one or two vectors a cycle.
const CHAINS: usize = 12;

/// f32 multiply-adds in registers only; returns floating-point operations.
#[derive(Debug)]
pub struct Float32Burst {
    /// Rounds of a vector for each of the independent sums.
    pub rounds: usize,
}

impl Kernel for Float32Burst {
    const F32_ONLY: bool = true;
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        let (x, y) = (s.splat(black_box(0.999_999)), s.splat(black_box(1e-7)));
        let mut sums: [S::F32; CHAINS] = std::array::from_fn(|i| s.splat(i as f32));
        for _ in 0..self.rounds {
            for sum in &mut sums {
                *sum = s.mul_add(*sum, x, y);
            }
        }
        black_box(s.reduce_add(total(s, sums)));
        (self.rounds * CHAINS * S::LANES * 2) as f64
    }
}

/// bf16 dot products in registers only; returns floating-point operations.
#[derive(Debug)]
pub struct BFloat16Burst {
    /// Rounds of a vector for each of the independent sums.
    pub rounds: usize,
}

impl Kernel for BFloat16Burst {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        let (a, b) = (s.splat_word(black_box(0x3F80_3F80)), s.splat_word(black_box(0x3380_3380)));
        let mut sums: [S::F32; CHAINS] = std::array::from_fn(|i| s.splat(i as f32));
        for _ in 0..self.rounds {
            for sum in &mut sums {
                *sum = s.dot_bf16(*sum, a, b);
            }
        }
        black_box(s.reduce_add(total(s, sums)));
        (self.rounds * CHAINS * S::LANES * 4) as f64
    }
}

/// int8 dot products on little else than registers; returns integer operations.
#[derive(Debug)]
pub struct Int8Burst {
    /// Rounds of a vector for each of the independent sums.
    pub rounds: usize,
}

impl Kernel for Int8Burst {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        // Where a dot product is several instructions, the compiler would compute one that returns only once: so all
        // twelve of a round have other operands, and half of these are read anew in each round.
        const RIGHT: usize = CHAINS / 2;
        let left = [s.splat_word(black_box(0x0102_0304)), s.splat_word(black_box(0x0403_0201))];
        let memory: [u32; RIGHT * 16] = std::array::from_fn(|i| 0x01FF_01FF ^ (i as u32));
        let mut sums: [S::Words; CHAINS] = [s.splat_word(black_box(0)); CHAINS];
        for _ in 0..self.rounds {
            let right = black_box(memory.as_ptr());
            for i in 0..RIGHT {
                // SAFETY: `LANES` is at most 16.
                let right = unsafe { s.load_words(right.add(i * S::LANES)) };
                sums[2 * i] = s.dot_i8(sums[2 * i], left[0], right);
                sums[2 * i + 1] = s.dot_i8(sums[2 * i + 1], left[1], right);
            }
        }
        black_box(s.reduce_add(total(s, sums.map(|sum| s.to_f32(sum)))));
        (self.rounds * CHAINS * S::LANES * 8) as f64
    }
}

#[inline(always)]
fn total<S: Simd>(s: S, sums: [S::F32; CHAINS]) -> S::F32 {
    let mut total = s.splat(0.0);
    for sum in sums {
        total = s.add(total, sum);
    }
    total
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

/// Operations a second in `dtype`, a multiply-add counted as two, on up to `threads` threads.
///
/// # Errors
/// [`Error::Value`] if the instruction set has no instruction for it.
pub fn compute_peak(isa: Isa, dtype: Dtype, duration: Duration, threads: usize) -> Result<f64> {
    const ROUNDS: usize = 1_000_000;
    if !dtype.runs_on(isa) {
        return Err(Error::Value(format!("dtype: {} does not run on {}", dtype.name(), isa.name())));
    }
    let burst = || match dtype {
        Dtype::Float32 => isa.run(Float32Burst { rounds: ROUNDS }),
        Dtype::BFloat16 => isa.run(BFloat16Burst { rounds: ROUNDS }),
        Dtype::Int8 => isa.run(Int8Burst { rounds: ROUNDS }),
    };
    Ok(on_threads(threads, |_, _| best_rate(duration, burst)))
}

/// The sum of what `rate(i, of)` says on each of up to `threads` threads, which all run at the same time.
///
/// Threads of its own: those of the pool would be fewer where other programs take the cores, and nobody would know.
fn on_threads(threads: usize, rate: impl Fn(usize, usize) -> f64 + Sync) -> f64 {
    let threads = threads.clamp(1, Pool::global().size());
    std::thread::scope(|scope| {
        let rate = &rate;
        let start = |i| scope.spawn(move || rate(i, threads));
        let running: Vec<_> = (0..threads).map(start).collect();
        running.into_iter().map(|thread| thread.join().unwrap_or(0.0)).sum()
    })
}

/// Bytes a second read on up to `threads` threads, each out of a part of its own of `bytes` in all: from
/// the cache that holds a part, or from memory if none does.
///
/// # Errors
/// [`Error::Value`] if there is not that much memory.
pub fn read_bandwidth(isa: Isa, bytes: usize, duration: Duration, threads: usize) -> Result<f64> {
    let mut block = Block::zeroed(bytes / size_of::<f32>())?;
    block.as_mut_slice().fill(1.0);
    let values = block.as_slice();
    // A look at the clock must not count where the bytes are few.
    let times = (LEAST / bytes.max(1)).max(1);
    Ok(on_threads(threads, |i, of| {
        let part = &values[values.len() * i / of..values.len() * (i + 1) / of];
        best_rate(duration, || {
            for _ in 0..times {
                black_box(isa.run(ReadAll(black_box(part))));
            }
            (times * size_of_val(part)) as f64
        })
    }))
}

/// Bytes that take long enough to read.
const LEAST: usize = 16 << 20;

/// Bytes that no cache holds.
pub const MEMORY: usize = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    struct Lanes;

    impl Kernel for Lanes {
        type Output = usize;

        #[inline(always)]
        fn run<S: Simd>(self, _: S) -> usize {
            S::LANES
        }
    }

    #[test]
    fn a_dtype_without_instructions_has_no_peak() {
        for isa in Isa::available() {
            for dtype in Dtype::ALL {
                let peak = compute_peak(isa, dtype, Duration::ZERO, 1);
                assert_eq!(peak.is_ok(), dtype.runs_on(isa), "{} on {}", dtype.name(), isa.name());
            }
        }
    }

    #[test]
    fn counts_what_it_does() {
        for isa in Isa::available() {
            let name = isa.name();
            let lanes = isa.run(Lanes) as f64;
            assert_eq!(isa.run(Float32Burst { rounds: 1000 }), 1000.0 * 12.0 * 2.0 * lanes, "{name}");
            assert_eq!(isa.run(BFloat16Burst { rounds: 10 }), 10.0 * 12.0 * 4.0 * lanes, "{name}");
            assert_eq!(isa.run(Int8Burst { rounds: 10 }), 10.0 * 12.0 * 8.0 * lanes, "{name}");
            assert_eq!(isa.run(ReadAll(&[0.5; 512])), 256.0);
        }
    }
}
