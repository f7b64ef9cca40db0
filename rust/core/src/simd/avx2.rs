//! AVX2 and FMA: 8 lanes, 16 registers.

use std::arch::x86_64::*;
use std::marker::PhantomData;

use super::plain::butterfly_signs;
use super::{Kernel, Simd};

/// Proof that the CPU has AVX2 and FMA, and what the level adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx2<L>(PhantomData<L>);

/// How a level multiplies int8.
pub trait Level: Copy + Send + Sync + 'static {
    /// The instructions of the dot product.
    const DOT: Dot;
    /// Rows of the largest tile of int8 products.
    const MR_I8: usize;
    /// Whether this CPU has it.
    fn detected() -> bool;
    /// Run a kernel with its instructions enabled.
    fn enter<K: Kernel>(simd: Avx2<Self>, kernel: K) -> K::Output;
}

/// The dot product of int8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dot {
    /// AVX2 only.
    Signs,
    /// `vpdpbusd` of AVX-512 VNNI and VL.
    Vnni,
    /// `vpdpbusd` of AVX-VNNI: another encoding of the same instruction.
    AvxVnni,
}

level! {
    /// No more than that. Beside the accumulators: the weights, their absolute values, ones, the activation and a product.
    Base of Avx2, is_x86_feature_detected!("avx2", "fma");
    const DOT: Dot = Dot::Signs;
    const MR_I8: usize = 4;
}
level! {
    /// VNNI in the encoding of AVX-512, which has 32 registers.
    Vnni of Avx2, is_x86_feature_detected!("avx2", "fma", "avx512f", "avx512vl", "avx512vnni");
    const DOT: Dot = Dot::Vnni;
    const MR_I8: usize = 12;
}
level! {
    /// VNNI in the encoding of AVX2.
    AvxVnni of Avx2, is_x86_feature_detected!("avx2", "fma", "avxvnni");
    const DOT: Dot = Dot::AvxVnni;
    const MR_I8: usize = 6;
}

impl<L: Level> Avx2<L> {
    /// The token, if the CPU and the operating system support it.
    pub fn detect() -> Option<Self> {
        L::detected().then_some(Self(PhantomData))
    }
}

// "Token" in the comments below: `self` is only built by `detect`, so the CPU has the instruction.
impl<L: Level> Simd for Avx2<L> {
    const LANES: usize = 8;
    const MR: usize = 6;
    const MR_I8: usize = L::MR_I8;
    const PASS_WORDS: usize = 256;
    const LINES_AHEAD: usize = 1;
    const I8_OFFSET: i32 = if matches!(L::DOT, Dot::Signs) { 0 } else { 128 };
    type F32 = __m256;
    type Words = __m256i;
    type Base = Avx2<Base>;

    #[inline(always)]
    fn base(self) -> Self::Base {
        Avx2(PhantomData)
    }

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
    fn scale(self, v: Self::F32, n: Self::F32) -> Self::F32 {
        // SAFETY: token.
        unsafe {
            let shifted = _mm256_slli_epi32::<23>(_mm256_castps_si256(n));
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
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
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
    /// Without VNNI products of pairs fit 16 bits only with signed activations: `|b| (a sign(b))`, at most 2 * 127^2.
    #[inline(always)]
    fn dot_i8(self, sum: Self::Words, a: Self::Words, b: Self::Words) -> Self::Words {
        // SAFETY: token.
        unsafe {
            match L::DOT {
                Dot::Signs => {
                    let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(b), _mm256_sign_epi8(a, b));
                    _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
                }
                Dot::Vnni => _mm256_dpbusd_epi32(sum, a, b),
                Dot::AvxVnni => _mm256_dpbusd_avx_epi32(sum, a, b),
            }
        }
    }
    /// The offset of 128 is a flip of the highest bit.
    #[inline(always)]
    unsafe fn store_i8(self, v: Self::F32, p: *mut u8) {
        // SAFETY: token; the caller vouches for the pointer.
        unsafe {
            let words = _mm256_cvtps_epi32(v);
            let halves = _mm_packs_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            let bytes = _mm_packs_epi16(halves, halves);
            _mm_storel_epi64(p.cast(), _mm_xor_si128(bytes, _mm_set1_epi8(Self::I8_OFFSET as i8)));
        }
    }
    #[inline(always)]
    fn butterfly<const D: usize>(self, v: Self::F32) -> Self::F32 {
        // SAFETY: token; the constant has 16 values.
        unsafe {
            let other = match D {
                1 => _mm256_permute_ps::<0b10_11_00_01>(v),
                2 => _mm256_permute_ps::<0b01_00_11_10>(v),
                4 => _mm256_permute2f128_ps::<1>(v, v),
                _ => unreachable!("lanes {D} apart"),
            };
            _mm256_fmadd_ps(v, _mm256_loadu_ps(const { butterfly_signs::<D>() }.as_ptr()), other)
        }
    }
    #[inline]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        L::enter(self, kernel)
    }
}
