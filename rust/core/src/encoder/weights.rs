//! All that a forward pass reads, read-only.

use std::ops::Range;

use super::structure::{Layer, Linear, Norm, Structure};
use crate::checkpoint::Tensor;
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
    /// What lies in a region by a plan.
    pub fn new(region: Region, structure: Structure, words: Tensor, unused: Vec<String>) -> Self {
        let Structure { positions, token_types, embedding_norm, layers, pooler, .. } = structure;
        Self { region, words, positions, token_types, embedding_norm, layers, pooler, unused }
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
