//! A dense layer by itself, for whatever a model applies to its sentence vectors.

use std::sync::Arc;

use super::structure::Linear;
use crate::memory::{Block, Layout, Region};
use crate::ops::gemm::{Gemm, Then};
use crate::ops::pack::{Pack, Packed};
use crate::ops::{Dtype, PANEL, Panels, panels_of};
use crate::simd::Isa;
use crate::{Error, Result};

/// Weights and bias, packed.
#[derive(Debug)]
pub struct Dense {
    region: Region,
    linear: Linear,
    /// Width of its input.
    pub inputs: usize,
    /// Width of its output.
    pub outputs: usize,
}

impl Dense {
    /// Pack a row-major `(outputs, inputs)` matrix; no bias means zeros.
    ///
    /// # Errors
    /// [`Error::Shape`] if the lengths do not fit one another.
    pub fn new(
        weight: &[f32],
        inputs: usize,
        outputs: usize,
        bias: Option<&[f32]>,
        isa: Isa,
    ) -> Result<Self> {
        if inputs == 0 || outputs == 0 || Some(weight.len()) != inputs.checked_mul(outputs) {
            return Err(Error::Shape(format!(
                "weight: expected {outputs} x {inputs} values, got {}",
                weight.len()
            )));
        }
        if let Some(bias) = bias.filter(|bias| bias.len() != outputs) {
            return Err(Error::Shape(format!("bias: expected {outputs} values, got {}", bias.len())));
        }
        let (n, k) = (panels_of(outputs) * PANEL, panels_of(inputs) * PANEL);
        let mut layout = Layout::default();
        let linear = Linear::reserve(&mut layout, n, k, Dtype::Float32, 1);
        let mut block = Block::zeroed(layout.len())?;
        for (panel, words) in
            block.as_mut_slice()[linear.weight.clone()].chunks_exact_mut(PANEL * k).enumerate()
        {
            let mut rows = vec![0.0; PANEL * k];
            let from = weight.chunks_exact(inputs).skip(panel * PANEL);
            for (row, from) in rows.chunks_exact_mut(k).zip(from) {
                row[..inputs].copy_from_slice(from);
            }
            let to = Packed { dtype: linear.dtype, words, scales: &mut [], offsets: &mut [] };
            isa.run(Pack::new(&mut rows, k, 1, to));
        }
        if let Some(bias) = bias {
            block.as_mut_slice()[linear.bias.clone()][..outputs].copy_from_slice(bias);
        }
        Ok(Self { region: Region::Owned(Arc::new(block)), linear, inputs, outputs })
    }

    /// `x w^T + bias` for row-major `x` (rows, inputs) into `out` (rows, outputs).
    ///
    /// # Errors
    /// [`Error::Shape`] if the lengths do not fit, [`Error::Value`] for no memory.
    pub fn apply(&self, x: &[f32], out: &mut [f32], isa: Isa) -> Result<()> {
        let rows = x.len() / self.inputs;
        if x.len() != rows * self.inputs || out.len() != rows * self.outputs {
            let (inputs, outputs) = (self.inputs, self.outputs);
            return Err(Error::Shape(format!(
                "x: expected rows of {inputs} values and as many rows of {outputs} in the output, got {} and {}",
                x.len(),
                out.len()
            )));
        }
        let weight = self.linear.weight(self.region.as_slice());
        let (k, n) = (self.linear.k / PANEL, weight.panels());
        let mut block = Block::zeroed(rows * (k + n) * PANEL)?;
        let (a, b) = block.as_mut_slice().split_at_mut(rows * k * PANEL);
        let (a, b) = (Panels::new(a, rows, k), Panels::new(b, rows, n));
        // SAFETY: one thread, disjoint memory.
        unsafe {
            for (row, x) in x.chunks_exact(self.inputs).enumerate() {
                a.write_row(row, x);
            }
            Gemm::new(a, 0..rows, weight, 0..n, b, Then::Store).run(isa);
            for (row, out) in out.chunks_exact_mut(self.outputs).enumerate() {
                b.read_row(row, out);
            }
        }
        Ok(())
    }
}
