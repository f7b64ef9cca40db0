//! NEON: 4 lanes, 32 registers.

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};
use std::marker::PhantomData;

use super::plain::butterfly_signs;
use super::{Kernel, Simd};

/// Proof that the CPU has Advanced SIMD, and what the level adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neon<L>(PhantomData<L>);

/// How a level multiplies int8.
pub trait Level: Copy + Send + Sync + 'static {
    /// Whether it has the dot product of int8.
    const DOTPROD: bool;
    /// Rows of the largest tile of int8 products.
    const MR_I8: usize;
    /// Whether this CPU has it.
    fn detected() -> bool;
    /// Run a kernel with its instructions enabled.
    fn enter<K: Kernel>(simd: Neon<Self>, kernel: K) -> K::Output;
}

level! {
    /// No more than that. Its dot product is four instructions with temporaries; with more rows the compiler keeps sums
    /// in memory.
    Base of Neon, is_aarch64_feature_detected!("neon");
    const DOTPROD: bool = false;
    const MR_I8: usize = 6;
}
level! {
    /// The dot product of int8.
    Dotprod of Neon, is_aarch64_feature_detected!("neon", "dotprod");
    const DOTPROD: bool = true;
    const MR_I8: usize = 12;
}

impl<L: Level> Neon<L> {
    /// The token, if the CPU supports it.
    pub fn detect() -> Option<Self> {
        L::detected().then_some(Self(PhantomData))
    }
}

/// The instruction `sdot`, whose intrinsic is not stable yet.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: works on these registers only.
    unsafe {
        asm!(
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) sum, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

// "Token" in the comments below: `self` is only built by `detect`, so the CPU has the instruction.
impl<L: Level> Simd for Neon<L> {
    const LANES: usize = 4;
    const MR: usize = 12;
    const MR_I8: usize = L::MR_I8;
    type F32 = float32x4_t;
    type Words = uint32x4_t;
    type Base = Neon<Base>;

    #[inline(always)]
    fn base(self) -> Self::Base {
        Neon(PhantomData)
    }

    lanewise! {
        add(a, b) = vaddq_f32;
        sub(a, b) = vsubq_f32;
        mul(a, b) = vmulq_f32;
        div(a, b) = vdivq_f32;
        max(a, b) = vmaxq_f32;
        min(a, b) = vminq_f32;
        abs(a) = vabsq_f32;
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F32 {
        // SAFETY: token.
        unsafe { vdupq_n_f32(x) }
    }
    #[inline(always)]
    unsafe fn load_ptr(self, p: *const f32) -> Self::F32 {
        // SAFETY: token; the caller vouches for the pointer.
        unsafe { vld1q_f32(p) }
    }
    #[inline(always)]
    unsafe fn store_ptr(self, v: Self::F32, p: *mut f32) {
        // SAFETY: token; the caller vouches for the pointer.
        unsafe { vst1q_f32(p, v) }
    }
    #[inline(always)]
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        // SAFETY: token.
        unsafe { vfmaq_f32(c, a, b) }
    }
    #[inline(always)]
    fn first(self, v: Self::F32, n: usize) -> Self::F32 {
        const LANE: [u32; 4] = [0, 1, 2, 3];
        // SAFETY: token; the constant has 4 values.
        unsafe {
            let keep = vcgtq_u32(vdupq_n_u32(n as u32), vld1q_u32(LANE.as_ptr()));
            vreinterpretq_f32_u32(vandq_u32(keep, vreinterpretq_u32_f32(v)))
        }
    }
    #[inline(always)]
    fn scale(self, v: Self::F32, n: Self::F32) -> Self::F32 {
        // SAFETY: token.
        unsafe {
            let shifted = vshlq_n_u32::<23>(vreinterpretq_u32_f32(n));
            vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(v), shifted))
        }
    }
    /// A table of 64 bytes: the four bytes of value `i` start at `4 i`.
    #[inline(always)]
    fn lookup16(self, table: &[f32; 16], t: Self::F32) -> Self::F32 {
        // SAFETY: token; the table has 64 bytes.
        unsafe {
            let bytes = vld1q_u8_x4(table.as_ptr().cast());
            let index = vandq_u32(vreinterpretq_u32_f32(t), vdupq_n_u32(15));
            let at = vaddq_u32(vmulq_n_u32(index, 0x0404_0404), vdupq_n_u32(0x0302_0100));
            vreinterpretq_f32_u8(vqtbl4q_u8(bytes, vreinterpretq_u8_u32(at)))
        }
    }
    #[inline(always)]
    fn reduce_add(self, v: Self::F32) -> f32 {
        // SAFETY: token.
        unsafe { vaddvq_f32(v) }
    }
    #[inline(always)]
    fn reduce_max(self, v: Self::F32) -> f32 {
        // SAFETY: token.
        unsafe { vmaxvq_f32(v) }
    }
    #[inline(always)]
    fn splat_word(self, x: u32) -> Self::Words {
        // SAFETY: token.
        unsafe { vdupq_n_u32(x) }
    }
    #[inline(always)]
    unsafe fn load_words(self, p: *const u32) -> Self::Words {
        // SAFETY: token; the caller vouches for the pointer.
        unsafe { vld1q_u32(p) }
    }
    #[inline(always)]
    unsafe fn store_words(self, v: Self::Words, p: *mut u32) {
        // SAFETY: token; the caller vouches for the pointer.
        unsafe { vst1q_u32(p, v) }
    }
    #[inline(always)]
    fn to_f32(self, v: Self::Words) -> Self::F32 {
        // SAFETY: token.
        unsafe { vcvtq_f32_s32(vreinterpretq_s32_u32(v)) }
    }
    /// Without `sdot` by products of 16 bits, of which two fit a sum: at most 2 * 127^2.
    #[inline(always)]
    fn dot_i8(self, sum: Self::Words, a: Self::Words, b: Self::Words) -> Self::Words {
        // SAFETY: token.
        unsafe {
            let sum = vreinterpretq_s32_u32(sum);
            let (a, b) = (vreinterpretq_s8_u32(a), vreinterpretq_s8_u32(b));
            vreinterpretq_u32_s32(if L::DOTPROD {
                sdot(sum, a, b)
            } else {
                let low = vmull_s8(vget_low_s8(a), vget_low_s8(b));
                vpadalq_s16(sum, vpaddq_s16(low, vmull_high_s8(a, b)))
            })
        }
    }
    #[inline(always)]
    unsafe fn store_i8(self, v: Self::F32, p: *mut u8) {
        // SAFETY: token; the caller vouches for the pointer.
        unsafe {
            let halves = vmovn_s32(vcvtnq_s32_f32(v));
            let bytes = vmovn_s16(vcombine_s16(halves, halves));
            p.cast::<u32>().write_unaligned(vget_lane_u32::<0>(vreinterpret_u32_s8(bytes)));
        }
    }
    #[inline(always)]
    fn butterfly<const D: usize>(self, v: Self::F32) -> Self::F32 {
        // SAFETY: token; the constant has 16 values.
        unsafe {
            let other = match D {
                1 => vrev64q_f32(v),
                2 => vextq_f32::<2>(v, v),
                _ => unreachable!("lanes {D} apart"),
            };
            vfmaq_f32(other, v, vld1q_f32(const { butterfly_signs::<D>() }.as_ptr()))
        }
    }
    #[inline]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        L::enter(self, kernel)
    }
}
