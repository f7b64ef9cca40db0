//! Rows of f32 as left operands of bf16 and int8 products.
//!
//! int8 rows get a scale each, their largest magnitude over 127, after a rotation: blocks of up to 128 columns are
//! multiplied with a Hadamard matrix, which spreads outliers over the block, so that a few large columns no longer
//! cost all others their precision. The weight has the inverse folded in, so products stay what they were. Sources:
//! QuaRot (Ashkboos et al. 2024) for the idea, here per block and without any calibration.

use std::ops::Range;

use super::formats::Dtype;
use super::panels::{PANEL, Panels, panels_of};
use crate::simd::{Kernel, Simd};

/// The largest block of a rotation.
pub(crate) const MAX_ROTATION: usize = 128;

/// The block for rows of `width` values: the largest power of two that divides it, at most 128.
pub fn rotation_of(width: usize) -> usize {
    (1 << width.trailing_zeros()).min(MAX_ROTATION)
}

/// Where converted rows go.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Panels of words; for int8 the rows' scales lie in one more.
    pub words: Panels<'a>,
    /// bf16 or int8.
    pub dtype: Dtype,
    /// int8: the block of the rotation, 1 for none.
    pub rotation: usize,
}

impl<'a> Target<'a> {
    /// Panics if `words` is too small for rows like those of `from`.
    pub(super) fn check(&self, from: Panels<'a>, scratch: &[f32]) {
        let columns = from.panels() * PANEL;
        assert!(self.words.rows() >= from.rows() && self.dtype != Dtype::Float32);
        let int8 = self.dtype == Dtype::Int8;
        assert!(self.words.panels() >= panels_of(self.dtype.words(columns)) + usize::from(int8));
        assert!(self.rotation.is_power_of_two() && self.rotation <= MAX_ROTATION);
        assert!(scratch.len() >= columns);
    }
}

/// Convert some rows.
#[derive(Debug)]
pub struct Convert<'a> {
    from: Panels<'a>,
    rows: Range<usize>,
    to: Target<'a>,
    scratch: &'a mut [f32],
}

impl<'a> Convert<'a> {
    /// `scratch` holds a padded row. Panics on extents that do not fit.
    ///
    /// # Safety
    /// While it runs, no other thread writes `rows` of `from` or touches those of `to`.
    pub unsafe fn new(from: Panels<'a>, rows: Range<usize>, to: Target<'a>, scratch: &'a mut [f32]) -> Self {
        to.check(from, scratch);
        assert!(rows.end <= from.rows());
        Self { from, rows, to, scratch }
    }
}

impl Kernel for Convert<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for row in self.rows {
            // SAFETY: `new` checked the extents; its caller vouches for the rows being ours.
            unsafe { convert_row(s, self.from, row, self.to, self.scratch) };
        }
    }
}

/// One row.
///
/// # Safety
/// As for [`Convert::new`], whose checks the extents have passed.
#[inline(always)]
pub(super) unsafe fn convert_row<S: Simd>(
    s: S,
    from: Panels<'_>,
    row: usize,
    to: Target<'_>,
    scratch: &mut [f32],
) {
    // SAFETY: the caller's contract.
    unsafe {
        if to.dtype == Dtype::BFloat16 {
            return round_row(s, from, row, to.words, row);
        }
        let columns = from.panels() * PANEL;
        let scratch = &mut scratch[..columns];
        let out = scratch.as_mut_ptr();
        let largest = rotate(s, from.at(0, row), from.stride(), out, columns, to.rotation);
        let factor = s.splat(int8_factor(largest));
        for (panel, values) in scratch.chunks_exact(PANEL).enumerate() {
            let out = to.words.at(panel / 4, row).add(panel % 4 * (PANEL / 4)).cast::<u8>();
            for i in (0..PANEL).step_by(S::LANES) {
                s.store_i8(s.mul(s.load(&values[i..]), factor), out.add(i));
            }
        }
        *to.words.at(panels_of(columns / 4), row) = largest / 127.0;
    }
}

/// One row of f32 to bf16, into a row of panels of words.
///
/// # Safety
/// The row of `from` is readable, that of `to` writable and has half as many panels, rounded up.
#[inline(always)]
pub(super) unsafe fn round_row<S: Simd>(s: S, from: Panels<'_>, row: usize, to: Panels<'_>, to_row: usize) {
    for panel in 0..from.panels() {
        // SAFETY: the caller's contract; `LANES` divides 32.
        unsafe {
            let out = to.at(panel / 2, to_row).add(panel % 2 * (PANEL / 2)).cast::<u16>();
            for i in (0..PANEL).step_by(S::LANES) {
                s.store_bf16(s.load_ptr(from.at(panel, row).add(i)), out.add(i));
            }
        }
    }
}

/// What values are multiplied with to become int8, given the largest magnitude among them: 0 for zeros, and for what is so
/// small that no f32 holds the factor.
#[inline(always)]
pub(super) fn int8_factor(largest: f32) -> f32 {
    if largest > 127.0 / f32::MAX { 127.0 / largest } else { 0.0 }
}

/// Multiply each block of `block` values of a row with the Hadamard matrix (of ones and minus ones: lengths grow by the
/// square root of the block); returns the largest magnitude. A block of 1 changes nothing.
///
/// # Safety
/// The row is readable, column `c` at `from[c / 32 * stride + c % 32]`, and `out` writable for `columns` values, a
/// multiple of 32. `out` may be the row itself, with a stride of 32.
#[inline(always)]
pub(super) unsafe fn rotate<S: Simd>(
    s: S,
    from: *const f32,
    stride: usize,
    out: *mut f32,
    columns: usize,
    block: usize,
) -> f32 {
    // SAFETY: the caller's contract.
    unsafe {
        match block / S::LANES {
            0 | 1 => rotate_blocks::<S, 1>(s, from, stride, out, columns, block),
            2 => rotate_blocks::<S, 2>(s, from, stride, out, columns, block),
            4 => rotate_blocks::<S, 4>(s, from, stride, out, columns, block),
            8 => rotate_blocks::<S, 8>(s, from, stride, out, columns, block),
            16 => rotate_blocks::<S, 16>(s, from, stride, out, columns, block),
            _ => rotate_blocks::<S, 32>(s, from, stride, out, columns, block),
        }
    }
}

/// Blocks of `N` vectors (or of a part of one vector): first inside of each, then between them.
///
/// # Safety
/// As for [`rotate`].
#[inline(always)]
unsafe fn rotate_blocks<S: Simd, const N: usize>(
    s: S,
    from: *const f32,
    stride: usize,
    out: *mut f32,
    columns: usize,
    block: usize,
) -> f32 {
    let mut largest = s.splat(0.0);
    for b in 0..columns / (N * S::LANES) {
        let mut v = [largest; N];
        for (i, v) in v.iter_mut().enumerate() {
            let column = (b * N + i) * S::LANES;
            // SAFETY: the caller's contract.
            *v = unsafe { s.load_ptr(from.add(column / PANEL * stride + column % PANEL)) };
            if block > 1 {
                *v = s.butterfly::<1>(*v);
            }
            if block > 2 {
                *v = s.butterfly::<2>(*v);
            }
            if block > 4 && S::LANES > 4 {
                *v = s.butterfly::<4>(*v);
            }
            if block > 8 && S::LANES > 8 {
                *v = s.butterfly::<8>(*v);
            }
        }
        // Written out, so that the vectors stay in registers.
        between::<S, N, 1>(s, &mut v);
        between::<S, N, 2>(s, &mut v);
        between::<S, N, 4>(s, &mut v);
        between::<S, N, 8>(s, &mut v);
        between::<S, N, 16>(s, &mut v);
        for (i, v) in v.into_iter().enumerate() {
            largest = s.max(largest, s.abs(v));
            // SAFETY: the caller's contract; this block has been read.
            unsafe { s.store_ptr(v, out.add((b * N + i) * S::LANES)) };
        }
    }
    s.reduce_max(largest)
}

/// Sums and differences of vectors `APART` apart, if there are that many.
#[inline(always)]
fn between<S: Simd, const N: usize, const APART: usize>(s: S, v: &mut [S::F32; N]) {
    for i in 0..N {
        if i & APART == 0 && i + APART < N {
            let (low, high) = (v[i], v[i + APART]);
            v[i] = s.add(low, high);
            v[i + APART] = s.sub(low, high);
        }
    }
}
