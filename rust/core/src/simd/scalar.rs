//! Baseline code: arrays of eight lanes, which the compiler maps to whatever the target always has.

use super::{Kernel, Simd};

/// Proof of nothing: every CPU runs this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scalar;

impl Scalar {
    /// The token, always.
    pub fn detect() -> Option<Self> {
        Some(Self)
    }
}

const LANES: usize = 8;

#[inline(always)]
fn lanes(f: impl Fn(usize) -> f32) -> [f32; LANES] {
    std::array::from_fn(f)
}

impl Simd for Scalar {
    const LANES: usize = LANES;
    const MR: usize = 2;
    type F32 = [f32; LANES];
    type Words = [u32; LANES];
    type Base = Self;

    #[inline(always)]
    fn base(self) -> Self {
        self
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F32 {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load_ptr(self, p: *const f32) -> Self::F32 {
        // SAFETY: the caller vouches for `LANES` values; an array of f32 is aligned like f32.
        unsafe { p.cast::<[f32; LANES]>().read() }
    }
    #[inline(always)]
    unsafe fn store_ptr(self, v: Self::F32, p: *mut f32) {
        // SAFETY: as for `load_ptr`.
        unsafe { p.cast::<[f32; LANES]>().write(v) }
    }
    #[inline(always)]
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        lanes(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        lanes(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        lanes(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        lanes(|i| a[i] / b[i])
    }
    /// Rounds twice: a fused `f32::mul_add` is a library call where the target has no instruction for it.
    #[inline(always)]
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        lanes(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        lanes(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        lanes(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn abs(self, a: Self::F32) -> Self::F32 {
        lanes(|i| a[i].abs())
    }
    #[inline(always)]
    fn first(self, v: Self::F32, n: usize) -> Self::F32 {
        lanes(|i| if i < n { v[i] } else { 0.0 })
    }
    #[inline(always)]
    fn scale(self, v: Self::F32, n: Self::F32) -> Self::F32 {
        lanes(|i| f32::from_bits(v[i].to_bits().wrapping_add(n[i].to_bits() << 23)))
    }
    #[inline(always)]
    fn lookup16(self, table: &[f32; 16], t: Self::F32) -> Self::F32 {
        lanes(|i| table[(t[i].to_bits() & 15) as usize])
    }
    #[inline(always)]
    fn reduce_add(self, v: Self::F32) -> f32 {
        ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))
    }
    #[inline(always)]
    fn reduce_max(self, v: Self::F32) -> f32 {
        v.into_iter().fold(f32::NEG_INFINITY, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn splat_word(self, x: u32) -> Self::Words {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load_words(self, p: *const u32) -> Self::Words {
        // SAFETY: the caller vouches for `LANES` words; an array of u32 is aligned like u32.
        unsafe { p.cast::<[u32; LANES]>().read() }
    }
    #[inline(always)]
    unsafe fn store_words(self, v: Self::Words, p: *mut u32) {
        // SAFETY: as for `load_words`.
        unsafe { p.cast::<[u32; LANES]>().write(v) }
    }
    #[inline(always)]
    fn to_f32(self, v: Self::Words) -> Self::F32 {
        lanes(|i| v[i] as i32 as f32)
    }
    #[inline(always)]
    fn dot_i8(self, sum: Self::Words, a: Self::Words, b: Self::Words) -> Self::Words {
        std::array::from_fn(|i| {
            let products = a[i].to_le_bytes().into_iter().zip(b[i].to_le_bytes());
            products.fold(sum[i], |sum, (a, b)| {
                sum.wrapping_add((i32::from(a as i8) * i32::from(b as i8)) as u32)
            })
        })
    }
    #[inline(always)]
    unsafe fn store_i8(self, v: Self::F32, p: *mut u8) {
        // SAFETY: the caller vouches for `LANES` bytes.
        unsafe { p.cast::<[i8; LANES]>().write(v.map(|x| x.round_ties_even() as i8)) }
    }
    #[inline(always)]
    fn butterfly<const D: usize>(self, v: Self::F32) -> Self::F32 {
        lanes(|i| if i & D == 0 { v[i] + v[i | D] } else { v[i & !D] - v[i] })
    }
    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }
}
