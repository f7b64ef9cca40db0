//! The only place that names `std::arch`: vectors of f32 as a trait, instruction sets as values.
//!
//! An implementor of [`Simd`] is a zero-sized token that only `detect()` can build, so that holding one proves
//! that the CPU has the instructions. [`Isa`] carries the token; [`Isa::run`] enters one `#[target_feature]`
//! function per instruction set, and everything below it is `#[inline(always)]` code written once.

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

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
#[cfg(target_arch = "aarch64")]
pub use neon::Neon;
pub use scalar::Scalar;

use crate::{Error, Result};

/// Vector operations of one instruction set. Every method is lane by lane unless it says otherwise.
///
/// Implementors live in this module only. All methods are inlined into the caller, which must itself have been
/// entered through [`Isa::run`]; otherwise they are correct, but slow.
pub trait Simd: Copy + Send + Sync + 'static {
    /// Lanes of a vector; divides 16.
    const LANES: usize;
    /// Rows of the largest GEMM tile: `MR x (2 * LANES)` accumulators fit the register file.
    const MR: usize;
    /// A vector of `LANES` f32.
    type F32: Copy;

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
    /// The larger of two numbers.
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The smaller of two numbers.
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `|a|`
    fn abs(self, a: Self::F32) -> Self::F32;
    /// Keep the first `n` lanes, zero the others; `n` is at most `LANES`.
    fn first(self, v: Self::F32, n: usize) -> Self::F32;
    /// As integers, `v + (t << 23)`: multiply by two to the power of the integer in the low bits of `t`.
    fn add_exponent(self, v: Self::F32, t: Self::F32) -> Self::F32;
    /// `table[i]` for the integer `i` in the low 4 bits of each lane of `t`.
    fn lookup16(self, table: &[f32; 16], t: Self::F32) -> Self::F32;
    /// The sum over the lanes, in a fixed order.
    fn reduce_add(self, v: Self::F32) -> f32;
    /// The largest lane.
    fn reduce_max(self, v: Self::F32) -> f32;
    /// Hint that the cache line at `p` is wanted soon. Any address is allowed.
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
    /// What it returns.
    type Output;
    /// The work.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// An instruction set that this CPU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Baseline code, on every CPU.
    Scalar(Scalar),
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// AVX-512 F, BW, DQ and VL.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// Advanced SIMD.
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

impl Isa {
    /// All that this CPU has, the widest last.
    pub fn available() -> Vec<Self> {
        let mut found = vec![Self::Scalar(Scalar)];
        #[cfg(target_arch = "x86_64")]
        {
            found.extend(Avx2::detect().map(Self::Avx2));
            found.extend(Avx512::detect().map(Self::Avx512));
        }
        #[cfg(target_arch = "aarch64")]
        found.extend(Neon::detect().map(Self::Neon));
        found
    }

    /// The widest that this CPU has.
    pub fn best() -> Self {
        *Self::available().last().expect("scalar is always there")
    }

    /// The one that is asked for by name, else by the environment variable `BERTFAST_ISA`, else the widest.
    ///
    /// # Errors
    /// [`Error::Value`] if this CPU has none of that name.
    pub fn choose(name: Option<&str>) -> Result<Self> {
        let from_environment = std::env::var("BERTFAST_ISA").ok().filter(|value| !value.is_empty());
        let (origin, name) = match (name, &from_environment) {
            (Some(name), _) => ("isa", name),
            (None, Some(name)) => ("BERTFAST_ISA", name.as_str()),
            (None, None) => return Ok(Self::best()),
        };
        let available = Self::available();
        available.iter().copied().find(|isa| isa.name() == name).ok_or_else(|| {
            let names: Vec<_> = available.iter().map(|isa| isa.name()).collect();
            Error::Value(format!("{origin}: expected one of {} on this CPU, got {name:?}", names.join(", ")))
        })
    }

    /// The name used by `BERTFAST_ISA`, `isa=` and in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar(_) => "scalar",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => "neon",
        }
    }

    /// The name of its f32 kernels in logs and `info()`.
    pub fn kernel_id(self) -> String {
        format!("{}-f32-{}", std::env::consts::ARCH, self.name())
    }

    /// Run a kernel with this instruction set.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Self::Scalar(simd) => simd.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => simd.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => simd.vectorize(kernel),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(simd) => simd.vectorize(kernel),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every method against plain arithmetic, on one instruction set.
    struct CheckLanes;

    impl Kernel for CheckLanes {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            let n = S::LANES;
            let a: Vec<f32> = (0..n).map(|i| i as f32 - 3.25).collect();
            let b: Vec<f32> = (0..n).map(|i| 2.0 * i as f32 + 0.5).collect();
            let (va, vb) = (s.load(&a), s.load(&b));
            let check = |name: &str, v: S::F32, want: &dyn Fn(usize) -> f32| {
                let mut got = vec![f32::NAN; n];
                s.store(v, &mut got);
                for (i, got) in got.iter().enumerate() {
                    assert_eq!(*got, want(i), "{name}, lane {i} of {n}");
                }
            };
            check("splat", s.splat(1.5), &|_| 1.5);
            check("add", s.add(va, vb), &|i| a[i] + b[i]);
            check("sub", s.sub(va, vb), &|i| a[i] - b[i]);
            check("mul", s.mul(va, vb), &|i| a[i] * b[i]);
            check("div", s.div(va, vb), &|i| a[i] / b[i]);
            check("mul_add", s.mul_add(va, vb, va), &|i| a[i] * b[i] + a[i]);
            check("max", s.max(va, s.splat(0.0)), &|i| a[i].max(0.0));
            check("min", s.min(va, s.splat(0.0)), &|i| a[i].min(0.0));
            check("abs", s.abs(va), &|i| a[i].abs());
            for keep in 0..=n {
                check("first", s.first(va, keep), &|i| if i < keep { a[i] } else { 0.0 });
            }
            let t: Vec<f32> = (0..n).map(|i| f32::from_bits(0x4B40_0000 + i as u32)).collect();
            check("add_exponent", s.add_exponent(vb, s.load(&t)), &|i| b[i] * 2f32.powi(i as i32));
            let table: [f32; 16] = std::array::from_fn(|i| 100.0 - i as f32);
            check("lookup16", s.lookup16(&table, s.load(&t)), &|i| table[i]);
            let high: Vec<f32> = (0..n).map(|i| f32::from_bits(0x4B40_000F - i as u32)).collect();
            check("lookup16", s.lookup16(&table, s.load(&high)), &|i| table[15 - i]);
            assert_eq!(s.reduce_add(va), a.iter().sum::<f32>());
            assert_eq!(s.reduce_max(va), a[n - 1]);
            let src: Vec<f32> = (0..16 * 20).map(|i| i as f32).collect();
            let mut dst = vec![-1f32; 16 * 18];
            // SAFETY: both hold 16 rows of 16 values at their strides.
            unsafe { s.transpose16(src.as_ptr(), 20, dst.as_mut_ptr(), 18) };
            for i in 0..16 {
                for j in 0..16 {
                    assert_eq!(dst[j * 18 + i], src[i * 20 + j]);
                }
                assert_eq!(dst[i * 18 + 16..i * 18 + 18], [-1.0, -1.0], "writes beside the block");
            }
        }
    }

    #[test]
    fn every_lane_operation_on_every_isa() {
        for isa in Isa::available() {
            isa.run(CheckLanes);
        }
    }

    #[test]
    fn choose_by_name() {
        for isa in Isa::available() {
            assert_eq!(Isa::choose(Some(isa.name())).unwrap(), isa);
        }
        let message = Isa::choose(Some("mmx")).unwrap_err().to_string();
        assert!(message.contains("isa: expected one of scalar") && message.contains("\"mmx\""), "{message}");
    }
}
