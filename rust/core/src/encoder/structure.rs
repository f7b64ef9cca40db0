//! Where everything that a forward pass reads lies in one region, and what it is made of: the plan that packing, saving
//! and opening have in common.

use std::ops::Range;

use crate::config::Config;
use crate::memory::Layout;
use crate::ops::convert::rotation_of;
use crate::ops::gemm::{Weight, left_panels};
use crate::ops::{Dtype, PANEL};

/// A packed matrix and its bias, as places in the region.
#[derive(Clone, Debug)]
pub struct Linear {
    /// What the words of the weight hold.
    pub dtype: Dtype,
    /// int8: the block in which its input is rotated, 1 where that is folded into what produces the input.
    pub rotation: usize,
    /// `[n / 32][k][32]` words.
    pub weight: Range<usize>,
    /// One value per padded column.
    pub bias: Range<usize>,
    /// int8: one value per padded column, else nothing.
    pub scales: Range<usize>,
    /// int8: one i32 per padded column, else nothing.
    pub offsets: Range<usize>,
    /// Words of a sum.
    pub k: usize,
}

impl Linear {
    /// Panels of its left operand.
    pub fn left_panels(&self) -> usize {
        left_panels(self.dtype, self.k)
    }

    /// The matrix for the product.
    pub fn weight<'a>(&self, region: &'a [f32]) -> Weight<'a> {
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
    pub fn reserve(layout: &mut Layout, n: usize, columns: usize, dtype: Dtype, rotation: usize) -> Self {
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

/// All places, and what fills them.
#[derive(Debug)]
pub struct Structure {
    /// Position embeddings, rows of padded width.
    pub positions: Range<usize>,
    /// Token type embeddings, rows of padded width.
    pub token_types: Range<usize>,
    /// After the embeddings.
    pub embedding_norm: Norm,
    /// The layers.
    pub layers: Vec<Layer>,
    /// The dense layer on the first token, if there is one.
    pub pooler: Option<Linear>,
    /// What the matrices are made of.
    pub matrices: Vec<Matrix>,
    /// What the embeddings and the LayerNorms are made of.
    pub tables: Vec<Table>,
    layout: Layout,
}

/// One matrix out of several tensors, one below the other, and how their rows and columns spread over padded ones.
#[derive(Debug)]
pub struct Matrix {
    /// Its name in a packed file.
    pub name: String,
    /// Where it lies.
    pub to: Linear,
    /// The pairs of weight and bias, all of one shape.
    pub parts: Vec<Part>,
    /// Output columns.
    pub columns: Groups,
    /// Terms of the sum.
    pub sum: Groups,
    /// The block in which rows of the sum are rotated: that of the input, whoever rotates it.
    pub rotation: usize,
}

/// One pair of tensors.
#[derive(Clone, Debug)]
pub struct Part {
    /// What comes before `.weight` and `.bias`.
    pub name: String,
    /// For both.
    pub factor: f32,
    /// The block in which its output is rotated, 1 for none.
    pub rotation: usize,
}

/// A tensor whose rows are copied, padded; a vector is one row.
#[derive(Debug)]
pub struct Table {
    /// Its name, in a checkpoint and in a packed file.
    pub name: String,
    /// Where it lies.
    pub to: Range<usize>,
    /// How many, `None` for a vector.
    pub rows: Option<usize>,
    /// Values of a row.
    pub width: Groups,
}

/// Values in groups, each padded to whole panels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// How many groups.
    pub count: usize,
    /// Values of a group.
    pub size: usize,
    /// Columns of a panel.
    pub panel: usize,
}

impl Groups {
    fn new(count: usize, size: usize) -> Self {
        Self { count, size, panel: PANEL }
    }

    /// The same values in panels of another width.
    pub fn in_panels_of(self, panel: usize) -> Self {
        Self { panel, ..self }
    }

    /// Values of a group with its padding.
    pub fn padded(self) -> usize {
        self.size.next_multiple_of(self.panel)
    }

    /// All values with their padding.
    pub fn len(self) -> usize {
        self.count * self.padded()
    }

    /// The value that lies at `i`, none for padding.
    pub fn value_at(self, i: usize) -> Option<usize> {
        let (group, at) = (i / self.padded(), i % self.padded());
        (at < self.size).then_some(group * self.size + at)
    }

    /// Where a value lies.
    pub fn place_of(self, value: usize) -> usize {
        value / self.size * self.padded() + value % self.size
    }
}

impl Structure {
    /// The plan of a model with these types of its layers' matrices. The pooler is always f32.
    pub fn new(config: &Config, dtypes: &[Dtype], pooler: bool) -> Self {
        assert_eq!(dtypes.len(), config.num_hidden_layers);
        let mut plan = Plan { config, matrices: Vec::new(), tables: Vec::new(), layout: Layout::default() };
        let hidden = config.hidden_size;
        let layers = dtypes.iter().enumerate().map(|(layer, dtype)| plan.layer(layer, *dtype)).collect();
        let positions =
            plan.table("embeddings.position_embeddings.weight", Some(config.max_position_embeddings));
        let token_types = plan.table("embeddings.token_type_embeddings.weight", Some(config.type_vocab_size));
        let embedding_norm = plan.norm("embeddings.LayerNorm");
        let pooler = pooler.then(|| plan.dense(POOLER, hidden, hidden, Dtype::Float32));
        let Plan { matrices, tables, layout, .. } = plan;
        Self { positions, token_types, embedding_norm, layers, pooler, matrices, tables, layout }
    }

    /// Values of the region.
    pub fn len(&self) -> usize {
        self.layout.len()
    }
}

struct Plan<'a> {
    config: &'a Config,
    matrices: Vec<Matrix>,
    tables: Vec<Table>,
    layout: Layout,
}

impl Plan<'_> {
    /// Rows as wide as the hidden state.
    fn table(&mut self, name: &str, rows: Option<usize>) -> Range<usize> {
        let width = Groups::new(1, self.config.hidden_size);
        let to = self.layout.reserve(rows.unwrap_or(1) * width.len());
        self.tables.push(Table { name: name.to_owned(), to: to.clone(), rows, width });
        to
    }

    fn norm(&mut self, name: &str) -> Norm {
        let [gamma, beta] = ["weight", "bias"].map(|kind| self.table(&format!("{name}.{kind}"), None));
        Norm { gamma, beta }
    }

    /// A matrix of one tensor, whose input is rotated where it is made int8.
    fn dense(&mut self, name: &str, columns: usize, sum: usize, dtype: Dtype) -> Linear {
        let part = Part { name: name.to_owned(), factor: 1.0, rotation: 1 };
        let rotation = if dtype == Dtype::Int8 { rotation_of(sum) } else { 1 };
        self.matrix(name, vec![part], Groups::new(1, columns), Groups::new(1, sum), dtype, rotation)
    }

    fn matrix(
        &mut self,
        name: &str,
        parts: Vec<Part>,
        columns: Groups,
        sum: Groups,
        dtype: Dtype,
        rotation: usize,
    ) -> Linear {
        let to = Linear::reserve(&mut self.layout, columns.len(), sum.len(), dtype, rotation);
        self.matrices.push(Matrix { name: name.to_owned(), to: to.clone(), parts, columns, sum, rotation });
        to
    }

    fn layer(&mut self, layer: usize, dtype: Dtype) -> Layer {
        let config = self.config;
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (heads, head) = (config.num_attention_heads, config.head_size());
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        // Values leave attention as they entered it, so their rotation is free for the output matrix.
        let int8 = dtype == Dtype::Int8;
        let [of_head, of_hidden] = [head, hidden].map(|width| if int8 { rotation_of(width) } else { 1 });
        // Scores arrive as powers of two: the softmax then needs no multiplication.
        let scale = std::f32::consts::LOG2_E / (head as f32).sqrt();
        let parts = [("query", scale, 1), ("key", 1.0, 1), ("value", 1.0, of_head)].map(
            |(part, factor, rotation)| Part {
                name: name(&format!("attention.self.{part}")),
                factor,
                rotation,
            },
        );
        let output = name("attention.output.dense");
        Layer {
            qkv: self.matrix(
                &name("attention.self.qkv"),
                parts.into(),
                Groups::new(3 * heads, head),
                Groups::new(1, hidden),
                dtype,
                of_hidden,
            ),
            attention_output: {
                let part = Part { name: output.clone(), factor: 1.0, rotation: 1 };
                let (columns, sum) = (Groups::new(1, hidden), Groups::new(heads, head));
                let linear = self.matrix(&output, vec![part], columns, sum, dtype, of_head);
                Linear { rotation: 1, ..linear }
            },
            attention_norm: self.norm(&name("attention.output.LayerNorm")),
            intermediate: self.dense(&name("intermediate.dense"), inner, hidden, dtype),
            output: self.dense(&name("output.dense"), hidden, inner, dtype),
            output_norm: self.norm(&name("output.LayerNorm")),
        }
    }
}

/// Every tensor of a checkpoint that the encoder needs, with its shape.
pub fn required(config: &Config, pooler: bool) -> Vec<(String, Vec<usize>)> {
    let (d, f) = (config.hidden_size, config.intermediate_size);
    let mut wanted = vec![
        (WORDS.to_owned(), vec![config.vocab_size, d]),
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
        pair(POOLER.to_owned(), vec![d, d]);
    }
    wanted
}

/// The word embeddings, which are never packed.
pub const WORDS: &str = "embeddings.word_embeddings.weight";

/// The dense layer on the first token.
pub const POOLER: &str = "pooler.dense";
