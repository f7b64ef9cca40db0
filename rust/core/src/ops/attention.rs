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
use super::gemm::{MAX_MR, Right, multiply, tiles};
use super::panels::{PANEL, Panels, panels_of};
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
    /// The memory of `k` goes on for at least 31 rows behind the last key (their values do not matter).
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
        // The largest of what either format needs: keys, values (bf16 only), queries (bf16 only), scores, a tile.
        keys * panels * PANEL + MAX_MR * panels * PANEL + MAX_MR * keys + MAX_MR * PANEL
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
        let (scores, tile) = rest.split_at_mut(key_panels * MAX_MR * PANEL);
        // SAFETY: `new` checked the extents.
        unsafe {
            F::pack_keys(s, k, keys.start, key_panels, transposed);
            F::pack_values(s, v, keys.clone(), interleaved);
        }
        for (row, height) in tiles(queries.clone(), S::MR) {
            // SAFETY: `new` checked the extents.
            let (q, stride) = unsafe { F::pack_queries(s, q, row, height, block) };
            for panel in 0..key_panels {
                let keys = transposed[panel * k_words * PANEL..].as_ptr();
                let out = scores[panel * MAX_MR * PANEL..].as_mut_ptr();
                // SAFETY: `new` checked the extents, `scores` has `MAX_MR` rows per panel.
                unsafe { multiply::<S, F>(s, height, q, stride, Right::new(keys, k_words), out) };
            }
            let mut reciprocal = [0f32; MAX_MR];
            for (i, reciprocal) in reciprocal.iter_mut().enumerate().take(height) {
                *reciprocal = 1.0 / softmax_row::<S, F>(s, scores, i, count);
            }
            if let Some(probabilities) = probabilities.as_deref_mut() {
                for i in 0..height {
                    let row = &mut probabilities[(row - queries.start + i) * count..][..count];
                    for (column, x) in row.iter_mut().enumerate() {
                        *x = F::probability(scores, i, column) * reciprocal[i];
                    }
                }
            }
            for panel in 0..v.panels() {
                // SAFETY: `new` checked the extents: `count` rows of values follow one another in a panel; its caller
                // vouches for the rows of `out` being ours. This block's queries have been read.
                unsafe {
                    let values = if F::PACKS {
                        interleaved[panel * v_words * PANEL..].as_ptr()
                    } else {
                        v.at(panel, keys.start).cast_const()
                    };
                    let (scores, words) = (scores.as_ptr(), F::words(count.next_multiple_of(F::PER_WORD)));
                    let right = Right::new(values, words);
                    multiply::<S, F>(s, height, scores, MAX_MR * PANEL, right, tile.as_mut_ptr());
                    let out = std::slice::from_raw_parts_mut(out.at(panel, row), height * PANEL);
                    for ((out, tile), reciprocal) in
                        out.chunks_exact_mut(PANEL).zip(tile.chunks_exact(PANEL)).zip(reciprocal)
                    {
                        for i in (0..PANEL).step_by(S::LANES) {
                            s.store(s.mul(s.load(&tile[i..]), s.splat(reciprocal)), &mut out[i..]);
                        }
                    }
                }
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
pub(super) trait Operands: Format {
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
    /// `2^x`, as exactly as the format is.
    fn exp2<S: Simd>(s: S, x: S::F32) -> S::F32;
    /// Write probabilities of a row to its place as a left operand, `column` being the first one's. The place lies in
    /// that of the scores, and not behind the scores that they come from.
    fn store_probabilities<S: Simd>(s: S, p: S::F32, scores: &mut [f32], row: usize, column: usize);
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
                    // The last panel's rows run on into the slack behind the matrix.
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
    fn store_probabilities<S: Simd>(s: S, p: S::F32, scores: &mut [f32], row: usize, column: usize) {
        s.store(p, &mut scores[place(row, column)..]);
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
                    // The last panel's rows run on into the slack behind the matrix.
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
    /// Panel `i` of the scores becomes half of panel `i / 2` of the words.
    #[inline(always)]
    fn store_probabilities<S: Simd>(s: S, p: S::F32, scores: &mut [f32], row: usize, column: usize) {
        let halves: &mut [u16] = bytemuck::cast_slice_mut(&mut scores[place(row, column / 2)..]);
        let halves = &mut halves[column % 2..][..S::LANES];
        // SAFETY: just checked.
        unsafe { s.store_bf16(p, halves.as_mut_ptr()) };
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

/// `2^(x - max)` of the first `count` scores of a row, zero up to the end of the last vector; returns their sum.
#[inline(always)]
pub(super) fn softmax_row<S: Simd, F: Operands>(s: S, scores: &mut [f32], row: usize, count: usize) -> f32 {
    let (panels, whole, tail) = (count / PANEL, count / S::LANES * S::LANES, count % S::LANES);
    // Whole panels, whole vectors, and a part of a vector: the first are most of it, and need no arithmetic of places.
    let mut max = s.splat(f32::NEG_INFINITY);
    for panel in 0..panels {
        let scores = &scores[place(row, panel * PANEL)..][..PANEL];
        for x in (0..PANEL).step_by(S::LANES) {
            max = s.max(max, s.load(&scores[x..]));
        }
    }
    for column in (panels * PANEL..whole).step_by(S::LANES) {
        max = s.max(max, s.load(&scores[place(row, column)..]));
    }
    if tail > 0 {
        // Lanes behind the last score hold anything: make them smaller than every score.
        let scores = s.first(s.load(&scores[place(row, whole)..]), tail);
        let limit = s.sub(s.first(s.splat(f32::MAX), tail), s.splat(f32::MAX / 2.0));
        max = s.max(max, s.min(scores, limit));
    }
    let max = s.splat(s.reduce_max(max));
    let mut sum = s.splat(0.0);
    for panel in 0..panels {
        for x in (0..PANEL).step_by(S::LANES) {
            let p = F::exp2(s, s.sub(s.load(&scores[place(row, panel * PANEL) + x..]), max));
            sum = s.add(sum, p);
            F::store_probabilities(s, p, scores, row, panel * PANEL + x);
        }
    }
    for column in (panels * PANEL..whole).step_by(S::LANES) {
        let p = F::exp2(s, s.sub(s.load(&scores[place(row, column)..]), max));
        sum = s.add(sum, p);
        F::store_probabilities(s, p, scores, row, column);
    }
    if tail > 0 {
        let p = s.first(F::exp2(s, s.sub(s.load(&scores[place(row, whole)..]), max)), tail);
        sum = s.add(sum, p);
        F::store_probabilities(s, p, scores, row, whole);
    }
    s.reduce_add(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::reference;
    use crate::simd::Isa;

    fn rows(seed: usize, n: usize, head: usize) -> Vec<Vec<f32>> {
        let value = |r: usize, i: usize| ((r * head + i + seed) * 7919 % 1009) as f32 / 504.5 - 1.0;
        (0..n).map(|r| (0..head).map(|i| value(r, i)).collect()).collect()
    }

    fn fill(data: &mut Vec<f32>, values: &[Vec<f32>], first: usize, total: usize, panels: usize, by: f32) {
        // NaN wherever no value belongs: nothing of it may come through.
        data.resize((total * panels + PANEL) * PANEL, f32::NAN);
        let x = Panels::new(data, total, panels);
        for (r, row) in values.iter().enumerate() {
            let row: Vec<f32> = row.iter().map(|v| v * by).collect();
            // SAFETY: one thread.
            unsafe { x.write_row(first + r, &row) };
        }
    }

    fn every_isa_and_dtype() -> impl Iterator<Item = (Isa, Dtype)> {
        let both = [Dtype::Float32, Dtype::BFloat16];
        let pairs = Isa::available().into_iter().flat_map(move |isa| both.map(|dtype| (isa, dtype)));
        pairs.filter(|(isa, dtype)| dtype.runs_on(*isa))
    }

    #[test]
    fn agrees_with_f64_for_all_lengths_on_every_isa() {
        for (isa, dtype) in every_isa_and_dtype() {
            // Rounded inputs of size 1 and scores of size 1: about 2^-9 of each.
            let (bound, bound_p) = if dtype == Dtype::Float32 { (2e-6, 1e-6) } else { (8e-3, 8e-3) };
            for (count, head) in
                (1..=67).map(|n| (n, 26)).chain([(1, 64), (33, 64), (128, 32), (515, 64), (40, 100)])
            {
                let panels = panels_of(head);
                let (first, total) = (3, count + 5);
                let scale = 1.0 / (head as f32).sqrt();
                let (q, k, v) = (rows(1, count, head), rows(2, count, head), rows(3, count, head));
                let (mut qd, mut kd, mut vd) = (Vec::new(), Vec::new(), Vec::new());
                fill(&mut qd, &q, first, total, panels, scale * std::f32::consts::LOG2_E);
                fill(&mut kd, &k, first, total, panels, 1.0);
                fill(&mut vd, &v, first, total, panels, 1.0);
                let [qp, kp, vp] = [&mut qd, &mut kd, &mut vd].map(|d| Panels::new(d, total, panels));
                let mut scratch = vec![f32::NAN; Attention::scratch_len(count, panels)];
                let mut probabilities = vec![f32::NAN; count * count];
                let range = first..first + count;
                // SAFETY: one thread; `k` has 32 rows of slack. The output replaces the queries.
                unsafe {
                    Attention::new(
                        qp,
                        kp,
                        vp,
                        qp,
                        range.clone(),
                        range,
                        dtype,
                        &mut scratch,
                        Some(&mut probabilities),
                    )
                    .run(isa);
                }
                let (want_p, want) = reference::attention(&q, &k, &v, f64::from(scale));
                let mut got = vec![0.0; panels * PANEL];
                for r in 0..count {
                    // SAFETY: one thread.
                    unsafe { qp.read_row(first + r, &mut got) };
                    for (i, want) in want[r].iter().enumerate() {
                        let error = (f64::from(got[i]) - want).abs();
                        assert!(
                            error < bound,
                            "{} {dtype:?} {count} x {head} at ({r}, {i}): {error:e}",
                            isa.name()
                        );
                    }
                    assert!(got[head..].iter().all(|x| *x == 0.0), "padding became non-zero");
                    for (i, want) in want_p[r].iter().enumerate() {
                        assert!((f64::from(probabilities[r * count + i]) - want).abs() < bound_p);
                    }
                }
            }
        }
    }

    #[test]
    fn bits_depend_neither_on_the_block_of_queries_nor_on_neighbours() {
        for (isa, dtype) in every_isa_and_dtype() {
            let (count, head) = (37, 64);
            let run = |first: usize, total: usize, queries: Range<usize>| {
                let (mut qd, mut kd, mut vd) = (Vec::new(), Vec::new(), Vec::new());
                fill(&mut qd, &rows(1, count, head), first, total, 2, 0.3);
                fill(&mut kd, &rows(2, count, head), first, total, 2, 1.0);
                fill(&mut vd, &rows(3, count, head), first, total, 2, 1.0);
                let [q, k, v] = [&mut qd, &mut kd, &mut vd].map(|d| Panels::new(d, total, 2));
                let mut scratch = vec![0.0; Attention::scratch_len(count, 2)];
                let mut out = vec![0.0; total * 2 * PANEL];
                let o = Panels::new(&mut out, total, 2);
                let absolute = first + queries.start..first + queries.end;
                // SAFETY: one thread; `k` has 32 rows of slack.
                unsafe {
                    Attention::new(q, k, v, o, absolute, first..first + count, dtype, &mut scratch, None)
                        .run(isa);
                    let mut row = vec![0.0; head];
                    queries
                        .flat_map(|r| (o.read_row(first + r, &mut row), row.clone()).1)
                        .collect::<Vec<f32>>()
                }
            };
            let whole = run(0, count, 0..count);
            let parts: Vec<f32> = [0..1, 1..20, 20..37].into_iter().flat_map(|r| run(9, 80, r)).collect();
            assert_eq!(whole, parts, "{} {dtype:?}", isa.name());
        }
    }
}
