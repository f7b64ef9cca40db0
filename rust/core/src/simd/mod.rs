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
    /// Rows of the largest tile of int8 products, which on some sets need more registers beside the accumulators.
    const MR_I8: usize = Self::MR;
    /// What is added to int8 activations in memory: 128 where the dot product wants them unsigned, else 0.
    const I8_OFFSET: i32 = 0;
    /// Whether [`Simd::dot_bf16`] is one instruction. Elsewhere it is right, but slow.
    const NATIVE_BF16: bool = false;
    /// A vector of `LANES` f32.
    type F32: Copy;
    /// A vector of `LANES` words of 32 bits: an i32 each, or two bf16, or four int8.
    type Words: Copy;

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
        let (a, b) = (words(self, a), words(self, b));
        let mut out = [0.0; 16];
        self.store(sum, &mut out);
        for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
            let halves = |x: u32| (f32::from_bits(x & 0xFFFF_0000), f32::from_bits(x << 16));
            let ((a1, a0), (b1, b0)) = (halves(a), halves(b));
            *out = (a1 * b1 + *out) + a0 * b0;
        }
        self.load(&out)
    }
    /// Per word the bf16 nearest to `low` below that nearest to `high`.
    #[inline(always)]
    fn pair_bf16(self, low: Self::F32, high: Self::F32) -> Self::Words {
        let (mut lows, mut highs, mut out) = ([0.0; 16], [0.0; 16], [0; 16]);
        self.store(low, &mut lows);
        self.store(high, &mut highs);
        for ((out, low), high) in out.iter_mut().zip(lows).zip(highs) {
            *out = u32::from(half::bf16::from_f32(low).to_bits())
                | u32::from(half::bf16::from_f32(high).to_bits()) << 16;
        }
        // SAFETY: the array holds `LANES` words.
        unsafe { self.load_words(out.as_ptr()) }
    }
    /// Write the lanes as bf16, rounded to the nearest, ties to even.
    ///
    /// # Safety
    /// `p` is valid for writing `LANES` values; it need not be aligned beyond u16.
    #[inline(always)]
    unsafe fn store_bf16(self, v: Self::F32, p: *mut u16) {
        let mut values = [0.0; 16];
        self.store(v, &mut values);
        for (i, x) in values.iter().enumerate().take(Self::LANES) {
            // SAFETY: the caller's contract.
            unsafe { p.add(i).write_unaligned(half::bf16::from_f32(*x).to_bits()) };
        }
    }
    /// Write the lanes, which are in [-127, 127], as int8, rounded to the nearest, ties to even, plus `I8_OFFSET`.
    ///
    /// # Safety
    /// `p` is valid for writing `LANES` values.
    #[inline(always)]
    unsafe fn store_i8(self, v: Self::F32, p: *mut u8) {
        let mut values = [0.0; 16];
        self.store(v, &mut values);
        for (i, x) in values.iter().enumerate().take(Self::LANES) {
            // SAFETY: the caller's contract.
            unsafe { p.add(i).write((x.round_ties_even() as i32 + Self::I8_OFFSET) as u8) };
        }
    }
    /// Sums and differences of lanes `D` apart, a power of two below `LANES`: lane `i` without the bit `D` becomes
    /// `v[i] + v[i + D]`, and lane `i + D` becomes `v[i] - v[i + D]`.
    #[inline(always)]
    fn butterfly<const D: usize>(self, v: Self::F32) -> Self::F32 {
        let mut values = [0.0; 16];
        self.store(v, &mut values);
        let mut out = [0.0; 16];
        for (i, out) in out.iter_mut().enumerate().take(Self::LANES) {
            let (low, high) = (values[i & !D], values[i | D]);
            *out = if i & D == 0 { low + high } else { low - high };
        }
        self.load(&out)
    }
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

/// The words of a vector, zeros behind them.
#[inline(always)]
fn words<S: Simd>(s: S, v: S::Words) -> [u32; 16] {
    let mut out = [0; 16];
    // SAFETY: `LANES` is at most 16.
    unsafe { s.store_words(v, out.as_mut_ptr()) };
    out
}

/// The dot products of [`Simd::dot_i8`] in plain arithmetic.
#[inline(always)]
fn dot_i8_by_lane<S: Simd>(s: S, sum: S::Words, a: S::Words, b: S::Words) -> S::Words {
    let (mut out, a, b) = (words(s, sum), words(s, a), words(s, b));
    for ((out, a), b) in out.iter_mut().zip(a).zip(b).take(S::LANES) {
        for (a, b) in a.to_le_bytes().into_iter().zip(b.to_le_bytes()) {
            let a = if S::I8_OFFSET == 0 { i32::from(a as i8) } else { i32::from(a) };
            *out = out.wrapping_add((a * i32::from(b as i8)) as u32);
        }
    }
    // SAFETY: the array holds `LANES` words.
    unsafe { s.load_words(out.as_ptr()) }
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
            check_words(s);
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

    /// The integer and bf16 operations against plain arithmetic.
    #[inline(always)]
    fn check_words<S: Simd>(s: S) {
        let n = S::LANES;
        let load = |words: &[u32; 16]| unsafe { s.load_words(words.as_ptr()) };
        let integers: [u32; 16] = std::array::from_fn(|i| (i as i32 * 1_000_003 - 7_000_000) as u32);
        let mut floats = [0.0; 16];
        s.store(s.to_f32(load(&integers)), &mut floats);
        for i in 0..n {
            assert_eq!(floats[i], integers[i] as i32 as f32);
        }
        assert_eq!(words(s, s.splat_word(0xDEAD_BEEF))[..n], [0xDEAD_BEEF; 16][..n]);
        // Every product of extremes and some in between, of both signs.
        let values = [-127i32, -126, -64, -1, 0, 1, 2, 63, 126, 127];
        let word = |bytes: [i32; 4], offset: i32| u32::from_le_bytes(bytes.map(|x| (x + offset) as u8));
        for shift in 0..10 {
            let pick = |i: usize, j: usize, by: usize| values[(i * by + j * shift + i) % 10];
            let a: [[i32; 4]; 16] = std::array::from_fn(|i| std::array::from_fn(|j| pick(i, j, 3)));
            let b: [[i32; 4]; 16] = std::array::from_fn(|i| std::array::from_fn(|j| pick(i + shift, j, 7)));
            for (a, b) in
                [(a, b), (a, a), ([[127; 4]; 16], [[-127; 4]; 16]), ([[127; 4]; 16], [[127; 4]; 16])]
            {
                let sums = s.dot_i8(
                    load(&integers),
                    load(&a.map(|bytes| word(bytes, S::I8_OFFSET))),
                    load(&b.map(|bytes| word(bytes, 0))),
                );
                for (i, got) in words(s, sums).into_iter().enumerate().take(n) {
                    let product = |offset: i32| (0..4).map(|j| (a[i][j] + offset) * b[i][j]).sum::<i32>();
                    assert_eq!(
                        got as i32,
                        integers[i] as i32 + product(S::I8_OFFSET),
                        "dot_i8, lane {i} of {n}"
                    );
                }
            }
        }
        let x: [f32; 16] = std::array::from_fn(|i| (i as f32 - 7.3) * 16.7);
        let y: [f32; 16] = std::array::from_fn(|i| 1.0 / (i as f32 - 3.3));
        let mut bytes = [0u8; 17];
        // SAFETY: room for 16 lanes at most.
        unsafe { s.store_i8(s.load(&x), bytes.as_mut_ptr()) };
        for i in 0..n {
            assert_eq!(i32::from(bytes[i]), (x[i].round_ties_even() as i32 + S::I8_OFFSET) & 255);
        }
        assert_eq!(bytes[n], 0, "store_i8 writes beside its lanes");
        for (ties, want) in [([0.5f32; 16], 0), ([1.5; 16], 2), ([-127.0; 16], -127), ([-2.5; 16], -2)] {
            // SAFETY: as above.
            unsafe { s.store_i8(s.load(&ties), bytes.as_mut_ptr()) };
            assert_eq!(i32::from(bytes[0]), (want + S::I8_OFFSET) & 255);
        }
        let bf16 = |x: f32| u32::from(half::bf16::from_f32(x).to_bits());
        let mut halves = [0u16; 17];
        // SAFETY: room for 16 lanes at most.
        unsafe { s.store_bf16(s.load(&x), halves.as_mut_ptr()) };
        let pairs = words(s, s.pair_bf16(s.load(&x), s.load(&y)));
        for i in 0..n {
            assert_eq!(u32::from(halves[i]), bf16(x[i]));
            assert_eq!(pairs[i], bf16(x[i]) | bf16(y[i]) << 16);
        }
        assert_eq!(halves[n], 0, "store_bf16 writes beside its lanes");
        let a: [u32; 16] = std::array::from_fn(|i| bf16(x[i]) | bf16(y[i]) << 16);
        let b: [u32; 16] = std::array::from_fn(|i| bf16(y[i]) | bf16(x[(i + 1) % n]) << 16);
        let mut sums = [0.0; 16];
        s.store(s.dot_bf16(s.load(&y), load(&a), load(&b)), &mut sums);
        for i in 0..n {
            let value = |bits: u32| f64::from(f32::from_bits(bits << 16));
            let parts = |x: u32| (value(x & 0xFFFF), value(x >> 16));
            let ((a0, a1), (b0, b1)) = (parts(a[i]), parts(b[i]));
            let want = f64::from(y[i]) + a0 * b0 + a1 * b1;
            let size = f64::from(y[i]).abs() + (a0 * b0).abs() + (a1 * b1).abs();
            assert!((f64::from(sums[i]) - want).abs() <= 3e-7 * size, "dot_bf16, lane {i} of {n}");
        }
        let check = |d: usize, v: S::F32| {
            let mut got = [0.0; 16];
            s.store(v, &mut got);
            for i in 0..n {
                let (low, high) = (x[i & !d], x[i | d]);
                assert_eq!(
                    got[i],
                    if i & d == 0 { low + high } else { low - high },
                    "butterfly {d}, lane {i}"
                );
            }
        };
        check(1, s.butterfly::<1>(s.load(&x)));
        check(2, s.butterfly::<2>(s.load(&x)));
        if n > 4 {
            check(4, s.butterfly::<4>(s.load(&x)));
        }
        if n > 8 {
            check(8, s.butterfly::<8>(s.load(&x)));
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
