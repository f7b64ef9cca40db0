//! The packed weights of a model: planned, filled tensor by tensor, then read-only.

use std::ops::Range;
use std::sync::Arc;

use crate::checkpoint::{Checkpoint, Tensor};
use crate::config::Config;
use crate::memory::{Block, Layout, Region};
use crate::ops::gemm::{Gemm, Then, Weight};
use crate::ops::{PANEL, Panels, panels_of};
use crate::simd::{Isa, Kernel, Simd};
use crate::threads::Pool;
use crate::{Error, Result};

/// A packed matrix and its bias, as places in the region.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Range<usize>,
    bias: Range<usize>,
    k: usize,
}

/// Scale and shift of a LayerNorm, padded with zeros.
#[derive(Clone, Debug)]
pub struct Norm {
    /// Scale.
    pub gamma: Range<usize>,
    /// Shift.
    pub beta: Range<usize>,
}

/// One layer.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Queries, keys and values: each head's columns padded to whole panels.
    pub qkv: Linear,
    /// From the heads (padded alike) to the hidden state.
    pub attention_output: Linear,
    /// After attention.
    pub attention_norm: Norm,
    /// First feed-forward matrix.
    pub intermediate: Linear,
    /// Second feed-forward matrix.
    pub output: Linear,
    /// After the feed-forward part.
    pub output_norm: Norm,
}

/// All that a forward pass reads.
#[derive(Debug)]
pub struct Weights {
    region: Region,
    /// Word embeddings, mapped from the checkpoint: a text touches a few rows only.
    pub words: Tensor,
    /// Position embeddings, rows of padded width.
    pub positions: Range<usize>,
    /// Token type embeddings, rows of padded width.
    pub token_types: Range<usize>,
    /// After the embeddings.
    pub embedding_norm: Norm,
    /// The layers.
    pub layers: Vec<Layer>,
    /// The dense layer on the first token, if the checkpoint has one.
    pub pooler: Option<Linear>,
    /// Tensors of the checkpoint that no part of the encoder reads.
    pub unused: Vec<String>,
}

impl Weights {
    /// Values at a place.
    pub fn get(&self, range: &Range<usize>) -> &[f32] {
        &self.region.as_slice()[range.clone()]
    }

    /// A packed matrix for the GEMM.
    pub fn linear(&self, linear: &Linear) -> Weight<'_> {
        Weight { data: self.get(&linear.weight), k: linear.k, bias: self.get(&linear.bias) }
    }

    /// Bytes of the packed region.
    pub fn packed_bytes(&self) -> usize {
        size_of_val(self.region.as_slice())
    }

    /// Pack a checkpoint.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] listing every tensor that is missing or misshapen.
    pub fn pack(config: &Config, checkpoint: &Checkpoint, isa: Isa, threads: usize) -> Result<Self> {
        let mut plan = Plan::new(config, checkpoint)?;
        let layers: Vec<Layer> =
            (0..config.num_hidden_layers).map(|layer| plan.layer(config, layer)).collect();
        let positions = plan.copy("embeddings.position_embeddings.weight");
        let token_types = plan.copy("embeddings.token_type_embeddings.weight");
        let embedding_norm = plan.norm("embeddings.LayerNorm");
        let pooler = plan.has_pooler.then(|| plan.linear("pooler.dense", config.hidden_size));
        let words = plan.tensor("embeddings.word_embeddings.weight");
        let unused = plan.unused();
        Ok(Self {
            region: plan.fill(isa, threads)?,
            words,
            positions,
            token_types,
            embedding_norm,
            layers,
            pooler,
            unused,
        })
    }
}

/// One matrix out of several tensors, one below the other, and how their rows and columns spread over padded ones.
#[derive(Debug)]
struct Matrix {
    to: Linear,
    /// Weight, bias and a factor for both.
    parts: Vec<(Tensor, Tensor, f32)>,
    /// Output columns come in groups of `columns.0`, each padded to `columns.1`; the length of the sum likewise.
    columns: Group,
    sum: Group,
}

/// So many values, padded to so many.
#[derive(Clone, Copy, Debug)]
struct Group {
    size: usize,
    padded: usize,
}

impl Group {
    fn padded_to_panels(size: usize) -> Self {
        Self { size, padded: panels_of(size) * PANEL }
    }

    /// Where the padded index `i` comes from.
    fn source(self, i: usize) -> Option<usize> {
        let (group, at) = (i / self.padded, i % self.padded);
        (at < self.size).then(|| group * self.size + at)
    }
}

#[derive(Debug)]
struct Plan<'a> {
    checkpoint: &'a Checkpoint,
    tensors: std::collections::BTreeMap<String, Tensor>,
    layout: Layout,
    matrices: Vec<Matrix>,
    /// Tensors whose rows are copied, padded.
    copies: Vec<(Tensor, Range<usize>)>,
    has_pooler: bool,
    head: Group,
}

impl<'a> Plan<'a> {
    fn new(config: &Config, checkpoint: &'a Checkpoint) -> Result<Self> {
        let has_pooler = checkpoint.contains("pooler.dense.weight");
        let wanted = required(config, has_pooler);
        let found = checkpoint.require(&wanted)?;
        Ok(Self {
            checkpoint,
            tensors: wanted.into_iter().map(|(name, _)| name).zip(found).collect(),
            layout: Layout::default(),
            matrices: Vec::new(),
            copies: Vec::new(),
            has_pooler,
            head: Group::padded_to_panels(config.head_size()),
        })
    }

    fn unused(&self) -> Vec<String> {
        self.checkpoint.names().filter(|name| !self.tensors.contains_key(*name)).map(str::to_owned).collect()
    }

    fn tensor(&self, name: &str) -> Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("{name} was not required")).clone()
    }

    /// Room for `tensor`'s rows (a vector is one row), each padded to whole panels.
    fn copy(&mut self, name: &str) -> Range<usize> {
        let tensor = self.tensor(name);
        let (width, rows) = match tensor.shape() {
            [rows, width] => (*width, *rows),
            shape => (shape[0], 1),
        };
        let range = self.layout.reserve(rows * panels_of(width) * PANEL);
        self.copies.push((tensor, range.clone()));
        range
    }

    fn norm(&mut self, name: &str) -> Norm {
        Norm { gamma: self.copy(&format!("{name}.weight")), beta: self.copy(&format!("{name}.bias")) }
    }

    fn linear(&mut self, name: &str, sum: usize) -> Linear {
        let columns = self.tensor(&format!("{name}.bias")).numel();
        let sum = Group::padded_to_panels(sum);
        self.matrix(&[(name, 1.0)], Group::padded_to_panels(columns), sum)
    }

    fn matrix(&mut self, names: &[(&str, f32)], columns: Group, sum: Group) -> Linear {
        let part = |(name, factor): &(&str, f32)| {
            (self.tensor(&format!("{name}.weight")), self.tensor(&format!("{name}.bias")), *factor)
        };
        let parts: Vec<_> = names.iter().map(part).collect();
        let rows: usize = parts.iter().map(|(_, bias, _)| bias.numel()).sum();
        let n = rows / columns.size * columns.padded;
        let k = parts[0].0.shape()[1] / sum.size * sum.padded;
        let to = Linear { weight: self.layout.reserve(n * k), bias: self.layout.reserve(n), k };
        self.matrices.push(Matrix { to: to.clone(), parts, columns, sum });
        to
    }

    fn layer(&mut self, config: &Config, layer: usize) -> Layer {
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        let [query, key, value] =
            ["query", "key", "value"].map(|part| name(&format!("attention.self.{part}")));
        // Scores arrive as powers of two: the softmax then needs no multiplication.
        let scale = std::f32::consts::LOG2_E / (config.head_size() as f32).sqrt();
        let (head, hidden) = (self.head, config.hidden_size);
        Layer {
            qkv: self.matrix(
                &[(&query, scale), (&key, 1.0), (&value, 1.0)],
                head,
                Group::padded_to_panels(hidden),
            ),
            attention_output: self.matrix(
                &[(&name("attention.output.dense"), 1.0)],
                Group::padded_to_panels(hidden),
                head,
            ),
            attention_norm: self.norm(&name("attention.output.LayerNorm")),
            intermediate: self.linear(&name("intermediate.dense"), hidden),
            output: self.linear(&name("output.dense"), config.intermediate_size),
            output_norm: self.norm(&name("output.LayerNorm")),
        }
    }

    /// Pack everything, tensor by tensor, and let go of the pages behind each.
    fn fill(self, isa: Isa, threads: usize) -> Result<Region> {
        let mut block = Block::zeroed(self.layout.len())?;
        let values = block.as_mut_slice();
        for (tensor, range) in &self.copies {
            let width = *tensor.shape().last().expect("not a scalar");
            let out = &mut values[range.clone()];
            if tensor.shape().len() == 1 {
                tensor.copy_to_f32(&mut out[..width]);
            } else {
                for (row, out) in out.chunks_exact_mut(panels_of(width) * PANEL).enumerate() {
                    tensor.row_to_f32(row, &mut out[..width]);
                }
            }
            tensor.release_pages();
        }
        for matrix in &self.matrices {
            matrix.fill(values, isa, threads);
            for (weight, bias, _) in &matrix.parts {
                weight.release_pages();
                bias.release_pages();
            }
        }
        Ok(Region::Owned(Arc::new(block)))
    }
}

impl Matrix {
    fn fill(&self, values: &mut [f32], isa: Isa, threads: usize) {
        let k = self.to.k;
        // All parts have as many rows.
        let rows_per_part = self.parts[0].1.numel();
        let source = |column: usize| {
            let row = self.columns.source(column)?;
            Some((&self.parts[row / rows_per_part], row % rows_per_part))
        };
        let bias = &mut values[self.to.bias.clone()];
        let mut one = vec![0.0; rows_per_part];
        for (part, (_, tensor, factor)) in self.parts.iter().enumerate() {
            tensor.copy_to_f32(&mut one);
            for (column, out) in bias.iter_mut().enumerate() {
                if let Some(row) = self.columns.source(column).filter(|row| row / rows_per_part == part) {
                    *out = one[row % rows_per_part] * factor;
                }
            }
        }
        let width = self.parts[0].0.shape()[1];
        Pool::global().for_each_chunk(
            threads,
            &mut values[self.to.weight.clone()],
            k * PANEL,
            |panel, out| {
                let mut row = vec![0.0; width];
                let mut block = vec![0.0; PANEL * k];
                for (i, block) in block.chunks_exact_mut(k).enumerate() {
                    let Some(((tensor, _, factor), from)) = source(panel * PANEL + i) else { continue };
                    tensor.row_to_f32(from, &mut row);
                    for (group, out) in row.chunks(self.sum.size).zip(block.chunks_mut(self.sum.padded)) {
                        for (x, out) in group.iter().zip(out) {
                            *out = x * factor;
                        }
                    }
                }
                isa.run(Transpose { block: &block, k, out });
            },
        );
    }
}

/// `[32][k]` to `[k][32]`.
struct Transpose<'a> {
    block: &'a [f32],
    k: usize,
    out: &'a mut [f32],
}

impl Kernel for Transpose<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { block, k, out } = self;
        assert!(block.len() == PANEL * k && out.len() == PANEL * k && k.is_multiple_of(PANEL));
        for x in (0..k).step_by(16) {
            for i in [0, 16] {
                // SAFETY: 16 rows from `i < 32` and 16 columns from `x < k`, on both sides.
                unsafe {
                    let from = block.as_ptr().add(i * k + x);
                    s.transpose16(from, k, out.as_mut_ptr().add(x * PANEL + i), PANEL);
                }
            }
        }
    }
}

/// Every tensor that the encoder needs, with its shape.
pub fn required(config: &Config, pooler: bool) -> Vec<(String, Vec<usize>)> {
    let (d, f) = (config.hidden_size, config.intermediate_size);
    let mut wanted = vec![
        ("embeddings.word_embeddings.weight".to_owned(), vec![config.vocab_size, d]),
        ("embeddings.position_embeddings.weight".to_owned(), vec![config.max_position_embeddings, d]),
        ("embeddings.token_type_embeddings.weight".to_owned(), vec![config.type_vocab_size, d]),
    ];
    let mut pair = |name: String, weight: Vec<usize>| {
        let n = weight[0];
        wanted.push((format!("{name}.weight"), weight));
        wanted.push((format!("{name}.bias"), vec![n]));
    };
    pair("embeddings.LayerNorm".to_owned(), vec![d]);
    for layer in 0..config.num_hidden_layers {
        for (part, shape) in [
            ("attention.self.query", vec![d, d]),
            ("attention.self.key", vec![d, d]),
            ("attention.self.value", vec![d, d]),
            ("attention.output.dense", vec![d, d]),
            ("attention.output.LayerNorm", vec![d]),
            ("intermediate.dense", vec![f, d]),
            ("output.dense", vec![d, f]),
            ("output.LayerNorm", vec![d]),
        ] {
            pair(format!("encoder.layer.{layer}.{part}"), shape);
        }
    }
    if pooler {
        pair("pooler.dense".to_owned(), vec![d, d]);
    }
    wanted
}

/// A dense layer by itself, for whatever a model applies to its sentence vectors.
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
        let linear = Linear { weight: layout.reserve(n * k), bias: layout.reserve(n), k };
        let mut block = Block::zeroed(layout.len())?;
        for (panel, out) in
            block.as_mut_slice()[linear.weight.clone()].chunks_exact_mut(PANEL * k).enumerate()
        {
            let mut rows = vec![0.0; PANEL * k];
            let from = weight.chunks_exact(inputs).skip(panel * PANEL);
            for (row, from) in rows.chunks_exact_mut(k).zip(from) {
                row[..inputs].copy_from_slice(from);
            }
            isa.run(Transpose { block: &rows, k, out });
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
        let values = self.region.as_slice();
        let (data, bias) = (&values[self.linear.weight.clone()], &values[self.linear.bias.clone()]);
        let weight = Weight { data, k: self.linear.k, bias };
        let (k, n) = (self.linear.k / PANEL, weight.panels());
        let mut block = Block::zeroed(rows * (k + n) * PANEL)?;
        let (a, b) = block.as_mut_slice().split_at_mut(rows * k * PANEL);
        let (a, b) = (Panels::new(a, rows, k), Panels::new(b, rows, n));
        // SAFETY: one thread, disjoint memory.
        unsafe {
            for (row, x) in x.chunks_exact(self.inputs).enumerate() {
                a.write_row(row, x);
            }
            isa.run(Gemm::new(a, 0..rows, weight, 0..n, b, Then::Store));
            for (row, out) in out.chunks_exact_mut(self.outputs).enumerate() {
                b.read_row(row, out);
            }
        }
        Ok(())
    }
}
