//! The packed weights of a model: planned, filled tensor by tensor, then read-only.

use std::ops::Range;
use std::sync::Arc;

use crate::checkpoint::{Checkpoint, Tensor};
use crate::config::Config;
use crate::memory::{Block, Layout, Region};
use crate::ops::convert::rotation_of;
use crate::ops::gemm::{Gemm, Then, Weight, left_panels};
use crate::ops::pack::{Pack, Packed};
use crate::ops::{Dtype, PANEL, Panels, panels_of};
use crate::simd::Isa;
use crate::threads::{Pool, Shared};
use crate::{Error, Result};

/// A packed matrix and its bias, as places in the region.
#[derive(Clone, Debug)]
pub struct Linear {
    /// What the words of the weight hold.
    pub dtype: Dtype,
    /// int8: the block in which its input is rotated, 1 where that is folded into what produces the input.
    pub rotation: usize,
    weight: Range<usize>,
    bias: Range<usize>,
    scales: Range<usize>,
    offsets: Range<usize>,
    /// Words of a sum.
    k: usize,
}

impl Linear {
    /// Panels of its left operand.
    pub fn left_panels(&self) -> usize {
        left_panels(self.dtype, self.k)
    }

    fn weight<'a>(&self, region: &'a [f32]) -> Weight<'a> {
        Weight {
            dtype: self.dtype,
            data: &region[self.weight.clone()],
            k: self.k,
            bias: &region[self.bias.clone()],
            scales: &region[self.scales.clone()],
            offsets: &region[self.offsets.clone()],
        }
    }

    /// Room for `n` x `columns`, both padded.
    fn reserve(layout: &mut Layout, n: usize, columns: usize, dtype: Dtype, rotation: usize) -> Self {
        let k = dtype.words(columns);
        let per_column = if dtype == Dtype::Int8 { n } else { 0 };
        Self {
            dtype,
            rotation,
            weight: layout.reserve(n * k),
            bias: layout.reserve(n),
            scales: layout.reserve(per_column),
            offsets: layout.reserve(per_column),
            k,
        }
    }
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
        linear.weight(self.region.as_slice())
    }

    /// Panels of the widest left operand that is not f32.
    pub fn operand_panels(&self) -> usize {
        self.layers
            .iter()
            .flat_map(|layer| [&layer.qkv, &layer.attention_output, &layer.intermediate, &layer.output])
            .filter(|linear| linear.dtype != Dtype::Float32)
            .map(Linear::left_panels)
            .max()
            .unwrap_or(0)
    }

    /// Bytes of the packed region.
    pub fn packed_bytes(&self) -> usize {
        size_of_val(self.region.as_slice())
    }

    /// Pack a checkpoint, with the type of each layer's matrices. The pooler is always f32.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] listing every tensor that is missing or misshapen.
    pub fn pack(
        config: &Config,
        checkpoint: &Checkpoint,
        dtypes: &[Dtype],
        isa: Isa,
        threads: usize,
    ) -> Result<Self> {
        assert_eq!(dtypes.len(), config.num_hidden_layers);
        let mut plan = Plan::new(config, checkpoint)?;
        let layers: Vec<Layer> =
            dtypes.iter().enumerate().map(|(layer, dtype)| plan.layer(config, layer, *dtype)).collect();
        let positions = plan.copy("embeddings.position_embeddings.weight");
        let token_types = plan.copy("embeddings.token_type_embeddings.weight");
        let embedding_norm = plan.norm("embeddings.LayerNorm");
        let pooler = plan.has_pooler.then(|| plan.linear("pooler.dense", config.hidden_size, Dtype::Float32));
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
    parts: Vec<Part>,
    /// Output columns come in groups of `columns.0`, each padded to `columns.1`; the length of the sum likewise.
    columns: Group,
    sum: Group,
    /// The block in which rows of the sum are rotated: that of the input, whoever rotates it.
    rotation: usize,
}

/// One tensor of a matrix and its bias.
#[derive(Clone, Debug)]
struct Part {
    weight: Tensor,
    bias: Tensor,
    /// For both.
    factor: f32,
    /// The block in which its output is rotated, 1 for none.
    rotation: usize,
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

    fn part(&self, name: &str) -> Part {
        let [weight, bias] = ["weight", "bias"].map(|kind| self.tensor(&format!("{name}.{kind}")));
        Part { weight, bias, factor: 1.0, rotation: 1 }
    }

    /// A matrix whose input is a row of `sum` values, rotated where it is made int8.
    fn linear(&mut self, name: &str, sum: usize, dtype: Dtype) -> Linear {
        let part = self.part(name);
        let columns = Group::padded_to_panels(part.bias.numel());
        let rotation = if dtype == Dtype::Int8 { rotation_of(sum) } else { 1 };
        self.matrix(vec![part], columns, Group::padded_to_panels(sum), dtype, rotation)
    }

    fn matrix(
        &mut self,
        parts: Vec<Part>,
        columns: Group,
        sum: Group,
        dtype: Dtype,
        rotation: usize,
    ) -> Linear {
        let rows: usize = parts.iter().map(|part| part.bias.numel()).sum();
        let n = rows / columns.size * columns.padded;
        let k = parts[0].weight.shape()[1] / sum.size * sum.padded;
        let to = Linear::reserve(&mut self.layout, n, k, dtype, rotation);
        self.matrices.push(Matrix { to: to.clone(), parts, columns, sum, rotation });
        to
    }

    fn layer(&mut self, config: &Config, layer: usize, dtype: Dtype) -> Layer {
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        let [query, key, value] =
            ["query", "key", "value"].map(|part| self.part(&name(&format!("attention.self.{part}"))));
        // Scores arrive as powers of two: the softmax then needs no multiplication.
        let scale = std::f32::consts::LOG2_E / (config.head_size() as f32).sqrt();
        let query = Part { factor: scale, ..query };
        // Values leave attention as they entered it, so their rotation is free for the output matrix.
        let int8 = dtype == Dtype::Int8;
        let [of_head, of_hidden] =
            [config.head_size(), config.hidden_size].map(|width| if int8 { rotation_of(width) } else { 1 });
        let value = Part { rotation: of_head, ..value };
        let (head, hidden) = (self.head, Group::padded_to_panels(config.hidden_size));
        let output = self.part(&name("attention.output.dense"));
        Layer {
            qkv: self.matrix(vec![query, key, value], head, hidden, dtype, of_hidden),
            attention_output: {
                let linear = self.matrix(vec![output], hidden, head, dtype, of_head);
                Linear { rotation: 1, ..linear }
            },
            attention_norm: self.norm(&name("attention.output.LayerNorm")),
            intermediate: self.linear(&name("intermediate.dense"), config.hidden_size, dtype),
            output: self.linear(&name("output.dense"), config.intermediate_size, dtype),
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
            for part in &matrix.parts {
                part.weight.release_pages();
                part.bias.release_pages();
            }
        }
        Ok(Region::Owned(Arc::new(block)))
    }
}

impl Part {
    /// Its weight, row by row, and its bias, both times the factor and rotated.
    fn read(&self, threads: usize) -> (Rows<'_>, Vec<f32>) {
        let [count, width] = [0, 1].map(|axis| self.weight.shape()[axis]);
        let mut bias = vec![0.0; count];
        self.bias.copy_to_f32(&mut bias);
        mix_rows(&mut bias, 1, self.rotation);
        bias.iter_mut().for_each(|x| *x *= self.factor);
        if self.rotation == 1 {
            return (Rows::Read(self), bias);
        }
        let mut rows = vec![0.0; count * width];
        Pool::global().for_each_chunk(threads, &mut rows, self.rotation * width, |block, out| {
            for (i, out) in out.chunks_exact_mut(width).enumerate() {
                self.row(block * self.rotation + i, out);
            }
            mix_rows(out, width, self.rotation);
        });
        (Rows::Made(rows), bias)
    }

    fn row(&self, row: usize, out: &mut [f32]) {
        self.weight.row_to_f32(row, out);
        if self.factor != 1.0 {
            out.iter_mut().for_each(|x| *x *= self.factor);
        }
    }
}

/// The rows of a part: read when they are wanted, or made before because each needs others.
enum Rows<'a> {
    Read(&'a Part),
    Made(Vec<f32>),
}

impl Rows<'_> {
    fn copy(&self, row: usize, out: &mut [f32]) {
        match self {
            Self::Read(part) => part.row(row, out),
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

impl Matrix {
    fn fill(&self, values: &mut [f32], isa: Isa, threads: usize) {
        let to = &self.to;
        let columns = to.k * to.dtype.per_word();
        let (rows, biases): (Vec<_>, Vec<_>) = self.parts.iter().map(|part| part.read(threads)).unzip();
        // All parts have as many rows.
        let per_part = biases[0].len();
        let source = |column: usize| {
            let row = self.columns.source(column)?;
            Some((row / per_part, row % per_part))
        };
        for (column, out) in values[to.bias.clone()].iter_mut().enumerate() {
            if let Some((part, row)) = source(column) {
                *out = biases[part][row];
            }
        }
        let width = self.parts[0].weight.shape()[1];
        // The scales and offsets lie behind the weight.
        let (words, behind) = values[to.weight.start..].split_at_mut(to.weight.len());
        let behind = Shared::new(behind);
        let per_column = |range: &Range<usize>, panel: usize| {
            let (start, len) = (range.start - to.weight.end, if range.is_empty() { 0 } else { PANEL });
            // SAFETY: each panel once, and the two ranges do not overlap.
            unsafe { behind.slice(start + panel * len..start + (panel + 1) * len) }
        };
        Pool::global().for_each_chunk(threads, words, to.k * PANEL, |panel, words| {
            let mut block = vec![0.0; PANEL * columns];
            let mut row = vec![0.0; width];
            for (i, block) in block.chunks_exact_mut(columns).enumerate() {
                let Some((part, from)) = source(panel * PANEL + i) else { continue };
                rows[part].copy(from, &mut row);
                for (group, out) in row.chunks(self.sum.size).zip(block.chunks_mut(self.sum.padded)) {
                    out[..group.len()].copy_from_slice(group);
                }
            }
            let (scales, offsets) = (per_column(&to.scales, panel), per_column(&to.offsets, panel));
            let packed = Packed { dtype: to.dtype, words, scales, offsets };
            isa.run(Pack::new(&mut block, columns, self.rotation, packed));
        });
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
