//! From a checkpoint to packed weights: tensor by tensor into one region.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::extras::Extras;
use super::structure::{Matrix, Part, Structure, Table, required, words};
use super::weights::Weights;
use crate::Result;
use crate::checkpoint::{Checkpoint, Tensor};
use crate::config::Config;
use crate::head::Task;
use crate::memory::{Block, Region};
use crate::ops::pack::{Pack, Packed};
use crate::ops::{Dtype, PANEL};
use crate::simd::Isa;
use crate::threads::{Pool, Shared};

/// Everything that the encoder reads of a checkpoint, and the plan of where it goes.
#[derive(Debug)]
pub struct Packing<'a> {
    config: &'a Config,
    checkpoint: &'a Checkpoint,
    tensors: BTreeMap<String, Tensor>,
    /// The plan.
    pub structure: Structure,
}

impl<'a> Packing<'a> {
    /// Find all tensors.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](crate::Error) listing every tensor that is missing or misshapen, [`Error::Value`](crate::Error)
    /// for a task that the family has no head for.
    pub fn new(
        config: &'a Config,
        checkpoint: &'a Checkpoint,
        dtypes: &[Dtype],
        task: Option<Task>,
    ) -> Result<Self> {
        let extras = Extras::of(config, checkpoint, task)?;
        let wanted = required(config, &extras);
        let found = checkpoint.require(&wanted)?;
        let tensors = wanted.into_iter().map(|(name, _)| name).zip(found).collect();
        Ok(Self { config, checkpoint, tensors, structure: Structure::new(config, dtypes, &extras) })
    }

    /// The word embeddings.
    pub fn words(&self) -> &Tensor {
        self.tensor(&words(self.config))
    }

    fn tensor(&self, name: &str) -> &Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("{name} was not required"))
    }

    /// Pack everything and let go of the pages behind each tensor. The bytes do not depend on `isa`.
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error) for no memory.
    pub fn fill(&self, isa: Isa, threads: usize) -> Result<Block> {
        let mut block = Block::zeroed(self.structure.len())?;
        let values = block.as_mut_slice();
        for table in &self.structure.tables {
            copy_rows(table, self.tensor(&table.name), &mut values[table.to.clone()]);
        }
        for matrix in &self.structure.matrices {
            let parts: Vec<_> = matrix.parts.iter().map(|part| self.source(part)).collect();
            fill(matrix, &parts, values, isa, threads);
            for part in parts {
                part.weight.release_pages();
                part.bias.release_pages();
            }
        }
        Ok(block)
    }

    /// The weights for a forward pass.
    ///
    /// # Errors
    /// As [`Packing::fill`].
    pub fn weights(self, isa: Isa, threads: usize) -> Result<Weights> {
        let region = Region::Owned(Arc::new(self.fill(isa, threads)?));
        let unused = self.checkpoint.names().filter(|name| !self.tensors.contains_key(*name));
        let unused = unused.map(str::to_owned).collect();
        let words = self.words().clone();
        Ok(Weights::new(region, self.config, self.structure, words, unused))
    }

    fn source<'b>(&'b self, part: &'b Part) -> Source<'b> {
        let [weight, bias] = [&part.weight, &part.bias].map(|name| self.tensor(name));
        Source { part, weight, bias }
    }
}

fn copy_rows(table: &Table, tensor: &Tensor, out: &mut [f32]) {
    let width = table.width;
    for (row, out) in out.chunks_exact_mut(width.len()).enumerate() {
        match table.rows {
            Some(_) => tensor.row_to_f32(row, &mut out[..width.size]),
            None => tensor.copy_to_f32(&mut out[..width.size]),
        }
    }
    tensor.release_pages();
}

/// A part of a matrix with its tensors.
struct Source<'a> {
    part: &'a Part,
    weight: &'a Tensor,
    bias: &'a Tensor,
}

impl Source<'_> {
    /// Its weight, row by row, and its bias, both times the factor and rotated.
    fn read(&self, threads: usize) -> (Rows<'_>, Vec<f32>) {
        let Part { factor, rotation, .. } = *self.part;
        let [count, width] = [0, 1].map(|axis| self.weight.shape()[axis]);
        let mut bias = vec![0.0; count];
        self.bias.copy_to_f32(&mut bias);
        mix_rows(&mut bias, 1, rotation);
        bias.iter_mut().for_each(|x| *x *= factor);
        if rotation == 1 {
            return (Rows::Read(self), bias);
        }
        let mut rows = vec![0.0; count * width];
        Pool::global().for_each_chunk(threads, &mut rows, rotation * width, |block, out| {
            for (i, out) in out.chunks_exact_mut(width).enumerate() {
                self.row(block * rotation + i, out);
            }
            mix_rows(out, width, rotation);
        });
        (Rows::Made(rows), bias)
    }

    fn row(&self, row: usize, out: &mut [f32]) {
        self.weight.row_to_f32(row, out);
        if self.part.factor != 1.0 {
            out.iter_mut().for_each(|x| *x *= self.part.factor);
        }
    }
}

/// The rows of a part: read when they are wanted, or made before because each needs others.
enum Rows<'a> {
    Read(&'a Source<'a>),
    Made(Vec<f32>),
}

impl Rows<'_> {
    fn copy(&self, row: usize, out: &mut [f32]) {
        match self {
            Self::Read(source) => source.row(row, out),
            Self::Made(rows) => out.copy_from_slice(&rows[row * out.len()..][..out.len()]),
        }
    }
}

/// Multiply blocks of `block` rows with the Hadamard matrix of ones and minus ones.
fn mix_rows(rows: &mut [f32], width: usize, block: usize) {
    for rows in rows.chunks_exact_mut(block * width) {
        let mut apart = 1;
        while apart < block {
            for pair in rows.chunks_exact_mut(2 * apart * width) {
                let (low, high) = pair.split_at_mut(apart * width);
                for (low, high) in low.iter_mut().zip(high) {
                    (*low, *high) = (*low + *high, *low - *high);
                }
            }
            apart *= 2;
        }
    }
}

fn fill(matrix: &Matrix, parts: &[Source<'_>], values: &mut [f32], isa: Isa, threads: usize) {
    let Matrix { to, columns, sum, .. } = matrix;
    let (rows, biases): (Vec<_>, Vec<_>) = parts.iter().map(|part| part.read(threads)).unzip();
    // All parts have as many rows.
    let per_part = biases[0].len();
    let source = |column: usize| {
        let row = columns.value_at(column)?;
        Some((row / per_part, row % per_part))
    };
    for (column, out) in values[to.bias.clone()].iter_mut().enumerate() {
        if let Some((part, row)) = source(column) {
            *out = biases[part][row];
        }
    }
    let width = sum.count * sum.size;
    // The scales and offsets lie behind the weight.
    let (words, behind) = values[to.weight.start..].split_at_mut(to.weight.len());
    let behind = Shared::new(behind);
    let per_column = |range: &Range<usize>, panel: usize| {
        let (start, len) = (range.start - to.weight.end, if range.is_empty() { 0 } else { PANEL });
        // SAFETY: each panel once, and the two ranges do not overlap.
        unsafe { behind.slice(start + panel * len..start + (panel + 1) * len) }
    };
    Pool::global().for_each_chunk(threads, words, to.k * PANEL, |panel, words| {
        let mut block = vec![0.0; PANEL * sum.len()];
        let mut row = vec![0.0; width];
        for (i, block) in block.chunks_exact_mut(sum.len()).enumerate() {
            let Some((part, from)) = source(panel * PANEL + i) else { continue };
            rows[part].copy(from, &mut row);
            for (group, out) in row.chunks(sum.size).zip(block.chunks_mut(sum.padded())) {
                out[..group.len()].copy_from_slice(group);
            }
        }
        let (scales, offsets) = (per_column(&to.scales, panel), per_column(&to.offsets, panel));
        let packed = Packed { dtype: to.dtype, words, scales, offsets };
        isa.run(Pack::new(&mut block, sum.len(), matrix.rotation, packed));
    });
}
