//! Where everything that a forward pass reads lies in one region, and what it is made of: the plan that packing, saving
//! and opening have in common.

use std::ops::Range;

use super::extras::{Extras, HeadPlan};
use crate::config::{Activation, Config};
use crate::head::Labels;
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

/// A head.
#[derive(Clone, Debug)]
pub struct Head {
    /// What it is, and how many outputs it has.
    pub plan: HeadPlan,
    /// What comes first. Always f32, as the pooler, which it may be.
    pub layer: Option<HeadLayer>,
    /// The linear map, of the type of the last layer's matrices where it is the vocabulary's, else f32.
    pub output: Linear,
}

/// The layer of a head.
#[derive(Clone, Debug)]
pub struct HeadLayer {
    /// The matrix.
    pub dense: Linear,
    /// What becomes of the product.
    pub activation: Activation,
    /// After it, if there is one.
    pub norm: Option<Norm>,
    /// Its width.
    pub width: usize,
}

/// All places, and what fills them.
#[derive(Debug)]
pub struct Structure {
    /// Position embeddings, rows of padded width.
    pub positions: Range<usize>,
    /// Token type embeddings, rows of padded width; nothing if there are none.
    pub token_types: Option<Range<usize>>,
    /// After the embeddings.
    pub embedding_norm: Norm,
    /// From the width of an embedding to that of a hidden state, where there is such a matrix. Always f32: it is small.
    pub widening: Option<Linear>,
    /// The layers that have weights of their own.
    pub layers: Vec<Layer>,
    /// The dense layer on the first token, if there is one.
    pub pooler: Option<Linear>,
    /// The head, if there is one.
    pub head: Option<Head>,
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
    /// The name of the weight.
    pub weight: String,
    /// The name of the bias.
    pub bias: String,
    /// For both.
    pub factor: f32,
    /// The block in which its output is rotated, 1 for none.
    pub rotation: usize,
}

impl Part {
    /// The pair that is called the same.
    fn new(name: &str, factor: f32, rotation: usize) -> Self {
        Self { weight: format!("{name}.weight"), bias: format!("{name}.bias"), factor, rotation }
    }
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
    pub fn new(config: &Config, dtypes: &[Dtype], extras: &Extras) -> Self {
        assert_eq!(dtypes.len(), config.num_hidden_groups);
        let mut plan = Plan { config, matrices: Vec::new(), tables: Vec::new(), layout: Layout::default() };
        let (names, hidden, width) = (&config.family.names, config.hidden_size, config.embedding_size);
        let layers = dtypes.iter().enumerate().map(|(layer, dtype)| plan.layer(layer, *dtype)).collect();
        let rows = |plan: &mut Plan<'_>, name: &str, rows: usize| {
            plan.table(&format!("{name}.weight"), Some(rows), width)
        };
        let positions = rows(&mut plan, names.positions, config.max_position_embeddings);
        let token_types = names.token_types.map(|name| rows(&mut plan, name, config.type_vocab_size));
        let embedding_norm = plan.norm(names.embedding_norm, width);
        let widening = config.widens().then(|| plan.dense(names.widening, hidden, width, Dtype::Float32));
        let pooler = names.pooler.filter(|_| extras.pooler);
        let pooler = pooler.map(|name| plan.dense(name, hidden, hidden, Dtype::Float32));
        // Behind all the rest: a file with a head is also one without it.
        let last = dtypes.last().copied().unwrap_or(Dtype::Float32);
        let head = extras.head.as_ref().map(|head| plan.head(head, pooler.as_ref(), last));
        let Plan { matrices, tables, layout, .. } = plan;
        Self {
            positions,
            token_types,
            embedding_norm,
            widening,
            layers,
            pooler,
            head,
            matrices,
            tables,
            layout,
        }
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
    /// Rows of this width, or a vector.
    fn table(&mut self, name: &str, rows: Option<usize>, width: usize) -> Range<usize> {
        let width = Groups::new(1, width);
        let to = self.layout.reserve(rows.unwrap_or(1) * width.len());
        self.tables.push(Table { name: name.to_owned(), to: to.clone(), rows, width });
        to
    }

    fn norm(&mut self, name: &str, width: usize) -> Norm {
        let [gamma, beta] = ["weight", "bias"].map(|kind| self.table(&format!("{name}.{kind}"), None, width));
        Norm { gamma, beta }
    }

    /// A matrix of one tensor, whose input is rotated where it is made int8.
    fn dense(&mut self, name: &str, columns: usize, sum: usize, dtype: Dtype) -> Linear {
        let part = Part::new(name, 1.0, 1);
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

    fn head(&mut self, plan: &HeadPlan, pooler: Option<&Linear>, dtype: Dtype) -> Head {
        let (config, inputs) = (self.config, plan.inputs(self.config));
        let layer = plan.head.layer.as_ref().map(|layer| {
            let dense = pooler.filter(|_| plan.has_pooler(config)).cloned();
            HeadLayer {
                dense: dense
                    .unwrap_or_else(|| self.dense(layer.name, inputs, config.hidden_size, Dtype::Float32)),
                activation: layer.activation.unwrap_or(config.hidden_act),
                norm: layer.norm.map(|name| self.norm(name, inputs)),
                width: inputs,
            }
        });
        // The decoder is as large as several layers, other maps are small.
        let is_decoder = plan.head.task.labels() == Labels::Vocabulary;
        let dtype = if is_decoder { dtype } else { Dtype::Float32 };
        let rotation = if dtype == Dtype::Int8 { rotation_of(inputs) } else { 1 };
        let (weight, bias) = (plan.weight.clone(), plan.bias.clone());
        let parts = vec![Part { weight, bias, factor: 1.0, rotation: 1 }];
        let (columns, sum) = (Groups::new(1, plan.outputs), Groups::new(1, inputs));
        let output = self.matrix(plan.head.name, parts, columns, sum, dtype, rotation);
        Head { plan: plan.clone(), layer, output }
    }

    fn layer(&mut self, layer: usize, dtype: Dtype) -> Layer {
        let config = self.config;
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (heads, head) = (config.num_attention_heads, config.head_size());
        let names = &config.family.names;
        let name = |part: &str| names.of_layer(layer, part);
        // Values leave attention as they entered it, so their rotation is free for the output matrix.
        let int8 = dtype == Dtype::Int8;
        let [of_head, of_hidden] = [head, hidden].map(|width| if int8 { rotation_of(width) } else { 1 });
        // Scores arrive as powers of two: the softmax then needs no multiplication.
        let scale = std::f32::consts::LOG2_E / (head as f32).sqrt();
        let parts = [(names.query, scale, 1), (names.key, 1.0, 1), (names.value, 1.0, of_head)];
        let parts = parts.map(|(part, factor, rotation)| Part::new(&name(part), factor, rotation));
        let output = name(names.attention_output);
        Layer {
            qkv: self.matrix(
                &name(names.qkv),
                parts.into(),
                Groups::new(3 * heads, head),
                Groups::new(1, hidden),
                dtype,
                of_hidden,
            ),
            attention_output: {
                let part = Part::new(&output, 1.0, 1);
                let (columns, sum) = (Groups::new(1, hidden), Groups::new(heads, head));
                let linear = self.matrix(&output, vec![part], columns, sum, dtype, of_head);
                Linear { rotation: 1, ..linear }
            },
            attention_norm: self.norm(&name(names.attention_norm), hidden),
            intermediate: self.dense(&name(names.intermediate), inner, hidden, dtype),
            output: self.dense(&name(names.output), hidden, inner, dtype),
            output_norm: self.norm(&name(names.output_norm), hidden),
        }
    }
}

/// Every tensor of a checkpoint that the encoder needs, with its shape.
pub fn required(config: &Config, extras: &Extras) -> Vec<(String, Vec<usize>)> {
    let (names, e, d, f) =
        (&config.family.names, config.embedding_size, config.hidden_size, config.intermediate_size);
    let tables = [
        (Some(names.words), config.vocab_size),
        (Some(names.positions), config.max_position_embeddings),
        (names.token_types, config.type_vocab_size),
    ];
    let mut wanted: Vec<_> = tables
        .into_iter()
        .filter_map(|(name, rows)| Some((format!("{}.weight", name?), vec![rows, e])))
        .collect();
    let mut pair = |name: &str, weight: Vec<usize>| {
        let n = weight[0];
        wanted.push((format!("{name}.weight"), weight));
        wanted.push((format!("{name}.bias"), vec![n]));
    };
    pair(names.embedding_norm, vec![e]);
    if config.widens() {
        pair(names.widening, vec![d, e]);
    }
    for layer in 0..config.num_hidden_groups {
        for (part, shape) in [
            (names.query, vec![d, d]),
            (names.key, vec![d, d]),
            (names.value, vec![d, d]),
            (names.attention_output, vec![d, d]),
            (names.attention_norm, vec![d]),
            (names.intermediate, vec![f, d]),
            (names.output, vec![d, f]),
            (names.output_norm, vec![d]),
        ] {
            pair(&names.of_layer(layer, part), shape);
        }
    }
    if let Some(name) = names.pooler.filter(|_| extras.pooler) {
        pair(name, vec![d, d]);
    }
    let Some(plan) = &extras.head else { return wanted };
    let inputs = plan.inputs(config);
    if let Some(layer) = plan.head.layer.as_ref().filter(|_| !plan.has_pooler(config)) {
        pair(layer.name, vec![inputs, d]);
        if let Some(norm) = layer.norm {
            pair(norm, vec![inputs]);
        }
    }
    if plan.weight != words(config) {
        wanted.push((plan.weight.clone(), vec![plan.outputs, inputs]));
    }
    wanted.push((plan.bias.clone(), vec![plan.outputs]));
    wanted
}

/// The tensor of the word embeddings, which are never packed.
pub fn words(config: &Config) -> String {
    format!("{}.weight", config.family.names.words)
}
