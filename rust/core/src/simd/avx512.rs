//! AVX-512: 16 lanes, 32 registers.

use super::{Kernel, Simd};
use std::arch::x86_64::*;

/// Proof that the CPU has AVX-512 F, BW, DQ and VL (and AVX2 and FMA with them).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx512(());

impl Avx512 {
    /// The token, if the CPU and the operating system support it.
    pub fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma"))
        .then_some(Self(()))
    }
}

// "Token" in the comments below: `self` is only built by `detect`, so the CPU has the instruction.
impl Simd for Avx512 {
    const LANES: usize = 16;
    const MR: usize = 12;
    type F32 = __m512;
    type Words = __m512i;

    lanewise! {
        add(a, b) = _mm512_add_ps;
        sub(a, b) = _mm512_sub_ps;
        mul(a, b) = _mm512_mul_ps;
        div(a, b) = _mm512_div_ps;
        mul_add(a, b, c) = _mm512_fmadd_ps;
        max(a, b) = _mm512_max_ps;
        min(a, b) = _mm512_min_ps;
        abs(a) = _mm512_abs_ps;
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F32 {
        // SAFETY: token.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load_ptr(self, p: *const f32) -> Self::F32 {
        // SAFETY: token; the caller vouches for the pointer.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store_ptr(self, v: Self::F32, p: *mut f32) {
        // SAFETY: token; the caller vouches for the pointer.
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    fn first(self, v: Self::F32, n: usize) -> Self::F32 {
        let mask = ((1u32 << n) - 1) as __mmask16;
        // SAFETY: token.
        unsafe { _mm512_maskz_mov_ps(mask, v) }
    }
    #[inline(always)]
    fn add_exponent(self, v: Self::F32, t: Self::F32) -> Self::F32 {
        // SAFETY: token.
        unsafe {
            let shifted = _mm512_slli_epi32::<23>(_mm512_castps_si512(t));
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(v), shifted))
        }
    }
    #[inline(always)]
    fn lookup16(self, table: &[f32; 16], t: Self::F32) -> Self::F32 {
        // SAFETY: token; the table has 16 values. The permutation looks at the low 4 bits only.
        unsafe { _mm512_permutexvar_ps(_mm512_castps_si512(t), _mm512_loadu_ps(table.as_ptr())) }
    }
    #[inline(always)]
    fn reduce_add(self, v: Self::F32) -> f32 {
        // SAFETY: token.
        unsafe { _mm512_reduce_add_ps(v) }
    }
    #[inline(always)]
    fn reduce_max(self, v: Self::F32) -> f32 {
        // SAFETY: token.
        unsafe { _mm512_reduce_max_ps(v) }
    }
    #[inline(always)]
    fn prefetch(self, p: *const f32) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    /// Exchanges of 1, 2, 4 and 8 values.
    #[inline(always)]
    unsafe fn transpose16(self, src: *const f32, src_stride: usize, dst: *mut f32, dst_stride: usize) {
        // SAFETY: token; the caller vouches for 16 rows of 16 values on both sides.
        unsafe {
            let mut r: [__m512; 16] = std::array::from_fn(|i| _mm512_loadu_ps(src.add(i * src_stride)));
            let mut t = r;
            for i in (0..16).step_by(2) {
                t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
                t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
            }
            for i in (0..16).step_by(4) {
                for j in 0..2 {
                    let (low, high) = (_mm512_castps_pd(t[i + j]), _mm512_castps_pd(t[i + j + 2]));
                    r[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
                    r[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
                }
            }
            // Now r[4 g + c] holds, in its 128-bit lane l, column 4 l + c of the rows 4 g .. 4 g + 4.
            for c in 0..4 {
                let even01 = _mm512_shuffle_f32x4::<0x88>(r[c], r[4 + c]);
                let odd01 = _mm512_shuffle_f32x4::<0xDD>(r[c], r[4 + c]);
                let even23 = _mm512_shuffle_f32x4::<0x88>(r[8 + c], r[12 + c]);
                let odd23 = _mm512_shuffle_f32x4::<0xDD>(r[8 + c], r[12 + c]);
                t[c] = _mm512_shuffle_f32x4::<0x88>(even01, even23);
                t[8 + c] = _mm512_shuffle_f32x4::<0xDD>(even01, even23);
                t[4 + c] = _mm512_shuffle_f32x4::<0x88>(odd01, odd23);
                t[12 + c] = _mm512_shuffle_f32x4::<0xDD>(odd01, odd23);
            }
            for (j, row) in t.into_iter().enumerate() {
                _mm512_storeu_ps(dst.add(j * dst_stride), row);
            }
        }
    }
    #[inline(always)]
    fn splat_word(self, x: u32) -> Self::Words {
        // SAFETY: token.
        unsafe { _mm512_set1_epi32(x as i32) }
    }
    #[inline(always)]
    unsafe fn load_words(self, p: *const u32) -> Self::Words {
        // SAFETY: token; the caller vouches for the pointer.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store_words(self, v: Self::Words, p: *mut u32) {
        // SAFETY: token; the caller vouches for the pointer.
        unsafe { _mm512_storeu_si512(p.cast(), v) }
    }
    #[inline(always)]
    fn to_f32(self, v: Self::Words) -> Self::F32 {
        // SAFETY: token.
        unsafe { _mm512_cvtepi32_ps(v) }
    }
    #[inline(always)]
    fn dot_i8(self, sum: Self::Words, a: Self::Words, b: Self::Words) -> Self::Words {
        super::dot_i8_by_lane(self, sum, a, b)
    }
    #[inline]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
        fn inner<K: Kernel>(simd: Avx512, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: token.
        unsafe { inner(self, kernel) }
    }
}
