//! Attention against the f64 reference, and the bits of a query whatever lies beside it.

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
                queries.flat_map(|r| (o.read_row(first + r, &mut row), row.clone()).1).collect::<Vec<f32>>()
            }
        };
        let whole = run(0, count, 0..count);
        let parts: Vec<f32> = [0..1, 1..20, 20..37].into_iter().flat_map(|r| run(9, 80, r)).collect();
        assert_eq!(whole, parts, "{} {dtype:?}", isa.name());
    }
}

#[test]
fn rows_of_extreme_scores_are_right_and_do_not_touch_their_neighbours() {
    // By how much each query is multiplied: scores up to 600, all below -60, and ordinary ones between them.
    let factor = |row: usize| [1.0, 200.0, -200.0, 0.0, 30.0, -1.0][row % 6];
    for (isa, dtype) in every_isa_and_dtype() {
        let (count, head) = (45, 32);
        // Scores of 600 rounded to bf16 are off by one: no more can be said than that the result is a mean of values.
        let bound = if dtype == Dtype::Float32 { 2e-4 } else { f64::MAX };
        let mut q = rows(1, count, head);
        q.iter_mut().enumerate().for_each(|(r, q)| q.iter_mut().for_each(|x| *x *= factor(r)));
        // Of one sign, so that all scores of a row have one.
        let k: Vec<Vec<f32>> =
            rows(2, count, head).into_iter().map(|k| k.iter().map(|x| 1.5 + 0.1 * x).collect()).collect();
        q.iter_mut().for_each(|q| q.iter_mut().for_each(|x| *x += 0.02 * x.abs()));
        let v = rows(3, count, head);
        let run = |queries: Range<usize>| {
            let (mut qd, mut kd, mut vd) = (Vec::new(), Vec::new(), Vec::new());
            fill(&mut qd, &q, 0, count, 1, std::f32::consts::LOG2_E);
            fill(&mut kd, &k, 0, count, 1, 1.0);
            fill(&mut vd, &v, 0, count, 1, 1.0);
            let [q, k, v] = [&mut qd, &mut kd, &mut vd].map(|d| Panels::new(d, count, 1));
            let mut scratch = vec![f32::NAN; Attention::scratch_len(count, 1)];
            // SAFETY: one thread; `k` has 32 rows of slack.
            unsafe {
                Attention::new(q, k, v, q, queries.clone(), 0..count, dtype, &mut scratch, None).run(isa);
                let mut row = vec![0.0; head];
                queries.map(|r| (q.read_row(r, &mut row), row.clone()).1).collect::<Vec<_>>()
            }
        };
        let whole = run(0..count);
        let (_, want) = reference::attention(&q, &k, &v, 1.0);
        for (r, (got, want)) in whole.iter().zip(&want).enumerate() {
            for (got, want) in got.iter().zip(want) {
                let error = (f64::from(*got) - want).abs();
                assert!(error < bound && got.abs() < 1.01, "{} {dtype:?} row {r}: {got}", isa.name());
            }
            assert_eq!(run(r..r + 1)[0], *got, "{} {dtype:?} row {r}", isa.name());
        }
    }
}
