//! Softmax attention of one head over one sequence, fused, without masks and without padding.
//!
//! Per block of at most `MR` queries: scores against all keys into a scratch that stays in the first-level cache,
//! softmax there, and the product with the values out of the same place. The scores are never stored anywhere else.
//! All bits of a query's output depend on that query and the sequence's keys and values alone.
//!
//! Operands and results are f32. The products inside are f32 or bf16, for which keys and values are rounded once per
//! sequence and head, queries once per block, and probabilities when softmax writes them.

use std::ops::Range;

use super::activation::{exp2, exp2_coarse};
use super::convert::round_row;
use super::formats::{BFloat16, Dtype, Float32, Format, InFormat};
use super::panels::{PANEL, Panels, panels_of};
use super::tile::{Finish, Left, MAX_MR, Right, Scratch, multiply, tiles};
use crate::simd::{Isa, Kernel, Simd};

/// `out = softmax2(q k^T) v`, where `softmax2` has base 2: `q` comes multiplied by `scale * log2(e)`.
#[derive(Debug)]
pub struct Attention<'a> {
    q: Panels<'a>,
    k: Panels<'a>,
    v: Panels<'a>,
    out: Panels<'a>,
    queries: Range<usize>,
    keys: Range<usize>,
    dtype: Dtype,
    scratch: &'a mut [f32],
    probabilities: Option<&'a mut [f32]>,
}

impl<'a> Attention<'a> {
    /// Attention of the rows `queries` of `q` over the rows `keys` of `k` and `v` into the rows `queries` of `out`.
    ///
    /// `dtype` is that of the products, float32 or bfloat16. All four have the panels of one head. `out` may be `q`. `scratch` has [`Attention::scratch_len`] values.
    /// `probabilities`, if asked for, receives `queries.len() x keys.len()` values. Panics on extents that do not fit.
    ///
    /// # Safety
    /// While it runs, no other thread touches `queries` of `out`, nor writes those of `q` or `keys` of `k` and `v`.
    /// The memory of `k` goes on for at least 31 rows behind the last key; no other thread writes there either (the
    /// values do not matter).
    #[allow(clippy::too_many_arguments)]
    pub unsafe fn new(
        q: Panels<'a>,
        k: Panels<'a>,
        v: Panels<'a>,
        out: Panels<'a>,
        queries: Range<usize>,
        keys: Range<usize>,
        dtype: Dtype,
        scratch: &'a mut [f32],
        probabilities: Option<&'a mut [f32]>,
    ) -> Self {
        assert!(dtype != Dtype::Int8, "scores have no scales");
        assert!(q.panels() == k.panels() && q.panels() == v.panels() && q.panels() == out.panels());
        assert!(queries.end <= q.rows() && queries.end <= out.rows());
        assert!(!keys.is_empty() && keys.end <= k.rows() && keys.end <= v.rows());
        assert!(scratch.len() >= Self::scratch_len(keys.len(), q.panels()));
        assert!(probabilities.as_ref().is_none_or(|p| p.len() == queries.len() * keys.len()));
        Self { q, k, v, out, queries, keys, dtype, scratch, probabilities }
    }

    /// Values of scratch for up to `keys` keys and a head of `panels` panels.
    pub fn scratch_len(keys: usize, panels: usize) -> usize {
        let keys = panels_of(keys) * PANEL;
        // The larger of what either format needs: keys, values (bf16 only), queries (bf16 only), scores.
        keys * panels * PANEL + MAX_MR * panels * PANEL + MAX_MR * keys
    }

    #[inline(always)]
    fn attend<S: Simd, F: Operands>(self, s: S) {
        let Self { q, k, v, out, queries, keys, scratch, mut probabilities, .. } = self;
        let (head, count) = (q.panels() * PANEL, keys.len());
        let key_panels = panels_of(count);
        let (k_words, v_words) = (F::words(head), F::words(count.next_multiple_of(2)));
        let (transposed, rest) = scratch.split_at_mut(key_panels * k_words * PANEL);
        let (interleaved, rest) = rest.split_at_mut(if F::PACKS { v_words * head } else { 0 });
        let (block, rest) = rest.split_at_mut(MAX_MR * head);
        let scores = &mut rest[..key_panels * MAX_MR * PANEL];
        let mut partial = Scratch::new();
        // SAFETY: `new` checked the extents.
        unsafe {
            F::pack_keys(s, k, keys.start, key_panels, transposed);
            F::pack_values(s, v, keys.clone(), interleaved);
        }
        for (row, height) in tiles(queries.clone(), S::MR) {
            // SAFETY: `new` checked the extents.
            let (words, stride) = unsafe { F::pack_queries(s, q, row, height, block) };
            let left = Left { words, stride, rows: height };
            let mut sums = RowSums([[0.0; LANES]; MAX_MR]);
            // SAFETY: `new` checked the extents, `scores` has `MAX_MR` rows per panel.
            unsafe {
                score::<S, F>(s, left, transposed, k_words, count, scores, Some(&mut sums), &mut partial)
            };
            let mut totals = [0f32; MAX_MR];
            for (total, sums) in totals.iter_mut().zip(&sums.0) {
                *total = s.reduce_add(s.load(sums));
            }
            if !totals[..height].iter().all(|total| IN_RANGE.contains(total)) {
                // SAFETY: as above.
                unsafe { score::<S, F>(s, left, transposed, k_words, count, scores, None, &mut partial) };
                for (i, total) in totals.iter_mut().enumerate().take(height) {
                    *total = if IN_RANGE.contains(total) {
                        exponentials::<S, F>(s, scores, i, count, 0.0)
                    } else {
                        softmax_row::<S, F>(s, scores, i, count)
                    };
                }
            }
            let reciprocal = totals.map(|total| 1.0 / total);
            if let Some(probabilities) = probabilities.as_deref_mut() {
                for i in 0..height {
                    let row = &mut probabilities[(row - queries.start + i) * count..][..count];
                    for (column, x) in row.iter_mut().enumerate() {
                        *x = F::probability(scores, i, column) * reciprocal[i];
                    }
                }
            }
            let left = Left { words: scores.as_ptr(), stride: MAX_MR * PANEL, rows: height };
            for panel in 0..v.panels() {
                // SAFETY: `new` checked the extents: `count` rows of values follow one another in a panel; its caller
                // vouches for the rows of `out` being ours. This block's queries have been read.
                unsafe {
                    let values = if F::PACKS {
                        interleaved[panel * v_words * PANEL..].as_ptr()
                    } else {
                        v.at(panel, keys.start).cast_const()
                    };
                    let values = Right::new(values, F::words(count.next_multiple_of(F::PER_WORD)));
                    let weighted = Weighted { reciprocal: &reciprocal, out: out.at(panel, row) };
                    multiply::<S, F>(s, left, values, &mut partial, weighted);
                }
            }
        }
    }
}

/// Scores of some queries against all keys: their exponentials and the sums of these, or without `sums` as they are.
///
/// # Safety
/// `scores` has `MAX_MR` rows for each panel of keys, `keys` as many panels of `words` rows.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn score<S: Simd, F: Operands>(
    s: S,
    queries: Left,
    keys: &[f32],
    words: usize,
    count: usize,
    scores: &mut [f32],
    sums: Option<&mut RowSums>,
    partial: &mut Scratch,
) {
    let sums = match sums {
        Some(sums) => sums.0.as_mut_ptr().cast(),
        None => std::ptr::null_mut(),
    };
    for panel in 0..panels_of(count) {
        let keys = Right::new(keys[panel * words * PANEL..].as_ptr(), words);
        let scored = Scored { scores: scores.as_mut_ptr(), panel, valid: count - panel * PANEL, sums };
        // SAFETY: the caller's contract.
        unsafe { multiply::<S, F>(s, queries, keys, partial, scored) };
    }
}

/// Most lanes of a vector.
const LANES: usize = 16;

/// Per row, the sum of what each lane held.
#[repr(align(64))]
struct RowSums([[f32; LANES]; MAX_MR]);

/// Sums of exponentials that are good as they are: no score of the row is too large for an f32, and the largest is not
/// so small that small ones vanish beside it. Other rows take their largest score off first. Which way a row goes
/// depends on its scores alone.
const IN_RANGE: std::ops::Range<f32> = 8.9e-16..1.3e33; // 2^-50 to 2^110

/// Scores become exponentials while they are in registers; without `sums` they stay scores.
#[derive(Clone, Copy)]
struct Scored {
    scores: *mut f32,
    /// Of keys.
    panel: usize,
    /// Keys from the beginning of the panel on.
    valid: usize,
    /// `MAX_MR` times [`LANES`], or null.
    sums: *mut f32,
}

impl<F: Operands> Finish<F> for Scored {
    const IN_REGISTERS: bool = false;

    #[inline(always)]
    unsafe fn take<S: Simd>(self, s: S, row: usize, column: usize, sums: [F::Sums<S>; 2]) {
        let [low, high] = sums;
        let (low, high) = (F::score(s, low), F::score(s, high));
        let at = self.panel * PANEL + column;
        // SAFETY: `scores` has a panel of `MAX_MR` rows for every panel of keys.
        unsafe {
            if self.sums.is_null() {
                let to = self.scores.add(place(row, at));
                s.store_ptr(low, to);
                s.store_ptr(high, to.add(S::LANES));
                return;
            }
            let (mut low, mut high) = (F::exp2(s, low), F::exp2(s, high));
            if self.valid < PANEL {
                let valid = self.valid.saturating_sub(column);
                low = s.first(low, valid.min(S::LANES));
                high = s.first(high, valid.saturating_sub(S::LANES).min(S::LANES));
            }
            let sum = self.sums.add(row * LANES);
            s.store_ptr(s.add(s.add(s.load_ptr(sum), low), high), sum);
            F::store_probabilities(s, low, self.scores, row, at);
            F::store_probabilities(s, high, self.scores, row, at + S::LANES);
        }
    }
}

/// Values weighted with the exponentials, times one over their sum.
#[derive(Clone, Copy)]
struct Weighted<'a> {
    reciprocal: &'a [f32; MAX_MR],
    out: *mut f32,
}

impl<F: Operands> Finish<F> for Weighted<'_> {
    const IN_REGISTERS: bool = true;

    #[inline(always)]
    unsafe fn take<S: Simd>(self, s: S, row: usize, column: usize, sums: [F::Sums<S>; 2]) {
        let reciprocal = s.splat(self.reciprocal[row]);
        for (half, sums) in sums.into_iter().enumerate() {
            // SAFETY: valid for a tile's rows and 32 columns.
            unsafe {
                let to = self.out.add(row * PANEL + column + half * S::LANES);
                s.store_ptr(s.mul(F::score(s, sums), reciprocal), to);
            }
        }
    }
}

impl Attention<'_> {
    /// Compute it.
    pub fn run(self, isa: Isa) {
        match self.dtype {
            Dtype::BFloat16 => isa.run(InFormat::<_, BFloat16>::new(self)),
            _ => isa.run(InFormat::<_, Float32>::new(self)),
        }
    }
}

impl<F: Operands> Kernel for InFormat<Attention<'_>, F> {
    type Output = ();
    const F32_ONLY: bool = F::F32_ONLY;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        assert!(F::runs_on::<S>(), "attention in a format that this instruction set does not have");
        if F::runs_on::<S>() {
            self.work.attend::<S, F>(s);
        }
    }
}

/// How a format's operands come out of panels of f32.
pub(crate) trait Operands: Format {
    /// Values in a word.
    const PER_WORD: usize;
    /// Whether queries and values must be packed; keys always are.
    const PACKS: bool = Self::PER_WORD > 1;

    /// Words of so many values.
    fn words(values: usize) -> usize {
        values / Self::PER_WORD
    }
    /// Keys as right operands: `[keys / 32][words of the head][32]`. Columns beyond the last key hold anything.
    ///
    /// # Safety
    /// `k` is readable for `32 * key_panels` rows from `first` in each panel.
    unsafe fn pack_keys<S: Simd>(s: S, k: Panels<'_>, first: usize, key_panels: usize, out: &mut [f32]);
    /// Values as right operands: `[panels][words of the keys][32]`, a word holding neighbouring keys.
    ///
    /// # Safety
    /// `v` is readable at `keys`.
    unsafe fn pack_values<S: Simd>(s: S, v: Panels<'_>, keys: Range<usize>, out: &mut [f32]);
    /// Some queries as a left operand, and the distance between its panels.
    ///
    /// # Safety
    /// `q` is readable at `rows` rows from `first`.
    unsafe fn pack_queries<S: Simd>(
        s: S,
        q: Panels<'_>,
        first: usize,
        rows: usize,
        out: &mut [f32],
    ) -> (*const f32, usize);
    /// Sums as numbers.
    fn score<S: Simd>(s: S, sums: Self::Sums<S>) -> S::F32;
    /// `2^x`, as exactly as the format is.
    fn exp2<S: Simd>(s: S, x: S::F32) -> S::F32;
    /// Write probabilities of a row to their place as a left operand, `column` being the first one's. The place lies in
    /// that of the scores, and not behind the scores that they come from.
    ///
    /// # Safety
    /// `scores` has the row and the columns.
    unsafe fn store_probabilities<S: Simd>(s: S, p: S::F32, scores: *mut f32, row: usize, column: usize);
    /// What was written there.
    fn probability(scores: &[f32], row: usize, column: usize) -> f32;
}

impl Operands for Float32 {
    const PER_WORD: usize = 1;

    #[inline(always)]
    unsafe fn pack_keys<S: Simd>(s: S, k: Panels<'_>, first: usize, key_panels: usize, out: &mut [f32]) {
        let head = k.panels() * PANEL;
        assert!(out.len() >= key_panels * head * PANEL);
        for block in 0..key_panels {
            for panel in 0..k.panels() {
                for (i, j) in [(0, 0), (0, 16), (16, 0), (16, 16)] {
                    // The last rows may lie behind the matrix.
                    let from = k.at(panel, first).wrapping_add((block * PANEL + i) * PANEL + j);
                    let to = (block * head + panel * PANEL + j) * PANEL + i;
                    // SAFETY: the caller's contract, and the assertion above.
                    unsafe { s.transpose16(from, PANEL, out.as_mut_ptr().add(to), PANEL) };
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn pack_values<S: Simd>(_s: S, _v: Panels<'_>, _keys: Range<usize>, _out: &mut [f32]) {}
    #[inline(always)]
    unsafe fn pack_queries<S: Simd>(
        _s: S,
        q: Panels<'_>,
        first: usize,
        _rows: usize,
        _out: &mut [f32],
    ) -> (*const f32, usize) {
        (q.at(0, first), q.stride())
    }
    #[inline(always)]
    fn exp2<S: Simd>(s: S, x: S::F32) -> S::F32 {
        exp2(s, x)
    }
    #[inline(always)]
    fn score<S: Simd>(_s: S, sums: S::F32) -> S::F32 {
        sums
    }
    #[inline(always)]
    unsafe fn store_probabilities<S: Simd>(s: S, p: S::F32, scores: *mut f32, row: usize, column: usize) {
        // SAFETY: the caller's contract.
        unsafe { s.store_ptr(p, scores.add(place(row, column))) };
    }
    fn probability(scores: &[f32], row: usize, column: usize) -> f32 {
        scores[place(row, column)]
    }
}

impl Operands for BFloat16 {
    const PER_WORD: usize = 2;

    #[inline(always)]
    unsafe fn pack_keys<S: Simd>(s: S, k: Panels<'_>, first: usize, key_panels: usize, out: &mut [f32]) {
        let words = k.panels() * PANEL / 2;
        assert!(out.len() >= key_panels * words * PANEL);
        let mut rounded = [0f32; 16 * 16];
        for block in 0..key_panels {
            for (panel, i) in (0..k.panels()).flat_map(|panel| [(panel, 0), (panel, 16)]) {
                // SAFETY: the caller's contract, the assertion above, and 16 rows of 16 words in between.
                unsafe {
                    // The last rows may lie behind the matrix.
                    let from = k.at(panel, first).wrapping_add((block * PANEL + i) * PANEL);
                    for row in 0..16 {
                        for x in (0..PANEL).step_by(S::LANES) {
                            let to = rounded.as_mut_ptr().add(row * 16).cast::<u16>().add(x);
                            s.store_bf16(s.load_ptr(from.add(row * PANEL + x)), to);
                        }
                    }
                    let to = (block * words + panel * PANEL / 2) * PANEL + i;
                    s.transpose16(rounded.as_ptr(), 16, out.as_mut_ptr().add(to), PANEL);
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn pack_values<S: Simd>(s: S, v: Panels<'_>, keys: Range<usize>, out: &mut [f32]) {
        let words = keys.len().div_ceil(2);
        assert!(out.len() >= words * v.panels() * PANEL);
        for panel in 0..v.panels() {
            for (pair, out) in out[panel * words * PANEL..].chunks_exact_mut(PANEL).enumerate().take(words) {
                for x in (0..PANEL).step_by(S::LANES) {
                    let key = keys.start + 2 * pair;
                    // SAFETY: the caller's contract, and `LANES` divides 32.
                    unsafe {
                        let low = s.load_ptr(v.at(panel, key).add(x));
                        let last = key + 1 == keys.end;
                        let high = if last { s.splat(0.0) } else { s.load_ptr(v.at(panel, key + 1).add(x)) };
                        s.store_words(s.pair_bf16(low, high), out.as_mut_ptr().add(x).cast());
                    }
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn pack_queries<S: Simd>(
        s: S,
        q: Panels<'_>,
        first: usize,
        rows: usize,
        out: &mut [f32],
    ) -> (*const f32, usize) {
        assert!(rows <= MAX_MR);
        let words = Panels::new(out, MAX_MR, panels_of(q.panels() * PANEL / 2));
        for row in 0..rows {
            // SAFETY: the caller's contract; `Panels::new` has checked the room.
            unsafe { round_row(s, q, first + row, words, row) };
        }
        (words.at(0, 0), words.stride())
    }
    #[inline(always)]
    fn exp2<S: Simd>(s: S, x: S::F32) -> S::F32 {
        exp2_coarse(s, x)
    }
    #[inline(always)]
    fn score<S: Simd>(_s: S, sums: S::F32) -> S::F32 {
        sums
    }
    /// Panel `i` of the scores becomes half of panel `i / 2` of the words.
    #[inline(always)]
    unsafe fn store_probabilities<S: Simd>(s: S, p: S::F32, scores: *mut f32, row: usize, column: usize) {
        // SAFETY: the caller's contract; columns of vectors are even.
        unsafe { s.store_bf16(p, scores.add(place(row, column / 2)).cast()) };
    }
    fn probability(scores: &[f32], row: usize, column: usize) -> f32 {
        let word = scores[place(row, column / 2)].to_bits();
        f32::from_bits(word >> (16 * (column % 2)) << 16)
    }
}

/// Where word `column` of a row lies: panels of `MAX_MR` rows.
#[inline(always)]
fn place(row: usize, column: usize) -> usize {
    (column / PANEL * MAX_MR + row) * PANEL + column % PANEL
}

/// Softmax of the first `count` scores of a row but for the division; returns the sum to divide by.
#[inline(always)]
pub(super) fn softmax_row<S: Simd, F: Operands>(s: S, scores: &mut [f32], row: usize, count: usize) -> f32 {
    let max = max_of_row(s, scores, row, count);
    exponentials::<S, F>(s, scores, row, count, max)
}

/// The largest of the first `count` scores of a row.
#[inline(always)]
pub(crate) fn max_of_row<S: Simd>(s: S, scores: &[f32], row: usize, count: usize) -> f32 {
    let (whole, tail) = (count / S::LANES * S::LANES, count % S::LANES);
    let mut max = s.splat(f32::NEG_INFINITY);
    for column in (0..whole).step_by(S::LANES) {
        max = s.max(max, s.load(&scores[place(row, column)..]));
    }
    if tail > 0 {
        // Lanes behind the last score hold anything: make them smaller than every score.
        let scores = s.first(s.load(&scores[place(row, whole)..]), tail);
        let limit = s.sub(s.first(s.splat(f32::MAX), tail), s.splat(f32::MAX / 2.0));
        max = s.max(max, s.min(scores, limit));
    }
    s.reduce_max(max)
}

/// `2^(x - shift)` of the first `count` scores of a row, zero up to the end of the last vector; returns their sum.
///
/// With a shift of 0 the same bits as [`Scored`].
#[inline(always)]
pub(crate) fn exponentials<S: Simd, F: Operands>(
    s: S,
    scores: &mut [f32],
    row: usize,
    count: usize,
    shift: f32,
) -> f32 {
    let shift = s.splat(shift);
    let mut sum = s.splat(0.0);
    for column in (0..count).step_by(S::LANES) {
        let x = s.load(&scores[place(row, column)..]);
        let p = s.first(F::exp2(s, s.sub(x, shift)), (count - column).min(S::LANES));
        sum = s.add(sum, p);
        assert!(place(row, column) + S::LANES <= scores.len());
        // SAFETY: just checked; nothing is written behind what was read.
        unsafe { F::store_probabilities(s, p, scores.as_mut_ptr(), row, column) };
    }
    s.reduce_add(sum)
}

#[cfg(test)]
#[path = "attention_tests.rs"]
mod tests;
