//! The only place that names `std::arch`: vectors of f32 as a trait, instruction sets as values.
//!
//! An implementor of [`Simd`] is a zero-sized token that only `detect()` can build, so that holding one proves
//! that the CPU has the instructions. [`Isa`] carries the token; [`Isa::run`] enters one `#[target_feature]`
//! function per instruction set, and everything below it is `#[inline(always)]` code written once.
//!
//! A register width has *levels*, which differ in the products of int8 and of bf16 only. Its token has the level as a
//! parameter (`Avx512<Vnni>`), its operations on f32 are written once.

/// Methods that are one instruction of the set whose token `self` is.
macro_rules! lanewise {
    ($($name:ident($($arg:ident),+) = $instruction:ident;)+) => {$(
        #[inline(always)]
        fn $name(self, $($arg: Self::F32),+) -> Self::F32 {
            // SAFETY: `self` is only built by `detect`, so the CPU has the instruction.
            unsafe { $instruction($($arg),+) }
        }
    )+};
}

/// One level of the token `$token`: a marker, and the one list of features that is both detected and enabled.
macro_rules! level {
    (
        $(#[$doc:meta])*
        $marker:ident of $token:ident, $detected:ident!($($feature:tt),+);
        $(const $constant:ident: $type:ty = $value:expr;)*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $marker;

        impl Level for $marker {
            $(const $constant: $type = $value;)*

            fn detected() -> bool {
                $($detected!($feature))&&+
            }
            #[inline]
            fn enter<K: Kernel>(simd: $token<Self>, kernel: K) -> K::Output {
                $(#[target_feature(enable = $feature)])+
                fn inner<K: Kernel>(simd: $token<$marker>, kernel: K) -> K::Output {
                    kernel.run(simd)
                }
                // SAFETY: the token is only built if `detected` found all these features.
                unsafe { inner(simd, kernel) }
            }
        }
    };
}

mod ascii;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod isa;
#[cfg(target_arch = "aarch64")]
mod neon;
mod plain;
mod scalar;

pub use ascii::Ascii;
#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
pub use isa::Isa;
#[cfg(target_arch = "aarch64")]
pub use neon::Neon;
pub use scalar::Scalar;

/// Asks for the first cache line of `value` to be brought near, where the CPU has an instruction for it.
#[inline(always)]
pub fn prefetch<T: ?Sized>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

/// Adding and subtracting this rounds an f32 below 2^22 to the nearest integer and leaves it in the low bits.
pub const ROUND: f32 = 12_582_912.0;

/// Vector operations of one instruction set. Every method is lane by lane unless it says otherwise.
///
/// Implementors live in this module only. All methods are inlined into the caller, which must itself have been
/// entered through [`Isa::run`]; otherwise they are correct, but slow.
pub trait Simd: Copy + Send + Sync + 'static {
    /// Lanes of a vector; divides 16.
    const LANES: usize;
    /// Rows of the largest GEMM tile: `MR x (2 * LANES)` accumulators fit the register file.
    const MR: usize;
    /// Rows of the largest tile of int8 products, which on some sets need more registers beside the accumulators.
    const MR_I8: usize = Self::MR;
    /// Words of K in one pass of a product over the weight, at most: long sums would not leave room in the caches for what a
    /// pass reuses. A multiple of a partial sum.
    const PASS_WORDS: usize = 1024;
    /// Cache lines of what is wanted next that a tile asks for in four steps of a product, if [`Simd::prefetch`] does
    /// anything. At eight the first tile of a panel brings the next panel; fewer leave it to the first few tiles, so that
    /// waiting for memory and computing overlap, and the loads of a narrow tile have room.
    const LINES_AHEAD: usize = 8;
    /// What is added to int8 activations in memory: 128 where the dot product wants them unsigned, else 0.
    const I8_OFFSET: i32 = 0;
    /// Whether [`Simd::dot_bf16`] is one instruction. Elsewhere it is right, but slow.
    const NATIVE_BF16: bool = false;
    /// A vector of `LANES` f32.
    type F32: Copy;
    /// A vector of `LANES` words of 32 bits: an i32 each, or two bf16, or four int8.
    type Words: Copy;
    /// The lowest level of the same width, whose operations on f32 are the same.
    type Base: Simd;

    /// The token of the lowest level.
    fn base(self) -> Self::Base;

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::F32;
    /// The first `LANES` values of `xs`. Panics if there are fewer.
    #[inline(always)]
    fn load(self, xs: &[f32]) -> Self::F32 {
        let xs = &xs[..Self::LANES];
        // SAFETY: the slice holds `LANES` values.
        unsafe { self.load_ptr(xs.as_ptr()) }
    }
    /// Write the lanes to the first `LANES` values of `xs`. Panics if there are fewer.
    #[inline(always)]
    fn store(self, v: Self::F32, xs: &mut [f32]) {
        let xs = &mut xs[..Self::LANES];
        // SAFETY: the slice holds `LANES` values.
        unsafe { self.store_ptr(v, xs.as_mut_ptr()) }
    }
    /// Read `LANES` values.
    ///
    /// # Safety
    /// `p` is valid for reading `LANES` values; it need not be aligned beyond f32.
    unsafe fn load_ptr(self, p: *const f32) -> Self::F32;
    /// Write `LANES` values.
    ///
    /// # Safety
    /// `p` is valid for writing `LANES` values; it need not be aligned beyond f32.
    unsafe fn store_ptr(self, v: Self::F32, p: *mut f32);

    /// `a + b`
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a - b`
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b`
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a / b`
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b + c`, rounded once where the instruction set can.
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// The larger of two numbers; no number if `b` is none.
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The smaller of two numbers; no number if `b` is none.
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `|a|`
    fn abs(self, a: Self::F32) -> Self::F32;
    /// Keep the first `n` lanes, zero the others; `n` is at most `LANES`.
    fn first(self, v: Self::F32, n: usize) -> Self::F32;
    /// `x` as `f + n` with the nearest integer `n`: `f`, and `n` as [`Simd::scale`] takes it. Here `x` counts as in
    /// [-126, 126], and `n` is in the low bits.
    #[inline(always)]
    fn split_exponent(self, x: Self::F32) -> (Self::F32, Self::F32) {
        let x = self.min(self.splat(126.0), self.max(self.splat(-126.0), x));
        let t = self.add(x, self.splat(ROUND));
        (self.sub(x, self.sub(t, self.splat(ROUND))), t)
    }
    /// `v * 2^n` for the `n` of [`Simd::split_exponent`].
    fn scale(self, v: Self::F32, n: Self::F32) -> Self::F32;
    /// `table[i]` for the integer `i` in the low 4 bits of each lane of `t`.
    fn lookup16(self, table: &[f32; 16], t: Self::F32) -> Self::F32;
    /// The sum over the lanes, in a fixed order.
    fn reduce_add(self, v: Self::F32) -> f32;
    /// The largest lane.
    fn reduce_max(self, v: Self::F32) -> f32;
    /// All words `x`.
    fn splat_word(self, x: u32) -> Self::Words;
    /// Read `LANES` words.
    ///
    /// # Safety
    /// `p` is valid for reading `LANES` words; it need not be aligned beyond u32.
    unsafe fn load_words(self, p: *const u32) -> Self::Words;
    /// Write `LANES` words.
    ///
    /// # Safety
    /// `p` is valid for writing `LANES` words; it need not be aligned beyond u32.
    unsafe fn store_words(self, v: Self::Words, p: *mut u32);
    /// The words as i32, converted.
    fn to_f32(self, v: Self::Words) -> Self::F32;
    /// `sum + a[0] b[0] + a[1] b[1] + a[2] b[2] + a[3] b[3]` per word, exact. `b` are weights in -127..=127, `a`
    /// activations in -127..=127 plus `I8_OFFSET`.
    fn dot_i8(self, sum: Self::Words, a: Self::Words, b: Self::Words) -> Self::Words;
    /// `sum + a[0] b[0] + a[1] b[1]` per word of two bf16, in f32.
    #[inline(always)]
    fn dot_bf16(self, sum: Self::F32, a: Self::Words, b: Self::Words) -> Self::F32 {
        plain::dot_bf16(self, sum, a, b)
    }
    /// Per word the bf16 nearest to `low` below that nearest to `high`.
    #[inline(always)]
    fn pair_bf16(self, low: Self::F32, high: Self::F32) -> Self::Words {
        plain::pair_bf16(self, low, high)
    }
    /// Write the lanes as bf16, rounded to the nearest, ties to even.
    ///
    /// # Safety
    /// `p` is valid for writing `LANES` values; it need not be aligned beyond u16.
    #[inline(always)]
    unsafe fn store_bf16(self, v: Self::F32, p: *mut u16) {
        // SAFETY: the caller's contract.
        unsafe { plain::store_bf16(self, v, p) };
    }
    /// Write the lanes, which are in [-127, 127], as int8, rounded to the nearest, ties to even, plus `I8_OFFSET`.
    ///
    /// # Safety
    /// `p` is valid for writing `LANES` values.
    unsafe fn store_i8(self, v: Self::F32, p: *mut u8);
    /// Sums and differences of lanes `D` apart, a power of two below `LANES`: lane `i` without the bit `D` becomes
    /// `v[i] + v[i + D]`, and lane `i + D` becomes `v[i] - v[i + D]`.
    fn butterfly<const D: usize>(self, v: Self::F32) -> Self::F32;
    /// Hint that the cache line at `p` will be wanted in the second-level cache. Any address is allowed.
    #[inline(always)]
    fn prefetch(self, _p: *const f32) {}
    /// `dst[j][i] = src[i][j]` for a block of 16 x 16 values with the given distances between rows.
    ///
    /// # Safety
    /// `src` is valid for reading and `dst` for writing 16 rows of 16 values.
    #[inline(always)]
    unsafe fn transpose16(self, src: *const f32, src_stride: usize, dst: *mut f32, dst_stride: usize) {
        for i in 0..16 {
            for j in 0..16 {
                // SAFETY: inside the blocks that the caller vouches for.
                unsafe { *dst.add(j * dst_stride + i) = *src.add(i * src_stride + j) };
            }
        }
    }
    /// Run a kernel with these instructions enabled.
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output;
}

/// A piece of work that is compiled once per instruction set. Its `run` must be `#[inline(always)]`.
pub trait Kernel {
    /// Whether it uses no products of int8 or bf16. It is then compiled once per register width, not once per level.
    const F32_ONLY: bool = false;
    /// What it returns.
    type Output;
    /// The work.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

#[cfg(test)]
mod tests;
