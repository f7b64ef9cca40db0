//! All that a forward pass reads, read-only.

use std::ops::Range;

use super::structure::{Head, Layer, Linear, Norm, Structure};
use crate::checkpoint::Tensor;
use crate::config::Config;
use crate::memory::Region;
use crate::ops::Dtype;
use crate::ops::gemm::Weight;

/// The packed weights of a model, and its word embeddings.
#[derive(Debug)]
pub struct Weights {
    region: Region,
    /// Word embeddings, mapped from the checkpoint: a text touches a few rows only.
    pub words: Tensor,
    /// Position embeddings, rows of padded width.
    pub positions: Range<usize>,
    /// Token type embeddings, rows of padded width, if there are any.
    pub token_types: Option<Range<usize>>,
    /// After the embeddings.
    pub embedding_norm: Norm,
    /// Between the embeddings and the layers, if they differ in width.
    pub widening: Option<Linear>,
    /// Those layers that have weights of their own.
    layers: Vec<Layer>,
    /// Which of them each layer is.
    order: Vec<usize>,
    /// The dense layer on the first token, if the checkpoint has one.
    pub pooler: Option<Linear>,
    /// The head that was asked for.
    pub head: Option<Head>,
    /// Tensors of the checkpoint that no part of the encoder reads.
    pub unused: Vec<String>,
}

impl Weights {
    /// What lies in a region by a plan.
    pub fn new(
        region: Region,
        config: &Config,
        structure: Structure,
        words: Tensor,
        unused: Vec<String>,
    ) -> Self {
        let Structure { positions, token_types, embedding_norm, widening, layers, pooler, head, .. } =
            structure;
        let order = (0..config.num_hidden_layers).map(|layer| config.weights_of(layer)).collect();
        Self {
            region,
            words,
            positions,
            token_types,
            embedding_norm,
            widening,
            layers,
            order,
            pooler,
            head,
            unused,
        }
    }

    /// How many layers there are.
    pub fn layers(&self) -> usize {
        self.order.len()
    }

    /// A layer; `None` behind the last.
    pub fn layer(&self, layer: usize) -> Option<&Layer> {
        self.order.get(layer).map(|&own| &self.layers[own])
    }

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
            .chain(self.head.as_ref().map(|head| &head.output))
            .filter(|linear| linear.dtype != Dtype::Float32)
            .map(Linear::left_panels)
            .max()
            .unwrap_or(0)
    }

    /// Bytes of the packed region.
    pub fn packed_bytes(&self) -> usize {
        size_of_val(self.region.as_slice())
    }

    /// Whether the packed region is a file's, which all processes share, or this process's own.
    pub fn is_mapped(&self) -> bool {
        matches!(self.region, Region::Mapped(..))
    }
}
