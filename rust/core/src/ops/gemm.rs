//! `out = f(a w^T + bias)` for a packed weight `w`.
//!
//! A weight is packed once: panels of 32 output columns, `[n / 32][k words][32]`, zero beyond `n` and `k`. A tile of up
//! to `MR` rows and 32 columns runs over the whole `k` with its accumulators in registers, so that **each output is
//! summed in one order, which `k` alone fixes: its bits depend neither on the other rows, nor on the tile it falls
//! into, nor on the number of threads.**

use std::ops::Range;

use super::activation::{Activation, activate};
use super::formats::{BFloat16, Dtype, Float32, Format, InFormat, Int8};
use super::panels::{PANEL, Panels, panels_of};
use crate::simd::{Isa, Kernel, Simd};

/// Rows of the largest tile of any instruction set.
pub const MAX_MR: usize = 12;

/// Words of K in one pass over the weight at most: long sums would not leave room in the L2 cache for what a pass reuses.
/// A multiple of a partial sum.
const PASS_WORDS: usize = 1024;

/// Bytes of the left operand that a pass reuses from panel to panel: half of an L2 cache.
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
    /// How many panels of output columns it has.
    pub fn panels(&self) -> usize {
        self.bias.len() / PANEL
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
        let Self { a, rows, weight, panels, out, then, next } = self;
        let words = pass_words::<F>(weight.k);
        let block = (BLOCK_BYTES / (words * size_of::<f32>())).max(F::rows::<S>());
        let mut tile = Tile([0.0; MAX_MR * PANEL]);
        for (start, height) in tiles(rows, block) {
            for from in (0..weight.k).step_by(words) {
                let k = from..weight.k.min(from + words);
                let turn = Turn { first: from == 0, last: k.end == weight.k };
                for panel in panels.clone() {
                    let at = |panel: usize, k: usize| {
                        weight.data.as_ptr().wrapping_add((panel * weight.k + k) * PANEL)
                    };
                    let w = at(panel, k.start);
                    // While the first tile computes, what comes next comes into the second-level cache.
                    let next = match (panel + 1 < panels.end, turn.last) {
                        (true, _) => at(panel + 1, k.start),
                        (false, false) => at(panels.start, k.end),
                        (false, true) => next.as_ptr(),
                    };
                    let column = panel * PANEL;
                    for (i, (row, count)) in tiles(start..start + height, F::rows::<S>()).enumerate() {
                        let wanted = if i == 0 { next } else { w };
                        // SAFETY: `new` checked that `a` has the rows and `k` columns and that the weight has the
                        // panel; its caller vouches for the rows and panels being ours.
                        unsafe {
                            let offsets = weight.offsets.as_ptr().wrapping_add(column);
                            let right = Right { words: w, k: k.len(), offsets, wanted };
                            let left = a.at(k.start / PANEL, row);
                            multiply::<S, F>(s, count, left, a.stride(), right, tile.0.as_mut_ptr());
                            let tile = &tile.0[..count * PANEL];
                            let row_scales = a.at(weight.left_panels() - 1, row);
                            let columns = column..column + PANEL;
                            let out = out.at(panel, row);
                            finish::<S, F>(s, tile, row_scales, weight, columns, then, turn, out);
                        }
                    }
                }
            }
        }
    }
}

/// Words of one pass over sums of `k` words: passes of nearly the same length, whole partial sums. One pass for int8,
/// whose sums are exact before they are scaled.
fn pass_words<F: Format>(k: usize) -> usize {
    let Some(partial) = F::PARTIAL.checked_mul(PANEL) else { return k };
    k.div_ceil(k.div_ceil(PASS_WORDS)).next_multiple_of(partial)
}

/// Which pass over K it is.
#[derive(Clone, Copy)]
struct Turn {
    first: bool,
    last: bool,
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

/// On a cache line of its own.
#[repr(align(64))]
struct Tile([f32; MAX_MR * PANEL]);

/// Cut rows into tiles of nearly equal height, at most `mr`: 16 rows are 8 + 8, not 12 + 4.
#[inline(always)]
pub fn tiles(rows: Range<usize>, mr: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = rows.len().div_ceil(mr).max(1);
    let (height, taller) = (rows.len() / count, rows.len() % count);
    (0..count)
        .map(move |i| (rows.start + i * height + i.min(taller), height + usize::from(i < taller)))
        .filter(|(_, height)| *height > 0)
}

/// A right operand as a tile reads it.
#[derive(Clone, Copy)]
pub(super) struct Right {
    /// `[k][32]` words.
    words: *const f32,
    /// In words.
    k: usize,
    /// What int8 sums begin with, 32 of them; other formats do not look at it.
    offsets: *const f32,
    /// What is brought into the second-level cache meanwhile: as much as the operand itself.
    wanted: *const f32,
}

impl Right {
    /// `[k][32]` words of floats, with nothing wanted meanwhile.
    #[inline(always)]
    pub fn new(words: *const f32, k: usize) -> Self {
        Self { words, k, offsets: std::ptr::null(), wanted: words }
    }
}

/// `out = a b` for `rows <= F::rows()` rows of `a`, and `out` as `[rows][32]` sums.
///
/// `a` is given in panels: word `(i, x)` is at `a[x / 32 * stride + 32 i + x % 32]`.
///
/// # Safety
/// The pointers are valid for that (`wanted` may be anything); `out` overlaps neither `a` nor `b`.
#[inline(always)]
pub(super) unsafe fn multiply<S: Simd, F: Format>(
    s: S,
    rows: usize,
    a: *const f32,
    stride: usize,
    b: Right,
    out: *mut f32,
) {
    macro_rules! by_height {
        ($column:ident: $($height:literal)+) => {
            match rows {
                $($height if F::rows::<S>() >= $height => {
                    let right = Right {
                        words: b.words.add($column),
                        offsets: b.offsets.wrapping_add($column),
                        ..b
                    };
                    tile::<S, F, $height>(s, a, stride, right, out.add($column));
                })+
                _ => unreachable!("a tile of {rows} rows"),
            }
        };
    }
    for column in (0..PANEL).step_by(2 * S::LANES) {
        // SAFETY: the caller's contract, shifted by less than a panel.
        unsafe { by_height!(column: 1 2 3 4 5 6 7 8 9 10 11 12) }
    }
}

/// The accumulators of a tile of `MR` rows and two vectors.
type Sums<S, F, const MR: usize> = [[<F as Format>::Sums<S>; 2]; MR];

/// One tile over the whole of `k`, four steps per turn of the loop; a partial sum per `F::PARTIAL` panels.
#[inline(always)]
unsafe fn tile<S: Simd, F: Format, const MR: usize>(
    s: S,
    mut a: *const f32,
    stride: usize,
    right: Right,
    out: *mut f32,
) {
    let Right { words: mut b, k, offsets, mut wanted } = right;
    let panels = k / PANEL;
    let mut panel = 0usize;
    // SAFETY: `multiply`'s contract; the last panel of `a` may be cut short by `k`.
    unsafe {
        loop {
            let start = [F::start(s, offsets), F::start(s, offsets.wrapping_add(S::LANES))];
            let mut sums: Sums<S, F, MR> = [start; MR];
            let end = panels.min(panel.saturating_add(F::PARTIAL));
            for _ in panel..end {
                for x in (0..PANEL).step_by(4) {
                    four_steps::<S, F, MR>(s, a.add(x), b.add(x * PANEL), &mut sums);
                    for line in 0..8 {
                        s.prefetch(wanted.wrapping_add(line * 16));
                    }
                    wanted = wanted.wrapping_add(128);
                }
                a = a.wrapping_add(stride);
                b = b.wrapping_add(PANEL * PANEL);
            }
            if end == panels {
                for x in (0..k % PANEL / 4 * 4).step_by(4) {
                    four_steps::<S, F, MR>(s, a.add(x), b.add(x * PANEL), &mut sums);
                }
                for x in k % PANEL / 4 * 4..k % PANEL {
                    step::<S, F, MR>(s, a.add(x), b.add(x * PANEL), &mut sums);
                }
            }
            for (i, sum) in sums.into_iter().enumerate() {
                for (half, sum) in sum.into_iter().enumerate() {
                    F::store(s, sum, panel == 0, out.add(i * PANEL + half * S::LANES));
                }
            }
            panel = end;
            if panel == panels {
                break;
            }
        }
    }
}

/// Four steps of `k`.
///
/// # Safety
/// As for four of [`step`], 32 words apart in `b`.
#[inline(always)]
unsafe fn four_steps<S: Simd, F: Format, const MR: usize>(
    s: S,
    a: *const f32,
    b: *const f32,
    sums: &mut Sums<S, F, MR>,
) {
    // SAFETY: the caller's contract.
    unsafe {
        step::<S, F, MR>(s, a, b, sums);
        step::<S, F, MR>(s, a.add(1), b.add(PANEL), sums);
        step::<S, F, MR>(s, a.add(2), b.add(2 * PANEL), sums);
        step::<S, F, MR>(s, a.add(3), b.add(3 * PANEL), sums);
    }
}

/// One step of `k`: two loads, `MR` broadcasts and `2 MR` multiply-adds.
///
/// # Safety
/// `a` is readable at `MR` places 32 words apart, `b` for two vectors.
#[inline(always)]
unsafe fn step<S: Simd, F: Format, const MR: usize>(
    s: S,
    a: *const f32,
    b: *const f32,
    sums: &mut Sums<S, F, MR>,
) {
    // SAFETY: the caller's contract.
    unsafe {
        let (b0, b1) = (F::load(s, b), F::load(s, b.add(S::LANES)));
        for (i, sum) in sums.iter_mut().enumerate() {
            let a = F::splat(s, a.add(i * PANEL));
            sum[0] = F::dot(s, a, b0, sum[0]);
            sum[1] = F::dot(s, a, b1, sum[1]);
        }
    }
}

/// Scales, bias and whatever follows, from the tile in L1 to its place. What earlier passes over K summed up lies there.
///
/// # Safety
/// `out` is valid for `tile.len()` values, which no other thread touches; for int8 `row_scales` is readable at as many
/// places, 32 values apart, as the tile has rows.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn finish<S: Simd, F: Format>(
    s: S,
    tile: &[f32],
    row_scales: *const f32,
    weight: Weight<'_>,
    columns: Range<usize>,
    then: Then,
    turn: Turn,
    out: *mut f32,
) {
    let bias = &weight.bias[columns.clone()];
    let scales = if F::SCALED { &weight.scales[columns] } else { bias };
    let zeros = [0.0; PANEL];
    let bias = if turn.first { bias } else { &zeros };
    let adds = !turn.first || then == Then::Add;
    for (row, sums) in tile.chunks_exact(PANEL).enumerate() {
        // SAFETY: the caller's contract.
        let row_scale = s.splat(if F::SCALED { unsafe { *row_scales.add(row * PANEL) } } else { 1.0 });
        for column in (0..PANEL).step_by(S::LANES) {
            let (bias, scales) = (s.load(&bias[column..]), s.load(&scales[column..]));
            // SAFETY: a tile holds as many rows as `out`; `LANES` divides 32.
            unsafe {
                let mut v = F::finish(s, sums.as_ptr().add(column), row_scale, scales, bias);
                let out = out.add(row * PANEL + column);
                if adds {
                    v = s.add(s.load_ptr(out), v);
                }
                if let (Then::Activate(activation), true) = (then, turn.last) {
                    v = activate(s, activation, v);
                }
                s.store_ptr(v, out);
            }
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

    #[test]
    fn tiles_cover_the_rows_evenly() {
        for rows in 0..100 {
            let cut: Vec<_> = tiles(7..7 + rows, 12).collect();
            assert_eq!(cut.iter().map(|c| c.1).sum::<usize>(), rows);
            assert!(cut.windows(2).all(|w| w[0].0 + w[0].1 == w[1].0 && w[0].1 - w[1].1 <= 1));
            assert!(cut.iter().all(|c| c.1 <= 12) && cut.len() == rows.div_ceil(12));
        }
    }
}
