//! AVX2 and FMA: 8 lanes, 16 registers.

use super::{Kernel, Simd};
use std::arch::x86_64::*;

/// Proof that the CPU has AVX2 and FMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx2(());

impl Avx2 {
    /// The token, if the CPU and the operating system support it.
    pub fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }
}

// "Token" in the comments below: `self` is only built by `detect`, so the CPU has the instruction.
impl Simd for Avx2 {
    const LANES: usize = 8;
    const MR: usize = 6;
    type F32 = __m256;
    type Words = __m256i;

    lanewise! {
        add(a, b) = _mm256_add_ps;
        sub(a, b) = _mm256_sub_ps;
        mul(a, b) = _mm256_mul_ps;
        div(a, b) = _mm256_div_ps;
        mul_add(a, b, c) = _mm256_fmadd_ps;
        max(a, b) = _mm256_max_ps;
        min(a, b) = _mm256_min_ps;
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F32 {
        // SAFETY: token.
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load_ptr(self, p: *const f32) -> Self::F32 {
        // SAFETY: token; the caller vouches for the pointer.
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store_ptr(self, v: Self::F32, p: *mut f32) {
        // SAFETY: token; the caller vouches for the pointer.
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    fn abs(self, a: Self::F32) -> Self::F32 {
        // SAFETY: token.
        unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
    }
    #[inline(always)]
    fn first(self, v: Self::F32, n: usize) -> Self::F32 {
        // SAFETY: token.
        unsafe {
            let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let keep = _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), lane);
            _mm256_and_ps(_mm256_castsi256_ps(keep), v)
        }
    }
    #[inline(always)]
    fn add_exponent(self, v: Self::F32, t: Self::F32) -> Self::F32 {
        // SAFETY: token.
        unsafe {
            let shifted = _mm256_slli_epi32::<23>(_mm256_castps_si256(t));
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(v), shifted))
        }
    }
    /// Two permutations by the low 3 bits, chosen between by bit 3.
    #[inline(always)]
    fn lookup16(self, table: &[f32; 16], t: Self::F32) -> Self::F32 {
        // SAFETY: token; the table has 16 values.
        unsafe {
            let index = _mm256_castps_si256(t);
            let low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table.as_ptr()), index);
            let high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table.as_ptr().add(8)), index);
            _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(index)))
        }
    }
    #[inline(always)]
    fn reduce_add(self, v: Self::F32) -> f32 {
        // SAFETY: token.
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }
    #[inline(always)]
    fn reduce_max(self, v: Self::F32) -> f32 {
        // SAFETY: token.
        unsafe {
            let four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }
    #[inline(always)]
    fn prefetch(self, p: *const f32) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    /// Four 8 x 8 blocks, each by exchanges of 1, 2 and 4 values.
    #[inline(always)]
    unsafe fn transpose16(self, src: *const f32, src_stride: usize, dst: *mut f32, dst_stride: usize) {
        for (row, column) in [(0, 0), (0, 8), (8, 0), (8, 8)] {
            // SAFETY: token; the caller vouches for 16 rows of 16 values on both sides.
            unsafe {
                let src = src.add(row * src_stride + column);
                let dst = dst.add(column * dst_stride + row);
                let mut r: [__m256; 8] = std::array::from_fn(|i| _mm256_loadu_ps(src.add(i * src_stride)));
                let mut t = r;
                for i in (0..8).step_by(2) {
                    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
                    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
                }
                for i in (0..8).step_by(4) {
                    for j in 0..2 {
                        let (low, high) = (_mm256_castps_pd(t[i + j]), _mm256_castps_pd(t[i + j + 2]));
                        r[i + 2 * j] = _mm256_castpd_ps(_mm256_unpacklo_pd(low, high));
                        r[i + 2 * j + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(low, high));
                    }
                }
                for c in 0..4 {
                    let (low, high) = (r[c], r[4 + c]);
                    _mm256_storeu_ps(dst.add(c * dst_stride), _mm256_permute2f128_ps::<0x20>(low, high));
                    _mm256_storeu_ps(
                        dst.add((4 + c) * dst_stride),
                        _mm256_permute2f128_ps::<0x31>(low, high),
                    );
                }
            }
        }
    }
    #[inline(always)]
    fn splat_word(self, x: u32) -> Self::Words {
        // SAFETY: token.
        unsafe { _mm256_set1_epi32(x as i32) }
    }
    #[inline(always)]
    unsafe fn load_words(self, p: *const u32) -> Self::Words {
        // SAFETY: token; the caller vouches for the pointer.
        unsafe { _mm256_loadu_si256(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store_words(self, v: Self::Words, p: *mut u32) {
        // SAFETY: token; the caller vouches for the pointer.
        unsafe { _mm256_storeu_si256(p.cast(), v) }
    }
    #[inline(always)]
    fn to_f32(self, v: Self::Words) -> Self::F32 {
        // SAFETY: token.
        unsafe { _mm256_cvtepi32_ps(v) }
    }
    #[inline(always)]
    fn dot_i8(self, sum: Self::Words, a: Self::Words, b: Self::Words) -> Self::Words {
        super::dot_i8_by_lane(self, sum, a, b)
    }
    #[inline]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma")]
        fn inner<K: Kernel>(simd: Avx2, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: token.
        unsafe { inner(self, kernel) }
    }
}
