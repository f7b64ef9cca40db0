//! Layer normalisation of rows, in place, and on the way into the next product's format.

use std::ops::Range;

use super::convert::{Target, convert_row};
use super::panels::{PANEL, Panels};
use crate::simd::{Kernel, Simd};

/// `x = (x - mean) / sqrt(variance + eps) * gamma + beta` for some rows.
///
/// Two passes for the moments: the mean first, then the squares around it, so that nothing cancels. Source: Ba,
/// Kiros, Hinton 2016, with the biased variance that BERT uses.
///
/// Accuracy: 2e-6 of the largest output for widths up to 1024.
#[derive(Debug)]
pub struct LayerNorm<'a> {
    x: Panels<'a>,
    rows: Range<usize>,
    columns: usize,
    gamma: &'a [f32],
    beta: &'a [f32],
    eps: f32,
    then: Option<(Target<'a>, &'a mut [f32])>,
}

impl<'a> LayerNorm<'a> {
    /// `gamma` and `beta` have a value for each padded column, 0 beyond `columns`. Panics on extents that do not fit.
    ///
    /// # Safety
    /// While it runs, no other thread touches `rows` of `x`.
    pub unsafe fn new(
        x: Panels<'a>,
        rows: Range<usize>,
        columns: usize,
        gamma: &'a [f32],
        beta: &'a [f32],
        eps: f32,
    ) -> Self {
        let padded = x.panels() * PANEL;
        assert!(rows.end <= x.rows() && 0 < columns && columns <= padded);
        assert!(gamma.len() >= padded && beta.len() >= padded);
        Self { x, rows, columns, gamma, beta, eps, then: None }
    }

    /// Convert each row, while it is in the nearest cache. Panics on extents that do not fit.
    ///
    /// # Safety
    /// While it runs, no other thread touches those rows of `to`.
    pub unsafe fn then(mut self, to: Target<'a>, scratch: &'a mut [f32]) -> Self {
        to.check(self.x, scratch);
        self.then = Some((to, scratch));
        self
    }
}

impl Kernel for LayerNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { x, rows, columns, gamma, beta, eps, mut then } = self;
        let vectors = x.panels() * PANEL / S::LANES;
        for row in rows {
            // SAFETY: `new` checked the extents; its caller vouches for the rows being ours.
            let at = |i: usize| x.at(i * S::LANES / PANEL, row).wrapping_add(i * S::LANES % PANEL);
            // Two sums each, so that one addition need not wait for the one before.
            let mut sums = [s.splat(0.0); 2];
            for i in (0..vectors).step_by(2) {
                for (j, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: as above. Padding is zero and adds nothing.
                    *sum = s.add(*sum, unsafe { s.load_ptr(at(i + j)) });
                }
            }
            let mean = s.splat(s.reduce_add(s.add(sums[0], sums[1])) / columns as f32);
            let mut squares = [s.splat(0.0); 2];
            for i in (0..vectors).step_by(2) {
                for (j, squares) in squares.iter_mut().enumerate() {
                    // SAFETY: as above.
                    let mut centred = s.sub(unsafe { s.load_ptr(at(i + j)) }, mean);
                    if (i + j + 1) * S::LANES > columns {
                        centred = s.first(centred, columns.saturating_sub((i + j) * S::LANES).min(S::LANES));
                    }
                    *squares = s.mul_add(centred, centred, *squares);
                }
            }
            let squares = s.add(squares[0], squares[1]);
            let scale = s.splat(1.0 / (s.reduce_add(squares) / columns as f32 + eps).sqrt());
            for i in 0..vectors {
                let (gamma, beta) = (s.load(&gamma[i * S::LANES..]), s.load(&beta[i * S::LANES..]));
                // SAFETY: as above.
                unsafe {
                    let centred = s.sub(s.load_ptr(at(i)), mean);
                    s.store_ptr(s.mul_add(s.mul(centred, scale), gamma, beta), at(i));
                }
            }
            if let Some((to, scratch)) = &mut then {
                // SAFETY: `then` checked the extents; its caller vouches for the rows being ours.
                unsafe { convert_row(s, x, row, *to, scratch) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{panels_of, reference};
    use crate::simd::Isa;

    #[test]
    fn agrees_with_f64_for_all_tails_on_every_isa() {
        for isa in Isa::available() {
            for columns in (1..=70).chain([384, 768, 1024]) {
                let rows = 3;
                let values = |seed: usize, n: usize| -> Vec<f32> {
                    (0..n).map(|i| (((i + seed) * 7919 % 1009) as f32 / 1009.0 - 0.4) * 3.0).collect()
                };
                let panels = panels_of(columns);
                let pad = |mut v: Vec<f32>| {
                    v.resize(panels * PANEL, 0.0);
                    v
                };
                let (gamma, beta) = (values(1, columns), values(2, columns));
                let input: Vec<Vec<f32>> = (0..rows).map(|r| values(17 * r + 3, columns)).collect();
                let (padded_gamma, padded_beta) = (pad(gamma.clone()), pad(beta.clone()));
                let mut data = vec![f32::NAN; rows * panels * PANEL];
                let x = Panels::new(&mut data, rows, panels);
                // SAFETY: one thread.
                unsafe {
                    for (r, input) in input.iter().enumerate() {
                        x.write_row(r, input);
                    }
                    isa.run(LayerNorm::new(x, 1..rows, columns, &padded_gamma, &padded_beta, 1e-12));
                    let mut got = vec![0.0; panels * PANEL];
                    x.read_row(0, &mut got);
                    assert_eq!(got[..columns], input[0], "a row outside the range changed");
                    for (r, input) in input.iter().enumerate().skip(1) {
                        x.read_row(r, &mut got);
                        let want = reference::layer_norm(input, &gamma, &beta, 1e-12);
                        let largest = want.iter().fold(1f64, |a, b| a.max(b.abs()));
                        for (i, want) in want.iter().enumerate() {
                            let error = (f64::from(got[i]) - want).abs() / largest;
                            assert!(error < 2e-6, "{} {columns} columns at {i}: {error:e}", isa.name());
                        }
                        assert!(got[columns..].iter().all(|v| *v == 0.0), "padding became non-zero");
                    }
                }
            }
        }
    }
}
