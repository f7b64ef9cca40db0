//! Rows of a weight into one panel of a right operand: rotated, rounded, transposed.

use super::convert::{int8_factor, rotate};
use super::formats::Dtype;
use super::panels::PANEL;
use crate::simd::{Kernel, Simd};

/// Pack 32 rows.
#[derive(Debug)]
pub struct Pack<'a> {
    rows: &'a mut [f32],
    columns: usize,
    rotation: usize,
    to: Packed<'a>,
}

/// Where they go.
#[derive(Debug)]
pub struct Packed<'a> {
    /// What the words hold.
    pub dtype: Dtype,
    /// `[columns / values per word][32]` words.
    pub words: &'a mut [f32],
    /// int8: 32 scales, else empty.
    pub scales: &'a mut [f32],
    /// int8: 32 sums as i32, see [`super::gemm::Weight::offsets`], else empty.
    pub offsets: &'a mut [f32],
}

impl<'a> Pack<'a> {
    /// `rows` is `[32][columns]` and is destroyed. `rotation` is the block in which the other operand comes rotated.
    /// Panics on extents that do not fit.
    pub fn new(rows: &'a mut [f32], columns: usize, rotation: usize, to: Packed<'a>) -> Self {
        assert!(columns.is_multiple_of(PANEL) && rows.len() == PANEL * columns);
        assert!(to.words.len() == to.dtype.words(columns) * PANEL);
        let scales = if to.dtype == Dtype::Int8 { PANEL } else { 0 };
        assert!(to.scales.len() == scales && to.offsets.len() == scales);
        assert!(rotation == 1 || to.dtype == Dtype::Int8);
        Self { rows, columns, rotation, to }
    }
}

impl Kernel for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { rows, columns, rotation, to } = self;
        for (i, row) in rows.chunks_exact_mut(columns).enumerate() {
            match to.dtype {
                Dtype::Float32 => {}
                Dtype::BFloat16 => round_bf16(s, row),
                Dtype::Int8 => {
                    let (scale, sum) = quantize(s, row, rotation);
                    to.scales[i] = scale / rotation as f32;
                    to.offsets[i] = f32::from_bits((-128 * sum) as u32);
                }
            }
        }
        transpose(s, rows, columns, to.words);
    }
}

/// A row to bf16, in place: the words fill its first half.
#[inline(always)]
fn round_bf16<S: Simd>(s: S, row: &mut [f32]) {
    for x in (0..row.len()).step_by(S::LANES) {
        let v = s.load(&row[x..]);
        // SAFETY: inside the row; words never overtake the values they come from.
        unsafe { s.store_bf16(v, row.as_mut_ptr().cast::<u16>().add(x)) };
    }
}

/// A row to int8, in place: the words fill its first quarter. Returns its scale and the sum of its integers.
#[inline(always)]
fn quantize<S: Simd>(s: S, row: &mut [f32], rotation: usize) -> (f32, i32) {
    let values = row.as_mut_ptr();
    // SAFETY: the row itself, in place.
    let largest = unsafe { rotate(s, values, PANEL, values, row.len(), rotation) };
    let factor = s.splat(int8_factor(largest));
    for x in (0..row.len()).step_by(S::LANES) {
        let v = s.mul(s.load(&row[x..]), factor);
        // SAFETY: as in `round_bf16`.
        unsafe { s.store_i8(v, row.as_mut_ptr().cast::<u8>().add(x)) };
    }
    let quarter = row.len() / 4;
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut row[..quarter]);
    let mut sum = 0;
    for byte in bytes {
        // Weights are signed on every instruction set.
        *byte = byte.wrapping_sub(S::I8_OFFSET as u8);
        sum += i32::from(*byte as i8);
    }
    (largest / 127.0, sum)
}

/// `[32][columns]`, of which the first `out.len() / 32` words count, to `[words][32]`.
#[inline(always)]
fn transpose<S: Simd>(s: S, rows: &[f32], columns: usize, out: &mut [f32]) {
    let words = out.len() / PANEL;
    assert!(words <= columns && rows.len() == PANEL * columns);
    for x in (0..words).step_by(16) {
        // Words come in eights: the last block may be half a block, which goes by a place of its own.
        let mut half = [0.0; 16 * PANEL];
        let whole = x + 16 <= words;
        let to = if whole { &mut out[x * PANEL..] } else { &mut half[..] };
        assert!(to.len() >= 16 * PANEL);
        let from = x.min(columns - 16);
        for i in [0, 16] {
            // SAFETY: 16 rows of 16 words on both sides: `from + 16 <= columns`.
            unsafe {
                s.transpose16(rows.as_ptr().add(i * columns + from), columns, to.as_mut_ptr().add(i), PANEL);
            }
        }
        if !whole {
            let rest = &mut out[x * PANEL..];
            let count = rest.len();
            rest.copy_from_slice(&half[(x - from) * PANEL..][..count]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Isa;

    fn values(columns: usize) -> Vec<f32> {
        (0..PANEL * columns).map(|i| ((i * 7919 % 1009) as f32 / 504.5 - 1.0) * (1 + i % 7) as f32).collect()
    }

    struct Panel {
        words: Vec<f32>,
        scales: Vec<f32>,
        offsets: Vec<f32>,
    }

    fn pack(isa: Isa, columns: usize, dtype: Dtype, rotation: usize) -> Panel {
        let per_column = if dtype == Dtype::Int8 { PANEL } else { 0 };
        let mut panel = Panel {
            words: vec![f32::NAN; dtype.words(columns) * PANEL],
            scales: vec![0.0; per_column],
            offsets: vec![0.0; per_column],
        };
        let to =
            Packed { dtype, words: &mut panel.words, scales: &mut panel.scales, offsets: &mut panel.offsets };
        isa.run(Pack::new(&mut values(columns), columns, rotation, to));
        panel
    }

    /// Value `x` of row `i`, as its word holds it.
    fn at(panel: &Panel, dtype: Dtype, i: usize, x: usize) -> f32 {
        let per_word = dtype.per_word();
        let word = panel.words[x / per_word * PANEL + i].to_bits();
        match dtype {
            Dtype::Float32 => f32::from_bits(word),
            Dtype::BFloat16 => f32::from_bits(word >> (16 * (x % 2)) << 16),
            Dtype::Int8 => f32::from(word.to_le_bytes()[x % 4] as i8) * panel.scales[i],
        }
    }

    #[test]
    fn every_value_is_where_it_belongs_and_rounded_once() {
        for isa in Isa::available() {
            for columns in [32, 64, 96, 160, 384] {
                let rows = values(columns);
                for dtype in Dtype::ALL {
                    let panel = pack(isa, columns, dtype, 1);
                    for i in 0..PANEL {
                        let row = &rows[i * columns..][..columns];
                        let largest = row.iter().fold(0f32, |a, b| a.max(b.abs()));
                        for (x, want) in row.iter().enumerate() {
                            let bound = match dtype {
                                Dtype::Float32 => 0.0,
                                Dtype::BFloat16 => want.abs() / 256.0,
                                Dtype::Int8 => largest / 127.0 * 0.501,
                            };
                            let got = at(&panel, dtype, i, x);
                            assert!(
                                (got - want).abs() <= bound,
                                "{} {dtype:?} {columns} at ({i}, {x}): {got} for {want}",
                                isa.name()
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn rotated_rows_rotate_back_and_offsets_are_sums() {
        for isa in Isa::available() {
            for (columns, rotation) in [(32, 2), (64, 16), (96, 32), (384, 128)] {
                let panel = pack(isa, columns, Dtype::Int8, rotation);
                let rows = values(columns);
                for i in 0..PANEL {
                    let got: Vec<f32> = (0..columns).map(|x| at(&panel, Dtype::Int8, i, x)).collect();
                    let sum: f32 = got.iter().map(|x| (x / panel.scales[i]).round()).sum();
                    assert_eq!(panel.offsets[i].to_bits() as i32, -128 * sum as i32);
                    for (x, want) in rows[i * columns..][..columns].iter().enumerate() {
                        let sign =
                            |y: usize| 1.0 - 2.0 * ((x & y) % rotation).count_ones().rem_euclid(2) as f32;
                        let block = x / rotation * rotation;
                        let back: f32 = (block..block + rotation).map(|y| got[y] * sign(y)).sum();
                        let bound = panel.scales[i] * rotation as f32 * 0.51;
                        assert!((back - want).abs() <= bound, "{rotation} at ({i}, {x}): {back} for {want}");
                    }
                }
            }
        }
    }

    #[test]
    fn packed_bytes_are_the_same_on_every_isa() {
        for dtype in Dtype::ALL {
            let bits = |isa| {
                let panel = pack(isa, 384, dtype, if dtype == Dtype::Int8 { 128 } else { 1 });
                [panel.words, panel.scales, panel.offsets]
                    .map(|x| x.into_iter().map(f32::to_bits).collect::<Vec<_>>())
            };
            let all: Vec<_> = Isa::available().into_iter().map(bits).collect();
            assert!(all.windows(2).all(|w| w[0] == w[1]), "{dtype:?}");
        }
    }
}
