//! How long single operations take on one core, their operands in its caches as in a forward pass.

use std::time::{Duration, Instant};

use super::activation::{Activation, activate};
use super::attention::{Attention, softmax_row};
use super::convert::{Convert, Target, rotation_of};
use super::formats::{Dtype, Float32};
use super::gemm::{Gemm, Then, Weight, left_panels};
use super::layer_norm::LayerNorm;
use super::panels::{PANEL, Panels, panels_of};
use super::tile::MAX_MR;
use crate::memory::Block;
use crate::simd::{Isa, Kernel, Simd};
use crate::{Error, Result};

/// An operation and its sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `m x k` times `k x n`, stored.
    Gemm(usize, usize, usize),
    /// The same, stored after GELU.
    GemmGelu(usize, usize, usize),
    /// One head of this size over as many queries as keys: `tokens, head`.
    Attention(usize, usize),
    /// Softmax of `rows` of scores over `columns` keys.
    Softmax(usize, usize),
    /// GELU of `rows x columns` values.
    Gelu(usize, usize),
    /// Normalize `rows` of `columns` values.
    LayerNorm(usize, usize),
    /// Convert `rows` of `columns` values for a product: rounded to bf16, or rotated and quantized.
    Convert(usize, usize),
}

impl Op {
    /// The operation of a name and its sizes.
    ///
    /// # Errors
    /// [`Error::Value`] if there is none of that name, with that many sizes, or a size is 0.
    pub fn new(name: &str, sizes: &[usize]) -> Result<Self> {
        match (name, sizes) {
            _ if sizes.contains(&0) => Err(Error::Value(format!("{name}: a size is 0: {sizes:?}"))),
            ("gemm", &[m, n, k]) => Ok(Self::Gemm(m, n, k)),
            ("gemm_gelu", &[m, n, k]) => Ok(Self::GemmGelu(m, n, k)),
            ("attention", &[tokens, head]) => Ok(Self::Attention(tokens, head)),
            ("softmax", &[rows, columns]) => Ok(Self::Softmax(rows, columns)),
            ("gelu", &[rows, columns]) => Ok(Self::Gelu(rows, columns)),
            ("layer_norm", &[rows, columns]) => Ok(Self::LayerNorm(rows, columns)),
            ("convert", &[rows, columns]) => Ok(Self::Convert(rows, columns)),
            _ => Err(Error::Value(format!("no operation {name:?} of {} sizes", sizes.len()))),
        }
    }

    /// Seconds of one run on the calling thread: the shortest of those that fit into `duration`, one at least.
    ///
    /// # Errors
    /// [`Error::Value`] if the operation does not compute in `dtype`, or there is not enough memory.
    pub fn seconds(self, dtype: &str, isa: Isa, duration: Duration) -> Result<f64> {
        let dtype = Dtype::from_name(dtype)?;
        let computes = match self {
            Self::Gemm(..) | Self::GemmGelu(..) => true,
            Self::Attention(..) => dtype != Dtype::Int8,
            Self::Convert(..) => dtype != Dtype::Float32,
            _ => dtype == Dtype::Float32,
        };
        if !computes || !dtype.runs_on(isa) {
            return Err(Error::Value(format!(
                "{self:?} does not compute in {} on {}",
                dtype.name(),
                isa.name()
            )));
        }
        match self {
            Self::Gemm(m, n, k) => gemm(isa, dtype, m, n, k, Then::Store, duration),
            Self::GemmGelu(m, n, k) => gemm(isa, dtype, m, n, k, Then::Activate(Activation::Gelu), duration),
            Self::Attention(tokens, head) => attention(isa, dtype, tokens, head, duration),
            Self::Softmax(rows, columns) => softmax(isa, rows, columns, duration),
            Self::Gelu(rows, columns) => gelu(isa, rows, columns, duration),
            Self::LayerNorm(rows, columns) => layer_norm(isa, rows, columns, duration),
            Self::Convert(rows, columns) => convert(isa, dtype, rows, columns, duration),
        }
    }
}

/// The shortest and not the mean: on a shared machine that is what it takes while nobody interferes.
fn best_seconds(duration: Duration, mut work: impl FnMut()) -> f64 {
    let (start, mut best) = (Instant::now(), f64::INFINITY);
    loop {
        let run = Instant::now();
        work();
        best = best.min(run.elapsed().as_secs_f64());
        if start.elapsed() >= duration {
            return best;
        }
    }
}

/// Values that are neither alike nor extreme.
fn values(len: usize) -> Result<Block> {
    let mut block = Block::zeroed(len)?;
    for (i, x) in block.as_mut_slice().iter_mut().enumerate() {
        *x = (i * 7919 % 1009) as f32 / 1009.0 - 0.4;
    }
    Ok(block)
}

fn gemm(isa: Isa, dtype: Dtype, m: usize, n: usize, k: usize, then: Then, duration: Duration) -> Result<f64> {
    let (words, outputs) = (dtype.words(panels_of(k) * PANEL), panels_of(n));
    let inputs = left_panels(dtype, words);
    // Words of any format: no bit pattern is slow, but those of f32 must be numbers.
    let (mut a, mut out) = (values(m * inputs * PANEL)?, values(m * outputs * PANEL)?);
    let (data, bias) = (values(outputs * words * PANEL)?, vec![0.1f32; outputs * PANEL]);
    let weight =
        Weight { dtype, data: data.as_slice(), k: words, bias: &bias, scales: &bias, offsets: &bias };
    let a = Panels::new(a.as_mut_slice(), m, inputs);
    let out = Panels::new(out.as_mut_slice(), m, outputs);
    Ok(best_seconds(duration, || {
        // SAFETY: one thread, buffers apart.
        unsafe { Gemm::new(a, 0..m, weight, 0..outputs, out, then) }.run(isa);
    }))
}

fn attention(isa: Isa, dtype: Dtype, tokens: usize, head: usize, duration: Duration) -> Result<f64> {
    let panels = panels_of(head);
    // 32 rows of slack behind the keys.
    let mut blocks = [(); 4].map(|()| values((tokens + PANEL) * panels * PANEL));
    let mut scratch = vec![0.0; Attention::scratch_len(tokens, panels)];
    let mut operands = Vec::new();
    for block in &mut blocks {
        let block = block.as_mut().map_err(|e| Error::Value(e.to_string()))?;
        operands.push(Panels::new(block.as_mut_slice(), tokens, panels));
    }
    let (q, k, v, out) = (operands[0], operands[1], operands[2], operands[3]);
    Ok(best_seconds(duration, || {
        // SAFETY: one thread, buffers apart, `k` has the slack.
        unsafe { Attention::new(q, k, v, out, 0..tokens, 0..tokens, dtype, &mut scratch, None) }.run(isa);
    }))
}

/// Rows of scores that lie as attention has them.
struct Softmax<'a> {
    scores: &'a mut [f32],
    columns: usize,
}

impl Kernel for Softmax<'_> {
    const F32_ONLY: bool = true;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for row in 0..MAX_MR {
            softmax_row::<S, Float32>(s, self.scores, row, self.columns);
        }
    }
}

fn softmax(isa: Isa, rows: usize, columns: usize, duration: Duration) -> Result<f64> {
    let mut scores = values(panels_of(columns) * MAX_MR * PANEL)?;
    let blocks = rows.div_ceil(MAX_MR);
    let seconds = best_seconds(duration, || {
        for _ in 0..blocks {
            isa.run(Softmax { scores: scores.as_mut_slice(), columns });
        }
    });
    Ok(seconds * rows as f64 / (blocks * MAX_MR) as f64)
}

/// GELU out of one place into another: in place, again and again, everything would become 0.
struct Gelu<'a> {
    x: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Gelu<'_> {
    const F32_ONLY: bool = true;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (x, out) in self.x.chunks_exact(S::LANES).zip(self.out.chunks_exact_mut(S::LANES)) {
            s.store(activate(s, Activation::Gelu, s.load(x)), out);
        }
    }
}

fn gelu(isa: Isa, rows: usize, columns: usize, duration: Duration) -> Result<f64> {
    let len = rows * panels_of(columns) * PANEL;
    let (x, mut out) = (values(len)?, values(len)?);
    Ok(best_seconds(duration, || isa.run(Gelu { x: x.as_slice(), out: out.as_mut_slice() })))
}

fn layer_norm(isa: Isa, rows: usize, columns: usize, duration: Duration) -> Result<f64> {
    let panels = panels_of(columns);
    let mut x = values(rows * panels * PANEL)?;
    let (gamma, beta) = (vec![1.0; panels * PANEL], vec![0.5; panels * PANEL]);
    let x = Panels::new(x.as_mut_slice(), rows, panels);
    Ok(best_seconds(duration, || {
        // SAFETY: one thread.
        unsafe { isa.run(LayerNorm::new(x, 0..rows, columns, &gamma, &beta, 1e-12)) };
    }))
}

fn convert(isa: Isa, dtype: Dtype, rows: usize, columns: usize, duration: Duration) -> Result<f64> {
    let panels = panels_of(columns);
    let operand = left_panels(dtype, dtype.words(panels * PANEL));
    let (mut x, mut words) = (values(rows * panels * PANEL)?, values(rows * operand * PANEL)?);
    let x = Panels::new(x.as_mut_slice(), rows, panels);
    let words = Panels::new(words.as_mut_slice(), rows, operand);
    let to = Target { words, dtype, rotation: rotation_of(columns) };
    let mut scratch = vec![0.0; panels * PANEL];
    Ok(best_seconds(duration, || {
        // SAFETY: one thread, buffers apart.
        isa.run(unsafe { Convert::new(x, 0..rows, to, &mut scratch) });
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_takes_some_time_on_every_isa() {
        let f32_only = ["softmax", "gelu", "layer_norm"];
        for (isa, dtype) in Isa::available().into_iter().flat_map(|isa| Dtype::ALL.map(|dtype| (isa, dtype)))
        {
            for (name, sizes) in [
                ("gemm", &[5, 40, 70][..]),
                ("gemm_gelu", &[5, 40, 70]),
                ("attention", &[33, 40]),
                ("softmax", &[7, 45]),
                ("gelu", &[3, 50]),
                ("layer_norm", &[3, 50]),
                ("convert", &[3, 50]),
            ] {
                let is_f32 = dtype == Dtype::Float32;
                let wrong = match name {
                    "convert" => is_f32,
                    "attention" => dtype == Dtype::Int8,
                    _ => f32_only.contains(&name) && !is_f32,
                };
                let seconds = Op::new(name, sizes).unwrap().seconds(dtype.name(), isa, Duration::ZERO);
                let place = format!("{name} {dtype:?} on {}", isa.name());
                if wrong || !dtype.runs_on(isa) {
                    assert!(seconds.is_err(), "{place}");
                } else {
                    let seconds = seconds.unwrap();
                    assert!(seconds > 0.0 && seconds.is_finite(), "{place}: {seconds}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_operation_is_an_error() {
        for (name, sizes) in [("gemm", &[5, 40][..]), ("gemm", &[5, 0, 40]), ("sort", &[3])] {
            assert!(Op::new(name, sizes).is_err(), "{name} {sizes:?}");
        }
    }
}
