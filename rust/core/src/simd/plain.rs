//! Operations on words in plain arithmetic, for the sets that have no instruction for them.

use super::Simd;

/// The words of a vector, zeros behind them.
#[inline(always)]
pub fn words<S: Simd>(s: S, v: S::Words) -> [u32; 16] {
    let mut out = [0; 16];
    // SAFETY: `LANES` is at most 16.
    unsafe { s.store_words(v, out.as_mut_ptr()) };
    out
}

/// [`Simd::dot_bf16`]
#[inline(always)]
pub fn dot_bf16<S: Simd>(s: S, sum: S::F32, a: S::Words, b: S::Words) -> S::F32 {
    let (a, b) = (words(s, a), words(s, b));
    let mut out = [0.0; 16];
    s.store(sum, &mut out);
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        let halves = |x: u32| (f32::from_bits(x & 0xFFFF_0000), f32::from_bits(x << 16));
        let ((a1, a0), (b1, b0)) = (halves(a), halves(b));
        *out = (a1 * b1 + *out) + a0 * b0;
    }
    s.load(&out)
}

/// [`Simd::pair_bf16`]
#[inline(always)]
pub fn pair_bf16<S: Simd>(s: S, low: S::F32, high: S::F32) -> S::Words {
    let (mut lows, mut highs, mut out) = ([0.0; 16], [0.0; 16], [0; 16]);
    s.store(low, &mut lows);
    s.store(high, &mut highs);
    for ((out, low), high) in out.iter_mut().zip(lows).zip(highs) {
        *out = u32::from(half::bf16::from_f32(low).to_bits())
            | u32::from(half::bf16::from_f32(high).to_bits()) << 16;
    }
    // SAFETY: the array holds `LANES` words.
    unsafe { s.load_words(out.as_ptr()) }
}

/// [`Simd::store_bf16`]
///
/// # Safety
/// As there.
#[inline(always)]
pub unsafe fn store_bf16<S: Simd>(s: S, v: S::F32, p: *mut u16) {
    let mut values = [0.0; 16];
    s.store(v, &mut values);
    for (i, x) in values.iter().enumerate().take(S::LANES) {
        // SAFETY: the caller's contract.
        unsafe { p.add(i).write_unaligned(half::bf16::from_f32(*x).to_bits()) };
    }
}

/// What [`Simd::butterfly`] multiplies a value with before it adds that of the lane `D` away.
pub const fn butterfly_signs<const D: usize>() -> [f32; 16] {
    let mut signs = [1.0; 16];
    let mut i = 0;
    while i < 16 {
        if i & D != 0 {
            signs[i] = -1.0;
        }
        i += 1;
    }
    signs
}
