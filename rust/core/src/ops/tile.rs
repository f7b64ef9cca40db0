//! The micro-kernel: a few rows times 32 columns, accumulators in registers over the whole of K.
//!
//! A tile has up to [`MAX_MR`] rows and two vectors of columns (a panel is one or more tiles wide). What becomes of its
//! sums is up to a [`Finish`], which gets them while they are in registers: products add a bias, attention takes
//! exponentials.

use std::ops::Range;

use super::formats::Format;
use super::panels::PANEL;
use crate::simd::Simd;

/// Rows of the largest tile of any instruction set.
pub const MAX_MR: usize = 12;

/// Words of a cache line.
const LINE: usize = 16;

/// Room for the partial sums of a tile, on a cache line of its own.
#[repr(align(64))]
pub(crate) struct Scratch([f32; MAX_MR * PANEL]);

impl Scratch {
    pub fn new() -> Self {
        Self([0.0; MAX_MR * PANEL])
    }
}

/// What becomes of the sums of a tile.
pub(crate) trait Finish<F: Format>: Copy {
    /// Whether to write out a call for each row: the sums then come in registers. Otherwise they come out of memory, which
    /// is better where taking them needs all registers.
    const IN_REGISTERS: bool;
    /// Take the sums of `2 * LANES` columns from `column` on of the tile's row `row`.
    ///
    /// # Safety
    /// As for the [`multiply`] that it is given to.
    unsafe fn take<S: Simd>(self, s: S, row: usize, column: usize, sums: [F::Sums<S>; 2]);
}

/// A left operand in panels: word `(i, x)` is at `words[x / 32 * stride + 32 i + x % 32]`.
#[derive(Clone, Copy)]
pub(crate) struct Left {
    pub words: *const f32,
    /// In words.
    pub stride: usize,
    /// At most [`Format::rows`].
    pub rows: usize,
}

/// A right operand as a tile reads it.
#[derive(Clone, Copy)]
pub(crate) struct Right {
    /// `[k][32]` words.
    pub words: *const f32,
    /// In words.
    pub k: usize,
    /// What int8 sums begin with, 32 of them; other formats do not look at it.
    pub offsets: *const f32,
    /// What is brought into the second-level cache meanwhile: [`words_ahead`] for every two vectors of columns.
    pub wanted: *const f32,
}

impl Right {
    /// `[k][32]` words of floats, with nothing wanted meanwhile.
    #[inline(always)]
    pub fn new(words: *const f32, k: usize) -> Self {
        Self { words, k, offsets: std::ptr::null(), wanted: words }
    }
}

/// How many words that are wanted next a tile of `k` steps brings near.
#[inline(always)]
pub fn words_ahead<S: Simd>(k: usize) -> usize {
    k / 4 * S::LINES_AHEAD * LINE
}

/// Cut rows into parts of nearly equal height, at most `most`: 16 rows are 8 + 8, not 12 + 4.
#[inline(always)]
pub fn tiles(rows: Range<usize>, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = rows.len().div_ceil(most).max(1);
    let (height, taller) = (rows.len() / count, rows.len() % count);
    (0..count)
        .map(move |i| (rows.start + i * height + i.min(taller), height + usize::from(i < taller)))
        .filter(|(_, height)| *height > 0)
}

/// `finish` takes `a b`.
///
/// # Safety
/// The pointers of the operands are valid for what they say (`wanted` may be anything), and whatever `finish` needs to
/// write these rows and 32 columns.
#[inline(always)]
pub(crate) unsafe fn multiply<S: Simd, F: Format>(
    s: S,
    a: Left,
    b: Right,
    scratch: &mut Scratch,
    finish: impl Finish<F>,
) {
    macro_rules! by_height {
        ($column:ident: $($height:literal)+) => {
            match a.rows {
                $($height if F::rows::<S>() >= $height => {
                    let right = Right {
                        words: b.words.add($column),
                        offsets: b.offsets.wrapping_add($column),
                        wanted: b.wanted.wrapping_add($column / (2 * S::LANES) * words_ahead::<S>(b.k)),
                        ..b
                    };
                    tile::<S, F, _, $height>(s, a, right, scratch, $column, finish);
                })+
                rows => unreachable!("a tile of {rows} rows"),
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
///
/// # Safety
/// As for [`multiply`].
#[inline(always)]
unsafe fn tile<S: Simd, F: Format, E: Finish<F>, const MR: usize>(
    s: S,
    left: Left,
    right: Right,
    scratch: &mut Scratch,
    column: usize,
    finish: E,
) {
    let Left { words: mut a, stride, .. } = left;
    let Right { words: mut b, k, offsets, mut wanted } = right;
    let partial = scratch.0.as_mut_ptr();
    let panels = k / PANEL;
    let mut panel = 0usize;
    // SAFETY: `multiply`'s contract; the last panel of `a` may be cut short by `k`. The scratch holds a tile.
    unsafe {
        loop {
            let start = [F::start(s, offsets), F::start(s, offsets.wrapping_add(S::LANES))];
            let mut sums: Sums<S, F, MR> = [start; MR];
            let end = panels.min(panel.saturating_add(F::PARTIAL));
            for _ in panel..end {
                for x in (0..PANEL).step_by(4) {
                    four_steps::<S, F, MR>(s, a.add(x), b.add(x * PANEL), &mut sums);
                    for line in 0..S::LINES_AHEAD {
                        s.prefetch(wanted.wrapping_add(line * LINE));
                    }
                    wanted = wanted.wrapping_add(S::LINES_AHEAD * LINE);
                }
                a = a.wrapping_add(stride);
                b = b.wrapping_add(PANEL * PANEL);
            }
            let last = end == panels;
            if last {
                for x in (0..k % PANEL / 4 * 4).step_by(4) {
                    four_steps::<S, F, MR>(s, a.add(x), b.add(x * PANEL), &mut sums);
                }
                for x in k % PANEL / 4 * 4..k % PANEL {
                    step::<S, F, MR>(s, a.add(x), b.add(x * PANEL), &mut sums);
                }
            }
            macro_rules! take {
                ($($row:literal)+) => {$(
                    if $row < MR {
                        finish.take(s, $row, column, sums[$row]);
                    }
                )+};
            }
            if panel > 0 {
                for (i, sums) in sums.iter_mut().enumerate() {
                    let at = partial.add(i * 2 * S::LANES);
                    *sums = [F::add(s, at, sums[0]), F::add(s, at.add(S::LANES), sums[1])];
                }
            }
            if last {
                if E::IN_REGISTERS {
                    take!(0 1 2 3 4 5 6 7 8 9 10 11);
                } else {
                    for (i, sums) in sums.into_iter().enumerate() {
                        finish.take(s, i, column, sums);
                    }
                }
                break;
            }
            for (i, sums) in sums.into_iter().enumerate() {
                let at = partial.add(i * 2 * S::LANES);
                F::store(s, sums[0], at);
                F::store(s, sums[1], at.add(S::LANES));
            }
            panel = end;
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

#[cfg(test)]
mod tests {
    use super::*;

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
