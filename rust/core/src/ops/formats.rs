//! What the 4-byte words of a product's operands hold: one f32, two bf16 or four int8.
//!
//! In all three a panel is 32 words wide, `[columns / 32][k / values per word][32]`, and a step of a product broadcasts
//! one word of the left operand and multiplies it with 32 words of the right one. So layouts, tiles and blocking are
//! the same for all; a format says what a word means and how two of them are multiplied.

use std::marker::PhantomData;

use crate::simd::{Isa, Simd};
use crate::{Error, Result};

/// The type of a product's operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// Single precision.
    Float32,
    /// The upper half of a single: 8 bits of significand. Sums are f32.
    BFloat16,
    /// Weights with a scale per output column, activations with a scale per row. Sums are exact i32.
    Int8,
}

impl Dtype {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Float32, Self::BFloat16, Self::Int8];

    /// The name that numpy and torch use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::BFloat16 => "bfloat16",
            Self::Int8 => "int8",
        }
    }

    /// The type of a name.
    ///
    /// # Errors
    /// [`Error::Value`] listing the known names.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|dtype| dtype.name()).collect();
            Error::Value(format!("dtype: expected one of {}, got {name:?}", known.join(", ")))
        })
    }

    /// Whether this instruction set multiplies it natively: float32 and int8 run everywhere.
    pub fn runs_on(self, isa: Isa) -> bool {
        self != Self::BFloat16 || isa.has_bf16()
    }

    /// Values in a word of 4 bytes.
    pub const fn per_word(self) -> usize {
        match self {
            Self::Float32 => 1,
            Self::BFloat16 => 2,
            Self::Int8 => 4,
        }
    }

    /// Words that hold `columns` columns, which are a multiple of 32.
    pub const fn words(self, columns: usize) -> usize {
        columns / self.per_word()
    }
}

/// A [`Dtype`] as a type, for kernels.
pub(crate) trait Format: 'static {
    /// Whether it is only f32 arithmetic, which the levels of an instruction set have in common.
    const F32_ONLY: bool = false;
    /// How many panels of words one accumulator sums before it is added to the tile.
    const PARTIAL: usize;
    /// A vector of words.
    type Words<S: Simd>: Copy;
    /// A vector of sums.
    type Sums<S: Simd>: Copy;

    /// Whether rows and columns have scales.
    const SCALED: bool = false;

    /// Whether the instruction set has it.
    fn runs_on<S: Simd>() -> bool {
        true
    }
    /// Rows of the largest tile.
    fn rows<S: Simd>() -> usize {
        S::MR
    }
    /// One word, in all lanes.
    ///
    /// # Safety
    /// `p` is readable.
    unsafe fn splat<S: Simd>(s: S, p: *const f32) -> Self::Words<S>;
    /// `LANES` words.
    ///
    /// # Safety
    /// `p` is readable for them.
    unsafe fn load<S: Simd>(s: S, p: *const f32) -> Self::Words<S>;
    /// What sums begin with, given what the weight says of these columns.
    ///
    /// # Safety
    /// `p` is readable for `LANES` words if the format is int8.
    unsafe fn start<S: Simd>(s: S, p: *const f32) -> Self::Sums<S>;
    /// `sum + a b`
    fn dot<S: Simd>(s: S, a: Self::Words<S>, b: Self::Words<S>, sum: Self::Sums<S>) -> Self::Sums<S>;
    /// Write partial sums.
    ///
    /// # Safety
    /// `p` is writable for `LANES` words.
    unsafe fn store<S: Simd>(s: S, sums: Self::Sums<S>, p: *mut f32);
    /// Partial sums that were written, plus the next ones.
    ///
    /// # Safety
    /// `p` is readable for `LANES` words.
    unsafe fn add<S: Simd>(s: S, p: *const f32, sums: Self::Sums<S>) -> Self::Sums<S>;
    /// Sums as numbers: times the scales of row and column, if they have any, plus the bias.
    fn finish<S: Simd>(s: S, sums: Self::Sums<S>, row: S::F32, column: S::F32, bias: S::F32) -> S::F32;
}

/// [`Dtype::Float32`]
pub(crate) struct Float32;
/// [`Dtype::BFloat16`]
pub(crate) struct BFloat16;
/// [`Dtype::Int8`]
pub(crate) struct Int8;

/// Work whose products are in a format.
pub(crate) struct InFormat<W, F> {
    /// The work.
    pub work: W,
    format: PhantomData<F>,
}

impl<W, F> InFormat<W, F> {
    /// The format is in the type.
    pub fn new(work: W) -> Self {
        Self { work, format: PhantomData }
    }
}

/// Panels of words in a partial sum of floats: a sum of n terms rounds by about sqrt(n / 2) units in the last place,
/// so 3072 = 12 x 256 terms round by 12 units, not by 39.
const PARTIAL: usize = 8;

// SAFETY of the blocks below: the callers' contracts.
impl Format for Float32 {
    const F32_ONLY: bool = true;
    const PARTIAL: usize = PARTIAL;
    type Words<S: Simd> = S::F32;
    type Sums<S: Simd> = S::F32;

    #[inline(always)]
    unsafe fn splat<S: Simd>(s: S, p: *const f32) -> S::F32 {
        // SAFETY: see above.
        s.splat(unsafe { *p })
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const f32) -> S::F32 {
        // SAFETY: see above.
        unsafe { s.load_ptr(p) }
    }
    #[inline(always)]
    unsafe fn start<S: Simd>(s: S, _p: *const f32) -> S::F32 {
        s.splat(0.0)
    }
    #[inline(always)]
    fn dot<S: Simd>(s: S, a: S::F32, b: S::F32, sum: S::F32) -> S::F32 {
        s.mul_add(a, b, sum)
    }
    #[inline(always)]
    unsafe fn store<S: Simd>(s: S, sums: S::F32, p: *mut f32) {
        // SAFETY: see above.
        unsafe { s.store_ptr(sums, p) }
    }
    #[inline(always)]
    unsafe fn add<S: Simd>(s: S, p: *const f32, sums: S::F32) -> S::F32 {
        // SAFETY: see above.
        s.add(unsafe { s.load_ptr(p) }, sums)
    }
    #[inline(always)]
    fn finish<S: Simd>(s: S, sums: S::F32, _row: S::F32, _column: S::F32, bias: S::F32) -> S::F32 {
        s.add(sums, bias)
    }
}

impl Format for BFloat16 {
    const PARTIAL: usize = PARTIAL;
    type Words<S: Simd> = S::Words;
    type Sums<S: Simd> = S::F32;

    fn runs_on<S: Simd>() -> bool {
        S::NATIVE_BF16
    }

    #[inline(always)]
    unsafe fn splat<S: Simd>(s: S, p: *const f32) -> S::Words {
        // SAFETY: see above.
        s.splat_word(unsafe { *p.cast() })
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const f32) -> S::Words {
        // SAFETY: see above.
        unsafe { s.load_words(p.cast()) }
    }
    #[inline(always)]
    unsafe fn start<S: Simd>(s: S, _p: *const f32) -> S::F32 {
        s.splat(0.0)
    }
    #[inline(always)]
    fn dot<S: Simd>(s: S, a: S::Words, b: S::Words, sum: S::F32) -> S::F32 {
        s.dot_bf16(sum, a, b)
    }
    #[inline(always)]
    unsafe fn store<S: Simd>(s: S, sums: S::F32, p: *mut f32) {
        // SAFETY: see above.
        unsafe { Float32::store(s, sums, p) }
    }
    #[inline(always)]
    unsafe fn add<S: Simd>(s: S, p: *const f32, sums: S::F32) -> S::F32 {
        // SAFETY: see above.
        unsafe { Float32::add(s, p, sums) }
    }
    #[inline(always)]
    fn finish<S: Simd>(s: S, sums: S::F32, row: S::F32, column: S::F32, bias: S::F32) -> S::F32 {
        Float32::finish(s, sums, row, column, bias)
    }
}

impl Format for Int8 {
    /// Exact sums need no cutting; one tile must hold them all.
    const PARTIAL: usize = usize::MAX;
    const SCALED: bool = true;
    type Words<S: Simd> = S::Words;
    type Sums<S: Simd> = S::Words;

    fn rows<S: Simd>() -> usize {
        S::MR_I8
    }
    #[inline(always)]
    unsafe fn splat<S: Simd>(s: S, p: *const f32) -> S::Words {
        // SAFETY: see above.
        unsafe { BFloat16::splat(s, p) }
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const f32) -> S::Words {
        // SAFETY: see above.
        unsafe { BFloat16::load(s, p) }
    }
    #[inline(always)]
    unsafe fn start<S: Simd>(s: S, p: *const f32) -> S::Words {
        // SAFETY: see above.
        if S::I8_OFFSET == 0 { s.splat_word(0) } else { unsafe { s.load_words(p.cast()) } }
    }
    #[inline(always)]
    fn dot<S: Simd>(s: S, a: S::Words, b: S::Words, sum: S::Words) -> S::Words {
        s.dot_i8(sum, a, b)
    }
    #[inline(always)]
    unsafe fn store<S: Simd>(s: S, sums: S::Words, p: *mut f32) {
        // SAFETY: see above.
        unsafe { s.store_words(sums, p.cast()) }
    }
    #[inline(always)]
    unsafe fn add<S: Simd>(_s: S, _p: *const f32, _sums: S::Words) -> S::Words {
        unreachable!("one tile holds whole sums")
    }
    #[inline(always)]
    fn finish<S: Simd>(s: S, sums: S::Words, row: S::F32, column: S::F32, bias: S::F32) -> S::F32 {
        s.mul_add(s.mul(s.to_f32(sums), row), column, bias)
    }
}
