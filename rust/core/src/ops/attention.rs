//! Softmax attention of one head over one sequence, fused, without masks and without padding.
//!
//! Per block of at most `MR` queries: scores against all keys into a scratch that stays in the first-level cache,
//! softmax there, and the product with the values out of the same place. The scores are never stored anywhere else.
//! All bits of a query's output depend on that query and the sequence's keys and values alone.

use std::ops::Range;

use super::activation::exp2;
use super::gemm::{MAX_MR, multiply, tiles};
use super::panels::{PANEL, Panels, panels_of};
use crate::simd::{Kernel, Simd};

/// `out = softmax2(q k^T) v`, where `softmax2` has base 2: `q` comes multiplied by `scale * log2(e)`.
#[derive(Debug)]
pub struct Attention<'a> {
    q: Panels<'a>,
    k: Panels<'a>,
    v: Panels<'a>,
    out: Panels<'a>,
    queries: Range<usize>,
    keys: Range<usize>,
    scratch: &'a mut [f32],
    probabilities: Option<&'a mut [f32]>,
}

impl<'a> Attention<'a> {
    /// Attention of the rows `queries` of `q` over the rows `keys` of `k` and `v` into the rows `queries` of `out`.
    ///
    /// All four have the panels of one head. `out` may be `q`. `scratch` has [`Attention::scratch_len`] values.
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
        scratch: &'a mut [f32],
        probabilities: Option<&'a mut [f32]>,
    ) -> Self {
        assert!(q.panels() == k.panels() && q.panels() == v.panels() && q.panels() == out.panels());
        assert!(queries.end <= q.rows() && queries.end <= out.rows());
        assert!(!keys.is_empty() && keys.end <= k.rows() && keys.end <= v.rows());
        assert!(scratch.len() >= Self::scratch_len(keys.len(), q.panels()));
        assert!(probabilities.as_ref().is_none_or(|p| p.len() == queries.len() * keys.len()));
        Self { q, k, v, out, queries, keys, scratch, probabilities }
    }

    /// Values of scratch for up to `keys` keys and a head of `panels` panels.
    pub fn scratch_len(keys: usize, panels: usize) -> usize {
        let keys = panels_of(keys) * PANEL;
        keys * panels * PANEL + MAX_MR * keys + MAX_MR * PANEL
    }
}

impl Kernel for Attention<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { q, k, v, out, queries, keys, scratch, mut probabilities } = self;
        let (head, count) = (q.panels() * PANEL, keys.len());
        let key_panels = panels_of(count);
        let (transposed, rest) = scratch.split_at_mut(key_panels * head * PANEL);
        let (scores, tile) = rest.split_at_mut(key_panels * MAX_MR * PANEL);
        // SAFETY: `new` checked the extents.
        unsafe { transpose(s, k, keys.start, key_panels, transposed) };
        for (row, height) in tiles(queries.clone(), S::MR) {
            for panel in 0..key_panels {
                let keys = transposed[panel * head * PANEL..].as_ptr();
                let out = scores[panel * MAX_MR * PANEL..].as_mut_ptr();
                // SAFETY: `new` checked the extents, `scores` has `MAX_MR` rows per panel.
                unsafe { multiply(s, height, q.at(0, row), q.stride(), keys, head, out) };
            }
            let mut reciprocal = [0f32; MAX_MR];
            for (i, reciprocal) in reciprocal.iter_mut().enumerate().take(height) {
                *reciprocal = 1.0 / softmax_row(s, scores, i, count);
            }
            if let Some(probabilities) = probabilities.as_deref_mut() {
                for i in 0..height {
                    let row = &mut probabilities[(row - queries.start + i) * count..][..count];
                    for (panel, row) in row.chunks_mut(PANEL).enumerate() {
                        for (x, p) in row.iter_mut().zip(&scores[(panel * MAX_MR + i) * PANEL..]) {
                            *x = p * reciprocal[i];
                        }
                    }
                }
            }
            for panel in 0..v.panels() {
                // SAFETY: `new` checked the extents: `count` rows of values follow one another in a panel; its caller
                // vouches for the rows of `out` being ours. This block's queries have been read.
                unsafe {
                    let stride = MAX_MR * PANEL;
                    multiply(
                        s,
                        height,
                        scores.as_ptr(),
                        stride,
                        v.at(panel, keys.start),
                        count,
                        tile.as_mut_ptr(),
                    );
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

/// Keys as right operands: `[keys / 32][head][32]`. Columns beyond the last key hold anything.
///
/// # Safety
/// `k` is readable for `32 * key_panels` rows from `first` in each panel.
#[inline(always)]
unsafe fn transpose<S: Simd>(s: S, k: Panels<'_>, first: usize, key_panels: usize, out: &mut [f32]) {
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

/// `2^(x - max)` of the first `count` scores of row `i` in place, zero behind them; returns their sum.
#[inline(always)]
pub(super) fn softmax_row<S: Simd>(s: S, scores: &mut [f32], i: usize, count: usize) -> f32 {
    let whole = count / S::LANES;
    let tail = count % S::LANES;
    let at = |vector: usize| {
        let column = vector * S::LANES;
        (column / PANEL * MAX_MR + i) * PANEL + column % PANEL
    };
    let mut max = s.splat(f32::NEG_INFINITY);
    for vector in 0..whole {
        max = s.max(max, s.load(&scores[at(vector)..]));
    }
    let mut max = s.reduce_max(max);
    for x in &scores[at(whole).min(scores.len())..][..tail] {
        max = if *x > max { *x } else { max };
    }
    let max = s.splat(max);
    let mut sum = s.splat(0.0);
    for vector in 0..whole {
        let p = exp2(s, s.sub(s.load(&scores[at(vector)..]), max));
        sum = s.add(sum, p);
        s.store(p, &mut scores[at(vector)..]);
    }
    if tail > 0 {
        let p = s.first(exp2(s, s.sub(s.load(&scores[at(whole)..]), max)), tail);
        sum = s.add(sum, p);
        s.store(p, &mut scores[at(whole)..]);
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

    #[test]
    fn agrees_with_f64_for_all_lengths_on_every_isa() {
        for isa in Isa::available() {
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
                    isa.run(Attention::new(
                        qp,
                        kp,
                        vp,
                        qp,
                        range.clone(),
                        range,
                        &mut scratch,
                        Some(&mut probabilities),
                    ));
                }
                let (want_p, want) = reference::attention(&q, &k, &v, f64::from(scale));
                let mut got = vec![0.0; panels * PANEL];
                for r in 0..count {
                    // SAFETY: one thread.
                    unsafe { qp.read_row(first + r, &mut got) };
                    for (i, want) in want[r].iter().enumerate() {
                        let error = (f64::from(got[i]) - want).abs();
                        assert!(error < 2e-6, "{} {count} x {head} at ({r}, {i}): {error:e}", isa.name());
                    }
                    assert!(got[head..].iter().all(|x| *x == 0.0), "padding became non-zero");
                    for (i, want) in want_p[r].iter().enumerate() {
                        assert!((f64::from(probabilities[r * count + i]) - want).abs() < 1e-6);
                    }
                }
            }
        }
    }

    #[test]
    fn bits_depend_neither_on_the_block_of_queries_nor_on_neighbours() {
        for isa in Isa::available() {
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
                    isa.run(Attention::new(q, k, v, o, absolute, first..first + count, &mut scratch, None));
                    let mut row = vec![0.0; head];
                    queries
                        .flat_map(|r| (o.read_row(first + r, &mut row), row.clone()).1)
                        .collect::<Vec<f32>>()
                }
            };
            let whole = run(0, count, 0..count);
            let parts: Vec<f32> = [0..1, 1..20, 20..37].into_iter().flat_map(|r| run(9, 80, r)).collect();
            assert_eq!(whole, parts, "{}", isa.name());
        }
    }
}
