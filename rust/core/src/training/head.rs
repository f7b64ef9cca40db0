//! One head of one sequence: attention, and the gradient of it.
//!
//! With queries in rows, `s` of them and as many keys: `S = q k^T`, `P = softmax(S)`, `W = P` with some weights dropped,
//! `O = W v`. From `dO`: `dW = dO v^T`, `dv = W^T dO`, `dS = P (D dW - sum(W dW))` with the factors `D` of dropout, `dq = dS
//! k`, `dk = dS^T q`. `P` is computed once more from the logarithm of its denominators.
//!
//! Source: Dao et al., "FlashAttention", NeurIPS 2022, appendix B.

use super::dropout::Dropout;
use super::element::Element;
use crate::ops::attention::{Operands, exponentials, max_of_row};
use crate::ops::formats::Float32;
use crate::ops::tile::{Finish, Left, MAX_MR, Right, Scratch, multiply, tiles};
use crate::ops::{PANEL, Panels, panels_of};
use crate::simd::{Kernel, Simd};
use crate::threads::Shared;

/// Where the values of one head of one sequence are: row `i` is `[start + i * stride..][..head]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub sequence: usize,
    pub number: usize,
    pub start: usize,
    pub stride: usize,
    pub rows: usize,
    pub head: usize,
    /// Of the scores, times `log2(e)`.
    pub scale: f32,
    pub dropout: Option<Dropout>,
}

impl Place {
    /// Rows of matrices in scratch: whole panels, so that they can be transposed.
    fn padded(&self) -> usize {
        self.rows.next_multiple_of(PANEL)
    }
    /// Values of a matrix of the head.
    fn matrix(&self) -> usize {
        self.padded() * panels_of(self.head) * PANEL
    }
    /// Values of a matrix of weights.
    fn weights(&self) -> usize {
        self.padded() * self.padded()
    }
    /// Values of scratch for [`Forward`].
    pub fn forward_scratch(&self) -> usize {
        4 * self.matrix() + self.block() + self.out()
    }
    /// Values of scratch for [`Backward`].
    pub fn backward_scratch(&self) -> usize {
        6 * self.matrix() + 3 * self.weights() + 2 * self.block() + self.out()
    }
    fn block(&self) -> usize {
        MAX_MR * self.padded()
    }
    fn out(&self) -> usize {
        MAX_MR * panels_of(self.head) * PANEL
    }

    /// The rows that count of a matrix in scratch.
    fn counted<'a>(&self, matrix: &'a [f32]) -> Columns<'a> {
        Columns { matrix, stride: self.padded(), k: self.rows }
    }

    /// Some rows of a matrix in scratch.
    fn some<'a>(&self, matrix: &'a [f32], first: usize, count: usize) -> Rows<'a> {
        Rows { matrix, stride: self.padded(), first, count }
    }

    /// Rows times `by` into panels, zeros around them.
    #[inline(always)]
    fn pack<E: Element>(&self, from: &[E], by: f32, to: &mut [f32]) {
        for (panel, to) in to.chunks_exact_mut(self.padded() * PANEL).enumerate() {
            let columns = PANEL.min(self.head - panel * PANEL);
            for (row, to) in to.chunks_exact_mut(PANEL).enumerate() {
                if row >= self.rows {
                    to.fill(0.0);
                    continue;
                }
                let from = &from[self.start + row * self.stride + panel * PANEL..][..columns];
                if columns == PANEL {
                    for i in 0..PANEL {
                        to[i] = from[i].to_f32() * by;
                    }
                } else {
                    to[columns..].fill(0.0);
                    to.iter_mut().zip(from).for_each(|(to, from)| *to = from.to_f32() * by);
                }
            }
        }
    }

    /// Rows of a tile's result, times `by`.
    ///
    /// # Safety
    /// No other thread touches the head's rows of `to`.
    #[inline(always)]
    unsafe fn unpack<E: Element>(&self, tile: &[f32], row: usize, height: usize, by: f32, to: Shared<'_, E>) {
        for i in 0..height {
            let start = self.start + (row + i) * self.stride;
            // SAFETY: the caller's contract.
            let to = unsafe { to.slice(start..start + self.head) };
            for (panel, to) in to.chunks_mut(PANEL).enumerate() {
                let from = &tile[(panel * MAX_MR + i) * PANEL..][..PANEL];
                to.iter_mut().zip(from).for_each(|(to, from)| *to = E::from_f32(from * by));
            }
        }
    }
}

/// `out = softmax(q k^T) v`, and the base-2 logarithms of the denominators.
pub(super) struct Forward<'a, E: Element> {
    pub place: Place,
    pub q: &'a [E],
    pub k: &'a [E],
    pub v: &'a [E],
    /// Its rows of this head belong to this thread.
    pub out: Shared<'a, E>,
    /// (rows,)
    pub lse: &'a mut [f32],
    pub scratch: &'a mut [f32],
}

impl<E: Element> Kernel for Forward<'_, E> {
    type Output = ();
    const F32_ONLY: bool = true;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { place, q, k, v, out, lse, scratch } = self;
        let (rows, padded, head) = (place.rows, place.padded(), panels_of(place.head) * PANEL);
        let [qp, kp, vp, keys, scores, tile] = cut(
            scratch,
            [place.matrix(), place.matrix(), place.matrix(), place.matrix(), place.block(), place.out()],
        );
        place.pack(q, place.scale, qp);
        place.pack(k, 1.0, kp);
        place.pack(v, 1.0, vp);
        transpose(s, kp, padded, head, keys);
        let mut partial = Scratch::new();
        let whole = |matrix| Columns { matrix, stride: head, k: head };
        for (row, height) in tiles(0..rows, S::MR) {
            product(s, place.some(qp, row, height), whole(keys), scores, &mut partial);
            for i in 0..height {
                let max = max_of_row(s, scores, i, rows);
                let sum = exponentials::<S, Float32>(s, scores, i, rows, max);
                lse[row + i] = max + sum.log2();
                let reciprocal = 1.0 / sum;
                let dropped = place.dropout.map(|d| d.row(place.sequence, place.number, row + i));
                for panel in 0..panels_of(rows) {
                    let weights = &mut scores[(panel * MAX_MR + i) * PANEL..][..PANEL];
                    let mut factors = [1.0; PANEL];
                    if let Some(dropped) = dropped {
                        dropped.factors(panel, &mut factors);
                    }
                    for x in (0..PANEL).step_by(S::LANES) {
                        let factor = s.mul(s.load(&factors[x..]), s.splat(reciprocal));
                        s.store(s.mul(s.load(&weights[x..]), factor), &mut weights[x..]);
                    }
                }
            }
            let weights = Rows { matrix: scores, stride: MAX_MR, first: 0, count: height };
            product(s, weights, place.counted(vp), tile, &mut partial);
            // SAFETY: the rows belong to this thread.
            unsafe { place.unpack(tile, row, height, 1.0, out) };
        }
    }
}

/// The gradients of `q`, `k` and `v` from that of the output.
pub(super) struct Backward<'a, E: Element> {
    pub place: Place,
    pub grad: &'a [E],
    pub q: &'a [E],
    pub k: &'a [E],
    pub v: &'a [E],
    /// (rows,), as [`Forward`] wrote it.
    pub lse: &'a [f32],
    /// Of `q`, `k`, `v`; the rows of this head belong to this thread.
    pub grads: [Shared<'a, E>; 3],
    pub scratch: &'a mut [f32],
}

impl<E: Element> Kernel for Backward<'_, E> {
    type Output = ();
    const F32_ONLY: bool = true;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { place, grad, q, k, v, lse, grads: [dq, dk, dv], scratch } = self;
        let (rows, padded, head) = (place.rows, place.padded(), panels_of(place.head) * PANEL);
        let (matrix, all, block) = (place.matrix(), place.weights(), place.block());
        let [qp, kp, vp, gp, keys, values, weights, d_scores, turned, p, dw, tile] = cut(
            scratch,
            [matrix, matrix, matrix, matrix, matrix, matrix, all, all, all, block, block, place.out()],
        );
        place.pack(q, place.scale, qp);
        place.pack(k, 1.0, kp);
        place.pack(v, 1.0, vp);
        place.pack(grad, 1.0, gp);
        transpose(s, kp, padded, head, keys);
        transpose(s, vp, padded, head, values);
        let mut partial = Scratch::new();
        let whole = |matrix| Columns { matrix, stride: head, k: head };
        for (row, height) in tiles(0..rows, S::MR) {
            product(s, place.some(qp, row, height), whole(keys), p, &mut partial);
            product(s, place.some(gp, row, height), whole(values), dw, &mut partial);
            for i in 0..height {
                exponentials::<S, Float32>(s, p, i, rows, lse[row + i]);
                let dropped = place.dropout.map(|d| d.row(place.sequence, place.number, row + i));
                let mut sum = s.splat(0.0);
                for panel in 0..panels_of(rows) {
                    let from = (panel * MAX_MR + i) * PANEL;
                    let to = (panel * padded + row + i) * PANEL;
                    let mut factors = [1.0; PANEL];
                    if let Some(dropped) = dropped {
                        dropped.factors(panel, &mut factors);
                    }
                    for x in (0..PANEL).step_by(S::LANES) {
                        let factor = s.load(&factors[x..]);
                        let weight = s.mul(s.load(&p[from + x..]), factor);
                        let d_weight = s.load(&dw[from + x..]);
                        sum = s.mul_add(weight, d_weight, sum);
                        s.store(weight, &mut weights[to + x..]);
                        s.store(s.mul(d_weight, factor), &mut dw[from + x..]);
                    }
                }
                let sum = s.splat(s.reduce_add(sum));
                for panel in 0..panels_of(rows) {
                    let from = (panel * MAX_MR + i) * PANEL;
                    let to = (panel * padded + row + i) * PANEL;
                    for x in (0..PANEL).step_by(S::LANES) {
                        let d = s.sub(s.load(&dw[from + x..]), sum);
                        s.store(s.mul(s.load(&p[from + x..]), d), &mut d_scores[to + x..]);
                    }
                }
            }
            product(s, place.some(d_scores, row, height), place.counted(kp), tile, &mut partial);
            // SAFETY: the rows belong to this thread.
            unsafe { place.unpack(tile, row, height, place.scale * std::f32::consts::LN_2, dq) };
        }
        // `qp` has the scale and `log2(e)` in it already.
        for (matrix, right, by, to) in
            [(weights, &*gp, 1.0, dv), (d_scores, &*qp, std::f32::consts::LN_2, dk)]
        {
            transpose(s, matrix, padded, padded, turned);
            for (row, height) in tiles(0..rows, S::MR) {
                product(s, place.some(turned, row, height), place.counted(right), tile, &mut partial);
                // SAFETY: the rows belong to this thread.
                unsafe { place.unpack(tile, row, height, by, to) };
            }
        }
    }
}

/// Some rows of a matrix whose panels have `stride` rows.
#[derive(Clone, Copy)]
struct Rows<'a> {
    matrix: &'a [f32],
    stride: usize,
    first: usize,
    count: usize,
}

/// The first `k` rows of each panel of a matrix whose panels have `stride` rows.
#[derive(Clone, Copy)]
struct Columns<'a> {
    matrix: &'a [f32],
    stride: usize,
    k: usize,
}

/// `left right` into panels of [`MAX_MR`] rows.
#[inline(always)]
fn product<S: Simd>(s: S, left: Rows<'_>, right: Columns<'_>, out: &mut [f32], partial: &mut Scratch) {
    let Columns { matrix, stride, k } = right;
    let last = (panels_of(k) - 1) * left.stride + left.first + left.count;
    assert!(k <= stride && left.count <= MAX_MR && last * PANEL <= left.matrix.len());
    let a = Left {
        words: left.matrix[left.first * PANEL..].as_ptr(),
        stride: left.stride * PANEL,
        rows: left.count,
    };
    for (panel, out) in matrix.chunks_exact(stride * PANEL).zip(out.chunks_exact_mut(MAX_MR * PANEL)) {
        // SAFETY: `a` has the rows and `k` columns (checked above), the panel `k` rows, and `out` those of a tile.
        unsafe {
            multiply::<S, Float32>(s, a, Right::new(panel.as_ptr(), k), partial, Store(out.as_mut_ptr()))
        };
    }
}

/// Sums go to a panel of [`MAX_MR`] rows.
#[derive(Clone, Copy)]
struct Store(*mut f32);

impl Finish<Float32> for Store {
    const IN_REGISTERS: bool = true;

    #[inline(always)]
    unsafe fn take<S: Simd>(self, s: S, row: usize, column: usize, sums: [S::F32; 2]) {
        let [low, high] = sums;
        // SAFETY: valid for a tile's rows and 32 columns.
        unsafe {
            let to = self.0.add(row * PANEL + column);
            s.store_ptr(low, to);
            s.store_ptr(high, to.add(S::LANES));
        }
    }
}

/// Turn a matrix over: both extents are whole panels.
#[inline(always)]
fn transpose<S: Simd>(s: S, from: &mut [f32], rows: usize, columns: usize, to: &mut [f32]) {
    assert!(rows.is_multiple_of(PANEL));
    // SAFETY: `Panels::new` checks that there are so many rows in each panel, and they are whole panels.
    unsafe { Float32::pack_keys(s, Panels::new(from, rows, columns / PANEL), 0, rows / PANEL, to) };
}

/// Cut memory into parts.
fn cut<const N: usize>(mut memory: &mut [f32], lengths: [usize; N]) -> [&mut [f32]; N] {
    lengths.map(|length| {
        let (part, rest) = std::mem::take(&mut memory).split_at_mut(length);
        memory = rest;
        part
    })
}
