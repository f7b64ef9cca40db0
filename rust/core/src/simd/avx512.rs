//! AVX-512: 16 lanes, 32 registers.

use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::mem::transmute;

use super::plain::{self, butterfly_signs};
use super::{Kernel, Simd};

/// Proof that the CPU has AVX-512 F, BW, DQ and VL (and AVX2 and FMA with them), and what the level adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx512<L>(PhantomData<L>);

/// How a level multiplies int8 and bf16.
pub trait Level: Copy + Send + Sync + 'static {
    /// Whether it has the dot product of int8, which wants unsigned activations.
    const VNNI: bool = false;
    /// Whether it has the dot product of bf16 and the rounding to it.
    const BF16: bool = false;
    /// Whether this CPU has it.
    fn detected() -> bool;
    /// Run a kernel with its instructions enabled.
    fn enter<K: Kernel>(simd: Avx512<Self>, kernel: K) -> K::Output;
}

level! {
    /// No more than that.
    Base of Avx512,
    is_x86_feature_detected!("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx2", "fma");
}
level! {
    /// VNNI.
    Vnni of Avx512,
    is_x86_feature_detected!("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx2", "fma", "avx512vnni");
    const VNNI: bool = true;
}
level! {
    /// VNNI and BF16.
    Bf16 of Avx512,
    is_x86_feature_detected!(
        "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx2", "fma", "avx512vnni", "avx512bf16"
    );
    const VNNI: bool = true;
    const BF16: bool = true;
}

impl<L: Level> Avx512<L> {
    /// The token, if the CPU and the operating system support it.
    pub fn detect() -> Option<Self> {
        L::detected().then_some(Self(PhantomData))
    }
}

// "Token" in the comments below: `self` is only built by `detect`, so the CPU has the instruction.
impl<L: Level> Simd for Avx512<L> {
    const LANES: usize = 16;
    const MR: usize = 12;
    const I8_OFFSET: i32 = if L::VNNI { 128 } else { 0 };
    const NATIVE_BF16: bool = L::BF16;
    type F32 = __m512;
    type Words = __m512i;
    type Base = Avx512<Base>;

    #[inline(always)]
    fn base(self) -> Self::Base {
        Avx512(PhantomData)
    }

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
    /// The next one saturates by itself: nothing needs to be cut off here.
    #[inline(always)]
    fn split_exponent(self, x: Self::F32) -> (Self::F32, Self::F32) {
        // SAFETY: token.
        let n = unsafe { _mm512_roundscale_ps::<_MM_FROUND_TO_NEAREST_INT>(x) };
        (self.sub(x, n), n)
    }
    #[inline(always)]
    fn scale(self, v: Self::F32, n: Self::F32) -> Self::F32 {
        // SAFETY: token.
        unsafe { _mm512_scalef_ps(v, n) }
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
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
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
    /// Without VNNI products of pairs fit 16 bits only with signed activations: `|b| (a sign(b))`, at most 2 * 127^2.
    #[inline(always)]
    fn dot_i8(self, sum: Self::Words, a: Self::Words, b: Self::Words) -> Self::Words {
        // SAFETY: token.
        unsafe {
            if L::VNNI {
                return _mm512_dpbusd_epi32(sum, a, b);
            }
            let a = _mm512_mask_sub_epi8(a, _mm512_movepi8_mask(b), _mm512_setzero_si512(), a);
            let pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(b), a);
            _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
        }
    }
    #[inline(always)]
    fn dot_bf16(self, sum: Self::F32, a: Self::Words, b: Self::Words) -> Self::F32 {
        if !L::BF16 {
            return plain::dot_bf16(self, sum, a, b);
        }
        // SAFETY: token; both types are 512 bits without any meaning of their own.
        unsafe { _mm512_dpbf16_ps(sum, transmute::<__m512i, __m512bh>(a), transmute::<__m512i, __m512bh>(b)) }
    }
    /// All of `low` before all of `high`, then one of each in turn.
    #[inline(always)]
    fn pair_bf16(self, low: Self::F32, high: Self::F32) -> Self::Words {
        const IN_TURN: [u16; 32] = {
            let mut index = [0; 32];
            let mut i = 0;
            while i < 32 {
                index[i] = (i / 2 + i % 2 * 16) as u16;
                i += 1;
            }
            index
        };
        if !L::BF16 {
            return plain::pair_bf16(self, low, high);
        }
        // SAFETY: token; the constant has 64 bytes.
        unsafe {
            let both = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
            _mm512_permutexvar_epi16(_mm512_loadu_si512(IN_TURN.as_ptr().cast()), both)
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, v: Self::F32, p: *mut u16) {
        // SAFETY: token; the caller vouches for the pointer.
        unsafe {
            if L::BF16 {
                _mm256_storeu_si256(p.cast(), transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(v)));
            } else {
                plain::store_bf16(self, v, p);
            }
        }
    }
    /// The offset of 128 is a flip of the highest bit.
    #[inline(always)]
    unsafe fn store_i8(self, v: Self::F32, p: *mut u8) {
        // SAFETY: token; the caller vouches for the pointer.
        unsafe {
            let bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v));
            _mm_storeu_si128(p.cast(), _mm_xor_si128(bytes, _mm_set1_epi8(Self::I8_OFFSET as i8)));
        }
    }
    #[inline(always)]
    fn butterfly<const D: usize>(self, v: Self::F32) -> Self::F32 {
        // SAFETY: token; the constant has 16 values.
        unsafe {
            let other = match D {
                1 => _mm512_permute_ps::<0b10_11_00_01>(v),
                2 => _mm512_permute_ps::<0b01_00_11_10>(v),
                4 => _mm512_shuffle_f32x4::<0b10_11_00_01>(v, v),
                8 => _mm512_shuffle_f32x4::<0b01_00_11_10>(v, v),
                _ => unreachable!("lanes {D} apart"),
            };
            _mm512_fmadd_ps(v, _mm512_loadu_ps(const { butterfly_signs::<D>() }.as_ptr()), other)
        }
    }
    #[inline]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        L::enter(self, kernel)
    }
}
