//! `out = f(a w^T + bias)` for a packed weight `w`.
//!
//! A weight is packed once: panels of 32 output columns, `[n / 32][k words][32]`, zero beyond `n` and `k`. A tile of up
//! to `MR` rows and 32 columns runs over `k`, or one of few passes over it, with its accumulators in registers, so that
//! **each output is summed in one order, which `k` alone fixes: its bits depend neither on the other rows, nor on the tile it falls
//! into, nor on the number of threads.**

use std::ops::Range;

use super::activation::{Activation, activate};
use super::formats::{BFloat16, Dtype, Float32, Format, InFormat, Int8};
use super::panels::{PANEL, Panels, panels_of};
use super::tile::{Finish, Left, Right, Scratch, multiply, tiles, words_ahead};
use crate::simd::{Isa, Kernel, Simd};

/// Bytes of the left operand that a pass reuses from panel to panel: half of an L2 cache of 1 MiB.
const BLOCK_BYTES: usize = 512 << 10;

/// A packed weight, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Weight<'a> {
    /// What the words hold.
    pub dtype: Dtype,
    /// `[n / 32][k][32]` words
    pub data: &'a [f32],
    /// Words of a sum.
    pub k: usize,
    /// One value per padded column.
    pub bias: &'a [f32],
    /// int8: the scale of each padded column. Else empty.
    pub scales: &'a [f32],
    /// int8: as i32, the sum of each column's weights times -128, which takes back the 128 that unsigned activations
    /// have too much. Else empty.
    pub offsets: &'a [f32],
}

impl Weight<'_> {
    /// Some of its panels.
    pub fn slice(self, panels: Range<usize>) -> Self {
        let columns = panels.start * PANEL..panels.end * PANEL;
        let of_columns =
            |values: &'_ [f32]| -> Range<usize> { if values.is_empty() { 0..0 } else { columns.clone() } };
        Self {
            data: &self.data[columns.start * self.k..columns.end * self.k],
            bias: &self.bias[columns.clone()],
            scales: &self.scales[of_columns(self.scales)],
            offsets: &self.offsets[of_columns(self.offsets)],
            ..self
        }
    }

    /// How many panels of output columns it has.
    pub fn panels(&self) -> usize {
        self.bias.len() / PANEL
    }

    /// Panels of the f32 values that its left operand is made of.
    pub fn k_panels(&self) -> usize {
        panels_of(self.k * self.dtype.per_word())
    }

    /// Panels of its left operand; for int8 one more, whose first column holds the rows' scales.
    pub fn left_panels(&self) -> usize {
        left_panels(self.dtype, self.k)
    }
}

/// Panels of a left operand of `k` words.
pub fn left_panels(dtype: Dtype, k: usize) -> usize {
    panels_of(k) + usize::from(dtype == Dtype::Int8)
}

/// What becomes of `a w^T + bias`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Stored.
    Store,
    /// Stored after this function.
    Activate(Activation),
    /// Added to what is there.
    Add,
}

/// The product of some rows of `a` with some panels of a weight.
#[derive(Debug)]
pub struct Gemm<'a> {
    a: Panels<'a>,
    rows: Range<usize>,
    weight: Weight<'a>,
    panels: Range<usize>,
    out: Panels<'a>,
    then: Then,
    next: &'a [f32],
}

impl<'a> Gemm<'a> {
    /// Check the extents. Panics if they do not fit one another.
    ///
    /// # Safety
    /// While it runs, no other thread writes `rows` of `a`, nor touches `rows` of `panels` of `out`. `a` and `out` do
    /// not overlap. `a` is in the weight's format: see [`super::convert`].
    pub unsafe fn new(
        a: Panels<'a>,
        rows: Range<usize>,
        weight: Weight<'a>,
        panels: Range<usize>,
        out: Panels<'a>,
        then: Then,
    ) -> Self {
        assert!(rows.end <= a.rows() && rows.end <= out.rows());
        assert!(a.panels() >= weight.left_panels());
        assert!(panels.end <= weight.panels() && panels.end <= out.panels());
        assert!(weight.data.len() >= weight.panels() * weight.k * PANEL);
        let columns = if weight.dtype == Dtype::Int8 { weight.bias.len() } else { 0 };
        assert!(weight.scales.len() >= columns && weight.offsets.len() >= columns);
        Self { a, rows, weight, panels, out, then, next: &[] }
    }

    /// Bring the beginning of these words, which are multiplied next, near while the last panel is.
    pub fn before(mut self, next: &'a [f32]) -> Self {
        self.next = next;
        self
    }

    #[inline(always)]
    fn multiply<S: Simd, F: Format>(self, s: S) {
        let k = self.weight.k;
        let words = pass_words::<S, F>(k);
        let block = (BLOCK_BYTES / (words * size_of::<f32>())).max(F::rows::<S>());
        for (start, height) in tiles(self.rows.clone(), block) {
            for from in (0..k).step_by(words) {
                self.pass::<S, F>(s, start..start + height, from..k.min(from + words));
            }
        }
    }

    /// Add the terms `k` of the sums of some rows to what earlier passes left in their place.
    #[inline(always)]
    fn pass<S: Simd, F: Format>(&self, s: S, rows: Range<usize>, k: Range<usize>) {
        let Self { a, weight, out, then, .. } = *self;
        let (first, last) = (k.start == 0, k.end == weight.k);
        let words =
            |panel: usize, k: usize| weight.data.as_ptr().wrapping_add((panel * weight.k + k) * PANEL);
        let zeros = [0.0; PANEL];
        let mut scratch = Scratch::new();
        for panel in self.panels.clone() {
            let columns = panel * PANEL..(panel + 1) * PANEL;
            let bias = if first { &weight.bias[columns.clone()] } else { &zeros };
            let scales = if F::SCALED { &weight.scales[columns.clone()] } else { bias };
            let offsets = weight.offsets.as_ptr().wrapping_add(columns.start);
            // While the first tiles compute, what comes next comes into the second-level cache.
            let next = match (panel + 1 < self.panels.end, last) {
                (true, _) => words(panel + 1, k.start),
                (false, false) => words(self.panels.start, k.end),
                (false, true) => self.next.as_ptr(),
            };
            let here = words(panel, k.start);
            for (i, (row, count)) in tiles(rows.clone(), F::rows::<S>()).enumerate() {
                let left = Left { words: a.at(k.start / PANEL, row), stride: a.stride(), rows: count };
                let brought = i * PANEL / (2 * S::LANES) * words_ahead::<S>(k.len());
                let wanted = if brought < k.len() * PANEL { next.wrapping_add(brought) } else { here };
                let right = Right { words: here, k: k.len(), offsets, wanted };
                let place = Place {
                    bias: bias.as_ptr(),
                    scales: scales.as_ptr(),
                    row_scales: a.at(weight.left_panels() - 1, row),
                    adds: !first || then == Then::Add,
                    out: out.at(panel, row),
                };
                // SAFETY: `new` checked that `a` has the rows and `k` columns and that the weight and `out` have the
                // panel; its caller vouches for the rows and panels being ours.
                unsafe {
                    multiply::<S, F>(s, left, right, &mut scratch, place);
                    if let (Then::Activate(activation), true) = (then, last) {
                        let tile = std::slice::from_raw_parts_mut(place.out, count * PANEL);
                        for values in tile.chunks_exact_mut(S::LANES) {
                            s.store(activate(s, activation, s.load(values)), values);
                        }
                    }
                }
            }
        }
    }
}

/// Where the sums of a tile go, and what is done to them on the way.
#[derive(Clone, Copy)]
struct Place {
    /// Of its 32 columns.
    bias: *const f32,
    /// int8: of its columns.
    scales: *const f32,
    /// int8: of its rows, 32 values apart.
    row_scales: *const f32,
    /// Whether they are added to what is there.
    adds: bool,
    out: *mut f32,
}

impl<F: Format> Finish<F> for Place {
    const IN_REGISTERS: bool = true;

    #[inline(always)]
    unsafe fn take<S: Simd>(self, s: S, row: usize, column: usize, sums: [F::Sums<S>; 2]) {
        for (half, sums) in sums.into_iter().enumerate() {
            let column = column + half * S::LANES;
            // SAFETY: valid for a tile's rows and 32 columns.
            unsafe {
                let row_scale = s.splat(if F::SCALED { *self.row_scales.add(row * PANEL) } else { 1.0 });
                let (scales, bias) = (s.load_ptr(self.scales.add(column)), s.load_ptr(self.bias.add(column)));
                let mut v = F::finish(s, sums, row_scale, scales, bias);
                let out = self.out.add(row * PANEL + column);
                if self.adds {
                    v = s.add(s.load_ptr(out), v);
                }
                s.store_ptr(v, out);
            }
        }
    }
}

/// Words of one pass over sums of `k` words: passes of nearly the same length, whole partial sums. One pass for int8,
/// whose sums are exact before they are scaled.
fn pass_words<S: Simd, F: Format>(k: usize) -> usize {
    let Some(partial) = F::PARTIAL.checked_mul(PANEL) else { return k };
    k.div_ceil(k.div_ceil(S::PASS_WORDS)).next_multiple_of(partial)
}

impl Gemm<'_> {
    /// Compute it.
    pub fn run(self, isa: Isa) {
        match self.weight.dtype {
            Dtype::Float32 => isa.run(InFormat::<_, Float32>::new(self)),
            Dtype::BFloat16 => isa.run(InFormat::<_, BFloat16>::new(self)),
            Dtype::Int8 => isa.run(InFormat::<_, Int8>::new(self)),
        }
    }
}

impl<F: Format> Kernel for InFormat<Gemm<'_>, F> {
    type Output = ();
    const F32_ONLY: bool = F::F32_ONLY;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        assert!(F::runs_on::<S>(), "a product in a format that this instruction set does not have");
        if F::runs_on::<S>() {
            self.work.multiply::<S, F>(s);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{panels_of, reference};
    use crate::simd::Isa;

    /// Values in [-1, 1) from a linear congruential generator.
    fn noise(seed: u64, n: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    struct Case {
        a: Vec<f32>,
        w: Vec<f32>,
        bias: Vec<f32>,
        m: usize,
        n: usize,
        k: usize,
    }

    impl Case {
        fn new(m: usize, n: usize, k: usize) -> Self {
            let seed = (m * 1_000_000 + n * 1000 + k) as u64;
            Self { a: noise(seed, m * k), w: noise(seed + 1, n * k), bias: noise(seed + 2, n), m, n, k }
        }

        fn run(&self, isa: Isa, rows: Range<usize>, panels: Range<usize>, then: Then, out: &mut [f32]) {
            let (kp, np) = (panels_of(self.k), panels_of(self.n));
            let mut a = vec![0.0; self.m * kp * PANEL];
            let a = Panels::new(&mut a, self.m, kp);
            let mut data = vec![0.0; np * kp * PANEL * PANEL];
            for i in 0..self.n {
                for x in 0..self.k {
                    data[((i / PANEL) * kp * PANEL + x) * PANEL + i % PANEL] = self.w[i * self.k + x];
                }
            }
            let mut bias = self.bias.clone();
            bias.resize(np * PANEL, 0.0);
            let weight = Weight {
                dtype: Dtype::Float32,
                data: &data,
                k: kp * PANEL,
                bias: &bias,
                scales: &[],
                offsets: &[],
            };
            // SAFETY: one thread, disjoint buffers.
            unsafe {
                for i in 0..self.m {
                    a.write_row(i, &self.a[i * self.k..][..self.k]);
                }
                Gemm::new(a, rows, weight, panels, Panels::new(out, self.m, np), then).run(isa);
            }
        }
    }

    #[test]
    fn agrees_with_f64_for_all_tails_on_every_isa() {
        for isa in Isa::available() {
            for (m, n, k) in
                [(1, 1, 1), (2, 33, 31), (5, 36, 36), (7, 64, 33), (12, 32, 96), (13, 96, 26), (29, 40, 384)]
                    .into_iter()
                    .chain((1..=26).map(|m| (m, 35, 64)))
            {
                let case = Case::new(m, n, k);
                for then in [Then::Store, Then::Activate(Activation::Gelu), Then::Add] {
                    let np = panels_of(n);
                    let mut out = vec![0.5; m * np * PANEL];
                    case.run(isa, 0..m, 0..np, then, &mut out);
                    let got = Panels::new(&mut out, m, np);
                    let mut row = vec![0.0; n];
                    for i in 0..m {
                        // SAFETY: one thread.
                        unsafe { got.read_row(i, &mut row) };
                        for (j, got) in row.iter().enumerate() {
                            let sum = reference::dot(&case.a[i * k..][..k], &case.w[j * k..][..k])
                                + f64::from(case.bias[j]);
                            let want = match then {
                                Then::Store => sum,
                                Then::Activate(f) => reference::activate(f, sum),
                                Then::Add => sum + 0.5,
                            };
                            let bound = 1e-6 * (k as f64).sqrt().max(1.0);
                            assert!(
                                (f64::from(*got) - want).abs() <= bound,
                                "{} {m}x{n}x{k} {then:?} at ({i}, {j}): {got} for {want}",
                                isa.name()
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn bits_depend_neither_on_rows_nor_on_panels() {
        for isa in Isa::available() {
            let case = Case::new(31, 96, 600);
            let mut whole = vec![0.0; 31 * 96];
            case.run(isa, 0..31, 0..3, Then::Store, &mut whole);
            let mut parts = vec![0.0; 31 * 96];
            for (rows, panels) in [(0..1, 0..3), (1..14, 0..1), (1..14, 1..3), (14..31, 0..2), (14..31, 2..3)]
            {
                case.run(isa, rows, panels, Then::Store, &mut parts);
            }
            assert_eq!(whole, parts, "{}", isa.name());
        }
    }
}
